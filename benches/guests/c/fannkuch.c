/* Flips pancakes for all permutations, as in the Computer Language Benchmarks Game. */
#include "guest.h"
#include <string.h>

enum { N_MAX = 16 };

static uint32_t flips(const uint32_t *permutation, uint32_t n) {
    uint32_t stack[N_MAX], count = 0;
    memcpy(stack, permutation, n * sizeof *stack);
    for (uint32_t top = stack[0]; top != 0; top = stack[0]) {
        for (uint32_t low = 0, high = top; low < high; low++, high--) {
            uint32_t kept = stack[low];
            stack[low] = stack[high];
            stack[high] = kept;
        }
        count++;
    }
    return count;
}

int main(int argc, char **argv) {
    uint32_t n = size_argument(argc, argv);
    if (n > N_MAX)
        return 2;
    uint32_t permutation[N_MAX], counts[N_MAX], most = 0, number = 0, r = n;
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        permutation[i] = i;
    for (;;) {
        for (; r != 1; r--)
            counts[r - 1] = r;
        uint32_t count = flips(permutation, n);
        most = count > most ? count : most;
        sum += number++ % 2 == 0 ? (int64_t)count : -(int64_t)count;
        /* The next permutation rotates ever longer beginnings. */
        for (;; r++) {
            if (r == n) {
                printf("%lld %u\n", (long long)sum, most);
                return 0;
            }
            uint32_t first = permutation[0];
            memmove(permutation, permutation + 1, r * sizeof *permutation);
            permutation[r] = first;
            if (--counts[r] > 0)
                break;
        }
    }
}
