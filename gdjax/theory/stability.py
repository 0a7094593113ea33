"""Where methods of constant numbers stop converging on quadratics."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float


def nesterov_edge(smoothness: float, momentum: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """2 (1 + beta) / (L (1 + 2 beta)): Nesterov's method with 0 <= beta < 1 converges on a quadratic iff its rate is below.

    At it a root of z^2 - (1 + beta)(1 - eta L) z + beta (1 - eta L) is -1. Unlike the heavy ball's, it falls with beta (Cohen et al.
    2021, appendix, number unconfirmed).

    >>> nesterov_edge(1.0, [0.0, 0.5]).tolist()
    [2.0, 1.5]
    """
    beta = np.asarray(momentum, dtype=float)
    return 2.0 * (1.0 + beta) / (float(smoothness) * (1.0 + 2.0 * beta))
