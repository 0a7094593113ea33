"""A schedule decides what the last step is worth: linear decay is as good as any method can be.

Claim
    On convex f with slopes of at most G, begun at distance D from a minimizer, the last of N steps that decay linearly has
    f - f* <= D G / sqrt(N + 1), and some f attains it; a constant rate loses a logarithm, and every schedule obeys one general bound.
Theory
    Linear decay and the best constant rate: Zamani and Glineur (2023); no method does better than D G / sqrt(N + 1) (Drori and Teboulle
    2016, appendix A). Any schedule: Defazio et al. (2023) and Schaipp et al. (2025), for a constant rate sqrt((1 + H_{T-1}) / T).
Sweep
    Functions max_j |a_j'x| that lean from max |x_i| on, begun with all rows equal, and |x_1|; schedules; base rates from 1/30 to 30 times
    the best.
Expect
    The worst final value of each schedule below its bound at every rate; linear decay on max |x_i| at D G / sqrt(N + 1).
Command
    gdjax experiment=last_iterate
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import figures
from gdjax.methods import schedules
from gdjax.records import Finding, InputError, Lanes, Problem, unknown_name, whole
from gdjax.theory import last_iterate as theory

EXACT = {"float64": 1e-10, "float32": 1e-2}
"""By precision: `TIE` units of round-off, as much as a subgradient may belong to another row."""


class Schedule(NamedTuple):
    """A schedule's shape, and its method by name, which takes the horizon where `horizon` says so."""

    label: str
    method: str
    shape: Callable[..., Any]
    horizon: bool = True


SCHEDULES = {
    "constant": Schedule("constant", "sgd", schedules.constant, horizon=False),
    "inverse_sqrt": Schedule("1/√t", "inverse_sqrt_sgd", schedules.inverse_sqrt, horizon=False),
    "wsd": Schedule("WSD", "wsd_sgd", schedules.wsd),
    "cosine": Schedule("cosine", "cosine_sgd", schedules.cosine),
    "linear": Schedule("linear", "linear_sgd", schedules.linear),
}

MOST_LEAN, SINGLE = 0.6, 1.0
"""Functions lean from 0 to this, further they are no worse; and the number that stands for |x_1|."""

TIE = 1e4
"""Values so many units of round-off apart are equal."""

SPREAD = 30.0
"""Base rates reach from 1 / SPREAD to SPREAD times the best."""


def farthest(lanes: Lanes, constants: dict[str, Any], examples: Any, weights: Any) -> tuple[Float[Array, " lanes"], Lanes]:
    """max_j |a_j'x| and its subgradient sign(a_j'x) a_j at the first j that attains it, as far as round-off tells, for every lane."""
    rows = constants["rows"]
    products = jnp.matmul(rows, lanes, precision="highest")
    sizes = jnp.abs(products)
    largest = jnp.max(sizes, axis=0, keepdims=True)
    first = jnp.argmax(sizes >= (1.0 - TIE * jnp.finfo(sizes.dtype).eps) * largest, axis=0)
    chosen = jnp.arange(len(rows))[:, None] == first[None, :]  # one a lane
    return largest[0], jnp.matmul(rows.T, jnp.where(chosen, jnp.sign(products), 0.0), precision="highest")


def leaning(lean: Any, *, num_rows: int) -> Problem:
    """max_j |a_j'x| in as many parameters m as rows of length 1, begun at distance 1 from its minimizer 0, with all a_j'x equal: D = G = 1.

    a_j = beta_j e_j - sum_{i < j} alpha_i e_i with alpha_i = lean / (m - i), i = 0 .. m - 1: at lean 0 it is max |x_i|, whose steps leave
    the other rows alone; above, a step down on one row is one up on all that follow, most on the last ones (as in Harvey et al. 2019).
    At lean `SINGLE` it is |x_1|, on which too small a rate shows.
    """
    single = lean == SINGLE
    place = jnp.arange(float(num_rows))
    alpha = jnp.where(single, 0.0, lean) / (num_rows - place)
    beta = jnp.sqrt(1.0 - (jnp.cumsum(alpha**2) - alpha**2))
    growth = jnp.cumprod(1.0 + alpha / beta)
    start = jnp.where(single, place == 0, growth / (1.0 + alpha / beta) / beta)  # solves a_j'x = 1 for all j
    below, same = place[:, None] > place[None, :], place[:, None] == place[None, :]
    rows = jnp.where(below, -alpha[None, :], jnp.where(same, beta[None, :], 0.0))
    rows = jnp.where(single, jnp.broadcast_to(place == 0, rows.shape), rows)
    return Problem(
        evaluate=farthest,
        name="max_j |a_j'x|",
        constants={"rows": rows},
        start=start / jnp.sqrt(jnp.sum(start**2)),
        minimizer=jnp.zeros(num_rows),
        minimum=jnp.zeros(()),
    )


