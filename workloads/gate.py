"""The gate: how tokens come by their experts, by affinities that a seeded generator draws, in turn, or from a file.

Affinities of unequally popular experts are u ** (1 / p), u being uniform between 0 and 1 and p the popularity of the
expert. Those of the highest affinities are then a sample without replacement in which each next expert is drawn in
proportion to its popularity (P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", Information
Processing Letters 97, 2006, pages 181 to 185). All being equally popular, that is the uniform gate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simulator.input_files import InputPath
from simulator.units import FieldError, Spec
from workloads.gate_file import ExpertLoads, read_gate_file
from workloads.tasks import FloatArray, IntArray
from workloads.top_k import TopK, deal_experts, new_deal, select_experts

# Affinities drawn at a time: 4 MiB of float32, which stays in a core's second-level cache.
_SCORES_PER_BATCH: Final = 2**20
# Tokens of an earlier sample that are held at a time.
_TOKENS_PER_BATCH: Final = 2**14
# So rare an expert is never chosen while another is left; float32 still holds what is computed from it.
_LEAST_POPULARITY: Final = 1e-30


class ExpertSource(Protocol):
    """The experts of the tokens of one layer."""

    def experts(self, num_tokens: int) -> IntArray:
        """Return [num_tokens, top_k] the distinct experts of each of the next tokens: those of a rank."""

    def history(self, num_tokens: int) -> IntArray:
        """Return [num_experts] the tokens that each expert got of so many in earlier traffic of the same kind.

        Popularities are those of the tokens to come. What `experts` returns does not depend on it.
        """


class UniformGate(Spec):
    """Affinities independent and uniform between 0 and 1: every expert is equally likely, loads differ by chance."""

    kind: Literal["uniform"] = Field(
        default="uniform",
        description="how affinities are drawn; `uniform`: each token's to each expert independent and uniform "
        "between 0 and 1 (default uniform)",
    )

    def check(self, top_k: TopK, folder: Path) -> None:
        """Accept any experts."""

    def open(self, top_k: TopK, rng: np.random.Generator, folder: Path) -> ExpertSource:  # noqa: ARG002
        """Return the experts of a layer's tokens, affinities being drawn from `rng` as they are needed."""
        return _drawn(
            lambda generator: lambda num_tokens: sample_experts(generator, num_tokens, *top_k), top_k, rng
        )

    def describe(self) -> str:
        """Return what it takes for granted."""
        return "affinities are independent and uniform, all experts being equally popular"


class BalancedGate(Spec):
    """Every expert gets equally many tokens, as of a gate that is perfectly trained to that end."""

    kind: Literal["balanced"] = Field(
        description="how tokens come by their experts; `balanced`: experts take turns in random order, so that all "
        "get equally many tokens; each token goes to as many groups as the gate keeps, and splits evenly over them"
    )

    def check(self, top_k: TopK, folder: Path) -> None:
        """Accept any experts."""

    def open(self, top_k: TopK, rng: np.random.Generator, folder: Path) -> ExpertSource:  # noqa: ARG002
        """Return the experts of a layer's tokens, in an order that is drawn from `rng`."""
        return _drawn(lambda generator: balanced_experts(top_k, generator), top_k, rng)

    def describe(self) -> str:
        """Return what it takes for granted."""
        return "experts are not chosen by affinity but in turn, so that all get equally many tokens"


class LognormalGate(Spec):
    """Popularities of experts are lognormal, affinities such that tokens choose in proportion to them."""

    kind: Literal["lognormal"] = Field(
        description="how affinities are drawn; `lognormal`: each expert has a popularity, whose logarithm is normal, "
        "and tokens without a limit to groups draw experts in proportion to it"
    )
    sigma: float = Field(
        gt=0, le=4, description="standard deviation of the logarithm of an expert's popularity (no default)"
    )

    def check(self, top_k: TopK, folder: Path) -> None:
        """Accept any experts."""

    def open(self, top_k: TopK, rng: np.random.Generator, folder: Path) -> ExpertSource:  # noqa: ARG002
        """Return the experts of a layer's tokens; popularities are drawn from `rng` first, then affinities."""
        return _by_popularity(np.exp(self.sigma * rng.standard_normal(top_k.num_experts)), top_k, rng)

    def describe(self) -> str:
        """Return what it takes for granted."""
        return f"expert popularity is lognormal with sigma {self.sigma:g}"


