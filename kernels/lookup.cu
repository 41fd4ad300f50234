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
// Row r belongs to the warps that are r modulo their number along x, a power of two; those along y
// share its columns, 32 at a time. A warp looks through all indices, 32 at a time, and adds what is its
// own. A lane always has the same columns, so its sums follow each other in program order, without
// atomics; a row that comes again and again stays in a register.
extern "C" __global__ void scatter_rows(size_t width, size_t count, size_t rows,
                                        const float* __restrict__ indices,
                                        const float* __restrict__ dy, float* gradient) {
    constexpr int TOGETHER = 4;  // rows of dy that are on their way at a time
    const size_t warps = static_cast<size_t>(gridDim.x) * blockDim.x / 32;
    const size_t warp = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const unsigned lane = threadIdx.x % 32;
    const size_t none = rows;
    for (size_t start = 32 * static_cast<size_t>(blockIdx.y); start < width;
         start += 32 * static_cast<size_t>(gridDim.y)) {
        const size_t column = start + lane;
        const bool is_column = column < width;
        size_t current = none;
        float sum = 0.f;
        const auto turn_to = [&](size_t row) {
            if (is_column && current != none) gradient[current * width + column] = sum;
            if (is_column && row != none) sum = gradient[row * width + column];
            current = row;
        };
        for (size_t first = 0; first < count; first += 32) {
            const bool is_there = first + lane < count;
            const size_t row = is_there ? row_of(indices[first + lane], rows) : none;
            unsigned mine = __ballot_sync(ALL_LANES, is_there && (row & (warps - 1)) == warp);
            while (mine != 0) {
                size_t to[TOGETHER];
                float values[TOGETHER];
#pragma unroll
                for (int i = 0; i < TOGETHER; ++i) {
                    const int from = mine != 0 ? __ffs(mine) - 1 : 0;
                    to[i] = __shfl_sync(ALL_LANES, row, from);
                    if (mine == 0) to[i] = none;
                    const bool is_read = is_column && mine != 0;
                    values[i] = is_read ? dy[(first + from) * width + column] : 0.f;
                    mine &= mine - 1;
                }
#pragma unroll
                for (int i = 0; i < TOGETHER; ++i) {
                    if (to[i] == none) break;
                    if (to[i] != current) turn_to(to[i]);
                    sum += values[i];
                }
            }
        }
        turn_to(none);
    }
}
