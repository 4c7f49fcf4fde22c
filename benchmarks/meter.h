/* Time, this process's own processor time, and a histogram of latencies. */
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

enum { SUB_BUCKETS = 128, BUCKETS = 58 * SUB_BUCKETS };

static uint64_t histogram[BUCKETS], samples, slowest;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double own_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- latency: buckets of 1/128 of a power of two, so a percentile is within 0.4 % ------------------ */

static void record(uint64_t ns)
{
    int shift = ns < SUB_BUCKETS ? 0 : 63 - __builtin_clzll(ns) - 7;
    histogram[(uint64_t)shift * SUB_BUCKETS + (ns >> shift)]++;
    samples++;
    if (ns > slowest) slowest = ns;
}

static double percentile_us(double share)
{
    uint64_t rank = (uint64_t)(share * (double)samples), count = 0;
    for (int i = 0; i < BUCKETS; i++) {
        count += histogram[i];
        if (count > rank) {
            int shift = i < 2 * SUB_BUCKETS ? 0 : i / SUB_BUCKETS - 1;
            return ((double)(i - shift * SUB_BUCKETS) + 0.5) * (double)(1ull << shift) / 1000;
        }
    }
    return (double)slowest / 1000;
}

