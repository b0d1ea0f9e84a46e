"""What nccl-tests prints, read strictly: whatever is wrong is named with its line.

The text is that of `all_reduce_perf` and its like (https://github.com/NVIDIA/nccl-tests, src/util.cu), indented or
not: lines of `#`, of which one names the columns, then a row for each size. What NCCL and MPI print between them is
passed over: lines that begin neither with `#` nor with a number.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from simulator.regular_file import FileTooLargeError, read_regular, why
from simulator.units import UNITS

Place = Literal["out-of-place", "in-place"]

MOST_ROWS: Final = 1000
_MOST_BYTES: Final = 2**26  # of text
_MOST_SIZE: Final = 2**60
_RANK: Final = re.compile(r"#\s+Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s")
_PROGRAM: Final = re.compile(r"#\s*Collective test starting:\s*(?:\S*/)?(\w+_perf)")
_DESCRIBING: Final = ("size", "count", "type", "redop", "root")  # redop and root may be missing
_TIMES: Final = ("time", "cputime")
_BYTES_PER_GB: Final = UNITS["bytes per second"]["GB/s"]
_SECONDS_PER_US: Final = UNITS["time"]["us"]
# Printed figures have two decimals, or three digits; more than this apart they are not of one row.
_SHARE: Final = 0.02
_LAST_DIGIT: Final = 0.02


@dataclass(frozen=True, slots=True)
class Row:
    """A size and what was measured; line: where it stands, from 1."""

    line: int
    size_bytes: float
    seconds: float
    algbw_bytes_per_s: float
    busbw_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class NcclTable:
    """A table; program: such as `all_reduce_perf`, and num_ranks: None where the text does not say."""

    rows: tuple[Row, ...]
    program: str | None
    num_ranks: int | None


def read_nccl_table(path: Path, place: Place) -> NcclTable:
    """Return what nccl-tests measured out of place or in place. Raises ValueError, naming file and line."""
    lines = _lines(path)
    columns: list[str] | None = None
    rows: list[Row] = []
    ranks: set[int] = set()
    programs: set[str] = set()
    for number, line in enumerate(map(str.strip, lines), 1):
        words = line.split()
        if words and words[0].startswith("#"):
            ranks |= {int(found[1]) for found in [_RANK.match(line)] if found}
            programs |= {found[1] for found in [_PROGRAM.match(line)] if found}
            names = line.lstrip("# ").split()
            columns = names if names[:3] == list(_DESCRIBING[:3]) else columns
        elif _is_row(words):
            if columns is None:
                raise _wrong(
                    path,
                    number,
                    "a row before the line of `#` that names the columns `size count type ...`; keep that line, and "
                    "take away what a launcher puts in front of lines",
                )
            rows.append(_row(path, number, words, columns, place))
    if not rows:
        msg = f"{path} holds no rows of nccl-tests; each begins with its size in bytes"
        raise ValueError(msg)
    if len(rows) > MOST_ROWS:
        raise _wrong(path, rows[MOST_ROWS].line, f"more than {MOST_ROWS:,} rows; split the file")
    if len(programs) > 1:
        msg = f"{path} holds the output of several programs ({', '.join(sorted(programs))}); give each a file"
        raise ValueError(msg)
    return NcclTable(tuple(rows), next(iter(programs), None), max(ranks) + 1 if ranks else None)


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path, _MOST_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    except FileTooLargeError as error:
        msg = f"{path}: {error}; keep the table and the lines of # above it"
        raise ValueError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path}: {why(error, 'what nccl-tests printed')}"
        raise ValueError(msg) from error


def _is_row(words: list[str]) -> bool:
    """Return whether a line is a row: a size, maybe broken or alone, and not the name of a host."""
    if not words or not words[0][0].isdigit():
        return False
    return words[0].isdigit() or len(words) == 1 or words[1][0].isdigit()


def _row(path: Path, number: int, words: list[str], columns: list[str], place: Place) -> Row:
    """Return a row; of columns that describe, all but the first three may be blank."""
    starts = [index for index, name in enumerate(columns) if name in _TIMES]
    wanted = 0 if place == "out-of-place" else 1
    if len(starts) <= wanted:
        raise _wrong(path, number, f"the columns named above hold no time measured {place}")
    measured = len(columns) - starts[0] + ("timestamp" in columns)  # a date and a time of day
    if not len(_DESCRIBING[:3]) <= len(words) - measured <= starts[0]:
        raise _wrong(path, number, f"{len(words)} values where the columns above make {starts[0] + measured}")
    first = len(words) - measured + starts[wanted] - starts[0]
    names = columns[starts[wanted] : starts[wanted] + 3]
    if names[1:] != ["algbw", "busbw"]:
        raise _wrong(
            path, number, f"the columns above have {', '.join(names)} where time, algbw, busbw belong"
        )
    time_us, algbw, busbw = (
        _figure(path, number, words[first + offset], name) for offset, name in enumerate(names)
    )
    size = _figure(path, number, words[0], "size")
    if size != int(size) or size > _MOST_SIZE:
        raise _wrong(path, number, f"size {words[0]} is not a whole number of bytes up to {_MOST_SIZE:,}")
    if time_us <= 0:
        raise _wrong(path, number, f"time {words[first]} us; it must be more than 0")
    seconds = time_us * _SECONDS_PER_US
    expected = size / seconds / _BYTES_PER_GB
    if abs(algbw - expected) > _SHARE * expected + _LAST_DIGIT:
        raise _wrong(
            path, number, f"algbw {words[first + 1]} GB/s is not the size over the time, {expected:.4g} GB/s"
        )
    return Row(number, size, seconds, algbw * _BYTES_PER_GB, busbw * _BYTES_PER_GB)


def check_bus_factor(path: Path, table: NcclTable, factor: float, num_ranks: int) -> None:
    """Raise ValueError, naming the line, where busbw is not `factor` times algbw, as of this many ranks it is."""
    for row in table.rows:
        expected = row.algbw_bytes_per_s * factor
        if abs(row.busbw_bytes_per_s - expected) > _SHARE * expected + _LAST_DIGIT * _BYTES_PER_GB:
            message = (
                f"busbw is not {factor:.4g} times algbw, as it is for {num_ranks} ranks; is it another operation, or "
                "another number of ranks?"
            )
            raise _wrong(path, row.line, message)


def _figure(path: Path, number: int, word: str, name: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise _wrong(path, number, f"{name} {word!r} is not a number of 0 or more")
    return value


def _wrong(path: Path, number: int, message: str) -> ValueError:
    return ValueError(f"{path}, line {number}: {message}")
