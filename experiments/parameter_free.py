"""Steps that need no tuned rate: averages instead of a schedule, estimates of the distance, and Polyak's step.

Claim
    Schedule-free averages keep f - f* <= D G / sqrt T for any interpolation; the distance estimates of D-Adaptation and Prodigy never
    fall and never pass the distance D; Polyak's step with factor 2 contracts a quadratic by (kappa - 1) / (kappa + 1), which is tight.
Theory
    Schedule-free: Defazio et al. (2024, Thm 1), rate D / (G sqrt T). D-Adaptation: Defazio and Mishchenko (2023); Prodigy: Mishchenko
    and Defazio (2023), and optax's version with Adam's averages, whose estimate is of the largest coordinate of x_0 - x*: all are lower
    bounds that convexity gives, so that they hold in every step. Polyak's step: Barre, Taylor and d'Aspremont (2020).
Sweep
    Functions max_j |a_j'x| of `last_iterate`; interpolations; first estimates; condition numbers and starts for Polyak's step.
Expect
    Everything below its line, and Polyak's step on it from the worst start.
Command
    gdjax experiment=parameter_free
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.last_iterate import EXACT, ended, family, leans
from gdjax import descent, figures, methods, problems
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import last_iterate as theory

ESTIMATES = {
    "d_adaptation": ("D-Adaptation", "estimate"),
    "prodigy_sgd": ("Prodigy", "estimate"),
    "prodigy": ("Prodigy on Adam", "estim_lr0"),
}
"""Methods that estimate the distance, and the number that is their first estimate."""

NUM_MODES = 16
WORST = 0.0
"""The start, of Polyak's step, whose error is along two modes alone."""


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_points: int = 128,
    num_functions: int = 8,
    interpolation: Sequence[float] | float = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
    num_rows: int = 32,
    num_steps: int = 1000,
    estimate: Sequence[float] | float = (1e-6, 1e-4, 1e-2),
    condition_number: Sequence[float] | float = (2.0, 10.0, 100.0, 1000.0),
    num_starts: int = 8,
) -> xr.DataTree:
    """Measure averages, estimates and contractions.

    Parameters
    ----------
    num_points
        T of the schedule-free averages, whose functions have as many parameters.
    num_rows, num_steps
        Parameters and steps of the functions on which distances are estimated.
    estimate
        First estimates of the distance 1, all below it.
    num_starts
        Starts of Polyak's step, the worst one among them.
    """
    num_points, num_starts = whole("num_points", num_points, least=2), whole("num_starts", num_starts, least=2)
    lean, num_steps = leans(num_functions), whole("num_steps", num_steps)
    blends, kappas = _within("interpolation", interpolation, 0.0, 1.0), _within("condition_number", condition_number, 1.0, 1e6)
    first = np.asarray(_within("estimate", estimate, 0.0, whole("num_rows", num_rows, least=2) ** -0.5))
    averaged = sweep(
        family(num_points),
        method="schedule_free",
        sampler="full",
        num_steps=num_points - 1,
        record_every=num_points - 1,
        lean=lean,
        interpolation=blends,
        learning_rate=theory.schedule_free_rate(num_points),
    )
    polyak = sweep(
        valley,
        method="polyak_step",
        sampler="full",
        num_steps=40,
        record_every=1,
        condition_number=kappas,
        begun=np.arange(float(num_starts)),
        learning_rate=2.0,
    )
    estimated = _estimated(lean, first, num_rows, num_steps, averaged.attrs["precision"])
    return xr.DataTree.from_dict({"averaged": averaged, "polyak": polyak, "estimated": estimated})


def _within(name: str, value: Any, low: float, high: float) -> list[float]:
    numbers = [float(number) for number in several(name, value)]
    for number in numbers:
        if not low <= number <= high or (name == "estimate" and number == 0.0):
            raise InputError(
                f"{name}={number:g} is not allowed: it is a number from {low:g} to {high:.4g}{', above 0' * (name == 'estimate')}."
            )
    return numbers


def valley(condition_number: Any, begun: Any) -> Problem:
    """A quadratic with curvatures from 1 to `condition_number`, begun at its worst start for Polyak's step (`begun` 0) or another."""
    place = jnp.arange(float(NUM_MODES))
    curvatures = condition_number ** (place / (NUM_MODES - 1.0))
    ends = (place == 0) | (place == NUM_MODES - 1)
    worst = jnp.where(ends, 1.0 / jnp.sqrt(curvatures), 0.0)
    return problems.designed_spectrum(curvatures, jnp.where(begun == WORST, worst, jnp.cos(begun * (1.0 + place) ** 2)))


