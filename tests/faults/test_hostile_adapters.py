"""Adapter files made to break the reader: refused with one line, in little time and memory."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors_file
import styled_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from hummingbird_runtime import safetensors
from hummingbird_runtime.adapters import open_style
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.safetensors import read_safetensors

INVALID, MISMATCH = "adapter.invalid", "adapter.mismatch"
META = {"__metadata__": styled_bundle.FORMAT}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return styled_bundle.write(tmp_path_factory.mktemp("styles") / "styled")


def whole() -> bytes:
    header, data = safetensors_file.layout(styled_bundle.factors())
    return safetensors_file.encode({**META, **header}, data)


def changed(name: str = "out.lora_up.weight", **values: object) -> bytes:
    """A whole file, one entry of its header altered."""
    header, data = safetensors_file.layout(styled_bundle.factors())
    header[name] = {**header[name], **values}
    return safetensors_file.encode({**META, **header}, data)


def tensors(**arrays: object) -> bytes:
    """A file of other tensors; ``__`` in a name stands for a dot."""
    named = {name.replace("__", "."): np.asarray(a) for name, a in arrays.items()}
    header, data = safetensors_file.layout(named)
    return safetensors_file.encode({**META, **header}, data)


def replaced(name: str, array: np.ndarray) -> bytes:
    header, data = safetensors_file.layout({**styled_bundle.factors(), name: array})
    return safetensors_file.encode({**META, **header}, data)


def raw(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


F32 = np.float32
ones = np.ones
PAIR = {"out__lora_down__weight": ones((1, 16), F32), "out__lora_up__weight": ones((4, 1), F32)}
LAST = safetensors_file.layout(styled_bundle.factors())[0]["out.lora_up.weight"]["data_offsets"]
NAN = np.full((4, 3, 1, 1), np.nan, np.float32)
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", INVALID),
    "seven bytes": (b"\x02" + b"\0" * 6, INVALID),
    "length alone": (b"\x02" + b"\0" * 7, INVALID),
    "length 0": (b"\0" * 64, INVALID),
    "length beyond the file": (b"\xff\0\0\0\0\0\0\0{}", INVALID),
    "length of 2^64": (b"\xff" * 8 + b"{}" * 8, INVALID),
    "length of 2^63": (b"\0" * 7 + b"\x80" + b"{}" * 8, INVALID),
    "no JSON": (raw(b"not json"), INVALID),
    "no UTF-8": (raw(b'{"\xff": 1}'), INVALID),
    "a list": (raw(b"[]"), INVALID),
    "null": (raw(b"null"), INVALID),
    "nested 100,000 deep": (raw(b'{"a":' * 100_000), INVALID),
    "a name twice": (raw(b'{"a": 1, "a": 1}'), INVALID),
    "NaN in the header": (raw(b'{"a": NaN}'), INVALID),
    "a number of 5000 digits": (raw(b'{"a": ' + b"9" * 5000 + b"}"), INVALID),
    "header of 5 MiB": (raw(b'{"a": "' + b"x" * (5 << 20) + b'"}'), INVALID),
    "20,000 tensors": (
        raw(b"{" + b",".join(b'"%d":1' % i for i in range(20_000)) + b"}"), INVALID
    ),
    "no tensors": (safetensors_file.encode(META, b""), INVALID),
    "no metadata": (
        safetensors_file.encode(*safetensors_file.layout(styled_bundle.factors())), INVALID
    ),
    "metadata a list": (safetensors_file.encode({"__metadata__": []}, b""), INVALID),
    "metadata of numbers": (safetensors_file.encode({"__metadata__": {"format": 1}}, b""), INVALID),
    "another format": (
        safetensors_file.encode({"__metadata__": {"format": "pt"}}, b""), INVALID
    ),
    "truncated": (whole()[:-1], INVALID),
    "cut in half": (whole()[: len(whole()) // 2], INVALID),
    "a byte too many": (whole() + b"\0", INVALID),
    "overlapping offsets": (changed(data_offsets=[0, LAST[1] - LAST[0]]), INVALID),
    "a gap": (changed(data_offsets=[LAST[0] + 4, LAST[1] + 4]), INVALID),
    "offsets backwards": (changed(data_offsets=LAST[::-1]), INVALID),
    "negative offsets": (changed(data_offsets=[-24, 0]), INVALID),
    "offsets beyond the file": (changed(data_offsets=[1 << 40, (1 << 40) + 24]), INVALID),
    "three offsets": (changed(data_offsets=[0, 1, 2]), INVALID),
    "offsets as text": (changed(data_offsets=["0", "24"]), INVALID),
    "another shape": (changed(shape=[4, 4, 1, 1]), INVALID),
    "a negative size": (changed(shape=[-4, -3, 1, 1]), INVALID),
    "a size of 0": (changed(shape=[0, 3]), INVALID),
    "a size of 2^62": (changed(shape=[1 << 52, 1 << 52]), INVALID),
    "rank 6": (changed(shape=[4, 3, 1, 1, 1, 1]), INVALID),
    "dtype I64": (changed(dtype="I64"), INVALID),
    "dtype BF16": (changed(dtype="BF16"), INVALID),
    "dtype a list": (changed(dtype=["F16"]), INVALID),
    "an unknown key": (changed(pickle="cos"), INVALID),
    "NaN": (replaced("out.lora_up.weight", NAN), INVALID),
    "infinity": (replaced("out.lora_up.weight", NAN - np.float32("inf")), INVALID),
    "infinity in alpha": (replaced("proj.alpha", np.float32([np.inf])), INVALID),
    "another tensor": (tensors(**PAIR, out__weight=ones((4, 16), F32)), INVALID),
    "a suffix alone": (tensors(**PAIR, __alpha=ones(1, F32)), INVALID),
    "up alone": (tensors(out__lora_up__weight=ones((4, 1), F32)), INVALID),
    "down alone": (tensors(out__lora_down__weight=ones((1, 16), F32)), INVALID),
    "alpha alone": (tensors(out__alpha=ones(1, F32)), INVALID),
    "two alphas": (tensors(**PAIR, out__alpha=ones(2, F32)), INVALID),
    "vectors": (
        tensors(out__lora_down__weight=ones(16, F32), out__lora_up__weight=ones(4, F32)), INVALID
    ),
    "two ranks": (tensors(**{**PAIR, "out__lora_up__weight": ones((4, 2), F32)}), INVALID),
    "an unknown module": (
        tensors(x__lora_down__weight=ones((1, 1), F32), x__lora_up__weight=ones((1, 1), F32)),
        MISMATCH,
    ),
    "too many inputs": (
        tensors(**{**PAIR, "out__lora_down__weight": ones((1, 17), F32)}), MISMATCH
    ),
    "too few outputs": (tensors(**{**PAIR, "out__lora_up__weight": ones((3, 1), F32)}), MISMATCH),
    "too many outputs": (tensors(**{**PAIR, "out__lora_up__weight": ones((5, 1), F32)}), MISMATCH),
    "control characters in names": (
        tensors(**{"\x1b[2J__lora_down__weight": ones((1, 1), F32),
                   "\x1b[2J__lora_up__weight": ones((1, 1), F32)}), MISMATCH
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "code"), FILES.values(), ids=FILES)
def test_a_bad_adapter_is_refused_with_one_line(
    bundle: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, content: bytes, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(content)
    started = time.process_time()
    words = ["generate", "a red ball", "-o", "a.npz", "--bundle", str(bundle), "--threads", "1"]
    got = main([*words, "--style", "a.safetensors"])
    assert time.process_time() - started < 5
    out, err = capsys.readouterr()
    assert (got, err.partition(": ")[0]) == (3, f"error[{code}]"), err
    assert err.count("\n") == 1
    assert len(err) < 600
    assert "\x1b" not in err
    assert out == ""
    assert not Path("a.npz").exists()


def test_a_good_adapter_is_taken_so_the_others_fail_for_their_damage(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(whole())
    (tmp_path / "b").write_bytes(tensors(**PAIR))
    assert len(open_style(Bundle.open(bundle), tmp_path / "a", 1.0).merged()) == 4
    assert len(open_style(Bundle.open(bundle), tmp_path / "b", 1.0).merged()) == 1


def special_files() -> dict[str, tuple[Callable[[Path], object], str]]:
    table: dict[str, tuple[Callable[[Path], object], str]] = {
        "missing": (lambda path: None, "adapter.not_found"),
        "a folder": (lambda path: path.mkdir(), INVALID),
    }
    if os.name != "nt":
        table["a FIFO"] = (os.mkfifo, INVALID)
        table["a device"] = (lambda path: path.symlink_to("/dev/zero"), INVALID)
        table["a dangling link"] = (lambda path: path.symlink_to("gone"), "adapter.not_found")
        if os.getuid():
            table["locked"] = (lambda path: path.touch(0), "adapter.unreadable")
    return table


SPECIAL = special_files()


@pytest.mark.parametrize(("make", "code"), SPECIAL.values(), ids=SPECIAL)
def test_only_regular_files_are_read(tmp_path: Path, make: Callable, code: str) -> None:
    path = tmp_path / "a.safetensors"
    make(path)
    with pytest.raises(HummingbirdError) as caught:
        read_safetensors(path)
    assert caught.value.code == code


def test_a_file_that_cannot_be_opened_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safetensors.os, "open", refuse)
    with pytest.raises(HummingbirdError, match="Permission denied") as caught:
        read_safetensors(tmp_path / "a")
    assert (caught.value.code, caught.value.exit_code) == ("adapter.unreadable", 5)


def test_a_promise_of_terabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(changed(shape=[1 << 20, 1 << 20], data_offsets=[0, 4 << 40]))
    tracemalloc.start()
    with pytest.raises(HummingbirdError):
        read_safetensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    with path.open("r+b") as file:
        file.truncate((1 << 30) + 1)  # a sparse file; its size alone is refused
    with pytest.raises(HummingbirdError, match="at most"):
        read_safetensors(path)


@settings(max_examples=300)
@given(st.data())
def test_any_damage_is_read_or_refused(tmp_path_factory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    content = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content) - 1, 1500)))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        file = read_safetensors(path)
    except HummingbirdError as error:
        refused = error
    else:
        assert all(np.isfinite(tensor).all() for tensor in file.tensors.values())
        return
    assert refused.code == INVALID
    assert "\n" not in str(refused)
