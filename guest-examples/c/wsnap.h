/* What a program can ask wsnap about itself, and the snapshots that it can take.
 *
 * Beside WASI, wsnap provides a module named `wsnap`. A program that imports it runs under wsnap only. */

#ifndef WSNAP_H
#define WSNAP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The bytes of a generation. */
#define WSNAP_GENERATION_BYTES 16

/* What wsnap_snapshot returns: */
/* The snapshot is kept, and this is the run that goes on. */
#define WSNAP_TAKEN 0
/* This run was resumed from the snapshot. */
#define WSNAP_RESUMED 1
/* Nobody keeps snapshots of this program: it runs with --bare, or in a host application that does not offer it. */
#define WSNAP_UNAVAILABLE (-1)
/* This snapshot could not be taken or not be kept. The host says why on its standard error. */
#define WSNAP_FAILED (-2)

/* Takes a snapshot of the program. It returns like fork: WSNAP_TAKEN in the run that goes on, when the image is durable,
 * and WSNAP_RESUMED in each run that is resumed from it. Negative values mean that there is no snapshot. */
__attribute__((import_module("wsnap"), import_name("snapshot"), warn_unused_result))
int32_t wsnap_snapshot(void);

/* Stores 16 bytes that no other run has: they are new since each start and each resume, and stay the same in between.
 * Returns 0, or an errno of WASI.
 *
 * A program that keeps random numbers of its own (a generator's state, a seed, a nonce) has the same ones in all runs
 * that are resumed from one image. Mix the generation in where that matters. With --deterministic it follows from the
 * seed alone, and is the same in all runs. */
__attribute__((import_module("wsnap"), import_name("generation"), warn_unused_result))
int32_t wsnap_generation(uint8_t generation[WSNAP_GENERATION_BYTES]);

/* How often the program was resumed since it was started: 0 for a fresh one. Going on after a snapshot does not count.
 * With --deterministic it is always 0. */
__attribute__((import_module("wsnap"), import_name("resume_count"), warn_unused_result))
int64_t wsnap_resume_count(void);

#ifdef __cplusplus
}
#endif

#endif
