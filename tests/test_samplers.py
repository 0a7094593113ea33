"""Each sampler draws from the distribution that its name says, and a step's examples depend on (seed, step, batch size) only."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from gdjax import samplers

SAMPLERS = [samplers.full, samplers.reshuffled, samplers.without_replacement, samplers.with_replacement]
EVERY_SAMPLER = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.__name__)
SIZES = pytest.mark.parametrize(
    ("num_examples", "batch_size"), [(20, 8), (20, 5), (20, 20), (20, 1), (30, 29), (1, 1)]
)  # with a short last batch, without; by Floyd's algorithm (B^2 <= 20 n) and by permutation


def draw(sampler, num_steps, num_examples, batch_size, seed=0):
    return np.asarray(sampler(samplers.generator(seed), num_steps, num_examples, batch_size))


def assert_uniform(counts, num_cells):
    """Chi-square: the draws are of a fixed seed, so a true sampler passes or fails for ever; one in a million would fail."""
    counts = np.asarray(counts)
    assert counts.size == num_cells
    expected = counts.sum() / num_cells
    assert expected > 50  # or the statistic isn't chi-square
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert stats.chi2.ppf(1e-6, num_cells - 1) < statistic < stats.chi2.ppf(1 - 1e-6, num_cells - 1)


@EVERY_SAMPLER
@SIZES
def test_a_table_has_a_row_a_step_of_known_examples(sampler, num_examples, batch_size):
    table = draw(sampler, 13, num_examples, batch_size)
    assert table.shape == (13, num_examples if sampler is samplers.full else batch_size)
    assert table.dtype == np.int32
    assert ((table == samplers.ABSENT) | ((table >= 0) & (table < num_examples))).all()


@EVERY_SAMPLER
@SIZES
def test_a_longer_run_has_the_same_beginning(sampler, num_examples, batch_size):
    np.testing.assert_array_equal(draw(sampler, 40, num_examples, batch_size)[:13], draw(sampler, 13, num_examples, batch_size))


@EVERY_SAMPLER
@SIZES
def test_a_table_may_be_drawn_in_parts_of_whole_epochs(sampler, num_examples, batch_size):
    epoch = -(-num_examples // batch_size)
    rng = samplers.generator(3)
    parts = [sampler(rng, num_steps, num_examples, batch_size) for num_steps in (epoch, 2 * epoch, 3 * epoch, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), draw(sampler, 6 * epoch + 1, num_examples, batch_size, seed=3))


@pytest.mark.parametrize("sampler", SAMPLERS[1:], ids=lambda sampler: sampler.__name__)
def test_a_seed_names_the_draws(sampler):
    first, again, other = (draw(sampler, 20, 20, 8, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


@SIZES
def test_full_is_every_example_in_order(num_examples, batch_size):
    np.testing.assert_array_equal(draw(samplers.full, 3, num_examples, batch_size), [np.arange(num_examples)] * 3)


@SIZES
def test_reshuffled_sees_every_example_once_an_epoch(num_examples, batch_size):
    epoch = -(-num_examples // batch_size)
    for rows in draw(samplers.reshuffled, 5 * epoch, num_examples, batch_size).reshape(5, -1):
        np.testing.assert_array_equal(np.sort(rows[:num_examples]), np.arange(num_examples))
        assert (rows[num_examples:] == samplers.ABSENT).all()  # only at the end of the last batch


def test_reshuffled_deals_every_order_equally_often():
    orders = draw(samplers.reshuffled, 2 * 4800, 4, 2).reshape(4800, 4)
    assert_uniform(np.unique(orders, axis=0, return_counts=True)[1], 24)


@SIZES
def test_without_replacement_a_batch_has_no_example_twice(num_examples, batch_size):
    for row in draw(samplers.without_replacement, 200, num_examples, batch_size):
        assert len(set(row.tolist())) == batch_size
        assert row.min() >= 0


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "floyd"), [(6, 3, True), (7, 2, True), (5, 5, True), (22, 21, False), (24, 23, False)]
)
def test_without_replacement_draws_every_subset_equally_often(num_examples, batch_size, floyd):
    assert (batch_size**2 <= 20 * num_examples) == floyd  # both ways of drawing are looked at
    subsets = list(itertools.combinations(range(num_examples), batch_size))
    rows = np.sort(draw(samplers.without_replacement, 200 * len(subsets), num_examples, batch_size), axis=1)
    found, counts = np.unique(rows, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, subsets)
    if len(subsets) > 1:
        assert_uniform(counts, len(subsets))


def test_with_replacement_draws_every_pair_equally_often():
    rows = draw(samplers.with_replacement, 20_000, 5, 2)
    assert_uniform(np.unique(rows, axis=0, return_counts=True)[1], 25)  # equal ones too: the draws are independent


@pytest.mark.parametrize("sampler", [samplers.without_replacement, samplers.with_replacement], ids=lambda sampler: sampler.__name__)
def test_consecutive_steps_are_independent(sampler):
    batches = np.sort(draw(sampler, 40_000, 4, 2), axis=1)
    subset = np.unique(batches, axis=0, return_inverse=True)[1].ravel()
    kinds = subset.max() + 1
    together = np.zeros((kinds, kinds), int)
    np.add.at(together, (subset[:-1:2], subset[1::2]), 1)
    assert stats.chi2_contingency(together).pvalue > 1e-6  # a fixed seed: passes or fails for ever


@pytest.mark.parametrize(
    ("sampler", "seen"),
    [
        (samplers.full, [20, 40, 60, 80]),
        (samplers.reshuffled, [8, 16, 20, 28]),
        (samplers.without_replacement, [8, 16, 24, 32]),
        (samplers.with_replacement, [8, 16, 24, 32]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_examples_seen_counts_short_batches_as_short(sampler, seen):
    np.testing.assert_array_equal(samplers.examples_seen(sampler, 4, 20, 8), seen)


@pytest.mark.parametrize(
    ("sampler", "num_epochs", "num_examples", "batch_size", "num_steps"),
    [
        (samplers.reshuffled, 1, 20, 8, 3),
        (samplers.reshuffled, 2, 20, 8, 6),
        (samplers.reshuffled, 1.4, 20, 8, 4),
        (samplers.reshuffled, 0.1, 20, 8, 1),
        (samplers.reshuffled, 0.8, 20, 8, 2),
        (samplers.with_replacement, 2, 20, 8, 5),
        (samplers.with_replacement, 1, 20, 20, 1),
        (samplers.with_replacement, 1.1, 50, 5, 11),  # 1.1 * 50 is 55.00000000000001 in floating point
    ],
)
def test_steps_for_is_the_least_that_sees_the_epochs(sampler, num_epochs, num_examples, batch_size, num_steps):
    assert samplers.steps_for(sampler, num_epochs, num_examples, batch_size) == num_steps


def test_a_sampler_is_found_by_name_or_taken_as_it_is():
    assert [samplers.resolve(sampler.__name__) for sampler in SAMPLERS] == SAMPLERS
    assert samplers.resolve(draw) is draw


@pytest.mark.parametrize(("given", "near"), [("reshufled", "'reshuffled'"), ("with_replacment", "'with_replacement'"), ("ful", "'full'")])
def test_an_unknown_sampler_is_refused_with_the_nearest_name(given, near, mistake):
    message = mistake(samplers.resolve, given)
    assert f"'{given}'" in message
    assert near in message
    assert all(sampler.__name__ in message for sampler in SAMPLERS)


@pytest.mark.parametrize("seed", [-1, 2.5])
def test_a_seed_is_a_whole_number_from_0(seed, mistake):
    message = mistake(samplers.generator, seed)
    assert str(seed) in message
    assert "whole number" in message
