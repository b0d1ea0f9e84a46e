#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

struct EmulatedEvent {
    std::chrono::steady_clock::time_point recorded_at;
};

namespace {

// A small device, so that grids which fill it are small too.
constexpr int NUM_SMS = 4;
constexpr std::size_t DEVICE_BYTES = std::size_t{1} << 30;
constexpr int VERSION = 13000;
constexpr std::size_t ALIGNMENT_BYTES = 16;  // of an allocation's start: less than CUDA's 256, for its end's sake

struct Mapping {
    void* start;
    std::size_t size_bytes;
};
std::map<void*, Mapping> mapping_of;

cudaError_t checked(bool is_right, cudaError_t error) { return is_right ? cudaSuccess : error; }

}  // namespace

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorInvalidResourceHandle: return "invalid resource handle";
        case cudaErrorMisalignedAddress: return "misaligned address";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return checked(device == 0, cudaErrorInvalidDevice); }

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    std::snprintf(properties->name, sizeof properties->name, "CUDA on the CPU");
    properties->totalGlobalMem = DEVICE_BYTES;
    return checked(device == 0, cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
    switch (which) {
        case cudaDevAttrClockRate: *value = 1'000'000; break;
        case cudaDevAttrMultiProcessorCount: *value = NUM_SMS; break;
        case cudaDevAttrMemoryClockRate: *value = 2'000'000; break;
        case cudaDevAttrGlobalMemoryBusWidth: *value = 64; break;
        case cudaDevAttrL2CacheSize: *value = 1 << 16; break;
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 * 1024; break;
    }
    return checked(device == 0, cudaErrorInvalidDevice);
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

// The allocation ends where a page begins that cannot be touched: a read or write beyond it ends the process. Memory
// comes poisoned, for a device's holds what was there before.
cudaError_t cudaMalloc(void** memory, std::size_t size_bytes) {
    *memory = nullptr;
    if (size_bytes == 0) return cudaSuccess;
    if (size_bytes > DEVICE_BYTES) return cudaErrorMemoryAllocation;
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t rounded_bytes = (size_bytes + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    const std::size_t usable_bytes = (rounded_bytes + page - 1) / page * page;
    void* start = mmap(nullptr, usable_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return cudaErrorMemoryAllocation;
    mprotect(start, usable_bytes, PROT_READ | PROT_WRITE);
    std::memset(start, 0xFF, usable_bytes);
    *memory = static_cast<char*>(start) + usable_bytes - rounded_bytes;
    mapping_of[*memory] = {start, usable_bytes + page};
    return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    const auto found = mapping_of.find(memory);
    if (found == mapping_of.end()) return cudaErrorInvalidValue;
    munmap(found->second.start, found->second.size_bytes);
    mapping_of.erase(found);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind) {
    std::memcpy(to, from, size_bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void* memory, int byte, std::size_t size_bytes) {
    std::memset(memory, byte, size_bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t size_bytes) {
    return cudaMemset(memory, byte, size_bytes);
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    *event = new EmulatedEvent{};
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event) {
    event->recorded_at = std::chrono::steady_clock::now();
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }

cudaError_t cudaEventElapsedTime(float* elapsed_ms, cudaEvent_t start, cudaEvent_t end) {
    *elapsed_ms = std::chrono::duration<float, std::milli>(end->recorded_at - start->recorded_at).count();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
