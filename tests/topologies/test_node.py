"""The catalogue's figures, and nodes written inline."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from topologies import NODES, GpuSpec, NodeSpec

INLINE: dict[str, Any] = {
    "gpu": {
        "name": "made up",
        "architecture": "blackwell",
        "memory": "64 GiB",
        "memory_bandwidth": "2 TB/s",
        "peak_bf16": "500 TFLOP/s",
        "peak_fp8": "1 PFLOP/s",
    },
    "gpus": 4,
    "nvlink": "100 GB/s",
    "pcie": "32 GB/s",
    "nic": "200 Gbit/s",
}


def test_the_catalogue_has_the_four_nodes() -> None:
    assert {name: node.gpus for name, node in NODES.items()} == {
        "h800": 8,
        "h100": 8,
        "h200": 8,
        "gb200-nvl72": 72,
    }


@pytest.mark.parametrize(
    ("name", "vendor_nvlink_gb_per_s"), [("h800", 400), ("h100", 900), ("h200", 900), ("gb200-nvl72", 1800)]
)
def test_nvlink_is_half_of_what_the_vendor_prints(name: str, vendor_nvlink_gb_per_s: float) -> None:
    # A vendor adds both directions up; a port's capacity here is that of one.
    assert NODES[name].nvlink == vendor_nvlink_gb_per_s * 1e9 / 2


@pytest.mark.parametrize("name", NODES)
def test_networks_run_at_50_gb_per_s(name: str) -> None:
    # 400 Gbit/s / 8 bit = 50 GB/s; a GPU's PCIe port, Gen5 x16, has 128 / 2 = 64 GB/s and so never holds one NIC up.
    assert (NODES[name].nic, NODES[name].pcie) == (50e9, 64e9)


def test_peaks_of_the_paper() -> None:
    # The paper's MFU divides by 989.4 TFLOP/s; DeepSeek gives 80 GiB less what the driver keeps (79.1 GiB).
    gpu = NODES["h800"].gpu
    assert (gpu.peak_bf16, gpu.memory, gpu.streaming_multiprocessors) == (989.4e12, 84943110144, 132)
    # A rack of 72 GB200 has 180 PFLOP/s in BF16, 360 in FP8 and 13.4 TB.
    rack = NODES["gb200-nvl72"].gpu
    assert (72 * rack.peak_bf16, 72 * rack.peak_fp8) == (180e15, 360e15)
    assert 72 * rack.memory == pytest.approx(13.4e12, rel=2e-3)


def test_what_is_assumed_is_said() -> None:
    # The H100's figures have sources of their own; the others lean on it, or on a guess at the GB200's PCIe.
    assert [name for name, node in NODES.items() if not node.assumptions] == ["h100"]
    assert "PCIe Gen5 x16" in NODES["gb200-nvl72"].assumptions[0]


def test_the_ports_of_a_nic_share_its_rate() -> None:
    # 200 Gbit/s = 25 GB/s over two ports.
    assert NodeSpec.model_validate({**INLINE, "nic_ports": 2}).nic_port_bytes_per_s == 12.5e9
    assert {node.nic_ports for node in NODES.values()} == {1}


@pytest.mark.parametrize("name", NODES)
def test_a_node_can_be_written_and_read_back(name: str) -> None:
    assert NodeSpec.model_validate(NODES[name].model_dump(mode="json")) == NODES[name]


def test_a_node_can_be_written_inline() -> None:
    node = NodeSpec.model_validate({**INLINE, "assumptions": ["a guess"]})
    assert (node.nvlink, node.nic, node.gpu.memory) == (100e9, 25e9, 64 * 2**30)
    assert node.gpu.streaming_multiprocessors is None
    assert node.assumptions == ("a guess",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nic_ports", 0),
        ("nic_ports", 17),
        ("gpus", 0),
        ("gpus", 1025),
        ("gpus", 8.0),
        ("nvlink", 200e9),
        ("nvlink", "0 GB/s"),
        ("nic", "400 Gbit"),
        ("nics", 8),
        ("assumptions", [1]),
    ],
)
def test_an_inline_node_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        NodeSpec.model_validate({**INLINE, field: value})
    assert caught.value.errors()[0]["loc"][0] == field


def test_a_gpu_without_memory_is_refused() -> None:
    with pytest.raises(ValidationError, match="memory"):
        GpuSpec.model_validate(INLINE["gpu"] | {"memory": "0 B"})


@pytest.mark.parametrize("model", [GpuSpec, NodeSpec])
def test_every_field_is_described(model: type[GpuSpec | NodeSpec]) -> None:
    described = model.model_json_schema()["properties"]
    assert all(described[name].get("description") for name in model.model_fields)


def test_importing_topologies_stays_light() -> None:
    program = (
        "import sys, topologies; print(sorted({'matplotlib', 'pandas', 'numba', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
