"""Problems of known noise are what they say they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdjax import noisy, samplers
from gdjax.theory import decaying, kaczmarz, streaming

SPECTRUM = 1.0 / np.arange(1, 21)

INVERSE_TIME = {  # C06: E x^2 with rates c/t, curvature, noise and start 1; by c, then by t
    0.3: {10: 0.19950353475029, 100: 0.054380938378786, 1000: 0.014025040414915, 10000: 0.0035576058533682},
    0.5: {10: 0.11260992983123, 100: 0.017202513758359, 1000: 0.002299065662914, 10000: 0.00028751586381022},
    1.0: {10: 0.1, 100: 0.01, 1000: 0.001, 10000: 0.0001},
    2.0: {10: 0.14074074074074, 100: 0.013400673400673, 1000: 0.001334000667334, 10000: 0.00013334000066673},
}
NEMIROVSKI = {10: 0.5486514176, 1000: 0.21578112263451, 100_000: 0.085893804995211}  # x_N
GAUSSIAN = {  # C03: U and E e'He, lambda = 1/i, i <= 20; by rate and batch size
    (0.05, 1): (0.09201730224520379, 0.1013425723559915),
    (0.05, 4): (0.02280516581188007, 0.02333737860047861),
    (0.2, 1): (0.3975730520469405, 0.6599523035910388),
    (0.2, 8): (0.04742792779403941, 0.0497893326687671),
}
HEAVY_BALL = {0.9: 1.013333333333333, 0.0: 0.1025641025641026}  # C04: rate 0.1, curvature 1/2; by momentum


def test_squares_at_rates_c_over_t_are_the_reference_ones():
    squares = decaying.inverse_time_square(list(INVERSE_TIME), 10_000)
    for row, wanted in zip(squares, INVERSE_TIME.values(), strict=True):
        np.testing.assert_allclose(row[list(wanted)], list(wanted.values()), rtol=1e-9)
    np.testing.assert_allclose(1e4 * squares[3, -1], decaying.inverse_time_limit(2.0), rtol=1e-4)
    assert np.log10(squares[0, 10_000] / squares[0, 1000]) == pytest.approx(-0.6, rel=0.01)


def test_the_caricature_is_the_reference_one_and_falls_short_of_a_hundredth_in_a_billion_steps():
    for count, wanted in NEMIROVSKI.items():
        assert decaying.inverse_time_noiseless(0.2, count - 1) == pytest.approx(wanted, rel=1e-9)
    near = [decaying.inverse_time_noiseless(0.2, t) for t in (999_999, 1_000_001)]
    assert near[1] / near[0] == pytest.approx(1 - 0.4e-6, abs=1e-9)  # no seam where the formula changes
    assert decaying.inverse_time_noiseless(0.2, 1e9 - 1) == pytest.approx(0.013613, rel=1e-4)


@pytest.mark.parametrize(("rate", "batch"), GAUSSIAN)
def test_gaussian_floors_are_the_reference_ones_and_what_the_recursion_comes_to(rate, batch):
    gain, square = GAUSSIAN[rate, batch]
    assert streaming.gaussian_gain(SPECTRUM, rate, batch) == pytest.approx(gain, rel=1e-9)
    assert 2 * streaming.gaussian_floor(SPECTRUM, rate, batch) == pytest.approx(square, rel=1e-9)
    last = streaming.streamed_curves(SPECTRUM, np.ones(20), rate, 8000, batch_size=batch).last[0, -1]
    assert 2 * last == pytest.approx(square, rel=1e-6)


def test_the_gaussian_edge_is_the_reference_one_and_where_the_recursion_grows():
    edge = streaming.gaussian_edge(SPECTRUM)
    assert edge == pytest.approx(0.429825, abs=1e-6)
    below, above = streaming.streamed_curves(SPECTRUM, np.ones(20), [0.98 * edge, 1.02 * edge], 4000, variance=0.0).last[:, -1]
    assert below < 1e-3
    assert above > 10.0
    assert np.isinf(streaming.gaussian_floor(SPECTRUM, 1.01 * edge))


@pytest.mark.parametrize("momentum", HEAVY_BALL)
def test_heavy_ball_floors_are_the_reference_ones(momentum):
    assert streaming.heavy_ball_floor(0.1, momentum, 0.5) == pytest.approx(HEAVY_BALL[momentum], rel=1e-12)


def test_the_mean_of_iterates_is_its_double_sum():
    """E ebar^2 = n^-2 sum_j s(j) (1 + 2 sum_m (1 - gamma lambda)^m), written out for two modes."""
    spectrum, rate, n = np.array([1.0, 0.3]), 0.2, 7
    s = [np.array([1.0, 4.0])]
    for _ in range(n - 1):
        s.append((1 - 2 * rate * spectrum + 2 * rate**2 * spectrum**2) * s[-1] + rate**2 * spectrum * (spectrum @ s[-1] + 1.0))
    shrink = 1 - rate * spectrum
    total = sum(s[j] * (1 + 2 * sum(shrink**m for m in range(1, n - j))) for j in range(n))
    average = streaming.streamed_curves(spectrum, [1.0, 2.0], rate, n - 1).average[0, -1]
    assert average == pytest.approx(0.5 * spectrum @ total / n**2, rel=1e-12)


def test_means_of_iterates_are_the_reference_s_and_come_to_their_limit():
    radius = SPECTRUM.sum() + 2.0
    curves = streaming.streamed_curves(SPECTRUM, np.zeros(20), 0.5 / radius, 100_000).average[0]
    assert 100_001 * curves[-1] == pytest.approx(streaming.averaging_asymptote(SPECTRUM, 0.5 / radius, 1.0), rel=0.01)


def test_kaczmarz_is_the_mean_over_all_draws():
    A, x = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.5]]), np.array([1.0, -1.0])
    residual = np.array([1.0, -2.0, 0.0])
    residual -= A @ np.linalg.lstsq(A, residual)[0]
    weights, errors = kaczmarz.row_probabilities(A), [(1.0, x)]
    exact = kaczmarz.kaczmarz_distance(A, residual, x, 3)
    for step in range(1, 4):
        errors = [(w * p, e - a * (a @ e - r) / (a @ a)) for w, e in errors for a, r, p in zip(A, residual, weights, strict=True)]
        assert exact[step] == pytest.approx(sum(w * e @ e for w, e in errors), rel=1e-12)


def test_normal_numbers_have_a_normal_s_moments():
    z = np.asarray(jax.jit(noisy.gaussian)(jnp.arange(2**20, dtype=jnp.uint32)))
    for power, moment, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert np.mean(z**power) == pytest.approx(moment, abs=4 * np.sqrt(spread / z.size))  # 4 standard errors
    for lag in (1, 2, 21, 1024):
        assert abs(np.mean(z[:-lag] * z[lag:])) < 4 / np.sqrt(z.size)
        assert abs(np.mean((z[:-lag] ** 2 - 1) * (z[lag:] ** 2 - 1))) < 4 * 2 / np.sqrt(z.size)


def test_a_stream_s_gradient_is_that_of_its_objective():
    problem = noisy.gaussian_stream([1.0, 0.25], num_examples=64)
    x, gradient = np.array([0.3, -2.0]), problem.gradient(np.array([0.3, -2.0]))
    for j, slope in enumerate(gradient):  # a quadratic: differences are exact
        away = 0.5 * np.eye(2)[j]
        assert float(problem.objective(x + away) - problem.objective(x - away)) == pytest.approx(float(slope), rel=1e-9)
    assert float(problem.objective(problem.minimizer)) == pytest.approx(0.5, rel=0.6)  # of 64 examples


def test_separable_examples_are_their_formula():
    g, a = np.array([[1.0, 2.0], [3.0, 0.5]]), np.array([[1.0, -0.5], [-1.0, 0.5]])
    problem, x = noisy.separable(g, a), np.array([0.7, -0.2])
    assert float(problem.objective(x)) == pytest.approx(np.mean(np.sum(g * x**2 / 2 - a * x, axis=1)), rel=1e-13)
    np.testing.assert_allclose(problem.gradient(x), g.mean(axis=0) * x, rtol=1e-13)
    weights = jnp.array([1.0, 0.0])
    value, gradient = problem.evaluate(jnp.asarray(x)[:, None], {}, problem.data, weights)
    np.testing.assert_allclose(gradient[:, 0], g[0] * x - a[0], rtol=1e-13)
    assert float(value[0]) == pytest.approx(np.sum(g[0] * x**2 / 2 - a[0] * x), rel=1e-13)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((np.ones((2, 2)), np.ones((2, 3))), "they must be (n, k) both"), ((np.ones((2, 1)), np.ones((2, 1))), "must add up to zero")],
)
def test_separable_examples_that_are_none_are_refused(arguments, said, mistake):
    assert said in mistake(noisy.separable, *arguments)


def test_once_through_sees_no_example_twice(mistake):
    seen = noisy.once_through(np.random.default_rng(3), 64, 256, 4)
    assert sorted(seen.ravel()) == list(range(256))
    assert "2^m" in mistake(noisy.once_through, np.random.default_rng(3), 1, 100, 1)
    assert "2^32" in mistake(noisy.gaussian_stream, np.ones(20), num_examples=2**28)


def test_weighted_draws_have_their_probabilities_and_equal_ones_share_a_program():
    sampler = samplers.Weighted((0.5, 0.2, 0.0, 0.3))
    counts = np.bincount(sampler(np.random.default_rng(0), 50_000, 4, 2).ravel(), minlength=4) / 1e5
    np.testing.assert_allclose(counts, sampler.probabilities, atol=4 * 0.5 / np.sqrt(1e5))
    assert counts[2] == 0
    assert hash(sampler) == hash(samplers.Weighted((0.5, 0.2, 0.0, 0.3)))
