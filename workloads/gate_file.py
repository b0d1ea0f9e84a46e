"""Loads of experts, or the experts of real tokens, from a CSV or Parquet file, read strictly."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workloads.flow_file import (
    _explain_rows,
    _Fault,
    _first_line,
    _is_text,
    _line_of_row,
    _lines,
    _names,
    _numbers,
    _show,
)
from workloads.tasks import FloatArray, IntArray
from workloads.top_k import TopK

MOST_ROWS: Final = 2**24
MOST_BYTES: Final = 2**30
# Experts in a table of decisions: half a gigabyte as 32-bit integers, which 2**24 rows of 8 come to.
MOST_DECISIONS: Final = 2**27
MOST_LOAD: Final = 10**18
_EXPERT: Final = re.compile(r"[0-9]{1,9}")
_HEADER_BYTES: Final = 2**20
_ROWS_PER_BATCH: Final = 2**16


@dataclass(frozen=True, slots=True)
class ExpertLoads:
    """How much each expert is used: load: [num_experts] in any unit, not negative, not all zero."""

    load: FloatArray


@dataclass(frozen=True, slots=True)
class ExpertDecisions:
    """Which experts tokens went to: experts: [num_tokens, top_k], a token's being distinct."""

    experts: NDArray[np.int32]


def read_gate_file(path: Path, top_k: TopK) -> ExpertLoads | ExpertDecisions:
    """Return what a CSV (`.csv`) or Parquet (`.parquet`, `.pq`) file says of the experts of tokens.

    Its columns are expert and load, a row for each expert in any order, or expert_0 to expert_{top_k - 1}, a row for
    each token. Raises ValueError, naming file, line and column, for a file that cannot be used. The last file read is
    kept: checked, and opened for layer after layer, it is read once, unless it changes.
    """
    if path.suffix.lower() not in {".csv", ".parquet", ".pq"}:
        msg = f"{path} is neither a .csv nor a .parquet file by its name"
        raise ValueError(msg)
    with _named_errors(path):
        if not path.is_file():
            msg = f"{path} is a directory, not a file" if path.is_dir() else f"there is no file {path}"
            raise ValueError(msg)
        stamp = path.stat()
        if stamp.st_size > MOST_BYTES:
            msg = f"{path} is larger than {MOST_BYTES:,} bytes; leave out tokens"
            raise ValueError(msg)
        return _read(path, top_k, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, top_k: TopK, modified_ns: int, size_bytes: int) -> ExpertLoads | ExpertDecisions:  # noqa: ARG001
    """Return what the file says; when it was written and its size tell the file from an earlier one."""
    names = _column_names(path)
    columns = [f"expert_{choice}" for choice in range(top_k.top_k)]
    if sorted(names) == ["expert", "load"]:
        load = _read_loads(path, names, top_k.num_experts)
        _check_choice(path, load, top_k)
        load.flags.writeable = False
        return ExpertLoads(load)
    if sorted(names) == sorted(columns):
        experts = _read_decisions(path, names, columns, top_k.num_experts)
        experts.flags.writeable = False
        return ExpertDecisions(experts)
    found = (
        f"the columns {', '.join(map(_show, names))}"
        if 0 < len(names) <= 8
        else f"{len(names) or 'no'} columns"
    )
    right = " to ".join(dict.fromkeys([columns[0], columns[-1]]))
    msg = (
        f"{path} has {found}; they must be expert and load, or, for {len(columns)} experts per token, {right}"
    )
    raise ValueError(msg)


def _read_loads(path: Path, names: list[str], num_experts: int) -> FloatArray:
    """Return [num_experts] the loads of a file that has a row for each expert."""
    parts = []
    num_rows = 0
    for part in _parts(path, names):
        parts.append(part)
        num_rows += len(part)
        if num_rows > num_experts:  # so that an expert is repeated or unknown: there is no need to read on
            break
    _check_num_rows(path, num_rows, MOST_ROWS)
    table = pa.concat_tables(parts)
    faults: list[_Fault] = []
    experts = _experts(table, "expert", num_experts, faults)
    loads = _numbers(table, "load", MOST_LOAD, faults)
    seen: set[int] = set()
    for row, expert in enumerate(experts.tolist()):
        if expert in seen:
            faults.append(_Fault(row, "expert", f"expert {expert} has a row already"))
            break
        seen.add(expert)
    _raise_first(path, faults, 0)
    if num_rows < num_experts:
        missing = next(expert for expert in range(num_experts) if expert not in seen)
        msg = f"{path} has rows for {num_rows:,} of the model's {num_experts:,} experts; expert {missing} is missing"
        raise ValueError(msg)
    load = np.empty(num_experts)
    load[experts] = loads
    return load


