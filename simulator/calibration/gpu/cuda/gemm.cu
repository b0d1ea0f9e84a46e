// Matrix products through cuBLASLt: D[m, n] = A[m, k] B[n, k]^T, all row-major, BF16 out, sums in FP32.
//
// cuBLASLt thinks in columns. A row-major [rows, k] matrix is to it a [k, rows] matrix, so that what is computed is
//     D^T [n, m] = (B as [k, n])^T (A as [k, m])
// and its first operand is our B (the weights), its second our A (the activations). Their scales swap with them.
// FP8 products exist in this form only, with both operands running along k.
//
// Layout of the scales of format 2, as cuBLASLt's documentation gives it ("128-element 1D and 128x128 2D block
// scaling"), with L = ceil(k / 128) and L4 = L rounded up to a multiple of 4:
//     scale_a: [L, m]               FP32, one for 128 values of a row of A, rows next to each other
//     scale_b: [ceil(n / 128), L4]  FP32, one for a 128x128 block of B, blocks along k next to each other
// It needs m to be a multiple of 4, and FP8 products need rows of whole 16 bytes: k a multiple of 16, n of 8.

#include <cstdint>
#include <memory>
#include <type_traits>

#include <cublasLt.h>
#include <cuda_runtime.h>

namespace {

enum Format : int { kBf16 = 0, kFp8 = 1, kFp8Block = 2 };

// Scaling by blocks came with cuBLAS 12.9.
constexpr bool kHasBlockScales = CUBLAS_VERSION >= 120900;
#if CUBLAS_VERSION >= 120900
constexpr int32_t kScalePer128OfRow = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
constexpr int32_t kScalePer128x128 = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
constexpr auto kModeOfFirst = CUBLASLT_MATMUL_DESC_A_SCALE_MODE;
constexpr auto kModeOfSecond = CUBLASLT_MATMUL_DESC_B_SCALE_MODE;
#else
constexpr int32_t kScalePer128OfRow = 0;
constexpr int32_t kScalePer128x128 = 0;
constexpr auto kModeOfFirst = CUBLASLT_MATMUL_DESC_A_SCALE_POINTER;
constexpr auto kModeOfSecond = CUBLASLT_MATMUL_DESC_B_SCALE_POINTER;
#endif

// A cublasStatus_t is returned as this plus the status, so that it is no cudaError_t.
constexpr int kStatusBase = 100000;

int code_of(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS ? 0 : kStatusBase + static_cast<int>(status);
}

template <class Handle, cublasStatus_t (*destroy)(Handle)>
struct Destroy {
    void operator()(Handle handle) const { destroy(handle); }
};

template <class Handle, cublasStatus_t (*destroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<Handle, destroy>>;

using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

struct Plan {
    Format format;
    Operation operation;
    Layout first, second, out;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
};

// The first failure of a row of calls, so that each need not be followed by an `if`.
class Outcome {
  public:
    template <class Call>
    Outcome& then(Call call) {
        if (status_ == CUBLAS_STATUS_SUCCESS) status_ = call();
        return *this;
    }
    cublasStatus_t status() const { return status_; }

  private:
    cublasStatus_t status_ = CUBLAS_STATUS_SUCCESS;
};

template <class Value>
cublasStatus_t set(const Operation& operation, cublasLtMatmulDescAttributes_t which, const Value& value) {
    return cublasLtMatmulDescSetAttribute(operation.get(), which, &value, sizeof(value));
}

template <class Value>
cublasStatus_t set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t which, const Value& value) {
    return cublasLtMatmulPreferenceSetAttribute(preference.get(), which, &value, sizeof(value));
}

cublasStatus_t set_scales(const Operation& operation, const void* of_first, const void* of_second) {
    return Outcome()
        .then([&] { return set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, of_first); })
        .then([&] { return set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, of_second); })
        .status();
}

cublasStatus_t make_operation(Operation& operation, Format format) {
    cublasLtMatmulDesc_t made = nullptr;
    const cublasStatus_t status = cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    operation.reset(made);
    const cublasOperation_t transposed = CUBLAS_OP_T, as_is = CUBLAS_OP_N;
    Outcome outcome;
    outcome.then([&] { return status; })
        .then([&] { return set(operation, CUBLASLT_MATMUL_DESC_TRANSA, transposed); })
        .then([&] { return set(operation, CUBLASLT_MATMUL_DESC_TRANSB, as_is); });
    if (format == kBf16) return outcome.status();
    // Fast accumulation leaves FP8 sums in the tensor cores' short accumulators: off, as in training.
    const int8_t fast_accumulation = 0;
    outcome.then([&] { return set(operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, fast_accumulation); });
    if (format == kFp8Block) {
        outcome.then([&] { return set(operation, kModeOfFirst, kScalePer128x128); })
            .then([&] { return set(operation, kModeOfSecond, kScalePer128OfRow); });
    }
    // The choice of an algorithm looks at the pointers' alignment, never at what they point to.
    const void* aligned = reinterpret_cast<const void*>(uintptr_t{256});
    return outcome.then([&] { return set_scales(operation, aligned, aligned); }).status();
}

