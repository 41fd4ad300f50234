// What the kernels of a trainer need beyond basic.cu: a register-blocked f32 product, 64-bit integer
// and f64 arithmetic, counter-based random numbers, and the elementary functions in full precision.
#include "device.cuh"

// C[M,N] = A[M,K] B[K,N]; N and K are multiples of 4. A block of 256 threads computes 64 x 64, each
// thread 4 x 4; the next tiles are on their way while the present ones are multiplied: B by
// cp.async, A through registers, since it is stored transposed.
constexpr int BM = 64, BN = 64, BK = 16;
extern "C" __global__ void __launch_bounds__(256)
matmul_blocked(const float* __restrict__ A, const float* __restrict__ B, float* __restrict__ C, int M, int N,
               int K) {
  __shared__ __align__(16) float sA[2][BK][BM + 4];
  __shared__ __align__(16) float sB[2][BK][BN];
  int tid = threadIdx.x, m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
  int ar = tid / 4, ac = tid % 4 * 4, br = tid / 16, bc = tid % 16 * 4;
  int tx = tid % 16 * 4, ty = tid / 16 * 4;
  float4 next;
  auto fetch = [&](int buffer, int k0) {
    next = make_float4(0.f, 0.f, 0.f, 0.f);
    if (m0 + ar < M && k0 + ac < K)
      next = *reinterpret_cast<const float4*>(&A[(size_t)(m0 + ar) * K + k0 + ac]);
    bool inside = k0 + br < K && n0 + bc < N;
    const float* from = inside ? &B[(size_t)(k0 + br) * N + n0 + bc] : B;
    cp_async_16_or_zero(&sB[buffer][br][bc], from, inside);
    cp_async_commit();
  };
  auto store = [&](int buffer) {
    sA[buffer][ac][ar] = next.x;
    sA[buffer][ac + 1][ar] = next.y;
    sA[buffer][ac + 2][ar] = next.z;
    sA[buffer][ac + 3][ar] = next.w;
    cp_async_wait<0>();
    __syncthreads();
  };
  float acc[4][4] = {};
  fetch(0, 0);
  store(0);
  int tiles = (K + BK - 1) / BK;
  for (int t = 0; t < tiles; ++t) {
    int buffer = t & 1;
    if (t + 1 < tiles) fetch(buffer ^ 1, (t + 1) * BK);
#pragma unroll
    for (int k = 0; k < BK; ++k) {
      float4 a = *reinterpret_cast<const float4*>(&sA[buffer][k][ty]);
      float4 b = *reinterpret_cast<const float4*>(&sB[buffer][k][tx]);
      float x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
    }
    if (t + 1 < tiles) store(buffer ^ 1);
  }
  for (int i = 0; i < 4; ++i)
    if (m0 + ty + i < M && n0 + tx < N)
      *reinterpret_cast<float4*>(&C[(size_t)(m0 + ty + i) * N + n0 + tx]) =
          make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
}

// y[k * n + i] = the k-th function of x[i] > 0.
extern "C" __global__ void functions(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float v = x[i];
  y[i] = expf(-v);
  y[n + i] = tanhf(v);
  y[2 * n + i] = erff(v);
  y[3 * n + i] = logf(v);
  y[4 * n + i] = log1pf(v);
  y[5 * n + i] = powf(v, 1.7f);
  y[6 * n + i] = sqrtf(v);
  y[7 * n + i] = rsqrtf(v);
  y[8 * n + i] = expm1f(-v);
  y[9 * n + i] = 1.f / (1.f + expf(-v));
  y[10 * n + i] = __fdividef(v, 3.f);
  y[11 * n + i] = sinf(v) + cosf(v);
}

// sum += fixed point of x with 2^shift, exactly; largest = the bits of the largest magnitude;
// squares += the f64 sum of squares of a warp.
extern "C" __global__ void fixed_point(const float* x, unsigned long long* sum, unsigned* largest,
                                       double* squares, double scale, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float v = i < n ? x[i] : 0.f;
  long long fixed = __double2ll_rn((double)v * scale);
  atomicAdd(sum, (unsigned long long)fixed);
  atomicMax(largest, __float_as_uint(fabsf(v)));
  double square = (double)v * v;
  for (int o = 16; o; o >>= 1) square += __shfl_xor_sync(~0u, square, o);
  if ((threadIdx.x & 31) == 0) atomicAdd(squares, square);
}

// Back to f32: y = sum / 2^shift; z = the f32 conversion of a float to i64 and back.
extern "C" __global__ void from_fixed(const long long* sum, float* y, const float* x, long long* z, double scale,
                                      int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = __double2float_rn(__ll2double_rn(sum[i]) / scale);
  z[i] = __float2ll_rn(x[i]);
}

// Philox 4x32-10 (Salmon et al., 2011) with the counter (i, 0, 0, 0), and a 64-bit high product.
extern "C" __global__ void philox(uint4* out, unsigned long long* high, unsigned long long key, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned c[4] = {(unsigned)i, 0, 0, 0}, k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
  for (int round = 0; round < 10; ++round) {
    unsigned long long p = (unsigned long long)0xD2511F53u * c[0];
    unsigned h1 = __umulhi(0xCD9E8D57u, c[2]), l1 = 0xCD9E8D57u * c[2];
    unsigned d[4] = {h1 ^ c[1] ^ k0, l1, (unsigned)(p >> 32) ^ c[3] ^ k1, (unsigned)p};
    for (int j = 0; j < 4; ++j) c[j] = d[j];
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[i] = make_uint4(c[0], c[1], c[2], c[3]);
  high[i] = __umul64hi(key + i, 0x9E3779B97F4A7C15ull);
}
