"""The picture of a network: layers as rows, planes as panels, routers in their groups.

Small networks are drawn from their graph, switch by switch and cable by cable; large ones from their counts, with
a box for each layer and a band for each bundle of cables.
"""

from itertools import combinations
from typing import Final

from matplotlib.figure import Figure

from simulator.plots.topology_groups import MOST_MEMBERS, Closer, draw_group_summary, draw_groups
from simulator.plots.topology_layers import (
    Summary,
    draw_layers,
    draw_pods,
    draw_summaries,
    panel_of_plane,
    summary_of_panel,
)
from simulator.plots.topology_parts import colour_of, draw_box, new_figure, new_panel
from simulator.scenario import LoadedNetwork
from simulator.survey import Survey
from simulator.units import show_quantity
from topologies import (
    ClusterGraph,
    CustomNetwork,
    Dragonfly,
    MultiPlaneFatTree,
    MultiRailFatTree,
    NodeSpec,
    SlimFly,
    ThreeLayerFatTree,
    TwoLayerFatTree,
    build_cluster,
)
from topologies.dragonfly import plan_dragonfly
from topologies.fat_tree import TreePlan
from topologies.galois import prime_power
from topologies.multi_plane import plan_planes
from topologies.multi_rail import plan_rails
from topologies.slim_fly import plan_slim_fly, router_pairs
from topologies.three_layer import plan_three_layers
from topologies.two_layer import plan_two_layers

# More than these are not told apart on a page; chosen by looking.
_MOST_SWITCHES: Final = 144
_MOST_ROUTER_CABLES: Final = 1_000
_MOST_IN_A_ROW: Final = 40
_MOST_PANELS: Final = 16


def draw_network(network: LoadedNetwork, survey: Survey) -> Figure:
    """Return the picture of a network whose figures are in `survey`."""
    title, subtitle = network.name, _subtitle(survey)
    node, topology, num_nodes = network.cluster.node_spec, network.cluster.topology, network.num_nodes
    if not survey.counts.switches:
        return _draw_node(node, title, subtitle)
    is_custom = isinstance(topology, CustomNetwork)
    if not survey.refusal and (is_custom or survey.counts.switches <= _MOST_SWITCHES):
        graph = build_cluster(node, num_nodes, topology)
        figure = _draw_graph(network, graph, survey, title, subtitle)
        if figure is not None:
            return figure
    if isinstance(topology, (SlimFly, Dragonfly)):
        return _draw_routers(network, None, title, subtitle)
    if isinstance(topology, ThreeLayerFatTree):
        return _draw_three_layers(topology, node, num_nodes, title, subtitle)
    assert isinstance(topology, (TwoLayerFatTree, MultiPlaneFatTree, MultiRailFatTree))
    return draw_summaries(_of_trees(topology, node, num_nodes), title, subtitle)


def _draw_graph(
    network: LoadedNetwork, graph: ClusterGraph, survey: Survey, title: str, subtitle: str
) -> Figure | None:
    """Return the picture of a network from its graph, or None where one from its counts shows more."""
    topology = network.cluster.topology
    if isinstance(topology, (SlimFly, Dragonfly)):
        few = survey.counts.links <= _MOST_ROUTER_CABLES
        return _draw_routers(network, graph, title, subtitle) if few else None
    if any(data.get("layer") == "router" for data in graph.nodes.values()):
        return _draw_own_routers(graph, survey, title, subtitle)
    panels = [panel_of_plane(graph, plane) for plane in range(graph.graph["planes"])]
    if max(panel.widest for panel in panels) <= _MOST_IN_A_ROW and len(panels) <= _MOST_PANELS:
        return draw_layers(panels, title, subtitle)
    if isinstance(topology, CustomNetwork):
        shown = panels[:_MOST_PANELS]
        more = f"; the first {len(shown)} of {len(panels)} planes" if len(panels) > len(shown) else ""
        return draw_summaries([summary_of_panel(panel) for panel in shown], title, subtitle + more)
    return None


def _subtitle(survey: Survey) -> str:
    """Return the figures of a network on one line."""
    counts = survey.counts
    cost = show_quantity(survey.cost_usd, "dollars")
    parts = [
        f"{survey.family}: {counts.endpoints:,} endpoints, {counts.switches:,} switches, {counts.links:,} links "
        "between switches",
        f"{cost}",
        f"diameter {survey.diameter.value:.0f}",
        f"bisection {show_quantity(survey.bisection.value, 'bytes per second')}",
    ]
    return "; ".join(parts) + ("" if survey.is_constructible else "; not constructible")


def _draw_node(node: NodeSpec, title: str, subtitle: str) -> Figure:
    """Return the picture of a single node."""
    figure = new_figure(title, subtitle, 1.2)
    axes = new_panel(figure, 0, 0, 12, 1.2)
    text = f"one node: {node.gpus} x {node.gpu.name} on NVSwitch, no network"
    draw_box(axes, 6, 0.6, 6, 0.6, colour_of(0), [text], 10)
    return figure


