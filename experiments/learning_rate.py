"""The learning rate decides between crawling, converging and diverging.

Claim
    Gradient descent on least squares converges iff the rate is below 2 / L, with L the largest eigenvalue of the Hessian, and follows
    its eigenmodes exactly on either side. Mini-batches lower the limit: their mean square diverges earlier.
Theory
    f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 (Polyak 1964); the moments of SGD on least squares are an exact linear
    recursion. For J = (1/n)||X theta - y||^2 the edge is 1 / lambda_max(X'X/n): "2 / lambda_max(X'X/n)" is twice too large. On the
    notebook's data it is 0.0291586, so that the notebook's own rates 0.05 and 0.2 diverge.
Sweep
    A log grid of rates from 0.01 to 10 times the edge, finer around it; full batch, and mini-batches over seeds.
Expect
    Curves that fall below the edge and leave the panel above it; the final suboptimality against the rate has its minimum near
    2 / (L + mu) and a wall at the edge, which stands further left for smaller batches.
Command
    gdjax
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gdjax import analysis, figures, theory
from gdjax.records import Finding, InputError, Problem, several, whole

LOWEST, HIGHEST = 0.01, 10.0
"""The grid's ends, in multiples of the edge."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 400,
    num_rates: int = 200,
    learning_rate: Sequence[float] | float | None = None,
    batch_size: Sequence[int] | int | None = None,
    num_seeds: int = 128,
    sampler: str = "without_replacement",
) -> xr.DataTree:
    """Sweep rates across the stability edge, by full batch and by mini-batches.

    Parameters
    ----------
    learning_rate
        Rates to have in the grid, and to label in the figure.
    batch_size
        By default 4 and 16, where there are more examples than that.
    """
    if not theory.is_quadratic(problem):
        raise InputError(f"experiment learning_rate is about least squares and other quadratics, which {problem.name} is not.")
    edge = theory.stability_edge(problem.smoothness)
    marked = [] if learning_rate is None else several("learning_rate", learning_rate)
    coarse = np.geomspace(LOWEST, HIGHEST, whole("num_rates", num_rates, least=2)) * edge
    num_steps = whole("num_steps", num_steps)
    full = sweep(
        problem,
        sampler="full",
        num_steps=num_steps,
        record_every=1,
        learning_rate=np.unique([*coarse, *np.linspace(0.97, 1.03, 25) * edge, *marked]),
    )
    full.attrs["marked"] = marked
    sizes = [size for size in (4, 16) if size < problem.num_examples] if batch_size is None else several("batch_size", batch_size)
    if not sizes or num_seeds == 0:
        return xr.DataTree.from_dict({"full": full})
    sampled = sweep(
        problem,
        sampler=sampler,
        num_steps=num_steps,
        record_every=max(1, num_steps // 10),
        batch_size=sizes,
        seed=range(whole("num_seeds", num_seeds, least=2)),
        learning_rate=np.unique([*np.geomspace(LOWEST, 3.0, 40), *np.linspace(0.4, 1.15, 31)]) * edge,
    )
    return xr.DataTree.from_dict({"full": full, "minibatch": sampled})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare the edge and the curves with theory, and mini-batches with their exact moments."""
    full = results["full"].to_dataset()
    edge = theory.stability_edge(full.attrs["smoothness"])
    exact = theory.gradient_descent(theory.modes(problem), full.learning_rate.values, full.step.values)
    findings = [
        Finding(
            claim="gradient descent starts to grow at the rate 2 / L",
            predicted=edge,
            measured=float(analysis.stability_edge(full)),
            tolerance=0.005,
            source="Polyak 1964; page section 2.3 says twice this",
        ),
        analysis.follows_modes(full.suboptimality.values, exact, full.attrs["precision"]),
    ]
    sampled = _sampled(results)
    if sampled is not None and theory.has_moments(problem, sampled.attrs["sampler"]):
        for batch in sampled.batch_size.values:
            findings += _minibatch_findings(sampled.sel(batch_size=batch), problem)
    return findings


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Curves coloured by rate; the final suboptimality against the rate; the same by mini-batches around the edge."""
    full = results["full"].to_dataset()
    edge = theory.stability_edge(full.attrs["smoothness"])
    sampled = _sampled(results)
    drawn, panels = figures.figure(2 if sampled is None else 3, width=7.2, height=2.9)
    _draw_curves(panels[0, 0], full, problem, edge)
    figures.rate_scale(drawn, panels[0, 0], LogNorm(LOWEST * edge, HIGHEST * edge), edge=edge)
    _draw_final(panels[0, 1], full, problem, edge)
    if sampled is not None:
        _draw_minibatch(panels[0, 2], sampled, problem, edge)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, κ = {float(problem.condition_number):.4g}. Dashed curves: exact theory. "
        "Triangles: runs that diverge.\nDashed verticals and the mark on the colour bar: the stability edge 2/L, "
        "and in colour the limits of SGD in the mean square.",
    )
    return {"learning_rate": drawn}


def _sampled(results: xr.DataTree) -> xr.Dataset | None:
    return results["minibatch"].to_dataset() if "minibatch" in results.children else None


