"""Curation under kills, full disks and hostile files: nothing lost, doubled or silent."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("av")

from curation_source import write_source, write_video

from hummingbird_train.curation.ledger import Ledger

RUNNER = Path(__file__).parents[1] / "support" / "curation_runner.py"
CLIPS = 48
posix = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")


def runner(
    engine: str, source: Path, run: Path, processes: int = 2, delay: float = 0.01, **options
) -> subprocess.Popen[str]:
    words = [RUNNER, engine, source, run, processes, delay]
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    single |= {"RAY_worker_niceness": "0"}  # or other processes of a busy machine starve it
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **single},
        **options,
    )  # fmt: skip


def finished(process: subprocess.Popen[str], seconds: float = 300) -> str:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out


def content(run: Path) -> tuple[bytes, int]:
    with Ledger.open(run) as ledger:
        assert ledger.notes == []
        return ledger.canonical(), ledger.stored_rows()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [f"clip {n}" for n in range(CLIPS)]
    captions[5], captions[17], captions[30] = "reject", "raise", "crash"
    return write_source(tmp_path_factory.mktemp("kills") / "source", captions)


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> bytes:
    run = source.parent / "undisturbed"
    finished(runner("local", source, run))
    canonical, stored = content(run)
    assert stored == canonical.count(b"\n") == 3 * CLIPS
    return canonical


def check_kills(tmp_path: Path, source: Path, undisturbed: bytes, kills: int) -> None:
    rng = random.Random(kills)
    runs = killed = partial = 0
    while killed < kills:
        run = tmp_path / f"run{runs}"
        runs += 1
        while killed < kills:
            process = runner("local", source, run)
            wait = rng.uniform(0.0, 1.0) ** 2
            if rng.random() < 0.8:  # most of them while clips are measured and written
                process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            if process.poll() == 0:
                process.communicate()
                break
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=200)
            killed += 1
            if (run / "ledger").is_dir():
                canonical, stored = content(run)
                assert stored == canonical.count(b"\n")  # nothing twice at any moment
                assert set(canonical.splitlines()) <= set(undisturbed.splitlines())
                partial += 0 < stored < 3 * CLIPS
        finished(runner("local", source, run))
        assert content(run) == (undisturbed, 3 * CLIPS)
    assert partial > kills // 4  # the kills did fall into the middle of the work


@posix
def test_3_kills_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, source: Path, undisturbed: bytes
) -> None:
    check_kills(tmp_path, source, undisturbed, 3)


@posix
@pytest.mark.storm
def test_30_kills_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, source: Path, undisturbed: bytes
) -> None:
    check_kills(tmp_path, source, undisturbed, 30)


def descendants(pid: int) -> dict[int, str]:
    """Processes below one, with their command lines; Linux."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            number = int(entry.name)
            parents[number] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            lines[number] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found: dict[int, str] = {}
    for number in parents:
        above = number
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and number != pid:
            found[number] = lines.get(number, "")
    return found


@posix
@pytest.mark.slow
def test_measuring_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", ["a", "b", "c", "d"] * 5)
    process = runner("local", source, tmp_path / "run", delay=0.1)
    process.stdout.readline()
    children = [n for n, line in descendants(process.pid).items() if "curation.child" in line]
    assert len(children) == 2
    process.kill()
    process.communicate(timeout=200)
    deadline = time.monotonic() + 60
    while any(Path("/proc", str(child)).exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_a_killed_ray_worker_loses_and_doubles_nothing(
    tmp_path: Path, source: Path, undisturbed: bytes
) -> None:
    pytest.importorskip("ray")
    run = tmp_path / "run"
    process = runner("ray", source, run, delay=0.25)
    try:
        assert process.stdout.readline()
        found = descendants(process.pid)
        actors = [n for n, line in found.items() if line.startswith("ray::") and "Scor" in line]
        assert actors, found
        os.kill(actors[0], signal.SIGKILL)
        finished(process, 300)
    finally:
        process.kill()
    canonical, stored = content(run)
    assert stored == 3 * CLIPS
    # the delay is a parameter, so the hashes differ, and nothing else
    assert [_unhashed(line) for line in canonical.splitlines()] == [
        _unhashed(line) for line in undisturbed.splitlines()
    ]


def _unhashed(line: bytes) -> dict:
    import json

    table = json.loads(line)
    del table["parameters"]
    return table


@pytest.mark.slow
def test_a_killed_ray_run_goes_on_under_either_engine(
    tmp_path: Path, source: Path, undisturbed: bytes
) -> None:
    pytest.importorskip("ray")
    run = tmp_path / "run"
    process = runner("ray", source, run, start_new_session=True)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=200)
    with Ledger.open(run) as ledger:
        assert len(ledger.done()) < 3 * CLIPS
    finished(runner("local", source, run))
    assert content(run) == (undisturbed, 3 * CLIPS)


@posix
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.storm)]
)
def test_a_signal_keeps_what_is_measured(tmp_path: Path, name: str, code: int) -> None:
    source, run = write_source(tmp_path / "s", ["a"] * 4 + ["hang"] * 2), tmp_path / "run"
    words = ["score", source, "-o", run, "--stages", "fake_stages:build", "--processes", 2]
    process = curate(*words)
    deadline = time.monotonic() + 100
    while len(list(source.glob("*.hangs"))) < 2:  # so the four others are measured
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=200)
    assert time.monotonic() - sent < 30
    assert process.returncode == code, err
    assert err.splitlines()[-1].startswith("error[runtime.cancelled]: ")
    assert "Traceback" not in err
    assert out == ""
    with Ledger.open(run, write=True) as ledger:
        assert len(ledger.done()) == 12


