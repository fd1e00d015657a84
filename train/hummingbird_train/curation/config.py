"""The TOML of a curation run: which stages measure a clip, and the rules that decide on it.

Without a file the defaults that lie beside this module count. Scores do not depend on [rules].
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.scoring import BUILDER

DEFAULTS = Path(__file__).with_name("defaults.toml")
# Tables of other verbs may stand in the same file.
TABLES = ("stages", "rules", "recaption", "pack", "report")


@dataclass(frozen=True)
class CurationConfig:
    """A configuration as it was read."""

    stages: Mapping[str, Mapping[str, object]]
    """``[stages.NAME]``: parameters by stage; empty: the default stages."""
    rules: Mapping[str, Any]
    """``[rules]``, not yet checked; see ``Rules.from_toml``."""
    builder: str
    """``module:function`` that makes stages of the tables."""
    text: str
    """the file's own text."""


def load_config(path: Path | None) -> CurationConfig:
    """Read a configuration; None reads the defaults.

    Raises:
        InputError: ``curation.config`` when it is missing, no TOML, or has unknown tables.
    """
    path = DEFAULTS if path is None else path
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            "curation.config", f"configuration {path}: {error}", hint="give an existing TOML file"
        ) from error
    unknown = sorted(table.keys() - {*TABLES, "builder"})
    stages, rules = table.get("stages", {}), table.get("rules", {})
    wrong = [n for n in TABLES if not isinstance(table.get(n, {}), dict)]
    wrong += [f"stages.{n}" for n in (() if wrong else stages) if not isinstance(stages[n], dict)]
    if unknown or wrong:
        raise InputError(
            "curation.config",
            f"configuration {path}: unknown {unknown}, no tables {wrong}, expected the tables "
            f"{', '.join(TABLES)} and the text `builder`",
            hint="parameters of a stage stand under [stages.NAME], thresholds under [rules]",
        )
    return CurationConfig(stages, rules, str(table.get("builder", BUILDER)), text)
