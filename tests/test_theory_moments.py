"""Predictions of many settings are one program, equal to those of each alone."""

import itertools

import jax
import numpy as np
import pytest

from gdjax import problems, theory
from gdjax.theory import moments, reshuffling
from tests.conftest import random_data


@pytest.fixture(scope="module")
def line():
    return problems.notebook_line()


def test_a_predicted_sweep_of_ten_thousand_settings_is_one_program(line, monkeypatch):
    traced = []
    monkeypatch.setattr(moments, "curve", lambda *args, **kw: traced.append(None) or jax.numpy.zeros(kw["num_steps"] + 1))
    theory.expected_suboptimality(line, np.linspace(1e-4, 1e-2, 10_000), np.resize([1, 4, 16, 80], 10_000), 3)
    assert len(traced) == 1


def test_many_settings_are_each_alone(line):
    rates, sizes = np.linspace(0.001, 0.03, 30), np.resize([1, 4, 16], 30)
    together = theory.expected_suboptimality(line, rates, sizes, 50, sampler="with_replacement")
    floors = theory.noise_floor(line, rates, sizes)
    for rate, batch, curve, floor in zip(rates, sizes, together, floors, strict=True):
        alone = theory.expected_suboptimality(line, rate, batch, 50, sampler="with_replacement")[0]
        np.testing.assert_allclose(curve, alone, rtol=1e-12)
        assert floor == pytest.approx(theory.noise_floor(line, rate, batch), rel=1e-10)
    assert np.isinf(floors[-3:]).all()
    assert theory.mean_square_edge(line, [1, 16]).tolist() == [theory.mean_square_edge(line, batch) for batch in (1, 16)]


def test_the_recursion_is_differentiable_and_maps_over_anything(line):
    known = moments.of_problem(line)
    steps = jax.jit(jax.vmap(jax.grad(lambda gamma, noise: moments.curve(known, gamma, noise, known.gram, num_steps=5)[-1]), (0, None)))
    slope = steps(np.array([0.01, 0.02]), 0.25)
    near = [moments.curve(known, 0.01 + d, 0.25, known.gram, num_steps=5)[-1] for d in (-1e-6, 1e-6)]
    assert slope[0] == pytest.approx(float(near[1] - near[0]) / 2e-6, rel=1e-6)


def test_predictions_have_64_bits_whatever_the_setting_is(line):
    with jax.enable_x64(False):
        assert theory.noise_floor(line, 0.005, 16) == pytest.approx(0.005691133040540021, rel=1e-8)
        assert theory.expected_suboptimality(line, 0.01, 16, 10)[0, 10] == pytest.approx(1.1880619420525105, rel=1e-8)
        assert theory.reshuffled_noise(line, 0.005, 16) == pytest.approx(direct_noise(line, 0.005, 16), rel=1e-9)


def test_the_step_on_the_second_moment_is_the_mean_over_all_draws():
    """Every pair of examples, B = 2 with replacement, by hand."""
    problem = problems.least_squares(*random_data(5, 1))
    X, y = problem.data
    thetas, expected = [np.zeros(2)], theory.expected_suboptimality(problem, 0.1, 2, 2, sampler="with_replacement")[0]
    for step in (1, 2):
        thetas = [t - 0.1 * sum((X[i] @ t - y[i]) * X[i] for i in pair) for t in thetas for pair in itertools.product(range(5), repeat=2)]
        mean = np.mean([np.mean((X @ t - y) ** 2) for t in thetas]) - problem.minimum
        assert expected[step] == pytest.approx(mean, rel=1e-12)


