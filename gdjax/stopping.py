"""When runs end before their last step, and which of their iterates they leave behind.

A rule looks at every record of a block of runs and says which of them have stopped. Its numbers and its held-out examples are data:
another tolerance is the same program. The engine does the rest: a run that has ended keeps its parameters, its optimizer's state and
its last record, so arrays are never ragged, and the work ends when no run of a block goes on.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from gdjax.records import InputError, Lanes, Problem, static, traced, unknown_name, whole

DIVERGENCE_BOUND = 1e6
"""A run has diverged where its objective is not finite or more than this multiple of the objective at the start."""


class Seen(NamedTuple):
    """What a rule is shown of a record, a number per lane."""

    step: Int[Array, ""]
    objective: Float[Array, " lanes"]
    diverged: Bool[Array, " lanes"]
    lanes: Lanes


class Verdict(NamedTuple):
    """What a rule makes of a record; what is None it has no say in."""

    state: PyTree
    stopped: Bool[Array, " lanes"]
    failed: Bool[Array, " lanes"] | None = None  # ends without having converged: its step goes into `diverged_at`
    best: Bool[Array, " lanes"] | None = None  # the best record so far, whose parameters are what the run leaves, if it `keeps_best`
    rate: Float[Array, " lanes"] | None = None  # what learning rates are multiplied by from here on, if it `slows` them


class Rule(Protocol):
    """A stopping rule: a pytree of numbers, and functions of a state."""

    @property
    def keeps_best(self) -> bool:
        """Whether verdicts say which record is the best."""
        ...

    @property
    def slows(self) -> bool:
        """Whether verdicts change the rate."""
        ...

    def begin(self, like: Float[Array, " lanes"]) -> PyTree:
        """The state before the first record, for lanes in the shape of `like`."""
        ...

    def watch(self, state: PyTree, seen: Seen, problem: Problem) -> Verdict:
        """Judge one record."""
        ...


class Compared(NamedTuple):
    """The last objective, and how many comparisons in a row were too small."""

    previous: Float[Array, " lanes"]
    wait: Int[Array, " lanes"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Notebook:
    """The notebook's rule, as `notebook` builds it."""

    tolerance: float = traced()
    patience: int = traced()

    @property
    def keeps_best(self) -> bool:
        """The last iterate is what a run leaves."""
        return False

    @property
    def slows(self) -> bool:
        """The rate stays."""
        return False

    def begin(self, like: Float[Array, " lanes"]) -> Compared:
        """Nothing to compare with yet."""
        return Compared(jnp.full_like(like, jnp.nan), jnp.zeros(like.shape, jnp.int32))

    def watch(self, state: Compared, seen: Seen, problem: Problem) -> Verdict:
        """previous - J < tolerance, which an objective that grows meets as well."""
        wait = jnp.where(state.previous - seen.objective < self.tolerance, state.wait + 1, 0)
        previous = jnp.where(seen.step > 0, seen.objective, jnp.nan)  # the notebook keeps no loss of the start
        return Verdict(Compared(previous, wait), wait >= self.patience)


