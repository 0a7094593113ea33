"""Where every example can be fitted, SGD needs no small rate: a batch of m is worth m steps of one, up to a critical size.

Claim
    On least squares that interpolates, with a constant rate, SGD converges linearly, no slower than a factor g a step, which a start
    along the worst direction attains. The best rate and the speed are proportional to the batch size up to m*; beyond, even the whole
    data set in a step saves at most a factor 4.
Theory
    g(m, eta) = max over lambda of 1 - 2 eta lambda + eta^2 (beta lambda / m + (m - 1) lambda^2 / m); m* = beta / (lambda_1 - lambda_k) + 1;
    eta* = m / (beta + (m - 1) lambda_k) up to m*, else 2 m / (beta + (m - 1)(lambda_1 + lambda_k)) (Ma, Bassily and Belkin 2018).
    Shallue et al. (2019) see the same three parts on neural networks: perfect scaling, diminishing returns, a plateau.
Sweep
    Batch sizes x seeds at each one's best rate, until the squared distance has fallen by 1,000; single steps along the steepest and
    the flattest direction x rates x seeds.
Expect
    Lines on a log axis below their bounds; steps that fall as 1 / m up to m* and then level off; single steps on their parabolas.
Command
    gdjax experiment=interpolation
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import interpolation as theory

TOLERANCE = 1e-3
"""How far the squared distance is to fall."""

SPIKE = 0.1
"""The share of one direction in the rows: about lambda_1, and so 1 / m*."""

NUM_RECORDS = 100

SATURATION = 4.0
"""-log g of gradient descent at its best rate is at most 4 times that at m*: 2 log((1 + r) / (1 - r)) against at least -log(1 - r).

Here r = lambda_k / lambda_1, and eta* at m* is at least 1 / lambda_1.
"""

RELATIVE_RATES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Of single steps, in units of each batch size's best."""

JUDGED = {"steepest": 0.5, "flattest": 1.0}
"""At which of them: where a step takes much away."""


def interpolated(num_examples: int, num_features: int, data_seed: int) -> Problem:
    """Unit rows, isotropic but for one direction, and targets that some line fits exactly: any targets do with p > n."""
    rng = np.random.default_rng(data_seed)
    X = rng.normal(size=(num_examples, num_features)) / np.sqrt(num_features)
    X[:, 0] = math.sqrt(SPIKE / (1.0 - SPIKE)) * rng.normal(size=num_examples)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more parameters than examples are what this is about
        return problems.least_squares(X, rng.normal(size=num_examples), False, hessian=True)


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_examples: int = 64,
    num_features: int = 256,
    batch_size: Sequence[int] | int = (1, 2, 4, 8, 16, 32, 64),
    num_seeds: int = 32,
    num_single: int = 2000,
    data_seed: int = 0,
) -> xr.DataTree:
    """Run SGD at each batch size's best rate, and single steps at several rates.

    Parameters
    ----------
    num_features
        As many as examples, or more, so that every target can be fitted.
    num_single
        Seeds of the single steps, of batches of 1 and about m*.
    """
    n, p = whole("num_examples", num_examples, least=4), whole("num_features", num_features)
    if p < n:
        raise InputError(f"num_features={p} is not allowed: it is {n} (num_examples) or more, so that every example can be fitted.")
    sizes = [whole("batch_size", size) for size in several("batch_size", batch_size)]
    data = {"num_examples": n, "num_features": p, "data_seed": whole("data_seed", data_seed, least=0)}
    problem = interpolated(**data)
    largest, smallest = ends(problem)
    parts = {}
    for size in sizes:
        rate = float(theory.best_rate(size, largest, smallest))
        needed = math.log(TOLERANCE) / math.log(float(theory.contraction(rate, size, largest, smallest)))
        every = max(1, math.ceil(needed / NUM_RECORDS))
        parts[f"batch_{size}"] = sweep(
            problem,
            sampler="with_replacement",
            batch_size=size,
            seed=range(whole("num_seeds", num_seeds, least=2)),
            num_steps=every * math.ceil(needed / every),
            record_every=every,
            learning_rate=0.5 * rate,
        ).drop_vars("params")
    singles = [_singles(sweep, problem, size, range(whole("num_single", num_single, least=2))) for size in _single_sizes(problem)]
    parts["single"] = xr.concat(singles, "batch_size")
    return xr.DataTree.from_dict({name: part.assign_attrs(data) for name, part in parts.items()})


def ends(problem: Problem) -> tuple[float, float]:
    """lambda_1 and lambda_k of G = X'X / n, half the Hessian."""
    smoothness, convexity = (float(np.asarray(value)) for value in (problem.smoothness, problem.strong_convexity))
    return 0.5 * smoothness, 0.5 * convexity


def _single_sizes(problem: Problem) -> list[int]:
    n = problem.num_examples
    return sorted({1, int(min(n, np.round(theory.critical_batch_size(*ends(problem)))))})


