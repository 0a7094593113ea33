"""What theory says of a sweep: from its coordinates and constants alone, and held against what was measured."""

import numpy as np
import pytest
import xarray as xr

import gdjax
from experiments import descend
from gdjax import analysis, facts, figures, predictions, problems, stopping, store, theory
from gdjax.predictions import full_gradients
from gdjax.records import InputError
from gdjax.sweep import sweep


def raw_columns():
    X = np.random.default_rng(1).normal(size=(60, 3)) * [1.0, 30.0, 0.2]
    return problems.least_squares(X, X @ [1.0, 0.1, -3.0] + np.random.default_rng(2).normal(size=60))


def logistic(ridge=0.05):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    return problems.logistic(X, X[:, 0] + rng.normal(size=80) > 0, ridge=ridge)


def kinds(ds, problem=None, **options):
    return [said.kind for said in predictions.predict(ds, problem, **options)]


def findings(ds, problem):
    return {finding.claim.split(":")[0].split(" (")[0]: finding for finding in descend.check(ds, problem)}


METHODS = {
    "sgd": {"method": "sgd"},
    "sgd with momentum": {"method": "sgd", "momentum": [0.3, 0.9]},
    "heavy_ball": {"method": "heavy_ball", "momentum": [0.3, 0.9]},
    "heavy_ball by default": {"method": "heavy_ball"},
    "nesterov": {"method": "nesterov", "momentum": [0.3, 0.9]},
    "nesterov_convex": {"method": "nesterov_convex"},
}


class TestExactCurves:
    """Full gradients on quadratics, by methods of constant numbers."""

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("y", ["suboptimality", "objective", "distance", "gradient_norm"])
    def test_are_what_is_measured(self, notebook, method, y):
        edge = theory.stability_edge(notebook.smoothness)
        ds = sweep(notebook, sampler="full", num_steps=300, learning_rate=np.array([0.1, 0.4, 0.9]) * edge, **METHODS[method])
        (said,) = predictions.predict(ds, y=y)
        assert said.kind == "equal"
        measured = ds[y].transpose(*said.values.dims)
        # where modes pass through zero together a curve dips, and its own rounding counts for more
        np.testing.assert_allclose(measured, said.values, rtol=1e-7, atol=1e-13 * float(ds[y].isel(step=0).max()))

    def test_of_raw_columns_and_of_a_designed_spectrum(self):
        for problem in (raw_columns(), problems.designed_spectrum([1.0, 0.1, 0.0], [1.0, 2.0, 3.0])):
            edge = theory.stability_edge(problem.smoothness)
            ds = sweep(problem, sampler="full", num_steps=100, learning_rate=[0.5 * edge, 1.1 * edge])
            (said,) = predictions.predict(ds)
            np.testing.assert_allclose(ds.suboptimality, said.values, rtol=1e-8)

    def test_begin_where_the_sweep_began(self, notebook):
        ds = sweep(notebook, sampler="full", num_steps=50, learning_rate=0.01, start=[3.0, -1.0])
        for problem in (None, notebook):
            (said,) = predictions.predict(ds, problem)
            np.testing.assert_allclose(ds.suboptimality, said.values, rtol=1e-10)

    def test_are_those_of_jobs_too(self, notebook):
        rates, momenta = (xr.DataArray(column, dims="job") for column in ([0.01, 0.02, 0.05], [0.0, 0.5, 0.9]))
        ds = sweep(notebook, method="heavy_ball", sampler="full", num_steps=100, learning_rate=rates, momentum=momenta)
        (said,) = predictions.predict(ds)
        assert said.values.dims == ("job", "step")
        np.testing.assert_allclose(ds.suboptimality, said.values, rtol=1e-8)

    def test_need_nothing_but_the_opened_results(self, notebook, tmp_path):
        ds = sweep(notebook, sampler="full", num_steps=50, learning_rate=[0.01, 0.02])
        store.save_sweep(tmp_path, ds)
        (said,), (before,) = predictions.predict(gdjax.open_results(tmp_path)), predictions.predict(ds)
        xr.testing.assert_identical(said.values, before.values)
        assert float(predictions.stability_edge(gdjax.open_results(tmp_path)).values) == pytest.approx(0.029158630401484423)  # N06

    def test_are_cut_into_parts_with_equal_results(self, notebook, monkeypatch):
        ds = sweep(notebook, sampler="full", num_steps=50, learning_rate=np.linspace(0.001, 0.05, 20))
        (whole,) = predictions.predict(ds)
        monkeypatch.setattr(full_gradients, "MOST_ENTRIES", 3 * 51 * 2)
        xr.testing.assert_identical(predictions.predict(ds)[0].values, whole.values)

    def test_a_batch_of_all_examples_is_the_full_gradient(self, notebook):
        ds = sweep(notebook, sampler="reshuffled", batch_size=80, num_steps=50, learning_rate=0.01)
        assert kinds(ds) == ["equal"]


