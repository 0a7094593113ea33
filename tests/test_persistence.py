"""A file gives back what was saved, to the bit, whatever became of the classes; and a file that isn't right is refused in one line."""

from __future__ import annotations

import json
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors.numpy

from gdjax import methods, persistence

KIND = "test"
PARAMS = {"w": np.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": np.array(0.1)}


@pytest.fixture
def saved(tmp_path):
    """Save a tree and load it."""

    def there_and_back(arrays, **settings):
        return persistence.load(persistence.save(tmp_path / "file", arrays, kind=KIND, settings=settings), kind=KIND)

    return there_and_back


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for leaves in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        here, there = (np.asarray(jax.random.key_data(leaf) if persistence._is_key(leaf) else leaf) for leaf in leaves)
        assert (here.dtype, here.shape, here.tobytes()) == (there.dtype, there.shape, there.tobytes())


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, -0.0, np.inf, 5e-324]),
        np.float32(3.0),
        np.empty((0, 3)),
        np.arange(6).reshape(2, 3).T,
        np.arange(10.0)[::-3],
        np.arange(3, dtype=">f8"),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
        np.array([1.5, -2.0], ml_dtypes.bfloat16),
        np.array([1.5, -2.0], ml_dtypes.float8_e4m3fn),
        7,
        2.5,
    ],
    ids=str,
)
def test_every_number_comes_back_to_the_bit(array, saved):
    wanted = np.asarray(array)
    wanted = wanted.astype(wanted.dtype.newbyteorder("<"))
    got = saved({"x": array}).restore({"x": wanted})["x"]
    assert got.dtype == wanted.dtype
    assert got.tobytes() == wanted.tobytes()
    assert got.shape == wanted.shape
    got[...] = 0  # it is the caller's own


@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:Specifying a key")  # of optax's own
@pytest.mark.parametrize(
    "name", sorted(name for name, build in methods.available().items() if not methods.Method(name, build).asks_about_examples)
)
def test_every_optimizer_s_state_is_rebuilt_from_its_own_init(name, saved):
    params = {"w": jnp.asarray(PARAMS["w"][0])}
    begun = methods.available()[name](0.01).init(params)
    state = jax.tree.map(lambda leaf: leaf if persistence._is_key(leaf) else ~leaf.astype(bool) * leaf.size, begun)
    state = jax.tree.map(lambda leaf, like: leaf if leaf is like else leaf.astype(like.dtype), state, begun)
    assert_same(saved({"params": params, "optimizer": state}).restore(begun, at="optimizer"), state)


def test_a_bare_array_and_an_empty_tree_are_trees_too(saved):
    np.testing.assert_array_equal(saved(np.arange(3.0)).restore(np.zeros(3)), [0, 1, 2])
    assert saved({}).restore({}) == {}
    assert saved({"state": optax.sgd(0.1).init(PARAMS)}).restore(optax.sgd(0.2).init(PARAMS), at="state") == optax.sgd(0.1).init(PARAMS)


def test_typed_keys_of_randomness_come_back(saved):
    key = jax.random.key(7, impl="rbg")
    got = saved({"key": key}).restore({"key": jax.random.key(0, impl="rbg")})["key"]
    assert (jax.random.key_data(got) == jax.random.key_data(key)).all()
    assert jax.random.key_impl(got) == jax.random.key_impl(key)


def test_keys_with_slashes_do_not_meet_paths(saved):
    tree = {"a/b": np.ones(1), "a": {"b": np.zeros(1)}, "a~1b": np.full(1, 2.0)}
    assert_same(saved(tree).restore(jax.tree.map(np.zeros_like, tree)), tree)


def test_settings_come_back(saved):
    given = {"name": "µ", "n": 2**60, "x": 0.1, "none": None, "yes": True, "list": [1, (2, 3)], "numpy": np.float32(0.5), "of": {"a": []}}
    expected = given | {"list": [1, [2, 3]], "numpy": 0.5}
    assert saved({}, **given).settings == expected


class Before(NamedTuple):
    mean: np.ndarray
    scale: np.ndarray


class After(NamedTuple):
    """The same, under another name and with its fields in another order."""

    scale: np.ndarray
    mean: np.ndarray


def test_a_tree_loads_into_a_class_of_another_name(saved):
    got = saved({"scaler": Before(np.ones(2), np.full(2, 3.0))}).restore({"scaler": After(np.zeros(2), np.zeros(2))})
    assert (got["scaler"].scale == 3.0).all()
    assert (got["scaler"].mean == 1.0).all()


