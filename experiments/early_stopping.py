"""A rule that stops a run must tell a loss that has settled from one that explodes, and what is kept must be the best.

Claim
    The notebook's rule, improvement < 1e-6 for 10 updates in a row, stops diverging runs after 11 updates as if they had converged, leaves
    the more undone the smaller the rate, depends on the unit of y, and never fires on mini-batches. A relative rule that asks for finite
    losses and keeps the best iterate has none of that; patience on a validation loss needs the best parameters themselves.
Theory
    On full batches every loss is known: f_t - f* = sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 (Polyak 1964), and so is the step at
    which a rule fires. In the end a step lowers f - f* by 1 - rho^2 of it, so that about tolerance / (2 eta mu) is left. On mini-batches
    at their floor the loss goes up and down, and hardly ever up ten times in a row: consecutive losses that were independent would have
    a chance of 1 / 11!. On a design with fewer examples than it needs the validation loss has its minimum on the way, whose place is known
    too: theta_t - theta* = sum_i (1 - eta lambda_i)^t c_i v_i.
Sweep
    The notebook's rates (in proportion to 2 / L) under the notebook's rule and the one put right; both again with y in another unit;
    mini-batches over seeds; rates on a design that overfits, with the best or the last parameters kept. Runs of a sweep that have stopped
    stand still beside those that go on, and the work ends with the last.
Expect
    Crosses on exploding runs; circles that lie on the dashed line of what is left; marks at the minimum of each validation curve.
Command
    gdjax experiment=early_stopping
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gdjax import figures, problems, stopping, theory
from gdjax.records import Finding, InputError, Problem, whole
from gdjax.theory.stopping import excess_at_stop, notebook_stop, patience_stop, repaired_stop

NOTEBOOK_EDGE, NOTEBOOK_AT_START = 0.029158630401484423, 146.72962443981478
"""2 / L and J at the start, on the notebook's data: its rates and its tolerance are taken in proportion to them."""

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.025, 0.028, 0.029, 0.05, 0.2, 0.5)

PATIENCE, RTOL = 10, 1e-6

UNIT = 1e-3
"""The unit of y in which runs are repeated, in units of the given one."""

OVERFITTING = {"num_examples": 50, "num_parameters": 40, "num_held_out": 200}
"""A design whose validation loss falls and rises again."""

