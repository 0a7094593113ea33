"""Predictors, and how a loss through them is evaluated for many runs at once.

An evaluation takes lanes (runs in the last axis) and gives the weighted objective and its gradient for each. `PerExample` makes one
from any loss by autodiff. `Linear` writes the same out as two matrix products: reverse-mode autodiff under `vmap` computes the same
numbers, but turns a matrix round in every step (two transposes and four copies in the HLO, 2 to 6 times the time).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from gdjax.records import Lanes, Params

ACTIVATIONS = ("tanh", "relu", "gelu", "silu", "softplus", "sigmoid", "identity")
"""What may follow a hidden layer: functions of `jax.nn`, by name."""


def linear(params: Float[Array, " p"], features: Float[Array, "... p"]) -> Float[Array, "..."]:
    """Predict features @ params; an intercept is a feature that is always 1."""
    return jnp.matmul(features, params, precision="highest")


@dataclass(frozen=True)
class Linear:
    """Evaluate sum_i w_i loss(x_i . params, y_i) + ridge ||params without the intercept||^2 for all lanes.

    The examples are (features, target), the target one for all lanes or a column for each; `constants` holds the loss's own numbers,
    and `ridge` where there is one, each a number or a row of one per lane. Both products take all lanes together, so that lanes which
    see the same examples share them.
    """

    loss: Callable[..., Array]
    intercept: bool = True

    def __call__(
        self, lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[Array, Array], weights: Any
    ) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
        """The weighted objective and its gradient, for every lane."""
        features, target = examples
        target = target[:, None] if target.ndim == 1 else target
        numbers = {name: number for name, number in constants.items() if name != "ridge"}
        predictions = linear(lanes, features)
        losses, slopes = jax.jvp(lambda prediction: self.loss(prediction, target, **numbers), (predictions,), (jnp.ones_like(predictions),))
        if jnp.ndim(weights) == 0:  # one weight for all comes last, as in a mean: the sum overflows where the mean's own does
            value = weights * jnp.sum(losses, axis=0)
            gradient = weights * jnp.matmul(_turned(features, lanes.shape[-1]), slopes, precision="highest")
        else:
            value = weights @ losses
            gradient = jnp.matmul(_turned(features, lanes.shape[-1]), weights[:, None] * slopes, precision="highest")
        if "ridge" in constants:
            penalised = lanes.at[0].set(0.0) if self.intercept else lanes
            ridge = jnp.asarray(constants["ridge"])
            value = value + ridge.reshape(-1 if ridge.size > 1 else ()) * jnp.sum(jnp.square(penalised), axis=0)
            gradient = gradient + 2.0 * ridge * penalised
        return value, gradient


def _turned(features: Float[Array, "rows p"], num_lanes: int) -> Float[Array, "p rows"]:
    """The features' transpose; for a batch and many lanes written out, which the product then reads in order (15 us a step to 10)."""
    small = features.shape[0] <= 1024 and num_lanes >= 8
    return lax.optimization_barrier(features.T) if small else features.T


class Scales(NamedTuple):
    """How columns are standardized: (features - center) / scale, and the target alike."""

    center: Float[Any, " p"]
    scale: Float[Any, " p"]
    target_center: Float[Any, " targets"]
    target_scale: Float[Any, " targets"]


@dataclass(frozen=True)
class Standardized:
    """Evaluate `linear` on standardized examples; `constants` holds their `scales`, so that runs with others share the data."""

    linear: Linear

    def __call__(
        self, lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[Array, Array], weights: Any
    ) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
        """The weighted objective and its gradient, for every lane."""
        features, target = examples
        by: Scales = constants["scales"]
        others = {name: number for name, number in constants.items() if name != "scales"}
        features = (features - by.center[None]) / by.scale[None]
        return self.linear(lanes, others, (features, (target - by.target_center[None]) / by.target_scale[None]), weights)


@dataclass(frozen=True)
class PerExample:
    """Evaluate sum_i w_i loss(params, example_i) for all lanes, the gradient by autodiff."""

    loss: Callable[[Params, Any], Array]

    def __call__(self, lanes: Lanes, constants: dict[str, Any], examples: PyTree, weights: Any) -> tuple[Float[Array, " lanes"], Lanes]:
        """The weighted objective and its gradient, for every lane."""

        def weighted(params: Params) -> Array:
            losses = jax.vmap(lambda example: self.loss(params, example, **constants))(examples)
            return jnp.sum(weights * losses)

        return jax.vmap(jax.value_and_grad(weighted), in_axes=-1, out_axes=(0, -1))(lanes)


