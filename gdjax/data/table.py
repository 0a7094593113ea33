"""What a reader gives: a row an example, every number in it finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from gdjax.records import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A data set on the host: a row an example. From a reader, all its numbers are finite."""

    features: np.ndarray  # float64 (n, p)
    target: np.ndarray  # float64 (n,)
    feature_names: tuple[str, ...]
    target_name: str
    source: str  # where it came from, for a figure's caption: 'csv: houses.csv', 'scikit-learn: diabetes'
    class_names: tuple[str, ...] = ()  # of a target that was text: the target k is the name at k


def standardize(table: Table) -> Table:
    """Give every feature mean 0 and standard deviation 1: (x - mean) / std, with std over n (ddof=0).

    A constant feature becomes zeros. The target stays as it is.

    >>> row = dict(target=np.zeros(2), feature_names=("a", "b"), target_name="y", source="")
    >>> standardize(Table(features=np.array([[1.0, 5.0], [3.0, 5.0]]), **row)).features
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    return replace(table, features=standardized(table.features))


def standardized(x: Float[np.ndarray, "n p"], by: Any = slice(None)) -> Float[np.ndarray, "n p"]:
    """Give columns mean 0 and standard deviation 1 over the rows `by`; zeros where they are constant there.

    >>> standardized(np.array([[1.0], [3.0], [9.0]]), [0, 1]).ravel()
    array([-1.,  1.,  7.])
    """
    constant = x[by].max(axis=0) == x[by].min(axis=0)
    # Scaling by a power of two is exact, and without it the squares of 1e200 overflow and those of 1e-200 vanish.
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=0))[1])
    x = x - x[by].mean(axis=0)
    x = x - x[by].mean(axis=0)  # the mean of a column far from 0 (a year, a time stamp) is off by more than one rounding
    std = np.sqrt(np.mean(x[by] ** 2, axis=0))
    return np.divide(x, std, out=np.zeros_like(x), where=~constant)


def checked(
    *,
    features: np.ndarray,
    target: np.ndarray,
    feature_names: tuple[str, ...],
    target_name: str,
    where: str,
    source: str,
    class_names: tuple[str, ...] = (),
) -> Table:
    """The table, once it has rows and features and every number in it is finite."""
    if not len(target):
        raise InputError(f"{where} has no rows of data.")
    if not feature_names:
        raise InputError(f"{where} leaves no feature besides the target {target_name!r}: at least one is needed.")
    for j in np.flatnonzero(~np.isfinite(features).all(axis=0))[:1]:
        raise _not_finite(feature_names[j], features[:, j], where)
    if not np.isfinite(target).all():
        raise _not_finite(target_name, target, where)
    return Table(
        features=features, target=target, feature_names=feature_names, target_name=target_name, source=source, class_names=class_names
    )


def _not_finite(name: str, values: np.ndarray, where: str) -> InputError:
    """Say how many numbers of a column are missing or infinite, and where the first stands."""
    missing = np.isnan(values)
    bad, what = (missing, "missing (NaN)") if missing.any() else (np.isinf(values), "infinite (inf, or beyond 1.8e308)")
    count = int(bad.sum())
    return InputError(
        f"column {name!r} of {where}: {count} of {len(values)} values {'is' if count == 1 else 'are'} {what}, the first in row "
        f"{int(bad.argmax()) + 1}. Fill them in, remove those rows, or leave the column out."
    )


def numbered(texts: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The classes that texts name as 0, 1, .. in the order of their names, NaN where there is none; and those names.

    >>> numbered(["no", "yes", None, "no"])
    (array([ 0.,  1., nan,  0.]), ('no', 'yes'))
    """
    names = tuple(sorted({text for text in texts if text is not None}))
    places = {name: float(place) for place, name in enumerate(names)}
    return np.array([np.nan if text is None else places[text] for text in texts]), names
