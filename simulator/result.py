"""What a run says: tidy tables with units in their column names, a summary, and where every number comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulator.cables import Cables
from simulator.durable import naming, write_file
from simulator.input_files import INPUTS, copy_unchanged
from simulator.meter import LinkMeter
from simulator.node_pairs import flows_by_nodes
from simulator.task_columns import NONE, collective_of_task, fold_sizes, rank_of_task
from simulator.transfer_ends import TransferEnds
from simulator.transfer_times import TransferTimes
from simulator.whole_folder import WholeFolder, read_whole
from workloads.tasks import Collective, Layout, TaskGraph, TaskTimes

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

MAX_FLOW_ROWS: Final = 1_000_000  # beyond it, a row per collective's name and pair of nodes
MAX_TIMELINE_ROWS: Final = 1_000_000  # beyond it, neighbouring bins are added up
ROUNDING: Final = 1e-9
_TABLES: Final = ("tasks", "phases", "flows", "links", "link_timeline")
RESULT_KIND: Final = "run"  # what a folder of a result calls the command that writes such
RESULT_FILES: Final = ("summary.json", "scenario.yaml", *(f"{name}.parquet" for name in _TABLES))


@dataclass(frozen=True, slots=True)
class Result:
    """The tables and the summary of one run.

    summary: what `--json` prints
    tasks: a row per task: see `tasks_table`
    phases: a row per phase of the graph: see `phases_table`
    flows: a row per flow, or per collective and pair of nodes: see `flows_table`
    links: a row per cable and direction: see `links_table`
    link_timeline: a row per used cable and time bin: see `timeline_table`
    scenario_text: the scenario as resolved, as YAML, naming copies of its files as a saved result holds them
    files: of each such copy, by the name in that text, the path of the file that it is a copy of
    """

    summary: dict[str, Any]
    tasks: pd.DataFrame
    phases: pd.DataFrame
    flows: pd.DataFrame
    links: pd.DataFrame
    link_timeline: pd.DataFrame
    scenario_text: str
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def step_time_s(self) -> float:
        """Return the time of the step in seconds."""
        return float(self.summary["step_time_s"])

    def to_json(self) -> str:
        """Return the summary as one line of JSON."""
        return json.dumps(self.summary, allow_nan=False)

    def save(self, folder: Path) -> None:
        """Make this the result that a folder holds, all at once; the folder is made if need be.

        An earlier result in it is replaced, files of others are left alone. Raises what `write` does, and
        FolderRefused (a ValueError) if the folder holds something else; it then holds what it held before.
        """
        with WholeFolder(folder, RESULT_KIND, RESULT_FILES).replaced() as new:
            self.write(new)

    def write(self, folder: Path) -> None:
        """Write `summary.json`, `scenario.yaml` and the files that it names, and the tables as Parquet.

        Raises OSError, and InputError if a file that the scenario names has changed.
        """
        for name, path in self.files.items():
            digest = self.summary["provenance"]["files"][name.split("/")[1]]
            with naming(folder / name):
                copy_unchanged(path, folder / name, digest)
        for name in _TABLES:
            with naming(folder / f"{name}.parquet"):
                getattr(self, name).to_parquet(folder / f"{name}.parquet", index=False)
        write_file(folder / "scenario.yaml", self.scenario_text.encode())
        summary = json.dumps(self.summary, allow_nan=False, indent=2)
        write_file(folder / "summary.json", f"{summary}\n".encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the result that `save` wrote into a folder.

        Raises FileNotFoundError if there is none, and FolderRefused (a ValueError) if one of its files is damaged or
        missing, as far as the folder lists them: those that older versions wrote do not.
        """
        return read_whole(folder, RESULT_FILES, lambda: cls._read(folder))

    @classmethod
    def _read(cls, folder: Path) -> Self:
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        copies = sorted(path for path in (folder / INPUTS).glob("*/*") if path.is_file())
        return cls(
            summary=summary,
            scenario_text=(folder / "scenario.yaml").read_text("utf-8"),
            files={path.relative_to(folder).as_posix(): path for path in copies},
            **tables,
        )


class Waits(Protocol):
    """What tasks waited for: `simulator.waits.Waits` is one."""

    @property
    def transfer(self) -> IntArray:
        """[num_tasks] row of the transfer in its collective, -1 for none."""

    @property
    def cable(self) -> IntArray:
        """[num_tasks] the busiest on that transfer's route, -1 for none."""


