"""One run of gradient descent: the unit of a multirun.

Claim
    The objective never falls below its minimum, and plain full-batch descent on a quadratic follows its eigenmodes exactly.
Theory
    f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 (Polyak 1964), for the method sgd without momentum and the full batch.
Sweep
    None: one rate, one batch size, one seed. `gdjax -m experiment=descend learning_rate=0.001,0.01 seed='range(0,10)'` sweeps it.
Expect
    One curve, the exact one dashed upon it where there is one.
Command
    gdjax experiment=descend learning_rate=0.01
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gdjax import analysis, figures, theory
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
        seed=seed,
        **{name: value for name, value in given.items() if value is not None},
        **numbers,
    )


def check(results: xr.Dataset, problem: Problem) -> list[Finding]:
    """The minimum is never undercut; the exact curve is met where there is one."""
    findings = []
    if problem.minimum is not None:
        objective = results.objective.values
        findings.append(
            Finding(
                claim="lowest objective on the way is no lower than the minimum",
                predicted=float(problem.minimum),
                measured=float(np.min(objective[np.isfinite(objective)])),
                tolerance=1e-12,
                source="f* is the minimum",
                kind="at_least",
            )
        )
    exact = _exact(results, problem)
    if exact is not None:
        measured = results.suboptimality.transpose(..., *exact.dims).values
        findings.append(analysis.follows_modes(measured, np.broadcast_to(exact.values, measured.shape), results.attrs["precision"]))
    return findings


def draw(results: xr.Dataset, problem: Problem) -> dict[str, Figure]:
    """The runs, and their exact curves where there are such."""
    exact = _exact(results, problem)
    note = f"data: {problem.name}, n = {problem.num_examples}; {results.attrs['method']}, {results.attrs['sampler'].replace('_', ' ')}."
    y = "suboptimality" if problem.minimum is not None else "objective"
    return {"descend": figures.convergence(results, y=y, theory=exact, note=note)}


def _exact(results: xr.Dataset, problem: Problem) -> xr.DataArray | None:
    """Theory's curves, with the dimension of the rates and that of the steps."""
    plain = results.attrs["method"] == "sgd" and "momentum" not in results.coords and results.attrs["sampler"] == "full"
    if not (plain and theory.is_quadratic(problem)):
        return None
    rates = results.learning_rate
    rows = theory.gradient_descent(theory.modes(problem), np.atleast_1d(rates.values), results.step.values)
    return xr.DataArray(rows, dims=(*rates.dims, "step")) if rates.dims else xr.DataArray(rows[0], dims="step")
