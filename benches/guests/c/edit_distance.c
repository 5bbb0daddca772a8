/* How many edits lead from one random string to another (Levenshtein), by dynamic programming. */
#include "guest.h"

static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

int main(int argc, char **argv) {
    uint32_t n = size_argument(argc, argv);
    uint8_t *from = allocate(n), *to = allocate(n);
    uint32_t *row = allocate((n + 1) * sizeof *row);
    uint64_t state = 1;
    for (uint32_t i = 0; i < n; i++) {
        from[i] = "acgt"[random_next(&state) >> 62];
        to[i] = "acgt"[random_next(&state) >> 62];
    }
    for (uint32_t j = 0; j <= n; j++)
        row[j] = j;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t diagonal = row[0];
        row[0] = i + 1;
        for (uint32_t j = 0; j < n; j++) {
            uint32_t above = row[j + 1];
            row[j + 1] = least(least(above, row[j]) + 1, diagonal + (from[i] != to[j]));
            diagonal = above;
        }
    }
    return finish(row[n]);
}
