"""Closed forms of stochastic steps: against references computed independently, brute-force recursions, and enumeration of all batches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.variance_reduction import ridge_regression
from gdjax import problems
from gdjax.theory import homogenised, interpolation, noise_scale, noisy_quadratic, variance_reduction
from tests import reference
from tests.conftest import random_data


class TestNoisyQuadratic:
    @pytest.mark.parametrize(("rate", "batch", "power"), list(reference.NOISY_QUADRATIC))
    def test_the_expected_loss_is_the_reference_s(self, rate, batch, power):
        """C02."""
        model, values = noisy_quadratic.preconditioned(noisy_quadratic.zhang(1000), power), reference.NOISY_QUADRATIC[rate, batch, power]
        found = jax.vmap(lambda t: noisy_quadratic.expected_loss(model, rate, batch, t))(jnp.array(list(values)))
        np.testing.assert_allclose(found, list(values.values()), rtol=1e-9)

    @pytest.mark.parametrize(("rate", "momentum"), [(0.3, 0.9), (3.5, 0.9), (0.02, 0.5), (1.0, 0.0)])
    def test_momentum_is_the_recursion_of_its_moments(self, rate, momentum):
        model, batch = noisy_quadratic.zhang(30), 4.0
        h, c = model.curvatures, model.noise
        turn = 1.0 + momentum - rate * h
        mean, before = np.ones(30), np.ones(30)
        now, joint, past = np.zeros(30), np.zeros(30), np.zeros(30)
        for step in range(41):
            if step in (0, 1, 2, 7, 40):
                exact = np.sum(0.5 * h * (mean**2 + now))
                found = noisy_quadratic.expected_loss_with_momentum(model, rate, batch, momentum, step)
                assert float(found) == pytest.approx(exact, rel=1e-11)  # a few roundings of the stationary variance
            mean, before = turn * mean - momentum * before, mean
            pushed = rate**2 * c / batch
            now, joint, past = turn**2 * now - 2 * momentum * turn * joint + momentum**2 * past + pushed, turn * now - momentum * joint, now
        limit = noisy_quadratic.expected_loss_with_momentum(model, rate, batch, momentum, 2**25)
        assert float(limit) == pytest.approx(float(noisy_quadratic.floor(model, rate, batch, momentum)), rel=1e-12)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_steps_to_a_target_are_the_first_by_counting(self, momentum):
        model, target, rates = noisy_quadratic.zhang(20), 0.1, np.array([0.01, 0.05, 0.1, 1.9, 2.5])
        found = noisy_quadratic.steps_to_target(model, rates, np.full(5, 4.0), np.full(5, momentum), target, with_momentum=momentum > 0)
        steps = jnp.arange(2000)
        for rate, first in zip(rates, found, strict=True):
            losses = jax.vmap(lambda t, rate=rate: noisy_quadratic.expected_loss_with_momentum(model, rate, 4.0, momentum, t))(steps)
            reached = np.flatnonzero(np.asarray(losses) <= target)
            stays = float(noisy_quadratic.floor(model, rate, 4.0, momentum)) < target
            assert float(first) == (reached[0] if stays else np.inf)

    def test_the_search_finds_no_worse_a_rate_than_any_on_a_fine_grid(self):
        model, sizes = noisy_quadratic.zhang(100), np.array([1.0, 64.0])
        best = noisy_quadratic.best_rates(model, sizes, 0.05)
        for size, steps in zip(sizes, best.steps, strict=True):
            grid = np.geomspace(1e-3, 1.99, 400)
            tried = noisy_quadratic.steps_to_target(model, grid, np.full(400, size), np.zeros(400), 0.05)
            assert steps <= 1.001 * float(jnp.min(tried))


class TestNoiseScale:
    def test_it_is_the_mean_over_all_batches(self):
        """Every batch of two out of six examples, drawn with replacement, counted."""
        problem = problems.least_squares(*random_data(6, 2))
        point, rate = np.array([0.3, -0.2, 0.5]), 0.05
        scale = noise_scale.least_squares(problem, point)
        X, y = problem.data
        gradients = 2.0 * (X @ point - y)[:, None] * X
        batches = np.array([(gradients[i] + gradients[j]) / 2 for i, j in itertools.product(range(6), repeat=2)])
        changes = [float(problem.objective(point - rate * batch) - problem.objective(point)) for batch in batches]
        assert float(scale.change(rate, 2)) == pytest.approx(np.mean(changes), rel=1e-10)
        singles, squares = np.sum(gradients**2, axis=1).mean(), np.sum(batches**2, axis=1).mean()
        found = noise_scale.unbiased(singles, squares, 1, 2)
        np.testing.assert_allclose(found, [scale.gradient, scale.noise], rtol=1e-12)

    def test_the_best_rate_is_where_the_change_is_least(self):
        scale = noise_scale.NoiseScale(2.0, 3.0, 5.0, 7.0)
        rates = np.linspace(0.01, 1.0, 100_000)
        for batch in (1, 8, np.inf):
            changes = scale.change(rates, batch)
            assert rates[changes.argmin()] == pytest.approx(float(scale.best_rate(batch)), abs=1e-5)
            assert -changes.min() == pytest.approx(float(scale.best_gain(batch)), rel=1e-8)

    def test_the_hyperbola_is_the_paper_s(self):
        sizes = np.array([1.0, 5.0, 40.0])
        steps = noise_scale.steps_for(sizes, 10.0, 300.0)
        np.testing.assert_allclose((steps / 10.0 - 1.0) * (steps * sizes / 300.0 - 1.0), 1.0, rtol=1e-12)


class TestInterpolation:
    def test_the_best_rate_has_the_least_factor(self):
        rates = np.linspace(0.01, 40.0, 200_001)
        for size in (1, 3, 9, 10, 30, 500):
            factors = interpolation.contraction(rates, size, 0.11, 0.004)
            assert rates[factors.argmin()] == pytest.approx(float(interpolation.best_rate(size, 0.11, 0.004)), abs=2e-4)

    def test_a_step_s_factor_is_the_mean_over_all_batches(self):
        X = np.random.default_rng(0).normal(size=(4, 3))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        curvatures, vectors = np.linalg.eigh(X.T @ X / 4)
        for curvature, error in zip(curvatures, vectors.T, strict=True):
            left = [np.sum((error - 1.3 * X[[i, j]].T @ (X[[i, j]] @ error) / 2) ** 2) for i, j in itertools.product(range(4), repeat=2)]
            assert float(interpolation.step_factor(1.3, 2, curvature)) == pytest.approx(np.mean(left), rel=1e-12)


class TestVarianceReduction:
    def test_factors_are_the_reference_s(self):
        """E16: L = 1.01 and mu = 0.0851, the latter as exact as the factor printed for the second rate says it."""
        assert variance_reduction.svrg_factor(0.1 / 1.01, 1.01, 0.0851, 237) == pytest.approx(
            0.877, abs=1.1e-3
        )  # mu and m are known to three digits
        assert variance_reduction.saga(1.01, 0.0851, 200).factor == pytest.approx(0.99875, abs=1e-9)

    def test_svrg_s_mean_is_that_over_all_draws(self):
        problem = ridge_regression(num_examples=3, num_features=2, ridge=0.1, noise=1.0, data_seed=0)
        X, y = problem.data

        def gradient(row, theta):
            return 2.0 * (X[row] @ theta - y[row]) * X[row] + 0.2 * theta

        def value(theta):
            return 0.5 * (theta - problem.minimizer) @ problem.hessian @ (theta - problem.minimizer)

        def ends(snapshot):
            full = np.mean([gradient(row, snapshot) for row in range(3)], axis=0)
            for rows in itertools.product(range(3), repeat=2):
                theta = snapshot
                for row in rows:
                    theta = theta - 0.2 * (gradient(row, theta) - gradient(row, snapshot) + full)
                yield theta

        first = list(ends(np.zeros(2)))
        second = [theta for start in first for theta in ends(start)]
        exact = [value(np.zeros(2)), np.mean([value(theta) for theta in first]), np.mean([value(theta) for theta in second])]
        found = variance_reduction.svrg_means(variance_reduction.ridge(problem), 0.2, stage_length=2, num_stages=2)
        np.testing.assert_allclose(found, exact, rtol=1e-12)

    def test_sgd_s_floor_is_the_moments_of_plain_least_squares_without_a_ridge(self):
        from gdjax import theory

        plain = problems.least_squares(*random_data(12, 2))
        for rate in (0.02, 0.1):
            exact = theory.noise_floor(plain, rate, 1, sampler="with_replacement")
            assert variance_reduction.sgd_floor(variance_reduction.ridge(plain), rate) == pytest.approx(exact, rel=1e-9)


class TestHomogenised:
    STREAM = homogenised.Stream(np.array([1.0, 0.3, 0.1]), np.array([0.5, 1.0, 2.0]), 0.4)

    def test_the_risk_is_its_recursion(self):
        curvatures, second, rate = self.STREAM.curvatures, self.STREAM.squares, 0.3
        found = homogenised.risk(self.STREAM, rate, np.arange(30))
        for step in range(30):
            risk = curvatures @ second
            assert found[step] == pytest.approx(risk, rel=1e-12)
            second = (1 - 2 * rate * curvatures + 2 * rate**2 * curvatures**2) * second + rate**2 * curvatures * (risk + 0.4)

    def test_the_volterra_equation_holds(self):
        """Its right side by the trapezoid rule over its own solution."""
        rate, times = 0.5, np.linspace(0.0, 20.0, 4001)
        found = homogenised.volterra(self.STREAM, rate, times)
        curvatures = self.STREAM.curvatures
        signal = np.exp(-2 * rate * np.outer(times, curvatures)) @ (curvatures * self.STREAM.squares)
        kernel = rate**2 * np.exp(-2 * rate * np.outer(times, curvatures)) @ curvatures**2
        for place in (0, 100, 1000, 4000):
            integrand = kernel[place::-1] * (found[: place + 1] + 0.4)
            assert found[place] == pytest.approx(signal[place] + np.trapezoid(integrand, times[: place + 1]), rel=1e-5)  # step 0.005

    def test_it_ends_at_its_floor_and_grows_from_the_critical_rate_on(self):
        critical = homogenised.critical_rate(self.STREAM.trace)
        assert homogenised.volterra(self.STREAM, 0.5 * critical, [1e4])[0] == pytest.approx(homogenised.limit(self.STREAM, 0.5 * critical))
        assert homogenised.growth(self.STREAM, 0.999 * critical) < 0 < homogenised.growth(self.STREAM, 1.001 * critical)
        assert homogenised.limit(self.STREAM, critical) == np.inf
