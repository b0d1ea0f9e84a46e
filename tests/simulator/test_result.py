import numpy as np
import pandas as pd
import pytest

from simulator.layout import RankLayout
from simulator.meter import LinkMeter
from simulator.plots import draw_overview
from simulator.result import (
    Result,
    flows_table,
    links_table,
    phases_table,
    summarise_links,
    tasks_table,
    timeline_table,
)
from simulator.transfer_times import TransferTimes
from simulator.waits import Waits
from support.clusters import network, run
from workloads.tasks import Collective, Stream, Task, TaskGraph, TaskPhase, TaskTimes, Transfer, Transfers


@pytest.fixture
def parts():
    """Two nodes of two GPUs with 10 bytes/s NICs; GPU 0 sends 30 bytes, then nothing, to its peer at 20 s."""
    compiled, layout = network(2, gpus=2, planes=2, rates={"nic": "10 B/s"})
    transfers = Transfers.from_rows(
        [Transfer(0, (), ((2, 1.0),), 30.0), Transfer(1, (), ((3, 1.0),), 10.0, delay_s=19.0)]
    )
    recording = run(compiled, layout, transfers)
    step_s = recording.times.step_time_s
    carried = compiled.per_cable(recording.meter.bytes)
    saturated = recording.meter.saturated_s[compiled.link_of_cable]
    links = links_table(compiled.cables, carried, saturated, step_s)
    return compiled, layout, transfers, recording, links, step_s


def test_links_table(parts):
    # The step ends at 19 + 10/10 = 20 s. GPU 0's NIC sends 30 bytes in 3 s: 30 / (10 x 20) = 15% of what it could,
    # and 3/20 of the step at capacity; GPU 1's sends 10 bytes in 1 s: 5% and 1/20.
    *_, links, step_s = parts
    assert step_s == pytest.approx(20.0)
    row = links.set_index(["source", "target"])
    for nic, amount, share in (("node0/nic0", 30, 0.15), ("node0/nic1", 10, 0.05)):
        found = row.loc[(nic, f"plane{nic[-1]}/leaf0")]
        assert found["bytes"] == pytest.approx(amount)
        assert found["utilisation"] == pytest.approx(share)
        assert found["saturated_fraction"] == pytest.approx(share)
        assert found["plane"] == int(nic[-1])
        assert found["node"] == 0
    assert links["link"].tolist() == list(range(len(links)))


def test_summary_by_kind(parts):
    # Eight NIC cables: two of each way carried 30 bytes or 10: mean (2 x 15% + 2 x 5%) / 8 = 5%.
    *_, links, _ = parts
    kinds = summarise_links(links)
    assert kinds["nic"] == pytest.approx(
        {
            "mean_utilisation": 0.05,
            "peak_utilisation": 0.15,
            "saturated_fraction": 0.15,
            "bytes": 80.0,
            "count": 8,
        }
    )
    assert kinds["nvlink"]["bytes"] == 0.0
    assert kinds["leaf_spine"]["saturated_fraction"] == 0.0


def test_the_timeline_covers_the_step_and_adds_up(parts):
    compiled, _, _, recording, links, step_s = parts
    timeline = timeline_table(links, recording.meter, compiled.link_of_cable, compiled.cables_of_link, step_s)
    used = links[links["bytes"] > 0]
    assert set(timeline["link"]) == set(used["link"])
    assert timeline.groupby("link")["bytes"].sum().to_dict() == pytest.approx(
        used.set_index("link")["bytes"].to_dict()
    )
    one = timeline[timeline["link"] == used["link"].iloc[0]]
    assert len(one) <= 1000
    assert one["start_s"].iloc[0] == 0.0
    assert (one["start_s"].iloc[1:].to_numpy() == one["end_s"].iloc[:-1].to_numpy()).all()
    assert one["start_s"].iloc[-1] < step_s <= one["end_s"].iloc[-1]
    assert timeline["utilisation"].max() <= 1 + 1e-9
    # Between 4 s and 18 s nothing moves.
    quiet = timeline[(timeline["start_s"] > 4) & (timeline["end_s"] < 18)]
    assert len(quiet) > 0
    assert (quiet["bytes"] == 0).all()


