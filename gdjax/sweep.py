"""Many runs as one XLA program per shape, and their results as labelled arrays."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Int, PyTree

from gdjax import methods, program, samplers
from gdjax.descent import DIVERGENCE_BOUND
from gdjax.plan import Grid, Recipe
from gdjax.records import InputError, Measurement, Problem, whole

MOST_RECORDS = 1000
"""About how many records a run keeps when `record_every` is not given: every step of a short run, what a figure can show of a long."""


@dataclass(frozen=True)
class Axis:
    """The values of one keyword; `swept` when they were given as a sequence, even of one."""

    name: str
    values: np.ndarray
    swept: bool = False


def sweep(
    problem: Problem | Callable[..., Problem],
    *,
    method: str | Callable[..., Any] = "sgd",
    sampler: str | samplers.Sampler = "reshuffled",
    num_steps: int | None = None,
    num_epochs: float | None = None,
    record_every: int | None = None,
    start: PyTree = None,
    precision: str = "float64",
    memory_budget: int = 4 * 2**30,
    observer: program.Observer | None = None,
    **axes: Any,
) -> xr.Dataset:
    """Run gradient descent for every combination of the axes.

    Parameters
    ----------
    problem
        A `Problem`, or a function of numbers that builds one: its parameters are then axes too, and it is built inside the program.
    method
        The name of an optax optimizer or of one in `gdjax.methods`, or a callable learning_rate -> optimizer. Define a callable once,
        at module level: a new function object is a new program.
    sampler
        "full", "reshuffled", "without_replacement", "with_replacement", or a `samplers.Sampler`.
    num_steps, num_epochs
        How long every run is; exactly one of them. A run of a batch size that needs fewer steps for its epochs than another keeps its
        last values to the end of the `step` dimension, where its `epoch` stands still.
    record_every
        Steps between records; by default so many that a run keeps about 1,000. The last step is always recorded.
    start
        Where runs begin, if not at the problem's own start.
    memory_budget
        Bytes that the blocks in flight may take together; a larger sweep is cut, with equal results.
    observer
        Is told of compile times and of progress.
    axes
        `learning_rate`, any other number of the method, `batch_size` (default 32, or n if smaller), `seed` (default 0) and the
        numbers of a problem's builder. A sequence or an array makes a dimension, a scalar a scalar coordinate.

    Returns
    -------
    Dimensions are the swept axes in keyword order, then `step`. Variables: `objective`, `suboptimality`, `gradient_norm`, `distance`,
    `diverged_at` (the first recorded step whose objective is not finite or above `attrs["divergence_bound"]` times the objective at
    the start; -1 if none), `params` (final).

    Raises
    ------
    InputError
        For a name or a value that is not allowed.

    >>> from gdjax import problems
    >>> ds = sweep(problems.notebook_line(), sampler="full", num_steps=400, learning_rate=[0.01, 0.05])
    >>> ds.objective.dims, ds.diverged_at.values.tolist()
    (('learning_rate', 'step'), [-1, 8])
    """
    roles = _roles(problem, method, sampler, axes)
    lengths = _lengths(roles, num_steps=num_steps, num_epochs=num_epochs)
    grid = Grid(
        problem=roles.example,
        start=_start(start, roles.example),
        members=_product(roles.members),
        batch_sizes=roles.batch_sizes,
        seeds=[int(seed) for seed in roles.streams["seed"].values] if roles.sampler else [0],
        numbers=_product(roles.lanes),
        lengths=lengths,
        steps=record_steps(lengths, record_every),
    )
    recipe = Recipe(method=roles.method, build=roles.build, sampler=roles.sampler, dtype=_checked_precision(precision))
    results = program.run(grid, recipe, budget=memory_budget, observer=observer or program.Observer())
    dataset = _dataset(results, grid, roles)
    how_long = {"num_steps": num_steps} if num_epochs is None else {"num_epochs": num_epochs}
    dataset.attrs = _description(roles) | how_long | {"record_every": record_every or "default", "precision": precision}
    return dataset


@dataclass(frozen=True, kw_only=True)
class _Roles:
    """What each keyword of a sweep is for."""

    example: Problem  # the problem, or the one of the first member
    build: Callable[..., Problem] | None
    method: methods.Method
    sampler: samplers.Sampler | None  # None where every step takes the full gradient
    members: dict[str, Axis]
    streams: dict[str, Axis]
    lanes: dict[str, Axis]
    order: list[str]  # of the swept axes

    @property
    def batch_sizes(self) -> list[int]:
        return [int(batch) for batch in self.streams["batch_size"].values] if self.sampler else [self.example.num_examples]


def _roles(problem: Problem | Callable[..., Problem], method: Any, sampler: Any, axes: dict[str, Any]) -> _Roles:
    if not isinstance(problem, Problem) and not callable(problem):
        raise InputError(
            f"problem={problem!r} is not allowed: it is a Problem (see gdjax.problems), or a function of numbers that builds one."
        )
    given = {name: _axis(name, values) for name, values in axes.items()}
    build = None if isinstance(problem, Problem) else problem
    built_from = tuple(inspect.signature(build).parameters) if build else ()
    if taken := {"batch_size", "seed", "step", "parameter", "epoch"} & set(built_from):
        raise InputError(f"the problem is built from {min(taken)}, a name that every sweep has a use for: give the builder another.")
    members = {name: axis for name, axis in given.items() if name in built_from}
    allowed = ("batch_size", "seed", *built_from)
    resolved, traced = methods.resolve(method, {name: axes[name] for name in given if name not in allowed}, also=allowed)
    example = problem if isinstance(problem, Problem) else _first_member(problem, members)
    draw = samplers.resolve(sampler)
    full = draw is samplers.full or not jax.tree.leaves(example.data)
    default = example.num_examples if full else min(32, example.num_examples)
    streams = {name: given.get(name, Axis(name, np.asarray([value]))) for name, value in (("batch_size", default), ("seed", 0))}
    lanes = {name: given[name] for name in traced}
    _check_values(streams, lanes, example.num_examples, full=full)
    return _Roles(
        example=example,
        build=build,
        method=resolved,
        sampler=None if full else draw,
        members=members,
        streams=streams,
        lanes=lanes,
        order=[name for name in given if given[name].swept],
    )


def _first_member(build: Callable[..., Problem], members: dict[str, Axis]) -> Problem:
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.default is parameter.empty and name not in members:
            raise InputError(f"the problem is built from {name}, which is not given: give {name}=..., a number or a sequence of numbers.")
    built = build(**{name: float(axis.values[0]) for name, axis in members.items()})
    if not isinstance(built, Problem):
        raise InputError(f"the function that builds the problem gave {built!r}: it must give a Problem (see gdjax.problems).")
    return built


def _axis(name: str, values: Any) -> Axis:
    if callable(values) or (isinstance(values, str | bool) and name not in ("batch_size", "seed")):
        return Axis(name, np.asarray([str(values)]))
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty((0, 0), object)
    if array.ndim > 1 or (not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)) and array.size):
        raise InputError(f"{name}={values!r} is not allowed: an axis is a number, or a sequence of numbers.")
    if array.size == 0:
        raise InputError(f"{name} is empty: give at least one value.")
    if not np.isfinite(array).all():
        raise InputError(f"{name}={values!r} is not allowed: every value must be finite.")
    return Axis(name, np.atleast_1d(array), swept=array.ndim == 1)


def _check_values(streams: dict[str, Axis], lanes: dict[str, Axis], num_examples: int, *, full: bool) -> None:
    for axis in lanes.values():
        if axis.name.endswith("learning_rate") and (axis.values < 0).any():
            raise InputError(f"{axis.name}={_first(axis.values[axis.values < 0])} is not allowed: a rate is 0 or more.")
    batch = streams["batch_size"].values
    bad = (batch < 1) | (batch != np.floor(batch)) | (batch > (np.inf if full else num_examples))
    if bad.any():
        raise InputError(
            f"batch_size={_first(batch[bad])} is not allowed: it is a whole number from 1 to n = {num_examples}, the number of examples."
        )
    for seed in streams["seed"].values:
        samplers.generator(seed)


def _first(values: np.ndarray) -> str:
    return f"{values[0]:g}"


def _lengths(roles: _Roles, *, num_steps: int | None, num_epochs: float | None) -> list[int]:
    """How many steps the runs of each batch size take."""
    if (num_steps is None) == (num_epochs is None):
        raise InputError(f"give exactly one of num_steps and num_epochs; given num_steps={num_steps}, num_epochs={num_epochs}.")
    if num_steps is not None:
        return [whole("num_steps", num_steps)] * len(roles.batch_sizes)
    if not (isinstance(num_epochs, int | float | np.number) and 0 < num_epochs < math.inf):
        raise InputError(f"num_epochs={num_epochs} is not allowed: it is a number above 0.")
    if roles.sampler is None:
        return [math.ceil(num_epochs)]
    return [samplers.steps_for(roles.sampler, float(num_epochs), roles.example.num_examples, batch) for batch in roles.batch_sizes]


def record_steps(lengths: Sequence[int], record_every: int | None) -> Int[np.ndarray, " records"]:
    """When to record: the start, every `record_every` steps, and the last step of each run.

    By default each length is cut into equal parts, so many that all lengths together make about `MOST_RECORDS` records.

    >>> record_steps([10], 4).tolist()
    [0, 4, 8, 10]
    """
    most = max(1, MOST_RECORDS // len(set(lengths)))
    every = None if record_every is None else whole("record_every", record_every)
    grids = [np.append(np.arange(0, length, every or math.ceil(length / most)), length) for length in set(lengths)]
    return grids[0] if len(grids) == 1 else np.unique(np.concatenate(grids))


def _checked_precision(precision: str) -> str:
    if precision not in ("float32", "float64"):
        raise InputError(f"precision={precision!r} is not allowed: it is float32 or float64.")
    return precision


def _start(start: PyTree, example: Problem) -> PyTree:
    if start is None:
        return None
    if isinstance(start, list | tuple) and isinstance(example.start, np.ndarray | jax.Array):
        start = np.asarray(start, dtype=float)
    given = jax.tree.map(lambda leaf: np.asarray(leaf, dtype=float), start)
    wanted = jax.tree.map(np.shape, example.start)
    if jax.tree.structure(given) != jax.tree.structure(example.start) or jax.tree.map(np.shape, given) != wanted:
        raise InputError(f"start has shape {jax.tree.map(np.shape, given)}; the parameters of {example.name} have {wanted}.")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(given)):
        raise InputError("start holds NaN or infinite entries: every run would begin diverged.")
    return given


def _product(axes: dict[str, Axis]) -> dict[str, np.ndarray]:
    """One column for each axis, one row for each combination, the last axis fastest."""
    columns = np.meshgrid(*[axis.values.astype(float) for axis in axes.values()], indexing="ij") if axes else []
    return {name: column.ravel() for name, column in zip(axes, columns, strict=True)}


def _dataset(results: program.Results, grid: Grid, roles: _Roles) -> xr.Dataset:
    laid_out = roles.members | roles.streams
    names = (*laid_out, "step", *roles.lanes)

    def labelled(array: np.ndarray, last: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
        """Give every swept axis its dimension; a result that no batch size or seed has a say in is the same for all of them."""
        before, after = ([len(axis.values) for axis in group.values()] for group in (roles.members, roles.lanes))
        array = array.reshape(*before, *array.shape[1 : array.ndim - 1], *after)
        here = [name for name in names if name != "step"]
        here[len(laid_out) : len(laid_out)] = last
        sizes = [len(roles.streams[name].values) if name in roles.streams else size for name, size in zip(here, array.shape, strict=True)]
        array = np.broadcast_to(array, sizes) if sizes != list(array.shape) else array
        kept = (*roles.order, *last)
        array = array[tuple(slice(None) if name in kept else 0 for name in here)]
        left = [name for name in here if name in kept]
        return kept, array.transpose([left.index(name) for name in kept])

    variables = {name: labelled(results.records[..., number, :], ("step",)) for number, name in enumerate(Measurement._fields)}
    variables["diverged_at"] = labelled(results.diverged_at, ())
    variables["params"] = labelled(results.params, ("parameter",))
    axes = roles.members | roles.streams | roles.lanes
    coordinates: dict[str, Any] = {name: (name, axis.values) if axis.swept else axis.values[0] for name, axis in axes.items()}
    coordinates |= {"step": grid.steps, "parameter": _parameter_names(roles.example), "epoch": _epochs(grid, roles)}
    return xr.Dataset(variables, coordinates)


def _epochs(grid: Grid, roles: _Roles) -> tuple[tuple[str, ...], np.ndarray]:
    """Examples seen / n at each record."""
    if roles.sampler is None:
        return ("step",), grid.steps.astype(float)
    n = grid.problem.num_examples
    rows = []
    for batch, length in zip(grid.batch_sizes, grid.lengths, strict=True):
        seen = samplers.examples_seen(roles.sampler, length, n, batch)
        rows.append(np.concatenate([[0], seen])[np.minimum(grid.steps, length)] / n)
    return (("batch_size", "step"), np.stack(rows)) if roles.streams["batch_size"].swept else (("step",), rows[0])


def _parameter_names(problem: Problem) -> list[str]:
    if problem.parameter_names is not None:
        return list(problem.parameter_names)
    leaves = jax.tree_util.tree_leaves_with_path(problem.start)
    return [
        jax.tree_util.keystr(path) + (f"[{','.join(map(str, index))}]" if index else "")
        for path, leaf in leaves
        for index in np.ndindex(np.shape(leaf))
    ]


def _description(roles: _Roles) -> dict[str, Any]:
    """What is needed to repeat the sweep, and the problem's constants where there is one problem."""
    known = {name: getattr(roles.example, name) for name in ("minimum", "smoothness", "strong_convexity", "condition_number")}
    return {
        "problem": roles.example.name,
        "num_examples": roles.example.num_examples,
        "method": roles.method.name,
        **{name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in roles.method.settings},
        "sampler": getattr(roles.sampler, "__name__", "custom") if roles.sampler else "full",
        "divergence_bound": DIVERGENCE_BOUND,
        **({} if roles.build else {name: float(value) for name, value in known.items() if value is not None}),
    }
