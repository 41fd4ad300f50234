// Tiles of a matrix product.
//
//     C[row, column] = sum over terms of A(row, term) * B(term, column)
//
// A block of threads computes one tile of C. STEP terms of both operands are staged in shared memory,
// term by term, in one of two buffers, while the next STEP are on their way to the other:
//
//     global --copy_async, 16 bytes----------> shared      where neighbours in memory lie along the
//                                                          tile's edge (Straight)
//     global --16 bytes--> registers --> shared            where they lie along the terms (Crossed)
//     shared --16 bytes--> registers, one term ahead of the multiply-adds
//
// Bits: terms are cut into slices whose length follows from their number alone. A slice is a chain of
// fused multiply-adds in order of the terms, from zero; slices are added in order. So an element's
// bits depend neither on the tile nor on whether slices are summed here or by other blocks.
#pragma once

#include "activation.cuh"
#include "device.cuh"

constexpr int STEP = 16;

// Four more floats a row keep 16-byte alignment and spread the stores of Crossed over the banks.
constexpr int PADDING = 4;

// A tile of ROWS x COLUMNS; a thread has THREAD_ROWS x THREAD_COLUMNS of it (4 or 8 each), as quads of
// neighbours. A warp's lanes stand 4 x 8, so that the lanes of half a warp read 2 different quads of A
// and 8 of B: all banks once.
template <int ROWS_, int COLUMNS_, int THREAD_ROWS_, int THREAD_COLUMNS_>
struct Tile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_;
    static constexpr int THREAD_ROWS = THREAD_ROWS_, THREAD_COLUMNS = THREAD_COLUMNS_;
    static constexpr int WARP_ROWS = 4 * THREAD_ROWS, WARP_COLUMNS = 8 * THREAD_COLUMNS;
    static constexpr int THREADS = ROWS / THREAD_ROWS * (COLUMNS / THREAD_COLUMNS);

    float a[2][STEP][ROWS + PADDING];
    float b[2][STEP][COLUMNS + PADDING];

    // The thread's first row and column; its second quads are 16 rows and 32 columns further.
    static __device__ int row() {
        int warp = threadIdx.x / 32 / (COLUMNS / WARP_COLUMNS), lane = threadIdx.x % 32;
        return warp * WARP_ROWS + (lane / 16 * 2 + lane % 2) * 4;
    }
    static __device__ int column() {
        int warp = threadIdx.x / 32 % (COLUMNS / WARP_COLUMNS), lane = threadIdx.x % 32;
        return warp * WARP_COLUMNS + lane / 2 % 8 * 4;
    }
    static __device__ int row(int i) { return row() + i / 4 * 16 + i % 4; }
    static __device__ int column(int j) { return column() + j / 4 * 32 + j % 4; }
};

using Large = Tile<128, 128, 8, 8>;
using Tall = Tile<128, 32, 8, 4>;
using Medium = Tile<64, 64, 8, 4>;
using Small = Tile<32, 32, 4, 4>;

// A source says where an operand's elements are:
//     Edge edge(size_t index)      what is known of a row of A or column of B, for the whole product
//     Term term(size_t index)      what is known of a term
//     const float* at(Edge, Term)  the element, or null for a zero
//     bool wide                    whether any four that start at a multiple of four along the memory
//                                  order are 16 aligned bytes, or all zeros

// Stages an operand whose neighbours in memory lie along the tile's edge.
template <int EDGE, int THREADS, class Source>
struct Straight {
    static constexpr int QUADS = EDGE / 4, ROUNDS = STEP * QUADS / THREADS;
    Source source;
    typename Source::Edge edge;
    int place, first_term;

    __device__ Straight(const Source& source, size_t first_edge) : source(source) {
        place = source.wide ? threadIdx.x % QUADS * 4 : threadIdx.x % EDGE;
        first_term = source.wide ? threadIdx.x / QUADS : threadIdx.x / EDGE;
        edge = source.edge(first_edge + place);
    }
    __device__ void start(float (*to)[EDGE + PADDING], size_t term) {
        if (source.wide) {
#pragma unroll
            for (int i = 0; i < ROUNDS; ++i) {
                int t = first_term + i * (THREADS / QUADS);
                copy_async<16>(&to[t][place], source.at(edge, source.term(term + t)));
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4 * ROUNDS; ++i) {
                int t = first_term + i * (THREADS / EDGE);
                copy_async<4>(&to[t][place], source.at(edge, source.term(term + t)));
            }
        }
    }
    __device__ void finish(float (*)[EDGE + PADDING]) { copies_arrive(); }
};

