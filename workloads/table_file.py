"""Tables that users hand in as CSV or Parquet, read strictly: whatever is wrong is named with its line and column."""

import csv
import os
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

from simulator.regular_file import NotTextError, decoded, open_regular, why
from workloads.tasks import FloatArray, IntArray

_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LONGEST_LINE: Final = 2**17  # bytes; as long as a value may be for Python's reader
_BLOCK_BYTES: Final = 2**20  # read at a time
_MOST_COLUMNS: Final = 1000  # a model that routes a token to more experts is yet to come
_ROWS_PER_BATCH: Final = 2**16
MOST_BYTES: Final = 2**30  # of a file, and of a row group of a Parquet file once it is decompressed


class Fault(NamedTuple):
    """The first row, from 0, in which a column is wrong, and what is wrong with it."""

    row: int
    column: str
    message: str


@contextmanager
def opened(path: Path) -> Iterator[None]:
    """Raise ValueError, naming it, for a file that has another ending, is too large, or cannot be read within."""
    if path.suffix.lower() not in {".csv", ".parquet", ".pq"}:
        msg = f"{path} is neither a .csv nor a .parquet file by its name"
        raise ValueError(msg)
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                msg = f"this file is larger than {MOST_BYTES:,} bytes; leave out rows"
                raise ValueError(msg)
    except (OSError, ValueError) as error:
        msg = f"{path}: {why(error, 'a .csv or .parquet file')}"
        raise ValueError(msg) from error
    try:
        yield
    except OSError as error:
        msg = f"{path}: this file cannot be read: {error.strerror or 'it is damaged, or no Parquet file'}"
        raise ValueError(msg) from error
    except pa.ArrowException as error:
        form = "CSV" if is_csv(path) else "Parquet"
        msg = f"{path}: this file cannot be read as {form}: it is damaged, or holds something else"
        raise ValueError(msg) from error


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns; raise ValueError for very many."""
    if is_csv(path):
        with open_regular(path) as file:
            header = file.readline(_LONGEST_LINE + 1)
        names = _names(path, header)
    else:
        with pq.ParquetFile(path) as file:
            _check_parquet(path, file)
            names = list(file.schema_arrow.names)
    if len(names) > _MOST_COLUMNS:
        msg = f"{path} has {len(names):,} columns; keep those that are asked for"
        raise ValueError(msg)
    return names


def _check_parquet(path: Path, file: pq.ParquetFile) -> None:
    """Raise ValueError, before anything is decoded, for a Parquet file whose values could fill the memory."""
    if file.metadata.num_columns > _MOST_COLUMNS:
        return  # said of the names
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        if group.total_byte_size > MOST_BYTES:
            msg = f"{path}: row group {number} holds {group.total_byte_size:,} bytes; write at most {MOST_BYTES:,}"
            raise ValueError(msg)
        for column in range(group.num_columns):
            chunk = group.column(column)
            if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a few bytes of it can stand for very long texts
                msg = (
                    f"{path}: column {chunk.path_in_schema} is encoded as DELTA_BYTE_ARRAY; write it as PLAIN"
                )
                raise ValueError(msg)


def parts(path: Path, names: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of a file some at a time: a CSV's values as text, a Parquet file's in the types that it has."""
    if not is_csv(path):
        # texts stay in the dictionary that the file keeps them in: a long one may stand in a million rows
        texts = [field.name for field in pq.read_schema(path) if is_text(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(_ROWS_PER_BATCH))
        return
    with open_regular(path) as file:
        file.readline(_LONGEST_LINE + 1)
        try:
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=names, use_threads=False, block_size=_BLOCK_BYTES
                ),
                convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
            yield from (pa.Table.from_batches([batch]) for batch in reader)
        except pa.ArrowInvalid:
            _explain_lines(path)
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
        texts, place = distinct_texts(column)
        is_number = pc.match_substring_regex(texts, _NUMBER)
        known = pc.if_else(is_number, texts, pa.scalar(None, pa.string())).cast(pa.float64())
        values: FloatArray = known.to_numpy(zero_copy_only=False)[place]
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.cast(pa.float64(), safe=False).to_numpy()
    else:
        faults.append(Fault(0, name, f"holds {column.type}; it must hold numbers"))
        return np.zeros(len(table))
    wrong = ~((values >= 0) & (values <= most))  # also true of NaN, which nulls and text became
    if wrong.any():
        row = int(wrong.argmax())
        found = show(table[name][row].as_py())
        faults.append(Fault(row, name, f"{found} is not a number from 0 to {most:,}"))
    return values


