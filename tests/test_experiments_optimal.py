"""What the experiments on best worst cases, power laws, early stopping and logistic regression would find if a constant were wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments import (
    chebyshev,
    early_stopping_ridge,
    feature_scaling,
    huber_minimax,
    logistic_regression,
    lower_bound,
    optimized_gradient,
    power_laws,
    robust_losses,
)
from gdjax import problems, statistics, theory
from gdjax.records import Finding
from gdjax.sweep import sweep
from gdjax.theory import early_stopping, worst_cases
from gdjax.theory import logistic as logistic_theory
from gdjax.theory import power_laws as laws


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def optimized():
    return optimized_gradient.run(sweep, horizons=[1, 5, 20], num_thresholds=60)


def test_a_last_step_like_the_others_would_be_found(optimized, monkeypatch):
    """4 for 8 in theta_N: what an unknown horizon has."""
    assert lost(optimized_gradient.check(optimized)) == []
    wrong = theory.worst_cases.last_theta
    monkeypatch.setattr(worst_cases, "last_theta", lambda horizon: wrong(horizon) * 0.99)
    said = lost(optimized_gradient.check(optimized))
    assert any("on a quadratic" in claim for claim in said)


def test_a_method_that_is_not_the_optimized_one_would_be_found(optimized):
    """FISTA's f is above the bound."""
    wrong, right = optimized.copy(), optimized["ogm"].to_dataset()
    wrong["ogm"] = right.assign(suboptimality=optimized["fista"].suboptimality.expand_dims(horizon=right.horizon.values, axis=1))
    assert any("largest f - f* over its bound" in claim for claim in lost(optimized_gradient.check(wrong)))


@pytest.fixture(scope="module")
def fallen():
    return power_laws.run(sweep, xi=[0.5, 1.0, 2.0], num_steps=2000, num_nodes=2000)


@pytest.mark.parametrize("name", list(power_laws.LAWS))
def test_a_wrong_constant_or_exponent_would_be_found(fallen, monkeypatch, name):
    assert lost(power_laws.check(fallen)) == []
    law = power_laws.LAWS[name]
    monkeypatch.setitem(power_laws.LAWS, name, lambda xi, a: law(xi, a)._replace(constant=1.07 * law(xi, a).constant))
    assert lost(power_laws.check(fallen))
    monkeypatch.setitem(power_laws.LAWS, name, lambda xi, a: law(xi, a)._replace(exponent=1.03 * law(xi, a).exponent))
    assert any("exponent" in claim for claim in lost(power_laws.check(fallen)))


def test_acceleration_without_its_second_phase_would_be_found(fallen, monkeypatch):
    """t^(-2 xi) for every xi."""
    monkeypatch.setitem(power_laws.LAWS, "nesterov_convex", lambda xi, a: laws.Power(2.0 * xi, 1.0))
    assert any("xi > 3/2: exponent" in claim for claim in lost(power_laws.check(fallen)))


def test_three_halves_without_its_logarithm_would_be_found(monkeypatch):
    met = power_laws.run(sweep, xi=1.5, num_steps=2000, num_nodes=2000)
    assert lost(power_laws.check(met)) == []
    right = float(laws.Meeting(1.5, 1.0)(2000.0))
    monkeypatch.setitem(power_laws.LAWS, "nesterov_convex", lambda xi, a: laws.Power(3.0, right * 2000.0**3))
    assert any("about 3/2, both powers: exponent" in claim for claim in lost(power_laws.check(met)))


def test_chebyshev_s_bound_without_its_square_root_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    results = chebyshev.run(problem, sweep, num_steps=60)
    assert lost(chebyshev.check(results, problem)) == []
    monkeypatch.setattr(
        worst_cases, "chebyshev_factor", lambda kappa, steps: 1.001 * ((np.sqrt(kappa) - 1) / (np.sqrt(kappa) + 1)) ** steps
    )
    said = lost(chebyshev.check(results, problem))
    assert any("the step farthest from 1" in claim for claim in said)
    assert any("largest distance over R" in claim for claim in said)