class ZipfGate(Spec):
    """Popularities of experts fall by Zipf's law, affinities such that tokens choose in proportion to them."""

    kind: Literal["zipf"] = Field(
        description="how affinities are drawn; `zipf`: the popularity of an expert is a power of its rank, which is "
        "drawn at random, and tokens without a limit to groups draw experts in proportion to it"
    )
    exponent: float = Field(
        gt=0,
        le=4,
        description="popularity of the expert of rank r is r to the power of minus this (no default)",
    )

    def check(self, top_k: TopK, folder: Path) -> None:
        """Accept any experts."""

    def open(self, top_k: TopK, rng: np.random.Generator, folder: Path) -> ExpertSource:  # noqa: ARG002
        """Return the experts of a layer's tokens; ranks are drawn from `rng` first, then affinities."""
        rank = rng.permutation(top_k.num_experts) + 1.0
        return _by_popularity(np.power(rank, -self.exponent), top_k, rng)

    def describe(self) -> str:
        """Return what it takes for granted."""
        return f"expert popularity is zipf with exponent {self.exponent:g}"


class FileGate(Spec):
    """Loads of experts, or the experts of real tokens, from a file; loads are popularities, as of `lognormal`."""

    kind: Literal["file"] = Field(description="how tokens come by their experts; `file`: as a file says")
    path: InputPath = Field(
        description="CSV (.csv) or Parquet (.parquet, .pq) file, relative to the scenario's folder, with the columns "
        "expert and load (a row for each of the model's experts, from 0; the tokens that each gets, in any unit), or "
        "expert_0, expert_1 and so on, one for each expert of a token (a row for each token: routing decisions, used "
        "one after the other, rank after rank, and from the start again when used up; groups do not apply to them); "
        "at most 16,777,216 rows and 1 GiB (no default)",
    )

    def check(self, top_k: TopK, folder: Path) -> None:
        """Raise FieldError where the file is missing or malformed, or does not fit the experts."""
        try:
            read_gate_file(folder / self.path, top_k)
        except ValueError as error:
            raise FieldError("path", str(error)) from error

    def open(self, top_k: TopK, rng: np.random.Generator, folder: Path) -> ExpertSource:
        """Return the experts of a layer's tokens: by the loads of the file, or its decisions from the first on."""
        found = read_gate_file(folder / self.path, top_k)
        if isinstance(found, ExpertLoads):
            return _by_popularity(found.load, top_k, rng)
        return _Decisions(found.experts, top_k.num_experts)

    def describe(self) -> str:
        """Return what it takes for granted."""
        return f"expert popularity, or each token's experts, are those of {Path(self.path).name}"


