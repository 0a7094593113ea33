"""Counted arithmetic: by hand, against XLA's own count, and refused where it can't be known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gdjax import problems, work
from gdjax.work import flops

X, y, theta = np.ones((40, 6)), np.ones(40), np.ones(6)


def gradient(theta, X, y):
    return 2.0 / len(X) * X.T @ (X @ theta - y)


@pytest.mark.parametrize(
    ("function", "arguments", "count"),
    [
        (lambda x: x + x * x, (theta,), 12),
        (lambda X: X.sum(axis=0), (X,), 39 * 6),
        (gradient, (theta, X, y), 2 * 2 * 40 * 6 + 40 + 40 * 6),  # the scale is multiplied into X' first, as the formula is written
        (lambda A: jnp.linalg.cholesky(A, symmetrize_input=False), (np.eye(6),), 6**3 // 3),
        (lambda A, b: jax.scipy.linalg.solve_triangular(A, b, lower=True), (np.eye(6), theta), 6**2),
        (lambda x: lax.fori_loop(0, 7, lambda _, x: 2.0 * x, x), (theta,), 42),
        (lambda x: lax.scan(lambda x, _: (jax.jit(jnp.exp)(x), None), x, length=5)[0], (theta,), 30),
        (lambda x: lax.cond(x[0] > 0, lambda x: x, lambda x: x + 1.0, x), (theta,), 6),
        (jax.vmap(lambda x: x @ x), (X,), 2 * 40 * 6),
        (lambda X: X.T[::2], (X,), 0),
    ],
)
def test_arithmetic_is_counted_as_by_hand(function, arguments, count):
    assert flops(function, *arguments) == count


@pytest.mark.parametrize("batch", [1, 16, 80])
def test_a_step_s_arithmetic_is_xla_s_count_of_it(batch):
    problem = problems.notebook_line()
    X, y = (part[:batch] for part in problem.data)

    def evaluate(lanes, X, y):
        return problem.evaluate(lanes, {}, (X, y), 1.0 / len(X))

    counted = jax.jit(evaluate).lower(np.ones((2, 1)), X, y).cost_analysis()["flops"]
    by_one = batch  # a multiplication by 1 for each example, which XLA leaves away
    assert flops(evaluate, np.ones((2, 1)), X, y) == pytest.approx(counted, abs=by_one + 4)


def test_what_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'while' is not known"):
        flops(lambda n: lax.fori_loop(0, n, lambda _, x: x + 1.0, 0.0), 3)
    with pytest.raises(ValueError, match="'eigh' is not known"):
        flops(jnp.linalg.eigvalsh, np.eye(3))


def test_every_operation_is_counted_or_moved_not_both():
    assert not set(work.COUNTED) & work.MOVED
