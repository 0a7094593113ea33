"""An evaluation of many lanes is, lane by lane, the weighted loss and its gradient, however it is written."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdjax import losses, models

LOSSES = {name: loss for name, loss in vars(losses).items() if inspect.isfunction(loss) and loss.__module__ == losses.__name__}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
ROUNDING = {"rtol": 1e-12, "atol": 1e-13}  # sums of 7 terms of size 1 to 10, in another order: a few times 1e-15

RNG = np.random.default_rng(5)
FEATURES, TARGET = RNG.normal(size=(7, 4)), np.sign(RNG.normal(size=7))
LANES = jnp.asarray(RNG.normal(size=(4, 5)))
RAGGED = np.array([0.25, 0.25, 0.25, 0.25, 0.0, 0.0, 0.0])  # four examples of seven


def per_example(loss):
    """The same model without its structure, for autodiff to see."""

    def one(params, example, **constants):
        return loss(models.linear(params, example[0]), example[1], **constants)

    return models.PerExample(one)


def by_autodiff(loss, weights, lanes=LANES):
    def weighted(params):
        return jnp.sum(weights * loss(FEATURES @ params, TARGET))

    values, gradients = jax.vmap(jax.value_and_grad(weighted), in_axes=1, out_axes=(0, 1))(lanes)
    return np.asarray(values), np.asarray(gradients)


def test_linear_predicts_the_dot_product():
    np.testing.assert_allclose(models.linear(LANES[:, 0], FEATURES), [row @ LANES[:, 0] for row in FEATURES], **ROUNDING)


@EVERY_LOSS
@pytest.mark.parametrize("weights", [np.full(7, 1 / 7), RAGGED], ids=["mean", "ragged"])
def test_linear_is_per_example_is_autodiff(loss, weights):
    for evaluate in (models.Linear(loss), per_example(loss)):
        value, gradient = evaluate(LANES, {}, (FEATURES, TARGET), weights)
        wanted_value, wanted_gradient = by_autodiff(loss, weights)
        np.testing.assert_allclose(value, wanted_value, **ROUNDING)
        np.testing.assert_allclose(gradient, wanted_gradient, **ROUNDING)


@EVERY_LOSS
def test_one_weight_for_all_examples_is_that_weight_for_each(loss):
    for evaluate in (models.Linear(loss), per_example(loss)):
        value, gradient = evaluate(LANES, {}, (FEATURES, TARGET), 1 / 7)
        wanted_value, wanted_gradient = by_autodiff(loss, np.full(7, 1 / 7))
        np.testing.assert_allclose(value, wanted_value, **ROUNDING)
        np.testing.assert_allclose(gradient, wanted_gradient, **ROUNDING)


@EVERY_LOSS
def test_ragged_weights_are_a_shorter_batch(loss):
    for evaluate in (models.Linear(loss), per_example(loss)):
        for whole, short in zip(
            evaluate(LANES, {}, (FEATURES, TARGET), RAGGED), evaluate(LANES, {}, (FEATURES[:4], TARGET[:4]), 1 / 4), strict=True
        ):
            np.testing.assert_allclose(whole, short, **ROUNDING)


def test_constants_reach_the_loss():
    for evaluate in (models.Linear(losses.huber), per_example(losses.huber)):
        value, gradient = evaluate(LANES, {"delta": 0.2}, (FEATURES, TARGET), 1 / 7)
        wanted_value, wanted_gradient = by_autodiff(lambda f, y: losses.huber(f, y, delta=0.2), 1 / 7)
        np.testing.assert_allclose(value, wanted_value, **ROUNDING)
        np.testing.assert_allclose(gradient, wanted_gradient, **ROUNDING)


@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_penalises_all_but_the_intercept(intercept):
    evaluate = models.Linear(losses.logistic, intercept=intercept)
    value, gradient = evaluate(LANES, {"ridge": 0.3}, (FEATURES, TARGET), 1 / 7)

    def objective(params):
        penalised = params[1:] if intercept else params
        return jnp.mean(losses.logistic(FEATURES @ params, TARGET)) + 0.3 * jnp.sum(penalised**2)

    np.testing.assert_allclose(value, jax.vmap(objective, in_axes=1)(LANES), **ROUNDING)
    np.testing.assert_allclose(gradient, jax.vmap(jax.grad(objective), in_axes=1, out_axes=1)(LANES), **ROUNDING)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e200])
def test_a_diverged_lane_leaves_the_others_bit_for_bit(broken):
    spoilt = LANES.at[:, 2].set(broken)
    others = [0, 1, 3, 4]
    for evaluate in (models.Linear(losses.squared_error), per_example(losses.squared_error)):
        clean_value, clean_gradient = evaluate(LANES, {}, (FEATURES, TARGET), 1 / 7)
        value, gradient = evaluate(spoilt, {}, (FEATURES, TARGET), 1 / 7)
        assert not np.isfinite(value[2])
        np.testing.assert_array_equal(value[np.array(others)], clean_value[np.array(others)])
        np.testing.assert_array_equal(gradient[:, np.array(others)], clean_gradient[:, np.array(others)])


def test_per_example_keeps_the_shapes_of_any_pytree():
    def loss(params, example):
        hidden = jnp.tanh(params["inner"] @ example["x"])
        return (params["outer"] @ hidden - example["y"]) ** 2

    lanes = {"inner": RNG.normal(size=(3, 4, 2)), "outer": RNG.normal(size=(3, 2))}
    examples = {"x": FEATURES, "y": TARGET}
    value, gradient = models.PerExample(loss)(lanes, {}, examples, 1 / 7)
    assert jax.tree.map(np.shape, gradient) == jax.tree.map(np.shape, lanes)
    for lane in range(2):
        params = jax.tree.map(lambda leaf, at=lane: leaf[..., at], lanes)
        wanted, slope = jax.value_and_grad(lambda p: jnp.mean(jax.vmap(lambda e: loss(p, e))(examples)))(params)
        np.testing.assert_allclose(value[lane], wanted, **ROUNDING)
        jax.tree.map(lambda a, b, at=lane: np.testing.assert_allclose(a[..., at], b, **ROUNDING), gradient, slope)


def test_diagonal_quadratic_is_half_the_weighted_square():
    eigenvalues = np.array([0.1, 1.0, 2.0, 0.0])
    value, gradient = models.diagonal_quadratic(LANES, {"eigenvalues": eigenvalues}, (), 1.0)
    np.testing.assert_allclose(value, 0.5 * np.einsum("j,jl->l", eigenvalues, LANES**2), **ROUNDING)
    np.testing.assert_allclose(gradient, np.diag(eigenvalues) @ LANES, **ROUNDING)


LAYERS = models.mlp_params([4, 3, 2], weight_scale=0.7, seed=1)


def test_a_perceptron_is_affine_maps_with_an_activation_between_them():
    (V, b), (W, c) = (models.Layer(layer.weight, layer.bias + 0.1) for layer in LAYERS)
    given = [models.Layer(V, b), models.Layer(W, c)]
    np.testing.assert_allclose(models.mlp(given, FEATURES), np.tanh(FEATURES @ V + b[None]) @ W + c[None], **ROUNDING)
    np.testing.assert_allclose(models.mlp(given, FEATURES, "identity"), (FEATURES @ V + b[None]) @ W + c[None], **ROUNDING)


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_takes_one_example_or_many(activation):
    rows = models.mlp(LAYERS, FEATURES, activation)
    np.testing.assert_allclose(rows, [models.mlp(LAYERS, row, activation) for row in FEATURES], **ROUNDING)


def test_initial_weights_keep_the_mean_square_and_scale_as_told():
    wide = models.mlp_params([400, 300, 2], weight_scale=1.0, seed=3)
    assert np.std(wide[0].weight) * 20.0 == pytest.approx(1.0, abs=5 / np.sqrt(2 * 400 * 300))  # 5 standard errors
    assert not wide[0].bias.any()
    twice = models.mlp_params([400, 300, 2], weight_scale=2.0, seed=3)
    np.testing.assert_array_equal(twice[1].weight, 2.0 * wide[1].weight)
    assert not np.array_equal(models.mlp_params([400, 300, 2], seed=4)[0].weight, wide[0].weight)


def test_losses_of_classes_are_their_formulas():
    outputs, label = jnp.asarray([0.3, -1.2, 2.0]), jnp.asarray(1)
    probability = np.exp(outputs) / np.exp(outputs).sum()
    assert float(models.cross_entropy(outputs, label)) == pytest.approx(-np.log(probability[1]), rel=1e-14)
    assert float(models.squared_distance(outputs, label)) == pytest.approx(0.5 * (0.09 + 2.2**2 + 4.0), rel=1e-14)
    assert float(models.cross_entropy(1e4 * outputs, label)) == pytest.approx(3.2e4, rel=1e-14)  # no overflow
