// Tiles of a matrix product.
//
//     C[row, column] = sum over terms of A(row, term) * B(term, column)
//
// A block of threads computes one tile of C. STEP terms of both operands are staged in shared memory, in
// one of two buffers, while the next STEP are on their way to the other:
//
//     in f32
//     global --copy_async, 16 bytes----------> shared      where neighbours in memory lie along the
//                                                          tile's edge (Straight)
//     global --16 bytes--> registers --> shared            where they lie along the terms (Crossed)
//     shared --16 bytes--> registers, one term ahead of the multiply-adds
//
//     rounded to PRECISION, tf32, bf16 or f16
//     global --16 bytes--> registers --rounded--> shared   wherever neighbours lie
//     shared --ldmatrix--> registers, 8 or 16 terms ahead of the tensor cores
//
// Bits: terms are cut into slices whose length follows from their number alone. A slice is a chain of
// fused multiply-adds in order of the terms (on tensor cores, of sums of 8 or 16 terms), from zero;
// slices are added in order. So an element's bits depend neither on the tile nor on whether slices are
// summed here or by other blocks.
#pragma once

#include "activation.cuh"
#include "staging.cuh"
#include "tile.cuh"

// PRECISION, F32, Tf32, Bf16 or F16, comes with the compiler's options.
using Large = Tile<PRECISION, 128, 128, 32, 64>;
using Tall = Tile<PRECISION, 128, 32, 32, 32>;
using Medium = Tile<PRECISION, 64, 64, 32, 32>;
using Small = Tile<PRECISION, 32, 32, 16, 32>;

// Both operands of a tile as they are staged, in two buffers.
template <class T, bool IS_STRAIGHT>
using StagedA = typename T::template Staged<T::ROWS, IS_STRAIGHT>;
template <class T, bool IS_STRAIGHT>
using StagedB = typename T::template Staged<T::COLUMNS, IS_STRAIGHT>;

template <class T, bool IS_A_STRAIGHT, bool IS_B_STRAIGHT>
struct Shared {
    StagedA<T, IS_A_STRAIGHT> a[2];
    StagedB<T, IS_B_STRAIGHT> b[2];
};

// total = the sum over terms [first, last), in slices of `slice` terms, a multiple of STEP.
template <class T, class Shared, class A, class B>
__device__ __forceinline__ void multiply(Shared& shared, A& a, B& b, size_t first, size_t last, size_t slice,
                                         float (&total)[T::THREAD_ROWS][T::THREAD_COLUMNS]) {
    constexpr int ROUNDS = T::STEP / T::DEPTH, AHEAD = T::AHEAD;
    static_assert(ROUNDS % (AHEAD + 1) == 0);
    float sum[T::THREAD_ROWS][T::THREAD_COLUMNS] = {};
    typename T::Factors factors[AHEAD + 1];
#pragma unroll
    for (int i = 0; i < T::THREAD_ROWS; ++i)
#pragma unroll
        for (int j = 0; j < T::THREAD_COLUMNS; ++j) total[i][j] = 0.f;
    if (first >= last) return;

    a.start(shared.a[0], first);
    b.start(shared.b[0], first);
    a.finish(shared.a[0]);
    b.finish(shared.b[0]);
    __syncthreads();
    if (AHEAD) factors[0].load(shared.a[0], shared.b[0], 0);

    int buffer = 0;
    size_t slice_end = first + slice;
#pragma unroll 1
    for (size_t term = first; term < last; term += T::STEP, buffer ^= 1) {
        const bool more = term + T::STEP < last;
        if (more) {
            a.start(shared.a[buffer ^ 1], term + T::STEP);
            b.start(shared.b[buffer ^ 1], term + T::STEP);
        }
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            const int next = round + AHEAD;
            if (next < ROUNDS)
                factors[next % (AHEAD + 1)].load(shared.a[buffer], shared.b[buffer], next * T::DEPTH);
            if (round + 1 == ROUNDS && more) {
                // This thread has read all that it needs of this buffer, and the next holds all that was
                // on its way.
                a.finish(shared.a[buffer ^ 1]);
                b.finish(shared.b[buffer ^ 1]);
                __syncthreads();
                if (AHEAD) factors[0].load(shared.a[buffer ^ 1], shared.b[buffer ^ 1], 0);
            }
            factors[round % (AHEAD + 1)].multiply_add(sum);
        }
        if (!more || term + T::STEP == slice_end) {
            slice_end += slice;
#pragma unroll
            for (int i = 0; i < T::THREAD_ROWS; ++i)
#pragma unroll
                for (int j = 0; j < T::THREAD_COLUMNS; ++j) total[i][j] += sum[i][j], sum[i][j] = 0.f;
        }
    }
}

// Rows of C that follow one another.
struct DenseRows {
    size_t columns;
    __device__ size_t operator()(size_t row) const { return row * columns; }
};

// Neighbours in memory that are moved together.
template <int COUNT>
struct alignas(4 * COUNT) Floats {
    float at[COUNT];
};

