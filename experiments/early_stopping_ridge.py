"""Gradient descent stopped early is nearly ridge regression: it never has more than 1.69 times its risk, and never stopped it interpolates.

Claim
    After t steps descent from 0 keeps of every direction nearly what ridge regression with lambda = 1 / (2 eta t) keeps; the largest
    ratios of the two filters, and of the two risks, are numbers of t alone, whatever the features, the truth and the noise.
Theory
    Filters 1 - (1 - y)^t and x / (1 + x), y = 2 eta s, x = t y, s an eigenvalue of X'X / n. Their ratio has the supremum 1.2984 as eta -> 0
    and its square 1.6859 bounds the risk's; where the truth is normal and lambda the best, 1.2147 does (Ali, Kolter and Tibshirani 2019,
    whose abstract says 1.69). A step is no flow: after t = 1 it is 4, after 10 1.80. With more features than examples descent from 0 ends
    at the interpolating fit of least norm, as ridge regression does for lambda -> 0.
Sweep
    Steps t x unit vectors of targets, which give the fits' linear maps and with them risks without sampling; truths along every
    eigenvector and signal-to-noise ratios; fine spectra for the suprema.
Expect
    Risks that fall and rise together; ratios below the dashed bound for each t; the filters' ratio on it.
Command
    gdjax experiment=early_stopping_ridge
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models, problems
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import early_stopping

RATIOS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""n tau^2 / sigma^2: the truth's squared size over the noise's, by direction."""

FINE = 8000
"""Curvatures whose filters are measured, log-spaced over four decades: the largest is met to 1e-7."""


@dataclass(frozen=True)
class Features:
    """n x p normal features whose columns have variances i^-a, by their singular value decomposition X = sqrt(n) U S V'."""

    num_examples: int
    num_features: int
    decay: float
    seed: int = 0

    def matrix(self) -> Float[np.ndarray, "n p"]:
        """X."""
        columns = np.random.default_rng(self.seed).normal(size=(self.num_examples, self.num_features))
        return columns * np.arange(1, self.num_features + 1) ** (-0.5 * self.decay)

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """U, s = S^2 and V."""
        U, S, Vt = np.linalg.svd(self.matrix() / np.sqrt(self.num_examples), full_matrices=False)
        return U, S**2, Vt.T

    def __call__(self, target: Any) -> Problem:
        """J = (1/n) ||X theta - y||^2 with y = sqrt(n) U_j, j = target."""
        U, s, V = self.parts()
        j = jnp.asarray(target).astype(int)
        return Problem(
            evaluate=models.Linear(losses.squared_error, intercept=False),
            name="power_law_features",
            data=(self.matrix(), np.sqrt(self.num_examples) * jnp.asarray(U)[:, j]),
            start=np.zeros(self.num_features),
            minimizer=jnp.asarray(V / np.sqrt(s))[:, j],
            minimum=0.0,
            hessian=jnp.asarray(2.0 * (V * s) @ V.T),
        )


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_examples: int = 100,
    num_features: int = 30,
    decay: float = 1.5,
    num_steps: int = 10_000,
    num_times: int = 20,
    filter_steps: Sequence[int] | int = (1, 2, 5, 10, 100, 1000),
    seed: int = 0,
) -> xr.DataTree:
    """Measure the linear maps from targets to fits, the filters on fine spectra, and the fit that interpolates.

    Parameters
    ----------
    decay
        Feature i has variance i^-decay.
    num_times
        Of the t at which descent is stopped, log-spaced up to num_steps.
    filter_steps
        The t whose suprema are measured.
    """
    if not (isinstance(decay, int | float) and 0.0 <= decay < 10.0):
        raise InputError(f"decay={decay} is not allowed: it is a number from 0 to 10.")
    features = Features(
        whole("num_examples", num_examples, least=2), whole("num_features", num_features), float(decay), whole("seed", seed, least=0)
    )
    if features.num_features > features.num_examples:
        features = Features(features.num_examples, features.num_examples, features.decay, features.seed)
    last = whole("num_steps", num_steps, least=10)
    times = np.unique(np.geomspace(1, last, whole("num_times", num_times, least=2)).round().astype(int))
    counts = sorted({whole("filter_steps", t) for t in several("filter_steps", filter_steps)})
    return xr.DataTree.from_dict(
        {"fits": _fits(features, times, sweep), "filters": _filters(counts, sweep), "interpolating": _interpolating(features, sweep)}
    )


