"""The nouns: what a problem is, what a run leaves behind, what a finding says."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

Params = PyTree
"""The parameters x of one run: any pytree of float arrays; for a linear model one vector (b, w_1..w_p)."""

Lanes = PyTree
"""The parameters of many runs at once: `Params` with one more axis, the last, that counts runs.

Runs come last because they are what a step is parallel over: an update is then one contiguous vector operation a parameter, and a
linear model's predictions for all runs are the one matrix product X @ lanes.
"""

Evaluate = Callable[[Lanes, dict[str, Any], PyTree, Any], tuple[Float[Array, " lanes"], Lanes]]
"""(lanes, constants, examples, weights) -> (sum_i weights_i f_i, its gradient), for every lane."""


class InputError(ValueError):
    """A mistake of the user's: the message says what was given, what is allowed, and what to do."""


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> InputError:
    """Say that `given` is no `kind`, name the nearest valid one and list what is allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InputError(f"unknown {kind}: '{given}'.{hint} Allowed: {', '.join(names) or 'none'}.")


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """Take a whole number that is at least `least`, or say that it is none."""
    number: Any = value
    if not isinstance(value, Real) or isinstance(value, bool) or not least <= number < math.inf or number != math.floor(number):
        raise InputError(f"{name}={value} is not allowed: it is a whole number, {least} or more.")
    return int(number)


def several(name: str, value: Any) -> list[Any]:
    """Take one number, or a sequence of some, as a list."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values or not all(isinstance(number, Real) and not isinstance(number, bool) for number in values):
        raise InputError(f"{name}={value} is not allowed: it is a number, or a list of one or more numbers, e.g. {name}=[1,2].")
    return values


def traced(**kwargs: Any) -> Any:
    """A field that holds numbers: it may be swept, and changing it never recompiles."""
    return field(**kwargs)


def static(**kwargs: Any) -> Any:
    """A field that shapes the program: changing it compiles anew."""
    return field(metadata={"static": True}, **kwargs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """An objective f = mean_i f_i with all that is known of it.

    `smoothness` (L) and `strong_convexity` (mu) are the largest and the smallest nonzero eigenvalue of the Hessian of f; for a
    problem that is not quadratic they are bounds. What is not known is None.
    """

    evaluate: Evaluate = static()
    name: str = static(default="problem")
    parameter_names: tuple[str, ...] | None = static(default=None)

    data: PyTree = traced(default=())  # the examples: one leading axis of length n in every leaf; () when f is no mean over examples
    weights: Float[Array, " n"] | None = traced(default=None)  # of the examples in f; 1 in the mean of those that a sampler deals
    constants: dict[str, Any] = traced(default_factory=dict)  # numbers in the loss: a Huber delta, a ridge
    start: Params = traced()
    minimizer: Params | None = traced(default=None)
    minimum: Float[Array, ""] | float | None = traced(default=None)
    smoothness: Float[Array, ""] | float | None = traced(default=None)
    strong_convexity: Float[Array, ""] | float | None = traced(default=None)
    hessian: Float[Array, "p p"] | None = traced(default=None)  # of a quadratic, where full gradients go through it

    @property
    def num_examples(self) -> int:
        """n, the examples that f is the mean of (1 when it is no mean)."""
        leaves = jax.tree.leaves(self.data)
        return int(leaves[0].shape[0]) if leaves else 1

    @property
    def shares(self) -> Any:
        """What each example counts in f: 1 / n, or its weight over the sum of all."""
        return 1.0 / self.num_examples if self.weights is None else self.weights / self.weights.sum()

    @property
    def condition_number(self) -> Any:
        """kappa = L / mu, or None where either is unknown."""
        if self.smoothness is None or self.strong_convexity is None:
            return None
        return self.smoothness / self.strong_convexity

    def objective(self, params: Params) -> Float[Array, ""]:
        """f(params), from the examples themselves, never through the Hessian."""
        return self.value_and_gradient(params)[0]

    def gradient(self, params: Params) -> Params:
        """The gradient of f at `params`, from the examples themselves."""
        return self.value_and_gradient(params)[1]

    def value_and_gradient(self, params: Params) -> tuple[Float[Array, ""], Params]:
        """f and its gradient at `params`."""
        lanes = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], params)
        value, gradient = self.evaluate(lanes, self.constants, self.data, self.shares)
        return value[0], jax.tree.map(lambda leaf: leaf[..., 0], gradient)


class Measurement(NamedTuple):
    """What is recorded of the full objective at one point, a number per lane; in records, entries of one axis in this order."""

    objective: Float[Array, " lanes"]
    suboptimality: Float[Array, " lanes"]
    gradient_norm: Float[Array, " lanes"]
    distance: Float[Array, " lanes"]


class Trajectory(NamedTuple):
    """The records along the runs of one block, and where they ended."""

    records: Float[Array, "records 4 lanes"]  # of `Measurement`, in one array: four would be four writes a record and a copy each
    diverged_at: Int[Array, " lanes"]
    params: Lanes
    stopped_at: Int[Array, " lanes"] | None = None  # where a rule may stop them
    best_step: Int[Array, " lanes"] | None = None  # where it keeps the best iterate, which `params` then are


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A theorem's number beside the measured one."""

    claim: str
    predicted: float
    measured: float
    tolerance: float  # relative to `predicted` unless the claim says otherwise
    source: str
    kind: Literal["equal", "at_most", "at_least"] = "equal"

    @property
    def holds(self) -> bool:
        """Whether the measurement bears the claim out; a NaN never does."""
        slack = self.tolerance * abs(self.predicted) if self.predicted else self.tolerance
        low = -math.inf if self.kind == "at_most" else self.predicted - slack
        high = math.inf if self.kind == "at_least" else self.predicted + slack
        return bool(low <= self.measured <= high)  # NumPy's would not go into JSON

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"holds": self.holds}
