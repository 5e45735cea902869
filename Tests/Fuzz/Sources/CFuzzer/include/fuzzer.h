/* fuzzer.h: what libFuzzer offers to a program with a main of its own (FuzzerInterface.h of LLVM), and files in memory. */
#ifndef LONGSPAN_FUZZER_H
#define LONGSPAN_FUZZER_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* The descriptor of a new file in memory, or -1. glibc declares memfd_create for _GNU_SOURCE only. */
int fuzz_memory_file(void);

#endif
