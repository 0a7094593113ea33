"""Robust losses keep what outliers cost least squares; they pay little for it, and don't help against leverage.

Claim
    Under heavy tails and outliers in y the losses of Huber and Student, the absolute loss and the bisquare are more efficient than the
    squared one, by factors that quadrature gives; an outlier in x takes Huber's and the absolute loss with it as it does least squares,
    and in the end the redescending losses too, which begin at Huber's estimate.
Theory
    An M-estimate's covariance is V (X'X)^-1 with V = E psi^2 / (E psi')^2 in the limit (Huber 1964); least squares' is var (X'X)^-1,
    exactly. So "MSE breaks down" (the page, section 1.2) is a loss of efficiency where the variance is finite: 1/2 under t_3. With
    one row scaled by c, |psi(r)| <= delta sum_j |x_j'x| / (c |x|^2): the fit goes through that example whatever y says, for any
    monotone psi. PyTorch's HuberLoss is r^2 / 2 inside, as is `huber` here: half the MSE's curvature, twice its stability edge.
Sweep
    Losses x kinds of noise x data sets, each fitted by gradient descent; on the problem's own data, the size of an outlier in y and in x.
Expect
    Efficiencies on the dashes of theory; an outlier in y moves only least squares without limit; one in x moves all.
Command
    gdjax experiment=robust_losses
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, problems, solvers, statistics, theory
from gdjax.records import Finding, InputError, Problem, several, whole

NOISES = {
    "normal": statistics.normal(),
    "t5": statistics.student(5.0),
    "t3": statistics.student(3.0),
    "contaminated": statistics.contaminated(0.1, 3.0),  # a tenth with standard deviation 3
}
TENTH = -1.2815515655446004
"""A standard normal number is below it with probability 1/10."""


@dataclass(frozen=True)
class Estimator:
    """A loss and its numbers, and a descent that surely reaches its minimum in coordinates in which the features are orthogonal."""

    label: str
    loss: str
    sizes: tuple[tuple[str, float], ...] = ()  # its numbers that are in units of the noise's scale
    from_huber: bool = False  # begun at Huber's estimate, where a loss that is not convex has the right basin
    descent: tuple[tuple[str, Any], ...] = (("learning_rate", 1.0), ("num_steps", 40))

    def problem(self, basis: Any, target: Any, scale: Any = 1.0) -> Problem:
        """The regression for noise of that scale."""
        built = problems.robust_regression(basis, target, self.loss, intercept=False, **{name: size * scale for name, size in self.sizes})
        if not self.from_huber:
            return built
        huber = problems.robust_regression(basis, target, "huber", intercept=False, delta=solvers.EFFICIENT_DELTA * scale)
        return replace(built, start=huber.minimizer)

    def variance(self, noise: statistics.Noise) -> float:
        """V of the limit, for noise of scale 1."""
        return statistics.asymptotic_variance(
            statistics.score(getattr(losses, self.loss), **dict(self.sizes)), noise, [size for _, size in self.sizes]
        )


ESTIMATORS = {
    "mse": Estimator("MSE", "squared_error", descent=(("learning_rate", 0.5), ("num_steps", 2))),
    "mae": Estimator("MAE", "absolute", descent=(("method", "decaying_sgd"), ("learning_rate", 1.2), ("decay", 0.95), ("num_steps", 120))),
    "huber": Estimator("Huber, δ = 1.345 σ", "huber", (("delta", solvers.EFFICIENT_DELTA),)),
    "student": Estimator("Student, ν = 3", "student_t", (("scale", 1.0),), descent=(("learning_rate", 0.75), ("num_steps", 60))),
    "bisquare": Estimator("bisquare, c = 4.685 σ", "bisquare", (("cutoff", 4.685),), from_huber=True),
}
CONVEX = ("mae", "huber")
"""Of the robust ones."""


@dataclass(frozen=True)
class DataSets:
    """Problems by number: data set i has y = X theta + noise with X the same for all, in coordinates in which it is orthogonal."""

    estimator: Estimator
    num_examples: int
    num_features: int
    seed: int

    def basis(self) -> Float[np.ndarray, "n p"]:
        """A column of ones and standard normal features, made orthogonal."""
        X = np.random.default_rng(self.seed).normal(size=(self.num_examples, self.num_features))
        return problems.whitened(np.column_stack([np.ones(len(X)), X])).basis

    def truth(self) -> Float[np.ndarray, " p"]:
        """The page's w and b, again and again: any other would do, since the fits move along with it."""
        return np.resize([3.0, 2.0, -1.5, 0.5], self.num_features + 1)

    def __call__(self, noise: Any, data_set: Any) -> Problem:
        """The problem of one data set under one of `NOISES`; all of them are made of the same six rows of normal numbers."""
        key = jax.random.fold_in(jax.random.key(self.seed), jnp.asarray(data_set).astype(int))
        good, *others = jax.random.normal(key, (6, self.num_examples))
        five = jnp.square(jnp.stack(others))
        kinds = jnp.stack(
            [
                good,
                good / jnp.sqrt(jnp.mean(five, axis=0)),
                good / jnp.sqrt(jnp.mean(five[:3], axis=0)),
                jnp.where(others[0] < TENTH, 3.0 * good, good),
            ]
        )
        basis = self.basis()
        return self.estimator.problem(basis, basis @ self.truth() + kinds[jnp.asarray(noise).astype(int)])


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_data_sets: int = 3000,
    num_examples: int = 200,
    num_features: int = 3,
    outliers: Sequence[float] | float = (15.0, -20.0, 25.0, -30.0),
    delta: float | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """Fit many data sets of known noise, a spoilt copy of the problem's data, and copies with one outlier in y or in x.

    Parameters
    ----------
    outliers
        What is added to as many targets, evenly spaced, in the target's units.
    delta
        Huber's on the spoilt copy, in the target's units; by default 1.345 x the residuals' spread.
    """
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment robust_losses is about linear least squares, which {problem.name} is not.")
    basis, target, scale = _data(problem)
    sets = {
        name: DataSets(
            estimator, whole("num_examples", num_examples, least=20), whole("num_features", num_features), whole("seed", seed, least=0)
        )
        for name, estimator in ESTIMATORS.items()
    }
    number = whole("num_data_sets", num_data_sets, least=20)
    spoilt = _spoilt(target, several("outliers", outliers))
    return xr.DataTree.from_dict(
        {
            "monte_carlo": _monte_carlo(sets, number, sweep),
            "spoilt": _fits(basis, spoilt, delta, sweep),
            "outlier": _outlier(basis, target, scale),
            "edges": _edges(basis, target, scale, sweep),
        }
    )


