"""Pictures of networks: everything is in them, nothing overlaps, and the same network is the same picture."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from simulator.plots import save_figure
from simulator.plots.topology import draw_network
from simulator.plots.topology_layers import NIC_LINES
from simulator.scenario import load_network
from simulator.survey import survey
from topologies import build_cluster
from topologies.graph_file import write_graph

SMALL = {
    "two layers": (8, "{kind: two-layer-fat-tree, switch_ports: 16}"),
    "planes": (16, "{kind: multi-plane-fat-tree, switch_ports: 8}"),
    "two planes": (12, "{kind: multi-plane-fat-tree, planes: 2, switch_ports: 16}"),
    "one leaf a plane": (4, "{kind: multi-plane-fat-tree}"),
    "rails": (8, "{kind: multi-rail-fat-tree, switch_ports: 16, endpoints_per_leaf: 4}"),
    "three layers": (16, "{kind: three-layer-fat-tree, switch_ports: 8}"),
    "slim fly": (20, "{kind: slim-fly, q: 5}"),
    "dragonfly": (9, "{kind: dragonfly, endpoints_per_router: 2, routers_per_group: 4, global_ports: 2}"),
    "one group": (1, "{kind: dragonfly, endpoints_per_router: 2, routers_per_group: 4, global_ports: 2}"),
    "one node": (1, "{kind: none}"),
}
LARGE = {
    "rails": (256, "{kind: multi-rail-fat-tree}"),
    "16 planes": (512, "{kind: multi-plane-fat-tree, planes: 16}"),
    "slim fly": (100, "{kind: slim-fly, q: 13}"),
    "dragonfly": (100, "{kind: dragonfly, endpoints_per_router: 4, routers_per_group: 8, global_ports: 4}"),
    "few pods": (3072, "{kind: three-layer-fat-tree}"),
}
TABLE_3 = ("ft2", "mpft", "ft3", "slim_fly", "dragonfly")


def drawn(path: Path, *overrides: str) -> Figure:
    loaded = load_network(path, overrides)
    return draw_network(loaded, survey(loaded))


def spec(folder: Path, nodes: int, topology: str) -> Path:
    path = folder / "network.yaml"
    text = f"name: network\ncluster:\n  node: h800\n  nodes: {nodes}\n  topology: {topology}\n"
    path.write_text(text.replace("node: h800", f"node: {NODE_16}") if "planes: 16" in topology else text)
    return path


NODE_16 = (
    "{gpu: {name: X, architecture: hopper, memory: 80 GB, memory_bandwidth: 3 TB/s, "
    "peak_bf16: 1 PFLOP/s, peak_fp8: 2 PFLOP/s}, "
    "gpus: 16, nvlink: 200 GB/s, pcie: 64 GB/s, nic: 400 Gbit/s}"
)


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def assert_legible(figure: Figure) -> None:
    """No text overlaps another, or is cut off."""
    renderer: Any = FigureCanvasAgg(figure).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} leaves the picture"
    for (one, first), (other, second) in combinations(boxes, 2):
        apart = (
            first.x1 <= second.x0 or second.x1 <= first.x0 or first.y1 <= second.y0 or second.y1 <= first.y0
        )
        assert apart, f"{one!r} and {other!r} overlap"


def boxes_hold_their_texts(figure: Figure) -> None:
    renderer: Any = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        boxes = [patch.get_window_extent(renderer) for patch in axes.findobj(FancyBboxPatch)]
        for text in axes.texts:
            extent = text.get_window_extent(renderer)
            middle = ((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
            for box in boxes:
                if box.contains(*middle):
                    assert box.x0 <= extent.x0
                    assert extent.x1 <= box.x1


@pytest.mark.no_cover
@pytest.mark.parametrize("case", [*SMALL.items(), *LARGE.items()], ids=lambda case: case[0])
def test_networks_are_legible(case, tmp_path):
    figure = drawn(spec(tmp_path, *case[1]))
    assert_legible(figure)
    boxes_hold_their_texts(figure)


@pytest.mark.parametrize("name", TABLE_3)
def test_the_networks_of_table_3_are_legible(scenarios, name):
    figure = drawn(scenarios / f"topologies/{name}.yaml")
    assert_legible(figure)
    boxes_hold_their_texts(figure)


def test_a_small_tree_has_every_switch_and_cable(tmp_path):
    # 4 leaves and 2 spines in each of 8 planes: 48 boxes, and a line for each of 8 x 8 pairs of leaf and spine.
    figure = drawn(spec(tmp_path, *SMALL["planes"]))
    assert len(figure.findobj(FancyBboxPatch)) == 48
    assert sum(len(lines.get_segments()) for lines in cables(figure)) == 64
    assert len(figure.axes) == 8
    assert {f"plane {plane}" for plane in range(8)} <= set(words(figure).split("\n"))
    assert "16 NICs, 4 each" in words(figure)


def cables(figure: Figure) -> list[LineCollection]:
    """Return the lines between switches."""
    return [lines for lines in figure.findobj(LineCollection) if lines.get_label() != NIC_LINES]


def test_parallel_cables_are_one_wider_line(tmp_path):
    # One leaf and one spine, 32 cables between them.
    figure = drawn(spec(tmp_path, *SMALL["one leaf a plane"]))
    lines = cables(figure)
    assert [len(line.get_segments()) for line in lines] == [1] * 8
    assert lines[0].get_linewidths()[0] == 4.0


def test_a_small_slim_fly_has_every_cable_between_routers(tmp_path):
    # 50 routers of 7 cables each: 175 lines, and 5 more in the group that is shown closely, a ring of five.
    figure = drawn(spec(tmp_path, *SMALL["slim fly"]))
    assert sum(len(lines.get_segments()) for lines in figure.findobj(LineCollection)) == 180
    assert all(f"group {group}" in words(figure) for group in range(10))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ft2", ["32 spines", "64 leaves", "2,048 cables", "2,048 NICs"]),
        ("mpft", ["32 spines", "64 leaves", "2,048 cables", "plane 7"]),
        ("ft3", ["1,024 cores", "32 spines", "32 leaves", "1,024 NICs", "pod 63", "64 pods in all"]),
        (
            "slim_fly",
            ["56 groups", "A group: 28 routers", "28 cables between any group", "not constructible"],
        ),
        ("dragonfly", ["511 groups (dots), of which 32 are drawn", "A group: 32 routers", "130,816 in all"]),
    ],
)
def test_large_networks_are_summarised(scenarios, name, parts):
    shown = words(drawn(scenarios / f"topologies/{name}.yaml"))
    for part in parts:
        assert part in shown


def test_custom_networks_are_drawn_as_their_graph_is(tmp_path):
    loaded = load_network(spec(tmp_path, *SMALL["planes"]))
    write_graph(build_cluster(loaded.cluster.node_spec, 16, loaded.cluster.topology), tmp_path / "g.json")
    figure = drawn(spec(tmp_path, 16, "{kind: custom, path: g.json}"))
    assert len(figure.findobj(FancyBboxPatch)) == 48
    assert_legible(figure)


def test_large_custom_networks_are_summarised(tmp_path):
    loaded = load_network(spec(tmp_path, 256, "{kind: two-layer-fat-tree}"))
    write_graph(build_cluster(loaded.cluster.node_spec, 256, loaded.cluster.topology), tmp_path / "g.json")
    figure = drawn(spec(tmp_path, 256, "{kind: custom, path: g.json}"))
    assert {"32 spines", "64 leaves", "2,048 cables", "2,048 NICs"} <= set(words(figure).split("\n"))
    assert_legible(figure)


def test_custom_networks_of_routers(tmp_path):
    loaded = load_network(spec(tmp_path, *SMALL["dragonfly"]))
    write_graph(build_cluster(loaded.cluster.node_spec, 9, loaded.cluster.topology), tmp_path / "g.json")
    figure = drawn(spec(tmp_path, 9, "{kind: custom, path: g.json}"))
    assert_legible(figure)
    # 9 groups of 4: 54 cables within them, 36 between them, and 6 of the one that is shown closely.
    assert sum(len(lines.get_segments()) for lines in figure.findobj(LineCollection)) == 54 + 36 + 6


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_network_is_the_same_picture(tmp_path, suffix):
    path = spec(tmp_path, *SMALL["dragonfly"])
    for name in ("one", "two"):
        save_figure(drawn(path), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
