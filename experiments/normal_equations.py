"""The normal equations have an exact solution, of which a formula in floating point keeps more or fewer digits.

Claim
    The gradient is (2/n) X'(X theta - y) however it is taken, and gradient descent goes to where it is zero. Of the ways to go there
    directly, those that form X'X (inverse, Cholesky) lose kappa(X)^2 in accuracy; QR and the SVD lose kappa(X) where the residual is
    small.
Theory
    Relative errors of order eps kappa^2 for the normal equations, eps (kappa + kappa^2 tan phi) for QR and the SVD, with
    kappa = kappa(X), tan phi = ||X theta - y|| / ||X theta|| (Higham 2002, chapter 20). The page calls the normal equations "exact",
    the notebook the inversion "expensive for huge data sets": they square the condition number, X'X is p x p whatever n is, and
    inv(X'X) X'y is the least accurate of the four. That QR loses only kappa is true of small residuals.
Sweep
    Designs with a prescribed spectrum: condition numbers x residuals x draws. What is exact comes from rational arithmetic.
Expect
    Errors along dashed lines eps kappa and eps kappa^2; Cholesky breaks down where eps kappa^2 is 1. With a large residual all four
    follow eps kappa^2.
Command
    gdjax experiment=normal_equations
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, theory
from gdjax.program import precision
from gdjax.records import Finding, InputError, Problem, whole

EPS = float(np.finfo(float).eps)
DESIGN = (20, 4)
"""Examples and features of a design with a prescribed spectrum."""

HIGHEST = 1e12
"""The largest condition number."""

MOST_RATIONALS = 2_000_000
"""Products of rational numbers (about 2 us each) beyond which the given problem's exact solution is not computed."""


def inverse(X: Float[Array, "n p"], y: Float[Array, " n"]) -> Float[Array, " p"]:
    """(X'X)^-1 X'y as it is written, the notebook's choice."""
    return jnp.linalg.inv(X.T @ X) @ (X.T @ y)


def cholesky(X: Float[Array, "n p"], y: Float[Array, " n"]) -> Float[Array, " p"]:
    """Solve X'X theta = X'y with X'X = LL'; NaN where rounding has made X'X indefinite."""
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(X.T @ X), True), X.T @ y)


def qr(X: Float[Array, "n p"], y: Float[Array, " n"]) -> Float[Array, " p"]:
    """Solve R theta = Q'y with X = QR; NaN where X has fewer rows than columns."""
    if X.shape[0] < X.shape[1]:
        return jnp.full(X.shape[1], jnp.nan)
    Q, R = jnp.linalg.qr(X)
    return jax.scipy.linalg.solve_triangular(R, Q.T @ y)


def svd(X: Float[Array, "n p"], y: Float[Array, " n"]) -> Float[Array, " p"]:
    """theta = V S^-1 U'y with X = USV'; of a collinear X the solution of least norm."""
    return jnp.linalg.lstsq(X, y)[0]


SOLVERS = {"inverse of X'X": inverse, "Cholesky of X'X": cholesky, "QR": qr, "SVD": svd}
LOSS = {"inverse of X'X": (2, 2), "Cholesky of X'X": (2, 2), "QR": (1, 2), "SVD": (1, 2)}
"""The power of kappa(X) that a solver loses, without a residual and with one as large as the fit."""


