"""Many runs as one XLA program per shape, and their results as labelled arrays."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Int, PyTree

from gdjax import facts, methods, program, samplers, stopping
from gdjax.descent import DIVERGENCE_BOUND
from gdjax.plan import Grid, Recipe
from gdjax.records import InputError, Measurement, Problem, whole

MOST_RECORDS = 1000
"""About how many records a run keeps when `record_every` is not given: every step of a short run, what a figure can show of a long."""

MOST_RECORDED_BYTES = 2**29
"""What the records of all runs may take when `record_every` is not given."""

PADDED_RUNS = 1024
"""Lists of runs up to this length are filled up to powers of 2: a compilation takes longer than the runs that are not needed."""


@dataclass(frozen=True)
class Axis:
    """The values of one keyword along a dimension, or one value along none."""

    name: str
    values: np.ndarray
    dim: str | None = None


def sweep(
    problem: Problem | Callable[..., Problem],
    *,
    method: str | Callable[..., Any] = "sgd",
    sampler: str | samplers.Sampler = "reshuffled",
    num_steps: int | None = None,
    num_epochs: float | None = None,
    record_every: int | None = None,
    start: PyTree = None,
    stop: str | stopping.Rule | None = None,
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
    stop
        When runs end early: a rule of `gdjax.stopping`, or its name. It looks at the records, so `record_every` says how often.
    memory_budget
        Bytes that the blocks in flight may take together; a larger sweep is cut, with equal results.
    observer
        Is told of compile times and of progress.
    axes
        `learning_rate`, any other number of the method, `batch_size` (default 32, or n if smaller), `seed` (default 0) and the
        numbers of a problem's builder. A sequence or an array makes a dimension, a scalar a scalar coordinate. Axes given as
        `xarray.DataArray` of one dimension go together along it: `learning_rate=DataArray([0.1, 0.2], dims="run")` and
        `seed=DataArray([3, 7], dims="run")` are two runs, not four.

    Returns
    -------
    Dimensions are those of the axes in keyword order, then `step`. Variables: `objective`, `suboptimality`, `gradient_norm`, `distance`,
    `diverged_at` (the first recorded step whose objective is not finite or above `attrs["divergence_bound"]` times the objective at
    the start; -1 if none), `params` (final). With `stop` also `stopped_at` (the recorded step at which the rule stopped the run; -1 if
    it didn't) and, for a rule that keeps the best iterate, `best_step`, the recorded step whose iterate `params` then are. A run that
    has ended keeps its last values to the end of the `step` dimension.

    Raises
    ------
    InputError
        For a name or a value that is not allowed.

    >>> from gdjax import problems
    >>> ds = sweep(problems.notebook_line(), sampler="full", num_steps=400, learning_rate=[0.01, 0.05])
    >>> ds.objective.dims, ds.diverged_at.values.tolist()
    (('learning_rate', 'step'), [-1, 8])
    """
    length: Any = {"num_steps": num_steps, "num_epochs": num_epochs, "record_every": record_every}
    roles, grid, recipe = _planned(problem, method, sampler, axes, start=start, stop=stop, precision=precision, **length)
    run = functools.partial(program.run, recipe=recipe, budget=memory_budget, observer=observer or program.Observer())
    variables = _of_a_product(run(grid), roles) if roles.is_product else _of_a_list(run, grid, roles)
    dataset = xr.Dataset(variables, _coordinates(grid, roles))
    how_long = {"num_steps": num_steps} if num_epochs is None else {"num_epochs": num_epochs}
    dataset.attrs = _description(roles, grid.start) | how_long | {"record_every": record_every or "default", "precision": precision}
    if grid.rule is not None:
        dataset.attrs |= {"stop": stopping.described(grid.rule)}
    return dataset


def check(
    problem: Problem | Callable[..., Problem],
    *,
    method: str | Callable[..., Any] = "sgd",
    sampler: str | samplers.Sampler = "reshuffled",
    num_steps: int | None = None,
    num_epochs: float | None = None,
    record_every: int | None = None,
    start: PyTree = None,
    stop: str | stopping.Rule | None = None,
    precision: str = "float64",
    **axes: Any,
) -> None:
    """Refuse what `sweep` would refuse, and run nothing."""
    length: Any = {"num_steps": num_steps, "num_epochs": num_epochs, "record_every": record_every}
    _planned(problem, method, sampler, axes, start=start, stop=stop, precision=precision, **length)


