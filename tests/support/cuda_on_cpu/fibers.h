// A grid on one CPU thread: blocks one after another, the threads of a block as fibers.
//
// A fiber runs until it waits, at __syncthreads or where the lanes of a warp act together; then the next one runs.
// The order is fixed, so a run is deterministic; `set_reverse_order` starts the threads of a block from the last to
// the first, so that code which lacks a barrier gives something else. What hardware leaves undefined ends the process
// with a message: lanes or threads that meet at different places, and threads that wait for one which has returned.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <type_traits>

#include <vector_types.h>

inline uint3 threadIdx{};
inline uint3 blockIdx{};
inline dim3 blockDim{};
inline dim3 gridDim{};

namespace emulated {

constexpr int WARP_LANES = 32;
constexpr std::size_t MAX_DEPOSIT_BYTES = 256;            // that a lane can bring to a meeting, and take from it
constexpr std::int64_t MAX_SHARED_BYTES = 227 * 1024;     // that a block of sm_90 can have

using Site = std::source_location;

// Runs `body` once for each thread of the grid; false where the launch is one that CUDA refuses.
bool run(dim3 grid, dim3 block, std::int64_t shared_bytes, const std::function<void()>& body);

// The block's dynamic shared memory: 128-byte aligned, filled with 0xFF before each block. A write beyond its end
// ends the process: after the block up to the next multiple of 128 bytes, and at once beyond that.
std::byte* dynamic_shared();

void set_reverse_order(bool is_reverse);

// Waits for `num_threads` threads of the block at barrier `id` of 16 (`bar.sync`); barrier 0 is __syncthreads'.
void wait_at_barrier(int id, int num_threads, Site site);

// Waits for all threads of the block.
void wait_for_block(Site site);

// This thread's place in its warp.
int lane();

// One coming together of a warp's lanes: what each brought, lane after lane, and what was computed of it.
struct Meeting {
    int num_arrived = 0;
    bool is_computed = false;
    Site site;
    alignas(16) std::array<std::byte, WARP_LANES * MAX_DEPOSIT_BYTES> deposits;
    alignas(16) std::array<std::byte, WARP_LANES * MAX_DEPOSIT_BYTES> results;
};

// Deposits this lane's bytes, waits for all 32 lanes, and returns the meeting: valid until the lane's next but one.
Meeting& meet(const void* mine, std::size_t size_bytes, Site site);

// What every lane of the warp brought: [32], by lane. All lanes must come, and to the same call.
template <class T>
std::array<T, WARP_LANES> exchange(const T& mine, Site site = Site::current()) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= MAX_DEPOSIT_BYTES);
    std::array<T, WARP_LANES> all;
    std::memcpy(all.data(), meet(&mine, sizeof(T), site).deposits.data(), sizeof(all));
    return all;
}

// This lane's share of `compute(what all lanes brought) -> [32] results`, computed once a warp.
template <class T, class Compute>
auto together(const T& mine, Compute compute, Site site = Site::current()) {
    using Results = std::invoke_result_t<Compute, const std::array<T, WARP_LANES>&>;
    using Result = typename Results::value_type;
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= MAX_DEPOSIT_BYTES);
    static_assert(std::is_trivially_copyable_v<Result> && sizeof(Result) <= MAX_DEPOSIT_BYTES);
    Meeting& meeting = meet(&mine, sizeof(T), site);
    if (!meeting.is_computed) {
        std::array<T, WARP_LANES> all;
        std::memcpy(all.data(), meeting.deposits.data(), sizeof(all));
        const Results results = compute(all);
        std::memcpy(meeting.results.data(), results.data(), sizeof(results));
        meeting.is_computed = true;
    }
    Result result;
    std::memcpy(&result, meeting.results.data() + lane() * sizeof(Result), sizeof(Result));
    return result;
}

// Ends the process: the kernel does what hardware leaves undefined.
[[noreturn]] void refuse(const char* what, Site site);

}  // namespace emulated