@pytest.mark.parametrize("tail_s", [1e-12, 1.0, 1e4])
def test_the_timeline_reaches_the_end_of_a_step_that_outlasts_its_traffic(parts, tail_s):
    compiled, _, _, recording, links, step_s = parts
    network = compiled.link_of_cable, compiled.cables_of_link
    timeline = timeline_table(links, recording.meter, *network, step_s + tail_s)
    one = timeline[timeline["link"] == timeline["link"].iloc[0]]
    assert one["start_s"].iloc[-1] < step_s + tail_s <= one["end_s"].iloc[-1]
    assert timeline["bytes"].sum() == pytest.approx(links["bytes"].sum())


def test_no_bin_of_the_timeline_holds_more_than_its_link_carries(parts):
    # 10 B/s in bins of 1 s: 14 and 13 bytes where two collectives are played back, one after the other. What is too
    # much goes to the bins after them, and, where these are full, before: none is lost.
    compiled, *_, links, _ = parts
    link = int(np.flatnonzero((links["kind"] == "nic") & (links["bytes"] > 0))[0])
    for played, told in (
        ([3, 14, 13, 0, 10, 0], [3, 10, 10, 7, 10, 0]),
        ([0, 2, 10, 10, 14, 13], [0, 9, 10, 10, 10, 10]),
    ):
        bins = np.zeros((6, compiled.num_links))
        bins[:, compiled.link_of_cable[link]] = played
        meter = LinkMeter(np.zeros(compiled.num_links), bins, 1.0)
        timeline = timeline_table(links, meter, compiled.link_of_cable, compiled.cables_of_link, 6.0)
        told_bytes = timeline[timeline["link"] == link]["bytes"].tolist()
        assert told_bytes == told
        assert timeline["utilisation"].max() == 1.0


def test_flows_table(parts):
    _, layout, transfers, recording, *_ = parts
    collectives = (Collective("c", transfers),)
    flows = flows_table(collectives, recording.transfers, layout)
    assert flows[
        ["source_rank", "destination_rank", "source_node", "destination_node"]
    ].to_numpy().tolist() == [
        [0, 2, 0, 1],
        [1, 3, 0, 1],
    ]
    assert flows["start_s"].tolist() == pytest.approx([0, 19])
    assert flows["end_s"].tolist() == pytest.approx([3, 20])


def test_flows_with_several_ends_say_so_and_reductions_point_home(parts):
    # Rank 0 to ranks 2 and 3 (one node: 1); a reduction from ranks 1 (node 0) and 3 (node 1) to rank 2.
    _, layout, *_ = parts
    rows = [
        Transfer(0, (), ((2, 1.0), (3, 0.5)), 4.0),
        Transfer(2, (), ((1, 1.0), (3, 1.0)), 4.0, reduce=True),
    ]
    times = (TransferTimes(np.zeros(2), np.zeros(2)),)
    flows = flows_table((Collective("c", Transfers.from_rows(rows)),), times, layout)
    columns = ["source_rank", "destination_rank", "source_node", "destination_node"]
    assert flows[columns].to_numpy().tolist() == [[0, -1, 0, 1], [-1, 2, -1, 1]]


def test_many_flows_become_a_row_per_pair_of_nodes(parts):
    _, layout, transfers, recording, *_ = parts
    collectives = (Collective("c", transfers),)
    flows = flows_table(collectives, recording.transfers, layout, max_rows=1)
    assert len(flows) == 1
    row = flows.iloc[0]
    assert (row["flows"], row["size_bytes"]) == (2, 40.0)
    assert (row["start_s"], row["end_s"]) == pytest.approx((0, 20))


@pytest.fixture
def repeating():
    """Collectives of three nodes of two GPUs: two lists of transfers, shared, and times of which some are shared."""
    rng = np.random.default_rng(5)
    rows = [
        [Transfer(0, (), ((2, 1.0), (3, 1.0)), 4.0), Transfer(4, (), ((0, 1.0), (2, 1.0)), 2.0, reduce=True)],
        [
            Transfer(int(source), (), ((int(5 - source), 1.0),), float(source + 1))
            for source in rng.integers(0, 6, 9)
        ],
    ]
    few, many = (Transfers.from_rows(each) for each in rows)
    times = [TransferTimes(rng.random(len(used)), 1 + rng.random(len(used))) for used in (few, many, many)]
    late = [TransferTimes(each.start_after_s, each.end_after_s, 7.0) for each in times]
    ran = [
        ("send", few, times[0]),
        ("dispatch", many, late[1]),
        ("send", many, times[2]),
        ("dispatch", many, times[1]),
        ("dispatch", many, late[2]),
        ("dispatch", few, late[0]),
        ("send", many, late[2]),
        ("never ran", many, TransferTimes(np.zeros(0), np.zeros(0))),
    ]
    collectives = tuple(Collective(name, used) for name, used, _ in ran)
    return collectives, [each for *_, each in ran], RankLayout.in_order(3, 2)


