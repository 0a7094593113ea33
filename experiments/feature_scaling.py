"""What makes descent slow is the condition number of the Hessian, which scaling mends only in part: with one feature it is centring.

Claim
    At its best rate gradient descent needs a number of steps that the condition number decides. Transforming the features changes that
    number and not the minimum: centring takes away the correlation with the intercept, standardising the differences of scale, and
    neither the correlation between features.
Theory
    f_t - f* <= ((kappa - 1) / (kappa + 1))^(2t) (f_0 - f*) at the rate 2 / (L + mu) (Nesterov 2004, Thm 2.1.15), so that
    ceil(ln tolerance / (2 ln((kappa - 1) / (kappa + 1)))) steps are enough, and with two parameters just enough. "Scaling is not
    optional" (notebook, section 9) is right of raw columns of different scale; on the notebook's own data, one feature and an
    intercept, x / 10 already does as well as x / std, centring better than either, and only both together give kappa = 1.
Sweep
    Versions of the features: raw, x / 10, x / std, centred, to [-1, 1], standardised, decorrelated; pairs of standardised features over
    their correlation.
Expect
    Steps that fall from version to version; standardised diabetes still far from 1; steps that grow as (1 + r) / (1 - r) with the
    correlation r.
Command
    gdjax experiment=feature_scaling
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems, theory
from gdjax.records import Finding, InputError, Problem, whole

Features = Float[np.ndarray, "n p"]

MOST_CORRELATED = 250.0
"""The largest condition number of a pair of features; their correlation is then 0.992."""


def centred(X: Features) -> Features:
    """Take the mean from every column; twice, since that of a column far from 0 is off by more than one rounding."""
    X = X - X.mean(axis=0)
    return X - X.mean(axis=0)


def scaled(X: Features) -> Features:
    """Divide every column by its standard deviation over n; a constant one stays."""
    std = centred(X).std(axis=0)
    return X / np.where(std > 0, std, 1.0)


def minmax(X: Features) -> Features:
    """Take every column to [-1, 1]; a constant one to -1."""
    low, span = X.min(axis=0), np.ptp(X, axis=0)
    return 2.0 * (X - low) / np.where(span > 0, span, 1.0) - 1.0


def decorrelated(X: Features) -> Features:
    """Take the columns to their principal components, each of mean 0 and standard deviation 1; those without variance are left out."""
    U, singular, _ = np.linalg.svd(scaled(centred(X)), full_matrices=False)
    return np.sqrt(len(X)) * U[:, singular > singular[0] * max(X.shape) * np.finfo(float).eps]


SCALINGS: dict[str, Callable[[Features], Features]] = {"raw": lambda X: X, "x / 10": lambda X: X / 10.0, "x / std": scaled}
SHIFTS: dict[str, Callable[[Features], Features]] = {
    "centred": centred,
    "to [−1, 1]": minmax,
    "standardised": lambda X: scaled(centred(X)),
    "decorrelated": decorrelated,
}
"""Transforms that only an intercept can undo; without one they would change the model."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 2000,
    tolerance: float = 1e-6,
    compare: str | None = "diabetes",
) -> xr.DataTree:
    """Descend on every version of the features, each at its own best rate, and on pairs of features over their correlation.

    Parameters
    ----------
    num_steps
        Of every run. A version that needs more is compared so far; how many it needs is computed.
    tolerance
        Of the suboptimality, relative to the start's.
    compare
        A data set by name, to transform beside the problem's own; None for none.
    """
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment feature_scaling is about linear least squares, which {problem.name} is not.")
    if not isinstance(tolerance, Real) or not 0 < tolerance < 1:
        raise InputError(f"tolerance={tolerance} is not allowed: it is a number between 0 and 1, e.g. tolerance=1e-6.")
    steps = {"sampler": "full", "num_steps": whole("num_steps", num_steps), "record_every": 1}
    kappas = np.geomspace(1.0, MOST_CORRELATED, 12)
    pairs = sweep(correlated_pair, learning_rate=0.5, correlation=(kappas - 1.0) / (kappas + 1.0), **steps)
    tree = {"given": _descend_versions(problem, sweep, steps), "pairs": pairs}
    if compare is not None and (other := problems.named(compare)).name != problem.name:
        tree["compared"] = _descend_versions(other, sweep, steps).assign_attrs(compare=compare)
    for dataset in tree.values():
        dataset.attrs["tolerance"] = float(tolerance)
    return xr.DataTree.from_dict(tree)


