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

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Copies BYTES, 4 or 16, from global to shared memory, or writes as many zeros where `from` is null.
// Visible after `copies_arrive` and a barrier. Below 8.0 an ordinary copy through registers.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
    static_assert(BYTES == 4 || BYTES == 16);
#if __CUDA_ARCH__ >= 800
    const unsigned address = shared_address(to);
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

// Makes one group of the `copy_async` that this thread started since the last: none, maybe.
__device__ __forceinline__ void close_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all of this thread's groups of copies but the last `RUNNING`.
template <int RUNNING>
__device__ __forceinline__ void copies_are_done() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(RUNNING) : "memory");
#endif
}

// What operands of products are rounded to: `backend::Precision`. Bits of the others stand in shared
// memory, and are multiplied by tensor cores, DEPTH terms at a time; these need 8.0, or for f16 7.5.
struct F32 {};

#define MULTIPLY_ADD(shape, type)                                                                       \
    static __device__ __forceinline__ void multiply_add(float& c0, float& c1, float& c2, float& c3,     \
                                                        const unsigned (&a)[4], unsigned b0, unsigned b1) { \
        asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, "  \
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                    \
                     : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)                                           \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                   \
    }

// The same by a warpgroup, four warps, which is of 9.0 alone: starts to multiply 64 rows of A by 128 columns
// of B, 16 terms that stand where `group_operand` says, and to add the products to `sum`, or to zero where
// `adds` is 0. A thread has the sums of two rows, 8 apart, and there of pairs of columns, 8 apart.
#define SUMS_OF_8(sum, j) \
    "+f"(sum[0][j]), "+f"(sum[0][j + 1]), "+f"(sum[1][j]), "+f"(sum[1][j + 1]), \
    "+f"(sum[0][j + 2]), "+f"(sum[0][j + 3]), "+f"(sum[1][j + 2]), "+f"(sum[1][j + 3])
#define ALL_SUMS(sum) \
    SUMS_OF_8(sum, 0), SUMS_OF_8(sum, 4), SUMS_OF_8(sum, 8), SUMS_OF_8(sum, 12), SUMS_OF_8(sum, 16), \
    SUMS_OF_8(sum, 20), SUMS_OF_8(sum, 24), SUMS_OF_8(sum, 28)
#define GROUP_MULTIPLY_ADD(type)                                                                        \
    static __device__ __forceinline__ void group_multiply_add(float (&sum)[2][32], size_t a, size_t b,  \
                                                              int adds) {                               \
        asm volatile("{\n.reg .pred adds;\nsetp.ne.s32 adds, %66, 0;\n"                                 \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                  \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
                     "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
                     "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
                     "%64, %65, adds, 1, 1, 0, 0;\n}"                                                   \
                     : ALL_SUMS(sum)                                                                    \
                     : "l"(a), "l"(b), "r"(adds));                                                      \
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
    GROUP_MULTIPLY_ADD("bf16")
};

// To nearest, ties to even; from 65520 on to infinity.
struct F16 {
    using Bits = unsigned short;
    static constexpr int DEPTH = 16;
    static __device__ __forceinline__ unsigned round(float low, float high) {
        unsigned bits;
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
        asm("{\n.reg .b16 low, high;\ncvt.rn.f16.f32 low, %1;\ncvt.rn.f16.f32 high, %2;\n"
            "mov.b32 %0, {low, high};\n}"
            : "=r"(bits)
            : "f"(low), "f"(high));
#endif
        return bits;
    }
#if __CUDA_ARCH__ >= 800
    MULTIPLY_ADD("m16n8k16", "f16")
    GROUP_MULTIPLY_ADD("f16")
#else
    // 8 terms at a time, which are half of each operand's registers.
    static __device__ __forceinline__ void multiply_add(float& c0, float& c1, float& c2, float& c3,
                                                        const unsigned (&a)[4], unsigned b0, unsigned b1) {
        multiply_add_8(c0, c1, c2, c3, a[0], a[1], b0);
        multiply_add_8(c0, c1, c2, c3, a[2], a[3], b1);
    }
    static __device__ __forceinline__ void multiply_add_8(float& c0, float& c1, float& c2, float& c3,
                                                          unsigned a0, unsigned a1, unsigned b) {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
                     : "r"(a0), "r"(a1), "r"(b));
    }
#endif
};

