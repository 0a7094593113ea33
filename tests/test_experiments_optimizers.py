"""Optimizers, schedules and the last iterate: wrong constants are found, odd settings refused, and other data taken."""

import numpy as np
import pytest

from experiments import adaptive_methods, last_iterate, optimizers, parameter_free, schedules
from gdjax import problems
from gdjax.records import InputError
from gdjax.sweep import sweep
from gdjax.theory import adaptive as adaptive_theory
from gdjax.theory import last_iterate as bounds
from tests import reference
from tests.test_experiments import SMALL


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


def square(params, example):
    return (params - example) ** 2


@pytest.fixture(scope="module")
def line():
    return problems.notebook_line()


@pytest.fixture(scope="module")
def last():
    return last_iterate.run(sweep, **SMALL["last_iterate"])


@pytest.fixture(scope="module")
def free():
    return parameter_free.run(sweep, **SMALL["parameter_free"])


@pytest.fixture(scope="module")
def adaptive():
    return adaptive_methods.run(sweep, **SMALL["adaptive_methods"])


@pytest.fixture(scope="module")
def scheduled(line):
    return schedules.run(line, sweep, **SMALL["schedules"])


@pytest.fixture(scope="module")
def raced(line):
    return optimizers.run(line, sweep, **SMALL["optimizers"])


def test_a_bound_that_promises_more_than_linear_decay_can_is_found(last, monkeypatch):
    monkeypatch.setattr(bounds, "optimal_bound", lambda num_steps: 1.0 / (num_steps + 2) ** 0.5)
    assert len(lost(last_iterate.check(last))) == 2


def test_a_best_constant_rate_without_its_logarithm_is_found(last, monkeypatch):
    monkeypatch.setattr(bounds, "best_constant_bound", lambda num_steps: bounds.optimal_bound(num_steps))
    assert any("best constant" in claim for claim in lost(last_iterate.check(last)))


def test_a_general_bound_without_its_second_sum_is_found(last, monkeypatch):
    def averaged(shape, learning_rate):
        return 0.5 / (learning_rate * np.sum(shape)) + 0.5 * learning_rate * np.sum(shape**2) / np.sum(shape)

    monkeypatch.setattr(bounds, "last_iterate_bound", averaged)  # of the average, not of the last step
    assert any(claim.startswith("constant: largest") for claim in lost(last_iterate.check(last)))


def test_bounds_of_averages_and_of_polyak_s_step_are_found_wrong(free, monkeypatch):
    monkeypatch.setattr(bounds, "schedule_free_bound", lambda num_points: 0.99 / num_points**0.5)
    monkeypatch.setattr(bounds, "polyak_contraction", lambda kappa: (kappa**0.5 - 1) / (kappa**0.5 + 1))
    claims = lost(parameter_free.check(free))
    assert sum("schedule-free" in claim for claim in claims) == 6
    assert sum("Polyak" in claim for claim in claims) == 2


def test_an_estimate_that_falls_or_passes_the_distance_is_found(free):
    broken = free.copy(deep=True)
    broken["estimated"]["estimate"] = 3.0 - broken["estimated"].estimate
    assert sum("estimate" in claim for claim in lost(parameter_free.check(broken))) == 6


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("first_adam_step", lambda g, rate, eps: -rate * g / np.sqrt(g**2 + eps), "first step"),
        ("adagrad_regret", lambda g, diameter: 0.1 * diameter * np.sqrt(2 * np.cumsum(g**2, axis=0)).sum(axis=1), "AdaGrad"),
        ("amsgrad_swing", lambda slopes, b1, b2: np.full(1, 691.0 / 150.0), "how far above -1"),
        ("stuck_regret", lambda slopes: abs(float(np.mean(slopes))), "average regret of Adam"),
        ("descending_regret", lambda g, rates, diameter: 0.1 * diameter**2 / rates, "AMSGrad (b1 = 0) over its bound"),
    ],
)
def test_a_wrong_formula_for_adaptive_methods_is_found(adaptive, monkeypatch, name, wrong, said):
    monkeypatch.setattr(adaptive_theory, name, wrong)
    assert any(said in claim for claim in lost(adaptive_methods.check(adaptive)))


def test_where_adam_and_amsgrad_are_30_steps_into_a_period_is_the_reference():
    steps = reference.REDDI_STEPS
    position = adaptive_methods._on_a_stream(sweep, "1010, -10 x 100", steps, steps).position[:, -1]
    np.testing.assert_allclose(position, [reference.REDDI_ADAM, reference.REDDI_AMSGRAD], rtol=1e-9)
    swing = adaptive_theory.amsgrad_swing(adaptive_methods.STREAMS["1010, -10 x 100"], 0.9, 0.99)
    assert swing[29] * 0.5 / steps**0.5 == pytest.approx(1.0 + reference.REDDI_AMSGRAD, rel=101 / steps)


