"""How calls are timed: alone or in batches, behind a flush. Events of the emulated device are the host's clock."""

import ctypes
import time
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from simulator.calibration.gpu import timing
from simulator.calibration.gpu.machine import on_bench
from simulator.calibration.gpu.timing import BATCH_CALLS, Effort, Flush, Timer, TimingError, time_call
from support.emulated import MISSING_COMPILER, emulated_library, has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)

EFFORT = Effort(repetitions=4, least=2, seconds=1.0)


@pytest.fixture(scope="module")
def bench():
    with on_bench(emulated_library(), None, 0) as (found, _):
        yield found


@pytest.fixture(scope="module")
def flush(bench):
    with Flush(bench) as found:
        yield found


class Calls:
    """Makes calls that take a time, and counts what is asked of them."""

    def __init__(self, seconds):
        self.seconds, self.made, self.order = seconds, 0, []

    def __call__(self, held):
        number, self.made = self.made, self.made + 1

        def call():
            self.order.append(number)
            end = time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                pass

        return call


def test_a_call_of_many_bytes_is_timed_alone(bench, flush):
    # The emulated L2 has 64 KiB: 16 times that is what a row of calls moves at the least.
    calls = Calls(2e-3)
    found = time_call(bench, flush, calls, 16 * 2**16, EFFORT)
    assert found.method == "single launches, L2 flushed before each"
    assert len(found.times_s) == 4
    assert calls.made == 1
    assert min(found.times_s) >= 2e-3


@pytest.mark.parametrize(("set_bytes", "launches", "sets"), [(16 * 2**16 - 1, 2, 2), (100_000, 11, 3)])
def test_a_long_call_is_timed_in_batches_that_pay_for_what_they_leave_in_the_cache(
    bench, flush, set_bytes, launches, sets
):
    calls = Calls(1e-3)
    begun_s = time.perf_counter()
    found = time_call(bench, flush, calls, set_bytes, EFFORT)
    took_s = time.perf_counter() - begun_s
    assert launches * set_bytes >= 16 * bench.l2_bytes > (launches - 1) * set_bytes
    assert found.method.startswith(f"batches of {launches} launches over {sets} sets of inputs")
    assert calls.order[-launches:] == [index % sets for index in range(launches)]
    # of one call, not of the batch: that many of each time are in what all took
    assert min(found.times_s) >= 1e-3
    assert launches * sum(found.times_s) <= took_s


def test_a_short_call_is_timed_in_batches_over_sets_of_its_own(bench, flush):
    # Twice the L2 is 131,072 bytes, which 14 sets of 10,000 exceed; one more is rotated in. 16 times is 105 calls.
    calls = Calls(2e-6)
    found = time_call(bench, flush, calls, 10_000, EFFORT)
    assert calls.made == 15
    assert "batches of 105 launches over 15 sets of inputs" in found.method
    assert calls.order[-105:] == [index % 15 for index in range(105)]
    assert 2e-6 <= min(found.times_s) < 50e-6  # others, where the host was interrupted, may be longer


def test_a_short_call_of_many_bytes_is_timed_in_batches_for_the_events_sake(bench, flush):
    found = time_call(bench, flush, Calls(1e-6), 16 * 2**16, EFFORT)
    assert f"batches of {BATCH_CALLS} launches over 2 sets" in found.method


def test_tiny_sets_are_not_used_twice_in_a_batch_which_the_queue_holds(bench, flush):
    calls = Calls(1e-6)
    found = time_call(bench, flush, calls, 10, EFFORT)
    assert calls.made == EFFORT.launches == 256
    assert found.method.startswith("batches of 256 launches over 256 sets")


def test_repetitions_are_fewer_where_they_take_long_but_never_less_than_the_least(bench, flush):
    found = time_call(bench, flush, Calls(2e-3), 2**20, Effort(repetitions=100, least=3, seconds=1e-3))
    assert len(found.times_s) == 3


def test_before_what_is_timed_the_device_is_kept_busy_as_long_as_the_host_needs(bench, monkeypatch):
    asked = []
    timer = Timer(bench.cuda, SimpleNamespace(run=asked.append))
    slow_to_queue = Calls(1e-3)(None)
    timer.seconds_of([slow_to_queue])
    timer.seconds_of([slow_to_queue] * 3)
    assert asked[0] == 0
    assert asked[1] >= 3 * 2 * 1e-3


def test_a_flush_writes_one_buffer_and_reads_another_larger_than_the_cache(bench, monkeypatch):
    asked = []
    flush = Flush(bench)
    call = bench.cuda.call
    monkeypatch.setattr(
        bench.cuda, "call", lambda name, *rest: (asked.append((name, rest)), call(name, *rest))[1]
    )
    with flush:
        flush.run(0)
        assert [name for name, _ in asked] == ["rp_fill", "rp_read"]
        written, read = (rest for _, rest in asked)
        assert written[0].value != read[0].value
        assert written[2].value == read[1].value == 2 * bench.l2_bytes
        asked.clear()
        flush.run(1e9)
        assert len(asked) == timing.MOST_WRITES + 1


def test_events_that_measure_nothing_are_no_time(bench):
    events = SimpleNamespace(seconds_until=lambda end: 0.0)
    with pytest.raises(TimingError, match=r"are 0\.0 s apart around work; they must be more than 0 s"):
        timing._elapsed(events, events)


def test_what_a_call_holds_is_released(bench, flush):
    released = []

    def make_call(held: ExitStack):
        held.callback(released.append, 1)
        return lambda: None

    time_call(bench, flush, make_call, 10_000, EFFORT)
    assert len(released) == 15


@pytest.mark.parametrize("at", [0, 16 * 265_000 - 1])
def test_reading_reads_from_the_first_byte_to_the_last_and_writes_nothing(bench, at):
    # What is not zero shows in the word that is written for it; more vectors than the grid has threads.
    content = np.zeros(16 * 265_000, np.uint8)
    with bench.cuda.allocate(content) as memory, bench.cuda.allocate(np.zeros(1, np.uint32)) as word:
        arguments = (memory.pointer, ctypes.c_int64(content.nbytes), word.pointer)
        bench.cuda.call("rp_read", *arguments)
        assert word.to_host(1, np.uint32)[0] == 0
        content[at] = 1
        memory.upload(content)
        bench.cuda.call("rp_read", *arguments)
        assert word.to_host(1, np.uint32)[0] != 0
