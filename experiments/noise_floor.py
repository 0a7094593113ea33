"""SGD at a constant rate stalls at a floor that is known exactly: by the batch, by how it is drawn, by inputs and by momentum.

Claim
    The mean square of constant-step SGD on least squares follows an exact recursion to an exact floor, with and without replacement,
    and is bounded up to an exact edge, below that of gradient descent. So it is for fresh Gaussian inputs, and for momentum.
Theory
    S+ = (I - gamma G) S (I - gamma G) + gamma^2 c_B (mean x x'S x x' - GSG + mean r^2 x x' - 2 mean r (x'm) x x') for S = E ee', gamma
    = 2 eta, with c_B = 1/B with replacement and (n - B) / (B (n - 1)) without. For fresh u ~ N(0, H) the floor is sigma^2 U / (2 (1 - U)),
    U = sum_i gamma lambda_i / (2B - gamma (B + 1) lambda_i) (Horowitz and Senne 1981, Feuer and Weinstein 1985). Heavy ball:
    alpha c (1 + beta) / ((1 - beta) h (2 (1 + beta) - alpha h)) a mode (Mandt et al. 2017 to first order; Ziyin et al. 2022).
Sweep
    Batch sizes x rates x seeds by both ways to draw; starts and few steps at the edges; streams of Gaussian inputs; curvature x momentum.
Expect
    Dots on 10,000 predicted settings: floors that rise as the rate to first order, and to infinity at the mean-square edge.
Command
    gdjax experiment=noise_floor
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, noisy, problems, theory
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import moments, streaming

SPECTRUM = 1.0 / np.arange(1, 21)
"""Of the Gaussian inputs: lambda_i = 1/i."""

STREAM_STEPS = 600
"""They begin at the minimizer, and the exact curve is known before it reaches its floor."""

MOMENTUM_RATE = 0.5

ACCEPTED = 0.03
"""Floors are to be met this nearly; with so few seeds that 4 standard errors are more, within these."""

EDGE_STEPS = 2
"""So few that a mean over some thousand runs is not yet one of rare events."""

MOST_STARTS = 12
"""Parameters with which the edge is measured: one sweep each."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 2000,
    batch_size: Sequence[int] | int | None = None,
    relative_learning_rate: Sequence[float] | float = (0.2, 0.35, 0.5),
    num_seeds: int = 2000,
    num_streams: int = 1000,
) -> xr.DataTree:
    """Sweep batch sizes, rates and seeds with and without replacement; then edges, streams and momenta.

    Parameters
    ----------
    batch_size
        By default 1, 4, 16 up to n / 2.
    relative_learning_rate
        Rates in units of the smallest batch's mean-square edge, below 1.
    num_streams
        Seeds of the Gaussian streams and of momentum, which know nothing of the problem.
    """
    if not theory.has_moments(problem, "with_replacement"):
        raise InputError(
            f"experiment noise_floor is about least squares with at most {moments.MOST_PARAMETERS} parameters, which {problem.name} is not."
        )
    n = problem.num_examples
    sizes = [size for size in (1, 4, 16) if 2 * size <= n] or [1] if batch_size is None else several("batch_size", batch_size)
    if not all(1 <= size <= n for size in sizes):
        raise InputError(f"batch_size={sizes} is not allowed: sizes are from 1 to n = {n}, the number of examples.")
    relative = several("relative_learning_rate", relative_learning_rate)
    if not 0 < min(relative) <= max(relative) < 1:
        raise InputError(f"relative_learning_rate={relative} is not allowed: rates are above 0 and below the mean-square edge, which is 1.")
    steps, seeds, streams = (
        whole("num_steps", num_steps),
        whole("num_seeds", num_seeds, least=2),
        whole("num_streams", num_streams, least=2),
    )
    rates = np.asarray(relative) * theory.mean_square_edge(problem, min(sizes), sampler="with_replacement")
    parts = {}
    for sampler in theory.INDEPENDENT:
        measured = sweep(
            problem,
            sampler=sampler,
            num_steps=steps,
            record_every=max(1, steps // 100),
            batch_size=_different(sizes, sampler),
            seed=range(seeds),
            learning_rate=rates,
        )
        parts[sampler] = _averaged(measured)
    if np.size(problem.start) <= MOST_STARTS:
        parts["edges"] = _edges(problem, sweep, sizes, seeds)
    return xr.DataTree.from_dict(parts | {"stream": _stream(sweep, streams), "momentum": _momentum(sweep, streams)})


def _different(sizes: list[int], sampler: str) -> list[int]:
    """Without those that the other sampler has done: an example alone is drawn alike by both."""
    return [size for size in sizes if size > 1 or sampler == "with_replacement"] or sizes


def _averaged(measured: xr.Dataset) -> xr.Dataset:
    """The mean over seeds at each record, and over the run's last quarter, each with its standard error."""
    late = measured.suboptimality.where(measured.step >= 0.75 * measured.step[-1], drop=True)
    every = analysis.over_seeds(measured.suboptimality)
    floor = analysis.over_seeds(late.mean("step")).rename({"mean": "floor", "error": "floor_error"})
    kept = every.assign(floor).drop_vars("epoch", errors="ignore")
    return kept.assign_attrs(measured.attrs | {"num_seeds": measured.sizes["seed"], "late_from": int(late.step[0])})


def _edges(problem: Problem, sweep: Callable[..., xr.Dataset], sizes: list[int], seeds: int) -> xr.DataTree:
    """The growth of the mean square at the predicted edge, without noise at the minimizer, from S that a step there maps to itself.

    S is a sum of v_k v_k' over errors v_k, so a sweep from each of them, and the sum of what they leave, is one from S.
    """
    X, minimizer = np.asarray(problem.data[0]), np.asarray(problem.minimizer)
    bare = dataclasses.replace(problem, data=(X, X @ minimizer), minimum=0.0)

    parts = {}
    for sampler in theory.INDEPENDENT:
        different = _different(sizes, sampler)
        edges = [theory.mean_square_edge(problem, batch, sampler=sampler) for batch in different]
        starts = {batch: steady_errors(problem, batch, sampler=sampler) for batch in different}
        given: Any = {"sampler": sampler, "batch_size": different, "seed": range(4 * seeds), "learning_rate": edges}

        def left(batch: int, error: np.ndarray, given: Any = given) -> xr.DataArray:
            runs = sweep(bare, num_steps=EDGE_STEPS, record_every=1, start=minimizer + error, **given).suboptimality
            return runs.sel(batch_size=batch).isel(learning_rate=given["batch_size"].index(batch))

        totals: Any = {batch: sum(left(batch, error) for error in errors) for batch, errors in starts.items()}
        growths = [analysis.over_seeds(total / total.isel(step=0)) for total in totals.values()]
        known = xr.concat([growth.reset_coords(drop=True) for growth in growths], "batch_size")
        parts[sampler] = known.assign_coords(batch_size=different)
    return xr.DataTree.from_dict(parts)


def steady_errors(problem: Problem, batch_size: int, *, sampler: str) -> np.ndarray:
    """Errors v_k whose sum of v_k v_k' a step at the edge maps to itself in the mean: rows, as many as there are modes."""
    known = moments.of_problem(problem)
    noise = moments.batch_noise_factor(batch_size, problem.num_examples, sampler=sampler)
    both = np.diag(np.outer(known.gram, known.gram).ravel())
    scale = 1.0 / np.sqrt(np.add.outer(known.gram, known.gram).ravel())
    top = np.linalg.eigh(scale[:, None] * (both + noise * (known.fourth - both)) * scale)[1][:, -1]
    steady = (scale * top).reshape(len(known.gram), -1)
    sizes, turned = np.linalg.eigh(0.5 * (steady + steady.T) * np.sign(np.trace(steady)))
    vectors = theory.eigenvectors(problem)[1][:, -len(known.gram) :]
    kept = sizes > 1e-12 * sizes[-1]
    return (vectors @ (turned[:, kept] * np.sqrt(sizes[kept]))).T


def _stream(sweep: Callable[..., xr.Dataset], seeds: int) -> xr.Dataset:
    """Fresh Gaussian inputs, from the minimizer."""
    measured = sweep(
        noisy.gaussian_stream(SPECTRUM, start=np.zeros(SPECTRUM.size), num_examples=2**23),
        sampler=noisy.once_through,
        num_steps=STREAM_STEPS,
        record_every=STREAM_STEPS // 100,
        batch_size=[1, 4],
        seed=range(seeds),
        learning_rate=[0.05, 0.1, 0.2, 0.3],
    )
    return _averaged(measured)


def additive(curvature: ArrayLike) -> Problem:
    """f = h x^2 / 2 whose gradients have noise of variance 1 that does not depend on x, begun at 0; h may be swept."""
    h = jnp.asarray(curvature)
    column = jnp.sqrt(0.5 * h) * jnp.ones((2, 1))
    return problems.least_squares(column, jnp.array([1.0, -1.0]) / jnp.sqrt(2.0 * h), intercept=False)


def _momentum(sweep: Callable[..., xr.Dataset], seeds: int) -> xr.Dataset:
    measured = sweep(
        additive,
        method="heavy_ball",
        sampler="with_replacement",
        num_steps=400,
        record_every=4,
        batch_size=1,
        curvature=[0.5, 1.5, 3.5],
        seed=range(4 * seeds),
        momentum=[0.0, 0.5, 0.9],
        learning_rate=MOMENTUM_RATE,
    )
    return _averaged(measured)


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Curves and floors against theory, with and without replacement; the edges; Gaussian inputs; momentum."""
    findings = []
    for sampler in theory.INDEPENDENT:
        measured = results[sampler].to_dataset()
        for batch in measured.batch_size.values:
            findings += _drawn_findings(measured.sel(batch_size=batch), problem, sampler)
    if "edges" in results.children:
        findings += _edge_findings(results["edges"], problem)
    return [*findings, *_stream_findings(results["stream"].to_dataset()), *_momentum_findings(results["momentum"].to_dataset())]


def _exact(measured: xr.Dataset, problem: Problem, sampler: str) -> xr.DataArray:
    """Of all batch sizes and rates, as one program."""
    sizes, rates = (axis.ravel() for axis in np.meshgrid(measured.batch_size, measured.learning_rate, indexing="ij"))
    curves = theory.expected_suboptimality(problem, rates, sizes, int(measured.step[-1]), sampler=sampler)
    shape = (measured.sizes["batch_size"], measured.sizes["learning_rate"], -1)
    return xr.DataArray(curves[:, measured.step.values].reshape(shape), dims=("batch_size", "learning_rate", "step"))


def _late(exact: xr.DataArray, measured: xr.Dataset) -> xr.DataArray:
    return exact.isel(step=measured.step.values >= measured.attrs["late_from"]).mean("step")


def _drawn_findings(one: xr.Dataset, problem: Problem, sampler: str) -> list[Finding]:
    batch, words = int(one.batch_size), sampler.replace("_", " ")
    exact = _exact(one.expand_dims("batch_size"), problem, sampler).isel(batch_size=0)
    # in the first steps from a far start a few runs make the mean, and its standard error is too small
    log = np.unique(np.searchsorted(one.step.values, np.geomspace(one.step.values[min(1, one.sizes["step"] - 1)], one.step.values[-1], 8)))
    slack = analysis.ROUND_OFF[one.attrs["precision"]][1]
    here, expected = one.isel(learning_rate=-1), float(_late(exact, one)[-1])
    rate, share = float(here.learning_rate), float(here.floor_error / here.floor) if here.floor > 0 else 0.0
    floor = theory.noise_floor(problem, rate, batch, sampler=sampler)
    arrived = abs(expected - floor) <= 1e-3 * floor
    return [
        Finding(
            claim=f"B = {batch} {words}: largest deviation of the mean of {one.attrs['num_seeds']} seeds at all rates, 8 times from step "
            f"{one.step.values[log[0]]} on (standard errors)",
            predicted=4.0,
            measured=analysis.furthest(one.isel(step=log), exact.isel(step=log)),
            tolerance=0.0,
            source="exact recursion of E ee' for SGD on least squares (LMS)",
            kind="at_most",
        ),
        Finding(
            claim=f"B = {batch} {words}, rate {rate:.3g}: "
            + (f"noise floor (s.e. {share:.2%})" if arrived else "mean of the last quarter, still above the floor (4 standard errors)"),
            predicted=floor if arrived else expected,
            measured=float(here.floor),
            tolerance=max(ACCEPTED, 4.0 * share) if arrived else slack + 4.0 * share,
            source=f"tr(GS) at the fixed point, c_B = {'1/B' if sampler == 'with_replacement' else '(n - B) / (B (n - 1))'}",
        ),
    ]


def _edge_findings(edges: Any, problem: Problem) -> list[Finding]:
    """At the edge the mean square stays, step by step; what it does instead says how far off the edge is."""
    findings = []
    for sampler, measured in edges.children.items():
        for batch in measured.batch_size.values:
            edge = theory.mean_square_edge(problem, int(batch), sampler=sampler)
            words = sampler.replace("_", " ")
            last, slope = measured.to_dataset().sel(batch_size=batch).isel(step=-1), _edge_slope(problem, int(batch), sampler)
            findings.append(
                Finding(
                    claim=f"B = {batch} {words}: mean-square edge, from the growth by {float(last['mean']):.3f} of the mean square "
                    f"in {int(last.step)} steps there without noise at the minimizer (4 standard errors)",
                    predicted=edge,
                    measured=edge * (1.0 - (float(last["mean"]) - 1.0) / slope),
                    tolerance=1e-6 + 4.0 * float(last["error"]) / slope,
                    source="gamma = 1 / lambda_max(A^-1 Q): S with gamma Q S = A S is its own mean after a step",
                )
            )
    return findings


def _edge_slope(problem: Problem, batch: int, sampler: str) -> float:
    """What the mean square of these steps gains by, for a rate relatively higher than the edge, over that."""
    X, known = np.asarray(problem.data[0]), moments.of_problem(problem)
    noise = moments.batch_noise_factor(batch, len(X), sampler=sampler)
    gammas = 2.0 * theory.mean_square_edge(problem, batch, sampler=sampler) * np.array([0.999, 1.001])
    ends = np.zeros(2)
    for error in steady_errors(problem, batch, sampler=sampler):
        bare = moments.of_examples(X, np.zeros(len(X)), error)
        ends += moments.curves(bare, gammas, noise, known.gram, num_steps=EDGE_STEPS)[:, -1]
    return float((ends[1] - ends[0]) / (0.001 * (ends[0] + ends[1])))


def _stream_exact(measured: xr.Dataset) -> xr.DataArray:
    sizes, rates = (axis.ravel() for axis in np.meshgrid(measured.batch_size, measured.learning_rate, indexing="ij"))
    curves = streaming.streamed_curves(SPECTRUM, np.zeros(SPECTRUM.size), rates, int(measured.step[-1]), batch_size=sizes).last
    shape = (measured.sizes["batch_size"], measured.sizes["learning_rate"], -1)
    return xr.DataArray(curves[:, measured.step.values].reshape(shape), dims=("batch_size", "learning_rate", "step"))


def _stream_findings(measured: xr.Dataset) -> list[Finding]:
    exact = _stream_exact(measured)
    findings = []
    for number, batch in enumerate(measured.batch_size.values):
        one = measured.sel(batch_size=batch)
        findings.append(
            Finding(
                claim=f"fresh Gaussian inputs, λ = 1/i, i ≤ 20, B = {batch}: largest deviation of the last quarter's mean from the exact "
                "one at rates 0.05 to 0.3 (standard errors)",
                predicted=4.0,
                measured=float((abs(one.floor - _late(exact, measured).isel(batch_size=number)) / one.floor_error).max()),
                tolerance=0.0,
                source="s_i+ = (1 - 2 γ λ_i + γ² λ_i² (B + 1)/B) s_i + γ² λ_i (Σ λ_j s_j + σ²)/B",
                kind="at_most",
            )
        )
    at = {"batch_size": 1, "learning_rate": 0.2}
    floor = float(streaming.gaussian_floor(SPECTRUM, 0.2))
    one = measured.sel(at)
    return [
        *findings,
        Finding(
            claim=f"fresh Gaussian inputs, B = 1, rate 0.2: noise floor (s.e. {float(one.floor_error / one.floor):.2%}); to first order in "
            f"the rate it would be {0.25 * 0.2 * SPECTRUM.sum():.3f}",
            predicted=floor,
            measured=float(one.floor),
            tolerance=max(ACCEPTED, 4.0 * float(one.floor_error / one.floor)),
            source="sigma^2 U / (2 (1 - U)), Horowitz and Senne 1981, Feuer and Weinstein 1985",
        ),
    ]


def _momentum_floor(measured: xr.Dataset) -> xr.DataArray:
    """E f - f* = h E x^2 / 2, with the sweep's dimensions."""
    floor = streaming.heavy_ball_floor(measured.learning_rate.values, measured.momentum.values[None, :], measured.curvature.values[:, None])
    return 0.5 * measured.curvature * xr.DataArray(floor, dims=("curvature", "momentum"))


def _momentum_findings(measured: xr.Dataset) -> list[Finding]:
    exact = _momentum_floor(measured)
    return [
        Finding(
            claim=f"heavy ball, rate {MOMENTUM_RATE}, momentum {beta:g}: the worst of three modes' floors over "
            f"the exact (s.e. {_share(one):.2%})",
            predicted=1.0,
            measured=_worst(one.floor / exact.isel(momentum=number)),
            tolerance=max(ACCEPTED, 4.0 * _share(one)),
            source="alpha c (1 + beta) / ((1 - beta) h (2 (1 + beta) - alpha h)) for noise that does not depend on x",
        )
        for number, beta in enumerate(measured.momentum.values)
        for one in [measured.sel(momentum=beta)]
    ]


def _share(one: xr.Dataset) -> float:
    return float((one.floor_error / one.floor).max())


def _worst(ratio: xr.DataArray) -> float:
    return float(ratio.values[np.argmax(np.abs(np.log(ratio.values)))])


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Trajectories; floors by rate and batch; Gaussian inputs; momentum."""
    drawn, panels = figures.figure(2, 2, width=7.2, height=5.4)
    _draw_curves(panels[0, 0], results, problem)
    _draw_floors(panels[0, 1], results, problem)
    _draw_stream(panels[1, 0], results["stream"].to_dataset())
    _draw_momentum(panels[1, 1], results["momentum"].to_dataset())
    measured = results["with_replacement"]
    figures.source(
        drawn,
        f"above: {problem.name}, n = {problem.num_examples}, {measured.attrs['num_seeds']:,} seeds; below: λ$_i$ = 1/i, i ≤ 20, and single "
        f"modes, {results['stream'].attrs['num_seeds']:,} seeds or more.\nDashed and thin lines: exact theory (above right 10,000 settings "
        "in one program). Verticals: mean-square edges.\nDots: means of seeds over the last quarter of a run that has come to its floor.",
    )
    return {"noise_floor": drawn}


def _draw_curves(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    """One rate; all batch sizes, both ways to draw."""
    middle = results["with_replacement"].sizes["learning_rate"] // 2
    lowest, rate = [], float(results["with_replacement"].learning_rate[middle])
    colors = dict(zip(results["with_replacement"].batch_size.values, figures.COLORS, strict=False))
    for sampler, style in zip(theory.INDEPENDENT, ("-", ":"), strict=True):
        measured = results[sampler].to_dataset().isel(learning_rate=[middle])
        exact = _exact(measured, problem, sampler)
        for number, batch in enumerate(measured.batch_size.values):
            one, color = measured.isel(batch_size=number, learning_rate=0, step=slice(1, None)), colors[batch]
            label = f"B = {batch}" if sampler == "with_replacement" else None
            axes.plot(one.step, one["mean"], color=color, linestyle=style, linewidth=1.6, label=label)
            row = exact.values[number, 0, 1:]
            lowest.append(row[row > 0].min(initial=np.inf))
            figures.dashed(axes, one.step.values, row, bounds=(1e-30, 1e300), linewidth=0.7)
    axes.plot([], [], color="0.4", linestyle=":", linewidth=1.6, label="without replacement")
    low = min(lowest) if np.isfinite(min(lowest)) else None
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="E f(x$_t$) − f*", title=f"rate η = {rate:.3g}")
    axes.set_ylim(bottom=None if low is None else 0.5 * low)
    axes.legend(loc="lower left")


def _draw_floors(axes: Axes, results: xr.DataTree, problem: Problem) -> None:
    """Floors against the rate: 10,000 predicted settings, and what was measured at the run's end."""
    highest = theory.stability_edge(problem.smoothness)
    sizes = results["with_replacement"].batch_size.values
    rates = np.geomspace(0.01, 1.0, 10_000 // (2 * len(sizes))) * highest
    shown = []
    for sampler, style in zip(theory.INDEPENDENT, ("-", ":"), strict=True):
        floors = theory.noise_floor(problem, rates[None, :], sizes[:, None], sampler=sampler)
        measured = results[sampler].to_dataset()
        for number, batch in enumerate(sizes):
            color = figures.COLORS[number % 6]
            finite = np.isfinite(floors[number]) & (floors[number] > 0)
            axes.plot(rates[finite], floors[number][finite], color=color, linestyle=style, linewidth=0.9)
            shown += [floors[number][finite]]
            filled = color if sampler == "with_replacement" else "white"
            if batch in measured.batch_size.values:
                one = measured.sel(batch_size=[batch])
                late = _late(_exact(one, problem, sampler), one).values[0]
                there = late <= 1.03 * theory.noise_floor(problem, one.learning_rate.values, int(batch), sampler=sampler)
                axes.plot(
                    one.learning_rate[there], one.floor.values[0, there], "o", color=color, markersize=4, markerfacecolor=filled, zorder=4
                )
            edge = theory.mean_square_edge(problem, int(batch), sampler=sampler)
            axes.axvline(edge, color=color, linewidth=0.7, linestyle=":")
    every = np.concatenate(shown)
    axes.plot([], [], "o", color="0.4", markersize=4, label="with replacement")
    axes.plot([], [], "o", color="0.4", markersize=4, markerfacecolor="white", label="without")
    figures.edge_line(axes, highest, "2/L", side="right", height=0.3)
    top = np.quantile(every, 0.995) * 5.0
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["learning_rate"], ylabel="noise floor", ylim=(0.5 * every.min(), top))
    axes.set_title("floors rise to infinity at the edge")
    axes.legend(loc="upper left")


def _draw_stream(axes: Axes, measured: xr.Dataset) -> None:
    rates = np.geomspace(0.02, 2.0, 2000)
    for number, batch in enumerate(measured.batch_size.values):
        color = figures.COLORS[number]
        floors = streaming.gaussian_floor(SPECTRUM, rates, int(batch))
        axes.plot(rates[np.isfinite(floors)], floors[np.isfinite(floors)], color=color, linewidth=0.9)
        axes.plot(measured.learning_rate, measured.floor.isel(batch_size=number), "o", color=color, markersize=4, label=f"B = {batch}")
        edge = streaming.gaussian_edge(SPECTRUM, int(batch))
        figures.edge_line(axes, edge, f"{edge:.3g}", color=color, height=0.18)
    figures.dashed(axes, rates, 0.25 * rates * SPECTRUM.sum(), bounds=(1e-9, 1e9), color="0.5", label="first order, B = 1")
    figures.edge_line(axes, 2.0, "2/L", height=0.18)
    axes.set(xscale="log", yscale="log", xlabel="learning rate γ", ylabel="noise floor", ylim=(2e-3, 20))
    axes.set_title("fresh Gaussian inputs")
    axes.legend(loc="upper left")


def _draw_momentum(axes: Axes, measured: xr.Dataset) -> None:
    betas, rate = np.linspace(0.0, 0.97, 400), float(measured.learning_rate)
    for number, h in enumerate(measured.curvature.values):
        color = figures.COLORS[number]
        axes.plot(betas, 0.5 * h * streaming.heavy_ball_floor(rate, betas, h), color=color, linewidth=0.9)
        axes.plot(measured.momentum, measured.floor.isel(curvature=number), "o", color=color, markersize=4, label=f"h = {h:g}")
    figures.dashed(axes, betas, 0.25 * rate / (1.0 - betas), bounds=(1e-9, 1e9), color="0.5", label="SGD at α/(1 − β), first order")
    axes.set(yscale="log", xlabel="momentum β", ylabel="noise floor of a mode", title=f"heavy ball, rate α = {rate:g}")
    axes.legend(loc="upper left")
