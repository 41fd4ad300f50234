// Matrix products of compute capability 9.0, by its tensor cores' own way (TMA and wgmma), and what these can
// do at most. Operands are those that pack.cu leaves: rounded to PRECISION, Bf16 or F16, in rows of terms that
// end with zeros.
//
// CPU twin: src/backend/cpu/matmul. Reads 2 bytes of A per 1 / COLUMNS multiply-add and of B per 1 / ROWS;
// writes C once, `=` or `+=` as Finish says.
//
//     global --copy_tile, a thread of the last warp--> a ring of stages in shared memory
//     shared --group_multiply_add, two warpgroups----> sums in registers
//
// Each block computes tile after tile, so that a tile's first stages are on their way while the last one
// is written. Bits: as product.cuh says, of sums of 16 terms.
#include "product.cuh"

// Each of two warpgroups has the sums of 64 rows.
using Grouped = Tile<PRECISION, 128, 128, 16, 128>;

constexpr int STEP = 64;  // terms of a stage: rows of 128 bytes
constexpr int STAGES = 6;

struct Stage {
    unsigned short a[Grouped::ROWS * STEP], b[Grouped::COLUMNS * STEP];
};

struct Ring {
    Stage stages[STAGES];
    Barrier full[STAGES], empty[STAGES];
};

// A place in the ring; `round` is the parity of how often it was passed.
struct Turn {
    unsigned stage = 0, round = 0;

    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, round ^= 1;
    }
};

// Fetches all stages of a tile, each when it is free.
__device__ __forceinline__ void fetch_tile(Ring& ring, Turn& turn, const Product& product, const Place& place,
                                           const TensorMap& a, const TensorMap& b) {
    for (size_t term = product.first_term(); term < product.last_term(); term += STEP, turn.next()) {
        Stage& stage = ring.stages[turn.stage];
        Barrier& full = ring.full[turn.stage];
        ring.empty[turn.stage].wait(turn.round ^ 1);
        full.arrive_and_expect(sizeof(Stage));
        copy_tile(stage.a, a, term, place.row, full);
        copy_tile(stage.b, b, term, place.column, full);
    }
}

// total = the sum over all slices of the tile, as `multiply` of product.cuh makes it.
__device__ __forceinline__ void multiply_tile(Ring& ring, Turn& turn, const Product& product,
                                              float (&total)[2][32]) {
    const unsigned first_row = threadIdx.x / 128 * 64;
    const bool speaks = threadIdx.x % 32 == 0;  // for its warp
    float sum[2][32] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 32; ++j) total[i][j] = 0.f;
    for (size_t term = product.first_term(); term < product.last_term();) {
        const size_t slice_end = min(term + product.slice, product.last_term());
        Barrier* last = nullptr;
        for (int adds = 0; term < slice_end; term += STEP, turn.next()) {
            const Stage& stage = ring.stages[turn.stage];
            ring.full[turn.stage].wait(turn.round);
            const size_t a = group_operand(&stage.a[first_row * STEP]), b = group_operand(stage.b);
            sums_are_ready();
#pragma unroll
            for (int depth = 0; depth < STEP; depth += 16, adds = 1) {
                // Operands count places of 16 bytes.
                PRECISION::group_multiply_add(sum, a + depth / 8, b + depth / 8, adds);
            }
            close_group();
            // The stage before has been read when only this one's products are running.
            groups_are_done<1>(sum);
            if (last && speaks) last->arrive();
            last = &ring.empty[turn.stage];
        }
        groups_are_done<0>(sum);
        if (speaks) last->arrive();
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 32; ++j) total[i][j] += sum[i][j];
    }
}

extern "C" __global__ void __launch_bounds__(Grouped::THREADS + 32, 1)
    matmul_grouped_128x128(Product product, const __grid_constant__ TensorMap a,
                           const __grid_constant__ TensorMap b, const float* __restrict__ bias, float* c) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ unsigned char shared[];
    // Its first stage has to lie at a multiple of 1024 bytes.
    Ring& ring = *reinterpret_cast<Ring*>(shared + (1024 - shared_address(shared) % 1024) % 1024);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; ++i) {
            ring.full[i].start(1);
            ring.empty[i].start(Grouped::THREADS / 32);
        }
        barriers_are_ready();
    }
    __syncthreads();
    if (product.table) c += blockIdx.y * product.table;
    const size_t tiles = tile_rows<Grouped>(product.m) * tile_columns<Grouped>(product.n);
    Turn turn;
    for (size_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Place place = place_of<Grouped>(tile, product.m, product.n);
        if (threadIdx.x == Grouped::THREADS) {
            fetch_tile(ring, turn, product, place, a, b);
        } else if (threadIdx.x < Grouped::THREADS) {
            float total[2][32];
            multiply_tile(ring, turn, product, total);
            store<Grouped>(total, product.finish, place.row, product.m, place.column, product.n, bias, c,
                           DenseRows{product.n});
        }
    }
#else
    __trap();  // It is built for 9.0a, and launched, nowhere else.
#endif
}

// As many such multiply-adds as a GPU can do, of two warpgroups in a block: what products are measured
// against. Reads the same two operands again and again; sums are never negative, which the compiler does not
// know.
extern "C" __global__ void __launch_bounds__(Grouped::THREADS)
    multiply_add_grouped(size_t rounds, float* never) {
#if __CUDA_ARCH_FEAT_SM90_ALL
    __shared__ __align__(1024) unsigned short operand[Grouped::COLUMNS * STEP];
    constexpr unsigned short POSITIVE = 0x3f00;
    for (int i = threadIdx.x; i < Grouped::COLUMNS * STEP; i += Grouped::THREADS) operand[i] = POSITIVE;
    shared_is_written();
    __syncthreads();
    const size_t at = group_operand(operand);
    float sum[2][32] = {};
    for (size_t round = 0; round < rounds; ++round) {
        sums_are_ready();
#pragma unroll
        for (int depth = 0; depth < STEP; depth += 16)
            PRECISION::group_multiply_add(sum, at + depth / 8, at + depth / 8, 1);
        close_group();
        groups_are_done<1>(sum);
    }
    groups_are_done<0>(sum);
    float total = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 32; ++j) total += sum[i][j];
    if (total < 0) *never = total;
#else
    __trap();  // It is built for 9.0a, and launched, nowhere else.
#endif
}
