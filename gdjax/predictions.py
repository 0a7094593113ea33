"""What theory says of a sweep, from its coordinates and its problem's constants alone: curves, levels, bounds, and the stability edge.

`RULES`, `EXACT` and `EDGES` are tables: a new prediction is a function in `gdjax.theory` and an entry here. Whatever a sweep measured
is dropped before a rule sees it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from gdjax import facts, methods, theory
from gdjax.records import InputError, Problem
from gdjax.theory import acceleration, momentum, smooth_convex, stability

Kind = Literal["equal", "mean", "floor", "at_most", "slope"]
"""An exact curve, the exact mean over batches, the level of that mean in the end, a bound, or how steep a curve is in the end."""

MOST_ENTRIES = 2**24
"""Numbers of a curve's modes held at a time: runs x records x modes."""

MOST_WORK = 3e10
"""Floating-point operations that a moment may take (a few seconds); beyond, it is left out."""

MEAN_SQUARE_SHARE = 0.5
"""Up to this share of the mean-square edge the reshuffled floor, which is of first order in the noise, is drawn."""


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
        """These numbers of the method for every run; None where the method has others too, which a rule does not know of."""
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
        labels = {name: coordinate for name, coordinate in self.like.coords.items()} | {"step": steps}
        return xr.DataArray(np.reshape(rows, (*self.like.shape, len(steps))), labels, (*self.like.dims, "step"))


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
    bare = dataset.drop_vars([name for name in dataset.data_vars])
    attrs = {"method": "", "sampler": "", "num_examples": 1} | dataset.attrs
    if problem is not None:
        problem, own = _begun(problem, attrs.get("start")), facts.facts(problem)
        for name, value in {"num_examples": problem.num_examples, **{key: own[key] for key in ("smoothness", "minimum") if key in own}}.items():
            if name in dataset.attrs and not np.isclose(value, dataset.attrs[name], rtol=1e-6, atol=0.0):
                raise InputError(
                    f"problem={problem.name} is not what the sweep was about: its {name} is {value:.6g}, the sweep's {attrs[name]:.6g}."
                )
        attrs = facts.facts(problem) | attrs
    return Known(coords=bare, attrs=attrs, problem=problem, y=y)


def _begun(problem: Problem, start: Sequence[float] | None) -> Problem:
    """The problem, begun where the runs were."""
    return problem if start is None else dataclasses.replace(problem, start=np.asarray(start))


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


def _method(known: Known) -> str:
    return "sgd with momentum" if known.attrs["method"] == "sgd" and "momentum" in known.coords else known.attrs["method"]


def exact_curve(known: Known) -> Prediction | None:
    """Of a method in `EXACT` with full gradients on a quadratic."""
    exact = EXACT.get(_method(known)) if known.is_full else None
    runs = known.numbers(*exact.numbers) if exact is not None else None
    if exact is None or runs is None or known.modes is None or (known.y == "objective" and "minimum" not in known.attrs):
        return None
    modes, flat = _weighted(known.modes, known.y)
    together = max(1, MOST_ENTRIES // (len(known.steps) * len(modes.start)))
    total = len(runs.columns[0])
    parts = [
        exact.curves(modes, *(column[first : first + together] for column in runs.columns), known.steps) for first in range(0, total, together)
    ]
    rows = np.concatenate(parts) + (known.attrs["minimum"] if known.y == "objective" else flat)
    if known.y in ("distance", "gradient_norm"):
        rows = np.sqrt(rows)
    return Prediction(name="exact curve", kind="equal", values=runs.curves(rows, known.steps), formula=exact.formula, source=exact.source)


def _sampled(known: Known, samplers: Sequence[str]) -> Problem | None:
    """The problem of plain mini-batch runs on least squares, where their examples are given."""
    problem, fits = known.problem, known.y in ("suboptimality", "objective")
    if problem is None or not (fits and known.is_plain and not known.is_full and known.attrs["sampler"] in samplers):
        return None
    return problem if theory.is_least_squares(problem) else None


def _raised(known: Known) -> float:
    return float(known.attrs["minimum"]) if known.y == "objective" else 0.0


def _by_batch(known: Known) -> tuple[Runs, list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]]:
    """Runs of each batch size: its places, and its different rates with which run has which."""
    runs = Runs.of(known.coords.learning_rate, known.coords.batch_size)
    rates, sizes = runs.columns
    groups = []
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        different, which = np.unique(rates[places], return_inverse=True)
        groups.append((int(size), places, different, which))
    return runs, groups


def exact_mean(known: Known) -> Prediction | None:
    """The mean over batches drawn anew each step, of constant-step SGD on least squares."""
    problem = _sampled(known, theory.INDEPENDENT)
    if problem is None or not theory.has_moments(problem, known.attrs["sampler"]):
        return None
    runs, groups = _by_batch(known)
    last, num_rates = int(known.steps[-1]), sum(len(rates) for _, _, rates, _ in groups)
    if np.size(problem.start) ** 4 * num_rates * last > MOST_WORK:
        return None
    rows = np.empty((len(runs.columns[0]), len(known.steps)))
    for size, places, rates, which in groups:
        mean = theory.expected_suboptimality(problem, rates, size, last, sampler=known.attrs["sampler"])
        rows[places] = np.asarray(mean)[which][:, known.steps]
    values = _held(known, runs.curves(rows, known.steps)) + _raised(known)
    return Prediction(name="exact mean", kind="mean", values=values, formula="recursion of E ee'", source="second moments of LMS")


