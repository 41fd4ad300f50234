// Kernels written as any project would write them; nothing here knows about the emulator.
#include "device.cuh"

// 1. tiled f32 matmul  C[M,N] = A[M,K] B[K,N]; any M,N,K
constexpr int TS = 16;
extern "C" __global__ void matmul_tiled(const float* __restrict__ A, const float* __restrict__ B,
                                        float* __restrict__ C, int M, int N, int K) {
  __shared__ float sA[TS][TS + 1];
  __shared__ float sB[TS][TS + 1];
  int tx = threadIdx.x, ty = threadIdx.y;
  int row = blockIdx.y * TS + ty, col = blockIdx.x * TS + tx;
  float acc = 0.f;
  for (int k0 = 0; k0 < K; k0 += TS) {
    sA[ty][tx] = (row < M && k0 + tx < K) ? A[(size_t)row * K + k0 + tx] : 0.f;
    sB[ty][tx] = (k0 + ty < K && col < N) ? B[(size_t)(k0 + ty) * N + col] : 0.f;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TS; ++k) acc = fmaf(sA[ty][k], sB[k][tx], acc);
    __syncthreads();
  }
  if (row < M && col < N) C[(size_t)row * N + col] = acc;
}

// 2. row softmax, one block per row, warp shuffles + shared
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
extern "C" __global__ void softmax_rows(const float* __restrict__ x, float* __restrict__ y, int cols) {
  __shared__ float red[32];
  int row = blockIdx.x, lane = threadIdx.x & 31, w = threadIdx.x >> 5, nw = blockDim.x >> 5;
  const float* xr = x + (size_t)row * cols;
  float* yr = y + (size_t)row * cols;
  float m = -INFINITY;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) m = fmaxf(m, xr[i]);
  m = warp_max(m);
  if (lane == 0) red[w] = m;
  __syncthreads();
  m = warp_max(lane < nw ? red[lane] : -INFINITY);
  __syncthreads();
  float s = 0.f;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) s += __expf(xr[i] - m);
  s = warp_sum(s);
  if (lane == 0) red[w] = s;
  __syncthreads();
  s = warp_sum(lane < nw ? red[lane] : 0.f);
  float inv = 1.f / s;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) yr[i] = __expf(xr[i] - m) * inv;
}

// 3. bf16 tensor-core matmul: A[M,K] row-major, B[N,K] (i.e. B^T, "col" operand), C f32.
//    block = 128 threads (4 warps), tile 64x64, each warp 32x32, K step 32,
//    double-buffered cp.async + ldmatrix + mma.m16n8k16. M,N %64==0, K%32==0.
constexpr int BM = 64, BN = 64, BK = 32, PAD = 8;
extern "C" __global__ void __launch_bounds__(128) matmul_bf16_mma(const bf16* __restrict__ A,
                                 const bf16* __restrict__ B,
                                 float* __restrict__ C, int M, int N, int K) {
  __shared__ __align__(16) bf16 sA[2][BM][BK + PAD];
  __shared__ __align__(16) bf16 sB[2][BN][BK + PAD];
  int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  int wm = (warp >> 1) * 32, wn = (warp & 1) * 32;
  int bm = blockIdx.y * BM, bn = blockIdx.x * BN;
  float acc[2][4][4] = {};
  auto load = [&](int buf, int k0) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {            // 64 rows * 4 chunks of 16 bytes = 256 chunks / 128 threads
      int c = tid + i * 128, r = c >> 2, q = (c & 3) * 8;
      cp_async_16(&sA[buf][r][q], &A[(size_t)(bm + r) * K + k0 + q]);
      cp_async_16(&sB[buf][r][q], &B[(size_t)(bn + r) * K + k0 + q]);
    }
    cp_async_commit();
  };
  int nk = K / BK;
  load(0, 0);
  for (int t = 0; t < nk; ++t) {
    int buf = t & 1;
    if (t + 1 < nk) { load(buf ^ 1, (t + 1) * BK); cp_async_wait<1>(); }
    else cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < BK; kk += 16) {
      unsigned a[2][4], b[4][2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        ldmatrix_x4(a[i], &sA[buf][wm + i * 16 + (lane & 15)][kk + (lane >> 4) * 8]);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        ldmatrix_x2(b[j], &sB[buf][wn + j * 8 + (lane & 7)][kk + ((lane >> 3) & 1) * 8]);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(acc[i][j], a[i], b[j]);
    }
    __syncthreads();
  }
  int g = lane >> 2, t4 = lane & 3;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      int r = bm + wm + i * 16 + g, c = bn + wn + j * 8 + t4 * 2;
      C[(size_t)r * N + c] = acc[i][j][0];
      C[(size_t)r * N + c + 1] = acc[i][j][1];
      C[(size_t)(r + 8) * N + c] = acc[i][j][2];
      C[(size_t)(r + 8) * N + c + 1] = acc[i][j][3];
    }
}

// 4. fused AdamW over a flat buffer: f32 master, bf16 copy out, global-norm accumulation by atomicAdd
extern "C" __global__ void adamw(float* __restrict__ p, bf16* __restrict__ p16, const float* __restrict__ g,
                                 float* __restrict__ m, float* __restrict__ v, float* __restrict__ gnorm2,
                                 float lr, float b1, float b2, float eps, float wd, float c1, float c2, int n) {
  float local = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    float gi = g[i];
    float mi = b1 * m[i] + (1.f - b1) * gi;
    float vi = b2 * v[i] + (1.f - b2) * gi * gi;
    m[i] = mi; v[i] = vi;
    float upd = (mi * c1) / (sqrtf(vi * c2) + eps) + wd * p[i];
    float np = p[i] - lr * upd;
    p[i] = np;
    p16[i] = to_bf16(np);
    local += gi * gi;
  }
  local = warp_sum(local);
  if ((threadIdx.x & 31) == 0) atomicAdd(gnorm2, local);
}

// 5. layernorm forward, one warp per row
extern "C" __global__ void layernorm(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ b,
                                     float* __restrict__ y, int rows, int cols, float eps) {
  int row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= rows) return;                       // whole warps leave early
  const float* xr = x + (size_t)row * cols;
  float s = 0.f;
  for (int i = lane; i < cols; i += 32) s += xr[i];
  float mu = warp_sum(s) / cols;
  float q = 0.f;
  for (int i = lane; i < cols; i += 32) { float d = xr[i] - mu; q += d * d; }
  float rs = rsqrtf(warp_sum(q) / cols + eps);
  for (int i = lane; i < cols; i += 32) y[(size_t)row * cols + i] = (xr[i] - mu) * rs * w[i] + b[i];
}
