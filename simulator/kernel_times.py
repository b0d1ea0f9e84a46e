"""How long a kernel call takes on a GPU: a roofline with a table's efficiencies, held to the shapes that it lists.

The roofline of an entry, with c the time of the call's padded FLOPs at the reached share of the GPU's peak, m that
of its bytes at the reached share of its memory's bandwidth, and p the entry's `blend`:

    b = launch + slowdown (c^p + m^p)^(1/p)

Where communication kernels hold SMs, c grows by the share that they hold, and `slowdown` is the table's for the
kernel beside communication; otherwise it is 1. The table's slowdowns are taken for any number of SMs up to half.

Listed shapes bind calls of their own variant alone: equal in all fields but sizes. A listed shape s took r_s times
its roofline on the device that the table was made on; here it takes t_s = r_s b(s).
Two things hold of any kernel: with every size smaller it takes no longer, and with one size f times larger it takes
at most f times as long, since it could be called f times. So every listed shape bounds a call's time from both sides,

    t_s prod min(1, x/s)  <=  t(x)  <=  t_s prod max(1, x/s)

with products over the sizes, x of the call and s of the shape, and t(x) is the roofline held within the tightest of
these bounds. It is exact at the listed shapes, never falls as a size grows, and has no steps. Outside the range of
the listed shapes in any size it is marked as extrapolated.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simulator.figures import HOWS, Duration, Efficiency, Figure, How, Slowdown
from simulator.units import BytesPerSecond, FlopPerSecond, Spec
from workloads.kernel_call import CallSequence, KernelCall
from workloads.kernel_calls import AnyKernelCall

Basis = Literal["tabulated", "scaled", "interpolated", "extrapolated", "roofline"]
BASES: Final[tuple[Basis, ...]] = ("tabulated", "scaled", "interpolated", "extrapolated", "roofline")
LEAST_SHARE_LEFT: Final = 0.5  # of the SMs: beside more communication no slowdown was ever fitted
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
        if sms is None:
            msg = (
                f"communication kernels hold {communication_sms} SMs of the {self.name}, and nobody says how many it "
                "has; write the node inline with its gpu's streaming_multiprocessors, or 0"
            )
            raise ValueError(msg)
        share = (sms - communication_sms) / sms
        if share < LEAST_SHARE_LEFT:
            msg = (
                f"communication kernels hold {communication_sms} of the {sms} SMs of the {self.name}; what kernels "
                f"lose beside them is known for at most half, {sms // 2}"
            )
            raise ValueError(msg)
        return share


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
    where the longer hides the shorter, None where it hides it wholly
    """

    tile_rows: int = Field(ge=1, le=1024)
    ramp_depth: float = Field(ge=0, le=1e6)
    blend: float | None = Field(ge=1, le=100)


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
    def _is_whole(self) -> "KernelCosts":
        calls = () if self.listed is None else (shape.call for shape in self.listed.shapes)
        if self.arithmetic is None and any(call.arithmetic for call in calls):
            msg = "listed calls have FLOPs, so that the entry needs the share of the arithmetic peak that is reached"
            raise ValueError(msg)
        if self.arithmetic is not None and self.effects is None:
            msg = "an entry with a share of the arithmetic peak needs `effects`: how shapes bear on it"
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
    """What a kernel runs beside: what share of the SMs communication leaves, and how much longer it takes."""

    share_left: float
    slowdown: float


_ALONE: Final = Beside(1.0, 1.0)
_ROUNDING: Final = 1e-5  # shares are written with six digits
_ROOFLINE: Final[Basis] = "roofline"


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What a call costs.

    how: how the figures that rule it were obtained, the weakest of them; basis: `tabulated` where this very call was
    measured on such a GPU, `scaled` where it was, but on another or alone; `interpolated` or `extrapolated` within or
    beyond the listed shapes of its variant; `roofline` where there are none
    """

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
        (1, 0.0, None) if effects is None else (effects.tile_rows, effects.ramp_depth, effects.blend)
    )
    arithmetic_s = 0.0
    if call.arithmetic is not None and costs.arithmetic is not None:
        peak_flop_per_s = device.peak_flop_per_s(call) * beside.share_left * costs.arithmetic.value
        arithmetic_s = call.padded_flops(tile_rows, ramp_depth) / peak_flop_per_s
    memory_s = call.moved_bytes / (device.memory_bandwidth * costs.bandwidth.value)
    blended_s = max(arithmetic_s, memory_s)
    if blend is not None:
        ratio = min(arithmetic_s, memory_s) / blended_s
        blended_s *= float(1.0 + ratio**blend) ** (1 / blend)
    return _Terms(
        costs.launch.value, arithmetic_s, memory_s, costs.launch.value + beside.slowdown * blended_s
    )


class _Bounds:
    """The listed shapes of one variant as arrays: what they took here, and what they allow a call to take."""

    def __init__(self, sizes: FloatArray, seconds: FloatArray) -> None:
        self.sizes, self.seconds = sizes, seconds

    def least_and_most(self, sizes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return [num_shapes] the least and the most seconds that each listed shape allows."""
        ratio = sizes / self.sizes
        return (
            self.seconds * np.minimum(1.0, ratio).prod(axis=1),
            self.seconds * np.maximum(1.0, ratio).prod(axis=1),
        )

    def hold(self, sizes: FloatArray, seconds: float) -> float:
        """Return a time held within what all listed shapes allow."""
        least, most = self.least_and_most(sizes)
        return min(max(seconds, float(least.max())), float(most.min()))

    def basis(self, sizes: FloatArray) -> Basis:
        """Return what a time with these sizes rests on."""
        if (self.sizes == sizes).all(axis=1).any():
            return "tabulated"
        within = (self.sizes.min(axis=0) <= sizes) & (sizes <= self.sizes.max(axis=0))
        return "interpolated" if within.all() else "extrapolated"


