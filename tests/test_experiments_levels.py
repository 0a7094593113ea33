"""The page's levels of implementation and its traps, against numbers computed independently, and with a constant broken on purpose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import implementation_levels, training_traps
from gdjax import problems, theory
from gdjax.records import InputError
from gdjax.sweep import sweep
from tests import reference

MODULES = pytest.mark.parametrize("module", [implementation_levels, training_traps])


def square(params, example):
    return (params - example) ** 2


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def page():
    return problems.page_data(num_examples=400)


@pytest.fixture(scope="module")
def levels(page):
    return implementation_levels.run(page, sweep)


@pytest.fixture(scope="module")
def traps(page):
    return training_traps.run(page, sweep)


@MODULES
def test_an_experiment_on_lines_refuses_anything_else(module):
    X, y = np.arange(12.0).reshape(6, 2) % 5, np.arange(6.0)
    for other in (
        problems.from_loss(square, np.ones(9), np.zeros(())),
        problems.designed_spectrum([1.0]),
        problems.least_squares(X, y, False),
    ):
        with pytest.raises(InputError, match=f"experiment {module.__name__.rpartition('.')[2]} is about .*, which {other.name} is not"):
            module.run(other, sweep)


@MODULES
def test_a_rate_of_zero_moves_nothing_and_is_refused_where_a_step_is_needed(module):
    if module is training_traps:
        with pytest.raises(InputError, match=r"learning_rate=0\.0 is not allowed"):
            module.run(problems.notebook_line(), sweep, learning_rate=0.0)
    else:
        results = module.run(problems.notebook_line(), sweep, learning_rate=0.0, num_epochs=3)
        assert lost(module.check(results, problems.notebook_line())) == []


@MODULES
def test_all_findings_hold_on_the_page_s_data(module, page, levels, traps):
    assert lost(module.check(levels if module is implementation_levels else traps, page)) == []


@MODULES
def test_float32_has_its_own_tolerance(module):
    problem = problems.notebook_line()
    assert lost(module.check(module.run(problem, functools.partial(sweep, precision="float32")), problem)) == []


@MODULES
@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
def test_more_parameters_than_examples_and_constant_columns_are_judged_and_drawn_too(module):
    rng = np.random.default_rng(0)
    for problem in (
        problems.least_squares(rng.normal(size=(10, 15)), rng.normal(size=10)),
        problems.least_squares(np.ones((20, 2)), np.arange(20.0)),
    ):
        results = module.run(problem, sweep)
        assert lost(module.check(results, problem)) == []
        module.draw(results, problem)


def test_level_2_as_the_page_has_it_is_the_reference_one(levels):
    full = levels["full"].to_dataset()
    assert (full.sizes["step"], levels["mini"].sizes["step"]) == (101, 1301)
    for level in implementation_levels.LEVELS:
        excess = full.excess.sel(level=level).values
        np.testing.assert_allclose(
            reference.PAGE_MINIMUM + excess[[0, 100]], [reference.PAGE_AT_ZERO, reference.PAGE_LEVEL_2_OBJECTIVE], rtol=1e-10
        )
        np.testing.assert_allclose(excess[100] / excess[0], reference.PAGE_LEVEL_2_EXCESS_LEFT, rtol=1e-10)
        np.testing.assert_allclose(full.path.sel(level=level)[-1], reference.PAGE_LEVEL_2_PARAMS, rtol=1e-10)


def test_the_page_s_bound_is_violated_by_what_is_left(levels, page):
    best = theory.contraction(theory.optimal_rate(page.smoothness, page.strong_convexity), page.smoothness, page.strong_convexity)
    assert best**200 == pytest.approx(reference.PAGE_BOUND, rel=1e-9)
    claim = implementation_levels._comparability_finding(levels["full"].to_dataset(), page).claim
    assert "bound says 3.1e-180" in claim


def test_levels_1_and_3_end_where_reshuffled_batches_stall_and_not_where_independent_ones_do(levels):
    """The reference's two runs are two draws of torch's; half of the page's 100 epochs are averaged here."""
    late = levels["mini"].excess.sel(level="1 manual").values[13 * 50 :: 13].mean()
    assert late == pytest.approx(reference.PAGE_FLOORS["reshuffled"], rel=0.6)  # 51 correlated draws of 4 squares
    for excess in (reference.PAGE_LEVEL_1_EXCESS, reference.PAGE_LEVEL_3_EXCESS):
        assert 0.1 < excess / reference.PAGE_FLOORS["reshuffled"] < 4.0
        assert excess < 0.2 * reference.PAGE_FLOORS["without_replacement"]


@pytest.mark.parametrize("level", implementation_levels.LEVELS)
def test_a_level_with_another_gradient_would_be_found(level, monkeypatch):
    problem = problems.notebook_line()
    right = implementation_levels.LEVELS[level]
    monkeypatch.setitem(implementation_levels.LEVELS, level, lambda rate: right(1.0001 * rate))
    claims = lost(implementation_levels.check(implementation_levels.run(problem, sweep, num_epochs=20), problem))
    assert any(level in claim or "gdjax is level 1" in claim for claim in claims)


