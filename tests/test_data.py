"""The readers give the numbers that were written, and every mistake of a user's is one line that says what to do."""

from __future__ import annotations

import ast
import bz2
import gzip
import json
import os
import urllib.error
import warnings
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gdjax import data
from gdjax.records import InputError

X = np.array([[1.0, 0.1], [2.5, -0.3], [1e-300, 1e300], [0.1 + 0.2, 7.0]])
Y = np.array([0.7, -1.0, 3.0, 1 / 3])
SHIPPED = {
    "diabetes": (442, 10),
    "linnerud": (20, 3),
    "digits": (1797, 64),
    "breast_cancer": (569, 30),
    "wine": (178, 13),
    "iris": (150, 4),
}


@pytest.fixture
def write(tmp_path):
    """Write a text or bytes to a file of a fresh folder; give its path."""

    def _write(content: str | bytes, name: str = "houses.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def frame() -> pd.DataFrame:
    return pd.DataFrame({"area": X[:, 0], "rooms": X[:, 1], "price": Y})


def mistake(function, *args, **options) -> str:
    """The message of the InputError that a call ends in: one line, with no other error chained to it."""
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


def assert_holds(table: data.Table, features, target, names=("area", "rooms")):
    """The table holds exactly these numbers, in float64."""
    np.testing.assert_array_equal(table.features, features)
    np.testing.assert_array_equal(table.target, target)
    assert table.feature_names == names
    assert table.features.dtype == table.target.dtype == np.float64
    assert (table.features.ndim, table.target.ndim) == (2, 1)


# Round trips


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.bz2", ".csv.xz"])
def test_csv_gives_back_what_pandas_wrote_to_the_last_bit(tmp_path, suffix):
    path = tmp_path / f"houses{suffix}"
    frame().to_csv(path, index=False)
    table = data.csv(path, target="price")
    assert_holds(table, X, Y)
    assert (table.target_name, table.source) == ("price", f"csv: houses{suffix}")


def test_parquet_gives_back_what_pandas_wrote(tmp_path):
    frame().to_parquet(tmp_path / "houses.parquet")
    table = data.parquet(tmp_path / "houses.parquet", target="price")
    assert_holds(table, X, Y)
    assert (table.target_name, table.source) == ("price", "parquet: houses.parquet")


@pytest.mark.parametrize("y", [Y, Y[:, None]], ids=["(n,)", "(n,1)"])
def test_npz_gives_back_what_numpy_wrote(tmp_path, y):
    np.savez(tmp_path / "d.npz", X=X, y=y)
    table = data.npz(tmp_path / "d.npz")
    assert_holds(table, X, Y, ("X_0", "X_1"))
    assert (table.target_name, table.source) == ("y", "npz: d.npz")


def test_npz_takes_a_vector_for_one_feature_and_other_array_names(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", inputs=np.arange(4), out=np.array([True, False, True, True]))
    table = data.npz(tmp_path / "d.npz", features="inputs", target="out")
    assert_holds(table, np.arange(4.0)[:, None], [1, 0, 1, 1], ("inputs_0",))


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)])
def test_svmlight_fills_what_a_line_leaves_out_with_zeros(write, suffix, compress):
    path = write(compress(b"1 1:0.5 3:2\n-1 2:1e-3  # a comment\n"), f"d.svm{suffix}")
    table = data.svmlight(path)
    assert_holds(table, [[0.5, 0, 2], [0, 1e-3, 0]], [1, -1], ("feature_1", "feature_2", "feature_3"))
    assert table.source == f"svmlight: d.svm{suffix}"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_have_their_known_shapes_and_names(name):
    table = data.read(name)
    n, p = SHIPPED[name]
    assert (table.features.shape, table.target.shape, len(table.feature_names)) == ((n, p), (n,), p)
    assert all(type(feature) is str for feature in table.feature_names)
    assert table.source == f"scikit-learn: {name}"


def test_diabetes_is_in_its_own_units():
    table = data.diabetes(features=["age", "bmi"])
    np.testing.assert_array_equal(table.features[0], [59.0, 32.1])  # the first patient in the original file
    assert table.target[0] == 151.0


@pytest.mark.parametrize(("target", "first"), [("Weight", 191), ("Waist", 36), ("Pulse", 50), (2, 50)])
def test_linnerud_has_three_targets_and_never_one_as_a_feature(target, first):
    table = data.linnerud(target=target)
    assert table.target[0] == first
    assert table.feature_names == ("Chins", "Situps", "Jumps")


