"""The whole pipeline on one screen: a scenario in, a result out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from simulator import __version__
from simulator.cables import LinkCosts
from simulator.costs import CostTable
from simulator.engine import Recording, execute
from simulator.faults import (
    Fault,
    Spans,
    Straggler,
    describe_faults,
    on_the_clock,
    touches_switch_cables,
)
from simulator.input_error import dotted
from simulator.kernel_shares import CostOf, kernel_columns, kernel_summary, peaks
from simulator.kernel_times import KernelCost
from simulator.layout import RankLayout
from simulator.messages import as_path
from simulator.network import Network
from simulator.rerouting import FaultError
from simulator.resolved import resolved_text, scenario_sha256
from simulator.result import (
    FloatArray,
    Result,
    compare_loads,
    flows_table,
    links_table,
    phases_table,
    summarise_links,
    tasks_table,
    timeline_table,
)
from simulator.routing import NoPathError
from simulator.scenario import LoadedScenario, is_limit
from simulator.task_columns import distinct_kernels, leader_of_rank
from simulator.units import FieldError
from simulator.waits import bills_of, explain
from topologies import build_cluster
from workloads.tasks import Collective, ComputeKernel, TaskGraph, TaskTimes, Workload

ASSUMPTIONS: Final = (
    "Traffic is fluid: flows share links by max-min fairness, without packets, congestion control or losses.",
    "A relay hands on what it receives as it arrives, and its memory keeps up.",
)


def simulate(loaded: LoadedScenario, progress: Callable[[float], None] | None = None) -> Result:
    """Return what happens when a scenario runs: see `Result`. Same scenario, same result, to the last bit.

    progress: called now and then with the share of transfers that have ended; tables are made after that
    """
    scenario, cluster = loaded.scenario, loaded.scenario.cluster
    graph = build_cluster(loaded.node, loaded.num_nodes, cluster.topology)
    costs, bundle = (
        link_costs(loaded.costs, cluster.link_profiles),
        not touches_switch_cables(scenario.faults),
    )
    network = Network(graph, costs, cluster.routing, scenario.seed, bundle=bundle)
    layout = RankLayout.in_order(loaded.num_nodes, loaded.node.gpus)
    workload = build_workload(loaded, layout)
    check_unchanged(loaded)
    kernel_times = loaded.costs.kernel_times(loaded.node.gpu)
    cost_of = once_each(lambda kernel: kernel_times.cost(*kernel))
    faults = on_the_clock(scenario.faults, network.cables, loaded.node.gpus)
    step = _Step(
        loaded,
        network,
        layout,
        workload,
        workload.graph.priced(lambda kernel: cost_of(kernel).seconds),
        cost_of,
        has_cable_faults=bool(faults.cable_faults),
    )
    try:
        recording = execute(
            step.graph,
            network,
            layout.endpoint_of_rank,
            progress,
            faults=faults,
            price=loaded.costs.pricing,
        )
    except FaultError as error:
        raise loaded.document.error(("faults",), str(error)) from error
    except NoPathError as error:
        raise loaded.document.error(("cluster", "topology"), str(error)) from error
    return _assemble(step, recording)


@dataclass(frozen=True, slots=True)
class _Step:
    """A step and all that it ran on; graph: the workload's, with what its kernels take."""

    loaded: LoadedScenario
    network: Network
    layout: RankLayout
    workload: Workload
    graph: TaskGraph
    cost_of: CostOf
    has_cable_faults: bool

    @property
    def routes_known(self) -> bool:
        """Return whether routes are those of the whole network, whatever the load."""
        return not self.network.routes_by_load and not self.has_cable_faults


def build_workload(loaded: LoadedScenario, layout: RankLayout) -> Workload:
    """Return the workload; a file that was good when the scenario was loaded may have changed since."""
    scenario = loaded.scenario
    try:
        return scenario.workload.build(loaded.setting, layout, np.random.default_rng(scenario.seed))
    except FieldError as error:
        raise loaded.document.error(("workload", *as_path(error.field)), str(error)) from error


