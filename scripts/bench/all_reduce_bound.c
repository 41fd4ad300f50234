/* The bound for an all-reduce on one host: processes that see each other's buffers, each summing
   its part of all of them and storing the sums to all, and nothing else. One argument: the number
   of processes. Prints "ranks megabytes median-ms" for each size. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 16, PAGE = 4096, LINE = 64 };

struct meeting {
    _Alignas(LINE) atomic_int waiting;
    _Alignas(LINE) atomic_int round;
};

static void meet(struct meeting *at, int ranks) {
    int round = atomic_load(&at->round);
    if (atomic_fetch_add(&at->waiting, 1) == ranks - 1) {
        atomic_store(&at->waiting, 0);
        atomic_store(&at->round, round + 1);
        return;
    }
    for (int looks = 0; atomic_load(&at->round) == round; looks++) {
        if (looks < 2000) _mm_pause();
        else sched_yield();
    }
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Sums elements first..last of all buffers to all. */
static void sum(float *const *buffers, int ranks, long first, long last) {
    for (long at = first; at < last; at += 16) {
        float total[16];
        memcpy(total, buffers[0] + at, sizeof total);
        for (int rank = 1; rank < ranks; rank++)
            for (int lane = 0; lane < 16; lane++) total[lane] += buffers[rank][at + lane];
        for (int rank = 0; rank < ranks; rank++) memcpy(buffers[rank] + at, total, sizeof total);
    }
}

static void measure(struct meeting *at, float *const *buffers, int ranks, int rank, long len,
                    int repeats, int megabytes) {
    double times[64];
    for (int repeat = 0; repeat < repeats; repeat++) {
        for (long i = 0; i < len; i++) buffers[rank][i] = repeat;
        meet(at, ranks);
        double start = milliseconds();
        meet(at, ranks);
        sum(buffers, ranks, len / ranks * rank, len / ranks * (rank + 1));
        meet(at, ranks);
        times[repeat] = milliseconds() - start;
    }
    qsort(times + 2, repeats - 2, sizeof *times, ascending);
    if (rank == 0) printf("%d %d %.3f\n", ranks, megabytes, times[2 + (repeats - 2) / 2]);
}

int main(int count, char **arguments) {
    int ranks = count > 1 ? atoi(arguments[1]) : 2;
    if (ranks < 1 || ranks > MOST) return 2;
    int sizes[][2] = {{1, 60}, {25, 25}, {100, 12}};
    for (int size = 0; size < 3; size++) {
        long len = sizes[size][0] * 1000000L / 4 / (16 * ranks) * (16 * ranks);
        long stride = (len * 4 + PAGE - 1) / PAGE * PAGE;
        char *memory = mmap(0, PAGE + stride * ranks, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory == MAP_FAILED) return 1;
        float *buffers[MOST];
        for (int rank = 0; rank < ranks; rank++)
            buffers[rank] = (float *)(memory + PAGE + stride * rank);
        fflush(stdout);
        for (int rank = 0; rank < ranks; rank++) {
            if (fork()) continue;
            measure((struct meeting *)memory, buffers, ranks, rank, len, sizes[size][1],
                    sizes[size][0]);
            fflush(stdout);
            _exit(0);
        }
        for (int rank = 0; rank < ranks; rank++) wait(NULL);
        munmap(memory, PAGE + stride * ranks);
    }
    return 0;
}
