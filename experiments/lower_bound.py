"""No method that steps along gradients it has seen gets below Nesterov's lower bound, and conjugate gradients lie on it.

Claim
    On Nesterov's worst function of 2 t + 1 coordinates f(x_t) - f* >= L / (16 (t + 1)) >= 3 L R^2 / (32 (t + 1)^2) for every method whose
    steps lie in the span of the gradients seen; conjugate gradients attain the first, Nesterov's own method is 3 times above the second.
Theory
    A gradient tells a coordinate about its neighbours alone: after s steps from 0 only s coordinates have moved, and the minimum over those
    is L / 8 (1 / (s + 1) - 1 / (2 t + 2)) above f*, for every s (Nesterov 2004, Thm 2.1.7). With mu > 0 the minimizer is x_i = r^i,
    r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1), and what s coordinates can't reach is mu / 2 r^(2s) R^2 at least (Nesterov 2004,
    Thm 2.1.13).
Sweep
    Methods x steps on the worst functions for several t, and on the strongly convex one.
Expect
    Curves above the dashed bound that none crosses, and conjugate gradients on it at every step.
Command
    gdjax experiment=lower_bound
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import figures, problems, solvers
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import worst_cases

ROUND_OFF = {"float64": 1e-10, "float32": 1e-3}
NAMES = {
    "sgd": "gradient descent",
    "heavy_ball": "heavy ball",
    "fista": "FISTA",
    "ogm": "optimized, N = t",
    "nesterov": "Nesterov",
    "chebyshev": "Chebyshev",
    "conjugate_gradients": "conjugate gradients",
}
CONVEX = ("sgd", "fista", "ogm")
TOLD_MORE, STRONGLY_CONVEX = (*CONVEX, "heavy_ball", "chebyshev"), ("heavy_ball", "nesterov", "chebyshev")
COLORS = dict(zip(NAMES, (figures.COLORS[i] for i in (4, 5, 1, 3, 1, 0, 2)), strict=True))


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    horizons: Sequence[int] | int = (5, 20, 50),
    condition_number: float = 100.0,
) -> xr.DataTree:
    """Run methods on the worst function for each t, and on the strongly convex one for the longest.

    Parameters
    ----------
    horizons
        t, the steps that the functions are the worst for.
    condition_number
        Of the strongly convex function.
    """
    chosen = sorted({whole("horizons", horizon) for horizon in several("horizons", horizons)})
    if not (isinstance(condition_number, int | float) and 1.0 < condition_number <= 1e4):
        raise InputError(f"condition_number={condition_number} is not allowed: it is a number above 1, at most 10,000.")
    middle = chosen[len(chosen) // 2]
    tree = {f"convex_{t}": _race(problems.nesterov_worst_case(t), TOLD_MORE if t == middle else CONVEX, t, sweep) for t in chosen}
    strongly = problems.nesterov_worst_case(chosen[-1], strong_convexity=1.0 / condition_number)
    tree["strongly_convex"] = _race(strongly, STRONGLY_CONVEX, chosen[-1], sweep, condition_number)
    return xr.DataTree.from_dict(tree)


def _race(problem: Problem, names: Sequence[str], steps: int, sweep: Callable[..., xr.Dataset], kappa: float = 0.0) -> xr.Dataset:
    """f - f* in every step. `kappa` is of the class of functions; 0 where mu is 0, and methods that need it take the problem's own."""
    runs = [
        sweep(problem, method=name, sampler="full", num_steps=steps, record_every=1, **_numbers(name, problem, steps, kappa))
        for name in names
    ]
    with jax.enable_x64(True):
        error = jnp.asarray(np.asarray(problem.start) - np.asarray(problem.minimizer))
        errors = np.asarray(solvers.conjugate_gradients(jnp.asarray(problem.hessian), error, steps))
    adaptive = 0.5 * np.einsum("tp,pq,tq->t", errors, np.asarray(problem.hessian), errors)
    return xr.Dataset(
        {"suboptimality": (("solver", "step"), np.stack([*(one.suboptimality.values for one in runs), adaptive]))},
        {"solver": [*names, "conjugate_gradients"], "step": np.arange(steps + 1)},
        {
            "precision": runs[0].attrs["precision"],
            "distance": float(np.linalg.norm(np.asarray(problem.minimizer))),
            "condition_number": kappa,
        },
    )


