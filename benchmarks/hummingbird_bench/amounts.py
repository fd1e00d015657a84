"""Seconds, bytes and ratios as a reader says them. Three significant digits, no locale."""

from __future__ import annotations


def significant(value: float, digits: int = 3) -> str:
    """A number to some significant digits, never in scientific notation: 0.0123, 4.57, 12300."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = int(f"{rounded:e}".partition("e")[2])
    return f"{rounded:.{max(digits - 1 - exponent, 0)}f}"


def seconds(value: float) -> str:
    """Seconds as µs, ms, s, minutes or hours: 49.3 ms, 2 min 32 s, 4 h 19 min."""
    if value == 0:
        return "0 s"
    if abs(value) < 1e-3:
        return f"{significant(value * 1e6)} µs"
    if abs(value) < 0.9995:
        return f"{significant(value * 1e3)} ms"
    if abs(value) < 59.95:
        return f"{significant(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60:02} s" if whole % 60 else "")
    minutes = round(value / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60:02} min" if minutes % 60 else "")


def storage(value: float) -> str:
    """Bytes in decimal units."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{significant(value / size)} {unit}"
    return f"{value:.0f} B"


def ratio(value: float) -> str:
    """A quotient of times: 63.1×; near 1 to four digits, for that is where they matter."""
    return f"{_near_one(value)}×"


def interval(low: float, high: float) -> str:
    """The 95 % interval of a ratio: [61.2, 65.0]."""
    return f"[{_near_one(low)}, {_near_one(high)}]"


def count(value: float) -> str:
    """A large number, such as of operations: 20.5 T."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if abs(value) >= 0.9995 * size:
            return f"{significant(value / size)} {unit}"
    return f"{value:.0f}"


def percent(share: float) -> str:
    """A share 0..1 as percent."""
    return f"{100 * share:.1f} %"


def _near_one(value: float) -> str:
    return significant(value) if not 0.9 < value < 1.1 else f"{value:.3f}"
