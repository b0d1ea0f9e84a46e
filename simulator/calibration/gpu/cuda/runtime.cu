// What Python needs of the CUDA runtime: the device, its memory, and events.

#include <cstdint>
#include <cstdio>

#include <cuda_runtime.h>

namespace {

// The attributes that rp_device_attribute numbers, but for the memory's size, which the runtime keeps elsewhere.
constexpr int MEMORY_BYTES = 3;
constexpr cudaDeviceAttr ATTRIBUTES[] = {
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMultiProcessorCount,  // stands in the place of the memory's size
    cudaDevAttrL2CacheSize,
    cudaDevAttrClockRate,
    cudaDevAttrMemoryClockRate,
    cudaDevAttrGlobalMemoryBusWidth,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
constexpr int NUM_ATTRIBUTES = sizeof ATTRIBUTES / sizeof ATTRIBUTES[0];

cudaError_t device_properties(int device, cudaDeviceProp* properties) {
    return cudaGetDeviceProperties(properties, device);
}

cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

extern "C" {

const char* rp_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int rp_device_count(int* count) { return cudaGetDeviceCount(count); }

int rp_set_device(int device) { return cudaSetDevice(device); }

// name: [size_bytes] the device's name, cut to what fits, and a zero
int rp_device_name(int device, char* name, std::int64_t size_bytes) {
    cudaDeviceProp properties;
    const cudaError_t error = device_properties(device, &properties);
    if (error == cudaSuccess) std::snprintf(name, static_cast<std::size_t>(size_bytes), "%s", properties.name);
    return error;
}

// which: 0 and 1 the compute capability's major and minor number, 2 SMs, 3 bytes of memory, 4 bytes of L2, 5 SM clock
// in kHz, 6 memory clock in kHz, 7 bits of the memory bus, 8 bytes of shared memory that a block can ask for
int rp_device_attribute(int device, int which, std::int64_t* value) {
    if (which < 0 || which >= NUM_ATTRIBUTES) return cudaErrorInvalidValue;
    if (which == MEMORY_BYTES) {
        cudaDeviceProp properties;
        const cudaError_t error = device_properties(device, &properties);
        if (error == cudaSuccess) *value = static_cast<std::int64_t>(properties.totalGlobalMem);
        return error;
    }
    int number = 0;
    const cudaError_t error = cudaDeviceGetAttribute(&number, ATTRIBUTES[which], device);
    if (error == cudaSuccess) *value = number;
    return error;
}

int rp_driver_version(int* version) { return cudaDriverGetVersion(version); }

int rp_runtime_version(int* version) { return cudaRuntimeGetVersion(version); }

int rp_allocate(void** memory, std::int64_t size_bytes) {
    if (size_bytes < 0) return cudaErrorInvalidValue;
    const cudaError_t error = cudaMalloc(memory, static_cast<std::size_t>(size_bytes));
    if (error != cudaSuccess) cudaGetLastError();  // or the next launch would report it as its own
    return error;
}

int rp_release(void* memory) { return cudaFree(memory); }

int rp_to_device(void* to, const void* from, std::int64_t size_bytes) {
    return cudaMemcpy(to, from, static_cast<std::size_t>(size_bytes), cudaMemcpyHostToDevice);
}

int rp_to_host(void* to, const void* from, std::int64_t size_bytes) {
    return cudaMemcpy(to, from, static_cast<std::size_t>(size_bytes), cudaMemcpyDeviceToHost);
}

int rp_fill(void* memory, int byte, std::int64_t size_bytes) {
    return cudaMemsetAsync(memory, byte, static_cast<std::size_t>(size_bytes));
}

int rp_synchronize() { return cudaDeviceSynchronize(); }

int rp_event_create(void** event) {
    cudaEvent_t created = nullptr;
    const cudaError_t error = cudaEventCreate(&created);
    *event = created;
    return error;
}

int rp_event_record(void* event) { return cudaEventRecord(event_of(event)); }

// Waits for `end`.
int rp_event_elapsed_ms(void* start, void* end, float* elapsed_ms) {
    const cudaError_t error = cudaEventSynchronize(event_of(end));
    return error == cudaSuccess ? cudaEventElapsedTime(elapsed_ms, event_of(start), event_of(end)) : error;
}

int rp_event_destroy(void* event) { return cudaEventDestroy(event_of(event)); }

}  // extern "C"
