// Sizes of absorbed multi-head latent attention, and how a block of threads is laid over them.
//
// A cached row is what one token leaves behind for all heads: 512 numbers of latent, which are key and value at once,
// and 64 of rotary key. A query is as long, its first 512 already multiplied by the keys' up-projection.
#pragma once

#include <cstdint>

#include <ptx.cuh>

namespace mla {

constexpr int LATENT = 512;
constexpr int ROW = LATENT + 64;
constexpr int PAGE_TOKENS = 64;

constexpr int WARP_LANES = 32;
constexpr int NUM_WARPS = 8;
constexpr int NUM_THREADS = NUM_WARPS * WARP_LANES;

// Shared memory is read and written in vectors of 16 bytes, eight BF16 numbers. Vector v of a row r is kept in the
// place v ^ (r % 8), so that the eight rows of a matrix, which ldmatrix reads at one column, lie in different banks:
// a row is a multiple of 128 bytes, once through all banks.
constexpr int VECTOR = 8;
constexpr int VECTOR_BYTES = 16;
constexpr int ROW_VECTORS = ROW / VECTOR;
constexpr int ROW_BYTES = ROW_VECTORS * VECTOR_BYTES;
constexpr int BANKS_BYTES = 128;
static_assert(ROW_BYTES % BANKS_BYTES == 0);

// Cached rows that one step of the tensor cores sums over, and that are fetched together: a piece of a tile.
constexpr int PIECE_TOKENS = 16;
constexpr int PIECE_BYTES = PIECE_TOKENS * ROW_BYTES;
constexpr int DEPTH_STEPS = ROW / 16;

// The vectors that `vectors` further on in the same row lie at; the start's place within its 128 bytes plus `vectors`
// must not carry out of them (starts are below the stride, a power of two).
__device__ constexpr SharedAddress further(SharedAddress address, int vectors) {
    const int within = vectors % 8;
    return (address ^ static_cast<SharedAddress>(within * VECTOR_BYTES)) + (vectors - within) * VECTOR_BYTES;
}

constexpr int rounded_up(int size, int unit) { return (size + unit - 1) / unit * unit; }

// A block serves one request, a group of its heads and a range of its cached tokens, a tile of them at a time.
//
// For the scores, [heads, tokens] and 576 deep, the eight warps stand head_warps x token_warps x depth_warps; for the
// values, [heads, 512] and `tokens` deep, each warp has all heads of 64 columns.
template <int heads_, int tokens_, int head_warps_, int token_warps_, int depth_warps_, int blocks_per_sm_>
struct Shape {
    static constexpr int heads = heads_;
    static constexpr int tokens = tokens_;
    static constexpr int head_warps = head_warps_;
    static constexpr int token_warps = token_warps_;
    static constexpr int depth_warps = depth_warps_;
    static constexpr int blocks_per_sm = blocks_per_sm_;

    static constexpr int warp_heads = heads / head_warps;
    static constexpr int warp_tokens = tokens / token_warps;
    static constexpr int head_tiles = warp_heads / 16;    // of a warp's scores, as the tensor cores count
    static constexpr int token_tiles = warp_tokens / 8;
    static constexpr int depth_steps = DEPTH_STEPS / depth_warps;
    static constexpr int value_head_tiles = heads / 16;   // of a warp's values
    static constexpr int value_columns = LATENT / NUM_WARPS;
    static constexpr int column_tiles = value_columns / 8;

    static constexpr int pieces = tokens / PIECE_TOKENS;

    // Depth group d owns the d-th head tile of each warp's scores: it adds up what the groups have of it.
    static constexpr int shares_per_tile = depth_warps - 1;
    static constexpr int share_bytes = token_tiles * WARP_LANES * VECTOR_BYTES;
    static constexpr int exchange_bytes = head_warps * token_warps * head_tiles * shares_per_tile * share_bytes;

    static constexpr int query_bytes = heads * ROW_BYTES;
    static constexpr int tile_bytes = tokens * ROW_BYTES;
    static constexpr int weight_row_bytes = tokens * 2;
    static constexpr int tiles_at = query_bytes;
    static constexpr int weights_at = tiles_at + 2 * tile_bytes;
    static constexpr int maxima_at = weights_at + heads * weight_row_bytes;   // [token_warps, heads] FP32
    static constexpr int factors_at = maxima_at + token_warps * heads * 4;    // [heads] FP32
    static constexpr int shared_bytes = factors_at + heads * 4;

    static_assert(head_warps * token_warps * depth_warps == NUM_WARPS);
    static_assert(warp_heads % 16 == 0 && warp_tokens % 16 == 0 && DEPTH_STEPS % depth_warps == 0);
    static_assert(depth_warps == 2 || depth_warps == 4, "further() must not carry");
    static_assert(head_tiles <= depth_warps, "every head tile needs an owner");
    static_assert(PAGE_TOKENS % tokens == 0, "a tile lies in one page");
    static_assert(tokens == 32 || tokens == 64, "weight_place() knows these");
    static_assert(exchange_bytes <= PIECE_BYTES, "partial scores pass through the last piece of a tile");
    // 228 KiB an SM, of which each block takes 1 KiB for the system and at most 227 KiB.
    static_assert(blocks_per_sm * (shared_bytes + 1024) <= 228 * 1024);
};

using UpTo16Heads = Shape<16, 32, 1, 2, 4, 2>;
using UpTo32Heads = Shape<32, 32, 1, 2, 4, 2>;
using UpTo64Heads = Shape<64, 64, 2, 2, 2, 1>;

// A vector's place among the attention weights' rows, of 8 vectors or, two rows to 128 bytes, of 4.
template <class S>
__device__ constexpr int weight_place(int row, int vector) {
    const int turn = S::tokens == 64 ? row % 8 : row / 2 % 4;
    return row * S::weight_row_bytes + (vector ^ turn) * VECTOR_BYTES;
}

// This thread's place in its block, computed anew wherever it is asked for: the values' sums need the registers.
template <class S>
struct Place {
    int thread = static_cast<int>(computed_anew(threadIdx.x));
    int lane = thread % WARP_LANES;
    int warp = thread / WARP_LANES;
    int group = lane / 4;   // of the lane's rows in a fragment of sums
    int pair = lane % 4;    // of the lane's columns there
    int head_warp = warp % S::head_warps;
    int token_warp = warp / S::head_warps % S::token_warps;
    int depth_warp = warp / (S::head_warps * S::token_warps);
    int first_head = head_warp * S::warp_heads;        // of the warp's scores
    int first_token = token_warp * S::warp_tokens;
    int first_column = warp * S::value_columns;        // of the warp's values
    bool is_owner = S::head_tiles == S::depth_warps || depth_warp < S::head_tiles;
    int owned_head = first_head + depth_warp * 16 + group;   // and the one 8 further on
};

// What a block works on.
struct Work {
    const __nv_bfloat16* query;   // [heads, ROW] of the request, from the block's first head
    const __nv_bfloat16* cache;   // [pages, PAGE_TOKENS, ROW]
    const int* pages;             // [max_pages] of the request
    int num_heads;                // from the block's first one, at most as many as it has room for
    int num_tokens;               // cached of the request
    int first_tile;               // of the block's range
    int end_tile;
    float log2_scale;             // scores to exponents of two
};

}  // namespace mla
