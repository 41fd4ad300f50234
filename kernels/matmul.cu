// Matrix products of f32, row-major and dense.
//
// CPU twin: src/backend/cpu/matmul. Reads 4 bytes of A per 1 / COLUMNS multiply-add and of B per
// 1 / ROWS; writes C once, `=` or `+=` as Finish says.
#include "product.cuh"

// C is [m, n]; each sum has k terms, in slices of `slice`.
struct Product {
    size_t m, n, k, slice;
    unsigned wide_a, wide_b;  // whether rows of A and B are made of aligned quads
    unsigned is_split;        // whether block y writes its slice alone to c + y * m * n
    Finish finish;
};

// Element (edge, term) at edge * EDGE_STRIDE or term * stride, whichever is the longer.
template <bool IS_STRAIGHT>
struct Matrix {
    using Edge = const float*;
    using Term = size_t;
    const float* start;
    size_t edges, terms, stride;
    bool wide;

    __device__ Edge edge(size_t index) const {
        if (index >= edges) return nullptr;
        return start + (IS_STRAIGHT ? index : index * stride);
    }
    __device__ Term term(size_t index) const { return index; }
    __device__ const float* at(Edge edge, Term term) const {
        if (!edge || term >= terms) return nullptr;
        return edge + (IS_STRAIGHT ? term * stride : term);
    }
};

template <class T, bool IS_A_STRAIGHT, bool IS_B_STRAIGHT>
__device__ __forceinline__ void matmul(const Product& product, const float* a, const float* b,
                                       const float* bias, float* c) {
    using SourceA = Matrix<IS_A_STRAIGHT>;
    using SourceB = Matrix<IS_B_STRAIGHT>;
    __shared__ T shared;
    const size_t m = product.m, n = product.n, k = product.k;
    const Place place = place_of<T>(m, n);
    const size_t first = product.is_split ? blockIdx.y * product.slice : 0;
    const size_t last = product.is_split ? min(k, first + product.slice) : k;
    SourceA source_a{a, m, last, IS_A_STRAIGHT ? m : k, product.wide_a != 0};
    SourceB source_b{b, n, last, IS_B_STRAIGHT ? n : k, product.wide_b != 0};
    float total[T::THREAD_ROWS][T::THREAD_COLUMNS];
    Staged<IS_A_STRAIGHT, T::ROWS, T::THREADS, SourceA> staged_a(source_a, place.row);
    Staged<IS_B_STRAIGHT, T::COLUMNS, T::THREADS, SourceB> staged_b(source_b, place.column);
    multiply(shared, staged_a, staged_b, first, last, product.slice, total);
    if (product.is_split) c += blockIdx.y * m * n;
    store<T>(total, product.finish, place.row, m, place.column, n, bias, c,
             DenseRows{n});
}

#define MATMUL(name, blocks, tile, is_a_straight, is_b_straight)                            \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, blocks)                     \
        name(Product product, const float* __restrict__ a, const float* __restrict__ b,     \
             const float* __restrict__ bias, float* c) {                                    \
        matmul<tile, is_a_straight, is_b_straight>(product, a, b, bias, c);                 \
    }
#define MATMULS(size, blocks, tile)                      \
    MATMUL(matmul_nn_##size, blocks, tile, false, true)  \
    MATMUL(matmul_nt_##size, blocks, tile, false, false) \
    MATMUL(matmul_tn_##size, blocks, tile, true, true)

MATMULS(128x128, 1, Large)
MATMULS(128x32, 3, Tall)
MATMULS(64x64, 3, Medium)
MATMULS(32x32, 8, Small)

// c = activation([c +] the sum of the slices that a split product left [+ bias]).
extern "C" __global__ void matmul_fold(Fold fold, const float* __restrict__ slices,
                                       const float* __restrict__ bias, float* c) {
    fold_slices(fold, slices, bias, c);
}
