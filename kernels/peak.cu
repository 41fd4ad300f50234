// As many multiply-adds as a GPU can do: what products are measured against.
//
// No CPU twin's values: src/backend/cpu/peak.rs does the same there. Reads nothing; writes a thread's
// sum, `=`, where it is not what it can never be.
#include "device.cuh"

static constexpr int CHAINS = 16;

extern "C" __global__ void __launch_bounds__(256) multiply_add(size_t rounds, float* never) {
    float sums[CHAINS];
    for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = static_cast<float>(threadIdx.x + chain);
    for (size_t round = 0; round < rounds; ++round) {
#pragma unroll
        for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = fmaf(sums[chain], 0.5f, 1.0f);
    }
    float sum = 0;
    for (int chain = 0; chain < CHAINS; ++chain) sum += sums[chain];
    if (sum < 0) *never = sum;
}
