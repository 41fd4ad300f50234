// What every kernel file includes.
#pragma once

// Runs the statement that follows for each `i` below `len`, whatever the grid.
#define FOR_EACH(i, len)                                                       \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (len); \
         i += (size_t)gridDim.x * blockDim.x)
