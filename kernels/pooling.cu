// The largest or the mean value of windows of an image, channels last.
//
// CPU twin: src/backend/cpu/pooling.rs, whose bits these kernels have. A thread makes one element of
// the output, or of `dx`: backward gathers from the windows that cover a place, in their order, so
// that nothing is added by two threads. 4 bytes for each element read and written; what windows
// share comes from the cache.
#include "device.cuh"

// `PoolGeometry` of src/backend/pooling.rs.
struct Geometry {
    size_t rows, in_height, in_width, channels;
    size_t window_height, window_width, stride_height, stride_width;
    size_t pad_top, pad_left, out_height, out_width;
};

struct Range {
    size_t first, last;
};

// What of window `index` lies in 0..extent.
__device__ __forceinline__ Range part(size_t index, size_t stride, size_t window, size_t pad,
                                      size_t extent) {
    const size_t start = index * stride, end = start + window;
    return {start > pad ? start - pad : 0, min(end > pad ? end - pad : 0, extent)};
}

// The windows that cover a place of 0..extent.
__device__ __forceinline__ Range covering(size_t place, size_t stride, size_t window, size_t pad,
                                          size_t windows) {
    const size_t padded = place + pad;
    const size_t first = padded < window ? 0 : divide(padded - window, stride).quotient + 1;
    return {first, min(divide(padded, stride).quotient + 1, windows)};
}

// An element of `[rows, height, width, channels]`.
struct Place {
    size_t image, row, column, channel;
};

__device__ __forceinline__ Place place_of(size_t index, size_t height, size_t width,
                                          size_t channels) {
    const Divided channel = divide(index, channels);
    const Divided column = divide(channel.quotient, width);
    const Divided row = divide(column.quotient, height);
    return {row.quotient, row.remainder, column.remainder, channel.remainder};
}

// The part of a window that lies in the image.
struct Window {
    Range rows, columns;

    __device__ Window(const Geometry& g, size_t row, size_t column)
        : rows(part(row, g.stride_height, g.window_height, g.pad_top, g.in_height)),
          columns(part(column, g.stride_width, g.window_width, g.pad_left, g.in_width)) {}

    __device__ float count() const {
        return static_cast<float>((rows.last - rows.first) * (columns.last - columns.first));
    }
};

// Joins the values of each window, place by place.
template <typename Join, typename Finish>
__device__ __forceinline__ void pool(const Geometry& g, const float* x, float* y, Join join,
                                     Finish finish) {
    FOR_EACH(i, g.rows * g.out_height * g.out_width * g.channels) {
        const Place place = place_of(i, g.out_height, g.out_width, g.channels);
        const Window window(g, place.row, place.column);
        const float* image = x + place.image * g.in_height * g.in_width * g.channels + place.channel;
        float value = 0.f;
        bool is_first = true;
        for (size_t row = window.rows.first; row < window.rows.last; ++row) {
            for (size_t column = window.columns.first; column < window.columns.last; ++column) {
                value = join(is_first, value, image[(row * g.in_width + column) * g.channels]);
                is_first = false;
            }
        }
        y[i] = finish(value, window);
    }
}

// y = the largest of each window; NaN is larger than anything.
extern "C" __global__ void max_pool(Geometry g, const float* x, float* y) {
    pool(
        g, x, y,
        [](bool is_first, float y, float x) { return is_first || x > y || isnan(x) ? x : y; },
        [](float y, const Window&) { return y; });
}

// y = the mean of each window.
extern "C" __global__ void average_pool(Geometry g, const float* x, float* y) {
    pool(
        g, x, y, [](bool, float y, float x) { return y + x; },
        [](float y, const Window& window) { return y / window.count(); });
}

// Adds what each window that covers a place hands to it: `share(window, index of the output, place)`.
template <typename Share>
__device__ __forceinline__ void pool_backward(const Geometry& g, float* dx, Share share) {
    FOR_EACH(i, g.rows * g.in_height * g.in_width * g.channels) {
        const Place place = place_of(i, g.in_height, g.in_width, g.channels);
        const Range rows =
            covering(place.row, g.stride_height, g.window_height, g.pad_top, g.out_height);
        const Range columns =
            covering(place.column, g.stride_width, g.window_width, g.pad_left, g.out_width);
        float sum = 0.f;
        for (size_t row = rows.first; row < rows.last; ++row) {
            for (size_t column = columns.first; column < columns.last; ++column) {
                const size_t window = (place.image * g.out_height + row) * g.out_width + column;
                sum += share(Window(g, row, column), window * g.channels + place.channel, i, place);
            }
        }
        dx[i] = sum;
    }
}

// dx = the gradient of max_pool: dy goes to the first place that holds the window's maximum.
extern "C" __global__ void max_pool_backward(Geometry g, const float* x, const float* y,
                                             const float* dy, float* dx) {
    pool_backward(g, dx, [=](const Window& window, size_t output, size_t input, const Place& here) {
        const float largest = y[output];
        // Any place is the maximum's where that is NaN, as on the CPU; so the first one gets it.
        const auto is_largest = [=](float x) { return x >= largest || isnan(largest); };
        if (!is_largest(x[input])) return 0.f;
        const float* image = x + here.image * g.in_height * g.in_width * g.channels + here.channel;
        for (size_t row = window.rows.first; row <= here.row; ++row) {
            const size_t last = row == here.row ? here.column : window.columns.last;
            for (size_t column = window.columns.first; column < last; ++column) {
                if (is_largest(image[(row * g.in_width + column) * g.channels])) return 0.f;
            }
        }
        return dy[output];
    });
}

// dx = the gradient of average_pool.
extern "C" __global__ void average_pool_backward(Geometry g, const float* dy, float* dx) {
    pool_backward(g, dx, [=](const Window& window, size_t output, size_t, const Place&) {
        return dy[output] / window.count();
    });
}
