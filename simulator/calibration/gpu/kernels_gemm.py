"""Matrix products through cuBLASLt, dense and grouped, in each format of operands."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from simulator.calibration.gpu.build import MissingTool
from simulator.calibration.gpu.cases import Shape
from simulator.calibration.gpu.draws import Draw
from simulator.calibration.gpu.gemm_library import GemmFormat
from simulator.calibration.gpu.kernel import (
    BF16,
    Array,
    Bench,
    Call,
    Comparison,
    DeviceArrays,
    HostArrays,
    Output,
    Products,
)
from simulator.calibration.gpu.truth_formats import from_bf16_bits, from_e4m3_bits
from simulator.calibration.gpu.truth_gemm import (
    TILE,
    Bound,
    bf16_bound,
    fp8_bound,
    padded_tiles,
    product,
    with_blocks,
    with_row_tiles,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Operands:
    """A format of A and B.

    draw: (m, n, k, where from) to the arrays "a" [m, k], "b" [n, k] and, where there are scales, "scale_a", "scale_b"
    meant: those arrays to A and B in float64, scales included
    bound: A and B in float64 to how far the product may be off
    operand_bytes: (m, n, k) to the bytes of A, B and their scales
    """

    name: str
    format: GemmFormat
    draw: Callable[[int, int, int, Draw], HostArrays]
    meant: Callable[[HostArrays], tuple[Array, Array]]
    bound: Callable[[Array, Array], Bound]
    operand_bytes: Callable[[int, int, int], int]


def _draw_bf16(m: int, n: int, k: int, draw: Draw) -> HostArrays:
    return {"a": draw.bf16(m, k), "b": draw.bf16(n, k)}


def _draw_fp8(m: int, n: int, k: int, draw: Draw) -> HostArrays:
    return {"a": draw.e4m3(m, k), "b": draw.e4m3(n, k), "scale_a": draw.scales(1), "scale_b": draw.scales(1)}


def _draw_fp8_block(m: int, n: int, k: int, draw: Draw) -> HostArrays:
    scale_a = draw.scales(_tiles(k), m)
    scale_b = draw.scales(_tiles(n), padded_tiles(k))
    return {"a": draw.e4m3(m, k), "b": draw.e4m3(n, k), "scale_a": scale_a, "scale_b": scale_b}


def _meant_bf16(arrays: HostArrays) -> tuple[Array, Array]:
    return from_bf16_bits(arrays["a"]).astype(float), from_bf16_bits(arrays["b"]).astype(float)


def _meant_fp8(arrays: HostArrays) -> tuple[Array, Array]:
    a, b = _codes_meant(arrays)
    return a * float(arrays["scale_a"][0]), b * float(arrays["scale_b"][0])


def _meant_fp8_block(arrays: HostArrays) -> tuple[Array, Array]:
    a, b = _codes_meant(arrays)
    scale_a, scale_b = arrays["scale_a"].astype(float), arrays["scale_b"].astype(float)
    return with_row_tiles(a, scale_a), with_blocks(b, scale_b)


def _codes_meant(arrays: HostArrays) -> tuple[Array, Array]:
    return from_e4m3_bits(arrays["a"]).astype(float), from_e4m3_bits(arrays["b"]).astype(float)


def _tiles(num_values: int) -> int:
    return -(-num_values // TILE)


def _scale_bytes(m: int, n: int, k: int) -> int:
    """Return the bytes of FP32 scales of A's 1 x 128 tiles and B's 128 x 128 blocks, padding not counted."""
    return 4 * _tiles(k) * (m + _tiles(n))


OPERANDS: Final = (
    Operands(
        "bf16", GemmFormat.BF16, _draw_bf16, _meant_bf16, bf16_bound, lambda m, n, k: 2 * (m * k + n * k)
    ),
    Operands(
        "fp8", GemmFormat.FP8, _draw_fp8, _meant_fp8, fp8_bound, lambda m, n, k: m * k + n * k + 8
    ),
    Operands(
        "fp8-block",
        GemmFormat.FP8_BLOCK,
        _draw_fp8_block,
        _meant_fp8_block,
        fp8_bound,
        lambda m, n, k: m * k + n * k + _scale_bytes(m, n, k),
    ),
)  # fmt: skip


class Gemm:
    """D[m, n] = A[m, k] B[n, k]^T, BF16 out, as one call of cuBLASLt.

    flops: 2 m n k. bytes: A, B and their scales read once, D written once.
    """

    def __init__(self, operands: Operands) -> None:
        self.name = f"gemm-{operands.name}"
        self._operands = operands

    def note(self, _: Shape) -> str:
        """Return nothing: a call is one library call."""
        return ""

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return operands, and scales where the format has them."""
        return self._operands.draw(shape["m"], shape["n"], shape["k"], draw)

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return D."""
        return {"d": Output((shape["m"], shape["n"]), BF16)}

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that computes D."""
        library, workspace = _products_of(bench)
        m, n, k = shape["m"], shape["n"], shape["k"]
        with library.plan(self._operands.format, m=m, n=n, k=k, workspace=workspace) as plan:
            given = [arrays.get(name) for name in ("scale_a", "scale_b")]
            yield lambda: plan.run(arrays["a"], arrays["b"], arrays["d"], *given)

    def compare(self, _: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield D beside the product in float64."""
        a, b = self._operands.meant(inputs)
        bound = self._operands.bound(a, b)
        yield Comparison(
            "d", from_bf16_bits(found["d"]).astype(float), product(a, b), bound.element, bound.norm
        )

    def flops(self, shape: Shape) -> int:
        """Return 2 m n k."""
        return 2 * shape["m"] * shape["n"] * shape["k"]

    def bytes(self, shape: Shape) -> int:
        """Return the bytes of A, B, their scales and D."""
        m, n, k = shape["m"], shape["n"], shape["k"]
        return self._operands.operand_bytes(m, n, k) + 2 * m * n


class GroupedGemm:
    """A product of each of several groups, m rows each, as a loop of calls of cuBLASLt, one a group.

    flops, bytes: those of the products together.
    """

    def __init__(self, operands: Operands) -> None:
        self.name = f"grouped-gemm-{operands.name}"
        self._operands = operands
        self._product = Gemm(operands)

    def note(self, shape: Shape) -> str:
        """Return that a call is a loop."""
        return f"loop of {shape['groups']} library calls"

    def inputs(self, shape: Shape, draw: Draw) -> HostArrays:
        """Return the operands of each group: "a0", "b0", "a1", ..."""
        drawn: HostArrays = {}
        for group in range(shape["groups"]):
            of_group = self._product.inputs(shape, draw)
            drawn |= {f"{name}{group}": array for name, array in of_group.items()}
        return drawn

    def outputs(self, shape: Shape) -> dict[str, Output]:
        """Return D of each group: "d0", "d1", ..."""
        one = self._product.outputs(shape)["d"]
        return {f"d{group}": one for group in range(shape["groups"])}

    @contextmanager
    def bound_call(self, bench: Bench, shape: Shape, arrays: DeviceArrays) -> Iterator[Call]:
        """Yield a call that computes D of each group in turn."""
        with ExitStack() as held:
            calls = [
                held.enter_context(self._product.bound_call(bench, shape, _of_group(arrays, group)))
                for group in range(shape["groups"])
            ]

            def loop() -> None:
                for call in calls:
                    call()

            yield loop

    def compare(self, shape: Shape, inputs: HostArrays, found: HostArrays) -> Iterator[Comparison]:
        """Yield D of each group beside its product in float64."""
        for group in range(shape["groups"]):
            for comparison in self._product.compare(shape, _of_group(inputs, group), _of_group(found, group)):
                yield comparison._replace(output=f"{comparison.output}{group}")

    def flops(self, shape: Shape) -> int:
        """Return 2 m n k of each group."""
        return shape["groups"] * self._product.flops(shape)

    def bytes(self, shape: Shape) -> int:
        """Return the bytes of the operands, scales and results of all groups."""
        return shape["groups"] * self._product.bytes(shape)


def _of_group(arrays: Mapping[str, T], group: int) -> dict[str, T]:
    """Return the arrays of one group under their names in a single product."""
    end = str(group)
    names = ("a", "b", "d", "scale_a", "scale_b")
    return {name: arrays[name + end] for name in names if name + end in arrays}


def _products_of(bench: Bench) -> Products:
    if bench.products is None:
        raise MissingTool("products of matrices need cuBLASLt, and this run is without it")
    return bench.products
