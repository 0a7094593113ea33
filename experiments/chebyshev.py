"""On quadratics Chebyshev's semi-iteration has the best worst case that any choice of steps has, and only what adapts gets lower.

Claim
    With mu and L known, ||x_t - x*|| <= R / T_t((kappa + 1) / (kappa - 1)), an equality for directions of curvature mu or L; conjugate
    gradients, which know neither, leave less of f in every step.
Theory
    Of all polynomials of degree t that are 1 at 0 the one that is least on [mu, L] is Chebyshev's, T_t, moved there; it has t + 1
    extremes of equal size 1 / T_t((kappa + 1) / (kappa - 1)) = 2 r^t / (1 + r^(2t)), r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1) (Golub
    and Varga 1961). Gradient descent's best is ((kappa - 1) / (kappa + 1))^t. Conjugate gradients minimise f over all polynomials of
    degree t for the very start (Hestenes and Stiefel 1952).
Sweep
    The problem's own curvatures; 50 of condition number 100, evenly many a decade; a fine grid of curvatures, to see the polynomial.
Expect
    The distance under the dashed bound, on it where the extremes alone have a share in the start; the polynomial's equal extremes.
Command
    gdjax experiment=chebyshev
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems, solvers, theory
from gdjax.records import Finding, InputError, Problem, whole
from gdjax.theory import worst_cases

SMALLEST = 1e-6
"""Factors below this are not compared on the problem itself, whose x* is not 0: its parameters' round-off then shows."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 150,
    degree: int = 10,
    condition_number: float = 100.0,
) -> xr.DataTree:
    """Run Chebyshev's method, gradient descent at its best rate and conjugate gradients on the problem and on two designed spectra.

    Parameters
    ----------
    degree
        The step t after which the polynomial is looked at.
    condition_number
        Of the designed spectra.
    """
    if not theory.is_quadratic(problem):
        raise InputError(f"experiment chebyshev is about least squares and other quadratics, which {problem.name} is not.")
    if not (isinstance(condition_number, int | float) and 1.0 < condition_number < np.inf):
        raise InputError(f"condition_number={condition_number} is not allowed: it is a number above 1.")
    steps, low = whole("num_steps", num_steps), 1.0 / condition_number
    polynomial = problems.designed_spectrum(np.linspace(low, 1.0, 401))
    ended = _chebyshev(polynomial, sweep, num_steps=whole("degree", degree), record_every=whole("degree", degree))
    return xr.DataTree.from_dict(
        {
            "given": _race(problem, sweep, steps),
            "spread": _race(problems.designed_spectrum(np.geomspace(low, 1.0, 50)), sweep, steps),
            "extremes": _race(problems.designed_spectrum(np.array([low, 1.0])), sweep, steps),
            "polynomial": xr.Dataset({"left": ("curvature", ended.params.values)}, {"curvature": np.linspace(low, 1.0, 401)}).assign_attrs(
                degree=degree, precision=ended.attrs["precision"]
            ),
        }
    )


def _chebyshev(problem: Problem, sweep: Callable[..., xr.Dataset], *, num_steps: int, record_every: int) -> xr.Dataset:
    return sweep(
        problem,
        method="chebyshev",
        sampler="full",
        num_steps=num_steps,
        record_every=record_every,
        learning_rate=theory.optimal_rate(problem.smoothness, problem.strong_convexity),
        condition_number=float(problem.condition_number),
    )


