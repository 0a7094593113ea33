"""The noisy quadratic model: doubling the batch halves the steps, until it doesn't, and momentum puts that off.

Claim
    At each batch size's best rate, the steps to a target fall as 1 / B while noise binds, and level off where curvature does. The best
    rate grows with B until the stability limit. Momentum moves the knee to batches at least 16 times larger, preconditioning too.
Theory
    E f(x_t) = sum_i (1 - alpha h_i)^(2t) h_i x_0i^2 / 2 + (1 - (1 - alpha h_i)^(2t)) alpha c_i / (2 B (2 - alpha h_i)) (Zhang et al.
    2019), and the same exactly with momentum; with h_i = c_i = 1 / i, i <= 10^4. No unbiased method needs less than K / (2 C) examples
    to a target C.
Sweep
    Predicted: 21 batch sizes x 128 rates for each of SGD, momentum and preconditioned SGD, a program each. Measured: a small model
    with real noise through the engine, SGD and heavy ball at their best rates, batch sizes x seeds.
Expect
    Lines of slope -1 that bend into a plateau, momentum's far to the right; measured means on their exact curves, which pass the
    target where predicted.
Command
    gdjax experiment=noisy_quadratic
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import noisy_quadratic as theory

KINDS = ("SGD", "momentum", "preconditioned")

FARTHER = {"momentum": 16.0, "preconditioned": 8.0}
"""How many times larger than SGD's their knee is at least."""

POWER = 0.5
"""Of the preconditioner: steps are multiplied by h^-1/2."""

LARGEST = 20
"""Batches go up to 2^20."""

NOISE_BOUND = 64
"""Batches up to here are far from the knee."""

TOGETHER: Any = {"coords": "different", "compat": "equals"}
"""Rates differ between runs that are put together."""

NUM_RECORDS = 200
"""Of a measured run, which goes on for twice the steps that it should need to the target."""


def pushed(
    lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: Float[Array, "rows p"], weights: Any
) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
    """Evaluate sum_i h_i x_i^2 / 2 - push'x, the push being the examples' weighted sum."""
    push = weights * jnp.sum(examples, axis=0) if jnp.ndim(weights) == 0 else weights @ examples
    gradient = constants["eigenvalues"][:, None] * lanes
    return 0.5 * jnp.sum(lanes * gradient, axis=0) - push @ lanes, gradient - push[:, None]


