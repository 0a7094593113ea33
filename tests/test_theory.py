"""Closed forms against numbers computed elsewhere (ids are the reference's)."""

import numpy as np
import pytest

from gdjax import problems, theory
from tests import reference

N21 = {  # exact stationary excess at rate 0.005 on the notebook's data
    (1, "with_replacement"): 0.1331141636159614,
    (4, "with_replacement"): 0.029047665102463403,
    (4, "without_replacement"): 0.027899763904110742,
    (16, "with_replacement"): 0.007038655828090304,
    (16, "without_replacement"): 0.005691133040540021,
    (40, "with_replacement"): 0.0027982647556077625,
    (40, "without_replacement"): 0.0014140006373612446,
    (80, "with_replacement"): 0.0013962897195243101,
    (80, "without_replacement"): 0.0,
}
N22 = {  # mean-square critical rate
    (1, "with_replacement"): 0.01629215466570688,
    (4, "with_replacement"): 0.024367250789474652,
    (4, "without_replacement"): 0.024520562926953978,
    (16, "with_replacement"): 0.027794693747388657,
    (16, "without_replacement"): 0.028043904716718963,
    (40, "with_replacement"): 0.02859752900869609,
    (40, "without_replacement"): 0.028871843806282705,
    (80, "with_replacement"): 0.02887539433046456,
    (80, "without_replacement"): 0.02915863040148442,
}
N24 = {  # exact E[J_k] - J* at rate 0.01, B = 16 without replacement
    1: 17.927635567967926,
    2: 3.1230337907778907,
    10: 1.1880619420525105,
    100: 0.49262599837315374,
    200: 0.19092675635635592,
    400: 0.03863714563916473,
}


@pytest.fixture(scope="module")
def line():
    return problems.notebook_line()


@pytest.mark.parametrize(("batch", "sampler"), N21)
def test_noise_floor_is_the_reference_one(line, batch, sampler):
    floor = theory.noise_floor(line, 0.005, batch, sampler=sampler)
    assert floor == pytest.approx(N21[batch, sampler], rel=1e-8, abs=1e-14)  # a linear solve of condition about 1e3


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 0.014512987195298489), (0.02, 0.06490026795249038)])
def test_noise_floor_at_other_rates_is_the_reference_one(line, rate, expected):
    assert theory.noise_floor(line, rate, 16) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("batch", "sampler"), N22)
def test_mean_square_edge_is_the_reference_one(line, batch, sampler):
    assert theory.mean_square_edge(line, batch, sampler=sampler) == pytest.approx(N22[batch, sampler], rel=1e-8)


def test_no_noise_floor_past_the_mean_square_edge(line):
    assert np.isinf(theory.noise_floor(line, 0.025, 4))


def test_expected_suboptimality_is_the_reference_one_and_ends_at_the_floor(line):
    expected = theory.expected_suboptimality(line, [0.01, 0.02], 16, 4000)
    assert expected[0, list(N24)] == pytest.approx(list(N24.values()), rel=1e-8)
    floors = [theory.noise_floor(line, rate, 16) for rate in (0.01, 0.02)]
    assert floors == pytest.approx([0.014512987195298489, 0.06490026795249038], rel=1e-8)  # N23
    assert expected[:, -1] == pytest.approx(floors, rel=1e-6)  # what is left of the start after 4,000 steps is below 1e-9


def test_moments_of_the_whole_batch_are_gradient_descent(line):
    whole = theory.expected_suboptimality(line, [0.01, 0.028], 80, 300)
    exact = theory.gradient_descent(theory.modes(line), [0.01, 0.028], np.arange(301))
    assert whole == pytest.approx(exact, rel=1e-10)


def test_gradient_descent_is_the_step_done_by_hand():
    problem = problems.least_squares([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], [1.0, 2.0, 3.0], intercept=False)
    X, y = problem.data
    theta, values = np.zeros(2), []
    for _ in range(6):
        values.append(np.mean((X @ theta - y) ** 2) - problem.minimum)
        theta = theta - 0.2 * 2 / 3 * X.T @ (X @ theta - y)
    assert theory.gradient_descent(theory.modes(problem), 0.2, range(6))[0] == pytest.approx(values, rel=1e-12)


def test_edge_and_optimal_rate_are_the_references(line):
    L, mu = line.smoothness, line.strong_convexity
    assert theory.stability_edge(L) == pytest.approx(0.029158630401484423, rel=1e-10)
    assert theory.optimal_rate(L, mu) == pytest.approx(0.02894833272260901, rel=1e-10)
    assert theory.contraction(theory.optimal_rate(L, mu), L, mu) ** 2 == pytest.approx(0.9713592897211271, rel=1e-10)
    assert theory.contraction(0.05, L, mu) == pytest.approx(2.4295163600999983, rel=1e-10)


def test_modes_need_no_formed_hessian(line):
    plain, formed = theory.modes(problems.notebook_line(hessian=False)), theory.modes(line)
    assert plain.curvatures == pytest.approx(formed.curvatures, rel=1e-12)
    assert np.abs(plain.start) == pytest.approx(np.abs(formed.start), rel=1e-10)


def test_modes_of_what_is_no_quadratic_are_refused():
    with pytest.raises(ValueError, match="no quadratic"):
        theory.modes(problems.logistic([[0.0], [1.0], [2.0]], [0, 1, 0], ridge=0.1))


def test_moments_are_known_for_least_squares_by_independent_batches_only(line):
    assert theory.has_moments(line, "with_replacement")
    assert not theory.has_moments(line, "reshuffled")
    assert not theory.has_moments(problems.designed_spectrum([1.0]), "with_replacement")
    assert not theory.has_moments(problems.logistic([[0.0], [1.0], [2.0]], [0, 1, 0], ridge=0.1), "with_replacement")


