// Losses with their gradient in one pass over the outputs: a team of `width` threads a row.
//
// CPU twin: src/backend/cpu/loss.rs. 4 bytes for each output, target and element of the gradient; a
// row is read again from the cache.
#include "device.cuh"

// What every loss is given: `Compared`.
struct Batch {
    size_t rows, columns;
    const float *outputs, *targets;
    const float* weights;  // null counts every row as 1
    float* gradient;       // null where it is not asked
    double* losses;        // [rows, 2]: the loss and the metric of each row

    __device__ float weight(size_t row) const { return weights ? weights[row] : 1.f; }
};

// A value and its index as one number whose maximum is the first of the largest values. NaN is
// skipped, but at the start, where nothing is found to be larger than it: so the twin's loop has it.
__device__ __forceinline__ unsigned long long ranked(float value, size_t index) {
    const bool is_nan = isnan(value);
    if (is_nan && index > 0) return 0;
    const unsigned bits = __float_as_uint(value + 0.f);  // one zero only
    const unsigned ordered = is_nan ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<unsigned long long>(ordered) << 32 | (~0u - static_cast<unsigned>(index));
}

__device__ __forceinline__ unsigned first_largest(unsigned width, unsigned long long mine) {
    const auto join = [](unsigned long long a, unsigned long long b) { return max(a, b); };
    return ~0u - static_cast<unsigned>(join_team(width, mine, join));
}

// losses = and gradient = of a softmax cross entropy. `target_columns` is 1 for class indices.
extern "C" __global__ void softmax_cross_entropy(Batch batch, size_t target_columns, float smoothing,
                                                 unsigned width) {
    const size_t columns = batch.columns;
    const Row row(batch.rows, columns, width);
    const bool is_there = row.columns > 0, is_index = target_columns == 1 && columns > 1;
    const float* x = batch.outputs + row.index * columns;
    const float* y = batch.targets + row.index * target_columns;
    const float index = is_there ? y[0] : 0.f;
    // An output with its share of the target.
    const auto load = [=](size_t i) {
        const float label = is_index ? (index == static_cast<float>(i) ? 1.f : 0.f) : y[i];
        return make_float2(x[i], label * (1.f - smoothing) + smoothing / static_cast<float>(columns));
    };
    float largest = -infinity();
    unsigned long long found = 0, wanted = 0;
    row.each([=](size_t i) { return make_float2(x[i], is_index ? 0.f : y[i]); },
             [&](size_t i, float2 pair) {
                 largest = fmaxf(largest, pair.x);
                 found = max(found, ranked(pair.x, i));
                 wanted = max(wanted, ranked(pair.y, i));
             });
    largest = join_team(width, largest, [](float a, float b) { return fmaxf(a, b); });
    const unsigned best = first_largest(width, found);
    const unsigned target = first_largest(width, wanted);
    double sum = 0.0, expected = 0.0;
    row.each(load, [&](size_t, float2 pair) {
        sum += expf(pair.x - largest);
        expected += static_cast<double>(pair.y) * (pair.x - largest);
    });
    sum = sum_team(width, sum);
    expected = sum_team(width, expected);
    if (!is_there) return;
    if (batch.gradient) {
        const float weight = batch.weight(row.index), inverse = static_cast<float>(1.0 / sum);
        float* dx = batch.gradient + row.index * columns;
        row.each(load, [=](size_t i, float2 pair) {
            dx[i] = weight * (expf(pair.x - largest) * inverse - pair.y);
        });
    }
    if (row.lane == 0) {
        const bool is_class = index >= 0.f && index < static_cast<float>(columns) &&
                              index == truncf(index);
        // No such class: nothing can be said about this row.
        if (is_index && !is_class) expected = not_a_number();
        const bool is_right = is_index ? static_cast<float>(best) == index : best == target;
        batch.losses[2 * row.index] = log(sum) - expected;
        batch.losses[2 * row.index + 1] = is_right ? 1.0 : 0.0;
    }
}

// As src/backend/cuda/loss.rs counts them.
enum LossKind : unsigned { SIGMOID_CROSS_ENTROPY, SQUARED_ERROR, ABSOLUTE_ERROR, HUBER };

