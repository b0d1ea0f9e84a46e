// The values that a tile's weights select, summed in registers over all tiles.
#pragma once

#include <cstddef>

#include <mla_shape.cuh>

namespace mla {

// All the block's heads by the warp's 64 columns.
template <class S>
struct Values {
    float sums[S::value_head_tiles][S::column_tiles][4] = {};
};

// Scale the sums to the references that the tile's weights have, where any moved.
template <class S>
__device__ __forceinline__ void rescale(Values<S>& values, const float* factors, const Place<S>& place) {
#pragma unroll
    for (int tile = 0; tile < S::value_head_tiles; ++tile) {
        const float upper = factors[tile * 16 + place.group], lower = factors[tile * 16 + place.group + 8];
        if (!any_lane(upper != 1 || lower != 1)) continue;
#pragma unroll
        for (int column = 0; column < S::column_tiles; ++column) {
            values.sums[tile][column][0] *= upper, values.sums[tile][column][1] *= upper;
            values.sums[tile][column][2] *= lower, values.sums[tile][column][3] *= lower;
        }
    }
}

// The weights of a piece's 16 tokens, for all heads.
template <class S>
struct PieceWeights {
    std::uint32_t left[S::value_head_tiles][4];
};

template <class S>
__device__ __forceinline__ PieceWeights<S> load_weights(SharedAddress weights, const Place<S>& place, int piece) {
    PieceWeights<S> loaded;
#pragma unroll
    for (int tile = 0; tile < S::value_head_tiles; ++tile) {
        const int row = tile * 16 + place.lane % 16;
        load_matrices(loaded.left[tile], weights + weight_place<S>(row, 2 * piece + place.lane / 16));
    }
    return loaded;
}

// Where the lane's rows for ldmatrix begin in the warp's columns of a tile.
template <class S>
__device__ __forceinline__ SharedAddress value_rows(SharedAddress tile_memory, const Place<S>& place) {
    const int row = place.lane % 16;
    const int vector = place.first_column / VECTOR + place.lane / 16;
    return tile_memory + row * ROW_BYTES + (vector ^ row % 8) * VECTOR_BYTES;
}

// Add a piece's values in 16 of the warp's columns.
template <class S>
__device__ __forceinline__ void add_values(Values<S>& values, const PieceWeights<S>& weights, SharedAddress rows,
                                           int piece, int column_pair) {
    std::uint32_t right[4];
    load_matrices_transposed(right, further(rows, 2 * column_pair) + piece * PIECE_BYTES);
#pragma unroll
    for (int tile = 0; tile < S::value_head_tiles; ++tile) {
        multiply_add(values.sums[tile][2 * column_pair], weights.left[tile], right[0], right[1]);
        multiply_add(values.sums[tile][2 * column_pair + 1], weights.left[tile], right[2], right[3]);
    }
}

}  // namespace mla
