"""Runs that end early are frozen lanes: their numbers are a loop's by hand, whatever runs beside them and however the work is cut."""

from __future__ import annotations

import collections
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import gdjax
from gdjax import problems, program, stopping
from tests import reference
from tests.conftest import random_data

MEASURED = ("objective", "suboptimality", "gradient_norm", "distance")
ROUNDING = {"rtol": 1e-12, "atol": 1e-14}  # sums in another order, a few hundred steps of 1e-16


def held_out():
    """Examples of a smaller truth, which the way from zero passes: their loss falls, then rises."""
    X, y = random_data(12, 3, seed=5)
    return problems.least_squares(X, 0.7 * y)


RULES = {
    "repaired": stopping.repaired(rtol=0.05, patience=2),
    "plateau": stopping.early_stopping(held_out(), patience=5, plateau=stopping.Plateau(factor=0.5, patience=1)),
}


def agree(ds, other, **tolerance):
    for name in (*MEASURED, "params"):
        np.testing.assert_allclose(ds[name], other[name], **(tolerance or ROUNDING))
    for name in {"diverged_at", "stopped_at", "best_step"} & set(ds.data_vars):
        np.testing.assert_array_equal(ds[name], other[name], err_msg=name)


class TestNotebook:
    """N16, N17 and THEORY's item on them: the rule that the notebook asks for, with what is wrong with it."""

    RATES = (*reference.EARLY_STOP, 0.05, 0.2, 0.5)

    @pytest.fixture
    def stopped(self):
        return gdjax.sweep(
            problems.notebook_line(), sampler="full", num_steps=7300, record_every=1, learning_rate=self.RATES, stop="notebook"
        )

    def test_it_stops_where_the_reference_does_and_leaves_its_excess(self, stopped):
        for rate, (stop, excess) in reference.EARLY_STOP.items():
            run = stopped.sel(learning_rate=rate)
            assert (int(run.stopped_at), int(run.diverged_at)) == (stop, -1)
            np.testing.assert_allclose(run.suboptimality[[stop, -1]], excess, rtol=1e-6)  # the reference's own, of 12 printed digits

    def test_it_fires_on_divergence(self, stopped):
        wild = stopped.sel(learning_rate=[0.05, 0.2, 0.5])
        assert wild.stopped_at.values.tolist() == [11, 11, 11]
        assert (wild.diverged_at > 0).all()
        np.testing.assert_allclose(np.log10(wild.objective[:, -1]), np.log10([4.4e10, 2.9e26, 4.5e35]), atol=0.01)  # two printed digits

    def test_on_mini_batches_it_does_not_fire(self):
        ds = gdjax.sweep(
            problems.notebook_line(),
            sampler="without_replacement",
            batch_size=16,
            num_steps=3000,
            record_every=1,
            learning_rate=0.01,
            seed=range(5),
            stop="notebook",
        )
        assert (ds.stopped_at == -1).all()

    def test_put_right_it_tells_divergence_from_convergence(self):
        ds = gdjax.sweep(
            problems.notebook_line(), sampler="full", num_steps=9000, record_every=1, learning_rate=self.RATES, stop="repaired"
        )
        calm, wild = ds.isel(learning_rate=slice(9)), ds.isel(learning_rate=slice(9, None))
        assert (wild.stopped_at == -1).all()
        assert (wild.diverged_at > 0).all()
        np.testing.assert_array_equal(wild.params, np.zeros((3, 2)))  # the start is their best iterate
        assert (calm.diverged_at == -1).all()
        assert (calm.stopped_at > 0).all()
        np.testing.assert_array_equal(calm.best_step, calm.stopped_at)  # full gradients: the last is the best

    def test_put_right_its_answer_is_free_of_scale(self):
        X, y = problems.notebook_line().data
        stops = [
            gdjax.sweep(
                problems.least_squares(X[:, 1:], scale * y), sampler="full", num_steps=2000, record_every=1, learning_rate=0.02, stop=rule
            ).stopped_at.item()
            for rule in ("repaired", "notebook")
            for scale in (1.0, 1e-3)
        ]
        assert stops[0] == stops[1] > 0
        assert stops[2] > stops[3]


def by_hand(problem, rule, rate, num_steps, validation=None):
    """Gradient descent in NumPy with a rule of the user's own over its losses: (stopped_at, best_step, params)."""
    features, target = problem.data
    params, losses, path = np.zeros(features.shape[1]), [], []
    for _ in range(num_steps + 1):
        X, y = validation or problem.data
        losses.append(np.mean((X @ params - y) ** 2))
        path.append(params)
        stop, rate = rule(losses, rate)
        if stop:
            break
        params = params - rate * 2.0 * features.T @ (features @ params - target) / len(target)
    best = int(np.argmin(losses))
    return (len(losses) - 1 if stop else -1), best, path[best]


