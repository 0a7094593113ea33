"""Adaptive methods: what they do exactly, where Adam goes to the wrong end, and what scaling the data changes.

Claim
    Adam's first step is eta |g| / (|g| + eps) long; RMSprop ends in a cycle between +eta/2 and -eta/2; on Reddi's streams Adam goes to the
    worst point of [-1, 1] and AMSGrad to the best; AdaGrad's regret keeps its bound; Adam does not notice a change of units, SGD does.
Theory
    Kingma and Ba (2015); Reddi et al. (2018) for the streams and AMSGrad; Duchi, Hazan and Singer (2011) and Streeter and McMahan (2010)
    for AdaGrad; Zinkevich (2003) for AMSGrad with b1 = 0, which is descent whose rates never rise. With eps = 0 an adaptive step is the
    same for gradients c g, so that J -> c^2 J (X -> c X, y -> c y) changes no iterate; SGD needs the rate eta / c^2.
Sweep
    eps, b1, b2; curvatures and rates; two streams in their order, C, -1, -1 and 1010, -10 x 100; streams of random slopes; scales c.
Expect
    |x| level at eta / 2; Adam at +1 with the average regret 2/3, AMSGrad at -1; Adam's curves on each other, SGD's not.
Command
    gdjax experiment=adaptive_methods
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import figures, problems
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import adaptive as theory

STREAMS = {"C, -1, -1": np.array([3.0, -1.0, -1.0]), "1010, -10 x 100": np.append(1010.0, np.full(100, -10.0))}
"""Slopes c_t of the losses c_t x, over and over: Reddi et al. 2018, Thm 1 with C = 3, and the stream of their first figure."""

NUMBERS = {"C, -1, -1": {"b1": 0.0, "b2": 0.1, "eps": 0.0}, "1010, -10 x 100": {"b1": 0.9, "b2": 0.99, "eps": 1e-8}}
"""b2 = 1 / (1 + C^2) in the theorem."""

RATE = 0.5
"""eta of the rates eta / sqrt t on both streams."""

WRONG, RIGHT = "online_adam", "online_amsgrad"
INVARIANT: dict[str, dict[str, float]] = {
    "adam": {"eps": 0.0},
    "rmsprop": {"eps": 0.0},
    "adagrad": {"eps": 0.0, "initial_accumulator_value": 0.0},
}
"""Methods that divide by the gradient's own size, with nothing added to it."""

ROUND_OFF = {"float64": 1e-10, "float32": 1e-3}
"""By precision, over some hundred steps."""


def in_order(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> np.ndarray:
    """One example after the other, over and over: a stream."""
    return (np.arange(num_steps, dtype=np.int32) % num_examples)[:, None]


def slope(params: Any, example: Any) -> Any:
    """c x."""
    return example * params


def stream(slopes: np.ndarray) -> Problem:
    """Losses c_t x of one variable, begun at 1/2."""
    return problems.from_loss(slope, slopes, np.asarray(0.5))


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 30000,
    num_periods: int = 2000,
    learning_rate: Sequence[float] | float = (0.01, 0.1, 1.0),
    curvature: Sequence[float] | float = (0.1, 2.0, 50.0),
    num_streams: int = 8,
    num_slopes: int = 1000,
    scale: Sequence[float] | float = (0.1, 1.0, 10.0),
) -> xr.DataTree:
    """Measure each of the claims.

    Parameters
    ----------
    num_steps, num_periods
        Of Reddi's first stream, and how often the second is run through: no fewer than it takes to arrive.
    learning_rate, curvature
        Of RMSprop's cycle.
    num_streams, num_slopes
        Random streams for AdaGrad, and their length.
    scale
        Factors c on X and y of the notebook's data.
    """
    num_slopes, line = whole("num_slopes", num_slopes, least=2), problems.notebook_line()
    rates, curvatures, scales = several("learning_rate", learning_rate), several("curvature", curvature), _scales(scale)
    num_steps, num_periods = whole("num_steps", num_steps, least=10000), whole("num_periods", num_periods, least=2000)
    num_streams = whole("num_streams", num_streams)
    parts = {
        "first": sweep(
            line,
            method="adam",
            sampler="full",
            num_steps=1,
            learning_rate=0.01,
            b1=[0.0, 0.9],
            b2=[0.9, 0.999],
            eps=np.geomspace(1e-8, 1e5, 14),
        ),
        "cycle": sweep(
            bowl,
            method="rmsprop",
            sampler="full",
            num_steps=2000,
            record_every=1,
            curvature=curvatures,
            learning_rate=rates,
            eps=0.0,
        ),
        "theorem": _on_a_stream(sweep, "C, -1, -1", num_steps, 1),
        "figure": _on_a_stream(sweep, "1010, -10 x 100", 101 * num_periods, 101),
        "adagrad": _adagrad(sweep, num_streams, num_slopes),
        "scaled": _scaled(sweep, line, scales),
    }
    return xr.DataTree.from_dict(parts)


