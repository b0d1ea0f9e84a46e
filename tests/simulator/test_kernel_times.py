from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.costs import catalogue, device_of, load_cost_table
from simulator.figures import Duration, Efficiency, Slowdown
from simulator.kernel_times import KernelCosts, KernelTimes, Listed, Shape, ShapeEffects
from topologies import NODES
from workloads.kernel_call import CallSequence
from workloads.kernel_calls import AnyKernelCall
from workloads.kernels import Attention, Gemm, LatentAttention
from workloads.streaming_kernels import Copy, Norm, Pack, Quantise

H800 = NODES["h800"].gpu
TABLE = load_cost_table("h800-published", Path())
LISTED = TABLE.kernels["gemm-fp8"].listed
TOLD = {"how": "assumed", "source": "a test"}


def entry(
    *, launch: str = "2 us", arithmetic: float | None = 0.5, bandwidth: float = 0.5, blend: float = 1.0
) -> KernelCosts:
    return KernelCosts(
        launch=Duration(value=launch, **TOLD),
        arithmetic=None if arithmetic is None else Efficiency(value=arithmetic, **TOLD),
        bandwidth=Efficiency(value=bandwidth, **TOLD),
        effects=ShapeEffects(tile_rows=1, ramp_depth=0.0, blend=blend, **TOLD),
    )


def alone(costs: KernelCosts, node: str = "h800") -> KernelTimes:
    return KernelTimes({"gemm-bf16": costs, "streaming": costs}, {}, None, device_of(NODES[node].gpu))


CALL = Gemm(rows=1000, columns=2000, depth=3000, format="bf16")


@pytest.mark.parametrize(("blend", "blended"), [(1.0, lambda c, m: c + m), (2.0, np.hypot)])
def test_the_roofline_by_hand(blend: float, blended):
    # At half of 989.4 TFLOP/s: 12e9 / 494.7e12; at half of 3.35 TB/s: 2 (3e6 + 6e6 + 2e6) / 1.675e12.
    expected = 2e-6 + blended(12e9 / 494.7e12, 22e6 / 1.675e12)
    cost = alone(entry(blend=blend)).cost(CALL)
    assert cost.seconds == pytest.approx(expected, rel=1e-12)
    assert (cost.how, cost.basis) == ("assumed", "roofline")


def test_a_device_brings_its_own_peaks():
    # An H200 has the H800's arithmetic and 4.8 / 3.35 of its memory bandwidth.
    costs = entry(launch="0 s")
    h800, h200 = (alone(costs, node).cost(Copy(size_bytes=10**9)).seconds for node in ("h800", "h200"))
    assert h800 / h200 == pytest.approx(4.8 / 3.35)
    bound = entry(launch="0 s", bandwidth=1.0, blend=100.0)
    products = [
        alone(bound, node).cost(Gemm(rows=8192, columns=8192, depth=8192, format="bf16"))
        for node in ("h800", "h200")
    ]
    assert products[0].seconds == pytest.approx(products[1].seconds)


def test_listed_shapes_are_reproduced_on_the_device_where_they_were_measured():
    times = TABLE.kernel_times(H800)
    for shape in LISTED.shapes:
        cost = times.cost(shape.call)
        assert shape.call.flops / cost.seconds == pytest.approx(shape.share * H800.peak_fp8, rel=1e-9)
        assert (cost.how, cost.basis) == ("published", "tabulated")


