"""Checkpoints made by an attacker, by a broken download and by a full disk."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from hostile_pickles import GOOD, HOSTILE, LIVE, TENSOR, module, text
from published_checkpoints import archive

from hummingbird_export.convert.container import open_checkpoint
from hummingbird_export.convert.sandbox import archive as archive_module
from hummingbird_export.convert.sandbox import index
from hummingbird_export.convert.sandbox import machine as machine_module
from hummingbird_export.convert.sandbox.machine import Machine
from hummingbird_export.convert.sandbox.values import Malformed, Refused
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import IntegrityError

QUICK = {
    "posix.system", "builtins.eval", "__builtin__.eval", "protocol 0", "nested reduce", "INST",
    "NEWOBJ_EX", "names from the memo", "dotted path", "nt.system", "torch.load", "copyreg",
    "extension registry", "module in itself", "expanded tensor", "names with a line feed",
}  # fmt: skip
"""Kinds that go through the whole process in the default tests; the others do in the slow ones."""

STORAGES = {"0": struct.pack("<2f", 1.0, 2.0)}


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def refusal(path: Path, **options: bool) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        open_checkpoint(path, **options)
    error = caught.value
    assert error.exit_code == 4
    assert error.hint
    assert "\n" not in str(error)
    return error


def test_the_table_is_long_and_bites(canary: Path) -> None:
    assert len(HOSTILE) >= 25
    for number, make in enumerate(LIVE.values()):
        (canary.parent / f"{number}.pkl").write_bytes(make(canary))
    script = """
import os, pathlib, pickle, sys
for number in range(int(sys.argv[2])):
    value = pickle.loads(pathlib.Path(f"{number}.pkl").read_bytes())
    if hasattr(value, "wait"):  # a Popen
        value.wait()
    if hasattr(value, "read"):  # of os.popen
        value.read()
    print("fired", os.path.exists(sys.argv[1]), flush=True)
    pathlib.Path(sys.argv[1]).unlink(missing_ok=True)
