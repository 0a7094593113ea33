"""Quadratics with a spectrum that is prescribed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float

from gdjax import models
from gdjax.problems.arrays import module
from gdjax.records import InputError, Problem, several, whole

HESSIAN_LIMIT = 4096
"""Above this many parameters the Hessian is not formed unless asked for: p^2 numbers are 134 MB there."""


def designed_spectrum(eigenvalues: Float[ArrayLike, " p"], start: Float[ArrayLike, " p"] | None = None) -> Problem:
    """f(x) = x' diag(eigenvalues) x / 2, started at ones: any spectrum, and with it any rate, by construction.

    It is no mean over examples, so every sampler takes the full gradient. Its minimizer is 0 and its minimum 0.
    """
    xp = module(eigenvalues, start)
    spectrum = xp.asarray(eigenvalues, dtype=float)
    if spectrum.ndim != 1 or spectrum.size == 0:
        raise InputError(f"eigenvalues has shape {spectrum.shape}; give a sequence of one or more numbers.")
    if xp is np and not (np.isfinite(spectrum).all() and (spectrum >= 0).all() and (spectrum > 0).any()):
        raise InputError(f"eigenvalues must be finite and 0 or more, at least one above 0; given {spectrum.tolist()}.")
    begin = xp.ones_like(spectrum) if start is None else xp.asarray(start, dtype=float)
    if begin.shape != spectrum.shape:
        raise InputError(f"start has shape {begin.shape}, eigenvalues {spectrum.shape}: they must be alike.")
    return Problem(
        evaluate=models.diagonal_quadratic,
        name="designed_spectrum",
        parameter_names=tuple(f"x{j + 1}" for j in range(spectrum.size)),
        constants={"eigenvalues": spectrum},
        start=begin,
        minimizer=xp.zeros_like(spectrum),
        minimum=xp.zeros(()),
        smoothness=spectrum.max(),
        strong_convexity=xp.min(xp.where(spectrum > 0, spectrum, xp.inf)),
    )


def nesterov_worst_case(num_steps: int = 20, *, smoothness: float = 1.0, strong_convexity: float = 0.0) -> Problem:
    """Nesterov's worst quadratic for methods that take `num_steps` = t steps from 0 along gradients that they have seen.

    f(x) = L / 4 (x'Ax / 2 - x_1), A = tridiag(-1, 2, -1) in 2 t + 1 dimensions: after s steps only s coordinates have moved, so that
    f(x_t) - f* >= L / (16 (t + 1)), which conjugate gradients attain (Nesterov 2004, Thm 2.1.7). With mu = strong_convexity > 0 it is
    f(x) = (L - mu) / 4 (x'Ax / 2 - x_1) + mu ||x||^2 / 2 with minimizer x_i = r^i, r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1), and
    f(x_t) - f* >= mu / 2 r^(2t) ||x_0 - x*||^2 (Nesterov 2004, Thm 2.1.13). The theorem is about infinitely many dimensions;
    here there are so many that r^(2i) is below round-off, and the last 2 in A is 2 - r, which makes r^i the minimizer all the same.

    `smoothness` and `strong_convexity` say which functions it is the worst of: its own curvatures are between mu and L. Of the problem
    that is returned they are its own, as everywhere.

    >>> problem = nesterov_worst_case(3)
    >>> float(problem.objective(problem.start) - problem.minimum), float(problem.minimizer[0])
    (0.109375, 0.875)
    """
    t = whole("num_steps", num_steps)
    if (
        not all(isinstance(number, int | float) for number in (smoothness, strong_convexity))
        or not 0 <= strong_convexity < smoothness < np.inf
    ):
        raise InputError(f"smoothness={smoothness}, strong_convexity={strong_convexity} is not allowed: numbers with 0 <= mu < L.")
    root = np.sqrt(strong_convexity / smoothness)
    ratio = (1.0 - root) / (1.0 + root)
    dimension = 2 * t + 1 if root == 0.0 else max(2 * t + 1, t + int(np.ceil(-0.5 * np.log(1e18) / np.log(ratio))))
    if dimension > HESSIAN_LIMIT:
        raise InputError(
            f"num_steps={num_steps}, strong_convexity={strong_convexity} takes {dimension} dimensions: {HESSIAN_LIMIT} at most."
        )
    coupling, corner = 0.25 * (smoothness - strong_convexity), 2.0 if root == 0.0 else 2.0 - ratio
    chain = 2.0 * np.eye(dimension) - np.eye(dimension, k=1) - np.eye(dimension, k=-1)
    chain[-1, -1] = corner
    place = np.arange(1, dimension + 1)
    minimizer = 1.0 - place / (dimension + 1.0) if root == 0.0 else ratio**place
    hessian: Any = coupling * chain + strong_convexity * np.eye(dimension)
    curvatures = np.linalg.eigvalsh(hessian)
    return Problem(
        evaluate=models.chain_quadratic,
        name="nesterov_worst_case",
        parameter_names=tuple(f"x{i}" for i in place),
        constants={"coupling": coupling, "ridge": float(strong_convexity), "corner": corner},
        start=np.zeros(dimension),
        minimizer=minimizer,
        minimum=-0.5 * coupling * minimizer[0],  # f* = -b'x* / 2 for f = x'Hx / 2 - b'x
        smoothness=curvatures[-1],
        strong_convexity=curvatures[0],
        hessian=hessian,
    )


def gap_spectrum(*, num_parameters: int = 64, condition_number: float = 100.0, gap: float = 10.0) -> Problem:
    """`designed_spectrum` with L = 1, mu = 1 / condition_number, and all between evenly spread in their logarithm from gap * mu to L.

    The slowest mode is soon alone, so that curves show the rate of theory: with eigenvalues all the way down to mu they still look a
    fifth faster after 2 condition_number steps.

    >>> gap_spectrum(num_parameters=3, condition_number=1000.0).constants["eigenvalues"].round(9).tolist()
    [0.001, 0.01, 1.0]
    """
    number = whole("num_parameters", num_parameters, least=2)
    xp = module(condition_number, gap)
    if xp is np and not 1.0 <= several("condition_number", condition_number)[0] < np.inf:
        raise InputError(f"condition_number={condition_number} is not allowed: it is a number, 1 or more.")
    if xp is np and not 1.0 <= several("gap", gap)[0] <= condition_number:
        raise InputError(f"gap={gap} is not allowed: it is a number from 1 to the condition number, here {condition_number}.")
    others = (gap / condition_number) ** xp.linspace(1.0, 0.0, number - 1)
    spectrum = xp.concatenate([xp.reshape(xp.asarray(1.0 / condition_number), (1,)), others])
    return dataclasses.replace(designed_spectrum(spectrum), name="gap_spectrum")
