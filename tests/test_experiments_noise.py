"""Experiments on noisy steps: a wrong constant in the theory makes a finding fail, and what makes no sense is refused."""

import numpy as np
import pytest

import gdjax
from experiments import averaging, decaying_steps, kaczmarz, noise_floor, reshuffling
from gdjax import problems
from gdjax.sweep import sweep
from gdjax.theory import moments, streaming
from gdjax.theory import reshuffling as theory_of_reshuffling


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def line():
    return problems.notebook_line()


@pytest.fixture(scope="module")
def floors(line):
    return noise_floor.run(line, sweep, num_steps=1200, num_seeds=250, num_streams=50, batch_size=[4, 16], relative_learning_rate=0.7)


class TestNoiseFloor:
    def test_holds(self, floors, line):
        assert lost(noise_floor.check(floors, line)) == []
        assert sum("noise floor" in finding.claim for finding in noise_floor.check(floors, line)) == 5  # four drawn ones, and the stream's

    def test_with_and_without_replacement_exchanged_would_be_found(self, floors, line, monkeypatch):
        right, other = moments.batch_noise_factor, dict(zip(moments.INDEPENDENT, reversed(moments.INDEPENDENT), strict=True))
        monkeypatch.setattr(moments, "batch_noise_factor", lambda batch, n, *, sampler: right(batch, n, sampler=other[sampler]))
        failed = lost(noise_floor.check(floors, line))
        for words in ("with replacement", "without replacement"):
            assert any(claim.startswith(f"B = 16 {words}, rate") for claim in failed)
        assert any("largest deviation" in claim for claim in failed)

    def test_an_edge_of_gradient_descent_would_be_found(self, line, monkeypatch):
        monkeypatch.setattr("gdjax.theory.mean_square_edge", lambda problem, batch, *, sampler: 0.0291586)
        edges = noise_floor._edges(line, sweep, [4], 100)
        assert len(lost(noise_floor._edge_findings(edges, line))) == 2

    def test_gaussian_inputs_without_their_fourth_moments_would_be_found(self, floors, line, monkeypatch):
        right = streaming.streamed_curves
        monkeypatch.setattr(streaming, "streamed_curves", lambda *args, **kw: right(*args, **kw | {"batch_size": 2 * kw["batch_size"]}))
        assert any("fresh Gaussian inputs" in claim for claim in lost(noise_floor.check(floors, line)))

    def test_momentum_s_floor_without_its_factor_would_be_found(self, floors, line, monkeypatch):
        monkeypatch.setattr(streaming, "heavy_ball_floor", lambda alpha, beta, h: alpha / ((1 - beta) * h * (2 - alpha * h)))
        assert any("momentum 0.9" in claim for claim in lost(noise_floor.check(floors, line)))

    def test_steady_errors_are_their_own_mean_after_a_step(self, line):
        edge = moments.mean_square_edge(line, 4)
        errors = noise_floor.steady_errors(line, 4, sampler="without_replacement")
        known = moments.of_problem(line)
        bare = known._replace(drive=0 * known.drive, third=0 * known.third)
        vectors = np.linalg.eigh(line.data[0].T @ line.data[0] / 80)[1]
        total = sum(
            moments.curve(bare._replace(error=vectors.T @ e), 2 * edge, moments.batch_noise_factor(4, 80), known.gram, num_steps=5)
            for e in errors
        )
        np.testing.assert_allclose(total, total[0], rtol=1e-9)


@pytest.fixture(scope="module")
def decayed():
    return decaying_steps.run(sweep, num_steps=1000, num_seeds=1000, learning_rate=[0.3, 1.0, 2.0], num_noiseless=1000)