def run(
    problem: Problem,
    sweep: Callable[..., xr.Dataset],
    *,
    num_steps: int | None = None,
    num_condition_numbers: int = 25,
    num_designs: int = 8,
) -> xr.DataTree:
    """Take the problem's gradient in five ways, solve it in four and by descent, and solve designs of every condition number."""
    if not theory.is_least_squares(problem):
        raise InputError(f"experiment normal_equations is about linear least squares, which {problem.name} is not.")
    steps = min(10_000, int(theory.steps_at_optimal_rate(problem.condition_number, 1e-16))) if num_steps is None else num_steps
    rate = theory.optimal_rate(problem.smoothness, problem.strong_convexity)
    descent = sweep(problem, sampler="full", num_steps=steps, record_every=steps, learning_rate=rate)
    X, y = (np.asarray(part) for part in problem.data)
    affordable = X.shape[0] * X.shape[1] ** 2 <= MOST_RATIONALS
    solved = {
        "solution": (("solver", "parameter"), _solve_all(X[None], y[None])[:, 0]),
        "exact": ("parameter", theory.exact_least_squares(X, y) if affordable else np.full(X.shape[1], np.nan)),
    }
    names = {"solver": list(SOLVERS), "parameter": descent.parameter.values}
    kappas = np.geomspace(1.0, HIGHEST, whole("num_condition_numbers", num_condition_numbers, least=10))
    return xr.DataTree.from_dict(
        {
            "gradient": _gradients(problem, descent.parameter.values),
            "descent": descent,
            "solved": xr.Dataset(solved, names),
            "designs": _designs(kappas, whole("num_designs", num_designs)),
        }
    )


def check(results: xr.DataTree, problem: Problem) -> list[Finding]:
    """Compare the gradients with each other, the losses of accuracy with theory, descent with the closed form."""
    return [
        *_gradient_findings(results["gradient"].to_dataset(), problem),
        *_design_findings(results["designs"].to_dataset()),
        *_solution_findings(results["solved"].to_dataset(), problem),
        _descent_finding(results, problem),
    ]


@figures.paper
def draw(results: xr.DataTree, problem: Problem) -> dict[str, Figure]:
    """The data with the solution; errors against the condition number, without a residual and with one as large as the fit."""
    drawn, panels = figures.figure(3, width=7.2, height=2.8, gridspec_kw={"width_ratios": (0.9, 1, 1)})
    _draw_fit(panels[0, 0], problem, results["solved"].to_dataset().solution.sel(solver="SVD").values)
    designs = results["designs"].to_dataset()
    for axes, residual in zip(panels[0, 1:], designs.residual.values, strict=True):
        _draw_errors(axes, designs.relative_error.sel(residual=residual))
        kappa = np.sqrt(float(problem.condition_number))
        axes.axvline(kappa, color="0.6", linewidth=0.7)
        axes.annotate("these data", (kappa, 1e2), xytext=(2, -1), textcoords="offset points", fontsize=6.5, color="0.4", va="top")
    panels[0, 2].legend(loc="lower right")
    figures.source(
        drawn,
        f"data: {problem.name}, n = {problem.num_examples}, κ(X) = √{float(problem.condition_number):.4g}. Middle, right: "
        f"{DESIGN[0]} × {DESIGN[1]} designs of prescribed spectrum, geometric mean of {designs.sizes['draw']} draws,\n"
        "against the exact solution in rational arithmetic. Dashed: ε κ and ε κ², with ε = 2.2e-16 (Higham 2002, ch. 20). "
        "Triangles: no factorization, or no digit left.",
    )
    return {"normal_equations": drawn}


def _solve_all(X: Float[np.ndarray, "systems n p"], y: Float[np.ndarray, "systems n"]) -> Float[np.ndarray, "solvers systems p"]:
    """Every solver on every system, in float64 whatever the sweep's precision is: what is studied is 2.2e-16."""
    with precision("float64"):
        return np.asarray(_every_solver(X, y))


@jax.jit
def _every_solver(X: Float[Array, "systems n p"], y: Float[Array, "systems n"]) -> Float[Array, "solvers systems p"]:
    return jnp.stack([jax.vmap(solve)(X, y) for solve in SOLVERS.values()])


