"""Unequal noise costs least squares efficiency and the truth of its standard errors, not its mean.

Claim
    Where the noise's deviation grows along x, least squares stays unbiased, but weighting by 1 / sigma^2 has a smaller variance, and the
    textbook's standard errors of least squares are wrong; sigma(x) can be learnt by descending on the Gaussian likelihood.
Theory
    Cov(least squares) = (X'X)^-1 X'OX (X'X)^-1, Cov(weighted) = (X'O^-1 X)^-1, O = diag(sigma_i^2) (Aitken 1936); the textbook's
    s^2 (X'X)^-1 has mean tr((I - H) O) / (n - p) (X'X)^-1, that of White (1980) is consistent. "Constant-sigma^2 assumption fails"
    (the page, section 1.2) is no bias: it is this loss, 86 % of the efficiency for the notebook's intercept and 62 % for its slope.
Sweep
    Estimators x data sets with one X: the squared error, the weighted one, and the likelihood with sigma(x) = e^a + e^b u fitted.
Expect
    Errors and variances on the dashes of theory, weighted below plain, fitted sigma(x) as good as known; the textbook's off both ways.
Command
    gdjax experiment=heteroscedastic
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models, problems, statistics, theory
from gdjax.records import Finding, InputError, Problem, whole

FITTING_STEPS = 500


@dataclass(frozen=True, eq=False)
class Design:
    """Features with noise whose deviation grows linearly along u, the place in the order of the first that varies, from 0 to 10.

    On the notebook's even grid u is x itself; elsewhere no example stands alone where the noise is least, which sigma would then fit.
    """

    features: Float[np.ndarray, "n p"]
    u: Float[np.ndarray, " n"]
    sigma: Float[np.ndarray, " n"]
    truth: Float[np.ndarray, " p"]

    def covariances(self) -> statistics.Covariances:
        """Of the fits."""
        return statistics.covariances(self.features, self.sigma**2)

    def target(self, data_set: Any) -> Any:
        """y of one data set, less what the truth makes of it: fits of this are the fits' errors."""
        key = jax.random.fold_in(jax.random.key(0), jnp.asarray(data_set).astype(int))
        return self.sigma * jax.random.normal(key, (len(self.u),))

    def repeated(self, times: int) -> Design:
        """Every example so many times, which leaves efficiencies as they are."""
        features, u, sigma = (np.repeat(array, times, axis=0) for array in (self.features, self.u, self.sigma))
        return Design(features, u, sigma, self.truth)


@dataclass(frozen=True, eq=False)
class Squares:
    """Least squares, plain or weighted, on data sets by number, in coordinates in which its Hessian is twice the identity."""

    design: Design
    weights: Float[np.ndarray, " n"]

    @functools.cached_property
    def back(self) -> Float[np.ndarray, "p p"]:
        """theta = back @ z."""
        return problems.whitened(np.sqrt(self.weights)[:, None] * self.design.features).back

    def __call__(self, data_set: Any) -> Problem:
        """The weighted mean square (1/n) sum w_i r_i^2."""
        root = np.sqrt(self.weights)
        return problems.least_squares(root[:, None] * self.design.features @ self.back, root * self.design.target(data_set), False)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The Gaussian likelihood of theta and of sigma = e^a + e^b u, on data sets by number.

    It starts at least squares' fit and at a sigma that is half constant and half proportional to u. The descent's coordinates (z, c)
    are such that the information at the truth is the identity; they change its speed, not its end.
    """

    design: Design
    sigma: tuple[float, float]  # at u = 0, and its growth

    @functools.cached_property
    def back(self) -> Float[np.ndarray, "p p"]:
        """theta = back @ z."""
        return problems.whitened(self.design.features / self.design.sigma[:, None]).back

    @functools.cached_property
    def stretch(self) -> Float[np.ndarray, "2 2"]:
        """(a, b) = ln sigma + stretch @ c; the information on (a, b) is 2 mean (d ln sigma_i)(d ln sigma_i)'."""
        slopes = np.stack([np.full_like(self.design.u, self.sigma[0]), self.sigma[1] * self.design.u], axis=1) / self.design.sigma[:, None]
        return np.linalg.inv(np.linalg.cholesky(2.0 * slopes.T @ slopes / len(slopes)).T)

    def __call__(self, data_set: Any) -> Problem:
        """The mean negative log-likelihood; its parameters are z, then c."""
        design, target = self.design, self.design.target(data_set)
        features = design.features @ self.back
        z = np.linalg.pinv(features) @ target
        half = 0.5 * jnp.sqrt(jnp.mean(jnp.square(target - features @ z)))
        begin = jnp.log(jnp.stack([half, half / design.u.mean()])) - np.log(self.sigma)
        return Problem(
            evaluate=models.PerExample(_modelled),
            name="modelled_noise",
            data=(features, design.u, target),
            constants={"center": np.log(self.sigma), "stretch": self.stretch},
            start=jnp.concatenate([z, np.linalg.inv(self.stretch) @ begin]),
        )


