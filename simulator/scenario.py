"""A scenario: the fields of its file, and everything that can be found wrong with it before it runs."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, WithJsonSchema
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from simulator import costs as cost_tables
from simulator.costs import CostTable, check_sms_left, load_cost_table
from simulator.document import Document, FieldPath, read_document
from simulator.faults import Fault, check_faults, needs_graph
from simulator.messages import as_path, did_you_mean, explain
from simulator.units import FieldError, Spec
from simulator.yaml_nodes import parse_scalar
from topologies import (
    NODES,
    CustomNetwork,
    MultiPlaneFatTree,
    NodeSpec,
    NoNetwork,
    Topology,
    build_cluster,
)
from topologies.cost import Prices
from workloads import DecodeStepSpec, WorkloadSpec
from workloads import models as model_catalogue
from workloads.models import Model, load_model
from workloads.tasks import GpuLimits, Setting

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

    name: Annotated[str, AfterValidator(_one_line)] = Field(
        min_length=1, max_length=200, description="what results call the scenario; one line (no default)"
    )
    cluster: Cluster = Field(description="the nodes and the network between them (no default)")


class Scenario(Spec):
    """A cluster, and what runs on it."""

    name: Annotated[str, AfterValidator(_one_line)] = Field(
        min_length=1, max_length=200, description="what results call the scenario; one line (no default)"
    )
    seed: int = Field(
        default=1,
        ge=0,
        le=2**63 - 1,
        description="seed of everything drawn at random: equal seeds give equal results (default 1)",
    )
    cluster: Cluster = Field(description="the nodes and the network between them (no default)")
    model: str | None = Field(
        default=None,
        description=f"model: one of {', '.join(model_catalogue.catalogue())}, or the path, from the scenario's "
        "folder, of a Hugging Face config.json (default none, which only some workloads allow)",
    )
    workload: WorkloadSpec = Field(description="what runs on the cluster, by its `kind` (no default)")
    costs: str = Field(
        default="h800-published",
        description=f"cost table: one of {', '.join(cost_tables.catalogue())}, or the path, from the scenario's "
        "folder, of a .json file (default h800-published)",
    )
    faults: tuple[Fault, ...] = Field(
        default=(),
        strict=False,  # a list is how YAML writes a tuple
        description="what goes wrong during the run, in any order",
    )


_File = TypeVar("_File", Scenario, NetworkSpec)


@dataclass(frozen=True, slots=True)
class LoadedScenario:
    """A scenario that can run, with all that it names.

    scenario: as resolved, so that `cluster.nodes` is a number; path: its file; folder: where its relative paths
    start.
    """

    scenario: Scenario
    path: Path
    folder: Path
    node: NodeSpec
    num_nodes: int
    model: Model | None
    costs: CostTable

    @property
    def setting(self) -> Setting:
        """Return what the workload is built for."""
        return Setting(
            model=self.model,
            num_ranks=self.num_nodes * self.node.gpus,
            gpus_per_node=self.node.gpus,
            folder=self.folder,
            nics_meet=self.scenario.cluster.nics_meet,
            gpu=GpuLimits(self.node.gpu.memory, self.node.gpu.peak_bf16, self.node.nvlink, self.node.nic),
        )


def load_scenario(path: Path | str, overrides: Sequence[str] = ()) -> LoadedScenario:
    """Return the scenario of a YAML file, ready to run.

    overrides: each `PATH=VALUE`, as after `--set`, applied in order. Whatever is wrong with the input raises
    InputError, which says where and what would be right.
    """
    path = Path(path)
    document = _read(path, overrides)
    return _resolved(_validated(Scenario, document, path), document, path)


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network to look at, which need not be one that can be built: `counts` works all the same."""

    name: str
    cluster: Cluster
    num_nodes: int
    document: Document


def load_network(path: Path | str, overrides: Sequence[str] = ()) -> LoadedNetwork:
    """Return the cluster of a scenario, or of a file that has only `name` and `cluster`.

    overrides: as of `load_scenario`, whose errors it raises.
    """
    path = Path(path)
    document = _read(path, overrides)
    is_spec = document.data.keys() <= NetworkSpec.model_fields.keys()
    loaded: Scenario | NetworkSpec = (
        _validated(NetworkSpec, document, path) if is_spec else _validated(Scenario, document, path)
    )
    return LoadedNetwork(loaded.name, loaded.cluster, _num_nodes(loaded, document), document)


def _read(path: Path, overrides: Sequence[str]) -> Document:
    """Return what a file holds, with fields set as by `--set`."""
    document = read_document(path)
    for assignment in overrides:
        document = document.with_override(assignment)
    return document


def _validated(model: type[_File], document: Document, path: Path) -> _File:
    """Return what a document holds, its files named from the folder of `path`; InputError if fields are wrong."""
    try:
        found = model.model_validate(document.data)
    except ValidationError as error:
        raise explain(error, model, document) from None
    return found.model_copy(update={"cluster": found.cluster.located(path.parent)})


