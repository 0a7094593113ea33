"""The update rules are the textbooks', and every method that has a name runs, learns, and is optax's own loop lane by lane."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gdjax
from gdjax import descent, methods, problems, samplers
from tests import reference
from tests.conftest import Compilations, random_data

SPECTRUM = np.geomspace(0.01, 1.0, 50)
NEAR_EXACT = 1e-9  # the reference's own tolerance; heavy ball at 1e-30, its double root amplifying round-off t-fold, needs the most
NUM_STEPS, BATCH_SIZE, SEED = 60, 8, 3
BY_HAND = 20  # of those steps

RATES = {  # where 0.1 is not a rate at which a method goes half the way in 60 steps of least squares with L = 3
    "adadelta": 20.0,
    "adafactor": 0.3,
    "adagrad": 0.5,
    "cocob": 1.0,
    "d_adaptation": 10.0,
    "dadapt_adamw": 1.0,
    "fista": 0.02,
    "fromage": 0.5,
    "heavy_ball": 0.02,
    "lars": 0.02,
    "nesterov": 0.02,
    "nu_method": 0.02,
    "online_adagrad": 1.0,
    "online_adam": 0.5,
    "online_amsgrad": 0.5,
    "optimistic_gradient_descent": 0.05,
    "polyak_sgd": 0.5,
    "polyak_step": 0.5,
    "prodigy": 1.0,
    "prodigy_sgd": 1.0,
    "robbins_monro": 0.5,
    "silver": 0.02,
    "simplified_ademamix": 0.01,
    "sm3": 0.5,
    "steepest_descent": 20.0,  # a long look along the line drowns the noise of examples that differ between looking and stepping
}
WARNS = {  # optax's own remarks on these two
    "noisy_sgd": "ignore:Specifying a key",
    "optimistic_adam": "ignore:`optimistic_adam` is deprecated",
}


def optax_like(name):
    marks = [pytest.mark.filterwarnings(WARNS[name])] if name in WARNS else []
    return pytest.param(name, marks=marks)


def rate_name(build):
    return "learning_rate" if "learning_rate" in inspect.signature(build).parameters else "max_learning_rate"


def examples_by_hand(problem, rows):
    """What a rule may ask of these examples, in NumPy's own words."""
    features, target = (jnp.asarray(part)[rows] for part in problem.data)
    return methods.Examples(
        rows=jnp.asarray(rows),
        weights=jnp.full(len(rows), 1.0 / len(rows)),
        gradient=lambda params: 2.0 * features.T @ (features @ params - target) / len(rows),
        gradients=lambda params: 2.0 * (features @ params - target)[:, None] * features,
    )