def test_chebyshev_on_features_that_are_orthogonal_already():
    problem = feature_scaling.versions(problems.notebook_line())["standardised"]
    results = chebyshev.run(problem, sweep, num_steps=60)
    assert lost(chebyshev.check(results, problem)) == []


@pytest.fixture(scope="module")
def bounded():
    return lower_bound.run(sweep, horizons=[5], condition_number=30.0)


def test_a_higher_lower_bound_would_be_found(bounded, monkeypatch):
    assert lost(lower_bound.check(bounded)) == []
    right = worst_cases.least_suboptimality
    monkeypatch.setattr(worst_cases, "least_suboptimality", lambda *arguments: 1.0001 * right(*arguments))
    assert len(lost(lower_bound.check(bounded))) == 2


def test_a_bound_on_the_strongly_convex_function_at_gradient_descent_s_rate_would_be_found(bounded, monkeypatch):
    monkeypatch.setattr(worst_cases, "strongly_convex_lower_bound", lambda kappa, steps, mu, R: 3.5 * mu * 0.98**steps * R**2)
    assert any("all methods" in claim for claim in lost(lower_bound.check(bounded)))


@pytest.fixture(scope="module")
def stopped():
    return early_stopping_ridge.run(sweep, num_steps=200, num_times=4, num_features=6, filter_steps=[1, 10])


def test_a_ridge_without_its_factor_two_would_be_found(stopped, monkeypatch):
    """lambda = 1 / (eta t)."""
    assert lost(early_stopping_ridge.check(stopped)) == []
    right = early_stopping.ridge_filter
    monkeypatch.setattr(early_stopping, "ridge_filter", lambda share, t: right(share, 0.5 * t))
    assert any("squared largest ratio" in claim for claim in lost(early_stopping_ridge.check(stopped)))


def test_a_variance_that_is_above_the_bound_would_be_found(stopped):
    wrong = stopped.copy()
    fits = stopped["fits"].to_dataset()
    wrong["fits"] = fits.assign(fit=1.5 * fits.fit)
    said = lost(early_stopping_ridge.check(wrong))
    assert any("normal truth" in claim for claim in said)


def test_more_features_than_examples_are_cut():
    results = early_stopping_ridge.run(sweep, num_examples=6, num_features=9, num_steps=20, num_times=2, filter_steps=1)
    assert results["fits"].sizes["target"] == 6
    assert lost(early_stopping_ridge.check(results)) == []


@pytest.fixture(scope="module")
def classed():
    return logistic_regression.run(sweep, num_rates=10, num_steps=1500, num_escaping=50_000)


def test_the_bound_that_holds_everywhere_is_not_the_local_rate_and_would_be_found(classed, monkeypatch):
    """X'X / (4 n) + 2 ridge for the Hessian."""
    assert lost(logistic_regression.check(classed)) == []

    def everywhere(problem):
        X = np.asarray(problem.data[0])
        return X.T @ X / (4.0 * len(X)) + 2.0 * problem.constants["ridge"] * np.eye(X.shape[1])

    monkeypatch.setattr(logistic_theory, "hessian", everywhere)
    said = lost(logistic_regression.check(classed))
    assert any("slope of ln" in claim for claim in said)
    assert any("reaches the minimizer" in claim for claim in said)
    assert any("Hessian's modes" in claim for claim in said)


def test_a_margin_in_other_units_would_be_found(classed, monkeypatch):
    right = logistic_regression.margin_of
    monkeypatch.setattr(logistic_regression, "margin_of", lambda problem: 1.02 * right(problem))
    said = lost(logistic_regression.check(classed))
    assert sum("symmetric" in claim for claim in said) >= 3


@pytest.fixture(scope="module")
def minimax():
    return huber_minimax.run(sweep, shares=0.2, num_data_sets=1000, num_examples=300)


