"""Optimizers compared fairly: every one over its own rates, tuned on some seeds, reported on others.

Claim
    A comparison of optimizers is one of their tuned rates. A best rate's result on new seeds is no better than where it was chosen; how
    many rates are nearly as good tells what tuning a method needs; and what must be equal is: without momentum all are SGD, and Adam with
    eps = 0 does not notice the units of the data, which SGD's rate is measured in.
Theory
    The methods of Ruder (2016), which the page cites, and some since. SGD on least squares follows the exact recursion of its moments, its
    nearly best rates too. No order of the others is promised by any theorem: it is this problem's.
Sweep
    Methods x rates x seeds, paired: all rates of one seed see the same batches, in every method. Rates are in units of 2 / L where a step
    grows with the gradient, of the largest |theta*_j| where it does not, and of the method's own where that finds its length itself.
Expect
    The held-out results in their order; the ranges of rates within a factor 2 of the best; results against the rate.
Command
    gdjax experiment=optimizers
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, methods, problems, theory
from gdjax.records import Finding, InputError, Problem, unknown_name, whole

LOWEST, HIGHEST = 1e-4, 10.0
"""The grid's ends, in a method's unit of the rate."""

FACTOR = 2.0
"""A rate is nearly as good as the best where its result is at most this multiple of the best one's."""

MANY_ERRORS, SAFE = 4.0, 0.6
"""Standard errors for a mean; and rates in units of the mean-square limit up to which means are not made by a few runs."""

SCALE = 10.0
"""The change of units, X and y alike."""

GRADIENT, SIZE, OWN = "2/L", "|θ*|", "1"


class Optimizer(NamedTuple):
    """A method by name, the unit of its rate and multiples of it, and numbers that are not its defaults."""

    label: str
    method: str
    unit: str
    times: float = 1.0
    numbers: dict[str, Any] = {}  # noqa: RUF012  (a default of a tuple, which nothing writes to)


OPTIMIZERS = {
    "sgd": Optimizer("SGD", "sgd", GRADIENT),
    "heavy_ball": Optimizer("momentum", "heavy_ball", GRADIENT, numbers={"momentum": [0.0, 0.9]}),
    "nesterov": Optimizer("Nesterov", "nesterov", GRADIENT, numbers={"momentum": [0.0, 0.9]}),
    "adagrad": Optimizer("Adagrad", "adagrad", SIZE),
    "adadelta": Optimizer("Adadelta", "adadelta", SIZE, 100.0),
    "rmsprop": Optimizer("RMSprop", "rmsprop", SIZE),
    "adam": Optimizer("Adam", "adam", SIZE),
    "adamax": Optimizer("AdaMax", "adamax", SIZE),
    "nadam": Optimizer("Nadam", "adam", SIZE, numbers={"nesterov": True}),
    "amsgrad": Optimizer("AMSGrad", "amsgrad", SIZE),
    "adamw": Optimizer("AdamW", "adamw", SIZE),
    "adabelief": Optimizer("AdaBelief", "adabelief", SIZE),
    "radam": Optimizer("RAdam", "radam", SIZE),
    "lion": Optimizer("Lion", "lion", SIZE),
    "schedule_free_sgd": Optimizer("schedule-free SGD", "schedule_free_sgd", GRADIENT),
    "schedule_free_adamw": Optimizer("schedule-free AdamW", "schedule_free_adamw", SIZE),
    "prodigy": Optimizer("Prodigy", "prodigy", OWN, 10.0),
    "dadapt_adamw": Optimizer("D-Adaptation", "dadapt_adamw", OWN, 10.0),
    "polyak_step": Optimizer("Polyak's step", "polyak_step", OWN),
}
"""Ruder's family, and since."""

