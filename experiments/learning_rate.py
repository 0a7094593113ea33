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
from gdjax.records import Finding, InputError, Problem

MOST_FEATURES = 40
"""The moments of SGD have p^4 entries; above this their theory is left away."""

LOWEST, HIGHEST = 0.01, 10.0
"""The grid's ends, in multiples of the edge."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 400,
    num_rates: int = 200,
    learning_rate: Sequence[float] | None = None,
    batch_size: Sequence[int] | None = None,
    num_seeds: int = 32,
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
    if problem.smoothness is None:
        raise InputError(f"experiment learning_rate places its rates by the smoothness L, which is not known of {problem.name}.")
    edge = theory.stability_edge(float(problem.smoothness))
    marked = [] if learning_rate is None else [float(rate) for rate in learning_rate]
    coarse = np.geomspace(LOWEST, HIGHEST, num_rates) * edge
    full = sweep(
        problem,
        sampler="full",
        num_steps=num_steps,
        record_every=1,
        learning_rate=np.unique([*coarse, *np.linspace(0.97, 1.03, 25) * edge, *marked]),
    )
    full.attrs["marked"] = marked
    sizes = [size for size in (4, 16) if size < problem.num_examples] if batch_size is None else list(batch_size)
    if not sizes or not num_seeds:
        return xr.DataTree.from_dict({"full": full})
    sampled = sweep(
        problem,
        sampler=sampler,
        num_steps=num_steps,
        record_every=max(1, num_steps // 20),
        batch_size=sizes,
        seed=range(num_seeds),
        learning_rate=np.geomspace(LOWEST, 3.0, 60) * edge,
    )
    return xr.DataTree.from_dict({"full": full, "minibatch": sampled})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare the edge and the curves with theory, and mini-batches with their exact moments."""
    full = results["full"].to_dataset()
    edge = theory.stability_edge(full.attrs["smoothness"])
    findings = [
        Finding(
            claim="gradient descent starts to grow at the rate 2 / L",
            predicted=edge,
            measured=float(analysis.stability_edge(full)),
            tolerance=0.005,
            source="Polyak 1964; page section 2.3 says twice this",
        ),
        Finding(
            claim="largest relative deviation of any curve from its eigenmodes' sum (absolute tolerance)",
            predicted=0.0,
            measured=_deviation(full, problem),
            tolerance=1e-8,
            source="f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2",
            kind="at_most",
        ),
    ]
    if "minibatch" in results.children and _has_moments(results, problem):
        sampled = results["minibatch"].to_dataset()
        for batch in sampled.batch_size.values:
            findings += _minibatch_findings(sampled.sel(batch_size=batch), problem, edge)
    return findings


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Curves coloured by rate beside the final suboptimality against the rate."""
    full = results["full"].to_dataset()
    edge = theory.stability_edge(full.attrs["smoothness"])
    drawn, panels = figures.figure(2, width=7.2, height=3.1, width_ratios=[1.0, 1.05])
    _draw_curves(panels[0, 0], full, problem)
    norm = LogNorm(LOWEST * edge, HIGHEST * edge)
    figures.rate_scale(drawn, panels[0, 0], norm, edge=edge)
    _draw_final(panels[0, 1], results, problem)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, κ = {float(problem.condition_number):.4g}. "
        "Dashed: exact theory. Triangles: runs that diverge. Colour bar and vertical line: stability edge 2/L.",
    )
    return {"learning_rate": drawn}


def _deviation(full: xr.Dataset, problem: Problem) -> float:
    """Over all recorded points that are finite and more than 1e-12 of the start, where theta's own rounding is not yet felt."""
    exact = theory.gradient_descent(theory.modes(problem), full.learning_rate.values, full.step.values)
    measured = full.suboptimality.transpose("learning_rate", "step").values
    compared = np.isfinite(exact) & np.isfinite(measured) & (exact > 1e-12 * exact[:, :1])
    return float(np.max(np.abs(measured[compared] / exact[compared] - 1.0)))


def _has_moments(results: xr.DataTree, problem: Problem) -> bool:
    """Whether the exact moments of SGD are known for what was run."""
    independent = results["minibatch"].attrs["sampler"] in ("without_replacement", "with_replacement")
    return independent and results["full"].sizes["parameter"] <= MOST_FEATURES and problem.hessian is not None