def contradiction(shapes: Sequence[Shape], made_on: Device) -> tuple[Shape, Shape] | None:
    """Return two listed shapes of one variant that cannot both be: see the module's text; None if all can."""
    by_variant: dict[Hashable, list[Shape]] = defaultdict(list)
    for shape in shapes:
        by_variant[shape.call.variant].append(shape)
    for alike in by_variant.values():
        sizes = np.array([shape.call.sizes for shape in alike], np.float64)
        bounds = _Bounds(sizes, np.array([shape.seconds_on(made_on) for shape in alike]))
        for shape, own, seconds in zip(alike, sizes, bounds.seconds, strict=True):
            least, most = bounds.least_and_most(own)
            wrong = np.flatnonzero((least > seconds * (1 + _ROUNDING)) | (most < seconds * (1 - _ROUNDING)))
            if len(wrong):
                return shape, alike[int(wrong[0])]
    return None


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
        self._bounds: dict[tuple[str, Hashable, Beside], _Bounds | None] = {}
        self._known: dict[tuple[KernelCall, int], KernelCost] = {}

    def cost(self, call: KernelCall, communication_sms: int = 0) -> KernelCost:
        """Return what a call, or a sequence, costs while communication kernels hold that many SMs, 0 for none.

        Raises LookupError, naming it, where the table lacks the kernel or its slowdown; ValueError where the GPU
        has too few SMs for that.
        """
        key = (call, communication_sms)
        if key not in self._known:
            if isinstance(call, CallSequence):
                self._known[key] = _sum_of([self.cost(part, communication_sms) for part in call.calls])
            else:
                self._known[key] = self._cost(call, communication_sms)
        return self._known[key]

    def _cost(self, call: KernelCall, communication_sms: int) -> KernelCost:
        name = named(call.cost_names, self._entries, "costs of the kernel")
        costs, slowdown = self._entries[name], self._slowdown(call, communication_sms)
        beside = Beside(self._here.share_left(communication_sms), 1.0 if slowdown is None else slowdown.value)
        terms = roofline(costs, call, self._here, beside)
        seconds, basis, figure = terms.total_s, _ROOFLINE, _ruling_figure(costs, terms)
        bounds = self._bounds_of(name, call, beside)
        if bounds is not None and costs.listed is not None:
            sizes = np.array(call.sizes, np.float64)
            seconds, basis = bounds.hold(sizes, terms.total_s), bounds.basis(sizes)
            if basis == "tabulated" or seconds != terms.total_s:
                figure = costs.listed
            if basis == "tabulated" and not self._is_as_measured(beside):
                basis = "scaled"
        hows = [figure.how] if slowdown is None else [figure.how, slowdown.how]
        return KernelCost(seconds, max(hows, key=HOWS.index), basis)

    def _bounds_of(self, name: str, call: KernelCall, beside: Beside) -> _Bounds | None:
        """Return the bounds that listed shapes of a call's variant set, None where there are none."""
        key = (name, call.variant, beside)
        if key not in self._bounds:
            costs, made_on = self._entries[name], self._made_on
            listed = () if costs.listed is None else costs.listed.shapes
            alike = [shape for shape in listed if shape.call.variant == call.variant]
            self._bounds[key] = None
            if alike and made_on is not None:
                seconds = [
                    shape.seconds_on(made_on)
                    / roofline(costs, shape.call, made_on, _ALONE).total_s
                    * roofline(costs, shape.call, self._here, beside).total_s
                    for shape in alike
                ]
                sizes = np.array([shape.call.sizes for shape in alike], np.float64)
                self._bounds[key] = _Bounds(sizes, np.array(seconds))
        return self._bounds[key]

    def _is_as_measured(self, beside: Beside) -> bool:
        """Return whether kernels run here as where the listed shapes were measured: such a device, alone."""
        peaks = {
            (device.peak_fp8, device.peak_bf16, device.memory_bandwidth)
            for device in (self._made_on, self._here)
            if device is not None
        }
        return beside == _ALONE and len(peaks) == 1

    def _slowdown(self, call: KernelCall, communication_sms: int) -> Slowdown | None:
        """Return what slows a call beside communication, None where no SMs are held."""
        if communication_sms == 0:
            return None
        return self._slowdowns[
            named(call.cost_names, self._slowdowns, "slowdown beside communication of the kernel")
        ]


def _sum_of(costs: Sequence[KernelCost]) -> KernelCost:
    """Return what calls cost together; how and basis are those with the most seconds."""
    seconds: dict[tuple[How, Basis], float] = {}
    for cost in costs:
        seconds[cost.how, cost.basis] = seconds.get((cost.how, cost.basis), 0.0) + cost.seconds
    how, basis = max(seconds, key=lambda key: seconds[key])
    return KernelCost(sum(seconds.values()), how, basis)


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