class TestMiniBatches:
    """Constant-step SGD on least squares."""

    def test_mean_and_floor_need_the_examples(self, notebook):
        ds = sweep(notebook, sampler="with_replacement", num_steps=50, batch_size=[2, 8], learning_rate=[0.001, 0.01])
        assert kinds(ds) == []
        assert kinds(ds, notebook) == ["mean", "floor"]
        mean, floor = (said.values for said in predictions.predict(ds, notebook))
        assert set(mean.dims) == {"batch_size", "learning_rate", "step"}
        exact = theory.expected_suboptimality(notebook, [0.001, 0.01], 8, 50, sampler="with_replacement")
        np.testing.assert_allclose(mean.sel(batch_size=8), exact, rtol=1e-12)
        expected = theory.noise_floor(notebook, 0.01, 2, sampler="with_replacement")
        assert float(floor.sel(batch_size=2, learning_rate=0.01)) == pytest.approx(expected)
        edges = predictions.stability_edge(ds, notebook).values
        assert float(edges.sel(batch_size=2)) == pytest.approx(theory.mean_square_edge(notebook, 2, sampler="with_replacement"))

    def test_a_mean_stays_where_a_run_has_ended(self, notebook):
        ds = sweep(notebook, sampler="with_replacement", num_epochs=5, batch_size=[4, 16], learning_rate=0.005, seed=range(200))
        mean = predictions.predict(ds, notebook)[0].values.sel(batch_size=16)
        assert float(mean.sel(step=25)) == float(mean.isel(step=-1))
        own = ds.suboptimality.sel(batch_size=16).mean("seed")
        np.testing.assert_allclose(own.isel(step=-1), mean.isel(step=-1), rtol=0.3)

    def test_past_its_edge_there_is_no_floor(self, notebook):
        ds = sweep(notebook, sampler="with_replacement", num_steps=20, batch_size=1, learning_rate=[0.005, 0.028])
        floor = predictions.predict(ds, notebook)[1].values
        assert np.isnan(floor).values.tolist() == [False, True]

    def test_reshuffling_has_its_own_floor(self, notebook):
        ds = sweep(notebook, sampler="reshuffled", num_steps=20, batch_size=4, learning_rate=[0.002, 0.028])
        (said,) = predictions.predict(ds, notebook)
        assert float(said.values[0]) == pytest.approx(theory.reshuffled_noise(notebook, 0.002, 4))
        assert np.isnan(said.values[1])  # of first order only, it is not drawn near the limit
        assert predictions.stability_edge(ds, notebook) is None


class TestConvex:
    """Smooth convex problems that are no quadratics."""

    def test_logistic_has_a_bound_and_a_slope(self):
        problem = logistic()
        rate = 1.0 / float(problem.smoothness)
        ds = sweep(problem, sampler="full", num_steps=500, learning_rate=[0.2 * rate, rate, 1.9 * rate])
        bound, slope = predictions.predict(ds)
        distance = np.linalg.norm(problem.minimizer)
        assert float(bound.values[1, 10]) == pytest.approx(float(problem.smoothness) * distance**2 / 42.0)
        assert np.isnan(bound.values[2]).all()  # the bound is of rates up to 1/L
        factor = float((slope.values[0, 1] / slope.values[0, 0]) ** 0.5)
        assert factor == pytest.approx(1.0 - 0.2 * rate * float(problem.strong_convexity))
        assert all(finding.holds for finding in findings(ds, problem).values())
        assert len(findings(ds, problem)) == 3

    def test_without_a_minimizer_nothing_is_said_of_curves(self):
        ds = sweep(logistic(ridge=0.0), sampler="full", num_steps=20, learning_rate=0.1)
        assert kinds(ds) == []

    def test_nesterov_s_bound(self):
        problem = logistic()
        ds = sweep(problem, method="nesterov_convex", sampler="full", num_steps=50, learning_rate=[0.5 / float(problem.smoothness)])
        (said,) = predictions.predict(ds)
        assert (ds.suboptimality <= said.values).all()

    def test_a_strongly_convex_loss_of_the_user_s_has_an_envelope(self):
        problem = problems.from_loss(bowl, np.array([1.0, -1.0]), np.array(2.0), minimizer=np.array(0.0), minimum=0.5, smoothness=1.25, strong_convexity=1.0)  # fmt: skip # noqa: E501
        ds = sweep(problem, sampler="full", num_steps=20, learning_rate=[0.2, 0.8])
        assert kinds(ds) == ["at_most", "at_most"]
        for said in predictions.predict(ds):
            assert (ds.suboptimality <= said.values + 1e-15).all()

    def test_a_loss_that_is_not_convex_has_no_bound(self, notebook):
        X, y = (np.asarray(part) for part in notebook.data)
        for loss, expected in (("huber", ["at_most"]), ("student_t", [])):
            problem = problems.robust_regression(X[:, 1:], y, loss)
            assert kinds(sweep(problem, sampler="full", num_steps=5, learning_rate=0.001)) == expected


