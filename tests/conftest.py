"""Shared by every test: few threads, one hypothesis profile, and tiny bundles."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Set before numpy or torch load: the tests run beside each other on small machines.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "2")

# Kivy takes over logging when it is imported, for every test that comes later in the process.
os.environ["KIVY_LOG_MODE"] = "PYTHON"
os.environ["KIVY_NO_FILELOG"] = "1"

# A run in the background of a shell inherits an ignored SIGINT, one under nohup an ignored SIGHUP,
# and so would every child process.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

sys.path.insert(0, str(Path(__file__).parent / "support"))

# Every failure prints the line that replays it; slow machines are no failure.
settings.register_profile("default", deadline=None, print_blob=True, max_examples=50)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of every hypothesis test, unless one was given, so that it can be told."""
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(secrets.randbits(32))


def pytest_report_header(config: pytest.Config) -> str:
    return f"replay with --hypothesis-seed={config.getoption('--hypothesis-seed')}"


@pytest.fixture(scope="session")
def tiny_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed bundle that no test may change."""
    import tiny_bundle

    return tiny_bundle.write(tmp_path_factory.mktemp("bundles") / "tiny")
