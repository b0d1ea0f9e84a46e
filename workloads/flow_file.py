"""A list of flows read from a CSV or Parquet file, strictly: whatever is wrong is named with its line and column."""

import csv
import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workloads.tasks import FloatArray, IntArray

MOST_FLOWS: Final = 1_000_000
# An exbibyte would keep a 400 Gbit/s port busy for eight months; clocks of a million seconds still resolve 0.1 ns.
MOST_BYTES: Final = 2**60
LATEST_START_S: Final = 10**6
_REQUIRED: Final = ("source", "destination", "size_bytes")
_OPTIONAL: Final = "start_s"
_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_RANK: Final = re.compile(r"[0-9]{1,9}")
_GPU: Final = re.compile(r"node([0-9]{1,9})/gpu([0-9]{1,9})")
_HEADER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class FlowTable:
    """Flows as columns: source_rank, destination_rank, size_bytes, start_s, each [num_flows]; SI units."""

    source_rank: IntArray
    destination_rank: IntArray
    size_bytes: FloatArray
    start_s: FloatArray


class _Fault(NamedTuple):
    """The first row, from 0, in which a column is wrong, and what is wrong with it."""

    row: int
    column: str
    message: str


def read_flow_file(path: Path, rank_at: IntArray) -> FlowTable:
    """Return the flows of a CSV (`.csv`) or Parquet (`.parquet`, `.pq`) file, at most MOST_FLOWS.

    Its columns are source and destination (a rank number or a GPU such as `node3/gpu5`), size_bytes and, if flows
    do not all start at 0, start_s. rank_at: [num_nodes, gpus_per_node] the rank on each GPU, -1 for none. Raises
    ValueError, naming file, line and column, for a file that cannot be used.
    """
    is_csv = path.suffix.lower() == ".csv"
    if not is_csv and path.suffix.lower() not in {".parquet", ".pq"}:
        msg = f"{path} is neither a .csv nor a .parquet file by its name"
        raise ValueError(msg)
    try:
        if not path.is_file():
            msg = f"{path} is a directory, not a file" if path.is_dir() else f"there is no file {path}"
            raise ValueError(msg)
        table = _read_csv(path) if is_csv else _read_parquet(path)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror or _first_line(error)})"
        raise ValueError(msg) from error
    except pa.ArrowException as error:
        msg = f"{path} cannot be read as {'CSV' if is_csv else 'Parquet'} ({_first_line(error)})"
        raise ValueError(msg) from error
    flows, faults = _parse(table, rank_at)
    if faults:
        fault = min(faults)
        place = f"line {_line_of_row(path, fault.row)}" if is_csv else f"row {fault.row + 1}"
        msg = f"{path}, {place}, column {fault.column}: {fault.message}"
        raise ValueError(msg)
    return flows


