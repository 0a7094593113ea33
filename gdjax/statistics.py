"""Closed forms of estimators: how far a fit lies from the truth, and what its standard errors should say.

Every function is pure; nothing here has seen a measurement. Noise is symmetric about 0 and given by its density f, with f'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pointwise = Callable[[Float[np.ndarray, " x"]], Float[np.ndarray, " x"]]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
EDGES = np.concatenate([np.linspace(0.0, 20.0, 81), np.geomspace(25.0, 1e10, 60)])
"""Pieces of a half-line on each of which 24 nodes integrate a smooth function to round-off; a tail x^-2 has 1e-10 beyond them."""


class Noise(NamedTuple):
    """A symmetric distribution with location 0."""

    density: Pointwise
    slope: Pointwise  # f'
    variance: float


def normal(deviation: float = 1.0) -> Noise:
    """N(0, deviation^2)."""

    def density(x: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (x / deviation) ** 2) / (math.sqrt(2.0 * math.pi) * deviation)

    return Noise(density, lambda x: -x / deviation**2 * density(x), deviation**2)


def student(degrees: float) -> Noise:
    """Student's t with nu = degrees; its variance is nu / (nu - 2), infinite for nu <= 2."""
    constant = math.exp(math.lgamma(0.5 * (degrees + 1.0)) - math.lgamma(0.5 * degrees)) / math.sqrt(math.pi * degrees)

    def density(x: np.ndarray) -> np.ndarray:
        return constant * (1.0 + x**2 / degrees) ** (-0.5 * (degrees + 1.0))

    variance = degrees / (degrees - 2.0) if degrees > 2.0 else math.inf
    return Noise(density, lambda x: -(degrees + 1.0) * x / (degrees + x**2) * density(x), variance)


def contaminated(share: float, deviation: float) -> Noise:
    """Tukey's contaminated normal (1 - share) N(0, 1) + share N(0, deviation^2)."""
    good, bad = normal(), normal(deviation)
    return Noise(
        lambda x: (1.0 - share) * good.density(x) + share * bad.density(x),
        lambda x: (1.0 - share) * good.slope(x) + share * bad.slope(x),
        1.0 - share + share * deviation**2,
    )


def half_line_integral(integrand: Pointwise, kinks: Sequence[float] = ()) -> float:
    """The integral from 0 to infinity of a function that is smooth but for kinks."""
    edges = np.unique(np.concatenate([EDGES, kinks]))
    middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    return float(np.sum(half[:, None] * WEIGHTS * integrand(middle[:, None] + half[:, None] * NODES)))


