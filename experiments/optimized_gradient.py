"""The optimized gradient method is the best that N steps can do on smooth convex functions: half of what Nesterov's method leaves.

Claim
    After N steps f(x_N) - f* <= L R^2 / (2 theta_N^2), attained on a quadratic and on a Huber function; Nesterov's method (FISTA) leaves
    twice as much on its worst function, gradient descent N / 2 times.
Theory
    theta_0 = 1, theta_{t+1} = (1 + sqrt(1 + 4 theta_t^2)) / 2, but 8 for 4 in the last step, so that theta_N is about N / sqrt(2) (Kim and
    Fessler 2016; the constant is optimal, Drori 2017). On L x^2 / 2 the steps end at |x_N| = R / theta_N; on the Huber function that is
    linear beyond R / theta_N^2 they arrive at its kink. FISTA has 2 L R^2 / (t + 1)^2 (Beck and Teboulle 2009).
Sweep
    Huber functions by threshold (beyond the start: a quadratic) x horizons N x steps, L = R = 1; the same by FISTA and gradient descent.
Expect
    For every N two thresholds that touch the bound and none above it; the worst case of FISTA nears twice that.
Command
    gdjax experiment=optimized_gradient
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import figures, losses, models
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import acceleration, worst_cases

TIGHT = {"float64": 1e-10, "float32": 1e-4}
"""How near to a bound that is attained a run comes, by precision."""


def huber_line(threshold: Any) -> Problem:
    """x^2 / 2 up to the threshold and linear beyond, started at 1: R = L = 1, and a quadratic where the threshold is 1 or more."""
    return Problem(
        evaluate=models.Linear(losses.huber, intercept=False),
        name="huber_line",
        data=(np.ones((1, 1)), np.zeros(1)),
        constants={"delta": threshold},
        start=np.ones(1),
        minimizer=np.zeros(1),
        minimum=0.0,
        smoothness=1.0,
    )


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    horizons: Sequence[int] | int = (1, 2, 5, 10, 20, 50, 100),
    num_thresholds: int = 200,
) -> xr.DataTree:
    """Run each horizon's method, FISTA and gradient descent on Huber functions of many thresholds, each horizon's worst among them."""
    chosen = [whole("horizons", horizon) for horizon in several("horizons", horizons)]
    if max(chosen) > 10_000:
        raise InputError(f"horizons={max(chosen)} is not allowed: 10,000 steps at most.")
    worst = worst_cases.ogm_threshold(np.array(chosen))
    grid = np.geomspace(0.3 * worst.min(), 1.0, whole("num_thresholds", num_thresholds, least=2))
    settings: dict[str, Any] = {"sampler": "full", "num_steps": max(chosen), "record_every": 1, "learning_rate": 1.0}
    thresholds = np.unique([*grid, *worst, 1.0])
    return xr.DataTree.from_dict(
        {
            method: sweep(huber_line, method=method, threshold=thresholds, **numbers, **settings)
            for method, numbers in {"ogm": {"horizon": sorted(set(chosen))}, "fista": {}, "sgd": {}}.items()
        }
    )


def check(results: xr.DataTree) -> list[Finding]:
    """Compare the worst cases with the bounds."""
    optimized, fista = _at_horizon(results["ogm"].to_dataset()), results["fista"].to_dataset()
    bound = worst_cases.ogm_bound(optimized.horizon.values)
    slack = TIGHT[results["ogm"].attrs["precision"]]
    worst = [float(optimized.sel(horizon=N, threshold=at, method="nearest")) for N, at in _worst(optimized)]
    steps, last = fista.step.values[1:], int(optimized.horizon[-1])
    source = "Kim and Fessler 2016, Thm 2; optimal, Drori 2017"
    return [
        _tight("a quadratic", optimized.sel(threshold=1.0).values / bound, slack, source),
        _tight("the Huber function linear beyond R / theta_N^2", np.array(worst) / bound, slack, source),
        _never("of all Huber functions and horizons", (optimized.transpose("threshold", "horizon") / bound).max(), slack, source),
        _never(
            "FISTA, all Huber functions and steps",
            (fista.suboptimality.transpose("threshold", "step")[:, 1:] / acceleration.fista_bound(1.0, 1.0, steps)).max(),
            slack,
            "L R^2 / (2 theta_{t-1}^2), Beck and Teboulle 2009",
        ),
        Finding(
            claim=f"what FISTA leaves on its worst of these, over what the optimized method does on its own, N = {last} (tolerance 1 / N)",
            predicted=2.0,
            measured=float(fista.suboptimality.sel(step=last).max() / optimized.sel(horizon=last).max()),
            tolerance=1.0 / last,
            source="2 L R^2 / (N + 1)^2 against about L R^2 / N^2, Kim and Fessler 2016",
        ),
    ]


def _at_horizon(optimized: xr.Dataset) -> xr.DataArray:
    """f(x_N) - f* of each horizon N."""
    return optimized.suboptimality.sel(step=optimized.horizon.astype(int))


def _worst(optimized: xr.DataArray) -> list[tuple[float, float]]:
    horizons = optimized.horizon.values
    return list(zip(horizons, worst_cases.ogm_threshold(horizons.astype(int)), strict=True))


def _tight(function: str, ratios: np.ndarray, slack: float, source: str) -> Finding:
    farthest = float(ratios[np.abs(ratios - 1.0).argmax()])
    claim = f"optimized method on {function}: f(x_N) - f* over L R^2 / (2 theta_N^2), the horizon farthest from 1"
    return Finding(claim=claim, predicted=1.0, measured=farthest, tolerance=slack, source=source)


def _never(said: str, ratio: Any, slack: float, source: str) -> Finding:
    claim = f"{said}: largest f - f* over its bound"
    return Finding(claim=claim, predicted=1.0, measured=float(ratio), tolerance=slack, source=source, kind="at_most")


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Worst cases against the number of steps; what each horizon leaves against the threshold."""
    drawn, panels = figures.figure(2, width=7.0, height=3.0)
    _draw_worst(panels[0, 0], results)
    _draw_thresholds(panels[0, 1], _at_horizon(results["ogm"].to_dataset()))
    figures.source(
        drawn,
        f"L = R = 1; {results['ogm'].sizes['threshold']} Huber functions, by the threshold beyond which they are linear (1: a quadratic "
        "all the way). Dashed: L R²/(2θ²$_N$)\n(Kim and Fessler 2016) and L R²/(2θ²$_{t-1}$) (Beck and Teboulle 2009). "
        "Right, dotted: the thresholds 1/θ²$_N$.",
    )
    return {"optimized_gradient": drawn}


