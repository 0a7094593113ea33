"""The application as a user meets it: one process where it must be one, in this process where it may."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gdjax
from gdjax import cli

ROOT = Path(cli.__file__).resolve().parents[1]


def run(*overrides, cwd, module="experiments.run"):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::RuntimeWarning", "COLUMNS": "120"}
    return subprocess.run([sys.executable, "-m", module, *overrides], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def in_process(monkeypatch, tmp_path, capfd):
    """Run the application here: (status, what it printed, what it complained of)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))  # leaves the process's own setting as it is

    def call(*overrides):
        monkeypatch.setattr(sys, "argv", ["gdjax", *overrides])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capfd.readouterr()

    return call


def test_the_default_run_leaves_everything_that_it_promises(tmp_path):
    done = run(cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "holds" in done.stdout
    (folder,) = (tmp_path / "results" / "runs" / "learning_rate").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names >= {"sweep.zarr", "findings.json", "config.yaml", "provenance.json", "learning_rate.svg", "learning_rate.png"}
    findings = json.loads((folder / "findings.json").read_text())
    assert all(finding["holds"] for finding in findings)
    edge = findings[0]
    assert edge["predicted"] == pytest.approx(0.029158630401484423, rel=1e-9)  # N06
    assert edge["measured"] == pytest.approx(0.029158630401484423, rel=0.005)
    provenance = json.loads((folder / "provenance.json").read_text())
    assert set(provenance) >= {"versions", "device", "precision", "git_commit", "seconds"}
    full = gdjax.open_results(folder)["full"]
    assert full.sizes["learning_rate"] >= 200
    assert {0.001, 0.01, 0.05, 0.2} <= set(full.learning_rate.values)


def test_a_users_csv_runs_from_any_folder(in_process, tmp_path):
    (tmp_path / "houses.csv").write_text(
        "area,rooms,price\n" + "".join(f"{40 + 3 * i},{1 + i % 4},{100 + 7 * i + i % 3}\n" for i in range(40))
    )
    status, out, err = in_process("problem=csv", "problem.path=houses.csv", "problem.target=price", "hydra.run.dir=out", "num_seeds=32")
    assert (status, err.strip()) == (0, "")
    assert (tmp_path / "out" / "sweep.zarr").is_dir()
    assert "results: out" in out


def test_a_constant_column_is_a_note_and_no_mistake(in_process, tmp_path):
    (tmp_path / "data.csv").write_text("a,one,y\n" + "".join(f"{i},1,{2 * i + i % 3}\n" for i in range(20)))
    status, _, err = in_process("problem=csv", "problem.path=data.csv", "problem.target=y", "num_seeds=32")
    assert status == 0
    assert "note: the columns of X are collinear" in err


def test_one_run_takes_the_methods_own_numbers(in_process, tmp_path):
    status, _, _ = in_process(
        "experiment=descend", "method.name=adam", "method.b1=0.8", "learning_rate=0.1", "num_epochs=3", "hydra.run.dir=out"
    )
    assert status == 0
    opened = gdjax.open_results(tmp_path / "out")
    assert opened.attrs["method"] == "adam"
    assert float(opened.b1) == 0.8
    assert float(opened.epoch[-1]) == 3.0


def test_a_classification_stops_early_on_examples_that_are_held_out(in_process, tmp_path):
    rng = np.random.default_rng(0)
    age = rng.uniform(20.0, 80.0, size=50)
    bought = np.where(age + 20.0 * rng.normal(size=50) > 50.0, "yes", "no")
    (tmp_path / "people.csv").write_text("age,bought\n" + "".join(f"{a},{b}\n" for a, b in zip(age, bought, strict=True)))
    data = ["problem=csv", "problem.path=people.csv", "problem.target=bought", "problem.loss=logistic", "problem.ridge=0.01"]
    rule = ["stop.name=early_stopping", "stop.patience=4", "stop.validation=0.2", "problem.scale=standardize"]
    status, _, err = in_process("experiment=descend", *data, *rule, "sampler=full", "learning_rate=2.0", "hydra.run.dir=out")
    assert (status, err) == (0, "")
    opened = gdjax.open_results(tmp_path / "out")
    problem = gdjax.problems.named("csv", path=tmp_path / "people.csv", target="bought", loss="logistic", ridge=0.01, scale="standardize")
    train, held_out = gdjax.problems.split(problem, 0.2, standardized=True)
    assert (opened.attrs["num_examples"], opened.attrs["minimum"]) == (40, pytest.approx(float(train.minimum), rel=1e-12))
    assert "patience=4" in opened.attrs["stop"]
    assert "held_out=10" in opened.attrs["stop"]
    assert int(opened.stopped_at) - int(opened.best_step) == 4
    by_hand = gdjax.sweep(train, sampler="full", num_steps=400, learning_rate=2.0, stop=gdjax.stopping.early_stopping(held_out, patience=4))
    assert (int(by_hand.stopped_at), int(by_hand.best_step)) == (int(opened.stopped_at), int(opened.best_step))
    np.testing.assert_array_equal(opened.params, by_hand.params)  # the same program on the same numbers


def test_a_multirun_runs_every_job(in_process, tmp_path):
    status, _, _ = in_process("-m", "experiment=descend", "learning_rate=0.001,0.01", "num_steps=20", "hydra.sweep.dir=many")
    assert status == 0
    rates = [float(gdjax.open_results(tmp_path / "many" / job).learning_rate) for job in ("0", "1")]
    assert rates == [0.001, 0.01]


def test_a_finding_that_fails_is_status_one(in_process, monkeypatch):
    monkeypatch.setattr("gdjax.theory.gradient_descent", lambda *_: np.ones((1, 51)))
    status, out, _ = in_process("experiment=descend", "sampler=full", "num_steps=50")
    assert status == 1
    assert "NO" in out


MISTAKES = {
    "experiment=learing_rate": ["unknown experiment: 'learing_rate'", "Did you mean 'learning_rate'?"],
    "problem=cvs": ["unknown problem: 'cvs'", "Did you mean 'csv'?"],
    "learning_rat=0.1": ["unknown setting: 'learning_rat'", "Did you mean 'learning_rate'?"],
    "problem=csv problem.pth=x": ["unknown setting of problem: 'pth'", "Did you mean 'path'?"],
    "problem=csv": ["problem.path="],
    "problem=csv problem.path=no.csv problem.target=y": ["no.csv"],
    "problem=csv problem.path=data.csv problem.target=z": ["no column 'z'", "a, b, y"],
    "problem=csv problem.path=text.csv problem.target=y": ["'a'", "not numeric", "'red'"],
    "problem=csv problem.path=nan.csv problem.target=y": ["'b'", "row 2"],
    "problem=csv problem.path=inf.csv problem.target=y": ["'b'", "inf"],
    "problem=csv problem.path=empty.csv problem.target=y": ["no rows"],
    "problem=csv problem.path=data.csv problem.target=y problem.scale=max": ["none or standardize"],
    "experiment=descend learning_rate=-0.1": ["learning_rate=-0.1 is not allowed", "0 or more"],
    "experiment=descend learning_rate=abc": ["learning_rate='abc' is not allowed"],
    "experiment=descend batch_size=81": ["batch_size=81 is not allowed", "n = 80"],
    "experiment=descend seed=-1": ["seed=-1 is not allowed"],
    "experiment=descend num_steps=0": ["num_steps=0 is not allowed"],
    "experiment=descend num_steps=10 num_epochs=2": ["exactly one of num_steps and num_epochs"],
    "experiment=descend sampler=ful": ["unknown sampler: 'ful'", "Did you mean 'full'?"],
    "experiment=descend method.name=addam": ["unknown method: 'addam'", "Did you mean 'adam'?"],
    "experiment=descend method.name=adam method.bb1=0.5": ["'bb1'", "Did you mean 'b1'?"],
    "experiment=descend precision=float16": ["float32 or float64"],
    "method=adam": ["leave method away"],
    "problem=csv problem.path=text.csv problem.target=a problem.loss=logistic": ["about least squares", "see experiment=descend"],
    "experiment=descend problem=csv problem.path=text.csv problem.target=a problem.loss=logistc": ["Did you mean 'logistic'?"],
    "experiment=descend problem=csv problem.path=text.csv problem.target=a": ["'a'", "problem.loss=logistic"],
    "experiment=descend problem=csv problem.path=data.csv problem.target=y problem.loss=logistic": ["'y' of csv: data.csv has 3: 1, 3, 4."],
    "experiment=descend problem=csv problem.path=data.csv problem.target=y problem.dleta=1": ["Did you mean 'delta'?"],
    "experiment=descend problem=csv problem.path=data.csv problem.target=y problem.delta=1": ["problem.delta goes with problem.loss=huber"],
    "experiment=descend stop=early_stoping": ["unknown stop: 'early_stoping'", "Did you mean 'early_stopping'?"],
    "experiment=descend stop.name=early_stoping": ["unknown stopping rule: 'early_stoping'", "Did you mean 'early_stopping'?"],
    "experiment=descend stop.name=early_stopping stop.validatoin=0.2": ["Did you mean 'validation'?"],
    "experiment=descend stop.name=early_stopping stop.validation=20": ["validation=20 is not allowed", "share"],
    "experiment=descend stop.name=early_stopping stop.validation=0.2 stop.seed=a": ["stop.seed=a is not allowed"],
    "experiment=descend stop.name=notebook stop.validation=0.2": ["leave validation away, or use early_stopping"],
    "experiment=descend stop.patience=3": ["stop.patience=3 is given, and no rule", "early_stopping"],
    "experiment=descend stop.name=repaired stop.patience=0": ["patience=0 is not allowed"],
    "experiment=descend problem=designed_spectrum stop.name=early_stopping stop.validation=0.2": ["has no examples to hold out"],
    "experiment=descend stop=null": ["chosen by name", "stop=none"],
    "stop.name=notebook": ["leave stop away"],
    "learning_rate=[0.1": ["can't read the override"],
}


@pytest.mark.parametrize("given", MISTAKES)
def test_a_mistake_is_one_clear_line_and_leaves_nothing_behind(in_process, tmp_path, given):
    files = {
        "data.csv": "a,b,y\n1,2,3\n2,1,4\n3,5,1\n",
        "text.csv": "a,b,y\nred,2,3\nblue,1,4\n",
        "nan.csv": "a,b,y\n1,2,3\n2,,4\n",
        "inf.csv": "a,b,y\n1,2,3\n2,inf,4\n",
        "empty.csv": "a,b,y\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    status, out, err = in_process(*given.split(" "))
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("gdjax: ")
    for said in MISTAKES[given]:
        assert said in err
    assert {path.name for path in tmp_path.iterdir()} <= set(files) | {"cache"}


def test_help_and_settings_are_shown(in_process):
    assert "gdjax problem=csv" in in_process_help(in_process, "--help")
    assert "precision: float64" in in_process_help(in_process, "--cfg", "job")


def in_process_help(call, *flags):
    status, out, _ = call(*flags)
    assert status == 0
    return out


def test_results_are_kept_when_drawing_fails(in_process, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr("gdjax.figures.convergence", fail)
    monkeypatch.setattr(sys, "argv", ["gdjax", "experiment=descend", "hydra.run.dir=out", "num_steps=5"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="no ink"):
        cli.main()
    assert gdjax.open_results(tmp_path / "out").sizes["step"] == 6
