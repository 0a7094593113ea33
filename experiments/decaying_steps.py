"""Steps c/t fall as 1/t only when c is large enough: a little too small, and the rate is as slow as one likes.

Claim
    With independent noise and rates c/t, t E x_t^2 has a limit iff 2 c mu > 1; below, the error falls only as t^(-2 c mu). The best
    constant is c = 1 / mu, where E x_t^2 = sigma^2 / (mu^2 t) exactly; an underestimate costs the power, an overestimate a factor.
Theory
    v_t = (1 - c/t)^2 v_{t-1} + (c/t)^2 sigma^2: t v_t -> c^2 sigma^2 / (2c - 1) for 2c > 1, t v_t ~ c^2 sigma^2 ln t at 2c = 1, and
    t^(-2c) below (Chung 1954; Bottou, Curtis and Nocedal 2018, Thm 4.7). Without noise x_t = Gamma(t + 1 - ch) / (Gamma(1 - ch) t!).
    The page's table says "O(1/t) with decay" of code whose rate is constant.
Sweep
    c x seeds, paired: all c see the same noise. Each run carries several chains on orthogonal columns of signs, uncorrelated also in
    their squares. And f = x^2/10 without noise, c = 1, the caricature of Nemirovski et al. 2009.
Expect
    Dots on dashed exact curves: t E x_t^2 level for c = 1 and 2, a straight rise at c = 1/2 and a power of t at 0.3.
Command
    gdjax experiment=decaying_steps
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, noisy, problems
from gdjax.records import Finding, InputError, several, whole
from gdjax.theory import decaying

COLUMNS = 64
"""Examples of the noise, whose orthogonal columns of signs are one chain fewer a run."""

CURVATURE = 0.2
"""Of the caricature f = x^2/10."""


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 4000,
    learning_rate: Sequence[float] | float = (0.3, 0.5, 1.0, 2.0),
    num_seeds: int = 5000,
    num_noiseless: int = 100_000,
) -> xr.DataTree:
    """Sweep the constants of the rates c/t with noise, and the caricature without.

    Parameters
    ----------
    learning_rate
        c, of which 2c above, at and below 1 are different laws.
    num_seeds
        Independent runs, of 63 chains each.
    num_noiseless
        Steps of the caricature.
    """
    rates = several("learning_rate", learning_rate)
    if min(rates) <= 0:
        raise InputError(f"learning_rate={min(rates)} is not allowed: this experiment needs constants above 0.")
    signs = noisy.orthogonal_signs(COLUMNS)
    problem = noisy.separable(np.ones_like(signs), signs, start=np.ones(COLUMNS - 1))
    steps, noiseless = whole("num_steps", num_steps, least=100), whole("num_noiseless", num_noiseless, least=100)
    measured = sweep(
        problem,
        method="robbins_monro",
        sampler="with_replacement",
        num_steps=steps,
        record_every=max(1, steps // 100),
        batch_size=1,
        seed=range(whole("num_seeds", num_seeds, least=2)),
        learning_rate=rates,
    )
    caricature = sweep(
        problems.designed_spectrum(np.array([CURVATURE])),
        method="robbins_monro",
        sampler="full",
        num_steps=noiseless,
        learning_rate=1.0,
    )
    square = 2.0 * measured.suboptimality / (COLUMNS - 1)
    mean = analysis.over_seeds(square).assign_attrs(measured.attrs | {"num_seeds": measured.sizes["seed"]})
    left = np.sqrt(2.0 * caricature.suboptimality / CURVATURE).rename("left").to_dataset().assign_attrs(caricature.attrs)
    return xr.DataTree.from_dict({"noisy": mean.assign(late=_late(square)), "noiseless": left})


def _late(square: xr.DataArray) -> xr.DataArray:
    """The mean of t x_t^2 over the last decade of t, evenly in ln t, of each run."""
    decade = square.sel(step=slice(square.step[-1] / 10, None))
    return (square.step * decade).weighted(1.0 / decade.step).mean("step")


def check(results: xr.DataTree) -> list[Finding]:
    """The mean square follows its recursion; its limits and powers are the theorem's."""
    measured, left = results["noisy"].to_dataset(), results["noiseless"].to_dataset()
    exact = _exact(measured)
    findings = [_follows(measured.sel(learning_rate=c), exact.sel(learning_rate=c)) for c in measured.learning_rate.values]
    for c in measured.learning_rate.values:
        one, law = measured.sel(learning_rate=c), exact.sel(learning_rate=c)
        findings += [_limit(one, law)] if 2 * c > 1 else [_power(one, law)] if 2 * c < 1 else [_rise(one, law)]
    steps = left.step.values
    wanted = decaying.inverse_time_noiseless(CURVATURE, steps)
    return [
        *findings,
        Finding(
            claim=f"f = x²/10 without noise, rates 1/t, {steps[-1]:,} steps: largest relative deviation of any x (absolute)",
            predicted=0.0,
            measured=float(np.max(np.abs(left.left.values / wanted - 1.0))),
            tolerance=1e-8 if left.attrs["precision"] == "float64" else 1e-2,
            source="Gamma(t + 4/5) / (Gamma(4/5) Gamma(t + 1)); Nemirovski et al. 2009, section 2.1 (unconfirmed)",
            kind="at_most",
        ),
        Finding(
            claim="f = x²/10 without noise, rates 1/t: the power of t in the last decade of steps",
            predicted=-CURVATURE,
            measured=_slope(left.left),
            tolerance=0.02,
            source="x_t ~ t^(-c h) / Gamma(1 - c h): at this rate x = 0.0136 after 10^9 steps",
        ),
    ]


