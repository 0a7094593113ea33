"""Objectives whose truth is known: their minimizer, minimum, smoothness L and strong convexity mu.

A builder takes arrays or numbers. On the host it computes in NumPy's float64; inside a trace (a sweep over a builder's own numbers)
it computes in JAX with the same formulas.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from gdjax import data, losses, models, solvers
from gdjax.records import InputError, Params, Problem, several, unknown_name, whole

HESSIAN_LIMIT = 4096
"""Above this many parameters the Hessian is not formed unless asked for: p^2 numbers are 134 MB there."""


def least_squares(X: Float[ArrayLike, "n p"], y: Float[ArrayLike, " n"], intercept: bool = True, *, hessian: bool | None = None) -> Problem:
    """J(theta) = (1/n) ||[1 X] theta - y||^2, theta = (b, w_1..w_p), started at zero.

    The Hessian is (2/n) [1 X]'[1 X], so gradient descent is stable iff learning_rate < 2 / L = 1 / lambda_max([1 X]'[1 X] / n). The
    minimizer comes from a QR and a singular value decomposition. Where columns are constant or collinear it is the one of least norm,
    which gradient descent from zero converges to, and mu is the smallest eigenvalue that is not zero.

    Parameters
    ----------
    intercept
        Whether to put a column of ones before the features.
    hessian
        Whether to take full gradients through the Hessian, p^2 a step instead of 2 n p; by default where that is less work.

    Raises
    ------
    InputError
        For arrays of other shapes, without rows, or with NaN or infinite entries.

    >>> problem = least_squares([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> [round(float(x), 12) for x in problem.minimizer]
    [1.0, 2.0]
    """
    features, target = _checked(X, y)
    names = tuple(f"w{j + 1}" for j in range(features.shape[1]))
    if intercept:
        features, names = _with_ones(features), ("b", *names)
    return Problem(
        evaluate=models.Linear(losses.squared_error, intercept=intercept),
        name="least_squares",
        parameter_names=names,
        data=(features, target),
        start=_module(features).zeros(features.shape[1]),
        **_least_squares_truth(features, target, form_hessian=hessian),
    )


def notebook_line(*, hessian: bool | None = None) -> Problem:
    """The notebook's line y = 2.5 + 1.7 x + noise: 80 points on [0, 10], unit normal noise of NumPy's seed 42, unscaled.

    Its condition number is 137.65 and its stability edge 0.0291586.
    """
    rng = np.random.default_rng(42)
    x = np.linspace(0, 10, 80)
    line = least_squares(x[:, None], 2.5 + 1.7 * x + rng.normal(0, 1.0, size=x.size), hessian=hessian)
    return dataclasses.replace(line, name="notebook_line")


def random_linear(
    *, num_examples: int = 500, num_features: int = 3, noise: float = 0.3, seed: int = 42, hessian: bool | None = None
) -> Problem:
    """Standard normal features and y = 3 + X w + noise, of the page's kind: w = (2, -1.5, 0.5), continued with zeros.

    The draws are NumPy's, not the page's torch ones.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_examples, num_features))
    w = np.resize(np.array([2.0, -1.5, 0.5]), num_features) * (np.arange(num_features) < 3)
    linear = least_squares(X, 3.0 + X @ w + noise * rng.normal(size=num_examples), hessian=hessian)
    return dataclasses.replace(linear, name="random_linear")


def page_data(*, num_examples: int = 500, hessian: bool | None = None) -> Problem:
    """The page's own data, `torch.manual_seed(42)`: 500 rows of 3 standard normal features and y = 3 + 2 x1 - 1.5 x2 + 0.5 x3 + noise.

    They are float32 numbers, taken to float64 without change. The page fits the first 400 rows, its sections 1 to 3 all of them.
    """
    if whole("num_examples", num_examples) > 500:
        raise InputError(f"num_examples={num_examples} is not allowed: the page's data have 500.")
    table = np.loadtxt(Path(__file__).with_name("page_data.csv"), np.float32, delimiter=",", skiprows=1).astype(float)[:num_examples]
    return dataclasses.replace(least_squares(table[:, :3], table[:, 3], hessian=hessian), name="page_data")


