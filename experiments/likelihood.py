"""A loss is a likelihood: the mean squared error is Gaussian, the mean absolute error Laplace's, and Student's t is neither.

Claim
    With sigma fixed the Gaussian negative log-likelihood is the mean squared error stretched and shifted, so that descents on both
    take the same path; with sigma^2 profiled out it is its logarithm: monotone, not affine, with the same minimizer and another path.
Theory
    NLL = n / (2 sigma^2) MSE + n/2 ln(2 pi sigma^2); min over sigma^2 of it = n/2 ln MSE + n/2 ln(2 pi e). Laplace's is
    n / b MAE + n ln(2b). "MSE is the NLL" (the page, section 1.1) holds of the first only, and rates don't carry over: the Gaussian
    NLL's mean is 1 / (2 sigma^2) times as steep as the MSE, so a rate means 2 sigma^2 times as much there.
Sweep
    None: six descents from zero, in coordinates in which the features are orthogonal, where each of them converges.
Expect
    Likelihoods upon their dashed functions of the MSE and the MAE; every descent ends at its exact fit, the Gaussian ones at one point.
Command
    gdjax experiment=likelihood
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, problems, solvers, theory
from gdjax.records import Finding, InputError, Problem, whole

DEGREES = 3.0
RATE = 0.05
"""Of the mean squared error, whose curvature is 2 here: the excess falls by 0.81 a step."""

FEWEST_STEPS, MOST_STEPS = 2_000, 20_000


def run(problem: Problem, sweep: Callable[..., xr.Dataset], *, sigma: float = 1.0, num_steps: int | None = None) -> xr.DataTree:
    """Descend on each loss and its likelihood.

    Parameters
    ----------
    sigma
        The fixed standard deviation of the Gaussian likelihood, in the target's units.
    num_steps
        By default as many as the profiled likelihood needs, whose pull is weak where the error is large.
    """
    basis, target, z, least = _fit(problem)
    far = float(z @ z) / least
    num_steps = int(min(FEWEST_STEPS + 10.0 * far, MOST_STEPS)) if num_steps is None else whole("num_steps", num_steps)
    absolute = problems.robust_regression(basis, target, "absolute", intercept=False)
    scale = float(np.asarray(absolute.minimum))
    decay = 1e-6 ** (1.0 / num_steps)
    # of steps that together go all the way, and on for many times the deviation over which the MAE's slope turns round
    first = (1.0 - decay) * (3.0 * float(np.linalg.norm(z)) + 40.0 * math.sqrt(least))
    descents: dict[str, tuple[Problem, dict[str, Any]]] = {
        "mse": (problems.least_squares(basis, target, False, hessian=False), {"learning_rate": RATE}),
        "gaussian": (
            problems.robust_regression(basis, target, "gaussian_nll", intercept=False, sigma=sigma),
            {"learning_rate": 2.0 * sigma**2 * RATE},
        ),
        "profiled": (_profiled(basis, target, z, least), {"learning_rate": RATE * least * min(10.0, max(1.0, far / 1500.0))}),
        "mae": (absolute, {"method": "decaying_sgd", "learning_rate": first, "decay": decay}),
        "laplace": (
            problems.robust_regression(basis, target, "laplace_nll", intercept=False, scale=scale),
            {"method": "decaying_sgd", "learning_rate": first * scale, "decay": decay},
        ),
        "student": (_student(basis, target, math.sqrt(least)), {"learning_rate": 0.3}),
    }
    measured = {name: sweep(loss, sampler="full", num_steps=num_steps, **settings) for name, (loss, settings) in descents.items()}
    return xr.DataTree.from_dict({name: dataset.assign_attrs(sigma=sigma, scale=scale) for name, dataset in measured.items()})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare the likelihoods along the descents with functions of the errors, and the ends with exact fits."""
    return [*_relations(results, problem), *_ends(results, problem)]


