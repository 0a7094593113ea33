"""With many parameters one run of SGD on a stream is no longer random: its risk solves a Volterra equation.

Claim
    On a stream of Gaussian examples the risk of SGD is that of homogenised SGD, which one integral equation gives; it converges to a
    floor below the critical rate 2 / tr H and grows above it. On power laws its exponent is the signal's or the noise's, the slower one.
Theory
    R(t) = sum_i lambda_i s_i(0) exp(-2 gamma lambda_i t)
         + gamma^2 int_0^t sum_i lambda_i^2 exp(-2 gamma lambda_i (t - u)) (R(u) + sigma^2) du
    (Paquette, Lee, Pedregosa and Paquette 2021); the moments for finitely many parameters are an exact linear recursion. With
    lambda_i = i^-a and lambda_i s_i(0) = i^-b, R(t) falls as t^-min((b - 1) / a, 2 - 1 / a) (Velikanov, Kuznedelev and Yarotsky 2023).
Sweep
    Rates across the critical one x streams, each example seen once; then power laws x streams.
Expect
    Single runs close to the dashed Volterra curve, their mean on it; growth above 2 / tr H; straight lines on log axes.
Command
    gdjax experiment=homogenised_sgd
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, losses, models
from gdjax.records import Finding, Problem, whole
from gdjax.theory import homogenised as theory

RELATIVE_RATES = (0.4, 0.8, 1.8, 2.2)
"""gamma tr H, of which 2 is critical; the second is compared with the limit of many parameters."""

NOISE = 0.5
"""The targets' standard deviation; the risk starts at 1."""

EXPONENT, SOURCES, POWER_LAW_RATE = 1.5, (1.5, 2.0, 4.0), 0.2
"""lambda_i = i^-1.5, its sources b, and gamma tr H on it."""

LATE = (1e5, 1e7)
"""Steps between which exponents are those of the limit."""


def even(num_parameters: int) -> theory.Stream:
    """lambda_i = i / d, the start's error spread evenly and its risk 1."""
    curvatures = np.arange(1.0, num_parameters + 1) / num_parameters
    return theory.Stream(curvatures, np.full(num_parameters, 1.0 / curvatures.sum()), NOISE**2)


def power_law(num_parameters: int, source: float) -> theory.Stream:
    """lambda_i = i^-a, lambda_i e_i^2 = i^-b at the start, no noise, i up to d."""
    modes = np.arange(1.0, num_parameters + 1)
    return theory.Stream(modes**-EXPONENT, modes ** (EXPONENT - source), 0.0)


def _observed(stream_seed: float, curvatures: Any, truth: Any, noise: float, num_examples: int) -> Problem:
    """Gaussian examples, of which each is to be seen once, beside the risk in expectation, without the noise's own variance."""
    of_features, of_noise = jax.random.split(jax.random.key(jnp.asarray(stream_seed, jnp.int32)))
    features = np.sqrt(curvatures)[None, :] * jax.random.normal(of_features, (num_examples, len(curvatures)))
    target = jnp.matmul(features, truth.astype(features.dtype), precision="highest")
    return Problem(
        evaluate=models.Linear(losses.squared_error, intercept=False),
        name="stream",
        data=(features, target + noise * jax.random.normal(of_noise, (num_examples,))),
        start=np.zeros(len(curvatures)),
        minimizer=truth,
        minimum=0.0,
        smoothness=2.0 * curvatures.max(),
        strong_convexity=2.0 * curvatures.min(),
        hessian=np.diag(2.0 * curvatures),  # pyright: ignore[reportArgumentType]
    )


@functools.cache
def streaming(num_parameters: int, num_examples: int) -> Callable[..., Problem]:
    """The problem of `even` by its seed, built inside the program."""
    stream = even(num_parameters)

    def build(stream_seed: float) -> Problem:
        return _observed(stream_seed, stream.curvatures, np.sqrt(stream.squares), NOISE, num_examples)

    return build


