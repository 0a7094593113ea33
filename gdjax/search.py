"""scikit-learn's search interface over fits that run together: candidates are lanes, folds are streams, one program per structure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from numpy.ma import MaskedArray
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from gdjax import fitting
from gdjax.estimator import GradientDescentClassifier, GradientDescentRegressor
from gdjax.fitting import Examples, Fits, Fold, Settings
from gdjax.records import InputError, unknown_name, whole

Split = tuple[np.ndarray, np.ndarray]
"""The rows to learn from, and those to score on."""


class _Kind(NamedTuple):
    """Candidates that one program can fit together: they differ in nothing but numbers."""

    members: list[int]
    models: list[Any]
    numbers: dict[str, np.ndarray]


class SweepSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Search hyperparameters by cross-validation, with all candidates and folds of one structure as one XLA program.

    Its results are those of scikit-learn's GridSearchCV over the same estimator: `cv_results_`, `best_params_`, `best_score_`,
    `best_index_`, `best_estimator_` and so on. Candidates that differ in numbers (learning rates, a ridge, an optimizer's or a loss's
    numbers) share a program and its steps; other losses, optimizers, batch sizes or lengths have one each.

    Parameters
    ----------
    estimator
        A `GradientDescentRegressor` or a `GradientDescentClassifier`.
    param_grid
        Values for each parameter, or a list of such grids; with `n_iter` also distributions, as in RandomizedSearchCV.
    n_iter
        How many candidates to draw; None takes the whole grid.
    scoring
        A scorer, or the name of one; by default the estimator's own score. Errors' and R^2's are taken for all candidates at once.
    refit
        Whether the best candidate is fitted on all rows.
    cv
        A number of folds, a splitter, or splits; 5 by default.
    random_state
        Draws the candidates. The fits' own randomness is the estimator's.

    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> search = SweepSearchCV(GradientDescentRegressor(random_state=0), {"learning_rate": [1e-6, 0.1]}, cv=3)
    >>> search.fit(X, X @ [1.0, 2.0]).best_params_
    {'learning_rate': 0.1}
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        n_iter: int | None = None,
        scoring: Any = None,
        refit: bool = True,
        cv: Any = None,
        return_train_score: bool = False,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.n_iter = n_iter
        self.scoring = scoring
        self.refit = refit
        self.cv = cv
        self.return_train_score = return_train_score
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:
        """Fit every candidate on every fold, and the best on all rows."""
        if not isinstance(self.estimator, GradientDescentRegressor | GradientDescentClassifier):
            raise InputError(
                f"estimator is a {type(self.estimator).__name__}, which is not allowed: it is a GradientDescentRegressor or a "
                "GradientDescentClassifier. scikit-learn's own searches take any."
            )
        candidates = self._candidates()
        splitter: Any = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = [(np.asarray(train), np.asarray(test)) for train, test in splitter.split(X, y, groups)]
        self.scorer_: Any = check_scoring(self.estimator, scoring=self.scoring)
        begun = time.perf_counter()
        test, train, spent = self._scores(X, y, sample_weight, candidates, splits)
        self.n_splits_, self.multimetric_ = len(splits), False
        self.cv_results_ = _results(candidates, test, train if self.return_train_score else None, spent)
        self.best_index_ = int(self.cv_results_["rank_test_score"].argmin())
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.best_params_ = candidates[self.best_index_]
        self.search_time_ = time.perf_counter() - begun
        if self.refit:
            refitted = time.perf_counter()
            best: Any = clone(self.estimator)
            self.best_estimator_ = best.set_params(**self.best_params_).fit(X, y, sample_weight=sample_weight)
            self.refit_time_ = time.perf_counter() - refitted
        return self

    def _candidates(self) -> list[dict[str, Any]]:
        grids: Any = self.param_grid
        known = self.estimator.get_params()
        for name in {name for grid in ([grids] if isinstance(grids, Mapping) else grids) for name in grid}:
            if name not in known:
                raise unknown_name(f"parameter of {type(self.estimator).__name__}", name, known)
        if self.n_iter is None:
            return list(ParameterGrid(grids))
        return list(ParameterSampler(grids, whole("n_iter", self.n_iter), random_state=self.random_state))

    def _scores(
        self, X: Any, y: Any, sample_weight: Any, candidates: list[dict[str, Any]], splits: list[Split]
    ) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """Scores on test and on training rows, a row per candidate and a column per fold; seconds of fitting and of scoring a fit."""
        template: Any = clone(self.estimator)
        rows = template._examples(X, y, sample_weight, reset=True)
        scored = _Scored(template, self.scorer_, self.scoring, rows, X, y)
        test, train, seconds = np.empty((len(candidates), len(splits))), np.empty((len(candidates), len(splits))), [0.0, 0.0]
        for kind in _kinds(template, candidates):
            for lot in _lots(kind.models[0], [learnt[rows.weights[learnt] > 0] for learnt, _ in splits]):
                begun = time.perf_counter()
                fits = [fitting.fit(lot.settings, one, lot.folds, kind.numbers, seed=lot.seed) for one in _targets(rows)]
                fitted = time.perf_counter()
                for place, number in enumerate(lot.numbers):
                    learnt, kept = splits[number]
                    test[kind.members, number] = scored(kind, lot.settings, fits, place, kept)
                    if self.return_train_score:
                        train[kind.members, number] = scored(kind, lot.settings, fits, place, learnt)
                seconds = [seconds[0] + fitted - begun, seconds[1] + time.perf_counter() - fitted]
        return test, train, (seconds[0] / test.size, seconds[1] / test.size)

    def _best(self) -> Any:
        check_is_fitted(self, "cv_results_")
        if not hasattr(self, "best_estimator_"):
            raise AttributeError("refit=False: no best estimator has been fitted.")
        return self.best_estimator_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict with the best estimator."""
        return self._best().predict(X)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """The best estimator's score, by `scoring`."""
        return self.scorer_(self._best(), X, y)

    @available_if(lambda self: is_classifier(self.estimator))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The best estimator's probabilities."""
        return self._best().predict_proba(X)

    @available_if(lambda self: is_classifier(self.estimator))
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """The best estimator's scores of classes."""
        return self._best().decision_function(X)

    @property
    def classes_(self) -> np.ndarray:
        """The best estimator's classes."""
        return self._best().classes_

    @property
    def n_features_in_(self) -> int:
        """How many features there were."""
        return self._best().n_features_in_

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        own = self.estimator.__sklearn_tags__()
        tags.estimator_type, tags.target_tags = own.estimator_type, own.target_tags
        tags.classifier_tags, tags.regressor_tags = own.classifier_tags, own.regressor_tags
        return tags


