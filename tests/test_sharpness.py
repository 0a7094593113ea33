"""The largest Hessian eigenvalue by products alone is that of the whole Hessian, and exact where it is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gdjax import problems, sharpness
from tests.conftest import random_data

EXACT = 1e-12  # as many products as there are parameters: round-off of an eigenvalue of a small matrix


def network(**options):
    X, _ = random_data(30, 4)
    labels = np.random.default_rng(1).integers(0, 3, size=30)
    return problems.mlp_classification(X, labels, **{"hidden": 5} | options)


def whole_hessian(problem, params):
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda x: problem.objective(unravel(x))))(flat))


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("weight_scale", [0.5, 3.0])
def test_it_is_the_largest_eigenvalue_of_the_whole_hessian(loss, weight_scale):
    problem = network(loss=loss, weight_scale=weight_scale)
    values, vectors = np.linalg.eigh(whole_hessian(problem, problem.start))
    value, vector = sharpness.top_eigenpair(problem, problem.start)
    assert values[0] < 0.0  # not the one of largest size
    assert float(value) == pytest.approx(values[-1], rel=EXACT)
    assert abs(ravel_pytree(vector)[0] @ vectors[:, -1]) == pytest.approx(1.0, rel=1e-10)
    assert jax.tree.map(np.shape, vector) == jax.tree.map(np.shape, problem.start)


def test_few_products_are_enough_and_never_too_much():
    problem = network(hidden=20)
    largest = np.linalg.eigvalsh(whole_hessian(problem, problem.start))[-1]
    found = [float(sharpness.lambda_max(problem, problem.start, num_products=count)) for count in (1, 32)]
    assert all(low <= high * (1.0 + EXACT) for low, high in zip(found, [*found[1:], largest], strict=True))
    assert found[-1] == pytest.approx(largest, rel=1e-10)
    assert found[0] < 0.5 * largest


@pytest.mark.parametrize("intercept", [True, False])
def test_of_least_squares_it_is_the_smoothness(intercept):
    problem = problems.least_squares(*random_data(20, 3), intercept=intercept)
    assert float(sharpness.lambda_max(problem, problem.start)) == pytest.approx(float(problem.smoothness), rel=EXACT)


@pytest.mark.parametrize("spectrum", [[3.0], [2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 5.0, 5.0, 0.0], list(np.linspace(0, 7, 90))])
def test_spectra_that_end_early_repeat_or_are_long(spectrum):
    problem = problems.designed_spectrum(spectrum)
    assert float(sharpness.lambda_max(problem, problem.start)) == pytest.approx(max(spectrum), rel=1e-9)


def test_all_eigenvalues_below_zero_leave_the_largest_of_them():
    problem = problems.from_loss(lambda x, example: -example * (jnp.sum(x**2) + x[0] ** 2), np.ones(2), np.zeros(4))
    assert float(sharpness.lambda_max(problem, problem.start)) == pytest.approx(-2.0, rel=EXACT)


def test_mapped_over_points_it_is_the_same_and_traced_once():
    problem = network()
    points = jax.tree.map(lambda leaf: np.stack([leaf, 2.0 * leaf, leaf - 0.1]), problem.start)
    counted = []

    def largest(params):
        counted.append(1)
        return sharpness.lambda_max(problem, params)

    mapped = jax.jit(jax.vmap(largest))(points)
    alone = [float(sharpness.lambda_max(problem, jax.tree.map(lambda leaf, at=at: leaf[at], points))) for at in range(3)]
    np.testing.assert_allclose(mapped, alone, rtol=EXACT)
    assert len(counted) == 1


def test_it_has_64_bits_whatever_jax_is_set_to():
    with jax.enable_x64(False):
        problem = network()
        assert sharpness.lambda_max(problem, problem.start).dtype == np.float64
