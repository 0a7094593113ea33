"""Robust losses keep what outliers and heavy tails cost least squares, and pay little for it where there are none.

Claim
    Under heavy tails and outliers in y the losses of Huber and Student, the absolute loss and the bisquare are more efficient than the
    squared one, by factors that quadrature gives; under normal noise less, by the few percent that their numbers were chosen for.
Theory
    An M-estimate's covariance is V (X'X)^-1 with V = E psi^2 / (E psi')^2 in the limit (Huber 1964); least squares' is var (X'X)^-1,
    exactly. So "MSE breaks down" (the page, section 1.2) is no bias but a loss of efficiency, while the variance is finite: 1/2 under
    t_3. And delta = 1, the page's, is a size in the target's units: 95 % asks for 1.345 sigma.
Sweep
    Losses x kinds of noise x data sets, each fitted by gradient descent; and the problem's own data with some targets spoilt.
Expect
    Efficiencies on the dashes of theory, above 1 where tails are heavy; on the spoilt data only least squares' line goes astray.
Command
    gdjax experiment=robust_losses
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models, problems, solvers, statistics, theory
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
    descent: tuple[tuple[str, Any], ...] = (("learning_rate", 1.2), ("num_steps", 30))

    def exact(self, basis: np.ndarray, target: np.ndarray, scale: float = 1.0) -> Problem:
        """The regression for noise of that scale, its minimizer known."""
        return problems.robust_regression(basis, target, self.loss, intercept=False, **{name: size * scale for name, size in self.sizes})

    def begun(self, basis: Any, target: Any) -> Problem:
        """The regression for noise of scale 1 without its minimizer, which takes longer to find than the descent that it would judge."""
        least = basis.T @ target / len(target)
        huber = {"delta": solvers.EFFICIENT_DELTA}
        return Problem(
            evaluate=models.Linear(getattr(losses, self.loss), intercept=False),
            name=self.loss,
            data=(basis, target),
            constants=dict(self.sizes),
            start=solvers.reweighted(losses.huber, basis, target, least, huber, 1e-3) if self.from_huber else np.zeros(basis.shape[1]),
        )

    def variance(self, noise: statistics.Noise) -> float:
        """V of the limit, for noise of scale 1."""
        return statistics.asymptotic_variance(
            statistics.score(getattr(losses, self.loss), **dict(self.sizes)), noise, [size for _, size in self.sizes]
        )


ESTIMATORS = {
    "mse": Estimator("MSE", "squared_error", descent=(("learning_rate", 0.5), ("num_steps", 2))),
    "mae": Estimator("MAE", "absolute", descent=(("method", "decaying_sgd"), ("learning_rate", 1.2), ("decay", 0.94), ("num_steps", 100))),
    "huber": Estimator("Huber, δ = 1.345 σ", "huber", (("delta", solvers.EFFICIENT_DELTA),)),
    "student": Estimator("Student, ν = 3", "student_t", (("scale", 1.0),), descent=(("learning_rate", 1.1), ("num_steps", 45))),
    "bisquare": Estimator("bisquare, c = 4.685 σ", "bisquare", (("cutoff", 4.685),), from_huber=True),
}


def random_basis(num_examples: int, num_features: int, seed: int) -> Float[np.ndarray, "n p+1"]:
    """A column of ones and standard normal features, made orthogonal."""
    X = np.random.default_rng(seed).normal(size=(num_examples, num_features))
    return problems.whitened(np.column_stack([np.ones(len(X)), X])).basis


@dataclass(frozen=True)
class DataSets:
    """Problems by number: data set i has y = X theta + noise with X the same for all, in coordinates in which it is orthogonal."""

    estimator: Estimator
    num_examples: int
    num_features: int
    seed: int

    def basis(self) -> Float[np.ndarray, "n p"]:
        """A column of ones and standard normal features, made orthogonal."""
        return random_basis(self.num_examples, self.num_features, self.seed)

    def truth(self) -> Float[np.ndarray, " p"]:
        """The page's w and b, again and again: any other would do, since the fits move along with it."""
        return np.resize([3.0, 2.0, -1.5, 0.5], self.num_features + 1)

    def target(self, noise: Any, data_set: Any) -> Array:
        """y of one data set under one of `NOISES`; all of them are made of the same six rows of normal numbers."""
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
        return jnp.asarray(self.basis() @ self.truth()) + kinds[jnp.asarray(noise).astype(int)]

    def __call__(self, noise: Any, data_set: Any) -> Problem:
        """What a descent on one data set needs."""
        return self.estimator.begun(self.basis(), self.target(noise, data_set))