def _resolved(scenario: Scenario, document: Document, path: Path) -> LoadedScenario:
    """Check everything that takes more than one field, in the order in which the parts need each other."""
    cluster, folder = scenario.cluster, path.parent
    num_nodes = _num_nodes(scenario, document)
    with blaming(document, "cluster"):
        cluster.topology.check(cluster.node_spec, num_nodes)
        cluster.check_routing()
    if scenario.model is None and scenario.workload.needs_model:
        known = ", ".join(model_catalogue.catalogue())
        message = (
            f"a workload of kind {scenario.workload.kind!r} needs a model; write one of {known}, or a path"
        )
        raise document.error(("model",), message)
    with blaming(document, "model"):
        model = None if scenario.model is None else load_model(scenario.model, folder)
    with blaming(document, "costs"):
        table = load_cost_table(scenario.costs, folder)
        if is_limit(scenario.workload):
            table = load_cost_table("ideal", folder)  # by datasheets, whatever table is named
        table.check(cluster.node_spec.gpu.architecture, cluster.link_profiles)
    with blaming(document, "faults"):
        named = needs_graph(scenario.faults)
        graph = build_cluster(cluster.node_spec, num_nodes, cluster.topology) if named else None
        check_faults(scenario.faults, num_nodes, cluster.node_spec.gpus, graph)
    loaded = LoadedScenario(
        scenario=scenario.model_copy(update={"cluster": cluster.model_copy(update={"nodes": num_nodes})}),
        path=path,
        folder=folder,
        node=cluster.node_spec,
        num_nodes=num_nodes,
        model=model,
        costs=table,
    )
    with blaming(document, "workload"):
        scenario.workload.check(loaded.setting)
        kernels = scenario.workload.compute_kernels(loaded.setting)
        with _blaming_communication_sms(scenario.workload):
            check_sms_left(kernels, loaded.node.gpu)
    with blaming(document, "costs"):
        for kernel in scenario.workload.communication_kernels(loaded.setting):
            table.check_kernel(kernel)
        table.check_compute(kernels, loaded.node.gpu)
    return loaded


def is_limit(workload: WorkloadSpec) -> bool:
    """Return whether a workload is a bound by datasheets' figures: nothing is priced, and no link is crossed."""
    return isinstance(workload, DecodeStepSpec) and workload.limit


def _num_nodes(scenario: Scenario | NetworkSpec, document: Document) -> int:
    """Return the number of nodes; of `auto`, those of a graph file, or as many as hold the workload's ranks."""
    cluster = scenario.cluster
    if cluster.nodes != "auto":
        return cluster.nodes
    if isinstance(cluster.topology, CustomNetwork):
        with blaming(document, "cluster"):
            return cluster.topology.num_nodes
    needed = scenario.workload.needed_ranks() if isinstance(scenario, Scenario) else None
    if needed is not None:
        return -(-needed // cluster.node_spec.gpus)
    if isinstance(cluster.topology, NoNetwork):
        return 1
    who = (
        f"a workload of kind {scenario.workload.kind!r} does not say"
        if isinstance(scenario, Scenario)
        else "there is no workload to say"
    )
    message = f"{who} how many ranks it needs, so that nodes cannot be 'auto'; write a number of nodes"
    raise document.error(("cluster", "nodes"), message)


@contextmanager
def blaming(document: Document, field: str) -> Iterator[None]:
    """Turn a ValueError or OSError within into an InputError at `field`, or at the field below that it names."""
    try:
        yield
    except ValueError as error:
        below: FieldPath = as_path(error.field) if isinstance(error, FieldError) else ()
        raise document.error((field, *below), str(error)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise document.error((field,), f"a file that this names cannot be read: {reason}") from error


@contextmanager
def _blaming_communication_sms(workload: Spec) -> Iterator[None]:
    """Turn a ValueError within into a FieldError at the workload's `communication_sms`, if it has that field."""
    try:
        yield
    except ValueError as error:
        if "communication_sms" not in type(workload).model_fields:
            raise
        raise FieldError("communication_sms", str(error)) from error


def resolved_text(loaded: LoadedScenario) -> str:
    """Return the scenario as YAML, defaults written out, that loads from its folder to an equal scenario."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(_resolved_data(loaded), stream)
    return stream.getvalue()


def scenario_sha256(loaded: LoadedScenario) -> str:
    """Return a digest of the resolved scenario: the same however its file is laid out, and wherever it lies."""
    canonical = json.dumps(_resolved_data(loaded), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _resolved_data(loaded: LoadedScenario) -> dict[str, Any]:
    return loaded.scenario.model_dump(mode="json")


class _Representer(SafeRepresenter):
    """Writes text in quotes wherever `simulator.yaml_nodes` would read something else without them."""

    def represent_text(self, text: str) -> ScalarNode:
        """Return the node of a text."""
        try:
            is_plain = isinstance(parse_scalar(text), str)
        except ValueError:
            is_plain = False
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')

    def represent_nothing(self, _nothing: None) -> ScalarNode:
        """Return the node of None, which is easier to see as a word."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(str, _Representer.represent_text)
_Representer.add_representer(type(None), _Representer.represent_nothing)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Scenario.model_json_schema(),
        "title": "railplane scenario",
    }
