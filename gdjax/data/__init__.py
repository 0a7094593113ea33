"""Readers: a file, an OpenML data set or a set that ships with scikit-learn becomes a `Table` of numbers.

Nothing else reads data files. Every public function of `text`, `binary` and `sets` is a kind of problem data:
`read("csv", path="houses.csv", target="price")` is `csv("houses.csv", target="price")`. A user's mistake is an `InputError` of one
line; what is questionable but sound (a constant column, two equal ones) is left to whoever uses the numbers.

pandas, scikit-learn and pyarrow are imported where they are used: starting gdjax without a data file doesn't wait for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gdjax.data import binary, sets, text
from gdjax.data.binary import npz, parquet
from gdjax.data.files import FilePath
from gdjax.data.frames import Column, Columns
from gdjax.data.sets import breast_cancer, diabetes, digits, iris, linnerud, openml, wine
from gdjax.data.table import Table, standardize, standardized
from gdjax.data.text import MAX_DENSE_BYTES, csv, svmlight
from gdjax.records import InputError, unknown_name

__all__ = [
    "MAX_DENSE_BYTES",
    "Column",
    "Columns",
    "FilePath",
    "Table",
    "breast_cancer",
    "csv",
    "diabetes",
    "digits",
    "iris",
    "linnerud",
    "npz",
    "openml",
    "parameters",
    "parquet",
    "read",
    "readers",
    "standardize",
    "standardized",
    "svmlight",
    "wine",
]


def readers() -> dict[str, Callable[..., Table]]:
    """The readers by name: what `read` knows.

    >>> sorted(readers())[:3]
    ['breast_cancer', 'csv', 'diabetes']
    """
    return {
        name: found
        for module in (text, binary, sets)
        for name, found in vars(module).items()
        if inspect.isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_")
    }


def parameters(kind: str) -> Mapping[str, inspect.Parameter]:
    """What the reader called `kind` can be told.

    Raises
    ------
    InputError
        For an unknown kind.
    """
    known = readers()
    if kind not in known:
        raise unknown_name("problem", str(kind), known)
    return inspect.signature(known[kind]).parameters


def read(kind: str, /, **options: Any) -> Table:
    """Read a table with the reader called `kind`; an option that is None counts as not given.

    Raises InputError for an unknown kind, an unknown option, and one that the reader needs and lacks.

    >>> read("linnerud", target="Waist").target_name
    'Waist'
    """
    known = parameters(kind)
    for name in options:
        if name not in known:
            raise unknown_name(f"{kind} option", name, known)
    given = {name: value for name, value in options.items() if value is not None}
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise InputError(f"{kind} needs a {name}: set problem.{name}=... (options: {', '.join(known)}).")
    return readers()[kind](**given)
