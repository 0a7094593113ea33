"""The loss of a linear model is a bowl sqrt(kappa) times as long as it is wide, and how it is walked down depends on rate and method.

Claim
    The level sets of J are ellipses around its one minimizer whose axes are as 1 / sqrt(lambda); gradient descent moves along each axis
    on its own, and a rate above 2 / L leaves along the steepest.
Theory
    J = J* + e'He / 2 with e = theta - theta*, so the axis ratio is sqrt(kappa); e_t = V (1 - eta lambda)^t V'e_0 (Polyak 1964). The
    notebook marks the end of its run at rate 0.05 on its contours and draws axes about 1e154 long: that end is no minimizer, the rate is
    1.7 times the edge.
Sweep
    A surface of objectives in one batch; the rates given, and the rates and momenta that suit the problem best.
Expect
    Slow rates fall into the valley and creep along it; rates near the edge zigzag across it; momentum swings through; rates past the
    edge leave the panel along the short axis.
Command
    gdjax experiment=loss_landscape
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, theory
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, several, whole

EPS = float(np.finfo(float).eps)
RATES = (0.03, 0.5, 0.99, 1.7)
"""Rates of the paths where none are given, in units of the edge 2 / L."""

DRAWN_ALL = 40
"""So many steps of a path are all drawn, and joined by lines."""

EVALUATED_AT_ONCE = 2**24
"""Predictions, examples x points of the surface, that are made in one batch."""

ARROW = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0}

METHODS = {"sgd": "gradient descent, 2/(L + μ)", "heavy_ball": "heavy ball", "nesterov": "Nesterov"}


class Plane(NamedTuple):
    """A plane through the minimizer: its directions (rows), how far the surface reaches along each, and the names of its axes."""

    directions: Float[np.ndarray, "2 p"]
    reach: Float[np.ndarray, " 2"]
    names: tuple[str, str]
    origin: Float[np.ndarray, " 2"]  # what the axes show at the minimizer

    def project(self, problem: Problem, params: Float[np.ndarray, "... p"]) -> Float[np.ndarray, "... 2"]:
        """Where parameters stand on the axes."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.origin + (params - np.asarray(problem.minimizer)) @ self.directions.T


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 400,
    learning_rate: Sequence[float] | float | None = None,
    grid_size: int = 101,
) -> xr.DataTree:
    """Evaluate the surface around the minimizer, and follow plain descent at each rate and each method at its best numbers.

    Parameters
    ----------
    learning_rate
        Rates of the paths of plain descent; by default `RATES` times the edge.
    """
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment loss_landscape is about linear least squares, which {problem.name} is not.")
    curvatures, _ = theory.eigenvectors(problem)
    if _slowest(curvatures) == len(curvatures) - 1:
        raise InputError("experiment loss_landscape needs two directions in which J bends, and here there is one: give another feature.")
    edge = theory.stability_edge(problem.smoothness)
    rates = [share * edge for share in RATES] if learning_rate is None else several("learning_rate", learning_rate)
    root_L, root_mu = (float(np.sqrt(np.asarray(bound))) for bound in (problem.smoothness, problem.strong_convexity))
    momentum = (root_L - root_mu) / (root_L + root_mu)
    best = {
        "sgd": {"learning_rate": theory.optimal_rate(problem.smoothness, problem.strong_convexity)},
        "heavy_ball": {"learning_rate": 4.0 / (root_L + root_mu) ** 2, "momentum": momentum**2},
        "nesterov": {"learning_rate": edge / 2.0, "momentum": momentum},
    }
    steps = _drawn_steps(whole("num_steps", num_steps))
    paths = {name: _paths(problem, sweep, steps, method=name, **numbers) for name, numbers in best.items()}
    return xr.DataTree.from_dict(
        {
            "surface": _surface(problem, whole("grid_size", grid_size, least=3)),
            "rates": _paths(problem, sweep, steps, method="sgd", learning_rate=rates),
            **paths,
        }
    )


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Measure the bowl on the surface, and the paths against the eigenmodes and against one long run each."""
    surface, rates = results["surface"].to_dataset(), results["rates"].to_dataset()
    return [
        *_bowl_findings(surface, problem),
        _mode_finding(rates, problem),
        _one_run_finding([results[name].to_dataset() for name in ("rates", *METHODS)], problem),
        *_end_findings(rates, problem),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The surface with plain descent at each rate; with each method at its best; what is left along the longest and shortest axis."""
    plane, surface, rates = plane_of(problem), results["surface"].to_dataset(), results["rates"].to_dataset()
    drawn, panels = figures.figure(3, width=7.2, height=3.3)
    for axes in panels[0, :2]:
        _draw_surface(axes, surface, plane, problem)
    for i, color in zip(range(rates.sizes["learning_rate"]), figures.COLORS, strict=False):  # thinner above thicker: paths share valleys
        one = rates.isel(learning_rate=i)
        _draw_path(panels[0, 0], plane.project(problem, one.path.values), color=color, label=_label(one), linewidth=max(0.6, 2.2 - 0.5 * i))
    for (name, label), index in zip(METHODS.items(), (4, 5, 2), strict=True):
        path = plane.project(problem, results[name].to_dataset().path.values)
        _draw_path(panels[0, 1], path, color=figures.COLORS[index], label=label, linewidth=0.6)
    titles = (f"gradient descent, 2/L = {theory.stability_edge(problem.smoothness):.4g}", "each at its best rate and momentum")
    for axes, title in zip(panels[0, :2], titles, strict=True):
        axes.legend(title=title, loc="lower left", bbox_to_anchor=(-0.15, 1.0), handlelength=1.2, title_fontsize=8, alignment="left")
    _draw_modes(panels[0, 2], rates, problem)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, κ = {float(problem.condition_number):.4g}. Grey: equal J − J*, a factor √10 "
        f"apart; cross: θ*; large dot: start; small dots: steps, {DRAWN_ALL} joined.\nBlack arrows: eigenvectors of H, as long as "
        "1/√λ; dashed ellipse: theory's level set through their tips. Right: thick along the long axis (μ), thin along the\n"
        "short (L); dashed: |1 − ηλ|$^t$; triangles: diverged.",
    )
    return {"loss_landscape": drawn}


