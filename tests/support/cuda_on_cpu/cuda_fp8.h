// e4m3 as CUDA's header of this name packs it: to nearest, ties to even, saturating at 448; NaN is 0x7F.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include <vector_types.h>

using __nv_fp8_storage_t = std::uint8_t;
using __nv_fp8x2_storage_t = std::uint16_t;

enum __nv_saturation_t { __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3 };

inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float value, __nv_saturation_t, __nv_fp8_interpretation_t) {
    if (std::isnan(value)) return 0x7F;
    const int sign = std::signbit(value) ? 0x80 : 0;
    const float magnitude = std::fabs(value);
    if (magnitude >= 448.0f) return static_cast<std::uint8_t>(sign | 0x7E);
    // The step between neighbours: 2^-9 below 2^-6, where numbers are subnormal; then an eighth of the power of two.
    const int exponent = std::max(magnitude > 0.0f ? std::ilogb(magnitude) : -6, -6);
    const int steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));  // ties to even
    // Codes count steps on: 8 steps of a binade end where the next begins, so a carry needs no care.
    return static_cast<std::uint8_t>(sign | (((exponent + 6) << 3) + steps));
}

// The pair's x goes to the low byte.
inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 pair, __nv_saturation_t saturate,
                                                     __nv_fp8_interpretation_t format) {
    return static_cast<std::uint16_t>(__nv_cvt_float_to_fp8(pair.x, saturate, format) |
                                      __nv_cvt_float_to_fp8(pair.y, saturate, format) << 8);
}
