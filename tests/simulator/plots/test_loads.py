"""What pictures of loads draw is what the tables say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from simulator.plots.colour_bar import IDLE, colour_of_load
from simulator.plots.gpu_links import draw_gpu_links
from simulator.plots.heat_map import draw_heat_map, heat_rows
from simulator.plots.lines import joined_lines
from simulator.plots.network_load import draw_network_load
from simulator.plots.roofline import draw_roofline
from simulator.plots.utilisation_lines import draw_utilisation_lines
from simulator.result import Result

STEP_S = 2.0


def result_of(loads: dict[tuple[str, str, str], float], plane_of: dict[str, int] | None = None) -> Result:
    """Return a step of 2 s in which links of 10 bytes/s were busy for these shares of it, all in its first half."""
    links = pd.DataFrame(
        [
            (
                number,
                kind,
                source,
                target,
                0,
                (plane_of or {}).get(target, (plane_of or {}).get(source, 0)),
                load,
            )
            for number, ((kind, source, target), load) in enumerate(loads.items())
        ],
        columns=["link", "kind", "source", "target", "key", "plane", "utilisation"],
    )
    links["capacity_bytes_per_s"] = 10.0
    links["bytes"] = links["utilisation"] * 10.0 * STEP_S
    used = links[links["bytes"] > 0]
    halves = [
        pd.DataFrame(
            {"link": used["link"], "start_s": start, "end_s": start + 1.0, "bytes": share * used["bytes"]}
        )
        for start, share in ((0.0, 1.0), (1.0, 0.0))
    ]
    summary = {"scenario": "s", "question": "q", "step_time_s": STEP_S, "breakdown_s": {}, "links": {}}
    empty = pd.DataFrame()
    return Result(summary, empty, empty, empty, links, pd.concat(halves), "")


def both_ways(
    kind: str, one: str, other: str, there: float, back: float
) -> dict[tuple[str, str, str], float]:
    return {(kind, one, other): there, (kind, other, one): back}


TREE = {
    **both_ways("nic", "node0/nic0", "leaf0", 0.3, 0.1),
    **both_ways("nic", "node1/nic0", "leaf1", 0.1, 0.3),
    **both_ways("leaf_spine", "leaf0", "spine0", 0.4, 0.2),
    **both_ways("leaf_spine", "leaf1", "spine0", 0.0, 0.0),
}


def colours_of_lines(figure: Figure) -> list[str]:
    return [
        to_hex(colour)
        for axes in figure.axes[:-1]  # the last is the scale of colours
        for lines in axes.collections
        if isinstance(lines, LineCollection)
        for colour in lines.get_colors()
    ]


def colours_of_dots(figure: Figure) -> list[str]:
    _, dots = figure.axes[0].collections
    return [to_hex(colour) for colour in dots.get_facecolor()]


def test_cables_have_the_colour_of_their_busier_way_and_idle_ones_are_grey():
    drawn = colours_of_lines(draw_network_load(result_of(TREE)))
    between_switches, nics = drawn[:2], drawn[2:]
    assert between_switches == [IDLE, colour_of_load(0.4)]  # the busiest on top
    assert nics == [colour_of_load(0.3), colour_of_load(0.3)]


def test_colours_of_loads_get_darker():
    light = [
        sum(int(colour_of_load(load)[place : place + 2], 16) for place in (1, 3, 5))
        for load in (0.01, 0.5, 1.0)
    ]
    assert light == sorted(light, reverse=True)


def test_a_large_tree_is_drawn_by_groups_with_their_mean_and_busiest_cable_in_words():
    # 60 leaves do not fit in a row. Up: one of 60 cables at 60%, a mean of 1%; down: all at 2%.
    loads: dict[tuple[str, str, str], float] = {}
    for leaf in range(60):
        loads |= both_ways("nic", f"node{leaf}/nic0", f"leaf{leaf}", 0.5, 0.5)
        loads |= both_ways("leaf_spine", f"leaf{leaf}", "spine0", 0.6 if leaf == 7 else 0.0, 0.02)
    figure = draw_network_load(result_of(loads))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "60 cables\nup 1 %, at most 60 %\ndown 2 %, at most 2 %" in texts
    assert "60 cables\nup 50 %, at most 50 %\ndown 50 %, at most 50 %" in texts
    bands = [
        to_hex(patch.get_facecolor()) for axes in figure.axes for patch in axes.patches if patch.zorder == 1
    ]
    assert bands == [colour_of_load(0.02), colour_of_load(0.5)]


def test_routers_are_drawn_with_lines_in_and_between_groups():
    loads = {
        **both_ways("nic", "node0/nic0", "r0", 0.4, 0.2),
        **both_ways("router_local", "r0", "r1", 0.1, 0.7),
        **both_ways("router_global", "r1", "r2", 0.2, 0.0),
    }
    figure = draw_network_load(result_of(loads))
    assert colours_of_lines(figure) == [colour_of_load(0.2), colour_of_load(0.7)]
    assert colours_of_dots(figure) == [colour_of_load(0.3), IDLE, IDLE]  # r0, r1, r2
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {"group 0", "group 1", "router_local: mean 40.0 %, busiest 70.0 %"} <= set(texts)


def test_many_routers_are_drawn_by_groups():
    # 200 groups of a router each would be too many dots for routers; here 50 groups of 4.
    loads: dict[tuple[str, str, str], float] = {}
    for group in range(50):
        for member in range(3):
            loads |= both_ways("router_local", f"g{group}r{member}", f"g{group}r{member + 1}", 0.3, 0.3)
        loads |= both_ways("router_global", f"g{group}r0", f"g{(group + 1) % 50}r1", group / 100, 0.0)
    figure = draw_network_load(result_of(loads))
    assert colours_of_dots(figure) == [colour_of_load(0.3)] * 50
    assert colours_of_lines(figure) == [colour_of_load(group / 100) for group in range(50)]


def test_a_gpu_has_a_column_and_a_layer_a_row():
    loads = {
        **both_ways("nvlink", "node0/gpu0", "node0/nvswitch", 0.1, 0.2),
        **both_ways("nvlink", "node0/gpu1", "node0/nvswitch", 0.3, 0.4),
        **both_ways("pcie_host", "node0/pcie1", "node0/host", 0.0, 0.6),
        **both_ways("nic", "node1/nic1", "leaf0", 0.5, 0.0),
    }
    axes = draw_gpu_links(result_of(loads)).axes[0]
    percent = np.asarray(axes.images[0].get_array())
    rows = {
        label.get_text(): row for label, row in zip(axes.get_yticklabels(), percent.tolist(), strict=True)
    }
    assert rows == {
        "GPU to NVSwitch": pytest.approx([10, 30, 0, 0]),
        "NVSwitch to GPU": pytest.approx([20, 40, 0, 0]),
        "host to PCIe switch": pytest.approx([0, 60, 0, 0]),
        "NIC to leaf": pytest.approx([0, 0, 0, 50]),
    }


def test_few_links_have_a_row_each():
    axes = draw_heat_map(result_of(TREE)).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "nic: node0/nic0 to leaf0"
    assert len(labels) == 6  # without the two that carried nothing
    percent = np.asarray(axes.images[0].get_array())
    assert percent[0].tolist() == pytest.approx([60, 0])  # 30% of the step, all of it in its first half


def test_the_map_ends_with_the_step_within_its_last_bin():
    result = result_of(TREE)
    result.summary["step_time_s"] = (
        1.5  # of bins of 1 s: the second is half as wide as drawn, the axis cuts it off
    )
    axes = draw_heat_map(result).axes[0]
    assert axes.get_xlim() == (0.0, 1.5)
    assert axes.images[0].get_extent()[:2] == [0.0, 2.0]


def test_many_links_are_grouped_by_layer_and_plane_with_mean_and_busiest():
    loads: dict[tuple[str, str, str], float] = {}
    planes = {f"leaf{plane}": plane for plane in range(2)}
    for node in range(30):
        for plane in range(2):
            loads |= both_ways(
                "nic", f"node{node}/nic{plane}", f"leaf{plane}", 0.4 if node == plane else 0.1, 0.1
            )
    result = result_of(loads, planes)
    assert heat_rows(result).groups.labels == (
        "NIC to leaf, plane 0",
        "NIC to leaf, plane 1",
        "leaf to NIC, plane 0",
        "leaf to NIC, plane 1",
    )
    mean, busiest, _ = draw_heat_map(result).axes
    assert np.asarray(mean.images[0].get_array())[:, 0].tolist() == pytest.approx([22, 22, 20, 20])
    assert np.asarray(busiest.images[0].get_array())[:, 0].tolist() == pytest.approx([80, 80, 20, 20])
    assert mean.get_yticklabels()[0].get_text() == "NIC to leaf, plane 0 (30)"


def test_planes_that_differ_have_lines_and_those_that_do_not_are_told():
    uneven = {
        **both_ways("nic", "node0/nic0", "a", 0.4, 0.4),
        **both_ways("nic", "node0/nic1", "b", 0.1, 0.1),
    }
    figure = draw_utilisation_lines(result_of(uneven, {"a": 0, "b": 1}))
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["plane 0", "plane 1"]
    even = dict.fromkeys(uneven, 0.2)
    figure = draw_utilisation_lines(result_of(even, {"a": 0, "b": 1}))
    assert len(figure.axes) == 1
    assert "planes 0 to 1 of nic links" in figure.get_suptitle()


def test_too_many_lines_become_the_busiest_and_the_mean_of_the_rest():
    shares = np.linspace(0.05, 0.5, 10)[:, np.newaxis] * np.ones(4)
    lines = joined_lines(tuple(map(str, range(10))), shares, "plane")
    assert [line.label for line in lines] == [
        *(f"plane {plane}" for plane in range(4, 10)),
        "mean of 4 others",
    ]
    assert lines[-1].shares.tolist() == pytest.approx([shares[:4].mean()] * 4)


PEAKS = {"fp8_flops_per_s": 2e15, "bf16_flops_per_s": 1e15, "memory_bytes_per_s": 3e12}


def kernel(flops_per_s: float, bytes_per_s: float, arithmetic: str | None) -> dict[str, object]:
    return {
        "calls": 1,
        "seconds": 1.0,
        "step_share": 0.25,
        "flops_per_s": flops_per_s,
        "bytes_per_s": bytes_per_s,
        "arithmetic": arithmetic,
    }


def test_the_roofline_has_the_peaks_of_the_formats_in_use_and_a_point_a_kernel():
    kernels = {"gemm-fp8": kernel(8e14, 1e12, "fp8"), "norm": kernel(0.0, 1.5e12, None)}
    summary = {"scenario": "s", "kernels": {"by_kernel": kernels, "peaks": PEAKS}}
    points, bars = draw_roofline(summary).axes
    roof, point = points.lines
    at, height = roof.get_data()
    assert max(height) == pytest.approx(2000)  # TFLOP/s
    assert at[1] == pytest.approx(2e15 / 3e12)
    assert [float(value[0]) for value in point.get_data()] == pytest.approx(
        [800, 800]
    )  # FLOP per byte, TFLOP/s
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([50])


def test_kernels_that_only_move_bytes_need_no_roof():
    kernels = {"norm": kernel(0.0, 1.5e12, None)}
    assert len(draw_roofline({"scenario": "s", "kernels": {"by_kernel": kernels, "peaks": PEAKS}}).axes) == 1


def test_figures_stand_beyond_the_longest_bar():
    kernels = {"norm": kernel(0.0, 6e12, None), "gate": kernel(0.0, 1e12, None)}
    (bars,) = draw_roofline({"scenario": "s", "kernels": {"by_kernel": kernels, "peaks": PEAKS}}).axes
    assert all(text.get_position()[0] > 200 for text in bars.texts)  # 6 of 3 TB/s


@pytest.mark.parametrize("draw", [draw_network_load, draw_gpu_links, draw_heat_map, draw_utilisation_lines])
def test_where_nothing_moved_there_is_nothing_to_draw(draw):
    with pytest.raises(ValueError, match=r"there is no (network|utilisation) to draw"):
        draw(result_of(dict.fromkeys(TREE, 0.0)))


def test_without_priced_kernels_or_peaks_there_is_no_roofline():
    with pytest.raises(ValueError, match="no priced kernels"):
        draw_roofline({"scenario": "s"})
    by_kernel = {"norm": kernel(0.0, 1.5e12, None)}
    with pytest.raises(ValueError, match="no peaks of its GPU: run it again"):
        draw_roofline({"scenario": "s", "kernels": {"by_kernel": by_kernel}})  # as older versions saved it
