"""A multirun as one result: labelled arrays over all jobs, and a table of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gdjax import store


class Archive:
    """The results of a multirun, group by group, on disk after every batch of jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fresh: dict[str, xr.Dataset] = {}  # lists of runs that are not on disk yet
        self.first: dict[str, xr.Dataset] = {}  # arranged, of a multirun that has had one batch
        self.parts: dict[str, list[xr.Dataset]] = {}  # all lists of runs so far: a file of several groups can only be written anew
        self.num_batches = 0

    def add(self, name: str, results: xr.Dataset, numbers: Mapping[str, np.ndarray], nums: Sequence[int]) -> None:
        """Take in what the jobs of a group left; `results` has one entry along `job` for each."""
        labels = {label(key, numbers): column for key, column in numbers.items()}
        named = results.assign_coords({key: ("job", column) for key, column in labels.items()} | {"job": np.asarray(nums)})
        self.fresh[name] = named
        self.first[name] = arranged(named, labels)

    def save(self) -> None:
        """Write `sweep.zarr`: dimensions where one batch was a product, and a list that grows from the second batch on."""
        if not self.fresh:
            return
        self.num_batches += 1
        for name, part in self.fresh.items():
            self.parts.setdefault(name, []).append(part)
        if self.num_batches == 1:
            self._write(self.first)
        elif self.num_batches > 2 and len(self.parts) == 1:
            (more,) = self.fresh.values()
            more.to_zarr(self.folder / "sweep.zarr", append_dim="job", consolidated=True)
        else:
            self._write({name: _together(parts) for name, parts in self.parts.items()})
        self.fresh = {}

    def _write(self, groups: Mapping[str, xr.Dataset]) -> None:
        whole = next(iter(groups.values())) if len(groups) == 1 else xr.DataTree.from_dict(dict(groups))
        store.save_sweep(self.folder, whole)


def _together(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else xr.concat(parts, dim="job")


def arranged(named: xr.Dataset, labels: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Give each number a dimension where the runs are all combinations of some values, in any order; otherwise leave them a list.

    A number that all runs share becomes a scalar coordinate; `job` tells each run's job.

    >>> runs = xr.Dataset({"f": ("job", [1.0, 2.0, 3.0, 4.0])}, {"job": [0, 1, 2, 3]})
    >>> arranged(runs, {"x": np.array([1, 1, 2, 2]), "y": np.array([5, 6, 5, 6])}).f.sel(x=2, y=5).item()
    3.0
    """
    coded = {name: _coded(column) for name, column in labels.items()}
    dims = {name: len(values) for name, (values, _) in coded.items() if len(values) > 1}
    num_runs = named.sizes["job"]
    if math.prod(dims.values()) != num_runs:
        return named
    flat = np.ravel_multi_index([coded[name][1] for name in dims], list(dims.values())) if dims else np.zeros(1, int)
    order = np.argsort(flat, kind="stable")
    if (flat[order] != np.arange(num_runs)).any():
        return named
    in_order = (order == np.arange(num_runs)).all()

    def folded(variable: xr.Variable) -> tuple[tuple[Any, ...], np.ndarray]:
        if "job" not in variable.dims:
            return variable.dims, variable.values
        array = variable.values if in_order else variable.values[order]
        return (*dims, *variable.dims[1:]), array.reshape((*dims.values(), *array.shape[1:]))

    coordinates = {str(name): _without_repetition(*folded(named[name].variable), dims) for name in named.coords if name not in labels}
    coordinates |= {name: (name, values) if name in dims else values[0] for name, (values, _) in coded.items()}
    return xr.Dataset({name: folded(array.variable) for name, array in named.data_vars.items()}, coordinates, named.attrs)


def label(key: str, among: Iterable[str]) -> str:
    """The last part of a key, or all of it where two keys end alike."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in among) == 1 else key


def write_jobs(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `jobs.csv`: a row for each job."""
    columns = dict.fromkeys(key for row in rows for key in row)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [key for key in columns if key != "overrides"] + ["overrides"], restval="")
        table.writeheader()
        table.writerows(rows)


def _coded(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values in order of appearance, and each entry's place among them."""
    values, first, which = np.unique(column, return_index=True, return_inverse=True)
    appearance = np.argsort(first)
    return values[appearance], np.argsort(appearance)[which.ravel()]


def _without_repetition(dims: tuple[Any, ...], array: np.ndarray, swept: Iterable[str]) -> tuple[tuple[Any, ...], np.ndarray]:
    """A coordinate without the dimensions along which it never changes."""
    kept = []
    for dim in dims:
        axis = len(kept)
        if dim in swept and (array == np.take(array, [0], axis=axis)).all():
            array = np.take(array, 0, axis=axis)
        else:
            kept.append(dim)
    return tuple(kept), array
