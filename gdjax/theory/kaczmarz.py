"""Randomized Kaczmarz: projections onto the rows of A x = b, row i with probability ||a_i||^2 / ||A||_F^2."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float

from gdjax.theory import moments


def row_probabilities(A: Float[ArrayLike, "n p"]) -> Float[np.ndarray, " n"]:
    """||a_i||^2 / ||A||_F^2.

    >>> row_probabilities([[3.0, 4.0], [0.0, 5.0]]).tolist()
    [0.5, 0.5]
    """
    squares = np.sum(np.asarray(A, dtype=float) ** 2, axis=1)
    return squares / squares.sum()


def kaczmarz_contraction(A: Float[ArrayLike, "n p"]) -> float:
    """1 - sigma_min^2 / ||A||_F^2, with the smallest singular value that is not zero: the factor of E||e||^2 in a step is at most this.

    Strohmer and Vershynin 2009, Thm 2, for a solution of A x = b and a start in the span of A's rows.

    >>> round(kaczmarz_contraction(np.diag([1.0, 2.0])), 12)
    0.8
    """
    singular = np.linalg.svd(np.asarray(A, dtype=float), compute_uv=False)
    present = singular[singular > singular[0] * max(np.shape(A)) * np.finfo(float).eps]
    return float(1.0 - (present[-1] / np.linalg.norm(singular)) ** 2)


def kaczmarz_distance(
    A: Float[ArrayLike, "n p"],
    residual: Float[ArrayLike, " n"],
    error: Float[ArrayLike, " p"],
    num_steps: int,
    *,
    probabilities: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " steps+1"]:
    """The exact E||x_t - x*||^2 from an error x_0 - x*, where x* solves A x = b, or least squares with residuals b - A x*.

    With unit rows z_i = a_i / ||a_i|| a step is x+ = x - z_i (z_i'x - b_i / ||a_i||), so S = E ee' follows S+ = S - GS - SG
    + sum_i p_i (z_i'S z_i + r_i^2 - 2 r_i z_i'm) z_i z_i', G = A'A / ||A||_F^2: the moments of SGD with rate 1 on rows drawn by p.

    Parameters
    ----------
    probabilities
        Of the rows, if not `row_probabilities`; then residuals must be 0.

    >>> kaczmarz_distance(np.diag([1.0, 2.0]), [0.0, 0.0], [1.0, 1.0], 1).round(6).tolist()  # the first with 1/5, the second with 4/5
    [2.0, 1.0]
    """
    weights = row_probabilities(A) if probabilities is None else probabilities
    rows, given = np.asarray(A, dtype=float), np.asarray(residual, dtype=float)
    lengths = np.linalg.norm(rows, axis=1)
    known = moments.of_examples(rows / lengths[:, None], given / lengths, np.asarray(error, dtype=float), probabilities=weights)
    with moments.double():
        return np.asarray(moments.curve(known, 1.0, 1.0, np.ones_like(known.gram), num_steps=num_steps))


def kaczmarz_horizon(A: Float[ArrayLike, "n p"], residual: Float[ArrayLike, " n"]) -> Any:
    """max_i (r_i / ||a_i||)^2 ||A||_F^2 / sigma_min^2: E||e||^2 ends no higher than this where A x = b has no solution.

    Needell 2010, Thm 2.1, in squares: E||e_t||^2 <= (1 - sigma_min^2 / ||A||_F^2)^t ||e_0||^2 + this, by summing the
    largest possible push of each step.
    """
    rows, given = np.asarray(A, dtype=float), np.asarray(residual, dtype=float)
    return float(np.max(given**2 / np.sum(rows**2, axis=1)) / (1.0 - kaczmarz_contraction(rows)))
