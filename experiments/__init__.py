"""One claim a file: `run` measures, `check` compares with theory, `draw` shows.

Most experiments are about any problem, the user's too: `run(problem, sweep, *, ...)`, `check(results, problem)`,
`draw(results, problem)`. One whose theorem needs a problem of its own leaves `problem` away in all three, and its YAML says
`override /problem: none`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gdjax.records import Finding, InputError, Problem, unknown_name


@dataclass(frozen=True)
class Experiment:
    """An experiment by its name, called alike whether it is about a given problem or brings its own."""

    name: str
    module: ModuleType

    @property
    def settings(self) -> Mapping[str, inspect.Parameter]:
        """What `run` may be told."""
        return {name: taken for name, taken in inspect.signature(self.module.run).parameters.items() if taken.kind is taken.KEYWORD_ONLY}

    @property
    def takes_problem(self) -> bool:
        """Whether it is about a given problem."""
        return "problem" in inspect.signature(self.module.run).parameters

    def run(self, problem: Problem | None, sweep: Callable[..., Any], **settings: Any) -> Any:
        """Measure: a Dataset, or a DataTree of several."""
        return self.module.run(*self._given(problem), sweep, **settings)

    def check(self, results: Any, problem: Problem | None) -> list[Finding]:
        """Compare what was measured with theory."""
        return self.module.check(results, *self._given(problem))

    def draw(self, results: Any, problem: Problem | None) -> dict[str, Any]:
        """The figures, by their files' names."""
        return self.module.draw(results, *self._given(problem))

    def _given(self, problem: Problem | None) -> tuple[Problem, ...]:
        if self.takes_problem and problem is None:
            raise InputError(f"experiment {self.name} is about a problem, and problem=none is none: leave it away, or name one.")
        if problem is not None and not self.takes_problem:
            raise InputError(f"experiment {self.name} is about a problem of its own: leave problem={problem.name} away.")
        return () if problem is None else (problem,)


def names() -> list[str]:
    """The experiments that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "run")


def named(name: str) -> Experiment:
    """Find an experiment.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name not in names():
        raise unknown_name("experiment", name, names())
    return Experiment(name, importlib.import_module(f"experiments.{name}"))
