"""Nodes: what a server holds, the catalogue of known ones, and how its devices are cabled.

Sources of the catalogue: Zhao et al., "Insights into DeepSeek-V3" (arXiv 2505.09343v2), the device properties in
deepseek-ai/profile-data (train.json), vendor datasheets and pages that quote them. Each constant names its source
and its mark: *published* (read in the source), *quoted* (read in a page that quotes it), *recalled* (the
datasheet is named but was not at hand), *inferred* from a like device, or *assumed*. Vendors add up both
directions of NVLink and PCIe; the figures here are of one.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field

from simulator.units import Bytes, BytesPerSecond, FlopPerSecond, Spec
from topologies.cables import CableType, add_cable
from topologies.schema import ClusterGraph


class GpuSpec(Spec):
    """A GPU, as its datasheet has it."""

    name: str = Field(min_length=1, description="name of the GPU, for reports")
    architecture: Literal["hopper", "blackwell"] = Field(
        description="generation of the GPU's multiprocessors"
    )
    streaming_multiprocessors: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="number of streaming multiprocessors (SMs); left out where no source gives it",
    )
    memory: Bytes = Field(gt=0, description="capacity of the GPU's memory, bytes")
    memory_bandwidth: BytesPerSecond = Field(
        description="peak bandwidth of the GPU's memory, bytes per second"
    )
    peak_bf16: FlopPerSecond = Field(description="dense BF16 peak, flop per second")
    peak_fp8: FlopPerSecond = Field(description="dense FP8 peak, flop per second")


class NodeSpec(Spec):
    """A server: GPUs on one NVSwitch, each with one PCIe port and one network card (NIC)."""

    gpu: GpuSpec = Field(description="the node's GPU; all are alike")
    gpus: int = Field(ge=1, le=1024, description="number of GPUs, and of NICs, of the node")
    nvlink: BytesPerSecond = Field(description="NVLink capacity of a GPU in one direction, bytes per second")
    pcie: BytesPerSecond = Field(
        description="capacity of a GPU's PCIe port in one direction, bytes per second; also of the ways from its "
        "PCIe switch to its NIC and to the host"
    )
    nic: BytesPerSecond = Field(
        description="rate of a NIC in one direction, bytes per second; its ports, and so the network's cables, share "
        "it equally"
    )
    nic_ports: int = Field(
        default=1,
        ge=1,
        le=16,
        description="number of ports of each NIC, each for another plane of a multi-plane-fat-tree",
    )
    assumptions: tuple[str, ...] = Field(
        default=(),
        strict=False,  # a list is how YAML writes a tuple
        description="what the figures take for granted, one sentence each; results repeat them",
    )

    @property
    def nic_port_bytes_per_s(self) -> float:
        """Return the rate of one port of a NIC in one direction."""
        return self.nic / self.nic_ports


_HOPPER: Final[dict[str, Any]] = {
    "architecture": "hopper",
    "streaming_multiprocessors": 132,  # H800: published, train.json; H100, H200: quoted, the same GH100 chip
    "peak_bf16": "989.4 TFLOP/s",  # H100: quoted, glennklockwood.com/garden/processors/h100; H800, H200: inferred
}
_HOPPER_CABLES: Final[dict[str, Any]] = {
    "gpus": 8,  # published, arXiv 2505.09343v2; H100, H200: quoted, the HGX board of the same form
    "pcie": "64 GB/s",  # quoted, as peak_bf16: Gen5 x16, 128 GB/s both ways
    "nic": "400 Gbit/s",  # published, arXiv 2505.09343v2: ConnectX-7, 50 GB/s
}
_SAME_CHIP: Final = "The peaks of the {} are those of the H100, which has the same chip."

_CATALOGUE: Final[dict[str, dict[str, Any]]] = {
    "h800": {
        "gpu": {
            **_HOPPER,
            "name": "H800 SXM5",
            "memory": "84943110144 B",  # published, train.json: totalGlobalMem
            "memory_bandwidth": "3.35 TB/s",  # published, deepseek-ai/FlashMLA README
            "peak_fp8": "1979 TFLOP/s",  # inferred from the H100
        },
        **_HOPPER_CABLES,
        "nvlink": "200 GB/s",  # published, arXiv 2505.09343v2 section 4.3; 400 GB/s both ways, section 4.1
        "assumptions": [_SAME_CHIP.format("H800")],
    },
    "h100": {
        "gpu": {
            **_HOPPER,
            "name": "H100 SXM5",
            "memory": "80 GB",  # quoted, as peak_bf16
            "memory_bandwidth": "3.35 TB/s",  # quoted, as peak_bf16
            "peak_fp8": "1978.9 TFLOP/s",  # quoted, as peak_bf16
        },
        **_HOPPER_CABLES,
        "nvlink": "450 GB/s",  # quoted, as peak_bf16; 900 GB/s both ways
    },
    "h200": {
        "gpu": {
            **_HOPPER,
            "name": "H200 SXM5",
            "memory": "141 GB",  # published, NVIDIA's system description in MLPerf Inference v4.1
            "memory_bandwidth": "4.8 TB/s",  # recalled, NVIDIA H200 datasheet
            "peak_fp8": "1978.9 TFLOP/s",  # inferred from the H100
        },
        **_HOPPER_CABLES,
        "nvlink": "450 GB/s",  # inferred from the H100; 900 GB/s both ways
        "assumptions": [
            _SAME_CHIP.format("H200"),
            "The NVLink, PCIe and NICs of the H200 node are those of the H100 node.",
        ],
    },
    "gb200-nvl72": {
        "gpu": {
            "name": "GB200",
            "architecture": "blackwell",
            "memory": "186 GB",  # recalled, NVIDIA GB200 NVL72 datasheet: 13.4 TB a rack of 72
            "memory_bandwidth": "8 TB/s",  # recalled, NVIDIA GB200 NVL72 datasheet
            "peak_bf16": "2500 TFLOP/s",  # recalled, NVIDIA GB200 NVL72 datasheet: 180 PFLOP/s a rack of 72
            "peak_fp8": "5000 TFLOP/s",  # recalled, NVIDIA GB200 NVL72 datasheet: 360 PFLOP/s a rack of 72
        },
        "gpus": 72,  # published, arXiv 2505.09343v2 section 2.3.2: one NVLink domain, here one node
        "nvlink": "900 GB/s",  # published, arXiv 2505.09343v2 section 2.3.2
        "pcie": "64 GB/s",  # assumed, see below
        "nic": "400 Gbit/s",  # assumed: the NIC of the Hopper nodes
        "assumptions": [
            "A GPU of the GB200 NVL72 reaches its NIC and the host as if by a PCIe Gen5 x16 port of its own "
            "(64 GB/s one way), in place of the way through its Grace CPU.",
            "Each GPU of the GB200 NVL72 has one NIC of 400 Gbit/s.",
            "The 36 CPUs of the GB200 NVL72 count as one host.",
        ],
    },
}

NODES: Final[dict[str, NodeSpec]] = {
    name: NodeSpec.model_validate(fields) for name, fields in _CATALOGUE.items()
}


def nic_name(node: int, index: int) -> str:
    """Return the id of a NIC."""
    return f"node{node}/nic{index}"


def add_node(graph: ClusterGraph, spec: NodeSpec, node: int, plane_of_nic: Sequence[int]) -> None:
    """Add the devices of a node and the cables between them.

        nvswitch ---+---------------+---            NVLink: one port a GPU
                   gpu0            gpu1   ...
                    |               |               PCIe: one port a GPU, shared by all that hangs below
                  pcie0           pcie1   ...
                  /   |           /   |
              nic0   host ------'   nic1  ...       one host for all GPUs

    node: number of the node; plane_of_nic: [gpus] the plane that each NIC will join, -1 for several, or empty for
    a node without NICs.
    """
    nvlink = CableType("nvlink", "nvlink", spec.nvlink)
    pcie, pcie_host, pcie_nic = (
        CableType(kind, "pcie", spec.pcie) for kind in ("pcie", "pcie_host", "pcie_nic")
    )
    nvswitch, host = f"node{node}/nvswitch", f"node{node}/host"
    graph.add_node(nvswitch, kind="nvswitch", node=node)
    graph.add_node(host, kind="host", node=node)
    switches = [f"node{node}/pcie{index}" for index in range(spec.gpus)]
    for index, switch in enumerate(switches):
        gpu = f"node{node}/gpu{index}"
        graph.add_node(gpu, kind="gpu", node=node, index=index)
        graph.add_node(switch, kind="pcie_switch", node=node, index=index)
        add_cable(graph, gpu, nvswitch, nvlink)
        add_cable(graph, gpu, switch, pcie)
        add_cable(graph, switch, host, pcie_host)
    for index, plane in enumerate(plane_of_nic):
        nic = nic_name(node, index)
        graph.add_node(nic, kind="nic", node=node, index=index, plane=plane)
        add_cable(graph, switches[index], nic, pcie_nic)