def designed_spectrum(eigenvalues: Float[ArrayLike, " p"], start: Float[ArrayLike, " p"] | None = None) -> Problem:
    """f(x) = x' diag(eigenvalues) x / 2, started at ones: any spectrum, and with it any rate, by construction.

    It is no mean over examples, so every sampler takes the full gradient. Its minimizer is 0 and its minimum 0.
    """
    xp = _module(eigenvalues, start)
    spectrum = xp.asarray(eigenvalues, dtype=float)
    if spectrum.ndim != 1 or spectrum.size == 0:
        raise InputError(f"eigenvalues has shape {spectrum.shape}; give a sequence of one or more numbers.")
    if xp is np and not (np.isfinite(spectrum).all() and (spectrum >= 0).all() and (spectrum > 0).any()):
        raise InputError(f"eigenvalues must be finite and 0 or more, at least one above 0; given {spectrum.tolist()}.")
    begin = xp.ones_like(spectrum) if start is None else xp.asarray(start, dtype=float)
    if begin.shape != spectrum.shape:
        raise InputError(f"start has shape {begin.shape}, eigenvalues {spectrum.shape}: they must be alike.")
    return Problem(
        evaluate=models.diagonal_quadratic,
        name="designed_spectrum",
        parameter_names=tuple(f"x{j + 1}" for j in range(spectrum.size)),
        constants={"eigenvalues": spectrum},
        start=begin,
        minimizer=xp.zeros_like(spectrum),
        minimum=xp.zeros(()),
        smoothness=spectrum.max(),
        strong_convexity=xp.min(xp.where(spectrum > 0, spectrum, xp.inf)),
    )


def nesterov_worst_case(num_steps: int = 20, *, smoothness: float = 1.0, strong_convexity: float = 0.0) -> Problem:
    """Nesterov's worst quadratic for methods that take `num_steps` = t steps from 0 along gradients that they have seen.

    f(x) = L / 4 (x'Ax / 2 - x_1), A = tridiag(-1, 2, -1) in 2 t + 1 dimensions: after s steps only s coordinates have moved, so that
    f(x_t) - f* >= L / (16 (t + 1)), which conjugate gradients attain (Nesterov 2004, Thm 2.1.7). With mu = strong_convexity > 0 it is
    f(x) = (L - mu) / 4 (x'Ax / 2 - x_1) + mu ||x||^2 / 2 with minimizer x_i = r^i, r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1), and
    f(x_t) - f* >= mu / 2 r^(2t) ||x_0 - x*||^2 (Nesterov 2004, Thm 2.1.13). The theorem is about infinitely many dimensions;
    here there are so many that r^(2i) is below round-off, and the last 2 in A is 2 - r, which makes r^i the minimizer all the same.

    `smoothness` and `strong_convexity` say which functions it is the worst of: its own curvatures are between mu and L. Of the problem
    that is returned they are its own, as everywhere.

    >>> problem = nesterov_worst_case(3)
    >>> float(problem.objective(problem.start) - problem.minimum), float(problem.minimizer[0])
    (0.109375, 0.875)
    """
    t = whole("num_steps", num_steps)
    if (
        not all(isinstance(number, int | float) for number in (smoothness, strong_convexity))
        or not 0 <= strong_convexity < smoothness < np.inf
    ):
        raise InputError(f"smoothness={smoothness}, strong_convexity={strong_convexity} is not allowed: numbers with 0 <= mu < L.")
    root = np.sqrt(strong_convexity / smoothness)
    ratio = (1.0 - root) / (1.0 + root)
    dimension = 2 * t + 1 if root == 0.0 else max(2 * t + 1, t + int(np.ceil(-0.5 * np.log(1e18) / np.log(ratio))))
    if dimension > HESSIAN_LIMIT:
        raise InputError(
            f"num_steps={num_steps}, strong_convexity={strong_convexity} takes {dimension} dimensions: {HESSIAN_LIMIT} at most."
        )
    coupling, corner = 0.25 * (smoothness - strong_convexity), 2.0 if root == 0.0 else 2.0 - ratio
    chain = 2.0 * np.eye(dimension) - np.eye(dimension, k=1) - np.eye(dimension, k=-1)
    chain[-1, -1] = corner
    place = np.arange(1, dimension + 1)
    minimizer = 1.0 - place / (dimension + 1.0) if root == 0.0 else ratio**place
    hessian: Any = coupling * chain + strong_convexity * np.eye(dimension)
    curvatures = np.linalg.eigvalsh(hessian)
    return Problem(
        evaluate=models.chain_quadratic,
        name="nesterov_worst_case",
        parameter_names=tuple(f"x{i}" for i in place),
        constants={"coupling": coupling, "ridge": float(strong_convexity), "corner": corner},
        start=np.zeros(dimension),
        minimizer=minimizer,
        minimum=-0.5 * coupling * minimizer[0],  # f* = -b'x* / 2 for f = x'Hx / 2 - b'x
        smoothness=curvatures[-1],
        strong_convexity=curvatures[0],
        hessian=hessian,
    )


