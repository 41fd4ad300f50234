// The optimizers' update rules on flat slices, and the block sums that norms are made of.
//
// CPU twin: src/backend/cpu/update; formulas and roundings are its own, and so are the bits, but for
// `powf`. The rules are the structures of src/backend/update.rs. Each array that is read costs 4 bytes
// an element, and each that is written 4 more.
#include "device.cuh"

struct Preparation {
    float scale, limit, decay;

    // Comparisons that fail for NaN let it through.
    __device__ float gradient(float g) const {
        g = scale * g;
        g = g > limit ? limit : g;
        return g < -limit ? -limit : g;
    }
    __device__ float parameter(float p, bool is_spared) const { return is_spared ? p : decay * p; }
};

// Elements of a block: of the block sums, and of tables of blocks. `BLOCK` of src/backend/update.rs.
constexpr size_t BLOCK = 64;

// What weight decay spares: for each block 1 or 0. No table, a null pointer, spares nothing.
struct Spared {
    const unsigned* blocks;

    __device__ __forceinline__ bool operator()(size_t block) const { return blocks && blocks[block]; }
};

// A divisor that is never zero, so that where all is zero (padding) the quotient is zero.
__device__ __forceinline__ float positive(float divisor) {
    constexpr float SMALLEST_NORMAL = 1.17549435e-38f;
    return divisor < SMALLEST_NORMAL ? SMALLEST_NORMAL : divisor;
}

// The block of element `i` of a group; that of the first for what lies outside of the arrays.
__device__ __forceinline__ size_t block_of(const Quads& quads, size_t group, unsigned i) {
    // Wraps below zero before the arrays.
    const size_t element = 4 * group - quads.shift + i;
    return element < quads.len ? element / BLOCK : 0;
}

// Applies `rule(at, g, block)` to each element: `at` holds its values in `all`, arrays that are read and
// written, in their order.
template <typename Rule, typename... Arrays>
__device__ __forceinline__ void update(size_t len, const float* g, Rule rule, Arrays*... all) {
    constexpr int ARRAYS = sizeof...(all);
    float* const arrays[] = {all...};
    const Quads quads(len, g, all...);
    FOR_EACH(group, quads.count()) {
        const Four<float> gradient = quads.load(group, g);
        Four<float> fours[ARRAYS];
#pragma unroll
        for (int array = 0; array < ARRAYS; ++array) fours[array] = quads.load(group, arrays[array]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float at[ARRAYS];
#pragma unroll
            for (int array = 0; array < ARRAYS; ++array) at[array] = fours[array].at[i];
            rule(at, gradient.at[i], block_of(quads, group, i));
#pragma unroll
            for (int array = 0; array < ARRAYS; ++array) fours[array].at[i] = at[array];
        }
#pragma unroll
        for (int array = 0; array < ARRAYS; ++array) quads.store(group, arrays[array], fours[array]);
    }
}

struct SgdRule {
    Preparation preparation;
    float rate, momentum;
    unsigned is_nesterov;
};

// p: = decay * p - rate * g
extern "C" __global__ void sgd(SgdRule rule, size_t len, Spared spared, const float* g, float* p) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float& p = at[0];
            p = rule.preparation.parameter(p, spared(block)) - rule.rate * rule.preparation.gradient(g);
        },
        p);
}

// v: = momentum * v - rate * g; p: = decay * p + v, or Nesterov's decay * p + momentum * v - rate * g.
extern "C" __global__ void sgd_momentum(SgdRule rule, size_t len, Spared spared, const float* g,
                                        float* p, float* v) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &v = at[1];
            const float change = rule.rate * rule.preparation.gradient(g);
            v = rule.momentum * v - change;
            p = rule.preparation.parameter(p, spared(block)) +
                (rule.is_nesterov ? rule.momentum * v - change : v);
        },
        p, v);
}