def _planned(
    problem: Any,
    method: Any,
    sampler: Any,
    axes: dict[str, Any],
    *,
    num_steps: int | None,
    num_epochs: float | None,
    record_every: int | None,
    start: PyTree,
    stop: Any,
    precision: str,
) -> tuple[_Roles, Grid, Recipe]:
    roles = _roles(problem, method, sampler, axes)
    lengths = _lengths(roles, num_steps=num_steps, num_epochs=num_epochs)
    grid = Grid(
        problem=roles.example,
        start=_start(start, roles.example),
        members=_product(roles.members),
        streams=[(batch, seed) for batch in roles.batch_sizes for seed in roles.seeds],
        numbers={name: column[None] for name, column in _product(roles.lanes).items()},
        lengths=lengths,
        steps=record_steps(list(lengths.values()), record_every, runs=roles.num_runs),
        rule=_rule(stop, roles),
    )
    return roles, grid, Recipe(method=roles.method, build=roles.build, sampler=roles.sampler, dtype=_checked_precision(precision))


def _rule(stop: Any, roles: _Roles) -> stopping.Rule | None:
    rule = stopping.resolve(stop)
    if rule is not None and rule.slows and "learning_rate" not in roles.lanes:
        raise InputError(f"this rule multiplies the learning rate, and no learning_rate is given for method {roles.method.name}: give one.")
    return rule


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
    order: list[str]  # of those that have a dimension

    @property
    def axes(self) -> dict[str, Axis]:
        return self.members | self.streams | self.lanes

    @property
    def sizes(self) -> dict[str, int]:
        """The dimensions, in keyword order."""
        axes = self.axes
        return {str(axes[name].dim): len(axes[name].values) for name in self.order}

    @property
    def num_runs(self) -> int:
        return math.prod(self.sizes.values())

    @property
    def is_product(self) -> bool:
        """Whether every axis has a dimension of its own."""
        return all(axis.dim in (None, axis.name) for axis in self.axes.values())

    @property
    def batch_sizes(self) -> list[int]:
        """The different ones, in the order given."""
        return list(dict.fromkeys(self.streams["batch_size"].values.astype(int).tolist())) if self.sampler else [self.example.num_examples]

    @property
    def seeds(self) -> list[int]:
        return self.streams["seed"].values.astype(int).tolist() if self.sampler else [0]


def _roles(problem: Problem | Callable[..., Problem], method: Any, sampler: Any, axes: dict[str, Any]) -> _Roles:
    if not isinstance(problem, Problem) and not callable(problem):
        raise InputError(
            f"problem={problem!r} is not allowed: it is a Problem (see gdjax.problems), or a function of numbers that builds one."
        )
    given = {name: _axis(name, values) for name, values in axes.items()}
    _check_dimensions(given)
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
        order=[name for name in given if given[name].dim is not None],
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
        raise InputError(f"{name}={_shown(values)} is not allowed: an axis is a number, or a sequence of numbers.")
    if array.size == 0:
        raise InputError(f"{name} is empty: give at least one value.")
    if not np.isfinite(array).all():
        raise InputError(f"{name}={_shown(values)} is not allowed: every value must be finite.")
    dim = None if array.ndim == 0 else str(values.dims[0]) if isinstance(values, xr.DataArray) else name
    return Axis(name, np.atleast_1d(array), dim)


def _shown(values: Any) -> str:
    """A value as it was given, in one line."""
    return " ".join(repr(values.values if isinstance(values, xr.DataArray) else values).split())


def _check_dimensions(axes: dict[str, Axis]) -> None:
    sizes: dict[str, tuple[str, int]] = {}
    for axis in axes.values():
        if axis.dim in ("step", "parameter") or (axis.dim != axis.name and axis.dim in axes and axes[axis.dim].dim != axis.dim):
            raise InputError(f"{axis.name} goes along '{axis.dim}', which is the name of something else: give the dimension another.")
        if axis.dim is not None:
            first, size = sizes.setdefault(axis.dim, (axis.name, len(axis.values)))
            if size != len(axis.values):
                raise InputError(f"{first} and {axis.name} go together along '{axis.dim}', but have {size} and {len(axis.values)} values.")


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
    seeds = streams["seed"].values
    whole("seed", seeds.min(), least=0)
    for seed in seeds[seeds != np.floor(seeds)][:1]:
        whole("seed", seed, least=0)


def _first(values: np.ndarray) -> str:
    return f"{values[0]:g}"


