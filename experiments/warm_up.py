"""Warm-up buys a higher rate by lowering the sharpness, where there is sharpness to be lowered.

Claim
    What rates are stable at a point is set by the sharpness there. A linear warm-up lowers it as it goes, to 2 over the rate reached, and
    so allows base rates twice as high; not from small initial weights, where the sharpness grows meanwhile and allows less.
Theory
    Of two runs that start apart by little along the top eigenvector, the distance is multiplied by |1 - eta lambda_max| in a step: it
    grows iff eta > 2 / lambda_max(theta_t). For f = (u'v - y)^2 / 2 the residual and lambda = ||u||^2 + ||v||^2 follow a recursion of
    their own; above 2 / lambda it throws itself to where lambda is lower, and above 4 / lambda it escapes (Lewkowycz et al. 2020). That
    networks stay where lambda_max is about 2 / eta: Cohen et al. 2021; that warm-up works that way: Gilmer et al. 2021, Kalra and
    Barkeshli 2024.
Sweep
    Two factors, and tanh networks with one hidden layer on handwritten digits (squared error, several seeds): initial scale x plan (100
    small steps first, or a linear warm-up of so many steps) x base rate.
Expect
    Walls that a warm-up moves to the right. Above, edges on the exact recursion, parting where u'v starts above y. Below, a sharpness that
    follows 2 / eta, and gains above 1 but for small initial weights; small steps alone (dashed) change little.
Command
    gdjax experiment=warm_up
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import data, figures, problems, sharpness
from gdjax.methods import schedules
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import catapult

WIDTH = 4
"""Entries of each factor; the recursion is the same for any."""

COSINE = 0.9
"""Between the factors at the start: u'v is COSINE scale^2, above the target 1 from scale 1.05 on."""

SCALES = np.geomspace(0.65, 6.0, 12)
FACTOR_RATES = np.geomspace(0.8, 64.0, 222)  # in units of 1 / lambda at the start; 2 % apart
FACTOR_STEPS = 500
NUM_SMALL = 100

FACTOR_LENGTHS = (1, 3, 10, 30)
"""Of warm-ups on the two factors: in longer ones the residual falls to round-off before it is thrown, and no recursion tells when."""

LENGTHS = (1, 10, 30, 100)
"""Of those on the network, of which the longest is as long as there are small steps."""

SHOWN = {"scale": 3.0, "learning_rate": 6.0}
"""A base rate above the edge at the start, and below those after a warm-up, whose runs are kept whole for the figure."""

SHOWN_STEPS = 160

SMALL_FACTOR_RATE = 0.1
"""Of the small steps, in units of 1 / lambda at the start."""

SMALL_RATE = 0.25
"""The same of the network, in units of 2 / lambda_max at the start."""

RELATIVE = (0.8, 32.0)
"""Base rates of the network, in units of 2 / lambda_max at the start."""

LOOKED_AHEAD = 10
"""Steps over which the loss must not rise."""

APART = 1e-5
"""How far neighbours start from the point between them; the quadratic term cancels, and round-off is 1e-16 / APART."""