def gap_spectrum(*, num_parameters: int = 64, condition_number: float = 100.0, gap: float = 10.0) -> Problem:
    """`designed_spectrum` with L = 1, mu = 1 / condition_number, and all between evenly spread in their logarithm from gap * mu to L.

    The slowest mode is soon alone, so that curves show the rate of theory: with eigenvalues all the way down to mu they still look a
    fifth faster after 2 condition_number steps.

    >>> gap_spectrum(num_parameters=3, condition_number=1000.0).constants["eigenvalues"].round(9).tolist()
    [0.001, 0.01, 1.0]
    """
    number = whole("num_parameters", num_parameters, least=2)
    xp = _module(condition_number, gap)
    if xp is np and not 1.0 <= several("condition_number", condition_number)[0] < np.inf:
        raise InputError(f"condition_number={condition_number} is not allowed: it is a number, 1 or more.")
    if xp is np and not 1.0 <= several("gap", gap)[0] <= condition_number:
        raise InputError(f"gap={gap} is not allowed: it is a number from 1 to the condition number, here {condition_number}.")
    others = (gap / condition_number) ** xp.linspace(1.0, 0.0, number - 1)
    spectrum = xp.concatenate([xp.reshape(xp.asarray(1.0 / condition_number), (1,)), others])
    return dataclasses.replace(designed_spectrum(spectrum), name="gap_spectrum")


def logistic(X: Float[ArrayLike, "n p"], y: Float[ArrayLike, " n"], intercept: bool = True, *, ridge: float = 0.0) -> Problem:
    """mean log(1 + exp(-y_i x_i'theta)) + ridge ||w||^2 for two classes; the intercept is not penalised.

    Whatever the two values of y are, the greater one is the class +1. With ridge > 0 the minimizer is found by Newton's method to
    round-off, and `smoothness` is the bound lambda_max([1 X]'[1 X]/n) / 4 + 2 ridge. With ridge = 0 separable classes have no
    minimizer, so none is given. `strong_convexity` is the smallest Hessian eigenvalue at the minimizer, the local rate's.
    """
    ridge = _positive("ridge", ridge, or_zero=True)
    features, target = _checked(X, y)
    classes = np.unique(np.asarray(target))
    if classes.size != 2:
        raise InputError(f"logistic needs a target of exactly two values; given {classes.size}: {classes[:5].tolist()}. Keep those of two.")
    target = np.where(np.asarray(target) == classes[1], 1.0, -1.0)
    names = tuple(f"w{j + 1}" for j in range(features.shape[1]))
    if intercept:
        features, names = _with_ones(features), ("b", *names)
    constants = {"ridge": ridge} if ridge > 0 else {}
    return Problem(
        evaluate=models.Linear(losses.logistic, intercept=intercept),
        name="logistic",
        parameter_names=names,
        data=(features, target),
        constants=constants,
        start=np.zeros(features.shape[1]),
        **_logistic_truth(features, target, constants, intercept=intercept),
    )


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
    features, classes, places = _checked_classes(X, labels)
    units = [whole("hidden", number) for number in ([hidden] if isinstance(hidden, int) else several("hidden", hidden) if hidden else [])]
    if activation not in models.ACTIVATIONS:
        raise unknown_name("activation", activation, models.ACTIVATIONS)
    if loss not in models.CLASS_LOSSES:
        raise unknown_name("loss of classes", loss, models.CLASS_LOSSES)
    if not isinstance(weight_scale, Tracer) and not (isinstance(weight_scale, int | float) and 0 < weight_scale < np.inf):
        raise InputError(f"weight_scale={weight_scale} is not allowed: it is a number above 0.")
    widths = [features.shape[1], *units, len(classes)]
    return Problem(
        evaluate=models.PerExample(models.MlpClassifier(activation, loss)),
        name="mlp_classification",
        data=(features, places),
        start=models.mlp_params(widths, weight_scale=weight_scale, seed=whole("seed", seed, least=0)),
    )


