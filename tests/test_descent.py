"""One loop moves all lanes: through the Hessian or over the examples alike, and with one gather of a batch for all of them."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdjax
from gdjax import descent, losses, methods, models, problems, program, samplers
from gdjax.records import Measurement
from tests import reference
from tests.conftest import random_data

NEAR_EXACT = 1e-9  # the reference's own; gradient descent contracts its errors, so float64 holds it down to any objective


@pytest.fixture(scope="module")
def lanes():
    return jnp.asarray(np.random.default_rng(4).normal(size=(4, 6)))


def run(problem, method, numbers, *, steps, indices=None, ragged=False, tile=1, lanes=3):
    """Begin and descend, recording at `steps`."""
    method, _ = methods.resolve(method, numbers)
    numbers = {name: jnp.asarray(values, float) for name, values in numbers.items()}
    steps = np.asarray(steps)
    gaps = np.diff(steps, prepend=0)
    schedule = descent.Schedule(*(column.astype(np.int32) for column in (gaps, np.cumsum(gaps) - gaps, steps)))

    def whole(problem, numbers, indices, schedule):
        start = descent.begin(problem, method, numbers, lanes, full=indices is None)
        return descent.descend(problem, method, numbers, indices, schedule, start, tile=tile, ragged=ragged)

    return jax.jit(whole)(problem, numbers, indices, schedule)


def recorded(trajectory, name):
    """One kind of measurement: a row a record, a column a lane."""
    return np.asarray(trajectory.records)[:, Measurement._fields.index(name)]


class TestEvaluate:
    def test_hessian_and_examples_agree(self, small, lanes):
        plain = problems.least_squares(*random_data(20, 3), hessian=False)
        here, there = descent.evaluate(small, lanes), descent.evaluate(plain, lanes)
        # two ways to the same sums of 20 terms of size 10: 1e-15 of the objective, which is 1 to 50 times the suboptimality
        for one, other in zip(here, there, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)

    def test_hessian_is_exact_where_subtraction_is_not(self, small):
        close = small.minimizer[:, None] + 1e-14 * np.array([[1.0], [-1.0], [2.0], [0.5]])
        error = close[:, 0] - small.minimizer
        suboptimality = float(descent.evaluate(small, jnp.asarray(close)).suboptimality[0])
        assert suboptimality == pytest.approx(0.5 * error @ small.hessian @ error, rel=1e-12)  # a sum of 16 products
        assert 0 < suboptimality < 1e-26  # f - f* by subtraction is a multiple of 1e-17

    def test_no_minimum_gives_nan_and_no_other_number(self, lanes):
        problem = problems.logistic(random_data(20, 3)[0], np.arange(20) % 2)
        point = descent.evaluate(problem, lanes)
        measured = descent.measure(problem, lanes, point)
        assert np.isnan(measured.suboptimality).all()
        assert np.isnan(measured.distance).all()
        assert np.isfinite(measured.objective).all()
        assert np.isfinite(measured.gradient_norm).all()

    def test_measure_takes_norms_over_all_leaves(self):
        problem = problems.from_loss(
            lambda params, example: jnp.sum((params["a"] - example) ** 2) + params["b"] ** 2,
            np.zeros((2, 3)),
            {"a": np.zeros(3), "b": 0.0},
            minimizer={"a": np.zeros(3), "b": 0.0},
            minimum=0.0,
        )
        lanes = {"a": jnp.array([[1.0], [2.0], [0.0]]), "b": jnp.array([2.0])}
        measured = descent.measure(problem, lanes, descent.evaluate(problem, lanes))
        # f = |a|^2 + b^2 = 9, gradient 2 x
        assert [float(number[0]) for number in measured] == pytest.approx([9.0, 9.0, 6.0, 3.0], rel=1e-15)


class TestDescend:
    RATES = np.array([0.001, 0.01, 0.02])

    def test_full_gradients_are_a_loop_by_hand(self, plain_notebook):
        _, trajectory = run(plain_notebook, "sgd", {"learning_rate": self.RATES}, steps=[0, 1, 7, 30])
        features, target = plain_notebook.data
        for lane, rate in enumerate(self.RATES):
            params, objective = np.zeros(2), []
            for step in range(31):
                residual = features @ params - target
                objective += [np.mean(residual**2)] if step in (0, 1, 7, 30) else []
                reached, params = params, params - rate * 2 * features.T @ residual / 80
            np.testing.assert_allclose(recorded(trajectory, "objective")[:, lane], objective, rtol=1e-12)  # 30 steps of round-off
            np.testing.assert_allclose(trajectory.params[:, lane], reached, rtol=1e-12)

    @pytest.mark.parametrize("tile", [1, 2, 5])
    def test_batches_are_a_loop_by_hand_however_many_are_gathered_at_a_time(self, plain_notebook, tile):
        table = samplers.reshuffled(samplers.generator(1), 11, 80, 32)
        table = np.concatenate([table, np.full((tile, 32), samplers.ABSENT, np.int32)])
        _, trajectory = run(
            plain_notebook, "sgd", {"learning_rate": self.RATES}, steps=[0, 3, 4, 11], indices=table, ragged=True, tile=tile
        )
        features, target = plain_notebook.data
        for lane, rate in enumerate(self.RATES):
            params = np.zeros(2)
            for row in table[:11]:
                present = row[row >= 0]
                params = params - rate * 2 * features[present].T @ (features[present] @ params - target[present]) / len(present)
            np.testing.assert_allclose(trajectory.params[:, lane], params, rtol=1e-12)  # 11 steps of round-off

    def test_a_run_may_be_cut_and_continued(self, notebook):
        whole_progress, whole = run(notebook, "adam", {"learning_rate": self.RATES}, steps=[0, 5, 10, 15])
        method, _ = methods.resolve("adam", {"learning_rate": self.RATES})
        numbers = {"learning_rate": jnp.asarray(self.RATES)}
        progress = descent.begin(notebook, method, numbers, 3, full=True)
        parts = []
        for gaps, steps in (([0, 5], [0, 5]), ([5, 5], [10, 15])):
            schedule = descent.Schedule(np.array(gaps, np.int32), np.zeros(2, np.int32), np.array(steps, np.int32))
            progress, part = jax.jit(descent.descend, static_argnums=1)(notebook, method, numbers, None, schedule, progress)
            parts.append(part)
        together = np.concatenate([recorded(part, "objective") for part in parts])
        # the same operations in two programs instead of one: round-off
        np.testing.assert_allclose(together, recorded(whole, "objective"), rtol=1e-13)
        np.testing.assert_allclose(progress.lanes, whole_progress.lanes, rtol=1e-13)

    def test_divergence_is_found_at_the_first_record_above_the_bound(self, notebook):
        rates = np.array([0.02, 0.05, 0.5])
        steps = [0, 2, 4, 6, 8, 10]
        _, trajectory = run(notebook, "sgd", {"learning_rate": rates}, steps=steps)
        bound = descent.DIVERGENCE_BOUND * reference.NOTEBOOK_OBJECTIVE_AT_ZERO
        # J grows by the square of the growth of |theta| (N15) from 146.7, so the first even t with growth^(2t) > 1e6
        growth = [reference.GROWTH[0.05], reference.GROWTH[0.5]]
        wanted = [next(t for t in steps if factor ** (2 * t) > 1e6) for factor in growth]
        assert trajectory.diverged_at.tolist() == [-1, *wanted]
        for lane, at in ((1, wanted[0]), (2, wanted[1])):
            objective = dict(zip(steps, recorded(trajectory, "objective")[:, lane].tolist(), strict=True))
            assert objective[at] > bound >= objective[at - 2]

    def test_a_diverged_lane_leaves_the_others_bit_for_bit(self, small):
        for indices in (None, samplers.with_replacement(samplers.generator(0), 601, 20, 8)):
            _, calm = run(small, "adam", {"learning_rate": [0.01, 0.02, 0.03], "b1": [0.9] * 3}, steps=[0, 600], indices=indices)
            _, wild = run(small, "adam", {"learning_rate": [0.01, 1e300, 0.03], "b1": [0.9] * 3}, steps=[0, 600], indices=indices)
            assert wild.diverged_at.tolist() == [-1, 600, -1]
            np.testing.assert_array_equal(calm.params[:, [0, 2]], wild.params[:, [0, 2]])

    def test_a_state_that_counts_lane_by_lane_works(self, small):
        def every_other_step_when_slow(learning_rate):
            def update(gradient, state, params=None):
                slow = learning_rate < 0.05
                moves = jnp.where(slow & (state % 2 == 1), 0.0, learning_rate)
                return jax.tree.map(lambda g: -moves * g, gradient), state + jnp.where(slow, 1, 2)

            return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

        _, trajectory = run(small, every_other_step_when_slow, {"learning_rate": [0.01, 0.1]}, steps=[0, 9], lanes=2)
        for lane, (rate, moves) in enumerate(((0.01, 5), (0.1, 9))):
            # moves of gradient descent contract the error by I - rate H each
            contraction = np.linalg.matrix_power(np.eye(4) - rate * small.hessian, moves)
            np.testing.assert_allclose(trajectory.params[:, lane], small.minimizer - contraction @ small.minimizer, rtol=1e-12)

    def test_steps_that_every_lane_shares_are_counted_once(self, small):
        method, _ = methods.resolve("adam", {"learning_rate": [0.1]})
        progress = descent.begin(small, method, {"learning_rate": jnp.ones(5)}, 5, full=True)
        shapes = {leaf.shape for leaf in jax.tree.leaves(progress.state)}
        assert shapes == {(4, 5), ()}  # the moments of each lane, one counter


@pytest.mark.parametrize("rate", list(reference.SPECTRUM_GRADIENT_DESCENT))
def test_gradient_descent_on_a_designed_spectrum_is_the_reference(rate):
    """C01."""
    problem = problems.designed_spectrum(np.geomspace(0.01, 1.0, 50))
    ds = gdjax.sweep(problem, sampler="full", num_steps=200, record_every=1, learning_rate=rate)
    values = reference.SPECTRUM_GRADIENT_DESCENT[rate]
    np.testing.assert_allclose(ds.objective[0], reference.SPECTRUM_AT_START, rtol=NEAR_EXACT)
    np.testing.assert_allclose(ds.objective.sel(step=list(values)), list(values.values()), rtol=NEAR_EXACT)


def test_gradient_descent_on_any_spectrum_is_the_sum_over_its_modes():
    eigenvalues, start = np.array([0.03, 0.4, 1.0, 2.5]), np.array([1.0, -2.0, 0.5, 3.0])
    rates = np.array([0.1, 0.7, 0.79, 0.9])  # stable below 2 / 2.5 = 0.8
    ds = gdjax.sweep(problems.designed_spectrum(eigenvalues, start), sampler="full", num_steps=100, record_every=1, learning_rate=rates)
    steps = np.arange(101)[None, :, None]
    exact = 0.5 * (eigenvalues * start**2 * (1 - rates[:, None, None] * eigenvalues) ** (2 * steps)).sum(-1)
    np.testing.assert_allclose(ds.objective, exact, rtol=1e-11)  # 100 factors, each rounded; powers near 1 - eta lambda = -1.25
    np.testing.assert_allclose(ds.suboptimality, exact, rtol=1e-11)


def computations(text):
    """The lines of each computation of an HLO module, by name."""
    found, name = {}, None
    for line in text.splitlines():
        opened = re.match(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$", line)
        if opened:
            name = opened.group(1)
            found[name] = []
        elif name is not None and line.startswith("}"):
            name = None
        elif name is not None:
            found[name].append(line)
    return found


def called(found, name):
    """Every computation that one calls, however deep."""
    names, todo = set(), [name]
    while todo:
        for line in found[todo.pop()]:
            for other in re.findall(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%([\w.\-]+)", line):
                if other not in names:
                    names.add(other)
                    todo.append(other)
    return names


def operations(lines, *kinds):
    """(kind, shape) of the operations of these kinds."""
    pattern = re.compile(rf"= \(?\w+\[([\d,]*)\]\S* ({'|'.join(kinds)})\(")
    found = (pattern.search(line) for line in lines)
    return [(match.group(2), tuple(int(d) for d in match.group(1).split(",") if d)) for match in found if match]


class HotLoop:
    """The optimized program of a sweep of mini-batches, and the body of its innermost loop with a product in it."""

    def __init__(self, text: str) -> None:
        found = computations(text)
        self.everything = [line for lines in found.values() for line in lines]
        bodies = {body for line in self.everything for body in re.findall(r" while\(.*body=%([\w.\-]+)", line)}
        inner = [body for body in bodies if not called(found, body) & bodies]
        self.steps = []
        for body in inner:
            lines = [line for name in (body, *called(found, body)) for line in found[name]]
            if operations(lines, "dot"):
                self.steps.append(lines)


LANES = 64


@pytest.fixture(scope="module", params=[(5, 16), (19, 32)], ids=["p=6, B=16", "p=20, B=32"])
def compiled(request):
    num_features, batch_size = request.param
    problem = problems.least_squares(*random_data(203, num_features))
    kept, program._programs = program._programs, {}
    try:
        rates = np.geomspace(1e-3, 1e-2, LANES)
        gdjax.sweep(problem, num_steps=50, record_every=10, learning_rate=rates, batch_size=batch_size)
        (executable,) = program._programs.values()
    finally:
        program._programs = kept
    return num_features + 1, batch_size, HotLoop(executable.as_text())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads what XLA makes for a CPU")
class TestCompiledProgram:
    def test_a_batch_is_gathered_once_for_all_lanes(self, compiled):
        num_parameters, batch_size, loop = compiled
        gathers = [shape for _, shape in operations(loop.everything, "gather")]
        features = [shape for shape in gathers if shape[-1] == num_parameters]
        assert len(features) == 1  # the features of a tile of steps, flat: (steps x batch, 1, p)
        (shape,) = features
        rows = np.prod(shape[:-1])
        assert rows % batch_size == 0
        assert rows // batch_size <= 16  # the ten steps up to a record, rounded up to a power of 2; not 64 times as many
        assert not any(LANES in shape for shape in gathers)

    def test_a_step_is_two_products_for_all_lanes(self, compiled):
        num_parameters, batch_size, loop = compiled
        (step,) = loop.steps
        shapes = sorted(tuple(sorted(shape)) for _, shape in operations(step, "dot"))
        assert shapes == sorted([tuple(sorted((batch_size, LANES))), tuple(sorted((num_parameters, LANES)))])

    def test_a_step_turns_and_copies_no_matrix_of_lanes(self, compiled):
        _, _, loop = compiled
        (step,) = loop.steps
        moved = [found for found in operations(step, "transpose", "copy") if LANES in found[1] and len(found[1]) > 1]
        assert moved == []

    def test_nothing_is_sorted_and_no_randomness_is_made(self, compiled):
        _, _, loop = compiled
        assert operations(loop.everything, "sort", "rng", "rng-bit-generator") == []


def test_the_engine_s_linear_model_is_any_user_s_loss(small):
    """The products written out and autodiff of the same loss give the same runs."""
    X, y = random_data(20, 3)

    def squared(params, example):
        return losses.squared_error(models.linear(params, example[0]), example[1])

    user = problems.from_loss(squared, (np.column_stack([np.ones(20), X]), y), np.zeros(4))
    settings = {"num_steps": 40, "record_every": 5, "batch_size": 8, "learning_rate": [0.01, 0.1]}
    # 40 steps of round-off in sums of another order
    np.testing.assert_allclose(gdjax.sweep(user, **settings).params, gdjax.sweep(small, **settings).params, rtol=1e-12)