def test_what_a_shape_allows_by_hand():
    # One shape that took twice its roofline. Twice the rows take at most twice its time, and no less than it did.
    costs = entry(launch="0 s", bandwidth=1.0, blend=100.0)
    device = device_of(H800)
    shape = Shape(call=CALL, share=0.25)
    listed = costs.model_copy(update={"listed": Listed(how="measured", source="a test", shapes=(shape,))})
    times = KernelTimes({"gemm-bf16": listed}, {}, device, device)
    took = shape.seconds_on(device)
    assert took == pytest.approx(12e9 / (0.25 * 989.4e12))
    assert times.cost(CALL).seconds == pytest.approx(took)
    near = times.cost(Gemm(rows=1200, columns=2000, depth=3000, format="bf16"))
    assert near.seconds == pytest.approx(took)  # its roofline is 0.6 of that: the shape holds it up
    assert near.basis == "extrapolated"
    smaller = times.cost(Gemm(rows=500, columns=2000, depth=3000, format="bf16"))
    assert smaller.seconds == pytest.approx(took / 2)
    far = Gemm(rows=4000, columns=2000, depth=3000, format="bf16")
    assert times.cost(far).seconds == pytest.approx(alone(costs).cost(far).seconds, rel=1e-9)


def test_beside_communication_fewer_sms_compute_and_all_is_slower():
    costs = entry(blend=1.0)
    slower = {"gemm-bf16": Slowdown(value=1.5, **TOLD), "streaming": Slowdown(value=1.25, **TOLD)}
    times = KernelTimes({"gemm-bf16": costs, "streaming": costs}, slower, None, device_of(H800))
    arithmetic_s, memory_s = 12e9 / 494.7e12, 22e6 / 1.675e12
    expected = 2e-6 + 1.5 * (arithmetic_s * 132 / 112 + memory_s)
    assert times.cost(CALL, 20).seconds == pytest.approx(expected, rel=1e-12)
    # bytes need no SMs of their own: only the slowdown counts
    assert times.cost(Copy(size_bytes=10**6), 20).seconds == pytest.approx(2e-6 + 1.25 * 2e6 / 1.675e12)
    assert times.cost(CALL, 0).seconds == alone(costs).cost(CALL).seconds


def test_what_a_table_lacks_is_named():
    times = alone(entry())
    with pytest.raises(
        LookupError, match=r"no costs of the kernel 'attention' \(it has gemm-bf16, streaming\)"
    ):
        times.cost(Attention(requests=1, cached_tokens=8.0, heads=1, kv_heads=1, key_width=8, value_width=8))
    with pytest.raises(LookupError, match="no slowdown beside communication of the kernel 'norm'"):
        times.cost(Norm(rows=1, width=8), 20)
    with pytest.raises(ValueError, match=r"132 of the 132 SMs of the H800 SXM5; .* at most half, 66"):
        KernelTimes(
            {"streaming": entry()}, {"streaming": Slowdown(value=1.0, **TOLD)}, None, device_of(H800)
        ).cost(Norm(rows=1, width=8), 132)


def test_what_is_not_listed_itself_costs_what_is_alike():
    # A norm has no entry of its own, streaming stands for it; a table with one of its own is preferred.
    times = TABLE.kernel_times(H800)
    norm, copy = Norm(rows=4096, width=7168), Copy(size_bytes=2 * 4096 * 7168 * 2)
    assert times.cost(norm).seconds == pytest.approx(times.cost(copy).seconds, rel=1e-3)
    own = {**TABLE.kernels, "norm": entry(arithmetic=None)}
    changed = KernelTimes(own, {}, TABLE.device, device_of(H800))
    assert changed.cost(norm).seconds > 1.5 * times.cost(norm).seconds
    assert changed.cost(copy).seconds == times.cost(copy).seconds


# Laws

SIZE = st.integers(1, 40_000)
FEW = st.integers(1, 300)


