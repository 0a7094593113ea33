"""Random reshuffling: what is left of the noise where each epoch sees every example once, in an order of its own.

Dealt without return, the gradients at the minimizer add up to zero over an epoch, and only their order is noise. For one parameter
(f_i = g_i x^2 / 2 - a_i x, sum_i a_i = 0) everything is exact. `order_variance` and `shuffled_epoch` are JAX on plain arrays, to be
jitted and vmapped. O(eta^2) against O(eta) for independent draws: Gurbuzbalaban et al. 2021, Mishchenko et al. 2020.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from gdjax.records import Problem
from gdjax.theory.moments import double
from gdjax.theory.quadratics import eigenvectors

TOGETHER = 64
"""Settings whose weights, one for each example, are held at a time."""


def order_variance(
    learning_rate: Float[ArrayLike, ""], curvature: Float[ArrayLike, ""], num_examples: int, batch_size: Any = 1
) -> Float[Array, ""]:
    """The variance that an epoch adds along a direction, for gradients of mean square 1: n / (n - 1) sum_p (w_p - mean w)^2.

    w_p = eta (1 - eta lambda)^(m - 1 - k) / B_k for the example at place p, in batch k of m; it is the variance of sum_p w_p g_pi(p)
    over permutations pi of numbers g of sum 0.

    >>> round(float(order_variance(0.1, 0.0, 10)), 9)  # with equal weights the order doesn't matter
    0.0
    """
    places = jnp.arange(num_examples)
    num_batches = -(-num_examples // batch_size)
    batch = places // batch_size
    size = jnp.where(batch == num_batches - 1, num_examples - (num_batches - 1) * batch_size, batch_size)
    weights = learning_rate * (1.0 - learning_rate * curvature) ** (num_batches - 1 - batch) / size
    return _permuted_variance(weights)


def _permuted_variance(weights: Float[Array, " n"]) -> Float[Array, ""]:
    """The variance of sum_p w_p g_pi(p) over permutations, for numbers g of sum 0 and mean square 1."""
    n = weights.shape[0]
    return jnp.sum((weights - jnp.mean(weights)) ** 2) * n / max(1, n - 1)


def reshuffled_noise(problem: Problem, learning_rate: Any, batch_size: Any, num_epochs: Float[ArrayLike, "..."] = np.inf) -> Any:
    """E[J] - J* at the end of an epoch of reshuffled batches, begun at the minimizer, to first order in the noise; by default the floor.

    Along an eigenvector v an epoch adds sum_p w_p v'g_pi(p) of the gradients g_i = 2 r_i x_i at the minimizer, of variance
    mean_i (v'g_i)^2 times `order_variance`. What is left out is that batches differ in curvature too, which matters once the rate comes
    near the limit of the mean square. Where B divides n and eta lambda n / B is small, it is about (eta lambda n / B)^2 / 12 of the floor
    of independent draws with replacement.

    Rates, batch sizes and epochs may be arrays, which broadcast: all of them are one program.
    """
    X, y = (np.asarray(array) for array in problem.data)
    curvatures, vectors = eigenvectors(problem)
    kept = curvatures > curvatures[-1] * max(X.shape) * np.finfo(float).eps
    curvatures, vectors = curvatures[kept], vectors[:, kept]
    gradients = -2.0 * (y - X @ np.asarray(problem.minimizer))[:, None] * (X @ vectors)
    settings = np.broadcast_arrays(np.asarray(learning_rate, dtype=float), np.asarray(batch_size), np.asarray(num_epochs, dtype=float))
    with double():
        flat = tuple(setting.ravel() for setting in settings)
        values = _noise_of_all(curvatures, np.mean(gradients**2, axis=0), flat, num_examples=len(X))
        values = np.asarray(values).reshape(settings[0].shape)
    return float(values) if values.ndim == 0 else values


@functools.partial(jax.jit, static_argnames="num_examples")
def _noise_of_all(curvatures: Array, variances: Array, settings: tuple[Array, Array, Array], *, num_examples: int) -> Array:
    def noise(setting: tuple[Array, Array, Array]) -> Array:
        rate, batch_size, num_epochs = setting
        order = lax.map(lambda curvature: order_variance(rate, curvature, num_examples, batch_size), curvatures)
        epoch = (1.0 - rate * curvatures) ** (2 * -(-num_examples // batch_size))
        return 0.5 * jnp.sum(curvatures * variances * order * (1.0 - epoch**num_epochs) / (1.0 - epoch))

    return lax.map(noise, settings, batch_size=TOGETHER)


def independent_square(learning_rate: Any, curvature: float = 1.0, steps: Any = np.inf) -> Any:
    """E x_t^2 of x+ = x - eta (h x - a), a drawn anew each step with mean 0 and variance 1, from x_0 = 0; by default the limit.

    The limit is eta / (h (2 - eta h)).

    >>> round(float(independent_square(0.02)), 10)
    0.0101010101
    """
    rate = np.asarray(learning_rate, dtype=float)
    spent = -np.expm1(2.0 * np.asarray(steps, dtype=float) * np.log(np.abs(1.0 - rate * curvature)))
    return rate / (curvature * (2.0 - rate * curvature)) * spent


def reshuffled_square(learning_rate: Any, num_examples: int, curvature: float = 1.0, steps: Any = np.inf) -> Any:
    """E x_t^2 of x+ = x - eta (h x - a_i), the n numbers a_i of sum 0 and mean square 1 dealt anew each epoch, from x_0 = 0.

    Exact after any number of steps; by default the limit at the ends of epochs,
    n / (n - 1) (sum w^2 - (sum w)^2 / n) / (1 - (1 - eta h)^(2n)) with w_j = eta (1 - eta h)^(n - 1 - j), which for small eta is
    eta^2 h^2 n (n + 1) / 12 of that of independent draws. Inside an epoch the numbers that are still to come weigh 0, and it is far higher.

    >>> round(float(reshuffled_square(0.02, 50)), 12)
    0.00079504542
    """
    rates, times = np.broadcast_arrays(np.asarray(learning_rate, dtype=float), np.asarray(steps, dtype=float))
    with double():
        values = _squares_of_all(rates.ravel(), times.ravel(), float(curvature), num_examples=num_examples)
        return np.asarray(values).reshape(rates.shape)


@functools.partial(jax.jit, static_argnames="num_examples")
def _squares_of_all(rates: Array, times: Array, curvature: Array, *, num_examples: int) -> Array:
    def square(setting: tuple[Array, Array]) -> Array:
        rate, steps = setting
        epochs = jnp.floor(steps / num_examples)
        inside = jnp.where(jnp.isfinite(steps), steps - num_examples * epochs, 0.0)
        shrink = 1.0 - rate * curvature
        epoch = shrink ** (2 * num_examples)
        ended = order_variance(rate, curvature, num_examples) * (1.0 - epoch**epochs) / (1.0 - epoch)
        back = inside - 1.0 - jnp.arange(num_examples)  # how many steps ago each place was dealt; below 0, it is still to come
        begun = _permuted_variance(jnp.where(back >= 0, rate * shrink ** jnp.maximum(back, 0.0), 0.0))
        return shrink ** (2.0 * inside) * ended + begun

    return lax.map(square, (rates, times), batch_size=TOGETHER)


class ShuffledEpoch(NamedTuple):
    """An epoch as one step x+ = factor x + push, where only the push depends on the order."""

    factor: Float[Array, ""]  # prod_i (1 - eta g_i)
    push: Float[Array, ""]  # its mean over permutations
    push_square: Float[Array, ""]  # the mean of its square


@jax.jit
def shuffled_epoch(
    learning_rate: Float[ArrayLike, ""], curvatures: Float[ArrayLike, " n"], targets: Float[ArrayLike, " n"]
) -> ShuffledEpoch:
    """An epoch of x+ = x - eta (g_i x - a_i) over a random permutation of n examples, exactly: also where curvatures differ.

    The push is eta sum_i a_i prod_{j after i} (1 - eta g_j). Its moments over permutations are means over the subsets of examples that
    come after: normalised elementary symmetric polynomials, found by taking one example in after another. For small eta its mean is
    eta^2 n mean(a g) / 2, so that epochs end at a mean of about eta mean(a g) / (2 mean g), not at the minimizer 0.

    >>> epoch = shuffled_epoch(0.1, [1.0, 1.0], [1.0, -1.0])  # the push is 0.1 (0.9 - 1) or 0.1 (1 - 0.9)
    >>> round(abs(float(epoch.push)), 6), round(float(epoch.push_square), 6)
    (0.0, 0.0001)
    """
    rate, given, linear = (jnp.asarray(number, float) for number in (learning_rate, curvatures, targets))
    left, pushed = 1.0 - rate * given, rate * linear
    square = _one_chosen(pushed**2, left**2) + 2.0 * _two_chosen(pushed, left, pushed * left, left**2)
    return ShuffledEpoch(jnp.prod(left), _one_chosen(pushed, left), square)


def _one_chosen(chosen: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, ""]:
    """The mean over permutations of sum_i chosen_i prod_{j after i} after_j."""
    n = chosen.shape[0]
    counts = jnp.arange(n + 1)[:, None]  # how many of the examples taken in so far come after
    picked = jnp.arange(2)[None, :]

    def take(state: Array, example: tuple[Array, Array, Array]) -> tuple[Array, None]:
        number, own, factor = example
        others = jnp.maximum(number - counts - picked, 0) * state
        return (others + counts * factor * _shifted(state, 0) + picked * own * _shifted(state, 1)) / number, None

    begin = jnp.zeros((n + 1, 2)).at[0, 0].set(1.0)
    state, _ = lax.scan(take, begin, (jnp.arange(1, n + 1), chosen, after))
    return jnp.sum(state[:n, 1])


def _two_chosen(first: Array, between: Array, second: Array, after: Array) -> Float[Array, ""]:
    """The mean over permutations of sum_{i before j} first_i prod_{between} between prod second_j prod_{after j} after."""
    n = first.shape[0]
    counts = jnp.meshgrid(jnp.arange(n + 1), jnp.arange(n + 1), jnp.arange(2), jnp.arange(2), indexing="ij")
    taken = sum(counts)

    def take(state: Array, example: tuple[Array, tuple[Array, ...]]) -> tuple[Array, None]:
        number, roles = example
        others = jnp.maximum(number - taken, 0) * state
        joined = [count * own * _shifted(state, axis) for axis, (count, own) in enumerate(zip(counts, roles, strict=True))]
        return (others + sum(joined)) / number, None

    begin = jnp.zeros((n + 1, n + 1, 2, 2)).at[0, 0, 0, 0].set(1.0)
    state, _ = lax.scan(take, begin, (jnp.arange(1, n + 1), (between, after, first, second)))
    placed = counts[0] + counts[1] <= n - 2
    return jnp.sum(jnp.where(placed, state, 0.0)[:, :, 1, 1])


def _shifted(state: Array, axis: int) -> Array:
    """The state with one example fewer in a role; nothing where there was none."""
    rolled = jnp.roll(state, 1, axis)
    return rolled.at[(slice(None),) * axis + (0,)].set(0.0)


def shuffled_moments(
    learning_rate: Float[ArrayLike, " rates"],
    curvatures: Float[ArrayLike, " n"],
    targets: Float[ArrayLike, " n"],
    num_epochs: Int[ArrayLike, " rates"] | Float[ArrayLike, " rates"] = np.inf,
) -> tuple[Float[np.ndarray, " rates"], Float[np.ndarray, " rates"]]:
    """E x and E x^2 at the end of an epoch, from x_0 = 0, by `shuffled_epoch`; by default in the limit. All rates are one program.

    >>> mean, square = shuffled_moments([0.1], [1.0, 1.0], [1.0, -1.0], [1])
    >>> round(float(square[0]), 12)
    0.0001
    """
    rates, epochs = np.broadcast_arrays(np.atleast_1d(np.asarray(learning_rate, dtype=float)), np.asarray(num_epochs, dtype=float))
    with double():
        each = _epochs_of_all(rates, np.asarray(curvatures, dtype=float), np.asarray(targets, dtype=float))
    factor, push, push_square = (np.asarray(part) for part in each)
    left = factor**epochs
    limit = push / (1.0 - factor)
    mean = (1.0 - left) * limit
    # S+ = A^2 S + 2 A b m + c with m = (1 - A^k) limit: a constant part and one that shrinks by A
    constant = (push_square + 2.0 * factor * push * limit) / (1.0 - factor**2)
    fading = 2.0 * push * limit / (1.0 - factor)  # of A^k: -2 A b limit A^k / (A - A^2)
    return mean, constant * (1.0 - left**2) - fading * left * (1.0 - left)


@jax.jit
def _epochs_of_all(rates: Array, curvatures: Array, targets: Array) -> ShuffledEpoch:
    return lax.map(lambda rate: shuffled_epoch(rate, curvatures, targets), rates)


def mean_shift(learning_rate: Any, curvatures: Float[ArrayLike, " n"], targets: Float[ArrayLike, " n"]) -> Any:
    """eta mean(a g) / (2 mean g): to first order in the rate, where epochs of x+ = x - eta (g_i x - a_i) end on the mean.

    For gradients written g_i x + a_i its sign is the other.

    >>> float(mean_shift(0.01, [1.0, 3.0], [-1.0, 1.0]))
    0.0025
    """
    g = np.asarray(curvatures, dtype=float)
    return np.asarray(learning_rate, dtype=float) * np.mean(np.asarray(targets) * g) / (2.0 * np.mean(g))