def test_a_relative_path_starts_at_the_current_folder(write, monkeypatch):
    monkeypatch.chdir(write("a,y\n1,2\n").parent)
    assert data.csv("houses.csv", target="y").target == [2]


def test_a_tilde_is_the_home_folder(write, monkeypatch):
    monkeypatch.setenv("HOME", str(write("a,y\n1,2\n").parent))
    assert data.csv("~/houses.csv", target="y").target == [2]


# Labels


class TestLabels:
    """A target of text names classes where the reader is told so."""

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_are_numbered_in_the_order_of_their_names(self, tmp_path, kind):
        frame = pd.DataFrame({"area": [1.0, 2.0, 3.0], "sold": ["yes", " no", "yes"]})
        getattr(frame, f"to_{kind}")(tmp_path / "d", index=False)
        table = data.read(kind, path=tmp_path / "d", target="sold", labels=True)
        assert_holds(table, [[1], [2], [3]], [1, 0, 1], ("area",))
        assert table.class_names == ("no", "yes")

    def test_of_an_npz_file_are_an_array_of_text(self, tmp_path):
        np.savez(tmp_path / "d.npz", X=X, y=np.array(["b", "a", "c", "a"]))
        table = data.npz(tmp_path / "d.npz", labels=True)
        assert (table.target.tolist(), table.class_names) == ([1.0, 0.0, 2.0, 0.0], ("a", "b", "c"))
        assert "not numeric" in mistake(data.npz, tmp_path / "d.npz")

    def test_that_are_numbers_stay_what_they_are(self, write):
        table = data.csv(write("a,y\n1,-1\n2,1\n"), target="y", labels=True)
        assert (table.target.tolist(), table.class_names) == ([-1.0, 1.0], ())

    def test_that_are_missing_are_refused_as_numbers_are(self, write):
        assert "1 of 3 values is missing" in mistake(data.csv, write("a,y\n1,no\n2,\n3,yes\n"), target="y", labels=True)


# What a CSV file may look like


DIALECTS = {
    "commas": "area,rooms,price\n1,2,3\n4,5,6\n",
    "semicolons": "area;rooms;price\n1;2;3\n4;5;6\n",
    "tabs": "area\trooms\tprice\n1\t2\t3\n4\t5\t6\n",
    "bars": "area|rooms|price\n1|2|3\n4|5|6\n",
    "spaces": " area  rooms price\n 1   2 3 \n 4  5  6\n",
    "space after comma": "area, rooms, price\n1, 2, 3\n4, 5, 6\n",
    "space around comma": "area , rooms , price \n1 , 2 , 3 \n4 , 5 , 6 \n",
    "quotes": '"area","rooms","price"\n"1","2","3"\n"4","5","6"\n',
    "quotes, spaces": '"area", "rooms", "price"\n"1", "2", "3"\n"4", "5", "6"\n',
    "bom": "\ufeffarea,rooms,price\n1,2,3\n4,5,6\n",
    "bom quotes crlf": '\ufeff"area","rooms","price"\r\n1,2,3\r\n4,5,6\r\n',
    "blank lines": "\n\narea,rooms,price\n1,2,3\n\n4,5,6",
    "trailing commas": "area,rooms,price,\n1,2,3,\n4,5,6,\n",
    "trailing commas below": "area,rooms,price\n1,2,3,\n4,5,6,\n",
    "pandas index": ",area,rooms,price\n0,1,2,3\n1,4,5,6\n",
    "R row names": '"","area","rooms","price"\n"Mazda",1,2,3\n"Fiat",4,5,6\n',
    "number formats": "area,rooms,price\n1e0,+2,3.\n4,.5e1,6.0\n",
    "carriage returns": "area,rooms,price\r1,2,3\r4,5,6\r",
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS.keys())
def test_csv_dialects_read_alike(write, text):
    assert_holds(data.csv(write(text), target="price"), [[1, 2], [4, 5]], [3, 6])


def test_a_delimiter_inside_quotes_splits_nothing(write):
    path = write('"area; of, the; house; ";price\n1;2\n')
    assert data.csv(path, target="price").feature_names == ("area; of, the; house;",)