class TestDecayingSteps:
    def test_a_wrong_limit_would_be_found(self, decayed, monkeypatch):
        monkeypatch.setattr("gdjax.theory.decaying.inverse_time_limit", lambda c: c**2 / (2 * c))
        assert len(lost(decaying_steps.check(decayed))) == 2

    def test_a_recursion_that_forgets_to_shrink_would_be_found(self, decayed, monkeypatch):
        monkeypatch.setattr(
            "gdjax.theory.decaying.inverse_time_square", lambda c, steps: np.tile(np.append(1.0, 1.0 / np.arange(1.0, steps + 1)), (3, 1))
        )
        assert any(claim.startswith("c = 2: largest") for claim in lost(decaying_steps.check(decayed)))

    def test_an_example_of_another_curvature_would_be_found(self, decayed, monkeypatch):
        monkeypatch.setattr(decaying_steps, "CURVATURE", 0.21)
        assert len([claim for claim in lost(decaying_steps.check(decayed)) if "without noise" in claim]) == 2


@pytest.fixture(scope="module")
def averages():
    return averaging.run(sweep, num_steps=3000, num_seeds=100)


class TestAveraging:
    def test_the_late_power_and_the_limit_are_judged_once_the_start_is_forgotten(self, averages):
        said = [finding.claim for finding in averaging.check(averages)]
        assert sum("power" in claim or "limit" in claim for claim in said) == 2

    def test_a_curve_without_correlations_in_time_would_be_found(self, averages, monkeypatch):
        right = averaging._exact

        def uncorrelated(measured):
            curves = right(measured)
            return streaming.Streamed(curves.last, curves.last / (measured.step.values + 1.0))

        monkeypatch.setattr(averaging, "_exact", uncorrelated)
        assert sum("deviation of the mean" in claim for claim in lost(averaging.check(averages))) == 3

    def test_a_bound_that_is_none_would_be_found(self, averages, monkeypatch):
        monkeypatch.setattr(streaming, "averaging_bound", lambda rate, n, **_: 0.0 * rate + 0.5 * 20 / n)
        assert any("ratio" in claim for claim in lost(averaging.check(averages)))


@pytest.fixture(scope="module")
def dealt():
    return reshuffling.run(sweep, num_examples=16, num_seeds=100, num_epochs=16)


class TestReshuffling:
    def test_sums_without_the_finite_population_would_be_found(self, dealt, monkeypatch):
        right = theory_of_reshuffling.reshuffled_square
        monkeypatch.setattr(theory_of_reshuffling, "reshuffled_square", lambda rate, n, **kw: right(rate, n, **kw) * (n - 1) / n)
        assert len(lost(reshuffling.check(dealt))) >= 3

    def test_a_mean_shift_of_the_other_sign_or_twice_as_large_would_be_found(self, dealt, monkeypatch):
        right = theory_of_reshuffling.mean_shift
        for factor in (-1.0, 2.0):
            monkeypatch.setattr(theory_of_reshuffling, "mean_shift", lambda *args, factor=factor: factor * right(*args))
            findings = [finding for finding in reshuffling.check(dealt) if "off the minimizer" in finding.claim]
            assert abs(findings[0].predicted - findings[0].measured) > 0.3 * abs(findings[0].measured)

    def test_independent_draws_are_not_dealt(self, dealt, monkeypatch):
        monkeypatch.setattr(
            theory_of_reshuffling,
            "independent_square",
            lambda rate, steps=np.inf: theory_of_reshuffling.reshuffled_square(rate, 16, steps=steps),
        )
        assert any(claim.startswith("independent draws") for claim in lost(reshuffling.check(dealt)))


@pytest.fixture(scope="module")
def projected(line):
    return kaczmarz.run(line, sweep, num_steps=100, num_seeds=1000)