def _draw_worst(axes: Axes, results: xr.DataTree) -> None:
    optimized = _at_horizon(results["ogm"].to_dataset())
    every = np.arange(1, int(optimized.horizon[-1]) + 1)
    for method, color, label in (("sgd", 4, "gradient descent"), ("fista", 1, "FISTA")):
        worst = results[method].suboptimality.max("threshold")
        axes.plot(every, worst.sel(step=every), color=figures.COLORS[color], linewidth=2.0, label=label)
    axes.plot(optimized.horizon, optimized.max("threshold"), "o", color=figures.COLORS[0], markersize=4, label="optimized, N = t")
    bounds = (0.5 * float(optimized.min()), 1.0)
    figures.dashed(axes, every, acceleration.fista_bound(1.0, 1.0, every), bounds=bounds)
    figures.dashed(axes, every, worst_cases.ogm_bound(every), bounds=bounds, label="theory")
    axes.set(xscale="log", yscale="log", xlabel="steps t", ylabel="largest suboptimality / (L R²)", title="worst Huber function")
    axes.legend(loc="lower left")


def _draw_thresholds(axes: Axes, optimized: xr.DataArray) -> None:
    shown = optimized.horizon.values[::-2][:3][::-1]
    for horizon, color in zip(shown, figures.COLORS, strict=False):
        ratio = optimized.sel(horizon=horizon) / worst_cases.ogm_bound(int(horizon))
        axes.plot(optimized.threshold, ratio, color=color, linewidth=1.3, label=f"N = {horizon:g}")
        axes.axvline(float(worst_cases.ogm_threshold(int(horizon))), color=color, linewidth=0.8, linestyle=":")
    axes.axhline(1.0, color="black", linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set(xscale="log", ylim=(0.0, 1.3), xlabel="threshold of the Huber function / R", ylabel="suboptimality at N / bound")
    axes.set_title("optimized method: two functions touch the bound")
    axes.legend(loc="upper center", ncols=3)