def test_noise_of_another_variance_is_found(line, scheduled, monkeypatch):
    broken = scheduled.copy(deep=True)
    broken["tuned"]["risk"] = 2.0 * broken["tuned"].risk
    assert sum("noisy quadratic" in claim for claim in lost(schedules.check(broken, line))) == 2
    long = schedules.run(line, sweep, schedule="constant", num_seeds=256, noisy_steps=100)
    assert lost(schedules.check(long, line)) == []
    monkeypatch.setattr("gdjax.theory.moments.batch_noise_factor", lambda batch, n, **_: 2.0 / batch)
    assert any("notebook_line, constant" in claim for claim in lost(schedules.check(long, line)))


def test_another_count_of_cuts_is_found(line, scheduled, monkeypatch):
    monkeypatch.setitem(schedules.CUTS, "gains of 1e-5", 1)  # "at most one cut before stopping"
    assert any("gains of 1e-5" in claim for claim in lost(schedules.check(scheduled, line)))


def test_sgd_of_another_noise_is_found(line, monkeypatch):
    long = optimizers.run(line, sweep, optimizer="sgd", num_steps=1000, num_seeds=64, num_rates=16)
    assert lost(optimizers.check(long, line)) == []
    monkeypatch.setattr("gdjax.theory.moments.batch_noise_factor", lambda batch, n, **_: 0.5 / batch)
    assert any(claim.startswith("SGD, rate") for claim in lost(optimizers.check(long, line)))


def test_results_reported_on_the_seeds_of_the_tuning_would_be_better_than_held_out_ones(line, raced):
    own = optimizers.result(raced["raced/sgd"].to_dataset())
    tuned_on_all = own.tuning.mean("seed").min() <= own.tuning.isel(learning_rate=own.best).mean("seed")
    assert bool(tuned_on_all)
    assert not set(own.tuning.seed.values) & set(own.reported.seed.values)


@pytest.mark.parametrize("module", [schedules, optimizers])
def test_a_problem_whose_truth_is_unknown_is_refused(module):
    problem = problems.from_loss(square, np.ones(9), np.zeros(()))
    with pytest.raises(InputError, match=f"experiment {module.__name__.rpartition('.')[2]} is about .*square"):
        module.run(problem, sweep)


@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
@pytest.mark.parametrize("module", [schedules, optimizers])
def test_collinear_columns_are_taken(module):
    x = np.random.default_rng(3).normal(size=(40, 1)) * 50
    problem = problems.least_squares(np.hstack([x, 2 * x]), x[:, 0] + np.random.default_rng(4).normal(size=40))
    results = module.run(problem, sweep, **SMALL[module.__name__.rpartition(".")[2]])
    assert lost(module.check(results, problem)) == []
    module.draw(results, problem)


@pytest.mark.parametrize(
    ("run", "settings", "said"),
    [
        (last_iterate.run, {"schedule": ["lineer"]}, "unknown schedule: 'lineer'. Did you mean 'linear'"),
        (last_iterate.run, {"schedule": []}, r"schedule=\[\] is not allowed"),
        (last_iterate.run, {"num_functions": 1}, "num_functions=1 is not allowed"),
        (parameter_free.run, {"interpolation": 1.5}, "interpolation=1.5 is not allowed: it is a number from 0 to 1"),
        (parameter_free.run, {"estimate": [2.0]}, "estimate=2 is not allowed"),
        (parameter_free.run, {"estimate": 0.0}, "estimate=0 is not allowed: .* above 0"),
        (parameter_free.run, {"condition_number": "large"}, "condition_number=large is not allowed"),
        (adaptive_methods.run, {"num_periods": 3}, "num_periods=3 is not allowed: it is a whole number, 2000 or more"),
        (adaptive_methods.run, {"curvature": []}, r"curvature=\[\] is not allowed"),
        (adaptive_methods.run, {"scale": [0.0]}, r"scale=\[0.0\] is not allowed: it is a number above 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(run, settings, said):
    with pytest.raises(InputError, match=said):
        run(sweep, **settings)


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        (schedules, {"schedule": "plateau"}, "not plateau alone"),
        (schedules, {"schedule": ["cosin"]}, "Did you mean 'cosine'"),
        (schedules, {"num_seeds": 1}, "num_seeds=1 is not allowed"),
        (schedules, {"batch_size": 81}, "batch_size=81 is not allowed"),
        (optimizers, {"optimizer": ["adm"]}, "unknown optimizer: 'adm'. Did you mean"),
        (optimizers, {"optimizer": []}, r"optimizer=\[\] is not allowed"),
        (optimizers, {"num_rates": 1}, "num_rates=1 is not allowed"),
        (optimizers, {"batch_size": 0}, "batch_size=0 is not allowed"),
    ],
)
def test_a_setting_about_a_problem_that_makes_no_sense_is_named(line, module, settings, said):
    with pytest.raises(InputError, match=said):
        module.run(line, sweep, **settings)


def test_any_other_method_can_race(line):
    results = optimizers.run(line, sweep, optimizer=["sgd", "polyak_sgd", "yogi"], num_steps=40, num_rates=5, num_seeds=4)
    assert lost(optimizers.check(results, line)) == []
    optimizers.draw(results, line)