def test_a_shallow_copy_returns_the_last_epoch_and_a_copy_the_best(levels):
    one = levels["pipeline"].to_dataset()
    history, returned = one.validation.values, dict(zip(one.kept.values, one.returned.values, strict=True))
    assert len(history) == history.argmin() + 1 + implementation_levels.PATIENCE
    assert returned["state_dict().copy()"] == pytest.approx(history[-1], rel=1e-12)
    assert [returned["deepcopy"], returned["JAX reference"]] == pytest.approx([history.min()] * 2, rel=1e-12)
    assert history[-1] > 1.001 * history.min()


def test_a_best_model_that_is_not_the_best_would_be_found(levels, page):
    bent = levels.copy()
    one = levels["pipeline"].to_dataset()
    bent["pipeline"] = one.assign(returned=one.returned.sel(kept="state_dict().copy()") + 0.0 * one.returned)
    assert [claim.partition("kept by ")[2].partition(",")[0] for claim in lost(implementation_levels.check(bent, page))] == [
        "deepcopy",
        "JAX reference",
    ]


def test_gradients_never_set_to_zero_are_the_reference_s(traps):
    swinging = traps["accumulated"].to_dataset()
    steps = list(reference.PAGE_ACCUMULATED)
    np.testing.assert_allclose(swinging.objective.sel(step=steps), list(reference.PAGE_ACCUMULATED.values()), rtol=1e-9)
    ends = [float(swinging.objective.min()), float(swinging.objective.max())]
    np.testing.assert_allclose(ends, reference.PAGE_ACCUMULATED_RANGE, rtol=1e-9)
    assert not (swinging.diverged_at >= 0)


def test_targets_that_broadcast_give_the_reference_losses():
    """T08: the page's function on all 500 rows of its float32 data."""
    X, y = problems.page_data().data
    with jax.numpy_rank_promotion("allow"):
        history, w, _ = training_traps.page_batch(jnp.asarray(X[:, 1:]), jnp.asarray(y), 0.01, 4)
    np.testing.assert_allclose(history, reference.PAGE_BROADCAST_LOSSES, rtol=1e-5)  # the reference's are float32
    assert w.shape == reference.PAGE_BROADCAST_SHAPE
    assert training_traps.broadcast_radius(problems.page_data(), 0.01) == pytest.approx(9.0, rel=1e-4)  # |1 - 2 eta n|


def test_strict_rank_promotion_refuses_targets_that_broadcast():
    X, y = problems.page_data().data
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
        training_traps.page_batch(jnp.asarray(X[:, 1:]), jnp.asarray(y), 0.01, 4)


def test_the_page_s_log_is_one_update_old(traps, levels):
    right = traps["broadcast"].right.values
    assert len(right) == 100
    assert right[0] == pytest.approx(reference.PAGE_AT_ZERO, rel=1e-10)
    assert right[-1] == pytest.approx(reference.PAGE_LEVEL_2_LOGGED, rel=1e-10)


def test_squeezed_predictions_end_at_the_mean_target(traps):
    one = traps["broadcast"].to_dataset()
    np.testing.assert_allclose(one.end, [reference.PAGE_MEAN_TARGET, 0.0, 0.0, 0.0], atol=1e-10)
    variance = np.var(problems.page_data(num_examples=400).data[1])
    assert variance == pytest.approx(reference.PAGE_TARGET_VARIANCE, rel=1e-7)


def test_a_wrong_oscillation_would_be_found(traps, page, monkeypatch):
    exact = theory.accumulated_gradient
    monkeypatch.setattr(theory, "accumulated_gradient", lambda modes, rate, steps: exact(modes, 1.00001 * rate, steps))
    assert any("modes' cosines" in claim for claim in lost(training_traps.check(traps, page)))


def test_momentum_below_one_would_be_found(page, monkeypatch):
    monkeypatch.setattr(training_traps, "accumulated", functools.partial(_nearly_accumulated))
    claims = lost(training_traps.check(training_traps.run(page, sweep, num_accumulated=500), page))
    assert any("modes' cosines" in claim for claim in claims)


def _nearly_accumulated(learning_rate):
    import optax

    return optax.sgd(learning_rate, momentum=0.9999)


def test_targets_that_do_not_broadcast_would_be_found(page, traps, monkeypatch):
    bent = traps.copy()
    one = traps["broadcast"].to_dataset()
    fixed = {
        "num_weights": one.num_weights / 400,
        "reported": ((one.fitted - page.data[1]) ** 2).mean(),
        "path": one.path * 1.001,
        "end": 1.1 * one.end,
    }
    bent["broadcast"] = one.assign(fixed | {"right": 0.97 * one.right})
    claims = lost(training_traps.check(bent, page))
    for part in ("weights that the page's", "as reported", "descent goes to a constant", "J where it ends", "logged before the update"):
        assert any(part in claim for claim in claims), part
    monkeypatch.setattr(training_traps, "broadcast_radius", lambda some, rate: 9.0)
    assert any("growth of the error" in claim for claim in lost(training_traps.check(traps, page)))


def test_many_rows_are_cut_to_what_n_by_n_numbers_allow():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 2))
    problem = problems.least_squares(X, X @ [1.0, 2.0] + rng.normal(size=700))
    results = training_traps.run(problem, sweep, num_accumulated=100)
    assert results["broadcast"].sizes["row"] == training_traps.MOST_ROWS
    assert lost(training_traps.check(results, problem)) == []
    training_traps.draw(results, problem)
