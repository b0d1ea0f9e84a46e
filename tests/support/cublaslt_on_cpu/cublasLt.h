// Stands in for cuBLASLt's header where g++ compiles gemm.cu for the CPU: the calls that it makes, on column-major
// matrices as the library's documentation defines them, written from that documentation and not from gemm.cu.
// What the library refuses on a Hopper GPU is refused here too. Sums are in double.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>

#define CUBLAS_VERSION 130000

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14, CUDA_R_8F_E4M3 = 28 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasLtMatmulMatrixScale_t {
    CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F = 0,
    CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F = 4,
    CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F = 5,
};
enum cublasLtMatmulDescAttributes_t {
    CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CUBLASLT_MATMUL_DESC_TRANSB = 4,
    CUBLASLT_MATMUL_DESC_A_SCALE_POINTER = 17,
    CUBLASLT_MATMUL_DESC_B_SCALE_POINTER = 18,
    CUBLASLT_MATMUL_DESC_FAST_ACCUM = 25,
    CUBLASLT_MATMUL_DESC_A_SCALE_MODE = 31,
    CUBLASLT_MATMUL_DESC_B_SCALE_MODE = 32,
};
enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
};
enum cublasLtReductionScheme_t { CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2 };

struct StandInOperation {
    cublasOperation_t of_a = CUBLAS_OP_N, of_b = CUBLAS_OP_N;
    const float *scale_a = nullptr, *scale_b = nullptr;
    int32_t mode_a = 0, mode_b = 0;
    int8_t fast_accumulation = 0;
};
struct StandInLayout {
    cudaDataType_t type;
    int64_t rows, columns, leading;
};
struct StandInPreference {};
struct StandInLibrary {};
using cublasLtMatmulDesc_t = StandInOperation*;
using cublasLtMatrixLayout_t = StandInLayout*;
using cublasLtMatmulPreference_t = StandInPreference*;
using cublasLtHandle_t = StandInLibrary*;
struct cublasLtMatmulAlgo_t {
    int is_chosen;
};
struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
    std::size_t workspaceSize;
    cublasStatus_t state;
};

inline std::size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
inline const char* cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality requested is not supported" : "invalid value";
}

template <class Made>
cublasStatus_t stand_in_make(Made** made, const Made& from) {
    *made = new Made(from);
    return CUBLAS_STATUS_SUCCESS;
}
template <class Made>
cublasStatus_t stand_in_destroy(Made* made) {
    delete made;
    return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtCreate(cublasLtHandle_t* made) { return stand_in_make(made, StandInLibrary{}); }
inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t, cudaDataType_t) {
    return stand_in_make(made, StandInOperation{});
}
inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type, uint64_t rows,
                                                 uint64_t columns, int64_t leading) {
    return stand_in_make(made, StandInLayout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), leading});
}
inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
    return stand_in_make(made, StandInPreference{});
}
inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t made) { return stand_in_destroy(made); }
inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t made) { return stand_in_destroy(made); }
inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t made) { return stand_in_destroy(made); }

