/* The sieve of Eratosthenes: the tightest of loops, over memory. */
#include "guest.h"
#include <string.h>

enum { LIMIT = 1 << 18 };

static uint32_t primes_below(uint8_t *composite, uint32_t limit) {
    uint32_t count = 0;
    memset(composite, 0, limit);
    for (uint32_t i = 2; i < limit; i++) {
        if (composite[i])
            continue;
        count++;
        for (uint32_t j = i + i; j < limit; j += i)
            composite[j] = 1;
    }
    return count;
}

int main(int argc, char **argv) {
    uint32_t rounds = size_argument(argc, argv);
    uint8_t *composite = allocate(LIMIT);
    uint64_t sum = 0;
    for (uint32_t round = 0; round < rounds; round++)
        sum = mix(sum, primes_below(composite, LIMIT - (round & 15)));
    return finish(sum);
}
