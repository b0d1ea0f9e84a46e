"""Where experts live: which ranks of an expert-parallel group hold the copies of each of them.

Each place of a group (place p is its p-th rank) has equally many slots, and each slot holds one copy of one expert.
Where experts do not fill the slots, redundant copies do; the copies of an expert share its tokens in turn.
"""

from dataclasses import dataclass
from itertools import cycle, islice, pairwise

import numpy as np

from simulator.rows import csr_offsets
from workloads.tasks import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Placement:
    """The places that hold each expert, of the `degree` places of a group; consecutive ones share a node.

    num_nodes: nodes of the group, each of degree / num_nodes places.
    offsets: [num_experts + 1] and places: [num_physical] the places of the copies of expert e, ascending, are
    places[offsets[e]:offsets[e + 1]]. Each expert has a copy, and each place holds equally many. A place may hold
    several copies of one expert: they serve as one would.
    """

    degree: int
    num_nodes: int
    offsets: IntArray
    places: IntArray

    @classmethod
    def of_slots(cls, expert_of_slot: IntArray, num_experts: int, degree: int, num_nodes: int) -> "Placement":
        """Return the placement that has these experts in its slots.

        expert_of_slot: [num_physical] the expert in each slot, those of place 0 first. Raises ValueError where
        places do not get equally many slots, nodes equally many places, or an expert none.
        """
        check_slots(len(expert_of_slot), degree, num_nodes)
        copies = np.bincount(expert_of_slot, minlength=num_experts)
        if len(copies) > num_experts or not copies.all():
            fault = (
                f"expert {len(copies) - 1} has one" if copies.all() else f"expert {copies.argmin()} has none"
            )
            msg = f"each of the {num_experts} experts needs a slot, none else may have one, and {fault}"
            raise ValueError(msg)
        # a stable order keeps the slots of an expert, and with them its places, ascending
        places = np.argsort(expert_of_slot, kind="stable") // (len(expert_of_slot) // degree)
        return cls(degree, num_nodes, csr_offsets(copies), places)

    @property
    def num_experts(self) -> int:
        """Number of experts, whatever the number of their copies."""
        return len(self.offsets) - 1

    @property
    def copies(self) -> IntArray:
        """[num_experts] how many copies each expert has."""
        return np.diff(self.offsets)

    def place_of(self, experts: IntArray, first_token: int) -> IntArray:
        """Return [num_tokens, top_k] the places to which tokens go: token t to copy (t + e) mod copies of expert e.

        So copies take turns, and which copies of its experts a token goes to has nothing to do with each other.

        experts: [num_tokens, top_k] the experts of consecutive tokens of one rank, numbered from `first_token`.
        """
        if len(self.places) == self.num_experts:
            return self.places[experts]  # one copy each: the shares need no division
        tokens = np.arange(first_token, first_token + len(experts))
        return self.places[self.offsets[experts] + (tokens[:, None] + experts) % self.copies[experts]]

    def place_load(self, expert_load: IntArray | FloatArray) -> FloatArray:
        """Return [degree] the load of each place where the copies of an expert share its load evenly.

        expert_load: [num_experts] the load of each expert, in tokens or any other unit.
        """
        if expert_load.shape != (self.num_experts,):
            msg = f"loads have shape {expert_load.shape}, and {self.num_experts} experts need ({self.num_experts},)"
            raise ValueError(msg)
        copies = self.copies
        shares = np.repeat(expert_load / copies, copies)
        return np.bincount(self.places, shares, self.degree).astype(np.float64)

    def node_load(self, expert_load: IntArray | FloatArray) -> FloatArray:
        """Return [num_nodes] the load of each node where the copies of an expert share its load evenly."""
        load: FloatArray = self.place_load(expert_load).reshape(self.num_nodes, -1).sum(axis=1)
        return load


def place_in_blocks(
    num_experts: int, degree: int, num_nodes: int, num_copies: int, num_shared: int = 0
) -> Placement:
    """Return experts in their order on nodes and places, and redundant copies made without knowledge of loads.

    Of R = num_experts - num_shared routed experts node n holds those with e * num_nodes // R == n: each node equally
    many, to one; where nodes outnumber experts, one that gets none so holds those of the node before. Nodes have
    num_physical / num_nodes slots each, a whole number no less than R / num_nodes, so that they hold even the larger
    nodes' experts. Each of the last `num_shared` experts, which all tokens go to, gets a slot of the node that has
    most left, the first of equals; then each other node that has room takes a copy of it. What is left takes the
    node's experts once more, from the first on. Consecutive slots are on consecutive places.
    num_copies: redundant copies, beyond one of each expert; `fewest_copies` is the least that works. Raises
    ValueError where places do not get equally many slots.
    """
    if num_copies < 0:
        msg = f"{num_copies} redundant copies cannot be; 0 or more can"
        raise ValueError(msg)
    num_physical, num_routed = num_experts + num_copies, num_experts - num_shared
    check_slots(num_physical, degree, num_nodes)
    first_of_node = -(-np.arange(num_nodes + 1) * num_routed // num_nodes)
    experts_of_node = [list(range(first, end)) for first, end in pairwise(first_of_node.tolist())]
    for expert in range(num_routed, num_experts):
        min(experts_of_node, key=len).append(expert)
    for node, experts in enumerate(experts_of_node):
        if not experts:
            experts.append(int(first_of_node[node]) - 1)
        experts.extend(expert for expert in range(num_routed, num_experts) if expert not in experts)
    slots = [list(islice(cycle(experts), num_physical // num_nodes)) for experts in experts_of_node]
    return Placement.of_slots(np.array(slots, np.int64).ravel(), num_experts, degree, num_nodes)


def fewest_copies(num_experts: int, degree: int) -> int:
    """Return the fewest redundant copies with which `degree` places hold equally many, and each at least one."""
    return -num_experts % degree


def working_degrees(num_ranks: int, gpus_per_node: int) -> tuple[int, ...]:
    """Return the expert-parallel degrees, ascending, that ranks and nodes allow.

    A degree divides the ranks (each group is complete), and a group is a part of a node that divides it or some
    whole nodes, as the forwarding between GPUs of the same index demands. Experts allow every degree: redundant
    copies fill up what they leave empty.
    """
    return tuple(
        degree
        for degree in range(1, num_ranks + 1)
        if num_ranks % degree == 0 and fits_nodes(degree, gpus_per_node)
    )


def fits_nodes(degree: int, gpus_per_node: int) -> bool:
    """Return whether groups of `degree` consecutive ranks are equal parts of a node, or whole nodes."""
    return gpus_per_node % degree == 0 or degree % gpus_per_node == 0


def check_slots(num_physical: int, degree: int, num_nodes: int) -> None:
    """Raise ValueError where nodes would have unequally many places, or places unequally many slots."""
    if num_nodes < 1 or degree < 1 or degree % num_nodes:
        msg = f"{degree} places on {num_nodes} nodes cannot be equally many on each; nodes must divide places"
        raise ValueError(msg)
    if num_physical % degree:
        more = -(-num_physical // degree) * degree
        msg = (
            f"{num_physical} physical experts cannot be equally many on each of {degree} places; {more} can, or "
            f"another multiple of {degree}"
        )
        raise ValueError(msg)
