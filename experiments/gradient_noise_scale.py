"""How large a batch pays is a ratio of noise to gradient, and it grows as the gradient shrinks.

Claim
    On least squares the rate at which a step on a batch of B gains most, and what it gains, are those of the full gradient divided by
    1 + B_noise / B, in expectation exactly. The steps and the examples to a target trade along one hyperbola.
Theory
    E f(x - eps g_B) - f(x) = -eps |G|^2 + eps^2 (G'HG + tr(H Sigma) / B) / 2 for batches drawn with replacement;
    B_noise = tr(H Sigma) / G'HG (McCandlish et al. 2018). |G|^2 and tr Sigma have unbiased estimates from two batch sizes.
    (S / S_min - 1)(E / E_min - 1) = 1 is a fit, no identity.
Sweep
    One step from points between the start and the minimizer x rates x batch sizes x seeds, and on every example once; then whole runs
    to a target x rates x batch sizes x seeds.
Expect
    Parabolas in the rate, whose lowest points move left as the batch shrinks; gains of all points on one curve of B / B_noise; steps
    and examples on the hyperbola.
Command
    gdjax experiment=gradient_noise_scale
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.adaptive_methods import in_order
from gdjax import analysis, figures
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import is_least_squares, noise_scale, stability_edge
from gdjax.theory import noise_scale as theory

SCALES = (8.0, 64.0)
"""Noise scales at which steps are taken, beside the start, where they are met between it and the minimizer."""

RELATIVE_RATES = 2.0 ** np.arange(-7.0, 2.0)
"""Of single steps, in units of the full gradient's best."""

HALF, WHOLE = 6, 7
"""Places among them from which each step's parabola is known."""

MOST_EXAMPLES = 1000
"""Each of which a step is taken on, so that their mean is no sample's."""

TARGET_STEPS, TARGET_SHARE = 20, 0.1
"""A run's target: what so many full steps reach at the best rate, but no lower than this part of f*."""

NUM_RECORDS = 200


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_single: int = 4000,
    num_steps: int = 5000,
    num_seeds: int = 256,
    num_rates: int = 20,
    batch_size: Sequence[int] | int | None = None,
) -> xr.DataTree:
    """Take single steps at some points, and run each batch size to a target.

    Parameters
    ----------
    num_single
        Seeds of the single steps.
    num_steps
        Of a run with batches of 1; larger batches get as many examples, and 200 steps more.
    batch_size
        By default 1, 4, 16, .. of single steps and 1, 2, 4, .. of runs up to n, seven at most.
    """
    if not is_least_squares(problem):
        raise InputError(f"experiment gradient_noise_scale is about least squares, which {problem.name} is not.")
    n = problem.num_examples
    if n < 2:
        raise InputError(f"experiment gradient_noise_scale draws batches out of examples, of which {problem.name} has one.")
    sizes = [[base**k for k in range(7) if base**k <= n] if batch_size is None else several("batch_size", batch_size) for base in (4, 2)]
    if batch_size is not None and len(set(sizes[0])) < 2:
        raise InputError(f"batch_size={batch_size} is not allowed: this experiment compares two batch sizes or more.")
    seeds = range(whole("num_single", num_single, least=2))
    parts = [_singles(sweep, problem, share, sizes[0] if n > 3 else sizes[1], seeds) for share in shares(problem)]
    tree = {
        "single": xr.concat(parts, xr.IndexVariable("share", shares(problem))),
        "target": _runs(sweep, problem, sizes[1], whole("num_steps", num_steps), num_rates=num_rates, num_seeds=num_seeds),
    }
    if n <= MOST_EXAMPLES:
        every = [_every(sweep, problem, share) for share in shares(problem)]
        tree["every"] = xr.concat(every, xr.IndexVariable("share", shares(problem)))
    return xr.DataTree.from_dict(tree)


