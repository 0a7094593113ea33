"""What theory says of a sweep, from its coordinates and its problem's constants alone: curves, levels, bounds, and the stability edge.

`RULES`, `EDGES` and `full_gradients.EXACT` are tables: a new prediction is a function in `gdjax.theory` and an entry here. Whatever a
sweep measured is dropped before a rule sees it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from gdjax import facts
from gdjax.predictions.full_gradients import accelerated_bound, convex_bound, exact_curve, full_batch_edge, strongly_convex
from gdjax.predictions.known import Kind, Known, Prediction
from gdjax.predictions.mini_batches import MEAN_SQUARE_SHARE, exact_mean, mean_square_edge, noise_floor, reshuffled_floor
from gdjax.records import InputError, Problem

__all__ = ["EDGES", "MEAN_SQUARE_SHARE", "RULES", "Kind", "Known", "Prediction", "predict", "stability_edge"]

RULES: tuple[Callable[[Known], Prediction | None], ...] = (
    exact_curve,
    exact_mean,
    noise_floor,
    reshuffled_floor,
    convex_bound,
    accelerated_bound,
    strongly_convex,
)
"""What is asked, in this order."""

EDGES: tuple[Callable[[Known], Prediction | None], ...] = (full_batch_edge, mean_square_edge)
"""Of these the first that knows one is taken."""


def predict(dataset: xr.Dataset, problem: Problem | None = None, *, y: str = "suboptimality") -> list[Prediction]:
    """What theory says of the runs' `y`: everything that applies, and nothing where nothing does.

    Parameters
    ----------
    dataset
        A sweep, or a part of one: a selection is predicted for itself. Only its coordinates and attributes are read.
    problem
        Needed where theory asks for the examples (mini-batches), or for a quadratic of more than 128 parameters.
    y
        `suboptimality`, `objective`, `distance` or `gradient_norm`.

    Raises
    ------
    InputError
        For a problem that the sweep was not about.

    >>> from gdjax import problems, sweep
    >>> ds = sweep(problems.designed_spectrum([1.0, 0.1]), num_steps=3, learning_rate=1.0)
    >>> [(said.name, said.values.round(6).values.tolist()) for said in predict(ds)]
    [('exact curve', [0.55, 0.0405, 0.032805, 0.026572])]
    """
    known = _known(dataset, problem, y)
    return [said for rule in RULES if (said := rule(known)) is not None]


def stability_edge(dataset: xr.Dataset, problem: Problem | None = None) -> Prediction | None:
    """The rate from which runs of this kind diverge, or None where none is known; `values` have the other numbers' dimensions."""
    known = _known(dataset, problem, "objective")
    return next((said for rule in EDGES if (said := rule(known)) is not None), None)


def _known(dataset: xr.Dataset, problem: Problem | None, y: str) -> Known:
    bare = dataset.drop_vars(list(dataset.data_vars))
    attrs = {"method": "", "sampler": "", "num_examples": 1} | dataset.attrs
    if problem is not None:
        problem, own = _begun(problem, attrs.get("start")), facts.facts(problem)
        for name, value in {
            "num_examples": problem.num_examples,
            **{key: own[key] for key in ("smoothness", "minimum") if key in own},
        }.items():
            if name in dataset.attrs and not np.isclose(value, dataset.attrs[name], rtol=1e-6, atol=0.0):
                raise InputError(
                    f"problem={problem.name} is not what the sweep was about: its {name} is {value:.6g}, the sweep's {attrs[name]:.6g}."
                )
        attrs = facts.facts(problem) | attrs
    return Known(coords=bare, attrs=attrs, problem=problem, y=y)


def _begun(problem: Problem, start: Sequence[float] | None) -> Problem:
    """The problem, begun where the runs were."""
    return problem if start is None else dataclasses.replace(problem, start=np.asarray(start))
