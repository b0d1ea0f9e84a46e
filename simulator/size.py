"""How much memory a scenario will take, estimated before anything of it is built.

What a run holds is counted by formula: edges of the graph, cells of links' timelines, tasks, collectives, transfers,
and the links that these charge. Each costs so many bytes as `python benchmarks/size.py` finds in processes that run
scenarios of many sizes: least squares of their peaks, none negative. The estimate is of the peak; it is meant to be
within a factor of two, and rather above than below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from simulator.crossings import LINKS_WITHIN_NODE, Crossing, crossing, num_edges
from simulator.machine_memory import MemoryLimit
from simulator.meter import MAX_BINS, MAX_CELLS
from simulator.result import MAX_FLOW_ROWS
from topologies import NodeSpec, Topology
from workloads.size import TransferCount, WorkSize

_GIBIBYTE: Final = 2**30


class Counts(NamedTuple):
    """What a run holds.

    edges: of the cluster's graph; cells: of links and bins of the timeline; tasks: of the task graph
    held: transfers that are kept; crossed: links that transfers under way at a time charge, each for itself
    timed: transfers whose times are kept; rows: of the table of flows; drawn: numbers in the tables in which it is
    counted which experts tokens go to
    """

    edges: int
    cells: int
    tasks: int = 0
    held: int = 0
    crossed: int = 0
    timed: int = 0
    rows: int = 0
    drawn: int = 0


# Bytes of a process that has run the smallest scenario, and of each more that a scenario holds: fitted, by
# `python benchmarks/size.py`.
BASE_BYTES: Final = 335_000_000
BYTES: Final = Counts(edges=1_200, cells=12, tasks=1_200, held=150, crossed=90, timed=12, rows=60, drawn=35)
# Policies by which collectives that are alike take the same routes.
_SAME_ROUTES: Final = frozenset({"adaptive", "static"})
# What each is part of, and the field to lower where that part is the largest; empty for the workload's own.
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "the network": ("edges",),
    "links' timelines": ("cells",),
    "tasks": ("tasks",),
    "transfers": ("held", "crossed", "timed", "rows"),
    "tables of tokens": ("drawn",),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory that a run takes when it takes most.

    work_field, work_remedy: as of `WorkSize`, empty for a network by itself
    """

    counts: Counts
    work_field: str = ""
    work_remedy: str = ""

    @property
    def parts(self) -> dict[str, int]:
        """Return the bytes of each part, the largest first."""
        priced = {name: getattr(self.counts, name) * getattr(BYTES, name) for name in Counts._fields}
        parts = {part: sum(priced[name] for name in names) for part, names in _PARTS.items()}
        return dict(sorted(parts.items(), key=lambda item: -item[1]))

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all parts, and of the program."""
        return BASE_BYTES + sum(self.parts.values())

    @property
    def field(self) -> str:
        """Return the field of the scenario that says how large the largest part is, dotted."""
        return "cluster.nodes" if self._is_network else f"workload.{self.work_field}"

    @property
    def _is_network(self) -> bool:
        return next(iter(self.parts)) in {"the network", "links' timelines"} or not self.work_field

    def refusal(self, limit: MemoryLimit) -> str:
        """Return why a run does not fit into the memory that a process may have; empty if it does."""
        if self.total_bytes <= limit.size_bytes:
            return ""
        counts = self.counts
        of_parts = {
            "the network": f"{counts.edges // 2:,} cables",
            "links' timelines": f"{counts.cells:,} links and bins",
            "tasks": f"{counts.tasks:,}",
            "transfers": f"{counts.held:,}, which charge {counts.crossed:,} links at a time",
            "tables of tokens": f"{counts.drawn:,} numbers",
        }
        named = [
            f"{name} {_gibibytes(size)} ({of_parts[name]})"
            for name, size in self.parts.items()
            if size >= self.total_bytes / 100
        ]
        remedy = "use fewer nodes" if self._is_network else self.work_remedy
        return (
            f"this run would take about {_gibibytes(self.total_bytes)} of memory, and {limit.reason} "
            f"{_gibibytes(limit.size_bytes)}; {'; '.join(named)}; {remedy}, or run it all the same with --any-size"
        )


def most_at_a_time(sizes_bytes: Sequence[int], wanted: int, limit: MemoryLimit) -> int:
    """Return how many of some runs may be under way at a time, whichever they are: at least one, at most `wanted`."""
    largest = sorted(sizes_bytes, reverse=True)[:wanted]
    together = (total <= limit.size_bytes for total in accumulate(largest))
    return max(1, sum(together))


def fewer_at_a_time(wanted: int, fitting: int, limit: MemoryLimit) -> str:
    """Return why fewer runs are under way at a time than could be, empty if as many are."""
    if fitting >= wanted:
        return ""
    return (
        f"{fitting} at a time instead of {wanted}: {limit.reason} {_gibibytes(limit.size_bytes)} of memory, in which "
        "more of these runs may not fit by their estimates; --any-size runs them all the same"
    )


def estimate(
    topology: Topology,
    node: NodeSpec,
    num_nodes: int,
    routing: str,
    work: WorkSize,
    *,
    bundle: bool,
    is_reused: bool,
) -> Estimate:
    """Return what a run takes; raise FieldError if the nodes do not fit the topology.

    routing: a policy of `simulator.routing.POLICIES`; bundle: whether cables that are alike may share a link
    is_reused: whether collectives that repeat one another may take one solution
    """
    network = topology.counts(node, num_nodes)
    crossed = crossing(topology, node, num_nodes, network, routing, bundle=bundle)
    repeats = work.repeats and is_reused and routing in _SAME_ROUTES
    counts = Counts(
        edges=num_edges(node, num_nodes, network),
        cells=min(MAX_CELLS, MAX_BINS * crossed.links),
        tasks=work.tasks,
        held=work.held.transfers,
        crossed=_charged(work.together, crossed),
        timed=work.held.transfers if repeats else work.flows,
        rows=min(work.flows, MAX_FLOW_ROWS),
        drawn=work.drawn,
    )
    return Estimate(counts, work.field, work.remedy)


def estimate_graph(topology: Topology, node: NodeSpec, num_nodes: int) -> Estimate:
    """Return what a cluster's graph takes by itself; raise FieldError if the nodes do not fit the topology."""
    edges = num_edges(node, num_nodes, topology.counts(node, num_nodes))
    return Estimate(Counts(edges=edges, cells=0))


def _charged(transfers: TransferCount, crossed: Crossing) -> int:
    """Return the links that transfers charge, at most: each crosses the network once, and NVLink to every stop."""
    return transfers.transfers * crossed.charged + transfers.stops * LINKS_WITHIN_NODE


def _gibibytes(size_bytes: float) -> str:
    """Return bytes as text."""
    gibibytes = size_bytes / _GIBIBYTE
    return f"{gibibytes:,.2f} GiB" if gibibytes < 10.0 else f"{gibibytes:,.0f} GiB"
