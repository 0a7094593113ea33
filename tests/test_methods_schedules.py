"""Schedules, parameter-free steps and online methods against their formulas written out, and against optax where it has them."""

import jax
import numpy as np
import optax
import pytest

import gdjax
from gdjax import problems
from gdjax.methods import schedules

T = 40
STEPS = np.arange(60)  # beyond the horizon too
SHAPES = [
    ("step_decay_sgd", {"drops": 4.0, "factor": 0.5}, 0.5 ** np.floor(STEPS * 4 / T)),
    ("inverse_time_sgd", {"decay": 3.0}, 1 / (1 + 3 * STEPS / T)),
    ("linear_sgd", {}, np.clip(1 - STEPS / T, 0, None)),
    ("cosine_sgd", {}, (1 + np.cos(np.pi * np.minimum(1, STEPS / T))) / 2),
    ("warmup_cosine_sgd", {"warmup": 0.25}, np.minimum(1, (STEPS + 1) / 10) * (1 + np.cos(np.pi * np.minimum(1, STEPS / T))) / 2),
    ("wsd_sgd", {"cooldown": 0.25}, np.clip(np.minimum(1, (T - STEPS) / 10), 0, None)),
]


def slide(params, example):
    """A loss of slope 1: a step is as long as its rate."""
    return params * example


def rates_of(method, **numbers):
    problem = problems.from_loss(slide, np.ones(1), np.zeros(()), minimizer=np.zeros(()))
    ds = gdjax.sweep(problem, method=method, sampler="full", num_steps=len(STEPS), record_every=1, learning_rate=0.3, **numbers)
    return np.diff(ds.distance.values)


@pytest.mark.parametrize(("method", "numbers", "shape"), SHAPES, ids=[row[0] for row in SHAPES])
def test_a_scheduled_rate_is_its_formula_step_by_step(method, numbers, shape):
    np.testing.assert_allclose(rates_of(method, horizon=T, **numbers), 0.3 * shape, atol=1e-14)


@pytest.mark.parametrize("length", [1, 8])
def test_linear_warm_up_grows_to_its_rate_and_stays(length):
    np.testing.assert_allclose(rates_of("warmup_sgd", length=length), 0.3 * np.minimum(1, (STEPS + 1) / length), rtol=1e-12)


def test_inverse_sqrt_needs_no_horizon():
    np.testing.assert_allclose(rates_of("inverse_sqrt_sgd"), 0.3 / np.sqrt(STEPS + 1), rtol=1e-12)


def test_cosine_and_linear_are_optax_s_schedules():
    ours = np.stack([schedules.cosine(STEPS, T), schedules.linear(STEPS, T)])
    theirs = np.stack([optax.cosine_decay_schedule(1.0, T)(STEPS), optax.linear_schedule(1.0, 0.0, T)(STEPS)])
    np.testing.assert_allclose(ours, theirs, atol=1e-14)


def test_horizons_share_a_program(compilations):
    problem = problems.designed_spectrum([1.0, 2.0])
    for horizon in (10, 20):
        gdjax.sweep(problem, method="cosine_sgd", sampler="full", num_steps=5, learning_rate=0.1, horizon=horizon, observer=compilations)
    assert compilations.count == 1


def reduce_on_plateau_by_hand(losses, factor, patience, threshold=1e-4):
    """PyTorch's rule, mode min, threshold relative."""
    scale, best, bad, scales = 1.0, np.inf, 0, []
    for loss in losses:
        best, bad = (loss, 0) if loss < best * (1 - threshold) else (best, bad + 1)
        if bad > patience:
            scale, bad = scale * factor, 0
        scales.append(scale)
    return scales


@pytest.mark.parametrize("window", [1, 4])
def test_the_rate_on_a_plateau_is_pytorch_s(window):
    rng = np.random.default_rng(0)
    losses = np.repeat(np.exp(-0.1 * np.arange(15)) + 0.3 * rng.random(15), 4)
    problem = problems.from_loss(given, losses, np.zeros(()), minimizer=np.zeros(()))
    ds = gdjax.sweep(
        problem,
        method="plateau_sgd",
        sampler=one_by_one,
        batch_size=1,
        num_steps=60,
        record_every=1,
        learning_rate=1.0,
        patience=2.0,
        window=window,
    )
    by_hand = reduce_on_plateau_by_hand(losses[::window], 0.5, 2)
    expected = by_hand if window == 1 else [1.0] * 3 + np.repeat(by_hand, 4).tolist()[:57]  # a window counts when it ends
    np.testing.assert_allclose(np.diff(ds.distance), expected, atol=1e-13)


def given(params, example):
    return example + params - jax.lax.stop_gradient(params)


