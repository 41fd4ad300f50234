// Batch and layer normalisation of [rows, columns] matrices.
//
// CPU twin: src/backend/cpu/normalization.rs. Sums are taken in double precision: over a column by
// chunks of rows in order, then the chunks by one warp; over a row by a team of `width` threads. The
// order of a column's sum follows from the number of rows alone, that of a row's from the columns.
#include "device.cuh"

// 1 / sqrt(variance + epsilon)
__device__ __forceinline__ float inverse_deviation(float variance, float epsilon) {
    return 1.f / sqrtf(variance + epsilon);
}

struct Sums {
    double first, second;
};

// Two sums of each of `columns` neighbouring columns of matrices.
struct ColumnSums {
    size_t rows, columns;
    size_t stride;  // elements from a row of the matrices to the next
    size_t chunk;   // rows that one thread adds
    Sums* chunks;   // [ceil(rows / chunk), columns]

    __device__ size_t count() const { return (rows + chunk - 1) / chunk; }

    // chunks = the sums of `terms_of(column)(row, index of the element)` over each chunk.
    template <typename TermsOf>
    __device__ __forceinline__ void add(TermsOf terms_of) const {
        FOR_EACH(i, count() * columns) {
            const Divided place = divide(i, columns);
            const auto terms = terms_of(place.remainder);
            const size_t first = place.quotient * chunk, last = min(rows, first + chunk);
            Sums sums{0.0, 0.0};
            const auto load = [=](size_t row) { return terms(row, row * stride + place.remainder); };
            in_batches<8>(first, last, 1, load, [&](size_t, Sums term) {
                sums.first += term.first;
                sums.second += term.second;
            });
            chunks[i] = sums;
        }
    }

    // Calls `write(column, sums)` once for each column; a warp adds its chunks.
    template <typename Write>
    __device__ __forceinline__ void finish(Write write) const {
        const Row column(columns, count(), 32);
        Sums sums{0.0, 0.0};
        const auto load = [=](size_t i) { return chunks[i * columns + column.index]; };
        column.each(load, [&](size_t, Sums chunk) {
            sums.first += chunk.first;
            sums.second += chunk.second;
        });
        sums.first = sum_team(32, sums.first);
        sums.second = sum_team(32, sums.second);
        if (column.lane == 0 && column.index < columns) write(column.index, sums);
    }
};

// What is subtracted before squares are summed, so that a mean far from zero costs no digits: any value
// of the column will do.
__device__ __forceinline__ double shift_of(const ColumnSums& sums, const float* x, size_t column) {
    return sums.rows > 0 && isfinite(x[column]) ? x[column] : 0.0;
}

// sums.chunks = the sums of x and of its square, both less the shift. 4 bytes an element.
extern "C" __global__ void column_moments(ColumnSums sums, const float* x) {
    sums.add([=](size_t column) {
        const double shift = shift_of(sums, x, column);
        return [=](size_t, size_t i) {
            const double difference = x[i] - shift;
            return Sums{difference, difference * difference};
        };
    });
}

// mean[columns] = and variance[columns] = from what column_moments left.
extern "C" __global__ void column_moments_finish(ColumnSums sums, const float* x, float* mean,
                                                 float* variance) {
    sums.finish([=](size_t column, Sums total) {
        const double count = static_cast<double>(sums.rows);
        const double difference = total.first / count;
        const double square = total.second / count - difference * difference;
        mean[column] = static_cast<float>(shift_of(sums, x, column) + difference);
        // Rounding can leave it just below zero.
        variance[column] = static_cast<float>(square < 0.0 ? 0.0 : square);
    });
}

// sums.chunks = the sums of dy and of dy * (x - mean). 8 bytes an element.
extern "C" __global__ void column_gradients(ColumnSums sums, const float* x, const float* mean,
                                            const float* dy) {
    sums.add([=](size_t column) {
        const double center = mean[column];
        return [=](size_t, size_t i) {
            const double gradient = dy[i];
            return Sums{gradient, gradient * (x[i] - center)};
        };
    });
}

// sums.chunks = the sums of dy and of dy * (x - mean) * inverse, with the moments of each row. 8 bytes
// an element.
extern "C" __global__ void row_gradients(ColumnSums sums, const float* x, const float* moments,
                                         const float* dy) {
    sums.add([=](size_t) {
        return [=](size_t row, size_t i) {
            const float normalized = (x[i] - moments[2 * row]) * moments[2 * row + 1];
            const double gradient = dy[i];
            return Sums{gradient, gradient * normalized};
        };
    });
}

// offset[columns] = and scale[columns] = the sums over the chunks; the second times
// 1 / sqrt(variance + epsilon) where there is a variance.
extern "C" __global__ void gradients_finish(ColumnSums sums, float epsilon, const float* variance,
                                            float* offset, float* scale) {
    sums.finish([=](size_t column, Sums total) {
        const double factor = variance ? inverse_deviation(variance[column], epsilon) : 1.f;
        offset[column] = static_cast<float>(total.first);
        scale[column] = static_cast<float>(total.second * factor);
    });
}

