"""Update rules that optax lacks, and the one place that turns a method's name into a `Method`.

A method is a function from numbers (a learning rate, a momentum) to an optax optimizer. It is called inside the traced program, so
its numbers are data: a new learning rate is never a new compilation (the wish of optax issue 577).

Each family of rules has a module of its own; what is imported here by name is a method.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib

from gdjax.methods.averaging import averaged_sgd
from gdjax.methods.decaying import decaying_sgd, robbins_monro
from gdjax.methods.examples import ExampleGradientTransformation, Examples
from gdjax.methods.momentum import fista, heavy_ball, nesterov, nesterov_convex
from gdjax.methods.online import online_adagrad, online_adam, online_amsgrad
from gdjax.methods.optimal import chebyshev, nu_method, ogm
from gdjax.methods.parameter_free import d_adaptation, polyak_step, prodigy_sgd, schedule_free
from gdjax.methods.schedules import (
    cosine_sgd,
    inverse_sqrt_sgd,
    inverse_time_sgd,
    linear_sgd,
    plateau_sgd,
    step_decay_sgd,
    warmup_cosine_sgd,
    warmup_sgd,
    wsd_sgd,
)
from gdjax.methods.step_lengths import silver, steepest_descent
from gdjax.methods.variance_reduced import saga, svrg
from gdjax.records import InputError, Lanes, unknown_name

__all__ = [
    "ExampleGradientTransformation",
    "Examples",
    "Method",
    "available",
    "averaged_sgd",
    "chebyshev",
    "cosine_sgd",
    "d_adaptation",
    "decaying_sgd",
    "fista",
    "heavy_ball",
    "inverse_sqrt_sgd",
    "inverse_time_sgd",
    "is_number",
    "linear_sgd",
    "nesterov",
    "nesterov_convex",
    "nu_method",
    "ogm",
    "online_adagrad",
    "online_adam",
    "online_amsgrad",
    "plateau_sgd",
    "polyak_step",
    "prodigy_sgd",
    "reported_point",
    "resolve",
    "robbins_monro",
    "saga",
    "schedule_free",
    "silver",
    "steepest_descent",
    "step_decay_sgd",
    "svrg",
    "warmup_cosine_sgd",
    "warmup_sgd",
    "wsd_sgd",
]

_NEEDS_MORE = {
    "galore": "projects gradients of matrices and has nothing to do on vectors",
    "lbfgs": "searches along a line and needs the objective itself at every step",
    "sophia": "estimates the Hessian and needs the objective itself at every step",
}


def reported_point(state: Any, lanes: Lanes) -> Lanes:
    """The points that a method stands for, where it keeps them apart from those where it takes gradients, for every lane.

    They are its state's `iterate`, or for optax's schedule-free methods the average x in y = b1 x + (1 - b1) z (Defazio et al. 2024).
    """
    if isinstance(state, optax.contrib.ScheduleFreeState):
        average = jax.vmap(lambda b1, y, z: (y - (1.0 - b1) * z) / b1, in_axes=-1, out_axes=-1)
        return jax.tree.map(lambda y, z: average(state.b1, y, z), lanes, state.z)
    return getattr(state, "iterate", lanes)


@dataclass(frozen=True)
class Method:
    """A function from numbers to an optax optimizer, with the settings that shape the program held fast."""

    name: str
    build: Callable[..., optax.GradientTransformation]
    settings: tuple[tuple[str, Any], ...] = ()

    def __call__(self, **numbers: Any) -> optax.GradientTransformationExtraArgs:
        """The optimizer with these numbers, traced or not."""
        return optax.with_extra_args_support(self.build(**numbers, **dict(self.settings)))

    @property
    def asks_about_examples(self) -> bool:
        """Whether its builder says that it makes an `ExampleGradientTransformation`, which may keep a gradient of every example."""
        return "ExampleGradientTransformation" in str(inspect.signature(self.build).return_annotation)


def resolve(
    method: str | Callable[..., optax.GradientTransformation], numbers: Mapping[str, Any], also: Iterable[str] = ("batch_size", "seed")
) -> tuple[Method, tuple[str, ...]]:
    """Find a method, and which of `numbers` are traced; the others shape its program.

    Parameters
    ----------
    method
        The name of a function here, in `optax` or in `optax.contrib` (in that order), or a callable of that kind.
    numbers
        The keywords given for it: sequences are swept.
    also
        Names that would have been allowed but are not the method's, for a message.

    Raises
    ------
    InputError
        For an unknown name or keyword, a missing learning rate, or a sequence where only one value is possible.
    """
    if not callable(method) and not isinstance(method, str):
        raise InputError(f"method={method!r} is not allowed: it is a name, or a function of learning_rate (optax.sgd, not optax.sgd(0.1)).")
    build = _named(method) if isinstance(method, str) else method
    name = method if isinstance(method, str) else getattr(method, "__name__", "custom")
    parameters = inspect.signature(build).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for given in numbers:
        if given not in parameters and not anything:
            raise unknown_name(f"axis or number of method {name}", given, [*parameters, *also])
    rate = parameters.get("learning_rate")
    if rate is not None and rate.default in (rate.empty, None) and "learning_rate" not in numbers:
        raise InputError(f"method '{name}' needs learning_rate, a number or a sequence of numbers, e.g. learning_rate=[0.001, 0.01].")
    fixed = [given for given, value in numbers.items() if _shapes_the_program(given, parameters.get(given), value)]
    for given in fixed:
        if np.ndim(numbers[given]) > 0:
            raise InputError(f"{given} of method '{name}' shapes its program and can't be swept: give one value, one sweep for each.")
    settings = tuple((given, numbers[given]) for given in sorted(fixed))
    return Method(name, build, settings), tuple(given for given in numbers if given not in fixed)


def is_number(method: str, name: str) -> bool:
    """Whether `name` is a number of that method which is data, so that runs with different ones share a program.

    >>> is_number("adam", "b1"), is_number("lbfgs", "memory_size"), is_number("sgd", "nesterov")
    (True, False, False)
    """
    build = available().get(method)
    parameter = inspect.signature(build).parameters.get(name) if build is not None else None
    return parameter is not None and not _shapes_the_program(name, parameter, 0.0)


@functools.cache
def available() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Every method that has a name, with its builder."""
    found: dict[str, Callable[..., optax.GradientTransformation]] = {}
    for module in (optax.contrib, optax, sys.modules[__name__]):
        found |= {name: build for name, build in vars(module).items() if _is_method(name, build)}
    return found


