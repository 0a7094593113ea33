"""Launch the jobs of a multirun: all of one group as one program, and those that can't share one by Hydra's own launcher."""

from __future__ import annotations

import copy
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gdjax import store
from gdjax.launcher.batch import Batch, Batchable, Outcome, of_task
from gdjax.launcher.grouping import Composer, Group, check_batch
from gdjax.launcher.mistakes import JobMistake
from gdjax.launcher.results import Archive, write_jobs
from gdjax.launcher.template import JobFacts
from gdjax.records import InputError, unknown_name, whole

log = logging.getLogger(__name__)

FILES = {"full": ("config.yaml", "hydra.yaml", "overrides.yaml"), "overrides": ("overrides.yaml",), "none": ()}
"""What a job's `.hydra` folder holds; with none there is no folder."""

MOST_FULL, MOST_OVERRIDES = 1_000, 10_000
"""Up to how many jobs `job_dirs=auto` writes all files, or the overrides alone: three files take about 1 ms, and 20 kB of disk."""

NUM_WRITERS = 8
"""Threads that write folders: what a job's files take is the file system's latency (3.8 s for 1,000 jobs one by one, 0.9 s so)."""

REDUCE = {"mean": np.mean, "median": np.median}

RunBatches = Callable[[Batchable, Sequence[tuple[Group, Batch]]], Iterator[Outcome | Exception]]
"""Runs batches and gives their outcomes, or what went wrong, in order."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The launcher's settings.

    Raises
    ------
    CompactHydraException
        For a value that is not allowed.
    """

    max_batch: int | None = None  # jobs in one program
    job_dirs: str = "auto"  # auto | full | overrides | none
    worst: float = float("inf")  # what a sweeper is told where the objective is not finite
    replicate: dict[str, Any] = field(default_factory=dict)  # {seed: 16, reduce: mean}: each job 16 times, seeds counting up

    def __post_init__(self) -> None:
        try:
            if self.max_batch is not None:
                whole("hydra.launcher.max_batch", self.max_batch)
            if self.job_dirs not in ("auto", *FILES):
                raise unknown_name("hydra.launcher.job_dirs", str(self.job_dirs), ["auto", *FILES])
            if self.reduce not in REDUCE:
                raise unknown_name("hydra.launcher.replicate.reduce", str(self.reduce), REDUCE)
            if len(self.replicate.keys() - {"reduce"}) > 1:
                raise InputError("hydra.launcher.replicate names one key and how often, e.g. replicate={seed:16,reduce:mean}.")
            whole("hydra.launcher.replicate", self.times)
        except InputError as mistake:
            raise CompactHydraException(str(mistake)) from mistake

    @property
    def reduce(self) -> str:
        """How the objective of replicates becomes one."""
        return self.replicate.get("reduce", "mean")

    @property
    def replicated(self) -> str | None:
        """The key that counts up."""
        return next((key for key in self.replicate if key != "reduce"), None)

    @property
    def times(self) -> int:
        """How often each job runs."""
        return self.replicate[self.replicated] if self.replicated is not None else 1


