"""Cost tables: what links and kernels really reach, each figure with its source and how it was obtained.

A table is a JSON file. Its figures are shares of a device's own peak, or latencies; seconds are never copied
from one device to another. What a scenario needs and its table lacks is an error, never a silent default.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from simulator.figures import Duration, Efficiency, Figure, Latency, Slowdown
from simulator.kernel_times import Device, KernelCosts, KernelTimes, Shape, contradiction, named
from simulator.pricing import Pricing
from simulator.units import Spec
from topologies.node import GpuSpec
from workloads.kernel_call import calls_of
from workloads.kernel_calls import CALL_KINDS, KERNEL_NAMES, STREAMING_NAMES
from workloads.tasks import CommunicationKernel, ComputeKernel

MAX_TABLE_BYTES = 4 * 2**20

CommunicationKernels = Sequence[CommunicationKernel]
ComputeKernels = Iterable[ComputeKernel]


class CommunicationCosts(Spec):
    """What a communication kernel costs beside its bytes; see `simulator.pricing`.

    start_up: before bytes move; per_message: by link profile, for which a message keeps a port busy beside its bytes
    (0 for a profile that is left out)
    wait_beside_compute: beyond the start-up, before bytes move, while the ranks compute: for ranks that are not there
    yet (None: nothing is waited for)
    """

    start_up: Duration
    per_message: dict[Literal["nvlink", "infiniband", "roce"], Duration]
    wait_beside_compute: Duration | None = None


class BesideCompute(Spec):
    """How many times longer communication kernels keep ports busy while their ranks compute."""

    dispatch: Slowdown
    combine: Slowdown

    def of(self, kernel: CommunicationKernel) -> tuple[str, Slowdown]:
        """Return the name and the slowdown of the part that a kernel has."""
        return ("combine", self.combine) if kernel.combines else ("dispatch", self.dispatch)


class CostTable(Spec):
    """A cost table: efficiencies and latencies of link profiles, and what communication kernels cost beside bytes.

    architectures: the GPUs that the table speaks for; empty for all
    link_efficiency, link_latency: by link profile (`nvlink`, `pcie`, `infiniband`, ...)
    communication: by kernel (`normal`, `low-latency`); codec: by codec that a kernel fuses (`logfmt`)
    beside_compute: of communication kernels while their ranks compute
    device: the GPU on which the shapes that `kernels` lists were measured; method, date: how and when
    kernels: by kind of kernel call, `streaming` for all that only move bytes and are not listed themselves
    beside_communication: of kernels, by kind, while communication kernels hold SMs of their GPU
    not_measured: why the table cannot be used yet, and what to do
    """

    name: str
    description: str
    architectures: tuple[str, ...]
    link_efficiency: dict[str, Efficiency]
    link_latency: dict[str, Latency]
    communication: dict[str, CommunicationCosts] = Field(default_factory=dict)
    codec: dict[str, Slowdown] = Field(default_factory=dict)
    beside_compute: BesideCompute | None = None
    device: Device | None = None
    method: str = ""
    date: str = ""
    kernels: dict[str, KernelCosts] = Field(default_factory=dict)
    beside_communication: dict[str, Slowdown] = Field(default_factory=dict)
    not_measured: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> "CostTable":
        """Refuse names that no kernel call has, and listed shapes of a device that is not told."""
        for name in [*self.kernels, *self.beside_communication]:
            if name not in KERNEL_NAMES:
                msg = f"unknown kernel {name!r}; known are {', '.join(KERNEL_NAMES)}"
                raise ValueError(msg)
        for name, costs in self.kernels.items():
            listed = () if costs.listed is None else costs.listed.shapes
            if listed and self.device is None:
                msg = f"kernels.{name} lists shapes, so that the table needs the `device` where they were measured"
                raise ValueError(msg)
            for shape in listed:
                if name != shape.call.cost_names[0]:
                    msg = f"kernels.{name} lists a shape of the kernel {shape.call.cost_names[0]!r}"
                    raise ValueError(msg)
            if self.device is not None:
                check_listed(name, listed, self.device)
            if costs.arithmetic is None and name not in STREAMING_NAMES:
                msg = f"kernels.{name} computes, and needs the share of the arithmetic peak that it reaches"
                raise ValueError(msg)
        return self

    def check(self, architecture: str, profiles: frozenset[str]) -> None:
        """Raise ValueError, saying what is missing, unless the table serves this GPU and these link profiles."""
        if self.architectures and architecture not in self.architectures:
            msg = (
                f"the cost table {self.name!r} is for {', '.join(self.architectures)} GPUs, the cluster's are"
                f" {architecture}; `roofline` and `ideal` serve any GPU"
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

    def check_compute(self, kernels: ComputeKernels, gpu: GpuSpec) -> None:
        """Raise ValueError, saying what is missing, unless the table prices the kernels on this GPU."""
        times = self.kernel_times(gpu)
        try:
            for kernel in kernels:
                times.cost(kernel.call, kernel.communication_sms)
        except LookupError as error:
            msg = f"the cost table {self.name!r} has {error.args[0]}; add it to a table of your own"
            raise ValueError(msg) from error

    def kernel_times(self, gpu: GpuSpec) -> KernelTimes:
        """Return what kernels cost on a GPU: its own peaks, by the table's shares of them."""
        return KernelTimes(self.kernels, self.beside_communication, self.device, device_of(gpu))

    def pricing(self, kernel: CommunicationKernel) -> Pricing:
        """Return what a communication kernel costs; KeyError where `check_kernel` finds one missing."""
        costs, slowdown = self.communication[kernel.name], 1.0
        start_up_s = costs.start_up.value
        if kernel.codec:
            slowdown *= self.codec[kernel.codec].value
        if kernel.beside_compute and self.beside_compute is not None:
            slowdown *= self.beside_compute.of(kernel)[1].value
        if kernel.beside_compute and costs.wait_beside_compute is not None:
            start_up_s += costs.wait_beside_compute.value
        return Pricing(
            start_up_s=start_up_s,
            per_message_s={profile: gap.value for profile, gap in costs.per_message.items()},
            message_bytes=kernel.message_bytes,
            slowdown=slowdown,
            over_nics=kernel.over_nics,
        )

    def sources(
        self, profiles: frozenset[str], kernels: CommunicationKernels = (), compute: ComputeKernels = ()
    ) -> dict[str, str]:
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
                part, figure = self.beside_compute.of(kernel)
                figures[f"beside_compute.{part}"] = figure
            if kernel.beside_compute and costs.wait_beside_compute is not None:
                figures[f"{name}.wait_beside_compute"] = costs.wait_beside_compute
        for used in compute:
            figures |= self._figures_of(used)
        return {name: figure.describe() for name, figure in figures.items()}

    def _figures_of(self, kernel: ComputeKernel) -> dict[str, Figure]:
        """Return the figures that price a kernel, by name."""
        figures: dict[str, Figure] = {}
        for names in dict.fromkeys(call.cost_names for call in calls_of(kernel.call)):
            name = named(names, self.kernels, "costs of the kernel")
            figures |= {
                f"kernels.{name}.{part}": figure for part, figure in self.kernels[name].figures().items()
            }
            if kernel.communication_sms:
                name = named(names, self.beside_communication, "slowdown")
                figures[f"beside_communication.{name}"] = self.beside_communication[name]
        return figures


