"""Readers: a file, an OpenML data set or a set that ships with scikit-learn becomes a `Table` of numbers.

This is the only module that reads data files. Every public function that gives a `Table` out of options is a kind of problem data:
`read("csv", path="houses.csv", target="price")` is `csv("houses.csv", target="price")`. A user's mistake is an `InputError` of one
line; what is questionable but sound (a constant column, two equal ones) is left to whoever uses the numbers.

pandas, scikit-learn and pyarrow are imported where they are used: starting gdjax without a data file doesn't wait for them.
"""

from __future__ import annotations

import bz2
import difflib
import gzip
import inspect
import lzma
import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdjax.records import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

FilePath = str | os.PathLike[str]

Column = str | int
"""A column's name or, where no column has that name, its position: 0 the first, -1 the last."""

Columns = Sequence[Column] | Column | None
"""The columns to use, in this order; None for all but the target."""

MAX_DENSE_BYTES = 4 * 2**30  # a sparse file of a few kB can ask for terabytes once it is dense
MAX_LISTED = 20  # names in a message
DELIMITERS = ",;\t|"
SPACES = r"\s+"
TRUTH = {"true": 1.0, "false": 0.0}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# what the readers raise on a corrupt or unusual file; NotImplementedError is zipfile's for a compression that it lacks
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, KeyError, NotImplementedError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A data set on the host: a row an example. From a reader, all its numbers are finite."""

    features: np.ndarray  # float64 (n, p)
    target: np.ndarray  # float64 (n,)
    feature_names: tuple[str, ...]
    target_name: str
    source: str  # where it came from, for a figure's caption: 'csv: houses.csv', 'scikit-learn: diabetes'


def csv(
    path: FilePath,
    *,
    target: Column | None = None,
    features: Columns = None,
    delimiter: str | None = None,
    decimal: str = ".",
    header: bool = True,
) -> Table:
    """Read a text file with a row an example, also compressed (.gz, .bz2, .xz).

    The delimiter (comma, semicolon, tab, bar or spaces) is the one that splits the first line most, unless given. With
    `header=False` the first row is data and the columns are called 0, 1, 2, ... A nameless first column is a row index, as pandas
    and R write it, and is left out; so is a nameless column that is empty.
    """
    file = _file(path)
    with _reading(file, "text"):
        delimiter = delimiter or _delimiter(file, decimal)
    with _reading(file, f"CSV split at {'spaces' if delimiter == SPACES else repr(delimiter)}"):
        frame = _csv_frame(file, delimiter, decimal, header)
    if header:
        _refuse_numbers_as_header(frame, target, file)
    return _from_frame(frame, target=target, features=features, where=str(file), source=f"csv: {file.name}")


def parquet(path: FilePath, *, target: Column | None = None, features: Columns = None) -> Table:
    """Read a Parquet file."""
    from pyarrow.parquet import ParquetFile

    file = _file(path)
    with _reading(file, "Parquet"), ParquetFile(file) as opened:
        frame = opened.read().to_pandas()
    return _from_frame(frame, target=target, features=features, where=str(file), source=f"parquet: {file.name}")


def npz(path: FilePath, *, target: str = "y", features: str = "X") -> Table:
    """Read two arrays of a file that `numpy.savez` wrote: `features` (n, p), or (n,) for one feature, and `target` (n,)."""
    file = _file(path)
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file} is no npz file, or not a whole one: save both arrays in one with numpy.savez(path, X=..., y=...).")
    # Opened here, since numpy leaves a corrupt file open.
    with _reading(file, "npz"), file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        x, y = _array(arrays, features, file), _array(arrays, target, file)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise InputError(f"{features!r} in {file} has shape {x.shape}: give one row an example, (n, p), or (n,) for one feature.")
    if y.ndim != 1 and y.shape[1:] != (1,):
        raise InputError(f"{target!r} in {file} has shape {y.shape}: give one number an example, (n,).")
    if len(x) != len(y):
        raise InputError(f"{features!r} has {len(x)} rows and {target!r} has {len(y)} in {file}: they must be as many.")
    return _checked(
        features=x,
        target=y.reshape(-1),
        feature_names=tuple(f"{features}_{j}" for j in range(x.shape[1])),
        target_name=target,
        where=str(file),
        source=f"npz: {file.name}",
    )


def svmlight(path: FilePath) -> Table:
    """Read a file of lines `target index:value index:value ...`, also .gz and .bz2; what a line leaves out is zero.

    The table is dense: a file that would take more than `MAX_DENSE_BYTES` is refused.
    """
    from sklearn.datasets import load_svmlight_file

    file = _file(path)
    with _reading(file, "svmlight"):
        sparse, target = load_svmlight_file(str(file))[:2]
    n, p = sparse.shape
    if n and not sparse.nnz:
        raise InputError(f"{file} has no features: a line must read 'target index:value index:value ...'.")
    if n * p * 8 > MAX_DENSE_BYTES:
        raise InputError(
            f"{file} has {n:,} rows and {p:,} features: as a dense table {n * p * 8 / 2**30:,.1f} GiB, beyond the limit of "
            f"{MAX_DENSE_BYTES / 2**30:g} GiB. Keep fewer rows or features."
        )
    return _checked(
        features=sparse.toarray(),
        target=np.asarray(target, dtype=np.float64),
        feature_names=tuple(f"feature_{j}" for j in range(1, p + 1)),
        target_name="target",
        where=str(file),
        source=f"svmlight: {file.name}",
    )


def openml(dataset: str, *, target: Column | None = None, features: Columns = None, version: str | int = "active") -> Table:
    """Fetch a data set from openml.org, once: scikit-learn keeps a copy in its data folder.

    `target` is the one that OpenML names unless given.
    """
    from sklearn import datasets

    where = f"the OpenML data set {str(dataset)!r} (version {version})"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A network error occurred")  # one a try, before the error itself
            bunch: Any = datasets.fetch_openml(name=dataset, version=version, as_frame=True, parser="auto")
    except OSError as error:
        raise InputError(
            f"cannot fetch {where}: {getattr(error, 'reason', error)}. Check the network, or download the data and read it as csv."
        ) from None
    except ValueError as error:
        raise InputError(f"cannot use {where}: {_first_line(error)}. Look the name up on openml.org.") from None
    if target is None and len(bunch.target_names) == 1:
        target = bunch.target_names[0]
    source = f"openml: {dataset}, version {bunch.details['version']}"
    return _from_frame(bunch.frame, target=target, features=features, where=where, source=source)


def diabetes(*, features: Columns = None) -> Table:
    """How far diabetes had gone after a year, of 442 patients; 10 features in their own units.

    >>> diabetes(features="bmi").features[0]
    array([32.1])
    """
    return _shipped("diabetes", features, scaled=False)


def linnerud(*, target: Column = "Weight", features: Columns = None) -> Table:
    """The weight, waist or pulse of 20 men against three exercises; `target` is Weight, Waist or Pulse."""
    return _shipped("linnerud", features, target)


def digits(*, features: Columns = None) -> Table:
    """Which digit 0 to 9 each of 1,797 handwritten images of 8 by 8 pixels shows."""
    return _shipped("digits", features)


def breast_cancer(*, features: Columns = None) -> Table:
    """Whether each of 569 tumours is benign (1) or malignant (0); 30 features."""
    return _shipped("breast_cancer", features)


def wine(*, features: Columns = None) -> Table:
    """Which of three growers, 0 to 2, made each of 178 wines; 13 features."""
    return _shipped("wine", features)


def iris(*, features: Columns = None) -> Table:
    """Which of three species, 0 to 2, each of 150 irises is; 4 features."""
    return _shipped("iris", features)


def readers() -> dict[str, Callable[..., Table]]:
    """The readers of this module by name: what `read` knows.

    >>> sorted(readers())[:3]
    ['breast_cancer', 'csv', 'diabetes']
    """
    others = {"read", "readers", "standardize"}
    mine = {name: value for name, value in globals().items() if inspect.isfunction(value) and value.__module__ == __name__}
    return {name: value for name, value in mine.items() if not name.startswith("_") and name not in others}


def read(kind: str, /, **options: Any) -> Table:
    """Read a table with the reader called `kind`; an option that is None counts as not given.

    Raises InputError for an unknown kind, an unknown option, and one that the reader needs and lacks.

    >>> read("linnerud", target="Waist").target_name
    'Waist'
    """
    known = readers()
    if kind not in known:
        raise unknown_name("problem", str(kind), known)
    parameters = inspect.signature(known[kind]).parameters
    for name in options:
        if name not in parameters:
            raise unknown_name(f"{kind} option", name, parameters)
    given = {name: value for name, value in options.items() if value is not None}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise InputError(f"{kind} needs a {name}: set problem.{name}=... (options: {', '.join(parameters)}).")
    return known[kind](**given)


def standardize(table: Table) -> Table:
    """Give every feature mean 0 and standard deviation 1: (x - mean) / std, with std over n (ddof=0).

    A constant feature becomes zeros. The target stays as it is.

    >>> row = dict(target=np.zeros(2), feature_names=("a", "b"), target_name="y", source="")
    >>> standardize(Table(features=np.array([[1.0, 5.0], [3.0, 5.0]]), **row)).features
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    x = table.features
    constant = x.max(axis=0) == x.min(axis=0)
    # Scaling by a power of two is exact, and without it the squares of 1e200 overflow and those of 1e-200 vanish.
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=0))[1])
    x = x - x.mean(axis=0)
    x = x - x.mean(axis=0)  # the mean of a column far from 0 (a year, a time stamp) is off by more than one rounding
    std = np.sqrt(np.mean(x**2, axis=0))
    return replace(table, features=np.divide(x, std, out=np.zeros_like(x), where=~constant))


