"""The workload `expert-parallel`: dispatches of tokens to their experts, and combines of the results."""

from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from simulator.units import FieldError
from workloads.expert_settings import ExpertSettings, model_and_experts, with_shared
from workloads.expert_step import Exchange, ExpertParallel
from workloads.formats import NumberFormat
from workloads.gate import ExpertSource
from workloads.messages import Kernel, Phase, TokenBytes, token_bytes
from workloads.moe import (
    ExpertGroups,
    ExpertTraffic,
    combine_transfers,
    count_traffic,
    direct_transfers,
    dispatch_transfers,
)
from workloads.size import WorkSize, counted_numbers, exchange_count
from workloads.tasks import Collective, CommunicationKernel, ComputeKernel, Layout, Setting, run_in_turn

# Of 132 on an H800: DeepSeek-V3 technical report, section 3.2.2, in training.
SMS_OF_NORMAL_KERNELS: Final = 20
# Twice those of 1,024 ranks in one exchange, which take minutes.
_MOST_TRANSFERS: Final = 2**21
_ASSUMPTIONS_OF_KERNEL: Final[dict[Kernel, tuple[str, ...]]] = {
    "normal": (
        "Chunks are pipelined: the wire and NVLink behind it carry a transfer at one rate.",
        "Copying and summing within a GPU keep up with the links.",
    ),
    "low-latency": (
        "Every expert's message goes straight to its rank, also where several are for one GPU or node.",
        "Packing, unpacking and summing are part of the start-up.",
    ),
}


