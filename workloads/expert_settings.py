"""How a workload's tokens find their experts: gate, placement and formats, as fields that workloads share."""

from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from simulator.units import FieldError, Spec
from workloads.eplb import balance_placement
from workloads.formats import FormatName
from workloads.gate import ExpertSource, Gate, UniformGate
from workloads.models import MixtureOfExperts, Model
from workloads.placement import Placement, fewest_copies, fits_nodes, place_in_blocks, working_degrees
from workloads.tasks import IntArray, Setting
from workloads.top_k import TopK, fewest_experts_kept

# What one core draws and sorts out in about five minutes; 16,384 ranks of 4,096 tokens over 256 experts are 2**34.
_MOST_AFFINITIES: Final = 2**36
# Counts in one table: half a gigabyte as 64-bit integers; 65,536 ranks of 256 experts are 2**24.
_MOST_TABLE_ENTRIES: Final = 2**26
# Tokens whose experts a balancer has seen before: 1% error for an expert with the mean load of 256 at top 8.
_HISTORY_TOKENS: Final = 2**18

Balance = Literal["none", "eplb", "eplb-hierarchical", "eplb-global"]
_POLICY: Final[dict[Balance, Literal["auto", "hierarchical", "global"]]] = {
    "eplb": "auto",
    "eplb-hierarchical": "hierarchical",
    "eplb-global": "global",
}


class PlacedExperts(NamedTuple):
    """The experts of one layer: what the gate chooses between, and what is placed.

    num_logical: routed experts, and shared ones that are dispatched like them; num_physical: with redundant copies
    """

    top_k: TopK
    num_logical: int
    num_physical: int

    @property
    def num_redundant(self) -> int:
        """Number of redundant copies."""
        return self.num_physical - self.num_logical

    @property
    def experts_per_token(self) -> int:
        """Experts to which each token goes: routed ones, and dispatched shared ones."""
        return self.top_k.top_k + self.num_logical - self.top_k.num_experts


