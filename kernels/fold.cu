// Adds up what a product leaves whose slices have blocks of their own.
//
// CPU twin: none, a CPU's sums are not split. Reads 4 bytes for each slice, writes 4, per element.
#include "activation.cuh"
#include "device.cuh"

// C has `len` elements in rows of `columns`, and each of `slices` tables as many.
struct Fold {
    size_t len, columns, slices;
    Finish finish;
};

// c = activation([c +] the sum of the slices, in order [+ bias]); the same bits as `multiply` and
// `store` of product.cuh leave where one block runs over all slices.
extern "C" __global__ void fold(Fold fold, const float* __restrict__ slices,
                                const float* __restrict__ bias, float* c) {
    FOR_EACH(i, fold.len) {
        float sum = 0.f;
#pragma unroll 8
        for (size_t slice = 0; slice < fold.slices; ++slice) sum += slices[slice * fold.len + i];
        if (fold.finish.add) sum += c[i];
        if (bias) sum += bias[divide(i, fold.columns).remainder];
        c[i] = activate(fold.finish.activation, fold.finish.parameter, sum);
    }
}
