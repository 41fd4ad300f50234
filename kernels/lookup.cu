// Rows of a table by index.
//
// CPU twin: src/backend/cpu/lookup.rs, whose bits these kernels have.
#include "device.cuh"

// The row an index means: the nearest there is, the first for NaN.
__device__ __forceinline__ size_t row_of(float index, size_t rows) {
    if (!(index > 0.f)) return 0;
    // Also where the index is too large for an integer.
    return index < static_cast<float>(rows) ? min(static_cast<size_t>(index), rows - 1) : rows - 1;
}

// y[count, width] = table[indices], row by row. 8 bytes an element of y.
extern "C" __global__ void gather_rows(size_t width, size_t count, size_t rows, const float* table,
                                       const float* indices, float* y) {
    FOR_EACH(i, count * width) {
        const Divided place = divide(i, width);
        y[i] = table[row_of(indices[place.quotient], rows) * width + place.remainder];
    }
}

// gradient[rows, width] += the rows of dy[count, width] at their indices, in the order of `indices`.
// 12 bytes an element of dy, and all indices for each warp.
//
// Row r belongs to warp r modulo the number of warps, a power of two. A warp looks through all
// indices, 32 at a time, and adds what is its own; a lane always has the same columns, so its sums
// follow each other in program order, without atomics.
extern "C" __global__ void scatter_rows(size_t width, size_t count, size_t rows,
                                        const float* indices, const float* dy, float* gradient) {
    const size_t warps = static_cast<size_t>(gridDim.x) * blockDim.x / 32;
    const size_t warp = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const unsigned lane = threadIdx.x % 32;
    for (size_t first = 0; first < count; first += 32) {
        const bool is_there = first + lane < count;
        const size_t row = is_there ? row_of(indices[first + lane], rows) : 0;
        unsigned mine = __ballot_sync(ALL_LANES, is_there && (row & (warps - 1)) == warp);
        while (mine != 0) {
            const int from = __ffs(mine) - 1;
            mine &= mine - 1;
            const size_t to = __shfl_sync(ALL_LANES, row, from);
            for (size_t i = lane; i < width; i += 32) {
                gradient[to * width + i] += dy[(first + from) * width + i];
            }
        }
    }
}