def _scales(scale: Any) -> list[float]:
    """The factors, 1 among them."""
    factors = [float(factor) for factor in several("scale", scale)]
    if not all(0.0 < factor < np.inf for factor in factors):
        raise InputError(f"scale={scale} is not allowed: it is a number above 0, or a list of such.")
    return sorted({1.0, *factors})


def bowl(curvature: Any) -> Problem:
    """lambda x^2 / 2, begun at 1."""
    return problems.designed_spectrum(np.ones(1) * curvature)


def _on_a_stream(sweep: Callable[..., xr.Dataset], name: str, num_steps: int, record_every: int) -> xr.Dataset:
    """x_t of Adam and AMSGrad; the objective is the mean slope times x, which tells x."""
    slopes = STREAMS[name]
    both = [
        sweep(
            stream(slopes),
            method=method,
            sampler=in_order,
            batch_size=1,
            num_steps=num_steps,
            record_every=record_every,
            learning_rate=RATE,
            bound=1.0,
            **NUMBERS[name],
        )
        for method in (WRONG, RIGHT)
    ]
    position = xr.concat([one.objective.drop_vars("epoch") / slopes.mean() for one in both], "rule").assign_coords(rule=[WRONG, RIGHT])
    return xr.Dataset({"position": position}, attrs={"precision": both[0].attrs["precision"]})


def random_slopes(which: int, num_slopes: int) -> np.ndarray:
    """Slopes of every kind: normal, heavy-tailed, growing and rare by turns, with a mean that is not 0."""
    rng = np.random.default_rng(which)
    kinds = (
        rng.normal(size=num_slopes),
        rng.standard_cauchy(size=num_slopes),
        rng.normal(size=num_slopes) * np.arange(1, num_slopes + 1),
        rng.normal(size=num_slopes) * (rng.random(num_slopes) < 0.05),
    )
    slopes = kinds[which % 4]
    slopes[0] = 1.0
    return slopes + 0.3 * np.sign(slopes.mean()) * np.std(slopes)


def _adagrad(sweep: Callable[..., xr.Dataset], num_streams: int, num_slopes: int) -> xr.Dataset:
    """The regret after each step, and the gradients."""
    slopes = np.stack([random_slopes(which, num_slopes) for which in range(num_streams)])
    regret = []
    for one in slopes:
        ran = sweep(
            stream(one),
            method="online_adagrad",
            sampler=in_order,
            batch_size=1,
            num_steps=num_slopes,
            record_every=1,
            learning_rate=theory.adagrad_rate(2.0),
            bound=1.0,
        )
        positions = ran.objective.values[:-1] / one.mean()
        regret.append(np.cumsum(one * positions) + np.abs(np.cumsum(one)))  # the best point in hindsight is an end
    return xr.Dataset({"regret": (("stream", "step"), regret), "slope": (("stream", "step"), slopes)})


