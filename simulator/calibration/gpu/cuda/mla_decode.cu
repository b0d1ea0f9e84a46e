// Attention of one new token of each request to its latent cache, in absorbed form, over pages of 64 tokens.
//
// A block takes a group of a request's heads and a range of its cached tokens, tile by tile (mla_block.cuh). Where a
// request is split into several ranges, each leaves sums that are not normalised, and a second kernel weighs them.
//
// What to expect of a Hopper GPU (132 SMs, 1.7 GHz); reasoned from counts, not measured. A head and a cached token cost
// 2 x 576 + 2 x 512 = 2,176 FLOP. mma.sync does some 2,500 of the 4,096 FLOP a clock and SM that only wgmma reaches;
// shared memory moves 128 bytes a clock.
//
// 128 heads: two groups of 64, tiles of 64 tokens, 8.9 MFLOP a tile.
//     tensor cores    scores 4.7 MFLOP, 1,890 clocks; values 4.2 MFLOP, 1,680 clocks
//     shared memory   scores: 8 warps x (32 + 32 rows) x 288 deep, 2,300 clocks; values: 8 x (64 + 64) x 64, 1,020;
//                     fetched rows 580; partial scores there and back 260
//   With 16 x 32 scores a warp and the full depth (no two depth groups) the scores would cost 3,460 clocks of shared
//   memory; with 64 x 32 and four groups what is saved in reading is spent in exchanging.
//   First half of the values: 840 clocks, tensor cores. Second half and the scores beside it: shared memory, 3,200 with
//   the fetched rows. Exchange, softmax and five barriers, under which the tensor cores idle: 700. In all 4,750 clocks,
//   1,880 FLOP a clock: 420 TFLOP/s, or 400 as 128 requests are 256 blocks in two waves of 132.
//   Each group reads all rows: at 400 TFLOP/s 3.3 TB/s from L2, half that from memory while groups run side by side.
//
// 16 heads: one group, tiles of 32 tokens, two blocks an SM. A tile is 36,864 bytes, 1,780 clocks of an SM's share of
//   4.8 TB/s (H200; 2,550 of 3.35, H100). It costs 450 clocks of tensor cores and 1,250 of shared memory; a block alone
//   needs some 1,100 clocks of dependent steps and waits for memory for as long or twice that, so that two are enough.
//
// Registers a thread, without spills: 255 (64 heads), 127 (32), 116 (16), of 255, 128 and 128.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <launch.cuh>
#include <mla_block.cuh>
#include <mla_shape.cuh>
#include <mla_splits.cuh>
#include <ptx.cuh>

namespace mla {

struct Problem {
    const __nv_bfloat16* query;       // [requests, heads, ROW]
    const __nv_bfloat16* cache;       // [pages, PAGE_TOKENS, ROW]
    const int* page_table;            // [requests, max_pages]
    const int* cached_tokens;         // [requests]
    __nv_bfloat16* out;               // [requests, heads, LATENT]
    float* partial_values;            // [requests, splits, heads, LATENT], not normalised
    float* partial_references;        // [requests, splits, heads] exponents of two
    float* partial_sums;              // [requests, splits, heads] of weights
    unsigned requests, heads, splits;
    std::int64_t max_pages;
    float log2_scale;
};

// Which part of the problem a block has: a request's head groups lie side by side, so that they share its rows in L2.
template <class S>
struct Part {
    unsigned request, split, first_head;
    int num_heads;
    std::int64_t first_row;   // of the block's heads among [requests, splits, heads]

