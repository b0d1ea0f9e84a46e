// How kernels are launched and where their dynamic shared memory is: the two things of CUDA's language that are not
// C++, kept here so that the kernels' sources are C++ that any compiler takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

// What a block can have of dynamic shared memory without asking.
constexpr std::int64_t SHARED_BYTES_UNASKED = 48 * 1024;

// The block's dynamic shared memory, 128-byte aligned.
__device__ __forceinline__ std::byte* dynamic_shared() {
    extern __shared__ __align__(128) std::byte shared_memory[];
    return shared_memory;
}

// Lets a kernel have that much shared memory, and as many of its blocks share a multiprocessor as its memory holds.
template <class Kernel>
cudaError_t ask_for_shared_memory(Kernel* kernel, std::int64_t shared_bytes) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
}

// Puts the kernel on the default stream; returns what the launch itself came to.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::int64_t shared_bytes,
                   Arguments... arguments) {
    if (shared_bytes > SHARED_BYTES_UNASKED) {
        const cudaError_t error = ask_for_shared_memory(kernel, shared_bytes);
        if (error != cudaSuccess) return error;
    }
    kernel<<<grid, block, static_cast<std::size_t>(shared_bytes)>>>(arguments...);
    return cudaGetLastError();
}
