"""Which way to fit least squares costs least depends on p against the steps, n against the examples, and how near one must come.

Claim
    The normal equations take less work than the full batch as long as p is below twice its steps k, whatever n is; batches take the
    same number of examples whatever n is, so that from some n on they are cheapest, and less so the nearer one must come.
Theory
    Operations until f - f* is tolerance times that of the start, the page's table of section 7 put right:
    - normal equations: 2 n p^2 for X'X and p^3 / 3 to solve (Cholesky). n enters once and linearly, so huge n alone is no reason
      against them (the notebook's section 6: "matrix inversion can be expensive"); what is inverted is p x p. "Exact" is what they are in
      exact arithmetic: experiment=normal_equations;
    - full batch: k steps of 4 n p, with k = ln(1 / tolerance) / (2 ln((kappa + 1) / (kappa - 1))) or less, which neither n nor p enters;
      with X'X once for 2 n p^2, 2 p^2 a step, whatever n is;
    - mini-batch and SGD: 4 B p a step. The page's "O(k B p) per step" is the total of k steps. A constant rate must be lowered in
      proportion to the tolerance, and steps grow like 1 / tolerance, where the full batch's grow like its logarithm.
    So the normal equations and the full batch cross at p = 2 k about (the page says p < 10,000), the full batch and SGD where n k is SGD's
    number of examples.
Sweep
    Designs with a prescribed spectrum: p at one n, n at one p, tolerances at one design; operations counted, times measured apart.
Expect
    Straight lines whose slopes are the powers above, and where they cross; times as on this machine, which nothing is concluded from.
Command
    gdjax experiment=when_to_use
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models, problems, theory
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.work import flops

NOISE = 0.5
"""The standard deviation of the targets' noise; the parameters are 1 along each eigenvector."""

MOST_EXACT = 16
"""Parameters up to which the exact mean of SGD is computed: a step costs p^4."""

ITERATIVE = ("full batch", "mini-batch", "SGD")
METHODS = ("normal equations", *ITERATIVE)


def normal_equations(X: Float[Array, "n p"], y: Float[Array, " n"]) -> Float[Array, " p"]:
    """Solve X'X theta = X'y by Cholesky's factorization."""
    factor = jnp.linalg.cholesky(X.T @ X, symmetrize_input=False)
    return jax.scipy.linalg.cho_solve((factor, True), X.T @ y)


@functools.lru_cache(maxsize=32)
def design(num_examples: int, num_parameters: int, condition_number: float, *, hessian: bool = True) -> Problem:
    """Least squares with X'X/n of eigenvalues from 1/kappa to 1, a true parameter of 1 along each eigenvector, and noise.

    With its Hessian what is recorded costs p^2; without, the full gradient takes all examples, as its operations are counted.
    """
    rng = np.random.default_rng([num_examples, num_parameters])
    U = np.linalg.qr(rng.normal(size=(num_examples, num_parameters)))[0]
    V = np.linalg.qr(rng.normal(size=(num_parameters, num_parameters)))[0]
    X = np.sqrt(num_examples) * (U * np.sqrt(_spectrum(num_parameters, condition_number))) @ V.T
    y = X @ V.sum(axis=1) + NOISE * rng.normal(size=num_examples)
    return problems.least_squares(X, y, intercept=False, hessian=hessian)


def _spectrum(num_parameters: int, condition_number: float) -> np.ndarray:
    return np.geomspace(1.0, 1.0 / condition_number, num_parameters) if num_parameters > 1 else np.ones(1)


