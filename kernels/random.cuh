// Random numbers as a function of what they are for: src/random.rs, bit for bit.
#pragma once

struct Words {
    unsigned at[4];
};

// Philox 4x32-10.
__device__ __forceinline__ Words philox(Words counter, unsigned key_0, unsigned key_1) {
    auto [c0, c1, c2, c3] = counter.at;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned low_0 = 0xd2511f53u * c0, high_0 = __umulhi(0xd2511f53u, c0);
        const unsigned low_1 = 0xcd9e8d57u * c2, high_1 = __umulhi(0xcd9e8d57u, c2);
        c0 = high_1 ^ c1 ^ key_0;
        c2 = high_0 ^ c3 ^ key_1;
        c1 = low_1;
        c3 = low_0;
        key_0 += 0x9e3779b9u;
        key_1 += 0xbb67ae85u;
    }
    return {{c0, c1, c2, c3}};
}
