"""Arrays and settings in one file, which a program of another shape can still read: safetensors for the arrays, JSON for the rest.

A file knows leaves by their paths ("optimizer/0/mu/w1"), never classes: whoever loads it says what the tree is, by one of the same
structure (`Saved.restore`). So code may move, be renamed or be rewritten; only the names of fields and their order in tuples matter.
Nothing in a file is ever run, as it is where pickle reads one.

A SHA-256 digest of all that is in the file tells a damaged one; it is no signature, and whoever means to deceive can write another.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import PyTree

from gdjax.records import InputError, whole

FORMAT = 1
"""How files are laid out; a reader refuses a higher number than its own."""

ENTRY = "gdjax"
"""The one entry of a file's metadata, as JSON."""

NATIVE = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64")
"""Types that the file has; the narrow floats of JAX are written as their bits."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a file holds: arrays by their paths, and settings."""

    kind: str
    version: int
    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]
    source: str = "the file"

    def restore(self, like: PyTree, at: str = "") -> Any:
        """Put the arrays below the path `at` into the structure of `like`.

        Parameters
        ----------
        like
            A tree of the structure that was saved, such as a method's own `init(params)`; its leaves give shapes and types, their values
            play no part.
        at
            Where it was in what was saved: "optimizer" of `{"params": ..., "optimizer": ...}`; by default it was all of it.

        Returns
        -------
        `like` with NumPy arrays for leaves, and keys where it has keys.

        Raises
        ------
        InputError
            Where a leaf is missing or left over, or has another shape or type.
        """
        leaves, structure = jax.tree_util.tree_flatten_with_path(like)
        wanted = {_joined(at, _path(keys)): leaf for keys, leaf in leaves}
        held = {path for path in self.arrays if not at or path == at or path.startswith(f"{at}/")}
        for said, paths in (("lacks", wanted.keys() - held), ("also holds", held - wanted.keys())):
            if paths:
                raise InputError(f"{self.source} {said} {_some(paths)}: it was saved from a tree of another structure.")
        return jax.tree_util.tree_unflatten(structure, [self._leaf(path, leaf) for path, leaf in wanted.items()])

    def _leaf(self, path: str, like: Any) -> Any:
        array, plain = self.arrays[path], _plain(path, like)
        if (array.shape, array.dtype) != (plain.shape, plain.dtype):
            raise InputError(f"{self.source} has {path} as {_described(array)}; what it is loaded into has {_described(plain)}.")
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like)) if _is_key(like) else array


def save(path: str | Path, arrays: PyTree, *, kind: str, version: int = 1, settings: Mapping[str, Any] | None = None) -> Path:
    """Write a tree of arrays and settings to one file, whole or not at all.

    Parameters
    ----------
    arrays
        Any pytree of arrays and numbers: parameters, an optimizer's state, means and deviations of a scaler.
    kind
        What it is, such as "gradient_descent_regressor"; `load` asks for it.
    version
        Of this kind: raise it whenever a reader of today would misread what is written.
    settings
        Values that JSON has: text, whole numbers, finite floats, true, false, null, and lists and dictionaries of these.

    Raises
    ------
    InputError
        For a leaf that is no array of numbers, settings that JSON can't hold, or a place that can't be written to.
    """
    held = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
        name = _path(keys)
        if name in held:
            raise InputError(f"two leaves are both called '{name}': give their keys different names.")
        held[name] = _plain(name, leaf)
    content = Saved(kind=kind, version=whole("version", version), settings=_json("settings", settings or {}), arrays=held)
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}")  # beside it: what is there already stays until all is written
    try:
        draft.write_bytes(_bytes(content))
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{target} can't be written: {error.strerror}.") from None
    return target


def load(path: str | Path, *, kind: str, version: int = 1) -> Saved:
    """Read what `save` wrote.

    Parameters
    ----------
    kind
        What the file must be.
    version
        The highest version of that kind which the caller understands; `Saved.version` says which it is.

    Raises
    ------
    InputError
        For a file that is not there, cut short, changed, of another kind, or from a later version; the message says which.
    """
    source = Path(path)
    try:
        raw = source.read_bytes()
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror}.") from None
    saved = _read(raw, str(source))
    if saved.kind != kind:
        raise InputError(f"{source} holds a '{saved.kind}', not a '{kind}'.")
    if saved.version > version:
        raise InputError(
            f"{source} holds version {saved.version} of '{kind}', and this gdjax knows versions up to {version}: it needs a later one."
        )
    return saved


