"""Gradient descent written by hand, by autodiff, with a library and as a pipeline: one algorithm, if it sees the same batches.

Claim
    The page's first three levels agree to rounding on the same batches. As the page runs them they are not comparable: levels 1 and 3
    take 13 updates an epoch, level 2 one. What level 4 keeps as its best model is its last.
Theory
    Level 2 after t full updates has sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 of its excess left (Polyak 1964); the page's bound
    ((kappa - 1) / (kappa + 1))^(2t) is that of eta = 2 / (L + mu), and for another rate it is none: on the page's data it says 3e-180
    where 1.5e-2 is left. Levels 1 and 3 stall at the floor of reshuffled batches. `state_dict().copy()` is shallow: it keeps live
    buffers, so that loading the "best" state changes nothing. JAX's arrays never change, so a reference is as good as a copy.
Sweep
    Levels x {full batch, reshuffled mini-batches}, on one table of batches; level 4 until it stops.
Expect
    Curves on top of each other, apart by rounding only; level 2 far above levels 1 and 3 after as many epochs.
Command
    gdjax experiment=implementation_levels problem=page_data problem.num_examples=400
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import xarray as xr
from jaxtyping import Array, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models, samplers, theory
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, whole

MOST_UPDATES = 2000
"""Updates of the mini-batch levels at most, whatever 100 epochs are."""

PATIENCE, PIPELINE_EPOCHS, PIPELINE_RATE = 10, 200, 0.01

Params = dict[str, Array]


class Level(NamedTuple):
    """One way to write a step: (params) -> state, and (params, state, X, y, weights) -> (params, state)."""

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]


def manual(rate: Any) -> Level:
    """Level 1: the gradient by its formula, (2/B) X'(Xw + b - y) and (2/B) sum(Xw + b - y)."""

    def update(params: Params, state: Any, X: Array, y: Array, weights: Array) -> tuple[Params, Any]:
        residual = weights * (X @ params["w"] + params["b"] - y)
        return {"b": params["b"] - rate * 2.0 * jnp.sum(residual), "w": params["w"] - rate * 2.0 * (X.T @ residual)}, state

    return Level(lambda _: (), update)


def autodiff(rate: Any) -> Level:
    """Level 2: the gradient by differentiating the loss."""

    def loss(params: Params, X: Array, y: Array, weights: Array) -> Array:
        return jnp.sum(weights * (X @ params["w"] + params["b"] - y) ** 2)

    return Level(lambda _: (), lambda params, state, *batch: (_moved(params, jax.grad(loss)(params, *batch), rate), state))


def library(rate: Any) -> Level:
    """Level 3: a model, a loss and an optimizer, each of which knows nothing of the others."""
    optimizer = optax.sgd(rate)

    def objective(params: Params, X: Array, y: Array, weights: Array) -> Array:
        return jnp.sum(weights * losses.squared_error(models.linear(params["w"], X) + params["b"], y))

    def update(params: Params, state: Any, *batch: Array) -> tuple[Params, Any]:
        updates, state = optimizer.update(jax.grad(objective)(params, *batch), state, params)
        return optax.apply_updates(params, updates), state  # pyright: ignore[reportReturnType]

    return Level(optimizer.init, update)