"""
    command = [sys.executable, "-c", script, str(canary), str(len(LIVE))]
    done = subprocess.run(
        command, cwd=canary.parent, capture_output=True, text=True, check=True, timeout=120
    )
    fired = [line.split()[1] == "True" for line in done.stdout.splitlines() if "fired" in line]
    silent = [kind for kind, hit in zip(LIVE, fired, strict=True) if not hit]
    assert not silent, "these do nothing, so their refusal would prove nothing"


def test_the_good_parts_of_the_table_are_read(tmp_path: Path) -> None:
    """Otherwise a hostile file could be refused for a fault of its harmless rest."""
    path = archive(tmp_path / "a.pt", GOOD + text("w") + TENSOR + b"s.", STORAGES)
    assert open_checkpoint(path).read("w").tolist() == [1.0, 2.0]
    tables = text("_parameters") + b"}" + text("w") + TENSOR + b"ss" + text("_modules") + b"}s"
    archive(path, b"\x80\x02" + module(tables) + b".", STORAGES)
    assert open_checkpoint(path, modules=True).read("w").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_reader_refuses_and_runs_nothing(tmp_path: Path, canary: Path, kind: str) -> None:
    """All but the process around it."""
    path = archive(tmp_path / "a.pt", HOSTILE[kind](canary), STORAGES)
    machine = Machine()
    try:
        with path.open("rb") as file:
            found = archive_module.read_archive(file, path.stat().st_size)
        index.rows(index.find_tensors(machine.run(found.pickle))[1], found)
    except Refused:
        pass
    except Malformed:
        assert machine.forbidden
    else:
        assert machine.forbidden
    assert machine.forbidden or kind not in LIVE
    assert not canary.exists()


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in HOSTILE]
)
def test_a_hostile_file_ends_with_4_and_nothing_runs(
    tmp_path: Path, canary: Path, kind: str
) -> None:
    path = archive(tmp_path / "07B_merged_all.pt", HOSTILE[kind](canary), STORAGES)
    error = refusal(path, modules=True)
    assert error.code == "checkpoint.unsafe_pickle"
    assert not canary.exists()


def test_without_consent_the_same_files_are_refused(tmp_path: Path, canary: Path) -> None:
    for kind in ("posix.system", "beside good tensors", "nested reduce", "as a module's state"):
        refusal(archive(tmp_path / "model.ckpt", HOSTILE[kind](canary), STORAGES))
    assert not canary.exists()


def test_the_command_line_ends_with_4(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = archive(tmp_path / "model.ckpt", HOSTILE["beside good tensors"](canary), STORAGES)
    out = tmp_path / "out"
    for words in (["--inspect"], ["-o", str(out)], ["-o", str(out), "--allow-pickled-module"]):
        assert main(["convert", str(path), *words]) == 4
        captured = capsys.readouterr()
        last = captured.err.splitlines()[-1]
        assert last.startswith("error[checkpoint.unsafe_pickle]: ")
        assert "posix.system" in last
        assert captured.out == ""
    lora = ["--lora", str(path)]
    assert main(["convert", str(path), "--inspect", *lora]) == 4
    assert not canary.exists()
    assert not out.exists()


def test_every_forbidden_name_is_told_at_once(tmp_path: Path, canary: Path) -> None:
    pickled = GOOD + text("a") + HOSTILE["os.system"](canary)[2:-1] + b"s"
    pickled += text("b") + HOSTILE["builtins.eval"](canary)[2:-1] + b"s."
    message = refusal(archive(tmp_path / "a.pt", pickled)).message
    assert "os.system, builtins.eval" in message


def test_the_number_of_instructions_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "MAX_OPCODES", 1000)
    assert Machine().run(b"\x80\x02" + b"N0" * 498 + b"N.") is None
    with pytest.raises(Refused, match="1000 instructions"):
        Machine().run(b"\x80\x02" + b"N0" * 1000 + b"N.")


def test_the_size_of_a_pickle_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.pt", b"\x80\x02}.")
    with path.open("rb") as file:
        assert archive_module.read_archive(file, path.stat().st_size).pickle == b"\x80\x02}."
        monkeypatch.setattr(archive_module, "MAX_PICKLE", 3)
        with pytest.raises(Refused, match="4 bytes, more than 3"):
            archive_module.read_archive(file, path.stat().st_size)


def test_depth_costs_nothing() -> None:
    deep = b"\x80\x02}q\x00" + b")" + b"\x85" * 60_000 + b"K\x01s."  # a hash would recurse
    assert len(Machine().run(deep)) == 1
    lists = Machine().run(b"\x80\x02" + b"]" * 30_000 + b"a" * 29_999 + b".")
    assert len(lists) == 1
    laughs = b"\x80\x02]q\x00"  # 10^40 items, if anyone went through them
    for level in range(40):
        laughs += b"0](" + (b"h" + bytes([level])) * 10 + b"eq" + bytes([level + 1])
    assert len(Machine().run(laughs + b".")) == 10


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "bomb.pt", bytes(5 << 20), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    assert "compressed" in refusal(path).message


def test_archives_that_lie_about_their_entries_are_refused(tmp_path: Path) -> None:
    pickled = GOOD + text("w") + TENSOR + b"s."
    path = tmp_path / "twice.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("archive/data.pkl", b"\x80\x02}.")
    assert "twice" in refusal(path).message

    path = archive(tmp_path / "overlap.pt", pickled, STORAGES)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", directory + 4)
    data[second + 42 : second + 46] = data[directory + 42 : directory + 46]  # its offset
    path.write_bytes(data)
    assert "on top of" in refusal(path).message

    path = archive(tmp_path / "encrypted.pt", pickled, STORAGES)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in refusal(path).message


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    path = archive(tmp_path / "script.pt", GOOD + text("w") + TENSOR + b"s.", STORAGES)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/code/__torch__.py", "class M: ...")
    assert "TorchScript" in refusal(path).message


@pytest.mark.parametrize("kind", ["posix.system", "protocol 0", "reduce, protocol 5", "INST"])
def test_a_bare_pickle_is_refused_unread(tmp_path: Path, canary: Path, kind: str) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(LIVE[kind](canary))
    assert refusal(path, modules=True).code == "checkpoint.legacy_pickle"
    assert not canary.exists()


@pytest.mark.parametrize(
    "act",
    [
        "os.system('true')",
        "open('x', 'w')",
        "open('x')",
        "import socket",
        "exec('1')",
        "__import__('subprocess').run(['true'])",
    ],
)
def test_even_a_fault_in_python_could_reach_nothing(tmp_path: Path, act: str) -> None:
    from hummingbird_export.convert.sandbox import child

    script = (
        "import os, subprocess\n"
        "from hummingbird_export.convert.sandbox.child import lock_down\n"
        f"lock_down()\n{act}\nprint('reached')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == child.TRESPASS, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_pickles_read_as_python_reads_them() -> None:
    """The machine agrees with pickle on plain data of every protocol, so it can refuse rightly."""
    shared = ["again", 1]
    value = {
        "a": [1, -5, 1 << 70, 2.5, True, None, "text", b"bytes", (), (1,), (1, 2), (1, 2, 3)],
        "b": {"nested": [[], {}, shared, shared]},
        "c": tuple(range(10)),
        "d": "x" * 300,
        "e": b"y" * 300,
    }
    for protocol in range(6):
        machine = Machine()
        got = machine.run(pickle.dumps(value, protocol))
        expected = dict(value)
        if protocol < 3:  # bytes are written as a call of _codecs.encode
            for found in (got["a"].pop(7), got.pop("e")):
                assert str(found.type) == "_codecs.encode"
            expected = {**value, "a": value["a"][:7] + value["a"][8:]}
            del expected["e"]
        assert got == expected
        assert got["b"]["nested"][2] is got["b"]["nested"][3]
        assert not machine.forbidden