def _bytes(content: Saved) -> bytes:
    stored = {name: np.ascontiguousarray(_bits(array)).reshape(array.shape) for name, array in content.arrays.items()}
    header = {"format": FORMAT, "kind": content.kind, "version": content.version, "settings": content.settings}
    header |= {"types": {name: array.dtype.name for name, array in content.arrays.items()}, "digest": _digest(content)}
    return safetensors.numpy.save(stored, {ENTRY: json.dumps(header, sort_keys=True)})


def _read(raw: bytes, source: str) -> Saved:
    """Take a file apart; whatever is wrong with it, say so in one line."""
    try:
        stored = safetensors.numpy.load(raw)
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    except KeyError:
        raise InputError(f"{source} was not written by gdjax: it is a safetensors file without gdjax's entry.") from None
    except Exception as error:  # safetensors', or of whatever its header made of a damaged file
        reason = " ".join(str(error).split())
        raise InputError(f"{source} is damaged, cut short, or no safetensors file ({reason}).") from None
    damaged = InputError(f"{source} is damaged or was changed after it was written: its content and its digest differ.")
    try:
        header = json.loads(metadata[ENTRY])
        if header["format"] > FORMAT:
            raise InputError(f"{source} has format {header['format']}, and this gdjax knows formats up to {FORMAT}: it needs a later one.")
        arrays = {name: stored[name].view(jnp.dtype(type_name)).copy() for name, type_name in header["types"].items()}
        saved = Saved(kind=header["kind"], version=header["version"], settings=header["settings"], arrays=arrays, source=source)
        intact = header["digest"] == _digest(saved) and header["format"] == FORMAT and arrays.keys() == stored.keys()
    except InputError:
        raise
    except Exception:  # a header changed by any bit may fail in any way: the digest would have said so
        raise damaged from None
    if not intact:
        raise damaged
    return saved


def _digest(content: Saved) -> str:
    described = [[name, array.dtype.name, array.shape] for name, array in sorted(content.arrays.items())]
    text = json.dumps([FORMAT, content.kind, content.version, content.settings, described], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for _, array in sorted(content.arrays.items()):
        digest.update(_little_endian(_bits(array)).tobytes())
    return digest.hexdigest()


def _bits(array: np.ndarray) -> np.ndarray:
    """The array as a type that the file has."""
    return array if array.dtype.name in NATIVE else array.view(f"u{array.dtype.itemsize}")


def _little_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(path: str, leaf: Any) -> np.ndarray:
    """A leaf as an array of the host."""
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    narrow = array.dtype.kind == "V" and array.dtype.names is None and re.fullmatch(r"b?float\w+", array.dtype.name)
    if array.dtype.name not in NATIVE and not narrow:
        raise InputError(f"'{path}' can't be saved: it is {type(leaf).__name__} of type {array.dtype}, and numbers are wanted.")
    return _little_endian(array)


def _path(keys: tuple[Any, ...]) -> str:
    """A leaf's path: keys, fields and places, joined by slashes."""
    named = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in keys)
    return "/".join(str(name).replace("~", "~0").replace("/", "~1") for name in named)


def _joined(at: str, path: str) -> str:
    return f"{at}/{path}" if at and path else at or path


def _some(paths: set[str]) -> str:
    shown = ", ".join(repr(path) for path in sorted(paths)[:3])
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _described(array: np.ndarray) -> str:
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"


def _json(key: str, value: Any) -> Any:
    """The value as it will come back from JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InputError(f"{key} has the key {name!r}: keys are text.")
        return {name: _json(f"{key}.{name}", entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(f"{key}[{place}]", entry) for place, entry in enumerate(value)]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    raise InputError(
        f"{key}={value!r} can't be saved: settings are text, whole numbers, finite floats, true, false, null; arrays go apart."
    )
