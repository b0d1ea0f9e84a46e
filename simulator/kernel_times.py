"""How long a kernel call takes on a GPU: a roofline with a table's efficiencies, held to the shapes that it lists.

The roofline of an entry, with c the time of the call's padded FLOPs at the reached share of the GPU's peak, m that
of its bytes at the reached share of its memory's bandwidth, and p the entry's `blend`:

    b = launch + slowdown (c^p + m^p)^(1/p)

Where communication kernels hold SMs, c grows by the share that they hold, and `slowdown` is the table's for the
kernel beside communication; otherwise it is 1.

A listed shape s took r_s times its roofline on the device that the table was made on; here it takes t_s = r_s b(s).
Two things hold of any kernel: with every size smaller it takes no longer, and with one size f times larger it takes
at most f times as long, since it could be called f times. So every listed shape bounds a call's time from both sides,

    t_s prod min(1, x/s)  <=  t(x)  <=  t_s prod max(1, x/s)

with products over the sizes, x of the call and s of the shape, and t(x) is the roofline held within the tightest of
these bounds. It is exact at the listed shapes, never falls as a size grows, and has no steps. Outside the range of
the listed shapes in any size it is marked as extrapolated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simulator.figures import Duration, Efficiency, Figure, How, Slowdown
from simulator.units import BytesPerSecond, FlopPerSecond, Spec
from workloads.kernel_call import KernelCall
from workloads.kernel_calls import AnyKernelCall

Basis = Literal["tabulated", "interpolated", "extrapolated", "roofline"]
BASES: Final[tuple[Basis, ...]] = ("tabulated", "interpolated", "extrapolated", "roofline")
FloatArray = NDArray[np.float64]


class Device(Spec):
    """Peaks of a GPU: the one that a table was made on, or the one that is modelled."""

    name: str
    peak_fp8: FlopPerSecond
    peak_bf16: FlopPerSecond
    memory_bandwidth: BytesPerSecond
    streaming_multiprocessors: int | None = Field(default=None, ge=1)

    def peak_flop_per_s(self, call: KernelCall) -> float:
        """Return the arithmetic peak that bounds a call."""
        return self.peak_fp8 if call.arithmetic == "fp8" else self.peak_bf16

    def share_left(self, communication_sms: int) -> float:
        """Return the share of its SMs that is left to compute; ValueError where that cannot be known."""
        if communication_sms == 0:
            return 1.0
        sms = self.streaming_multiprocessors
        if sms is None or communication_sms >= sms:
            has = (
                "nobody says how many it has"
                if sms is None
                else f"it has {sms}, so that none is left to compute"
            )
            msg = f"communication kernels hold {communication_sms} SMs of the {self.name}, and {has}"
            raise ValueError(msg)
        return (sms - communication_sms) / sms


class Shape(Spec):
    """A call that was measured: the share of the device's peak that it reached.

    Of its arithmetic peak, or, for a call that only moves bytes, of its memory's bandwidth.
    """

    call: AnyKernelCall
    share: Annotated[float, Field(gt=0, le=1)]

    def seconds_on(self, device: Device) -> float:
        """Return what the call took on the device where it was measured."""
        if self.call.arithmetic is None:
            return self.call.moved_bytes / (self.share * device.memory_bandwidth)
        return self.call.flops / (self.share * device.peak_flop_per_s(self.call))


class ShapeEffects(Figure):
    """What shapes do to a roofline.

    tile_rows: height of the lowest tile, to which rows are padded; ramp_depth: how much deeper a product would be in
    which its tiles' first and last steps cost nothing; blend: p, 1 where arithmetic and memory take turns, large
    where the longer hides the shorter
    """

    tile_rows: int = Field(ge=1, le=1024)
    ramp_depth: float = Field(ge=0, le=1e6)
    blend: float = Field(ge=1, le=100)


class Listed(Figure):
    """Shapes that were measured, all in one way."""

    shapes: tuple[Shape, ...] = Field(min_length=1, strict=False)


class KernelCosts(Spec):
    """A cost table's entry for a kind of kernel.

    launch: from the launch to the first byte, and back; arithmetic: share of the peak, none for kernels that only
    move bytes; bandwidth: share of the memory's; effects: none where shapes do nothing; listed: shapes measured
    """

    launch: Duration
    arithmetic: Efficiency | None = None
    bandwidth: Efficiency
    effects: ShapeEffects | None = None
    listed: Listed | None = None

    @model_validator(mode="after")
    def _has_arithmetic(self) -> "KernelCosts":
        calls = () if self.listed is None else (shape.call for shape in self.listed.shapes)
        if self.arithmetic is None and any(call.arithmetic for call in calls):
            msg = "listed calls have FLOPs, so that the entry needs the share of the arithmetic peak that is reached"
            raise ValueError(msg)
        return self

    def figures(self) -> dict[str, Figure]:
        """Return the entry's figures by name."""
        named = {
            "launch": self.launch,
            "arithmetic": self.arithmetic,
            "bandwidth": self.bandwidth,
            "effects": self.effects,
            "listed": self.listed,
        }
        return {name: figure for name, figure in named.items() if figure is not None}


