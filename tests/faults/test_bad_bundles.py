"""Every damaged or doctored bundle, through the command: refused before a graph of it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import tiny_onnx

from hummingbird_runtime.cli import main
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.manifest import Manifest
from hummingbird_runtime.session import OnnxRuntimeBackend, OnnxRuntimeSession

SECONDS = 5.0
UNET = "unet/model.onnx"
Damage = Callable[[Path], Any]


def manifest_text(root: Path, text: bytes) -> None:
    """Another manifest, whose digest is right: what a careful forger would write."""
    (root / "manifest.json").write_bytes(text)
    digest = hashlib.sha256(text).hexdigest().encode() + b"\n"
    (root / "manifest.sha256").write_bytes(digest)


def field(*path: str | int, value: object = None, remove: bool = False) -> Damage:
    """Set or remove one field of the manifest."""

    def damage(root: Path) -> None:
        document = json.loads((root / "manifest.json").read_bytes())
        owner = document
        for key in path[:-1]:
            owner = owner[key]
        if remove:
            del owner[path[-1]]
        else:
            owner[path[-1]] = value
        manifest_text(root, json.dumps(document).encode())

    return damage


def text(data: bytes) -> Damage:
    return lambda root: manifest_text(root, data)


def file(name: str, data: bytes, *, sealed: bool = False) -> Damage:
    """Other content of a file; sealed: with a manifest that agrees."""

    def damage(root: Path) -> None:
        (root / name).write_bytes(data)
        if sealed:
            manifest = Manifest.from_json((root / "manifest.json").read_bytes())
            seal(root, dataclasses.replace(manifest, files=file_entries(root)))

    return damage


def cut(name: str, keep: float) -> Damage:
    def damage(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(len(data) * keep) if 0 < keep < 1 else int(keep)])

    return damage


def flip(name: str, where: float) -> Damage:
    def damage(root: Path) -> None:
        data = bytearray((root / name).read_bytes())
        data[int(where * (len(data) - 1))] ^= 1
        (root / name).write_bytes(data)

    return damage


def renamed(name: str, to: str) -> Damage:
    return lambda root: (root / name).rename(root / to)


def linked(name: str, *, folder: bool = False) -> Damage:
    def damage(root: Path) -> None:
        outside = root.parent / "outside"
        shutil.move(root / name, outside)
        (root / name).symlink_to(outside, target_is_directory=folder)

    return damage


def fifo(name: str) -> Damage:
    def damage(root: Path) -> None:
        (root / name).unlink()
        os.mkfifo(root / name)

    return damage


def graph(op: str = "Add", *, domain: str = "", opset: int = 18, constant: bytes = b"") -> bytes:
    """A U-Net of the right signature that is not what the manifest says it is."""
    entry = tiny_bundle.graphs()["unet"]
    nodes = [tiny_onnx.node(op, ["sample", "shift"], ["out_sample"], domain=domain)]
    return tiny_onnx.model(
        nodes,
        [(t.name, t.dtype, t.dims) for t in entry.inputs],
        [(t.name, t.dtype, t.dims) for t in entry.outputs],
        {} if constant else {"shift": np.float32(0).reshape(())},
        opset=opset,
        domains=[domain] if domain else [],
        raw_constants=[constant] if constant else [],
    )


def external(location: str, **more: str) -> bytes:
    """A graph whose constant lies in another file."""
    entries = {"location": location, **more}
    f = tiny_onnx.field
    body = f(1, 4) + f(2, 1) + f(8, "shift") + f(14, 1)
    body += b"".join(f(13, f(1, key) + f(2, value)) for key, value in entries.items())
    return graph(constant=body)


def swap(root: Path) -> None:
    content = tiny_bundle.files()
    shutil.rmtree(root)
    swapped = {UNET: content["vae_decoder/model.onnx"], "vae_decoder/model.onnx": content[UNET]}
    tiny_bundle.write(root, content | swapped)


def both_missing(root: Path) -> None:
    (root / UNET).unlink()
    (root / "LICENSE").unlink()


INVALID, MISSING = "bundle.manifest_invalid", "bundle.missing_file"
OPERATOR = "bundle.op_not_allowed"
UNSAFE, CHANGED, SIZE = "bundle.unsafe_path", "bundle.hash_mismatch", "bundle.size_mismatch"
DIGEST = {"sha256": "0" * 64, "bytes": 1}
DAMAGES: dict[str, tuple[Damage, int, str]] = {
    # the manifest
    "no manifest": (lambda root: (root / "manifest.json").unlink(), 3, MISSING),
    "no digest": (lambda root: (root / "manifest.sha256").unlink(), 3, MISSING),
    "empty digest": (file("manifest.sha256", b""), 4, CHANGED),
    "digest of another algorithm": (file("manifest.sha256", b"0" * 40 + b"\n"), 4, CHANGED),
    "digest in capitals": (file("manifest.sha256", b"A" * 64 + b"\n"), 4, CHANGED),
    "manifest cut": (cut("manifest.json", 0.5), 4, CHANGED),
    "manifest empty": (text(b""), 3, INVALID),
    "manifest cut, digest right": (text(b'{"schema_version": 1, "files": {'), 3, INVALID),
    "manifest no object": (text(b"[]"), 3, INVALID),
    "manifest null": (text(b"null"), 3, INVALID),
    "manifest no UTF-8": (text(b'{"name": "\xff"}'), 3, INVALID),
    "manifest nested 100,000 deep": (text(b"[" * 100_000), 3, INVALID),
    "manifest of 2 MiB": (text(b" " * (2 << 20)), 3, INVALID),
    "manifest of one huge number": (text(b'{"schema_version": ' + b"9" * 5000 + b"}"), 3, INVALID),
    "manifest with a key twice": (text(b'{"name": "a", "name": "b"}'), 3, INVALID),
    "manifest with NaN": (text(b'{"schema_version": NaN}'), 3, INVALID),
    "schema version 999": (field("schema_version", value=999), 3, "bundle.version"),
    "schema version as text": (field("schema_version", value="1"), 3, "bundle.version"),
    "schema version true": (field("schema_version", value=True), 3, INVALID),
    "no schema version": (field("schema_version", remove=True), 3, "bundle.version"),
    "unknown field": (field("target_url", value="x"), 3, INVALID),
    "no licence": (field("licence", remove=True), 3, INVALID),
    "no U-Net": (field("graphs", "unet", remove=True), 3, INVALID),
    "frames reversed": (field("model", "frames", "allowed", value=[12, 1]), 3, INVALID),
    "frames without end": (field("model", "frames", "allowed", value=[1, 10**9]), 3, INVALID),
    "a width of 2^20": (field("model", "width", "allowed", value=[16, 1 << 20]), 3, INVALID),
    "scale zero": (field("model", "scaling_factor", value=0), 3, INVALID),
    "wrong hash": (field("files", UNET, "sha256", value="0" * 64), 4, CHANGED),
    "short hash": (field("files", UNET, "sha256", value="0" * 40), 3, INVALID),
    "hash in capitals": (field("files", UNET, "sha256", value="A" * 64), 3, INVALID),
    "wrong size": (field("files", UNET, "bytes", value=1), 4, SIZE),
    "negative size": (field("files", UNET, "bytes", value=-1), 3, INVALID),
    "file not there": (field("files", "more.bin", value=DIGEST), 3, MISSING),
    "file not listed": (field("files", "README.md", remove=True), 4, "bundle.unlisted_file"),
    "path up": (field("files", "../secret", value=DIGEST), 4, UNSAFE),
    "path up in the middle": (field("files", "a/../../x", value=DIGEST), 4, UNSAFE),
    "absolute path": (field("files", "/etc/passwd", value=DIGEST), 4, UNSAFE),
    "drive path": (field("files", "C:\\x", value=DIGEST), 4, UNSAFE),
    "graph path up": (field("graphs", "unet", "path", value="../unet/model.onnx"), 4, UNSAFE),
    "opset 99": (field("graphs", "unet", "opset", value=99), 3, "bundle.unsupported_opset"),
    "loops": (field("graphs", "unet", "ops", value=["ai.onnx:Loop"]), 4, OPERATOR),
    "other domains": (field("graphs", "unet", "ops", value=["evil:Add"]), 4, OPERATOR),
    # the files
    "U-Net missing": (lambda root: (root / UNET).unlink(), 3, MISSING),
    "two missing": (both_missing, 3, MISSING),
    "U-Net renamed": (renamed(UNET, "unet/Model.onnx"), 3, MISSING),
    "tokenizer renamed": (renamed("tokenizer", "Tokenizer"), 3, MISSING),
    "U-Net empty": (cut(UNET, 0), 4, SIZE),
    "U-Net of one byte": (cut(UNET, 1), 4, SIZE),
    "U-Net cut in half": (cut(UNET, 0.5), 4, SIZE),
    "U-Net without its last byte": (cut(UNET, -1), 4, SIZE),
    "graph flipped": (flip(UNET, 0.0), 4, CHANGED),
    "weight flipped": (flip("vae_decoder/model.onnx", 0.5), 4, CHANGED),
    "vocabulary flipped": (flip("tokenizer/vocab.json", 0.9), 4, CHANGED),
    "licence flipped": (flip("LICENSE", 1.0), 4, CHANGED),
    "manifest flipped": (flip("manifest.json", 0.5), 4, CHANGED),
    "digest flipped": (flip("manifest.sha256", 0.3), 4, CHANGED),
    "a file too many": (file("unet/model.onnx_data", b"x"), 4, "bundle.unlisted_file"),
    "a hidden file": (file(".hidden", b"x"), 4, UNSAFE),
    "a stale partial file": (file(".hummingbird-1.partial", b"x"), 4, UNSAFE),
    # sealed again after the change: hashes are right, content is not
    "tokenizer no JSON": (
        file("tokenizer/vocab.json", b"{", sealed=True), 3, "tokenizer.invalid"
    ),
    "tokenizer with gaps": (
        file("tokenizer/merges.txt", b"one two three\n", sealed=True), 3, "tokenizer.invalid"
    ),
    "tokenizer without length": (
        file("tokenizer/tokenizer_config.json", b"{}", sealed=True), 3, INVALID
    ),
    "another sampler": (
        file("scheduler/scheduler_config.json", b'{"sampler": "magic"}', sealed=True), 3, INVALID
    ),
}  # fmt: skip
# the manifest agrees with the files, and only opening the graph can tell that it lies
GRAPHS: dict[str, tuple[Damage, int, str]] = {
    "swapped graphs": (swap, 4, "bundle.signature_mismatch"),
    "no ONNX": (file(UNET, b"not onnx", sealed=True), 3, "bundle.graph_unreadable"),
    "graph of nothing": (file(UNET, b"", sealed=True), 3, "bundle.graph_unreadable"),
    "graph of opset 99": (
        file(UNET, graph(opset=99), sealed=True), 3, "bundle.unsupported_opset"
    ),
    "graph with an unknown operator": (
        file(UNET, graph("MatMul", domain="evil"), sealed=True), 4, OPERATOR
    ),
    **{
        f"external data {where!r}": (file(UNET, external(where), sealed=True), 4, UNSAFE)
        for where in ("../../secret", "/etc/passwd", "a/../../../x", "/dev/zero")
    },
}  # fmt: skip
POSIX_DAMAGES: dict[str, tuple[Damage, int, str]] = {
    "U-Net is a link": (linked(UNET), 4, UNSAFE),
    "folder is a link": (linked("unet", folder=True), 4, UNSAFE),
    "manifest is a link": (linked("manifest.json"), 4, UNSAFE),
    "U-Net is a FIFO": (fifo(UNET), 4, UNSAFE),
    "manifest is a FIFO": (fifo("manifest.json"), 4, UNSAFE),
    "digest is a FIFO": (fifo("manifest.sha256"), 4, UNSAFE),
}
if os.name != "nt":
    DAMAGES |= POSIX_DAMAGES
ROWS = [(*row, False) for row in DAMAGES.values()] + [(*row, True) for row in GRAPHS.values()]


@pytest.mark.parametrize(("damage", "exit_code", "error", "opens"), ROWS, ids=[*DAMAGES, *GRAPHS])
def test_a_bad_bundle_is_refused_before_it_runs(
    capsys,
    tmp_path: Path,
    tiny_bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Damage,
    exit_code: int,
    error: str,
    opens: bool,
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
    damage(bundle)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    opened: list[Path] = []
    real_open = OnnxRuntimeBackend.open

    def note_open(self, path, options):
        opened.append(path)
        return real_open(self, path, options)

    def never(self, *arguments, **options):
        pytest.fail("a graph ran")

    monkeypatch.setattr(OnnxRuntimeBackend, "open", note_open)
    monkeypatch.setattr(OnnxRuntimeSession, "run", never)
    started = time.process_time()
    words = ["generate", "a red ball", "-o", "a.npz", "--bundle", str(bundle), "--threads", "1"]
    got = main(words)
    assert time.process_time() - started < SECONDS
    out, err = capsys.readouterr()
    assert (got, err.partition(": ")[0]) == (exit_code, f"error[{error}]"), err
    assert err.count("\n") == 1
    assert len(err) < 2000
    assert out == ""
    assert ".cc:" not in err  # no source line of ONNX Runtime
    assert list(Path().iterdir()) == []
    assert bool(opened) == opens