def _estimated(lean: np.ndarray, first: np.ndarray, num_rows: int, num_steps: int, precision: str) -> xr.Dataset:
    """Each method's estimate after every step, and the distance that it estimates."""
    paths = []
    with jax.enable_x64(precision == "float64"):
        for name, (_, number) in ESTIMATES.items():
            numbers = {"learning_rate": jnp.ones(len(first)), number: jnp.asarray(first)}
            method, _ = methods.resolve(name, numbers)
            paths.append(np.asarray(_paths(jnp.asarray(lean), numbers, method, num_rows, num_steps)))
        starts = np.stack([np.asarray(family(num_rows)(float(value)).start) for value in lean])
    distance = [np.linalg.norm(starts, axis=1)] * 2 + [np.abs(starts).max(axis=1)]
    dims = ("estimator", "lean", "step", "first")
    coordinates = {"estimator": list(ESTIMATES), "lean": lean, "step": np.arange(1, num_steps + 1), "first": first}
    return xr.Dataset({"estimate": (dims, np.stack(paths)), "truth": (dims[:2], np.stack(distance))}, coordinates, {"precision": precision})


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _paths(lean: Array, numbers: dict[str, Array], method: methods.Method, num_rows: int, num_steps: int) -> Array:
    """The estimate in the optimizer's state between steps of the engine, one at a time."""
    one = descent.Schedule(*(jnp.full(1, number, jnp.int32) for number in (1, 0, 1)))

    def path(lean: Array) -> Array:
        problem = family(num_rows)(lean)  # pyright: ignore[reportArgumentType]
        width = len(numbers["learning_rate"])

        def step(progress: descent.Progress, _: None) -> tuple[descent.Progress, Array]:
            progress = descent.descend(problem, method, numbers, None, one, progress)[0]
            state: Any = progress.state
            return progress, state.estimate if hasattr(state, "estimate") else state.estim_lr

        return jax.lax.scan(step, descent.begin(problem, method, numbers, width, full=True), length=num_steps)[1]

    return jax.vmap(path)(lean)


def check(results: xr.DataTree) -> list[Finding]:
    """Hold averages, estimates and contractions against their bounds."""
    averaged, polyak, estimated = (results[name].to_dataset() for name in ("averaged", "polyak", "estimated"))
    slack = EXACT[averaged.attrs["precision"]]
    num_points = int(averaged.step[-1]) + 1
    findings = [
        Finding(
            claim=f"schedule-free, interpolation {float(one.interpolation):g}: largest f - f* of the average of {num_points} points, "
            f"{averaged.sizes['lean']} functions with D = G = 1",
            predicted=theory.schedule_free_bound(num_points),
            measured=float(ended(one).max()),
            tolerance=slack,
            source="D G / sqrt T at the rate D / (G sqrt T), Defazio et al. 2024, Thm 1",
            kind="at_most",
        )
        for one in (averaged.isel(interpolation=place) for place in range(averaged.sizes["interpolation"]))
    ]
    for name, (label, _) in ESTIMATES.items():
        findings += _estimate_findings(estimated.sel(estimator=name), label, slack)
    return findings + _polyak_findings(polyak, slack)


def _estimate_findings(one: xr.Dataset, label: str, slack: float) -> list[Finding]:
    whole_path = xr.concat([one.estimate.isel(step=0) * 0.0 + one["first"], one.estimate], "step")
    source = "sum of w_i <g_i, x_0 - x_i> <= |sum w_i g_i| D by convexity; Defazio and Mishchenko 2023, Mishchenko and Defazio 2023"
    of_what = "D" if label != "Prodigy on Adam" else "the largest coordinate of x_0 - x*"
    return [
        Finding(
            claim=f"{label}: smallest change of the estimate in {one.sizes['step']} steps, {one.sizes['lean']} functions (absolute)",
            predicted=0.0,
            measured=float(whole_path.diff("step").min()),
            tolerance=0.0,
            source=source,
            kind="at_least",
        ),
        Finding(
            claim=f"{label}: largest estimate over {of_what}",
            predicted=1.0,
            measured=float((one.estimate / one.truth).max()),
            tolerance=slack,
            source=source,
            kind="at_most",
        ),
    ]


