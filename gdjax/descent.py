"""One run, or a block of runs in step with each other: the only loop over steps.

All runs of a block see the same examples, so a step gathers them once and every product is one product for all. Runs are the last
axis of every array in the loop ("lanes"), which keeps an update contiguous and the loop free of transposes and copies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from gdjax.methods import ExampleGradientTransformation, Examples, Method, reported_point
from gdjax.records import Lanes, Measurement, Problem, Trajectory
from gdjax.stopping import DIVERGENCE_BOUND, Rule, Seen

Numbers = dict[str, Float[Array, " lanes"]]
"""What differs between lanes: an entry a lane for each number of the method."""


class Point(NamedTuple):
    """The full objective and its gradient at the lanes' parameters."""

    objective: Float[Array, " lanes"]
    suboptimality: Float[Array, " lanes"]
    gradient: Lanes


class Best(NamedTuple):
    """The best record of each lane so far."""

    lanes: Lanes
    step: Int[Array, " lanes"]


class Watch(NamedTuple):
    """What is known of runs that a rule may stop."""

    rule: PyTree  # the rule's own state
    ended: Bool[Array, " lanes"]
    stopped_at: Int[Array, " lanes"]
    diverged_at: Int[Array, " lanes"]
    last: Float[Array, "4 lanes"]  # the last record, which a lane that has ended keeps
    best: Best | None
    rate: Float[Array, " lanes"] | None  # what the learning rates are multiplied by


class Progress(NamedTuple):
    """All of a block of runs that a step changes."""

    lanes: Lanes
    state: PyTree  # the optimizer's
    point: Point | None  # at `lanes` where every step takes the full gradient, None where steps take batches
    watch: Watch | None = None  # where a rule may stop them


class Schedule(NamedTuple):
    """When to record: numbers, not shapes, so that another grid of as many records is the same program."""

    gaps: Int[Array, " records"]  # steps to take before each record; 0 records without a step
    rows: Int[Array, " records"]  # where in the table of examples those steps begin
    steps: Int[Array, " records"]  # how many steps the run has taken at each record; below 0 from the end of a watched run on


class Batch(NamedTuple):
    """The examples of one step, which all lanes share."""

    rows: Callable[[], Int[Array, " batch"]]  # looked up by rules that ask; the others' program is spared it
    examples: PyTree
    weights: Any  # one number for all, or one for each


Update = Callable[[Lanes, PyTree, Lanes, Array, Batch | None], tuple[Lanes, PyTree]]
"""(gradient, optimizer's state, parameters, objective, batch) -> (parameters, state), for every lane."""


def evaluate(problem: Problem, lanes: Lanes) -> Point:
    """Take the full objective and its gradient at every lane.

    A quadratic is known by its Hessian H: the gradient is H e and the suboptimality e'He / 2 with e = x - x*. That costs p^2 whatever
    n is, and it is exact down to 1e-30, where f - f* by subtraction stops at 1e-16 of f.
    """
    if problem.hessian is None:
        objective, gradient = problem.evaluate(lanes, problem.constants, problem.data, problem.shares)
        return Point(objective, objective - (jnp.nan if problem.minimum is None else problem.minimum), gradient)
    error = lanes - problem.minimizer[:, None]  # pyright: ignore[reportOptionalSubscript]  (a Hessian comes with its minimizer)
    gradient = _product(problem.hessian, error)
    suboptimality = 0.5 * jnp.sum(error * gradient, axis=0)
    return Point(suboptimality + jnp.asarray(problem.minimum), suboptimality, gradient)


def measure(problem: Problem, lanes: Lanes, point: Point) -> Measurement:
    """Reduce what is known at `lanes`, where the full objective is `point`, to what is recorded."""
    if problem.minimizer is None:
        distance = jnp.full_like(point.objective, jnp.nan)
    else:
        distance = _norm(jax.tree.map(lambda x, best: x - best[..., None], lanes, problem.minimizer))
    return Measurement(point.objective, point.suboptimality, _norm(point.gradient), distance)


