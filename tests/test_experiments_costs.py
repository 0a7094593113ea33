"""What fitting least squares costs: counted by formulas, steps by exact theory, and with constants broken on purpose."""

import numpy as np
import pytest
import xarray as xr

from experiments import when_to_use as experiment
from gdjax import theory
from gdjax.sweep import sweep

SMALL = {"num_parameters": [2, 4], "num_examples": [300, 1000], "tolerances": [0.1, 0.03], "num_repeats": 1}


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def results():
    return experiment.run(sweep, **SMALL)


def test_a_design_has_the_spectrum_that_it_is_asked_for():
    problem = experiment.design(200, 5, 20.0)
    X, _ = problem.data
    np.testing.assert_allclose(np.linalg.eigvalsh(X.T @ X / 200), np.geomspace(0.05, 1.0, 5), rtol=1e-12)
    assert (problem.smoothness, problem.strong_convexity) == pytest.approx((2.0, 0.1), rel=1e-12)


@pytest.mark.parametrize(("n", "p"), [(1000, 10), (50, 40)])
def test_operations_of_the_normal_equations_are_those_of_the_textbook(n, p):
    assert experiment.solving(n, p) == pytest.approx(2 * n * p**2 + 2 * n * p + p**3 / 3 + 2 * p**2, rel=0.003)


@pytest.mark.parametrize(("batch", "p"), [(1, 3), (32, 16), (1000, 8)])
def test_operations_of_a_step_are_four_for_each_number_of_its_batch_and_little_more(batch, p):
    assert experiment.stepping(batch, p) == 4 * batch * p + 5 * batch + 3 * p
    assert experiment.stepping(batch, p, 7) == 7 * experiment.stepping(batch, p)


@pytest.mark.parametrize("k", [3, 14, 200])
def test_the_full_batch_and_the_normal_equations_cross_at_twice_the_steps(k):
    crossed = experiment.full_batch_crossing(10**9, k)
    assert crossed == pytest.approx(2 * k, rel=0.05)
    assert experiment._counted_crossing(10**6, k) == pytest.approx(crossed, abs=1)


def test_a_crossing_between_records_is_taken_by_logarithms():
    values = xr.DataArray(np.exp(-0.1 * np.arange(0, 100, 10.0)), {"step": np.arange(0, 100, 10)}, "step")
    runs = xr.Dataset({"suboptimality": values * xr.DataArray([1.0, 1.0, 1.0], dims="seed")})
    assert experiment.crossing(runs, np.exp(-2.5)) == pytest.approx((25.0, 0.0))
    assert np.isnan(experiment.crossing(runs, 1e-9)[0])
    assert experiment.crossing(runs.isel(seed=0), np.exp(-2.5)) == (30.0, 0.0)


def test_standard_errors_of_steps_are_those_of_the_mean_over_the_slope():
    steps, shift = np.arange(0, 100, 10), xr.DataArray([-0.1, 0.0, 0.1], dims="seed")
    curve = xr.DataArray(np.exp(-0.1 * steps), {"step": steps}, "step")
    runs = xr.Dataset({"suboptimality": curve * (1.0 + shift * (curve.step > 0))})
    assert experiment.crossing(runs, np.exp(-2.5))[1] == pytest.approx(0.1 / np.sqrt(3) / 0.1, rel=0.01)


def test_all_findings_hold(results):
    assert lost(experiment.check(results)) == []


def test_times_are_kept_and_nothing_is_concluded_from_them(results):
    shapes = results["shapes"].to_dataset()
    assert (shapes.seconds > 0).all()
    other = results.copy()
    other["shapes"] = shapes.assign(seconds=shapes.seconds[::-1] * 1000.0)
    assert [finding.measured for finding in experiment.check(other)] == [finding.measured for finding in experiment.check(results)]


def test_a_bound_with_another_condition_number_would_be_found(results, monkeypatch):
    exact = theory.steps_to_tolerance
    monkeypatch.setattr(theory, "steps_to_tolerance", lambda modes, rate, tolerance: exact(modes, 0.8 * rate, tolerance))
    assert any(claim.startswith("full batch: steps to 0.01") for claim in lost(experiment.check(results)))


def test_noise_of_five_times_the_size_would_be_found(results, monkeypatch):
    exact = theory.moments.of_problem
    monkeypatch.setattr(theory.moments, "of_problem", lambda problem: (m := exact(problem))._replace(drive=25.0 * m.drive))
    experiment._exact_steps.cache_clear()
    claims = lost(experiment.check(results))
    experiment._exact_steps.cache_clear()
    assert any(claim.startswith("SGD") for claim in claims)


def test_the_page_s_table_would_be_found(results, monkeypatch):
    monkeypatch.setattr(experiment, "full_batch_crossing", lambda n, k: 10_000.0)
    assert len(lost(experiment.check(results))) == 1
    monkeypatch.undo()
    once = experiment.stepping
    monkeypatch.setattr(experiment, "stepping", lambda batch, p, num_steps=1: num_steps**2 * once(batch, p))
    assert any("O(k B p) per step" in claim for claim in lost(experiment.check(results)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_parameters": 0}, "num_parameters=0 is not allowed"),
        ({"num_parameters": [4, 2.5]}, "num_parameters=2.5 is not allowed"),
        ({"num_parameters": "many"}, "num_parameters=many is not allowed: it is a number, or a list"),
        ({"num_examples": [100]}, "num_examples=100 is not allowed: it is a whole number, 129 or more"),
        ({"condition_number": 1.0}, "condition_number=1.0 is not allowed: it is a number above 1"),
        ({"condition_number": "x"}, "condition_number=x is not allowed: it is a number above 1"),
        ({"tolerance": 1.5}, "tolerance=1.5 is not allowed: it is a number between 0 and 1"),
        ({"tolerance": "x"}, "tolerance=x is not allowed"),
        ({"tolerances": []}, "tolerances=[] is not allowed"),
        ({"batch_size": 501}, "batch_size=501 is not allowed: it is a whole number from 1 to the least num_examples, 500"),
        ({"num_seeds": 1}, "num_seeds=1 is not allowed"),
        ({"num_repeats": 0}, "num_repeats=0 is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, said, mistake):
    assert said in mistake(experiment.run, sweep, **settings)


def test_a_single_design_is_enough():
    results = experiment.run(sweep, num_parameters=2, num_examples=100, tolerances=0.1, num_repeats=1, num_seeds=16)
    assert lost(experiment.check(results)) == []
    experiment.draw(results)
