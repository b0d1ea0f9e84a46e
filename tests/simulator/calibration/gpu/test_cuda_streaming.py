"""The memory-bound kernels, compiled for the CPU, against their truths.

Outputs are poisoned before a kernel runs and followed by guard bytes, so that an element left out and a byte written
beyond the end both show. Every case runs with the threads of a block started in either order.
"""

from contextlib import ExitStack, nullcontext

import numpy as np
import pytest

from simulator.calibration.gpu.cuda_library import CudaError
from simulator.calibration.gpu.truth_formats import (
    E4M3_MAX,
    from_bf16_bits,
    from_e4m3_bits,
    to_bf16_bits,
    to_e4m3_bits,
)
from simulator.calibration.gpu.truth_streaming import (
    QuantisedTokens,
    combine,
    combine_bound,
    copy,
    dequantised,
    pack,
    quantise,
    quantise_bound,
    rms_norm,
    rms_norm_bound,
)
from support.emulated import MISSING_COMPILER, emulated_library, has_compiler, reverse_order

pytestmark = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)

GUARD_BYTES = 64
POISON = 0xFF  # NaN in bf16, e4m3 and float32
GUARD = np.full(GUARD_BYTES, 0xA5, np.uint8)  # not the poison, which is what lies beyond an input's end


@pytest.fixture(scope="module")
def library():
    return emulated_library()


@pytest.fixture(params=["first-to-last", "last-to-first"])
def thread_order(request):
    with reverse_order() if request.param == "last-to-first" else nullcontext():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(60)


@pytest.fixture
def device(library):
    """Inputs and outputs on the device, released with the test."""
    with ExitStack() as held:
        yield Device(library, held)


class Device:
    def __init__(self, library, held):
        self.cuda = library
        self.held = held

    def input(self, array):
        return self.held.enter_context(self.cuda.allocate(array))

    def output(self, shape, dtype):
        """A poisoned output and the function that fetches it, which checks the guard behind it."""
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.input(np.concatenate([np.full(size_bytes, POISON, np.uint8), GUARD]))

        def fetched():
            self.cuda.synchronise()
            everything = memory.to_host(size_bytes + GUARD_BYTES, np.uint8)
            np.testing.assert_array_equal(everything[size_bytes:], GUARD)
            return everything[:size_bytes].view(dtype).reshape(shape)

        return memory, fetched


def drawn(rng, *shape):
    return to_bf16_bits(rng.standard_normal(shape) * np.exp(rng.standard_normal(shape)))


def drawn_slots(rng, tokens, copies, slots, missing=0.3):
    """A slot for each copy, no two the same, and no copy at all for some."""
    slot_of_copy = rng.permutation(slots)[: tokens * copies].reshape(tokens, copies).astype(np.int32)
    slot_of_copy[rng.random((tokens, copies)) < missing] = -1
    return slot_of_copy


def assert_within(bits, truth, bound):
    missed = np.abs(from_bf16_bits(bits).astype(np.float64) - truth)
    assert (missed <= bound).all()  # NaN is not


# --- copy ---


@pytest.mark.parametrize("size_bytes", [1, 15, 16, 17, 4096, 16384, 16384 + 16, 3 * 16384 + 31])
def test_copy(device, thread_order, rng, size_bytes):
    source = rng.integers(0, 255, size_bytes).astype(np.uint8)  # never the poison
    target, fetched = device.output(size_bytes, np.uint8)
    device.cuda.copy(device.input(source), target, size_bytes)
    np.testing.assert_array_equal(fetched(), copy(source))


# --- dispatch ---