def _lengths(roles: _Roles, *, num_steps: int | None, num_epochs: float | None) -> dict[int, int]:
    """How many steps the runs of each batch size take."""
    if (num_steps is None) == (num_epochs is None):
        raise InputError(f"give exactly one of num_steps and num_epochs; given num_steps={num_steps}, num_epochs={num_epochs}.")
    if num_steps is not None:
        return dict.fromkeys(roles.batch_sizes, whole("num_steps", num_steps))
    if not (isinstance(num_epochs, int | float | np.number) and 0 < num_epochs < math.inf):
        raise InputError(f"num_epochs={num_epochs} is not allowed: it is a number above 0.")
    if roles.sampler is None:
        return {roles.example.num_examples: math.ceil(num_epochs)}
    n = roles.example.num_examples
    return {batch: samplers.steps_for(roles.sampler, float(num_epochs), n, batch) for batch in roles.batch_sizes}


def record_steps(lengths: Sequence[int], record_every: int | None, *, runs: int = 1) -> Int[np.ndarray, " records"]:
    """When to record: the start, every `record_every` steps, and the last step of each run.

    By default each length is cut into equal parts, so many that all lengths together make about `MOST_RECORDS` records, and fewer where
    those of all runs would take more than `MOST_RECORDED_BYTES`.

    >>> record_steps([10], 4).tolist()
    [0, 4, 8, 10]
    """
    affordable = min(MOST_RECORDS, MOST_RECORDED_BYTES // (8 * len(Measurement._fields) * runs))
    most = max(1, affordable // len(set(lengths)))
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


def _of_a_product(results: program.Results, roles: _Roles) -> dict[str, Any]:
    """Give every axis its dimension; a result that no batch size or seed has a say in is the same for all of them."""
    laid_out = roles.members | roles.streams
    streams = {name: len(axis.values) if roles.sampler else 1 for name, axis in roles.streams.items()}
    before = [*(len(axis.values) for axis in roles.members.values()), *streams.values()]
    after = [len(axis.values) for axis in roles.lanes.values()]
    dims = list(roles.sizes)

    def labelled(array: np.ndarray, last: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
        array = array.reshape(*before, *array.shape[2:-1], *after)
        here = [*laid_out, *last, *roles.lanes]
        sizes = [len(laid_out[name].values) if name in streams else size for name, size in zip(here, array.shape, strict=True)]
        array = np.broadcast_to(array, sizes) if sizes != list(array.shape) else array
        kept = (*dims, *last)
        array = array[tuple(slice(None) if name in kept else 0 for name in here)]
        left = [name for name in here if name in kept]
        return kept, array.transpose([left.index(name) for name in kept])

    return _variables(np.moveaxis(results.records, 3, 0), results, labelled)


def _of_a_list(run: Callable[[Grid], program.Results], grid: Grid, roles: _Roles) -> dict[str, Any]:
    """Run axes that go together: runs of one batch size and seed are one stream, and streams of about as many runs are one grid.

    Short lists are filled up to powers of 2, since those that follow each other (a search's, say) are seldom of one length.
    """
    columns = _along(roles)
    sizes, seeds = (columns.pop(name).astype(int) for name in ("batch_size", "seed"))
    if roles.sampler is None:
        sizes, seeds = np.full_like(sizes, roles.example.num_examples), np.zeros_like(seeds)
    parts = []
    for member, rows in _members(columns, list(roles.members), len(sizes)):
        for streams, table in _tables(sizes[rows], seeds[rows]):
            runs = rows[table]
            numbers = {name: columns[name][runs] for name in roles.lanes}
            if all((column == column[0]).all() for column in numbers.values()):
                numbers = {name: column[:1] for name, column in numbers.items()}
            part = replace(grid, members=member, streams=streams, numbers=numbers, padded=runs.size <= PADDED_RUNS)
            parts.append((runs, run(part)))
    fields = [field for field, found in parts[0][1]._asdict().items() if found is not None]
    gathered = program.Results(**{field: _gathered(parts, field, len(sizes)) for field in fields})

    def labelled(array: np.ndarray, last: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
        return (*roles.sizes, *last), array.reshape(*roles.sizes.values(), *array.shape[1:])

    return _variables(np.moveaxis(gathered.records, 2, 0), gathered, labelled)


def _along(roles: _Roles) -> dict[str, np.ndarray]:
    """One column for each axis, one row for each run, the last dimension fastest."""

    def column(axis: Axis) -> np.ndarray:
        shape = [size if dim == axis.dim else 1 for dim, size in roles.sizes.items()]
        return np.broadcast_to(axis.values.reshape(shape), list(roles.sizes.values())).ravel()

    return {name: column(axis) for name, axis in roles.streams.items()} | {
        name: column(axis).astype(float) for name, axis in (roles.members | roles.lanes).items()
    }


def _members(columns: dict[str, np.ndarray], names: list[str], num_runs: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Each different problem, with the runs on it."""
    if not names:
        yield {}, np.arange(num_runs)
        return
    different, which = np.unique(np.stack([columns[name] for name in names], axis=1), axis=0, return_inverse=True)
    for number, row in enumerate(different):
        yield {name: row[[place]] for place, name in enumerate(names)}, np.flatnonzero(which.ravel() == number)


def _tables(sizes: np.ndarray, seeds: np.ndarray) -> Iterator[tuple[list[tuple[int, int]], Int[np.ndarray, "streams lanes"]]]:
    """Streams, and each stream's runs in a row that its last run fills up; rows of one table differ in length by less than twice."""
    pairs, which, counts = np.unique(np.stack([sizes, seeds], axis=1), axis=0, return_inverse=True, return_counts=True)
    runs, first = np.argsort(which.ravel(), kind="stable"), np.cumsum(counts) - counts
    widths = np.ceil(np.log2(counts))
    for width in np.unique(widths):
        chosen = np.flatnonzero(widths == width)
        places = np.minimum(np.arange(counts[chosen].max()), counts[chosen, None] - 1)
        yield [(int(batch), int(seed)) for batch, seed in pairs[chosen]], runs[first[chosen, None] + places]


def _gathered(parts: list[tuple[np.ndarray, program.Results]], field: str, num_runs: int) -> np.ndarray:
    """One row for each run, in their order."""
    whole = None
    for runs, results in parts:
        rows = np.moveaxis(getattr(results, field)[0], -1, 1)
        whole = np.empty((num_runs, *rows.shape[2:]), rows.dtype) if whole is None else whole
        whole[runs] = np.broadcast_to(rows, (*runs.shape, *rows.shape[2:]))
    assert whole is not None
    return whole


def _variables(records: Any, results: program.Results, labelled: Callable[..., Any]) -> dict[str, Any]:
    variables = {name: labelled(array, ("step",)) for name, array in zip(Measurement._fields, records, strict=True)}
    variables |= {"diverged_at": labelled(results.diverged_at, ()), "params": labelled(results.params, ("parameter",))}
    told = {"stopped_at": results.stopped_at, "best_step": results.best_step}
    return variables | {name: labelled(array, ()) for name, array in told.items() if array is not None}


def _coordinates(grid: Grid, roles: _Roles) -> dict[str, Any]:
    named: dict[str, Any] = {name: axis.values[0] if axis.dim is None else (axis.dim, axis.values) for name, axis in roles.axes.items()}
    return named | {"step": grid.steps, "parameter": _parameter_names(roles.example), "epoch": _epochs(grid, roles)}


def _epochs(grid: Grid, roles: _Roles) -> tuple[tuple[str, ...], np.ndarray]:
    """Examples seen / n at each record."""
    if roles.sampler is None:
        return ("step",), grid.steps.astype(float)
    n, axis = grid.problem.num_examples, roles.streams["batch_size"]
    rows = {}
    for batch, length in grid.lengths.items():
        seen = samplers.examples_seen(roles.sampler, length, n, batch)
        rows[batch] = np.concatenate([[0], seen])[np.minimum(grid.steps, length)] / n
    if axis.dim is None:
        return ("step",), rows[int(axis.values[0])]
    return (axis.dim, "step"), np.stack([rows[int(batch)] for batch in axis.values])


def _parameter_names(problem: Problem) -> list[str]:
    if problem.parameter_names is not None:
        return list(problem.parameter_names)
    leaves = jax.tree_util.tree_leaves_with_path(problem.start)
    return [
        jax.tree_util.keystr(path) + (f"[{','.join(map(str, index))}]" if index else "")
        for path, leaf in leaves
        for index in np.ndindex(np.shape(leaf))
    ]


def _description(roles: _Roles, start: PyTree) -> dict[str, Any]:
    """What is needed to repeat the sweep, and what theory asks of the problem where there is one problem."""
    return {
        "problem": roles.example.name,
        "num_examples": roles.example.num_examples,
        "method": roles.method.name,
        **{name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in roles.method.settings},
        "sampler": getattr(roles.sampler, "__name__", "custom") if roles.sampler else "full",
        "divergence_bound": DIVERGENCE_BOUND,
        **({} if roles.build else facts.facts(roles.example, start)),
    }
