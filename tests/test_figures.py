"""Figures show what they must; how they look is judged by eye."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from gdjax import figures, problems, theory
from gdjax.sweep import sweep


def lines(axes, style):
    return [line for line in axes.get_lines() if line.get_linestyle() == style]


@pytest.fixture(scope="module")
def dataset():
    rates = np.geomspace(0.001, 0.5, 200)
    return sweep(problems.notebook_line(), sampler="full", num_steps=100, learning_rate=rates)


def test_two_hundred_rates_are_a_colour_scale_and_no_legend(dataset):
    drawn = figures.convergence(dataset, edge=0.029)
    axes, bar = drawn.axes
    assert axes.get_legend() is None
    assert 2 < len(lines(axes, "-")) <= figures.MOST_CURVES
    assert bar.get_ylabel() == figures.LABELS["learning_rate"]


def test_diverged_runs_end_in_a_triangle_at_the_top(dataset):
    axes = figures.convergence(dataset).axes[0]
    triangles = [line for line in axes.get_lines() if line.get_marker() == "^"]
    assert triangles
    assert {line.get_ydata()[0] for line in triangles} == {axes.get_ylim()[1]}


def test_theory_is_dashed(dataset):
    problem = problems.notebook_line()
    one = dataset.isel(learning_rate=[10])
    exact = theory.gradient_descent(theory.modes(problem), one.learning_rate.values, one.step.values)
    drawn = figures.convergence(one, theory=one.suboptimality.copy(data=exact))
    assert len(lines(drawn.axes[0], "--")) == 1


def test_a_single_run_and_a_band_over_seeds_draw():
    problem = problems.notebook_line()
    assert isinstance(figures.convergence(sweep(problem, num_steps=20, learning_rate=0.01), x="epoch"), Figure)
    seeds = sweep(problem, num_steps=20, learning_rate=[0.001, 0.01], seed=range(3), batch_size=4)
    assert isinstance(figures.convergence(seeds, y="objective"), Figure)


def test_drawing_leaves_the_users_settings_alone(dataset):
    before = dict(mpl.rcParams)
    figures.convergence(dataset)
    assert dict(mpl.rcParams) == before


def test_limits_leave_room_for_divergence_and_not_for_infinity():
    low, high = figures.limits(100.0, np.array([1e-3, np.inf, np.nan, 1e200, 0.0]))
    assert (low, high) == (pytest.approx(3e-4), 1e5)


def test_figures_are_there_from_the_package_itself():
    import gdjax

    assert gdjax.figures.convergence is figures.convergence
    with pytest.raises(AttributeError, match="no attribute 'figurs'"):
        _ = gdjax.figurs
