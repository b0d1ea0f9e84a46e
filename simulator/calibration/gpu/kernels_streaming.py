"""The memory-bound kernels: copy, quantisation with packing (dispatch), weighted sum (combine), normalisation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from simulator.calibration.gpu import truth_streaming as truth
from simulator.calibration.gpu.cases import Shape
from simulator.calibration.gpu.draws import Draw
from simulator.calibration.gpu.kernel import (
    BF16,
    E4M3,
    Array,
    Bench,
    Call,
    Comparison,
    DeviceArrays,
    HostArrays,
    Output,
)
from simulator.calibration.gpu.truth_formats import from_bf16_bits

EPSILON: Final = 1e-6
# A scale is one quotient in FP32, or a product with the reciprocal that was rounded before.
SCALE_ERROR: Final = 2.0**-22
UNTOUCHED: Final = 0xFF  # what outputs are poisoned with


class _OneLaunch:
    def note(self, _: Shape) -> str:
        """Return nothing: a call is one launch."""
        return ""


class Copy(_OneLaunch):
    """A copy, for the bandwidth that others are compared with.

    flops: 0. bytes: each byte read once and written once.
    """

    name = "copy"

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return the source."""
        return {"source": draw.e4m3(shape["bytes"])}

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return the target."""
        return {"target": Output((shape["bytes"],), np.uint8)}

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that copies."""
        yield lambda: bench.cuda.copy(arrays["source"], arrays["target"], shape["bytes"])

    def compare(self, _: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield the bytes, which must be the same; no byte of the source is the poison, which e4m3 has as NaN."""
        source = truth.copy(inputs["source"]).astype(float)
        yield comparison("target", found["target"].astype(float), source, np.zeros_like(source))

    def flops(self, _: Shape) -> int:
        """Return 0."""
        return 0

    def bytes(self, shape: Shape) -> int:
        """Return twice the copied bytes."""
        return 2 * shape["bytes"]


class Quantise(_OneLaunch):
    """Tokens quantised by tiles of 128 to e4m3 and packed into the slots of their copies, as dispatch sends them.

    flops: 0. bytes: x [tokens, hidden] BF16 and the slots read once; of each copy, hidden codes and a scale in FP32
    of each tile written once.
    """

    name = "quantise"

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return tokens and the slot of each copy."""
        return {
            "x": draw.bf16(shape["tokens"], shape["hidden"]),
            "slot_of_copy": draw.slots(shape["tokens"], shape["copies"]),
        }

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return codes and scales of each slot."""
        slots = shape["tokens"] * shape["copies"]
        return {
            "packed": Output((slots, shape["hidden"]), E4M3),
            "scale": Output((slots, _tiles(shape)), np.float32),
        }

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that quantises and packs."""
        yield lambda: bench.cuda.quantise_pack(
            arrays["x"], arrays["slot_of_copy"], arrays["packed"], arrays["scale"], **shape
        )

    def compare(self, _: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield the scales and what the codes stand for in slots that have a copy; that others are as before."""
        x, slot_of_copy = inputs["x"], inputs["slot_of_copy"]
        token, copy_index = np.nonzero(slot_of_copy >= 0)
        slot = slot_of_copy[token, copy_index]
        right = truth.quantise(x)
        scale = right.scale[token].astype(float)
        yield comparison("scale", found["scale"][slot].astype(float), scale, SCALE_ERROR * scale)
        meant = truth.dequantised(truth.QuantisedTokens(found["packed"][slot], found["scale"][slot]))
        bound = truth.quantise_bound(x, right.scale)[token]
        yield comparison("packed", meant, from_bf16_bits(x).astype(float)[token], bound)
        is_free = np.ones(len(found["packed"]), np.bool_)
        is_free[slot] = False
        for name in ("packed", "scale"):
            kept = found[name][is_free].view(np.uint8).astype(float)
            before = np.full_like(kept, UNTOUCHED)
            yield comparison(f"{name} of slots without a copy", kept, before, np.zeros_like(kept))

    def flops(self, _: Shape) -> int:
        """Return 0."""
        return 0

    def bytes(self, shape: Shape) -> int:
        """Return the bytes of tokens, slots, codes and scales."""
        tokens, copies, hidden = shape["tokens"], shape["copies"], shape["hidden"]
        return tokens * (2 * hidden + copies * (4 + hidden + 4 * _tiles(shape)))


class Combine(_OneLaunch):
    """Each token as the weighted sum of its copies' rows, in FP32, as combine ends.

    flops: 2 of each value of each copy. bytes: the rows [tokens x copies, hidden] BF16, slots and weights read once;
    the result [tokens, hidden] BF16 written once.
    """

    name = "combine"

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return the rows that came back, the slot of each copy and its weight."""
        tokens, copies = shape["tokens"], shape["copies"]
        return {
            "rows": draw.bf16(tokens * copies, shape["hidden"]),
            "slot_of_copy": draw.slots(tokens, copies),
            "weight": draw.normal(tokens, copies),
        }

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return the sums."""
        return {"out": Output((shape["tokens"], shape["hidden"]), BF16)}

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that sums."""
        yield lambda: bench.cuda.combine(
            arrays["rows"], arrays["slot_of_copy"], arrays["weight"], arrays["out"], **shape
        )

    def compare(self, _: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield the sums beside those in float64."""
        given = (inputs["rows"], inputs["slot_of_copy"], inputs["weight"])
        out = from_bf16_bits(found["out"]).astype(float)
        yield comparison("out", out, truth.combine(*given), truth.combine_bound(*given))

    def flops(self, shape: Shape) -> int:
        """Return 2 of each value of each copy."""
        return 2 * shape["tokens"] * shape["copies"] * shape["hidden"]

    def bytes(self, shape: Shape) -> int:
        """Return the bytes of rows, slots, weights and sums."""
        tokens, copies, hidden = shape["tokens"], shape["copies"], shape["hidden"]
        return tokens * (copies * (2 * hidden + 8) + 2 * hidden)


class Norm(_OneLaunch):
    """The residual added, and the sum normalised by its root mean square.

    flops: 5 of each value: the addition, its square summed, two products. bytes: x and residual [tokens, hidden] and
    gamma [hidden] read once, the sum and the normalised sum written once, all BF16.
    """

    name = "norm"

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return tokens, residuals and gamma."""
        size = (shape["tokens"], shape["hidden"])
        return {"x": draw.bf16(*size), "residual": draw.bf16(*size), "gamma": draw.bf16(shape["hidden"])}

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return the normalised sum and the sum."""
        size = (shape["tokens"], shape["hidden"])
        return {"out": Output(size, BF16), "total": Output(size, BF16)}

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that adds and normalises."""
        yield lambda: bench.cuda.rms_norm(
            arrays["x"],
            arrays["residual"],
            arrays["gamma"],
            arrays["out"],
            arrays["total"],
            **shape,
            epsilon=EPSILON,
        )

    def compare(self, _: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield both results beside those in float64."""
        given = (inputs["x"], inputs["residual"], inputs["gamma"], EPSILON)
        right, bound = truth.rms_norm(*given), truth.rms_norm_bound(*given)
        yield comparison("out", from_bf16_bits(found["out"]).astype(float), right.out, bound.out)
        yield comparison("total", from_bf16_bits(found["total"]).astype(float), right.total, bound.total)

    def flops(self, shape: Shape) -> int:
        """Return 5 of each value."""
        return 5 * shape["tokens"] * shape["hidden"]

    def bytes(self, shape: Shape) -> int:
        """Return the bytes of tokens, residuals, gamma and both results."""
        return 2 * shape["hidden"] * (4 * shape["tokens"] + 1)


def comparison(output: str, found: Array, right: Array, bound: Array) -> Comparison:
    """Return a comparison whose norm may be off by no more than if each element were off by its bound."""
    size = float(np.linalg.norm(right))
    return Comparison(output, found, right, bound, float(np.linalg.norm(bound)) / size if size else 0.0)


def _tiles(shape: Shape) -> int:
    return -(-shape["hidden"] // truth.TILE_VALUES)