def robust_regression(
    X: Float[ArrayLike, "n p"],
    y: Float[ArrayLike, " n"],
    loss: str = "huber",
    *,
    intercept: bool = True,
    **constants: float,
) -> Problem:
    """f(theta) = mean loss([1 X] theta, y), theta = (b, w_1..w_p), started at zero, for a loss that grows less than the square.

    The minimizer is found by reweighted least squares, the one of `absolute` by its linear program (on the host only). A loss that is
    not convex has the minimum below Huber's estimate with delta = 1.345 x the residuals' spread, a usual way to begin it.
    `smoothness` is the bound psi'(0) lambda_max([1 X]'[1 X] / n), met where every residual is small: half of least squares' L for
    "huber", whose zone is r^2 / 2, and none for "absolute", whose kink no rate is stable at.

    Parameters
    ----------
    loss
        "huber", "absolute", "student_t", "bisquare", "squared_error", or a negative log-likelihood of `gdjax.losses`.
    constants
        The loss's own numbers (`delta`, `degrees`, `scale`, `cutoff`), above 0, in units of y where they are sizes.

    Raises
    ------
    InputError
        For arrays that `least_squares` refuses, and for an unknown loss or number of it.

    >>> problem = robust_regression([[0.0], [1.0], [2.0], [3.0], [4.0]], [1.0, 3.0, 50.0, 7.0, 9.0], delta=0.1)
    >>> [round(float(x), 3) for x in problem.minimizer]
    [1.025, 2.0]
    """
    pointwise = _robust_loss(loss, constants)
    constants = {name: _positive(name, value) for name, value in constants.items()}
    features, target = _checked(X, y)
    names = tuple(f"w{j + 1}" for j in range(features.shape[1]))
    if intercept:
        features, names = _with_ones(features), ("b", *names)
    return Problem(
        evaluate=models.Linear(pointwise, intercept=intercept),
        name=f"robust_regression_{loss}",
        parameter_names=names,
        data=(features, target),
        constants=constants,
        start=_module(features).zeros(features.shape[1]),
        **_robust_truth(pointwise, features, target, constants),
    )


def notebook_outliers(*, loss: str = "huber", **constants: float) -> Problem:
    """The notebook's line with four of its targets spoilt: 15, -20, 25 and -30 added to examples 10, 30, 50 and 70.

    Least squares' slope falls to 1.528; Huber's with delta = 1 stays at 1.699, where 1.7 is the truth.
    """
    X, y = notebook_line().data
    spoilt = np.array(y)
    spoilt[[10, 30, 50, 70]] += [15.0, -20.0, 25.0, -30.0]
    return dataclasses.replace(robust_regression(X[:, 1:], spoilt, loss, intercept=True, **constants), name="notebook_outliers")


class Whitened(NamedTuple):
    """Coordinates z in which features are orthogonal with mean square 1: theta = back @ z."""

    basis: Float[Any, "n p"]
    back: Float[Any, "p p"]


def whitened(features: Float[ArrayLike, "n p"]) -> Whitened:
    """Turn and stretch the features until their Gram matrix basis'basis / n is the identity: sqrt(n) U of a singular value decomposition.

    Estimates commute with such a change of coordinates, and in these gradient descent has condition number 1 on the mean square.
    Directions that no example has are columns of zeros, so that the fit has least norm.
    """
    xp, (n, p) = _module(features), np.shape(features)
    U, singular, Vt = xp.linalg.svd(xp.asarray(features), full_matrices=False)
    present = singular > singular[0] * max(n, p) * np.finfo(np.float64).eps
    inverse = xp.where(present, xp.sqrt(n) / xp.where(present, singular, 1.0), 0.0)
    return Whitened(xp.sqrt(n) * U * present[None, :], Vt.T * inverse[None, :])


