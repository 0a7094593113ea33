"""How fast a curve falls, with an interval, or why that can't be said.

ln f = a + s t + m ln t holds in the end of linear convergence (s < 0; the slowest mode, with t^m before it where roots are double, m = 2,
or where a spectrum is dense up to its end, m < 0) and of a power law (s = 0, exponent -m). It is fitted to the means of a few blocks of
records, evenly spaced in ln t, which noise that stays alike for some steps can't fool; in windows that all end where the curve does:
where it stops, or comes near round-off or the level at which it stalls, and that begin ever earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

ROUND_OFF = {"float64": (1e-12, 1e-8), "float32": (1e-4, 1e-2)}
"""By precision: how far below its start a curve is still free of the parameters' own rounding, and how near to theory it must be."""

BLOCKS = 12
FEWEST_BLOCKS = 6
"""Blocks of a window, and the fewest that hold a record in it: three parameters and three degrees of freedom."""

EXPONENTIAL, POWER_LAW = [0, 1, 2], [0, 2]
"""Which of 1, t and ln t a model has."""

HIGHEST = 1e300
"""Above this a growing curve is about to leave the numbers."""

SPANS = 2.0 ** np.arange(1, 13)
"""Windows by the ratio of their last step to their first."""

TAILS, CERTAIN = (0.5, 0.25, 0.125), 0.997
"""A curve stalls where one of these last parts of it does not fall, at this confidence."""

ABOVE_FLOOR = 30.0
"""A window ends where the curve is this many times the level at which it stalls."""

LEAST_WANDER = 1.0
"""Below this (Durbin and Watson's ratio) what a model leaves is no noise but a curve: then no longer window is any better."""

HIDDEN = 3.0
"""How many times larger an error may be than a window shows, where the next longer one says so."""

POWER_SHARE = 0.2
"""A curve is a power law where s t is less than this share of the exponent at the window's end."""


class _Fit(NamedTuple):
    """s t_b and m, t_b the window's last step, a row for each curve, with half of their intervals' lengths."""

    value: Float[np.ndarray, "curves 2"]
    half: Float[np.ndarray, "curves 2"]
    error: Float[np.ndarray, "curves 2"]  # the standard error
    correction: Float[np.ndarray, "curves 2"]  # what the same fit makes of 1/t
    wander: Float[np.ndarray, "curves 2"]  # the mean square of the steps from residual to residual, over that of residuals: 2 for noise


class _Curves(NamedTuple):
    """Logarithms of curves over the steps 1 and later, each up to its own end."""

    log: Float[np.ndarray, "curves records"]
    step: Float[np.ndarray, " records"]
    end: Int[np.ndarray, " curves"]  # records in its window


def fit_rate(curves: xr.Dataset | xr.DataArray, *, of: str = "suboptimality", confidence: float = 0.95) -> xr.Dataset:
    """Fit the rate at which each curve of a sweep falls in the end: every axis is kept, `step` is reduced.

    Parameters
    ----------
    curves
        A sweep, or one of its variables. A mean over seeds is fitted more sharply than each seed.
    of
        The variable: `suboptimality`, `distance`, `gradient_norm`, or `objective` where the minimum is 0.
    confidence
        Of the intervals.

    Returns
    -------
    A Dataset of
    `status`: "linear", "sublinear" (a power law), "diverging" (grows by a factor a step), or why there is no rate: "undecided" (both
    fit, or neither does), "no decay" (the curve does not fall), "too short" (it falls for too few records before it stalls or stops);
    `contraction`: the factor a step on the distance, rho, with `contraction_low` and `contraction_high`, where it is linear or diverging;
    `exponent`: a of f ~ t^-a, with `exponent_low` and `exponent_high`, where it is sublinear;
    `prefactor`: m of f ~ t^m rho^(2t), where it is linear;
    `first_step`, `last_step`: the window; `floor`: the level at which the curve stalls, NaN where none is seen.

    An interval is that of Student's t for the scatter of block means, widened by the error that a correction of relative size 1/t could
    make, as the estimate's drift from the window to its later half shows it, by what subtracting the floor changes, and, where modes lie
    close, to the slope at the window's end. On noise it covers more than `confidence`; of random spectra it covered 97 % where the
    slowest mode had half of f at the window's end. What has hardly begun to show there (a slower mode with a small share, a logarithm)
    it can't allow for, nor for noise whose logarithm wanders as a sum of steps does.

    >>> step = np.arange(401)
    >>> curve = xr.DataArray(3.0 * 0.9 ** (2.0 * step) + 0.1 * 0.5**step, {"step": step}, name="suboptimality")
    >>> fit = fit_rate(curve)
    >>> str(fit.status.values), round(float(fit.contraction), 9)
    ('linear', 0.9)
    """
    values = curves[of] if isinstance(curves, xr.Dataset) else curves
    power = 2.0 if values.name in ("suboptimality", "objective") else 1.0
    precision = curves.attrs.get("precision", "float64")
    values = values.transpose(..., "step")
    rows = np.asarray(values.values, dtype=float).reshape(-1, values.sizes["step"])
    fitted = _fit_rows(rows, np.asarray(values.step.values, dtype=float), power, ROUND_OFF[precision][0], confidence)
    axes = [dim for dim in values.dims if dim != "step"]
    shape = [values.sizes[dim] for dim in axes]
    kept = {name: coordinate for name, coordinate in values.coords.items() if "step" not in coordinate.dims}
    fit = xr.Dataset({name: (axes, column.reshape(shape)) for name, column in fitted.items()}, kept)
    kind = f"Student's t at {confidence:g} on block means, widened by the estimate's drift and the floor's subtraction"
    return fit.assign_attrs(fitted=str(values.name), interval=kind, confidence=confidence)