template <class Field>
cublasStatus_t stand_in_set(Field& field, const void* from, std::size_t size_bytes) {
    if (size_bytes != sizeof(Field)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&field, from, size_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t of, cublasLtMatmulDescAttributes_t which,
                                                     const void* from, std::size_t size_bytes) {
    switch (which) {
        case CUBLASLT_MATMUL_DESC_TRANSA: return stand_in_set(of->of_a, from, size_bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB: return stand_in_set(of->of_b, from, size_bytes);
        case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return stand_in_set(of->scale_a, from, size_bytes);
        case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return stand_in_set(of->scale_b, from, size_bytes);
        case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: return stand_in_set(of->mode_a, from, size_bytes);
        case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: return stand_in_set(of->mode_b, from, size_bytes);
        case CUBLASLT_MATMUL_DESC_FAST_ACCUM: return stand_in_set(of->fast_accumulation, from, size_bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                           cublasLtMatmulPreferenceAttributes_t which, const void*,
                                                           std::size_t size_bytes) {
    const bool is_bytes = which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    return size_bytes == (is_bytes ? sizeof(uint64_t) : sizeof(uint32_t)) ? CUBLAS_STATUS_SUCCESS
                                                                         : CUBLAS_STATUS_INVALID_VALUE;
}

inline float stand_in_value(const StandInLayout& layout, const void* matrix, int64_t row, int64_t column) {
    const int64_t place = row + column * layout.leading;
    if (layout.type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(matrix)[place]);
    const int code = static_cast<const uint8_t*>(matrix)[place];
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    if (exponent == 15 && mantissa == 7) return NAN;
    const float magnitude = exponent ? std::ldexp(8.0f + mantissa, exponent - 10) : std::ldexp(1.0f * mantissa, -9);
    return code & 0x80 ? -magnitude : magnitude;
}

// The scale of element (along k, across) of an operand whose outer size is `outer`.
inline float stand_in_scale(int32_t mode, const float* scale, int64_t k, int64_t along, int64_t across,
                            int64_t outer) {
    const int64_t blocks = (k + 127) / 128, blocks_rounded_up = (blocks + 3) / 4 * 4;
    switch (mode) {
        case CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F: return scale[along / 128 * outer + across];
        case CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F:
            return scale[along / 128 + across / 128 * blocks_rounded_up];
        default: return scale ? *scale : 1.0f;
    }
}

inline cublasStatus_t stand_in_check(const StandInOperation& operation, const StandInLayout& a, const StandInLayout& b,
                                     const StandInLayout& d) {
    if (operation.of_a != CUBLAS_OP_T || operation.of_b != CUBLAS_OP_N || a.type != b.type || a.rows != b.rows ||
        d.rows != a.columns || d.columns != b.columns || d.type != CUDA_R_16BF) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (a.type == CUDA_R_16BF) {
        const bool has_scales = operation.scale_a || operation.scale_b || operation.mode_a || operation.mode_b;
        return has_scales ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
    }
    if (a.leading % 16 || b.leading % 16 || d.leading % 8) return CUBLAS_STATUS_NOT_SUPPORTED;
    const bool by_blocks = operation.mode_a || operation.mode_b;
    if (by_blocks && (a.columns % 4 || b.columns % 4)) return CUBLAS_STATUS_NOT_SUPPORTED;
    return operation.mode_a == operation.mode_b && by_blocks &&
                   operation.mode_a == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F
               ? CUBLAS_STATUS_NOT_SUPPORTED
               : CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t, int,
                                                     cublasLtMatmulHeuristicResult_t* result, int* found) {
    result->state = stand_in_check(*operation, *a, *b, *d);
    result->algo.is_chosen = 1;
    *found = result->state == CUBLAS_STATUS_SUCCESS;
    return result->state;
}

inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                                     const void* first, cublasLtMatrixLayout_t a, const void* second,
                                     cublasLtMatrixLayout_t b, const void* beta, const void*, cublasLtMatrixLayout_t,
                                     void* out, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algorithm, void*,
                                     std::size_t, void*) {
    if (!algorithm->is_chosen || *static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const int64_t k = a->rows;
    const auto scaled = [&](const StandInLayout& of, const void* matrix, int32_t mode, const float* scale) {
        std::vector<double> values(static_cast<std::size_t>(k * of.columns));
        for (int64_t column = 0; column < of.columns; ++column) {
            for (int64_t row = 0; row < k; ++row) {
                values[row + column * k] = static_cast<double>(stand_in_value(of, matrix, row, column)) *
                                           stand_in_scale(mode, scale, k, row, column, of.columns);
            }
        }
        return values;
    };
    const auto left = scaled(*a, first, operation->mode_a, operation->scale_a);
    const auto right = scaled(*b, second, operation->mode_b, operation->scale_b);
    for (int64_t column = 0; column < d->columns; ++column) {
        for (int64_t row = 0; row < d->rows; ++row) {
            double sum = 0;
            for (int64_t i = 0; i < k; ++i) sum += left[i + row * k] * right[i + column * k];
            static_cast<__nv_bfloat16*>(out)[row + column * d->leading] = __float2bfloat16_rn(static_cast<float>(sum));
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}
