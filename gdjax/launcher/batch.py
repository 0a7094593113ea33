"""A task that many jobs can share: what it is given, what it gives back, and the decorator that declares its numbers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from omegaconf import DictConfig, OmegaConf

from gdjax.records import InputError, whole

Reader = Callable[[str, Any], int | float]
"""(key, value from the configuration) -> the number, or an `InputError`."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs that differ in declared numbers alone."""

    settings: DictConfig  # of all jobs, resolved; where the numbers belong, ??? says so to whoever reads one from here
    numbers: dict[str, np.ndarray]  # by key; one entry a job

    def __len__(self) -> int:
        return max([len(column) for column in self.numbers.values()], default=1)

    def part(self, jobs: slice) -> Batch:
        """The same for some of the jobs."""
        return replace(self, numbers={key: column[jobs] for key, column in self.numbers.items()})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a batch leaves behind."""

    values: Sequence[Any]  # what each job's task returns
    results: xr.Dataset | None = None  # all that was measured; its first dimension is `job`


@dataclass(frozen=True, kw_only=True)
class Batchable:
    """How jobs of a task run together.

    A task may be batchable for some settings only, and may declare more numbers than it names once its settings are known.
    """

    numbers: Mapping[str, Reader]
    run: Callable[[Batch], Outcome]
    accepts: Callable[[DictConfig], bool]
    also: Callable[[DictConfig, str], Reader | None] | None = None  # (settings, key) -> how to read it, or None for no number
    check: Callable[[Batch], None] | None = None  # refuses, before anything runs, what `run` would refuse
    ran: Callable[[Path, str, DictConfig], None] | None = None  # is told of each group of jobs: the multirun's folder, its name, settings


def number(key: str, value: Any) -> float:
    """Read any number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(f"{key}={value} is not allowed: it is a number.")
    return float(value)


def integer(key: str, value: Any) -> int:
    """Read a whole number."""
    return whole(key, value, least=-(2**63))


def _always(settings: DictConfig) -> bool:
    return True


def batchable(
    *keys: Mapping[str, Any],
    run: Callable[[Batch], Outcome] | None = None,
    accepts: Any = _always,
    also: Any = None,
    check: Any = None,
    ran: Any = None,
    **numbers: Any,
) -> Callable[[Callable[..., Any]], Callable[[DictConfig], Any]]:
    """Let jobs that differ in these numbers alone run as one program.

    Below `@hydra.main`, above a task written in JAX that takes its configuration and then the numbers by keyword. It returns a number
    (the objective, which a sweeper sees), several of them, or a dict of arrays with an entry `objective`. What the task prints or logs
    it does once for all jobs, when it is traced.

    Parameters
    ----------
    keys
        For keys with dots, a mapping from key to kind: `batchable({"optimizer.momentum": float})`; the task takes the last part.
    run
        Runs a whole batch, for a task that has no need of vmap; the task itself then takes the configuration alone.
    accepts
        Of settings: whether jobs with them can run together; by default all can.
    also
        Of settings and a key: how to read the key's number, or None where it is none; for keys that `numbers` leaves out.
    check
        Raises an `InputError` for a batch that makes no sense; it is asked of every batch before the first runs.
    ran
        Is told of each group of jobs that has run: the multirun's folder, the group's name in its results, the settings.
    numbers
        Key and kind: `float`, `int`, or a function of key and value that gives the number or raises `InputError`.

    Raises
    ------
    InputError
        For a kind that is none, a key that the task does not take, or a decorator above `@hydra.main`.

    >>> @batchable(learning_rate=float)
    ... def task(settings, learning_rate):
    ...     return learning_rate**2 + settings.offset
    >>> float(task(OmegaConf.create({"offset": 1.0, "learning_rate": 3.0})))
    10.0
    """
    readers = {key: _reader(key, kind) for given in (*keys, numbers) for key, kind in given.items()}

    def declare(task: Callable[..., Any]) -> Callable[[DictConfig], Any]:
        if getattr(getattr(task, "__code__", None), "co_filename", "").replace("\\", "/").endswith("hydra/main.py"):
            raise InputError("put @batchable below @hydra.main, so that Hydra sees it.")
        if run is None:
            _check_signature(task, readers)
            from gdjax.launcher.vmapped import vmapped

            chosen = vmapped(task, readers)
        else:
            chosen = run
        spec = Batchable(numbers=readers, run=chosen, accepts=accepts, also=also, check=check, ran=ran)

        @functools.wraps(task)
        def alone(settings: DictConfig) -> Any:
            if run is not None:
                return task(settings)
            (value,) = chosen(one(settings, spec)).values
            return value

        vars(alone)["batchable"] = spec  # Hydra hands the launcher this function
        return alone

    return declare


def of_task(task: Any) -> Batchable | None:
    """What a task declares of its numbers; None where it declares none."""
    return getattr(task, "batchable", None)


def one(settings: DictConfig, spec: Batchable) -> Batch:
    """A batch of one job."""
    resolved = settings.copy()
    OmegaConf.resolve(resolved)
    found = dict(declared(resolved, spec))
    return Batch(settings=masked(resolved, found), numbers={key: np.asarray([value]) for key, value in found.items()})


def declared(resolved: DictConfig, spec: Batchable) -> Iterator[tuple[str, int | float]]:
    """The declared numbers that resolved settings hold; a null is none."""
    for key, read in spec.numbers.items():
        value = OmegaConf.select(resolved, key, default=None)
        if value is not None:
            yield key, read(key, value)


def masked(resolved: DictConfig, keys: Any) -> DictConfig:
    """The settings without the values of those keys."""
    for key in keys:
        OmegaConf.update(resolved, key, "???", merge=False)
    return resolved


def _reader(key: str, kind: Any) -> Any:
    known: dict[Any, Reader] = {float: number, int: integer}
    if kind in known:
        return known[kind]
    if not callable(kind):
        raise InputError(f"{key}={kind!r} is not allowed: a declared number is float, int, or a function of key and value.")
    return kind  # pyright: ignore[reportReturnType]


def _check_signature(task: Callable[..., Any], readers: Mapping[str, Reader]) -> None:
    names = [key.rpartition(".")[2] for key in readers]
    taken = inspect.signature(task).parameters.values()
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two declared numbers are called {min(twice)}: the task could not tell them apart.")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return
    if missing := set(names) - {parameter.name for parameter in list(taken)[1:]}:
        raise InputError(f"the task {task.__name__} is declared to have {min(missing)}, but does not take it: add it to the signature.")
