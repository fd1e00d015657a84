"""Entry point of the packaged app; on a desktop `hummingbird demo` runs the same."""

from __future__ import annotations

import sys

from hummingbird_demo.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
