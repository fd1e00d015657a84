"""Engines measure alike: the Ray engine's ledger is byte for byte that of the local one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("av")

from curation_source import write_source

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import ResourceError, UsageError
from hummingbird_train.curation.engines import local, ray_data
from hummingbird_train.curation.ledger import Ledger
from hummingbird_train.curation.worker import WorkerConfig, typed_error, typed_message

RUNNER = Path(__file__).parents[2] / "support" / "curation_runner.py"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ResourceError) as caught:
        next(ray_data.score([], WorkerConfig({}), 1, CancelToken()))
    assert caught.value.code == "extra.missing"
    assert "[ray]" in caught.value.hint


def test_the_local_engine_takes_tasks_as_it_needs_them() -> None:
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            raise UsageError("usage.arguments", "the source broke")
            yield

    with pytest.raises(UsageError):
        list(local.score(tasks(), WorkerConfig({}), 2, CancelToken()))
    assert taken == [0]
    assert list(local.score([], WorkerConfig({}), 2, CancelToken())) == []


def test_an_error_keeps_its_type_over_a_process_boundary() -> None:
    error = ResourceError("extra.missing", "no module", hint="pip")
    again = typed_error(typed_message(error))
    assert (type(again), again.code, str(again)) == (ResourceError, error.code, str(error))
    plain = typed_error(typed_message(ValueError("odd")))
    assert plain.code == "curation.worker"
    assert "ValueError: odd" in plain.message
    missing = typed_error(typed_message(ModuleNotFoundError("no cv2", name="cv2")))
    assert (missing.code, "cv2" in missing.message) == ("extra.missing", True)


@pytest.mark.slow
def test_ray_and_local_ledgers_are_equal_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    captions = [f"clip {n}" for n in range(40)]
    captions[3], captions[11], captions[22], captions[33] = "reject", "raise", "crash", "grow"
    found = {}
    for engine in ("ray", "local"):
        source = write_source(tmp_path / "s", captions)
        words = [RUNNER, engine, source, tmp_path / engine, 2, 0.01]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *map(str, words)],
            capture_output=True, text=True, check=False, timeout=500,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with Ledger.open(tmp_path / engine) as ledger:
            found[engine] = ledger.canonical()
            assert ledger.stored_rows() == 120
        for path in source.iterdir():
            path.unlink()
        source.rmdir()
    assert found["ray"] == found["local"]
    assert found["ray"].count(b"curation.crashed") == 1
    assert found["ray"].count(b"curation.source_changed") == 3