class ExpertSettings(Spec):
    """Fields of every workload whose tokens go to experts on other ranks."""

    expert_parallel: int = Field(
        ge=1,
        le=65536,
        description="expert-parallel degree: the ranks of one group, which together hold all experts; a count that "
        "divides the ranks, and is a part of a node that divides it or some whole nodes; where the cluster has more "
        "ranks, each group of consecutive ranks runs its own exchange at once (no default)",
    )
    gate: Gate = Field(
        default=UniformGate(),
        description="how affinities of tokens to experts are drawn, by its `kind` (default uniform)",
    )
    experts_per_token: int | None = Field(
        default=None, ge=1, description="top-k: routed experts of each token; a count (default the model's)"
    )
    groups: Literal["nodes"] | Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="groups of consecutive experts that the gate chooses between; a count from 1, which is no limit, "
        "or `nodes`: the experts of each node of a group are one (default the model's)",
    )
    groups_kept: int | None = Field(
        default=None,
        ge=1,
        description="groups in which a token's experts may lie; a count; all groups where `groups: nodes`, or the "
        "default, finds fewer (default the model's)",
    )
    redundant_experts: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto",
        description="copies of experts beside the first of each, in each group; a count with which all ranks hold "
        "equally many, or `auto`: the fewest such (default auto)",
    )
    shared_experts: Literal["local", "dispatched"] = Field(
        default="local",
        description="where the model's shared experts are; `local`: on every rank, so that nothing moves; "
        "`dispatched`: placed like routed experts, and every token goes to them (default local)",
    )
    balance: Balance = Field(
        default="none",
        description="where experts lie; `none`: in blocks of consecutive ones, each node's copies being of its own "
        "experts; `eplb`: by their loads in earlier traffic of the same gate, as DeepSeek's EPLB places them: "
        "hierarchical (groups to nodes, then copies within) where groups divide over nodes, else global, which "
        "spreads the experts of a group over nodes; `eplb-hierarchical`, `eplb-global`: that policy (default none)",
    )
    dispatch_format: FormatName = Field(
        default="fp8",
        description="number format of tokens on their way to experts: fp8 (a scale per 128 values), bf16, or "
        "logfmt2 to logfmt16: LogFMT of that many bits (default fp8)",
    )
    combine_format: FormatName = Field(
        default="bf16", description="number format of results on their way back, likewise (default bf16)"
    )

    def needed_ranks(self) -> int:
        """Return the ranks of one expert-parallel group."""
        return self.expert_parallel

    def num_slots(self, setting: Setting) -> int:
        """Return the nodes of one expert-parallel group."""
        return max(1, self.expert_parallel // setting.gpus_per_node)

    def experts(self, setting: Setting) -> PlacedExperts:
        """Return the experts of a layer, the model's with the fields that override it."""
        _, moe = model_and_experts(setting.model)
        num_groups = self.num_slots(setting) if self.groups == "nodes" else self.groups or moe.num_groups
        kept = self.groups_kept or moe.groups_kept
        is_given = self.groups_kept is not None and self.groups != "nodes"
        top_k = TopK(
            num_experts=moe.num_routed_experts,
            top_k=self.experts_per_token or moe.experts_per_token,
            num_groups=num_groups,
            groups_kept=kept if is_given else min(kept, num_groups),
        )
        num_shared = moe.num_shared_experts if self.shared_experts == "dispatched" else 0
        num_logical = moe.num_routed_experts + num_shared
        copies = self.redundant_experts
        if copies == "auto":
            copies = fewest_copies(num_logical, self.expert_parallel)
        return PlacedExperts(top_k, num_logical, num_logical + copies)

    def check_experts(self, setting: Setting, num_tokens: int, num_draws: int = 1) -> None:
        """Raise FieldError where the fields do not fit the model, the cluster or each other.

        num_tokens: of each rank; num_draws: how often loads are drawn anew
        """
        self.check_degree(setting)
        experts = self.experts(setting)
        self._check_groups(experts.top_k)
        self._check_copies(experts)
        self._check_balance(experts, self.num_slots(setting))
        self._check_size(experts, setting.num_ranks, num_tokens, num_draws)
        try:
            self.gate.check(experts.top_k, setting.folder)
        except FieldError as error:
            raise FieldError(f"gate.{error.field}" if error.field else "gate", str(error)) from error

    def place(self, experts: PlacedExperts, source: ExpertSource, num_slots: int) -> Placement:
        """Return where the experts of a layer lie."""
        if self.balance == "none":
            return self.place_unbalanced(experts, num_slots)
        load = source.history(_HISTORY_TOKENS)
        tokens = load.sum() / experts.top_k.top_k  # every one of which goes to each shared expert
        shared = [tokens] * (experts.num_logical - len(load))
        return balance_placement(
            np.concatenate([load.astype(np.float64), shared]),
            experts.num_physical,
            experts.top_k.num_groups,
            num_slots,
            self.expert_parallel,
            _POLICY[self.balance],
        )

    def place_unbalanced(self, experts: PlacedExperts, num_slots: int) -> Placement:
        """Return where the experts of a layer lie if nothing is known of their loads."""
        num_shared = experts.num_logical - experts.top_k.num_experts
        return place_in_blocks(
            experts.num_logical, self.expert_parallel, num_slots, experts.num_redundant, num_shared
        )

    def assumptions_of_experts(self, experts: PlacedExperts) -> tuple[str, ...]:
        """Return what is taken for granted of gate and placement."""
        top_k, degree = experts.top_k, self.expert_parallel
        lie = "in blocks of consecutive ones" if self.balance == "none" else f"placed by {self.balance}"
        dispatched = experts.num_logical - top_k.num_experts
        kept = (
            f"; the {top_k.groups_kept} of {top_k.num_groups} groups with the highest sums of two affinities are kept"
            f", and the best {top_k.top_k} experts in them chosen"
            if self.gate.kind in {"uniform", "lognormal", "zipf"}
            else ""
        )
        shared = f", and {dispatched} shared dispatched like them" if dispatched else ""
        return (
            f"Gate: {self.gate.describe()}{kept}.",
            f"Each {degree} consecutive ranks hold all {top_k.num_experts} routed experts{shared}, {lie}, with "
            f"{experts.num_redundant} redundant copies, and exchange among themselves, all such groups at once; "
            "copies of an expert take its tokens in turn.",
        )

    def _check_groups(self, top_k: TopK) -> None:
        """Raise FieldError where overridden groups and experts do not fit each other or the model."""
        if isinstance(self.groups, int) and top_k.num_experts % top_k.num_groups:
            msg = f"{top_k.num_experts} experts cannot form {top_k.num_groups} groups of equal size; "
            raise FieldError("groups", f"{msg}groups must divide {top_k.num_experts}")
        if top_k.num_groups > top_k.num_experts:
            msg = f"{top_k.num_experts} experts cannot form a group for each of {top_k.num_groups} nodes"
            raise FieldError("groups", msg)
        if top_k.groups_kept > top_k.num_groups:
            msg = f"cannot keep {top_k.groups_kept} of {top_k.num_groups} groups; keep at most {top_k.num_groups}"
            raise FieldError("groups_kept", msg)
        experts_kept = fewest_experts_kept(top_k)
        if top_k.top_k > experts_kept:
            # blame a field that the user wrote: the model's own numbers fit each other
            fields = ("experts_per_token", "groups_kept", "groups")
            field = next((name for name in fields if getattr(self, name) is not None), "expert_parallel")
            msg = (
                f"a token needs {top_k.top_k} experts, and the {top_k.groups_kept} groups that the gate keeps (of "
                f"{top_k.num_groups}) hold {experts_kept}; keep more groups or use fewer experts per token"
            )
            raise FieldError(field, msg)

    def check_degree(self, setting: Setting) -> None:
        """Raise FieldError where ranks or nodes do not divide into groups of this degree."""
        degree, num_ranks, gpus_per_node = self.expert_parallel, setting.num_ranks, setting.gpus_per_node
        if degree > num_ranks:
            fault = f"needs {degree} ranks, and the cluster has {num_ranks}"
        elif num_ranks % degree:
            fault = f"does not divide the {num_ranks} ranks into groups"
        elif not fits_nodes(degree, gpus_per_node):
            fault = f"neither divides a node of {gpus_per_node} GPUs nor is a multiple of it"
        else:
            return
        working = ", ".join(map(str, working_degrees(num_ranks, gpus_per_node)))
        msg = f"expert-parallel degree {degree} {fault}; on {num_ranks} ranks these work: {working}"
        raise FieldError("expert_parallel", msg)

    def _check_copies(self, experts: PlacedExperts) -> None:
        """Raise FieldError where ranks would hold unequally many experts, or the balancer cannot place them."""
        degree, num_logical = self.expert_parallel, experts.num_logical
        fewest = fewest_copies(num_logical, degree)
        copies = experts.num_redundant
        if experts.num_physical % degree:
            msg = (
                f"{num_logical} experts and {copies} copies do not divide over {degree} ranks; write auto, or "
                f"{fewest} or that and a multiple of {degree} more"
            )
            raise FieldError("redundant_experts", msg)
        if experts.num_physical > num_logical * degree:
            msg = f"{copies} copies are more than one of each expert on each of {degree} ranks"
            raise FieldError("redundant_experts", msg)

    def _check_balance(self, experts: PlacedExperts, num_slots: int) -> None:
        """Raise FieldError where groups of experts cannot be kept together on nodes, as was asked for."""
        num_groups = experts.top_k.num_groups
        if self.balance == "eplb-hierarchical" and (
            num_groups % num_slots or experts.num_logical % num_groups
        ):
            msg = (
                f"hierarchical balancing gives each of {num_slots} nodes equally many of {num_groups} equal "
                f"groups of {experts.num_logical} experts, and they do not divide; write eplb-global, or eplb to "
                "leave it open"
            )
            raise FieldError("balance", msg)

    def _check_size(
        self, experts: PlacedExperts, num_ranks: int, tokens_per_rank: int, num_draws: int
    ) -> None:
        """Raise FieldError where drawing or counting would take longer, or more memory, than anyone has."""
        top_k, experts_per_token = experts.top_k, experts.experts_per_token
        affinities = num_ranks * num_draws * tokens_per_rank * top_k.num_experts
        if affinities > _MOST_AFFINITIES:
            most = _MOST_AFFINITIES // (num_ranks * num_draws * top_k.num_experts)
            remedy = f"use at most {most:,}" if most else "use fewer nodes, layers or experts"
            draws = f", drawn anew {num_draws:,} times," if num_draws > 1 else ""
            msg = (
                f"{num_ranks:,} ranks of {tokens_per_rank:,} tokens and {top_k.num_experts:,} experts{draws} need "
                f"{affinities:,} affinities, more than the {_MOST_AFFINITIES:,} that take minutes; {remedy}"
            )
            raise FieldError("tokens_per_rank", msg)
        if tokens_per_rank * experts_per_token > _MOST_TABLE_ENTRIES:
            most = _MOST_TABLE_ENTRIES // experts_per_token
            msg = f"with {experts_per_token:,} experts per token a rank can have at most {most:,} tokens"
            raise FieldError("tokens_per_rank", msg)
        entries = num_ranks * max(experts.num_logical, self.expert_parallel)
        if entries > _MOST_TABLE_ENTRIES:
            by_degree = self.expert_parallel > experts.num_logical
            what = f"degree {self.expert_parallel:,}" if by_degree else f"{experts.num_logical:,} experts"
            msg = (
                f"{what} on {num_ranks:,} ranks needs {entries:,} counts in one table, more than the "
                f"{_MOST_TABLE_ENTRIES:,} that memory holds; use fewer ranks"
            )
            raise FieldError("expert_parallel" if by_degree else "kind", msg)
        if entries * num_draws > _MOST_TABLE_ENTRIES:
            most = _MOST_TABLE_ENTRIES // entries
            msg = (
                f"{num_ranks:,} ranks can have at most {most:,} layers with loads of their own, not {num_draws:,}; "
                "use fewer, or load_changes: never"
            )
            raise FieldError("layers", msg)


def with_shared(experts: IntArray, num_routed: int, num_logical: int) -> IntArray:
    """Return [num_tokens, top_k + shared] each token's experts, the dispatched shared ones being the last."""
    shared = np.arange(num_routed, num_logical)
    return np.concatenate([experts, np.broadcast_to(shared, (len(experts), len(shared)))], axis=1)


def model_and_experts(model: Model | None) -> tuple[Model, MixtureOfExperts]:
    """Return the model and its experts; FieldError if there is no model or it has none."""
    if model is not None and model.moe is not None:
        return model, model.moe
    fault = "no model is named" if model is None else f"{model.name} has no experts"
    msg = f"expert-parallel traffic needs a mixture-of-experts model and {fault}; deepseek-v3 is one"
    raise FieldError("kind", msg)