def by_hand(problem, optimizer):
    """The beginning of one run with optax alone: no vmap, no scan, no gather, batches sliced in NumPy."""
    asks = isinstance(optimizer, methods.ExampleGradientTransformation)
    optimizer = optax.with_extra_args_support(optimizer)
    features, target = problem.data
    objective = {"objective": examples_by_hand(problem, np.arange(len(target)))} if asks else {}
    params = jnp.zeros(features.shape[1])
    state = optimizer.init(params, **objective)
    for row in samplers.reshuffled(samplers.generator(SEED), BY_HAND, len(target), BATCH_SIZE):
        present = row[row >= 0]
        residual = features[present] @ params - target[present]
        gradient = 2.0 * features[present].T @ residual / len(present)
        told = objective | {"batch": examples_by_hand(problem, present)} if asks else {}
        updates, state = optimizer.update(gradient, state, params, value=jnp.mean(residual**2), **told)
        params = optax.apply_updates(params, updates)
    if isinstance(state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(state, params)
    return getattr(state, "iterate", params)  # the own Nesterov methods report x_t, and step from y_t


@pytest.fixture(scope="module", params=[optax_like(name) for name in methods.available()])
def race(request, small_problem):
    """One method's runs at three rates, the same again, and at three other rates."""
    name, build = request.param, methods.available()[request.param]
    rate = RATES.get(name, 0.1)
    observer = Compilations()

    def run(*rates):
        return gdjax.sweep(
            small_problem,
            method=name,
            num_steps=NUM_STEPS,
            record_every=BY_HAND,
            batch_size=BATCH_SIZE,
            seed=SEED,
            observer=observer,
            **{rate_name(build): list(rates)},
        )

    first, again, other = run(0.5 * rate, rate, 1.5 * rate), run(0.5 * rate, rate, 1.5 * rate), run(0.3 * rate, rate, 0.7 * rate)
    return SimpleNamespace(name=name, build=build, rate=rate, first=first, again=again, other=other, compiled=observer.count)


@pytest.fixture(scope="module")
def small_problem():
    return problems.least_squares(*random_data(20, 3))


class TestEveryMethod:
    def test_makes_progress(self, race):
        objective = race.first.objective
        assert np.isfinite(objective).all()
        assert float(objective[1, -1]) < 0.5 * float(objective[1, 0])

    def test_two_sets_of_rates_are_one_program(self, race):
        assert race.compiled == 1

    def test_the_same_seed_is_the_same_run(self, race):
        for name in race.first.data_vars:
            np.testing.assert_array_equal(race.first[name], race.again[name])

    def test_a_run_does_not_depend_on_the_other_rates(self, race):
        # one program, the same lane: bit for bit
        np.testing.assert_array_equal(race.first.params[1], race.other.params[1])

    def test_a_lane_is_optax_s_own_loop(self, race, small_problem):
        alone = by_hand(small_problem, race.build(**{rate_name(race.build): jnp.float64(race.rate)}))
        value, gradient = small_problem.value_and_gradient(alone)
        wanted = {
            "objective": value,
            "gradient_norm": np.linalg.norm(gradient),
            "distance": np.linalg.norm(alone - small_problem.minimizer),
        }
        for name, number in wanted.items():
            # 20 steps of round-off, 1e-16 each, in sums of another order
            np.testing.assert_allclose(race.first[name].sel(step=BY_HAND)[1], number, rtol=1e-11)

    def test_float32_stays_float32(self, race, small_problem):
        problem = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), small_problem)
        method, _ = methods.resolve(race.name, {rate_name(race.build): [0.1]})
        numbers = {rate_name(race.build): jnp.full(3, race.rate, jnp.float32)}
        schedule = descent.Schedule(*(np.array([0, 2, 2], np.int32),) * 3)
        indices = np.zeros((6, BATCH_SIZE), np.int32)

        def run(problem, numbers):
            start = descent.begin(problem, method, numbers, 3, full=False)
            return start, descent.descend(problem, method, numbers, indices, schedule, start, ragged=True)

        start, (progress, trajectory) = jax.eval_shape(run, problem, numbers)
        assert progress.lanes.dtype == trajectory.params.dtype == np.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(trajectory.records)} == {np.dtype(np.float32)}
        assert jax.tree.map(str, progress) == jax.tree.map(str, start)  # every shape and dtype of the state


def momentum_by_hand(gradient, start, learning_rate, momentum, num_steps):
    """x_t and y_t of the textbook's Nesterov, and x_t of the heavy ball; `momentum` is a function of the step."""
    ball, previous = start.copy(), start.copy()
    x, y = start.copy(), start.copy()
    balls, xs, ys = [ball], [x], [y]
    for t in range(num_steps):
        ball, previous = ball - learning_rate * gradient(ball) + momentum(t) * (ball - previous), ball
        after = y - learning_rate * gradient(y)
        x, y = after, after + momentum(t) * (after - x)
        balls.append(ball)
        xs.append(x)
        ys.append(y)
    return np.array(balls), np.array(xs), np.array(ys)