def _modelled(params: Array, example: tuple[Array, Array, Array], center: Any = 0.0, stretch: Any = 1.0) -> Array:
    features, u, target = example
    level, growth = jnp.exp(center + stretch @ params[-2:])
    return losses.gaussian_nll(features @ params[:-2], target, sigma=level + growth * u)


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_data_sets: int = 25_000,
    num_fitted: int = 500,
    repeats: int = 5,
    level: float = 0.2,
    growth: float = 0.3,
) -> xr.DataTree:
    """Draw data sets with the problem's features and minimizer and noise of deviation level + growth u; fit each by gradient descent.

    Parameters
    ----------
    num_fitted
        Data sets on which sigma is fitted too, `repeats` times as long.
    """
    design = _design(problem, level, growth)
    long = design.repeated(whole("repeats", repeats, least=2))
    number, fitted = whole("num_data_sets", num_data_sets, least=20), whole("num_fitted", num_fitted, least=20)
    plain, weighted = (_squares(design, weights, number, sweep) for weights in (np.ones_like(design.u), design.sigma**-2))
    known = _squares(long, long.sigma**-2, fitted, sweep)
    build = Likelihood(long, (level, growth))
    ended = sweep(build, sampler="full", num_steps=FITTING_STEPS, record_every=FITTING_STEPS, learning_rate=0.1, data_set=range(fitted))
    error = ended.params.values[:, :-2] @ build.back.T
    sigma = np.exp(np.log([level, growth]) + ended.params.values[:, -2:] @ build.stretch.T)
    names = list(problem.parameter_names or [f"w{j}" for j in range(len(design.truth))])
    attributes = {"level": float(level), "growth": float(growth), "repeats": repeats, "precision": ended.attrs["precision"]}
    return xr.DataTree.from_dict(
        {
            "known": xr.Dataset(
                {
                    "error": (("estimator", "data_set", "parameter"), np.stack([plain.error, weighted.error])),
                    "mean_square": ("data_set", plain.objective.values),
                },
                {"estimator": ["plain", "weighted"], "parameter": names},
                attributes,
            ),
            "fitted": xr.Dataset(
                {
                    "error": (("estimator", "data_set", "parameter"), np.stack([known.error, error])),
                    "sigma": (("data_set", "number"), sigma),
                    "gradient_norm": ("data_set", ended.gradient_norm.isel(step=-1).values),
                },
                {"estimator": ["weighted", "fitted"], "parameter": names, "number": ["level", "growth"]},
            ),
        }
    )