def leans(num_functions: int) -> np.ndarray:
    """So many functions: from max |x_i| on, and |x_1|."""
    return np.append(np.linspace(0.0, MOST_LEAN, whole("num_functions", num_functions, least=2) - 1), SINGLE)


@functools.cache
def family(num_rows: int) -> Callable[[float], Problem]:
    """`leaning` of one size as a function of `lean`, the same object in every sweep so that its programs are shared."""

    def build(lean: float) -> Problem:
        with jax.enable_x64(True):
            return leaning(lean, num_rows=num_rows)

    return build


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 127,
    schedule: Sequence[str] | str = tuple(SCHEDULES),
    num_functions: int = 14,
    num_rates: int = 31,
) -> xr.DataTree:
    """Run every schedule on every function, at base rates on both sides of its best, and the two of Zamani and Glineur at theirs.

    Parameters
    ----------
    num_steps
        N; the functions have N + 1 parameters.
    schedule
        Which of SCHEDULES.
    num_functions
        How many, from max |x_i| on, and |x_1|.
    """
    num_steps = whole("num_steps", num_steps, least=2)
    relative = np.geomspace(1.0 / SPREAD, SPREAD, whole("num_rates", num_rates, least=3) | 1)  # odd: the best is among them
    of_all: Any = {"sampler": "full", "num_steps": num_steps, "record_every": num_steps, "lean": leans(num_functions)}
    parts = {}
    for name in _chosen(schedule):
        part = sweep(
            family(num_steps + 1),
            method=SCHEDULES[name].method,
            learning_rate=theory.best_base_rate(shape(name, num_steps)) * relative,
            **({"horizon": num_steps + 1.0} if SCHEDULES[name].horizon else {}),
            **of_all,
        )
        parts[name] = part
    best, decay = theory.best_constant_rate(num_steps), theory.linear_decay_rate(num_steps)
    parts["best_constant"] = sweep(family(num_steps + 1), method="sgd", learning_rate=best, **of_all)
    parts["linear_decay"] = sweep(family(num_steps + 1), method="linear_sgd", learning_rate=decay, horizon=float(num_steps), **of_all)
    return xr.DataTree.from_dict(parts)


def _chosen(schedule: Sequence[str] | str) -> list[str]:
    names = [schedule] if isinstance(schedule, str) else list(schedule)
    for name in names:
        if name not in SCHEDULES:
            raise unknown_name("schedule", str(name), SCHEDULES)
    if not names:
        raise InputError(f"schedule=[] is not allowed: it is one or more of {', '.join(SCHEDULES)}.")
    return names


def shape(name: str, num_steps: int) -> np.ndarray:
    """The shape eta_1 .. eta_T at T = N + 1 points, of which the last takes no step."""
    schedule, at = SCHEDULES[name], np.arange(num_steps + 1.0)
    with jax.enable_x64(True):
        return np.asarray(schedule.shape(at, num_steps + 1.0) if schedule.horizon else schedule.shape(at))


def check(results: xr.DataTree) -> list[Finding]:
    """No schedule ends above its bound, at any rate, on any function; linear decay attains its own, which nothing is below."""
    shapes = {name: part.to_dataset() for name, part in results.children.items() if name in SCHEDULES}
    constant, decay = (results[name].to_dataset() for name in ("best_constant", "linear_decay"))
    num_steps = int(decay.step[-1])
    slack = EXACT[decay.attrs["precision"]]
    findings = [
        Finding(
            claim=f"linear decay: f - f* after {num_steps} steps on max |x_i|, begun with all equal, is D G / sqrt(N + 1)",
            predicted=theory.optimal_bound(num_steps),
            measured=float(ended(decay).sel(lean=0)),
            tolerance=slack,
            source="Zamani and Glineur 2023; the lower bound of any method is that of Drori and Teboulle 2016, appendix A",
        ),
        Finding(
            claim=f"linear decay: largest f - f* on {decay.sizes['lean']} functions with D = G = 1",
            predicted=theory.optimal_bound(num_steps),
            measured=float(ended(decay).max()),
            tolerance=slack,
            source="D G / sqrt(N + 1), Zamani and Glineur 2023",
            kind="at_most",
        ),
        Finding(
            claim=f"the best constant rate: largest f - f* on {constant.sizes['lean']} functions with D = G = 1",
            predicted=theory.best_constant_bound(num_steps),
            measured=float(ended(constant).max()),
            tolerance=slack,
            source="D G sqrt(1 + ln(N) / 4) / sqrt(N + 1), Zamani and Glineur 2023",
            kind="at_most",
        ),
        Finding(
            claim="the best constant rate: largest f - f* on those functions, more than linear decay ever has",
            predicted=theory.optimal_bound(num_steps),
            measured=float(ended(constant).max()),
            tolerance=0.0,
            source="a constant rate's last step loses a logarithm (Harvey et al. 2019, Zamani and Glineur 2023)",
            kind="at_least",
        ),
    ]
    for name, one in shapes.items():
        findings.append(_below_its_bound(name, one, num_steps, slack))
    if "constant" in shapes:
        findings.append(_closed_form(num_steps))
    return findings


