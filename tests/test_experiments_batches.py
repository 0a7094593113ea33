"""Batch, mini-batch and stochastic descent against the reference, and with constants broken on purpose."""

import functools

import numpy as np
import pytest

from experiments import batch_variants as experiment
from gdjax import problems, samplers, theory
from gdjax.sweep import sweep
from tests import reference

SMALL = {"num_epochs": 10, "num_seeds": 512, "num_decayed": 2000}


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def problem():
    return problems.notebook_line()


@pytest.fixture(scope="module")
def results(problem):
    return experiment.run(problem, sweep, **SMALL)


def test_the_notebook_s_batches_are_those_of_a_new_generator_of_its_seed():
    drawn = experiment.as_the_notebook_draws(samplers.generator(42), 3, 80, 16)
    assert drawn[0].tolist() == reference.MINIBATCH_FIRST_INDICES
    rng = np.random.default_rng(42)
    np.testing.assert_array_equal(drawn, [rng.choice(80, size=16, replace=False) for _ in range(3)])


def test_the_notebook_s_mini_batch_run_is_reproduced_to_the_last_update(problem):
    replayed = experiment._replayed(problem, sweep, 16)
    run = functools.partial(sweep, problem, sampler=experiment.as_the_notebook_draws, num_steps=400, batch_size=16, seed=42)
    rates = list(reference.MINIBATCH_OBJECTIVE_AFTER)
    np.testing.assert_allclose(replayed.learning_rate, rates, rtol=1e-12)
    ends = run(learning_rate=rates, record_every=400).params
    for index, (rate, after) in enumerate(reference.MINIBATCH_OBJECTIVE_AFTER.items()):
        here = replayed.isel(learning_rate=index)
        np.testing.assert_allclose(here.objective.sel(step=list(after)), list(after.values()), rtol=1e-9)
        np.testing.assert_allclose(here.notebook.values[np.array(list(after)) - 1], list(after.values()), rtol=1e-9)
        np.testing.assert_allclose(ends.sel(learning_rate=rate), reference.MINIBATCH_PARAMS_AFTER_400[rate], rtol=1e-9)


def test_means_along_the_way_are_the_reference_s(problem):
    exact = experiment._exact_mean(problem, (0.01,), 16, 400, "without_replacement", (0.0,))[0]
    after = {
        1: 17.927635567967926,
        2: 3.1230337907778907,
        10: 1.1880619420525105,
        100: 0.49262599837315374,
        400: 0.03863714563916473,
    }  # N24
    np.testing.assert_allclose(exact[list(after)], list(after.values()), rtol=1e-8)


def test_a_decay_of_zero_is_a_constant_rate(problem):
    rates = (0.004, 0.004)
    constant, _ = experiment._exact_mean(problem, rates, 1, 50, "without_replacement", (0.0, 0.1))
    np.testing.assert_allclose(constant, theory.expected_suboptimality(problem, 0.004, 1, 50)[0], rtol=1e-12)


def test_the_page_s_loader_stalls_fifteen_times_lower_than_its_table_is_about():
    page = problems.page_data(num_examples=400)
    dealt = experiment._dealt(page, sweep, batch=32, rate=0.01, seeds=range(256))
    late = dealt.suboptimality.isel(step=slice(51, None)).mean(["step", "seed"])
    for sampler, floor in reference.PAGE_FLOORS.items():
        assert float(late.sel(sampler=sampler)) == pytest.approx(floor, rel=0.02)
        exact = experiment._exact_dealt(dealt, page, sampler)[-1]
        assert exact == pytest.approx(floor, rel=0.01 if sampler == "reshuffled" else 1e-7)
    assert 15 < float(late.sel(sampler="with_replacement") / late.sel(sampler="reshuffled")) < 16.5
    assert lost(experiment._dealt_findings(dealt, page)) == []
    assert "15.7 times lower" in experiment._dealt_findings(dealt, page)[-1].claim


def test_all_findings_hold(results, problem):
    assert lost(experiment.check(results, problem)) == []


