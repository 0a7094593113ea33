"""Randomized Kaczmarz is SGD that draws rows by their length: its mean square is known exactly, and its bound holds.

Claim
    Projecting onto one equation of A x = b at a time, drawn with probability ||a_i||^2 / ||A||_F^2, shrinks E||x - x*||^2 by at least
    1 - sigma_min^2 / ||A||_F^2 a step, on any matrix. Where the equations contradict each other, it stalls around least squares' answer.
Theory
    Strohmer and Vershynin 2009, Thm 2. It is SGD of rate 1 on f_i = (z_i'x - b_i / ||a_i||)^2 / 2 with unit rows z_i, so E ee' follows
    S+ = S - GS - SG + sum_i p_i (z_i'S z_i + r_i^2 - 2 r_i z_i'm) z_i z_i' exactly, G = A'A / ||A||_F^2.
Sweep
    Seeds on the problem's rows; b = A x* for the solvable system, the problem's own targets for the other; rows drawn by length, and
    uniformly for comparison.
Expect
    Lines on dashed exact means, below the dotted bound; with contradictions a floor.
Command
    gdjax experiment=kaczmarz
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems, samplers, theory
from gdjax.records import Finding, InputError, Problem, whole
from gdjax.theory import kaczmarz, moments

KINDS = {"solvable": "b = A x*", "uniform": "rows drawn alike", "contradictory": "the data's b"}

LATE = 0.75
"""The part of a run from which its floor is taken."""

PRECISE = 0.0075
"""Where a mean's standard error is below this share of it, it must be within 3 % of the exact one. Later a few runs make the mean."""


