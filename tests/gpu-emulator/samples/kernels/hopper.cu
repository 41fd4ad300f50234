// sm_90a: TMA (2-D, 128-byte swizzle) -> mbarrier -> wgmma m64n64k16 bf16, double buffered.
// C[M,N] = A[M,K] B[N,K]^T, tiles of 64x64x64.

typedef unsigned long long u64;
struct alignas(64) TensorMap {
  u64 words[16];
};

__device__ __forceinline__ unsigned shared_u32(const void* p) {
  return (unsigned)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ void mbarrier_init(u64* b, int n) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_u32(b)), "r"(n) : "memory");
}
__device__ __forceinline__ void mbarrier_expect(u64* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_u32(b)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void mbarrier_wait(u64* b, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred P;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared.b64 P, [%0], %1;\n"
      "@P bra DONE;\n"
      "bra AGAIN;\n"
      "DONE:\n"
      "}" ::"r"(shared_u32(b)), "r"(parity) : "memory");
}
__device__ __forceinline__ void tma_2d(void* to, const TensorMap* map, int x, int y, u64* b) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_u32(to)), "l"(map), "r"(shared_u32(b)), "r"(x), "r"(y)
      : "memory");
}
// K-major, 128-byte swizzle: 8 rows of 128 bytes are 1024 bytes.
__device__ __forceinline__ u64 descriptor(const void* p) {
  return (u64)((shared_u32(p) & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
__device__ __forceinline__ void wgmma_64(float (&d)[32], u64 a, u64 b, int accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
      "%32, %33, p, 1, 1, 0, 0;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(accumulate));
}

extern "C" __global__ void __launch_bounds__(128)
gemm_wgmma(const __grid_constant__ TensorMap mapA, const __grid_constant__ TensorMap mapB, float* C,
           int N, int K) {
  __shared__ alignas(1024) unsigned short sA[2][64 * 64];
  __shared__ alignas(1024) unsigned short sB[2][64 * 64];
  __shared__ alignas(8) u64 full[2];
  int tid = threadIdx.x, m0 = blockIdx.y * 64, n0 = blockIdx.x * 64, tiles = K / 64;
  if (tid == 0) {
    mbarrier_init(&full[0], 1);
    mbarrier_init(&full[1], 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  auto issue = [&](int t) {
    if (tid == 0) {
      int s = t & 1;
      mbarrier_expect(&full[s], 2 * 64 * 64 * 2);
      tma_2d(sA[s], &mapA, t * 64, m0, &full[s]);
      tma_2d(sB[s], &mapB, t * 64, n0, &full[s]);
    }
  };
  float d[32] = {};
  issue(0);
  for (int t = 0; t < tiles; ++t) {
    int s = t & 1;
    if (t + 1 < tiles) issue(t + 1);
    mbarrier_wait(&full[s], (t >> 1) & 1);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 4; ++k)
      wgmma_64(d, descriptor(&sA[s][k * 16]), descriptor(&sB[s][k * 16]), t | k);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    __syncthreads();
  }
  int w = tid / 32, l = tid & 31;
  for (int j = 0; j < 8; ++j)
    for (int e = 0; e < 4; ++e) {
      int row = m0 + w * 16 + l / 4 + 8 * (e >> 1), column = n0 + j * 8 + (l & 3) * 2 + (e & 1);
      C[(size_t)row * N + column] = d[j * 4 + e];
    }
}