def test_a_tree_loads_after_its_class_has_gone(tmp_path):
    old = types.ModuleType("old_place")
    old.State = NamedTuple("State", [("mean", np.ndarray)])
    sys.modules["old_place"] = old
    path = persistence.save(tmp_path / "file", old.State(np.ones(2)), kind=KIND)
    del sys.modules["old_place"], old
    assert (persistence.load(path, kind=KIND).restore(Before(np.zeros(2), None)).mean == 1.0).all()  # None is no leaf


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ({"w": PARAMS["w"]}, "also holds 'b': it was saved from a tree of another structure"),
        (PARAMS | {"c": np.ones(1)}, "lacks 'c'"),
        (PARAMS | {"w": np.ones((3, 2))}, r"has w as float64\[2,3\]; what it is loaded into has float64\[3,2\]"),
        (PARAMS | {"w": np.ones((2, 3), np.float32)}, r"has w as float64\[2,3\]; what it is loaded into has float32\[2,3\]"),
        ({}, "also holds 'b', 'w'"),
        ({f"x{i}": np.ones(1) for i in range(5)}, "lacks 'x0', 'x1', 'x2' and 2 more"),
    ],
)
def test_a_tree_of_another_structure_is_refused(like, said, saved, mistake):
    import re

    assert re.search(said, mistake(saved(PARAMS).restore, like))


@pytest.mark.parametrize(
    ("arrays", "settings", "said"),
    [
        ({"x": "text"}, {}, "'x' can't be saved: it is str"),
        ({"x": object()}, {}, "'x' can't be saved: it is object"),
        ({"x": np.ones(1, np.complex128)}, {}, "complex128"),
        ({"x": np.zeros(1, "datetime64[s]")}, {}, "datetime64"),
        ({}, {"a": {"b": [1.0, float("nan")]}}, "settings.a.b[1]=nan can't be saved"),
        ({}, {"a": np.ones(2)}, "settings.a=array([1., 1.]) can't be saved"),
        ({}, {"a": {1: 2}}, "settings.a has the key 1"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_when_saving(arrays, settings, said, tmp_path, mistake):
    assert said in mistake(persistence.save, tmp_path / "file", arrays, kind=KIND, settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_or_read_from_is_named(tmp_path, mistake):
    assert "nowhere/file can't be written: No such file" in mistake(persistence.save, tmp_path / "nowhere" / "file", {}, kind=KIND)
    assert "nowhere can't be read: No such file" in mistake(persistence.load, tmp_path / "nowhere", kind=KIND)
    (tmp_path / "file").mkdir()
    assert "can't be written" in mistake(persistence.save, tmp_path / "file", {}, kind=KIND)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def path(tmp_path):
    return persistence.save(tmp_path / "file", PARAMS, kind=KIND, version=2, settings={"rate": 0.1})


def test_another_kind_and_a_later_version_are_refused_and_an_earlier_one_says_so(path, mistake):
    assert mistake(persistence.load, path, kind="model") == f"{path} holds a 'test', not a 'model'."
    assert "holds version 2 of 'test', and this gdjax knows versions up to 1" in mistake(persistence.load, path, kind=KIND)
    assert persistence.load(path, kind=KIND, version=3).version == 2


def test_a_later_format_is_refused_as_such(path, mistake, monkeypatch):
    monkeypatch.setattr(persistence, "FORMAT", 2)
    later = persistence.save(path, PARAMS, kind=KIND)
    monkeypatch.undo()
    assert "has format 2, and this gdjax knows formats up to 1: it needs a later one" in mistake(persistence.load, later, kind=KIND)


def test_every_truncation_is_refused(path, mistake):
    raw = path.read_bytes()
    for length in range(0, len(raw), 5):
        path.write_bytes(raw[:length])
        assert "damaged" in mistake(persistence.load, path, kind=KIND, version=2)
    path.write_bytes(raw + b"\0")
    assert "damaged" in mistake(persistence.load, path, kind=KIND, version=2)


def test_no_change_of_a_byte_is_read_as_other_content(path):
    raw, whole = path.read_bytes(), persistence.load(path, kind=KIND, version=2)
    refused = 0
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(changed))
        try:
            got = persistence.load(path, kind=KIND, version=2)
        except persistence.InputError as error:
            refused += "\n" not in str(error)
            continue
        assert (got.settings, got.kind, got.version) == (whole.settings, whole.kind, whole.version)
        assert_same(got.arrays, whole.arrays)
    assert refused == len(raw)


def test_settings_that_were_changed_are_refused(path, mistake):
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"0.1", b"0.2"))
    assert "its content and its digest differ" in mistake(persistence.load, path, kind=KIND, version=2)


def test_files_of_others_are_refused(tmp_path, mistake):
    path = tmp_path / "file"
    path.write_bytes(safetensors.numpy.save({"x": np.ones(2)}))
    assert "was not written by gdjax" in mistake(persistence.load, path, kind=KIND)
    path.write_bytes(safetensors.numpy.save({"x": np.ones(2)}, {"gdjax": json.dumps([])}))
    assert "damaged or was changed" in mistake(persistence.load, path, kind=KIND)
    path.write_bytes(safetensors.numpy.save({"x": np.ones(2)}, {"other": ""}))
    assert "damaged or was changed" in mistake(persistence.load, path, kind=KIND)
    import pickle

    path.write_bytes(pickle.dumps(PARAMS))
    assert "no safetensors file" in mistake(persistence.load, path, kind=KIND)


def test_a_file_is_plain_safetensors(path):
    got = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(got["w"], PARAMS["w"])


def test_what_was_there_stays_until_the_new_file_is_whole(path, mistake, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "No space left" in mistake(persistence.save, path, {}, kind=KIND)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
