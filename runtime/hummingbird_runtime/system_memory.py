"""How much memory this process holds and how much more it may take, asked of the system.

Linux and Android: /proc/meminfo, the limits of control groups (versions 1 and 2) and of the process
(RLIMIT_AS, RLIMIT_DATA); the tightest counts. macOS and Windows: desktop_memory.py. What a system
does not tell is None; nothing is guessed here.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hummingbird_runtime import desktop_memory

_ROOT = Path("/")
_SHARES = {"address space": 0.75, "data segment": 0.75}
_SHARE = 0.9


@dataclass(frozen=True)
class Memory:
    """Memory of this process, in bytes."""

    held: int | None
    """Resident now; None where the system does not tell."""
    free: int | None
    """What it may take besides before the tightest limit; None where none is known."""
    limit: str = "unknown"
    """What that limit is: ``system``, ``control group``, ``address space``, ``data segment``."""

    @property
    def available(self) -> int | None:
        """What a plan may use: what is held and most of what is free, with some left for others.

        Nine tenths of free memory. Three quarters of a free address space, which also holds
        stacks, the room that arenas grow by, and what libraries map and never touch.
        """
        if self.held is None or self.free is None:
            return None
        return self.held + int(_SHARES.get(self.limit, _SHARE) * self.free)


def read_memory(*, root: Path = _ROOT) -> Memory:
    """Ask the system now.

    Args:
        root: where /proc and /sys lie.
    """
    if sys.platform in ("darwin", "win32"):
        held, free = (
            desktop_memory.macos() if sys.platform == "darwin" else desktop_memory.windows()
        )
        return Memory(held, free, "unknown" if free is None else "system")
    held, size, data = _statm(root)
    limits: dict[str, int] = {}
    if (system := _fields(root / "proc/meminfo").get("MemAvailable")) is not None:
        limits["system"] = system << 10
    if (group := _group_free(root)) is not None:
        limits["control group"] = group
    for name, what, used in (
        ("RLIMIT_AS", "address space", size),
        ("RLIMIT_DATA", "data segment", data),
    ):
        if used is not None and (most := _process_limit(name)) is not None:
            limits[what] = most - used
    if not limits:
        return Memory(held, None)
    tightest = min(limits, key=lambda name: _SHARES.get(name, _SHARE) * limits[name])
    return Memory(held, max(0, limits[tightest]), tightest)


def _statm(root: Path) -> tuple[int | None, int | None, int | None]:
    """(resident, address space, data segment) in bytes."""
    try:
        import resource

        page = resource.getpagesize()
        pages = [int(word) for word in (root / "proc/self/statm").read_text().split()]
        return pages[1] * page, pages[0] * page, pages[5] * page
    except (ImportError, OSError, ValueError, IndexError):
        return None, None, None


def _fields(path: Path) -> dict[str, int]:
    """Numbers by name of a file of lines such as ``Name: 12 kB``; none when there is no file."""
    found = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return {}
    for line in lines:
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _group_free(root: Path) -> int | None:
    """The smallest rest of any control group that this process is in; None without a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return None
    rests = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = PurePosixPath(path)
        for group in (inside, *inside.parents):
            folder = root / base / group.relative_to("/") if group.is_absolute() else root / base
            most, used = _number(folder / names[0]), _number(folder / names[1])
            if most is not None and used is not None and most < 1 << 60:  # version 1 has no "max"
                reclaimable = _fields(folder / "memory.stat").get(names[2], 0)
                rests.append(most - used + reclaimable)
    return min(rests, default=None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # ValueError: the word "max"
        return None


def _process_limit(name: str) -> int | None:
    import resource

    number = getattr(resource, name, None)
    if number is None:
        return None
    soft = resource.getrlimit(number)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def trim_heap() -> None:
    """Give freed memory of the C library back to the system; nothing where it has no such call.

    glibc keeps the freed weights of a closed graph, and the next one would come on top.
    """
    if sys.platform not in ("linux", "android"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)
    elif hasattr(library, "mallopt"):  # bionic
        purge = -101
        library.mallopt(purge, 0)
