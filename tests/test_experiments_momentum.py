"""Quadratic rates, the smooth convex worst case and momentum on their own settings, and each with a constant broken on purpose."""

import functools

import numpy as np
import pytest

from experiments import heavy_ball, nesterov_acceleration, quadratic_rates, smooth_convex
from gdjax import problems, theory
from gdjax.records import InputError
from gdjax.sweep import sweep
from gdjax.theory import acceleration, momentum

ON_PROBLEMS = pytest.mark.parametrize("module", [quadratic_rates, heavy_ball, nesterov_acceleration])


def square(params, example):
    return (params - example) ** 2


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def gap():
    return problems.gap_spectrum()


@pytest.fixture(scope="module")
def rates(gap):
    return quadratic_rates.run(gap, sweep, num_rates=60)


@pytest.fixture(scope="module")
def ball(gap):
    return heavy_ball.run(gap, sweep, grid_size=6)


@pytest.fixture(scope="module")
def accelerated(gap):
    return nesterov_acceleration.run(gap, sweep)


@pytest.fixture(scope="module")
def convex():
    return smooth_convex.run(sweep, num_rates=10, num_functions=50)


@ON_PROBLEMS
def test_an_experiment_on_quadratics_refuses_anything_else(module):
    with pytest.raises(InputError, match="is about least squares and other quadratics, which square is not"):
        module.run(problems.from_loss(square, np.ones(3), np.zeros(())), sweep)


def test_one_curvature_alone_has_a_v_but_no_line_search():
    problem = problems.designed_spectrum(np.ones(1))
    results = quadratic_rates.run(problem, sweep, num_steps=300, num_rates=20)
    findings = quadratic_rates.check(results, problem)
    assert lost(findings) == []
    assert not any("line search" in finding.claim for finding in findings)
    quadratic_rates.draw(results, problem)


class TestQuadraticRates:
    def test_every_slope_is_seen_on_a_spectrum_with_a_gap(self, rates, gap):
        findings = quadratic_rates.check(rates, gap)
        assert lost(findings) == []
        assert sum("slope of ln(f - f*)" in finding.claim for finding in findings) == 7
        assert any("crosses 1" in finding.claim for finding in findings)

    def test_a_wrong_factor_would_be_found(self, rates, gap, monkeypatch):
        monkeypatch.setattr("gdjax.theory.contraction", lambda rate, smoothness, convexity: 1.0 - rate * convexity)  # one branch of the V
        claims = lost(quadratic_rates.check(rates, gap))
        assert any("2.02 / L" in claim for claim in claims)
        assert any(claim.startswith("the V:") for claim in claims)

    def test_a_wrong_edge_would_be_found(self, rates, gap, monkeypatch):
        monkeypatch.setattr("gdjax.theory.stability_edge", lambda smoothness: 2.004 / smoothness)
        assert lost(quadratic_rates.check(rates, gap)) == ["the V crosses 1, from shrinking to growing, at the rate 2 / L"]

    def test_a_start_that_is_not_the_worst_would_be_found(self, gap, monkeypatch):
        monkeypatch.setattr(quadratic_rates, "worst_start", lambda problem: np.asarray(problem.start))
        results = quadratic_rates.run(gap, sweep, num_rates=2, num_steps=20)
        assert any("from the worst start" in claim for claim in lost(quadratic_rates.check(results, gap)))

    def test_float32_has_its_own_tolerance(self, gap):
        results = quadratic_rates.run(gap, functools.partial(sweep, precision="float32"), num_rates=10, num_steps=300)
        assert lost(quadratic_rates.check(results, gap)) == []


class TestSmoothConvex:
    def test_a_wrong_constant_in_the_worst_case_would_be_found(self, convex, monkeypatch):
        monkeypatch.setattr("gdjax.theory.smooth_convex.huber_case", lambda steps, h: 1.0 / (4.0 * np.asarray(steps) * h + 4.0))
        claims = lost(smooth_convex.check(convex))
        assert any(claim.startswith("h = 1: the worst") for claim in claims)
        assert any(claim.startswith("N = 20: the worst") for claim in claims)

    def test_a_wrong_exponent_would_be_found(self, convex, monkeypatch):
        monkeypatch.setattr("gdjax.theory.smooth_convex.SILVER_EXPONENT", 1.25)
        assert [claim[:22] for claim in lost(smooth_convex.check(convex))] == ["silver steps: exponent"]

    def test_steps_that_are_not_silver_would_be_found(self, convex):
        plain = convex["silver"].to_dataset()
        convex = convex.copy()
        convex["silver"] = plain.assign(silver=plain.plain)
        assert len([claim for claim in lost(smooth_convex.check(convex)) if claim.startswith("silver")]) == 3


