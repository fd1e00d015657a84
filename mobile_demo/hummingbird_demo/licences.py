"""What the packaged app contains, and on which terms. The texts lie beside the packages.

A desktop install reads them from the installed packages; the packaged app carries them as files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hummingbird_demo.fonts import HAN_FILE


@dataclass(frozen=True)
class Licence:
    """One component."""

    name: str
    terms: str
    """Short name of its licence."""
    notice: str
    """Copyright line and where it comes from."""
    package: str = ""
    """Installed distribution that carries the text."""
    file: Path | None = None
    """File with the text."""

    def text(self) -> str:
        """The notice, and the licence's own words where they are at hand."""
        return "\n\n".join(filter(None, (self.notice, self._words())))

    def _words(self) -> str:
        if self.file is not None:
            return self.file.read_text(encoding="utf-8")
        if not self.package:
            return ""
        try:
            files = metadata.files(self.package) or []
        except metadata.PackageNotFoundError:
            return ""
        texts = [
            Path(str(path.locate())).read_text(encoding="utf-8", errors="replace")
            for path in files
            if ".dist-info/" in str(path) and path.name.upper().startswith(("LICEN", "COPYING"))
        ]
        return "\n\n".join(texts)


LICENCES = (
    Licence("Hummingbird", "Apache-2.0", "Runtime, app and built-in model.", "hummingbird-edge"),
    Licence("ONNX Runtime", "MIT", "Copyright Microsoft Corporation.", "onnxruntime"),
    Licence("NumPy", "BSD-3-Clause", "Copyright NumPy Developers.", "numpy"),
    Licence("Kivy", "MIT", "Copyright Kivy Team and other contributors.", "Kivy"),
    Licence("Pillow", "MIT-CMU", "Copyright Jeffrey A. Clark and contributors.", "pillow"),
    Licence("Roboto", "Apache-2.0", "Copyright Google Inc. The font comes with Kivy."),
    Licence(
        "Noto Sans SC",
        "OFL-1.1",
        "Copyright Adobe. Cut to the characters that the app needs.",
        file=HAN_FILE.with_name("OFL.txt"),
    ),
)