def test_rows_of_pairs_are_what_grouping_the_flows_gives(repeating):
    flows, pairs = flows_table(*repeating), flows_table(*repeating, max_rows=1)
    keys = ["collective", "source_node", "destination_node"]
    grouped = flows.groupby(keys, sort=False, as_index=False).agg(
        flows=("size_bytes", "size"),
        size_bytes=("size_bytes", "sum"),
        start_s=("start_s", "min"),
        end_s=("end_s", "max"),
    )
    assert len(flows) == 2 * 2 + 9 * 5
    assert len(grouped) < len(flows)
    pd.testing.assert_frame_equal(pairs, grouped, rtol=1e-12)


def test_flows_that_have_not_ended_leave_the_end_of_a_pair_to_others(repeating):
    (collective, *_), _, layout = repeating
    # from node 0 to node 1, and from nodes 0 and 1 to node 2: the second never starts
    times = TransferTimes(np.array([1.0, np.nan]), np.array([2.0, np.nan]), 3.0)
    pairs = flows_table((collective,), (times,), layout, max_rows=1)
    assert pairs[["start_s", "end_s"]].to_numpy() == pytest.approx(
        np.array([[4.0, 5.0], [np.nan, np.nan]]), nan_ok=True
    )


@pytest.fixture
def tasks(parts):
    layout = parts[1]
    transfers = Transfers.from_rows(
        [Transfer(0, (), ((3, 1.0),), 1.0), Transfer(3, (), ((1, 1.0), (2, 1.0)), 1.0)]
    )
    graph = TaskGraph(
        4,
        (
            Task("a", 0, Stream.COMPUTE, duration_s=1.0),
            Task("barrier", 0, None),
            Task("b", 3, Stream.COMMUNICATION, collective=0),
            Task("b", 1, Stream.COMMUNICATION, collective=0),
        ),
        (Collective("b", transfers),),
    )
    times = TaskTimes(np.array([0.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 3.0, 2.0]))
    texts = {
        "kernel": ["gemm-fp8", "", "", ""],
        "cost_how": ["fitted", "", "", ""],
        "cost_basis": ["roofline", "", "", ""],
    }
    return tasks_table(
        graph,
        times,
        layout,
        Waits(np.array([-1, -1, 0, 1]), np.array([-1, -1, 5, 7]), []),
        {name: pd.Series(rows, dtype="str").array for name, rows in texts.items()},
    )


@pytest.fixture
def folded():
    """Ranks 0 and 2 run in lockstep, and so do 1 and 3; the first fold sends to the second beside its streams."""
    transfers = Transfers.from_rows([Transfer(2, (), ((3, 1.0),), 1.0)])
    graph = TaskGraph(
        4,
        (
            Task("a", 0, Stream.COMPUTE, duration_s=1.0),
            Task("send", 0, None, after=(0,), collective=0),
            Task("send", 1, None, collective=0),
            Task("barrier", 0, None, after=(1,)),
        ),
        (Collective("send", transfers),),
        leader_of_rank=np.array([0, 1, 0, 1]),
        phases=(
            TaskPhase(0, "forward", (1, 2, 3), None, 0, 2),
            TaskPhase(1, "backward", None, (0, 5, 4), 2, 3),
            TaskPhase(1, "idle", None, None, 3, 3),
        ),
    )
    return graph, TaskTimes(np.array([0.5, 1.5, 0.0, 2.0]), np.array([1.5, 2.0, 2.5, 2.0]))


def test_rows_of_a_fold_say_for_how_many_ranks_they_stand(folded):
    layout = RankLayout.in_order(2, 2)
    waits = Waits(np.array([-1, 0, 0, -1]), np.full(4, -1), [])
    shown = ["task", "rank", "ranks", "stream", "waited_for_source", "waited_for_destination"]
    # sends hold up no stream, and are told; the barrier is not
    assert tasks_table(*folded, layout, waits, {})[shown].to_numpy().tolist() == [
        [0, 0, 2, "compute", -1, -1],
        [1, 0, 2, "", 2, 3],
        [2, 1, 2, "", 2, 3],
    ]


