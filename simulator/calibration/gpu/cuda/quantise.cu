// What dispatch does before it sends: a token's tiles of 128 values become e4m3 with an FP32 scale each, and go to
// the slots of the experts that the token is for. A token is read and quantised once, whatever the number of its
// copies.

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <launch.cuh>
#include <vectors.cuh>

namespace {

constexpr float E4M3_MAX = 448.0f;
constexpr int TILE_VALUES = 128;
constexpr int TILE_LANES = TILE_VALUES / VECTOR_VALUES;  // 16: half a warp has a tile
constexpr int BLOCK_THREADS = 256;
constexpr int BLOCK_LANE_GROUPS = BLOCK_THREADS / TILE_LANES;
// Tiles that a thread works on at once, so that it has as many loads in flight.
constexpr int TILES_AT_ONCE = 2;
constexpr int BLOCK_TILES = BLOCK_LANE_GROUPS * TILES_AT_ONCE;

struct Sizes {
    int num_tiles;       // of all tokens
    int token_tiles;
    int token_vectors;
    int copies;
};

// One lane's part of a tile.
struct Part {
    int tile;            // among all tokens' tiles
    int token;
    int tile_of_token;
    int vector;          // of the token: the lane's eight values
    bool is_inside;      // the last tile of a token may be shorter, and the grid larger than all tiles
};

__device__ __forceinline__ Part part_of(int tile, int lane, const Sizes& sizes) {
    Part part;
    part.tile = tile;
    part.token = tile / sizes.token_tiles;
    part.tile_of_token = tile - part.token * sizes.token_tiles;
    part.vector = part.tile_of_token * TILE_LANES + lane;
    part.is_inside = tile < sizes.num_tiles && part.vector < sizes.token_vectors;
    return part;
}

// The largest magnitude that the 16 lanes of the tile hold.
__device__ __forceinline__ float largest_of_tile(const Eight& mine) {
    float largest = 0.0f;
#pragma unroll
    for (int place = 0; place < VECTOR_VALUES; ++place) largest = fmaxf(largest, fabsf(mine.values[place]));
#pragma unroll
    for (int flips = TILE_LANES / 2; flips > 0; flips /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, flips, TILE_LANES));
    return largest;
}

// The quotient of a tile's value and its scale: three instructions for what a division takes ten and a branch to do.
//
// The product with the reciprocal is off by up to 1.5 units in the last place; its own remainder corrects it to the
// nearest float, but for quotients closer than 2^-23 to the middle of two. A reciprocal of what lies under 2^-126 may
// overflow, so such tiles, whose largest value is under 2^-117, are multiplied by 2^64 first, the scale with them.
struct Divider {
    float factor;
    float divisor;
    float reciprocal;

    __device__ __forceinline__ explicit Divider(float scale) {
        constexpr float SMALLEST_NORMAL = 0x1p-126f;
        factor = scale < SMALLEST_NORMAL ? 0x1p64f : 1.0f;
        divisor = scale * factor;
        reciprocal = 1.0f / divisor;
    }

    __device__ __forceinline__ float operator()(float value) const {
        const float dividend = value * factor;
        const float quotient = dividend * reciprocal;
        return fmaf(fmaf(-quotient, divisor, dividend), reciprocal, quotient);
    }
};

__device__ __forceinline__ unsigned quantised_pair(float low, float high, const Divider& divided) {
    return __nv_cvt_float2_to_fp8x2(make_float2(divided(low), divided(high)), __NV_SATFINITE, __NV_E4M3);
}

__device__ __forceinline__ uint2 quantised(const Eight& eight, float scale) {
    const float* values = eight.values;
    const Divider divided(scale);
    return make_uint2(
        quantised_pair(values[0], values[1], divided) | quantised_pair(values[2], values[3], divided) << 16,
        quantised_pair(values[4], values[5], divided) | quantised_pair(values[6], values[7], divided) << 16);
}

