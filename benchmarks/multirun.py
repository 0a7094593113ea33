"""How long a Hydra multirun takes, start to end of the process: `python benchmarks/multirun.py [--folder FOLDER]`.

Ours run whole, results, folders and figure included. A peer by Hydra's own launcher takes minutes for 1,000 jobs, so it runs 1 and 21,
and what a job takes is scaled up. Everything runs once untimed, so that compiled programs are kept. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

APPLICATION = Path(__file__).with_name("application.py")
RATES = "learning_rate=0.001,0.002,0.005,0.01,0.02"
OURS = [sys.executable, "-m", "gdjax", "-m", "experiment=descend", "num_steps=100", RATES, "batch_size=8,32"]
FOREIGN = [sys.executable, str(APPLICATION), "-m", RATES, "batch_size=8,32"]
VMAP = ["hydra/launcher=vmap", "hydra/sweeper=vmap"]
BASIC = ["hydra/launcher=basic", "hydra/sweeper=basic"]
REPETITIONS = 3


def spent(command: list[str]) -> tuple[float, float]:
    """Seconds and GB of one process, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        process = subprocess.Popen([*command, "hydra.sweep.dir=out"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - begun
    if status != 0:
        raise SystemExit(f"failed with status {status}: {' '.join(command)}")
    return took, used.ru_maxrss / 1e6


def timed(command: list[str], repetitions: int = REPETITIONS) -> dict[str, Any]:
    """The median and the spread."""
    runs = [spent(command) for _ in range(repetitions)]
    seconds = [took for took, _ in runs]
    return {"seconds": median(seconds), "spread": [min(seconds), max(seconds)], "gigabytes": max(memory for _, memory in runs)}


def scaled(command: list[str], sweep: tuple[str, str], num_jobs: int) -> dict[str, Any]:
    """What so many jobs would take, from 1 job and from 21."""
    one, more = (timed([*command, *seeds.split()], 1)["seconds"] for seeds in sweep)
    each = (more - one) / 20
    return {"seconds": one + (num_jobs - 1) * each, "each": each, "gigabytes": None, "spread": None}


def main() -> None:
    """Time every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="also write multirun.json and multirun.md there")
    given = parser.parse_args()
    few = ("learning_rate=0.01 batch_size=8 seed=0", "learning_rate=0.01 batch_size=8 seed=range(0,21)")
    for command in (OURS, [*FOREIGN, *VMAP]):
        spent([*command, "seed=range(0,100)"])
    rows: list[dict[str, Any]] = []

    def add(row: str, measured: dict[str, Any], peer: dict[str, Any] | None = None, said: str = "") -> None:
        against = {} if peer is None else {"peer": said, "peer_seconds": peer["seconds"], "ratio": peer["seconds"] / measured["seconds"]}
        rows.append({"row": row} | measured | against)
        print(rows[-1], flush=True)

    thousand = timed([*OURS, "seed=range(0,100)"])
    own, foreign = scaled([*OURS, *BASIC], few, 1000), scaled([*FOREIGN, *BASIC], few, 1000)
    add("gdjax, 1,000 jobs, all folders", thousand, own, "the same jobs by Hydra's launcher (1 and 21 timed)")
    add("gdjax, 1,000 jobs, all folders", thousand, foreign, "a jitted task that saves nothing, by Hydra's launcher (1 and 21 timed)")
    other = timed([*FOREIGN, *VMAP, "seed=range(0,100)"])
    add("another application, 1,000 jobs", other, foreign, "the same by Hydra's launcher (1 and 21 timed)")
    for num_jobs in (10_000, 100_000):
        add(f"gdjax, {num_jobs:,} jobs, job_dirs=none", timed([*OURS, f"seed=range(0,{num_jobs // 10})", "hydra.launcher.job_dirs=none"]))
    if given.folder:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        machine |= {name: version(name) for name in ("jax", "hydra-core")}
        content = {"machine": machine, "repetitions": REPETITIONS, "rows": rows}
        (given.folder / "multirun.json").write_text(json.dumps(content, indent=2) + "\n")
        (given.folder / "multirun.md").write_text(markdown(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "# A Hydra multirun, start to end: `python benchmarks/multirun.py --folder results/benchmarks`",
        "",
        "5 rates x 2 batch sizes x seeds, 100 steps each; compiled programs kept.",
        "",
        "| what | s (min to max) | GB | peer | its s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["spread"]
        against = f"{row['peer']} | {row['peer_seconds']:.0f} | {row['ratio']:.0f}" if "peer" in row else " | | "
        lines.append(f"| {row['row']} | {row['seconds']:.2f} ({low:.2f} to {high:.2f}) | {row['gigabytes']:.2f} | {against} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
