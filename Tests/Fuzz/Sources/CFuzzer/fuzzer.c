/* fuzzer.c: nothing but the header, whose functions are libFuzzer's. */
#include "fuzzer.h"