def check_listed(name: str, shapes: Sequence[Shape], made_on: Device) -> None:
    """Raise ValueError for listed shapes that cannot be: listed twice, beyond a peak, or against each other."""
    known: set[object] = set()
    for shape in shapes:
        if shape.call in known:
            msg = f"kernels.{name} lists {shape.call.label} twice"
            raise ValueError(msg)
        known.add(shape.call)
        bytes_per_s = shape.call.moved_bytes / shape.seconds_on(made_on)
        if bytes_per_s > made_on.memory_bandwidth * (1 + 1e-9):
            msg = (
                f"kernels.{name} lists {shape.call.label} with a share of {shape.share:g}, at which it would move "
                f"{bytes_per_s:.3g} bytes/s, more than the {made_on.memory_bandwidth:.3g} of the {made_on.name}"
            )
            raise ValueError(msg)
    wrong = contradiction(shapes, made_on)
    if wrong is not None:
        one, other = (f"{shape.call.label} ({shape.share:g})" for shape in wrong)
        msg = (
            f"kernels.{name} lists {one} and {other}, which cannot both be: a larger call takes no less time, and "
            "one with a size f times larger at most f times as long"
        )
        raise ValueError(msg)


def check_sms_left(kernels: ComputeKernels, gpu: GpuSpec) -> None:
    """Raise ValueError if a kernel is left no SMs by communication beside it, or it is not known how many."""
    for communication_sms in {kernel.communication_sms for kernel in kernels}:
        device_of(gpu).share_left(communication_sms)