def plane_of(problem: Problem) -> Plane:
    """Of two parameters their own plane, the second across and the first upward as in the notebook; else that of the extreme eigenvectors.

    It reaches 1.4 times as far as the start, and where the start has no share, 1/20 of the width of its level set.
    """
    curvatures, vectors = theory.eigenvectors(problem)
    error = np.asarray(problem.start) - np.asarray(problem.minimizer)
    if len(curvatures) == 2:
        directions, origin = np.eye(2)[::-1], np.asarray(problem.minimizer)[::-1]
        given = problem.parameter_names or ("θ0", "θ1")
        names = (given[1], given[0])
    else:
        slowest = _slowest(curvatures)
        directions, origin = vectors[:, [slowest, -1]].T, np.zeros(2)
        names = ("along the eigenvector of μ", "along the eigenvector of L")
    widths = np.sqrt(
        np.sum(curvatures * (vectors.T @ error) ** 2) / np.maximum(np.diag(directions @ _hessian(problem) @ directions.T), EPS)
    )
    return Plane(directions, np.maximum(1.4 * np.abs(directions @ error), 0.05 * widths), names, origin)


def _hessian(problem: Problem) -> np.ndarray:
    curvatures, vectors = theory.eigenvectors(problem)
    return (vectors * curvatures) @ vectors.T


def _slowest(curvatures: np.ndarray) -> int:
    """Where mu is among the ascending eigenvalues: the first that is not zero."""
    return int(np.argmax(curvatures > curvatures[-1] * len(curvatures) * EPS))