def two_factor(scale: Any) -> Problem:
    """f = (u'v - 1)^2 / (2 lambda_0) with ||u|| = ||v|| = scale: rates are in units of 1 / lambda_0, lambda_0 = 2 scale^2."""
    u, across = jnp.ones(WIDTH) / np.sqrt(WIDTH), jnp.asarray([1.0, -1.0] * (WIDTH // 2)) / np.sqrt(WIDTH)
    v = COSINE * u + np.sqrt(1.0 - COSINE**2) * across
    unit = 0.5 / jnp.square(scale)
    return Problem(
        evaluate=_two_factor, name="two_factor", constants={"unit": unit}, start=scale * jnp.stack([u, v]), minimum=jnp.zeros(())
    )


def _two_factor(lanes: Float[Array, "2 width lanes"], constants: dict[str, Any], examples: Any, weights: Any) -> tuple[Array, Array]:
    residual = jnp.sum(lanes[0] * lanes[1], axis=0) - 1.0
    return 0.5 * constants["unit"] * jnp.square(residual), (constants["unit"] * residual)[None, None] * lanes[::-1]


def warmed(learning_rate: float, small_rate: float, num_small: float, length: float) -> optax.GradientTransformation:
    """Gradient descent at `small_rate` for `num_small` steps, then with a linear warm-up of `length` steps to `learning_rate`."""

    def rate(step: Any) -> Any:
        return jnp.where(step < num_small, small_rate, learning_rate * schedules.linear_warmup(step - num_small, length=length))

    return optax.sgd(rate)


def plans(lengths: Sequence[int], num_small: int) -> dict[str, xr.DataArray]:
    """Linear warm-ups of these lengths, the first of 1 step, which is none; and last, small steps without one."""
    table = {"length": [*lengths, 1], "num_small": [0] * len(lengths) + [num_small]}
    return {name: xr.DataArray(column, dims="plan") for name, column in table.items()}


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    weight_scale: Sequence[float] | float = (0.3, 1.0, 3.0),
    num_seeds: int = 3,
    num_steps: int = 200,
    num_small: int = 100,
    num_rates: int = 25,
    num_examples: int = 100,
    num_hidden: int = 16,
) -> xr.DataTree:
    """Sweep the two factors, then networks of each initial scale and seed.

    Parameters
    ----------
    weight_scale
        Of the network's initial weights, in ascending order.
    num_steps
        Of the network's runs, more than `num_small`.
    num_small
        Small steps before the edge is measured once more, 10 or more; the longest warm-up is as long.
    """
    scales = several("weight_scale", weight_scale)
    small, steps, seeds = whole("num_small", num_small, least=10), whole("num_steps", num_steps), range(whole("num_seeds", num_seeds))
    if steps <= small:
        raise InputError(f"num_steps={steps} is not allowed: it is more than num_small={small}, the length of the longest warm-up.")
    rates = np.geomspace(*RELATIVE, whole("num_rates", num_rates, least=4))
    pixels = digits(whole("num_examples", num_examples, least=20))

    def network(scale: float, seed: int) -> xr.Dataset:
        options: Any = {"hidden": num_hidden, "loss": "squared_error", "weight_scale": scale, "seed": seed}
        return _of_network(sweep, problems.mlp_classification(pixels.features, pixels.target, **options), rates, small, steps)

    nets = xr.concat([xr.concat([network(scale, seed) for seed in seeds], "seed") for scale in scales], "scale")
    about = {"num_examples": len(pixels.target), "num_hidden": num_hidden, "num_steps": steps, "num_small": small}
    how: Any = {"method": warmed, "sampler": "full", "small_rate": SMALL_FACTOR_RATE} | plans(FACTOR_LENGTHS, NUM_SMALL)
    factors = sweep(two_factor, num_steps=FACTOR_STEPS, record_every=FACTOR_STEPS, **how, scale=SCALES, learning_rate=FACTOR_RATES)
    shown = sweep(two_factor, num_steps=SHOWN_STEPS, record_every=1, **how, **SHOWN)
    nets = nets.assign_coords(scale=scales, seed=seeds).assign_attrs(about)
    kept = {"factors": factors, "shown": shown}
    return xr.DataTree.from_dict(
        {name: some[["objective", "diverged_at"]].drop_vars("epoch") for name, some in kept.items()} | {"network": nets}
    )


def digits(num_examples: int) -> data.Table:
    """The first rows, their pixels standardized."""
    table, rows = data.digits(), slice(num_examples)
    return data.standardize(dataclasses.replace(table, features=table.features[rows], target=table.target[rows]))


def _of_network(sweep: Callable[..., xr.Dataset], problem: Problem, rates: np.ndarray, num_small: int, num_steps: int) -> xr.Dataset:
    """The sharpness along small steps and the edges there; what diverges by plan; the sharpness at the end of the longest warm-up."""
    unit = 2.0 / float(sharpness.lambda_max(problem, problem.start))
    descend: Any = functools.partial(sweep, problem, method=warmed, sampler="full", small_rate=SMALL_RATE * unit)
    times = np.unique(np.linspace(0, num_small, 21).round().astype(int))
    still, climbing = np.zeros_like(times), np.full(len(rates), num_small)  # a rate of 0 stays where small steps have led
    columns = {
        "num_small": [*times, *np.zeros_like(climbing)],
        "length": [*still + 1, *climbing],
        "learning_rate": [*still, *unit * rates],
    }
    runs = {name: xr.DataArray(column, dims="run") for name, column in columns.items()}
    ended = descend(num_steps=num_small, record_every=num_small, **runs)
    sharp, vectors = _sharpness(problem, ended.params.values)
    marked = np.searchsorted(times, [0, 0.1 * num_small, 0.3 * num_small, num_small])
    edges = [_edges(sweep, problem, ended.params.values[at], vectors[at], 2.0 / sharp[at] * rates) for at in marked]
    lengths = sorted({*np.minimum(LENGTHS[:-1], num_small).tolist(), num_small})
    trained = descend(num_steps=num_steps, record_every=num_steps, **plans(lengths, num_small), learning_rate=unit * rates)
    follows = np.where(ended.diverged_at < 0, 0.5 * ended.learning_rate * sharp, np.nan)[len(times) :]
    measured = {
        "sharpness": ("small_step", sharp[: len(times)]),
        "neighbours": ("mark", [edge[0] for edge in edges]),
        "no_rise": ("mark", [edge[1] for edge in edges]),
        "follows": ("learning_rate", follows),
    }
    coordinates = {"small_step": times, "mark": times[marked], "learning_rate": rates}
    return trained[["objective", "diverged_at"]].drop_vars(["epoch", "small_rate"]).assign_coords(coordinates).assign(measured)


def _sharpness(problem: Problem, points: Float[np.ndarray, "points p"]) -> tuple[np.ndarray, np.ndarray]:
    """lambda_max of the Hessian and its eigenvector, at each of the points."""
    unravel = ravel_pytree(problem.start)[1]

    def at(flat: Array) -> tuple[Array, Array]:
        value, vector = sharpness.top_eigenpair(problem, unravel(flat))
        return value, ravel_pytree(vector)[0]

    with precision("float64"):
        values, vectors = jax.vmap(at)(jnp.asarray(points))
    return np.asarray(values), np.asarray(vectors)


def _edges(
    sweep: Callable[..., xr.Dataset], problem: Problem, point: np.ndarray, vector: np.ndarray, rates: np.ndarray
) -> tuple[float, float]:
    """The rate above which neighbours along the vector part, and the largest below which the loss rises at none of the next steps."""
    with precision("float64"):
        unravel = ravel_pytree(problem.start)[1]
        ahead, behind, here = (unravel(jnp.asarray(point + apart * vector)) for apart in (APART, -APART, 0.0))
    descend: Any = functools.partial(sweep, problem, sampler="full", record_every=1, learning_rate=rates)
    parted = descend(start=ahead, num_steps=1).params.values - descend(start=behind, num_steps=1).params.values
    path = descend(start=here, num_steps=LOOKED_AHEAD).objective.values
    falls = np.all(path <= path[:, :1], axis=1)
    return float(np.interp(1.0, -parted @ vector / (2.0 * APART), rates)), float(_largest(falls, rates))


def _largest(fine: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """The largest rate up to which all are fine (rates last), and NaN where the first isn't."""
    count = np.where(fine.all(axis=-1), len(rates), np.argmin(fine, axis=-1))
    return np.append(rates, np.nan)[count - 1]


def check(results: xr.DataTree) -> list[Finding]:
    """Edges of the two factors against their recursion; the network's against its sharpness; what a warm-up buys against both."""
    factors, network = (results[name].to_dataset() for name in ("factors", "network"))
    return [*_factor_findings(factors), *_edge_findings(network), *_warm_up_findings(network)]


def largest_rate(measured: xr.Dataset) -> xr.DataArray:
    """The largest base rate up to which no run diverges."""
    rates = measured.learning_rate.values
    return xr.apply_ufunc(lambda fine: _largest(fine, rates), measured.diverged_at < 0, input_core_dims=[["learning_rate"]])


def gains(measured: xr.Dataset) -> xr.DataArray:
    """The largest base rate that doesn't diverge, over the one without warm-up."""
    largest = largest_rate(measured)
    return largest / largest.isel(plan=0, drop=True)


def exact(factors: xr.Dataset) -> xr.Dataset:
    """What diverges by the recursion of two numbers."""
    start = _factors_start(factors.scale.values[:, None])
    rates = _factor_rates(factors, factors.learning_rate.values, FACTOR_STEPS)
    end = catapult.descent(start, rates / start.trace)
    bounded = np.abs(end.residual) <= np.sqrt(factors.attrs["divergence_bound"]) * np.abs(start.residual)
    return factors[["diverged_at"]].copy(data={"diverged_at": np.where(bounded, -1, FACTOR_STEPS)})


def _factor_rates(factors: xr.Dataset, base: np.ndarray, num_steps: int) -> Float[np.ndarray, "steps plans 1 rates"]:
    """In units of 1 / lambda_0, step by step."""
    num_small, length = (factors[name].values[:, None, None] for name in ("num_small", "length"))
    steps = np.arange(num_steps)[:, None, None, None]
    return np.where(steps < num_small, SMALL_FACTOR_RATE, np.minimum(1.0, (steps - num_small + 1.0) / length) * base)


def _factors_start(scale: Any) -> catapult.State:
    return catapult.State(COSINE * scale**2 - 1.0, 2.0 * scale**2)


def _after_small_steps() -> catapult.State:
    """Where the two factors are then, by scale."""
    start = _factors_start(SCALES)
    return catapult.descent(start, [SMALL_FACTOR_RATE / start.trace] * NUM_SMALL)


def _factor_findings(factors: xr.Dataset) -> list[Finding]:
    spacing = float(FACTOR_RATES[1] / FACTOR_RATES[0] - 1.0)
    largest, state = largest_rate(factors), _after_small_steps()
    apart = np.abs(largest / largest_rate(exact(factors)) - 1.0)
    settled = np.abs(state.residual) < 1e-2 * state.trace
    after = (largest.isel(plan=-1).values * state.trace / (2.0 * SCALES**2))[settled]
    return [
        Finding(
            claim=f"two factors, {apart.size} edges: furthest that a largest rate is from the exact one (tolerance: a rate of the grid)",
            predicted=0.0,
            measured=float(apart.max()),
            tolerance=1.001 * spacing,
            source="r+ = r (1 - η λ + η² r (r + y)), λ+ = λ + η r (η r λ - 4 (r + y)), Lewkowycz et al. 2020",
        ),
        Finding(
            claim=f"two factors after {NUM_SMALL} small steps: largest rate times λ there, the furthest of {after.size} scales",
            predicted=catapult.CATAPULT,
            measured=float(after[np.argmax(np.abs(after - catapult.CATAPULT))]),
            tolerance=spacing + 1e-2,
            source="near r = 0 λ falls in a step iff η λ < 4, Lewkowycz et al. 2020",
        ),
    ]


def _edge_findings(network: xr.Dataset) -> list[Finding]:
    sharp = network.sharpness.sel(small_step=network.mark)
    parting, no_rise = network.neighbours * sharp / 2.0, network.no_rise * sharp / 2.0
    allowed, length = softened(network).isel(small_step=-1), network.attrs["num_small"]
    moved = network.neighbours.isel(mark=-1, drop=True) / network.neighbours.isel(mark=0, drop=True)
    ratios = [
        Finding(
            claim=f"network, weights x {scale:g}: rate above which neighbours part, after {length} small steps over at the start",
            predicted=float(_mean(allowed.sel(scale=scale))),
            measured=float(_mean(moved.sel(scale=scale))),
            tolerance=1e-6,
            source="λ_max(θ_0) / λ_max(θ_t)",
        )
        for scale in network.scale.values
    ]
    return [
        Finding(
            claim=f"network, {parting.size} points: rate above which neighbours part along the top eigenvector, times λ_max / 2, furthest",
            predicted=1.0,
            measured=float(parting.values.flat[np.argmax(np.abs(parting.values - 1.0))]),
            tolerance=1e-6,
            source="their distance is multiplied by |1 - η λ_max(θ_t)| in a step; λ_max by Lanczos' method on Hessian-vector products",
        ),
        Finding(
            claim=f"network: largest rate at which none of {LOOKED_AHEAD} steps takes the loss above its start, times λ_max / 2, least",
            predicted=1.0,
            measured=float(no_rise.min()),
            tolerance=0.0,
            source="f falls in a step of η < 2 / L, L the largest λ_max on its way (Nesterov 2004, Lemma 1.2.3); L is not measured here",
            kind="at_least",
        ),
        *ratios,
    ]


def _warm_up_findings(network: xr.Dataset) -> list[Finding]:
    """What the longest warm-up buys, beside what as many small steps change: geometric means over seeds."""
    gained, allowed, alone = gains(network).isel(plan=-2), softened(network).isel(small_step=-1), largest_rate(network).isel(plan=0)
    spacing, findings = float(network.learning_rate[1] / network.learning_rate[0]) - 1.0, _followed(network)
    for scale in network.scale.values:
        gain, fall, first = (float(_mean(part.sel(scale=scale))) for part in (gained, allowed, alone))
        name = f"network, weights x {scale:g}: largest base rate with {network.attrs['num_small']} steps of linear warm-up, over without"
        findings.append(
            Finding(
                claim=f"{name}; at least what small steps do to 2 / λ_max",
                predicted=fall,
                measured=gain,
                tolerance=spacing,
                source="λ_max(θ_0) / λ_max(θ_t); Gilmer et al. 2021, Kalra and Barkeshli 2024 (observed, no theorem)",
                kind="at_least",
            )
        )
        if max(fall, 0.5 * first) < 1.0:
            findings.append(
                Finding(
                    claim=f"{name}; nothing, where the sharpness grows and 4 / λ_max(θ_0) diverges in any case",
                    predicted=1.0,
                    measured=gain,
                    tolerance=spacing,
                    source="progressive sharpening, Cohen et al. 2021 (observed, no theorem)",
                    kind="at_most",
                )
            )
    return findings


def _followed(network: xr.Dataset) -> list[Finding]:
    """The sharpness where a warm-up ends that has been above the edge at the start for half of its steps, and has not diverged."""
    among = (network.learning_rate >= 2.0) & (network.learning_rate < 0.8 * largest_rate(network).isel(plan=-2))
    follows = network.follows.where(among).values
    if np.isfinite(follows).sum() < 3:
        return []
    return [
        Finding(
            claim=f"network: η λ_max / 2 at the end of a linear warm-up to η > 4 / λ_max(θ_0), median of {np.isfinite(follows).sum()}",
            predicted=0.5 * catapult.CATAPULT,
            measured=float(np.nanmedian(follows)),
            tolerance=0.0,
            source="above 2 / λ the sharpness is thrown lower, above 4 / λ runs escape, Lewkowycz et al. 2020; 1 or a bit more, Cohen et "
            "al. 2021 (observed, no theorem)",
            kind="at_most",
        )
    ]


def softened(network: xr.Dataset) -> xr.DataArray:
    """2 / lambda_max along small steps, over what it is at the start."""
    return network.sharpness.isel(small_step=0) / network.sharpness


def _mean(values: Any) -> Any:
    return np.exp(np.log(values).mean(dim="seed"))


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Above the two factors, below the network: runs or the wall, the edges or the sharpness, and what a warm-up buys."""
    factors, network = (results[name].to_dataset() for name in ("factors", "network"))
    drawn, panels = figures.figure(3, 2, width=7.2, height=4.9)
    net = network.isel(scale=-1, seed=0)
    _draw_shown(panels[0, 0], results["shown"].to_dataset())
    _draw_factor_edges(panels[0, 1], factors)
    _draw_factor_gains(panels[0, 2], factors)
    _draw_wall(panels[1, 0], net)
    _draw_followed(panels[1, 1], network)
    _draw_gains(panels[1, 2], network)
    figures.source(
        drawn,
        f"Above: f = (uᵀv − 1)²/2, ‖u‖ = ‖v‖ = s, λ₀ = 2s², cos(u, v) = {COSINE:g} (left: s = {SHOWN['scale']:g}, "
        f"η = {SHOWN['learning_rate']:g}/λ₀); dashed: exact recursion. Below: tanh network 64–{network.attrs['num_hidden']}–10, squared "
        f"error, on {network.attrs['num_examples']} of\nscikit-learn's digits, initial weights of std. dev. w/√inputs, "
        f"{network.sizes['seed']} seeds (left: one, w = {float(net.scale):g}; right: band), {network.attrs['num_steps']} steps, "
        f"{network.attrs['num_small']} of warm-up or small; dashed right: λ$_{{max}}$(θ₀)/λ$_{{max}}$(θ$_t$)\nafter t small steps. "
        "Triangles: diverged (above 10⁶ times the start).",
    )
    return {"warm_up": drawn}


PLANS = {0: "no warm-up", -1: "small steps first", -2: "linear warm-up"}
"""Those that are drawn, the longest warm-up of all."""

SHOWN_NAMES = {0: (10, 1e4), -1: (45, 2e-1), -2: (122, 1e-9)}


def _draw_shown(axes: Axes, shown: xr.Dataset) -> None:
    """The loss along runs at one base rate."""
    start, steps = _factors_start(SHOWN["scale"]), shown.step.values
    rates = _factor_rates(shown, np.asarray(SHOWN["learning_rate"]), SHOWN_STEPS)[:, :, 0, 0] / start.trace
    bounds = (1e-16, 1e6)
    for (plan, name), color in zip(PLANS.items(), figures.COLORS, strict=False):
        values = (shown.objective / shown.objective.isel(step=0)).isel(plan=plan).values
        figures.trajectory(axes, steps, values, bounds=bounds, color=color, linewidth=1.8)
        axes.annotate(name, SHOWN_NAMES[plan], color=color, fontsize=7)
        residuals = np.array([state.residual for state in itertools.accumulate(rates[:, plan], catapult.after_step, initial=start)])
        with np.errstate(over="ignore"):
            figures.dashed(axes, steps, np.square(residuals / residuals[0]), bounds=bounds)
    axes.set(
        yscale="log",
        ylim=bounds,
        xlim=(-8, 205),
        xlabel=figures.LABELS["step"],
        ylabel="loss / at the start",
        title="two factors at one base rate",
    )


def _draw_factor_edges(axes: Axes, factors: xr.Dataset) -> None:
    scale = factors.scale.values
    measured, told = (largest_rate(some) / (2.0 * factors.scale**2) for some in (factors, exact(factors)))
    for plan, color in zip((0, -1), figures.COLORS, strict=False):
        axes.plot(scale, measured.isel(plan=plan), "o", color=color, markersize=3.5, label=PLANS[plan])
        figures.dashed(axes, scale, told.isel(plan=plan).values, bounds=(1e-6, 1e6), color=color)
    figures.edge_line(axes, COSINE**-0.5, "uᵀv = y", height=0.5, color="0.4", side="right")
    axes.set(xscale="log", yscale="log", xlabel="initial scale s", ylabel="largest base rate η", title="the edge moves with λ")
    axes.set_xticks([1, 2, 4], ["1", "2", "4"])
    axes.set_xticks([], minor=True)
    axes.legend(loc="lower left")


def _draw_factor_gains(axes: Axes, factors: xr.Dataset) -> None:
    lengths, bought = factors.length.values[:-1], (gains(factors), gains(exact(factors)))
    for scale, color in zip((0.7, 1.5, 3.0), figures.COLORS[3:], strict=False):
        near: Any = {"scale": scale, "method": "nearest"}
        measured, told = (some.sel(**near).values[..., :-1] for some in bought)
        axes.plot(lengths, measured, "o", color=color, markersize=3.5, label=f"s = {float(factors.scale.sel(**near)):.2g}")
        figures.dashed(axes, lengths, told, bounds=(1e-3, 1e3), color=color)
    _label_gains(axes, "two factors")
    axes.set_ylim(0.8, 3.6)
    axes.legend(loc="upper left")


def _draw_wall(axes: Axes, net: xr.Dataset) -> None:
    """The loss in the end against the base rate."""
    ratio = net.objective.isel(step=-1) / net.objective.isel(step=0)
    top, rates = 4.0, net.learning_rate.values
    for number, ((plan, name), color) in enumerate(zip(PLANS.items(), figures.COLORS, strict=False)):
        stays = (net.diverged_at.isel(plan=plan) < 0).values
        axes.plot(rates, np.where(stays, ratio.isel(plan=plan), np.nan), color=color, label=name, linewidth=1.4)
        axes.plot(rates[~stays], np.full((~stays).sum(), top / 1.6**number), "^", color=color, markersize=3)
    axes.axhline(1.0, color="0.6", linewidth=0.6)
    axes.set(xscale="log", yscale="log", ylim=(None, 2.0 * top), ylabel="loss, end / start", title="network")
    axes.set_xlabel("base rate η / (2/λ$_{max}$(θ$_0$))")
    axes.legend(loc="center left")


def _draw_followed(axes: Axes, network: xr.Dataset) -> None:
    """2 / lambda_max at the end of the longest warm-up, in units of that at the start."""
    fine = network.learning_rate <= largest_rate(network).isel(plan=-2)
    reached = (network.learning_rate / network.follows).where(fine)
    for scale, color in zip(network.scale.values, figures.COLORS[3:], strict=False):
        axes.plot(network.learning_rate, reached.sel(scale=scale).transpose("learning_rate", ...), "o", color=color, markersize=2.5)
        axes.plot([], [], "o", color=color, markersize=2.5, label=f"w = {scale:g}")
    ends = np.asarray(RELATIVE)
    figures.dashed(axes, ends, ends, bounds=(1e-3, 1e3), label="2/λ$_{max}$ = η")
    axes.set(xscale="log", yscale="log", xlabel="base rate η / (2/λ$_{max}$(θ$_0$))", ylabel="2/λ$_{max}$ after warm-up / at θ$_0$")
    axes.set_title(f"sharpness after {network.attrs['num_small']} steps of warm-up")
    axes.legend(loc="upper left")


def _draw_gains(axes: Axes, network: xr.Dataset) -> None:
    bought, along = gains(network), softened(network).isel(small_step=slice(1, None))
    gained, small_steps = bought.isel(plan=slice(0, -1)), bought.isel(plan=-1)
    for scale, color in zip(network.scale.values, figures.COLORS[3:], strict=False):
        one, later = gained.sel(scale=scale), _mean(along.sel(scale=scale))
        axes.fill_between(one.length, one.min("seed"), one.max("seed"), color=color, alpha=0.18, linewidth=0)
        axes.plot(one.length, _mean(one), "o-", color=color, markersize=3.5)
        figures.dashed(axes, later.small_step.values, later.values, bounds=(1e-3, 1e3), color=color)
        axes.plot(one.length[-1] * 1.15, _mean(small_steps.sel(scale=scale)), "x", color=color, markersize=4)
    axes.plot([], [], "x", color="0.4", markersize=4, label=PLANS[-1])
    _label_gains(axes, "network")
    axes.legend(loc="upper left")


def _label_gains(axes: Axes, model: str) -> None:
    axes.axhline(1.0, color="0.6", linewidth=0.6)
    axes.set(xscale="log", xlabel="steps of linear warm-up", ylabel="largest base rate / without", title=f"{model}: what it buys")