def _relations(results: xr.DataTree, problem: Problem) -> list[Finding]:
    n, round_off = problem.num_examples, analysis.ROUND_OFF[results["mse"].attrs["precision"]][1]
    series = _series(results, problem)
    findings = [
        Finding(
            claim=f"{name}: largest deviation from {formula} along the descent, in parts of its rise (absolute tolerance)",
            predicted=0.0,
            measured=float(np.max(np.abs(nll - expected)) / np.max(expected - expected.min())),
            tolerance=round_off,
            source=source,
            kind="at_most",
        )
        for name, formula, source, (_, nll, expected) in (
            ("Gaussian, sigma fixed", "n/(2 sigma^2) MSE + n/2 ln(2 pi sigma^2)", "the page, section 1.1", series["gaussian"]),
            ("Gaussian, sigma profiled", "n/2 ln(2 pi e MSE)", "the likelihood's minimum over sigma^2 at MSE", series["profiled"]),
            ("Laplace, scale fixed", "n/b MAE + n ln(2b)", "the Laplace density exp(-|r|/b) / (2b)", series["laplace"]),
        )
    ]
    mse, nll, _ = series["profiled"]
    bend = np.max(nll - np.interp(mse, [mse[-1], mse[0]], [nll[-1], nll[0]]))
    ratio = float(mse[0] / mse[-1])
    widest = (ratio - 1.0) / math.log(ratio)  # where the slope of the logarithm is the chord's
    return [
        *findings,
        Finding(
            claim="the profiled likelihood is not affine in the MSE: its largest rise over the chord of its descent (to a record's width)",
            predicted=0.5 * n * (math.log(widest) - (widest - 1.0) / (ratio - 1.0) * math.log(ratio)),
            measured=float(bend),
            tolerance=0.05,
            source='n/2 ln MSE is concave; the page\'s "MSE = NLL (up to constants)" is of fixed sigma only',
        ),
    ]


def _ends(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Where the descents arrive: the Gaussian ones at least squares' fit, the others at their own."""
    n, round_off = problem.num_examples, analysis.ROUND_OFF[results["mse"].attrs["precision"]][1]
    least, sigma = float(np.asarray(problem.minimum)), results["mse"].attrs["sigma"]

    def end(claim: str, predicted: float, measured: float, tolerance: float, source: str) -> Finding:
        return Finding(claim=claim, predicted=predicted, measured=measured, tolerance=tolerance, source=source)

    left = {name: float(results[name].distance[-1] / results[name].distance[0]) for name in results.children}
    fixed = 0.5 * n * (least / sigma**2 + math.log(2.0 * math.pi * sigma**2))
    profiled = 0.5 * n * math.log(2.0 * math.pi * math.e * least)
    unit = f"sigma = {sigma:g}"
    return [
        end(f"Gaussian NLL at the end, {unit}", fixed, n * float(results["gaussian"].objective[-1]), round_off, "at least squares' fit"),
        end("Gaussian NLL at the end, sigma profiled", profiled, n * float(results["profiled"].objective[-1]), round_off, "sigma^2 = MSE"),
        *(
            Finding(
                claim=f"{name}: distance left to {fit}, in parts of the start's (absolute tolerance)",
                predicted=0.0,
                measured=max(left[key] for key in keys),
                tolerance=tolerance,
                source=source,
                kind="at_most",
            )
            for name, keys, fit, tolerance, source in (
                ("MSE and both Gaussian likelihoods", ("mse", "gaussian", "profiled"), "least squares", round_off, "one minimizer"),
                ("MAE and Laplace", ("mae", "laplace"), "the linear program's fit", 1e-2, "decaying subgradient steps (Goffin 1977)"),
                ("Student's t and its scale", ("student",), "the EM algorithm's fit", round_off, "Lange, Little and Taylor 1989"),
            )
        ),
    ]


def _series(results: xr.DataTree, problem: Problem) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Along each likelihood's descent: the error, n times the mean likelihood, and what it should be of that error.

    Descents on a loss and on its likelihood with a fixed scale are on one path, step for step. For the profiled one the error is that
    of the recorded distance: in these coordinates MSE = MSE* + |z - z*|^2.
    """
    n, least = problem.num_examples, float(np.asarray(problem.minimum))
    sigma, scale = results["mse"].attrs["sigma"], results["mse"].attrs["scale"]
    mse, mae = results["mse"].objective.values, results["mae"].objective.values
    on_its_way = least + results["profiled"].distance.values ** 2
    nll = {name: n * results[name].objective.values for name in ("gaussian", "profiled", "laplace")}
    return {
        "gaussian": (mse, nll["gaussian"], 0.5 * n * (mse / sigma**2 + math.log(2.0 * math.pi * sigma**2))),
        "profiled": (on_its_way, nll["profiled"], 0.5 * n * np.log(2.0 * math.pi * math.e * on_its_way)),
        "laplace": (mae, nll["laplace"], n * (mae / scale + math.log(2.0 * scale))),
    }


SHOWN = {
    "gaussian": ("Gaussian, σ fixed (= MSE)", "o", figures.COLORS[0]),
    "profiled": ("Gaussian, σ profiled", "s", figures.COLORS[1]),
    "laplace": ("Laplace, b fixed (= MAE)", "^", figures.COLORS[2]),
    "student": ("Student's t, scale fitted", "D", figures.COLORS[3]),
}


def _draw_relations(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    """Log axes of what each is above its end: a likelihood that is affine in its error is a line of slope 1."""
    for name, (error, nll, expected) in _series(results, problem).items():
        label, marker, color = SHOWN[name]
        rise, height, theirs = error - error.min(), nll - nll.min(), expected - expected.min()
        seen = (rise > 1e-6 * rise.max()) & (height > 0)
        ordered = np.flatnonzero(seen)[np.argsort(rise[seen])]
        at = ordered[
            np.unique(np.searchsorted(rise[ordered], np.geomspace(rise[ordered[0]], rise[ordered[-1]], 16)).clip(0, len(ordered) - 1))
        ]
        axes.plot(rise[at], height[at], marker, color=color, markersize=3.5, label=label)
        axes.plot(rise[ordered], theirs[ordered], color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xscale="log", yscale="log", xlabel="rise of the error, MSE or MAE, over its least", ylabel="rise of the NLL over its least")
    axes.set_title("affine is a line of slope 1; profiled bends")
    axes.legend(loc="upper left")


def _draw_descents(axes: Axes, results: xr.DataTree) -> None:
    for name, (label, _, color) in SHOWN.items():
        one = results[name]
        left = one.distance.values / float(one.distance[0])
        axes.plot(one.step.values[1:], np.maximum(left[1:], 1e-17), color=color, label=label)
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="‖z$_t$ − z*‖ / ‖z$_0$ − z*‖,  z* the own fit")
    axes.set_title("every descent reaches its exact fit")
    axes.legend(loc="lower left")


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The rise of each likelihood over its minimum against that of its error; the way of each descent to its own fit."""
    drawn, panels = figures.figure(2, width=7.0, height=3.0)
    _draw_relations(panels[0, 0], results, problem)
    _draw_descents(panels[0, 1], results)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; full-batch descent from zero, orthogonal coordinates z. Dashed: n/(2σ²) ΔMSE, "
        "n/2 ln(1 + ΔMSE/MSE*), n/b ΔMAE.\nThe fits z* are exact: least squares by QR, MAE by a linear program, Student's t (ν = 3) and "
        "its scale by EM.",
    )
    return {"likelihood": drawn}


