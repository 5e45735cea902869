/* topology_system.c: the machine as the system's own calls describe it, for libraries built without hwloc. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#include <longspan/context.h>
#include <unistd.h>

#if defined(__linux__)
/* A number from a file of /sys that begins with one, else -1. */
static long first_number(const char *format, size_t processor)
{
    char path[96];
    long number = -1;
    snprintf(path, sizeof path, format, processor);
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    if (fscanf(file, "%ld", &number) != 1) number = -1;
    fclose(file);
    return number;
}

/* A core counts by the lowest of its hardware threads: once, also where the process may run on other threads only. */
static void count_processors(lspan_topology *t)
{
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        t->processing_units = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
        t->cores = t->processing_units;
        return;
    }
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &allowed)) continue;
        long lowest = first_number("/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", i);
        CPU_SET(lowest >= 0 && lowest < CPU_SETSIZE ? (size_t)lowest : i, &cores);
    }
    t->processing_units = (int32_t)CPU_COUNT(&allowed);
    t->cores = (int32_t)CPU_COUNT(&cores);
}
#endif

#if defined(__APPLE__)
/* Zero where the system does not know the name. */
static int64_t system_number(const char *name)
{
    /* names differ in whether they are 32 or 64 bits, and both are little-endian */
    int64_t number = 0;
    size_t size = sizeof number;
    return sysctlbyname(name, &number, &size, NULL, 0) == 0 ? number : 0;
}
#elif defined(_SC_LEVEL1_DCACHE_SIZE)
static int64_t system_bytes(int name)
{
    long bytes = sysconf(name);
    return bytes > 0 ? (int64_t)bytes : 0;
}
#endif

lspan_status lspan_topology_read(lspan_topology *topology)
{
    if (!topology) return lspan_status_null_pointer;
    lspan_topology t = {0};
#if defined(__APPLE__)
    t.packages = (int32_t)system_number("hw.packages");
    t.cores = (int32_t)system_number("hw.physicalcpu");
    t.processing_units = (int32_t)system_number("hw.logicalcpu");
    t.l1d_bytes = system_number("hw.l1dcachesize");
    t.l2_bytes = system_number("hw.l2cachesize");
    t.l3_bytes = system_number("hw.l3cachesize");
    t.memory_bytes = system_number("hw.memsize");
#else
#if defined(__linux__)
    count_processors(&t);
#else
    t.processing_units = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    t.cores = t.processing_units;
#endif
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    t.l1d_bytes = system_bytes(_SC_LEVEL1_DCACHE_SIZE);
    t.l2_bytes = system_bytes(_SC_LEVEL2_CACHE_SIZE);
    t.l3_bytes = system_bytes(_SC_LEVEL3_CACHE_SIZE);
#endif
    t.memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
#endif
    *topology = t;
    return lspan_status_ok;
}
