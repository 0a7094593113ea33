"""Columns of a data frame, chosen by name or position, as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdjax.data.names import listed, nearest
from gdjax.data.table import Table, checked, numbered
from gdjax.records import InputError

if TYPE_CHECKING:
    import pandas as pd

Column = str | int
"""A column's name or, where no column has that name, its position: 0 the first, -1 the last."""

Columns = Sequence[Column] | Column | None
"""The columns to use, in this order; None for all but the target."""

TRUTH = {"true": 1.0, "false": 0.0}


def from_frame(frame: pd.DataFrame, *, target: Column | None, features: Columns, labels: bool = False, where: str, source: str) -> Table:
    """The chosen columns of a data frame as numbers, with `labels` a target of text too; `where` names the data in messages."""
    names = _column_names(frame, where)
    if target is None:
        raise InputError(
            f"no target given: say which column to predict with target=COLUMN (problem.target=COLUMN on the command line). "
            f"Columns of {where}: {listed(names)}."
        )
    aim = position(target, names, where)
    chosen = [j for j in range(len(names)) if j != aim] if features is None else _chosen(features, aim, names, where)
    if not len(frame):
        raise InputError(f"{where} has columns but no rows of data.")
    columns = {j: _numbers(frame.iloc[:, j]) for j in [*chosen, aim]}
    class_names: tuple[str, ...] = ()
    if labels and columns[aim][1] is not None:
        values, class_names = numbered(_texts(frame.iloc[:, aim]))
        columns[aim] = values, None
    for j, (_, bad) in columns.items():
        if bad is not None:
            raise _not_numeric(frame, j, bad, is_target=j == aim, where=where)
    return checked(
        features=np.column_stack([columns[j][0] for j in chosen]) if chosen else np.empty((len(frame), 0)),
        target=columns[aim][0],
        feature_names=tuple(names[j] for j in chosen),
        target_name=names[aim],
        where=where,
        source=source,
        class_names=class_names,
    )


def _column_names(frame: pd.DataFrame, where: str) -> list[str]:
    """The names of the columns, each of which must have one of its own."""
    names = [str(name).strip() for name in frame.columns]
    first: dict[str, int] = {}
    for j, name in enumerate(names):
        if not name:
            raise InputError(f"column {j + 1} of {where} has no name: give it one.")
        if first.setdefault(name, j) != j:
            raise InputError(f"two columns of {where} are called {name!r}, number {first[name] + 1} and {j + 1}: rename one.")
    return names


def position(given: Column, names: list[str], where: str) -> int:
    """Where the column `given` stands, by its name, or else by its position."""
    name = str(given).strip()
    if name in names:
        return names.index(name)
    if re.fullmatch(r"-?\d+", name):
        if -len(names) <= int(name) < len(names):
            return int(name) % len(names)
        raise InputError(f"{where} has no column {name}: positions run from 0 to {len(names) - 1}. Columns: {listed(names)}.")
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    raise InputError(f"{where} has no column {name!r}.{hint} Columns: {listed(names)}.")


def _chosen(features: Sequence[Column] | Column, aim: int, names: list[str], where: str) -> list[int]:
    """The positions of the features asked for, in that order."""
    asked = [features] if isinstance(features, str | int) else list(features)
    positions = [position(given, names, where) for given in asked]
    if aim in positions:
        raise InputError(f"column {names[aim]!r} of {where} is the target and among the features too: take it out of features.")
    for i, j in enumerate(positions):
        if j in positions[:i]:
            raise InputError(f"features name the column {names[j]!r} of {where} twice: name it once.")
    return positions


def _numbers(column: pd.Series) -> tuple[np.ndarray, int | None]:
    """A column as float64, NaN where a value is missing; and the first row that holds no number, if any does."""
    if getattr(column.dtype, "kind", "O") in "biuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan), None
    missing = column.isna()
    values = [math.nan if absent else number(value) for value, absent in zip(column, missing, strict=True)]
    if None in values:
        return np.empty(0), values.index(None)
    return np.array(values, dtype=np.float64), None


def _texts(column: pd.Series) -> list[str | None]:
    """A column as text, None where a value is missing."""
    return [None if absent else str(value).strip() for value, absent in zip(column, column.isna(), strict=True)]


def number(value: Any) -> float | None:
    """`value` as a number, or None where it is none."""
    if isinstance(value, str):
        value = TRUTH.get(value.strip().lower(), value.replace("_", "?"))  # float() would read 2024_01 as 202401
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _not_numeric(frame: pd.DataFrame, position: int, row: int, *, is_target: bool, where: str) -> InputError:
    """Say which column holds no numbers, where, and which columns do."""
    names = _column_names(frame, where)
    text = str(frame.iloc[row, position])
    shown = text if len(text) <= 40 else text[:37] + "..."
    comma = " (if that is a decimal comma, csv reads it with decimal=',')" if re.fullmatch(r"[-+]?\d*,\d+", text) else ""
    numeric = [name for j, name in enumerate(names) if j != position and _numbers(frame.iloc[:, j])[1] is None]
    instead = (
        "choose another target (problem.target on the command line), or tell two classes of text apart by problem.loss=logistic"
        if is_target
        else "leave it out by naming the columns to use in features (problem.features on the command line)"
    )
    return InputError(
        f"column {names[position]!r} of {where} is not numeric: row {row + 1} holds {shown!r}{comma}. Encode it as numbers, or {instead}. "
        f"Other columns that are numeric: {listed(numeric)}."
    )
