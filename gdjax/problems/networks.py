"""Networks, of which neither the minimum nor the curvatures are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import ArrayLike, Float

from gdjax import models
from gdjax.problems.arrays import checked_classes, positive
from gdjax.records import Problem, several, unknown_name, whole


def mlp_classification(
    X: Float[ArrayLike, "n p"],
    labels: Any,
    *,
    hidden: int | Sequence[int] = (32,),
    activation: str = "tanh",
    loss: str = "cross_entropy",
    weight_scale: float = 1.0,
    seed: int = 0,
) -> Problem:
    """f(theta) = mean_i loss(z(x_i; theta), label_i), z = W_L a(.. a(W_1 x + b_1) ..) + b_L: a multilayer perceptron for classes.

    Its parameters are a tuple of `models.Layer`, weight (inputs, outputs) and bias (outputs,), started at random normal weights of
    standard deviation weight_scale / sqrt(inputs) and biases 0. Labels may be any values: outputs are the classes in sorted order. It
    is not convex, and neither its minimum nor its curvatures are known; `sharpness.lambda_max` measures the largest at a point.

    Parameters
    ----------
    hidden
        Units of each hidden layer; () for none, which is softmax regression.
    activation
        A name of `models.ACTIVATIONS`.
    loss
        "cross_entropy", -log softmax(z)[label], or "squared_error", half the squared distance to the class's unit vector, whose edges
        are sharper: in the outputs it is a parabola, and a run can diverge.
    weight_scale
        Of the initial weights, above 0. It may be traced, and so swept.
    seed
        Of the initial weights, by NumPy.

    Raises
    ------
    InputError
        For arrays of other shapes or with NaN or infinite entries, for fewer than two classes, and for a wrong option.

    >>> problem = mlp_classification([[0.0], [1.0], [2.0]], ["a", "b", "a"], hidden=4)
    >>> [layer.weight.shape for layer in problem.start], problem.data[1].tolist()
    ([(1, 4), (4, 2)], [0, 1, 0])
    """
    features, classes, places = checked_classes(X, labels)
    units = [whole("hidden", number) for number in ([hidden] if isinstance(hidden, int) else several("hidden", hidden) if hidden else [])]
    if activation not in models.ACTIVATIONS:
        raise unknown_name("activation", activation, models.ACTIVATIONS)
    if loss not in models.CLASS_LOSSES:
        raise unknown_name("loss of classes", loss, models.CLASS_LOSSES)
    weight_scale = positive("weight_scale", weight_scale)
    widths = [features.shape[1], *units, len(classes)]
    return Problem(
        evaluate=models.PerExample(models.MlpClassifier(activation, loss)),
        name="mlp_classification",
        data=(features, places),
        start=models.mlp_params(widths, weight_scale=weight_scale, seed=whole("seed", seed, least=0)),
    )