def _fit(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The features in orthogonal coordinates, the target, and least squares' fit and mean squared error there."""
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment likelihood is about linear least squares, which {problem.name} is not.")
    features, target = (np.asarray(array) for array in problem.data)
    basis = problems.whitened(features).basis
    z = basis.T @ target / len(target)
    least = float(np.mean((basis @ z - target) ** 2))
    if least <= 1e-20 * float(np.mean(target**2)):
        raise InputError(f"{problem.name} is fitted without error, where no variance can be estimated: give more examples than features.")
    return basis, target, z, least


def _profiled(basis: np.ndarray, target: np.ndarray, z: np.ndarray, least: float) -> Problem:
    return Problem(
        evaluate=_half_log_mse,
        name="profiled",
        constants={"basis": basis, "target": target},
        start=np.zeros(len(z)),
        minimizer=z,
        minimum=0.5 * math.log(2.0 * math.pi * math.e * least),
        smoothness=1.0 / least,
    )


def _half_log_mse(lanes: Array, constants: dict[str, Any], examples: tuple[()], weights: Any) -> tuple[Array, Array]:
    """min over sigma of the mean Gaussian likelihood, ln(2 pi e MSE) / 2, and its gradient; no mean over examples."""
    residual = constants["basis"] @ lanes - constants["target"][:, None]
    mse = jnp.mean(jnp.square(residual), axis=0)
    return 0.5 * jnp.log(2.0 * math.pi * math.e * mse), constants["basis"].T @ (residual / mse[None]) / len(residual)


def _student(basis: np.ndarray, target: np.ndarray, unit: float) -> Problem:
    """Student's likelihood of z and ln(scale), in units in which the residuals are about 1; from zero and a scale that explains all."""
    z, scale = solvers.student_t_fit(basis, target / unit, DEGREES)
    return problems.from_loss(
        _joint_student,
        (basis, target / unit),
        np.append(np.zeros(len(z)), 0.5 * math.log(float(np.mean((target / unit) ** 2)))),
        minimizer=np.append(z, math.log(scale)),
        minimum=float(np.mean(_t(basis @ z, target / unit, scale))),
    )


def _t(prediction: Any, target: Any, scale: Any) -> Array:
    return losses.student_t(prediction, target, degrees=DEGREES, scale=scale)


def _joint_student(params: Array, example: tuple[Array, Array]) -> Array:
    features, target = example
    return _t(features @ params[:-1], target, jnp.exp(params[-1]))
