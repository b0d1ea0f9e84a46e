"""A scenario: the fields of its file, and everything that can be found wrong with it before it runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from simulator import costs as cost_tables
from simulator.cluster import Cluster, Name, NetworkSpec
from simulator.costs import CostTable, check_sms_left, load_cost_table
from simulator.document import Document, FieldPath, read_document
from simulator.faults import Fault, check_faults, needs_graph, touches_switch_cables
from simulator.input_error import InputError
from simulator.input_files import NamedFile, NamesFile, check_inside, named_files
from simulator.machine_memory import this_process
from simulator.messages import as_path, explain
from simulator.size import Estimate, estimate, estimate_graph
from simulator.units import FieldError, Spec
from topologies import CustomNetwork, NodeSpec, NoNetwork, build_cluster
from workloads import DecodeStepSpec, WorkloadSpec
from workloads import models as model_catalogue
from workloads.models import Model, load_model
from workloads.tasks import GpuLimits, Setting


class Scenario(Spec):
    """A cluster, and what runs on it."""

    name: Name = Field(description="what results call the scenario; one line (no default)")
    seed: int = Field(
        default=1,
        ge=0,
        le=2**63 - 1,
        description="seed of everything drawn at random: equal seeds give equal results (default 1)",
    )
    cluster: Cluster = Field(description="the nodes and the network between them (no default)")
    model: Annotated[str | None, NamesFile(model_catalogue.catalogue)] = Field(
        default=None,
        description=f"model: one of {', '.join(model_catalogue.catalogue())}, or the path, from the scenario's "
        "folder, of a Hugging Face config.json (default none, which only some workloads allow)",
    )
    workload: WorkloadSpec = Field(description="what runs on the cluster, by its `kind` (no default)")
    costs: Annotated[str, NamesFile(cost_tables.shipped)] = Field(
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

    document: as written; scenario: as resolved, so that `cluster.nodes` is a number; path: its file; folder: where
    its relative paths start; size: what a run will hold; files: those that it names, with the SHA-256 of what each
    held when the scenario was loaded
    """

    document: Document
    scenario: Scenario
    path: Path
    folder: Path
    node: NodeSpec
    num_nodes: int
    model: Model | None
    costs: CostTable
    size: Estimate
    files: Mapping[NamedFile, str]

    @property
    def setting(self) -> Setting:
        """Return what the workload is built for."""
        return _setting(self.scenario.cluster, self.num_nodes, self.model, self.folder)


class TooLargeError(InputError):
    """A run would take more memory than this process may have, by its estimate; elsewhere it may not.

    scenario, files: as of the scenario if it were loaded
    """

    def __init__(self, error: InputError, scenario: Scenario, files: Mapping[NamedFile, str]) -> None:
        super().__init__(error.file, error.line, error.field, error.message)
        self.scenario = scenario
        self.files = files


def _setting(cluster: Cluster, num_nodes: int, model: Model | None, folder: Path) -> Setting:
    node = cluster.node_spec
    return Setting(
        model=model,
        num_ranks=num_nodes * node.gpus,
        gpus_per_node=node.gpus,
        folder=folder,
        nics_meet=cluster.nics_meet,
        gpu=GpuLimits(node.gpu.memory, node.gpu.peak_bf16, node.nvlink, node.nic),
    )


