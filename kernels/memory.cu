#include "device.cuh"

// y[len] = value, for elements of 8 bytes; the driver itself fills those of 2 and 4.
// CPU twin: `Memory::fill`. 8 bytes per element.
extern "C" __global__ void fill_64(unsigned long long value, size_t len, unsigned long long *y) {
    FOR_EACH(i, len) y[i] = value;
}
