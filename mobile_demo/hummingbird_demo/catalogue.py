"""The app's texts by key, one TOML file a language; English is the source of keys.

A language that is not shipped gets English; a missing key is a fault that a test finds.
"""

from __future__ import annotations

import functools
import locale
import os
import tomllib
from pathlib import Path

LANGUAGES = ("en", "de", "zh", "ru")
_FOLDER = Path(__file__).parent / "translations"


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """Every text of a language of ``LANGUAGES``, by key."""
    text = (_FOLDER / f"{language}.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text))


def resolve(choice: str, system: str) -> str:
    """The language of a setting: a code, or ``system`` for what the device is set to."""
    wanted = system if choice == "system" else choice
    code = wanted.replace("-", "_").partition("_")[0].lower()
    return code if code in LANGUAGES else LANGUAGES[0]


def system_language() -> str:
    """The device's language, such as ``de_DE``; ``en`` where it says nothing."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "").partition(".")[0]
        if value not in ("", "C", "POSIX"):
            return value
    return locale.getlocale()[0] or "en"