class Improved(NamedTuple):
    """Like `Compared`, beside the best objective so far."""

    previous: Float[Array, " lanes"]
    wait: Int[Array, " lanes"]
    best: Float[Array, " lanes"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Repaired:
    """The notebook's rule put right, as `repaired` builds it."""

    rtol: float = traced()
    patience: int = traced()
    eps: float = traced()

    @property
    def keeps_best(self) -> bool:
        """The best iterate is what a run leaves."""
        return True

    @property
    def slows(self) -> bool:
        """The rate stays."""
        return False

    def begin(self, like: Float[Array, " lanes"]) -> Improved:
        """Nothing to compare with yet."""
        return Improved(jnp.full_like(like, jnp.nan), jnp.zeros(like.shape, jnp.int32), jnp.full_like(like, jnp.inf))

    def watch(self, state: Improved, seen: Seen, problem: Problem) -> Verdict:
        """|previous - J| <= rtol max(|J|, eps)."""
        J = seen.objective
        small = jnp.abs(state.previous - J) <= self.rtol * jnp.maximum(jnp.abs(J), self.eps)
        wait = jnp.where(small & jnp.isfinite(J), state.wait + 1, 0)
        failed = seen.diverged | ~jnp.isfinite(J)
        best = state.best > J
        state = Improved(J, wait, jnp.where(best, J, state.best))
        return Verdict(state, (wait >= self.patience) & ~failed, failed, best)


class Waited(NamedTuple):
    """The best monitored loss, and the records since it fell by enough: for stopping, and for the rate."""

    first: Float[Array, " lanes"]  # what was monitored at the first record
    best: Float[Array, " lanes"]
    target: Float[Array, " lanes"]  # what a loss must fall below to begin the wait anew
    wait: Int[Array, " lanes"]
    plateau_best: Float[Array, " lanes"]
    bad: Int[Array, " lanes"]
    rate: Float[Array, " lanes"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Plateau:
    """Multiply the learning rate by `factor` after more than `patience` records that fall short of best (1 - threshold).

    These are the rule and the names of PyTorch's ReduceLROnPlateau, with its relative threshold.
    """

    factor: float = traced(default=0.5)
    patience: int = traced(default=5)
    threshold: float = traced(default=1e-4)
    smallest: float = traced(default=0.0)  # the least that the rate is multiplied by in all


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class EarlyStopping:
    """Patience on a monitored loss, as `early_stopping` builds it."""

    patience: int = traced()
    min_delta: float = traced()
    held_out: PyTree | None = traced(default=None)
    weights: Any = traced(default=None)  # of the held-out examples; they add up to 1
    plateau: Plateau | None = traced(default=None)
    restore_best: bool = static(default=True)

    @property
    def keeps_best(self) -> bool:
        """Whether the best iterate is what a run leaves."""
        return self.restore_best

    @property
    def slows(self) -> bool:
        """Whether the rate falls on a plateau."""
        return self.plateau is not None

    def begin(self, like: Float[Array, " lanes"]) -> Waited:
        """No loss has been seen, the rate is as given."""
        worst, none = jnp.full_like(like, jnp.inf), jnp.zeros(like.shape, jnp.int32)
        return Waited(jnp.full_like(like, jnp.nan), worst, worst, none, worst, none, jnp.ones_like(like))

    def watch(self, state: Waited, seen: Seen, problem: Problem) -> Verdict:
        """Count the records without a loss below best - min_delta; what is held out says itself whether a run has diverged."""
        loss = self.monitored(seen, problem)
        first = jnp.where(jnp.isnan(state.first), loss, state.first)
        failed = seen.diverged if self.held_out is None else ~(loss <= DIVERGENCE_BOUND * jnp.abs(first))
        better, enough = loss < state.best, loss < state.target
        wait = jnp.where(enough, 0, state.wait + 1)
        state = state._replace(
            first=first, best=jnp.where(better, loss, state.best), target=jnp.where(enough, loss - self.min_delta, state.target), wait=wait
        )
        state = state if self.plateau is None else _reduced(state, loss, self.plateau)
        return Verdict(state, (wait >= self.patience) & ~failed, failed, better, state.rate)

    def monitored(self, seen: Seen, problem: Problem) -> Float[Array, " lanes"]:
        """The loss on the held-out examples, without a penalty; the objective where there are none."""
        if self.held_out is None:
            return seen.objective
        constants = {name: number for name, number in problem.constants.items() if name != "ridge"}
        weights = 1.0 / len(jax.tree.leaves(self.held_out)[0]) if self.weights is None else self.weights
        return problem.evaluate(seen.lanes, constants, self.held_out, weights)[0]


def _reduced(state: Waited, loss: Float[Array, " lanes"], plateau: Plateau) -> Waited:
    better = (loss < state.plateau_best * (1.0 - plateau.threshold)) | jnp.isinf(state.plateau_best)
    bad = jnp.where(better, 0, state.bad + 1)
    reduce = bad > plateau.patience
    return state._replace(
        plateau_best=jnp.where(better, loss, state.plateau_best),
        bad=jnp.where(reduce, 0, bad),
        rate=jnp.where(reduce, jnp.maximum(state.rate * plateau.factor, plateau.smallest), state.rate),
    )


def notebook(*, tolerance: float = 1e-6, patience: int = 10) -> Notebook:
    """Stop where the objective improves by less than `tolerance` for `patience` records in a row, as the notebook asks for.

    It compares losses after updates, so J(theta_0) takes no part. It is kept as it is, since it is instructive: a run that diverges
    "improves" by less than any tolerance and is stopped like one that has converged, and the excess that it leaves is about
    tolerance / (2 learning_rate mu): the smaller the rate, the worse the answer. `repaired` puts both right.
    """
    return Notebook(tolerance=_number("tolerance", tolerance), patience=whole("patience", patience))


def repaired(*, rtol: float = 1e-6, patience: int = 10, eps: float = 1e-12) -> Repaired:
    """Stop where |improvement| <= rtol max(|J|, eps) for `patience` records in a row, and leave the best iterate.

    A run that diverges or becomes infinite ends there, with its step in `diverged_at` and -1 in `stopped_at`.
    """
    return Repaired(rtol=_number("rtol", rtol), patience=whole("patience", patience), eps=_number("eps", eps))


def early_stopping(
    held_out: Problem | None = None,
    *,
    patience: int = 10,
    min_delta: float = 0.0,
    restore_best: bool = True,
    plateau: Plateau | Mapping[str, Any] | None = None,
) -> EarlyStopping:
    """Stop after `patience` records without a loss below the best by more than `min_delta`, and leave the best iterate.

    Parameters
    ----------
    held_out
        The problem that the same builder makes of the validation examples; the loss is their mean, a ridge left away. None monitors
        the objective itself.
    restore_best
        Whether the parameters left are those of the best record (they are in Keras' `restore_best_weights`), or the last.
    plateau
        How the learning rate falls when the loss does not: a `Plateau`, or its numbers by name.
    """
    data = None if held_out is None else held_out.data
    if data is not None and not jax.tree.leaves(data):
        raise InputError(f"{held_out.name if held_out else held_out} has no examples to hold out: it is no mean over examples.")
    if not isinstance(restore_best, bool | np.bool_):
        raise InputError(f"restore_best={restore_best} is not allowed: it is true or false.")
    return EarlyStopping(
        patience=whole("patience", patience),
        min_delta=_number("min_delta", min_delta),
        held_out=data,
        plateau=plateau if plateau is None or isinstance(plateau, Plateau) else _plateau(plateau),
        restore_best=bool(restore_best),
    )


RULES: tuple[Callable[..., Rule], ...] = (notebook, repaired, early_stopping)


def named(name: str, numbers: Mapping[str, Any] | None = None, *, held_out: Problem | None = None, also: Sequence[str] = ()) -> Rule:
    """Build a rule by name from its plain numbers.

    Parameters
    ----------
    held_out
        The examples that the rule is to monitor, for one that can.
    also
        Names that whoever asks has a use for, to be listed among those that are allowed.

    Raises
    ------
    InputError
        For an unknown name or number, and for held-out examples that the rule has no use for.

    >>> described(named("notebook", {"patience": 3}))
    'Notebook(tolerance=1e-06, patience=3)'
    """
    known = {build.__name__: build for build in RULES}
    if str(name) not in known:
        raise unknown_name("stopping rule", str(name), known)
    allowed, given = inspect.signature(known[name]).parameters, dict(numbers or {})
    for number in given:
        if number not in allowed or number == "held_out":
            raise unknown_name(f"number of stopping rule {name}", number, {*allowed, *also} - {"held_out"})
    if held_out is None:
        return known[name](**given)
    if "held_out" not in allowed:
        watching = " or ".join(rule for rule, build in known.items() if "held_out" in inspect.signature(build).parameters)
        raise InputError(
            f"stopping rule {name} looks at the objective and at no held-out examples: leave validation away, or use {watching}."
        )
    return known[name](held_out, **given)


def resolve(stop: str | Rule | None) -> Rule | None:
    """Find a rule by name, with its own numbers, or take one that is one."""
    if stop is None or hasattr(stop, "watch"):
        return stop  # pyright: ignore[reportReturnType]
    if not isinstance(stop, str):
        raise InputError(f"stop={stop!r} is not allowed: it is a rule of gdjax.stopping, or the name of one.")
    return named(stop)


def described(rule: Rule) -> str:
    """The rule in one line, of its held-out examples how many they are."""
    numbers = {name: value for name, value in vars(rule).items() if name not in ("held_out", "weights") and value is not None}
    held = jax.tree.leaves(getattr(rule, "held_out", None))
    numbers |= {"held_out": len(held[0])} if held else {}
    return f"{type(rule).__name__}({', '.join(f'{name}={value}' for name, value in numbers.items())})"


def _plateau(numbers: Any) -> Plateau:
    allowed = [field.name for field in fields(Plateau)]
    if not isinstance(numbers, Mapping):
        raise InputError(f"plateau={numbers} is not allowed: it is numbers by name, of {', '.join(allowed)}.")
    for number in numbers:
        if number not in allowed:
            raise unknown_name("number of plateau", str(number), allowed)
    checks: dict[str, Callable[[str, Any], Any]] = {"patience": functools.partial(whole, least=0)}
    plateau = Plateau(**{name: checks.get(name, _number)(f"plateau.{name}", value) for name, value in numbers.items()})
    if plateau.factor >= 1:
        raise InputError(f"plateau.factor={plateau.factor} is not allowed: it is below 1, for the rate to fall.")
    return plateau


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool | str) or np.ndim(value) > 0 or not 0 <= float(value) < math.inf:
        raise InputError(f"{name}={value!r} is not allowed: it is a number, 0 or more.")
    return float(value)
