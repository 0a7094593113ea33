"""A sweep is cut so that every run is in exactly one block, equal shapes share a program, and no number depends on the cut."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdjax
from gdjax import methods, plan, problems, samplers
from tests.conftest import random_data

ROUNDING = 1e-12  # a run in a program of another width: the same operations, sums in another order, some 50 steps of 1e-16


def grid(*, batch_sizes=(8,), num_seeds=1, num_lanes=1, num_members=1, num_steps=40, lengths=None, problem=None):
    lengths = dict(zip(batch_sizes, lengths or [num_steps] * len(batch_sizes), strict=True))
    return plan.Grid(
        problem=problem or problems.least_squares(*random_data(20, 3)),
        start=None,
        members={"k": np.linspace(1, 2, num_members)} if num_members > 1 else {},
        streams=[(batch, seed) for batch in batch_sizes for seed in range(num_seeds)],
        numbers={"learning_rate": np.linspace(0.1, 0.2, num_lanes)[None]},
        lengths=lengths,
        steps=np.unique([0, *np.linspace(0, max(lengths.values()), 5, dtype=int), *lengths.values()]),
    )


def recipe(sampler=samplers.reshuffled):
    method, _ = methods.resolve("sgd", {"learning_rate": [0.1]})
    return plan.Recipe(method=method, build=None, sampler=sampler, dtype="float64")


def runs(block):
    return itertools.product(block.members, block.streams, block.lanes)


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("budget", [0, 2_000, 200_000, 4 * 2**30])
@pytest.mark.parametrize(
    "axes",
    [
        {"num_lanes": 1},
        {"num_lanes": 1000},
        {"num_lanes": 7, "num_seeds": 5, "batch_sizes": (5, 8, 20)},
        {"num_lanes": 3, "num_seeds": 2, "num_members": 11},
        {"num_lanes": 30, "batch_sizes": (5, 8), "lengths": (40, 25)},
    ],
    ids=["one run", "rates", "batch sizes", "members", "lengths"],
)
def test_every_run_is_in_exactly_one_block_that_has_room_for_it(axes, budget, workers):
    here = grid(**axes)
    blocks = plan.plan(here, recipe(), budget=budget, workers=workers)
    wanted = sorted(itertools.product(range(here.num_members), range(len(here.streams)), range(here.num_lanes)))
    assert sorted(run for block in blocks for run in runs(block)) == wanted
    for block in blocks:
        assert all(
            count <= room for count, room in zip((len(block.members), len(block.streams), len(block.lanes)), block.shape, strict=True)
        )
        assert all(here.streams[number][0] <= block.batch for number in block.streams)
        assert block.recipe.width == block.shape[2]
        assert block.rows >= 1


@pytest.mark.parametrize("num_lanes", [1, 127, 128, 1000, 4097])
def test_blocks_of_one_batch_size_have_one_shape_and_little_to_fill_up(num_lanes):
    blocks = plan.plan(grid(num_lanes=num_lanes), recipe(), budget=4 * 2**30, workers=2)
    assert len({(block.recipe, block.shape) for block in blocks}) == 1
    room = sum(math.prod(block.shape) for block in blocks)
    assert num_lanes <= room < num_lanes + len(blocks)  # parts as equal as can be


def test_less_memory_makes_smaller_blocks():
    largest = [
        max(math.prod(block.shape) for block in plan.plan(grid(num_lanes=500), recipe(), budget=budget, workers=1))
        for budget in (4 * 2**30, 100_000, 10_000, 0)
    ]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > largest[1] > largest[2] > largest[3] == 1


@pytest.mark.parametrize("budget", [20_000, 200_000, 4 * 2**30])
@pytest.mark.parametrize("num_lanes", [1, 5, 8, 100, 129, 1000])
@pytest.mark.parametrize("num_seeds", [1, 3, 8])
def test_padded_shapes_are_powers_of_two_within_the_budget(num_seeds, num_lanes, budget):
    here = replace(grid(num_lanes=num_lanes, num_seeds=num_seeds), padded=True)
    blocks = plan.plan(here, recipe(), budget=budget, workers=2)
    wanted = sorted(itertools.product([0], range(num_seeds), range(num_lanes)))
    assert sorted(run for block in blocks for run in runs(block)) == wanted
    lone = 8 * (4 * len(here.steps) + 8 * here.num_parameters)  # bytes of a run's records and parameters
    for block in blocks:
        assert all(size & (size - 1) == 0 for size in block.shape)
        assert all(
            count <= size for count, size in zip((len(block.members), len(block.streams), len(block.lanes)), block.shape, strict=True)
        )
        assert 2 * math.prod(block.shape) * lone <= max(budget, 2 * lone)  # two workers' blocks


def test_padded_grids_of_nearly_one_size_have_one_shape():
    shapes = {
        (block.recipe, block.shape)
        for num_seeds, num_lanes in itertools.product((5, 6, 7, 8), (9, 12, 16))
        for block in plan.plan(
            replace(grid(num_lanes=num_lanes, num_seeds=num_seeds, num_steps=4), padded=True), recipe(), budget=4 * 2**30, workers=2
        )
    }
    assert len(shapes) == 1


def linear_loss(params, example):
    features, target = example
    return 0.5 * jnp.square(features @ params - target)


def wavy_loss(params, example):
    features, target = example
    return jnp.square(jnp.cos(features) @ params["outer"] - jnp.sum(jnp.cos(features @ params["inner"])) - target)


def network(num_examples=300, hidden=32):
    X, y = random_data(num_examples, 5)
    return problems.mlp_classification(X, y > np.median(y), hidden=hidden)


def own(loss, start):
    return problems.from_loss(loss, random_data(300, 5), start=start)


def lanes_of(problem, **axes):
    blocks = plan.plan(grid(problem=problem, num_lanes=512, **axes), recipe(), budget=4 * 2**30, workers=2)
    (num_lanes,) = {block.recipe.width for block in blocks}
    return num_lanes


class TestWhatALossMakesOfTheExamples:
    """A block's lanes, where those of its parameters alone would be many."""

    @pytest.mark.parametrize(
        ("problem", "num_lanes"),
        [
            (network(hidden=32), 8),
            (network(hidden=(8, 64)), 8),
            (network(hidden=10_000), 8),
            (own(wavy_loss, {"outer": np.ones(5), "inner": np.ones((5, 16))}), 16),
            (own(linear_loss, np.zeros(5)), 256),  # one number an example
            (own(wavy_loss, {"outer": np.ones(5), "inner": np.ones((5, 1))}), 171),  # cos(features) is one for all lanes
            (problems.least_squares(*random_data(300, 5)), 256),
        ],
        ids=["a layer", "the widest of two", "one wider than all", "a loss", "a linear loss", "features", "a linear model"],
    )
    def test_decides_how_many_lanes_share_a_block(self, problem, num_lanes):
        assert lanes_of(problem, num_steps=1000, batch_sizes=(300,)) == num_lanes

    def test_is_little_of_small_batches_unless_records_take_longer(self):
        assert lanes_of(network(), num_steps=1000) == 128
        assert lanes_of(network(30_000), num_steps=1000) == 8

    def test_is_nothing_to_blocks_that_would_soon_be_done(self):
        assert lanes_of(network(), num_steps=10, batch_sizes=(300,)) == 128

    def test_leaves_a_gpu_its_one_block(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        blocks = plan.plan(grid(problem=network(), num_lanes=512, num_steps=1000), recipe(), budget=4 * 2**30, workers=1)
        assert [block.shape for block in blocks] == [(1, 1, 512)]


class TestGroups:
    """Which batch sizes share a program."""

    SIZES = (4, 8, 16)

    def test_a_free_program_is_one_for_each_size(self, monkeypatch):
        monkeypatch.setattr(plan, "PROGRAM_SECONDS", 0.0)
        assert plan.groups(grid(batch_sizes=self.SIZES), recipe()) == [(4,), (8,), (16,)]

    def test_a_dear_program_is_one_for_all(self, monkeypatch):
        monkeypatch.setattr(plan, "PROGRAM_SECONDS", np.inf)
        assert plan.groups(grid(batch_sizes=self.SIZES), recipe()) == [self.SIZES]

    def test_short_runs_share_and_long_ones_do_not(self):
        assert len(plan.groups(grid(batch_sizes=self.SIZES, num_steps=10), recipe())) == 1
        assert len(plan.groups(grid(batch_sizes=self.SIZES, num_steps=10**9), recipe())) == 3

    def test_runs_of_different_length_never_share(self, monkeypatch):
        monkeypatch.setattr(plan, "PROGRAM_SECONDS", np.inf)
        assert plan.groups(grid(batch_sizes=(4, 8), lengths=(40, 20)), recipe()) == [(4,), (8,)]

    def test_full_gradients_know_no_batch_size(self):
        assert plan.groups(grid(batch_sizes=(20,)), recipe(sampler=None)) == [(20,)]


SETTINGS = {
    "num_steps": 50,
    "record_every": 7,
    "batch_size": [5, 8, 20],
    "seed": [0, 3],
    "learning_rate": np.linspace(0.01, 0.2, 5),
}


def agree(ds, other):
    assert ds.sizes == other.sizes
    for name in ("objective", "suboptimality", "gradient_norm", "distance", "params"):
        # a parameter of size 3 is rounded at 1e-16, which is all that is left of the distance of a run that has converged
        np.testing.assert_allclose(ds[name], other[name], rtol=ROUNDING, atol=1e-14)
    np.testing.assert_array_equal(ds.diverged_at, other.diverged_at)
    np.testing.assert_array_equal(ds.epoch, other.epoch)


class TestNumbersDoNotDependOnTheCut:
    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls):
        return gdjax.sweep(problems.least_squares(*random_data(20, 3)), **SETTINGS)

    @pytest.mark.parametrize("budget", [20_000, 1_000, 0])
    def test_of_blocks_and_of_time(self, small, whole, plans, budget):
        ds = gdjax.sweep(small, memory_budget=budget, **SETTINGS)
        (blocks,) = plans
        assert len(blocks) > 1
        assert all(block.rows < SETTINGS["num_steps"] for block in blocks)  # so every run goes in several executions
        agree(ds, whole)

    @pytest.mark.parametrize("sampler", ["without_replacement", "with_replacement", "reshuffled"])
    def test_of_time_alone(self, small, plans, sampler):
        settings = {"sampler": sampler, "num_steps": 30, "record_every": 3, "batch_size": 8, "learning_rate": 0.05, "momentum": 0.5}
        whole = gdjax.sweep(small, **settings)
        cut = gdjax.sweep(small, memory_budget=3_000, **settings)
        assert [(len(blocks), blocks[0].rows < 30) for blocks in plans] == [(1, False), (1, True)]
        agree(cut, whole)

    def test_of_a_divergence_in_a_later_part(self, notebook, plans):
        settings = {"num_steps": 40, "record_every": 1, "batch_size": 16, "learning_rate": [0.01, 0.05, 0.5]}
        whole = gdjax.sweep(notebook, **settings)
        cut = gdjax.sweep(notebook, memory_budget=2_600, **settings)
        assert plans[1][0].rows < 10
        assert (whole.diverged_at.values[1:] > 0).all()
        agree(cut, whole)

    @pytest.mark.parametrize(("seconds", "num_groups"), [(0.0, 3), (np.inf, 1)])
    def test_of_how_batch_sizes_share_programs(self, small, whole, plans, monkeypatch, seconds, num_groups):
        monkeypatch.setattr(plan, "PROGRAM_SECONDS", seconds)
        ds = gdjax.sweep(small, **SETTINGS)
        (blocks,) = plans
        assert len({block.batch for block in blocks}) == num_groups
        shared = {frozenset(number // len(SETTINGS["seed"]) for number in block.streams) for block in blocks}
        assert shared == ({frozenset({0}), frozenset({1}), frozenset({2})} if num_groups == 3 else {frozenset({0, 1, 2})})
        agree(ds, whole)

    @pytest.mark.parametrize("batches", [{"batch_size": 300}, {"batch_size": 8, "seed": [0, 1]}], ids=["full", "batches"])
    def test_of_lanes_of_a_network(self, plans, monkeypatch, batches):
        settings = {"num_steps": 20, "record_every": 5, "learning_rate": np.linspace(0.01, 0.2, 12)} | batches
        monkeypatch.setattr(plan, "BLOCK_SECONDS", 0.0)
        cut = gdjax.sweep(network(), **settings)
        monkeypatch.setattr(plan, "LEAST_LANES", 10**9)
        whole = gdjax.sweep(network(), **settings)
        assert [len(blocks) > 1 for blocks in plans] == [True, False]
        for name in ("objective", "gradient_norm"):
            np.testing.assert_allclose(cut[name], whole[name], rtol=ROUNDING)

    def test_of_members(self, plans):
        def build(condition_number):
            return problems.designed_spectrum(jnp.stack([1.0 / condition_number, jnp.ones_like(condition_number)]))

        settings = {"num_steps": 20, "condition_number": np.linspace(2, 50, 7), "learning_rate": [0.5, 1.0, 1.5]}
        whole, cut = gdjax.sweep(build, **settings), gdjax.sweep(build, memory_budget=5_000, **settings)
        assert [len(blocks) > 1 for blocks in plans] == [False, True]
        agree(cut, whole)


def test_equal_shapes_share_a_program(small, compilations, plans):
    gdjax.sweep(
        small, method=lambda learning_rate: methods.heavy_ball(learning_rate), num_steps=12, batch_size=8, memory_budget=20_000,
        learning_rate=np.linspace(0.01, 0.1, 60), observer=compilations,
    )  # fmt: skip
    (blocks,) = plans
    assert len(blocks) > 2
    assert compilations.count == len({(block.recipe, block.shape) for block in blocks}) == 1
    assert compilations.blocks == [(done, len(blocks)) for done in range(1, len(blocks) + 1)]
