"""What the tests need of a Markdown page: marked blocks, links, code spans, headings.

A block is marked by an HTML comment on the line before it: ``<!-- run -->`` (executed by a test),
``<!-- run: torch -->`` (only where torch and the export packages are installed), ``<!-- tree -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^ *```(\w*)")
_MARK = re.compile(r"^ *<!-- (.+?) -->$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    where: str
    language: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines after ``$``, continuation lines joined."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]


class Page:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.blocks: list[Block] = []
        prose: list[str] = []
        mark, language, opened, body = "", None, 0, []
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = _FENCE.match(line)
            if language is not None:
                if fence:
                    where = f"{path.name}:{opened}"
                    self.blocks.append(Block(where, language, mark, "\n".join(body) + "\n"))
                    mark, language = "", None
                else:
                    body.append(line)
            elif fence:
                language, opened, body = fence[1], number, []
            else:
                found = _MARK.match(line)
                mark = found[1] if found else mark if not line.strip() else ""
                prose.append(line)
        assert language is None, f"{path.name}: a block that starts at line {opened} has no end"
        self.prose = "\n".join(prose)

    @property
    def links(self) -> list[str]:
        prose = _SPAN.sub("", self.prose)
        return [a or b for a, b in _LINK.findall(prose)]

    @property
    def spans(self) -> list[str]:
        return _SPAN.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """Headings the way GitHub and mkdocs name them."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {
            re.sub(r" ", "-", re.sub(r"[^\w\- ]", "", title.lower()).strip()) for title in titles
        }
