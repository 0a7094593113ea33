"""A search's numbers are those of fitting each candidate on each fold alone; all of one structure are one program."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from gdjax import GradientDescentClassifier, GradientDescentRegressor, SweepSearchCV, fitting, program
from tests.conftest import random_data

NUM_EXAMPLES = 330  # of which a fold learns from 220: batches, and rows held out
ALONE = {"rtol": 1e-9, "atol": 1e-9}  # a lane among others is the lane alone but for round-off, some hundred steps long


@pytest.fixture(scope="module")
def data():
    X, y = random_data(NUM_EXAMPLES, 3)
    return X * [1e-2, 1.0, 1e2] + [0.0, 5.0, -10.0], y


def regressor(**settings):
    return GradientDescentRegressor(**{"random_state": 3, "max_iter": 12} | settings)


GRID = {"learning_rate": [1e-3, 0.1], "ridge": [0.0, 0.3], "optimizer_params": [{"b1": 0.9}, {"b1": 0.2}]}


class TestScores:
    @pytest.mark.parametrize(
        ("settings", "grid", "scoring"),
        [
            ({}, GRID, None),
            (
                {"early_stopping": False, "tol": 1e-3, "patience": 2},
                {"learning_rate": [0.01, 0.1], "loss": ["huber", "squared_error"]},
                "explained_variance",
            ),
            ({"batch_size": 1000, "plateau_patience": 1}, GRID, "neg_root_mean_squared_error"),
        ],
        ids=["held out", "two losses, by the objective", "full gradients"],
    )
    def test_they_are_those_of_every_candidate_alone(self, data, settings, grid, scoring):
        ours, theirs = (
            search(regressor(**settings), grid, cv=3, scoring=scoring, return_train_score=True).fit(*data)
            for search in (SweepSearchCV, GridSearchCV)
        )
        assert set(ours.cv_results_) == set(theirs.cv_results_)
        for name, column in theirs.cv_results_.items():
            if "score" in name and "time" not in name:
                np.testing.assert_allclose(ours.cv_results_[name], column, **ALONE, err_msg=name)
            elif name.startswith("param"):
                assert list(ours.cv_results_[name]) == list(column)
        assert len(set(ours.cv_results_["mean_test_score"].round(9))) > 2
        assert (ours.best_params_, ours.best_index_, ours.n_splits_) == (theirs.best_params_, theirs.best_index_, 3)
        np.testing.assert_allclose(ours.predict(data[0]), theirs.predict(data[0]), rtol=1e-9)
        np.testing.assert_allclose(ours.score(*data), theirs.score(*data), rtol=1e-9)

    def test_of_a_classifier_of_three_classes(self, data):
        """Which are three columns of targets."""
        X, y = data
        model, labels = GradientDescentClassifier(random_state=0, max_iter=4), np.digitize(y, np.quantile(y, [0.3, 0.7]))
        ours, theirs = (
            search(model, {"learning_rate": [1e-3, 0.1]}, cv=2, refit=False).fit(X, labels) for search in (SweepSearchCV, GridSearchCV)
        )
        np.testing.assert_allclose(ours.cv_results_["split1_test_score"], theirs.cv_results_["split1_test_score"], **ALONE)

    def test_rows_without_a_weight_are_not_learnt_from(self, data):
        X, y = data
        weights = (np.arange(NUM_EXAMPLES) % 12 > 0).astype(float)
        search = SweepSearchCV(regressor(), GRID, cv=KFold(3), refit=False).fit(X, y, sample_weight=weights)
        for fold, (train, test) in enumerate(KFold(3).split(X)):
            alone = regressor(**search.cv_results_["params"][1]).fit(X[train], y[train], sample_weight=weights[train])
            np.testing.assert_allclose(search.cv_results_[f"split{fold}_test_score"][1], alone.score(X[test], y[test]), rtol=1e-9)


def test_a_fold_sees_its_own_rows_only(data):
    """Not in its batches, nor in its scales, nor in what it holds out."""
    X, y = data
    settings, numbers = regressor(optimizer_params={"b1": 0.9})._settings(NUM_EXAMPLES)
    lanes = {name: np.full(8, value) for name, value in numbers.items()}
    folds = [fitting.Fold(np.arange(100, 300), np.arange(300, 330)), fitting.Fold(np.arange(200), np.arange(200, 230))]
    rows = fitting.Examples(features=X, target=y[:, None], weights=np.ones(NUM_EXAMPLES))
    spoilt = fitting.Examples(features=np.where(np.arange(NUM_EXAMPLES)[:, None] < 230, X, 1e6), target=rows.target, weights=rows.weights)
    calm, wild = (fitting.fit(settings, examples, folds, lanes, seed=0) for examples in (rows, spoilt))
    # of other data, what is left of columns that have been standardized twice is round-off
    np.testing.assert_allclose(wild.params[1], calm.params[1], rtol=1e-6)
    assert np.abs(wild.params[0] - calm.params[0]).max() > 0.1


def test_numbers_are_lanes_of_one_program_and_other_losses_another(data):
    grid = {"learning_rate": list(np.geomspace(1e-3, 0.1, 40)), "loss": ["huber"]}
    before = len(program._programs)
    SweepSearchCV(regressor(), grid, cv=3, refit=False).fit(*data)
    assert len(program._programs) - before == 2  # where fits begin, and how they go on
    SweepSearchCV(regressor(tol=1e-2, max_iter=20, random_state=9), grid, cv=3, refit=False).fit(*data)
    assert len(program._programs) - before == 2


def test_candidates_may_be_drawn_from_distributions(data):
    drawn = {"learning_rate": scipy.stats.loguniform(1e-3, 0.1), "ridge": [0.0, 0.1], "optimizer_params": [{"b1": 0.9}]}
    search = SweepSearchCV(regressor(), drawn, n_iter=8, cv=3, random_state=0).fit(*data)
    assert len({candidate["learning_rate"] for candidate in search.cv_results_["params"]}) == 8
    assert search.best_estimator_.learning_rate == search.best_params_["learning_rate"]
    assert search.n_features_in_ == 3


class TestRefusals:
    def test_what_is_none_of_ours_is_refused(self, data, mistake):
        assert "scikit-learn" in mistake(SweepSearchCV(make_pipeline(regressor()), {"ridge": [0.0]}).fit, *data)

    def test_a_typo_has_its_nearest_name(self, data, mistake):
        message = mistake(SweepSearchCV(regressor(), {"learning_rat": [0.1]}).fit, *data)
        assert "'learning_rate'" in message

    def test_without_a_refit_there_is_nothing_to_predict_with(self, data):
        search = SweepSearchCV(regressor(), GRID, cv=3, refit=False).fit(*data)
        with pytest.raises(AttributeError, match="refit"):
            search.predict(data[0])
