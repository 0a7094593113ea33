"""Where rules stop runs and what they leave, against the reference, and with constants broken on purpose."""

import numpy as np
import pytest

from experiments import early_stopping as experiment
from gdjax import problems, stopping, theory
from gdjax.sweep import sweep
from gdjax.theory import stopping as exact
from tests import reference

SMALL = {"num_steps": 1500, "num_batch_steps": 500}


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def problem():
    return problems.notebook_line()


@pytest.fixture(scope="module")
def results(problem):
    return experiment.run(problem, sweep, num_batch_steps=500)


def test_the_notebook_s_rule_stops_where_the_reference_does_by_measurement_and_by_theory(results, problem):
    notebook = results["notebook"].to_dataset()
    np.testing.assert_allclose(notebook.learning_rate, sorted([*reference.EARLY_STOP, 0.05, 0.2, 0.5]), rtol=1e-12)
    assert notebook.attrs["tolerance"] == pytest.approx(1e-6, rel=1e-12)
    losses = experiment._exact_losses(notebook, problem)
    for rate, (stop, excess) in reference.EARLY_STOP.items():
        index = int(np.argmin(np.abs(notebook.learning_rate.values - rate)))
        assert int(notebook.stopped_at[index]) == stop == exact.notebook_stop(losses[index], 1e-6)
        assert float(notebook.end_suboptimality[index]) == pytest.approx(excess, rel=1e-6)
    assert notebook.stopped_at[-3:].values.tolist() == [11, 11, 11]
    np.testing.assert_allclose(np.log10(notebook.end_objective[-3:]), np.log10([4.4e10, 2.9e26, 4.5e35]), atol=0.01)


def test_what_is_left_is_as_the_reference_has_it(problem):
    for rate, (_, excess) in reference.EARLY_STOP.items():
        rho = float(theory.contraction(rate, problem.smoothness, problem.strong_convexity))
        predicted = exact.excess_at_stop(rate, problem.smoothness, problem.strong_convexity, 1e-6)
        slack = 0.6 if rate > 0.0289 else 1.1 * (1.0 - rho**2)  # beyond the best rate two modes are left
        assert excess == pytest.approx(predicted, rel=slack)


@pytest.mark.parametrize("seed", range(5))
def test_it_never_fires_on_mini_batches(problem, seed):
    """THEORY's reference: 0 of 5 seeds in 20,000 steps."""
    ends = sweep(
        problem,
        sampler="without_replacement",
        num_steps=20_000,
        record_every=1,
        batch_size=16,
        seed=seed,
        learning_rate=0.01,
        stop="notebook",
    )
    assert int(ends.stopped_at) == -1


def test_all_findings_hold(results, problem):
    assert lost(experiment.check(results, problem)) == []


def test_rules_on_known_losses():
    falling = np.concatenate([0.5 ** np.arange(30), np.full(30, 0.5**29)])
    assert exact.notebook_stop(falling, 2.0**-10, 3) == 13  # the improvement into step 11 is 2^-11, the first below 2^-10
    assert exact.notebook_stop(falling[:10], 2.0**-10, 3) == -1
    assert exact.notebook_stop(falling[:3], 1.0, 3) == -1
    assert exact.notebook_stop(np.array([5.0, 1.0, 1.0]), 1e-6, 1) == 2  # the first comparison is of updates
    assert exact.repaired_stop(np.array([1.0, 1.0, 1.0]), 1e-6, 2) == 2
    assert exact.repaired_stop(np.array([1.0, np.inf, np.inf, np.nan, np.nan]), 1e-6, 1) == -1
    assert exact.repaired_stop(np.array([0.0, 0.0, 0.0]), 1e-6, 1) == 1
    assert exact.patience_stop(np.array([3.0, 2.0, 2.5]), 2) == (1, -1)
    assert exact.patience_stop(np.ones(5), 3) == (0, 3)


def test_a_rule_that_counts_otherwise_would_be_found(problem, monkeypatch):
    right = stopping.notebook
    monkeypatch.setattr(stopping, "notebook", lambda *, tolerance, patience: right(tolerance=tolerance, patience=patience + 2))
    claims = lost(experiment.check(experiment.run(problem, sweep, **SMALL), problem))
    assert any(claim.startswith("notebook's rule: the update at which it stops") for claim in claims)
    assert sum("which diverges" in claim for claim in claims) == 3


def test_a_rule_put_right_that_takes_explosions_for_convergence_would_be_found(results, problem):
    bent = results.copy()
    bent["repaired"] = results["notebook"].to_dataset()
    claims = lost(experiment.check(bent, problem))
    assert any("called converged" in claim for claim in claims)
    assert any("from that in the given unit" in claim for claim in claims)


def test_another_excess_would_be_found(results, problem, monkeypatch):
    monkeypatch.setattr(experiment, "excess_at_stop", lambda *given: 2.0 * exact.excess_at_stop(*given))
    claims = lost(experiment.check(results, problem))
    assert claims
    assert all("the smaller the rate" in claim for claim in claims)


def test_the_last_parameters_in_place_of_the_best_would_be_found(results, problem):
    bent = results.copy()
    validation = results["validation"].to_dataset()
    bent["validation"] = validation.assign(returned=validation.returned.sel(kept="last") + 0.0 * validation.returned)
    assert len(lost(experiment.check(bent, problem))) == len(experiment.OVERFIT_RATES)


def test_a_lane_that_goes_on_would_be_found(results, problem):
    bent = results.copy()
    notebook = results["notebook"].to_dataset()
    bent["notebook"] = notebook.assign(moved=notebook.moved + 1e-9)
    assert [claim[:19] for claim in lost(experiment.check(bent, problem))] == ["runs that have ende"]


def square(params, example):
    return (params - example) ** 2


def test_what_is_no_least_squares_is_refused(mistake):
    for other in (problems.designed_spectrum([1.0]), problems.from_loss(square, np.ones(9), np.zeros(()))):
        assert f"experiment early_stopping is about least squares, which {other.name} is not" in mistake(experiment.run, other, sweep)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_steps": 3}, "num_steps=3 is not allowed: it is a whole number, 20 or more"),
        ({"num_batch_steps": "x"}, "num_batch_steps=x is not allowed"),
        ({"num_seeds": 0}, "num_seeds=0 is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"batch_size": 81}, "batch_size=81 is not allowed"),
        ({"tolerance": -1.0}, "tolerance=-1.0 is not allowed: it is a number, 0 or more"),
        ({"tolerance": "x"}, "tolerance='x' is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, said, mistake, problem):
    assert said in mistake(experiment.run, problem, sweep, **settings)
