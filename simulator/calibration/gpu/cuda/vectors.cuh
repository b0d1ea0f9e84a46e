// Eight bf16 numbers are the 16 bytes that a thread reads or writes at once; this takes them apart and puts them
// together.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

constexpr int VECTOR_VALUES = 8;
constexpr int VECTOR_BYTES_OF_BF16 = 16;
constexpr int WARP_THREADS = 32;
constexpr unsigned WHOLE_WARP = 0xFFFFFFFFu;

struct Eight {
    float values[VECTOR_VALUES];
};

// A bf16 number is the upper half of a float's bits; of two in a word the lower half comes first.
__device__ __forceinline__ Eight unpacked(uint4 vector) {
    const unsigned words[4] = {vector.x, vector.y, vector.z, vector.w};
    Eight eight;
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
        eight.values[2 * pair] = __uint_as_float(words[pair] << 16);
        eight.values[2 * pair + 1] = __uint_as_float(words[pair] & 0xFFFF0000u);
    }
    return eight;
}

// Rounds to nearest, ties to even.
__device__ __forceinline__ unsigned packed_pair(float low, float high) {
    return static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
           static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16;
}

__device__ __forceinline__ uint4 packed(const Eight& eight) {
    return make_uint4(packed_pair(eight.values[0], eight.values[1]), packed_pair(eight.values[2], eight.values[3]),
                      packed_pair(eight.values[4], eight.values[5]), packed_pair(eight.values[6], eight.values[7]));
}

// --- on the host ---

constexpr std::int64_t divided_up(std::int64_t size, std::int64_t unit) { return (size + unit - 1) / unit; }

inline bool is_aligned(const void* pointer, int bytes = VECTOR_BYTES_OF_BF16) {
    return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(bytes) == 0;
}

// Rows are whole vectors, and there is at least one; at most as many rows as a grid can have blocks along x.
inline bool is_row_size(std::int64_t rows, std::int64_t hidden) {
    return rows >= 1 && rows <= INT32_MAX && hidden >= VECTOR_VALUES && hidden <= INT32_MAX &&
           hidden % VECTOR_VALUES == 0;
}
