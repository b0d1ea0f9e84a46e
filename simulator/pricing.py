"""What a communication kernel costs beside its bytes, as the network charges it.

A message keeps the ports of its GPUs busy for longer than its bytes take: a port of capacity C that needs g seconds
more for each message of s bytes carries s bytes in s / C + g. That is the gap of the LogGP model (Alexandrov et al.,
SPAA 1995), and makes bandwidth depend on message size: half of it is reached at s = g C. A kernel that is slowed, by
a codec that it fuses or by computation beside it, keeps ports busy for so many times longer. Bytes that pass are
neither more nor less for it.

Ports are a GPU's NVLink cables and its NIC's cables. Cables between switches are charged what passes them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from workloads.tasks import Collective, CommunicationKernel

_NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pricing:
    """What one kernel costs.

    start_up_s: seconds that each transfer waits before its bytes move, for ranks that still compute too
    per_message_s: by cable profile, seconds for which a message keeps a port busy beside its bytes
    message_bytes: bytes of a message; slowdown: how many times longer ports are busy, 1 or more
    over_nics: whether transfers between GPUs of one node cross the network
    from_host: whether bytes come out of the memory of their destination's host, wherever their source is
    """

    start_up_s: float = 0.0
    per_message_s: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    message_bytes: float = 1.0
    slowdown: float = 1.0
    over_nics: bool = False
    from_host: bool = False

    @property
    def is_free(self) -> bool:
        """Return whether ports are charged what passes them."""
        return self.slowdown == 1.0 and not any(self.per_message_s.values())

    def charge(self, profile: str, port_bytes_per_s: float) -> float:
        """Return the bytes that a port of this capacity is charged for each that passes it."""
        gap_bytes = self.per_message_s.get(profile, 0.0) * port_bytes_per_s
        return self.slowdown * (1.0 + gap_bytes / self.message_bytes)


FREE: Final = Pricing()
_FROM_HOST: Final = Pricing(from_host=True)


def pricing_of(collective: Collective, price: Callable[[CommunicationKernel], Pricing]) -> Pricing:
    """Return what a collective's kernel costs; copies out of a host's memory have none, and cost links' time."""
    if collective.from_host:
        return _FROM_HOST
    return FREE if collective.kernel is None else price(collective.kernel)