def rate_for(num_parameters: int, condition_number: float, batch_size: int, tolerance: float) -> float:
    """A constant rate at which batches of that size come below the tolerance: half of what noise and stability allow, about."""
    trace = float(np.sum(_spectrum(num_parameters, condition_number)))
    return 0.5 * min(1.0 / (2.0 + 2.0 * trace / batch_size), tolerance * batch_size / (4.0 * NOISE**2))


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_parameters: Sequence[int] | int = (4, 16, 64, 128),
    num_examples: Sequence[int] | int = (500, 4000, 32_000),
    condition_number: float = 20.0,
    tolerance: float = 0.01,
    tolerances: Sequence[float] | float = (0.1, 0.03, 0.01, 0.003),
    batch_size: int = 32,
    num_seeds: int = 32,
    num_repeats: int = 3,
) -> xr.DataTree:
    """Count and time every method until it is near enough, as p grows, as n grows, and as near is nearer.

    Parameters
    ----------
    num_parameters
        At the middle one of `num_examples`.
    num_examples
        At the second of `num_parameters`.
    tolerance
        f - f* over that of the start.
    tolerances
        For the smallest design.
    num_repeats
        Of each time measurement, of which the median is kept.
    """
    if isinstance(condition_number, str) or not 1.0 < condition_number < np.inf:
        raise InputError(f"condition_number={condition_number} is not allowed: it is a number above 1.")
    near = several("tolerances", tolerances)
    for value in (tolerance, *near):
        if isinstance(value, str) or not 0.0 < value < 1.0:
            raise InputError(f"tolerance={value} is not allowed: it is a number between 0 and 1.")
    ps = sorted(whole("num_parameters", p) for p in several("num_parameters", num_parameters))
    ns = sorted(whole("num_examples", n, least=max(ps) + 1) for n in several("num_examples", num_examples))
    batch, seeds = whole("batch_size", batch_size), range(whole("num_seeds", num_seeds, least=2))
    repeats = whole("num_repeats", num_repeats)
    if batch > ns[0]:
        raise InputError(f"batch_size={batch} is not allowed: it is a whole number from 1 to the least num_examples, {ns[0]}.")
    middle, second = ns[len(ns) // 2], ps[min(1, len(ps) - 1)]
    shapes = list(dict.fromkeys([(middle, p) for p in ps] + [(n, second) for n in ns]))
    measure = functools.partial(_measured, sweep, kappa=condition_number, batch=batch, seeds=seeds, repeats=repeats)
    each = xr.concat(
        [measure(*shape, tolerance) for shape in shapes], "shape", coords=["num_examples", "num_parameters"], combine_attrs="override"
    )
    parts = {"shapes": each, "near": _nearer(sweep, design(middle, ps[0], condition_number), condition_number, near, seeds)}
    attrs = {"middle": middle, "second": second, "condition_number": condition_number, "tolerance": tolerance, "batch_size": batch}
    parts["shapes"] = each.assign_attrs(attrs)
    return xr.DataTree.from_dict(parts)


def _measured(
    sweep: Callable[..., xr.Dataset], n: int, p: int, tolerance: float, *, kappa: float, batch: int, seeds: range, repeats: int
) -> xr.Dataset:
    """Steps to the tolerance by each method on one design, with their standard errors, and the time that they take."""
    problem = design(n, p, kappa)
    best = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    enough = int(theory.steps_at_optimal_rate(kappa, tolerance)) + 2
    plain = design(n, p, kappa, hessian=False)
    calls = {"full batch": functools.partial(sweep, plain, sampler="full", num_steps=enough, record_every=1, learning_rate=best)}
    for name, size in (("mini-batch", batch), ("SGD", 1)):
        rate = rate_for(p, kappa, size, tolerance)
        decay = -np.log1p(-min(0.9, rate * float(problem.strong_convexity)))  # pyright: ignore[reportArgumentType]
        given: dict[str, Any] = {"sampler": "with_replacement", "batch_size": size, "seed": seeds, "learning_rate": rate}
        calls[name] = functools.partial(sweep, problem, num_steps=int(0.4 * np.log(4.0 / tolerance) / decay) + 20, **given)
    rows = {name: _row(call, tolerance, repeats) for name, call in calls.items()}
    X, y = problem.data
    with precision("float64"):
        solve, on_device = jax.jit(normal_equations), (jnp.asarray(X), jnp.asarray(y))
        solve(*on_device).block_until_ready()
        rows["normal equations"] = _Row(1.0, 0.0, np.nan, _median_time(lambda: solve(*on_device).block_until_ready(), repeats))
    columns = {field: ("solver", [getattr(rows[name], field) for name in METHODS]) for field in _Row._fields}
    return xr.Dataset(columns, {"solver": list(METHODS), "num_examples": n, "num_parameters": p})


class _Row(NamedTuple):
    """How a method came to the tolerance."""

    steps: float
    steps_error: float
    rate: float
    seconds: float  # of one run, up to there


def _row(call: Callable[[], xr.Dataset], tolerance: float, repeats: int) -> _Row:
    runs = call()
    steps, error = crossing(runs, tolerance)
    seconds = _median_time(call, repeats) / runs.sizes.get("seed", 1)
    return _Row(steps, error, float(runs.learning_rate), seconds * steps / float(runs.step[-1]))


def crossing(runs: xr.Dataset, tolerance: float) -> tuple[float, float]:
    """The step at which the mean over seeds comes to the tolerance, between records by the logarithm, and its standard error.

    A single run is at whole steps only, and without error.
    """
    relative = runs.suboptimality / runs.suboptimality.isel(step=0)
    if "seed" not in runs.dims:
        below = relative.values <= tolerance
        return (float(runs.step[int(np.argmax(below))]) if below.any() else np.nan), 0.0
    mean, error = relative.mean("seed").values, analysis.standard_error(relative, "seed").values
    at = _between(runs.step.values, mean, tolerance)
    if not np.isfinite(at):
        return np.nan, np.nan
    lower, upper = (_between(runs.step.values, mean + shift * error, tolerance) for shift in (-1.0, 1.0))
    return at, (upper - lower) / 2.0 if np.isfinite(upper) else np.inf


def _between(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """Where values first come to the level, their logarithm taken as straight between two of them."""
    below = values <= level
    if not below.any():
        return np.nan
    after = max(1, int(np.argmax(below)))
    high, low = np.log(values[after - 1]), np.log(values[after])
    return float(steps[after - 1] + (steps[after] - steps[after - 1]) * (high - np.log(level)) / (high - low))


def _median_time(call: Callable[[], Any], repeats: int) -> float:
    """Of calls after the one that has compiled."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def _nearer(sweep: Callable[..., xr.Dataset], problem: Problem, kappa: float, near: list[float], seeds: range) -> xr.Dataset:
    """SGD's steps to each tolerance, the rate in proportion to it; all rates see the same examples."""
    p = np.size(problem.start)
    rates = np.array([rate_for(p, kappa, 1, value) for value in near])
    enough = int(1.3 * np.log(4.0 / min(near)) / (2.0 * rates.min() * float(problem.strong_convexity)))  # pyright: ignore[reportArgumentType]
    runs = sweep(problem, sampler="with_replacement", num_steps=enough, batch_size=1, seed=seeds, learning_rate=np.unique(rates))
    found = [crossing(runs.sel(learning_rate=rate, method="nearest"), value) for rate, value in zip(rates, near, strict=True)]
    best = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    most = int(theory.steps_at_optimal_rate(kappa, min(near))) + 2
    whole_batch = sweep(problem, sampler="full", num_steps=most, record_every=1, learning_rate=best)
    variables = {
        "steps": ("tolerance", [steps for steps, _ in found]),
        "steps_error": ("tolerance", [error for _, error in found]),
        "rate": ("tolerance", rates),
        "full_steps": ("tolerance", [crossing(whole_batch, value)[0] for value in near]),
    }
    return xr.Dataset(variables, {"tolerance": near}, {"num_examples": problem.num_examples, "num_parameters": p})


def _shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


@functools.lru_cache(maxsize=4096)
def solving(num_examples: int, num_parameters: int) -> int:
    """Operations of the normal equations, counted."""
    return flops(normal_equations, _shape(num_examples, num_parameters), _shape(num_examples))


@functools.lru_cache(maxsize=4096)
def stepping(batch_size: int, num_parameters: int, num_steps: int = 1) -> int:
    """Operations of steps on a batch, counted in a program that takes that many."""
    evaluate = models.Linear(losses.squared_error, intercept=False)

    def descend(theta: Any, X: Any, y: Any) -> Any:
        def step(theta: Any, _: None) -> tuple[Any, None]:
            return theta - 0.1 * evaluate(theta, {}, (X, y), 1.0 / batch_size)[1], None

        return jax.lax.scan(step, theta, length=num_steps)[0]

    return flops(descend, _shape(num_parameters, 1), _shape(batch_size, num_parameters), _shape(batch_size))


def operations(shapes: xr.Dataset) -> xr.DataArray:
    """Operations until the tolerance: counted for a step, times the steps measured."""
    rows = []
    for n, p, steps in zip(
        shapes.num_examples.values, shapes.num_parameters.values, shapes.steps.transpose("shape", "solver").values, strict=True
    ):
        sizes = (int(n), shapes.attrs["batch_size"], 1)
        rows.append([solving(int(n), int(p)), *(k * stepping(size, int(p)) for k, size in zip(steps[1:], sizes, strict=True))])
    return xr.DataArray(rows, {"solver": shapes.solver}, ("shape", "solver"))


def check(results: xr.DataTree) -> list[Finding]:
    """Counted work against its formulas, steps against exact theory, and where methods cross."""
    shapes, near = results["shapes"].to_dataset(), results["near"].to_dataset()
    return [
        *_work_findings(shapes),
        _full_batch_finding(shapes),
        *_stochastic_findings(shapes),
        *_crossover_findings(shapes),
        *_near_findings(near, shapes.attrs["condition_number"]),
    ]


def _work_findings(shapes: xr.Dataset) -> list[Finding]:
    n, p = shapes.num_examples.values, shapes.num_parameters.values
    counted = np.array([solving(*map(int, shape)) for shape in zip(n, p, strict=True)])
    formula = 2.0 * n * p**2 + p**3 / 3.0 + 2.0 * n * p + 2.0 * p**2
    least, most, second, batch = int(n.min()), int(n.max()), shapes.attrs["second"], shapes.attrs["batch_size"]
    return [
        Finding(
            claim="normal equations: counted operations over 2 n p^2 + p^3 / 3 + 2 n p + 2 p^2, the farthest from 1 of all designs",
            predicted=1.0,
            measured=float((counted / formula)[np.argmax(np.abs(counted / formula - 1.0))]),
            tolerance=0.02,
            source="X'X, Cholesky, X'y, two triangular solves; page section 7, O(n p^2 + p^3)",
        ),
        Finding(
            claim=f"normal equations: what is left beside X'X and X'y, at n = {most:,} over n = {least:,}: the inverse is p x p",
            predicted=1.0,
            measured=(solving(most, second) - _gram(most, second)) / (solving(least, second) - _gram(least, second)),
            tolerance=1e-12,
            source="n enters X'X only, linearly; notebook section 6: 'for huge datasets, matrix inversion can be expensive'",
        ),
        Finding(
            claim=f"mini-batch, B = {batch}: operations of 100 steps over those of one; by page section 7, 'O(k B p) per step', 10,000",
            predicted=100.0,
            measured=stepping(batch, second, 100) / stepping(batch, second),
            tolerance=1e-12,
            source="O(B p) a step, as in the page's own section 3.4; k B p is the total",
        ),
        Finding(
            claim=f"a step's operations: power of B between {batch} and {most:,}",
            predicted=1.0,
            measured=float(np.log(stepping(most, second) / stepping(batch, second)) / np.log(most / batch)),
            tolerance=0.02,
            source="4 B p, for B = n too",
        ),
    ]


def _gram(n: int, p: int) -> int:
    return flops(lambda X, y: (X.T @ X, X.T @ y), _shape(n, p), _shape(n))


def _full_batch_finding(shapes: xr.Dataset) -> Finding:
    """In whole steps, on every design."""
    exact = [
        theory.steps_to_tolerance(
            theory.modes(design(int(n), int(p), shapes.attrs["condition_number"])), float(rate), shapes.attrs["tolerance"]
        )
        for n, p, rate in zip(
            shapes.num_examples.values, shapes.num_parameters.values, shapes.rate.sel(solver="full batch").values, strict=True
        )
    ]
    steps = shapes.steps.sel(solver="full batch").values
    bound = int(theory.steps_at_optimal_rate(shapes.attrs["condition_number"], shapes.attrs["tolerance"]))
    return Finding(
        claim=f"full batch: steps to {shapes.attrs['tolerance']:g} on {len(exact)} designs, all together; their bound, {bound} on each, "
        "has neither n nor p in it",
        predicted=float(sum(exact)),
        measured=float(steps.sum()),
        tolerance=0.0,
        source="sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2, Polyak 1964",
    )


@functools.lru_cache(maxsize=32)
def _exact_steps(n: int, p: int, kappa: float, rate: float, batch: int, tolerance: float) -> float:
    """When the exact mean of SGD comes to the tolerance."""
    problem = design(n, p, kappa)
    num_steps = int(0.65 * np.log(4.0 / tolerance) / (rate * float(problem.strong_convexity))) + 20  # pyright: ignore[reportArgumentType]
    mean = theory.expected_suboptimality(problem, np.array([rate]), batch, num_steps, sampler="with_replacement")[0]
    return _between(np.arange(num_steps + 1), mean / mean[0], tolerance)


def _stochastic_findings(shapes: xr.Dataset) -> list[Finding]:
    """Steps against the exact mean, where it is affordable; and that n does not matter."""
    kappa, tolerance, findings = shapes.attrs["condition_number"], shapes.attrs["tolerance"], []
    for name, batch in (("mini-batch", shapes.attrs["batch_size"]), ("SGD", 1)):
        here = shapes.sel(solver=name).where(shapes.num_parameters <= MOST_EXACT, drop=True)
        exact = [
            _exact_steps(int(n), int(p), kappa, float(rate), batch, tolerance)
            for n, p, rate in zip(here.num_examples.values, here.num_parameters.values, here.rate.values, strict=True)
        ]
        for n, p, steps, error, predicted in zip(
            here.num_examples.values, here.num_parameters.values, here.steps.values, here.steps_error.values, exact, strict=True
        ):
            findings.append(
                Finding(
                    claim=f"{name}, n = {int(n):,}, p = {int(p)}: steps until the mean is {tolerance:g} (4 standard errors)",
                    predicted=predicted,
                    measured=float(steps),
                    tolerance=float(4.0 * error / predicted) + 1e-6,
                    source="exact recursion of E ee' for SGD: nothing in it grows with n",
                )
            )
    return findings


def full_batch_crossing(num_examples: int, num_steps: float) -> float:
    """The p at which 2 n p^2 + p^3 / 3 + 2 n p + 2 p^2 = k (4 n p + 5 n + 3 p): about 2 k for n far above p.

    >>> round(full_batch_crossing(10**9, 100), 2)
    200.25
    """
    k, n = num_steps, float(num_examples)
    roots = np.roots([1.0 / 3.0, 2.0 * n + 2.0, 2.0 * n - k * (4.0 * n + 3.0), -5.0 * k * n])
    return float(max(roots[np.isreal(roots)].real))


def _crossover_findings(shapes: xr.Dataset) -> list[Finding]:
    middle, second, steps = shapes.attrs["middle"], shapes.attrs["second"], shapes.steps.sel(solver="full batch").values
    n, p = shapes.num_examples.values, shapes.num_parameters.values
    k = float(np.median(steps[n == middle]))
    crossed = {size: _counted_crossing(size, k) for size in (middle, int(n.max()))}
    findings = [
        Finding(
            claim=f"n = {size:,}, k = {k:g}: the normal equations take less work than the full batch up to p, where the page says 10,000",
            predicted=full_batch_crossing(size, k),
            measured=float(at),
            tolerance=0.03,
            source="2 n p^2 + p^3 / 3 = 4 k n p: p = 2 k, whatever n is, as long as n is far above p",
        )
        for size, at in crossed.items()
    ]
    if second > MOST_EXACT:
        return findings
    row = np.flatnonzero((n == middle) & (p == second))[0]
    sgd = shapes.isel(shape=row).sel(solver="SGD")
    exact = _exact_steps(middle, second, shapes.attrs["condition_number"], float(sgd.rate), 1, shapes.attrs["tolerance"])
    each = stepping(1, second) / (stepping(10**6, second) / 10**6)  # operations of an example, alone and among many
    findings.append(
        Finding(
            claim=f"p = {second}: SGD takes less work than the full batch from n examples on (4 standard errors)",
            predicted=exact * each / steps[row],
            measured=float(sgd.steps) * each / float(steps[row]),
            tolerance=float(4.0 * sgd.steps_error / exact) + 1e-6,
            source="SGD's examples do not depend on n, the full batch's are k n",
        )
    )
    return findings


def _counted_crossing(num_examples: int, num_steps: float) -> float:
    """By halving on counted operations."""
    low, high = 1, 10 * max(1, int(num_steps))
    while high - low > 1:
        middle = (low + high) // 2
        cheaper = solving(num_examples, middle) < num_steps * stepping(num_examples, middle)
        low, high = (middle, high) if cheaper else (low, middle)
    return (low + high) / 2.0


def _near_findings(near: xr.Dataset, kappa: float) -> list[Finding]:
    """From the least tolerance to the greatest."""
    if near.sizes["tolerance"] < 2 or near.attrs["num_parameters"] > MOST_EXACT:
        return []
    n, p, ordered = near.attrs["num_examples"], near.attrs["num_parameters"], near.sortby("tolerance")
    values, rates, steps = ordered.tolerance.values, ordered.rate.values, ordered.steps.values
    exact = np.array([_exact_steps(n, p, kappa, float(rate), 1, float(value)) for value, rate in zip(values, rates, strict=True)])
    width, error = float(np.log(values[-1] / values[0])), float(np.linalg.norm((ordered.steps_error.values / steps)[[0, -1]]))
    power = float(np.log(exact[-1] / exact[0]) / width)
    modes = theory.modes(design(n, p, kappa))
    best = theory.optimal_rate(2.0, 2.0 / kappa)
    return [
        Finding(
            claim=f"SGD: power of the tolerance in its steps, from {values[0]:g} to {values[-1]:g}: -1 and a logarithm (4 standard errors)",
            predicted=power,
            measured=float(np.log(steps[-1] / steps[0]) / width),
            tolerance=4.0 * error / (width * abs(power)),
            source="exact recursion of E ee', the rate in proportion to the tolerance",
        ),
        Finding(
            claim=f"full batch: steps to {values[0]:g} over those to {values[-1]:g}: a logarithm",
            predicted=theory.steps_to_tolerance(modes, best, float(values[0])) / theory.steps_to_tolerance(modes, best, float(values[-1])),
            measured=float(ordered.full_steps[0] / ordered.full_steps[-1]),
            tolerance=0.0,
            source="sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2, Polyak 1964",
        ),
    ]


COLORS = dict(zip(METHODS, (figures.COLORS[6], figures.COLORS[0], figures.COLORS[2], figures.COLORS[1]), strict=True))


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Operations and times against p, n and the tolerance; and the page's table with numbers."""
    shapes, near = results["shapes"].to_dataset(), results["near"].to_dataset()
    drawn, panels = figures.figure(3, 2, width=7.2, height=4.7)
    middle, second = shapes.attrs["middle"], shapes.attrs["second"]
    work = operations(shapes)
    along = {
        "num_parameters": np.flatnonzero(shapes.num_examples.values == middle),
        "num_examples": np.flatnonzero(shapes.num_parameters.values == second),
    }
    for column, (axis, rows) in enumerate(along.items()):
        order = rows[np.argsort(shapes[axis].values[rows])]
        for row, values in enumerate((work, shapes.seconds)):
            _draw_costs(panels[row, column], shapes[axis].values[order], values.isel(shape=order))
            panels[row, column].set_xlabel("parameters p" if axis == "num_parameters" else "examples n")
    k = float(np.median(shapes.steps.sel(solver="full batch").values[along["num_parameters"]]))
    figures.edge_line(panels[0, 0], full_batch_crossing(middle, k), f"p = 2k = {2 * k:g}", side="right")
    panels[0, 0].set_ylim(top=50.0 * float(work.isel(shape=along["num_parameters"]).max()))
    _draw_near(panels[0, 2], near, shapes.attrs["condition_number"])
    panels[0, 0].set(title=f"n = {middle:,}", ylabel=f"operations to {shapes.attrs['tolerance']:g}")
    panels[0, 1].set_title(f"p = {second}")
    panels[1, 0].set_ylabel(f"seconds to {shapes.attrs['tolerance']:g}")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    panels[1, 2].legend(handles, [_long(label, shapes) for label in labels], loc="center", handlelength=2.5)
    panels[1, 2].axis("off")
    figures.source(
        drawn,
        f"designs of condition number {shapes.attrs['condition_number']:g}. Tolerance: f − f* over that of the start, of mini-batches and "
        "SGD in the mean over seeds. Operations: those of\na step's program, times the steps measured. Seconds: medians on this machine, "
        "compilation apart; of mini-batches and SGD a call's, over its seeds.",
    )
    return {"when_to_use": drawn, "when_to_use_table": _table(shapes, work)}


def _long(method: str, shapes: xr.Dataset) -> str:
    said = {
        "normal equations": "normal equations, 2np² + p³/3",
        "full batch": "full batch, k · 4np",
        "mini-batch": f"mini-batch of {shapes.attrs['batch_size']}, k · 4Bp",
        "SGD": "SGD, k · 4p",
    }
    return said[method]


def _draw_costs(axes: Axes, at: np.ndarray, costs: xr.DataArray) -> None:
    for name, marker in zip(METHODS, "sov^", strict=True):
        axes.plot(at, costs.sel(solver=name), marker=marker, markersize=3.5, color=COLORS[name], label=name)
    axes.set(xscale="log", yscale="log")


def _draw_near(axes: Axes, near: xr.Dataset, kappa: float) -> None:
    n, p = near.attrs["num_examples"], near.attrs["num_parameters"]
    ordered = near.sortby("tolerance")
    axes.plot(ordered.tolerance, ordered.steps * stepping(1, p), "^-", markersize=3.5, color=COLORS["SGD"])
    axes.plot(ordered.tolerance, ordered.full_steps * stepping(n, p), "o-", markersize=3.5, color=COLORS["full batch"])
    axes.plot(ordered.tolerance, np.full(ordered.sizes["tolerance"], solving(n, p)), "s-", markersize=3.5, color=COLORS["normal equations"])
    if p <= MOST_EXACT:
        exact = [
            _exact_steps(n, p, kappa, float(rate), 1, float(value)) * stepping(1, p)
            for rate, value in zip(ordered.rate.values, ordered.tolerance.values, strict=True)
        ]
        figures.dashed(axes, ordered.tolerance.values, np.array(exact), bounds=(1.0, 1e30))
    axes.set(xscale="log", yscale="log", xlabel="tolerance", title=f"n = {n:,}, p = {p}")
    axes.invert_xaxis()


def _table(shapes: xr.Dataset, work: xr.DataArray) -> Figure:
    """The page's table of section 7, its words beside what was counted and measured on one design."""
    row = int(
        np.flatnonzero((shapes.num_examples.values == shapes.attrs["middle"]) & (shapes.num_parameters.values == shapes.attrs["second"]))[0]
    )
    one, counted, batch = shapes.isel(shape=row), work.isel(shape=row), shapes.attrs["batch_size"]
    pages = {
        "normal equations": ("O(np² + p³); p < 10,000, “exact”", "2np² + p³/3, below k · 4np as long as p < 2k"),
        "full batch": ("O(knp)", "k · 4np, or 2np² + k · 2p² with X′X"),
        "mini-batch": ("O(kBp) per step", "4Bp per step, k · 4Bp in all, whatever n is"),
        "SGD": ("O(kp) per step", "4p per step, k · 4p in all; k ∝ 1/tolerance"),
    }
    drawn, panels = figures.figure(1, width=7.2, height=2.0)
    axes, edges = panels[0, 0], (0.0, 0.15, 0.4, 0.77, 0.84, 0.93)
    lines = [("", "the page's section 7", "counted", "steps k", "operations", "seconds")]
    for name, (page, right) in pages.items():
        here = (
            f"{float(one.steps.sel(solver=name)):,.0f}",
            f"{float(counted.sel(solver=name)):.2g}",
            f"{float(one.seconds.sel(solver=name)):.2g}",
        )
        lines.append((name if name != "mini-batch" else f"mini-batch ({batch})", page, right, *here))
    for place, line in enumerate(lines):
        for column, (left, text) in enumerate(zip(edges, line, strict=True)):
            color = figures.COLORS[1] if column == 1 else "0.4" if place == 0 else "black"
            axes.annotate(text, (left, -place - 0.3), va="top", fontsize=7, color=color)
        axes.axhline(-place - 1.0, color="0.8", linewidth=0.6)
    axes.set(xlim=(0, 1), ylim=(-len(lines), 0))
    axes.axis("off")
    figures.source(
        drawn,
        f"Right: n = {shapes.attrs['middle']:,}, p = {shapes.attrs['second']}, condition number {shapes.attrs['condition_number']:g}, to "
        f"{shapes.attrs['tolerance']:g} of the start's f − f*.",
    )
    return drawn