def check_unchanged(loaded: LoadedScenario) -> None:
    """Raise InputError if a file that the scenario names is not what it was when the scenario was loaded."""
    for file, digest in loaded.files.items():
        try:
            is_same = file.sha256() == digest
        except OSError:
            is_same = False
        if not is_same:
            message = f"{file.name} has changed since the scenario was loaded; run it again"
            raise loaded.document.error(file.field, message)


def once_each(cost_of: CostOf) -> CostOf:
    """Return the same costs, asked for once of each kernel object: long sequences of calls take long to compare."""
    # kernels are kept, so that no other gets the identity of one that is gone
    known: dict[int, tuple[ComputeKernel, KernelCost]] = {}

    def cost(kernel: ComputeKernel) -> KernelCost:
        if id(kernel) not in known:
            known[id(kernel)] = kernel, cost_of(kernel)
        return known[id(kernel)][1]

    return cost


def link_costs(table: CostTable, profiles: frozenset[str]) -> dict[str, LinkCosts]:
    """Return what a cost table says of each link profile; PCIe's latency is part of its NIC's."""
    costs = {}
    for profile in sorted(profiles):
        latency = table.link_latency.get(profile)
        first_s, more_s = (latency.same_leaf, latency.switch_s) if latency else (0.0, 0.0)
        costs[profile] = LinkCosts(table.link_efficiency[profile].value, first_s, more_s)
    return costs


def _assemble(step: _Step, recording: Recording) -> Result:
    """Return the result: tables from the records, and the summary from the tables."""
    loaded, network, layout, graph, times = (
        step.loaded,
        step.network,
        step.layout,
        step.graph,
        recording.times,
    )
    carried_bytes = network.per_cable(recording.meter.bytes)
    saturated_s = recording.meter.saturated_s[network.link_of_cable]
    links = links_table(network.cables, carried_bytes, saturated_s, times.step_time_s)
    flows = flows_table(graph.collectives, recording.transfers, layout)
    timeline = timeline_table(
        links, recording.meter, network.link_of_cable, network.cables_of_link, times.step_time_s
    )
    waits = explain(
        graph,
        times,
        recording.transfers,
        network,
        layout.endpoint_of_rank,
        loaded.costs.pricing,
        routes_known=step.routes_known,
    )
    summary = _summary(step, times)
    summary["links"] = summarise_links(links)
    summary["bounds_s"] = {"busiest_link": float((links["bytes"] / links["effective_bytes_per_s"]).max())}
    summary["waits"] = waits.of_collective
    if kernels := kernel_summary(graph, times, step.cost_of):
        summary["kernels"] = {**kernels, "peaks": peaks(loaded.node.gpu)}
    before = step.workload.before_balancing
    if before and step.routes_known:
        unbalanced = _bytes_before(before, network, layout, loaded.costs)
        links["bytes_before_balancing"] = unbalanced
        summary["balance"] = compare_loads(links)
    summary["faults"] = describe_faults(
        loaded.scenario.faults,
        times.step_time_s,
        _slow_kernels(loaded.scenario.faults, graph, times, layout),
    )
    summary["simulation"] = _simulation(graph, recording, aggregated="flows" in flows)
    return Result(
        summary=summary,
        tasks=tasks_table(graph, times, layout, waits, kernel_columns(graph, step.cost_of)),
        phases=phases_table(graph, times),
        flows=flows,
        links=links,
        link_timeline=timeline,
        scenario_text=resolved_text(loaded),
        files={file.carried_name: file.path for file in loaded.files},
    )


def _simulation(graph: TaskGraph, recording: Recording, *, aggregated: bool) -> dict[str, Any]:
    """Return how the simulation itself went, for the summary; aggregated: whether the table of flows adds them up."""
    return {
        "flows": sum(len(collective.transfers) for collective in graph.collectives),
        "solves": recording.solves,
        "collectives_solved": recording.collectives_solved,
        "collectives_reused": recording.collectives_reused,
        "reuse": recording.reuse,
        "flows_rerouted": recording.flows_rerouted,
        "flow_rows": "one a collective and pair of nodes" if aggregated else "one a flow",
    }


