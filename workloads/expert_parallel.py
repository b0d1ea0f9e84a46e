"""The workload `expert-parallel`: one dispatch of tokens to their experts, and one combine of the results."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from simulator.units import FieldError, Spec
from workloads.gate import TopK, UniformGate, sample_experts
from workloads.models import MixtureOfExperts, Model
from workloads.moe import (
    ExpertGroups,
    ExpertTraffic,
    bf16_payload_bytes,
    combine_message_bytes,
    combine_transfers,
    count_traffic,
    dispatch_message_bytes,
    dispatch_transfers,
    fp8_payload_bytes,
)
from workloads.placement import fits_nodes, place_in_blocks, working_degrees
from workloads.tasks import Collective, Layout, Setting, Summary, TaskGraph, TaskTimes, run_in_turn

# What one core draws and sorts out in about five minutes; 16,384 ranks of 4,096 tokens over 256 experts are 2**34.
_MOST_AFFINITIES: Final = 2**36
# Counts in one table: half a gigabyte as 64-bit integers; 65,536 ranks of 256 experts are 2**24.
_MOST_TABLE_ENTRIES: Final = 2**26


class ExpertParallelSpec(Spec):
    """One dispatch and one combine of a mixture of experts, every rank holding as many tokens."""

    needs_model: ClassVar[bool] = True

    kind: Literal["expert-parallel"] = Field(
        description="one dispatch and one combine of the model's experts"
    )
    tokens_per_rank: int = Field(
        ge=1, le=2**20, description="tokens that each rank dispatches; a count (no default)"
    )
    expert_parallel: int = Field(
        ge=1,
        le=65536,
        description="expert-parallel degree: the ranks of one group, which together hold all experts; a count that "
        "divides the experts and the ranks, and is a part of a node that divides it or some whole nodes; where "
        "the cluster has more ranks, each group of consecutive ranks runs its own exchange at once (no default)",
    )
    kernel: Literal["normal"] = Field(
        default="normal",
        description="how tokens travel; `normal`: one copy per token and node to the GPU of the sender's index "
        "there, handed on over NVLink (default normal)",
    )
    gate: UniformGate = Field(
        default=UniformGate(), description="how affinities of tokens to experts are drawn (default uniform)"
    )
    experts_per_token: int | None = Field(
        default=None, ge=1, description="top-k: routed experts of each token; a count (default the model's)"
    )
    groups: int | None = Field(
        default=None,
        ge=1,
        description="groups of consecutive experts that the gate chooses between; a count that divides the experts, "
        "1 for no limit (default the model's)",
    )
    groups_kept: int | None = Field(
        default=None,
        ge=1,
        description="groups in which a token's experts may lie; a count (default the model's, or all groups where "
        "there are fewer)",
    )

    def needed_ranks(self) -> int:
        """Return the ranks of one expert-parallel group."""
        return self.expert_parallel

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the model, the cluster and the fields do not fit each other."""
        _, moe = _model_and_experts(setting.model)
        top_k = self._top_k(moe)
        self._check_gate(top_k)
        self._check_degree(top_k.num_experts, setting)
        self._check_size(top_k, setting.num_ranks)

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> "ExpertParallel":
        """Return the step: tokens are given experts by `rng`, rank after rank."""
        model, moe = _model_and_experts(setting.model)
        top_k = self._top_k(moe)
        groups = ExpertGroups.of_layout(layout, self.expert_parallel)
        experts_by_rank = (sample_experts(rng, self.tokens_per_rank, *top_k) for _ in range(layout.num_ranks))
        place_of_expert = place_in_blocks(top_k.num_experts, self.expert_parallel)
        traffic = count_traffic(experts_by_rank, place_of_expert, groups)
        dispatch_bytes = dispatch_message_bytes(model.hidden_size, top_k.top_k)
        combine_bytes = combine_message_bytes(model.hidden_size, top_k.top_k)
        collectives = (
            Collective("dispatch", dispatch_transfers(traffic, layout, dispatch_bytes)),
            Collective("combine", combine_transfers(traffic, layout, combine_bytes)),
        )
        return ExpertParallel(
            graph=run_in_turn(collectives, range(layout.num_ranks), layout.num_ranks),
            assumptions=_assumptions(self.expert_parallel, top_k, dispatch_bytes, combine_bytes),
            traffic=traffic,
            dispatch=TokenBytes(fp8_payload_bytes(model.hidden_size), dispatch_bytes),
            combine=TokenBytes(bf16_payload_bytes(model.hidden_size), combine_bytes),
        )

    def _top_k(self, moe: MixtureOfExperts) -> TopK:
        """Return the model's top-k with the fields that override it."""
        num_groups = self.groups or moe.num_groups
        return TopK(
            num_experts=moe.num_routed_experts,
            top_k=self.experts_per_token or moe.experts_per_token,
            num_groups=num_groups,
            groups_kept=self.groups_kept or min(moe.groups_kept, num_groups),
        )

    def _check_gate(self, top_k: TopK) -> None:
        """Raise FieldError where overridden groups and experts do not fit each other or the model."""
        if top_k.num_experts % top_k.num_groups:
            msg = f"{top_k.num_experts} experts cannot form {top_k.num_groups} groups of equal size; "
            raise FieldError("groups", f"{msg}groups must divide {top_k.num_experts}")
        if top_k.groups_kept > top_k.num_groups:
            msg = f"cannot keep {top_k.groups_kept} of {top_k.num_groups} groups; keep at most {top_k.num_groups}"
            raise FieldError("groups_kept", msg)
        experts_kept = top_k.num_experts // top_k.num_groups * top_k.groups_kept
        if top_k.top_k > experts_kept:
            # blame a field that the user wrote: the model's own numbers fit each other
            fields = ("experts_per_token", "groups_kept", "groups")
            field = next(name for name in fields if getattr(self, name) is not None)
            msg = (
                f"a token needs {top_k.top_k} experts, and the {top_k.groups_kept} groups that the gate keeps (of "
                f"{top_k.num_groups}) hold {experts_kept}; keep more groups or use fewer experts per token"
            )
            raise FieldError(field, msg)

    def _check_degree(self, num_experts: int, setting: Setting) -> None:
        """Raise FieldError where experts, ranks or nodes do not divide into groups of this degree."""
        degree, num_ranks, gpus_per_node = self.expert_parallel, setting.num_ranks, setting.gpus_per_node
        if degree > num_ranks:
            fault = f"needs {degree} ranks, and the cluster has {num_ranks}"
        elif num_experts % degree:
            fault = f"does not divide the {num_experts} experts, so that ranks would hold unequally many"
        elif num_ranks % degree:
            fault = f"does not divide the {num_ranks} ranks into groups"
        elif not fits_nodes(degree, gpus_per_node):
            fault = f"neither divides a node of {gpus_per_node} GPUs nor is a multiple of it"
        else:
            return
        working = ", ".join(map(str, working_degrees(num_experts, num_ranks, gpus_per_node)))
        msg = f"expert-parallel degree {degree} {fault}; on {num_ranks} ranks these work: {working}"
        raise FieldError("expert_parallel", msg)

    def _check_size(self, top_k: TopK, num_ranks: int) -> None:
        """Raise FieldError where drawing or counting would take longer, or more memory, than anyone has."""
        affinities = num_ranks * self.tokens_per_rank * top_k.num_experts
        if affinities > _MOST_AFFINITIES:
            most = _MOST_AFFINITIES // (num_ranks * top_k.num_experts)
            remedy = f"use at most {most:,}" if most else "use fewer nodes or a model with fewer experts"
            msg = (
                f"{num_ranks:,} ranks of {self.tokens_per_rank:,} tokens and {top_k.num_experts:,} experts need "
                f"{affinities:,} affinities, more than the {_MOST_AFFINITIES:,} that take minutes; {remedy}"
            )
            raise FieldError("tokens_per_rank", msg)
        if self.tokens_per_rank * top_k.top_k > _MOST_TABLE_ENTRIES:
            most = _MOST_TABLE_ENTRIES // top_k.top_k
            msg = f"with {top_k.top_k:,} experts per token a rank can have at most {most:,} tokens"
            raise FieldError("tokens_per_rank", msg)
        if num_ranks * top_k.num_experts > _MOST_TABLE_ENTRIES:
            most = _MOST_TABLE_ENTRIES // top_k.num_experts
            msg = f"a model of {top_k.num_experts:,} experts can run on at most {most:,} ranks, not {num_ranks:,}"
            raise FieldError("kind", msg)


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """The bytes of one token: its values and scales (`payload`), and with metadata on a link (`message`)."""

    payload: int
    message: int


