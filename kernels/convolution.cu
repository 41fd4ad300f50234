// Two-dimensional convolution of f32, channels last, as products that read images where they lie;
// PRECISION says what operands are rounded to.
//
//     kernel                     C                       A                    B
//     convolve                   y = act(sum [+ bias])   windows of x         kernel
//     convolve_backward_input    dx =                    windows of dy        kernel, turned
//     convolve_backward_kernel   dkernel = or +=         windows of x, as     dy
//                                                        columns
//
// CPU twin: src/backend/cpu/convolution. Reads 4 bytes of A per 1 / COLUMNS multiply-add and of B per
// 1 / ROWS, A mostly from the caches: each element stands in several windows. Writes C once.
//
// The gradient of the input: row h of x meets row i of the kernel where h + pad - i is a multiple of
// the stride. So rows with the same remainder by the stride, a phase, meet the same rows of the kernel,
// and columns likewise. The gradient of a phase is a convolution of dy with these alone, the last one
// first: its windows are one place of dy apart, and no product is made with zeros between places.
#include "product.cuh"

// Division of numbers below 2^31 by one that is known before.
struct Divisor {
    unsigned divisor, multiplier, shift;

    __device__ unsigned divide(unsigned x) const {
        return static_cast<unsigned>(static_cast<unsigned long long>(x) * multiplier >> shift);
    }
};

// Where a window starts: a row and an element of it, which may lie above or left of the image (they
// then wrap around, beyond all rows and elements), and their place in memory.
struct Corner {
    ptrdiff_t offset;
    unsigned row, element;
};

// Windows over images [rows, elements of a row], numbered by image, row and column.
struct Windows {
    Divisor columns, rows;  // windows beside and below each other in an image
    unsigned height, line;  // rows of an image, elements of a row
    unsigned down, right;   // rows and elements from one window to the next
    unsigned top, left;     // row and element where the first window starts, wrapped below zero

    __device__ Corner corner(unsigned index) const {
        const unsigned above = columns.divide(index), column = index - above * columns.divisor;
        const unsigned image = rows.divide(above), row = above - image * rows.divisor;
        Corner corner;
        corner.row = row * down + top;
        corner.element = column * right + left;
        const int row_of_all = static_cast<int>(image * height + corner.row);
        corner.offset = static_cast<ptrdiff_t>(row_of_all) * static_cast<int>(line) +
                        static_cast<int>(corner.element);
        return corner;
    }
};

// An element of a window, counted from its corner.
struct Inner {
    unsigned row, element;
};

// What is outside of every image, whatever it is combined with: extents are below 2^29.
constexpr unsigned OUTSIDE_ROW = 1u << 31, OUTSIDE_INNER_ROW = 1u << 30;

// The windows of images as an operand: one of them at each row, an element of them at each term.
// `run`: elements of a window's row, which are neighbours in the image.
struct WindowRows {
    using Edge = Corner;
    using Term = Inner;
    const float* start;
    Windows windows;
    Divisor run;
    size_t edges, terms;
    bool wide;

    __device__ Corner edge(size_t index) const {
        if (index >= edges) return {0, OUTSIDE_ROW, 0};
        return windows.corner(static_cast<unsigned>(index));
    }
    __device__ Inner term(size_t index) const {
        if (index >= terms) return {OUTSIDE_INNER_ROW, 0};
        const unsigned low = static_cast<unsigned>(index), row = run.divide(low);
        return {row, low - row * run.divisor};
    }
    __device__ const float* at(const Corner& corner, const Inner& inner) const {
        if (corner.row + inner.row >= windows.height || corner.element + inner.element >= windows.line)
            return nullptr;
        return start + (corner.offset + (inner.row * windows.line + inner.element));
    }
};

// The same transposed: an element of the windows at each row, one of them at each term.
struct WindowColumns {
    using Edge = Inner;
    using Term = Corner;
    WindowRows rows;
    bool wide;

    __device__ Inner edge(size_t index) const { return rows.term(index); }
    __device__ Corner term(size_t index) const { return rows.edge(index); }
    __device__ const float* at(const Inner& inner, const Corner& corner) const {
        return rows.at(corner, inner);
    }
};

// How one phase of the input's gradient reads the kernel: from the last element on that it meets,
// backwards by `up` elements for each row of the windows of dy and by `left` for each column.
struct Turned {
    Divisor run, channels;  // elements of a window's row, and of a column of it
    unsigned last, up, left;
};