class TestByHand:
    def test_patience_on_a_validation_loss_leaves_the_best_parameters(self, small):
        validation = held_out().data

        def rule(losses, rate):
            return len(losses) - 1 - int(np.argmin(losses)) >= 5, rate

        rates = [0.05, 0.15]
        stop = stopping.early_stopping(held_out(), patience=5)
        ds = gdjax.sweep(small, sampler="full", num_steps=400, record_every=1, learning_rate=rates, stop=stop)
        for number, rate in enumerate(rates):
            stopped, best, params = by_hand(small, rule, rate, 400, validation)
            assert (int(ds.stopped_at[number]), int(ds.best_step[number])) == (stopped, best)
            np.testing.assert_allclose(ds.params[number], params, **ROUNDING)
            assert stopped == best + 5

    def test_the_last_parameters_stay_where_the_best_are_not_wanted(self, small):
        settings = {"sampler": "full", "num_steps": 400, "record_every": 1, "learning_rate": 0.15}
        ds = gdjax.sweep(small, **settings, stop=stopping.early_stopping(held_out(), patience=5, restore_best=False))
        assert "best_step" not in ds
        until = gdjax.sweep(small, **settings | {"num_steps": int(ds.stopped_at)})
        np.testing.assert_allclose(ds.params, until.params, **ROUNDING)

    def test_a_plateau_divides_the_rate_as_pytorch_s_scheduler_does(self, small):
        """The loop of ReduceLROnPlateau written out; the rate is too high at first, so that the loss grows."""
        best, bad = np.inf, 0

        def rule(losses, rate):
            nonlocal best, bad
            if losses[-1] < best * (1 - 1e-4):
                best, bad = losses[-1], 0
            else:
                bad += 1
            if bad > 2:
                rate, bad = rate * 0.5, 0
            return False, rate

        rate = 2.2 / small.smoothness
        _, best_step, params = by_hand(small, rule, rate, 60)
        stop = stopping.early_stopping(patience=1000, plateau=stopping.Plateau(patience=2))
        ds = gdjax.sweep(small, sampler="full", num_steps=60, record_every=1, learning_rate=rate, stop=stop)
        assert int(ds.best_step) == best_step > 0
        np.testing.assert_allclose(ds.params, params, rtol=1e-10)  # what the loss grows to is rounded first

    def test_a_ridge_is_no_part_of_the_validation_loss(self):
        problem = problems.logistic(*_classes(40), ridge=0.5)
        watch = stopping.early_stopping(problems.logistic(*_classes(30, seed=1), ridge=0.5), patience=3)
        lanes = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
        seen = stopping.Seen(jnp.zeros((), jnp.int32), jnp.zeros(4), jnp.zeros(4, bool), lanes)
        margin = watch.held_out[1] * (np.asarray(lanes).T @ watch.held_out[0].T)
        np.testing.assert_allclose(watch.monitored(seen, problem), np.mean(np.logaddexp(0.0, -margin), axis=1), rtol=1e-14)


def _classes(num_examples, seed=0):
    X, y = random_data(num_examples, 2, seed)
    return X, y > np.median(y)


@pytest.mark.parametrize(("settings", "rule"), [({"sampler": "full"}, "plateau"), ({"batch_size": 8}, "repaired")])
class TestEquivalences:
    SETTINGS = {"num_steps": 120, "record_every": 2, "method": "heavy_ball"}  # noqa: RUF012
    AXES = {"learning_rate": [0.003, 0.02, 0.1], "momentum": [0.0, 0.8], "seed": [0, 7]}  # noqa: RUF012

    def test_swept_is_looped(self, small, settings, rule):
        how = self.SETTINGS | settings | {"stop": RULES[rule]}
        ds = gdjax.sweep(small, **how, **self.AXES)
        assert (ds.stopped_at >= 0).any()
        for rate in self.AXES["learning_rate"]:  # one program
            point = {"learning_rate": rate, "momentum": 0.8, "seed": 7}
            agree(ds.sel(point), gdjax.sweep(small, **how, **point))

    def test_until_it_stops_a_run_is_the_run_without_a_rule_and_then_it_stands_still(self, small, settings, rule):
        ds = gdjax.sweep(small, **self.SETTINGS | settings, **self.AXES, stop=RULES[rule]).stack(run=self.AXES)
        free = gdjax.sweep(small, **self.SETTINGS | settings, **self.AXES).stack(run=self.AXES)
        for number in range(ds.sizes["run"]):
            run, plain = ds.isel(run=number), free.isel(run=number)
            last = list(ds.step).index(int(run.stopped_at)) if run.stopped_at >= 0 else ds.sizes["step"] - 1
            if rule != "plateau":  # which changes the rate
                np.testing.assert_allclose(run.objective[: last + 1], plain.objective[: last + 1], **ROUNDING)
            for name in MEASURED:
                assert (run[name][last:] == run[name][last]).all()

    def test_a_run_does_not_depend_on_its_neighbours(self, small, settings, rule):
        how = self.SETTINGS | settings | {"momentum": 0.5, "stop": RULES[rule]}
        crowd = gdjax.sweep(small, learning_rate=[1e150, 0.02, 3.0, 0.1, 0.0], **how)
        for rate in (0.02, 0.1):
            agree(crowd.sel(learning_rate=rate), gdjax.sweep(small, learning_rate=rate, **how))

    def test_cut_is_whole(self, small, settings, rule):
        how = self.SETTINGS | settings | self.AXES | {"stop": RULES[rule]}
        agree(gdjax.sweep(small, **how, memory_budget=20_000), gdjax.sweep(small, **how))


