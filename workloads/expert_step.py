"""The step of `expert-parallel`, ready to run, and what it says of its run."""

from dataclasses import dataclass

import numpy as np

from workloads.messages import Kernel, TokenBytes
from workloads.moe import ExpertTraffic
from workloads.tasks import Collective, IntArray, Summary, TaskGraph, TaskTimes


@dataclass(frozen=True, slots=True)
class Exchange:
    """One layer's dispatch and combine.

    unbalanced, unbalanced_collectives: what they would be without balancing; None and none where nothing is balanced
    """

    traffic: ExpertTraffic
    collectives: tuple[Collective, ...]
    unbalanced: ExpertTraffic | None
    unbalanced_collectives: tuple[Collective, ...]


@dataclass(frozen=True, slots=True)
class ExpertParallel:
    """Dispatches and combines, ready to run.

    exchanges: [layers]; tokens: the bytes of a token in dispatch and combine; num_sms: held by the kernels
    over_nics: whether messages cross NICs even within a node
    """

    graph: TaskGraph
    assumptions: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    tokens_per_rank: int
    kernel: Kernel
    num_sms: int
    over_nics: bool
    tokens: tuple[TokenBytes, TokenBytes]

    @property
    def before_balancing(self) -> tuple[Collective, ...]:
        """Return the collectives that there would be without balancing, none where nothing is balanced."""
        return tuple(part for exchange in self.exchanges for part in exchange.unbalanced_collectives)

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the seconds of dispatch and combine, and their bandwidths per GPU, means over ranks and layers.

        Logical bandwidth is DeepEP's. Of normal kernels it counts a token's values and scales once per destination
        node, its own included, or, where groups lie on one node, once per destination GPU, its own included; of
        low-latency ones a message for each expert of a token. Wire bandwidth counts messages that cross a NIC, or
        NVLink where groups lie on one node and use it. Both are 0 for a phase in which nothing moves.
        """
        seconds = self._seconds(times)
        num_layers = len(self.exchanges)
        metrics = {f"{phase}_s": total / num_layers for phase, total in seconds.items()}
        for (phase, total), token in zip(seconds.items(), self.tokens, strict=True):
            metrics |= self._bytes(phase, token, total)
        return Summary(
            breakdown_s=seconds, metrics={**metrics, **self._loads(), "communication_sms": self.num_sms}
        )

    def _seconds(self, times: TaskTimes) -> dict[str, float]:
        """Return how long all dispatches took, and all combines: from the last end of the phase before to theirs."""
        ends = np.zeros(len(self.graph.collectives))
        of_task = [
            (task.collective, end_s) for task, end_s in zip(self.graph.tasks, times.end_s, strict=True)
        ]
        for collective, end_s in of_task:
            if collective is not None:
                ends[collective] = max(ends[collective], end_s)
        lasting = np.diff(np.concatenate([[0.0], ends])).reshape(-1, 2).sum(axis=0)
        dispatch_s = float(lasting[0])
        return {"dispatch": dispatch_s, "combine": times.step_time_s - dispatch_s}

    def _bytes(self, phase: str, token: TokenBytes, seconds: float) -> dict[str, float]:
        """Return a phase's logical and wire bandwidth per GPU, and the bytes that count as logical in a layer."""
        logical = crossing = 0
        for exchange in self.exchanges:
            traffic = exchange.traffic
            on_one_node = traffic.groups.num_slots == 1
            if self.kernel == "low-latency":
                logical += int(traffic.pairs_to_rank.sum())
                by_rank = on_one_node or self.over_nics
                crossing += traffic.pairs_to_other_ranks() if by_rank else traffic.pairs_to_other_nodes()
            else:
                logical += int((traffic.tokens_to_rank if on_one_node else traffic.tokens_to_node).sum())
                crossing += traffic.to_other_ranks() if on_one_node else traffic.to_other_nodes()
        num_ranks = self.graph.num_ranks
        per_gpu_s = seconds * num_ranks
        return {
            f"{phase}_logical_bytes": logical * token.logical / (num_ranks * len(self.exchanges)),
            f"{phase}_logical_bytes_per_s": logical * token.logical / per_gpu_s if per_gpu_s else 0.0,
            f"{phase}_wire_bytes_per_s": crossing * token.message / per_gpu_s if per_gpu_s else 0.0,
        }

    def _loads(self) -> dict[str, float]:
        """Return how far tokens spread, and how unequal the loads of experts, GPUs and nodes are, at worst."""
        traffic = [exchange.traffic for exchange in self.exchanges]
        num_tokens = self.tokens_per_rank * self.graph.num_ranks * len(traffic)
        loads = {
            "nodes_per_token": sum(int(each.tokens_to_node.sum()) for each in traffic) / num_tokens,
            "gpus_per_token": sum(int(each.tokens_to_rank.sum()) for each in traffic) / num_tokens,
            "expert_load_max_over_mean": max(_max_over_mean(each.expert_load) for each in traffic),
            **_spread(traffic, ""),
        }
        before = [exchange.unbalanced for exchange in self.exchanges if exchange.unbalanced is not None]
        return loads | (_spread(before, "_before_balancing") if before else {})


def _spread(traffic: list[ExpertTraffic], ending: str) -> dict[str, float]:
    """Return the largest load of a GPU and of a node over the mean, of the worst layer and group."""
    return {
        f"gpu_load_max_over_mean{ending}": max(_max_over_mean(each.place_load()) for each in traffic),
        f"node_load_max_over_mean{ending}": max(_max_over_mean(each.node_load()) for each in traffic),
    }


def _max_over_mean(load: IntArray) -> float:
    """Return the largest of a group's loads over their mean, [num_groups, ...], of the worst group."""
    return float((load.max(axis=1) / load.mean(axis=1)).max())
