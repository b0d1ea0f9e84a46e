"""Scenarios that can run, small and of every kind: each field and each value of the schema is drawn at some time."""

from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from fuzz.strategies_cluster import DrawnCluster, clusters
from fuzz.strategies_costs import cost_tables
from fuzz.strategies_exchanges import DrawnWorkload, collectives, expert_exchanges, flows, nccl_tests
from fuzz.strategies_faults import faults
from fuzz.strategies_kernels import kernel_calls
from fuzz.strategies_steps import decode_steps, prefill_steps, training_steps
from fuzz.strategies_text import Drawn, one_in


@st.composite
def _kernels(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw a list of kernel calls."""
    fields: dict[str, Any] = {
        "calls": draw(st.lists(kernel_calls(), min_size=draw(st.sampled_from([1, 4])), max_size=8))
    }
    if draw(one_in(3)):
        fields["communication_sms"] = draw(st.sampled_from([0, 20] if cluster.knows_sms else [0]))
    return DrawnWorkload({"kind": "kernels", **fields})


WORKLOADS: Final[dict[str, Callable[[DrawnCluster], st.SearchStrategy[DrawnWorkload]]]] = {
    "collective": collectives,
    "decode-step": decode_steps,
    "expert-parallel": expert_exchanges,
    "flows": flows,
    "kernels": _kernels,
    "nccl-tests": nccl_tests,
    "prefill-step": prefill_steps,
    "training-step": training_steps,
}
_NAMES = st.sampled_from(["drawn", "a name: with {odd} 'signs' #1", "größer 🚀", "null"])
_MOST_RANKS = {"decode-step": 16, "prefill-step": 16, "training-step": 12}
_TAKES_SEVERAL = frozenset({"collective", "flows", "nccl-tests"})


@st.composite
def scenarios(draw: st.DrawFn, kind: str | None = None, *, with_faults: bool = True) -> Drawn:
    """Draw a scenario that can run, of one kind of workload or of any."""
    kind = kind or draw(st.sampled_from(sorted(WORKLOADS)))
    cluster = draw(clusters(multi_node=kind in _TAKES_SEVERAL, max_ranks=_MOST_RANKS.get(kind, 24)))
    workload = draw(WORKLOADS[kind](cluster))
    costs, files = draw(cost_tables(is_hopper=cluster.is_hopper))
    data: dict[str, Any] = {
        "name": draw(_NAMES),
        "cluster": dict(cluster.data),
        "workload": workload.data,
    }
    needed = workload.data.get("expert_parallel")
    if (
        kind == "expert-parallel"
        and needed
        and -(-needed // cluster.gpus) == cluster.num_nodes
        and draw(one_in(3))
    ):
        del data["cluster"]["nodes"]
    if workload.model is not None:
        data["model"] = workload.model.name
    elif draw(one_in(8)):
        data["model"] = draw(st.sampled_from(["deepseek-v3", None]))
    if draw(one_in(2)):
        data["seed"] = draw(st.sampled_from([0, 1, 7, 2**63 - 1]))
    if costs is not None:
        data["costs"] = costs
    if with_faults and draw(one_in(3)):
        data["faults"] = draw(faults(cluster))
    if kind == "decode-step" and isinstance(cluster.data["node"], dict) and draw(one_in(6)):
        _fill_memory(data)
    return Drawn(data, {**cluster.files, **workload.files, **files})


def _fill_memory(data: dict[str, Any]) -> None:
    """Have GPUs take as many requests as their memory holds: some dozens, as it is small."""
    node = data["cluster"]["node"]
    data["cluster"]["node"] = {**node, "gpu": {**node["gpu"], "memory": "16 MB"}}
    data["workload"] |= {"batch_per_gpu": "largest", "cached_tokens": 1000, "limit": False}
