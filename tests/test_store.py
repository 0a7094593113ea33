"""What is saved comes back."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gdjax
from gdjax import problems, store
from gdjax.records import Finding, InputError


@pytest.fixture
def dataset():
    return gdjax.sweep(problems.notebook_line(), sampler="full", num_steps=400, learning_rate=[0.01, 0.5])


def test_a_dataset_comes_back_as_it_was(dataset, tmp_path):
    store.save_sweep(tmp_path, dataset)
    for path in (tmp_path, tmp_path / "sweep.zarr"):
        opened = gdjax.open_results(path)
        xr.testing.assert_identical(opened.load(), dataset)
        assert np.isnan(opened.objective.values).any()  # divergence is kept


def test_a_tree_comes_back_as_it_was(dataset, tmp_path):
    tree = xr.DataTree.from_dict({"full": dataset, "minibatch": dataset.isel(step=slice(0, 5))})
    store.save_sweep(tmp_path, tree)
    opened = gdjax.open_results(tmp_path)
    assert isinstance(opened, xr.DataTree)
    xr.testing.assert_identical(opened["minibatch"].to_dataset().load(), tree["minibatch"].to_dataset())


def test_no_results_are_a_mistake_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"no results at .*nothing.sweep.zarr: give a run's folder"):
        gdjax.open_results(tmp_path / "nothing")


def test_findings_are_plain_json_even_when_infinite(tmp_path):
    finding = Finding(claim="c", predicted=1.0, measured=float("inf"), tolerance=0.1, source="s", kind="at_least")
    store.save_findings(tmp_path, [finding])
    (saved,) = json.loads((tmp_path / "findings.json").read_text(), parse_constant=pytest.fail)
    assert saved == {"claim": "c", "predicted": 1.0, "measured": None, "tolerance": 0.1, "source": "s", "kind": "at_least", "holds": True}


@pytest.mark.parametrize(
    ("kind", "measured", "holds"),
    [
        ("equal", 1.09, True),
        ("equal", 1.11, False),
        ("equal", 0.89, False),
        ("at_most", -5.0, True),
        ("at_most", 1.11, False),
        ("at_least", 50.0, True),
        ("at_least", 0.89, False),
        ("equal", float("nan"), False),
        ("at_most", float("nan"), False),
        ("at_least", float("nan"), False),
    ],
)
def test_a_finding_holds_within_its_relative_tolerance(kind, measured, holds):
    assert Finding(claim="", predicted=1.0, measured=measured, tolerance=0.1, source="", kind=kind).holds is holds


def test_a_prediction_of_zero_has_an_absolute_tolerance():
    assert Finding(claim="", predicted=0.0, measured=1e-9, tolerance=1e-8, source="", kind="at_most").holds
    assert not Finding(claim="", predicted=0.0, measured=1e-7, tolerance=1e-8, source="", kind="at_most").holds


def test_provenance_says_what_ran_where():
    said = store.provenance(["gdjax"], "float64", {"compile": 1.0})
    assert set(said["versions"]) >= {"python", "jax", "optax", "numpy"}
    assert said["device"]["platform"] == "cpu"
    assert said["seconds"] == {"compile": 1.0}


def of_jobs(shape, dims):
    nums = np.arange(np.prod(shape)).reshape(shape)
    return xr.Dataset({"f": (dims, 10.0 * nums)}, {"job": (dims, nums)})


class TestResultsOfAJob:
    """A job's folder gives the job's part of its multirun, whether the folder is there or not."""

    @pytest.mark.parametrize("results", [of_jobs((6,), ("job",)), of_jobs((2, 3), ("rate", "seed"))], ids=["a list", "a product"])
    def test_is_its_part(self, tmp_path, results):
        store.save_sweep(tmp_path, results)
        (tmp_path / "4").mkdir()
        for job in range(6):
            part = gdjax.open_results(tmp_path / str(job))
            assert (dict(part.sizes), float(part.f), int(part.job)) == ({}, 10.0 * job, job)

    def test_of_a_tree_is_in_its_group(self, tmp_path):
        first = of_jobs((2,), ("job",))
        second = of_jobs((2,), ("job",)).assign_coords(job=[2, 3]) + 100
        store.save_sweep(tmp_path, xr.DataTree.from_dict({"a": first, "b": second}))
        assert [float(gdjax.open_results(tmp_path / str(job)).f) for job in range(4)] == [0, 10, 100, 110]

    def test_of_replicates_is_all_of_them(self, tmp_path):
        """Every job has several seeds, so that its number goes along the other dimension alone."""
        results = xr.Dataset({"f": (("rate", "seed"), np.arange(6.0).reshape(2, 3))}, {"job": ("rate", [0, 1])})
        store.save_sweep(tmp_path, results)
        assert gdjax.open_results(tmp_path / "1").f.values.tolist() == [3, 4, 5]

    def test_a_run_of_its_own_is_before_its_multirun(self, dataset, tmp_path):
        store.save_sweep(tmp_path, of_jobs((2,), ("job",)))
        (tmp_path / "1").mkdir()
        store.save_sweep(tmp_path / "1", dataset)
        xr.testing.assert_identical(gdjax.open_results(tmp_path / "1").load(), dataset)

    @pytest.mark.parametrize("job", ["2", "17"])
    def test_a_job_without_results_is_a_mistake(self, tmp_path, job):
        store.save_sweep(tmp_path, of_jobs((2,), ("job",)))
        with pytest.raises(InputError, match=f"no results of job {job} in .*: it failed, or it ran on its own"):
            gdjax.open_results(tmp_path / job)


class TestTakeBack:
    """Only what was made for the run is removed, and only folders that this leaves empty."""

    @staticmethod
    def laid_out(root, *names):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("")

    @pytest.mark.parametrize(
        ("files", "folder", "left"),
        [
            (["a/b/.hydra/config.yaml"], "a/b", set()),
            (["a/b/.hydra/config.yaml", "a/b/multirun.yaml"], "a/b", set()),
            (["a/b/.hydra/config.yaml", "a/mine.txt"], "a/b", {"a", "a/mine.txt"}),
            (["a/.hydra/config.yaml", "a/mine.txt"], "a", {"a", "a/.hydra", "a/.hydra/config.yaml", "a/mine.txt"}),
            (["a/.hydra/config.yaml", "a/0/mine.txt"], "a", {"a", "a/.hydra", "a/.hydra/config.yaml", "a/0", "a/0/mine.txt"}),
            ([".hydra/config.yaml"], ".", set()),
            ([".hydra/config.yaml", "mine.txt"], ".", {".hydra", ".hydra/config.yaml", "mine.txt"}),
            (["mine.txt"], "nowhere", {"mine.txt"}),
        ],
    )
    def test_leaves_what_is_not_the_run_s(self, tmp_path, monkeypatch, files, folder, left):
        monkeypatch.chdir(tmp_path)
        self.laid_out(tmp_path, *files)
        store.take_back(tmp_path / folder if folder != "." else Path(), [".hydra", "multirun.yaml"])
        assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == left
        assert tmp_path.is_dir()

    @pytest.mark.parametrize("here", [".", "work", "work/deeper"])
    def test_never_removes_the_working_directory_or_one_above(self, tmp_path, monkeypatch, here):
        (tmp_path / here).mkdir(parents=True, exist_ok=True)
        self.laid_out(tmp_path / here, "many/0/.hydra/config.yaml")
        monkeypatch.chdir(tmp_path / here)
        store.take_back(Path("many/0"), [".hydra"])
        assert (tmp_path / here).is_dir()
        assert list((tmp_path / here).iterdir()) == []
