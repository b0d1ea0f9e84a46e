"""What a topology does not refuse can be built, and what it refuses names what would do."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import FieldError
from support.properties import tried_on
from support.topology_kinds import DF, FT2, FT3, MPFT, MRFT, node_with, spec_of, vertices
from topologies import NodeSpec, build_cluster


@tried_on(60)
@given(
    kind=st.sampled_from([FT2, MPFT, MRFT]),
    ports=st.integers(2, 14),
    per_leaf=st.none() | st.integers(1, 9),
    uplinks=st.none() | st.integers(1, 9),
    spines=st.none() | st.integers(1, 7),
    planes=st.none() | st.integers(1, 6),
    gpus=st.integers(1, 6),
    nic_ports=st.integers(1, 3),
    num_nodes=st.integers(1, 30),
)
def test_what_passes_check_can_be_built(
    kind: str,
    ports: int,
    per_leaf: int | None,
    uplinks: int | None,
    spines: int | None,
    planes: int | None,
    gpus: int,
    nic_ports: int,
    num_nodes: int,
) -> None:
    fields = {
        "switch_ports": ports,
        "endpoints_per_leaf": per_leaf,
        "uplinks_per_leaf": uplinks,
        "spines": spines,
    }
    spec = spec_of(kind, fields | ({"planes": planes} if kind == MPFT else {}))
    node = node_with(gpus, nic_ports)
    # The laws of the definition: ports of a leaf, planes with NICs, leaves that a spine can reach.
    fits = (per_leaf or 1) + (uplinks or 1) <= ports
    if fits:
        full = per_leaf or min(ports // 2, ports - (uplinks or 1))
        up = uplinks or min(ports // 2, ports - (per_leaf or 1))
        if kind == MPFT:
            num_planes = planes or (gpus if nic_ports == 1 else nic_ports)
            fits &= nic_ports <= num_planes <= gpus * nic_ports
            leaves = math.ceil(num_nodes * math.ceil(gpus * nic_ports / num_planes) / full)
        else:
            fits &= nic_ports == 1
            leaves = (
                math.ceil(num_nodes / full) * gpus if kind == MRFT else math.ceil(num_nodes * gpus / full)
            )
        fits &= leaves <= ports
        if spines is not None:
            fits &= spines <= up and leaves * up <= spines * ports
    judge(spec, node, num_nodes, fits=fits)


def judge(spec: Any, node: NodeSpec, num_nodes: int, *, fits: bool) -> None:
    """Build what fits, and see that what does not is refused by all three alike."""
    if fits:
        graph = build_cluster(node, num_nodes, spec)
        assert spec.counts(node, num_nodes).switches == len(vertices(graph, kind="switch"))
        return
    for refuses in (spec.check, spec.counts, spec.build):
        with pytest.raises(FieldError):
            refuses(node, num_nodes)


@tried_on(40)
@given(
    ports=st.integers(2, 9),
    per_leaf=st.none() | st.integers(1, 6),
    uplinks=st.none() | st.integers(1, 6),
    leaves_per_pod=st.none() | st.integers(1, 6),
    spine_uplinks=st.none() | st.integers(1, 6),
    gpus=st.integers(1, 6),
    num_nodes=st.integers(1, 40),
)
def test_what_passes_check_can_be_built_of_three_layers(
    ports: int,
    per_leaf: int | None,
    uplinks: int | None,
    leaves_per_pod: int | None,
    spine_uplinks: int | None,
    gpus: int,
    num_nodes: int,
) -> None:
    fields = {
        "switch_ports": ports,
        "endpoints_per_leaf": per_leaf,
        "uplinks_per_leaf": uplinks,
        "leaves_per_pod": leaves_per_pod,
        "uplinks_per_spine": spine_uplinks,
    }
    fits = (per_leaf or 1) + (uplinks or 1) <= ports and (leaves_per_pod or 1) + (spine_uplinks or 1) <= ports
    if fits:
        full = per_leaf or min(ports // 2, ports - (uplinks or 1))
        pod = full * (leaves_per_pod or min(ports // 2, ports - (spine_uplinks or 1)))
        fits = gpus * num_nodes <= ports * pod  # as many pods as a core has ports
    judge(spec_of(FT3, fields), node_with(gpus), num_nodes, fits=fits)


@tried_on(40)
@given(
    ports=st.integers(2, 12),
    held=st.none() | st.integers(1, 4),
    size=st.none() | st.integers(1, 6),
    between=st.none() | st.integers(1, 4),
    groups=st.none() | st.integers(1, 12),
    num_nodes=st.integers(1, 40),
)
def test_what_passes_check_can_be_built_of_groups(
    ports: int, held: int | None, size: int | None, between: int | None, groups: int | None, num_nodes: int
) -> None:
    fields = {
        "switch_ports": ports,
        "endpoints_per_router": held,
        "routers_per_group": size,
        "global_ports": between,
        "groups": groups,
    }
    quarter = max(1, (ports + 1) // 4)
    p, a, h = held or quarter, size or 2 * quarter, between or quarter
    fits = (
        p + a - 1 + h <= ports
        and (groups or 1) <= a * h + 1
        and 2 * num_nodes <= p * a * (groups or a * h + 1)
    )
    judge(spec_of(DF, fields), node_with(2), num_nodes, fits=fits)