DRAWN = ("sgd", "heavy_ball", "adagrad", "rmsprop", "adam", "lion")
"""Those whose results are drawn against the rate."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    optimizer: Sequence[str] | str = tuple(OPTIMIZERS),
    num_steps: int = 400,
    batch_size: int | None = None,
    num_rates: int = 31,
    num_seeds: int = 32,
    sampler: str = "without_replacement",
) -> xr.DataTree:
    """Run every method over its rates on the same batches, a program each.

    Parameters
    ----------
    optimizer
        Which of OPTIMIZERS, or any other method's name.
    batch_size
        By default 16, or n / 2 where that is less.
    num_seeds
        For tuning; as many again for what is reported.
    """
    if problem.minimizer is None or problem.minimum is None or problem.smoothness is None or problem.num_examples < 2:
        raise InputError(f"experiment optimizers is about sums over examples whose minimizer and smoothness are known, not {problem.name}.")
    num_steps, names = whole("num_steps", num_steps, least=4), _chosen(optimizer)
    size = max(1, min(16, problem.num_examples // 2)) if batch_size is None else whole("batch_size", batch_size)
    relative = np.geomspace(LOWEST, HIGHEST, whole("num_rates", num_rates, least=3))
    of_all: Any = {"sampler": sampler, "num_steps": num_steps, "batch_size": size}
    parts = {}
    for name in names:
        one = known(name)
        ran = sweep(
            problem,
            method=one.method,
            record_every=max(1, num_steps // 20),
            seed=range(2 * whole("num_seeds", num_seeds, least=2)),
            **one.numbers,
            **({"minimum": float(np.asarray(problem.minimum))} if one.method == "polyak_step" else {}),
            **{_rate(one.method): one.times * unit(one.unit, problem) * relative},
            **of_all,
        )
        parts[f"raced/{name}"] = ran[["suboptimality", "diverged_at"]].rename(
            {_rate(one.method): "learning_rate"} if _rate(one.method) != "learning_rate" else {}
        )
    if theory.is_least_squares(problem):
        parts["scaled"] = _scaled(problem, sweep, of_all)
    return xr.DataTree.from_dict(parts)


def _chosen(optimizer: Sequence[str] | str) -> list[str]:
    names = [optimizer] if isinstance(optimizer, str) else list(optimizer)
    if not names:
        raise InputError(f"optimizer=[] is not allowed: it is one or more of {', '.join(OPTIMIZERS)}, or any other method's name.")
    for name in names:
        if name not in OPTIMIZERS and name not in methods.available():
            raise unknown_name("optimizer", str(name), [*OPTIMIZERS, *methods.available()])
    return names


def known(name: str) -> Optimizer:
    """What is known of a method, or for another one that its steps have the size of its rate."""
    return OPTIMIZERS.get(name, Optimizer(name, name, SIZE))


def _rate(method: str) -> str:
    return "max_learning_rate" if method == "polyak_sgd" else "learning_rate"


def unit(name: str, problem: Problem) -> float:
    """The unit of a rate on the problem."""
    distance = float(np.max(np.abs(np.asarray(problem.minimizer) - np.asarray(problem.start))))
    return {GRADIENT: theory.stability_edge(problem.smoothness), SIZE: distance or 1.0, OWN: 1.0}[name]


def _scaled(problem: Problem, sweep: Callable[..., xr.Dataset], of_all: dict[str, Any]) -> xr.Dataset:
    """The final parameters of Adam and SGD at one rate each, on (X, y) and on (c X, c y)."""
    X, y = (np.asarray(part) for part in problem.data)
    rules: dict[str, dict[str, float]] = {
        "adam": {"learning_rate": 0.03 * unit(SIZE, problem), "eps": 1e-30},  # nothing, but for a column of zeros
        "sgd": {"learning_rate": 0.3 * unit(GRADIENT, problem)},
    }
    ends = [
        [
            sweep(problems.least_squares(c * X, c * y, intercept=False), method=rule, record_every=of_all["num_steps"], **numbers, **of_all)
            for c in (1.0, SCALE)
        ]
        for rule, numbers in rules.items()
    ]
    params = [[one.params.values for one in pair] for pair in ends]
    return xr.Dataset(
        {"params": (("rule", "scale", "parameter"), params)},
        {"rule": list(rules), "scale": [1.0, SCALE]},
        {"precision": ends[0][0].attrs["precision"]},
    )


class Result(NamedTuple):
    """Of one method: the mean J - J* of the last quarter of the run, by seed and rate, and its best rate on the first half of the seeds."""

    tuning: xr.DataArray
    reported: xr.DataArray
    best: int

    @property
    def rates(self) -> np.ndarray:
        """All of them."""
        return self.tuning.learning_rate.values

    def nearly(self) -> np.ndarray:
        """Rates whose mean over all seeds is at most `FACTOR` times the best one's, without a gap around the best."""
        return _around(np.mean([self.tuning.mean("seed").values, self.reported.mean("seed").values], axis=0), self.best)


