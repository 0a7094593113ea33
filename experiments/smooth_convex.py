"""How bad gradient descent can be on smooth convex functions is known exactly, and steps of unequal length are better than any constant.

Claim
    After N steps at the rate h / L no smooth convex f is worse than Huber's function or the parabola; the best constant h makes both alike.
    Silver steps fall as N^-1.2716 where any constant rate falls as 1 / N.
Theory
    f_N - f* <= L R^2 / (4 N h + 2) for h <= 1, and equal on Huber's function with the threshold R / (2 N h + 1) (Drori and Teboulle 2014,
    Thm 3.1); beyond, the worse of that and the parabola's (1 - h)^(2N) L R^2 / 2, with the best h where they meet
    (Taylor, Hendrickx and Glineur 2017, a conjecture there). Textbooks say 2 L R^2 / (t + 4) (Nesterov 2004, Cor. 2.1.2). Silver steps
    h_i = 1 + rho^(v(i) - 1), rho = 1 + sqrt(2): f_N - f* <= L R^2 / (1 + sqrt(4 rho^(2k) - 3)) at N = 2^k - 1 (Altschuler and
    Parrilo 2023, part II, Thm 1.1). All with L = R = 1.
Sweep
    Thresholds of Huber's function as an axis (the parabola is its limit) x rates, for a few N; silver steps and h = 1 on 4,000 thresholds.
Expect
    Each function touches the dashed worst case at the step it is worst for; the worst case against h has its lowest point in the corner
    of two curves; silver steps fall faster than the best constant ones.
Command
    gdjax experiment=smooth_convex
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

from gdjax import figures
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import smooth_convex as theory

EXACT = {"float64": 1e-12, "float32": 1e-4}
"""How near a worst case is met that is attained."""

SILVER_EXACT = {"float64": 1e-10, "float32": 1e-3}

NUM_AROUND = 20
"""Rates around the best one; the two cases' logarithms are joined by straight lines between them."""

BEST_TOLERANCE = 1e-4
EXPONENT_TOLERANCE = 0.01
FITTED_FROM = 5
"""Doublings from which the exponents are fitted."""

LOWEST_THRESHOLD = 1e-5
SHOWN_FUNCTIONS = 10


def huber(lanes: Float[Array, "1 lanes"], constants: dict[str, Any], examples: tuple[()], weights: Any) -> tuple[Array, Array]:
    """Evaluate x^2 / 2 for |x| <= threshold, and the straight line on from there beyond."""
    slope = jnp.clip(lanes, -constants["threshold"], constants["threshold"])
    return (slope * (lanes - 0.5 * slope))[0], slope


def huber_function(threshold: float) -> Problem:
    """Huber's function with L = 1, begun at R = 1; with a threshold of 1 it is the parabola as long as rates are at most 2."""
    return Problem(
        evaluate=huber,
        name="huber_function",
        parameter_names=("x",),
        constants={"threshold": jnp.asarray(threshold)},
        start=np.ones(1),
        minimizer=np.zeros(1),
        minimum=0.0,
        smoothness=1.0,
    )


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    lengths: Sequence[int] | int = (1, 5, 20, 100),
    num_rates: int = 40,
    num_functions: int = 4000,
    num_doublings: int = 10,
) -> xr.DataTree:
    """Look for the worst of many functions: at h = 1 in every step, at many h after N steps, and with silver steps.

    Parameters
    ----------
    num_functions
        Thresholds that silver steps are tried on, beside the one that is worst by theory.
    num_doublings
        Silver steps are taken 2^k - 1 times, for every k up to this.
    """
    lengths = [whole("lengths", length) for length in several("lengths", lengths)]
    num_rates, num_functions = whole("num_rates", num_rates, least=2), whole("num_functions", num_functions, least=2)
    doublings = np.arange(1, whole("num_doublings", num_doublings) + 1)
    if doublings[-1] > 16:
        raise InputError(f"num_doublings={num_doublings} is not allowed: it is a whole number from 1 to 16, of 2^k - 1 steps.")
    every = np.arange(1, max(lengths) + 1)
    paths = sweep(
        huber_function,
        sampler="full",
        num_steps=max(lengths),
        record_every=1,
        learning_rate=1.0,
        threshold=theory.huber_threshold(every, 1.0),
    )
    constant = _at_lengths(sweep, lengths, num_rates).assign_attrs(paths.attrs)
    worst = theory.huber_threshold(theory.SILVER**doublings - 1.0, 1.0)
    thresholds = np.unique([*np.geomspace(LOWEST_THRESHOLD, 1.0, num_functions), *worst, *theory.huber_threshold(2**doublings - 1, 1.0)])
    silver = {name: _at_doublings(sweep, doublings, thresholds, method=method) for name, method in (("silver", "silver"), ("plain", "sgd"))}
    return xr.DataTree.from_dict({"paths": paths, "constant": constant, "silver": xr.Dataset(silver, attrs=paths.attrs)})


