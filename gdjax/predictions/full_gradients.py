"""Runs whose every step takes the full gradient: exact on quadratics, bounded on other smooth convex problems."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from gdjax import methods, theory
from gdjax.predictions.known import Known, Prediction, Runs, edge_at
from gdjax.theory import acceleration, momentum, smooth_convex, stability

MOST_ENTRIES = 2**24
"""Numbers of a curve's modes held at a time: runs x records x modes."""


def _weighted(modes: theory.Modes, y: str) -> tuple[theory.Modes, float]:
    """Modes whose sum lambda c^2 / 2 is the square of `y` (or `y` itself), and what directions without curvature add to it."""
    curvatures, start = modes
    curved = curvatures > 0
    scale = {"distance": np.sqrt(2.0 / np.where(curved, curvatures, 1.0)), "gradient_norm": np.sqrt(2.0 * curvatures)}.get(y, 1.0)
    flat = float(np.sum(start[~curved] ** 2)) if y == "distance" else 0.0
    return theory.Modes(curvatures, start * scale), flat


class _Exact(NamedTuple):
    """A method whose error along each eigenvector is known: numbers it takes, and modes x numbers x steps -> suboptimality."""

    numbers: tuple[str, ...]
    curves: Callable[..., Float[np.ndarray, "runs records"]]
    formula: str
    source: str


