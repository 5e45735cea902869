/* tuning.h: every number that was chosen by measurement or by counting registers, one block a variant.
 *
 *   LSPAN_TILE_ROWS x LSPAN_TILE_VECTORS   accumulators of the product micro-kernel (attention prefill)
 *   LSPAN_SSD_ROWS                         rows of the same in the chunked SSD scan
 *   LSPAN_DECODE_ROWS                      query rows that share one load of a key or value in decode
 *   LSPAN_DECODE_ROWS x LSPAN_DECODE_COLUMNS   vectors of queries, or of the output, that decode keeps in registers
 *   LSPAN_PRODUCT_ROWS                     input rows that share one load of packed weights: as many sums, and integer sums
 *   LSPAN_PRODUCT_VECTORS                  panels of packed weights that share one load of an input
 *   LSPAN_SCAN_TILE                        states that the selective scan keeps in registers: a multiple of 4, at most 16
 */
#ifndef LSPAN_TUNING_H
#define LSPAN_TUNING_H

#if defined(LSPAN_VARIANT_avx512) || defined(LSPAN_VARIANT_avx512vnni) || defined(LSPAN_VARIANT_avx512bf16)
/* 32 registers: 24 accumulators, 2 operands, 1 broadcast; 14 loads for 24 FMAs keeps the FMA pipes the limit */
#define LSPAN_TILE_ROWS 12
#define LSPAN_TILE_VECTORS 2
/* 16 accumulators are enough for the latency of two pipes, and 8 divides a chunk and the usual state sizes */
#define LSPAN_SSD_ROWS 8
/* 16 accumulators of values, or as many vectors of queries beside 4 sums; the rest for operands */
#define LSPAN_DECODE_ROWS 4
#define LSPAN_DECODE_COLUMNS 4
/* 16 sums of a block, which keep the loads of inputs below the products; some sums of all blocks are in L1 */
#define LSPAN_PRODUCT_ROWS 8
#define LSPAN_PRODUCT_VECTORS 2
/* 16 states, 4 of the exponential, 4 of the token; the rest for operands */
#define LSPAN_SCAN_TILE 16
#elif defined(LSPAN_VARIANT_avx2)
/* 16 registers: 12 accumulators, 2 operands, 1 broadcast */
#define LSPAN_TILE_ROWS 6
#define LSPAN_TILE_VECTORS 2
/* a divisor of a cache line's tokens, with 8 accumulators for the latency of two pipes */
#define LSPAN_SSD_ROWS 4
/* 8 accumulators of values, or as many vectors of queries beside 2 sums; the rest for operands */
#define LSPAN_DECODE_ROWS 2
#define LSPAN_DECODE_COLUMNS 4
/* 8 sums of a block; those of all blocks are in L1 */
#define LSPAN_PRODUCT_ROWS 4
#define LSPAN_PRODUCT_VECTORS 2
/* 8 states, 4 of the token; the exponential's coefficients come from memory */
#define LSPAN_SCAN_TILE 8
#elif defined(LSPAN_VARIANT_neon) || defined(LSPAN_VARIANT_neondot) || defined(LSPAN_VARIANT_neonbf16)
/* By counting registers and loads: there was no such CPU to measure on. 32 registers: 24 accumulators, 4 operands, 1
 * broadcast; 10 loads for 24 FMAs, where 12 x 2 would take 14, and cores load at most three vectors for four FMAs */
#define LSPAN_TILE_ROWS 6
#define LSPAN_TILE_VECTORS 4
/* 16 accumulators are enough for a latency of 4 on four pipes, and a divisor of a cache line's tokens */
#define LSPAN_SSD_ROWS 4
/* 16 accumulators of values, or as many vectors of queries beside 4 sums; the rest for operands */
#define LSPAN_DECODE_ROWS 4
#define LSPAN_DECODE_COLUMNS 4
/* 16 sums of a block: 10 loads for 16 dot products; some sums of all blocks are in L1 */
#define LSPAN_PRODUCT_ROWS 8
#define LSPAN_PRODUCT_VECTORS 2
/* 16 states, 4 of the token; the rest for operands and what coefficients of the exponential fit */
#define LSPAN_SCAN_TILE 16
#else
/* the scalar body is for checking and for old CPUs: small enough that a compiler keeps it in 16 registers */
#define LSPAN_TILE_ROWS 3
#define LSPAN_TILE_VECTORS 4
#define LSPAN_SSD_ROWS 2
#define LSPAN_DECODE_ROWS 2
#define LSPAN_DECODE_COLUMNS 4
#define LSPAN_PRODUCT_ROWS 4
#define LSPAN_PRODUCT_VECTORS 1
#define LSPAN_SCAN_TILE 8
#endif

/* Query rows (T*G) of a prefill task, for which a tile of keys and values is packed once, and of a block of them:
 * multiples of every LSPAN_TILE_ROWS. With D = 128 the queries and outputs of 384 rows, the scores of a block and a tile
 * of 256 keys and values are 384*2*128*4 + 24*256*4 + 2*256*128*4 bytes = 664 KiB of a 1-MiB L2, and a block's queries
 * (12 KiB) or scores (24 KiB) and one panel of keys (16 KiB) or values (32 KiB) share the L1. */
#define LSPAN_PREFILL_ROWS 384
#define LSPAN_PREFILL_BLOCK_ROWS 24
/* Short prompts get smaller tasks, down to so many rows, until each worker has so many tasks that the end is even. */
#define LSPAN_PREFILL_LEAST_ROWS 96
#define LSPAN_PREFILL_TASKS_PER_WORKER 4
#define LSPAN_PREFILL_KEYS 256

