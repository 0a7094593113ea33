"""The learning rate decides between crawling, converging and diverging.

Claim
    Gradient descent on least squares converges iff the rate is below 2 / L, with L the largest eigenvalue of the Hessian, and follows
    its eigenmodes exactly on either side. Mini-batches lower the limit: their mean square diverges earlier.
Theory
    f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 (Polyak 1964); the moments of SGD on least squares are an exact linear
    recursion. For J = (1/n)||X theta - y||^2 the edge is 1 / lambda_max(X'X/n): "2 / lambda_max(X'X/n)" is twice too large. On the
    notebook's data it is 0.0291586, so that the notebook's own rates 0.05 and 0.2, and the 0.5 of its assignment, diverge: each step
    multiplies the error along the steepest direction by 1 - eta L < -1. The page's table of regimes, put right (section 5.2; its
    "optimal learning rate" of section 2.3 is the limit, not the optimum):
    - below 1 / L every mode falls without a change of sign: slow, and the smoother the slower;
    - at 2 / (L + mu), the best worst case, the distance shrinks by (kappa - 1) / (kappa + 1), and the top mode changes sign each step;
    - between 1 / L and 2 / L modes with eta lambda > 1 change sign each step and contract, so the loss falls in every step; an
      oscillation that lasts needs eta = 2 / L exactly, noise, or another loss;
    - above 2 / L it diverges, with L the largest eigenvalue of the Hessian, not of X'X/n.
Sweep
    A log grid of rates from 0.01 to 20 times the edge, finer around it; full batch, and mini-batches over seeds. A rate from each
    regime for three steps, to see signs.
Expect
    Curves that fall below the edge and leave the panel above it; the final suboptimality against the rate falls nearly to the edge,
    where there is a wall, which stands further left for smaller batches. 2 / (L + mu) is best for the worst start: one with more of
    the steepest direction than of the flattest, as the notebook's, gets lower at a smaller rate.
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

LOWEST, HIGHEST = 0.01, 20.0
"""The grid's ends, in multiples of the edge."""

SIGNED_STEPS = 3
"""Steps whose parameters are kept, to see signs."""


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
        raise InputError(
            f"experiment learning_rate is about least squares and other quadratics, which {problem.name} is not: see experiment=descend."
        )
    edge = theory.stability_edge(problem.smoothness)
    marked = [] if learning_rate is None else several("learning_rate", learning_rate)
    coarse = np.geomspace(LOWEST, HIGHEST, whole("num_rates", num_rates, least=2)) * edge
    num_steps = whole("num_steps", num_steps)
    best = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    full = sweep(
        problem,
        sampler="full",
        num_steps=num_steps,
        record_every=1,
        learning_rate=np.unique([*coarse, *np.linspace(0.97, 1.03, 25) * edge, best, *marked]),
    )
    full.attrs["marked"] = marked
    parts = {"full": full, "regimes": _signed(problem, sweep)}
    sizes = [size for size in (4, 16) if size < problem.num_examples] if batch_size is None else several("batch_size", batch_size)
    if not sizes or num_seeds == 0:
        return xr.DataTree.from_dict(parts)
    sampled = sweep(
        problem,
        sampler=sampler,
        num_steps=num_steps,
        record_every=max(1, num_steps // 10),
        batch_size=sizes,
        seed=range(whole("num_seeds", num_seeds, least=2)),
        learning_rate=np.unique([*np.geomspace(LOWEST, 3.0, 40), *np.linspace(0.4, 1.15, 31)]) * edge,
    )
    return xr.DataTree.from_dict(parts | {"minibatch": sampled})


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
        *_regime_findings(results["regimes"].to_dataset(), problem),
        *_contraction_findings(full),
        *_divergence_findings(full, exact),
    ]
    sampled = _sampled(results)
    if sampled is not None and theory.has_moments(problem, sampled.attrs["sampler"]):
        for batch in sampled.batch_size.values:
            findings += _minibatch_findings(sampled.sel(batch_size=batch), problem)
    return findings


