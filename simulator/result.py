"""What a run says: tidy tables with units in their column names, a summary, and where every number comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulator.cables import Cables
from simulator.meter import LinkMeter
from simulator.transfer_times import TransferTimes
from workloads.tasks import Collective, Layout, TaskGraph, TaskTimes, Transfers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

MAX_FLOW_ROWS: Final = 1_000_000  # beyond it, a row per collective, source node and destination node
MAX_TIMELINE_ROWS: Final = 1_000_000  # beyond it, neighbouring bins are added up
ROUNDING: Final = 1e-9
_TABLES: Final = ("tasks", "flows", "links", "link_timeline")


@dataclass(frozen=True, slots=True)
class Result:
    """The tables and the summary of one run.

    summary: what `--json` prints
    tasks: a row per task: see `tasks_table`
    flows: a row per flow, or per collective and pair of nodes: see `flows_table`
    links: a row per cable and direction: see `links_table`
    link_timeline: a row per used cable and time bin: see `timeline_table`
    scenario_text: the scenario as resolved, as YAML
    """

    summary: dict[str, Any]
    tasks: pd.DataFrame
    flows: pd.DataFrame
    links: pd.DataFrame
    link_timeline: pd.DataFrame
    scenario_text: str

    @property
    def step_time_s(self) -> float:
        """Return the time of the step in seconds."""
        return float(self.summary["step_time_s"])

    def to_json(self) -> str:
        """Return the summary as one line of JSON."""
        return json.dumps(self.summary, allow_nan=False)

    def save(self, folder: Path) -> None:
        """Write `summary.json`, `scenario.yaml` and the tables as Parquet into a folder, made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TABLES:
            getattr(self, name).to_parquet(folder / f"{name}.parquet", index=False)
        (folder / "scenario.yaml").write_text(self.scenario_text, "utf-8")
        (folder / "summary.json").write_text(
            json.dumps(self.summary, allow_nan=False, indent=2) + "\n", "utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the result that `save` wrote into a folder."""
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        return cls(summary=summary, scenario_text=(folder / "scenario.yaml").read_text("utf-8"), **tables)


class Waits(Protocol):
    """What tasks waited for: `simulator.waits.Waits` is one."""

    @property
    def transfer(self) -> IntArray:
        """[num_tasks] row of the transfer in its collective, -1 for none."""

    @property
    def cable(self) -> IntArray:
        """[num_tasks] the busiest on that transfer's route, -1 for none."""


def tasks_table(
    graph: TaskGraph, times: TaskTimes, layout: Layout, waits: Waits, kernels: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Return a row per task that runs on a stream, in the order of the graph (barriers are left out).

    Columns: task (its index in the graph), name, rank, node, gpu, stream, start_s, end_s; of the last transfer to end
    of those that the rank sent or received in the task's collective waited_for_source, waited_for_destination (ranks,
    -1: none, or several), and waited_for_link (the busiest on its way, as in `links`; -1: none, or not known); and
    those of `kernels` [num_tasks]: see `simulator.kernel_shares.kernel_columns`.
    """
    tasks = graph.tasks
    source, destination = _ends_of_waits(graph, waits.transfer, layout)
    shown = [index for index, task in enumerate(tasks) if task.stream is not None]
    ranks = np.array([tasks[index].rank for index in shown], np.int64)
    return pd.DataFrame(
        {
            "task": shown,
            "name": [tasks[index].name for index in shown],
            "rank": ranks,
            "node": layout.node_of_rank[ranks],
            "gpu": layout.gpu_of_rank[ranks],
            "stream": [str(tasks[index].stream) for index in shown],
            "start_s": times.start_s[shown],
            "end_s": times.end_s[shown],
            "waited_for_source": source[shown],
            "waited_for_destination": destination[shown],
            "waited_for_link": waits.cable[shown],
            **{name: [column[index] for index in shown] for name, column in kernels.items()},
        }
    )


def _ends_of_waits(graph: TaskGraph, transfer: IntArray, layout: Layout) -> tuple[IntArray, IntArray]:
    """Return the source and the destination of the transfer that each task waited for: [num_tasks] each."""
    source, destination = np.full(len(transfer), -1), np.full(len(transfer), -1)
    of_task = np.array([-1 if task.collective is None else task.collective for task in graph.tasks], np.int64)
    known: dict[int, tuple[IntArray, IntArray]] = {}
    for number in np.unique(of_task[transfer >= 0]).tolist():
        transfers = graph.collectives[number].transfers
        if id(transfers) not in known:
            fan, _ = _common_destination(transfers, layout)
            known[id(transfers)] = (
                np.where(transfers.reduce, fan, transfers.source_rank),
                np.where(transfers.reduce, transfers.source_rank, fan),
            )
        tasks = np.flatnonzero((of_task == number) & (transfer >= 0))
        source[tasks], destination[tasks] = (ends[transfer[tasks]] for ends in known[id(transfers)])
    return source, destination


def flows_table(
    collectives: tuple[Collective, ...],
    times: Sequence[TransferTimes],
    layout: Layout,
    *,
    max_rows: int = MAX_FLOW_ROWS,
) -> pd.DataFrame:
    """Return a row per flow; beyond `max_rows` flows a row per collective, source node and destination node.

    Columns: collective, source_rank, destination_rank (-1: several), source_node, destination_node (-1:
    several), size_bytes, start_s (when its bytes began to move), end_s; aggregated rows have, in place of the
    ranks, flows (how many), the sum of their bytes, the first start and the last end.
    """
    parts = [
        _flows_of(collective, times_of, layout)
        for collective, times_of in zip(collectives, times, strict=True)
    ]
    flows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if len(flows) <= max_rows:
        return flows
    keys = ["collective", "source_node", "destination_node"]
    return flows.groupby(keys, sort=False, as_index=False).agg(
        flows=("size_bytes", "size"),
        size_bytes=("size_bytes", "sum"),
        start_s=("start_s", "min"),
        end_s=("end_s", "max"),
    )


def _flows_of(collective: Collective, times: TransferTimes, layout: Layout) -> pd.DataFrame:
    """Return a row per transfer of a collective."""
    transfers = collective.transfers
    fan, fan_node = _common_destination(transfers, layout)
    source, source_node = transfers.source_rank, layout.node_of_rank[transfers.source_rank]
    return pd.DataFrame(
        {
            "collective": collective.name,
            "source_rank": np.where(transfers.reduce, fan, source),
            "destination_rank": np.where(transfers.reduce, source, fan),
            "source_node": np.where(transfers.reduce, fan_node, source_node),
            "destination_node": np.where(transfers.reduce, source_node, fan_node),
            "size_bytes": transfers.size_bytes,
            "start_s": times.start_s,
            "end_s": times.end_s,
        }
    )


def _common_destination(transfers: Transfers, layout: Layout) -> tuple[IntArray, IntArray]:
    """Return the destination rank and node of each transfer, -1 where it has several."""
    first = transfers.destination_offsets[:-1]
    single = np.diff(transfers.destination_offsets) == 1
    ranks = np.where(single, transfers.destination_ranks[first], -1)
    nodes = layout.node_of_rank[transfers.destination_ranks]
    alike = np.minimum.reduceat(nodes, first) == np.maximum.reduceat(nodes, first) if len(first) else single
    return ranks, np.where(alike, nodes[first], -1)


def links_table(
    cables: Cables, carried_bytes: FloatArray, saturated_s: FloatArray, step_time_s: float
) -> pd.DataFrame:
    """Return a row per cable and direction.

    carried_bytes, saturated_s: [num_cables]. Columns: link, kind, source, target, key, plane, node,
    capacity_bytes_per_s (datasheet), effective_bytes_per_s, bytes, utilisation (bytes over datasheet capacity
    times step), saturated_fraction (share of the step at effective capacity).
    """
    step_s = step_time_s if step_time_s > 0 else np.inf
    return pd.DataFrame(
        {
            "link": np.arange(len(cables)),
            "kind": cables.kind,
            "source": cables.source,
            "target": cables.target,
            "key": cables.key,
            "plane": cables.plane,
            "node": cables.node,
            "capacity_bytes_per_s": cables.capacity_bytes_per_s,
            "effective_bytes_per_s": cables.effective_bytes_per_s,
            "bytes": carried_bytes,
            "utilisation": _without_rounding(carried_bytes / (cables.capacity_bytes_per_s * step_s)),
            "saturated_fraction": _without_rounding(saturated_s / step_s),
        }
    )


def timeline_table(
    links: pd.DataFrame,
    meter: LinkMeter,
    link_of_cable: IntArray,
    cables_of_link: IntArray,
    step_time_s: float,
) -> pd.DataFrame:
    """Return each used cable's bytes in equal time bins that cover the step, integrated exactly.

    Columns: link (as in `links`), start_s, end_s (the last bin may reach past the step), bytes, utilisation.
    """
    used = links["link"].to_numpy()[links["bytes"].to_numpy() > 0.0]
    meter = meter.covering(step_time_s)
    width_s = meter.width_s
    num_bins = min(max(1, int(np.ceil(step_time_s / width_s))), meter.bins.shape[1])
    merged = 1
    while len(used) * -(-num_bins // merged) > MAX_TIMELINE_ROWS and merged < num_bins:
        merged *= 2
    kept_bins = -(-num_bins // merged)
    edges = np.arange(kept_bins) * merged
    bins = np.add.reduceat(meter.bins[:, :num_bins], edges, axis=1)
    shares = bins[link_of_cable[used]] / cables_of_link[link_of_cable[used]][:, np.newaxis]
    shares = np.maximum(shares, 0.0)  # a flow's last rounding error may be all that an empty bin holds
    capacity = np.repeat(links["capacity_bytes_per_s"].to_numpy()[used], kept_bins)
    return pd.DataFrame(
        {
            "link": np.repeat(used, kept_bins),
            "start_s": np.tile(edges * width_s, len(used)),
            "end_s": np.tile((edges + merged) * width_s, len(used)),
            "bytes": shares.ravel(),
            "utilisation": _without_rounding(shares.ravel() / (capacity * merged * width_s)),
        }
    )


def _without_rounding(fraction: FloatArray) -> FloatArray:
    """Return fractions that are at most 1, where rounding alone has carried them past it."""
    return np.where((fraction > 1.0) & (fraction < 1.0 + ROUNDING), 1.0, fraction)


def compare_loads(links: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return, by link kind, the largest and the mean load of a link before and after balancing, in bytes.

    links: as `links_table` has it, with `bytes_before_balancing` beside `bytes`
    """
    return {
        str(kind): {
            "max_bytes_before": float(rows["bytes_before_balancing"].max()),
            "max_bytes_after": float(rows["bytes"].max()),
            "mean_bytes_before": float(rows["bytes_before_balancing"].mean()),
            "mean_bytes_after": float(rows["bytes"].mean()),
        }
        for kind, rows in links.groupby("kind", sort=False)
        if rows["bytes"].any()
    }


def summarise_links(links: pd.DataFrame) -> dict[str, dict[str, float | int]]:
    """Return, by link kind, mean and peak utilisation, the busiest link's saturated share, bytes and count."""
    kinds: dict[str, dict[str, float | int]] = {}
    for kind, rows in links.groupby("kind", sort=False):
        busiest = rows.loc[rows["utilisation"].idxmax()]
        kinds[str(kind)] = {
            "mean_utilisation": float(rows["utilisation"].mean()),
            "peak_utilisation": float(busiest["utilisation"]),
            "saturated_fraction": float(busiest["saturated_fraction"]),
            "bytes": float(rows["bytes"].sum()),
            "count": len(rows),
        }
    return kinds