def ended(one: xr.Dataset) -> xr.DataArray:
    """f - f* of the last step."""
    return one.suboptimality.isel(step=-1)


def _below_its_bound(name: str, one: xr.Dataset, num_steps: int, slack: float) -> Finding:
    bound = theory.last_iterate_bound(shape(name, num_steps), one.learning_rate.values)
    return Finding(
        claim=f"{SCHEDULES[name].label}: largest f - f* of {one.sizes['lean']} functions and {one.sizes['learning_rate']} base rates, "
        "over its bound at that rate",
        predicted=1.0,
        measured=float((ended(one) / xr.DataArray(bound, dims="learning_rate")).max()),
        tolerance=slack,
        source="Defazio et al. 2023; Schaipp et al. 2025: the general bound on the last iterate",
        kind="at_most",
    )


def _closed_form(num_steps: int) -> Finding:
    return Finding(
        claim=f"the general bound of a constant rate, its base rate the best, at T = {num_steps + 1}",
        predicted=theory.constant_bound(num_steps + 1),
        measured=theory.best_last_iterate_bound(shape("constant", num_steps)),
        tolerance=1e-12,
        source="D G sqrt((1 + H_{T-1}) / T), Schaipp et al. 2025",
    )


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """The worst final value against the base rate, and each schedule's bound at its best rate against the number of steps."""
    drawn, panels = figures.figure(2, width=7.0, height=3.2)
    shapes = {name: part.to_dataset() for name, part in results.children.items() if name in SCHEDULES}
    num_steps = int(results["linear_decay"].step[-1])
    _draw_rates(panels[0, 0], shapes, num_steps)
    _draw_bounds(panels[0, 1], list(shapes), num_steps)
    figures.source(
        drawn,
        f"f = max$_j$ |a$_j$'x|, |a$_j$| = 1, begun at distance 1 from its minimizer: {results['linear_decay'].sizes['lean']} functions "
        f"of {num_steps + 1} parameters, N = {num_steps} steps.\nLeft: the largest f − f* of all, dashed its bound (Schaipp et al. 2025). "
        "Right: the bounds at each schedule's best base rate, times √T; dotted what is tight\n"
        "(Zamani and Glineur 2023): 1 is the lower bound of any method.",
    )
    return {"last_iterate": drawn}


def _draw_rates(axes: Axes, shapes: dict[str, xr.Dataset], num_steps: int) -> None:
    for (name, one), color in zip(shapes.items(), figures.COLORS, strict=False):
        rates, worst = one.learning_rate.values, ended(one).max("lean").values
        axes.plot(rates, worst, color=color, label=SCHEDULES[name].label)
        axes.plot(rates, theory.last_iterate_bound(shape(name, num_steps), rates), color=color, linestyle=(0, (3, 2)), linewidth=0.9)
    axes.axhline(theory.optimal_bound(num_steps), color="black", linewidth=0.9, linestyle=":")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="base rate γ (D/G)",
        ylabel="largest f(x$_T$) − f* (DG)",
        title="the last step, on the worst function",
    )


def _draw_bounds(axes: Axes, names: list[str], num_steps: int) -> None:
    counts = np.unique(np.geomspace(4, 1e5, 25).astype(int))
    for name, color in zip(names, figures.COLORS, strict=False):
        values = [theory.best_last_iterate_bound(shape(name, int(count) - 1)) * np.sqrt(count) for count in counts]
        axes.plot(counts, values, color=color, linestyle=(0, (3, 2)))
        axes.plot([], [], color=color, label=SCHEDULES[name].label)
    tight = [theory.best_constant_bound(int(count) - 1) * np.sqrt(count) for count in counts]
    axes.plot(counts, tight, color=figures.COLORS[0], linestyle=":")
    axes.axhline(1.0, color="black", linewidth=0.9, linestyle=":")
    axes.set(xscale="log", xlabel="points T = N + 1", ylabel="bound on f(x$_T$) − f*  (DG / √T)", title="what the last step is promised")
    axes.legend(loc="upper left", ncols=2)
