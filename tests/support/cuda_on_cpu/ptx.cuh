// Stands in for the kernels' own header of this name: the same functions, on the CPU.
//
// An asynchronous copy poisons its destination when it starts and lands when its thread waits for it, so that what is
// overwritten too early, and what is read too early, both show as NaN. Fragments are laid out as PTX has them; products
// are exact and a multiplication's 17 addends are rounded once, to nearest (hardware truncates: less exact).
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

// Bytes from the start of the block's dynamic shared memory.
using SharedAddress = std::uint32_t;

inline SharedAddress shared_address(const void* pointer) {
    return static_cast<SharedAddress>(static_cast<const std::byte*>(pointer) - emulated::dynamic_shared());
}

namespace emulated {

constexpr std::size_t VECTOR_BYTES = 16;

struct Copy {
    std::byte* to;
    const void* from;  // null: zeros
};

// The copies that a thread has started and not yet waited for; the last group is the open one.
struct CopyGroups {
    uint3 block{};
    std::vector<std::vector<Copy>> groups{1};
};

inline CopyGroups& copy_groups() {
    static std::vector<CopyGroups> of_thread(1024);
    CopyGroups& mine = of_thread[threadIdx.x];
    const uint3 block = mine.block;
    if (block.x != blockIdx.x || block.y != blockIdx.y || block.z != blockIdx.z) mine = {blockIdx};
    return mine;
}

inline std::byte* vector_at(SharedAddress address, Site site) {
    if (address % VECTOR_BYTES != 0) refuse("an address in shared memory that 16 does not divide", site);
    return dynamic_shared() + address;
}

inline void land(const Copy& copy) {
    if (copy.from == nullptr) std::memset(copy.to, 0, VECTOR_BYTES);
    else std::memcpy(copy.to, copy.from, VECTOR_BYTES);
}

using Matrix = std::array<std::array<std::uint16_t, 8>, 8>;

// The four matrices whose rows the lanes' addresses name.
inline std::array<Matrix, 4> matrices_at(const std::array<std::byte*, WARP_LANES>& rows) {
    std::array<Matrix, 4> matrices;
    for (int lane = 0; lane < WARP_LANES; ++lane) std::memcpy(&matrices[lane / 8][lane % 8], rows[lane], VECTOR_BYTES);
    return matrices;
}

inline std::uint32_t two_bf16(std::uint16_t low, std::uint16_t high) { return low | std::uint32_t{high} << 16; }

using Fragment = std::array<std::uint32_t, 4>;

inline std::array<Fragment, WARP_LANES> fragments_of(const std::array<Matrix, 4>& matrices, bool is_transposed) {
    std::array<Fragment, WARP_LANES> fragments;
    for (int lane = 0; lane < WARP_LANES; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int group = lane / 4, column = 2 * (lane % 4);
            const Matrix& matrix = matrices[i];
            fragments[lane][i] = is_transposed ? two_bf16(matrix[column][group], matrix[column + 1][group])
                                               : two_bf16(matrix[group][column], matrix[group][column + 1]);
        }
    return fragments;
}

inline void load_fragment(std::uint32_t (&fragment)[4], SharedAddress row, bool is_transposed, Site site) {
    const auto compute = [&](const auto& rows) { return fragments_of(matrices_at(rows), is_transposed); };
    const Fragment mine = together(vector_at(row, site), compute, site);
    std::memcpy(fragment, mine.data(), sizeof(mine));
}

struct Operands {
    std::array<float, 4> sums;
    std::array<std::uint32_t, 4> left;
    std::array<std::uint32_t, 2> right;
};

inline float bf16_half(std::uint32_t pair, int which) {
    return std::bit_cast<float>(which == 0 ? pair << 16 : pair & 0xFFFF0000u);
}

// [16, 16] left and [16, 8] right, from the registers of all lanes.
inline void gather(const std::array<Operands, WARP_LANES>& all, float (&left)[16][16], float (&right)[16][8]) {
    for (int lane = 0; lane < WARP_LANES; ++lane) {
        const int group = lane / 4, pair = lane % 4;
        for (int which = 0; which < 2; ++which) {
            for (int i = 0; i < 4; ++i)
                left[group + 8 * (i % 2)][2 * pair + 8 * (i / 2) + which] = bf16_half(all[lane].left[i], which);
            for (int i = 0; i < 2; ++i) right[2 * pair + 8 * i + which][group] = bf16_half(all[lane].right[i], which);
        }
    }
}

inline std::array<std::array<float, 4>, WARP_LANES> products(const std::array<Operands, WARP_LANES>& all) {
    float left[16][16], right[16][8];
    gather(all, left, right);
    std::array<std::array<float, 4>, WARP_LANES> results;
    for (int lane = 0; lane < WARP_LANES; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            double sum = all[lane].sums[i];
            for (int depth = 0; depth < 16; ++depth) sum += double{left[row][depth]} * double{right[depth][column]};
            results[lane][i] = static_cast<float>(sum);
        }
    return results;
}

}  // namespace emulated

inline void copy_async(SharedAddress to, const void* from, bool is_there,
                       emulated::Site site = emulated::Site::current()) {
    if (std::bit_cast<std::uintptr_t>(from) % emulated::VECTOR_BYTES != 0)
        emulated::refuse("a copy from an address that 16 does not divide", site);
    std::byte* destination = emulated::vector_at(to, site);
    std::memset(destination, 0xFF, emulated::VECTOR_BYTES);
    emulated::copy_groups().groups.back().push_back({destination, is_there ? from : nullptr});
}

inline void close_copy_group() { emulated::copy_groups().groups.emplace_back(); }

template <int pending>
inline void wait_for_copies() {
    auto& groups = emulated::copy_groups().groups;
    while (groups.size() > pending + 1) {
        for (const auto& copy : groups.front()) emulated::land(copy);
        groups.erase(groups.begin());
    }
}

inline void load_matrices(std::uint32_t (&fragment)[4], SharedAddress row,
                          emulated::Site site = emulated::Site::current()) {
    emulated::load_fragment(fragment, row, false, site);
}

inline void load_matrices_transposed(std::uint32_t (&fragment)[4], SharedAddress row,
                                     emulated::Site site = emulated::Site::current()) {
    emulated::load_fragment(fragment, row, true, site);
}

inline void multiply_add(float (&sums)[4], const std::uint32_t (&left)[4], std::uint32_t right_low,
                         std::uint32_t right_high, emulated::Site site = emulated::Site::current()) {
    emulated::Operands mine{.sums = {sums[0], sums[1], sums[2], sums[3]},
                            .left = {left[0], left[1], left[2], left[3]},
                            .right = {right_low, right_high}};
    const auto result = emulated::together(mine, emulated::products, site);
    std::memcpy(sums, result.data(), sizeof(result));
}

inline std::uint32_t pack_bf16(float low, float high) {
    return emulated::two_bf16(__float2bfloat16_rn(low).bits, __float2bfloat16_rn(high).bits);
}

inline bool any_lane(bool statement, emulated::Site site = emulated::Site::current()) {
    return __any_sync(emulated::FULL_WARP, statement, site) != 0;
}

inline float power_of_two(float exponent) {
    const float power = std::exp2(exponent);
    return power < 0x1p-126f ? 0 : power;
}

inline unsigned block_index() { return blockIdx.x; }

inline unsigned computed_anew(unsigned number) { return number; }