def bowl(params, example):
    """Between the parabolas of curvature 1 and 1.25."""
    import jax.numpy as jnp

    return 0.5 * (params - example) ** 2 + 0.125 * (params**2 - jnp.sin(params) ** 2) / 2.0


class TestNothing:
    """Where no theory applies, nothing is said."""

    @pytest.mark.parametrize(
        "options",
        [
            {"method": "adam", "sampler": "full"},
            {"method": "sgd", "momentum": 0.5, "nesterov": True, "sampler": "full"},
            {"method": "sgd", "momentum": 0.5, "sampler": "with_replacement"},
            {"method": "decaying_sgd", "sampler": "full"},
        ],
    )
    def test_of_other_methods(self, notebook, options):
        ds = sweep(notebook, num_steps=5, learning_rate=0.01, **options)
        assert kinds(ds, notebook) == []
        assert predictions.stability_edge(ds, notebook) is None

    def test_of_a_problem_built_inside(self):
        ds = sweep(lambda top: problems.designed_spectrum([0.1, 1.0]), num_steps=5, top=[1.0, 2.0], learning_rate=0.1)
        assert kinds(ds) == []

    def test_of_a_dataset_of_the_user_s_own(self):
        ds = xr.Dataset({"suboptimality": ("step", [1.0, 0.5])}, {"step": [0, 1]})
        assert kinds(ds) == []
        assert predictions.stability_edge(ds) is None


def test_a_prediction_sees_no_measurement(notebook):
    ds = sweep(notebook, sampler="with_replacement", num_steps=20, batch_size=4, learning_rate=[0.001, 0.01])
    blind = ds.map(lambda values: xr.full_like(values, np.nan, dtype=float), keep_attrs=True).assign_attrs(ds.attrs)
    for seen, unseen in zip(predictions.predict(ds, notebook), predictions.predict(blind, notebook), strict=True):
        xr.testing.assert_identical(seen.values, unseen.values)


def test_another_problem_is_refused(notebook, mistake):
    ds = sweep(notebook, sampler="with_replacement", num_steps=5, learning_rate=0.01)
    said = mistake(predictions.predict, ds, raw_columns())
    assert "problem=least_squares is not what the sweep was about: its num_examples is 60, the sweep's 80" in said
    with pytest.raises(InputError, match="its smoothness is"):
        figures.convergence(ds, theory=True, problem=problems.random_linear(num_examples=80))


def test_a_sweep_keeps_what_theory_asks_for(notebook):
    ds = sweep(notebook, sampler="full", num_steps=1, learning_rate=0.01)
    np.testing.assert_allclose(ds.attrs["hessian_eigenvalues"], np.linalg.eigvalsh(notebook.hessian), rtol=1e-12)
    assert np.sqrt(np.sum(np.square(ds.attrs["start_modes"]))) == pytest.approx(ds.attrs["start_distance"])
    assert ds.attrs["start_distance"] == pytest.approx(float(ds.distance[0]), rel=1e-12)
    wide = problems.designed_spectrum(np.linspace(0.1, 1.0, facts.MOST_MODES + 1))
    large = sweep(wide, num_steps=1, learning_rate=0.1)
    assert not {"hessian_eigenvalues", "start_modes", "start"} & set(large.attrs)
    assert kinds(large) == ["at_most", "at_most"]  # its constants still bound it
    assert kinds(large, wide) == ["equal"]


