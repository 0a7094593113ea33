"""How fast the engine is, beside what people use today: `python benchmarks/engine.py [--folder FOLDER] [--rows abcde]`.

Every row times ours and the peer's in turn in this one process and prints medians and their ratio. Peers whose whole task would take
minutes run a stated share of it, scaled up. Compile time is apart: ours are second calls of the public `gdjax.sweep`, its labelled
arrays included. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import gdjax

REPETITIONS = 5
WARM_SECONDS = 0.25
"""Each work runs untimed for this long (once at least) before it is timed: threads of the one before stop spinning, caches fill."""

Row = dict[str, Any]
BENCHMARK_TITLE = "gdjax.sweep against what it replaces: `python benchmarks/engine.py --folder results/benchmarks`"


def seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def steady(work: Callable[[], Any]) -> float:
    """The median of some calls in a row, after others untimed: what a call costs in a loop or a notebook."""
    spent, number = seconds(work), 1
    while spent < WARM_SECONDS:
        spent += seconds(work)
        number += 1
    return median(seconds(work) for _ in range(min(9, number)))


def compare(row: str, ours: Callable[[], Any], peers: dict[str, tuple[Callable[[], Any], float]], precision: str) -> list[Row]:
    """Time ours and each peer in turn; a peer is (work, how many times that work the whole task is)."""
    times: dict[str, list[float]] = {"ours": [], **{name: [] for name in peers}}
    for _ in range(REPETITIONS):
        for name, (work, share) in {"ours": (ours, 1.0), **peers}.items():
            times[name].append(share * steady(work))
    return [
        {
            "row": row,
            "precision": precision,
            "peer": name,
            "ours_ms": 1e3 * median(times["ours"]),
            "ours_spread_ms": [1e3 * min(times["ours"]), 1e3 * max(times["ours"])],
            "peer_ms": 1e3 * median(times[name]),
            "peer_share": f"1/{share:g}" if share != 1 else "whole",
            "ratio": median(times[name]) / median(times["ours"]),
        }
        for name, (_, share) in peers.items()
    ]


def notebook_loop(X: np.ndarray, y: np.ndarray, rates: np.ndarray, num_steps: int) -> None:
    """The notebook's cells 3 to 8 as they stand: a Python loop over rates, another over steps."""
    for rate in rates:
        theta = np.zeros((X.shape[1], 1), X.dtype)
        history = []
        for _ in range(num_steps):
            theta = theta - rate * ((2 / X.shape[0]) * (X.T @ (X @ theta - y)))
            history.append(float(np.mean((X @ theta - y) ** 2)))


def torch_loop(X: np.ndarray, y: np.ndarray, rates: np.ndarray, num_steps: int) -> Callable[[], None]:
    """The page's level 2, autograd, with its loss recorded."""
    import torch

    features, target = torch.from_numpy(X), torch.from_numpy(y)

    def loop() -> None:
        for rate in rates.tolist():
            theta = torch.zeros((features.shape[1], 1), dtype=features.dtype, requires_grad=True)
            history = []
            for _ in range(num_steps):
                loss = ((features @ theta - target) ** 2).mean()
                loss.backward()
                with torch.no_grad():
                    theta -= rate * theta.grad
                theta.grad.zero_()
                history.append(loss.item())

    return loop


def sklearn_fits(X: np.ndarray, y: np.ndarray, rates: np.ndarray, num_epochs: int) -> None:
    from sklearn.linear_model import SGDRegressor

    for rate in rates:
        model = SGDRegressor(
            penalty=None, learning_rate="constant", eta0=float(rate), max_iter=num_epochs, tol=None, fit_intercept=False, random_state=0
        )
        model.fit(X, y)


