"""The traps of the page's training code raise no error, and each does something exact that looks like something else.

Claim
    Gradients that are never set to zero do not diverge; shapes that broadcast do, or fit nothing, or report a loss that is not there.
Theory
    - Without zero_grad (page section 4, "gradients grow, leading to divergence"): the heavy ball with momentum 1, of each mode an undamped
      cosine, bounded for ever as long as eta L < 4: twice the limit with zero_grad, and just what the page's section 2.3 calls that limit.
    - Targets of shape (n,) against predictions (n, 1) are n x n, in JAX as in PyTorch; with jax_numpy_rank_promotion="raise" JAX refuses
      them. The page's batch descent (section 3.1, with the
      targets of section 4) then trains n columns of weights that share a bias, whose step is n times too long: it looks like too high a
      rate. A loss so reported (its sgd, its pipeline's predict) is the right one plus 2 cov(prediction, target).
    - Predictions (B,) against targets (B, 1), the canonical loop of its summary: mean_ij (f_i - y_j)^2 = mean_i (f_i - ybar)^2 + var y, so
      that descent ends at the constant ybar.
    - Its batch descent logs the loss before the update, its other functions and the notebook after: the last entry is one update old.
Sweep
    None: one run a trap, on at most 500 rows of what broadcasts to n x n.
Expect
    A cosine, a wall, and a fit that forgets its features, each on its dashed closed form.
Command
    gdjax experiment=training_traps problem=page_data problem.num_examples=400
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, problems, theory
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, whole

MOST_ROWS = 500
"""Rows that are given to what broadcasts to n x n."""

LARGEST = 1e250
"""Losses that grow are compared up to here."""


def accumulated(learning_rate: float) -> optax.GradientTransformation:
    """x_{t+1} = x_t - eta sum of all gradients so far: PyTorch without zero_grad."""
    return optax.chain(optax.trace(decay=1.0), optax.scale_by_learning_rate(learning_rate))


@functools.partial(jax.jit, static_argnames="num_steps")
def page_batch(
    X: Float[Array, "n p"], y: Float[Array, "n ..."], rate: float, num_steps: int
) -> tuple[Float[Array, " steps"], Float[Array, "p columns"], Float[Array, " 1"]]:
    """The page's `batch_gradient_descent` (section 3.1), line by line: losses logged before each update, w and b after the last."""
    n, columns = X.shape[0], jnp.broadcast_shapes((X.shape[0], 1), y.shape)[1]  # 1, or n where y has shape (n,)

    def step(params: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        w, b = params
        error = X @ w + b - y
        return (w - rate * (2.0 / n) * (X.T @ error), b - rate * (2.0 / n) * jnp.sum(error)), jnp.mean(error**2)

    (w, b), history = jax.lax.scan(step, (jnp.zeros((X.shape[1], columns)), jnp.zeros(1)), length=num_steps)
    return history, w, b


@functools.partial(jax.jit, static_argnames="num_steps")
def squeezed(
    X: Float[Array, "n p"], y: Float[Array, " n"], start: Float[Array, " p"], rate: float, num_steps: int
) -> Float[Array, "steps+1 p"]:
    """Descent with predictions (n,) against targets (n, 1), by autodiff: the loss is over all pairs."""

    def loss(theta: Array) -> Array:
        return jnp.mean(((X @ theta)[None, :] - y[:, None]) ** 2)

    def step(theta: Array, _: None) -> tuple[Array, Array]:
        theta = theta - rate * jax.grad(loss)(theta)
        return theta, theta

    return jnp.concatenate([start[None], jax.lax.scan(step, start, length=num_steps)[1]])


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int = 100,
    learning_rate: float | None = None,
    num_accumulated: int = 20_000,
) -> xr.DataTree:
    """Step into every trap.

    Parameters
    ----------
    num_steps
        Of what broadcasts, 2 or more.
    learning_rate
        By default the page's 0.01, or a third of 2 / L where that is lower.
    num_accumulated
        Updates without zero_grad.
    """
    if not theory.is_least_squares(problem) or not np.all(problem.data[0][:, 0] == 1.0) or np.size(problem.start) < 2:
        raise InputError(f"experiment training_traps is about the fit of a line, which {problem.name} is not.")
    rate = min(0.01, theory.stability_edge(problem.smoothness) / 3.0) if learning_rate is None else learning_rate
    if not rate > 0:
        raise InputError(f"learning_rate={rate} is not allowed: this experiment needs one above 0.")
    swinging = sweep(
        problem, method=accumulated, sampler="full", num_steps=whole("num_accumulated", num_accumulated), record_every=1, learning_rate=rate
    )
    with precision("float64"), jax.numpy_rank_promotion("allow"):
        broadcast = _broadcast(some_rows(problem), rate, whole("num_steps", num_steps, least=2))
    return xr.DataTree.from_dict({"accumulated": swinging, "broadcast": broadcast})


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Every trap does what its closed form says."""
    one, some = results["broadcast"].to_dataset(), some_rows(problem)
    return [
        *_accumulated_findings(results["accumulated"].to_dataset(), problem),
        *_targets_findings(one, some),
        *_predictions_findings(one, some),
        *_log_findings(one, some),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """A panel for gradients that add up, one for targets and one for predictions that broadcast."""
    drawn, panels = figures.figure(3, width=7.2, height=2.8)
    _draw_accumulated(panels[0, 0], results["accumulated"].to_dataset(), problem)
    one, some = results["broadcast"].to_dataset(), some_rows(problem)
    _draw_targets(panels[0, 1], one, some)
    _draw_predictions(panels[0, 2], one, some)
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}; η = {float(one.learning_rate):.3g}, 2/L = "
        f"{theory.stability_edge(problem.smoothness):.4g}. Dashed: exact theory (middle: the growth in the end). Triangle: a run that "
        f"diverges.\nLeft: the highest of {int(results['accumulated'].step[-1]):,} steps is "
        f"{float(results['accumulated'].suboptimality.max()):.4g}.",
    )
    return {"training_traps": drawn}


def some_rows(problem: Problem) -> Problem:
    """The problem on its first rows, so few that n x n numbers are no trouble."""
    if problem.num_examples <= MOST_ROWS:
        return problem
    X, y = (np.asarray(part)[:MOST_ROWS] for part in problem.data)
    return problems.least_squares(X[:, 1:], y)


def _broadcast(some: Problem, rate: float, num_steps: int) -> xr.Dataset:
    """The page's batch descent on targets (n, 1) and (n,), what its fit is reported to lose, and descent on squeezed predictions."""
    X, y = (jnp.asarray(part) for part in some.data)
    right, w, b = page_batch(X[:, 1:], y[:, None], rate, num_steps)
    wrong, columns, _ = page_batch(X[:, 1:], y, rate, num_steps)
    fitted = np.asarray(X[:, 1:] @ w + b)
    path = np.asarray(squeezed(X, y, jnp.asarray(some.start), rate, num_steps))
    hessian = 2.0 * some.data[0].T @ some.data[0] / len(y)
    variables = {
        "right": ("entry", np.asarray(right)),
        "wrong": ("entry", np.asarray(wrong)),
        "num_weights": ((), columns.size),
        "fitted": ("row", fitted[:, 0]),
        "reported": ((), np.mean((fitted - np.asarray(y)) ** 2)),  # (n, 1) against (n,)
        "path": (("step", "parameter"), path),
        "end": ("parameter", path[0] + np.linalg.lstsq(hessian, (path[1] - path[0]) / rate, rcond=None)[0]),  # by a Newton step
    }
    return xr.Dataset(variables, {"learning_rate": rate})


