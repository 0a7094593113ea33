"""What Hydra and OmegaConf complain of, in one line: what was given, what is allowed, the nearest valid name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from gdjax.records import InputError, unknown_name

Mistake = (InputError, HydraException, OmegaConfBaseException)
"""What a user may have done wrong."""


class JobMistake(CompactHydraException):
    """A mistake in one job of a multirun, found before any job has run."""

    def __init__(self, num: int, overrides: Sequence[str], mistake: Exception) -> None:
        super().__init__(f"job {num} ({' '.join(overrides)}): {explain(mistake).rstrip('.')}. Nothing has run.")


def explain(mistake: Exception) -> str:
    """One line for a mistake."""
    if isinstance(mistake, MissingConfigException) and mistake.options is not None and mistake.missing_cfg_file:
        group, _, name = mistake.missing_cfg_file.rpartition("/")
        return str(unknown_name(group, name, mistake.options))
    cause: Any = mistake.__cause__
    if isinstance(mistake, ConfigCompositionException) and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        parent = str(cause.full_key).rpartition(".")[0]
        allowed = [key for key in cause.parent_node if key != "hydra"] if isinstance(cause.parent_node, DictConfig) else []
        return str(unknown_name(f"setting of {parent}" if parent else "setting", str(cause.key), map(str, allowed)))
    if isinstance(mistake, OverrideParseException):
        return f"can't read the override '{mistake.override}': write key=value, and quote what holds spaces, brackets or commas."
    said = mistake if cause is None or isinstance(mistake, InputError) else cause
    if isinstance(said, ValidationError):
        return f"{said.full_key} is not allowed: {str(said.msg).splitlines()[0]}."
    return " ".join(str(said).split())
