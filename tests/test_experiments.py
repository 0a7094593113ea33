"""Every experiment at a small size: its findings hold, what it saves comes back, its figures draw."""

import functools
import inspect
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from omegaconf import OmegaConf

import experiments
import gdjax
from experiments import batch_size, learning_rate
from gdjax import cli, problems, stopping, store
from gdjax.records import InputError
from gdjax.sweep import sweep

SMALL = {
    "adaptive_methods": {"num_steps": 10000, "num_streams": 4, "num_slopes": 300},
    "averaging": {"num_steps": 1000, "num_seeds": 64},
    "batch_size": {"num_steps": 400, "num_seeds": 32},
    "batch_variants": {"num_epochs": 10, "num_seeds": 64, "num_decayed": 400},
    "chebyshev": {"num_steps": 60},
    "decaying_steps": {"num_steps": 2000, "num_seeds": 1000, "num_noiseless": 2000},
    "descend": {"learning_rate": 0.01, "num_steps": 50, "sampler": "full", "method": {"name": "sgd"}},
    "early_stopping": {"num_steps": 1500, "num_batch_steps": 1000},
    "early_stopping_ridge": {"num_steps": 300, "num_times": 5, "num_features": 8},
    "feature_scaling": {"num_steps": 500, "compare": None},
    "gradient_noise_scale": {"num_single": 1000, "num_seeds": 128, "num_rates": 10, "num_steps": 2000, "batch_size": [1, 4, 16, 48]},
    "heavy_ball": {"grid_size": 8},
    "heteroscedastic": {"num_data_sets": 2000, "num_fitted": 100},
    "homogenised_sgd": {"num_parameters": 200, "num_steps": 800, "num_power_law_steps": 400},
    "huber_minimax": {"num_data_sets": 400, "num_examples": 400, "shares": [0.1]},
    "implementation_levels": {"num_epochs": 20},
    "interpolation": {"num_examples": 32, "num_features": 128, "batch_size": [1, 8, 32], "num_single": 500},
    "kaczmarz": {"num_steps": 100, "num_seeds": 500},
    "last_iterate": {"num_steps": 31, "num_functions": 4, "num_rates": 7, "schedule": ["constant", "linear"]},
    "learning_rate": {"num_rates": 40, "num_seeds": 32, "learning_rate": [0.001, 0.05]},
    "leverage": {"num_sizes": 7},
    "likelihood": {},
    "logistic_regression": {"num_rates": 10, "num_escaping": 50_000, "num_steps": 1500},
    "loss_landscape": {"grid_size": 21},
    "lower_bound": {"horizons": [5]},
    "nesterov_acceleration": {"num_mode_steps": 1000, "num_tail_steps": 1000},
    "noise_floor": {"num_seeds": 250, "num_streams": 50},
    "noisy_quadratic": {"num_modes": 6000, "num_rates": 16, "batch_size": [4, 64], "num_seeds": 64},
    "normal_equations": {},
    "optimized_gradient": {"num_thresholds": 100},
    "optimizers": {"optimizer": ["sgd", "heavy_ball", "nadam"], "num_steps": 200, "num_rates": 16, "num_seeds": 16},
    "parameter_free": {"num_points": 16, "num_functions": 3, "num_rows": 8, "num_steps": 100, "num_starts": 3},
    "persistence": {"num_steps": 20, "methods": ["sgd", "heavy_ball"]},
    "power_laws": {"num_steps": 2000, "num_nodes": 2000},
    "quadratic_rates": {"num_rates": 40},
    "reshuffling": {"num_examples": 16, "num_seeds": 50, "num_epochs": 16},
    "robust_losses": {"num_data_sets": 400},
    "schedules": {"schedule": ["constant", "cosine", "plateau"], "num_steps": 200, "num_seeds": 64, "num_rates": 8, "noisy_steps": 1000},
    "smooth_convex": {"lengths": [1, 20], "num_rates": 10, "num_functions": 100, "num_doublings": 7},
    "training_traps": {"num_accumulated": 2000},
    "variance_reduction": {"num_steps": 4000, "num_seeds": 24, "num_examples": 50, "num_features": 4},
    "warm_up": {
        "weight_scale": 3.0,
        "num_seeds": 1,
        "num_steps": 60,
        "num_small": 40,
        "num_rates": 25,
        "num_examples": 60,
        "num_hidden": 8,
    },
    "when_to_use": {"num_parameters": [2, 8], "num_examples": [300, 2000], "tolerances": [0.1, 0.03], "num_repeats": 1},
}
CONFIGURED = sorted(path.stem for path in (cli.config_folder() / "experiment").glob("*.yaml"))
EXPERIMENTS = {name: experiments.named(name) for name in experiments.names()}
KINDS = {"notebook": True, "raw columns, no Hessian": True, "its own": False}  # whether an experiment is given a problem
CASES = [(name, kind) for name, experiment in EXPERIMENTS.items() for kind, given in KINDS.items() if given == experiment.takes_problem]


def problem_of(kind):
    if kind == "its own":
        return None
    if kind == "notebook":
        return problems.notebook_line()
    X = np.random.default_rng(1).normal(size=(60, 3)) * [1.0, 30.0, 0.2]  # raw, badly scaled
    return problems.least_squares(X, X @ [1.0, 0.1, -3.0] + np.random.default_rng(2).normal(size=60), hessian=False)


