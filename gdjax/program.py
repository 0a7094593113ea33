"""Compile one program for each shape of a plan, and run its blocks: on a CPU as many at once as there are cores."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from gdjax.descent import Progress, Schedule, begin, descend
from gdjax.plan import Block, Grid, Recipe, plan
from gdjax.records import Measurement, Problem, Trajectory
from gdjax.samplers import ABSENT, generator


class Observer:
    """Hears how a sweep goes along; this one does nothing with it."""

    def compiled(self, seconds: float) -> None:
        """A program has been traced and compiled."""

    def advanced(self, done: int, total: int) -> None:
        """`done` of `total` blocks have run."""


class Results(NamedTuple):
    """What runs left."""

    records: Float[np.ndarray, "members streams records 4 lanes"]  # of `Measurement`
    diverged_at: Int[np.ndarray, "members streams lanes"]
    params: Float[np.ndarray, "members streams parameters lanes"]


def run(grid: Grid, recipe: Recipe, *, budget: int, observer: Observer) -> Results:
    """Run every run of the grid in blocks that take at most `budget` bytes together."""
    workers = _num_workers()
    blocks = plan(grid, recipe, budget=budget, workers=workers)
    problem = _on_device(grid.problem, recipe) if recipe.build is None else None
    if len(blocks) == 1 and len(grid.steps_of(blocks[0].batch)) == len(grid.steps):
        outcome = _execute(blocks[0], grid, problem, observer)
        observer.advanced(1, 1)
        return _without_filling(outcome, blocks[0])  # as it came, without a copy
    results = _room(grid, recipe.dtype)

    def work(block: Block) -> None:
        _place(results, grid, block, _execute(block, grid, problem, observer))

    for done, _ in enumerate(_threads(workers).map(work, blocks), start=1):
        observer.advanced(done, len(blocks))
    return results


def _program(
    recipe: Recipe,
    problem: Problem | None,
    start: PyTree | None,
    members: dict[str, jax.Array],
    numbers: dict[str, jax.Array],
    indices: jax.Array | None,
    schedule: Schedule,
    progress: Progress | None,
) -> tuple[Progress, Trajectory]:
    """A block: one problem's lanes, mapped over streams, mapped over members."""

    def one(problem: Problem, numbers: Any, indices: Any, progress: Any) -> tuple[Progress, Trajectory]:
        if progress is None:
            progress = begin(problem, recipe.method, numbers, recipe.width, full=indices is None)
        progress, trajectory = descend(problem, recipe.method, numbers, indices, schedule, progress, tile=recipe.tile, ragged=recipe.ragged)
        flat = [leaf.reshape(-1, recipe.width) for leaf in jax.tree.leaves(trajectory.params)]
        return progress, trajectory._replace(params=jnp.concatenate(flat))

    def member(members: dict[str, jax.Array], progress: Any) -> tuple[Progress, Trajectory]:
        built: Any = problem if recipe.build is None else _cast(_trimmed(recipe.build(**members), recipe), recipe.dtype)
        if start is not None:
            built = replace(built, start=start)
        own = {name: column for name, column in numbers.items() if len(column) > 1}  # of each stream
        shared = {name: column[0] for name, column in numbers.items() if len(column) == 1}
        return _mapped(lambda own, table, progress: one(built, shared | own, table, progress), own, indices, progress)

    return _mapped(member, members, progress)


def _mapped(one: Callable[..., Any], *arguments: Any) -> Any:
    """Map over the leading axis; one of length 1 is taken off and put back, since a batched product of one is slower than a plain one."""
    leaves = jax.tree.leaves(arguments)
    if leaves and leaves[0].shape[0] > 1:
        return jax.vmap(one)(*arguments)
    alone = jax.tree.map(lambda leaf: leaf[0], arguments)
    return jax.tree.map(lambda leaf: leaf[None], one(*alone))


def _execute(block: Block, grid: Grid, problem: Problem | None, observer: Observer) -> Results:
    """Run one block; the axes of what comes back are members, streams, then records or parameters, then lanes."""
    members = {name: _filled(column[block.members.start : block.members.stop], block.shape[0]) for name, column in grid.members.items()}
    numbers = {name: _of_block(column, block) for name, column in grid.numbers.items()}
    progress, parts = None, []
    with precision(block.recipe.dtype):
        members, numbers, start = _cast((members, numbers, grid.start), block.recipe.dtype)
        for schedule, indices in _segments(block, grid):
            arguments = (problem, start, members, numbers, indices, schedule, progress)
            progress, part = _compiled(block.recipe, arguments, observer)(*arguments)
            parts.append(jax.tree.map(np.asarray, part))
    records = parts[0].records if len(parts) == 1 else np.concatenate([part.records for part in parts], axis=2)
    diverged = np.stack([part.diverged_at for part in parts])
    first = np.argmax(diverged >= 0, axis=0)  # the first part that says so; the first of all, a -1, where none does
    return Results(records, np.take_along_axis(diverged, first[None], axis=0)[0], parts[-1].params)


def _of_block(column: Float[np.ndarray, "rows lanes"], block: Block) -> Float[np.ndarray, "rows lanes"]:
    """The block's part of a number's column, filled up to its shape."""
    rows = column if len(column) == 1 else _filled(column[block.streams], block.shape[1])
    return _filled(rows[:, block.lanes.start : block.lanes.stop].T, block.shape[2]).T


