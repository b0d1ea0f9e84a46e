"""What phases wait for, and an order in which a schedule can run."""

from typing import NamedTuple

from workloads.schedules.phases import Cell, Kind, Phase, Schedule


class Output(NamedTuple):
    """What a phase gives to others: the activations that leave a cell's stage, or the gradients of its inputs."""

    is_gradient: bool
    cell: Cell

    def __str__(self) -> str:
        what = "backward" if self.is_gradient else "forward"
        return f"the {what} of micro-batch {self.cell.micro_batch} on stage {self.cell.stage}"


def outputs(phase: Phase) -> list[Output]:
    """Return what a phase gives; a weight part gives nothing that others wait for."""
    if phase.kind is Kind.WEIGHT:
        return []
    cells = ((False, phase.forward), (True, phase.backward))
    return [Output(is_gradient, cell) for is_gradient, cell in cells if cell is not None]


def inputs(schedule: Schedule, phase: Phase) -> list[Output]:
    """Return what a phase waits for, besides the phase before it on its rank.

    A forward waits for the stage before; a backward for its own forward and for the stage after; a weight part for
    its own backward.
    """
    needs = []
    if phase.forward is not None and phase.forward.stage > 0:
        needs.append(Output(False, phase.forward._replace(stage=phase.forward.stage - 1)))
    if phase.backward is not None and phase.kind is Kind.WEIGHT:
        needs.append(Output(True, phase.backward))
    elif phase.backward is not None:
        needs.append(Output(False, phase.backward))
        if phase.backward.stage < schedule.num_stages - 1:
            needs.append(Output(True, phase.backward._replace(stage=phase.backward.stage + 1)))
    return needs


def execution_order(schedule: Schedule) -> list[tuple[int, int]]:
    """Return all phases as (rank, place in its list), each after everything that it waits for.

    Raises ValueError, naming what each rank waits for, where ranks wait for each other.
    """
    order: list[tuple[int, int]] = []
    given: set[Output] = set()
    waiting: dict[Output, list[int]] = {}
    places = [0] * schedule.num_ranks
    ready = list(range(schedule.num_ranks))
    while ready:
        rank = ready.pop()
        phases = schedule.phases[rank]
        while places[rank] < len(phases):
            phase = phases[places[rank]]
            missing = next((need for need in inputs(schedule, phase) if need not in given), None)
            if missing is not None:
                waiting.setdefault(missing, []).append(rank)
                break
            order.append((rank, places[rank]))
            places[rank] += 1
            for output in outputs(phase):
                given.add(output)
                ready += waiting.pop(output, [])
    if waiting:
        stuck = sorted((rank, str(need)) for need, ranks in waiting.items() for rank in ranks)
        msg = "deadlock: " + "; ".join(f"rank {rank} waits for {need}" for rank, need in stuck)
        raise ValueError(msg)
    return order
