/* What the load generators share: the pattern, the clock, and how they end. */
#ifndef LOAD_H
#define LOAD_H
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { CHUNK = 262144, PERIOD = 256271 };

/* The byte at position p of every stream is pattern[p % PERIOD]. PERIOD is a prime, so that what is lost, repeated or put in
 * another place is found wherever that happens, unless it is whole multiples of it, and then the size is wrong. Letters,
 * digits and line feeds: nothing that telnet doubles or a server takes for an escape. */
static char pattern[PERIOD + CHUNK];

static inline void make_pattern(void) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < PERIOD; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = i % 80 == 79 ? '\n' : letters[state >> 58];
    }
    for (size_t i = 0; i < CHUNK; i++)
        pattern[PERIOD + i] = pattern[i];
}

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline _Noreturn void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void *shared(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

#endif
