// How a block of threads computes one tile of a product from what is staged in shared memory.
//
// A tile has ROWS x COLUMNS sums, a warp WARP_ROWS x WARP_COLUMNS of them and a thread THREAD_ROWS x
// THREAD_COLUMNS, in runs of NEIGHBOURS along a row. An operand is staged as a `Staged`, STEP terms at a
// time: Straight operands come to it in runs of four along the tile's edge, Crossed ones in runs of four
// along the terms. Threads read it DEPTH terms at a time, as `Factors`, AHEAD times before they multiply
// them. A multiprocessor has registers for BLOCKS blocks.
#pragma once

#include "device.cuh"

template <class P, int ROWS_, int COLUMNS_, int WARP_ROWS, int WARP_COLUMNS>
struct Tile;

// In f32: fused multiply-adds in order of the terms.

// Terms in rows. Four more floats a row keep 16-byte alignment and spread the stores of Crossed over the
// banks.
template <int STEP_, int EDGE_>
struct Terms {
    static constexpr int STEP = STEP_, EDGE = EDGE_;
    static constexpr bool IS_COPY = true;  // of memory, as it is
    static constexpr int PADDING = 4;

    float at[STEP][EDGE + PADDING];

    // Four of a Crossed operand.
    __device__ void put_run(int edge, int term, const float (&run)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) at[term + i][edge] = run[i];
    }
};

// A warp's lanes stand 4 x 8, so that the lanes of half a warp read 2 different quads of A and 8 of B:
// all banks once.
template <int ROWS_, int COLUMNS_, int WARP_ROWS, int WARP_COLUMNS>
struct Tile<F32, ROWS_, COLUMNS_, WARP_ROWS, WARP_COLUMNS> {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, STEP = 16, DEPTH = 1, AHEAD = 1;
    static constexpr int NEIGHBOURS = 4;
    static constexpr int THREAD_ROWS = WARP_ROWS / 4, THREAD_COLUMNS = WARP_COLUMNS / 8;
    static constexpr int THREADS = ROWS / WARP_ROWS * (COLUMNS / WARP_COLUMNS) * 32;
    static constexpr int BLOCKS = THREADS == 256 ? 1 : THREADS == 128 ? 3 : 8;

    template <int EDGE, bool IS_STRAIGHT>
    using Staged = Terms<STEP, EDGE>;

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

    struct Factors {
        float left[THREAD_ROWS], right[THREAD_COLUMNS];

        __device__ __forceinline__ void load(const Terms<STEP, ROWS>& a, const Terms<STEP, COLUMNS>& b,
                                             int term) {
            load_quads(left, &a.at[term][row()], 16);
            load_quads(right, &b.at[term][column()], 32);
        }
        template <int COUNT>
        static __device__ __forceinline__ void load_quads(float (&to)[COUNT], const float* from,
                                                          int distance) {
#pragma unroll
            for (int i = 0; i < COUNT / 4; ++i) {
                float4 quad = *reinterpret_cast<const float4*>(from + i * distance);
                to[4 * i] = quad.x, to[4 * i + 1] = quad.y, to[4 * i + 2] = quad.z, to[4 * i + 3] = quad.w;
            }
        }
        __device__ __forceinline__ void multiply_add(float (&sum)[THREAD_ROWS][THREAD_COLUMNS]) const {
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; ++i)
#pragma unroll
                for (int j = 0; j < THREAD_COLUMNS; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
        }
    };
};

// Operands rounded to P, where they are staged, and multiplied by tensor cores.

// Rows are terms of a Straight operand and places on the edge of a Crossed one. What is read at a time
// are 16 bytes of 8 rows (of Straight words, 8 of 4 rows); what is written, whole rows one after another.
// Padding lets a row start where the last one's 16 bytes end. Rows of 64 bytes would then overlap where
// two are written together: their four chunks change places instead.
template <class P, int STEP_, int EDGE_, bool IS_STRAIGHT>
struct Rounded {
    using Bits = typename P::Bits;
    static constexpr int STEP = STEP_, EDGE = EDGE_;
    static constexpr bool IS_COPY = false;
    static constexpr bool IS_READ_IN_WORDS = IS_STRAIGHT && sizeof(Bits) == 4;
    static constexpr int CHUNK = 16 / sizeof(Bits), PADDING = IS_READ_IN_WORDS ? 2 * CHUNK : CHUNK;
    static constexpr int LENGTH = IS_STRAIGHT ? EDGE : STEP, ROWS = IS_STRAIGHT ? STEP : EDGE;
    static constexpr bool IS_SWAPPED = LENGTH == 4 * CHUNK;
    static constexpr int ROW = IS_SWAPPED ? LENGTH : LENGTH + PADDING;

