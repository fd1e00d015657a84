"""Arms as processes: what they say is checked, what they leave behind is ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from scripted_arm import start, workload

from hummingbird_bench.child import child_environment
from hummingbird_runtime.errors import HummingbirdError


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits for a parent to take note of it."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_run_is_a_sample_with_its_cold_start(tmp_path: Path) -> None:
    with start(workload(), tmp_path, "arm") as child:
        child.open()
        first = child.run(0, "first")
        cold = child.cold(first, 1)
    assert (first.wall_s, first.coverage, first.arm) == (1.0, 1.0, "arm")
    assert cold is not None
    assert cold.wall_s > first.wall_s
    assert cold.coverage == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"die": 3}, "bench.arm_failed"),
        ({"say": "loading weights"}, "bench.arm_protocol"),
        ({"say": '{"event": "error", "code": "a.b", "message": "no"}'}, "bench.arm_failed"),
        ({"identity": {"threads": 1}}, "bench.threads"),
        ({"identity": {"precision": {"unet": "int8"}}}, "bench.precision"),
        ({"identity": {"frames": 8}}, "bench.other_work"),
        ({"identity": {"steps": 2}}, "bench.other_work"),
        ({"identity": {"decoder": "tiny"}}, "bench.other_work"),
        ({"busy": 3.0}, "bench.threads"),
        ({"covered": 0.98}, "bench.uncovered_time"),
        ({"seconds": -1.0}, "bench.sample"),
        ({"providers": {"CPUExecutionProvider": 90, "WebGpuExecutionProvider": 1}},
         "bench.provider_fallback"),
    ],
)  # fmt: skip
def test_an_arm_that_lies_or_fails_is_refused(
    behaviour: dict[str, object], code: str, tmp_path: Path
) -> None:
    with (
        start(workload(**behaviour), tmp_path, "arm") as child,
        pytest.raises(HummingbirdError) as caught,
    ):
        child.open().run(0, "first")
    assert caught.value.code == code


def test_an_arm_that_hangs_is_ended_with_its_own_children(tmp_path: Path) -> None:
    work = workload(hang=60.0, spawn=str(tmp_path / "pid"))
    with start(work, tmp_path, "arm", limit_s=1.0) as child:
        child.open()
        with pytest.raises(HummingbirdError) as caught:
            child.run(0, "first")
    assert caught.value.code == "bench.arm_time_limit"
    assert ended(int((tmp_path / "pid").read_text()))


def test_what_changes_timings_does_not_reach_an_arm() -> None:
    base = {"PATH": os.defpath, "OMP_NUM_THREADS": "64", "MKL_DYNAMIC": "TRUE", "LD_PRELOAD": "x"}
    told = child_environment(2, base)
    assert told["OMP_NUM_THREADS"] == "2"
    assert told["PATH"] == os.defpath
    assert "MKL_DYNAMIC" not in told