class ExpertParallelSpec(ExpertSettings):
    """One dispatch and one combine of a mixture of experts for each layer, every rank holding as many tokens."""

    needs_model: ClassVar[bool] = True

    kind: Literal["expert-parallel"] = Field(
        description="a dispatch and a combine of the model's experts, one after the other"
    )
    tokens_per_rank: int = Field(
        ge=1, le=2**20, description="tokens that each rank dispatches; a count (no default)"
    )
    kernel: Kernel = Field(
        default="normal",
        description="how tokens travel; `normal` (training, prefill): one copy per token and node to the GPU of the "
        "sender's index there, handed on over NVLink; `low-latency` (decoding): one message per token and expert, "
        "straight to its rank (default normal)",
    )
    intra_node: Literal["nvlink", "rdma"] | None = Field(
        default=None,
        description="how low-latency messages reach other GPUs of the sender's node; `nvlink`, or `rdma`: from NIC "
        "to NIC, which must reach each other (default nvlink, which normal kernels always take)",
    )
    cross_plane: Literal["nvlink"] | None = Field(
        default=None,
        description="how low-latency messages reach NICs of other planes; `nvlink`: over the GPU of the sender's "
        "node that has the receiver's index (default nvlink on networks of several planes; elsewhere nothing is "
        "crossed)",
    )
    communication_sms: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="streaming multiprocessors that normal kernels hold on each GPU, which is told, and changes no "
        f"time here; a count (default {SMS_OF_NORMAL_KERNELS}, as in DeepSeek-V3's training; low-latency kernels "
        "hold none)",
    )
    beside_compute: bool = Field(
        default=False,
        description="whether the ranks compute all the while, which slows communication by the cost table's rule; "
        "true or false (default false)",
    )
    layers: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="exchanges one after the other, each a layer's; a count (default 1)",
    )
    load_changes: Literal["never", "per-layer"] = Field(
        default="never",
        description="when popularities and tokens' experts are drawn anew; `never`: all layers have the same; "
        "`per-layer` (default never)",
    )

    def check(self, setting: Setting) -> None:
        """Raise FieldError where the model, the cluster and the fields do not fit each other."""
        self.check_experts(setting, self.tokens_per_rank, self._num_draws)
        if self.kernel == "normal":
            for name in ("intra_node", "cross_plane"):
                if getattr(self, name) is not None:
                    msg = "is for low-latency kernels; normal ones reach every GPU of a node over NVLink"
                    raise FieldError(name, f"{name} {msg}")
        else:
            self._check_num_transfers(setting.num_ranks, self.experts(setting).experts_per_token)
        if self.kernel == "low-latency" and self.communication_sms:
            msg = "low-latency kernels hold no SM while bytes move; leave communication_sms out"
            raise FieldError("communication_sms", msg)
        if self.intra_node == "rdma" and not setting.nics_meet:
            msg = (
                "intra_node: rdma needs a network on which every NIC reaches every other, and on this one those of "
                "a node do not (they are in different planes, or on no network); write nvlink, or another topology"
            )
            raise FieldError("intra_node", msg)
        if self.cross_plane is not None and setting.nics_meet:
            msg = "cross_plane is for networks of several planes; on this one every NIC reaches every other"
            raise FieldError("cross_plane", msg)

    def _check_num_transfers(self, num_ranks: int, experts_per_token: int) -> None:
        """Raise FieldError where messages would go between more pairs of ranks than anyone can simulate."""
        peers = min(self.expert_parallel - 1, self.tokens_per_rank * experts_per_token)
        num_pairs = num_ranks * peers
        if num_pairs > _MOST_TRANSFERS:
            msg = (
                f"low-latency messages between {num_pairs:,} pairs of ranks are more than the {_MOST_TRANSFERS:,} "
                "that can be simulated; use a lower degree or fewer ranks"
            )
            raise FieldError("expert_parallel", msg)

    def communication_kernels(self, setting: Setting) -> tuple[CommunicationKernel, ...]:
        """Return the kernels of dispatch and of combine, which the cost table must price."""
        return self._kernel("dispatch", setting), self._kernel("combine", setting)

    def compute_kernels(self, setting: Setting) -> tuple[ComputeKernel, ...]:  # noqa: ARG002
        """Return no kernels: nothing is computed."""
        return ()

    def work_size(self, setting: Setting) -> WorkSize:
        """Return how much the step holds: transfers at most, as if tokens of each rank went to all others."""
        self.check_degree(setting)
        num_ranks, degree, num_slots = setting.num_ranks, self.expert_parallel, self.num_slots(setting)
        choices = self.tokens_per_rank * self.experts(setting).experts_per_token
        of_group = exchange_count(degree, num_slots, choices, relayed=self.kernel == "normal")
        once = of_group.times(num_ranks // degree)
        draws = self._num_draws * (1 if self.balance == "none" else 2)  # as balanced, and as they would be
        collectives = 2 * self.layers
        return WorkSize(
            tasks=collectives * num_ranks + collectives - 1,
            collectives=collectives,
            held=once.times(2 * draws),
            together=once,
            flows=once.transfers * collectives,
            drawn=draws * num_ranks * counted_numbers(degree, num_slots) + choices,
            field="layers" if self._num_draws > 1 else "expert_parallel",
            remedy="use fewer layers, or load_changes: never"
            if self._num_draws > 1
            else "use a lower degree, or fewer ranks",
        )

    def build(self, setting: Setting, layout: Layout, rng: np.random.Generator) -> ExpertParallel:
        """Return the step: tokens are given experts by `rng`, layer after layer and rank after rank."""
        groups = ExpertGroups.of_layout(layout, self.expert_parallel)
        top_k = self.experts(setting).top_k
        source, drawn = None, []
        for _ in range(self._num_draws):
            if source is None or self.gate.kind != "file":  # a file's tokens go on from layer to layer
                source = self.gate.open(top_k, rng, setting.folder)
            drawn.append(self._exchange(setting, layout, groups, source))
        exchanges = drawn * (self.layers // self._num_draws)
        collectives = tuple(part for exchange in exchanges for part in exchange.collectives)
        return ExpertParallel(
            graph=run_in_turn(collectives, range(layout.num_ranks), layout.num_ranks),
            assumptions=self._assumptions(setting),
            exchanges=tuple(exchanges),
            tokens_per_rank=self.tokens_per_rank,
            kernel=self.kernel,
            num_sms=self._num_sms,
            over_nics=self.intra_node == "rdma",
            tokens=(self._token("dispatch", setting), self._token("combine", setting)),
        )

    @property
    def _num_draws(self) -> int:
        return self.layers if self.load_changes == "per-layer" else 1

    @property
    def _num_sms(self) -> int:
        if self.kernel == "low-latency":
            return 0
        return SMS_OF_NORMAL_KERNELS if self.communication_sms is None else self.communication_sms

    def _token(self, phase: Phase, setting: Setting) -> TokenBytes:
        """Return the bytes of a token in one phase."""
        model, _ = model_and_experts(setting.model)
        number_format = NumberFormat.named(
            self.dispatch_format if phase == "dispatch" else self.combine_format
        )
        top_k = self.experts(setting).experts_per_token
        return token_bytes(self.kernel, phase, number_format, model.hidden_size, top_k)

    def _kernel(self, phase: Phase, setting: Setting) -> CommunicationKernel:
        token = self._token(phase, setting)
        return CommunicationKernel(
            name=self.kernel,
            message_bytes=token.message,
            codec=token.number_format.codec,
            combines=phase == "combine",
            beside_compute=self.beside_compute,
            over_nics=self.intra_node == "rdma",
            num_sms=self._num_sms,
        )

    def _exchange(
        self, setting: Setting, layout: Layout, groups: ExpertGroups, source: ExpertSource
    ) -> Exchange:
        """Return one layer's exchange, of the next tokens of a gate."""
        experts = self.experts(setting)
        placements = [self.place(experts, source, groups.num_slots)]
        if self.balance != "none":
            placements.append(self.place_unbalanced(experts, groups.num_slots))
        chosen = (
            with_shared(source.experts(self.tokens_per_rank), experts.top_k.num_experts, experts.num_logical)
            for _ in range(layout.num_ranks)
        )
        traffic, *unbalanced = count_traffic(chosen, placements, groups)
        return Exchange(
            traffic=traffic,
            collectives=self._collectives(traffic, layout, setting),
            unbalanced=unbalanced[0] if unbalanced else None,
            unbalanced_collectives=self._collectives(unbalanced[0], layout, setting) if unbalanced else (),
        )

    def _collectives(
        self, traffic: ExpertTraffic, layout: Layout, setting: Setting
    ) -> tuple[Collective, Collective]:
        """Return the dispatch and the combine of some traffic."""
        dispatched, combined = (self._token(phase, setting).message for phase in ("dispatch", "combine"))
        if self.kernel == "low-latency":
            there = direct_transfers(traffic, layout, dispatched)
            back = direct_transfers(traffic, layout, combined, combine=True)
        else:
            there = dispatch_transfers(traffic, layout, dispatched)
            back = combine_transfers(traffic, layout, combined)
        return (
            Collective("dispatch", there, self._kernel("dispatch", setting)),
            Collective("combine", back, self._kernel("combine", setting)),
        )

    def _assumptions(self, setting: Setting) -> tuple[str, ...]:
        """Return what the workload takes for granted."""
        experts = self.experts(setting)
        dispatch, combine = self._token("dispatch", setting), self._token("combine", setting)
        return (
            *self.assumptions_of_experts(experts),
            f"A token takes {dispatch.message:,} bytes in dispatch ({dispatch.number_format.name}) and "
            f"{combine.message:,} in combine ({combine.number_format.name}), metadata included, on every link that "
            "it crosses.",
            *_ASSUMPTIONS_OF_KERNEL[self.kernel],
            "Kernels go through their tokens in order, so that what a rank has for its peers advances alike.",
            "All ranks start their dispatch at once; a combine starts when every rank has finished its dispatch, "
            "with no expert computation between, and so does the next layer.",
            *(
                ("The ranks compute all the while, which slows communication.",)
                if self.beside_compute
                else ()
            ),
        )