@dataclass(frozen=True)
class Matched:
    """The data sets with Student's noise of `degrees` = 3, 4 or 5, fitted by that very likelihood."""

    sets: DataSets

    def __call__(self, degrees: Any, data_set: Any) -> Problem:
        """Least squares' start, and the likelihood with the true scale."""
        basis = self.sets.basis()
        key = jax.random.fold_in(jax.random.key(self.sets.seed), jnp.asarray(data_set).astype(int))
        good, *others = jax.random.normal(key, (6, self.sets.num_examples))
        counted = jnp.arange(5)[:, None] < degrees
        target = good / jnp.sqrt(jnp.sum(jnp.square(jnp.stack(others)) * counted, axis=0) / degrees)
        return Problem(
            evaluate=models.Linear(losses.student_t, intercept=False),
            name="matched",
            data=(basis, target),
            constants={"degrees": degrees, "scale": 1.0},
            start=np.zeros(basis.shape[1]),
        )


DEGREES = (3, 4, 5)


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
    """Fit many data sets of known noise, and a spoilt copy of the problem's data.

    Parameters
    ----------
    outliers
        What is added to as many targets, evenly spaced, in the target's units.
    delta
        Huber's on the spoilt copy, in the target's units; by default 1.345 x the residuals' spread.
    """
    basis, target, _ = orthogonal_data(problem, "robust_losses")
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
            "matched": _matched(sets["mse"], number, sweep),
            "spoilt": _fits(basis, spoilt, delta, sweep),
        }
    )


def orthogonal_data(problem: Problem, experiment: str = "") -> tuple[np.ndarray, np.ndarray, float]:
    """The features in orthogonal coordinates, the target, and the spread of the residuals of the absolute loss."""
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment {experiment} is about linear least squares, which {problem.name} is not.")
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
    """n |z - truth|^2 for every estimator, noise and data set, what gradient was left, and some of the fits."""
    axes = {"noise": range(len(NOISES)), "data_set": range(number)}
    ended = {name: sweep(build, sampler="full", record_every=1000, **axes, **dict(build.estimator.descent)) for name, build in sets.items()}
    truth, design = sets["mse"].truth(), {name: getattr(sets["mse"], name) for name in ("num_examples", "num_features", "seed")}
    excess = [sets["mse"].num_examples * np.square(one.params - truth).sum("parameter").values for one in ended.values()]
    return xr.Dataset(
        {
            "excess": (("estimator", "noise", "data_set"), np.stack(excess)),
            "gradient_norm": (
                ("estimator", "noise"),
                np.stack([one.gradient_norm[..., -1].max("data_set").values for one in ended.values()]),
            ),
            "fit": (
                ("estimator", "noise", "judged", "parameter"),
                np.stack([one.params.isel(data_set=slice(JUDGED)).values for one in ended.values()]),
            ),
        },
        {"estimator": list(ended), "noise": list(NOISES)},
        design | {"precision": ended["mse"].attrs["precision"]},
    )