def shares(problem: Problem) -> list[float]:
    """Which parts of the way from the minimizer to the start steps are taken at: the start, and where the noise scale is so large.

    Along the way tr(H Sigma) is a parabola, and G'HG grows as the square.
    """
    grid, thirds = np.geomspace(1.0, 1e-4, 400), np.array([0.0, 0.5, 1.0])
    along = [_scale(problem, share) for share in thirds]
    if not np.isfinite(along[-1].batch_size):
        raise InputError(f"experiment gradient_noise_scale needs a gradient at the start, and {problem.name} has none there.")
    noise = np.polyval(np.polyfit(thirds, [scale.curved_noise for scale in along], 2), grid)
    scales = noise / (along[-1].curvature * grid**2)
    return [1.0, *(float(grid[np.argmax(scales >= wanted)]) for wanted in SCALES if scales[0] < wanted <= scales.max())]


def _point(problem: Problem, share: float) -> np.ndarray:
    start, minimizer = np.asarray(problem.start), np.asarray(problem.minimizer)
    return minimizer + share * (start - minimizer)


def _scale(problem: Problem, share: float) -> theory.NoiseScale:
    return noise_scale.least_squares(problem, _point(problem, share))


def _singles(sweep: Callable[..., xr.Dataset], problem: Problem, share: float, sizes: list[int], seeds: range) -> xr.Dataset:
    """What f changes by in a step, and the batch's squared gradient, which the step's length tells."""
    point = _point(problem, share)
    rates = RELATIVE_RATES * float(_scale(problem, share).best_rate())
    one = sweep(problem, sampler="with_replacement", batch_size=sizes, seed=seeds, num_steps=1, learning_rate=rates, start=point)
    gradient = (one.params.isel(learning_rate=WHOLE) - point) / rates[WHOLE]
    variables = {
        "change": (one.suboptimality.isel(step=1) - one.suboptimality.isel(step=0)).rename(learning_rate="relative_rate"),
        "squared": (gradient**2).sum("parameter").drop_vars("learning_rate"),
    }
    return (
        xr.Dataset(variables, attrs={"precision": one.attrs["precision"]})
        .assign_coords(relative_rate=RELATIVE_RATES)
        .drop_vars(["step", "epoch"], errors="ignore")
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Turned:
    """The problem begun at a point, its examples turned round so that `example` is the first."""

    problem: Problem
    share: float

    def __call__(self, example: Any) -> Problem:
        """The same objective, whichever comes first."""
        data = jax.tree.map(lambda part: jnp.roll(jnp.asarray(part), -jnp.asarray(example).astype(int), axis=0), self.problem.data)
        return dataclasses.replace(self.problem, data=data, start=_point(self.problem, self.share))


def _every(sweep: Callable[..., xr.Dataset], problem: Problem, share: float) -> xr.Dataset:
    """What f changes by in a step on each of the examples."""
    places = slice(HALF, WHOLE + 1)
    rates = RELATIVE_RATES[places] * float(_scale(problem, share).best_rate())
    every = {"example": np.arange(problem.num_examples, dtype=float)}
    one = sweep(Turned(problem, share), sampler=in_order, batch_size=1, num_steps=1, learning_rate=rates, **every)
    change = (one.suboptimality.isel(step=1) - one.suboptimality.isel(step=0)).rename(learning_rate="relative_rate")
    kept = xr.Dataset({"change": change}, attrs={"precision": one.attrs["precision"]})
    return kept.assign_coords(relative_rate=RELATIVE_RATES[places]).drop_vars(["step", "epoch"], errors="ignore")


def _runs(
    sweep: Callable[..., xr.Dataset], problem: Problem, sizes: list[int], num_steps: int, *, num_rates: int, num_seeds: int
) -> xr.Dataset:
    """The fewest steps, over rates, after which the mean over seeds is at the target, for each batch size; NaN where it isn't reached."""
    edge = stability_edge(problem.smoothness)
    settings = {
        "learning_rate": edge * np.geomspace(0.003, 0.98, whole("num_rates", num_rates, least=2)),
        "seed": range(whole("num_seeds", num_seeds, least=2)),
    }
    full = sweep(problem, sampler="full", num_steps=TARGET_STEPS, learning_rate=settings["learning_rate"])
    target = max(float(full.suboptimality.isel(step=-1).min()), TARGET_SHARE * float(np.asarray(problem.minimum)))
    found = []
    for size in sizes:
        every = max(1, math.ceil((num_steps / size + 10 * TARGET_STEPS) / NUM_RECORDS))
        one = sweep(problem, sampler="with_replacement", batch_size=size, num_steps=every * NUM_RECORDS, record_every=every, **settings)
        mean = analysis.mean_over(one.suboptimality, "seed")
        found.append([_first(mean.sel(learning_rate=rate), target) for rate in mean.learning_rate])
    variables = {"steps": (("batch_size", "learning_rate"), np.array(found))}
    return xr.Dataset(variables, {"batch_size": sizes, "learning_rate": settings["learning_rate"]}, {"target": target})


def _first(mean: xr.DataArray, target: float) -> float:
    """When it first is at the target, between records by a line in its logarithm."""
    there = mean.values <= target
    reached = int(np.argmax(there))
    if not there[reached]:
        return np.nan
    if reached == 0:
        return 0.0
    before, after = np.log(mean.values[reached - 1 : reached + 1])
    at = mean.step.values[reached - 1 : reached + 1]
    return float(at[0] + (before - math.log(target)) / (before - after) * (at[1] - at[0]))


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare single steps with the noise scale of their points, and the trade of steps for examples with its hyperbola."""
    single = results["single"].to_dataset()
    findings = []
    for share in single.share:
        one, scale = single.sel(share=share), _scale(problem, float(share))
        for size in one.batch_size:
            findings += _gain_findings(one.sel(batch_size=size), scale)
        findings += _estimate_findings(one, scale)
    if "every" in results:
        findings.append(_every_finding(results["every"].to_dataset(), problem))
    fit = _fit(results["target"].to_dataset())
    return findings if fit is None else [*findings, _fit_finding(fit)]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Single steps' parabolas at one point; gains at all points on one curve; steps against examples."""
    single, runs = results["single"].to_dataset(), results["target"].to_dataset()
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_parabolas(panels[0, 0], single.isel(share=single.sizes["share"] // 2), problem)
    _draw_gains(panels[0, 1], single, problem)
    _draw_trade(panels[0, 2], runs)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; batches drawn with replacement. Left, middle: single steps, mean of "
        f"{single.sizes['seed']} seeds, bars 4 s.e. Dashed: exact expectation.\nRight: at each batch size's best rate, until the mean "
        f"suboptimality is {runs.attrs['target']:.3g}. Dashed: (S/S$_{{min}}$ − 1)(E/E$_{{min}}$ − 1) = 1, fitted.",
    )
    return {"gradient_noise_scale": drawn}


def _parabola(one: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """a and b of each step's change -u a + u^2 b / 2, u being the rate in units of the full gradient's best."""
    half, full = (one.change.sel(relative_rate=RELATIVE_RATES[place], drop=True) for place in (HALF, WHOLE))
    u = float(RELATIVE_RATES[HALF])
    return (full - 4.0 * half) / (2.0 * u), (full - 2.0 * half) / u**2


def _gain_findings(one: xr.Dataset, scale: theory.NoiseScale) -> list[Finding]:
    size, slack = int(one.batch_size), analysis.ROUND_OFF[one.attrs["precision"]][1]
    falls, bends = _parabola(one)
    rate, error = analysis.ratio(falls, bends, "seed")
    gain = 0.5 * float(falls.mean()) ** 2 / float(bends.mean())
    gain_error = float(analysis.standard_error(2.0 * falls / falls.mean() - bends / bends.mean(), "seed"))
    label = f"B_noise = {scale.batch_size:.3g}, B = {size}"
    exact_rate = float(scale.best_rate(size) / scale.best_rate())
    exact_gain = float(scale.best_gain(size))
    return [
        Finding(
            claim=f"{label}: best rate of a step over the full gradient's, from {falls.size} seeds (4 standard errors)",
            predicted=exact_rate,
            measured=float(rate),
            tolerance=slack + 4.0 * float(error) * float(rate) / exact_rate,
            source="eps_max / (1 + B_noise / B), McCandlish et al. 2018, equation 2.6; exact on quadratics",
        ),
        Finding(
            claim=f"{label}: what f falls by in such a step, from {falls.size} seeds (4 standard errors)",
            predicted=exact_gain,
            measured=gain,
            tolerance=slack + 4.0 * gain_error * gain / exact_gain,
            source="Delta_max / (1 + B_noise / B), McCandlish et al. 2018, equation 2.7; exact on quadratics",
        ),
    ]


def _every_finding(every: xr.Dataset, problem: Problem) -> Finding:
    """The mean over all examples is the expectation itself."""
    falls, bends = (part.mean("example") for part in _parabola(every))
    scales = [_scale(problem, float(share)) for share in every.share]
    exact = np.array([[scale.best_rate(1) / scale.best_rate(), scale.best_gain(1)] for scale in scales])
    measured = np.stack([falls / bends, 0.5 * falls**2 / bends], axis=1)
    return Finding(
        claim=f"B = 1, a step on each of {every.sizes['example']} examples: largest relative deviation of best rate and gain, all points "
        "(absolute)",
        predicted=0.0,
        measured=float(np.abs(measured / exact - 1.0).max()),
        tolerance=analysis.ROUND_OFF[every.attrs["precision"]][1],
        source="1 / (1 + B_noise) of the full gradient's, McCandlish et al. 2018; the mean over all examples is the expectation",
    )


def _estimate_findings(one: xr.Dataset, scale: theory.NoiseScale) -> list[Finding]:
    small, large = (int(one.batch_size[place]) for place in (0, -1))
    estimates = theory.unbiased(one.squared.sel(batch_size=small), one.squared.sel(batch_size=large), small, large)
    names = (("|G|²", scale.gradient), ("tr Σ", scale.noise))
    findings = []
    for (name, exact), values in zip(names, estimates, strict=True):
        samples = xr.DataArray(values, dims="seed")
        findings.append(
            Finding(
                claim=f"B_noise = {scale.batch_size:.3g}: {name} estimated from batches of {small} and {large}, mean of {samples.size} "
                "(4 standard errors)",
                predicted=exact,
                measured=float(samples.mean()),
                tolerance=analysis.ROUND_OFF[one.attrs["precision"]][1] + 4.0 * float(analysis.standard_error(samples, "seed")) / exact,
                source="unbiased estimates, McCandlish et al. 2018, appendix A.1",
            )
        )
    return findings


class _Fit(NamedTuple):
    """The hyperbola nearest to the logarithms of the steps."""

    sizes: np.ndarray
    steps: np.ndarray
    least_steps: float
    least_examples: float
    r_squared: float


def _fit(runs: xr.Dataset) -> _Fit | None:
    """Over the batch sizes that reach the target, where they are four or more."""
    best = runs.steps.min("learning_rate").values
    kept = np.isfinite(best) & (best > 0)
    sizes, steps = runs.batch_size.values[kept].astype(float), best[kept]
    if kept.sum() < 4:
        return None

    def missed(logs: np.ndarray) -> np.ndarray:
        return np.log(theory.steps_for(sizes, *np.exp(logs))) - np.log(steps)

    found = scipy.optimize.least_squares(missed, np.log([steps.min(), (steps * sizes).min()]))
    left = np.mean(missed(found.x) ** 2) / np.var(np.log(steps))
    least_steps, least_examples = (float(number) for number in np.exp(found.x))
    return _Fit(sizes, steps, least_steps, least_examples, 1.0 - float(left))


def _fit_finding(fit: _Fit) -> Finding:
    return Finding(
        claim=f"steps and examples to the target, {len(fit.sizes)} batch sizes at their best rates: R² of the hyperbola, S_min = "
        f"{fit.least_steps:.3g}, E_min = {fit.least_examples:.3g}, in log S",
        predicted=0.98,
        measured=fit.r_squared,
        tolerance=0.0,
        source="(S / S_min - 1)(E / E_min - 1) = 1, McCandlish et al. 2018, equation 2.11: a fit, no identity",
        kind="at_least",
    )


def _draw_parabolas(axes: Axes, one: xr.Dataset, problem: Problem) -> None:
    scale = _scale(problem, float(one.share))
    unit, fine = float(scale.best_gain()), np.geomspace(one.relative_rate.values[0], one.relative_rate.values[-1], 200)
    for size, color in _colors(one):
        samples = -one.change.sel(batch_size=size) / unit
        errors = 4.0 * analysis.standard_error(samples, "seed").values
        axes.errorbar(
            one.relative_rate, samples.mean("seed"), errors, color=color, marker="o", markersize=3, linestyle="none", label=f"{size}"
        )
        axes.plot(fine, -scale.change(fine * scale.best_rate(), size) / unit, color=color, linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xscale="log", ylim=(-0.6, 1.15), xlabel="rate ε / ε$_{max}$", ylabel="gain of a step / ΔL$_{max}$")
    axes.set_title(f"B$_{{noise}}$ = {scale.batch_size:.3g}")
    axes.legend(title="batch size", title_fontsize=7, loc="upper left")


def _colors(one: xr.Dataset) -> list[tuple[int, str]]:
    sizes = one.batch_size.values
    shown = np.unique(np.linspace(0, len(sizes) - 1, min(4, len(sizes))).round().astype(int))
    return list(zip(sizes[shown].tolist(), figures.COLORS, strict=False))


def _draw_gains(axes: Axes, single: xr.Dataset, problem: Problem) -> None:
    for share, color in zip(single.share, figures.COLORS[3:], strict=False):
        one, scale = single.sel(share=share), _scale(problem, float(share))
        falls, bends = _parabola(one)
        gain = 0.5 * falls.mean("seed") ** 2 / bends.mean("seed")
        error = gain * analysis.standard_error(2.0 * falls / falls.mean("seed") - bends / bends.mean("seed"), "seed")
        unit = float(scale.best_gain())
        x, label = one.batch_size / scale.batch_size, f"B$_{{noise}}$ = {scale.batch_size:.3g}"
        axes.errorbar(x, gain / unit, 4.0 * error / unit, color=color, marker="o", markersize=3, linestyle="none", label=label)
    low, high = axes.get_xlim()
    fine = np.geomspace(max(low, 1e-3), high, 100)
    figures.dashed(axes, fine, 1.0 / (1.0 + 1.0 / fine), bounds=(1e-9, 10.0))
    axes.set(xscale="log", ylim=(-0.05, 1.15), xlabel="B / B$_{noise}$", ylabel="best gain / ΔL$_{max}$", title="every point, one curve")
    axes.legend(loc="lower right")


def _draw_trade(axes: Axes, runs: xr.Dataset) -> None:
    best, fit = runs.steps.min("learning_rate"), _fit(runs)
    axes.plot(best * best.batch_size, best, marker="o", markersize=4, linestyle="none", color=figures.COLORS[0])
    for size, steps in zip(best.batch_size.values, best.values, strict=True):
        style = {"xytext": (5, 2), "textcoords": "offset points", "fontsize": 6.5, "color": "0.3"}
        axes.annotate(f"B = {size}", (size * steps, steps), **style) if np.isfinite(steps) else None
    if fit is not None:
        fine = np.geomspace(0.5 * fit.sizes[0], 3.0 * fit.sizes[-1], 200)
        steps = theory.steps_for(fine, fit.least_steps, fit.least_examples)
        figures.dashed(axes, fine * steps, steps, bounds=(1e-3, 1e12))
    axes.set(xscale="log", yscale="log", xlabel="examples E", ylabel="steps S", title="to a target")
    axes.margins(x=0.2)