@st.composite
def calls(draw) -> AnyKernelCall:
    kind = draw(st.sampled_from(["gemm", "latent", "attention", "quantise", "pack"]))
    match kind:
        case "gemm":
            # often one of the listed sizes or next to one, where bounds meet the roofline
            near = draw(st.sampled_from(LISTED.shapes)).call
            sizes = [
                max(1, draw(st.sampled_from([size, size - 1, size + 1]) | SIZE)) for size in near.sizes[1:]
            ]
            rows, columns, depth = map(int, sizes)
            return Gemm(rows=rows, columns=columns, depth=depth, groups=draw(st.integers(1, 9)), format="fp8")
        case "latent":
            return LatentAttention(
                requests=draw(FEW),
                cached_tokens=float(draw(SIZE) + 8),
                query_tokens=draw(st.integers(1, 4)),
                heads=draw(FEW),
            )
        case "attention":
            kv_heads = draw(st.integers(1, 8))
            return Attention(
                requests=draw(FEW),
                cached_tokens=float(draw(SIZE) + 300),
                query_tokens=draw(FEW),
                heads=kv_heads * draw(st.integers(1, 16)),
                kv_heads=kv_heads,
                key_width=draw(FEW),
                value_width=draw(FEW),
            )
        case "quantise":
            return Quantise(rows=draw(SIZE), width=draw(SIZE))
    return Pack(tokens=draw(SIZE), rows=draw(SIZE), width=draw(SIZE))


SIZES = {
    "gemm": ("rows", "columns", "depth", "groups"),
    "latent-attention": ("requests", "cached_tokens", "heads"),
    "attention": ("requests", "cached_tokens", "key_width", "value_width"),
    "quantise": ("rows", "width"),
    "pack": ("tokens", "rows", "width"),
}
TIMES = {
    (name, node, sms): load_cost_table(name, Path()).kernel_times(NODES[node].gpu)
    for name, node, sms in [
        ("h800-published", "h800", 0),
        ("h800-published", "h200", 20),
        ("roofline", "gb200-nvl72", 0),
    ]
}


@given(call=calls(), data=st.data())
@pytest.mark.parametrize("where", TIMES)
def test_no_cost_falls_as_a_size_grows(call, data, where):
    name = data.draw(st.sampled_from(SIZES[call.kind]))
    grown = call.model_copy(update={name: getattr(call, name) + data.draw(st.sampled_from([1, 7, 1000]))})
    times, sms = TIMES[where], where[2]
    assert times.cost(grown, sms).seconds >= times.cost(call, sms).seconds * (1 - 1e-12)


@given(call=calls(), data=st.data())
@pytest.mark.parametrize("where", TIMES)
def test_no_cost_jumps_as_a_size_grows(call, data, where):
    # A size larger by a share f costs at most f more, at the edges of the listed shapes as anywhere: no kernel's
    # bytes or FLOPs grow faster, but for tiles of 128 values begun anew, and for cached tokens: with as many queries
    # half of the pairs are hidden, so that another token adds up to twice its share.
    name = data.draw(st.sampled_from(SIZES[call.kind]))
    if call.kind in {"quantise", "pack"} and name == "width":
        return
    size = getattr(call, name)
    grown = call.model_copy(update={name: size + 1})
    times, sms = TIMES[where], where[2]
    share = (2 if name == "cached_tokens" else 1) / size
    assert times.cost(grown, sms).seconds <= times.cost(call, sms).seconds * (1 + share) * (1 + 1e-12)


@pytest.mark.parametrize("name", catalogue())
@given(call=calls())
def test_no_cost_beats_the_peaks(name: str, call):
    times = load_cost_table(name, Path()).kernel_times(H800)
    peak = {"fp8": H800.peak_fp8, "bf16": H800.peak_bf16}
    least_s = call.moved_bytes / H800.memory_bandwidth
    if call.arithmetic is not None:
        least_s = max(least_s, call.flops / peak[call.arithmetic])
    assert times.cost(call).seconds >= least_s * (1 - 1e-9)


# Listed shapes bind their own variant alone


def listing(costs: KernelCosts, *shapes: Shape) -> KernelCosts:
    return costs.model_copy(update={"listed": Listed(how="measured", source="a test", shapes=shapes)})


LATENT = LatentAttention(requests=8, cached_tokens=4096.0, heads=16)
FORWARD = Attention(
    requests=1, query_tokens=64, cached_tokens=64.0, heads=4, kv_heads=4, key_width=8, value_width=8
)


