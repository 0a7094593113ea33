"""Hand batches to another launcher, which carries each as one of its jobs: to other processes, a cluster, or Ray."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from gdjax.launcher.batch import Batch, Batchable, Outcome
from gdjax.launcher.grouping import Group


@dataclass
class BatchTask:
    """The task that the other launcher runs: its job number is the batch's."""

    run: Callable[[Batch], Outcome]
    batches: list[Batch]

    def __call__(self, settings: DictConfig) -> Outcome:
        """Run one batch."""
        return self.run(self.batches[HydraConfig.get().job.num])


@dataclass
class Over:
    """Runs batches by another launcher."""

    context: HydraContext
    config: DictConfig
    inner: Any  # the other launcher's configuration

    def __call__(self, spec: Batchable, batches: Sequence[tuple[Group, Batch]]) -> Iterator[Outcome | Exception]:
        """Run batches, each as one of the other launcher's jobs."""
        if not batches:
            return
        context = HydraContext(config_loader=self.context.config_loader, callbacks=Callbacks())
        task = BatchTask(spec.run, [batch for _, batch in batches])
        config = copy.deepcopy(self.config)
        with read_write(config), read_write(config.hydra), open_dict(config.hydra):
            config.hydra.launcher = self.inner
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        launcher.setup(hydra_context=context, task_function=task, config=self.config)  # a job of another launcher is refused by Hydra 1.4
        quiet = ["hydra.sweep.subdir=.", "hydra.output_subdir=null"]  # jobs' folders are made here
        returned = launcher.launch([[*group.template.structural, *quiet] for group, _ in batches], initial_job_idx=0)
        for result in returned:
            try:
                yield result.return_value
            except Exception as failure:  # a batch's failure is its jobs' alone
                yield failure
