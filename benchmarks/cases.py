"""Flow cases as arrays: all-to-alls over multi-plane and multi-rail fat-trees, and random networks.

The networks are those of `topologies`, wired and routed as `topologies.fat_tree` and `simulator.routing` say, but
written as plain arrays: a graph of 1,024 GPUs and their 1,047,552 routes would take longer to compile than to
replay. The links are those that can bind, namely NVLink ports, NIC ports and the cables between switches; PCIe, which
an H800 node runs at 64 GB/s in series with each 50 GB/s NIC, is left out. `tests/benchmarks` holds both equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.rows import csr_offsets

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Sizes = Callable[[np.random.Generator, int], FloatArray]

GPUS_PER_NODE: Final = 8
# The H800 node of topologies.node: NVLink 400 GB/s both ways, so 200 GB/s one way; ConnectX-7 NICs of 400 Gbit/s.
NVLINK_BYTES_PER_S: Final = 200e9
NIC_BYTES_PER_S: Final = 50e9
MEAN_SIZE_BYTES: Final = 2.0**20

_NONE: Final = -1  # a hop that a flow does not make


@dataclass(frozen=True, slots=True)
class Flows:
    """What `simulator.replay.replay_flows` takes: arrays as it documents them."""

    capacity_bytes_per_s: FloatArray
    path_offsets: IntArray
    path_links: IntArray
    size_bytes: FloatArray
    start_s: FloatArray

    def __len__(self) -> int:
        return len(self.size_bytes)


@dataclass(frozen=True, slots=True)
class FatTrees:
    """A multi-plane or multi-rail network of two-layer trees: the counts that its links and routes follow from.

    rails: whether all leaves hang under common spines (multi-rail); else each plane has spines of its own
    nodes_per_leaf: nodes with a NIC under one leaf; uplinks: cables from a leaf to spines; spines: of each tree
    """

    num_nodes: int
    rails: bool
    nodes_per_leaf: int
    uplinks: int
    spines: int

    def __post_init__(self) -> None:
        if self.spines > self.uplinks:
            msg = f"a leaf with {self.uplinks} uplinks does not reach {self.spines} spines; take more GPUs"
            raise ValueError(msg)

    @property
    def num_gpus(self) -> int:
        """Return the number of GPUs."""
        return self.num_nodes * GPUS_PER_NODE

    @property
    def leaves_per_index(self) -> int:
        """Return how many leaves the NICs of one index, which make a plane or a rail, have."""
        return -(-self.num_nodes // self.nodes_per_leaf)

    @property
    def num_leaves(self) -> int:
        """Return the number of leaves of all planes or rails."""
        return self.leaves_per_index * GPUS_PER_NODE


def multi_plane(num_gpus: int, nodes_per_leaf: int = 32, spines: int | None = None) -> FatTrees:
    """Return eight planes of switches with as many ports up as `nodes_per_leaf` down.

    spines: of each plane; by default the fewest whose ports hold all uplinks
    """
    num_nodes = _num_nodes(num_gpus)
    leaves = -(-num_nodes // nodes_per_leaf)
    return FatTrees(num_nodes, False, nodes_per_leaf, nodes_per_leaf, spines or -(-leaves // 2))


def multi_rail(num_gpus: int, nodes_per_leaf: int = 32, uplinks: int | None = None) -> FatTrees:
    """Return eight rails under common spines, with leaves of that many nodes, or of all where there are fewer.

    uplinks: of each leaf, by default as many as it has nodes; a switch has twice as many ports as a leaf has
    uplinks, and the spines are the fewest whose ports hold all uplinks
    """
    num_nodes = _num_nodes(num_gpus)
    per_leaf = min(nodes_per_leaf, num_nodes)
    leaves = -(-num_nodes // per_leaf) * GPUS_PER_NODE
    return FatTrees(num_nodes, True, per_leaf, uplinks or per_leaf, -(-leaves // 2))


def equal(_generator: np.random.Generator, count: int) -> FloatArray:
    """Return equal sizes: [count] of 1 MiB."""
    return np.full(count, MEAN_SIZE_BYTES)


def lognormal(generator: np.random.Generator, count: int) -> FloatArray:
    """Return skewed sizes: [count] bytes, lognormal with sigma 1 and mean 1 MiB (so that mu = -1/2)."""
    return MEAN_SIZE_BYTES * np.exp(generator.normal(-0.5, 1.0, count))


def all_to_all(
    network: FatTrees, *, sizes: Sizes = lognormal, ecmp: bool = False, staggered: bool = False, seed: int = 1
) -> Flows:
    """Return an all-to-all: a flow from every GPU to every other, sources in order, destinations within.

    ecmp: a seeded hash a flow and switch, else static routing
    staggered: flows start at uniform times over half of what the busiest link needs to carry all its bytes, so
    that about half of the bytes are still to move when the last flow starts; else all start at 0
    """
    generator = np.random.default_rng(seed)
    source, pick = np.divmod(np.arange(network.num_gpus * (network.num_gpus - 1)), network.num_gpus - 1)
    destination = pick + (pick >= source)
    hops = _route(network, source, destination, ecmp, seed)
    size_bytes = sizes(generator, len(source))
    capacity = np.full(4 * network.num_gpus + 2 * network.num_leaves * network.uplinks, NIC_BYTES_PER_S)
    capacity[: 2 * network.num_gpus] = NVLINK_BYTES_PER_S
    together = Flows(capacity, *_as_paths(hops), size_bytes, np.zeros(len(source)))
    if not staggered:
        return together
    start_s = generator.uniform(0.0, busiest_link_s(together) / 2, len(source))
    return Flows(capacity, together.path_offsets, together.path_links, size_bytes, start_s)


def random_network(
    num_flows: int, *, num_links: int = 400, together: bool = False, load: float = 0.3, seed: int = 1
) -> Flows:
    """Return flows of lognormal sizes on random paths of 2 to 8 links, all lengths and links alike.

    Capacities are uniform from 10 to 100 GB/s. Flows arrive as a Poisson process at the rate at which a link would
    be busy for `load` of the time, if all had the mean capacity; links below `load` of the mean are over capacity
    while flows arrive. With 3,500 flows and a load of 0.3, 166 flows are active on average and 366 at most.
    together: all start at 0 instead.
    """
    generator = np.random.default_rng(seed)
    capacity = generator.uniform(10e9, 100e9, num_links)
    lengths = generator.integers(2, 8, num_flows, endpoint=True)
    links = np.concatenate([generator.choice(num_links, length, replace=False) for length in lengths])
    size_bytes = lognormal(generator, num_flows)
    mean_link_s = MEAN_SIZE_BYTES * lengths.mean() / num_links / capacity.mean()
    start_s = np.cumsum(generator.exponential(mean_link_s / load, num_flows))
    return Flows(
        capacity, csr_offsets(lengths), links, size_bytes, np.zeros(num_flows) if together else start_s
    )


def busiest_link_s(flows: Flows) -> float:
    """Return the seconds that the busiest link needs to carry all that crosses it: no schedule is faster."""
    sent = np.repeat(flows.size_bytes, np.diff(flows.path_offsets))
    carried = np.bincount(flows.path_links, sent, minlength=len(flows.capacity_bytes_per_s))
    return float((carried / flows.capacity_bytes_per_s).max())


def _num_nodes(num_gpus: int) -> int:
    """Return the number of nodes; raise ValueError unless there are whole ones."""
    if num_gpus < GPUS_PER_NODE or num_gpus % GPUS_PER_NODE:
        msg = f"{num_gpus} GPUs do not fill nodes of {GPUS_PER_NODE}; take a multiple of {GPUS_PER_NODE}"
        raise ValueError(msg)
    return num_gpus // GPUS_PER_NODE


def _as_paths(hops: list[IntArray]) -> tuple[IntArray, IntArray]:
    """Return path offsets [num_flows + 1] and links from the link of each hop: arrays [num_flows], or none."""
    table = np.stack(hops, axis=1)
    made = table != _NONE
    return csr_offsets(made.sum(axis=1)), table[made]


def _route(
    network: FatTrees, source: IntArray, destination: IntArray, ecmp: bool, seed: int
) -> list[IntArray]:
    """Return the links of each hop, in order of travel: arrays [num_flows], _NONE where a flow makes no such hop.

    Links: NVLink out of each GPU, then into each; NIC out of each, then in; uplinks leaf by leaf, then back down.
    Between nodes of a multi-plane network a flow first goes over NVLink to the GPU with its destination's index,
    whose NIC is in the destination's plane; on a multi-rail network it leaves by its own NIC.
    """
    gpus = network.num_gpus
    source_node, destination_node = source // GPUS_PER_NODE, destination // GPUS_PER_NODE
    index = destination % GPUS_PER_NODE
    within = source_node == destination_node
    gateway = source if network.rails else source_node * GPUS_PER_NODE + index
    relayed = within | (gateway != source)

    def leaf_of(gpu: IntArray) -> IntArray:
        node, nic = np.divmod(gpu, GPUS_PER_NODE)
        leaf: IntArray = nic * network.leaves_per_index + node // network.nodes_per_leaf
        return leaf

    first, last = leaf_of(gateway), leaf_of(destination)
    number = index * network.num_nodes + destination_node  # the NIC's place, counted leaf by leaf
    up, down = _cross(network, first, last, number, seed if ecmp else None)
    crosses = ~within & (first != last)
    uplink = 4 * gpus + first * network.uplinks + up
    downlink = 4 * gpus + (network.num_leaves + last) * network.uplinks + down
    return [
        np.where(relayed, source, _NONE),
        np.where(relayed, gpus + np.where(within, destination, gateway), _NONE),
        np.where(within, _NONE, 2 * gpus + gateway),
        np.where(crosses, uplink, _NONE),
        np.where(crosses, downlink, _NONE),
        np.where(within, _NONE, 3 * gpus + destination),
    ]


def _cross(
    network: FatTrees, first: IntArray, last: IntArray, number: IntArray, seed: int | None
) -> tuple[IntArray, IntArray]:
    """Return the uplink of the first leaf, and that of the last leaf by which each flow comes down: [num_flows].

    Uplink j of leaf l, counted within its tree, goes to spine (l x uplinks + j) mod spines, as
    `topologies.fat_tree.add_uplinks` has it. seed: of the hash for ecmp; None for static, which takes the spine
    that the destination's number mod spines names, and by the quotient one of the parallel cables each way.
    """
    spines, leaves = network.spines, network.leaves_per_index
    plane, group = np.divmod(np.arange(network.num_leaves), leaves)
    place = group * GPUS_PER_NODE + plane if network.rails else group
    spine_of_uplink = (place[:, None] * network.uplinks + np.arange(network.uplinks)) % spines
    if seed is None:
        pick, spine = np.divmod(number, spines)
        up, parallel_up = _cables_to(network, place[first], spine)
        down, parallel_down = _cables_to(network, place[last], spine)
        return up + pick % parallel_up * spines, down + pick % parallel_down * spines
    # Switches are numbered as the cluster graph lists them: leaves, then spines, of one plane after the other.
    flow = np.arange(len(first))
    leaf_switch = first if network.rails else first + plane[first] * spines
    in_spine_order = np.argsort(spine_of_uplink, axis=1, kind="stable")
    up = in_spine_order[first, _hash(seed, flow, leaf_switch, np.asarray(network.uplinks))]
    spine = spine_of_uplink[first, up]
    spine_switch = spine + (
        network.num_leaves if network.rails else plane[first] * (leaves + spines) + leaves
    )
    down, parallel_down = _cables_to(network, place[last], spine)
    return up, down + _hash(seed, flow, spine_switch, parallel_down) * spines


def _cables_to(network: FatTrees, place: IntArray, spine: IntArray) -> tuple[IntArray, IntArray]:
    """Return the first uplink of the leaf at `place` that goes to `spine`, and how many do: every spines-th."""
    least = (spine - place * network.uplinks) % network.spines
    return least, (network.uplinks - least + network.spines - 1) // network.spines


def _hash(seed: int, flow: IntArray, switch: IntArray, choices: IntArray) -> IntArray:
    """Return each flow's choice at a switch, 0 to choices - 1, by the hash of `simulator.routing`, as arrays."""
    state = np.zeros(len(flow), np.uint64)
    for number in (np.asarray(seed), flow, switch):
        state = state + number.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    chosen: IntArray = (state % choices.astype(np.uint64)).astype(np.int64)
    return chosen
