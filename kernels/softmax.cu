// Softmax over rows, and its gradient: a team of `width` threads a row.
//
// CPU twin: src/backend/cpu/activation.
#include "device.cuh"

// y[rows, columns] = softmax(x). 8 bytes an element; a row is read again from the cache.
extern "C" __global__ void softmax(size_t rows, size_t columns, unsigned width,
                                   const float* __restrict__ x, float* __restrict__ y) {
    const Row row(rows, columns, width);
    x += row.index * columns;
    y += row.index * columns;
    float largest = -infinity();
    FOR_COLUMNS(i, row) largest = fmaxf(largest, x[i]);
    largest = join_team(width, largest, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0.f;
    FOR_COLUMNS(i, row) sum += expf(x[i] - largest);
    sum = sum_team(width, sum);
    FOR_COLUMNS(i, row) y[i] = expf(x[i] - largest) / sum;
}

// dy[rows, columns] = the gradient of the input of y = softmax(x). 12 bytes an element.
extern "C" __global__ void softmax_backward(size_t rows, size_t columns, unsigned width,
                                            const float* y, float* dy) {
    const Row row(rows, columns, width);
    y += row.index * columns;
    dy += row.index * columns;
    float dot = 0.f;
    FOR_COLUMNS(i, row) dot += y[i] * dy[i];
    dot = sum_team(width, dot);
    FOR_COLUMNS(i, row) dy[i] = y[i] * (dy[i] - dot);
}
