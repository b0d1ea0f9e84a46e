"""Gates from files: loads as popularities, decisions as they stand, and how everything else is named."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulator.units import FieldError
from workloads import gate_file, table_file
from workloads.gate import FileGate
from workloads.gate_file import ExpertDecisions, ExpertLoads, read_gate_file
from workloads.top_k import TopK

FOUR = TopK(4, 2, 1, 1)
LOADS = "expert,load\n"
PAIRS = "expert_0,expert_1\n"


def write(folder, content, name="gate.csv"):
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loads_of(path, top_k=FOUR):
    found = read_gate_file(path, top_k)
    assert isinstance(found, ExpertLoads)
    return found.load.tolist()


def decisions_of(path, top_k=FOUR):
    found = read_gate_file(path, top_k)
    assert isinstance(found, ExpertDecisions)
    return found.experts.tolist()


def fault(folder, name="gate.csv", top_k=FOUR):
    """The message of the FieldError that checking the file raises."""
    with pytest.raises(FieldError) as caught:
        FileGate(kind="file", path=name).check(top_k, folder)
    assert caught.value.field == "path"
    assert name in str(caught.value)
    return str(caught.value)


def opened(folder, name="gate.csv", top_k=FOUR, seed=1):
    gate = FileGate(kind="file", path=name)
    gate.check(top_k, folder)
    return gate.open(top_k, np.random.default_rng(seed), folder)


# What a file may hold.


def test_loads_may_stand_in_any_order_and_unit(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbf load , expert\r\n\r\n2.5e1, 3\r\n0,1 \r\n.5,0\r\n+7.,2\r\n")
    assert loads_of(path) == [0.5, 0.0, 7.0, 25.0]


def test_decisions_may_have_their_columns_in_any_order(tmp_path):
    path = write(tmp_path, 'expert_1,expert_0\n2, 3\n"0",1\n\n1,2\n')
    assert decisions_of(path) == [[3, 2], [1, 0], [2, 1]]


def test_one_expert_per_token_is_one_column(tmp_path):
    assert decisions_of(write(tmp_path, "expert_0\n3\n1\n3\n"), TopK(4, 1, 1, 1)) == [[3], [1], [3]]


@pytest.mark.parametrize(
    "columns",
    [
        {"expert": [3, 1, 0, 2], "load": [25, 0, 1, 7]},
        {
            "expert": pa.array([3, 1, 0, 2], pa.uint8()),
            "load": pa.array([25, 0, 1, 7], pa.float32()),
        },
        {
            "expert": pa.array(["3", "1", "0", "2"]).dictionary_encode(),
            "load": pa.array(["25", "0", "1", "7"], pa.large_string()),
        },
    ],
    ids=["plain", "small types", "text"],
)
def test_parquet(tmp_path, columns):
    write(tmp_path, pa.table(columns), "gate.parquet")
    assert loads_of(tmp_path / "gate.parquet") == [1.0, 0.0, 7.0, 25.0]


def test_csv_and_parquet_written_by_pandas_agree(tmp_path, monkeypatch):
    # more rows than are read of a Parquet file at a time; of a CSV see the fault on line 600,002
    monkeypatch.setattr(table_file, "_ROWS_PER_BATCH", 1000)
    rng = np.random.default_rng(1)
    experts = np.argsort(rng.random((30_000, 8)), axis=1)[:, :3]
    table = pd.DataFrame(experts, columns=["expert_0", "expert_1", "expert_2"])
    table.to_csv(tmp_path / "gate.csv", index=False)
    table.to_parquet(tmp_path / "gate.pq", index=False)
    top_k = TopK(8, 3, 4, 2)
    assert decisions_of(tmp_path / "gate.csv", top_k) == experts.tolist()
    assert decisions_of(tmp_path / "gate.pq", top_k) == experts.tolist()


def test_a_relative_path_starts_at_the_scenario_s_folder(tmp_path):
    (tmp_path / "traces").mkdir()
    path = write(tmp_path / "traces", PAIRS + "0,1\n")
    assert opened(tmp_path, "traces/gate.csv").experts(1).tolist() == [[0, 1]]
    assert opened(Path("elsewhere"), str(path)).experts(1).tolist() == [[0, 1]]


# What a gate makes of it.


def test_decisions_are_used_rank_after_rank_and_from_the_start_again(tmp_path):
    write(tmp_path, PAIRS + "0,1\n2,3\n3,1\n")
    source = opened(tmp_path)
    assert source.experts(2).tolist() == [[0, 1], [2, 3]]
    # the history is that of the file: expert 1 and 3 twice each
    assert source.history(1000).tolist() == [1, 2, 1, 2]
    experts = source.experts(5)
    assert experts.dtype == np.int64
    assert experts.tolist() == [[3, 1], [0, 1], [2, 3], [3, 1], [0, 1]]
    assert source.experts(0).shape == (0, 2)
    assert source.experts(1).tolist() == [[2, 3]]
    # the next layer begins anew, and groups do not apply
    assert opened(tmp_path, top_k=TopK(4, 2, 4, 2)).experts(1).tolist() == [[0, 1]]


def test_decisions_cannot_be_changed_by_who_gets_them(tmp_path):
    write(tmp_path, PAIRS + "0,1\n2,3\n")
    opened(tmp_path).experts(1)[:] = 9
    assert opened(tmp_path).experts(1).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="read-only"):
        read_gate_file(tmp_path / "gate.csv", FOUR).experts[:] = 9


def test_loads_are_popularities(tmp_path):
    # One expert a token: expert e gets 4, 0, 1, 3 of 8 tokens. Counts of 80,000 tokens are binomial.
    write(tmp_path, LOADS + "0,4\n1,0\n2,1\n3,3\n")
    source = opened(tmp_path, top_k=TopK(4, 1, 1, 1))
    expected = np.array([40_000, 0, 10_000, 30_000])
    for load in (np.bincount(source.experts(80_000).ravel(), minlength=4), source.history(80_000)):
        assert np.all(np.abs(load - expected) <= 5 * np.sqrt(expected * (1 - expected / 80_000)))


def test_an_expert_without_load_is_never_chosen(tmp_path):
    # Experts of 4 groups of 4; a token keeps two groups, and three of four experts without load leave group 3 one.
    loads = [0, 5, 1, 1, 2, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    write(tmp_path, LOADS + "".join(f"{expert},{load}\n" for expert, load in enumerate(loads)))
    top_k = TopK(16, 4, 4, 2)
    experts = opened(tmp_path, top_k=top_k).experts(20_000)
    used = np.bincount(experts.ravel(), minlength=16) > 0
    assert used.tolist() == [load > 0 for load in loads]
    assert all(len(set(token)) == 4 for token in experts.tolist())
    assert max(len(set(token)) for token in (experts // 4).tolist()) == 2
    # Five experts are more than the one of group 3 and the three of group 0 or 1.
    assert "of which the 2 groups that it keeps can hold as few as 4" in fault(
        tmp_path, top_k=TopK(16, 5, 4, 2)
    )
    # Of all four groups all 7 can be chosen; there is no eighth.
    assert np.all(np.sort(opened(tmp_path, top_k=TopK(16, 7, 4, 4)).experts(10)) == np.flatnonzero(loads))
    assert "needs 8 experts with a load above 0, and there are 7" in fault(tmp_path, top_k=TopK(16, 8, 4, 4))


def test_a_seed_reproduces_tokens_by_loads(tmp_path):
    write(tmp_path, LOADS + "0,4\n1,1\n2,1\n3,3\n")
    first, second, other = (opened(tmp_path, seed=seed).experts(500) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_file_is_read_once_unless_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path, PAIRS + "0,1\n")
    source = opened(tmp_path)
    reads = []
    monkeypatch.setattr(
        gate_file, "_read_decisions", lambda *arguments: reads.append(arguments) or np.ones((1, 2))
    )
    opened(tmp_path)
    assert not reads
    os.utime(path, ns=(1, 1))
    opened(tmp_path)
    assert len(reads) == 1
    assert source.experts(1).tolist() == [[0, 1]]


def test_the_gate_says_where_its_experts_come_from():
    described = FileGate(kind="file", path="gate.csv").describe()
    assert described == "expert popularity, or each token's experts, are those of gate.csv"


# What is wrong, and where.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no columns; they must be expert and load, or, for 2 experts per token, expert_0 to expert_1"),
        ("\nexpert,load\n0,1\n", "has no columns; they must be"),
        ("0,1\n", "has the columns '0', '1'; they must be expert and load, or"),
        ("expert,load,load\n0,1,1\n", "has the columns 'expert', 'load', 'load'; they must be"),
        ("expert_0\n0\n", "has the columns 'expert_0'; they must be"),
        ("expert_0,expert_1,expert_2\n0,1,2\n", "has the columns 'expert_0', 'expert_1', 'expert_2'; they must be"),
        ("expert_1,expert_2\n0,1\n", "has the columns 'expert_1', 'expert_2'; they must be"),
        ("a,b,c,d,e,f,g,h,i\n", "has 9 columns; they must be"),
        (LOADS, "holds no rows after its column names"),
        (LOADS + "\n\n", "holds no rows after its column names"),
        (LOADS.strip(), "holds no rows after its column names"),
        (PAIRS, "holds no rows after its column names"),
        (LOADS + "0,1\n1,1\n3,1\n", "has rows for 3 of the model's 4 experts; expert 2 is missing"),
        (LOADS + "0,1\n1,1\n2,1\n3,1\n4,1\n", "line 6, column expert: '4' is not an expert; they are 0 to 3"),
        (LOADS + "0,1\n1,1\n\n0,1\n3,1\n", "line 5, column expert: expert 0 has a row already"),
        (LOADS + "0,1\n" * 100_000, "line 3, column expert: expert 0 has a row already"),
        (LOADS + "0,1\n1,-1\n2,1\n3,1\n", "line 3, column load: '-1' is not a number from 0 to"),
        (LOADS + "0,1\n1,nan\n2,1\n3,1\n", "line 3, column load: 'nan' is not a number from 0 to"),
        (LOADS + "0,1\n1,inf\n2,1\n3,1\n", "line 3, column load: 'inf' is not a number from 0 to"),
        (LOADS + "0,1\n1,1e19\n2,1\n3,1\n", "line 3, column load: '1e19' is not a number from 0 to"),
        (LOADS + "0,1\n1,many\n2,1\n3,1\n", "line 3, column load: 'many' is not a number from 0 to"),
        (LOADS + "0,1\n1,\n2,1\n3,1\n", "line 3, column load: an empty value is not a number from 0 to"),
        (LOADS + "0,1\n-1,1\n2,1\n3,1\n", "line 3, column expert: '-1' is not an expert"),
        (LOADS + "0,1\n1.0,1\n2,1\n3,1\n", "line 3, column expert: '1.0' is not an expert"),
        (LOADS + "0,1\n0x1,1\n2,1\n3,1\n", "line 3, column expert: '0x1' is not an expert"),
        (LOADS + ",1\n0,1\n2,1\n3,1\n", "line 2, column expert: an empty value is not an expert"),
        (LOADS + f"0,1\n{'9' * 4000},1\n", "line 3, column expert: '99999"),
        (LOADS + "0,0\n1,0\n2,0\n3,0\n", "needs 2 experts with a load above 0, and there are 0"),
        (LOADS + "0,0\n1,0\n2,9\n3,0\n", "needs 2 experts with a load above 0, and there are 1"),
        # of several faults the first in the file, whatever its column
        (LOADS + "0,1\n1,-1\n9,1\n3,1\n", "line 3, column load"),
        (LOADS + "0,1\n1,1,1\n", "line 3: 3 values where the header has 2"),
        (LOADS + "0,1\n1\n", "line 3: 1 values where the header has 2"),
        (LOADS.encode() + b"0,1\n\xff,1\n", "line 3: byte 0xff is not UTF-8"),
        (PAIRS + "0,1\n1,2\n2,4\n", "line 4, column expert_1: '4' is not an expert; they are 0 to 3"),
        (PAIRS + "0,1\n2,2\n", "line 3, column expert_1: expert 2 is chosen twice by one token"),
        (PAIRS + "0,1\n2,\n", "line 3, column expert_1: an empty value is not an expert"),
        (PAIRS + "0,1\n2,two\n", "line 3, column expert_1: 'two' is not an expert"),
        (PAIRS + "0,1\n" * 600_000 + "1,1\n", "line 600002, column expert_1: expert 1 is chosen twice"),
        (PAIRS + '0,"1\n"\n9,0\n', "line 4, column expert_0: '9' is not an expert"),
    ],
)  # fmt: skip
def test_faults_of_a_csv_are_named(tmp_path, content, message):
    write(tmp_path, content)
    assert message in fault(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"expert": [0, 1]}, "has the columns 'expert'; they must be expert and load, or"),
        ({"expert": [], "load": []}, "holds no rows after its column names"),
        ({"expert_0": [], "expert_1": []}, "holds no rows after its column names"),
        ({"expert": [0, 1, 2, 4], "load": [1] * 4}, "row 4, column expert: 4 is not an expert; they are 0 to 3"),
        ({"expert": np.array([0, 1, 2, 2**63 + 3], np.uint64), "load": [1] * 4}, "9223372036854775811 is not"),
        ({"expert": [0, 1, 2, None], "load": [1] * 4}, "row 4, column expert: an empty value is not an expert"),
        ({"expert": [0.0, 1.0, 2.0, 3.0], "load": [1] * 4}, "column expert: holds double; experts are whole numbers"),
        ({"expert": [0, 1, 2, 3], "load": [1, 1, 1, float("nan")]}, "row 4, column load: nan is not a number from 0"),
        ({"expert": [0, 1, 2, 3], "load": [1, 1, 1, float("inf")]}, "row 4, column load: inf is not a number from 0"),
        ({"expert": [0, 1, 2, 3], "load": [1.0, None, 1, 1]}, "row 2, column load: an empty value is not a number"),
        ({"expert": [0, 1, 2, 3], "load": [True] * 4}, "column load: holds bool; it must hold numbers"),
        ({"expert_0": [0, 1], "expert_1": [1, 1]}, "row 2, column expert_1: expert 1 is chosen twice by one token"),
        ({"expert_0": [0, 1], "expert_1": [-1, -1]}, "row 1, column expert_1: -1 is not an expert"),
        ({"expert_0": [0, 1], "expert_1": [[1], [1]]}, "column expert_1: holds list"),
        ({"expert_0": [0, 1], "expert_1": pa.nulls(2)}, "column expert_1: holds null"),
    ],
)  # fmt: skip
def test_faults_of_a_parquet_file_are_named(tmp_path, columns, message):
    write(tmp_path, pa.table(columns), "gate.parquet")
    assert message in fault(tmp_path, "gate.parquet")


def test_a_fault_far_down_a_parquet_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "_ROWS_PER_BATCH", 10)
    write(tmp_path, pa.table({"expert_0": [0] * 25, "expert_1": [1] * 24 + [7]}), "gate.parquet")
    assert "row 25, column expert_1: 7 is not an expert" in fault(tmp_path, "gate.parquet")


def test_what_is_no_file_is_named(tmp_path):
    assert "there is no such file" in fault(tmp_path)
    assert "there is no such file" in fault(tmp_path, "no folder/gate.csv")
    assert "cannot be read: File name too long" in fault(tmp_path, "x" * 300 + ".csv")
    with pytest.raises(FieldError, match="no file can have such a name"):
        FileGate(kind="file", path="\0.csv").check(FOUR, tmp_path)
    (tmp_path / "gate.csv").mkdir()
    assert "this is a directory" in fault(tmp_path)
    write(tmp_path, "", "gate.txt")
    assert "is neither a .csv nor a .parquet file by its name" in fault(tmp_path, "gate.txt")
    write(tmp_path, LOADS, "gate.parquet")
    assert "cannot be read as Parquet" in fault(tmp_path, "gate.parquet")


def test_files_that_are_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "MOST_BYTES", 30)
    write(tmp_path, PAIRS + "0,1\n" * 3)
    assert len(decisions_of(tmp_path / "gate.csv")) == 3
    write(tmp_path, PAIRS + "0,1\n" * 4)
    assert "is larger than 30 bytes" in fault(tmp_path)
    monkeypatch.undo()
    # a table of six experts is three rows of two
    monkeypatch.setattr(gate_file, "MOST_DECISIONS", 6)
    assert "holds more than 3 rows" in fault(tmp_path)
    write(tmp_path, pa.table({"expert_0": [0] * 4, "expert_1": [1] * 4}), "gate.pq")
    assert "holds more than 3 rows" in fault(tmp_path, "gate.pq")
    monkeypatch.undo()
    monkeypatch.setattr(gate_file, "MOST_ROWS", 3)
    assert "holds more than 3 rows" in fault(tmp_path, "gate.pq")


@pytest.mark.parametrize("path", ["", "x" * 5000, 3])
def test_a_path_is_text(path):
    with pytest.raises(ValueError, match="path"):
        FileGate(kind="file", path=path)
