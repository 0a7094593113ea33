"""The page's production pipeline as scikit-learn estimators.

Columns are standardized inside, a part of the rows is held out, any optax optimizer descends, the learning rate falls on a plateau,
and training stops when the held-out loss has not improved for some epochs; the best parameters are what is kept. Every step is the
engine's: fits of equal shapes share their program, whatever their numbers.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gdjax import fitting, losses, methods, persistence, stopping
from gdjax.fitting import Examples, Fold, Moments, Settings, State
from gdjax.models import Scales
from gdjax.records import InputError, unknown_name, whole

SMALL = 200
"""Up to so many examples "auto" takes full gradients and holds nothing out: a part of so few rows says little."""

BATCH_SIZE = 32
"""The page's batch, for more examples than that and for streams."""

NEVER = 2**30
"""Epochs to wait where nothing is to stop a fit."""

REGRESSION_LOSSES = ("squared_error", "absolute", "huber", "bisquare", "gaussian_nll", "laplace_nll", "student_t")
"""What `GradientDescentRegressor` can minimize: functions of `gdjax.losses`."""


class _GradientDescent(BaseEstimator):
    """What regressors and classifiers share: from parameters and rows to a fit, and a fit as plain arrays."""

    _state: State
    random_state: Any
    n_features_in_: int
    feature_names_in_: np.ndarray

    def _settings(self, num_examples: int, *, streaming: bool = False) -> tuple[Settings, dict[str, float]]:
        """The fit's settings, and the numbers that another fit of the same program may have otherwise."""
        given: Any = self
        loss, constants = self._loss()
        method, numbers, slows = _method(given.optimizer, given.learning_rate, given.optimizer_params)
        if taken := {"ridge", *constants} & set(numbers):
            raise InputError(f"{min(taken)} is a number of the optimizer and of the loss: this pair can't be used together.")
        batch = given.batch_size
        if isinstance(batch, str) and batch == "auto":
            batch = BATCH_SIZE if streaming or num_examples > SMALL else num_examples
        batch = whole("batch_size", batch)
        plateau = stopping.Plateau(
            factor=_positive("plateau_factor", given.plateau_factor), patience=whole("plateau_patience", given.plateau_patience)
        )
        patience = NEVER if streaming or given.tol is None else whole("patience", given.patience)
        rule = stopping.early_stopping(patience=patience, min_delta=given.tol or 0.0, plateau=plateau if slows else None)
        settings = Settings(
            loss=loss,
            method=method,
            constants=("ridge", *constants),
            intercept=bool(given.fit_intercept),
            scale=bool(given.scale),
            scale_target=bool(getattr(given, "scale_target", False)),
            batch_size=batch if streaming or batch < num_examples else None,
            max_iter=1 if streaming else whole("max_iter", given.max_iter),
            rule=replace(rule, restore_best=not streaming),
            precision=given.precision,
        )
        if given.precision not in ("float32", "float64"):
            raise InputError(f"precision={given.precision!r} is not allowed: it is float32 or float64.")
        return settings, numbers | constants | {"ridge": _positive("ridge", given.ridge, least=0.0)}

    def _loss(self) -> tuple[Any, dict[str, float]]:
        raise NotImplementedError

    def _fold(self, rows: np.ndarray, rng: np.random.Generator) -> Fold:
        """Hold a part of the rows out, if asked to."""
        given: Any = self
        if given.early_stopping not in ("auto", True, False):
            raise InputError(f"early_stopping={given.early_stopping!r} is not allowed: it is 'auto', True or False.")
        if given.early_stopping is False or (given.early_stopping == "auto" and len(rows) <= SMALL) or given.tol is None:
            return Fold(rows, rows[:0])
        fraction = given.validation_fraction
        held = round(fraction * len(rows)) if isinstance(fraction, float) and 0 < fraction < 1 else 0
        if not 0 < held < len(rows):
            raise InputError(
                f"validation_fraction={fraction} of {len(rows)} rows is not allowed: it leaves none to learn from or none held out."
            )
        order = rng.permutation(len(rows))
        return Fold(rows[np.sort(order[held:])], rows[np.sort(order[:held])])

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer) and not isinstance(self.random_state, bool):
            return whole("random_state", int(self.random_state), least=0)
        return int(check_random_state(self.random_state).randint(2**31))

    def _fit(self, examples: Examples) -> Self:
        """Fit the rows that have a weight."""
        rows, seed = np.flatnonzero(examples.weights > 0), self._seed()
        settings, numbers = self._settings(len(rows))
        fold = self._fold(rows, np.random.default_rng(seed))
        state = fitting.fit_one(settings, examples, fold, _lanes(numbers, examples), seed=seed, before=None)
        self._streamed = 0
        return self._keep(settings, state)

    def _go_on(self, examples: Examples) -> Self:
        """One epoch over some more rows."""
        rows = np.flatnonzero(examples.weights > 0)
        settings, numbers = self._settings(len(rows), streaming=True)
        before = getattr(self, "_state", None)
        count = getattr(self, "_streamed", 0)
        fold = Fold(rows, rows[:0])
        state = fitting.fit_one(settings, examples, fold, _lanes(numbers, examples), seed=self._seed() + count, before=before)
        self._streamed = count + 1
        return self._keep(settings, state)

    def _keep(self, settings: Settings, state: State) -> Self:
        """Remember a fit, and what it means in the units of the data."""
        if state.diverged:
            warnings.warn(
                "the objective diverged: a smaller learning_rate is needed. The best parameters on the way are kept.",
                ConvergenceWarning,
                stacklevel=4,
            )
        self._state, self._by, self._with_intercept = state, state.scales(settings), settings.intercept
        self.n_iter_, self.best_iter_, self.loss_curve_ = max(1, state.num_epochs), state.best_epoch, list(state.curve)
        return self

    def _adopt(self, template: Self, settings: Settings, params: np.ndarray, by: Scales) -> Self:
        """Be the fit with these parameters of columns so standardized, on the data that `template` has seen."""
        seen = ("n_features_in_", "feature_names_in_", "_flat", "classes_")
        vars(self).update({name: vars(template)[name] for name in seen if name in vars(template)})
        self._state = State(
            params=params,
            optimizer=[],
            features=Moments(1.0, by.center, by.scale**2),
            target=Moments(1.0, by.target_center, by.target_scale**2),
        )
        self._by, self._with_intercept, self.n_iter_ = by, settings.intercept, 1
        return self

    def _in_units(self) -> tuple[np.ndarray, np.ndarray]:
        """Slopes and intercepts in the units of the data, a column and an entry per target."""
        check_is_fitted(self, "n_iter_")
        params, by, first = self._state.params, self._by, int(self._with_intercept)
        slopes = params[first:] / by.scale[:, None] * by.target_scale
        level = params[0] * by.target_scale + by.target_center - by.center @ slopes if first else np.zeros(slopes.shape[1])
        return slopes, level

    def _predicted(self, X: ArrayLike) -> Float[np.ndarray, "n targets"]:
        check_is_fitted(self, "n_iter_")
        features: Any = validate_data(self, X, reset=False, dtype=np.float64)  # pyright: ignore[reportArgumentType]
        return fitting.predict(self._state.params, self._by, features, intercept=self._with_intercept)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_iter_")

    def get_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fit as (arrays, settings): a pytree of NumPy arrays, and what JSON can hold; `from_state` takes both.

        The arrays are the parameters of standardized columns, the leaves of the optimizer's state, the columns' moments and the loss
        curve. `partial_fit` goes on from there.
        """
        check_is_fitted(self, "n_iter_")
        state, given = self._state, self.get_params(deep=False)
        if not isinstance(given["optimizer"], str):
            raise InputError("an optimizer that is a function can't be saved: give the name of one.")
        given = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        given["random_state"] = given["random_state"] if isinstance(given["random_state"], int) else None
        arrays = {
            "params": state.params,
            "optimizer": list(state.optimizer),
            "features": {"mean": state.features.mean, "squares": state.features.squares},
            "target": {"mean": state.target.mean, "squares": state.target.squares},
            "loss_curve": np.asarray(state.curve),
        }
        names = getattr(self, "feature_names_in_", None)
        settings = {
            "estimator": type(self).__name__,
            "parameters": given,
            "weight": [state.features.weight, state.target.weight],
            "num_epochs": state.num_epochs,
            "best_epoch": state.best_epoch,
            "diverged": state.diverged,
            "streamed": self._streamed,
            "feature_names": None if names is None else list(names),
            **self._target_settings(),
        }
        return arrays, settings

    def save(self, path: str | Path) -> Path:
        """Write the fit to one file, safetensors with JSON settings: nothing in it is run when it is loaded.

        Raises
        ------
        InputError
            For an optimizer or a loss that is a function, which no file can hold.
        """
        arrays, settings = self.get_state()
        return persistence.save(path, arrays, kind=type(self).__name__, settings=settings)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The fitted estimator that `save` wrote.

        Raises
        ------
        InputError
            For a file that is not there, cut short, changed, of another kind, or from a later version.
        """
        saved = persistence.load(path, kind=cls.__name__)
        held = saved.arrays
        moments = {name: {part: held[f"{name}/{part}"] for part in ("mean", "squares")} for name in ("features", "target")}
        optimizer = [held[f"optimizer/{place}"] for place in range(sum(name.startswith("optimizer/") for name in held))]
        arrays = {"params": held["params"], "optimizer": optimizer, "loss_curve": held["loss_curve"]}
        return cls.from_state(arrays | moments, saved.settings)

    @classmethod
    def from_state(cls, arrays: dict[str, Any], settings: dict[str, Any]) -> Self:
        """The fitted estimator that `get_state` described."""
        if settings["estimator"] != cls.__name__:
            raise InputError(f"this is the state of a {settings['estimator']}, not of a {cls.__name__}.")
        model = cls(**settings["parameters"])
        moments = [
            Moments(weight, arrays[name]["mean"], arrays[name]["squares"])
            for weight, name in zip(settings["weight"], ("features", "target"), strict=True)
        ]
        model._restore_target(settings)
        model._streamed, model.n_features_in_ = settings["streamed"], len(moments[0].mean)
        if settings["feature_names"] is not None:
            model.feature_names_in_ = np.asarray(settings["feature_names"], dtype=object)
        state = State(
            params=arrays["params"],
            optimizer=list(arrays["optimizer"]),
            features=moments[0],
            target=moments[1],
            curve=np.asarray(arrays["loss_curve"]).tolist(),
            num_epochs=settings["num_epochs"],
            best_epoch=settings["best_epoch"],
        )
        fitted = model._keep(model._settings(1, streaming=True)[0], state)
        fitted._state = replace(state, diverged=settings["diverged"])
        return fitted

    def _target_settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def _restore_target(self, settings: dict[str, Any]) -> None:
        raise NotImplementedError


