"""Fits of a linear predictor, many at once: folds are streams, numbers are lanes, and one fit is the case of one each.

A fold standardizes by its own training rows, its sampler deals no others, and it stops by its own held-out rows. All folds share one
copy of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from gdjax import losses, program, samplers, stopping
from gdjax.methods import Method
from gdjax.models import Linear, Scales, Standardized
from gdjax.plan import Grid, Recipe
from gdjax.records import Problem

FILLED_ROWS = (256, 1024)
"""Fewer rows are filled up to the first, and to powers of 2 up to the second: small fits are over before a program is compiled."""

FILLED_COLUMNS = (16, 64)
"""The same for the columns of so few rows: what is added is zero, and its parameters stay zero."""

FILLED_LANES = (1, 64)
"""The same for lanes, which repeat the last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """All that a fit is told, apart from the numbers that differ between fits of one program."""

    loss: Callable[..., Array]
    method: Method
    constants: tuple[str, ...]  # which of the lanes' numbers are the loss's, or the ridge
    intercept: bool
    scale: bool
    scale_target: bool
    batch_size: int | None  # None for full gradients
    max_iter: int  # epochs
    rule: stopping.EarlyStopping  # without held-out examples
    precision: str

    @property
    def centered(self) -> bool:
        """Whether residuals have mean zero whatever the slopes are, so that the intercept's gradient is zero but for round-off.

        That must be none at all, since Adam would turn it into steps of full length.
        """
        return self.loss is losses.squared_error and self.batch_size is None and self.intercept and self.scale and self.scale_target


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Rows of features (without a column of ones), of targets, and their weights."""

    features: Float[np.ndarray, "n p"]
    target: Float[np.ndarray, "n targets"]
    weights: Float[np.ndarray, " n"]

    def __getitem__(self, rows: Any) -> Examples:
        return Examples(features=self.features[rows], target=self.target[rows], weights=self.weights[rows])

    def __len__(self) -> int:
        return len(self.weights)


class Fold(NamedTuple):
    """Which rows a fit learns from, and which it stops by."""

    train: Int[np.ndarray, " rows"]
    held_out: Int[np.ndarray, " rows"]


class Moments(NamedTuple):
    """What is known of columns seen so far: their rows' weight, their mean and sum of squared deviations."""

    weight: float
    mean: Float[np.ndarray, " p"]
    squares: Float[np.ndarray, " p"]

    def joined(self, other: Moments) -> Moments:
        """The moments of both lots of rows together (Chan, Golub and LeVeque 1983)."""
        weight, apart = self.weight + other.weight, other.mean - self.mean
        mean = self.mean + apart * (other.weight / weight)
        return Moments(weight, mean, self.squares + other.squares + apart**2 * (self.weight * other.weight / weight))

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation; 1 where a column is constant but for round-off."""
        variance = self.squares / self.weight
        constant = variance <= (10.0 * np.finfo(float).eps * np.abs(self.mean)) ** 2
        return np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))


def moments(columns: Float[np.ndarray, "n p"], weights: Float[np.ndarray, " n"]) -> Moments:
    """The weighted moments of columns."""
    total = weights.sum()
    mean = np.where(np.ptp(columns, axis=0) == 0, columns[0], weights @ columns / total)  # a constant column is exactly zero when centered
    return Moments(float(total), mean, weights @ (columns - mean) ** 2)


def scales(settings: Settings, features: Moments, target: Moments) -> Scales:
    """How the settings standardize columns of these moments; without an intercept nothing is centered."""
    p, k = len(features.mean), len(target.mean)
    centered = settings.scale and settings.intercept
    return Scales(
        center=features.mean if centered else np.zeros(p),
        scale=features.deviation if settings.scale else np.ones(p),
        target_center=target.mean if settings.scale_target and settings.intercept else np.zeros(k),
        target_scale=target.deviation if settings.scale_target else np.ones(k),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Fits:
    """What fits leave behind: axes are folds, then parameters or records, then lanes."""

    params: Float[np.ndarray, "folds p lanes"]  # of standardized columns; the intercept first where there is one
    scales: list[Scales]
    num_epochs: Int[np.ndarray, "folds lanes"]
    best_epoch: Int[np.ndarray, "folds lanes"]
    diverged: np.ndarray


def predict(params: Float[np.ndarray, "p lanes"], by: Scales, features: Float[np.ndarray, "n p"], *, intercept: bool) -> np.ndarray:
    """Predict targets in their own units, a column per lane."""
    standardized = (features - by.center) / by.scale
    predicted = standardized @ params[1:] + params[0] if intercept else standardized @ params
    return predicted * by.target_scale + by.target_center


def fit(
    settings: Settings, examples: Examples, folds: Sequence[Fold], numbers: dict[str, np.ndarray], *, seed: int, budget: int = 4 * 2**30
) -> Fits:
    """Fit every lane on every fold."""
    by = [_scales_of(settings, examples[fold.train]) for fold in folds]
    parts = []
    for group in _alike(settings, folds):
        grid, recipe = _planned(settings, examples, [folds[f] for f in group], [by[f] for f in group], numbers, seed)
        recipe = replace(recipe, measured="nothing" if len(folds[group[0]].held_out) else "objective")
        results = program.run(grid, recipe, budget=budget, observer=program.Observer())
        parts.append((group, _read(grid, results, settings, _sizes(examples, numbers))))
    order = np.argsort(np.concatenate([group for group, _ in parts]))
    read = [np.concatenate(arrays)[order] for arrays in zip(*(arrays for _, arrays in parts), strict=True)]
    return Fits(params=read[0], scales=by, num_epochs=read[1], best_epoch=read[2], diverged=read[3])


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Where a fit stands, so that it can go on: plain arrays."""

    params: Float[np.ndarray, "p lanes"]
    optimizer: list[np.ndarray]  # the leaves of the optimizer's state, as the engine holds them
    features: Moments
    target: Moments
    curve: list[float] = field(default_factory=list)
    num_epochs: int = 0
    best_epoch: int = 0
    diverged: bool = False

    def scales(self, settings: Settings) -> Scales:
        """How columns are standardized."""
        return scales(settings, self.features, self.target)


