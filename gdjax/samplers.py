"""Which examples each step sees.

A sampler fills a table: row t holds the examples of step t + 1, one more row than the last for each call with the same generator.
It draws from NumPy's generator on the host, before any step runs: a permutation there costs about 10 ns an element, in XLA it is a
sort (about 1,000 ns on a CPU). The generator is seeded by the run's seed alone and read in the order of the steps, so the examples
of a step depend on (seed, step, batch size) and on nothing else in the sweep.

A batch shorter than the others, as the last of an epoch may be, is filled up with `ABSENT`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from gdjax.records import unknown_name, whole

ABSENT = -1
"""The index that stands for no example."""

MOST_DRAWN = 10**7
"""Indices drawn at a time where they are only counted."""

Sampler = Callable[[np.random.Generator, int, int, int], Int[np.ndarray, "steps batch"]]
"""(generator, num_steps, num_examples, batch_size) -> indices; consecutive calls continue at an epoch's start."""


def full(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Every example in every step; `batch_size` and the seed have no say."""
    return np.broadcast_to(np.arange(num_examples, dtype=np.int32), (num_steps, num_examples))


def reshuffled(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Deal out a fresh permutation each epoch; the last batch of an epoch is short when batch_size does not divide n.

    This is what a PyTorch DataLoader does. It is not independent sampling: its noise floor is lower (Mishchenko et al. 2020).
    """
    steps_per_epoch = math.ceil(num_examples / batch_size)
    num_epochs = math.ceil(num_steps / steps_per_epoch)
    order = np.full((num_epochs, steps_per_epoch * batch_size), ABSENT, dtype=np.int32)
    for epoch in order:
        epoch[:num_examples] = rng.permutation(num_examples)
    return order.reshape(-1, batch_size)[:num_steps]


def without_replacement(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """batch_size distinct examples, drawn anew each step, which is what the notebook does.

    Few out of many by Floyd's algorithm for all steps at once (about batch_size^2 / 2 comparisons a step), many out of few by the
    head of a permutation (about 10 n), whichever is less work.
    """
    if batch_size**2 > 20 * num_examples:
        everything = np.broadcast_to(np.arange(num_examples, dtype=np.int32), (num_steps, num_examples))
        return rng.permuted(everything, axis=1)[:, :batch_size]
    chosen = np.empty((num_steps, batch_size), dtype=np.int32)
    limits = np.arange(num_examples - batch_size, num_examples)
    draws = rng.integers(0, limits + 1, size=(num_steps, batch_size), dtype=np.int32)
    for j, limit in enumerate(limits):
        taken = (chosen[:, :j] == draws[:, j, None]).any(axis=1)
        chosen[:, j] = np.where(taken, limit, draws[:, j])
    return chosen


def with_replacement(rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """batch_size independent uniform draws each step: what the theory of SGD usually assumes."""
    return rng.integers(0, num_examples, size=(num_steps, batch_size), dtype=np.int32)


@dataclass(frozen=True)
class Weighted:
    """batch_size independent draws each step, example i with probability probabilities[i]; equal probabilities make equal samplers."""

    probabilities: tuple[float, ...]

    def __call__(self, rng: np.random.Generator, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, "steps batch"]:
        """Draw by inverting the cumulative probabilities."""
        cumulative = np.cumsum(self.probabilities)
        drawn = np.searchsorted(cumulative / cumulative[-1], rng.random((num_steps, batch_size)), side="right")
        return np.minimum(drawn, num_examples - 1).astype(np.int32)


def resolve(sampler: str | Sampler) -> Sampler:
    """Find a sampler by name, or take a function that is one."""
    if callable(sampler):
        return sampler
    named = {draw.__name__: draw for draw in (full, reshuffled, without_replacement, with_replacement)}
    if sampler not in named:
        raise unknown_name("sampler", str(sampler), named)
    return named[sampler]


def generator(seed: int) -> np.random.Generator:
    """The randomness of a run, by its seed alone.

    Raises
    ------
    InputError
        For a seed that is negative or no whole number.
    """
    return np.random.default_rng(whole("seed", seed, least=0))


def steps_for(sampler: Sampler, num_epochs: float, num_examples: int, batch_size: int) -> int:
    """The least number of steps after which `num_epochs` * n examples have been seen."""
    most = math.ceil(num_epochs) * math.ceil(num_examples / batch_size)
    needed = num_epochs * num_examples * (1.0 - 1e-12)  # 1.1 * 50 is a little more than 55
    return int(np.searchsorted(examples_seen(sampler, most, num_examples, batch_size), needed)) + 1


def has_short_batches(sampler: Sampler, num_steps: int, num_examples: int, batch_size: int) -> bool:
    """Whether some batch of the first `num_steps` holds fewer than `batch_size` examples."""
    return int(examples_seen(sampler, num_steps, num_examples, batch_size)[-1]) < num_steps * batch_size


@functools.lru_cache(maxsize=64)
def examples_seen(sampler: Sampler, num_steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, " steps"]:
    """How many examples have been seen after 1, 2, .. num_steps steps; it is the same for every seed."""
    epoch = math.ceil(num_examples / batch_size)
    part = epoch * max(1, MOST_DRAWN // num_examples)
    rng, counts = np.random.default_rng(0), []
    for first in range(0, num_steps, part):
        drawn = sampler(rng, min(part, num_steps - first), num_examples, batch_size)
        counts.append(np.count_nonzero(drawn != ABSENT, axis=1))
    seen = np.cumsum(np.concatenate(counts))
    seen.flags.writeable = False  # it is remembered: every sweep of this shape shares it
    return seen
