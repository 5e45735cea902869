/* serve.c: the command loop of the engines in C and C++, and their memory. */
#define _GNU_SOURCE
#include "serve.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROWS 64
#define HUGE_PAGE ((size_t)2 << 20)

typedef struct slot {
    void *row; /* NULL where the slot is free */
    serve_case c;
    long next; /* copy of the next call */
} slot;

const void *serve_map(const serve_case *c, const char *name, size_t bytes)
{
    char path[sizeof c->folder + 64];
    snprintf(path, sizeof path, "%s/%s", c->folder, name);
    int file = open(path, O_RDONLY);
    if (file < 0) return NULL;
    struct stat status;
    void *data = MAP_FAILED;
    if (fstat(file, &status) == 0 && (size_t)status.st_size == bytes) {
        data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    }
    close(file);
    return data == MAP_FAILED ? NULL : data;
}

void serve_unmap(const void *values, size_t bytes)
{
    if (values) munmap((void *)(uintptr_t)values, bytes);
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

void *serve_allocate(size_t bytes)
{
    size_t size = whole_pages(bytes);
    char *start = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    size_t before = (HUGE_PAGE - (size_t)((uintptr_t)start % HUGE_PAGE)) % HUGE_PAGE;
    if (before) munmap(start, before);
    start += before;
    if (before < HUGE_PAGE) munmap(start + size, HUGE_PAGE - before);
    /* only a hint: without huge pages the memory is slower, not wrong */
    (void)madvise(start, size, MADV_HUGEPAGE);
    memset(start, 0, size);
    return start;
}

void serve_free(void *memory, size_t bytes)
{
    if (memory) munmap(memory, whole_pages(bytes));
}

static long long nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void reply(const char *failure)
{
    if (failure) printf("error %s\n", failure);
    else printf("ok\n");
}

static void run(const serve_engine *engine, slot *s, long calls)
{
    long long *times = calloc((size_t)calls + 1, sizeof *times);
    const char *failure = times ? NULL : "out of memory";
    for (long i = 0; i < calls && !failure; i++) {
        long long start = nanoseconds();
        failure = engine->call(s->row, s->next);
        times[i] = nanoseconds() - start;
        s->next = (s->next + 1) % s->c.copies;
    }
    if (failure) {
        reply(failure);
    } else {
        printf("ns");
        for (long i = 0; i < calls; i++) printf(" %lld", times[i]);
        printf("\n");
    }
    free(times);
}

static const char *write_output(const serve_engine *engine, slot *s, const char *path)
{
    size_t count = (size_t)(s->c.sequences * s->c.tokens * s->c.query_heads * s->c.head_dim);
    float *values = malloc(count * sizeof *values);
    if (!values) return "out of memory";
    const char *failure = engine->output(s->row, values);
    FILE *file = failure ? NULL : fopen(path, "wb");
    if (!failure && !file) failure = "the output file cannot be opened";
    if (file) {
        if (fwrite(values, sizeof *values, count, file) != count) failure = "the output file cannot be written";
        if (fclose(file) != 0) failure = "the output file cannot be written";
    }
    free(values);
    return failure;
}

static const char *prepare(const serve_engine *engine, slot *s, const char *line)
{
    serve_case *c = &s->c;
    int fields = sscanf(
        line, "prepare %*d %31s %7s %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld %511s", c->variant, c->dtype,
        &c->query_heads, &c->kv_heads, &c->head_dim, &c->tokens, &c->keys, &c->window, &c->copies, &c->entries,
        &c->block, &c->sequences, &c->state, c->folder);
    if (fields != 14 || c->copies < 1) return "prepare: not understood";
    s->next = 0;
    return engine->prepare(c, &s->row);
}

int serve(const serve_engine *engine)
{
    static slot slots[ROWS];
    char line[1024];
    while (fgets(line, sizeof line, stdin)) {
        char verb[16] = "", path[512] = "";
        int id = -1;
        long calls = 0;
        sscanf(line, "%15s %d", verb, &id);
        slot *s = id >= 0 && id < ROWS ? &slots[id] : NULL;
        if (strcmp(verb, "about") == 0) {
            printf("ok %s\n", engine->about());
        } else if (strcmp(verb, "prepare") == 0 && s && !s->row) {
            reply(prepare(engine, s, line));
        } else if (strcmp(verb, "run") == 0 && s && s->row && sscanf(line, "run %*d %ld", &calls) == 1 && calls > 0) {
            run(engine, s, calls);
        } else if (strcmp(verb, "output") == 0 && s && s->row && sscanf(line, "output %*d %511s", path) == 1) {
            reply(write_output(engine, s, path));
        } else if (strcmp(verb, "drop") == 0 && s) {
            if (s->row) engine->drop(s->row);
            s->row = NULL;
            reply(NULL);
        } else {
            reply("command not understood");
        }
        fflush(stdout);
    }
    return 0;
}
