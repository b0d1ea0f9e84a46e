// Into how many ranges of its cached tokens a request is split.
#pragma once

#include <algorithm>
#include <cstdint>

#include <mla_shape.cuh>

namespace mla {

// Reasoned, not measured, in the time that a block takes for a tile: a block that starts waits for its first tile (two
// latencies of memory); one that writes a partial result, 2 KiB a head, moves three to four tiles' bytes there and
// back; and each further split makes the second kernel's reading longer.
constexpr double START_TILES = 2;
constexpr double PARTIAL_TILES = 4;
constexpr double COMBINE_TILES_PER_SPLIT = 1.0 / 16;

// Tiles that pass before the last block ends, if all requests are as long: blocks run in waves that fill the device.
inline double tiles_of_time(std::int64_t blocks, std::int64_t slots, std::int64_t tiles, std::int64_t splits) {
    const std::int64_t waves = (blocks * splits + slots - 1) / slots;
    const double block_tiles = static_cast<double>((tiles + splits - 1) / splits) + START_TILES;
    if (splits == 1) return static_cast<double>(waves) * block_tiles;
    return static_cast<double>(waves) * (block_tiles + PARTIAL_TILES) +
           COMBINE_TILES_PER_SPLIT * static_cast<double>(splits);
}

// The fewest splits of the least time; each has a tile at least.
template <class S>
std::int64_t least_wasteful_splits_of(std::int64_t requests, std::int64_t heads, std::int64_t tokens,
                                      std::int64_t sms) {
    const std::int64_t blocks = requests * ((heads + S::heads - 1) / S::heads);
    const std::int64_t slots = sms * S::blocks_per_sm;
    const std::int64_t tiles = std::max<std::int64_t>((tokens + S::tokens - 1) / S::tokens, 1);
    std::int64_t best = 1;
    for (std::int64_t splits = 2; splits <= std::min(tiles, slots); ++splits)
        if (tiles_of_time(blocks, slots, tiles, splits) < tiles_of_time(blocks, slots, tiles, best)) best = splits;
    return best;
}

inline std::int64_t least_wasteful_splits(std::int64_t requests, std::int64_t heads, std::int64_t tokens,
                                          std::int64_t sms) {
    if (heads <= UpTo16Heads::heads) return least_wasteful_splits_of<UpTo16Heads>(requests, heads, tokens, sms);
    if (heads <= UpTo32Heads::heads) return least_wasteful_splits_of<UpTo32Heads>(requests, heads, tokens, sms);
    return least_wasteful_splits_of<UpTo64Heads>(requests, heads, tokens, sms);
}

}  // namespace mla