def _accumulated_findings(swinging: xr.Dataset, problem: Problem) -> list[Finding]:
    modes, rate, steps = theory.modes(problem), float(swinging.learning_rate), swinging.step.values
    if rate * swinging.attrs["smoothness"] >= 4.0:
        return []
    exact = theory.accumulated_gradient(modes, rate, steps)
    highest = 0.5 * np.sum(modes.curvatures * modes.start**2 / (1.0 - 0.25 * rate * modes.curvatures))  # cos^2(omega / 2)
    slack = analysis.ROUND_OFF[swinging.attrs["precision"]][1]
    return [
        Finding(
            claim=f"no zero_grad, {steps[-1]} updates: largest deviation of J from its modes' cosines, over J at the start (absolute)",
            predicted=0.0,
            measured=float(np.max(np.abs(swinging.suboptimality.values - exact)) / swinging.objective.isel(step=0)),
            tolerance=slack,
            source="heavy ball with momentum 1: c cos(omega (t + 1/2)) / cos(omega / 2), cos omega = 1 - eta lambda / 2",
        ),
        Finding(
            claim=f"no zero_grad, {steps[-1]} updates: highest J - J*, which does not diverge as the page says",
            predicted=float(highest),
            measured=float(swinging.suboptimality.max()),
            tolerance=slack,
            source="sum_i lambda_i c_i^2 / (2 cos^2(omega_i / 2)); page section 4, level 2",
            kind="at_most",
        ),
    ]


