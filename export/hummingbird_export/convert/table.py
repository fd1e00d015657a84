"""The doctor's report as text: a few lines for a sound file, one row a block for a broken one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hummingbird_export.convert.doctor import Diagnosis, Part
from hummingbird_export.convert.keys import PARTS
from hummingbird_export.convert.lora import Lora

MAX_ROWS = 12
_LONGEST_EXAMPLE = 60

NOTES = {
    "image_proj_model": "image_proj_model belongs to image-to-video models, another U-Net",
    "motion_cond_proj": "motion_cond_proj belongs to T2V-Turbo v2, whose U-Net takes more inputs",
}
"""First word of a strange name -> what it tells."""

_NAMES = {"unet": "U-Net", "vae": "autoencoder", "text": "text tower"}


@dataclass
class Block:
    """Problems of one block of a network."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of tensors concerned."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)


@dataclass(frozen=True)
class Row:
    """One line of the table of problems."""

    part: str
    label: str
    """Of the block."""
    block: Block
    example: str

    @property
    def cells(self) -> tuple[str, ...]:
        """What is printed."""
        block = self.block
        counts = (len(block.missing), len(block.unexpected), len(block.misshapen))
        return (self.part, self.label, *(str(n or "") for n in counts), self.example)


def report(diagnosis: Diagnosis) -> str:
    """The whole report, without a line feed at its end."""
    lines = [
        f"{source.path.name}  {_size(source.size)}, {len(source.tensors)} tensors, "
        f"{source.container}"
        for source in diagnosis.sources
    ]
    lines += [f"model  {title(diagnosis)}", ""]
    if diagnosis.lora is not None:
        return "\n".join([*lines, lora_line(diagnosis.lora)])
    lines += _columns(
        [("part", "tensors", "parameters", "stored as", "state"), *_part_rows(diagnosis)], "<>><<"
    )
    if diagnosis.dropped:
        counts = ", ".join(f"{reason} ({n})" for reason, n in diagnosis.dropped.items())
        lines += ["", f"not needed: {counts}"]
    if not diagnosis.sound:
        lines += ["", *_problem_lines(diagnosis)]
    return "\n".join(lines)


def title(diagnosis: Diagnosis) -> str:
    """One line on which model it is."""
    if diagnosis.lora is not None:
        base = diagnosis.lora_base
        return f"LoRA for {base.title}" if base else "LoRA for no published U-Net"
    if diagnosis.variant is not None:
        doubt = "" if diagnosis.parts["unet"].sound else "nearest: "
        return doubt + diagnosis.variant.title
    held = " and ".join(_NAMES[name] for name in diagnosis.parts)
    return f"{held} only, no U-Net"


def block_of(name: str) -> str:
    """The block of a tensor: ``input_blocks.3``, ``encoder.down.1``, ``time_embed``."""
    found = re.match(r"(?:(?:en|de)coder\.)?(?:transformer\.)?\w+(?:\.\d+(?=\.))?", name)
    return found[0] if found else name


def _part_rows(diagnosis: Diagnosis) -> Iterable[tuple[str, ...]]:
    for name in PARTS:
        part = diagnosis.parts.get(name)
        if part is None:
            yield name, "-", "-", "-", "absent"
            continue
        wrong = {
            "missing": len(part.missing),
            "unexpected": len(part.unexpected),
            "of another shape": len(part.misshapen),
        }
        state = ", ".join(f"{n} {word}" for word, n in wrong.items() if n) or "complete"
        right = len(part.tensors) - len(part.unexpected) - len(part.misshapen)
        count = f"{right} of {len(part.expected)}"
        yield name, count, f"{part.parameters:,}", " + ".join(sorted(part.dtypes)), state


def _problem_lines(diagnosis: Diagnosis) -> list[str]:
    rows = [row for part in diagnosis.parts.values() for row in _rows_of(part)]
    strangers: dict[str, Block] = {}
    for name in diagnosis.unknown:
        strangers.setdefault(block_of(name), Block()).unexpected.append(name)
    rows += [
        Row("?", label, block, _example(None, label, block)) for label, block in strangers.items()
    ]
    merged = sorted(_merged(rows), key=lambda row: -row.block.count)
    head = ("part", "block", "missing", "unexpected", "shape", "for example")
    lines = _columns([head, *(row.cells for row in merged[:MAX_ROWS])], "<<>>><")
    if len(merged) > MAX_ROWS:
        rest = sum(row.block.count for row in merged[MAX_ROWS:])
        lines.append(f"and {len(merged) - MAX_ROWS} more blocks with {rest} tensors")
    strange = {block_of(name) for name in diagnosis.unknown}
    strange |= {block_of(name) for part in diagnosis.parts.values() for name in part.unexpected}
    return lines + [f"note: {text}" for word, text in NOTES.items() if word in strange]


def _rows_of(part: Part) -> list[Row]:
    blocks: dict[str, Block] = {}
    for name in part.missing:
        blocks.setdefault(block_of(name), Block()).missing.append(name)
    for name in part.unexpected:
        blocks.setdefault(block_of(name), Block()).unexpected.append(name)
    for name in part.misshapen:
        blocks.setdefault(block_of(name), Block()).misshapen.append(name)
    return [
        Row(part.name, label, block, _example(part, label, block))
        for label, block in blocks.items()
    ]


def _merged(rows: list[Row]) -> list[Row]:
    """Numbered blocks of one kind with the same fault in one row: ``input_blocks.{1,3,5}``."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        stem, _, number = row.label.rpartition(".")
        alike = (row.part, stem, row.example) if number.isdecimal() else (row.part, row.label)
        groups.setdefault(alike, []).append(row)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups.values()]


def _joined(group: list[Row]) -> Row:
    stem = group[0].label.rpartition(".")[0]
    numbers = sorted(int(row.label.rpartition(".")[2]) for row in group)
    whole = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 2
    listed = f"{numbers[0]}..{numbers[-1]}" if whole else ",".join(map(str, numbers))
    block = Block()
    for row in group:
        block.missing += row.block.missing
        block.unexpected += row.block.unexpected
        block.misshapen += row.block.misshapen
    return Row(group[0].part, f"{stem}.{{{listed}}}", block, group[0].example)


def _example(part: Part | None, label: str, block: Block) -> str:
    def inner(name: str) -> str:
        return _short(name.removeprefix(f"{label}."))

    if block.missing and block.unexpected:
        return f"needs {inner(block.missing[0])}, has {inner(block.unexpected[0])}"
    if block.misshapen and part is not None:
        name = block.misshapen[0]
        got, wanted = part.tensors[name].shape, part.expected[name]
        return f"{inner(name)} is {_dims(got)}, not {_dims(wanted)}"
    return inner([*block.missing, *block.unexpected][0])


def lora_line(lora: Lora) -> str:
    """One line on the updates of a LoRA file."""
    low, high = lora.ranks
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    form = "in a list without names" if lora.modules is None else "by module name"
    return f"{len(lora.pairs)} updates of {ranks}, {form}"


def _columns(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Rows with their cells padded to common widths."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


def _short(name: str) -> str:
    if len(name) <= _LONGEST_EXAMPLE:
        return name
    return f"{name[: _LONGEST_EXAMPLE - 30]}...{name[-27:]}"


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
