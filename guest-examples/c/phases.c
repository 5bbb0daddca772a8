/* A computation in phases that takes a snapshot of itself after each, so that nothing finished is computed again, and
 * names its partial result after the run that has computed it.
 *
 *     phases [PHASES]
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "wsnap.h"

#define STEPS 2000000u

/* Something that takes a while and depends on all that was before. */
static uint64_t compute(uint64_t state)
{
    for (uint32_t step = 0; step < STEPS; step++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return state;
}

static void print_generation(void)
{
    uint8_t generation[WSNAP_GENERATION_BYTES];
    int32_t error = wsnap_generation(generation);
    if (error != 0) {
        fprintf(stderr, "phases: no generation: errno %" PRId32 "\n", error);
        exit(1);
    }
    printf("generation ");
    for (size_t i = 0; i < sizeof generation; i++)
        printf("%02x", generation[i]);
    printf(", resumed %" PRId64 " times\n", wsnap_resume_count());
}

int main(int argc, char **argv)
{
    int phases = argc > 1 ? atoi(argv[1]) : 3;
    uint64_t state = 88172645463325252u;
    print_generation();
    for (int phase = 1; phase <= phases; phase++) {
        state = compute(state);
        printf("phase %d: %016" PRIx64 "\n", phase, state);
        /* What is still in a buffer would be written by each resumed run. */
        fflush(stdout);
        switch (wsnap_snapshot()) {
        case WSNAP_TAKEN:
            printf("snapshot taken\n");
            break;
        case WSNAP_RESUMED:
            printf("resumed after phase %d\n", phase);
            print_generation();
            break;
        case WSNAP_UNAVAILABLE:
            printf("no snapshots here\n");
            break;
        default:
            printf("snapshot failed\n");
            break;
        }
    }
    return 0;
}
