"""A cost table from what the reference kernels were measured to take on a GPU.

Each kind of kernel that was measured gets an entry with fitted constants and all of its shapes. What was not measured
(links, communication, the slowdowns beside it, and kernels for which another stands) is taken from `roofline` and
from entries of the same table, and says so. Samples are left out of kernels that were not verified, of loops of
calls, and where they are faster than the GPU can be; listed times are shifted until they agree with one another, and
the largest shift is stated.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from pydantic import ValidationError

from simulator.calibration import fitting
from simulator.calibration.fitting import Parameter, rounded, stands_for
from simulator.calibration.gpu.samples import Measurement, Sample, shape_text
from simulator.calibration.known_gpus import peaks_of
from simulator.calibration.lawful_times import lawful
from simulator.costs import CostTable, load_cost_table
from simulator.kernel_times import Device, KernelCosts, Listed, Shape
from simulator.reference import markdown_table
from workloads.kernel_calls import AnyKernelCall
from workloads.kernels import Gemm, LatentAttention
from workloads.streaming_kernels import Copy, Norm, Pack, Reduce

BASE: Final = "roofline"
METHOD: Final = "railplane calibrate: verified on random inputs, timed warm by device events, the L2 flushed"
# Products with one scale for each operand; where blocks have scales they come first.
PER_TENSOR: Final = "gemm-fp8"
NOT_BLOCKS: Final = "with one scale per tensor, not the model's blocks"
LOOP: Final = "loop of "  # in the method of samples that are no one call
TOLD: Final = 3  # of the samples that are left out, by shape
Sizes = Mapping[str, int]


class Timed(NamedTuple):
    """A call, and the seconds that it took."""

    call: AnyKernelCall
    seconds: float


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
    "gemm-fp8": Kind(("gemm-fp8-block", PER_TENSOR), _product("fp8"), fitting.OF_PRODUCTS),
}
# Kernels that were not measured themselves, and those that stand for them.
_STANDS_FOR: Final = {
    "streaming": "copy",
    "attention": "latent-attention",
    "weight-gradient-fp8": "gemm-fp8",
}


class MeasuredTable(NamedTuple):
    """A cost table, and what of the measurement is not in it as one may think: each a sentence, also the table's."""

    table: CostTable
    notes: tuple[str, ...]


def table_of(measurement: Measurement, name: str) -> MeasuredTable:
    """Return the cost table that a measurement makes; ValueError where it cannot make one."""
    device = peaks_of(measurement.device)
    base = load_cost_table(BASE, Path())
    source = f"reference kernels on {measurement.device.name}, {measurement.date}"
    entries: dict[str, KernelCosts] = {}
    samples, notes = _usable(measurement)
    for kind, how in KINDS.items():
        sampled = next((one for one in how.sampled if one in samples), None)
        if sampled is None:
            continue
        said, more = _said_of(kind, sampled)
        shapes, left_out = _shapes(how, samples[sampled], device)
        notes += [*more, *left_out]
        if not shapes:
            continue
        like = base.kernels[kind if kind in base.kernels else "streaming"]
        entries[kind], more = _entry(kind, how, shapes, device, f"{source}: {said}", like)
        notes += more
    if not entries:
        msg = "the measurement has no samples of a kernel that a table lists, or none that can be used"
        raise ValueError(" ".join((f"{msg}.", *notes)).removesuffix("."))
    for kind, other in _STANDS_FOR.items():
        if other in entries and entries[other].launch.how == "fitted":
            entries[kind] = stands_for(entries[other], f"as {other} on the same GPU, {source}")
    entries |= {kind: entry for kind, entry in base.kernels.items() if kind not in entries}
    about = (
        f"Kernels measured on {measurement.device.name}; links, communication, and what kernels lose beside it, as "
        f"in {BASE}: assumed."
    )
    update = {
        "name": name,
        "description": " ".join((about, *notes)),
        "architectures": ("hopper",),
        "device": device,
        "method": METHOD,
        "date": measurement.date,
        "kernels": entries,
    }
    return MeasuredTable(base.model_copy(update=update), tuple(notes))


def _usable(measurement: Measurement) -> tuple[dict[str, list[Sample]], list[str]]:
    """Return the samples by kernel that a table may rest on, and what the others are."""
    wrong = {each.kernel: each.why for each in reversed(measurement.verified) if not each.passed}
    verified = {each.kernel for each in measurement.verified}
    samples: dict[str, list[Sample]] = {}
    for sample in measurement.samples:
        samples.setdefault(sample.kernel, []).append(sample)
    notes = []
    loops = [kernel for kernel in samples if any(LOOP in sample.method for sample in samples[kernel])]
    for kernel in loops:
        del samples[kernel]
    if loops:
        notes.append(
            f"Groups of products were timed as loops of calls, and are not listed: {', '.join(loops)}."
        )
    for kernel in [kernel for kernel in samples if kernel in wrong or kernel not in verified]:
        why = f"failed its verification ({wrong[kernel]})" if kernel in wrong else "was not verified"
        notes.append(f"The samples of {kernel}, {len(samples.pop(kernel))}, are left out: it {why}.")
    return samples, notes


