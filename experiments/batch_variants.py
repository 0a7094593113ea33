"""Batch, mini-batch and stochastic descent: what a step costs, how noisy it is, and where it goes.

Claim
    The page's comparison of the three (section 3.4), measured and put right; on equal steps the full batch is ahead in the mean, on
    equal examples the small batch, until its noise stops it. The notebook's and the page's batches are different samplers with
    different noise.
Theory
    - Cost: a step takes its batch's examples, about 4 B p operations; the full batch p^2 through its Hessian, whatever n is.
    - Noise: E ||g_B - g||^2 = c_B mean ||g_i - g||^2, with c_B = 1/B only with replacement; the notebook draws without, so that
      c_B = (n - B) / (B (n - 1)).
    - Convergence: the page's O(kappa^t) grows. A constant rate contracts the full batch by rho^2 = max(|1 - eta mu|, |1 - eta L|)^2 a step,
      and leaves batches at a floor, without any 1/t, which is all that the page's code does. The rate c/t gives O(1/t) only if
      c mu > 1/2, mu the Hessian's smallest eigenvalue; else t^(-2 c mu) (Chung 1954).
    - The page's "SGD" deals out a permutation each epoch; the floor in its table is that of independent draws, 15 times higher on its data.
    All means are exact: the second moment's linear recursion. Floors against batch sizes and rates: experiment=batch_size.
Sweep
    B in {1, 16} over seeds by the notebook's sampler, and the full batch; three samplers begun at the minimizer; three decays of the rate;
    the notebook's own stream of indices (NumPy's seed 42), at its rates.
Expect
    The full batch lowest on equal steps and highest on equal examples; dashed exact means through the bands; marks of gdjax on the
    notebook's own loop, at its 0.05 off the panel.
Command
    gdjax experiment=batch_variants
    gdjax experiment=batch_variants problem=page_data problem.num_examples=400 learning_rate=0.01 batch_size=32
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, samplers, theory
from gdjax.records import Finding, InputError, Problem, whole
from gdjax.work import flops

NOTEBOOK_EDGE, NOTEBOOK_RATES = 0.029158630401484423, (0.001, 0.005, 0.01, 0.02, 0.05)
"""2 / L of the notebook's data, and the rates at which its mini-batches are replayed: its own is the last, which diverges."""

NOTEBOOK_STEPS, NOTEBOOK_SEED = 400, 42

MOST_STEPS, MOST_PRODUCTS = 20_000, 2e9
"""A run takes no more steps than the first, nor so many that their p^4 products in the exact recursion exceed the second."""

NUM_DRAWS = 4000
"""Batches by which the noise of a gradient is measured."""

DEALT_RATE, DEALT_EPOCHS = 0.05, 100
"""Samplers are compared at this share of the least limit of the mean square, where reshuffling's formula holds, or at the page's 0.01."""


