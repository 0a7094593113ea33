"""Where the spectrum is a power law, f falls as a power of t, and acceleration doubles the exponent only up to a point.

Claim
    With lambda_i = i^-a and lambda_i c_i^2 = i^-b gradient descent falls as t^-xi, xi = (b - 1) / a; Nesterov's method as t^(-2 xi) below
    xi = 3/2 and only as t^-(xi + 3/2) above; Brakhage's nu-method as t^(-2 xi) throughout.
Theory
    f = (1/2a) int lambda^(xi - 1) P_t(lambda)^2 d lambda near lambda = 0, with P_t an exponential, a damped Bessel function J_1, and the
    Bessel function J_(2 nu - 1/2): exponents and constants are Gamma functions (Velikanov and Yarotsky 2021; Cunha et al. 2022). About
    xi = 3/2 both of Nesterov's powers count, and at 3/2 their poles leave a logarithm. The spectrum of a square random matrix (Marchenko
    and Pastur) has xi = 3/2 from an isotropic start.
Sweep
    xi x steps for each method. Sums over i = 1, 2, .. are integrals over u = ln i: cut off at some i they would give other exponents.
Expect
    Straight lines on log axes, on the dashes; exponents on xi, 2 xi and, for Nesterov's method, a bend at xi = 3/2.
Command
    gdjax experiment=power_laws
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import figures, problems
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import power_laws

DECADES = 30.0
"""Of curvatures below L: far beyond 1 / t^2 for any t that is run, and deep enough for xi = 1/4."""

SLOW = (1.05, 1.95)
"""Around xi = 3/2 Nesterov's two phases meet, and the lesser power takes longer than is run to be gone: both are judged together."""


def nesterov(xi: float, a: float) -> power_laws.Power | power_laws.Meeting:
    """The power that wins, and where that takes too long both of them."""
    return power_laws.Meeting(xi, a) if SLOW[0] <= xi <= SLOW[1] else power_laws.nesterov(xi, a)


LAWS = {"sgd": power_laws.gradient_descent, "nesterov_convex": nesterov, "nu_method": power_laws.nu_method}
NAMES = {"sgd": "gradient descent", "nesterov_convex": "Nesterov, t / (t + 3)", "nu_method": "Brakhage, ν = 2"}


class PowerLaw:
    """The quadratic for each xi: lambda_i c_i^2 = i^-b with b = 1 + a xi, integrated over u = ln i on equally spaced nodes."""

    def __init__(self, a: float, num_nodes: int) -> None:
        self.a, self.num_nodes = a, num_nodes

    def __call__(self, xi: float) -> Problem:
        """Every node is a mode with eigenvalue e^(-a u), whose share is e^-(b - 1)u du, by the trapezoid rule."""
        u = np.linspace(0.0, DECADES * np.log(10.0) / self.a, self.num_nodes)
        width = np.full(u.size, u[1])
        width[[0, -1]] *= 0.5
        eigenvalues = np.exp(-self.a * u)
        return problems.designed_spectrum(eigenvalues, jnp.sqrt(jnp.exp(-self.a * xi * u) * width / eigenvalues))


