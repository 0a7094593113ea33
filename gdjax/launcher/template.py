"""One combination of structural overrides, composed once by Hydra itself, from which every job that shares it is made.

Composing a job takes Hydra about 120 ms; here a job's numbers are put into a composed configuration by the call that Hydra itself makes
for an override, once for each different value, and its files are that configuration's text with the job's own values in the holes.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gdjax.launcher.batch import Batchable, Reader, declared, masked

OF_ONE_JOB = re.compile(r"\$\{hydra:(job\.(num|id|override_dirname)|runtime\.output_dir|sweep\.subdir|overrides)")
"""Interpolations whose value is each job's own, so that no two jobs share their settings."""

HOLE = "GDJAX{}HOLE"

PLAIN = re.compile(r"[A-Za-z_/][\w./,+-]*[=/][\w./=,+-]*", re.ASCII)
"""A path or an override of which YAML can make nothing but a string; to ask it takes 0.2 ms."""


@dataclass(frozen=True, slots=True)
class Given:
    """A number as an override gave it, as the configuration holds it, and as the task takes it."""

    override: str
    held: Any
    number: int | float


@dataclass(frozen=True)
class Settled:
    """Settings with every interpolation resolved: what the jobs of a group share."""

    key: str
    settings: DictConfig
    numbers: dict[str, int | float]  # as the configuration has them, where a job gives none