def test_a_worst_variance_without_the_share_would_be_found(minimax, monkeypatch):
    """E psi' without its factor 1 - e."""
    assert lost(huber_minimax.check(minimax)) == []
    right = statistics.largest_variance
    monkeypatch.setattr(statistics, "largest_variance", lambda delta, share: right(delta, share) * (1.0 - share))
    assert any("delta = k" in claim for claim in lost(huber_minimax.check(minimax)))


def test_a_wrong_efficiency_of_least_squares_would_be_found(monkeypatch):
    sets = robust_losses.DataSets(robust_losses.ESTIMATORS["mse"], 200, 3, 0)
    matched = robust_losses._matched(sets, 400, sweep)
    assert lost(robust_losses._likelihoods(matched, 4)) == []
    monkeypatch.setattr(statistics, "least_squares_efficiency_under_student", lambda nu: (nu - 2) / nu)  # of two variances, not of V
    assert len(lost(robust_losses._likelihoods(matched, 4))) == 3


def test_a_far_efficiency_would_be_found():
    right = [Finding(claim="efficiency", predicted=0.95, measured=0.96, tolerance=0.1, source="quadrature")]
    assert robust_losses._farthest(right, 3000).holds
    assert not robust_losses._farthest([*right, dataclasses.replace(right[0], measured=0.9)], 3000).holds


def test_scales_far_worse_than_the_best_would_be_found(monkeypatch):
    """Were the least condition number 1, standardised diabetes would be beyond p + 1 times it."""
    problem = problems.named("diabetes", scale="standardize")
    results = feature_scaling.run(problem, sweep, num_steps=50, compare=None)
    assert not any("van der" in claim or "any scales" in claim for claim in lost(feature_scaling.check(results, problem)))
    monkeypatch.setattr(theory.quadratics, "least_condition_number", lambda X: 1.0)
    assert any("any scales" in claim for claim in lost(feature_scaling.check(results, problem)))


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        (optimized_gradient, {"horizons": 0}, "horizons=0 is not allowed: it is a whole number, 1 or more"),
        (optimized_gradient, {"horizons": []}, "horizons=[] is not allowed"),
        (optimized_gradient, {"horizons": 1e6}, "10,000 steps at most"),
        (power_laws, {"xi": 4.0}, "below 3.9"),
        (power_laws, {"a": "steep"}, "a=steep is not allowed: it is a number above 0"),
        (power_laws, {"num_steps": 10}, "num_steps=10 is not allowed: it is a whole number, 2000 or more"),
        (lower_bound, {"horizons": "many"}, "horizons=many is not allowed"),
        (lower_bound, {"condition_number": 1.0}, "condition_number=1.0 is not allowed: it is a number above 1"),
        (early_stopping_ridge, {"num_times": 1}, "num_times=1 is not allowed"),
        (early_stopping_ridge, {"decay": "slow"}, "decay=slow is not allowed"),
        (logistic_regression, {"num_escaping": 100}, "num_escaping=100 is not allowed: it is a whole number, 50000 or more"),
        (huber_minimax, {"shares": 0.5}, "shares=[0.5] is not allowed: every one is above 0 and at most 0.3"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(module, settings, said, mistake):
    assert said in mistake(module.run, sweep, **settings)


@pytest.mark.parametrize(
    ("settings", "said"), [({"degree": 0}, "degree=0 is not allowed"), ({"condition_number": "big"}, "condition_number=big is not allowed")]
)
def test_a_setting_of_chebyshev_that_makes_no_sense_is_named(settings, said, mistake):
    assert said in mistake(chebyshev.run, problems.notebook_line(), sweep, **settings)


def square(params, example):
    return (params - example) ** 2


def test_chebyshev_refuses_what_is_no_quadratic(mistake):
    problem = problems.from_loss(square, np.ones(3), np.zeros(()))
    assert "other quadratics, which square is not" in mistake(chebyshev.run, problem, sweep)