def random_matrix(num_nodes: int) -> Problem:
    """The spectrum of a square random matrix, density sqrt(4 / lambda - 1) / (2 pi) on (0, 4], from E c^2 = 1."""
    v = np.linspace(0.0, DECADES * np.log(10.0), num_nodes)
    eigenvalues = 4.0 * np.exp(-v)
    share = np.sqrt(np.expm1(v)) / (2.0 * np.pi) * eigenvalues * v[1]
    return problems.designed_spectrum(eigenvalues, np.sqrt(share))


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    xi: Sequence[float] | float = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0),
    a: float = 1.0,
    num_steps: int = 4000,
    num_nodes: int = 6000,
) -> xr.DataTree:
    """Sweep xi with each method, and gradient descent on a random matrix's spectrum.

    Parameters
    ----------
    a
        The exponent of the curvatures; b = 1 + a xi is that of their shares.
    num_nodes
        Of the integral over ln i.
    """
    exponents = several("xi", xi)
    if not all(0.0 < value < 3.9 for value in exponents):
        raise InputError(f"xi={exponents} is not allowed: every one is above 0 and below 3.9, what the nu-method with nu = 2 can use.")
    if not (isinstance(a, int | float) and 0.0 < a < np.inf):
        raise InputError(f"a={a} is not allowed: it is a number above 0.")
    steps, nodes = whole("num_steps", num_steps, least=2000), whole("num_nodes", num_nodes, least=1000)
    settings = {"sampler": "full", "num_steps": steps, "record_every": max(1, steps // 400)}
    build = PowerLaw(float(a), nodes)
    runs = {name: sweep(build, method=name, xi=sorted(set(exponents)), learning_rate=1.0, **settings) for name in LAWS}
    runs["random_matrix"] = sweep(random_matrix(nodes), learning_rate=0.25, **settings)
    for dataset in runs.values():
        dataset.attrs["a"] = float(a)
    return xr.DataTree.from_dict({name: dataset[["suboptimality"]] for name, dataset in runs.items()})


def check(results: xr.DataTree) -> list[Finding]:
    """Compare exponents within 2 % and constants within 3 %: of the xi that is farthest off, for each method and phase."""
    findings = [
        finding
        for name, law in LAWS.items()
        for phase, curves in _phases(results, name).items()
        for finding in _farthest(f"{NAMES[name]}{phase}", curves, [law(float(one.xi), results[name].attrs["a"]) for one in curves])
    ]
    matrix = results["random_matrix"].suboptimality.assign_coords(xi=1.5)
    return [*findings, *_farthest(f"{NAMES['sgd']}, square random matrix", [matrix], [power_laws.marchenko_pastur(0.25)])]


def _phases(results: xr.DataTree, name: str) -> dict[str, list[xr.DataArray]]:
    """The curves that are judged, by what decides their exponent."""
    curves = [results[name].suboptimality.sel(xi=xi) for xi in results[name].xi.values]
    if name != "nesterov_convex":
        return {"": curves}
    cut = {", xi < 3/2": (0.0, SLOW[0]), ", xi about 3/2, both powers": SLOW, ", xi > 3/2": (SLOW[1], np.inf)}
    phases = {phase: [one for one in curves if low <= float(one.xi) <= high] for phase, (low, high) in cut.items()}
    return {phase: kept for phase, kept in phases.items() if kept}


def exponent(curve: xr.DataArray) -> float:
    """Minus the slope on log axes over the last decade of steps."""
    last = curve.sel(step=slice(0.1 * float(curve.step[-1]), None))
    return -float(np.polyfit(np.log(last.step.values), np.log(last.values), 1)[0])


def _farthest(said: str, curves: list[xr.DataArray], laws: Sequence[Callable[[Any], np.ndarray]]) -> list[Finding]:
    last = float(curves[0].step[-1])
    expected = [curve[1:].copy(data=law(curve.step[1:])) for curve, law in zip(curves, laws, strict=True)]
    of = {
        "exponent of 1/t over the last decade": (*([exponent(curve) for curve in each] for each in (expected, curves)), 0.02),
        f"f after {last:g} steps": ([float(law(last)) for law in laws], [float(curve[-1]) for curve in curves], 0.03),
    }
    findings = []
    for what, (predicted, measured, tolerance) in of.items():
        at = int(np.abs(np.array(measured) / np.array(predicted) - 1.0).argmax())
        findings.append(
            Finding(
                claim=f"{said}: {what}" + f", farthest off at xi = {float(curves[at].xi):.4g} of {len(curves)}" * (len(curves) > 1),
                predicted=predicted[at],
                measured=measured[at],
                tolerance=tolerance,
                source="Velikanov and Yarotsky 2021; Cunha et al. 2022; Gamma functions of xi by the method's polynomial near 0",
            )
        )
    return findings


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Curves at an xi on either side of 3/2; exponents over xi."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    values = results["sgd"].xi.values
    below, above = values[np.abs(values - 0.5).argmin()], values[np.abs(values - 2.0).argmin()]
    _draw_curves(panels[0, 0], results, float(below))
    _draw_curves(panels[0, 1], results, float(above))
    _draw_exponents(panels[0, 2], results)
    panels[0, 0].legend(loc="lower left")
    a = results["sgd"].attrs["a"]
    figures.source(
        drawn,
        f"λ$_i$ = i$^{{−a}}$, a = {a:g}, λ$_i$c$_i$² = i$^{{−b}}$, ξ = (b − 1)/a; L = 1, rate 1/L. Dashed: the power laws with their "
        "constants, 2ξ and ξ + 3/2 (Velikanov and Yarotsky 2021; Cunha et al. 2022).\n"
        "Exponents are slopes over the last decade of steps. Star: a square random matrix's spectrum from an isotropic start, ξ = 3/2.",
    )
    return {"power_laws": drawn}


def _draw_curves(axes: Axes, results: xr.DataTree, xi: float) -> None:
    for (name, law), color in zip(LAWS.items(), figures.COLORS, strict=False):
        curve = results[name].suboptimality.sel(xi=xi)[1:]
        axes.plot(curve.step, curve, color=color, linewidth=2.0, label=NAMES[name])
        predicted = law(xi, results[name].attrs["a"])(curve.step.values)
        figures.dashed(axes, curve.step.values, predicted, bounds=(0.5 * float(curve.min()), 3.0 * float(curve.max())))
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], title=f"ξ = {xi:.3g}")
    axes.set_ylabel(figures.LABELS["suboptimality"])


def _draw_exponents(axes: Axes, results: xr.DataTree) -> None:
    values = results["sgd"].xi.values
    fine = np.linspace(0.0, 1.05 * values.max(), 200)
    for line in (fine, 2.0 * fine, np.where(fine > 1.5, fine + 1.5, np.nan)):
        axes.plot(fine, line, color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    for name, color in zip(LAWS, figures.COLORS, strict=False):
        measured = [exponent(results[name].suboptimality.sel(xi=xi)) for xi in values]
        axes.plot(values, measured, "o", color=color, markersize=3.5)
    matrix = exponent(results["random_matrix"].suboptimality)
    axes.plot(1.5, matrix, "*", color=figures.COLORS[0], markeredgecolor="black", markeredgewidth=0.5, markersize=8)
    for name, height in (("ξ", 1.0), ("2ξ", 2.0)):
        axes.annotate(name, (fine[-1], height * fine[-1]), fontsize=7, ha="left", va="center")
    axes.annotate("ξ + 3/2", (fine[-1], fine[-1] + 1.5), fontsize=7, ha="left", va="center")
    axes.set(xlabel="ξ", ylabel="exponent of 1/t", title="how fast f falls")
