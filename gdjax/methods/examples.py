"""What a rule may ask of the examples, beside the gradient that every step brings.

A rule that asks is an `ExampleGradientTransformation`: the engine hands the objective to its `init`, and the objective and the step's
batch to its `update`. Any other rule is told neither, and its program is the same as if they were not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import optax
from jaxtyping import Array, Float, Int

from gdjax.records import Params


class Examples(NamedTuple):
    """Examples in a mean of f_i, all of them or a step's batch, for one run; nothing is computed that is not asked for.

    Where every step takes the full gradient, the objective counts as one example, and is every batch.
    """

    rows: Int[Array, " examples"]  # their places among all n; negative where a batch is filled up
    weights: Float[Array, " examples"]  # in the mean; 0 where a batch is filled up
    gradient: Callable[[Params], Params]  # of the mean, at any point
    gradients: Callable[[Params], Params]  # of each f_i, at any point: examples are the first axis of every leaf


class ExampleGradientTransformation(optax.GradientTransformationExtraArgs):
    """An optax (init, update) pair that asks for gradients of examples.

    `init(params, *, objective)` and `update(gradient, state, params, *, objective, batch, value)`, both with `Examples`.
    """