@dataclass(frozen=True, slots=True)
class ExpertParallel:
    """One dispatch and one combine, ready to run."""

    graph: TaskGraph
    assumptions: tuple[str, ...]
    traffic: ExpertTraffic
    dispatch: TokenBytes
    combine: TokenBytes

    def summarise(self, times: TaskTimes) -> Summary:
        """Return the seconds of dispatch and combine, and their bandwidths per GPU, means over ranks.

        Logical bandwidth counts a token's payload once per destination node, its own included, or, where groups
        lie on one node, once per destination GPU, its own included. Wire bandwidth counts messages that cross a
        NIC, or NVLink where groups lie on one node. Both are 0 for a phase in which nothing moves.
        """
        dispatching = [task.collective == 0 for task in self.graph.tasks]
        dispatch_s = float(times.end_s[dispatching].max(initial=0.0))
        combine_s = times.step_time_s - dispatch_s
        loads = self.traffic.expert_load
        return Summary(
            breakdown_s={"dispatch": dispatch_s, "combine": combine_s},
            metrics={
                "dispatch_s": dispatch_s,
                "combine_s": combine_s,
                **self._bandwidths("dispatch", self.dispatch, dispatch_s),
                **self._bandwidths("combine", self.combine, combine_s),
                "expert_load_max_over_mean": float(loads.max() / loads.mean()),
            },
        )

    def _bandwidths(self, phase: str, token: TokenBytes, seconds: float) -> dict[str, float]:
        """Return the phase's logical and wire bandwidth per GPU."""
        traffic = self.traffic
        on_one_node = traffic.groups.num_slots == 1
        copies = int((traffic.tokens_to_rank if on_one_node else traffic.tokens_to_node).sum())
        crossing = traffic.to_other_ranks() if on_one_node else traffic.to_other_nodes()
        per_gpu_s = seconds * self.graph.num_ranks
        return {
            f"{phase}_logical_bytes_per_s": copies * token.payload / per_gpu_s if per_gpu_s else 0.0,
            f"{phase}_wire_bytes_per_s": crossing * token.message / per_gpu_s if per_gpu_s else 0.0,
        }


