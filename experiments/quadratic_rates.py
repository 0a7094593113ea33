"""On a quadratic, gradient descent of any rate follows its eigenmodes, and ends at the factor rho(eta) a step; so does line search.

Claim
    The distance falls by rho(eta) = max(|1 - eta mu|, |1 - eta L|) a step in the end: a V with its corner at 2 / (L + mu), above 1 from
    2 / L. A line search in every step is no better than the corner, from the worst start.
Theory
    f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 (Polyak 1964); rho = (kappa - 1) / (kappa + 1) at 2 / (L + mu) (Nesterov
    2004, Thm 2.1.15). Exact line search, g'g / g'Hg along -g: f_{t+1} - f* <= ((kappa - 1) / (kappa + 1))^2 (f_t - f*) (Kantorovich),
    and equal in every step from x* + v_mu / mu + v_L / L; no worse on any smooth, strongly convex f (de Klerk, Glineur and Taylor 2017,
    Thm 1.2).
Sweep
    A few rates with every step recorded; a fine grid of rates along the V; line search from the problem's start and from the worst.
    A slope is seen once the slowest mode is alone: rates count where what other modes are left by then changes it by at most 0.1 %.
Expect
    Curves on their dashed sums; dots on the V; line search from the worst start on the straight line of the corner.
Command
    gdjax experiment=quadratic_rates
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gdjax import analysis, figures, theory
from gdjax.records import Finding, InputError, Problem, several, whole

FEWEST_RECORDS = 8
"""A slope needs so many."""

LARGEST = 1e200
"""Growth is followed to this multiple of the start."""

SEEN = 1e-3
"""How far the exact slope may be from the asymptotic one for a rate to count."""

SLOPE_TOLERANCE = 5e-3
EDGE_TOLERANCE = 1e-3
SEARCH_TOLERANCE = 1e-10
FAR = 1e-6
"""Line search from the worst start is judged down to this part of its start, where round-off is still far below the tolerance."""

MOST_NAMED = 8
"""So many curves have names."""

HIGHEST = 2.2
"""The V's last rate, in units of 1 / L."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 1500,
    relative_rates: Sequence[float] | float = (0.1, 0.5, 1.0, 1.9, 1.95, 2.02),
    num_rates: int = 300,
    num_searches: int = 200,
) -> xr.DataTree:
    """Descend at a few rates and along a grid of them, and by line searches.

    Parameters
    ----------
    relative_rates
        Rates of the curves in units of 1 / L; 2 / (L + mu) is always among them.
    num_rates
        Along the V; more lie around its corner and where it crosses 1.
    """
    if not theory.is_quadratic(problem):
        raise InputError(f"experiment quadratic_rates is about least squares and other quadratics, which {problem.name} is not.")
    smoothness, best = float(problem.smoothness), theory.optimal_rate(problem.smoothness, problem.strong_convexity)  # pyright: ignore
    given = several("relative_rates", relative_rates)
    if not all(0 < rate < np.inf for rate in given):
        raise InputError(f"relative_rates={relative_rates} is not allowed: every one is a number above 0, in units of 1 / L.")
    num_steps, num_searches = whole("num_steps", num_steps), whole("num_searches", num_searches)
    grid = np.linspace(0.02, HIGHEST, whole("num_rates", num_rates, least=2)) / smoothness
    around = np.linspace(0.99, 1.01, 40)  # of 2 / L and of the corner, neither among them: half the tolerance apart
    full = {"sampler": "full", "num_steps": num_steps}
    line = {"method": "steepest_descent", "sampler": "full", "num_steps": 2 * num_searches, "record_every": 2}
    starts = {"worst": worst_start(problem), "own": np.asarray(problem.start)}
    return xr.DataTree.from_dict(
        {
            "curves": sweep(problem, record_every=1, learning_rate=np.unique([best, *np.asarray(given) / smoothness]), **full),
            "rates": sweep(
                problem,
                record_every=max(1, num_steps // 300),
                learning_rate=np.unique([*grid, *around * 2.0 / smoothness, *around * best]),
                **full,
            ),
            **{name: sweep(problem, start=start, learning_rate=1.0 / smoothness, **line) for name, start in starts.items()},
        }
    )


def worst_start(problem: Problem) -> Float[np.ndarray, " p"]:
    """x* + c (v_mu / mu + v_L / L), which a line search turns into its mirror image; c so large that round-off in x* doesn't show."""
    curvatures, vectors = _eigenvectors(problem)
    positive = np.flatnonzero(curvatures > 0.5 * float(problem.strong_convexity))  # pyright: ignore[reportArgumentType]
    slow, fast = positive[0], positive[-1]
    direction = vectors[:, slow] / curvatures[slow] + (vectors[:, fast] / curvatures[fast] if fast != slow else 0.0)
    minimizer, unit = np.asarray(problem.minimizer), 0.5 * (1.0 / curvatures[slow] + 1.0 / curvatures[fast])
    high = max(float(theory.gradient_descent(theory.modes(problem), 0.0, [0])[0, 0]), abs(float(problem.minimum)))  # pyright: ignore
    return minimizer + max(np.sqrt(high / unit), curvatures[fast] * float(np.linalg.norm(minimizer))) * direction


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare curves, slopes, the V and line searches with theory."""
    curves, rates = results["curves"].to_dataset(), results["rates"].to_dataset()
    exact = theory.gradient_descent(theory.modes(problem), curves.learning_rate.values, curves.step.values)
    claim, source = "curves from their eigenmodes' sum", "f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2, Polyak 1964"
    precision = curves.attrs["precision"]
    return [
        analysis.follows(curves.suboptimality.values, exact, problem, precision=precision, claim=claim, source=source),
        *_slope_findings(curves, problem),
        *_valley_findings(rates, problem),
        *_search_findings(results, problem),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Curves coloured by rate, the V, and line searches."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_curves(panels[0, 0], results["curves"].to_dataset(), problem)
    _draw_valley(panels[0, 1], results["rates"].to_dataset(), problem)
    _draw_searches(panels[0, 2], results, problem)
    figures.source(
        drawn,
        f"data: {problem.name}, p = {np.size(problem.start)}, κ = {float(problem.condition_number):.4g}. Black dashed: exact theory, "
        "nothing fitted. Left: the sum of eigenmodes (Polyak 1964); triangle: diverges.\n"
        "Middle: ρ from the slope of ln(f − f*) late in each run, where the slowest mode is alone. "
        "Right: a line search takes two gradients; its bound is Kantorovich's.",
    )
    return {"quadratic_rates": drawn}


def slopes(
    dataset: xr.Dataset, problem: Problem
) -> tuple[Float[np.ndarray, " rates"], Float[np.ndarray, " rates"], Bool[np.ndarray, " rates"]]:
    """The slope of ln(f - f*) late in each run, that of theory, and whether the slowest mode is alone enough by then for the two to agree.

    Late is the second half of the records above round-off; of a run that grows, below `LARGEST`.
    """
    rates, steps, modes = dataset.learning_rate.values, dataset.step.values, theory.modes(problem)
    exact = theory.gradient_descent(modes, rates, steps)
    factor = theory.contraction(rates, dataset.attrs["smoothness"], dataset.attrs["strong_convexity"])
    floor, largest = analysis.ROUND_OFF[dataset.attrs["precision"]][0], LARGEST if dataset.attrs["precision"] == "float64" else 1e20
    measured, seen = np.full(len(rates), np.nan), np.zeros(len(rates), dtype=bool)
    for place, (curve, values) in enumerate(zip(exact, dataset.suboptimality.values, strict=True)):
        usable = np.flatnonzero((curve > floor * curve[0]) & (curve < largest * curve[0]) & (values > 0.0))
        late = usable[len(usable) // 2 :]
        if len(late) >= FEWEST_RECORDS:
            measured[place] = np.polyfit(steps[late], np.log(values[late]), 1)[0]
            seen[place] = _alone(modes, rates[place], int(steps[late[0]]), int(steps[late[-1]]))
    return measured, 2.0 * np.log(np.maximum(factor, np.finfo(float).tiny)), seen


def _alone(modes: theory.Modes, rate: float, first: int, last: int) -> bool:
    """Whether what else there is than the slowest mode bends ln(f - f*) by less than `SEEN` of its fall between two steps."""
    present = modes.curvatures > 1e-14 * modes.curvatures.max()
    with np.errstate(divide="ignore"):
        speed = np.log(np.abs(1.0 - rate * modes.curvatures[present]))
        size = np.log(modes.curvatures[present] * modes.start[present] ** 2) + 2.0 * first * speed
    share = np.exp(size - size.max())
    others = share[speed < speed.max() - 1e-9].sum() / share.sum()
    return bool(others < SEEN * 2.0 * abs(speed.max()) * (last - first))


def _eigenvectors(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the Hessian, ascending, and its eigenvectors as columns."""
    if "eigenvalues" not in problem.constants:
        return theory.eigenvectors(problem)
    curvatures = theory.modes(problem).curvatures
    order = np.argsort(curvatures, kind="stable")
    return curvatures[order], np.eye(len(curvatures))[:, order]


def _slope_findings(curves: xr.Dataset, problem: Problem) -> list[Finding]:
    measured, predicted, seen = slopes(curves, problem)
    relative = curves.learning_rate.values * curves.attrs["smoothness"]
    return [
        Finding(
            claim=f"rate {relative[place]:.4g} / L: slope of ln(f - f*) a step, once the slowest mode is alone",
            predicted=float(predicted[place]),
            measured=float(measured[place]),
            tolerance=max(SLOPE_TOLERANCE, analysis.ROUND_OFF[curves.attrs["precision"]][1]),
            source="2 ln max(|1 - eta mu|, |1 - eta L|), Polyak 1964",
        )
        for place in np.flatnonzero(seen)
    ]


def _valley_findings(rates: xr.Dataset, problem: Problem) -> list[Finding]:
    """The V, where it can be seen: of a start with next to nothing along the steepest or the flattest direction a part is missing."""
    measured, predicted, seen = slopes(rates, problem)
    eta, edge = rates.learning_rate.values, theory.stability_edge(rates.attrs["smoothness"])
    findings = []
    if seen.any():
        findings.append(
            Finding(
                claim=f"the V: largest relative error of the slope 2 ln rho(eta), of {seen.sum()} rates (absolute tolerance)",
                predicted=0.0,
                measured=float(np.max(np.abs(measured[seen] / predicted[seen] - 1.0))),
                tolerance=max(SLOPE_TOLERANCE, analysis.ROUND_OFF[rates.attrs["precision"]][1]),
                source="rho(eta) = max(|1 - eta mu|, |1 - eta L|), Polyak 1964",
                kind="at_most",
            )
        )
    away = np.abs(0.5 * eta * rates.attrs["smoothness"] - 1.0)
    near = (away < 2.0 * EDGE_TOLERANCE) & (away > 0.1 * EDGE_TOLERANCE)
    if near.any() and seen[near].all():
        falls, grows = eta[seen & (measured < 0.0)], eta[seen & (measured > 0.0)]
        findings.append(
            Finding(
                claim="the V crosses 1, from shrinking to growing, at the rate 2 / L",
                predicted=edge,
                measured=float(np.sqrt(falls.max(initial=0.0) * grows.min(initial=np.inf))),
                tolerance=EDGE_TOLERANCE,
                source="|1 - eta L| = 1, Polyak 1964",
            )
        )
    return findings


def _search_findings(results: xr.DataTree, problem: Problem) -> list[Finding]:
    kappa, findings = float(problem.condition_number), []
    if kappa < 1.0 + 1e-6:
        return []  # a line search arrives in one step
    factor, source = ((kappa - 1.0) / (kappa + 1.0)) ** 2, "Kantorovich's inequality; de Klerk, Glineur and Taylor 2017, Thm 1.2"
    for name, far in (("worst", FAR), ("own", None)):
        one = results[name].to_dataset()
        floor, slack = analysis.ROUND_OFF[one.attrs["precision"]]
        values = one.suboptimality.values
        kept = values[: np.argmin(np.append(values > (far or floor) * values[0], False))]
        if name == "worst" and len(kept) > 1:
            findings.append(
                Finding(
                    claim=f"exact line search from the worst start: factor of f - f* in each of {len(kept) - 1} searches",
                    predicted=factor,
                    measured=float((kept[-1] / kept[0]) ** (1.0 / (len(kept) - 1))),
                    tolerance=max(SEARCH_TOLERANCE, 10.0 * kappa * np.finfo(one.attrs["precision"]).eps),
                    source=source,
                )
            )
        elif len(kept) > 1:
            findings.append(
                Finding(
                    claim="exact line search from the problem's own start: largest factor of f - f* in a search",
                    predicted=factor,
                    measured=float(np.max(kept[1:] / kept[:-1])),
                    tolerance=slack,
                    source=source,
                    kind="at_most",
                )
            )
    return findings


def _draw_curves(axes: Axes, curves: xr.Dataset, problem: Problem) -> None:
    steps, rates = curves.step.values, curves.learning_rate.values
    exact = theory.gradient_descent(theory.modes(problem), rates, steps)
    start = exact[0, 0]
    bounds = (max(0.3 * exact[exact > 0].min(), 1e-16 * start), 1e7 * start)
    for place, rate in enumerate(rates):
        color = matplotlib.colormaps[figures.RATES](place / max(1, len(rates) - 1))
        line, name = curves.suboptimality.values[place], f"{rate * curves.attrs['smoothness']:.4g}"
        figures.trajectory(axes, steps, line, bounds=bounds, color=color, linewidth=2.0, label=name if len(rates) <= MOST_NAMED else None)
        figures.dashed(axes, steps, exact[place], bounds=bounds)
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], title="curves")
    axes.legend(title="ηL", loc="upper right", ncols=2, handlelength=1.2, columnspacing=0.8, title_fontsize=7)


