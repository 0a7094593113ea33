"""Hydra multiruns as one XLA program: decorate a task with its numbers, and `hydra/launcher=vmap` runs all jobs together."""

from gdjax.launcher.batch import Batch, Batchable, Outcome, batchable

__all__ = ["Batch", "Batchable", "Outcome", "batchable"]
