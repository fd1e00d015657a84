"""Energy of the processor's packages, from the counters that Linux shows under /sys/class/powercap.

Where they are absent or closed to this user the answer is None, and reports say "not measured".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyReading:
    """Counters at one moment."""

    microjoules: dict[str, tuple[int, int]]
    """package -> counter, value at which it starts again from 0"""


def read_energy(root: Path = POWERCAP) -> EnergyReading | None:
    """The counter of every package, or None where not all can be read.

    Args:
        root: folder of the counters.
    """
    found = {}
    try:
        for zone in sorted(root.glob("intel-rapl:*")):
            if zone.name.count(":") == 1:  # intel-rapl:0:0 is a part of a package
                found[zone.name] = (
                    int((zone / "energy_uj").read_text("ascii")),
                    int((zone / "max_energy_range_uj").read_text("ascii")),
                )
    except (OSError, ValueError):
        return None
    return EnergyReading(found) if found else None


def joules_between(before: EnergyReading | None, after: EnergyReading | None) -> float | None:
    """Joules used between two readings, each counter having started again at most once."""
    if before is None or after is None or before.microjoules.keys() != after.microjoules.keys():
        return None
    used = 0
    for name, (end, size) in after.microjoules.items():
        start = before.microjoules[name][0]
        used += end - start if end >= start else end - start + size
    return used / 1e6