    alignas(16) Bits at[ROWS * ROW];

    static __device__ __forceinline__ unsigned offset(unsigned edge, unsigned term) {
        const unsigned row = IS_STRAIGHT ? term : edge, column = IS_STRAIGHT ? edge : term;
        if constexpr (!IS_SWAPPED) return row * ROW + column;
        return row * ROW + (column / CHUNK ^ row / 2 % 4) * CHUNK + column % CHUNK;
    }
    __device__ __forceinline__ void put(unsigned edge, unsigned term, float x) {
        if constexpr (sizeof(Bits) == 4) {
            at[offset(edge, term)] = P::round(x);
        } else {
            at[offset(edge, term)] = static_cast<Bits>(P::round(x, 0.f));
        }
    }
    // Four neighbours in a row.
    __device__ __forceinline__ void put_run(unsigned edge, unsigned term, const float (&run)[4]) {
        void* to = at + offset(edge, term);
        if constexpr (sizeof(Bits) == 4) {
            *static_cast<uint4*>(to) =
                make_uint4(P::round(run[0]), P::round(run[1]), P::round(run[2]), P::round(run[3]));
        } else {
            *static_cast<uint2*>(to) = make_uint2(P::round(run[0], run[1]), P::round(run[2], run[3]));
        }
    }

    // 16 places on the edge and DEPTH terms as tensor cores want them: the halves of the edge in neighbouring
    // registers, those of the terms two apart.
    __device__ __forceinline__ void load(unsigned (&to)[4], unsigned edge, unsigned term) const {
        const unsigned lane = threadIdx.x % 32;
        if constexpr (IS_READ_IN_WORDS) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                to[i] = at[offset(edge + lane / 4 + i % 2 * 8, term + lane % 4 + i / 2 * 4)];
        } else {
            edge += lane / 8 % 2 * 8, term += lane / 16 * (P::DEPTH / 2);
            (IS_STRAIGHT ? term : edge) += lane % 8;
            load_matrices<IS_STRAIGHT>(to, at + offset(edge, term));
        }
    }
};

template <class P, int ROWS_, int COLUMNS_, int WARP_ROWS, int WARP_COLUMNS>
struct Tile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = P::DEPTH, STEP = 2 * DEPTH;
    static constexpr int AHEAD = 0, NEIGHBOURS = 2;
    static constexpr int THREAD_ROWS = WARP_ROWS / 8, THREAD_COLUMNS = WARP_COLUMNS / 4;
    static constexpr int THREADS = ROWS / WARP_ROWS * (COLUMNS / WARP_COLUMNS) * 32;
    static constexpr int BLOCKS = THREADS == 256 ? 1 : THREADS == 128 ? 2 : 6;

    template <int EDGE, bool IS_STRAIGHT>
    using Staged = Rounded<P, STEP, EDGE, IS_STRAIGHT>;

    // The warp's first row and column.
    static __device__ unsigned row() { return threadIdx.x / 32 / (COLUMNS / WARP_COLUMNS) * WARP_ROWS; }
    static __device__ unsigned column() {
        return threadIdx.x / 32 % (COLUMNS / WARP_COLUMNS) * WARP_COLUMNS;
    }
    static __device__ unsigned row(int i) { return row() + threadIdx.x % 32 / 4 + i * 8; }
    static __device__ unsigned column(int j) { return column() + threadIdx.x % 4 * 2 + j / 2 * 8 + j % 2; }

    struct Factors {
        unsigned left[WARP_ROWS / 16][4], right[WARP_COLUMNS / 16][4];

        template <class A, class B>
        __device__ __forceinline__ void load(const A& a, const B& b, int term) {
#pragma unroll
            for (int i = 0; i < WARP_ROWS / 16; ++i) a.load(left[i], row() + i * 16, term);
#pragma unroll
            for (int j = 0; j < WARP_COLUMNS / 16; ++j) b.load(right[j], column() + j * 16, term);
        }
        __device__ __forceinline__ void multiply_add(float (&sum)[THREAD_ROWS][THREAD_COLUMNS]) const {
#pragma unroll
            for (int i = 0; i < WARP_ROWS / 16; ++i)
#pragma unroll
                for (int j = 0; j < WARP_COLUMNS / 8; ++j)
                    P::multiply_add(sum[2 * i][2 * j], sum[2 * i][2 * j + 1], sum[2 * i + 1][2 * j],
                                    sum[2 * i + 1][2 * j + 1], left[i], right[j / 2][j % 2],
                                    right[j / 2][j % 2 + 2]);
        }
    };
};
