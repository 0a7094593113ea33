"""Readers of text files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdjax.data.files import FilePath, existing, reading
from gdjax.data.frames import Column, Columns, from_frame, number
from gdjax.data.table import Table, checked
from gdjax.records import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_DENSE_BYTES = 4 * 2**30  # a sparse file of a few kB can ask for terabytes once it is dense
DELIMITERS = ",;\t|"
SPACES = r"\s+"
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def csv(
    path: FilePath,
    *,
    target: Column | None = None,
    features: Columns = None,
    delimiter: str | None = None,
    decimal: str = ".",
    header: bool = True,
    labels: bool = False,
) -> Table:
    """Read a text file with a row an example, also compressed (.gz, .bz2, .xz).

    The delimiter (comma, semicolon, tab, bar or spaces) is the one that splits the first line most, unless given. With
    `header=False` the first row is data and the columns are called 0, 1, 2, ... A nameless first column is a row index, as pandas
    and R write it, and is left out; so is a nameless column that is empty. With `labels` a target of text names classes: it becomes 0,
    1, .. in the order of their names.
    """
    file = existing(path)
    with reading(file, "text"):
        delimiter = delimiter or _delimiter(file, decimal)
    with reading(file, f"CSV split at {'spaces' if delimiter == SPACES else repr(delimiter)}"):
        frame = _csv_frame(file, delimiter, decimal, header)
    if header:
        _refuse_numbers_as_header(frame, target, file)
    return from_frame(frame, target=target, features=features, labels=labels, where=str(file), source=f"csv: {file.name}")


def svmlight(path: FilePath) -> Table:
    """Read a file of lines `target index:value index:value ...`, also .gz and .bz2; what a line leaves out is zero.

    The table is dense: a file that would take more than `MAX_DENSE_BYTES` is refused.
    """
    from sklearn.datasets import load_svmlight_file

    file = existing(path)
    with reading(file, "svmlight"):
        sparse, target = load_svmlight_file(str(file))[:2]
    n, p = sparse.shape
    if n and not sparse.nnz:
        raise InputError(f"{file} has no features: a line must read 'target index:value index:value ...'.")
    if n * p * 8 > MAX_DENSE_BYTES:
        raise InputError(
            f"{file} has {n:,} rows and {p:,} features: as a dense table {n * p * 8 / 2**30:,.1f} GiB, beyond the limit of "
            f"{MAX_DENSE_BYTES / 2**30:g} GiB. Keep fewer rows or features."
        )
    return checked(
        features=sparse.toarray(),
        target=np.asarray(target, dtype=np.float64),
        feature_names=tuple(f"feature_{j}" for j in range(1, p + 1)),
        target_name="target",
        where=str(file),
        source=f"svmlight: {file.name}",
    )


def _delimiter(file: Path, decimal: str) -> str:
    """The delimiter that splits the first line most, outside quotes; spaces where none does."""
    with OPENERS.get(file.suffix.lower(), open)(file, "rt", encoding="utf-8") as opened:
        head = opened.read(2**16)
    unquoted = re.sub(r'"[^"]*"', "quoted", head)  # a name in quotes may hold delimiters and line breaks
    bare = unquoted.lstrip().partition("\n")[0]
    best = max((mark for mark in DELIMITERS if mark != decimal), key=bare.count)
    return best if best in bare else SPACES


def _csv_frame(file: Path, delimiter: str, decimal: str, header: bool) -> pd.DataFrame:
    """The file as pandas reads it, with the column names as they stand in it and without the nameless columns that hold no data."""
    import pandas as pd

    layout: dict[str, Any] = {"sep": delimiter, "skipinitialspace": True, "engine": "c", "encoding": "utf-8"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(file, header=0 if header else None, index_col=False, decimal=decimal, low_memory=False, **layout)
    except pd.errors.ParserWarning:  # pandas would cut the rows short
        raise InputError(f"the rows of {file} have more fields than its first row: give every column a name.") from None
    if not header:
        return frame
    # pandas renames a second 'a' to 'a.1' and a nameless column to 'Unnamed: 0': hence the header by itself.
    first_row = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False, **layout)
    frame.columns = [str(name).strip() for name in first_row.iloc[0]]
    named = [bool(name) or (j > 0 and not frame.iloc[:, j].isna().all()) for j, name in enumerate(frame.columns)]
    return frame.loc[:, named]


def _refuse_numbers_as_header(frame: pd.DataFrame, target: Column | None, file: Path) -> None:
    """Refuse a file whose first row is data: it would lose that row and name the columns after its numbers."""
    names = list(frame.columns)
    if names and str(target) not in names and all(number(name) is not None for name in names):
        raise InputError(
            f"the first row of {file} holds only numbers, so the names of the columns seem to be missing: put them in a first row, "
            "or set header=False (problem.header=false on the command line) and choose columns by position."
        )
