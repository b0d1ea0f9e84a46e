"""What nccl-tests printed: read strictly, and played size after size beside what was measured."""

from pathlib import Path

import pytest

from simulator import load_scenario, simulate
from simulator.input_error import InputError
from simulator.result import Result
from support.tiny_scenarios import nccl_text
from workloads.nccl_table import read_nccl_table


def run(folder: Path, fields: str = "", text: str | None = None, nodes: int | str = 2) -> Result:
    if text is not None:
        (folder / "table.txt").write_text(text)
    (folder / "s.yaml").write_text(
        f"name: s\ncluster: {{node: h800, nodes: {nodes}, topology: {{kind: multi-plane-fat-tree}}}}\n"
        f"costs: ideal\nworkload: {{kind: nccl-tests, path: table.txt{fields}}}\n"
    )
    return simulate(load_scenario(folder / "s.yaml"))


def collective(folder: Path, operation: str, size: int) -> float:
    """Return how long the workload `collective` takes for one size."""
    (folder / "c.yaml").write_text(
        "name: c\ncluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n"
        f"costs: ideal\nworkload: {{kind: collective, operation: {operation}, size: {size} B}}\n"
    )
    return simulate(load_scenario(folder / "c.yaml")).step_time_s


@pytest.mark.parametrize(
    ("program", "operation"),
    [
        ("all_reduce_perf", "all-reduce"),
        ("all_gather_perf", "all-gather"),
        ("reduce_scatter_perf", "reduce-scatter"),
        ("alltoall_perf", "all-to-all"),
    ],
)
def test_each_size_takes_what_the_collective_alone_takes(program: str, operation: str, tmp_path: Path):
    sizes = (1 << 20, 3 << 20)
    summary = run(tmp_path, text=nccl_text(16, program, sizes)).summary
    alone = [collective(tmp_path, operation, size) for size in sizes]
    rows = summary["nccl_tests"]
    assert [row["size_bytes"] for row in rows] == list(sizes)
    assert [row["predicted_s"] for row in rows] == pytest.approx(alone, rel=1e-9)
    assert summary["step_time_s"] == pytest.approx(sum(alone), rel=1e-9)
    # bus bandwidth by the factors of PERFORMANCE.md
    factor = 2 * 15 / 16 if operation == "all-reduce" else 15 / 16
    for row in rows:
        assert row["predicted_busbw_bytes_per_s"] == pytest.approx(
            factor * row["predicted_algbw_bytes_per_s"]
        )
        assert row["predicted_algbw_bytes_per_s"] == pytest.approx(row["size_bytes"] / row["predicted_s"])
        assert row["time_error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1)
    errors = sorted(abs(row["time_error"]) for row in rows)
    assert summary["metrics"]["median_absolute_time_error"] == pytest.approx(sum(errors) / 2)
    assert summary["metrics"]["largest_absolute_time_error"] == errors[-1]


def test_send_receive_is_a_ring_of_messages(tmp_path: Path):
    # every GPU sends to the next; the last of each node over a NIC of 50 GB/s, the others over NVLink of 200 GB/s
    size = 100_000_000
    row = run(tmp_path, text=nccl_text(16, "sendrecv_perf", (size,))).summary["nccl_tests"][0]
    assert row["predicted_s"] == pytest.approx(size / 50e9, rel=1e-6)
    assert row["predicted_busbw_bytes_per_s"] == row["predicted_algbw_bytes_per_s"]


def test_either_half_of_the_table_is_compared(tmp_path: Path):
    out_of_place = run(tmp_path, text=nccl_text(16)).summary["nccl_tests"]
    in_place = run(tmp_path, ", measured: in-place").summary["nccl_tests"]
    assert [row["predicted_s"] for row in out_of_place] == [row["predicted_s"] for row in in_place]
    # in nccl_text, twice as long in place
    for one, other in zip(out_of_place, in_place, strict=True):
        assert other["measured_s"] == pytest.approx(2 * one["measured_s"], rel=1e-3)


def test_fewer_ranks_than_the_cluster_has_are_the_first(tmp_path: Path):
    result = run(tmp_path, text=nccl_text(8))
    assert set(result.tasks["rank"]) == set(range(8))
    assert not result.links.loc[result.links["kind"] == "nic", "bytes"].any()


# Forms of the text

OLD = """\
#                                                     out-of-place                       in-place
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                     (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
node1:77:81 [0] NCCL INFO Channel 00/0 : 2[50000] -> 6[63000] [send] via NET/IB/0
     1048576        262144   float            52.43   20.00   15.00    N/A    104.9   10.00    7.50    N/A
"""
TIMED = """\
# size count type redop root time algbw busbw #wrong i_min i_max i_p99 i_cv% time algbw busbw #wrong i_min i_max i_p99 i_cv% timestamp
1000000 250000 float sum -1 10.00 100.0 75.00 0 1 2 3 4 20.00 50.00 37.50 0 1 2 3 4 2025-01-01 00:00:00
"""  # noqa: E501


def test_lines_may_be_indented_and_hosts_begin_with_digits(tmp_path: Path):
    text = OLD.replace("node1:77", "10-0-0-1:77")
    (tmp_path / "t.txt").write_text("".join(f"    {line}\n" for line in text.splitlines()))
    assert read_nccl_table(tmp_path / "t.txt", "in-place").rows[0].seconds == pytest.approx(104.9e-6)


@pytest.mark.parametrize(("text", "seconds"), [(OLD, (52.43e-6, 104.9e-6)), (TIMED, (10e-6, 20e-6))])
def test_other_versions_are_read(text: str, seconds: tuple[float, float], tmp_path: Path):
    (tmp_path / "t.txt").write_text(text)
    found = [read_nccl_table(tmp_path / "t.txt", place).rows[0] for place in ("out-of-place", "in-place")]
    assert [row.seconds for row in found] == pytest.approx(seconds)
    assert [row.busbw_bytes_per_s for row in found] == pytest.approx(
        [15e9, 7.5e9] if text == OLD else [75e9, 37.5e9]
    )


def test_what_the_file_does_not_say_the_scenario_does(tmp_path: Path):
    with pytest.raises(InputError, match=r"workload\.operation: .*write one of all-to-all"):
        run(tmp_path, text=OLD)
    with pytest.raises(InputError, match=r"workload\.ranks: the file lists no ranks"):
        run(tmp_path, ", operation: all-to-all")
    # OLD's busbw is 3/4 of its algbw, as of four ranks
    result = run(tmp_path, ", operation: all-to-all, ranks: 4")
    assert len(result.summary["nccl_tests"]) == 1
    # the number of nodes then follows
    assert set(run(tmp_path, ", operation: all-to-all, ranks: 4", nodes="auto").tasks["node"]) == {0}


GOOD = nccl_text(16)
ROW = next(number for number, line in enumerate(GOOD.splitlines(), 1) if line.startswith("1048576"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("1048576 262144 float sum -1", "1048576 262144", rf"table.txt, line {ROW}: 10 values where"),
        ("1048576 262144 float sum -1", "1048576 262144 float sum -1 7", rf"line {ROW}: 14 values where"),
        ("1048576 262144 float sum -1", "1048576\n", rf"line {ROW}: 1 values where"),
        ("1048576 262144", "0: 1048576 262144", rf"line {ROW}: 14 values where"),
        ("1048576 262144", "1048576.5 262144", rf"line {ROW}: size 1048576.5 is not a whole number"),
        ("1048576 262144", "10x 262144", rf"line {ROW}: size '10x' is not a number"),
        ("30.49", "nan", rf"line {ROW}: time 'nan' is not a number"),
        ("30.49", "-30.49", rf"line {ROW}: time '-30.49' is not a number"),
        ("30.49", "0.00", rf"line {ROW}: time 0.00 us; it must be more than 0"),
        ("30.49", "60.49", rf"line {ROW}: algbw 34.40 GB/s is not the size over the time, 17.33"),
        ("#       size    count", "#       bytes   count", rf"line {ROW}: a row before the line"),
        (
            "algbw   busbw #wrong     time",
            "busbw   algbw #wrong     time",
            rf"line {ROW}: the columns above have",
        ),
        ("Rank 15", "Rank 31", r"workload\.ranks: 32 ranks took part"),
        ("all_reduce_perf", "all_gather_perf", rf"line {ROW}: busbw is not 0.9375 times algbw"),
        ("all_reduce_perf", "broadcast_perf", "broadcast_perf is not among those that can be played"),
        ("# Using devices", "# Collective test starting: sendrecv_perf", "output of several programs"),
    ],
)
def test_broken_tables_are_named_by_line(old: str, new: str, complaint: str, tmp_path: Path):
    assert old in GOOD
    with pytest.raises(InputError, match=complaint):
        run(tmp_path, text=GOOD.replace(old, new, 1))


def test_files_that_hold_no_table(tmp_path: Path):
    with pytest.raises(InputError, match=r"workload\.path: .*table\.txt: there is no such file"):
        run(tmp_path)
    with pytest.raises(InputError, match="holds no rows of nccl-tests"):
        run(tmp_path, text="")
    (tmp_path / "table.txt").write_bytes(b"\xff\x00" * 100)
    with pytest.raises(InputError, match="holds no rows"):
        run(tmp_path)
    (tmp_path / "table.txt").unlink()
    (tmp_path / "table.txt").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        run(tmp_path)
    (tmp_path / "table.txt").rmdir()
    rows = GOOD.splitlines()
    with pytest.raises(InputError, match="more than 1,000 rows"):
        run(tmp_path, text="\n".join([*rows[: ROW - 1], *[rows[ROW - 1]] * 1001]))


def test_what_the_file_says_is_not_contradicted(tmp_path: Path):
    with pytest.raises(InputError, match=r"workload\.ranks: the file lists 16 ranks, not 8"):
        run(tmp_path, ", ranks: 8", text=GOOD)
    with pytest.raises(InputError, match=r"workload\.operation: the file is of all_reduce_perf"):
        run(tmp_path, ", operation: all-gather")