def test_one_over_b_would_be_found_where_batches_are_drawn_without_replacement(results, problem, monkeypatch):
    monkeypatch.setattr("gdjax.theory.moments.batch_noise_factor", lambda batch, n, **_: 1.0 / batch)
    monkeypatch.setattr("gdjax.theory.batch_noise_factor", lambda batch, n, **_: 1.0 / batch)
    experiment._exact_mean.cache_clear()
    experiment._from_minimizer.cache_clear()
    claims = lost(experiment.check(results, problem))
    experiment._exact_mean.cache_clear()
    experiment._from_minimizer.cache_clear()
    assert any("noise: E ||g_B - g||^2 of B = 16 without replacement" in claim for claim in claims)
    assert any(claim.startswith("without replacement, as the notebook draws") for claim in claims)


def test_the_floor_of_independent_draws_would_be_found_where_batches_are_dealt(results, problem, monkeypatch):
    monkeypatch.setattr(
        theory, "reshuffled_noise", lambda problem, rate, batch, epochs: theory.noise_floor(problem, rate, batch) + 0.0 * np.asarray(epochs)
    )
    assert [claim.partition(",")[0] for claim in lost(experiment.check(results, problem))] == ["reshuffled"]


def test_the_page_s_rate_would_be_found(results, problem, monkeypatch):
    rate = float(results["full"].learning_rate)
    monkeypatch.setattr(theory, "contraction", lambda *_: np.asarray(1.0 - 1.01 * rate * float(problem.strong_convexity)))
    assert any("O(kappa^t)" in claim for claim in lost(experiment.check(results, problem)))


def test_a_rate_that_decays_otherwise_would_be_found(problem, monkeypatch):
    import optax

    def slower(learning_rate, decay=0.0):
        return optax.sgd(lambda step: learning_rate / (1.0 + decay * step) ** 0.5)

    monkeypatch.setattr(experiment, "hyperbolic_sgd", slower)
    decays = experiment._decayed(problem, sweep, rate=0.005, seeds=range(128), num_steps=2000)
    assert [claim[:12] for claim in lost(experiment._decay_findings(decays, problem))] == ["SGD, c mu = "] * 2


def test_other_indices_would_be_found(results, problem, monkeypatch):
    monkeypatch.setattr(experiment, "NOTEBOOK_SEED", 43)
    X, y = problem.data
    replay = results["replay"].to_dataset()
    other = [
        experiment.notebook_minibatch(X, y[:, None], alpha=rate, batch_size=16, seed=43)[1] for rate in replay.learning_rate.values[:1]
    ]
    bent = replay.assign(notebook=(("learning_rate", "update"), np.array(other * 5)))
    assert not experiment._replay_finding(bent, "float64").holds


def test_float32_has_its_own_tolerance(problem):
    results = experiment.run(problem, functools.partial(sweep, precision="float32"), **SMALL)
    assert lost(experiment.check(results, problem)) == []


def square(params, example):
    return (params - example) ** 2


def test_what_has_no_exact_moments_is_refused(mistake):
    rng = np.random.default_rng(0)
    for other in (
        problems.designed_spectrum([1.0]),
        problems.from_loss(square, np.ones(9), np.zeros(())),
        problems.least_squares(rng.normal(size=(60, 45)), rng.normal(size=60)),
    ):
        assert f"is about least squares on 4 or more examples with at most 40 parameters, which {other.name} is not" in mistake(
            experiment.run, other, sweep
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 1}, "batch_size=1 is not allowed: it is a whole number, 2 or more"),
        ({"batch_size": 81}, "batch_size=81 is not allowed"),
        ({"num_seeds": 1}, "num_seeds=1 is not allowed"),
        ({"num_epochs": 0}, "num_epochs=0 is not allowed: it is a number above 0"),
        ({"num_epochs": "many"}, "num_epochs=many is not allowed: it is a number above 0"),
        ({"num_decayed": 2}, "num_decayed=2 is not allowed"),
        ({"learning_rate": "fast"}, "learning_rate=fast is not allowed"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, said, mistake, problem):
    assert said in mistake(experiment.run, problem, sweep, **settings)