def _minibatch_findings(sampled: xr.Dataset, problem: Problem) -> list[Finding]:
    batch, sampler = int(sampled.batch_size), sampled.attrs["sampler"]
    limit = theory.mean_square_edge(problem, batch, sampler=sampler)
    one = sampled.sel(learning_rate=0.3 * limit, method="nearest")
    rate, final = float(one.learning_rate), one.suboptimality.isel(step=-1)
    expected = float(theory.expected_suboptimality(problem, rate, batch, int(one.step[-1]), sampler=sampler)[0, -1])
    return [
        Finding(
            claim=f"B = {batch}: at rate {rate:.4g}, mean over {final.size} seeds of the final suboptimality (4 standard errors)",
            predicted=expected,
            measured=float(final.mean()),
            tolerance=analysis.ROUND_OFF[one.attrs["precision"]][1] + float(4.0 * analysis.standard_error(final, "seed") / expected),
            source="exact recursion of E ee' for SGD on least squares (LMS)",
        ),
        Finding(
            claim=f"B = {batch}: the lowest rate at which any of {final.size} seeds diverges is no lower than the mean-square limit",
            predicted=limit,
            measured=float(sampled.learning_rate.where(analysis.diverged(sampled).any("seed"), np.inf).min()),
            tolerance=0.0,
            source="1 / (2 lambda_max(A^-1 Q)) of the recursion of E ee'; a run 1e6 above a bounded mean has probability 1e-6",
            kind="at_least",
        ),
    ]


def _draw_curves(axes: Axes, full: xr.Dataset, problem: Problem, edge: float) -> None:
    values = full.suboptimality.isel(step=slice(1, None))
    start = float(full.suboptimality.isel(learning_rate=0, step=0))
    bounds = figures.limits(start, values.values)
    figures.curves(axes, values, norm=LogNorm(LOWEST * edge, HIGHEST * edge), bounds=bounds)
    marked = np.asarray(full.attrs["marked"] or np.array([0.03, 0.3, 1.03]) * edge, dtype=float)
    exact = theory.gradient_descent(theory.modes(problem), marked, values.step.values)
    for rate, row in zip(marked, exact, strict=True):
        figures.dashed(axes, values.step.values, row, bounds=bounds)
        inside = np.flatnonzero((row >= bounds[0]) & (row <= bounds[1]))
        if len(inside):
            at = inside[-1] if row[0] > start else min(len(row) - 1, max(1, int(np.argmax(row < 0.3 * start))))
            figures.tag(axes, values.step.values[at], row[at], f"{rate:.3g}")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], ylim=bounds)
    axes.set_title("full batch, a curve a rate")


def _draw_final(axes: Axes, full: xr.Dataset, problem: Problem, edge: float) -> None:
    rates, last = full.learning_rate.values, full.suboptimality.isel(step=-1).values
    start = float(full.suboptimality.isel(learning_rate=0, step=0))
    bounds = figures.limits(start, last)
    exact = theory.gradient_descent(theory.modes(problem), rates, full.step.values[-1:])[:, 0]
    lost = ~(last <= bounds[1])
    axes.plot(rates[~lost], last[~lost], color=figures.COLORS[5], linewidth=2.2, label="measured")
    axes.plot(rates[lost], np.full(lost.sum(), bounds[1]), "^", markersize=3, color=figures.COLORS[5], clip_on=False, label="diverged")
    figures.dashed(axes, rates, exact, bounds=bounds, label="exact")
    figures.edge_line(axes, edge, f"2/L = {edge:.4g}", height=0.9)
    axes.axhline(start, color="0.6", linewidth=0.6)
    axes.annotate("start", (rates[0], start), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="0.4")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["learning_rate"], ylabel="suboptimality at the last step", ylim=bounds)
    axes.set_title(f"full batch after {int(full.step[-1])} steps")
    axes.legend(loc="best")


def _draw_minibatch(axes: Axes, sampled: xr.Dataset, problem: Problem, edge: float) -> None:
    """The mean over seeds on a linear axis, where the limits of different batch sizes stand apart."""
    sampler = sampled.attrs["sampler"]
    near = sampled.sel(learning_rate=slice(0.35 * edge, 1.2 * edge))
    rates, last = near.learning_rate.values, analysis.mean_over(near.suboptimality.isel(step=-1), "seed")
    start = float(near.suboptimality.isel(learning_rate=0, step=0, seed=0, batch_size=0))
    bounds = figures.limits(start, last.values)
    for batch, color in zip(near.batch_size.values, figures.COLORS, strict=False):
        mean = last.sel(batch_size=batch).values
        shown = mean <= bounds[1]
        axes.plot(rates[shown], mean[shown], color=color, label=f"B = {batch}")
        axes.plot(rates[~shown], np.full((~shown).sum(), bounds[1]), "^", markersize=3, color=color, clip_on=False)
        if theory.has_moments(problem, sampler):
            limit = theory.mean_square_edge(problem, int(batch), sampler=sampler)
            figures.edge_line(axes, limit, "", color=color)
            expected = theory.expected_suboptimality(problem, rates, int(batch), int(near.step[-1]), sampler=sampler)
            figures.dashed(axes, rates, expected[:, -1], bounds=bounds, color=color)
    figures.edge_line(axes, edge, "2/L", side="right", height=0.5)
    axes.set(yscale="log", xlabel=figures.LABELS["learning_rate"], ylim=bounds)
    axes.set_title("mini-batches, mean of seeds")
    axes.legend(loc="upper left", title=f"{near.sizes['seed']} seeds", title_fontsize=7)