WRONG = {
    "largest relative deviation of any curve from the exact curve": ("gdjax.theory.gradient_descent", lambda f: lambda *a: 1.01 * f(*a)),
    "the exact mean": ("gdjax.theory.moments.batch_noise_factor", lambda f: lambda *a, **k: 2.0 * f(*a, **k)),
    "the noise floor": ("gdjax.theory.noise_floor", lambda f: lambda *a, **k: 2.0 * f(*a, **k)),
    "the reshuffled floor": ("gdjax.theory.reshuffled_noise", lambda f: lambda *a, **k: 2.0 * f(*a, **k)),
    "largest ratio of any curve to its bound": ("gdjax.theory.smooth_convex.huber_case", lambda f: lambda *a: 0.02 * f(*a)),
    "slope at x*": ("gdjax.theory.contraction", lambda f: lambda *a: f(*a) ** 1.2),
    "lowest rate at which a run diverges, in units of the stability edge 2/L": ("gdjax.theory.stability_edge", lambda f: lambda L: 4.0 / L),
}


@pytest.fixture(scope="module")
def right(notebook, convex):
    edge = theory.stability_edge(notebook.smoothness)
    sampled = {"batch_size": 4, "seed": range(64), "learning_rate": [0.002, 0.005]}
    return {
        "full": (sweep(notebook, sampler="full", num_steps=100, learning_rate=[0.5 * edge, 1.5 * edge]), notebook),
        "mean": (sweep(notebook, sampler="with_replacement", num_steps=4000, record_every=10, **sampled), notebook),
        "reshuffled": (sweep(notebook, sampler="reshuffled", num_steps=4000, record_every=10, **sampled), notebook),
        "convex": (sweep(convex, sampler="full", num_steps=500, learning_rate=[1.0 / float(convex.smoothness)]), convex),
    }


@pytest.fixture(scope="module")
def convex():
    return logistic()


CHECKED = {
    "largest relative deviation of any curve from the exact curve": "full",
    "the exact mean": "mean",
    "the noise floor": "mean",
    "the reshuffled floor": "reshuffled",
    "largest ratio of any curve to its bound": "convex",
    "slope at x*": "convex",
    "lowest rate at which a run diverges, in units of the stability edge 2/L": "full",
}


@pytest.mark.parametrize("claim", CHECKED)
def test_a_wrong_prediction_would_be_found(right, claim, monkeypatch):
    ds, problem = right[CHECKED[claim]]
    assert findings(ds, problem)[claim].holds
    where, spoil = WRONG[claim]
    module, name = where.rsplit(".", 1)
    import importlib

    monkeypatch.setattr(where, spoil(getattr(importlib.import_module(module), name)))
    assert not findings(ds, problem)[claim].holds


def test_a_run_is_judged_until_a_rule_stops_it(notebook):
    ds = sweep(notebook, sampler="full", num_steps=1500, learning_rate=[0.01, 0.028], stop="repaired")
    assert (ds.stopped_at >= 0).any()
    assert all(finding.holds for finding in findings(ds, notebook).values())
    falling = stopping.early_stopping(plateau=stopping.Plateau())
    assert kinds(sweep(notebook, sampler="full", num_steps=20, learning_rate=0.01, stop=falling)) == []


def stopped_at_record(ds, place):
    """The sweep as a rule would have left it that stops all runs at one record."""
    held = ds.suboptimality.isel(step=np.minimum(np.arange(ds.sizes["step"]), place)).assign_coords(step=ds.step)
    return ds.assign(suboptimality=held, stopped_at=xr.full_like(ds.diverged_at, int(ds.step[place])))


def test_where_a_rule_stops_runs_is_taken_for_no_level_and_no_rate(right):
    ds, problem = right["reshuffled"]
    assert "the reshuffled floor" in findings(ds, problem)
    assert "the reshuffled floor" not in findings(stopped_at_record(ds, 100), problem)
    ds, problem = right["convex"]
    said = findings(stopped_at_record(ds, 12), problem)
    assert said["slope at x*"].holds
    assert said["slope at x*"].measured == pytest.approx(findings(ds.isel(step=slice(13)), problem)["slope at x*"].measured)


def test_a_minimum_beside_a_lower_one_is_not_called_the_lowest():
    rng = np.random.default_rng(0)
    X = rng.normal(size=60)
    y = np.repeat([0.0, 8.0, 14.0], [25, 20, 15]) + 0.05 * rng.normal(size=60)  # Huber's estimate is near the second of three levels
    problem = problems.robust_regression(X, y, "bisquare", cutoff=1.0)
    ds = sweep(problem, sampler="full", num_steps=300, learning_rate=0.5 / float(problem.smoothness))
    assert float(ds.objective.min()) < float(problem.minimum)
    assert descend.check(ds, problem) == []