def direct_noise(problem, rate, batch_size):
    """The sum over places as it is written."""
    X, y = problem.data
    n, num_batches = len(X), -(-len(X) // batch_size)
    curvatures, vectors = theory.eigenvectors(problem)
    gradients = -2.0 * (y - X @ problem.minimizer)[:, None] * (X @ vectors)
    batch = np.arange(n) // batch_size
    weights = rate * (1 - rate * curvatures[:, None]) ** (num_batches - 1 - batch) / np.bincount(batch)[batch]
    order = (np.sum(weights**2, axis=1) - np.sum(weights, axis=1) ** 2 / n) * n / (n - 1)
    return 0.5 * np.sum(curvatures * np.mean(gradients**2, axis=0) * order / (1 - (1 - rate * curvatures) ** (2 * num_batches)))


def test_reshuffled_noise_of_many_settings_is_the_sum_over_places(line):
    rates, sizes = np.array([0.001, 0.005, 0.01, 0.02]), np.array([1, 7, 16, 32])
    floors = theory.reshuffled_noise(line, rates, sizes)
    assert floors == pytest.approx([direct_noise(line, rate, int(batch)) for rate, batch in zip(rates, sizes, strict=True)], rel=1e-9)


class TestOneParameter:
    CURVATURES, TARGETS = np.array([0.5, 2.0, 1.0, 0.1, 1.4]), np.array([1.0, -2.0, 0.5, 1.5, -1.0])

    def epochs(self, rate, start):
        """x after an epoch, for every permutation."""
        ends = []
        for order in itertools.permutations(range(5)):
            x = start
            for i in order:
                x = x - rate * (self.CURVATURES[i] * x - self.TARGETS[i])
            ends.append(x)
        return np.array(ends)

    @pytest.mark.parametrize("rate", [0.01, 0.3])
    def test_a_shuffled_epoch_is_the_mean_over_all_permutations(self, rate):
        factor, push, square = reshuffling.shuffled_epoch(rate, self.CURVATURES, self.TARGETS)
        from_zero = self.epochs(rate, 0.0)
        assert factor == pytest.approx(np.mean(self.epochs(rate, 1.0) - from_zero), rel=1e-12)
        assert push == pytest.approx(np.mean(from_zero), rel=1e-9, abs=1e-15)
        assert square == pytest.approx(np.mean(from_zero**2), rel=1e-9)

    def test_the_moments_after_some_epochs_are_the_recursion_s(self):
        factor, push, square = (float(part) for part in reshuffling.shuffled_epoch(0.2, self.CURVATURES, self.TARGETS))
        mean, second = 0.0, 0.0
        for epoch in range(1, 6):
            mean, second = factor * mean + push, factor**2 * second + 2 * factor * push * mean + square
            means, seconds = reshuffling.shuffled_moments([0.2], self.CURVATURES, self.TARGETS, [epoch])
            assert means[0] == pytest.approx(mean, rel=1e-12)
            assert seconds[0] == pytest.approx(second, rel=1e-12)
        for _ in range(500):
            mean, second = factor * mean + push, factor**2 * second + 2 * factor * push * mean + square
        assert np.ravel(reshuffling.shuffled_moments([0.2], self.CURVATURES, self.TARGETS)) == pytest.approx([mean, second], rel=1e-12)

    def test_the_mean_is_shifted_by_half_the_rate_times_the_covariance(self):
        mean, _ = reshuffling.shuffled_moments([1e-5], self.CURVATURES, self.TARGETS)
        assert mean[0] == pytest.approx(reshuffling.mean_shift(1e-5, self.CURVATURES, self.TARGETS), rel=1e-4)

    def test_equal_curvatures_are_the_closed_form(self):
        targets = np.random.default_rng(0).normal(size=50)
        targets = (targets - targets.mean()) / targets.std()
        _, square = reshuffling.shuffled_moments([0.02, 0.005], np.ones(50), targets)
        assert square == pytest.approx(reshuffling.reshuffled_square([0.02, 0.005], 50), rel=1e-9)

    def test_inside_an_epoch_the_square_is_the_mean_over_all_orders(self):
        targets = self.TARGETS / np.sqrt(np.mean(self.TARGETS**2))
        seen = np.zeros((120, 11))
        orders = list(itertools.permutations(range(5)))
        for row, (one, two) in enumerate(zip(orders, orders[7:] + orders[:7], strict=True)):
            for t, i in enumerate(one + two):
                seen[row, t + 1] = seen[row, t] * 0.8 + 0.2 * targets[i]
        exact = reshuffling.reshuffled_square(0.2, 5, steps=np.arange(6))
        assert np.mean(seen[:, :6] ** 2, axis=0) == pytest.approx(exact, abs=1e-14)
        assert reshuffling.reshuffled_square(0.2, 5, steps=7) == pytest.approx(0.8**4 * exact[5] + exact[2], rel=1e-12)

    def test_the_ratio_to_independent_draws_is_an_epoch_s_square_over_twelve(self):
        ratio = reshuffling.reshuffled_square(1e-5, 50) / reshuffling.independent_square(1e-5)
        assert ratio == pytest.approx((1e-5 * 50) ** 2 / 12 * (1 + 1 / 50), rel=1e-3)  # and O(eta n)