// Stages an operand whose neighbours in memory lie along the terms.
template <int EDGE, int THREADS, class Source>
struct Crossed {
    static constexpr int ROUNDS = STEP / 4 * EDGE / THREADS;
    Source source;
    typename Source::Edge edges[ROUNDS];
    float4 held[ROUNDS];
    int place, first_term;

    __device__ Crossed(const Source& source, size_t first_edge) : source(source) {
        place = threadIdx.x / (STEP / 4);
        first_term = threadIdx.x % (STEP / 4) * 4;
#pragma unroll
        for (int i = 0; i < ROUNDS; ++i)
            edges[i] = source.edge(first_edge + place + i * (THREADS / (STEP / 4)));
    }
    __device__ void start(float (*)[EDGE + PADDING], size_t term) {
        if (source.wide) {
            auto t = source.term(term + first_term);
#pragma unroll
            for (int i = 0; i < ROUNDS; ++i) {
                const float* from = source.at(edges[i], t);
                held[i] = from ? *reinterpret_cast<const float4*>(from) : make_float4(0, 0, 0, 0);
            }
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                auto t = source.term(term + first_term + j);
#pragma unroll
                for (int i = 0; i < ROUNDS; ++i) {
                    const float* from = source.at(edges[i], t);
                    (&held[i].x)[j] = from ? *from : 0.f;
                }
            }
        }
    }
    __device__ void finish(float (*to)[EDGE + PADDING]) {
#pragma unroll
        for (int i = 0; i < ROUNDS; ++i) {
            int edge = place + i * (THREADS / (STEP / 4));
            to[first_term][edge] = held[i].x;
            to[first_term + 1][edge] = held[i].y;
            to[first_term + 2][edge] = held[i].z;
            to[first_term + 3][edge] = held[i].w;
        }
    }
};

template <bool IS_STRAIGHT, int EDGE, int THREADS, class Source>
struct StagedAs {
    using Type = Straight<EDGE, THREADS, Source>;
};
template <int EDGE, int THREADS, class Source>
struct StagedAs<false, EDGE, THREADS, Source> {
    using Type = Crossed<EDGE, THREADS, Source>;
};
template <bool IS_STRAIGHT, int EDGE, int THREADS, class Source>
using Staged = typename StagedAs<IS_STRAIGHT, EDGE, THREADS, Source>::Type;

template <int COUNT>
__device__ __forceinline__ void load_quads(float (&to)[COUNT], const float* from, int distance) {
#pragma unroll
    for (int i = 0; i < COUNT / 4; ++i) {
        float4 quad = *reinterpret_cast<const float4*>(from + i * distance);
        to[4 * i] = quad.x, to[4 * i + 1] = quad.y, to[4 * i + 2] = quad.z, to[4 * i + 3] = quad.w;
    }
}