def versions(problem: Problem) -> dict[str, Problem]:
    """The problem with each transform of its features: other parameters, and with an intercept the same minimum."""
    X, y = (np.asarray(part) for part in problem.data)
    intercept = problem.evaluate.intercept  # pyright: ignore[reportFunctionMemberAccess]  (least squares has a linear model)
    features, hessian = X[:, int(intercept) :], None if problem.hessian is not None else False
    transforms = SCALINGS | SHIFTS if intercept else SCALINGS
    return {name: problems.least_squares(change(features), y, intercept, hessian=hessian) for name, change in transforms.items()}


def correlated_pair(correlation: float) -> Problem:
    """Two standardised features of that correlation r: the eigenvalues of X'X/n are 1 - r, 1 and 1 + r, so that 2 / (L + mu) = 1 / 2."""
    first, other = jnp.array([1.0, 1.0, -1.0, -1.0]), jnp.array([1.0, -1.0, 1.0, -1.0])
    X = jnp.stack([first, correlation * first + jnp.sqrt(1.0 - correlation**2) * other], axis=1)
    return problems.least_squares(X, X[:, 0], True)


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare steps and condition numbers with theory, on every version of both data sets and on the pairs."""
    return [finding for measured, built in _sets(results, problem) for finding in _version_findings(measured, built)] + [
        _pair_finding(results["pairs"].to_dataset())
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Steps of every version; the curves of the given data; steps over the correlation of two features."""
    drawn, panels = figures.figure(3, width=7.2, height=3.5, gridspec_kw={"width_ratios": (1.6, 1, 1)})
    given, pairs = results["given"].to_dataset(), results["pairs"].to_dataset()
    tolerance, sets = given.attrs["tolerance"], ", ".join(measured.attrs["problem"] for measured, _ in _sets(results, problem))
    _draw_steps(panels[0, 0], _sets(results, problem), tolerance)
    _draw_curves(panels[0, 1], given, versions(problem))
    _draw_pairs(panels[0, 2], pairs)
    figures.source(
        drawn,
        f"data: {sets}; every version starts at 0 and takes its rate 2/(L + μ). Left: steps to {tolerance:g} of the start's suboptimality; "
        f"filled: measured;\nhollow: more than the {int(given.step[-1])} run, computed from the eigenmodes; bars: enough by "
        f"⌈ln {tolerance:g} / (2 ln((κ − 1)/(κ + 1)))⌉. Dashed: exact theory.",
    )
    return {"feature_scaling": drawn}


def _descend_versions(problem: Problem, sweep: Callable[..., xr.Dataset], steps: dict[str, Any]) -> xr.Dataset:
    built = versions(problem)
    rates = {name: theory.optimal_rate(version.smoothness, version.strong_convexity) for name, version in built.items()}
    runs = {name: sweep(version, learning_rate=rates[name], **steps) for name, version in built.items()}
    kept = [
        runs[name][["objective", "suboptimality"]].assign(
            minimum=float(runs[name].attrs["minimum"]), condition_number=float(version.condition_number)
        )
        for name, version in built.items()
    ]
    together = xr.concat(kept, "version", combine_attrs="drop").assign_coords(version=[*built])
    return together.assign_attrs(problem=problem.name, num_examples=problem.num_examples, precision=runs["raw"].attrs["precision"])


def _sets(results: xr.DataTree, problem: Problem) -> list[tuple[xr.Dataset, dict[str, Problem]]]:
    """What was measured on each data set, with its versions."""
    sets = [(results["given"].to_dataset(), versions(problem))]
    if "compared" in results.children:
        compared = results["compared"].to_dataset()
        sets.append((compared, versions(problems.named(compared.attrs["compare"]))))
    return sets


