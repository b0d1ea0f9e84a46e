"""The cluster of a scenario: its nodes, the network between them, and how flows find their way through it."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema

from simulator.messages import did_you_mean
from simulator.units import FieldError, Spec
from topologies import (
    NODES,
    CustomNetwork,
    MultiPlaneFatTree,
    NodeSpec,
    NoNetwork,
    Topology,
)
from topologies.cost import Prices

MOST_NODES: Final = 1_000_000
_LINKS_OF_A_NODE: Final = frozenset({"nvlink", "pcie"})
# Which families have the paths of these policies.
_FAMILIES_OF_ROUTING: Final = dict.fromkeys(("minimal", "valiant"), ("slim-fly", "dragonfly"))


def _known_node(name: str) -> str:
    if name not in NODES:
        msg = f"unknown node {name!r}; {did_you_mean(name, NODES)}; or write the whole node here"
        raise ValueError(msg)
    return name


def _one_line(text: str) -> str:
    if text.splitlines() != [text]:
        msg = "a name must be one line of text"
        raise ValueError(msg)
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


def _form_of_node(value: object) -> str | None:
    return "name" if isinstance(value, str) else "whole" if isinstance(value, (dict, NodeSpec)) else None


CatalogueNode = Annotated[
    str,
    AfterValidator(_known_node),
    WithJsonSchema({"type": "string", "enum": list(NODES), "description": "a node of the catalogue"}),
]


class Cluster(Spec):
    """The nodes, the network between them, and how flows find their way through it."""

    node: Annotated[
        Annotated[CatalogueNode, Tag("name")] | Annotated[NodeSpec, Tag("whole")],
        Discriminator(
            _form_of_node,
            custom_error_type="node_form",
            custom_error_message=f"write one of {', '.join(NODES)}, or the whole node as a mapping of fields",
        ),
    ] = Field(
        description=f"the nodes, all alike: one of {', '.join(NODES)}, or the whole node inline (no default)"
    )
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] | Literal["auto"] = Field(
        default="auto",
        description="number of nodes, or `auto` for as many as the workload's ranks need (default auto)",
    )
    topology: Topology = Field(description="the network between the nodes, by its `kind` (no default)")
    routing: Literal["ecmp", "static", "adaptive", "least-loaded", "minimal", "valiant"] = Field(
        default="adaptive",
        description="how flows choose among equal-cost paths; `ecmp`: by a seeded hash of the flow; `static`: by "
        "the destination; `adaptive`: each flow evenly over all of them, as packets are sprayed; `least-loaded`: "
        "each flow over the least loaded one; of Slim Fly and Dragonfly alone, `minimal`: the shortest path by the "
        "family's own rule, with at most one global cable; `valiant`: by way of a random group or router, drawn by "
        "a seeded hash of the flow (default adaptive)",
    )
    prices: Prices = Field(
        default=Prices(),
        description="what switches and cables cost, for `railplane topology`; defaults fitted to Table 3 of arXiv "
        "2505.09343",
    )

    @property
    def node_spec(self) -> NodeSpec:
        """Return the whole node."""
        return NODES[self.node] if isinstance(self.node, str) else self.node

    @property
    def link_profiles(self) -> frozenset[str]:
        """Return the kinds of links of which a cost table must say how fast they really are."""
        match self.topology:
            case NoNetwork():
                return _LINKS_OF_A_NODE
            case CustomNetwork():
                return _LINKS_OF_A_NODE | self.topology.link_profiles
        return _LINKS_OF_A_NODE | {self.topology.link_profile}

    @property
    def nics_meet(self) -> bool:
        """Return whether every NIC reaches every other; of a graph file that is found out on the way."""
        match self.topology:
            case NoNetwork():
                return False
            case MultiPlaneFatTree():
                return self.topology.nics_meet(self.node_spec)
        return True

    def located(self, folder: Path) -> "Cluster":
        """Return the cluster with the folder where its relative paths start."""
        if isinstance(self.topology, CustomNetwork):
            return self.model_copy(update={"topology": self.topology.located(folder)})
        return self

    def check_routing(self) -> None:
        """Raise FieldError if the network's family has no paths of that policy."""
        families = _FAMILIES_OF_ROUTING.get(self.routing)
        network = self.topology
        family = network.family if isinstance(network, CustomNetwork) else network.kind
        if families and family not in families:
            msg = (
                f"{self.routing} routing is for topologies of kind {' and '.join(families)}, not {family}; write "
                "adaptive, ecmp, static or least-loaded"
            )
            raise FieldError("routing", msg)


class NetworkSpec(Spec):
    """A cluster alone, for `railplane topology`."""

    name: Name = Field(description="what results call the scenario; one line (no default)")
    cluster: Cluster = Field(description="the nodes and the network between them (no default)")