/* Keys of a decode tile, whose scores a softmax takes at once. */
#define LSPAN_DECODE_KEYS 128
/* Bytes of a block of keys or of values in decode: as far ahead as prefetches into L1 keep the memory busy, while the
 * block in use and the next one still fit an L1 of 32 KiB. */
#define LSPAN_DECODE_BLOCK_BYTES 8192
/* Tasks a worker gets in a split decode, so that the atomic counter evens out unequal workers. */
#define LSPAN_DECODE_TASKS_PER_WORKER 4
/* The shortest key range worth a partial state and its merge. */
#define LSPAN_DECODE_MIN_SPLIT 512

/* Bytes that scoring a window, and moving rows, ask for ahead of what they work on, into L1: half to a quarter of one. */
#define LSPAN_LAG_AHEAD_BYTES 8192
#define LSPAN_MOVE_AHEAD_BYTES 4096
/* Tasks a worker gets in scoring, and the shortest run of windows worth a task: a run of n reads n + 1. */
#define LSPAN_LAG_TASKS_PER_WORKER 4
#define LSPAN_LAG_LEAST_WINDOWS 4

/* Scores from which a selection takes 11 bits a pass instead of 8: clearing and searching the larger histogram costs
 * about as much as two more passes over so many. */
#define LSPAN_SELECT_WIDE 2048
/* Scores below which a selection runs on the caller alone: at 2 to 3 ns each, several forks and joins. */
#define LSPAN_SELECT_SERIAL 4096

/* Tokens of a task of the convolution, which reads the W - 1 before them again, and the least channels of a task where the
 * tokens are too few for every worker: whole cache lines of any dtype. */
#define LSPAN_CONV_TOKENS 64
/* Tokens that share one load of the taps: rows, taps and sums in 16 registers. */
#define LSPAN_CONV_ROWS 4
#define LSPAN_CONV_LEAST_CHANNELS 256

/* Channels of a task of the selective scan, whole cache lines of any dtype, and how few where that makes too few tasks for
 * the workers. Its tokens at a time: 16 KiB of steps, inputs, sums, B and C at N = 16, beside the states in an L1. */
#define LSPAN_SCAN_CHANNELS 64
#define LSPAN_SCAN_LEAST_CHANNELS 16
#define LSPAN_SCAN_TASKS_PER_WORKER 4
#define LSPAN_SCAN_TOKENS 64

/* Channels whose sums an update makes at once, 16 as v_reduce_add4x4 does, and states that take as long as an element of an
 * elementwise call. */
#define LSPAN_UPDATE_CHANNELS 16
#define LSPAN_UPDATE_STATES_PER_ELEMENT 2

/* Tokens of a chunk of the SSD scan. With P = 64 and N = 128 a panel of state and of input, the weights and rows of C and B
 * that a tile of rows reads are about 40 KiB of a 48-KiB L1. Multiple of 16. */
#define LSPAN_SSD_CHUNK 64
/* Heads of a task, which share the chunk's B, C and C B^T, as long as their states take no more bytes than that: they
 * stay in L2 for the whole sequence. */
#define LSPAN_SSD_HEADS 16
#define LSPAN_SSD_STATE_BYTES 524288
/* Heads whose x is read at once, as rows of several cache lines, and tokens for which x, z and y are asked for ahead. */
#define LSPAN_SSD_STAGED 2
#define LSPAN_SSD_AHEAD 16
/* Fewer heads a task, until each worker has so many. */
#define LSPAN_SSD_TASKS_PER_WORKER 2
/* Tokens of the longest sequence from which a scan is chunked unless the call says otherwise: with H = 64, P = 64 and N = 128
 * 8 tokens take 0.23 ms one by one and 0.18 ms in a chunk, most of which turns the states around. */
#define LSPAN_SSD_LEAST_CHUNKED 8

/* Columns of packed weights that are decoded to f32 at a time, a multiple of every unit: 16 KiB a panel, which stay in L1
 * beside the columns of a tile of inputs. Rows whose sums wait for the next columns: 64 KiB of two panels, twice that with a gate. */
#define LSPAN_PRODUCT_COLUMNS 256
#define LSPAN_PRODUCT_BLOCK_ROWS 512
#define LSPAN_PRODUCT_SCRATCH ((LSPAN_PRODUCT_COLUMNS + 2 * LSPAN_PRODUCT_BLOCK_ROWS) * 2 * 16)
/* Bytes ahead of the unit that a product reads for which it asks. At 2 KiB four rows took 1.5 times as long as one on one
 * thread and eight 2.5 times, at 8 KiB 1.05 and 1.5 (q4_1); into L1 is a little better than into L2. */
#define LSPAN_PRODUCT_AHEAD 8192
/* Panels that take turns with a tile of inputs, which stays in L1 while they stay in L2. */
#define LSPAN_PRODUCT_PANELS 4
/* Tasks for each worker, and the least bytes of weights times tiles of rows of one: a task takes about a microsecond for
 * 32 KiB that come from memory. Below the last number of bytes the caller runs all tasks: a fork and join takes longer. */
#define LSPAN_PRODUCT_TASKS_PER_WORKER 4
#define LSPAN_PRODUCT_TASK_BYTES 32768
#define LSPAN_PRODUCT_SERIAL_BYTES 65536

/* Elements below which an elementwise call runs on the caller alone: a fork and join costs about 2 to 5
 * microseconds, the time of some 16,000 elements. */
#define LSPAN_SERIAL_ELEMENTS 16384

#endif
