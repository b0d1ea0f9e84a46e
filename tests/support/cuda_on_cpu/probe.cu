// Kernels that show what the emulation promises: some right, most wrong in a way that it must not let pass.

#include <cstdint>
#include <cstring>

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <launch.cuh>

namespace {

constexpr unsigned WHOLE_WARP = 0xFFFFFFFFu;
constexpr int THREADS = 64;

// to[i]: the sum of its warp's thread numbers, plus the number of the thread opposite, through shared memory.
__global__ void talks(int* to) {
    int* numbers = reinterpret_cast<int*>(dynamic_shared());
    const int thread = static_cast<int>(threadIdx.x);
    int sum = thread;
    for (int flips = 16; flips > 0; flips /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, flips);
    numbers[thread] = thread;
    __syncthreads();
    to[blockIdx.x * THREADS + threadIdx.x] = sum + numbers[THREADS - 1 - thread];
}

// The same without the barrier.
__global__ void reads_too_early(int* to) {
    int* numbers = reinterpret_cast<int*>(dynamic_shared());
    numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
    to[threadIdx.x] = numbers[THREADS - 1 - threadIdx.x];
}

// [5, 32] what each lane gets from the shuffles and the vote.
__global__ void shuffles(int* to) {
    const int lane = static_cast<int>(threadIdx.x);
    to[lane] = __shfl_sync(WHOLE_WARP, lane, 3, 8);
    to[32 + lane] = __shfl_down_sync(WHOLE_WARP, lane, 2, 16);
    to[64 + lane] = __shfl_up_sync(WHOLE_WARP, lane, 1);
    to[96 + lane] = static_cast<int>(__ballot_sync(WHOLE_WARP, lane < 4));
    to[128 + lane] = emulated::together(lane, [](const std::array<int, 32>& all) {
        std::array<int, 32> reversed;
        for (int place = 0; place < 32; ++place) reversed[place] = all[31 - place];
        return reversed;
    });
}

__global__ void returns_before_the_barrier(int*) {
    if (threadIdx.x < 3) return;
    __syncthreads();
}

__global__ void meets_at_two_barriers(int*) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void lanes_part(int* to) {
    if (threadIdx.x % 2 == 0)
        to[threadIdx.x] = __shfl_sync(WHOLE_WARP, 1, 0);
    else
        to[threadIdx.x] = __shfl_xor_sync(WHOLE_WARP, 1, 1);
}

__global__ void half_a_warp(int* to) {
    if (threadIdx.x < 16) to[threadIdx.x] = __shfl_sync(0xFFFFu, 1, 0);
}

__global__ void writes_beyond_shared(int*) { reinterpret_cast<int*>(dynamic_shared())[THREADS + threadIdx.x] = 1; }

__global__ void writes_just_beyond_shared(int*) { reinterpret_cast<int*>(dynamic_shared())[threadIdx.x] = 1; }

__global__ void reads_beyond_memory(int* to) { to[0] = to[2 * THREADS + threadIdx.x]; }

__global__ void reads_unwritten_shared(int* to) {
    to[threadIdx.x] = reinterpret_cast<int*>(dynamic_shared())[threadIdx.x];
}

}  // namespace

// to: [128] on the device, for `shuffles` [160]
extern "C" int probe(const char* name, int* to) {
    constexpr std::int64_t SHARED_BYTES = THREADS * sizeof(int);
    const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
    if (is("talks")) return launch(talks, 2, THREADS, SHARED_BYTES, to);
    if (is("reads_too_early")) return launch(reads_too_early, 1, THREADS, SHARED_BYTES, to);
    if (is("shuffles")) return launch(shuffles, 1, 32, 0, to);
    if (is("returns_before_the_barrier")) return launch(returns_before_the_barrier, 1, THREADS, 0, to);
    if (is("meets_at_two_barriers")) return launch(meets_at_two_barriers, 1, THREADS, 0, to);
    if (is("lanes_part")) return launch(lanes_part, 1, THREADS, 0, to);
    if (is("half_a_warp")) return launch(half_a_warp, 1, THREADS, 0, to);
    if (is("writes_beyond_shared")) return launch(writes_beyond_shared, 1, THREADS, SHARED_BYTES, to);
    if (is("writes_just_beyond_shared")) return launch(writes_just_beyond_shared, 1, THREADS, SHARED_BYTES - 1, to);
    if (is("reads_beyond_memory")) return launch(reads_beyond_memory, 1, THREADS, 0, to);
    if (is("reads_unwritten_shared")) return launch(reads_unwritten_shared, 1, THREADS, SHARED_BYTES, to);
    if (is("part_of_a_warp")) return launch(talks, 1, 33, SHARED_BYTES, to);
    if (is("too_many_threads")) return launch(talks, 1, 2048, SHARED_BYTES, to);
    if (is("too_much_shared")) return launch(talks, 1, THREADS, std::int64_t{228} * 1024, to);
    return -1;
}

extern "C" std::uint16_t probe_bf16(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

extern "C" std::uint8_t probe_e4m3(float value) {
    return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}