@functools.cache
def streaming_power_law(num_parameters: int, num_examples: int) -> Callable[..., Problem]:
    """The problem of `power_law` by its seed and its source exponent: one program for all."""
    curvatures = power_law(num_parameters, 1.0).curvatures

    def build(stream_seed: float, source: float) -> Problem:
        truth = jnp.exp(0.5 * (EXPONENT - source) * np.log(np.arange(1.0, num_parameters + 1)))
        return _observed(stream_seed, curvatures, truth, 0.0, num_examples)

    return build


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_parameters: int = 500,
    num_steps: int = 2000,
    num_streams: int = 16,
    num_power_law_steps: int = 1500,
) -> xr.DataTree:
    """Run SGD with batches of one along streams of their own.

    Parameters
    ----------
    num_parameters
        d. The limit is that of many: with 500 it is 0.36 % off at the second rate.
    """
    d = whole("num_parameters", num_parameters, least=10)
    num_steps, num_power_law_steps = whole("num_steps", num_steps, least=20), whole("num_power_law_steps", num_power_law_steps, least=20)
    seeds = np.arange(whole("num_streams", num_streams, least=2))
    measured = functools.partial(sweep, sampler="reshuffled", batch_size=1, stream_seed=seeds)
    parts = {
        "even": measured(
            streaming(d, num_steps),
            num_steps=num_steps,
            record_every=max(1, num_steps // 100),
            learning_rate=0.5 * np.asarray(RELATIVE_RATES) / even(d).trace,  # of the square, whose gradient has a factor 2
        )
    }
    for source in SOURCES:
        parts[f"power_law_{source:g}"] = measured(
            streaming_power_law(d, num_power_law_steps),
            source=source,
            num_steps=num_power_law_steps,
            record_every=max(1, num_power_law_steps // 100),
            learning_rate=0.5 * POWER_LAW_RATE / power_law(d, source).trace,
        )
    return xr.DataTree.from_dict({name: part.assign_attrs(num_parameters=d) for name, part in parts.items()})


def check(results: xr.DataTree) -> list[Finding]:
    """Compare runs with the limit and with exact moments, on either side of the critical rate and on power laws."""
    even_part = results["even"].to_dataset()
    return [
        *_volterra_findings(even_part),
        *_critical_findings(even_part),
        *(finding for source in SOURCES for finding in _power_law_findings(_power_law(results, source), source)),
    ]


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Runs and their limit; rates on either side of the critical one; power laws."""
    part = results["even"].to_dataset()
    drawn, panels = figures.figure(3, width=7.2, height=2.9)
    _draw_runs(panels[0, 0], part)
    _draw_rates(panels[0, 1], part)
    for source, color in zip(SOURCES, figures.COLORS, strict=False):
        _draw_power_law(panels[0, 2], _power_law(results, source), source, color)
    lowest = min(float(_power_law(results, source).suboptimality.mean("stream_seed").min()) for source in SOURCES)
    panels[0, 2].set(xscale="log", yscale="log", ylim=(0.01 * lowest, 5.0), xlabel=figures.LABELS["step"], title="power laws")
    panels[0, 2].legend(loc="lower left")
    figures.source(
        drawn,
        f"{part.attrs['num_parameters']} parameters, batches of one, every example new, {part.sizes['stream_seed']} streams. Left, middle: "
        f"λ$_i$ = i/d, noise {NOISE:g}. Right: λ$_i$ = i$^{{-{EXPONENT:g}}}$, λ$_i$e$_i$² = i$^{{-b}}$, no noise, γ tr H = "
        f"{POWER_LAW_RATE:g}.\nDashed: Volterra equation (left, middle), exact moments (right). Dotted: floor σ²x/(1 − x), x = γ tr H / 2. "
        "Exponents: −min((b − 1)/a, 2 − 1/a).",
    )
    return {"homogenised_sgd": drawn}


def _power_law(results: xr.DataTree, source: float) -> xr.Dataset:
    return results[f"power_law_{source:g}"].to_dataset()


def _gamma(one: xr.Dataset) -> float:
    return 2.0 * float(one.learning_rate)


def _volterra_findings(part: xr.Dataset) -> list[Finding]:
    one, stream = part.isel(learning_rate=1), even(part.attrs["num_parameters"])
    steps, mean = one.step.values, one.suboptimality.mean("stream_seed").values
    limit, exact = theory.volterra(stream, _gamma(one), steps), theory.risk(stream, _gamma(one), steps)
    label = f"γ tr H = {_gamma(one) * stream.trace:.2g}"
    return [
        Finding(
            claim=f"{label}, {len(stream.curvatures)} parameters: largest relative distance of Volterra's equation from the exact moments",
            predicted=0.0,
            measured=float(np.max(np.abs(limit / exact - 1.0))),
            tolerance=0.0036 * 500 / len(stream.curvatures),
            source="homogenised SGD, Paquette, Lee, Pedregosa and Paquette 2021: of order gamma lambda_max, which is of order 1 / d",
            kind="at_most",
        ),
        Finding(
            claim=f"{label}: relative root mean square distance of the mean of {one.sizes['stream_seed']} runs from the Volterra equation",
            predicted=0.0,
            measured=float(np.sqrt(np.mean((mean / limit - 1.0)[1:] ** 2))),
            tolerance=0.03,
            source="Paquette, Lee, Pedregosa and Paquette 2021",
            kind="at_most",
        ),
        *(_moment_finding(part.isel(learning_rate=place), stream) for place in (0, 1)),
    ]


def _moment_finding(one: xr.Dataset, stream: theory.Stream) -> Finding:
    """Over the last half of the run."""
    late = one.isel(step=slice(one.sizes["step"] // 2, None))
    exact = float(theory.risk(stream, _gamma(one), late.step.values).mean())
    averages = late.suboptimality.mean("step")
    return Finding(
        claim=f"γ tr H = {_gamma(one) * stream.trace:.2g}: mean risk over {averages.size} streams and the last half (4 standard errors)",
        predicted=exact,
        measured=float(averages.mean()),
        tolerance=float(4.0 * analysis.standard_error(averages, "stream_seed")) / exact,
        source="exact second moments for Gaussian examples",
    )


def _critical_findings(part: xr.Dataset) -> list[Finding]:
    """Below the critical rate the risk stays below its floor, above it grows, as fast as the equation says."""
    stream = even(part.attrs["num_parameters"])
    below, above = part.isel(learning_rate=-2), part.isel(learning_rate=-1)
    last = int(above.step[-1])
    ends = np.log(above.suboptimality.isel(step=-1) / above.suboptimality.isel(step=above.sizes["step"] // 2))
    exact = theory.risk(stream, _gamma(above), above.step.values)
    spread = 4.0 * float(analysis.standard_error(ends, "stream_seed"))
    return [
        Finding(
            claim=f"γ tr H = {_gamma(below) * stream.trace:.2g}, below the critical 2: mean risk at the end over the equation's floor",
            predicted=1.1,
            measured=float(below.suboptimality.isel(step=-1).mean()) / theory.limit(stream, _gamma(below)),
            tolerance=0.0,
            source="floor sigma^2 x / (1 - x), x = gamma tr H / 2, Paquette, Lee, Pedregosa and Paquette 2021",
            kind="at_most",
        ),
        Finding(
            claim=f"γ tr H = {_gamma(above) * stream.trace:.2g}, above it: logarithm of the risk's growth in the last half of {last} "
            "steps, mean of the runs (4 standard errors and 5 %)",
            predicted=float(np.log(exact[-1] / exact[len(exact) // 2])),
            measured=float(ends.mean()),
            tolerance=0.05 + spread / float(np.log(exact[-1] / exact[len(exact) // 2])),
            source="exact second moments for Gaussian examples; a typical run grows a little slower than the mean",
        ),
        Finding(
            claim=f"γ tr H = {_gamma(above) * stream.trace:.2g}, above it: the least growth of any run in the last half",
            predicted=1.0,
            measured=float(np.exp(ends.min())),
            tolerance=0.0,
            source="critical rate gamma = 2 / tr H, Paquette, Lee, Pedregosa and Paquette 2021",
            kind="at_least",
        ),
    ]


def _power_law_findings(one: xr.Dataset, source: float) -> list[Finding]:
    stream = theory.power_law(EXPONENT, source)
    late = np.round(np.geomspace(*LATE, 30))
    found = theory.risk(stream, POWER_LAW_RATE / stream.trace, late)
    small = power_law(one.attrs["num_parameters"], source)
    ratios = (one.suboptimality / theory.risk(small, _gamma(one), one.step.values)).isel(step=slice(1, None)).mean("step")
    return [
        Finding(
            claim=f"a = {EXPONENT:g}, b = {source:g}: exponent of the exact risk between {LATE[0]:g} and {LATE[1]:g} steps, 10^9 modes",
            predicted=theory.power_law_exponent(EXPONENT, source),
            measured=float(np.polyfit(np.log(late), np.log(found), 1)[0]),
            tolerance=0.01,
            source="Velikanov, Kuznedelev and Yarotsky 2023",
        ),
        Finding(
            claim=f"a = {EXPONENT:g}, b = {source:g}: risk of {ratios.size} runs over its exact expectation, mean over "
            f"{one.step.values[-1]} steps (4 standard errors)",
            predicted=1.0,
            measured=float(ratios.mean()),
            tolerance=4.0 * float(analysis.standard_error(ratios, "stream_seed")),
            source="exact second moments for Gaussian examples",
        ),
    ]


def _draw_runs(axes: Axes, part: xr.Dataset) -> None:
    one, stream = part.isel(learning_rate=1), even(part.attrs["num_parameters"])
    steps, samples = one.step.values, one.suboptimality
    for place in range(min(4, samples.sizes["stream_seed"])):
        axes.plot(
            steps, samples.isel(stream_seed=place), color=figures.COLORS[0], linewidth=0.5, alpha=0.5, label="a run" if not place else None
        )
    axes.plot(steps, samples.mean("stream_seed"), color=figures.COLORS[0], linewidth=2.0, label="mean of runs")
    limit = theory.volterra(stream, _gamma(one), steps)
    figures.dashed(axes, steps, limit, bounds=(1e-9, 1e9), label="Volterra equation")
    axes.set(yscale="log", xlabel=figures.LABELS["step"], ylabel="risk R", title=f"γ tr H = {_gamma(one) * stream.trace:.2g}")
    axes.legend(loc="best")


def _draw_rates(axes: Axes, part: xr.Dataset) -> None:
    stream, bounds = even(part.attrs["num_parameters"]), (0.02, 1e3)
    for rate, color in zip(part.learning_rate, figures.COLORS, strict=False):
        one = part.sel(learning_rate=rate)
        label: Any = f"{_gamma(one) * stream.trace:.2g}"
        figures.band(axes, one.step.values, one.suboptimality, bounds=bounds, dim="stream_seed", color=color, label=label)
        figures.dashed(axes, one.step.values, theory.volterra(stream, _gamma(one), one.step.values), bounds=bounds)
        floor = theory.limit(stream, _gamma(one))
        if np.isfinite(floor):
            axes.axhline(floor, color=color, linewidth=0.7, linestyle=":")
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], title="2 is critical")
    axes.legend(title="γ tr H", title_fontsize=7, loc="upper left", ncols=2)


def _draw_power_law(axes: Axes, one: xr.Dataset, source: float, color: str) -> None:
    stream, steps = power_law(one.attrs["num_parameters"], source), one.step.values[1:]
    label = f"b = {source:g}: exponent {theory.power_law_exponent(EXPONENT, source):.3g}"
    axes.plot(steps, one.suboptimality.isel(step=slice(1, None)).mean("stream_seed"), color=color, linewidth=2.0, label=label)
    figures.dashed(axes, steps, theory.risk(stream, _gamma(one), steps), bounds=(1e-12, 1e3))