def _matched(sets: DataSets, number: int, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """n |z|^2 of maximum likelihood, the truth being 0, under Student's noise."""
    axes = {"degrees": [float(degrees) for degrees in DEGREES], "data_set": range(number)}
    ended = sweep(Matched(sets), sampler="full", num_steps=30, record_every=30, learning_rate=1.2, **axes)
    return xr.Dataset({"excess": sets.num_examples * np.square(ended.params).sum("parameter")})


def _fits(basis: np.ndarray, target: np.ndarray, delta: float | None, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """The exact fits to one data set, and where descents on the smooth losses end: rate 1 / L, as many steps as slow kinks may take."""
    spread = float(solvers.spread(basis @ solvers.least_absolute(basis, target) - target))
    scales = dict.fromkeys(ESTIMATORS, spread) | {"student": solvers.student_t_fit(basis, target, 3.0)[1]}
    if delta is not None:
        scales["huber"] = float(delta) / solvers.EFFICIENT_DELTA
    exact, left = [], []
    for name, estimator in ESTIMATORS.items():
        built = estimator.exact(basis, target, scales[name])
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
    )


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare efficiencies with quadrature, and descents with exact fits."""
    carlo, spoilt = results["monte_carlo"].to_dataset(), results["spoilt"].to_dataset()
    round_off = analysis.ROUND_OFF[carlo.attrs["precision"]][1]
    efficiencies = _efficiencies(carlo)
    likelihoods = _likelihoods(results["matched"].to_dataset(), carlo.attrs["num_features"] + 1)
    every = [finding for finding in (*efficiencies, *likelihoods) if "efficiency" in finding.claim]
    return [
        *efficiencies,
        _farthest(every, carlo.sizes["data_set"]),
        *likelihoods,
        *_settled(carlo, float(spoilt.left.max()), round_off),
    ]


def _farthest(efficiencies: list[Finding], number: int) -> Finding:
    """The same in absolute terms."""
    off = [finding.measured / finding.predicted for finding in efficiencies]
    return Finding(
        claim=f"the efficiency that is farthest off of {len(off)}: measured over predicted (4 % at 3,000 data sets or more)",
        predicted=1.0,
        measured=max(off, key=lambda ratio: abs(ratio - 1.0)),
        tolerance=0.04 * max(1.0, (3000.0 / number) ** 0.5),
        source="quadrature, to 1e-8, and Fisher's information",
    )


def _likelihoods(matched: xr.Dataset, num_parameters: int) -> list[Finding]:
    """Least squares' own variance is exact, so that its efficiency needs the other's alone."""
    findings = []
    for degrees in DEGREES:
        excess = matched.excess.sel(degrees=degrees)
        error = 4.0 * float(analysis.standard_error(excess, "data_set") / excess.mean())
        efficiency = float(excess.mean()) / num_parameters / statistics.student(degrees).variance
        claim = f"Student's noise, nu = {degrees}: efficiency of least squares against maximum likelihood"
        exact = statistics.least_squares_efficiency_under_student(degrees)
        findings.append(_sampled(claim, exact, efficiency, error, "(nu - 2) (nu + 3) / (nu (nu + 1)), Fisher's information"))
    return findings


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


JUDGED = 10
"""Data sets under each noise whose fits are found by reweighting, or by a linear program, too."""


def _settled(carlo: xr.Dataset, left: float, round_off: float) -> list[Finding]:
    """Whether descents ended where they should; n |z - z'|^2 over that of the estimate itself is what an unfinished one adds to V."""
    builds = {
        name: DataSets(estimator, *(carlo.attrs[number] for number in ("num_examples", "num_features", "seed")))
        for name, estimator in ESTIMATORS.items()
    }
    with jax.enable_x64(carlo.attrs["precision"] == "float64"):  # the same random numbers
        targets = [
            [np.asarray(builds["mse"].target(kind, number), float) for number in range(carlo.sizes["judged"])]
            for kind in range(len(NOISES))
        ]
    basis = builds["mse"].basis()
    exact = {
        name: np.array([[np.asarray(estimator.exact(basis, target).minimizer) for target in row] for row in targets])
        for name, estimator in ESTIMATORS.items()
    }
    off = {name: np.square(carlo.fit.sel(estimator=name).values - fits).sum(axis=-1) for name, fits in exact.items()}
    smooth = [name for name in ESTIMATORS if name != "mae"]
    added = carlo.attrs["num_examples"] * off["mae"].mean() / float(carlo.excess.sel(estimator="mae").mean())
    source = "two methods, one minimizer"
    return [
        _at_most(
            "smooth losses: largest gradient left in any data set",
            float(carlo.gradient_norm.sel(estimator=smooth).max()),
            round_off,
            "a minimum",
        ),
        _at_most(
            f"smooth losses: largest distance from the fit by reweighting, in {off['mae'].size} of them",
            max(float(np.sqrt(off[name].max())) for name in smooth),
            10.0 * round_off,
            source,
        ),
        _at_most("the same on the problem's spoilt data, in parts of the fit", left, 10.0 * round_off, source),
        _at_most(
            f"MAE by decaying steps: what not to have arrived adds to its variance, in {off['mae'].size} data sets",
            float(added),
            0.01,
            "the linear program, Koenker and Bassett 1978",
        ),
    ]


def _at_most(claim: str, measured: float, tolerance: float, source: str) -> Finding:
    claim = f"{claim} (absolute tolerance)"
    return Finding(claim=claim, predicted=0.0, measured=measured, tolerance=tolerance, source=source, kind="at_most")


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Efficiencies by kind of noise; the fits to the spoilt data beside those that they would be without outliers."""
    drawn, panels = figures.figure(2, width=7.0, height=3.1, width_ratios=(1.5, 1.0))
    carlo, spoilt = results["monte_carlo"].to_dataset(), results["spoilt"].to_dataset()
    _draw_efficiencies(panels[0, 0], carlo)
    _draw_spoilt(panels[0, 1], spoilt, problem)
    n, p = carlo.attrs["num_examples"], carlo.attrs["num_features"]
    figures.source(
        drawn,
        f"Left: {carlo.sizes['data_set']} data sets of n = {n}, p = {p}, fitted by gradient descent; bars: 4 standard errors; dashes: "
        "V of the MSE over V, V = E ψ² / (E ψ')² (Huber 1964).\n"
        f"Right: {problem.name}, n = {problem.num_examples}, some targets spoilt, against the MSE's fit before; σ: their spread.",
    )
    return {"robust_losses": drawn}


def _draw_efficiencies(axes: Axes, carlo: xr.Dataset) -> None:
    least = carlo.excess.sel(estimator="mse")
    for place, (key, estimator) in enumerate(list(ESTIMATORS.items())[1:], start=1):
        at = np.arange(len(NOISES)) + 0.17 * (place - 2.5)
        value, error = analysis.ratio(least, carlo.excess.sel(estimator=key), "data_set")
        predicted = np.array([ESTIMATORS["mse"].variance(noise) / estimator.variance(noise) for noise in NOISES.values()])
        axes.errorbar(
            at, value, 4.0 * error * value, fmt="o", color=figures.COLORS[place], markersize=3.5, linewidth=1.0, label=estimator.label
        )
        axes.hlines(predicted, at - 0.09, at + 0.09, color="black", linewidth=1.2, linestyle=(0, (1.5, 0.7)), zorder=3)
    axes.axhline(1.0, color=figures.COLORS[0], linewidth=1.0, label=ESTIMATORS["mse"].label)
    axes.set_xticks(range(len(NOISES)), ["normal", "t$_5$", "t$_3$", "normal,\n10 % × 3σ"])
    axes.grid(visible=False, axis="x")
    axes.set(yscale="log", ylabel="efficiency against least squares", title="many data sets")
    ticks = [0.6, 0.8, 1.0, 1.5, 2.0]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(loc="upper left")


def _draw_spoilt(axes: Axes, spoilt: xr.Dataset, problem: Problem) -> None:
    """How far each fit to the spoilt data is from least squares' to the clean."""
    basis, target, scale = orthogonal_data(problem)
    away = np.linalg.norm(spoilt.fit.values - basis.T @ target / len(target), axis=1) / scale
    for place, distance in enumerate(away):
        axes.barh(place, distance, color=figures.COLORS[place], height=0.6)
        axes.annotate(f"{distance:.2g}", (distance, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5)
    axes.set_yticks(range(len(ESTIMATORS)), [estimator.label for estimator in ESTIMATORS.values()])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="rms shift of the fit (σ)", title="outliers in the data", xlim=(0.0, 1.15 * float(away.max())))
