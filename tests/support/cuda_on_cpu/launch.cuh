// Stands in for the kernels' own header of this name: the same two functions, on the CPU.
#pragma once

#include <cuda_runtime.h>

inline std::byte* dynamic_shared() { return emulated::dynamic_shared(); }

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::int64_t shared_bytes,
                   Arguments... arguments) {
    const bool is_run = emulated::run(grid, block, shared_bytes, [&] { kernel(arguments...); });
    return is_run ? cudaSuccess : cudaErrorInvalidConfiguration;
}
