"""What figures are made of: curves coloured by rate, bands over seeds, theory dashed, diverged runs shown where they leave.

A drawing function is wrapped in `paper`, which sets sizes and fonts for print without touching the user's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "gdjax",
    "savefig.dpi": 200,
    "figure.dpi": 100,
}

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by the colour-blind; for the few things that have no order."""

RATES = "viridis"
MOST_CURVES = 48
"""More curves than this tell no more; evenly many are left out."""

LABELS = {
    "step": "step t",
    "epoch": "epochs (examples seen / n)",
    "suboptimality": "suboptimality  f(x$_t$) − f*",
    "objective": "objective  f(x$_t$)",
    "learning_rate": "learning rate η",
    "gradient_norm": "gradient norm  ‖∇f(x$_t$)‖",
    "distance": "distance  ‖x$_t$ − x*‖",
}


def paper(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in the style of a printed figure."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def figure(columns: int = 1, rows: int = 1, *, width: float = 7.0, height: float = 3.0, **options: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure with a grid of panels; sizes are inches, 3.4 for one column of a paper and 7 for two."""
    empty = Figure(figsize=(width, height), layout="constrained")
    return empty, np.asarray(empty.subplots(rows, columns, squeeze=False, **options))


def limits(start: float, values: np.ndarray) -> tuple[float, float]:
    """A range of y in which converging runs fill the panel, and one that diverges leaves it at 1,000 times the start."""
    seen = values[np.isfinite(values) & (values > 0)]
    low = max(seen.min(initial=start), 1e-28 * start)
    stays = len(seen) == values.size and seen.max() < 1e3 * start
    return 0.3 * low, 3.0 * max(seen.max(), start) if stays else 1e3 * start


def curves(axes: Axes, values: xr.DataArray, *, x: str = "step", norm: Normalize | None = None, bounds: tuple[float, float]) -> None:
    """One line for each learning rate, coloured by it; a triangle where a run leaves the panel for good."""
    norm = norm or LogNorm(*_ends(values.learning_rate.values))
    rates = values.learning_rate.values
    shown = np.unique(np.linspace(0, len(rates) - 1, min(len(rates), MOST_CURVES)).round().astype(int))
    for index in shown:
        line = values.isel(learning_rate=index)
        color = matplotlib.colormaps[RATES](norm(rates[index]))
        trajectory(axes, line[x].values, line.values, bounds=bounds, color=color, linewidth=0.7)


def trajectory(axes: Axes, x: np.ndarray, y: np.ndarray, *, bounds: tuple[float, float], **line: Any) -> None:
    """One run; where it leaves the panel at the top it ends in a triangle."""
    outside = ~(y <= bounds[1])
    first = int(np.argmax(outside)) if outside.any() else len(y)
    kept = np.where((y > 0) & (np.arange(len(y)) < first), y, np.nan)
    axes.plot(x[: first + 1], np.append(kept[:first], [bounds[1]] if outside.any() else []), **line)
    if outside.any():
        axes.plot(x[first], bounds[1], marker="^", markersize=3.5, clip_on=False, color=line.get("color"), linestyle="none")


def band(axes: Axes, x: np.ndarray, values: xr.DataArray, *, bounds: tuple[float, float], dim: str = "seed", **line: Any) -> None:
    """The mean over `dim` and the band from the 10 % to the 90 % quantile; past the numbers both are infinite, not absent."""
    ordered = values.fillna(np.inf).transpose(dim, ...).values
    low, high = np.quantile(ordered, [0.1, 0.9], axis=0, method="nearest")
    low, middle, high = (np.clip(edge, 0.1 * bounds[0], 10.0 * bounds[1]) for edge in (low, ordered.mean(axis=0), high))
    axes.fill_between(x, low, high, color=line.get("color"), alpha=0.18, linewidth=0)
    axes.plot(x, middle, **line)


def rate_scale(drawn: Figure, panels: Any, norm: Normalize, *, edge: float | None = None, label: str = LABELS["learning_rate"]) -> None:
    """The colour scale of the rates, with the stability edge marked on it."""
    bar = drawn.colorbar(ScalarMappable(norm, RATES), ax=panels, label=label, pad=0.02, aspect=30)
    bar.ax.grid(visible=False)
    if edge is not None:
        bar.ax.axhline(edge, color="white", linewidth=2.5)
        bar.ax.axhline(edge, color="black", linewidth=1.0, linestyle=(0, (2, 1)))


def edge_line(axes: Axes, at: float, label: str, *, color: str = "black", height: float = 0.97, side: str = "left") -> None:
    """A predicted limit of the rate: a dashed vertical line with its name along it."""
    axes.axvline(at, color=color, linewidth=0.9, linestyle=(0, (4, 2)))
    left = side == "left"
    axes.annotate(
        label,
        (at, height),
        xycoords=("data", "axes fraction"),
        xytext=(-2 if left else 2, 0),
        textcoords="offset points",
        rotation=90,
        ha="right" if left else "left",
        va="top",
        fontsize=6.5,
        color=color,
    )


def tag(axes: Axes, x: float, y: float, text: str) -> None:
    """A small name on a curve."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    axes.annotate(text, (x, y), fontsize=6.5, ha="center", va="center", bbox=box, zorder=4)


def dashed(axes: Axes, x: np.ndarray, y: np.ndarray, *, bounds: tuple[float, float], **line: Any) -> None:
    """A prediction, which may leave the panel."""
    inside = np.clip(np.nan_to_num(y, nan=np.inf), 0.1 * bounds[0], 10.0 * bounds[1])
    axes.plot(x, inside, **{"color": "black", "linestyle": (0, (3, 2)), "linewidth": 0.9, "zorder": 3} | line)


def source(drawn: Figure, text: str) -> None:
    """A small line at the foot: where data and theory come from."""
    drawn.supxlabel(text, fontsize=6, color="0.35", x=0.01, ha="left")


def _ends(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    positive = np.asarray(values)[np.asarray(values) > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    return (low, high) if low < high else (low / 2, high * 2)
