/* The Ackermann function: deep recursion. */
#include "guest.h"

static uint32_t ackermann(uint32_t m, uint32_t n) {
    if (m == 0)
        return n + 1;
    if (n == 0)
        return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

int main(int argc, char **argv) {
    uint32_t rounds = size_argument(argc, argv);
    uint64_t sum = 0;
    for (uint32_t round = 0; round < rounds; round++)
        sum = mix(sum, ackermann(3, 7 + (sum & 1)));
    return finish(sum);
}
