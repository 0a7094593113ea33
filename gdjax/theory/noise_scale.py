"""The gradient noise scale: how large a batch pays at a point, exactly on quadratics.

G is the full gradient there, H the Hessian and Sigma the covariance of one example's gradient; batches of B are drawn with replacement.
McCandlish et al. (2018).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from gdjax.records import Problem


class NoiseScale(NamedTuple):
    """The four numbers of a point that the theory is made of."""

    gradient: float  # |G|^2
    curvature: float  # G'HG
    noise: float  # tr Sigma
    curved_noise: float  # tr(H Sigma)

    @property
    def batch_size(self) -> float:
        """B_noise = tr(H Sigma) / G'HG: with so large a batch a step gains half of what the full gradient's does; inf where G = 0."""
        return self.curved_noise / self.curvature if self.curvature else np.inf

    @property
    def simple_batch_size(self) -> float:
        """tr Sigma / |G|^2, which needs no Hessian and is B_noise where H is a multiple of the identity."""
        return self.noise / self.gradient if self.gradient else np.inf

    def best_rate(self, batch_size: Float[ArrayLike, "..."] = np.inf) -> Float[np.ndarray, "..."]:
        """eps_max / (1 + B_noise / B), eps_max = |G|^2 / G'HG: the rate of the largest gain (McCandlish et al. 2018, equation 2.6)."""
        return self.gradient / self.curvature / (1.0 + self.batch_size / np.asarray(batch_size, dtype=float))

    def best_gain(self, batch_size: Float[ArrayLike, "..."] = np.inf) -> Float[np.ndarray, "..."]:
        """(|G|^4 / G'HG / 2) / (1 + B_noise / B): what f falls by in such a step, in expectation (McCandlish et al. 2018, equation 2.7)."""
        return 0.5 * self.gradient * self.best_rate(batch_size)

    def change(self, rate: Float[ArrayLike, "..."], batch_size: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
        """E f after a step less f before it: -eps |G|^2 + eps^2 (G'HG + tr(H Sigma) / B) / 2, exact on quadratics.

        >>> float(NoiseScale(1.0, 1.0, 3.0, 3.0).change(0.25, 1))
        -0.125
        """
        eps = np.asarray(rate, dtype=float)
        return -eps * self.gradient + 0.5 * eps**2 * (self.curvature + self.curved_noise / np.asarray(batch_size, dtype=float))


def least_squares(problem: Problem, params: Float[np.ndarray, " p"]) -> NoiseScale:
    """The noise scale of (1/n)||X theta - y||^2 at `params`, over its own examples."""
    X, y = (np.asarray(part) for part in problem.data)
    gradients = 2.0 * (X @ params - y)[:, None] * X
    mean = gradients.mean(axis=0)
    apart = gradients - mean
    return NoiseScale(
        gradient=float(mean @ mean),
        curvature=float(2.0 * np.mean((X @ mean) ** 2)),
        noise=float(np.mean(np.sum(apart**2, axis=1))),
        curved_noise=float(np.mean(2.0 * np.sum((apart @ (X.T @ X / len(X))) * apart, axis=1))),
    )


def unbiased(
    small: Float[ArrayLike, "..."], large: Float[ArrayLike, "..."], small_batch: int, large_batch: int
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Estimates of |G|^2 and tr Sigma whose means are exact, from |G_b|^2 of a small and of a large batch (their appendix A.1).

    E |G_b|^2 = |G|^2 + tr Sigma / b, solved for both. Their ratio is no unbiased estimate of the noise scale.

    >>> [round(float(number), 12) for number in unbiased(1.0 + 3.0 / 2, 1.0 + 3.0 / 6, 2, 6)]
    [1.0, 3.0]
    """
    low, high = np.asarray(small, dtype=float), np.asarray(large, dtype=float)
    gradient = (large_batch * high - small_batch * low) / (large_batch - small_batch)
    return gradient, (low - high) / (1.0 / small_batch - 1.0 / large_batch)


def steps_for(batch_size: Float[ArrayLike, "..."], least_steps: float, least_examples: float) -> Float[np.ndarray, "..."]:
    """S = S_min + E_min / B: the curve (S / S_min - 1)(E / E_min - 1) = 1 with E = S B (McCandlish et al. 2018, equation 2.11).

    A fit and no identity.
    """
    return least_steps + least_examples / np.asarray(batch_size, dtype=float)
