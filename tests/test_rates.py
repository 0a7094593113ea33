"""The fit of a rate, on curves whose rate is known: its interval holds the truth, and where there is none it says so."""

import numpy as np
import pytest
import xarray as xr

from gdjax import analysis, problems, theory
from gdjax.sweep import sweep

GAP = np.concatenate([[0.01], np.geomspace(0.1, 1.0, 63)])  # THEORY's: one mode at mu, the rest from 10 mu on
DENSE = np.geomspace(0.01, 1.0, 50)  # Q50, whose modes lie close to each other


def fit(values, step=None):
    values = np.atleast_2d(values)
    step = np.arange(values.shape[1]) if step is None else step
    return analysis.fit_rate(xr.DataArray(values, {"step": step}, ("curve", "step"), name="suboptimality"))


def modes_sum(curvatures, rate, num_steps):
    modes = theory.Modes(curvatures, np.ones_like(curvatures))
    return theory.gradient_descent(modes, rate, np.arange(num_steps + 1))[0]


def heavy_ball(curvatures, rate, momentum, num_steps):
    x = before = np.ones_like(curvatures)
    values = []
    for _ in range(num_steps + 1):
        values.append(0.5 * np.sum(curvatures * x**2))
        x, before = x - rate * curvatures * x + momentum * (x - before), x
    return np.array(values)


def inside(found, name, truth):
    return ((found[f"{name}_low"] <= truth) & (truth <= found[f"{name}_high"])).values


class TestLinear:
    """A factor a step."""

    @pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 2.0 / 1.01, 1.9, 1.95])
    def test_a_spectrum_with_a_gap_gives_its_slowest_mode(self, rate):
        found = fit(modes_sum(GAP, rate, 1500))
        truth = theory.contraction(rate, 1.0, 0.01)
        assert found.status.item() == "linear"
        assert inside(found, "contraction", truth).all()
        # THEORY's acceptance is 0.5 % of the slope
        np.testing.assert_allclose(np.log([found.contraction, found.contraction_low, found.contraction_high]), np.log(truth), rtol=5e-3)

    @pytest.mark.parametrize("num_steps", [100, 200, 400, 800, 1500])
    @pytest.mark.parametrize("rate", [0.5, 1.0, 2.0 / 1.01, 1.9])
    def test_a_dense_spectrum_has_an_interval_wide_enough_for_its_slowest_mode(self, rate, num_steps):
        found = fit(modes_sum(DENSE, rate, num_steps))
        if found.status.item() == "linear":  # else it says that it can't tell
            assert inside(found, "contraction", theory.contraction(rate, 1.0, 0.01)).all()

    def test_the_local_slope_of_a_dense_spectrum_would_be_wrong(self):
        values = modes_sum(DENSE, 1.0, 200)
        assert np.log(values[200] / values[100]) / 100 / (2 * np.log(0.99)) > 1.25  # 25 % off at t = 2 kappa, and not in doubt of it

    def test_tuned_heavy_ball_s_prefactor_is_modelled(self):
        root = 9.0 / 11.0
        values = heavy_ball(DENSE, 4.0 / 1.1**2, root**2, 400)
        found = fit(values)
        assert found.status.item() == "linear"
        assert inside(found, "contraction", root).all()
        assert found.prefactor.item() == pytest.approx(2.0, abs=0.1)
        first, last = int(found.first_step.item()), int(found.last_step.item())
        plain = np.polyfit(np.arange(first, last), np.log(values[first:last]), 1)[0]
        assert not np.log(found.contraction_low) <= plain / 2 <= np.log(found.contraction_high)
        assert np.log(found.contraction.item()) == pytest.approx(np.log(root), rel=2.5e-3)  # the plain slope is 10 % off here

    def test_oscillation_is_in_the_interval(self):
        for curvatures, momentum in ((DENSE, 0.9), (np.array([0.37]), 0.9), (GAP, 0.95)):
            found = fit(heavy_ball(curvatures, 1.0, momentum, 800))
            assert found.status.item() == "linear"
            assert inside(found, "contraction", np.sqrt(momentum)).all()

    def test_a_growing_run_diverges_by_its_fastest_mode(self):
        found = fit(np.stack([modes_sum(GAP, rate, 1500) for rate in (2.02, 3.0)]))
        assert found.status.values.tolist() == ["diverging"] * 2
        np.testing.assert_allclose(found.contraction, [1.02, 2.0], rtol=1e-6)

    def test_the_window_ends_above_round_off(self):
        values = np.maximum(modes_sum(GAP, 2.0 / 1.01, 3000), 1e-25)
        found = fit(values)
        assert values[int(found.last_step.item())] > 1e-12 * values[0]
        assert inside(found, "contraction", 0.99 / 1.01).all()

    def test_a_distance_shrinks_by_the_factor_itself(self):
        step = np.arange(301)
        curves = xr.DataArray(0.95**step, {"step": step}, name="distance")
        assert float(analysis.fit_rate(curves).contraction) == pytest.approx(0.95, rel=1e-9)


