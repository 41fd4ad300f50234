// As many multiply-adds as a GPU can do: what products are measured against. PRECISION says on which
// units: f32, or tensor cores by mma.sync; hopper.cu has those of wgmma.
//
// CPU twin: src/backend/cpu/peak.rs. Touches no memory: sums are never negative, which the compiler
// does not know.
#include "device.cuh"

// Tables of 16 x 8 sums that a warp adds to, of which a thread has four sums each.
template <typename Precision>
struct Chains {
    static constexpr int COUNT = 8;
    // Two positive numbers of 16 bits, or one of 32.
    static constexpr unsigned FACTOR = 0x3f003f00;

    float sums[COUNT][4] = {};

    __device__ __forceinline__ void step() {
        const unsigned a[4] = {FACTOR, FACTOR, FACTOR, FACTOR};
#pragma unroll
        for (int chain = 0; chain < COUNT; ++chain) {
            auto& c = sums[chain];
            Precision::multiply_add(c[0], c[1], c[2], c[3], a, FACTOR, FACTOR);
        }
    }

    __device__ __forceinline__ float total() const {
        float sum = 0;
        for (const auto& chain : sums)
            for (const float part : chain) sum += part;
        return sum;
    }
};

template <>
struct Chains<F32> {
    static constexpr int COUNT = 16;

    float sums[COUNT];

    __device__ __forceinline__ Chains() {
        for (int chain = 0; chain < COUNT; ++chain) sums[chain] = static_cast<float>(threadIdx.x + chain);
    }

    __device__ __forceinline__ void step() {
#pragma unroll
        for (int chain = 0; chain < COUNT; ++chain) sums[chain] = fmaf(sums[chain], 0.5f, 1.0f);
    }

    __device__ __forceinline__ float total() const {
        float sum = 0;
        for (const float part : sums) sum += part;
        return sum;
    }
};

extern "C" __global__ void __launch_bounds__(256) multiply_add(size_t rounds, float* never) {
    Chains<PRECISION> chains;
    // Counting rounds takes the units' time too.
#pragma unroll 32
    for (size_t round = 0; round < rounds; ++round) chains.step();
    const float sum = chains.total();
    if (sum < 0) *never = sum;
}