def broadcast_radius(some: Problem, rate: float) -> float:
    """The growth in a step of the page's batch descent on targets (n,), where n columns of weights share a bias.

    The bias and the mean column follow (b, w) <- (b, w) - 2 eta [[n, n xbar'], [xbar, X'X/n]] (b, w) + const; each column's own part
    follows plain descent without a bias.
    """
    X = np.asarray(some.data[0])
    step = X.T @ X / len(X)
    step[0] *= len(X)
    return float(np.max(np.abs(np.linalg.eigvals(np.eye(len(step)) - 2.0 * rate * step))))


def _targets_findings(one: xr.Dataset, some: Problem) -> list[Finding]:
    n, features = some.num_examples, np.size(some.start) - 1
    y, fitted = np.asarray(some.data[1]), one.fitted.values
    findings = [
        Finding(
            claim=f"targets of shape ({n},): weights that the page's batch descent trains for {features} features",
            predicted=float(n * features),
            measured=float(one.num_weights),
            tolerance=0.0,
            source="(n, 1) - (n,) broadcasts to n x n, silently; page section 3.1 on the data of section 4",
        ),
        Finding(
            claim="predictions (n, 1) against targets (n,): mean((prediction - y)^2) as reported",
            predicted=float(np.mean((fitted - y) ** 2) + 2.0 * np.mean((fitted - fitted.mean()) * (y - y.mean()))),
            measured=float(one.reported),
            tolerance=1e-10,
            source="mean_ij (f_i - y_j)^2 = mean_i (f_i - y_i)^2 + 2 cov(f, y); page sections 3.2 and 4, predict",
        ),
    ]
    radius, log = broadcast_radius(some, float(one.learning_rate)), one.wrong.values
    last = int(np.flatnonzero(log < LARGEST)[-1])
    if radius < 1.1 or radius ** (2 * last) < 1e20:
        return findings  # it need not grow, or has not for long
    grows = Finding(
        claim=f"targets of shape ({n},): growth of the error in a step of the page's batch descent, which looks like too high a rate",
        predicted=radius,
        measured=float(np.sqrt(log[last] / log[last - 1])),
        tolerance=1e-6,
        source="spectral radius of I - 2 eta [[n, n xbar'], [xbar, X'X/n]]; |1 - 2 eta n| for centred columns",
    )
    return [*findings, grows]


def _predictions_findings(one: xr.Dataset, some: Problem) -> list[Finding]:
    exact, (X, y) = _squeezed_exact(one, some), (np.asarray(part) for part in some.data)
    return [
        Finding(
            claim="predictions (B,) against targets (B, 1): descent goes to a constant; deviation over the largest parameter (absolute)",
            predicted=0.0,
            measured=float(np.max(np.abs(one.path.values - exact)) / np.max(np.abs(exact))),
            tolerance=1e-9,
            source="mean_ij (f_i - y_j)^2 = mean_i (f_i - ybar)^2 + var y; page's canonical loop",
        ),
        Finding(
            claim="predictions (B,) against targets (B, 1): J where it ends, which is all of y's variance",
            predicted=float(np.var(y)),
            measured=float(np.mean((X @ one.end.values - y) ** 2)),
            tolerance=1e-8,
            source="f = ybar minimises mean_ij (f_i - y_j)^2",
        ),
    ]


def _squeezed_exact(one: xr.Dataset, some: Problem) -> Float[np.ndarray, "steps p"]:
    """theta_t = (ybar, 0) + V (1 - eta lambda)^t V'(theta_0 - (ybar, 0))."""
    curvatures, vectors = theory.eigenvectors(some)
    end = np.append(np.mean(some.data[1]), np.zeros(np.size(some.start) - 1))
    modes = theory.Modes(curvatures, vectors.T @ (np.asarray(some.start) - end))
    return end + theory.gradient_descent_errors(modes, float(one.learning_rate), np.arange(one.sizes["step"]))[0] @ vectors.T