class Template:
    """A composed configuration, and what jobs change in it."""

    def __init__(self, config: DictConfig, structural: tuple[str, ...], spec: Batchable) -> None:
        self.config, self.structural, self.spec = config, structural, spec
        self.settings: DictConfig = copy.deepcopy(config)
        with read_write(self.settings), open_dict(self.settings):
            del self.settings["hydra"]
        OmegaConf.set_readonly(self.settings, False)
        self._scratch = copy.deepcopy(self.settings)
        self._interpolations = list(_interpolations(OmegaConf.to_container(self.settings, resolve=False)))
        self._given: dict[str, Given] = {}
        self._settled: dict[Any, Settled] = {}
        self._texts: dict[Any, Text] = {}
        self.choices: dict[str, str] = {key_of(override): override.partition("=")[2] for override in structural}

    @functools.cached_property
    def obstacle(self) -> str | None:
        """Why its jobs need Hydra's own launcher; None where they do not."""
        hydra = self.config.hydra
        asked = [override for override in hydra.overrides.hydra if re.match(r"hydra[./]job_logging", override)]
        if not self.spec.accepts(self.settings):
            return ""  # an obstacle that needs no explanation
        if hydra.job.chdir or (hydra.job.chdir is None and not version.base_at_least("1.2")):
            return "hydra.job.chdir=true gives each job a working directory of its own"
        if hydra.job.env_set:
            return "hydra.job.env_set gives each job an environment of its own"
        if asked and _has_files(hydra.job_logging):
            return f"{asked[-1]} gives each job a log file of its own"
        for text in self._interpolations:
            if found := OF_ONE_JOB.search(text):
                return f"{found.group()}}} gives each job settings of its own"
        return None

    def given(self, override: str, read: Reader) -> Given:
        """What an override of a declared number means here, as Hydra would have it."""
        if override not in self._given:
            key, _, text = override.partition("=")
            OmegaConf.update(self._scratch, key, _literal(text), merge=True)
            held = OmegaConf.select(self._scratch, key)
            self._given[override] = Given(override, held, read(key, held))
        return self._given[override]

    def settled(self, given: Mapping[str, Given]) -> Settled:
        """The settings of jobs with those numbers; they differ only where others are interpolated from the numbers."""
        linked = tuple((key, repr(given[key].held)) for key in self._linked(tuple(given)))
        key = (linked, tuple(given))
        if key not in self._settled:
            resolved = self.put(copy.deepcopy(self.settings), given)
            before = HydraConfig.instance().cfg
            HydraConfig.instance().set_config(self.config)
            try:
                OmegaConf.resolve(resolved)
            finally:
                HydraConfig.instance().cfg = before
            numbers = dict(declared(resolved, self.spec))
            shared = masked(resolved, {**numbers, **given})
            text = repr(OmegaConf.to_container(shared, throw_on_missing=False))
            self._settled[key] = Settled(f"{text} {sorted({**numbers, **given})}", shared, numbers)
        return self._settled[key]

    @functools.cache  # noqa: B019  (a template lives as long as its multirun)
    def _linked(self, keys: tuple[str, ...]) -> list[str]:
        """Those that other settings may be interpolated from: some part of their name stands in an interpolation."""
        words = {word for text in self._interpolations for word in re.findall(r"\w+", text)}
        return [key for key in keys if words & set(key.split("."))]

    @staticmethod
    def put(settings: DictConfig, given: Mapping[str, Given]) -> DictConfig:
        """Put a job's numbers into settings."""
        for key, one in given.items():
            OmegaConf.update(settings, key, one.held, merge=True)
        return settings

    def full(self, job: JobFacts) -> DictConfig:
        """The configuration of one job, as Hydra would have composed it."""
        config = copy.deepcopy(self.config)
        self.put(config, job.given)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.num, config.hydra.job.id = job.num, str(job.num)
            if not OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):  # as it is from Hydra 1.4 on
                config.hydra.job.override_dirname = self.override_dirname(job.overrides)
            config.hydra.overrides.task = task_overrides(job.overrides)
            if job.folder is not None:
                config.hydra.runtime.output_dir = str(job.folder)
        return config

    def override_dirname(self, overrides: Sequence[str]) -> str:
        """Hydra's name for a job: its overrides in order, those of excluded keys left out."""
        left_out, between, equals = self._dirname
        kept = [override for override in task_overrides(overrides) if key_of(override) not in left_out]
        return between.join(sorted(kept)).replace("=", equals)

    @functools.cached_property
    def _dirname(self) -> tuple[list[str], str, str]:
        named = self.config.hydra.job.config.override_dirname
        return list(named.exclude_keys), named.item_sep, named.kv_sep

    def folder(self, job: JobFacts, sweep_folder: Path) -> Path:
        """Where the job's files go."""
        if self._is_numbered:
            return sweep_folder / str(job.num)
        return sweep_folder / str(self.full(job).hydra.sweep.subdir)

    @functools.cached_property
    def _is_numbered(self) -> bool:
        asked: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        return asked["subdir"] == "${hydra.job.num}"

    def files(self, job: JobFacts, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The job's files in `.hydra`, by name, byte for byte as Hydra writes them."""
        if any(re.search(r"\s", said) for said in (*job.overrides, str(job.folder))):  # YAML may fold such a line, so no holes
            whole = self.full(job)
            settings = copy.deepcopy(whole)
            with open_dict(settings):
                del settings["hydra"]
            texts = {
                "config.yaml": OmegaConf.to_yaml(settings),
                "hydra.yaml": OmegaConf.to_yaml(OmegaConf.masked_copy(whole, "hydra")),
                "overrides.yaml": OmegaConf.to_yaml(whole.hydra.overrides.task),
            }
            yield from ((name, texts[name]) for name in names)
            return
        task = task_overrides(job.overrides)
        values = {f"k{place}": one.held for place, one in enumerate(job.given.values())}
        values |= {f"o{place}": override for place, override in enumerate(task)}
        values |= {"num": job.num, "id": str(job.num), "dirname": self.override_dirname(job.overrides), "dir": str(job.folder)}
        for name in names:
            shape = (name, tuple(job.given), len(task))
            if shape not in self._texts:
                self._texts[shape] = Text(self._with_holes(name, list(job.given), len(task)))
            yield name, self._texts[shape].filled(values)

    def _with_holes(self, name: str, keys: list[str], num_overrides: int) -> str:
        overrides = [HOLE.format(f"o{place}") for place in range(num_overrides)]
        if name == "overrides.yaml":
            return OmegaConf.to_yaml(OmegaConf.create(overrides))
        source = self.settings if name == "config.yaml" else OmegaConf.masked_copy(self.config, "hydra")
        container: Any = OmegaConf.to_container(source, resolve=False, enum_to_str=True)
        if name == "config.yaml":
            holes = {key: f"k{place}" for place, key in enumerate(keys)}
        else:
            container["hydra"]["overrides"]["task"] = overrides
            holes = {"hydra.job.num": "num", "hydra.job.id": "id", "hydra.runtime.output_dir": "dir"}
            if not OmegaConf.is_interpolation(self.config.hydra.job, "override_dirname"):
                holes["hydra.job.override_dirname"] = "dirname"
        for key, hole in holes.items():
            *parents, last = key.split(".")
            functools.reduce(lambda node, part: node[part], parents, container)[last] = HOLE.format(hole)
        return OmegaConf.to_yaml(OmegaConf.create(container))


@dataclass(kw_only=True, slots=True)
class JobFacts:
    """One job of a multirun."""

    num: int
    overrides: Sequence[str]
    template: Template
    given: dict[str, Given]
    settled: Settled | None  # None where it runs alone
    folder: Path | None = None


class Text:
    """A text with holes."""

    def __init__(self, text: str) -> None:
        self.parts = re.split(HOLE.format("([a-z0-9]+)"), text)

    def filled(self, values: Mapping[str, Any]) -> str:
        """The text with each hole's value as YAML has it."""
        return "".join(part if place % 2 == 0 else _scalar(repr(values[part]), values[part]) for place, part in enumerate(self.parts))


def task_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that are the task's, not Hydra's own."""
    return [override for override in overrides if not re.match(r"[+~]*hydra[./@=]", override)]


@functools.lru_cache(maxsize=100_000)
def _scalar(shown: str, value: Any) -> str:  # by how it is shown too: 0, 0.0, -0.0 and False are one key of a cache
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return f"'{value}'"
    return OmegaConf.to_yaml(OmegaConf.create([value]))[2:-1]


def key_of(override: str) -> str:
    """The key that an override is for."""
    return override.partition("=")[0].lstrip("+~")


def _literal(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _interpolations(plain: Any) -> Iterator[str]:
    if isinstance(plain, dict | list):
        for value in plain.values() if isinstance(plain, dict) else plain:
            yield from _interpolations(value)
    elif isinstance(plain, str) and "${" in plain:
        yield plain


def _has_files(logging: DictConfig) -> bool:
    return any("filename" in handler for handler in (logging.get("handlers") or {}).values())
