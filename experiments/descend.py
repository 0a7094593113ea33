"""One run of gradient descent: the unit of a multirun.

Claim
    The objective never falls below its minimum, and what theory says of such runs is so: exact curves, means, levels, bounds, the edge.
Theory
    All that `gdjax.predictions` knows of the method, the sampler and the problem; where it knows nothing, nothing is claimed. On
    quadratics full-batch descent is f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 (Polyak 1964), and momentum of constant
    strength has its roots; mini-batches of least squares have an exact mean and a floor; other smooth convex losses have bounds.
Sweep
    None: one rate, one batch size, one seed. `gdjax -m experiment=descend learning_rate=0.001,0.01 seed='range(0,10)'` sweeps it.
Expect
    One curve (or a sweep's), with theory's strokes beside it, and the stability edge on the scale of the rates.
    Where a rule stops runs, a cross, and theory speaks of them up to there.
Command
    gdjax experiment=descend learning_rate=0.01
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gdjax import analysis, facts, figures, predictions, stopping
from gdjax.predictions import MEAN_SQUARE_SHARE
from gdjax.records import Finding, Problem


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    num_steps: int | None = None,
    num_epochs: float | None = None,
    sampler: str = "reshuffled",
    method: Mapping[str, Any],
    record_every: int | None = None,
    stop: stopping.Rule | None = None,
) -> xr.Dataset:
    """Run once, or once for each value of the numbers, for 400 steps if nothing else is said; `method` holds a name and numbers."""
    numbers = {name: number for name, number in method.items() if name != "name" and number is not None}
    given = {"learning_rate": learning_rate, "batch_size": batch_size}
    if num_steps is None and num_epochs is None:
        num_steps = 400
    return sweep(
        problem,
        method=method["name"],
        sampler=sampler,
        num_steps=num_steps,
        num_epochs=num_epochs,
        record_every=record_every,
        stop=stop,
        seed=seed,
        **{name: value for name, value in given.items() if value is not None},
        **numbers,
    )


def check(results: xr.Dataset, problem: Problem) -> list[Finding]:
    """The minimum is never undercut, and what theory says of such runs is so."""
    findings = []
    lowest = facts.lowest(problem)
    if lowest is not None:
        objective = results.objective.values
        findings.append(
            Finding(
                claim="lowest objective on the way is no lower than the minimum",
                predicted=lowest,
                measured=float(np.min(objective[np.isfinite(objective)])),
                tolerance=1e-12,
                source="f* is the minimum",
                kind="at_least",
            )
        )
    edge = predictions.stability_edge(results, problem)
    for said in predictions.predict(results, problem) if problem.minimum is not None else ():
        values = said.values
        if edge is not None and said.kind in ("mean", "floor"):  # nearer to it a mean is made by few runs
            values = values.where(results.learning_rate <= MEAN_SQUARE_SHARE * edge.values)
        findings += analysis.JUDGES[said.kind](results, values, said.name, f"{said.formula}, {said.source}")
    return findings if edge is None else findings + analysis.stays_below(results, edge.values, edge.formula, edge.source)


def draw(results: xr.Dataset, problem: Problem) -> dict[str, Figure]:
    """The runs, and what theory says of them."""
    numbers = "".join(f", {name} {float(value):g}" for name, value in problem.constants.items() if np.ndim(value) == 0)
    how = f"{results.attrs['method']}, {results.attrs['sampler'].replace('_', ' ')}"
    note = f"data: {problem.name}{numbers}, n = {problem.num_examples}; {how}."
    y = "suboptimality" if problem.minimum is not None else "objective"
    return {"descend": figures.convergence(results, y=y, theory=True, problem=problem, note=note)}