def begin(problem: Problem, method: Method, numbers: Numbers, num_lanes: int, *, full: bool, rule: Rule | None = None) -> Progress:
    """Put every lane at the problem's start."""
    lanes = jax.tree.map(lambda x: jnp.broadcast_to(x[..., None], (*x.shape, num_lanes)), problem.start)
    axes = _state_axes(problem, method, numbers, lanes, full=full)
    state = jax.vmap(lambda n, x: _init(problem, method(**n), x, full=full), in_axes=(0, -1), out_axes=axes, axis_size=num_lanes)(
        numbers, lanes
    )
    watch = None if rule is None else _watch(rule, reported_point(state, lanes), num_lanes)
    return Progress(lanes, state, evaluate(problem, lanes) if full else None, watch)


def descend(
    problem: Problem,
    method: Method,
    numbers: Numbers,
    indices: Int[Array, "rows batch"] | None,
    schedule: Schedule,
    progress: Progress,
    *,
    tile: int = 1,
    ragged: bool = False,
    rule: Rule | None = None,
    mapped: tuple[str, ...] = (),
    measured: str = "all",
) -> tuple[Progress, Trajectory]:
    """Run every lane along a schedule of records.

    x_{t+1} = x_t + update(grad f_{B_t}(x_t)), where f_B is the mean loss over the batch B_t, the same for all lanes.

    Parameters
    ----------
    indices
        The examples of each step, from here on; None where every step takes the full gradient. Below the last step there are `tile`
        rows more, since examples are gathered for `tile` steps at a time.
    ragged
        Whether some batches are filled up with `samplers.ABSENT`.
    rule
        When runs end early; `progress` then has begun with it. A lane that has ended is frozen, and a block of such lanes ends the work.
        A counter of steps that lanes share counts on while one of them moves.
    mapped
        The axes that this is mapped over by `vmap`, by name: with a rule, the work ends when the runs along all of them have.
    measured
        With a rule, what a record costs: "all" takes the full objective and its gradient, "objective" no gradient, and "nothing" leaves
        it to the rule to look at what it holds out. What is not measured is NaN.
    """
    start = jax.tree.map(lambda x: x[..., None], problem.start)
    bound = DIVERGENCE_BOUND * _scale(evaluate(problem, start))

    def steps(now: Progress, at: Schedule, numbers: Numbers) -> Progress:
        update = lanewise_update(problem, method, numbers, now.lanes, full=indices is None)
        if indices is None:
            return _full_steps(problem, update, now, at)
        return _batch_steps(problem, update, now, at, indices, tile=tile, ragged=ragged)

    def reached(now: Progress) -> tuple[Lanes, Point]:
        lanes = reported_point(now.state, now.lanes)
        return lanes, now.point if now.point is not None and lanes is now.lanes else evaluate(problem, lanes)

    def record(carry: tuple[Progress, Array], at: Schedule) -> tuple[tuple[Progress, Array], Array]:
        now, diverged_at = carry
        now = steps(now, at, numbers)
        lanes, point = reached(now)
        diverged = ~(point.objective <= bound)  # a NaN is neither above nor below
        return (now, jnp.where(diverged & (diverged_at < 0), at.steps, diverged_at)), jnp.stack(measure(problem, lanes, point))

    def watched(now: Progress, at: Schedule) -> Progress:
        watch: Any = now.watch
        before = now._replace(watch=None)
        now = _chosen(watch.ended, before, steps(before, at, _slowed(numbers, watch.rate)))
        if measured == "nothing":
            lanes, unknown = reported_point(now.state, now.lanes), jnp.full_like(watch.last[0], jnp.nan)
            last, seen = watch.last, Seen(at.steps, unknown, jnp.zeros_like(watch.ended), lanes)
        else:
            lanes, point = reached(now)
            kept = measure(problem, lanes, point) if measured == "all" else _objective_alone(point)
            last = _chosen(watch.ended, watch.last, jnp.stack(kept))
            seen = Seen(at.steps, last[0], ~(last[0] <= bound), lanes)
        return now._replace(watch=_judged(rule, problem, watch._replace(last=last), seen))

    if rule is not None:
        return _until_ended(watched, schedule, progress, mapped)
    nowhere = jnp.full(jax.tree.leaves(progress.lanes)[0].shape[-1], -1, jnp.int32)
    (progress, diverged_at), records = lax.scan(record, (progress, nowhere), schedule)
    return progress, Trajectory(records, diverged_at, reported_point(progress.state, progress.lanes))