class TestSublinear:
    """A power of t."""

    @pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (1.5, 1.75), (1.0, 2.0), (2.0, 3.5)])
    @pytest.mark.parametrize("num_steps", [1000, 100_000])
    def test_power_law_spectra_have_their_exponents(self, a, b, num_steps):
        u = np.linspace(0.0, np.log(1e13), 8000)  # modes on a log grid, as E09's: a plain sum of 20,000 has the wrong exponent
        index, weight = np.exp(u), np.exp(u) * (u[1] - u[0])
        step = np.unique(np.concatenate([[0], np.geomspace(1, num_steps, 300).astype(int)]))
        values = [0.5 * np.sum(weight * index**-b * np.exp(2 * t * np.log1p(-0.5 * index**-a))) for t in step]
        found = fit(np.array(values), step)
        assert found.status.item() == "sublinear"
        assert inside(found, "exponent", (b - 1.0) / a).all()
        assert found.exponent.item() == pytest.approx((b - 1.0) / a, rel=0.02)  # E09

    def test_a_power_law_that_ends_in_an_exponential_is_not_called_one(self):
        values = modes_sum(np.arange(1, 101.0) ** -1.5, 0.5, 4000)  # the slowest mode is e^-4: half-way between
        assert fit(values).status.item() in ("undecided", "linear")

    def test_what_is_neither_is_undecided(self):
        step = np.arange(2001.0)
        assert fit(np.stack([np.exp(-np.sqrt(step)), 1.0 / np.log(2.0 + step)])).status.values.tolist() == ["undecided"] * 2


class TestNoRate:
    """Where there is none, a status says why."""

    @pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
    @pytest.mark.parametrize("memory", [0.0, 0.95])
    def test_noise_alone_is_refused(self, spread, memory):
        noise = spread * np.random.default_rng(0).normal(size=(300, 1001))
        for step in range(1, 1001):
            noise[:, step] += memory * noise[:, step - 1]
        status = fit(np.exp(noise)).status.values
        assert np.isin(status, ["no decay", "undecided"]).all()
        assert np.mean(status == "no decay") > 0.99

    def test_a_constant_is_no_decay(self):
        assert fit(np.full(200, 3.0)).status.item() == "no decay"

    @pytest.mark.parametrize("num_records", [1, 2, 5])
    def test_few_records_are_too_short(self, num_records):
        assert fit(0.5 ** np.arange(num_records)).status.item() == "too short"

    def test_what_falls_to_nothing_at_once_is_too_short(self):
        assert fit(np.concatenate([[1.0, 0.1], np.zeros(300)])).status.item() == "too short"
        assert fit(np.concatenate([[1.0], np.full(300, np.nan)])).status.item() == "too short"

    def test_constant_step_sgd_has_no_rate_on_its_floor(self, notebook):
        rate, length = 0.0049, 3000
        runs = {"sampler": "with_replacement", "num_steps": length, "batch_size": 4, "learning_rate": rate, "seed": range(64)}
        started = sweep(notebook, **runs)
        found = analysis.fit_rate(started.suboptimality.mean("seed"))
        floor = theory.noise_floor(notebook, rate, 4, sampler="with_replacement")
        assert found.floor.item() == pytest.approx(floor, rel=0.05)
        mean = theory.expected_suboptimality(notebook, rate, 4, length, sampler="with_replacement")[0]
        assert mean[int(found.last_step.item())] > 10 * floor  # the window ends before the floor
        there = sweep(notebook, start=notebook.minimizer, **runs)
        # at the minimizer a run begins below its floor and rises to it
        settled = there.suboptimality.isel(step=there.step >= 500)
        assert (analysis.fit_rate(settled).status == "no decay").mean() > 0.95
        assert not np.isfinite(analysis.fit_rate(settled).contraction).any()