LEVELS = {"1 manual": manual, "2 autodiff": autodiff, "3 library": library}


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_epochs: int = 100,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """Train by every level on the same batches.

    Parameters
    ----------
    learning_rate
        By default the page's 0.01, or a third of 2 / L where that is lower.
    batch_size
        By default the page's 32, or half of the examples where they are fewer than 64.
    """
    if not theory.is_least_squares(problem) or not np.all(problem.data[0][:, 0] == 1.0) or problem.num_examples < 5:
        raise InputError(f"experiment implementation_levels is about a line's fit to 5 or more rows, which {problem.name} is not.")
    rate = min(0.01, theory.stability_edge(problem.smoothness) / 3.0) if learning_rate is None else learning_rate
    batch = min(32, problem.num_examples // 2) if batch_size is None else whole("batch_size", batch_size)
    updates = min(MOST_UPDATES, whole("num_epochs", num_epochs) * -(-problem.num_examples // batch))
    given: dict[str, Any] = {"record_every": 1, "learning_rate": rate}
    engine = {
        "full": sweep(problem, sampler="full", num_steps=num_epochs, **given),
        "mini": sweep(problem, sampler="reshuffled", num_steps=updates, batch_size=batch, seed=seed, **given),
    }
    tables = {
        "full": samplers.full(np.random.default_rng(), num_epochs, problem.num_examples, 0),
        "mini": samplers.reshuffled(samplers.generator(seed), updates, problem.num_examples, batch),
    }
    with precision("float64"):
        levels = {name: _levels(problem, engine[name], tables[name]) for name in engine}
        return xr.DataTree.from_dict(levels | {"pipeline": _pipeline(problem, seed)})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """The levels agree with each other and with theory; what the pipeline returns is what its way of keeping says."""
    return [
        *_level_findings(results["full"].to_dataset(), problem, "full batch"),
        *_level_findings(results["mini"].to_dataset(), problem, f"mini-batches of {int(results['mini'].batch_size)}"),
        _comparability_finding(results["full"].to_dataset(), problem),
        *_pipeline_findings(results["pipeline"].to_dataset()),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The levels on the same batches; how far they are apart; the pipeline's validation loss with what comes back."""
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_levels(panels[0, 0], results, problem)
    _draw_deviations(panels[0, 1], results["mini"].to_dataset())
    _draw_pipeline(panels[0, 2], results["pipeline"].to_dataset())
    full = results["full"].to_dataset()
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; η = {float(full.learning_rate):.3g}, "
        f"2/L = {theory.stability_edge(problem.smoothness):.4g}. Level 2 as the page has it is the full batch, levels 1 and 3 are B = "
        f"{int(results['mini'].batch_size)}.\nDashed left: exact; dotted: floor of reshuffled batches, to first order. gdjax: this suite's "
        "engine on the same batches.",
    )
    return {"implementation_levels": drawn}


def _moved(params: Params, gradient: Params, rate: Any) -> Params:
    return jax.tree.map(lambda x, g: x - rate * g, params, gradient)


@functools.partial(jax.jit, static_argnames="levels")
def _train(levels: tuple[Callable[[Any], Level], ...], X: Array, y: Array, start: Params, table: Array, rate: Any) -> Array:
    """Each level's parameters (b, w) before the first and after every update of a table of batches."""
    written = [level(rate) for level in levels]

    def step(carry: list[tuple[Params, Any]], rows: Array) -> tuple[list[tuple[Params, Any]], Array]:
        present = (rows != samplers.ABSENT).astype(X.dtype)
        batch = X[rows], y[rows], present / jnp.sum(present)
        carry = [one.update(*state, *batch) for one, state in zip(written, carry, strict=True)]
        return carry, jnp.stack([_flat(params) for params, _ in carry])

    path = jax.lax.scan(step, [(start, one.init(start)) for one in written], table)[1]
    return jnp.concatenate([jnp.broadcast_to(_flat(start), (1, *path.shape[1:])), path]).swapaxes(0, 1)


def _flat(params: Params) -> Float[Array, " p"]:
    return jnp.concatenate([params["b"][None], params["w"]])


def _arrays(problem: Problem) -> tuple[Array, Array, Params]:
    """Features without the column of ones, targets and the start."""
    X, y = problem.data
    start = jnp.asarray(problem.start)
    return jnp.asarray(X[:, 1:]), jnp.asarray(y), {"b": start[0], "w": start[1:]}


def _levels(problem: Problem, engine: xr.Dataset, table: Int[np.ndarray, "steps batch"]) -> xr.Dataset:
    """Every level's path and objective on these batches, beside the engine's objective."""
    X = np.asarray(problem.data[0])
    paths = np.asarray(_train(tuple(LEVELS.values()), *_arrays(problem), table, float(engine.learning_rate)))
    error = paths - np.asarray(problem.minimizer)
    excess = np.sum((error @ (X.T @ X / len(X))) * error, axis=-1)
    variables = {"path": (("level", "step", "parameter"), paths), "excess": (("level", "step"), excess)}
    return engine.assign_coords(level=list(LEVELS)).assign(variables)


@jax.jit
def _train_pipeline(X: Array, y: Array, X_held: Array, y_held: Array, table: Array) -> tuple[Params, Array]:
    """The parameters after every epoch of Adam, its rate halved on a plateau, and their validation losses."""
    adam, plateau = optax.adam(PIPELINE_RATE), optax.contrib.reduce_on_plateau(factor=0.5, patience=5)
    params: Params = {"b": jnp.zeros((), X.dtype), "w": jnp.zeros(X.shape[1], X.dtype)}

    def epoch(carry: Any, batches: Array) -> Any:
        def step(carry: Any, rows: Array) -> Any:
            present = (rows != samplers.ABSENT).astype(X.dtype)
            gradient = jax.grad(_mean_square)(carry[0], X[rows], y[rows], present / jnp.sum(present))
            updates, state = adam.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], jax.tree.map(lambda update: slowed.scale * update, updates)), state), None

        *trained, slowed = carry
        (params, state), _ = jax.lax.scan(step, tuple(trained), batches)
        loss = _mean_square(params, X_held, y_held, 1.0 / len(y_held))
        return (params, state, plateau.update(params, slowed, value=loss)[1]), (params, loss)

    return jax.lax.scan(epoch, (params, adam.init(params), plateau.init(params)), table)[1]


