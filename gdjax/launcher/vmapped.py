"""Run a task written in JAX for all jobs of a batch at once, by `jax.vmap`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr
from omegaconf import DictConfig, OmegaConf

from gdjax.launcher.batch import Batch, Outcome, Reader
from gdjax.records import InputError


def vmapped(task: Callable[..., Any], readers: Mapping[str, Reader]) -> Callable[[Batch], Outcome]:
    """Make a function of batches out of a function of one job.

    Programs are kept for the process's life, by settings and a length that is filled up to a power of 2: the batches of a search
    differ in length. Where the device has too little memory, the batch is halved until it fits.
    """
    programs: dict[str, Any] = {}

    def program(settings: DictConfig, absent: tuple[str, ...]) -> Any:
        key = repr((OmegaConf.to_container(settings, throw_on_missing=False), absent))
        if key not in programs:
            nothing = {_argument(name): None for name in absent}
            programs[key] = jax.jit(jax.vmap(lambda numbers: task(settings, **numbers, **nothing)))
        return programs[key]

    def call(batch: Batch) -> Any:
        columns = {_argument(key): _filled(_checked(key, column)) for key, column in batch.numbers.items()}
        if not columns:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[None], task(batch.settings, **{_argument(key): None for key in readers}))
        absent = tuple(key for key in readers if key not in batch.numbers)
        try:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(batch)], program(batch.settings, absent)(columns))
        except jax.errors.JaxRuntimeError as failure:
            if len(batch) == 1 or not re.search("RESOURCE_EXHAUSTED|out of memory", str(failure), re.IGNORECASE):
                raise
        half = len(batch) // 2
        return jax.tree.map(lambda *parts: np.concatenate(parts), call(batch.part(slice(half))), call(batch.part(slice(half, None))))

    def run(batch: Batch) -> Outcome:
        returned = call(batch)
        leaves = jax.tree.leaves(returned)
        if not leaves:
            return Outcome(values=[returned] * len(batch))
        lists = [leaf.tolist() if leaf.ndim == 1 else list(leaf) for leaf in leaves]
        structure = jax.tree.structure(returned)
        values = [jax.tree.unflatten(structure, row) for row in zip(*lists, strict=True)]
        return Outcome(values=values, results=_labelled(returned))

    return run


def _argument(key: str) -> str:
    return key.rpartition(".")[2]


def _checked(key: str, column: np.ndarray) -> np.ndarray:
    """JAX cuts whole numbers off at 32 bits unless it is told not to; a seed that becomes another one is refused."""
    held = jax.dtypes.canonicalize_dtype(column.dtype)
    if np.issubdtype(held, np.integer) and (column != column.astype(held)).any():
        worst = column[np.abs(column).argmax()]
        raise InputError(f"{key}={worst} is not allowed: it does not fit {held}. Take a smaller one, or set JAX_ENABLE_X64=1.")
    return column


def _filled(column: np.ndarray) -> np.ndarray:
    length = 2 ** (len(column) - 1).bit_length()
    return np.concatenate([column, np.repeat(column[-1:], length - len(column))])


def _labelled(returned: Any) -> xr.Dataset:
    """One variable for each array returned, named by its place."""
    variables = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(returned):
        name = ".".join(str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part)))) for part in path)
        name = "objective" + (f"_{name}" if name.isdigit() else "") if not name or name.isdigit() else name
        variables[name] = (("job", *(f"{name}_{axis}" for axis in range(leaf.ndim - 1))), leaf)
    return xr.Dataset(variables)