def distinct_texts(column: pa.ChunkedArray) -> tuple[pa.StringArray, IntArray]:
    """Return the distinct texts of a column, without spaces around them, and [num_rows] which of them stands where.

    What is empty in the file is an empty text. Each text is held once, however often it stands.
    """
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).combine_chunks().dictionary_encode()
    encoded = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    encoded = encoded.unify_dictionaries().combine_chunks()
    texts = encoded.dictionary.cast(pa.string())
    place = pc.fill_null(encoded.indices.cast(pa.int64()), len(texts)).to_numpy()
    return pc.utf8_trim_whitespace(pa.concat_arrays([texts, pa.array([""], pa.string())])), place


def is_text(arrow_type: pa.DataType) -> bool:
    """Return whether a column holds text, also where each text is kept once."""
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))


def show(value: Any) -> str:
    """Return a value as messages have it."""
    return "an empty value" if value is None or value == "" else reprlib.repr(value)


def is_csv(path: Path) -> bool:
    """Return whether a file is a CSV by its name, else Parquet."""
    return path.suffix.lower() == ".csv"


def _names(path: Path, header: bytes) -> list[str]:
    """Return the column names of a CSV's first line."""
    _check_line(path, 1, header)
    try:
        return [name.strip() for name in next(csv.reader([decoded(header).rstrip("\r\n")]), [])]
    except (csv.Error, NotTextError) as error:
        msg = f"{path}, line 1: {error}"
        raise ValueError(msg) from error


def _check_line(path: Path, line: int, content: bytes) -> None:
    """Raise ValueError for a line of a CSV that is too long, or holds what no line can."""
    wrong = None
    if len(content) > _LONGEST_LINE:
        wrong = f"this line is longer than {_LONGEST_LINE:,} bytes; end each row with a line feed"
    elif b"\r" in content.removesuffix(b"\n").removesuffix(b"\r"):
        wrong = "a carriage return stands within this line; end each row with a line feed"
    elif b'"' in content and content.count(b'"') % 2:
        wrong = "a quote in this line is not closed; close it, or leave quotes out: no value here needs them"
    if wrong:
        msg = f"{path}, line {line}: {wrong}"
        raise ValueError(msg)


def _explain_lines(path: Path) -> None:
    """Raise ValueError for the first line of a CSV that is too long, broken, or no text."""
    with open_regular(path) as file:
        for line, content in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), 1):
            _check_line(path, line, content)
            try:
                decoded(content)
            except NotTextError as error:
                msg = f"{path}, line {line}: {error}"
                raise ValueError(msg) from error


def _explain_rows(path: Path, num_columns: int) -> None:
    """Raise ValueError for the first line that has not as many values as the header."""
    for line, num_values in _lines(path):
        if num_values != num_columns:
            msg = f"{path}, line {line}: {num_values} values where the header has {num_columns}"
            raise ValueError(msg)


def _line_of_row(path: Path, row: int) -> int:
    """Return the line on which a CSV's row (from 0, the header and blank lines not counted) stands."""
    line, _ = next(islice(_lines(path), row + 1, None))
    return line


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the line number and the number of values of the header and every row; slow, for messages only."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        try:
            yield from ((rows.line_num, len(values)) for values in rows if values)
        except csv.Error as error:
            _explain_lines(path)
            msg = f"{path}, line {rows.line_num}: {error}"
            raise ValueError(msg) from error