// Input channels at the columns, elements of the windows of dy at the terms.
struct TurnedKernel {
    using Edge = const float*;
    using Term = unsigned;
    const float* kernel;
    Turned turned;
    size_t edges, terms;
    bool wide;

    __device__ Edge edge(size_t index) const {
        return index < edges ? kernel + index * turned.channels.divisor : nullptr;
    }
    __device__ Term term(size_t index) const {
        if (index >= terms) return ~0u;
        const unsigned low = static_cast<unsigned>(index), row = turned.run.divide(low);
        const unsigned element = low - row * turned.run.divisor;
        const unsigned column = turned.channels.divide(element);
        const unsigned channel = element - column * turned.channels.divisor;
        return turned.last - row * turned.up - column * turned.left + channel;
    }
    __device__ const float* at(Edge edge, Term term) const {
        return edge && term != ~0u ? edge + term : nullptr;
    }
};

// The places of x with the same remainders by the strides.
struct Phase {
    size_t places, terms;  // in all images; elements of the kernel that each place meets
    Windows windows;       // of dy
    Turned turned;
    Windows dx;            // the places, as windows of one element
};

// What one launch computes: block z has phase z.
struct Phases {
    Phase at[4];
};

// Rows of C that are places of images.
struct RowsOfPlaces {
    Windows places;
    __device__ size_t operator()(size_t row) const {
        return places.corner(static_cast<unsigned>(row)).offset;
    }
};

template <class T>
__device__ __forceinline__ void convolve(const Product& product, const Windows& windows, const Divisor& run,
                                         const float* x, const float* kernel, const float* bias, float* y) {
    const size_t last = product.last_term();
    const WindowRows a{x, windows, run, product.m, last, product.wide_a != 0};
    const Matrix<true> b{kernel, product.n, last, product.n, product.wide_b != 0};
    compute_tile<T, false, true>(product, a, b, bias, y, DenseRows{product.n});
}

template <class T>
__device__ __forceinline__ void convolve_backward_input(Product product, const Phase& phase, const float* dy,
                                                        const float* kernel, float* dx) {
    product.m = phase.places;
    product.k = phase.terms;
    // Another phase may have more.
    if (blockIdx.x >= tile_rows<T>(product.m) * tile_columns<T>(product.n)) return;
    const size_t last = product.last_term();
    const WindowRows a{dy, phase.windows, phase.turned.run, product.m, last, product.wide_a != 0};
    const TurnedKernel b{kernel, phase.turned, product.n, last, product.wide_b != 0};
    compute_tile<T, false, false>(product, a, b, nullptr, dx, RowsOfPlaces{phase.dx});
}

template <class T>
__device__ __forceinline__ void convolve_backward_kernel(const Product& product, const Windows& windows,
                                                         const Divisor& run, const float* x,
                                                         const float* dy, float* dkernel) {
    const size_t last = product.last_term();
    const bool wide = product.wide_a != 0;
    const WindowColumns a{{x, windows, run, last, product.m, wide}, wide};
    const Matrix<true> b{dy, product.n, last, product.n, product.wide_b != 0};
    compute_tile<T, true, true>(product, a, b, nullptr, dkernel, DenseRows{product.n});
}

#define CONVOLUTIONS(size, tile)                                                                               \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, tile::BLOCKS) convolve_##size(                 \
        Product product, Windows windows, Divisor run, const float* __restrict__ x,                            \
        const float* __restrict__ kernel, const float* __restrict__ bias, float* y) {                          \
        convolve<tile>(product, windows, run, x, kernel, bias, y);                                             \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, tile::BLOCKS) convolve_backward_input_##size(  \
        Product product, const __grid_constant__ Phases phases, const float* __restrict__ dy,                  \
        const float* __restrict__ kernel, float* dx) {                                                         \
        convolve_backward_input<tile>(product, phases.at[blockIdx.z], dy, kernel, dx);                         \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(tile::THREADS, tile::BLOCKS) convolve_backward_kernel_##size( \
        Product product, Windows windows, Divisor run, const float* __restrict__ x,                            \
        const float* __restrict__ dy, float* dkernel) {                                                        \
        convolve_backward_kernel<tile>(product, windows, run, x, dy, dkernel);                                 \
    }

CONVOLUTIONS(128x128, Large)
CONVOLUTIONS(128x32, Tall)
CONVOLUTIONS(64x64, Medium)
CONVOLUTIONS(32x32, Small)
