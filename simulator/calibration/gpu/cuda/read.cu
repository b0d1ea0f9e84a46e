// Reads memory and writes nothing, so that the L2 cache afterwards holds lines that need not be written back: what is
// timed next then pays for its own traffic only.

#include <cstdint>

#include <cuda_runtime.h>
#include <launch.cuh>

namespace {

constexpr int THREADS = 256;  // eight blocks fill an SM
constexpr std::int64_t MOST_BLOCKS = 1024;

__global__ void read_vectors(const uint4* __restrict__ from, std::int64_t vectors, unsigned* __restrict__ never_written) {
    unsigned seen = 0;
    const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
    for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < vectors; at += step) {
        const uint4 vector = from[at];
        seen |= vector.x | vector.y | vector.z | vector.w;
    }
    // The memory holds zeros, which the compiler cannot know: without a use it would leave the loads out.
    if (seen != 0) *never_written = seen;
}

}  // namespace

// memory: [bytes] zeros, 16-byte aligned; what is left over of 16 bytes is not read. never_written: of 4 bytes
extern "C" int rp_read(const void* memory, std::int64_t bytes, void* never_written) {
    const std::int64_t vectors = bytes / static_cast<std::int64_t>(sizeof(uint4));
    if (vectors < 1) return cudaErrorInvalidValue;
    const std::int64_t blocks = (vectors + THREADS - 1) / THREADS;
    const dim3 grid(static_cast<unsigned>(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS));
    return launch(read_vectors, grid, dim3(THREADS), 0, static_cast<const uint4*>(memory), vectors,
                  static_cast<unsigned*>(never_written));
}