def as_the_notebook_draws(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> np.ndarray:
    """`rng.choice(n, size=batch_size, replace=False)` once a step: the very indices of the notebook, from a generator of its seed."""
    return np.stack([rng.choice(num_examples, size=batch_size, replace=False) for _ in range(num_steps)]).astype(np.int32)


def hyperbolic_sgd(learning_rate: float, decay: float = 0.0) -> optax.GradientTransformation:
    """SGD with the rate learning_rate / (1 + decay t): c/t with c = learning_rate / decay in the end; constant for decay = 0."""
    return optax.sgd(lambda step: learning_rate / (1.0 + decay * step))


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_epochs: float = 80,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    num_seeds: int = 512,
    num_decayed: int = MOST_STEPS,
) -> xr.DataTree:
    """Run the three variants on equal steps and equal examples, the samplers, the decays, and the notebook's own run.

    Parameters
    ----------
    num_epochs
        On equal examples; fewer where B = 1 would take more than 20,000 steps.
    learning_rate
        By default 0.3 of the limit of the mean square for B = 1.
    batch_size
        Of the mini-batches; by default 16, or n / 5 where that is less.
    num_decayed
        Steps of the runs whose rate decays.
    """
    n, p = problem.num_examples, np.size(problem.start)
    if not theory.has_moments(problem, "without_replacement") or n < 4:
        raise InputError(
            f"experiment batch_variants is about least squares on 4 or more examples with at most {theory.moments.MOST_PARAMETERS} "
            f"parameters, which {problem.name} is not."
        )
    batch = max(2, min(16, n // 5)) if batch_size is None else whole("batch_size", batch_size, least=2)
    edge = theory.mean_square_edge(problem, 1)
    rate = 0.3 * edge if learning_rate is None else learning_rate
    seeds = range(whole("num_seeds", num_seeds, least=2))
    most = int(min(MOST_STEPS, MOST_PRODUCTS / p**4))
    for name, value in (("num_epochs", num_epochs), ("learning_rate", rate)):
        if isinstance(value, str) or not value > 0:
            raise InputError(f"{name}={value} is not allowed: it is a number above 0.")
    epochs = min(num_epochs, most / n)
    given: dict[str, Any] = {"seed": seeds, "learning_rate": rate}
    sampled = sweep(problem, sampler="without_replacement", num_epochs=epochs, batch_size=[1, batch], **given)
    equal_steps = samplers.steps_for(samplers.without_replacement, epochs, n, batch)
    parts = {
        "full": sweep(problem, sampler="full", num_steps=max(equal_steps, int(np.ceil(epochs))), record_every=1, learning_rate=rate),
        "sampled": sampled.assign_attrs(equal_steps=equal_steps, equal_epochs=int(np.ceil(epochs))),
        "decays": _decayed(problem, sweep, rate=rate, seeds=seeds, num_steps=min(most, whole("num_decayed", num_decayed, least=8))),
        "dealt": _dealt(problem, sweep, batch=batch, rate=min(0.01, DEALT_RATE * edge) if learning_rate is None else rate, seeds=seeds),
        "replay": _replayed(problem, sweep, batch),
        "steps": _steps(problem, batch),
    }
    return xr.DataTree.from_dict(parts)


def _decayed(problem: Problem, sweep: Callable[..., xr.Dataset], *, rate: float, seeds: range, num_steps: int) -> xr.Dataset:
    """SGD at a constant rate, and at rates that end as c/t with c mu = 0.2 and 2."""
    convexity = float(np.asarray(problem.strong_convexity))
    return sweep(
        problem,
        method=hyperbolic_sgd,
        sampler="without_replacement",
        num_steps=num_steps,
        record_every=max(1, num_steps // 400),
        batch_size=1,
        seed=seeds,
        learning_rate=rate,
        decay=[0.0, rate * convexity / 0.2, rate * convexity / 2.0],
    )


def _dealt(problem: Problem, sweep: Callable[..., xr.Dataset], *, batch: int, rate: float, seeds: range) -> xr.Dataset:
    """Each sampler from the minimizer on, recorded at the ends of epochs: all that is seen is noise."""
    epoch = -(-problem.num_examples // batch)
    runs = {
        sampler: sweep(
            problem,
            sampler=sampler,
            num_steps=DEALT_EPOCHS * epoch,
            record_every=epoch,
            batch_size=batch,
            start=problem.minimizer,
            seed=seeds,
            learning_rate=rate,
        )
        for sampler in ("with_replacement", "without_replacement", "reshuffled")
    }
    one = runs["reshuffled"]
    together = xr.concat(
        [of.suboptimality.drop_vars("epoch") for of in runs.values()], xr.DataArray([*runs], dims="sampler", name="sampler")
    )
    return xr.Dataset({"suboptimality": together}, attrs={"precision": one.attrs["precision"], "steps_per_epoch": epoch})


def _replayed(problem: Problem, sweep: Callable[..., xr.Dataset], batch: int) -> xr.Dataset:
    """The notebook's mini-batch run by gdjax, and by the notebook's own loop in NumPy."""
    rates = np.array(NOTEBOOK_RATES) * (theory.stability_edge(problem.smoothness) / NOTEBOOK_EDGE)
    engine = sweep(
        problem,
        sampler=as_the_notebook_draws,
        num_steps=NOTEBOOK_STEPS,
        record_every=1,
        batch_size=batch,
        seed=NOTEBOOK_SEED,
        learning_rate=rates,
    )
    X, y = (np.asarray(part) for part in problem.data)
    with np.errstate(over="ignore", invalid="ignore"):
        histories = [notebook_minibatch(X, y[:, None], alpha=rate, batch_size=batch)[1] for rate in rates]
    return engine[["objective"]].assign(notebook=(("learning_rate", "update"), np.array(histories)))


def notebook_minibatch(
    X: np.ndarray, y: np.ndarray, *, alpha: float, batch_size: int, iters: int = NOTEBOOK_STEPS, seed: int = NOTEBOOK_SEED
) -> tuple[np.ndarray, list[float]]:
    """The notebook's `minibatch_gd` (section 10), line by line; its history begins after the first update."""
    rng = np.random.default_rng(seed)
    theta = np.zeros((X.shape[1], 1))
    history = []
    n = X.shape[0]
    for _ in range(iters):
        idx = rng.choice(n, size=batch_size, replace=False)
        Xb, yb = X[idx], y[idx]
        grad = (2 / batch_size) * (Xb.T @ (Xb @ theta - yb))
        theta = theta - alpha * grad
        history.append(float(np.mean((X @ theta - y) ** 2)))
    return theta, history


def _steps(problem: Problem, batch: int) -> xr.Dataset:
    """What a step takes, and how noisy its gradient is at the start, by batch size and sampler."""
    X, y = (np.asarray(part) for part in problem.data)
    n, sizes = len(y), sorted({1, 2, 4, batch, 4 * batch} | {problem.num_examples})
    sizes = [size for size in sizes if size <= n]
    own = -2.0 * (y - X @ np.asarray(problem.start))[:, None] * X
    apart = own - own.mean(axis=0)
    variance = np.mean(np.sum(apart**2, axis=1))
    noise = np.empty((2, len(sizes), NUM_DRAWS))
    for row, draw in enumerate((samplers.with_replacement, samplers.without_replacement)):
        for column, size in enumerate(sizes):
            few = max(20, min(NUM_DRAWS, 10**7 // (size * X.shape[1])))
            table = draw(samplers.generator(size), few, n, size)
            noise[row, column] = np.resize(np.sum(apart[table].mean(axis=1) ** 2, axis=1) / variance, NUM_DRAWS)
    counted = [_flops(problem, X[:size], y[:size]) for size in sizes]
    through_hessian = flops(lambda H, error: H @ error, np.eye(X.shape[1]), np.asarray(problem.start)) + X.shape[1]
    means = {
        "noise": (("drawn", "size"), noise.mean(axis=-1)),
        "noise_error": (("drawn", "size"), noise.std(axis=-1) / np.sqrt([min(NUM_DRAWS, 10**7 // (s * X.shape[1])) for s in sizes])),
        "flops": ("size", counted),
    }
    attrs = {"through_hessian": int(through_hessian), "num_examples": n, "num_parameters": X.shape[1]}
    return xr.Dataset(means, {"size": sizes, "drawn": ["with_replacement", "without_replacement"]}, attrs)


def _flops(problem: Problem, X: np.ndarray, y: np.ndarray) -> int:
    """Of a step of one run: the gradient of the batch, and the update."""

    def step(params: Any, X: Any, y: Any, rate: Any) -> Any:
        gradient = problem.evaluate(params, problem.constants, (X, y), 1.0 / len(X))[1]
        return params - rate * gradient

    with jax.enable_x64(True):
        return flops(step, np.zeros((X.shape[1], 1)), X, y, 0.1)


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Cost, noise and convergence against the exact ones; the samplers' floors; the notebook's run against its own loop."""
    return [
        *_cost_findings(results["steps"].to_dataset()),
        *_noise_findings(results["steps"].to_dataset(), _minibatch(results)),
        *_full_findings(results["full"].to_dataset(), problem),
        *_variant_findings(results, problem),
        *_decay_findings(results["decays"].to_dataset(), problem),
        *_dealt_findings(results["dealt"].to_dataset(), problem),
        _replay_finding(results["replay"].to_dataset(), results["full"].attrs["precision"]),
    ]


def _minibatch(results: xr.DataTree) -> int:
    return int(results["sampled"].batch_size[-1])


def _cost_findings(steps: xr.Dataset) -> list[Finding]:
    n, p = steps.attrs["num_examples"], steps.attrs["num_parameters"]
    sizes, counted = steps["size"].values.astype(float), steps.flops.values.astype(float)
    per_example = np.diff(counted) / np.diff(sizes)
    return [
        Finding(
            claim="cost of a step: operations for each further example, most over all batch sizes, and (predicted) least",
            predicted=float(per_example.min()),
            measured=float(per_example.max()),
            tolerance=0.0,
            source="O(B p) a step: n p, B p and p of the page's table 3.4",
        ),
        Finding(
            claim="cost of a step: operations for each example of the batch, over the 4 p of its two products",
            predicted=1.0 + 5.0 / (4.0 * p),
            measured=float(per_example[0] / (4.0 * p)),
            tolerance=1.0 / p,
            source="2 p for X_b theta, 2 p for X_b' r, and a few for residual, square and slope",
        ),
        Finding(
            claim=f"cost of a full step through the Hessian over 2 n p, that of one product with all {n} examples",
            predicted=p / n,
            measured=steps.attrs["through_hessian"] / (2.0 * n * p),
            tolerance=1.0 / p,
            source="H (theta - theta*) is p x p, whatever n is; the page's O(n p) is for those who do not keep X'X",
        ),
    ]


def _noise_findings(steps: xr.Dataset, batch: int) -> list[Finding]:
    n = steps.attrs["num_examples"]
    full = Finding(
        claim="noise: E ||g_B - g||^2 of B = n without replacement, over that of one example",
        predicted=0.0,
        measured=float(steps.noise.sel(size=n, drawn="without_replacement")),
        tolerance=1e-20,
        source="every batch is all examples",
    )
    findings = []
    for drawn in steps.drawn.values:
        exact, one = theory.batch_noise_factor(batch, n, sampler=str(drawn)), steps.sel(size=batch, drawn=drawn)
        findings.append(
            Finding(
                claim=f"noise: E ||g_B - g||^2 of B = {batch} {str(drawn).replace('_', ' ')}, over that of one example (4 standard errors)",
                predicted=exact,
                measured=float(one.noise),
                tolerance=4.0 * float(one.noise_error) / exact,
                source="c_B = 1/B with replacement, (n - B) / (B (n - 1)) without, as the notebook draws",
            )
        )
    return [*findings, full]


def _full_findings(full: xr.Dataset, problem: Problem) -> list[Finding]:
    """The page's rate grows; the bound of theory does not, and holds."""
    exact = theory.gradient_descent(theory.modes(problem), float(full.learning_rate), full.step.values)[0]
    floor, slack = analysis.ROUND_OFF[full.attrs["precision"]]
    values = full.suboptimality.values
    seen = values[1:] > floor * values[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = float(np.max((values[1:] / values[:-1])[seen], initial=0.0))
    kappa = float(problem.condition_number)
    return [
        analysis.follows_modes(values, exact, full.attrs["precision"]),
        Finding(
            claim=f"full batch: largest factor of the suboptimality in a step; O(kappa^t), the page's, would be {kappa:.4g}",
            predicted=float(theory.contraction(float(full.learning_rate), full.attrs["smoothness"], full.attrs["strong_convexity"])) ** 2,
            measured=worst,
            tolerance=slack,
            source="max(|1 - eta mu|, |1 - eta L|)^2, Polyak 1964; page table 3.4",
            kind="at_most",
        ),
    ]


@functools.lru_cache(maxsize=16)
def _exact_mean(
    problem: Problem, rates: tuple[float, ...], batch: int, num_steps: int, sampler: str, decays: tuple[float, ...]
) -> np.ndarray:
    """E f(x_t) - f* after each step, for each decay of the rate; kept, since findings and figures ask for the same."""
    steps = np.arange(max(1, num_steps))
    each = np.array(rates)[:, None] / (1.0 + np.array(decays)[:, None] * steps)
    return theory.expected_suboptimality(problem, each if any(decays) else np.array(rates), batch, num_steps, sampler=sampler)


def _mean_of(one: xr.Dataset, problem: Problem, num_steps: int) -> np.ndarray:
    """The exact mean of runs of one batch size at a constant rate, after 0 .. num_steps steps."""
    sampler = one.attrs["sampler"]
    return _exact_mean(problem, (float(one.learning_rate),), int(one.batch_size), num_steps, sampler, (0.0,))[0]


def _variant_findings(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """The means after equal steps and after equal examples, and how the variants stand to each other there."""
    sampled, full = results["sampled"].to_dataset(), results["full"].to_dataset()
    of_full = theory.gradient_descent(theory.modes(problem), float(full.learning_rate), full.step.values)[0]
    steps, epochs, findings = sampled.attrs["equal_steps"], sampled.attrs["equal_epochs"], []
    for batch in sampled.batch_size.values:
        one = sampled.sel(batch_size=batch)
        ends = {"steps": (steps, of_full[steps], f"{steps} steps of each")}
        last = int(one.step.values[np.searchsorted(one.epoch.values, one.epoch.values[-1] * (1.0 - 1e-12))])
        ends["examples"] = (last, of_full[epochs], f"as many examples as {epochs} full steps take")
        for equal, (step, whole_batch, said) in ends.items():
            values = one.suboptimality.sel(step=step)
            exact = float(_mean_of(one, problem, last)[step])
            error = float(analysis.standard_error(values, "seed"))
            findings.append(
                Finding(
                    claim=f"equal {equal}: E f - f* of B = {int(batch)} over that of the full batch, after {said} (4 standard errors)",
                    predicted=float(exact / whole_batch),
                    measured=float(values.mean()) / float(full.suboptimality[epochs if equal == "examples" else steps]),
                    tolerance=4.0 * error / exact + analysis.ROUND_OFF[one.attrs["precision"]][1],
                    source="exact recursion of E ee' for SGD, eigenmodes for the full batch; the notebook compares equal steps only",
                )
            )
    return findings


def _decay_findings(decays: xr.Dataset, problem: Problem) -> list[Finding]:
    """The slope of log E f - f* against log t, between means over T/8 .. T/4 and T/2 .. T."""
    last, steps = int(decays.step[-1]), decays.step.values
    early, late = ((steps > last / 8) & (steps <= last / 4), steps > last / 2)
    exact, findings = _exact_decays(decays, problem)[:, steps], []
    for row, decay in enumerate(decays.decay.values.tolist()):
        means = [decays.suboptimality.sel(decay=decay).isel(step=window).mean("step") for window in (early, late)]
        spread = [float(analysis.standard_error(mean, "seed") / mean.mean()) for mean in means]
        error = float(np.linalg.norm(spread)) / np.log(4.0)
        predicted = float(np.log(exact[row, late].mean() / exact[row, early].mean()) / np.log(4.0))
        c = np.inf if decay == 0 else float(decays.learning_rate) * float(np.asarray(problem.strong_convexity)) / decay
        limit = "a constant rate, as in the page's code: 0" if decay == 0 else f"c mu = {c:.2g}: {-min(1.0, 2.0 * c):.2g}"
        findings.append(
            Finding(
                claim=f"SGD, {limit} in the limit: slope of log E f - f* against log t, from T/8..T/4 to T/2..T, T = {last:,} "
                "(absolute, 4 standard errors)",
                predicted=predicted,
                measured=float(np.log(means[1].mean() / means[0].mean()) / np.log(4.0)),
                tolerance=float(4.0 * error / abs(predicted)),
                source="exact recursion with this rate; -1 iff c mu > 1/2, else -2 c mu (Chung 1954); page table 3.4: O(1/t) with decay",
            )
        )
    return findings


def _exact_decays(decays: xr.Dataset, problem: Problem) -> np.ndarray:
    rates = (float(decays.learning_rate),) * decays.sizes["decay"]
    return _exact_mean(problem, rates, 1, int(decays.step[-1]), "without_replacement", tuple(decays.decay.values.tolist()))


def _exact_dealt(dealt: xr.Dataset, problem: Problem, sampler: str) -> np.ndarray:
    """The mean at the end of each epoch, begun at the minimizer; that of reshuffled batches to first order in the noise."""
    rate, batch, steps = float(dealt.learning_rate), int(dealt.batch_size), dealt.step.values
    if sampler == "reshuffled":
        return theory.reshuffled_noise(problem, rate, batch, steps / dealt.attrs["steps_per_epoch"])
    return _from_minimizer(problem, rate, batch, int(steps[-1]), sampler)[steps]


@functools.lru_cache(maxsize=8)
def _from_minimizer(problem: Problem, rate: float, batch: int, num_steps: int, sampler: str) -> np.ndarray:
    return theory.expected_suboptimality(problem_at(problem, problem.minimizer), np.array([rate]), batch, num_steps, sampler=sampler)[0]


def problem_at(problem: Problem, start: Any) -> Problem:
    """The problem, begun elsewhere."""
    return Problem(**{**vars(problem), "start": start})


def _dealt_findings(dealt: xr.Dataset, problem: Problem) -> list[Finding]:
    late = dealt.step.values >= dealt.step.values[-1] / 2
    exact = {str(sampler): float(np.mean(_exact_dealt(dealt, problem, str(sampler))[late])) for sampler in dealt.sampler.values}
    said = {
        "with_replacement": "what the page's table is about",
        "without_replacement": "as the notebook draws",
        "reshuffled": f"as the page's code deals, {exact['with_replacement'] / exact['reshuffled']:.3g} times lower than with replacement",
    }
    findings = []
    for sampler, expected in exact.items():
        averages = dealt.suboptimality.sel(sampler=sampler).isel(step=late).mean("step")
        allowed = 0.03 if sampler == "reshuffled" else 0.0
        findings.append(
            Finding(
                claim=f"{sampler.replace('_', ' ')}, {said[sampler]}: mean f - f* at epochs' ends, begun at x*, B = "
                f"{int(dealt.batch_size)}, rate {float(dealt.learning_rate):.3g} "
                f"(4 standard errors{', and 3 % for higher orders' if allowed else ''})",
                predicted=expected,
                measured=float(averages.mean()),
                tolerance=allowed + 4.0 * float(analysis.standard_error(averages, "seed")) / expected,
                source="exact recursion of E ee'"
                if not allowed
                else "the variance of a permutation's sum; page section 3.3, torch.randperm",
            )
        )
    return findings


def _replay_finding(replay: xr.Dataset, precision: str) -> Finding:
    own, engine = replay.notebook.values, replay.objective.isel(step=slice(1, None)).values
    seen = np.isfinite(own) & np.isfinite(engine)
    return Finding(
        claim=f"the notebook's indices (seed {NOTEBOOK_SEED}, {int(replay.batch_size)} by choice): largest relative deviation of J from "
        f"its loop, {own.shape[1]} updates, {own.shape[0]} rates (absolute)",
        predicted=0.0,
        measured=float(np.max(np.abs(engine[seen] / own[seen] - 1.0))),
        tolerance={"float64": 1e-9, "float32": 0.1}[precision],
        source="the notebook's section 10 in NumPy, line by line",
    )


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The variants on equal steps and examples, their noise, the samplers, the decays, the replay; and the page's table with numbers."""
    drawn, panels = figures.figure(3, 2, width=7.2, height=4.9)
    sampled, full = results["sampled"].to_dataset(), results["full"].to_dataset()
    _draw_variants(panels[0, 0], sampled, full, problem, "step")
    _draw_variants(panels[0, 1], sampled, full, problem, "epoch")
    _draw_noise(panels[0, 2], results["steps"].to_dataset())
    _draw_dealt(panels[1, 0], results["dealt"].to_dataset(), problem)
    _draw_decays(panels[1, 1], results["decays"].to_dataset(), problem)
    _draw_replay(panels[1, 2], results["replay"].to_dataset())
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}. Top left, middle: η = {float(full.learning_rate):.3g}, mean of "
        f"{sampled.sizes['seed']} seeds, bands 10–90 %, without replacement. Dashed: exact means.\nBottom left: B = "
        f"{int(results['dealt'].batch_size)}, η = {float(results['dealt'].learning_rate):.3g}, at epochs' ends. Middle: c is the limit of "
        "t η$_t$. Right: NumPy's seed 42; curves: the notebook's loop, marks: gdjax.",
    )
    return {"batch_variants": drawn, "batch_variants_table": _table(results, problem)}


def _draw_variants(axes: Axes, sampled: xr.Dataset, full: xr.Dataset, problem: Problem, x: str) -> None:
    end = sampled.attrs["equal_steps" if x == "step" else "equal_epochs"]
    start = float(full.suboptimality[0])
    shown: list[float] = []
    for batch, color in zip(sampled.batch_size.values, (figures.COLORS[1], figures.COLORS[2]), strict=True):
        one = sampled.sel(batch_size=batch)
        one = one.isel(step=(one[x].values <= end) & (np.append(True, np.diff(one.epoch.values) > 0)))
        bounds = (1e-30, 1e30)
        figures.band(axes, one[x].values[1:], one.suboptimality[:, 1:], bounds=bounds, color=color, label=f"B = {int(batch)}")
        one = one.isel(step=slice(1, None))
        exact = _mean_of(one, problem, int(one.step[-1]))[one.step.values]
        figures.dashed(axes, one[x].values, exact, bounds=bounds)
        shown += [exact.min(), float(one.suboptimality.quantile(0.1, "seed").min())]
    rows = full.isel(step=slice(1, end + 1))
    axes.plot(rows.step, rows.suboptimality, color=figures.COLORS[0], label="full batch")
    exact = theory.gradient_descent(theory.modes(problem), float(full.learning_rate), rows.step.values)[0]
    figures.dashed(axes, rows.step.values, exact, bounds=(1e-30, 1e30))
    axes.set(yscale="log", xscale="log", xlabel=figures.LABELS[x], ylabel=figures.LABELS["suboptimality"])
    axes.set_title("equal steps" if x == "step" else "equal examples")
    axes.set_ylim(0.5 * min([*shown, float(rows.suboptimality.min())]), 2.0 * start)
    if x == "step":
        axes.legend(loc="lower left")


def _draw_noise(axes: Axes, steps: xr.Dataset) -> None:
    n, sizes = steps.attrs["num_examples"], np.geomspace(1, steps.attrs["num_examples"], 200)
    lowest = 0.3 / n
    for drawn, color in (("with_replacement", figures.COLORS[1]), ("without_replacement", figures.COLORS[2])):
        one = steps.sel(drawn=drawn)
        axes.plot(
            one["size"], np.where(one.noise > lowest, one.noise, np.nan), "o", markersize=4, color=color, label=drawn.replace("_", " ")
        )
        exact = np.array([theory.batch_noise_factor(size, n, sampler=drawn) for size in sizes.tolist()])
        figures.dashed(axes, sizes, exact, bounds=(lowest, 2.0), color=color)
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="E‖g$_B$ − g‖² / mean‖g$_i$ − g‖²", title="noise of a step")
    axes.set_ylim(lowest, 2.0)
    axes.legend(loc="lower left")


def _draw_dealt(axes: Axes, dealt: xr.Dataset, problem: Problem) -> None:
    epochs = dealt.step.values / dealt.attrs["steps_per_epoch"]
    for sampler, color in zip(dealt.sampler.values, (figures.COLORS[1], figures.COLORS[2], figures.COLORS[4]), strict=True):
        values = dealt.suboptimality.sel(sampler=sampler).mean("seed")
        axes.plot(epochs[1:], values[1:], color=color, label=str(sampler).replace("_", " "))
        exact = _exact_dealt(dealt, problem, str(sampler))
        figures.dashed(axes, epochs[1:], exact[1:], bounds=(1e-30, 1e30))
    low, high = float(dealt.suboptimality.mean("seed")[..., 2:].min()), float(dealt.suboptimality.mean("seed").max())
    axes.set(yscale="log", xlabel=figures.LABELS["epoch"], ylabel=figures.LABELS["suboptimality"], title="samplers, from x* on")
    axes.set_ylim(0.02 * low, 3.0 * high)
    axes.legend(loc="lower right")


def _draw_decays(axes: Axes, decays: xr.Dataset, problem: Problem) -> None:
    exact = _exact_decays(decays, problem)
    for row, (decay, color) in enumerate(zip(decays.decay.values, figures.COLORS[1::2], strict=False)):
        values = decays.suboptimality.sel(decay=decay).mean("seed")[1:]
        c = 0.0 if decay == 0 else float(decays.learning_rate * problem.strong_convexity / decay)
        axes.plot(values.step, values, color=color, label="constant rate" if decay == 0 else f"c μ = {c:.2g}")
        figures.dashed(axes, values.step.values, exact[row][values.step.values], bounds=(1e-30, 1e30))
    axes.set(xscale="log", yscale="log", xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], title="SGD, B = 1: O(1/t)?")
    axes.legend(loc="lower left")


def _draw_replay(axes: Axes, replay: xr.Dataset) -> None:
    updates, top = np.arange(1, replay.sizes["update"] + 1), 1e3 * float(replay.objective.isel(step=0).max())
    low = 0.7 * float(np.nanmin(replay.notebook))
    marked = np.unique(np.geomspace(1, len(updates), 12).astype(int))
    for index, (rate, color) in enumerate(zip(replay.learning_rate.values, figures.COLORS, strict=False)):
        own, engine = replay.notebook.isel(learning_rate=index).values, replay.objective.isel(learning_rate=index).values
        figures.trajectory(axes, updates, own, bounds=(low, top), color=color, label=f"η = {rate:.2g}", linewidth=0.8)
        kept = [update for update in marked if engine[update] < top]
        axes.plot(kept, engine[kept], "o", markersize=2.5, color=color)
    axes.set(xscale="log", yscale="log", ylim=(low, top), xlabel="update", ylabel="objective  J(θ$_t$)", title="the notebook's own batches")
    axes.legend(loc="upper right", ncols=1, handlelength=1.0, borderaxespad=0.0)


def _table(results: xr.DataTree, problem: Problem) -> Figure:
    """The page's table 3.4, its words beside what was measured."""
    steps, batch = results["steps"].to_dataset(), _minibatch(results)
    full, decays, sampled = (results[name].to_dataset() for name in ("full", "decays", "sampled"))
    n, p = steps.attrs["num_examples"], steps.attrs["num_parameters"]
    counted, noise = steps.flops.sel, steps.noise.sel(drawn="without_replacement")
    slopes = [finding.measured for finding in _decay_findings(decays, problem)]
    ends = [
        f"at a constant rate {float(sampled.suboptimality.sel(batch_size=size).isel(step=-1).mean()):.3g} after {sampled.epoch.max():.3g} "
        f"epochs, floor {theory.noise_floor(problem, float(full.learning_rate), int(size)):.3g}"
        for size in sampled.batch_size.values
    ]
    factor = float(theory.contraction(float(full.learning_rate), full.attrs["smoothness"], full.attrs["strong_convexity"])) ** 2
    kappa = float(problem.condition_number)
    cells = [
        ["", "cost of a step", "noise of a step", "convergence"],
        [
            f"Batch\n(n = {n})",
            f"page: O(np)\n{int(counted(size=n))} operations; with X′X: {steps.attrs['through_hessian']}",
            "page: none\n0",
            f"page: “linear rate O(κ$^t$)”, which is ×{kappa:.4g} a step\n×{factor:.5g} a step or better",
        ],
        [
            "SGD\n(B = 1)",
            f"page: O(p)\n{int(counted(size=1))} operations",
            "page: high\n1",
            f"page: “O(1/t) with decay”; its code has none\n{ends[0]}: t$^{{{round(slopes[0], 1) + 0.0:.0f}}}$\n"
            f"c/t, c μ = 2: t$^{{{slopes[2]:.2f}}}$;   c μ = 0.2: t$^{{{slopes[1]:.2f}}}$",
        ],
        [
            f"Mini-batch\n(B = {batch})",
            f"page: O(Bp)\n{int(counted(size=batch))} operations",
            f"page: moderate\n{float(noise.sel(size=batch)):.3g}; 1/B = {1 / batch:.3g}",
            f"page: balanced\n{ends[1]}",
        ],
    ]
    drawn, panels = figures.figure(1, width=7.2, height=2.5)
    _write(panels[0, 0], cells)
    figures.source(
        drawn,
        f"data: {problem.name}, p = {p}; noise: E‖g$_B$ − g‖² at the start over that of one example; η = {float(full.learning_rate):.3g}. "
        "Powers of t over the last factor of 4.",
    )
    return drawn


def _write(axes: Axes, cells: list[list[str]]) -> None:
    """A table: the page's words in orange above what was measured."""
    edges, heights = (0.0, 0.11, 0.35, 0.53), (0.5, 1.0, 1.3, 1.0)
    top = 0.0
    for row, height in zip(cells, heights, strict=True):
        for left, text in zip(edges, row, strict=True):
            first, _, rest = text.partition("\n")
            said = first.startswith("page:")
            style: dict[str, Any] = {"va": "top", "ha": "left", "fontsize": 7}
            axes.annotate(first, (left, -top - 0.12), color=figures.COLORS[1] if said else "black", **style)
            axes.annotate(rest, (left, -top - 0.45), color="black" if said else "0.4", **style)
        top += height
        axes.axhline(-top, color="0.8", linewidth=0.6)
    axes.set(xlim=(0, 1), ylim=(-top, 0))
    axes.axis("off")