def test_a_name_in_quotes_may_hold_delimiters_and_line_breaks(write):
    path = write('"size\n(m2, net)"\t"price, in\nEUR"\n1,5\t2,5\n')
    assert_holds(data.csv(path, target=1, decimal=","), [[1.5]], [2.5], ("size\n(m2, net)",))


def test_a_given_delimiter_and_a_decimal_comma_are_used(write):
    assert_holds(data.csv(write("a,b|y\n1.5|2\n"), target="y", delimiter="|"), [[1.5]], [2], ("a,b",))
    assert_holds(data.csv(write("area;rooms;price\n1,5;2;3,25\n"), target="price", decimal=","), [[1.5, 2]], [3.25])


def test_without_a_header_columns_are_called_by_their_position(write):
    path = write("1,5;2,5;3,5\n4;5;6\n")
    assert_holds(data.csv(path, target=-1, header=False, decimal=","), [[1.5, 2.5], [4, 5]], [3.5, 6], ("0", "1"))
    assert_holds(data.csv(path, target="0", header=False, decimal=","), [[2.5, 3.5], [5, 6]], [1.5, 4], ("1", "2"))


def test_columns_of_truth_values_count_as_zero_and_one(write):
    assert_holds(data.csv(write("a,b,y\nTrue,false,1\nFalse,true,2\n"), target="y"), [[1, 0], [0, 1]], [1, 2], ("a", "b"))


def test_integers_beyond_64_bits_are_numbers(write):
    path = write("a,y\n123456789012345678901234567890,18446744073709551615\n1,-1\n")
    assert_holds(data.csv(path, target="y"), [[1.2345678901234568e29], [1]], [1.8446744073709552e19, -1], ("a",))


def test_thousands_of_rows_come_in_order(write):
    rows = 20_000
    path = write("x,y\n" + "".join(f"{i},{i / 7!r}\n" for i in range(rows)))
    assert_holds(data.csv(path, target="y"), np.arange(rows)[:, None], np.arange(rows) / 7, ("x",))


def test_text_far_down_a_column_is_found_in_its_row(write):
    rows = 600_000  # more than a block of the parser, which tells the types of a block apart and warns
    path = write("x,y\n" + "1,2\n" * (rows - 1) + "?,2\n")
    assert f"row {rows} holds '?'" in mistake(data.csv, path, target="y")


# Choosing columns


@pytest.mark.parametrize("target", ["price", " price ", 2, "2", -1])
def test_a_target_is_a_name_or_a_position(write, target):
    assert_holds(data.csv(write("area,rooms,price\n1,2,3\n"), target=target), [[1, 2]], [3])


@pytest.mark.parametrize("target", [2020, "2020"])
def test_a_name_made_of_digits_comes_before_a_position(write, target):
    assert data.csv(write("0,2020,1\n5,6,7\n"), target=target).target == [6]
    assert data.csv(write("0,2020,1\n5,6,7\n"), target=1).target == [7]


@pytest.mark.parametrize(
    ("features", "names"), [(["rooms", "area"], ("rooms", "area")), ("rooms", ("rooms",)), ([1, "0"], ("rooms", "area"))]
)
def test_features_come_in_the_order_asked_for(write, features, names):
    table = data.csv(write("area,rooms,city,price\n1,2,Paris,3\n"), target="price", features=features)
    assert table.feature_names == names
    np.testing.assert_array_equal(table.features[0], [{"area": 1, "rooms": 2}[name] for name in names])


def test_columns_that_are_not_used_may_hold_anything(write):
    path = write("area,city,price\n1,Paris,3\n2,,4\n")
    assert_holds(data.csv(path, target="price", features=["area"]), [[1], [2]], [3, 4], ("area",))


@pytest.mark.parametrize(
    "values",
    [
        pd.array([1, 2], dtype="Int64"),
        pd.array([1.0, 2.0], dtype="Float32"),
        pd.Categorical([1, 2]),
        pd.Categorical(["1", "2"]),
        [Decimal("1"), Decimal("2.0")],
        np.array([1, 2], dtype=np.uint8),
        np.array([1, 2], dtype=np.float16),
        ["1", " 2.0 "],
    ],
    ids=lambda values: str(getattr(values, "dtype", type(values[0]).__name__)),
)
def test_parquet_columns_of_any_numeric_kind_become_float64(tmp_path, values):
    pd.DataFrame({"a": values, "y": pd.array([True, False], dtype="boolean")}).to_parquet(tmp_path / "d.parquet")
    assert_holds(data.parquet(tmp_path / "d.parquet", target="y"), [[1], [2]], [1, 0], ("a",))