def check(results: xr.DataTree) -> list[Finding]:
    """Compare the worst of the functions with the worst there is."""
    return [
        *_path_findings(results["paths"].to_dataset()),
        *_constant_findings(results["constant"].to_dataset()),
        *_silver_findings(results["silver"].to_dataset()),
    ]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Some functions at h = 1 under their envelope; the worst case against h; silver steps against constant ones."""
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_paths(panels[0, 0], results["paths"].to_dataset())
    _draw_constant(panels[0, 1], results["constant"].to_dataset())
    _draw_silver(panels[0, 2], results["silver"].to_dataset())
    silver = results["silver"].to_dataset()
    figures.source(
        drawn,
        "f: Huber's function x²/2, straight beyond a threshold τ; L = 1, x$_0$ = R = 1. Black dashed: theory, nothing fitted.\n"
        "Left: h = 1, a line a threshold; dots: where it is the worst of all f (Drori and Teboulle 2014).\n"
        f"Middle: the worst of {results['constant'].sizes['function']} thresholds; left branch Huber's, right branch the parabola's; "
        f"dots: the best h. Right: the worst of {silver.sizes['threshold']:,} thresholds;\n"
        "the bound holds for every smooth convex f (Altschuler and Parrilo 2023), though single silver steps are far beyond 2/L.",
    )
    return {"smooth_convex": drawn}


def _at_lengths(sweep: Callable[..., xr.Dataset], lengths: list[int], num_rates: int) -> xr.Dataset:
    """What N steps leave of every threshold that is the worst for one of the rates, at every rate; the parabola is the last."""
    ends, rates, thresholds = [], [], []
    for length in lengths:
        best = theory.best_constant_rate(length)
        rates.append(np.sort([*np.linspace(0.05, 2.0, num_rates), *best + 0.1 * (2.0 - best) * np.linspace(-1.0, 1.0, NUM_AROUND)]))
        thresholds.append(np.append(theory.huber_threshold(length, rates[-1]), 1.0))
        how = {"num_steps": length, "record_every": length, "threshold": thresholds[-1], "learning_rate": rates[-1]}
        ends.append(sweep(huber_function, sampler="full", **how).suboptimality.values[..., -1])
    coordinates: Any = {"length": lengths, "relative_rate": (("length", "rate"), rates), "threshold": (("length", "function"), thresholds)}
    return xr.Dataset({"suboptimality": (("length", "function", "rate"), np.stack(ends))}, coordinates)


def _at_doublings(sweep: Callable[..., xr.Dataset], doublings: np.ndarray, thresholds: np.ndarray, *, method: str) -> xr.DataArray:
    """What 2^k - 1 steps leave of every threshold."""
    ends = [
        sweep(
            huber_function,
            method=method,
            sampler="full",
            num_steps=steps,
            record_every=steps,
            threshold=thresholds,
            learning_rate=1.0,
        ).suboptimality.isel(step=-1, drop=True)
        for steps in (2**doublings - 1).tolist()
    ]
    return xr.concat(ends, xr.DataArray(doublings, dims="doublings", name="doublings")).drop_vars(["learning_rate"], errors="ignore")


def _path_findings(paths: xr.Dataset) -> list[Finding]:
    t, measured = paths.step.values[1:], paths.suboptimality.max("threshold").values[1:]
    return [
        Finding(
            claim=f"h = 1: the worst of {paths.sizes['threshold']} Huber functions against 1 / (4 t + 2), t = 1 .. {t[-1]}: "
            "largest relative deviation (absolute tolerance)",
            predicted=0.0,
            measured=float(np.max(np.abs(measured / theory.huber_case(t, 1.0) - 1.0))),
            tolerance=EXACT[paths.attrs["precision"]],
            source="Drori and Teboulle 2014, Thm 3.1: tight",
        ),
        Finding(
            claim="h = 1: largest ratio of f_t - f* to the textbook's 2 L R^2 / (t + 4)",
            predicted=1.0,
            measured=float(np.max(measured / theory.textbook_bound(t))),
            tolerance=0.0,
            source="Nesterov 2004, Cor. 2.1.2",
            kind="at_most",
        ),
    ]


def _constant_findings(constant: xr.Dataset) -> list[Finding]:
    return [finding for length in constant.length.values.tolist() for finding in _length_findings(constant.sel(length=length), length)]


def _length_findings(one: xr.Dataset, length: int) -> list[Finding]:
    h, left = one.relative_rate.values, one.suboptimality.values
    deviation = np.abs(left.max(axis=0) / theory.worst_case(length, h) - 1.0)
    kinds = (
        ("1 / (4 N h + 2), h <= 1", h <= 1.0, "Drori and Teboulle 2014, Thm 3.1: tight"),
        ("the worse of Huber's and the parabola's, 1 < h <= 2", h > 1.0, "Taylor, Hendrickx and Glineur 2017"),
    )
    findings = [
        Finding(
            claim=f"N = {length}: the worst of {one.sizes['function']} functions against {said}: largest deviation (absolute tolerance)",
            predicted=0.0,
            measured=float(np.max(deviation[these])),
            tolerance=EXACT[one.attrs["precision"]],
            source=source,
        )
        for said, these, source in kinds
    ]
    best = Finding(
        claim=f"N = {length}: the constant rate h with the best worst case, where Huber's function and the parabola meet",
        predicted=theory.best_constant_rate(length),
        measured=_meeting(h, np.diagonal(left), left[-1]),
        tolerance=BEST_TOLERANCE,
        source="1 / (2 N h + 1) = (1 - h)^(2 N), Taylor, Hendrickx and Glineur 2017",
    )
    return [*findings, best]


def _meeting(h: np.ndarray, falling: np.ndarray, rising: np.ndarray) -> float:
    """Where, beyond 1, two curves cross whose logarithms are straight between their points; NaN where they don't."""
    apart = np.log(falling) - np.log(np.maximum(rising, np.finfo(float).tiny))
    crossed = np.flatnonzero((apart[:-1] > 0.0) & (apart[1:] <= 0.0) & (h[1:] > 1.0))[:1]
    if not crossed.size:
        return np.nan
    here, after = crossed[0], crossed[0] + 1
    return float(h[here] + (h[after] - h[here]) * apart[here] / (apart[here] - apart[after]))


