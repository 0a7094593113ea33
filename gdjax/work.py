"""What a function asks for, counted from its own program: the same on every machine, whatever compiles and runs it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

NAMES = {
    "elementwise": "abs add add_any cos div erf exp exp2 expm1 floor integer_pow log log1p logistic max min mul neg pow rem round rsqrt "
    "sign sin sqrt square sub tan tanh",
    "reductions": "cumsum reduce_max reduce_min reduce_prod reduce_sum argmax argmin",
    "moved": "and bitcast_convert_type broadcast_in_dim clamp concatenate convert_element_type copy copy_p device_put dynamic_slice "
    "dynamic_update_slice eq expand_dims gather ge gt iota is_finite le lt ne not optimization_barrier or pad reshape rev scatter select_n "
    "slice split squeeze stop_gradient transpose",
}
ELEMENTWISE, REDUCTIONS, MOVED = (frozenset(names.split()) for names in NAMES.values())
"""Operations by their names in JAX; the last move or compare numbers, and count for nothing."""


def flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Additions, multiplications and other operations on single floating-point numbers that `function(*arguments)` asks for.

    A product of matrices m x k and k x n counts 2 m k n, a Cholesky factorization p^3 / 3, a triangular solve p^2 for each right-hand
    side, a loop as often as it turns. Only the arguments' shapes matter.

    Raises
    ------
    ValueError
        For an operation that is not known here, and for a loop whose length only the data say.

    >>> flops(lambda X, v: X @ v, np.ones((3, 5)), np.ones(5))
    30
    """
    return round(_of_program(jax.make_jaxpr(function)(*arguments).jaxpr))


def sizes(function: Callable[..., Any], *arguments: Any) -> list[int]:
    """How many numbers each array has that `function(*arguments)` makes, in the order of its operations; a loop's body counts once.

    >>> sizes(lambda X, v: abs(X @ v).sum(), np.ones((3, 5)), np.ones(5))
    [3, 3, 1]
    """
    return _sizes(jax.make_jaxpr(function)(*arguments).jaxpr)


def _sizes(program: Any) -> list[int]:
    made: list[int] = []
    for operation in program.eqns:
        inside = [part for value in operation.params.values() for part in _programs(value)]
        made += [size for part in inside for size in _sizes(part)]
        made += [math.prod(variable.aval.shape) for variable in operation.outvars]
    return made


def _of_program(program: Any) -> float:
    return sum(_of_operation(operation) for operation in program.eqns)


def _of_operation(operation: Any) -> float:
    name, parameters = operation.primitive.name, operation.params
    inside = [part for value in parameters.values() for part in _programs(value)]
    if name == "while" or not (inside or name in COUNTED or name in MOVED):
        raise ValueError(f"the arithmetic of '{name}' is not known")
    if name == "cond":
        return max(map(_of_program, inside))
    if inside:
        return parameters.get("length", 1) * sum(map(_of_program, inside))
    counts = name in COUNTED and np.issubdtype(operation.outvars[0].aval.dtype, np.inexact)
    return COUNTED[name](operation) if counts else 0.0


def _programs(value: Any) -> list[Any]:
    """Programs among an operation's parameters."""
    if isinstance(value, tuple | list):
        return [part for entry in value for part in _programs(entry)]
    value = getattr(value, "jaxpr", value)
    return [value] if hasattr(value, "eqns") else []


def _product(operation: Any) -> float:
    contracted = operation.params["dimension_numbers"][0][0]
    shape = operation.invars[0].aval.shape
    return 2.0 * _size(operation.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _reduction(operation: Any) -> float:
    return _size(operation.invars[0]) - _size(operation.outvars[0])


def _size(variable: Any) -> float:
    return float(np.prod(variable.aval.shape))


COUNTED: dict[str, Callable[[Any], float]] = {
    **dict.fromkeys(ELEMENTWISE, lambda operation: _size(operation.outvars[0])),
    **dict.fromkeys(REDUCTIONS, _reduction),
    "dot_general": _product,
    "cholesky": lambda operation: _size(operation.outvars[0]) * operation.outvars[0].aval.shape[-1] / 3.0,
    "triangular_solve": lambda operation: _size(operation.outvars[0]) * operation.invars[0].aval.shape[-1],
}
"""By name: an operation's arithmetic."""
