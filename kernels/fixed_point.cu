// Floats to 64-bit fixed point and to bf16, and back.
//
// CPU twin: src/backend/cpu/fixed_point.rs, whose bits these kernels have.
#include "device.cuh"

// The bits of |x|. In integers, because the instruction makes any NaN of a NaN.
__device__ __forceinline__ unsigned bits_of_magnitude(float x) {
    return __float_as_uint(x) & 0x7fffffffu;
}

// magnitude = max(magnitude, bits of |values|). A maximum does not depend on its order.
__device__ __forceinline__ void raise(unsigned* magnitude, unsigned largest) {
    largest = join_team(blockDim.x, largest, [](unsigned a, unsigned b) { return max(a, b); });
    if (threadIdx.x == 0) atomicMax(magnitude, largest);
}

// sums[len]: = or += round(values * scale), ties to even, with a power of two as scale; sums wrap.
// magnitude[0]: = its maximum with the bits of |values|. 12 or 20 bytes an element.
extern "C" __global__ void quantize(float scale, unsigned is_added, size_t len, const float* values,
                                    unsigned long long* sums, unsigned* magnitude) {
    const Quads quads(len, values, sums);
    unsigned largest = 0;
    FOR_EACH(group, quads.count()) {
        const Four<float> four = quads.load(group, values);
        Four<unsigned long long> fixed = {};
        if (is_added) fixed = quads.load(group, sums);
        for (int i = 0; i < 4; ++i) {
            largest = max(largest, bits_of_magnitude(four.at[i]));
            fixed.at[i] += static_cast<unsigned long long>(__float2ll_rn(four.at[i] * scale));
        }
        quads.store(group, sums, fixed);
    }
    raise(magnitude, largest);
}

// magnitude[0]: = its maximum with the bits of |values|. 4 bytes an element.
extern "C" __global__ void magnitude(size_t len, const float* values, unsigned* magnitude) {
    const Quads quads(len, values);
    unsigned largest = 0;
    FOR_EACH(group, quads.count()) {
        const Four<float> four = quads.load(group, values);
        for (float value : four.at) largest = max(largest, bits_of_magnitude(value));
    }
    raise(magnitude, largest);
}

// values[len]: = sums * unit, rounded to nearest. 12 bytes an element.
extern "C" __global__ void dequantize(double unit, size_t len, const long long* sums,
                                      float* values) {
    const Quads quads(len, values, sums);
    FOR_EACH(group, quads.count()) {
        const Four<long long> fixed = quads.load(group, sums);
        Four<float> four;
        for (int i = 0; i < 4; ++i) {
            four.at[i] = static_cast<float>(static_cast<double>(fixed.at[i]) * unit);
        }
        quads.store(group, values, four);
    }
}

// narrow[len]: = values as bf16, rounded to nearest even; a NaN keeps its upper bits and is quiet.
// 6 bytes an element. In integers, because the conversion instruction has a NaN of its own.
extern "C" __global__ void narrow(size_t len, const float* values, unsigned short* narrow) {
    const Quads quads(len, values, narrow);
    FOR_EACH(group, quads.count()) {
        const Four<float> four = quads.load(group, values);
        Four<unsigned short> halves;
        for (int i = 0; i < 4; ++i) {
            const unsigned bits = __float_as_uint(four.at[i]);
            const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
            const unsigned rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
            halves.at[i] = static_cast<unsigned short>(is_nan ? bits >> 16 | 0x40u : rounded);
        }
        quads.store(group, narrow, halves);
    }
}

// values[len]: = narrow, exactly; a NaN becomes quiet. 6 bytes an element.
extern "C" __global__ void widen(size_t len, const unsigned short* narrow, float* values) {
    const Quads quads(len, values, narrow);
    FOR_EACH(group, quads.count()) {
        const Four<unsigned short> halves = quads.load(group, narrow);
        Four<float> four;
        for (int i = 0; i < 4; ++i) {
            const unsigned half = halves.at[i];
            const bool is_nan = (half & 0x7fffu) > 0x7f80u;
            four.at[i] = __uint_as_float((is_nan ? half | 0x40u : half) << 16);
        }
        quads.store(group, values, four);
    }
}

// average[len]: = momentum * average + rest * (sums * unit). 16 bytes an element.
extern "C" __global__ void move_average(float momentum, float rest, double unit, size_t len,
                                        const long long* sums, float* average) {
    FOR_EACH(i, len) {
        const float target = static_cast<float>(static_cast<double>(sums[i]) * unit);
        average[i] = momentum * average[i] + rest * target;
    }
}
