"""What is read off a Dataset, on curves whose numbers are known."""

import numpy as np
import pytest
import xarray as xr

from gdjax import analysis, problems
from gdjax.sweep import sweep


def curves(factors, steps=200, start=100.0):
    step = np.arange(steps + 1)
    values = start * np.asarray(factors)[:, None] ** (2 * step)
    return xr.Dataset(
        {"suboptimality": (("learning_rate", "step"), values)}, {"learning_rate": np.arange(1.0, len(factors) + 1), "step": step}
    )


def test_contraction_of_a_geometric_curve_is_its_factor():
    assert analysis.contraction(curves([0.5, 0.9, 0.99, 1.01])).values == pytest.approx([0.5, 0.9, 0.99, 1.01], rel=1e-12)


def test_contraction_reads_no_round_off():
    dataset = curves([0.7], steps=400)  # falls to 1e-124 and would be noise at 1e-30 in a real run
    noisy = dataset.assign(suboptimality=np.maximum(dataset.suboptimality, 1e-29))
    assert analysis.contraction(noisy).item() == pytest.approx(0.7, rel=1e-12)


def test_stability_edge_lies_between_the_neighbours_of_two_over_smoothness():
    problem = problems.designed_spectrum([0.1, 1.0])
    dataset = sweep(problem, num_steps=200, learning_rate=[1.0, 1.5, 1.98, 2.02, 3.0])
    assert float(analysis.stability_edge(dataset)) == pytest.approx(np.sqrt(1.98 * 2.02))


def test_stability_edge_is_absent_where_every_rate_converges():
    dataset = sweep(problems.designed_spectrum([0.1, 1.0]), num_steps=50, learning_rate=[0.5, 1.0])
    assert np.isnan(analysis.stability_edge(dataset))


def test_stability_edge_of_the_notebook_is_within_half_a_percent():
    edge = 0.029158630401484423  # N06
    rates = edge * np.unique([*np.geomspace(0.01, 10, 200), *np.linspace(0.97, 1.03, 25)])
    dataset = sweep(problems.notebook_line(), sampler="full", num_steps=400, learning_rate=rates)
    assert float(analysis.stability_edge(dataset)) == pytest.approx(edge, rel=0.005)


def test_steps_to_tolerance_is_the_first_that_is_low_enough():
    assert analysis.steps_to_tolerance(curves([0.5, 0.9, 1.1]), 1e-3).values == pytest.approx([5, 33, np.nan], nan_ok=True)


def test_noise_floor_is_the_mean_of_the_last_quarter():
    dataset = curves([0.5])
    level = xr.where(dataset.step >= 150, 2.0, 50.0)
    assert float(analysis.noise_floor(dataset.assign(suboptimality=level))) == 2.0


def test_diverged_says_which_runs_were_lost():
    dataset = sweep(problems.notebook_line(), sampler="full", num_steps=400, learning_rate=[0.01, 0.05])
    assert analysis.diverged(dataset).values.tolist() == [False, True]


def test_deviation_leaves_out_what_is_round_off_or_no_number():
    exact = np.array([[1.0, 0.1, 1e-20], [1.0, np.inf, np.inf]])
    measured = np.array([[1.0, 0.1 * (1 + 1e-9), 1e-18], [1.0, np.nan, np.inf]])
    assert analysis.deviation(measured, exact, "float64") == pytest.approx(1e-9, rel=1e-6)


def test_a_mean_over_seeds_is_not_finite_where_a_seed_is_not():
    samples = xr.DataArray([[1.0, np.inf, np.nan], [3.0, 1.0, 1.0]], dims=("seed", "step"))
    assert analysis.mean_over(samples, "seed").values == pytest.approx([2.0, np.inf, np.nan], nan_ok=True)


def test_standard_error_falls_with_the_root_of_the_sample():
    samples = xr.DataArray(np.random.default_rng(0).normal(size=10_000), dims="seed")
    assert float(analysis.standard_error(samples, "seed")) == pytest.approx(0.01, rel=0.05)  # the sample's own spread is 0.7 %


def test_ratio_of_paired_means_has_the_delta_method_s_error():
    rng = np.random.default_rng(0)
    common = rng.exponential(size=(2000, 500))
    top = xr.DataArray(3.0 * common + rng.exponential(size=common.shape), dims=("repeat", "sample"))
    value, error = analysis.ratio(top, xr.DataArray(common, dims=("repeat", "sample")), "sample")
    # 2,000 repeats tell a spread to 1 / sqrt(4,000) = 1.6 %: four of them, and the method's own 1 / 500
    np.testing.assert_allclose(error.mean(), (value.std() / value.mean()), rtol=0.065)
    np.testing.assert_allclose(value.mean(), 4.0, rtol=0.01)
