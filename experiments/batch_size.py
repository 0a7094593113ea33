"""The batch size trades noise for work: a smaller batch stalls higher, and gets there on fewer examples.

Claim
    At one rate, constant-step SGD stalls at a noise floor that rises as the batch shrinks; against examples seen the small batch is
    ahead until it reaches its floor, against steps the large one.
Theory
    E[f(x_t)] - f* follows the exact recursion of the error's second moment; its fixed point is the floor, which scales with
    c_B = 1/B with replacement, (n - B) / (B (n - 1)) without.
Sweep
    Batch sizes x rates x seeds, paired: all rates of one seed and batch size see the same examples.
Expect
    Bands over seeds around the dashed exact mean, level with the dotted floor in the end.
Command
    gdjax experiment=batch_size
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, theory
from gdjax.records import Finding, InputError, Problem, several, whole


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 2000,
    batch_size: Sequence[int] | int | None = None,
    relative_learning_rate: Sequence[float] | float = (0.1, 0.3, 0.7),
    num_seeds: int = 128,
    sampler: str = "without_replacement",
) -> xr.Dataset:
    """Sweep batch sizes, rates and seeds on an equal number of steps.

    Parameters
    ----------
    batch_size
        By default 1, 4, 16, 64, .. up to n / 2.
    relative_learning_rate
        Rates in units of the smallest batch's own mean-square limit, where it is known, else of 2 / L: eta / edge.
    """
    if not theory.is_quadratic(problem):
        raise InputError(
            f"experiment batch_size is about least squares and other quadratics, which {problem.name} is not: see experiment=descend."
        )
    n = problem.num_examples
    if n < 2:
        raise InputError(f"experiment batch_size draws batches out of examples, of which {problem.name} has none to choose from.")
    sizes = [4**k for k in range(4) if 2 * 4**k <= n] or [1] if batch_size is None else several("batch_size", batch_size)
    edge = theory.stability_edge(problem.smoothness)
    if theory.has_moments(problem, sampler) and 1 <= min(sizes) <= n:
        edge = theory.mean_square_edge(problem, min(sizes), sampler=sampler)
    return sweep(
        problem,
        sampler=sampler,
        num_steps=num_steps,
        record_every=max(1, whole("num_steps", num_steps) // 400),
        batch_size=sizes,
        seed=range(whole("num_seeds", num_seeds, least=2)),
        learning_rate=np.asarray(several("relative_learning_rate", relative_learning_rate)) * edge,
    )


def check(results: xr.Dataset, problem: Problem) -> list[Finding]:
    """Compare the mean over seeds with its exact expectation, or where none is known the batch sizes with each other."""
    exact = _exact(results, problem)
    if exact is not None:
        return [
            _moment_finding(results.sel(batch_size=batch, learning_rate=rate), exact.mean.sel(batch_size=batch, learning_rate=rate).values)
            for batch in results.batch_size.values
            for rate in results.learning_rate.values
        ]
    floors = analysis.noise_floor(results).median("seed").isel(learning_rate=-1)
    return [
        Finding(
            claim=f"at the highest rate, the floor of B = {large} is no higher than that of B = {small}",
            predicted=float(floors.sel(batch_size=small)),
            measured=float(floors.sel(batch_size=large)),
            tolerance=0.0,
            source="the variance of a batch's mean falls with B",
            kind="at_most",
        )
        for small, large in itertools.pairwise(floors.batch_size.values)
    ]


@figures.paper
def draw(results: xr.Dataset, problem: Problem) -> dict[str, Figure]:
    """A column a rate, against steps above and against epochs below; a colour a batch size."""
    rates = results.learning_rate.values
    exact = _exact(results, problem)
    drawn, panels = figures.figure(len(rates), 2, width=7.2, height=4.6, sharey=True)
    values = results.suboptimality
    bounds = figures.limits(float(values.isel(batch_size=0, seed=0, learning_rate=0, step=0)), values.median("seed").values)
    for column, rate in enumerate(rates):
        for row, x in enumerate(("step", "epoch")):
            axes = panels[row, column]
            for batch, color in zip(results.batch_size.values, figures.COLORS, strict=False):
                here = {"batch_size": batch, "learning_rate": rate}
                one = results.sel(here)
                _draw_batch(axes, one, x, bounds, color)
                if exact is not None:
                    _draw_exact(axes, one[x].values, exact.mean.sel(here).values, float(exact.floor.sel(here)), bounds, color)
            axes.set(
                yscale="log",
                xscale="log",
                xlabel=figures.LABELS[x],
                ylim=(bounds[0], min(bounds[1], 3.0 * float(values.isel(step=slice(1, None)).max()))),
            )
        panels[0, column].set_title(f"η = {rate:.3g} = {rate * results.attrs['smoothness'] / 2:.2g} · 2/L")
    for axes in panels[:, 0]:
        axes.set_ylabel(figures.LABELS["suboptimality"])
    panels[0, 0].legend(loc="upper right")
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; {results.attrs['sampler'].replace('_', ' ')}. "
        f"Lines: mean of {results.sizes['seed']} seeds, bands 10–90 %. "
        "Dashed: exact mean E f(x$_t$) − f*. Dotted: its limit, the noise floor.",
    )
    return {"batch_size": drawn}


class _Exact(NamedTuple):
    """The mean suboptimality at each record, and its limit, for each batch size and rate."""

    mean: xr.DataArray
    floor: xr.DataArray


def _exact(results: xr.Dataset, problem: Problem) -> _Exact | None:
    """What theory says of every run, where it says something."""
    sampler, steps = results.attrs["sampler"], results.step
    if not theory.has_moments(problem, sampler):
        return None
    rates, sizes = results.learning_rate, results.batch_size
    means = [theory.expected_suboptimality(problem, rates.values, int(batch), int(steps[-1]), sampler=sampler) for batch in sizes]
    floors = [[theory.noise_floor(problem, float(rate), int(batch), sampler=sampler) for rate in rates] for batch in sizes]
    axes = {"batch_size": sizes.values, "learning_rate": rates.values}
    return _Exact(
        mean=xr.DataArray(np.stack(means)[..., steps.values], {**axes, "step": steps.values}, (*axes, "step")),
        floor=xr.DataArray(floors, axes, (*axes,)),
    )


def _moment_finding(one: xr.Dataset, expected: np.ndarray) -> Finding:
    """Compare over the last half of the run, whose records together say more than the last alone."""
    late = one.step.values >= one.step.values[-1] / 2
    averages = one.suboptimality.isel(step=late).mean("step")
    predicted = float(expected[late].mean())
    return Finding(
        claim=f"B = {int(one.batch_size)}, rate {float(one.learning_rate):.3g}: mean over {averages.size} seeds and the run's last half "
        "(4 standard errors)",
        predicted=predicted,
        measured=float(averages.mean()),
        tolerance=analysis.ROUND_OFF[one.attrs["precision"]][1] + float(4.0 * analysis.standard_error(averages, "seed") / predicted),
        source="exact recursion of E ee' for SGD on least squares (LMS)",
    )


def _draw_batch(axes: Axes, one: xr.Dataset, x: str, bounds: tuple[float, float], color: str) -> None:
    values = one.suboptimality.isel(step=slice(1, None))
    figures.band(axes, one[x].values[1:], values, bounds=bounds, color=color, label=f"B = {int(one.batch_size)}")


def _draw_exact(axes: Axes, at: np.ndarray, mean: np.ndarray, floor: float, bounds: tuple[float, float], color: str) -> None:
    figures.dashed(axes, at[1:], mean[1:], bounds=bounds, linewidth=0.8)
    if np.isfinite(floor) and floor > bounds[0]:
        axes.plot(at[[-1]], [floor], marker="_", markersize=8, color=color, clip_on=False)
        axes.axhline(floor, color=color, linewidth=0.7, linestyle=":")