def _data(problem: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    """The features in orthogonal coordinates, the target, and the spread of the residuals of the absolute loss."""
    features, target = (np.asarray(array) for array in problem.data)
    basis = problems.whitened(features).basis
    scale = float(solvers.spread(basis @ solvers.least_absolute(basis, target) - target))
    if len(target) < 4 * basis.shape[1] or scale <= 1e-10 * np.abs(target).max():
        raise InputError(f"{problem.name} leaves no noise to judge outliers by: give noisy data with at least 4 examples a parameter.")
    return basis, target, scale


def _spoilt(target: np.ndarray, outliers: Sequence[float]) -> np.ndarray:
    """Outliers added at 1/(2k), 3/(2k), .. of the way: examples 10, 30, 50 and 70 of 80."""
    at = (np.arange(1, 2 * len(outliers), 2) * len(target)) // (2 * len(outliers))
    spoilt = target.copy()
    spoilt[at] += outliers
    return spoilt


def _monte_carlo(sets: dict[str, DataSets], number: int, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """n |z - truth|^2 for every estimator, noise and data set, and how far descents ended from the exact minimizer."""
    excess, unsettled, fits = [], [], {}
    for name, build in sets.items():
        ended = sweep(
            build, sampler="full", record_every=1000, noise=range(len(NOISES)), data_set=range(number), **dict(build.estimator.descent)
        )
        excess.append(build.num_examples * np.square(ended.params - build.truth()).sum("parameter"))
        unsettled.append(ended.distance.isel(step=-1).max("data_set"))
        fits[f"fit_{name}"] = ended.params
    design = {name: getattr(build, name) for name in ("num_examples", "num_features", "seed")}
    measured = {"excess": excess, "unsettled": unsettled}
    combined = xr.Dataset({name: xr.concat(parts, "estimator", coords="minimal", compat="override") for name, parts in measured.items()})
    combined["fit_mae"] = fits["fit_mae"].isel(data_set=slice(JUDGED)).rename(data_set="judged")
    kept = combined.reset_coords(drop=True)[["excess", "unsettled", "fit_mae"]]
    attributes = design | {"precision": ended.attrs["precision"]}
    return kept.assign_coords(estimator=list(sets), noise=list(NOISES)).assign_attrs(attributes)


def _fits(basis: np.ndarray, target: np.ndarray, delta: float | None, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """The exact fits to one data set, and where descents on the smooth losses end: rate 1 / L, as many steps as slow kinks may take."""
    spread = float(solvers.spread(basis @ solvers.least_absolute(basis, target) - target))
    scales = dict.fromkeys(ESTIMATORS, spread) | {"student": solvers.student_t_fit(basis, target, 3.0)[1]}
    if delta is not None:
        scales["huber"] = float(delta) / solvers.EFFICIENT_DELTA
    exact, left = [], []
    for name, estimator in ESTIMATORS.items():
        built = estimator.problem(basis, target, scales[name])
        exact.append(np.asarray(built.minimizer))
        if built.smoothness is None:
            left.append(np.nan)
            continue
        rate = 1.0 / float(np.asarray(built.smoothness))
        ended = sweep(built, sampler="full", num_steps=2000, record_every=2000, learning_rate=rate)
        left.append(float(ended.distance[-1] / np.linalg.norm(exact[-1])))
    return xr.Dataset(
        {"fit": (("estimator", "parameter"), exact), "left": ("estimator", left)},
        {"estimator": list(ESTIMATORS), "parameter": [f"z{j + 1}" for j in range(basis.shape[1])]},
        {"precision": ended.attrs["precision"]},
    )


FACTORS = np.geomspace(1.0, 1000.0, 13)
LOWEST_SHOWN = 1e-3


def _outlier(basis: np.ndarray, target: np.ndarray, scale: float) -> xr.Dataset:
    """One example, the one that stands out most, moved ever further: by c sigma in y; by c in x, its y as it was.

    `moved` is the root mean square change of the fitted values at the original features, `residual` the outlier's own.
    """
    which = int(np.argmax(np.sum(basis**2, axis=1)))
    moved, residual = np.empty((2, 2, len(ESTIMATORS), len(FACTORS)))
    for row, estimator in enumerate(ESTIMATORS.values()):
        before = np.asarray(estimator.problem(basis, target, scale).minimizer)
        for column, factor in enumerate(FACTORS):
            wide, high = basis.copy(), target.copy()
            wide[which] *= factor
            high[which] += factor * scale
            for kind, (features, values) in enumerate(((basis, high), (wide, target))):
                z = np.asarray(estimator.problem(features, values, scale).minimizer)
                moved[kind, row, column] = np.linalg.norm(z - before) / scale
                residual[kind, row, column] = abs(features[which] @ z - values[which]) / scale
    axes = ("kind", "estimator", "factor")
    coordinates = {"kind": ["y", "x"], "estimator": list(ESTIMATORS), "factor": FACTORS}
    return xr.Dataset({"moved": (axes, moved), "residual": (axes, residual)}, coordinates, {"which": which})


def _edges(basis: np.ndarray, target: np.ndarray, scale: float, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
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
    """Compare efficiencies with quadrature, descents with exact fits, and an outlier's pull with its bounds."""
    carlo, spoilt, edges = (results[name].to_dataset() for name in ("monte_carlo", "spoilt", "edges"))
    round_off = analysis.ROUND_OFF[carlo.attrs["precision"]][1]
    settled = max(float(carlo.unsettled.max()), float(spoilt.left.max()))
    return [
        *_efficiencies(carlo),
        Finding(
            claim="largest distance of any descent on a smooth loss from the fit by reweighting (absolute tolerance)",
            predicted=0.0,
            measured=settled,
            tolerance=10.0 * round_off,
            source="two methods, one minimizer",
            kind="at_most",
        ),
        _absolute_settled(carlo),
        *_pulls(results["outlier"].to_dataset(), problem),
        Finding(
            claim="Huber's stability edge over the MSE's, all residuals inside delta",
            predicted=2.0,
            measured=float(edges.edge.sel(loss="huber") / edges.edge.sel(loss="squared_error")),
            tolerance=0.01,
            source="curvature 1 of r^2 / 2 against 2 of r^2; PyTorch's HuberLoss and MSELoss differ so",
        ),
    ]


def _efficiencies(carlo: xr.Dataset) -> list[Finding]:
    """Least squares' own variance, exact; the others against it, sampled in pairs; the worst that contamination could do."""
    least, findings = carlo.excess.sel(estimator="mse"), []
    num_parameters = carlo.attrs["num_features"] + 1
    for name, noise in NOISES.items():
        exact = ESTIMATORS["mse"].variance(noise)
        own = least.sel(noise=name)
        error = 4.0 * float(analysis.standard_error(own, "data_set") / own.mean())
        findings.append(
            _sampled(f"{name} noise: variance of least squares", noise.variance, float(own.mean()) / num_parameters, error, "var (X'X)^-1")
        )
        for key, estimator in list(ESTIMATORS.items())[1:]:
            value, error = analysis.ratio(own, carlo.excess.sel(noise=name, estimator=key), "data_set")
            claim = f"{name} noise: efficiency of {estimator.label} against least squares"
            source = "V = E psi^2 / (E psi')^2, Huber 1964"
            findings.append(_sampled(claim, exact / estimator.variance(noise), float(value), 4.0 * float(error), source))
    huber = carlo.excess.sel(estimator="huber", noise="contaminated")
    findings.append(
        Finding(
            claim="a tenth contaminated: Huber's variance is below the largest that any symmetric contamination gives it",
            predicted=statistics.largest_variance(solvers.EFFICIENT_DELTA, 0.1),
            measured=float(huber.mean()) / num_parameters,
            tolerance=0.0,
            source="Huber 1964; the least such bound is 1.490, for delta = 1.140",
            kind="at_most",
        )
    )
    return findings


def _sampled(claim: str, predicted: float, measured: float, error: float, source: str) -> Finding:
    return Finding(claim=f"{claim} (4 standard errors)", predicted=predicted, measured=measured, tolerance=error, source=source)


JUDGED = 40
"""Data sets whose absolute fit is found by a linear program too."""


def _absolute_settled(carlo: xr.Dataset) -> Finding:
    build = DataSets(ESTIMATORS["mae"], *(carlo.attrs[name] for name in ("num_examples", "num_features", "seed")))
    fits, some = carlo.fit_mae, range(carlo.sizes["judged"])
    with jax.enable_x64(carlo.attrs["precision"] == "float64"):  # the same random numbers
        exact = np.stack([[np.asarray(build(kind, number).minimizer) for number in some] for kind in range(len(NOISES))])
    off = build.num_examples * np.square(fits.transpose("noise", "judged", "parameter").values - exact).sum(axis=-1)
    return Finding(
        claim=f"MAE by decaying steps: mean square distance from the linear program's fit, in parts of its variance ({len(some)} sets)",
        predicted=0.01,
        measured=float(np.mean(off) / carlo.excess.sel(estimator="mae").mean()),
        tolerance=0.0,
        source="Koenker and Bassett 1978",
        kind="at_most",
    )


def _pulls(outlier: xr.Dataset, problem: Problem) -> list[Finding]:
    basis = _data(problem)[0]
    row = basis[outlier.attrs["which"]]
    last = outlier.isel(factor=-1)
    others = np.abs(basis @ row).sum() - row @ row
    small = {"mae": 0.0, "huber": solvers.EFFICIENT_DELTA * others / (float(last.factor) * (row @ row))}
    findings = [
        Finding(
            claim="an outlier in y moves least squares by c |x| / n (c = 1000 sigma, in sigma)",
            predicted=float(last.factor) * float(np.linalg.norm(row)) / len(basis),
            measured=float(last.moved.sel(kind="y", estimator="mse")),
            tolerance=1e-8,
            source="(X'X)^-1 x c: without limit",
        )
    ]
    for name in CONVEX:
        label = ESTIMATORS[name].label
        before, after = (float(outlier.moved.sel(kind="y", estimator=name).isel(factor=at)) for at in (-4, -1))
        findings += [
            Finding(
                claim=f"{label}: an outlier in y moves the fit no further at 1000 sigma than at 178 (absolute tolerance, in sigma)",
                predicted=0.0,
                measured=abs(after - before),
                tolerance=1e-6,
                source="psi is constant beyond delta",
                kind="at_most",
            ),
            Finding(
                claim=f"{label}: with its x 1000 times as far out the outlier is fitted, its residual (sigma) no larger than",
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
    """Efficiencies by kind of noise; how far one outlier in y, and one in x, moves the fit."""
    drawn, panels = figures.figure(3, width=7.2, height=3.1, width_ratios=(1.25, 1.0, 1.0))
    carlo, outlier = results["monte_carlo"].to_dataset(), results["outlier"].to_dataset()
    _draw_efficiencies(panels[0, 0], carlo)
    for axes, kind in zip(panels[0, 1:], ("y", "x"), strict=True):
        _draw_outlier(axes, outlier.sel(kind=kind))
    basis = _data(problem)[0]
    row = basis[outlier.attrs["which"]]
    panels[0, 1].plot(FACTORS, FACTORS * np.linalg.norm(row) / len(basis), color="black", linestyle=(0, (3, 2)), linewidth=0.9, zorder=3)
    panels[0, 1].set(title="one outlier in y", xlabel="its distance c (σ)", ylabel="rms change of the fit (σ)")
    panels[0, 2].set(title="one outlier in x", xlabel="its factor c on x")
    for axes in panels[0, 1:]:
        axes.set_ylim(0.6 * LOWEST_SHOWN, max(other.get_ylim()[1] for other in panels[0, 1:]))
    handles, labels = panels[0, 1].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=5)
    n, p = carlo.attrs["num_examples"], carlo.attrs["num_features"]
    figures.source(
        drawn,
        f"Left: {carlo.sizes['data_set']} data sets of n = {n}, p = {p}, fitted by gradient descent; bars: 4 standard errors; dashes: "
        "(E ψ')² / E ψ² over that of least squares (Huber 1964).\nMiddle, right: "
        f"{problem.name}, n = {problem.num_examples}, exact fits; σ: spread of its residuals; dashed: c‖x‖/n; below 0.001 drawn there.",
    )
    return {"robust_losses": drawn}


def _draw_efficiencies(axes: Axes, carlo: xr.Dataset) -> None:
    least = carlo.excess.sel(estimator="mse")
    for place, (key, estimator) in enumerate(list(ESTIMATORS.items())[1:], start=1):
        at = np.arange(len(NOISES)) + 0.17 * (place - 2.5)
        value, error = analysis.ratio(least, carlo.excess.sel(estimator=key), "data_set")
        predicted = np.array([ESTIMATORS["mse"].variance(noise) / estimator.variance(noise) for noise in NOISES.values()])
        axes.errorbar(at, value, 4.0 * error * value, fmt="o", color=figures.COLORS[place], markersize=3.5, linewidth=1.0)
        axes.hlines(predicted, at - 0.09, at + 0.09, color="black", linewidth=1.2, linestyle=(0, (1.5, 0.7)), zorder=3)
    axes.axhline(1.0, color=figures.COLORS[0], linewidth=1.0)
    axes.set_xticks(range(len(NOISES)), ["normal", "t$_5$", "t$_3$", "normal,\n10 % × 3σ"])
    axes.grid(visible=False, axis="x")
    axes.set(yscale="log", ylabel="efficiency against least squares", title="many data sets")
    ticks = [0.6, 0.8, 1.0, 1.5, 2.0]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _draw_outlier(axes: Axes, outlier: xr.Dataset) -> None:
    for place, (key, estimator) in enumerate(ESTIMATORS.items()):
        moved = np.maximum(outlier.moved.sel(estimator=key).values, LOWEST_SHOWN)
        axes.plot(outlier.factor.values[1:], moved[1:], color=figures.COLORS[place], label=estimator.label, marker="o", markersize=2.5)
    axes.set(xscale="log", yscale="log")
