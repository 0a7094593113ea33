"""Logistic regression converges at the rate of its Hessian at the minimum; where classes can be separated there is none, and w escapes.

Claim
    With a ridge descent from 0 contracts in the end by max |1 - eta lambda|, lambda the eigenvalues of the Hessian at the minimizer, and
    does so up to 2 / lambda_max, far beyond 2 / L of the bound L that holds everywhere. On separable classes without one the loss
    falls as 1 / (eta gamma^2 t), gamma the largest margin, while ||w|| grows as ln(t) / gamma.
Theory
    Near the minimizer f is the quadratic of its Hessian X'DX / n + 2 ridge (Polyak 1964). On separable data w_t = w* ln t + O(1), w* the
    shortest w with margins of 1 (Soudry et al. 2018): the loss's exponent is -1, its constant as said where by symmetry all margins are
    one; elsewhere it nears its limit only as 1 / log t.
Sweep
    Rates on random classes that overlap, with a ridge; breast_cancer at two rates; two separable sets for many steps.
Expect
    The contraction on the V of the Hessian at the minimum; losses parallel to the dashes, the symmetric set's on them; ||w|| along them.
Command
    gdjax experiment=logistic_regression
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import data, figures, problems, solvers, theory
from gdjax.records import Finding, Problem, whole
from gdjax.theory import logistic

SEEN = (1e-6, 1e-10)
"""Distances, relative to the start's, between which contraction is measured: quadratic by then, and free of round-off."""

SYMMETRIC = np.array([[0.5, 1.5], [1.5, 0.5], [-0.5, -1.5], [-1.5, -0.5]]), np.array([1.0, 1.0, -1.0, -1.0])
"""Four points whose margins are one number along (1, 1) / sqrt(2): gamma = sqrt(2)."""


def overlapping() -> Problem:
    """200 examples of 5 features whose classes overlap, ridge 0.01."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) * [1.0, 1.5, 2.0, 0.7, 3.0]
    y = np.where(X @ [1.0, -0.5, 0.25, 1.0, 0.3] + rng.logistic(size=200) > 0, 1.0, -1.0)
    return problems.logistic(X, y, ridge=0.01)


def breast_cancer() -> Problem:
    """scikit-learn's breast_cancer, standardised, ridge 0.005."""
    table = data.standardize(data.read("breast_cancer"))
    return dataclasses.replace(problems.logistic(table.features, table.target, ridge=0.005), name="breast_cancer")


def separable(name: str) -> Problem:
    """A separable set, which has no minimizer: its distances are from 0, where descent starts, and its infimum is 0."""
    X, y = SYMMETRIC
    if name == "generic":
        rng, direction = np.random.default_rng(0), np.array([0.6, 0.8])
        X = rng.normal(size=(40, 2))
        y = np.sign(X @ direction)
        X = X + 0.3 * y[:, None] * direction
    built = problems.logistic(X, y, intercept=False)
    return dataclasses.replace(built, name=name, minimizer=np.zeros(2), minimum=0.0)


