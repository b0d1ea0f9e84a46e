"""What everyone may know of a kernel call: the FLOPs and bytes that it takes, whatever its kind."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

Arithmetic = Literal["fp8", "bf16"]


class KernelCall(Hashable, Protocol):
    """One call of a kernel; the kinds are in `workloads.kernels` and `workloads.streaming_kernels`."""

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Under which names a cost table may list the call, the closest first."""

    @property
    def label(self) -> str:
        """What results call it: the kind and its sizes."""

    @property
    def arithmetic(self) -> Arithmetic | None:
        """Whose peak bounds it; None for a kernel that only moves bytes."""

    @property
    def flops(self) -> float:
        """The FLOPs that count, 2 for a multiply-add; 0 for a kernel that only moves bytes."""

    @property
    def moved_bytes(self) -> float:
        """The bytes that it reads from and writes to the GPU's memory, each operand once."""

    @property
    def sizes(self) -> tuple[float, ...]:
        """The sizes by which tables list the call; time never falls as one of them grows."""

    @property
    def variant(self) -> Hashable:
        """All that tells it from others but its sizes: calls of one variant differ in sizes alone."""

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:
        """Return the FLOPs that multiprocessors spend: tiles at least `tile_rows` high, `ramp_depth` deeper."""


@dataclass(frozen=True, slots=True)
class CallSequence:
    """Calls that follow each other without a gap, as one: priced call by call.

    name: what results call it
    """

    name: str
    calls: tuple[KernelCall, ...]

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Return its name: each of its calls has an entry of its own."""
        return (self.name,)

    @property
    def label(self) -> str:
        """Return its name."""
        return self.name

    @property
    def arithmetic(self) -> Arithmetic | None:
        """Return None: its calls may differ."""
        return None

    @property
    def flops(self) -> float:
        """Return the FLOPs of all calls."""
        return sum(call.flops for call in self.calls)

    @property
    def moved_bytes(self) -> float:
        """Return the bytes of all calls."""
        return sum(call.moved_bytes for call in self.calls)

    @property
    def sizes(self) -> tuple[float, ...]:
        """Return no sizes: no table lists it."""
        return ()

    @property
    def variant(self) -> Hashable:
        """Return the sequence itself: no table lists it."""
        return self

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:
        """Return those of all calls."""
        return sum(call.padded_flops(tile_rows, ramp_depth) for call in self.calls)


def calls_of(call: KernelCall) -> tuple[KernelCall, ...]:
    """Return the calls of a sequence, or the one call."""
    return call.calls if isinstance(call, CallSequence) else (call,)
