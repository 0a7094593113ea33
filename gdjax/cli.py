"""The application: compose the settings, run the experiment, save what it measured, say what was found.

The only module beside the launcher that knows Hydra. Settings end here: below, everything is plain arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
import xarray as xr
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import experiments
from experiments import Experiment
from gdjax import figures, methods, problems, stopping, store
from gdjax.launcher import Batch, Outcome, batchable
from gdjax.launcher.batch import Reader, number
from gdjax.launcher.mistakes import Mistake, explain
from gdjax.program import Observer
from gdjax.records import Finding, InputError, Problem, whole
from gdjax.sweep import check, sweep

MISTAKE, FAILED, HOLDS = 2, 1, 0
"""Exit statuses."""

SPLIT = ("validation", "seed")
"""What `stop` says beside the rule's own numbers: the share of the examples that is held out, and the seed that chooses them."""

QUIET_SECONDS = 1.0
"""Work that takes no longer shows no progress bar."""


def main() -> None:
    """Run the application with the command line's overrides, and exit with its status."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra lets exceptions through, for this function to put in one line
    open_to_any = {group: OmegaConf.create({}, flags={"struct": False}) for group in ("method", "stop")}
    ConfigStore.instance().store(name="schema", node=OmegaConf.create(open_to_any))
    application = Application()
    task = batchable(
        {"learning_rate": _rate, "batch_size": functools.partial(whole, least=1), "seed": functools.partial(whole, least=0)},
        run=run_batch,
        check=check_batch,
        accepts=lambda settings: settings.name == "descend",
        also=_number_of_method,
        ran=application.ran,
    )(application.run)
    statuses = []
    try:
        hydra.main(config_path=str(config_folder()), config_name="config", **_hydra_defaults())(task)()
    except Mistake as mistake:
        statuses.append(_complain(mistake))
    except ValueError as mistake:
        if "Config group override" not in str(mistake):
            raise
        said = "experiment, problem, method and stop are chosen by name, e.g. stop=none: null and numbers are no names."
        statuses.append(_complain(InputError(said)))
    finally:  # a job that failed takes nothing from the others
        application.report()
    sys.exit(max([*statuses, *application.statuses], default=HOLDS))


def config_folder() -> Path:
    """The configurations: the checkout's `conf`, or the copy inside the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if checkout.is_dir() else package / "conf"


def _hydra_defaults() -> dict[str, str]:
    """Hydra 1.3 asks for the version whose defaults are meant, and 1.4 asks to leave that away."""
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


class Application:
    """One call of the command: a run, or the jobs of a multirun."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.sweeps: dict[tuple[Path, str], DictConfig] = {}  # settings of jobs that ran together, by folder and group
        self.begun = time.perf_counter()

    def run(self, settings: DictConfig) -> float | None:
        """Run one experiment; what it returns is the objective that a sweeper sees."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            status, objective = run_alone(settings, folder)
        except (InputError, OmegaConfBaseException) as mistake:
            store.take_back(folder, [".hydra"])
            status, objective = _complain(mistake), None
        self.statuses.append(status)
        return objective

    def ran(self, folder: Path, name: str, settings: DictConfig) -> None:
        """Remember jobs that ran together, to report on them when all have."""
        self.sweeps[folder, name] = settings

    def report(self) -> None:
        """Check and draw what jobs measured together."""
        for folder in dict.fromkeys(folder for folder, _ in self.sweeps):
            groups = {name: settings for (place, name), settings in self.sweeps.items() if place == folder}
            self.statuses.append(report(folder, groups, begun=self.begun))
        if len(self.statuses) > 1:
            hold = self.statuses.count(HOLDS)
            print(f"{hold} of {len(self.statuses)} runs have findings that all hold; {time.perf_counter() - self.begun:.0f} s in all.")


class Measured(NamedTuple):
    """An experiment that has run."""

    experiment: Experiment
    problem: Problem | None
    results: xr.Dataset | xr.DataTree
    seconds: dict[str, float]


def run_alone(settings: DictConfig, folder: Path) -> tuple[int, float | None]:
    """Run one experiment into `folder`; nothing is left there after a mistake of the user's."""
    begun = time.perf_counter()
    plain: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # pyright: ignore[reportAssignmentType]
    measured = _measure(plain)
    folder.mkdir(parents=True, exist_ok=True)
    store.save_sweep(folder, measured.results)  # first: whatever fails from here on, the measurement is not lost
    findings = measured.experiment.check(measured.results, measured.problem)
    store.save_findings(folder, findings)
    OmegaConf.save(settings, folder / "config.yaml", resolve=True)
    _save_figures(measured.experiment.draw(measured.results, measured.problem), folder)
    seconds = measured.seconds | {"total": time.perf_counter() - begun}
    store.save_json(folder / "provenance.json", store.provenance(["gdjax", *sys.argv[1:]], plain["precision"], seconds))
    _say(measured.experiment.name, findings, folder)
    final = _final_objective(measured.results)
    return _status(findings), None if final is None or final.size > 1 else final.item()


