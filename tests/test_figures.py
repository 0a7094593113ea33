"""Figures show what they must; how they look is judged by eye."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
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


def runs(**sizes):
    """Curves that fall from 1, each at its own speed."""
    shape = (*sizes.values(), 5)
    speed = 1.0 + np.arange(np.prod(shape[:-1])).reshape(*shape[:-1], 1)
    values = xr.DataArray(np.exp(-speed * np.arange(5) / np.prod(shape)), dims=(*sizes, "step"))
    return xr.Dataset({"suboptimality": values}, {dim: np.arange(1, size + 1) for dim, size in sizes.items()} | {"step": np.arange(5)})


def curves_of(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) == 5]


class TestConvergence:
    """A colour a rate or a job, a panel for each combination of the rest."""

    def test_other_dimensions_are_panels(self):
        drawn = figures.convergence(runs(learning_rate=3, batch_size=2, momentum=2))
        assert [axes.get_title() for axes in drawn.axes] == [f"batch size {b}, momentum {m}" for b in (1, 2) for m in (1, 2)]
        assert [len(curves_of(axes)) for axes in drawn.axes] == [3, 3, 3, 3]
        ds = runs(learning_rate=3, batch_size=2, momentum=2)
        for axes, (b, m) in zip(drawn.axes, [(1, 1), (1, 2), (2, 1), (2, 2)], strict=True):
            got = sorted(line.get_ydata()[-1] for line in curves_of(axes))
            np.testing.assert_allclose(got, np.sort(ds.suboptimality.sel(batch_size=b, momentum=m, step=4)))

    @pytest.mark.parametrize(("num_rates", "has_legend"), [(2, True), (figures.FEW_CURVES, True), (figures.FEW_CURVES + 1, False)])
    def test_few_rates_have_a_legend_and_many_a_scale(self, num_rates, has_legend):
        drawn = figures.convergence(runs(learning_rate=num_rates))
        legend = drawn.axes[0].get_legend()
        assert (legend is not None) is has_legend
        assert len(drawn.axes) == (1 if has_legend else 2)
        if has_legend:
            assert [text.get_text() for text in legend.get_texts()] == [str(rate) for rate in range(1, num_rates + 1)]
            assert legend.get_title().get_text() == figures.LABELS["learning_rate"]
            assert len({line.get_color() for line in curves_of(drawn.axes[0])}) == num_rates

    def test_jobs_are_coloured_by_their_rate(self):
        ds = runs(job=4).assign_coords(learning_rate=("job", [0.1, 0.2, 0.1, 0.4]))
        drawn = figures.convergence(ds)
        (axes,) = drawn.axes
        colors = {float(line.get_ydata()[-1]): tuple(line.get_color()) for line in curves_of(axes)}
        of_job = [colors[float(ds.suboptimality[job, -1])] for job in range(4)]
        assert of_job[0] == of_job[2]
        assert len(set(of_job)) == 3
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0.1", "0.2", "0.4"]

    def test_jobs_of_one_rate_are_coloured_by_their_number(self):
        (axes,) = figures.convergence(runs(job=3).assign_coords(learning_rate=0.1)).axes
        assert axes.get_legend().get_title().get_text() == "job"

    def test_at_most_so_many_panels_and_it_says_so(self):
        drawn = figures.convergence(runs(learning_rate=2, batch_size=5, momentum=4))
        assert len(drawn.axes) == figures.MOST_PANELS
        assert "6 of 20 combinations shown" in drawn.get_supxlabel()
        titles = [axes.get_title() for axes in drawn.axes]
        assert (titles[0], titles[-1]) == ("batch size 1, momentum 1", "batch size 5, momentum 4")

    def test_seeds_are_a_band_in_each_panel(self):
        drawn = figures.convergence(runs(learning_rate=2, batch_size=2, seed=5))
        assert [len(axes.collections) for axes in drawn.axes] == [2, 2]
        assert "Median of 5 seeds" in drawn.get_supxlabel()

    def test_crosses_are_where_a_rule_stopped_runs(self):
        ds = runs(learning_rate=3).assign(stopped_at=("learning_rate", [3, -1, 2])).assign_attrs(stop="Rule(patience=1)")
        drawn = figures.convergence(ds)
        (axes,) = drawn.axes
        crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
        assert [float(line.get_xdata()[0]) for line in crosses] == [3.0, 2.0]
        assert [float(line.get_ydata()[0]) for line in crosses] == [float(ds.suboptimality[0, 3]), float(ds.suboptimality[2, 2])]
        assert sorted(len(line.get_xdata()) for line in axes.get_lines() if line not in crosses) == [3, 4, 5]
        assert "Cross: stopped by Rule(patience=1), 2 of 3 runs." in drawn.get_supxlabel().replace("\n", " ")

    def test_where_all_are_stopped_the_panel_ends_with_the_last(self):
        ds = runs(learning_rate=2, seed=3).assign(stopped_at=(("learning_rate", "seed"), [[1, 2, 2], [3, 1, 1]]))
        drawn = figures.convergence(ds, theory=ds.suboptimality.isel(seed=0))
        crosses = [line for line in drawn.axes[0].get_lines() if line.get_marker() == "x"]
        assert [float(line.get_xdata()[0]) for line in crosses] == [2.0, 1.0]  # medians over the seeds
        assert max(line.get_xdata().max() for line in drawn.axes[0].get_lines()) == 3.0
        assert "(median over seeds)" in drawn.get_supxlabel().replace("\n", " ")
        assert "No run was stopped" in figures.convergence(ds.assign(stopped_at=ds.stopped_at * 0 - 1)).get_supxlabel()

    def test_without_rates_the_longest_dimension_is_coloured(self):
        drawn = figures.convergence(runs(batch_size=2, momentum=3))
        assert [axes.get_title() for axes in drawn.axes] == ["batch size 1", "batch size 2"]
        assert drawn.axes[-1].get_legend().get_title().get_text() == "momentum"