_NUMBERS = ("learning_rate", "ridge", "optimizer_params", "loss_params")
"""The parameters that hold numbers of a lane; what in them shapes the program is part of the method."""


def _kinds(template: Any, candidates: list[dict[str, Any]]) -> list[_Kind]:
    """The candidates by what they have in common but for numbers."""
    kinds: dict[Any, tuple[list[int], list[Any], list[dict[str, float]]]] = {}
    for number, candidate in enumerate(candidates):
        model: Any = clone(template)
        model.set_params(**candidate)
        settings, numbers = model._settings(1)
        others = [(name, repr(value)) for name, value in model.get_params().items() if name not in _NUMBERS]
        members, models, rows = kinds.setdefault((settings.method, settings.loss, *sorted(numbers), *others), ([], [], []))
        members.append(number)
        models.append(model)
        rows.append(numbers)
    return [
        _Kind(members, models, {name: np.array([row[name] for row in rows]) for name in rows[0]})
        for members, models, rows in kinds.values()
    ]


class _Lot(NamedTuple):
    """Folds that are fitted in the same way."""

    settings: Settings
    seed: int
    numbers: list[int]
    folds: list[Fold]


def _lots(model: Any, train_rows: list[np.ndarray]) -> list[_Lot]:
    """The folds by how a fit on their rows goes: in batches or not, with rows held out or not; all alike as a rule."""
    seed = model._seed()
    lots: dict[Any, _Lot] = {}
    for number, rows in enumerate(train_rows):
        settings, _ = model._settings(len(rows))
        fold = model._fold(rows, np.random.default_rng(seed))
        lot = lots.setdefault((settings.batch_size, len(fold.held_out) > 0), _Lot(settings, seed, [], []))
        lot.numbers.append(number)
        lot.folds.append(fold)
    return list(lots.values())