def _exact(measured: xr.Dataset) -> xr.DataArray:
    squares = decaying.inverse_time_square(measured.learning_rate.values, int(measured.step[-1]))
    return xr.zeros_like(measured["mean"]) + xr.DataArray(squares[:, measured.step.values], dims=("learning_rate", "step"))


def _follows(one: xr.Dataset, exact: xr.DataArray) -> Finding:
    return Finding(
        claim=f"c = {float(one.learning_rate):g}: largest deviation of E x² from its recursion at any record, in standard errors",
        predicted=4.0,
        measured=analysis.furthest(one, exact),
        tolerance=0.0,
        source="v+ = (1 - c/t)^2 v + (c/t)^2 sigma^2",
        kind="at_most",
    )


def _limit(one: xr.Dataset, exact: xr.DataArray) -> Finding:
    c, late = float(one.learning_rate), one.late
    return Finding(
        claim=f"c = {c:g}: t E x² over the last decade of t (s.e. {float(analysis.standard_error(late, 'seed') / late.mean()):.2%})",
        predicted=float(decaying.inverse_time_limit(c)),
        measured=float(late.mean("seed")),
        tolerance=max(0.01, 4.0 * float(analysis.standard_error(late, "seed") / late.mean())),
        source="c^2 sigma^2 / (2c - 1), Chung 1954",
    )


def _power(one: xr.Dataset, exact: xr.DataArray) -> Finding:
    c, law, there = float(one.learning_rate), float(decaying.inverse_time_exponent(one.learning_rate)), _slope(exact)
    arrived = abs(there / law - 1.0) < 0.015
    return Finding(
        claim=f"c = {c:g}, too small: the power of t in the last decade of E x² ({law:g} in the end, exactly {there:.4f} there)",
        predicted=law if arrived else there,
        measured=_slope(one["mean"]),
        tolerance=0.02,
        source="t^(-2c) for 2c < 1, Chung 1954",
    )


def _rise(one: xr.Dataset, exact: xr.DataArray) -> Finding:
    c, late = float(one.learning_rate), _late(exact)
    return Finding(
        claim=f"c = {c:g}, 2c = 1: t E x² over the last decade of t, which has no limit: it rises by c²σ² in each factor e of t",
        predicted=float(late),
        measured=float(one.late.mean("seed")),
        tolerance=max(0.01, 4.0 * float(analysis.standard_error(one.late, "seed") / one.late.mean())),
        source="t v_t = c^2 sigma^2 ln t + const, Chung 1954",
    )