def score(loss: Callable[..., Array], **constants: float) -> Pointwise:
    """psi(r), the slope of a loss of `gdjax.losses` along its residual."""

    def slopes(residual: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            r = jnp.asarray(residual, dtype=float)
            return np.asarray(jax.jvp(lambda r: loss(r, jnp.zeros_like(r), **constants), (r,), (jnp.ones_like(r),))[1])

    return slopes


def asymptotic_variance(psi: Pointwise, noise: Noise, kinks: Sequence[float] = ()) -> float:
    """V = E psi^2 / (E psi')^2: an M-estimate's covariance is V (X'X)^-1 in the limit of many examples (Huber 1964).

    E psi' = -int psi f', which needs no slope of psi and so holds for the sign too.

    >>> round(asymptotic_variance(np.sign, normal()), 9) == round(math.pi / 2, 9)
    True
    """
    square = 2.0 * half_line_integral(lambda x: psi(x) ** 2 * noise.density(x), kinks)
    return square / (2.0 * half_line_integral(lambda x: -psi(x) * noise.slope(x), kinks)) ** 2


def information(noise: Noise) -> float:
    """Fisher's information on location, E (f'/f)^2: 1 / V is never above it, and maximum likelihood attains it.

    >>> round(information(student(3.0)), 9)  # (nu + 1) / (nu + 3)
    0.666666667
    """

    def integrand(x: np.ndarray) -> np.ndarray:
        density = noise.density(x)
        return np.divide(noise.slope(x) ** 2, density, out=np.zeros_like(x), where=density > 1e-290)

    return 2.0 * half_line_integral(integrand)


def huber_efficiency(delta: float) -> float:
    """(2 Phi(k) - 1)^2 / (2 Phi(k) - 1 - 2 k phi(k) + 2 k^2 (1 - Phi(k))), k = delta in deviations: against least squares, normal noise.

    Huber (1964).

    >>> round(huber_efficiency(1.345), 6)
    0.95
    """
    inside, tail = math.erf(delta / math.sqrt(2.0)), math.erfc(delta / math.sqrt(2.0))
    density = math.exp(-0.5 * delta**2) / math.sqrt(2.0 * math.pi)
    return inside**2 / (inside - 2.0 * delta * density + delta**2 * tail)


def least_squares_efficiency_under_student(degrees: float) -> float:
    """(nu - 2) (nu + 3) / (nu (nu + 1)): of least squares against maximum likelihood where noise is Student's t, nu > 2.

    The variance nu / (nu - 2) times the information (nu + 1) / (nu + 3), inverted.

    >>> least_squares_efficiency_under_student(3.0)
    0.5
    """
    return (degrees - 2.0) * (degrees + 3.0) / (degrees * (degrees + 1.0))


def largest_variance(delta: float, share: float) -> float:
    """The largest V of Huber's estimate over all noise (1 - share) N(0, 1) + share H, H symmetric: all of H beyond delta (Huber 1964)."""
    inside, tail = math.erf(delta / math.sqrt(2.0)), math.erfc(delta / math.sqrt(2.0))
    square = inside - 2.0 * delta * math.exp(-0.5 * delta**2) / math.sqrt(2.0 * math.pi) + delta**2 * tail
    return ((1.0 - share) * square + share * delta**2) / ((1.0 - share) * inside) ** 2


def minimax_delta(share: float) -> float:
    """The delta whose largest variance is least: 2 phi(k) / k - 2 Phi(-k) = share / (1 - share) (Huber 1964).

    No estimate has a smaller largest variance; it is 1 / ((1 - share) (2 Phi(k) - 1)).

    >>> round(minimax_delta(0.1), 3), round(largest_variance(minimax_delta(0.1), 0.1), 3)
    (1.14, 1.49)
    """
    low, high = 1e-9, 40.0
    for _ in range(200):
        k = 0.5 * (low + high)
        excess = 2.0 * math.exp(-0.5 * k**2) / (math.sqrt(2.0 * math.pi) * k) - math.erfc(k / math.sqrt(2.0)) - share / (1.0 - share)
        low, high = (k, high) if excess > 0.0 else (low, k)
    return 0.5 * (low + high)


class Covariances(NamedTuple):
    """Of fits to y = X theta + noise with Cov(noise) = diag(variances), X fixed."""

    plain: Float[np.ndarray, "p p"]  # of least squares
    weighted: Float[np.ndarray, "p p"]  # of least squares weighted by 1 / variances, the least of any linear unbiased fit
    textbook: Float[np.ndarray, "p p"]  # the mean of s^2 (X'X)^-1, what is printed for least squares


def covariances(X: Float[np.ndarray, "n p"], variances: Float[np.ndarray, " n"]) -> Covariances:
    """(X'X)^-1 X'OX (X'X)^-1, (X'O^-1 X)^-1 and E s^2 (X'X)^-1 with O = diag(variances), s^2 = RSS / (n - p) (Aitken 1936; White 1980).

    E s^2 = tr((I - X (X'X)^-1 X') O) / (n - p).

    >>> [round(float(of[0, 0]), 9) for of in covariances(np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 5.0]))]
    [0.5, 0.3125, 0.5]
    """
    Q, R = np.linalg.qr(X)
    inverse = np.linalg.inv(R)
    back = inverse @ Q.T  # (X'X)^-1 X'
    roots = np.linalg.inv(np.linalg.qr(X / np.sqrt(variances)[:, None])[1])
    leverage = np.sum(Q**2, axis=1)
    mean_square = np.sum((1.0 - leverage) * variances) / (len(X) - X.shape[1])
    return Covariances((back * variances) @ back.T, roots @ roots.T, mean_square * inverse @ inverse.T)
