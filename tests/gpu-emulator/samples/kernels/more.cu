// Wider coverage: flash attention on mma.sync, slow-path math, atomics, dynamic shared memory.
#include "device.cuh"

// Flash attention forward, head dimension 64, bf16 in, f32 out.
// 4 warps x 16 query rows = 64 queries per block, keys in tiles of 32.
constexpr int D = 64, KEYS = 32, ROW = D + 8;
extern "C" __global__ void __launch_bounds__(128)
flash_fwd(const bf16* __restrict__ Q, const bf16* __restrict__ Kp,
          const bf16* __restrict__ V, float* __restrict__ O, float* __restrict__ LSE, int T,
          int causal, float scale) {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  bf16* sQ = reinterpret_cast<bf16*>(dynamic_shared);
  bf16 *sK = sQ + 64 * ROW, *sV = sK + KEYS * ROW;
  int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  int q0 = blockIdx.x * 64, g = lane >> 2, t4 = lane & 3;
  size_t base = (size_t)blockIdx.y * T * D;
  for (int c = tid; c < 64 * D / 8; c += 128)
    cp_async_16(&sQ[(c / 8) * ROW + (c % 8) * 8], &Q[base + (size_t)(q0 + c / 8) * D + (c % 8) * 8]);
  cp_async_commit();
  float o[8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0.f, 0.f};
  unsigned qf[4][4];
  int end = causal ? q0 + 64 : T;
  for (int k0 = 0; k0 < end; k0 += KEYS) {
    for (int c = tid; c < KEYS * D / 8; c += 128) {
      size_t from = base + (size_t)(k0 + c / 8) * D + (c % 8) * 8;
      cp_async_16(&sK[(c / 8) * ROW + (c % 8) * 8], &Kp[from]);
      cp_async_16(&sV[(c / 8) * ROW + (c % 8) * 8], &V[from]);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    if (k0 == 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        ldmatrix_x4(qf[i], &sQ[(warp * 16 + (lane & 15)) * ROW + i * 16 + (lane >> 4) * 8]);
    }
    float s[4][4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        unsigned b[2];
        ldmatrix_x2(b, &sK[(j * 8 + (lane & 7)) * ROW + i * 16 + ((lane >> 3) & 1) * 8]);
        mma_m16n8k16_bf16(s[j], qf[i], b);
      }
    float mn[2] = {m[0], m[1]}, rs[2] = {0.f, 0.f}, al[2];
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        int qi = q0 + warp * 16 + g + 8 * (e >> 1), ki = k0 + j * 8 + t4 * 2 + (e & 1);
        s[j][e] = (causal && ki > qi) ? -INFINITY : s[j][e] * scale;
        mn[e >> 1] = fmaxf(mn[e >> 1], s[j][e]);
      }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      mn[r] = fmaxf(mn[r], __shfl_xor_sync(~0u, mn[r], 1));
      mn[r] = fmaxf(mn[r], __shfl_xor_sync(~0u, mn[r], 2));
      float safe = mn[r] == -INFINITY ? 0.f : mn[r];
      al[r] = __expf(m[r] - safe);
      m[r] = mn[r];
      mn[r] = safe;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[j][e] = __expf(s[j][e] - mn[e >> 1]);
        rs[e >> 1] += s[j][e];
      }
#pragma unroll
    for (int r = 0; r < 2; ++r) l[r] = l[r] * al[r] + rs[r];
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[j][e] *= al[e >> 1];
#pragma unroll
    for (int kk = 0; kk < 2; ++kk) {  // probabilities, C layout -> A fragments
      unsigned a[4];
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        const float* p = &s[kk * 2 + (x >> 1)][(x & 1) * 2];
        a[x] = to_bf16x2(p[0], p[1]);
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        unsigned b[2];
        ldmatrix_x2_trans(b, &sV[(kk * 16 + (lane & 15)) * ROW + j * 8]);
        mma_m16n8k16_bf16(o[j], a, b);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    l[r] += __shfl_xor_sync(~0u, l[r], 1);
    l[r] += __shfl_xor_sync(~0u, l[r], 2);
    int row = q0 + warp * 16 + g + 8 * r;
    float inv = 1.f / l[r];
#pragma unroll
    for (int j = 0; j < 8; ++j)
      *reinterpret_cast<float2*>(&O[base + (size_t)row * D + j * 8 + t4 * 2]) =
          make_float2(o[j][r * 2] * inv, o[j][r * 2 + 1] * inv);
    if (t4 == 0) LSE[(size_t)blockIdx.y * T + row] = m[r] + logf(l[r]);
  }
}

// sinf/cosf with large arguments (slow path), powf.
extern "C" __global__ void rope(float* x, int T, int width, float base) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, half = width / 2;
  if (i >= T * half) return;
  int t = i / half, d = i % half;
  float s, c;
  sincosf(t * powf(base, -2.f * d / width), &s, &c);
  float x0 = x[t * width + d], x1 = x[t * width + d + half];
  x[t * width + d] = x0 * c - x1 * s;
  x[t * width + d + half] = x0 * s + x1 * c;
}

extern "C" __global__ void gelu(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float v = x[i];
  y[i] = i & 1 ? 0.5f * v * (1.f + erff(v * 0.70710678f))
               : 0.5f * v * (1.f + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
}

// One warp per row; also counts the positive logits of the largest row.
extern "C" __global__ void cross_entropy(const float* __restrict__ logits,
                                         const int* __restrict__ target, float* loss, int* positive,
                                         int C) {
  int row = blockIdx.x, lane = threadIdx.x, count = 0;
  const float* z = logits + (size_t)row * C;
  float m = -INFINITY, s = 0.f;
  for (int i = lane; i < C; i += 32) m = fmaxf(m, z[i]);
  for (int o = 16; o; o >>= 1) m = fmaxf(m, __shfl_down_sync(~0u, m, o));
  m = __shfl_sync(~0u, m, 0);
  for (int i = lane; i < (C + 31) / 32 * 32; i += 32) {
    bool in = i < C;
    float v = in ? z[i] : -INFINITY;
    s += expf(v - m);
    count += __popc(__ballot_sync(~0u, in && v > 0.f));
  }
  for (int o = 16; o; o >>= 1) s += __shfl_down_sync(~0u, s, o);
  if (lane == 0) {
    atomicAdd(loss, m + logf(s) - z[target[row]]);
    atomicMax(positive, count);
  }
}

extern "C" __global__ void half2_axpy(const unsigned* x, unsigned* y, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = fma_f16x2(to_f16x2(a, a), x[i], y[i]);
}

// Per-thread divergence in a compare-and-swap loop.
extern "C" __global__ void histogram_cas(const int* x, int* bins, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int* p = &bins[x[i] & 15];
  int old = *(volatile int*)p, assumed;
  do {
    assumed = old;
    old = atomicCAS(p, assumed, assumed + 1);
  } while (old != assumed);
}

// Calls of functions that are not inlined, with and without recursion, and a switch.
struct Pair {
  float value;
  int steps;
};
__device__ __noinline__ float polynomial(float x, const float* c, int n) {
  float s = 0.f;
  for (int i = 0; i < n; ++i) s = s * x + c[i];
  return s;
}
__device__ __noinline__ Pair climb(Pair p, int n) {
  if (n <= 0) return p;
  p.value += 1.f;
  p.steps++;
  return climb(p, n - 1);
}
extern "C" __global__ void calls(const float* x, const float* c, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float v = polynomial(x[i], c, 4);
  if (i & 1) v += polynomial(v, c, 2);
  Pair p = climb(Pair{v, 0}, i % 5);
  y[i] = p.value + p.steps;
}
