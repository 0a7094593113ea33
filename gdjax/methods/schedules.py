"""Plain gradient descent whose rate follows a schedule.

The rate of step t = 0, 1, .. is learning_rate * shape(t). Every number of a shape is data, the horizon T too, so that runs of any
length, rate or warm-up share a program; optax's own schedules ask for Python's numbers here and there, and count steps in integers.
Shapes that end do so at step T and stay at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gdjax.records import Params


def constant(step: Any) -> Any:
    """1."""
    return jnp.ones_like(step, dtype=float)


def step_decay(step: Any, horizon: Any, *, drops: Any = 10.0, factor: Any = 0.5) -> Any:
    """factor^floor(t drops / T): `drops` stretches of one length, each at `factor` times the rate before (Ge et al. 2019 take log2 T)."""
    return factor ** jnp.floor(jnp.asarray(step) * drops / horizon)


def inverse_time(step: Any, horizon: Any, *, decay: Any = 2.0) -> Any:
    """1 / (1 + decay t / T)."""
    return 1.0 / (1.0 + decay * jnp.asarray(step) / horizon)


def inverse_sqrt(step: Any) -> Any:
    """1 / sqrt(t + 1), which asks for no horizon."""
    return 1.0 / jnp.sqrt(jnp.asarray(step) + 1.0)


def linear(step: Any, horizon: Any) -> Any:
    """1 - t / T."""
    return jnp.maximum(0.0, 1.0 - jnp.asarray(step) / horizon)


def cosine(step: Any, horizon: Any) -> Any:
    """(1 + cos(pi t / T)) / 2 (Loshchilov and Hutter 2017, without restarts)."""
    return 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(1.0, jnp.asarray(step) / horizon)))


def linear_warmup(step: Any, *, length: Any) -> Any:
    """min(1, (t + 1) / length): linear warm-up, after which the rate stays; a length of 1 is none (Goyal et al. 2017)."""
    return jnp.minimum(1.0, (jnp.asarray(step) + 1.0) / length)


def warmup_cosine(step: Any, horizon: Any, *, warmup: Any = 0.05) -> Any:
    """`cosine` times min(1, (t + 1) / (warmup T)): the rate grows over the first part of the run."""
    return linear_warmup(step, length=warmup * horizon) * cosine(step, horizon)


def wsd(step: Any, horizon: Any, *, cooldown: Any = 0.2) -> Any:
    """min(1, (1 - t / T) / cooldown): stable, then a linear decay over the last part (warm-up, stable, decay, without the warm-up)."""
    return jnp.minimum(1.0, linear(step, horizon) / cooldown)


def _scheduled(learning_rate: Any, shape: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.sgd(lambda step: learning_rate * shape(step))


def step_decay_sgd(learning_rate: float, horizon: float = 1000.0, drops: float = 10.0, factor: float = 0.5) -> optax.GradientTransformation:
    """Gradient descent with the rate learning_rate factor^floor(t drops / horizon)."""
    return _scheduled(learning_rate, lambda step: step_decay(step, horizon, drops=drops, factor=factor))


def inverse_time_sgd(learning_rate: float, horizon: float = 1000.0, decay: float = 2.0) -> optax.GradientTransformation:
    """Gradient descent with the rate learning_rate / (1 + decay t / horizon)."""
    return _scheduled(learning_rate, lambda step: inverse_time(step, horizon, decay=decay))


def inverse_sqrt_sgd(learning_rate: float) -> optax.GradientTransformation:
    """Gradient descent with the rate learning_rate / sqrt(t + 1)."""
    return _scheduled(learning_rate, inverse_sqrt)


def linear_sgd(learning_rate: float, horizon: float = 1000.0) -> optax.GradientTransformation:
    """Gradient descent with the rate learning_rate (1 - t / horizon)."""
    return _scheduled(learning_rate, lambda step: linear(step, horizon))


def cosine_sgd(learning_rate: float, horizon: float = 1000.0) -> optax.GradientTransformation:
    """Gradient descent with the rate learning_rate (1 + cos(pi t / horizon)) / 2."""
    return _scheduled(learning_rate, lambda step: cosine(step, horizon))


def warmup_cosine_sgd(learning_rate: float, horizon: float = 1000.0, warmup: float = 0.05) -> optax.GradientTransformation:
    """`cosine_sgd` with the rate growing linearly over the first part `warmup` of the horizon."""
    return _scheduled(learning_rate, lambda step: warmup_cosine(step, horizon, warmup=warmup))


def warmup_sgd(learning_rate: float, length: float = 10.0) -> optax.GradientTransformation:
    """Gradient descent with the rate growing linearly to learning_rate over the first `length` steps, and constant from there on."""
    return _scheduled(learning_rate, lambda step: linear_warmup(step, length=length))


def wsd_sgd(learning_rate: float, horizon: float = 1000.0, cooldown: float = 0.2) -> optax.GradientTransformation:
    """Gradient descent at a constant rate that falls linearly to 0 over the last part `cooldown` of the horizon."""
    return _scheduled(learning_rate, lambda step: wsd(step, horizon, cooldown=cooldown))


class PlateauState(NamedTuple):
    """What PyTorch's ReduceLROnPlateau remembers, and the sum of the losses of the window that is under way."""

    scale: Float[Array, ""]
    best: Float[Array, ""]
    bad: Int[Array, ""]
    total: Float[Array, ""]
    step: Int[Array, ""]
    cuts: Int[Array, ""]


def plateau_sgd(
    learning_rate: float, factor: float = 0.5, patience: float = 5.0, window: float = 1.0, threshold: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent whose rate is multiplied by `factor` when the loss has stalled: PyTorch's ReduceLROnPlateau.

    After every `window` steps (an epoch's, say) their mean loss is compared with the best so far. The rate is cut after more than
    `patience` of them in a row that were not below (1 - threshold) of the best. A NaN counts as a stall, so that a run that is lost
    keeps its patience and its cuts, and says nothing.
    """

    def init(params: Params) -> PlateauState:
        dtype = jax.tree.leaves(params)[0].dtype
        number, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        return PlateauState(scale=number + 1.0, best=number + jnp.inf, bad=count, total=number, step=count, cuts=count)

    def update(gradient: Params, state: PlateauState, params: Params = None, *, value: Any, **_: Any) -> tuple[Params, PlateauState]:
        total, step = state.total + value, state.step + 1
        ends = step % jnp.asarray(window, jnp.int32) == 0
        mean = total / window
        better = mean < (1.0 - threshold) * state.best
        bad = jnp.where(better, 0, state.bad + 1)
        cut = ends & (bad > patience)
        after = PlateauState(
            scale=jnp.where(cut, factor * state.scale, state.scale),
            best=jnp.where(ends & better, mean, state.best),
            bad=jnp.where(cut, 0, jnp.where(ends, bad, state.bad)),
            total=jnp.where(ends, 0.0, total),
            step=step,
            cuts=state.cuts + cut,
        )
        return jax.tree.map(lambda g: -learning_rate * after.scale * g, gradient), after

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