def _read_csv(path: Path) -> pa.Table:
    """Return the file's rows, every value as text."""
    with path.open("rb") as file:
        header = file.readline(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
        names = _names(path, header)
        _check_columns(f"{path}, line 1", names)
        batches = []
        num_rows = 0
        try:
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
                convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
            for batch in reader:
                batches.append(batch)
                num_rows += batch.num_rows
                if num_rows > MOST_FLOWS:
                    break
        except pa.ArrowInvalid:
            _explain_rows(path, len(names))
            raise
    _check_num_rows(path, num_rows)
    return pa.Table.from_batches(batches)


def _read_parquet(path: Path) -> pa.Table:
    """Return the file's rows in the types that it has."""
    with pq.ParquetFile(path) as file:
        _check_columns(str(path), file.schema_arrow.names)
        _check_num_rows(path, file.metadata.num_rows)
        return file.read()


def _names(path: Path, header: str) -> list[str]:
    """Return the column names of a CSV's first line."""
    try:
        return [name.strip() for name in next(csv.reader([header]), [])]
    except csv.Error as error:
        msg = f"{path}, line 1: {error}"
        raise ValueError(msg) from error


def _check_columns(place: str, names: list[str]) -> None:
    """Raise ValueError unless the columns are the required ones, in any order, and at most the optional one."""
    known = (*_REQUIRED, _OPTIONAL)
    right = f"the columns are {', '.join(_REQUIRED)} and, if wanted, {_OPTIONAL}"
    repeated = sorted({name for name in names if names.count(name) > 1})
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


def _parse(table: pa.Table, rank_at: IntArray) -> tuple[FlowTable, list[_Fault]]:
    """Return the flows, and the first fault of each column; flows are meaningless where there are faults."""
    faults: list[_Fault] = []
    flows = FlowTable(
        source_rank=_ranks(table, "source", rank_at, faults),
        destination_rank=_ranks(table, "destination", rank_at, faults),
        size_bytes=_numbers(table, "size_bytes", MOST_BYTES, faults),
        start_s=(
            _numbers(table, _OPTIONAL, LATEST_START_S, faults)
            if _OPTIONAL in table.column_names
            else np.zeros(len(table))
        ),
    )
    itself = (flows.source_rank == flows.destination_rank) & (flows.source_rank >= 0)
    if itself.any():
        row = int(itself.argmax())
        message = f"rank {flows.source_rank[row]} would send to itself; source and destination must differ"
        faults.append(_Fault(row, "destination", message))
    return flows, faults


def _ranks(table: pa.Table, name: str, rank_at: IntArray, faults: list[_Fault]) -> IntArray:
    """Return [num_flows] the ranks that a column of endpoints names, -1 for an unknown one."""
    column = table[name]
    if not (pa.types.is_integer(column.type) or _is_text(column.type)):
        faults.append(_Fault(0, name, f"holds {column.type}; endpoints are whole numbers or text"))
        return np.full(len(table), -1)
    text = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))
    # each name is looked up once, however many flows it has
    encoded = text.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    num_ranks = int((rank_at >= 0).sum())
    rank_of_name = np.array([_rank_of(endpoint, rank_at, num_ranks) for endpoint in names], np.int64)
    ranks: IntArray = rank_of_name[encoded.indices.to_numpy()]
    if (ranks < 0).any():
        row = int((ranks < 0).argmax())
        num_nodes, gpus_per_node = rank_at.shape
        message = (
            f"unknown endpoint {_show(text[row].as_py())}; ranks are 0 to {num_ranks - 1}, "
            f"GPUs node0/gpu0 to node{num_nodes - 1}/gpu{gpus_per_node - 1}"
        )
        faults.append(_Fault(row, name, message))
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


def _numbers(table: pa.Table, name: str, most: float, faults: list[_Fault]) -> FloatArray:
    """Return [num_flows] the numbers of a column, from 0 to `most`; anything where one is not."""
    column = table[name]
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        is_number = pc.match_substring_regex(text, _NUMBER)
        column = pc.if_else(is_number, text, pa.scalar(None, pa.string()))
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        faults.append(_Fault(0, name, f"holds {column.type}; it must hold numbers"))
        return np.zeros(len(table))
    values: FloatArray = column.cast(pa.float64(), safe=False).to_numpy()
    wrong = ~((values >= 0) & (values <= most))  # also true of NaN, which nulls and text became
    if wrong.any():
        row = int(wrong.argmax())
        found = _show(table[name][row].as_py())
        faults.append(_Fault(row, name, f"{found} is not a number from 0 to {most:,}"))
    return values


def _is_text(arrow_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))


def _show(value: Any) -> str:
    return "an empty value" if value is None or value == "" else reprlib.repr(value)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _explain_rows(path: Path, num_columns: int) -> None:
    """Raise ValueError for the first line that is no text or has not as many values as the header, or for no rows."""
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            if b"\xef\xbf\xbd" not in content and "\ufffd" in content.decode(errors="replace"):
                msg = f"{path}, line {line}: not UTF-8 text"
                raise ValueError(msg)
    num_lines = 0
    for line, num_values in _lines(path):
        num_lines += 1
        if num_values != num_columns:
            msg = f"{path}, line {line}: {num_values} values where the header has {num_columns}"
            raise ValueError(msg)
    if num_lines == 1:
        _check_num_rows(path, 0)


def _line_of_row(path: Path, row: int) -> int:
    """Return the line on which a CSV's row (from 0, the header and blank lines not counted) ends."""
    line, _ = next(islice(_lines(path), row + 1, None))
    return line


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the line number and the number of values of the header and every row; slow, for messages only."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        try:
            yield from ((rows.line_num, len(values)) for values in rows if values)
        except csv.Error as error:
            msg = f"{path}, line {rows.line_num}: {error}"
            raise ValueError(msg) from error