class TestHeavyBall:
    def test_every_finding_is_there_on_a_spectrum_with_a_gap(self, ball, gap):
        findings = heavy_ball.check(ball, gap)
        assert lost(findings) == []
        assert len(findings) == 13

    def test_a_slope_without_its_square_of_t_would_be_found(self, ball, gap, monkeypatch):
        right = momentum.heavy_ball_tuned
        monkeypatch.setattr(momentum, "heavy_ball_tuned", lambda *bounds: right(*bounds)._replace(contraction=0.9967 * right(*bounds)[2]))
        assert [claim[:14] for claim in lost(heavy_ball.check(ball, gap))] == ["tuned: slope o"]

    def test_a_wrong_edge_would_be_found(self, ball, gap, monkeypatch):
        monkeypatch.setattr(momentum, "heavy_ball_edge", lambda smoothness, beta: (2.0 + 1.99 * np.asarray(beta)) / smoothness)
        assert [claim[:12] for claim in lost(heavy_ball.check(ball, gap))] == ["momentum 0.5", "momentum 0.9"]

    def test_a_wrong_cycle_would_be_found(self, ball, gap, monkeypatch):
        monkeypatch.setattr(heavy_ball, "CYCLE", heavy_ball.CYCLE * (1.0 + 1e-8))
        assert all("two kinks, heavy ball" in claim for claim in lost(heavy_ball.check(ball, gap)))
        assert lost(heavy_ball.check(ball, gap))

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"momentum": 1.0}, "momentum=1.0 is not allowed: a momentum is a number from 0 to below 1"),
            ({"edge_momenta": "all"}, "edge_momenta=all is not allowed"),
            ({"grid_size": 1}, "grid_size=1 is not allowed"),
            ({"relative_rate": "fast"}, "relative_rate=fast is not allowed"),
            ({"num_steps": 0}, "num_steps=0 is not allowed"),
        ],
    )
    def test_a_setting_that_makes_no_sense_is_named(self, gap, settings, said, mistake):
        assert said in mistake(heavy_ball.run, gap, sweep, **settings)


class TestNesterov:
    def test_every_finding_is_there_on_a_spectrum_with_a_gap(self, accelerated, gap):
        findings = nesterov_acceleration.check(accelerated, gap)
        assert lost(findings) == []
        assert len(findings) == 15

    def test_a_bessel_function_without_its_half_step_would_be_found(self, accelerated, gap, monkeypatch):
        damped = lambda product, k: acceleration.ode_mode(product, k) * np.exp(-0.5 * np.asarray(k) * product)  # noqa: E731
        monkeypatch.setattr(acceleration, "bessel_mode", damped)
        claims = lost(nesterov_acceleration.check(accelerated, gap))
        assert claims
        assert all("2 J_1(w)" in claim for claim in claims)

    def test_a_wrong_rate_would_be_found(self, accelerated, gap, monkeypatch):
        right = momentum.nesterov_constant
        monkeypatch.setattr(momentum, "nesterov_constant", lambda *bounds: right(*bounds)._replace(contraction=0.8995))
        claims = lost(nesterov_acceleration.check(accelerated, gap))
        assert [claim[:5] for claim in claims] == ["1 / L"]

    def test_bounds_that_are_too_low_would_be_found(self, accelerated, gap, monkeypatch):
        monkeypatch.setattr(acceleration, "convex_bound", lambda smoothness, distance, k: 0.1 * smoothness * distance**2 / (k + 1.0) ** 2)
        assert len(lost(nesterov_acceleration.check(accelerated, gap))) == 3

    def test_a_tail_law_without_its_constant_would_be_found(self, accelerated, gap, monkeypatch):
        right = nesterov_acceleration.tail_law
        monkeypatch.setattr(nesterov_acceleration, "tail_law", lambda k: right(k) * np.pi / 4.0)
        assert [claim[:9] for claim in lost(nesterov_acceleration.check(accelerated, gap))] == ["the same:"]

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"products": [0.5, 1.0]}, "products=[0.5, 1.0] is not allowed: every one is a number between 0 and 1"),
            ({"num_tail_steps": 200_000}, "num_tail_steps=200000 is not allowed"),
            ({"num_mode_steps": "many"}, "num_mode_steps=many is not allowed"),
        ],
    )
    def test_a_setting_that_makes_no_sense_is_named(self, gap, settings, said, mistake):
        assert said in mistake(nesterov_acceleration.run, gap, sweep, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lengths": [0]}, "lengths=0 is not allowed: it is a whole number, 1 or more"),
        ({"lengths": "long"}, "lengths=long is not allowed"),
        ({"num_doublings": 17}, "num_doublings=17 is not allowed: it is a whole number from 1 to 16"),
        ({"num_functions": 1}, "num_functions=1 is not allowed"),
    ],
)
def test_a_setting_of_smooth_convex_that_makes_no_sense_is_named(settings, said, mistake):
    assert said in mistake(smooth_convex.run, sweep, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"relative_rates": [-1.0]}, "is not allowed: every one is a number above 0"),
        ({"relative_rates": []}, r"relative_rates=[] is not allowed"),
        ({"num_searches": 0}, "num_searches=0 is not allowed"),
        ({"num_rates": 1}, "num_rates=1 is not allowed"),
    ],
)
def test_a_setting_of_quadratic_rates_that_makes_no_sense_is_named(gap, settings, said, mistake):
    assert said in mistake(quadratic_rates.run, gap, sweep, **settings)


def test_steepest_descent_is_cauchy_s_whatever_it_looks_at(gap):
    modes = theory.modes(gap)
    error, values = modes.start.copy(), []
    for _ in range(20):
        values.append(0.5 * np.sum(modes.curvatures * error**2))
        gradient = modes.curvatures * error
        error = error - gradient * (gradient @ gradient) / (gradient @ (modes.curvatures * gradient))
    ds = sweep(gap, method="steepest_descent", sampler="full", num_steps=40, record_every=1, learning_rate=[0.01, 1.0, 100.0])
    for shift in (0, 1):  # an odd step leaves x where it was
        np.testing.assert_allclose(ds.suboptimality.values[:, shift:40:2], np.tile(values, (3, 1)), rtol=1e-9)


def test_silver_steps_are_the_planned_ones():
    planned = theory.smooth_convex.silver_steps(12)
    ds = sweep(
        problems.designed_spectrum(np.array([0.25])), method="silver", sampler="full", num_steps=12, record_every=1, learning_rate=1.0
    )
    errors = np.append(1.0, np.cumprod(1.0 - 0.25 * planned))
    np.testing.assert_allclose(ds.distance, np.abs(errors), rtol=1e-12)
