"""Robust losses bound what an outlier in y can do, not what one in x can.

Claim
    An outlier in y moves least squares without limit, and other losses no further from some size on; one in x takes Huber's and the
    absolute loss with it as it does least squares, and in the end the redescending losses too, which begin at Huber's estimate.
Theory
    Least squares moves by (X'X)^-1 x c. psi(r) is bounded by delta (by 1 for the absolute loss), so that with a row scaled by c
    |psi(r)| <= delta sum_j |x_j'x| / (c |x|^2): the fit goes through that example whatever its y, for any monotone psi. The page names
    Huber and MAE against outliers, without saying which. PyTorch's HuberLoss is r^2 / 2 inside, as is `huber` here: half the curvature
    of MSELoss, so that a rate stable for one is half or twice as far from the edge of the other.
Sweep
    The size of one outlier in y and in x; rates across the stability edges of both losses.
Expect
    In y a dashed line for least squares and plateaus for the others; in x all curves at one level in the end.
Command
    gdjax experiment=leverage
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.robust_losses import ESTIMATORS, orthogonal_data
from gdjax import analysis, figures, problems, solvers, theory
from gdjax.records import Finding, Problem, whole

MONOTONE = ("mae", "huber")
"""Robust losses whose psi never falls, though it is bounded."""

LARGEST, LOWEST_SHOWN = 1000.0, 1e-3


def run(problem: Problem, sweep: Callable[..., xr.Dataset], *, num_sizes: int = 13) -> xr.DataTree:
    """Move one example ever further, in y and in x, and fit every loss exactly; find two stability edges by descent."""
    basis, target, scale = orthogonal_data(problem, "leverage")
    factors = np.geomspace(1.0, LARGEST, whole("num_sizes", num_sizes, least=5))
    return xr.DataTree.from_dict({"outlier": _outlier(basis, target, scale, factors), "edges": _edges(basis, target, sweep)})


def _outlier(basis: np.ndarray, target: np.ndarray, scale: float, factors: np.ndarray) -> xr.Dataset:
    """One example, the one that stands out most, moved ever further: by c sigma in y; by c in x, its y as it was.

    `moved` is the root mean square change of the fitted values at the original features, `residual` the outlier's own.
    """
    which = int(np.argmax(np.sum(basis**2, axis=1)))
    moved, residual = np.empty((2, 2, len(ESTIMATORS), len(factors)))
    for row, estimator in enumerate(ESTIMATORS.values()):
        before = np.asarray(estimator.exact(basis, target, scale).minimizer)
        for column, factor in enumerate(factors):
            wide, high = basis.copy(), target.copy()
            wide[which] *= factor
            high[which] += factor * scale
            for kind, (features, values) in enumerate(((basis, high), (wide, target))):
                z = np.asarray(estimator.exact(features, values, scale).minimizer)
                moved[kind, row, column] = np.linalg.norm(z - before) / scale
                residual[kind, row, column] = abs(features[which] @ z - values[which]) / scale
    axes = ("kind", "estimator", "factor")
    coordinates = {"kind": ["y", "x"], "estimator": list(ESTIMATORS), "factor": factors}
    return xr.Dataset({"moved": (axes, moved), "residual": (axes, residual)}, coordinates, {"which": which})


def _edges(basis: np.ndarray, target: np.ndarray, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """The rate at which descent starts to grow on the MSE, and on Huber's loss with all residuals inside."""
    inside = 1e3 * float(np.abs(target).max())
    edges = []
    for loss, constants in (("squared_error", {}), ("huber", {"delta": inside})):
        built = problems.robust_regression(basis, target, loss, intercept=False, **constants)
        edge = theory.stability_edge(np.asarray(built.smoothness))
        rates = edge * np.linspace(0.9, 1.1, 41)
        edges.append(float(analysis.stability_edge(sweep(built, sampler="full", num_steps=60, record_every=1, learning_rate=rates))))
    return xr.Dataset({"edge": ("loss", edges)}, {"loss": ["squared_error", "huber"]})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare an outlier's pull with its bounds, and the two edges."""
    edges = results["edges"].to_dataset().edge
    return [
        *_pulls(results["outlier"].to_dataset(), problem),
        Finding(
            claim="Huber's stability edge over the MSE's, all residuals inside delta",
            predicted=2.0,
            measured=float(edges.sel(loss="huber") / edges.sel(loss="squared_error")),
            tolerance=0.01,
            source="curvature 1 of r^2 / 2 against 2 of r^2; PyTorch's HuberLoss and MSELoss differ so",
        ),
    ]