def _model_and_experts(model: Model | None) -> tuple[Model, MixtureOfExperts]:
    """Return the model and its experts; FieldError if there is no model or it has none."""
    if model is not None and model.moe is not None:
        return model, model.moe
    fault = "no model is named" if model is None else f"{model.name} has no experts"
    msg = f"expert-parallel traffic needs a mixture-of-experts model and {fault}; deepseek-v3 is one"
    raise FieldError("kind", msg)


def _assumptions(degree: int, top_k: TopK, dispatch_bytes: int, combine_bytes: int) -> tuple[str, ...]:
    """Return what the workload takes for granted."""
    return (
        f"Gate: affinities are independent and uniform; the {top_k.groups_kept} of {top_k.num_groups} groups with "
        f"the highest sums of two affinities are kept, and the best {top_k.top_k} experts in them chosen.",
        f"Each {degree} consecutive ranks hold all experts, in blocks of consecutive ones and without redundant "
        "copies, and exchange among themselves, all such groups at once.",
        f"A token takes {dispatch_bytes:,} bytes in dispatch (FP8 with a scale per 128 values) and "
        f"{combine_bytes:,} in combine (BF16), routing metadata included, on every link that it crosses.",
        "Chunks are pipelined: the wire and NVLink behind it carry a transfer at one rate.",
        "All ranks start their dispatch at once; the combine starts when every rank has finished it, with no "
        "expert computation between.",
        "Kernels cost nothing to start, and copying and summing within a GPU are free.",
    )