def _version_findings(measured: xr.Dataset, built: dict[str, Problem]) -> list[Finding]:
    findings = [_steps_finding(measured.sel(version=name), version) for name, version in built.items()]
    tolerance, data = measured.attrs["tolerance"], measured.attrs["problem"]
    steps = analysis.steps_to_tolerance(measured, tolerance)
    bound = theory.steps_at_optimal_rate(measured.condition_number.values, tolerance)
    two = np.size(built["raw"].start) == 2
    findings += [
        Finding(
            claim=f"{data}: most steps of any version over ceil(ln tolerance / (2 ln((kappa - 1) / (kappa + 1))))",
            predicted=1.0,
            measured=float((steps / bound).max()),
            tolerance=0.0,
            source="Nesterov 2004, Thm 2.1.15; equal where only the modes at L and mu exist",
            kind="equal" if two else "at_most",
        ),
        Finding(
            claim=f"{data}: all versions have one minimum: difference relative to the objective at the start (absolute)",
            predicted=0.0,
            measured=float((measured.minimum.max() - measured.minimum.min()) / measured.objective.isel(step=0).max()),
            tolerance=1e-10,
            source="a transform that an intercept can undo, or a scale, changes the parameters and not the fit",
        ),
    ]
    return findings + (_condition_findings(measured, built) if "standardised" in built else [])


def _steps_finding(one: xr.Dataset, version: Problem) -> Finding:
    """Steps to the tolerance; of a version that needs more than were run, what is left after these."""
    tolerance, rate, num_steps = one.attrs["tolerance"], float(one.learning_rate), int(one.step[-1])
    modes = theory.modes(version)
    needed = theory.steps_to_tolerance(modes, rate, tolerance)
    said = f"{one.attrs['problem']}, {one.version.values!s}, kappa = {float(one.condition_number):.6g}"
    slack = analysis.ROUND_OFF[one.attrs["precision"]][1]
    source = "sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 at eta = 2 / (L + mu), Polyak 1964"
    if needed <= num_steps:
        steps = float(analysis.steps_to_tolerance(one, tolerance))
        return Finding(claim=f"{said}: steps to {tolerance:g}", predicted=needed, measured=steps, tolerance=slack, source=source)
    left = theory.gradient_descent(modes, rate, np.array([0, num_steps]))[0]
    return Finding(
        claim=f"{said}: needs {needed:,} steps to {tolerance:g}; left after {num_steps:,}",
        predicted=float(left[1] / left[0]),
        measured=float(one.suboptimality[-1] / one.suboptimality[0]),
        tolerance=slack,
        source=source,
    )


def _condition_findings(measured: xr.Dataset, built: dict[str, Problem]) -> list[Finding]:
    data, kappa, p = measured.attrs["problem"], measured.condition_number, np.size(built["centred"].start)
    X = np.asarray(built["raw"].data[0])[:, 1:]
    curvatures = np.append(np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(X[:, np.ptp(X, axis=0) > 0], rowvar=False))), 1.0)
    present = curvatures[curvatures > curvatures.max() * max(X.shape) * np.finfo(float).eps]
    correlated = Finding(
        claim=f"{data}: standardised, kappa is that of the correlation matrix and the intercept's 1",
        predicted=float(present.max() / present.min()),
        measured=float(kappa.sel(version="standardised")),
        tolerance=1e-8,
        source="X'X/n of standardised features is their correlation matrix: what it has, standardising leaves",
    )
    whitened = Finding(
        claim=f"{data}: decorrelated, kappa is 1",
        predicted=1.0,
        measured=float(kappa.sel(version="decorrelated")),
        tolerance=1e-8,
        source="X'X/n of principal components at unit variance is the identity",
    )
    if len(present) < p:  # a column that is constant, or a combination of others: no scale gives it a share
        return [correlated, whitened]
    nearly_best = Finding(
        claim=f"{data}: standardised, kappa is at most p + 1 times the least of any scales of the centred features, found by descent",
        predicted=float(p * theory.quadratics.least_condition_number(np.asarray(built["standardised"].data[0]))),
        measured=float(kappa.sel(version="standardised")),
        tolerance=1e-9,
        source="van der Sluis 1969: for the features themselves, not X'X, it is sqrt(p + 1)",
        kind="at_most",
    )
    return [correlated, nearly_best, whitened]


