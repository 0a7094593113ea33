"""A run goes on from a file as if it had never stopped, if all that it needs is in the file; and a file needs no classes.

Claim
    A run that is saved (parameters and optimizer's state, as arrays by their paths) and resumed is the run that was not interrupted.
    With the parameters alone, which is what the page saves, it is another run wherever the method remembers anything.
Theory
    A step is a function of parameters, state and examples, and the examples of step t are a function of (seed, t): so three things make
    the rest of a run, and each is arrays and numbers. The page's section 6, put right:
    - `torch.save(model)` does not "embed the class definition": pickle stores a reference to the class, by module and name. So it breaks
      when the class moves, and when the class changes the old object gets the new code, without a word.
    - A file of a `state_dict()` is a pickle as well, and a pickle may run anything while it is loaded.
    - `state_dict().copy()` (section 4, level 4) copies a dictionary, not the buffers in it, which the next step overwrites.
Sweep
    Methods x {not interrupted, resumed from a file, resumed with the parameters alone}; what may happen to a file x ways to write it.
Expect
    The resumed run on top of the one that was not interrupted, and momentum lost where only parameters were kept.
Command
    gdjax experiment=persistence
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import pickle
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gdjax import figures, persistence, samplers, theory
from gdjax.descent import Progress, Schedule, begin, descend
from gdjax.methods import resolve
from gdjax.program import precision
from gdjax.records import Finding, InputError, Measurement, Problem, whole

NUM_WEIGHTS = 64
"""Of the made-up model that is written to files."""

KEPT, OTHER, REFUSED, RAN = "same numbers", "other numbers", "refused", "runs it"
"""What comes of loading a file."""

OLD_HOME, OLD_CLASS = "models_of_last_year", "class Linear:\n    def predict(self, x): return x @ self.w\n"
NEW_CLASS = OLD_CLASS.replace("x @ self.w", "2.0 * (x @ self.w)")

calls: list[str] = []
"""What a file that was loaded has run."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    methods: Sequence[str] | str = ("sgd", "heavy_ball", "adam"),
    num_steps: int = 100,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """Stop runs halfway and resume them; write a model to files, and see what is read back when things have changed.

    Parameters
    ----------
    methods
        By their names.
    num_steps
        Before the run is stopped, and after.
    learning_rate
        By default a tenth of 2 / L.
    batch_size
        By default 16, or half of the examples where they are fewer than 32.
    """
    if learning_rate is None:
        if problem.smoothness is None:
            raise InputError(f"experiment persistence knows no rate for {problem.name}: give learning_rate=...")
        learning_rate = 0.1 * theory.stability_edge(problem.smoothness)
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names:
        raise InputError("methods=[] is not allowed: give one or more names, e.g. methods=[sgd,adam].")
    half = whole("num_steps", num_steps, least=2)
    batch = max(1, min(16, problem.num_examples // 2)) if batch_size is None else whole("batch_size", batch_size)
    given: dict[str, Any] = {"learning_rate": learning_rate, "batch_size": batch, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name in names:
            uninterrupted = sweep(problem, method=name, num_steps=2 * half, record_every=1, **given)
            runs[name] = _interrupted(problem, name, uninterrupted, half, Path(folder) / "run.safetensors")
        together = xr.concat(runs.values(), xr.DataArray(names, dims="optimizer", name="optimizer"), combine_attrs="override")
        outcomes = xr.Dataset({"outcome": (("event", "written"), _outcomes(Path(folder)))}, {"event": EVENTS, "written": [*WAYS]})
        copies = _copies(runs[names[-1]], Path(folder) / "best.safetensors")
    return xr.DataTree.from_dict({"runs": together, "files": outcomes, "copies": copies})


class _Run(NamedTuple):
    """What makes a run: the program of a half, the examples of both halves, and where one stands that begins at given parameters."""

    advance: Callable[..., tuple[Progress, Any]]
    tables: list[np.ndarray | None]
    begin: Callable[[Any], Progress]
    start: Progress


def _interrupted(problem: Problem, name: str, uninterrupted: xr.Dataset, half: int, path: Path) -> xr.Dataset:
    """The run in two halves, the second resumed in three ways, beside the run that was not interrupted."""
    kind = "progress of a run"
    with precision(uninterrupted.attrs["precision"]):
        whole_run = _prepared(problem, name, uninterrupted, half)
        halfway, first = whole_run.advance(whole_run.tables[0], whole_run.start)
        persistence.save(path, halfway, kind=kind, settings={"method": name, "step": half})
        from_file: Progress = persistence.load(path, kind=kind).restore(whole_run.start)
        only_params = whole_run.begin(jax.tree.map(lambda leaf: leaf[..., 0], halfway.lanes))
        ways = {"in memory": halfway, "from a file": from_file, "parameters alone": only_params}
        rests = {way: whole_run.advance(whole_run.tables[1], state)[1] for way, state in ways.items()}
    y = 1 if problem.minimum is not None else 0
    before = np.asarray(first.records)[:, y, 0]
    lines = {"not interrupted": uninterrupted[Measurement._fields[y]].values[1:]}
    lines |= {way: np.concatenate([before, np.asarray(rest.records)[:, y, 0]]) for way, rest in rests.items()}
    ends = np.stack([uninterrupted.params.values, *(_flat(rest.params) for rest in rests.values())])
    variables = {
        "curve": (("way", "step"), np.stack([*lines.values()])),
        "end": (("way", "parameter"), ends),
        "halfway": ("parameter", _flat(halfway.lanes)),
        "remembered": ((), sum(leaf.size for leaf in jax.tree.leaves(halfway.state))),
    }
    coordinates = {"way": [*lines], "step": np.arange(1, 2 * half + 1), "parameter": uninterrupted.parameter.values}
    attrs = {"precision": uninterrupted.attrs["precision"], "half": half, "batch_size": int(uninterrupted.batch_size)}
    return xr.Dataset(variables, coordinates, attrs | {"y": Measurement._fields[y], "learning_rate": float(uninterrupted.learning_rate)})


def _prepared(problem: Problem, name: str, uninterrupted: xr.Dataset, half: int) -> _Run:
    """The same examples that the engine gives the run of this seed and batch size."""
    dtype = uninterrupted.attrs["precision"]
    problem = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), problem)
    resolved = resolve(name, {"learning_rate": 0.0})[0]
    numbers: dict[str, Any] = {"learning_rate": np.full(1, uninterrupted.learning_rate, dtype)}
    n, batch = problem.num_examples, int(uninterrupted.batch_size)
    full = not jax.tree.leaves(problem.data)
    tables: list[np.ndarray | None] = [None, None]
    if not full:
        drawn = samplers.reshuffled(samplers.generator(int(uninterrupted.seed)), 2 * half, n, batch)
        spare = np.zeros((1, batch), np.int32)  # the loop gathers one step ahead
        tables = [np.concatenate([part, spare]) for part in (drawn[:half], drawn[half:])]
    counted: Any = np.arange(half + 1, dtype=np.int32)
    schedule = Schedule(np.ones_like(counted[1:]), counted[:-1], counted[1:])

    def begun(params: Any) -> Progress:
        return begin(dataclasses.replace(problem, start=params), resolved, numbers, 1, full=full)

    program = jax.jit(functools.partial(descend, method=resolved, ragged=n % batch != 0))

    def advance(table: np.ndarray | None, progress: Progress) -> tuple[Progress, Any]:
        return program(problem, numbers=numbers, indices=table, schedule=schedule, progress=progress)

    return _Run(advance, tables, begun, begun(problem.start))


def _flat(lanes: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf)[..., 0].ravel() for leaf in jax.tree.leaves(lanes)])