def _race(problem: Problem, sweep: Callable[..., xr.Dataset], num_steps: int) -> xr.Dataset:
    """The distance and the suboptimality of each method in every step; conjugate gradients along the eigenvectors."""
    modes = theory.modes(problem)
    rate = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    plain = sweep(problem, sampler="full", num_steps=num_steps, record_every=1, learning_rate=rate)
    runs = [_chebyshev(problem, sweep, num_steps=num_steps, record_every=1), plain]
    with jax.enable_x64(True):
        errors = np.asarray(
            solvers.conjugate_gradients(jnp.asarray(modes.curvatures), jnp.asarray(modes.start), num_steps, product=jnp.multiply)
        )
    both = {
        "suboptimality": [*(one.suboptimality.values for one in runs), 0.5 * np.square(errors) @ modes.curvatures],
        "distance": [*(one.distance.values for one in runs), np.linalg.norm(errors, axis=1)],
    }
    return xr.Dataset(
        {name: (("solver", "step"), np.stack(values)) for name, values in both.items()},
        {"solver": ["chebyshev", "sgd", "conjugate_gradients"], "step": runs[0].step.values},
        {"precision": plain.attrs["precision"], "condition_number": float(problem.condition_number)},
    )


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare curves with the polynomial, distances with the bound, and conjugate gradients with both."""
    designed = {"spread": problems.designed_spectrum(np.geomspace(1.0 / results["spread"].attrs["condition_number"], 1.0, 50))}
    findings = []
    for part, built in {"given": problem, **designed}.items():
        findings += _race_findings(results[part].to_dataset(), built, exact_zero=part != "given")
    extremes, polynomial = results["extremes"].to_dataset(), results["polynomial"].to_dataset()
    kappa, double = extremes.attrs["condition_number"], extremes.attrs["precision"] == "float64"
    factor = worst_cases.chebyshev_factor(kappa, extremes.step.values)
    ratio = extremes.distance.sel(solver="chebyshev").values / (np.sqrt(2.0) * factor)
    return [
        *findings,
        Finding(
            claim=f"curvatures mu and L alone, kappa = {kappa:g}: distance over the bound, the step farthest from 1",
            predicted=1.0,
            measured=float(ratio[np.abs(ratio - 1.0).argmax()]),
            tolerance=1e-6 if double else 0.1,
            source="|T_t(1)| = |T_t(-1)| = 1",
        ),
        Finding(
            claim=f"t = {polynomial.attrs['degree']}: largest share left of any of 401 curvatures in [mu, L]",
            predicted=float(worst_cases.chebyshev_factor(kappa, polynomial.attrs["degree"])),
            measured=float(np.abs(polynomial.left).max()),
            tolerance=1e-10 if double else 1e-3,
            source="1 / T_t((kappa + 1) / (kappa - 1)), Golub and Varga 1961",
        ),
    ]


def _race_findings(race: xr.Dataset, problem: Problem, *, exact_zero: bool) -> list[Finding]:
    """`exact_zero`: the minimizer is 0, so that errors have no round-off but their own."""
    steps, said = race.step.values, f"{problem.name}, kappa = {race.attrs['condition_number']:.5g}"
    modes, (floor, slack) = theory.modes(problem), analysis.ROUND_OFF[race.attrs["precision"]]
    chebyshev, adaptive = (race.sel(solver=name) for name in ("chebyshev", "conjugate_gradients"))
    left = worst_cases.chebyshev_errors(modes, float(problem.smoothness or 1.0), float(problem.strong_convexity or 1.0), steps)
    exact = 0.5 * np.square(left) @ modes.curvatures
    factor = worst_cases.chebyshev_factor(race.attrs["condition_number"], steps)
    double = race.attrs["precision"] == "float64"
    seen = factor > (0.0 if exact_zero and double else SMALLEST if double else 1e-2)
    present = chebyshev.suboptimality.values > floor * exact[0]
    lower = adaptive.suboptimality.values[present] / chebyshev.suboptimality.values[present]
    bound = Finding(
        claim=f"{said}: largest distance over R / T_t((kappa + 1) / (kappa - 1))",
        predicted=1.0,
        measured=float((chebyshev.distance.values[seen] / (np.linalg.norm(modes.start) * factor[seen])).max()),
        tolerance=1e-10 if exact_zero and double else slack,
        source="Golub and Varga 1961",
        kind="at_most",
    )
    return [
        Finding(
            claim=f"{said}: largest relative deviation of Chebyshev's f - f* from its polynomial (absolute tolerance)",
            predicted=0.0,
            measured=analysis.deviation(chebyshev.suboptimality.values, exact, race.attrs["precision"]),
            tolerance=slack,
            source="T_t((L + mu - 2 lambda) / (L - mu)) / T_t((L + mu) / (L - mu)) along each eigenvector",
            kind="at_most",
        ),
        bound,
        Finding(
            claim=f"{said}: conjugate gradients' f - f* over Chebyshev's, the largest of all steps",
            predicted=1.0,
            measured=float(lower.max()),
            tolerance=slack,
            source="Hestenes and Stiefel 1952: the least f of any polynomial",
            kind="at_most",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Distances on the problem and on a spread spectrum; the polynomial."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_race(panels[0, 0], results["given"].to_dataset(), problem.name)
    _draw_race(panels[0, 1], results["spread"].to_dataset(), "50 curvatures, log-spaced")
    panels[0, 0].legend(loc="lower left", handlelength=0.9, borderaxespad=0.2)
    _draw_polynomial(panels[0, 2], results)
    figures.source(
        drawn,
        f"Left: {problem.name}, κ = {results['given'].attrs['condition_number']:.4g}. Gradient descent takes 2/(L + μ). Dashed: "
        "1/T$_t$((κ + 1)/(κ − 1)) (Golub and Varga 1961).\n"
        f"Right: what {results['polynomial'].attrs['degree']} steps leave of the error along directions of 401 curvatures.",
    )
    return {"chebyshev": drawn}


def _draw_race(axes: Axes, race: xr.Dataset, title: str) -> None:
    relative, steps = race.distance / race.distance.isel(step=0), race.step.values
    low = max(1e-10, 0.3 * float(worst_cases.chebyshev_factor(race.attrs["condition_number"], steps[-1])))
    names = {"sgd": ("gradient descent", 4), "chebyshev": ("Chebyshev", 0), "conjugate_gradients": ("conjugate gradients", 2)}
    for method, (label, color) in names.items():
        values = relative.sel(solver=method).values
        axes.plot(steps, np.where(values > 1e-3 * low, values, 1e-3 * low), color=figures.COLORS[color], linewidth=2.0, label=label)
    factor = worst_cases.chebyshev_factor(race.attrs["condition_number"], steps)
    figures.dashed(axes, steps, factor, bounds=(low, 1.0), label="bound")
    axes.set(yscale="log", ylim=(low, 3.0), xlabel=figures.LABELS["step"], ylabel="distance / R", title=title)


def _draw_polynomial(axes: Axes, results: xr.DataTree) -> None:
    polynomial, kappa = results["polynomial"].to_dataset(), results["extremes"].attrs["condition_number"]
    degree = int(polynomial.attrs["degree"])
    factor = float(worst_cases.chebyshev_factor(kappa, degree))
    axes.plot(polynomial.curvature, polynomial.left, color=figures.COLORS[0], linewidth=1.6, label="Chebyshev")
    rate = 2.0 / (1.0 + 1.0 / kappa)
    axes.plot(polynomial.curvature, (1.0 - rate * polynomial.curvature) ** degree, color=figures.COLORS[4], label="gradient descent")
    for side in (-factor, factor):
        axes.axhline(side, color="black", linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set(xlabel="curvature λ / L", ylabel="share of the error left", title=f"after {degree} steps, κ = {kappa:g}")
    axes.legend(loc="upper center")