// Writes a tile. `row_start(row)` is where a row of C starts.
//
// All functions but relu run over what was written, in a loop that is not unrolled: their code would
// otherwise stand there once for each of the thread's elements.
template <class T, class RowStart>
__device__ __forceinline__ void store(const float (&total)[T::THREAD_ROWS][T::THREAD_COLUMNS],
                                      const Finish& finish, size_t first_row, size_t rows,
                                      size_t first_column, size_t columns, const float* bias, float* c,
                                      RowStart row_start) {
    const bool relu = finish.activation == RELU;
#pragma unroll
    for (int i = 0; i < T::THREAD_ROWS; ++i) {
        size_t row = first_row + T::row(i);
        if (row >= rows) continue;
        float* to = c + row_start(row);
#pragma unroll
        for (int j = 0; j < T::THREAD_COLUMNS; j += T::NEIGHBOURS) {
            size_t column = first_column + T::column(j);
            if (finish.wide && column < columns) {
                using Run = Floats<T::NEIGHBOURS>;
                Run x, old, more;
                if (finish.add) old = *reinterpret_cast<const Run*>(to + column);
                if (bias) more = *reinterpret_cast<const Run*>(bias + column);
#pragma unroll
                for (int e = 0; e < T::NEIGHBOURS; ++e) {
                    x.at[e] = total[i][j + e];
                    if (finish.add) x.at[e] += old.at[e];
                    if (bias) x.at[e] += more.at[e];
                    if (relu && x.at[e] < 0.f) x.at[e] = 0.f;
                }
                *reinterpret_cast<Run*>(to + column) = x;
            } else {
#pragma unroll
                for (int e = 0; e < T::NEIGHBOURS; ++e) {
                    if (column + e >= columns) break;
                    float x = total[i][j + e];
                    if (finish.add) x += to[column + e];
                    if (bias) x += bias[column + e];
                    to[column + e] = relu && x < 0.f ? 0.f : x;
                }
            }
        }
    }
    if (finish.activation <= RELU) return;
#pragma unroll 1
    for (int e = 0; e < T::THREAD_ROWS * T::THREAD_COLUMNS; ++e) {
        size_t row = first_row + T::row(e / T::THREAD_COLUMNS);
        size_t column = first_column + T::column(e % T::THREAD_COLUMNS);
        if (row >= rows || column >= columns) continue;
        float* x = c + row_start(row) + column;
        *x = activate(finish.activation, finish.parameter, *x);
    }
}

// Where the tile with this number is in C: they go down GROUP rows of tiles before the next column, so
// that blocks that run together share what they read.
struct Place {
    size_t row, column;
};
template <class T>
__device__ __forceinline__ size_t tile_rows(size_t rows) {
    return (rows + T::ROWS - 1) / T::ROWS;
}
template <class T>
__device__ __forceinline__ size_t tile_columns(size_t columns) {
    return (columns + T::COLUMNS - 1) / T::COLUMNS;
}
template <class T>
__device__ __forceinline__ Place place_of(size_t tile, size_t rows, size_t columns) {
    constexpr size_t GROUP = 8;
    size_t row_tiles = tile_rows<T>(rows), column_tiles = tile_columns<T>(columns);
    size_t group = tile / (GROUP * column_tiles), in_group = tile % (GROUP * column_tiles);
    size_t height = min(GROUP, row_tiles - group * GROUP);
    return {(group * GROUP + in_group % height) * T::ROWS, in_group / height * T::COLUMNS};
}

// C is [m, n]; each sum has k terms, in slices of `slice`.
struct Product {
    size_t m, n, k, slice;
    size_t table;             // not 0: block y writes its slice alone to c + y * table
    unsigned wide_a, wide_b;  // `wide` of the operands' sources
    Finish finish;

    __device__ size_t first_term() const { return table ? blockIdx.y * slice : 0; }
    __device__ size_t last_term() const { return table ? min(k, first_term() + slice) : k; }
};

// An operand that is a dense matrix: neighbours along the edge, or along the terms, lie together, and
// those along the other `stride` apart.
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

// Computes the block's tile of C. Sources end at `product.last_term()`.
template <class T, bool IS_A_STRAIGHT, bool IS_B_STRAIGHT, class A, class B, class RowStart>
__device__ __forceinline__ void compute_tile(const Product& product, const A& a, const B& b,
                                             const float* bias, float* c, RowStart row_start) {
    __shared__ Shared<T, IS_A_STRAIGHT, IS_B_STRAIGHT> shared;
    const Place place = place_of<T>(blockIdx.x, product.m, product.n);
    float total[T::THREAD_ROWS][T::THREAD_COLUMNS];
    Stager<IS_A_STRAIGHT, T::THREADS, StagedA<T, IS_A_STRAIGHT>, A> stage_a(a, place.row);
    Stager<IS_B_STRAIGHT, T::THREADS, StagedB<T, IS_B_STRAIGHT>, B> stage_b(b, place.column);
    multiply<T>(shared, stage_a, stage_b, product.first_term(), product.last_term(), product.slice, total);
    if (product.table) c += blockIdx.y * product.table;
    store<T>(total, product.finish, place.row, product.m, place.column, product.n, bias, c, row_start);
}