def _minibatch_findings(sampled: xr.Dataset, problem: Problem, edge: float) -> list[Finding]:
    X, y = problem.data
    batch, replacement = int(sampled.batch_size), sampled.attrs["sampler"] == "with_replacement"
    limit = theory.mean_square_edge(X, batch, replacement=replacement)
    one = sampled.sel(learning_rate=0.3 * limit, method="nearest")
    expected = theory.expected_suboptimality(
        X,
        y - X @ problem.minimizer,
        problem.start - problem.minimizer,
        float(one.learning_rate),
        batch,
        int(sampled.step[-1]),
        replacement=replacement,
    )[-1]
    final = one.suboptimality.isel(step=-1)
    return [
        Finding(
            claim=f"B = {batch}: at rate {float(one.learning_rate):.4g}, mean over {final.size} seeds of the final suboptimality (4 standard errors)",
            predicted=float(expected),
            measured=float(final.mean()),
            tolerance=float(4.0 * analysis.standard_error(final, "seed") / expected),
            source="exact recursion of E ee' for SGD on least squares (LMS)",
        ),
        Finding(
            claim=f"B = {batch}: the mean over seeds grows from no lower a rate than the mean-square limit",
            predicted=limit,
            measured=_first_growing(sampled),
            tolerance=0.0,
            source="1 / lambda_max(A^-1 Q) / 2 of the recursion of E ee'",
            kind="at_least",
        ),
        Finding(
            claim=f"B = {batch}: the mean-square limit lies below the full batch's edge",
            predicted=edge,
            measured=limit,
            tolerance=0.0,
            source="c_B > 0 in the recursion of E ee'",
            kind="at_most",
        ),
    ]


def _first_growing(sampled: xr.Dataset) -> float:
    """The lowest rate whose mean suboptimality over seeds ends above the start; inf where none does."""
    mean = sampled.suboptimality.mean("seed", skipna=False)
    grown = ~(mean.isel(step=-1) <= mean.isel(step=0))
    return float(sampled.learning_rate.where(grown, np.inf).min())


def _draw_curves(axes: Axes, full: xr.Dataset, problem: Problem) -> None:
    values = full.suboptimality
    edge = theory.stability_edge(full.attrs["smoothness"])
    bounds = figures.limits(float(values.isel(learning_rate=0, step=0)), values.values)
    figures.curves(axes, values, norm=LogNorm(LOWEST * edge, HIGHEST * edge), bounds=bounds)
    marked = np.asarray(full.attrs.get("marked") or np.array([0.03, 0.3, 1.03]) * edge, dtype=float)
    exact = theory.gradient_descent(theory.modes(problem), marked, full.step.values)
    for rate, row in zip(marked, exact, strict=True):
        figures.dashed(axes, full.step.values, row, bounds=bounds)
        inside = np.flatnonzero((row >= bounds[0]) & (row <= bounds[1]))
        at = inside[-1] if inside[-1] < len(row) - 1 else inside[int(0.55 * len(inside))]
        axes.annotate(f"η = {rate:.3g}", (full.step.values[at], row[at]), xytext=(5, 3), textcoords="offset points", fontsize=6.5)
    axes.set(yscale="log", xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], ylim=bounds)
    axes.set_title("full batch, one curve a rate")


def _draw_final(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    full = results["full"].to_dataset()
    edge = theory.stability_edge(full.attrs["smoothness"])
    rates, last = full.learning_rate.values, full.suboptimality.isel(step=-1)
    start = float(full.suboptimality.isel(learning_rate=0, step=0))
    exact = theory.gradient_descent(theory.modes(problem), rates, full.step.values[-1:])[:, 0]
    low = max(1e-20 * start, 0.1 * float(np.nanmin(last.where(last > 0))))
    bounds = (low, 1e3 * start)
    _rates_line(axes, rates, last.values, bounds, color=figures.COLORS[6], linewidth=1.4, label=f"full batch, B = {full.attrs['num_examples']}")
    figures.dashed(axes, rates, exact, bounds=bounds, color="white", linewidth=0.8)
    if "minibatch" in results.children:
        sampled = results["minibatch"].to_dataset()
        for batch, color in zip(sampled.batch_size.values, figures.COLORS, strict=False):
            final = sampled.suboptimality.sel(batch_size=batch).isel(step=-1)
            figures.band(axes, final.learning_rate.values, final, color=color, label=f"B = {batch}, median of {final.sizes['seed']} seeds, 10–90 %")
            if _has_moments(results, problem):
                replacement = sampled.attrs["sampler"] == "with_replacement"
                limit = theory.mean_square_edge(problem.data[0], int(batch), replacement=replacement)
                figures.edge_line(axes, limit, f"mean-square limit, B = {batch}", color=color, height=0.40)
    figures.edge_line(axes, edge, "2/L")
    axes.axhline(start, color="0.6", linewidth=0.6)
    axes.annotate("start", (rates[0], start), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="0.4")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["learning_rate"], ylabel="suboptimality at the last step", ylim=bounds)
    axes.set_title(f"after {int(full.step[-1])} steps")
    axes.legend(loc="lower left")


def _rates_line(axes: Axes, rates: np.ndarray, values: np.ndarray, bounds: tuple[float, float], **line: object) -> None:
    """A value for each rate; those that left the panel are triangles at its top."""
    lost = ~(values <= bounds[1])
    axes.plot(rates, np.where(lost, np.nan, values), **line)  # pyright: ignore[reportArgumentType]
    axes.plot(rates[lost], np.full(lost.sum(), bounds[1]), "^", markersize=2.5, color=line["color"], clip_on=False)  # pyright: ignore[reportArgumentType]
