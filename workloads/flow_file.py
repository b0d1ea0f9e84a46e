"""A list of flows read from a CSV or Parquet file, strictly: whatever is wrong is named with its line and column."""

import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from workloads.table_file import (
    Fault,
    column_names,
    distinct_texts,
    is_csv,
    is_text,
    numbers,
    opened,
    parts,
    raise_first,
    show,
)
from workloads.tasks import FloatArray, IntArray

MOST_FLOWS: Final = 1_000_000
# An exbibyte would keep a 400 Gbit/s port busy for eight months; clocks of a million seconds still resolve 0.1 ns.
MOST_BYTES: Final = 2**60
LATEST_START_S: Final = 10**6
_REQUIRED: Final = ("source", "destination", "size_bytes")
_OPTIONAL: Final = "start_s"
_RANK: Final = re.compile(r"[0-9]{1,9}")
_GPU: Final = re.compile(r"node([0-9]{1,9})/gpu([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class FlowTable:
    """Flows as columns: source_rank, destination_rank, size_bytes, start_s, each [num_flows]; SI units."""

    source_rank: IntArray
    destination_rank: IntArray
    size_bytes: FloatArray
    start_s: FloatArray


def read_flow_file(path: Path, rank_at: IntArray) -> FlowTable:
    """Return the flows of a CSV (`.csv`) or Parquet (`.parquet`, `.pq`) file, at most MOST_FLOWS.

    Its columns are source and destination (a rank number or a GPU such as `node3/gpu5`), size_bytes and, if flows
    do not all start at 0, start_s. rank_at: [num_nodes, gpus_per_node] the rank on each GPU, -1 for none. Raises
    ValueError, naming file, line and column, for a file that cannot be used.
    """
    with opened(path):
        names = column_names(path)
        _check_columns(f"{path}, line 1" if is_csv(path) else str(path), names)
        table = _read(path, names)
    flows, faults = _parse(table, rank_at)
    raise_first(path, faults, 0)
    return flows


def count_flows(path: Path) -> int:
    """Return the rows of such a file, held some at a time; raise ValueError if it cannot be read, or has too many."""
    with opened(path):
        num_rows = 0
        for part in parts(path, column_names(path)):
            num_rows += len(part)
            if num_rows > MOST_FLOWS:
                break
    _check_num_rows(path, num_rows)
    return num_rows


def _read(path: Path, names: list[str]) -> pa.Table:
    """Return the file's rows: of a CSV as text, of a Parquet file in the types that it has."""
    found = []
    num_rows = 0
    for part in parts(path, names):
        found.append(part)
        num_rows += len(part)
        if num_rows > MOST_FLOWS:
            break
    _check_num_rows(path, num_rows)
    return pa.concat_tables(found)


def _check_columns(place: str, names: list[str]) -> None:
    """Raise ValueError unless the columns are the required ones, in any order, and at most the optional one."""
    known = (*_REQUIRED, _OPTIONAL)
    right = f"the columns are {', '.join(_REQUIRED)} and, if wanted, {_OPTIONAL}"
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    unknown = [name for name in names if name not in known]
    missing = [name for name in _REQUIRED if name not in names]
    for fault, columns in (("missing", missing), ("unknown", unknown), ("repeated", repeated)):
        if columns:
            msg = f"{place}: {fault} column {reprlib.repr(columns[0])}; {right}"
            raise ValueError(msg)


def _check_num_rows(path: Path, num_rows: int) -> None:
    if num_rows == 0:
        msg = f"{path} holds no flows; each row after the header is one"
        raise ValueError(msg)
    if num_rows > MOST_FLOWS:
        msg = (
            f"{path} holds more than {MOST_FLOWS:,} flows; split it or merge flows between the same endpoints"
        )
        raise ValueError(msg)


def _parse(table: pa.Table, rank_at: IntArray) -> tuple[FlowTable, list[Fault]]:
    """Return the flows, and the first fault of each column; flows are meaningless where there are faults."""
    faults: list[Fault] = []
    flows = FlowTable(
        source_rank=_ranks(table, "source", rank_at, faults),
        destination_rank=_ranks(table, "destination", rank_at, faults),
        size_bytes=numbers(table, "size_bytes", MOST_BYTES, faults),
        start_s=(
            numbers(table, _OPTIONAL, LATEST_START_S, faults)
            if _OPTIONAL in table.column_names
            else np.zeros(len(table))
        ),
    )
    itself = (flows.source_rank == flows.destination_rank) & (flows.source_rank >= 0)
    if itself.any():
        row = int(itself.argmax())
        message = f"rank {flows.source_rank[row]} would send to itself; source and destination must differ"
        faults.append(Fault(row, "destination", message))
    return flows, faults


def _ranks(table: pa.Table, name: str, rank_at: IntArray, faults: list[Fault]) -> IntArray:
    """Return [num_flows] the ranks that a column of endpoints names, -1 for an unknown one."""
    column = table[name]
    if not (pa.types.is_integer(column.type) or is_text(column.type)):
        faults.append(Fault(0, name, f"holds {column.type}; endpoints are whole numbers or text"))
        return np.full(len(table), -1)
    # each name is looked up once, however many flows it has
    texts, place = distinct_texts(column if is_text(column.type) else column.cast(pa.string()))
    num_ranks = int((rank_at >= 0).sum())
    rank_of_name = np.array(
        [_rank_of(endpoint, rank_at, num_ranks) for endpoint in texts.to_pylist()], np.int64
    )
    ranks: IntArray = rank_of_name[place]
    if (ranks < 0).any():
        row = int((ranks < 0).argmax())
        num_nodes, gpus_per_node = rank_at.shape
        message = (
            f"unknown endpoint {show(texts[place[row]].as_py())}; ranks are 0 to {num_ranks - 1}, "
            f"GPUs node0/gpu0 to node{num_nodes - 1}/gpu{gpus_per_node - 1}"
        )
        faults.append(Fault(row, name, message))
    return ranks


def _rank_of(endpoint: str, rank_at: IntArray, num_ranks: int) -> int:
    """Return the rank that `endpoint` names, -1 if none."""
    if _RANK.fullmatch(endpoint):
        rank = int(endpoint)
        return rank if rank < num_ranks else -1
    gpu = _GPU.fullmatch(endpoint)
    if gpu is None:
        return -1
    node, index = int(gpu[1]), int(gpu[2])
    num_nodes, gpus_per_node = rank_at.shape
    return int(rank_at[node, index]) if node < num_nodes and index < gpus_per_node else -1
