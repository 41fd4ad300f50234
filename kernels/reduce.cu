// Sums over the rows of a matrix.
//
// CPU twin: `sum_rows` of src/backend/cpu/activation, whose order and so whose bits it has.
#include "device.cuh"

// How rows are cut into groups, of which the last may have fewer rows.
struct Groups {
    size_t rows, columns;
    size_t stride;  // elements from a row to the next
    size_t group;   // rows of a group
    size_t count;   // groups
};

// sums[count, columns] = or += the sum of each column over each group of rows of x, rows in order from
// zero. 4 bytes an element of x.
extern "C" __global__ void sum_groups(Groups groups, unsigned is_added, const float* x, float* sums) {
    FOR_EACH(i, groups.count * groups.columns) {
        const Divided place = divide(i, groups.columns);
        const size_t first = place.quotient * groups.group;
        const size_t last = min(groups.rows, first + groups.group);
        float sum = 0.f;
        const auto load = [=](size_t row) { return x[row * groups.stride + place.remainder]; };
        in_batches<32>(first, last, 1, load, [&](size_t, float x) { sum += x; });
        sums[i] = is_added ? sums[i] + sum : sum;
    }
}