def _of_trees(
    topology: TwoLayerFatTree | MultiPlaneFatTree | MultiRailFatTree, node: NodeSpec, num_nodes: int
) -> list[Summary]:
    """Return a summary of each plane of a two-layer network."""
    ports = node.gpus * node.nic_ports * num_nodes
    if isinstance(topology, MultiPlaneFatTree):
        plans = plan_planes(node, num_nodes, topology)
        own = [
            len(range(plane, node.gpus * node.nic_ports, len(plans))) * num_nodes
            for plane in range(len(plans))
        ]
        return [
            _of_tree(plan, nics, number, len(plans))
            for number, (plan, nics) in enumerate(zip(plans, own, strict=True))
        ]
    if isinstance(topology, MultiRailFatTree):
        plan = plan_rails(node, num_nodes, topology)
        whole = _of_tree(plan, ports, 0, 1)
        leaves = f"{plan.leaves:,} leaves: {node.gpus} rails of {plan.leaves // node.gpus}"
        return [Summary("", whole.colour, (whole.rows[0], leaves, whole.rows[2]), whole.bands)]
    return [_of_tree(plan_two_layers(node, num_nodes, topology), ports, 0, 1)]


def _of_tree(plan: TreePlan, nics: int, number: int, planes: int) -> Summary:
    rows = (f"{plan.spines:,} spines", f"{plan.leaves:,} leaves", f"{nics:,} NICs")
    title = f"plane {number}" if planes > 1 else ""
    return Summary(title, colour_of(number), rows, (f"{plan.cables:,} cables", f"{nics:,} cables"))


def _draw_three_layers(
    topology: ThreeLayerFatTree, node: NodeSpec, num_nodes: int, title: str, subtitle: str
) -> Figure:
    plan = plan_three_layers(node, num_nodes, topology)
    leaves = min(plan.leaves_per_pod, plan.leaves)
    nics = min(leaves * plan.endpoints, node.gpus * num_nodes)
    pod = Summary(
        "",
        colour_of(0),
        (f"{plan.uplinks:,} spines", f"{leaves:,} leaves", f"{nics:,} NICs"),
        (f"{leaves * plan.uplinks:,} cables", f"{nics:,} cables"),
    )
    cables = f"{plan.uplinks * plan.spine_uplinks:,} cables"
    return draw_pods(f"{plan.cores:,} cores", plan.pods, pod, cables, title, subtitle)


def _draw_routers(network: LoadedNetwork, graph: "ClusterGraph | None", title: str, subtitle: str) -> Figure:
    """Return the picture of a Slim Fly or a Dragonfly."""
    node, topology, num_nodes = network.cluster.node_spec, network.cluster.topology, network.num_nodes
    if isinstance(topology, SlimFly):
        size = plan_slim_fly(node, num_nodes, topology)
        groups, in_rows = 2 * size.q, True
        exists = prime_power(size.q) is not None
        few = exists and size.q <= MOST_MEMBERS
        own = [pair for pair in router_pairs(size.q) if pair[1] < size.q] if few else []
        lines = (
            f"A router has {size.endpoints_per_router} NICs,",
            f"{size.radix - size.q} cables to others of its group,",
            f"and one to a router of each of the {size.q} groups of the other row.",
            *(() if exists else (f"No field has q = {size.q} elements, so that none can be drawn.",)),
        )
        closer = Closer(size.q, tuple(own), lines)
        between = f"{size.q} cables between any group above and any below (lines)"
    else:
        assert isinstance(topology, Dragonfly)
        plan = plan_dragonfly(node, num_nodes, topology)
        groups, in_rows, members = plan.groups, False, plan.routers_per_group
        lines = (
            f"A router has {plan.endpoints_per_router} NICs,",
            f"{members - 1} cables to the others of its group,",
            f"and {plan.global_ports} ports for cables to other groups.",
        )
        closer = Closer(members, tuple(combinations(range(min(members, MOST_MEMBERS)), 2)), lines)
        between = f"{plan.rounds} between any two groups (lines), {plan.global_cables:,} in all"
    if graph is not None:
        return draw_groups(graph, in_rows, closer, title, subtitle)
    return draw_group_summary(groups, in_rows, between, closer, title, subtitle)


def _draw_own_routers(graph: ClusterGraph, survey: Survey, title: str, subtitle: str) -> Figure:
    """Return the picture of a custom network of routers."""
    group_of = {name: data["group"] for name, data in graph.nodes.items() if data["kind"] == "switch"}
    groups = sorted(set(group_of.values()))
    first = [name for name, group in group_of.items() if group == groups[0]]
    place = {name: number for number, name in enumerate(first)}
    pairs = sorted(
        (place[one], place[other])
        for one, other in {*graph.edges()}
        if one in place and other in place and place[one] < place[other]
    )
    within = sum(
        group_of.get(one) == group_of[other]
        for one, other in graph.edges()
        if other in group_of and one in group_of
    )
    closer = Closer(len(first), tuple(pairs), (f"{len(pairs):,} pairs of them are joined.",))
    if len(group_of) <= _MOST_SWITCHES and survey.counts.links <= _MOST_ROUTER_CABLES:
        return draw_groups(graph, in_rows=False, closer=closer, title=title, subtitle=subtitle)
    between = f"{survey.counts.links - within // 2:,} cables between groups (lines are not to scale)"
    return draw_group_summary(
        len(groups), in_rows=False, between=between, closer=closer, title=title, subtitle=subtitle
    )