def device_of(gpu: GpuSpec) -> Device:
    """Return the peaks of a node's GPU."""
    return Device.model_construct(
        name=gpu.name,
        peak_fp8=gpu.peak_fp8,
        peak_bf16=gpu.peak_bf16,
        memory_bandwidth=gpu.memory_bandwidth,
        streaming_multiprocessors=gpu.streaming_multiprocessors,
    )


@cache
def catalogue() -> tuple[str, ...]:
    """Return the names of the cost tables that ship with railplane and are measured."""
    return tuple(name for name in _shipped() if not json.loads(_text_of(name)).get("not_measured"))


@cache
def _shipped() -> tuple[str, ...]:
    folder = files("simulator") / "kernel_costs"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".json")))


def _text_of(name: str) -> str:
    return (files("simulator") / "kernel_costs" / f"{name}.json").read_text("utf-8")


def load_cost_table(name_or_path: str, folder: Path) -> CostTable:
    """Return the table of the catalogue, or of a JSON file whose path is relative to `folder`.

    Raises ValueError, naming the table and what is wrong, for anything but a sound table.
    """
    if name_or_path in _shipped():
        return _parse(_text_of(name_or_path), name_or_path)
    path = folder / name_or_path
    if path.suffix != ".json":
        msg = f"unknown cost table {name_or_path!r}; known are {', '.join(catalogue())}, or the path of a .json file"
        raise ValueError(msg)
    try:
        if path.exists() and not path.is_file():
            msg = f"the cost table {name_or_path!r} is no regular file"
            raise ValueError(msg)
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
        json.loads(text, object_pairs_hook=_without_duplicates)
        table = CostTable.model_validate_json(text)
    except ValidationError as error:
        msg = f"the cost table {name!r} is broken{_fault(error.errors(include_url=False)[0])}"
        raise ValueError(msg) from error
    except (json.JSONDecodeError, RecursionError) as error:
        msg = f"the cost table {name!r} is not JSON: {error}"
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"the cost table {name!r} is broken: {error}"
        raise ValueError(msg) from error
    if table.not_measured:
        msg = f"the cost table {name!r} is not measured yet: {table.not_measured}"
        raise ValueError(msg)
    return table


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object's members; ValueError, naming it, for a name that comes twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"{twice!r} comes twice in one object"
        raise ValueError(msg)
    return members


def _fault(fault: ErrorDetails) -> str:
    """Return where a table is broken and what is wrong there, as people say it."""
    parts = fault["loc"]
    # behind `call` pydantic names the kind, which is no part of the path in the file
    path = ".".join(str(part) for before, part in zip(("", *parts), parts, strict=False) if before != "call")
    match fault["type"]:
        case "missing":
            wrong = "is missing"
        case "extra_forbidden":
            wrong = "is an unknown field"
        case "union_tag_not_found":
            wrong = f"has no kind; known are {', '.join(CALL_KINDS)}"
        case "union_tag_invalid":
            wrong = f"has an unknown kind; known are {', '.join(CALL_KINDS)}"
        case _:
            wrong = fault["msg"].removeprefix("Value error, ")
    return f" at {path}: {wrong}" if path else f": {wrong}"
