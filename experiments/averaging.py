"""The mean of all iterates falls as 1/n at a constant rate, where the last iterate stalls.

Claim
    SGD on fresh Gaussian inputs at a constant rate stalls at a floor; the mean of its iterates does not, and is never above the bound of
    Bach and Moulines. The lower the rate, the longer the mean remembers the start.
Theory
    E f(mean) - f* <= (1 / 2n) (sigma sqrt(d) / (1 - sqrt(gamma R^2)) + ||e_0|| / sqrt(gamma))^2 for gamma < 1 / R^2 (Bach and Moulines
    2013, Thm 1), R^2 = tr H + 2 lambda_max for Gaussian inputs. Exactly: the recursion of s_i = E e_i^2 and of E e_i(t) sum_j e_i(j).
    In the end it is (sigma^2 d + (d + 1) tr HS) / (2n), the start forgotten as 1/n^2.
Sweep
    Rates 1/2, 1/8 and 1/32 of 1/R^2 x seeds on inputs of d = 20 and lambda_k = 1/k, no input seen twice by a run; averaged and not.
Expect
    Lines on dashed exact curves, far below the dotted bounds, and the last iterates level on their floors.
Command
    gdjax experiment=averaging
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, noisy
from gdjax.records import Finding, InputError, several, whole
from gdjax.theory import streaming

SPECTRUM = 1.0 / np.arange(1, 21)
"""Of the inputs' covariance H."""

RADIUS = float(SPECTRUM.sum() + 2.0 * SPECTRUM.max())
"""R^2 = tr H + 2 lambda_max: E ||u||^2 u u' = H tr H + 2 H^2 <= R^2 H for Gaussian inputs."""

START = np.full(SPECTRUM.size, 0.3)
"""e_0: small enough that the highest rate has forgotten it in the end, and the others have not."""