ENTRY = """
import sys
from hummingbird_runtime.cli import as_typed, report
from hummingbird_train.curation.cli import main
try:
    code = main(sys.argv[1:])
except Exception as error:
    code = report(as_typed(error))
sys.exit(code)
"""


def curate(*words: object, **options) -> subprocess.Popen[str]:
    """The verb as a process."""
    support = str(RUNNER.parent)
    path = os.pathsep.join(filter(None, [support, os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ENTRY, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


def outcome(*words: object, **options) -> tuple[int, str, str]:
    process = curate(*words, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_two_runs_into_one_folder_are_told_apart(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a"]), tmp_path / "run"
    run.mkdir()
    with Ledger.open(run, write=True):
        code, out, err = outcome("score", source, "-o", run, "--stages", "fake_stages:build")
    assert (code, out) == (5, "")
    assert err.splitlines()[-1].startswith("error[ledger.busy]: ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_ends_the_run_and_more_room_lets_it_go_on(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", [f"clip {n} {'x' * 200}" for n in range(20)])
    script = (
        f"mount -t tmpfs -o size=160k none {tmp_path}/disk || exit 99\n"
        f"{sys.executable} -W ignore {RUNNER} local {source} {tmp_path}/disk/run 1 0\n"
        f"code=$?\n"
        f"mount -o remount,size=8m {tmp_path}/disk || exit 99\n"
        f"{sys.executable} -W ignore {RUNNER} local {source} {tmp_path}/disk/run 1 0 || exit 98\n"
        f"cp -r {tmp_path}/disk/run {tmp_path}/saved; exit $code\n"
    )
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False,
        timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("no mounts here")
    assert done.returncode == 5, done.stderr
    assert "error[output.disk_full]: " in done.stderr
    assert "Traceback" not in done.stderr
    canonical, stored = content(tmp_path / "saved")
    assert stored == canonical.count(b"\n") == 60


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", ["a"])
    where = Path("/proc/self/run") if Path("/proc").is_dir() else tmp_path / "no" / "run"
    code, out, err = outcome("score", source, "-o", where, "--stages", "fake_stages:build")
    assert (code, out) == (5, ""), err
    assert err.splitlines()[-1].startswith(("error[output.permission]", "error[output.folder_mis"))


def hostile(folder: Path) -> dict[str, str]:
    """Files that are no good clip -> error code, "" for those that are odd and fine."""
    import numpy as np

    good = (folder / "000.mp4").read_bytes()
    files = {
        "truncated.mp4": good[: len(good) // 3],
        "empty.mp4": b"",
        "text.mp4": b"just some words\n" * 50,
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "random.mp4": np.random.default_rng(0).bytes(5000),
        "header.mp4": good[:40],
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    expected = dict.fromkeys(files, "clip.")
    shutil.copy(folder / "000.mp4", folder / "ünï cödé 视频 -x\n'\".mp4")
    expected["ünï cödé 视频 -x\n'\".mp4"] = ""
    shutil.copy(folder / "000.mp4", folder / "-leading.mp4")
    expected["-leading.mp4"] = ""
    with contextlib.suppress(OSError):
        raw = os.fsdecode(b"bytes\xff\xfe.mp4")
        shutil.copy(folder / "000.mp4", folder / raw)
        expected[raw] = ""
    with (folder / "huge.mp4").open("wb") as stream:
        stream.truncate(3 << 30)  # a hole, no blocks on the disk
    sound(folder / "sound.mp4")
    write_video(folder / "one frame.mp4", frames=1)
    uneven(folder / "uneven.mp4")
    return expected | {"huge.mp4": "clip.", "sound.mp4": "clip."} | dict.fromkeys(
        ("one frame.mp4", "uneven.mp4"), ""
    )  # fmt: skip


def uneven(path: Path) -> None:
    """A video whose frames last differently long."""
    import av
    import numpy as np

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for place in (0, 1, 2, 10, 11, 40):
            picture = np.full((32, 32, 3), place * 5, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sound(path: Path) -> None:
    """A file with sound and no picture."""
    import av
    import numpy as np

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_hostile_files_are_failed_rows_and_the_run_goes_on(tmp_path: Path) -> None:
    source, run = write_source(tmp_path / "s", ["a"]), tmp_path / "run"
    expected = hostile(source) | {"000.mp4": ""}
    (source / "gone.mp4").symlink_to("nowhere.mp4")
    (source / "loop.mp4").symlink_to("loop.mp4")
    expected |= {"gone.mp4": "clip.", "loop.mp4": "clip."}
    if hasattr(os, "mkfifo"):
        os.mkfifo(source / "pipe.mp4")
        expected["pipe.mp4"] = "clip."
    words = ["score", source, "-o", run, "--stages", "fake_stages:build", "--processes", 1]
    code, out, err = outcome(*words)
    assert (code, out) == (0, ""), err
    assert "warning[curation.failures]: " in err
    found: dict[str, set[str]] = {}
    with Ledger.open(run) as ledger:
        for row in ledger.rows():
            found.setdefault(Path(row.uri).name, set()).add(row.error_code)
    assert found.keys() == expected.keys()
    for name, prefix in expected.items():
        codes = found[name] - {"", "stage.unscored"}
        assert bool(codes) == bool(prefix), (name, codes)
        assert all(code.startswith(prefix) for code in codes), (name, codes)
    code, _, err = outcome(*words, "--strict")
    assert code == 6
    assert err.splitlines()[-1].startswith("error[curation.failures]: ")
    assert outcome("ledger", run)[0] == 0
    code, out, _ = outcome("ledger", run, "--failed")
    assert code == 0
    assert {line.partition(".")[0] for line in out.splitlines()} == {"clip"}
