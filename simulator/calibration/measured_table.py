"""A cost table from what the reference kernels were measured to take on a GPU.

Each kind of kernel that was measured gets an entry with fitted constants and all of its shapes. What was not measured
(links, communication, the slowdowns beside it, and kernels for which another stands) is taken from `roofline` and
from entries of the same table, and says so.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from simulator.calibration import fitting
from simulator.calibration.fitting import Parameter, rounded, stands_for
from simulator.calibration.gpu.samples import Measurement, Sample
from simulator.costs import CostTable, device_of, load_cost_table
from simulator.kernel_times import Device, KernelCosts, Listed, Shape
from simulator.reference import markdown_table
from topologies import NODES
from workloads.kernel_calls import AnyKernelCall
from workloads.kernels import Gemm, LatentAttention
from workloads.streaming_kernels import Copy, Norm, Pack, Reduce

BASE: Final = "roofline"
METHOD: Final = "railplane calibrate: verified on random inputs, timed warm by device events, the L2 flushed"
Sizes = Mapping[str, int]


class Kind(NamedTuple):
    """How samples become an entry: from the kernels of these names, the first that was measured counting."""

    sampled: tuple[str, ...]
    call: Callable[[Sizes], AnyKernelCall]
    parameters: tuple[Parameter, ...]


def _product(number_format: str) -> Callable[[Sizes], AnyKernelCall]:
    def call(sizes: Sizes) -> AnyKernelCall:
        groups = sizes.get("groups", 1)
        return Gemm.model_validate(
            {
                "rows": groups * sizes["m"],
                "columns": sizes["n"],
                "depth": sizes["k"],
                "groups": groups,
                "format": number_format,
            }
        )

    return call


def _attention(sizes: Sizes) -> AnyKernelCall:
    return LatentAttention(
        requests=sizes["requests"], cached_tokens=float(sizes["cached"]), heads=sizes["heads"]
    )


KINDS: Final[Mapping[str, Kind]] = {
    "copy": Kind(("copy",), lambda sizes: Copy(size_bytes=sizes["bytes"]), fitting.OF_STREAMING),
    "norm": Kind(
        ("norm",), lambda sizes: Norm(rows=sizes["tokens"], width=sizes["hidden"]), fitting.OF_STREAMING
    ),
    "pack": Kind(
        ("quantise",),
        lambda sizes: Pack(
            tokens=sizes["tokens"], rows=sizes["tokens"] * sizes["copies"], width=sizes["hidden"]
        ),
        fitting.OF_STREAMING,
    ),
    "reduce": Kind(
        ("combine",),
        lambda sizes: Reduce(
            tokens=sizes["tokens"], rows=sizes["tokens"] * sizes["copies"], width=sizes["hidden"]
        ),
        fitting.OF_STREAMING,
    ),
    "latent-attention": Kind(("mla-decode",), _attention, fitting.OF_ATTENTION),
    "gemm-bf16": Kind(("gemm-bf16",), _product("bf16"), fitting.OF_PRODUCTS),
    # Scales by blocks, as DeepSeek-V3 has them, rather than by tensors
    "gemm-fp8": Kind(("gemm-fp8-block", "gemm-fp8"), _product("fp8"), fitting.OF_PRODUCTS),
}
# Kernels that were not measured themselves, and those that stand for them.
_STANDS_FOR: Final = {
    "streaming": "copy",
    "attention": "latent-attention",
    "weight-gradient-fp8": "gemm-fp8",
}


def gpu_of(name: str) -> Device:
    """Return the peaks of the GPU that calls itself so; ValueError where its datasheet is not in the catalogue."""
    for node in NODES.values():
        if node.gpu.name.partition(" ")[0] in name.replace("-", " ").split():
            return device_of(node.gpu)
    known = ", ".join(node.gpu.name for node in NODES.values())
    msg = f"the peaks of {name!r} are not known, of which a table's figures are shares; known are {known}"
    raise ValueError(msg)


def table_of(measurement: Measurement, name: str) -> CostTable:
    """Return the cost table that a measurement makes; ValueError where it cannot make one."""
    device = gpu_of(measurement.device.name)
    source = f"reference kernels on {measurement.device.name}, {measurement.date}"
    entries: dict[str, KernelCosts] = {}
    for kind, how in KINDS.items():
        sampled = next((one for one in how.sampled if _samples_of(measurement, one)), None)
        if sampled is not None:
            entries[kind] = _entry(how, _samples_of(measurement, sampled), device, f"{source}: {sampled}")
    if not entries:
        msg = "the measurement has no samples of a kernel that a table lists"
        raise ValueError(msg)
    for kind, other in _STANDS_FOR.items():
        if other in entries:
            entries[kind] = stands_for(entries[other], f"as {other} on the same GPU, {source}")
    base = load_cost_table(BASE, Path())
    entries |= {kind: entry for kind, entry in base.kernels.items() if kind not in entries}
    return base.model_copy(
        update={
            "name": name,
            "description": f"Kernels measured on {measurement.device.name}; links, communication, and what kernels "
            f"lose beside it, as in {BASE}: assumed.",
            "architectures": ("hopper",),
            "device": device,
            "method": METHOD,
            "date": measurement.date,
            "kernels": entries,
        }
    )


def _samples_of(measurement: Measurement, name: str) -> tuple[Sample, ...]:
    """Return the samples of a kernel, alone and in groups."""
    return tuple(sample for sample in measurement.samples if sample.kernel in {name, f"grouped-{name}"})


def _entry(how: Kind, samples: Iterable[Sample], device: Device, source: str) -> KernelCosts:
    """Return an entry with its constants and its listed shapes, each once: alone before in a group of one."""
    shapes: dict[tuple[float, ...], Shape] = {}
    for sample in samples:
        call = how.call(sample.shape)
        if call.arithmetic is None:
            share = call.moved_bytes / (sample.median_s * device.memory_bandwidth)
        else:
            share = call.flops / (sample.median_s * device.peak_flop_per_s(call))
        if share > 1.0:
            msg = f"{sample.kernel} {dict(sample.shape)} took {sample.median_s:.3g} s, {share:.2f} of the GPU's peak"
            raise ValueError(msg)
        shapes.setdefault(call.sizes, Shape(call=call, share=float(f"{share:.6g}")))
    entry = rounded(fitting.fit(tuple(shapes.values()), device, how.parameters, source))
    listed = Listed(how="measured", source=source, shapes=tuple(shapes.values()))
    return entry.model_copy(update={"listed": listed})


def comparison(table: CostTable, other: CostTable) -> str:
    """Return the constants of two tables' kernels side by side, efficiency by efficiency, as Markdown."""
    head = ("kernel", "figure", table.name, other.name, "ratio")
    rows = []
    for kind, entry in table.kernels.items():
        name = kind if kind in other.kernels else "streaming"
        if name not in other.kernels:
            continue
        theirs = other.kernels[name].figures()
        for part, figure in entry.figures().items():
            mine, against = (getattr(one, "value", None) for one in (figure, theirs.get(part)))
            if mine is not None and against is not None:
                scale, unit = (1e6, " us") if part == "launch" else (1.0, "")
                ratio = f"{mine / against:.2f}" if against else ""
                rows.append((kind, part, f"{mine * scale:.3g}{unit}", f"{against * scale:.3g}{unit}", ratio))
    return markdown_table(head, rows)
