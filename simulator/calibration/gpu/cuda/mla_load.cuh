// How the query and the cached rows come into shared memory.
#pragma once

#include <mla_shape.cuh>

namespace mla {

// Sixteen threads fetch a row: every sixteenth vector each, so that four full turns and a half one make 72 vectors.
constexpr int ROW_THREADS = 16;
constexpr int FULL_TURNS = ROW_VECTORS / ROW_THREADS;
constexpr int REST_THREADS = ROW_VECTORS % ROW_THREADS;
constexpr int TURN_BYTES = ROW_THREADS * VECTOR_BYTES;
static_assert(NUM_THREADS == PIECE_TOKENS * ROW_THREADS, "the block fetches a piece at once");
static_assert(ROW_THREADS % 8 == 0, "turns keep a vector's place within its 128 bytes");

// This thread's part of 16 rows: of row `line`, the vectors `vector` and every sixteenth after.
struct LoadPlace {
    int thread = static_cast<int>(computed_anew(threadIdx.x));
    int line = thread / ROW_THREADS;
    int vector = thread % ROW_THREADS;
};

// `to` is where the 16 rows come; `row` is the thread's own of them.
__device__ __forceinline__ void load_rows(SharedAddress to, const __nv_bfloat16* row, bool is_there, LoadPlace load) {
    const auto [thread, line, vector] = load;
    const SharedAddress place = to + line * ROW_BYTES + (vector ^ line % 8) * VECTOR_BYTES;
    const __nv_bfloat16* from = row + vector * VECTOR;
#pragma unroll
    for (int turn = 0; turn < FULL_TURNS; ++turn)
        copy_async(place + turn * TURN_BYTES, from + turn * ROW_THREADS * VECTOR, is_there);
    if (vector < REST_THREADS)
        copy_async(place + FULL_TURNS * TURN_BYTES, from + FULL_TURNS * ROW_THREADS * VECTOR, is_there);
}

// Heads past the last one become zeros.
template <class S>
__device__ __forceinline__ void load_query(SharedAddress query, const Work& work) {
    const LoadPlace load;
#pragma unroll
    for (int first = 0; first < S::heads; first += PIECE_TOKENS) {
        const int head = first + load.line;
        const bool is_there = head < work.num_heads;
        load_rows(query + first * ROW_BYTES, work.query + (is_there ? head : 0) * ROW, is_there, load);
    }
}

// The page of a tile, wherever the tile is one of the block's.
template <class S>
__device__ __forceinline__ int page_of_tile(const Work& work, int tile) {
    return tile < work.end_tile ? __ldg(work.pages + tile * S::tokens / PAGE_TOKENS) : 0;
}

// Tokens past the last one become zeros, whatever their page holds: weights of zero would not silence a NaN.
template <class S>
__device__ __forceinline__ void load_piece(SharedAddress tile_memory, const Work& work, int page, int tile, int piece) {
    if (tile < work.end_tile) {
        const LoadPlace load;
        const int token = tile * S::tokens + piece * PIECE_TOKENS + load.line;
        const std::int64_t row = std::int64_t{page} * PAGE_TOKENS + token % PAGE_TOKENS;
        load_rows(tile_memory + piece * PIECE_BYTES, work.cache + row * ROW, token < work.num_tokens, load);
    }
    close_copy_group();
}

}  // namespace mla
