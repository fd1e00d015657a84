"""Memory of this process and of the machine, asked of the kernels of macOS and Windows by ctypes.

Written from their documentation; Linux is in system_memory.py.
"""

from __future__ import annotations

import ctypes


class _TaskInfo(ctypes.Structure):
    """mach_task_basic_info."""

    _fields_ = (
        ("virtual_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("resident_size_max", ctypes.c_uint64),
        ("user_time", ctypes.c_int32 * 2),
        ("system_time", ctypes.c_int32 * 2),
        ("policy", ctypes.c_int32),
        ("suspend_count", ctypes.c_int32),
    )


def macos() -> tuple[int | None, int | None]:
    """(resident, free) bytes: free and inactive pages of the machine."""
    library = ctypes.CDLL(None)
    library.mach_host_self.restype = library.mach_task_self.restype = ctypes.c_uint32
    task, words = _TaskInfo(), ctypes.c_uint32(ctypes.sizeof(_TaskInfo) // 4)
    basic_info = 20
    held = None
    if not library.task_info(
        library.mach_task_self(), basic_info, ctypes.byref(task), ctypes.byref(words)
    ):
        held = int(task.resident_size)
    vm_info, counts = 4, (ctypes.c_uint32 * 64)()  # free, active, inactive, wired pages, more
    words, page = ctypes.c_uint32(len(counts)), ctypes.c_uint32()
    host = library.mach_host_self()
    if library.host_statistics64(host, vm_info, counts, ctypes.byref(words)):
        return held, None
    library.host_page_size(host, ctypes.byref(page))
    return held, (counts[0] + counts[2]) * page.value


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    )


class _ProcessCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("faults", ctypes.c_uint32),
        ("peak", ctypes.c_size_t),
        ("working_set", ctypes.c_size_t),
        ("rest", ctypes.c_size_t * 6),
    )


def windows() -> tuple[int | None, int | None]:
    """(resident, free) bytes: the working set, and physical memory that is available."""
    kernel = ctypes.CDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    counters = _ProcessCounters(length=ctypes.sizeof(_ProcessCounters))
    told = kernel.K32GetProcessMemoryInfo(
        kernel.GetCurrentProcess(), ctypes.byref(counters), counters.length
    )
    held = int(counters.working_set) if told else None
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return held, None
    return held, int(status.available)
