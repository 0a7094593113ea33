"""Files that can be opened, and one clear line of whatever a parser says about one."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gdjax.data.names import nearest
from gdjax.records import InputError

FilePath = str | os.PathLike[str]

# what the readers raise on a corrupt or unusual file; NotImplementedError is zipfile's for a compression that it lacks
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, KeyError, NotImplementedError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def existing(path: FilePath | None) -> Path:
    """The absolute path of a file that can be opened and isn't empty."""
    if path is None or not str(path).strip():
        raise InputError("no file given: set path=FILE (problem.path=FILE on the command line).")
    file = Path(os.path.abspath(os.path.expanduser(str(path))))
    try:
        if file.is_dir():
            raise InputError(f"{file} is a folder: give the path of a file in it.")
        if not os.path.lexists(file):
            raise InputError(f"there is no file {file}.{_similar_file(file)}")
        if file.exists() and not file.is_file():  # opening a pipe could wait for ever
            raise InputError(f"{file} is no regular file: save the data in one first.")
        with file.open("rb") as opened:
            if not opened.read(1):
                raise InputError(f"{file} is empty.")
    except OSError as error:
        raise InputError(f"cannot open {file}: {error.strerror}.") from None
    return file


def _similar_file(missing: Path) -> str:
    """A hint at what the user may have meant: a file in the same folder, or the part of the path that does exist."""
    if not missing.parent.is_dir():
        return f" There is no folder {missing.parent} either."
    near = nearest(missing.name, [entry.name for entry in missing.parent.iterdir() if entry.is_file()])
    return f" Did you mean {near!r}?" if near else ""


@contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """Make one clear line of whatever a parser says about a file."""
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError:
        advice = "Save a CSV file as UTF-8, and read any other kind of file with its own reader"
        raise InputError(f"cannot read {file} as {kind}: it is not text in UTF-8. {advice}.") from None
    except UNREADABLE as error:
        raise InputError(f"cannot read {file} as {kind}: {first_line(error)}.") from None


def first_line(error: BaseException) -> str:
    """What an error says, as part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