BY_LOSS: dict[str, Callable[..., Problem]] = {"squared_error": least_squares, "logistic": logistic}
"""Losses with a builder of their own; the others are `robust_regression`'s."""


def from_file(kind: str, *, loss: str = "squared_error", scale: str = "none", intercept: bool = True, **options: Any) -> Problem:
    """The mean loss of a linear predictor on a data set: `kind` names a reader of `gdjax.data`.

    Parameters
    ----------
    loss
        "squared_error", "logistic" for a target of two classes, which may be text, or one of `robust_regression`.
    scale
        "none" leaves the columns as they are; "standardize" takes each to mean 0 and standard deviation 1.
    options
        The reader's, and what the loss's builder takes: `hessian`, `ridge`, `delta`. A number whose name is taken has `loss_` before it:
        `loss_scale`.

    Raises
    ------
    InputError
        For an unknown kind, loss or option, and for a target that the loss can't be of.
    """
    if not isinstance(intercept, bool):
        raise InputError(f"problem.intercept={intercept!r} is not allowed: it is true or false.")
    numbers, of_reader = _numbers_of_loss(loss), data.parameters(kind)
    for option in options:
        if option not in of_reader and option not in numbers:
            raise _no_option(option, kind, loss, [*numbers, *of_reader, "intercept", "loss", "scale"])
    build = BY_LOSS.get(loss) or functools.partial(robust_regression, loss=loss)
    told = {option: value for option, value in options.items() if option in of_reader}
    table = _table(kind, scale, told, labels=build is logistic)
    if build is logistic:
        _refuse_unless_two_classes(table)
    given = {numbers[option]: value for option, value in options.items() if option in numbers}
    built = build(table.features, table.target, intercept=intercept, **given)
    name = table.source if build is least_squares else f"{table.source}, {loss}"
    return dataclasses.replace(built, name=name, parameter_names=("b",) * intercept + table.feature_names)


def restricted(problem: Problem, rows: Int[np.ndarray, " rows"]) -> Problem:
    """The same loss over some of the examples alone, with the minimizer, minimum and curvatures of that mean where they can be known."""
    part = _part(problem, rows)
    if not isinstance(problem.evaluate, models.Linear) or problem.weights is not None:
        return part
    truths = {losses.squared_error: _least_squares_truth, losses.logistic: _logistic_truth}
    truth = truths.get(problem.evaluate.loss) or functools.partial(_robust_truth, problem.evaluate.loss)
    features, target = part.data
    known = truth(features, target, problem.constants, intercept=problem.evaluate.intercept)
    return dataclasses.replace(part, **known | ({"hessian": None} if problem.hessian is None else {}))


def split(problem: Problem, validation: float, *, seed: int = 0, standardized: bool = False) -> tuple[Problem, Problem]:
    """Hold out a share of the examples: the problem on the others, and the same loss on those, of which nothing more is known.

    Parameters
    ----------
    validation
        The share that is held out, rounded to a number of examples that leaves some on both sides.
    seed
        Of the permutation that decides which they are.
    standardized
        Whether the columns have been standardized, which is then done anew by the examples that are not held out alone.

    Raises
    ------
    InputError
        For a problem that is no mean over examples, and a share that is none.
    """
    n = problem.num_examples
    if not jax.tree.leaves(problem.data) or n < 2:
        raise InputError(f"{problem.name} has no examples to hold out: leave validation away, or choose a data set.")
    if isinstance(validation, bool) or not isinstance(validation, Real) or not 0.0 < float(validation) < 1.0:
        raise InputError(f"validation={validation} is not allowed: it is the share of the examples to hold out, above 0 and below 1.")
    num_held = min(max(1, round(float(validation) * n)), n - 1)
    order = np.random.default_rng(whole("seed", seed, least=0)).permutation(n)
    kept, held = np.sort(order[num_held:]), np.sort(order[:num_held])
    given = _standardized_by(problem, kept) if standardized else problem
    return restricted(given, kept), _part(given, held)


