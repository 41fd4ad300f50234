// How the operands of a product come from global to shared memory.
#pragma once

#include "device.cuh"

// A source says where an operand's elements are:
//     Edge edge(size_t index)      what is known of a row of A or column of B, for the whole product
//     Term term(size_t index)      what is known of a term
//     const float* at(Edge, Term)  the element, or null for a zero
//     bool wide                    whether any four that start at a multiple of four along the memory
//                                  order are 16 aligned bytes, or all zeros
//
// What is staged, `To`, is a `Staged` of a tile: STEP terms and EDGE places on the tile's edge. `start`
// begins to fetch the terms from `term` on; `finish` sees that they are there, after a barrier for all.

__device__ __forceinline__ void fetch(float (&run)[4], const float* from) {
    float4 quad = from ? *reinterpret_cast<const float4*>(from) : make_float4(0, 0, 0, 0);
    run[0] = quad.x, run[1] = quad.y, run[2] = quad.z, run[3] = quad.w;
}

// Stages an operand whose neighbours in memory lie along the tile's edge.
template <int THREADS, class To, class Source>
struct Straight {
    static constexpr int RUNS = To::EDGE / 4, ROUNDS = To::STEP * RUNS / THREADS;
    Source source;
    typename Source::Edge edge;
    float held[ROUNDS][4];  // of what is no copy
    int place, first_term;

    __device__ Straight(const Source& source, size_t first_edge) : source(source) {
        place = source.wide ? threadIdx.x % RUNS * 4 : threadIdx.x % To::EDGE;
        first_term = source.wide ? threadIdx.x / RUNS : threadIdx.x / To::EDGE;
        edge = source.edge(first_edge + place);
    }
    // Of the thread's runs, and of its single elements where the source is not wide.
    __device__ int term_of_run(int i) const { return first_term + i * (THREADS / RUNS); }
    __device__ int term_of_one(int i) const { return first_term + i * (THREADS / To::EDGE); }

    __device__ void start(To& to, size_t term) {
        if (source.wide) {
#pragma unroll
            for (int i = 0; i < ROUNDS; ++i) {
                int t = term_of_run(i);
                const float* from = source.at(edge, source.term(term + t));
                if constexpr (To::IS_COPY) {
                    copy_async<16>(&to.at[t][place], from);
                } else {
                    fetch(held[i], from);
                }
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4 * ROUNDS; ++i) {
                int t = term_of_one(i);
                const float* from = source.at(edge, source.term(term + t));
                if constexpr (To::IS_COPY) {
                    copy_async<4>(&to.at[t][place], from);
                } else {
                    held[i / 4][i % 4] = from ? *from : 0.f;
                }
            }
        }
    }
    __device__ void finish(To& to) {
        if constexpr (To::IS_COPY) {
            copies_arrive();
        } else if (source.wide) {
#pragma unroll
            for (int i = 0; i < ROUNDS; ++i) to.put_run(place, term_of_run(i), held[i]);
        } else {
#pragma unroll
            for (int i = 0; i < 4 * ROUNDS; ++i) to.put(place, term_of_one(i), held[i / 4][i % 4]);
        }
    }
};

// Stages an operand whose neighbours in memory lie along the terms.
template <int THREADS, class To, class Source>
struct Crossed {
    static constexpr int RUNS = To::STEP / 4, ROUNDS = To::EDGE * RUNS / THREADS;
    Source source;
    typename Source::Edge edges[ROUNDS];
    float held[ROUNDS][4];
    int first_place, first_term;

    __device__ Crossed(const Source& source, size_t first_edge) : source(source) {
        first_place = threadIdx.x / RUNS;
        first_term = threadIdx.x % RUNS * 4;
#pragma unroll
        for (int i = 0; i < ROUNDS; ++i) edges[i] = source.edge(first_edge + place(i));
    }
    __device__ int place(int i) const { return first_place + i * (THREADS / RUNS); }

    __device__ void start(To&, size_t term) {
        if (source.wide) {
            auto t = source.term(term + first_term);
#pragma unroll
            for (int i = 0; i < ROUNDS; ++i) fetch(held[i], source.at(edges[i], t));
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                auto t = source.term(term + first_term + j);
#pragma unroll
                for (int i = 0; i < ROUNDS; ++i) {
                    const float* from = source.at(edges[i], t);
                    held[i][j] = from ? *from : 0.f;
                }
            }
        }
    }
    __device__ void finish(To& to) {
#pragma unroll
        for (int i = 0; i < ROUNDS; ++i) to.put_run(place(i), first_term, held[i]);
    }
};

template <bool IS_STRAIGHT, int THREADS, class To, class Source>
struct StagerOf {
    using Type = Straight<THREADS, To, Source>;
};
template <int THREADS, class To, class Source>
struct StagerOf<false, THREADS, To, Source> {
    using Type = Crossed<THREADS, To, Source>;
};
template <bool IS_STRAIGHT, int THREADS, class To, class Source>
using Stager = typename StagerOf<IS_STRAIGHT, THREADS, To, Source>::Type;
