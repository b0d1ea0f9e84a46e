"""What a GPU must hold, part by part, and whether it has room for it."""

from dataclasses import dataclass, fields
from typing import Final

from simulator.units import FieldError, show_quantity

_SMALLER_SHARES: Final = "divide the model over more ranks or use smaller micro-batches"


@dataclass(frozen=True, slots=True)
class PartsInBytes:
    """Bytes of GPU memory by part: every field of a subclass is a part."""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(size for _, size in self.items())

    def items(self) -> tuple[tuple[str, int], ...]:
        """Return (part, bytes) in the order of the fields."""
        return tuple((field.name, getattr(self, field.name)) for field in fields(self))

    def rows(self) -> list[dict[str, str | int]]:
        """Return a mapping for each part, with the same keys in each: the rows of a table."""
        return [{"part": part.replace("_", " "), "size_bytes": size} for part, size in self.items()]


def check_memory(
    parts: PartsInBytes,
    gpu_memory_bytes: float,
    whose: str = "a GPU",
    remedy: str = _SMALLER_SHARES,
    field: str = "ignore_memory",
) -> None:
    """Raise FieldError with all amounts where a rank needs more than its GPU has.

    whose: names the GPU; remedy: what would help; field: to blame
    """
    if parts.total <= gpu_memory_bytes:
        return
    amounts = ", ".join(
        f"{part.replace('_', ' ')} {show_quantity(size, 'bytes')}" for part, size in parts.items()
    )
    msg = (
        f"{whose} needs {show_quantity(parts.total, 'bytes')} and has {show_quantity(gpu_memory_bytes, 'bytes')}: "
        f"{amounts}; {remedy}, or write ignore_memory: true"
    )
    raise FieldError(field, msg)