def _shipped(name: str, features: Columns, target: Column = "target", **options: Any) -> Table:
    """A data set that comes with scikit-learn; of several targets the one asked for, the others left out."""
    import pandas as pd
    from sklearn import datasets

    where = f"scikit-learn: {name}"
    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    targets = pd.DataFrame(bunch.target)
    chosen = list(targets)[_position(target, list(targets), where)]
    frame = bunch.data.assign(**{chosen: targets[chosen]})
    return _from_frame(frame, target=chosen, features=features, where=where, source=where)


def _file(path: FilePath | None) -> Path:
    """The absolute path of a file that can be opened and isn't empty."""
    if path is None or not str(path).strip():
        raise InputError("no file given: set path=FILE (problem.path=FILE on the command line).")
    file = Path(os.path.abspath(os.path.expanduser(str(path))))
    try:
        if file.is_dir():
            raise InputError(f"{file} is a folder: give the path of a file in it.")
        if not os.path.lexists(file):
            raise InputError(f"there is no file {file}.{_similar_file(file)}")
        if file.exists() and not file.is_file():  # opening a pipe could wait for ever
            raise InputError(f"{file} is no regular file: save the data in one first.")
        with file.open("rb") as opened:
            if not opened.read(1):
                raise InputError(f"{file} is empty.")
    except OSError as error:
        raise InputError(f"cannot open {file}: {error.strerror}.") from None
    return file


