"""Steps whose noise vanishes at the minimizer converge linearly at a constant rate, where SGD stalls.

Claim
    SVRG and SAGA reach the minimizer of a strongly convex mean of n functions linearly, no slower than their theorems say; SGD with
    SVRG's rate stalls at its noise floor.
Theory
    SVRG (Johnson and Zhang 2013): E f(w_s) - f* <= rho^s (f(w_0) - f*), rho = 1 / (mu eta (1 - 2 L eta) m) + 2 L eta / (1 - 2 L eta).
    SAGA (Defazio, Bach and Lacoste-Julien 2014): E||x_t - x*||^2 <= factor^t (||x_0 - x*||^2 + weight (f(x_0) - f*)) with the factor
    1 - min(1 / 4n, mu / 3L) at the rate 1 / 3L, and 1 - mu / (2 (mu n + L)) at 1 / (2 (mu n + L)). L is that of every f_i. On least
    squares SVRG's mean from the last iterate is an exact linear recursion, whose noise is only that of the examples' curvatures.
Sweep
    Seeds, batches of one example drawn with replacement: SVRG at 0.1 / L in stages of 20 L / mu steps, snapshots by its options I
    and II (as an average), SAGA at both rates, SGD at SVRG's.
Expect
    Straight lines down to round-off on a log axis, SVRG on its exact recursion, all below their bounds; SGD level at its floor.
Command
    gdjax experiment=variance_reduction
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, whole
from gdjax.theory import variance_reduction as theory

RELATIVE_RATE, RELATIVE_LENGTH = 0.1, 20.0
"""SVRG's rate in units of 1 / L, and its stages in units of L / mu: rho = 0.875."""

SAGA_RATES = ("η = 1/(3L)", "η = 1/(2(μn + L))")

WINDOW = (1e-12, 1e-4)
"""Where a line is fitted, relative to the start: past the beginning, before round-off."""


