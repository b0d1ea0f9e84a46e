"""Make the pictures of docs/images: `python docs/make_images.py`, from the repository's root."""

from pathlib import Path
from typing import Final, NamedTuple

from simulator import compare, load_scenario, simulate, sweep
from simulator.plots import draw_sweep, result_pictures, save_figure
from simulator.plots.comparison import draw_comparison

_FOLDER: Final = Path(__file__).parent / "images"
_SCENARIOS: Final = Path(__file__).parent.parent / "scenarios"
_DPI: Final = 80


class Image(NamedTuple):
    """A picture of a scenario's run, and the name of its file."""

    scenario: str
    picture: str
    file: str


IMAGES: Final = (
    Image("dispatch_64_multi_plane", "overview", "dispatch_64_multi_plane"),
    Image("training_schedules", "schedule", "training_schedules"),
    Image("roce_routing", "network_load", "roce_routing_network_load"),
    Image("roce_routing", "utilisation_map", "roce_routing_utilisation_map"),
    Image("plane_failure", "utilisation_lines", "plane_failure_utilisation_lines"),
    Image("pcie_contention", "gpu_links", "pcie_contention_gpu_links"),
    Image("kernels", "roofline", "kernels_roofline"),
)
BATCHES: Final = {"workload.batch_per_gpu": [32, 64, 128, 256, 512], "workload.cache_format": ["bf16", "fp8"]}
DEGREES: Final = {"workload.batch_per_gpu": [32, 128], "workload.expert_parallel": [8, 16, 32, 64, 128]}
# One micro-batch, so that nothing hides the exchanges, in which the networks differ.
COMPARED: Final = ("workload.expert_parallel=64", "workload.batch_per_gpu=64", "workload.micro_batches=1")
NETWORKS: Final = {
    "multi-plane": "{kind: multi-plane-fat-tree, planes: 8}",
    "multi-rail": "{kind: multi-rail-fat-tree}",
}


def main() -> None:
    """Write every picture as PNG."""
    for scenario in dict.fromkeys(image.scenario for image in IMAGES):
        result = simulate(load_scenario(_SCENARIOS / f"{scenario}.yaml"))
        figures = {picture.name: picture.figure for picture in result_pictures(result)}
        for image in IMAGES:
            if image.scenario == scenario:
                save_figure(figures[image.picture], _FOLDER / f"{image.file}.png", _DPI)
    decoding = _SCENARIOS / "decode_ep128.yaml"
    figure = draw_sweep(sweep(decoding, BATCHES), "workload.batch_per_gpu", "tpot_s")
    save_figure(figure, _FOLDER / "sweep.png", _DPI)
    figure = draw_sweep(sweep(decoding, DEGREES), "workload.expert_parallel", "tokens_per_s_per_gpu")
    save_figure(figure, _FOLDER / "degrees.png", _DPI)
    found = compare(
        {
            name: load_scenario(decoding, [*COMPARED, f"cluster.topology={network}"])
            for name, network in NETWORKS.items()
        }
    )
    save_figure(draw_comparison(found), _FOLDER / "comparison.png", _DPI)


if __name__ == "__main__":
    main()
