"""How fast a search is: `python benchmarks/search.py [--folder FOLDER] [--peer-share 4]`.

200 candidates x 5 folds of a linear regression, `gdjax.SweepSearchCV` beside scikit-learn's `GridSearchCV(SGDRegressor)`, each over
20 learning rates x 10 ridges. Both are timed in turn in this one process: medians, their spread and the ratio. The peer may fit a
share of the rates, evenly spread, and is scaled up; with --peer-share 1 it fits all. Compile time is apart: ours are later calls.
The best validation score, R^2 over the folds, must not be below the peer's by 1e-3. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gdjax

REPETITIONS = 3
RATES = np.geomspace(1e-4, 1e-1, 20)
RIDGES = np.geomspace(1e-6, 1e-2, 10)

Row = dict[str, Any]


def data(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    y = X @ rng.normal(size=p) + rng.normal(size=n)
    return X, y / y.std()  # a target of unit variance, so that both stop by the same tolerance


def ours(X: np.ndarray, y: np.ndarray, **settings: Any) -> Callable[[], Any]:
    """The whole grid; training stops after 5 epochs without a gain of 1e-3 of the target's variance."""
    how = {"optimizer": "sgd", "batch_size": 32, "tol": 1e-3, "patience": 5, "random_state": 0} | settings
    grid = {"learning_rate": RATES.tolist(), "ridge": RIDGES.tolist()}
    return lambda: gdjax.SweepSearchCV(gdjax.GradientDescentRegressor(**how), grid, refit=False).fit(X, y)


def peer(X: np.ndarray, y: np.ndarray, share: int, jobs: int, **settings: Any) -> Callable[[], Any]:
    """SGDRegressor's own stopping rule (5 epochs without a gain of 1e-3), one in `share` of the rates."""
    rates = RATES[share // 2 :: share]
    grid = {"sgdregressor__eta0": rates.tolist(), "sgdregressor__alpha": (2.0 * RIDGES).tolist()}  # its penalty is alpha / 2
    model = make_pipeline(StandardScaler(), SGDRegressor(random_state=0, **settings))
    return lambda: GridSearchCV(model, grid, refit=False, n_jobs=jobs).fit(X, y)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


def compare(name: str, mine: Callable[[], Any], theirs: Callable[[], Any], share: float) -> Row:
    """First ours untimed, whose compile time is what the first call took longer; then both in turn."""
    first, _ = timed(mine)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    found: dict[str, Any] = {}
    for _ in range(REPETITIONS):
        for key, work, factor in (("ours", mine, 1.0), ("peer", theirs, share)):
            spent, found[key] = timed(work)
            times[key].append(factor * spent)
    return {
        "row": name,
        "ours_s": median(times["ours"]),
        "ours_spread_s": [min(times["ours"]), max(times["ours"])],
        "peer_s": median(times["peer"]),
        "peer_spread_s": [min(times["peer"]), max(times["peer"])],
        "peer_share": f"1/{share:g}" if share != 1 else "whole",
        "ratio": median(times["peer"]) / median(times["ours"]),
        "compile_s": first - median(times["ours"]),
        "ours_score": found["ours"].best_score_,
        "peer_score": found["peer"].best_score_,
    }


def rows(n: int, share: int, jobs: int) -> list[Row]:
    X, y = data(n, 20)
    factor = len(RATES) / len(RATES[share // 2 :: share])
    task = f"{len(RATES) * len(RIDGES)} candidates x 5 folds, n={n:,}, p=20"
    held = {"early_stopping": True, "validation_fraction": 0.1}
    return [
        compare(f"{task}, stopped by held-out rows", ours(X, y, **held), peer(X, y, share, jobs, **held), factor),
        compare(f"{task}, stopped by the training loss", ours(X, y, early_stopping=False), peer(X, y, share, jobs), factor),
        compare(
            f"{task}, held-out rows, ours in float32", ours(X, y, **held, precision="float32"), peer(X, y, share, jobs, **held), factor
        ),
    ]


def table(rows: list[Row]) -> list[list[str]]:
    """The rows as text."""
    head = [
        "row",
        "ours, s (min to max)",
        "GridSearchCV(SGDRegressor), s (min to max)",
        "timed",
        "ratio",
        "compile, s",
        "best R^2: ours",
        "its",
    ]
    return [head] + [
        [
            row["row"],
            f"{row['ours_s']:.3g} ({row['ours_spread_s'][0]:.3g} to {row['ours_spread_s'][1]:.3g})",
            f"{row['peer_s']:.3g} ({row['peer_spread_s'][0]:.3g} to {row['peer_spread_s'][1]:.3g})",
            row["peer_share"],
            f"{row['ratio']:.3g}",
            f"{row['compile_s']:.2g}",
            f"{row['ours_score']:.5f}",
            f"{row['peer_score']:.5f}",
        ]
        for row in rows
    ]


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="also write search.json and search.md there")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--peer-share", type=int, default=4, help="the peer fits one in so many rates")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes of the peer; ours takes all cores")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = rows(given.examples, given.peer_share, given.jobs)
    head, *body = table(found)
    shown = Table(*head, title=f"ours against scikit-learn's, medians of {REPETITIONS}; a ratio above 1 is ours faster")
    for cells in body:
        shown.add_row(*cells)
    Console(width=180).print(shown)
    assert all(row["ours_score"] > row["peer_score"] - 1e-3 for row in found), "the best validation score is lower"
    if given.folder:
        machine = {"cores": given.jobs, "processor": platform.machine(), "jax": jax.__version__, "python": platform.python_version()}
        given.folder.mkdir(parents=True, exist_ok=True)
        (given.folder / "search.json").write_text(
            json.dumps({"machine": machine, "repetitions": REPETITIONS, "rows": found}, indent=2) + "\n"
        )
        lines = [f"| {' | '.join(cells)} |" for cells in table(found)]
        lines.insert(1, "|" + "---|" * len(head))
        (given.folder / "search.md").write_text("# A search beside GridSearchCV(SGDRegressor)\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