# Mistakes about files

FILE_READERS = {"csv": {"target": "y"}, "parquet": {"target": "y"}, "npz": {}, "svmlight": {}}


@pytest.fixture(params=FILE_READERS)
def read_file(request):
    """A reader of files, with the options it needs besides a path."""
    return lambda path: getattr(data, request.param)(path, **FILE_READERS[request.param])


@pytest.mark.parametrize("path", [None, "", "  "])
def test_a_path_not_given_is_asked_for(read_file, path):
    assert "problem.path=FILE" in mistake(read_file, path)


def test_a_missing_file_is_named_in_full_with_the_nearest_one(read_file, write, monkeypatch):
    folder = write("").parent
    monkeypatch.chdir(folder)
    assert mistake(read_file, "house.csv") == f"there is no file {folder / 'house.csv'}. Did you mean 'houses.csv'?"
    assert mistake(read_file, "zzzzzz") == f"there is no file {folder / 'zzzzzz'}."
    assert f"no folder {folder / 'nowhere'}" in mistake(read_file, "nowhere/houses.csv")


def test_a_folder_is_refused(read_file, tmp_path):
    assert f"{tmp_path} is a folder" in mistake(read_file, tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(read_file, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in mistake(read_file, tmp_path / "pipe")


def test_a_file_that_may_not_be_opened_is_refused(read_file, write, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write("a,y\n1,2\n")
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no mode stops
    assert mistake(read_file, path) == f"cannot open {path}: Permission denied."


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000])
def test_an_impossible_path_is_refused(read_file, tmp_path, name):
    assert "File name too long" in mistake(read_file, tmp_path / name)


def test_an_empty_file_is_refused(read_file, write):
    assert "is empty" in mistake(read_file, write(""))


@pytest.mark.parametrize("suffix", ["", ".csv", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("content", [bytes(range(256)), b"\x93 no text", b"PAR1" + b"\xff" * 30 + b"PAR1", b"PK\x03\x04\x93 junk"])
def test_a_corrupt_file_is_refused(read_file, write, content, suffix):
    path = write(content, f"corrupt{suffix}")
    assert str(path) in mistake(read_file, path)


@pytest.mark.parametrize("kind", FILE_READERS)
def test_a_file_cut_short_is_refused(tmp_path, kind):
    frame().to_parquet(tmp_path / "d.parquet")
    np.savez(tmp_path / "d.npz", X=X, y=Y)
    (tmp_path / "d.csv").write_bytes(gzip.compress(b"a,y\n" + b"1,2\n" * 1000))
    (tmp_path / "d.svmlight").write_bytes(gzip.compress(b"1 1:2\n" * 1000))
    whole = (tmp_path / f"d.{kind}").read_bytes()
    cut = tmp_path / f"cut.{kind}{'.gz' if kind in ('csv', 'svmlight') else ''}"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    assert str(cut) in mistake(getattr(data, kind), cut, **FILE_READERS[kind])


# Mistakes in a table, whichever the file


@pytest.fixture(params=["csv", "parquet", "openml"])
def read_text(request, write, tmp_path, monkeypatch):
    """Read a table that is written as CSV here, through each of the readers of named columns."""

    def _read(text: str, **options) -> data.Table:
        path = write(text)
        if request.param == "csv":
            return data.csv(path, **options)
        if request.param == "parquet":
            pd.read_csv(path).to_parquet(tmp_path / "d.parquet")
            return data.parquet(tmp_path / "d.parquet", **options)
        fake = SimpleNamespace(frame=pd.read_csv(path), target_names=[], details={"version": "1"})
        monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **_: fake)
        return data.openml("houses", **options)

    return _read


HOUSES = "area,rooms,city,price\n1,2,3,4\n5,6,7,8\n"


def test_a_target_not_given_is_asked_for_with_the_columns(read_text):
    message = mistake(read_text, HOUSES)
    assert "problem.target=COLUMN" in message
    assert "area, rooms, city, price" in message


@pytest.mark.parametrize("wrong", ["prize", "PRICE", "Price ", "pric"])
@pytest.mark.parametrize("role", ["target", "features"])
def test_a_missing_column_comes_with_the_nearest_and_all_columns(read_text, role, wrong):
    message = mistake(read_text, HOUSES, **({"target": "area"} | {role: wrong if role == "target" else [wrong]}))
    assert f"no column {wrong.strip()!r}. Did you mean 'price'? Columns: area, rooms, city, price." in message


@pytest.mark.parametrize("wrong", ["qqqqqq", False, 1.5, ""])
def test_a_name_like_no_column_gets_no_hint(read_text, wrong):
    message = mistake(read_text, HOUSES, target=wrong)
    assert "Did you mean" not in message
    assert message.endswith("Columns: area, rooms, city, price.")


@pytest.mark.parametrize("wrong", [4, "4", -5])
def test_a_position_out_of_range_comes_with_the_range(read_text, wrong):
    assert f"no column {wrong}: positions run from 0 to 3" in mistake(read_text, HOUSES, target=wrong)


def test_a_long_list_of_columns_is_shortened(read_text):
    text = ",".join(f"c{j}" for j in range(25)) + "\n" + ",".join("1" * 25) + "\n"
    assert mistake(read_text, text, target="zzz").endswith("c18, c19, and 5 more.")


def test_a_target_among_the_features_is_refused(read_text):
    assert "'price'" in (message := mistake(read_text, HOUSES, target="price", features=["area", 3]))
    assert "take it out of features" in message


def test_a_feature_named_twice_is_refused(read_text):
    assert "'area'" in (message := mistake(read_text, HOUSES, target="price", features=["area", 0]))
    assert "twice" in message


@pytest.mark.parametrize(("text", "features"), [("price\n1\n2\n", None), (HOUSES, [])])
def test_no_feature_left_is_refused(read_text, text, features):
    assert "leaves no feature besides the target 'price'" in mistake(read_text, text, target="price", features=features)


def test_a_table_without_rows_is_refused(read_text):
    assert "no rows" in mistake(read_text, "area,price\n", target="price")


@pytest.mark.parametrize("text", ["Paris", "2020-01-31", "12 kg", "?", "1_000", "1 234", "$5", "yes", "0x10", "Paris" * 20])
def test_a_column_of_text_is_refused_with_its_first_bad_row(read_text, text):
    message = mistake(read_text, f"area,rooms,city,price\n1,2,3,4\n5,6,{text},8\n9,9,Rome,9\n", target="price")
    assert "column 'city' of " in message
    assert f"row 2 holds {text[:37]!r}"[:-1] in message
    assert "problem.features" in message
    assert message.endswith("Other columns that are numeric: area, rooms, price.")


def test_a_target_of_text_is_refused_with_what_else_there_is(read_text):
    message = mistake(read_text, "area,city\n1,Paris\n", target="city")
    assert "problem.target" in message
    assert message.endswith("numeric: area.")


def test_a_decimal_comma_is_recognised(read_text):
    assert "decimal=','" in mistake(read_text, 'area,price\n"1,5",2\n', target="price")


@pytest.mark.parametrize(
    "values",
    [
        pd.to_datetime(["2020-01-01", "2021-01-01"]),
        pd.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("UTC"),
        pd.to_timedelta([1, 2], unit="s"),
        [date(2020, 1, 1), date(2021, 1, 1)],
        [[1.0], [2.0]],
        pd.Categorical(["red", "blue"]),
        [b"1a", b"2a"],
    ],
    ids=["time", "time zone", "duration", "date", "list", "category", "bytes"],
)
def test_a_parquet_column_of_what_is_no_number_is_refused(tmp_path, values):
    pd.DataFrame({"when": values, "a": [1, 2], "y": [1, 2]}).to_parquet(tmp_path / "d.parquet")
    message = mistake(data.parquet, tmp_path / "d.parquet", target="y")
    assert "column 'when'" in message
    assert "row 1 holds" in message


@pytest.mark.parametrize("empty", ["", "NA", "nan", "NaN", "null"])
def test_missing_values_are_counted_and_the_first_is_shown(read_text, empty):
    message = mistake(read_text, f"area,rooms,price\n1,2,3\n1,{empty},3\n1,{empty},3\n", target="price")
    assert "column 'rooms' of " in message
    assert "2 of 3 values are missing (NaN), the first in row 2" in message


@pytest.mark.parametrize("infinite", ["inf", "-inf", "1e400", "-1e999"])
def test_infinite_values_are_counted_and_the_first_is_shown(read_text, infinite):
    message = mistake(read_text, f"area,price\n1,2\n1,{infinite}\n", target="price")
    assert "column 'price' of " in message
    assert "1 of 2 values is infinite (inf, or beyond 1.8e308), the first in row 2" in message


def test_a_truth_value_is_not_what_is_wrong_with_a_column(read_text):
    assert "row 2 holds 'maybe'" in mistake(read_text, "a,y\nTrue,1\nmaybe,2\n", target="y")


def test_a_column_name_of_two_lines_is_listed_on_one(read_text):
    assert mistake(read_text, '"price\n(USD)",y\n1,2\n', target="zzz").endswith("Columns: price (USD), y.")


def test_a_missing_truth_value_is_a_missing_value(read_text):
    assert "1 of 2 values is missing" in mistake(read_text, "a,y\nTrue,1\n,2\n", target="y")


# Mistakes of one reader


@pytest.mark.parametrize("text", ["a,b,a\n1,2,3\n", "a, b,a \n1,2,3\n"])
def test_two_csv_columns_of_one_name_are_refused(write, text):
    assert "are called 'a', number 1 and 3" in mistake(data.csv, write(text), target="b")


def test_a_nameless_csv_column_in_the_middle_is_refused(write):
    assert "column 2 of " in (message := mistake(data.csv, write("a,,y\n1,2,3\n"), target="y"))
    assert "has no name" in message


@pytest.mark.parametrize("text", ["a,y\n1,2,3\n4,5,6\n", "a,y\n1,2\n1,2,3\n"], ids=["every row", "a later row"])
def test_a_csv_row_longer_than_the_header_is_refused(write, text):
    message = mistake(data.csv, write(text), target="y")
    assert "more fields" in message or "Expected 2 fields in line 3, saw 3" in message


def test_a_csv_row_shorter_than_the_header_has_missing_values(write):
    assert "column 'y'" in mistake(data.csv, write("a,y\n1,2\n1\n"), target="y")


def test_an_integer_beyond_float64_is_infinite(write):
    assert "1 of 1 values is infinite" in mistake(data.csv, write(f"a,y\n1,{'9' * 400}\n"), target="y")


@pytest.mark.parametrize("target", [1, -1, None])
def test_a_csv_file_without_a_header_is_recognised(write, target):
    assert "problem.header=false" in mistake(data.csv, write("5.1,3.5\n4.9,3.0\n4.7,3.2\n"), target=target)


@pytest.mark.parametrize(
    "content", ["température,y\n1,2\n".encode("latin1"), "a,y\n1,2\n3,é\n".encode("latin1"), "a,y\n1,2\n".encode("utf-16")]
)
def test_a_csv_file_in_another_encoding_is_refused(write, content):
    assert "UTF-8" in mistake(data.csv, write(content), target="y")


@pytest.mark.parametrize("content", ["\n\n \n", 'a,y\n"1,2\n3,4\n'], ids=["blank", "open quote"])
def test_a_csv_file_that_does_not_parse_is_refused(write, content):
    assert "cannot read" in mistake(data.csv, write(content), target="y")


@pytest.mark.parametrize("options", [{"delimiter": ",,"}, {"decimal": ".."}])
def test_a_delimiter_or_decimal_of_two_characters_is_refused(write, options):
    assert "cannot read" in mistake(data.csv, write("a,y\n1,2\n"), target="y", **options)


@pytest.mark.parametrize(
    ("arrays", "options", "expected"),
    [
        ({"X": X}, {}, "unknown array in"),
        ({"Xs": X, "y": Y}, {}, "Did you mean 'Xs'?"),
        ({"X": X, "y": Y}, {"features": ["X"]}, "Allowed: X, y."),
        ({"X": X, "y": Y[:3]}, {}, "'X' has 4 rows and 'y' has 3"),
        ({"X": X[None], "y": Y}, {}, "'X' in {path} has shape (1, 4, 2)"),
        ({"X": np.float64(1), "y": Y}, {}, "'X' in {path} has shape ()"),
        ({"X": X, "y": np.float64(1)}, {}, "'y' in {path} has shape ()"),
        ({"X": X, "y": Y[None]}, {}, "'y' in {path} has shape (1, 4)"),
        ({"X": X, "y": X}, {}, "'y' in {path} has shape (4, 2)"),
        ({"X": X.astype(complex), "y": Y}, {}, "dtype is complex128"),
        ({"X": X.astype(str), "y": Y}, {}, "'X' in {path} is not numeric"),
        ({"X": X, "y": Y.astype("datetime64[s]")}, {}, "dtype is datetime64[s]"),
        ({"X": X, "y": Y.astype(object)}, {}, "Object arrays cannot be loaded"),
        ({"X": X[:0], "y": Y[:0]}, {}, "no rows"),
        ({"X": X[:, :0], "y": Y}, {}, "no feature"),
        ({"X": [[1.0, 2], [3, np.nan]], "y": [1, 2]}, {}, "column 'X_1' of {path}: 1 of 2 values is missing (NaN), the first in row 2"),
        ({"X": X, "y": [1, np.inf, np.inf, 1]}, {}, "column 'y' of {path}: 2 of 4 values are infinite"),
    ],
)
def test_npz_mistakes(tmp_path, arrays, options, expected):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    assert expected.format(path=path) in mistake(data.npz, path, **options)


def test_an_npy_file_is_no_npz(tmp_path):
    np.save(tmp_path / "d.npy", X)
    assert "numpy.savez" in mistake(data.npz, tmp_path / "d.npy")


def test_a_pickle_is_never_loaded(write, tmp_path):
    path = write(f"cos\nsystem\n(S'touch {tmp_path}/run'\ntR.", "d.npz")
    assert "no npz file" in mistake(data.npz, path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a 1:2\n", "could not convert"),
        ("1 1:x\n", "could not convert"),
        ("a,y\n1,2\n", "could not convert"),
        ("1 3:1 1:2\n", "sorted"),
        ("1 -1:2\n", "Invalid index -1"),
        ("1 99999999999999999999:1\n", "too large"),
        ("1\n2\n", "has no features"),
        ("# nothing\n", "no rows"),
        ("1 1:2\n1 1:nan\n", "column 'feature_1' of"),
        ("inf 1:2\n", "column 'target' of"),
    ],
)
def test_svmlight_mistakes(write, content, expected):
    assert expected in mistake(data.svmlight, write(content, "d.svm"))


def test_an_svmlight_file_too_large_once_dense_is_refused_before_it_is_built(write):
    message = mistake(data.svmlight, write("1 600000000:1\n", "d.svm"))
    assert "600,000,000 features: as a dense table 4.5 GiB, beyond the limit of 4 GiB" in message


# OpenML, which is never asked here


@pytest.fixture
def openml_answers(monkeypatch):
    """Put an answer, or an error, in the place of openml.org; give the requests made."""
    requests = []

    def _answer(answer):
        def fetch(**request):
            requests.append(request)
            if isinstance(answer, OSError):
                warnings.warn("A network error occurred while downloading https://www.openml.org. Retrying...", stacklevel=1)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
        return requests

    return _answer


def test_openml_takes_the_target_that_openml_names_unless_given(openml_answers):
    requests = openml_answers(SimpleNamespace(frame=frame(), target_names=["price"], details={"version": "3"}))
    table = data.read("openml", dataset="houses", target=None)
    assert_holds(table, X, Y)
    assert (table.target_name, table.source) == ("price", "openml: houses, version 3")
    assert data.openml("houses", target="area").feature_names == ("rooms", "price")
    assert requests[0] == {"name": "houses", "version": "active", "as_frame": True, "parser": "auto"}


@pytest.mark.parametrize("names", [[], ["area", "price"]])
def test_openml_asks_for_a_target_where_openml_names_none_or_several(openml_answers, names):
    openml_answers(SimpleNamespace(frame=frame(), target_names=names, details={"version": "3"}))
    assert "problem.target=COLUMN" in mistake(data.openml, "houses")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (urllib.error.URLError(OSError(-2, "Name or service not known")), "Name or service not known"),
        (urllib.error.HTTPError("https://openml.org", 503, "Service Unavailable", json, None), "Service Unavailable"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionResetError("reset"), "reset"),
    ],
)
def test_openml_without_a_network_says_so(openml_answers, error, expected):
    openml_answers(error)
    message = mistake(data.openml, "houses")
    assert expected in message
    assert "Check the network" in message


