"""The kernels at the ends of the model in training: embedding, head with its loss, and what joins an MTP module.

As DeepSeek-V3 trains (technical report, arXiv 2412.19437): embedding and head are BF16 (section 3.3.1); an MTP module
normalises the activations before it and the embeddings of the next tokens, projects both to one, and uses embedding
and head of the model (section 2.2). Kernels that only move bytes are those that a fused implementation needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from workloads.formats import FP32_BYTES
from workloads.kernel_call import Arithmetic, KernelCall
from workloads.kernels import BF16_BYTES, Gemm
from workloads.models import Model
from workloads.streaming_kernels import Copy, Embedding, Norm, Quantise

Calls = Iterator[KernelCall]


@dataclass(frozen=True, slots=True)
class EndKernels:
    """The kernels at the ends of a model on one GPU.

    tokens: its own; vocabulary: rows of embedding and head that it holds; tensor_parallel: degree; embedding and
    logits work on the tokens of all its ranks, the rest on each one's own
    """

    model: Model
    tokens: int
    vocabulary: int
    number_format: Arithmetic
    tensor_parallel: int = 1

    def embedding_forward(self) -> Calls:
        """Yield the look-up; of tokens whose rows another rank holds, zeros."""
        yield Embedding(tokens=self._all_tokens, width=self._hidden)

    def embedding_weight(self) -> Calls:
        """Yield its gradient: BF16 is read, and added to those rows that are here, in FP32."""
        read, added = BF16_BYTES * self._all_tokens, 2 * FP32_BYTES * self.tokens
        yield Copy(size_bytes=(read + added) * self._hidden // 2)

    def head_forward(self) -> Calls:
        """Yield the final norm, the logits, and one reading of them for the loss."""
        yield from self.final_norm()
        yield from self.logits_forward()

    def head_backward(self) -> Calls:
        """Yield logits turned into their gradients in place, and the gradient of the norm's input."""
        yield from self.logits_backward()
        yield from self.final_norm()

    def head_weight(self) -> Calls:
        """Yield the gradient of the head's weights."""
        yield Gemm(
            rows=self.vocabulary, columns=self._hidden, depth=self._all_tokens, format="bf16", accumulate=True
        )

    def final_norm(self) -> Calls:
        """Yield the final norm, or its gradient: of a rank's own tokens."""
        yield self._norm()

    def logits_forward(self) -> Calls:
        """Yield the logits and one reading of them for the loss: of all tokens, for the vocabulary that is here."""
        yield self._logits(self.vocabulary, self._hidden)
        yield Copy(size_bytes=BF16_BYTES * self._all_tokens * self.vocabulary // 2)

    def logits_backward(self) -> Calls:
        """Yield logits turned into their gradients in place, and the gradient of their input."""
        yield Copy(size_bytes=BF16_BYTES * self._all_tokens * self.vocabulary)
        yield self._logits(self._hidden, self.vocabulary)

    def mtp_forward(self) -> Calls:
        """Yield the next tokens' embeddings, two norms, and the projection of both to one."""
        yield from self.embedding_forward()
        yield from self.joining_forward()

    def joining_forward(self) -> Calls:
        """Yield the two norms and the projection: of a rank's own tokens."""
        yield from 2 * (self._norm(),)
        yield self._quantise(2 * self._hidden)
        yield self._projection(self._hidden, 2 * self._hidden)

    def mtp_backward(self) -> Calls:
        """Yield the gradients of both inputs; norms are computed again."""
        yield from 2 * (self._norm(),)
        yield from 2 * (
            self._quantise(self._hidden),
        )  # for the product, and laid out for the gradient of weights
        yield self._projection(2 * self._hidden, self._hidden)
        yield from 2 * (self._norm(),)

    def mtp_weight(self) -> Calls:
        """Yield the gradients of the projection and of the embedding."""
        yield from self.joining_weight()
        yield from self.embedding_weight()

    def joining_weight(self) -> Calls:
        """Yield the gradient of the projection: what a rank's own tokens add to it."""
        yield self._quantise(2 * self._hidden)  # the input, laid out
        yield Gemm(
            rows=self._hidden,
            columns=2 * self._hidden,
            depth=self.tokens,
            format=self.number_format,
            accumulate=True,
        )

    @property
    def _hidden(self) -> int:
        return self.model.hidden_size

    @property
    def _all_tokens(self) -> int:
        """Return the tokens of all tensor-parallel ranks together."""
        return self.tokens * self.tensor_parallel

    def _norm(self) -> KernelCall:
        return Norm(rows=self.tokens, width=self._hidden)

    def _quantise(self, width: int) -> KernelCall:
        return Quantise(rows=self.tokens, width=width)

    def _logits(self, columns: int, depth: int) -> KernelCall:
        return Gemm(rows=self._all_tokens, columns=columns, depth=depth, format="bf16")

    def _projection(self, columns: int, depth: int) -> KernelCall:
        return Gemm(rows=self.tokens, columns=columns, depth=depth, format=self.number_format)
