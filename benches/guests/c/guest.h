/* What the programs here share: how large, random numbers that are the same everywhere, and a checksum to print. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The program's only argument says how much there is to do, so that no compiler can know. */
static inline uint32_t size_argument(int argc, char **argv) {
    unsigned long size = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    if (size == 0 || size > UINT32_MAX) {
        fprintf(stderr, "usage: %s SIZE\n", argc > 0 ? argv[0] : "program");
        exit(2);
    }
    return (uint32_t)size;
}

/* Memory, or the end. */
static inline void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* xorshift64* */
static inline uint64_t random_next(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* Mixes one more value into a checksum (FNV-1a, a word at a time). */
static inline uint64_t mix(uint64_t sum, uint64_t value) {
    return (sum ^ value) * 0x100000001b3ull;
}

static inline int finish(uint64_t sum) {
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}

#endif