def test_openml_without_such_a_set_says_so(openml_answers):
    openml_answers(ValueError("No known dataset matching name 'housez'\nmore"))
    assert "No known dataset matching name 'housez'. Look" in mistake(data.openml, "housez")


# read and standardize


def test_read_is_the_reader_of_that_name(tmp_path):
    frame().to_csv(tmp_path / "d.csv", index=False)
    table = data.read("csv", path=tmp_path / "d.csv", target="price", features=None, delimiter=None)
    assert_holds(table, X, Y)


def test_the_readers_are_the_ten_kinds():
    assert set(data.readers()) == {"csv", "parquet", "npz", "svmlight", "openml", *SHIPPED}


@pytest.mark.parametrize("kind", ["read", "readers", "standardize", "Table", "_file", "unknown_name", "np", "", "excel", None])
def test_read_knows_no_other_name(kind):
    assert f"unknown problem: '{kind}'" in mistake(data.read, kind)


def test_read_suggests_the_nearest_kind():
    assert "Did you mean 'diabetes'?" in mistake(data.read, "diabetis")


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("csv", {"pth": "a.csv", "target": "y"}, "unknown csv option: 'pth'. Did you mean 'path'? Allowed: decimal, delimiter, features"),
        ("csv", {"path": "a.csv", "targett": None}, "Did you mean 'target'?"),
        ("csv", {"path": None, "target": "y"}, "csv needs a path: set problem.path=..."),
        ("openml", {}, "openml needs a dataset: set problem.dataset=..."),
        ("iris", {"target": "species"}, "unknown iris option: 'target'. Allowed: features."),
        ("linnerud", {"target": "weigth"}, "Did you mean 'Weight'? Columns: Weight, Waist, Pulse."),
        ("iris", {"features": ["sepal"]}, "scikit-learn: iris has no column 'sepal'."),
    ],
)
def test_read_names_the_valid_options(kind, options, expected):
    assert expected in mistake(data.read, kind, **options)