def test_few_seeds_are_not_judged(notebook):
    ds = sweep(notebook, sampler="with_replacement", num_steps=200, seed=range(4), learning_rate=0.005)
    assert [finding.kind for finding in descend.check(ds, notebook)] == ["at_least"]


def test_judges_know_every_kind():
    from typing import get_args

    assert set(analysis.JUDGES) == set(get_args(predictions.Kind)) == set(figures.sweeps.STROKES)


class TestOverlays:
    """Figures of it."""

    def dashes(self, axes):
        return [line for line in axes.get_lines() if line.get_linestyle() == "--"]

    def test_opened_results_have_theory_beside_them(self, notebook, tmp_path):
        ds = sweep(notebook, sampler="full", num_steps=50, learning_rate=[0.005, 0.01, 0.05])
        store.save_sweep(tmp_path, ds)
        (axes,) = figures.convergence(gdjax.open_results(tmp_path), theory=True).axes
        assert len(self.dashes(axes)) == 3
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0.005", "0.01", "0.05 (past the edge)", "exact curve"]

    def test_many_curves_have_a_few_predictions_and_the_edge_on_the_scale(self, notebook):
        ds = sweep(notebook, sampler="full", num_steps=50, learning_rate=np.geomspace(0.001, 0.1, 30))
        drawn = figures.convergence(ds, theory=True)
        axes, bar = drawn.axes
        assert len(self.dashes(axes)) == figures.sweeps.MOST_PREDICTED
        marks = {round(float(line.get_ydata()[0]), 9) for line in bar.get_lines() if len(line.get_ydata()) == 2}
        assert round(0.029158630401484423, 9) in marks
        assert "2/L = 0.02916" in drawn.get_supxlabel()

    def test_panels_have_their_own(self, notebook):
        ds = sweep(notebook, sampler="with_replacement", num_steps=50, batch_size=[1, 16], seed=range(5), learning_rate=[0.002, 0.01])
        drawn = figures.convergence(ds, theory=True, problem=notebook)
        assert [axes.get_title() for axes in drawn.axes] == ["batch size 1, edge 0.0163", "batch size 16, edge 0.0278"]
        assert "Mean of 5 seeds" in drawn.get_supxlabel()
        for axes, batch in zip(drawn.axes, (1, 16), strict=True):
            exact = theory.expected_suboptimality(notebook, [0.002], batch, 50, sampler="with_replacement")[0, -1]
            assert min(abs(line.get_ydata()[-1] / exact - 1.0) for line in self.dashes(axes)) < 1e-9

    def test_nothing_is_drawn_where_nothing_is_known(self, notebook):
        ds = sweep(notebook, method="adam", num_steps=20, learning_rate=[0.01, 0.1])
        (axes,) = figures.convergence(ds, theory=True, problem=notebook).axes
        assert self.dashes(axes) == []
        assert "edge" not in figures.convergence(ds, theory=True, problem=notebook).get_supxlabel()

    def test_runs_of_fewer_steps_end_where_they_end(self, notebook):
        ds = sweep(notebook, sampler="reshuffled", num_epochs=4, batch_size=[8, 40], learning_rate=[0.001, 0.002])
        first, second = figures.convergence(ds).axes
        assert max(line.get_xdata()[-1] for line in first.get_lines()) == 40
        assert max(line.get_xdata()[-1] for line in second.get_lines()) == 8

    def test_what_falls_early_has_a_log_axis(self):
        slow, straight = 1.0 / (1.0 + np.arange(1001.0)), 0.99 ** np.arange(1001.0)
        for values, scale in ((slow, "log"), (straight, "linear")):
            ds = xr.Dataset({"suboptimality": ("step", values)}, {"step": np.arange(1001)})
            assert figures.convergence(ds).axes[0].get_xscale() == scale
            assert figures.convergence(ds, xscale="linear").axes[0].get_xscale() == "linear"

    def test_where_all_diverge_the_panel_ends_with_them(self, notebook):
        ds = sweep(notebook, sampler="full", num_steps=400, learning_rate=[0.1, 0.2])
        (axes,) = figures.convergence(ds, theory=True).axes
        assert axes.get_xlim()[1] < 20