def test_every_configured_experiment_has_a_module_and_is_tested_here():
    assert sorted(SMALL) == CONFIGURED == experiments.names()


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_setting_of_an_experiment_is_one_that_it_takes(name):
    settings = OmegaConf.load(Path(cli.config_folder()) / "experiment" / f"{name}.yaml")
    assert {str(key) for key in settings} - {"name", "defaults"} <= set(EXPERIMENTS[name].settings)


@pytest.mark.parametrize("name", CONFIGURED)
def test_an_experiment_that_brings_its_own_problem_says_so_in_its_configuration(name):
    settings = OmegaConf.load(Path(cli.config_folder()) / "experiment" / f"{name}.yaml")
    assert ({"override /problem": "none"} in settings.get("defaults", [])) != EXPERIMENTS[name].takes_problem


def test_every_stopping_rule_has_a_configuration_with_its_numbers():
    built = {rule.__name__: set(inspect.signature(rule).parameters) for rule in stopping.RULES}
    settings = {path.stem: set(OmegaConf.load(path)) - {"name"} for path in (cli.config_folder() / "stop").glob("*.yaml")}
    held = {name: set(cli.SPLIT) if "held_out" in numbers else set() for name, numbers in built.items()}
    assert settings == {name: numbers - {"held_out"} | held[name] for name, numbers in built.items()} | {"none": set()}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_finding_of_an_experiment_holds_and_its_figures_draw(name, kind, tmp_path):
    problem, experiment, settings = problem_of(kind), EXPERIMENTS[name], SMALL[name]
    if name == "descend":
        settings = settings | {"learning_rate": 0.3 / float(problem.smoothness)}
    results = experiment.run(problem, sweep, **settings)
    store.save_sweep(tmp_path, results)
    opened = gdjax.open_results(tmp_path)
    xr.testing.assert_identical(opened.load(), results)
    findings = experiment.check(opened, problem)
    assert findings
    assert [finding.claim for finding in findings if not finding.holds] == []
    assert all(finding.source for finding in findings)
    figures = experiment.draw(opened, problem)
    assert figures
    assert all(isinstance(figure, Figure) for figure in figures.values())
    for figure in figures.values():
        figure.draw_without_rendering()  # lays out and draws, at half of a file's time


def test_a_wrong_stability_edge_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    results = learning_rate.run(problem, sweep, num_rates=40, num_seeds=0)
    monkeypatch.setattr("gdjax.theory.stability_edge", lambda smoothness: 4.0 / smoothness)  # the page's
    assert not learning_rate.check(results, problem)[0].holds


def test_a_wrong_constant_in_the_noise_would_be_found(monkeypatch):
    problem = problems.notebook_line()
    results = batch_size.run(problem, sweep, num_steps=1000, num_seeds=128)
    monkeypatch.setattr("gdjax.theory.moments.batch_noise_factor", lambda batch, n, **_: 1.0 / batch)  # with replacement, which it is not
    lost = [finding for finding in batch_size.check(results, problem) if not finding.holds]
    assert any("B = 16" in finding.claim for finding in lost)


def test_float32_has_its_own_tolerance():
    problem = problems.notebook_line()
    results = learning_rate.run(problem, functools.partial(sweep, precision="float32"), num_rates=40, num_seeds=0)
    assert all(finding.holds for finding in learning_rate.check(results, problem))


@pytest.mark.parametrize("module", [learning_rate, batch_size])
def test_an_experiment_on_quadratics_refuses_anything_else(module):
    problem = problems.from_loss(square, np.ones(3), np.zeros(()))
    with pytest.raises(InputError, match="least squares and other quadratics, which square is not"):
        module.run(problem, sweep)


def square(params, example):
    return (params - example) ** 2


def test_one_number_does_where_several_may_be_given():
    problem = problems.notebook_line()
    results = learning_rate.run(problem, sweep, num_steps=20, num_rates=10, num_seeds=4, learning_rate=0.01, batch_size=4)
    assert results["minibatch"].batch_size.values.tolist() == [4]
    assert results["full"].attrs["marked"] == [0.01]


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("name", ["learning_rate", "batch_size"])
def test_a_short_run_is_judged_and_drawn_too(name, num_steps):
    problem, module = problems.notebook_line(), EXPERIMENTS[name].module
    results = module.run(problem, sweep, **SMALL[name] | {"num_steps": num_steps})
    assert all(np.isfinite(finding.tolerance) for finding in module.check(results, problem))
    module.draw(results, problem)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_rates": 0}, "num_rates=0 is not allowed: it is a whole number, 2 or more"),
        ({"num_rates": "many"}, "num_rates=many is not allowed"),
        ({"num_seeds": 1}, "num_seeds=1 is not allowed: it is a whole number, 2 or more"),
        ({"num_steps": 0}, "num_steps=0 is not allowed"),
        ({"learning_rate": "fast"}, "learning_rate=fast is not allowed: it is a number, or a list"),
        ({"batch_size": []}, r"batch_size=\[\] is not allowed"),
        ({"batch_size": [81]}, "batch_size=81 is not allowed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, said):
    with pytest.raises(InputError, match=said):
        learning_rate.run(problems.notebook_line(), sweep, **settings)
