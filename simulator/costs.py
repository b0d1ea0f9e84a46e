"""Cost tables: what links and kernels really reach, each figure with its source and how it was obtained.

A table is a JSON file. Its figures are shares of a device's own peak, or latencies; seconds are never copied
from one device to another. What a scenario needs and its table lacks is an error, never a silent default.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from simulator.pricing import Pricing
from simulator.units import Seconds, Spec
from workloads.tasks import CommunicationKernel

MAX_TABLE_BYTES = 4 * 2**20

Kernels = Sequence[CommunicationKernel]


class Figure(Spec):
    """How a constant was obtained.

    how: measured, published, fitted (to calibration figures only) or assumed; source: where it is from
    largest_residual: of a fitted constant, the largest share by which what it was fitted to is missed
    """

    how: Literal["measured", "published", "fitted", "assumed"]
    source: str
    largest_residual: float | None = None

    def describe(self) -> str:
        """Return how the constant was obtained and from what, as text."""
        missed = (
            ""
            if self.largest_residual is None
            else f", which it misses by {self.largest_residual:.1%} at most"
        )
        return f"{self.how}: {self.source}{missed}"


class Efficiency(Figure):
    """Share of a datasheet figure that payload reaches: more than 0, at most 1."""

    value: float

    def model_post_init(self, _context: Any) -> None:
        """Refuse values that no link can reach."""
        if not 0 < self.value <= 1:
            msg = f"an efficiency of {self.value} is not between 0 and 1"
            raise ValueError(msg)


class Latency(Figure):
    """End-to-end latency of a small message.

    same_leaf: through one switch; cross_leaf: through a leaf, a spine and a leaf, that is two switches more
    (absent where a profile has a single switch)
    """

    same_leaf: Seconds
    cross_leaf: Seconds | None = None

    @property
    def switch_s(self) -> float:
        """Return what each switch beyond the first adds: seconds."""
        return 0.0 if self.cross_leaf is None else (self.cross_leaf - self.same_leaf) / 2


class Duration(Figure):
    """A time that is paid once for something: 0 or more."""

    value: Seconds


class Slowdown(Figure):
    """How many times longer something takes: 1 or more."""

    value: float

    def model_post_init(self, _context: Any) -> None:
        """Refuse what would make it faster."""
        if not 1.0 <= self.value <= 1000.0:
            msg = f"a slowdown of {self.value} is not between 1 and 1000"
            raise ValueError(msg)


class CommunicationCosts(Spec):
    """What a communication kernel costs beside its bytes; see `simulator.pricing`.

    start_up: before bytes move; per_message: by link profile, for which a message keeps a port busy beside its bytes
    (0 for a profile that is left out)
    """

    start_up: Duration
    per_message: dict[Literal["nvlink", "infiniband", "roce"], Duration]


class CostTable(Spec):
    """A cost table: efficiencies and latencies of link profiles, and what communication kernels cost beside bytes.

    architectures: the GPUs that the table speaks for; empty for all
    link_efficiency, link_latency: by link profile (`nvlink`, `pcie`, `infiniband`, ...)
    communication: by kernel (`normal`, `low-latency`); codec: by codec that a kernel fuses (`logfmt`)
    beside_compute: of communication kernels while their ranks compute
    """

    name: str
    description: str
    architectures: tuple[str, ...]
    link_efficiency: dict[str, Efficiency]
    link_latency: dict[str, Latency]
    communication: dict[str, CommunicationCosts] = Field(default_factory=dict)
    codec: dict[str, Slowdown] = Field(default_factory=dict)
    beside_compute: Slowdown | None = None

    def check(self, architecture: str, profiles: frozenset[str]) -> None:
        """Raise ValueError, saying what is missing, unless the table serves this GPU and these link profiles."""
        if self.architectures and architecture not in self.architectures:
            msg = (
                f"the cost table {self.name!r} is for {', '.join(self.architectures)} GPUs, the cluster's are"
                f" {architecture}; `ideal` serves any GPU"
            )
            raise ValueError(msg)
        for profile in sorted(profiles):
            for what, known in (("efficiency", self.link_efficiency), ("latency", self.link_latency)):
                if profile not in known and not (what == "latency" and profile == "pcie"):
                    msg = (
                        f"the cost table {self.name!r} has no {what} for {profile} links"
                        f" (it has {', '.join(sorted(known)) or 'none'}); add it to a table of your own"
                    )
                    raise ValueError(msg)

    def check_kernel(self, kernel: CommunicationKernel) -> None:
        """Raise ValueError, saying which, if a constant that prices the kernel is missing."""
        missing = None
        if kernel.name not in self.communication:
            missing = f"costs of {kernel.name} communication kernels"
        elif kernel.codec and kernel.codec not in self.codec:
            missing = f"cost of the codec {kernel.codec}"
        elif kernel.beside_compute and self.beside_compute is None:
            missing = "slowdown of communication beside computation"
        if missing:
            msg = f"the cost table {self.name!r} has no {missing}; add it to a table of your own"
            raise ValueError(msg)

    def pricing(self, kernel: CommunicationKernel) -> Pricing:
        """Return what a communication kernel costs; KeyError where `check_kernel` finds one missing."""
        costs, slowdown = self.communication[kernel.name], 1.0
        if kernel.codec:
            slowdown *= self.codec[kernel.codec].value
        if kernel.beside_compute and self.beside_compute is not None:
            slowdown *= self.beside_compute.value
        return Pricing(
            start_up_s=costs.start_up.value,
            per_message_s={profile: gap.value for profile, gap in costs.per_message.items()},
            message_bytes=kernel.message_bytes,
            slowdown=slowdown,
            over_nics=kernel.over_nics,
        )

    def sources(self, profiles: frozenset[str], kernels: Kernels = ()) -> dict[str, str]:
        """Return where each figure for these link profiles and kernels comes from: its name -> `how: source`."""
        figures: dict[str, Figure] = {}
        for what, table in (("link_efficiency", self.link_efficiency), ("link_latency", self.link_latency)):
            figures |= {
                f"{what}.{profile}": table[profile] for profile in sorted(profiles) if profile in table
            }
        for kernel in kernels:
            costs, name = self.communication[kernel.name], f"communication.{kernel.name}"
            figures[f"{name}.start_up"] = costs.start_up
            figures |= {
                f"{name}.per_message.{profile}": gap
                for profile, gap in sorted(costs.per_message.items())
                if profile in profiles
            }
            if kernel.codec:
                figures[f"codec.{kernel.codec}"] = self.codec[kernel.codec]
            if kernel.beside_compute and self.beside_compute is not None:
                figures["beside_compute"] = self.beside_compute
        return {name: figure.describe() for name, figure in figures.items()}


def catalogue() -> tuple[str, ...]:
    """Return the names of the cost tables that ship with railplane."""
    folder = files("simulator") / "kernel_costs"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".json")))


def load_cost_table(name_or_path: str, folder: Path) -> CostTable:
    """Return the table of the catalogue, or of a JSON file whose path is relative to `folder`.

    Raises ValueError, naming the table and what is wrong, for anything but a sound table.
    """
    if name_or_path in catalogue():
        text = (files("simulator") / "kernel_costs" / f"{name_or_path}.json").read_text("utf-8")
        return _parse(text, name_or_path)
    path = folder / name_or_path
    if path.suffix != ".json":
        msg = f"unknown cost table {name_or_path!r}; known are {', '.join(catalogue())}, or the path of a .json file"
        raise ValueError(msg)
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            msg = f"the cost table {name_or_path!r} is larger than {MAX_TABLE_BYTES} bytes"
            raise ValueError(msg)
        return _parse(path.read_text("utf-8"), name_or_path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"the cost table {name_or_path!r} cannot be read: {reason}"
        raise ValueError(msg) from error


def _parse(text: str, name: str) -> CostTable:
    """Return the table that a JSON text holds."""
    try:
        return CostTable.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"the cost table {name!r} is broken{f' at {where}' if where else ''}: {first['msg']}"
        raise ValueError(msg) from error
    except (json.JSONDecodeError, RecursionError) as error:
        msg = f"the cost table {name!r} is not JSON: {error}"
        raise ValueError(msg) from error
