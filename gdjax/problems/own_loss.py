"""Any loss of an example that JAX can differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from gdjax import models
from gdjax.records import InputError, Params, Problem


def from_loss(
    loss: Callable[[Params, Any], Array],
    data: PyTree,
    start: Params,
    *,
    minimizer: Params | None = None,
    minimum: float | None = None,
    smoothness: float | None = None,
    strong_convexity: float | None = None,
) -> Problem:
    """f(params) = mean_i loss(params, example_i), for any loss that JAX can differentiate.

    Parameters
    ----------
    loss
        (params, example) -> scalar. Define it once, at module level: every new function object is compiled anew.
    data
        The examples: arrays, or a pytree of them, whose first axes all have length n.
    start
        Where every run begins: a pytree of floats.
    """
    examples = jax.tree.map(np.asarray, data)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(examples)}
    if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
        raise InputError(f"data must be arrays with one common first axis of at least one example; given first axes {sorted(lengths)}.")
    return Problem(
        evaluate=models.PerExample(loss),
        name=getattr(loss, "__name__", "from_loss"),
        data=examples,
        start=jax.tree.map(lambda x: np.asarray(x, dtype=float), start),
        minimizer=None if minimizer is None else jax.tree.map(lambda x: np.asarray(x, dtype=float), minimizer),
        minimum=minimum,
        smoothness=smoothness,
        strong_convexity=strong_convexity,
    )
