"""The curves of any sweep, with what theory says of them."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gdjax import predictions
from gdjax.figures.parts import COLORS, LABELS, MOST_CURVES, RATES, dashed, figure, limits, paper, rate_scale, source, trajectory
from gdjax.predictions import Prediction
from gdjax.records import Problem

FEW_CURVES = 6
"""So many curves have names in a legend and bands of their own; more have a colour scale."""

MOST_PANELS = 6

MOST_PREDICTED = 5
"""Of many curves so many have theory beside them."""

EARLY = 0.06
"""Where most curves have done half of their fall before this share of the run, steps are on a log axis."""

STROKES: dict[str, dict[str, Any]] = {
    "equal": {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 0.9},
    "mean": {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 0.9},
    "floor": {"linestyle": (0, (1, 1.5)), "linewidth": 1.1},
    "at_most": {"linestyle": (0, (6, 1.5, 1, 1.5)), "linewidth": 0.9},
    "slope": {"linestyle": (0, (4, 1.5, 1, 1.5, 1, 1.5)), "linewidth": 0.9},
}
"""How each kind of prediction is drawn; one without a colour takes its curve's."""

LEGEND: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "none", "borderpad": 0.2}

SAID = {"equal": "Dashed", "mean": "Dashed", "floor": "Dotted level", "at_most": "Dash-dotted", "slope": "Dash-dot-dotted"}


@paper
def convergence(
    dataset: xr.Dataset,
    *,
    x: str = "step",
    y: str = "suboptimality",
    theory: bool | xr.DataArray | None = None,
    problem: Problem | None = None,
    edge: float | None = None,
    xscale: str | None = None,
    note: str = "",
) -> Figure:
    """A sweep's curves against steps or epochs, whatever its dimensions are.

    A colour a rate (or a job, coloured by its rate; or the values of the longest other dimension), the median over seeds with a band
    from the 10 % to the 90 % quantile where few curves are drawn, and a panel for each combination of what remains. Where theory speaks
    of the mean over batches, the mean over seeds is drawn instead of the median.

    Parameters
    ----------
    theory
        True for all that theory says of such runs, by `gdjax.predictions`: nothing where it says nothing. Quadratics keep in the sweep
        what that takes, also when it is opened again. Or predicted values, with some of the sweep's dimensions, drawn dashed.
    problem
        The sweep's problem, where theory asks for its examples: mini-batches' mean, floor and edge.
    edge
        The stability edge, marked on the colour scale; with `theory=True` it is found.
    xscale
        "linear" or "log"; by default log where most of the fall happens early.

    Raises
    ------
    InputError
        For a problem that the sweep was not about.
    """
    dataset = _until_all_ended(dataset)
    values = dataset[y].assign_coords({x: dataset[x]}).fillna(np.inf)
    of_lines = _line_dimension(values)
    apart = [dim for dim in values.dims if dim not in (of_lines, "seed", "step")]
    choices = _choices(values, apart)
    colors = _line_colors(values, of_lines)
    lines = _shown(colors)
    overlays = [_overlay(dataset, theory, problem, y, choice, of_lines, lines) for choice in choices]
    averaged = any(said.kind in ("mean", "floor") for said in itertools.chain(*overlays))
    middle = _middle(values, averaged)
    bounds = limits(float(np.max(values.isel(step=0))), middle.values)
    edges = _Edges.of(dataset, edge, theory, problem)
    notes = [note, *_seeds_said(values, averaged, few=colors.few), *_stops_said(dataset)]
    notes += [*_theory_said(overlays), *edges.said(colors, choices)]
    if math.prod(values.sizes[dim] for dim in apart) > len(choices):
        notes.append(f"{len(choices)} of {math.prod(values.sizes[dim] for dim in apart)} combinations shown.")
    if not bool((middle <= bounds[1]).all()):
        notes.append("Triangles: diverged.")
    scale = xscale or _scale(middle, x)
    columns = 2 if len(choices) == 4 else min(3, len(choices))
    drawn, panels = _canvas(columns, choices, " ".join(filter(None, notes)))
    kept = list(panels.ravel()[: len(choices)])
    for panel, choice, overlay in zip(kept, choices, overlays, strict=True):
        stopped = dataset.stopped_at.sel(choice) if "stopped_at" in dataset else None
        _draw_lines(panel, values.sel(choice), middle.sel(choice), stopped, of_lines, colors, lines, overlay, x=x, bounds=bounds)
        panel.set_title(", ".join([*(f"{_name(str(dim))} {value:g}" for dim, value in choice.items()), *edges.of_panel(choice)]))
        panel.set(yscale="log", ylim=bounds)
        panel.set(xscale=scale, xlim=_span(middle, x, bounds[1], scale))
    for panel in panels.ravel()[len(choices) :]:
        panel.remove()
    _explain_lines(drawn, kept, kept[columns - 1], colors, overlays, edges)
    for panel in kept[-columns:]:
        panel.set_xlabel(LABELS.get(x, x))
        panel.tick_params(labelbottom=True)
    for panel in panels[:, 0]:
        panel.set_ylabel(LABELS.get(y, y))
    return drawn


