"""Compile one program for each shape of a plan, and run its blocks: on a CPU as many at once as there are cores."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from gdjax.descent import Progress, Schedule, begin, descend
from gdjax.plan import Block, Grid, Recipe, plan, undivided
from gdjax.records import Measurement, Problem, Trajectory
from gdjax.samplers import ABSENT, generator
from gdjax.stopping import Rule


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
    stopped_at: Int[np.ndarray, "members streams lanes"] | None = None  # where a rule may stop them
    best_step: Int[np.ndarray, "members streams lanes"] | None = None  # where it keeps the best iterate


class Runs(NamedTuple):
    """What the runs of a block are made of, on its way into a program."""

    problem: Problem | None  # None where the recipe builds one for each member
    start: PyTree | None  # where other than at the problem's own
    members: dict[str, Any]  # the numbers that problems are built from, an entry a member
    numbers: dict[str, Any]  # of the method and the problem, a row for each stream or one for all
    own: PyTree  # a stream's own fields of the problem and the rule
    rule: Rule | None


def run(grid: Grid, recipe: Recipe, *, budget: int, observer: Observer) -> Results:
    """Run every run of the grid in blocks that take at most `budget` bytes together."""
    workers = _num_workers()
    blocks = plan(grid, recipe, budget=budget, workers=workers)
    problem = _on_device(grid.problem, recipe) if recipe.build is None else None
    with precision(recipe.dtype):
        rule = None if grid.rule is None else jax.device_put(_cast(grid.rule, recipe.dtype))
    if len(blocks) == 1 and len(grid.steps_of(blocks[0].batch)) == len(grid.steps):
        outcome, _ = _execute(blocks[0], grid, problem, rule, observer)
        observer.advanced(1, 1)
        return _without_filling(outcome, blocks[0])  # as it came, without a copy
    results = _room(grid, recipe.dtype)

    def work(block: Block) -> None:
        _place(results, grid, block, _execute(block, grid, problem, rule, observer)[0])

    for done, _ in enumerate(_threads(workers).map(work, blocks), start=1):
        observer.advanced(done, len(blocks))
    return results


def go_on(grid: Grid, recipe: Recipe, *, observer: Observer, before: tuple[PyTree, list[Any]] | None = None) -> tuple[Results, Progress]:
    """Run a grid with a rule as one block, and keep how far it came.

    Parameters
    ----------
    before
        The lanes, and the leaves of the optimizer's state, to go on from; the rule begins anew.
    """
    block = undivided(grid, recipe)
    with precision(recipe.dtype):
        problem, rule = jax.device_put((_cast(grid.problem, recipe.dtype), _cast(grid.rule, recipe.dtype)))
    return _execute(block, grid, problem, rule, observer, before)


def _program(
    recipe: Recipe, runs: Runs, indices: jax.Array | None, schedule: Schedule, progress: Progress | None
) -> tuple[Progress, Trajectory]:
    """A block: one problem's lanes, mapped over streams, mapped over members."""
    mapped: list[str] = []

    def one(problem: Problem, numbers: Any, rule: Rule | None, indices: Any, progress: Any) -> tuple[Progress, Trajectory]:
        if progress is None:
            progress = begin(problem, recipe.method, numbers, recipe.width, full=indices is None)
        how: Any = {"tile": recipe.tile, "ragged": recipe.ragged, "rule": rule, "mapped": tuple(mapped), "measured": recipe.measured}
        progress, trajectory = descend(problem, recipe.method, numbers, indices, schedule, progress, **how)
        flat = [leaf.reshape(-1, recipe.width) for leaf in jax.tree.leaves(trajectory.params)]
        return progress, trajectory._replace(params=jnp.concatenate(flat))

    return _over_runs(one, mapped, recipe, runs, indices, progress)


def _beginning(recipe: Recipe, runs: Runs, streams: jax.Array) -> Progress:
    """Where the runs of a block begin that may end early: apart, so that the first steps and those that follow are one program."""

    def one(problem: Problem, numbers: Any, rule: Rule | None, _: Any, progress: None) -> Progress:
        return begin(problem, recipe.method, numbers, recipe.width, full=recipe.sampler is None, rule=rule)

    return _over_runs(one, [], recipe, runs, streams, None)


def _over_runs(one: Callable[..., Any], mapped: list[str], recipe: Recipe, runs: Runs, indices: Any, progress: Any) -> Any:
    """Map `one` over a block's streams and over its members; the names of what is mapped are kept in `mapped`."""

    def member(members: dict[str, jax.Array], progress: Any) -> Any:
        built: Any = runs.problem if recipe.build is None else _cast(_trimmed(recipe.build(**members), recipe), recipe.dtype)
        if runs.start is not None:
            built = replace(built, start=runs.start)
        different = {name: column for name, column in runs.numbers.items() if len(column) > 1}  # of each stream
        shared = {name: column[0] for name, column in runs.numbers.items() if len(column) == 1}

        def stream(different: Any, indices: Any, own: Any, progress: Any) -> Any:
            given, ruled, numbers = _stream_s(recipe, built, runs.rule, own, shared | different)
            return one(given, numbers, ruled, indices, progress)

        return _mapped(stream, mapped, "streams", different, indices, runs.own, progress)

    return _mapped(member, mapped, "members", runs.members, progress)