cublasStatus_t make_layout(Layout& layout, cudaDataType_t type, int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    const cublasStatus_t status = cublasLtMatrixLayoutCreate(&made, type, rows, columns, rows);
    layout.reset(made);
    return status;
}

cublasStatus_t make_preference(Preference& preference, size_t workspace_bytes) {
    cublasLtMatmulPreference_t made = nullptr;
    const cublasStatus_t status = cublasLtMatmulPreferenceCreate(&made);
    preference.reset(made);
    // Parts of a product split along k are added in FP32: adding in the output's type would round again and again.
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t most_bytes = workspace_bytes;
    return Outcome()
        .then([&] { return status; })
        .then([&] { return set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_bytes); })
        .then([&] { return set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions); })
        .status();
}

// cuBLASLt's context, made at the first call and kept: making one takes long.
cublasStatus_t library(cublasLtHandle_t& handle) {
    static cublasLtHandle_t made = nullptr;
    const cublasStatus_t status = made ? CUBLAS_STATUS_SUCCESS : cublasLtCreate(&made);
    handle = made;
    return status;
}

// The algorithm that cuBLASLt's heuristic puts first.
cublasStatus_t choose_algorithm(Plan& plan) {
    Preference preference;
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    return Outcome()
        .then([&] { return library(handle); })
        .then([&] { return make_preference(preference, plan.workspace_bytes); })
        .then([&] {
            return cublasLtMatmulAlgoGetHeuristic(handle, plan.operation.get(), plan.first.get(), plan.second.get(),
                                                  plan.out.get(), plan.out.get(), preference.get(), 1, &result,
                                                  &found);
        })
        .then([&] { return found > 0 ? result.state : CUBLAS_STATUS_NOT_SUPPORTED; })
        .then([&] {
            plan.algorithm = result.algo;
            return CUBLAS_STATUS_SUCCESS;
        })
        .status();
}

}  // namespace

// The text of a code that a function of this file returned.
extern "C" const char* rp_gemm_error_text(int code) {
    if (code < kStatusBase) return cudaGetErrorString(static_cast<cudaError_t>(code));
    return cublasLtGetStatusString(static_cast<cublasStatus_t>(code - kStatusBase));
}

// This library has a CUDA runtime of its own, which must be on the same device as that of the kernels.
extern "C" int rp_gemm_set_device(int device) { return static_cast<int>(cudaSetDevice(device)); }

extern "C" int rp_gemm_library_version(int64_t* version) {
    *version = static_cast<int64_t>(cublasLtGetVersion());
    return 0;
}

// Plan a product; format 0: BF16; 1: FP8 e4m3, one scale for each operand; 2: FP8 with scales by blocks.
extern "C" int rp_gemm_create(void** made, int format, int64_t m, int64_t n, int64_t k, int64_t workspace_bytes) {
    *made = nullptr;
    if (format < kBf16 || format > kFp8Block || m < 1 || n < 1 || k < 1 || workspace_bytes < 0) {
        return code_of(CUBLAS_STATUS_INVALID_VALUE);
    }
    if (format == kFp8Block && !kHasBlockScales) return code_of(CUBLAS_STATUS_NOT_SUPPORTED);
    auto plan = std::make_unique<Plan>();
    plan->format = static_cast<Format>(format);
    plan->workspace_bytes = static_cast<size_t>(workspace_bytes);
    const cudaDataType_t type = format == kBf16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
    const cublasStatus_t status = Outcome()
                                      .then([&] { return make_operation(plan->operation, plan->format); })
                                      .then([&] { return make_layout(plan->first, type, k, n); })
                                      .then([&] { return make_layout(plan->second, type, k, m); })
                                      .then([&] { return make_layout(plan->out, CUDA_R_16BF, n, m); })
                                      .then([&] { return choose_algorithm(*plan); })
                                      .status();
    if (status == CUBLAS_STATUS_SUCCESS) *made = plan.release();
    return code_of(status);
}

// Run a plan. scale_a and scale_b are FP32 on the device: one each (format 1) or as above (format 2), else ignored.
extern "C" int rp_gemm_run(void* of_create, const void* a, const void* b, void* d, const float* scale_a,
                           const float* scale_b, void* workspace) {
    auto& plan = *static_cast<Plan*>(of_create);
    const float one = 1.0f, zero = 0.0f;
    cublasLtHandle_t handle = nullptr;
    Outcome outcome;
    outcome.then([&] { return library(handle); });
    if (plan.format != kBf16) outcome.then([&] { return set_scales(plan.operation, scale_b, scale_a); });
    return code_of(outcome
                       .then([&] {
                           return cublasLtMatmul(handle, plan.operation.get(), &one, b, plan.first.get(), a,
                                                 plan.second.get(), &zero, d, plan.out.get(), d, plan.out.get(),
                                                 &plan.algorithm, workspace, plan.workspace_bytes, nullptr);
                       })
                       .status());
}

extern "C" int rp_gemm_destroy(void* of_create) {
    delete static_cast<Plan*>(of_create);
    return 0;
}