struct AdamRule {
    Preparation preparation;
    float rate, mix_1, mix_2, epsilon;
};

// p, m, v: =
extern "C" __global__ void adam(AdamRule rule, size_t len, Spared spared, const float* g, float* p,
                                float* m, float* v) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &m = at[1], &v = at[2];
            g = rule.preparation.gradient(g);
            m += (g - m) * rule.mix_1;
            v += (g * g - v) * rule.mix_2;
            const float change = rule.rate * m / positive(sqrtf(v) + rule.epsilon);
            p = rule.preparation.parameter(p, spared(block)) - change;
        },
        p, m, v);
}

struct AdagradRule {
    Preparation preparation;
    float rate, epsilon;
};

// p, a: =
extern "C" __global__ void adagrad(AdagradRule rule, size_t len, Spared spared, const float* g,
                                   float* p, float* a) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &a = at[1];
            g = rule.preparation.gradient(g);
            a += g * g;
            const float change = rule.rate * g / positive(sqrtf(a) + rule.epsilon);
            p = rule.preparation.parameter(p, spared(block)) - change;
        },
        p, a);
}

struct RmsPropRule {
    Preparation preparation;
    float rate, rho, mix, inner, outer, momentum;

    __device__ float change(float g, float& s) const {
        g = preparation.gradient(g);
        s = rho * s + mix * (g * g);
        return rate * g / positive(sqrtf(s + inner) + outer);
    }

    __device__ float centered_change(float g, float& s, float& a) const {
        g = preparation.gradient(g);
        s = rho * s + mix * (g * g);
        a = rho * a + mix * g;
        // A variance; rounding can leave it just below zero.
        float variance = s - a * a;
        variance = variance < 0.f ? 0.f : variance;
        return rate * g / positive(sqrtf(variance + inner) + outer);
    }
};

// p, s: =
extern "C" __global__ void rms_prop(RmsPropRule rule, size_t len, Spared spared, const float* g,
                                    float* p, float* s) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &s = at[1];
            p = rule.preparation.parameter(p, spared(block)) - rule.change(g, s);
        },
        p, s);
}

// p, s, v: =
extern "C" __global__ void rms_prop_momentum(RmsPropRule rule, size_t len, Spared spared,
                                             const float* g, float* p, float* s, float* v) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &s = at[1], &v = at[2];
            v = rule.momentum * v + rule.change(g, s);
            p = rule.preparation.parameter(p, spared(block)) - v;
        },
        p, s, v);
}

// p, s, a: =
extern "C" __global__ void rms_prop_centered(RmsPropRule rule, size_t len, Spared spared,
                                             const float* g, float* p, float* s, float* a) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &s = at[1], &a = at[2];
            p = rule.preparation.parameter(p, spared(block)) - rule.centered_change(g, s, a);
        },
        p, s, a);
}

// p, s, a, v: =
extern "C" __global__ void rms_prop_centered_momentum(RmsPropRule rule, size_t len, Spared spared,
                                                      const float* g, float* p, float* s, float* a,
                                                      float* v) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &s = at[1], &a = at[2], &v = at[3];
            v = rule.momentum * v + rule.centered_change(g, s, a);
            p = rule.preparation.parameter(p, spared(block)) - v;
        },
        p, s, a, v);
}

struct FtrlRule {
    Preparation preparation;
    float slowness, power, l1, ridge, shrinkage;

    __device__ float root(float n) const { return power == 0.5f ? sqrtf(n) : powf(n, power); }
};

// p, n, z: =
extern "C" __global__ void ftrl(FtrlRule rule, size_t len, Spared spared, const float* g, float* p,
                                float* n, float* z) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &n = at[1], &z = at[2];
            g = rule.preparation.gradient(g);
            const float decayed = rule.preparation.parameter(p, spared(block));
            const float before = rule.root(n);
            n += g * g;
            const float after = rule.root(n);
            z += g + rule.shrinkage * decayed - (after - before) * rule.slowness * decayed;
            const float excess = z > 0.f ? rule.l1 - z : -rule.l1 - z;
            const float moved = excess / (after * rule.slowness + rule.ridge);
            p = fabsf(z) <= rule.l1 ? 0.f : moved;
        },
        p, n, z);
}