def _polyak_findings(polyak: xr.Dataset, slack: float) -> list[Finding]:
    factor = polyak.distance.shift(step=-1).isel(step=slice(0, -1)) / polyak.distance.isel(step=slice(0, -1))
    predicted = xr.DataArray([theory.polyak_contraction(float(kappa)) for kappa in polyak.condition_number], dims="condition_number")
    relative, source = factor / predicted, "(kappa - 1) / (kappa + 1), Barre, Taylor and d'Aspremont 2020, by Kantorovich's inequality"
    kappas = ", ".join(f"{float(kappa):g}" for kappa in polyak.condition_number)
    return [
        Finding(
            claim=f"Polyak's step x 2, from the worst start, kappa = {kappas}: largest deviation of a step's factor over the predicted one",
            predicted=0.0,
            measured=float(np.abs(relative.sel(begun=WORST) - 1.0).max()),
            tolerance=slack,
            source=source,
        ),
        Finding(
            claim=f"Polyak's step x 2: largest factor over the predicted one, {polyak.sizes['begun'] - 1} other starts, any step",
            predicted=1.0,
            measured=float(relative.isel(begun=slice(1, None)).max()),
            tolerance=slack,
            source=source,
            kind="at_most",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """A panel for averages, one for estimates along the run, one for Polyak's step."""
    averaged, polyak, estimated = (results[name].to_dataset() for name in ("averaged", "polyak", "estimated"))
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_averaged(panels[0, 0], averaged)
    _draw_estimated(panels[0, 1], estimated)
    _draw_polyak(panels[0, 2], polyak)
    num_points = int(averaged.step[-1]) + 1
    figures.source(
        drawn,
        f"Left, middle: f = max$_j$ |a$_j$'x| with |a$_j$| = 1, begun at distance D = 1: {averaged.sizes['lean']} functions. Left: after "
        f"{num_points - 1} steps at the rate D/(G√T), T = {num_points}.\nMiddle: |x$_1$|; first estimates "
        + ", ".join(f"{float(first):g}" for first in estimated["first"])
        + ". Right: quadratics, the factor on ‖x − x*‖ in every step from several starts.",
    )
    return {"parameter_free": drawn}


def _draw_averaged(axes: Axes, averaged: xr.Dataset) -> None:
    scale = float(averaged.step[-1] + 1) ** 0.5
    last = averaged.sizes["lean"] - 1
    for place, color in zip(dict.fromkeys((0, last // 2, last - 1)), figures.COLORS, strict=False):
        one = averaged.isel(lean=place)
        label = "max |x$_i$|" if place == 0 else f"lean {float(one.lean):.2g}"
        axes.plot(one.interpolation, scale * ended(one), color=color, marker="o", markersize=3, label=label)
    axes.axhline(1.0, color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xlabel="interpolation β", ylabel="f(x$_T$) − f*  (DG/√T)", title="schedule-free averages", ylim=(0.0, 1.1))
    axes.legend(loc="lower left")


def _draw_estimated(axes: Axes, estimated: xr.Dataset) -> None:
    for (name, (label, _)), color in zip(ESTIMATES.items(), figures.COLORS, strict=False):
        one = estimated.sel(estimator=name).isel(lean=-1)
        for place in range(one.sizes["first"]):
            values = one.estimate.isel(first=place) / float(one.truth)
            axes.plot(one.step, values, color=color, linewidth=1.6 - 0.3 * list(ESTIMATES).index(name), label=label if place == 0 else None)
    axes.axhline(1.0, color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="estimate d$_t$ / D", title="estimates of the distance")
    axes.set_ylim(1e-4 * float(estimated["first"].min()), 3.0)  # room for the legend
    axes.legend(loc="lower right")


def _draw_polyak(axes: Axes, polyak: xr.Dataset) -> None:
    factor = (polyak.distance.shift(step=-1) / polyak.distance).isel(step=slice(0, -1))
    kappas = polyak.condition_number.values
    others = factor.isel(begun=slice(1, None)).stack(all=("begun", "step")).values
    axes.plot(kappas, 1.0 - others, color="0.75", marker="_", linestyle="none", markersize=5)
    axes.plot([], [], color="0.75", marker="_", linestyle="none", label="other starts")
    axes.plot(
        kappas,
        1.0 - factor.sel(begun=WORST).mean("step"),
        color=figures.COLORS[1],
        marker="o",
        markersize=3.5,
        linestyle="none",
        label="worst start",
    )
    fine = np.geomspace(kappas.min(), kappas.max() * 1.001, 100)
    axes.plot(
        fine,
        [1.0 - theory.polyak_contraction(kappa) for kappa in fine],
        color="black",
        linestyle=(0, (3, 2)),
        linewidth=0.9,
        label="2/(κ + 1)",
    )
    axes.set(
        xscale="log", yscale="log", xlabel="condition number κ", ylabel="1 − ‖x$_{t+1}$ − x*‖ / ‖x$_t$ − x*‖", title="Polyak's step × 2"
    )
    axes.legend(loc="lower left")
