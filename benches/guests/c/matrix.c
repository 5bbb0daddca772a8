/* The product of two square matrices of doubles, by the textbook. */
#include "guest.h"

static void multiply(uint32_t n, const double *a, const double *b, double *product) {
    for (uint32_t row = 0; row < n; row++) {
        for (uint32_t column = 0; column < n; column++) {
            double sum = 0;
            for (uint32_t k = 0; k < n; k++)
                sum += a[row * n + k] * b[k * n + column];
            product[row * n + column] = sum;
        }
    }
}

int main(int argc, char **argv) {
    uint32_t n = size_argument(argc, argv);
    size_t bytes = (size_t)n * n * sizeof(double);
    double *a = allocate(bytes), *b = allocate(bytes), *product = allocate(bytes);
    uint64_t state = 1, sum = 0;
    /* Small whole numbers, so that the result is exact. */
    for (uint32_t i = 0; i < n * n; i++) {
        a[i] = (double)(random_next(&state) >> 56);
        b[i] = (double)(random_next(&state) >> 56);
    }
    multiply(n, a, b, product);
    for (uint32_t i = 0; i < n * n; i++)
        sum = mix(sum, (uint64_t)product[i]);
    return finish(sum);
}
