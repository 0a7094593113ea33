"""The largest eigenvalue of a Hessian that is never formed: the sharpness, which says what rates are stable at a point."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdjax.records import Params, Problem

MOST_PRODUCTS = 64
"""Hessian-vector products of one eigenvalue, unless told: at the start of a network of 1,210 parameters, 16 gave it to 1e-10."""


class Eigenpair(NamedTuple):
    """An eigenvalue of the Hessian, and the unit vector that belongs to it, shaped like the parameters."""

    value: Float[Array, ""]
    vector: Params


def hessian_product(problem: Problem, params: Params, direction: Params) -> Params:
    """H v, the derivative of the gradient along v: about two gradients' work (Pearlmutter 1994)."""
    return jax.jvp(problem.gradient, (params,), (direction,))[1]


def lambda_max(problem: Problem, params: Params, *, num_products: int = MOST_PRODUCTS) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian of f at `params`, as `top_eigenpair` finds it.

    >>> from gdjax import problems
    >>> problem = problems.designed_spectrum([1.0, 4.0, 9.0])
    >>> round(float(lambda_max(problem, problem.start)), 12)
    9.0
    """
    return top_eigenpair(problem, params, num_products=num_products).value


def top_eigenpair(problem: Problem, params: Params, *, num_products: int = MOST_PRODUCTS) -> Eigenpair:
    """The largest eigenvalue of the Hessian of f at `params` with its vector, by Lanczos' method from a fixed random vector.

    The largest, not that of largest size: gradient descent leaves directions of negative curvature at any rate. With as many products
    as there are parameters it is exact; with fewer it is never too large, and off by the less the further it lies above the others
    (Kaniel 1966, Paige 1971). In 64 bits, but for what is traced in fewer; it may be mapped by `vmap` over `params`.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((problem, params)))
    with contextlib.nullcontext() if traced else jax.enable_x64(True):
        return _top_eigenpair(problem, jax.tree.map(jnp.asarray, params), num_products)


@functools.partial(jax.jit, static_argnums=2)
def _top_eigenpair(problem: Problem, params: Params, num_products: int) -> Eigenpair:
    flat, unravel = ravel_pytree(params)
    seed = jax.random.normal(jax.random.key(0), flat.shape, flat.dtype)

    def product(v: Array) -> Array:
        return ravel_pytree(hessian_product(problem, params, unravel(v)))[0]

    basis, diagonal, beside = _lanczos(product, seed, min(num_products, flat.size))
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    top = vectors[:, -1] @ basis
    return Eigenpair(values[-1], unravel(top / jnp.linalg.norm(top)))


def _lanczos(product: Callable[[Array], Array], seed: Float[Array, " p"], count: int) -> tuple[Array, Array, Array]:
    """An orthonormal basis of span{v, Hv, ..} (rows), and H in it: the diagonal and what is beside it.

    A vector is made orthogonal to all before it, which in exact arithmetic it is. Where the space has no more dimensions, rows are 0 and
    the diagonal repeats its first entry, which is no larger than the largest eigenvalue.
    """

    def step(carry: tuple[Array, Array, Array], place: Array) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        basis, vector, largest = carry
        basis = basis.at[place].set(vector)
        image = product(vector)
        size, along = jnp.linalg.norm(image), vector @ image
        for _ in range(2):  # once leaves what round-off put back
            image = image - (basis @ image) @ basis
        rest, largest = jnp.linalg.norm(image), jnp.maximum(largest, size)
        goes_on = rest > 16.0 * eps * largest
        following = jnp.where(goes_on, image / jnp.where(goes_on, rest, 1.0), 0.0)
        return (basis, following, largest), (along, jnp.where(goes_on, rest, 0.0))

    eps = jnp.finfo(seed.dtype).eps
    begin = (jnp.zeros((count, seed.size), seed.dtype), seed / jnp.linalg.norm(seed), jnp.zeros((), seed.dtype))
    (basis, _, _), (diagonal, beside) = jax.lax.scan(step, begin, jnp.arange(count))
    present = jnp.any(basis != 0.0, axis=1)
    return basis, jnp.where(present, diagonal, diagonal[0]), beside[:-1]
