"""A scenario's task graph as a GOAL schedule, for LogGOPSim and ATLAHS: see `simulator.interchange.schedule`.

`simulator.interchange.goal_builder` says what becomes of tasks, `goal_messages` what of transfers.
"""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np

from simulator.durable import naming, write_file
from simulator.interchange.acceptance import Acceptance
from simulator.interchange.case import Case
from simulator.interchange.goal_builder import schedule_of
from simulator.interchange.schedule import Schedule
from simulator.pricing import pricing_of
from simulator.whole_folder import WholeFolder
from workloads.tasks import Collective, TaskGraph, Transfers

MOST_OPERATIONS: Final = 5_000_000  # some 300 MB of text

FILES: Final = ("schedule.goal", "README.md")


def write_goal(case: Case, folder: Path | WholeFolder, accepted: Collection[str] = ()) -> None:
    """Write `schedule.goal`, and a `README.md` that says what it holds, as all that a folder holds of an export.

    accepted: names of `ACCEPTANCES`. Raises NotSayableError, before anything is written, for what GOAL cannot say and
    the user has not accepted to lose, OSError and FolderRefused.
    """
    acceptance = Acceptance("GOAL", accepted)
    _look_for_losses(case, acceptance)
    acceptance.check()
    schedule = schedule_of(case.graph)
    with WholeFolder.of(folder, "export").replaced() as new:
        text, about = (new / name for name in FILES)
        with naming(text), text.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in schedule.lines())
        write_file(about, _about(case, schedule, acceptance).encode())


def _look_for_losses(case: Case, acceptance: Acceptance) -> None:
    """Note all that GOAL cannot say, and refuse what no schedule can do without."""
    graph = case.graph
    if case.loaded.scenario.faults:
        acceptance.refuse("faults and stragglers; take them out with --set 'faults=[]'")
    for collective in graph.collectives:
        _look_at(collective, case, acceptance)
    if graph.leader_of_rank is not None and len(set(graph.leader_of_rank.tolist())) < graph.num_ranks:
        acceptance.needs("own-pace", "ranks are folded")
    legs = sum(_num_messages(collective.transfers) for collective in graph.collectives)
    tasks = sum(len(graph.fold_of(leader)) * count for leader, count in _tasks_of_leaders(graph).items())
    if 2 * (legs + tasks) > MOST_OPERATIONS:
        acceptance.refuse(
            f"{legs:,} messages and {tasks:,} tasks of ranks are more than files of {MOST_OPERATIONS:,} "
            "operations hold; export a smaller cluster or fewer micro-batches"
        )


def _look_at(collective: Collective, case: Case, acceptance: Acceptance) -> None:
    transfers, name = collective.transfers, collective.name
    relayed = np.diff(transfers.relay_offsets) > 0
    if collective.from_host:
        acceptance.refuse(f"{name} comes out of the memory of hosts, which are no ranks")
    branched = relayed | (np.diff(transfers.destination_offsets) > 1) | transfers.reduce
    if (branched & (transfers.rounds > 1)).any():
        acceptance.refuse(f"{name} has transfers over relays that pay their latency several times")
    if relayed.any():
        acceptance.needs("store-and-forward", f"{name} has relays")
    if (transfers.weight != 1.0).any():
        acceptance.needs("weights", f"flows of {name} have weights")
    pricing = pricing_of(collective, case.loaded.costs.pricing)
    if not pricing.is_free or pricing.start_up_s:
        acceptance.needs("kernel-costs", f"{name} is moved by a kernel, whose start-up is left out too")


def _num_messages(transfers: Transfers) -> int:
    single = int((transfers.rounds - 1).sum())
    return len(transfers.relay_ranks) + len(transfers.destination_ranks) + single


def _tasks_of_leaders(graph: TaskGraph) -> dict[int, int]:
    counts: defaultdict[int, int] = defaultdict(int)
    for task in graph.tasks:
        counts[task.rank] += 1
    return counts


def _about(case: Case, schedule: Schedule, acceptance: Acceptance) -> str:
    """Return what the file beside the schedule says."""
    scenario = case.loaded.scenario
    notes = [
        "`schedule.goal` is the text that `txt2bin` of LogGOPSim and ATLAHS reads; times are nanoseconds, sizes "
        "bytes, both whole, so that the sum of any cpu's times is right to a half, and, but for messages of less "
        "than a byte, that of any pair's bytes.",
        "The cpus of a rank: 0 its compute stream, 1 its communication stream, 2 what lies on neither, 3 timers.",
        "It says nothing about the network: latency, bandwidth, topology and routing are those of the simulator that "
        "reads it.",
        "A send ends when its own rank is done with it; in railplane the sender's task lasts until it has arrived.",
        "A ring is as many messages a hop as it has rounds; each waits for all that reached its rank one round "
        "before.",
        f"Of messages of 1 byte {schedule.num_empty:,} carry less: they let a rank know that another's task has "
        "ended, or stand for less than half a byte. LogGOPSim takes a message's bytes less one, so that one of none "
        "would arrive in less than no time.",
    ]
    accepted = acceptance.lines()
    lost = ["", "Accepted:", "", *(f"- {line}" for line in accepted)] if accepted else []
    return "\n".join([f"# {scenario.name}", "", *(f"- {note}" for note in notes), *lost, ""])
