"""A scenario as a GOAL schedule: no byte and no nanosecond lost, all messages met, nothing in a circle."""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from simulator import load_scenario
from simulator.engine import execute
from simulator.interchange import ACCEPTANCES, Case, NotSayableError, write_goal
from simulator.interchange.goal_builder import schedule_of
from simulator.interchange.schedule import CPU_OF_STREAM, Schedule, Whole
from support.clusters import IDEAL, network
from support.interchange_text import Goal, bytes_by_hand, read_goal
from support.params import mostly_slow
from support.tiny_scenarios import CASES, tiny_scenario
from workloads.tasks import Collective, Stream, Task, TaskGraph, Transfer, Transfers, run_in_turn

EVERYTHING = tuple(ACCEPTANCES)


def case_of(folder: Path, workload: str, more: str = "", gpus: int = 2, nodes: int = 2) -> Case:
    node = f"{{node: h800, nodes: {nodes}, topology: {{kind: multi-plane-fat-tree}}}}"
    (folder / "s.yaml").write_text(
        f"name: s\ncluster: {node}\nmodel: null\ncosts: ideal\nworkload: {workload}\n{more}"
    )
    return Case.of(load_scenario(folder / "s.yaml"))


def written(case: Case, folder: Path, accepted: tuple[str, ...] = EVERYTHING) -> Goal:
    write_goal(case, folder / "out", accepted)
    goal = read_goal((folder / "out" / "schedule.goal").read_text())
    goal.check()
    return goal


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return kind of workload -> its case and schedule, each written and read once."""

    @cache
    def of(kind: str) -> tuple[Case, Goal]:
        folder = tmp_path_factory.mktemp(kind)
        case = Case.of(tiny_scenario(kind, folder))
        return case, written(case, folder)

    return of


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "kind", mostly_slow(CASES.keys(), "collective", "expert-parallel", "flows", "training-step")
)
def test_nothing_is_lost(kind: str, exported):
    case, goal = exported(kind)
    assert goal.num_ranks == case.graph.num_ranks == 16
    expected: Counter[tuple[int, int]] = Counter()
    for collective in case.graph.collectives:
        expected.update(bytes_by_hand(collective.transfers))
    found, empty = (
        goal.bytes_of_pairs(),
        Counter(message[:2] for message in goal.sends.values() if message.size_bytes == 1),
    )
    for pair in {*expected, *found}:  # what has less than a byte is written with one
        off = found[pair] - expected[pair]
        assert -0.5 - 1e-9 * expected[pair] <= off <= 0.5 + 1e-9 * expected[pair] + empty[pair], pair
    busy_ns: Counter[tuple[int, int]] = Counter()
    for task in case.graph.tasks:
        for rank in case.graph.fold_of(task.rank).tolist():
            busy_ns[rank, CPU_OF_STREAM[task.stream]] += task.duration_s * 1e9
    found_ns = goal.busy_ns()
    for cpu in busy_ns:
        assert abs(found_ns[cpu] - busy_ns[cpu]) <= 0.5 + 1e-6, cpu
    # on a network that takes no time a rank still takes what its kernels do
    assert goal.ended_ns() >= max(busy_ns.values()) - 1


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "kind", mostly_slow(["training-step", "decode-step", "prefill-step"], "training-step")
)
def test_on_a_network_that_takes_no_time_a_step_takes_what_it_does_in_railplane(kind: str, exported):
    case, goal = exported(kind)
    endless = dict.fromkeys(("nvlink", "pcie", "nic"), "1e18 B/s")
    compiled, layout = network(2, costs=IDEAL, rates=endless)
    times = execute(case.graph, compiled, layout.endpoint_of_rank).times
    # times of thousands of kernels are whole nanoseconds, of which only the sums are right
    assert goal.ended_ns() * 1e-9 == pytest.approx(times.step_time_s, rel=1e-6)
    assert times.step_time_s > 0


def test_relays_hand_on_what_they_have(tmp_path: Path):
    # rank 0 spreads over 1 to 2 and 3, and keeps a copy at 1; 2 and 3 send sums over 1, which adds its own, to 0
    spread = Transfer(0, (1,), ((1, 0.5), (2, 1.0), (3, 0.25)), 8.0)
    gather = Transfer(0, (1,), ((1, 0.5), (2, 1.0), (3, 0.25)), 8.0, reduce=True)
    collectives = tuple(
        Collective(name, Transfers.from_rows([row])) for name, row in zip("sg", (spread, gather), strict=True)
    )
    goal = read_goal("\n".join(schedule_of(run_in_turn(collectives, range(4), 4)).lines()))
    goal.check()
    assert {message[:2]: message.size_bytes for message in goal.sends.values() if message.size_bytes > 1} == {
        (0, 1): 8, (1, 2): 8, (1, 3): 2, (2, 1): 8, (3, 1): 2, (1, 0): 8,
    }  # fmt: skip

    def waits_of(source: int, target: int) -> list[tuple[int, int]]:
        (key,) = [
            key
            for key, message in goal.sends.items()
            if message[:2] == (source, target) and message.size_bytes > 1
        ]
        return sorted(goal.recvs[before][:2] for before in goal.after[key] if before in goal.recvs)

    assert waits_of(1, 2) == waits_of(1, 3) == [(0, 1)]
    assert waits_of(1, 0) == [(2, 1), (3, 1)]
    assert waits_of(0, 1) == waits_of(2, 1) == []
    # the second collective waits for the first: by news over the barrier's rank 0
    assert news_of(goal) == [(0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0)]


def news_of(goal: Goal) -> list[tuple[int, int]]:
    """Return between whom messages of 1 byte go."""
    return sorted(message[:2] for message in goal.sends.values() if message.size_bytes == 1)


def test_what_waits_for_others_waits_for_all_that_they_take_part_in():
    # 2 computes 5 us, then sends to 1; 1 sends to 0 at once; b, on 0, waits for 1's part in both
    transfers = Transfers.from_rows([Transfer(2, (), ((1, 1.0),), 8.0), Transfer(1, (), ((0, 1.0),), 8.0)])
    tasks = (
        Task("a", 2, Stream.COMPUTE, duration_s=5e-6),
        *(Task("x", rank, None, after=after, collective=0) for rank, after in ((2, (0,)), (1, ()), (0, ()))),
        Task("b", 0, Stream.COMPUTE, after=(2,), duration_s=1e-6),
    )
    goal = read_goal("\n".join(schedule_of(TaskGraph(3, tasks, (Collective("x", transfers),))).lines()))
    goal.check()
    assert goal.ended_ns() == 5000 + 1000
    assert news_of(goal) == [(1, 0)]
    # what 2 sends to 1 is all that 2 does
    tasks = (*tasks[:4], Task("b", 1, Stream.COMPUTE, after=(1,), duration_s=1e-6))
    goal = read_goal("\n".join(schedule_of(TaskGraph(3, tasks, (Collective("x", transfers),))).lines()))
    assert goal.ended_ns() == 5000 + 1000
    assert news_of(goal) == []


def test_streams_and_dependencies_are_kept():
    # rank 0: a, then b on one stream, 2 + 3 us; rank 1: c of 1 us waits for a; rank 0: d of 4 us waits for c
    tasks = (
        Task("a", 0, Stream.COMPUTE, duration_s=2e-6),
        Task("b", 0, Stream.COMPUTE, duration_s=3e-6),
        Task("c", 1, Stream.COMPUTE, after=(0,), duration_s=1e-6),
        Task("d", 0, Stream.COMMUNICATION, after=(2,), duration_s=4e-6),
    )
    goal = read_goal("\n".join(schedule_of(TaskGraph(2, tasks, ())).lines()))
    goal.check()
    assert goal.ended_ns() == 2000 + 1000 + 4000
    assert goal.busy_ns() == {(0, 0): 5000, (1, 0): 1000, (0, 1): 4000}


def test_the_same_scenario_gives_the_same_bytes(tmp_path: Path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_goal(
            Case.of(tiny_scenario("training-step", tmp_path / name)), tmp_path / name / "out", EVERYTHING
        )
        texts.append(
            [(tmp_path / name / "out" / file).read_bytes() for file in ("schedule.goal", "README.md")]
        )
    assert texts[0] == texts[1]


FLOWS = "source,destination,size_bytes,start_s\n0,1,10,2e-6\n0,2,10,1e-6\n1,2,0.4,0\n1,2,0.4,0\n"


def test_delayed_flows_wait_for_timers(tmp_path: Path):
    (tmp_path / "flows.csv").write_text(FLOWS)
    goal = written(case_of(tmp_path, "{kind: flows, path: flows.csv}"), tmp_path, ())
    # rank 0's second flow leaves after 1,000 ns, its first 1,000 ns later; 0.4 and 0.4 bytes are none and one
    timers = [taken for key, taken in goal.calc_ns.items() if goal.cpu[key] == 3]
    assert timers == [1000, 1000]
    assert goal.ended_ns() == 2000
    assert goal.bytes_of_pairs() == {(0, 1): 10, (0, 2): 10, (1, 2): 2}
    assert "Of messages of 1 byte 1 carry less" in (tmp_path / "out" / "README.md").read_text()
    assert len(goal.sends) == 4


def test_a_ring_goes_round_after_round(tmp_path: Path):
    # of four ranks in one ring, each sends three quarters of the buffer in three rounds
    workload = "{kind: collective, operation: all-gather, size: 1200 B, ranks: [0, 1, 2, 3]}"
    goal = written(case_of(tmp_path, workload), tmp_path, ())
    assert set(goal.bytes_of_pairs().values()) <= {900, 225}
    assert sum(goal.bytes_of_pairs().values()) == 4 * 900
    assert {message.tag for message in goal.sends.values()} >= {0, 1, 2}
    sends = {(message.source, message.target, message.tag): key for key, message in goal.sends.items()}
    for (source, _, tag), key in sends.items():
        waited = [goal.recvs[before] for before in goal.after[key] if before in goal.recvs]
        assert all(message.target == source for message in waited)
        assert bool(waited) == (tag % 3 > 0)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("collective", {"store-and-forward"}),
        ("training-step", {"own-pace"}),
        ("expert-parallel", {"store-and-forward", "weights"}),
    ],
)
def test_what_cannot_be_said_must_be_accepted(kind: str, names: set[str], tmp_path: Path):
    case = Case.of(tiny_scenario(kind, tmp_path))
    with pytest.raises(NotSayableError, match="accept it with") as error:
        write_goal(case, tmp_path / "out")
    assert {name for name in ACCEPTANCES if f"--accept {name}" in str(error.value)} >= names
    assert not (tmp_path / "out").exists()
    write_goal(case, tmp_path / "out", EVERYTHING)
    about = (tmp_path / "out" / "README.md").read_text()
    assert all(f"`{name}`" in about for name in names)


def test_faults_are_refused_whatever_is_accepted(tmp_path: Path):
    (tmp_path / "flows.csv").write_text(FLOWS)
    more = "faults: [{kind: plane, plane: 2, at: 1 ms}]\n"
    with pytest.raises(NotSayableError, match="faults"):
        write_goal(case_of(tmp_path, "{kind: flows, path: flows.csv}", more), tmp_path, EVERYTHING)


def test_too_much_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("simulator.interchange.goal.MOST_OPERATIONS", 100)
    # 16 x 15 pairs, of which each rank's with the seven of other index on the other node cross NVLink first
    with pytest.raises(NotSayableError, match="352 messages and 16 tasks"):
        write_goal(Case.of(tiny_scenario("collective", tmp_path)), tmp_path / "out", EVERYTHING)


def test_whole_numbers_keep_their_sum():
    amounts = np.random.default_rng(1).random(1000) * 3
    whole = Whole()
    found = [whole.next(float(amount)) for amount in amounts]
    assert np.abs(np.cumsum(found) - np.cumsum(amounts)).max() <= 0.5 + 1e-9
    assert min(found) >= 0


def test_a_rank_without_work_has_a_calc():
    assert list(Schedule(1).lines()) == ["num_ranks 1", "", "rank 0 {", "l0: calc 0", "}"]