def _stream_s(recipe: Recipe, problem: Problem, rule: Any, own: Any, numbers: dict[str, Any]) -> tuple[Problem, Any, dict[str, Any]]:
    """A stream's problem, rule and numbers of the method: with its own fields, and with the lanes' numbers that are the problem's."""
    if own is not None:
        problem = replace(problem, **own["problem"])
        rule = replace(rule, **own["rule"]) if own["rule"] else rule
    if recipe.constants:
        theirs = {name: numbers[name][None] for name in recipe.constants}
        problem = replace(problem, constants=problem.constants | theirs)
        numbers = {name: column for name, column in numbers.items() if name not in recipe.constants}
    return problem, rule, numbers


def _mapped(one: Callable[..., Any], mapped: list[str], name: str, *arguments: Any) -> Any:
    """Map over the leading axis; one of length 1 is taken off and put back, since a batched product of one is slower than a plain one."""
    leaves = jax.tree.leaves(arguments)
    if leaves and leaves[0].shape[0] > 1:
        mapped.append(name)
        return jax.vmap(one, axis_name=name)(*arguments)
    alone = jax.tree.map(lambda leaf: leaf[0], arguments)
    return jax.tree.map(lambda leaf: leaf[None], one(*alone))


def _execute(
    block: Block, grid: Grid, problem: Problem | None, rule: Rule | None, observer: Observer, before: tuple[PyTree, list[Any]] | None = None
) -> tuple[Results, Progress]:
    """Run one block; the axes of what comes back are members, streams, then records or parameters, then lanes."""
    members = {name: _filled(column[block.members.start : block.members.stop], block.shape[0]) for name, column in grid.members.items()}
    numbers = {name: _of_block(column, block) for name, column in grid.numbers.items()}
    own = jax.tree.map(lambda leaf: _filled(leaf[block.streams], block.shape[1]), grid.own)
    progress, parts = None, []
    with precision(block.recipe.dtype):
        members, numbers, start, own = _cast((members, numbers, grid.start, own), block.recipe.dtype)
        runs = Runs(problem, start, members, numbers, own, rule)
        if rule is not None:
            progress = _called(_beginning, block.recipe, (runs, np.zeros(block.shape[1], np.int32)), observer)
            if before is not None:
                state = jax.tree.unflatten(jax.tree.structure(progress.state), before[1])
                progress = progress._replace(lanes=before[0], state=state)
        for schedule, indices in _segments(block, grid):
            progress, part = _called(_program, block.recipe, (runs, indices, schedule, progress), observer)
            parts.append(jax.tree.map(np.asarray, part))
            if progress.watch is not None and np.asarray(progress.watch.ended).all():
                break
    records = _joined([part.records for part in parts], len(grid.steps_of(block.batch)), watched=rule is not None)
    diverged = np.stack([part.diverged_at for part in parts])
    first = np.argmax(diverged >= 0, axis=0)  # the first part that says so; the first of all, a -1, where none does
    assert progress is not None
    return Results(records, np.take_along_axis(diverged, first[None], axis=0)[0], *parts[-1][2:]), progress


def _joined(parts: list[np.ndarray], num_records: int, *, watched: bool) -> np.ndarray:
    """The records of all parts; where runs may end early, without those past the schedule's end, or filled up with the last."""
    records = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    if not watched or records.shape[2] == num_records:
        return records
    missing = max(0, num_records - records.shape[2])
    return np.concatenate([records, np.repeat(records[:, :, -1:], missing, axis=2)], axis=2)[:, :, :num_records]


def _of_block(column: Float[np.ndarray, "rows lanes"], block: Block) -> Float[np.ndarray, "rows lanes"]:
    """The block's part of a number's column, filled up to its shape."""
    rows = column if len(column) == 1 else _filled(column[block.streams], block.shape[1])
    return _filled(rows[:, block.lanes.start : block.lanes.stop].T, block.shape[2]).T


