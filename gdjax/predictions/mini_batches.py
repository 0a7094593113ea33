"""Plain SGD of a constant rate on least squares: its exact mean, the levels that it stalls at, and the limit of its mean square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gdjax import theory
from gdjax.predictions.known import Known, Prediction, Runs, edge_at
from gdjax.records import Problem

MOST_WORK = 3e10
"""Floating-point operations that a moment may take (a few seconds); beyond, it is left out."""

MEAN_SQUARE_SHARE = 0.5
"""Up to this share of the mean-square edge the reshuffled floor, which is of first order in the noise, is drawn."""


def _sampled(known: Known, samplers: Sequence[str]) -> Problem | None:
    """The problem of plain mini-batch runs on least squares, where their examples are given."""
    problem, fits = known.problem, known.y in ("suboptimality", "objective")
    if problem is None or not (fits and known.is_plain and not known.is_full and known.attrs["sampler"] in samplers):
        return None
    return problem if theory.is_least_squares(problem) else None


def _raised(known: Known) -> float:
    return float(known.attrs["minimum"]) if known.y == "objective" else 0.0


def _by_batch(known: Known) -> tuple[Runs, list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]]:
    """Runs of each batch size: its places, and its different rates with which run has which."""
    runs = Runs.of(known.coords.learning_rate, known.coords.batch_size)
    rates, sizes = runs.columns
    groups = []
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        different, which = np.unique(rates[places], return_inverse=True)
        groups.append((int(size), places, different, which))
    return runs, groups


def exact_mean(known: Known) -> Prediction | None:
    """The mean over batches drawn anew each step, of constant-step SGD on least squares."""
    problem = _sampled(known, theory.INDEPENDENT)
    if problem is None or not theory.has_moments(problem, known.attrs["sampler"]):
        return None
    runs, groups = _by_batch(known)
    last, num_rates = int(known.steps[-1]), sum(len(rates) for _, _, rates, _ in groups)
    if np.size(problem.start) ** 4 * num_rates * last > MOST_WORK:
        return None
    rows = np.empty((len(runs.columns[0]), len(known.steps)))
    for size, places, rates, which in groups:
        mean = theory.expected_suboptimality(problem, rates, size, last, sampler=known.attrs["sampler"])
        rows[places] = np.asarray(mean)[which][:, known.steps]
    values = _held(known, runs.curves(rows, known.steps)) + _raised(known)
    return Prediction(name="exact mean", kind="mean", values=values, formula="recursion of E ee'", source="second moments of LMS")


def _held(known: Known, values: xr.DataArray) -> xr.DataArray:
    """Runs that are over before the others keep their last value, as the sweep keeps it."""
    epoch = known.coords.get("epoch")
    if epoch is None or epoch.dims == ("step",):
        return values
    place = (epoch.reset_coords(drop=True) >= epoch.isel(step=-1, drop=True).reset_coords(drop=True)).argmax("step")
    record = xr.DataArray(np.arange(values.sizes["step"]), dims="step")
    return values.isel(step=xr.where(record < place, record, place).transpose(..., "step")).assign_coords(step=values.step)


def noise_floor(known: Known) -> Prediction | None:
    """The level at which that mean stalls."""
    problem = _sampled(known, theory.INDEPENDENT)
    if problem is None or not theory.has_moments(problem, known.attrs["sampler"]):
        return None
    runs, groups = _by_batch(known)
    if np.size(problem.start) ** 6 * sum(len(rates) for _, _, rates, _ in groups) > MOST_WORK:
        return None
    floors = np.empty(len(runs.columns[0]))
    for size, places, rates, which in groups:
        of_rates = [float(theory.noise_floor(problem, float(rate), size, sampler=known.attrs["sampler"])) for rate in rates]
        floors[places] = np.asarray(of_rates)[which]
    values = runs.levels(np.where(np.isfinite(floors), floors, np.nan) + _raised(known))
    return Prediction(name="noise floor", kind="floor", values=values, formula="fixed point of E ee'", source="second moments of LMS")


def reshuffled_floor(known: Known) -> Prediction | None:
    """The level at which reshuffled batches stall at the ends of epochs, to first order in the noise."""
    problem = _sampled(known, ("reshuffled",))
    if problem is None:
        return None
    runs, groups = _by_batch(known)
    floors = np.full(len(runs.columns[0]), np.nan)
    small = np.size(problem.start) <= theory.moments.MOST_PARAMETERS
    for size, places, rates, which in groups:
        edge = theory.mean_square_edge(problem, size) if small else theory.stability_edge(known.attrs["smoothness"])
        found = [
            float(theory.reshuffled_noise(problem, float(rate), size)) if 0 < rate <= MEAN_SQUARE_SHARE * edge else np.nan for rate in rates
        ]
        floors[places] = np.asarray(found)[which]
    if np.isnan(floors).all():
        return None
    values = runs.levels(floors + _raised(known))
    formula = "first order in the noise, at the ends of epochs"
    return Prediction(name="reshuffled floor", kind="floor", values=values, formula=formula, source="Mishchenko et al. 2020")


def mean_square_edge(known: Known) -> Prediction | None:
    """The limit of the mean square of SGD on least squares, batches drawn anew each step."""
    problem = _sampled(known, theory.INDEPENDENT)
    if problem is None or not theory.has_moments(problem, known.attrs["sampler"]):
        return None
    runs = Runs.of(known.coords.batch_size)
    edges = {
        size: float(theory.mean_square_edge(problem, int(size), sampler=known.attrs["sampler"])) for size in np.unique(runs.columns[0])
    }
    values = runs.levels([edges[size] for size in runs.columns[0]])
    return edge_at(known, values, "limit of E||x − x*||²", "second moments of LMS")
