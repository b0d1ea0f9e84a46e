"""The slow twin of `workloads.eplb`: the published algorithm as its description tells it, on any kind of number."""

from collections.abc import Sequence
from fractions import Fraction

Number = float | Fraction


def deal(things: Sequence[int], weight_of: Sequence[Number], num_packs: int) -> list[list[int]]:
    """Return the things in each pack: the heaviest first, each to the lightest pack that still has room."""
    packs: list[list[int]] = [[] for _ in range(num_packs)]
    weights: list[Number] = [0 * weight_of[things[0]]] * num_packs
    for thing in sorted(things, key=lambda thing: -weight_of[thing]):
        with_room = [pack for pack in range(num_packs) if len(packs[pack]) < len(things) / num_packs]
        lightest = min(with_room, key=weights.__getitem__)
        packs[lightest].append(thing)
        weights[lightest] += weight_of[thing]
    return packs


def copy_the_hottest(experts: Sequence[int], load_of: Sequence[Number], num_slots: int) -> dict[int, int]:
    """Return how many copies each expert has once all slots are taken."""
    copies = dict.fromkeys(experts, 1)
    for _ in range(num_slots - len(experts)):
        copies[max(experts, key=lambda expert: load_of[expert] / copies[expert])] += 1
    return copies


def place_by_hand(
    load_of: Sequence[Number], num_physical: int, num_groups: int, num_nodes: int, num_places: int
) -> list[list[int]]:
    """Return the experts on each place, node after node. One group and one node make the global policy."""
    group_size = len(load_of) // num_groups
    members = [range(group * group_size, (group + 1) * group_size) for group in range(num_groups)]
    group_loads = [sum(load_of[expert] for expert in group) for group in members]
    places: list[list[int]] = []
    for groups in deal(range(num_groups), group_loads, num_nodes):
        experts = sorted(expert for group in groups for expert in members[group])
        copies = copy_the_hottest(experts, load_of, num_physical // num_nodes)
        expert_of_copy = [expert for expert in experts for _ in range(copies[expert])]
        share_of_copy = [load_of[expert] / copies[expert] for expert in expert_of_copy]
        packs = deal(range(len(expert_of_copy)), share_of_copy, num_places // num_nodes)
        places += [[expert_of_copy[copy] for copy in pack] for pack in packs]
    return places


def loads_by_hand(load_of: Sequence[Number], places: Sequence[Sequence[int]]) -> list[Number]:
    """Return the load of each place, whose experts share their load evenly among all their copies."""
    copies = [0] * len(load_of)
    for place in places:
        for expert in place:
            copies[expert] += 1
    return [sum(load_of[expert] / copies[expert] for expert in place) for place in places]
