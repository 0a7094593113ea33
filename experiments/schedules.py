"""What a schedule of the rate is worth when gradients are noisy: each at its own best rate, on one budget.

Claim
    On the noisy quadratic with T steps, each schedule at its best base rate, the risk falls from 6.0 to 2.0 times d / (2 T) in the order
    constant, 1/t, 1/sqrt t, WSD, step decay, linear, cosine; on least squares every schedule follows the exact recursion of its moments.
Theory
    v <- (1 - eta_t h)^2 v + eta_t^2 c mode by mode (Ge et al. 2019; Zhang et al. 2019); for least squares E ee' with a rate a step. The
    page cuts the rate on a plateau, which depends on the losses and has no such recursion: with patience 5 and a stop after 10 epochs
    without a better one, a stall holds one cut at most (its section 4, level 4), but gains too small for the scheduler, below 1e-4, count
    for the stop, so that there can be many before it; and NaN counts as a stall.
Sweep
    Schedules x base rates, tuned by the exact recursion on the noisy quadratic, and on half of the seeds on the given problem, where the
    other half tells what they are worth.
Expect
    Dots of the exact risk inside the bars of the measured one; held-out curves on their dashed expectations.
Command
    gdjax experiment=schedules
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.adaptive_methods import in_order
from gdjax import analysis, figures, problems, theory
from gdjax.methods import schedules as shapes
from gdjax.records import Finding, InputError, Lanes, Problem, unknown_name, whole
from gdjax.theory import noisy_schedules

MANY_ERRORS = 4.0
"""Standard errors within which a mean is expected of its exact value."""

SAFE = 0.6
"""In units of the mean-square limit; nearer to it means are made by a few runs out of thousands."""

REFERENCE_STEPS, REFERENCE_MODES = 20000, 100
REFERENCE_RATES = np.geomspace(1e-3, 1.5, 25)
"""A coarse grid at whose best rates all seven risks are the reference's, with 1 / (1 + eta mu t / 2) for its 1/t: inferred from that."""

OFFSETS = (50.0, 200.0, 600.0)
"""Other decays of 1 / (1 + decay t / T)."""


class Schedule(NamedTuple):
    """A schedule: its method by name, its shape, and its risk over d / (2 T) at REFERENCE_STEPS, computed independently."""

    label: str
    method: str
    shape: Callable[..., Any] | None
    reference: float | None = None
    horizon: bool = True


SCHEDULES = {
    "constant": Schedule("constant", "sgd", shapes.constant, 6.04, horizon=False),
    "inverse_time": Schedule("1/(1 + 2t/T)", "inverse_time_sgd", shapes.inverse_time, 4.12),
    "inverse_sqrt": Schedule("1/√t", "inverse_sqrt_sgd", shapes.inverse_sqrt, 3.57, horizon=False),
    "wsd": Schedule("WSD", "wsd_sgd", shapes.wsd, 3.11),
    "step_decay": Schedule("step decay", "step_decay_sgd", shapes.step_decay, 2.58),
    "linear": Schedule("linear", "linear_sgd", shapes.linear, 2.07),
    "cosine": Schedule("cosine", "cosine_sgd", shapes.cosine, 2.02),
    "warmup_cosine": Schedule("warm-up, cosine", "warmup_cosine_sgd", shapes.warmup_cosine),
    "plateau": Schedule("on a plateau", "plateau_sgd", None, horizon=False),
}
DRAWN = ("constant", "inverse_sqrt", "wsd", "step_decay", "linear", "cosine")
"""Those whose curves are drawn."""


def numbers(name: str, num_steps: int, steps_per_epoch: int = 1) -> dict[str, float]:
    """The method's numbers beside its rate."""
    own = {"step_decay": {"drops": float(np.log2(max(2, num_steps)))}, "plateau": {"window": float(steps_per_epoch)}}
    return own.get(name, {}) | ({"horizon": float(num_steps)} if SCHEDULES[name].horizon else {})


