"""Runs the largest case in a process of its own, so that its peak memory is its own; prints one JSON object."""

import json
import resource
import sys
import time
from typing import Final

from cases import all_to_all, busiest_link_s, multi_plane

from simulator.replay import replay_flows

GPUS: Final = 1024
_KIBIBYTE: Final = 1024  # ru_maxrss counts these on Linux


def main(num_gpus: int, seed: int) -> None:
    """Replay a lognormal all-to-all over the multi-plane network with static routing."""
    small = all_to_all(multi_plane(64), seed=seed)
    flows = all_to_all(multi_plane(num_gpus), seed=seed)
    for case in (small, flows):
        before_s = time.perf_counter()
        replay = replay_flows(
            case.capacity_bytes_per_s, case.path_offsets, case.path_links, case.size_bytes, case.start_s
        )
        wall_s = time.perf_counter() - before_s
    report = {
        "flows": len(flows),
        "wall_s": wall_s,
        "solves": replay.solves,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE,
        "finish_s": float(replay.finish_s.max()),
        "busiest_link_s": busiest_link_s(flows),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