def _objective_alone(point: Point) -> Measurement:
    unknown = jnp.full_like(point.objective, jnp.nan)
    return Measurement(point.objective, unknown, unknown, unknown)


def _watch(rule: Rule, lanes: Lanes, num_lanes: int) -> Watch:
    """Nothing has been seen yet."""
    like = jax.tree.leaves(lanes)[0].reshape(-1, num_lanes)[0]
    nowhere, first = jnp.full(num_lanes, -1, jnp.int32), jnp.full((len(Measurement._fields), num_lanes), jnp.nan, like.dtype)
    state = rule.begin(like)
    rate, best = rule.slows, rule.keeps_best
    return Watch(
        rule=state,
        ended=nowhere >= 0,
        stopped_at=nowhere,
        diverged_at=nowhere,
        last=first,
        best=Best(lanes, nowhere) if best else None,
        rate=jnp.ones_like(like) if rate else None,
    )


def _judged(rule: Any, problem: Problem, watch: Watch, seen: Seen) -> Watch:
    """What the rule makes of one more record; on lanes that have ended it has no more say."""
    verdict, going = rule.watch(watch.rule, seen, problem), ~watch.ended
    stopped = verdict.stopped & going
    failed = jnp.zeros_like(going) if verdict.failed is None else verdict.failed & going
    diverged = (seen.diverged & going) | failed
    here = Best(seen.lanes, jnp.broadcast_to(seen.step, going.shape))
    return Watch(
        rule=verdict.state,
        ended=watch.ended | stopped | failed,
        stopped_at=jnp.where(stopped, seen.step, watch.stopped_at),
        diverged_at=jnp.where(diverged & (watch.diverged_at < 0), seen.step, watch.diverged_at),
        last=watch.last,
        best=None if watch.best is None else _chosen(verdict.best & going, here, watch.best),
        rate=None if watch.rate is None else verdict.rate,
    )


def _until_ended(
    watched: Callable[[Progress, Schedule], Progress], schedule: Schedule, progress: Progress, mapped: tuple[str, ...]
) -> tuple[Progress, Trajectory]:
    """Go from record to record until the schedule or every run has ended; records that are not reached repeat the last."""
    num_records = len(schedule.steps)

    def goes_on(watch: Any, number: Array) -> Array:
        within = (number < num_records) & (schedule.steps[jnp.minimum(number, num_records - 1)] >= 0)
        running = jnp.sum(~watch.ended)
        return within & ((lax.psum(running, mapped) if mapped else running) > 0)  # one truth for all, or `vmap` would select both ways

    def record(carry: tuple[Array, Array, Progress, Array]) -> tuple[Array, Array, Progress, Array]:
        _, number, now, records = carry
        now = watched(now, jax.tree.map(lambda column: column[number], schedule))
        watch: Any = now.watch
        return goes_on(watch, number + 1), number + 1, now, records.at[number].set(watch.last)

    watch: Any = progress.watch
    zero = jnp.zeros((), jnp.int32)
    begun = (goes_on(watch, zero), zero, progress, jnp.zeros((num_records, *watch.last.shape), watch.last.dtype))
    _, number, progress, records = lax.while_loop(lambda carry: carry[0], record, begun)
    watch = progress.watch
    records = jnp.where(jnp.arange(num_records)[:, None, None] < number, records, watch.last[None])
    params, best_step = watch.best or (reported_point(progress.state, progress.lanes), None)
    return progress, Trajectory(records, watch.diverged_at, params, watch.stopped_at, best_step)


def _slowed(numbers: Numbers, rate: Array | None) -> Numbers:
    return numbers if rate is None else numbers | {"learning_rate": numbers["learning_rate"] * rate}