// to[i] = `value_of(column)(i)` for each element i. There are at least as many threads as columns; a
// thread's elements are all of one column.
template <typename ValueOf>
__device__ __forceinline__ void for_columns(size_t len, size_t columns, float* to, ValueOf value_of) {
    const size_t threads = static_cast<size_t>(gridDim.x) * blockDim.x;
    const size_t thread = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t stride = threads - divide(threads, columns).remainder;
    if (thread >= stride || thread >= len) return;
    const auto value = value_of(divide(thread, columns).remainder);
    in_batches<4>(thread, len, stride, value, [=](size_t i, float value) { to[i] = value; });
}

// y[len] = scale * (x - mean) / sqrt(variance + epsilon) + offset; null for a scale of 1, an offset of
// 0. 8 bytes an element.
extern "C" __global__ void normalize_columns(size_t len, size_t columns, float epsilon, const float* x,
                                             const float* mean, const float* variance,
                                             const float* scale, const float* offset, float* y) {
    for_columns(len, columns, y, [=](size_t column) {
        const float inverse = inverse_deviation(variance[column], epsilon);
        const float factor = inverse * (scale ? scale[column] : 1.f);
        const float center = mean[column], addend = offset ? offset[column] : 0.f;
        return [=](size_t i) { return (x[i] - center) * factor + addend; };
    });
}

// dx[len] = the gradient of x in normalize_columns; without `sums` moments are constants. 12 bytes an
// element.
extern "C" __global__ void normalize_columns_backward(size_t len, size_t columns, float epsilon,
                                                      const float* x, const float* mean,
                                                      const float* variance, const float* scale,
                                                      const float* sums, const float* dy, float* dx) {
    for_columns(len, columns, dx, [=](size_t column) {
        const float count = static_cast<float>(len / columns);
        const float center = mean[column];
        const float inverse = inverse_deviation(variance[column], epsilon);
        const float factor = inverse * (scale ? scale[column] : 1.f);
        const float sum = sums ? sums[column] / count : 0.f;
        const float dot = sums ? sums[columns + column] / count : 0.f;
        return [=](size_t i) {
            const float normalized = (x[i] - center) * inverse;
            return factor * (dy[i] - (sum + normalized * dot));
        };
    });
}

// y[rows, columns] = scale * (x - mean) * inverse + offset; moments[rows, 2] = mean and inverse deviation
// of each row. 8 bytes an element; a row is read again from the cache.
extern "C" __global__ void normalize_rows(size_t rows, size_t columns, unsigned width, float epsilon,
                                          const float* x, const float* scale, const float* offset,
                                          float* y, float* moments) {
    const Row row(rows, columns, width);
    const double count = static_cast<double>(columns);
    x += row.index * columns;
    y += row.index * columns;
    const auto load = [=](size_t i) { return x[i]; };
    double sum = 0.0;
    row.each(load, [&](size_t, float x) { sum += x; });
    const double center = sum_team(width, sum) / count;
    double squares = 0.0;
    row.each(load, [&](size_t, float x) {
        const double difference = x - center;
        squares += difference * difference;
    });
    squares = sum_team(width, squares);
    const float inverse = inverse_deviation(static_cast<float>(squares / count), epsilon);
    const float mean = static_cast<float>(center);
    const auto value = [=](size_t i) {
        const float value = (x[i] - mean) * (scale ? inverse * scale[i] : inverse);
        return offset ? value + offset[i] : value;
    };
    row.each(value, [=](size_t i, float value) { y[i] = value; });
    if (row.lane == 0 && row.columns > 0) {
        moments[2 * row.index] = mean;
        moments[2 * row.index + 1] = inverse;
    }
}

// dx[rows, columns] = the gradient of x in normalize_rows. 12 bytes an element; a row is read again from
// the cache.
extern "C" __global__ void normalize_rows_backward(size_t rows, size_t columns, unsigned width,
                                                   const float* x, const float* moments,
                                                   const float* scale, const float* dy, float* dx) {
    const Row row(rows, columns, width);
    x += row.index * columns;
    dy += row.index * columns;
    dx += row.index * columns;
    const float mean = row.columns > 0 ? moments[2 * row.index] : 0.f;
    const float inverse = row.columns > 0 ? moments[2 * row.index + 1] : 0.f;
    // What was normalised, and the gradient of what it became.
    const auto load = [=](size_t i) {
        return make_float2((x[i] - mean) * inverse, scale ? dy[i] * scale[i] : dy[i]);
    };
    double sum = 0.0, dot = 0.0;
    row.each(load, [&](size_t, float2 pair) {
        sum += pair.y;
        dot += static_cast<double>(pair.y) * pair.x;
    });
    const double count = static_cast<double>(columns);
    const float mean_sum = static_cast<float>(sum_team(width, sum) / count);
    const float mean_dot = static_cast<float>(sum_team(width, dot) / count);
    row.each(load, [=](size_t i, float2 pair) {
        dx[i] = inverse * (pair.y - (mean_sum + pair.x * mean_dot));
    });
}
