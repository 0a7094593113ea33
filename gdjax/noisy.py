"""Problems whose gradient noise is known exactly: quadratics that differ from example to example, and a stream of Gaussian inputs.

Their Hessian and minimizer are given, so that what is recorded is exact and costs nothing of the number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, UInt

from gdjax.records import InputError, Problem


def separable(
    curvatures: Float[ArrayLike, "n k"], targets: Float[ArrayLike, "n k"], start: Float[ArrayLike, " k"] | None = None
) -> Problem:
    """f_i(x) = sum_k (g_ik x_k^2 / 2 - a_ik x_k): every coordinate is a run of its own on examples of its own.

    A run of K coordinates is K chains on the same draws, and f - f* = sum_k mean_i(g_ik) x_k^2 / 2 their sum: where columns of a are
    orthogonal, chains of independent draws are uncorrelated, also in their squares. The minimizer is 0: each column of a has sum 0.

    Raises
    ------
    InputError
        For arrays of different shapes, or columns of `targets` that do not add up to zero.
    """
    g, a = np.asarray(curvatures, dtype=float), np.asarray(targets, dtype=float)
    if g.shape != a.shape or g.ndim != 2:
        raise InputError(f"curvatures have shape {g.shape} and targets {a.shape}: they must be (n, k) both.")
    if np.abs(a.sum(axis=0)).max() > 1e-9 * np.abs(a).sum(axis=0).max():
        raise InputError("the columns of targets must add up to zero, so that the minimizer is 0.")
    mean = g.mean(axis=0)
    hessian: Any = np.diag(mean)
    return Problem(
        evaluate=_separable,
        name="separable",
        data=(g, a),
        start=np.zeros(g.shape[1]) if start is None else np.asarray(start, dtype=float),
        minimizer=np.zeros(g.shape[1]),
        minimum=0.0,
        smoothness=mean.max(),
        strong_convexity=mean.min(),
        hessian=hessian,
    )


def _separable(
    lanes: Float[Array, "k lanes"], constants: dict[str, Any], examples: tuple[Array, Array], weights: Any
) -> tuple[Float[Array, " lanes"], Float[Array, "k lanes"]]:
    g, a = (_weighted(part, weights)[:, None] for part in examples)
    gradient = g * lanes - a
    return 0.5 * jnp.sum((gradient - a) * lanes, axis=0), gradient


def _weighted(rows: Float[Array, "rows k"], weights: Any) -> Float[Array, " k"]:
    return weights * jnp.sum(rows, axis=0) if jnp.ndim(weights) == 0 else weights @ rows


def orthogonal_signs(num_examples: int) -> Float[np.ndarray, "n k"]:
    """n - 1 orthogonal columns of signs with sum 0, for n a power of 2 (Sylvester's matrix without its column of ones).

    >>> orthogonal_signs(2).tolist()
    [[1.0], [-1.0]]
    """
    if num_examples < 2 or num_examples & (num_examples - 1):
        raise InputError(f"num_examples={num_examples} is not allowed: it is a power of 2, 2 or more.")
    signs = np.ones((1, 1))
    while len(signs) < num_examples:
        signs = np.kron([[1.0, 1.0], [1.0, -1.0]], signs)
    return signs[:, 1:]


def gaussian_stream(
    eigenvalues: Float[ArrayLike, " d"],
    *,
    noise: float = 1.0,
    start: Float[ArrayLike, " d"] | None = None,
    num_examples: int = 2**24,
) -> Problem:
    """f(x) = E (u'(x - x*) - noise z)^2 / 2 with u ~ N(0, diag(eigenvalues)), z ~ N(0, 1): fresh Gaussian inputs for every step.

    The examples are numbers from 0 on, and an example's input is made from its number when a step sees it (`gaussian`): 16 million of
    them take 64 MB. With the sampler `once_through` no run sees an example twice. The minimizer is 0 and f - f* = sum_j lambda_j x_j^2 / 2.
    """
    spectrum = np.asarray(eigenvalues, dtype=float)
    if num_examples * (spectrum.size + 1) > 2**32:
        raise InputError(f"num_examples={num_examples} is not allowed with {spectrum.size} eigenvalues: 2^32 numbers can be made.")
    hessian: Any = np.diag(spectrum)
    return Problem(
        evaluate=GaussianStream(spectrum.size),
        name="gaussian_stream",
        data=(np.arange(num_examples, dtype=np.uint32),),
        constants={"deviations": np.sqrt(spectrum), "noise": float(noise)},
        start=np.ones(spectrum.size) if start is None else np.asarray(start, dtype=float),
        minimizer=np.zeros(spectrum.size),
        minimum=0.5 * noise**2,
        smoothness=spectrum.max(),
        strong_convexity=spectrum.min(),
        hessian=hessian,
    )


@dataclass(frozen=True)
class GaussianStream:
    """Evaluate sum_i w_i (u_i'x - noise z_i)^2 / 2 on inputs that are made from their numbers."""

    num_parameters: int

    def __call__(
        self, lanes: Float[Array, "d lanes"], constants: dict[str, Any], examples: tuple[UInt[Array, " rows"]], weights: Any
    ) -> tuple[Float[Array, " lanes"], Float[Array, "d lanes"]]:
        """The weighted objective and its gradient, for every lane."""
        places = examples[0][:, None] * np.uint32(self.num_parameters + 1) + jnp.arange(self.num_parameters + 1, dtype=jnp.uint32)[None, :]
        drawn = gaussian(places, lanes.dtype)
        inputs = drawn[:, 1:] * constants["deviations"][None, :]
        residual = jnp.matmul(inputs, lanes, precision="highest") - constants["noise"] * drawn[:, :1]
        share = jnp.broadcast_to(weights, residual.shape[:1])[:, None]
        return 0.5 * jnp.sum(share * residual**2, axis=0), jnp.matmul(inputs.T, share * residual, precision="highest")


def gaussian(counter: UInt[Array, "..."], dtype: Any = float) -> Float[Array, "..."]:
    """A standard normal number for each counter, by a hash of its 32 bits: a sign, and 23 bits of |z| through the inverse of erf.

    The hash is Wellons's `triple32`; the number has float32's digits. No table of inputs is kept, however long a run is.
    """
    bits = counter
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    bits = bits ^ (bits >> 14)
    magnitude = np.float32(np.sqrt(2.0)) * jax.lax.erf_inv(((bits >> 9).astype(np.float32) + np.float32(0.5)) / np.float32(2.0**23))
    return jnp.where(bits & 1, magnitude, -magnitude).astype(dtype)


def once_through(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """A walk through 2^m examples by a random odd stride from a random start: no example twice within one call."""
    if num_examples & (num_examples - 1):
        raise InputError(f"once_through walks through 2^m examples; given {num_examples}.")
    start, stride = rng.integers(num_examples), 2 * rng.integers(num_examples // 2) + 1
    return ((start + stride * np.arange(num_steps * batch_size)) % num_examples).astype(np.int32).reshape(num_steps, batch_size)
