"""Cases small enough to solve by hand: what every solver in the benchmark must get right before it is timed."""

from dataclasses import dataclass

import numpy as np
from cases import FloatArray, Flows

from simulator.rows import csr_offsets


@dataclass(frozen=True, slots=True)
class Known:
    """A case and when each of its flows ends: finish_s [num_flows]."""

    name: str
    flows: Flows
    finish_s: FloatArray


def known_cases() -> tuple[Known, ...]:
    """Return cases with their answers, each with its arithmetic."""
    return (
        # Four flows at 2 each until 0.75 s; the others have 1, 2 and 3 left and get 8/3: the next needs 0.375 s more;
        # then 1 and 2 left at 4: 0.25 s; then 1 left at 8: 0.125 s.
        _case("incast", [8], [[0]] * 4, [1.5, 2.5, 3.5, 4.5], [0] * 4, [0.75, 1.125, 1.375, 1.5]),
        # The long flow gets half of each link, 1, as do the short ones, which end at 2 s; its other 2 then go at 2.
        _case("parking lot", [2] * 3, [[0, 1, 2], [0], [1], [2]], [4, 2, 2, 2], [0] * 4, [3, 2, 2, 2]),
        # Link 1 holds flow 1 to 4, so that flow 0 gets 6 of link 0's 10: 12/6 = 2 s; flow 1 needs 18/4 = 4.5 s.
        _case("uneven shares", [10, 4], [[0], [0, 1]], [12, 18], [0, 0], [2, 4.5]),
        # Flow 0 alone until 1 s has 20 of 30 left; at 5 each flow 1 (10 bytes) ends at 3 s; 10 left at 10: 4 s.
        _case("late start", [10], [[0], [0]], [30, 10], [0, 1], [4, 3]),
        # Nothing is under way from 1 s to 5 s. Sizes that are no whole bytes: 2.5 at 10 take 0.25 s.
        _case("gap", [10], [[0], [0]], [10, 2.5], [0, 5], [1, 5.25]),
    )


def _case(
    name: str,
    capacity: list[float],
    paths: list[list[int]],
    sizes: list[float],
    starts: list[float],
    finish: list[float],
) -> Known:
    """Return a case from lists."""
    flows = Flows(
        np.array(capacity, np.float64),
        csr_offsets([len(path) for path in paths]),
        np.array([link for path in paths for link in path], np.int64),
        np.array(sizes, np.float64),
        np.array(starts, np.float64),
    )
    return Known(name, flows, np.array(finish, np.float64))
