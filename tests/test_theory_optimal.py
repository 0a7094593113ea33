"""The best worst cases, power laws, early stopping, logistic regression: closed forms against the reference and against brute force."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import gdjax
from gdjax import data, methods, problems, solvers, theory
from gdjax.theory import early_stopping, logistic, power_laws, worst_cases
from tests import reference

SPECTRUM = np.geomspace(0.01, 1.0, 50)
TABULATED = 1e-9  # the reference's own tolerance


class TestPowerLaws:
    @pytest.mark.parametrize(("a", "b", "descent", "accelerated"), reference.POWER_LAW_CONSTANTS)
    def test_constants_are_the_reference(self, a, b, descent, accelerated):  # C07
        xi = (b - 1.0) / a
        assert power_laws.gradient_descent(xi, a).constant == pytest.approx(descent, rel=TABULATED)
        assert power_laws.nesterov(xi, a).constant == pytest.approx(accelerated, rel=TABULATED)

    def test_nesterov_s_constant_is_theory_s_own_formula(self):  # E09
        xi, a = 0.7, 1.3
        gamma = special.gamma
        wanted = 4 * gamma(3 - 2 * xi) * gamma(xi) / (a * 2 ** (3 - 2 * xi) * gamma(2 - xi) ** 2 * gamma(3 - xi))
        assert power_laws.nesterov(xi, a).constant == pytest.approx(wanted, rel=1e-12)

    @pytest.mark.parametrize("xi", [1.1, 1.25, 1.5, 1.75, 1.9])
    def test_where_both_phases_meet_they_are_the_bessel_function_s_integral(self, xi):
        """(1/2a) int lambda^(xi - 1) (2 J_1(w) / w)^2 e^(-t lambda) d lambda, by quadrature; what is left out is of order 1 / t."""
        a, t = 1.3, 1e4
        u = np.linspace(np.log(1e-16), np.log(60.0 / t), 400_001)
        w = t * np.exp(0.5 * u)
        integral = np.sum(np.exp(xi * u - t * np.exp(u)) * (2.0 * special.j1(w) / w) ** 2) * (u[1] - u[0]) / (2.0 * a)
        assert integral == pytest.approx(float(power_laws.Meeting(xi, a)(t)), rel=2.0 / t)

    @pytest.mark.parametrize("side", [-1.0, 1.0])
    def test_the_limit_at_three_halves_is_come_to_from_both_sides(self, side):
        near, at = power_laws.Meeting(1.5 + 2e-6 * side, 1.0), power_laws.Meeting(1.5, 1.0)
        assert float(near(4000.0) / at(4000.0)) == pytest.approx(1.0, abs=1e-4)  # apart by 2e-6 times some ln t

    def test_the_damped_phase_is_the_bessel_function_s_integral(self):
        """(1/2) int lambda^(xi - 1) (2 J_1(w) / w)^2 e^(-t lambda) d lambda at a large t, by quadrature."""
        xi, t = 2.5, 1e5
        u = np.linspace(np.log(1e-9), np.log(40.0 / t), 400_001)
        share = np.exp(xi * u) * np.exp(-t * np.exp(u))
        w = t * np.exp(0.5 * u)
        integral = 0.5 * np.sum(share * (2.0 * special.j1(w) / w) ** 2) * (u[1] - u[0])
        law = power_laws.nesterov(xi, 1.0)
        assert integral == pytest.approx(float(law(t)), rel=1e-2)


class TestWorstCases:
    def test_a_horizon_s_last_theta_makes_the_bound_tight(self):
        thetas = [1.0]
        for _ in range(6):
            thetas.append((1.0 + np.sqrt(1.0 + 4.0 * thetas[-1] ** 2)) / 2.0)
        last = (1.0 + np.sqrt(1.0 + 8.0 * thetas[-1] ** 2)) / 2.0
        assert worst_cases.last_theta(7) == pytest.approx(last, rel=1e-14)
        np.testing.assert_allclose(worst_cases.ogm_bound(np.array([7, 7])), 0.5 / last**2, rtol=1e-14)

    @pytest.mark.parametrize("kappa", [2.0, 100.0])
    def test_chebyshev_s_factor_is_its_polynomial_s(self, kappa):
        at = (kappa + 1.0) / (kappa - 1.0)
        for t in (0, 1, 7):
            assert worst_cases.chebyshev_factor(kappa, t) == pytest.approx(1.0 / special.eval_chebyt(t, at), rel=1e-12)

    @pytest.mark.parametrize("s", [1, 3, 7])
    def test_no_point_of_s_coordinates_is_lower(self, s):
        problem = problems.nesterov_worst_case(5)
        hessian = np.asarray(problem.hessian)
        force = hessian @ problem.minimizer
        inside = np.linalg.solve(hessian[:s, :s], force[:s])
        least = -0.5 * force[:s] @ inside - problem.minimum
        assert worst_cases.least_suboptimality(s, 5) == pytest.approx(least, rel=1e-12)

    def test_least_condition_number_is_a_grid_s(self):
        X = np.random.default_rng(3).normal(size=(30, 3)) @ np.array([[1.0, 0.8, 0.3], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
        gram = X.T @ X
        base = np.log(1.0 / np.sqrt(np.diag(gram)))
        grid = np.linspace(-1.0, 1.0, 41)
        scales = np.exp(base + np.array([(0.0, *pair) for pair in itertools.product(grid, grid)]))
        least = np.linalg.cond(gram * scales[:, :, None] * scales[:, None, :]).min()
        found = theory.quadratics.least_condition_number(X)
        assert found == pytest.approx(least, rel=0.01)
        unit = np.linalg.cond(gram * np.exp(base)[:, None] * np.exp(base))
        assert found <= unit <= 3.0 * found


class TestNesterovWorstCase:
    @pytest.mark.parametrize("settings", [{}, {"smoothness": 3.0}, {"strong_convexity": 0.01}, {"strong_convexity": 0.4}])
    def test_what_is_known_of_it_is_so(self, settings):
        problem = problems.nesterov_worst_case(6, **settings)
        L, mu = settings.get("smoothness", 1.0), settings.get("strong_convexity", 0.0)
        x = np.random.default_rng(0).normal(size=problem.start.size)
        np.testing.assert_allclose(problem.gradient(x), problem.hessian @ (x - problem.minimizer), atol=1e-13)
        assert problem.objective(problem.minimizer) == pytest.approx(float(problem.minimum), rel=1e-13)
        assert np.abs(problem.gradient(problem.minimizer)).max() < 1e-15
        assert mu <= problem.strong_convexity < problem.smoothness <= L

    def test_it_is_theory_s(self):  # E08
        problem = problems.nesterov_worst_case(5)
        assert problem.start.size == 11
        assert problem.minimum == pytest.approx((-1.0 + 1.0 / 12.0) / 8.0, rel=1e-13)
        np.testing.assert_allclose(problem.minimizer, 1.0 - np.arange(1, 12) / 12.0)

    @pytest.mark.parametrize(
        "settings", [{"num_steps": 0}, {"num_steps": 2.5}, {"strong_convexity": 1.0}, {"smoothness": -1.0}, {"strong_convexity": 1e-9}]
    )
    def test_what_makes_no_sense_is_refused(self, settings, mistake):
        assert "is not allowed" in mistake(problems.nesterov_worst_case, **settings) or "dimensions" in mistake(
            problems.nesterov_worst_case, **settings
        )

    def test_it_has_a_name(self):
        assert problems.named("nesterov_worst_case", num_steps=4).start.size == 9


class TestMethods:
    def test_chebyshev_is_the_reference(self):  # C01
        ds = gdjax.sweep(
            problems.designed_spectrum(SPECTRUM), method="chebyshev", sampler="full", num_steps=200, record_every=1, learning_rate=2 / 1.01
        )
        steps = list(reference.SPECTRUM_CHEBYSHEV)
        np.testing.assert_allclose(ds.objective.sel(step=steps), list(reference.SPECTRUM_CHEBYSHEV.values()), rtol=TABULATED)

    def test_chebyshev_with_one_curvature_is_gradient_descent(self):
        problem = problems.designed_spectrum([1.0, 0.5])
        runs = [
            gdjax.sweep(problem, method=method, sampler="full", num_steps=5, record_every=1, learning_rate=0.3, **numbers).objective
            for method, numbers in (("chebyshev", {"condition_number": 1.0}), ("sgd", {}))
        ]
        np.testing.assert_allclose(*runs, rtol=1e-13)

    @pytest.mark.parametrize("nu", [0.75, 2.0])
    def test_the_nu_method_has_jacobi_s_polynomials(self, nu):
        curvatures, t = np.linspace(0.01, 1.0, 20), 9
        ds = gdjax.sweep(
            problems.designed_spectrum(curvatures),
            method="nu_method",
            sampler="full",
            num_steps=t,
            record_every=t,
            learning_rate=1.0,
            nu=nu,
        )
        order = 2.0 * nu - 0.5
        wanted = special.eval_jacobi(t, order, -0.5, 1.0 - 2.0 * curvatures) / special.eval_jacobi(t, order, -0.5, 1.0)
        np.testing.assert_allclose(ds.params, wanted, atol=1e-12)

    def test_a_horizon_is_an_axis_and_beyond_it_the_method_goes_on(self):
        """x_N of x^2 / 2 is +-1 / theta_N for each N; the other steps are those of no horizon."""
        horizons = [1.0, 4.0, 9.0]
        ds = gdjax.sweep(
            problems.designed_spectrum([1.0]),
            method="ogm",
            sampler="full",
            num_steps=12,
            record_every=1,
            learning_rate=1.0,
            horizon=horizons,
        )
        for horizon in horizons:
            at = float(ds.objective.sel(horizon=horizon, step=int(horizon)))
            assert at == pytest.approx(float(worst_cases.ogm_bound(int(horizon))), rel=1e-13)
        assert np.isfinite(ds.objective).all()
        np.testing.assert_array_equal(ds.objective.sel(step=slice(0, 3), horizon=4.0), ds.objective.sel(step=slice(0, 3), horizon=9.0))

    def test_its_numbers_are_data(self):
        assert methods.is_number("ogm", "horizon")
        assert methods.is_number("chebyshev", "condition_number")
        assert methods.is_number("nu_method", "nu")


class TestConjugateGradients:
    def test_they_are_the_reference(self):  # C01
        errors = np.asarray(solvers.conjugate_gradients(jnp.asarray(SPECTRUM), jnp.ones(50), 30, product=jnp.multiply))
        values = 0.5 * np.square(errors) @ SPECTRUM
        steps = list(reference.SPECTRUM_CONJUGATE_GRADIENTS)
        np.testing.assert_allclose(values[steps], list(reference.SPECTRUM_CONJUGATE_GRADIENTS.values()), rtol=TABULATED)

    def test_they_arrive_and_stay(self):
        errors = solvers.conjugate_gradients(jnp.diag(jnp.array([1.0, 4.0, 9.0])), jnp.array([1.0, -2.0, 0.5]), 400)
        assert float(jnp.abs(errors[3:]).max()) < 1e-14
        assert bool(jnp.isfinite(errors).all())

    def test_starts_are_lanes(self):
        starts = jnp.asarray(np.random.default_rng(0).normal(size=(3, 50)))
        matrix = jnp.diag(jnp.asarray(SPECTRUM))
        together = jax.vmap(lambda start: solvers.conjugate_gradients(matrix, start, 5))(starts)
        np.testing.assert_allclose(together[1], solvers.conjugate_gradients(matrix, starts[1], 5), rtol=1e-9)


class TestEarlyStopping:
    @pytest.mark.parametrize("t", [1, 2, 7, 100, np.inf])
    def test_suprema_are_those_of_a_fine_grid(self, t):
        x = np.linspace(1e-3, min(t, 20.0), 400_001)
        left = np.exp(-x) if np.isinf(t) else (1.0 - x / t) ** t
        assert early_stopping.filter_ratio(t)[0] == pytest.approx(((1 - left) * (1 + x) / x).max(), rel=1e-9)
        assert early_stopping.bayes_ratio_bound(t) == pytest.approx(((1 + x) * (left**2 + (1 - left) ** 2 / x)).max(), rel=1e-9)

    def test_the_flow_s_are_the_paper_s(self):  # E18
        assert round(early_stopping.risk_ratio_bound(), 2) == 1.69
        assert round(early_stopping.bayes_ratio_bound(), 4) == 1.2147

    def test_filters(self):
        assert early_stopping.descent_filter(0.3, 5) == pytest.approx(1.0 - 0.7**5)
        assert early_stopping.descent_filter(0.3, np.inf) == pytest.approx(1.0 - np.exp(-0.3))


@pytest.fixture(scope="module")
def cancer():
    table = data.standardize(data.read("breast_cancer"))
    return problems.logistic(table.features, table.target, ridge=0.005)


class TestLogistic:
    def test_breast_cancer_is_the_reference(self, cancer):  # C12
        curvatures = logistic.curvatures(cancer)
        assert curvatures[0] == pytest.approx(reference.BREAST_CANCER_STRONG_CONVEXITY, rel=1e-8)
        assert curvatures[-1] == pytest.approx(reference.BREAST_CANCER_LARGEST_CURVATURE, rel=1e-8)
        rate = 1.0 / float(cancer.smoothness)
        contraction = float(theory.contraction(rate, curvatures[-1], curvatures[0]))
        assert contraction == pytest.approx(reference.BREAST_CANCER_CONTRACTION, rel=1e-10)
        X, y = cancer.data
        assert np.mean(np.sign(X @ cancer.minimizer) == y) == pytest.approx(reference.BREAST_CANCER_ACCURACY, rel=1e-12)
        assert np.abs(cancer.gradient(cancer.minimizer)).max() < 1e-15

    def test_the_hessian_is_autodiff_s(self, cancer):
        problem = dataclasses.replace(cancer, data=tuple(part[:40] for part in cancer.data))
        X, y = (jnp.asarray(part) for part in problem.data)

        def objective(theta):
            return jnp.mean(jnp.logaddexp(0.0, -y * (X @ theta))) + 0.005 * jnp.sum(theta[1:] ** 2)

        np.testing.assert_allclose(logistic.hessian(problem), jax.hessian(objective)(jnp.asarray(problem.minimizer)), atol=1e-12)

    def test_the_margin_is_the_largest_of_all_directions(self):
        rng = np.random.default_rng(1)
        points = rng.normal(size=(30, 2))
        points = points * np.sign(points @ [0.8, -0.6])[:, None] + 0.2 * np.array([0.8, -0.6])
        angles = np.linspace(0.0, 2.0 * np.pi, 200_001)
        largest = (points @ np.stack([np.cos(angles), np.sin(angles)])).min(axis=0).max()
        shortest = solvers.max_margin(points)
        assert 1.0 / np.linalg.norm(shortest) == pytest.approx(largest, rel=2e-5)  # the grid's step, at a kink
        assert (points @ shortest).min() == pytest.approx(1.0, rel=1e-9)

    def test_what_no_line_separates_is_refused(self):
        with pytest.raises(ValueError, match="can't be separated"):
            solvers.max_margin(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
