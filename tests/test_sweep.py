"""The contract of `gdjax.sweep`: the reference's numbers, labelled; each run as if it were alone; one program a shape; clear refusals."""

from __future__ import annotations

import collections
import inspect
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import gdjax
from gdjax import problems, program, samplers
from gdjax.sweep import check, record_steps
from tests import reference
from tests.conftest import random_data

NEAR_EXACT = 1e-9  # the reference's own tolerance
ROUNDING = {"rtol": 1e-12, "atol": 1e-14}  # sums in another order: 1e-16 a step of each number, and of parameters of size 3
MEASURED = ("objective", "suboptimality", "gradient_norm", "distance")


def notebook_draw(rng, num_steps, num_examples, batch_size):
    """The notebook's own mini-batches, with the generator that it uses."""
    return np.stack([rng.choice(num_examples, batch_size, replace=False) for _ in range(num_steps)])


def shrinking(rng, num_steps, num_examples, batch_size):
    """Batches of B, B, B - 1, B - 1, B - 2 and so on examples, down to one: full in a first epoch of one batch, then short."""
    table = rng.integers(0, num_examples, (num_steps, batch_size))
    table[np.arange(batch_size) >= np.maximum(1, batch_size - np.arange(num_steps) // 2)[:, None]] = samplers.ABSENT
    return table


def sgd_by_hand(problem, table, rate, start=None):
    """x_0, x_1, .. of stochastic gradient descent on least squares, batches sliced in NumPy."""
    features, target = problem.data
    params = [np.zeros(features.shape[1]) if start is None else np.asarray(start, float)]
    for row in table:
        present = row[row != samplers.ABSENT]
        residual = features[present] @ params[-1] - target[present]
        params.append(params[-1] - rate * 2.0 * features[present].T @ residual / len(present))
    return np.array(params)


def measured_by_hand(problem, params):
    """What is recorded, of the full objective of least squares, from the definition."""
    features, target = problem.data
    residual = params @ features.T - target
    objective = np.mean(residual**2, axis=1)
    gradient = 2.0 * residual @ features / len(target)
    return {
        "objective": objective,
        "suboptimality": objective - problem.minimum,
        "gradient_norm": np.linalg.norm(gradient, axis=1),
        "distance": np.linalg.norm(params - problem.minimizer, axis=1),
    }


def agree(ds, other, **tolerance):
    for name in (*MEASURED, "params"):
        np.testing.assert_allclose(ds[name], other[name], **(tolerance or ROUNDING))
    np.testing.assert_array_equal(ds.diverged_at, other.diverged_at)


@pytest.mark.parametrize("hessian", [None, False], ids=["hessian", "examples"])
class TestNotebook:
    """N10, N11, N15 to N20 hold whichever way the full gradient is taken."""

    def test_full_batch_objective_is_the_reference(self, hessian):
        rates = list(reference.NOTEBOOK_OBJECTIVE_AFTER)
        ds = gdjax.sweep(problems.notebook_line(hessian=hessian), sampler="full", num_steps=1000, record_every=1, learning_rate=rates)
        np.testing.assert_allclose(ds.objective[:, 0], reference.NOTEBOOK_OBJECTIVE_AT_ZERO, rtol=NEAR_EXACT)
        for rate, values in reference.NOTEBOOK_OBJECTIVE_AFTER.items():
            got = ds.objective.sel(learning_rate=rate, step=list(values))
            np.testing.assert_allclose(got, list(values.values()), rtol=NEAR_EXACT)

    def test_full_batch_params_are_the_reference(self, hessian):
        ds = gdjax.sweep(problems.notebook_line(hessian=hessian), sampler="full", num_steps=400, learning_rate=0.01)
        np.testing.assert_allclose(ds.params, reference.NOTEBOOK_PARAMS_AFTER_400, rtol=NEAR_EXACT)

    def test_a_diverging_run_is_the_reference(self, hessian):
        """N12, but for where the loss overflows, which depends on the order of sum and division."""
        ds = gdjax.sweep(problems.notebook_line(hessian=hessian), sampler="full", num_steps=400, record_every=1, learning_rate=0.05)
        np.testing.assert_allclose(ds.params, reference.DIVERGED_PARAMS_AFTER_400, rtol=NEAR_EXACT)
        np.testing.assert_allclose(ds.objective[1], reference.DIVERGED_OBJECTIVE_AFTER_1, rtol=NEAR_EXACT)
        theta = ds.params.values.ravel() / 1e154  # J itself is more than float64 can hold; J* and y are nothing beside it
        gram = 0.5 * np.asarray(problems.notebook_line().hessian)
        assert 308.0 + np.log10(theta @ gram @ theta) == pytest.approx(reference.DIVERGED_LOG10_AFTER_400, rel=NEAR_EXACT)

    def test_divergence_grows_by_the_reference_s_factor(self, hessian):
        rates = list(reference.GROWTH)
        ds = gdjax.sweep(problems.notebook_line(hessian=hessian), sampler="full", num_steps=60, record_every=1, learning_rate=rates)
        growth = (ds.distance[:, -1] / ds.distance[:, -2]).values
        # the slow mode is (1 / 2.43)^120 of the fast one; a ratio of two numbers that are exact to 60 roundings
        np.testing.assert_allclose(growth, list(reference.GROWTH.values()), rtol=1e-10)

    def test_early_stopping_leaves_the_reference_s_excess(self, hessian):
        rates = list(reference.EARLY_STOP)
        ds = gdjax.sweep(problems.notebook_line(hessian=hessian), sampler="full", num_steps=7200, record_every=1, learning_rate=rates)
        for rate, (stop, excess) in reference.EARLY_STOP.items():
            run = ds.sel(learning_rate=rate)
            slow = (-np.diff(run.objective.values[1:]) < 1e-6).astype(int)  # between losses after updates, as the notebook keeps them
            ten = np.flatnonzero(np.convolve(slow, np.ones(10, int), "valid") == 10)[0]
            assert ten + 11 == stop  # the first of the ten compares updates `ten` + 1 and + 2
            np.testing.assert_allclose(run.suboptimality.sel(step=stop), excess, rtol=1e-6)  # the reference's own, of 12 printed digits

    def test_a_replay_of_numpy_s_index_stream_is_the_reference(self, hessian):
        """N18 to N20, through a sampler of the user's own."""
        first = notebook_draw(np.random.default_rng(42), 1, 80, 16)[0]
        np.testing.assert_array_equal(first, reference.MINIBATCH_FIRST_INDICES)
        rates = list(reference.MINIBATCH_PARAMS_AFTER_400)
        ds = gdjax.sweep(
            problems.notebook_line(hessian=hessian),
            sampler=notebook_draw,
            num_steps=400,
            record_every=1,
            learning_rate=rates,
            seed=42,
            batch_size=16,
        )
        np.testing.assert_allclose(ds.params, list(reference.MINIBATCH_PARAMS_AFTER_400.values()), rtol=NEAR_EXACT)
        for rate, values in reference.MINIBATCH_OBJECTIVE_AFTER.items():
            got = ds.objective.sel(learning_rate=rate, step=list(values))
            np.testing.assert_allclose(got, list(values.values()), rtol=NEAR_EXACT)


class TestOverflow:
    """N12 to N14: over the examples, squares are summed and X'r is formed before the division by n."""

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_the_loss_overflows_where_the_reference_s_does(self, plain_notebook, precision):
        first = reference.FIRST_NONFINITE_LOSS[precision]
        ds = gdjax.sweep(plain_notebook, sampler="full", num_steps=400, record_every=1, learning_rate=list(first), precision=precision)
        assert ds.objective.dtype == precision
        assert (~np.isfinite(ds.objective)).argmax("step").values.tolist() == list(first.values())

    def test_the_notebook_s_run_has_six_losses_that_are_not_finite(self, plain_notebook):
        ds = gdjax.sweep(plain_notebook, sampler="full", num_steps=400, record_every=1, learning_rate=0.05)
        assert int((~np.isfinite(ds.objective)).sum()) == reference.DIVERGED_NONFINITE

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    @pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
    def test_the_parameters_overflow_where_the_reference_s_do(self, plain_notebook, precision, rate):
        first = reference.FIRST_NONFINITE_PARAMS[precision][rate]
        finite = [
            bool(
                np.isfinite(
                    gdjax.sweep(
                        plain_notebook, sampler="full", num_steps=steps, record_every=1000, learning_rate=rate, precision=precision
                    ).params
                ).all()
            )
            for steps in (first - 2, first + 1)
        ]
        assert finite == [True, False]  # the reference's own margin: one update to either side


class TestDataset:
    """What comes back, and how it is labelled."""

    def test_dims_are_the_swept_axes_in_keyword_order_then_step(self, small):
        ds = gdjax.sweep(
            small, seed=[0, 1], momentum=[0.0, 0.5, 0.9], batch_size=[5, 8], learning_rate=[0.01, 0.02, 0.03, 0.04], num_steps=6
        )
        assert ds.objective.dims == ("seed", "momentum", "batch_size", "learning_rate", "step")
        assert ds.objective.shape == (2, 3, 2, 4, 7)
        assert ds.params.dims == ("seed", "momentum", "batch_size", "learning_rate", "parameter")
        assert ds.diverged_at.dims == ("seed", "momentum", "batch_size", "learning_rate")
        assert set(ds.data_vars) == {*MEASURED, "diverged_at", "params"}
        assert all(ds[name].dims == ds.objective.dims for name in MEASURED)
        assert ds.parameter.values.tolist() == ["b", "w1", "w2", "w3"]
        assert ds.step.values.tolist() == [0, 1, 2, 3, 4, 5, 6]

    def test_a_scalar_is_a_coordinate_and_a_sequence_of_one_a_dim(self, small):
        ds = gdjax.sweep(small, num_steps=2, learning_rate=0.1, momentum=[0.5], batch_size=8, seed=np.array([4]))
        assert ds.objective.dims == ("momentum", "seed", "step")
        assert ds.learning_rate.dims == ds.batch_size.dims == ()
        assert (float(ds.learning_rate), int(ds.batch_size), ds.seed.values.tolist()) == (0.1, 8, [4])

    def test_defaults_are_batches_of_32_and_seed_0(self, small, notebook):
        ds = gdjax.sweep(notebook, num_steps=2, learning_rate=0.01)
        assert (int(ds.batch_size), int(ds.seed), ds.attrs["sampler"], ds.attrs["method"]) == (32, 0, "reshuffled", "sgd")
        assert int(gdjax.sweep(small, num_steps=2, learning_rate=0.01).batch_size) == 20  # n, if smaller

    def test_step_0_is_the_start(self, small):
        start = np.array([1.0, -2.0, 0.5, 3.0])
        for settings in ({"sampler": "full"}, {"batch_size": 8}):
            ds = gdjax.sweep(small, start=start, num_steps=3, record_every=1, learning_rate=[0.1, 0.2], method="nesterov", **settings)
            for name, value in measured_by_hand(small, start[None]).items():
                np.testing.assert_allclose(ds[name][:, 0], value[0], rtol=1e-12)  # a sum of 20 terms
            assert ds.step.values.tolist() == [0, 1, 2, 3]

    def test_the_problem_s_own_start_is_the_default(self):
        problem = problems.designed_spectrum([1.0, 2.0], start=[3.0, -1.0])
        ds = gdjax.sweep(problem, num_steps=1, learning_rate=0.0)
        assert ds.objective.values.tolist() == [5.5, 5.5]
        assert ds.params.values.tolist() == [3.0, -1.0]

    def test_what_is_recorded_is_of_the_full_objective(self, small):
        ds = gdjax.sweep(small, num_steps=12, record_every=1, batch_size=8, seed=3, learning_rate=0.1)
        path = sgd_by_hand(small, samplers.reshuffled(samplers.generator(3), 12, 20, 8), 0.1)
        for name, values in measured_by_hand(small, path).items():
            np.testing.assert_allclose(ds[name], values, **ROUNDING)
        np.testing.assert_allclose(ds.params, path[-1], **ROUNDING)

    def test_what_is_not_known_is_nan(self):
        problem = problems.logistic(random_data(20, 2)[0], np.arange(20) % 2)
        ds = gdjax.sweep(problem, sampler="full", num_steps=3, learning_rate=0.1)
        assert np.isnan(ds.distance).all()
        assert np.isnan(ds.suboptimality).all()
        assert np.isfinite(ds.objective).all()

    @pytest.mark.parametrize("record_every", [1, 4, None])
    @pytest.mark.parametrize("settings", [{"sampler": "full"}, {"batch_size": 8}], ids=["full", "batches"])
    def test_diverged_at_is_the_first_record_above_the_bound(self, notebook, record_every, settings):
        rates = [0.01, 0.029, 0.04, 0.1, 1.0]
        ds = gdjax.sweep(notebook, num_steps=400, record_every=record_every, learning_rate=rates, **settings)
        objective = ds.objective.values
        above = ~(objective <= ds.attrs["divergence_bound"] * objective[:, :1])
        wanted = [int(ds.step[row.argmax()]) if row.any() else -1 for row in above]
        assert ds.diverged_at.values.tolist() == wanted
        assert sorted(set(wanted)) != [-1]
        assert wanted[0] == -1
        assert not np.isfinite(objective[-1, -1])  # divergence is a value: inf and NaN stay

    def test_a_run_that_is_nan_at_its_first_record_has_diverged(self, notebook):
        ds = gdjax.sweep(notebook, sampler="full", num_steps=1000, record_every=1000, learning_rate=[0.01, 0.5])
        assert np.isnan(ds.objective[1, -1])
        assert ds.diverged_at.values.tolist() == [-1, 1000]

    def test_epoch_is_the_examples_seen_over_n(self, small):
        ds = gdjax.sweep(small, num_steps=7, record_every=1, batch_size=[8, 5], learning_rate=0.1)
        seen = [[0, 8, 16, 20, 28, 36, 40, 48], [0, 5, 10, 15, 20, 25, 30, 35]]
        np.testing.assert_array_equal(ds.epoch.transpose("batch_size", "step"), np.array(seen) / 20)
        ds = gdjax.sweep(small, sampler="full", num_steps=7, record_every=2, batch_size=[8, 5], learning_rate=0.1)
        np.testing.assert_array_equal(ds.epoch, ds.step)
        ds = gdjax.sweep(small, sampler="with_replacement", num_steps=7, record_every=2, batch_size=8, learning_rate=0.1)
        np.testing.assert_array_equal(ds.epoch, np.array([0, 16, 32, 48, 56]) / 20)

    def test_full_ignores_batch_size_and_seed_but_keeps_their_dims(self, small):
        ds = gdjax.sweep(small, sampler="full", num_steps=5, batch_size=[3, 8], learning_rate=[0.1, 0.2], seed=[0, 1, 2])
        alone = gdjax.sweep(small, sampler="full", num_steps=5, learning_rate=[0.1, 0.2])
        assert ds.objective.dims == ("batch_size", "learning_rate", "seed", "step")
        assert ds.params.dims == ("batch_size", "learning_rate", "seed", "parameter")
        for name in ds.data_vars:
            same = np.broadcast_to(alone[name].values[None, :, None], ds[name].shape)
            np.testing.assert_array_equal(ds[name], same)

    def test_a_problem_that_is_no_mean_takes_full_gradients_whatever_the_sampler(self):
        problem = problems.designed_spectrum([1.0, 0.5])
        for sampler in ("full", "reshuffled", "with_replacement"):
            ds = gdjax.sweep(problem, sampler=sampler, num_steps=3, record_every=1, learning_rate=0.5, seed=[0, 1], batch_size=1)
            np.testing.assert_allclose(ds.objective[1], [0.75, 0.125 + 0.140625, 0.03125 + 0.25 * 0.31640625, ds.objective[0, -1]])
            assert ds.attrs["sampler"] == "full"

    def test_attributes_say_how_to_repeat_it(self, notebook):
        ds = gdjax.sweep(notebook, num_epochs=3, record_every=5, learning_rate=0.01, momentum=0.9, nesterov=True, precision="float32")
        wanted = {
            "problem": "notebook_line",
            "num_examples": 80,
            "method": "sgd",
            "nesterov": True,
            "sampler": "reshuffled",
            "num_epochs": 3,
            "record_every": 5,
            "precision": "float32",
            "divergence_bound": 1e6,
        }
        assert {name: ds.attrs[name] for name in wanted} == wanted
        assert "num_steps" not in ds.attrs
        assert ds.attrs["smoothness"] == pytest.approx(2 * reference.NOTEBOOK_GRAM_EIGENVALUES[1], rel=1e-10)
        assert ds.attrs["minimum"] == pytest.approx(reference.NOTEBOOK_MINIMUM, rel=1e-10)

    def test_parameters_of_a_pytree_are_named_by_their_place(self):
        def loss(params, example):
            return jnp.sum((params["w"] - example) ** 2) + params["b"] ** 2

        problem = problems.from_loss(loss, np.ones((4, 2)), {"w": np.zeros(2), "b": 1.0})
        ds = gdjax.sweep(problem, sampler="full", num_steps=1, learning_rate=0.25)
        assert ds.params.sizes == {"parameter": 3}
        values = dict(zip(ds.parameter.values.tolist(), ds.params.values.tolist(), strict=True))
        assert values == {"['b']": 0.5, "['w'][0]": 0.5, "['w'][1]": 0.5}

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    @pytest.mark.parametrize("enabled", [True, False])
    def test_precision_is_the_asked_one_whatever_the_process_has_set(self, notebook, precision, enabled):
        with jax.enable_x64(enabled):
            ds = gdjax.sweep(notebook, sampler="full", num_steps=100, learning_rate=0.01, precision=precision)
            assert jnp.zeros(()).dtype == ("float64" if enabled else "float32")  # and that is left alone
        assert all(ds[name].dtype == precision for name in (*MEASURED, "params"))
        rtol = 1e-9 if precision == "float64" else 1e-4  # 100 steps of 6e-8 in float32
        np.testing.assert_allclose(ds.objective[-1], reference.NOTEBOOK_OBJECTIVE_AFTER[0.01][100], rtol=rtol)

    @pytest.mark.parametrize("batch_size", [16, 32])
    def test_float32_numbers_do_not_depend_on_the_process_s_setting(self, notebook, batch_size):
        def run():  # in a process of its own setting, the program is made anew: another name is another program
            problem = replace(notebook, name=f"x64 is {jax.config.jax_enable_x64}")
            return gdjax.sweep(problem, num_steps=30, batch_size=batch_size, learning_rate=[0.01, 0.02], precision="float32")

        with jax.enable_x64(False):
            without = run()
        with jax.enable_x64(True):
            within = run()
        for name in (*MEASURED, "params"):
            np.testing.assert_array_equal(without[name], within[name])  # the same program, bit for bit


class TestLengths:
    def test_num_epochs_are_the_steps_that_see_them(self, small):
        ds = gdjax.sweep(small, num_epochs=2, record_every=1, batch_size=8, learning_rate=0.1)
        assert ds.step.values.tolist() == [0, 1, 2, 3, 4, 5, 6]
        assert ds.epoch.values.tolist() == [0.0, 0.4, 0.8, 1.0, 1.4, 1.8, 2.0]
        full = gdjax.sweep(small, sampler="full", num_epochs=2, learning_rate=0.1)
        assert full.step.values.tolist() == [0, 1, 2]

    def test_a_run_of_fewer_steps_keeps_its_last_values(self, small):
        settings = {"num_epochs": 2, "record_every": 1, "learning_rate": [0.1, 0.2]}
        ds = gdjax.sweep(small, batch_size=[5, 8, 20], **settings)
        assert ds.step.values.tolist() == list(range(9))  # 2 epochs are 8 steps of 5
        for batch_size, num_steps in ((5, 8), (8, 6), (20, 2)):
            here = ds.sel(batch_size=batch_size)
            alone = gdjax.sweep(small, batch_size=batch_size, **settings)
            assert alone.sizes["step"] == num_steps + 1
            for name in MEASURED:
                np.testing.assert_allclose(here[name][:, : num_steps + 1], alone[name], **ROUNDING)
                np.testing.assert_array_equal(
                    here[name][:, num_steps:], np.repeat(here[name].values[:, [num_steps]], 9 - num_steps, axis=1)
                )
            np.testing.assert_allclose(here.params, alone.params, **ROUNDING)
            np.testing.assert_array_equal(here.epoch[num_steps:], np.full(9 - num_steps, 2.0))

    @pytest.mark.parametrize("settings", [{"sampler": "full"}, {"batch_size": 8}], ids=["full", "batches"])
    @pytest.mark.parametrize("record_every", [7, 1000])
    def test_any_record_every_gives_the_same_points(self, small, settings, record_every):
        settings = settings | {"num_steps": 30, "learning_rate": [0.05, 0.2], "method": "adam"}
        every = gdjax.sweep(small, record_every=1, **settings)
        some = gdjax.sweep(small, record_every=record_every, **settings)
        steps = [*range(0, 30, record_every), 30]
        assert some.step.values.tolist() == steps
        agree(some, every.sel(step=steps))

    @pytest.mark.parametrize("num_steps", [10, 1000, 2501])
    def test_by_default_a_run_keeps_at_most_about_a_thousand_records(self, notebook, num_steps):
        ds = gdjax.sweep(notebook, sampler="full", num_steps=num_steps, learning_rate=0.01)
        assert min(num_steps, 250) < ds.sizes["step"] <= 1001
        assert (int(ds.step[0]), int(ds.step[-1])) == (0, num_steps)
        assert len(set(np.diff(ds.step)[:-1].tolist())) == 1  # evenly spaced, but for the last

    def test_records_of_more_lengths_than_records_hold_every_length(self):
        lengths = range(1, 2000, 2)  # of as many batch sizes
        steps = record_steps(lengths, None)
        assert set(lengths) <= set(steps.tolist())
        assert (np.diff(steps) > 0).all()


class TestBuilder:
    """A problem as a function of numbers."""

    def test_its_numbers_are_axes(self):
        def build(condition_number, tilt=1.0):
            return problems.designed_spectrum(jnp.stack([1.0 / condition_number, jnp.ones_like(condition_number)]), jnp.stack([tilt, 1.0]))

        kappas, rates, steps = np.array([2.0, 10.0, 100.0]), np.array([0.5, 1.0]), np.arange(21)
        ds = gdjax.sweep(build, num_steps=20, record_every=1, learning_rate=rates, condition_number=kappas, tilt=2.0)
        assert ds.objective.dims == ("learning_rate", "condition_number", "step")
        assert float(ds.tilt) == 2.0
        slow = (4.0 / kappas)[:, None] * (1 - rates[:, None, None] / kappas[:, None]) ** (2 * steps)
        fast = (1 - rates[:, None, None]) ** (2 * steps)
        np.testing.assert_allclose(ds.objective, 0.5 * (slow + fast), rtol=1e-12)  # 20 factors, each rounded
        np.testing.assert_allclose(ds.suboptimality, ds.objective, rtol=1e-15)  # the minimum is 0

    def test_data_may_be_built_from_a_number(self):
        X, _ = random_data(20, 2)
        weights, noise = np.array([1.0, -2.0]), np.random.default_rng(1).normal(size=20)

        def build(sigma):
            return problems.least_squares(X, X @ weights + sigma * noise)

        ds = gdjax.sweep(build, num_steps=15, sigma=[0.0, 0.5, 2.0], batch_size=8, seed=[0, 1], learning_rate=[0.05, 0.1])
        assert ds.objective.dims == ("sigma", "seed", "learning_rate", "step")
        for sigma in (0.0, 0.5, 2.0):
            # built in XLA instead of NumPy: another QR, so the minimizer differs by round-off
            alone = gdjax.sweep(build(sigma), num_steps=15, batch_size=8, seed=[0, 1], learning_rate=[0.05, 0.1])
            agree(ds.sel(sigma=sigma), alone, rtol=1e-10, atol=1e-12)

    def test_one_value_of_its_numbers_is_the_problem_built_by_hand(self):
        ds = gdjax.sweep(lambda kappa: problems.designed_spectrum(jnp.stack([1.0, kappa])), kappa=3.0, num_steps=4, learning_rate=0.2)
        alone = gdjax.sweep(problems.designed_spectrum([1.0, 3.0]), num_steps=4, learning_rate=0.2)
        assert ds.objective.dims == ("step",)
        agree(ds, alone)


class TestEquivalences:
    @pytest.mark.parametrize("sampler", ["full", "reshuffled", "without_replacement"])
    def test_swept_is_looped(self, small, sampler):
        settings = {"method": "heavy_ball", "sampler": sampler, "num_steps": 25, "record_every": 4}
        axes = {"learning_rate": [0.01, 0.1, 0.3], "momentum": [0.0, 0.8], "batch_size": [5, 8], "seed": [0, 7]}
        ds = gdjax.sweep(small, **settings, **axes)
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            agree(ds.sel(point), gdjax.sweep(small, **settings, **point))

    def test_a_run_does_not_depend_on_its_neighbours(self, notebook):
        settings = {"num_steps": 300, "record_every": 20, "batch_size": 16, "seed": 1}
        alone = gdjax.sweep(notebook, learning_rate=[0.002, 0.01], **settings)
        # beside runs that overflow, in float64's whole range
        crowd = gdjax.sweep(notebook, learning_rate=[10.0, 0.002, 0.3, 0.01, 1e150], **settings)
        assert not np.isfinite(crowd.objective.sel(learning_rate=[10.0, 1e150], step=300)).any()
        agree(crowd.sel(learning_rate=[0.002, 0.01]), alone)

    @pytest.mark.parametrize("sampler", ["reshuffled", "without_replacement", "with_replacement"])
    def test_examples_depend_on_seed_step_and_batch_size_only(self, small, sampler):
        settings = {"sampler": sampler, "record_every": 1, "learning_rate": [0.1, 0.2]}
        ds = gdjax.sweep(small, num_steps=20, batch_size=8, seed=5, **settings)
        longer = gdjax.sweep(small, num_steps=33, batch_size=8, seed=5, **settings)
        among = gdjax.sweep(small, num_steps=20, batch_size=[20, 8, 3], seed=[9, 5, 0], **settings).sel(batch_size=8, seed=5)
        for name in MEASURED:
            np.testing.assert_allclose(longer[name][:, :21], ds[name], **ROUNDING)
        agree(among, ds)
        other = gdjax.sweep(small, num_steps=20, batch_size=8, seed=6, **settings)
        assert (other.objective[:, 1:] != ds.objective[:, 1:]).all()

    @pytest.mark.parametrize("sampler", [samplers.reshuffled, samplers.without_replacement, samplers.with_replacement, shrinking])
    @pytest.mark.parametrize("batch_size", [8, 20])
    def test_runs_are_numpy_s_on_the_sampler_s_table(self, small, sampler, batch_size):
        """A batch of 8 leaves a short last one of 4; `shrinking` has short ones of any size."""
        ds = gdjax.sweep(small, sampler=sampler, num_steps=23, record_every=1, batch_size=batch_size, seed=2, learning_rate=[0.01, 0.1])
        table = sampler(samplers.generator(2), 23, 20, batch_size)
        for rate in (0.01, 0.1):
            path = sgd_by_hand(small, table, rate)
            for name, values in measured_by_hand(small, path).items():
                np.testing.assert_allclose(ds[name].sel(learning_rate=rate), values, **ROUNDING)
            np.testing.assert_allclose(ds.params.sel(learning_rate=rate), path[-1], **ROUNDING)

    @pytest.mark.parametrize(("method", "settings"), [("sgd", {"sampler": "full"}), ("nesterov", {"batch_size": 16})])
    def test_the_hessian_and_the_examples_give_the_same_runs(self, notebook, plain_notebook, method, settings):
        settings = settings | {"method": method, "num_steps": 100, "learning_rate": [0.001, 0.01]}
        # suboptimality by subtraction is exact to 1e-16 of an objective of up to 147; 100 steps of round-off
        agree(gdjax.sweep(notebook, **settings), gdjax.sweep(plain_notebook, **settings), rtol=1e-11, atol=1e-13)

    def test_through_the_hessian_suboptimality_goes_below_round_off(self, notebook):
        ds = gdjax.sweep(notebook, sampler="full", num_steps=3000, learning_rate=reference.NOTEBOOK_BEST_RATE)
        best = float(ds.suboptimality[-1])
        assert 0 <= best < 1e-25  # by subtraction of 0.59 from 0.59: 1e-16

    def test_one_draw_serves_every_rate(self, notebook):
        """A paired comparison: at the same seed, two rates see the same batches."""
        ds = gdjax.sweep(notebook, num_steps=1, batch_size=16, seed=range(5), learning_rate=[0.001, 0.002])
        moved = ds.params.values  # from zero, by -rate times the batch's gradient
        np.testing.assert_allclose(moved[:, 1], 2 * moved[:, 0], rtol=1e-15)


def along(values, dim="run"):
    return xr.DataArray(values, dims=dim)


class TestTogether:
    """Axes that go together along one dimension are a list of runs, each as if it were alone."""

    LIST = {"learning_rate": [0.01, 0.2, 0.05, 0.02], "batch_size": [8, 5, 8, 8], "seed": [3, 0, 3, 4]}  # noqa: RUF012

    def listed(self, **more):
        return {name: along(values) for name, values in (self.LIST | more).items()}

    @pytest.mark.parametrize("sampler", ["full", "reshuffled", "without_replacement", "with_replacement", shrinking])
    def test_a_list_is_looped(self, small, sampler):
        settings = {"sampler": sampler, "num_steps": 11, "record_every": 4}
        ds = gdjax.sweep(small, **settings, **self.listed())
        assert ds.objective.dims == ("run", "step")
        for number, point in enumerate(zip(*self.LIST.values(), strict=True)):
            agree(ds.isel(run=number), gdjax.sweep(small, **settings, **dict(zip(self.LIST, point, strict=True))))

    def test_a_list_beside_a_product_has_both_dims(self, small):
        settings = {"method": "heavy_ball", "num_steps": 11}
        ds = gdjax.sweep(small, **settings, momentum=[0.0, 0.8], **self.listed())
        assert ds.objective.dims == ("momentum", "run", "step")
        assert ds.params.dims == ("momentum", "run", "parameter")
        assert ds.diverged_at.dims == ("momentum", "run")
        for momentum in (0.0, 0.8):
            agree(ds.sel(momentum=momentum), gdjax.sweep(small, **settings, momentum=momentum, **self.listed()))
        other = gdjax.sweep(small, **settings, **self.listed(), momentum=[0.0, 0.8])
        assert other.objective.dims == ("run", "momentum", "step")
        agree(other.transpose("momentum", ...), ds)

    def test_two_lists_are_a_product_of_lists(self, small):
        settings = {"num_steps": 6, "batch_size": 8}
        rates, seeds = along([0.1, 0.2], "a"), along([3, 4, 5], "b")
        ds = gdjax.sweep(small, **settings, learning_rate=rates, momentum=along([0.0, 0.5], "a"), seed=seeds)
        assert ds.objective.dims == ("a", "b", "step")
        agree(ds.isel(a=1, b=2), gdjax.sweep(small, **settings, learning_rate=0.2, momentum=0.5, seed=5))

    def test_a_builder_s_number_may_be_in_the_list(self):
        def build(condition_number):
            return problems.designed_spectrum(jnp.stack([1.0 / condition_number, jnp.ones_like(condition_number)]))

        numbers = {"condition_number": [2.0, 50.0, 2.0], "learning_rate": [0.5, 1.0, 1.5]}
        ds = gdjax.sweep(build, num_steps=9, record_every=1, **{name: along(values) for name, values in numbers.items()})
        for number, (condition, rate) in enumerate(zip(*numbers.values(), strict=True)):
            modes = np.array([1.0 / condition, 1.0])
            exact = np.sum(modes * (1 - rate * modes) ** (2 * np.arange(10)[:, None]) / 2, axis=1)
            np.testing.assert_allclose(ds.objective[number], exact, **ROUNDING)

    def test_streams_of_unequal_length(self, small):
        """One stream with 9 rates, one with 2, and six with one each."""
        rates = np.linspace(0.01, 0.2, 17)
        seeds = np.array([0] * 9 + [1] * 2 + list(range(2, 8)))
        mixed = np.random.default_rng(0).permutation(17)
        settings = {"num_steps": 7, "batch_size": 8}
        ds = gdjax.sweep(small, **settings, learning_rate=along(rates[mixed]), seed=along(seeds[mixed]))
        whole = gdjax.sweep(small, **settings, learning_rate=rates, seed=range(8))
        for place, number in enumerate(mixed):
            agree(ds.isel(run=place), whole.isel(learning_rate=number).sel(seed=seeds[number]))

    def test_epochs_of_two_batch_sizes_end_apart(self, small):
        settings = {"num_epochs": 3, "record_every": 1, "learning_rate": 0.1}
        ds = gdjax.sweep(small, **settings, batch_size=along([5, 20, 5]), seed=along([1, 1, 2]))
        assert ds.epoch.dims == ("run", "step")
        assert ds.epoch[:, -1].values.tolist() == [3.0, 3.0, 3.0]
        assert ds.sizes["step"] == 13
        for run, (batch, seed) in enumerate([(5, 1), (20, 1), (5, 2)]):
            alone = gdjax.sweep(small, **settings, batch_size=batch, seed=seed)
            last = int(alone.step[-1])
            np.testing.assert_allclose(ds.objective[run, : last + 1], alone.objective, **ROUNDING)
            assert (ds.objective[run, last:] == ds.objective[run, last]).all()

    def test_coordinates_are_along_the_shared_dimension(self, small):
        ds = gdjax.sweep(small, num_steps=2, **self.listed(momentum=[0.0, 0.1, 0.2, 0.3]))
        assert set(ds.objective.coords) >= {"learning_rate", "batch_size", "seed", "momentum"}
        for name, values in self.LIST.items():
            assert ds[name].dims == ("run",)
            assert ds[name].values.tolist() == values
        own = gdjax.sweep(small, num_steps=2, learning_rate=along([0.1, 0.2], "learning_rate"), seed=along([3, 4], "learning_rate"))
        assert own.objective.dims == ("learning_rate", "step")
        assert own.sel(learning_rate=0.2).seed == 4

    def test_a_list_of_one_is_a_run(self, small):
        ds = gdjax.sweep(small, num_steps=5, learning_rate=along([0.1]), seed=along([3]))
        agree(ds.isel(run=0), gdjax.sweep(small, num_steps=5, learning_rate=0.1, seed=3))

    @pytest.mark.parametrize(
        ("axes", "said"),
        [
            ({"learning_rate": along([0.1, 0.2]), "seed": along([1, 2, 3])}, ["learning_rate", "seed", "'run'", "2 and 3"]),
            ({"learning_rate": along([0.1, 0.2], "seed"), "seed": [1, 2, 3]}, ["'seed'", "2", "3"]),
            ({"learning_rate": along([0.1, 0.2], "seed"), "seed": 1}, ["learning_rate", "'seed'", "name of something else"]),
            ({"learning_rate": along([0.1, 0.2], "step")}, ["learning_rate", "'step'", "name of something else"]),
            ({"learning_rate": along([0.1, 0.2], "parameter")}, ["'parameter'", "name of something else"]),
            ({"learning_rate": xr.DataArray([[0.1], [0.2]], dims=("a", "b"))}, ["learning_rate", "sequence of numbers"]),
            ({"learning_rate": along([0.1, -0.2]), "seed": along([1, 2])}, ["learning_rate=-0.2", "0 or more"]),
            ({"learning_rate": 0.1, "seed": along([1, 2, -3])}, ["seed=-3"]),
            ({"learning_rate": 0.1, "batch_size": along([8, 21])}, ["batch_size=21", "n = 20"]),
            ({"learning_rate": along([0.1, np.nan])}, ["learning_rate=array([0.1, nan])", "finite"]),
            ({"learning_rate": along([])}, ["learning_rate", "empty"]),
            ({"learning_rat": along([0.1, 0.2])}, ["'learning_rat'", "'learning_rate'"]),
        ],
    )
    def test_what_makes_no_sense_is_refused_and_by_check_as_well(self, small, mistake, monkeypatch, axes, said):
        message = mistake(gdjax.sweep, small, num_steps=3, **axes)
        assert [word for word in said if word not in message] == []
        assert mistake(check, small, num_steps=3, **axes) == message

    def test_check_runs_nothing(self, small, monkeypatch):
        monkeypatch.setattr(program, "run", lambda *_, **__: pytest.fail("it ran"))
        assert check(small, num_steps=10**9, record_every=10**8, **self.listed()) is None

    def test_lists_up_to_a_power_of_two_share_their_programs(self, small, compilations):
        def mine(learning_rate):
            return optax.sgd(learning_rate)

        def compiled(length, seeds, **settings):
            before = compilations.count
            rates = along(np.linspace(0.01, 0.1, length))
            settings = {"num_steps": 12, "batch_size": 8} | settings
            gdjax.sweep(small, method=mine, learning_rate=rates, seed=along(seeds), observer=compilations, **settings)
            return compilations.count - before

        assert compiled(8, [0] * 8) == 1  # one stream of 8 rates
        assert [compiled(length, [2] * length) for length in (5, 6, 7)] == [0, 0, 0]
        assert compiled(8, range(8)) == 1  # eight streams of one rate
        assert [compiled(length, range(10, 10 + length)) for length in (5, 6, 7)] == [0, 0, 0]
        assert compiled(9, range(9)) == 1


TRACES = collections.Counter()


def counted_sgd(learning_rate, momentum=0.0):
    TRACES["method"] += 1
    return optax.sgd(learning_rate, momentum)


def counted_loss(params, example):
    TRACES["loss"] += 1
    x, y = example
    return (x @ params - y) ** 2


class TestTraces:
    """A new number is never a new program."""

    @pytest.fixture
    def traces(self):
        """How often the method and the loss were called while a function ran."""

        def count(function, *arguments, **keywords):
            before = TRACES.copy()
            function(*arguments, **keywords)
            return (TRACES["method"] - before["method"], TRACES["loss"] - before["loss"])

        return count

    @pytest.fixture(params=[{"sampler": "full"}, {"batch_size": 8}], ids=["full", "batches"])
    def run(self, request):
        problem = problems.from_loss(counted_loss, random_data(20, 2), np.zeros(2))
        name = f"traced in {request.node.name}"  # a problem's name is part of the program: each test begins with none

        def sweep(**settings):
            return gdjax.sweep(replace(problem, name=name), method=counted_sgd, **{"num_steps": 40} | request.param | settings)

        return sweep

    def test_a_thousand_rates_are_traced_as_often_as_two(self, run, traces):
        two = traces(run, learning_rate=[0.01, 0.02])
        thousand = traces(run, learning_rate=np.linspace(0.01, 0.1, 1000))
        assert min(two) > 0
        assert thousand == two

    def test_other_numbers_of_the_same_shape_trace_nothing(self, run, traces):
        run(learning_rate=[0.01, 0.02], momentum=0.5, seed=1)
        assert traces(run, learning_rate=[0.01, 0.02], momentum=0.5, seed=1) == (0, 0)
        assert traces(run, learning_rate=[0.1, 0.3], momentum=0.9, seed=2) == (0, 0)

    def test_another_record_every_with_as_many_records_traces_nothing(self, run, traces):
        first = run(learning_rate=[0.01, 0.02], record_every=14)
        assert traces(run, learning_rate=[0.01, 0.02], record_every=15) == (0, 0)
        assert first.step.values.tolist() == [0, 14, 28, 40]

    def test_another_precision_is_another_program(self, run, traces):
        run(learning_rate=[0.01, 0.02])
        assert min(traces(run, learning_rate=[0.01, 0.02], precision="float32")) > 0

    def test_one_program_is_compiled_for_one_shape(self, small, compilations):
        def mine(learning_rate, momentum):
            return optax.sgd(learning_rate, momentum)

        def compiled(**settings):
            before = compilations.count
            gdjax.sweep(small, method=mine, **{"num_steps": 12, "momentum": 0.5, "batch_size": 8} | settings, observer=compilations)
            return compilations.count - before

        assert compiled(learning_rate=[0.01, 0.02]) == 1
        assert compiled(learning_rate=[0.03, 0.04]) == 0
        assert compiled(learning_rate=[0.03, 0.04], momentum=0.8, seed=3) == 0
        assert compiled(learning_rate=[0.03, 0.04], start=np.ones(4)) == 1
        assert compiled(learning_rate=[0.03, 0.04], start=np.zeros(4)) == 0
        assert compiled(learning_rate=[0.01, 0.02, 0.03]) == 1
        assert compiled(learning_rate=[0.01], momentum=[0.1, 0.2, 0.3]) == 0  # three lanes as well
        assert compiled(learning_rate=[0.01, 0.02], sampler="full") == 1
        assert compiled(learning_rate=[0.01, 0.02], sampler="full", batch_size=[3, 4], seed=[0, 1]) == 0

    def test_data_of_the_same_shape_are_the_same_program(self, compilations):
        def mine(learning_rate):
            return optax.sgd(learning_rate)

        for seed in range(3):
            problem = problems.least_squares(*random_data(20, 3, seed))
            ds = gdjax.sweep(problem, method=mine, num_steps=12, learning_rate=0.1, observer=compilations)
            np.testing.assert_allclose(ds.objective[0], np.mean(problem.data[1] ** 2), rtol=1e-13)  # its own data
        assert compilations.count == 1

    def test_an_observer_hears_of_every_block(self, small, compilations):
        gdjax.sweep(small, num_steps=3, learning_rate=[0.1, 0.2], observer=compilations)
        assert compilations.blocks == [(1, 1)]


OK = {"num_steps": 3, "learning_rate": 0.1}


class TestRefusals:
    """Every mistake is one line with what was given, what is allowed, and the nearest name."""

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (OK | {"method": "sdg"}, ["'sdg'", "'sgd'", "nesterov_convex"]),
            (OK | {"method": "lbfgs"}, ["lbfgs", "line"]),
            ({"num_steps": 3, "learning_rat": 0.1}, ["'learning_rat'", "'learning_rate'"]),
            (OK | {"bach_size": 8}, ["'bach_size'", "'batch_size'"]),
            (OK | {"sead": 8}, ["'sead'", "'seed'"]),
            (OK | {"momentun": 0.5}, ["'momentun'", "'momentum'"]),
            ({"num_steps": 3}, ["learning_rate", "sgd"]),
            (OK | {"learning_rate": [0.1, -0.25]}, ["learning_rate", "-0.25", "0 or more"]),
            (OK | {"learning_rate": []}, ["learning_rate", "empty"]),
            (OK | {"learning_rate": [0.1, np.nan]}, ["learning_rate", "nan", "finite"]),
            (OK | {"learning_rate": np.inf}, ["learning_rate", "inf", "finite"]),
            (OK | {"learning_rate": [[0.1, 0.2]]}, ["learning_rate", "sequence of numbers"]),
            (OK | {"learning_rate": [[0.1, 0.2], [0.3]]}, ["learning_rate", "sequence of numbers"]),
            (OK | {"learning_rate": "0.1"}, ["learning_rate", "0.1", "number"]),
            (OK | {"learning_rate": ["a", "b"]}, ["learning_rate", "sequence of numbers"]),
            (OK | {"learning_rate": None}, ["learning_rate", "None"]),
            (OK | {"learning_rate": True}, ["learning_rate", "True"]),
            (OK | {"learning_rate": 0.1j}, ["learning_rate", "number"]),
            (OK | {"momentum": [0.5, np.nan]}, ["momentum", "finite"]),
            (OK | {"batch_size": 21}, ["batch_size=21", "20"]),
            (OK | {"batch_size": [4, 0]}, ["batch_size=0", "20"]),
            (OK | {"batch_size": 2.5}, ["batch_size=2.5", "whole"]),
            (OK | {"batch_size": "8"}, ["batch_size", "8", "number"]),
            (OK | {"batch_size": []}, ["batch_size", "empty"]),
            (OK | {"seed": -1}, ["seed=-1", "0 or more"]),
            (OK | {"seed": [0, 0.5]}, ["seed=0.5", "whole"]),
            (OK | {"seed": []}, ["seed", "empty"]),
            (OK | {"num_epochs": 1}, ["exactly one", "num_steps", "num_epochs"]),
            ({"learning_rate": 0.1}, ["exactly one", "num_steps", "num_epochs"]),
            (OK | {"num_steps": 0}, ["num_steps=0", "1 or more"]),
            (OK | {"num_steps": 2.5}, ["num_steps=2.5", "whole"]),
            (OK | {"num_steps": True}, ["num_steps=True"]),
            (OK | {"num_steps": np.inf}, ["num_steps=inf"]),
            (OK | {"num_steps": np.nan}, ["num_steps=nan"]),
            ({"learning_rate": 0.1, "num_epochs": 0}, ["num_epochs=0", "above 0"]),
            ({"learning_rate": 0.1, "num_epochs": np.nan}, ["num_epochs=nan"]),
            (OK | {"record_every": 0}, ["record_every=0", "1 or more"]),
            (OK | {"record_every": 1.5}, ["record_every=1.5", "whole"]),
            (OK | {"precision": "float16"}, ["float16", "float32", "float64"]),
            (OK | {"sampler": "reshufled"}, ["'reshufled'", "'reshuffled'", "without_replacement"]),
            (OK | {"start": np.zeros(3)}, ["(3,)", "(4,)"]),
            (OK | {"start": {"w": np.zeros(4)}}, ["w", "(4,)"]),
            (OK | {"method": optax.sgd(0.1)}, ["method", "optax.sgd"]),
            (OK | {"method": None}, ["method", "None"]),
        ],
        ids=lambda value: ",".join(f"{k}={v}"[:30] for k, v in value.items() if OK.get(k) is not v) if isinstance(value, dict) else "",
    )
    def test_a_mistake_is_named(self, small, settings, said, mistake):
        message = mistake(gdjax.sweep, small, **settings)
        assert [word for word in said if word not in message] == []

    @pytest.mark.parametrize("problem", [None, 3, "notebook_line"])
    def test_what_is_no_problem_is_refused(self, problem, mistake):
        assert repr(problem) in mistake(gdjax.sweep, problem, **OK)

    @staticmethod
    def spectrum(condition_number):
        return problems.designed_spectrum(jnp.stack([1.0, condition_number]))

    def test_a_typo_in_a_builder_s_number_has_its_nearest_name(self, mistake):
        message = mistake(gdjax.sweep, self.spectrum, condition_numbr=[1.0, 2.0], **OK)
        assert "'condition_numbr'" in message
        assert "'condition_number'" in message

    def test_a_builder_s_number_that_is_missing_is_asked_for(self, mistake):
        assert "condition_number" in mistake(gdjax.sweep, self.spectrum, **OK)

    @pytest.mark.parametrize("name", ["seed", "batch_size", "step", "parameter", "epoch"])
    def test_a_builder_s_number_cannot_have_a_name_that_is_taken(self, name, mistake):
        def build(**numbers):
            return problems.designed_spectrum(jnp.stack([1.0, 1.0 + numbers[name]]))

        build.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)])
        assert name in mistake(gdjax.sweep, build, **{name: [1.0, 2.0]}, **OK)

    def test_a_refusal_comes_before_anything_is_compiled(self, small, mistake, compilations):
        mistake(gdjax.sweep, small, observer=compilations, seed=[0, 1, -1], **OK)
        assert (compilations.count, compilations.blocks) == (0, [])