def _scaled(sweep: Callable[..., xr.Dataset], line: Problem, scales: list[float]) -> xr.Dataset:
    """J / c^2 along the run on (c X, c y), for adaptive methods and SGD, and the final parameters."""
    X, y = (np.asarray(part) for part in line.data)
    edge = 2.0 / float(np.asarray(line.smoothness))
    names, rows, ends, precision = [], [], [], ""
    for name, rate, power in (*((name, 0.1, 0) for name in INVARIANT), ("sgd", 0.3 * edge, 0), ("sgd at eta / c^2", 0.3 * edge, 2)):
        names.append(name)
        ran = [
            sweep(
                problems.least_squares(c * X, c * y, intercept=False, hessian=False),
                method=name.split()[0],
                num_steps=200,
                record_every=1,
                batch_size=16,
                sampler="without_replacement",
                learning_rate=rate / c**power,
                **INVARIANT.get(name, {}),
            )
            for c in scales
        ]
        rows.append([one.suboptimality.values / c**2 for one, c in zip(ran, scales, strict=True)])
        ends.append([one.params.values for one in ran])
        precision = ran[0].attrs["precision"]
    coordinates = {"rule": names, "scale": scales}
    variables = {"suboptimality": (("rule", "scale", "step"), rows), "params": (("rule", "scale", "parameter"), ends)}
    return xr.Dataset(variables, coordinates, {"precision": precision})


def check(results: xr.DataTree) -> list[Finding]:
    """Every exact step, cycle and limit, and every bound."""
    slack = ROUND_OFF[results["scaled"].attrs["precision"]]
    return [
        *_step_findings(results["first"].to_dataset(), results["cycle"].to_dataset(), slack),
        *_theorem_findings(results["theorem"].to_dataset()),
        *_figure_findings(results["figure"].to_dataset()),
        _adagrad_finding(results["adagrad"].to_dataset()),
        *_scale_findings(results["scaled"].to_dataset(), slack),
    ]


def _step_findings(first: xr.Dataset, cycle: xr.Dataset, slack: float) -> list[Finding]:
    line = problems.notebook_line()
    start = np.asarray(line.start)
    gradient = np.asarray(line.hessian) @ (start - np.asarray(line.minimizer))
    exact = np.stack([theory.first_adam_step(gradient, float(first.learning_rate), float(eps)) for eps in first.eps])
    taken = first.params.transpose("b1", "b2", "eps", "parameter").values - start
    last = cycle.distance.isel(step=slice(-2, None)) / (0.5 * cycle.learning_rate)
    return [
        Finding(
            claim="Adam's first step is eta |g| / (|g| + eps) for every b1, b2, eps: largest relative deviation",
            predicted=0.0,
            measured=float(np.abs(taken / exact - 1.0).max()),
            tolerance=slack,
            source="Kingma and Ba 2015, with the bias of both moments corrected",
        ),
        Finding(
            claim="RMSprop on lambda x^2 / 2 ends at +-eta / 2: largest relative deviation of |x| in the last two steps, all lambda, eta",
            predicted=0.0,
            measured=float(np.abs(last - 1.0).max()),
            tolerance=slack,
            source="where |g| does not change its mean square is g^2 and the step eta: x -> -x",
        ),
    ]


def _theorem_findings(one: xr.Dataset) -> list[Finding]:
    regret, slopes = average_regret(one), _slopes(one)
    numbers, num_steps = NUMBERS["C, -1, -1"], len(slopes)
    bound = theory.descending_regret(slopes, theory.amsgrad_rates(slopes, RATE, numbers["b2"]), 2.0) / np.arange(1, num_steps + 1)
    return [
        Finding(
            claim=f"stream 3, -1, -1: average regret of Adam (b1 = 0, b2 = 1/10) after {num_steps} steps",
            predicted=theory.stuck_regret(STREAMS["C, -1, -1"]),
            measured=float(regret.sel(rule=WRONG)[-1]),
            tolerance=0.01,
            source="2/3, of staying at x = +1 where -1 is best: Reddi et al. 2018, Thm 1",
        ),
        Finding(
            claim="stream 3, -1, -1: where Adam ends",
            predicted=1.0,
            measured=float(one.position.sel(rule=WRONG)[-1]),
            tolerance=0.01,
            source="Reddi et al. 2018, Thm 1",
        ),
        Finding(
            claim="stream 3, -1, -1: where AMSGrad ends",
            predicted=-1.0,
            measured=float(one.position.sel(rule=RIGHT)[-1]),
            tolerance=0.01,
            source="Reddi et al. 2018",
        ),
        Finding(
            claim="stream 3, -1, -1: largest average regret of AMSGrad (b1 = 0) over its bound, after any step",
            predicted=1.0,
            measured=float((regret.sel(rule=RIGHT).values / bound).max()),
            tolerance=1e-9,
            source="D^2 / (2 eta_t) + sum eta_s g_s^2 / 2, Zinkevich 2003: rates never rise",
            kind="at_most",
        ),
    ]


