"""Cut a sweep into blocks of equal shape: what runs together, in how many programs, within how much memory.

A sweep is a product of members (problems), streams (a batch size and a seed: what decides the examples) and lanes (numbers of the
method). On a CPU a block is kept small enough to stay in cache, the parameters and what a loss makes of the examples; elsewhere it is as
large as memory allows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from gdjax import work
from gdjax.methods import Method
from gdjax.models import PerExample
from gdjax.records import Problem
from gdjax.samplers import Sampler, has_short_batches
from gdjax.stopping import Rule

PROGRAM_SECONDS = 0.35
"""What another program costs to compile (measured: 0.2 to 0.4 s for a linear model on 2 CPU cores)."""

FLOPS_PER_SECOND = 2e10
"""What a core does in the products of a step (measured: 1e10 to 6e10)."""

COPIED_BYTES_PER_SECOND = 3e9
"""How fast records are copied into fresh memory (measured: 2.8e9)."""

CACHED_BYTES = 16 * 1024
"""Parameters of a block that stay close to a CPU core; with larger blocks a lane took up to twice as long (p = 2 to 100)."""

CACHED_NETWORK_BYTES = 256 * 1024
"""Parameters of a block and its largest array of activations, where an evaluation by autodiff has a layer of them; autodiff keeps some
more. Beyond it a lane took up to 2.6 times as long (1,797 examples, 32 units: 64 lanes against 8), and 2 in batches of 32."""

LEAST_COLUMNS = 256
"""Activations of one example, of a block's lanes together: with fewer, products are narrow."""

BLOCK_SECONDS = 0.01
"""Work of a block beside which starting it costs little."""

LEAST_LANES = 8
"""Lanes of a block whose layers are wider still."""

GATHERED_BYTES = 256 * 1024
"""Examples gathered at a time."""

UNDIVIDED_BYTES = 2**30
"""What the examples' table of one execution may take where a grid is not cut otherwise."""

WATCHED_RECORDS = 32
"""Records of one execution where runs may end early: nothing is drawn for those that follow before it is known that one goes on."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that shapes a program beside the shapes of its arrays: where both are equal, the program is shared."""

    method: Method
    build: Callable[..., Problem] | None  # of the members' numbers, inside the program; None for one given problem
    sampler: Sampler | None  # None where every step takes the full gradient
    dtype: str
    width: int = 1  # lanes of a block, which no array shows where nothing of the method is swept
    tile: int = 1  # steps whose examples are gathered together
    ragged: bool = False  # whether batches are filled up
    constants: tuple[str, ...] = ()  # which of the lanes' numbers are the problem's and not the method's
    measured: Literal["all", "objective", "nothing"] = "all"  # of the full objective at a record; the rest is NaN


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A sweep as plain arrays: every member x stream x lane is one run."""

    problem: Problem
    start: PyTree | None
    members: dict[str, Float[np.ndarray, " members"]]
    streams: Sequence[tuple[int, int]]  # (batch size, seed)
    numbers: dict[str, Float[np.ndarray, "rows lanes"]]  # one row for all streams, or a row for each
    lengths: dict[int, int]  # steps that a run takes, by batch size
    steps: Int[np.ndarray, " records"]  # when to record: ascending from 0, each length among them
    padded: bool = False  # fill shapes up to powers of 2, so that grids of other sizes share their programs
    rule: Rule | None = None  # when runs end early
    own: PyTree = None  # of each stream: fields of the problem and of the rule, {"problem": {..}, "rule": {..}}, streams first
    dealt: Sequence[Int[np.ndarray, " rows"]] | None = None  # the examples that each stream's sampler deals, where not all

    @property
    def num_members(self) -> int:
        """Problems: one, unless a builder's numbers are swept."""
        return max([len(column) for column in self.members.values()], default=1)

    @property
    def num_lanes(self) -> int:
        """Combinations of the method's numbers."""
        return max([column.shape[1] for column in self.numbers.values()], default=1)

    @property
    def batch_sizes(self) -> list[int]:
        """The different ones, in the order of the streams."""
        return list(dict.fromkeys(batch for batch, _ in self.streams))

    @property
    def num_parameters(self) -> int:
        """p, in all leaves of the parameters together."""
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.problem.start))

    def steps_of(self, batch: int) -> Int[np.ndarray, " records"]:
        """When a run of that batch size records."""
        return self.steps[self.steps <= self.lengths[batch]]