def test_phases_reach_from_their_first_task_to_their_last(folded):
    phases = phases_table(*folded)
    cells = [
        f"{part}_{name}" for part in ("forward", "backward") for name in ("pipeline", "stage", "micro_batch")
    ]
    assert phases[["rank", "ranks", "kind", *cells]].to_numpy().tolist() == [
        [0, 2, "forward", 1, 2, 3, -1, -1, -1],
        [1, 2, "backward", -1, -1, -1, 0, 5, 4],
        [1, 2, "idle", -1, -1, -1, -1, -1, -1],
    ]
    assert phases["start_s"].tolist() == pytest.approx([0.5, 0.0, np.nan], nan_ok=True)
    assert phases["end_s"].tolist() == pytest.approx([2.0, 2.5, np.nan], nan_ok=True)


def test_a_graph_without_phases_has_an_empty_table_of_the_same_columns(folded):
    graph, times = folded
    empty = phases_table(TaskGraph(4, graph.tasks, graph.collectives), times)
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == phases_table(graph, times).dtypes.to_dict()


def test_tasks_table_leaves_barriers_out(tasks):
    assert tasks[["task", "name", "rank", "node", "gpu", "stream"]].to_numpy().tolist() == [
        [0, "a", 0, 0, 0, "compute"],
        [2, "b", 3, 1, 1, "communication"],
        [3, "b", 1, 0, 1, "communication"],
    ]


def test_tasks_have_the_columns_of_their_kernels(tasks):
    assert tasks["kernel"].tolist() == ["gemm-fp8", "", ""]
    texts = tasks[["name", "stream", "kernel", "cost_how", "cost_basis"]]
    assert set(texts.dtypes) == {pd.Series(["text"]).dtype}


def test_tasks_name_the_ends_of_what_they_waited_for(tasks):
    # rank 3 waited for what came from 0, rank 1 for what 3 sent to two ranks at once
    waited = ["waited_for_source", "waited_for_destination", "waited_for_link"]
    assert tasks[waited].to_numpy().tolist() == [[-1, -1, -1], [0, 3, 5], [3, -1, 7]]


@pytest.fixture
def result(parts, tasks, folded):
    compiled, layout, transfers, recording, links, step_s = parts
    summary = {
        "scenario": "s", "question": "q", "step_time_s": step_s, "metrics": {}, "breakdown_s": {"c": step_s},
        "links": summarise_links(links),
    }  # fmt: skip
    return Result(
        summary=summary,
        tasks=tasks,
        phases=phases_table(*folded),
        flows=flows_table((Collective("c", transfers),), recording.transfers, layout),
        links=links,
        link_timeline=timeline_table(
            links, recording.meter, compiled.link_of_cable, compiled.cables_of_link, step_s
        ),
        scenario_text="name: s\n",
    )


def test_a_result_survives_saving(result, tmp_path):
    result.save(tmp_path)
    loaded = Result.load(tmp_path)
    assert loaded.summary == result.summary
    assert loaded.scenario_text == result.scenario_text
    for table in ("tasks", "phases", "flows", "links", "link_timeline"):
        pd.testing.assert_frame_equal(getattr(loaded, table), getattr(result, table))


def test_the_picture_shows_what_the_tables_hold(result):
    breakdown, kinds, over_time, *_ = draw_overview(result).axes
    # 20 s of step in one bar; the busiest NIC at 15%; over time at most (30 + 30) bytes in 3 s of 8 x 10 bytes/s.
    assert [bar.get_width() for bar in breakdown.patches] == pytest.approx([20.0])
    assert max(bar.get_height() for bar in kinds.patches) == pytest.approx(15.0)
    labels = [text.get_text() for text in over_time.get_legend().get_texts()]
    assert labels == ["pcie, pcie_nic", "nic"]
    edges_s, percent = over_time.lines[labels.index("nic")].get_data()
    assert max(percent) == pytest.approx(100 * 2 * 10 / (8 * 10))
    assert edges_s[-1] == pytest.approx(20.0)