def _segments(block: Block, grid: Grid) -> Iterator[tuple[Schedule, np.ndarray | None]]:
    """The schedule of records, and the table of examples, in as many parts as memory asks for."""
    steps = grid.steps_of(block.batch)
    gaps = np.diff(steps, prepend=0)
    if block.recipe.sampler is None and block.records is None:
        yield _schedule(gaps, np.zeros_like(gaps), steps), None
        return
    streams = [_Stream(block, grid, number) for number in block.streams] if block.recipe.sampler else []
    if block.records is None:
        parts = np.array_split(np.arange(len(steps)), min(len(steps), -(-int(steps[-1]) // block.rows)))
        rows = max(int(gaps[part].sum()) for part in parts) + block.recipe.tile
    else:
        parts = np.split(np.arange(len(steps)), range(block.records, len(steps), block.records))
        rows = block.records * int(gaps.max()) + block.recipe.tile
    for part in parts:
        taken = int(gaps[part].sum())
        tables = [stream.take(taken, rows, last=part is parts[-1]) for stream in streams]
        columns = _ended((gaps[part], np.cumsum(gaps[part]) - gaps[part], steps[part]), block.records or len(part))
        yield _schedule(*columns), _filled(np.stack(tables), block.shape[1]) if tables else None


def _ended(columns: Sequence[np.ndarray], length: int) -> list[np.ndarray]:
    """Fill columns of a schedule up with -1, which are no records."""
    return [np.concatenate([column, np.full(length - len(column), -1)]) for column in columns]


def _schedule(*columns: Any) -> Schedule:
    return Schedule(*(column.astype(np.int32) for column in columns))


class _Stream:
    """The examples of one seed and batch size in the order of its steps, filled up to the group's batch size."""

    def __init__(self, block: Block, grid: Grid, number: int) -> None:
        self.batch, seed = grid.streams[number]
        self.wide = block.batch
        self.dealt = None if grid.dealt is None else np.asarray(grid.dealt[number], np.int32)
        self.num_examples, self.sampler = grid.problem.num_examples if self.dealt is None else len(self.dealt), block.recipe.sampler
        self.rng = generator(seed)
        self.ahead = np.empty((0, self.batch), np.int32)

    def take(self, num_steps: int, num_rows: int, *, last: bool) -> Int[np.ndarray, "rows batch"]:
        """The next steps' examples, in a table of `num_rows` rows."""
        assert self.sampler is not None
        missing = num_steps - len(self.ahead)
        if missing > 0:
            epoch = -(-self.num_examples // self.batch)
            missing = missing if last else -(-missing // epoch) * epoch
            drawn = self.sampler(self.rng, missing, self.num_examples, self.batch)
            if self.dealt is not None:
                drawn = np.where(drawn == ABSENT, np.int32(ABSENT), self.dealt[drawn])
            self.ahead = np.concatenate([self.ahead, drawn])
        table = np.full((num_rows, self.wide), ABSENT, np.int32)
        table[:num_steps, : self.batch] = self.ahead[:num_steps]
        self.ahead = self.ahead[num_steps:]
        return table


_programs: dict[Any, Any] = {}
_compiling = threading.Lock()


def _called(program: Callable[..., Any], recipe: Recipe, arguments: tuple[Any, ...], observer: Observer) -> Any:
    """Run the program for arguments of this shape, compiled at most once in this process."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (program, recipe, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    with _compiling:
        if key not in _programs:
            begun = time.perf_counter()
            _programs[key] = _compile(jax.jit(program, static_argnums=0).lower(recipe, *arguments))
            observer.compiled(time.perf_counter() - begun)
        run = _programs[key]
    return run(*arguments)


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
    axes, rule = (grid.num_members, len(grid.streams)), grid.rule
    return Results(
        records=np.empty((*axes, len(grid.steps), len(Measurement._fields), grid.num_lanes), dtype),
        diverged_at=np.empty((*axes, grid.num_lanes), np.int32),
        params=np.empty((*axes, grid.num_parameters, grid.num_lanes), dtype),
        stopped_at=None if rule is None else np.empty((*axes, grid.num_lanes), np.int32),
        best_step=None if rule is None or not rule.keeps_best else np.empty((*axes, grid.num_lanes), np.int32),
    )


def _place(results: Results, grid: Grid, block: Block, outcome: Results) -> None:
    """Copy a block's outcome to its place; a run that ended before others keeps its last record to the end."""
    members, lanes = slice(block.members.start, block.members.stop), slice(block.lanes.start, block.lanes.stop)
    ended = len(grid.steps_of(block.batch))
    outcome = _without_filling(outcome, block)
    for number, stream in enumerate(block.streams):
        here = jax.tree.map(lambda leaf, number=number: leaf[:, number], outcome)
        there = jax.tree.map(lambda leaf, stream=stream: leaf[members, stream, ..., lanes], results)
        there.records[:, :ended] = here.records
        there.records[:, ended:] = here.records[:, -1:]
        for goal, leaf in zip(jax.tree.leaves(there[1:]), jax.tree.leaves(here[1:]), strict=True):
            goal[...] = leaf


def _without_filling(outcome: Results, block: Block) -> Results:
    return jax.tree.map(lambda leaf: leaf[: len(block.members), : len(block.streams), ..., : len(block.lanes)], outcome)


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
