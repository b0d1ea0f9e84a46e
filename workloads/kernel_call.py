"""What everyone may know of a kernel call: the FLOPs and bytes that it takes, whatever its kind."""

from collections.abc import Hashable
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

    def padded_flops(self, tile_rows: int, ramp_depth: float) -> float:
        """Return the FLOPs that multiprocessors spend: tiles at least `tile_rows` high, `ramp_depth` deeper."""