def mlp_from_file(
    data: str = "digits",
    *,
    num_examples: int | None = None,
    scale: str = "standardize",
    hidden: int | Sequence[int] = (32,),
    activation: str = "tanh",
    loss: str = "cross_entropy",
    weight_scale: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Problem:
    """`mlp_classification` on a data set, its target as labels: `data` names a reader of `gdjax.data`, `options` are that reader's.

    Parameters
    ----------
    num_examples
        Of the set's first rows; None for all.
    scale
        As in `from_file`, of the rows that are taken.
    """
    table = _table(data, scale, options, num_examples, labels=True)
    network: Any = {"hidden": hidden, "activation": activation, "loss": loss, "weight_scale": weight_scale, "seed": seed}
    return dataclasses.replace(mlp_classification(table.features, table.target, **network), name=f"mlp on {table.source}")


def named(name: str, **options: Any) -> Problem:
    """Build a problem by name from plain options: a builder here that needs no arrays, or a kind of data set.

    An option that is None counts as not given. A builder that takes any option passes them on, to its loss or to the reader of its data.

    Raises
    ------
    InputError
        For an unknown name or option.
    """
    options = {option: value for option, value in options.items() if value is not None}
    if name in data.readers():
        return from_file(name, **options)
    known = (notebook_line, notebook_outliers, random_linear, page_data, designed_spectrum, gap_spectrum, nesterov_worst_case)
    builders = {build.__name__: build for build in known} | {"mlp_classification": mlp_from_file}
    if name not in builders:
        raise unknown_name("problem", name, [*builders, *data.readers()])
    allowed = inspect.signature(builders[name]).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in allowed.values())
    for option in options:
        if option not in allowed and not anything:
            raise unknown_name(f"option of problem {name}", option, allowed)
    return builders[name](**options)


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


def _table(kind: str, scale: str, options: dict[str, Any], num_examples: int | None = None, *, labels: bool) -> data.Table:
    """A data set's first rows, their columns scaled; with `labels` its target may be text."""
    if scale not in ("none", "standardize"):
        raise InputError(f"problem.scale={scale!r} is not allowed: it is none or standardize.")
    rows = slice(None if num_examples is None else whole("num_examples", num_examples, least=2))
    table = data.read(kind, **{"labels": True} if labels and "labels" in data.parameters(kind) else {}, **options)
    table = dataclasses.replace(table, features=table.features[rows], target=table.target[rows])
    return data.standardize(table) if scale == "standardize" else table


def _module(*arrays: Any) -> Any:
    """JAX inside a trace, NumPy's float64 on the host."""
    return jnp if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays)) else np


def _checked(X: Any, y: Any) -> tuple[Any, Any]:
    xp = _module(X, y)
    features, target = xp.asarray(X, dtype=float), xp.asarray(y, dtype=float)
    if features.ndim == 1:
        features = features[:, None]
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]  # a column against a vector would broadcast to n x n, silently
    if features.ndim != 2 or target.shape != features.shape[:1]:
        raise InputError(f"X has shape {np.shape(X)} and y {np.shape(y)}: they must be (n, p) and (n,).")
    if 0 in features.shape:
        raise InputError(f"X has shape {features.shape}: there must be at least one row and one column.")
    if xp is np:
        for name, array in (("X", features), ("y", target)):
            bad = int(np.count_nonzero(~np.isfinite(array)))
            if bad:
                raise InputError(f"{name} holds {bad} NaN or infinite entries: drop or fill those rows first.")
    return features, target