def ridge_regression(*, num_examples: int, num_features: int, ridge: float, noise: float, data_seed: int) -> Problem:
    """f_i = (x_i'theta - y_i)^2 + ridge |theta|^2 with |x_i| = 1, so that every f_i has the same L = 2 (1 + ridge)."""
    rng = np.random.default_rng(data_seed)
    X = rng.normal(size=(num_examples, num_features))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = X @ rng.normal(size=num_features) + noise * rng.normal(size=num_examples)
    hessian = 2.0 * (X.T @ X / num_examples + ridge * np.eye(num_features))
    minimizer = np.linalg.solve(hessian, 2.0 * X.T @ y / num_examples)
    curvatures = np.linalg.eigvalsh(hessian)
    return Problem(
        evaluate=models.Linear(losses.squared_error, intercept=False),
        name="ridge_regression",
        data=(X, y),
        constants={"ridge": ridge},
        start=np.zeros(num_features),
        minimizer=minimizer,
        minimum=float(np.mean((X @ minimizer - y) ** 2) + ridge * minimizer @ minimizer),
        smoothness=curvatures[-1],
        strong_convexity=curvatures[0],
        hessian=hessian,
    )


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 12_000,
    num_seeds: int = 200,
    num_examples: int = 200,
    num_features: int = 10,
    ridge: float = 0.01,
    noise: float = 1.0,
    data_seed: int = 0,
) -> xr.DataTree:
    """Run SGD, SVRG and SAGA on one data set, over seeds.

    Parameters
    ----------
    noise
        The standard deviation of the targets around the line.
    data_seed
        Of the features, the line and the targets.
    """
    data = {
        "num_examples": whole("num_examples", num_examples, least=2),
        "num_features": whole("num_features", num_features),
        "ridge": _positive("ridge", ridge),
        "noise": _positive("noise", noise),
        "data_seed": whole("data_seed", data_seed, least=0),
    }
    problem = ridge_regression(**data)
    largest, convexity = 2.0 * (1.0 + ridge), float(np.asarray(problem.strong_convexity))
    rate, length = RELATIVE_RATE / largest, math.ceil(RELATIVE_LENGTH * largest / convexity)
    num_stages = max(2, whole("num_steps", num_steps) // length)
    saga = (theory.saga(largest, convexity, num_examples), theory.saga_strongly_convex(largest, convexity, num_examples))
    kinds: dict[str, dict[str, Any]] = {
        "sgd": {"method": "sgd", "learning_rate": rate},
        "svrg": {"method": "svrg", "learning_rate": rate, "stage_length": length},
        "svrg_average": {"method": "svrg", "learning_rate": rate, "stage_length": length, "average": True},
        "saga": {"method": "saga", "learning_rate": [one.learning_rate for one in saga]},
    }
    shared = {"sampler": "with_replacement", "batch_size": 1, "seed": range(whole("num_seeds", num_seeds, least=2))}
    parts = {
        name: sweep(problem, num_steps=num_stages * length, record_every=length, **shared, **kind).assign_attrs(data)
        for name, kind in kinds.items()
    }
    return xr.DataTree.from_dict(parts)


def _positive(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{name}={value} is not allowed: it is a number above 0.")
    return float(value)


def check(results: xr.DataTree) -> list[Finding]:
    """Compare every method with its theorem, SVRG and SGD with their exact means."""
    parts = {name: results[name].to_dataset() for name in results.children}
    return [
        *_svrg_findings(parts["svrg"], parts["svrg_average"]),
        *_saga_findings(parts["saga"]),
        *(finding for label, one in _curves(parts).items() for finding in _line_findings(label, one)),
        _floor_finding(parts["sgd"]),
    ]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Suboptimality against steps, and SAGA's distance beside its bounds."""
    parts = {name: results[name].to_dataset() for name in results.children}
    drawn, panels = figures.figure(2, width=7.0, height=3.2)
    _draw_objective(panels[0, 0], parts)
    _draw_distance(panels[0, 1], parts["saga"])
    panels[0, 1].legend(*panels[0, 0].get_legend_handles_labels(), loc="lower left")
    one, constants = parts["svrg"], _constants(parts["svrg"])
    figures.source(
        drawn,
        f"n = {one.attrs['num_examples']} unit rows, {one.attrs['num_features']} parameters, ridge {one.attrs['ridge']:g}: L = "
        f"{constants['smoothness']:.3g} for every f$_i$, μ = {constants['strong_convexity']:.3g}. Batches of one, with replacement. "
        f"Lines: mean of {one.sizes['seed']} seeds, bands 10–90 %.\nDashed: exact means (SVRG from its last iterate; SGD's floor). "
        "Dotted: bounds of the theorems. Below 1e−28 is round-off.",
    )
    return {"variance_reduction": drawn}


def _problem(one: xr.Dataset) -> Problem:
    names = ("num_examples", "num_features", "ridge", "noise", "data_seed")
    return ridge_regression(**{name: one.attrs[name] for name in names})


def _constants(one: xr.Dataset) -> dict[str, float]:
    """L of every f_i, and mu of f."""
    return {"smoothness": 2.0 * (1.0 + one.attrs["ridge"]), "strong_convexity": one.attrs["strong_convexity"]}


def _curves(parts: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """What converges, by its name."""
    saga = {f"SAGA, {name}": parts["saga"].isel(learning_rate=place) for place, name in enumerate(SAGA_RATES)}
    return {"SVRG, last iterate": parts["svrg"], "SVRG, average": parts["svrg_average"]} | saga


def _bound(one: xr.Dataset) -> np.ndarray:
    """Johnson and Zhang's bound after each stage."""
    length = one.attrs["stage_length"]
    factor = theory.svrg_factor(float(one.learning_rate), **_constants(one), stage_length=length)
    return float(one.suboptimality.isel(seed=0, step=0)) * factor ** (one.step.values / length)


def _svrg_findings(last: xr.Dataset, average: xr.Dataset) -> list[Finding]:
    length = last.attrs["stage_length"]
    factor = theory.svrg_factor(float(last.learning_rate), **_constants(last), stage_length=length)
    findings = [
        Finding(
            claim=f"SVRG, average of the stage: largest factor of the mean suboptimality in a stage of {length} steps",
            predicted=factor,
            measured=_largest_factor(average),
            tolerance=0.0,
            source="Johnson and Zhang 2013, Thm 1",
            kind="at_most",
        ),
        Finding(
            claim="SVRG, average of the stage: largest ratio of the mean suboptimality after s stages to rho^s (f(w_0) - f*)",
            predicted=1.0,
            measured=float((average.suboptimality.mean("seed") / _bound(average)).isel(step=slice(1, None)).max()),
            tolerance=0.0,
            source="Johnson and Zhang 2013, Thm 1",
            kind="at_most",
        ),
    ]
    exact = _exact_svrg(last)
    for stage in (1, 2):
        samples = last.suboptimality.isel(step=stage)
        findings.append(
            Finding(
                claim=f"SVRG, last iterate: mean suboptimality after stage {stage}, over {samples.size} seeds (4 standard errors)",
                predicted=float(exact[stage]),
                measured=float(samples.mean()),
                tolerance=float(4.0 * analysis.standard_error(samples, "seed") / exact[stage]),
                source="exact recursion of SVRG's second moments on least squares, from its definition",
            )
        )
    return findings


def _exact_svrg(last: xr.Dataset) -> np.ndarray:
    with precision("float64"), jax.numpy_rank_promotion("allow"):
        means = theory.svrg_means(
            theory.ridge(_problem(last)),
            float(last.learning_rate),
            stage_length=last.attrs["stage_length"],
            num_stages=last.sizes["step"] - 1,
        )
    return np.asarray(means)


def _largest_factor(one: xr.Dataset) -> float:
    mean = one.suboptimality.mean("seed")
    ratio = mean.shift(step=-1) / mean
    return float(ratio.where(mean > 1e-26 * mean.isel(step=0)).max())


def _saga_theorems(saga: xr.Dataset) -> list[theory.Saga]:
    return [build(**_constants(saga), num_examples=saga.attrs["num_examples"]) for build in (theory.saga, theory.saga_strongly_convex)]


def _saga_bound(one: xr.Dataset, theorem: theory.Saga) -> np.ndarray:
    start = one.isel(seed=0, step=0)
    return (float(start.distance) ** 2 + theorem.weight * float(start.suboptimality)) * theorem.factor**one.step.values


def _saga_findings(saga: xr.Dataset) -> list[Finding]:
    findings = []
    for place, theorem in enumerate(_saga_theorems(saga)):
        one = saga.isel(learning_rate=place)
        squared = (one.distance**2).mean("seed")
        kept = squared.values > 1e-24 * float(squared[0])
        findings.append(
            Finding(
                claim=f"SAGA, {SAGA_RATES[place]}: largest ratio of the mean squared distance to its bound at any record",
                predicted=1.0,
                measured=float(np.max((squared.values / _saga_bound(one, theorem))[kept])),
                tolerance=0.0,
                source="Defazio, Bach and Lacoste-Julien 2014",
                kind="at_most",
            )
        )
        findings.append(
            Finding(
                claim=f"SAGA, {SAGA_RATES[place]}: factor of the mean suboptimality in a step, by a line's slope",
                predicted=theorem.factor,
                measured=math.exp(_line(one, np.log(one.suboptimality.mean("seed")))[0]),
                tolerance=0.0,
                source="Defazio, Bach and Lacoste-Julien 2014",
                kind="at_most",
            )
        )
    return findings


def _line(one: xr.Dataset, logarithm: xr.DataArray) -> tuple[float, float]:
    """The slope of a logarithm of the suboptimality against steps, and the R^2 of a line, within the window."""
    fallen = logarithm.values - logarithm.values[0]
    kept = (fallen < np.log(WINDOW[1])) & (fallen > np.log(WINDOW[0]))
    if kept.sum() < 3:
        return np.nan, np.nan
    steps, log = one.step.values[kept], logarithm.values[kept]
    slope, shift = np.polyfit(steps, log, 1)
    return float(slope), 1.0 - float(np.var(log - slope * steps - shift) / np.var(log))


def _line_findings(label: str, one: xr.Dataset) -> list[Finding]:
    mean = one.suboptimality.mean("seed")
    return [
        Finding(
            claim=f"{label}: R² of a line through the mean of log(f − f*), from {WINDOW[1]:g} to {WINDOW[0]:g} of the start",
            predicted=0.999,
            measured=_line(one, np.log(one.suboptimality).mean("seed"))[1],
            tolerance=0.0,
            source="a step near the minimizer is a random matrix: its products grow at one exponent (Furstenberg and Kesten 1960)",
            kind="at_least",
        ),
        Finding(
            claim=f"{label}: mean suboptimality at the end, relative to the start",
            predicted=1e-10,
            measured=float(mean.isel(step=-1) / mean.isel(step=0)),
            tolerance=0.0,
            source="linear convergence at a constant rate",
            kind="at_most",
        ),
    ]


def _floor_finding(sgd: xr.Dataset) -> Finding:
    late = sgd.suboptimality.where(sgd.step >= 0.5 * sgd.step.max(), drop=True).mean("step")
    floor = theory.sgd_floor(theory.ridge(_problem(sgd)), float(sgd.learning_rate))
    return Finding(
        claim=f"SGD at SVRG's rate {float(sgd.learning_rate):.3g} stalls: mean suboptimality over {late.size} seeds and the last half "
        "(4 standard errors)",
        predicted=floor,
        measured=float(late.mean()),
        tolerance=float(4.0 * analysis.standard_error(late, "seed")) / floor,
        source="the fixed point of the exact recursion of E ee' for SGD on least squares (LMS)",
    )


def _draw_objective(axes: Axes, parts: dict[str, xr.Dataset]) -> None:
    start = float(parts["sgd"].suboptimality.isel(seed=0, step=0))
    bounds = (1e-31, 10.0 * start)
    curves = {"SGD, same rate": parts["sgd"], **_curves(parts)}
    for (label, one), color in zip(curves.items(), figures.COLORS, strict=False):
        figures.band(axes, one.step.values, one.suboptimality, bounds=bounds, color=color, label=label)
    steps, exact = parts["svrg"].step.values, _exact_svrg(parts["svrg"])
    figures.dashed(axes, steps[exact > 1e-29], exact[exact > 1e-29], bounds=bounds)
    axes.plot(steps, _bound(parts["svrg"]), color=figures.COLORS[2], linestyle=":", linewidth=1.1)
    floor = theory.sgd_floor(theory.ridge(_problem(parts["sgd"])), float(parts["sgd"].learning_rate))
    figures.dashed(axes, steps[1:], np.full(len(steps) - 1, floor), bounds=bounds)
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"])


def _draw_distance(axes: Axes, saga: xr.Dataset) -> None:
    bounds = (1e-31, 1e4)
    for place, (theorem, color) in enumerate(zip(_saga_theorems(saga), figures.COLORS[3:], strict=False)):
        one = saga.isel(learning_rate=place)
        figures.band(axes, one.step.values, one.distance**2, bounds=bounds, color=color)
        axes.plot(one.step.values, _saga_bound(one, theorem), color=color, linestyle=":", linewidth=1.1)
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel="squared distance  ‖x$_t$ − x*‖²")
