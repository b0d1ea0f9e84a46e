"""Experts on places by their loads: the hottest get redundant copies, and heavy copies go beside light ones.

The algorithm is the one published as EPLB, DeepSeek's expert parallelism load balancer (`eplb.py` of
github.com/deepseek-ai/EPLB, MIT licence), written anew. It works greedily on the loads that it is given, and so does
not promise that

- the largest load of a place is the least possible, or shrinks with each further copy: copies are dealt out before
  they are packed, and every place takes equally many;
- copies of one expert lie on different places, or with the global policy on different nodes;
- nodes are equally loaded: the hierarchical policy moves only whole groups between nodes, the global one knows no
  nodes; with one expert a place it leaves experts in order and puts all redundant copies on the last places;
- traffic is small or few experts move: neither links nor an earlier placement are looked at.

Ties go to the lowest index: of groups, experts, copies in the order in which they were made, nodes and places.
"""

from heapq import heapify, heappop, heapreplace
from typing import Literal, get_args

import numpy as np

from workloads.placement import Placement, check_slots, fewest_copies
from workloads.tasks import FloatArray, IntArray

Policy = Literal["hierarchical", "global", "auto"]


def balance_placement(
    expert_load: IntArray | FloatArray,
    num_physical: int,
    num_groups: int,
    num_nodes: int,
    degree: int,
    policy: Policy,
) -> Placement:
    """Return where EPLB puts the experts of one layer, and their redundant copies.

    expert_load: [num_experts] load of each expert (tokens, or anything in proportion), as far as it is known.
    num_physical: copies of all experts together, the first ones included; a multiple of `degree`.
    num_groups: groups of consecutive experts among which the gate limits a token to a few.
    num_nodes, degree: nodes of an expert-parallel group, and its places; each node has equally many.
    policy: `hierarchical` keeps each group, and so all copies of an expert, on one node, where a token needs them;
    `global` treats all experts as one group and all places as one node; `auto` is hierarchical where groups
    can be dealt out to nodes equally, else global.
    Raises ValueError where these do not fit each other, or loads are negative or not finite.
    """
    num_experts = _count_checked_loads(expert_load)
    check_slots(num_physical, degree, num_nodes)
    if num_physical < num_experts:
        fewest = num_experts + fewest_copies(num_experts, degree)
        msg = f"{num_physical} physical experts cannot hold {num_experts} experts; on {degree} places {fewest} can"
        raise ValueError(msg)
    if policy not in get_args(Policy):
        msg = f"there is no policy {policy!r}; policies are {', '.join(get_args(Policy))}"
        raise ValueError(msg)
    misfit = _misfit(num_experts, num_groups, num_nodes)
    if policy == "hierarchical" and misfit:
        msg = f"{misfit}; the policies global and auto do without"
        raise ValueError(msg)
    hierarchical = policy != "global" and not misfit
    groups, nodes = (num_groups, num_nodes) if hierarchical else (1, 1)
    slots = _expert_of_slot(expert_load.astype(np.float64), num_physical, groups, nodes, degree)
    return Placement.of_slots(slots, num_experts, degree, num_nodes)


def _expert_of_slot(
    expert_load: FloatArray, num_physical: int, num_groups: int, num_nodes: int, degree: int
) -> IntArray:
    """Return [num_physical] the expert in each slot, those of place 0 first.

    expert_load: [num_experts] load of each expert; num_groups divides num_experts, num_nodes both others.
    """
    # Step 1: pack groups on nodes, by the sum of their experts' loads
    experts_of_group = np.arange(len(expert_load)).reshape(num_groups, -1)
    groups_of_node = _pack(expert_load[experts_of_group].sum(axis=1), num_nodes)
    experts_of_node = experts_of_group[groups_of_node].reshape(num_nodes, -1)

    expert_of_slot = np.empty((num_nodes, num_physical // num_nodes), np.int64)
    for node, experts in enumerate(experts_of_node):
        # Step 2: make redundant copies of the node's hottest experts, as many as it has slots left
        chosen, copies = _replicate(expert_load[experts], num_physical // num_nodes)
        # Step 3: pack the copies on the node's places, each by its share of its expert's load
        load_of_copy = (expert_load[experts] / copies)[chosen]
        expert_of_slot[node] = experts[chosen[_pack(load_of_copy, degree // num_nodes)]].ravel()
    return expert_of_slot.ravel()


def _pack(load: FloatArray, num_packs: int) -> IntArray:
    """Return [num_packs, num_items / num_packs] the items of each pack, ascending: equally many, of like loads.

    load: [num_items] load of each item. Items go by falling load, each to the least loaded pack that is not full.
    Where a pack takes but one, item i goes to pack i: all ways to pack are alike, and so nothing moves about.
    """
    num_items = len(load)
    items_per_pack = num_items // num_packs
    if items_per_pack == 1:
        return np.arange(num_items)[:, None]
    pack_of_item = np.empty(num_items, np.int64)
    room = [items_per_pack] * num_packs
    packs = [
        (0.0, pack) for pack in range(num_packs)
    ]  # a heap of those that are not full, by load, then index
    falling = np.argsort(-load, kind="stable")
    for item, load_of_item in zip(falling.tolist(), load[falling].tolist(), strict=True):
        pack_load, pack = packs[0]
        pack_of_item[item] = pack
        room[pack] -= 1
        if room[pack]:
            heapreplace(packs, (pack_load + load_of_item, pack))
        else:
            heappop(packs)
    return np.argsort(pack_of_item, kind="stable").reshape(num_packs, items_per_pack)


def _replicate(load: FloatArray, num_physical: int) -> tuple[IntArray, IntArray]:
    """Return [num_physical] the expert of each copy and [num_experts] the copies of each expert.

    load: [num_experts] load of each expert. Each has one copy, in their order; each further copy goes to the expert
    that has the most load per copy then. Where there is no load at all, all experts count alike.
    """
    num_experts = len(load)
    weight = load if load.any() else np.ones(num_experts)
    copies = np.ones(num_experts, np.int64)
    hottest = [(-share, expert) for expert, share in enumerate(weight.tolist())]
    heapify(hottest)
    further = []
    for _ in range(num_physical - num_experts):
        expert = hottest[0][1]
        further.append(expert)
        copies[expert] += 1
        heapreplace(hottest, (-float(weight[expert] / copies[expert]), expert))
    return np.concatenate([np.arange(num_experts), np.array(further, np.int64)]), copies


def _count_checked_loads(expert_load: IntArray | FloatArray) -> int:
    """Return the number of experts; ValueError where their loads are not loads."""
    if expert_load.ndim != 1 or not len(expert_load):
        msg = f"loads have shape {expert_load.shape}; they must be one row, a load for each expert"
        raise ValueError(msg)
    wrong = ~(np.isfinite(expert_load) & (expert_load >= 0))
    if wrong.any():
        expert = int(wrong.argmax())
        msg = f"the load of expert {expert} is {expert_load[expert]}; loads must be finite and not negative"
        raise ValueError(msg)
    return len(expert_load)


def _misfit(num_experts: int, num_groups: int, num_nodes: int) -> str:
    """Return why groups of experts cannot be dealt out to nodes equally, or nothing where they can."""
    if num_groups < 1 or num_experts % num_groups:
        return f"{num_experts} experts cannot form {num_groups} groups of equal size"
    if num_groups % num_nodes:
        return f"{num_groups} groups of experts cannot be equally many on each of {num_nodes} nodes"
    return ""
