/* fuzzer.h: what libFuzzer offers to a program with a main of its own (FuzzerInterface.h of LLVM). */
#ifndef LONGSPAN_FUZZER_H
#define LONGSPAN_FUZZER_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#endif