struct LionRule {
    Preparation preparation;
    float rate, beta_1, mix_1, beta_2, mix_2;
};

// Zero stays zero and NaN stays NaN.
__device__ __forceinline__ float sign(float x) { return x > 0.f ? 1.f : x < 0.f ? -1.f : x; }

// p, m: =
extern "C" __global__ void lion(LionRule rule, size_t len, Spared spared, const float* g, float* p,
                                float* m) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &m = at[1];
            g = rule.preparation.gradient(g);
            const float direction = sign(rule.beta_1 * m + rule.mix_1 * g);
            p = rule.preparation.parameter(p, spared(block)) - rule.rate * direction;
            m = rule.beta_2 * m + rule.mix_2 * g;
        },
        p, m);
}

struct LarsRule {
    Preparation preparation;
    float momentum, weight_decay;
};

// p, v: =; `rates` has one number for each block.
extern "C" __global__ void lars(LarsRule rule, size_t len, Spared spared, const float* rates,
                                const float* g, float* p, float* v) {
    update(
        len, g,
        [=](float* at, float g, size_t block) {
            float &p = at[0], &v = at[1];
            const bool is_spared = spared(block);
            const float decayed = rule.preparation.parameter(p, is_spared);
            const float share = is_spared ? 0.f : rule.weight_decay;
            const float direction = rule.preparation.gradient(g) + share * decayed;
            v = rule.momentum * v - rates[block] * direction;
            p = decayed + v;
        },
        p, v);
}

struct LambRule {
    Preparation preparation;
    float mix_1, mix_2, correction_1, correction_2, epsilon, weight_decay;

    __device__ float direction(float p, float m, float v, bool is_spared) const {
        const float divisor = positive(sqrtf(correction_2 * v) + epsilon);
        return correction_1 * m / divisor + (is_spared ? 0.f : weight_decay) * p;
    }
};

// Threads that share a block of the block sums: thread l adds elements l, l + 8, ... in order, then their
// sums are added in order.
constexpr unsigned BLOCK_THREADS = 8;

__device__ __forceinline__ double sum_block(double mine) {
    double sum = 0.0;
    for (unsigned lane = 0; lane < BLOCK_THREADS; ++lane) {
        sum += __shfl_sync(ALL_LANES, mine, lane, BLOCK_THREADS);
    }
    return sum;
}

