/* Fibonacci numbers by double recursion: calls and little else. */
#include "guest.h"

static uint32_t fib(uint32_t n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(int argc, char **argv) {
    return finish(fib(size_argument(argc, argv)));
}
