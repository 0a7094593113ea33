"""A problem's minimizer, minimum and curvatures are the true ones, on the host and inside a trace; wrong data is refused."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from sklearn.datasets import load_breast_cancer, load_diabetes

import gdjax
from gdjax import cli, problems
from gdjax.problems import by_name
from tests import reference
from tests.conftest import random_data

CLOSED_FORM = 1e-10  # the reference's own: a closed form of 80 numbers in float64, to 6 digits more than that needs
DECOMPOSED = 1e-8  # the reference's own: round-off (1e-16) times the data's condition number, up to 7e3, squared


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def diabetes():
    return load_diabetes(return_X_y=True, scaled=False)


def squared_loss(params, example):
    x, y = example
    return (params["b"] + x @ params["w"] - y) ** 2


@pytest.mark.parametrize("hessian", [None, False])
class TestNotebookLine:
    """N01 to N09."""

    def test_truth_is_the_reference(self, hessian):
        problem = problems.notebook_line(hessian=hessian)
        np.testing.assert_allclose(problem.minimizer, reference.NOTEBOOK_MINIMIZER, rtol=CLOSED_FORM)
        np.testing.assert_allclose(problem.minimum, reference.NOTEBOOK_MINIMUM, rtol=CLOSED_FORM)
        curvatures = [problem.strong_convexity, problem.smoothness]
        np.testing.assert_allclose(curvatures, 2 * np.array(reference.NOTEBOOK_GRAM_EIGENVALUES), rtol=CLOSED_FORM)
        np.testing.assert_allclose(problem.condition_number, reference.NOTEBOOK_CONDITION_NUMBER, rtol=1e-9)  # the reference's own

    def test_rates_follow_from_the_hessian_of_the_loss(self, hessian):
        problem = problems.notebook_line(hessian=hessian)
        L, mu, kappa = problem.smoothness, problem.strong_convexity, problem.condition_number
        np.testing.assert_allclose(2 / L, reference.NOTEBOOK_CRITICAL_RATE, rtol=CLOSED_FORM)
        np.testing.assert_allclose(2 / (L + mu), reference.NOTEBOOK_BEST_RATE, rtol=CLOSED_FORM)
        np.testing.assert_allclose(((kappa - 1) / (kappa + 1)) ** 2, reference.NOTEBOOK_BEST_FACTOR, rtol=CLOSED_FORM)

    def test_objective_and_gradient_are_those_of_the_examples(self, hessian):
        problem = problems.notebook_line(hessian=hessian)
        np.testing.assert_allclose(problem.objective(np.zeros(2)), reference.NOTEBOOK_OBJECTIVE_AT_ZERO, rtol=CLOSED_FORM)
        np.testing.assert_allclose(problem.objective(np.array([2.5, 1.7])), reference.NOTEBOOK_OBJECTIVE_AT_TRUTH, rtol=CLOSED_FORM)
        np.testing.assert_allclose(problem.gradient(np.zeros(2)), reference.NOTEBOOK_GRADIENT_AT_ZERO, rtol=CLOSED_FORM)
        np.testing.assert_allclose(problem.objective(problem.minimizer), reference.NOTEBOOK_MINIMUM, rtol=CLOSED_FORM)


def test_diabetes_raw_is_the_reference():
    X, y = diabetes()
    problem = problems.least_squares(X, y)
    low, high, ratio = reference.DIABETES_RAW_GRAM
    np.testing.assert_allclose(problem.objective(np.zeros(11)), reference.DIABETES_AT_ZERO, rtol=CLOSED_FORM)
    np.testing.assert_allclose(problem.minimum, reference.DIABETES_MINIMUM, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.smoothness, 2 * high, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.strong_convexity, 2 * low, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.condition_number, ratio, rtol=DECOMPOSED)


def test_diabetes_standardised_is_the_reference():
    X, y = diabetes()
    problem = problems.least_squares(standardised(X), y)
    low, high, ratio = reference.DIABETES_STANDARDISED_GRAM
    np.testing.assert_allclose(problem.minimizer, reference.DIABETES_STANDARDISED_MINIMIZER, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.minimum, reference.DIABETES_MINIMUM, rtol=DECOMPOSED)
    np.testing.assert_allclose([problem.strong_convexity, problem.smoothness], [2 * low, 2 * high], rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.condition_number, ratio, rtol=DECOMPOSED)


def test_breast_cancer_ridge_logistic_is_the_reference():
    X, y = load_breast_cancer(return_X_y=True)
    problem = problems.logistic(standardised(X), y, ridge=0.005)
    np.testing.assert_allclose(problem.minimum, reference.BREAST_CANCER_MINIMUM, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.minimizer[:5], reference.BREAST_CANCER_FIRST_PARAMS, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.strong_convexity, reference.BREAST_CANCER_STRONG_CONVEXITY, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.smoothness, reference.BREAST_CANCER_SMOOTHNESS, rtol=DECOMPOSED)
    np.testing.assert_allclose(problem.objective(problem.minimizer), reference.BREAST_CANCER_MINIMUM, rtol=DECOMPOSED)
    assert np.linalg.norm(problem.gradient(problem.minimizer)) < 1e-14  # round-off of a mean of numbers of size 1
    features, target = problem.data
    assert np.mean((features @ problem.minimizer > 0) == (target > 0)) == pytest.approx(reference.BREAST_CANCER_ACCURACY, rel=1e-15)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("num_examples", "num_features", "scale"), [(50, 5, 1.0), (50, 5, 1e4), (6, 5, 1.0)])
def test_minimizer_solves_the_normal_equations(intercept, num_examples, num_features, scale):
    X, y = random_data(num_examples, num_features)
    X = X * np.geomspace(1.0, scale, num_features)
    problem = problems.least_squares(X, y, intercept)
    features = np.column_stack([np.ones(num_examples), X]) if intercept else X
    residual = features @ problem.minimizer - y
    # backward stable: exact for features off by 1e-16 |X|, which moves X'r by |X| times 1e-16 (|X| |theta| + |y|)
    size = np.linalg.norm(features)
    assert np.linalg.norm(features.T @ residual) < 1e-15 * size * (size * np.linalg.norm(problem.minimizer) + np.linalg.norm(y))
    np.testing.assert_allclose(problem.minimum, np.mean(residual**2), rtol=1e-12, atol=1e-28)  # n = p + 1 interpolates: 0 to rounding
    curvatures = np.linalg.svd(features, compute_uv=False) ** 2 * 2 / num_examples
    np.testing.assert_allclose(problem.smoothness, curvatures[0], rtol=1e-12)  # singular values are exact to 1e-16 of the largest
    np.testing.assert_allclose(problem.strong_convexity, curvatures[-1], rtol=1e-8)  # 1e-16 * 1e4 * 2
    np.testing.assert_allclose(problem.hessian, 2 * features.T @ features / num_examples, rtol=1e-10, atol=1e-14)


def collinear(kind):
    X, y = random_data(30, 3)
    if kind == "constant":
        X[:, 1] = 2.0  # a multiple of the intercept's ones
    elif kind == "duplicate":
        X[:, 2] = X[:, 0]
    elif kind == "wide":
        X, y = random_data(5, 8)
    return X, y


@pytest.mark.parametrize(("kind", "said"), [("constant", "rank 3 of 4"), ("duplicate", "rank 3 of 4"), ("wide", "rank 5 of 9")])
def test_collinear_columns_warn(kind, said):
    with pytest.warns(UserWarning, match=said):
        problems.least_squares(*collinear(kind))


@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
@pytest.mark.parametrize("kind", ["constant", "duplicate", "wide"])
def test_collinear_columns_give_the_minimizer_of_least_norm(kind):
    X, y = collinear(kind)
    problem = problems.least_squares(X, y)
    features = np.column_stack([np.ones(len(y)), X])
    best, _, rank, singular = np.linalg.lstsq(features, y, rcond=1e-10)
    np.testing.assert_allclose(problem.minimizer, best, rtol=1e-10, atol=1e-12)  # round-off times a condition number of 10
    np.testing.assert_allclose(problem.minimizer, np.linalg.pinv(features, rcond=1e-10) @ y, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(problem.strong_convexity, 2 * singular[rank - 1] ** 2 / len(y), rtol=1e-10)
    np.testing.assert_allclose(problem.minimum, np.mean((features @ best - y) ** 2), rtol=1e-10, atol=1e-25)


@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
@pytest.mark.parametrize("kind", ["constant", "duplicate", "wide"])
def test_gradient_descent_from_zero_converges_to_the_minimizer_of_least_norm(kind):
    problem = problems.least_squares(*collinear(kind))
    ds = gdjax.sweep(problem, sampler="full", num_steps=20_000, record_every=20_000, learning_rate=1.0 / float(problem.smoothness))
    # condition numbers are below 500, so e^(-20000 / 500) = 4e-18 of the start is left; the rest is round-off that piles up along
    # the directions with no curvature, 1e-16 a step
    assert float(ds.distance[-1]) < 1e-10
    np.testing.assert_allclose(ds.params, problem.minimizer, atol=1e-10)


@pytest.mark.parametrize("builder", [problems.least_squares, lambda X, y: problems.least_squares(X, y, False, hessian=False)])
def test_least_squares_built_in_a_trace_is_the_one_built_on_the_host(builder):
    X, y = random_data(40, 4)
    traced, host = jax.jit(builder)(X, y), builder(X, y)
    assert jax.tree.structure(traced) == jax.tree.structure(host)
    for here, there in zip(jax.tree.leaves(traced), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-14)  # two QRs of a matrix of condition number 2


def test_designed_spectrum_built_in_a_trace_is_the_one_built_on_the_host():
    eigenvalues, start = np.array([0.5, 2.0, 0.0]), np.array([1.0, -1.0, 3.0])
    traced, host = jax.jit(problems.designed_spectrum)(eigenvalues, start), problems.designed_spectrum(eigenvalues, start)
    assert jax.tree.structure(traced) == jax.tree.structure(host)
    jax.tree.map(np.testing.assert_array_equal, traced, host)


def test_designed_spectrum_has_the_prescribed_truth():
    problem = problems.designed_spectrum([0.5, 4.0, 0.0, 2.0])
    assert (problem.smoothness, problem.strong_convexity, problem.condition_number) == (4.0, 0.5, 8.0)
    assert float(problem.objective(problem.start)) == 3.25
    assert float(problem.objective(problem.minimizer)) == problem.minimum == 0.0
    np.testing.assert_array_equal(problem.start, np.ones(4))
    np.testing.assert_array_equal(problem.gradient(np.array([1.0, 2.0, 3.0, 4.0])), [0.5, 8.0, 0.0, 8.0])


@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
def test_hessian_is_formed_only_where_it_is_less_work():
    assert problems.least_squares(*random_data(20, 3)).hessian is not None
    assert problems.least_squares(*random_data(20, 3), hessian=False).hessian is None
    assert problems.least_squares(*random_data(5, 30)).hessian is None  # p^2 > 2 n p
    assert problems.least_squares(*random_data(5, 30), hessian=True).hessian.shape == (31, 31)


def test_notebook_line_is_numpy_seed_42():
    features, target = problems.notebook_line().data
    noise = np.random.default_rng(42).normal(0, 1.0, 80)
    np.testing.assert_array_equal(features, np.column_stack([np.ones(80), np.linspace(0, 10, 80)]))
    np.testing.assert_array_equal(target, 2.5 + 1.7 * features[:, 1] + noise)


def test_page_data_are_the_page_s():
    some, everything = problems.page_data(num_examples=400), problems.page_data()
    assert everything.parameter_names == ("b", "w1", "w2", "w3")
    np.testing.assert_allclose(some.minimizer, reference.PAGE_MINIMIZER, rtol=1e-12)
    np.testing.assert_allclose(some.minimum, reference.PAGE_MINIMUM, rtol=1e-12)
    np.testing.assert_allclose(some.objective(some.start), reference.PAGE_AT_ZERO, rtol=1e-12)
    np.testing.assert_allclose(
        [some.strong_convexity / 2, some.smoothness / 2], np.take(reference.PAGE_GRAM_EIGENVALUES, [0, -1]), rtol=1e-12
    )
    np.testing.assert_allclose(2 / some.smoothness, reference.PAGE_CRITICAL_RATE, rtol=1e-12)
    np.testing.assert_allclose(everything.minimizer, reference.PAGE_500_MINIMIZER, rtol=1e-12)
    np.testing.assert_allclose(everything.minimum, reference.PAGE_500_MINIMUM, rtol=1e-12)
    np.testing.assert_allclose(2 / everything.smoothness, reference.PAGE_500_CRITICAL_RATE, rtol=1e-12)


@pytest.mark.parametrize("num_examples", [0, 501, 2.5])
def test_page_data_are_five_hundred_rows(num_examples, mistake):
    assert f"num_examples={num_examples} is not allowed" in mistake(problems.page_data, num_examples=num_examples)


def test_random_linear_has_the_page_s_shape_and_truth():
    problem = problems.random_linear()
    assert (problem.num_examples, problem.parameter_names) == (500, ("b", "w1", "w2", "w3"))
    # the noise 0.3 leaves 0.3 / sqrt(500) = 0.013 in each coefficient: four deviations
    np.testing.assert_allclose(problem.minimizer, [3.0, 2.0, -1.5, 0.5], atol=0.054)
    np.testing.assert_array_equal(problem.data[1], problems.random_linear().data[1])
    assert (problem.data[1] != problems.random_linear(seed=1).data[1]).all()


def test_logistic_minimizer_is_stationary_whatever_the_classes_are_called():
    X, _ = random_data(60, 3)
    y = (X[:, 0] + 0.5 * np.random.default_rng(1).normal(size=60) > 0).astype(float)
    built = [problems.logistic(X, labels, ridge=0.01) for labels in (y, 2 * y - 1, 5 * y + 3)]
    for problem in built:
        assert np.linalg.norm(problem.gradient(problem.minimizer)) < 1e-14  # round-off of a mean of numbers of size 1
        np.testing.assert_array_equal(problem.minimizer, built[0].minimizer)
    features = np.column_stack([np.ones(60), X])
    share = 1 / (1 + np.exp(-features @ built[0].minimizer))
    hessian = features.T @ (features * (share * (1 - share))[:, None]) / 60 + 0.02 * np.diag([0, 1, 1, 1])
    eigenvalues = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(built[0].strong_convexity, eigenvalues[0], rtol=1e-12)  # the same formula, summed in another order
    assert eigenvalues[-1] <= built[0].smoothness


def test_logistic_does_not_penalise_the_intercept():
    X, _ = random_data(60, 2)
    y = (X[:, 0] > 0.3).astype(float)
    heavy = problems.logistic(X, y, ridge=1e6)
    share = y.mean()
    # the weights are below 1 / (4 ridge) = 2.5e-7, so the intercept alone fits the shares
    np.testing.assert_allclose(heavy.minimizer, [np.log(share / (1 - share)), 0.0, 0.0], atol=1e-6)


def test_logistic_without_ridge_promises_no_minimizer():
    X, _ = random_data(20, 2)
    problem = problems.logistic(X, X[:, 0] > 0)
    assert (problem.minimizer, problem.minimum, problem.strong_convexity, problem.condition_number) == (None, None, None, None)


def robust_notebook(copy, loss, **constants):
    features, target = problems.notebook_line().data if copy == "clean" else problems.notebook_outliers().data
    return problems.robust_regression(features[:, 1:], target, loss, **constants)


@pytest.mark.parametrize("copy", ["clean", "contaminated"])
class TestRobustRegression:
    """N26 to N28; their fits were found to 1e-9."""

    @pytest.mark.parametrize("delta", [1.0, 1.345])
    def test_huber_is_the_reference(self, copy, delta):
        fit, loss = reference.HUBER[copy][delta]
        problem = robust_notebook(copy, "huber", delta=delta)
        np.testing.assert_allclose(problem.minimizer, fit, rtol=1e-9)
        np.testing.assert_allclose(problem.minimum, loss, rtol=CLOSED_FORM)

    def test_least_absolute_is_the_reference(self, copy):
        fit, loss = reference.LEAST_ABSOLUTE[copy]
        problem = robust_notebook(copy, "absolute")
        np.testing.assert_allclose(problem.minimizer, fit, rtol=1e-9)
        np.testing.assert_allclose(problem.minimum, loss, rtol=CLOSED_FORM)
        assert problem.smoothness is None

    def test_student_t_is_the_reference(self, copy):
        fit, scale, loss = reference.STUDENT_T_3[copy]
        problem = robust_notebook(copy, "student_t", degrees=3.0, scale=scale)
        np.testing.assert_allclose(problem.minimizer, fit, rtol=1e-7)  # the reference's own
        np.testing.assert_allclose(problem.minimum, loss, rtol=CLOSED_FORM)
        fit, loss = reference.STUDENT_T_3_UNIT_SCALE[copy]
        np.testing.assert_allclose(robust_notebook(copy, "student_t").minimizer, fit, rtol=1e-9)

    @pytest.mark.parametrize("loss", ["huber", "student_t", "bisquare", "squared_error", "gaussian_nll"])
    def test_minimizer_is_stationary_and_smoothness_bounds_the_curvature(self, copy, loss):
        problem = robust_notebook(copy, loss)
        assert np.linalg.norm(problem.gradient(problem.minimizer)) < 1e-12  # round-off of sums of 80 numbers up to 300
        np.testing.assert_allclose(problem.objective(problem.minimizer), problem.minimum, rtol=1e-13)
        for params in (problem.minimizer, np.zeros(2), np.array([2.0, 1.8])):
            assert np.linalg.eigvalsh(jax.jacfwd(problem.gradient)(params))[-1] <= problem.smoothness * (1 + 1e-12)


def test_least_squares_is_the_robust_regression_with_the_squared_error():
    problem = problems.notebook_outliers(loss="squared_error")
    fit, minimum = reference.LEAST_SQUARES_CONTAMINATED
    np.testing.assert_allclose(problem.minimizer, fit, rtol=1e-9)
    np.testing.assert_allclose(problem.minimum, minimum, rtol=CLOSED_FORM)
    assert float(problem.smoothness) == pytest.approx(2 * reference.NOTEBOOK_GRAM_EIGENVALUES[1], rel=CLOSED_FORM)


def test_huber_s_curvature_is_half_of_least_squares():
    ratio = problems.notebook_line().smoothness / problems.notebook_outliers(loss="huber").smoothness
    assert float(ratio) == pytest.approx(2.0, rel=1e-12)  # two decompositions of one matrix


@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
@pytest.mark.parametrize("loss", ["huber", "absolute"])
@pytest.mark.parametrize("kind", ["duplicate", "constant"])
def test_collinear_columns_give_the_robust_fit_of_least_norm(kind, loss):
    X, y = collinear(kind)
    minimizer = problems.robust_regression(X, y, loss, **({"delta": 1e3} if loss == "huber" else {})).minimizer
    features = np.column_stack([np.ones(len(y)), X])
    nothing = np.linalg.svd(features)[2][-1]  # what the examples don't see
    assert abs(nothing @ minimizer) < 1e-12
    if loss == "huber":  # with all residuals inside
        np.testing.assert_allclose(minimizer, problems.least_squares(X, y).minimizer, rtol=1e-9, atol=1e-12)


def test_robust_regression_built_in_a_trace_is_the_one_built_on_the_host():
    X, y = random_data(40, 4)
    for loss, number in (("huber", "delta"), ("student_t", "scale"), ("bisquare", "cutoff")):
        traced = jax.jit(lambda y, value, loss=loss, number=number: problems.robust_regression(X, y, loss, **{number: value}))(y, 0.4)
        host = problems.robust_regression(X, y, loss, **{number: 0.4})
        assert jax.tree.structure(traced) == jax.tree.structure(host)
        for here, there in zip(jax.tree.leaves(traced), jax.tree.leaves(host), strict=True):
            np.testing.assert_allclose(here, there, rtol=1e-11, atol=1e-13)  # the same iteration, in another order of sums
    assert jax.jit(lambda y: problems.robust_regression(X, y, "absolute"))(y).minimizer is None


def test_whitened_features_are_orthogonal_and_lead_back():
    features = np.column_stack([np.ones(50), random_data(50, 3)[0]]) * [1.0, 30.0, 0.2, 5.0]
    basis, back = problems.whitened(features)
    np.testing.assert_allclose(basis.T @ basis / 50, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(features @ back, basis, atol=1e-13)


@pytest.mark.parametrize(
    ("loss", "constants", "said"),
    [
        ("hubert", {}, "'huber'"),
        ("logistic", {}, "unknown loss"),
        ("huber", {"dleta": 1.0}, "'delta'"),
        ("huber", {"delta": 0.0}, "above 0"),
    ],
)
def test_an_unknown_robust_loss_or_number_is_refused(loss, constants, said, mistake):
    assert said in mistake(problems.robust_regression, *random_data(20, 3), loss, **constants)


def test_objective_and_gradient_match_finite_differences(small):
    params, half = np.array([0.3, -0.2, 0.5, 1.0]), 1e-4
    for problem in (small, problems.logistic(random_data(20, 3)[0], small.data[1] > 0, ridge=0.1)):
        differences = [
            float(problem.objective(params + half * axis) - problem.objective(params - half * axis)) / (2 * half) for axis in np.eye(4)
        ]
        # round-off 1e-16 * 10 / 1e-4; truncation half^2 / 6 times a third derivative below 1
        np.testing.assert_allclose(problem.gradient(params), differences, atol=1e-8)


class TestFromLoss:
    def test_objective_is_the_mean_over_the_examples(self):
        X, y = random_data(20, 3)
        start = {"b": 0, "w": np.zeros(3)}
        problem = problems.from_loss(squared_loss, (X, y), start, smoothness=3.0, strong_convexity=0.5)
        params = {"b": 0.5, "w": np.array([1.0, -1.0, 2.0])}
        residual = 0.5 + X @ params["w"] - y
        value, gradient = problem.value_and_gradient(params)
        np.testing.assert_allclose(value, np.mean(residual**2), rtol=1e-13)  # a sum of 20 terms
        np.testing.assert_allclose(gradient["b"], 2 * np.mean(residual), rtol=1e-12)
        np.testing.assert_allclose(gradient["w"], 2 * X.T @ residual / 20, rtol=1e-12)
        assert (problem.num_examples, problem.condition_number, problem.name) == (20, 6.0, "squared_loss")
        assert (problem.minimizer, problem.minimum) == (None, None)

    @pytest.mark.parametrize("data", [(np.zeros((3, 2)), np.zeros(4)), np.zeros((0, 2)), np.float64(1.0), ()])
    def test_data_without_a_common_first_axis_is_refused(self, data, mistake):
        assert "first ax" in mistake(problems.from_loss, squared_loss, data, np.zeros(2))


class TestArrays:
    """What `least_squares` and `logistic` take, and refuse."""

    def test_a_column_target_does_not_broadcast(self):
        X, y = random_data(20, 3)
        np.testing.assert_array_equal(problems.least_squares(X, y[:, None]).minimizer, problems.least_squares(X, y).minimizer)

    def test_one_feature_may_be_a_vector(self):
        X, y = random_data(20, 1)
        np.testing.assert_array_equal(problems.least_squares(X[:, 0], y).minimizer, problems.least_squares(X, y).minimizer)

    @pytest.mark.parametrize("builder", [problems.least_squares, problems.logistic])
    @pytest.mark.parametrize(
        ("X", "y", "said"),
        [
            (np.zeros((5, 2)), np.zeros(4), ("(5, 2)", "(4,)", "(n, p)")),
            (np.zeros((5, 2)), np.zeros((5, 2)), ("(5, 2)",)),
            (np.zeros((5, 2, 2)), np.zeros(5), ("(5, 2, 2)", "(n, p)")),
            (np.zeros((0, 2)), np.zeros(0), ("(0, 2)", "at least one row")),
            (np.zeros((3, 0)), np.zeros(3), ("(3, 0)", "one column")),
            (np.array([[1.0], [np.nan], [np.inf]]), np.zeros(3), ("X", "2 ", "NaN")),
            (np.zeros((3, 1)), np.array([0.0, np.nan, 1.0]), ("y", "1 ", "NaN")),
        ],
        ids=["rows differ", "wide target", "three axes", "no rows", "no columns", "NaN in X", "NaN in y"],
    )
    def test_unfit_arrays_are_refused(self, builder, X, y, said, mistake):
        message = mistake(builder, X, y)
        assert all(word in message for word in said)

    @pytest.mark.parametrize("y", [np.zeros(6), np.arange(6.0)], ids=["one class", "six classes"])
    def test_logistic_needs_two_classes(self, y, mistake):
        message = mistake(problems.logistic, np.arange(6.0), y)
        assert "two" in message
        assert f"{np.unique(y).size}" in message

    @pytest.mark.parametrize("ridge", [-1.0, np.nan])
    def test_a_ridge_is_0_or_more(self, ridge, mistake):
        assert "ridge" in mistake(problems.logistic, np.arange(6.0), np.arange(6) % 2, ridge=ridge)

    @pytest.mark.parametrize(
        ("eigenvalues", "start", "said"),
        [
            ([], None, "(0,)"),
            ([[1.0]], None, "(1, 1)"),
            ([1.0, -0.5], None, "-0.5"),
            ([0.0, 0.0], None, "above 0"),
            ([1.0, np.nan], None, "nan"),
            ([1.0, 2.0], [1.0], "(1,)"),
        ],
    )
    def test_an_unfit_spectrum_is_refused(self, eigenvalues, start, said, mistake):
        assert said in mistake(problems.designed_spectrum, eigenvalues, start)


class TestNamed:
    def test_a_builder_is_found_by_name(self):
        problem = problems.named("random_linear", num_examples=30, noise=None)  # None is not given
        assert (problem.name, problem.num_examples) == ("random_linear", 30)
        assert problems.named("diabetes", scale=None, hessian=None).num_examples == 442

    def test_a_shipped_data_set_is_found_by_name(self):
        X, y = diabetes()
        problem = problems.named("diabetes", scale="standardize")
        np.testing.assert_allclose(problem.minimizer, problems.least_squares(standardised(X), y).minimizer, rtol=DECOMPOSED)

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("notebook_lin", {}, "'notebook_line'"),
            ("random_linear", {"nois": 0.1}, "'noise'"),
            ("diabetes", {"scale": "standardise"}, "standardize"),
            ("diabetes", {"loss": "hubber"}, "Did you mean 'huber'?"),
            ("diabetes", {"loss": ["huber"]}, "unknown loss"),
            ("diabetes", {"loss": "huber", "dleta": 1.0}, "Did you mean 'delta'?"),
            ("diabetes", {"delta": 1.0}, "problem.delta goes with problem.loss=huber, and the loss is squared_error"),
            ("diabetes", {"loss": "logistic", "hessian": True}, "problem.hessian goes with problem.loss=squared_error"),
            ("diabetes", {"loss": "huber", "delta": "abc"}, "delta=abc is not allowed"),
            ("breast_cancer", {"loss": "logistic", "ridge": True}, "ridge=True is not allowed"),
            ("diabetes", {"intercept": "maybe"}, "problem.intercept='maybe' is not allowed"),
            ("iris", {"loss": "logistic"}, "tells two classes apart, and 'target' of scikit-learn: iris has 3: 0, 1, 2."),
            ("diabetes", {"loss": "logistic"}, "has 214: 25, 31, 37, 39, 40, .."),
        ],
    )
    def test_a_typo_is_refused_with_the_nearest_name(self, name, options, said, mistake):
        assert said in mistake(problems.named, name, **options)


class TestMlpClassification:
    LABELS = np.array(["cat", "dog", "cat", "emu", "dog", "emu", "cat"])
    X = np.random.default_rng(8).normal(size=(7, 4))

    @pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
    def test_objective_is_the_mean_over_examples_and_the_gradient_its_slope(self, loss):
        problem = problems.mlp_classification(self.X, self.LABELS, hidden=(5, 3), loss=loss)
        (U, a), (V, b), (W, c) = problem.start
        outputs = np.tanh(np.tanh(self.X @ U + a[None]) @ V + b[None]) @ W + c[None]
        places = np.array([0, 1, 0, 2, 1, 2, 0])
        if loss == "cross_entropy":
            wanted = np.mean(np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(7), places])
        else:
            wanted = 0.5 * np.mean(np.sum((outputs - np.eye(3)[places]) ** 2, axis=1))
        assert float(problem.objective(problem.start)) == pytest.approx(wanted, rel=1e-14)
        objective = jax.jit(problem.objective)
        gradient, half = jax.jit(problem.gradient)(problem.start), 1e-6
        for layer, at in ((0, (2, 3)), (2, (1, 2))):
            moved = [jax.tree.map(np.copy, problem.start) for _ in range(2)]
            for params, sign in zip(moved, (1.0, -1.0), strict=True):
                params[layer].weight[at] += sign * half
            slope = (float(objective(moved[0])) - float(objective(moved[1]))) / (2 * half)
            assert float(gradient[layer].weight[at]) == pytest.approx(slope, abs=1e-9)  # 1e-16 / 1e-6, and half^2

    def test_nothing_is_said_of_what_is_not_known(self):
        problem = problems.mlp_classification(self.X, self.LABELS)
        assert problem.minimizer is problem.minimum is problem.smoothness is problem.condition_number is None

    def test_softmax_regression_has_no_hidden_layer(self):
        problem = problems.mlp_classification(self.X, self.LABELS, hidden=())
        assert [layer.weight.shape for layer in problem.start] == [(4, 3)]

    def test_rates_and_seeds_are_one_program_for_equal_networks(self, compilations):
        for seed in (0, 1):  # another start is data
            problem = problems.mlp_classification(self.X, self.LABELS, hidden=3, seed=seed)
            ds = gdjax.sweep(problem, num_steps=6, batch_size=3, seed=range(2), learning_rate=[0.1, 0.2, 1e200], observer=compilations)
        assert compilations.count == 1
        assert np.isnan(ds.suboptimality).all()
        assert (ds.diverged_at >= 0).values.tolist() == [[False, False, True]] * 2
        loop, gradient = problem.start, jax.jit(problem.gradient)
        for _ in range(6):
            loop = jax.tree.map(lambda x, g: x - 0.2 * g, loop, gradient(loop))
        full = gdjax.sweep(problem, sampler="full", num_steps=6, learning_rate=[0.1, 0.2])
        np.testing.assert_allclose(full.objective[1, -1], problem.objective(loop), rtol=1e-13)

    def test_the_scale_of_the_weights_is_an_axis(self):
        def scaled(weight_scale):
            return problems.mlp_classification(self.X, self.LABELS, hidden=3, weight_scale=weight_scale)

        ds = gdjax.sweep(scaled, sampler="full", num_steps=1, learning_rate=0.1, weight_scale=[0.5, 2.0])
        alone = [scaled(scale).objective(scaled(scale).start) for scale in (0.5, 2.0)]
        np.testing.assert_allclose(ds.objective[:, 0], alone, rtol=1e-14)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"labels": ["cat"] * 7}, "labels has one class, cat"),
            ({"labels": [0.0] * 6 + [np.nan]}, "labels holds 1 NaN"),
            ({"labels": np.zeros((7, 2))}, "labels has shape (7, 2)"),
            ({"labels": [0, 1]}, "they must be (n, p) and (n,)"),
            ({"hidden": 0}, "hidden=0 is not allowed"),
            ({"hidden": [8, 2.5]}, "hidden=2.5 is not allowed"),
            ({"activation": "tnh"}, "Did you mean 'tanh'?"),
            ({"loss": "crossentropy"}, "Did you mean 'cross_entropy'?"),
            ({"weight_scale": 0.0}, "weight_scale=0.0 is not allowed"),
            ({"seed": -1}, "seed=-1 is not allowed"),
        ],
    )
    def test_a_mistake_is_named(self, options, said, mistake):
        labels = options.pop("labels") if "labels" in options else self.LABELS
        assert said in mistake(problems.mlp_classification, self.X, labels, **options)

    def test_a_data_set_s_target_are_labels(self):
        problem = problems.named("mlp_classification", data="iris", path=None, num_examples=100, hidden=[6])
        assert problem.name == "mlp on scikit-learn: iris"
        np.testing.assert_allclose(problem.data[0].std(axis=0), 1.0, rtol=1e-12)
        assert np.unique(problem.data[1]).tolist() == [0, 1]  # of the first 100 rows


LOSSES = {
    "least_squares": lambda X, y: problems.least_squares(X, y),
    "no intercept, no Hessian": lambda X, y: problems.least_squares(X, y, False, hessian=False),
    "huber": lambda X, y: problems.robust_regression(X, y, "huber", delta=0.4),
    "absolute": lambda X, y: problems.robust_regression(X, y, "absolute"),
    "logistic": lambda X, y: problems.logistic(X, y > 1.0, ridge=0.1),
    "logistic, no intercept": lambda X, y: problems.logistic(X, y > 1.0, False, ridge=0.1),
    "logistic, no ridge": lambda X, y: problems.logistic(X, y > 1.0),
}


class TestLossOfADataSet:
    """A data set's problem is its loss's builder on its columns."""

    @pytest.fixture
    def people(self, tmp_path):
        X, y = random_data(30, 2)
        table = pd.DataFrame({"height": X[:, 0], "age": X[:, 1], "size": y, "member": np.where(y > 1.0, "yes", "no")})
        table.to_csv(tmp_path / "people.csv", index=False)
        return X, y, {"path": tmp_path / "people.csv", "features": ["height", "age"]}

    @pytest.mark.parametrize("scale", ["none", "standardize"])
    def test_logistic_takes_classes_that_are_text(self, people, scale):
        X, y, options = people
        problem = problems.named("csv", target="member", loss="logistic", ridge=0.1, scale=scale, **options)
        direct = problems.logistic(X if scale == "none" else standardised(X), y > 1.0, ridge=0.1)
        np.testing.assert_array_equal(problem.data[1], direct.data[1])
        np.testing.assert_allclose(problem.minimizer, direct.minimizer, rtol=1e-10)  # columns from another rounding
        assert (problem.name, problem.parameter_names) == ("csv: people.csv, logistic", ("b", "height", "age"))

    @pytest.mark.parametrize(
        ("loss", "options", "constants"),
        [("huber", {"delta": 1}, {"delta": 1.0}), ("student_t", {"degrees": 4, "loss_scale": 0.5}, {"degrees": 4.0, "scale": 0.5})],
    )
    def test_a_robust_loss_takes_its_own_numbers(self, people, loss, options, constants):
        X, y, file = people
        problem = problems.named("csv", target="size", loss=loss, intercept=False, **options, **file)
        direct = problems.robust_regression(X, y, loss, intercept=False, **constants)
        assert problem.constants == constants
        assert [type(value) for value in problem.constants.values()] == [float] * len(constants)  # 1 and 1.0 are one program
        np.testing.assert_array_equal(problem.minimizer, direct.minimizer)

    def test_every_option_of_a_loss_has_a_place_in_the_configuration(self):
        settings = set(OmegaConf.load(cli.config_folder() / "data_set.yaml"))
        assert settings == {"scale", "intercept", "loss"}.union(*(by_name.numbers_of_loss(loss) for loss in by_name.all_losses()))


class TestSplit:
    """Training problem and held-out examples are the problem's own, once each."""

    @pytest.mark.parametrize("kind", LOSSES)
    def test_some_of_the_examples_are_the_problem_built_on_them(self, kind):
        X, y = random_data(30, 2)
        rows = np.arange(3, 28)
        part, direct = problems.restricted(LOSSES[kind](X, y), rows), LOSSES[kind](X[rows], y[rows])
        assert jax.tree.structure(part) == jax.tree.structure(direct)
        jax.tree.map(np.testing.assert_array_equal, part, direct)

    def test_of_another_loss_nothing_is_known(self):
        X, y = random_data(20, 2)
        problem = problems.from_loss(squared_loss, (X, y), {"b": 0, "w": np.zeros(2)}, minimum=0.1, smoothness=3.0)
        train, held_out = problems.split(problem, 0.25)
        assert (train.num_examples, held_out.num_examples, train.minimum, train.smoothness) == (15, 5, None, None)

    def test_a_network_s_columns_are_standardized_anew_too(self):
        network = problems.named("mlp_classification", data="iris", hidden=2)
        train, held_out = problems.split(network, 0.2, standardized=True)
        np.testing.assert_allclose(train.data[0].std(axis=0), 1.0, rtol=1e-12)
        assert (train.data[0].shape, held_out.data[0].shape) == ((120, 4), (30, 4))

    def test_every_example_is_on_one_side(self, notebook):
        train, held_out = problems.split(notebook, 0.2, seed=3)
        assert (train.num_examples, held_out.num_examples) == (64, 16)
        together = np.concatenate([train.data[1], held_out.data[1]])
        np.testing.assert_array_equal(np.sort(together), np.sort(notebook.data[1]))
        np.testing.assert_array_equal(problems.split(notebook, 0.2, seed=3)[1].data[1], held_out.data[1])
        assert set(problems.split(notebook, 0.2, seed=4)[1].data[1]) != set(held_out.data[1])
        assert held_out.minimum is None

    @pytest.mark.filterwarnings("ignore:the columns of X are collinear")
    @pytest.mark.parametrize(("share", "held"), [(1e-9, 1), (0.5, 40), (1 - 1e-9, 79)])
    def test_some_are_left_on_both_sides(self, share, held):
        _, held_out = problems.split(problems.page_data(num_examples=80), share)
        assert held_out.num_examples == held

    def test_columns_are_standardized_by_what_is_not_held_out(self):
        X, y = random_data(30, 2)
        raw = problems.least_squares(X * 50.0 + 7.0, y)
        train, held_out = problems.split(problems.least_squares(standardised(X * 50.0 + 7.0), y), 0.3, standardized=True)
        for part, here in zip((train, held_out), problems.split(raw, 0.3), strict=True):
            own = problems.split(raw, 0.3)[0].data[0][:, 1:]
            expected = (here.data[0][:, 1:] - own.mean(axis=0)) / own.std(axis=0)
            np.testing.assert_allclose(part.data[0], np.column_stack([np.ones(len(expected)), expected]), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(train.minimum, problems.split(raw, 0.3)[0].minimum, rtol=1e-10)  # least squares knows no scale

    @pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, "much", True, np.nan, None])
    def test_a_share_is_between_0_and_1(self, share, notebook, mistake):
        assert f"validation={share} is not allowed" in mistake(problems.split, notebook, share)

    def test_what_is_no_mean_has_nothing_to_hold_out(self, mistake):
        assert "designed_spectrum has no examples to hold out" in mistake(problems.split, problems.designed_spectrum([1.0]), 0.2)

    def test_one_class_is_not_enough_to_learn_from(self, mistake):
        problem = problems.logistic(np.arange(8.0), np.arange(8) == 7, ridge=0.1)
        assert "are of one class" in mistake(problems.restricted, problem, np.arange(4))