def noisy(model: theory.Model, num_examples: int) -> Problem:
    """The model with real noise: examples push with mean 0 and with covariance c exactly, so that batches drawn with replacement do too."""
    curvatures, num_modes = np.asarray(model.curvatures), len(model.curvatures)
    columns = np.random.default_rng(0).normal(size=(num_examples, num_modes + 1))
    columns[:, 0] = 1.0
    orthonormal = np.linalg.qr(columns)[0][:, 1:]
    return Problem(
        evaluate=pushed,
        name="noisy_quadratic",
        data=np.sqrt(num_examples * np.asarray(model.noise)) * orthonormal,
        constants={"eigenvalues": curvatures},
        start=np.asarray(model.start),
        minimizer=np.zeros(num_modes),
        minimum=0.0,
        smoothness=curvatures.max(),
        strong_convexity=curvatures.min(),
        hessian=np.diag(curvatures),  # pyright: ignore[reportArgumentType]
    )


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_modes: int = 10_000,
    target: float = 0.01,
    momentum: float = 0.9,
    num_rates: int = 64,
    num_measured_modes: int = 50,
    measured_target: float = 0.05,
    batch_size: Sequence[int] | int = (1, 8, 64),
    num_seeds: int = 256,
) -> xr.DataTree:
    """Search the best rates of the model, and measure a smaller one.

    Parameters
    ----------
    num_rates
        Of each of the search's two passes.
    num_measured_modes, measured_target, batch_size
        Of the model that runs with real noise, whose examples are 256 or so many as its modes and batches need.
    """
    for name, value, high in (("target", target, math.inf), ("measured_target", measured_target, math.inf), ("momentum", momentum, 1.0)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < high:
            raise InputError(f"{name}={value} is not allowed: it is a number above 0{'' if high == math.inf else ' and below 1'}.")
    whole("num_rates", num_rates, least=3)
    sizes = [whole("batch_size", size) for size in several("batch_size", batch_size)]
    search = _search(theory.zhang(whole("num_modes", num_modes)), target, momentum, num_rates)
    model = theory.zhang(whole("num_measured_modes", num_measured_modes))
    problem = noisy(model, max(256, num_measured_modes + 1, *sizes))
    seeds = range(whole("num_seeds", num_seeds, least=2))
    measured = [
        xr.concat(
            [_measured(sweep, problem, model, size, beta, measured_target, num_rates, seeds) for size in sizes], "batch_size", **TOGETHER
        )
        for beta in (0.0, momentum)
    ]
    both = xr.concat(measured, xr.IndexVariable("momentum", [0.0, momentum]), **TOGETHER)
    return xr.DataTree.from_dict({"search": search, "measured": both.assign_attrs(num_modes=num_measured_modes, target=measured_target)})


def _search(model: theory.Model, target: float, momentum: float, num_rates: int) -> xr.Dataset:
    """The best rate and its steps to the target, for each kind and batch size."""
    sizes = 2.0 ** np.arange(LARGEST + 1)
    kinds = ((model, 0.0), (model, momentum), (theory.preconditioned(model, POWER), 0.0))
    with precision("float64"):
        found = [theory.best_rates(one, sizes, target, momentum=beta, num_rates=num_rates) for one, beta in kinds]
    variables = {name: (("kind", "batch_size"), np.stack([getattr(best, name) for best in found])) for name in ("learning_rate", "steps")}
    return xr.Dataset(
        variables,
        {"kind": list(KINDS), "batch_size": sizes},
        {"num_modes": len(model.curvatures), "target": target, "momentum": momentum, "searched": sum(best.searched for best in found)},
    )


def _measured(
    sweep: Callable[..., xr.Dataset],
    problem: Problem,
    model: theory.Model,
    size: int,
    beta: float,
    target: float,
    num_rates: int,
    seeds: Any,
) -> xr.Dataset:
    """The loss along runs at the best rate, for twice the steps that it should take to the target."""
    with precision("float64"):
        best = theory.best_rates(model, np.array([float(size)]), target, momentum=beta, num_rates=num_rates)
    if not np.isfinite(best.steps[0]):
        raise InputError(f"measured_target={target:g} is not allowed: batches of {size} don't reach it within 2^27 steps at any rate.")
    every = max(1, math.ceil(2 * best.steps[0] / NUM_RECORDS))
    one = sweep(
        problem,
        method="heavy_ball",
        sampler="with_replacement",
        num_steps=every * NUM_RECORDS,
        record_every=every,
        batch_size=size,
        seed=seeds,
        learning_rate=float(best.learning_rate[0]),
        momentum=beta,
    )
    loss = one.suboptimality.rename(step="record").drop_vars(("record", "epoch"))
    return xr.Dataset(
        {"loss": loss, "at": ("record", one.step.values), "needed": float(best.steps[0])}, attrs={"precision": one.attrs["precision"]}
    ).drop_vars("momentum")


def check(results: xr.DataTree) -> list[Finding]:
    """Compare the search with the laws of scaling, and the measured means with the exact ones."""
    search, measured = results["search"].to_dataset(), results["measured"].to_dataset()
    return [*_scaling_findings(search), *(_measured_finding(one, late) for one in _runs(measured) for late in (False, True))]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Steps and best rates against the batch size; measured runs beside their exact means."""
    search, measured = results["search"].to_dataset(), results["measured"].to_dataset()
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_steps(panels[0, 0], search)
    _draw_rates(panels[0, 1], search)
    _draw_measured(panels[0, 2], measured)
    attrs = search.attrs
    figures.source(
        drawn,
        f"Left and middle: exact expectations, h$_i$ = c$_i$ = 1/i, {attrs['num_modes']:,} modes, target {attrs['target']:g}, best of "
        f"{attrs['searched']:,} settings. Momentum {attrs['momentum']:g}; preconditioned: steps times h$^{{-1/2}}$.\n"
        f"Right: {measured.attrs['num_modes']} modes through the engine, at the best rates: mean of {measured.sizes['seed']} seeds, bands "
        "10–90 %; solid SGD, thin heavy ball. Dashed: exact mean.",
    )
    return {"noisy_quadratic": drawn}


def knee(steps: xr.DataArray) -> float:
    """The batch size at which perfect scaling from the smallest batch on would meet the plateau of the largest."""
    return float(steps[0] * steps.batch_size[0] / steps[-1])


def _scaling_findings(search: xr.Dataset) -> list[Finding]:
    sgd = search.sel(kind="SGD")
    small = sgd.sel(batch_size=slice(None, NOISE_BOUND))
    slope = np.polyfit(np.log(small.batch_size), np.log(small.steps), 1)[0]
    relative = (small.learning_rate / small.batch_size).values
    relative = relative / relative[0]
    sgd_knee = knee(sgd.steps)
    findings = [
        Finding(
            claim=f"perfect scaling: slope of log steps against log B, B ≤ {NOISE_BOUND}",
            predicted=-1.0,
            measured=float(slope),
            tolerance=0.03,
            source="Zhang et al. 2019, section 3; Shallue et al. 2019",
        ),
        Finding(
            claim=f"the plateau: steps with B = 2^{LARGEST} over those with B = 2^14",
            predicted=0.9,
            measured=float(sgd.steps.sel(batch_size=2.0**LARGEST) / sgd.steps.sel(batch_size=2.0**14)),
            tolerance=0.0,
            source="Zhang et al. 2019, section 3: curvature binds",
            kind="at_least",
        ),
        Finding(
            claim=f"the best rate is proportional to B: rate / B over that at B = 1, the farthest from 1 of all B ≤ {NOISE_BOUND}",
            predicted=1.0,
            measured=float(relative[np.abs(relative - 1.0).argmax()]),
            tolerance=0.1,
            source="noise floor alpha c / (2 B (2 - alpha h)): alpha / B decides where noise binds",
        ),
        Finding(
            claim=f"no method at any batch size sees fewer examples than K / (2 target), K = {search.attrs['num_modes']}",
            predicted=theory.least_examples(search.attrs["num_modes"], search.attrs["target"]),
            measured=float((search.steps * search.batch_size).min()),
            tolerance=0.0,
            source="Cramér and Rao's bound on the minimizer's estimate",
            kind="at_least",
        ),
    ]
    return findings + [
        Finding(
            claim=f"the knee, where perfect scaling meets the plateau: {kind} over SGD",
            predicted=least,
            measured=knee(search.steps.sel(kind=kind)) / sgd_knee,
            tolerance=0.0,
            source="Zhang et al. 2019, section 3",
            kind="at_least",
        )
        for kind, least in FARTHER.items()
    ]


def _runs(measured: xr.Dataset) -> Iterator[xr.Dataset]:
    """Each measured setting."""
    for beta in measured.momentum:
        for size in measured.batch_size:
            yield measured.sel(momentum=beta, batch_size=size)


def _exact(one: xr.Dataset, num_modes: int) -> Float[np.ndarray, " records"]:
    model, rate, beta = theory.zhang(num_modes), float(one.learning_rate), float(one.momentum)
    with precision("float64"):
        at = jnp.asarray(one["at"].values)
        return np.asarray(jax.vmap(lambda t: theory.expected_loss_with_momentum(model, rate, float(one.batch_size), beta, t))(at))


def _measured_finding(one: xr.Dataset, late: bool) -> Finding:
    """At the record next to the predicted steps; or over those after it, which together say more."""
    reached = int(np.abs(one["at"].values - float(one.needed)).argmin())
    chosen = slice(reached, None) if late else slice(reached, reached + 1)
    exact = float(_exact(one, one.attrs["num_modes"])[chosen].mean())
    samples = one.loss.isel(record=chosen).mean("record")
    where = "from there on" if late else f"at step {int(one['at'][reached])}, where the target {one.attrs['target']:g} is due"
    name = f"heavy ball {float(one.momentum):g}" if float(one.momentum) else "SGD"
    return Finding(
        claim=f"{name}, B = {int(one.batch_size)}, {one.attrs['num_modes']} modes: mean loss of {samples.size} seeds {where} "
        "(4 standard errors)",
        predicted=exact,
        measured=float(samples.mean()),
        tolerance=analysis.ROUND_OFF[one.attrs["precision"]][1] + float(4.0 * analysis.standard_error(samples, "seed")) / exact,
        source="exact mean and variance of each mode (Zhang et al. 2019, equation 2; Thm 1 bounds the latter)",
    )


def _draw_steps(axes: Axes, search: xr.Dataset) -> None:
    sizes = search.batch_size.values
    for kind, color in zip(KINDS, figures.COLORS, strict=False):
        steps = search.steps.sel(kind=kind)
        axes.plot(sizes, steps, color=color, label=kind)
        axes.plot([knee(steps)], [steps[-1]], marker="D", markersize=4, color=color, linestyle="none")
    sgd = search.steps.sel(kind="SGD")
    figures.dashed(axes, sizes, float(sgd[0]) / sizes, bounds=(10.0, 1e9), label="∝ 1/B")
    least = theory.least_examples(search.attrs["num_modes"], search.attrs["target"])
    axes.plot(sizes, least / sizes, color="0.4", linestyle=":", label="K/(2CB)")
    low, high = float(search.steps.min()), float(search.steps.max())
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="steps to the target", ylim=(0.3 * low, 3.0 * high))
    axes.set_title("fewest steps; diamonds: the knee")
    axes.legend(loc="best")


def _draw_rates(axes: Axes, search: xr.Dataset) -> None:
    sizes = search.batch_size.values
    for kind, color in zip(KINDS, figures.COLORS, strict=False):
        rates = search.learning_rate.sel(kind=kind)
        axes.plot(sizes, rates, color=color)
        figures.dashed(axes, sizes, float(rates[0]) * sizes, bounds=(1e-6, 3.0))
    axes.axhline(2.0, color="0.4", linewidth=0.7, linestyle=":")
    axes.annotate("2/L", (1.0, 2.0), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="0.4")
    low = float(search.learning_rate.min())
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="best learning rate α", ylim=(0.5 * low, 8.0))
    axes.set_title("dashed: proportional to B")


def _draw_measured(axes: Axes, measured: xr.Dataset) -> None:
    bounds = (0.2 * measured.attrs["target"], 2.0 * float(measured.loss.max()))
    colors = dict(zip(measured.batch_size.values.tolist(), figures.COLORS[3:] * 3, strict=False))
    for one in _runs(measured):
        size, plain = int(one.batch_size), not float(one.momentum)
        style: dict[str, Any] = {"label": f"B = {size}", "linewidth": 1.6} if plain else {"linewidth": 0.8}
        figures.band(axes, one["at"].values[1:], one.loss.isel(record=slice(1, None)), bounds=bounds, color=colors[size], **style)
        figures.dashed(axes, one["at"].values[1:], _exact(one, measured.attrs["num_modes"])[1:], bounds=bounds, linewidth=0.7)
    axes.axhline(measured.attrs["target"], color="0.4", linewidth=0.9, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="loss  f(x$_t$)", ylim=bounds)
    axes.set_title("with real noise")
    axes.legend(loc="best")