def _fit_rows(f: np.ndarray, step: np.ndarray, power: float, lowest: float, confidence: float) -> dict[str, np.ndarray]:
    start, f, step = f[:, 0], f[:, step > 0], step[step > 0]
    if not len(step):
        return _described(np.full(len(f), "too short"), {}, power)
    usable = np.isfinite(f) & (f > lowest * np.abs(start[:, None])) & (f < HIGHEST)
    whole = _curves(f, step, np.where(usable.all(axis=1), f.shape[1], np.argmin(usable, axis=1)))
    floor = _floor(whole)
    stalled = np.isfinite(floor)
    low = np.where(stalled, floor, 0.0)[:, None]
    end = np.where(stalled, np.minimum(np.argmax(f <= ABOVE_FLOOR * low, axis=1), whole.end), whole.end)
    falling = _curves(f, step, end)
    span, linear = _steadiest(falling, confidence, EXPONENTIAL, target=0)
    _, sublinear = _steadiest(falling, confidence, POWER_LAW, target=1)
    if stalled.any():
        less = _curves(f - low, step, end)
        linear = _hull(linear, _steadiest(less, confidence, EXPONENTIAL, target=0)[1])
        sublinear = _hull(sublinear, _steadiest(less, confidence, POWER_LAW, target=1)[1])
    last = step[np.maximum(end - 1, 0)]
    status = _status(linear, sublinear, short=~np.isfinite(linear.half[:, 0]), level=stalled & (start <= ABOVE_FLOOR * floor))
    fits = {"linear": linear, "sublinear": sublinear, "last_step": last, "first_step": np.maximum(last / span, step[0]), "floor": floor}
    return _described(status, fits, power)


def _curves(f: np.ndarray, step: np.ndarray, end: np.ndarray) -> _Curves:
    within = (np.arange(f.shape[1]) < end[:, None]) & (f > 0)
    return _Curves(np.log(np.where(within, f, 1.0)), step, end)


def _status(linear: _Fit, sublinear: _Fit, *, short: Bool[np.ndarray, " curves"], level: Bool[np.ndarray, " curves"]) -> np.ndarray:
    """Decide by intervals: what is said holds everywhere in them."""
    (s, m), (s_half, m_half) = linear.value.T, linear.half.T
    p, p_half = sublinear.value[:, 1], sublinear.half[:, 1]
    with np.errstate(invalid="ignore"):
        dominated = np.abs(s) - s_half > np.abs(m) + m_half
        choices = {
            "no decay": level | (~short & (np.abs(s) <= s_half) & (np.abs(p) <= p_half)),
            "too short": short,
            "linear": dominated & (s < 0),
            "diverging": dominated & (s > 0),
            "sublinear": (p + p_half < 0) & (np.abs(s) + s_half < POWER_SHARE * (np.abs(p) - p_half)),
        }
    return np.select(list(choices.values()), list(choices), "undecided")