def _segments(block: Block, grid: Grid) -> Iterator[tuple[Schedule, np.ndarray | None]]:
    """The schedule of records, and the table of examples, in as many parts as memory asks for."""
    steps = grid.steps_of(block.batch)
    gaps = np.diff(steps, prepend=0)
    if block.recipe.sampler is None:
        yield _schedule(gaps, np.zeros_like(gaps), steps), None
        return
    streams = [_Stream(block, grid, *grid.streams[number]) for number in block.streams]
    parts = np.array_split(np.arange(len(steps)), min(len(steps), -(-int(steps[-1]) // block.rows)))
    rows = max(int(gaps[part].sum()) for part in parts) + block.recipe.tile
    for part in parts:
        taken = int(gaps[part].sum())
        tables = [stream.take(taken, rows, last=part is parts[-1]) for stream in streams]
        yield _schedule(gaps[part], np.cumsum(gaps[part]) - gaps[part], steps[part]), _filled(np.stack(tables), block.shape[1])


def _schedule(*columns: Any) -> Schedule:
    return Schedule(*(column.astype(np.int32) for column in columns))


class _Stream:
    """The examples of one seed and batch size in the order of its steps, filled up to the group's batch size."""

    def __init__(self, block: Block, grid: Grid, batch: int, seed: int) -> None:
        self.batch, self.wide = batch, block.batch
        self.num_examples, self.sampler = grid.problem.num_examples, block.recipe.sampler
        self.rng = generator(seed)
        self.ahead = np.empty((0, self.batch), np.int32)

    def take(self, num_steps: int, num_rows: int, *, last: bool) -> Int[np.ndarray, "rows batch"]:
        """The next steps' examples, in a table of `num_rows` rows."""
        assert self.sampler is not None
        missing = num_steps - len(self.ahead)
        if missing > 0:
            epoch = -(-self.num_examples // self.batch)
            missing = missing if last else -(-missing // epoch) * epoch
            self.ahead = np.concatenate([self.ahead, self.sampler(self.rng, missing, self.num_examples, self.batch)])
        table = np.full((num_rows, self.wide), ABSENT, np.int32)
        table[:num_steps, : self.batch] = self.ahead[:num_steps]
        self.ahead = self.ahead[num_steps:]
        return table


_programs: dict[Any, Any] = {}
_compiling = threading.Lock()


def _compiled(recipe: Recipe, arguments: tuple[Any, ...], observer: Observer) -> Callable[..., Any]:
    """The program for arguments of this shape, compiled at most once in this process."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (recipe, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    with _compiling:
        if key not in _programs:
            begun = time.perf_counter()
            _programs[key] = _compile(jax.jit(_program, static_argnums=0).lower(recipe, *arguments))
            observer.compiled(time.perf_counter() - begun)
        return _programs[key]


def _compile(lowered: Any) -> Callable[..., Any]:
    """On a CPU with vectors as wide as the machine has: XLA stops at 256 bits unless told (a step of B = 1 took 1.4 times as long)."""
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options={"xla_cpu_prefer_vector_width": 512})
    except jax.errors.JaxRuntimeError:  # an XLA that no longer knows the option
        return lowered.compile()


def _room(grid: Grid, dtype: str) -> Results:
    """Empty arrays for the whole grid."""
    axes = (grid.num_members, len(grid.streams))
    return Results(
        records=np.empty((*axes, len(grid.steps), len(Measurement._fields), grid.num_lanes), dtype),
        diverged_at=np.empty((*axes, grid.num_lanes), np.int32),
        params=np.empty((*axes, grid.num_parameters, grid.num_lanes), dtype),
    )


def _place(results: Results, grid: Grid, block: Block, outcome: Results) -> None:
    """Copy a block's outcome to its place; a run that ended before others keeps its last record to the end."""
    members, lanes = slice(block.members.start, block.members.stop), slice(block.lanes.start, block.lanes.stop)
    ended = len(grid.steps_of(block.batch))
    outcome = _without_filling(outcome, block)
    for number, stream in enumerate(block.streams):
        here = Results(*(leaf[:, number] for leaf in outcome))
        there = Results(*(leaf[members, stream, ..., lanes] for leaf in results))
        there.records[:, :ended] = here.records
        there.records[:, ended:] = here.records[:, -1:]
        there.diverged_at[...] = here.diverged_at
        there.params[...] = here.params


def _without_filling(outcome: Results, block: Block) -> Results:
    return Results(*(leaf[: len(block.members), : len(block.streams), ..., : len(block.lanes)] for leaf in outcome))


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    """Repeat the last entry up to `length`."""
    return array if len(array) == length else np.concatenate([array, np.repeat(array[-1:], length - len(array), axis=0)])


def _trimmed(problem: Problem, recipe: Recipe) -> Problem:
    """Leave away the examples where the Hessian says all that full gradients need."""
    if recipe.sampler is None and problem.hessian is not None:
        return replace(problem, data=())
    return problem


def _cast(tree: PyTree, dtype: str) -> Any:
    """Floats of the run's precision; whole numbers stay."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf, jax.tree.map(_array, tree))


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf, dtype=float)


_held: weakref.WeakKeyDictionary[Problem, dict[tuple[bool, str], Problem]] = weakref.WeakKeyDictionary()


def _on_device(problem: Problem, recipe: Recipe) -> Problem:
    """The problem's arrays on the device; they are put there once, however many sweeps follow."""
    held = _held.setdefault(problem, {})
    key = (recipe.sampler is None, recipe.dtype)
    if key not in held:
        with precision(recipe.dtype):
            held[key] = jax.device_put(_cast(_trimmed(problem, recipe), recipe.dtype))
    return held[key]


def precision(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Let JAX have 64 bits where they are asked for, without changing the process's own setting."""
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


def _num_workers() -> int:
    """How many blocks to run at once: XLA runs the small operations of a step on one core each."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _threads(workers: int) -> ThreadPoolExecutor:
    """Threads that wait for programs to run; kept, since starting them takes as long as a small sweep."""
    return ThreadPoolExecutor(workers, thread_name_prefix="gdjax")