class Launched(JobReturn):
    """What Hydra is told of a job; its configurations are made when they are asked for, which takes 8 ms each."""

    def __init__(self, job: JobFacts, value: Any, *, folder: Path, shared: dict[str, str]) -> None:
        vars(self).update(shared)
        self.overrides = list(job.overrides)
        self.status = JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED
        self._return_value = value
        self._job, self._folder = job, folder

    def _full(self) -> DictConfig:
        config = self._job.template.full(self._job)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.runtime.output_dir = str(self._job.folder or self._folder)
        return config

    @property
    def cfg(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The job's settings."""
        config = self._full()
        with read_write(config), open_dict(config):
            del config["hydra"]
        return config

    @property
    def hydra_cfg(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Hydra's own settings for the job."""
        return OmegaConf.masked_copy(self._full(), "hydra")

    @property
    def return_value(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the task returned; what it raised is raised."""
        if isinstance(self._return_value, Exception):
            if not isinstance(self._return_value, InputError):  # which says in its one line what was wrong
                sys.stderr.write(f"Error executing job with overrides: {self.overrides}\n")  # as Hydra does
            raise self._return_value
        return self._return_value


class Multirun:
    """One multirun, batch of jobs after batch of jobs, as its sweeper asks for them."""

    def __init__(
        self, context: HydraContext, task: TaskFunction, config: DictConfig, options: Options, run: RunBatches | None = None
    ) -> None:
        self.context, self.task, self.config, self.options = context, task, config, options
        self.run = run or run_here
        self.folder = Path(os.path.abspath(str(config.hydra.sweep.dir)))
        self.archive = Archive(self.folder)
        self.rows: list[dict[str, Any]] = []
        self.shared = {"working_dir": os.getcwd(), "task_name": JobRuntime.instance().get("name")}
        spec = of_task(task)
        self.composer = None if spec is None else Composer(self._compose, spec, config.hydra.runtime.choices)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs; what a job raises is kept in its return, and the others go on.

        Raises
        ------
        JobMistake
            Before anything runs, for the first job that makes no sense.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if self.composer is None:
            log.info("the task is not batchable: its jobs run one after the other, by Hydra's own launcher")
            return list(self._by_hydra(job_overrides, initial_job_idx))
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            groups = self.composer.groups(job_overrides, initial_job_idx)
            batches = [(group, self._replicated(group.batch())) for group in groups if self._runs_together(group)]
            check = self.composer.spec.check
            for group, batch in batches if check is not None else ():
                check_batch(group, batch, check)  # pyright: ignore[reportArgumentType]
        except CompactHydraException:
            store.take_back(self.folder, ["multirun.yaml"])
            raise
        returned: dict[int, JobReturn] = {}
        self._make_folders(groups, len(job_overrides))
        try:
            for job, result in self._together(batches):
                returned[job.num] = result
            for group in groups:
                if group.template.obstacle is not None:
                    returned |= self._alone(group)
        finally:  # whatever has run is kept, even where a person has had enough
            self.archive.save()
            if self.rows:
                write_jobs(self.folder / "jobs.csv", sorted(self.rows, key=lambda row: row["job"]))
        return [returned[num] for num in range(initial_job_idx, initial_job_idx + len(job_overrides))]

    def _runs_together(self, group: Group) -> bool:
        obstacle = group.template.obstacle
        if obstacle is not None and self.options.replicated is not None:
            job, why = group.jobs[0], obstacle or "its task runs one job at a time with these settings"
            raise JobMistake(job.num, job.overrides, InputError(f"hydra.launcher.replicate can't be honoured, since {why}."))
        return obstacle is None

    def _compose(self, overrides: list[str]) -> DictConfig:
        return self.context.config_loader.load_sweep_config(self.config, overrides)

    def _together(self, batches: Sequence[tuple[Group, Batch]]) -> Iterator[tuple[JobFacts, JobReturn]]:
        assert self.composer is not None
        spec, times = self.composer.spec, self.options.times
        size = None if self.options.max_batch is None else max(1, self.options.max_batch // times) * times
        parts = [
            [(group, batch.part(slice(first, first + (size or len(batch))))) for first in range(0, len(batch), size or len(batch))]
            for group, batch in batches
        ]
        if batches:
            log.info(f"launching {sum(len(group.jobs) for group, _ in batches)} jobs in {sum(map(len, parts))} batches")
        outcomes = self.run(spec, [part for of_group in parts for part in of_group])
        for (group, batch), of_group in zip(batches, parts, strict=True):
            done = [(part, next(outcomes)) for _, part in of_group]
            values = [value for part, outcome in done for value in _values(outcome, len(part))]
            self._keep(spec, group, batch, [(part, outcome) for part, outcome in done if isinstance(outcome, Outcome)], done)
            for place, job in enumerate(group.jobs):
                own = self._reduced(values[place * times : (place + 1) * times])
                yield job, self._finished(job, group, own)

    def _keep(self, spec: Batchable, group: Group, batch: Batch, good: list[Any], done: list[Any]) -> None:
        """Put what was measured into the archive; the jobs of a part that failed are not in it."""
        results = [outcome.results for _, outcome in good if outcome.results is not None]
        if not results:
            return
        nums = np.repeat([job.num for job in group.jobs], self.options.times)
        worked = np.concatenate([np.full(len(part), isinstance(outcome, Outcome)) for part, outcome in done])
        together: Any = results[0] if len(results) == 1 else xr.concat(results, dim="job")
        self.archive.add(group.name, together, {key: column[worked] for key, column in batch.numbers.items()}, nums[worked].tolist())
        if spec.ran is not None:
            spec.ran(self.folder, group.name, batch.settings)

    def _replicated(self, batch: Batch) -> Batch:
        key, times = self.options.replicated, self.options.times
        if key is None:
            return batch
        if key not in batch.numbers:
            raise CompactHydraException(str(unknown_name("hydra.launcher.replicate", key, batch.numbers)))
        numbers = {name: np.repeat(column, times) for name, column in batch.numbers.items()}
        numbers[key] = (batch.numbers[key][:, None] + np.arange(times)).ravel()
        return Batch(settings=batch.settings, numbers=numbers)

    def _reduced(self, values: list[Any]) -> Any:
        """One job's value out of its replicates'."""
        failed = next((value for value in values if isinstance(value, Exception)), None)
        if failed is not None:
            return failed
        told = [self._told(value) for value in values]
        return told[0] if len(told) == 1 else _plain(REDUCE[self.options.reduce](np.asarray(told, dtype=float), axis=0))

    def _told(self, value: Any) -> Any:
        """What a sweeper is told: the objective, and the worst where it is not finite (a NaN ends an Optuna study)."""
        if isinstance(value, dict) and "objective" in value:
            return self._told(value["objective"])
        if isinstance(value, tuple | list):
            return type(value)(map(self._told, value))
        return self.options.worst if isinstance(value, float) and not np.isfinite(value) else value

    def _finished(self, job: JobFacts, group: Group, value: Any) -> JobReturn:
        assert job.settled is not None
        result = Launched(job, value, folder=self.folder, shared=self.shared)
        numbers: dict[str, Any] = job.settled.numbers | {key: one.number for key, one in job.given.items()}
        self._note(job, group, result, numbers)
        if self.context.callbacks.callbacks:
            config = job.template.full(job)
            self.context.callbacks.on_job_start(config=config, task_function=self.task)
            self.context.callbacks.on_job_end(config=config, job_return=result)
        return result

    def _note(self, job: JobFacts, group: Group, result: JobReturn, numbers: dict[str, Any]) -> None:
        """The job's row in the table."""
        value = result._return_value  # what a failed job raised is kept there too
        self.rows.append(
            {"job": job.num}
            | ({"group": group.name} if group.name else {})
            | {"status": result.status.name.lower(), "objective": " ".join(str(value).split()) if isinstance(value, Exception) else value}
            | numbers
            | {key: text for key, text in job.template.choices.items() if key not in numbers}
            | {"overrides": " ".join(job.overrides)}
        )

    def _alone(self, group: Group) -> dict[int, JobReturn]:
        if group.template.obstacle:
            log.warning(f"{len(group.jobs)} jobs run one after the other, by Hydra's own launcher: {group.template.obstacle}.")
        returned = {}
        for job in group.jobs:
            (result,) = self._by_hydra([job.overrides], job.num)
            returned[job.num] = result
            self._note(job, group, result, {})
        return returned

    def _by_hydra(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        own = BasicLauncher()
        own.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        return own.launch(job_overrides, initial_job_idx)

    def _make_folders(self, groups: Sequence[Group], num_jobs: int) -> None:
        few = "full" if num_jobs <= MOST_FULL else "overrides" if num_jobs <= MOST_OVERRIDES else "none"
        names = FILES[few if self.options.job_dirs == "auto" else self.options.job_dirs]
        if not names:
            return
        output = self.config.hydra.output_subdir
        with ThreadPoolExecutor(NUM_WRITERS) as writers:
            written = []
            for job in (job for group in groups if group.template.obstacle is None for job in group.jobs):
                job.folder = job.template.folder(job, self.folder)
                inner = job.folder if output is None else job.folder / output
                files = {} if output is None else dict(job.template.files(job, names))
                written.append(writers.submit(_write, inner, files))
        for done in written:
            done.result()


def run_here(spec: Batchable, batches: Sequence[tuple[Group, Batch]]) -> Iterator[Outcome | Exception]:
    """Run batches in this process."""
    before = HydraConfig.instance().cfg
    for group, batch in batches:
        config = copy.deepcopy(group.template.config)
        folder = os.path.abspath(str(config.hydra.sweep.dir))
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.runtime.output_dir = folder  # of all jobs: no job is the current one
            config.hydra.job.num, config.hydra.job.id = group.jobs[0].num, str(group.jobs[0].num)
        HydraConfig.instance().set_config(config)
        configure_log(config.hydra.job_logging, config.hydra.verbose)
        try:
            outcome: Outcome | Exception = spec.run(batch)
        except Exception as failure:  # a batch's failure is its jobs' alone
            outcome = failure
        finally:
            HydraConfig.instance().cfg = before
            configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        yield outcome


def _write(folder: Path, files: Mapping[str, str]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, text in files.items():
        with open(folder / name, "w", encoding="utf-8") as file:
            file.write(text)


def _values(outcome: Outcome | Exception, num_jobs: int) -> Sequence[Any]:
    return [outcome] * num_jobs if isinstance(outcome, Exception) else outcome.values


def _plain(reduced: Any) -> Any:
    return reduced.tolist() if np.ndim(reduced) else float(reduced)