// total = the sum over terms [first, last), in slices of `slice` terms, a multiple of STEP.
template <class T, class A, class B>
__device__ __forceinline__ void multiply(T& shared, A& a, B& b, size_t first, size_t last, size_t slice,
                                         float (&total)[T::THREAD_ROWS][T::THREAD_COLUMNS]) {
    float sum[T::THREAD_ROWS][T::THREAD_COLUMNS] = {};
    float left[2][T::THREAD_ROWS], right[2][T::THREAD_COLUMNS];
#pragma unroll
    for (int i = 0; i < T::THREAD_ROWS; ++i)
#pragma unroll
        for (int j = 0; j < T::THREAD_COLUMNS; ++j) total[i][j] = 0.f;
    if (first >= last) return;

    const int row = T::row(), column = T::column();
    a.start(shared.a[0], first);
    b.start(shared.b[0], first);
    a.finish(shared.a[0]);
    b.finish(shared.b[0]);
    __syncthreads();
    load_quads(left[0], &shared.a[0][0][row], 16);
    load_quads(right[0], &shared.b[0][0][column], 32);

    int buffer = 0;
    size_t slice_end = first + slice;
#pragma unroll 1
    for (size_t term = first; term < last; term += STEP, buffer ^= 1) {
        const bool more = term + STEP < last;
        if (more) {
            a.start(shared.a[buffer ^ 1], term + STEP);
            b.start(shared.b[buffer ^ 1], term + STEP);
        }
#pragma unroll
        for (int t = 0; t < STEP; ++t) {
            if (t + 1 < STEP) {
                load_quads(left[(t + 1) % 2], &shared.a[buffer][t + 1][row], 16);
                load_quads(right[(t + 1) % 2], &shared.b[buffer][t + 1][column], 32);
            } else if (more) {
                // Every thread has read all of this buffer, and the next holds all that was on its way.
                a.finish(shared.a[buffer ^ 1]);
                b.finish(shared.b[buffer ^ 1]);
                __syncthreads();
                load_quads(left[0], &shared.a[buffer ^ 1][0][row], 16);
                load_quads(right[0], &shared.b[buffer ^ 1][0][column], 32);
            }
#pragma unroll
            for (int i = 0; i < T::THREAD_ROWS; ++i)
#pragma unroll
                for (int j = 0; j < T::THREAD_COLUMNS; ++j)
                    sum[i][j] = fmaf(left[t % 2][i], right[t % 2][j], sum[i][j]);
        }
        if (!more || term + STEP == slice_end) {
            slice_end += slice;
#pragma unroll
            for (int i = 0; i < T::THREAD_ROWS; ++i)
#pragma unroll
                for (int j = 0; j < T::THREAD_COLUMNS; ++j) total[i][j] += sum[i][j], sum[i][j] = 0.f;
        }
    }
}

// What becomes of a sum: c = activation([c +] sum [+ bias]).
struct Finish {
    unsigned add;         // whether C is added to
    unsigned activation;  // an ActivationKind
    float parameter;      // of the activation
    unsigned wide;        // whether rows of C, and the bias, are made of aligned quads
};

// Rows of C that follow one another.
struct DenseRows {
    size_t columns;
    __device__ size_t operator()(size_t row) const { return row * columns; }
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
        for (int j = 0; j < T::THREAD_COLUMNS; j += 4) {
            size_t column = first_column + T::column(j);
            if (finish.wide && column < columns) {
                float4 x = make_float4(total[i][j], total[i][j + 1], total[i][j + 2], total[i][j + 3]);
                if (finish.add) {
                    float4 old = *reinterpret_cast<const float4*>(to + column);
                    x.x += old.x, x.y += old.y, x.z += old.z, x.w += old.w;
                }
                if (bias) {
                    float4 more = *reinterpret_cast<const float4*>(bias + column);
                    x.x += more.x, x.y += more.y, x.z += more.z, x.w += more.w;
                }
                if (relu) {
                    x.x = x.x < 0.f ? 0.f : x.x, x.y = x.y < 0.f ? 0.f : x.y;
                    x.z = x.z < 0.f ? 0.f : x.z, x.w = x.w < 0.f ? 0.f : x.w;
                }
                *reinterpret_cast<float4*>(to + column) = x;
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
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

// Which tile of C a block computes: down GROUP rows of tiles before the next column, so that blocks
// that run together share what they read.
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
__device__ __forceinline__ Place place_of(size_t rows, size_t columns) {
    constexpr size_t GROUP = 8;
    size_t row_tiles = tile_rows<T>(rows), column_tiles = tile_columns<T>(columns);
    size_t group = blockIdx.x / (GROUP * column_tiles), in_group = blockIdx.x % (GROUP * column_tiles);
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
    __shared__ T shared;
    const Place place = place_of<T>(product.m, product.n);
    float total[T::THREAD_ROWS][T::THREAD_COLUMNS];
    Staged<IS_A_STRAIGHT, T::ROWS, T::THREADS, A> staged_a(a, place.row);
    Staged<IS_B_STRAIGHT, T::COLUMNS, T::THREADS, B> staged_b(b, place.column);
    multiply(shared, staged_a, staged_b, product.first_term(), product.last_term(), product.slice, total);
    if (product.table) c += blockIdx.y * product.table;
    store<T>(total, product.finish, place.row, product.m, place.column, product.n, bias, c, row_start);
}
