"""The experiments on what the two source texts say, against numbers computed independently, and with a constant broken on purpose."""

import dataclasses
import functools
import warnings

import numpy as np
import pytest

from experiments import feature_scaling, learning_rate, loss_landscape, normal_equations
from gdjax import analysis, problems, theory
from gdjax.records import InputError
from gdjax.sweep import sweep
from tests import reference


def square(params, example):
    return (params - example) ** 2


def lost(findings):
    return [finding.claim for finding in findings if not finding.holds]


@pytest.fixture(scope="module")
def solved():
    return normal_equations.run(problems.notebook_line(), sweep)


@pytest.fixture(scope="module")
def landscape():
    return loss_landscape.run(problems.notebook_line(), sweep, learning_rate=[0.001, 0.01, 0.05, 0.2], grid_size=41)


@pytest.fixture(scope="module")
def versions():
    return feature_scaling.run(problems.notebook_line(), sweep)


@pytest.mark.parametrize("module", [feature_scaling, loss_landscape, normal_equations])
def test_an_experiment_on_least_squares_refuses_anything_else(module):
    for other in (problems.from_loss(square, np.ones(3), np.zeros(())), problems.designed_spectrum([1.0, 2.0])):
        with pytest.raises(InputError, match=f"about linear least squares, which {other.name} is not"):
            module.run(other, sweep)


@pytest.mark.parametrize("solver", normal_equations.SOLVERS)
def test_every_solver_gives_the_reference_solution(solved, solver):
    np.testing.assert_allclose(solved["solved"]["solution"].sel(solver=solver), reference.NOTEBOOK_MINIMIZER, rtol=1e-10)


def test_descent_gives_the_reference_solution(solved):
    np.testing.assert_allclose(solved["descent"].params, reference.NOTEBOOK_MINIMIZER, rtol=1e-7)


@pytest.mark.parametrize("way", ["matrix", "componentwise", "autodiff", "finite differences", "gdjax"])
def test_every_gradient_is_the_reference_gradient(solved, way):
    at_zero = solved["gradient"].gradient.sel(way=way, point=0)
    np.testing.assert_allclose(at_zero, reference.NOTEBOOK_GRADIENT_AT_ZERO, rtol=1e-10)


def test_rational_arithmetic_solves_an_ill_conditioned_system_exactly():
    X = np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-30], [1.0, 1.0 - 2.0**-30]])
    np.testing.assert_array_equal(theory.exact_least_squares(X, X @ np.array([3.0, 5.0])), [3.0, 5.0])
    assert np.isnan(theory.exact_least_squares(np.ones((3, 2)), np.ones(3))).all()


def test_a_solver_that_squared_the_condition_number_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    monkeypatch.setitem(normal_equations.SOLVERS, "QR", normal_equations.cholesky)
    normal_equations._every_solver.clear_cache()
    results = normal_equations.run(problem, sweep)
    normal_equations._every_solver.clear_cache()
    assert any(claim.startswith("QR, no residual") for claim in lost(normal_equations.check(results, problem)))


def test_a_wrong_gradient_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    monkeypatch.setattr(normal_equations, "_componentwise", lambda X, y, theta: X.T @ (X @ theta - y) / len(X))  # of half the loss
    results = normal_equations.run(problem, sweep)
    assert any("by componentwise" in claim for claim in lost(normal_equations.check(results, problem)))


def test_descent_that_ends_elsewhere_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    results = normal_equations.run(problem, sweep, num_steps=50)
    assert lost(normal_equations.check(results, problem)) == []
    errors = theory.gradient_descent_errors
    monkeypatch.setattr(theory, "gradient_descent_errors", lambda modes, rate, steps: errors(modes, 1.001 * rate, steps))
    assert any("end at the closed form" in claim for claim in lost(normal_equations.check(results, problem)))


def test_the_surface_is_the_notebooks(landscape):
    surface = landscape["surface"].objective
    axes = float(surface.across[20]), float(surface.upward[20])
    np.testing.assert_allclose(axes, reference.NOTEBOOK_MINIMIZER[::-1], rtol=1e-10)  # the slope across, the intercept upward
    np.testing.assert_allclose(surface[20, 20], reference.NOTEBOOK_MINIMUM, rtol=1e-10)
    curvature = loss_landscape.quadratic_fit(landscape["surface"].to_dataset())[0]
    gram = np.linalg.eigvalsh(curvature) / 2
    np.testing.assert_allclose(gram, reference.NOTEBOOK_GRAM_EIGENVALUES, rtol=1e-9)


def test_the_notebooks_marker_is_where_its_run_diverged_to(landscape):
    ends = landscape["rates"].params
    np.testing.assert_allclose(ends.sel(learning_rate=0.05), reference.DIVERGED_PARAMS_AFTER_400, rtol=1e-9)
    np.testing.assert_allclose(ends.sel(learning_rate=0.01), reference.NOTEBOOK_PARAMS_AFTER_400, rtol=1e-9)
    assert not np.isfinite(ends.sel(learning_rate=0.2)).all()


