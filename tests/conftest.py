"""Shared by every test: few threads, one hypothesis profile, and tiny bundles."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Set before numpy or torch load: the tests run beside each other on small machines.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "2")

sys.path.insert(0, str(Path(__file__).parent / "support"))

# Every failure prints the seed line that replays it; slow machines are no failure.
settings.register_profile("default", deadline=None, print_blob=True, max_examples=50)
settings.load_profile("default")


@pytest.fixture(scope="session")
def tiny_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed bundle that no test may change."""
    import tiny_bundle

    return tiny_bundle.write(tmp_path_factory.mktemp("bundles") / "tiny")