def fit_one(
    settings: Settings, examples: Examples, fold: Fold, numbers: dict[str, np.ndarray], *, seed: int, before: State | None
) -> State:
    """Fit one fold, a lane per target, and keep the optimizer's state; `before` is where to go on from.

    Columns that have moved since `before` are standardized anew, and its parameters turned so that its predictions stay as they are.
    """
    train = examples[fold.train]
    features, target = moments(train.features, train.weights), moments(train.target, train.weights)
    if before is not None:
        features, target = before.features.joined(features), before.target.joined(target)
    by = scales(settings, features, target)
    grid, recipe = _planned(settings, examples, [fold], [by], numbers, seed)
    begun = None
    if before is not None:
        params = _turned(before.params, before.scales(settings), by, intercept=settings.intercept)
        begun = (_repeated(_filled(params, grid.num_parameters))[None, None], before.optimizer)
    results, progress = program.go_on(grid, recipe, observer=program.Observer(), before=begun)
    params, epochs, best, diverged, curve = (array[0] for array in _read(grid, results, settings, _sizes(examples, numbers)))
    if not settings.rule.keeps_best:
        params = np.asarray(progress.lanes)[0, 0, : len(params), : params.shape[1]]
    num_epochs, earlier = int(epochs.max()), [] if before is None else before.curve
    return State(
        params=params,
        optimizer=[np.asarray(leaf) for leaf in jax.tree.leaves(progress.state)],
        features=features,
        target=target,
        curve=[*earlier, *curve[1 : num_epochs + 1].mean(axis=1).tolist()],
        num_epochs=num_epochs + (0 if before is None else before.num_epochs),
        best_epoch=int(best.max()),
        diverged=bool(diverged.any()),
    )


def _scales_of(settings: Settings, train: Examples) -> Scales:
    return scales(settings, moments(train.features, train.weights), moments(train.target, train.weights))


def _turned(params: Float[np.ndarray, "p lanes"], old: Scales, new: Scales, *, intercept: bool) -> Float[np.ndarray, "p lanes"]:
    """The parameters that predict on newly standardized columns what `params` did on the old ones."""
    slopes = params[1:] if intercept else params
    raw = slopes / old.scale[:, None] * old.target_scale  # target per feature, in their own units
    turned = raw * new.scale[:, None] / new.target_scale
    if not intercept:
        return turned
    level = params[0] * old.target_scale + old.target_center + raw.T @ (new.center - old.center)
    return np.concatenate([((level - new.target_center) / new.target_scale)[None], turned])


def _steps_per_epoch(settings: Settings, fold: Fold) -> int:
    return 1 if settings.batch_size is None else math.ceil(len(fold.train) / settings.batch_size)


def _alike(settings: Settings, folds: Sequence[Fold]) -> list[list[int]]:
    """The folds whose epochs have as many steps, which run in step with each other: all of them, or two lots."""
    lots: dict[int, list[int]] = {}
    for number, fold in enumerate(folds):
        lots.setdefault(_steps_per_epoch(settings, fold), []).append(number)
    return list(lots.values())