def _pair_finding(pairs: xr.Dataset) -> Finding:
    """Both extreme modes shrink by the same factor a step and the third is gone after one, so the bound is met."""
    r, tolerance = pairs.correlation.values, pairs.attrs["tolerance"]
    steps = analysis.steps_to_tolerance(pairs, tolerance).values
    said = theory.steps_at_optimal_rate((1.0 + r) / (1.0 - r), tolerance)
    known = said <= int(pairs.step[-1])
    return Finding(
        claim="two standardised features of correlation r: largest deviation from the steps for kappa = (1 + r) / (1 - r) (absolute)",
        predicted=0.0,
        measured=float(np.abs(steps - said)[known].max()),
        tolerance=0.0 if pairs.attrs["precision"] == "float64" else 2.0,
        source="eigenvalues 1 - r, 1, 1 + r of X'X/n; Nesterov 2004, Thm 2.1.15",
    )


def _draw_steps(axes: Axes, sets: list[tuple[xr.Dataset, dict[str, Problem]]], tolerance: float) -> None:
    names, most = [*SCALINGS, *SHIFTS][::-1], 1.0
    for index, (measured, built) in enumerate(sets):
        color, shift = figures.COLORS[index], 0.16 * (len(sets) - 1) * (1 - 2 * index)
        for name, version in built.items():
            one, place = measured.sel(version=name), names.index(name) + shift
            needed = theory.steps_to_tolerance(theory.modes(version), float(one.learning_rate), tolerance)
            kappa, run = float(one.condition_number), needed <= int(one.step[-1])
            axes.plot(needed, place, "o", markersize=4.5, color=color, markerfacecolor=color if run else "white")
            bound = float(theory.steps_at_optimal_rate(kappa, tolerance))
            axes.plot(bound, place, "|", markersize=7, color="black", markeredgewidth=0.9)
            most = max(most, bound)
            text = f"κ = {kappa:.4g}" if kappa < 1e4 else f"κ = {kappa:.1e}"
            axes.annotate(
                text, (max(needed, bound), place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=6, color=color
            )
        axes.plot([], [], "o", markersize=4.5, color=color, label=measured.attrs["problem"])
    axes.set(xscale="log", xlim=(0.6, 100.0 * most), yticks=range(len(names)), xlabel=f"steps to {tolerance:g}")
    axes.set_yticklabels(names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.legend(
        title="steps by version", title_fontsize=8, loc="lower left", bbox_to_anchor=(-0.05, 1.0), alignment="left", handlelength=0.8
    )


def _draw_curves(axes: Axes, measured: xr.Dataset, built: dict[str, Problem]) -> None:
    """Relative to the start, on an axis that shows few steps and many."""
    bounds, steps = (1e-8, 2.0), measured.step.values
    for (name, version), color in zip(built.items(), figures.COLORS, strict=False):
        one = measured.sel(version=name)
        values = (one.suboptimality / one.suboptimality[0]).values
        exact = theory.gradient_descent(theory.modes(version), float(one.learning_rate), steps)[0]
        axes.plot(steps, np.maximum(values, 0.1 * bounds[0]), color=color, linewidth=1.6, label=name)
        figures.dashed(axes, steps, exact / exact[0], bounds=bounds, linewidth=0.6)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set(yscale="log", ylim=bounds, xlim=(0.0, steps[-1]), xlabel=figures.LABELS["step"], ylabel="suboptimality / at the start")
    where = {"loc": "lower left", "bbox_to_anchor": (-0.2, 1.0), "alignment": "left"}
    axes.legend(title=measured.attrs["problem"], title_fontsize=8, ncols=2, handlelength=1.0, columnspacing=1.0, **where)


def _draw_pairs(axes: Axes, pairs: xr.Dataset) -> None:
    tolerance = pairs.attrs["tolerance"]
    steps = analysis.steps_to_tolerance(pairs, tolerance).values
    axes.plot(pairs.correlation.values, steps, "o", markersize=3.5, color=figures.COLORS[0], label="measured")
    r = np.linspace(0.0, float(pairs.correlation.max()), 400)
    said = theory.steps_at_optimal_rate((1.0 + r) / (1.0 - r), tolerance)
    figures.dashed(axes, r, said, bounds=(0.5, 1e4), label="κ = (1 + r)/(1 − r)")
    axes.set(yscale="log", xlabel="correlation r", ylabel=f"steps to {tolerance:g}")
    axes.set_title("two standardised features")
    axes.legend(loc="upper left", handlelength=1.4)