class TestCoverage:
    """The intervals' measured coverage, at 95 %."""

    @pytest.mark.parametrize("spread", [0.01, 0.1, 0.5])
    @pytest.mark.parametrize("memory", [0.0, 0.95])
    def test_of_a_noisy_exponential(self, spread, memory):
        noise = spread * np.random.default_rng(1).normal(size=(400, 1001))
        for step in range(1, 1001):
            noise[:, step] += memory * noise[:, step - 1]
        found = fit(0.99 ** (2 * np.arange(1001)) * np.exp(noise))
        linear = found.status.values == "linear"
        assert linear.mean() > (0.95 if spread * 20**memory < 2 else 0.5)
        assert inside(found, "contraction", 0.99)[linear].mean() >= 0.95
        assert not np.isin(found.status, ["sublinear", "diverging"]).any()

    @pytest.mark.parametrize("spread", [0.01, 0.03, 0.1])
    def test_of_a_noisy_power_law_with_a_correction(self, spread):
        noise = spread * np.random.default_rng(2).normal(size=(400, 1001))
        found = fit((1.0 + np.arange(1001)) ** -1.0 * np.exp(noise))
        sublinear = found.status.values == "sublinear"
        assert sublinear.mean() > (0.99 if spread < 0.05 else 0.3)
        assert inside(found, "exponent", 1.0)[sublinear].mean() >= 0.95
        assert not np.isin(found.status, ["linear", "diverging"]).any()

    @pytest.mark.parametrize("spread", [0.1, 0.5])
    def test_above_a_floor(self, spread):
        noise = spread * np.random.default_rng(3).normal(size=(400, 1001))
        found = fit(0.98 ** (2 * np.arange(1001)) + 1e-5 * np.exp(noise))
        linear = found.status.values == "linear"
        assert linear.mean() > 0.95
        assert inside(found, "contraction", 0.98)[linear].mean() >= 0.95
        np.testing.assert_allclose(found.floor, 1e-5 * np.exp(0.5 * spread**2), rtol=0.2)

    def test_of_random_spectra(self):
        rng, num_steps = np.random.default_rng(4), 2000
        values, truth, parts = [], [], []
        for _ in range(200):
            curvatures = np.append(np.sort(np.exp(rng.uniform(np.log(0.005), 0.0, 19))), 1.0)
            modes, rate = theory.Modes(curvatures, rng.normal(size=20)), rng.uniform(0.3, 1.5)
            values.append(theory.gradient_descent(modes, rate, np.arange(num_steps + 1))[0])
            truth.append(theory.contraction(rate, 1.0, curvatures[0]))
            parts.append(theory.gradient_descent(theory.Modes(curvatures[:1], modes.start[:1]), rate, np.arange(num_steps + 1))[0])
        found = fit(np.array(values))
        linear, last = found.status.values == "linear", found.last_step.values.astype(int)
        share = (np.array(parts) / np.array(values))[np.arange(200), last]  # of the slowest mode at the window's end
        holds = inside(found, "contraction", np.array(truth))
        assert np.isin(found.status, ["linear", "undecided"]).all()
        assert linear.mean() > 0.9
        assert holds[linear & (share > 0.5)].mean() >= 0.95
        assert holds[linear & (share > 0.95)].all()
        assert holds[linear].mean() >= 0.8  # what has hardly begun to show can't be seen


def test_a_sweep_keeps_its_axes(notebook):
    ds = sweep(notebook, sampler="full", num_steps=400, seed=[0, 1], learning_rate=[0.005, 0.01, 0.05])
    found = analysis.fit_rate(ds)
    assert found.status.dims == ("seed", "learning_rate")
    assert found.learning_rate.values.tolist() == [0.005, 0.01, 0.05]
    assert found.status.isel(seed=0).values.tolist() == ["linear", "linear", "diverging"]
    truth = theory.contraction(ds.learning_rate, notebook.smoothness, notebook.strong_convexity)
    assert inside(found.isel(seed=0), "contraction", truth).all()
    for number in range(3):
        alone = analysis.fit_rate(ds.isel(seed=0, learning_rate=number))
        assert float(alone.contraction) == pytest.approx(float(found.contraction.isel(seed=0, learning_rate=number)), rel=1e-12)
    assert "Student" in found.attrs["interval"]


def test_a_wrong_model_would_be_found(monkeypatch):
    monkeypatch.setattr("gdjax.analysis.rates.EXPONENTIAL", [0, 1])  # without the prefactor
    found = fit(heavy_ball(DENSE, 4.0 / 1.1**2, (9.0 / 11.0) ** 2, 400))
    assert not inside(found, "contraction", 9.0 / 11.0).all()


def test_problems_of_a_designed_spectrum_are_fitted_through_the_engine():
    ds = sweep(problems.designed_spectrum(GAP), num_steps=1500, learning_rate=[1.0, 1.9])
    found = analysis.fit_rate(ds)
    assert inside(found, "contraction", np.array([0.99, 0.981])).all()
