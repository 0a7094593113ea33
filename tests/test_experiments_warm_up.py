"""Warm-up: the recursion of two factors is gradient descent on them, wrong constants are found, odd settings refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import warm_up
from gdjax import problems, sharpness
from gdjax.records import InputError
from gdjax.sweep import sweep
from gdjax.theory import catapult
from tests.test_experiments import SMALL


@pytest.fixture(scope="module")
def measured():
    return warm_up.run(sweep, **SMALL["warm_up"])


def lost(results):
    return [finding.claim for finding in warm_up.check(results) if not finding.holds]


def state_of(factors):
    u, v = np.asarray(factors)
    return catapult.State(u @ v - 1.0, u @ u + v @ v)


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_residual_and_trace_follow_gradient_descent(rate):
    problem = warm_up.two_factor(1.7)
    unit = float(problem.constants["unit"])
    state, factors = state_of(problem.start), np.asarray(problem.start)
    for _ in range(5):
        factors = factors - rate / unit / 6.0 * np.asarray(problem.gradient(factors))
        state = catapult.after_step(state, rate / 6.0)
    np.testing.assert_allclose(state, state_of(factors), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_sharpness_of_two_factors_is_its_closed_form(scale):
    problem = warm_up.two_factor(scale)
    unit = float(problem.constants["unit"])
    start = jnp.asarray(problem.start) + jnp.asarray(np.random.default_rng(1).normal(size=problem.start.shape))
    for factors in (problem.start, start):
        assert float(sharpness.lambda_max(problem, factors)) / unit == pytest.approx(
            float(catapult.sharpness(state_of(factors))), rel=1e-12
        )


def test_the_first_plan_is_no_warm_up_and_the_last_waits():
    plans = warm_up.plans((1, 8), 20)
    rates = np.stack([_rates(int(length), int(small)) for length, small in zip(plans["length"], plans["num_small"], strict=True)])
    np.testing.assert_allclose(rates[0], 3.0)
    np.testing.assert_allclose(rates[1], 3.0 * np.minimum(1.0, np.arange(1, 31) / 8))
    np.testing.assert_allclose(rates[2], np.where(np.arange(30) < 20, 0.5, 3.0))


def _rates(length, num_small):
    """How far steps along a slope of 1 go."""
    optimizer = warm_up.warmed(3.0, 0.5, num_small, length)

    def step(state, _):
        moved, state = optimizer.update(jnp.ones(()), state)
        return state, -moved

    return jax.lax.scan(step, optimizer.init(jnp.zeros(())), length=30)[1]


def test_a_recursion_without_its_quadratic_term_is_found(measured, monkeypatch):
    def linear(state, rate, target=1.0):
        r, trace = state
        with np.errstate(over="ignore", invalid="ignore"):
            return catapult.State(r * (1.0 - rate * trace), trace - 4.0 * rate * r * (r + target))

    monkeypatch.setattr(catapult, "after_step", linear)
    assert any("a largest rate is from the exact one" in claim for claim in lost(measured))


def test_an_edge_at_two_over_the_trace_is_found(measured, monkeypatch):
    monkeypatch.setattr(catapult, "CATAPULT", 2.0)
    assert any("largest rate times λ there" in claim for claim in lost(measured))


def test_a_sharpness_that_is_off_is_found(measured):
    network = measured["network"].to_dataset()
    spoilt = measured.copy()
    spoilt["network"] = spoilt["network"].assign(sharpness=network.sharpness * 1.001)
    assert any("neighbours part" in claim for claim in lost(spoilt))


def test_a_warm_up_that_buys_nothing_is_found(measured):
    network = measured["network"].to_dataset()
    spoilt = measured.copy()
    nothing = network.diverged_at.where(network.learning_rate < 1.0, 1)
    spoilt["network"] = spoilt["network"].assign(diverged_at=nothing.where(network.length > 1, network.diverged_at))
    assert any("linear warm-up, over without" in claim for claim in lost(spoilt))


def test_networks_share_their_programs(compilations):
    """All scales and seeds: what differs is data."""
    pixels = warm_up.digits(30)
    for seed in (0, 1):
        problem = problems.mlp_classification(pixels.features, pixels.target, hidden=4, loss="squared_error", seed=seed)
        plan = {"small_rate": 0.1, "num_small": [0, 2], "length": 1, "learning_rate": 0.1}
        ds = sweep(problem, method=warm_up.warmed, sampler="full", num_steps=4, record_every=4, observer=compilations, **plan)
    assert compilations.count == 1
    assert np.isfinite(ds.objective).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_steps": 100}, "num_steps=100 is not allowed: it is more than num_small=100"),
        ({"num_small": 5}, "num_small=5 is not allowed"),
        ({"num_rates": 1}, "num_rates=1 is not allowed"),
        ({"num_examples": 3}, "num_examples=3 is not allowed"),
        ({"weight_scale": "large"}, "weight_scale=large is not allowed"),
        ({"weight_scale": [-1.0]}, "weight_scale=-1.0 is not allowed"),
        ({"num_seeds": 0}, "num_seeds=0 is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, said):
    with pytest.raises(InputError, match=said):
        warm_up.run(sweep, **settings)
