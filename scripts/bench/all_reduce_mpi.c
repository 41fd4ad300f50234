/* MPI_Allreduce of floats in place, under mpirun. Prints "ranks megabytes median-ms" for each
   size. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(int count, char **arguments) {
    MPI_Init(&count, &arguments);
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    int sizes[][2] = {{1, 60}, {25, 25}, {100, 12}};
    for (int size = 0; size < 3; size++) {
        int len = sizes[size][0] * 1000000 / 4, repeats = sizes[size][1];
        float *values = malloc(len * sizeof *values);
        double times[64];
        for (int repeat = 0; repeat < repeats; repeat++) {
            for (int i = 0; i < len; i++) values[i] = repeat;
            MPI_Barrier(MPI_COMM_WORLD);
            double start = MPI_Wtime();
            MPI_Allreduce(MPI_IN_PLACE, values, len, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            times[repeat] = (MPI_Wtime() - start) * 1e3;
        }
        qsort(times + 2, repeats - 2, sizeof *times, ascending);
        if (rank == 0) printf("%d %d %.3f\n", ranks, sizes[size][0], times[2 + (repeats - 2) / 2]);
        free(values);
    }
    MPI_Finalize();
    return 0;
}