def _method(optimizer: Any, learning_rate: Any, given: dict[str, Any] | None) -> tuple[methods.Method, dict[str, float], bool]:
    """The optimizer, its numbers, and whether its learning rate can be lowered on the way."""
    build = methods.available().get(optimizer) if isinstance(optimizer, str) else optimizer
    takes = () if build is None or not callable(build) else inspect.signature(build).parameters
    name = "max_learning_rate" if "max_learning_rate" in takes and "learning_rate" not in takes else "learning_rate"
    rate = _positive(name, learning_rate, least=0.0)
    numbers = {name: rate} | dict(given or {})
    method, traced = methods.resolve(optimizer, numbers, also=())
    return method, {number: _number(number, numbers[number]) for number in traced}, name == "learning_rate"


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise InputError(f"{name}={value!r} is not allowed: it is a number.")
    return float(value)


def _positive(name: str, value: Any, *, least: float | None = None) -> float:
    number = _number(name, value)
    if number < (0.0 if least is None else least) or (least is None and number == 0):
        raise InputError(f"{name}={value!r} is not allowed: it is a number {'above 0' if least is None else f'of {least:g} or more'}.")
    return number


def _lanes(numbers: dict[str, float], examples: Examples) -> dict[str, np.ndarray]:
    """One lane for each target, all with the same numbers."""
    return {name: np.full(examples.target.shape[1], value) for name, value in numbers.items()}