def _until_all_ended(dataset: xr.Dataset) -> xr.Dataset:
    """Without the records after the last run has been stopped, where a rule has stopped all."""
    if "stopped_at" not in dataset or not bool((dataset.stopped_at >= 0).all()):
        return dataset
    return dataset.sel(step=slice(None, int(dataset.stopped_at.max())))


def _canvas(columns: int, choices: list[Any], note: str) -> tuple[Figure, np.ndarray]:
    """Empty panels, with the note at the foot as broad as they are."""
    rows, alone = -(-len(choices) // columns), len(choices) == 1
    width = 4.6 if alone else 7.2
    foot = textwrap.fill(note, int(20 * width), break_long_words=False)
    height = (3.0 if alone else 0.5 + 2.2 * rows) + 0.1 * foot.count("\n")
    drawn, panels = figure(columns, rows, width=width, height=height, sharex=True, sharey=True)
    source(drawn, foot)
    return drawn, panels


def _line_dimension(values: xr.DataArray) -> str | None:
    free = [str(dim) for dim in values.dims if dim not in ("seed", "step")]
    preferred = [dim for dim in ("learning_rate", "job") if dim in free]
    return preferred[0] if preferred else max(free, key=lambda dim: values.sizes[dim], default=None)


def _choices(values: xr.DataArray, dims: Sequence[Any]) -> list[dict[Any, Any]]:
    """The combinations that have a panel: all, or evenly many of them."""
    every = [dict(zip(dims, combination, strict=True)) for combination in itertools.product(*(values[dim].values for dim in dims))]
    return [every[index] for index in _evenly(len(every), MOST_PANELS)]


def _evenly(total: int, most: int) -> np.ndarray:
    """At most so many of that many places, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))


class _Colors(NamedTuple):
    """What tells lines apart: a number each, its colour, and the scale where there are too many for a legend."""

    numbers: np.ndarray
    of: Callable[[float], Any]
    scale: Normalize | None
    label: str

    @property
    def few(self) -> bool:
        return self.scale is None


def _line_colors(values: xr.DataArray, of_lines: str | None) -> _Colors:
    if of_lines is None:
        return _Colors(np.zeros(1), {0.0: COLORS[0]}.__getitem__, None, "")
    rate = values.coords.get("learning_rate")
    name = "learning_rate" if of_lines == "job" and rate is not None and rate.dims == ("job",) else of_lines
    numbers = np.asarray(values[name].values, dtype=float)
    different = np.unique(numbers)
    if len(different) <= FEW_CURVES:
        ranks = np.linspace(0.0, 0.85, len(different))
        return _Colors(numbers, lambda number: matplotlib.colormaps[RATES](ranks[np.searchsorted(different, number)]), None, _name(name))
    logarithmic = different[0] > 0 and (name == "learning_rate" or different[-1] > 10 * different[0])
    scale = (LogNorm if logarithmic else Normalize)(different[0], different[-1])
    return _Colors(numbers, lambda number: matplotlib.colormaps[RATES](scale(number)), scale, _name(name))


def _shown(colors: _Colors) -> np.ndarray:
    """The lines that are drawn, in the order of their numbers."""
    order = np.argsort(colors.numbers, kind="stable")
    return order[_evenly(len(order), MOST_CURVES)]


def _middle(values: xr.DataArray, averaged: bool) -> xr.DataArray:
    """The mean or the median over seeds."""
    if "seed" not in values.dims:
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        return values.mean("seed", skipna=False).fillna(np.inf) if averaged else values.median("seed")


def _overlay(
    dataset: xr.Dataset, theory: Any, problem: Problem | None, y: str, choice: dict[Any, Any], of_lines: str | None, lines: np.ndarray
) -> list[Prediction]:
    """What theory says of a panel's lines, or of some where there are many."""
    some = {} if of_lines is None else {of_lines: lines[_evenly(len(lines), MOST_PREDICTED if len(lines) > FEW_CURVES else len(lines))]}
    if theory is None or theory is False:
        return []
    if theory is True:
        here = dataset.sel(choice).isel({dim: places for dim, places in (some | {"seed": 0}).items() if dim in dataset.dims})
        return predictions.predict(here, problem, y=y)
    here = theory.sel({dim: value for dim, value in choice.items() if dim in theory.dims})
    here = here.isel({dim: places for dim, places in some.items() if dim in here.dims})
    return [Prediction(name="theory", kind="equal", values=here, formula="", source="")]


def _draw_lines(
    axes: Axes,
    values: xr.DataArray,
    middle: xr.DataArray,
    stopped: xr.DataArray | None,
    of_lines: str | None,
    colors: _Colors,
    lines: np.ndarray,
    overlay: list[Prediction],
    *,
    x: str,
    bounds: Any,
) -> None:
    width = {"linewidth": 2.2, "alpha": 0.6} if colors.few and overlay else {"linewidth": 0.9, "alpha": 1.0 if len(lines) < 20 else 0.7}
    for index in lines:
        line, center = (_own(part, of_lines, index) for part in (values, middle))
        color, across = colors.of(float(colors.numbers[index])), line[x].values
        going = slice(None)
        if stopped is not None:
            going = _draw_stop(axes, _at(stopped, of_lines, index).values.ravel(), center, across, bounds=bounds, color=color)
        if "seed" in line.dims and colors.few:
            ends = np.quantile(line.transpose("seed", ...), [0.1, 0.9], axis=0, method="nearest")[:, going]
            axes.fill_between(across[going], *np.clip(ends, 0.1 * bounds[0], 10 * bounds[1]), color=color, alpha=0.18, linewidth=0)
        trajectory(axes, across[going], center.values[going], bounds=bounds, color=color, **width)
    for said in overlay:
        _draw_prediction(axes, said, middle, of_lines, colors, lines, x=x, bounds=bounds)


def _draw_stop(axes: Axes, stops: np.ndarray, line: xr.DataArray, across: np.ndarray, *, bounds: Any, color: Any) -> slice:
    """A cross where the rule stopped a run, or half of those seeds that it stopped; gives the records up to where all had stopped."""
    fired = stops[stops >= 0]
    if not fired.size:
        return slice(None)
    middle, last = (min(int(np.searchsorted(line.step.values, at)), len(across) - 1) for at in (np.median(fired), fired.max()))
    if bounds[0] < line.values[middle] <= bounds[1]:
        axes.plot(across[middle], line.values[middle], "x", color=color, markersize=5, mew=1.3, clip_on=False, zorder=4)
    return slice(last + 1 if fired.size == stops.size else None)


def _draw_prediction(
    axes: Axes, said: Prediction, middle: xr.DataArray, of_lines: str | None, colors: _Colors, lines: np.ndarray, *, x: str, bounds: Any
) -> None:
    """A line for each of the curves it speaks of."""
    some = lines[_evenly(len(lines), MOST_PREDICTED if len(lines) > FEW_CURVES else len(lines))]
    if of_lines not in said.values.dims:
        some = some[:1]
    for place, index in enumerate(some):
        row = said.values.isel({of_lines: place}) if of_lines in said.values.dims else said.values
        across = _own(middle, of_lines, index)[x].values
        stroke = {"color": colors.of(float(colors.numbers[index]))} | STROKES[said.kind]
        heights = row.values[: len(across)] if row.ndim else np.full(across.shape, float(row))
        outside = ~(heights <= bounds[1]) & (said.kind in ("equal", "mean"))
        last = int(np.argmax(outside)) if outside.any() else len(heights)  # as far as a measured line goes
        if not np.isnan(heights).all():
            top = bounds[1] if outside.any() else np.inf
            dashed(axes, across[: last + 1], np.minimum(heights[: last + 1], top), bounds=bounds, **stroke)


def _at(values: xr.DataArray, of_lines: str | None, index: int) -> xr.DataArray:
    return values if of_lines is None else values.isel({of_lines: index})


def _own(values: xr.DataArray, of_lines: str | None, index: int) -> xr.DataArray:
    """One line, up to the last step that it took: a run of fewer steps than others keeps its last values after that."""
    line = _at(values, of_lines, index)
    epoch = line.coords.get("epoch")
    return line if epoch is None or epoch.ndim != 1 else line.isel(step=slice(1 + int(np.argmax(epoch.values >= epoch.values[-1]))))


class _Edges(NamedTuple):
    """Where runs of this kind begin to diverge: one rate, or one for each of some other numbers."""

    values: xr.DataArray | None
    formula: str

    @classmethod
    def of(cls, dataset: xr.Dataset, edge: float | None, theory: Any, problem: Problem | None) -> _Edges:
        if edge is not None:
            return cls(xr.DataArray(edge), "stability edge")
        said = predictions.stability_edge(dataset, problem) if theory is True else None
        if said is None:
            return cls(None, "")
        alike = said.values.size and bool((said.values == said.values.values.flat[0]).all())
        return cls(xr.DataArray(said.values.values.flat[0]) if alike else said.values, said.formula)

    @property
    def one(self) -> float | None:
        """The edge of all runs, where they have the same."""
        return float(self.values) if self.values is not None and self.values.ndim == 0 else None

    def of_panel(self, choice: dict[Any, Any]) -> list[str]:
        """A panel's own edge, where panels differ in it."""
        if self.values is None or self.values.ndim == 0 or not set(self.values.dims) <= set(choice):
            return []
        return [f"edge {float(self.values.sel({dim: choice[dim] for dim in self.values.dims})):.3g}"]

    def said(self, colors: _Colors, choices: list[dict[Any, Any]]) -> list[str]:
        if self.values is None:
            return []
        if self.one is not None:
            return [f"Stability edge {self.formula} = {self.one:.4g}." if self.formula != "stability edge" else ""]
        low, high = float(self.values.min()), float(self.values.max())
        return [f"Stability edges, {self.formula}: {low:.3g} to {high:.3g}."]


def _seeds_said(values: xr.DataArray, averaged: bool, *, few: bool) -> list[str]:
    if "seed" not in values.dims:
        return []
    return [f"{'Mean' if averaged else 'Median'} of {values.sizes['seed']} seeds" + (", band: 10 % to 90 % quantile." if few else ".")]


def _stops_said(dataset: xr.Dataset) -> list[str]:
    """How many runs the rule stopped; crosses are where."""
    if "stopped_at" not in dataset:
        return []
    stops, rule = dataset.stopped_at, dataset.attrs.get("stop", "the rule")
    fired = int((stops >= 0).sum())
    if not fired:
        return [f"No run was stopped by {rule}."]
    many = f", {fired} of {stops.size} runs" if stops.size > 1 else ""
    return [f"Cross: stopped by {rule}{many}{' (median over seeds)' if 'seed' in stops.dims else ''}."]


def _theory_said(overlays: list[list[Prediction]]) -> list[str]:
    """What each kind of stroke is, with its source."""
    different = {said.name: said for said in itertools.chain(*overlays) if said.formula}
    return [f"{SAID[said.kind]}: {said.name}, {said.formula} ({said.source})." for said in different.values()]


def _explain_lines(
    drawn: Figure, panels: list[Axes], corner: Axes, colors: _Colors, overlays: list[list[Prediction]], edges: _Edges
) -> None:
    """A legend for a few lines, a colour scale for many; and what strokes mean where there is room."""
    handles, of_rates = [], colors.label == LABELS["learning_rate"]
    if colors.scale is not None:
        rate_scale(drawn, panels, colors.scale, edge=edges.one if of_rates else None, label=colors.label)
    elif colors.label:
        handles = [
            Line2D([], [], color=colors.of(number), label=_beyond(number, edges.one if of_rates else None))
            for number in np.unique(colors.numbers)
        ]
    rates = len(handles)
    kinds: dict[str, dict[str, Any]] = {said.name: {"color": "0.35"} | STROKES[said.kind] for said in itertools.chain(*overlays)}
    if rates + len(kinds) <= FEW_CURVES + 1:
        handles += [Line2D([], [], label=name, **stroke) for name, stroke in kinds.items()]
    if handles:
        corner.legend(handles=handles, title=colors.label if rates else None, title_fontsize=7, loc="best", **LEGEND)


def _beyond(number: float, edge: float | None) -> str:
    return f"{number:.4g}" + (" (past the edge)" if edge is not None and number >= edge else "")


def _scale(middle: xr.DataArray, x: str) -> str:
    """Log where most curves fall early and then crawl; linear, on which linear convergence is straight, otherwise."""
    across = np.broadcast_to(middle[x].values, middle.transpose(..., "step").shape) if middle[x].ndim == 1 else None
    if across is None or middle.sizes["step"] < 30:
        return "linear"
    rows, first = middle.transpose(..., "step").values.reshape(-1, middle.sizes["step"]), middle[x].values
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(np.where(rows > 0, rows, np.nan))
        fallen = log[:, :1] - log
        total = np.nanmax(np.where(np.isfinite(fallen), fallen, -np.inf), axis=1, keepdims=True)
        half = np.argmax(fallen >= 0.5 * total, axis=1)
    falls = (total[:, 0] > 0.5) & (np.isfinite(log).all(axis=1))
    return "log" if falls.any() and np.median(first[half[falls]]) < EARLY * first[-1] else "linear"


def _span(middle: xr.DataArray, x: str, top: float, scale: str) -> tuple[float | None, float | None]:
    """The ends of the x axis: where runs begin on a log axis, and a little after the last has left the panel where all do."""
    inside = (middle <= top).transpose("step", ...).values.reshape(middle.sizes["step"], -1)
    across = middle[x].transpose("step", ...).values.reshape(middle.sizes["step"], -1).max(axis=1)
    right = 1.3 * across[inside.sum(axis=0).max()] if not inside[-1].any() else None
    left = float(across[across > 0][0]) if scale == "log" and (across > 0).any() else None
    return (left if right is None or left is not None else -0.03 * right, right)


def _name(dim: str) -> str:
    return LABELS.get(dim, dim.replace("_", " "))
