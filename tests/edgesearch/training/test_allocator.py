"""Memory that is kept from step to step."""

import platform
import resource

import pytest

from edgesearch.training.allocator import memory_kept

MIB = 1 << 20
needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library than glibc"
)


def pages_got(mebibytes: int, times: int) -> int:
    """Pages that the system gives while blocks are made and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(mebibytes * MIB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / MIB


@needs_glibc
def test_blocks_are_got_once():
    usual = pages_got(64, 8)
    with memory_kept():
        first, kept = pages_got(64, 1), pages_got(64, 8)
    assert first > 1000 or usual > 1000  # pages, of 4 KiB or larger ones
    assert kept < usual / 8


@needs_glibc
def test_the_system_gets_them_back_at_the_end():
    with memory_kept():
        before = resident_mib()
        with memory_kept():
            bytearray(512 * MIB)
        within = resident_mib()
    assert within > before + 400  # the inner end gives nothing back
    assert resident_mib() < before + 100


def test_an_error_ends_it_too():
    with pytest.raises(ZeroDivisionError), memory_kept():
        raise ZeroDivisionError
    with memory_kept():
        pass