def test_a_path_begins_at_the_start_and_ends_where_the_run_does(landscape):
    for name in ("rates", *loss_landscape.METHODS):
        paths = landscape[name].to_dataset()
        assert not paths.path.isel(drawn=0).values.any()
        np.testing.assert_array_equal(paths.path.isel(drawn=-1), paths.params)


def test_a_path_of_another_rate_would_be_found(monkeypatch, landscape):
    problem = problems.notebook_line()
    assert lost(loss_landscape.check(landscape, problem)) == []
    errors = theory.gradient_descent_errors
    monkeypatch.setattr(theory, "gradient_descent_errors", lambda modes, rate, steps: errors(modes, 1.001 * rate, steps))
    claims = lost(loss_landscape.check(landscape, problem))
    assert any("left of the error" in claim for claim in claims)
    assert any("past the edge" in claim for claim in claims)


def test_a_surface_of_another_shape_would_be_found(landscape):
    problem, bent = problems.notebook_line(), landscape.copy()
    surface = bent["surface"].to_dataset()
    bent["surface"] = surface.assign(objective=surface.objective + 1e-4 * surface.across**4 - 0.01)
    claims = lost(loss_landscape.check(bent, problem))
    assert any("axis ratio" in claim for claim in claims)
    assert any("is that quadratic" in claim for claim in claims)
    assert any("below the minimum" in claim for claim in claims)


@pytest.mark.parametrize("intercept", [True, False])
def test_a_bowl_needs_two_directions(intercept):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem = problems.least_squares(np.full(5, 2.0), np.arange(5.0), intercept)  # constant: collinear with the intercept
    with pytest.raises(InputError, match="two directions in which J bends"):
        loss_landscape.run(problem, sweep)


def test_more_parameters_than_two_are_seen_in_the_plane_of_the_extreme_eigenvectors():
    problem = problems.random_linear()
    plane = loss_landscape.plane_of(problem)
    hessian = 2 * problem.data[0].T @ problem.data[0] / 500
    np.testing.assert_allclose(
        plane.directions @ hessian @ plane.directions.T, np.diag([problem.strong_convexity, problem.smoothness]), atol=1e-12
    )


@pytest.mark.parametrize("version", reference.NOTEBOOK_VERSIONS)
def test_a_version_of_the_notebooks_feature_takes_the_reference_steps(versions, version):
    one = versions["given"].to_dataset().sel(version=version)
    kappa, steps = reference.NOTEBOOK_VERSIONS[version]
    np.testing.assert_allclose(one.condition_number, kappa, rtol=1e-8)
    assert int(analysis.steps_to_tolerance(one, 1e-6)) == steps == theory.steps_at_optimal_rate(kappa, 1e-6)


def test_standardised_diabetes_takes_the_reference_steps(versions):
    compared = versions["compared"].to_dataset()
    one = compared.sel(version="standardised")
    assert int(analysis.steps_to_tolerance(one, 1e-6)) == reference.DIABETES_STANDARDISED_STEPS
    np.testing.assert_allclose(one.condition_number, reference.DIABETES_STANDARDISED_GRAM[2], rtol=1e-8)
    np.testing.assert_allclose(compared.condition_number.sel(version="raw"), reference.DIABETES_RAW_GRAM[2], rtol=1e-6)
    np.testing.assert_allclose(compared.minimum, reference.DIABETES_MINIMUM, rtol=1e-9)


def test_all_findings_of_both_data_sets_hold(versions):
    assert lost(feature_scaling.check(versions, problems.notebook_line())) == []


def test_a_rate_for_the_loss_without_its_factor_two_would_be_found(monkeypatch, versions):
    problem = problems.notebook_line()
    best = theory.optimal_rate
    monkeypatch.setattr(theory, "optimal_rate", lambda L, mu: best(L, mu) / 2)  # of half the loss
    results = feature_scaling.run(problem, sweep, compare=None)
    assert any("most steps of any version" in claim for claim in lost(feature_scaling.check(results, problem)))


def test_a_transform_that_changes_the_fit_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    monkeypatch.setitem(feature_scaling.SHIFTS, "centred", np.square)
    results = feature_scaling.run(problem, sweep, compare=None)
    assert any("one minimum" in claim for claim in lost(feature_scaling.check(results, problem)))


def test_what_only_an_intercept_can_undo_is_left_away_without_one():
    X, y = np.random.default_rng(0).normal(size=(20, 2)) + 3.0, np.arange(20.0)
    assert list(feature_scaling.versions(problems.least_squares(X, y, False))) == list(feature_scaling.SCALINGS)