def load_scenario(
    path: Path | str, overrides: Sequence[str] = (), *, any_path: bool = False, any_size: bool = False
) -> LoadedScenario:
    """Return the scenario of a YAML file, ready to run.

    overrides: each `PATH=VALUE`, as after `--set`, applied in order; any_path: whether it may name files outside its
    folder; any_size: whether a run may take more memory than this process may have, by the estimate. Whatever is
    wrong with the input raises InputError, which says where and what would be right.
    """
    path = Path(path)
    document = _read(path, overrides)
    scenario = _validated(Scenario, document, path, any_path=any_path)
    return _resolved(scenario, document, path, any_size=any_size)


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network to look at, which need not be one that can be built: `counts` works all the same."""

    name: str
    cluster: Cluster
    num_nodes: int
    document: Document


def load_network(path: Path | str, overrides: Sequence[str] = (), *, any_path: bool = False) -> LoadedNetwork:
    """Return the cluster of a scenario, or of a file that has only `name` and `cluster`.

    overrides, any_path: as of `load_scenario`, whose errors it raises.
    """
    path = Path(path)
    document = _read(path, overrides)
    is_spec = document.data.keys() <= NetworkSpec.model_fields.keys()
    loaded: Scenario | NetworkSpec = (
        _validated(NetworkSpec, document, path, any_path=any_path)
        if is_spec
        else _validated(Scenario, document, path, any_path=any_path)
    )
    return LoadedNetwork(loaded.name, loaded.cluster, _num_nodes(loaded, document), document)


def _read(path: Path, overrides: Sequence[str]) -> Document:
    """Return what a file holds, with fields set as by `--set`."""
    document = read_document(path)
    for assignment in overrides:
        document = document.with_override(assignment)
    return document


def _validated(model: type[_File], document: Document, path: Path, *, any_path: bool) -> _File:
    """Return what a document holds; InputError if a field is wrong, or names a file that it may not."""
    try:
        found = model.model_validate(document.data)
    except ValidationError as error:
        raise explain(error, model, document) from None
    for file in () if any_path else named_files(found, path.parent):
        try:
            check_inside(file, path.parent)
        except ValueError as error:
            raise document.error(file.field, str(error)) from error
    return found.model_copy(update={"cluster": found.cluster.located(path.parent)})


def _resolved(scenario: Scenario, document: Document, path: Path, *, any_size: bool) -> LoadedScenario:
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
    with blaming(document, "costs"), _naming_table(scenario.costs):
        table = load_cost_table(scenario.costs, folder)
        if is_limit(scenario.workload):
            table = load_cost_table("ideal", folder)  # by datasheets, whatever table is named
        table.check(cluster.node_spec.gpu.architecture, cluster.link_profiles)
    resolved = scenario.model_copy(update={"cluster": cluster.model_copy(update={"nodes": num_nodes})})
    setting = _setting(cluster, num_nodes, model, folder)
    for size in _sizes(scenario, num_nodes, setting, document):
        if error := too_large(size, document, any_size=any_size):
            raise TooLargeError(error, resolved, _digests(scenario, document, folder))
    with blaming(document, "faults"):
        named = needs_graph(scenario.faults)
        graph = build_cluster(cluster.node_spec, num_nodes, cluster.topology) if named else None
        check_faults(scenario.faults, num_nodes, cluster.node_spec.gpus, graph)
    loaded = LoadedScenario(
        document=document,
        scenario=resolved,
        path=path,
        folder=folder,
        node=cluster.node_spec,
        num_nodes=num_nodes,
        model=model,
        costs=table,
        size=size,
        files={},
    )
    with blaming(document, "workload"):
        scenario.workload.check(loaded.setting)
        kernels = scenario.workload.compute_kernels(loaded.setting)
        with _blaming_communication_sms(scenario.workload):
            check_sms_left(kernels, loaded.node.gpu)
    with blaming(document, "costs"), _naming_table(scenario.costs):
        for kernel in scenario.workload.communication_kernels(loaded.setting):
            table.check_kernel(kernel)
        table.check_compute(kernels, loaded.node.gpu)
    return replace(loaded, files=_digests(scenario, document, folder))


def _sizes(scenario: Scenario, num_nodes: int, setting: Setting, document: Document) -> Iterator[Estimate]:
    """Yield what the cluster's graph will hold, and then what the run will. Nothing large is built yet."""
    cluster = scenario.cluster
    network = cluster.topology, cluster.node_spec, num_nodes
    with blaming(document, "cluster"):
        graph = estimate_graph(*network)
    yield graph
    with blaming(document, "workload"):
        work = scenario.workload.work_size(setting)
    bundle = not touches_switch_cables(scenario.faults)
    yield estimate(*network, cluster.routing, work, bundle=bundle, is_reused=not scenario.faults)


def too_large(size: Estimate, document: Document, *, any_size: bool) -> InputError | None:
    """Return the error that this takes more memory than this process may have; None if any size will do."""
    refusal = "" if any_size else size.refusal(this_process())
    return document.error(as_path(size.field), refusal) if refusal else None


def _digests(scenario: Scenario, document: Document, folder: Path) -> dict[NamedFile, str]:
    """Return the files that a scenario names, each with the digest of what it holds."""
    digests = {}
    for file in named_files(scenario, folder):
        with blaming(document, str(file.field[0])):
            digests[file] = file.sha256()
    return digests


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
def _naming_table(name_or_path: str) -> Iterator[None]:
    """Let a ValueError name the file of a table that did not ship, whose own name may be that of one that did."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        if name_or_path in cost_tables.shipped():
            raise
        msg = f"{name_or_path}: {error}"
        raise ValueError(msg) from error


@contextmanager
def _blaming_communication_sms(workload: Spec) -> Iterator[None]:
    """Turn a ValueError within into a FieldError at the workload's `communication_sms`, if it has that field."""
    try:
        yield
    except ValueError as error:
        if "communication_sms" not in type(workload).model_fields:
            raise
        raise FieldError("communication_sms", str(error)) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Scenario.model_json_schema(),
        "title": "railplane scenario",
    }