def _signed(problem: Problem, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """The parameters after each of the first steps, at a rate from each of the page's regimes; as many calls of one program."""
    rates = regimes(problem)
    ends = [
        sweep(problem, sampler="full", num_steps=steps, record_every=steps, learning_rate=list(rates.values()))
        for steps in range(1, SIGNED_STEPS + 1)
    ]
    start = xr.zeros_like(ends[0].params) + np.asarray(problem.start)
    path = xr.concat([start, *(end.params for end in ends)], "taken")
    return xr.Dataset({"path": path}, attrs=ends[0].attrs).assign_coords(regime=("learning_rate", list(rates)))


def regimes(problem: Problem) -> dict[str, float]:
    """The page's four regimes (section 5.2), with a rate of each."""
    smoothness = 2.0 / theory.stability_edge(problem.smoothness)
    return {
        "below 1/L": 0.5 / smoothness,
        "at 2/(L + mu)": theory.optimal_rate(smoothness, problem.strong_convexity),
        "between 1/L and 2/L": 1.5 / smoothness,
        "above 2/L": 2.2 / smoothness,
    }


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Curves coloured by rate; the final suboptimality against the rate; the same by mini-batches around the edge."""
    full = results["full"].to_dataset()
    edge = theory.stability_edge(full.attrs["smoothness"])
    sampled = _sampled(results)
    drawn, panels = figures.figure(2 if sampled is None else 3, width=7.2, height=3.3)
    _draw_curves(panels[0, 0], full, problem, edge)
    figures.rate_scale(drawn, panels[0, 0], LogNorm(LOWEST * edge, HIGHEST * edge), edge=edge)
    _draw_final(panels[0, 1], full, problem, edge)
    if sampled is not None:
        _draw_minibatch(panels[0, 2], sampled, problem, edge)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, κ = {float(problem.condition_number):.4g}. Dashed curves: exact theory. "
        "Triangles: runs that diverge.\nDashed verticals and the mark on the colour bar: the stability edge 2/L, "
        "and in colour the limits of SGD in the mean square.\n"
        f"Why: a step multiplies the error along the steepest direction by 1 − ηL{_examples(full)}.\n"
        "Below −1 it lands further up the other side of the valley, where the slope is steeper, and the next step overshoots by more.\n"
        "From −1 to 0 (grey: 1/L < η < 2/L) it changes sides too but comes nearer. 2/(L + μ) is best for the worst start, not for each.",
    )
    return {"learning_rate": drawn}


def _sampled(results: xr.DataTree) -> xr.Dataset | None:
    return results["minibatch"].to_dataset() if "minibatch" in results.children else None


def _regime_findings(signed: xr.Dataset, problem: Problem) -> list[Finding]:
    """What a step does to the error along the steepest direction, with its sign; seen where the start has a share in it."""
    modes = theory.modes(problem)
    top = (
        np.eye(len(modes.start))[modes.curvatures.argmax()]
        if "eigenvalues" in problem.constants
        else theory.eigenvectors(problem)[1][:, -1]
    )
    if abs(float(top @ (np.asarray(problem.start) - np.asarray(problem.minimizer)))) < 1e-3 * np.linalg.norm(modes.start):
        return []
    along = (signed.path - np.asarray(problem.minimizer)).dot(xr.DataArray(top, dims="parameter"))
    said = {
        "below 1/L": "shrinks without a change of sign",
        "at 2/(L + mu)": "changes sign already",
        "between 1/L and 2/L": "changes sign and shrinks: no oscillation stays",
        "above 2/L": "changes sign and grows: the step overshoots by more than it came",
    }
    smoothness, digits = 2.0 / theory.stability_edge(problem.smoothness), {"float64": 1e-9, "float32": 1e-2}
    return [
        Finding(
            claim=f"rate {regime}: the steepest direction's error {said[str(regime)]}; its factor in a step (absolute)",
            predicted=1.0 - float(rate) * smoothness,
            measured=_factor(along.sel(learning_rate=rate).values),
            tolerance=digits[signed.attrs["precision"]] / abs(1.0 - float(rate) * smoothness),
            source="1 - eta L, Polyak 1964; page section 5.2 calls the third regime an oscillation and the second smooth",
        )
        for regime, rate in zip(signed.regime.values, signed.learning_rate.values, strict=True)
        if abs(1.0 - float(rate) * smoothness) > 1e-3  # with one curvature the optimal rate arrives in a step
    ]


def _factor(errors: np.ndarray) -> float:
    """The geometric mean of consecutive ratios, with the sign of the first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = errors[1:] / errors[:-1]
    same = np.all(np.sign(ratios) == np.sign(ratios[0]))
    return float(np.sign(ratios[0]) * np.abs(errors[-1] / errors[0]) ** (1.0 / len(ratios))) if same else np.nan


def _contraction_findings(full: xr.Dataset) -> list[Finding]:
    """The loss falls in every step below the edge, and at the optimal rate by ((kappa - 1) / (kappa + 1))^2."""
    values, floor, slack = full.suboptimality, *analysis.ROUND_OFF[full.attrs["precision"]]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = (values.shift(step=-1) / values).where(values > floor * values.isel(step=0))
    smoothness, convexity = full.attrs["smoothness"], full.attrs["strong_convexity"]
    best, edge = theory.optimal_rate(smoothness, convexity), theory.stability_edge(smoothness)
    return [
        Finding(
            claim="every rate below 2 / L, also beyond 1 / L: largest ratio of the suboptimality to that of the step before",
            predicted=1.0,
            measured=float(ratios.where(full.learning_rate < (1.0 - 1e-9) * edge).max()),
            tolerance=slack,
            source="the factor of each mode in f - f* is (1 - eta lambda)^2 < 1; page section 5.2 says oscillation",
            kind="at_most",
        ),
        Finding(
            claim="at the rate 2 / (L + mu): largest factor (kappa - 1) / (kappa + 1) of the distance in a step, from the suboptimality",
            predicted=float(theory.contraction(best, smoothness, convexity)),
            measured=float(np.sqrt(ratios.sel(learning_rate=best, method="nearest").max())),
            tolerance=slack,
            source="Nesterov 2004, Thm 2.1.15; only at this rate, and an equality with two parameters; page section 5.1 for any",
            kind="equal" if full.sizes["parameter"] == 2 and convexity < smoothness else "at_most",
        ),
    ]


def _divergence_findings(full: xr.Dataset, exact: np.ndarray) -> list[Finding]:
    """Marked rates past the edge, where the fastest mode is alone before the numbers end."""
    smoothness, findings = full.attrs["smoothness"], []
    for rate in full.attrs["marked"]:
        place = int(np.abs(full.learning_rate.values - rate).argmin())
        predicted = float(rate) * smoothness - 1.0
        if predicted > 1.0 and abs(_growth(exact[place]) / predicted - 1.0) < 1e-4:
            findings.append(
                Finding(
                    claim=f"rate {rate:g}: factor of the distance in a step once it diverges",
                    predicted=predicted,
                    measured=_growth(full.suboptimality.values[place]),
                    tolerance=max(analysis.ROUND_OFF[full.attrs["precision"]][1], 1e-3),
                    source="|1 - eta L|, Polyak 1964; notebook sections 5, 8 and 11",
                )
            )
    return findings


def _growth(values: np.ndarray) -> float:
    """The factor between the last two finite records, where the fastest mode is alone; NaN before that."""
    last = np.flatnonzero(np.isfinite(values))[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(values[last] / values[last - 1])) if last else np.nan


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


def _examples(full: xr.Dataset) -> str:
    """The factor of the marked rates that diverge."""
    past = [rate for rate in full.attrs["marked"] if rate * full.attrs["smoothness"] > 2.0]
    factors = ", ".join(f"{1.0 - rate * full.attrs['smoothness']:.3g} at η = {rate:g}".replace("-", "−") for rate in past)
    return f" ({factors})" if factors else ""


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
        else:  # gone in the first step
            figures.tag(axes, values.step.values[0], bounds[1], f"{rate:.3g}")
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
    axes.axvspan(0.5 * edge, edge, color="0.92", linewidth=0)
    figures.edge_line(axes, edge, f"2/L = {edge:.4g}", height=0.9)
    best = theory.optimal_rate(full.attrs["smoothness"], full.attrs["strong_convexity"])
    reached = float(full.suboptimality.sel(learning_rate=best, method="nearest").isel(step=-1))
    axes.plot(best, max(reached, bounds[0]), "o", color=figures.COLORS[1], markersize=4, zorder=5, label="2/(L + μ)")
    axes.axhline(start, color="0.6", linewidth=0.6)
    axes.annotate("start", (rates[0], start), xytext=(0, 2), textcoords="offset points", fontsize=6.5, color="0.4")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["learning_rate"], ylabel="suboptimality at the last step", ylim=bounds)
    axes.set_title(f"full batch after {int(full.step[-1])} steps")
    axes.legend(loc="lower left")


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