class Block(NamedTuple):
    """One execution of a program: positions in the grid, and the shape they are filled up to."""

    recipe: Recipe
    batch: int  # the largest batch size of the group, which the others are filled up to
    members: range
    streams: list[int]
    lanes: range
    shape: tuple[int, int, int]  # members, streams and lanes of the program
    rows: int  # steps of one execution; a longer run goes on in another
    records: int | None = None  # of one execution, where runs may end early


def undivided(grid: Grid, recipe: Recipe) -> Block:
    """A grid of one batch size as one block."""
    (batch,) = grid.batch_sizes
    shape = (grid.num_members, len(grid.streams), grid.num_lanes)
    return next(_cut_group(grid, recipe, [batch], UNDIVIDED_BYTES, shape))


def plan(grid: Grid, recipe: Recipe, *, budget: int, workers: int) -> list[Block]:
    """Cut the grid into blocks, `workers` of which take at most `budget` bytes together."""
    blocks: list[Block] = []
    for sizes in groups(grid, recipe):
        num_streams = sum(batch in sizes for batch, _ in grid.streams)
        shape = _block_shape(grid, recipe, num_streams, max(sizes), budget // workers, workers)
        blocks += _cut_group(grid, recipe, sizes, budget // workers, shape)
    return blocks


def groups(grid: Grid, recipe: Recipe) -> list[tuple[int, ...]]:
    """Decide which batch sizes share a program.

    One program for all takes every batch as large as the largest, one for each size costs a compilation each; the cheaper is taken.
    Runs of different length keep programs of their own.
    """
    sizes = grid.batch_sizes
    alone = [(batch,) for batch in sizes]
    if recipe.sampler is None or len(set(grid.lengths.values())) > 1:
        return alone
    filled = sum(max(sizes) - batch for batch, _ in grid.streams) * grid.num_members * grid.num_lanes
    extra_seconds = 4.0 * filled * grid.num_parameters * grid.lengths[sizes[0]] / FLOPS_PER_SECOND
    return alone if extra_seconds > PROGRAM_SECONDS * (len(alone) - 1) else [tuple(sizes)]


def _cut_group(grid: Grid, recipe: Recipe, sizes: Sequence[int], budget: int, shape: tuple[int, int, int]) -> Iterator[Block]:
    streams = [number for number, (batch, _) in enumerate(grid.streams) if batch in sizes]
    batch = max(sizes)
    recipe = replace(recipe, width=shape[2])
    rows, records = 0, _watched_records(grid, batch)
    if recipe.sampler is not None:
        drawn = (recipe.sampler, grid.lengths[batch], grid.problem.num_examples, batch)
        ragged = grid.dealt is not None or len(sizes) > 1 or has_short_batches(*drawn)
        recipe = replace(recipe, tile=_tile(grid, batch), ragged=ragged)
        rows = max(1, budget // (16 * batch * shape[1]))
        if records is not None:
            records = max(1, min(records, rows // int(np.diff(grid.steps_of(batch)).max())))
    for stream in _parts(streams, shape[1]):
        for member in _parts(range(grid.num_members), shape[0]):
            for lane in _parts(range(grid.num_lanes), shape[2]):
                yield Block(recipe, batch, member, stream, lane, shape, rows, records)


def _block_shape(grid: Grid, recipe: Recipe, num_streams: int, batch: int, budget: int, workers: int) -> tuple[int, int, int]:
    """Members, streams and lanes of a block."""
    records = len(grid.steps_of(batch))
    evaluated = 3 * grid.problem.num_examples if grid.problem.hessian is None else 0
    if recipe.sampler is not None and recipe.method.asks_about_examples:
        evaluated += 2 * grid.problem.num_examples * grid.num_parameters  # a gradient for each, and its copy
    sizes = (grid.num_members, num_streams, grid.num_lanes)
    total = math.prod(2 ** (size - 1).bit_length() if grid.padded else size for size in sizes)
    most = max(1, min(total, budget // (8 * (4 * records + 8 * grid.num_parameters + evaluated))))
    if jax.default_backend() == "cpu" and _is_cut(grid, total, batch):
        most = min(most, _cached_runs(grid, recipe, batch))
        if total >= 128:
            most = min(most, math.ceil(total / workers))  # a block for every core
    part = _even
    if grid.padded:
        most, part = 2 ** (most.bit_length() - 1), _padded
    lanes = part(grid.num_lanes, most)
    streams = part(num_streams, most // lanes)
    return part(grid.num_members, most // (lanes * streams)), streams, lanes


def _cached_runs(grid: Grid, recipe: Recipe, batch: int) -> int:
    """Runs of a block that stay in a core's cache: by their parameters, or by the activations of the steps or the records."""
    width = _width(grid.problem)
    if width == 1:
        return max(128, min(512, CACHED_BYTES // (8 * grid.num_parameters)))
    records, steps = len(grid.steps_of(batch)), grid.lengths[batch]
    n = grid.problem.num_examples
    often, rows = max((steps, batch), (records, n), key=math.prod)  # the evaluations that take most of the time
    lone = np.dtype(recipe.dtype).itemsize * (rows * width + grid.num_parameters)
    busy = int(BLOCK_SECONDS * FLOPS_PER_SECOND / (4 * rows * grid.num_parameters * often))
    cached = max(LEAST_LANES, LEAST_COLUMNS // width, CACHED_NETWORK_BYTES // lone, busy)
    return cached if cached <= 32 else 128  # between them little is gained, where operations on an example's numbers are fused


def _width(problem: Problem) -> int:
    """Numbers in the largest array that a run makes of one example: a network's widest layer, 1 for a linear model."""
    if not isinstance(problem.evaluate, PerExample):
        return 1
    shapes = jax.tree.map(_shaped, (problem.start, problem.constants))
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), problem.data)
    leaves, structure = jax.tree.flatten((*shapes, example))
    return _traced_width(problem.evaluate, structure, tuple(leaves))


def _shaped(leaf: Any) -> jax.ShapeDtypeStruct:
    """The leaf without its numbers; a problem that is built inside a program comes without them."""
    like = leaf if hasattr(leaf, "dtype") else np.asarray(leaf, dtype=float)
    return jax.ShapeDtypeStruct(like.shape, like.dtype)


@functools.lru_cache(maxsize=64)
def _traced_width(evaluate: PerExample, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> int:
    """Traced once, in 5 to 20 ms, with so many lanes and examples that an array of both is known by its size."""
    num_lanes, num_examples = 1009, 1013  # primes
    start, constants, example = jax.tree.unflatten(structure, leaves)

    def losses(lanes: Any, constants: Any, examples: Any) -> Any:
        of_one = jax.vmap(lambda params, example: evaluate.loss(params, example, **constants), in_axes=(None, 0))
        return jax.vmap(of_one, in_axes=(0, None))(lanes, examples)

    def several(tree: Any, length: int) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape), leaf.dtype), tree)

    made = work.sizes(losses, several(start, num_lanes), constants, several(example, num_examples))
    return max([1, *(size // (num_lanes * num_examples) for size in made if size % (num_lanes * num_examples) == 0)])


def _watched_records(grid: Grid, batch: int) -> int | None:
    """Records of one execution: always as many, so that runs of another length share their program, but more of very many."""
    if grid.rule is None:
        return None
    records = len(grid.steps_of(batch))
    return max(WATCHED_RECORDS, 2 ** (records // WATCHED_RECORDS).bit_length())


def _is_cut(grid: Grid, total: int, batch: int) -> bool:
    """Whether the steps take longer than copying the records of several blocks into one array would."""
    hessian = grid.problem.hessian is not None and batch == grid.problem.num_examples
    flops = 2 * grid.num_parameters * (grid.num_parameters if hessian else 2 * batch)
    copied = 32 * len(grid.steps_of(batch)) / COPIED_BYTES_PER_SECOND
    return flops * grid.lengths[batch] / FLOPS_PER_SECOND > copied and total > 1


def _tile(grid: Grid, batch: int) -> int:
    """How many steps' examples to gather together: those up to the next record, within reason.

    Rounded up to a power of 2, so that grids of records that differ little share a program. Gathering ahead is a loop of its own, about
    5 us a record, which pays from some 8 steps on.
    """
    gap = int(np.median(np.diff(grid.steps_of(batch))))
    per_example = sum(leaf.nbytes // grid.problem.num_examples for leaf in jax.tree.leaves(grid.problem.data))
    most = max(1, GATHERED_BYTES // (batch * per_example))
    return 1 if gap < 8 else 2 ** min((gap - 1).bit_length(), most.bit_length() - 1)


def _even(total: int, most: int) -> int:
    """The size of the fewest equal parts of at most `most`."""
    return math.ceil(total / math.ceil(total / max(1, most)))


def _padded(total: int, most: int) -> int:
    """The same, filled up to a power of 2; `most` is one."""
    return 2 ** (_even(total, most) - 1).bit_length()


def _parts(items: Sequence[Any], size: int) -> Iterator[Any]:
    return (items[i : i + size] for i in range(0, len(items), size))