def _is_method(name: str, build: Any) -> bool:
    """Whether `build` makes an optimizer out of a learning rate, and needs nothing else."""
    if not inspect.isfunction(build) or name.startswith(("_", "scale_by_")) or name in _NEEDS_MORE:
        return False
    signature = inspect.signature(build)
    needed = {name for name, p in signature.parameters.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    rate = {"learning_rate", "max_learning_rate"} & set(signature.parameters)
    return bool(rate) and needed <= rate and "GradientTransformation" in str(signature.return_annotation)


def _named(name: str) -> Callable[..., optax.GradientTransformation]:
    if name in _NEEDS_MORE:
        raise InputError(f"method '{name}' can't be used here: it {_NEEDS_MORE[name]}. Allowed: {', '.join(sorted(available()))}.")
    methods = available()
    if name not in methods:
        raise unknown_name("method", name, methods)
    return methods[name]


def _shapes_the_program(name: str, parameter: inspect.Parameter | None, value: Any) -> bool:
    """Whether it decides what is computed: a flag, a word, a count of things, a type or a function. Any other number is data."""
    default = None if parameter is None else parameter.default
    annotation = "" if parameter is None or parameter.annotation is parameter.empty else str(parameter.annotation)
    if callable(value) and annotation in ("float", "<class 'float'>"):
        raise InputError(f"{name}={value!r} is not allowed: this method takes a number for it, no schedule.")
    if isinstance(default, bool | str) or callable(value) or name.endswith("dtype"):
        return True
    if isinstance(value, bool | str):
        raise InputError(f"{name}={value!r} is not allowed: it is a number, or a sequence of numbers.")
    return isinstance(default, int) and annotation not in ("", "float", "<class 'float'>")