def _bytes_before(
    collectives: tuple[Collective, ...], network: Network, layout: RankLayout, costs: CostTable
) -> FloatArray:
    """Return what collectives would pass over each cable if they ran: [num_cables] bytes."""
    on_link = np.zeros(network.num_links)
    times = Counter(id(collective.transfers) for collective in collectives)
    for collective in {id(collective.transfers): collective for collective in collectives}.values():
        bills = bills_of(collective, network, layout.endpoint_of_rank, costs.pricing)
        passed = bills.passing_bytes * np.repeat(collective.transfers.size_bytes, np.diff(bills.offsets))
        on_link += times[id(collective.transfers)] * np.bincount(bills.links, passed, network.num_links)
    return network.per_cable(on_link)


def _slow_kernels(
    faults: Sequence[Fault], graph: TaskGraph, times: TaskTimes, layout: RankLayout
) -> dict[tuple[int, int], Spans]:
    """Return when the kernels of GPUs that faults make slow began and ended, by the GPU's node and index."""
    gpus = {(fault.node, fault.index) for fault in faults if isinstance(fault, Straggler)}
    leader = leader_of_rank(graph)
    spans: dict[int, list[tuple[float, float]]] = {int(leader[layout.rank_at[gpu]]): [] for gpu in gpus}
    for number, task in enumerate(graph.tasks if gpus else ()):
        if task.rank in spans and task.duration_s > 0.0:
            spans[task.rank].append((float(times.start_s[number]), float(times.end_s[number])))
    return {gpu: spans[int(leader[layout.rank_at[gpu]])] for gpu in gpus}


def _summary(step: _Step, times: TaskTimes) -> dict[str, Any]:
    """Return the summary but for its links: what was asked, the answer, and where it comes from."""
    loaded, workload, of_workload = step.loaded, step.workload, step.workload.summarise(times)
    scenario = loaded.scenario
    # where nothing crosses a link, neither its figures nor how flows share it matter
    moves = bool(step.graph.collectives)
    profiles = scenario.cluster.link_profiles if moves else frozenset()
    communication = scenario.workload.communication_kernels(loaded.setting)
    compute = dict.fromkeys(distinct_kernels(step.graph)[0])
    return {
        "scenario": scenario.name,
        "question": _question(loaded),
        "step_time_s": sum(of_workload.breakdown_s.values()),
        "metrics": of_workload.metrics,
        "breakdown_s": of_workload.breakdown_s,
        **of_workload.tables,
        **({"gpu_memory_bytes": loaded.node.gpu.memory} if "memory" in of_workload.tables else {}),
        "links": {},
        "provenance": {
            "version": __version__,
            "seed": scenario.seed,
            "scenario_sha256": scenario_sha256(loaded),
            "files": {str(dotted(file.field)): digest for file, digest in loaded.files.items()},
            "cost_sources": loaded.costs.sources(profiles, communication, compute),
            "assumptions": [*(ASSUMPTIONS if moves else ()), *workload.assumptions, *loaded.node.assumptions],
        },
    }


def _question(loaded: LoadedScenario) -> str:
    """Return in one line what was simulated."""
    scenario, cluster = loaded.scenario, loaded.scenario.cluster
    node = cluster.node if isinstance(cluster.node, str) else cluster.node.gpu.name
    gpus = loaded.num_nodes * loaded.node.gpus
    what = scenario.workload.kind + (f" of {Path(scenario.model).name}" if scenario.model else "")
    where = f"{loaded.num_nodes} x {node}, {gpus} GPUs"
    if is_limit(scenario.workload):
        return f"the idealised limit of {what}, a bound and not a simulation; {where}"
    network = f"{cluster.topology.kind}, {cluster.routing} routing"
    return "; ".join([what, where, network, f"costs {loaded.costs.name}"])
