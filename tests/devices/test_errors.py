"""The words in which libraries say that the memory of the machine ran out."""

import errno
import os

import numpy as np
import pytest

from devices.errors import lack_of_memory

ONNXRUNTIME = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv "
    "node. Name:'conv' Status Message: bfc_arena.cc:376 void* AllocateRawInternal(size_t, bool) "
    "Failed to allocate memory for requested buffer of size 33554432"
)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), "an allocation that failed"),
        (MemoryError("std::bad_alloc"), "an allocation that failed"),
        (RuntimeError("std::bad_alloc"), "an allocation that failed"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "an allocation that failed"),
        (RuntimeError("could not create a primitive"), "an allocation that failed"),
        (ImportError("libx.so: failed to map segment from shared object"), "an allocation that"),
        (RuntimeError(ONNXRUNTIME), "no room for 32.0 MiB more"),
        (ONNXRUNTIME, "no room for 32.0 MiB more"),
    ],
)
def test_words_of_libraries(error, found):
    assert str(lack_of_memory(error)).startswith(found)


def test_real_allocations():
    with pytest.raises(MemoryError) as caught:
        np.zeros(1 << 50)
    assert lack_of_memory(caught.value) == "no room for 8.00 PiB more"
    with pytest.raises(MemoryError) as caught:
        bytearray(1 << 60)
    assert lack_of_memory(caught.value) == "an allocation that failed"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("memory"),
    ],
)
def test_other_errors(error):
    assert lack_of_memory(error) is None