// outputs[.][blocks]: = the sums of what `visit(i, sums)` adds to `sums` for the elements of each block.
template <int SUMS, typename Visit>
__device__ __forceinline__ void sum_blocks(size_t len, double* const (&outputs)[SUMS], Visit visit) {
    const size_t blocks = (len + BLOCK - 1) / BLOCK;
    const unsigned lane = threadIdx.x % BLOCK_THREADS;
    const size_t teams = static_cast<size_t>(gridDim.x) * blockDim.x / BLOCK_THREADS;
    const size_t team =
        (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / BLOCK_THREADS;
    // All teams of a warp take as many turns, because they add by shuffles.
    const size_t turns = (blocks + teams - 1) / teams;
    for (size_t turn = 0; turn < turns; ++turn) {
        const size_t block = turn * teams + team;
        double sums[SUMS] = {};
#pragma unroll
        for (unsigned part = 0; part < BLOCK / BLOCK_THREADS; ++part) {
            const size_t i = block * BLOCK + part * BLOCK_THREADS + lane;
            if (i < len) visit(i, sums);
        }
#pragma unroll
        for (int which = 0; which < SUMS; ++which) {
            const double sum = sum_block(sums[which]);
            if (block < blocks && lane == 0) outputs[which][block] = sum;
        }
    }
}

__device__ __forceinline__ double square(float x) { return static_cast<double>(x) * x; }

// m, v: =; p_sums, u_sums[blocks]: = the sums of squares of p and of the direction.
extern "C" __global__ void lamb_averages(LambRule rule, size_t len, Spared spared, const float* g,
                                         const float* p, float* m, float* v, double* p_sums,
                                         double* u_sums) {
    sum_blocks(len, {p_sums, u_sums}, [=](size_t i, double* sums) {
        const float gradient = rule.preparation.gradient(g[i]), parameter = p[i];
        float average = m[i], squares = v[i];
        average += (gradient - average) * rule.mix_1;
        squares += (gradient * gradient - squares) * rule.mix_2;
        m[i] = average;
        v[i] = squares;
        sums[0] += square(parameter);
        sums[1] += square(rule.direction(parameter, average, squares, spared(i / BLOCK)));
    });
}

// p: = p - rate * direction; `rates` has one number for each block.
extern "C" __global__ void lamb_step(LambRule rule, size_t len, Spared spared, const float* rates,
                                     const float* m, const float* v, float* p) {
    const Quads quads(len, p, m, v);
    FOR_EACH(group, quads.count()) {
        const Four<float> averages = quads.load(group, m), squares = quads.load(group, v);
        Four<float> four = quads.load(group, p);
        for (int i = 0; i < 4; ++i) {
            const size_t block = block_of(quads, group, i);
            four.at[i] -= rates[block] *
                          rule.direction(four.at[i], averages.at[i], squares.at[i], spared(block));
        }
        quads.store(group, p, four);
    }
}

struct TrustRule {
    double rate, trust, weight_decay, epsilon;
};

// `SUM_LANES` of src/backend/update.rs: threads of a block.
constexpr unsigned SUM_LANES = 256;

// The sum of sums[first, end), for all threads.
__device__ __forceinline__ double sum_of_blocks(const double* sums, unsigned first, unsigned end) {
    __shared__ double lanes[SUM_LANES];
    double mine = 0.0;
    in_batches<8>(
        first + threadIdx.x, end, SUM_LANES, [=](size_t block) { return sums[block]; },
        [&](size_t, double sum) { mine += sum; });
    lanes[threadIdx.x] = mine;
    for (unsigned half = SUM_LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) lanes[threadIdx.x] += lanes[threadIdx.x + half];
    }
    __syncthreads();
    const double sum = lanes[0];
    __syncthreads();
    return sum;
}

// A block for each tensor, of which `tensors` has three numbers: its first block of elements, the one behind
// its last, and whether weight decay spares it. rates[its blocks]: =.
extern "C" __global__ void __launch_bounds__(SUM_LANES)
    trust_rates(TrustRule rule, const unsigned* tensors, const double* p_sums, const double* u_sums,
                float* rates) {
    const unsigned* tensor = tensors + 3 * blockIdx.x;
    const unsigned first = tensor[0], end = tensor[1], is_spared = tensor[2];
    double rate = rule.rate;
    if (!is_spared) {
        const double weights = sqrt(sum_of_blocks(p_sums, first, end));
        const double direction = sqrt(sum_of_blocks(u_sums, first, end));
        if (weights != 0.0 && direction != 0.0)
            rate *= rule.trust * weights / (direction + rule.weight_decay * weights + rule.epsilon);
    }
    for (size_t block = first + threadIdx.x; block < end; block += SUM_LANES)
        rates[block] = static_cast<float>(rate);
}

// sums[blocks]: = the sums of squares of g as prepared.
extern "C" __global__ void block_sums_of_squares(Preparation preparation, size_t len, const float* g,
                                                 double* sums) {
    sum_blocks(len, {sums}, [=](size_t i, double* sums) {
        sums[0] += square(preparation.gradient(g[i]));
    });
}