def _copies(one: xr.Dataset, path: Path) -> xr.Dataset:
    """Keep the parameters of halfway in three ways while a NumPy buffer that holds them is trained on, as PyTorch's are."""
    live = {"params": one.halfway.values.copy()}
    shallow, deep = live.copy(), copy.deepcopy(live)
    persistence.save(path, live, kind="best parameters")
    live["params"][...] = one.end.sel(way="not interrupted").values
    filed = persistence.load(path, kind="best parameters").restore(live)
    kept = {"state_dict().copy()": shallow, "deepcopy": deep, "a file": filed}
    moved = [float(np.abs(copied["params"] - one.halfway.values).max()) for copied in kept.values()]
    return xr.Dataset({"moved": ("kept", moved)}, {"kept": [*kept]}, {"trained": float(np.abs(live["params"] - one.halfway.values).max())})


class _Way(NamedTuple):
    """A way to write a model to a file: (class, weights, version) -> bytes, and bytes -> weights, of version 1."""

    write: Callable[[type, np.ndarray, int], bytes]
    read: Callable[[bytes], np.ndarray]


def _object(linear: type, weights: np.ndarray) -> Any:
    model = linear()
    model.w = weights
    return model


def _through_file(folder: Path) -> _Way:
    path, kind = folder / "model.safetensors", "linear"

    def write(linear: type, weights: np.ndarray, version: int) -> bytes:
        return persistence.save(path, vars(_object(linear, weights)), kind=kind, version=version).read_bytes()

    def read(raw: bytes) -> np.ndarray:
        path.write_bytes(raw)
        return persistence.load(path, kind=kind).restore({"w": np.zeros(NUM_WEIGHTS)})["w"]

    return _Way(write, read)