class Layer(NamedTuple):
    """An affine map x -> x @ weight + bias of a network."""

    weight: Float[Any, "inputs outputs"]
    bias: Float[Any, " outputs"]


def mlp_params(widths: Sequence[int], *, weight_scale: Any = 1.0, seed: int = 0) -> tuple[Layer, ...]:
    """Draw the layers of a multilayer perceptron: weights weight_scale z / sqrt(inputs), z standard normal, and biases 0.

    At weight_scale = 1 each layer keeps the mean square of what it is given (LeCun et al. 1998, section 4.6). The draws are NumPy's, so
    that a seed means the same network everywhere, and networks of different scale are multiples of each other.

    Parameters
    ----------
    widths
        Features, hidden units of each layer, outputs.
    weight_scale
        A number, which may be traced.

    >>> [layer.weight.shape for layer in mlp_params([64, 32, 10])]
    [(64, 32), (32, 10)]
    """
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(widths)
    return tuple(Layer(weight_scale * (rng.normal(size=shape) / math.sqrt(shape[0])), np.zeros(shape[1])) for shape in shapes)


def mlp(params: Sequence[Layer], features: Float[Array, "... inputs"], activation: str = "tanh") -> Float[Array, "... outputs"]:
    """Predict by affine layers with an activation after each but the last: W_L a(.. a(W_1 x + b_1) ..) + b_L."""
    act = getattr(jax.nn, activation)
    hidden = features
    for number, layer in enumerate(params):
        hidden = act(hidden) if number else hidden
        hidden = jnp.matmul(hidden, layer.weight, precision="highest")
        hidden = hidden + jnp.broadcast_to(layer.bias, hidden.shape)
    return hidden


def cross_entropy(outputs: Float[Array, " classes"], label: Int[Array, ""]) -> Float[Array, ""]:
    """-log softmax(outputs)[label]."""
    return jax.nn.logsumexp(outputs) - outputs[label]


def squared_distance(outputs: Float[Array, " classes"], label: Int[Array, ""]) -> Float[Array, ""]:
    """||outputs - e_label||^2 / 2, with e_label 1 at the label and 0 elsewhere."""
    return 0.5 * jnp.sum(jnp.square(outputs - jax.nn.one_hot(label, outputs.size, dtype=outputs.dtype)))


CLASS_LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_distance}
"""Losses of all outputs together against the example's class."""


@dataclass(frozen=True)
class MlpClassifier:
    """The loss of a multilayer perceptron on one example (features, label), for `PerExample`; equal ones share their programs."""

    activation: str = "tanh"
    loss: str = "cross_entropy"

    def __call__(self, params: Sequence[Layer], example: tuple[Array, Array]) -> Float[Array, ""]:
        """The loss of the outputs for this example's class."""
        features, label = example
        return CLASS_LOSSES[self.loss](mlp(params, features, self.activation), label)


def diagonal_quadratic(
    lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[()], weights: Any
) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
    """Evaluate sum_j eigenvalues_j x_j^2 / 2, a quadratic in its own eigenbasis; it is no mean over examples."""
    gradient = constants["eigenvalues"][:, None] * lanes
    return 0.5 * jnp.sum(lanes * gradient, axis=0), gradient


def chain_quadratic(
    lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[()], weights: Any
) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
    """Evaluate coupling (x'Ax / 2 - x_1) + ridge ||x||^2 / 2, A = tridiag(-1, 2, -1) with `corner` for the last 2; no mean over examples.

    In it coordinates learn from their neighbours alone, a neighbour a step.
    """
    coupling, ridge = constants["coupling"], constants["ridge"]
    along = (2.0 * lanes).at[-1].set(constants["corner"] * lanes[-1]).at[1:].add(-lanes[:-1]).at[:-1].add(-lanes[1:])
    value = coupling * (0.5 * jnp.sum(lanes * along, axis=0) - lanes[0]) + 0.5 * ridge * jnp.sum(jnp.square(lanes), axis=0)
    return value, coupling * along.at[0].add(-1.0) + ridge * lanes
