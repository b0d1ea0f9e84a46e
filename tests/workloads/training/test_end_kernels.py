"""The kernels at the ends of the model: products and bytes by hand, 10 tokens of 64 values, 300 words."""

from support.training_steps import model
from workloads.kernels import Gemm
from workloads.models import Model
from workloads.training.end_kernels import EndKernels

SMALL: Model = model(hidden_size=64)
ENDS = EndKernels(SMALL, tokens=10, vocabulary=300, number_format="fp8")

# a norm reads input and residual and writes sum and result in BF16, and reads its weights
NORM = 4 * 2 * 10 * 64 + 2 * 64
# BF16 read, a byte a value written, and an FP32 scale for each 128 values begun
QUANTISE_64 = 10 * (2 * 64 + 64 + 4)
QUANTISE_128 = 10 * (2 * 128 + 128 + 4)


def products(calls) -> list[tuple[int, int, int, str, bool]]:
    return [
        (call.rows, call.columns, call.depth, call.format, call.accumulate)
        for call in calls
        if isinstance(call, Gemm)
    ]


def streamed_bytes(calls) -> float:
    """What all calls but products move."""
    return sum(call.moved_bytes for call in calls if not isinstance(call, Gemm))


def test_the_embedding_is_looked_up_and_its_gradient_added_up():
    # forward: 4 bytes of a token's number, its vector read and written in BF16
    assert streamed_bytes(ENDS.embedding_forward()) == 10 * (4 + 2 * 2 * 64)
    # backward: 2 bytes of the gradient read, 4 of the sum read and 4 written
    assert streamed_bytes(ENDS.embedding_weight()) == 10 * 64 * (2 + 4 + 4)
    assert products(ENDS.embedding_forward()) == products(ENDS.embedding_weight()) == []


def test_the_head_is_bf16_whatever_the_layers_are():
    for number_format in ("fp8", "bf16"):
        ends = EndKernels(SMALL, 10, 300, number_format)
        # logits [10, 300] = norm [10, 64] x head; gradient of the norm's result [10, 64]; of the head [300, 64]
        assert products(ends.head_forward()) == [(10, 300, 64, "bf16", False)]
        assert products(ends.head_backward()) == [(10, 64, 300, "bf16", False)]
        assert products(ends.head_weight()) == [(300, 64, 10, "bf16", True)]


def test_the_loss_reads_logits_once_and_turns_them_into_gradients():
    # forward: the norm, and logits read in BF16; backward: logits read and written, and the norm
    assert streamed_bytes(ENDS.head_forward()) == NORM + 2 * 10 * 300
    assert streamed_bytes(ENDS.head_backward()) == 2 * 2 * 10 * 300 + NORM
    assert streamed_bytes(ENDS.head_weight()) == 0


def test_an_mtp_module_projects_two_activations_to_one():
    # forward [10, 64] = [10, 128] x projection; the gradient of both inputs [10, 128]; of the projection [64, 128]
    assert products(ENDS.mtp_forward()) == [(10, 64, 128, "fp8", False)]
    assert products(ENDS.mtp_backward()) == [(10, 128, 64, "fp8", False)]
    assert products(ENDS.mtp_weight()) == [(64, 128, 10, "fp8", True)]
    assert products(EndKernels(SMALL, 10, 300, "bf16").mtp_forward()) == [(10, 64, 128, "bf16", False)]


def test_an_mtp_module_normalises_both_and_looks_the_next_tokens_up():
    look_up, gradient = 10 * (4 + 2 * 2 * 64), 10 * 64 * (2 + 4 + 4)
    assert streamed_bytes(ENDS.mtp_forward()) == look_up + 2 * NORM + QUANTISE_128
    # both norms once more, and backward; the gradient of the result for its two products
    assert streamed_bytes(ENDS.mtp_backward()) == 4 * NORM + 2 * QUANTISE_64
    assert streamed_bytes(ENDS.mtp_weight()) == QUANTISE_128 + gradient
