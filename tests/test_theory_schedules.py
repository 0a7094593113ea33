"""Bounds and recursions of schedules and adaptive methods, against sums and loops written out."""

import jax
import numpy as np
import pytest

from experiments import last_iterate as functions
from experiments import schedules as compared
from gdjax.methods import schedules
from gdjax.theory import adaptive, last_iterate, noisy_schedules

T = 20000
CURVATURES = 1.0 / np.arange(1, 101)
RISKS = {"constant": 6.04, "inverse_time": 4.12, "inverse_sqrt": 3.57, "wsd": 3.11, "step_decay": 2.58, "linear": 2.07, "cosine": 2.02}


def general_bound_by_hand(shape, gamma):
    """Schaipp et al. (2025), the double sum as it is printed."""
    T = len(shape)
    first = (1.0 + gamma**2 * np.sum(shape**2)) / (2 * gamma * np.sum(shape))
    second = sum(shape[k] / np.sum(shape[k + 1 :]) * np.sum(shape[k:] ** 2) / np.sum(shape[k:]) for k in range(T - 1))
    return first + 0.5 * gamma * second


@pytest.mark.parametrize("gamma", [0.01, 0.3])
def test_the_general_bound_is_its_double_sum(gamma):
    shape = np.random.default_rng(0).uniform(0.1, 1.0, 30)
    np.testing.assert_allclose(last_iterate.last_iterate_bound(shape, gamma), general_bound_by_hand(shape, gamma), rtol=1e-13)


def test_the_best_base_rate_is_best():
    shape = 1.0 - np.arange(50) / 50
    best = last_iterate.best_base_rate(shape, distance=3.0, slope=2.0)
    bounds = last_iterate.last_iterate_bound(shape, best * np.array([0.99, 1.0, 1.01]), distance=3.0, slope=2.0)
    assert bounds[1] < min(bounds[0], bounds[2])
    np.testing.assert_allclose(bounds[1], last_iterate.best_last_iterate_bound(shape, distance=3.0, slope=2.0), rtol=1e-13)


@pytest.mark.parametrize("count", [2, 17, 1000])
def test_a_constant_rate_s_bound_has_a_closed_form(count):
    np.testing.assert_allclose(last_iterate.best_last_iterate_bound(np.ones(count)), last_iterate.constant_bound(count), rtol=1e-12)
    assert last_iterate.best_constant_bound(count - 1) <= last_iterate.constant_bound(count)  # the tight one is below the general one


def test_linear_decay_is_the_paper_s_steps():
    N = 30
    steps = last_iterate.linear_decay_rate(N) * np.asarray(schedules.linear(np.arange(N), N))
    np.testing.assert_allclose(steps, (N + 1 - np.arange(1, N + 1)) / (N + 1) ** 1.5, rtol=1e-12)


@pytest.mark.parametrize("lean", [0.0, 0.3, 0.6, functions.SINGLE])
def test_the_functions_of_the_last_iterate_have_slope_and_distance_1(lean):
    problem = functions.family(16)(lean)
    rows, start = np.asarray(problem.constants["rows"]), np.asarray(problem.start)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(start), 1.0, rtol=1e-12)
    values = np.abs(rows @ start)
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_the_noisy_quadratic_s_recursion_is_its_loop():
    rng = np.random.default_rng(1)
    rates, h, c, start = rng.uniform(0, 1, (3, 20)), rng.uniform(0.1, 1, 4), rng.uniform(0, 1, 4), rng.uniform(0, 1, 4)
    moments = np.tile(start, (3, 1))
    for rate in rates.T:
        moments = (1 - rate[:, None] * h) ** 2 * moments + rate[:, None] ** 2 * c
    np.testing.assert_allclose(noisy_schedules.risk(rates, h, c, start), 0.5 * moments @ h, rtol=1e-12)


def test_tuned_risks_are_the_independent_ones_and_in_their_order():
    steps = np.arange(float(T))
    shapes = [
        schedules.constant(steps),
        schedules.inverse_time(steps, T),
        schedules.inverse_sqrt(steps),
        schedules.wsd(steps, T),
        schedules.step_decay(steps, T, drops=np.log2(T)),
        schedules.linear(steps, T),
        schedules.cosine(steps, T),
    ]
    _, risks = noisy_schedules.tuned(np.stack(shapes), CURVATURES, CURVATURES, np.ones(100))
    units = risks / (100 / (2 * T))
    np.testing.assert_allclose(units, list(RISKS.values()), rtol=0.03)
    assert (np.diff(units) < 0).all()


@pytest.mark.parametrize("name", RISKS)
def test_at_the_best_of_the_coarse_rates_a_risk_is_the_independent_one_to_its_two_decimals(name):
    risks = noisy_schedules.risk(compared._coarse(name, T, 100), CURVATURES, CURVATURES, np.ones(100)) / (100 / (2 * T))
    assert risks.min() == pytest.approx(RISKS[name], abs=0.005)


def test_a_tuned_rate_is_a_minimum():
    rates, risks = noisy_schedules.tuned(np.ones((1, 500)), [1.0, 0.1], [1.0, 0.1], [1.0, 1.0])
    around = noisy_schedules.risk(rates[0] * np.array([[0.9], [1.1]]) * np.ones((1, 500)), [1.0, 0.1], [1.0, 0.1], [1.0, 1.0])
    assert (around > risks[0]).all()


def test_a_sweep_of_noisy_schedules_is_one_program():
    with jax.log_compiles(False):
        before = noisy_schedules._risk._cache_size()
        for seed in range(3):
            noisy_schedules.risk(np.random.default_rng(seed).uniform(0, 1, (5, 7)), [1.0], [1.0], [1.0])
        assert noisy_schedules._risk._cache_size() == before + 1


def test_amsgrad_s_rates_never_rise_and_adam_s_do():
    slopes = np.resize([3.0, -1.0, -1.0], 300)
    rates = adaptive.amsgrad_rates(slopes, 0.5, 0.1)
    assert (np.diff(rates) <= 0).all()
    v, adams = 0.0, []
    for step, slope in enumerate(slopes):
        v = 0.1 * v + 0.9 * slope**2
        adams.append(0.5 / np.sqrt((step + 1) * v))
    assert (np.diff(adams) > 0).any()
