// Matrix products of f32, row-major and dense; PRECISION says what operands are rounded to.
//
// CPU twin: src/backend/cpu/matmul. Reads 4 bytes of A per 1 / COLUMNS multiply-add and of B per
// 1 / ROWS; writes C once, `=` or `+=` as Finish says.
#include "product.cuh"

template <class T, bool IS_A_STRAIGHT, bool IS_B_STRAIGHT>
__device__ __forceinline__ void matmul(const Product& product, const float* a, const float* b,
                                       const float* bias, float* c) {
    const size_t m = product.m, n = product.n, k = product.k, last = product.last_term();
    Matrix<IS_A_STRAIGHT> source_a{a, m, last, IS_A_STRAIGHT ? m : k, product.wide_a != 0};
    Matrix<IS_B_STRAIGHT> source_b{b, n, last, IS_B_STRAIGHT ? n : k, product.wide_b != 0};
    compute_tile<T, IS_A_STRAIGHT, IS_B_STRAIGHT>(product, source_a, source_b, bias, c, DenseRows{n});
}

#define MATMUL(name, tile, is_a_straight, is_b_straight)                                \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, tile::BLOCKS)           \
        name(Product product, const float* __restrict__ a, const float* __restrict__ b, \
             const float* __restrict__ bias, float* c) {                                \
        matmul<tile, is_a_straight, is_b_straight>(product, a, b, bias, c);             \
    }
#define MATMULS(size, tile)                      \
    MATMUL(matmul_nn_##size, tile, false, true)  \
    MATMUL(matmul_nt_##size, tile, false, false) \
    MATMUL(matmul_tn_##size, tile, true, true)

MATMULS(128x128, Large)
MATMULS(128x32, Tall)
MATMULS(64x64, Medium)
MATMULS(32x32, Small)
