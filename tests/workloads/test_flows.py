"""The workload `flows`: what a file may hold, and how everything else in it is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulator.layout import RankLayout
from simulator.units import FieldError
from workloads import flow_file, table_file
from workloads.flows import FlowsSpec
from workloads.tasks import Setting, TaskTimes

HEADER = "source,destination,size_bytes,start_s\n"


def write(folder, content, name="flows.csv"):
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def build(folder, name="flows.csv"):
    """The workload on two nodes of four GPUs."""
    spec = FlowsSpec(kind="flows", path=name)
    setting = Setting(None, 8, 4, folder)
    spec.check(setting)
    return spec.build(setting, RankLayout.in_order(2, 4), np.random.default_rng(1))


def flows_of(workload):
    transfers = workload.graph.collectives[0].transfers
    assert np.array_equal(transfers.destination_offsets, np.arange(len(transfers) + 1))
    columns = (transfers.source_rank, transfers.destination_ranks, transfers.size_bytes, transfers.delay_s)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def fault(folder, name="flows.csv"):
    """The message of the FieldError that checking the file raises."""
    with pytest.raises(FieldError) as caught:
        FlowsSpec(kind="flows", path=name).check(Setting(None, 8, 4, folder))
    assert caught.value.field == "path"
    assert name in str(caught.value)
    return str(caught.value)


def test_a_csv_of_ranks_and_gpu_names(tmp_path):
    # GPU g of node n is rank 4 n + g.
    write(tmp_path, HEADER + "0,5,1000,0\nnode1/gpu3,node0/gpu2,2.5e3,1e-3\n")
    workload = build(tmp_path)
    assert flows_of(workload) == [(0, 5, 1000.0, 0.0), (7, 2, 2500.0, 1e-3)]
    # The ranks that send or receive take part, each once.
    assert [task.rank for task in workload.graph.tasks] == [0, 2, 5, 7]


def test_start_is_optional_and_columns_may_stand_in_any_order(tmp_path):
    write(tmp_path, "size_bytes,destination,source\n7,1,0\n")
    assert flows_of(build(tmp_path)) == [(0, 1, 7.0, 0.0)]


def test_blanks_windows_lines_quotes_and_a_byte_order_mark_do_no_harm(tmp_path):
    write(
        tmp_path,
        b'\xef\xbb\xbfsource, destination, size_bytes\r\n\r\n"node0/gpu1", 2 ,+5.\r\n 3,0,.5\r\n\r\n',
    )
    assert flows_of(build(tmp_path)) == [(1, 2, 5.0, 0.0), (3, 0, 0.5, 0.0)]


def test_a_relative_path_starts_at_the_scenario_s_folder(tmp_path):
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists", HEADER + "0,1,5,0\n")
    assert flows_of(build(tmp_path, "lists/flows.csv")) == [(0, 1, 5.0, 0.0)]
    assert flows_of(build(Path("elsewhere"), str(tmp_path / "lists" / "flows.csv"))) == [(0, 1, 5.0, 0.0)]


@pytest.mark.parametrize(
    "columns",
    [
        {"source": [0, 7], "destination": [5, 2], "size_bytes": [1000, 2500], "start_s": [0.0, 1e-3]},
        {
            "source": pa.array([0, 7], pa.uint8()),
            "destination": pa.array(["5", "node0/gpu2"]).dictionary_encode(),
            "size_bytes": pa.array([1000.0, 2500.0], pa.float32()),
            "start_s": pa.array(["0", "0.001"], pa.large_string()),
        },
    ],
    ids=["plain", "other types"],
)
def test_parquet(tmp_path, columns):
    write(tmp_path, pa.table(columns), "flows.parquet")
    assert flows_of(build(tmp_path, "flows.parquet")) == [(0, 5, 1000.0, 0.0), (7, 2, 2500.0, 1e-3)]


def test_csv_and_parquet_written_by_pandas_agree(tmp_path):
    rng = np.random.default_rng(1)
    source = rng.integers(0, 8, 500)
    table = pd.DataFrame(
        {
            "source": source,
            "destination": [
                f"node{rank // 4}/gpu{rank % 4}" for rank in (source + rng.integers(1, 8, 500)) % 8
            ],
            "size_bytes": rng.random(500) * 1e9,
            "start_s": rng.random(500),
        }
    )
    table.to_csv(tmp_path / "flows.csv", index=False)
    table.to_parquet(tmp_path / "flows.parquet", index=False)
    flows = flows_of(build(tmp_path))
    assert flows == flows_of(build(tmp_path, "flows.parquet"))
    assert [flow[2] for flow in flows] == table["size_bytes"].tolist()


def test_metrics(tmp_path):
    # 1,000 and 3,000 bytes, the last at 2 s: 4,000 bytes in 2 s.
    write(tmp_path, HEADER + "0,1,1000,0\n1,2,3000,0\n")
    workload = build(tmp_path)
    summary = workload.summarise(TaskTimes(np.zeros(3), np.array([1.0, 2.0, 1.5])))
    assert summary.breakdown_s == {"flows": 2.0}
    assert summary.metrics == {"flow_count": 2, "total_bytes": 4000.0, "mean_bytes_per_s": 2000.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: missing column 'source'"),
        ("\n" + HEADER + "0,1,5,0\n", "line 1: missing column 'source'"),
        (HEADER, "holds no flows"),
        (HEADER.strip(), "holds no flows"),
        (HEADER + "\n\n", "holds no flows"),
        ("0,1,5,0\n", "line 1: missing column 'source'; the columns are source, destination, size_bytes and"),
        ("source,destination,size\n0,1,5\n", "line 1: missing column 'size_bytes'"),
        ("source,destination,size_bytes,weight\n0,1,5,1\n", "line 1: unknown column 'weight'"),
        ("source,destination,size_bytes,source\n0,1,5,1\n", "line 1: repeated column 'source'"),
        ("source;destination;size_bytes\n0;1;5\n", "line 1: missing column 'source'"),
        (HEADER + "0,1,5,0\n0,1,5\n", "line 3: 3 values where the header has 4"),
        (HEADER + "0,1,5,0\n\n0,1,5,0,9\n", "line 4: 5 values where the header has 4"),
        (HEADER + "0,1,5,0\n0,8,5,0\n", "line 3, column destination: unknown endpoint '8'; ranks are 0 to 7"),
        (HEADER + "0,gpu3,5,0\n", "endpoint 'gpu3'; ranks are 0 to 7, GPUs node0/gpu0 to node1/gpu3"),
        (HEADER + "-1,1,5,0\n", "line 2, column source: unknown endpoint '-1'"),
        (HEADER + "node0/gpu4,1,5,0\n", "line 2, column source: unknown endpoint 'node0/gpu4'"),
        (HEADER + "node2/gpu0,1,5,0\n", "line 2, column source: unknown endpoint 'node2/gpu0'"),
        (HEADER + "0.0,1,5,0\n", "line 2, column source: unknown endpoint '0.0'"),
        (HEADER + ",1,5,0\n", "line 2, column source: unknown endpoint an empty value"),
        (HEADER + f"{'9' * 5000},1,5,0\n", "line 2, column source: unknown endpoint '99999"),
        (HEADER + "0,1,5,0\n3,node0/gpu3,5,0\n", "line 3, column destination: rank 3 would send to itself"),
        (HEADER + "0,1,5,0\n\n\n0,1,-5,0\n", "line 5, column size_bytes: '-5' is not a number from 0 to 1,152,921,"),
        (HEADER + "0,1,nan,0\n", "line 2, column size_bytes: 'nan' is not a number"),
        (HEADER + "0,1,inf,0\n", "line 2, column size_bytes: 'inf' is not a number"),
        (HEADER + "0,1,1e999,0\n", "line 2, column size_bytes: '1e999' is not a number"),
        (HEADER + "0,1,1e19,0\n", "line 2, column size_bytes: '1e19' is not a number"),
        (HEADER + "0,1,5 MB,0\n", "line 2, column size_bytes: '5 MB' is not a number"),
        (HEADER + "0,1,,0\n", "line 2, column size_bytes: an empty value is not a number"),
        (HEADER + "0,1,5,-1\n", "line 2, column start_s: '-1' is not a number from 0 to 1,000,000"),
        (HEADER + "0,1,5,1e7\n", "line 2, column start_s: '1e7' is not a number"),
        (HEADER + "0,1,5,soon\n", "line 2, column start_s: 'soon' is not a number"),
        # of several faults the first in the file, whatever its column
        (HEADER + "0,1,5,-1\n0,9,5,0\n0,1,-5,0\n", "line 2, column start_s"),
        (HEADER + '0,1,"5\n",0\n0,9,5,0\n', "line 4, column destination: unknown endpoint '9'"),
        (HEADER.encode() + b"0,1,5,0\n0,\xff,5,0\n", "line 3: byte 0xff is not UTF-8"),
        (HEADER + "0,1,5,0\n0,1," + "1" * 3_000_000 + ",0\n", "line 3: this line is longer than 131,072 bytes"),
        (HEADER + "0,1,5,0\n0,1," + "1" * 150_000 + ",0\n", "line 3: this line is longer than 131,072 bytes"),
        (HEADER.strip() + "\r0,1,5,0\r", "line 1: a carriage return stands within this line"),
        (b"\x00" * 5000, "line 1: this is UTF-16"),
    ],
)  # fmt: skip
def test_faults_of_a_csv_are_named(tmp_path, content, message):
    write(tmp_path, content)
    assert message in fault(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"source": [0], "destination": [1]}, "missing column 'size_bytes'"),
        ({"source": [0], "destination": [1], "size_bytes": [5], "note": ["x"]}, "unknown column 'note'"),
        ({"source": [], "destination": [], "size_bytes": []}, "holds no flows"),
        ({"source": [0, 9], "destination": [1, 1], "size_bytes": [5, 5]}, "row 2, column source: unknown endpoint"),
        ({"source": [0, None], "destination": [1, 1], "size_bytes": [5, 5]}, "row 2, column source: unknown"),
        ({"source": [0.0], "destination": [1], "size_bytes": [5]}, "column source: holds double"),
        ({"source": [[0]], "destination": [1], "size_bytes": [5]}, "column source: holds list"),
        ({"source": [0], "destination": [1], "size_bytes": [None]}, "column size_bytes: holds null"),
        ({"source": [0, 0], "destination": [1, 1], "size_bytes": [5.0, None]}, "row 2, column size_bytes: an empty"),
        ({"source": [0], "destination": [1], "size_bytes": [float("nan")]}, "row 1, column size_bytes: nan is not a"),
        ({"source": [0], "destination": [1], "size_bytes": [-1]}, "row 1, column size_bytes: -1 is not a number"),
        ({"source": [0], "destination": [1], "size_bytes": [2**62]}, "row 1, column size_bytes: 46116860184273879"),
        ({"source": [0], "destination": [1], "size_bytes": [True]}, "column size_bytes: holds bool"),
        ({"source": [0], "destination": [1], "size_bytes": [5], "start_s": ["now"]}, "row 1, column start_s: 'now'"),
        ({"source": [0], "destination": [0], "size_bytes": [5]}, "column destination: rank 0 would send to itself"),
    ],
)  # fmt: skip
def test_faults_of_a_parquet_file_are_named(tmp_path, columns, message):
    write(tmp_path, pa.table(columns), "flows.parquet")
    assert message in fault(tmp_path, "flows.parquet")


def test_what_is_no_file_is_named(tmp_path):
    assert "there is no such file" in fault(tmp_path)
    assert "there is no such file" in fault(tmp_path, "no folder/flows.csv")
    assert "cannot be read: File name too long" in fault(tmp_path, "x" * 300 + ".csv")
    with pytest.raises(FieldError, match="no file can have such a name"):
        FlowsSpec(kind="flows", path="\0.csv").check(Setting(None, 8, 4, tmp_path))
    (tmp_path / "flows.csv").mkdir()
    assert "this is a directory" in fault(tmp_path)
    write(tmp_path, "", "flows.txt")
    assert "is neither a .csv nor a .parquet file by its name" in fault(tmp_path, "flows.txt")
    write(tmp_path, HEADER, "flows.parquet")
    assert "cannot be read as Parquet" in fault(tmp_path, "flows.parquet")
    write(tmp_path, "", "flows.pq")
    assert "cannot be read as Parquet" in fault(tmp_path, "flows.pq")


@pytest.mark.parametrize("name", ["flows.csv", "flows.parquet"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, name):
    write(tmp_path, HEADER, name)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(pq, "ParquetFile", refuse)
    assert "cannot be read: Permission denied" in fault(tmp_path, name)


def test_too_many_flows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(flow_file, "MOST_FLOWS", 3)
    write(tmp_path, HEADER + "0,1,5,0\n" * 3)
    assert len(flows_of(build(tmp_path))) == 3
    write(tmp_path, HEADER + "0,1,5,0\n" * 4)
    assert "holds more than 3 flows" in fault(tmp_path)
    write(tmp_path, pa.table({"source": [0] * 4, "destination": [1] * 4, "size_bytes": [5] * 4}), "flows.pq")
    assert "holds more than 3 flows" in fault(tmp_path, "flows.pq")


@pytest.mark.parametrize("path", ["", "x" * 5000, 3])
def test_a_path_is_text(path):
    with pytest.raises(ValueError, match="path"):
        FlowsSpec(kind="flows", path=path)


def test_a_quote_that_is_not_closed_is_named_where_it_opens(tmp_path):
    # What follows up to the next quote would be one value, and the row end where nobody looks.
    write(tmp_path, HEADER + '0,1,5,0\n"node0/gpu1,2,5,0\n3,0,5,0\n')
    assert "line 3: a quote in this line is not closed; close it, or leave quotes out" in fault(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 3_000_000, "line 1: this line is longer"),
        (HEADER + "0,1" + ",5" * 1_000_000 + "\n", "line 2: this line is longer"),
        (",".join(["a"] * 2_000) + "\n", "has 2,000 columns"),
    ],
    ids=["no line feed", "a row without end", "columns"],
)
def test_a_csv_that_has_no_end_in_a_line_is_refused_at_once(tmp_path, text, words):
    write(tmp_path, text)
    assert words in fault(tmp_path)


def test_long_texts_of_parquet_are_held_once(tmp_path):
    # A file of some kilobytes: written out its columns are 100,000 texts of a million characters.
    indices = pa.array(np.zeros(100_000, np.int32))
    ones = np.ones(100_000)
    table = pa.table(
        {
            "source": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 1_000_000])),
            "destination": ones.astype(int),
            "size_bytes": pa.DictionaryArray.from_arrays(indices, pa.array(["9" * 1_000_000])),
        }
    )
    assert write(tmp_path, table, "flows.parquet").stat().st_size < 3_000_000
    before = pa.default_memory_pool().max_memory()
    assert "row 1, column size_bytes: '99999" in fault(tmp_path, "flows.parquet")
    assert pa.default_memory_pool().max_memory() - before < 2**26


def test_texts_that_grow_as_they_are_decoded_are_refused(tmp_path):
    # DELTA_BYTE_ARRAY tells only where a text differs from the one before it.
    table = pa.table(
        {"source": ["x" * 100_000] * 10_000, "destination": [1] * 10_000, "size_bytes": [1] * 10_000}
    )
    path = tmp_path / "flows.parquet"
    pq.write_table(table, path, use_dictionary=False, column_encoding={"source": "DELTA_BYTE_ARRAY"})
    assert path.stat().st_size < 1_000_000
    assert "column source is encoded as DELTA_BYTE_ARRAY; write it as PLAIN" in fault(
        tmp_path, "flows.parquet"
    )


def test_row_groups_are_bounded_before_they_are_decoded(tmp_path, monkeypatch):
    write(
        tmp_path,
        pa.table({"source": [0] * 9000, "destination": [1] * 9000, "size_bytes": np.arange(9000)}),
        "f.pq",
    )
    assert len(flows_of(build(tmp_path, "f.pq"))) == 9000
    monkeypatch.setattr(table_file, "MOST_BYTES", (tmp_path / "f.pq").stat().st_size)
    assert "row group 0 holds" in fault(tmp_path, "f.pq")