def test_collinear_columns_keep_the_moments_of_their_span(line):
    X, y = line.data
    with pytest.warns(UserWarning, match="collinear"):
        doubled = problems.least_squares(np.c_[X[:, 1], X[:, 1]], y)
    single = problems.least_squares(np.sqrt(2) * X[:, 1], y)  # what two equal columns are, by least norm
    assert theory.mean_square_edge(doubled, 4) == pytest.approx(theory.mean_square_edge(single, 4), rel=1e-9)
    assert theory.noise_floor(doubled, 0.002, 4) == pytest.approx(theory.noise_floor(single, 0.002, 4), rel=1e-8)


def test_what_is_left_along_each_eigenvector_makes_up_the_suboptimality(notebook):
    modes, rates, steps = theory.modes(notebook), [0.001, 0.02, 0.05], [0, 1, 10, 300]
    left = theory.gradient_descent_errors(modes, rates, steps)
    np.testing.assert_allclose(0.5 * left**2 @ modes.curvatures, theory.gradient_descent(modes, rates, steps), rtol=1e-12)


def test_steps_to_a_tolerance_are_the_first_that_reach_it(notebook):
    modes = theory.modes(notebook)
    for rate in (0.001, 0.01, 0.028):
        curve = theory.gradient_descent(modes, rate, np.arange(20_000))[0]
        for tolerance in (0.5, 1e-3, 1e-6):
            assert theory.steps_to_tolerance(modes, rate, tolerance) == np.argmax(curve <= tolerance * curve[0])


def test_steps_at_the_optimal_rate_hold_for_every_condition_number():
    assert theory.steps_at_optimal_rate([1.0, 3.0], 1e-6).tolist() == [1, 10]  # (1/2)^20 < 1e-6 < (1/2)^18
    assert theory.steps_at_optimal_rate(1e14, np.exp(-4.0)) == pytest.approx(1e14, rel=1e-9)  # ln((k - 1) / (k + 1)) -> -2 / k


@pytest.mark.parametrize(("n", "rate"), reference.RESHUFFLED_SCALAR)
def test_reshuffled_noise_of_one_parameter_is_exact(n, rate):
    targets = np.random.default_rng(0).normal(size=n)
    targets = (targets - targets.mean()) / targets.std()
    problem = problems.least_squares(np.ones((n, 1)), targets, False)  # (x - a)^2 is twice the reference's: half its rate
    assert theory.reshuffled_noise(problem, rate / 2, 1) == pytest.approx(reference.RESHUFFLED_SCALAR[n, rate], rel=1e-10)
    independent = theory.noise_floor(problem, rate / 2, 1, sampler="with_replacement")
    assert independent == pytest.approx(reference.INDEPENDENT_SCALAR[n, rate], rel=1e-10)
    grown = theory.reshuffled_noise(problem, rate / 2, 1, [0, 1, 2, 1e9])
    assert grown[0] == 0
    assert grown[1] < grown[2] < grown[3] == pytest.approx(reference.RESHUFFLED_SCALAR[n, rate], rel=1e-10)


def test_floors_on_the_page_s_data_are_the_reference_ones():
    problem = problems.page_data(num_examples=400)
    for sampler in theory.INDEPENDENT:
        assert theory.noise_floor(problem, 0.01, 32, sampler=sampler) == pytest.approx(reference.PAGE_FLOORS[sampler], rel=1e-8)
    assert theory.noise_floor(problem, 0.01, 1) == pytest.approx(reference.PAGE_SGD_FLOOR, rel=1e-8)
    # first order in the noise, against a Monte Carlo of 0.4 %; the last batch of an epoch is short
    assert theory.reshuffled_noise(problem, 0.01, 32) == pytest.approx(reference.PAGE_FLOORS["reshuffled"], rel=0.01)


def test_one_rate_for_each_step_is_taken_in_that_order(notebook):
    constant = theory.expected_suboptimality(notebook, [0.005], 16, 100)
    np.testing.assert_array_equal(theory.expected_suboptimality(notebook, np.full((1, 100), 0.005), 16, 100), constant)
    changed = np.full((1, 100), 0.005)
    changed[0, 50:] = 0.0
    left = theory.expected_suboptimality(notebook, changed, 16, 100)[0]
    np.testing.assert_array_equal(left[:51], constant[0, :51])
    np.testing.assert_allclose(left[50:], constant[0, 50], rtol=1e-12)


def test_gradients_that_are_never_set_to_zero_give_the_reference_oscillation():
    page = theory.modes(problems.page_data(num_examples=400))
    losses = reference.PAGE_MINIMUM + theory.accumulated_gradient(page, 0.01, list(reference.PAGE_ACCUMULATED))
    np.testing.assert_allclose(losses, list(reference.PAGE_ACCUMULATED.values()), rtol=1e-9)  # omega t is known to 1e-16 t
    spectrum = theory.modes(problems.designed_spectrum(np.geomspace(0.01, 1, 50)))
    losses = theory.accumulated_gradient(spectrum, 0.5, list(reference.SPECTRUM_ACCUMULATED))
    np.testing.assert_allclose(losses, list(reference.SPECTRUM_ACCUMULATED.values()), rtol=1e-10)


def test_accumulated_gradients_grow_only_past_four_over_smoothness():
    modes = theory.Modes(np.array([1.0]), np.array([1.0]))
    assert theory.accumulated_gradient(modes, 3.99, np.arange(2000)).max() < 0.5 / np.cos(0.5 * np.arccos(1 - 1.995)) ** 2 + 1e-9
    assert theory.accumulated_gradient(modes, 4.01, np.arange(2000)).max() > 1e50
