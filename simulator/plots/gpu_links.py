"""How busy the links of each GPU were over the step: a column a GPU, a row a layer of links."""

from typing import Final

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simulator.link_groups import FloatArray, layer_names, place_of
from simulator.plots.style import load_colours, new_figure, styled
from simulator.result import Result

_MOST_GPUS: Final = 512  # that have a column each; beyond, nodes do
_MOST_NAMES: Final = 16
_ROW_IN: Final = 0.22
_AROUND_IN: Final = 1.5
_LEAST_IN: Final = 0.9


def draw_gpu_links(result: Result) -> Figure:
    """Return the map of utilisation over the step by GPU; by node, its busiest, where GPUs are too many.

    Links of PCIe switches and NICs count for the GPU whose they are. Layers that carry nothing are left out; raises
    ValueError where all do.
    """
    names, shares, gpus_a_node = _matrix(result)
    if not names:
        msg = "there is no utilisation to draw: no link carried anything"
        raise ValueError(msg)
    num_nodes = shares.shape[1] // gpus_a_node
    by_node = shares.shape[1] > _MOST_GPUS
    if by_node:
        shares = shares.reshape(len(names), num_nodes, gpus_a_node).max(axis=2)
    columns_a_node = 1 if by_node else gpus_a_node
    with styled():
        title = f"{result.summary['scenario']}: each GPU's links over the step"
        what = "A column is a node: its busiest link" if by_node else "A column is a GPU"
        figure = new_figure(title, what, _AROUND_IN + max(_LEAST_IN, _ROW_IN * len(names)))
        axes = figure.add_subplot()
        axes.imshow(
            100 * shares, cmap=load_colours(), vmin=0, vmax=100, aspect="auto", interpolation="nearest"
        )
        step = -(-num_nodes // _MOST_NAMES)
        nodes = range(0, num_nodes, step)
        axes.set_xticks(
            [node * columns_a_node - 0.5 for node in nodes], [str(node) for node in nodes], fontsize=8
        )
        axes.set_xlabel("node" if by_node else f"node ({gpus_a_node} GPUs from its mark on)")
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.grid(visible=False)
        colours = ScalarMappable(Normalize(0, 100), load_colours())
        figure.colorbar(colours, ax=axes, label="utilisation\n(% of datasheet)", pad=0.01)
    return figure


def _matrix(result: Result) -> tuple[list[str], FloatArray, int]:
    """Return layers that carried anything, the busiest link [num_layers, num_gpus] of each GPU, and GPUs a node."""
    links = result.links
    layers = layer_names(links)
    used = {layer for layer, carried in zip(layers, links["bytes"].tolist(), strict=True) if carried > 0.0}
    busiest: dict[tuple[str, int, int], float] = {}
    for layer, source, target, load in zip(
        layers, links["source"], links["target"], links["utilisation"], strict=True
    ):
        ends = [
            place for place in (place_of(source), place_of(target)) if place and place.device != "nvswitch"
        ]
        of_gpu = [place for place in ends if place.device != "host"]
        if layer in used and of_gpu:
            key = (layer, of_gpu[0].node, of_gpu[0].place)
            busiest[key] = max(busiest.get(key, 0.0), load)
    row_of = {layer: row for row, layer in enumerate(dict.fromkeys(layer for layer, _, _ in busiest))}
    num_nodes = 1 + max((node for _, node, _ in busiest), default=-1)
    gpus_a_node = 1 + max((index for _, _, index in busiest), default=-1)
    shares = np.zeros((len(row_of), num_nodes * gpus_a_node))
    for (layer, node, index), load in busiest.items():
        shares[row_of[layer], node * gpus_a_node + index] = load
    return list(row_of), shares, gpus_a_node
