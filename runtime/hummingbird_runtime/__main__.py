"""``python -m hummingbird_runtime``: the same as the ``hummingbird`` command."""

import sys

from hummingbird_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
