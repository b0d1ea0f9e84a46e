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

from simulator.document import Document, Place
from simulator.figures import Duration, Efficiency, Figure, Latency, Slowdown
from simulator.input_error import InputError
from simulator.json_places import parse_json
from simulator.kernel_times import Device, KernelCosts, KernelTimes, Shape, contradiction, named
from simulator.messages import did_you_mean, explain
from simulator.pricing import Pricing
from simulator.regular_file import read_regular, why
from simulator.units import FieldError, Spec
from topologies.node import GpuSpec
from workloads.kernel_call import calls_of
from workloads.kernel_calls import KERNEL_NAMES, STREAMING_NAMES
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
        for field, named_kernels in (
            ("kernels", self.kernels),
            ("beside_communication", self.beside_communication),
        ):
            for name in named_kernels:
                if name not in KERNEL_NAMES:
                    msg = f"unknown kernel {name!r}; {did_you_mean(name, KERNEL_NAMES)}"
                    raise FieldError(f"{field}.{name}", msg)
        for name, costs in self.kernels.items():
            listed = () if costs.listed is None else costs.listed.shapes
            if listed and self.device is None:
                msg = "shapes are listed, so that the table needs the `device` where they were measured"
                raise FieldError(f"kernels.{name}.listed", msg)
            for index, shape in enumerate(listed):
                if name != shape.call.cost_names[0]:
                    msg = f"this lists a shape of the kernel {shape.call.cost_names[0]!r}, not of {name!r}"
                    raise FieldError(f"kernels.{name}.listed.shapes.{index}", msg)
            if self.device is not None:
                check_listed(name, listed, self.device)
            if costs.arithmetic is None and name not in STREAMING_NAMES:
                msg = f"the kernel {name!r} computes, and needs `arithmetic`: the share of the peak that it reaches"
                raise FieldError(f"kernels.{name}", msg)
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
    """Raise FieldError for listed shapes that cannot be: listed twice, beyond a peak, or against each other."""
    field = f"kernels.{name}.listed.shapes"
    known: set[object] = set()
    for index, shape in enumerate(shapes):
        if shape.call in known:
            msg = f"{shape.call.label} is listed twice; keep one"
            raise FieldError(f"{field}.{index}", msg)
        known.add(shape.call)
        bytes_per_s = shape.call.moved_bytes / shape.seconds_on(made_on)
        if bytes_per_s > made_on.memory_bandwidth * (1 + 1e-9):
            msg = (
                f"with its share of {shape.share:g} {shape.call.label} would move {bytes_per_s:.3g} bytes/s, more "
                f"than the {made_on.memory_bandwidth:.3g} of the {made_on.name}"
            )
            raise FieldError(f"{field}.{index}", msg)
    wrong = contradiction(shapes, made_on)
    if wrong is not None:
        one, other = (f"{shape.call.label} ({shape.share:g})" for shape in wrong)
        msg = (
            f"{one} and {other} cannot both be: a larger call takes no less time, and one with a size f times larger "
            "at most f times as long"
        )
        raise FieldError(f"{field}.{shapes.index(wrong[0])}", msg)


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
    return tuple(name for name in shipped() if not json.loads(_text_of(name)).get("not_measured"))


@cache
def shipped() -> tuple[str, ...]:
    """Return the names of the cost tables that ship with railplane, measured or not."""
    folder = files("simulator") / "kernel_costs"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".json")))


def _text_of(name: str) -> str:
    return (files("simulator") / "kernel_costs" / f"{name}.json").read_text("utf-8")


def load_cost_table(name_or_path: str, folder: Path) -> CostTable:
    """Return the table of the catalogue, or of a JSON file whose path is relative to `folder`.

    Raises ValueError for a name that is not known, and InputError, with file, line and field, for anything but a
    sound table.
    """
    if name_or_path in shipped():
        return _parse(_text_of(name_or_path).encode(), name_or_path)
    path = folder / name_or_path
    if path.suffix != ".json":
        known = did_you_mean(name_or_path, catalogue())
        msg = f"unknown cost table {name_or_path!r}; {known}, or the path of a .json file"
        raise ValueError(msg)
    try:
        raw = read_regular(path, MAX_TABLE_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, None, why(error, "a cost table, a .json file")) from error
    return _parse(raw, str(path))


def _parse(raw: bytes, name: str) -> CostTable:
    """Return the table that JSON holds; `name` is what messages call its file."""
    read = parse_json(raw, name)
    if not isinstance(read.data, dict):
        raise InputError(
            name, None, None, "this is no cost table: the top of the file must be one JSON object"
        )
    try:
        # as JSON, in which a list is how a tuple is written; numbers of thousands of digits are infinite by now
        table = CostTable.model_validate_json(json.dumps(read.data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if (
            first["type"] == "json_invalid"
        ):  # half a surrogate pair, or values nested deeper than pydantic takes
            reason = str(first["ctx"]["error"]).partition(" at line ")[0]
            raise InputError(
                name, None, None, f"this file cannot be read as a cost table: {reason}"
            ) from error
        places = {path: Place(name, line) for path, line in read.lines().items()}
        raise explain(error, CostTable, Document(name, read.data, places)) from error
    if table.not_measured:
        raise read.error(("not_measured",), f"this table is not measured yet: {table.not_measured}")
    return table
