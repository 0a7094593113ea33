"""The experiments on what the two source texts say, against numbers computed independently, and with a constant broken on purpose."""

import numpy as np
import pytest

from experiments import normal_equations
from gdjax import problems, theory
from gdjax.records import InputError
from gdjax.sweep import sweep
from tests import reference


def square(params, example):
    return (params - example) ** 2


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def solved():
    return normal_equations.run(problems.notebook_line(), sweep)


@pytest.mark.parametrize("module", [normal_equations])
def test_an_experiment_on_least_squares_refuses_anything_else(module):
    for other in (problems.from_loss(square, np.ones(3), np.zeros(())), problems.designed_spectrum([1.0, 2.0])):
        with pytest.raises(InputError, match=f"about linear least squares, which {other.name} is not"):
            module.run(other, sweep)


@pytest.mark.parametrize("solver", normal_equations.SOLVERS)
def test_every_solver_gives_the_reference_solution(solved, solver):
    np.testing.assert_allclose(solved["solved"]["solution"].sel(solver=solver), reference.NOTEBOOK_MINIMIZER, rtol=1e-10)


def test_descent_gives_the_reference_solution(solved):
    np.testing.assert_allclose(solved["descent"].params, reference.NOTEBOOK_MINIMIZER, rtol=1e-7)


@pytest.mark.parametrize("way", ["matrix", "componentwise", "autodiff", "finite differences", "gdjax"])
def test_every_gradient_is_the_reference_gradient(solved, way):
    at_zero = solved["gradient"].gradient.sel(way=way, point=0)
    np.testing.assert_allclose(at_zero, reference.NOTEBOOK_GRADIENT_AT_ZERO, rtol=1e-10)


def test_rational_arithmetic_solves_an_ill_conditioned_system_exactly():
    X = np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-30], [1.0, 1.0 - 2.0**-30]])
    np.testing.assert_array_equal(theory.exact_least_squares(X, X @ np.array([3.0, 5.0])), [3.0, 5.0])
    assert np.isnan(theory.exact_least_squares(np.ones((3, 2)), np.ones(3))).all()


def test_a_solver_that_squared_the_condition_number_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    monkeypatch.setitem(normal_equations.SOLVERS, "QR", normal_equations.cholesky)
    normal_equations._every_solver.clear_cache()
    results = normal_equations.run(problem, sweep)
    normal_equations._every_solver.clear_cache()
    assert any(claim.startswith("QR, no residual") for claim in lost(normal_equations.check(results, problem)))


def test_a_wrong_gradient_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    monkeypatch.setattr(normal_equations, "_componentwise", lambda X, y, theta: X.T @ (X @ theta - y) / len(X))  # of half the loss
    results = normal_equations.run(problem, sweep)
    assert any("by componentwise" in claim for claim in lost(normal_equations.check(results, problem)))


def test_descent_that_ends_elsewhere_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    results = normal_equations.run(problem, sweep, num_steps=50)
    assert lost(normal_equations.check(results, problem)) == []
    errors = theory.gradient_descent_errors
    monkeypatch.setattr(theory, "gradient_descent_errors", lambda modes, rate, steps: errors(modes, 1.001 * rate, steps))
    assert any("end at the closed form" in claim for claim in lost(normal_equations.check(results, problem)))