class Beside(NamedTuple):
    """What a kernel runs beside: SMs that communication holds, what share is left, and how much longer it takes."""

    share_left: float
    slowdown: float


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What a call costs: seconds; how the figure that rules it was obtained; and what it rests on."""

    seconds: float
    how: How
    basis: Basis


class _Terms(NamedTuple):
    """The parts of a roofline in seconds: launch, arithmetic, memory; and their total."""

    launch_s: float
    arithmetic_s: float
    memory_s: float
    total_s: float


def roofline(costs: KernelCosts, call: KernelCall, device: Device, beside: Beside) -> _Terms:
    """Return the roofline of a call on a device; see the module's text. The entry must suit the call."""
    effects = costs.effects
    tile_rows, ramp_depth, blend = (
        (1, 0.0, 1.0) if effects is None else (effects.tile_rows, effects.ramp_depth, effects.blend)
    )
    arithmetic_s = 0.0
    if call.arithmetic is not None and costs.arithmetic is not None:
        peak_flop_per_s = device.peak_flop_per_s(call) * beside.share_left * costs.arithmetic.value
        arithmetic_s = call.padded_flops(tile_rows, ramp_depth) / peak_flop_per_s
    memory_s = call.moved_bytes / (device.memory_bandwidth * costs.bandwidth.value)
    longest_s = max(arithmetic_s, memory_s)
    blended_s = longest_s * float((arithmetic_s / longest_s) ** blend + (memory_s / longest_s) ** blend) ** (
        1 / blend
    )
    return _Terms(
        costs.launch.value, arithmetic_s, memory_s, costs.launch.value + beside.slowdown * blended_s
    )


class _Bounds:
    """The listed shapes of an entry as arrays: what they took here, and what they allow a call to take."""

    def __init__(
        self, costs: KernelCosts, listed: Listed, made_on: Device, here: Device, beside: Beside
    ) -> None:
        alone = Beside(1.0, 1.0)
        self.sizes = np.array([shape.call.sizes for shape in listed.shapes], np.float64)
        self.seconds = np.array(
            [
                shape.seconds_on(made_on)
                / roofline(costs, shape.call, made_on, alone).total_s
                * roofline(costs, shape.call, here, beside).total_s
                for shape in listed.shapes
            ]
        )

    def hold(self, sizes: FloatArray, seconds: float) -> float:
        """Return a time held within what the listed shapes allow."""
        ratio = sizes / self.sizes
        least = float((self.seconds * np.minimum(1.0, ratio).prod(axis=1)).max())
        most = float((self.seconds * np.maximum(1.0, ratio).prod(axis=1)).min())
        return min(max(seconds, least), most)

    def basis(self, sizes: FloatArray) -> Basis:
        """Return what a time with these sizes rests on."""
        if (self.sizes == sizes).all(axis=1).any():
            return "tabulated"
        within = (self.sizes.min(axis=0) <= sizes) & (sizes <= self.sizes.max(axis=0))
        return "interpolated" if within.all() else "extrapolated"


class KernelTimes:
    """A cost table's kernels on one GPU."""

    def __init__(
        self,
        entries: Mapping[str, KernelCosts],
        beside_communication: Mapping[str, Slowdown],
        made_on: Device | None,
        here: Device,
    ) -> None:
        """Take the entries by name, the slowdowns beside communication by name, and the two devices.

        made_on: where the listed shapes were measured; None where there are none
        """
        self._entries, self._slowdowns = entries, beside_communication
        self._made_on, self._here = made_on, here
        self._bounds: dict[tuple[str, Beside], _Bounds] = {}
        self._known: dict[tuple[KernelCall, int], KernelCost] = {}

    def cost(self, call: KernelCall, communication_sms: int = 0) -> KernelCost:
        """Return what a call costs while communication kernels hold that many SMs, 0 where none do.

        Raises LookupError, naming it, where the table lacks the kernel or its slowdown; ValueError where the GPU
        does not have so many SMs.
        """
        key = (call, communication_sms)
        if key not in self._known:
            self._known[key] = self._cost(call, communication_sms)
        return self._known[key]

    def _cost(self, call: KernelCall, communication_sms: int) -> KernelCost:
        name = named(call.cost_names, self._entries, "costs of the kernel")
        costs = self._entries[name]
        beside = self._beside(call, communication_sms)
        terms = roofline(costs, call, self._here, beside)
        figure = _ruling_figure(costs, terms)
        if costs.listed is None or self._made_on is None:
            return KernelCost(terms.total_s, figure.how, "roofline")
        if (name, beside) not in self._bounds:
            self._bounds[name, beside] = _Bounds(costs, costs.listed, self._made_on, self._here, beside)
        bounds, sizes = self._bounds[name, beside], np.array(call.sizes, np.float64)
        basis = bounds.basis(sizes)
        how = costs.listed.how if basis == "tabulated" else figure.how
        return KernelCost(bounds.hold(sizes, terms.total_s), how, basis)

    def _beside(self, call: KernelCall, communication_sms: int) -> Beside:
        """Return what a call runs beside."""
        if communication_sms == 0:
            return Beside(1.0, 1.0)
        name = named(call.cost_names, self._slowdowns, "slowdown beside communication of the kernel")
        return Beside(self._here.share_left(communication_sms), self._slowdowns[name].value)


def named(cost_names: tuple[str, ...], table: Mapping[str, object], what: str) -> str:
    """Return the first of the names that a table has; LookupError, saying what it lacks, if it has none."""
    for name in cost_names:
        if name in table:
            return name
    msg = f"no {what} {cost_names[0]!r} (it has {', '.join(sorted(table)) or 'none'})"
    raise LookupError(msg)


def _ruling_figure(costs: KernelCosts, terms: _Terms) -> Figure:
    """Return the figure behind the longest part of a roofline."""
    parts: list[tuple[float, Figure]] = [(terms.launch_s, costs.launch), (terms.memory_s, costs.bandwidth)]
    if costs.arithmetic is not None:
        parts.append((terms.arithmetic_s, costs.arithmetic))
    return max(parts, key=lambda part: part[0])[1]
