#include "device.cuh"

// By the size of an element in bits, as every kernel of this file.

// y[len] = value.
// CPU twin: `Memory::fill`. As many bytes per element as it has.
#define FILL(name, T) \
    extern "C" __global__ void name(T value, size_t len, T *y) { FOR_EACH(i, len) y[i] = value; }
FILL(fill_16, unsigned short)
FILL(fill_32, unsigned)
FILL(fill_64, unsigned long long)

// y[len] = x[len].
// CPU twin: `Memory::copy`. Twice as many bytes per element as it has.
#define COPY(name, T)                                                               \
    extern "C" __global__ void name(size_t len, const T *x, T *y) {                 \
        const Quads quads(len, x, y);                                               \
        FOR_EACH(group, quads.count()) quads.store(group, y, quads.load(group, x)); \
    }
COPY(copy_16, unsigned short)
COPY(copy_32, unsigned)
COPY(copy_64, unsigned long long)
