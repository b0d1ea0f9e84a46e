"""What a format cannot say, and what the user has accepted to lose or to have changed."""

from collections.abc import Collection
from typing import Final


class NotSayableError(ValueError):
    """A format cannot say what a scenario has."""


# What may be accepted, by name -> what it means for the file.
ACCEPTANCES: Final[dict[str, str]] = {
    "store-and-forward": "a relay hands a message on once it has all of it, not as it arrives",
    "own-pace": "ranks that run in lockstep each go on by themselves",
    "weights": "flows share links alike, whatever their weights",
    "kernel-costs": "messages cost nothing beside their bytes: gaps between the messages of communication kernels, "
    "their codecs and slowdowns are left out",
    "network-only": "hosts are NICs: NVLink, PCIe and bytes that stay within a node are left out, and so is what a "
    "relay waits for",
    "start-times": "flows start when railplane's own run starts them, not when what they depend on has ended",
    "routing": "each flow takes one of the shortest paths, chosen by a hash",
    "bundled-cables": "parallel cables are one link of their summed rate",
    "rounds": "a transfer that pays its latency several times pays it once",
    "empty-flows": "flows of no bytes are left out",
}


class Acceptance:
    """Collects what a file cannot say, and raises at the end unless all of it has been accepted.

    accepted: names of ACCEPTANCES
    """

    def __init__(self, name_of_format: str, accepted: Collection[str]) -> None:
        self._format, self._accepted = name_of_format, accepted
        self._found: dict[str, str] = {}

    def needs(self, name: str, because: str) -> None:
        """Note that a part of ACCEPTANCES is lost or changed, and what of the scenario it concerns."""
        self._found.setdefault(name, because)

    def refuse(self, because: str) -> None:
        """Raise NotSayableError: no acceptance would help."""
        msg = f"{self._format} cannot say this: {because}"
        raise NotSayableError(msg)

    def check(self) -> None:
        """Raise NotSayableError unless all that was noted is accepted."""
        missing = [name for name in self._found if name not in self._accepted]
        if missing:
            said = "; ".join(f"{name} ({self._found[name]}: {ACCEPTANCES[name]})" for name in missing)
            options = " ".join(f"--accept {name}" for name in missing)
            msg = f"{self._format} cannot say all of this; accept it with {options}: {said}"
            raise NotSayableError(msg)

    def lines(self) -> list[str]:
        """Return what was accepted and concerns the scenario, as sentences for the file beside the text."""
        return [f"`{name}`: {because}: {ACCEPTANCES[name]}." for name, because in self._found.items()]