// A loss of one output; `parameter` is the smoothing of SIGMOID_CROSS_ENTROPY and the delta of HUBER.
struct Loss {
    unsigned kind;
    float parameter;

    __device__ float smoothed(float y) const { return y * (1.f - parameter) + 0.5f * parameter; }

    __device__ double value(float x, float y) const {
        const double difference = static_cast<double>(x) - static_cast<double>(y);
        switch (kind) {
            case SIGMOID_CROSS_ENTROPY: {
                // Not `max`, which would lose a NaN.
                const double positive = x < 0.f ? 0.0 : x;
                return positive - static_cast<double>(x) * smoothed(y) + log1pf(expf(-fabsf(x)));
            }
            case ABSOLUTE_ERROR: return fabs(difference);
            case HUBER: {
                const double delta = parameter;
                return fabs(difference) > delta ? delta * fabs(difference) - 0.5 * delta * delta
                                                : 0.5 * difference * difference;
            }
            default: return difference * difference;
        }
    }

    __device__ float slope(float x, float y) const {
        const float difference = x - y;
        switch (kind) {
            case SIGMOID_CROSS_ENTROPY: return 1.f / (1.f + expf(-x)) - smoothed(y);
            // Zero and NaN are their own slopes.
            case ABSOLUTE_ERROR:
                return difference > 0.f ? 1.f : difference < 0.f ? -1.f : fabsf(difference);
            case HUBER:
                return difference > parameter    ? parameter
                       : difference < -parameter ? -parameter
                                                 : difference;
            default: return 2.f * difference;
        }
    }

    __device__ double metric(float x, float y) const {
        if (kind == SIGMOID_CROSS_ENTROPY) return (x > 0.f) == (y > 0.5f) ? 1.0 : 0.0;
        return fabsf(x - y);
    }
};

// losses = and gradient = of a loss that is the mean over the outputs.
extern "C" __global__ void elementwise_loss(Batch batch, Loss loss, unsigned width) {
    const Row row(batch.rows, batch.columns, width);
    const float* x = batch.outputs + row.index * batch.columns;
    const float* y = batch.targets + row.index * batch.columns;
    const auto load = [=](size_t i) { return make_float2(x[i], y[i]); };
    double value = 0.0, metric = 0.0;
    row.each(load, [&](size_t, float2 pair) {
        value += loss.value(pair.x, pair.y);
        metric += loss.metric(pair.x, pair.y);
    });
    value = sum_team(width, value);
    metric = sum_team(width, metric);
    if (row.columns == 0) return;
    if (batch.gradient) {
        const float share = batch.weight(row.index) / static_cast<float>(batch.columns);
        float* dx = batch.gradient + row.index * batch.columns;
        row.each(load, [=](size_t i, float2 pair) { dx[i] = share * loss.slope(pair.x, pair.y); });
    }
    if (row.lane == 0) {
        batch.losses[2 * row.index] = value / static_cast<double>(batch.columns);
        batch.losses[2 * row.index + 1] = metric / static_cast<double>(batch.columns);
    }
}

// report[4] = or += the weighted sum of losses, the sums of weights and metrics, the number of rows:
// one block, whose first four threads add one total each, rows in order. 20 bytes a row.
extern "C" __global__ void loss_report(Batch batch, unsigned is_added, double* report) {
    constexpr unsigned ROWS = 256;
    __shared__ double terms[4][ROWS + 1];
    const unsigned thread = threadIdx.x;
    double total = thread < 4 && is_added ? report[thread] : 0.0;
    for (size_t first = 0; first < batch.rows; first += ROWS) {
        const size_t row = first + thread;
        if (row < batch.rows) {
            const double weight = batch.weight(row);
            terms[0][thread] = weight * batch.losses[2 * row];
            terms[1][thread] = weight;
            terms[2][thread] = batch.losses[2 * row + 1];
            terms[3][thread] = 1.0;
        }
        __syncthreads();
        const unsigned count = static_cast<unsigned>(min(batch.rows - first, size_t(ROWS)));
        if (thread < 4) {
            for (unsigned i = 0; i < count; ++i) total += terms[thread][i];
        }
        __syncthreads();
    }
    if (thread < 4) report[thread] = total;
}