def quantised_on_device(device, x, slot_of_copy, slots):
    tokens, hidden = x.shape
    packed, fetched_codes = device.output((slots, hidden), np.uint8)
    scale, fetched_scale = device.output((slots, -(-hidden // 128)), np.float32)
    device.cuda.quantise_pack(
        device.input(x),
        device.input(slot_of_copy),
        packed,
        scale,
        tokens=tokens,
        hidden=hidden,
        copies=slot_of_copy.shape[1],
    )
    return QuantisedTokens(fetched_codes(), fetched_scale())


@pytest.mark.parametrize(
    ("tokens", "hidden", "copies"),
    [
        (1, 8, 1),
        (1, 136, 3),
        (2, 7168, 8),
        (3, 1000, 8),
        (5, 2048, 1),
        (37, 128, 2),
        (4, 264, 16),
        (3, 8, 19),
    ],
)
def test_quantise_pack(device, thread_order, rng, tokens, hidden, copies):
    x = drawn(rng, tokens, hidden)
    x[0, :128] = 0  # a tile of zeros
    slots = tokens * copies + 3
    slot_of_copy = drawn_slots(rng, tokens, copies, slots)
    packed = quantised_on_device(device, x, slot_of_copy, slots)
    # Slots without a copy are left as they were; scales are the truth's to the bit.
    expected = pack(quantise(x), slot_of_copy, slots, POISON)
    np.testing.assert_array_equal(packed.scale.view(np.uint32), expected.scale.view(np.uint32))
    has_copy = np.isin(np.arange(slots), slot_of_copy)
    np.testing.assert_array_equal(packed.codes[~has_copy], POISON)
    # What the codes stand for is as near as it can be.
    token, copy_index = np.nonzero(slot_of_copy >= 0)
    taken = slot_of_copy[token, copy_index]
    missed = np.abs(dequantised(packed)[taken] - from_bf16_bits(x).astype(np.float64)[token])
    assert (missed <= quantise_bound(x, quantise(x).scale)[token]).all()


def test_quantise_pack_rounds_every_midpoint_to_the_even_code(device):
    # All but minus zero, which becomes zero. With 448 in each tile the scale is 1. Midpoints of e4m3, and bf16's
    # numbers beside them, are exact in bf16.
    ladder = from_e4m3_bits(np.arange(0x7F, dtype=np.uint8)).astype(np.float64)
    middle = to_bf16_bits((ladder[:-1] + ladder[1:]) / 2)
    magnitudes = np.concatenate([to_bf16_bits(ladder), middle - 1, middle, middle + 1])
    values = np.concatenate([magnitudes, magnitudes[1:] | 0x8000])
    x = np.zeros((1, -(-len(values) // 127) * 128), np.uint16)
    tiles = x.reshape(-1, 128)
    tiles[:, 0] = to_bf16_bits(E4M3_MAX)
    tiles[:, 1:].flat = np.pad(values, (0, tiles[:, 1:].size - len(values)))
    packed = quantised_on_device(device, x, np.int32([[0]]), 1)
    np.testing.assert_array_equal(packed.scale, 1)
    np.testing.assert_array_equal(packed.codes[0], to_e4m3_bits(from_bf16_bits(x[0])))


def test_quantise_pack_takes_the_smallest_and_the_largest_numbers(device, rng):
    # A token for each of bf16's exponents: all finite numbers of bf16 pass through.
    magnitudes = np.arange(0x7F80, dtype=np.uint16).reshape(-1, 128)
    x = magnitudes | (rng.integers(0, 2, magnitudes.shape) << 15).astype(np.uint16)
    slot_of_copy = np.arange(len(x), dtype=np.int32)[:, None]
    packed = quantised_on_device(device, x, slot_of_copy, len(x))
    truth = quantise(x)
    np.testing.assert_array_equal(packed.scale, truth.scale)
    missed = np.abs(dequantised(packed) - from_bf16_bits(x).astype(np.float64))
    assert (missed <= quantise_bound(x, truth.scale)).all()
    assert (packed.codes == truth.codes).mean() > 0.99


def test_quantise_pack_divides_as_a_division_in_single_precision_does(device, rng):
    # Quotients in the middle of two codes are common: bf16's fractions are short, and 448 x / largest is often one.
    # The scale's rounding moves the exact quotient off the middle, and FP32's puts it back: there codes may differ
    # from the truth's, one in a thousand, but not from those of a division in FP32.
    x = drawn(rng, 32, 7168)
    slot_of_copy = np.arange(32, dtype=np.int32)[:, None]
    packed = quantised_on_device(device, x, slot_of_copy, 32)
    quotient = from_bf16_bits(x).reshape(32, 56, 128) / packed.scale[:, :, None]
    np.testing.assert_array_equal(packed.codes, to_e4m3_bits(quotient).reshape(32, 7168))
    assert (packed.codes != quantise(x).codes).mean() < 2e-3


# --- combine ---


@pytest.mark.parametrize(
    ("tokens", "hidden", "copies"),
    [(1, 8, 1), (3, 136, 3), (2, 7168, 8), (5, 1000, 8), (2, 2048, 17), (33, 8, 2)],
)
def test_combine(device, thread_order, rng, tokens, hidden, copies):
    slots = tokens * copies + 2
    rows = drawn(rng, slots, hidden)
    slot_of_copy = drawn_slots(rng, tokens, copies, slots)
    slot_of_copy[-1] = -1  # a token without any copy becomes zero
    weight = rng.random((tokens, copies)).astype(np.float32)
    # What no token owns must not be read: NaN would show.
    rows[~np.isin(np.arange(slots), slot_of_copy)] = 0x7FFF
    weight[slot_of_copy < 0] = np.nan
    out, fetched = device.output((tokens, hidden), np.uint16)
    device.cuda.combine(
        device.input(rows),
        device.input(slot_of_copy),
        device.input(weight),
        out,
        tokens=tokens,
        hidden=hidden,
        copies=copies,
    )
    bound = combine_bound(rows, slot_of_copy, weight)
    assert_within(fetched(), combine(rows, slot_of_copy, weight), bound)


# --- normalisation ---


@pytest.mark.parametrize(
    ("tokens", "hidden"),
    # one, two and four vectors a thread, with idle threads at the end and without; then too large for registers
    [(1, 8), (3, 136), (2, 1000), (4, 1032), (2, 2048), (1, 7168), (1, 16384), (2, 16392), (1, 20008)],
)
def test_rms_norm(device, thread_order, rng, tokens, hidden):
    x, residual, gamma = drawn(rng, tokens, hidden), drawn(rng, tokens, hidden), drawn(rng, hidden)
    x[0] = residual[0] = 0  # zero over the root of epsilon is zero
    x[-1] = drawn(rng, hidden)
    epsilon = 0.3  # large enough to be seen in bf16
    out, fetched_out = device.output((tokens, hidden), np.uint16)
    total, fetched_total = device.output((tokens, hidden), np.uint16)
    inputs = (device.input(array) for array in (x, residual, gamma))
    device.cuda.rms_norm(*inputs, out, total, tokens=tokens, hidden=hidden, epsilon=epsilon)
    truth, bound = rms_norm(x, residual, gamma, epsilon), rms_norm_bound(x, residual, gamma, epsilon)
    assert_within(fetched_out(), truth.out, bound.out)
    assert_within(fetched_total(), truth.total, bound.total)


# --- what the kernels refuse ---


@pytest.mark.parametrize(
    ("tokens", "hidden", "copies"), [(0, 8, 1), (1, 0, 1), (1, 12, 1), (1, 8, 0), (-1, 8, 1)]
)
def test_sizes_that_no_kernel_takes_are_refused(device, tokens, hidden, copies):
    memory, fetched = device.output(4096, np.uint8)
    with pytest.raises(CudaError, match=r"rp_quantise_pack: invalid argument \(CUDA error 1\)"):
        device.cuda.quantise_pack(memory, memory, memory, memory, tokens=tokens, hidden=hidden, copies=copies)
    with pytest.raises(CudaError, match="rp_combine: invalid argument"):
        device.cuda.combine(memory, memory, memory, memory, tokens=tokens, hidden=hidden, copies=copies)
    if copies == 1:
        with pytest.raises(CudaError, match="rp_rms_norm: invalid argument"):
            device.cuda.rms_norm(*[memory] * 5, tokens=tokens, hidden=hidden, epsilon=1e-6)
    np.testing.assert_array_equal(fetched(), POISON)


@pytest.mark.parametrize("epsilon", [-1e-6, float("nan")])
def test_an_epsilon_below_zero_is_refused(device, epsilon):
    memory, _ = device.output(4096, np.uint8)
    with pytest.raises(CudaError, match="rp_rms_norm: invalid argument"):
        device.cuda.rms_norm(*[memory] * 5, tokens=1, hidden=8, epsilon=epsilon)


def test_copying_nothing_is_refused(device):
    memory, _ = device.output(16, np.uint8)
    with pytest.raises(CudaError, match="rp_copy: invalid argument"):
        device.cuda.copy(memory, memory, 0)