def _numbers(name: str, problem: Problem, steps: int, kappa: float) -> dict[str, Any]:
    """Every method's best numbers for L = 1; the heavy ball's and Chebyshev's need a mu."""
    own = kappa or float(problem.condition_number)
    root, top = np.sqrt(own), 1.0 if kappa else float(problem.smoothness or 1.0)
    of: dict[str, dict[str, Any]] = {
        "sgd": {"learning_rate": 2.0 / (top * (1.0 + 1.0 / own))},
        "heavy_ball": {"learning_rate": 4.0 / (top * (1.0 + 1.0 / root) ** 2), "momentum": ((root - 1.0) / (root + 1.0)) ** 2},
        "fista": {"learning_rate": 1.0},
        "ogm": {"learning_rate": 1.0, "horizon": float(steps)},
        "nesterov": {"learning_rate": 1.0, "momentum": (root - 1.0) / (root + 1.0)},
        "chebyshev": {"learning_rate": 2.0 / (top * (1.0 + 1.0 / own)), "condition_number": own},
    }
    return of[name]


def check(results: xr.DataTree) -> list[Finding]:
    """Nobody is below; conjugate gradients attain it; Nesterov's method is within a constant."""
    findings = []
    for name in results.children:
        race = results[name].to_dataset()
        findings += _strongly_convex_findings(race) if name == "strongly_convex" else _convex_findings(race)
    return findings


def _convex_findings(race: xr.Dataset) -> list[Finding]:
    steps, t = race.step.values, int(race.step[-1])
    slack, source = ROUND_OFF[race.attrs["precision"]], "Nesterov 2004, Thm 2.1.7"
    ratio = race.suboptimality / worst_cases.least_suboptimality(steps, t)
    adaptive = ratio.sel(solver="conjugate_gradients").values
    bound = float(worst_cases.convex_lower_bound(t, 1.0, race.attrs["distance"]))
    return [
        Finding(
            claim=f"t = {t}: conjugate gradients' f(x_t) - f*, L = 1",
            predicted=1.0 / (16.0 * (t + 1.0)),
            measured=float(race.suboptimality.sel(solver="conjugate_gradients")[-1]),
            tolerance=1e-10,
            source=f"L / (16 (t + 1)), {source}",
        ),
        Finding(
            claim=f"t = {t}: conjugate gradients over L / 8 (1 / (s + 1) - 1 / (2 t + 2)), the step s farthest from 1",
            predicted=1.0,
            measured=float(adaptive[np.abs(adaptive - 1.0).argmax()]),
            tolerance=1e-10,
            source="the least f over s coordinates",
        ),
        Finding(
            claim=f"t = {t}: {', '.join(NAMES[name] for name in race.solver.values[:-1])}: smallest f - f* over that bound, in any step",
            predicted=1.0,
            measured=float(ratio.drop_sel(solver="conjugate_gradients").min()),
            tolerance=slack,
            source=source,
            kind="at_least",
        ),
        Finding(
            claim=f"t = {t}: FISTA's f(x_t) - f* over 3 L R^2 / (32 (t + 1)^2) (2.8 to 3.3)",
            predicted=3.05,
            measured=float(race.suboptimality.sel(solver="fista")[-1]) / bound,
            tolerance=0.25 / 3.05,
            source=f"the same power of t, so that no method can be better by more than a constant; {source}",
        ),
    ]