def run_batch(batch: Batch) -> Outcome:
    """Run jobs that differ in numbers alone, as one sweep."""
    measured = _measure(_plain(batch))
    assert isinstance(measured.results, xr.Dataset)
    final = _final_objective(measured.results)
    assert final is not None
    return Outcome(values=final.tolist(), results=measured.results.assign_attrs(seconds=list(measured.seconds.values())))


def check_batch(batch: Batch) -> None:
    """Refuse what `run_batch` would refuse, before anything runs."""
    plain = _plain(batch)
    experiment = experiments.named(plain["name"])
    experiment.run(_problem(plain), functools.partial(check, precision=plain["precision"]), **_arguments(experiment, plain))


def _plain(batch: Batch) -> dict[str, Any]:
    """The settings with the jobs' numbers in their places, as axes that go together."""
    plain: dict[str, Any] = OmegaConf.to_container(batch.settings, throw_on_missing=False)  # pyright: ignore[reportAssignmentType]
    for key, column in batch.numbers.items():
        *parents, last = key.split(".")
        functools.reduce(dict.__getitem__, parents, plain)[last] = xr.DataArray(column, dims="job")
    return plain


def report(folder: Path, groups: dict[str, DictConfig], *, begun: float) -> int:
    """Check and draw the results of a multirun, and give its status."""
    opened = store.open_results(folder)
    findings, precision, seconds = [], "float64", np.zeros(2)
    for name, settings in groups.items():
        results = opened[name].to_dataset() if isinstance(opened, xr.DataTree) else opened
        plain: dict[str, Any] = OmegaConf.to_container(settings, throw_on_missing=False)  # pyright: ignore[reportAssignmentType]
        experiment, problem = experiments.named(plain["name"]), _problem(plain)
        of_group = experiment.check(results, problem)
        findings += [dataclasses.replace(finding, claim=f"{name}: {finding.claim}") for finding in of_group] if name else of_group
        suffix = "-" + re.sub(r"[^\w.=-]+", "_", name) if name else ""
        _save_figures({f"convergence{suffix}": figure for figure in experiment.draw(results, problem).values()}, folder)
        precision, seconds = results.attrs["precision"], seconds + results.attrs["seconds"]
    store.save_findings(folder, findings)
    spent = {"compile": seconds[0], "run": seconds[1], "total": time.perf_counter() - begun}
    store.save_json(folder / "provenance.json", store.provenance(["gdjax", *sys.argv[1:]], precision, spent))
    _say(" and ".join(dict.fromkeys(settings["name"] for settings in groups.values())), findings, folder)
    return _status(findings)


def _measure(plain: dict[str, Any]) -> Measured:
    _keep_compiled_programs()
    experiment = experiments.named(plain["name"])
    console = Console(stderr=True)
    with Meter(console) as meter, _warnings_in_one_line(console):
        problem = _problem(plain)
        measure = functools.partial(sweep, precision=plain["precision"], observer=meter)
        results = experiment.run(problem, measure, **_arguments(experiment, plain))
    return Measured(experiment, problem, results, {"compile": meter.compile_seconds, "run": meter.total_seconds - meter.compile_seconds})


def _problem(plain: dict[str, Any]) -> Problem | None:
    """The problem that runs are about: of the examples that no rule holds out."""
    return _parts(plain)[0]


def _parts(plain: dict[str, Any]) -> tuple[Problem | None, Problem | None]:
    """The problem, and what is held out of it."""
    stop = plain.get("stop") or {}
    if plain["problem"]["name"] == "none":
        return None, None
    options = {key: value for key, value in plain["problem"].items() if key != "marked_rates"}
    return _built(json.dumps(options), json.dumps([stop.get(key) for key in SPLIT]))


@functools.lru_cache(maxsize=8)
def _built(options: str, held_out: str) -> tuple[Problem, Problem | None]:
    """A problem, built once for the checks, the runs and the figures of a multirun."""
    (validation, seed), given = json.loads(held_out), json.loads(options)
    problem = problems.named(**given)
    if validation is None:
        return problem, None
    seed = 0 if seed is None else whole("stop.seed", seed, least=0)
    return problems.split(problem, validation, seed=seed, standardized=given.get("scale") == "standardize")


