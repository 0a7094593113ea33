"""A sweep beside what theory says of it: findings, for each kind of prediction.

`JUDGES` has a function for each `kind` of `gdjax.predictions`: (the sweep, predicted values, what is predicted, its source) -> findings.
Predicted values have some of the sweep's dimensions and are NaN where nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from gdjax.analysis.rates import ROUND_OFF, fit_rate
from gdjax.records import Finding

FEWEST_SEEDS = 16
"""Means over fewer seeds have no standard error to speak of."""

CHANCE = 1e-4
"""How often chance alone may make a true mean's finding fail."""

FLOOR_SHARE = 0.2
"""How far from a floor of first order in the noise, relative to it, levels may be."""

FEWEST_EPOCHS = 12
"""Ends of epochs, below which none is seen to stall."""

LOCAL = 1e-4
"""A rate that holds near the minimizer is looked for below this part of the start."""


def deviation(measured: np.ndarray, exact: np.ndarray, precision: str) -> float:
    """The largest relative deviation from an exact curve (steps last), over all that is finite and above round-off."""
    with np.errstate(invalid="ignore"):
        compared = np.isfinite(exact) & np.isfinite(measured) & (exact > ROUND_OFF[precision][0] * exact[..., :1])
    return float(np.max(np.abs(measured[compared] / exact[compared] - 1.0)))


def follows(dataset: xr.Dataset, exact: xr.DataArray, what: str, source: str) -> list[Finding]:
    """Every curve is the exact one, as far as round-off lets it be seen."""
    measured, predicted = _side_by_side(dataset, exact)
    precision = dataset.attrs["precision"]
    return [
        Finding(
            claim=f"largest relative deviation of any curve from the {what} (absolute tolerance)",
            predicted=0.0,
            measured=deviation(measured, predicted, precision),
            tolerance=ROUND_OFF[precision][1],
            source=source,
            kind="at_most",
        )
    ]


def averages_to(dataset: xr.Dataset, mean: xr.DataArray, what: str, source: str) -> list[Finding]:
    """The mean over seeds and a run's last half is the exact one, within what chance allows.

    Nothing is said of a few seeds, nor of runs that a rule may stop.
    """
    if dataset.sizes.get("seed", 1) < FEWEST_SEEDS or "stopped_at" in dataset:
        return []
    epoch = dataset.epoch
    late = (epoch >= 0.5 * epoch.max("step")) & (epoch.shift(step=1, fill_value=-1.0) < epoch.max("step"))  # of the run's own steps
    count = late.sum("step")
    own, expected = (xr.where(late, values, 0.0).sum("step", skipna=False) / count for values in (dataset.suboptimality, mean))
    off = np.abs(own.mean("seed", skipna=False) - expected)
    apart = off / (own.std("seed", ddof=1) / np.sqrt(own.sizes["seed"]) + ROUND_OFF[dataset.attrs["precision"]][1] * own.mean("seed"))
    compared = int(np.isfinite(apart).sum())
    return [
        Finding(
            claim=f"the {what}: largest distance of a mean over {own.sizes['seed']} seeds and the last half, in standard errors",
            predicted=float(-stdtrit(own.sizes["seed"] - 1, 0.5 * CHANCE / compared)),
            measured=float(apart.max()),
            tolerance=0.0,
            source=f"{source}; {compared} compared, and chance is further off in {CHANCE:g} of all sweeps",
            kind="at_most",
        )
    ] if compared else []  # fmt: skip


def stalls_at(dataset: xr.Dataset, floor: xr.DataArray, what: str, source: str) -> list[Finding]:
    """Mean curves that are seen to stall do so at the predicted level, within a fifth of it and what chance allows.

    Nothing is said of a few seeds, nor of runs that a rule may stop.
    """
    if dataset.sizes.get("seed", 1) < FEWEST_SEEDS or "stopped_at" in dataset:
        return []
    parts = [dataset] if "batch_size" not in dataset.dims else [dataset.sel(batch_size=batch) for batch in dataset.batch_size.values]
    beyond = [_beyond_floor(part, floor.sel(batch_size=part.batch_size) if len(parts) > 1 else floor) for part in parts]
    compared = [distance for distance in beyond if np.isfinite(distance)]
    return [
        Finding(
            claim=f"the {what}: largest relative distance of a level where the mean of {dataset.sizes['seed']} seeds stalls, beyond chance",
            predicted=FLOOR_SHARE,
            measured=max(compared),
            tolerance=0.0,
            source=source,
            kind="at_most",
        )
    ] if compared else []  # fmt: skip


