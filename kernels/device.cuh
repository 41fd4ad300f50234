// What every kernel file includes.
#pragma once

// Runs the statement that follows for each `i` below `len`, whatever the grid.
#define FOR_EACH(i, len)                                                       \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (len); \
         i += (size_t)gridDim.x * blockDim.x)

// A quotient with its remainder; 32 bits where they are enough, which is several times faster.
struct Divided {
    size_t quotient, remainder;
};

__device__ __forceinline__ Divided divide(size_t dividend, size_t divisor) {
    if ((dividend | divisor) >> 32 == 0) {
        const unsigned low = static_cast<unsigned>(dividend), by = static_cast<unsigned>(divisor);
        return {low / by, low % by};
    }
    return {dividend / divisor, dividend % divisor};
}

// Four neighbouring elements, moved by 128-bit accesses (64-bit for elements of 2 bytes).
template <typename T>
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Four {
    T at[4];
};

// Cuts arrays of `len` elements into groups of four that are aligned in memory: the first and the
// last may reach beyond the arrays. Arrays that are not aligned to each other are read and written
// one element at a time. Nothing but loads and stores knows, so an element's bits do not either.
struct Quads {
    size_t len;
    unsigned shift;  // elements by which the first group begins before the arrays
    bool is_wide;    // whether groups are aligned in all arrays

    template <typename First, typename... Others>
    __device__ Quads(size_t len, const First* first, const Others*... others)
        : len(len),
          shift(reinterpret_cast<size_t>(first) % alignof(Four<First>) / sizeof(First)),
          is_wide((is_aligned(others) && ... && true)) {}

    __device__ size_t count() const { return (len + shift + 3) / 4; }

    template <typename T>
    __device__ __forceinline__ Four<T> load(size_t group, const T* array) const {
        const size_t first = 4 * group - shift;
        if (is_whole(first)) return *reinterpret_cast<const Four<T>*>(array + first);
        Four<T> four;
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) four.at[i] = first + i < len ? array[first + i] : T();
        return four;
    }

    template <typename T>
    __device__ __forceinline__ void store(size_t group, T* array, const Four<T>& four) const {
        const size_t first = 4 * group - shift;
        if (is_whole(first)) {
            *reinterpret_cast<Four<T>*>(array + first) = four;
            return;
        }
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            if (first + i < len) array[first + i] = four.at[i];
        }
    }

    // `first` wraps below zero for elements before the arrays.
    __device__ bool is_whole(size_t first) const {
        return is_wide && first < len && len - first >= 4;
    }

    template <typename T>
    __device__ bool is_aligned(const T* array) const {
        return (reinterpret_cast<size_t>(array) - shift * sizeof(T)) % alignof(Four<T>) == 0;
    }
};

// Calls `use(i, load(i))` for `first`, `first + stride`, ... below `last`, in this order, with BATCH loads
// on their way at a time: a compiler lets them wait for each other where the loop may end, or memory may
// be written, between them.
template <int BATCH, typename Load, typename Use>
__device__ __forceinline__ void in_batches(size_t first, size_t last, size_t stride, Load load, Use use) {
    decltype(load(first)) loaded[BATCH];
    size_t start = first;
    for (; start + (BATCH - 1) * stride < last; start += BATCH * stride) {
#pragma unroll
        for (int i = 0; i < BATCH; ++i) loaded[i] = load(start + i * stride);
#pragma unroll
        for (int i = 0; i < BATCH; ++i) use(start + i * stride, loaded[i]);
    }
    // What is left over is less than a batch.
#pragma unroll
    for (int i = 0; i < BATCH - 1; ++i) {
        if (start + i * stride < last) loaded[i] = load(start + i * stride);
    }
#pragma unroll
    for (int i = 0; i < BATCH - 1; ++i) {
        if (start + i * stride < last) use(start + i * stride, loaded[i]);
    }
}

// What math.h would have.
__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }

constexpr unsigned ALL_LANES = 0xffffffff;

// Joins one value of each of `width` neighbouring threads; every one of them gets the result. `width`
// is a power of two up to 32, or the block's size, a multiple of 32. The order follows from `width`
// alone. All threads of the block call it together; `join` is commutative.
template <typename T, typename Join>
__device__ __forceinline__ T join_team(unsigned width, T mine, Join join) {
    for (unsigned offset = min(width, 32u) / 2; offset > 0; offset /= 2) {
        mine = join(mine, __shfl_xor_sync(ALL_LANES, mine, offset));
    }
    if (width <= 32) return mine;
    __shared__ T warps[32];
    __syncthreads();  // Whoever reads what the last call left here has done so.
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    T all = warps[0];
    for (unsigned warp = 1; warp < width / 32; ++warp) all = join(all, warps[warp]);
    return all;
}

template <typename T>
__device__ __forceinline__ T sum_team(unsigned width, T mine) {
    return join_team(width, mine, [](T a, T b) { return a + b; });
}

// The row that a team of `width` neighbouring threads works on, and what this thread has of it:
// columns `lane`, `lane + width`, ... below `columns`. A team that is left over has no columns.
struct Row {
    size_t index, columns;
    unsigned width, lane;

    __device__ Row(size_t rows, size_t columns, unsigned width) : width(width) {
        index = static_cast<size_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
        lane = threadIdx.x % width;
        this->columns = index < rows ? columns : 0;
    }

    // Calls `use(i, load(i))` for each column that this thread has.
    template <typename Load, typename Use>
    __device__ __forceinline__ void each(Load load, Use use) const {
        in_batches<4>(lane, columns, width, load, use);
    }
};

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

// What operands of products are rounded to: `backend::Precision`. Bits of the others stand in shared
// memory, and are multiplied by tensor cores, DEPTH terms at a time; these need 8.0.
struct F32 {};

#define MULTIPLY_ADD(shape, type)                                                                       \
    static __device__ __forceinline__ void multiply_add(float& c0, float& c1, float& c2, float& c3,     \
                                                        const unsigned (&a)[4], unsigned b0, unsigned b1) { \
        asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, "  \
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                    \
                     : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)                                           \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                   \
    }

// To nearest, ties away from zero: tensor cores would cut off.
struct Tf32 {
    using Bits = unsigned;
    static constexpr int DEPTH = 8;
    static __device__ __forceinline__ Bits round(float x) {
        Bits bits;
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
        return bits;
    }
    MULTIPLY_ADD("m16n8k8", "tf32")
};

// To nearest, ties to even.
struct Bf16 {
    using Bits = unsigned short;
    static constexpr int DEPTH = 16;
    static __device__ __forceinline__ unsigned round(float low, float high) {
        unsigned bits;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
        return bits;
    }
    MULTIPLY_ADD("m16n8k16", "bf16")
};

// To nearest, ties to even; from 65520 on to infinity.
struct F16 {
    using Bits = unsigned short;
    static constexpr int DEPTH = 16;
    static __device__ __forceinline__ unsigned round(float low, float high) {
        unsigned bits;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
        return bits;
    }
    MULTIPLY_ADD("m16n8k16", "f16")
};

// Four matrices of 8 rows of 16 bytes in shared memory; lane 8 * i + r says where row r of matrix i is,
// and gets of matrix i the word 4 * r + w that is its own number. TRANSPOSED, rows are 8 numbers of
// 16 bits, and a lane gets two numbers of a column.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* row) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    }
}