def tasks_table(
    graph: TaskGraph,
    times: TaskTimes,
    layout: Layout,
    waits: Waits,
    kernels: Mapping[str, pd.api.extensions.ExtensionArray],
) -> pd.DataFrame:
    """Return a row per task that runs on a stream or takes part in a collective, in the order of the graph.

    Columns: task (its index in the graph), name, rank, ranks (how many it stands for, 1 where nothing is folded),
    node, gpu, stream (empty for tasks on none), start_s, end_s; of the last transfer to end of those that its ranks
    sent or received in the task's collective waited_for_source, waited_for_destination (ranks, -1: none, or
    several), and waited_for_link (the busiest on its way, as in `links`; -1: none, or not known); and those of
    `kernels` [num_tasks]: see `simulator.kernel_shares.kernel_columns`.
    """
    tasks, of_task = graph.tasks, collective_of_task(graph)
    on_stream = np.array([task.stream is not None for task in tasks], np.bool_)
    shown = np.flatnonzero(on_stream | (of_task != NONE))
    ranks = rank_of_task(graph)[shown]
    source, destination = _ends_of_waits(graph, of_task, waits.transfer, layout)
    return pd.DataFrame(
        {
            "task": shown,
            "name": [tasks[index].name for index in shown.tolist()],
            "rank": ranks,
            "ranks": fold_sizes(graph)[ranks],
            "node": layout.node_of_rank[ranks],
            "gpu": layout.gpu_of_rank[ranks],
            "stream": [str(tasks[index].stream or "") for index in shown.tolist()],
            "start_s": times.start_s[shown],
            "end_s": times.end_s[shown],
            "waited_for_source": source[shown],
            "waited_for_destination": destination[shown],
            "waited_for_link": waits.cable[shown],
            **{name: column.take(shown) for name, column in kernels.items()},
        }
    )


def _ends_of_waits(
    graph: TaskGraph, of_task: IntArray, transfer: IntArray, layout: Layout
) -> tuple[IntArray, IntArray]:
    """Return the source and the destination rank of the transfer that each task waited for: [num_tasks] each."""
    source, destination = np.full(len(transfer), -1), np.full(len(transfer), -1)
    waiting = np.flatnonzero(transfer >= 0)
    place_of: dict[int, int] = {}
    place_of_collective = np.array(
        [place_of.setdefault(id(each.transfers), len(place_of)) for each in graph.collectives], np.int64
    )
    distinct = {id(each.transfers): each.transfers for each in graph.collectives}
    place = place_of_collective[of_task[waiting]]
    by_transfers = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[by_transfers], np.arange(len(place_of) + 1))
    for number, transfers in enumerate(distinct.values()):
        tasks = waiting[by_transfers[bounds[number] : bounds[number + 1]]]
        if len(tasks):
            ends = TransferEnds.of(transfers, layout)
            source[tasks] = ends.source_rank[transfer[tasks]]
            destination[tasks] = ends.destination_rank[transfer[tasks]]
    return source, destination


def phases_table(graph: TaskGraph, times: TaskTimes) -> pd.DataFrame:
    """Return a row per phase of a graph, in its order; none where it has no phases.

    Columns: rank, ranks (how many it stands for), kind, forward_pipeline, forward_stage, forward_micro_batch,
    backward_pipeline, backward_stage, backward_micro_batch (-1: the phase has no such part), start_s (when the first
    of its tasks began), end_s (when the last ended); a phase of no tasks has NaN for both.
    """
    phases = graph.phases
    ranks = np.array([phase.rank for phase in phases], np.int64)
    parts = {"forward": [phase.forward for phase in phases], "backward": [phase.backward for phase in phases]}
    ranges = [slice(phase.first_task, phase.end_task) for phase in phases]
    spans = [(times.start_s[tasks], times.end_s[tasks]) for tasks in ranges]
    return pd.DataFrame(
        {
            "rank": ranks,
            "ranks": fold_sizes(graph)[ranks],
            "kind": pd.Series([phase.kind for phase in phases], dtype="str"),
            **{
                f"{part}_{name}": np.array([-1 if cell is None else cell[place] for cell in cells], np.int64)
                for part, cells in parts.items()
                for place, name in enumerate(("pipeline", "stage", "micro_batch"))
            },
            "start_s": np.array([start_s.min() if len(start_s) else np.nan for start_s, _ in spans]),
            "end_s": np.array([end_s.max() if len(end_s) else np.nan for _, end_s in spans]),
        }
    )


