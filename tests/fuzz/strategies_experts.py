"""How tokens find their experts: every gate, groups, copies, placement and formats, as all workloads share them."""

from typing import Any

from hypothesis import strategies as st

from fuzz.strategies_models import DrawnModel
from fuzz.strategies_text import one_in, some_of, table_files
from workloads.placement import fewest_copies

_FORMATS = st.sampled_from(["fp8", "bf16", "logfmt8", "logfmt10", "logfmt2", "logfmt16"])
Files = dict[str, bytes]


@st.composite
def gates(draw: st.DrawFn, num_experts: int, top_k: int) -> tuple[dict[str, Any], Files]:
    """Draw a gate for so many experts of which a token uses top_k; return its fields, and its file if it has one."""
    kind = draw(st.sampled_from(["uniform", "balanced", "lognormal", "zipf", "file"]))
    if kind == "lognormal":
        return {"kind": kind, "sigma": draw(st.sampled_from([0.5, 1, 2.5]))}, {}
    if kind == "zipf":
        return {"kind": kind, "exponent": draw(st.sampled_from([0.3, 1.0, 2]))}, {}
    if kind != "file":
        return {"kind": kind}, {}
    if draw(one_in(2)):
        rows = draw(
            st.lists(
                st.permutations(range(num_experts)).map(lambda order: order[:top_k]), min_size=1, max_size=5
            )
        )
        columns = {f"expert_{place}": [row[place] for row in rows] for place in range(top_k)}
    else:
        loads = draw(st.lists(st.integers(1, 1000), min_size=num_experts, max_size=num_experts))
        columns = {"expert": draw(st.permutations(range(num_experts))), "load": loads}
    name, content = draw(table_files("gate", columns))
    return {"kind": "file", "path": name}, {name: content}


@st.composite
def expert_fields(
    draw: st.DrawFn, model: DrawnModel, degree: int, gpus: int, *, training: bool = False
) -> tuple[dict[str, Any], Files]:
    """Draw the fields that workloads with experts share, for groups of so many ranks on nodes of so many GPUs."""
    slots = max(1, degree // gpus)
    fields: dict[str, Any] = {"expert_parallel": degree}
    top_k, groups, kept = model.top_k, model.groups, model.kept
    if draw(one_in(4)):
        divisors = [count for count in range(1, model.num_experts + 1) if model.num_experts % count == 0]
        by_nodes = draw(one_in(2)) and slots <= model.num_experts
        groups = slots if by_nodes else draw(st.sampled_from(divisors[: max(1, len(divisors) // 2)]))
        kept = draw(st.integers(1, groups))
        top_k = draw(st.integers(1, max(1, min(4, model.num_experts // groups * kept))))
        fields |= {"groups": "nodes" if by_nodes else groups, "groups_kept": kept, "experts_per_token": top_k}
    elif draw(one_in(4)):
        top_k = draw(st.integers(1, top_k))
        fields["experts_per_token"] = top_k
    shared = 0
    if not training and draw(one_in(3)):
        fields["shared_experts"] = draw(st.sampled_from(["dispatched", "local"]))
        shared = model.shared if fields["shared_experts"] == "dispatched" else 0
    logical = model.num_experts + shared
    if draw(one_in(4)):
        fewest = fewest_copies(logical, degree)
        more = [] if training else [fewest + degree]
        fields["redundant_experts"] = draw(
            st.sampled_from(
                ["auto", "auto", fewest, *(each for each in more if logical + each <= logical * degree)]
            )
        )
    policies = ["none", "eplb", "eplb-global"]
    if groups % slots == 0 and logical % groups == 0:
        policies += ["eplb-hierarchical"] * 2
    fields |= draw(
        some_of(
            {
                "balance": st.sampled_from(policies),
                "dispatch_format": _FORMATS,
                "combine_format": _FORMATS,
            }
        )
    )
    files: Files = {}
    if draw(one_in(2)):
        fields["gate"], files = draw(gates(model.num_experts, top_k))
    return fields, files
