"""The experiments on losses as statistics: their numbers are the reference's, and a wrong constant is found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments import likelihood
from gdjax import problems
from gdjax.records import InputError
from gdjax.sweep import sweep
from tests import reference


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


def square(params, example):
    return (params - example) ** 2


@pytest.mark.parametrize("module", [likelihood])
def test_an_experiment_on_linear_models_refuses_anything_else(module, mistake):
    problem = problems.from_loss(square, np.ones(3), np.zeros(()))
    name = module.__name__.rpartition(".")[2]
    assert f"experiment {name} is about linear least squares, which square is not" in mistake(module.run, problem, sweep)


@pytest.fixture(scope="module")
def likelihoods():
    return likelihood.run(problems.notebook_line(), sweep)


class TestLikelihood:
    def test_totals_are_the_reference(self, likelihoods):  # N25
        findings = {finding.claim: finding for finding in likelihood.check(likelihoods, problems.notebook_line())}
        fixed = findings["Gaussian NLL at the end, sigma = 1"].measured
        profiled = findings["Gaussian NLL at the end, sigma profiled"].measured
        assert fixed == pytest.approx(reference.NOTEBOOK_GAUSSIAN_NLL["unit"], rel=1e-10)
        assert profiled == pytest.approx(reference.NOTEBOOK_GAUSSIAN_NLL["mle"], rel=1e-10)

    def test_a_fixed_sigma_may_be_the_unbiased_one(self):  # N25
        sigma = math.sqrt(80 / 78 * reference.NOTEBOOK_MINIMUM)
        results = likelihood.run(problems.notebook_line(), sweep, sigma=sigma)
        assert 80 * float(results["gaussian"].objective[-1]) == pytest.approx(reference.NOTEBOOK_GAUSSIAN_NLL["unbiased"], rel=1e-10)

    def test_student_s_descent_ends_at_the_reference(self, likelihoods):  # N28, to the reference's own 1e-7
        fit, scale, nll = reference.STUDENT_T_3["clean"]
        features, _ = problems.notebook_line().data
        unit = math.sqrt(reference.NOTEBOOK_MINIMUM)
        *z, log_scale = likelihoods["student"].params.values
        np.testing.assert_allclose(problems.whitened(features).back @ np.array(z) * unit, fit, rtol=1e-7)
        assert unit * math.exp(log_scale) == pytest.approx(scale, rel=1e-7)
        assert float(likelihoods["student"].objective[-1]) + math.log(unit) == pytest.approx(nll, rel=1e-7)

    def test_the_mean_absolute_error_ends_at_the_reference(self, likelihoods):  # N27
        assert float(likelihoods["mae"].objective[-1]) == pytest.approx(reference.LEAST_ABSOLUTE["clean"][1], rel=1e-9)

    def test_an_affine_profile_would_be_found(self, likelihoods):
        """What the page says of any sigma: the likelihood is the MSE, stretched and shifted."""
        mse = likelihoods["profiled"].objective
        wrong = likelihoods.copy()
        error = reference.NOTEBOOK_MINIMUM + likelihoods["profiled"].distance ** 2
        wrong["profiled"] = (
            results["profiled"].to_dataset().assign(objective=mse[-1] + (error - error[-1]) * (mse[0] - mse[-1]) / (error[0] - error[-1]))
        )
        assert sum("profiled" in claim for claim in lost(likelihood.check(wrong, problems.notebook_line()))) == 2

    def test_a_forgotten_half_would_be_found(self, monkeypatch):
        monkeypatch.setattr("experiments.likelihood._half_log_mse", whole_log_mse)
        results = likelihood.run(problems.notebook_line(), sweep)
        assert len(lost(likelihood.check(results, problems.notebook_line()))) >= 3

    def test_a_perfect_fit_is_refused(self):
        with pytest.raises(InputError, match="fitted without error"):
            likelihood.run(problems.least_squares([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]), sweep)


half_log_mse = likelihood._half_log_mse


def whole_log_mse(*arguments):
    value, gradient = half_log_mse(*arguments)
    return 2 * value, gradient