def _around(means: np.ndarray, best: int) -> np.ndarray:
    """The places next to `best` whose mean is at most FACTOR times the mean there."""
    good = means <= FACTOR * means[best]
    low, high = best, best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(means) - 1 and good[high + 1]:
        high += 1
    return np.arange(low, high + 1)


def result(one: xr.Dataset) -> Result:
    """Tune on the first half of the seeds and report the second; a run that diverged is infinitely bad."""
    if "momentum" in one.dims:
        one = one.isel(momentum=-1)
    values = analysis.mean_over(one.suboptimality.isel(step=slice(-(one.sizes["step"] // 4) - 1, None)), "step")
    values = values.where(np.isfinite(values) & (one.diverged_at < 0), np.inf)
    half = values.sizes["seed"] // 2
    tuning, reported = values.isel(seed=slice(0, half)), values.isel(seed=slice(half, None))
    return Result(tuning, reported, int(tuning.mean("seed").argmin("learning_rate")))


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """What must hold in any comparison, and what is exact in it."""
    raced = {name: part.to_dataset() for name, part in results["raced"].children.items()}
    findings = [_held_out_finding({name: result(one) for name, one in raced.items()})]
    if "sgd" in raced:
        findings += [_without_momentum(name, raced[name], raced["sgd"], problem) for name in ("heavy_ball", "nesterov") if name in raced]
        if theory.has_moments(problem, raced["sgd"].attrs["sampler"]):
            findings += _sgd_findings(raced["sgd"], problem)
    if "scaled" in results.children:
        findings += _scale_findings(results["scaled"].to_dataset())
    return findings


def _held_out_finding(of: dict[str, Result]) -> Finding:
    better = []
    for one in of.values():
        tuning, reported = one.tuning.isel(learning_rate=one.best), one.reported.isel(learning_rate=one.best)
        error = math.hypot(*(float(analysis.standard_error(half, "seed")) for half in (tuning, reported)))
        better.append((float(tuning.mean()) - float(reported.mean())) / error if error > 0.0 else 0.0)
    return Finding(
        claim=f"best rates of {len(of)} methods: by how many standard errors the best held-out result beats its tuning result",
        predicted=MANY_ERRORS + 1.0,
        measured=float(max(better)),
        tolerance=0.0,
        source="the least of several noisy means is too low: never the same seeds for tuning and for reporting",
        kind="at_most",
    )


def _without_momentum(name: str, one: xr.Dataset, sgd: xr.Dataset, problem: Problem) -> Finding:
    """Below the edge, past which a loss that grows slower than a square neither converges nor diverges, and round-off grows."""
    plain, other = sgd.suboptimality, one.suboptimality.isel(momentum=0)
    below = sgd.learning_rate < theory.stability_edge(problem.smoothness)
    stays = below & (plain > analysis.ROUND_OFF[sgd.attrs["precision"]][0] * plain.isel(step=0))
    return Finding(
        claim=f"{known(name).label} 0 is SGD: largest relative deviation of J - J*, all rates below 2/L, seeds and records",
        predicted=0.0,
        measured=float(np.abs(other / plain - 1.0).where(stays).max()),
        tolerance=analysis.ROUND_OFF[sgd.attrs["precision"]][1],
        source="x - eta g + 0 (x - x before)",
        kind="at_most",
    )


def _expected(sgd: xr.Dataset, problem: Problem, rates: np.ndarray) -> np.ndarray:
    """The exact mean over the records of the last quarter."""
    late = sgd.step.values[-(sgd.sizes["step"] // 4) - 1 :]
    batch, sampler = int(sgd.batch_size), sgd.attrs["sampler"]
    return theory.expected_suboptimality(problem, rates, batch, int(late[-1]), sampler=sampler)[:, late].mean(axis=1)


def _sgd_findings(sgd: xr.Dataset, problem: Problem) -> list[Finding]:
    own = result(sgd)
    limit = SAFE * theory.mean_square_edge(problem, int(sgd.batch_size), sampler=sgd.attrs["sampler"])
    below = own.rates <= limit
    exact = _expected(sgd, problem, own.rates[below])
    means, place = own.reported.mean("seed").values[below], int(np.argmin(exact))
    error = float(analysis.standard_error(own.reported.isel(learning_rate=place), "seed"))
    source = "exact recursion of E ee' for SGD on least squares"
    step = own.rates[1] / own.rates[0]
    return [
        Finding(
            claim=f"SGD, rate {own.rates[place]:.3g}, the best up to {SAFE:g} of the mean-square limit: mean J - J* over the last quarter, "
            f"{own.reported.sizes['seed']} seeds ({MANY_ERRORS:g} standard errors)",
            predicted=float(exact[place]),
            measured=float(means[place]),
            tolerance=MANY_ERRORS * error / float(exact[place]) + analysis.ROUND_OFF[sgd.attrs["precision"]][1],
            source=source,
        ),
        Finding(
            claim=f"SGD: lowest rate within a factor {FACTOR:g} of that result (tolerance: a step of the grid)",
            predicted=float(own.rates[_around(exact, place)[0]]),
            measured=float(own.rates[_around(means, place)[0]]),
            tolerance=float(step - 1.0) * 1.001,
            source=source,
        ),
    ]


def _scale_findings(scaled: xr.Dataset) -> list[Finding]:
    base, other = scaled.params.isel(scale=0), scaled.params.isel(scale=1)
    moved = (np.sqrt(((other - base) ** 2).sum("parameter", skipna=False)) / np.sqrt((base**2).sum("parameter"))).fillna(np.inf)
    return [
        Finding(
            claim=f"Adam with eps = 0: relative change of the fit when X and y are multiplied by {SCALE:g}",
            predicted=0.0,
            measured=float(moved.sel(rule="adam")),
            tolerance={"float64": 1e-10, "float32": 1e-2}[scaled.attrs["precision"]],
            source="its step is the same for gradients c^2 g, Kingma and Ba 2015",
        ),
        Finding(
            claim=f"SGD at one rate: relative change of the fit when X and y are multiplied by {SCALE:g}",
            predicted=0.01,
            measured=float(np.minimum(moved.sel(rule="sgd"), np.finfo(float).max)),
            tolerance=0.0,
            source="its step is c^2 times as long: a rate of 0.01 or 0.1 (page section 5.3) means nothing without the data's units",
            kind="at_least",
        ),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The held-out results in order, the nearly best rates, and results against the rate."""
    raced = {name: part.to_dataset() for name, part in results["raced"].children.items()}
    of = {name: result(one) for name, one in raced.items()}
    order = sorted(of, key=lambda name: float(of[name].reported.isel(learning_rate=of[name].best).mean()))
    drawn, panels = figures.figure(3, width=7.2, height=1.9 + 0.13 * len(order), width_ratios=(1.0, 0.9, 1.2))
    _draw_results(panels[0, 0], of, order)
    _draw_ranges(panels[0, 1], of, order, problem)
    _draw_rates(panels[0, 2], of, raced, problem)
    one = next(iter(raced.values()))
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, B = {int(one.batch_size)}, {int(one.step[-1])} steps: mean of the last "
        f"quarter.\nOpen: best rate on {one.sizes['seed'] // 2} seeds; filled: its result on as many others, ± 2 s.e.\n"
        "Unit of the rate: 2/L where a step grows with the gradient, the largest |θ*$_j$| where not, 1 where the method finds its own "
        "step.\nDashed: exact expectation of SGD. Triangles: diverged.",
    )
    return {"optimizers": drawn}


def _draw_results(axes: Axes, of: dict[str, Result], order: list[str]) -> None:
    for place, name in enumerate(order):
        one = of[name]
        tuning, reported = one.tuning.isel(learning_rate=one.best), one.reported.isel(learning_rate=one.best)
        error = 2.0 * float(analysis.standard_error(reported, "seed"))
        axes.errorbar(float(reported.mean()), place, xerr=error, color=figures.COLORS[0], marker="o", markersize=3, capsize=1.5)
        axes.plot(
            float(tuning.mean()), place, marker="o", markersize=5, markerfacecolor="none", color=figures.COLORS[1], markeredgewidth=0.8
        )
    axes.set(yticks=range(len(order)), yticklabels=[known(name).label for name in order], xscale="log", xlabel="J − J*, best rate")
    axes.set(title="results", ylim=(len(order) - 0.4, -0.6))


def _draw_ranges(axes: Axes, of: dict[str, Result], order: list[str], problem: Problem) -> None:
    for place, name in enumerate(order):
        scale, one = unit(known(name).unit, problem), of[name]
        rates, nearly = one.rates / scale, one.nearly()
        axes.plot(rates[nearly[[0, -1]]], [place, place], color=figures.COLORS[0], linewidth=2.5, solid_capstyle="butt", alpha=0.5)
        axes.plot(rates[one.best], place, marker="o", markersize=3, color=figures.COLORS[0])
        axes.annotate(known(name).unit, (1.0, place), xycoords=("axes fraction", "data"), fontsize=6, ha="right", va="center", color="0.35")
    axes.set(xscale="log", xlim=(LOWEST, 1e6 * LOWEST * HIGHEST), yticks=range(len(order)), yticklabels=[], ylim=(len(order) - 0.4, -0.6))
    axes.set(xlabel="rate / unit", title=f"rates within a factor {FACTOR:g} of the best")


def _draw_rates(axes: Axes, of: dict[str, Result], raced: dict[str, xr.Dataset], problem: Problem) -> None:
    shown = [name for name in DRAWN if name in of] or list(of)[: figures.FEW_CURVES]
    means = {name: np.mean([of[name].tuning.mean("seed").values, of[name].reported.mean("seed").values], axis=0) for name in shown}
    start = float(raced[shown[0]].suboptimality.isel(step=0).min())
    bounds = (0.3 * min(float(values.min()) for values in means.values()), 10.0 * start)
    for name, color in zip(shown, figures.COLORS, strict=False):
        rates = of[name].rates / unit(known(name).unit, problem)
        figures.trajectory(axes, rates, means[name], bounds=bounds, color=color, label=known(name).label)
    if "sgd" in shown and theory.has_moments(problem, raced["sgd"].attrs["sampler"]):
        rates = of["sgd"].rates
        figures.dashed(axes, rates / unit(GRADIENT, problem), _expected(raced["sgd"], problem, rates), bounds=bounds)
    axes.set(
        xscale="log", yscale="log", ylim=bounds, xlabel="rate / unit", ylabel="J − J*, last quarter of the run", title="against the rate"
    )
    axes.legend(loc="best")