def _surface(problem: Problem, size: int) -> xr.Dataset:
    """J on a square grid of the plane, from the examples themselves: every point is a lane of one batch, or of a few."""
    plane, ticks = plane_of(problem), np.linspace(-1.0, 1.0, size)
    across, upward = np.meshgrid(ticks * plane.reach[0], ticks * plane.reach[1])
    points = np.asarray(problem.minimizer)[:, None] + plane.directions.T @ np.stack([across.ravel(), upward.ravel()])
    parts = np.array_split(points, max(1, points.shape[1] * problem.num_examples // EVALUATED_AT_ONCE), axis=1)
    with precision("float64"):
        weight = 1.0 / problem.num_examples
        values = [problem.evaluate(jnp.asarray(part), problem.constants, problem.data, weight)[0] for part in parts]
    objective = np.concatenate([np.asarray(value) for value in values]).reshape(size, size)
    places = {"upward": plane.origin[1] + ticks * plane.reach[1], "across": plane.origin[0] + ticks * plane.reach[0]}
    return xr.Dataset({"objective": (("upward", "across"), objective)}, places)


def _drawn_steps(num_steps: int) -> np.ndarray:
    """All of the first, and as many more as a curve needs."""
    return np.unique(np.concatenate([np.arange(1, min(num_steps, DRAWN_ALL) + 1), np.geomspace(1, num_steps, 80).round().astype(int)]))


def _paths(problem: Problem, sweep: Callable[..., xr.Dataset], steps: np.ndarray, **settings: Any) -> xr.Dataset:
    """One run with every step recorded, and the parameters at some of its steps: the ends of as many runs, which share one program."""
    full = sweep(problem, sampler="full", num_steps=int(steps[-1]), record_every=1, **settings)
    ends = [sweep(problem, sampler="full", num_steps=int(t), record_every=int(t), **settings).params for t in steps]
    start = xr.zeros_like(ends[0]) + np.asarray(problem.start)
    path = xr.concat([start, *ends], "drawn").assign_coords(drawn=np.append(0, steps)).transpose(..., "drawn", "parameter")
    return full.assign(path=path)


def _bowl_findings(surface: xr.Dataset, problem: Problem) -> list[Finding]:
    curvature, residual, rounding = quadratic_fit(surface)
    ends = np.linalg.eigvalsh(curvature)
    return [
        Finding(
            claim="axis ratio of the level sets, of the quadratic fitted to the surface, is sqrt(kappa)",
            predicted=float(np.sqrt(float(problem.condition_number))),
            measured=float(np.sqrt(ends[1] / ends[0])) if ends[0] > 0 else np.nan,
            tolerance=1e-9 + rounding,
            source="J = J* + e'He / 2; kappa from the singular values of X",
        ),
        Finding(
            claim="the surface is that quadratic: largest deviation relative to the highest value (absolute)",
            predicted=0.0,
            measured=residual,
            tolerance=1e-12,
            source="J = J* + e'He / 2",
        ),
        Finding(
            claim="no point of the surface is below the minimum: lowest - J*, relative to the highest value (absolute)",
            predicted=0.0,
            measured=float((surface.objective.min() - np.asarray(problem.minimum)) / surface.objective.max()),
            tolerance=1e-12,
            source="J is convex, with one minimizer where X has full rank",
            kind="at_least",
        ),
    ]


def quadratic_fit(surface: xr.Dataset) -> tuple[Float[np.ndarray, "2 2"], float, float]:
    """The Hessian of the quadratic fitted to a surface, its largest relative deviation, and what rounding leaves open of 1 / kappa."""
    values = surface.objective.values
    reach = np.array([np.ptp(surface[name].values) / 2 for name in ("across", "upward")])
    ticks = np.linspace(-1.0, 1.0, len(values))
    s, t = (part.ravel() for part in np.meshgrid(ticks, ticks))
    terms = np.stack([np.ones_like(s), s, t, s * s, s * t, t * t], axis=1)
    weights = np.linalg.lstsq(terms, values.ravel(), rcond=None)[0]
    curvature = np.array([[2.0 * weights[3], weights[4]], [weights[4], 2.0 * weights[5]]]) / np.outer(reach, reach)
    slow, vectors = np.linalg.eigh(curvature)
    rounding = 10.0 * EPS * values.max() * np.sum(np.abs(vectors[:, 0]) / reach) ** 2 / slow[0]
    return curvature, float(np.max(np.abs(terms @ weights - values.ravel())) / values.max()), float(rounding)


def _mode_finding(rates: xr.Dataset, problem: Problem) -> Finding:
    """Relative to the greater of what the start and the step should have: a path that diverges is judged by its own size."""
    exact, measured = _exact_errors(rates, problem), _errors(rates, problem)
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(exact).max(axis=-1)
        deviation = np.abs(measured - exact).max(axis=-1) / np.maximum(size, size[:, :1])
    return Finding(
        claim="what is left of the error along each eigenvector, at every drawn step of every rate: relative deviation (absolute)",
        predicted=0.0,
        measured=float(deviation[np.isfinite(deviation) & (size < _most(rates))].max()),
        tolerance=analysis.ROUND_OFF[rates.attrs["precision"]][1],
        source="e_t = V (1 - eta lambda)^t V'e_0, Polyak 1964",
    )


def _one_run_finding(paths: list[xr.Dataset], problem: Problem) -> Finding:
    """The ends of runs of different lengths are the points of one run, whose distances were recorded on the way."""
    deviations = []
    for one in paths:
        away = np.sqrt(((one.path - np.asarray(problem.minimizer)) ** 2).sum("parameter", skipna=False)).values
        recorded = one.distance.sel(step=one.drawn.values).values
        with np.errstate(invalid="ignore"):
            deviations.append(np.ravel(np.abs(away - recorded) / np.maximum(recorded, recorded[..., :1])))
    return Finding(
        claim="paths of every rate and method: each one's points are those of one run, deviation in distance (absolute)",
        predicted=0.0,
        measured=float(np.max(np.concatenate(deviations), where=np.isfinite(np.concatenate(deviations)), initial=0.0)),
        tolerance=analysis.ROUND_OFF[paths[0].attrs["precision"]][0],
        source="a run of t steps is the beginning of a longer one",
    )


def _end_findings(rates: xr.Dataset, problem: Problem) -> list[Finding]:
    """Where runs past the edge end: item for item what the notebook's marker shows."""
    _, vectors = theory.eigenvectors(problem)
    exact = np.abs(np.asarray(problem.minimizer) + _exact_errors(rates, problem)[:, -1] @ vectors.T).max(axis=1)
    reached, steps = np.abs(rates.params).max("parameter", skipna=False).values, int(rates.step[-1])
    past = (rates.learning_rate.values > theory.stability_edge(problem.smoothness)) & np.isfinite(exact) & (exact < _most(rates))
    return [
        Finding(
            claim=f"rate {rates.learning_rate.values[i]:.4g} is past the edge: log10 of the largest parameter after {steps} steps",
            predicted=float(np.log10(exact[i])),
            measured=float(np.log10(reached[i])),
            tolerance=analysis.ROUND_OFF[rates.attrs["precision"]][1],
            source="theta* + V (1 - eta lambda)^t V'e_0; the notebook's marker at rate 0.05 is at (-4.9e153, -3.3e154)",
        )
        for i in np.flatnonzero(past)
    ]


def _most(rates: xr.Dataset) -> float:
    """Numbers beyond this overflow soon, in the gradient before the parameters."""
    return 1e-8 * float(np.finfo(rates.attrs["precision"]).max)


def _errors(rates: xr.Dataset, problem: Problem) -> Float[np.ndarray, "rates drawn p"]:
    """The error along each eigenvector at every drawn step."""
    with np.errstate(invalid="ignore", over="ignore"):
        return (rates.path.values - np.asarray(problem.minimizer)) @ theory.eigenvectors(problem)[1]


def _exact_errors(rates: xr.Dataset, problem: Problem) -> Float[np.ndarray, "rates drawn p"]:
    return theory.gradient_descent_errors(theory.modes(problem), rates.learning_rate.values, rates.drawn.values)


def _draw_surface(axes: Axes, surface: xr.Dataset, plane: Plane, problem: Problem) -> None:
    x, y = surface.across.values, surface.upward.values
    above = np.maximum(surface.objective.values - np.asarray(problem.minimum), 0.0)
    levels = 10.0 ** np.arange(np.log10(above.max()) - 5.0, np.log10(above.max()), 0.5)
    axes.contour(x, y, above, levels=levels, colors="0.75", linewidths=0.5)
    _draw_axes(axes, plane, problem)
    axes.plot(*plane.origin, "x", color="black", markersize=5, zorder=5)
    axes.plot(*plane.project(problem, np.asarray(problem.start)), "o", color="black", markersize=3, zorder=5)
    axes.set(xlabel=plane.names[0], ylabel=plane.names[1], xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.grid(visible=False)


def _draw_axes(axes: Axes, plane: Plane, problem: Problem) -> None:
    """The eigenvectors as long as 1 / sqrt(lambda), and the level set through their tips, scaled to fill most of the panel."""
    curvatures, vectors = np.linalg.eigh(plane.directions @ _hessian(problem) @ plane.directions.T)
    arrows = vectors / np.sqrt(curvatures)
    arrows *= np.where(arrows[1] < 0, -0.8, 0.8) / np.max(np.abs(arrows) / plane.reach[:, None])
    angles = np.linspace(0.0, 2.0 * np.pi, 200)
    ellipse = plane.origin[:, None] + arrows @ np.stack([np.cos(angles), np.sin(angles)])
    axes.plot(*ellipse, color="black", linestyle=(0, (3, 2)), linewidth=0.7)
    for arrow in arrows.T:
        axes.annotate("", (*(plane.origin + arrow),), (*plane.origin,), arrowprops=ARROW | {"color": "black", "linewidth": 0.9}, zorder=4)


def _draw_path(axes: Axes, points: Float[np.ndarray, "drawn 2"], *, color: str, label: str, linewidth: float) -> None:
    """Dots for steps, joined as long as each is drawn; a path that leaves the panel for good ends in an arrow at the border."""
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    outside = ~((points >= low) & (points <= high)).all(axis=1)
    last = int(np.argmax(outside)) if outside[-1] and outside.any() else len(points)
    consecutive = min(last, DRAWN_ALL + 1)
    axes.plot(*points[:consecutive].T, color=color, linewidth=linewidth, label=label)
    axes.plot(*points[:last].T, ".", color=color, markersize=linewidth + 2.0, markeredgewidth=0)
    if last < len(points):
        begin, way = points[last - 1], points[last] - points[last - 1]
        with np.errstate(divide="ignore"):
            share = np.nanmin(np.where(way > 0, (high - begin) / way, np.where(way < 0, (low - begin) / way, np.inf)))
        axes.annotate("", (*(begin + share * way),), (*begin,), arrowprops=ARROW | {"color": color, "linewidth": linewidth})


def _label(one: xr.Dataset) -> str:
    """A run's rate, and of one that leaves the panel where it is in the end."""
    name, reached = f"η = {float(one.learning_rate):.3g}", float(np.abs(one.params).max("parameter", skipna=False))
    if int(one.diverged_at) < 0:
        return name
    return rf"{name}, in the end |θ| ≈ $10^{{{np.log10(reached):.1f}}}$" if np.isfinite(reached) else f"{name}, overflows"


def _draw_modes(axes: Axes, rates: xr.Dataset, problem: Problem) -> None:
    curvatures = theory.modes(problem).curvatures
    slowest = _slowest(curvatures)
    left, exact = _errors(rates, problem), _exact_errors(rates, problem)
    bounds, steps = (1e-8, 1e2), rates.drawn.values
    for i, color in zip(range(len(left)), figures.COLORS, strict=False):
        for mode, width in ((slowest, 2.0), (len(curvatures) - 1, 0.8)):
            # past the edge the short axis' error grows until its rounding is all that there is along the long one
            shown = slice(1, max(2, np.count_nonzero(np.abs(exact[i, :, -1]) < 1e3 * bounds[1] * np.abs(exact[i, 0, -1]))))
            share, said = (np.abs(part[i, shown, mode] / exact[i, 0, mode]) for part in (left, exact))
            figures.trajectory(axes, steps[shown], share, bounds=bounds, color=color, linewidth=width)
            figures.dashed(axes, steps[shown], said, bounds=bounds, linewidth=0.6)
    axes.set(xscale="log", yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel="share of the error left")
    axes.set_title("along the long and short axis")