@pytest.mark.parametrize("tolerance", [0, 1, "small"])
def test_a_tolerance_that_makes_no_sense_is_named(tolerance):
    with pytest.raises(InputError, match=f"tolerance={tolerance} is not allowed"):
        feature_scaling.run(problems.notebook_line(), sweep, tolerance=tolerance)


@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
@pytest.mark.parametrize("module", [feature_scaling, loss_landscape, normal_equations])
def test_constant_and_collinear_columns_are_judged_too(module):
    x = np.linspace(0.0, 1.0, 30)
    problem = problems.least_squares(np.stack([x, np.ones(30), 2.0 * x], axis=1), x + 1.0)
    assert lost(module.check(module.run(problem, sweep), problem)) == []


@pytest.mark.parametrize("module", [feature_scaling, loss_landscape, normal_equations])
@pytest.mark.filterwarnings("ignore:the columns of X are collinear")
def test_more_parameters_than_examples_are_judged_and_drawn_too(module):
    rng = np.random.default_rng(0)
    problem = problems.least_squares(rng.normal(size=(10, 15)), rng.normal(size=10))
    results = module.run(problem, sweep)
    assert lost(module.check(results, problem)) == []
    module.draw(results, problem)


@pytest.mark.parametrize("module", [feature_scaling, loss_landscape, normal_equations])
def test_float32_has_its_own_tolerance(module):
    problem = problems.notebook_line()
    results = module.run(problem, functools.partial(sweep, precision="float32"))
    assert lost(module.check(results, problem)) == []


def test_a_bound_without_its_factor_two_would_be_found(monkeypatch, versions):
    steps = theory.steps_at_optimal_rate
    monkeypatch.setattr(theory, "steps_at_optimal_rate", lambda kappa, tolerance: 2 * steps(kappa, tolerance))  # of the distance
    claims = lost(feature_scaling.check(versions, problems.notebook_line()))
    assert any("most steps of any version" in claim for claim in claims)
    assert any("two standardised features" in claim for claim in claims)


def test_points_of_another_run_would_be_found(landscape):
    mixed = landscape.copy()
    paths = mixed["heavy_ball"].to_dataset()
    mixed["heavy_ball"] = paths.assign(path=paths.path.roll(drawn=1))
    assert lost(loss_landscape.check(mixed, problems.notebook_line())) == [
        "paths of every rate and method: each one's points are those of one run, deviation in distance (absolute)"
    ]


@pytest.fixture(scope="module")
def rates():
    marked = [0.001, 0.01, *reference.GROWTH]
    return learning_rate.run(problems.notebook_line(), sweep, num_rates=20, num_seeds=0, learning_rate=marked)


def test_the_notebooks_rates_past_the_edge_grow_as_the_reference_s(rates):
    findings = learning_rate.check(rates, problems.notebook_line())
    grown = {finding.claim.split()[1].rstrip(":"): finding for finding in findings if "once it diverges" in finding.claim}
    assert list(grown) == ["0.05", "0.2", "0.5"]
    for rate, factor in reference.GROWTH.items():
        assert grown[f"{rate:g}"].predicted == pytest.approx(factor, rel=1e-10)
        assert grown[f"{rate:g}"].measured == pytest.approx(factor, rel=1e-8)
    assert lost(findings) == []


def test_the_best_rate_contracts_as_the_reference_s(rates):
    findings = learning_rate.check(rates, problems.notebook_line())
    best = next(finding for finding in findings if "largest factor (kappa - 1) / (kappa + 1)" in finding.claim)
    assert best.kind == "equal"
    assert best.measured**2 == pytest.approx(reference.NOTEBOOK_BEST_FACTOR, rel=1e-8)


def test_a_wrong_curvature_would_be_found_in_every_regime(rates):
    problem = problems.notebook_line()
    wrong = dataclasses.replace(problem, smoothness=problem.smoothness / 2)  # of X'X/n, as on the page
    assert sum("steepest direction" in claim for claim in lost(learning_rate.check(rates, wrong))) == 4


def test_an_oscillation_would_be_found(rates):
    bent = rates.copy()
    full = rates["full"].to_dataset()
    swinging = full.suboptimality.where(full.step % 2 == 0, 1.1 * full.suboptimality.shift(step=1))
    bent["full"] = full.assign(suboptimality=swinging)
    assert any("largest ratio" in claim for claim in lost(learning_rate.check(bent, problems.notebook_line())))


@pytest.mark.parametrize("problem", [problems.designed_spectrum([2.0, 2.0]), problems.designed_spectrum([0.0, 0.5, 3.0], [1.0, 1.0, 0.0])])
def test_regimes_of_one_curvature_or_of_a_start_without_the_steepest_direction(problem):
    results = learning_rate.run(problem, sweep, num_rates=20)
    claims = [finding.claim for finding in learning_rate.check(results, problem)]
    assert sum("steepest direction" in claim for claim in claims) == (3 if problem.condition_number == 1 else 0)
    learning_rate.draw(results, problem)
