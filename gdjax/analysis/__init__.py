"""Numbers from a measured Dataset; every function keeps the sweep's axes and reduces `step`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gdjax.analysis.comparisons import JUDGES, deviation, stays_below
from gdjax.analysis.rates import ROUND_OFF, fit_rate
from gdjax.records import Finding, Problem

__all__ = [
    "JUDGES",
    "ROUND_OFF",
    "contraction",
    "deviation",
    "diverged",
    "fit_rate",
    "follows",
    "follows_modes",
    "mean_over",
    "noise_floor",
    "ratio",
    "stability_edge",
    "standard_error",
    "stays_below",
    "steps_to_tolerance",
]


def follows_modes(measured: np.ndarray, exact: np.ndarray, precision: str) -> Finding:
    """The finding that curves of gradient descent are their eigenmodes' sum, as far as round-off lets it be seen."""
    return Finding(
        claim="largest relative deviation of any curve from its eigenmodes' sum (absolute tolerance)",
        predicted=0.0,
        measured=deviation(measured, exact, precision),
        tolerance=ROUND_OFF[precision][1],
        source="f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2, Polyak 1964",
        kind="at_most",
    )


def follows(measured: np.ndarray, exact: np.ndarray, problem: Problem, *, precision: str, claim: str, source: str) -> Finding:
    """The finding that curves on a quadratic are the exact ones (steps last), as far as round-off lets it be seen.

    Where full gradients don't go through the Hessian, f - f* is a difference of two sums and is compared only where it is large enough
    beside f*; and eigenvalues as small as mu are known to a relative kappa eps at best, and double roots to less.
    """
    eps, tolerance = float(np.finfo(precision).eps), ROUND_OFF[precision][1]
    if problem.hessian is None and problem.minimum is not None:
        exact = np.where(exact > 16.0 * eps / tolerance * abs(float(problem.minimum)), exact, np.nan)
    known = 16.0 * eps * float(problem.condition_number)
    with np.errstate(invalid="ignore"):
        seen = np.isfinite(exact[..., :1]).any()
    return Finding(
        claim=f"{claim}: largest relative deviation (absolute tolerance)",
        predicted=0.0,
        measured=deviation(measured, exact, precision) if seen else np.nan,
        tolerance=max(tolerance, known),
        source=source,
        kind="at_most",
    )


def diverged(dataset: xr.Dataset) -> xr.DataArray:
    """Whether each run diverged."""
    return dataset.diverged_at >= 0


def contraction(dataset: xr.Dataset, *, last: float = 0.25) -> xr.DataArray:
    """The measured factor a step on the distance to the minimizer, over the `last` part of the records: rho.

    It is the geometric mean sqrt((f_b - f*) / (f_a - f*))^(1 / (b - a)) between the first and the last of those records that are
    finite and above round-off (1e-26 of the start); NaN where fewer than two are. It is the asymptotic rate only once the slowest
    mode dominates; above 1 the run grows.
    """
    values = dataset.suboptimality
    usable = np.isfinite(values) & (values > 1e-26 * values.isel(step=0)) & (values > 0)
    ending = (values.step >= (1.0 - last) * values.step.max()) | (values.step >= values.step[-2:].min())
    ended = ~usable.where(ending, other=True).all("step")  # a run that left the numbers before the end is judged by its last ones
    window = usable & (ending | ended)
    log = np.log(values.where(window))
    first, final = values.step.where(window).min("step"), values.step.where(window).max("step")
    rise = log.where(values.step == final).max("step") - log.where(values.step == first).max("step")
    return np.exp(0.5 * rise / (final - first).where(final > first)).rename("contraction")


def stability_edge(dataset: xr.Dataset) -> xr.DataArray:
    """The rate between the largest that shrinks and the smallest that grows, by geometric mean, along `learning_rate`.

    Returns
    -------
    NaN where every rate shrinks or every rate grows.
    """
    lost = ~np.isfinite(dataset.suboptimality).all("step")
    grows = (contraction(dataset) > 1.0) | lost
    rates = dataset.learning_rate
    smallest = rates.where(grows).min("learning_rate")
    largest = rates.where(rates < smallest).max("learning_rate")
    return np.sqrt(smallest * largest).rename("stability_edge")


def steps_to_tolerance(dataset: xr.Dataset, tolerance: float) -> xr.DataArray:
    """The first recorded step at which the suboptimality is at most `tolerance` times that of the start; NaN if none is."""
    reached = dataset.suboptimality <= tolerance * dataset.suboptimality.isel(step=0)
    return dataset.step.where(reached).min("step").rename("steps_to_tolerance")


def noise_floor(dataset: xr.Dataset, *, last: float = 0.25) -> xr.DataArray:
    """The mean suboptimality over the `last` part of the records, where a constant rate stalls."""
    ending = dataset.step >= (1.0 - last) * dataset.step.max()
    return dataset.suboptimality.where(ending).mean("step").rename("noise_floor")


def mean_over(samples: xr.DataArray, dim: str) -> xr.DataArray:
    """The mean over `dim`, infinite or NaN where a sample is."""
    with np.errstate(invalid="ignore", over="ignore"):
        return samples.mean(dim, skipna=False)


def standard_error(samples: xr.DataArray, dim: str) -> xr.DataArray:
    """The standard error of the mean over `dim`."""
    return samples.std(dim, ddof=1) / np.sqrt(samples.sizes[dim])


def ratio(numerator: xr.DataArray, denominator: xr.DataArray, dim: str) -> tuple[xr.DataArray, xr.DataArray]:
    """The ratio of two means over `dim`, sampled in pairs, and its standard error relative to it, by the delta method.

    What moves both means alike leaves the ratio alone, so that estimates from the same data sets are compared more sharply.
    """
    value = numerator.mean(dim) / denominator.mean(dim)
    return value, standard_error(numerator / numerator.mean(dim) - denominator / denominator.mean(dim), dim)


def over_seeds(samples: xr.DataArray) -> xr.Dataset:
    """The mean over seeds, `mean`, and its standard error, `error`: what is kept of a great many runs."""
    return xr.Dataset({"mean": mean_over(samples, "seed"), "error": standard_error(samples, "seed")})


def furthest(averaged: xr.Dataset, exact: xr.DataArray | np.ndarray) -> float:
    """The largest deviation of means from exact ones, in their standard errors; what has none, like a common start, is left out.

    An error below round-off of the mean counts as round-off.
    """
    error = averaged["error"]
    deviation = abs(averaged["mean"] - exact) / error.clip(min=1e-12 * abs(averaged["mean"]))
    return float(deviation.where(error > 0).max())