def _mean_square(params: Params, X: Any, y: Any, weights: Any) -> Array:
    return (weights * (X @ params["w"] + params["b"] - y) ** 2).sum()


def _pipeline(problem: Problem, seed: int) -> xr.Dataset:
    """Level 4: split, standardise, Adam, rate halved on a plateau, early stopping; the best parameters kept in three ways."""
    X, y = (np.asarray(part) for part in problem.data)
    X, order, fifth = X[:, 1:], samplers.generator(seed).permutation(len(y)), len(y) // 5
    train, held = order[fifth:], order[:fifth]
    X, y = ((part - part[train].mean(axis=0)) / _spread(part[train]) for part in (X, y))
    batch = min(32, len(train))
    table = samplers.reshuffled(samplers.generator(seed), PIPELINE_EPOCHS * -(-len(train) // batch), len(train), batch)
    epochs, history = _train_pipeline(X[train], y[train], X[held], y[held], table.reshape(PIPELINE_EPOCHS, -1, batch))
    epochs, history = jax.tree.map(np.asarray, (epochs, history))
    live = {name: np.empty_like(leaf[0]) for name, leaf in epochs.items()}  # PyTorch's parameters: buffers that a step overwrites
    kept: dict[str, Any] = {}
    stop = best = 0
    while stop < len(history) and stop - best <= PATIENCE:
        for name, buffer in live.items():
            buffer[...] = epochs[name][stop]
        if history[stop] <= history[: stop + 1].min():
            best, never_changed = stop, {name: jnp.asarray(leaf[stop]) for name, leaf in epochs.items()}
            kept = {"state_dict().copy()": live.copy(), "deepcopy": copy.deepcopy(live), "JAX reference": never_changed}
        stop += 1
    returned = [float(_mean_square(one, X[held], y[held], 1.0 / fifth)) for one in kept.values()]
    variables = {"validation": ("epoch", history[:stop]), "returned": ("kept", returned)}
    return xr.Dataset(variables, {"kept": list(kept), "epoch": np.arange(1, stop + 1)})


def _spread(part: np.ndarray) -> np.ndarray:
    deviation = part.std(axis=0)
    return np.where(deviation > 0, deviation, 1.0)


def _level_findings(one: xr.Dataset, problem: Problem, batches: str) -> list[Finding]:
    first, excess = one.path.sel(level="1 manual"), one.excess.sel(level="1 manual")
    said, scale = f"after each of {int(one.step[-1])} updates; deviation", np.abs(first - np.asarray(problem.minimizer)).max()
    apart = [
        Finding(
            claim=f"{batches}: level {name} is level 1 {said} over the largest error (absolute)",
            predicted=0.0,
            measured=float(np.abs(one.path.sel(level=name) - first).max() / scale),
            tolerance=1e-10,
            source="one algorithm, written differently; page section 4",
        )
        for name in one.level.values[1:]
    ]
    engine = Finding(
        claim=f"{batches}: gdjax is level 1 {said} of J over J at the start (absolute)",
        predicted=0.0,
        measured=float(np.abs(one.objective - (one.attrs["minimum"] + excess)).max() / one.objective.isel(step=0)),
        tolerance=1e-10 if one.attrs["precision"] == "float64" else analysis.ROUND_OFF["float32"][1],
        source="one algorithm, written differently",
    )
    return [*apart, engine]


def _comparability_finding(full: xr.Dataset, problem: Problem) -> Finding:
    """What the page's level 2 has left, beside what its bound says."""
    steps, ends = (
        int(full.step[-1]),
        theory.gradient_descent(theory.modes(problem), float(full.learning_rate), full.step.values[[0, -1]])[0],
    )
    best = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    bound = float(theory.contraction(best, full.attrs["smoothness"], full.attrs["strong_convexity"])) ** (2 * steps)
    excess = full.excess.sel(level="2 autodiff").values
    return Finding(
        claim=f"level 2 as the page has it, {steps} full updates: share left of the start's excess; the page's bound says {bound:.1e}",
        predicted=float(ends[1] / ends[0]),
        measured=float(excess[-1] / excess[0]),
        tolerance=1e-8,
        source="sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2, Polyak 1964; page section 5.1 has the bound of 2 / (L + mu)",
    )


def _pipeline_findings(one: xr.Dataset) -> list[Finding]:
    """Shallow copies return the last epoch, whatever is meant."""
    history = one.validation.values
    expected = {"state_dict().copy()": ("last", history[-1]), "deepcopy": ("best", history.min()), "JAX reference": ("best", history.min())}
    return [
        Finding(
            claim=f"pipeline, {len(history)} epochs, best {history.argmin() + 1}: kept by {name}, the {said} epoch's loss comes back",
            predicted=float(loss),
            measured=float(one.returned.sel(kept=name)),
            tolerance=1e-12,
            source="a shallow copy of a dict keeps its buffers, which a step overwrites; page section 4, level 4",
        )
        for name, (said, loss) in expected.items()
    ]


def _draw_levels(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    """Level 1 as a broad line, level 2 as a thin one in it, level 3 and gdjax as marks on both."""
    for name, color in (("full", figures.COLORS[0]), ("mini", figures.COLORS[1])):
        one = results[name].to_dataset()
        marked = one.isel(step=np.linspace(0, one.sizes["step"] - 1, 9).astype(int))
        axes.plot(one.epoch, one.excess.sel(level="1 manual"), linewidth=3.0, color=color, alpha=0.35, label="1 manual")
        axes.plot(one.epoch, one.excess.sel(level="2 autodiff"), linewidth=0.7, color=color, label="2 autodiff")
        axes.plot(marked.epoch, marked.excess.sel(level="3 library"), "+", color="black", markersize=5, label="3 library")
        axes.plot(
            marked.epoch, marked.objective - one.attrs["minimum"], "o", color="black", markerfacecolor="none", markersize=5, label="gdjax"
        )
    full, mini = results["full"].to_dataset(), results["mini"].to_dataset()
    start, lowest = float(full.excess[0, 0]), min(float(one.excess.where(one.excess > 0).min()) for one in (mini, full))
    exact = theory.gradient_descent(theory.modes(problem), float(full.learning_rate), full.step.values)[0]
    figures.dashed(axes, full.epoch.values, exact, bounds=(lowest, 2.0 * start), linewidth=0.7)
    floor = float(theory.reshuffled_noise(problem, float(mini.learning_rate), int(mini.batch_size)))
    axes.axhline(floor, color="black", linestyle=":", linewidth=0.9)
    corner: dict[str, Any] = {"xycoords": "axes fraction", "fontsize": 6.5, "ha": "right", "va": "top"}
    axes.annotate(f"full batch, {int(full.step[-1])} updates", (0.99, 0.98), color=figures.COLORS[0], **corner)
    axes.annotate(f"B = {int(mini.batch_size)}, {int(mini.step[-1])} updates", (0.99, 0.9), color=figures.COLORS[1], **corner)
    reach = np.log10(start / lowest)
    axes.set(
        yscale="log", xlabel=figures.LABELS["epoch"], ylabel=figures.LABELS["suboptimality"], title="levels 1 to 3 on the same batches"
    )
    axes.set_ylim(lowest * 10 ** (-0.4 * reach), start * 10 ** (0.3 * reach))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:4], labels[:4], loc="lower center", ncols=2, columnspacing=1.0, handlelength=1.2)


def _draw_deviations(axes: Axes, mini: xr.Dataset) -> None:
    """In the parameters; of gdjax in J, of which it keeps every record."""
    first = mini.path.sel(level="1 manual")
    objective = mini.attrs["minimum"] + mini.excess.sel(level="1 manual")
    axes.plot(
        mini.step, np.maximum(np.abs(mini.objective - objective), 1e-18), color=figures.COLORS[5], label="gdjax (of J)", linewidth=0.7
    )
    for level, color, width in zip(mini.level.values[1:], figures.COLORS[1:], (2.5, 0.8), strict=False):
        apart = np.abs(mini.path.sel(level=level) - first).max("parameter")
        axes.plot(mini.step, np.maximum(apart, 1e-18), color=color, label=level, linewidth=width)
    axes.axhline(1e-10, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set(yscale="log", xlabel=figures.LABELS["step"], ylabel="deviation from level 1", title="mini-batches: apart by rounding")
    axes.set_ylim(5e-19, 1e-1 if mini.attrs["precision"] == "float32" else 1e-9)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.85))


def _draw_pipeline(axes: Axes, one: xr.Dataset) -> None:
    history, epochs = one.validation.values, one.epoch.values
    best, rise = int(history.argmin()), max(history[-1] - history.min(), 1e-3 * history.min())
    axes.plot(epochs, history, color=figures.COLORS[5])
    for at, name, marker, color in ((best, "deepcopy, or a JAX array", "o", 2), (len(history) - 1, "state_dict().copy()", "s", 1)):
        axes.plot(epochs[at], history[at], marker, markersize=5, color=figures.COLORS[color], label=name, linestyle="none")
    axes.set(xlim=(max(0, best - 12), len(history) + 1), ylim=(history.min() - 1.5 * rise, history.min() + 8.0 * rise))
    axes.set(xlabel="epoch", ylabel="validation loss (standardised)", title="level 4: what comes back")
    axes.legend(loc="upper right", title="kept by", title_fontsize=7)