class TestEngine:
    def test_a_block_whose_runs_have_all_ended_ends_the_work(self, small, monkeypatch):
        drawn = []

        def sampler(rng, num_steps, num_examples, batch_size):
            drawn.append(num_steps)
            return rng.integers(0, num_examples, (num_steps, batch_size))

        settings = {"sampler": sampler, "num_steps": 4000, "record_every": 10, "batch_size": 8, "learning_rate": [0.0, 1e-9]}
        ds = gdjax.sweep(small, stop="repaired", **settings)
        assert ds.stopped_at.values.tolist() == [100, 100]  # nothing to compare with at 0
        assert ds.sizes["step"] == 401
        drawn.clear()
        gdjax.sweep(small, stop="repaired", **settings)
        assert 100 <= sum(drawn) < 1000

    def test_a_frozen_lane_keeps_its_optimizer_s_state(self, small):
        kept, called = [], program._called

        def spying(function, *arguments):
            outcome = called(function, *arguments)
            kept.extend([jax.tree.map(np.asarray, outcome)] if function is program._program else [])
            return outcome

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(program, "_called", spying)
            gdjax.sweep(small, sampler="full", num_steps=300, record_every=1, learning_rate=[0.0, 0.01], method="adam", stop="repaired")
        first, last = kept[0][0], kept[-1][0]
        assert len(kept) > 2
        # the lane at rate 0 has stopped in the first part, the other has not; its moments are leaves whose last axis counts lanes
        for before, after in zip(jax.tree.leaves((first.lanes, first.state)), jax.tree.leaves((last.lanes, last.state)), strict=True):
            if before.ndim > 2:
                np.testing.assert_array_equal(before[..., 0], after[..., 0])
                assert (before[..., 1] != after[..., 1]).any()

    def test_along_members_as_well(self):
        def build(condition_number):
            return problems.designed_spectrum(jnp.stack([1.0, 1.0 / condition_number]))

        settings = {"num_steps": 600, "record_every": 5, "learning_rate": [0.5, 1.0], "stop": "repaired"}
        ds = gdjax.sweep(build, condition_number=[2.0, 20.0], **settings)
        for kappa in (2.0, 20.0):
            agree(ds.sel(condition_number=kappa), gdjax.sweep(build, condition_number=kappa, **settings))
        assert len(set(ds.stopped_at.values.ravel().tolist())) > 2

    def test_lists_of_runs_are_the_runs_of_a_product(self, small):
        along = {"learning_rate": [0.1, 0.003, 0.02], "seed": [4, 4, 9]}
        how = {"num_steps": 120, "record_every": 2, "batch_size": 8, "stop": RULES["plateau"]}
        ds = gdjax.sweep(small, **{name: xr.DataArray(values, dims="run") for name, values in along.items()}, **how)
        product = gdjax.sweep(small, learning_rate=along["learning_rate"], seed=[4, 9], **how)
        for number, (rate, seed) in enumerate(zip(*along.values(), strict=True)):
            agree(ds.isel(run=number), product.sel(learning_rate=rate, seed=seed))

    def test_in_single_precision_it_stops_too(self, small):
        ds = gdjax.sweep(small, sampler="full", num_steps=400, learning_rate=[0.05, 0.1], stop="repaired", precision="float32")
        assert ds.params.dtype == np.float32
        assert (ds.stopped_at >= 0).all()

    def test_the_dataset_says_what_stopped_it(self, small):
        ds = gdjax.sweep(small, sampler="full", num_steps=10, learning_rate=0.1, stop=stopping.early_stopping(held_out(), patience=7))
        assert ds.attrs["stop"].startswith("EarlyStopping(patience=7, min_delta=0.0")
        plain = gdjax.sweep(small, sampler="full", num_steps=10, learning_rate=0.1)
        assert "stop" not in plain.attrs
        assert not {"stopped_at", "best_step"} & set(plain.data_vars)