    __device__ __forceinline__ Part(const Problem& problem, unsigned block) {
        const unsigned groups = (problem.heads + S::heads - 1) / S::heads;
        const unsigned range = block / groups;
        first_head = block % groups * S::heads;
        num_heads = static_cast<int>(min(problem.heads - first_head, static_cast<unsigned>(S::heads)));
        split = range % problem.splits;
        request = range / problem.splits;
        first_row = std::int64_t{range} * problem.heads + first_head;
    }
};

template <class S>
__device__ __forceinline__ Work work_of(const Problem& problem, const Part<S>& part) {
    const int num_tokens = problem.cached_tokens[part.request];
    const std::int64_t tiles = (num_tokens + S::tokens - 1) / S::tokens;
    const std::int64_t first_row = std::int64_t{part.request} * problem.heads + part.first_head;
    return {.query = problem.query + first_row * ROW,
            .cache = problem.cache,
            .pages = problem.page_table + part.request * problem.max_pages,
            .num_heads = part.num_heads,
            .num_tokens = num_tokens,
            .first_tile = static_cast<int>(tiles * part.split / problem.splits),
            .end_tile = static_cast<int>(tiles * (part.split + 1) / problem.splits),
            .log2_scale = problem.log2_scale};
}

// No token, no weight: zeros.
__device__ __forceinline__ float inverse(float sum) { return sum == 0 ? 0 : 1 / sum; }

template <class S>
__device__ __forceinline__ void store_out(const Block<S>& block, const Problem& problem, const Part<S>& part) {
    __nv_bfloat16* out = problem.out + (std::int64_t{part.request} * problem.heads + part.first_head) * LATENT;
    block.for_each_row(part.num_heads, [&](int head, int first, const float2(&sums)[S::column_tiles]) {
        const float factor = inverse(block.sum_of(head));
#pragma unroll
        for (int column = 0; column < S::column_tiles; ++column)
            *reinterpret_cast<std::uint32_t*>(out + first + column * 8) =
                pack_bf16(sums[column].x * factor, sums[column].y * factor);
    });
}

template <class S>
__device__ __forceinline__ void store_partial(const Block<S>& block, const Problem& problem, const Part<S>& part) {
    float* values = problem.partial_values + part.first_row * LATENT;
    block.for_each_row(part.num_heads, [&](int, int first, const float2(&sums)[S::column_tiles]) {
#pragma unroll
        for (int column = 0; column < S::column_tiles; ++column)
            *reinterpret_cast<float2*>(values + first + column * 8) = sums[column];
    });
    const int head = static_cast<int>(threadIdx.x);
    if (head >= part.num_heads) return;
    problem.partial_references[part.first_row + head] = block.reference_of(head);
    problem.partial_sums[part.first_row + head] = block.sum_of(head);
}

template <class S>
__global__ void __launch_bounds__(NUM_THREADS, S::blocks_per_sm) attend(const Problem problem) {
    const Work work = work_of<S>(problem, Part<S>(problem, block_index()));
    Block<S> block{work, dynamic_shared()};
    if (work.first_tile < work.end_tile) block.attend();
    block.give_statistics();
    const Part<S> part(problem, block_index());
    if (problem.splits == 1) store_out<S>(block, problem, part);
    else store_partial<S>(block, problem, part);
}

constexpr int COMBINE_COLUMNS = 4;   // of a thread
constexpr int COMBINE_THREADS = LATENT / COMBINE_COLUMNS;

// Weigh the partial results of one head of one request by their references, and normalise.
__global__ void __launch_bounds__(COMBINE_THREADS) combine_splits(const Problem problem) {
    const unsigned request = blockIdx.x / problem.heads, head = blockIdx.x % problem.heads;
    const std::int64_t first_row = std::int64_t{request} * problem.splits * problem.heads + head;
    float greatest = -INFINITY;
    for (unsigned split = 0; split < problem.splits; ++split)
        greatest = fmaxf(greatest, problem.partial_references[first_row + std::int64_t{split} * problem.heads]);
    float sum = 0;
    float4 values = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (unsigned split = 0; split < problem.splits; ++split) {
        const std::int64_t row = first_row + std::int64_t{split} * problem.heads;
        const float reference = problem.partial_references[row];
        const bool is_empty = reference == -INFINITY;   // fewer tiles than splits
        const float weight = is_empty ? 0 : power_of_two(reference - greatest);
        const float4 part = reinterpret_cast<const float4*>(problem.partial_values + row * LATENT)[threadIdx.x];
        sum += weight * problem.partial_sums[row];
        values.x += weight * part.x, values.y += weight * part.y;
        values.z += weight * part.z, values.w += weight * part.w;
    }
    const float factor = inverse(sum);
    const uint2 out = make_uint2(pack_bf16(values.x * factor, values.y * factor),
                                 pack_bf16(values.z * factor, values.w * factor));
    reinterpret_cast<uint2*>(problem.out + std::int64_t{blockIdx.x} * LATENT)[threadIdx.x] = out;
}

template <class S>
int launch_attend(const Problem& problem) {
    const std::int64_t groups = (std::int64_t{problem.heads} + S::heads - 1) / S::heads;
    const std::int64_t blocks = std::int64_t{problem.requests} * problem.splits * groups;
    if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
    return launch(attend<S>, dim3(static_cast<unsigned>(blocks)), dim3(NUM_THREADS), S::shared_bytes, problem);
}

int decode(const Problem& problem) {
    const int error = problem.heads <= UpTo16Heads::heads   ? launch_attend<UpTo16Heads>(problem)
                      : problem.heads <= UpTo32Heads::heads ? launch_attend<UpTo32Heads>(problem)
                                                            : launch_attend<UpTo64Heads>(problem);
    if (error != cudaSuccess || problem.splits == 1) return error;
    return launch(combine_splits, dim3(problem.requests * problem.heads), dim3(COMBINE_THREADS), 0, problem);
}

constexpr double LOG2_E = 1.4426950408889634;

}  // namespace mla