def _described(status: np.ndarray, fits: dict[str, Any], power: float) -> dict[str, np.ndarray]:
    missing = np.full(len(status), np.nan)
    described = {"status": status}
    linear, sublinear = (fits.get(name, _Fit(*np.full((5, len(status), 2), np.nan))) for name in ("linear", "sublinear"))
    last = fits.get("last_step", missing)
    factor = np.isin(status, ["linear", "diverging"])
    (s, m), half = linear.value.T, linear.half[:, 0]
    for name, exponent in (("contraction", s), ("contraction_low", np.minimum(s - half, s + m)), ("contraction_high", s + half)):
        described[name] = np.where(factor, np.exp(exponent / last / power), np.nan)
    for name, side in (("exponent", 0.0), ("exponent_low", -1.0), ("exponent_high", 1.0)):
        described[name] = np.where(status == "sublinear", side * sublinear.half[:, 1] - sublinear.value[:, 1], np.nan)
    described["prefactor"] = np.where(status == "linear", linear.value[:, 1], np.nan)
    return described | {name: fits.get(name, missing) for name in ("first_step", "last_step", "floor")}


def _floor(curves: _Curves) -> Float[np.ndarray, " curves"]:
    """The level at which a curve stalls: NaN where its tail falls, or may as well fall on as it did before."""
    floor = np.full(len(curves.end), np.nan)
    last = curves.step[np.maximum(curves.end - 1, 0)]
    for part in TAILS:
        begin = np.searchsorted(curves.step, (1.0 - part) * last)
        tail = _fit(curves, begin, POWER_LAW, confidence=CERTAIN)
        p, half = tail.value[:, 1], tail.half[:, 1]
        passed = curves.step[np.minimum(begin, len(curves.step) - 1)] / curves.step[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            before = (_at(curves, begin) - _at(curves, np.zeros_like(begin))) / np.log(passed)
        stalls = np.isnan(floor) & (np.abs(p) <= half) & (p - half > before)
        level = _between(np.exp(curves.log), np.column_stack([begin, curves.end]))[:, 0] / np.maximum(curves.end - begin, 1)
        floor = np.where(stalls, level, floor)
    return floor


def _steadiest(curves: _Curves, confidence: float, model: list[int], *, target: int) -> tuple[np.ndarray, _Fit]:
    """The fit with the narrowest interval for one of its numbers, of windows whose intervals all meet; and the span of its window."""
    last = curves.step[np.maximum(curves.end - 1, 0)]
    spans = SPANS[: 1 + np.searchsorted(SPANS, last.max(initial=1.0) / curves.step[0])]
    fits = list(_widened(curves, confidence, model, spans))
    low, high = np.full(len(last), -np.inf), np.full(len(last), np.inf)
    chosen, best, span = fits[0], np.full(len(last), np.inf), np.full(len(last), np.nan)
    meeting, noise = np.ones(len(last), bool), np.ones(len(last), bool)
    for ratio, fit in zip(spans, fits, strict=True):
        value, width = fit.value[:, target], fit.half[:, target]
        known = np.isfinite(width) & noise
        noise &= ~known | (fit.wander[:, 0] > LEAST_WANDER)
        meeting &= ~known | ((value - width <= high) & (value + width >= low))
        low = np.where(known & meeting, np.maximum(low, value - width), low)
        high = np.where(known & meeting, np.minimum(high, value + width), high)
        better = known & meeting & (width < best)
        chosen = _Fit(*(np.where(better[:, None], new, old) for new, old in zip(fit, chosen, strict=True)))
        best, span = np.where(better, width, best), np.where(better, ratio, span)
    return span, chosen


def _widened(curves: _Curves, confidence: float, model: list[int], spans: np.ndarray) -> Iterator[_Fit]:
    """Fits in windows of these spans, each interval widened by the error that a correction c/t makes.

    Its size shows in what a window's estimate differs by from that of its later half, for which two standard errors of the half are the
    least that is taken; noise may hide it there, so the next longer window is asked as well, in which it is larger.
    """
    last = curves.step[np.maximum(curves.end - 1, 0)]

    def fit(span: float) -> _Fit:
        return _fit(curves, np.searchsorted(curves.step, last / span), model, confidence=confidence)

    before: _Fit | None = None
    widening = np.zeros(0)
    for span in spans:
        whole, half = fit(span), fit(np.sqrt(span))
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs((whole.value - half.value) / (whole.correction - half.correction))
            least = np.maximum(np.abs(whole.correction / (whole.correction - half.correction)), 1.0) * 2.0 * half.error
        size = np.where(np.isfinite(size), size, 0.0)
        if before is not None:
            doubt = np.clip(size * np.abs(before.correction), widening, HIDDEN * widening)
            yield before._replace(half=before.half + doubt)
        before = whole
        widening = np.fmax(np.fmax(size * np.abs(whole.correction), np.abs(whole.value - half.value)), least)
    assert before is not None
    yield before._replace(half=before.half + widening)


def _fit(curves: _Curves, begin: Int[np.ndarray, " curves"], model: list[int], *, confidence: float) -> _Fit:
    """Least squares of the model's columns among 1, t / t_b and ln(t / t_b) on block means, each weighted by its records."""
    last = curves.step[np.maximum(curves.end - 1, 0)]
    first = curves.step[np.minimum(begin, len(curves.step) - 1)]
    edges = first[:, None] * (last / first)[:, None] ** (np.arange(1, BLOCKS) / BLOCKS)
    places = np.column_stack([begin, np.searchsorted(curves.step, edges), curves.end])
    places = np.maximum.accumulate(np.clip(places, begin[:, None], np.maximum(curves.end, begin)[:, None]), axis=1)
    count = np.diff(places, axis=1).astype(float)
    share = np.where(count > 0, 1.0 / np.maximum(count, 1.0), 0.0)
    columns = (curves.log, curves.step[None], np.log(curves.step)[None], 1.0 / curves.step[None])
    y, t, log_t, correction = (_between(column, places) * share for column in columns)
    design = np.stack([np.ones_like(t), t / last[:, None], log_t - np.log(last)[:, None]], axis=-1)[..., model]
    root = np.sqrt(count)[..., None]
    q, r = np.linalg.qr(root * design)
    freedom = np.count_nonzero(count, axis=1) - len(model)
    usable = freedom >= FEWEST_BLOCKS - 3
    inverse = np.full_like(r, np.nan)
    inverse[usable] = np.linalg.inv(r[usable])
    both = root * np.stack([y, correction], axis=-1)
    projected = np.einsum("cbk,cbr->ckr", q, both)
    estimate = np.einsum("cjk,ckr->cjr", inverse, projected)
    residual = (both - np.einsum("cbk,ckr->cbr", q, projected))[..., 0]
    variance = np.sum(residual**2, axis=1) / np.maximum(freedom, 1)
    error = np.sqrt(variance[:, None] * np.sum(inverse**2, axis=2))
    half = stdtrit(np.maximum(freedom, 1), 0.5 + 0.5 * confidence)[:, None] * error
    fit = _Fit(*np.zeros((5, len(last), 2)))
    fit.wander[:] = _wander(residual, count > 0)[:, None]
    for place, column in enumerate(model[1:], start=1):
        for kept, found in zip(fit[:4], (estimate[..., 0], half, error, estimate[..., 1]), strict=True):
            kept[:, column - 1] = found[:, place]
    fit.half[~usable] = np.inf
    return fit


def _wander(residual: Float[np.ndarray, "curves blocks"], present: Bool[np.ndarray, "curves blocks"]) -> Float[np.ndarray, " curves"]:
    """Durbin and Watson's ratio, over the blocks that hold records."""
    order = np.argsort(~present, axis=1, kind="stable")
    kept, there = np.take_along_axis(residual, order, axis=1), np.take_along_axis(present, order, axis=1)
    steps = np.where(there[:, 1:], np.diff(kept, axis=1), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(steps**2, axis=1) / np.sum(np.where(there, kept, 0.0) ** 2, axis=1)


def _hull(one: _Fit, other: _Fit) -> _Fit:
    return one._replace(half=np.maximum(one.half, np.abs(other.value - one.value) + other.half))


def _between(column: np.ndarray, places: Int[np.ndarray, "curves edges"]) -> Float[np.ndarray, "curves blocks"]:
    """Sums over the records between consecutive places."""
    total = np.concatenate([np.zeros((len(column), 1)), np.cumsum(column, axis=1)], axis=1)
    return np.diff(np.take_along_axis(np.broadcast_to(total, (len(places), total.shape[1])), places, axis=1), axis=1)


def _at(curves: _Curves, place: Int[np.ndarray, " curves"]) -> Float[np.ndarray, " curves"]:
    """The logarithm at one record of each curve."""
    return curves.log[np.arange(len(place)), np.minimum(place, np.maximum(curves.end - 1, 0))]
