/* The spectral norm of an infinite matrix, cut off, as in the Computer Language Benchmarks Game. */
#include "guest.h"
#include <math.h>

static double entry(uint32_t i, uint32_t j) {
    return 1.0 / ((double)(i + j) * (i + j + 1) / 2 + i + 1);
}

static void multiply(uint32_t n, const double *from, double *to, int transposed) {
    for (uint32_t i = 0; i < n; i++) {
        double sum = 0;
        for (uint32_t j = 0; j < n; j++)
            sum += (transposed ? entry(j, i) : entry(i, j)) * from[j];
        to[i] = sum;
    }
}

int main(int argc, char **argv) {
    uint32_t n = size_argument(argc, argv);
    double *u = allocate(n * sizeof *u), *v = allocate(n * sizeof *v), *between = allocate(n * sizeof *between);
    for (uint32_t i = 0; i < n; i++)
        u[i] = 1;
    for (int turn = 0; turn < 10; turn++) {
        multiply(n, u, between, 0);
        multiply(n, between, v, 1);
        multiply(n, v, between, 0);
        multiply(n, between, u, 1);
    }
    double uv = 0, vv = 0;
    for (uint32_t i = 0; i < n; i++) {
        uv += u[i] * v[i];
        vv += v[i] * v[i];
    }
    printf("%.9f\n", sqrt(uv / vv));
    return 0;
}
