"""What a prediction is, and what it may look at."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from gdjax import methods, theory
from gdjax.records import Problem

Kind = Literal["equal", "mean", "floor", "at_most", "slope"]
"""An exact curve, the exact mean over batches, the level of that mean in the end, a bound, or how steep a curve is in the end."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What theory says of runs, with some of the sweep's dimensions."""

    name: str
    kind: Kind
    values: xr.DataArray  # NaN where it says nothing
    formula: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a sweep before it has measured anything."""

    coords: xr.Dataset
    attrs: Mapping[str, Any]
    problem: Problem | None  # begun where the runs begin; needed where theory asks for the examples
    y: str

    @functools.cached_property
    def modes(self) -> theory.Modes | None:
        """The eigenmodes of a quadratic, as the sweep keeps them or from the problem."""
        if "start_modes" in self.attrs:
            return theory.Modes(np.asarray(self.attrs["hessian_eigenvalues"]), np.asarray(self.attrs["start_modes"]))
        return theory.modes(self.problem) if self.problem is not None and theory.is_quadratic(self.problem) else None

    @property
    def is_full(self) -> bool:
        """Whether every step takes the full gradient."""
        whole = self.attrs["sampler"] in ("reshuffled", "without_replacement") and "batch_size" in self.coords
        return self.attrs["sampler"] == "full" or (whole and bool((self.coords.batch_size == self.attrs["num_examples"]).all()))

    @property
    def is_plain(self) -> bool:
        """Whether the method is gradient descent itself."""
        return self.attrs["method"] == "sgd" and self.numbers("learning_rate") is not None

    @property
    def steps(self) -> np.ndarray:
        """The steps of the records."""
        return self.coords.step.values

    @property
    def distance(self) -> float | None:
        """R, from the start to the minimizer."""
        return self.attrs.get("start_distance")

    def numbers(self, *names: str) -> Runs | None:
        """These numbers of the method for every run; None where it has others too, which a rule does not know of, or they change."""
        if "plateau=" in str(self.attrs.get("stop", "")):  # a stopping rule that lets the learning rate fall
            return None
        parameters = inspect.signature(methods.available()[self.attrs["method"]]).parameters if self._is_named else {}
        others = [name for name in parameters if name not in names and (name in self.coords or self.attrs.get(name))]
        if others or any(name not in parameters for name in names):
            return None
        given = [self.coords[name] if name in self.coords else xr.DataArray(parameters[name].default) for name in names]
        return None if any(column.dtype == object for column in given) else Runs.of(*given)

    @property
    def _is_named(self) -> bool:
        return self.attrs.get("method") in methods.available()


class Runs(NamedTuple):
    """Numbers for every run of a sweep: columns of equal length, and how they are laid out."""

    columns: tuple[np.ndarray, ...]
    like: xr.DataArray

    @classmethod
    def of(cls, *given: xr.DataArray) -> Runs:
        """Lay out coordinates that have different dimensions."""
        spread = xr.broadcast(*(column.reset_coords(drop=True) for column in given))
        return cls(tuple(np.atleast_1d(column.values.ravel()).astype(float) for column in spread), spread[0])

    def levels(self, values: Any) -> xr.DataArray:
        """A number for every run, labelled."""
        return self.like.copy(data=np.asarray(values, dtype=float).reshape(self.like.shape))

    def curves(self, rows: Float[np.ndarray, "runs records"], steps: np.ndarray) -> xr.DataArray:
        """A row for every run, labelled."""
        labels = dict(self.like.coords.items()) | {"step": steps}
        return xr.DataArray(np.reshape(rows, (*self.like.shape, len(steps))), labels, (*self.like.dims, "step"))


def edge_at(known: Known, values: xr.DataArray, formula: str, source: str) -> Prediction:
    """A stability edge."""
    return Prediction(name="stability edge", kind="floor", values=values, formula=formula, source=source)
