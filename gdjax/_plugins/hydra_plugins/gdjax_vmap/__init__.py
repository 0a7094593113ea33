"""What Hydra finds of gdjax: two launchers and a sweeper, by their names.

Every Hydra application in the environment imports this module, so that it imports Hydra alone; the rest comes when it is used.
`BasicSweeper` may be subclassed here only: Hydra's scanner executes its modules anew, and a subclass made earlier would be another's.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from gdjax.launcher.launch import Multirun

OPTIONS = {
    "max_batch": None,  # jobs in one program, where all of them are too many
    "job_dirs": "auto",  # auto | full | overrides | none: what is written for each job
    "worst": float("inf"),  # what a sweeper is told where the objective is not finite
    "replicate": None,  # {seed: 16, reduce: mean}: each job so many times, its objective the mean or the median
}
HERE = "hydra_plugins.gdjax_vmap."

NODES = {
    ("hydra/launcher", "vmap"): {"_target_": HERE + "VmapLauncher", **OPTIONS},
    ("hydra/launcher", "vmap_over"): {
        "defaults": [{"/hydra/launcher@inner": "basic"}],
        "_target_": HERE + "VmapOverLauncher",
        "_recursive_": False,
        "inner": {},
        **OPTIONS,
    },
    ("hydra/sweeper", "vmap"): {"_target_": HERE + "VmapSweeper", "max_batch_size": None, "params": None},
}
"""What Hydra may be asked for."""

store = ConfigStore.instance().store
again: Any = {"replace": True} if "replace" in inspect.signature(store).parameters else {}  # 1.4 may import this module twice
for (group, name), node in NODES.items():
    store(group=group, name=name, node=node, provider="gdjax", **again)


class VmapLauncher(Launcher):
    """Runs the jobs of a multirun that differ in numbers alone as one program."""

    multirun: Multirun

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what the jobs share."""
        from gdjax.launcher.launch import Multirun, Options

        options: Any = {key: dict(value or {}) if key == "replicate" else value for key, value in self.options.items()}
        self.multirun = Multirun(hydra_context, task_function, config, Options(**options), self._runner(hydra_context, config))

    def _runner(self, context: HydraContext, config: DictConfig) -> Any:
        return None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; every one is composed and checked before the first runs."""
        return self.multirun.launch(job_overrides, initial_job_idx)


class VmapOverLauncher(VmapLauncher):
    """The same by another launcher, which carries each group of jobs, or each `max_batch` of them, as one job."""

    def __init__(self, inner: Any, **options: Any) -> None:
        super().__init__(**options)
        self.inner = inner

    def _runner(self, context: HydraContext, config: DictConfig) -> Any:
        from gdjax.launcher.over import Over

        return Over(context, config, self.inner)


class VmapSweeper(BasicSweeper):
    """Hydra's basic sweeper, which leaves it to a launcher that composes every job before it runs any to find mistakes."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """All combinations of the values given, in batches."""
        for override in overrides:
            if override.is_sweep_override() and override.is_discrete_sweep() and not any(True for _ in override.sweep_iterator()):
                raise CompactHydraException(f"{override.input_line} gives no value: there would be no job to run.")
        return BasicSweeper.split_arguments(overrides, max_batch_size)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every job, unless the launcher does."""
        if not isinstance(self.launcher, VmapLauncher):
            super().validate_batch_is_legal(batch)