// Arrays begin at multiples of 16 bytes; page_table is read as far as a request has tokens. The workspace is touched
// only where there is more than one split.
extern "C" int rp_mla_decode(const void* query, const void* cache, const int* page_table, const int* cached_tokens,
                             void* out, float* workspace, std::int64_t requests, std::int64_t heads,
                             std::int64_t max_pages, std::int64_t splits, float softmax_scale) {
    if (requests < 1 || heads < 1 || max_pages < 1 || splits < 1) return cudaErrorInvalidValue;
    const std::int64_t rows = requests * splits * heads;
    if (std::max({requests, heads, splits, rows}) > INT32_MAX) return cudaErrorInvalidConfiguration;
    return mla::decode({.query = static_cast<const __nv_bfloat16*>(query),
                        .cache = static_cast<const __nv_bfloat16*>(cache),
                        .page_table = page_table,
                        .cached_tokens = cached_tokens,
                        .out = static_cast<__nv_bfloat16*>(out),
                        .partial_values = workspace,
                        .partial_references = workspace + rows * mla::LATENT,
                        .partial_sums = workspace + rows * (mla::LATENT + 1),
                        .requests = static_cast<unsigned>(requests),
                        .heads = static_cast<unsigned>(heads),
                        .splits = static_cast<unsigned>(splits),
                        .max_pages = max_pages,
                        .log2_scale = static_cast<float>(softmax_scale * mla::LOG2_E)});
}

extern "C" int rp_mla_decode_workspace_bytes(std::int64_t requests, std::int64_t heads, std::int64_t splits,
                                             std::int64_t* bytes) {
    if (requests < 1 || heads < 1 || splits < 1) return cudaErrorInvalidValue;
    *bytes = splits == 1 ? 0 : requests * splits * heads * (mla::LATENT + 2) * static_cast<std::int64_t>(sizeof(float));
    return cudaSuccess;
}

extern "C" int rp_mla_decode_splits(std::int64_t requests, std::int64_t heads, std::int64_t max_cached_tokens,
                                    std::int64_t sms, std::int64_t* splits) {
    if (requests < 1 || heads < 1 || max_cached_tokens < 0 || sms < 1) return cudaErrorInvalidValue;
    *splits = mla::least_wasteful_splits(requests, heads, max_cached_tokens, sms);
    return cudaSuccess;
}
