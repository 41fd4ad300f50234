// Matrix products of packed operands by what compute capability 8.0 and all newer have (cp.async, ldmatrix
// and mma.sync). Operands are those that pack.cu leaves: rounded to PRECISION, Bf16 or F16, in rows of terms
// that end with zeros.
//
// CPU twin: src/backend/cpu/matmul. Reads 2 bytes of A per 1 / COLUMNS multiply-add and of B per 1 / ROWS;
// writes C once, `=` or `+=` as Finish says.
//
//     global --copy_async, 16 bytes--> a ring of stages in shared memory
//     shared --ldmatrix--------------> registers, and from there to the tensor cores
//
// Bits: as product.cuh says, of sums of 16 terms, in the slices of hopper.cu.
#include "product.cuh"

constexpr int STAGES = 4;

struct Stage {
    StagedA<Large, false> a;
    StagedB<Large, false> b;
};

struct Packed {
    const unsigned short* start;
    size_t edges, row;
};

// Starts to copy the terms of a stage, of as many rows as it has; those behind the last are zero.
template <class Staged>
__device__ __forceinline__ void copy_rows(Staged& to, const Packed& from, size_t first_edge, size_t term) {
    constexpr unsigned CHUNK = Staged::CHUNK, CHUNKS = Staged::STEP / CHUNK;
    static_assert(Staged::EDGE * CHUNKS % Large::THREADS == 0);
#pragma unroll
    for (unsigned first = 0; first < Staged::EDGE * CHUNKS; first += Large::THREADS) {
        const unsigned edge = (first + threadIdx.x) / CHUNKS, column = threadIdx.x % CHUNKS * CHUNK;
        const size_t row = first_edge + edge;
        copy_async<16>(to.at + to.offset(edge, column),
                       row < from.edges ? from.start + row * from.row + term + column : nullptr);
    }
}

extern "C" __global__ void __launch_bounds__(Large::THREADS, Large::BLOCKS)
    matmul_packed_128x128(Product product, Packed a, Packed b, const float* __restrict__ bias, float* c) {
    extern __shared__ __align__(16) unsigned char shared[];
    Stage* stages = reinterpret_cast<Stage*>(shared);
    const Place place = place_of<Large>(blockIdx.x, product.m, product.n);
    const size_t first = product.first_term(), last = product.last_term();
    float sum[Large::THREAD_ROWS][Large::THREAD_COLUMNS] = {};
    float total[Large::THREAD_ROWS][Large::THREAD_COLUMNS] = {};
    typename Large::Factors factors;

    // Every stage is a group, be it empty, so that the groups behind a stage are as many at any time.
    const auto fetch = [&](size_t term, int stage) {
        if (term < last) {
            copy_rows(stages[stage].a, a, place.row, term);
            copy_rows(stages[stage].b, b, place.column, term);
        }
        close_copies();
    };
    for (int stage = 0; stage + 1 < STAGES; ++stage) fetch(first + stage * Large::STEP, stage);
    size_t slice_end = first + product.slice;
    int stage = 0;
#pragma unroll 1
    for (size_t term = first; term < last; term += Large::STEP) {
        copies_are_done<STAGES - 2>();
        // Now all see this stage, and have read the one before, whose place the next fetch takes.
        __syncthreads();
        fetch(term + (STAGES - 1) * Large::STEP, stage == 0 ? STAGES - 1 : stage - 1);
#pragma unroll
        for (int depth = 0; depth < Large::STEP; depth += Large::DEPTH) {
            factors.load(stages[stage].a, stages[stage].b, depth);
            factors.multiply_add(sum);
        }
        if (++stage == STAGES) stage = 0;
        if (term + Large::STEP >= min(slice_end, last)) {
            slice_end += product.slice;
#pragma unroll
            for (int i = 0; i < Large::THREAD_ROWS; ++i)
#pragma unroll
                for (int j = 0; j < Large::THREAD_COLUMNS; ++j) total[i][j] += sum[i][j], sum[i][j] = 0.f;
        }
    }
    if (product.table) c += blockIdx.y * product.table;
    store<Large>(total, product.finish, place.row, product.m, place.column, product.n, bias, c,
                 DenseRows{product.n});
}
