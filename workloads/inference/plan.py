"""What the fields of an inference step come to on a cluster."""

from dataclasses import dataclass, replace

import numpy as np

from simulator.units import FieldError
from workloads.group_traffic import GroupLoad, num_draws
from workloads.inference.cache import check_heads
from workloads.inference.kernels import InferenceKernels, Work
from workloads.inference.limit import bandwidth_bytes_per_s, exchange_s
from workloads.inference.memory import InferenceMemory
from workloads.inference.settings import DecodeSettings, InferenceSettings, PrefillSettings
from workloads.models import Model
from workloads.tasks import Setting


@dataclass(frozen=True, slots=True)
class Batch:
    """What one micro-batch is on each tensor-parallel group.

    requests, query_tokens: as of `workloads.inference.kernels.Work`; own_tokens: of each rank, where they divide them
    """

    requests: int
    query_tokens: int
    own_tokens: int


@dataclass(frozen=True, slots=True)
class InferencePlan:
    """A pass that can run.

    batch: one micro-batch; layers: those that are computed, MTP modules that draft among them
    requests_per_gpu: of a step, on average; memory: None of the limit; most_requests: that fit, if known
    """

    settings: InferenceSettings
    setting: Setting
    model: Model
    batch: Batch
    layers: tuple[int, ...]
    requests_per_gpu: float
    memory: InferenceMemory | None
    most_requests: int | None

    @property
    def num_ranks(self) -> int:
        """Ranks that take part in the pass: all but those that prefill for others."""
        settings = self.settings
        return self.setting.num_ranks - (settings.prefill_gpus if isinstance(settings, DecodeSettings) else 0)

    @property
    def absorbed(self) -> bool:
        """Whether latent attention reads latents."""
        return isinstance(self.settings, DecodeSettings)

    @property
    def packs_rows(self) -> bool:
        """Whether dispatch delivers rows by expert, as low-latency kernels do; where there is none, nobody does."""
        return self.absorbed and self.settings.expert_parallel > 1

    def cached_tokens(self, rng: np.random.Generator) -> float:
        """Return the keys of a request, new ones included: the mean of the ranks and micro-batch that have most."""
        settings = self.settings
        assert isinstance(settings, DecodeSettings)
        if isinstance(settings.cached_tokens, int):
            return float(settings.cached_tokens + settings.query_tokens)
        parts = settings.group_size // settings.tensor_parallel * settings.micro_batches
        most = self.model.max_context - settings.query_tokens
        drawn = settings.cached_tokens.draw(parts * self.batch.requests, most, rng)
        return float(drawn.reshape(parts, -1).mean(axis=1).max()) + settings.query_tokens

    @property
    def limit_exchange_s(self) -> float | None:
        """Seconds of a dispatch and a combine in the idealised limit; None where none is exchanged, or on no GPU."""
        settings, setting = self.settings, self.setting
        if self.model.moe is None or settings.expert_parallel == 1 or setting.gpu is None:
            return None
        bandwidth = bandwidth_bytes_per_s(setting.gpu, settings.group_size, setting.gpus_per_node)
        return exchange_s(self.model, self.batch.own_tokens / self.batch.query_tokens, bandwidth)

    def metrics(self, step_s: float) -> dict[str, float]:
        """Return what a step of so many seconds comes to."""
        found = self._throughput(step_s) | self._limit()
        if self.memory is not None:
            found["memory_bytes_per_gpu"] = float(self.memory.total)
        if self.most_requests is not None:
            found["largest_batch_per_gpu"] = self.most_requests
        return found

    def _throughput(self, step_s: float) -> dict[str, float]:
        settings, gpus = self.settings, self.setting.gpus_per_node
        if isinstance(settings, DecodeSettings):
            tpot_s = step_s / settings.tokens_per_request
            per_request = 1.0 / tpot_s if step_s else 0.0
            per_gpu = self.requests_per_gpu * per_request
            return {
                "tpot_s": tpot_s,
                "tokens_per_step_and_request": settings.tokens_per_request,
                "tokens_per_s_per_request": per_request,
                "tokens_per_s_per_gpu": per_gpu,
                "tokens_per_s_per_node": gpus * per_gpu,
                "batch_per_gpu": self.requests_per_gpu,
            }
        assert isinstance(settings, PrefillSettings)
        per_gpu = settings.tokens_per_gpu / step_s if step_s else 0.0
        return {"tokens_per_s_per_gpu": per_gpu, "tokens_per_s_per_node": gpus * per_gpu}

    def _limit(self) -> dict[str, float]:
        """Return the parts of the idealised limit, or what it would be beside a simulated step."""
        settings, exchange = self.settings, self.limit_exchange_s
        if exchange is None or not isinstance(settings, DecodeSettings):
            return {}
        layer = settings.micro_batches * exchange
        if settings.limit:
            return {"exchange_s": exchange, "layer_s": layer}
        return {"limit_tpot_s": self.model.num_layers * layer / settings.tokens_per_request}

    def kernels(self, cached_tokens: float, load: GroupLoad | None) -> InferenceKernels:
        """Return the kernels of a micro-batch; cached_tokens: keys of a request; load: None without experts."""
        if load is None:
            return self.kernels_of_load(cached_tokens, 0, 0)
        return self.kernels_of_load(cached_tokens, load.received, load.rows)

    def nominal_kernels(self, pairs: int) -> InferenceKernels:
        """Return those of a micro-batch whose experts get so many pairs."""
        settings = self.settings
        cached = settings.prompt_tokens if isinstance(settings, PrefillSettings) else self.batch.query_tokens
        return self.kernels_of_load(float(cached), pairs, pairs)

    def kernels_of_load(self, cached_tokens: float, received: int, rows: int) -> InferenceKernels:
        """Return the kernels of a micro-batch of which a GPU's experts get so many tokens, each once, and pairs."""
        settings = self.settings
        experts = 0
        if self.model.moe is not None:
            experts = settings.experts(self.setting).num_physical // settings.expert_parallel
        work = Work(
            requests=self.batch.requests,
            query_tokens=self.batch.query_tokens,
            cached_tokens=cached_tokens,
            rows=rows,
            received=received,
            experts=experts,
        )
        return InferenceKernels(
            self.model,
            work,
            settings.tensor_parallel,
            settings.number_format,
            self.absorbed,
            settings.cache_format,
            packed=self.packs_rows,
        )


