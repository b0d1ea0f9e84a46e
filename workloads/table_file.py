"""Tables that users hand in as CSV or Parquet, read strictly: whatever is wrong is named with its line and column."""

import csv
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workloads.tasks import FloatArray

_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_HEADER_BYTES: Final = 2**20
_ROWS_PER_BATCH: Final = 2**16


class Fault(NamedTuple):
    """The first row, from 0, in which a column is wrong, and what is wrong with it."""

    row: int
    column: str
    message: str


@contextmanager
def opened(path: Path) -> Iterator[None]:
    """Raise ValueError, naming it, for a file that is not there, has another ending, or cannot be read within."""
    if path.suffix.lower() not in {".csv", ".parquet", ".pq"}:
        msg = f"{path} is neither a .csv nor a .parquet file by its name"
        raise ValueError(msg)
    try:
        if not path.is_file():
            msg = f"{path} is a directory, not a file" if path.is_dir() else f"there is no file {path}"
            raise ValueError(msg)
        yield
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror or _first_line(error)})"
        raise ValueError(msg) from error
    except pa.ArrowException as error:
        msg = f"{path} cannot be read as {'CSV' if is_csv(path) else 'Parquet'} ({_first_line(error)})"
        raise ValueError(msg) from error


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns."""
    if is_csv(path):
        with path.open("rb") as file:
            return _names(path, file.readline(_HEADER_BYTES).decode("utf-8-sig", errors="replace"))
    with pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def parts(path: Path, names: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file some at a time: a CSV's values as text, a Parquet file's in the types that it has."""
    if not is_csv(path):
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


def raise_first(path: Path, faults: list[Fault], first_row: int) -> None:
    """Raise ValueError for the first of the faults in rows from `first_row` on, if there are any."""
    if faults:
        fault = min(faults)
        row = first_row + fault.row
        place = f"line {_line_of_row(path, row)}" if is_csv(path) else f"row {row + 1}"
        msg = f"{path}, {place}, column {fault.column}: {fault.message}"
        raise ValueError(msg)


def numbers(table: pa.Table, name: str, most: float, faults: list[Fault]) -> FloatArray:
    """Return [num_flows] the numbers of a column, from 0 to `most`; anything where one is not."""
    column = table[name]
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        is_number = pc.match_substring_regex(text, _NUMBER)
        column = pc.if_else(is_number, text, pa.scalar(None, pa.string()))
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        faults.append(Fault(0, name, f"holds {column.type}; it must hold numbers"))
        return np.zeros(len(table))
    values: FloatArray = column.cast(pa.float64(), safe=False).to_numpy()
    wrong = ~((values >= 0) & (values <= most))  # also true of NaN, which nulls and text became
    if wrong.any():
        row = int(wrong.argmax())
        found = show(table[name][row].as_py())
        faults.append(Fault(row, name, f"{found} is not a number from 0 to {most:,}"))
    return values


def is_text(arrow_type: pa.DataType) -> bool:
    """Return whether a column holds text, also where each text is kept once."""
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))


def show(value: Any) -> str:
    """Return a value as messages have it."""
    return "an empty value" if value is None or value == "" else reprlib.repr(value)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def is_csv(path: Path) -> bool:
    """Return whether a file is a CSV by its name, else Parquet."""
    return path.suffix.lower() == ".csv"


def _names(path: Path, header: str) -> list[str]:
    """Return the column names of a CSV's first line."""
    try:
        return [name.strip() for name in next(csv.reader([header]), [])]
    except csv.Error as error:
        msg = f"{path}, line 1: {error}"
        raise ValueError(msg) from error


def _explain_rows(path: Path, num_columns: int) -> None:
    """Raise ValueError for the first line that is no text or has not as many values as the header."""
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            if b"\xef\xbf\xbd" not in content and "\ufffd" in content.decode(errors="replace"):
                msg = f"{path}, line {line}: not UTF-8 text"
                raise ValueError(msg)
    for line, num_values in _lines(path):
        if num_values != num_columns:
            msg = f"{path}, line {line}: {num_values} values where the header has {num_columns}"
            raise ValueError(msg)


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
