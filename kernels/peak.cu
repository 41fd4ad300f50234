// As many multiply-adds as a GPU can do: what products are measured against.
//
// CPU twin: src/backend/cpu/peak.rs. Touches no memory: sums are never negative, which the compiler
// does not know.
#include "device.cuh"

static constexpr int CHAINS = 16;

extern "C" __global__ void __launch_bounds__(256) multiply_add(size_t rounds, float* never) {
    float sums[CHAINS];
    for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = static_cast<float>(threadIdx.x + chain);
    // Counting rounds takes the units' time too.
#pragma unroll 32
    for (size_t round = 0; round < rounds; ++round) {
#pragma unroll
        for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = fmaf(sums[chain], 0.5f, 1.0f);
    }
    float sum = 0;
    for (int chain = 0; chain < CHAINS; ++chain) sum += sums[chain];
    if (sum < 0) *never = sum;
}