def _weighted(X: Any, y: np.ndarray, sample_weight: Any) -> Examples:
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not (weights > 0).any():
        raise InputError("sample_weight is zero everywhere: at least one weight must not be zero.")
    return Examples(features=X, target=y, weights=weights)


class GradientDescentRegressor(RegressorMixin, _GradientDescent):
    """Linear regression by gradient descent: standardized columns, early stopping on held-out rows, any optax optimizer.

    Minimizes mean_i w_i loss(x_i'w + b, y_i) + ridge ||w||^2 over standardized columns, and leaves the parameters of the best epoch.

    Parameters
    ----------
    loss, loss_params
        A loss of `gdjax.losses`: "squared_error", "absolute", "huber", "bisquare", "student_t", or a likelihood; and its numbers
        (`delta`, `cutoff`, ...), in units of the standardized target.
    optimizer, learning_rate, optimizer_params
        The name of an optax optimizer or of one in `gdjax.methods`, or a callable learning_rate -> optimizer; its other numbers.
    batch_size
        Examples a step, dealt anew each epoch. "auto" takes all of them up to 200 examples, 32 otherwise.
    max_iter
        Epochs at most.
    tol, patience
        Training stops after `patience` epochs without a loss below the best by more than `tol`: the loss on the held-out rows where
        there are some, the training objective otherwise. None never stops, and holds nothing out.
    early_stopping, validation_fraction
        Whether a part of the rows is held out for that: "auto" does above 200 examples.
    plateau_factor, plateau_patience
        The learning rate is multiplied by the factor after more than so many epochs without an improvement, as in PyTorch's
        ReduceLROnPlateau.
    scale, scale_target
        Whether features and targets are standardized by the training rows.
    random_state
        Deals the batches and holds rows out.
    precision
        "float64" or "float32".

    Attributes
    ----------
    coef_, intercept_
        In the units of X and y, in the shapes of scikit-learn's LinearRegression.
    n_iter_, best_iter_, loss_curve_
        Epochs taken; the epoch whose parameters were kept; the training objective after each epoch, on standardized columns.

    >>> X = np.arange(40.0)[:, None]
    >>> model = GradientDescentRegressor(optimizer="sgd", learning_rate=0.3).fit(X, 3.0 * X[:, 0] - 2.0)
    >>> model.predict([[100.0]]).round(2).tolist()
    [298.0]
    """

    def __init__(
        self,
        *,
        loss: str = "squared_error",
        loss_params: dict[str, float] | None = None,
        optimizer: Any = "adam",
        optimizer_params: dict[str, Any] | None = None,
        learning_rate: float = 0.01,
        ridge: float = 0.0,
        batch_size: int | str = "auto",
        max_iter: int = 1000,
        tol: float | None = 1e-6,
        patience: int = 10,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.2,
        plateau_factor: float = 0.5,
        plateau_patience: int = 5,
        scale: bool = True,
        scale_target: bool = True,
        fit_intercept: bool = True,
        random_state: Any = None,
        precision: str = "float64",
    ) -> None:
        self.loss = loss
        self.loss_params = loss_params
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.learning_rate = learning_rate
        self.ridge = ridge
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.patience = patience
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.plateau_factor = plateau_factor
        self.plateau_patience = plateau_patience
        self.scale = scale
        self.scale_target = scale_target
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.precision = precision

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit from the start."""
        return self._fit(self._examples(X, y, sample_weight, reset=True))

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Take one epoch over some more rows of a stream, in batches; means and deviations go on being counted as well."""
        first = not self.__sklearn_is_fitted__()
        examples = self._examples(X, y, sample_weight, reset=first)
        earlier = examples.target.shape[1] if first else self._state.params.shape[1]
        if examples.target.shape[1] != earlier:
            raise InputError(f"y has {examples.target.shape[1]} targets; there were {earlier} before.")
        return self._go_on(examples)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict, in the shape that y had."""
        predicted = self._predicted(X)
        return predicted[:, 0] if self._flat else predicted

    def _examples(self, X: Any, y: Any, sample_weight: Any, *, reset: bool) -> Examples:
        features, target = validate_data(self, X, y, reset=reset, dtype=np.float64, multi_output=True, y_numeric=True)
        target = np.asarray(target, dtype=np.float64)
        if reset:
            self._flat = target.ndim == 1
        return _weighted(features, target.reshape(len(target), -1), sample_weight)

    def _loss(self) -> tuple[Any, dict[str, float]]:
        if self.loss not in REGRESSION_LOSSES:
            raise unknown_name("loss", str(self.loss), REGRESSION_LOSSES)
        loss = getattr(losses, self.loss)
        allowed = {
            name: number.default for name, number in inspect.signature(loss).parameters.items() if number.kind is number.KEYWORD_ONLY
        }
        for name in self.loss_params or {}:
            if name not in allowed:
                raise unknown_name(f"number of loss {self.loss}", name, allowed)
        return loss, {name: _positive(name, value) for name, value in (allowed | (self.loss_params or {})).items()}

    @property
    def coef_(self) -> np.ndarray:
        """The slopes, in units of y per unit of X."""
        slopes, _ = self._in_units()
        return slopes[:, 0] if self._flat else slopes.T

    @property
    def intercept_(self) -> Any:
        """What is predicted where every feature is 0."""
        _, level = self._in_units()
        return float(level[0]) if self._flat else level

    def _target_settings(self) -> dict[str, Any]:
        return {"flat": self._flat}

    def _restore_target(self, settings: dict[str, Any]) -> None:
        self._flat = settings["flat"]

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class GradientDescentClassifier(ClassifierMixin, _GradientDescent):
    """Logistic regression by gradient descent, one class against the rest where there are more than two.

    Minimizes mean_i w_i log(1 + exp(-t_i (x_i'w + b))) + ridge ||w||^2, t = +-1, over standardized columns. Parameters and attributes
    are those of `GradientDescentRegressor`, but for the loss and the target's scale.

    >>> X = np.arange(40.0)[:, None]
    >>> model = GradientDescentClassifier(learning_rate=0.1).fit(X, np.where(X[:, 0] > 20, "high", "low"))
    >>> model.predict([[3.0], [35.0]]).tolist()
    ['low', 'high']
    """

    def __init__(
        self,
        *,
        optimizer: Any = "adam",
        optimizer_params: dict[str, Any] | None = None,
        learning_rate: float = 0.01,
        ridge: float = 0.0,
        batch_size: int | str = "auto",
        max_iter: int = 1000,
        tol: float | None = 1e-6,
        patience: int = 10,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.2,
        plateau_factor: float = 0.5,
        plateau_patience: int = 5,
        scale: bool = True,
        fit_intercept: bool = True,
        random_state: Any = None,
        precision: str = "float64",
    ) -> None:
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.learning_rate = learning_rate
        self.ridge = ridge
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.patience = patience
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.plateau_factor = plateau_factor
        self.plateau_patience = plateau_patience
        self.scale = scale
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.precision = precision

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit from the start."""
        return self._fit(self._examples(X, y, sample_weight, reset=True))

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Take one epoch over some more rows of a stream; the first call is told all `classes`."""
        first = not self.__sklearn_is_fitted__()
        return self._go_on(self._examples(X, y, sample_weight, reset=first, classes=classes))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """x'w + b, one column per class where there are more than two."""
        scores = self._predicted(X)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The class of the greatest score."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The classes' probabilities; of more than two, each one's against the rest, made to add up to 1."""
        chances = expit(self.decision_function(X))
        return np.stack([1.0 - chances, chances], axis=1) if chances.ndim == 1 else chances / chances.sum(axis=1, keepdims=True)

    def _examples(self, X: Any, y: Any, sample_weight: Any, *, reset: bool, classes: Any = None) -> Examples:
        """+1 for the class of a column and -1 for the others; of two classes, one column for the second."""
        validated: Any = validate_data(self, X, y, reset=reset, dtype=np.float64)  # pyright: ignore[reportArgumentType]
        features, labels = validated[0], np.asarray(validated[1])
        check_classification_targets(labels)
        examples = _weighted(features, labels[:, None], sample_weight)
        present = np.unique(labels[examples.weights > 0])
        if reset:
            self.classes_ = present if classes is None else np.unique(np.asarray(classes))
        if len(self.classes_) < 2:
            raise InputError(
                f"y holds one class, {self.classes_.tolist()[0]!r}, where weights are above 0: there is nothing to tell apart."
            )
        if not np.isin(present, self.classes_).all():
            raise InputError(f"y holds labels that are none of the classes {self.classes_.tolist()}.")
        columns = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        return replace(examples, target=np.where(labels[:, None] == columns, 1.0, -1.0))

    def _loss(self) -> tuple[Any, dict[str, float]]:
        return losses.logistic, {}

    @property
    def coef_(self) -> np.ndarray:
        """The slopes, a row per score."""
        return self._in_units()[0].T

    @property
    def intercept_(self) -> np.ndarray:
        """The scores where every feature is 0."""
        return self._in_units()[1]

    def _target_settings(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _restore_target(self, settings: dict[str, Any]) -> None:
        self.classes_ = np.asarray(settings["classes"], dtype=settings["dtype"])