def _check_choice(path: Path, load: FloatArray, top_k: TopK) -> None:
    """Raise ValueError where a token could keep groups with fewer experts that have a load than it needs."""
    used = np.add.reduceat((load > 0).astype(np.int64), top_k.group_offsets()[:-1])
    # a group without any is kept only where no other is left
    fewest = int(np.sort(used[used > 0])[: top_k.groups_kept].sum())
    if fewest < top_k.top_k:
        total = int(used.sum())
        msg = f"{path}: a token needs {top_k.top_k} experts with a load above 0, and there are {total}"
        if total >= top_k.top_k:
            msg += f", of which the {top_k.groups_kept} groups that it keeps can hold as few as {fewest}"
        raise ValueError(msg)


def _read_decisions(path: Path, names: list[str], columns: list[str], num_experts: int) -> NDArray[np.int32]:
    """Return [num_rows, top_k] the experts of a file that has a row for each token."""
    most_rows = min(MOST_ROWS, MOST_DECISIONS // len(columns))
    parts = []
    num_rows = 0
    for part in _parts(path, names):
        faults: list[_Fault] = []
        experts = np.stack([_experts(part, name, num_experts, faults) for name in columns], axis=1)
        ordered = np.sort(experts, axis=1)
        repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if repeated.any():
            row = int(repeated.any(axis=1).argmax())
            chosen = experts[row].tolist()
            choice = next(choice for choice, expert in enumerate(chosen) if expert in chosen[:choice])
            fault = f"expert {chosen[choice]} is chosen twice by one token"
            faults.append(_Fault(row, columns[choice], fault))
        _raise_first(path, faults, num_rows)
        parts.append(experts.astype(np.int32))
        num_rows += len(part)
        if num_rows > most_rows:
            break
    _check_num_rows(path, num_rows, most_rows)
    return np.concatenate(parts)


def _experts(table: pa.Table, name: str, num_experts: int, faults: list[_Fault]) -> IntArray:
    """Return [num_rows] the experts that a column names, -1 for what is none."""
    column = table[name]
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))
        # each name is looked up once, however often it stands
        encoded = text.combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        number_of_name = [int(number) if _EXPERT.fullmatch(number) else -1 for number in names]
        experts: IntArray = np.array(number_of_name, np.int64)[encoded.indices.to_numpy()]
    elif pa.types.is_integer(column.type):
        experts = pc.fill_null(column.cast(pa.int64(), safe=False), -1).to_numpy()
    else:
        faults.append(_Fault(0, name, f"holds {column.type}; experts are whole numbers"))
        return np.full(len(table), -1)
    unknown = (experts < 0) | (experts >= num_experts)
    if unknown.any():
        row = int(unknown.argmax())
        found = _show(column[row].as_py())
        faults.append(_Fault(row, name, f"{found} is not an expert; they are 0 to {num_experts - 1}"))
    return np.where(unknown, -1, experts)


def _check_num_rows(path: Path, num_rows: int, most_rows: int) -> None:
    if num_rows == 0:
        msg = f"{path} holds no rows after its column names"
        raise ValueError(msg)
    if num_rows > most_rows:
        msg = f"{path} holds more than {most_rows:,} rows; leave out tokens"
        raise ValueError(msg)


def _raise_first(path: Path, faults: list[_Fault], first_row: int) -> None:
    """Raise ValueError for the first of the faults in rows from `first_row` on, if there are any."""
    if faults:
        fault = min(faults)
        row = first_row + fault.row
        place = f"line {_line_of_row(path, row)}" if _is_csv(path) else f"row {row + 1}"
        msg = f"{path}, {place}, column {fault.column}: {fault.message}"
        raise ValueError(msg)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _column_names(path: Path) -> list[str]:
    if _is_csv(path):
        with path.open("rb") as file:
            return _names(path, file.readline(_HEADER_BYTES).decode("utf-8-sig", errors="replace"))
    with pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def _parts(path: Path, names: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file some at a time: a CSV's values as text, a Parquet file's in the types that it has."""
    if not _is_csv(path):
        with pq.ParquetFile(path) as file:
            yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(_ROWS_PER_BATCH))
        return
    with path.open("rb") as file:
        file.readline(_HEADER_BYTES)
        try:
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
                convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
            yield from (pa.Table.from_batches([batch]) for batch in reader)
        except pa.ArrowInvalid:
            if next(islice(_lines(path), 1, None), None) is None:
                return  # to have no rows is for the caller to judge
            _explain_rows(path, len(names))
            raise


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Raise ValueError, naming the file, for what keeps it from being read."""
    try:
        yield
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror or _first_line(error)})"
        raise ValueError(msg) from error
    except pa.ArrowException as error:
        msg = f"{path} cannot be read as {'CSV' if _is_csv(path) else 'Parquet'} ({_first_line(error)})"
        raise ValueError(msg) from error
