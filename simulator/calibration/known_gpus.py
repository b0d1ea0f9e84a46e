"""The GPUs of which a table can be made: by the names that the driver gives them, checked against the catalogue."""

from collections.abc import Mapping
from typing import Final

from simulator.calibration.gpu.driver import COMPUTE_CAPABILITY
from simulator.calibration.gpu.samples import Device as Measured
from simulator.costs import device_of
from simulator.kernel_times import Device
from topologies import NODES

# SXM modules, whose peaks the catalogue has. Cards for PCIe (PCIe, NVL), the H20 and the superchips (GH200, GB200)
# have other clocks, memories or SMs, and other names.
NODE_OF_GPU: Final[Mapping[str, str]] = {
    "NVIDIA H200": "h200",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H800": "h800",
}


def gpu_of(name: str) -> Device:
    """Return the peaks of the GPU that the driver calls so; ValueError where the catalogue does not have it."""
    if name not in NODE_OF_GPU:
        known = ", ".join(NODE_OF_GPU)
        msg = f"the peaks of {name!r} are not known, of which a table's figures are shares; known are {known} (SXM)"
        raise ValueError(msg)
    return device_of(NODES[NODE_OF_GPU[name]].gpu)


def peaks_of(measured: Measured) -> Device:
    """Return the peaks of a GPU that was opened; ValueError unless it is what its name says."""
    gpu = gpu_of(measured.name)
    for what, is_so, should in (
        ("compute capability", measured.compute_capability, COMPUTE_CAPABILITY),
        ("number of SMs", measured.sms, gpu.streaming_multiprocessors),
    ):
        if is_so != should:
            msg = f"{measured.name!r} has the {what} {is_so}, the {gpu.name} of the catalogue {should}: other peaks"
            raise ValueError(msg)
    return gpu
