"""Every loss is pointwise, and its slope is what finite differences say; the Huber loss lies between its two limits."""

from __future__ import annotations

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gdjax import losses

LOSSES = {name: loss for name, loss in vars(losses).items() if inspect.isfunction(loss) and loss.__module__ == losses.__name__}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
PREDICTIONS = np.array([-3.3, -1.7, -0.4, 0.2, 0.6, 1.9, 4.1])  # no residual at a kink: none is 0, and none +-1
NOT_CONVEX = ("bisquare", "student_t")
BOUNDED = ("bisquare",)
TARGETS = np.array([1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0])  # +-1, which every loss takes


@EVERY_LOSS
def test_slope_is_the_finite_difference(loss):
    half = 1e-5
    slopes = jax.vmap(jax.grad(loss))(PREDICTIONS, TARGETS)
    differences = (loss(PREDICTIONS + half, TARGETS) - loss(PREDICTIONS - half, TARGETS)) / (2 * half)
    # round-off: eps * |loss| / half = 2e-16 * 30 / 1e-5; truncation: half^2 |loss'''| / 6 < 2e-11
    np.testing.assert_allclose(slopes, differences, rtol=0, atol=1e-9)


@EVERY_LOSS
def test_loss_is_pointwise(loss):
    alone = [float(loss(prediction, target)) for prediction, target in zip(PREDICTIONS, TARGETS, strict=True)]
    # one operation a time: vectorised exp and log may differ from the scalar ones in the last place
    np.testing.assert_allclose(loss(PREDICTIONS, TARGETS), alone, rtol=1e-14)


@pytest.mark.parametrize("loss", [loss for name, loss in LOSSES.items() if name not in NOT_CONVEX])
def test_loss_is_convex_along_the_prediction(loss):
    left, right = PREDICTIONS - 0.5, PREDICTIONS + 0.5
    middle = loss(PREDICTIONS, TARGETS)
    assert (middle <= 0.5 * (loss(left, TARGETS) + loss(right, TARGETS)) + 1e-14).all()  # equality where it is linear: rounding


@pytest.mark.parametrize("loss", [loss for name, loss in LOSSES.items() if name in NOT_CONVEX])
def test_a_redescending_loss_pulls_less_from_further_away(loss):
    assert float(jax.grad(loss)(4.0, 0.0)) < float(jax.grad(loss)(1.7, 0.0))


@pytest.mark.parametrize("loss", [loss for name, loss in LOSSES.items() if name not in BOUNDED])
@pytest.mark.parametrize("prediction", [np.nan, -np.inf])
def test_divergence_is_a_value(loss, prediction):
    assert not np.isfinite(loss(jnp.asarray(prediction), jnp.asarray(1.0)))


@pytest.mark.parametrize(
    ("loss", "density"),
    [
        (functools.partial(losses.gaussian_nll, sigma=0.7), scipy.stats.norm(scale=0.7)),
        (functools.partial(losses.laplace_nll, scale=0.7), scipy.stats.laplace(scale=0.7)),
        (functools.partial(losses.student_t, degrees=3.0, scale=0.7), scipy.stats.t(3.0, scale=0.7)),
        (functools.partial(losses.student_t, degrees=1.5), scipy.stats.t(1.5)),
    ],
)
def test_a_negative_log_likelihood_is_minus_the_log_of_its_density(loss, density):
    # lgamma and log each good to some 1e-15, of values up to 25
    np.testing.assert_allclose(loss(PREDICTIONS, TARGETS), -density.logpdf(PREDICTIONS - TARGETS), rtol=1e-13)


def test_bisquare_is_flat_past_its_cutoff_and_half_the_square_far_inside():
    assert float(losses.bisquare(5.0, 0.0, cutoff=2.0)) == float(losses.bisquare(np.inf, 0.0, cutoff=2.0)) == 4.0 / 6.0
    # 1 - (1 - u)^3 = 3u - 3u^2 ..: the second term is (r / c)^2 = 2e-5 of the first at most
    np.testing.assert_allclose(losses.bisquare(PREDICTIONS, 0.0, cutoff=1e3), 0.5 * PREDICTIONS**2, rtol=2e-5)


def test_student_t_of_many_degrees_is_gaussian():
    gap = losses.student_t(PREDICTIONS, TARGETS, degrees=1e7) - losses.gaussian_nll(PREDICTIONS, TARGETS)
    np.testing.assert_allclose(gap, 0.0, atol=2e-5)  # r^4 / (4 nu) = 9e-6 at r = 4.3


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "value"),
    [
        (losses.squared_error, 3.0, 1.0, 4.0),
        (losses.absolute, -2.0, 1.5, 3.5),
        (losses.huber, 0.5, 0.0, 0.125),
        (losses.huber, 1.0, 0.0, 0.5),
        (losses.huber, -3.0, 0.0, 2.5),
        (losses.logistic, 0.0, 1.0, math.log(2.0)),
        (losses.logistic, 2.0, -1.0, math.log1p(math.exp(2.0))),
        (losses.logistic, -1000.0, 1.0, 1000.0),  # where exp overflows
        (losses.logistic, 1000.0, 1.0, 0.0),
    ],
)
def test_values_by_hand(loss, prediction, target, value):
    assert float(loss(prediction, target)) == pytest.approx(value, rel=1e-15, abs=0)  # one rounding


def test_absolute_has_slope_zero_at_its_kink():
    assert float(jax.grad(losses.absolute)(1.5, 1.5)) == 0.0


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_huber_slope_is_the_clipped_residual(delta):
    residuals = np.array([-4.0, -delta, -0.1, 0.0, 0.1, delta, 4.0])  # with the kink of |r| and both joints
    slopes = jax.vmap(jax.grad(lambda r: losses.huber(r, 0.0, delta=delta)))(residuals)
    np.testing.assert_allclose(slopes, np.clip(residuals, -delta, delta), rtol=1e-15)  # one rounding


def test_huber_is_half_the_square_for_a_large_delta():
    np.testing.assert_array_equal(losses.huber(PREDICTIONS, 0.0, delta=1e3), 0.5 * losses.squared_error(PREDICTIONS, 0.0))


def test_huber_is_delta_times_the_absolute_error_for_a_small_delta():
    delta = 1e-6
    gap = losses.absolute(PREDICTIONS, TARGETS) - losses.huber(PREDICTIONS, TARGETS, delta=delta) / delta
    np.testing.assert_allclose(gap, delta / 2, rtol=1e-8)  # rounding of |r| against delta / 2: 1e-15 / 5e-7


def test_huber_curves_half_as_much_as_the_squared_error():
    def curvature(loss):
        return float(jax.grad(jax.grad(loss))(0.2, 0.0))

    assert curvature(losses.squared_error) == 2.0
    assert curvature(losses.huber) == pytest.approx(1.0, rel=1e-15)  # one rounding


def test_delta_may_be_swept():
    deltas = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(jax.vmap(lambda delta: losses.huber(5.0, 0.0, delta=delta))(deltas), deltas * 5.0 - deltas**2 / 2)
