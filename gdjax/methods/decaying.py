"""Rates that shrink along a run."""

from __future__ import annotations

import optax


def decaying_sgd(learning_rate: float, decay: float = 0.99) -> optax.GradientTransformation:
    """x_{t+1} = x_t - learning_rate decay^t grad f(x_t): for a kinked f, around whose minimum steps of one length never settle.

    On a sharp minimum the distance can shrink by `decay` a step too, if that is not faster than the angle of the kink lets it
    (Goffin 1977); all steps together reach learning_rate |grad f| / (1 - decay) far.
    """
    return optax.sgd(lambda step: learning_rate * decay**step)


def robbins_monro(learning_rate: float, offset: float = 0.0) -> optax.GradientTransformation:
    """x_t = x_{t-1} - learning_rate / (t + offset) grad f(x_{t-1}), t = 1, 2, ..: Robbins and Monro's steps.

    With independent noise E||x_t - x*||^2 falls as 1/t iff 2 learning_rate mu > 1, below that only as t^(-2 learning_rate mu) (Chung
    1954). The first steps are long: those with learning_rate L / (t + offset) > 2 expand.
    """
    return optax.sgd(lambda step: learning_rate / (step + 1.0 + offset))