def _silver_findings(silver: xr.Dataset) -> list[Finding]:
    k, worst = silver.doublings.values, silver.max("threshold")
    findings = [
        Finding(
            claim=f"silver steps: largest ratio of f_N - f* to its bound, {silver.sizes['threshold']} functions, N to {2 ** k[-1] - 1}",
            predicted=1.0,
            measured=float(np.max(worst.silver.values / theory.silver_bound(k))),
            tolerance=0.0,
            source="1 / (1 + sqrt(4 rho^(2k) - 3)), Altschuler and Parrilo 2023, part II, Thm 1.1",
            kind="at_most",
        ),
        Finding(
            claim="silver steps: the worst Huber function against 1 / (4 rho^k - 2): largest relative deviation (absolute tolerance)",
            predicted=0.0,
            measured=float(np.max(np.abs(worst.silver.values / theory.silver_huber_case(k) - 1.0))),
            tolerance=SILVER_EXACT[silver.attrs["precision"]],
            source="2^k - 1 silver steps are rho^k - 1 long, Altschuler and Parrilo 2023",
        ),
    ]
    late = k >= FITTED_FROM
    if late.sum() >= 3:
        findings += [
            Finding(
                claim=f"{said}: exponent of the worst case in N + 1 = 2^k, least squares from k = {FITTED_FROM} to {k[-1]}",
                predicted=-exponent,
                measured=float(np.polyfit(np.log(2.0) * k[late], np.log(worst[name].values[late]), 1)[0]),
                tolerance=EXPONENT_TOLERANCE,
                source=source,
            )
            for name, said, exponent, source in (
                ("silver", "silver steps", theory.SILVER_EXPONENT, "log2(1 + sqrt(2)), Altschuler and Parrilo 2023"),
                ("plain", "h = 1", 1.0, "1 / (4 N + 2), Drori and Teboulle 2014"),
            )
        ]
    return findings


