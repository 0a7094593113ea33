"""Strict numerics for every test, and what several test modules share."""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest

from gdjax import problems, program
from gdjax.records import InputError, Problem

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def _compile_faster() -> None:
    """Take XLA's other way to write kernels, with less of LLVM's optimizer, in this process alone.

    Most of the suite's time is XLA's, compiling 3,500 small programs. The same HLO compiles in less than half of the time so, and runs up
    to 2.7 times longer, which is why users don't get it. Processes that a test starts compile as a user's do, and with XLA_FLAGS set (to
    nothing, if need be) so does this one.
    """
    if "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = (
            "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1 --xla_cpu_parallel_codegen_split_count=1"
        )
        jax.devices()  # it reads them now, once
        del os.environ["XLA_FLAGS"]


_compile_faster()


def random_data(num_examples: int, num_features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal features and a noisy linear target."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_examples, num_features))
    return X, 1.0 + X @ np.arange(1.0, num_features + 1) + 0.3 * rng.normal(size=num_examples)


class Compilations(program.Observer):
    """Counts the programs that a sweep had to compile, and its blocks."""

    def __init__(self) -> None:
        self.count = 0
        self.blocks: list[tuple[int, int]] = []

    def compiled(self, seconds: float) -> None:
        self.count += 1

    def advanced(self, done: int, total: int) -> None:
        self.blocks.append((done, total))


@pytest.fixture
def compilations() -> Compilations:
    return Compilations()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list:
    """The blocks of every sweep that runs in the test, one list a sweep; cut as on a machine of two cores, whatever this one has."""
    made: list = []
    plan = program.plan

    def recorded(*arguments, **keywords):
        made.append(plan(*arguments, **keywords | {"workers": 2}))
        return made[-1]

    monkeypatch.setattr(program, "plan", recorded)
    return made


@pytest.fixture
def mistake():
    """Call a function that must refuse its input; give the one line that it says."""

    def said(function, *arguments, **keywords) -> str:
        with pytest.raises(InputError) as caught:
            function(*arguments, **keywords)
        message = str(caught.value)
        assert message
        assert "\n" not in message
        return message

    return said


@pytest.fixture(scope="session")
def notebook() -> Problem:
    """The notebook's line, its full gradients through the Hessian."""
    return problems.notebook_line()


@pytest.fixture(scope="session")
def plain_notebook() -> Problem:
    """The notebook's line, its full gradients as sums over the examples."""
    return problems.notebook_line(hessian=False)


@pytest.fixture(scope="session")
def small() -> Problem:
    """Least squares on 20 examples with 4 parameters; batches of 8 leave one of 4 at the end of an epoch."""
    return problems.least_squares(*random_data(20, 3))
