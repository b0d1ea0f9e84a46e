// A tile's scores, and the weights that the softmax makes of them as tiles go by.
#pragma once

#include <cmath>
#include <cstddef>

#include <mla_shape.cuh>

namespace mla {

constexpr unsigned FULL_WARP = 0xffffffffu;

// Of a warp's scores, what its depth group has summed.
template <class S>
struct Scores {
    float sums[S::head_tiles][S::token_tiles][4] = {};
};

// Where the lane's rows for ldmatrix begin: of the query, and of a tile's keys.
template <class S>
__device__ __forceinline__ SharedAddress query_rows(SharedAddress query, const Place<S>& place) {
    const int row = place.first_head + place.lane % 16;
    const int vector = 2 * place.depth_warp + place.lane / 16;
    return query + row * ROW_BYTES + (vector ^ row % 8) * VECTOR_BYTES;
}

template <class S>
__device__ __forceinline__ SharedAddress key_rows(SharedAddress tile_memory, const Place<S>& place) {
    const int row = place.first_token + place.lane % 8 + place.lane / 16 * 8;
    const int vector = 2 * place.depth_warp + place.lane / 8 % 2;
    return tile_memory + row * ROW_BYTES + (vector ^ row % 8) * VECTOR_BYTES;
}

// Add 16 of the 576 products; depth group d takes every depth_warps-th step, from d on.
template <class S>
__device__ __forceinline__ void add_score_step(Scores<S>& scores, SharedAddress query, SharedAddress keys, int step) {
    const int vectors = 2 * S::depth_warps * step;
    std::uint32_t left[S::head_tiles][4];
#pragma unroll
    for (int tile = 0; tile < S::head_tiles; ++tile)
        load_matrices(left[tile], further(query, vectors) + tile * 16 * ROW_BYTES);
#pragma unroll
    for (int token_pair = 0; token_pair < S::token_tiles / 2; ++token_pair) {
        std::uint32_t right[4];
        load_matrices(right, further(keys, vectors) + token_pair * 16 * ROW_BYTES);
#pragma unroll
        for (int tile = 0; tile < S::head_tiles; ++tile) {
            multiply_add(scores.sums[tile][2 * token_pair], left[tile], right[0], right[1]);
            multiply_add(scores.sums[tile][2 * token_pair + 1], left[tile], right[2], right[3]);
        }
    }
}

// Where in `exchange` a depth group's share of a head tile passes on to the tile's owner.
template <class S>
__device__ __forceinline__ float4* share_place(std::byte* exchange, const Place<S>& place, int tile, int share) {
    const int warp_place = place.token_warp * S::head_warps + place.head_warp;
    const int index = (warp_place * S::head_tiles + tile) * S::shares_per_tile + share;
    return reinterpret_cast<float4*>(exchange + index * S::share_bytes) + place.lane;
}

// Hand on what others own. A barrier must follow.
template <class S>
__device__ __forceinline__ void give_shares(const Scores<S>& scores, std::byte* exchange, const Place<S>& place) {
#pragma unroll
    for (int tile = 0; tile < S::head_tiles; ++tile) {
        if (tile == place.depth_warp) continue;
        const int share = place.depth_warp - (place.depth_warp > tile ? 1 : 0);
        float4* to = share_place<S>(exchange, place, tile, share);
#pragma unroll
        for (int column = 0; column < S::token_tiles; ++column) {
            const float(&sums)[4] = scores.sums[tile][column];
            to[column * WARP_LANES] = make_float4(sums[0], sums[1], sums[2], sums[3]);
        }
    }
}

// The owner's 16 heads by the warp's tokens, and what it knows of its two rows, `owned_head` and 8 further on.
template <class S>
struct Weights {
    float exponents[S::token_tiles][4];            // of two: the tile's scores
    float reference[2] = {-INFINITY, -INFINITY};   // the exponent that a weight of one stands for
    float sum[2] = {0, 0};                         // of this lane's weights, over all tiles
};

// Collect the owned tile and turn its scores to exponents; tokens past the last one get -infinity.
template <class S>
__device__ __forceinline__ void take_shares(Weights<S>& weights, const Scores<S>& scores, std::byte* exchange,
                                            const Place<S>& place, const Work& work, int tile) {
    const int tokens_left = work.num_tokens - tile * S::tokens - place.first_token - 2 * place.pair;
#pragma unroll
    for (int column = 0; column < S::token_tiles; ++column) {
        float sums[4];
#pragma unroll
        for (int owned = 0; owned < S::head_tiles; ++owned)   // a constant index, so that all stays in registers
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (owned == 0 || owned == place.depth_warp) sums[i] = scores.sums[owned][column][i];
#pragma unroll
        for (int share = 0; share < S::shares_per_tile; ++share) {
            const float4 more = share_place<S>(exchange, place, place.depth_warp, share)[column * WARP_LANES];
            sums[0] += more.x, sums[1] += more.y, sums[2] += more.z, sums[3] += more.w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
            weights.exponents[column][i] = 8 * column + i % 2 < tokens_left ? sums[i] * work.log2_scale : -INFINITY;
    }
}

// Publish the greatest exponent of each row among the warp's tokens. A barrier must follow.
template <class S>
__device__ __forceinline__ void give_maxima(const Weights<S>& weights, float* maxima, const Place<S>& place) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float maximum = -INFINITY;
#pragma unroll
        for (int column = 0; column < S::token_tiles; ++column) {
            const float(&four)[4] = weights.exponents[column];
            maximum = fmaxf(maximum, fmaxf(four[2 * half], four[2 * half + 1]));
        }
        maximum = fmaxf(maximum, __shfl_xor_sync(FULL_WARP, maximum, 1));
        maximum = fmaxf(maximum, __shfl_xor_sync(FULL_WARP, maximum, 2));
        if (place.pair == 0) maxima[place.token_warp * S::heads + place.owned_head + 8 * half] = maximum;
    }
}

