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