def _targets(rows: Examples) -> list[Examples]:
    """The rows with one target each."""
    return [replace(rows, target=rows.target[:, [column]]) for column in range(rows.target.shape[1])]


@dataclass(frozen=True)
class _Scored:
    """Scores the fits of a fold on some rows: for all candidates at once where it can, one after the other where a scorer must."""

    template: Any
    scorer: Any
    scoring: Any
    rows: Examples
    X: Any
    y: Any

    def __call__(
        self, kind: _Kind, settings: Settings, fits: list[Fits], fold: int, chosen: np.ndarray
    ) -> Float[np.ndarray, " candidates"]:
        """One score per candidate."""
        name = "r2" if self.scoring is None else self.scoring
        if len(fits) == 1 and isinstance(name, str) and name in _SCORES and not is_classifier(self.template):
            features, by = self.rows.features[chosen], fits[0].scales[fold]
            return _SCORES[name](
                self.rows.target[chosen], fitting.predict(fits[0].params[fold], by, features, intercept=settings.intercept)
            )
        X, y = _safe_indexing(self.X, chosen), _safe_indexing(self.y, chosen)
        return np.array([self.scorer(self._model(kind, settings, fits, fold, lane), X, y) for lane in range(len(kind.models))])

    def _model(self, kind: _Kind, settings: Settings, fits: list[Fits], fold: int, lane: int) -> Any:
        """A candidate as the estimator that it is."""
        params = np.stack([one.params[fold, :, lane] for one in fits], axis=1)
        by = fits[0].scales[fold]
        by = by._replace(
            target_center=np.concatenate([one.scales[fold].target_center for one in fits]),
            target_scale=np.concatenate([one.scales[fold].target_scale for one in fits]),
        )
        return kind.models[lane]._adopt(self.template, settings, params, by)


def _residuals(target: Float[np.ndarray, "n 1"], predicted: Float[np.ndarray, "n lanes"]) -> Float[np.ndarray, "n lanes"]:
    with np.errstate(over="ignore", invalid="ignore"):
        return predicted - target


def _r2(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    spread = np.sum((target - target.mean()) ** 2)
    return 1.0 - np.sum(_residuals(target, predicted) ** 2, axis=0) / spread if spread > 0 else np.zeros(predicted.shape[1])


_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "r2": _r2,
    "neg_mean_squared_error": lambda target, predicted: -np.mean(_residuals(target, predicted) ** 2, axis=0),
    "neg_root_mean_squared_error": lambda target, predicted: -np.sqrt(np.mean(_residuals(target, predicted) ** 2, axis=0)),
    "neg_mean_absolute_error": lambda target, predicted: -np.mean(np.abs(_residuals(target, predicted)), axis=0),
}


def _results(candidates: list[dict[str, Any]], test: np.ndarray, train: np.ndarray | None, seconds: tuple[float, float]) -> dict[str, Any]:
    """scikit-learn's `cv_results_`; the time of a fit is its share of the time of all."""
    results: dict[str, Any] = {}
    for name, spent in zip(("fit_time", "score_time"), seconds, strict=True):
        results |= {f"mean_{name}": np.full(len(candidates), spent), f"std_{name}": np.zeros(len(candidates))}
    for name in dict.fromkeys(name for candidate in candidates for name in candidate):
        results[f"param_{name}"] = _column([candidate.get(name, np.ma.masked) for candidate in candidates])
    results["params"] = candidates
    for name, scores in (("test_score", test), ("train_score", train)):
        if scores is not None:
            results |= {f"split{fold}_{name}": column for fold, column in enumerate(scores.T)}
            results |= {f"mean_{name}": scores.mean(axis=1), f"std_{name}": scores.std(axis=1)}
    mean = results["mean_test_score"]
    worst = np.nanmin(mean) - 1.0 if np.isfinite(mean).any() else 0.0
    results["rank_test_score"] = rankdata(-np.nan_to_num(mean, nan=worst), method="min").astype(np.int32)
    return results


def _column(values: list[Any]) -> MaskedArray:
    """One parameter of all candidates, masked where a candidate has none."""
    numbers = all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values if value is not np.ma.masked
    )
    column = MaskedArray(np.empty(len(values), dtype=float if numbers else object), mask=True)
    for place, value in enumerate(values):
        if value is not np.ma.masked:
            column[place] = value
    return column