def _design(problem: Problem, level: float, growth: float) -> Design:
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment heteroscedastic is about linear least squares, which {problem.name} is not.")
    features = np.asarray(problem.data[0])
    n, p = features.shape
    varying = np.flatnonzero(np.ptp(features, axis=0) > 0.0)
    if n <= p or not len(varying) or np.linalg.matrix_rank(features) < p:
        raise InputError(f"{problem.name} has {n} examples of {p} features: give more examples than features, and no collinear ones.")
    if not (0.0 < level < np.inf and 0.0 < growth < np.inf):
        raise InputError(f"level={level}, growth={growth} is not allowed: both are above 0.")
    x = features[:, varying[0]]
    ordered = np.sort(x)
    rank = 0.5 * (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right") - 1)
    u = 10.0 * rank / (n - 1)
    return Design(features, u, level + growth * u, np.asarray(problem.minimizer))


class _Fits(NamedTuple):
    error: Float[np.ndarray, "data_sets p"]
    objective: xr.DataArray


def _squares(design: Design, weights: np.ndarray, number: int, sweep: Callable[..., xr.Dataset]) -> _Fits:
    """Two steps at the rate 1 / L, where every curvature is L: the first arrives, the second mends round-off."""
    build = Squares(design, weights)
    ended = sweep(build, sampler="full", num_steps=2, record_every=2, learning_rate=0.5, data_set=range(number))
    return _Fits(ended.params.values @ build.back.T, ended.objective.isel(step=-1))


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare variances with closed forms, the mean error with zero, the textbook's variance with the true one."""
    known, fitted = results["known"].to_dataset(), results["fitted"].to_dataset()
    design = _design(problem, known.attrs["level"], known.attrs["growth"])
    plain = known.error.sel(estimator="plain")
    away = float(np.abs(plain.mean("data_set") / analysis.standard_error(plain, "data_set")).max())
    return [
        Finding(
            claim=f"least squares is unbiased: its largest mean error over {plain.sizes['data_set']} data sets, in standard errors",
            predicted=4.0,
            measured=away,
            tolerance=0.0,
            source="E y = X theta whatever the variances; the page says that the assumption's failure breaks the MSE",
            kind="at_most",
        ),
        *(finding for number in range(len(design.truth)) for finding in _of_parameter(known, design, number)),
        *_of_fitted(fitted),
    ]


def _of_parameter(known: xr.Dataset, design: Design, number: int) -> list[Finding]:
    """The efficiency of least squares, and what the textbook makes of its variance, for one coefficient."""
    covariances = design.covariances()
    true, least, textbook = (float(covariance[number, number]) for covariance in covariances)
    squares = np.square(known.error.isel(parameter=number))
    name = str(known.parameter.values[number])
    plain, weighted = squares.sel(estimator="plain"), squares.sel(estimator="weighted")
    efficiency, error = analysis.ratio(weighted, plain, "data_set")
    said, doubt = analysis.ratio(_textbook_variance(known, design, number), plain, "data_set")
    return [
        Finding(
            claim=f"{name}: efficiency of least squares against weights 1 / sigma^2 (4 standard errors)",
            predicted=least / true,
            measured=float(efficiency),
            tolerance=4.0 * float(error),
            source="(X'O^-1 X)^-1 over (X'X)^-1 X'OX (X'X)^-1, Aitken 1936",
        ),
        Finding(
            claim=f"{name}: the textbook's variance of least squares over the true one, which is not 1 (4 standard errors)",
            predicted=textbook / true,
            measured=float(said),
            tolerance=4.0 * float(doubt),
            source="tr((I - H) O) / (n - p) (X'X)^-1 over (X'X)^-1 X'OX (X'X)^-1, White 1980",
        ),
    ]


def _textbook_variance(known: xr.Dataset, design: Design, number: int) -> xr.DataArray:
    """s^2 (X'X)^-1 of each data set, s^2 = RSS / (n - p)."""
    n, p = design.features.shape
    unit = statistics.covariances(design.features, np.ones(n)).plain[number, number]
    return known.mean_square * n / (n - p) * unit


def _of_fitted(fitted: xr.Dataset) -> list[Finding]:
    squares = np.square(fitted.error)
    ratios = [
        analysis.ratio(by_weights, by_likelihood, "data_set")
        for by_weights, by_likelihood in zip(
            *(squares.sel(estimator=of).transpose("parameter", "data_set") for of in ("weighted", "fitted")), strict=True
        )
    ]
    worst, error = min(((float(value), float(spread)) for value, spread in ratios), key=lambda pair: pair[0])
    return [
        Finding(
            claim="sigma(x) fitted: the largest gradient left in any data set (absolute tolerance; a standard error is n^-1/2)",
            predicted=0.0,
            measured=float(fitted.gradient_norm.max()),
            tolerance=1e-3,
            source="a minimum",
            kind="at_most",
        ),
        Finding(
            claim="with sigma(x) fitted, the least efficient coefficient against weights known (4 standard errors)",
            predicted=1.0,
            measured=worst,
            tolerance=4.0 * error,
            source="information on theta and on sigma(x) is block diagonal, so that not to know sigma(x) costs nothing in the limit",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The errors of two coefficients over data sets; the variances of all of them against the true one of least squares."""
    known = results["known"].to_dataset()
    design = _design(problem, known.attrs["level"], known.attrs["growth"])
    shown = range(min(2, len(design.truth)))
    drawn, panels = figures.figure(len(shown) + 1, width=7.2, height=2.9)
    for axes, number in zip(panels[0], shown, strict=False):
        _draw_errors(axes, known, design, number)
    panels[0, 0].set_ylabel("density")
    panels[0, 0].legend(loc="upper left", handlelength=1.2)
    _draw_variances(panels[0, -1], known, results["fitted"].to_dataset(), design)
    figures.source(
        drawn,
        f"Features of {problem.name}, n = {problem.num_examples}; σ = {known.attrs['level']:g} + {known.attrs['growth']:g} u; "
        f"{known.sizes['data_set']} data sets, each fitted by gradient descent ({results['fitted'].sizes['data_set']} of "
        f"{known.attrs['repeats']}n where σ(x) is fitted).\nDashed: (X'X)⁻¹X'ΩX(X'X)⁻¹ and (X'Ω⁻¹X)⁻¹ (Aitken 1936). "
        "Dotted: mean of s²(X'X)⁻¹, which is printed for the MSE's fit.",
    )
    return {"heteroscedastic": drawn}


def _draw_errors(axes: Axes, known: xr.Dataset, design: Design, number: int) -> None:
    variances = [float(covariance[number, number]) for covariance in design.covariances()]
    widest = 4.0 * np.sqrt(max(variances))
    at = np.linspace(-widest, widest, 401)
    for of, color, variance in zip(("plain", "weighted"), figures.COLORS, variances[:2], strict=False):
        errors = known.error.sel(estimator=of).isel(parameter=number).values
        axes.hist(errors, bins=60, range=(-widest, widest), density=True, color=color, alpha=0.35, label=LABELS[of], histtype="stepfilled")
        axes.plot(at, statistics.normal(np.sqrt(variance)).density(at), color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    axes.plot(at, statistics.normal(np.sqrt(variances[2])).density(at), color=figures.COLORS[0], linestyle=":", linewidth=1.3)
    axes.set(xlabel=f"error of {known.parameter.values[number]}", title=f"{known.sizes['data_set']} fits")
    axes.set_yticks([])


LABELS = {"plain": "MSE", "weighted": "weighted MSE"}


def _draw_variances(axes: Axes, known: xr.Dataset, fitted: xr.Dataset, design: Design) -> None:
    true, least, textbook = (np.diag(covariance) for covariance in design.covariances())
    at = np.arange(len(true))
    squares = np.square(known.error).mean("data_set")
    said = [float(_textbook_variance(known, design, number).mean()) for number in range(len(true))]
    gain = np.square(fitted.error).mean("data_set")
    series = (
        ("MSE", squares.sel(estimator="plain").values / true, np.ones_like(true), "o", 0),
        ("its textbook variance", np.array(said) / true, textbook / true, "s", 4),
        ("weighted MSE", squares.sel(estimator="weighted").values / true, least / true, "D", 1),
        ("σ(x) fitted", (gain.sel(estimator="fitted") / gain.sel(estimator="weighted")).values * least / true, least / true, "^", 2),
    )
    for place, (label, measured, predicted, marker, color) in enumerate(series):
        spot = at + 0.18 * (place - 1.5)
        axes.plot(spot, measured, marker, color=figures.COLORS[color], markersize=4, label=label)
        axes.hlines(predicted, spot - 0.09, spot + 0.09, color="black", linewidth=1.2, linestyle=(0, (1.5, 0.7)), zorder=3)
    axes.set_xticks(at, [str(name) for name in known.parameter.values])
    axes.grid(visible=False, axis="x")
    axes.set(title="variance over that of the MSE's fit", ylim=(0.0, 1.35 * max(1.0, float((textbook / true).max()))))
    axes.legend(loc="upper right")