def _chosen(first: Bool[Array, " lanes"], one: Any, other: Any) -> Any:
    """Lane by lane one of two trees; what all lanes share is the other's."""
    return jax.tree.map(lambda x, y: y if jnp.ndim(y) == 0 else jnp.where(first.reshape((1,) * (y.ndim - 1) + (-1,)), x, y), one, other)


def lanewise_update(problem: Problem, method: Method, numbers: Numbers, lanes: Lanes, *, full: bool) -> Update:
    """Apply the method's rule to every lane with that lane's numbers; parameters and state keep their types."""

    def one(batch: Batch | None, numbers: dict[str, Array], gradient: Any, state: Any, params: Any, value: Array) -> tuple[Any, Any]:
        optimizer = method(**numbers)
        updates, after = optimizer.update(gradient, state, params, value=value, **_answers(problem, optimizer, batch, full=full))
        after = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), after, state)
        return optax.apply_updates(params, updates), after

    axes = _state_axes(problem, method, numbers, lanes, full=full)

    def update(gradient: Lanes, state: PyTree, lanes: Lanes, value: Array, batch: Batch | None) -> tuple[Lanes, PyTree]:
        vmapped = jax.vmap(functools.partial(one, batch), in_axes=(0, -1, axes, -1, 0), out_axes=(-1, axes))
        # vmap moves lanes to the front and back again; past the barrier XLA folds that into the update, without it into the product
        # that made the gradient, which then lays the loop's arrays out the other way round and copies them in every step (17 us to 13)
        return vmapped(numbers, lax.optimization_barrier(gradient), state, lanes, value)

    return update


def _full_steps(problem: Problem, update: Update, now: Progress, at: Schedule) -> Progress:
    def step(_: Any, now: Progress) -> Progress:
        point: Any = now.point
        lanes, state = update(point.gradient, now.state, now.lanes, point.objective, None)
        return Progress(lanes, state, evaluate(problem, lanes))

    return lax.fori_loop(0, at.gaps, step, now)


