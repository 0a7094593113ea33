"""Closed forms of momentum, acceleration and the smooth convex worst case against recursions, fractions and the reference (C01)."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from gdjax import problems, theory
from gdjax.theory import acceleration, momentum, smooth_convex
from tests import reference

SPECTRUM = theory.Modes(np.geomspace(0.01, 1.0, 50), np.ones(50))  # the reference's own
NESTEROV_TUNED = {  # C01
    0: 5.523282560115838,
    1: 1.362715518624282,
    10: 0.0409402031731907,
    50: 2.301744820417103e-6,
    100: 2.287452030678894e-11,
    200: 1.643539928582278e-21,
}


def recursion(curvatures, learning_rate, beta, num_steps, *, extrapolated):
    """f along e_{t+1} = y_t - alpha lambda (y_t or e_t), in exact fractions of the floats given."""
    rate, beta = Fraction(learning_rate), Fraction(beta)
    values = np.zeros(num_steps + 1)
    for curvature in map(Fraction, curvatures):
        before = here = Fraction(1)
        for step in range(num_steps + 1):
            values[step] += float(curvature * here**2 / 2)
            moved = here + beta * (here - before)
            before, here = here, moved - rate * curvature * (moved if extrapolated else here)
    return values


@pytest.mark.parametrize(("rate", "values"), reference.SPECTRUM_GRADIENT_DESCENT.items())
def test_gradient_descent_on_the_reference_spectrum(rate, values):
    exact = theory.gradient_descent(SPECTRUM, rate, list(values))[0]
    np.testing.assert_allclose(exact, list(values.values()), rtol=1e-9)  # the reference's own


def test_heavy_ball_and_nesterov_on_the_reference_spectrum():
    ball, constant, tuned = (build(1.0, 0.01) for build in (momentum.heavy_ball_tuned, momentum.nesterov_constant, momentum.nesterov_tuned))
    for form, numbers, values in (
        (momentum.heavy_ball, ball, reference.SPECTRUM_HEAVY_BALL),
        (momentum.nesterov, constant, reference.SPECTRUM_NESTEROV),
        (momentum.nesterov, tuned, NESTEROV_TUNED),
    ):
        exact = form(SPECTRUM, numbers.learning_rate, numbers.momentum, list(values))[0]
        np.testing.assert_allclose(exact, list(values.values()), rtol=1e-9)
    convex = acceleration.nesterov_convex(SPECTRUM, 1.0, list(reference.SPECTRUM_NESTEROV_CONVEX))
    np.testing.assert_allclose(convex, list(reference.SPECTRUM_NESTEROV_CONVEX.values()), rtol=1e-9)


@pytest.mark.parametrize("extrapolated", [False, True])
@pytest.mark.parametrize(
    ("rate", "beta"),
    [(0.5, 0.0), (1.0, 0.25), (2.25, 0.25), (0.25, 0.25), (3.5, 0.5), (1.0, 0.9), (2.0, 0.5), (0.0, 0.5)],
)
def test_closed_forms_are_the_recursion_real_complex_double_and_zero_roots_alike(rate, beta, extrapolated):
    # with curvature 1, 2.25 and 0.25 are double roots of the heavy ball, rate 1 a pair of zeros of Nesterov's, 3.5 beyond both edges
    curvatures = np.array([0.0, 0.125, 1.0])
    form = momentum.nesterov if extrapolated else momentum.heavy_ball
    exact = form(theory.Modes(curvatures, np.ones(3)), rate, beta, range(41))[0]
    wanted = recursion(curvatures, rate, beta, 40, extrapolated=extrapolated)
    np.testing.assert_allclose(exact, wanted, rtol=1e-11, atol=1e-25)  # 40 steps; a mode is compared beside the others


def test_ten_thousand_settings_are_one_program():
    rates, betas = (grid.ravel() for grid in np.meshgrid(np.linspace(0.1, 3.9, 100), np.linspace(0.0, 0.98, 100)))
    few = theory.Modes(np.array([0.1, 1.0]), np.ones(2))
    values = momentum.heavy_ball(few, rates, betas, [0, 50, 2000])
    assert values.shape == (10_000, 3)
    stable = rates < momentum.heavy_ball_edge(1.0, betas)
    np.testing.assert_array_equal(momentum.heavy_ball_contraction(few.curvatures, rates, betas) < 1.0, stable)
    near = np.abs(rates / momentum.heavy_ball_edge(1.0, betas) - 1.0) < 0.01
    np.testing.assert_array_equal((values[:, 2] < values[:, 0])[~near], stable[~near])
    assert not np.isnan(values).any()


def test_contractions_are_those_of_the_tuned_numbers():
    curvatures = np.geomspace(0.01, 1.0, 30)
    for build, radius in (
        (momentum.heavy_ball_tuned, momentum.heavy_ball_contraction),
        (momentum.nesterov_constant, momentum.nesterov_contraction),
        (momentum.nesterov_tuned, momentum.nesterov_contraction),
    ):
        numbers = build(1.0, 0.01)
        measured = float(radius(curvatures, numbers.learning_rate, numbers.momentum)[0])
        assert measured == pytest.approx(numbers.contraction, rel=1e-7)  # a double root is the square root of round-off away


def test_the_cycle_is_that_of_the_paper():
    cycle = momentum.three_cycle(1 / 9, 4 / 9, [25.0, 25.0, 25.0], [0.0, 0.0, -24.0])
    np.testing.assert_allclose(cycle, np.array([792.0, -2208.0, 2592.0]) / 1225.0, rtol=1e-13)


@pytest.mark.parametrize("product", [1e-4, 0.01, 0.5])
def test_the_legendre_form_is_the_recursion(product):
    modes = theory.Modes(np.array([product]), np.ones(1))
    k = np.arange(1, 1001)
    squares = acceleration.nesterov_convex(modes, 1.0, k) / (0.5 * product)
    np.testing.assert_allclose(acceleration.legendre_mode(product, k) ** 2, squares, atol=1e-11)  # 1000 steps of round-off


def test_fista_s_own_bound_is_sharper():
    k = np.arange(1, 200)
    assert (acceleration.fista_bound(1.0, 1.0, k) <= acceleration.convex_bound(1.0, 1.0, k)).all()
    assert acceleration.fista_weights(199)[-1] >= 100.0


def test_silver_steps_add_up_to_a_power_of_the_silver_ratio():
    for doublings in (1, 2, 5, 10):
        steps = smooth_convex.silver_steps(2**doublings - 1)
        assert steps.sum() == pytest.approx(smooth_convex.SILVER**doublings - 1.0, rel=1e-12)
        assert steps[: len(steps) // 2].tolist() == steps[len(steps) // 2 + 1 :].tolist()
    np.testing.assert_allclose(
        smooth_convex.silver_huber_case(np.arange(1, 11)), 0.5 / (2 * (smooth_convex.SILVER ** np.arange(1, 11)) - 1)
    )


def test_the_best_constant_rate_makes_both_cases_alike():
    for steps in (1, 3, 20, 1000):
        h = smooth_convex.best_constant_rate(steps)
        assert smooth_convex.huber_case(steps, h) == pytest.approx(smooth_convex.parabola_case(steps, h), rel=1e-10)
        assert smooth_convex.worst_case(steps, h) <= min(smooth_convex.worst_case(steps, np.linspace(0.5, 2.0, 101)))


def test_a_gap_spectrum_is_built_in_a_trace_too():
    built = problems.gap_spectrum(num_parameters=5, condition_number=50.0, gap=5.0)
    assert float(built.condition_number) == pytest.approx(50.0)
    traced = jax.jit(lambda kappa: problems.gap_spectrum(num_parameters=5, condition_number=kappa, gap=5.0).constants["eigenvalues"])(50.0)
    np.testing.assert_allclose(traced, built.constants["eigenvalues"], rtol=1e-14)
    np.testing.assert_allclose(built.constants["eigenvalues"][[0, 1, -1]], [0.02, 0.1, 1.0], rtol=1e-14)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_parameters": 1}, "num_parameters=1 is not allowed"),
        ({"condition_number": 0.5}, "condition_number=0.5 is not allowed: it is a number, 1 or more"),
        ({"condition_number": "bad"}, "condition_number=bad is not allowed"),
        ({"gap": 200}, "gap=200 is not allowed: it is a number from 1 to the condition number, here 100.0"),
    ],
)
def test_a_gap_spectrum_that_makes_no_sense_is_refused(options, said, mistake):
    assert said in mistake(problems.named, "gap_spectrum", **options)
