"""Hydra multiruns as one XLA program: decorate a task with its numbers, and `hydra/launcher=vmap` runs all jobs together.

An application that imports this also finds the launcher: Hydra 1.3 looks for plugins along `sys.path` alone, where a wheel has put
them, and neither a checkout nor an editable install has.
"""

import sys
from pathlib import Path

from gdjax.launcher.batch import Batch, Batchable, Outcome, batchable

__all__ = ["Batch", "Batchable", "Outcome", "batchable"]

_plugins = Path(__file__).resolve().parents[1] / "_plugins"
if _plugins.is_dir() and str(_plugins) not in sys.path:
    sys.path.append(str(_plugins))