def _rule(plain: dict[str, Any]) -> stopping.Rule | None:
    """When runs end early, as the settings name it."""
    given = {key: value for key, value in (plain.get("stop") or {}).items() if value is not None}
    name, numbers = given.pop("name", None), {key: value for key, value in given.items() if key not in SPLIT}
    if name is None and given:
        key, value = next(iter(given.items()))
        rules = ", ".join(rule.__name__ for rule in stopping.RULES)
        raise InputError(f"stop.{key}={value} is given, and no rule: name one too, stop.name=... of {rules}.")
    return None if name is None else stopping.named(name, numbers, held_out=_parts(plain)[1], also=SPLIT)


def _final_objective(results: xr.Dataset | xr.DataTree) -> np.ndarray | None:
    """The objective of what each run left; infinite where it diverged. None for an experiment that is several sweeps."""
    if "objective" not in results:
        return None
    objective = results["objective"]
    best = results.get("best_step")  # where a rule keeps the best iterate
    left = objective.isel(step=-1) if best is None else objective.sel(step=best.clip(min=0)).drop_vars("step")
    return left.where(results["diverged_at"] < 0, np.inf).values


def _rate(key: str, value: Any) -> float:
    if number(key, value) < 0:
        raise InputError(f"{key}={value} is not allowed: a rate is 0 or more.")
    return number(key, value)


def _number_of_method(settings: DictConfig, key: str) -> Reader | None:
    """How to read a number of the chosen method; what shapes the method's program is none."""
    group, _, name = key.rpartition(".")
    return number if group == "method" and methods.is_number(str(settings.method.name), name) else None


def _status(findings: list[Finding]) -> int:
    return HOLDS if all(finding.holds for finding in findings) else FAILED


def _complain(mistake: Exception) -> int:
    print(f"gdjax: {explain(mistake)}", file=sys.stderr)
    return MISTAKE


def _save_figures(drawn: dict[str, Any], folder: Path) -> None:
    import matplotlib

    with matplotlib.rc_context(figures.STYLE):
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}.png")
            figure.set_layout_engine("none")  # it has been laid out, which takes a third of the time
            figure.savefig(folder / f"{name}.svg")


def _arguments(experiment: Experiment, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the experiment takes; one that takes no method is about plain gradient descent."""
    taken = experiment.settings
    if "method" not in taken and {name: number for name, number in settings["method"].items() if number} != {"name": "sgd"}:
        raise InputError(f"experiment {experiment.name} chooses its methods: leave method away, or use experiment=descend with it.")
    rule = _rule(settings)
    if "stop" not in taken and rule is not None:
        raise InputError(f"experiment {experiment.name} chooses when runs end: leave stop away, or use experiment=descend with it.")
    return {key: value for key, value in (settings | {"stop": rule}).items() if key in taken}


def _keep_compiled_programs() -> None:
    """Keep compiled programs between processes, unless the user has said where or that they shouldn't be."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(base / "gdjax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


class Meter(Observer):
    """Adds up where the time goes, and shows a bar on a terminal for what takes longer than a moment."""

    def __init__(self, console: Console) -> None:
        self.compile_seconds = self.total_seconds = 0.0
        self.begun = time.perf_counter()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("running", total=None)
        self.moment = threading.Timer(QUIET_SECONDS, self.bar.start)
        self.moment.daemon = True

    def __enter__(self) -> Meter:
        self.moment.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.moment.cancel()
        if self.bar.live.is_started:
            self.bar.stop()
        self.total_seconds = time.perf_counter() - self.begun

    def compiled(self, seconds: float) -> None:
        """Add to the compile time."""
        self.compile_seconds += seconds

    def advanced(self, done: int, total: int) -> None:
        """Move the bar on."""
        self.bar.update(self.task, completed=done, total=total)


@contextlib.contextmanager
def _warnings_in_one_line(console: Console) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for said in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        console.print(f"[yellow]note[/]: {said}", soft_wrap=True, highlight=False)


def _say(name: str, findings: list[Finding], folder: Path) -> None:
    console = Console()
    if findings:
        console.print(_table(name, findings))
    else:
        console.print(f"findings of {name}: none, since nothing is known of this problem that they could be judged by.", soft_wrap=True)
    console.print(f"results: {os.path.relpath(folder)}", soft_wrap=True, highlight=False)


def _table(name: str, findings: list[Finding]) -> Table:
    table = Table("claim", "predicted", "measured", "tolerance", "holds", title=f"findings of {name}", title_justify="left")
    sign = {"equal": "", "at_most": "≤ ", "at_least": "≥ "}
    for finding in findings:
        verdict = "[green]yes[/]" if finding.holds else "[bold red]NO[/]"
        table.add_row(
            finding.claim, f"{sign[finding.kind]}{finding.predicted:.6g}", f"{finding.measured:.6g}", f"{finding.tolerance:.2g}", verdict
        )
    return table