TRACES = collections.Counter()


def counted_sgd(learning_rate):
    TRACES["method"] += 1
    return optax.sgd(learning_rate)


class TestTraces:
    def test_other_numbers_of_a_rule_and_other_lengths_trace_nothing(self, small, compilations):
        problem, other = replace(small, name="traced with a rule"), held_out()

        def run(num_steps, rates, **numbers):
            before = (compilations.count, TRACES["method"])
            stop = stopping.early_stopping(other, plateau=stopping.Plateau(), **numbers)
            gdjax.sweep(
                problem,
                method=counted_sgd,
                num_steps=num_steps,
                record_every=3,
                batch_size=8,
                learning_rate=rates,
                stop=stop,
                observer=compilations,
            )
            return compilations.count - before[0], TRACES["method"] - before[1]

        # where runs begin, and how they go on
        assert run(300, [0.01, 0.02], patience=100)[0] == 2
        assert run(300, [0.03, 0.001], patience=2, min_delta=1e-3) == (0, 0)
        assert run(600, [0.03, 0.001], patience=50) == (0, 0)
        assert run(30, [0.03, 0.001], patience=50) == (0, 0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: stopping.notebook(tolerance=-1.0), ["tolerance=-1.0", "0 or more"]),
            (lambda: stopping.notebook(patience=0), ["patience=0", "1 or more"]),
            (lambda: stopping.repaired(rtol="small"), ["rtol='small'", "number"]),
            (lambda: stopping.repaired(rtol=np.nan), ["rtol=nan"]),
            (lambda: stopping.early_stopping(min_delta=np.inf), ["min_delta=inf"]),
            (lambda: stopping.early_stopping(problems.designed_spectrum([1.0])), ["designed_spectrum", "hold out"]),
            (lambda: stopping.resolve("repared"), ["'repared'", "'repaired'"]),
            (lambda: stopping.resolve(3), ["stop=3", "gdjax.stopping"]),
        ],
    )
    def test_a_mistake_is_named(self, make, said, mistake):
        message = mistake(make)
        assert [word for word in said if word not in message] == []

    def test_a_rule_that_slows_needs_a_rate(self, small, mistake):
        stop = stopping.early_stopping(plateau=stopping.Plateau())
        message = mistake(gdjax.sweep, small, method="prodigy", num_steps=3, stop=stop)
        assert "learning_rate" in message
        assert mistake(gdjax.sweep.__globals__["check"], small, method="prodigy", num_steps=3, stop=stop) == message


class TestNamed:
    """Rules by name, with plain numbers."""

    def test_a_rule_is_its_builder_s(self):
        assert stopping.described(stopping.named("repaired", {"rtol": 0.1})) == stopping.described(stopping.repaired(rtol=0.1))
        plateau = stopping.named("early_stopping", {"plateau": {"factor": 0.1, "patience": 2}}).plateau
        assert (plateau.factor, plateau.patience, plateau.threshold) == (0.1, 2, stopping.Plateau().threshold)

    def test_what_is_held_out_is_counted_where_the_rule_is_described(self):
        rule = stopping.named("early_stopping", {"patience": 3}, held_out=held_out())
        assert stopping.described(rule) == "EarlyStopping(patience=3, min_delta=0.0, restore_best=True, held_out=12)"

    @pytest.mark.parametrize(
        ("name", "numbers", "said"),
        [
            ("early_stoping", {}, "Did you mean 'early_stopping'?"),
            (["notebook"], {}, "unknown stopping rule"),
            ("notebook", {"rtol": 0.1}, "unknown number of stopping rule notebook: 'rtol'. Allowed: patience, seed, tolerance."),
            ("early_stopping", {"held_out": 1}, "unknown number of stopping rule early_stopping: 'held_out'"),
            ("early_stopping", {"patience": "ten"}, "patience=ten is not allowed"),
            ("early_stopping", {"restore_best": "maybe"}, "restore_best=maybe is not allowed: it is true or false"),
            ("early_stopping", {"plateau": 0.5}, "numbers by name, of factor, patience, threshold, smallest"),
            ("early_stopping", {"plateau": {"factr": 0.5}}, "Did you mean 'factor'?"),
            ("early_stopping", {"plateau": {"factor": 1}}, "it is below 1"),
            ("early_stopping", {"plateau": {"patience": 0.5}}, "plateau.patience=0.5 is not allowed"),
        ],
    )
    def test_a_mistake_is_named(self, name, numbers, said, mistake):
        assert said in mistake(stopping.named, name, numbers, also=["seed"])

    def test_a_rule_without_a_use_for_held_out_examples_says_which_has(self, mistake):
        assert "or use early_stopping" in mistake(stopping.named, "repaired", held_out=held_out())
