"""Huber's delta is a bet on how much of the noise is contaminated: one delta has the least worst variance, and any other pays for it.

Claim
    Of noise of which a share epsilon may be anything symmetric, the worst for Huber's loss lies all beyond delta; the variance there is
    least at Huber's minimax k(epsilon), and no estimate has a smaller worst one.
Theory
    V = ((1 - e) (E psi^2 under N(0, 1)) + e delta^2) / ((1 - e) (2 Phi(delta) - 1))^2, least where 2 phi(k) / k - 2 Phi(-k) =
    e / (1 - e), found by halving, with V = 1 / ((1 - e) (2 Phi(k) - 1)) (Huber 1964). For e = 0 the delta is infinite, the mean square; for
    e near 1 it is 0, the absolute loss; 1.345, 95 % efficient under normal noise, is the best bet on e = 5.8 %.
Sweep
    Shares x deltas x data sets, each fitted by gradient descent, with outliers at 1,000 deviations on either side.
Expect
    Variances on the dashed curves, lowest at the stars.
Command
    gdjax experiment=huber_minimax
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.robust_losses import random_basis
from gdjax import analysis, figures, losses, models, statistics
from gdjax.records import Finding, InputError, Problem, several, whole

MULTIPLES = (0.3, 0.6, 1.0, 1.7, 3.0)
"""The deltas tried, in parts of the minimax one."""

FAR = 1e3
"""Where outliers are: beyond every delta, whatever the fit."""

DESCENT = {"learning_rate": 0.75, "num_steps": 25, "record_every": 25}
"""From the truth, in coordinates in which curvatures are 1, more or less."""


@dataclass(frozen=True)
class Contaminated:
    """Regressions by number: y = noise, a share of it far off, on features in coordinates z / stretch in which they are orthogonal."""

    shares: tuple[float, ...]  # by setting
    deltas: tuple[float, ...]
    num_examples: int
    num_features: int
    seed: int

    def basis(self) -> Float[np.ndarray, "n p"]:
        """A column of ones and standard normal features, made orthogonal."""
        return random_basis(self.num_examples, self.num_features, self.seed)

    def stretch(self) -> Float[np.ndarray, " settings"]:
        """The curvature in the limit is (1 - e) (2 Phi(delta) - 1), the share of examples within delta; this makes it 1."""
        within = [math.erf(delta / math.sqrt(2.0)) for delta in self.deltas]
        return 1.0 / np.sqrt((1.0 - np.array(self.shares)) * within)

    def __call__(self, setting: Any, data_set: Any) -> Problem:
        """Data sets are the same in all settings, but for which of their examples are outliers."""
        number = jnp.asarray(setting).astype(int)
        key = jax.random.fold_in(jax.random.key(self.seed), jnp.asarray(data_set).astype(int))
        good, side, place = jax.random.normal(key, (3, self.num_examples))
        outlier = jax.scipy.special.ndtr(place) < jnp.asarray(self.shares)[number]
        return Problem(
            evaluate=models.Linear(losses.huber, intercept=False),
            name="contaminated",
            data=(self.basis() * jnp.asarray(self.stretch())[number], jnp.where(outlier, FAR * jnp.sign(side), good)),
            constants={"delta": jnp.asarray(self.deltas)[number]},
            start=np.zeros(self.num_features + 1),
        )


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    shares: Sequence[float] | float = (0.05, 0.1, 0.2),
    num_data_sets: int = 1500,
    num_examples: int = 500,
    num_features: int = 3,
    seed: int = 0,
) -> xr.Dataset:
    """Fit data sets of each share of outliers with each delta.

    Parameters
    ----------
    shares
        epsilon, of the noise that is contaminated.
    """
    chosen = sorted(set(several("shares", shares)))
    if not all(0.0 < share <= 0.3 for share in chosen):
        raise InputError(f"shares={chosen} is not allowed: every one is above 0 and at most 0.3.")
    deltas = np.array([[multiple * statistics.minimax_delta(share) for multiple in MULTIPLES] for share in chosen])
    build = Contaminated(
        tuple(np.repeat(chosen, len(MULTIPLES)).tolist()),
        tuple(deltas.ravel().tolist()),
        whole("num_examples", num_examples, least=50),
        whole("num_features", num_features),
        whole("seed", seed, least=0),
    )
    number = whole("num_data_sets", num_data_sets, least=20)
    ended = sweep(build, sampler="full", setting=range(deltas.size), data_set=range(number), **DESCENT)
    squares = np.square(ended.params).sum("parameter").values * build.stretch()[:, None] ** 2
    excess = build.num_examples * squares / (build.num_features + 1)
    return xr.Dataset(
        {
            "variance": (("share", "multiple", "data_set"), excess.reshape(*deltas.shape, number)),
            "delta": (("share", "multiple"), deltas),
            "gradient_norm": ("setting", ended.gradient_norm[..., -1].max("data_set").values),
        },
        {"share": chosen, "multiple": list(MULTIPLES)},
        {"num_examples": build.num_examples, "num_features": build.num_features, "precision": ended.attrs["precision"]},
    )


def check(results: xr.Dataset) -> list[Finding]:
    """Compare variances with the worst ones there are, and the best delta with the minimax one."""
    findings = [finding for share in results.share.values for finding in _share_findings(results.sel(share=share))]
    return [
        *findings,
        Finding(
            claim="largest gradient left in any data set (absolute tolerance; a standard error is n^-1/2)",
            predicted=0.0,
            measured=float(results.gradient_norm.max()),
            tolerance=1e-3 if results.attrs["precision"] == "float64" else 1e-2,
            source="a minimum",
            kind="at_most",
        ),
    ]


def _share_findings(one: xr.Dataset) -> list[Finding]:
    share, source = float(one.share), "Huber 1964"
    best = one.variance.sel(multiple=1.0)
    least = statistics.largest_variance(float(one.delta.sel(multiple=1.0)), share)
    ratios = []
    for multiple in one.multiple.values:
        value, error = analysis.ratio(one.variance.sel(multiple=multiple), best, "data_set")
        said = statistics.largest_variance(float(one.delta.sel(multiple=multiple)), share) / least
        ratios.append((float(value) / said - 1.0, said, float(value), float(error)))
    _, said, value, error = max(ratios, key=lambda one: abs(one[0]))
    means = one.variance.mean("data_set").values
    return [
        Finding(
            claim=f"{share:.3g} contaminated, delta = k = {float(one.delta.sel(multiple=1.0)):.4f}: variance (4 standard errors)",
            predicted=least,
            measured=float(best.mean()),
            tolerance=4.0 * float(analysis.standard_error(best, "data_set") / best.mean()),
            source=f"1 / ((1 - e) (2 Phi(k) - 1)), {source}",
        ),
        Finding(
            claim=f"{share:.3g} contaminated: variance over that, of the delta that is farthest off (4 % and 4 standard errors)",
            predicted=said,
            measured=value,
            tolerance=0.04 + 4.0 * error,
            source=f"the largest V of a delta, {source}",
        ),
        Finding(
            claim=f"{share:.3g} contaminated: the delta of {len(MULTIPLES)} with the least variance, over k",
            predicted=1.0,
            measured=float(one.multiple[means.argmin()]),
            tolerance=0.0,
            source=f"2 phi(k) / k - 2 Phi(-k) = e / (1 - e), {source}",
        ),
    ]


@figures.paper
def draw(results: xr.Dataset) -> dict[str, Figure]:
    """The variance over delta for each share; the minimax delta and variance over the share."""
    drawn, panels = figures.figure(2, width=7.0, height=3.0, width_ratios=(1.4, 1.0))
    _draw_variances(panels[0, 0], results)
    _draw_minimax(panels[0, 1], results)
    figures.source(
        drawn,
        f"{results.sizes['data_set']} data sets of n = {results.attrs['num_examples']}, p = {results.attrs['num_features']}, noise N(0, 1) "
        f"but for the share ε at ±{FAR:,g}, each fitted by gradient descent; bars: 4 standard errors.\nDashed: the largest variance that "
        "symmetric contamination gives a δ; stars: its least, by root finding (Huber 1964).",
    )
    return {"huber_minimax": drawn}


def _draw_variances(axes: Axes, results: xr.Dataset) -> None:
    fine = np.geomspace(0.8 * float(results.delta.min()), 1.2 * float(results.delta.max()), 200)
    for share, color in zip(results.share.values, figures.COLORS, strict=False):
        one = results.sel(share=share)
        axes.plot(fine, [statistics.largest_variance(delta, share) for delta in fine], color="black", linestyle=(0, (3, 2)), linewidth=0.9)
        means, errors = one.variance.mean("data_set"), 4.0 * analysis.standard_error(one.variance, "data_set")
        axes.errorbar(one.delta, means, errors, fmt="o", color=color, markersize=3.5, linewidth=1.0, label=f"ε = {share:.3g}")
        best = statistics.minimax_delta(share)
        axes.plot(best, statistics.largest_variance(best, share), "*", color="black", markersize=7, zorder=4)
    axes.set(xscale="log", yscale="log", xlabel="δ / σ", ylabel="variance V", title="outliers far off")
    top = 1.3 * float(results.variance.mean("data_set").max())
    axes.set_ylim(1.0, top)
    for axis, ticks in ((axes.xaxis, (0.3, 0.5, 1.0, 2.0, 4.0)), (axes.yaxis, (1.0, 1.5, 2.0, 3.0, 4.0, 6.0))):
        axis.set_ticks([tick for tick in ticks if axis is axes.xaxis or tick < top], minor=False)
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper center")


def _draw_minimax(axes: Axes, results: xr.Dataset) -> None:
    fine = np.geomspace(0.001, 0.4, 100)
    best = np.array([statistics.minimax_delta(share) for share in fine])
    axes.plot(fine, best, color=figures.COLORS[4], linewidth=1.6, label="minimax δ / σ")
    axes.plot(
        fine,
        [statistics.largest_variance(delta, share) for delta, share in zip(best, fine, strict=True)],
        color="black",
        linestyle=(0, (3, 2)),
        linewidth=0.9,
        label="its largest variance",
    )
    for share, color in zip(results.share.values, figures.COLORS, strict=False):
        measured = results.variance.sel(share=share, multiple=1.0)
        axes.errorbar(share, measured.mean(), 4.0 * analysis.standard_error(measured, "data_set"), fmt="o", color=color, markersize=3.5)
    axes.axhline(1.345, color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate("1.345", (fine[0], 1.345), fontsize=6.5, color="0.4", va="bottom")
    axes.set(xscale="log", xlabel="share contaminated ε", title="by share", ylim=(0.0, 4.0))
    axes.legend(loc="upper center")
