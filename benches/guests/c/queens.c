/* Counts all placements of queens that do not attack each other, by backtracking. */
#include "guest.h"

static uint32_t place(uint32_t all, uint32_t columns, uint32_t rising, uint32_t falling) {
    if (columns == all)
        return 1;
    uint32_t count = 0;
    for (uint32_t open = all & ~(columns | rising | falling); open != 0; open &= open - 1) {
        uint32_t queen = open & -open;
        count += place(all, columns | queen, (rising | queen) << 1, (falling | queen) >> 1);
    }
    return count;
}

int main(int argc, char **argv) {
    uint32_t n = size_argument(argc, argv);
    return finish(place((1u << n) - 1, 0, 0, 0));
}