OVERFIT_RATES, OVERFIT_STEPS = (0.2, 0.5, 1.0), 2000
"""Rates in units of 1 / L, and how long they may run."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    tolerance: float | None = None,
    num_steps: int = 9000,
    batch_size: int | None = None,
    num_batch_steps: int = 20_000,
    num_seeds: int = 5,
) -> xr.DataTree:
    """Stop runs by either rule, in either unit, on mini-batches, and on a validation loss; in float64, since losses are told apart by 1e-6.

    Parameters
    ----------
    tolerance
        Of the notebook's rule; by default its 1e-6, in proportion to J at the start.
    num_steps
        That full batches may take, and num_batch_steps that mini-batches may.
    batch_size
        By default 16, or n / 2 where there are fewer than 32 examples.
    """
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment early_stopping is about least squares, which {problem.name} is not.")
    batch = max(1, min(16, problem.num_examples // 2)) if batch_size is None else whole("batch_size", batch_size)
    allowed = 1e-6 * float(problem.objective(problem.start)) / NOTEBOOK_AT_START if tolerance is None else tolerance
    rule = stopping.notebook(tolerance=allowed, patience=PATIENCE)
    edge = theory.stability_edge(problem.smoothness)
    best = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    rates = np.unique([*np.array(RATES) * (edge / NOTEBOOK_EDGE), best])
    full: dict[str, Any] = {
        "sampler": "full",
        "num_steps": whole("num_steps", num_steps, least=20),
        "record_every": 1,
        "precision": "float64",
    }
    rescaled = _in_unit(problem)
    rules = {"notebook": rule, "repaired": stopping.repaired(rtol=RTOL, patience=PATIENCE)}
    by_rule = {name: sweep(problem, learning_rate=rates, stop=one, **full) for name, one in rules.items()}
    in_unit = {name: sweep(rescaled, learning_rate=rates, stop=one, **full).stopped_at for name, one in rules.items()}
    sampled = sweep(
        problem,
        sampler="without_replacement",
        num_steps=whole("num_batch_steps", num_batch_steps, least=20),
        record_every=1,
        batch_size=batch,
        seed=range(whole("num_seeds", num_seeds)),
        learning_rate=0.01 * edge / NOTEBOOK_EDGE,
        stop=rule,
        precision="float64",
    )
    parts = {name: _ends(ds).assign(stopped_in_unit=in_unit[name]).assign_attrs(tolerance=allowed) for name, ds in by_rule.items()}
    return xr.DataTree.from_dict(parts | {"sampled": _ends(sampled), "validation": _validated(sweep)})


def _in_unit(problem: Problem) -> Problem:
    """The problem with y in another unit: everything known of it is multiplied, and no program is compiled anew."""
    X, y = problem.data
    return dataclasses.replace(
        problem,
        data=(X, UNIT * np.asarray(y)),
        start=UNIT * np.asarray(problem.start),
        minimizer=UNIT * np.asarray(problem.minimizer),
        minimum=UNIT**2 * np.asarray(problem.minimum),
    )


def _ends(ds: xr.Dataset) -> xr.Dataset:
    """Where runs ended, what they left, whether they stood still then, and a few hundred records of the way there."""
    end = xr.where(ds.stopped_at >= 0, ds.stopped_at, xr.where(ds.diverged_at >= 0, ds.diverged_at, ds.step[-1]))
    last = ds.objective.isel(step=-1)
    with np.errstate(invalid="ignore"):
        moved = np.abs(ds.objective - last).where((ds.step >= end) & np.isfinite(last)).max("step")
    shown = np.unique(np.concatenate([np.arange(min(30, ds.sizes["step"])), np.geomspace(1, ds.sizes["step"] - 1, 300).astype(int)]))
    kept = ds[["stopped_at", "diverged_at", "params"]]
    ended = {"end_objective": last, "end_suboptimality": ds.suboptimality.isel(step=-1), "moved": moved}
    return kept.assign({name: value.drop_vars(["step", "epoch"], errors="ignore") for name, value in ended.items()}).assign(
        curve=ds.suboptimality.isel(step=shown)
    )


def overfitting() -> tuple[Problem, Problem]:
    """A problem with little more examples than parameters, and its held-out examples."""
    rng = np.random.default_rng(0)
    n, p, m = OVERFITTING.values()
    scales = np.arange(1, p + 1) ** -0.5
    X, w = rng.normal(size=(n + m, p)) * scales, rng.normal(size=p)
    y = X @ w + rng.normal(size=n + m)
    return problems.least_squares(X[:n], y[:n], intercept=False), problems.least_squares(X[n:], y[n:], intercept=False)


def _validated(sweep: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Runs that end by patience on a validation loss, with the best or the last parameters left."""
    train, held = overfitting()
    rates = np.array(OVERFIT_RATES) / float(np.asarray(train.smoothness))
    X, y = (np.asarray(part) for part in held.data)
    kept = {}
    for name, restore in (("best", True), ("last", False)):
        rule = stopping.early_stopping(held, patience=PATIENCE, restore_best=restore)
        kept[name] = sweep(
            train, sampler="full", num_steps=OVERFIT_STEPS, record_every=1, learning_rate=rates, stop=rule, precision="float64"
        )
    returned = np.stack([np.mean((ds.params.values @ X.T - y) ** 2, axis=-1) for ds in kept.values()])
    variables = {
        "returned": (("kept", "learning_rate"), returned),
        "best_step": ("learning_rate", kept["best"].best_step.values),
        "stopped_at": ("learning_rate", kept["last"].stopped_at.values),
    }
    return xr.Dataset(variables, {"kept": [*kept], "learning_rate": rates})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Every stop is where exact losses put it; what is left, what is kept, and what becomes of runs that diverge."""
    notebook, repaired = (results[name].to_dataset() for name in ("notebook", "repaired"))
    losses = _exact_losses(notebook, problem)
    return [
        *_notebook_findings(notebook, losses, problem),
        *_repaired_findings(repaired, losses, problem),
        *_unit_findings(notebook, repaired, losses),
        _sampled_finding(results["sampled"].to_dataset()),
        _frozen_finding(results),
        *_validation_findings(results["validation"].to_dataset()),
    ]


def _exact_losses(ds: xr.Dataset, problem: Problem) -> np.ndarray:
    """J after 0, 1, .. steps at every rate, from the eigenmodes."""
    steps = np.arange(int(ds.step[-1]) + 1)
    return float(np.asarray(problem.minimum)) + theory.gradient_descent(theory.modes(problem), ds.learning_rate.values, steps)


def _stable(ds: xr.Dataset, problem: Problem) -> np.ndarray:
    return ds.learning_rate.values < theory.stability_edge(problem.smoothness)


def _apart(measured: np.ndarray, predicted: list[int], what: str, source: str) -> Finding:
    """All rates at once: a comparison within rounding of the tolerance may fall a step later."""
    return Finding(
        claim=f"{what}: largest distance, in updates, from where exact losses put it; {len(predicted)} rates (absolute, 1 for rounding)",
        predicted=0.0,
        measured=float(np.max(np.abs(measured - np.array(predicted)))),
        tolerance=1.0,
        source=source,
        kind="at_most",
    )


def _notebook_findings(notebook: xr.Dataset, losses: np.ndarray, problem: Problem) -> list[Finding]:
    tolerance, stable = notebook.attrs["tolerance"], _stable(notebook, problem)
    exact = [notebook_stop(row, tolerance, PATIENCE) for row in losses]
    stops, ends = notebook.stopped_at.values, notebook.end_objective.values
    source = "sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2, Polyak 1964; notebook section 11, improvement < 1e-6 for 10 updates"
    findings = [_apart(stops, exact, "notebook's rule: the update at which it stops", source)]
    findings += [
        Finding(
            claim=f"notebook's rule, rate {float(notebook.learning_rate[index]):.3g}, which diverges: 'converged' at update "
            f"{int(stops[index])} with a loss whose logarithm is (absolute)",
            predicted=float(np.log(losses[index, PATIENCE + 1])),
            measured=float(np.log(ends[index])),
            tolerance=1e-8 / abs(float(np.log(losses[index, PATIENCE + 1]))),
            source="a loss that grows improves by less than any tolerance, from the first comparison on: 10 of them, 11 updates",
        )
        for index in np.flatnonzero(~stable)
    ]
    rho = theory.contraction(
        notebook.learning_rate.values, float(np.asarray(problem.smoothness)), float(np.asarray(problem.strong_convexity))
    )
    settled = [index for index in np.flatnonzero(stable) if _settled(losses[index], exact[index], rho[index], problem)]
    for index in dict.fromkeys([*settled[:1], *settled[-1:]]):
        rate = float(notebook.learning_rate[index])
        findings.append(
            Finding(
                claim=f"notebook's rule, rate {rate:.3g}: f - f* where it stops: the smaller the rate, the more is left",
                predicted=excess_at_stop(
                    rate, float(np.asarray(problem.smoothness)), float(np.asarray(problem.strong_convexity)), tolerance
                ),
                measured=float(notebook.end_suboptimality[index]),
                tolerance=1.1 * (1.0 - float(rho[index]) ** 2),
                source="tolerance rho^(2 patience + 1) / (1 - rho^2), about tolerance / (2 eta mu)",
            )
        )
    return findings


def _settled(losses: np.ndarray, stop: int, rho: float, problem: Problem) -> bool:
    """Whether the run contracts by rho already where it stops, and slowly enough for the formula to say something."""
    if stop < PATIENCE + 2 or rho**2 < 0.8:
        return False
    excess = losses - float(np.asarray(problem.minimum))
    first = stop - PATIENCE
    return bool(abs(excess[first] / excess[first - 1] - rho**2) < 0.01 * (1.0 - rho**2))


def _repaired_findings(repaired: xr.Dataset, losses: np.ndarray, problem: Problem) -> list[Finding]:
    stable = _stable(repaired, problem)
    exact = [repaired_stop(row, RTOL, PATIENCE) for row in losses[stable]]
    wild = repaired.isel(learning_rate=np.flatnonzero(~stable))
    source = "|improvement| <= rtol max(|J|, eps) of finite losses; a diverging run has a status of its own"
    findings = [
        _apart(repaired.stopped_at.values[stable], exact, "rule put right: the update at which it stops", source),
        *(
            Finding(
                claim=f"rule put right: of {int((~stable).sum())} diverging runs, called {status}",
                predicted=float(expected),
                measured=float(found),
                tolerance=0.0,
                source=source,
            )
            for status, expected, found in (
                ("converged", 0, (wild.stopped_at >= 0).sum()),
                ("diverged", (~stable).sum(), (wild.diverged_at > 0).sum()),
            )
        ),
    ]
    if not (losses[~stable, 1:] > losses[~stable, :1]).all():
        return findings  # a loss may fall at first, before its steepest direction has grown
    left = Finding(
        claim="rule put right: distance of what diverging runs leave from their best iterate, the start (absolute)",
        predicted=0.0,
        measured=float(np.abs(wild.params - np.asarray(problem.start)).max()),
        tolerance=0.0,
        source="the best iterate is kept, and every later loss is greater",
    )
    return [*findings, left]


def _unit_findings(notebook: xr.Dataset, repaired: xr.Dataset, losses: np.ndarray) -> list[Finding]:
    """In another unit of y every loss is multiplied by its square, and so is a relative tolerance, but no absolute one."""
    exact = [notebook_stop(UNIT**2 * row, notebook.attrs["tolerance"], PATIENCE) for row in losses]
    said = f"y in units of {1 / UNIT:g}"
    apart = np.abs(repaired.stopped_in_unit - repaired.stopped_at).max()
    return [
        Finding(
            claim=f"rule put right, {said}: largest distance of a stop from that in the given unit (absolute, 1 for rounding)",
            predicted=0.0,
            measured=float(apart),
            tolerance=1.0,
            source="both sides of a relative rule are in the same unit",
            kind="at_most",
        ),
        _apart(
            notebook.stopped_in_unit.values,
            exact,
            f"notebook's rule, {said}: the update at which it stops",
            "an absolute tolerance is not free of units",
        ),
    ]


def _sampled_finding(sampled: xr.Dataset) -> Finding:
    return Finding(
        claim=f"notebook's rule on mini-batches of {int(sampled.batch_size)}: of {sampled.sizes['seed']} runs of {int(sampled.step[-1]):,} "
        "steps, stopped",
        predicted=0.0,
        measured=float((sampled.stopped_at >= 0).sum()),
        tolerance=0.0,
        source="ten losses in a row that do not fall: 1 / 11! of a step if they were independent",
    )


def _frozen_finding(results: xr.DataTree) -> Finding:
    moved = [float(results[name].moved.max()) for name in ("notebook", "repaired", "sampled")]
    return Finding(
        claim="runs that have ended stand still beside those that go on: largest change of J from there to the end of the sweep (absolute)",
        predicted=0.0,
        measured=max(moved),
        tolerance=0.0,
        source="a lane that has ended keeps its parameters, its state and its last record",
    )


def validation_losses(rates: np.ndarray) -> np.ndarray:
    """The exact validation loss of the design that overfits, after 0, 1, .. steps at every rate."""
    train, held = overfitting()
    X, y = (np.asarray(part) for part in held.data)
    errors = theory.gradient_descent_errors(theory.modes(train), rates, np.arange(OVERFIT_STEPS + 1)) @ theory.eigenvectors(train)[1].T
    return np.mean(((np.asarray(train.minimizer) + errors) @ X.T - y) ** 2, axis=-1)


def _validation_findings(validation: xr.Dataset) -> list[Finding]:
    losses, findings = validation_losses(validation.learning_rate.values), []
    for index, row in enumerate(losses):
        best, stop = patience_stop(row, PATIENCE)
        one, source = validation.isel(learning_rate=index), "theta* + sum_i (1 - eta lambda_i)^t c_i v_i on the held-out examples"
        said = f"validation, rate {OVERFIT_RATES[index]:g} / L"
        findings += [
            Finding(
                claim=f"{said}: the best update, {best}, and the last, {stop}, {PATIENCE} later; both together",
                predicted=float(best + stop),
                measured=float(one.best_step + one.stopped_at),
                tolerance=0.0,
                source=source,
            ),
            *(
                Finding(
                    claim=f"{said}, the {kept} parameters left: validation loss"
                    + (", as by the page's shallow copy" if kept == "last" else ", the least on the way"),
                    predicted=float(row[step]),
                    measured=float(one.returned.sel(kept=kept)),
                    tolerance=1e-9,
                    source=source + "; page section 4, level 4",
                )
                for kept, step in (("best", best), ("last", stop))
            ),
        ]
    return findings


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """Curves with the places where rules stop them; what is left there against the rate; validation losses."""
    notebook, repaired, validation = (results[name].to_dataset() for name in ("notebook", "repaired", "validation"))
    drawn, panels = figures.figure(3, width=7.2, height=3.0)
    _draw_curves(panels[0, 0], notebook, problem)
    _draw_left(panels[0, 1], notebook, repaired, problem)
    _draw_validation(panels[0, 2], validation)
    n, p, m = OVERFITTING.values()
    sampled = results["sampled"].to_dataset()
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; τ = {notebook.attrs['tolerance']:.3g} for {PATIENCE} updates. Put right: "
        f"|improvement| ≤ {RTOL:g} max(|J|, ε), J finite, the best iterate kept.\nTriangles: diverging runs. Of {sampled.sizes['seed']} "
        f"runs with mini-batches the notebook's rule stops {int((sampled.stopped_at >= 0).sum())}. Dashed: exact. Right: a design of "
        f"{n} × {p}, {m} examples held out, patience {PATIENCE}.",
    )
    return {"early_stopping": drawn}


def _draw_curves(axes: Axes, notebook: xr.Dataset, problem: Problem) -> None:
    """As far as they ran: every third rate, and those that diverge."""
    rates, stable = notebook.learning_rate.values, _stable(notebook, problem)
    start, norm = float(notebook.curve.isel(step=0)[0]), LogNorm(rates[0], rates[-1])
    shown = np.flatnonzero(~stable | (np.arange(len(rates)) % 3 == 0))
    bounds = (0.2 * float(notebook.end_suboptimality[shown].min()), 1e9 * start)
    for index in shown:
        color = matplotlib.colormaps[figures.RATES](0.9 * norm(rates[index]))
        stop = int(notebook.stopped_at[index])
        ran = notebook.curve.isel(learning_rate=index, step=notebook.step.values <= (stop if stop > 0 else np.inf))
        exact = theory.gradient_descent(theory.modes(problem), rates[index], ran.step.values)[0]
        figures.trajectory(axes, ran.step.values[1:], ran.values[1:], bounds=bounds, color=color, linewidth=2.0, alpha=0.6)
        figures.dashed(axes, ran.step.values[1:], np.where(exact > bounds[1], np.nan, exact)[1:], bounds=bounds, linewidth=0.7)
        if stop > 0:
            end = min(float(notebook.end_suboptimality[index]), bounds[1])
            axes.plot(stop, end, "x", color=figures.COLORS[1], markersize=6, clip_on=False, mew=1.5, zorder=4)
    axes.plot([], [], "x", color=figures.COLORS[1], markersize=6, mew=1.5, label="stopped")
    axes.plot([], [], "^", color="0.3", markersize=3.5, linestyle="none", label="off the panel")
    axes.set(xscale="log", yscale="log", ylim=bounds, xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"])
    axes.set_title("the notebook's rule: it stops what explodes")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.65))


def _draw_left(axes: Axes, notebook: xr.Dataset, repaired: xr.Dataset, problem: Problem) -> None:
    rates, stable = notebook.learning_rate.values, _stable(notebook, problem)
    L, mu = float(np.asarray(problem.smoothness)), float(np.asarray(problem.strong_convexity))
    fine = np.geomspace(rates[0], 0.999 * 2.0 / L, 300)
    exact = np.array([excess_at_stop(rate, L, mu, notebook.attrs["tolerance"], PATIENCE) for rate in fine])
    ends = [ds.end_suboptimality.values[stable & (ds.stopped_at.values > 0)] for ds in (notebook, repaired)]
    low, top = 0.02 * float(exact.min()), 60.0 * max(float(exact.max()), *(left.max(initial=0.0) for left in ends))
    kinds = (("x", 1, "as written"), ("o", 0, "put right"))
    for ds, left, (marker, color, label) in zip((notebook, repaired), ends, kinds, strict=True):
        stopped = stable & (ds.stopped_at.values > 0)
        axes.plot(rates[stopped], left, marker, color=figures.COLORS[color], markersize=5, label=label, mfc="none")
    axes.plot(fine, exact, color="black", linestyle=(0, (3, 2)), linewidth=0.9, label="τρ$^{21}$/(1 − ρ²)")
    wild = ~stable & (notebook.stopped_at.values > 0)
    if wild.any():
        axes.plot(rates[wild], np.full(wild.sum(), 0.4 * top), "x", color=figures.COLORS[1], markersize=5)
        said = f"f − f* there:\n{float(notebook.end_suboptimality.values[wild].min()):.0e} and more"
        axes.annotate(said, (2.3 / L, 0.22 * top), fontsize=6.5, va="top", color=figures.COLORS[1])
    figures.edge_line(axes, 2.0 / L, "2 / L", height=0.2, side="right")
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["learning_rate"], ylabel="f − f* where it stops")
    axes.set_title("what is left where it stops")
    axes.set_ylim(low, top)
    axes.set_xlim(0.6 * rates[0], 1.6 * rates[-1])
    axes.legend(loc="lower left", borderaxespad=0.1)


def _draw_validation(axes: Axes, validation: xr.Dataset) -> None:
    losses = validation_losses(validation.learning_rate.values)
    for index, (row, color) in enumerate(zip(losses, figures.COLORS, strict=False)):
        best, stop = int(validation.best_step[index]), int(validation.stopped_at[index])
        figures.dashed(axes, np.arange(len(row)), row, bounds=(1e-30, 1e30), color=color)
        axes.plot(
            best,
            float(validation.returned.sel(kept="best")[index]),
            "o",
            color=color,
            markersize=5,
            label=f"η = {OVERFIT_RATES[index]:g}/L",
        )
        axes.plot(stop, float(validation.returned.sel(kept="last")[index]), "s", color=color, markersize=4, mfc="none")
    axes.plot([], [], "o", color="0.3", markersize=5, label="best, kept")
    axes.plot([], [], "s", color="0.3", markersize=4, mfc="none", label="last")
    axes.set(
        xscale="log",
        xlim=(1, len(losses[0])),
        xlabel=figures.LABELS["step"],
        ylabel="validation loss",
        title="patience on held-out examples",
    )
    axes.legend(loc="upper center")
