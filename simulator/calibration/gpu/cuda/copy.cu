// The bandwidth ceiling: bytes read once and written once, as fast as the memory takes them.

#include <cstdint>

#include <cuda_runtime.h>
#include <launch.cuh>
#include <vectors.cuh>

namespace {

// A block moves 16 KiB: each thread has four loads of 16 bytes in flight before its first store. With the 2,048
// threads that an SM holds, 128 KiB are under way: five times what 4.8 TB/s, 132 SMs and 700 ns of latency call for.
constexpr int BLOCK_THREADS = 256;
constexpr int LOADS_IN_FLIGHT = 4;
constexpr int BLOCK_VECTORS = BLOCK_THREADS * LOADS_IN_FLIGHT;
constexpr std::int64_t VECTOR_BYTES = sizeof(uint4);

// What is copied is not read again: it leaves the caches first.
__global__ void __launch_bounds__(BLOCK_THREADS)
    copy_vectors(const uint4* __restrict__ from, uint4* __restrict__ to, std::int64_t num_vectors) {
    const std::int64_t first = std::int64_t{blockIdx.x} * BLOCK_VECTORS + threadIdx.x;
    uint4 vectors[LOADS_IN_FLIGHT];
#pragma unroll
    for (int load = 0; load < LOADS_IN_FLIGHT; ++load) {
        const std::int64_t place = first + load * BLOCK_THREADS;
        if (place < num_vectors) vectors[load] = __ldcs(from + place);
    }
#pragma unroll
    for (int load = 0; load < LOADS_IN_FLIGHT; ++load) {
        const std::int64_t place = first + load * BLOCK_THREADS;
        if (place < num_vectors) __stcs(to + place, vectors[load]);
    }
}

// What is left beyond the last whole vector: fewer bytes than a warp has threads.
__global__ void copy_bytes(const std::byte* from, std::byte* to, int num_bytes) {
    const int place = static_cast<int>(threadIdx.x);
    if (place < num_bytes) to[place] = from[place];
}

}  // namespace

extern "C" int rp_copy(const void* from, void* to, std::int64_t bytes) {
    if (bytes < 1) return cudaErrorInvalidValue;
    if (!is_aligned(from) || !is_aligned(to)) return cudaErrorMisalignedAddress;
    const std::int64_t num_vectors = bytes / VECTOR_BYTES;
    const std::int64_t num_blocks = divided_up(num_vectors, BLOCK_VECTORS);
    if (num_blocks > INT32_MAX) return cudaErrorInvalidValue;
    if (num_vectors > 0) {
        const cudaError_t error = launch(copy_vectors, static_cast<unsigned>(num_blocks), BLOCK_THREADS, 0,
                                         static_cast<const uint4*>(from), static_cast<uint4*>(to), num_vectors);
        if (error != cudaSuccess) return error;
    }
    const std::int64_t copied_bytes = num_vectors * VECTOR_BYTES;
    if (copied_bytes == bytes) return cudaSuccess;
    return launch(copy_bytes, 1, WARP_THREADS, 0, static_cast<const std::byte*>(from) + copied_bytes,
                  static_cast<std::byte*>(to) + copied_bytes, static_cast<int>(bytes - copied_bytes));
}