def flows_table(
    collectives: tuple[Collective, ...],
    times: Sequence[TransferTimes],
    layout: Layout,
    *,
    max_rows: int = MAX_FLOW_ROWS,
) -> pd.DataFrame:
    """Return a row per flow; beyond `max_rows` flows a row per collective's name and pair of nodes.

    Columns: collective, source_rank, destination_rank (-1: several), source_node, destination_node (-1:
    several), size_bytes, start_s (when its bytes began to move), end_s. Beyond: `node_pairs.flows_by_nodes`.
    Collectives that did not run have no flows.
    """
    if sum(len(times_of.end_after_s) for times_of in times) > max_rows:
        return flows_by_nodes(collectives, times, layout)
    ran = [
        (collective, times_of)
        for collective, times_of in zip(collectives, times, strict=True)
        if len(times_of.end_after_s)
    ]
    distinct = {id(collective.transfers): collective.transfers for collective, _ in ran}
    ends_of = {key: TransferEnds.of(transfers, layout) for key, transfers in distinct.items()}
    ends = [ends_of[id(collective.transfers)] for collective, _ in ran]
    num_flows = [len(collective.transfers) for collective, _ in ran]
    return pd.DataFrame(
        {
            "collective": np.array([collective.name for collective, _ in ran], np.object_).repeat(num_flows),
            "source_rank": _joined([each.source_rank for each in ends]),
            "destination_rank": _joined([each.destination_rank for each in ends]),
            "source_node": _joined([each.source_node for each in ends]),
            "destination_node": _joined([each.destination_node for each in ends]),
            "size_bytes": _joined([collective.transfers.size_bytes for collective, _ in ran]),
            "start_s": _joined([times_of.start_s for _, times_of in ran]),
            "end_s": _joined([times_of.end_s for _, times_of in ran]),
        }
    )


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays one after the other, which may be none."""
    return np.concatenate(parts) if parts else np.zeros(0)


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
    num_bins = min(max(1, int(np.ceil(step_time_s / width_s))), len(meter.bins))
    merged = 1
    while len(used) * -(-num_bins // merged) > MAX_TIMELINE_ROWS and merged < num_bins:
        merged *= 2
    kept_bins = -(-num_bins // merged)
    edges = np.arange(kept_bins) * merged
    bins = np.add.reduceat(meter.bins[:num_bins], edges)
    shares = bins.T[link_of_cable[used]] / cables_of_link[link_of_cable[used]][:, np.newaxis]
    shares = np.maximum(shares, 0.0)  # a flow's last rounding error may be all that an empty bin holds
    most_bytes = links["effective_bytes_per_s"].to_numpy()[used] * merged * width_s
    shares = _within_capacity(shares, most_bytes)
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


def _within_capacity(bytes_in_bins: FloatArray, most_bytes: FloatArray) -> FloatArray:
    """Return bytes in bins, none of which holds more than a link can carry: what is too much goes to those beside it.

    bytes_in_bins: [num_links, num_bins], exact but where traffic that is played back is linear between instants; that
    of two collectives, of which one follows the other, may then fall into one bin; most_bytes: [num_links]
    """
    is_over = (bytes_in_bins > most_bytes[:, np.newaxis] * (1.0 + ROUNDING)).any(axis=1)
    if not is_over.any():
        return bytes_in_bins
    rows, most = bytes_in_bins[is_over], most_bytes[is_over]
    left = np.zeros(len(rows))
    for columns in (rows.T, rows.T[::-1]):  # on to the next bins, and back from the last where they are full
        for column in columns:
            wanted = column + left
            column[:] = np.minimum(wanted, most)
            left = wanted - column
    within = bytes_in_bins.copy()
    within[is_over] = rows
    return within


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
    """Return, by link kind, mean and peak utilisation, the busiest link's saturated share, bytes and count.

    Of links that are equally busy but for rounding it is the first.
    """
    kinds: dict[str, dict[str, float | int]] = {}
    for kind, rows in links.groupby("kind", sort=False):
        peak = float(rows["utilisation"].max())
        busiest = rows.loc[rows["utilisation"] >= peak * (1.0 - ROUNDING)].iloc[0]
        kinds[str(kind)] = {
            "mean_utilisation": float(rows["utilisation"].mean()),
            "peak_utilisation": peak,
            "saturated_fraction": float(busiest["saturated_fraction"]),
            "bytes": float(rows["bytes"].sum()),
            "count": len(rows),
        }
    return kinds
