"""Problems by name: a builder that needs no arrays, or a data set with a loss."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from gdjax import data
from gdjax.problems.classes import logistic
from gdjax.problems.linear import least_squares, notebook_line, page_data, random_linear
from gdjax.problems.networks import mlp_classification
from gdjax.problems.quadratics import designed_spectrum, gap_spectrum, nesterov_worst_case
from gdjax.problems.robust import keywords, notebook_outliers, robust_losses, robust_regression
from gdjax.records import InputError, Problem, unknown_name, whole

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
    numbers, of_reader = numbers_of_loss(loss), data.parameters(kind)
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


def mlp_from_file(
    data: str = "digits",
    *,
    num_examples: int | None = None,
    scale: str = "standardize",
    **options: Any,
) -> Problem:
    """`mlp_classification` on a data set, its target as labels: `data` names a reader of `gdjax.data`, `options` are its and the network's.

    Parameters
    ----------
    num_examples
        Of the set's first rows; None for all.
    scale
        As in `from_file`, of the rows that are taken.
    """
    network = {option: options.pop(option) for option in keywords(mlp_classification) if option in options}
    table = _table(data, scale, options, num_examples, labels=True)
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


def _table(kind: str, scale: str, options: dict[str, Any], num_examples: int | None = None, *, labels: bool) -> data.Table:
    """A data set's first rows, their columns scaled; with `labels` its target may be text."""
    if scale not in ("none", "standardize"):
        raise InputError(f"problem.scale={scale!r} is not allowed: it is none or standardize.")
    rows = slice(None if num_examples is None else whole("num_examples", num_examples, least=2))
    table = data.read(kind, **{"labels": True} if labels and "labels" in data.parameters(kind) else {}, **options)
    table = dataclasses.replace(table, features=table.features[rows], target=table.target[rows])
    return data.standardize(table) if scale == "standardize" else table


def numbers_of_loss(loss: str) -> dict[str, str]:
    """What the builder of a loss may be told, by the names that they have among a data set's options."""
    known = all_losses()
    if str(loss) not in known:
        raise unknown_name("loss", str(loss), known)
    return {f"loss_{name}" if name in inspect.signature(from_file).parameters else name: name for name in keywords(known[loss])}


def _no_option(option: str, kind: str, loss: str, allowed: list[str]) -> InputError:
    """Say that a data set with that loss has no such option, and which losses have."""
    others = [other for other in all_losses() if option in numbers_of_loss(other)]
    if not others:
        return unknown_name(f"option of problem {kind} with loss {loss}", option, allowed)
    return InputError(
        f"problem.{option} goes with problem.loss={' or '.join(others)}, and the loss is {loss}: change it, or leave {option} away."
    )


def _refuse_unless_two_classes(table: data.Table) -> None:
    classes = table.class_names or [f"{value:g}" for value in np.unique(table.target)]
    if len(classes) != 2:
        some = ", ".join(classes[:5]) + (", .." if len(classes) > 5 else "")
        raise InputError(
            f"problem.loss=logistic tells two classes apart, and {table.target_name!r} of {table.source} has {len(classes)}: {some}. Keep "
            "the rows of two of them in a file, or write a column that sets one against the others."
        )


def all_losses() -> dict[str, Callable[..., Any]]:
    """What takes each loss's numbers, by its name."""
    return robust_losses() | BY_LOSS
