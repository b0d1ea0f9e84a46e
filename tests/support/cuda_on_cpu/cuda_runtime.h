// Stands in for CUDA's header of this name where g++ compiles the kernels for the CPU: the language, what a thread
// can call, and (cuda_runtime_api.h) what the host can. Only what kernels use is here; the rest does not compile.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>
#include <fibers.h>
#include <vector_types.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __shared__ static  // blocks run one after another; unlike dynamic shared memory it is not poisoned
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

using std::max;
using std::min;

inline void __syncthreads(emulated::Site site = emulated::Site::current()) { emulated::wait_for_block(site); }

namespace emulated {

constexpr unsigned FULL_WARP = 0xFFFFFFFFu;

inline void check_mask(unsigned mask, Site site) {
    if (mask != FULL_WARP) refuse("the emulation knows whole warps only: mask 0xFFFFFFFF", site);
}

// The value of the lane `source`, or this lane's own where that lies outside its segment of `width` lanes.
template <class T>
T shuffle(unsigned mask, T mine, int source, int width, Site site) {
    check_mask(mask, site);
    const auto all = exchange(mine, site);
    const int first = lane() / width * width;
    return all[source < first || source >= first + width ? lane() : source];
}

}  // namespace emulated

inline void __syncwarp(unsigned mask = emulated::FULL_WARP, emulated::Site site = emulated::Site::current()) {
    emulated::check_mask(mask, site);
    emulated::exchange(char{}, site);
}

template <class T>
T __shfl_sync(unsigned mask, T mine, int source, int width = 32, emulated::Site site = emulated::Site::current()) {
    const int first = emulated::lane() / width * width;
    return emulated::shuffle(mask, mine, first + (source & (width - 1)), width, site);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T mine, int flips, int width = 32, emulated::Site site = emulated::Site::current()) {
    return emulated::shuffle(mask, mine, emulated::lane() ^ flips, width, site);
}

template <class T>
T __shfl_down_sync(unsigned mask, T mine, unsigned by, int width = 32,
                   emulated::Site site = emulated::Site::current()) {
    return emulated::shuffle(mask, mine, emulated::lane() + static_cast<int>(by), width, site);
}

template <class T>
T __shfl_up_sync(unsigned mask, T mine, unsigned by, int width = 32,
                 emulated::Site site = emulated::Site::current()) {
    return emulated::shuffle(mask, mine, emulated::lane() - static_cast<int>(by), width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, emulated::Site site = emulated::Site::current()) {
    emulated::check_mask(mask, site);
    const auto all = emulated::exchange(predicate != 0, site);
    unsigned votes = 0;
    for (int lane = 0; lane < emulated::WARP_LANES; ++lane) votes |= static_cast<unsigned>(all[lane]) << lane;
    return votes;
}

inline int __any_sync(unsigned mask, int predicate, emulated::Site site = emulated::Site::current()) {
    return __ballot_sync(mask, predicate, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate, emulated::Site site = emulated::Site::current()) {
    return __ballot_sync(mask, predicate, site) == emulated::FULL_WARP;
}

// Loads and stores with a hint for the caches.
template <class T>
T __ldg(const T* from) { return *from; }
template <class T>
T __ldcs(const T* from) { return *from; }
template <class T>
T __ldcg(const T* from) { return *from; }
template <class T>
void __stcs(T* to, T value) { *to = value; }
template <class T>
void __stcg(T* to, T value) { *to = value; }

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