COMPARED = 10
"""Records, evenly in ln n, at which curves are judged."""


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 100_000,
    relative_learning_rate: Sequence[float] | float = (0.5, 0.125, 0.03125),
    num_seeds: int = 300,
) -> xr.DataTree:
    """Sweep rates and seeds, reporting the mean of the iterates; and a quarter of the seeds reporting the last.

    Parameters
    ----------
    relative_learning_rate
        Rates in units of 1 / R^2, below 1.
    """
    relative = several("relative_learning_rate", relative_learning_rate)
    if not 0 < min(relative) <= max(relative) < 1:
        raise InputError(f"relative_learning_rate={relative} is not allowed: the bound is of rates above 0 and below 1 / R², which is 1.")
    steps, seeds = whole("num_steps", num_steps, least=100), whole("num_seeds", num_seeds, least=8)
    problem = noisy.gaussian_stream(SPECTRUM, start=START)
    parts = {}
    for method, count in (("averaged_sgd", seeds), ("sgd", seeds // 4)):
        measured = sweep(
            problem,
            method=method,
            sampler=noisy.once_through,
            num_steps=steps,
            record_every=max(1, steps // 1000),
            batch_size=1,
            seed=range(count),
            learning_rate=np.asarray(relative) / RADIUS,
        )
        late = measured.suboptimality.where(measured.step >= 0.5 * measured.step[-1], drop=True).mean("step")
        floor = analysis.over_seeds(late).rename({"mean": "floor", "error": "floor_error"})
        kept = analysis.over_seeds(measured.suboptimality).assign(floor).drop_vars("epoch")
        parts[method] = kept.assign_attrs(measured.attrs | {"num_seeds": count})
    return xr.DataTree.from_dict(parts)


def check(results: xr.DataTree) -> list[Finding]:
    """The mean of iterates against its exact curve, bound and power; the last iterate against its floor."""
    averaged, last = results["averaged_sgd"].to_dataset(), results["sgd"].to_dataset()
    exact, bound = _exact(averaged).average, _bound(averaged)
    findings = []
    for number, rate in enumerate(averaged.learning_rate.values):
        one = averaged.isel(learning_rate=number)
        name = f"rate {rate * RADIUS:g}/R²"
        findings += [
            Finding(
                claim=f"{name}: largest deviation of the mean of iterates from the exact curve, {COMPARED} times (standard errors)",
                predicted=4.0,
                measured=analysis.furthest(one.isel(step=_compared(one)), exact[number, _compared(one)]),
                tolerance=0.0,
                source="s_i+ = (1 - 2 γ λ_i + 2 γ² λ_i²) s_i + γ² λ_i (Σ λ_j s_j + σ²), and E e_i(t) Σ e_i(j)",
                kind="at_most",
            ),
            Finding(
                claim=f"{name}: largest ratio of the mean of iterates to the bound, at any record",
                predicted=1.0,
                measured=float((one["mean"] / bound[number]).max()),
                tolerance=0.0,
                source="(1 / 2n) (σ √d / (1 - √(γ R²)) + ||e_0|| / √γ)², Bach and Moulines 2013, Thm 1",
                kind="at_most",
            ),
        ]
    return [*findings, *_late_findings(averaged, exact), _floor_finding(last)]


def _late_findings(averaged: xr.Dataset, exact: np.ndarray) -> list[Finding]:
    """Of the highest rate, which has forgotten the start."""
    one, rate = averaged.isel(learning_rate=0), float(averaged.learning_rate[0])
    limit = float(streaming.averaging_asymptote(SPECTRUM, rate, 1.0))
    late = one.step.values >= one.step.values[-1] / 10
    remembered = float(abs(exact[0, -1] * (one.step.values[-1] + 1) / limit - 1.0))
    if remembered > 0.05:
        return []  # too few steps for what theory says of the end
    slope = np.polyfit(np.log(one.step.values[late] + 1.0), np.log(one["mean"].values[late]), 1, w=1.0 / np.sqrt(one.step.values[late]))[0]
    return [
        Finding(
            claim=f"rate {rate * RADIUS:g}/R²: the power of n in the last decade",
            predicted=-1.0,
            measured=float(slope),
            tolerance=0.03,
            source="Polyak and Juditsky 1992",
        ),
        Finding(
            claim=f"rate {rate * RADIUS:g}/R²: n E f(mean) - f* at the end over its limit, from which theory is {remembered:.1%} "
            "(and 4 standard errors)",
            predicted=1.0,
            measured=float(one["mean"][-1]) * (float(one.step[-1]) + 1.0) / limit,
            tolerance=remembered + 4.0 * float(one["error"][-1] / one["mean"][-1]),
            source="(σ² d + (d + 1) tr HS) / 2, tr HS = σ² U / (1 - U)",
        ),
    ]


def _floor_finding(last: xr.Dataset) -> Finding:
    rate, one = float(last.learning_rate[0]), last.isel(learning_rate=0)
    curve = _exact(last).last[0]
    expected = float(curve[last.step.values >= 0.5 * last.step.values[-1]].mean())
    return Finding(
        claim=f"rate {rate * RADIUS:g}/R²: the last iterate stalls; its mean over the last half (4 standard errors)",
        predicted=expected,
        measured=float(one.floor),
        tolerance=4.0 * float(one.floor_error) / expected,
        source="σ² U / (2 (1 - U)), Horowitz and Senne 1981, Feuer and Weinstein 1985",
    )


def _exact(measured: xr.Dataset) -> streaming.Streamed:
    curves = streaming.streamed_curves(SPECTRUM, START, measured.learning_rate.values, int(measured.step[-1]))
    return streaming.Streamed(*(part[:, measured.step.values] for part in curves))


def _bound(measured: xr.Dataset) -> np.ndarray:
    return streaming.averaging_bound(
        measured.learning_rate.values[:, None],
        measured.step.values + 1,
        dimension=SPECTRUM.size,
        radius=RADIUS,
        distance=float(np.linalg.norm(START)),
    )


def _compared(one: xr.Dataset) -> np.ndarray:
    steps = one.step.values
    return np.unique(np.searchsorted(steps, np.geomspace(steps[1], steps[-1], COMPARED)))


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Means and last iterates by rate; what n times the mean comes to, against the rate."""
    drawn, panels = figures.figure(2, width=7.2, height=3.3)
    averaged, last = results["averaged_sgd"].to_dataset(), results["sgd"].to_dataset()
    _draw_curves(panels[0, 0], averaged, last)
    _draw_rates(panels[0, 1], averaged)
    figures.source(
        drawn,
        f"d = 20, λ$_k$ = 1/k, σ = 1, e₀ = 0.3 in each direction; {averaged.attrs['num_seeds']} seeds (last iterates "
        f"{last.attrs['num_seeds']}). Dashed: exact theory. Left, dotted: the bound\nof Bach and Moulines; grey: the last iterate at the "
        "highest rate. Right: bars of 4 standard errors.",
    )
    return {"averaging": drawn}


def _draw_curves(axes: Axes, averaged: xr.Dataset, last: xr.Dataset) -> None:
    exact, bound, counts = _exact(averaged), _bound(averaged), averaged.step.values + 1.0
    axes.plot(counts, last["mean"].isel(learning_rate=0), color="0.6", linewidth=0.8, label="last iterate")
    figures.dashed(axes, counts, _exact(last).last[0], bounds=(1e-9, 1e9), color="0.25")
    for number, (rate, color) in enumerate(zip(averaged.learning_rate.values, figures.COLORS, strict=False)):
        axes.plot(
            counts, averaged["mean"].isel(learning_rate=number), color=color, linewidth=2.0, label=f"mean, γ = {rate * RADIUS:.3g}/R²"
        )
        figures.dashed(axes, counts, exact.average[number], bounds=(1e-9, 1e9))
        axes.plot(counts, bound[number], color=color, linestyle=":", linewidth=1.0)
    figures.dashed(axes, counts, 0.5 * SPECTRUM.size / counts, bounds=(1e-9, 1e9), color=figures.COLORS[4], label="σ²d/(2n)")
    low, high = 0.03 * SPECTRUM.size / counts[-1], 2.0 * float(bound[:, 1].max())
    axes.set(xscale="log", yscale="log", xlabel="iterates n", ylabel="E f − f*", ylim=(low, high), xlim=counts[[1, -1]])
    axes.set_title("the mean goes on where the last iterate stalls")
    axes.legend(loc="lower left")


def _draw_rates(axes: Axes, averaged: xr.Dataset) -> None:
    """n times the mean's suboptimality against the rate, at three times."""
    rates, steps = np.geomspace(0.004, 0.95, 60) / RADIUS, averaged.step.values
    picked = [steps[np.searchsorted(steps, steps[-1] / part)] for part in (100, 10, 1)]
    curves = streaming.streamed_curves(SPECTRUM, START, rates, int(steps[-1])).average
    for at, color in zip(picked, ("#56B4E9", "#0072B2", "#000000"), strict=True):
        one, count = averaged.sel(step=at), at + 1.0
        figures.dashed(axes, rates * RADIUS, count * curves[:, at], bounds=(1e-9, 1e9), color=color)
        dots: Any = {"fmt": "o", "markersize": 3.5, "color": color, "label": f"n = {count:,.0f}"}
        axes.errorbar(one.learning_rate * RADIUS, count * one["mean"], 4.0 * count * one["error"], **dots)
    limits = streaming.averaging_asymptote(SPECTRUM, rates, 1.0)
    axes.plot(rates * RADIUS, limits, color=figures.COLORS[1], linewidth=1.0, label="n → ∞")
    axes.set(xscale="log", yscale="log", xlabel="rate γ R²", ylabel="n (E f(mean) − f*)", ylim=(6, 700))
    axes.set_title("a low rate remembers the start for longer")
    axes.legend(loc="upper right")