def _singles(sweep: Callable[..., xr.Dataset], problem: Problem, size: int, seeds: Any) -> xr.Dataset:
    """What a step leaves of the squared distance, from a start along the steepest and along the flattest direction."""
    curvatures, vectors = np.linalg.eigh(np.asarray(problem.hessian))
    rates = np.asarray(RELATIVE_RATES) * float(theory.best_rate(size, *ends(problem)))
    left = []
    for place in (len(curvatures) - 1, len(curvatures) - problem.num_examples):
        one = sweep(
            problem,
            sampler="with_replacement",
            batch_size=size,
            seed=seeds,
            num_steps=1,
            learning_rate=0.5 * rates,
            start=np.asarray(problem.minimizer) + vectors[:, place],
        )
        left.append((one.distance.isel(step=1, drop=True) ** 2).drop_vars(["learning_rate", "epoch"], errors="ignore"))
    factor = xr.concat(left, xr.IndexVariable("direction", ["steepest", "flattest"])).rename(learning_rate="relative_rate")
    return xr.Dataset({"left": factor.assign_coords(relative_rate=list(RELATIVE_RATES))})


def check(results: xr.DataTree) -> list[Finding]:
    """Compare with the bound, with the exact factor of single steps, and with the two regimes of the batch size."""
    runs = _runs(results)
    one = next(iter(runs.values()))
    problem = _problem(one)
    bounds = [_bound_finding(size, run, problem) for size, run in runs.items()]
    return [*bounds, *_single_findings(results["single"].to_dataset(), problem), *_scaling_findings(runs, problem)]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Distances beside their bounds; steps against the batch size; single steps on their parabolas."""
    runs = _runs(results)
    one = next(iter(runs.values()))
    problem = _problem(one)
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_distances(panels[0, 0], runs, problem)
    _draw_steps(panels[0, 1], runs, problem)
    _draw_singles(panels[0, 2], results["single"].to_dataset(), problem)
    largest, smallest = ends(problem)
    figures.source(
        drawn,
        f"n = {problem.num_examples} unit rows, {one.attrs['num_features']} features, every target fitted; λ₁ = {largest:.3g}, "
        f"λ$_k$ = {smallest:.3g}, m* = {theory.critical_batch_size(largest, smallest):.3g}. Mean of {one.sizes['seed']} seeds, bands "
        "10–90 %. Left: dotted, the bound gᵗ.\nMiddle: the three parts that Shallue et al. (2019) see on neural networks: perfect scaling, "
        "diminishing returns, a plateau (grey: steps by the bound).",
    )
    return {"interpolation": drawn}


def _problem(one: xr.Dataset) -> Problem:
    return interpolated(**{name: one.attrs[name] for name in ("num_examples", "num_features", "data_seed")})


def _runs(results: xr.DataTree) -> dict[int, xr.Dataset]:
    """The runs by their batch size, ascending."""
    found = {name: results[name].to_dataset() for name in results.children if name != "single"}
    return dict(sorted((int(one.batch_size), one) for one in found.values()))


def _relative(one: xr.Dataset) -> xr.DataArray:
    """The squared distance over that of the start."""
    return one.distance**2 / one.distance.isel(step=0) ** 2


def _bound(size: int, one: xr.Dataset, problem: Problem) -> np.ndarray:
    return float(theory.contraction(2.0 * float(one.learning_rate), size, *ends(problem))) ** one.step.values


def _bound_finding(size: int, one: xr.Dataset, problem: Problem) -> Finding:
    ratio = (_relative(one).mean("seed") / _bound(size, one, problem)).isel(step=slice(1, None))
    return Finding(
        claim=f"B = {size}, its best rate {float(one.learning_rate):.3g}: largest ratio of the mean squared distance to g^t times "
        "the start's",
        predicted=1.0,
        measured=float(ratio.max()),
        tolerance=0.0,
        source="Ma, Bassily and Belkin 2018, Thm 1 and Thm 2",
        kind="at_most",
    )


def _curvature(direction: str, problem: Problem) -> float:
    return ends(problem)[0 if direction == "steepest" else 1]


def _single_findings(single: xr.Dataset, problem: Problem) -> list[Finding]:
    """At the best rate, along the direction that g is about: what a step takes away."""
    findings = []
    for size in single.batch_size.values:
        rate = float(theory.best_rate(size, *ends(problem)))
        for direction in single.direction.values:
            share = JUDGED[str(direction)]
            samples = 1.0 - single.left.sel(batch_size=size, direction=direction, relative_rate=share)
            exact = 1.0 - float(theory.step_factor(share * rate, size, _curvature(direction, problem)))
            findings.append(
                Finding(
                    claim=f"B = {size}, {share:g} of the best rate, {direction} direction: the part of the squared distance that a step "
                    f"takes away, mean of {samples.size} (4 standard errors)",
                    predicted=exact,
                    measured=float(samples.mean()),
                    tolerance=4.0 * float(analysis.standard_error(samples, "seed")) / (abs(exact) or 1.0),
                    source="E|x|^2 xx' = beta G for rows of one norm: g is exact (Ma, Bassily and Belkin 2018, proof of Thm 1)",
                )
            )
    return findings


def _steps(one: xr.Dataset) -> float:
    """When the mean squared distance has fallen to the tolerance, between records by a line in its logarithm."""
    log = np.log(_relative(one).mean("seed").values)
    reached = int(np.argmax(log <= math.log(TOLERANCE)))
    if log[reached] > math.log(TOLERANCE):
        return np.nan
    share = (log[reached - 1] - math.log(TOLERANCE)) / (log[reached - 1] - log[reached])
    before, after = one.step.values[reached - 1 : reached + 1]
    return float(before + share * (after - before))


def _scaling_findings(runs: dict[int, xr.Dataset], problem: Problem) -> list[Finding]:
    critical = theory.critical_batch_size(*ends(problem))
    steps = {size: _steps(one) for size, one in runs.items()}
    small, large = [size for size in steps if size <= critical], [size for size in steps if size > critical]
    findings = []
    if len(small) > 1:
        slope = np.polyfit(np.log(small), np.log([steps[size] for size in small]), 1)[0]
        findings.append(
            Finding(
                claim=f"batches up to m* = {critical:.3g}: slope of log steps (to {TOLERANCE:g} of the squared distance) against log B",
                predicted=-1.0,
                measured=float(slope),
                tolerance=0.05,
                source="linear scaling, Ma, Bassily and Belkin 2018, Thm 3; perfect scaling, Shallue et al. 2019",
            )
        )
    if small and large:
        findings.append(
            Finding(
                claim=f"beyond m* = {critical:.3g}: steps with B = {small[-1]} over those with B = {large[-1]}",
                predicted=SATURATION * max(1.0, critical / small[-1]),
                measured=steps[small[-1]] / steps[large[-1]],
                tolerance=0.0,
                source="saturation, Ma, Bassily and Belkin 2018, Thm 3; diminishing returns, Shallue et al. 2019",
                kind="at_most",
            )
        )
    return findings


def _colors(runs: dict[int, xr.Dataset]) -> dict[int, Any]:
    return dict(zip(runs, figures.COLORS * 3, strict=False))


def _draw_distances(axes: Axes, runs: dict[int, xr.Dataset], problem: Problem) -> None:
    bounds, colors = (0.3 * TOLERANCE, 2.0), _colors(runs)
    for size, one in list(runs.items())[:: max(1, -(-len(runs) // 4))]:
        figures.band(
            axes, one.step.values[1:], _relative(one).isel(step=slice(1, None)), bounds=bounds, color=colors[size], label=f"{size}"
        )
        axes.plot(one.step.values[1:], _bound(size, one, problem)[1:], color=colors[size], linestyle=":", linewidth=1.1)
    axes.set(xscale="log", yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel="‖e$_t$‖² / ‖e₀‖²", title="at the best rate")
    axes.legend(title="batch size", title_fontsize=7, loc="lower left")


def _draw_steps(axes: Axes, runs: dict[int, xr.Dataset], problem: Problem) -> None:
    sizes, (largest, smallest) = np.array(list(runs)), ends(problem)
    steps = np.array([_steps(one) for one in runs.values()])
    fine = np.geomspace(sizes[0], sizes[-1], 100)
    factor = theory.contraction(theory.best_rate(fine, largest, smallest), fine, largest, smallest)
    axes.plot(fine, math.log(TOLERANCE) / np.log(factor), color="0.6")
    axes.plot(sizes, steps, color=figures.COLORS[0], linewidth=0.7)
    for size, step in zip(sizes, steps, strict=True):
        axes.plot([size], [step], marker="o", markersize=4, color=_colors(runs)[int(size)], linestyle="none")
    figures.dashed(axes, fine, steps[0] * sizes[0] / fine, bounds=(0.3 * float(np.nanmin(steps)), 1e9))
    figures.edge_line(axes, theory.critical_batch_size(largest, smallest), "m*")
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel=f"steps to {TOLERANCE:g}", title="dashed: ∝ 1/B")
    axes.set_ylim(bottom=0.5 * float(np.nanmin(steps)))


def _draw_singles(axes: Axes, single: xr.Dataset, problem: Problem) -> None:
    fine = np.linspace(0.0, max(RELATIVE_RATES), 100)
    for size, color in zip(single.batch_size.values, (figures.COLORS[0], *figures.COLORS[3:]), strict=False):
        rate = float(theory.best_rate(size, *ends(problem)))
        for direction, marker in zip(single.direction.values, ("^", "o"), strict=True):
            samples = single.left.sel(batch_size=size, direction=direction)
            errors = 4.0 * analysis.standard_error(samples, "seed").values
            label = f"B = {size}" if marker == "o" else None
            axes.errorbar(
                RELATIVE_RATES, samples.mean("seed"), errors, color=color, marker=marker, markersize=3, linestyle="none", label=label
            )
            exact = theory.step_factor(fine * rate, size, _curvature(direction, problem))
            figures.dashed(axes, fine, exact, bounds=(-10.0, 10.0), color=color)
    axes.set(xlabel="rate / best rate", ylabel="‖e₁‖² / ‖e₀‖²", title="one step: ○ flattest, △ steepest")
    axes.legend(loc="best")