def run(problem: Problem, sweep: Callable[..., xr.Dataset], *, num_steps: int = 800, num_seeds: int = 10_000) -> xr.DataTree:
    """Run the method on the problem's equations made solvable, by rows drawn alike too, and as they are."""
    if not theory.has_moments(problem, "with_replacement"):
        raise InputError(
            f"experiment kaczmarz is about least squares with at most {moments.MOST_PARAMETERS} parameters, which {problem.name} is not."
        )
    steps, seeds = whole("num_steps", num_steps, least=2), range(whole("num_seeds", num_seeds, least=2))
    A, residual = rows(problem)
    by_length = samplers.Weighted(tuple(kaczmarz.row_probabilities(A).tolist()))
    parts = {}
    for kind, left, sampler in (
        ("solvable", 0.0 * residual, by_length),
        ("uniform", 0.0 * residual, "with_replacement"),
        ("contradictory", residual, by_length),
    ):
        measured = sweep(
            equations(problem, A, left),
            sampler=sampler,
            num_steps=steps,
            record_every=max(1, steps // 200),
            batch_size=1,
            seed=seeds,
            learning_rate=0.5,  # of (z'x - b)^2, whose gradient is 2 (z'x - b) z: a whole projection
        )
        square = measured.distance**2
        late = analysis.over_seeds(square.where(square.step >= LATE * steps, drop=True).mean("step"))
        kept = analysis.over_seeds(square).drop_vars("epoch").assign(late=late["mean"], late_error=late["error"])
        parts[kind] = kept.assign_attrs(measured.attrs | {"num_seeds": len(seeds)})
    return xr.DataTree.from_dict(parts)


def rows(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The equations that say something, and what least squares leaves of each."""
    A, b = (np.asarray(part) for part in problem.data)
    kept = np.linalg.norm(A, axis=1) > 0
    return A[kept], (b - A @ np.asarray(problem.minimizer))[kept]


def equations(problem: Problem, A: np.ndarray, residual: np.ndarray) -> Problem:
    """Unit rows whose solution, or least squares by the rows' length, is the problem's minimizer."""
    lengths, minimizer = np.linalg.norm(A, axis=1), np.asarray(problem.minimizer)
    unit = A / lengths[:, None]
    built = problems.least_squares(unit, unit @ minimizer + residual / lengths, intercept=False, hessian=True)
    return dataclasses.replace(built, name=problem.name, minimizer=minimizer, start=np.asarray(problem.start))


def _exact(measured: xr.Dataset, problem: Problem, kind: str) -> np.ndarray:
    A, residual = rows(problem)
    error = np.asarray(problem.start) - np.asarray(problem.minimizer)
    left = residual if kind == "contradictory" else 0.0 * residual
    probabilities = np.full(len(A), 1.0 / len(A)) if kind == "uniform" else None
    return kaczmarz.kaczmarz_distance(A, left, error, int(measured.step[-1]), probabilities=probabilities)[measured.step.values]


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Every mean follows its recursion, and the bounds hold."""
    findings = []
    for kind, said in KINDS.items():
        measured = results[kind].to_dataset()
        findings += _recursion_findings(measured, _exact(measured, problem, kind), said)
    return [*findings, *_bound_findings(results, problem), _floor_finding(results["contradictory"].to_dataset(), problem)]


def _floor_finding(measured: xr.Dataset, problem: Problem) -> Finding:
    late = measured.step.values >= LATE * measured.step.values[-1]
    expected, share = float(_exact(measured, problem, "contradictory")[late].mean()), float(measured.late_error / measured.late)
    return Finding(
        claim=f"the data's b: E||x - x*||² over the run's last quarter (4 standard errors of {share:.2%})",
        predicted=expected,
        measured=float(measured.late),
        tolerance=1e-8 + 4.0 * share,
        source="covariance recursion of SGD with rows drawn by probability",
    )


def _recursion_findings(measured: xr.Dataset, exact: np.ndarray, said: str) -> list[Finding]:
    steps = measured.step.values
    few = np.unique(np.searchsorted(steps, np.geomspace(steps[1], steps[-1], 8)))
    known = (measured["error"].values < 0.1 * measured["mean"].values) & (exact > 1e-20 * exact[0])
    sure = ((measured["error"] > 0) & (measured["error"] < PRECISE * measured["mean"])).values & known
    sampled = few[known[few]]
    findings = [
        Finding(
            claim=f"{said}: largest relative deviation of E||x - x*||² from its recursion where it is known to {PRECISE:.2%} "
            f"(up to step {steps[sure].max(initial=0)}, absolute)",
            predicted=0.0,
            measured=float(np.max(np.abs(measured["mean"].values[sure] / exact[sure] - 1.0))),
            tolerance=0.03,
            source="covariance recursion of SGD with rows drawn by probability",
            kind="at_most",
        )
    ] * bool(sure.any())
    return [
        *findings,
        Finding(
            claim=f"{said}: the same at {len(sampled)} times along the run, in standard errors",
            predicted=4.0,
            measured=analysis.furthest(measured.isel(step=sampled), exact[sampled]),
            tolerance=0.0,
            source="covariance recursion of SGD with rows drawn by probability",
            kind="at_most",
        ),
    ]


def _bound_findings(results: xr.DataTree, problem: Problem) -> list[Finding]:
    A, residual = rows(problem)
    solvable, contradictory = results["solvable"].to_dataset(), results["contradictory"].to_dataset()
    factor = kaczmarz.kaczmarz_contraction(A)
    bound = float(solvable["mean"][0]) * factor**solvable.step.values
    ratios = {"solvable": (solvable["mean"] - 4.0 * solvable["error"]).values / bound}
    ends = {"solvable": f"(1 - {1.0 - factor:.3g})^t ||e_0||²", "contradictory": "that + max (r_i / ||a_i||)² ||A||² / σ_min²"}
    ratios["contradictory"] = (contradictory["mean"] - 4.0 * contradictory["error"]).values / (
        bound + kaczmarz.kaczmarz_horizon(A, residual)
    )
    sources = {"solvable": "Strohmer and Vershynin 2009, Thm 2", "contradictory": "Needell 2010, Thm 2.1, in squares"}
    return [
        Finding(
            claim=f"{KINDS[kind]}: largest ratio of E||x - x*||², less 4 standard errors, to {ends[kind]}",
            predicted=1.0,
            measured=float(ratio[1:].max()),
            tolerance=0.0,
            source=sources[kind],
            kind="at_most",
        )
        for kind, ratio in ratios.items()
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The mean square by kind, with exact curves and bounds; and how far the mean is from the recursion."""
    drawn, panels = figures.figure(2, width=7.2, height=3.0, width_ratios=[1.5, 1.0])
    _draw_curves(panels[0, 0], results, problem)
    _draw_ratios(panels[0, 1], results, problem)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; {results['solvable'].attrs['num_seeds']:,} seeds. Dashed: exact recursion. "
        "Dotted: (1 − σ²$_{min}$/‖A‖²$_F$)$^t$ ‖e$_0$‖².\nRight: bands of 4 standard errors, as long as these are below 10 %: later a few "
        "runs make the mean.",
    )
    return {"kaczmarz": drawn}


def _draw_curves(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    lowest = np.inf
    for (kind, said), color in zip(KINDS.items(), figures.COLORS, strict=False):
        measured = results[kind].to_dataset()
        exact = _exact(measured, problem, kind)
        axes.plot(measured.step, measured["mean"], color=color, linewidth=2.0, label=said)
        figures.dashed(axes, measured.step.values, exact, bounds=(1e-30, 1e300))
        lowest = min(lowest, exact.min()) if kind != "uniform" else lowest
    solvable = results["solvable"].to_dataset()
    start, factor, steps = float(solvable["mean"][0]), kaczmarz.kaczmarz_contraction(rows(problem)[0]), solvable.step.values
    axes.plot(steps, start * factor**steps, color=figures.COLORS[0], linestyle=":", label="bound for the first")
    axes.set(yscale="log", xlabel="projections t", ylabel="E ‖x$_t$ − x*‖²", ylim=(3e-3 * max(lowest, 1e-26 * start), 3.0 * start))
    axes.set_title("one equation at a time")
    axes.legend(loc="lower right")


def _draw_ratios(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    for kind, color in zip(KINDS, figures.COLORS, strict=False):
        measured = results[kind].to_dataset()
        exact = _exact(measured, problem, kind)
        shown = (measured["error"] < 0.1 * measured["mean"]).values & (exact > 1e-20 * exact[0])
        steps, middle, error = (measured[name].values for name in ("step", "mean", "error"))
        middle, error = middle[shown] / exact[shown], 4.0 * error[shown] / exact[shown]
        axes.fill_between(steps[shown], middle - error, middle + error, color=color, alpha=0.2, linewidth=0)
        axes.plot(steps[shown], middle, color=color)
    axes.axhline(1.0, color="black", linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set(xlabel="projections t", ylabel="mean of seeds / exact", ylim=(0.7, 1.3), title="against the recursion")