def margin_of(problem: Problem) -> float:
    """gamma, the largest margin of a unit vector."""
    X, y = problem.data
    return float(1.0 / np.linalg.norm(solvers.max_margin(X * y[:, None])))


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 2000,
    num_rates: int = 40,
    num_escaping: int = 200_000,
) -> xr.DataTree:
    """Sweep rates with a ridge, and descend for long on separable classes.

    Parameters
    ----------
    num_steps
        With a ridge; four times as many on breast_cancer.
    num_escaping
        Steps on separable classes.
    """
    local, long = whole("num_steps", num_steps, least=1500), whole("num_escaping", num_escaping, least=50_000)
    problem, real = overlapping(), breast_cancer()
    edge = 2.0 / logistic.curvatures(problem)[-1]
    rates = np.unique([*np.geomspace(0.1, 1.1, whole("num_rates", num_rates, least=10)), *np.linspace(0.985, 1.015, 13)]) * edge
    tree = {
        "rates": _local(problem, sweep, np.append(rates, 1.0 / float(problem.smoothness or 1.0)), local),
        "breast_cancer": _modes_left(real, sweep, 4 * local),
    }
    for name in ("symmetric", "generic"):
        built = separable(name)
        rate = 1.0 / float(built.smoothness or 1.0)
        ended = sweep(built, sampler="full", num_steps=long, record_every=max(1, long // 1000), learning_rate=rate)
        tree[name] = ended[["objective", "distance", "params"]]
    return xr.DataTree.from_dict(tree)


def _local(problem: Problem, sweep: Callable[..., xr.Dataset], rates: np.ndarray, num_steps: int) -> xr.Dataset:
    ended = sweep(problem, sampler="full", num_steps=num_steps, record_every=5, learning_rate=np.unique(rates))
    return ended[["objective", "distance"]]


def _modes_left(problem: Problem, sweep: Callable[..., xr.Dataset], num_steps: int) -> xr.Dataset:
    """Where descent is half-way, and how far from the minimizer from there on."""
    settings: dict[str, Any] = {"sampler": "full", "record_every": num_steps // 40, "learning_rate": 1.0 / float(problem.smoothness or 1.0)}
    middle = sweep(problem, num_steps=num_steps // 2, **settings).params
    return sweep(problem, num_steps=num_steps, **settings)[["objective", "distance"]].assign(middle=middle)


def contraction(one: xr.DataArray) -> float:
    """The factor of the distance in a step, in the last half of its way through `SEEN`; NaN where it never gets there."""
    relative = one.values / one.values[0]
    inside = np.flatnonzero((relative < SEEN[0]) & (relative > SEEN[1]))
    if len(inside) < 3 or relative.min() > 0.1 * SEEN[0]:
        return np.nan
    inside = inside[len(inside) // 2 :]
    return float((relative[inside[-1]] / relative[inside[0]]) ** (1.0 / float(one.step[inside[-1]] - one.step[inside[0]])))


def check(results: xr.DataTree) -> list[Finding]:
    """Compare contraction with the Hessian at the minimum, its limit, and the escape with the margin."""
    return [
        *_local_findings(results),
        *_reference_findings(results["breast_cancer"].to_dataset()),
        *_symmetric_findings(results["symmetric"].to_dataset()),
        *_generic_findings(results["generic"].to_dataset()),
    ]


def _local_findings(results: xr.DataTree) -> list[Finding]:
    problem, swept = overlapping(), results["rates"].to_dataset()
    curvatures, rate = logistic.curvatures(problem), 1.0 / float(problem.smoothness or 1.0)
    rates, stays = swept.learning_rate, swept.distance[:, -1] > 1e-3 * swept.distance[:, 0]
    lost = float(rates.where(stays).min())
    return [
        Finding(
            claim=f"ridge, rate 1 / L = {rate:.4g}: slope of ln(f - f*) in a step, near the minimizer",
            predicted=float(2.0 * np.log(theory.contraction(rate, curvatures[-1], curvatures[0]))),
            measured=float(2.0 * np.log(contraction(swept.distance.sel(learning_rate=rate, method="nearest")))),
            tolerance=1e-4,
            source="2 ln(1 - eta mu), mu the least eigenvalue of the Hessian at the minimizer",
        ),
        Finding(
            claim=f"ridge: descent from 0 reaches the minimizer up to 2 / lambda_max there, not 2 / L = {2.0 * rate:.4g}",
            predicted=float(2.0 / curvatures[-1]),
            measured=float(np.sqrt(lost * float(rates.where(rates < lost).max()))),
            tolerance=0.01,
            source="Polyak 1964, for the quadratic of the Hessian at the minimizer; that it gets there from 0 is measured",
        ),
    ]


def _reference_findings(ended: xr.Dataset) -> list[Finding]:
    """Many curvatures are near the ridge: the least one's rate is a bound, and what counts is the sum over all of them."""
    problem, rate = breast_cancer(), float(ended.learning_rate)
    half, steps = ended.step.values[-1] // 2, ended.step.values
    late = ended.distance.values[steps >= half]
    error = ended.middle.values - np.asarray(problem.minimizer)
    exact = logistic.distances_near(problem, error, rate, steps[steps >= half] - half)
    seen = exact > 1e-12 * ended.distance.values[0]
    mu = logistic.curvatures(problem)[0]
    return [
        Finding(
            claim="breast_cancer, ridge 0.005: objective where descent ends, against Newton's method",
            predicted=float(problem.minimum or 0.0),
            measured=float(ended.objective[-1]),
            tolerance=1e-10,
            source="one minimum, two methods",
        ),
        Finding(
            claim=f"breast_cancer: relative deviation of the distance from the Hessian's modes, from step {half} (absolute tolerance)",
            predicted=0.0,
            measured=float(np.abs(late / exact - 1.0)[seen].max()),
            tolerance=1e-3,
            source="||(I - eta H)^t e||, H the Hessian at the minimizer; f's third derivative adds a share of the distance half-way",
            kind="at_most",
        ),
        Finding(
            claim="breast_cancer: contraction in a step, over the last half",
            predicted=float(1.0 - rate * mu),
            measured=float((late[seen][-1] / late[0]) ** (1.0 / (steps[steps >= half][seen][-1] - half))),
            tolerance=1e-9,
            source="1 - eta mu, mu the least eigenvalue of the Hessian at the minimizer",
            kind="at_most",
        ),
    ]


def _constant(ended: xr.Dataset, problem: Problem) -> xr.DataArray:
    """f eta gamma^2 t at every recorded step but the start."""
    return (ended.objective * float(ended.learning_rate) * margin_of(problem) ** 2 * ended.step)[1:]


def _growth(ended: xr.Dataset, gamma: float) -> float:
    """gamma d ||w|| / d ln t over the last decade of steps."""
    last = ended.distance.sel(step=slice(0.1 * float(ended.step[-1]), None))
    return gamma * float(np.polyfit(np.log(last.step.values), last.values, 1)[0])


def _symmetric_findings(ended: xr.Dataset) -> list[Finding]:
    problem, last = separable("symmetric"), int(ended.step[-1])
    gamma, rate = margin_of(problem), float(ended.learning_rate)
    exact = logistic.symmetric_loss(logistic.symmetric_margins(last, rate, gamma))[ended.step.values]
    source = "Soudry et al. 2018, Thm 3"
    constant = _constant(ended, problem)
    return [
        Finding(
            claim="symmetric separable set: largest relative deviation of f from its margin's recursion (absolute tolerance)",
            predicted=0.0,
            measured=float(np.abs(ended.objective.values / exact - 1.0).max()),
            tolerance=1e-8,
            source="z + eta gamma^2 / (1 + e^z)",
            kind="at_most",
        ),
        *(
            Finding(
                claim=f"symmetric separable set: f eta gamma^2 t at t = {int(at):,}",
                predicted=1.0,
                measured=float(constant.sel(step=at, method="nearest")),
                tolerance=tolerance,
                source=source,
            )
            for at, tolerance in ((10_000, 0.005), (last, 0.001 if last >= 100_000 else 0.005))
        ),
        Finding(
            claim="symmetric separable set: gamma d||w|| / d ln t over the last decade",
            predicted=1.0,
            measured=_growth(ended, gamma),
            tolerance=0.005,
            source=source,
        ),
    ]


def _generic_findings(ended: xr.Dataset) -> list[Finding]:
    problem = separable("generic")
    X, y = problem.data
    last = ended.objective.sel(step=slice(0.1 * float(ended.step[-1]), None))
    w = ended.params.values
    return [
        Finding(
            claim="generic separable set: exponent of t in f over the last decade",
            predicted=-1.0,
            measured=float(np.polyfit(np.log(last.step.values), np.log(last.values), 1)[0]),
            tolerance=0.05,
            source="Soudry et al. 2018, Thm 3; the constant is still far off",
        ),
        Finding(
            claim="generic separable set: gamma d||w|| / d ln t over the last decade (1.5 / ln t, as its direction still turns)",
            predicted=1.0,
            measured=_growth(ended, margin_of(problem)),
            tolerance=float(1.5 / np.log(float(ended.step[-1]))),
            source="w = w* ln t + O(1), ||w*|| = 1 / gamma, Soudry et al. 2018, Thm 3",
        ),
        Finding(
            claim="generic separable set: margin of w / ||w|| at the end over the largest there is",
            predicted=1.0,
            measured=float((X @ w * y).min() / np.linalg.norm(w) / margin_of(problem)),
            tolerance=1e-9,
            source="gamma is the largest; the direction comes to it as 1 / log t",
            kind="at_most",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """The contraction over the rate; losses and sizes of w on separable classes."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_rates(panels[0, 0], results["rates"].to_dataset())
    ended = {name: results[name].to_dataset() for name in ("symmetric", "generic")}
    _draw_losses(panels[0, 1], ended)
    _draw_sizes(panels[0, 2], ended)
    edge, bound = 2.0 / logistic.curvatures(overlapping())[-1], 2.0 / float(overlapping().smoothness or 1.0)
    figures.source(
        drawn,
        "Left: 200 examples, 5 features, classes that overlap, ridge 0.01; dashed: max |1 − ηλ|, λ of the Hessian at the minimum; "
        f"2/λ$_{{max}}$ there = {edge:.3g},\n2/L of the bound that holds everywhere = {bound:.3g}. Middle and right: without a ridge, "
        "separable classes; dashed: 1/(ηγ²t) and ln(ηγ²t)/γ (Soudry et al. 2018, Thm 3),\nγ the largest margin, which ‖w‖ is scaled by.",
    )
    return {"logistic_regression": drawn}


def _draw_rates(axes: Axes, swept: xr.Dataset) -> None:
    problem = overlapping()
    curvatures = logistic.curvatures(problem)
    rates = swept.learning_rate.values
    measured = [contraction(swept.distance.sel(learning_rate=rate)) for rate in rates]
    axes.plot(rates, measured, "o", color=figures.COLORS[0], markersize=3, label="measured")
    lost = rates[np.isnan(measured) & (rates > 1.0 / curvatures[-1])]
    axes.plot(lost, np.full(len(lost), 1.02), "^", color=figures.COLORS[1], markersize=3.5, label="never arrives")
    fine = np.geomspace(rates[0], rates[-1], 300)
    axes.plot(fine, theory.contraction(fine, curvatures[-1], curvatures[0]), color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    figures.edge_line(axes, 2.0 / float(problem.smoothness or 1.0), "2/L everywhere", color="0.45")
    figures.edge_line(axes, 2.0 / curvatures[-1], "2/λ$_{max}$ at the minimum", height=0.72, side="right")
    axes.set(xscale="log", xlabel=figures.LABELS["learning_rate"], ylabel="contraction of the distance in a step", title="with a ridge")
    axes.minorticks_off()
    axes.set_xticks([0.2, 0.5, 1.0], ["0.2", "0.5", "1"])
    axes.set_ylim(float(np.nanmin(measured)) - 0.03, 1.06)
    axes.legend(loc="lower left", handlelength=1.0)


def _draw_losses(axes: Axes, ended: dict[str, xr.Dataset]) -> None:
    for (name, one), color in zip(ended.items(), figures.COLORS, strict=False):
        axes.plot(one.step[1:], one.objective[1:], color=color, linewidth=2.0, label=f"{name} set")
        predicted = logistic.separable_loss(one.step.values[1:], float(one.learning_rate), margin_of(separable(name)))
        figures.dashed(axes, one.step.values[1:], predicted, bounds=(1e-12, 1e3))
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="mean loss", title="separable classes")
    axes.legend(loc="lower left")


def _draw_sizes(axes: Axes, ended: dict[str, Any]) -> None:
    for (name, one), color in zip(ended.items(), figures.COLORS, strict=False):
        gamma, steps = margin_of(separable(name)), one.step.values[1:]
        axes.plot(steps, gamma * one.distance[1:], color=color, linewidth=2.0, label=f"{name} set")
        axes.plot(
            steps, gamma * logistic.escape(steps, float(one.learning_rate), gamma), color="black", linestyle=(0, (3, 2)), linewidth=0.9
        )
    axes.set(xscale="log", xlabel=figures.LABELS["step"], ylabel="γ ‖w$_t$‖", title="w escapes along the margin")
    axes.legend(loc="upper left")
