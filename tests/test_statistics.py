"""Efficiencies and covariances are the reference's, computed there by other quadrature and linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gdjax import losses, problems, statistics
from tests import reference

TABULATED = 1e-8  # the reference's own


@pytest.mark.parametrize(("delta", "efficiency"), reference.HUBER_EFFICIENCY.items())
def test_huber_s_efficiency_under_normal_noise(delta, efficiency):
    assert statistics.huber_efficiency(delta) == pytest.approx(efficiency, rel=TABULATED)
    psi = statistics.score(losses.huber, delta=delta)
    assert 1.0 / statistics.asymptotic_variance(psi, statistics.normal(), [delta]) == pytest.approx(efficiency, rel=TABULATED)


def test_huber_s_delta_for_95_percent():
    assert statistics.huber_efficiency(reference.HUBER_DELTA_95) == pytest.approx(0.95, rel=1e-10)


def test_bisquare_s_efficiency_under_normal_noise():
    psi = statistics.score(losses.bisquare, cutoff=4.685)
    assert 1.0 / statistics.asymptotic_variance(psi, statistics.normal(), [4.685]) == pytest.approx(
        reference.BISQUARE_EFFICIENCY, rel=TABULATED
    )


def test_bisquare_s_cutoff_for_95_percent():
    cutoff = reference.BISQUARE_CUTOFF_95
    psi = statistics.score(losses.bisquare, cutoff=cutoff)
    assert 1.0 / statistics.asymptotic_variance(psi, statistics.normal(), [cutoff]) == pytest.approx(0.95, rel=TABULATED)


def test_least_absolute_s_efficiency_under_normal_noise():
    psi = statistics.score(losses.absolute)
    efficiency = 1.0 / statistics.asymptotic_variance(psi, statistics.normal())
    assert efficiency == pytest.approx(reference.LEAST_ABSOLUTE_EFFICIENCY, rel=TABULATED) == pytest.approx(2 / np.pi, rel=TABULATED)


@pytest.mark.parametrize(("degrees", "efficiency"), reference.STUDENT_T_EFFICIENCY.items())
def test_student_s_score_under_normal_noise(degrees, efficiency):
    psi = statistics.score(losses.student_t, degrees=float(degrees))
    assert 1.0 / statistics.asymptotic_variance(psi, statistics.normal()) == pytest.approx(efficiency, rel=TABULATED)


@pytest.mark.parametrize(("degrees", "efficiency"), reference.LEAST_SQUARES_UNDER_T.items())
def test_least_squares_under_student_s_noise(degrees, efficiency):
    noise = statistics.student(float(degrees))
    assert statistics.least_squares_efficiency_under_student(degrees) == pytest.approx(efficiency, rel=TABULATED)
    assert 1.0 / (noise.variance * statistics.information(noise)) == pytest.approx(efficiency, rel=TABULATED)
    # the tail x^2 f(x) ~ x^(1 - nu) beyond the last edge, 1e-10 for nu = 3
    assert statistics.asymptotic_variance(lambda x: x, noise) == pytest.approx(noise.variance, rel=TABULATED)


@pytest.mark.parametrize(("degrees", "efficiency"), reference.LEAST_ABSOLUTE_UNDER_T.items())
def test_least_absolute_under_student_s_noise(degrees, efficiency):
    noise = statistics.student(float(degrees))
    measured = 1.0 / (statistics.asymptotic_variance(np.sign, noise) * statistics.information(noise))
    assert measured == pytest.approx(efficiency, rel=TABULATED)


@pytest.mark.parametrize(("name", "psi", "kinks"), [("mean", lambda x: x, ()), ("median", np.sign, ()), ("huber1345", None, (1.345,))])
def test_variances_under_contamination(name, psi, kinks):
    psi = psi or statistics.score(losses.huber, delta=1.345)
    variance = statistics.asymptotic_variance(psi, statistics.contaminated(0.1, 3.0), kinks)
    assert variance == pytest.approx(reference.CONTAMINATED_VARIANCE[name], rel=TABULATED)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.25])
def test_the_minimax_delta_has_the_least_largest_variance(share):
    best = statistics.minimax_delta(share)
    least = statistics.largest_variance(best, share)
    assert all(statistics.largest_variance(best * factor, share) > least for factor in (0.9, 0.999, 1.001, 1.1))
    inside = math.erf(best / math.sqrt(2.0))
    assert least == pytest.approx(1.0 / ((1.0 - share) * inside), rel=1e-10)
    worst = statistics.asymptotic_variance(statistics.score(losses.huber, delta=best), statistics.contaminated(share, 1e4), [best])
    assert worst == pytest.approx(least, rel=1e-3)  # of N(0, 1e8) all but 1e-4 lies outside


def test_covariances_are_the_reference():
    X = np.asarray(problems.notebook_line().data[0])
    plain, weighted, _ = statistics.covariances(X, (0.2 + 0.3 * X[:, 1]) ** 2)
    np.testing.assert_allclose(np.diag(plain), reference.HETEROSCEDASTIC_VARIANCES[0], rtol=1e-10)
    np.testing.assert_allclose(np.diag(weighted), reference.HETEROSCEDASTIC_VARIANCES[1], rtol=1e-10)
    np.testing.assert_allclose(np.diag(weighted) / np.diag(plain), reference.HETEROSCEDASTIC_EFFICIENCY, rtol=1e-9)


def test_with_equal_variances_every_covariance_is_the_textbook_s():
    X = np.asarray(problems.random_linear().data[0])
    expected = 4.0 * np.linalg.inv(X.T @ X)
    for covariance in statistics.covariances(X, np.full(len(X), 4.0)):
        np.testing.assert_allclose(covariance, expected, rtol=1e-10, atol=1e-17)
