// Element-wise functions that follow a sum.
#pragma once

// In the order of backend::Activation.
enum ActivationKind : unsigned {
    LINEAR,
    RELU,
    LEAKY_RELU,
    ELU,
    SIGMOID,
    TANH,
    GELU,
    GELU_TANH,
    SILU
};

// What becomes of a sum: c = activation([c +] sum [+ bias]).
struct Finish {
    unsigned add;         // whether C is added to
    unsigned activation;  // an ActivationKind
    float parameter;      // of the activation
    unsigned wide;        // whether rows of C, and the bias, are made of aligned quads
};

// `parameter` is the slope of LEAKY_RELU and the alpha of ELU.
__device__ __forceinline__ float activate(unsigned kind, float parameter, float x) {
    switch (kind) {
        case RELU: return x < 0.f ? 0.f : x;
        case LEAKY_RELU: return x > 0.f ? x : parameter * x;
        case ELU: return x > 0.f ? x : parameter * expm1f(x);
        case SIGMOID: return 1.f / (1.f + expf(-x));
        case TANH: return tanhf(x);
        case GELU: return 0.5f * x * erfcf(-0.70710678f * x);
        case GELU_TANH: return 0.5f * x * (1.f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
        case SILU: return x / (1.f + expf(-x));
        default: return x;
    }
}

// `dy` times the function's slope. `saved` is the function's output, or its input where
// `Activation::saved` says so (GELU, GELU_TANH, SILU).
__device__ __forceinline__ float activate_backward(unsigned kind, float parameter, float saved, float dy) {
    switch (kind) {
        // Not a product, which would spread a NaN or an infinity through a closed gate.
        case RELU: return saved > 0.f ? dy : 0.f;
        case LEAKY_RELU: return saved > 0.f ? dy : parameter * dy;
        case ELU: return saved > 0.f ? dy : (saved + parameter) * dy;
        case SIGMOID: return dy * (saved * (1.f - saved));
        case TANH: return dy * (1.f - saved * saved);
        case GELU: {
            const float probability = 0.5f * erfcf(-0.70710678f * saved);
            return dy * (probability + saved * (0.3989423f * expf(-0.5f * saved * saved)));
        }
        case GELU_TANH: {
            const float t = tanhf(0.7978846f * (saved + 0.044715f * saved * saved * saved));
            const float inner = 0.7978846f * (1.f + 0.134145f * saved * saved);
            return dy * (0.5f * (1.f + t) + 0.5f * saved * (1.f - t * t) * inner);
        }
        case SILU: {
            const float s = 1.f / (1.f + expf(-saved));
            return dy * (s * (1.f + saved * (1.f - s)));
        }
        default: return dy;
    }
}
