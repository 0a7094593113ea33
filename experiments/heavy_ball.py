"""The heavy ball is fastest on quadratics when its modes are about to turn complex, and on another convex function it goes in circles.

Claim
    On a quadratic the heavy ball converges iff alpha L < 2 (1 + beta), and its best rate and momentum contract by
    (sqrt(kappa) - 1) / (sqrt(kappa) + 1) a step, with a factor t^2 in f beside it. Those very numbers make it circle for ever on a
    smooth, strongly convex f that is no quadratic, where gradient descent and Nesterov's method converge.
Theory
    Modes are roots of z^2 - (1 + beta - alpha lambda) z + beta (Polyak 1964); a double root has a factor of t. f' = 25 x below 1, x + 24 to
    2, 25 x - 24 beyond, with L = 25 and mu = 1: at alpha = 1/9, beta = 4/9 from x_0 = x_{-1} = 3.3 a cycle of three points, the solution of
    three linear equations (Lessard, Recht and Packard 2016, section 4.6). With beta = sqrt((1 - alpha mu)(1 - alpha L)), alpha <= 1 / L,
    f_t - f* <= (1 - alpha mu)^t (f_0 - f*) on any such f (Ghadimi, Feyzmahdavian and Johansson 2015, Thm 4).
Sweep
    Every step of the tuned run and of another; a map of rates x momenta, all of it predicted by one program; rates around the edge for some
    momenta; safe momenta over rates up to 1 / L; four methods on the function with two kinks.
Expect
    Curves on their dashed closed forms, the tuned one above rho^2t by t^2; the map's colours end at the dashed edge; three lines of the
    cycle, while the others fall.
Command
    gdjax experiment=heavy_ball
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems, theory
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import momentum as momenta

SLOPE_TOLERANCE = 1e-3
EDGE_TOLERANCE = 1e-3
CYCLE_TOLERANCE = 1e-9
STRAIGHT = 5e-4
"""A slope counts where both halves of the exact curve agree on it this well."""

FEWEST_RECORDS = 16
"""A slope needs so many."""

SAFE_RATES = 20
KINKED_STEPS = 400
TAIL = 30
"""Steps at the end that are compared with the cycle."""

FINE = 161
"""Points along each side of the map's predicted contours."""

MAP_STEPS = 400
MOST_MOMENTUM, MOST_RATE = 0.98, 4.0
"""The map's ends; the rate in units of 1 / L."""

CYCLE = momenta.three_cycle(1.0 / 9.0, 4.0 / 9.0, np.full(3, 25.0), np.array([0.0, 0.0, -24.0]))
"""Where f' is 25 x, 25 x and 25 x - 24: at 792/1225, -2208/1225 and 2592/1225."""


def two_kinks(params: Float[Array, " 1"], example: Any) -> Array:
    """f with f' = 25 x below 1, x + 24 from 1 to 2, 25 x - 24 beyond: smooth with L = 25, strongly convex with mu = 1."""
    x = params[0]
    return jnp.where(x < 1.0, 12.5 * x**2, jnp.where(x < 2.0, 0.5 * x**2 + 24.0 * x - 12.0, 12.5 * x**2 - 24.0 * x + 36.0))


