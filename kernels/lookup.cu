// Rows of a table by index, and what becomes of columns that are categories.
//
// CPU twin: src/backend/cpu/lookup.rs, whose bits these kernels have: products and sums are rounded one
// by one.
#include "device.cuh"

// The row that an index means, `rows` for none (which a negative one stands for), the last for one behind
// it, the first for NaN.
__device__ __forceinline__ size_t row_of(float index, size_t rows) {
    if (index < 0.f) return rows;
    if (!(index > 0.f)) return 0;
    // Also where the index is too large for an integer.
    return index < static_cast<float>(rows) ? min(static_cast<size_t>(index), rows - 1) : rows - 1;
}

// Bag of src/backend/lookup.rs, field by field as src/backend/cuda/lookup.rs passes it.
struct Bag {
    enum Combiner : size_t { SUM, MEAN, SQRTN };
    static constexpr size_t NO_WEIGHTS = ~static_cast<size_t>(0);

    size_t width, inputs, first, len, weights, combiner, outputs, offset;

    // What row `place` of the sample at `x` is multiplied by.
    __device__ __forceinline__ float factor(const float* x, size_t place) const {
        if (weights == NO_WEIGHTS && len == 1) return 1.f;
        const float* indices = x + first;
        const auto weight = [&](size_t i) { return weights == NO_WEIGHTS ? 1.f : x[weights + i]; };
        float sum = 0.f, squares = 0.f;
        for (size_t i = 0; combiner != SUM && i < len; ++i) {
            if (indices[i] < 0.f) continue;
            sum = __fadd_rn(sum, weight(i));
            squares = __fadd_rn(squares, __fmul_rn(weight(i), weight(i)));
        }
        float share = 1.f;
        if (combiner == MEAN) share = sum != 0.f ? __fdiv_rn(1.f, sum) : 0.f;
        if (combiner == SQRTN) share = squares != 0.f ? __fdiv_rn(1.f, __fsqrt_rn(squares)) : 0.f;
        return __fmul_rn(share, weight(place));
    }
};

// y[samples, outputs] = or += the combined rows of table[rows, width] at the indices in x[samples, inputs].
// 8 bytes an element of the bag's columns of y for each index.
extern "C" __global__ void gather_bags(Bag bag, size_t samples, size_t rows, const float* table,
                                       const float* x, float* y, unsigned add) {
    FOR_EACH(i, samples * bag.width) {
        const Divided place = divide(i, bag.width);
        const float* sample = x + place.quotient * bag.inputs;
        float* to = y + place.quotient * bag.outputs + bag.offset + place.remainder;
        float sum = add != 0 ? *to : 0.f;
        for (size_t index = 0; index < bag.len; ++index) {
            const size_t row = row_of(sample[bag.first + index], rows);
            if (row == rows) continue;
            const float value = table[row * bag.width + place.remainder];
            sum = __fadd_rn(sum, __fmul_rn(bag.factor(sample, index), value));
        }
        *to = sum;
    }
}

// gradient[rows, width] += the bag's columns of dy[samples, outputs] at the indices in x[samples, inputs],
// in the order of the indices. 12 bytes an element of those columns, and all indices for each warp.
//
// Row r belongs to the warps that are r modulo their number along x, a power of two; those along y
// share its columns, 32 at a time. A warp looks through all indices, 32 at a time, and adds what is its
// own. A lane always has the same columns, so its sums follow each other in program order, without
// atomics; a row that comes again and again stays in a register.
extern "C" __global__ void scatter_bags(Bag bag, size_t samples, size_t rows,
                                        const float* __restrict__ x, const float* __restrict__ dy,
                                        float* gradient) {
    constexpr int TOGETHER = 4;  // rows of dy that are on their way at a time
    const size_t warps = static_cast<size_t>(gridDim.x) * blockDim.x / 32;
    const size_t warp = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const unsigned lane = threadIdx.x % 32;
    const size_t width = bag.width, count = samples * bag.len;
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
            const Divided own = divide(first + lane, bag.len);
            const float* indices = x + own.quotient * bag.inputs + bag.first;
            const size_t row = is_there ? row_of(indices[own.remainder], rows) : none;
            const bool is_mine = row != none && (row & (warps - 1)) == warp;
            unsigned mine = __ballot_sync(ALL_LANES, is_mine);
            while (mine != 0) {
                size_t to[TOGETHER];
                float values[TOGETHER];
#pragma unroll
                for (int i = 0; i < TOGETHER; ++i) {
                    const int from = mine != 0 ? __ffs(mine) - 1 : 0;
                    to[i] = __shfl_sync(ALL_LANES, row, from);
                    if (mine == 0) to[i] = none;
                    const bool is_read = is_column && mine != 0;
                    values[i] = 0.f;
                    if (is_read) {
                        const Divided place = divide(first + from, bag.len);
                        const float factor =
                            bag.factor(x + place.quotient * bag.inputs, place.remainder);
                        const size_t at = place.quotient * bag.outputs + bag.offset + column;
                        values[i] = __fmul_rn(factor, dy[at]);
                    }
                    mine &= mine - 1;
                }
#pragma unroll
                for (int i = 0; i < TOGETHER; ++i) {
                    if (to[i] == none) break;
                    if (to[i] != current) turn_to(to[i]);
                    sum = __fadd_rn(sum, values[i]);
                }
            }
        }
        turn_to(none);
    }
}

// Field of src/backend/lookup.rs, field by field as src/backend/cuda/lookup.rs passes it.
struct Field {
    size_t record, offset, width;
};

// values[count, width] = the field of table[records, record] at the indices, zeros for none. 8 bytes an
// element of `values`.
extern "C" __global__ void take_rows(Field field, size_t count, size_t records, const float* indices,
                                     const float* table, float* values) {
    FOR_EACH(i, count * field.width) {
        const Divided place = divide(i, field.width);
        const size_t row = row_of(indices[place.quotient], records);
        const float* from = table + field.offset + place.remainder;
        values[i] = row != records ? from[row * field.record] : 0.f;
    }
}

// The field of table[records, record] = values[count, width] at the indices, none of which is there
// twice. 8 bytes an element of `values`.
extern "C" __global__ void put_rows(Field field, size_t count, size_t records, const float* indices,
                                    const float* values, float* table) {
    FOR_EACH(i, count * field.width) {
        const Divided place = divide(i, field.width);
        const size_t row = row_of(indices[place.quotient], records);
        float* to = table + field.offset + place.remainder;
        if (row != records) to[row * field.record] = values[i];
    }
}

// y[samples, outputs] = what columns[outputs, 4] says, of x[samples, inputs]: the first input, the number
// of inputs, the place of the first weight or -1, the index that is counted or -1 for a copy. A column of
// no inputs is left alone. 4 bytes an element of y, and as many for each input.
extern "C" __global__ void expand(size_t inputs, size_t outputs, size_t samples, const float* columns,
                                  const float* x, float* y) {
    FOR_EACH(i, samples * outputs) {
        const Divided place = divide(i, outputs);
        const float* column = columns + 4 * place.remainder;
        const float* sample = x + place.quotient * inputs;
        const size_t first = static_cast<size_t>(column[0]), len = static_cast<size_t>(column[1]);
        const float weights = column[2], index = column[3];
        if (len == 0) continue;
        float sum = 0.f;
        for (size_t input = 0; index >= 0.f && input < len; ++input) {
            if (sample[first + input] != index) continue;
            const float weight = weights >= 0.f ? sample[static_cast<size_t>(weights) + input] : 1.f;
            sum = __fadd_rn(sum, weight);
        }
        y[i] = index >= 0.f ? sum : sample[first];
    }
}
