/* Takeuchi's function: recursion in four places at once. */
#include "guest.h"

static int32_t tak(int32_t x, int32_t y, int32_t z) {
    if (y >= x)
        return z;
    return tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y));
}

int main(int argc, char **argv) {
    uint32_t rounds = size_argument(argc, argv);
    uint64_t sum = 0;
    for (uint32_t round = 0; round < rounds; round++)
        sum = mix(sum, (uint64_t)tak(18 + (int32_t)(round & 1), 12, 6));
    return finish(sum);
}
