"""How long a call takes on the device, in a cold cache, by device events.

What is timed is queued behind writes of a buffer of twice the L2 cache, and the reading of another. They throw out of
the cache what earlier calls left there, and keep the device at work while the host queues the launches, so that
neither warm data nor the host's speed is in the times. The reading comes last: it leaves lines that need not be
written back, which would take the bandwidth of what is timed. Before the first repetition each row of calls runs
once, for all that a first time costs.

What a call writes is still in the L2 cache when the end's event is recorded, up to the cache's size, and nobody has
paid the memory for it. So a call is timed as one of a batch whose bytes together are at least 16 times the cache:
all of it is paid for but what the last calls left there, a sixteenth of the bytes at most, and far less of a large
copy. A call of so many bytes is timed alone. Events are good to about half a microsecond, so that calls of less than
50 us come in batches of 32 at least. A batch has no more than 256 launches, for which CUDA's queue has room while the
device is kept at work. A call so small that they are not 16 times the cache takes its launch rather than its bytes:
256 of them take 0.5 ms at least, of which a cache to be written back, unpaid, would be 12 us.

A batch goes over several sets of inputs and outputs, none of which it touches twice unless together they are larger
than twice the cache.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import ceil
from time import perf_counter
from types import TracebackType
from typing import Final, NamedTuple, Self

from simulator.calibration.gpu.cuda_library import Event, Library
from simulator.calibration.gpu.kernel import Bench, Call

ALONE_FROM_S: Final = 50e-6
BATCH_CALLS: Final = 32
PAID_OVER_L2: Final = 16
FLUSH_OVER_L2: Final = 2
NEVER_WRITTEN_BYTES: Final = 4
# The device is kept busy for this many times as long as the host needed to queue the launches when it last did.
STALL_MARGIN: Final = 2.0
# CUDA's queue holds about a thousand launches, those of a batch among them; beyond, the host waits.
MOST_WRITES: Final = 256


class Effort(NamedTuple):
    """How much time a shape may take.

    repetitions: at most; fewer where they would take longer than `seconds`, never less than `least`
    launches: of a batch at most
    """

    repetitions: int
    least: int
    seconds: float
    launches: int = 256


FULL: Final = Effort(repetitions=30, least=5, seconds=0.25)
QUICK: Final = Effort(repetitions=10, least=3, seconds=0.05)


class Timing(NamedTuple):
    """Seconds of one call in each repetition, and how they were taken."""

    method: str
    times_s: tuple[float, ...]


class TimingError(RuntimeError):
    """The device's events measured no time."""


class Flush:
    """Two buffers twice the L2 cache: writing one keeps the device at work, reading the other empties the cache."""

    def __init__(self, bench: Bench) -> None:
        self._library = bench.cuda
        with ExitStack() as held:
            size_bytes = FLUSH_OVER_L2 * bench.l2_bytes
            self._written = held.enter_context(self._library.allocate(size_bytes))
            self._read = held.enter_context(self._library.allocate(size_bytes))
            self._never_written = held.enter_context(self._library.allocate(NEVER_WRITTEN_BYTES))
            self._read.fill(0)
            self._write_s = self._time_of_writing()
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def run(self, at_least_s: float) -> None:
        """Queue writes that take the device this long, one of them at least, and the reading."""
        for _ in range(min(MOST_WRITES, max(1, ceil(at_least_s / self._write_s)))):
            self._written.fill(0)
        size = ctypes.c_int64(self._read.size_bytes)
        self._library.call("rp_read", self._read.pointer, size, self._never_written.pointer)

    def _time_of_writing(self) -> float:
        self._written.fill(0)
        with self._library.event() as start, self._library.event() as end:
            start.record()
            self._written.fill(0)
            end.record()
            return _elapsed(start, end)


def time_call(
    bench: Bench, flush: Flush, make_call: Callable[[ExitStack], Call], set_bytes: int, effort: Effort
) -> Timing:
    """Return the times of a call.

    make_call: returns a call on inputs and outputs of its own, which it hands to the stack to release
    set_bytes: of the inputs and outputs of one call
    """
    with ExitStack() as held:
        call = make_call(held)
        call()
        bench.cuda.synchronise()
        timer = Timer(bench.cuda, flush)
        alone_s = min(timer.seconds_of([call]) for _ in range(3))
        launches = _launches(set_bytes, bench.l2_bytes, alone_s, effort)
        if launches == 1:
            return Timing("single launches, L2 flushed before each", timer.repeat([call], effort))
        num_sets = min(launches, ceil(FLUSH_OVER_L2 * bench.l2_bytes / set_bytes) + 1)
        calls = [call, *(make_call(held) for _ in range(num_sets - 1))]
        batch = [calls[index % num_sets] for index in range(launches)]
        method = (
            f"batches of {launches} launches over {num_sets} sets of inputs, L2 flushed before each batch"
        )
        return Timing(method, timer.repeat(batch, effort))


def _launches(set_bytes: int, l2_bytes: int, alone_s: float, effort: Effort) -> int:
    """Return the launches of a batch: enough to pay for what is written, and for the events to tell their time."""
    paying = ceil(PAID_OVER_L2 * l2_bytes / set_bytes)
    return min(effort.launches, max(paying, BATCH_CALLS if alone_s < ALONE_FROM_S else 1))


class Timer:
    """Times rows of calls, and learns how long the host takes to queue them."""

    def __init__(self, library: Library, flush: Flush) -> None:
        self._library = library
        self._flush = flush
        self._host_s_per_call = 0.0

    def repeat(self, calls: Sequence[Call], effort: Effort) -> tuple[float, ...]:
        """Return the seconds of a call in each of several repetitions of the row."""
        row_s = self.seconds_of(calls)
        repetitions = max(effort.least, min(effort.repetitions, int(effort.seconds / row_s)))
        return tuple(self.seconds_of(calls) / len(calls) for _ in range(repetitions))

    def seconds_of(self, calls: Sequence[Call]) -> float:
        """Return the seconds from the first call's start to the last one's end."""
        with self._library.event() as start, self._library.event() as end:
            self._flush.run(STALL_MARGIN * self._host_s_per_call * len(calls))
            start.record()
            queued_from = perf_counter()
            for call in calls:
                call()
            self._host_s_per_call = (perf_counter() - queued_from) / len(calls)
            end.record()
            return _elapsed(start, end)


def _elapsed(start: Event, end: Event) -> float:
    elapsed_s = start.seconds_until(end)
    if not elapsed_s > 0:
        raise TimingError(
            f"the device's events are {elapsed_s} s apart around work; they must be more than 0 s"
        )
    return elapsed_s