def _fits(features: Features, times: np.ndarray, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """theta_t for y = sqrt(n) U_j, for every j and each t: as many calls of one program."""
    p, (_, s, _) = features.num_features, features.parts()
    rate = 0.5 / float(s.max())
    ended = [
        sweep(features, sampler="full", num_steps=int(t), record_every=int(t), learning_rate=rate, target=range(p)).params for t in times
    ]
    attributes = {"learning_rate": rate, "precision": ended[0].dtype.name}
    attributes |= {name: getattr(features, name) for name in ("num_examples", "num_features", "decay", "seed")}
    return xr.Dataset({"fit": (("time", "target", "parameter"), np.stack([one.values for one in ended]))}, {"time": times}, attributes)


def _filters(counts: list[int], sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """The share of the minimizer that t steps reach, for curvatures y between 1e-4 and 1 at the rate 1."""
    shares = np.geomspace(1e-4, 1.0, FINE)
    spectrum = problems.designed_spectrum(shares)
    left = [sweep(spectrum, sampler="full", num_steps=t, record_every=t, learning_rate=1.0).params.values for t in counts]
    return xr.Dataset({"kept": (("time", "share"), 1.0 - np.stack(left))}, {"time": counts, "share": shares})


def _interpolating(features: Features, sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Descent on more features than examples, and ridge regression with less and less."""
    n, p = 20, 60
    X = np.random.default_rng(features.seed + 1).normal(size=(n, p))
    y = X @ np.ones(p) + np.random.default_rng(features.seed + 2).normal(size=n)
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    shortest = Vt.T @ (U.T @ y / S)
    problem = Problem(
        evaluate=models.Linear(losses.squared_error, intercept=False),
        name="more_features_than_examples",
        data=(X, y),
        start=np.zeros(p),
        minimizer=shortest,
        minimum=0.0,
    )
    rate, steps = n / float(S.max() ** 2 + S.min() ** 2), int(np.ceil(25.0 * (S.max() / S.min()) ** 2))
    ended = sweep(problem, sampler="full", num_steps=steps, record_every=max(1, steps // 100), learning_rate=rate)
    penalties = np.geomspace(1.0, 1e-10, 11)
    ridge = np.array([np.linalg.norm(Vt.T @ (S / (S**2 + n * penalty) * (U.T @ y)) - shortest) for penalty in penalties])
    size = float(np.linalg.norm(shortest))
    return xr.Dataset(
        {
            "distance": ("step", ended.distance.values / size),
            "ridge": ("penalty", ridge / size),
            "objective": ("step", ended.objective.values),
        },
        {"step": ended.step.values, "penalty": penalties},
    )


@dataclass(frozen=True)
class Risks:
    """E ||fit - truth||^2 of both estimators, by direction of the truth and n tau^2 / sigma^2, in units of sigma^2 / n."""

    descent: Float[np.ndarray, "times directions ratios"]
    ridge: Float[np.ndarray, "times directions ratios"]


def _features(fits: xr.Dataset) -> Features:
    return Features(*(fits.attrs[name] for name in ("num_examples", "num_features", "decay", "seed")))


def risks(fits: xr.Dataset) -> Risks:
    """From the maps, y = X theta + noise: theta_t - theta = (M_t - I) theta + noise, Cov = (sigma^2 / n) sum_j of fit_j fit_j'."""
    _, s, V = _features(fits).parts()
    penalties = 0.5 / (fits.attrs["learning_rate"] * fits.time.values)
    gram = (V * s) @ V.T
    moments = (V * np.sqrt(s)).T  # X'y / n of the targets, as rows
    ridge = np.stack([np.linalg.solve(gram + penalty * np.eye(len(s)), moments.T).T for penalty in penalties])
    return Risks(*(_risk(maps, s, V) for maps in (fits.fit.values, ridge)))


def _risk(maps: np.ndarray, s: np.ndarray, V: np.ndarray) -> np.ndarray:
    """`maps` has the fit for each target as a row; the truth V_j is fitted from y = X V_j, sqrt(s_j) of the target j."""
    bias = np.square(np.sqrt(s)[:, None] * maps - V.T).sum(axis=-1)
    variance = np.square(maps).sum(axis=(1, 2))
    return variance[:, None, None] + bias[..., None] * np.array(RATIOS)


def check(results: xr.DataTree) -> list[Finding]:
    """Compare risks and filters with their suprema, and descent's end with the fit of least norm."""
    fits, filters, ending = (results[name].to_dataset() for name in ("fits", "filters", "interpolating"))
    slack = analysis.ROUND_OFF[fits.attrs["precision"]][1]
    measured = risks(fits)
    source = "Ali, Kolter and Tibshirani 2019, Thm 1, for finite t"
    ratio = (measured.descent / measured.ridge).max(axis=(1, 2))
    bounds = np.array([early_stopping.risk_ratio_bound(int(t)) for t in fits.time.values])
    worst = int((ratio / bounds).argmax())
    return [
        Finding(
            claim=f"risk of stopped descent over ridge regression's, {measured.descent.size} truths and t: nearest to its bound, t = "
            f"{int(fits.time[worst])}",
            predicted=float(bounds[worst]),
            measured=float(ratio[worst]),
            tolerance=slack,
            source=source,
            kind="at_most",
        ),
        _bayes_finding(fits, slack),
        *(_supremum_finding(filters.sel(time=t), slack) for t in filters.time.values),
        Finding(
            claim="what is left by descent over what is left by ridge regression, of any curvature after any of these t",
            predicted=1.0,
            measured=float(((1.0 - filters.kept) * (1.0 + filters.time * filters.share)).max()),
            tolerance=slack,
            source="(1 - y)^t (1 + t y) <= 1, so that descent's bias is the smaller",
            kind="at_most",
        ),
        Finding(
            claim="60 features, 20 examples: distance of descent's end from the interpolating fit of least norm, in parts (absolute)",
            predicted=0.0,
            measured=float(ending.distance[-1]),
            tolerance=1e-8 if fits.attrs["precision"] == "float64" else 1e-3,
            source="steps from 0 stay in the span of the rows of X",
            kind="at_most",
        ),
    ]


def _bayes_finding(fits: xr.Dataset, slack: float) -> Finding:
    """At every t for truths of the size n tau^2 / sigma^2 = 2 eta t, whose best lambda is 1 / (2 eta t)."""
    times, (_, s, V) = fits.time.values, _features(fits).parts()
    ratios = []
    for maps, prior in zip(fits.fit.values, 2.0 * fits.attrs["learning_rate"] * times, strict=True):
        bias = np.square(np.sqrt(s)[:, None] * maps - V.T).sum()
        ratios.append((np.square(maps).sum() + prior * bias) / np.sum(prior / (1.0 + prior * s)))
    bounds = np.array([early_stopping.bayes_ratio_bound(int(t)) for t in times])
    worst = int(np.argmax(np.array(ratios) / bounds))
    return Finding(
        claim=f"normal truth, ridge regression at its best: risk of stopped descent over its, nearest to its bound, t = {times[worst]}",
        predicted=float(bounds[worst]),
        measured=float(ratios[worst]),
        tolerance=slack,
        source="Ali, Kolter and Tibshirani 2019, Thm 3 (1.2147), for finite t",
        kind="at_most",
    )


def _supremum_finding(filters: xr.Dataset, slack: float) -> Finding:
    t = int(filters.time)
    ratio = filters.kept / early_stopping.ridge_filter(filters.share.values, t)
    return Finding(
        claim=f"t = {t}: squared largest ratio of the filters, which bounds the risks'",
        predicted=early_stopping.risk_ratio_bound(t),
        measured=float(ratio.max()) ** 2,
        tolerance=1e-6 if slack < 1e-6 else 1e-3,
        source="sup (1 - (1 - y)^t) (1 + t y) / (t y), 1.6859 for the flow",
    )


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Risks along t; their ratios under the bound; the filters."""
    drawn, panels = figures.figure(3, width=7.2, height=3.1)
    fits, filters = results["fits"].to_dataset(), results["filters"].to_dataset()
    _draw_risks(panels[0, 0], fits)
    _draw_ratios(panels[0, 1], fits, filters)
    _draw_filters(panels[0, 2], filters)
    figures.source(
        drawn,
        f"n = {fits.attrs['num_examples']}, p = {fits.attrs['num_features']}, variance of feature i: i$^{{−{fits.attrs['decay']:g}}}$; "
        "λ = 1/(2ηt). Risks are exact, from the fits' linear maps. Left: mean over truths along each eigenvector, of size τ.\n"
        "Middle: truths along each eigenvector, each nτ²/σ² from 0.1 to 10,000; dashed: the suprema (Ali, Kolter and Tibshirani 2019, "
        "for finite t).",
    )
    return {"early_stopping_ridge": drawn}


def _draw_risks(axes: Axes, fits: xr.Dataset) -> None:
    measured = risks(fits)
    for place, color in zip((3, 4, 5), figures.COLORS, strict=False):
        for risk, style in ((measured.descent, "-"), (measured.ridge, (0, (1, 1.2)))):
            mean = risk.mean(axis=1)[:, place] / RATIOS[place]
            axes.plot(fits.time, mean, color=color, linestyle=style, label=f"nτ²/σ² = {RATIOS[place]:,g}" if style == "-" else None)
    axes.plot([], [], color="black", label="descent")
    axes.plot([], [], color="black", linestyle=(0, (1, 1.2)), label="ridge")
    axes.set(xscale="log", yscale="log", xlabel="steps t  (λ = 1/(2ηt))", ylabel="risk / τ²", title="risk")
    axes.set_ylim(top=1e3)
    axes.legend(loc="upper left", handlelength=1.2)


def _draw_ratios(axes: Axes, fits: xr.Dataset, filters: xr.Dataset) -> None:
    measured = risks(fits)
    ratio = measured.descent / measured.ridge
    axes.fill_between(
        fits.time, ratio.min(axis=(1, 2)), ratio.max(axis=(1, 2)), color=figures.COLORS[0], alpha=0.25, linewidth=0, label="all truths"
    )
    x = filters.time * filters.share
    supremum = (filters.kept * (1.0 + x) / x).max("share") ** 2
    axes.plot(filters.time, supremum, "o", color=figures.COLORS[1], markersize=3.5, label="filters' ratio²")
    fine = np.unique(np.geomspace(1, float(fits.time[-1]), 60).round().astype(int))
    bound = [early_stopping.risk_ratio_bound(int(t)) for t in fine]
    axes.plot(fine, bound, color="black", linestyle=(0, (3, 2)), linewidth=0.9, label="supremum")
    axes.axhline(early_stopping.risk_ratio_bound(math.inf), color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate(f"{early_stopping.risk_ratio_bound(math.inf):.4f}", (float(fits.time[-1]), 1.7), fontsize=6.5, ha="right", va="bottom")
    axes.set(xscale="log", ylim=(0.0, 4.4), xlabel="steps t", ylabel="risk of descent / of ridge", title="their ratio")
    axes.legend(loc="upper right")


def _draw_filters(axes: Axes, filters: xr.Dataset) -> None:
    shown = [t for t in filters.time.values if t in (1, 10, 1000)] or list(filters.time.values[:3])
    for t, color in zip(shown, figures.COLORS, strict=False):
        x = t * filters.share
        axes.plot(x, filters.kept.sel(time=t), color=color, label=f"descent, t = {t}")
    x = np.geomspace(1e-3, 1e3, 200)
    axes.plot(x, x / (1.0 + x), color="black", linestyle=(0, (1, 1.2)), label="ridge")
    axes.set(xscale="log", xlim=(1e-2, 1e3), xlabel="2ηt × curvature s", ylabel="share of least squares' coefficient", title="filters")
    axes.legend(loc="lower right")
