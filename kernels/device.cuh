// What every kernel file includes.
#pragma once

// Runs the statement that follows for each `i` below `len`, whatever the grid.
#define FOR_EACH(i, len)                                                       \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (len); \
         i += (size_t)gridDim.x * blockDim.x)

// Copies BYTES, 4 or 16, from global to shared memory, or writes as many zeros where `from` is null.
// Visible after `copies_arrive` and a barrier. Below 8.0 an ordinary copy through registers.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
    static_assert(BYTES == 4 || BYTES == 16);
#if __CUDA_ARCH__ >= 800
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    const unsigned bytes = from ? BYTES : 0;
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                     "r"(bytes)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from),
                     "r"(bytes)
                     : "memory");
    }
#else
    if constexpr (BYTES == 16) {
        const float4 zeros = make_float4(0.f, 0.f, 0.f, 0.f);
        *static_cast<float4*>(to) = from ? *static_cast<const float4*>(from) : zeros;
    } else {
        *static_cast<float*>(to) = from ? *static_cast<const float*>(from) : 0.f;
    }
#endif
}

// Waits for all of this thread's `copy_async`.
__device__ __forceinline__ void copies_arrive() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
