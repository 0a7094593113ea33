"""Nesterov's method: its rate on quadratics, its bounds on all convex functions, and the Bessel function that a single mode follows.

Claim
    With constant momentum the distance falls by 1 - 1 / sqrt(kappa) a step, by 1 - 2 / sqrt(3 kappa + 1) when tuned for quadratics. With
    momentum k / (k + 3) no convex f is above 2 L R^2 / (k + 1)^2, a mode follows 2 J_1(w) / w, and f falls as k^-3 as long as k mu s << 1.
Theory
    Modes are roots of z^2 - (1 + beta)(1 - alpha lambda) z + beta (1 - alpha lambda); at 1 / L and (sqrt(kappa) - 1) / (sqrt(kappa) + 1)
    the slowest has the double root r = 1 - 1 / sqrt(kappa), so that x_k = (1 + b k) r^k with b = (1 - mu / L) / r - 1. For every f:
    f_k - f* <= (1 - 1 / sqrt(kappa))^k (f_0 - f* + mu R^2 / 2) (d'Aspremont, Scieur and Taylor 2021, Cor. 4.15), and
    <= 2 L R^2 / (k + 1)^2 and L R^2 / (2 lambda_k^2) (Beck and Teboulle 2009, Thm 4.4). A mode with momentum k / (k + 3) is a Legendre
    polynomial's derivative, and nearly 2 J_1(w) / w e^(-k s lambda / 2), w = (k + 1/2) sqrt(s lambda): the ODE of Su, Boyd and Candes
    (2016) with a damping and a half step that only steps have. J_1(w)^2 is about 1 / (pi w) on average, so f is about
    sum_i 2 c_i^2 / (pi sqrt(lambda_i) s^(3/2)) k^-3 (Su, Boyd and Candes 2016, Thm 8, bounds it).
Sweep
    Three pairs of rate and momentum, every step; k / (k + 3) and FISTA's weights on the same problem; a single curvature; 64 curvatures
    within a factor of two, far below 1 / k.
Expect
    Curves on their dashed closed forms and below their dotted bounds; bumps that the Bessel function hits with its damping and misses
    without; a line of slope -3.
Command
    gdjax experiment=nesterov_acceleration
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems, theory
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import acceleration, momentum

SLOPE_TOLERANCE = 1e-3
SEEN = 1e-3
"""How far what is not the slowest mode may change the exact slope for a run to count."""

FEWEST_RECORDS = 16
LEGENDRE_TOLERANCE = 1e-10
BESSEL_ERROR = 0.24
"""The Bessel form is this near for each unit of s lambda (2.4e-5 at 1e-4)."""

ODE_ERROR = 0.753
"""And without its damping and half step for each unit of sqrt(s lambda) (7.5e-3 at 1e-4)."""

SMALL_PRODUCT = 1e-3
"""Up to this s lambda the two numbers above are seen."""

SLOWEST = 1e-6
"""The smallest curvature of the tail, times the rate."""

NUM_TAIL_MODES = 64
FITTED_FROM = 5.0
"""The tail is fitted from w = k sqrt(s mu) on, where the Bessel function is in its oscillations, to the end."""

TAIL_TOLERANCE = 0.02


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 1500,
    num_mode_steps: int = 3000,
    products: Sequence[float] | float = (0.01, 0.0001),
    num_tail_steps: int = 50_000,
) -> xr.DataTree:
    """Run constant and growing momentum on the problem, and growing momentum on single and on small curvatures.

    Parameters
    ----------
    products
        The single curvature times the rate, between 0 and 1.
    num_tail_steps
        At most 100,000: by then k mu s is 0.1, and the decay turns exponential.
    """
    if not theory.is_quadratic(problem):
        raise InputError(f"experiment nesterov_acceleration is about least squares and other quadratics, which {problem.name} is not.")
    products = several("products", products)
    if not all(0.0 < product < 1.0 for product in products):
        raise InputError(f"products={products} is not allowed: every one is a number between 0 and 1.")
    if not whole("num_tail_steps", num_tail_steps) <= 100_000:
        raise InputError(f"num_tail_steps={num_tail_steps} is not allowed: it is a whole number up to 100000.")
    smoothness, convexity = float(problem.smoothness), float(problem.strong_convexity)  # pyright: ignore[reportArgumentType]
    pairs = {"constant": momentum.nesterov_constant(smoothness, convexity), "tuned": momentum.nesterov_tuned(smoothness, convexity)}
    rates, betas = zip(*(pair[:2] for pair in pairs.values()), (1.0 / smoothness, 0.0), strict=True)
    full: dict[str, Any] = {"sampler": "full", "num_steps": whole("num_steps", num_steps), "record_every": 1}
    together = {"learning_rate": xr.DataArray(list(rates), dims="run"), "momentum": xr.DataArray(list(betas), dims="run")}
    runs = sweep(problem, method="nesterov", **together, **full).assign_coords(run=("run", [*pairs, "descent"]))
    one = full | {"num_steps": whole("num_mode_steps", num_mode_steps)}
    tail = {"sampler": "full", "num_steps": num_tail_steps, "record_every": max(1, num_tail_steps // 2000)}
    return xr.DataTree.from_dict(
        {
            "runs": runs,
            "growing": sweep(problem, method="nesterov_convex", learning_rate=1.0 / smoothness, **full),
            "fista": sweep(problem, method="fista", learning_rate=1.0 / smoothness, **full),
            "mode": sweep(problems.designed_spectrum(np.ones(1)), method="nesterov_convex", learning_rate=products, **one),
            "tail": sweep(tail_problem(), method="nesterov_convex", learning_rate=1.0, **tail),
        }
    )


def tail_problem() -> Problem:
    """Curvatures from 1e-6 to 2e-6, begun at ones: so far below L = 1 that f falls as a power for long, and enough to blur the bumps."""
    return problems.designed_spectrum(np.append(np.geomspace(SLOWEST, 2.0 * SLOWEST, NUM_TAIL_MODES), 1.0))


def tail_law(steps: Float[np.ndarray, " records"]) -> Float[np.ndarray, " records"]:
    """sum_i 2 c_i^2 / (pi sqrt(lambda_i)) k^-3 at s = 1, each mode with its damping e^(-k lambda_i)."""
    curvatures, start = (column[:NUM_TAIL_MODES] for column in theory.modes(tail_problem()))
    k = np.asarray(steps, dtype=float)
    return 2.0 / np.pi * np.sum(start**2 / np.sqrt(curvatures) * np.exp(-k[:, None] * curvatures), axis=-1) / k**3


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare curves, slopes, bounds, the mode and the tail with theory."""
    return [
        *_curve_findings(results, problem),
        *_slope_findings(results["runs"].to_dataset(), problem),
        *_bound_findings(results),
        *_mode_findings(results["mode"].to_dataset()),
        *_tail_findings(results["tail"].to_dataset()),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Constant momentum under its bound; a single mode and the Bessel function; the tail."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_runs(panels[0, 0], results["runs"].to_dataset(), problem)
    _draw_mode(panels[0, 1], results["mode"].to_dataset())
    _draw_tail(panels[0, 2], results["tail"].to_dataset())
    figures.source(
        drawn,
        f"data: left {problem.name}, p = {np.size(problem.start)}, κ = {float(problem.condition_number):.4g}; middle one curvature; right "
        f"{NUM_TAIL_MODES} curvatures from {SLOWEST:g} to {2 * SLOWEST:g} and L = 1. Black dashed: theory, nothing fitted.\n"
        "Dotted: bounds, left (1 − 1/√κ)$^k$(f$_0$ − f* + μR²/2) (d'Aspremont, Scieur and Taylor 2021), right 2LR²/(k + 1)² "
        "(Beck and Teboulle 2009),\nand the ODE of Su, Boyd and Candes (2016) without the damping e$^{−ksλ/2}$ and the half step in "
        "w = (k + ½)√(sλ). Grey: where the slope is fitted.",
    )
    return {"nesterov_acceleration": drawn}


def _exact_runs(runs: xr.Dataset, problem: Problem) -> Float[np.ndarray, "runs records"]:
    return momentum.nesterov(theory.modes(problem), runs.learning_rate.values, runs.momentum.values, runs.step.values)


def _floor(dataset: xr.Dataset, problem: Problem) -> float:
    """The part of the start above which a curve is free of round-off: there is next to none about a minimum 0 at x = 0."""
    if dataset.attrs["precision"] != "float64":
        return analysis.ROUND_OFF[dataset.attrs["precision"]][0]
    return 1e-280 if "eigenvalues" in problem.constants else 1e-24 if problem.hessian is not None else analysis.ROUND_OFF["float64"][0]


def _curve_findings(results: xr.DataTree, problem: Problem) -> list[Finding]:
    runs, growing = results["runs"].to_dataset(), results["growing"].to_dataset()
    exact = acceleration.nesterov_convex(theory.modes(problem), float(growing.learning_rate), growing.step.values)
    precision = runs.attrs["precision"]
    cases = (
        (
            "constant momentum, every step, from the closed form of the modes",
            runs.suboptimality.values,
            _exact_runs(runs, problem),
            "z^2 - (1 + beta)(1 - alpha lambda) z + beta (1 - alpha lambda) = 0; Lessard, Recht and Packard 2016",
        ),
        (
            "momentum k / (k + 3), every step, from the recursion of the modes",
            growing.suboptimality.values[None],
            exact[None],
            "x_{k+1} = (1 - s lambda)(x_k + (k - 1)/(k + 2) (x_k - x_{k-1})), Su, Boyd and Candes 2016",
        ),
    )
    return [
        analysis.follows(values, line, problem, precision=precision, claim=claim, source=source) for claim, values, line, source in cases
    ]


def _slope_findings(runs: xr.Dataset, problem: Problem) -> list[Finding]:
    """The slope of f over the double root's (1 + b k)^2, where the slowest mode is alone."""
    modes, steps, exact, findings = theory.modes(problem), runs.step.values, _exact_runs(runs, problem), []
    smoothness, convexity = runs.attrs["smoothness"], runs.attrs["strong_convexity"]
    slow = np.abs(modes.curvatures / convexity - 1.0) < 1e-6
    kappa = smoothness / convexity
    cases = {
        "constant": (
            momentum.nesterov_constant(smoothness, convexity),
            1.0 - 1.0 / np.sqrt(kappa),
            "1 / L and (sqrt(kappa) - 1) / (sqrt(kappa) + 1)",
        ),
        "tuned": (
            momentum.nesterov_tuned(smoothness, convexity),
            1.0 - 2.0 / np.sqrt(3.0 * kappa + 1.0),
            "4 / (3 L + mu) and its momentum",
        ),
    }
    for name, (numbers, root, said) in cases.items():
        place = runs.run.values.tolist().index(name)
        values = runs.suboptimality.values[place]
        usable = np.flatnonzero((exact[place] > _floor(runs, problem) * exact[place, 0]) & (values > 0.0))
        late = usable[1 + len(usable) // 2 :]
        if len(late) < FEWEST_RECORDS:
            continue
        alone = (
            0.5
            * np.sum((modes.curvatures * modes.start**2)[slow])
            * (momentum.double_root(root, steps[late[0]]) * root ** float(steps[late[0]])) ** 2
        )
        if not abs(exact[place, late[0]] / alone - 1.0) < -SEEN * 2.0 * np.log(root) * len(late):
            continue
        line = np.log(values[late]) - 2.0 * np.log(momentum.double_root(numbers.contraction, steps[late]))
        findings.append(
            Finding(
                claim=f"{said}: slope of ln((f - f*) / (1 + b k)^2) a step, b = 1 - r, is 2 ln r",
                predicted=float(2.0 * np.log(numbers.contraction)),
                measured=float(np.polyfit(steps[late], line, 1)[0]),
                tolerance=SLOPE_TOLERANCE,
                source="r = 1 - 1 / sqrt(kappa), or 1 - 2 / sqrt(3 kappa + 1): Nesterov 2004; Lessard, Recht and Packard 2016, Prop. 1",
            )
        )
    return findings


def _bound_findings(results: xr.DataTree) -> list[Finding]:
    """No curve is above its bound; at step 0 they say next to nothing, and below round-off nothing is seen."""
    runs, growing = results["runs"].sel(run="constant"), results["growing"].to_dataset()
    smoothness, convexity = growing.attrs["smoothness"], growing.attrs["strong_convexity"]
    steps, start, distance = growing.step.values, float(growing.suboptimality[0]), float(growing.distance[0])
    convex, beck = acceleration.convex_bound(smoothness, distance, steps), "Beck and Teboulle 2009, Thm 4.4"
    cases: list[tuple[str, xr.DataArray, np.ndarray, str]] = [
        (
            "constant momentum: largest ratio of f_k - f* to (1 - 1 / sqrt(kappa))^k (f_0 - f* + mu R^2 / 2)",
            runs.suboptimality,
            acceleration.strongly_convex_bound(smoothness, convexity, start, distance, steps),
            "d'Aspremont, Scieur and Taylor 2021, Cor. 4.15",
        ),
        ("k / (k + 3): largest ratio of f_k - f* to 2 L R^2 / (k + 1)^2", growing.suboptimality, convex, "Su, Boyd and Candes 2016, Thm 6"),
        ("FISTA's weights: largest ratio of f_k - f* to 2 L R^2 / (k + 1)^2", results["fista"].suboptimality, convex, beck),
        (
            "FISTA's weights: largest ratio of f_k - f* to L R^2 / (2 lambda_k^2)",
            results["fista"].suboptimality,
            acceleration.fista_bound(smoothness, distance, steps),
            beck + ", its proof",
        ),
    ]
    tail = results["tail"].to_dataset()
    on_tail = acceleration.convex_bound(1.0, float(tail.distance[0]), tail.step.values)
    said = "k / (k + 3) on curvatures far below L: largest ratio of f_k - f* to 2 L R^2 / (k + 1)^2"
    cases.append((said, tail.suboptimality, on_tail, "Su, Boyd and Candes 2016, Thm 6"))
    floor, slack = analysis.ROUND_OFF[growing.attrs["precision"]]
    return [
        Finding(
            claim=claim,
            predicted=1.0,
            measured=float(np.max(np.where(bound > floor * bound[0], values.values / np.maximum(bound, np.finfo(float).tiny), 0.0)[1:])),
            tolerance=slack,
            source=source,
            kind="at_most",
        )
        for claim, values, bound, source in cases
    ]


def _mode_findings(mode: xr.Dataset) -> list[Finding]:
    """|x_k| / x_0 against the Legendre polynomial, the Bessel function, and the ODE that knows no damping."""
    k, findings, double = mode.step.values[1:], [], mode.attrs["precision"] == "float64"
    for product in mode.learning_rate.values.tolist():
        measured = mode.distance.sel(learning_rate=product).values[1:] / float(mode.distance[0, 0])
        forms = (acceleration.legendre_mode, acceleration.bessel_mode, acceleration.ode_mode)
        legendre, bessel, ode = (float(np.max(np.abs(np.abs(form(product, k)) - measured))) for form in forms)
        findings.append(
            Finding(
                claim=f"s lambda = {product:g}: largest |x_k| / x_0 less that of Legendre polynomials, {len(k)} steps (absolute)",
                predicted=0.0,
                measured=legendre,
                tolerance=LEGENDRE_TOLERANCE if double else 1e-4,
                source="2 c^(k+1) P_k'(c) / (k (k + 1)), c = sqrt(1 - s lambda), Paquette, van Merrienboer, Paquette and Pedregosa 2021",
                kind="at_most",
            )
        )
        if product <= SMALL_PRODUCT and double:
            findings += [
                Finding(
                    claim=f"s lambda = {product:g}: the same less 2 J_1(w) / w e^(-k s lambda / 2), w = (k + 1/2) sqrt(s lambda)",
                    predicted=BESSEL_ERROR * product,
                    measured=bessel,
                    tolerance=0.01,
                    source="Su, Boyd and Candes 2016, with what steps add; numerically 0.24 s lambda",
                    kind="at_most",
                ),
                Finding(
                    claim=f"s lambda = {product:g}: the same less 2 J_1(w) / w, w = k sqrt(s lambda), the ODE's, is so much more",
                    predicted=ODE_ERROR * float(np.sqrt(product)),
                    measured=ode,
                    tolerance=0.01,
                    source="Su, Boyd and Candes 2016, section 3.2 (number unconfirmed); numerically 0.753 sqrt(s lambda)",
                    kind="equal" if k[-1] * np.sqrt(product) > FITTED_FROM else "at_most",
                ),
            ]
    return findings


def _fitted(tail: xr.Dataset) -> np.ndarray:
    return tail.step.values * np.sqrt(SLOWEST) >= FITTED_FROM


def _tail_findings(tail: xr.Dataset) -> list[Finding]:
    window = _fitted(tail)
    if tail.step.values[-1] < 10.0 * FITTED_FROM / np.sqrt(SLOWEST) * 0.99:  # less than a decade shows no power
        return []
    k, values = tail.step.values[window], tail.suboptimality.values[window]
    return [
        Finding(
            claim=f"curvatures far below L: exponent of f - f* in k, least squares, k = {k[0]} to {k[-1]}, k mu s <= {k[-1] * SLOWEST:.2g}",
            predicted=-3.0,
            measured=float(np.polyfit(np.log(k), np.log(values), 1)[0]),
            tolerance=TAIL_TOLERANCE,
            source="J_1(w)^2 / w^2 falls as w^-3; Su, Boyd and Candes 2016, Thm 8 bounds it so",
        ),
        Finding(
            claim="the same: mean ratio of f - f* to sum_i 2 c_i^2 e^(-k lambda_i) / (pi sqrt(lambda_i)) k^-3",
            predicted=1.0,
            measured=float(np.mean(values / tail_law(k))),
            tolerance=TAIL_TOLERANCE,
            source="J_1(w)^2 is 1 / (pi w) on average, damped by the steps",
        ),
    ]


def _draw_runs(axes: Axes, runs: xr.Dataset, problem: Problem) -> None:
    exact, start = _exact_runs(runs, problem), float(runs.suboptimality[0, 0])
    fallen = np.flatnonzero(exact[0] < 1e-20 * start)
    shown = slice(0, int(1.3 * fallen[0]) + 1 if fallen.size else None)
    steps, bounds = runs.step.values[shown], (1e-20 * start, 1e9 * start)
    for place, label in enumerate(("1/L, constant β", "4/(3L + μ), its β", "1/L, no momentum")):
        line = {"color": figures.COLORS[place], "linewidth": 2.0, "label": label}
        figures.trajectory(axes, steps, runs.suboptimality.values[place, shown], bounds=bounds, **line)
        figures.dashed(axes, steps, exact[place, shown], bounds=bounds)
    smoothness, convexity = runs.attrs["smoothness"], runs.attrs["strong_convexity"]
    bound = acceleration.strongly_convex_bound(smoothness, convexity, start, float(runs.distance[0, 0]), steps)
    axes.plot(steps, bound, color=figures.COLORS[0], linestyle=":", label="bound of the first")
    axes.set(yscale="log", ylim=bounds, xlabel="step k", ylabel="suboptimality  f(x$_k$) − f*", title="constant momentum")
    axes.legend(loc="upper right", handlelength=1.4)


def _draw_mode(axes: Axes, mode: xr.Dataset) -> None:
    product = float(mode.learning_rate.max())
    measured = mode.distance.sel(learning_rate=product).values / float(mode.distance[0, 0])
    last = max(2, min(len(measured), int(25.0 / np.sqrt(product))))
    k, fine = mode.step.values[:last], np.linspace(0.0, last - 1.0, 4000)
    axes.plot(k, measured[:last], ".", color=figures.COLORS[5], markersize=4, label="measured")
    figures.dashed(axes, fine, np.abs(acceleration.bessel_mode(product, fine)), bounds=(1e-5, 10.0), label="2J$_1$(w)/w · e$^{−ksλ/2}$")
    axes.plot(fine, np.abs(acceleration.ode_mode(product, fine)), color=figures.COLORS[1], linestyle=":", label="the ODE's 2J$_1$(w)/w")
    axes.set(yscale="log", ylim=(1e-4, 30.0), xlabel="step k", ylabel="|x$_k$| / x$_0$", title=f"β = k/(k + 3), one mode, sλ = {product:g}")
    axes.legend(loc="upper right", handlelength=1.6)


def _draw_tail(axes: Axes, tail: xr.Dataset) -> None:
    k, values = tail.step.values[1:], tail.suboptimality.values[1:]
    axes.axvspan(k[0] if not _fitted(tail).any() else tail.step.values[_fitted(tail)][0], k[-1], color="0.93", linewidth=0)
    axes.plot(k, values, color=figures.COLORS[5], linewidth=2.0, label="measured")
    late = k * np.sqrt(SLOWEST) >= 1.0
    figures.dashed(axes, k[late], tail_law(k[late]), bounds=(1e-300, 1e300), label="Σ 2c²/(π√λ) · k$^{−3}$")
    axes.plot(k, acceleration.convex_bound(1.0, float(tail.distance[0]), k), color="0.4", linestyle=":", label="2LR²/(k + 1)²")
    axes.set(xscale="log", yscale="log", xlabel="step k", ylabel="suboptimality  f(x$_k$) − f*", title="β = k/(k + 3), kμs ≪ 1")
    axes.legend(loc="upper right", handlelength=1.6)