class TestKaczmarz:
    def test_rows_drawn_alike_would_be_found(self, projected, line, monkeypatch):
        monkeypatch.setattr("gdjax.theory.kaczmarz.row_probabilities", lambda A: np.full(len(A), 1.0 / len(A)))
        failed = lost(kaczmarz.check(projected, line))
        assert any(claim.startswith("b = A x*: the same") for claim in failed)

    def test_a_contraction_by_the_largest_singular_value_would_be_found(self, projected, line, monkeypatch):
        monkeypatch.setattr("gdjax.theory.kaczmarz.kaczmarz_contraction", lambda A: 1.0 - (np.linalg.norm(A, 2) / np.linalg.norm(A)) ** 2)
        assert any("ratio" in claim for claim in lost(kaczmarz.check(projected, line)))

    def test_rows_of_zeros_say_nothing(self, line):
        X = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0], [0.5, 0.5]])
        problem = problems.least_squares(X, [1.0, 5.0, 2.0, 0.0], intercept=False)
        A, residual = kaczmarz.rows(problem)
        assert A.shape == (3, 2)
        assert residual.shape == (3,)
        assert lost(kaczmarz.check(kaczmarz.run(problem, sweep, num_steps=20, num_seeds=200), problem)) == []


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        (noise_floor, {"relative_learning_rate": [1.0]}, "relative_learning_rate=[1.0] is not allowed"),
        (noise_floor, {"batch_size": [0]}, "batch_size=[0] is not allowed: sizes are from 1 to n = 80"),
        (noise_floor, {"batch_size": "big"}, "batch_size=big is not allowed"),
        (noise_floor, {"num_streams": 1}, "num_streams=1 is not allowed"),
        (decaying_steps, {"learning_rate": [0.0]}, "learning_rate=0.0 is not allowed"),
        (decaying_steps, {"num_steps": 5}, "num_steps=5 is not allowed: it is a whole number, 100 or more"),
        (averaging, {"relative_learning_rate": 1.5}, "relative_learning_rate=[1.5] is not allowed"),
        (averaging, {"num_seeds": "all"}, "num_seeds=all is not allowed"),
        (reshuffling, {"num_examples": 50}, "num_examples=50 is not allowed: it is a power of 2"),
        (reshuffling, {"rate_times_examples": [-1.0]}, "rate_times_examples=[-1.0] is not allowed"),
        (kaczmarz, {"num_seeds": 0}, "num_seeds=0 is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(module, settings, said, line, mistake):
    given = (line, sweep) if module in (noise_floor, kaczmarz) else (sweep,)
    assert said in mistake(module.run, *given, **settings)


@pytest.mark.parametrize("module", [noise_floor, kaczmarz])
def test_other_losses_are_refused_with_the_problem_s_name(module, mistake):
    problem = problems.logistic([[0.0], [1.0], [2.0]], [0, 1, 0], ridge=0.1)
    assert "which logistic is not" in mistake(module.run, problem, sweep)


def test_averaged_sgd_reports_the_mean_of_the_iterates(line):
    plain = [
        gdjax.sweep(line, sampler="full", num_steps=t, record_every=t, learning_rate=0.01).params.values if t else np.asarray(line.start)
        for t in range(6)
    ]
    averaged = gdjax.sweep(line, method="averaged_sgd", sampler="full", num_steps=5, learning_rate=0.01)
    np.testing.assert_allclose(averaged.params, np.mean(plain, axis=0), rtol=1e-13)


def test_robbins_monro_steps_by_c_over_t():
    ds = gdjax.sweep(
        problems.designed_spectrum([1.0]),
        method="robbins_monro",
        sampler="full",
        num_steps=3,
        record_every=1,
        learning_rate=0.5,
        offset=[0.0, 1.0],
    )
    x = np.sqrt(2.0 * ds.suboptimality)
    np.testing.assert_allclose(x[0], [1.0, 0.5, 0.5 * 0.75, 0.5 * 0.75 * (1 - 0.5 / 3)], rtol=1e-14)
    np.testing.assert_allclose(x[1], [1.0, 0.75, 0.75 * (1 - 0.5 / 3), 0.75 * (1 - 0.5 / 3) * (1 - 0.5 / 4)], rtol=1e-14)
