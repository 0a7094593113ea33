"""Steps on batches whose noise vanishes at the minimizer, so that a constant rate converges, and linearly (f = mean_i f_i, n examples)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from gdjax.methods.examples import ExampleGradientTransformation, Examples
from gdjax.records import Params


class SvrgState(NamedTuple):
    """The last snapshot w, with what the steps since then need."""

    snapshot: Params
    gradient: Params  # grad f(w)
    total: Params  # the sum of the iterates since then
    step: Int[Array, ""]


def svrg(learning_rate: float, stage_length: int = 0, average: bool = False) -> ExampleGradientTransformation:
    """x_{t+1} = x_t - learning_rate (grad f_B(x_t) - grad f_B(w) + grad f(w)), a new snapshot w every `stage_length` steps.

    Johnson and Zhang (2013). A step asks for the batch's gradient twice, a stage for one full gradient, which `epoch` doesn't count.

    Parameters
    ----------
    stage_length
        Steps from one snapshot to the next; by default (0) 2 n, which they advise for batches of one example.
    average
        The snapshot is the last iterate, their option I; or the average x_0 .. x_{m-1} of the stage, from which the next one starts.
        Johnson and Zhang 2013, Thm 1 is about a random one of those (option II), hence by convexity about their average.
    """

    def init(params: Params, *, objective: Examples, **_: Any) -> SvrgState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SvrgState(params, zeros, zeros, jnp.zeros((), jnp.int32))

    def update(
        gradient: Params, state: SvrgState, params: Params, *, objective: Examples, batch: Examples, **_: Any
    ) -> tuple[Params, SvrgState]:
        length = stage_length or 2 * len(objective.rows)
        place = state.step % length
        snapshot, full, total = jax.lax.cond(
            place == 0,
            lambda: (params, objective.gradient(params), jax.tree.map(jnp.zeros_like, params)),
            lambda: (state.snapshot, state.gradient, state.total),
        )
        moved = jax.tree.map(lambda x, g, h, mu: x - learning_rate * (g - h + mu), params, gradient, batch.gradient(snapshot), full)
        if average:
            total = jax.tree.map(jnp.add, total, params)
            moved = jax.tree.map(lambda x, s: jnp.where(place == length - 1, s / length, x), moved, total)
        updates = jax.tree.map(jnp.subtract, moved, params)
        return updates, SvrgState(snapshot, full, total, state.step + 1)

    return ExampleGradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


class SagaState(NamedTuple):
    """The gradient of each f_i where i was last seen, and their mean."""

    table: PyTree  # examples are the first axis of every leaf
    mean: Params


def saga(learning_rate: float) -> ExampleGradientTransformation:
    """x_{t+1} = x_t - learning_rate (grad f_B(x_t) - mean_{i in B} h_i + mean_i h_i), with h_i the gradient of f_i where i was last seen.

    Defazio, Bach and Lacoste-Julien (2014), begun with h_i = grad f_i(x_0). It keeps n gradients for each run.
    """

    def init(params: Params, *, objective: Examples, **_: Any) -> SagaState:
        return SagaState(objective.gradients(params), objective.gradient(params))

    def update(
        gradient: Params, state: SagaState, params: Params, *, objective: Examples, batch: Examples, **_: Any
    ) -> tuple[Params, SagaState]:
        seen = batch.gradients(params)
        before = jax.tree.map(lambda table: table.at[batch.rows].get(mode="clip"), state.table)
        updates = jax.tree.map(
            lambda g, h, mean: -learning_rate * (g - jnp.tensordot(batch.weights, h, 1) + mean), gradient, before, state.mean
        )
        return updates, _remembered(state, batch, seen, before, len(objective.rows))

    return ExampleGradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _remembered(state: SagaState, batch: Examples, seen: PyTree, before: PyTree, num_examples: int) -> SagaState:
    """Put the batch's gradients into the table; an example that a batch holds twice counts once in the mean's change."""
    present = batch.rows >= 0
    rows = jnp.where(present, batch.rows, num_examples)
    once = present / jnp.sum(rows[:, None] == rows[None, :], axis=1) / num_examples
    table = jax.tree.map(lambda table, new: table.at[rows].set(new, mode="drop"), state.table, seen)
    mean = jax.tree.map(lambda mean, new, old: mean + jnp.tensordot(once.astype(new.dtype), new - old, 1), state.mean, seen, before)
    return SagaState(table, mean)