def _log_findings(one: xr.Dataset, some: Problem) -> list[Finding]:
    steps, minimum = one.sizes["entry"], float(np.asarray(some.minimum))
    exact = minimum + theory.gradient_descent(theory.modes(some), float(one.learning_rate), np.array([steps - 1, steps]))[0]
    return [
        Finding(
            claim=f"a loss logged before the update: the last of {steps} entries, where J is {exact[1]:.6g} by then",
            predicted=float(exact[0]),
            measured=float(one.right[-1]),
            tolerance=1e-8,
            source="J after one update less, by its modes (Polyak 1964); page section 3.1 against 3.2, 3.3 and the notebook",
        )
    ]


def _draw_accumulated(axes: Axes, swinging: xr.Dataset, problem: Problem) -> None:
    """Some periods of the fastest mode, of the 20,000 steps that are checked."""
    rate, modes = float(swinging.learning_rate), theory.modes(problem)
    turn = np.arccos(np.clip(1.0 - 0.5 * rate * modes.curvatures.max(), -1.0, 1.0))
    shown = swinging.isel(step=slice(0, max(20, int(6 * 2 * np.pi / turn))))
    steps, highest = shown.step.values, float(shown.suboptimality.max())
    axes.plot(steps, shown.suboptimality, color=figures.COLORS[1], linewidth=2.0, label="no zero_grad")
    axes.plot(steps, theory.gradient_descent(modes, rate, steps)[0], color=figures.COLORS[0], label="with zero_grad")
    figures.dashed(axes, steps, theory.accumulated_gradient(modes, rate, steps), bounds=(0.0, 2.0 * highest), label="cosines")
    axes.set(xlabel=figures.LABELS["step"], ylabel=figures.LABELS["suboptimality"], ylim=(0, 1.6 * highest))
    axes.set_title("gradients never set to zero")
    axes.legend(loc="upper right")


def _draw_targets(axes: Axes, one: xr.Dataset, some: Problem) -> None:
    log, entries = one.wrong.values, one.entry.values + 1 if "entry" in one.coords else np.arange(1, one.sizes["entry"] + 1)
    bounds = (0.3 * float(min(one.right.min(), log[np.isfinite(log)].min())), 1e12 * float(log[0]))
    figures.trajectory(axes, entries, log, bounds=bounds, color=figures.COLORS[1], label="y of shape (n,)", linewidth=2.0)
    figures.trajectory(axes, entries, one.right.values, bounds=bounds, color=figures.COLORS[0], label="y of shape (n, 1)")
    radius = broadcast_radius(some, float(one.learning_rate))
    last = int(np.flatnonzero(log < min(LARGEST, bounds[1]))[-1])
    if radius > 1.1:
        with np.errstate(over="ignore"):
            figures.dashed(
                axes, entries, log[last] * radius ** (2.0 * (entries - entries[last])), bounds=bounds, label=f"×{radius:.3g} a step"
            )
    axes.set(xscale="log", yscale="log", xlabel="entry of the log", ylabel="loss as logged", ylim=bounds, title="targets that broadcast")
    axes.legend(loc="best")


def _draw_predictions(axes: Axes, one: xr.Dataset, some: Problem) -> None:
    X, y = (np.asarray(part) for part in some.data)
    cost, exact = (np.mean((path @ X.T - y) ** 2, axis=-1) for path in (one.path.values, _squeezed_exact(one, some)))
    right = theory.gradient_descent(theory.modes(some), float(one.learning_rate), np.arange(one.sizes["step"]))[0]
    axes.plot(cost, color=figures.COLORS[1], linewidth=2.0, label="f (B,), y (B, 1)")
    axes.plot(right + float(np.asarray(some.minimum)), color=figures.COLORS[0], label="f (B,), y (B,)")
    figures.dashed(axes, np.arange(len(exact)), exact, bounds=(0.1 * exact.min(), exact.max()), label="exact")
    axes.axhline(float(np.var(y)), color="0.4", linewidth=0.9, linestyle=":")
    style: Any = {"xytext": (0, -2), "textcoords": "offset points", "ha": "left", "va": "top", "fontsize": 6.5, "color": "0.4"}
    axes.annotate("variance of y", (0, np.var(y)), **style)
    axes.set(yscale="log", xlabel=figures.LABELS["step"], ylabel="objective  J(θ$_t$)", title="predictions that broadcast")
    axes.legend(loc="best")