// A row's reference moves only where a tile exceeds it by more than this, so that the running values need scaling in
// few tiles. Weights stay below 2^8, and BF16 and FP32 are as exact there as below one.
constexpr float HEADROOM = 8;

// Move the reference where it must; return by how much earlier weights shrink.
template <class S>
__device__ __forceinline__ float move_reference(Weights<S>& weights, const float* maxima, const Place<S>& place,
                                                int half) {
    float maximum = -INFINITY;
#pragma unroll
    for (int warp = 0; warp < S::token_warps; ++warp)
        maximum = fmaxf(maximum, maxima[warp * S::heads + place.owned_head + 8 * half]);
    if (!(maximum > weights.reference[half] + HEADROOM)) return 1;
    const float factor = power_of_two(weights.reference[half] - maximum);
    weights.reference[half] = maximum;
    weights.sum[half] *= factor;
    return factor;
}

// Write the tile's weights, BF16, and the factors by which earlier ones shrink. A barrier must follow.
template <class S>
__device__ __forceinline__ void give_weights(Weights<S>& weights, std::byte* shared, const Place<S>& place) {
    float* factors = reinterpret_cast<float*>(shared + S::factors_at);
    const float* maxima = reinterpret_cast<const float*>(shared + S::maxima_at);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int head = place.owned_head + 8 * half;
        const float factor = move_reference<S>(weights, maxima, place, half);
        if (place.token_warp == 0 && place.pair == 0) factors[head] = factor;
#pragma unroll
        for (int column = 0; column < S::token_tiles; ++column) {
            const float low = power_of_two(weights.exponents[column][2 * half] - weights.reference[half]);
            const float high = power_of_two(weights.exponents[column][2 * half + 1] - weights.reference[half]);
            weights.sum[half] += low + high;
            std::byte* vector = shared + S::weights_at + weight_place<S>(head, place.first_token / VECTOR + column);
            reinterpret_cast<std::uint32_t*>(vector)[place.pair] = pack_bf16(low, high);
        }
    }
}

}  // namespace mla
