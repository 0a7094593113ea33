"""What is saved comes back."""

import json

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
