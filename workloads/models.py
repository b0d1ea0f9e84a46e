"""The architecture of a language model: its dimensions, from the catalogue or a Hugging Face `config.json`.

What the dimensions add up to (parameters, cache, FLOPs) is the business of `workloads.flops`. A catalogue entry is
a file of `model_configs/`, named after the model, with the keys of its published `config.json`.
"""

import difflib
import reprlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from simulator.regular_file import read_regular, why
from workloads.config_file import LARGEST_CONFIG_BYTES, Config, UnfitError, parse_config

_CATALOGUE: Final = files("workloads") / "model_configs"
_LATENT_ATTENTION_TYPES: Final = ("deepseek_v2", "deepseek_v3")
_GROUPED_ATTENTION_TYPES: Final = ("llama", "qwen2")
# Switches that change the architecture in a way that no field of Model holds; off in every catalogue model.
_UNSUPPORTED_SWITCHES: Final = ("attention_bias", "mlp_bias", "use_sliding_window")


@dataclass(frozen=True, slots=True)
class MultiHeadLatentAttention:
    """Attention that caches one latent vector per token and layer (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    q_lora_rank: values of the compressed query, None where queries are not compressed; kv_lora_rank: values of the
    latent of keys and values; qk_nope_head_dim, qk_rope_head_dim: query and key values of a head without and with
    rotary position (the rotary part of the key is shared by all heads); v_head_dim: value's values of a head.
    """

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class GroupedQueryAttention:
    """Attention in which groups of query heads share a key and a value head (arXiv 2305.13245).

    num_kv_heads: key heads, and as many value heads; head_dim: values of any head; qkv_bias: whether the query, key
    and value projections add a bias.
    """

    num_kv_heads: int
    head_dim: int
    qkv_bias: bool


@dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """Feed-forward layers of which each token uses a few experts (DeepSeekMoE, arXiv 2405.04434, section 2.2).

    The gate keeps `groups_kept` of `num_groups` equal groups of routed experts, then `experts_per_token` experts
    within them; every token also uses all shared experts. intermediate_size: of one expert; num_dense_layers: the
    first layers, which have no experts; layer_freq: one layer in so many has experts; router_bias: whether the gate
    has one correction bias per routed expert (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).

    Raises UnfitError, at a key of a config.json, if groups and experts do not fit each other.
    """

    num_routed_experts: int
    num_shared_experts: int
    experts_per_token: int
    num_groups: int
    groups_kept: int
    intermediate_size: int
    num_dense_layers: int
    layer_freq: int = 1
    router_bias: bool = False

    def __post_init__(self) -> None:
        if self.num_routed_experts % self.num_groups:
            msg = (
                f"{self.num_routed_experts} routed experts (n_routed_experts) do not divide into "
                f"{self.num_groups} equal groups (n_group)"
            )
            raise UnfitError("n_group", msg)
        if self.groups_kept > self.num_groups:
            msg = (
                f"the gate cannot keep {self.groups_kept} (topk_group) of {self.num_groups} groups (n_group)"
            )
            raise UnfitError("topk_group", msg)
        experts_kept = self.num_routed_experts // self.num_groups * self.groups_kept
        if self.experts_per_token > experts_kept:
            msg = (
                f"a token cannot use {self.experts_per_token} experts (num_experts_per_tok): the groups that the "
                f"gate keeps (topk_group) hold {experts_kept}"
            )
            raise UnfitError("num_experts_per_tok", msg)


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder's dimensions: all that a workload needs to know of it.

    hidden_size: values of a token's activation; num_heads: query heads; max_context: tokens; intermediate_size: of
    a dense feed-forward layer; moe: None if every layer is dense; num_mtp_layers: multi-token prediction modules,
    which follow the `num_layers` layers and are not among them.

    Raises UnfitError, at a key of a config.json, if the key heads do not divide the query heads.
    """

    name: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    num_heads: int
    max_context: int
    tie_word_embeddings: bool
    attention: MultiHeadLatentAttention | GroupedQueryAttention
    intermediate_size: int
    moe: MixtureOfExperts | None = None
    num_mtp_layers: int = 0

    def __post_init__(self) -> None:
        attention = self.attention
        if isinstance(attention, GroupedQueryAttention) and self.num_heads % attention.num_kv_heads:
            msg = (
                f"{self.num_heads} query heads (num_attention_heads) do not divide evenly among "
                f"{attention.num_kv_heads} key heads (num_key_value_heads)"
            )
            raise UnfitError("num_key_value_heads", msg)

    def is_moe_layer(self, layer: int) -> bool:
        """Return whether this layer (from 0; MTP modules continue the count) has experts."""
        moe = self.moe
        return moe is not None and layer >= moe.num_dense_layers and layer % moe.layer_freq == 0

    def moe_layers(self) -> list[int]:
        """Return the layers that have experts, MTP modules among them."""
        return [layer for layer in range(self.num_layers + self.num_mtp_layers) if self.is_moe_layer(layer)]

    @property
    def num_moe_layers(self) -> int:
        """How many of the `num_layers` layers have experts."""
        if self.moe is None:
            return 0
        first = -(-self.moe.num_dense_layers // self.moe.layer_freq) * self.moe.layer_freq
        return len(range(first, self.num_layers, self.moe.layer_freq))


def catalogue() -> tuple[str, ...]:
    """Return the names of the models that `load_model` knows, in order."""
    names = (entry.name for entry in _CATALOGUE.iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


def load_model(name_or_path: str, folder: Path) -> Model:
    """Return a catalogue model, or the model of a Hugging Face `config.json`.

    name_or_path: a name of `catalogue()`, else a path, from `folder` if it is relative. A model from a file is
    named by its path as given. Raises ValueError for a path that leads to no file, and InputError, with the file, its
    line and the key, for a file that cannot be used.
    """
    if name_or_path in catalogue():
        source = f"{name_or_path}.json"
        content = (_CATALOGUE / source).read_bytes()
    else:
        path = folder / name_or_path
        source = str(path)
        content = _read_file(name_or_path, path)
    config = parse_config(content, source)
    try:
        return _model_of(name_or_path, config)
    except UnfitError as error:
        raise config.error(error.key, str(error)) from error


def _read_file(name_or_path: str, path: Path) -> bytes:
    """Return what the file holds; ValueError if it is none, or larger than a config may be."""
    try:
        return read_regular(path, LARGEST_CONFIG_BYTES)
    except FileNotFoundError as error:
        raise ValueError(_unknown_name(name_or_path, path)) from error
    except (OSError, ValueError) as error:
        known = ", ".join(catalogue())
        msg = f"{path}: {why(error, 'a config.json')}; name a Hugging Face config.json, or a model: {known}"
        raise ValueError(msg) from error


def _unknown_name(name_or_path: str, path: Path) -> str:
    nearest = difflib.get_close_matches(name_or_path.lower(), catalogue(), n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return (
        f"{name_or_path!r} is no known model, and {path} is no file{hint} "
        f"Known models are {', '.join(catalogue())}; a Hugging Face config.json is named by its path."
    )


def _model_of(name: str, config: Config) -> Model:
    """Return the model that the config describes.

    A key that sizes the model must be there. One whose absence has a plain meaning takes it, as in Hugging Face's
    configuration classes: one key head per query head, heads that split the hidden size, experts in every layer
    from the first that has them, no tied embeddings. Multi-token prediction must be asked for.
    """
    model_type = config.text("model_type")
    latent = model_type in _LATENT_ATTENTION_TYPES
    if not latent and model_type not in _GROUPED_ATTENTION_TYPES:
        supported = ", ".join(sorted(_LATENT_ATTENTION_TYPES + _GROUPED_ATTENTION_TYPES))
        msg = f"{reprlib.repr(model_type)} is not supported; supported are {supported}"
        raise UnfitError("model_type", msg)
    for switch in _UNSUPPORTED_SWITCHES:
        if config.flag(switch):
            msg = "this is true, which is not modelled; set it to false to have the model without it"
            raise UnfitError(switch, msg)
    return Model(
        name=name,
        num_layers=config.count("num_hidden_layers"),
        hidden_size=config.count("hidden_size"),
        vocab_size=config.count("vocab_size"),
        num_heads=config.count("num_attention_heads"),
        max_context=config.count("max_position_embeddings"),
        tie_word_embeddings=config.flag("tie_word_embeddings"),
        attention=_latent_attention(config) if latent else _grouped_attention(config, model_type),
        intermediate_size=config.count("intermediate_size"),
        moe=_experts(config, router_bias=model_type == "deepseek_v3") if latent else None,
        num_mtp_layers=config.count_or("num_nextn_predict_layers", 0, at_least=0),
    )


def _latent_attention(config: Config) -> MultiHeadLatentAttention:
    return MultiHeadLatentAttention(
        q_lora_rank=config.count_or_null("q_lora_rank"),
        kv_lora_rank=config.count("kv_lora_rank"),
        qk_nope_head_dim=config.count("qk_nope_head_dim"),
        qk_rope_head_dim=config.count("qk_rope_head_dim"),
        v_head_dim=config.count("v_head_dim"),
    )


def _grouped_attention(config: Config, model_type: str) -> GroupedQueryAttention:
    num_heads, hidden_size = config.count("num_attention_heads"), config.count("hidden_size")
    if not config.holds("head_dim") and hidden_size % num_heads:
        msg = f"{hidden_size} does not divide evenly among {num_heads} heads (num_attention_heads); give head_dim"
        raise UnfitError("hidden_size", msg)
    if model_type == "qwen2":
        # must be there, null or not: where it is absent, Hugging Face takes 32, whatever the number of heads
        num_kv_heads = config.count_or_null("num_key_value_heads") or num_heads
    else:
        num_kv_heads = config.count_or("num_key_value_heads", num_heads)
    return GroupedQueryAttention(
        num_kv_heads=num_kv_heads,
        head_dim=config.count_or("head_dim", hidden_size // num_heads),
        qkv_bias=model_type == "qwen2",
    )


def _experts(config: Config, *, router_bias: bool) -> MixtureOfExperts | None:
    num_routed_experts = config.count_or_null("n_routed_experts")
    if num_routed_experts is None:
        return None
    num_groups = config.count_or_null("n_group") or 1
    return MixtureOfExperts(
        num_routed_experts=num_routed_experts,
        num_shared_experts=config.count_or_null("n_shared_experts", at_least=0) or 0,
        experts_per_token=config.count("num_experts_per_tok"),
        num_groups=num_groups,
        groups_kept=config.count_or_null("topk_group") or num_groups,
        intermediate_size=config.count("moe_intermediate_size"),
        num_dense_layers=config.count("first_k_dense_replace", at_least=0),
        layer_freq=config.count_or("moe_layer_freq", 1),
        router_bias=router_bias,
    )