def _slope(values: xr.DataArray) -> float:
    """The power of t between a tenth of the last step and the last."""
    early = values.sel(step=values.step[-1] / 10, method="nearest")
    late = values.isel(step=-1)
    return float(np.log(late / early) / np.log(late.step / early.step))


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """t E x^2 by c; the constant's cost; the caricature."""
    measured = results["noisy"].to_dataset()
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_squares(panels[0, 0], measured)
    _draw_cost(panels[0, 1], measured)
    _draw_caricature(panels[0, 2], results["noiseless"].to_dataset())
    figures.source(
        drawn,
        f"h = σ = x₀ = 1; {measured.attrs['num_seeds']:,} seeds x {COLUMNS - 1} chains: 4 standard errors are less than a dot. "
        "Dashed: exact recursion (left),\nc²/(2c − 1) (middle), Γ(t + 4/5)/(Γ(4/5) Γ(t + 1)) (right).",
    )
    return {"decaying_steps": drawn}


def _draw_squares(axes: Axes, measured: xr.Dataset) -> None:
    exact, steps = _exact(measured), measured.step.values
    shown = np.unique(np.searchsorted(steps, np.geomspace(steps[1], steps[-1], 14)))
    for c, color in zip(measured.learning_rate.values, figures.COLORS, strict=False):
        one = measured.isel(step=shown).sel(learning_rate=c)
        axes.plot(one.step, one.step * one["mean"], "o", markersize=3, color=color, label=f"c = {c:g}")
        curve = decaying.inverse_time_square(float(c), int(steps[-1]))[0, 1:]
        times = np.arange(1, steps[-1] + 1)
        figures.dashed(axes, times, times * curve, bounds=(1e-3, 1e6), color=color)
    low, high = float((measured.step * exact).isel(step=slice(1, None)).min()), float((measured.step * exact).max())
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="t E x$_t$²", ylim=(0.5 * low, 3 * high))
    axes.set_title("with noise, rates c/t")
    axes.legend(loc="upper left")


def _draw_cost(axes: Axes, measured: xr.Dataset) -> None:
    """E x^2 at the last step against c: cheap to overestimate, dear to underestimate."""
    last, steps = measured.isel(step=-1), int(measured.step[-1])
    constants = np.geomspace(0.1, 5.0, 400)
    for count, color in ((steps // 100, "0.7"), (steps // 10, "0.5"), (steps, figures.COLORS[0])):
        squares = decaying.inverse_time_square(constants, count)[:, -1]
        axes.plot(constants, count * squares, color=color, label=f"t = {count:,}")
    axes.plot(last.learning_rate, steps * last["mean"], "o", color=figures.COLORS[1], markersize=4, zorder=4, label="measured")
    past = constants[constants > 0.505]
    figures.dashed(axes, past, decaying.inverse_time_limit(past), bounds=(1e-3, 1e3), label="limit")
    figures.edge_line(axes, 0.5, "2c = 1", height=0.6)
    axes.set(
        xscale="log", yscale="log", xlabel="constant c  (1/μ = 1)", ylabel="t E x$_t$²", ylim=(0.7, 300), title="the price of a wrong c"
    )
    axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    axes.legend(loc="upper right")


def _draw_caricature(axes: Axes, left: xr.Dataset) -> None:
    steps = left.step.values[1:]
    axes.plot(steps, left.left.values[1:], color=figures.COLORS[0], linewidth=2.2, label="measured")
    times = np.geomspace(1, 1e9, 200)
    figures.dashed(axes, times, decaying.inverse_time_noiseless(CURVATURE, times), bounds=(1e-9, 1), label="exact")
    end = float(decaying.inverse_time_noiseless(CURVATURE, 1e9 - 1))
    axes.plot(1e9, end, "o", color=figures.COLORS[1], markersize=4, label=f"10⁹ steps: {end:.4f}")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="x$_t$ / x$_0$", title="f = x²/10, no noise, rates 1/t")
    axes.set_xticks([1, 1e3, 1e6, 1e9])
    axes.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    axes.minorticks_off()
    axes.legend(loc="lower left")
