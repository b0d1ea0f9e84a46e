"""Workloads that only move bytes: collectives, tables of nccl-tests, lists of flows, expert-parallel exchanges."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_cluster import DrawnCluster
from fuzz.strategies_experts import expert_fields
from fuzz.strategies_models import DEEPSEEK_V2, DEEPSEEK_V3, DrawnModel, mixtures
from fuzz.strategies_text import one_in, quantities, some_of, table_files
from support.tiny_scenarios import nccl_text

_PROGRAMS = {
    "all-to-all": "alltoall_perf",
    "all-gather": "all_gather_perf",
    "reduce-scatter": "reduce_scatter_perf",
    "all-reduce": "all_reduce_perf",
    "send-receive": "sendrecv_perf",
}


@dataclass(frozen=True)
class DrawnWorkload:
    """A workload as drawn, the model that it needs, and the files that it names."""

    data: dict[str, Any]
    model: DrawnModel | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def degrees(num_ranks: int, gpus: int) -> list[int]:
    """Return the expert-parallel degrees that divide so many ranks, and are parts of nodes or whole nodes."""
    return [
        degree
        for degree in range(1, num_ranks + 1)
        if num_ranks % degree == 0 and (gpus % degree == 0 or degree % gpus == 0)
    ]


@st.composite
def collectives(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw a collective of all ranks, of some, or of groups of them."""
    fields: dict[str, Any] = {
        "kind": "collective",
        "operation": draw(st.sampled_from(["all-to-all", "all-gather", "reduce-scatter", "all-reduce"])),
        "size": draw(quantities("bytes", 1.0, 1e10)),
    }
    count = cluster.num_ranks
    if draw(one_in(3)):
        order = draw(st.permutations(range(count)))
        count = draw(st.integers(min(2, count), count))
        fields["ranks"] = order[:count]
    elif draw(one_in(2)):
        fields["ranks"] = "all"
    divisors = [each for each in range(1, count + 1) if count % each == 0]
    if draw(one_in(3)):
        fields["stride"] = draw(st.sampled_from(divisors))
    if draw(one_in(3)) and count > 1:
        fields["group_size"] = draw(st.sampled_from(divisors[1:]))
    return DrawnWorkload(fields)


@st.composite
def nccl_tests(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw a table of nccl-tests over the first ranks."""
    operation = draw(st.sampled_from(sorted(_PROGRAMS)))
    count = draw(st.integers(min(2, cluster.num_ranks), cluster.num_ranks))
    sizes = draw(
        st.lists(st.sampled_from([0, 1024, 1 << 16, 1 << 20, 1 << 27]), min_size=1, max_size=3, unique=True)
    )
    text = nccl_text(count, _PROGRAMS[operation], tuple(sorted(sizes)))
    if draw(one_in(4)):  # as printed by an old version, which says neither
        text = "\n".join(line for line in text.split("\n") if "starting" not in line and " Rank " not in line)
        fields: dict[str, Any] = {"operation": operation, "ranks": count}
    else:
        fields = draw(
            some_of(
                {"operation": st.sampled_from([operation, None]), "ranks": st.sampled_from([count, None])}
            )
        )
    fields |= draw(some_of({"measured": st.sampled_from(["in-place", "out-of-place"])}))
    return DrawnWorkload(
        {"kind": "nccl-tests", "path": "nccl.txt", **fields}, files={"nccl.txt": text.encode()}
    )


@st.composite
def flows(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw a list of flows: bursts and single ones, some of no bytes, endpoints as ranks or as GPUs."""
    count = cluster.num_ranks
    pairs = draw(
        st.lists(
            st.tuples(st.integers(0, count - 1), st.integers(1, max(1, count - 1))), min_size=1, max_size=30
        )
    )
    names = draw(st.booleans())

    def endpoint(rank: int) -> int | str:
        return f"node{rank // cluster.gpus}/gpu{rank % cluster.gpus}" if names and rank % 2 else rank

    columns: dict[str, list[Any]] = {
        "source": [endpoint(source) for source, _ in pairs],
        "destination": [endpoint((source + further) % count) for source, further in pairs],
        "size_bytes": [draw(st.sampled_from([0.0, 1.0, 1e3, 1e6, 1e6, 3e7, 1.5e9])) for _ in pairs],
    }
    if draw(one_in(2)):
        columns["start_s"] = [draw(st.sampled_from([0.0, 0.0, 1e-6, 2.5e-5, 1e-3])) for _ in pairs]
    name, content = draw(table_files("flows", columns))
    return DrawnWorkload({"kind": "flows", "path": name}, files={name: content})


@st.composite
def expert_exchanges(draw: st.DrawFn, cluster: DrawnCluster) -> DrawnWorkload:
    """Draw dispatches and combines of normal and low-latency kernels."""
    model = draw(st.one_of(mixtures(), mixtures(), mixtures(), st.sampled_from([DEEPSEEK_V3, DEEPSEEK_V2])))
    degree = draw(st.sampled_from(degrees(cluster.num_ranks, cluster.gpus)[::-1]))
    fields, files = draw(expert_fields(model, degree, cluster.gpus))
    if model.num_experts > 64 and fields.get("balance", "none") != "none":
        del fields["balance"]  # whose history of 262,144 tokens takes seconds to draw
    fields |= {"kind": "expert-parallel", "tokens_per_rank": draw(st.sampled_from([1, 7, 16, 64, 300]))}
    if draw(one_in(2)):
        fields["kernel"] = "low-latency"
        fields |= draw(
            some_of(
                {
                    "intra_node": st.sampled_from(["nvlink", "rdma"] if cluster.nics_meet else ["nvlink"]),
                    "cross_plane": st.sampled_from([None] if cluster.nics_meet else ["nvlink"]),
                    "communication_sms": st.sampled_from([0, None]),
                }
            )
        )
    else:
        fields |= draw(
            some_of({"kernel": st.just("normal"), "communication_sms": st.sampled_from([0, 20, 24])})
        )
    if draw(one_in(3)):
        fields["layers"] = draw(st.integers(1, 4))
    fields |= draw(
        some_of({"beside_compute": st.booleans(), "load_changes": st.sampled_from(["per-layer", "never"])})
    )
    return DrawnWorkload(fields, model, {**model.files, **files})