// Writes the tile to each slot of the token. Each of the 16 lanes fetches one slot and writes the scale there; then
// the slots go round, and all lanes write their codes to each.
__device__ __forceinline__ void write_copies(const Part& part, uint2 codes, float scale, const int* slot_of_copy,
                                             uint2* packed, float* scales, const Sizes& sizes, int lane) {
    const bool is_tile = part.tile < sizes.num_tiles;
    for (int first = 0; first < sizes.copies; first += TILE_LANES) {
        const int num_slots = min(TILE_LANES, sizes.copies - first);
        int mine = -1;
        if (is_tile && lane < num_slots) mine = slot_of_copy[std::int64_t{part.token} * sizes.copies + first + lane];
        if (mine >= 0) scales[std::int64_t{mine} * sizes.token_tiles + part.tile_of_token] = scale;
        for (int copy = 0; copy < num_slots; ++copy) {
            const int slot = __shfl_sync(WHOLE_WARP, mine, copy, TILE_LANES);
            if (slot >= 0 && part.is_inside) packed[std::int64_t{slot} * sizes.token_vectors + part.vector] = codes;
        }
    }
}

__global__ void __launch_bounds__(BLOCK_THREADS)
    quantise_pack(const uint4* __restrict__ x, const int* __restrict__ slot_of_copy, uint2* __restrict__ packed,
                  float* __restrict__ scales, Sizes sizes) {
    const int lane = static_cast<int>(threadIdx.x) % TILE_LANES;
    const int first_tile =
        static_cast<int>(blockIdx.x) * BLOCK_TILES + static_cast<int>(threadIdx.x) / TILE_LANES;
    Part parts[TILES_AT_ONCE];
    uint4 vectors[TILES_AT_ONCE];
#pragma unroll
    for (int turn = 0; turn < TILES_AT_ONCE; ++turn) {
        const Part part = parts[turn] = part_of(first_tile + turn * BLOCK_LANE_GROUPS, lane, sizes);
        vectors[turn] = make_uint4(0, 0, 0, 0);
        if (part.is_inside) vectors[turn] = __ldcs(x + std::int64_t{part.token} * sizes.token_vectors + part.vector);
    }
#pragma unroll
    for (int turn = 0; turn < TILES_AT_ONCE; ++turn) {
        const Eight eight = unpacked(vectors[turn]);
        const float largest = largest_of_tile(eight);
        const float scale = largest > 0.0f ? largest / E4M3_MAX : 1.0f;
        write_copies(parts[turn], quantised(eight, scale), scale, slot_of_copy, packed, scales, sizes, lane);
    }
}

}  // namespace

// x: [tokens, hidden] bf16, finite; slot_of_copy: [tokens, copies] the row that takes the copy, -1 for none
// packed: [slots, hidden] e4m3 of x over its tile's scale, to nearest even, saturating; written
// scale: [slots, ceil(hidden / 128)] largest magnitude of the tile over 448, 1 for a tile of zeros; written
extern "C" int rp_quantise_pack(const void* x, const std::int32_t* slot_of_copy, std::uint8_t* packed, float* scale,
                                std::int64_t tokens, std::int64_t hidden, std::int64_t copies) {
    if (!is_row_size(tokens, hidden) || copies < 1 || copies > INT32_MAX) return cudaErrorInvalidValue;
    if (!is_aligned(x) || !is_aligned(packed, sizeof(uint2))) return cudaErrorMisalignedAddress;
    const std::int64_t token_tiles = divided_up(hidden, TILE_VALUES);
    const std::int64_t num_blocks = divided_up(tokens * token_tiles, BLOCK_TILES);
    // Tiles are counted in 32 bits: 64-bit divisions would take longer than the tile.
    if (num_blocks * BLOCK_TILES > INT32_MAX) return cudaErrorInvalidValue;
    const Sizes sizes{static_cast<int>(tokens * token_tiles), static_cast<int>(token_tiles),
                      static_cast<int>(hidden / VECTOR_VALUES), static_cast<int>(copies)};
    return launch(quantise_pack, static_cast<unsigned>(num_blocks), BLOCK_THREADS, 0, static_cast<const uint4*>(x),
                  slot_of_copy, reinterpret_cast<uint2*>(packed), scale, sizes);
}
