"""The application: compose the settings, run the experiment, save what it measured, say what was found.

The only module that knows Hydra. Settings end here: below, everything is plain arguments.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import pkgutil
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gdjax.program import Observer
from gdjax.records import Finding, InputError, unknown_name

MISTAKE, FAILED, HOLDS = 2, 1, 0
"""Exit statuses."""

QUIET_SECONDS = 1.0
"""Work that takes no longer shows no progress bar."""


def main() -> None:
    """Run the application with the command line's overrides, and exit with its status."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra lets exceptions through, for this function to put in one line
    ConfigStore.instance().store(name="schema", node=OmegaConf.create({"method": OmegaConf.create({}, flags={"struct": False})}))
    statuses: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
    def application(settings: DictConfig) -> None:
        statuses.append(run_job(settings, Path(HydraConfig.get().runtime.output_dir)))

    try:
        application()
    except (HydraException, OmegaConfBaseException) as mistake:
        statuses.append(_complain(mistake))
    sys.exit(max(statuses, default=HOLDS))


def config_folder() -> Path:
    """The configurations: the checkout's `conf`, or the copy inside the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if checkout.is_dir() else package / "conf"


def run_job(settings: DictConfig, folder: Path) -> int:
    """Run one experiment into `folder`; nothing is left there after a mistake of the user's."""
    begun = time.perf_counter()
    try:
        return _run(settings, folder, begun)
    except (InputError, OmegaConfBaseException) as mistake:
        _take_back(folder)
        return _complain(mistake)


def _complain(mistake: Exception) -> int:
    print(f"gdjax: {explain(mistake)}", file=sys.stderr)
    return MISTAKE


def _run(settings: DictConfig, folder: Path, begun: float) -> int:
    import matplotlib

    from gdjax import figures, problems, store
    from gdjax.sweep import sweep

    _keep_compiled_programs()
    plain: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # pyright: ignore[reportAssignmentType]
    options = {key: value for key, value in plain.pop("problem").items() if key != "marked_rates"}
    experiment = _experiment(plain.pop("name"))
    console = Console(stderr=True)
    with Meter(console) as meter, _warnings_in_one_line(console):
        problem = problems.named(**options)
        measure = functools.partial(sweep, precision=plain.pop("precision"), observer=meter)
        results = experiment.run(problem, measure, **_arguments(experiment, plain))
    seconds = {"compile": meter.compile_seconds, "run": meter.total_seconds - meter.compile_seconds}
    folder.mkdir(parents=True, exist_ok=True)
    store.save_sweep(folder, results)  # first: whatever fails from here on, the measurement is not lost
    findings: list[Finding] = experiment.check(results, problem)
    store.save_findings(folder, findings)
    OmegaConf.save(settings, folder / "config.yaml", resolve=True)
    with matplotlib.rc_context(figures.STYLE):
        for name, figure in experiment.draw(results, problem).items():
            for suffix in ("svg", "png"):
                figure.savefig(folder / f"{name}.{suffix}")
    seconds["total"] = time.perf_counter() - begun
    store.save_json(folder / "provenance.json", store.provenance(["gdjax", *sys.argv[1:]], measure.keywords["precision"], seconds))
    _say(findings, folder)
    return HOLDS if all(finding.holds for finding in findings) else FAILED


def _arguments(experiment: ModuleType, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the experiment takes; one that takes no method is about plain gradient descent."""
    taken = inspect.signature(experiment.run).parameters
    chosen = {name: number for name, number in settings["method"].items() if number}
    if "method" not in taken and chosen != {"name": "sgd"}:
        short = experiment.__name__.rpartition(".")[2]
        raise InputError(f"experiment {short} is about plain gradient descent: leave method away, or use experiment=descend with it.")
    return {key: value for key, value in settings.items() if key in taken}


def _experiment(name: str) -> ModuleType:
    import experiments

    known = [module.name for module in pkgutil.iter_modules(experiments.__path__) if module.name != "run"]
    if name not in known:
        raise unknown_name("experiment", name, known)
    return importlib.import_module(f"experiments.{name}")


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


def _say(findings: list[Finding], folder: Path) -> None:
    table = Table("claim", "predicted", "measured", "tolerance", "holds", title="findings", title_justify="left")
    sign = {"equal": "", "at_most": "≤ ", "at_least": "≥ "}
    for finding in findings:
        verdict = "[green]yes[/]" if finding.holds else "[bold red]NO[/]"
        table.add_row(
            finding.claim, f"{sign[finding.kind]}{finding.predicted:.6g}", f"{finding.measured:.6g}", f"{finding.tolerance:.2g}", verdict
        )
    console = Console()
    console.print(table)
    console.print(f"results: {os.path.relpath(folder)}", soft_wrap=True, highlight=False)


def _take_back(folder: Path) -> None:
    """Remove what Hydra laid out for a run that did not take place, and the folders that this leaves empty."""
    shutil.rmtree(folder / ".hydra", ignore_errors=True)
    for place in (folder, *folder.parents):
        try:
            place.rmdir()
        except OSError:
            return


def explain(mistake: Exception) -> str:
    """One line for a mistake: what was given, what is allowed, the nearest valid name."""
    if isinstance(mistake, MissingConfigException) and mistake.options is not None and mistake.missing_cfg_file:
        group, _, name = mistake.missing_cfg_file.rpartition("/")
        return str(unknown_name(group, name, mistake.options))
    cause: Any = mistake.__cause__
    if isinstance(mistake, ConfigCompositionException) and getattr(cause, "key", None) is not None and cause.parent_node is not None:
        parent = cause.full_key.rpartition(".")[0]
        allowed = [key for key in cause.parent_node if key != "hydra"] if isinstance(cause.parent_node, DictConfig) else []
        return str(unknown_name(f"setting of {parent}" if parent else "setting", str(cause.key), map(str, allowed)))
    if isinstance(mistake, OverrideParseException):
        return f"can't read the override '{mistake.override}': write key=value, and quote what holds spaces, brackets or commas."
    said = mistake if cause is None or isinstance(mistake, InputError) else cause
    return " ".join(str(said).split())
