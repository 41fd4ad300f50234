// Functions of one element, additions and dropout.
//
// CPU twin: src/backend/cpu/activation. `x`, `y`, ... may be one array where a caller works in place:
// a thread reads its elements before it writes them.
#include "activation.cuh"
#include "device.cuh"
#include "random.cuh"

// y[len] = f(x). 8 bytes an element.
extern "C" __global__ void activate(unsigned kind, float parameter, size_t len, const float* x,
                                    float* y) {
    const Quads quads(len, x, y);
    FOR_EACH(group, quads.count()) {
        Four<float> four = quads.load(group, x);
        for (float& value : four.at) value = activate(kind, parameter, value);
        quads.store(group, y, four);
    }
}

// dy[len] = dy * f', from what was saved. 12 bytes an element.
extern "C" __global__ void activate_backward(unsigned kind, float parameter, size_t len,
                                             const float* saved, float* dy) {
    const Quads quads(len, saved, dy);
    FOR_EACH(group, quads.count()) {
        const Four<float> from = quads.load(group, saved);
        Four<float> four = quads.load(group, dy);
        for (int i = 0; i < 4; ++i) {
            four.at[i] = activate_backward(kind, parameter, from.at[i], four.at[i]);
        }
        quads.store(group, dy, four);
    }
}

// sum[len] = a + b. 12 bytes an element.
extern "C" __global__ void add(size_t len, const float* a, const float* b, float* sum) {
    const Quads quads(len, a, b, sum);
    FOR_EACH(group, quads.count()) {
        const Four<float> left = quads.load(group, a), right = quads.load(group, b);
        Four<float> four;
        for (int i = 0; i < 4; ++i) four.at[i] = left.at[i] + right.at[i];
        quads.store(group, sum, four);
    }
}

// y[len] = factor * x. 8 bytes an element. CPU twin: src/backend/cpu/normalization.rs.
extern "C" __global__ void scale(float factor, size_t len, const float* x, float* y) {
    const Quads quads(len, x, y);
    FOR_EACH(group, quads.count()) {
        Four<float> four = quads.load(group, x);
        for (float& value : four.at) value = factor * value;
        quads.store(group, y, four);
    }
}

// Which elements are dropped: `DropoutKey`, and what follows from the rate.
struct Dropout {
    unsigned seed_low, seed_high, step, layer, first_sample;
    unsigned threshold;  // words below it drop
    float scale;
};

// y[rows, columns] = x * scale where kept, else 0. 8 bytes an element. Four neighbours of a row share
// one call of philox, so groups of four are counted from the row's start, not from an aligned place.
extern "C" __global__ void dropout(Dropout key, size_t rows, size_t columns, const float* x,
                                   float* y) {
    const size_t groups = (columns + 3) / 4;
    FOR_EACH(i, rows * groups) {
        const Divided place = divide(i, groups);
        const size_t row = place.quotient, group = place.remainder;
        const unsigned sample = key.first_sample + static_cast<unsigned>(row);
        const Words words = philox({{static_cast<unsigned>(group), sample, key.layer, key.step}},
                                   key.seed_low, key.seed_high);
        // A row is an array of its own; its groups are those above where it begins at an aligned place.
        Quads quads(columns, x + row * columns, y + row * columns);
        quads.is_wide = quads.is_wide && quads.shift == 0;
        quads.shift = 0;
        Four<float> four = quads.load(group, x + row * columns);
        for (int j = 0; j < 4; ++j) {
            four.at[j] = words.at[j] < key.threshold ? 0.f : four.at[j] * key.scale;
        }
        quads.store(group, y + row * columns, four);
    }
}