def _draw_valley(axes: Axes, rates: xr.Dataset, problem: Problem) -> None:
    measured, predicted, seen = slopes(rates, problem)
    smoothness, convexity = rates.attrs["smoothness"], rates.attrs["strong_convexity"]
    eta, corner = rates.learning_rate.values * smoothness, 2.0 * smoothness / (smoothness + convexity)
    depth = 1.0 - float(theory.contraction(corner / smoothness, smoothness, convexity))
    close = axes.inset_axes((0.16, 0.6, 0.58, 0.31))
    for panel in (axes, close):
        panel.plot(eta[seen], np.exp(0.5 * measured[seen]), ".", markersize=4, color=figures.COLORS[5], label="measured")
        panel.plot(eta, np.exp(0.5 * predicted), color="black", linestyle=(0, (3, 2)), linewidth=0.9, label="max(|1 − ημ|, |1 − ηL|)")
        panel.plot(corner, 1.0 - depth, "o", color=figures.COLORS[1], markersize=4, label="2/(L + μ)")
        panel.axhline(1.0, color="0.6", linewidth=0.8)
        panel.axvline(2.0, color="0.6", linewidth=0.8)
        panel.set_ylim(1.0 - 2.0 * depth, 1.0 + 2.0 * depth)
    close.set_xlim(2.0 - 4.0 * (2.0 - corner) - 1e-3, 2.0 + 2.0 * (2.0 - corner) + 1e-3)
    close.set_ylim(1.0 - 1.3 * depth, 1.0 + 0.7 * depth)
    close.tick_params(labelsize=6, labelleft=False)
    close.xaxis.set_major_locator(MaxNLocator(3))
    close.set_title("near 2/L", fontsize=7, pad=2)
    axes.set(xlabel="rate times smoothness  ηL", ylabel="factor of the distance in a step  ρ", title="the V of ρ(η)")
    axes.legend(loc="lower left", handlelength=1.5)


def _draw_searches(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    kappa = float(problem.condition_number)
    for name, label, color in (("worst", "worst start", figures.COLORS[1]), ("own", "the problem's start", figures.COLORS[0])):
        values = results[name].suboptimality.values / float(results[name].suboptimality[0])
        axes.plot(np.arange(len(values)), np.where(values > 1e-26, values, np.nan), color=color, linewidth=2.0, label=label)
    searches = np.arange(len(results["worst"].step))
    bound = np.where(searches == 0, 1.0, ((kappa - 1.0) / (kappa + 1.0)) ** (2.0 * searches))
    figures.dashed(axes, searches, bound, bounds=(1e-30, 1.0), label="((κ − 1)/(κ + 1))$^{2t}$")
    axes.set(yscale="log", xlabel="line search t", ylabel="(f(x$_t$) − f*) / (f(x$_0$) − f*)", title="exact line search")
    axes.legend(loc="best")
