// What combine does at the end: a token is the sum of what its experts returned, each by its weight.

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <launch.cuh>
#include <vectors.cuh>

namespace {

// A thread sums eight values of a token over its copies, four at a time. 32 registers are enough for that, so that
// an SM holds all of 2,048 threads: with two rows of each on their way, 64 KiB, more than twice what 4.8 TB/s, 132
// SMs and 700 ns of latency call for. 128 threads make 1,024 values: 7 blocks for 7,168, and no thread idle.
constexpr int BLOCK_THREADS = 128;
constexpr int COPIES_IN_FLIGHT = 4;
constexpr std::int64_t MAX_BLOCKS_Y = 65535;

__device__ __forceinline__ void add_weighted(Eight& sum, const Eight& row, float weight) {
#pragma unroll
    for (int place = 0; place < VECTOR_VALUES; ++place)
        sum.values[place] = fmaf(weight, row.values[place], sum.values[place]);
}

__global__ void __launch_bounds__(BLOCK_THREADS)
    combine(const uint4* __restrict__ rows, const int* __restrict__ slot_of_copy, const float* __restrict__ weight,
            uint4* __restrict__ out, int token_vectors, int copies) {
    const std::int64_t token = blockIdx.x;
    const int vector = static_cast<int>(blockIdx.y * BLOCK_THREADS + threadIdx.x);
    if (vector >= token_vectors) return;
    Eight sum{};
    for (int first = 0; first < copies; first += COPIES_IN_FLIGHT) {
        int slots[COPIES_IN_FLIGHT];
        float weights[COPIES_IN_FLIGHT];
        uint4 vectors[COPIES_IN_FLIGHT];
        // Loop after loop, so that all slots are on their way before the first row is asked for, and all rows before
        // the first is needed.
#pragma unroll
        for (int turn = 0; turn < COPIES_IN_FLIGHT; ++turn) {
            const bool is_copy = first + turn < copies;
            const std::int64_t place = token * copies + first + turn;
            slots[turn] = is_copy ? slot_of_copy[place] : -1;
            weights[turn] = is_copy ? weight[place] : 0.0f;
        }
#pragma unroll
        for (int turn = 0; turn < COPIES_IN_FLIGHT; ++turn) {
            const uint4* row = rows + std::int64_t{slots[turn]} * token_vectors;
            vectors[turn] = slots[turn] >= 0 ? __ldcs(row + vector) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int turn = 0; turn < COPIES_IN_FLIGHT; ++turn)
            add_weighted(sum, unpacked(vectors[turn]), slots[turn] >= 0 ? weights[turn] : 0.0f);
    }
    __stcs(out + token * token_vectors + vector, packed(sum));
}

}  // namespace

// rows: [slots, hidden] bf16; slot_of_copy: [tokens, copies] the copy's row, -1 for none
// weight: [tokens, copies] of the copy, of no effect where there is none; out: [tokens, hidden] bf16, written
extern "C" int rp_combine(const void* rows, const std::int32_t* slot_of_copy, const float* weight, void* out,
                          std::int64_t tokens, std::int64_t hidden, std::int64_t copies) {
    if (!is_row_size(tokens, hidden) || copies < 1 || copies > INT32_MAX) return cudaErrorInvalidValue;
    if (!is_aligned(rows) || !is_aligned(out)) return cudaErrorMisalignedAddress;
    const std::int64_t token_vectors = hidden / VECTOR_VALUES;
    const std::int64_t blocks_of_token = divided_up(token_vectors, BLOCK_THREADS);
    if (blocks_of_token > MAX_BLOCKS_Y) return cudaErrorInvalidValue;
    const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(blocks_of_token));
    return launch(combine, grid, BLOCK_THREADS, 0, static_cast<const uint4*>(rows), slot_of_copy, weight,
                  static_cast<uint4*>(out), static_cast<int>(token_vectors), static_cast<int>(copies));
}