def one_by_one(rng, num_steps, num_examples, batch_size):
    return (np.arange(num_steps, dtype=np.int32) % num_examples)[:, None]


def test_a_counter_that_follows_the_loss_is_each_lane_s_own():
    """Two rates, one of which stalls: optax's own plateau rule in a chain, which the engine used to take for a shared counter."""

    def method(learning_rate):
        return optax.chain(optax.sgd(learning_rate), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))

    problem = problems.designed_spectrum([1.0, 0.1])
    both = gdjax.sweep(problem, method=method, sampler="full", num_steps=30, learning_rate=[0.5, 2.0])
    for place, rate in enumerate([0.5, 2.0]):
        alone = gdjax.sweep(problem, method=method, sampler="full", num_steps=30, learning_rate=[rate])
        np.testing.assert_allclose(both.params[place], alone.params[0], rtol=1e-12)


def gradient(x):
    return np.array([1.0, 10.0]) * x


def path(method, num_steps, **numbers):
    """x_t through the engine on f = x1^2 / 2 + 5 x2^2, begun at (1, 1): one sweep for each length."""
    problem = problems.designed_spectrum([1.0, 10.0])
    return [
        gdjax.sweep(problem, method=method, sampler="full", num_steps=steps, record_every=steps, **numbers).params.values
        for steps in range(1, num_steps + 1)
    ]


def test_d_adaptation_is_algorithm_1():
    x0 = x = np.ones(2)
    s, d, squares, credit, points, gamma = np.zeros(2), 0.1, 0.0, 0.0, [], None
    for _ in range(12):
        g = gradient(x)
        gamma = 1 / np.linalg.norm(g) if gamma is None else gamma
        s, credit, squares = s + d * g, credit + gamma * d**2 * g @ g, squares + g @ g
        gamma = 1 / np.sqrt(squares)
        d = max(d, (gamma * s @ s - credit) / (2 * np.linalg.norm(s)))
        x = x0 - gamma * s
        points.append(x)
    np.testing.assert_allclose(path("d_adaptation", 12, learning_rate=1.0, estimate=0.1), points, rtol=1e-11)
    assert 0.1 < d < np.sqrt(2)


def test_prodigy_is_algorithm_1():
    x0 = x = np.ones(2)
    d, squares, credit, points = 0.1, 0.0, 0.0, []
    for _ in range(12):
        g = gradient(x)
        squares += d**2 * g @ g
        eta = d**2 / np.sqrt(squares + d**2 * 4.0)
        credit += eta * g @ (x0 - x)
        x = x - eta * g
        d = max(d, credit / np.linalg.norm(x - x0))
        points.append(x)
    np.testing.assert_allclose(path("prodigy_sgd", 12, learning_rate=1.0, estimate=0.1, slope=2.0), points, rtol=1e-11)
    assert 0.1 < d < np.sqrt(2)


@pytest.mark.parametrize("interpolation", [0.0, 0.7, 1.0])
def test_schedule_free_is_the_average_of_all_points_from_the_start_on(interpolation):
    z = x = np.ones(2)
    zs, points = [z], []
    for _ in range(8):
        z = z - 0.05 * gradient((1 - interpolation) * z + interpolation * x)
        zs.append(z)
        x = np.mean(zs, axis=0)
        points.append(x)
    np.testing.assert_allclose(path("schedule_free", 8, learning_rate=0.05, interpolation=interpolation), points, rtol=1e-12)


def test_optax_s_schedule_free_leaves_the_start_out():
    z = y = np.ones(2)
    zs = []
    for _ in range(8):
        z = z - 0.05 * gradient(y)
        zs.append(z)
        y = 0.9 * np.mean(zs, axis=0) + 0.1 * z
    np.testing.assert_allclose(path("schedule_free_sgd", 8, learning_rate=0.05, b1=0.9)[-1], np.mean(zs, axis=0), rtol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_polyak_s_step_is_optax_s_whose_scaling_divides(factor):
    """optax scales the gradient before it takes its norm, so that `scaling` 1/2 is the step x 2."""
    ours = path("polyak_step", 5, learning_rate=factor)
    theirs = path("polyak_sgd", 5, max_learning_rate=1e30, scaling=1.0 / factor)
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)


@pytest.mark.parametrize("method", ["online_adam", "online_amsgrad", "online_adagrad"])
def test_online_methods_stay_in_their_box(method):
    ds = gdjax.sweep(problems.notebook_line(), method=method, num_steps=50, learning_rate=[0.5, 5.0], bound=0.5)
    assert np.abs(ds.params).max() <= 0.5
    assert float(np.abs(ds.params[-1]).max()) == 0.5
