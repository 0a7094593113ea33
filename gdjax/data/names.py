"""Names in messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

MAX_LISTED = 20  # names in a message


def nearest(given: str, names: Sequence[str]) -> str | None:
    """The name most like `given`, whatever its case; None where none is like it."""
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.5)
    return folded[near[0]] if near else None


def listed(names: Sequence[str]) -> str:
    """Names for a message of one line, at most `MAX_LISTED` of them."""
    more = len(names) - MAX_LISTED
    return ", ".join(" ".join(name.split()) for name in names[:MAX_LISTED]) + (f", and {more} more" if more > 0 else "") or "none"
