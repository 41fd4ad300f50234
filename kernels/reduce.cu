// Sums over the rows of a matrix.
//
// CPU twin: `sum_rows` of src/backend/cpu/activation, whose order and so whose bits it has.
#include "device.cuh"

// sums[groups, columns] = or += the sum of each column over each `group` rows of x[rows, columns] (the
// last group may have fewer), rows in order from zero. 4 bytes an element of x.
extern "C" __global__ void sum_groups(size_t rows, size_t columns, size_t group, unsigned is_added,
                                      const float* x, float* sums) {
    const size_t groups = (rows + group - 1) / group;
    FOR_EACH(i, groups * columns) {
        const Divided place = divide(i, columns);
        const size_t first = place.quotient * group, last = min(rows, first + group);
        float sum = 0.f;
        // Loads do not wait for sums: sixteen of them are on their way at a time.
#pragma unroll 16
        for (size_t row = first; row < last; ++row) sum += x[row * columns + place.remainder];
        sums[i] = is_added ? sums[i] + sum : sum;
    }
}