def shape(name: str, num_steps: int, **other: float) -> Float[np.ndarray, " steps"]:
    """The rate of each step over the base rate."""
    make, steps = SCHEDULES[name].shape, np.arange(float(num_steps))
    assert make is not None
    with jax.enable_x64(True):
        return np.asarray(make(steps, **(numbers(name, num_steps) | other)))


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    schedule: Sequence[str] | str = tuple(SCHEDULES),
    num_steps: int = 1000,
    batch_size: int | None = None,
    num_rates: int = 14,
    num_seeds: int = 400,
    noisy_steps: int = REFERENCE_STEPS,
    noisy_modes: int = REFERENCE_MODES,
    noisy_seeds: int = 16,
) -> xr.DataTree:
    """Tune every schedule and run it: on the noisy quadratic, and on the problem.

    Parameters
    ----------
    schedule
        Which of SCHEDULES.
    batch_size
        On the problem; by default 16, or n / 2 where that is less.
    num_seeds
        On the problem, for tuning; as many again for what is reported.
    noisy_steps, noisy_modes, noisy_seeds
        T, d and the runs on the noisy quadratic.
    """
    if not theory.has_moments(problem, "without_replacement"):
        raise InputError(f"experiment schedules is about least squares of a few parameters, which {problem.name} is not.")
    names = _chosen(schedule)
    num_steps, noisy_steps = whole("num_steps", num_steps, least=10), whole("noisy_steps", noisy_steps, least=10)
    size = max(1, min(16, problem.num_examples // 2)) if batch_size is None else whole("batch_size", batch_size)
    edge = theory.mean_square_edge(problem, min(size, problem.num_examples))
    rates = np.geomspace(3e-3, 3.0, whole("num_rates", num_rates, least=3)) * edge
    parts = {"page": _page(sweep)}
    for name in names:
        parts[f"problem/{name}"] = sweep(
            problem,
            method=SCHEDULES[name].method,
            sampler="without_replacement",
            num_steps=num_steps,
            record_every=num_steps,
            batch_size=size,
            seed=range(2 * whole("num_seeds", num_seeds, least=2)),
            learning_rate=rates,
            **numbers(name, num_steps, -(-problem.num_examples // size)),
        )
    shaped = [name for name in names if SCHEDULES[name].shape is not None]
    parts["tuned"] = _tuned(shaped, noisy_steps, whole("noisy_modes", noisy_modes))
    noise = noisy_quadratic(noisy_modes)
    for name in shaped:
        parts[f"noisy/{name}"] = sweep(
            noise,
            method=SCHEDULES[name].method,
            sampler="with_replacement",
            num_steps=noisy_steps,
            record_every=noisy_steps,
            batch_size=1,
            seed=range(whole("noisy_seeds", noisy_seeds, least=2)),
            learning_rate=float(parts["tuned"].learning_rate.sel(schedule=name)),
            **numbers(name, noisy_steps),
        )
    return xr.DataTree.from_dict(parts)


def _chosen(schedule: Sequence[str] | str) -> list[str]:
    names = [schedule] if isinstance(schedule, str) else list(schedule)
    for name in names:
        if name not in SCHEDULES:
            raise unknown_name("schedule", str(name), SCHEDULES)
    if not names or all(SCHEDULES[name].shape is None for name in names):
        raise InputError(f"schedule={names} is not allowed: it is one or more of {', '.join(SCHEDULES)}, not plateau alone.")
    return names


def noisy_gradient(lanes: Lanes, constants: dict[str, Any], examples: Any, weights: Any) -> tuple[Float[Array, " lanes"], Lanes]:
    """sum h x^2 / 2 + noise'x, whose noise is the mean of the examples, for every lane."""
    curvatures = constants["curvatures"][:, None]
    noise = (jnp.broadcast_to(weights, (len(examples),)) @ examples)[:, None]
    return jnp.sum((0.5 * curvatures * lanes + noise) * lanes, axis=0), curvatures * lanes + noise


def noisy_quadratic(num_modes: int) -> Problem:
    """h = c = 1 / i, begun at ones, with 1,000 draws of the noise of which mean 0 and variance c hold exactly."""
    curvatures = 1.0 / np.arange(1, num_modes + 1)
    draws = np.random.default_rng(0).normal(size=(1000, num_modes))
    draws -= draws.mean(axis=0)
    draws *= np.sqrt(curvatures / np.mean(draws**2, axis=0))
    return Problem(
        evaluate=noisy_gradient,
        name="noisy_quadratic",
        data=draws,
        constants={"curvatures": curvatures},
        start=np.ones(num_modes),
        minimizer=np.zeros(num_modes),
        minimum=0.0,
        smoothness=1.0,
        strong_convexity=1.0 / num_modes,
    )


def _tuned(names: list[str], num_steps: int, num_modes: int) -> xr.Dataset:
    """The best base rate of each shape by the exact recursion, and its risk; and of 1/t with other offsets."""
    curvatures = 1.0 / np.arange(1, num_modes + 1)
    rows = [shape(name, num_steps) for name in names] + [shape("inverse_time", num_steps, decay=decay) for decay in OFFSETS]
    rates, risks = noisy_schedules.tuned(np.stack(rows), curvatures, curvatures, np.ones(num_modes))
    first = len(names)
    coarse = [noisy_schedules.risk(_coarse(name, num_steps, num_modes), curvatures, curvatures, np.ones(num_modes)).min() for name in names]
    variables = {
        "coarse_risk": ("schedule", coarse),
        "learning_rate": ("schedule", rates[:first]),
        "risk": ("schedule", risks[:first]),
        "offset_risk": ("offset", risks[first:]),
    }
    return xr.Dataset(variables, {"schedule": names, "offset": list(OFFSETS)}, {"num_steps": num_steps, "num_modes": num_modes})


def _coarse(name: str, num_steps: int, num_modes: int) -> Float[np.ndarray, "rates steps"]:
    """The rate of each step for each of the reference's base rates."""
    decays = 0.5 * REFERENCE_RATES / num_modes * num_steps  # mu is 1 / num_modes
    rows = [shape(name, num_steps, **({"decay": decay} if name == "inverse_time" else {})) for decay in decays]
    return REFERENCE_RATES[:, None] * np.stack(rows)


def given_loss(params: Any, example: Any) -> Any:
    """The example itself, whatever the parameter is, with slope 1: a step tells its rate."""
    return example + params - jax.lax.stop_gradient(params)


LOSSES = {
    "a stall": [1.0, 0.5, 0.4, 0.3, 0.25] + [0.25] * 45,
    "gains of 1e-5": [(1.0 - 1e-5) ** epoch for epoch in range(50)],
    "NaN": [1.0, 0.5] + [np.nan] * 48,
}
"""Losses of 50 epochs."""

CUTS = {"a stall": 1, "gains of 1e-5": 4, "NaN": 1}
"""How often the page's scheduler cuts the rate before its early stop: after 6 bad epochs, and of the gains every 11th is one to it."""


def _page(sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """The page's scheduler (patience 5, factor 1/2) on given losses: its rate after each epoch."""
    scales = []
    for losses in LOSSES.values():
        given = problems.from_loss(given_loss, np.asarray(losses), np.asarray(0.0), minimizer=np.asarray(0.0))
        epochs = {"num_steps": len(losses), "record_every": 1, "batch_size": 1, "sampler": in_order}
        ran = sweep(given, method="plateau_sgd", learning_rate=1.0, factor=0.5, patience=5.0, **epochs)
        scales.append(np.diff(ran.distance.values))
    return xr.Dataset({"rate": (("losses", "epoch"), scales)}, {"losses": list(LOSSES)})


def stops_after(losses: Sequence[float], patience: int = 10) -> int:
    """The epochs that the page's loop trains until its early stop; all of them if that does not come."""
    best, wait = np.inf, 0
    for epoch, loss in enumerate(losses):
        best, wait = (loss, 0) if loss < best else (best, wait + 1)
        if wait >= patience:
            return epoch + 1
    return len(losses)


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare risks with numbers computed independently, runs with exact moments, and the page's scheduler with its rule."""
    tuned = results["tuned"].to_dataset()
    noisy = {name: part.to_dataset() for name, part in results["noisy"].children.items()}
    given = {name: part.to_dataset() for name, part in results["problem"].children.items()}
    return [
        *_reference_findings(tuned),
        *(_noisy_finding(name, one, tuned) for name, one in noisy.items()),
        *(_given_finding(name, one, problem) for name, one in given.items() if SCHEDULES[name].shape is not None),
        _held_out_finding(given),
        *_page_findings(results["page"].to_dataset()),
    ]


def units(tuned: xr.Dataset, which: str = "risk") -> xr.DataArray:
    """Risks over d / (2 T)."""
    return tuned[which] * 2.0 * tuned.attrs["num_steps"] / tuned.attrs["num_modes"]


def _reference_findings(tuned: xr.Dataset) -> list[Finding]:
    if (tuned.attrs["num_steps"], tuned.attrs["num_modes"]) != (REFERENCE_STEPS, REFERENCE_MODES):
        return []
    risks, source = units(tuned), "exact recursion, rate tuned; computed independently on a coarser grid. Ge et al. 2019 for step decay"
    known = [str(name) for name in tuned.schedule.values if SCHEDULES[name].reference is not None]
    findings = [
        Finding(
            claim=f"noisy quadratic, {SCHEDULES[name].label}: risk over d / (2 T) at the best rate",
            predicted=float(SCHEDULES[name].reference or 0.0),
            measured=float(risks.sel(schedule=name)),
            tolerance=0.03,
            source=source,
        )
        for name in known
    ]
    if known:
        exact = xr.DataArray([float(SCHEDULES[name].reference or 0.0) for name in known], {"schedule": known})
        coarse = units(tuned, "coarse_risk").sel(schedule=known)
        findings.append(
            Finding(
                claim=f"noisy quadratic, at the best of {len(REFERENCE_RATES)} coarse rates: largest deviation (absolute, rounding)",
                predicted=0.0,
                measured=float(np.abs(coarse - exact).max()),
                tolerance=0.005,
                source="exact recursion, to the reference's two decimals; at the best rate of all they are up to 3 % lower",
            )
        )
    if len(known) > 1:
        order = sorted(known, key=lambda name: -float(SCHEDULES[name].reference or 0.0))
        ratios = [float(risks.sel(schedule=better) / risks.sel(schedule=worse)) for worse, better in itertools.pairwise(order)]
        findings.append(
            Finding(
                claim=f"noisy quadratic, the order {' > '.join(SCHEDULES[name].label for name in order)}: largest ratio of one to the last",
                predicted=1.0,
                measured=max(ratios),
                tolerance=0.0,
                source=source,
                kind="at_most",
            )
        )
    if "cosine" in known:
        findings.append(
            Finding(
                claim="noisy quadratic, 1/(1 + a t) with a tuned too: risk over d / (2 T), no worse than cosine's",
                predicted=float(risks.sel(schedule="cosine")),
                measured=float(tuned.offset_risk.min() * 2.0 * tuned.attrs["num_steps"] / tuned.attrs["num_modes"]),
                tolerance=0.0,
                source="exact recursion: the order above is of schedules with one number to tune",
                kind="at_most",
            )
        )
    return findings


def _noisy_finding(name: str, one: xr.Dataset, tuned: xr.Dataset) -> Finding:
    ends, exact = one.suboptimality.isel(step=-1), float(tuned.risk.sel(schedule=name))
    return Finding(
        claim=f"noisy quadratic, {SCHEDULES[name].label}: mean of {ends.size} runs at the best rate ({MANY_ERRORS:g} standard errors)",
        predicted=exact,
        measured=float(ends.mean()),
        tolerance=float(MANY_ERRORS * analysis.standard_error(ends, "seed")) / exact + analysis.ROUND_OFF[one.attrs["precision"]][1],
        source="v <- (1 - eta_t h)^2 v + eta_t^2 c, exact for draws with replacement from a table of covariance c",
    )


class HeldOut(NamedTuple):
    """The best rate on one half of the seeds, and its results on both: J - J* of the last step, a number a seed."""

    rate: float
    tuning: xr.DataArray
    reported: xr.DataArray


def held_out(one: xr.Dataset) -> HeldOut:
    """Tune the rate on the first half of the seeds and look at the second; a run that diverged is infinitely bad."""
    ends = one.suboptimality.isel(step=-1).fillna(np.inf)
    half = ends.sizes["seed"] // 2
    tuning, reported = ends.isel(seed=slice(0, half)), ends.isel(seed=slice(half, None))
    best = int(tuning.mean("seed").argmin("learning_rate"))
    return HeldOut(float(ends.learning_rate[best]), tuning.isel(learning_rate=best), reported.isel(learning_rate=best))


def _given_finding(name: str, one: xr.Dataset, problem: Problem) -> Finding:
    """Compare held-out seeds with their expectation at the best rate, or the highest one whose runs have no heavy tail."""
    safe = SAFE * theory.mean_square_edge(problem, int(one.batch_size), sampler=one.attrs["sampler"])
    place = int(np.flatnonzero(one.learning_rate.values <= max(min(held_out(one).rate, safe), one.learning_rate.values[0]))[-1])
    ends = one.suboptimality.isel(step=-1, learning_rate=place, seed=slice(one.sizes["seed"] // 2, None))
    rate = float(one.learning_rate[place])
    exact = float(expected(name, one, problem, np.array([rate]))[0])
    return Finding(
        claim=f"{problem.name}, {SCHEDULES[name].label}: mean J - J* after {int(one.step[-1])} steps at the best base rate up to {SAFE:g} "
        f"of the mean-square limit, {rate:.3g}, {ends.size} seeds that it was not tuned on ({MANY_ERRORS:g} standard errors)",
        predicted=exact,
        measured=float(ends.mean()),
        tolerance=MANY_ERRORS * float(analysis.standard_error(ends, "seed")) / exact + analysis.ROUND_OFF[one.attrs["precision"]][1],
        source="exact recursion of E ee' for SGD on least squares, a rate a step",
    )


def expected(name: str, one: xr.Dataset, problem: Problem, rates: np.ndarray) -> np.ndarray:
    """The exact E J - J* after the last step, for each base rate."""
    num_steps = int(one.step[-1])
    table = rates[:, None] * shape(name, num_steps)
    return theory.expected_suboptimality(problem, table, int(one.batch_size), num_steps, sampler=one.attrs["sampler"])[:, -1]


def _held_out_finding(given: dict[str, xr.Dataset]) -> Finding:
    """A rate chosen for its result on some seeds is no better on others, but by chance."""
    better = []
    for one in given.values():
        _, tuning, reported = held_out(one)
        error = math.hypot(*(float(analysis.standard_error(half, "seed")) for half in (tuning, reported)))
        better.append((float(tuning.mean()) - float(reported.mean())) / error if error > 0.0 else 0.0)
    return Finding(
        claim=f"best rates of {len(better)} schedules: by how many standard errors the best held-out result beats its tuning result",
        predicted=MANY_ERRORS + 1.0,
        measured=float(max(better)),
        tolerance=0.0,
        source="the least of several noisy means is too low: held-out results are what to report",
        kind="at_most",
    )


def _page_findings(page: xr.Dataset) -> list[Finding]:
    findings = []
    for kind, losses in LOSSES.items():
        before = stops_after(losses)
        rate = float(page.rate.sel(losses=kind).isel(epoch=before - 1))
        findings.append(
            Finding(
                claim=f"ReduceLROnPlateau (patience 5) and a stop after 10 epochs without a better one, on {kind}: cuts in {before} epochs",
                predicted=float(CUTS[kind]),
                measured=-float(np.log2(rate)),
                tolerance=0.0,
                source="a cut after more than 5 epochs not below 0.9999 of the best; page section 4, level 4",
            )
        )
    return findings


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The shapes; the risk of each on the noisy quadratic; the problem's final J - J* against the base rate."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0, width_ratios=(1.0, 1.0, 1.35))
    given = {name: part.to_dataset() for name, part in results["problem"].children.items()}
    _draw_shapes(panels[0, 0], [name for name in DRAWN if name in given])
    _draw_noisy(panels[0, 1], results["tuned"].to_dataset(), {name: part.to_dataset() for name, part in results["noisy"].children.items()})
    _draw_given(panels[0, 2], given, problem)
    tuned, one = results["tuned"].attrs, next(iter(given.values()))
    figures.source(
        drawn,
        f"Middle: noisy quadratic, h = c = 1/i, d = {tuned['num_modes']}, T = {tuned['num_steps']:,}: exact risk at the best rate (bar), "
        f"runs (mean ± 2 s.e.).\nRight: {problem.name}, n = {problem.num_examples}, B = {int(one.batch_size)}, T = {int(one.step[-1]):,}, "
        f"{one.sizes['seed'] // 2} seeds; dots: rates tuned on as many others; dashed: exact expectation; triangles: diverged.",
    )
    return {"schedules": drawn}


def _colors() -> dict[str, str]:
    return dict(zip(DRAWN, figures.COLORS, strict=False))


def _draw_shapes(axes: Axes, names: list[str]) -> None:
    num_steps = 1000
    for name in names:
        axes.plot(np.arange(num_steps) / num_steps, shape(name, num_steps), color=_colors()[name])
    axes.set(xlabel="t / T", ylabel="rate of step t / base rate", title="schedules")


def _draw_noisy(axes: Axes, tuned: xr.Dataset, noisy: dict[str, xr.Dataset]) -> None:
    order = [str(name) for name in tuned.schedule.values[np.argsort(tuned.risk.values)]]
    scale = 2.0 * tuned.attrs["num_steps"] / tuned.attrs["num_modes"]
    for place, name in enumerate(order):
        ends, color = scale * noisy[name].suboptimality.isel(step=-1), _colors().get(name, "0.5")
        axes.errorbar(
            float(ends.mean()),
            place,
            xerr=2.0 * float(analysis.standard_error(ends, "seed")),
            color=color,
            marker="o",
            markersize=3,
            capsize=2,
        )
        axes.plot(float(units(tuned).sel(schedule=name)), place, marker="|", markersize=11, color="black")
    axes.set(
        yticks=range(len(order)), yticklabels=[SCHEDULES[name].label for name in order], xlabel="risk / (d / 2T)", title="noisy quadratic"
    )
    axes.invert_yaxis()


def _draw_given(axes: Axes, given: dict[str, xr.Dataset], problem: Problem) -> None:
    drawn = {name: given[name] for name in DRAWN if name in given}
    means = {name: one.suboptimality.isel(step=-1, seed=slice(one.sizes["seed"] // 2, None)).mean("seed") for name, one in drawn.items()}
    start = float(next(iter(drawn.values())).suboptimality.isel(step=0).min())
    least = min(float(mean.min()) for mean in means.values())
    bounds = (0.3 * least, 3.0 * start)
    for name, mean in means.items():
        rates, color, best = mean.learning_rate.values, _colors()[name], held_out(drawn[name])
        axes.plot(best.rate, float(best.reported.mean()), marker="o", markersize=4, color=color)
        figures.trajectory(axes, rates, mean.values, bounds=bounds, color=color, label=SCHEDULES[name].label)
        figures.dashed(axes, rates, expected(name, drawn[name], problem, rates), bounds=bounds, color=color)
    axes.set(
        xscale="log",
        yscale="log",
        ylim=bounds,
        xlabel="base rate η",
        ylabel=f"J − J* after {int(next(iter(drawn.values())).step[-1])} steps",
    )
    axes.set_title("on the problem")
    axes.legend(loc="lower left")
