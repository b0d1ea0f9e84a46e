"""What a workload holds once it is built, beside what its spec said before."""

import numpy as np

from simulator.layout import RankLayout
from workloads.size import WorkSize
from workloads.tasks import Setting, Workload


def built(spec, setting: Setting, seed: int = 1) -> Workload:
    """Return a spec's workload, through the checks that a scenario makes."""
    spec.check(setting)
    layout = RankLayout.in_order(setting.num_ranks // setting.gpus_per_node, setting.gpus_per_node)
    return spec.build(setting, layout, np.random.default_rng(seed))


def check_work_size(size: WorkSize, workload: Workload) -> None:
    """Nothing may be more than was said, nor less than half of it."""
    graph = workload.graph
    collectives = (*graph.collectives, *workload.before_balancing)
    distinct = {id(collective.transfers): collective.transfers for collective in collectives}.values()
    counted = {
        "tasks": (len(graph.tasks), size.tasks),
        "collectives": (len(graph.collectives), size.collectives),
        "transfers": (sum(map(len, distinct)), size.held.transfers),
        "stops": (
            sum(len(each.relay_ranks) + len(each.destination_ranks) for each in distinct),
            size.held.stops,
        ),
        "flows": (sum(len(each.transfers) for each in graph.collectives), size.flows),
    }
    for name, (found, said) in counted.items():
        assert said / 2 <= found <= said, f"{found:,} {name}, and it was said that there would be {said:,}"
    largest = max((len(each.transfers) for each in graph.collectives), default=0)
    assert largest <= size.together.transfers <= size.held.transfers