def check_parallel(settings: InferenceSettings, setting: Setting, model: Model) -> None:
    """Raise FieldError where degrees do not fit the model, the cluster or each other."""
    expert, tensor = settings.expert_parallel, settings.tensor_parallel
    if model.moe is None and expert > 1:
        msg = f"{model.name} has no experts to divide over {expert} ranks; leave expert_parallel out"
        raise FieldError("expert_parallel", msg)
    if setting.gpus_per_node % tensor:
        of_node = setting.gpus_per_node
        divisors = ", ".join(str(degree) for degree in range(1, of_node + 1) if of_node % degree == 0)
        msg = f"degree {tensor} does not divide the {of_node} GPUs of a node; {divisors} would do"
        raise FieldError("tensor_parallel", msg)
    if expert % tensor and tensor % expert:
        msg = (
            f"neither of degree {tensor} and expert_parallel {expert} divides the other; use a divisor or a multiple "
            f"of {expert}"
        )
        raise FieldError("tensor_parallel", msg)
    others = settings.prefill_gpus if isinstance(settings, DecodeSettings) else 0
    num_ranks = setting.num_ranks - others
    if num_ranks <= 0 or others % setting.gpus_per_node:
        msg = (
            f"{others} GPUs that prefill must be whole nodes of {setting.gpus_per_node}, and fewer than the "
            f"cluster's {setting.num_ranks:,}"
        )
        raise FieldError("cache_transfers.gpus", msg)
    settings.check_degree(replace(setting, num_ranks=num_ranks))
    check_heads(model, tensor)


def check_loads(settings: InferenceSettings, setting: Setting, model: Model, own_tokens: int) -> None:
    """Raise FieldError where experts do not fit; tokens' experts are drawn for one group, so many times."""
    modules = settings.mtp_modules if isinstance(settings, DecodeSettings) else 0
    layers = [layer for layer in model.moe_layers() if layer < model.num_layers + modules]
    draws = num_draws(settings.load_changes, len(layers), settings.micro_batches)
    one_group = replace(setting, num_ranks=settings.expert_parallel)
    try:
        settings.check_experts(one_group, own_tokens, draws)
    except FieldError as error:
        batch = "tokens_per_gpu" if isinstance(settings, PrefillSettings) else "batch_per_gpu"
        field = {"tokens_per_rank": batch, "layers": "load_changes"}.get(error.field, error.field)
        raise FieldError(field, str(error)) from error


def decode_batch(settings: DecodeSettings, batch_per_gpu: int) -> Batch:
    """Return one micro-batch of decoding; FieldError where requests do not divide into them."""
    if batch_per_gpu % settings.micro_batches:
        near = f"{batch_per_gpu - 1} or {batch_per_gpu + 1}" if batch_per_gpu > 1 else "2"
        msg = f"{batch_per_gpu} requests do not divide into 2 micro-batches; use {near}, or micro_batches: 1"
        raise FieldError("batch_per_gpu", msg)
    own = batch_per_gpu // settings.micro_batches
    return Batch(own * settings.tensor_parallel, settings.query_tokens, own * settings.query_tokens)


def prefill_batch(settings: PrefillSettings) -> Batch:
    """Return one micro-batch of prefill; FieldError where tokens do not make whole prompts."""
    of_group = settings.tokens_per_gpu * settings.tensor_parallel
    per_prompt = settings.prompt_tokens * settings.micro_batches
    if of_group % per_prompt:
        unit = np.lcm(per_prompt, settings.tensor_parallel) // settings.tensor_parallel
        below = settings.tokens_per_gpu // unit * unit
        near = f"{below:,} or {below + unit:,}" if below else f"{unit:,}"
        msg = (
            f"{settings.tokens_per_gpu:,} tokens a GPU, in tensor-parallel groups of {settings.tensor_parallel}, are "
            f"no whole number of prompts of {settings.prompt_tokens:,} tokens in each micro-batch (there are "
            f"{settings.micro_batches}); {near} would do"
        )
        raise FieldError("tokens_per_gpu", msg)
    requests = of_group // per_prompt
    own_tokens = -(-requests * settings.prompt_tokens // settings.tensor_parallel)
    return Batch(requests, settings.prompt_tokens, own_tokens)


def check_context(model: Model, most_tokens: int, field: str) -> None:
    """Raise FieldError if a request would have more tokens than the model has a context for."""
    if most_tokens > model.max_context:
        msg = (
            f"a request would have {most_tokens:,} tokens, more than the context of {model.name}; use at most "
            f"{model.max_context:,}"
        )
        raise FieldError(field, msg)