def _pulls(outlier: xr.Dataset, problem: Problem) -> list[Finding]:
    basis = orthogonal_data(problem)[0]
    row = basis[outlier.attrs["which"]]
    last = outlier.isel(factor=-1)
    others = np.abs(basis @ row).sum() - row @ row
    small = {"mae": 0.0, "huber": float(solvers.EFFICIENT_DELTA * others / (float(last.factor) * (row @ row)))}
    findings = [
        Finding(
            claim="an outlier in y moves least squares by c |x| / n (c = 1000 sigma, in sigma)",
            predicted=float(last.factor) * float(np.linalg.norm(row)) / len(basis),
            measured=float(last.moved.sel(kind="y", estimator="mse")),
            tolerance=1e-8,
            source="(X'X)^-1 x c: without limit",
        )
    ]
    for name in MONOTONE:
        label = ESTIMATORS[name].label
        before, after = (float(outlier.moved.sel(kind="y", estimator=name).isel(factor=at)) for at in (-2, -1))
        findings += [
            Finding(
                claim=f"{label}: an outlier in y moves the fit as far at its largest as one step before (absolute tolerance, in sigma)",
                predicted=0.0,
                measured=abs(after - before),
                tolerance=1e-6,
                source="psi is constant beyond delta",
                kind="at_most",
            ),
            Finding(
                claim=f"{label}: with its x 1000 times as far out the outlier is fitted, its residual (sigma) is small",
                predicted=small[name],
                measured=float(last.residual.sel(kind="x", estimator=name)),
                tolerance=1e-6,
                source="|psi(r)| <= delta sum_j |x_j'x| / (c |x|^2); the page names Huber and MAE against outliers",
                kind="at_most",
            ),
        ]
    return findings


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """How far one outlier in y, and one in x, moves each fit."""
    drawn, panels = figures.figure(2, width=7.0, height=3.1, sharey=True)
    outlier = results["outlier"].to_dataset()
    for axes, kind in zip(panels[0], ("y", "x"), strict=True):
        _draw_outlier(axes, outlier.sel(kind=kind))
    in_y, in_x = panels[0]
    basis, factors = orthogonal_data(problem)[0], outlier.factor.values
    row = basis[outlier.attrs["which"]]
    in_y.plot(factors, factors * np.linalg.norm(row) / len(basis), color="black", linestyle=(0, (3, 2)), linewidth=0.9, zorder=3)
    in_y.set(title="one outlier in y", xlabel="its distance c (σ)", ylabel="rms change of the fitted values (σ)")
    in_x.set(title="one outlier in x", xlabel="its factor c on x", ylim=(0.6 * LOWEST_SHOWN, None))
    in_y.legend(loc="upper left")
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, its example with the largest leverage moved; exact fits. σ: spread of the "
        "residuals of the absolute loss.\nDashed: least squares, c‖x‖/n. Below 0.001 drawn there. Student and bisquare begin at "
        "Huber's estimate.",
    )
    return {"leverage": drawn}


def _draw_outlier(axes: Axes, outlier: xr.Dataset) -> None:
    for place, (key, estimator) in enumerate(ESTIMATORS.items()):
        moved = np.maximum(outlier.moved.sel(estimator=key).values, LOWEST_SHOWN)
        axes.plot(outlier.factor.values[1:], moved[1:], color=figures.COLORS[place], label=estimator.label, marker="o", markersize=2.5)
    axes.set(xscale="log", yscale="log")
