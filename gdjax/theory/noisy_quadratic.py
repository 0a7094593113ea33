"""The noisy quadratic model: how batch size, rate, momentum and preconditioning trade steps for examples.

f(x) = sum_i h_i x_i^2 / 2, and a gradient on a batch of B has independent noise of variance c_i / B along each eigenvector. Zhang et al.
(2019) take h_i = c_i = 1 / i, i <= 10^4, x_0 = 1. E f(x_t) has a closed form in t, and the steps to a target are found by their binary
digits. Everything here is JAX and can be mapped over rates, batch sizes and momenta: a search over thousands of settings is one program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

Number = Float[Array, ""] | float

NUM_BITS = 27
"""Of a number of steps: runs longer than 2^27 count as never arriving."""


class Model(NamedTuple):
    """What the model is made of, along the eigenvectors."""

    curvatures: Float[Array, " modes"]  # h
    noise: Float[Array, " modes"]  # c, the variance of one example's gradient
    start: Float[Array, " modes"]  # x_0

    @property
    def weights(self) -> Float[Array, " modes"]:
        """What a squared error costs: h / 2."""
        return 0.5 * self.curvatures


def zhang(num_modes: int) -> Model:
    """h_i = c_i = 1 / i and x_0 = 1 (Zhang et al. 2019, section 3)."""
    curvatures = 1.0 / np.arange(1.0, num_modes + 1)
    return Model(curvatures, curvatures, np.ones(num_modes))  # pyright: ignore[reportArgumentType]


def preconditioned(model: Model, power: float) -> Model:
    """The model in which plain steps move as steps multiplied by h^-power do here: what it costs in f is `weights`, and stays.

    With z = h^(power / 2) x a step on z has curvature h^(1 - power) and noise c h^-power, and f = sum_i h_i^(1 - power) z_i^2 / 2: a model
    of the same kind.
    """
    scale = model.curvatures**-power
    return Model(model.curvatures * scale, model.noise * scale, model.start * scale**-0.5)


def expected_loss(model: Model, learning_rate: Number, batch_size: Number, steps: Number) -> Float[Array, ""]:
    """E f(x_t) = sum_i (1 - alpha h_i)^(2t) h_i x_0i^2 / 2 + (1 - (1 - alpha h_i)^(2t)) alpha c_i / (2 B (2 - alpha h_i)).

    Zhang et al. (2019), equation 2.

    >>> model = Model(*(jnp.ones(1),) * 3)
    >>> [round(float(expected_loss(model, 0.5, 4.0, t)), 4) for t in (0, 1, 100)]
    [0.5, 0.1562, 0.0417]
    """
    left = jnp.exp(2.0 * steps * jnp.log(jnp.abs(1.0 - learning_rate * model.curvatures)))
    left = jnp.where(steps == 0, 1.0, left)  # a mode that arrives in one step has the logarithm of 0
    return jnp.sum(model.weights * model.start**2 * left + (1.0 - left) * _floors(model, learning_rate, batch_size, 0.0))


class Impulse(NamedTuple):
    """a_t and a_{t-1} of each mode: how much of an impulse of t steps ago is left, with a_0 = 1 and a_t = p a_{t-1} - beta a_{t-2}."""

    now: Float[Array, " modes"]
    before: Float[Array, " modes"]

    def after(self, more: Impulse, middle: Float[Array, " modes"], momentum: Number) -> Impulse:
        """That of t + s steps, from those of t and of s: a product of powers of [[p, -beta], [1, 0]], with p = `middle`."""
        return Impulse(
            self.now * more.now - momentum * self.before * more.before,
            self.before * more.now + (self.now - middle * self.before) * more.before,
        )


def expected_loss_with_momentum(
    model: Model, learning_rate: Number, batch_size: Number, momentum: Number, steps: Number
) -> Float[Array, ""]:
    """E f(x_t) of the heavy ball x_{t+1} = x_t - alpha g_t + beta (x_t - x_{t-1}), x_{-1} = x_0, exactly.

    The mean is (a_t - beta a_{t-1}) x_0, and the variance what the stationary process has beyond what is left of it after t steps:
    V (1 - a_t^2 - beta^2 a_{t-1}^2) + 2 beta a_t a_{t-1} C, with V and C = V (1 + beta - alpha h) / (1 + beta) its variance and its
    covariance from one step to the next. Zhang et al. (2019), Thm 1, bound it from above. `steps` is below 2^27.

    >>> model = Model(*(jnp.ones(1),) * 3)
    >>> round(float(expected_loss_with_momentum(model, 0.5, 4.0, 0.0, 1)), 4), round(float(expected_loss(model, 0.5, 4.0, 1)), 4)
    (0.1562, 0.1562)
    """
    middle = 1.0 + momentum - learning_rate * model.curvatures

    def bit(k: Array, pair: tuple[Impulse, Impulse]) -> tuple[Impulse, Impulse]:
        total, power = pair
        more = total.after(power, middle, momentum)
        odd = (jnp.asarray(steps, jnp.int32) >> k) & 1 == 1
        return jax.tree.map(lambda one, other: jnp.where(odd, one, other), more, total), power.after(power, middle, momentum)

    first = Impulse(middle, jnp.ones_like(middle))
    none = Impulse(jnp.ones_like(middle), jnp.zeros_like(middle))
    total, _ = lax.fori_loop(0, NUM_BITS, bit, (none, first))
    return _loss(model, learning_rate, batch_size, momentum, total)


def _loss(model: Model, rate: Number, batch: Number, momentum: Number, left: Impulse) -> Float[Array, ""]:
    """E f, where `left` is left of an impulse at the start."""
    stationary = _floors(model, rate, batch, momentum)  # weights V
    joint = stationary * (1.0 + momentum - rate * model.curvatures) / (1.0 + momentum)
    mean = left.now - momentum * left.before
    spread = stationary * (1.0 - left.now**2 - (momentum * left.before) ** 2) + 2.0 * momentum * left.now * left.before * joint
    return jnp.sum(model.weights * (mean * model.start) ** 2 + spread)


def floor(model: Model, learning_rate: Number, batch_size: Number, momentum: Number = 0.0) -> Float[Array, ""]:
    """The limit of E f: sum_i (1 + beta) alpha c_i / (2 B (2 beta + 2 - alpha h_i) (1 - beta)); inf where a mode is not stable.

    Zhang et al. (2019), Thm 1.

    >>> float(floor(Model(*(jnp.ones(1),) * 3), 0.5, 4.0))
    0.041666666666666664
    """
    stable = learning_rate * jnp.max(model.curvatures) < 2.0 * (1.0 + momentum)
    return jnp.where(stable, jnp.sum(_floors(model, learning_rate, batch_size, momentum)), jnp.inf)


def _floors(model: Model, rate: Number, batch: Number, momentum: Number) -> Float[Array, " modes"]:
    speed = 2.0 * (1.0 + momentum) - rate * model.curvatures
    return (1.0 + momentum) * rate * model.noise / (2.0 * batch * speed * (1.0 - momentum))


def least_examples(num_modes: int, target: float) -> float:
    """K / (2 target): the examples without which no unbiased estimate of the minimizer has E f <= target, however it uses them.

    Along a mode a gradient says the minimizer up to a variance of c / h^2 an example, so that N examples leave h / 2 times c / (h^2 N),
    which is 1 / (2 N) where c = h (Cramer and Rao). In steps it is K / (2 target B) (Zhang et al. 2019, unconfirmed where).
    """
    return 0.5 * num_modes / target


@functools.partial(jax.jit, static_argnames="with_momentum")
def steps_to_target(
    model: Model,
    learning_rate: Float[Array, " settings"],
    batch_size: Float[Array, " settings"],
    momentum: Float[Array, " settings"],
    target: Number,
    *,
    with_momentum: bool = False,
) -> Float[Array, " settings"]:
    """The first step at which E f <= target, for thousands of settings in one program; inf where its limit is no lower.

    A step's binary digits are found from the greatest on, with the modes' powers to 1, 2, 4, .. steps: each digit costs a product a
    mode. Where every mode starts above its floor, E f falls in every step without momentum, so that this is the first such step. A
    setting with a mode that starts below its floor, or with momentum, may rise on the way: then it is a step at which E f passes
    the target.
    """
    search = _steps_with_momentum if with_momentum else _steps

    def one(setting: tuple[Array, Array, Array]) -> Array:
        steps = 1.0 + search(model, *setting, target)
        return jnp.where((floor(model, *setting) < target) & (steps < 2**NUM_BITS), steps, jnp.inf)

    return lax.map(one, (learning_rate, batch_size, momentum))  # one after another: a setting's powers of its modes fill the cache


def _steps(model: Model, rate: Array, batch: Array, momentum: Array, target: Number) -> Array:
    """The last step at which E f is above the target, without momentum."""
    squared, floors = (1.0 - rate * model.curvatures) ** 2, _floors(model, rate, batch, 0.0)
    excess = model.weights * model.start**2 - floors
    powers = lax.scan(lambda power, _: (power**2, power), squared, length=NUM_BITS)[1]
    return _digits(powers, jnp.ones_like(squared), jnp.multiply, lambda left: jnp.sum(left * excess) > target - jnp.sum(floors))


def _steps_with_momentum(model: Model, rate: Array, batch: Array, momentum: Array, target: Number) -> Array:
    """The same of the heavy ball."""
    middle = 1.0 + momentum - rate * model.curvatures

    def after(one: Impulse, other: Impulse) -> Impulse:
        return one.after(other, middle, momentum)

    first = Impulse(middle, jnp.ones_like(middle))
    none = Impulse(jnp.ones_like(middle), jnp.zeros_like(middle))
    powers = lax.scan(lambda power, _: (after(power, power), power), first, length=NUM_BITS)[1]
    return _digits(powers, none, after, lambda left: _loss(model, rate, batch, momentum, left) > target)


def _digits(powers: PyTree, none: PyTree, after: Callable[[Any, Any], Any], above: Callable[[Any], Array]) -> Array:
    """The most steps t, by its binary digits from the greatest on, after which it is still above."""

    def digit(carry: tuple[Array, PyTree], power: PyTree) -> tuple[tuple[Array, PyTree], None]:
        steps, left = carry
        further = after(left, power)
        keep = above(further)
        left = jax.tree.map(lambda one, other: jnp.where(keep, one, other), further, left)
        return (2.0 * steps + keep, left), None

    (steps, _), _ = lax.scan(digit, (jnp.zeros(()), none), powers, reverse=True)
    return steps


class Best(NamedTuple):
    """The rate that takes the fewest steps to the target, for each batch size."""

    learning_rate: Float[np.ndarray, " sizes"]
    steps: Float[np.ndarray, " sizes"]
    searched: int  # settings that were tried


def best_rates(
    model: Model, batch_sizes: Float[np.ndarray, " sizes"], target: float, *, momentum: float = 0.0, num_rates: int = 64
) -> Best:
    """Search each batch size's rate on a grid between 0 and the stability limit, then on one as fine between that grid's neighbours.

    The grid is even in log(alpha / (limit - alpha)), so that it is fine towards either end.
    """
    limit = 2.0 * (1.0 + momentum) / float(np.max(model.curvatures))
    places = np.tile(np.linspace(-14.0, 7.0, num_rates), (len(batch_sizes), 1))
    batches = np.repeat(np.asarray(batch_sizes, float), num_rates)
    rows = np.arange(len(batch_sizes))
    rates = steps = places  # of the search below
    for _ in range(2):
        rates = limit / (1.0 + np.exp(-places))
        steps = np.asarray(
            steps_to_target(model, rates.ravel(), batches, np.full(batches.shape, momentum), target, with_momentum=momentum > 0)
        ).reshape(rates.shape)
        best = steps.argmin(axis=1)
        low, high = (places[rows, np.clip(best + side, 0, num_rates - 1)] for side in (-1, 1))
        places = np.linspace(low, high, num_rates, axis=1)
    level = steps == steps.min(axis=1, keepdims=True)  # steps are whole numbers, so that rates near the best tie: the middle one
    middle = np.exp(np.sum(np.where(level, np.log(rates), 0.0), axis=1) / level.sum(axis=1))
    return Best(middle, steps.min(axis=1), 2 * batches.size)