def _beyond_floor(dataset: xr.Dataset, floor: xr.DataArray) -> float:
    """How far mean levels are from their floors, relative to them, less what chance allows; NaN where nothing is seen to stall."""
    ended = dataset.suboptimality.isel(step=_ends_of_epochs(dataset))
    if ended.sizes["step"] < FEWEST_EPOCHS:
        return np.nan
    stalled = np.isfinite(fit_rate(ended.mean("seed")).floor)
    tail = ended.isel(step=slice(-(-3 * ended.sizes["step"] // 4), None)).mean("step")
    own, error = tail.mean("seed"), tail.std("seed", ddof=1) / np.sqrt(tail.sizes["seed"])
    compared = (floor > 0) & stalled & np.isfinite(own)
    chance = -stdtrit(tail.sizes["seed"] - 1, 0.5 * CHANCE / max(1, int(compared.sum())))
    return float((np.abs(own / floor - 1.0) - chance * error / floor).where(compared).max())


def _ends_of_epochs(dataset: xr.Dataset) -> np.ndarray:
    """Records at which an epoch has just ended; all, where examples are drawn anew each step. The run's own steps alone."""
    if "epoch" not in dataset.coords or dataset.epoch.ndim != 1:
        return np.arange(dataset.sizes["step"])
    epoch = dataset.epoch.values
    taken = np.arange(len(epoch)) <= np.argmax(epoch >= epoch[-1])
    whole = np.abs(epoch - np.round(epoch)) < 1e-9 if dataset.attrs["sampler"] == "reshuffled" else True
    return np.flatnonzero(taken & whole)


def stays_under(dataset: xr.Dataset, bound: xr.DataArray, what: str, source: str) -> list[Finding]:
    """No curve is above its bound, down to where round-off begins."""
    measured, predicted = _side_by_side(dataset, bound)
    with np.errstate(invalid="ignore"):
        compared = np.isfinite(measured) & (predicted > ROUND_OFF[dataset.attrs["precision"]][0] * measured[..., :1])
    if not compared.any():
        return []
    return [
        Finding(
            claim=f"largest ratio of any curve to its {what}",
            predicted=1.0,
            measured=float(np.max(measured[compared] / predicted[compared])),
            tolerance=ROUND_OFF[dataset.attrs["precision"]][1],
            source=source,
            kind="at_most",
        )
    ]


def ends_as_steep(dataset: xr.Dataset, slope: xr.DataArray, what: str, source: str) -> list[Finding]:
    """Fitted factors a step are the predicted one within their intervals, of curves that are seen near the minimizer."""
    values = _own_steps(dataset)
    fit = fit_rate(values.assign_attrs(dataset.attrs))
    begun = values.sel(step=fit.first_step.fillna(0.0), method="nearest")
    usable = (fit.status == "linear") & (begun < LOCAL * values.isel(step=0))
    length = float(slope.step[-1] - slope.step[0])
    factor = (slope.isel(step=-1) / slope.isel(step=0)) ** (0.5 / length)
    middle, half = 0.5 * (fit.contraction_low + fit.contraction_high), 0.5 * (fit.contraction_high - fit.contraction_low)
    apart = (np.abs(middle - factor) / half).where(usable)
    if not bool(np.isfinite(apart).any()):
        return []
    return [
        Finding(
            claim=f"{what}: largest distance of a fitted factor a step from its square root, in halves of its interval",
            predicted=1.0,
            measured=float(apart.max()),
            tolerance=0.0,
            source=source,
            kind="at_most",
        )
    ]


def stays_below(dataset: xr.Dataset, edge: xr.DataArray, what: str, source: str) -> list[Finding]:
    """No run with a rate below the stability edge diverges; nothing is said where none does."""
    relative = (dataset.learning_rate / edge).where(dataset.diverged_at >= 0)
    if not bool(np.isfinite(relative).any()):
        return []
    return [
        Finding(
            claim=f"lowest rate at which a run diverges, in units of the stability edge {what}",
            predicted=1.0,
            measured=float(relative.min()),
            tolerance=1e-9,
            source=source,
            kind="at_least",
        )
    ]


def _side_by_side(dataset: xr.Dataset, predicted: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Measured and predicted suboptimality with all dimensions, steps last; NaN after a rule has stopped a run."""
    whole = _own_steps(dataset).reset_coords(drop=True).transpose(..., "step")
    return whole.values, predicted.reset_coords(drop=True).broadcast_like(whole).transpose(*whole.dims).values


def _own_steps(dataset: xr.Dataset) -> xr.DataArray:
    """The suboptimality, NaN after a rule has stopped a run."""
    values = dataset.suboptimality
    if "stopped_at" not in dataset:
        return values
    return values.where((dataset.stopped_at < 0) | (values.step <= dataset.stopped_at)).transpose(*values.dims)


JUDGES: dict[str, Callable[[xr.Dataset, xr.DataArray, str, str], list[Finding]]] = {
    "equal": follows,
    "mean": averages_to,
    "floor": stalls_at,
    "at_most": stays_under,
    "slope": ends_as_steep,
}