def _draw_paths(axes: Axes, paths: xr.Dataset) -> None:
    steps = paths.step.values[1:]
    chosen = np.unique(np.geomspace(1, len(steps), SHOWN_FUNCTIONS).round().astype(int))
    for t in chosen:
        line = paths.suboptimality.values[t - 1, 1:]
        axes.plot(steps, line, color=figures.COLORS[5], linewidth=0.9, label="a function" if t == 1 else None)
        axes.plot(t, line[t - 1], ".", color=figures.COLORS[0], markersize=5, label="where it is the worst" if t == 1 else None)
    worst, textbook = theory.huber_case(steps, 1.0), theory.textbook_bound(steps)
    figures.dashed(axes, steps, worst, bounds=(0.1 * worst[-1], 1.0), label="1/(4t + 2)")
    axes.plot(steps, textbook, color="0.4", linestyle=":", label="textbook 2/(t + 4)")
    axes.set(xscale="log", yscale="log", ylim=(0.4 * worst[-1], 30.0), xlabel=figures.LABELS["step"], title="rate 1/L")
    axes.set_ylabel("(f(x$_t$) − f*) / (L R²)")
    axes.legend(loc="upper right")


def _draw_constant(axes: Axes, constant: xr.Dataset) -> None:
    for color, length in zip(figures.COLORS, constant.length.values.tolist(), strict=False):
        one = constant.sel(length=length)
        h, worst = one.relative_rate.values, one.suboptimality.max("function").values
        axes.plot(h, worst, color=color, linewidth=2.0, label=f"N = {length}")
        fine = np.linspace(0.05, 2.0, 800)
        figures.dashed(axes, fine, theory.worst_case(length, fine), bounds=(1e-12, 1.0))
        best = theory.best_constant_rate(length)
        axes.plot(best, theory.huber_case(length, best), "o", color=color, markersize=4)
    axes.set(yscale="log", xlabel="rate times smoothness  h = ηL", ylabel="worst (f(x$_N$) − f*) / (L R²)", title="constant rates")
    axes.legend(loc="lower left", ncols=2, handlelength=1.2, columnspacing=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 4.0, high)


def _draw_silver(axes: Axes, silver: xr.Dataset) -> None:
    k, worst = silver.doublings.values, silver.max("threshold")
    steps, fine = 2.0**k - 1.0, np.arange(1, 2 ** k[-1])
    axes.plot(steps, worst.plain, "s", color=figures.COLORS[0], markersize=4, label="constant, h = 1")
    axes.plot(steps, worst.silver, "o", color=figures.COLORS[1], markersize=4, label="silver")
    figures.dashed(axes, fine, theory.huber_case(fine, 1.0), bounds=(1e-12, 1.0))
    figures.dashed(axes, steps, theory.silver_huber_case(k), bounds=(1e-12, 1.0), label="theory")
    best = [theory.huber_case(int(n), theory.best_constant_rate(int(n))) for n in steps]
    axes.plot(steps, best, color=figures.COLORS[5], linewidth=0.9, label="best constant h")
    axes.plot(steps, theory.silver_bound(k), color="0.4", linestyle=":", label="bound of silver steps")
    axes.set(xscale="log", yscale="log", xlabel="steps N = 2$^k$ − 1", title=f"silver steps: N$^{{-{theory.SILVER_EXPONENT:.4f}}}$")
    axes.set_ylabel("worst (f(x$_N$) − f*) / (L R²)")
    axes.set_ylim(bottom=0.05 * float(worst.silver[-1]))
    axes.legend(loc="lower left")