def _one_by_one(modes: theory.Modes, rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.stack([acceleration.nesterov_convex(modes, rate, steps) for rate in rates])


EXACT = {
    "sgd": _Exact(
        ("learning_rate",),
        lambda modes, rates, steps: theory.gradient_descent(modes, rates, steps),
        "Σ λ c² (1 − ηλ)²ᵗ / 2",
        "Polyak 1964",
    ),
    "sgd with momentum": _Exact(
        ("learning_rate", "momentum"),
        lambda modes, rates, betas, steps: momentum.heavy_ball(modes, rates, betas, steps),
        "roots of z² − (1 + β − ηλ) z + β",
        "Polyak 1964",
    ),
    "heavy_ball": _Exact(
        ("learning_rate", "momentum"),
        lambda modes, rates, betas, steps: momentum.heavy_ball(modes, rates, betas, steps),
        "roots of z² − (1 + β − ηλ) z + β",
        "Polyak 1964",
    ),
    "nesterov": _Exact(
        ("learning_rate", "momentum"),
        lambda modes, rates, betas, steps: momentum.nesterov(modes, rates, betas, steps),
        "roots of z² − (1 + β)(1 − ηλ) z + β (1 − ηλ)",
        "Nesterov 2004",
    ),
    "nesterov_convex": _Exact(("learning_rate",), _one_by_one, "each eigenmode's recursion", "Nesterov 1983"),
}
"""Quadratics, full gradients, constant numbers."""


def method_of(known: Known) -> str:
    """The method's name in the tables: optax's `sgd` is another with a momentum than without."""
    return "sgd with momentum" if known.attrs["method"] == "sgd" and "momentum" in known.coords else known.attrs["method"]


def exact_curve(known: Known) -> Prediction | None:
    """Of a method in `EXACT` with full gradients on a quadratic."""
    exact = EXACT.get(method_of(known)) if known.is_full else None
    runs = known.numbers(*exact.numbers) if exact is not None else None
    if exact is None or runs is None or known.modes is None or (known.y == "objective" and "minimum" not in known.attrs):
        return None
    modes, flat = _weighted(known.modes, known.y)
    together = max(1, MOST_ENTRIES // (len(known.steps) * len(modes.start)))
    total = len(runs.columns[0])
    parts = [
        exact.curves(modes, *(column[first : first + together] for column in runs.columns), known.steps)
        for first in range(0, total, together)
    ]
    rows = np.concatenate(parts) + (known.attrs["minimum"] if known.y == "objective" else flat)
    if known.y in ("distance", "gradient_norm"):
        rows = np.sqrt(rows)
    return Prediction(name="exact curve", kind="equal", values=runs.curves(rows, known.steps), formula=exact.formula, source=exact.source)


def _convex(known: Known, *names: str, method: str = "sgd") -> tuple[Runs, float, float] | None:
    """Runs with full gradients on a smooth convex f that is no quadratic, L and R; None where something is missing."""
    given = known.attrs.get("convex") and "smoothness" in known.attrs and known.distance is not None
    if not (given and known.is_full and known.y == "suboptimality" and known.modes is None and method_of(known) == method):
        return None
    runs = known.numbers("learning_rate", *names)
    return None if runs is None else (runs, float(known.attrs["smoothness"]), float(known.distance or 0.0))


def convex_bound(known: Known) -> Prediction | None:
    """L R^2 / (4 N h + 2), h = eta L <= 1: no smooth convex f is worse for gradient descent."""
    found = _convex(known)
    if found is None:
        return None
    runs, smoothness, distance = found
    h = runs.columns[0][:, None] * smoothness
    worst = smooth_convex.huber_case(known.steps[None], h) * smoothness * distance**2
    values = runs.curves(np.where(h <= 1.0, worst, np.nan), known.steps)
    return Prediction(name="bound", kind="at_most", values=values, formula="LR² / (4tηL + 2)", source="Drori and Teboulle 2014")


def accelerated_bound(known: Known) -> Prediction | None:
    """2 R^2 / (eta (t + 1)^2), eta <= 1 / L, of Nesterov's method with momentum t / (t + 3)."""
    found = _convex(known, method="nesterov_convex")
    if found is None:
        return None
    runs, smoothness, distance = found
    rates = runs.columns[0]
    rows = [
        acceleration.convex_bound(1.0 / rate, distance, known.steps) if 0 < rate * smoothness <= 1 else np.nan * known.steps
        for rate in rates
    ]
    return Prediction(
        name="bound",
        kind="at_most",
        values=runs.curves(np.asarray(rows), known.steps),
        formula="2R² / (η (t + 1)²)",
        source="Beck and Teboulle 2009",
    )


def strongly_convex(known: Known) -> Prediction | None:
    """L R^2 rho^(2t) / 2 of gradient descent, rho = max(|1 - eta mu|, |1 - eta L|): a bound, or where mu is local how steep curves end."""
    found = _convex(known)
    mu = known.attrs.get("strong_convexity")
    if found is None or not mu:
        return None
    runs, smoothness, distance = found
    local = bool(known.attrs.get("strong_convexity_is_local"))
    rates = runs.columns[0]
    rho = np.where(rates * smoothness <= (1.0 if local else 2.0), theory.contraction(rates, mu if local else smoothness, mu), np.nan)
    rows = 0.5 * smoothness * distance**2 * np.where(np.isnan(rho[:, None]), np.nan, rho[:, None] ** (2 * known.steps[None]))
    return Prediction(
        name="slope at x*" if local else "bound",
        kind="slope" if local else "at_most",
        values=runs.curves(rows, known.steps),
        formula="(1 − ημ)²ᵗ, μ of the Hessian at x*" if local else "LR² max(|1 − ημ|, |1 − ηL|)²ᵗ / 2",
        source="Polyak 1964" if local else "Nesterov 2004, Thm 2.1.15",
    )


def full_batch_edge(known: Known) -> Prediction | None:
    """2 / L and what momentum makes of it, on quadratics; of any other smooth convex f descent is sure below 2 / L."""
    method = method_of(known)
    smoothness = known.attrs.get("smoothness")
    if not known.is_full or smoothness is None or not (known.modes is not None or known.attrs.get("convex")):
        return None
    if method == "sgd" and known.is_plain:
        sure = "2/L" if known.modes is not None else "2/L, below which f falls in every step,"
        return edge_at(known, xr.DataArray(theory.stability_edge(smoothness)), sure, "Polyak 1964")
    formulas = {
        "sgd with momentum": (momentum.heavy_ball_edge, "2(1 + β)/L"),
        "heavy_ball": (momentum.heavy_ball_edge, "2(1 + β)/L"),
        "nesterov": (stability.nesterov_edge, "2(1 + β)/(L (1 + 2β))"),
    }
    if method not in formulas or known.modes is None or known.numbers("learning_rate", "momentum") is None:
        return None
    edge, formula = formulas[method]
    default = inspect.signature(methods.available()[known.attrs["method"]]).parameters["momentum"].default
    runs = Runs.of(known.coords["momentum"] if "momentum" in known.coords else xr.DataArray(default))
    return edge_at(known, runs.levels(edge(smoothness, runs.columns[0])), formula, "Polyak 1964")