def _held(known: Known, values: xr.DataArray) -> xr.DataArray:
    """Runs that are over before the others keep their last value, as the sweep keeps it."""
    epoch = known.coords.get("epoch")
    if epoch is None or epoch.dims == ("step",):
        return values
    place = (epoch.reset_coords(drop=True) >= epoch.isel(step=-1, drop=True).reset_coords(drop=True)).argmax("step")
    record = xr.DataArray(np.arange(values.sizes["step"]), dims="step")
    return values.isel(step=xr.where(record < place, record, place).transpose(..., "step")).assign_coords(step=values.step)


def noise_floor(known: Known) -> Prediction | None:
    """The level at which that mean stalls."""
    problem = _sampled(known, theory.INDEPENDENT)
    if problem is None or not theory.has_moments(problem, known.attrs["sampler"]):
        return None
    runs, groups = _by_batch(known)
    if np.size(problem.start) ** 6 * sum(len(rates) for _, _, rates, _ in groups) > MOST_WORK:
        return None
    floors = np.empty(len(runs.columns[0]))
    for size, places, rates, which in groups:
        of_rates = [float(theory.noise_floor(problem, float(rate), size, sampler=known.attrs["sampler"])) for rate in rates]
        floors[places] = np.asarray(of_rates)[which]
    values = runs.levels(np.where(np.isfinite(floors), floors, np.nan) + _raised(known))
    return Prediction(name="noise floor", kind="floor", values=values, formula="fixed point of E ee'", source="second moments of LMS")


def reshuffled_floor(known: Known) -> Prediction | None:
    """The level at which reshuffled batches stall at the ends of epochs, to first order in the noise."""
    problem = _sampled(known, ("reshuffled",))
    if problem is None:
        return None
    runs, groups = _by_batch(known)
    floors = np.full(len(runs.columns[0]), np.nan)
    small = np.size(problem.start) <= theory.moments.MOST_PARAMETERS
    for size, places, rates, which in groups:
        edge = theory.mean_square_edge(problem, size) if small else theory.stability_edge(known.attrs["smoothness"])
        found = [
            float(theory.reshuffled_noise(problem, float(rate), size)) if 0 < rate <= MEAN_SQUARE_SHARE * edge else np.nan for rate in rates
        ]
        floors[places] = np.asarray(found)[which]
    if np.isnan(floors).all():
        return None
    values = runs.levels(floors + _raised(known))
    formula = "first order in the noise, at the ends of epochs"
    return Prediction(name="reshuffled floor", kind="floor", values=values, formula=formula, source="Mishchenko et al. 2020")


def _convex(known: Known, *names: str, method: str = "sgd") -> tuple[Runs, float, float] | None:
    """Runs with full gradients on a smooth convex f that is no quadratic, L and R; None where something is missing."""
    given = known.attrs.get("convex") and "smoothness" in known.attrs and known.distance is not None
    if not (given and known.is_full and known.y == "suboptimality" and known.modes is None and _method(known) == method):
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
    rows = [acceleration.convex_bound(1.0 / rate, distance, known.steps) if 0 < rate * smoothness <= 1 else np.nan * known.steps for rate in rates]
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


def _edge(known: Known, values: xr.DataArray, formula: str, source: str) -> Prediction:
    return Prediction(name="stability edge", kind="floor", values=values, formula=formula, source=source)


def full_batch_edge(known: Known) -> Prediction | None:
    """2 / L and what momentum makes of it, on quadratics; of any other smooth convex f descent is sure below 2 / L."""
    method = _method(known)
    smoothness = known.attrs.get("smoothness")
    if not known.is_full or smoothness is None or not (known.modes is not None or known.attrs.get("convex")):
        return None
    if method == "sgd" and known.is_plain:
        sure = "2/L" if known.modes is not None else "2/L, below which f falls in every step,"
        return _edge(known, xr.DataArray(theory.stability_edge(smoothness)), sure, "Polyak 1964")
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
    return _edge(known, runs.levels(edge(smoothness, runs.columns[0])), formula, "Polyak 1964")


def mean_square_edge(known: Known) -> Prediction | None:
    """The limit of the mean square of SGD on least squares, batches drawn anew each step."""
    problem = _sampled(known, theory.INDEPENDENT)
    if problem is None or not theory.has_moments(problem, known.attrs["sampler"]):
        return None
    runs = Runs.of(known.coords.batch_size)
    edges = {size: float(theory.mean_square_edge(problem, int(size), sampler=known.attrs["sampler"])) for size in np.unique(runs.columns[0])}
    values = runs.levels([edges[size] for size in runs.columns[0]])
    return _edge(known, values, "limit of E||x − x*||²", "second moments of LMS")


EDGES: tuple[Callable[[Known], Prediction | None], ...] = (full_batch_edge, mean_square_edge)
