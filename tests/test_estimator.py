"""The estimators keep scikit-learn's contract whole, and what they fit is gradient descent on standardized columns, by hand."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import check_estimator

import gdjax
from gdjax import GradientDescentClassifier, GradientDescentRegressor, fitting, program
from tests.conftest import random_data

NUM_EXAMPLES = 300  # above 200: batches and held-out rows
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}  # a few hundred steps of sums in another order


@pytest.fixture(scope="module")
def data():
    """Columns of very different size and place."""
    X, y = random_data(NUM_EXAMPLES, 3)
    return X * [1e-3, 1.0, 1e3] + [0.0, 50.0, -1e3], y


@pytest.mark.parametrize("estimator", [GradientDescentRegressor(), GradientDescentClassifier()], ids=lambda one: type(one).__name__)
def test_scikit_learn_s_checks_pass_whole(estimator):
    outcomes = check_estimator(estimator, on_skip=None)
    assert len(outcomes) > 50
    assert {one["check_name"] for one in outcomes if one["status"] != "passed"} <= {"check_array_api_input"}  # wants SCIPY_ARRAY_API set


class TestByHand:
    def test_full_gradients_are_a_loop_on_standardized_columns(self, data):
        X, y = data[0][:100], data[1][:100]
        weights = np.random.default_rng(1).uniform(0.5, 2.0, 100)
        model = GradientDescentRegressor(optimizer="sgd", learning_rate=0.1, ridge=0.01, max_iter=30, tol=None).fit(
            X, y, sample_weight=weights
        )
        share = weights / weights.sum()
        mean, spread = share @ X, np.sqrt(share @ (X - share @ X) ** 2)
        level, unit = share @ y, np.sqrt(share @ (y - share @ y) ** 2)
        Z, t, w, curve = (X - mean) / spread, (y - level) / unit, np.zeros(3), []
        for _ in range(30):
            w = w - 0.1 * (2.0 * Z.T @ (share * (Z @ w - t)) + 0.02 * w)
            curve.append(share @ (Z @ w - t) ** 2 + 0.01 * w @ w)
        np.testing.assert_allclose(model.loss_curve_, curve, **ROUNDING)
        np.testing.assert_allclose(model.coef_, w * unit / spread, **ROUNDING)
        np.testing.assert_allclose(model.predict(X), level + unit * (Z @ w), **ROUNDING)
        np.testing.assert_allclose(model.intercept_ + X @ model.coef_, model.predict(X), **ROUNDING)
        assert model.n_iter_ == 30

    def test_training_stops_when_the_held_out_loss_does_not_fall_and_keeps_the_best_parameters(self, data):
        how = {"learning_rate": 0.03, "patience": 4, "random_state": 5}
        stopped = GradientDescentRegressor(**how, max_iter=200).fit(*data)
        assert stopped.n_iter_ == stopped.best_iter_ + 4 == len(stopped.loss_curve_)
        until = GradientDescentRegressor(**how, max_iter=stopped.best_iter_).fit(*data)
        np.testing.assert_allclose(stopped.coef_, until.coef_, rtol=1e-12)
        np.testing.assert_array_equal(stopped.loss_curve_[: until.n_iter_], until.loss_curve_)

    def test_held_out_rows_are_not_learnt_from(self, data):
        X, y = data
        model = GradientDescentRegressor(random_state=5, max_iter=3)
        fold = model._fold(np.arange(NUM_EXAMPLES), np.random.default_rng(5))
        assert (len(fold.train), len(fold.held_out)) == (240, 60)
        assert sorted([*fold.train, *fold.held_out]) == list(range(NUM_EXAMPLES))
        spoilt = y.copy()
        spoilt[fold.held_out] = y[fold.held_out][::-1]
        np.testing.assert_array_equal(
            model.fit(X, y).loss_curve_, GradientDescentRegressor(random_state=5, max_iter=3).fit(X, spoilt).loss_curve_
        )

    def test_units_of_columns_make_no_difference(self, data):
        X, y = data
        model = GradientDescentRegressor(random_state=0, max_iter=20).fit(X, y)
        other = GradientDescentRegressor(random_state=0, max_iter=20).fit(X * [1e5, 1.0, -1e-4] + 3.0, 1e3 * y - 7.0)
        np.testing.assert_allclose(other.predict(X * [1e5, 1.0, -1e-4] + 3.0), 1e3 * model.predict(X) - 7.0, rtol=1e-7)

    def test_small_data_are_fitted_as_well_as_by_least_squares(self, data):
        X, y = data[0][:150], data[1][:150]
        assert GradientDescentRegressor().fit(X, y).score(X, y) > LinearRegression().fit(X, y).score(X, y) - 1e-4

    def test_a_robust_loss_withstands_outliers(self, data):
        X, y = data
        spoilt = y + 100.0 * (np.arange(NUM_EXAMPLES) % 10 == 0)
        how = {"random_state": 0, "learning_rate": 0.03}
        plain = GradientDescentRegressor(**how).fit(X, spoilt)
        robust = GradientDescentRegressor(**how, loss="huber", loss_params={"delta": 0.1}).fit(X, spoilt)
        assert robust.score(X, y) > 0.9 > plain.score(X, y)

    def test_weights_of_zero_are_rows_left_away(self, data):
        X, y = data
        weights = (np.arange(NUM_EXAMPLES) % 3 > 0).astype(float)
        model = GradientDescentRegressor(random_state=0, max_iter=5).fit(X, y, sample_weight=weights)
        other = GradientDescentRegressor(random_state=0, max_iter=5).fit(X[weights > 0], y[weights > 0])
        assert other.n_iter_ == 5
        np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-9)

    def test_a_run_that_diverges_warns_and_keeps_its_best_parameters(self, data):
        X, y = data[0][:100], data[1][:100]
        with pytest.warns(ConvergenceWarning, match="learning_rate"):
            model = GradientDescentRegressor(optimizer="sgd", learning_rate=50.0, plateau_patience=500).fit(X, y)
        assert model.best_iter_ == 0
        np.testing.assert_allclose(model.predict(X), y.mean())


class TestStreams:
    def test_partial_fits_learn(self, data):
        X, y = data
        model = GradientDescentRegressor(random_state=0, learning_rate=0.02)
        for _ in range(8):
            for part in np.array_split(np.arange(NUM_EXAMPLES), 3):
                model.partial_fit(X[part], y[part])
        assert model.n_iter_ == len(model.loss_curve_) == 24
        assert model.score(X, y) > LinearRegression().fit(X, y).score(X, y) - 0.01

    def test_columns_that_move_are_standardized_anew_without_a_change_of_predictions(self, data):
        X, y = data
        model = GradientDescentRegressor(random_state=0, max_iter=20).fit(X[:250], y[:250])
        before, scale = model.predict(X), model._by.scale
        model.set_params(learning_rate=0.0).partial_fit(10.0 * X[250:], 10.0 * y[250:])
        assert (model._by.scale > 1.5 * scale).all()
        np.testing.assert_allclose(model.predict(X), before, **ROUNDING)

    def test_moments_of_parts_are_those_of_the_whole(self, data):
        X, weights = data[0], np.random.default_rng(0).uniform(size=NUM_EXAMPLES)
        whole = fitting.moments(X, weights)
        parts = fitting.moments(X[:70], weights[:70]).joined(fitting.moments(X[70:], weights[70:]))
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        np.testing.assert_allclose(whole.deviation, np.sqrt(np.cov(X.T, aweights=weights, ddof=0).diagonal()), rtol=1e-12)

    def test_another_number_of_targets_is_refused(self, data, mistake):
        X, y = data
        model = GradientDescentRegressor(random_state=0).partial_fit(X, y)
        assert "2 targets" in mistake(model.partial_fit, X, np.stack([y, y], axis=1))


class TestPrograms:
    def test_fits_of_one_shape_share_their_program_whatever_their_numbers(self, data):
        X, y = data
        GradientDescentRegressor(max_iter=3).fit(X, y)
        before = len(program._programs)
        GradientDescentRegressor(max_iter=50, learning_rate=0.1, ridge=0.1, tol=1e-3, patience=2, plateau_patience=1, random_state=7).fit(
            X, y
        )
        GradientDescentRegressor(optimizer_params={"b1": 0.5}, max_iter=4).fit(X, y)
        after = len(program._programs)
        assert after - before == 2  # b1 given is another program, and where it begins
        GradientDescentRegressor(optimizer_params={"b1": 0.7}, max_iter=4).fit(X[:299, :2], y[:299])
        assert len(program._programs) == after

    def test_single_precision_is_close(self, data):
        X, y = data[0][:100], data[1][:100]
        one, other = (GradientDescentRegressor(max_iter=20, precision=precision).fit(X, y) for precision in ("float32", "float64"))
        np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-4, atol=1e-4)


class TestInterface:
    def test_predictions_have_the_target_s_shape(self, data):
        X, y = data[0][:100], data[1][:100]
        both = np.stack([y, -2.0 * y], axis=1)
        flat, column, two = (GradientDescentRegressor(max_iter=30).fit(X, target) for target in (y, y[:, None], both))
        assert (flat.predict(X).shape, column.predict(X).shape, two.predict(X).shape) == ((100,), (100, 1), (100, 2))
        assert (flat.coef_.shape, two.coef_.shape, np.shape(flat.intercept_), two.intercept_.shape) == ((3,), (2, 3), (), (2,))
        np.testing.assert_allclose(column.predict(X)[:, 0], flat.predict(X), rtol=1e-12)
        np.testing.assert_allclose(two.predict(X), flat.predict(X)[:, None] * [1.0, -2.0], rtol=1e-9)

    def test_it_works_in_a_pipeline_and_a_search_and_knows_names(self, data):
        X, y = pd.DataFrame(data[0][:100], columns=["a", "b", "c"]), data[1][:100]
        model = GradientDescentRegressor(max_iter=20).fit(X, y)
        assert model.feature_names_in_.tolist() == ["a", "b", "c"]
        pipeline = make_pipeline(PolynomialFeatures(2, include_bias=False), GradientDescentRegressor(max_iter=50))
        search = GridSearchCV(pipeline, {"gradientdescentregressor__learning_rate": [1e-6, 0.05]}, cv=2).fit(X, y)
        assert search.best_params_ == {"gradientdescentregressor__learning_rate": 0.05}

    def test_a_classifier_is_near_logistic_regression(self, data):
        X, y = data
        labels = np.array(["low", "middle", "high"])[np.digitize(y, np.quantile(y, [0.3, 0.7]))]
        for target in (labels, labels == "low"):
            model = GradientDescentClassifier(random_state=0, learning_rate=0.05).fit(X, target)
            scaled = (X - X.mean(axis=0)) / X.std(axis=0)
            assert model.score(X, target) > LogisticRegression(C=1e4).fit(scaled, target).score(scaled, target) - 0.06
            np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
            assert set(model.classes_) == set(np.unique(target))

    @pytest.mark.parametrize("estimator", [GradientDescentRegressor, GradientDescentClassifier])
    def test_a_fit_is_plain_arrays_and_settings_and_a_file_holds_it(self, data, estimator, tmp_path):
        X, y = pd.DataFrame(data[0], columns=["a", "b", "c"]), data[1]
        target = y if estimator is GradientDescentRegressor else np.where(y > np.median(y), "high", "low")
        model = estimator(max_iter=np.int64(5), random_state=3, optimizer_params={"b1": 0.8}).fit(X, target)
        arrays, settings = model.get_state()
        again, loaded = estimator.from_state(arrays, json.loads(json.dumps(settings))), estimator.load(model.save(tmp_path / "fit"))
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        further = model.partial_fit(X, target)
        for one, other in ((again.partial_fit(X, target), further), (loaded.partial_fit(X, target), further)):
            np.testing.assert_array_equal(one.predict(X), other.predict(X))
            np.testing.assert_array_equal(one.coef_, other.coef_)
            assert one.loss_curve_ == other.loss_curve_
        assert again.n_iter_ == model.n_iter_ == 6

    def test_a_file_of_another_kind_or_cut_short_is_refused(self, data, tmp_path, mistake):
        path = GradientDescentRegressor(max_iter=5).fit(*data).save(tmp_path / "fit")
        assert "GradientDescentRegressor" in mistake(GradientDescentClassifier.load, path)
        path.write_bytes(path.read_bytes()[:-3])
        mistake(GradientDescentRegressor.load, path)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"loss": "hubber"}, ["'hubber'", "'huber'"]),
            ({"loss": "huber", "loss_params": {"delt": 1.0}}, ["'delt'", "'delta'"]),
            ({"loss": "huber", "loss_params": {"delta": 0.0}}, ["delta=0.0", "above 0"]),
            ({"optimizer": "adamm"}, ["'adamm'", "'adam'"]),
            ({"optimizer_params": {"b3": 0.5}}, ["'b3'"]),
            ({"learning_rate": -1.0}, ["learning_rate=-1.0", "0 or more"]),
            ({"learning_rate": "fast"}, ["learning_rate='fast'"]),
            ({"ridge": np.nan}, ["ridge=nan"]),
            ({"batch_size": 0}, ["batch_size=0"]),
            ({"max_iter": 2.5}, ["max_iter=2.5"]),
            ({"patience": 0}, ["patience=0"]),
            ({"tol": -1.0}, ["-1.0", "0 or more"]),
            ({"early_stopping": "maybe"}, ["early_stopping='maybe'"]),
            ({"early_stopping": True, "validation_fraction": 1.5}, ["validation_fraction=1.5"]),
            ({"plateau_factor": 0.0}, ["plateau_factor=0.0"]),
            ({"precision": "float16"}, ["float16"]),
        ],
    )
    def test_a_mistake_is_named(self, data, settings, said, mistake):
        message = mistake(GradientDescentRegressor(**settings).fit, *data)
        assert [word for word in said if word not in message] == []

    def test_they_are_exported_without_being_imported(self):
        assert gdjax.GradientDescentRegressor is GradientDescentRegressor
        with warnings.catch_warnings(), pytest.raises(AttributeError, match="no attribute"):
            _ = gdjax.GradientDescentRegresor