// Four matrices of 8 rows of 16 bytes in shared memory; lane 8 * i + r says where row r of matrix i is,
// and gets of matrix i the word 4 * r + w that is its own number. TRANSPOSED, rows are 8 numbers of
// 16 bits, and a lane gets two numbers of a column.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* row) {
    const unsigned address = shared_address(row);
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

// Asynchronous copies of tiles and products of warpgroups: of 9.0 alone (TMA, mbarrier, wgmma).

// Made by the driver: where a matrix lies, and the tile of it that a copy takes.
struct alignas(64) TensorMap {
    size_t words[16];
};

// Completes a phase when it has seen its number of arrivals, and all bytes that were announced.
struct Barrier {
    size_t state;

    // By one thread, before `barriers_are_ready` and a barrier for all.
    __device__ __forceinline__ void start(unsigned arrivals) {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals) : "memory");
    }
    __device__ __forceinline__ void arrive() {
        asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(this)) : "memory");
    }
    // Arrives, and announces bytes of copies.
    __device__ __forceinline__ void arrive_and_expect(unsigned bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(this)), "r"(bytes)
                     : "memory");
    }
    // Until the phase with this parity is complete; the phase before the first has parity 1.
    __device__ __forceinline__ void wait(unsigned parity) {
        unsigned is_complete;
        do {
            asm volatile("{\n.reg .pred complete;\n"
                         "mbarrier.try_wait.parity.shared.b64 complete, [%1], %2;\n"
                         "selp.u32 %0, 1, 0, complete;\n}"
                         : "=r"(is_complete)
                         : "r"(shared_address(this)), "r"(parity)
                         : "memory");
        } while (!is_complete);
    }
};

__device__ __forceinline__ void barriers_are_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Starts to copy a tile from `column` and `row` on; what lies outside the matrix is zero. Its bytes arrive
// at `barrier`. Rows of 128 bytes have their eight chunks of 16 exchanged as tensor cores want it.
__device__ __forceinline__ void copy_tile(void* to, const TensorMap& map, size_t column, size_t row,
                                          Barrier& barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
                 "l"(&map), "r"(shared_address(&barrier)), "r"(static_cast<int>(column)),
                 "r"(static_cast<int>(row))
                 : "memory");
}

// What `group_multiply_add` is told of an operand: rows of 128 bytes that `copy_tile` has brought to a
// multiple of 1024 bytes, in which eight rows follow one another. Adding 2 to it goes on by 16 terms.
__device__ __forceinline__ size_t group_operand(const void* first) {
    constexpr size_t ROWS_OF_128_BYTES = 1ull << 62, BETWEEN_EIGHTS = 1024 / 16, UNUSED = 1;
    return ROWS_OF_128_BYTES | BETWEEN_EIGHTS << 32 | UNUSED << 16 | (shared_address(first) & 0x3ffff) / 16;
}

// Before products of a warpgroup whose operands ordinary stores have written; then a barrier for all.
__device__ __forceinline__ void shared_is_written() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before a product of a warpgroup whose sums something else has touched.
__device__ __forceinline__ void sums_are_ready() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Makes one group of the products that were started since the last.
__device__ __forceinline__ void close_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits for all groups of products but the last `RUNNING`. Sums may be touched when none is running.
template <int RUNNING>
__device__ __forceinline__ void groups_are_done(float (&sum)[2][32]) {
    asm volatile("wgmma.wait_group.sync.aligned %64;" : ALL_SUMS(sum) : "n"(RUNNING) : "memory");
}
