"""The experiments on losses as statistics: their numbers are the reference's, and a wrong constant is found."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import xarray as xr

from experiments import heteroscedastic, leverage, likelihood, robust_losses
from gdjax import problems, statistics
from gdjax.records import InputError
from gdjax.sweep import sweep
from tests import reference


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


def square(params, example):
    return (params - example) ** 2


half_log_mse = likelihood._half_log_mse


def whole_log_mse(*arguments):
    value, gradient = half_log_mse(*arguments)
    return 2 * value, gradient


@pytest.mark.parametrize("module", [heteroscedastic, leverage, likelihood, robust_losses])
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
        profiled, wrong = likelihoods["profiled"].to_dataset(), likelihoods.copy()
        error = profiled.distance**2
        slope = (profiled.objective[0] - profiled.objective[-1]) / (error[0] - error[-1])
        wrong["profiled"] = profiled.assign(objective=profiled.objective[-1] + slope * (error - error[-1]))
        assert sum("profiled" in claim for claim in lost(likelihood.check(wrong, problems.notebook_line()))) == 2

    def test_a_forgotten_half_would_be_found(self, monkeypatch):
        monkeypatch.setattr("experiments.likelihood._half_log_mse", whole_log_mse)
        results = likelihood.run(problems.notebook_line(), sweep)
        assert len(lost(likelihood.check(results, problems.notebook_line()))) >= 3

    def test_a_perfect_fit_is_refused(self):
        with pytest.raises(InputError, match="fitted without error"):
            likelihood.run(problems.least_squares([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]), sweep)


@pytest.fixture(scope="module")
def spoilt():
    return robust_losses.run(problems.notebook_line(), sweep, num_data_sets=400, delta=1.0)


class TestRobustLosses:
    def test_fits_to_the_spoilt_copy_are_the_reference(self, spoilt):  # E20: N26 to N28
        back = problems.whitened(problems.notebook_line().data[0]).back
        fits = {str(name): back @ spoilt["spoilt"].fit.sel(estimator=name).values for name in spoilt["spoilt"].estimator.values}
        np.testing.assert_allclose(fits["mse"], reference.LEAST_SQUARES_CONTAMINATED[0], rtol=1e-9)
        np.testing.assert_allclose(fits["huber"], reference.HUBER["contaminated"][1.0][0], rtol=1e-9)
        np.testing.assert_allclose(fits["mae"], reference.LEAST_ABSOLUTE["contaminated"][0], rtol=1e-9)
        np.testing.assert_allclose(fits["student"], reference.STUDENT_T_3["contaminated"][0], rtol=1e-7)  # the reference's own

    def test_every_finding_holds_under_the_page_s_delta(self, spoilt):
        assert lost(robust_losses.check(spoilt, problems.notebook_line())) == []

    def test_predictions_are_the_reference(self, spoilt):  # C09
        findings = {finding.claim: finding.predicted for finding in robust_losses.check(spoilt, problems.notebook_line())}
        told = {
            name: next(value for claim, value in findings.items() if claim.startswith(name))
            for name in (
                "normal noise: efficiency of Huber",
                "normal noise: efficiency of MAE",
                "normal noise: efficiency of Student",
                "normal noise: efficiency of bisquare",
                "t3 noise: efficiency of Student",
                "contaminated noise: variance",
            )
        }
        wanted = [
            reference.HUBER_EFFICIENCY[1.345],
            reference.LEAST_ABSOLUTE_EFFICIENCY,
            reference.STUDENT_T_EFFICIENCY[3],
            reference.BISQUARE_EFFICIENCY,
            1.0 / reference.LEAST_SQUARES_UNDER_T[3],
            reference.CONTAMINATED_VARIANCE["mean"],
        ]
        np.testing.assert_allclose(list(told.values()), wanted, rtol=1e-8)  # the reference's own

    @pytest.mark.parametrize(("right", "wrong"), [(0.95, 0.9), (0.95, 1.0), (2 / np.pi, 0.7), (0.9008, 0.95)])
    def test_a_wrong_efficiency_would_be_found(self, spoilt, monkeypatch, right, wrong):
        """Everything that quadrature says, off by the factor between two constants that could be mistaken for each other."""
        variance = robust_losses.Estimator.variance
        factor = {"squared_error": 1.0}
        monkeypatch.setattr(
            robust_losses.Estimator, "variance", lambda self, noise: variance(self, noise) * factor.get(self.loss, right / wrong)
        )
        said = lost(robust_losses.check(spoilt, problems.notebook_line()))
        assert any(claim.startswith("normal noise: efficiency of Huber") for claim in said)

    def test_data_without_noise_are_refused(self):
        X = np.arange(12.0)[:, None]
        with pytest.raises(InputError, match="no noise to judge outliers by"):
            robust_losses.run(problems.least_squares(X, 1.0 + 2.0 * X[:, 0]), sweep)


@pytest.fixture(scope="module")
def unequal():
    return heteroscedastic.run(problems.notebook_line(), sweep, num_fitted=100)


class TestHeteroscedastic:
    def test_efficiencies_are_the_reference(self, unequal):  # N29, E21: Monte Carlo within 5 %
        findings = [finding for finding in heteroscedastic.check(unequal, problems.notebook_line()) if "efficiency" in finding.claim]
        np.testing.assert_allclose([finding.predicted for finding in findings], reference.HETEROSCEDASTIC_EFFICIENCY, rtol=1e-9)
        np.testing.assert_allclose([finding.measured for finding in findings], reference.HETEROSCEDASTIC_EFFICIENCY, rtol=0.05)
        assert len(findings) == 2
        assert max(finding.tolerance for finding in findings) < 0.06

    def test_plain_and_weighted_fits_of_the_notebook_s_noise_are_the_reference(self):  # N29
        X, y = problems.notebook_line().data
        sigma = 0.2 + 0.3 * X[:, 1]
        target = 2.5 + 1.7 * X[:, 1] + sigma * (y - 2.5 - 1.7 * X[:, 1])
        plain = problems.least_squares(X, target, False).minimizer
        weighted = problems.least_squares(X / sigma[:, None], target / sigma, False).minimizer
        np.testing.assert_allclose(plain, reference.HETEROSCEDASTIC_LEAST_SQUARES, rtol=1e-9)
        np.testing.assert_allclose(weighted, reference.HETEROSCEDASTIC_WEIGHTED, rtol=1e-9)

    def test_the_deviation_is_the_notebook_s_own(self):
        design = heteroscedastic._design(problems.notebook_line(), 0.2, 0.3)
        np.testing.assert_allclose(design.sigma, 0.2 + 0.3 * design.features[:, 1], rtol=1e-14)  # the grid's rounding

    def test_believing_the_textbook_would_be_found(self, unequal, monkeypatch):
        """What its standard errors take for granted: that all variances are their mean."""

        def equal(X, variances):
            return statistics.Covariances(*[variances.mean() * np.linalg.inv(X.T @ X)] * 3)

        monkeypatch.setattr("experiments.heteroscedastic.Design.covariances", lambda self: equal(self.features, self.sigma**2))
        said = lost(heteroscedastic.check(unequal, problems.notebook_line()))
        assert len([claim for claim in said if "textbook" in claim or "efficiency" in claim]) == 4

    def test_a_bias_would_be_found(self, unequal):
        wrong = unequal.copy()
        known = unequal["known"].to_dataset()
        wrong["known"] = known.assign(error=known.error + 0.05 * known.error.std("data_set"))
        assert any("unbiased" in claim for claim in lost(heteroscedastic.check(wrong, problems.notebook_line())))

    def test_a_sigma_that_ignores_x_would_be_found(self, unequal):
        wrong = unequal.copy()
        fitted, plain = unequal["fitted"].to_dataset(), unequal["known"].error.sel(estimator="plain").isel(data_set=slice(100))
        wrong["fitted"] = fitted.assign(
            error=xr.concat([fitted.error.sel(estimator="weighted", drop=True), plain.drop_vars("estimator")], "estimator")
        )
        assert any("sigma(x) fitted, the least" in claim for claim in lost(heteroscedastic.check(wrong, problems.notebook_line())))

    @pytest.mark.parametrize(
        ("settings", "said"),
        [({"level": 0.0}, "both are above 0"), ({"repeats": 1}, "repeats=1"), ({"num_data_sets": 5}, "num_data_sets=5")],
    )
    def test_a_setting_that_makes_no_sense_is_named(self, settings, said, mistake):
        assert said in mistake(heteroscedastic.run, problems.notebook_line(), sweep, **settings)


@pytest.fixture(scope="module")
def moved():
    return leverage.run(problems.notebook_line(), sweep, num_sizes=7)


class TestLeverage:
    def test_equal_curvatures_would_be_found(self, moved):
        """What "the same rate, another loss" takes for granted."""
        wrong = moved.copy()
        wrong["edges"] = moved["edges"].to_dataset() * 0.0 + 1.0
        assert len(lost(leverage.check(wrong, problems.notebook_line()))) == 1

    def test_a_loss_that_withstands_leverage_would_be_found(self, moved):
        """As the page has it of Huber's and the absolute loss: the fit stays, and the outlier's residual with it."""
        wrong, outlier = moved.copy(), moved["outlier"].to_dataset()
        start = outlier.residual.isel(factor=0)
        wrong["outlier"] = outlier.assign(residual=start * outlier.factor)
        assert sum("x 1000 times" in claim for claim in lost(leverage.check(wrong, problems.notebook_line()))) == 2

    def test_redescending_losses_hold_out_longer_and_follow_too(self, moved):
        least = moved["outlier"].moved.sel(kind="x")
        early, late = least.sel(factor=10.0, method="nearest"), least.isel(factor=-1)
        assert float(early.sel(estimator="bisquare")) < 0.1 * float(early.sel(estimator="huber"))
        np.testing.assert_allclose(late / late.sel(estimator="mse"), 1.0, rtol=0.2)


def test_findings_are_plain_json(likelihoods, spoilt, unequal, moved):
    for module, results in ((likelihood, likelihoods), (robust_losses, spoilt), (heteroscedastic, unequal), (leverage, moved)):
        json.dumps([finding.as_dict() for finding in module.check(results, problems.notebook_line())])
