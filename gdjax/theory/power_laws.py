"""Spectra that are power laws: f(x_t) - f* falls as a power of t, with a constant that is known too.

Curvatures lambda_i = i^-a with shares lambda_i c_i^2 = i^-b of the start, i = 1, 2, .. and beyond: near lambda = 0 these have the density
lambda^(xi - 1) / a, xi = (b - 1) / a, which alone decides how f falls. f = (1/2) sum_i lambda_i c_i^2 P_t(lambda_i)^2 with the method's
residual polynomial P_t, whose shape near 0 is an exponential or a Bessel function. L = 1. Velikanov and Yarotsky (2021), Cunha et al.
(2022), Pedregosa and Scieur (2020): exponents and constants are derived here and checked by quadrature, the papers' numbering is
unconfirmed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

NEAR_POLE = 1e-6
"""Nearer to xi = 3/2 two constants of opposite signs, above 1 / NEAR_POLE, would leave their sum too few digits."""


class Power(NamedTuple):
    """constant * t^-exponent, what f falls as."""

    exponent: float
    constant: float

    def __call__(self, steps: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
        """The power law at those steps."""
        return self.constant * np.asarray(steps, dtype=float) ** -self.exponent


def gradient_descent(xi: float, a: float, learning_rate: float = 1.0) -> Power:
    """Gamma(xi) / (2 a) (2 eta t)^-xi, from P_t = (1 - eta lambda)^t.

    >>> round(gradient_descent(1.0, 2.0).constant, 12)
    0.125
    """
    return Power(xi, math.gamma(xi) / (2.0 * a) * (2.0 * learning_rate) ** -xi)


def nesterov(xi: float, a: float) -> Power:
    """Nesterov's method with rate 1/L and momentum t / (t + 3), from P_t = 2 J_1(w) / w e^(-t lambda / 2), w = t sqrt(lambda).

    Below xi = 3/2 the Bessel function decides: t^(-2 xi). Above, directions that oscillate and are damped, t^(-xi - 3/2), with
    2 Gamma(xi - 3/2) / (pi a): more smoothness of the start then gains as little as for gradient descent. xi is not 3/2, where a
    logarithm comes in.

    >>> round(nesterov(1.0, 2.0).constant, 12), nesterov(2.0, 1.0).exponent
    (1.0, 3.5)
    """
    if xi > 1.5:
        return Power(xi + 1.5, 2.0 * math.gamma(xi - 1.5) / (math.pi * a))
    return _bessel(xi, a, 1.0, 1.0)


class Meeting(NamedTuple):
    """What `nesterov` falls as where its two powers are near each other, 1 < xi < 2: their sum, or at xi = 3/2 its limit."""

    xi: float
    a: float

    def __call__(self, steps: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
        """c t^(-2 xi) + d t^(-xi - 3/2), whose constants have poles of opposite signs at 3/2: 2 / (pi a) t^-3 (ln t + gamma + 6 ln 2 - 4).

        Both are leading terms of int w^(2 xi - 3) J_1(w)^2 e^(-w^2 / t) dw, by its Mellin transform (derived here, checked by quadrature).

        >>> float(Meeting(1.5, 1.0)(1.0).round(6)), float(Meeting(1.5 + 1e-7, 1.0)(1.0).round(6))
        (0.468615, 0.468615)
        """
        t = np.asarray(steps, dtype=float)
        if abs(self.xi - 1.5) < NEAR_POLE:
            return 2.0 / (math.pi * self.a) * t**-3 * (np.log(t) + np.euler_gamma + 6.0 * math.log(2.0) - 4.0)
        damped = 2.0 * math.gamma(self.xi - 1.5) / (math.pi * self.a)
        return _bessel(self.xi, self.a, 1.0, 1.0)(t) + damped * t ** -(self.xi + 1.5)


def nu_method(xi: float, a: float, nu: float = 2.0) -> Power:
    """Brakhage's method with rate 1/L: t^(-2 xi) for every xi < 2 nu.

    P_t = Gamma(A + 1) (2 / w)^A J_A(w), A = 2 nu - 1/2 and w = 2 t sqrt(lambda): Jacobi's polynomials near 1 (Szego 1975, Thm 8.1.1;
    unconfirmed).

    >>> nu_method(2.0, 1.0).exponent
    4.0
    """
    return _bessel(xi, a, 2.0 * nu - 0.5, 2.0)


def marchenko_pastur(learning_rate: float) -> Power:
    """Gradient descent on an isotropic start, E c_i^2 = 1, and the spectrum of a square random matrix: (1/2pi) Gamma(3/2) (2 eta t)^-3/2.

    The density of eigenvalues sqrt(4 / lambda - 1) / (2 pi) is 1 / (pi sqrt(lambda)) near 0.

    >>> marchenko_pastur(0.25).exponent
    1.5
    """
    return Power(1.5, math.gamma(1.5) / (2.0 * math.pi) * (2.0 * learning_rate) ** -1.5)


def _bessel(xi: float, a: float, order: float, speed: float) -> Power:
    """(1 / 2a) int lambda^(xi - 1) P^2 d lambda for P = Gamma(A + 1) (2 / w)^A J_A(w), A = order, w = speed t sqrt(lambda).

    By Weber and Schafheitlin's int_0^inf J_A(w)^2 w^-s dw = Gamma(s) Gamma(A + (1 - s) / 2) / (2^s Gamma((1 + s) / 2)^2
    Gamma(A + (1 + s) / 2)), s = 2 A + 1 - 2 xi > 0.
    """
    s = 2.0 * order + 1.0 - 2.0 * xi
    integral = math.gamma(s) * math.gamma(order + 0.5 * (1.0 - s)) / (2.0**s * math.gamma(0.5 * (1.0 + s)) ** 2)
    integral /= math.gamma(order + 0.5 * (1.0 + s))
    return Power(2.0 * xi, math.gamma(order + 1.0) ** 2 * 2.0 ** (2.0 * order) * integral / (a * speed ** (2.0 * xi)))