@pytest.mark.parametrize(
    ("call", "other"),
    [
        (LATENT, LATENT.model_copy(update={"latent": 5120})),
        (FORWARD, FORWARD.model_copy(update={"backward": True})),
        (FORWARD, FORWARD.model_copy(update={"causal": False})),
        (Pack(tokens=64, rows=512, width=7168), Pack(tokens=64, rows=512, width=7168, to_format="bf16")),
        (CALL, CALL.model_copy(update={"accumulate": True})),
        (Quantise(rows=64, width=7168), Quantise(rows=64, width=7168, from_format="fp8")),
    ],
    ids=lambda call: call.kind,
)
def test_a_listed_shape_binds_no_other_variant(call, other):
    computes = call.arithmetic is not None
    costs = entry(arithmetic=0.5 if computes else None)
    name = call.cost_names[0]
    shape = Shape(call=call, share=0.001)
    plain = KernelTimes({name: costs}, {}, None, device_of(H800))
    listed = KernelTimes({name: listing(costs, shape)}, {}, device_of(H800), device_of(H800))
    assert listed.cost(call).seconds == pytest.approx(shape.seconds_on(device_of(H800)))
    assert listed.cost(call).basis == "tabulated"
    assert listed.cost(other) == plain.cost(other)
    assert listed.cost(other).basis == "roofline"


def test_a_listed_shape_on_another_device_or_beside_communication_is_scaled():
    shape = LISTED.shapes[0]
    here = TABLE.kernel_times(H800)
    there = TABLE.kernel_times(NODES["h200"].gpu)
    assert (here.cost(shape.call).how, here.cost(shape.call).basis) == ("published", "tabulated")
    # the published share of an H200's own peak: more memory bandwidth, and so more of it where that binds
    assert (there.cost(shape.call).how, there.cost(shape.call).basis) == ("published", "scaled")
    assert there.cost(shape.call).seconds < here.cost(shape.call).seconds
    # the slowdown beside communication is fitted, and the weakest figure counts
    assert (here.cost(shape.call, 20).how, here.cost(shape.call, 20).basis) == ("fitted", "scaled")


def test_a_call_that_a_listed_shape_holds_rests_on_it():
    near = Gemm(rows=1200, columns=2000, depth=3000, format="bf16")
    costs = entry(launch="0 s", bandwidth=1.0, blend=100.0)
    held = KernelTimes(
        {"gemm-bf16": listing(costs, Shape(call=CALL, share=0.25))}, {}, device_of(H800), device_of(H800)
    )
    assert held.cost(near).how == "measured"
    free = Gemm(rows=4000, columns=2000, depth=3000, format="bf16")
    assert held.cost(free).how == "assumed"


def test_where_the_longer_hides_the_shorter_it_alone_counts():
    costs = entry(launch="0 s").model_copy(
        update={"effects": ShapeEffects(tile_rows=1, ramp_depth=0.0, blend=None, **TOLD)}
    )
    assert alone(costs).cost(CALL).seconds == pytest.approx(12e9 / 494.7e12, rel=1e-15)


def test_more_queries_never_cost_less_below_a_tile():
    # Sixteen causal queries have fewer pairs each than one, but fill the same tile.
    costs = entry(arithmetic=0.3, bandwidth=1.0, blend=30.0)
    costs = costs.model_copy(
        update={"effects": ShapeEffects(tile_rows=64, ramp_depth=0.0, blend=30.0, **TOLD)}
    )
    times = KernelTimes({"latent-attention": costs}, {}, None, device_of(H800))
    calls = [LatentAttention(requests=500, cached_tokens=64.0, query_tokens=q, heads=1) for q in range(1, 65)]
    seconds = [times.cost(call).seconds for call in calls]
    assert seconds == sorted(seconds)


def test_a_sequence_costs_its_parts():
    parts = (CALL, Copy(size_bytes=10**6), CALL)
    times = alone(entry())
    cost = times.cost(CallSequence("both", parts))
    assert cost.seconds == pytest.approx(sum(times.cost(part).seconds for part in parts))
    assert cost.how == "assumed"