def _ways(folder: Path) -> dict[str, _Way]:
    return {
        "gdjax file": _through_file(folder),
        "pickled arrays": _Way(lambda linear, w, _: pickle.dumps(vars(_object(linear, w))), lambda raw: pickle.loads(raw)["w"]),
        "pickled model": _Way(lambda linear, w, _: pickle.dumps(_object(linear, w)), lambda raw: pickle.loads(raw).w),
    }


WAYS = ("gdjax file", "pickled arrays", "pickled model")
EVENTS = ["nothing", "its class moved", "cut short", "a bit changed", "later version", "code in it"]


@contextlib.contextmanager
def _class_at_home(source: str) -> Iterator[type]:
    """The class in its old module, as long as that is there."""
    home = types.ModuleType(OLD_HOME)
    exec(source, home.__dict__)
    sys.modules[OLD_HOME] = home
    try:
        yield home.Linear
    finally:
        del sys.modules[OLD_HOME]


def _outcomes(folder: Path) -> np.ndarray:
    """What each event makes of a file in each of the ways."""
    weights = np.random.default_rng(0).normal(size=NUM_WEIGHTS)
    return np.array([[_outcome(event, way, weights) for way in _ways(folder).values()] for event in EVENTS])


def _outcome(event: str, way: _Way, weights: np.ndarray) -> str:
    with _class_at_home(OLD_CLASS) as linear:
        if event == "code in it":
            return _with_code(way, linear)
        raw = way.write(linear, 1e3 * weights if event == "later version" else weights, 2 if event == "later version" else 1)
        if event == "cut short":
            raw = raw[: len(raw) // 2]
        if event == "a bit changed":
            place = raw.index(weights.tobytes()) + weights.nbytes // 2
            raw = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        if event != "its class moved":
            return _read(way, raw, weights)
    return _read(way, raw, weights)


def _read(way: _Way, raw: bytes, weights: np.ndarray) -> str:
    try:
        return KEPT if np.array_equal(way.read(raw), weights) else OTHER
    except (InputError, pickle.UnpicklingError, ImportError, AttributeError, EOFError):
        return REFUSED


def _called(said: str) -> str:
    calls.append(said)
    return said


class Trojan:
    """An array that is none: what unpickles it calls a function."""

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return _called, ("run while loading",)


def _with_code(way: _Way, linear: type) -> str:
    calls.clear()
    try:
        raw = way.write(linear, Trojan(), 1)  # pyright: ignore[reportArgumentType]
    except InputError:
        return REFUSED
    way.read(raw)
    return RAN if calls else KEPT


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Resumed runs against those not interrupted; what comes of files against what must."""
    runs = results["runs"].to_dataset()
    return [
        *(finding for name in runs.optimizer.values for finding in _resume_findings(runs.sel(optimizer=name), str(name))),
        *_copy_findings(results["copies"].to_dataset()),
        *_file_findings(results["files"].to_dataset().outcome),
        *_pickle_findings(),
    ]


def _resume_findings(one: xr.Dataset, name: str) -> list[Finding]:
    def apart(way: str, other: str) -> float:
        after, expected = (one.curve.sel(way=name, step=slice(one.attrs["half"] + 1, None)) for name in (way, other))
        return float(np.abs(after - expected).max() / np.abs(expected).max())

    rounding, seen = {"float64": (1e-12, 1e-10), "float32": (1e-5, 2e-5)}[one.attrs["precision"]]
    said = f"over its largest value in the {one.attrs['half']} steps after (absolute)"
    params = np.abs(one.end.sel(way="from a file") - one.end.sel(way="in memory"))
    findings = [
        Finding(
            claim=f"{name}: from a file as from memory: largest deviation of a parameter (absolute), bit for bit",
            predicted=0.0,
            measured=float(params.max()),
            tolerance=0.0,
            source="the file has all that a step needs, to the bit",
        ),
        Finding(
            claim=f"{name}: resumed as not interrupted: deviation of the {one.attrs['y']} {said}",
            predicted=0.0,
            measured=apart("from a file", "not interrupted"),
            tolerance=rounding,
            source="a step is a function of parameters, state and examples; apart by the rounding of two programs",
        ),
    ]
    remembers, lost = int(one.remembered) > 0, apart("parameters alone", "not interrupted")
    alone = Finding(
        claim=f"{name}, parameters alone as the page saves them: "
        + (
            f"another run, deviation of the {one.attrs['y']} {said}" if remembers else f"enough, for it remembers nothing: deviation {said}"
        ),
        predicted=seen if remembers else 0.0,
        measured=lost,
        tolerance=0.0 if remembers else rounding,
        source=f"the optimizer's state has {int(one.remembered)} numbers; page section 6 saves model.state_dict() only",
        kind="at_least" if remembers else "equal",
    )
    return [*findings, alone]


def _copy_findings(copies: xr.Dataset) -> list[Finding]:
    return [
        Finding(
            claim=f"parameters kept by {kept}, then trained on: the kept ones move with them by (absolute)",
            predicted=copies.attrs["trained"] if kept == "state_dict().copy()" else 0.0,
            measured=float(copies.moved.sel(kept=kept)),
            tolerance=0.0,
            source="a copy of a dictionary holds the same buffers; page section 4, level 4",
        )
        for kept in copies.kept.values
    ]


EXPECTED = {
    "gdjax file": (KEPT, KEPT, REFUSED, REFUSED, REFUSED, REFUSED),
    "pickled arrays": (KEPT, KEPT, REFUSED, OTHER, OTHER, RAN),
    "pickled model": (KEPT, REFUSED, REFUSED, OTHER, OTHER, RAN),
}
"""What must come of the events, in their order; `REFUSED` for a pickle is an error of Python's."""


def _file_findings(outcome: xr.DataArray) -> list[Finding]:
    sources = {
        "gdjax file": "arrays by their paths, a digest and a version; nothing in it is run",
        "pickled arrays": "a pickle runs what it says, and has no digest; torch.save(state_dict) writes one",
        "pickled model": "a pickle stores a reference to the class; page section 6: 'embeds the class definition'",
    }
    return [
        Finding(
            claim=f"{way}: of {len(EVENTS)} events ({', '.join(EVENTS)}) as many end as they must ({', '.join(EXPECTED[way])})",
            predicted=float(len(EVENTS)),
            measured=float(np.sum(outcome.sel(written=way).values == np.array(EXPECTED[way]))),
            tolerance=0.0,
            source=source,
        )
        for way, source in sources.items()
    ]


def _pickle_findings() -> list[Finding]:
    """The class's code is not in its object's pickle: its length plays no part, and the code that runs is that of today."""
    with _class_at_home(OLD_CLASS) as linear:
        raw = pickle.dumps(_object(linear, np.ones(NUM_WEIGHTS)))
    with _class_at_home(OLD_CLASS + "    longer = " + repr("x" * 10_000)) as longer:
        of_longer = pickle.dumps(_object(longer, np.ones(NUM_WEIGHTS)))
    with _class_at_home(NEW_CLASS):
        predicted = float(pickle.loads(raw).predict(np.ones(NUM_WEIGHTS)))
    return [
        Finding(
            claim="a pickled model, its class 10,000 characters longer: bytes that the file grows by",
            predicted=0.0,
            measured=float(len(of_longer) - len(raw)),
            tolerance=0.0,
            source="pickle stores module and name; page section 6: 'embeds the class definition'",
        ),
        Finding(
            claim="a pickled model whose class has since doubled its predictions: prediction over that of the day it was saved",
            predicted=2.0,
            measured=predicted / NUM_WEIGHTS,
            tolerance=1e-12,
            source="the code is that of the class found under the name; 1 if the definition were embedded",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """A panel for each method that remembers something, and what comes of files."""
    runs = results["runs"].to_dataset()
    shown = [name for name in runs.optimizer.values if int(runs.remembered.sel(optimizer=name)) > 0][-2:] or [runs.optimizer.values[0]]
    widths = (*(1.0 for _ in shown), 1.5)
    drawn, panels = figures.figure(len(widths), width=7.2, height=2.7, gridspec_kw={"width_ratios": widths})
    for axes, name in zip(panels[0], shown, strict=False):
        _draw_runs(axes, runs.sel(optimizer=name), str(name))
    panels[0, 0].set_ylabel(figures.LABELS[runs.attrs["y"]])
    panels[0, len(shown) - 1].legend(loc="best")
    _draw_outcomes(panels[0, -1], results["files"].to_dataset().outcome)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; B = {runs.attrs['batch_size']}, reshuffled, η = "
        f"{runs.attrs['learning_rate']:.3g}. Dotted: stopped, saved and resumed here. “Parameters alone” is what the page's section 6 "
        f"saves.\nRight: a model of {NUM_WEIGHTS} weights, written and read back. Blue: as it should be. Orange: not.",
    )
    return {"persistence": drawn}


def _draw_runs(axes: Axes, one: xr.Dataset, name: str) -> None:
    half = one.attrs["half"]
    around = one.sel(step=slice(max(1, half - 30), half + 60))
    style: dict[str, Any] = {
        "not interrupted": {"color": figures.COLORS[0], "linewidth": 3.0, "alpha": 0.35},
        "parameters alone": {"color": figures.COLORS[1]},
        "from a file": {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 0.9},
    }
    for way, line in style.items():
        values = around.curve.sel(way=way)
        values = values.where(values.step >= half) if way != "not interrupted" else values
        axes.plot(around.step, values, label=way, **line)
    axes.axvline(half, color="0.4", linewidth=0.8, linestyle=":")
    positive = bool((around.curve > 0).all())
    axes.set(yscale="log" if positive else "linear", xlabel=figures.LABELS["step"], title=name.replace("_", " "))


def _draw_outcomes(axes: Axes, outcome: xr.DataArray) -> None:
    """A table of what was measured, coloured by whether it is as one wishes."""
    wished = {event: {KEPT} if event in EVENTS[:2] else {REFUSED} for event in EVENTS}
    for row, event in enumerate(outcome.event.values):
        for column, way in enumerate(outcome.written.values):
            here = str(outcome.sel(event=event, written=way).item())
            color = figures.COLORS[0] if here in wished[str(event)] else figures.COLORS[1]
            axes.add_patch(Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, facecolor=color, alpha=0.25, edgecolor="none"))
            axes.annotate(here, (column + 0.5, row + 0.5), ha="center", va="center", fontsize=6.5)
    axes.set(xlim=(0, outcome.sizes["written"]), ylim=(outcome.sizes["event"], 0), title="what comes of a file")
    axes.set_xticks(np.arange(outcome.sizes["written"]) + 0.5, outcome.written.values)
    axes.set_yticks(np.arange(outcome.sizes["event"]) + 0.5, outcome.event.values)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