class TestMomentum:
    """x_t is compared at every step through its objective, and at the end through the parameters."""

    LEARNING_RATE, MOMENTUM, STEPS = 0.004, 0.8, 60

    def hand(self, problem, momentum=None):
        def gradient(params):
            return problem.hessian @ (params - problem.minimizer)

        momentum = momentum or (lambda t: self.MOMENTUM)
        return momentum_by_hand(gradient, np.zeros(2), self.LEARNING_RATE, momentum, self.STEPS)

    def run(self, problem, method, **numbers):
        return gdjax.sweep(
            problem, method=method, sampler="full", num_steps=self.STEPS, record_every=1, learning_rate=self.LEARNING_RATE, **numbers
        )

    def agree(self, problem, ds, path):
        error = path - problem.minimizer
        suboptimality = 0.5 * np.einsum("ti,ij,tj->t", error, problem.hessian, error)
        # 60 steps of round-off 1e-16, on errors that contract to 1e-2 of the start
        np.testing.assert_allclose(ds.suboptimality, suboptimality, rtol=1e-11)
        np.testing.assert_allclose(ds.params, path[-1], rtol=1e-11)

    def test_heavy_ball_is_polyak_s(self, notebook):
        self.agree(notebook, self.run(notebook, "heavy_ball", momentum=self.MOMENTUM), self.hand(notebook)[0])

    def test_optax_s_momentum_is_the_heavy_ball_at_a_constant_rate(self, notebook):
        self.agree(notebook, self.run(notebook, "sgd", momentum=self.MOMENTUM), self.hand(notebook)[0])

    def test_nesterov_reports_the_iterates_of_the_textbook(self, notebook):
        self.agree(notebook, self.run(notebook, "nesterov", momentum=self.MOMENTUM), self.hand(notebook)[1])

    def test_optax_s_nesterov_reports_the_extrapolated_points(self, notebook):
        _, x, y = self.hand(notebook)
        ds = self.run(notebook, "sgd", momentum=self.MOMENTUM, nesterov=True)
        self.agree(notebook, ds, y)
        assert np.abs(x[-1] - y[-1]).max() > 1e-3  # which are other points

    def test_nesterov_convex_has_momentum_t_over_t_plus_3(self, notebook):
        self.agree(notebook, self.run(notebook, "nesterov_convex"), self.hand(notebook, lambda t: t / (t + 3))[1])

    def test_without_momentum_all_are_gradient_descent(self, notebook):
        plain = self.run(notebook, "sgd")
        for method in ("heavy_ball", "nesterov"):
            ds = self.run(notebook, method, momentum=0.0)
            np.testing.assert_allclose(ds.suboptimality, plain.suboptimality, rtol=1e-12)  # one formula more: round-off


@pytest.mark.parametrize(
    ("method", "numbers", "values"),
    [
        ("heavy_ball", {"learning_rate": 4 / 1.1**2, "momentum": (9 / 11) ** 2}, reference.SPECTRUM_HEAVY_BALL),
        ("nesterov", {"learning_rate": 1.0, "momentum": 9 / 11}, reference.SPECTRUM_NESTEROV),
        ("nesterov_convex", {"learning_rate": 1.0}, reference.SPECTRUM_NESTEROV_CONVEX),
    ],
)
def test_momentum_on_a_designed_spectrum_is_the_reference(method, numbers, values):
    """C01; the objective is exact far below 1e-16 since its minimum is 0."""
    ds = gdjax.sweep(problems.designed_spectrum(SPECTRUM), method=method, sampler="full", num_steps=200, record_every=1, **numbers)
    np.testing.assert_allclose(ds.objective[0], reference.SPECTRUM_AT_START, rtol=NEAR_EXACT)
    np.testing.assert_allclose(ds.objective.sel(step=list(values)), list(values.values()), rtol=NEAR_EXACT)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_heavy_ball_is_stable_below_two_times_one_plus_momentum_over_smoothness(momentum):
    edge = 2 * (1 + momentum)
    ds = gdjax.sweep(
        problems.designed_spectrum(SPECTRUM),
        method="heavy_ball",
        sampler="full",
        num_steps=3000,
        momentum=momentum,
        learning_rate=[0.99 * edge, 1.01 * edge],
    )
    assert float(ds.objective[0, -1]) < 1e-6 * float(ds.objective[0, 0])
    assert ds.diverged_at.values.tolist()[0] == -1
    assert ds.diverged_at.values[1] > 0


