"""SVRG and SAGA are their textbooks', ask only for what they need, and other methods hear nothing of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdjax
from gdjax import methods, problems, program
from tests.conftest import random_data
from tests.test_methods import examples_by_hand


def table_of(rows):
    """A sampler of these batches."""

    def draw(rng, num_steps, num_examples, batch_size):
        return np.asarray(rows, np.int32)[:num_steps]

    return draw


@pytest.mark.parametrize(("method", "hessian"), [("svrg", True), ("saga", True), ("saga", False)])
def test_with_every_example_in_each_step_it_is_gradient_descent(method, hessian, notebook, plain_notebook):
    problem, settings = notebook if hessian else plain_notebook, {"sampler": "full", "num_steps": 20, "learning_rate": [0.001, 0.02]}
    plain, other = gdjax.sweep(problem, **settings), gdjax.sweep(problem, method=method, **settings)
    np.testing.assert_allclose(other.params, plain.params, rtol=1e-10)  # g - h + h, rounded


def test_saga_is_the_textbook_s_where_a_batch_holds_an_example_twice(small):
    rows, rate = [[3, 3, 5], [5, 0, 3], [7, 7, 7], [3, 0, 7]], 0.05
    X, y = small.data
    params, seen = np.zeros(4), [2.0 * (X[i] @ np.zeros(4) - y[i]) * X[i] for i in range(20)]
    for batch in rows:
        new = [2.0 * (X[i] @ params - y[i]) * X[i] for i in batch]
        params = params - rate * (np.mean(new, axis=0) - np.mean([seen[i] for i in batch], axis=0) + np.mean(seen, axis=0))
        for i, gradient in zip(batch, new, strict=True):
            seen[i] = gradient
    ds = gdjax.sweep(small, method="saga", sampler=table_of(rows), batch_size=3, num_steps=4, learning_rate=rate)
    np.testing.assert_allclose(ds.params, params, rtol=1e-12)


@pytest.mark.parametrize("average", [False, True])
def test_svrg_is_the_textbook_s(small, average):
    rows, rate, length = np.random.default_rng(0).integers(0, 20, size=(7, 1)), 0.05, 3
    X, y = small.data

    def gradient(i, params):
        return 2.0 * (X[i] @ params - y[i]) * X[i]

    params = np.zeros(4)
    for step, (i,) in enumerate(rows):
        if step % length == 0:
            snapshot, full, path = params, 2.0 * X.T @ (X @ params - y) / 20, []
        path.append(params)
        params = params - rate * (gradient(i, params) - gradient(i, snapshot) + full)
        if average and step % length == length - 1:
            params = np.mean(path, axis=0)
    settings = {"sampler": table_of(rows), "batch_size": 1, "num_steps": 7, "learning_rate": rate}
    ds = gdjax.sweep(small, method="svrg", stage_length=length, average=average, **settings)
    np.testing.assert_allclose(ds.params, params, rtol=1e-12)


def test_parameters_may_be_any_tree_and_a_problem_may_be_built_inside():
    X, y = random_data(12, 2)

    def loss(params, example):
        return (params["w"] @ example[0] + params["b"] - example[1]) ** 2

    user = problems.from_loss(loss, (X, y), {"w": np.zeros(2), "b": 0.0})
    settings = {"method": "saga", "num_steps": 30, "batch_size": 5, "learning_rate": [0.01, 0.05], "seed": [0, 1]}
    plain = gdjax.sweep(problems.least_squares(X, y), **settings).params.values  # b first; keys of the tree are in order too
    np.testing.assert_allclose(gdjax.sweep(user, **settings).params, plain, rtol=1e-10)
    built = gdjax.sweep(lambda shift: problems.least_squares(X, y + 0.0 * shift), shift=[1.0, 2.0], **settings)
    np.testing.assert_allclose(built.params.sel(shift=1.0), plain, rtol=1e-10)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads what XLA makes for a CPU")
def test_svrg_takes_the_full_gradient_only_where_a_stage_begins():
    problem = problems.least_squares(*random_data(203, 5), hessian=False)
    kept, program._programs = program._programs, {}
    try:
        gdjax.sweep(problem, method="svrg", stage_length=10, num_steps=40, record_every=20, learning_rate=np.geomspace(1e-3, 1e-2, 16))
        (executable,) = program._programs.values()
    finally:
        program._programs = kept
    assert re.search(r" conditional\(", executable.as_text())


def test_what_a_rule_is_told_is_numpy_s(small):
    told = []

    def curious(learning_rate):
        def init(params, *, objective):
            return ()

        def update(gradient, state, params, *, objective, batch, value):
            told.append((objective.rows.shape, batch.rows.shape))
            mistake = jnp.sum((batch.gradient(params) - gradient) ** 2)
            mistake += jnp.sum((jnp.tensordot(batch.weights, batch.gradients(params), 1) - gradient) ** 2)
            mistake += jnp.sum((jnp.mean(objective.gradients(params), axis=0) - objective.gradient(params)) ** 2)
            return -learning_rate * (gradient + 1e10 * mistake), state

        return methods.ExampleGradientTransformation(init, update)

    settings = {"num_steps": 9, "batch_size": 8, "learning_rate": [0.01, 0.02]}  # batches of 8, 8 and 4 of 20
    np.testing.assert_allclose(gdjax.sweep(small, method=curious, **settings).params, gdjax.sweep(small, **settings).params, rtol=1e-12)
    assert set(told) == {((20,), (20,)), ((20,), (8,))}  # the shapes of its state are found with the objective for a batch
    by_hand = examples_by_hand(small, np.arange(20))
    np.testing.assert_allclose(by_hand.gradient(jnp.ones(4)), small.gradient(jnp.ones(4)), rtol=1e-12)


def test_any_other_rule_is_told_nothing(small):
    def strict(learning_rate):
        def update(gradient, state, params, *, value):
            return jax.tree.map(lambda g: -learning_rate * g, gradient), state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    gdjax.sweep(small, method=strict, num_steps=2, learning_rate=0.01)


def test_a_table_counts_in_the_memory_of_a_block(small, plans):
    for method in ("sgd", "saga"):
        gdjax.sweep(small, method=method, num_steps=2, learning_rate=np.geomspace(1e-3, 1e-2, 64), memory_budget=64 * 1024)
    assert len(plans[0]) < len(plans[1])
