"""Loads of experts, or the experts of real tokens, from a CSV or Parquet file, read strictly."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from workloads.table_file import (
    Fault,
    column_names,
    distinct_texts,
    is_text,
    numbers,
    opened,
    parts,
    raise_first,
    show,
)
from workloads.tasks import FloatArray, IntArray
from workloads.top_k import TopK

MOST_ROWS: Final = 2**24
# Experts in a table of decisions: half a gigabyte as 32-bit integers, which 2**24 rows of 8 come to.
MOST_DECISIONS: Final = 2**27
MOST_LOAD: Final = 10**18
_EXPERT: Final = re.compile(r"[0-9]{1,9}")


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
    with opened(path):
        stamp = path.stat()
        return _read(path, top_k, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, top_k: TopK, modified_ns: int, size_bytes: int) -> ExpertLoads | ExpertDecisions:  # noqa: ARG001
    """Return what the file says; when it was written and its size tell the file from an earlier one."""
    names = column_names(path)
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
        f"the columns {', '.join(map(show, names))}"
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
    found = []
    num_rows = 0
    for part in parts(path, names):
        found.append(part)
        num_rows += len(part)
        if num_rows > num_experts:  # so that an expert is repeated or unknown: there is no need to read on
            break
    _check_num_rows(path, num_rows, MOST_ROWS)
    table = pa.concat_tables(found)
    faults: list[Fault] = []
    experts = _experts(table, "expert", num_experts, faults)
    loads = numbers(table, "load", MOST_LOAD, faults)
    seen: set[int] = set()
    for row, expert in enumerate(experts.tolist()):
        if expert in seen:
            faults.append(Fault(row, "expert", f"expert {expert} has a row already"))
            break
        seen.add(expert)
    raise_first(path, faults, 0)
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
    found = []
    num_rows = 0
    for part in parts(path, names):
        faults: list[Fault] = []
        experts = np.stack([_experts(part, name, num_experts, faults) for name in columns], axis=1)
        ordered = np.sort(experts, axis=1)
        repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if repeated.any():
            row = int(repeated.any(axis=1).argmax())
            chosen = experts[row].tolist()
            choice = next(choice for choice, expert in enumerate(chosen) if expert in chosen[:choice])
            fault = f"expert {chosen[choice]} is chosen twice by one token"
            faults.append(Fault(row, columns[choice], fault))
        raise_first(path, faults, num_rows)
        found.append(experts.astype(np.int32))
        num_rows += len(part)
        if num_rows > most_rows:
            break
    _check_num_rows(path, num_rows, most_rows)
    return np.concatenate(found)


def _experts(table: pa.Table, name: str, num_experts: int, faults: list[Fault]) -> IntArray:
    """Return [num_rows] the experts that a column names, -1 for what is none."""
    column = table[name]
    if is_text(column.type):
        # each name is looked up once, however often it stands
        texts, place = distinct_texts(column)
        number_of_name = [int(number) if _EXPERT.fullmatch(number) else -1 for number in texts.to_pylist()]
        experts: IntArray = np.array(number_of_name, np.int64)[place]
    elif pa.types.is_integer(column.type):
        experts = pc.fill_null(column.cast(pa.int64(), safe=False), -1).to_numpy()
    else:
        faults.append(Fault(0, name, f"holds {column.type}; experts are whole numbers"))
        return np.full(len(table), -1)
    unknown = (experts < 0) | (experts >= num_experts)
    if unknown.any():
        row = int(unknown.argmax())
        found = show(column[row].as_py())
        faults.append(Fault(row, name, f"{found} is not an expert; they are 0 to {num_experts - 1}"))
    return np.where(unknown, -1, experts)


def _check_num_rows(path: Path, num_rows: int, most_rows: int) -> None:
    if num_rows == 0:
        msg = f"{path} holds no rows after its column names"
        raise ValueError(msg)
    if num_rows > most_rows:
        msg = f"{path} holds more than {most_rows:,} rows; leave out tokens"
        raise ValueError(msg)