def _checked_classes(X: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, the classes in order, and the place of each example's class among them."""
    given = np.asarray(labels)
    given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    if given.ndim != 1:
        raise InputError(f"labels has shape {given.shape}: give one class an example, (n,).")
    features, _ = _checked(X, np.zeros(given.shape))
    if np.issubdtype(given.dtype, np.floating) and np.isnan(given).any():
        raise InputError(f"labels holds {int(np.isnan(given).sum())} NaN entries: drop those rows first.")
    classes, places = np.unique(given, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"labels has one class, {classes[0]}: there must be two or more.")
    return features, classes, places.ravel()


def _with_ones(features: Any) -> Any:
    xp = _module(features)
    return xp.concatenate([xp.ones((features.shape[0], 1), features.dtype), features], axis=1)


def _hessian_pays(shape: tuple[int, ...]) -> bool:
    n, p = shape
    return p <= min(2 * n, HESSIAN_LIMIT)


def _least_squares_truth(
    features: Any, target: Any, constants: dict[str, Any] | None = None, *, intercept: bool = True, form_hessian: bool | None = None
) -> dict[str, Any]:
    """The minimum-norm minimizer and the spectrum of H = (2/n) X'X, by way of X = QR and the singular values of R."""
    xp = _module(features, target)
    form_hessian = _hessian_pays(features.shape) if form_hessian is None else form_hessian
    n = target.shape[0]
    Q, R = xp.linalg.qr(features)
    U, singular, Vt = xp.linalg.svd(R, full_matrices=False)
    present = singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps
    if xp is np and not present.any():
        raise InputError("every column of X is zero: there is nothing to fit.")
    if xp is np and present.sum() < features.shape[1]:
        _warn_collinear(int(present.sum()), features)
    inverse = xp.where(present, 1.0 / xp.where(present, singular, 1.0), 0.0)
    minimizer = Vt.T @ (inverse * (U.T @ (Q.T @ target)))
    curvatures = 2.0 * singular**2 / n
    residual = features @ minimizer - target
    return {
        "minimizer": minimizer,
        "minimum": residual @ residual / n,
        "smoothness": curvatures[0],
        "strong_convexity": xp.min(xp.where(present, curvatures, xp.inf)),
        "hessian": 2.0 * (R.T @ R) / n if form_hessian else None,
    }


def _warn_collinear(rank: int, features: np.ndarray) -> None:
    constant = int(np.count_nonzero(np.ptp(features, axis=0) == 0.0))
    warnings.warn(
        f"the columns of X are collinear: rank {rank} of {features.shape[1]} ({constant} constant, an intercept's column counted). "
        "The minimizer is the one of least norm and mu the smallest nonzero eigenvalue.",
        stacklevel=4,
    )


def _numbers_of_loss(loss: str) -> dict[str, str]:
    """What the builder of a loss may be told, by the names that they have among a data set's options."""
    known = _losses()
    if str(loss) not in known:
        raise unknown_name("loss", str(loss), known)
    return {f"loss_{name}" if name in inspect.signature(from_file).parameters else name: name for name in _keywords(known[loss])}


def _no_option(option: str, kind: str, loss: str, allowed: list[str]) -> InputError:
    """Say that a data set with that loss has no such option, and which losses have."""
    others = [other for other in _losses() if option in _numbers_of_loss(other)]
    if not others:
        return unknown_name(f"option of problem {kind} with loss {loss}", option, allowed)
    return InputError(
        f"problem.{option} goes with problem.loss={' or '.join(others)}, and the loss is {loss}: change it, or leave {option} away."
    )


def _keywords(function: Callable[..., Any]) -> list[str]:
    return [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]


def _refuse_unless_two_classes(table: data.Table) -> None:
    classes = table.class_names or [f"{value:g}" for value in np.unique(table.target)]
    if len(classes) != 2:
        some = ", ".join(classes[:5]) + (", .." if len(classes) > 5 else "")
        raise InputError(
            f"problem.loss=logistic tells two classes apart, and {table.target_name!r} of {table.source} has {len(classes)}: {some}. Keep "
            "the rows of two of them in a file, or write a column that sets one against the others."
        )


def _part(problem: Problem, rows: np.ndarray) -> Problem:
    """Some of the examples, and nothing known of their mean."""
    unknown: dict[str, Any] = dict.fromkeys(("minimizer", "minimum", "smoothness", "strong_convexity", "hessian"))
    chosen = {name: jax.tree.map(lambda leaf: leaf[rows], getattr(problem, name)) for name in ("data", "weights")}
    return dataclasses.replace(problem, **unknown, **chosen)


def _standardized_by(problem: Problem, rows: np.ndarray) -> Problem:
    """The problem in columns that are standardized by some of their rows."""
    features, target = problem.data
    has_ones = isinstance(problem.evaluate, models.Linear) and problem.evaluate.intercept
    ones, columns = np.split(features, [int(has_ones)], axis=1)
    return dataclasses.replace(problem, data=(np.concatenate([ones, data.standardized(columns, rows)], axis=1), target))


def _positive(name: str, value: Any, *, or_zero: bool = False) -> Any:
    """A number above 0, or one that is being traced."""
    if isinstance(value, Tracer):
        return value
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iuf" or not (0 < array < np.inf or (or_zero and array == 0)):
        raise InputError(f"{name}={value} is not allowed: it is a number, {'0 or more' if or_zero else 'above 0'}.")
    return float(array)


def _robust_losses() -> dict[str, Callable[..., Array]]:
    return {name: loss for name, loss in vars(losses).items() if inspect.isfunction(loss) and loss is not losses.logistic}


def _losses() -> dict[str, Callable[..., Any]]:
    """What takes each loss's numbers, by its name."""
    return _robust_losses() | BY_LOSS


def _robust_loss(name: str, constants: dict[str, Any]) -> Callable[..., Array]:
    known = _robust_losses()
    if name not in known:
        raise unknown_name("loss", name, known)
    allowed = _keywords(known[name])
    for number in constants:
        if number not in allowed:
            raise unknown_name(f"number of loss {name}", number, allowed)
    return known[name]


def _robust_truth(
    loss: Callable[..., Array], features: Any, target: Any, constants: dict[str, Any], *, intercept: bool = True
) -> dict[str, Any]:
    """Minimize in coordinates in which the features are orthogonal; JAX computes it on the host too, in 64 bits."""
    traced, kinked = _module(features, target, constants) is jnp, loss in (losses.absolute, losses.laplace_nll)
    if traced and kinked:
        return {}
    basis, back = whitened(features)
    largest = _module(features).linalg.eigvalsh(features.T @ features / len(features))[-1]
    with contextlib.nullcontext() if traced else jax.enable_x64(True):
        z = solvers.least_absolute(basis, target) if kinked else solvers.m_estimate(loss, basis, target, constants)
        truth = {"minimizer": back @ z, "minimum": jnp.mean(loss(basis @ z, target, **constants))}
        if not kinked:
            truth["smoothness"] = solvers.curvature(loss, constants) * largest
    return truth if traced else jax.tree.map(np.asarray, truth)


def _logistic_truth(features: np.ndarray, target: np.ndarray, constants: dict[str, Any], *, intercept: bool) -> dict[str, Any]:
    """The bound on the curvature; and what a ridge lets be known."""
    if len(np.unique(target)) < 2:
        raise InputError(f"all {len(target)} examples to learn from are of one class: hold out fewer of them, or others.")
    ridge = constants.get("ridge", 0.0)
    penalty = np.full(features.shape[1], 2.0 * ridge)
    penalty[: int(intercept)] = 0.0
    bound = {"smoothness": np.linalg.eigvalsh(features.T @ features / len(target))[-1] / 4.0 + 2.0 * ridge}
    return bound | (_by_newton(features, target, penalty) if ridge > 0 else {})


def _by_newton(features: np.ndarray, target: np.ndarray, penalty: np.ndarray) -> dict[str, Any]:
    """Minimize by Newton's method, halving a step that would raise the objective."""

    def objective(theta: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, -target * (features @ theta))) + 0.5 * penalty @ theta**2)

    def derivatives(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probability = np.exp(-np.logaddexp(0.0, target * (features @ theta)))  # of being classed wrongly
        gradient = -features.T @ (target * probability) / len(target) + penalty * theta
        curvature = features.T @ ((probability * (1 - probability))[:, None] * features) / len(target)
        return gradient, curvature + np.diag(penalty)

    theta = np.zeros(features.shape[1])
    for _ in range(100):
        gradient, hessian = derivatives(theta)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        highest = objective(theta) * (1.0 + 8.0 * np.finfo(float).eps)  # near the end an objective differs by its rounding alone
        while objective(theta - step) > highest and np.abs(step).max() > 1e-16 * (1 + np.abs(theta).max()):
            step = step / 2
        theta = theta - step
        if np.abs(step).max() <= 1e-15 * (1 + np.abs(theta).max()):
            break
    curvatures = np.linalg.eigvalsh(derivatives(theta)[1])
    positive = curvatures[curvatures > curvatures[-1] * len(theta) * np.finfo(float).eps]
    return {"minimizer": theta, "minimum": objective(theta), "strong_convexity": positive[0]}
