// Rounds the operands of a product to PRECISION, Bf16 or F16, as hopper.cu and packed.cu want them.
//
// CPU twin: src/backend/cpu/matmul, where operands are packed. Reads 4 bytes and writes 2 per element.
#include "device.cuh"

// One operand: `edges` rows of A, or columns of B, of `terms` terms each.
struct Operand {
    const float* from;
    unsigned short* to;  // [edges, row]; zeros behind the terms
    size_t edges, terms, row;
    size_t tiles;
    unsigned straight;  // whether neighbours in memory lie along the edge
    unsigned wide;      // whether rows of `from` are made of aligned quads
};

constexpr int TILE = 64, THREADS = 256;

// Terms are neighbours on both sides.
__device__ __forceinline__ void pack_crossed(const Operand& operand, size_t first_edge, size_t first_term) {
    constexpr int RUNS = TILE / 4, ROUNDS = TILE * RUNS / THREADS;
    const size_t term = first_term + threadIdx.x % RUNS * 4;
    Four<float> runs[ROUNDS];
#pragma unroll
    for (int i = 0; i < ROUNDS; ++i) {
        const size_t edge = first_edge + threadIdx.x / RUNS + i * (THREADS / RUNS);
        const float* from = operand.from + edge * operand.terms + term;
        runs[i] = {};
        if (edge >= operand.edges) continue;
        if (operand.wide) {
            if (term < operand.terms) runs[i] = *reinterpret_cast<const Four<float>*>(from);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                if (term + e < operand.terms) runs[i].at[e] = from[e];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < ROUNDS; ++i) {
        const size_t edge = first_edge + threadIdx.x / RUNS + i * (THREADS / RUNS);
        const float(&run)[4] = runs[i].at;
        if (edge < operand.edges)
            *reinterpret_cast<uint2*>(operand.to + edge * operand.row + term) =
                make_uint2(PRECISION::round(run[0], run[1]), PRECISION::round(run[2], run[3]));
    }
}

// Edges are neighbours in `from`, terms in `to`: through shared memory, two terms in a word. A word more a
// row spreads the columns that are written over the banks.
__device__ __forceinline__ void pack_straight(const Operand& operand, size_t first_edge, size_t first_term) {
    constexpr int PAIRS = TILE / 2, WARPS = THREADS / 32, ROUNDS = PAIRS / WARPS;
    __shared__ unsigned words[TILE][PAIRS + 1];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const size_t edge = first_edge + half * 32 + lane;
        float pairs[ROUNDS][2];
#pragma unroll
        for (int i = 0; i < ROUNDS; ++i)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const size_t term = first_term + (warp + i * WARPS) * 2 + e;
                const bool is_inside = edge < operand.edges && term < operand.terms;
                pairs[i][e] = is_inside ? operand.from[term * operand.edges + edge] : 0.f;
            }
#pragma unroll
        for (int i = 0; i < ROUNDS; ++i)
            words[half * 32 + lane][warp + i * WARPS] = PRECISION::round(pairs[i][0], pairs[i][1]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE / WARPS; ++i) {
        const size_t edge = first_edge + warp + i * WARPS;
        unsigned* to = reinterpret_cast<unsigned*>(operand.to + edge * operand.row + first_term);
        if (edge < operand.edges) to[lane] = words[warp + i * WARPS][lane];
    }
}

// Each block packs a tile of 64 edges and 64 terms; first those of A, then those of B.
extern "C" __global__ void __launch_bounds__(THREADS) pack(Operand a, Operand b) {
    const bool is_of_a = blockIdx.x < a.tiles;
    const Operand operand = is_of_a ? a : b;
    const Divided tile = divide(blockIdx.x - (is_of_a ? 0 : a.tiles), operand.row / TILE);
    const size_t first_edge = tile.quotient * TILE, first_term = tile.remainder * TILE;
    if (operand.straight) {
        pack_straight(operand, first_edge, first_term);
    } else {
        pack_crossed(operand, first_edge, first_term);
    }
}
