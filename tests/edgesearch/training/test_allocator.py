"""Memory that is kept from step to step."""

import platform
import subprocess
import sys

import pytest

from edgesearch.training.allocator import memory_kept

PROGRAM = """
import resource
from edgesearch.training.allocator import memory_kept

MIB = 1 << 20

def pages_got(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(256 * MIB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / MIB

begun = resident_mib()
usual = pages_got(8)
with memory_kept():
    with memory_kept():
        pages_got(1)
        kept = pages_got(8)
    within = resident_mib() - begun  # the inner end gives nothing back
print(usual, kept, within, resident_mib() - begun)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_blocks_are_got_once_and_given_back_at_the_end():
    # In a process of its own: only the main thread's blocks may be of any size.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usual, kept, within, after = map(float, done.stdout.split())
    assert usual > 1000 and kept < usual / 8
    assert within > 200 and after < 50


def test_an_error_ends_it_too():
    with pytest.raises(ZeroDivisionError), memory_kept():
        raise ZeroDivisionError
    with memory_kept():
        pass
