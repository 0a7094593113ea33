"""Multiruns as a user meets them: one program for many jobs, and each job as if it had run alone."""

from __future__ import annotations

import contextlib
import csv
import itertools
import logging
import sys

import numpy as np
import pytest
import xarray as xr
from hydra.experimental.callback import Callback

import gdjax
from experiments.descend import draw
from gdjax import cli, program

RATES, SEEDS = (0.001, 0.02, 0.5), (3, 7)
PRODUCT = ["learning_rate=0.001,0.02,0.5", "seed=3,7", "batch_size=8"]
SHORT = ["experiment=descend", "num_steps=20"]


@contextlib.contextmanager
def logging_of_its_own():
    """Without pytest's handlers a warning goes to stderr, as in a process of its own; what Hydra sets up is taken down again."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        for handler in root.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
        root.handlers[:] = before[0]
        root.setLevel(before[1])


class Runner:
    """Runs the application in this process; pictures are drawn where they are asked for only, since they take most of the time."""

    def __init__(self, monkeypatch, folder):
        self.monkeypatch, self.folder = monkeypatch, folder
        monkeypatch.chdir(folder)
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        for name in ("descend", "learning_rate"):
            monkeypatch.setattr(f"experiments.{name}.draw", lambda results, problem: {})

    def __call__(self, *overrides):
        self.monkeypatch.setattr(sys, "argv", ["gdjax", *overrides])
        with logging_of_its_own(), pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code

    def many(self, *overrides, to="many"):
        return self("-m", *SHORT, f"hydra.sweep.dir={to}", *overrides)

    def alone(self, *overrides, to="alone"):
        assert self(*SHORT, f"hydra.run.dir={to}", *overrides) == 0
        return gdjax.open_results(self.folder / to).load()

    def opened(self, *path):
        return gdjax.open_results(self.folder.joinpath(*path)).load()


@pytest.fixture
def run(monkeypatch, tmp_path, hydra_restore_singletons):
    return Runner(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        here = Runner(monkeypatch, tmp_path_factory.mktemp("product"))
        assert here.many(*PRODUCT) == 0
    return here


def same(ds, other):
    # sums in another order: 1e-16 a step, and 100 times that for a difference of two objectives
    for name in ("objective", "gradient_norm", "distance", "params"):
        np.testing.assert_allclose(ds[name], other[name], rtol=1e-10)
    assert int(ds.diverged_at) == int(other.diverged_at)


def jobs_of(folder):
    with (folder / "jobs.csv").open() as file:
        return list(csv.DictReader(file))


class TestProduct:
    """All combinations of some values."""

    def test_has_a_dimension_for_each_swept_key(self, product):
        results = product.opened("many")
        assert results.objective.dims == ("learning_rate", "seed", "step")
        assert results.learning_rate.values.tolist() == list(RATES)
        assert results.seed.values.tolist() == list(SEEDS)
        assert int(results.batch_size) == 8
        assert results.job.values.tolist() == [[0, 1], [2, 3], [4, 5]]

    def test_is_a_row_a_job_in_a_table(self, product):
        rows = jobs_of(product.folder / "many")
        assert [(float(row["learning_rate"]), int(row["seed"])) for row in rows] == list(itertools.product(RATES, SEEDS))
        final = product.opened("many").objective.isel(step=-1).values.ravel()
        assert [float(row["objective"]) for row in rows[:4]] == final[:4].tolist()
        assert [row["objective"] for row in rows[4:]] == ["inf", "inf"]  # they diverge
        assert [row["job"] for row in rows] == [str(number) for number in range(6)]

    def test_leaves_what_a_run_leaves(self, product):
        names = {path.name for path in (product.folder / "many").iterdir()}
        assert names == {"0", "1", "2", "3", "4", "5", "findings.json", "jobs.csv", "multirun.yaml", "provenance.json", "sweep.zarr"}

    @pytest.mark.parametrize("job", [3, 5])
    def test_s_job_is_the_same_run_alone(self, product, run, job):
        rate, seed = list(itertools.product(RATES, SEEDS))[job]
        same(product.opened("many", str(job)), run.alone(f"learning_rate={rate}", f"seed={seed}", "batch_size=8"))

    def test_s_job_runs_again_from_its_own_folder(self, product, run):
        inner = product.folder / "many" / "3" / ".hydra"
        assert run("-cp", str(inner), "-cn", "config", "hydra.run.dir=again") == 0
        same(product.opened("many", "3"), run.opened("again"))

    @pytest.mark.parametrize(
        "overrides",
        [["learning_rate=0.5,0.001,0.02", "seed=7,3"], ["seed=7,3", "learning_rate=0.02,0.001"], ["seed=3", "learning_rate=0.5"]],
        ids=["permuted", "dropped", "one"],
    )
    def test_s_jobs_do_not_depend_on_their_neighbours(self, product, run, overrides):
        assert run.many(*overrides, "batch_size=8") == 0
        results, whole = run.opened("many"), product.opened("many")
        for rate, seed in itertools.product(results.learning_rate.values.ravel(), results.seed.values.ravel()):
            here = results.sel({dim: value for dim, value in (("learning_rate", rate), ("seed", seed)) if dim in results.dims})
            same(here, whole.sel(learning_rate=rate, seed=seed))

    def test_of_batch_sizes_and_seeds_shares_its_examples_as_a_sweep_does(self, run, notebook):
        assert run.many("batch_size=8,16", "seed=0,1", "learning_rate=0.01") == 0
        results = run.opened("many")
        ds = gdjax.sweep(notebook, num_steps=20, batch_size=[8, 16], seed=[0, 1], learning_rate=0.01)
        for name in ("objective", "params"):
            np.testing.assert_allclose(results[name], ds[name], rtol=1e-10)
        np.testing.assert_array_equal(results.epoch, ds.epoch)

    def test_is_drawn_and_its_findings_checked(self, run, monkeypatch, capfd):
        monkeypatch.setattr("experiments.descend.draw", draw)
        assert run.many("sampler=full", "learning_rate=0.001,0.01") == 0
        assert {path.name for path in (run.folder / "many").glob("*.*g")} == {"convergence.svg", "convergence.png"}
        out, err = capfd.readouterr()
        assert err == ""
        assert out.count("yes") == 2
        assert "results: many" in out

    def test_whose_finding_fails_is_status_one(self, run, monkeypatch):
        monkeypatch.setattr("gdjax.theory.gradient_descent", lambda _, rates, steps: np.ones((len(rates), len(steps))))
        assert run.many("sampler=full", "learning_rate=0.001,0.01") == 1


class TestSeveralMethods:
    """A group of jobs for each method."""

    def test_are_a_tree(self, run):
        assert run.many("method.name=sgd,adam", "learning_rate=0.001,0.01") == 0
        results = run.opened("many")
        assert isinstance(results, xr.DataTree)
        assert set(results.children) == {"method.name=sgd", "method.name=adam"}
        for name, jobs in (("sgd", [0, 1]), ("adam", [2, 3])):
            assert results[f"method.name={name}"].attrs["method"] == name
            assert results[f"method.name={name}"].job.values.tolist() == jobs
        same(run.opened("many", "3"), run.alone("method.name=adam", "learning_rate=0.01"))
        assert [row["group"] for row in jobs_of(run.folder / "many")] == ["method.name=sgd"] * 2 + ["method.name=adam"] * 2

    def test_a_method_s_number_is_swept_like_a_rate(self, run):
        assert run.many("method=adam", "method.b1=0.5,0.9", "learning_rate=0.01,0.1") == 0
        results = run.opened("many")
        assert results.objective.dims[:2] == ("b1", "learning_rate")
        same(results.sel(b1=0.5, learning_rate=0.1), run.alone("method=adam", "method.b1=0.5", "learning_rate=0.1"))

    def test_what_shapes_a_program_is_another_group(self, run):
        assert run.many("method.momentum=0.5", "method.nesterov=true,false", "learning_rate=0.001,0.01") == 0
        results = run.opened("many")
        assert {name: child.attrs["nesterov"] for name, child in results.children.items()} == {
            "method.nesterov=True": True, "method.nesterov=False": False
        }  # fmt: skip

    def test_a_loss_s_and_a_rule_s_numbers_are_groups_of_one_program(self, run, monkeypatch):
        compiled = []
        compile_one = program._compile
        monkeypatch.setattr(program, "_programs", {})
        monkeypatch.setattr(program, "_compile", lambda lowered: compiled.append(lowered) or compile_one(lowered))
        data = ["problem=diabetes", "problem.features=[bmi,bp]", "problem.scale=standardize", "problem.loss=huber", "sampler=full"]
        rule = ["stop.name=early_stopping", "stop.validation=0.25", "stop.patience=2,4"]
        assert run.many(*data, *rule, "problem.delta=20,60", "learning_rate=0.5,0.9") == 0
        results = run.opened("many")
        assert set(results.children) == {f"stop.patience={p},problem.delta={d}" for p in (2, 4) for d in (20, 60)}
        assert len(compiled) == 2  # where runs begin, and how they go on
        assert len({child.attrs["minimum"] for child in results.children.values()}) == 2
        for child in results.children.values():
            assert child.stopped_at.dims == ("learning_rate",)
        one = results["stop.patience=4,problem.delta=60"].to_dataset()
        single = [override.split(",")[0] for override in rule[:2]]
        alone = run.alone(*data, *single, "stop.patience=4", "problem.delta=60", "learning_rate=0.9")
        same(one.sel(learning_rate=0.9), alone)
        assert int(one.stopped_at.sel(learning_rate=0.9)) == int(alone.stopped_at)
        last = [float(row["objective"]) for row in jobs_of(run.folder / "many")][-1]
        assert last == pytest.approx(float(alone.objective.sel(step=int(alone.best_step))), rel=1e-12)

    def test_a_group_that_fails_leaves_the_others(self, run, monkeypatch):
        sweep = cli.sweep

        def fragile(problem, *, method, **settings):
            if method == "adam":
                raise RuntimeError("no adam today")
            return sweep(problem, method=method, **settings)

        monkeypatch.setattr(cli, "sweep", fragile)
        monkeypatch.setattr(
            sys, "argv", ["gdjax", "-m", *SHORT, "hydra.sweep.dir=many", "method.name=sgd,adam", "learning_rate=0.001,0.01"]
        )
        with pytest.raises((RuntimeError, SystemExit)) as stopped:  # a traceback is status 1
            cli.main()
        assert getattr(stopped.value, "code", 1) == 1
        assert [row["status"] for row in jobs_of(run.folder / "many")] == ["completed", "completed", "failed", "failed"]
        assert run.opened("many").objective.sizes["learning_rate"] == 2


class TestSearch:
    """Jobs that a sweeper chooses, batch after batch."""

    @pytest.mark.filterwarnings("ignore")  # optuna 2.10's own
    def test_is_a_list_whose_diverged_runs_are_no_failure(self, run):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
        sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=7", "hydra.sweeper.n_jobs=3", "hydra.sweeper.sampler.seed=1"]
        assert run.many(*sweeper, "hydra.sweeper.study_name=s", "learning_rate=interval(0.001,0.15)", "batch_size=choice(8)") == 0
        results = run.opened("many")
        assert results.objective.dims[0] == "job"
        assert results.job.values.tolist() == list(range(7))
        assert (results.diverged_at.values >= 0).any()
        assert (results.diverged_at.values < 0).any()
        rows = jobs_of(run.folder / "many")
        assert [row["objective"] == "inf" for row in rows] == (results.diverged_at.values >= 0).tolist()
        good = int(np.argmax(results.diverged_at.values < 0))
        overrides = rows[good]["overrides"].split()
        same(results.isel(job=good), run.alone(*overrides))
        assert (run.folder / "many" / "optimization_results.yaml").is_file()


class Seen(Callback):
    """Writes down what Hydra tells of jobs."""

    heard: list = []  # noqa: RUF012

    def on_job_start(self, config, **_):
        self.heard.append(("start", config.hydra.job.num, config.learning_rate))

    def on_job_end(self, config, job_return, **_):
        self.heard.append(("end", config.hydra.job.num, job_return.cfg.learning_rate, job_return.status.name))


class TestHydraS:
    """What Hydra offers, a multirun keeps; what it can't keep for jobs that run together, it runs one after the other for."""

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("hydra.job.chdir=true", "hydra.job.chdir=true"),
            ("hydra/job_logging=default", "hydra/job_logging=default"),
            ("+hydra.job.env_set.GDJAX_TEST=1", "hydra.job.env_set"),
        ],
    )
    def test_obstacles_are_one_line_and_the_files_hydra_s(self, run, capfd, override, said):
        assert run.many("learning_rate=0.001,0.01", override) == 0
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert said in line
        assert "2 jobs run one after the other" in line
        for job, rate in (("0", 0.001), ("1", 0.01)):
            inner = run.folder / "many" / job
            assert {path.name for path in (inner / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
            assert float(gdjax.open_results(inner).learning_rate) == rate
            assert (inner / "gdjax.log").is_file() is (override == "hydra/job_logging=default")
        assert not (run.folder / "many" / "sweep.zarr").exists()

    @pytest.mark.parametrize(
        ("asked", "names"),
        [
            ("none", None),
            ("overrides", {"overrides.yaml"}),
            ("full", {"config.yaml", "hydra.yaml", "overrides.yaml"}),
        ],
    )
    def test_folders_of_jobs_are_as_full_as_asked_for(self, run, asked, names):
        assert run.many("learning_rate=0.001,0.01", f"hydra.launcher.job_dirs={asked}") == 0
        inner = run.folder / "many" / "1" / ".hydra"
        assert ({path.name for path in inner.iterdir()} if inner.parent.is_dir() else None) == names
        assert float(run.opened("many", "1").learning_rate) == 0.01  # whether it has a folder or not

    def test_many_jobs_have_fewer_files(self, run, monkeypatch):
        monkeypatch.setattr("gdjax.launcher.launch.MOST_FULL", 1)
        assert run.many("learning_rate=0.001,0.01") == 0
        assert [path.name for path in (run.folder / "many" / "1" / ".hydra").iterdir()] == ["overrides.yaml"]

    def test_callbacks_hear_of_each_job_in_pairs(self, run):
        Seen.heard.clear()
        assert run.many("seed=1,2", "learning_rate=0.001,0.01", f"+hydra.callbacks.seen._target_={__name__}.Seen") == 0
        wanted = [[("start", job, rate), ("end", job, rate, "COMPLETED")] for job, rate in enumerate([0.001, 0.01] * 2)]
        assert Seen.heard == list(itertools.chain(*wanted))

    def test_experiments_of_both_kinds_run_in_one_multirun(self, run):
        assert run("-m", "experiment=descend,learning_rate", "num_steps=20", "hydra.sweep.dir=many") in (
            0,
            1,
        )  # of so few steps not every finding holds
        assert run.opened("many", "0").attrs["num_steps"] == 20
        assert isinstance(run.opened("many", "1"), xr.DataTree)

    def test_replicates_are_a_dimension(self, run):
        assert run.many("learning_rate=0.001,0.01", "batch_size=8", "hydra.launcher.replicate={seed:4}") == 0
        results = run.opened("many")
        assert results.objective.dims == ("learning_rate", "seed", "step")
        final = results.objective.isel(step=-1).mean("seed")
        assert [float(row["objective"]) for row in jobs_of(run.folder / "many")] == pytest.approx(final.values.tolist(), rel=1e-12)


MISTAKES = {
    "learning_rate=0.01,abc": ["job 1 (", "learning_rate=abc): ", "learning_rate=abc is not allowed"],
    "learning_rate=0.01,-1": ["job 1 (", "learning_rate=-1): ", "0 or more"],
    "seed=1,1.5": ["job 1 (", "seed=1.5): ", "seed=1.5 is not allowed"],
    "seed=1,-1": ["job 1 (", "seed=-1): ", "seed=-1 is not allowed"],
    "learnig_rate=1,2": ["learnig_rate", "Did you mean 'learning_rate'?"],
    "batch_size=8,81": ["job 1 (", "batch_size=81): ", "batch_size=81 is not allowed", "n = 80"],
    "method.name=adam,addam": ["job 1 (", "method.name=addam): ", "unknown method: 'addam'. Did you mean 'adam'?"],
    "method=adam method.b1=0.5,0.9 method.bb1=0.5": ["'bb1'", "Did you mean 'b1'?"],
    "stop.name=early_stopping stop.patience=3,0": ["job 1 (", "stop.patience=0): ", "patience=0 is not allowed"],
    "problem=diabetes problem.loss=huber problem.delta=1,-1": ["job 1 (", "problem.delta=-1): ", "delta=-1 is not allowed"],
    "num_steps=10,0": ["job 1 (", "num_steps=0): ", "num_steps=0 is not allowed"],
    "learning_rate=range(0,0)": ["learning_rate=range(0,0)", "no value"],
    "problem=notebook_line,csv": ["job 1 (", "problem=csv): ", "problem.path"],
    "seed=1,2 hydra.launcher.job_dirs=ful": ["job_dirs", "'ful'", "Did you mean 'full'?"],
    "seed=1,2 hydra.launcher.replicate={sed:4}": ["replicate", "'sed'", "Did you mean 'seed'?"],
    "seed=1,2 hydra.launcher.max_batch=0": ["hydra.launcher.max_batch=0"],
    "seed=0,1,2,3,4,5,6,7 batch_size=8,16,90": ["job 2 (", "seed=0 batch_size=90): ", "batch_size=90 is not allowed"],
}


@pytest.mark.parametrize(("given", "to"), [*((given, "many") for given in MISTAKES), ("seed=1,-1", None)])
def test_a_mistake_is_one_line_that_names_the_job_and_leaves_nothing(run, capfd, given, to):
    where = [] if to is None else [f"hydra.sweep.dir={to}"]
    steps = [] if "num_steps" in given else ["num_steps=20"]
    assert run("-m", "experiment=descend", *steps, *where, *given.split(" ")) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("gdjax: ")
    assert [said for said in MISTAKES[given] if said not in line] == []
    assert list(run.folder.iterdir()) == []