def _similar_file(missing: Path) -> str:
    """A hint at what the user may have meant: a file in the same folder, or the part of the path that does exist."""
    if not missing.parent.is_dir():
        return f" There is no folder {missing.parent} either."
    near = _nearest(missing.name, [entry.name for entry in missing.parent.iterdir() if entry.is_file()])
    return f" Did you mean {near!r}?" if near else ""


@contextmanager
def _reading(file: Path, kind: str) -> Iterator[None]:
    """Make one clear line of whatever a parser says about a file."""
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError:
        advice = "Save a CSV file as UTF-8, and read any other kind of file with its own reader"
        raise InputError(f"cannot read {file} as {kind}: it is not text in UTF-8. {advice}.") from None
    except UNREADABLE as error:
        raise InputError(f"cannot read {file} as {kind}: {_first_line(error)}.") from None


def _first_line(error: BaseException) -> str:
    """What an error says, as part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


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
    if names and str(target) not in names and all(_number(name) is not None for name in names):
        raise InputError(
            f"the first row of {file} holds only numbers, so the names of the columns seem to be missing: put them in a first row, "
            "or set header=False (problem.header=false on the command line) and choose columns by position."
        )


def _from_frame(frame: pd.DataFrame, *, target: Column | None, features: Columns, where: str, source: str) -> Table:
    """The chosen columns of a data frame as numbers; `where` names the data in messages."""
    names = _column_names(frame, where)
    if target is None:
        raise InputError(
            f"no target given: say which column to predict with target=COLUMN (problem.target=COLUMN on the command line). "
            f"Columns of {where}: {_listed(names)}."
        )
    aim = _position(target, names, where)
    chosen = [j for j in range(len(names)) if j != aim] if features is None else _chosen(features, aim, names, where)
    if not len(frame):
        raise InputError(f"{where} has columns but no rows of data.")
    columns = {j: _numbers(frame.iloc[:, j]) for j in [*chosen, aim]}
    for j, (_, bad) in columns.items():
        if bad is not None:
            raise _not_numeric(frame, j, bad, is_target=j == aim, where=where)
    return _checked(
        features=np.column_stack([columns[j][0] for j in chosen]) if chosen else np.empty((len(frame), 0)),
        target=columns[aim][0],
        feature_names=tuple(names[j] for j in chosen),
        target_name=names[aim],
        where=where,
        source=source,
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


def _position(given: Column, names: list[str], where: str) -> int:
    """Where the column `given` stands, by its name, or else by its position."""
    name = str(given).strip()
    if name in names:
        return names.index(name)
    if re.fullmatch(r"-?\d+", name):
        if -len(names) <= int(name) < len(names):
            return int(name) % len(names)
        raise InputError(f"{where} has no column {name}: positions run from 0 to {len(names) - 1}. Columns: {_listed(names)}.")
    near = _nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    raise InputError(f"{where} has no column {name!r}.{hint} Columns: {_listed(names)}.")


def _chosen(features: Sequence[Column] | Column, aim: int, names: list[str], where: str) -> list[int]:
    """The positions of the features asked for, in that order."""
    asked = [features] if isinstance(features, str | int) else list(features)
    positions = [_position(given, names, where) for given in asked]
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
    values = [math.nan if absent else _number(value) for value, absent in zip(column, missing, strict=True)]
    if None in values:
        return np.empty(0), values.index(None)
    return np.array(values, dtype=np.float64), None


def _number(value: Any) -> float | None:
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
        "choose another target (problem.target on the command line)"
        if is_target
        else "leave it out by naming the columns to use in features (problem.features on the command line)"
    )
    return InputError(
        f"column {names[position]!r} of {where} is not numeric: row {row + 1} holds {shown!r}{comma}. Encode it as numbers, or {instead}. "
        f"Other columns that are numeric: {_listed(numeric)}."
    )


def _array(arrays: Any, name: str, file: Path) -> np.ndarray:
    """One array of an npz file as float64."""
    if str(name) not in arrays.files:
        raise unknown_name(f"array in {file}", str(name), arrays.files)
    array = arrays[str(name)]
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name!r} in {file} is not numeric: its dtype is {array.dtype}. Save it as an array of numbers.")
    return array.astype(np.float64)


def _checked(
    *, features: np.ndarray, target: np.ndarray, feature_names: tuple[str, ...], target_name: str, where: str, source: str
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
    return Table(features=features, target=target, feature_names=feature_names, target_name=target_name, source=source)


def _not_finite(name: str, values: np.ndarray, where: str) -> InputError:
    """Say how many numbers of a column are missing or infinite, and where the first stands."""
    missing = np.isnan(values)
    bad, what = (missing, "missing (NaN)") if missing.any() else (np.isinf(values), "infinite (inf, or beyond 1.8e308)")
    count = int(bad.sum())
    return InputError(
        f"column {name!r} of {where}: {count} of {len(values)} values {'is' if count == 1 else 'are'} {what}, the first in row "
        f"{int(bad.argmax()) + 1}. Fill them in, remove those rows, or leave the column out."
    )


def _nearest(given: str, names: Sequence[str]) -> str | None:
    """The name most like `given`, whatever its case; None where none is like it."""
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.5)
    return folded[near[0]] if near else None


def _listed(names: Sequence[str]) -> str:
    """Names for a message of one line, at most `MAX_LISTED` of them."""
    more = len(names) - MAX_LISTED
    return ", ".join(" ".join(name.split()) for name in names[:MAX_LISTED]) + (f", and {more} more" if more > 0 else "") or "none"