def _said_of(kind: str, sampled: str) -> tuple[str, list[str]]:
    """Return what was measured for a kind of kernel in the words of sources, and what is to be noted of it."""
    if sampled != PER_TENSOR:
        return sampled, []
    return f"{sampled}, {NOT_BLOCKS}", [f"{kind} is measured {NOT_BLOCKS}, which cuBLAS has from 12.9 on."]


def _shapes(how: Kind, samples: Sequence[Sample], device: Device) -> tuple[list[Timed], list[str]]:
    """Return the calls and times of a kernel's samples, and which are left out, being faster than the GPU can be."""
    timed, left_out = [], []
    for sample in samples:
        call = _call(how, sample)
        share = least_s(call, device) / sample.median_s
        if share > 1.0:
            left_out.append(f"{shape_text(sample.shape)} ({share:.2f} of a peak)")
        else:
            timed.append(Timed(call, sample.median_s))
    if not left_out:
        return timed, []
    more = f" and {len(left_out) - TOLD} more" if len(left_out) > TOLD else ""
    told = "; ".join(left_out[:TOLD]) + more
    kernel = samples[0].kernel
    return timed, [f"Samples of {kernel} left out, being faster than the GPU's peaks allow: {told}."]


def _call(how: Kind, sample: Sample) -> AnyKernelCall:
    """Return the call that a sample is of; ValueError where its sizes are none that a call has."""
    try:
        return how.call(sample.shape)
    except ValidationError as error:
        field = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        msg = f"{sample.kernel} {shape_text(sample.shape)} is no kernel call: its {field} is out of range"
        raise ValueError(msg) from error


def least_s(call: AnyKernelCall, device: Device) -> float:
    """Return what a call takes at the least: its bytes at the memory's bandwidth, or its FLOPs at their peak."""
    memory_s = call.moved_bytes / device.memory_bandwidth
    return memory_s if call.arithmetic is None else max(memory_s, call.flops / device.peak_flop_per_s(call))


def _entry(
    kind: str, how: Kind, timed: Sequence[Timed], device: Device, source: str, like: KernelCosts
) -> tuple[KernelCosts, list[str]]:
    """Return an entry with its constants and its listed shapes, and what is to be noted of it.

    like: the entry whose constants stand where there are too few shapes to fit them
    """
    listed = _listed(timed, device, source)
    least = len(how.parameters) + 1
    if len(listed.shapes) >= least:
        entry = rounded(fitting.fit(listed.shapes, device, how.parameters, source))
        return entry.model_copy(update={"listed": listed}), []
    note = (
        f"The constants of {kind} are those of {BASE}, assumed: {least} shapes at least set them, and there are "
        f"{len(listed.shapes)}."
    )
    return like.model_copy(update={"listed": listed}), [note]


def _listed(timed: Sequence[Timed], device: Device, source: str) -> Listed:
    """Return the shapes of calls, their times shifted by the least with which they agree with one another."""
    measured_s = np.array([one.seconds for one in timed])
    sizes = np.array([one.call.sizes for one in timed], np.float64)
    # The peaks agree with the law, so that times held to them do too.
    seconds = np.maximum(lawful(sizes, measured_s), [least_s(one.call, device) for one in timed])
    shapes = []
    for one, seconds_here in zip(timed, seconds.tolist(), strict=True):
        call = one.call
        if call.arithmetic is None:
            share = call.moved_bytes / (seconds_here * device.memory_bandwidth)
        else:
            share = call.flops / (seconds_here * device.peak_flop_per_s(call))
        shapes.append(Shape(call=call, share=min(1.0, float(f"{share:.6g}"))))
    largest_shift = float(np.abs(seconds / measured_s - 1.0).max())
    return Listed(
        how="measured", source=source, largest_residual=float(f"{largest_shift:.3g}"), shapes=tuple(shapes)
    )


def comparison(table: CostTable, other: CostTable) -> str:
    """Return the constants of two tables' kernels side by side, efficiency by efficiency, as Markdown.

    how: how the first table's figure was obtained
    """
    head = ("kernel", "figure", "how", table.name, other.name, "ratio")
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
                values = (f"{mine * scale:.3g}{unit}", f"{against * scale:.3g}{unit}")
                rows.append((kind, part, figure.how, *values, ratio))
    return markdown_table(head, rows)
