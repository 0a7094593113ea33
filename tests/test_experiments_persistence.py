"""Resumed runs and files: what the experiment measures is right, and what would be wrong is found."""

import functools
import types

import numpy as np
import pytest

from experiments import persistence as experiment
from gdjax import persistence, problems, samplers
from gdjax.records import InputError
from gdjax.sweep import sweep


def square(params, example):
    return (params["x"] - example) ** 2


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def results():
    return experiment.run(problems.notebook_line(), sweep, num_steps=20, methods=["heavy_ball"])


def test_every_event_ends_as_measured_by_hand(results):
    outcome = results["files"].to_dataset().outcome
    assert outcome.sel(written="gdjax file").values.tolist() == ["same numbers"] * 2 + ["refused"] * 4
    assert outcome.sel(event="its class moved").values.tolist() == ["same numbers", "same numbers", "refused"]
    assert outcome.sel(event="code in it").values.tolist() == ["refused", "runs it", "runs it"]


def test_the_momentum_that_parameters_alone_lose_is_the_last_move(results):
    """A heavy ball begun anew lacks beta (x_t - x_(t-1)) in its first step."""
    problem = problems.notebook_line()
    before, after = (
        sweep(problem, method="heavy_ball", num_steps=steps, batch_size=16, learning_rate=results["runs"].attrs["learning_rate"]).params
        for steps in (19, 20)
    )
    np.testing.assert_array_equal(results["runs"].halfway.sel(optimizer="heavy_ball"), after)
    first = results["runs"].curve.sel(optimizer="heavy_ball", step=21)
    X, y = problem.data
    rows = samplers.reshuffled(samplers.generator(0), 21, 80, 16)[20]
    gradient = 2.0 / 16 * X[rows].T @ (X[rows] @ after.values - y[rows])
    alone = after.values - results["runs"].attrs["learning_rate"] * gradient
    kept = alone + 0.9 * (after - before).values
    for way, params in (("parameters alone", alone), ("from a file", kept), ("not interrupted", kept)):
        assert float(first.sel(way=way)) == pytest.approx(float(problem.objective(params)) - problem.minimum, rel=1e-9)


def test_a_file_that_loses_digits_would_be_found(monkeypatch):
    exact = persistence.Saved._leaf

    def rounded(self, path, like):
        array = exact(self, path, like)
        return array.astype(np.float32).astype(array.dtype)

    monkeypatch.setattr(persistence.Saved, "_leaf", rounded)
    results = experiment.run(problems.notebook_line(), sweep, num_steps=5, methods="heavy_ball")
    claims = lost(experiment.check(results, problems.notebook_line()))
    assert any("bit for bit" in claim for claim in claims)
    assert any("resumed as not interrupted" in claim for claim in claims)
    assert any("gdjax file" in claim for claim in claims)


def test_examples_that_begin_again_would_be_found(monkeypatch):
    def again(rng, num_steps, num_examples, batch_size):
        return np.tile(samplers.reshuffled(rng, num_steps // 2, num_examples, batch_size), (2, 1))

    monkeypatch.setattr(experiment, "samplers", types.SimpleNamespace(reshuffled=again, generator=samplers.generator))
    results = experiment.run(problems.notebook_line(), sweep, num_steps=10, methods="sgd")
    assert [claim.partition(":")[0] for claim in lost(experiment.check(results, problems.notebook_line()))] == [
        "sgd",
        "sgd, parameters alone as the page saves them",
    ]


def test_a_page_that_embeds_definitions_would_be_found(results, monkeypatch):
    bent = results.copy()
    files = results["files"].to_dataset()
    bent["files"] = files.assign(outcome=files.outcome.where(files.event != "its class moved", "same numbers"))
    assert any(claim.startswith("pickled model") for claim in lost(experiment.check(bent, problems.notebook_line())))
    monkeypatch.setattr(experiment, "NEW_CLASS", experiment.OLD_CLASS)
    assert any("has since doubled" in claim for claim in lost(experiment._pickle_findings()))


def test_any_problem_does_if_its_rate_is_known_or_given(mistake):
    unknown = problems.from_loss(square, np.arange(9.0), {"x": np.zeros(())})
    assert "experiment persistence knows no rate for square" in mistake(experiment.run, unknown, sweep)
    for problem, rate in ((unknown, 0.1), (problems.designed_spectrum([1.0, 10.0]), None)):
        results = experiment.run(problem, sweep, num_steps=3, learning_rate=rate, methods="heavy_ball")
        assert lost(experiment.check(results, problem)) == []
        experiment.draw(results, problem)


def test_float32_has_its_own_tolerance():
    problem = problems.notebook_line()
    results = experiment.run(problem, functools.partial(sweep, precision="float32"), num_steps=10, methods=["adam", "sgd"])
    assert lost(experiment.check(results, problem)) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_steps": 1}, "num_steps=1 is not allowed: it is a whole number, 2 or more"),
        ({"methods": "adm"}, "unknown method: 'adm'"),
        ({"methods": []}, r"methods=\[\] is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"learning_rate": -1.0}, "learning_rate=-1 is not allowed"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, said):
    with pytest.raises(InputError, match=said):
        experiment.run(problems.notebook_line(), sweep, **settings)