def _batch_steps(problem: Problem, update: Update, now: Progress, at: Schedule, indices: Array, *, tile: int, ragged: bool) -> Progress:
    def gather(number: Array, now: Progress) -> Progress:
        rows = lax.dynamic_slice_in_dim(indices, at.rows + number * tile, tile)
        examples = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), problem.data)
        weights = _weights(rows, jax.tree.leaves(now.lanes)[0].dtype) if ragged else None
        if problem.weights is not None:
            weights = problem.weights.at[rows].get(mode="clip") * (1.0 / rows.shape[1] if weights is None else weights)

        def step(i: Array, now: Progress) -> Progress:
            batch = jax.tree.map(lambda leaf: leaf[i], examples)
            weight = 1.0 / rows.shape[1] if weights is None else weights[i]
            value, gradient = problem.evaluate(now.lanes, problem.constants, batch, weight)
            return Progress(*update(gradient, now.state, now.lanes, value, Batch(lambda: rows[i], batch, weight)), None)

        return lax.fori_loop(0, jnp.minimum(tile, at.gaps - number * tile), step, now)

    return lax.fori_loop(0, (at.gaps + tile - 1) // tile, gather, now)


def _weights(rows: Int[Array, "steps batch"], dtype: Any) -> Float[Array, "steps batch"]:
    present = (rows >= 0).astype(dtype)
    return present / jnp.sum(present, axis=1, keepdims=True)


def _init(problem: Problem, optimizer: Any, params: Any, *, full: bool) -> Any:
    """One lane's state at the start."""
    if isinstance(optimizer, ExampleGradientTransformation):
        return optimizer.init(params, objective=_objective(problem, full=full))  # pyright: ignore[reportCallIssue]
    return optimizer.init(params)


def _answers(problem: Problem, optimizer: Any, batch: Batch | None, *, full: bool) -> dict[str, Any]:
    """What a rule that asks about examples is told beside the gradient; nothing, for any other."""
    if not isinstance(optimizer, ExampleGradientTransformation):
        return {}
    objective = _objective(problem, full=full)
    return {"objective": objective, "batch": objective if batch is None else _of_batch(problem, batch)}


def _objective(problem: Problem, *, full: bool) -> Examples:
    def gradient(params: Any) -> Any:
        return _at_one(lambda lanes: evaluate(problem, lanes).gradient, params)

    if full:
        dtype = jax.tree.leaves(problem.start)[0].dtype
        return Examples(
            jnp.zeros(1, jnp.int32), jnp.ones(1, dtype), gradient, lambda params: jax.tree.map(lambda g: g[None], gradient(params))
        )
    n = problem.num_examples
    return _of_batch(problem, Batch(lambda: jnp.arange(n), problem.data, 1.0 / n))._replace(gradient=gradient)


def _of_batch(problem: Problem, batch: Batch) -> Examples:
    def weighted(params: Any, examples: Any, weights: Any) -> Any:
        return _at_one(lambda lanes: problem.evaluate(lanes, problem.constants, examples, weights)[1], params)

    rows, dtype = batch.rows(), jax.tree.leaves(problem.start)[0].dtype
    return Examples(
        rows=rows,
        weights=jnp.broadcast_to(jnp.asarray(batch.weights, dtype), rows.shape),
        gradient=lambda params: weighted(params, batch.examples, batch.weights),
        gradients=lambda params: jax.vmap(lambda example: weighted(params, jax.tree.map(lambda leaf: leaf[None], example), 1.0))(
            batch.examples
        ),
    )


def _at_one(of_lanes: Callable[[Lanes], Lanes], params: Any) -> Any:
    """A function of lanes, at one."""
    return jax.tree.map(lambda leaf: leaf[..., 0], of_lanes(jax.tree.map(lambda leaf: leaf[..., None], params)))


def _state_axes(problem: Problem, method: Method, numbers: Numbers, lanes: Lanes, *, full: bool) -> Any:
    """Where each leaf of the optimizer's state has its lanes: last, or nowhere for a counter of steps that all lanes share.

    A counter that every lane keeps for itself makes Adam raise its decay rates to a power lane by lane: 16 us instead of 6 a step
    at 256 lanes.
    """
    one = jax.eval_shape(
        lambda n, x: _init(problem, method(**n), x, full=full),
        *jax.tree.map(lambda x: x[0], (numbers,)),
        jax.tree.map(lambda x: x[..., 0], lanes),
    )
    axes = jax.tree.map(lambda leaf: None if leaf.shape == () and jnp.issubdtype(leaf.dtype, jnp.integer) else -1, one)

    def step(numbers: Any, state: Any, params: Any) -> Any:
        optimizer = method(**numbers)
        value = jnp.sum(jax.tree.leaves(params)[0])  # any number that differs between lanes, as the objective does
        return optimizer.update(params, state, params, value=value, **_answers(problem, optimizer, None, full=full))[1]

    try:
        jax.eval_shape(jax.vmap(step, in_axes=(0, None, -1), out_axes=axes), numbers, one, lanes)
    except ValueError:  # a counter that does depend on the lane
        return -1
    return axes


def _product(matrix: Float[Array, "p p"], lanes: Float[Array, "p lanes"]) -> Float[Array, "p lanes"]:
    """The matrix product; for the few rows of a line's fit as a sum, which joins the operations around it where a product stands alone."""
    if len(matrix) <= 4:
        return jnp.sum(matrix[:, :, None] * lanes[None], axis=1)
    return jnp.matmul(matrix, lanes, precision="highest")


def _scale(point: Point) -> Array:
    """The size of the objective at one point; its suboptimality where f* is known and f may be negative.

    It is one number for all lanes, unless a number in the loss or the target is each lane's own.
    """
    size = jnp.fmax(jnp.abs(point.objective), point.suboptimality)
    return size[0] if size.shape == (1,) else size


def _norm(tree: PyTree) -> Float[Array, " lanes"]:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf).reshape(-1, leaf.shape[-1]), axis=0) for leaf in jax.tree.leaves(tree)))
