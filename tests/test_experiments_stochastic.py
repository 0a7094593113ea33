"""The experiments on noise: a wrong constant in the theory is found, and settings that make no sense are named."""

import numpy as np
import pytest

from experiments import gradient_noise_scale, homogenised_sgd, interpolation, noisy_quadratic, variance_reduction
from gdjax import problems, theory
from gdjax.records import InputError
from gdjax.sweep import sweep


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


def square(params, example):
    return (params - example) ** 2


@pytest.fixture(scope="module")
def quadratic():
    return noisy_quadratic.run(sweep, num_modes=50, target=0.05, num_rates=12, batch_size=[8], num_seeds=256)


def test_noise_twice_as_large_in_the_noisy_quadratic_model_would_be_found(quadratic, monkeypatch):
    exact = theory.noisy_quadratic._floors
    monkeypatch.setattr(theory.noisy_quadratic, "_floors", lambda *numbers: 2.0 * exact(*numbers))
    claims = [claim for claim in lost(noisy_quadratic.check(quadratic)) if "mean loss" in claim]
    assert len(claims) == 4  # SGD and heavy ball, at the target and from there on


def test_momentum_left_out_of_the_noise_would_be_found(quadratic, monkeypatch):
    exact = theory.noisy_quadratic._floors
    monkeypatch.setattr(theory.noisy_quadratic, "_floors", lambda model, rate, batch, beta: exact(model, rate, batch, 0.0 * beta))
    assert {claim.split(",")[0] for claim in lost(noisy_quadratic.check(quadratic)) if "mean loss" in claim} == {"heavy ball 0.9"}


def test_a_wrong_noise_scale_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    results = gradient_noise_scale.run(problem, sweep, num_single=1000, num_steps=100, num_seeds=2, num_rates=2, batch_size=[1, 16])
    exact = theory.noise_scale.least_squares
    twice = lambda some, at: exact(some, at)._replace(curved_noise=2.0 * exact(some, at).curved_noise)  # noqa: E731
    claims = lost(gradient_noise_scale.check(results, problem))
    monkeypatch.setattr(theory.noise_scale, "least_squares", twice)
    assert claims == []
    assert sum("best rate of a step" in claim for claim in lost(gradient_noise_scale.check(results, problem))) >= 3
    barely = lambda some, at: exact(some, at)._replace(curved_noise=(1 + 1e-6) * exact(some, at).curved_noise)  # noqa: E731
    monkeypatch.setattr(theory.noise_scale, "least_squares", barely)
    assert [claim.split(":")[0] for claim in lost(gradient_noise_scale.check(results, problem))] == ["B = 1, a step on each of 80 examples"]
    monkeypatch.setattr(theory.noise_scale, "least_squares", lambda some, at: exact(some, at)._replace(noise=1.5 * exact(some, at).noise))
    assert any("tr Σ" in claim for claim in lost(gradient_noise_scale.check(results, problem)))


def test_a_wrong_factor_of_an_interpolating_step_would_be_found(monkeypatch):
    results = interpolation.run(sweep, num_examples=16, num_features=64, batch_size=[1, 8], num_seeds=8, num_single=1000)
    exact = theory.interpolation.step_factor
    monkeypatch.setattr(theory.interpolation, "step_factor", lambda rate, *rest, **more: exact(1.5 * rate, *rest, **more))
    assert any("takes away" in claim for claim in lost(interpolation.check(results)))


def test_wrong_noise_in_svrg_and_in_sgd_would_be_found(monkeypatch):
    results = variance_reduction.run(sweep, num_steps=1500, num_seeds=100, num_examples=30, num_features=3)
    exact = theory.variance_reduction.ridge
    monkeypatch.setattr(
        theory.variance_reduction,
        "ridge",
        lambda some: exact(some)._replace(spread=2.0 * exact(some).spread, noise=2.0 * exact(some).noise),
    )
    claims = lost(variance_reduction.check(results))
    assert any("SVRG, last iterate: mean suboptimality after stage" in claim for claim in claims)
    assert any("SGD at SVRG's rate" in claim for claim in claims)


def test_a_volterra_equation_without_its_noise_would_be_found(monkeypatch):
    rates = 0.5 * np.array([0.4, 0.8]) / homogenised_sgd.even(100).trace
    part = sweep(
        homogenised_sgd.streaming(100, 300),
        sampler="reshuffled",
        batch_size=1,
        num_steps=300,
        record_every=10,
        learning_rate=rates,
        stream_seed=range(8),
    ).assign_attrs(num_parameters=100)
    assert lost(homogenised_sgd._volterra_findings(part)[2:]) == []
    exact = theory.homogenised.volterra
    monkeypatch.setattr(theory.homogenised, "volterra", lambda stream, rate, at: exact(stream._replace(noise=0.0), rate, at))
    assert any("root mean square" in claim for claim in lost(homogenised_sgd._volterra_findings(part)))


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        (noisy_quadratic, {"momentum": 1.0}, "momentum=1.0 is not allowed: it is a number above 0 and below 1"),
        (noisy_quadratic, {"target": "low"}, "target=low is not allowed"),
        (noisy_quadratic, {"batch_size": []}, r"batch_size=\[\] is not allowed"),
        (noisy_quadratic, {"num_modes": 0}, "num_modes=0 is not allowed"),
        (interpolation, {"num_features": 10}, "num_features=10 is not allowed: it is 64"),
        (interpolation, {"num_seeds": 1}, "num_seeds=1 is not allowed"),
        (interpolation, {"batch_size": "all"}, "batch_size=all is not allowed"),
        (variance_reduction, {"ridge": 0}, "ridge=0 is not allowed: it is a number above 0"),
        (variance_reduction, {"num_steps": -1}, "num_steps=-1 is not allowed"),
        (homogenised_sgd, {"num_streams": 1}, "num_streams=1 is not allowed"),
        (homogenised_sgd, {"num_parameters": "many"}, "num_parameters=many is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(module, settings, said):
    with pytest.raises(InputError, match=said):
        module.run(sweep, **settings)


@pytest.mark.parametrize(
    ("problem", "settings", "said"),
    [
        (problems.from_loss(square, np.ones(3), np.zeros(())), {}, "is about least squares, which square is not"),
        (problems.least_squares([[1.0]], [1.0], False), {}, "has one"),
        (problems.least_squares([[1.0], [2.0]], [0.0, 0.0], False), {}, "needs a gradient at the start"),
        (problems.notebook_line(), {"batch_size": [4]}, "compares two batch sizes or more"),
    ],
)
def test_a_problem_without_a_noise_scale_is_refused(problem, settings, said):
    with pytest.raises(InputError, match=said):
        gradient_noise_scale.run(problem, sweep, **settings)