def table_of(features) -> data.Table:
    features = np.asarray(features, dtype=np.float64)
    names = tuple(f"x{j}" for j in range(features.shape[1]))
    return data.Table(features=features, target=np.arange(len(features)) * 1.0, feature_names=names, target_name="y", source="")


def test_standardize_gives_mean_zero_and_std_one_and_leaves_the_rest():
    table = data.diabetes()
    scaled = data.standardize(table)
    tolerance = 1e-13  # n = 442 sums of numbers of order 1, each rounded to 1e-16
    np.testing.assert_allclose(scaled.features.mean(axis=0), 0, atol=tolerance)
    np.testing.assert_allclose(scaled.features.std(axis=0), 1, rtol=tolerance)
    plain = (table.features - table.features.mean(axis=0)) / table.features.std(axis=0)
    np.testing.assert_allclose(scaled.features, plain, rtol=1e-11, atol=1e-11)  # `plain` centres once only
    assert scaled.target is table.target
    assert (scaled.feature_names, scaled.source) == (table.feature_names, table.source)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e308, 5e-324])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_standardize_makes_a_constant_column_zeros(value, n):
    np.testing.assert_array_equal(data.standardize(table_of(np.full((n, 2), value))).features, 0)  # 0.1 has a mean unlike itself


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1e308, -1.0])
def test_standardize_is_finite_at_any_scale(scale):
    expected = np.sign(scale) * np.array([[-1.0], [-1], [1], [1]])
    np.testing.assert_allclose(data.standardize(table_of(scale * np.array([[0.0], [0], [1], [1]]))).features, expected, rtol=1e-15)


def test_standardize_is_exact_far_from_zero():
    stamps = 1.7e9 + np.random.default_rng(0).uniform(size=(50_000, 1))
    assert abs(data.standardize(table_of(stamps)).features.mean()) < 1e-12  # centred once only: 5e-7


# The module itself


def test_reading_warns_of_nothing_and_leaves_no_file_open(tmp_path):
    frame().to_csv(tmp_path / "d.csv")
    frame().to_parquet(tmp_path / "d.parquet")
    np.savez(tmp_path / "d.npz", X=X, y=Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.csv(tmp_path / "d.csv", target="price")
        data.parquet(tmp_path / "d.parquet", target="price")
        data.npz(tmp_path / "d.npz")


def test_importing_the_module_waits_for_no_reader():
    bodies = [ast.parse(file.read_text()).body for file in Path(data.__file__).parent.glob("*.py")]
    imports = [node for body in bodies for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports for alias in node.names} | {getattr(node, "module", None) for node in imports}
    assert "numpy" in modules
    assert modules.isdisjoint({"pandas", "sklearn", "pyarrow"})
