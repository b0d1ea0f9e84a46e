"""The emulation of CUDA on the CPU keeps its promises: else a kernel that passes on it has shown nothing."""

import ctypes
import re
import subprocess
import sys

import numpy as np
import pytest

from simulator.calibration.gpu.build import CUDA_FOLDER
from simulator.calibration.gpu.truth_formats import from_bf16_bits, from_e4m3_bits, to_bf16_bits, to_e4m3_bits
from support.emulated import (
    EMULATION_FOLDER,
    MISSING_COMPILER,
    has_compiler,
    linked,
)

pytestmark = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)

# What a kernel that is wrong does to its process must not happen to the tests'.
ALONE = """
import ctypes, sys
functions = ctypes.CDLL(sys.argv[1])
memory = ctypes.c_void_p()
assert functions.rp_allocate(ctypes.byref(memory), ctypes.c_int64(512)) == 0
functions.probe(sys.argv[2].encode(), memory)
print("went through")
"""


@pytest.fixture(scope="module")
def library_path():
    sources = [EMULATION_FOLDER / "probe.cu", CUDA_FOLDER / "runtime.cu"]
    return linked("libprobe.so", sources)


@pytest.fixture(scope="module")
def functions(library_path):
    functions = ctypes.CDLL(str(library_path))
    functions.probe_bf16.argtypes = functions.probe_e4m3.argtypes = [ctypes.c_float]
    functions.probe_bf16.restype = ctypes.c_uint16
    functions.probe_e4m3.restype = ctypes.c_uint8
    return functions


def probe(functions, name, size=128, reverse=False):
    to = np.full(size, -1, np.int32)
    functions.emulated_reverse_order(int(reverse))
    code = functions.probe(name.encode(), ctypes.c_void_p(to.ctypes.data))
    functions.emulated_reverse_order(0)
    return code, to


def run_alone(library_path, name):
    command = [sys.executable, "-c", ALONE, str(library_path), name]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("reverse", [False, True])
def test_threads_talk_through_shuffles_and_shared_memory(functions, reverse):
    # Warps add up to 0 + ... + 31 = 496 and 1,024 more; thread i adds 63 - i; two blocks do the same.
    expected = np.repeat([496, 496 + 1024], 32) + 63 - np.arange(64)
    code, to = probe(functions, "talks", reverse=reverse)
    assert code == 0
    np.testing.assert_array_equal(to, np.tile(expected, 2))


def test_shuffles_stay_within_their_segments(functions):
    lane = np.arange(32)
    _, to = probe(functions, "shuffles", size=160)
    third_of_eight, two_down, one_up, votes, reversed_lanes = to.reshape(5, 32)
    np.testing.assert_array_equal(third_of_eight, lane // 8 * 8 + 3)
    np.testing.assert_array_equal(two_down, np.where(lane % 16 < 14, lane + 2, lane))
    np.testing.assert_array_equal(one_up, np.maximum(lane - 1, 0))
    np.testing.assert_array_equal(votes, 0b1111)
    np.testing.assert_array_equal(reversed_lanes, lane[::-1])


def test_a_missing_barrier_shows_in_the_other_order(functions):
    # Whichever half of the threads comes first reads what the other half has not written: poison, -1.
    _, forwards = probe(functions, "reads_too_early")
    _, backwards = probe(functions, "reads_too_early", reverse=True)
    opposite = 63 - np.arange(64)
    np.testing.assert_array_equal(forwards[:64], np.where(np.arange(64) < 32, -1, opposite))
    np.testing.assert_array_equal(backwards[:64], np.where(np.arange(64) < 32, opposite, -1))


def test_shared_memory_is_poisoned(functions):
    functions.probe(b"talks", ctypes.c_void_p(np.zeros(128, np.int32).ctypes.data))
    _, to = probe(functions, "reads_unwritten_shared")
    np.testing.assert_array_equal(to[:64], -1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("returns_before_the_barrier", r"deadlock: of 64 threads, 3 returned, 61 wait at .*probe\.cu:"),
        ("meets_at_two_barriers", "threads wait for each other at .*:.* and at "),
        ("lanes_part", "lanes of a warp act together at .*:.* and at "),
        ("half_a_warp", "whole warps only"),
        ("writes_just_beyond_shared", "wrote beyond the end of its dynamic shared memory"),
        ("part_of_a_warp", "a block of 33 threads: give whole warps"),
    ],
)
def test_what_hardware_leaves_undefined_ends_the_process(library_path, name, message):
    done = run_alone(library_path, name)
    assert done.returncode == -6
    assert done.stdout == ""
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize("name", ["writes_beyond_shared", "reads_beyond_memory"])
def test_what_lies_beyond_an_end_cannot_be_touched(library_path, name):
    done = run_alone(library_path, name)
    assert (done.returncode, done.stdout) == (-11, "")


@pytest.mark.parametrize("name", ["too_many_threads", "too_much_shared"])
def test_a_launch_that_cuda_refuses_is_refused(functions, name):
    invalid_configuration = 9
    code, to = probe(functions, name)
    assert code == invalid_configuration
    np.testing.assert_array_equal(to, -1)


def test_its_conversions_round_as_the_formats_say(functions):
    # Every finite code's value, the float32 midpoints between two, and the floats beside them.
    for of_emulation, from_bits, to_bits, codes in (
        (functions.probe_bf16, from_bf16_bits, to_bf16_bits, np.arange(0, 0x7F80, 7, dtype=np.uint16)),
        (functions.probe_e4m3, from_e4m3_bits, to_e4m3_bits, np.arange(0x7F, dtype=np.uint8)),
    ):
        ladder = from_bits(codes)
        middle = (ladder[:-1] / 2 + ladder[1:] / 2).astype(np.float32)
        beside = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
        values = np.concatenate([ladder, middle, *beside, np.float32([np.inf, 1e6, 449])])
        for sign in (1, -1):
            computed = [of_emulation(float(value)) for value in sign * values]
            np.testing.assert_array_equal(computed, to_bits(sign * values))
        assert of_emulation(float("nan")) == to_bits(np.float32([np.nan]))[0]
