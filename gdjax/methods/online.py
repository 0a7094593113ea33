"""Adaptive methods as their regret bounds have them: rates that fall as 1 / sqrt(t), and a box that iterates are put back into."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gdjax.records import Params


def online_adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, bound: float = math.inf
) -> optax.GradientTransformation:
    """Adam at the rate learning_rate / sqrt(t), t = 1, 2, .., every parameter kept in [-bound, bound].

    Kingma and Ba (2015) claim an average regret of O(1 / sqrt T) for it; Reddi et al. (2018) give streams on which it does not vanish.
    """
    return _online(learning_rate, optax.scale_by_adam(b1, b2, eps), bound)


def online_amsgrad(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, bound: float = math.inf
) -> optax.GradientTransformation:
    """`online_adam` divided by the largest mean square so far, without corrections of bias (Reddi et al. 2018)."""
    return _online(learning_rate, optax.scale_by_amsgrad(b1, b2, eps, bias_correction_mu=False, bias_correction_nu=False), bound)


def online_adagrad(learning_rate: float, bound: float = math.inf) -> optax.GradientTransformation:
    """x_j <- x_j - learning_rate g_j / sqrt(sum of g_j^2 so far), put back into [-bound, bound] (Duchi, Hazan and Singer 2011).

    The sum grows as t where gradients do not shrink, so that no rate needs to fall.
    """
    return optax.chain(optax.scale_by_rss(initial_accumulator_value=0.0, eps=0.0), optax.scale_by_learning_rate(learning_rate), _box(bound))


def _online(learning_rate: Any, rule: optax.GradientTransformation, bound: Any) -> optax.GradientTransformation:
    return optax.chain(rule, optax.scale_by_learning_rate(lambda step: learning_rate / jnp.sqrt(step + 1.0)), _box(bound))


def _box(bound: Any) -> optax.GradientTransformation:
    def init(params: Params) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Params = None) -> tuple[Params, optax.EmptyState]:
        return jax.tree.map(lambda x, u: jnp.clip(x + u, -bound, bound) - x, params, updates), state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
