// RMS normalisation of a sum with its residual, as before each block of a transformer: one pass over the memory.

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <launch.cuh>
#include <vectors.cuh>

namespace {

constexpr int MAX_BLOCK_THREADS = 512;
constexpr int MAX_WARPS = MAX_BLOCK_THREADS / WARP_THREADS;

struct Row {
    const uint4* x;
    const uint4* residual;
    const uint4* gamma;
    uint4* out;
    uint4* sum;
    int num_vectors;
};

__device__ __forceinline__ float sum_of_squares(const Eight& eight) {
    float sum = 0.0f;
#pragma unroll
    for (int place = 0; place < VECTOR_VALUES; ++place) sum = fmaf(eight.values[place], eight.values[place], sum);
    return sum;
}

__device__ __forceinline__ Eight added(uint4 x, uint4 residual) {
    Eight sum = unpacked(x);
    const Eight other = unpacked(residual);
#pragma unroll
    for (int place = 0; place < VECTOR_VALUES; ++place) sum.values[place] += other.values[place];
    return sum;
}

__device__ __forceinline__ uint4 normalised(const Eight& sum, uint4 gamma, float factor) {
    Eight result = unpacked(gamma);
#pragma unroll
    for (int place = 0; place < VECTOR_VALUES; ++place) result.values[place] *= sum.values[place] * factor;
    return packed(result);
}

// The sum of every thread's value, the same in all threads: they add up the warps' sums in the same order.
__device__ __forceinline__ float sum_over_block(float mine) {
    float* sum_of_warp = reinterpret_cast<float*>(dynamic_shared());
#pragma unroll
    for (int flips = WARP_THREADS / 2; flips > 0; flips /= 2) mine += __shfl_xor_sync(WHOLE_WARP, mine, flips);
    if (threadIdx.x % WARP_THREADS == 0) sum_of_warp[threadIdx.x / WARP_THREADS] = mine;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / WARP_THREADS; ++warp) sum += sum_of_warp[warp];
    return sum;
}

__device__ __forceinline__ float inverse_rms(float squares, int num_vectors, float epsilon) {
    return rsqrtf(squares / static_cast<float>(num_vectors * VECTOR_VALUES) + epsilon);
}

__device__ __forceinline__ Row row_of_block(Row rows) {
    const std::int64_t first = std::int64_t{blockIdx.x} * rows.num_vectors;
    return {rows.x + first, rows.residual + first, rows.gamma, rows.out + first, rows.sum + first, rows.num_vectors};
}

// A block has a token, whose sum its threads keep in registers: `vectors` vectors each.
template <int vectors>
__global__ void __launch_bounds__(MAX_BLOCK_THREADS) norm_in_registers(Row rows, float epsilon) {
    const Row row = row_of_block(rows);
    uint4 x[vectors], residual[vectors], gamma[vectors];
#pragma unroll
    for (int turn = 0; turn < vectors; ++turn) {
        const int place = static_cast<int>(threadIdx.x + turn * blockDim.x);
        const bool is_inside = place < row.num_vectors;
        x[turn] = is_inside ? __ldcs(row.x + place) : make_uint4(0, 0, 0, 0);
        residual[turn] = is_inside ? __ldcs(row.residual + place) : make_uint4(0, 0, 0, 0);
        gamma[turn] = is_inside ? __ldg(row.gamma + place) : make_uint4(0, 0, 0, 0);
    }
    Eight sums[vectors];
    float squares = 0.0f;
#pragma unroll
    for (int turn = 0; turn < vectors; ++turn) {
        sums[turn] = added(x[turn], residual[turn]);
        squares += sum_of_squares(sums[turn]);
    }
    const float factor = inverse_rms(sum_over_block(squares), row.num_vectors, epsilon);
#pragma unroll
    for (int turn = 0; turn < vectors; ++turn) {
        const int place = static_cast<int>(threadIdx.x + turn * blockDim.x);
        if (place >= row.num_vectors) continue;
        __stcs(row.sum + place, packed(sums[turn]));
        __stcs(row.out + place, normalised(sums[turn], gamma[turn], factor));
    }
}

// A token too large for registers: it is read again, mostly from L2, once its statistics are known.
__global__ void __launch_bounds__(MAX_BLOCK_THREADS) norm_in_two_reads(Row rows, float epsilon) {
    const Row row = row_of_block(rows);
    float squares = 0.0f;
    for (int place = static_cast<int>(threadIdx.x); place < row.num_vectors; place += static_cast<int>(blockDim.x))
        squares += sum_of_squares(added(row.x[place], row.residual[place]));
    const float factor = inverse_rms(sum_over_block(squares), row.num_vectors, epsilon);
    for (int place = static_cast<int>(threadIdx.x); place < row.num_vectors; place += static_cast<int>(blockDim.x)) {
        const Eight sum = added(row.x[place], row.residual[place]);
        row.sum[place] = packed(sum);
        row.out[place] = normalised(sum, row.gamma[place], factor);
    }
}

// As many vectors to a thread as leave 128 threads work, at most four: 7,168 values are 224 threads with four each,
// whose 8 loads of x and residual are in flight together.
cudaError_t launch_norm(const Row& rows, std::int64_t tokens, float epsilon) {
    constexpr int ENOUGH_THREADS = 128;
    constexpr std::int64_t SHARED_BYTES = MAX_WARPS * sizeof(float);
    const unsigned grid = static_cast<unsigned>(tokens);
    const auto threads = [&](int vectors) {
        return static_cast<unsigned>(divided_up(divided_up(rows.num_vectors, vectors), WARP_THREADS) * WARP_THREADS);
    };
    if (threads(4) > MAX_BLOCK_THREADS)
        return launch(norm_in_two_reads, grid, MAX_BLOCK_THREADS, SHARED_BYTES, rows, epsilon);
    if (threads(4) >= ENOUGH_THREADS)
        return launch(norm_in_registers<4>, grid, threads(4), SHARED_BYTES, rows, epsilon);
    if (threads(2) >= ENOUGH_THREADS)
        return launch(norm_in_registers<2>, grid, threads(2), SHARED_BYTES, rows, epsilon);
    return launch(norm_in_registers<1>, grid, threads(1), SHARED_BYTES, rows, epsilon);
}

}  // namespace

// x, residual: [tokens, hidden] bf16; gamma: [hidden] bf16; epsilon: added to the mean square
// sum: [tokens, hidden] bf16 of x + residual, written
// out: [tokens, hidden] bf16 of the FP32 sum over its root mean square, times gamma, written
extern "C" int rp_rms_norm(const void* x, const void* residual, const void* gamma, void* out, void* sum,
                           std::int64_t tokens, std::int64_t hidden, float epsilon) {
    if (!is_row_size(tokens, hidden) || !(epsilon >= 0.0f)) return cudaErrorInvalidValue;
    for (const void* pointer : {x, residual, gamma, static_cast<const void*>(out), static_cast<const void*>(sum)})
        if (!is_aligned(pointer)) return cudaErrorMisalignedAddress;
    const Row rows{static_cast<const uint4*>(x),
                   static_cast<const uint4*>(residual),
                   static_cast<const uint4*>(gamma),
                   static_cast<uint4*>(out),
                   static_cast<uint4*>(sum),
                   static_cast<int>(hidden / VECTOR_VALUES)};
    return launch_norm(rows, tokens, epsilon);
}
