"""Hydra's own tests of launchers; the same sweeps of a batchable task beside Hydra's basic launcher; other launchers as carriers."""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from omegaconf import OmegaConf

import gdjax
from gdjax import cli
from gdjax.launcher import batchable
from gdjax.launcher.batch import of_task

Plugins.instance()  # before a test that puts Hydra's state back: 1.4 executes each plugin's module once
ROOT = Path(cli.__file__).resolve().parents[1]

pytestmark = pytest.mark.filterwarnings("ignore:.*Future Hydra versions:UserWarning", "ignore:.*selects Hydra 1.1:UserWarning")


@pytest.fixture(autouse=True)
def _restored(hydra_restore_singletons, monkeypatch, tmp_path):
    """Hydra's suites are of its 1.1 defaults; they change directory and set up logging, which is taken back."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])


@pytest.fixture
def _of_1_1():
    if not hydra.__version__.startswith("1.3"):  # 1.4 knows no other defaults than its own
        return
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        version.setbase("1.1")


@pytest.mark.usefixtures("_of_1_1")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("vmap", []), ("vmap_over", [])])
class TestHydraSLauncherSuite(LauncherTestSuite):
    """A task that declares no numbers runs as Hydra's own launcher runs it."""


@pytest.mark.usefixtures("_of_1_1")
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", "hydra/launcher=vmap", "hydra/hydra_logging=disabled", "hydra/job_logging=disabled"])],
)
class TestHydraSIntegrationSuite(IntegrationTestSuite):
    """Its applications, run in this process instead of one each."""

    @pytest.fixture(autouse=True)
    def _in_this_process(self, monkeypatch):
        def check_call(command, env):
            monkeypatch.setattr(sys, "argv", command[1:])
            runpy.run_path(command[1], run_name="__main__")

        monkeypatch.setattr(subprocess, "check_call", check_call)


def declared(settings):
    """What the batchable task computes, of settings that may lack some of its numbers."""
    return sum(number for number in (settings.get("foo"), settings.get("bar"), settings.get("a")) if number is not None)


@batchable(foo=float, bar=float, a=float)
def together(settings, **numbers):
    return sum(number for number in numbers.values() if number is not None)


SWEEPS = [
    ("vmap", "compose", []),
    ("vmap", "compose", ["group1=file1,file2", "bar=100,200"]),
    ("vmap", "compose", ["foo=1,2.5", "+a=range(2)", "++bar=1e-3"]),
    ("vmap_over", "compose", ["group1=file1,file2", "+a=0,1"]),
    ("vmap", "unspecified_mandatory_default", ["group1=file1,file2"]),
    ("vmap", "db_conf", ["db=mysql,postgresql", "db.user=someone"]),
    ("vmap", "accessing_hydra_config", ["job_name=x,y"]),
]


class TestBatchable:
    """Jobs that run together are told to Hydra, and leave folders, as if each had run alone."""

    @pytest.mark.parametrize(("launcher", "name", "overrides"), SWEEPS)
    def test_is_told_and_left_as_by_the_basic_launcher(self, hydra_sweep_runner, tmp_path, launcher, name, overrides):
        version.setbase("1.3")
        told = {}
        for chosen, task in (("basic", declared), (launcher, together)):
            sweep = hydra_sweep_runner(
                calling_file=None, calling_module="hydra.test_utils.a_module", task_function=task, config_path="configs",
                config_name=name, overrides=[f"hydra/launcher={chosen}", *overrides], temp_dir=tmp_path / "sweep",
            )  # fmt: skip
            sweep.batchable = of_task(task)  # the runner hands Hydra itself, and is no wrapper of the task
            with sweep:
                told[chosen] = [
                    (
                        job.overrides, job.cfg, plain(job.hydra_cfg), job.return_value, job.status.name, job.task_name, job.working_dir,
                        files(tmp_path / "sweep" / str(number)),
                    )
                    for number, job in enumerate(sweep.returns[0])
                ]  # fmt: skip
                assert (tmp_path / "sweep" / "jobs.csv").is_file() is (chosen != "basic")
        assert told[launcher] == told["basic"]


def plain(hydra_cfg):
    """All but the launcher's own name, and what follows from it."""
    kept = OmegaConf.to_container(hydra_cfg.hydra, resolve=False)
    kept.pop("launcher")
    kept["overrides"].pop("hydra")
    kept["runtime"]["choices"] = {key: choice for key, choice in kept["runtime"]["choices"].items() if not key.startswith("hydra/launcher")}
    return kept


def files(folder):
    return {name: (folder / ".hydra" / name).read_text() for name in ("config.yaml", "overrides.yaml")}


class TestCarriers:
    """Another launcher that carries the batches changes no number."""

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize(("carrier", "max_batch"), [("joblib", 2), ("submitit_local", 3)])
    def test_give_what_vmap_gives(self, monkeypatch, tmp_path, carrier, max_batch):
        pytest.importorskip(f"hydra_plugins.hydra_{carrier.partition('_')[0]}_launcher")
        paths = [str(ROOT), str(ROOT / "gdjax" / "_plugins"), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # of the processes that it starts
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr("experiments.descend.draw", lambda results, problem: {})
        for to, launcher in (
            ("here", ["hydra/launcher=vmap"]),
            (
                "there",
                ["hydra/launcher=vmap_over", f"hydra/launcher@hydra.launcher.inner={carrier}", f"hydra.launcher.max_batch={max_batch}"],
            ),
        ):
            jobs = ["experiment=descend", "num_steps=5", "seed=1", "learning_rate=0.001,0.01,0.5", f"hydra.sweep.dir={to}"]
            monkeypatch.setattr(sys, "argv", ["gdjax", "-m", *jobs, *launcher])
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert stopped.value.code == 0
        here, there = (gdjax.open_results(tmp_path / to) for to in ("here", "there"))
        assert (there.sizes, there.seed) == (here.sizes, here.seed)
        np.testing.assert_allclose(there.objective, here.objective, rtol=1e-10)  # 5 steps of 1e-16
        rows, wanted = ((tmp_path / to / "jobs.csv").read_text().splitlines() for to in ("there", "here"))
        assert [row.split(",")[:3] for row in rows] == [row.split(",")[:3] for row in wanted]