def two_kinks_problem() -> Problem:
    """The function above, begun at 3.3."""
    return problems.from_loss(
        two_kinks, np.zeros(1), np.array([3.3]), minimizer=np.zeros(1), minimum=0.0, smoothness=25.0, strong_convexity=1.0
    )


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 1500,
    relative_rate: float = 3.0,
    momentum: float = 0.9,
    edge_momenta: Sequence[float] | float = (0.0, 0.5, 0.9),
    grid_size: int = 50,
) -> xr.DataTree:
    """Run the tuned ball and another, the map, the edges, safe momenta, and four methods on the function with two kinks.

    Parameters
    ----------
    relative_rate, momentum
        Of the run that is tuned for nothing, the rate in units of 1 / L.
    edge_momenta
        Momenta, from 0 to below 1, whose stability edge is measured.
    grid_size
        Rates, and momenta, of the map.
    """
    if not theory.is_quadratic(problem):
        raise InputError(f"experiment heavy_ball is about least squares and other quadratics, which {problem.name} is not.")
    smoothness, convexity = float(problem.smoothness), float(problem.strong_convexity)  # pyright: ignore[reportArgumentType]
    edge_momenta = [_momentum("edge_momenta", beta) for beta in several("edge_momenta", edge_momenta)]
    rate, beta = several("relative_rate", relative_rate)[0] / smoothness, _momentum("momentum", momentum)
    num_steps, size = whole("num_steps", num_steps), whole("grid_size", grid_size, least=2)
    numbers = {
        "tuned": momenta.heavy_ball_tuned(smoothness, convexity)[:2],
        "other": (rate, beta),
        "descent": (theory.optimal_rate(smoothness, convexity), 0.0),
    }
    ball: dict[str, Any] = {"method": "heavy_ball", "sampler": "full"}
    around = np.linspace(0.99, 1.01, 40)
    edges = [(share * float(momenta.heavy_ball_edge(smoothness, beta)), beta) for beta in edge_momenta for share in around]
    edge_records = {"num_steps": num_steps, "record_every": max(1, num_steps // 300)}
    map_axes = {
        "learning_rate": np.linspace(MOST_RATE / size, MOST_RATE, size) / smoothness,
        "momentum": np.linspace(0.0, MOST_MOMENTUM, size),
    }
    every = {"num_steps": num_steps, "record_every": 1}
    runs = sweep(problem, **_together([*numbers.values(), *_safe(smoothness, convexity)], "run"), **every, **ball)
    return xr.DataTree.from_dict(
        {
            "runs": runs.isel(run=slice(len(numbers))).assign_coords(run=("run", list(numbers))),
            "safe": runs.isel(run=slice(len(numbers), None)),
            "edges": sweep(problem, **_together(edges, "run"), **edge_records, **ball),
            "map": sweep(problem, num_steps=MAP_STEPS, record_every=MAP_STEPS // 20, **map_axes, **ball)[["suboptimality"]],
            **_on_two_kinks(sweep),
        }
    )


def _momentum(key: str, value: Any) -> float:
    if not 0.0 <= several(key, value)[0] < 1.0:
        raise InputError(f"{key}={value} is not allowed: a momentum is a number from 0 to below 1.")
    return float(value)


def _together(pairs: Sequence[tuple[float, float]], dim: str) -> dict[str, xr.DataArray]:
    """Rates and momenta as axes that go together."""
    rates, betas = (xr.DataArray(list(column), dims=dim) for column in zip(*pairs, strict=True))
    return {"learning_rate": rates, "momentum": betas}


def _safe(smoothness: float, convexity: float) -> list[tuple[float, float]]:
    """Rates up to 1 / L, each with its safe momentum."""
    rates = np.linspace(0.05, 1.0, SAFE_RATES) / smoothness
    return list(zip(rates, momenta.safe_momentum(rates, smoothness, convexity), strict=True))


def _on_two_kinks(sweep: Callable[..., xr.Dataset]) -> dict[str, xr.Dataset]:
    """The heavy ball, gradient descent and Nesterov's method at the numbers that suit L = 25 and mu = 1 best, and safe momenta."""
    problem, full = two_kinks_problem(), {"sampler": "full", "num_steps": KINKED_STEPS, "record_every": 1}
    pairs = [momenta.heavy_ball_tuned(25.0, 1.0)[:2], (theory.optimal_rate(25.0, 1.0), 0.0), *_safe(25.0, 1.0)]
    balls = sweep(problem, method="heavy_ball", **_together(pairs, "run"), **full)
    fast, extrapolated, _ = momenta.nesterov_tuned(25.0, 1.0)
    return {
        "kinked_heavy_ball": balls.isel(run=0, drop=True),
        "kinked_descent": balls.isel(run=1, drop=True),
        "kinked_safe": balls.isel(run=slice(2, None)),
        "kinked_nesterov": sweep(problem, method="nesterov", learning_rate=fast, momentum=extrapolated, **full),
    }


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare curves, the map, the edges, the bound of safe momenta and the cycle with theory."""
    return [
        *_curve_findings(results, problem),
        *_slope_findings(results["runs"].to_dataset(), problem),
        *_edge_findings(results["edges"].to_dataset(), problem),
        _safe_finding(results["safe"].to_dataset(), problem.name, float(problem.strong_convexity)),  # pyright: ignore[reportArgumentType]
        _safe_finding(results["kinked_safe"].to_dataset(), "the function with two kinks", 1.0),
        *_cycle_findings(results),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The tuned ball beside another and gradient descent; the map of rates and momenta; the cycle."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_runs(panels[0, 0], results["runs"].to_dataset(), problem)
    _draw_map(drawn, panels[0, 1], results["map"].to_dataset(), problem)
    _draw_cycle(panels[0, 2], results)
    figures.source(
        drawn,
        f"data: {problem.name}, p = {np.size(problem.start)}, κ = {float(problem.condition_number):.4g}. Black dashed: exact theory, "
        f"nothing fitted (Polyak 1964). Middle: colour after {MAP_STEPS} steps;\n"
        "contours: predicted ρ; white: grows; circle: the best rate and momentum. Right: f' with two kinks, L = 25, μ = 1, each method at "
        "its best numbers for quadratics;\n"
        "dashed: the cycle (Lessard, Recht and Packard 2016); safe: β = √((1 − αμ)(1 − αL)) at α = 1/(2L), "
        "bound (1 − αμ)$^t$ (Ghadimi, Feyzmahdavian and Johansson 2015).",
    )
    return {"heavy_ball": drawn}


def _floor(dataset: xr.Dataset, problem: Problem) -> float:
    """The part of the start above which a curve is free of round-off: there is next to none about a minimum 0 at x = 0."""
    if dataset.attrs["precision"] != "float64":
        return analysis.ROUND_OFF[dataset.attrs["precision"]][0]
    return 1e-280 if "eigenvalues" in problem.constants else 1e-24 if problem.hessian is not None else analysis.ROUND_OFF["float64"][0]


def _exact_runs(runs: xr.Dataset, problem: Problem) -> Float[np.ndarray, "runs records"]:
    return momenta.heavy_ball(theory.modes(problem), runs.learning_rate.values, runs.momentum.values, runs.step.values)


def _curve_findings(results: xr.DataTree, problem: Problem) -> list[Finding]:
    runs, settings, modes = results["runs"].to_dataset(), results["map"].to_dataset(), theory.modes(problem)
    precision, source = runs.attrs["precision"], "z^2 - (1 + beta - alpha lambda) z + beta = 0, Polyak 1964"
    exact = _exact_runs(runs, problem)
    rates, betas = np.meshgrid(settings.learning_rate.values, settings.momentum.values, indexing="ij")
    of_map = momenta.heavy_ball(modes, rates.ravel(), betas.ravel(), settings.step.values)
    measured = settings.suboptimality.transpose("learning_rate", "momentum", "step").values.reshape(of_map.shape)
    cases = (
        ("tuned, another and no momentum, every step, from the closed form of the modes", runs.suboptimality.values, exact),
        (f"{len(of_map)} rates and momenta, stable or not, from the closed form of the modes", measured, of_map),
    )
    return [analysis.follows(values, line, problem, precision=precision, claim=claim, source=source) for claim, values, line in cases]


def _slope_findings(runs: xr.Dataset, problem: Problem) -> list[Finding]:
    """Slopes late in the runs, where the exact curve is straight by then and no real root is slower than the complex ones."""
    smoothness, convexity = runs.attrs["smoothness"], runs.attrs["strong_convexity"]
    other = runs.sel(run="other")
    rate, beta = float(other.learning_rate), float(other.momentum)
    tuned, modes = momenta.heavy_ball_tuned(smoothness, convexity), theory.modes(problem)
    claim = "tuned: slope of ln((f - f*) / t^2) a step, 2 ln((sqrt(kappa) - 1) / (sqrt(kappa) + 1))"
    cases = [("tuned", 2.0, claim, 2.0 * float(np.log(max(tuned.contraction, 1e-300))))]
    if rate * convexity > (1.0 - np.sqrt(beta)) ** 2 and rate * smoothness < (1.0 + np.sqrt(beta)) ** 2:
        claim = f"rate {rate * smoothness:.4g} / L, momentum {beta:g}, all roots complex: slope of ln(f - f*) a step is ln(beta)"
        predicted = 2.0 * np.log(momenta.heavy_ball_contraction(modes.curvatures, rate, beta)[0])
        cases.append(("other", 0.0, claim, float(predicted)))
    findings, steps = [], runs.step.values
    exact_runs = _exact_runs(runs, problem)
    for name, power, claim, predicted in cases:
        place = runs.run.values.tolist().index(name)
        exact, values = exact_runs[place], runs.suboptimality.values[place]
        usable = np.flatnonzero((exact > _floor(runs, problem) * exact[0]) & (values > 0.0))
        late = usable[1 + len(usable) // 2 :]
        if len(late) >= FEWEST_RECORDS and _straight(steps[late], np.log(exact[late]) - power * np.log(steps[late])):
            measured = np.polyfit(steps[late], np.log(values[late]) - power * np.log(steps[late]), 1)[0]
            findings.append(
                Finding(claim=claim, predicted=predicted, measured=float(measured), tolerance=SLOPE_TOLERANCE, source="Polyak 1964")
            )
    return findings


def _straight(steps: np.ndarray, logs: np.ndarray) -> bool:
    """Whether both halves have the same slope."""
    half = len(steps) // 2
    early, late = (np.polyfit(steps[part], logs[part], 1)[0] for part in (slice(None, half), slice(half, None)))
    return bool(abs(early / late - 1.0) < STRAIGHT)


def _edge_findings(edges: xr.Dataset, problem: Problem) -> list[Finding]:
    """The edge of each momentum, where the start has enough along the steepest direction to grow within the run."""
    findings, modes = [], theory.modes(problem)
    late, floor = slice(edges.sizes["step"] // 2, None), analysis.ROUND_OFF[edges.attrs["precision"]][0]
    start = float(edges.suboptimality[0, 0])
    for beta in np.unique(edges.momentum.values):
        one = edges.isel(run=np.flatnonzero(edges.momentum.values == beta), step=late)
        rates, steps = one.learning_rate.values, one.step.values
        exact = momenta.heavy_ball(modes, rates[[0, -1]], beta, steps)
        if len(steps) < FEWEST_RECORDS or not exact[0, -1] < exact[0, 0] or not exact[1, -1] > exact[1, 0]:
            continue
        ends = one.suboptimality.values[:, [0, -1]]
        grows = (ends[:, 1] > ends[:, 0]) & (ends[:, 1] > floor * start)  # what round-off leaves goes up and down
        findings.append(
            Finding(
                claim=f"momentum {beta:g}: the heavy ball starts to grow at the rate 2 (1 + beta) / L",
                predicted=float(momenta.heavy_ball_edge(edges.attrs["smoothness"], beta)),
                measured=float(np.sqrt(rates[~grows].max(initial=0.0) * rates[grows].min(initial=np.inf))),
                tolerance=EDGE_TOLERANCE,
                source="z = -1 is a root at alpha L = 2 (1 + beta), Polyak 1964",
            )
        )
    return findings


def _safe_finding(safe: xr.Dataset, name: str, convexity: float) -> Finding:
    floor, slack = analysis.ROUND_OFF[safe.attrs["precision"]]
    values = safe.suboptimality.transpose("run", "step").values
    part = values / values[:, :1]
    bound = (1.0 - safe.learning_rate.values[:, None] * convexity) ** safe.step.values[None]
    return Finding(
        claim=f"safe momentum on {name}: largest ratio of f_t - f* to (1 - alpha mu)^t (f_0 - f*), {len(part)} rates up to 1 / L",
        predicted=1.0,
        measured=float(np.max(np.where(bound > floor, part / np.maximum(bound, floor), 0.0)[:, 1:])),
        tolerance=slack,
        source="Ghadimi, Feyzmahdavian and Johansson 2015, Thm 4",
        kind="at_most",
    )


def _cycle_findings(results: xr.DataTree) -> list[Finding]:
    ball = results["kinked_heavy_ball"].to_dataset()
    last = float(ball.params.values.ravel()[-1])
    place = int(np.argmin(np.abs(CYCLE - last)))
    expected = np.abs(CYCLE[(place + 1 + np.arange(TAIL)) % 3])  # TAIL is a multiple of 3, and its last is at `place`
    loose = ball.attrs["precision"] != "float64"
    said = {"kinked_descent": "gradient descent at 2 / (L + mu)", "kinked_nesterov": "Nesterov's method at 4 / (3 L + mu)"}
    return [
        Finding(
            claim=f"two kinks, heavy ball: largest deviation of |x_t| from the cycle of three, last {TAIL} steps (absolute)",
            predicted=0.0,
            measured=float(np.max(np.abs(ball.distance.values[-TAIL:] - expected))),
            tolerance=1e-5 if loose else CYCLE_TOLERANCE,
            source="three linear equations; Lessard, Recht and Packard 2016, section 4.6",
        ),
        Finding(
            claim="two kinks, heavy ball: the last x, with its sign",
            predicted=float(CYCLE[place]),
            measured=last,
            tolerance=1e-5 if loose else CYCLE_TOLERANCE,
            source="792/1225, -2208/1225 or 2592/1225; Lessard, Recht and Packard 2016, section 4.6",
        ),
        *(
            Finding(
                claim=f"two kinks, {said[name]} converges: |x| after {KINKED_STEPS} steps (absolute)",
                predicted=0.0,
                measured=float(results[name].distance[-1]),
                tolerance=CYCLE_TOLERANCE,
                source=source,
                kind="at_most",
            )
            for name, source in (
                ("kinked_descent", "Nesterov 2004, Thm 2.1.15"),
                ("kinked_nesterov", "Lessard, Recht and Packard 2016, section 4.5, unconfirmed"),
            )
        ),
    ]


def _draw_runs(axes: Axes, runs: xr.Dataset, problem: Problem) -> None:
    exact, start = _exact_runs(runs, problem), float(runs.suboptimality[0, 0])
    smoothness, tuned = runs.attrs["smoothness"], momenta.heavy_ball_tuned(runs.attrs["smoothness"], runs.attrs["strong_convexity"])
    fallen = np.flatnonzero(exact[0] < 1e-24 * start)
    shown = slice(0, 2 * int(fallen[0]) + 1 if fallen.size else None)
    bounds, steps = (1e-24 * start, 1e12 * start), runs.step.values[shown]
    other = f"rate {float(runs.learning_rate[1]) * smoothness:.3g}/L, β = {float(runs.momentum[1]):g}"
    for place, label in enumerate(("best rate and momentum", other, "no momentum, 2/(L + μ)")):
        line = {"color": figures.COLORS[place], "linewidth": 2.0, "label": label}
        figures.trajectory(axes, steps, runs.suboptimality.values[place, shown], bounds=bounds, **line)
        figures.dashed(axes, steps, exact[place, shown], bounds=bounds)
    axes.plot(steps, start * tuned.contraction ** (2.0 * steps), color="0.4", linestyle=":", label="the best without its t²")
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], title="three choices")
    axes.legend(loc="upper right", handlelength=1.4)


def _draw_map(drawn: Figure, axes: Axes, settings: xr.Dataset, problem: Problem) -> None:
    smoothness, convexity = settings.attrs["smoothness"], settings.attrs["strong_convexity"]
    rates, betas = settings.learning_rate.values, settings.momentum.values
    fine = np.meshgrid(np.linspace(0.0, rates[-1], FINE), np.linspace(0.0, betas[-1], FINE))
    predicted = momenta.heavy_ball_contraction(theory.modes(problem).curvatures, *(grid.ravel() for grid in fine)).reshape(FINE, FINE)
    low = float(predicted.min())
    measured = _factors(settings, max(_floor(settings, problem), 1e-24))
    shown = np.ma.masked_invalid(np.where(measured < 1.0, measured, np.nan))
    colored = axes.pcolormesh(rates * smoothness, betas, shown, cmap=figures.RATES, vmin=low, vmax=1.0, rasterized=True)
    bar = drawn.colorbar(colored, ax=axes, label="factor of the distance in a step  ρ", pad=0.02, aspect=30)
    bar.ax.grid(visible=False)
    if low < 1.0:
        levels = 1.0 - (1.0 - low) * np.array([0.85, 0.6, 0.4, 0.2])
        within = np.where(predicted < 1.0, predicted, np.nan)
        contours = axes.contour(fine[0] * smoothness, fine[1], within, levels=levels, colors="white", linewidths=0.7)
        bar.add_lines(contours)
    edge = np.array([0.0, betas[-1]])
    axes.plot(smoothness * momenta.heavy_ball_edge(smoothness, edge), edge, color="black", linestyle=(0, (3, 2)), linewidth=1.2)
    tuned = momenta.heavy_ball_tuned(smoothness, convexity)
    axes.plot(tuned.learning_rate * smoothness, tuned.momentum, "o", markerfacecolor="none", color=figures.COLORS[1], markersize=6)
    axes.set(xlabel="rate times smoothness  αL", ylabel="momentum β", title="stable: αL < 2(1 + β)", ylim=(0.0, betas[-1]))
    axes.grid(visible=False)


def _factors(settings: xr.Dataset, floor: float) -> Float[np.ndarray, "momenta rates"]:
    """The mean factor a step from the start to the last record before round-off."""
    values = settings.suboptimality.transpose("momentum", "learning_rate", "step").values
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        part = values / values[..., :1]
        last = np.maximum(1, np.minimum.accumulate(part > floor, axis=-1).sum(axis=-1) - 1)
        return np.take_along_axis(part, last[..., None], axis=-1)[..., 0] ** (0.5 / settings.step.values[last])


def _draw_cycle(axes: Axes, results: xr.DataTree) -> None:
    steps = results["kinked_heavy_ball"].step.values
    steps = steps[steps <= 100]
    bounds, shown = (1e-10, 1e11), slice(0, len(steps))
    cases = (("kinked_heavy_ball", "heavy ball"), ("kinked_descent", "gradient descent"), ("kinked_nesterov", "Nesterov"))
    for (name, label), color in zip(cases, figures.COLORS, strict=False):
        figures.trajectory(axes, steps, results[name].suboptimality.values[shown], bounds=bounds, color=color, label=label)
    for x in CYCLE:
        figures.dashed(axes, steps, np.full(len(steps), float(two_kinks(jnp.array([x]), None))), bounds=bounds)
    safe = results["kinked_safe"].to_dataset()
    one = safe.isel(run=int(np.abs(safe.learning_rate.values * 25.0 - 0.5).argmin()))
    values = one.suboptimality.values[shown]
    figures.trajectory(axes, steps, values, bounds=bounds, color=figures.COLORS[3], label="heavy ball, safe β")
    bound = values[0] * (1.0 - float(one.learning_rate)) ** steps
    axes.plot(steps, bound, color=figures.COLORS[3], linestyle=":", label="its bound")
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], title="f' with two kinks")
    axes.legend(loc="upper right", handlelength=1.4)
