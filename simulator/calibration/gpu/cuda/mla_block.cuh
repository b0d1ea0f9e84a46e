// How a block goes over its tiles.
//
// Two tiles are in shared memory. While a tile's values are summed, the next one's scores are, and the one after comes
// into the places that get free:
//
//     values of the first half | barrier, the next tile is there | values of the second half; scores of the next tile |
//     barrier | partial scores | barrier | maxima | barrier | weights | barrier
//
// The first half of the tile after the next is fetched past the first barrier, the second half past the second one, but
// for its last piece: partial scores pass through that place, for want of another, and free it past the fourth.
#pragma once

#include <cstddef>
#include <cstdint>

#include <mla_load.cuh>
#include <mla_scores.cuh>
#include <mla_shape.cuh>
#include <mla_values.cuh>

namespace mla {

// A block's state and what it does, a step at a time.
template <class S>
struct Block {
    const Work& work;
    std::byte* shared;
    SharedAddress start = shared_address(shared);
    Values<S> values{};
    Weights<S> weights{};
    int page = 0;   // of the tile that is fetched next

    __device__ __forceinline__ int memory_of(int tile) const { return S::tiles_at + tile % 2 * S::tile_bytes; }

    __device__ __forceinline__ void fetch(int tile, int piece) {
        load_piece<S>(start + memory_of(tile), work, page, tile, piece);
        if (piece == S::pieces - 1) page = page_of_tile<S>(work, tile + 1);
    }

    __device__ __forceinline__ void fetch_pieces(int tile, int begin, int end) {
#pragma unroll
        for (int piece = begin; piece < end; ++piece) fetch(tile, piece);
    }

    // From a tile's scores to its weights; the last piece of the tile after it is fetched once that place is free.
    __device__ __forceinline__ void weigh(const Scores<S>& scores, int tile) {
        const Place<S> place;
        std::byte* exchange = shared + memory_of(tile + 1) + (S::pieces - 1) * PIECE_BYTES;
        give_shares<S>(scores, exchange, place);
        __syncthreads();
        if (place.is_owner) {
            take_shares<S>(weights, scores, exchange, place, work, tile);
            give_maxima<S>(weights, reinterpret_cast<float*>(shared + S::maxima_at), place);
        }
        __syncthreads();
        fetch(tile + 1, S::pieces - 1);
        if (place.is_owner) give_weights<S>(weights, shared, place);
        __syncthreads();
    }

    // Fetch the query, the first tile and all but the last piece of the second; weigh the first.
    __device__ __forceinline__ void begin() {
        const int tile = work.first_tile;
        page = page_of_tile<S>(work, tile);
        load_query<S>(start, work);
        fetch_pieces(tile, 0, S::pieces);
        fetch_pieces(tile + 1, 0, S::pieces - 1);
        wait_for_copies<S::pieces - 1>();
        __syncthreads();
        Scores<S> scores;
        add_scores(tile, scores);
        weigh(scores, tile);
    }

    __device__ __forceinline__ void add_scores(int tile, Scores<S>& scores) {
        const Place<S> place;
        const SharedAddress query = query_rows<S>(start, place);
        const SharedAddress keys = key_rows<S>(start + memory_of(tile), place);
#pragma unroll
        for (int step = 0; step < S::depth_steps; ++step) add_score_step<S>(scores, query, keys, step);
    }

    __device__ __forceinline__ void add_pieces(int tile, int begin, int end) {
        const Place<S> place;
        const SharedAddress rows = value_rows<S>(start + memory_of(tile), place);
#pragma unroll
        for (int piece = begin; piece < end; ++piece) {
            const PieceWeights<S> left = load_weights<S>(start + S::weights_at, place, piece);
#pragma unroll
            for (int column_pair = 0; column_pair < S::column_tiles / 2; ++column_pair)
                add_values<S>(values, left, rows, piece, column_pair);
        }
    }

    // A tile's values and the next one's scores. The scores keep shared memory busy, the values the tensor cores: of
    // the two warps on each of an SM's four schedulers, one does first what the other does last. (Left to order both in
    // one warp, the compiler puts all values first.)
    __device__ __forceinline__ void add_both(int tile, Scores<S>& next_scores) {
        rescale_values();
        add_pieces(tile, 0, S::pieces / 2);
        wait_for_copies<0>();
        __syncthreads();   // the next tile has come; the places of the pieces before are free
        fetch_pieces(tile + 2, 0, S::pieces / 2);
        if (threadIdx.x < NUM_THREADS / 2) {
            add_pieces(tile, S::pieces / 2, S::pieces);
            add_scores(tile + 1, next_scores);
        } else {
            add_scores(tile + 1, next_scores);
            add_pieces(tile, S::pieces / 2, S::pieces);
        }
        __syncthreads();   // the tile's place is free, and that of its weights
        fetch_pieces(tile + 2, S::pieces / 2, S::pieces - 1);
    }

    __device__ __forceinline__ void rescale_values() {
        rescale<S>(values, reinterpret_cast<const float*>(shared + S::factors_at), Place<S>());
    }

    __device__ __forceinline__ void attend() {
        begin();
        const int last_tile = work.end_tile - 1;
#pragma unroll 1
        for (int tile = work.first_tile; tile < last_tile; ++tile) {
            Scores<S> next_scores;
            add_both(tile, next_scores);
            weigh(next_scores, tile + 1);
        }
        rescale_values();
        add_pieces(last_tile, 0, S::pieces);
        wait_for_copies<0>();
        __syncthreads();   // the statistics' places are free
    }

    // Publish each head's sum of weights, [token_warps, heads], and its reference.
    __device__ __forceinline__ void give_statistics() {
        const Place<S> place;
        float* sums = reinterpret_cast<float*>(shared + S::maxima_at);
        float* references = reinterpret_cast<float*>(shared + S::factors_at);
        if (place.is_owner) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float sum = weights.sum[half];
                sum += __shfl_xor_sync(FULL_WARP, sum, 1);
                sum += __shfl_xor_sync(FULL_WARP, sum, 2);
                const int head = place.owned_head + 8 * half;
                if (place.pair == 0) sums[place.token_warp * S::heads + head] = sum;
                if (place.pair == 0 && place.token_warp == 0) references[head] = weights.reference[half];
            }
        }
        __syncthreads();
    }

    __device__ __forceinline__ float sum_of(int head) const {
        const float* sums = reinterpret_cast<const float*>(shared + S::maxima_at);
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < S::token_warps; ++warp) sum += sums[warp * S::heads + head];
        return sum;
    }

    __device__ __forceinline__ float reference_of(int head) const {
        return reinterpret_cast<const float*>(shared + S::factors_at)[head];
    }

    // Call store(head, first, sums) for each of the lane's rows: `first` is the lane's first column's place in [heads,
    // LATENT], and the sums are pairs of neighbouring columns, 8 columns from pair to pair.
    template <class Store>
    __device__ __forceinline__ void for_each_row(int num_heads, Store store) const {
        const Place<S> place;
#pragma unroll
        for (int half = 0; half < 2 * S::value_head_tiles; ++half) {
            const int head = half * 8 + place.group;
            if (head >= num_heads) continue;
            float2 sums[S::column_tiles];
#pragma unroll
            for (int column = 0; column < S::column_tiles; ++column) {
                const float(&four)[4] = values.sums[half / 2][column];
                sums[column] = make_float2(four[half % 2 * 2], four[half % 2 * 2 + 1]);
            }
            store(head, head * LATENT + place.first_column + 2 * place.pair, sums);
        }
    }
};

}  // namespace mla
