// The few instructions that CUDA C++ has no function for: asynchronous copies into shared memory, fragments of
// matrices out of shared memory, and the tensor cores' multiplication (PTX ISA 8.0, sections 9.7.8.25, 9.7.14.5).
//
// A fragment is what one lane holds of a matrix that the 32 lanes of a warp hold together. With `group` = lane / 4 and
// `pair` = lane % 4, and two BF16 numbers to a register, the lower column (or depth) in the lower half:
//   left   [16 rows, 16 deep]     register i: row group + 8 (i % 2), depth 2 pair + 8 (i / 2)
//   right  [16 deep, 8 columns]   register i: column group, depth 2 pair + 8 i
//   sums   [16 rows, 8 columns]   number i: row group + 8 (i / 2), column 2 pair + i % 2
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

// A place in the block's shared memory, as PTX counts it.
using SharedAddress = std::uint32_t;

__device__ inline SharedAddress shared_address(const void* pointer) {
    return static_cast<SharedAddress>(__cvta_generic_to_shared(pointer));
}

// Start to copy 16 bytes past the first-level cache, or 16 zeros (reading nothing) where `is_there` is false.
__device__ inline void copy_async(SharedAddress to, const void* from, bool is_there) {
    const int bytes_read = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"(from), "r"(bytes_read)
                 : "memory");
}

// Close the thread's group of copies started since the last one closed; a group may be empty.
__device__ inline void close_copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait for the thread's own copies, but for those of its `pending` newest groups. A barrier shows them to others.
template <int pending>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Load four 8 x 8 matrices; lane 8 i + r gives the address of row r, 16 bytes, of matrix i. Register i: row group,
// columns 2 pair and 2 pair + 1 of matrix i.
__device__ inline void load_matrices(std::uint32_t (&fragment)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(row)
                 : "memory");
}

// The same of the matrices' transposes. Register i: rows 2 pair and 2 pair + 1, column group of matrix i.
__device__ inline void load_matrices_transposed(std::uint32_t (&fragment)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(row)
                 : "memory");
}

// sums += left right, in FP32.
__device__ inline void multiply_add(float (&sums)[4], const std::uint32_t (&left)[4], std::uint32_t right_low,
                                    std::uint32_t right_high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_low), "r"(right_high));
}

// Two numbers rounded to BF16, nearest even, in one register, as fragments have them.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// Return whether the statement holds on any lane of the warp.
__device__ inline bool any_lane(bool statement) { return __any_sync(0xffffffffu, statement) != 0; }

// 2^exponent, to 2 units in the last place (PTX ISA, ex2); what is below the normal numbers becomes zero.
__device__ inline float power_of_two(float exponent) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    return power;
}

// The block's index, read anew at each call, so that what follows from it need not stay in registers.
__device__ inline unsigned block_index() {
    unsigned index;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
    return index;
}

// The same number, of which the compiler knows nothing: what follows from it is computed here, not kept in registers
// from before a loop.
__device__ inline unsigned computed_anew(unsigned number) {
    asm volatile("" : "+r"(number));
    return number;
}
