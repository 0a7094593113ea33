"""Rates that shrink along a run."""

from __future__ import annotations

import optax


def decaying_sgd(learning_rate: float, decay: float = 0.99) -> optax.GradientTransformation:
    """x_{t+1} = x_t - learning_rate decay^t grad f(x_t): for a kinked f, around whose minimum steps of one length never settle.

    On a sharp minimum the distance can shrink by `decay` a step too, if that is not faster than the angle of the kink lets it
    (Goffin 1977); all steps together reach learning_rate |grad f| / (1 - decay) far.
    """
    return optax.sgd(lambda step: learning_rate * decay**step)