def _strongly_convex_findings(race: xr.Dataset) -> list[Finding]:
    kappa, slack = race.attrs["condition_number"], ROUND_OFF[race.attrs["precision"]]
    bound = worst_cases.strongly_convex_lower_bound(kappa, race.step.values, 1.0 / kappa, race.attrs["distance"])
    ratio = race.suboptimality / bound
    r = (np.sqrt(kappa) - 1.0) / (np.sqrt(kappa) + 1.0)
    adaptive = race.suboptimality.sel(solver="conjugate_gradients").values
    return [
        Finding(
            claim=f"kappa = {kappa:g}: all methods, smallest f - f* over mu / 2 r^(2t) R^2, in any step",
            predicted=1.0,
            measured=float(ratio.min()),
            tolerance=slack,
            source="Nesterov 2004, Thm 2.1.13",
            kind="at_least",
        ),
        Finding(
            claim=f"kappa = {kappa:g}: factor of conjugate gradients' f - f* in a step, at the end (tolerance r^(2t))",
            predicted=float(r**2),
            measured=float(adaptive[-1] / adaptive[-2]),
            tolerance=float(r ** (2 * race.step.values[-1]) + 1e-9),
            source="r^2, so that the bound's rate is attained; r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1)",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Each method on the worst function of the middle t; all t; the strongly convex one."""
    drawn, panels = figures.figure(3, width=7.2, height=3.2)
    convex = {name: results[name].to_dataset() for name in results.children if name != "strongly_convex"}
    middle = list(convex.values())[len(convex) // 2]
    _draw_race(panels[0, 0], middle, worst_cases.least_suboptimality(middle.step.values, int(middle.step[-1])))
    panels[0, 0].set_title(f"worst function for t = {int(middle.step[-1])}")
    _draw_horizons(panels[0, 1], list(convex.values()))
    strongly = results["strongly_convex"].to_dataset()
    kappa = strongly.attrs["condition_number"]
    bound = worst_cases.strongly_convex_lower_bound(kappa, strongly.step.values, 1.0 / kappa, strongly.attrs["distance"])
    _draw_race(panels[0, 2], strongly, bound)
    panels[0, 2].set_title(f"strongly convex, κ = {kappa:g}")
    for axes in (panels[0, 0], panels[0, 2]):
        axes.legend(loc="lower left", handlelength=1.2)
    figures.source(
        drawn,
        "L = 1. Dashed: what no method can be below: left L/8 (1/(s + 1) − 1/(2t + 2)) after s steps, middle 3LR²/(32(t + 1)²), right "
        "μ/2 r$^{2t}$R²\n(Nesterov 2004, Thm 2.1.7 and Thm 2.1.13). The heavy ball and Chebyshev's method are told the function's own μ, "
        "FISTA and the optimized method L alone.",
    )
    return {"lower_bound": drawn}


def _draw_race(axes: Axes, race: xr.Dataset, bound: np.ndarray) -> None:
    for name in race.solver.values:
        values = race.suboptimality.sel(solver=name)
        own = name == "conjugate_gradients"
        axes.plot(race.step, values, color=COLORS[name], linewidth=2.4 if own else 1.2, label=NAMES[name])
    low, high = 0.03 * float(bound[-1]), 2.0 * float(race.suboptimality.max())
    figures.dashed(axes, race.step.values, bound, bounds=(low, high), label="lower bound")
    axes.set(yscale="log", xlabel="step s", ylabel=figures.LABELS["suboptimality"], ylim=(low, high))


def _draw_horizons(axes: Axes, races: list[xr.Dataset]) -> None:
    """f(x_t) - f* over R^2 on the worst function of each t."""
    horizons = np.array([int(race.step[-1]) for race in races])
    for name in (*CONVEX, "conjugate_gradients"):
        values = [float(race.suboptimality.sel(solver=name)[-1]) / race.attrs["distance"] ** 2 for race in races]
        axes.plot(horizons, values, "o-", color=COLORS[name], markersize=3.5, linewidth=1.0, label=NAMES[name])
    fine = np.geomspace(horizons[0], horizons[-1], 50) if len(horizons) > 1 else horizons.astype(float)
    axes.plot(fine, worst_cases.convex_lower_bound(fine), color="black", linestyle=(0, (3, 2)), linewidth=0.9, label="lower bound")
    axes.set(xscale="log", yscale="log", xlabel="steps t", ylabel="suboptimality at t / (L R²)", title="on the worst function for each t")
    axes.minorticks_off()
    axes.set_xticks(horizons, [str(t) for t in horizons])