def _figure_findings(one: xr.Dataset) -> list[Finding]:
    late = one.position.isel(step=slice(one.sizes["step"] // 2, None)).mean("step")
    steps, source = int(one.step[-1]), "Reddi et al. 2018, their first figure's stream; -1 is best"
    slopes, numbers = STREAMS["1010, -10 x 100"], NUMBERS["1010, -10 x 100"]
    return [
        Finding(
            claim=f"stream 1010, -10 x 100: where Adam (0.9, 0.99) ends, after {steps} steps",
            predicted=1.0,
            measured=float(one.position.sel(rule=WRONG)[-1]),
            tolerance=0.01,
            source=source,
        ),
        Finding(
            claim=f"stream 1010, -10 x 100: where AMSGrad (0.9, 0.99) ends, after {steps} steps",
            predicted=-1.0,
            measured=float(one.position.sel(rule=RIGHT)[-1]),
            tolerance=0.01,
            source=source,
        ),
        Finding(
            claim=f"stream 1010, -10 x 100: how far above -1 AMSGrad is at the end of a period, after {steps} steps",
            predicted=float(theory.amsgrad_swing(slopes, numbers["b1"], numbers["b2"])[-1]) * RATE / np.sqrt(steps),
            measured=1.0 + float(one.position.sel(rule=RIGHT)[-1]),
            tolerance=len(slopes) / steps,
            source="sum of -eta m_t / sqrt(t vhat) since the last 1010 held it at -1; to a period's part of all steps",
        ),
        Finding(
            claim="stream 1010, -10 x 100: mean of x over the last half, Adam's less AMSGrad's",
            predicted=2.0,
            measured=float(late.sel(rule=WRONG) - late.sel(rule=RIGHT)),
            tolerance=0.02,
            source=source,
        ),
    ]


def _adagrad_finding(one: xr.Dataset) -> Finding:
    bounds = np.stack([theory.adagrad_regret(slopes[:, None], 2.0) for slopes in one.slope.values])
    return Finding(
        claim=f"AdaGrad: largest regret over its bound after any step, {one.sizes['stream']} streams of {one.sizes['step']} random slopes",
        predicted=1.0,
        measured=float((one.regret.values / bounds).max()),
        tolerance=1e-9,
        source="D sqrt(2 sum g^2) on a box of side D, at the rate D / sqrt 2: Duchi, Hazan and Singer 2011, Streeter and McMahan 2010",
        kind="at_most",
    )


def _scale_findings(scaled: xr.Dataset, slack: float) -> list[Finding]:
    moved = np.abs(scaled.params / scaled.params.sel(scale=1.0) - 1.0).max(("scale", "parameter"))
    scales = ", ".join(f"{float(c):g}" for c in scaled.scale)
    findings = [
        Finding(
            claim=f"{name}{', eps = 0' * (name in INVARIANT)}: largest relative change of the fit under X, y -> c X, c y, c = {scales}",
            predicted=0.0,
            measured=float(moved.sel(rule=name)),
            tolerance=slack,
            source="a step is the same for gradients c^2 g (Kingma and Ba 2015); batches of 16, 200 steps",
        )
        for name in (*INVARIANT, "sgd at eta / c^2")
    ]
    return [
        *findings,
        Finding(
            claim=f"sgd at one rate: largest relative change of the fit, c = {scales}; it is not invariant",
            predicted=0.1,
            measured=float(moved.sel(rule="sgd").fillna(np.inf)),
            tolerance=0.0,
            source="its step is c^2 times as long",
            kind="at_least",
        ),
    ]


def _slopes(one: xr.Dataset) -> np.ndarray:
    return np.resize(STREAMS["C, -1, -1"], one.sizes["step"] - 1)


def average_regret(one: xr.Dataset) -> xr.DataArray:
    """(1/t) sum_{s <= t} c_s (x_s + 1): what was lost to -1, the best point, step by step."""
    slopes = _slopes(one)
    lost = np.cumsum(slopes * (one.position.values[:, :-1] + 1.0), axis=1) / np.arange(1, len(slopes) + 1)
    return xr.DataArray(lost, {"rule": one.rule, "step": one.step.values[1:]}, ("rule", "step"))


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Adam's first step and RMSprop's cycle; where Adam and AMSGrad go and what they lose; AdaGrad's regret; changes of units."""
    drawn, panels = figures.figure(3, 2, width=7.2, height=5.0)
    _draw_first(panels[0, 0], results["first"].to_dataset())
    _draw_cycle(panels[0, 1], results["cycle"].to_dataset())
    _draw_positions(panels[0, 2], results["theorem"].to_dataset(), results["figure"].to_dataset())
    _draw_regret(panels[1, 0], results["theorem"].to_dataset())
    _draw_adagrad(panels[1, 1], results["adagrad"].to_dataset())
    _draw_scaled(panels[1, 2], results["scaled"].to_dataset())
    figures.source(
        drawn,
        "Dashed: theory. Streams of Reddi et al. (2018): losses c$_t$x on [−1, 1], rates 0.5/√t. AdaGrad: random slopes, on [−1, 1].\n"
        "First step: the notebook's line. Lower right: the same, batches of 16, X and y multiplied by c: Adam (ε = 0) at the rate 0.1, SGD "
        "at 0.3 · 2/L of c = 1;\nAdam's three curves are one.",
    )
    return {"adaptive_methods": drawn}


def _draw_first(axes: Axes, first: xr.Dataset) -> None:
    line, rate, eps = problems.notebook_line(), float(first.learning_rate), first.eps.values
    gradient = np.asarray(line.hessian) @ -np.asarray(line.minimizer)
    fine = np.geomspace(eps[0], eps[-1], 200)
    for place, (name, color) in enumerate(zip(("b", "w1"), figures.COLORS, strict=False)):
        taken = first.params.isel(parameter=place) / rate
        for one in taken.stack(all=("b1", "b2")).transpose("all", "eps").values:
            axes.plot(eps, one, color=color, marker="o", markersize=3, linestyle="none")
        axes.plot([], [], color=color, marker="o", markersize=3, linestyle="none", label=f"{name}, |g| = {abs(gradient[place]):.3g}")
        exact = [theory.first_adam_step(gradient[place], 1.0, value) for value in fine]
        axes.plot(fine, exact, color=color, linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xscale="log", xlabel="ε", ylabel="first step / η", title="Adam's first step")
    axes.legend(loc="lower left")


def _draw_cycle(axes: Axes, cycle: xr.Dataset) -> None:
    one = cycle.isel(curvature=cycle.sizes["curvature"] // 2)
    shown = one.isel(step=slice(0, 300))
    for place, color in zip(range(one.sizes["learning_rate"]), figures.COLORS, strict=False):
        rate = float(one.learning_rate[place])
        axes.plot(shown.step, shown.distance.isel(learning_rate=place), color=color, label=f"η = {rate:g}")
        axes.axhline(theory.rmsprop_cycle(rate), color=color, linestyle=(0, (3, 2)), linewidth=0.9)
    lowest = theory.rmsprop_cycle(float(one.learning_rate.min()))
    axes.set(yscale="log", ylim=(1e-3 * lowest, 5.0), xlabel=figures.LABELS["step"], ylabel="|x$_t$|", title="RMSprop ends at ±η/2")
    axes.legend(loc="lower right")


def _draw_positions(axes: Axes, *streams: xr.Dataset) -> None:
    for one, name, style in zip(streams, ("3, −1, −1", "1010, −10 × 100"), ("-", ":"), strict=True):
        period = 3 if style == "-" else 1
        for rule, color in ((WRONG, figures.COLORS[1]), (RIGHT, figures.COLORS[0])):
            kept = one.position.sel(rule=rule).isel(step=slice(period, None, period))
            kept = kept.isel(step=np.unique(np.geomspace(1, kept.size, 300).astype(int) - 1))
            axes.plot(kept.step, kept, color=color, linestyle=style)
        axes.plot([], [], color="0.3", linestyle=style, label=name)
    figures.tag(axes, 2e3, 0.8, "Adam")
    figures.tag(axes, 1e1, -0.6, "AMSGrad")
    axes.set(xscale="log", xlabel=figures.LABELS["step"], ylabel="x$_t$  (best: −1)", ylim=(-1.1, 1.75), title="Adam goes to the wrong end")
    axes.legend(loc="upper right")


def _draw_regret(axes: Axes, one: xr.Dataset) -> None:
    regret, slopes = average_regret(one), _slopes(one)
    kept = np.unique(np.geomspace(1, regret.sizes["step"], 400).astype(int) - 1)
    for rule, label, color in ((WRONG, "Adam", figures.COLORS[1]), (RIGHT, "AMSGrad", figures.COLORS[0])):
        axes.plot(kept + 1, regret.sel(rule=rule).values[kept], color=color, label=label)
    bound = theory.descending_regret(slopes, theory.amsgrad_rates(slopes, RATE, NUMBERS["C, -1, -1"]["b2"]), 2.0)
    axes.plot(kept + 1, bound[kept] / (kept + 1), color=figures.COLORS[0], linestyle=(0, (3, 2)), linewidth=0.9)
    axes.axhline(theory.stuck_regret(STREAMS["C, -1, -1"]), color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel="average regret", title="what is lost on 3, −1, −1")
    axes.legend(loc="lower left")


def _draw_adagrad(axes: Axes, adagrad: xr.Dataset) -> None:
    for place, (slopes, lost) in enumerate(zip(adagrad.slope.values, adagrad.regret.values, strict=True)):
        ratio = lost / theory.adagrad_regret(slopes[:, None], 2.0)
        axes.plot(np.arange(1, len(lost) + 1), ratio, color=figures.COLORS[place % 4], linewidth=0.8)
    for kind, color in zip(("normal", "Cauchy", "growing", "rare"), figures.COLORS, strict=False):
        axes.plot([], [], color=color, label=kind)
    axes.axhline(1.0, color="black", linestyle=(0, (3, 2)), linewidth=0.9)
    axes.set(xscale="log", ylim=(-0.1, 1.5), xlabel=figures.LABELS["step"], ylabel="regret / (D√(2Σg²))", title="AdaGrad's regret")
    axes.legend(loc="upper left", ncols=2)


def _draw_scaled(axes: Axes, scaled: xr.Dataset) -> None:
    values = scaled.suboptimality.sel(rule=["adam", "sgd"])
    bounds = figures.limits(float(values[0, 0, 0]), values.values)
    styles = ("-", (0, (4, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    for place, (scale, style) in enumerate(zip(scaled.scale.values, styles, strict=False)):
        for rule, color in (("adam", figures.COLORS[1]), ("sgd", figures.COLORS[0])):
            one = scaled.suboptimality.sel(rule=rule).isel(scale=place).values
            figures.trajectory(axes, np.arange(len(one)), one, bounds=bounds, color=color, linestyle=style, linewidth=1.2)
        axes.plot([], [], color="0.3", linestyle=style, label=f"c = {scale:g}")
    figures.tag(axes, 150, 6e-3, "Adam")
    figures.tag(axes, 150, 3e2, "SGD")
    axes.set(yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel="(J − J*) / c²", title="other units: X, y → cX, cy")
    axes.legend(loc="upper right")
