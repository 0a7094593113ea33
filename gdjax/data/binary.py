"""Readers of binary files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gdjax.data.files import FilePath, existing, reading
from gdjax.data.frames import Column, Columns, from_frame
from gdjax.data.table import Table, checked, numbered
from gdjax.records import InputError, unknown_name


def parquet(path: FilePath, *, target: Column | None = None, features: Columns = None, labels: bool = False) -> Table:
    """Read a Parquet file; with `labels` a target of text names classes, as in `csv`."""
    from pyarrow.parquet import ParquetFile

    file = existing(path)
    with reading(file, "Parquet"), ParquetFile(file) as opened:
        frame = opened.read().to_pandas()
    return from_frame(frame, target=target, features=features, labels=labels, where=str(file), source=f"parquet: {file.name}")


def npz(path: FilePath, *, target: str = "y", features: str = "X", labels: bool = False) -> Table:
    """Read two arrays of a file that `numpy.savez` wrote: `features` (n, p), or (n,) for one feature, and `target` (n,).

    With `labels` a target of text names classes, as in `csv`.
    """
    file = existing(path)
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file} is no npz file, or not a whole one: save both arrays in one with numpy.savez(path, X=..., y=...).")
    # Opened here, since numpy leaves a corrupt file open.
    with reading(file, "npz"), file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        x, y = _array(arrays, features, file), _array(arrays, target, file, texts=labels)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise InputError(f"{features!r} in {file} has shape {x.shape}: give one row an example, (n, p), or (n,) for one feature.")
    if y.ndim != 1 and y.shape[1:] != (1,):
        raise InputError(f"{target!r} in {file} has shape {y.shape}: give one number an example, (n,).")
    class_names: tuple[str, ...] = ()
    if y.dtype.kind == "U":
        y, class_names = numbered(y.reshape(-1).tolist())
    if len(x) != len(y):
        raise InputError(f"{features!r} has {len(x)} rows and {target!r} has {len(y)} in {file}: they must be as many.")
    return checked(
        features=x,
        target=y.reshape(-1),
        feature_names=tuple(f"{features}_{j}" for j in range(x.shape[1])),
        target_name=target,
        where=str(file),
        source=f"npz: {file.name}",
        class_names=class_names,
    )


def _array(arrays: Any, name: str, file: Path, *, texts: bool = False) -> np.ndarray:
    """One array of an npz file as float64, or as it is where it may be text and is."""
    if str(name) not in arrays.files:
        raise unknown_name(f"array in {file}", str(name), arrays.files)
    array = arrays[str(name)]
    if texts and array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name!r} in {file} is not numeric: its dtype is {array.dtype}. Save it as an array of numbers.")
    return array.astype(np.float64)