Gate: TypeAlias = Annotated[
    UniformGate | BalancedGate | LognormalGate | ZipfGate | FileGate,
    Field(discriminator="kind", description="how tokens come by their experts"),
]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Experts drawn at random: `draw` gives the next so many tokens theirs, `draw_earlier` those of earlier ones."""

    draw: Callable[[int], IntArray]
    draw_earlier: Callable[[int], IntArray]
    num_experts: int

    def experts(self, num_tokens: int) -> IntArray:
        """Return [num_tokens, top_k] the experts of the next tokens."""
        return self.draw(num_tokens)

    def history(self, num_tokens: int) -> IntArray:
        """Return [num_experts] the tokens that each expert got of the next tokens of the earlier sample."""
        load = np.zeros(self.num_experts, np.int64)
        for start in range(0, num_tokens, _TOKENS_PER_BATCH):
            experts = self.draw_earlier(min(_TOKENS_PER_BATCH, num_tokens - start))
            load += np.bincount(experts.ravel(), minlength=self.num_experts)
        return load


@dataclass(slots=True)
class _Decisions:
    """Experts of real tokens, [num_rows, top_k], used row after row and from the start again."""

    rows: NDArray[np.int32]
    num_experts: int
    next_row: int = 0

    def experts(self, num_tokens: int) -> IntArray:
        """Return [num_tokens, top_k] the experts of the next rows."""
        taken = (self.next_row + np.arange(num_tokens)) % len(self.rows)
        self.next_row = (self.next_row + num_tokens) % len(self.rows)
        return self.rows[taken].astype(np.int64)

    def history(self, num_tokens: int) -> IntArray:  # noqa: ARG002
        """Return [num_experts] the tokens that each expert gets of all rows, whatever `num_tokens`."""
        return np.bincount(self.rows.ravel(), minlength=self.num_experts)


def _drawn(
    sampler: Callable[[np.random.Generator], Callable[[int], IntArray]],
    top_k: TopK,
    rng: np.random.Generator,
) -> ExpertSource:
    """Return a source that draws from `rng`, and its history from a child of it, so that the one leaves the other."""
    return _Drawn(sampler(rng), sampler(rng.spawn(1)[0]), top_k.num_experts)


def _by_popularity(popularity: FloatArray, top_k: TopK, rng: np.random.Generator) -> ExpertSource:
    return _drawn(lambda generator: partial(sample_popular_experts, generator, popularity, top_k), top_k, rng)


def sample_experts(
    rng: np.random.Generator,
    num_tokens: int,
    num_experts: int,
    top_k: int,
    num_groups: int,
    groups_kept: int,
) -> IntArray:
    """Return [num_tokens, top_k] the distinct experts of each token, best first, under a uniform gate.

    Draws num_tokens x num_experts float32 affinities from `rng`, in bounded batches. `TopK` says what the arguments
    must satisfy.
    """
    experts = np.empty((num_tokens, top_k), np.int64)
    for tokens, affinities in _batches(num_tokens, num_experts):
        rng.random(dtype=np.float32, out=affinities)
        experts[tokens] = select_experts(affinities, top_k, num_groups, groups_kept)
    return experts


def sample_popular_experts(
    rng: np.random.Generator, popularity: FloatArray, top_k: TopK, num_tokens: int
) -> IntArray:
    """Return [num_tokens, top_k] the distinct experts of each token, best first, some being more popular.

    popularity: [num_experts] in any unit, not negative; where it is 0 an expert is never chosen, and the groups that
    a token can keep hold at least top_k others. Scaled to mean 1, it is the p of the affinity u ** (1 / p). As
    x = -log(u) is exponential, the affinity's logarithm is -x / p: it takes the affinity's place, because the
    affinities of unpopular experts would be 0 in float32, and equal.
    """
    relative = popularity / popularity.max()
    scale = -1 / np.maximum(relative / relative.mean(), _LEAST_POPULARITY).astype(np.float32)
    never = np.flatnonzero(popularity == 0)
    experts = np.empty((num_tokens, top_k.top_k), np.int64)
    for tokens, scores in _batches(num_tokens, top_k.num_experts):
        rng.standard_exponential(dtype=np.float32, out=scores)
        np.multiply(scores, scale, out=scores)
        scores[:, never] = -np.inf
        experts[tokens] = select_experts(
            scores, top_k.top_k, top_k.num_groups, top_k.groups_kept, in_logs=True
        )
    return experts


def balanced_experts(top_k: TopK, rng: np.random.Generator) -> Callable[[int], IntArray]:
    """Return what gives the next so many tokens their experts, so that all experts get equally many.

    Each token goes to `groups_kept` groups, or to top_k where that is less, and takes as many experts in each, or
    one more in some. Loads are equal, however tokens are divided into calls, whenever tokens' visits to groups divide
    by the groups and their experts by all experts; in between they differ by a few. Groups of unequal size are
    visited in proportion to it, and loads differ by a few; where they limit nothing they are left out of account, so
    that loads never differ by more than one.
    """
    deal = new_deal(top_k, rng)
    draws_per_token = len(deal.extra) + top_k.top_k

    def draw(num_tokens: int) -> IntArray:
        experts = np.empty((num_tokens, top_k.top_k), np.int64)
        for tokens, chances in _batches(num_tokens, draws_per_token):
            rng.random(dtype=np.float32, out=chances)
            experts[tokens] = deal_experts(deal, top_k.top_k, chances)
        return experts

    return draw


def _batches(num_tokens: int, num_columns: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield parts of the tokens, and room for `num_columns` numbers for each of them: the same room each time."""
    batch = max(1, min(num_tokens, _SCORES_PER_BATCH // num_columns))
    room = np.empty((batch, num_columns), np.float32)
    for start in range(0, num_tokens, batch):
        end = min(start + batch, num_tokens)
        yield slice(start, end), room[: end - start]
