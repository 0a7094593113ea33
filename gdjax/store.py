"""To and from disk: one folder a run, whatever is measured saved before anything that could fail is made of it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from gdjax.records import Finding, InputError

Sweeps = xr.Dataset | xr.DataTree


def save_sweep(folder: Path, sweeps: Sweeps) -> None:
    """Write `sweep.zarr`."""
    sweeps.to_zarr(folder / "sweep.zarr", mode="w", zarr_format=2, consolidated=True)


def open_results(path: str | Path) -> Sweeps:
    """Open what was measured: a Dataset, or a DataTree of several.

    Parameters
    ----------
    path
        A run's folder, a multirun's, that of one of its jobs (which gives that job's part), or a `sweep.zarr`.

    Raises
    ------
    InputError
        Where there are no results.
    """
    given = Path(path)
    store = given if given.suffix == ".zarr" else given / "sweep.zarr"
    if not store.is_dir() and given.name.isdigit() and (given.parent / "sweep.zarr").is_dir():
        return _of_job(open_results(given.parent), int(given.name), given)
    if not store.is_dir():
        raise InputError(f"no results at {store.absolute()}: give a run's folder, or the sweep.zarr in it.")
    tree = xr.open_datatree(store, engine="zarr", consolidated=True)
    return tree if tree.children else tree.to_dataset()


def _of_job(results: Sweeps, num: int, given: Path) -> xr.Dataset:
    """One job's part of a multirun's results."""
    for group in results.leaves if isinstance(results, xr.DataTree) else [xr.DataTree(results)]:
        of_group = group.to_dataset()
        places = np.argwhere(np.asarray(of_group.coords["job"].values == num)) if "job" in of_group.coords else np.empty((0, 0))
        if len(places):
            return of_group.isel(dict(zip(of_group["job"].dims, places[0], strict=True)))
    raise InputError(f"no results of job {num} in {given.parent.absolute()}: it failed, or it ran on its own.")


def take_back(folder: Path, made: Sequence[str]) -> None:
    """Remove what was laid out for a run that did not take place, and the folders that this leaves empty, up to the working directory.

    Parameters
    ----------
    made
        The names in `folder` that were made for the run; where there is anything else, nothing is removed.
    """
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= set(made):
        return
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    here = Path.cwd()
    for place in (folder.absolute(), *folder.absolute().parents):
        if place == here or place in here.parents or any(place.iterdir()):
            return
        place.rmdir()


def save_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Write `findings.json`."""
    save_json(folder / "findings.json", [finding.as_dict() for finding in findings])


def save_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read; infinities and NaN become null, which JSON has."""
    path.write_text(json.dumps(_finite(content), indent=2) + "\n")


def provenance(command: Sequence[str], precision: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Where numbers came from: versions, device, precision, commit, and where the time went."""
    device = jax.devices()[0]
    packages = ("gdjax", "jax", "jaxlib", "optax", "numpy", "xarray", "hydra-core")
    return {
        "command": list(command),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "precision": precision,
        "git_commit": _git_commit(),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not abs(content) < float("inf") else content


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source that runs, with "-dirty" where the source was changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():  # installed: a repository around it is not this one
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "gdjax", "experiments", "conf")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
