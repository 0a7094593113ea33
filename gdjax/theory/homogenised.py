"""SGD on a stream of Gaussian examples: its risk exactly, and in the limit of many parameters, where it is a Volterra equation.

x ~ N(0, diag(lambda)), y = x'theta* + noise of variance sigma^2, one new example a step of e+ = e - gamma x (x'e - noise): the rate gamma
is that of half the square (2 eta, where the loss is the square). The risk is R = sum_i lambda_i E e_i^2, without the noise's own sigma^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float


class Stream(NamedTuple):
    """Where SGD on a stream begins, along the eigenvectors of E xx'; a mode may stand for `weights` of its kind."""

    curvatures: Float[np.ndarray, " modes"]  # lambda
    squares: Float[np.ndarray, " modes"]  # e_i^2 at the start
    noise: float  # sigma^2
    weights: Float[np.ndarray, " modes"] | float = 1.0

    @property
    def trace(self) -> float:
        """tr E xx'."""
        return float(np.sum(self.weights * self.curvatures))


def power_law(exponent: float, source: float, *, num_nodes: int = 400, largest: float = 1e9) -> Stream:
    """lambda_i = i^-exponent and lambda_i e_i^2 = i^-source at the start, without noise, i up to `largest`.

    The sum over modes is an integral over u = ln i: cut off at 10^4 modes exponents would be wrong.
    """
    places = np.linspace(0.0, np.log(largest), num_nodes)
    modes = np.exp(places)
    return Stream(modes**-exponent, modes ** (exponent - source), 0.0, modes * (places[1] - places[0]))


def risk(stream: Stream, rate: float, steps: Float[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """The exact risk after t steps, for Gaussian x.

    s_i = E e_i^2 follows s+ = (1 - 2 gamma lambda_i + 2 gamma^2 lambda_i^2) s + gamma^2 lambda_i (R + sigma^2), whose matrix is diagonal
    but for one rank: its eigenvectors give every t at once.

    >>> one = Stream(np.ones(1), np.ones(1), 0.0)
    >>> float(risk(one, 0.5, [1])[0])  # 1 - 2/2 + 3/4
    0.75
    """
    values, along = _eigenmodes(stream, rate, 1.0 - 2.0 * rate * stream.curvatures + 2.0 * (rate * stream.curvatures) ** 2)
    times = np.asarray(steps, dtype=float)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        return _sum(along, np.sign(values) ** times * np.abs(values) ** times, values - 1.0)


def volterra(stream: Stream, rate: float, times: Float[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """The risk of homogenised SGD, the limit of many parameters:

    R(t) = sum_i lambda_i s_i(0) exp(-2 gamma lambda_i t)
         + gamma^2 int_0^t sum_i lambda_i^2 exp(-2 gamma lambda_i (t - u)) (R(u) + sigma^2) du.

    Paquette, Lee, Pedregosa and Paquette (2021). It is solved by s_i' = -2 gamma lambda_i s_i + gamma^2 lambda_i (R + sigma^2).
    """
    values, along = _eigenmodes(stream, rate, -2.0 * rate * stream.curvatures)
    with np.errstate(over="ignore", invalid="ignore"):
        return _sum(along, np.exp(values * np.asarray(times, dtype=float)[:, None]), values)


def growth(stream: Stream, rate: float) -> float:
    """The exponent at which the risk of homogenised SGD grows in the end; negative below the critical rate, where it converges."""
    return float(_eigenmodes(stream, rate, -2.0 * rate * stream.curvatures)[0].max())


def critical_rate(trace: float) -> float:
    """2 / tr E xx': the rate gamma beyond which the noise that steps make feeds itself (Paquette, Lee, Pedregosa and Paquette 2021).

    It is that of the mean square in the limit of many parameters, and lower than the 2 / lambda_max of the mean.

    >>> critical_rate(4.0)
    0.5
    """
    return 2.0 / trace


def limit(stream: Stream, rate: float) -> float:
    """sigma^2 x / (1 - x) with x = gamma tr / 2: where the risk of homogenised SGD ends, inf from the critical rate on.

    >>> limit(Stream(np.full(4, 0.25), np.ones(4), 1.0), 1.0)
    1.0
    """
    share = 0.5 * rate * stream.trace
    return stream.noise * share / (1.0 - share) if share < 1.0 else np.inf


def power_law_exponent(exponent: float, source: float) -> float:
    """-min((source - 1) / exponent, 2 - 1 / exponent): how the risk falls with t on `power_law`, by signal or by the steps' own noise.

    Velikanov, Kuznedelev and Yarotsky (2023); it needs exponent > 1 and a rate below the critical one.

    >>> power_law_exponent(1.5, 4.0).__round__(6)
    -1.333333
    """
    return -min((source - 1.0) / exponent, 2.0 - 1.0 / exponent)


class _Along(NamedTuple):
    """What there is along eigenvectors: the risk's share of each, the start and the noise's push."""

    share: np.ndarray
    start: np.ndarray
    push: np.ndarray


def _eigenmodes(stream: Stream, rate: float, diagonal: np.ndarray) -> tuple[np.ndarray, _Along]:
    """Of diag + gamma^2 lambda lambda', in coordinates sqrt(weight) s in which it is symmetric."""
    scale = np.sqrt(stream.weights)
    share = scale * stream.curvatures
    values, vectors = np.linalg.eigh(np.diag(diagonal) + rate**2 * np.outer(share, share))
    shares = share @ vectors
    return values, _Along(shares, (scale * stream.squares) @ vectors, rate**2 * stream.noise * shares)


def _sum(along: _Along, powers: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """The risk where the start has shrunk to `powers` along each, and the push has added up in the same proportion."""
    return powers @ (along.share * along.start) + (powers - 1.0) @ (along.share * along.push / decay)
