"""What the user chose once: appearance, language, model. One small JSON file, written atomically.

A damaged file is moved aside and told about, never read half.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_demo.catalogue import LANGUAGES
from hummingbird_runtime.atomic import atomic_file

THEMES = ("system", "light", "dark")
BUILT_IN = "built-in"
"""Identity of the model that comes with the package."""
_LIMIT = 1 << 16


@dataclass(frozen=True)
class Settings:
    """Raises ``ValueError`` for a value that no release writes."""

    theme: str = "system"
    """One of ``THEMES``."""
    language: str = "system"
    """``system`` or one of ``LANGUAGES``."""
    model: str = BUILT_IN
    """``BUILT_IN`` or the name of an imported model's folder."""
    enlarge: bool = True
    """Whether saved files of small clips get whole-number larger pixels."""
    prompt: str = ""
    """What stood in the prompt box when the app was last left."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind = bool if field.name == "enlarge" else str
            if type(getattr(self, field.name)) is not kind:
                raise ValueError(f"{field.name}, expected {kind.__name__}")
        if self.theme not in THEMES or self.language not in ("system", *LANGUAGES):
            raise ValueError(f"theme {self.theme!r:.40}, language {self.language!r:.40}")


class SettingsFile:
    """The settings on disk.

    Args:
        path: of the JSON file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = False
        """Whether the last ``read`` found a file that it had to move aside."""

    def read(self) -> Settings:
        """The settings; the defaults where there is no file, or none that can be read."""
        self.damaged = False
        try:
            with self.path.open("rb") as file:
                value: Any = json.loads(file.read(_LIMIT + 1))
            return Settings(**value)
        except FileNotFoundError:
            return Settings()
        except (OSError, ValueError, TypeError, RecursionError):
            self.damaged = True
            self.path.replace(self.path.with_suffix(".damaged"))
            return Settings()

    def write(self, settings: Settings) -> None:
        """Replace the file.

        Raises:
            ResourceError: ``output.*``.
        """
        text = json.dumps(dataclasses.asdict(settings), ensure_ascii=False, indent=2)
        with atomic_file(self.path, overwrite=True) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
