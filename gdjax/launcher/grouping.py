"""Which jobs of a multirun run together: those whose settings are equal but for declared numbers.

Every job is composed and every number read before anything runs, so that a mistake in the last job is known before the first starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from omegaconf import DictConfig

from gdjax.launcher.batch import Batch, Batchable, Reader
from gdjax.launcher.mistakes import JobMistake, Mistake
from gdjax.launcher.template import JobFacts, Template, key_of
from gdjax.records import InputError

LITERAL = re.compile(r"[A-Za-z_][\w.]*=[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
"""An override that gives a number, and nothing that Hydra's grammar could take for anything else."""


@dataclass
class Group:
    """Jobs that run as one batch, or one after the other where an obstacle is in the way."""

    template: Template  # of the first job
    jobs: list[JobFacts] = field(default_factory=list)
    name: str = ""

    def batch(self) -> Batch:
        """The jobs' numbers in columns."""
        settled = self.jobs[0].settled
        assert settled is not None
        keys = dict.fromkeys([*self.jobs[0].given, *settled.numbers])  # what is swept first, in its order
        columns = {key: np.asarray([_number(job, key) for job in self.jobs]) for key in keys}
        return Batch(settings=settled.settings, numbers=columns)


class Composer:
    """Makes jobs of overrides; composes once for each combination of those that are not numbers."""

    def __init__(self, compose: Callable[[list[str]], DictConfig], spec: Batchable, choices: Container[Any] = ()) -> None:
        self.compose, self.spec = compose, spec
        self.choices = choices  # the configuration's groups, whose choice Hydra makes before it sets any value
        self._templates: dict[tuple[str, ...], Template] = {}
        self._keys: dict[str, str] = {}  # of overrides that give a number; "" for the others
        self._split: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, Reader]] = {}

    def groups(self, job_overrides: Sequence[Sequence[str]], first_num: int) -> list[Group]:
        """Group all jobs, in the order of each group's first.

        Raises
        ------
        JobMistake
            For the first job that can't be composed or whose numbers are not allowed.
        """
        groups: dict[str, Group] = {}
        for num, overrides in enumerate(job_overrides, start=first_num):
            try:
                job = self.job(num, overrides)
            except Mistake as mistake:
                raise JobMistake(num, overrides, mistake) from None
            groups.setdefault(_group_key(job), Group(job.template)).jobs.append(job)
        _name([group for group in groups.values() if group.template.obstacle is None])
        return list(groups.values())

    def job(self, num: int, overrides: Sequence[str]) -> JobFacts:
        """One job, with its numbers apart from the rest."""
        keys = [self._key(override) for override in overrides]
        plain = tuple(override for override, key in zip(overrides, keys, strict=True) if not key)
        dynamic = self._dynamic(plain, overrides, keys)
        structural = tuple(override for override, key in zip(overrides, keys, strict=True) if key not in dynamic)
        template = self._template(structural)
        if template.obstacle is not None:
            self.compose(list(overrides))  # for its mistakes
            return JobFacts(num=num, overrides=overrides, template=template, given={}, settled=None)
        given = {}
        for override, key in zip(overrides, keys, strict=True):
            if key in dynamic:
                given.pop(key, None)
                given[key] = template.given(override, dynamic[key])
        return JobFacts(num=num, overrides=overrides, template=template, given=given, settled=template.settled(given))

    def _key(self, override: str) -> str:
        if override not in self._keys:
            self._keys[override] = override.partition("=")[0] if LITERAL.fullmatch(override) else ""
        return self._keys[override]

    def _dynamic(self, plain: tuple[str, ...], overrides: Sequence[str], keys: list[str]) -> dict[str, Reader]:
        """The keys whose numbers are apart; a job that overrides a whole node above one of them is composed as it stands."""
        shape = (plain, tuple(keys))
        if shape not in self._split:
            readers = {}
            nodes = [key_of(override) for override in plain if not (key_of(override) in self.choices and "={" not in override)]
            for key in filter(None, keys):
                above = any(key == other or key.startswith(f"{other}.") for other in nodes)
                if not above and (read := self._reader(key, plain, overrides, keys)) is not None:
                    readers[key] = read
            self._split[shape] = readers
        return self._split[shape]

    def _reader(self, key: str, plain: tuple[str, ...], overrides: Sequence[str], keys: list[str]) -> Reader | None:
        if key in self.spec.numbers or self.spec.also is None:
            return self.spec.numbers.get(key)
        return self.spec.also(self._template(plain).settings, key)

    def _template(self, structural: tuple[str, ...]) -> Template:
        if structural not in self._templates:
            self._templates[structural] = Template(self.compose(list(structural)), structural, self.spec)
        return self._templates[structural]


def _group_key(job: JobFacts) -> str:
    if job.settled is None:
        return f"alone, {job.template.obstacle}"
    return job.settled.key if job.given or job.settled.numbers else f"without numbers, {job.num}"


def check_batch(group: Group, batch: Batch, check: Callable[[Batch], None]) -> None:
    """Find the first job that makes no sense: the last of the shortest run of jobs that is refused.

    Raises
    ------
    JobMistake
        With the job, and what is wrong with it.
    """
    times = len(batch) // len(group.jobs)

    def refused(num_jobs: int) -> InputError | None:
        try:
            check(batch.part(slice(num_jobs * times)))
        except InputError as mistake:
            return mistake
        return None

    if (mistake := refused(len(group.jobs))) is None:
        return
    good, bad = 0, len(group.jobs)
    while bad - good > 1:
        middle = (good + bad) // 2
        if (found := refused(middle)) is None:
            good = middle
        else:
            bad, mistake = middle, found
    job = group.jobs[bad - 1]
    raise JobMistake(job.num, job.overrides, mistake)


def _number(job: JobFacts, key: str) -> int | float:
    if key in job.given:
        return job.given[key].number
    assert job.settled is not None
    return job.settled.numbers[key]


def _name(groups: list[Group]) -> None:
    """Name each group by the overrides in which it differs from the others."""
    choices = [group.template.choices for group in groups]
    differing = [key for key in dict.fromkeys(key for one in choices for key in one) if len({one.get(key) for one in choices}) > 1]
    for number, group in enumerate(groups if len(groups) > 1 else []):
        said = ",".join(f"{key}={group.template.choices[key]}" for key in differing if key in group.template.choices)
        taken = {other.name for other in groups[:number]}
        group.name = re.sub(r"[/\\]", ".", said) or "rest"
        if group.name in taken:
            group.name += f" ({number})"
