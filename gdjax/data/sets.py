"""Data sets by name: OpenML's, and those that ship with scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

from gdjax.data.files import first_line
from gdjax.data.frames import Column, Columns, from_frame, position
from gdjax.data.table import Table
from gdjax.records import InputError


def openml(
    dataset: str, *, target: Column | None = None, features: Columns = None, version: str | int = "active", labels: bool = False
) -> Table:
    """Fetch a data set from openml.org, once: scikit-learn keeps a copy in its data folder.

    `target` is the one that OpenML names unless given; with `labels` one of text names classes, as in `csv`.
    """
    from sklearn import datasets

    where = f"the OpenML data set {str(dataset)!r} (version {version})"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A network error occurred")  # one a try, before the error itself
            bunch: Any = datasets.fetch_openml(name=dataset, version=version, as_frame=True, parser="auto")
    except OSError as error:
        raise InputError(
            f"cannot fetch {where}: {getattr(error, 'reason', error)}. Check the network, or download the data and read it as csv."
        ) from None
    except ValueError as error:
        raise InputError(f"cannot use {where}: {first_line(error)}. Look the name up on openml.org.") from None
    if target is None and len(bunch.target_names) == 1:
        target = bunch.target_names[0]
    source = f"openml: {dataset}, version {bunch.details['version']}"
    return from_frame(bunch.frame, target=target, features=features, labels=labels, where=where, source=source)


def diabetes(*, features: Columns = None) -> Table:
    """How far diabetes had gone after a year, of 442 patients; 10 features in their own units.

    >>> diabetes(features="bmi").features[0]
    array([32.1])
    """
    return _shipped("diabetes", features, scaled=False)


def linnerud(*, target: Column = "Weight", features: Columns = None) -> Table:
    """The weight, waist or pulse of 20 men against three exercises; `target` is Weight, Waist or Pulse."""
    return _shipped("linnerud", features, target)


def digits(*, features: Columns = None) -> Table:
    """Which digit 0 to 9 each of 1,797 handwritten images of 8 by 8 pixels shows."""
    return _shipped("digits", features)


def breast_cancer(*, features: Columns = None) -> Table:
    """Whether each of 569 tumours is benign (1) or malignant (0); 30 features."""
    return _shipped("breast_cancer", features)


def wine(*, features: Columns = None) -> Table:
    """Which of three growers, 0 to 2, made each of 178 wines; 13 features."""
    return _shipped("wine", features)


def iris(*, features: Columns = None) -> Table:
    """Which of three species, 0 to 2, each of 150 irises is; 4 features."""
    return _shipped("iris", features)


def _shipped(name: str, features: Columns, target: Column = "target", **options: Any) -> Table:
    """A data set that comes with scikit-learn; of several targets the one asked for, the others left out."""
    import pandas as pd
    from sklearn import datasets

    where = f"scikit-learn: {name}"
    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    targets = pd.DataFrame(bunch.target)
    chosen = list(targets)[position(target, list(targets), where)]
    frame = bunch.data.assign(**{chosen: targets[chosen]})
    return from_frame(frame, target=chosen, features=features, where=where, source=where)
