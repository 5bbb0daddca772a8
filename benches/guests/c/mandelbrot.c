/* Counts the turns until points of the complex plane leave the Mandelbrot set. */
#include "guest.h"

enum { TURNS_MAX = 200 };

static uint32_t turns(double x, double y) {
    double a = 0, b = 0;
    for (uint32_t turn = 0; turn < TURNS_MAX; turn++) {
        double square_a = a * a, square_b = b * b;
        if (square_a + square_b > 4)
            return turn;
        b = 2 * a * b + y;
        a = square_a - square_b + x;
    }
    return TURNS_MAX;
}

int main(int argc, char **argv) {
    uint32_t width = size_argument(argc, argv);
    uint64_t sum = 0;
    for (uint32_t row = 0; row < width; row++)
        for (uint32_t column = 0; column < width; column++)
            sum = mix(sum, turns(3.0 * column / width - 2.1, 3.0 * row / width - 1.5));
    return finish(sum);
}
