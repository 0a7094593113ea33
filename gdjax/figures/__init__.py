"""From a Dataset to a Figure; nothing here saves."""

from gdjax.figures.parts import (
    COLORS,
    LABELS,
    MOST_CURVES,
    RATES,
    STYLE,
    band,
    curves,
    dashed,
    edge_line,
    figure,
    limits,
    paper,
    rate_scale,
    source,
    tag,
    trajectory,
)
from gdjax.figures.sweeps import FEW_CURVES, MOST_PANELS, convergence

__all__ = [
    "COLORS",
    "FEW_CURVES",
    "LABELS",
    "MOST_CURVES",
    "MOST_PANELS",
    "RATES",
    "STYLE",
    "band",
    "convergence",
    "curves",
    "dashed",
    "edge_line",
    "figure",
    "limits",
    "paper",
    "rate_scale",
    "source",
    "tag",
    "trajectory",
]