def _planned(
    settings: Settings, examples: Examples, folds: Sequence[Fold], by: Sequence[Scales], numbers: dict[str, np.ndarray], seed: int
) -> tuple[Grid, Recipe]:
    """The fits as a grid of the engine, its shapes filled up where they are small."""
    n, p = examples.features.shape
    rows, width = _up(n, FILLED_ROWS), (_up(p, FILLED_COLUMNS) if n <= FILLED_ROWS[1] else p) + settings.intercept
    middle, spread = by[0].center, by[0].scale  # columns come near unit size before anything is rounded to another precision
    features = _widened((examples.features - middle) / spread, settings, width)
    level, unit = by[0].target_center, by[0].target_scale
    target = _repeated((examples.target - level) / unit)
    scaled = [_filled_scales(_relative(one, by[0]), settings, width) for one in by]
    epoch = _steps_per_epoch(settings, folds[0])
    batch = settings.batch_size or rows
    own: dict[str, Any] = {
        "problem": {
            "weights": np.stack([_filled(_shares(examples, fold.train, len(fold.train)), rows) for fold in folds]),
            "constants": {"scales": _stacked(scaled)},
        },
        "rule": {},
    }
    if len(folds[0].held_out):
        own["rule"] = _held_out(examples, features, target, folds)
    problem = Problem(
        evaluate=Standardized(Linear(settings.loss, intercept=settings.intercept)),
        name="fit",
        data=(_filled(features, rows), _filled(target, rows)),
        constants={"scales": scaled[0]},
        start=np.zeros(width),
    )
    grid = Grid(
        problem=problem,
        start=None,
        members={},
        streams=[(batch, seed)] * len(folds),
        numbers={name: _repeated(column[None]) for name, column in numbers.items()},
        lengths={batch: settings.max_iter * epoch},
        steps=np.arange(settings.max_iter + 1) * epoch,
        rule=settings.rule,
        own=own,
        dealt=[fold.train for fold in folds],
    )
    sampler = None if settings.batch_size is None else samplers.reshuffled
    return grid, Recipe(method=settings.method, build=None, sampler=sampler, dtype=settings.precision, constants=settings.constants)


def _held_out(examples: Examples, features: np.ndarray, target: np.ndarray, folds: Sequence[Fold]) -> dict[str, Any]:
    """What each fold's rule monitors, filled up to one length with examples of no weight."""
    rows = _up(max(len(fold.held_out) for fold in folds), FILLED_ROWS)
    data = [tuple(_filled(columns[fold.held_out], rows) for columns in (features, target)) for fold in folds]
    weights = [_filled(_shares(examples, fold.held_out, 1)[fold.held_out], rows) for fold in folds]
    return {"held_out": _stacked(data), "weights": np.stack(weights)}


def _shares(examples: Examples, rows: np.ndarray, total: int) -> Float[np.ndarray, " n"]:
    """The weights of `rows`, which add up to `total`; none of the others."""
    shares = np.zeros(len(examples))
    shares[rows] = examples.weights[rows] * (total / examples.weights[rows].sum())
    return shares


def _relative(one: Scales, other: Scales) -> Scales:
    """How columns that `other` has standardized come to be as `one` standardizes them."""
    center, scale = (one.center - other.center) / other.scale, one.scale / other.scale
    return Scales(center, scale, (one.target_center - other.target_center) / other.target_scale, one.target_scale / other.target_scale)


def _widened(features: np.ndarray, settings: Settings, width: int) -> np.ndarray:
    """With the column of ones before, and columns of zeros behind."""
    ones = np.full((len(features), int(settings.intercept)), 0.0 if settings.centered else 1.0)
    return np.concatenate([ones, features, np.zeros((len(features), width - ones.shape[1] - features.shape[1]))], axis=1)


def _filled_scales(by: Scales, settings: Settings, width: int) -> Scales:
    first, missing = int(settings.intercept), width - int(settings.intercept) - len(by.center)
    return Scales(
        center=np.concatenate([np.zeros(first), by.center, np.zeros(missing)]),
        scale=np.concatenate([np.ones(first), by.scale, np.ones(missing)]),
        target_center=_repeated(by.target_center[None])[0],
        target_scale=_repeated(by.target_scale[None])[0],
    )


def _repeated(lanes: Float[np.ndarray, "rows lanes"]) -> Float[np.ndarray, "rows filled"]:
    """With the last lane again and again, up to a size that other fits share."""
    missing = _up(lanes.shape[-1], FILLED_LANES) - lanes.shape[-1]
    return np.concatenate([lanes, np.repeat(lanes[:, -1:], missing, axis=1)], axis=1)


def _up(size: int, limits: tuple[int, int]) -> int:
    least, most = limits
    return max(least, 2 ** (size - 1).bit_length()) if size <= most else size


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    """With zeros up to `length` along the first axis."""
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)]) if len(array) < length else array


def _stacked(trees: Sequence[PyTree]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _sizes(examples: Examples, numbers: dict[str, np.ndarray]) -> tuple[int, int]:
    return examples.features.shape[1], len(next(iter(numbers.values())))


def _read(grid: Grid, results: program.Results, settings: Settings, sizes: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Parameters, epochs, the best epoch, divergence and losses, without what was filled up."""
    (length,), (num_features, num_lanes) = grid.lengths.values(), sizes
    results = jax.tree.map(lambda leaf: leaf[0, ..., :num_lanes], results)
    epoch, stopped_at = length // settings.max_iter, np.asarray(results.stopped_at)
    ended = np.where(stopped_at >= 0, stopped_at, np.where(results.diverged_at >= 0, results.diverged_at, length))
    best = ended if results.best_step is None else results.best_step
    params = results.params[:, : num_features + settings.intercept]
    return params, ended // epoch, best // epoch, results.diverged_at >= 0, results.records[:, :, 0]
