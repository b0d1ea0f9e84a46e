"""Make the pictures of docs/images: `python docs/make_images.py`, from the repository's root."""

from pathlib import Path
from typing import Final, NamedTuple

from simulator import load_scenario, simulate
from simulator.plots import draw_sweep, result_pictures, save_figure
from simulator.sweeps import sweep

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
SWEPT: Final = {"workload.batch_per_gpu": [32, 64, 128, 256, 512], "workload.cache_format": ["bf16", "fp8"]}


def main() -> None:
    """Write every picture as PNG."""
    for scenario in dict.fromkeys(image.scenario for image in IMAGES):
        result = simulate(load_scenario(_SCENARIOS / f"{scenario}.yaml"))
        figures = {picture.name: picture.figure for picture in result_pictures(result)}
        for image in IMAGES:
            if image.scenario == scenario:
                save_figure(figures[image.picture], _FOLDER / f"{image.file}.png", _DPI)
    table = sweep(_SCENARIOS / "decode_ep128.yaml", SWEPT)
    save_figure(draw_sweep(table, "workload.batch_per_gpu", "tpot_s"), _FOLDER / "sweep.png", _DPI)


if __name__ == "__main__":
    main()
