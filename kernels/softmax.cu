// Softmax over rows, and its gradient: a team of `width` threads a row.
//
// CPU twin: src/backend/cpu/activation.
#include "device.cuh"

// y[rows, columns] = softmax(x). 8 bytes an element; a row is read again from the cache.
extern "C" __global__ void softmax(size_t rows, size_t columns, unsigned width, const float* x,
                                   float* y) {
    const Row row(rows, columns, width);
    x += row.index * columns;
    y += row.index * columns;
    const auto load = [=](size_t i) { return x[i]; };
    float largest = -infinity();
    row.each(load, [&](size_t, float x) { largest = fmaxf(largest, x); });
    largest = join_team(width, largest, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0.f;
    row.each(load, [&](size_t, float x) { sum += expf(x - largest); });
    sum = sum_team(width, sum);
    row.each(load, [=](size_t i, float x) { y[i] = expf(x - largest) / sum; });
}

// dy[rows, columns] = the gradient of the input of y = softmax(x). 12 bytes an element.
extern "C" __global__ void softmax_backward(size_t rows, size_t columns, unsigned width,
                                            const float* y, float* dy) {
    const Row row(rows, columns, width);
    y += row.index * columns;
    dy += row.index * columns;
    const auto load = [=](size_t i) { return make_float2(y[i], dy[i]); };
    float dot = 0.f;
    row.each(load, [&](size_t, float2 pair) { dot += pair.x * pair.y; });
    dot = sum_team(width, dot);
    row.each(load, [=](size_t i, float2 pair) { dy[i] = pair.x * (pair.y - dot); });
}