def test_schedules_shape_the_program():
    """A schedule is a function of the step, so it's no axis; optax applies it."""
    problem = problems.designed_spectrum([1.0])
    ds = gdjax.sweep(problem, sampler="full", num_steps=3, record_every=1, learning_rate=optax.polynomial_schedule(0.5, 0.0, 1, 2))
    # x is multiplied by 1 - rate, rates 0.5, 0.25, 0
    np.testing.assert_allclose(ds.objective, 0.5 * np.array([1.0, 0.5, 0.375, 0.375]) ** 2, rtol=1e-14)


class TestResolve:
    def test_own_methods_optax_and_its_contrib_are_available(self):
        found = methods.available()
        assert {"sgd", "adam", "lion", "muon", "prodigy", "heavy_ball", "nesterov", "nesterov_convex"} <= set(found)
        assert found["heavy_ball"] is methods.heavy_ball
        assert not any(name.startswith(("scale_by_", "_")) for name in found)
        assert not {"resolve", "available", "reported_point", "chain", "inject_hyperparams"} & set(found)

    def test_numbers_are_traced_and_flags_are_not(self):
        method, traced = methods.resolve("sgd", {"learning_rate": [0.1, 0.2], "momentum": 0.9, "nesterov": True})
        assert traced == ("learning_rate", "momentum")
        assert method.settings == (("nesterov", True),)

    def test_a_count_shapes_the_program(self):
        method, traced = methods.resolve("muon", {"learning_rate": 0.1, "ns_steps": 3})
        assert traced == ("learning_rate",)
        assert method.settings == (("ns_steps", 3),)

    def test_a_callable_is_a_method(self):
        def mine(learning_rate, shrink=0.5):
            return optax.sgd(learning_rate * shrink)

        method, traced = methods.resolve(mine, {"learning_rate": [0.1], "shrink": [0.1, 0.2]})
        assert (method.name, traced) == ("mine", ("learning_rate", "shrink"))

    @pytest.mark.parametrize(("given", "near"), [("sdg", "'sgd'"), ("adamww", "'adamw'"), ("heavyball", "'heavy_ball'")])
    def test_an_unknown_method_is_refused_with_the_nearest_name(self, given, near, mistake):
        message = mistake(methods.resolve, given, {"learning_rate": 0.1})
        assert f"'{given}'" in message
        assert near in message
        assert "nesterov_convex" in message  # the list of what is allowed

    @pytest.mark.parametrize("name", ["lbfgs", "sophia", "galore"])
    def test_a_method_that_needs_more_is_refused_with_the_reason(self, name, mistake):
        message = mistake(methods.resolve, name, {"learning_rate": 0.1})
        assert f"'{name}'" in message
        assert "can't be used" in message

    def test_an_unknown_number_is_refused_with_the_nearest_name(self, mistake):
        message = mistake(methods.resolve, "sgd", {"learning_rate": 0.1, "momentun": 0.9})
        assert "'momentun'" in message
        assert "'momentum'" in message
        assert "sgd" in message

    def test_a_missing_rate_is_asked_for(self, mistake):
        message = mistake(methods.resolve, "adam", {})
        assert "learning_rate" in message
        assert "adam" in message

    @pytest.mark.parametrize(
        ("method", "numbers"),
        [("muon", {"learning_rate": 0.1, "ns_steps": [3, 5]}), ("sgd", {"learning_rate": 0.1, "nesterov": [True, False]})],
    )
    def test_what_shapes_the_program_cannot_be_swept(self, method, numbers, mistake):
        message = mistake(methods.resolve, method, numbers)
        assert "can't be swept" in message
        assert list(numbers)[1] in message