def _designs(kappas: Float[np.ndarray, " kappas"], num_designs: int) -> xr.Dataset:
    """The solvers' relative errors on X = U diag(1 .. 1/kappa) V', y = X theta + residual, with residual orthogonal to X."""
    rng, (n, p) = np.random.default_rng(0), DESIGN
    shape = (2, len(kappas), num_designs)
    U, V = np.linalg.qr(rng.normal(size=(*shape, n, p + 1)))[0], np.linalg.qr(rng.normal(size=(*shape, p, p)))[0]
    spectra = kappas[:, None] ** -np.linspace(0.0, 1.0, p)
    X = (U[..., :p] * spectra[:, None, None, :]) @ V.swapaxes(-1, -2)
    fit = np.einsum("...np,...p->...n", X, rng.normal(size=(*shape, p)))
    size = np.array([0.0, 1.0])[:, None, None, None] * np.linalg.norm(fit, axis=-1, keepdims=True)
    X, y = X.reshape(-1, n, p), (fit + size * U[..., p]).reshape(-1, n)
    exact = np.stack([theory.exact_least_squares(*system) for system in zip(X, y, strict=True)])
    error = np.linalg.norm(_solve_all(X, y) - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    coordinates = {"solver": list(SOLVERS), "residual": [0.0, 1.0], "condition_number": kappas}
    dims = ("solver", "residual", "condition_number", "draw")
    return xr.Dataset({"relative_error": (dims, error.reshape(len(SOLVERS), *shape))}, coordinates)


def _gradients(problem: Problem, names: Any) -> xr.Dataset:
    """The gradient in five ways, at the start and at points about as far from the minimizer."""
    X, y = (np.asarray(part) for part in problem.data)
    start, minimizer = np.asarray(problem.start), np.asarray(problem.minimizer)
    points = np.stack([start, *(minimizer + np.random.default_rng(0).normal(size=(3, start.size)) * (start - minimizer))])
    with precision("float64"):
        autodiff = jax.vmap(jax.grad(lambda theta: jnp.mean(jnp.square(jnp.asarray(X) @ theta - y))))(points)
        ways = {
            "matrix": np.stack([2.0 / len(X) * X.T @ (X @ theta - y) for theta in points]),
            "componentwise": np.stack([_componentwise(X, y, theta) for theta in points]),
            "autodiff": np.asarray(autodiff),
            "finite differences": np.stack([_finite_differences(X, y, theta) for theta in points]),
            "gdjax": np.stack([np.asarray(problem.gradient(theta)) for theta in points]),
        }
    variables = {"gradient": (("way", "point", "parameter"), np.stack([*ways.values()])), "params": (("point", "parameter"), points)}
    return xr.Dataset(variables, {"way": [*ways], "parameter": names})


def _componentwise(X: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """dJ/dw_j = (2/n) sum_i (yhat_i - y_i) x_ij, the page's section 2.2; with x_i0 = 1 the first is dJ/db = (2/n) sum_i (yhat_i - y_i)."""
    error = sum(theta[j] * X[:, j] for j in range(theta.size)) - y
    return np.array([2.0 / len(X) * np.sum(error * X[:, j]) for j in range(theta.size)])


def _finite_differences(X: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """(J(theta + h) - J(theta - h)) / 2h for each parameter: exact on a quadratic, so against rounding h is large, sqrt(J / mean x_j^2)."""

    def cost(theta: np.ndarray) -> float:
        return float(np.mean((X @ theta - y) ** 2))

    widths = np.sqrt(max(cost(theta), EPS) / np.maximum(np.mean(X**2, axis=0), EPS))
    return np.array([(cost(theta + h) - cost(theta - h)) / (2.0 * h[j]) for j, h in enumerate(np.diag(widths))])


def _gradient_findings(gradient: xr.Dataset, problem: Problem) -> list[Finding]:
    X, y = (np.asarray(part) for part in problem.data)
    residual = gradient.params.values @ X.T - y
    scale = np.sqrt(np.mean(residual**2, axis=1, keepdims=True) * np.mean(X**2, axis=0, keepdims=True))
    by_matrix = gradient.gradient.sel(way="matrix").values
    return [
        Finding(
            claim=f"gradient by {way} is (2/n) X'(X theta - y): deviation over rms residual x feature (absolute)",
            predicted=0.0,
            measured=float(np.max(np.abs(gradient.gradient.sel(way=way).values - by_matrix) / np.where(scale > 0, scale, 1.0))),
            tolerance=1e-11,
            source="derivative of J = (1/n) ||X theta - y||^2; notebook section 4, page section 2.2",
        )
        for way in gradient.way.values[1:]
    ]


def _design_findings(designs: xr.Dataset) -> list[Finding]:
    """Slopes within 0.15 at 25 x 8 designs: over 12 other seeds they had a standard deviation of 0.03."""
    slack = 0.15 * np.sqrt(200.0 / designs.relative_error.isel(solver=0, residual=0).size)
    said = {0.0: "no residual", 1.0: "a residual as large as the fit"}
    slopes = [
        Finding(
            claim=f"{solver}, {said[residual]}: error grows with kappa(X) to the power",
            predicted=float(LOSS[solver][int(residual)]),
            measured=growth_power(designs.relative_error.sel(solver=solver, residual=residual)),
            tolerance=float(slack / LOSS[solver][int(residual)]),
            source="Higham 2002, chapter 20: eps kappa^2 by the normal equations, eps (kappa + kappa^2 tan phi) else",
        )
        for residual in said
        for solver in SOLVERS
    ]
    solvable = designs.relative_error.sel(residual=0.0, condition_number=slice(1.0, 1e7))
    by_inverse, by_cholesky = (geometric_mean(solvable.sel(solver=solver)) for solver in ("inverse of X'X", "Cholesky of X'X"))
    least = Finding(
        claim="no residual: error of the inverse over that of Cholesky, geometric mean below kappa(X) = 1e7",
        predicted=1.0,
        measured=float(np.exp(np.nanmean(np.log(by_inverse / by_cholesky)))),
        tolerance=0.0,
        source="the inverse is the least accurate choice (Higham 2002, section 14.1)",
        kind="at_least",
    )
    return [*slopes, least]


def growth_power(error: xr.DataArray) -> float:
    """The slope of log error against log kappa, where the error is above rounding and some digits are left."""
    level = geometric_mean(error)
    seen = (level > 100.0 * EPS) & (level < 1e-2)
    return float(np.polyfit(np.log(error.condition_number.values[seen]), np.log(level[seen]), 1)[0])


def geometric_mean(error: xr.DataArray) -> np.ndarray:
    """The typical error over draws; NaN where any of them broke down."""
    return np.exp(np.log(np.maximum(error.values, EPS / 16)).mean(axis=error.get_axis_num("draw")))


def _solution_findings(solved: xr.Dataset, problem: Problem) -> list[Finding]:
    """Bounds with the constant n, wherever they leave a digit and the exact solution is known."""
    X, y = (np.asarray(part) for part in problem.data)
    exact, lost = solved.exact.values, {2: "kappa^2", 1: "(kappa + kappa^2 tan phi)"}
    if not np.isfinite(exact).all():
        return []
    fit = X @ exact
    kappa, tangent = np.linalg.cond(X), np.linalg.norm(y - fit) / np.linalg.norm(fit)
    bounds = {name: len(X) * EPS * (kappa**2 if power == 2 else kappa + kappa**2 * tangent) for name, (power, _) in LOSS.items()}
    return [
        Finding(
            claim=f"{solver}: relative error on the given data is below n eps {lost[LOSS[solver][0]]}",
            predicted=float(bound),
            measured=float(np.linalg.norm(solved.solution.sel(solver=solver) - exact) / np.linalg.norm(exact)),
            tolerance=0.0,
            source="Higham 2002, chapter 20; the exact solution by rational arithmetic",
            kind="at_most",
        )
        for solver, bound in bounds.items()
        if bound < 1.0
    ]


def _descent_finding(results: xr.DataTree, problem: Problem) -> Finding:
    """Gradient descent ends where its eigenmodes put it around the closed form."""
    descent = results["descent"].to_dataset()
    steps, rate = int(descent.step[-1]), float(descent.learning_rate)
    left = theory.gradient_descent_errors(theory.modes(problem), rate, np.array([steps]))[0, 0] @ theory.eigenvectors(problem)[1].T
    solution = results["solved"].to_dataset().solution.sel(solver="SVD").values
    deviation = np.linalg.norm(descent.params.values - (solution + left)) / np.linalg.norm(problem.start - solution)
    return Finding(
        claim=f"{steps} steps of descent at 2 / (L + mu) end at the closed form, but for {np.linalg.norm(left):.1e} left in its modes: "
        "deviation relative to the start's distance (absolute)",
        predicted=0.0,
        measured=float(deviation),
        tolerance=analysis.ROUND_OFF[descent.attrs["precision"]][1],
        source="theta_t = theta* + V (1 - eta lambda)^t V'(theta_0 - theta*), Polyak 1964",
    )


def _draw_fit(axes: Axes, problem: Problem, theta: np.ndarray) -> None:
    """The data and the line through them where there is one feature; else what is observed against what is fitted."""
    X, y = (np.asarray(part) for part in problem.data)
    line = X.shape[1] == 2 and bool(np.all(X[:, 0] == 1.0))
    x = X[:, 1] if line else X @ theta
    shown = np.linspace(0, len(y) - 1, min(len(y), 2000)).astype(int)
    axes.plot(x[shown], y[shown], ".", markersize=3, color=figures.COLORS[5], label="data")
    ends = np.array([x.argmin(), x.argmax()])
    axes.plot(x[ends], (X @ theta)[ends], color="black", label="(X'X)⁻¹X'y" if line else "observed = fitted")
    axes.set(xlabel="feature x" if line else "fitted Xθ*", ylabel="observed y")
    axes.set_title(f"y = {theta[0]:.4g} + {theta[1]:.4g} x,  J = {problem.minimum:.4g}" if line else f"J(θ*) = {problem.minimum:.4g}")
    axes.legend(loc="upper left")


def _draw_errors(axes: Axes, error: xr.DataArray) -> None:
    """Hollow marks under small ones, since solvers of a kind agree."""
    kappas, bounds, small = error.condition_number.values, (EPS / 16, 1e2), float(error.residual) == 0.0
    for power in (1, 2) if small else (2,):
        reach = np.geomspace(1.0, min(kappas[-1], EPS ** (-1.0 / power)), 2)
        figures.dashed(axes, reach, EPS * reach**power, bounds=bounds)
        at = 1e10 if power == 1 else 1e4
        name = {"ha": "right", "va": "bottom", "fontsize": 7}
        axes.annotate("ε κ" if power == 1 else "ε κ²", (at, EPS * at**power), xytext=(-2, 1), textcoords="offset points", **name)
    marks = [("o", 4.5, "none"), ("s", 2, None), ("v", 4.5, "none"), ("D", 2, None)]
    for solver, color, (marker, size, face) in zip(error.solver.values, figures.COLORS, marks, strict=False):
        level = geometric_mean(error.sel(solver=solver))
        kept = level < 1.0
        look: dict[str, Any] = {"color": color, "markerfacecolor": face or color, "linewidth": 0.8}
        axes.plot(kappas[kept], level[kept], marker=marker, markersize=size, label=solver, **look)
        axes.plot(kappas[~kept], np.full(np.count_nonzero(~kept), 1.0), "^", markersize=3 if face is None else 5, **look)
    axes.set(xscale="log", yscale="log", xlabel="condition number κ(X)", ylabel="relative error of θ" if small else "", ylim=bounds)
    axes.set_title("no residual" if small else "residual as large as the fit")