def bare_products(X: np.ndarray, batch: int, lanes: int, num_steps: int) -> dict[str, tuple[Callable[[], Any], float]]:
    """X_b @ Theta and X_b' @ R and nothing else, as an XLA loop and by NumPy's BLAS (a tenth of it)."""
    batches = (X[: len(X) // batch * batch].reshape(-1, batch, X.shape[1]) * 1e-2).astype(X.dtype)
    start = np.ones((X.shape[1], lanes), X.dtype)

    @jax.jit
    def loop(batches: jax.Array, lanes: jax.Array) -> jax.Array:
        def pair(i: jax.Array, lanes: jax.Array) -> jax.Array:
            rows = batches[i % batches.shape[0]]
            return rows.T @ (rows @ lanes)

        return jax.lax.fori_loop(0, num_steps, pair, lanes)

    def blas() -> None:
        for i in range(num_steps // 10):
            rows = batches[i % len(batches)]
            rows.T @ (rows @ start)  # not fed back: it would fade into denormal numbers, which XLA flushes and NumPy is slow on

    on_device = jax.device_put((batches, start))
    return {
        "bare products, XLA loop": (lambda: jax.block_until_ready(loop(*on_device)), 1.0),
        "bare products, NumPy": (blas, num_steps / (num_steps // 10)),
    }


def row_a(precision: str) -> list[Row]:
    problem, rates = gdjax.problems.notebook_line(), np.geomspace(1e-4, 0.5, 1000)
    X, y = (array.astype(precision) for array in problem.data)

    def ours(problem: gdjax.Problem) -> Callable[[], Any]:
        return lambda: gdjax.sweep(problem, sampler="full", num_steps=400, record_every=1, learning_rate=rates, precision=precision)

    loops = {
        "notebook's NumPy loop": (lambda: notebook_loop(X, y[:, None], rates[::10], 400), 10.0),
        "PyTorch loop": (torch_loop(X, y[:, None], rates[::50], 400), 50.0),
    }
    plain = gdjax.problems.notebook_line(hessian=False)
    return [
        *compare("(a) 1,000 rates x 400 steps, n=80, p=2", ours(problem), loops, precision),
        *compare("(a) without the Hessian", ours(plain), loops, precision),
    ]


def data(n: int, p: int, precision: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    return X.astype(precision), (X @ rng.normal(size=p) + rng.normal(size=n)).astype(precision)


def row_b(precision: str) -> list[Row]:
    X, y = data(10_000, 100, precision)
    rates = np.geomspace(1e-4, 0.4, 1024)
    problem = gdjax.problems.least_squares(X, y, intercept=False)
    ours = functools.partial(gdjax.sweep, problem, sampler="full", num_steps=100, learning_rate=rates, precision=precision)
    loop = {"NumPy loop": (lambda: notebook_loop(X, y[:, None], rates[:1], 100), 1024.0)}
    return compare("(b) 1,024 rates x 100 steps, n=10,000, p=100", ours, loop, precision)


def row_c(precision: str) -> list[Row]:
    X, y = data(10_000, 20, precision)
    rates = np.geomspace(1e-5, 1e-3, 256)
    problem = gdjax.problems.least_squares(X, y, intercept=False)
    fits = {"SGDRegressor, which records nothing": (lambda: sklearn_fits(X, y, rates[::16], 5), 16.0)}
    rows = []
    for batch in (1, 32, 256):
        name, per_epoch = f"(c) B={batch}, 256 rates x 5 epochs, n=10,000, p=20", -(-len(X) // batch)

        def ours(batch: int = batch, every: int | None = None) -> Any:
            return gdjax.sweep(problem, num_epochs=5, batch_size=batch, learning_rate=rates, precision=precision, record_every=every)

        bare = bare_products(X, batch, len(rates), 5 * per_epoch)
        rows += compare(f"{name}, default records", ours, bare | fits if batch == 1 else bare, precision)
        if batch == 1:
            rows += compare(f"{name}, a record an epoch", functools.partial(ours, every=per_epoch), fits, precision)
    return rows


def row_d(precision: str) -> list[Row]:
    X, y = data(10_000, 20, precision)
    problem, line = gdjax.problems.least_squares(X, y, intercept=False), gdjax.problems.notebook_line()
    A, b = (array.astype(precision) for array in line.data)
    wide, target = data(10_000, 100, precision)
    big = gdjax.problems.least_squares(wide, target, intercept=False)

    def ours(problem: gdjax.Problem, **how: Any) -> Callable[[], Any]:
        return lambda: gdjax.sweep(problem, learning_rate=1e-3, precision=precision, **how)

    def numpy_loop(X: np.ndarray, y: np.ndarray, num_steps: int) -> dict[str, tuple[Callable[[], Any], float]]:
        return {"NumPy loop": (lambda: notebook_loop(X, y[:, None], np.array([1e-3]), num_steps), 1.0)}

    fit = {"SGDRegressor, which records nothing": (lambda: sklearn_fits(X, y, np.array([1e-3]), 5), 1.0)}
    return [
        *compare("(d) one run of (a)", ours(line, sampler="full", num_steps=400), numpy_loop(A, b, 400), precision),
        *compare("(d) one run of (b)", ours(big, sampler="full", num_steps=100), numpy_loop(wide, target, 100), precision),
        *compare(
            "(d) one run, B=1, 5 epochs, a record an epoch", ours(problem, num_epochs=5, batch_size=1, record_every=10_000), fit, precision
        ),
        *compare("(d) one run, B=1, 5 epochs, default records", ours(problem, num_epochs=5, batch_size=1), fit, precision),
    ]


def row_e() -> list[Row]:
    """Whole processes: the imports alone, and `gdjax` from start to saved figures, the first time and later ones."""
    names = (
        "jax",
        "optax",
        "hydra",
        "xarray",
        "zarr",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_svg",
    )
    imports = [sys.executable, "-c", f"import {', '.join(names)}"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        application = [sys.executable, "-m", "experiments.run", f"hydra.run.dir={folder}/run"]
        root = Path(__file__).resolve().parents[1]

        def process(command: list[str]) -> float:
            return seconds(lambda: subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True))

        alone, first, later = [], process(application), []
        for _ in range(REPETITIONS):
            alone.append(process(imports))
            later.append(process(application))
    for name, times in (("the first time", [first]), ("later", later)):
        rows.append(
            {
                "row": f"(e) gdjax, start to saved figures, {name}",
                "precision": "float64",
                "peer": "imports alone",
                "ours_ms": 1e3 * median(times),
                "ours_spread_ms": [1e3 * min(times), 1e3 * max(times)],
                "peer_ms": 1e3 * median(alone),
                "peer_share": "whole",
                "ratio": median(alone) / median(times),
            }
        )
    return rows


class Stopwatch(gdjax.Observer):
    """Keeps what was spent on compiling."""

    def __init__(self) -> None:
        self.spent = 0.0

    def compiled(self, seconds: float) -> None:
        """Add it up."""
        self.spent += seconds


def compile_times() -> list[Row]:
    """First calls: compile time and time to the first result, at shapes that no other row has compiled."""
    X, y = data(5_000, 30, "float64")
    problem = gdjax.problems.least_squares(X, y)
    rows = []
    for name, how in (("full batch", {"sampler": "full", "num_steps": 90}), ("B=16", {"batch_size": 16, "num_steps": 90})):
        watch = Stopwatch()
        rates = np.geomspace(1e-4, 1e-2, 100)
        total = seconds(lambda how=how, watch=watch, rates=rates: gdjax.sweep(problem, learning_rate=rates, observer=watch, **how))
        rows.append({"row": f"(e) first call, {name}", "compile_ms": 1e3 * watch.spent, "total_ms": 1e3 * total})
    return rows


def table(rows: list[Row]) -> list[list[str]]:
    """The rows as text."""
    head = ["row", "precision", "ours, ms (min to max)", "peer", "its ms", "timed", "ratio"]
    body = [
        [
            row["row"],
            row["precision"],
            f"{row['ours_ms']:.3g} ({row['ours_spread_ms'][0]:.3g} to {row['ours_spread_ms'][1]:.3g})",
            row["peer"],
            f"{row['peer_ms']:.4g}",
            row["peer_share"],
            f"{row['ratio']:.3g}",
        ]
        for row in rows
        if "ratio" in row
    ]
    return [head, *body]


def said(row: Row) -> str:
    return f"{row['row']}: compile {row['compile_ms']:.0f} ms, first result after {row['total_ms']:.0f} ms."


def markdown(rows: list[Row]) -> str:
    """The table, and the compile times below it, for a page."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in table(rows))
    compiled = [
        f"{row['row']}: compile {row['compile_ms']:.0f} ms, first result after {row['total_ms']:.0f} ms."
        for row in rows
        if "compile_ms" in row
    ]
    return "\n".join([head, "|" + "---|" * len(table(rows)[0]), *body, "", *compiled]) + "\n"


def show(rows: list[Row]) -> None:
    head, *body = table(rows)
    shown = Table(*head, title="ours against a peer, medians; a ratio above 1 is ours faster")
    for cells in body:
        shown.add_row(*cells)
    console = Console(width=160)
    console.print(shown)
    for row in rows:
        if "compile_ms" in row:
            console.print(said(row))


def main() -> None:
    """Run the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="also write engine.json and engine.md there")
    parser.add_argument("--rows", default="abcde", help="which of a, b, c, d, e")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)  # for the bare products; gdjax needs no switch
    rows: list[Row] = []
    for letter, row in (("a", row_a), ("b", row_b), ("c", row_c), ("d", row_d)):
        if letter in given.rows:
            rows += [found for precision in ("float64", "float32") for found in row(precision)]
    if "e" in given.rows:
        rows += compile_times() + row_e()
    show(rows)
    if given.folder:
        machine = {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.machine(),
            "jax": jax.__version__,
            "python": platform.python_version(),
        }
        given.folder.mkdir(parents=True, exist_ok=True)
        (given.folder / "engine.json").write_text(
            json.dumps({"machine": machine, "repetitions": REPETITIONS, "rows": rows}, indent=2) + "\n"
        )
        (given.folder / "engine.md").write_text(f"# {BENCHMARK_TITLE}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
