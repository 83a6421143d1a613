/* Products of float32 activations with bfloat16 weights, summed in float32.

   Stands before cblas_sgemm: a product whose weight ends in a row that starts with MARK is computed
   here, all others by the next function. Weights lie in tiles of 16 outputs x 32 inputs, as
   AVX512-BF16 and AMX read them: per 16 outputs, per 32 inputs, 16 pairs of inputs x 16 outputs.

   The caller multiplies a (2 m) x (k / 2) matrix, which is really m rows of k activations, by a
   (padded + 1) x (k / 2) one, transposed; so the result has room for the m x n that is written at
   its start. */

#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };
enum { WIDTH = 16, GROUP = 4, MOST_ROWS = 6, DEPTH = 1024, BLOCK = 512, SPINS = 4000 };
static const uint32_t MARK[4] = {0xffb10a7du, 0xff9e3779u, 0xffa5f00du, 0xff85ebcau};

typedef void (*sgemm)(int, int, int, int, int, int, float, const float *, int, const float *, int,
                      float, float *, int);

static _Atomic(sgemm) next_product;
static int use_amx;

/* ---- threads ------------------------------------------------------------------------------- */

typedef void (*task)(const void *job, int index);

static struct {
  pthread_mutex_t turn, sleep;
  pthread_cond_t wake;
  int wanted, started;
  _Atomic(uint32_t) round;   /* of jobs; odd while one is open */
  _Atomic(int) taken, active, sleeping;
  task run;
  const void *job;
  int count;
} pool = {.turn = PTHREAD_MUTEX_INITIALIZER,
          .sleep = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER};

static void take_tasks(void) {
  for (int i; (i = atomic_fetch_add(&pool.taken, 1)) < pool.count;) pool.run(pool.job, i);
}

static void *work(void *nothing) {
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; atomic_load(&pool.round) == seen; spins++) {
      if (spins < SPINS) {
        _mm_pause();
        continue;
      }
      pthread_mutex_lock(&pool.sleep);
      atomic_fetch_add(&pool.sleeping, 1);
      while (atomic_load(&pool.round) == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
      atomic_fetch_sub(&pool.sleeping, 1);
      pthread_mutex_unlock(&pool.sleep);
    }
    atomic_fetch_add(&pool.active, 1);
    seen = atomic_load(&pool.round);
    if (seen & 1) take_tasks();
    atomic_fetch_sub(&pool.active, 1);
  }
  return nothing;
}

/* Run tasks 0 .. count - 1, on all threads that come while there are any left. */
static void parallel(task run, const void *job, int count) {
  if (pool.wanted < 2 || count < 2 || pthread_mutex_trylock(&pool.turn)) {
    for (int i = 0; i < count; i++) run(job, i);
    return;
  }
  for (; pool.started < pool.wanted - 1; pool.started++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL)) break;
    pthread_detach(thread);
  }
  pool.run = run, pool.job = job, pool.count = count;
  atomic_store(&pool.taken, 0);
  atomic_fetch_add(&pool.round, 1);
  if (atomic_load(&pool.sleeping)) {
    pthread_mutex_lock(&pool.sleep);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep);
  }
  take_tasks();
  atomic_fetch_add(&pool.round, 1);
  for (int spins = 0; atomic_load(&pool.active); spins++) {
    if (spins < SPINS) _mm_pause();
    else sched_yield();
  }
  pthread_mutex_unlock(&pool.turn);
}

/* A child process has none of the threads. */
static void forget_threads(void) {
  pthread_mutex_init(&pool.turn, NULL);
  pthread_mutex_init(&pool.sleep, NULL);
  pthread_cond_init(&pool.wake, NULL);
  pool.started = 0;
  atomic_store(&pool.round, 0);
  atomic_store(&pool.active, 0);
  atomic_store(&pool.sleeping, 0);
}

/* ---- products ------------------------------------------------------------------------------ */

typedef struct {
  const float *activations;
  uint16_t *rows; /* the activations in bfloat16, padded to a multiple of 16 rows */
  const uint32_t *weight;
  float *result;
  int m, n, k;
} product;

static int smaller(int a, int b) { return a < b ? a : b; }

static void convert_row(const void *job, int row) {
  const product *p = job;
  const float *from = p->activations + (size_t)row * p->k;
  uint16_t *to = p->rows + (size_t)row * p->k;
  if (row >= p->m) {
    memset(to, 0, 2 * (size_t)p->k);
    return;
  }
  for (int i = 0; i < p->k; i += 32) {
    __m512 low = _mm512_loadu_ps(from + i), high = _mm512_loadu_ps(from + i + 16);
    _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

static void convert_rows(const void *job, int index) {
  for (int row = 16 * index; row < 16 * index + 16; row++) convert_row(job, row);
}

/* rows x (16 groups) results: rows of pairs of activations by tiles, all k at once. */
static inline __attribute__((always_inline)) void few_rows(
    const product *p, int first, int rows, int tile, int groups, int from, int to) {
  __m512 sums[MOST_ROWS][GROUP];
  size_t pairs = p->k / 2;
  const uint32_t *weight = p->weight + (size_t)tile * WIDTH * pairs;
  const uint32_t *x = (const uint32_t *)p->rows + (size_t)first * pairs;
  float *result = p->result + (size_t)first * p->n + (size_t)tile * WIDTH;
  __mmask16 keep[GROUP];
  for (int g = 0; g < groups; g++) {
    int left = p->n - (tile + g) * WIDTH;
    keep[g] = left >= WIDTH ? 0xffff : (__mmask16)((1u << left) - 1);
    for (int r = 0; r < rows; r++)
      sums[r][g] = from ? _mm512_maskz_loadu_ps(keep[g], result + (size_t)r * p->n + WIDTH * g)
                        : _mm512_setzero_ps();
  }
  for (size_t i = from / 2; i < (size_t)to / 2; i++) {
    __m512bh w[GROUP];
    for (int g = 0; g < groups; g++) {
      const uint32_t *at = weight + (g * pairs + i) * WIDTH;
      _mm_prefetch((const char *)(at + 64 * WIDTH), _MM_HINT_T0);
      w[g] = (__m512bh)_mm512_loadu_si512(at);
    }
    for (int r = 0; r < rows; r++) {
      __m512bh pair = (__m512bh)_mm512_set1_epi32((int)x[r * pairs + i]);
      for (int g = 0; g < groups; g++) sums[r][g] = _mm512_dpbf16_ps(sums[r][g], pair, w[g]);
    }
  }
  for (int g = 0; g < groups; g++)
    for (int r = 0; r < rows; r++)
      _mm512_mask_storeu_ps(result + (size_t)r * p->n + WIDTH * g, keep[g], sums[r][g]);
}

#define ROWS(count)                                                        \
  case count:                                                              \
    if (groups == GROUP) few_rows(p, row, count, tile, GROUP, from, to);   \
    else for (int g = 0; g < groups; g++) few_rows(p, row, count, tile + g, 1, from, to); \
    break;

static void by_vectors(const product *p, int tile, int groups, int first, int last, int from,
                       int to) {
  for (int row = first; row < last; row += MOST_ROWS) switch (smaller(MOST_ROWS, last - row)) {
      ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
    }
}

/* A 32 x 32 part of the result by four tiles of sums. */
static void by_tiles(const product *p, int tile, int tiles, int row, int from, int to) {
  size_t pairs = p->k / 2, n = p->n;
  const uint32_t *w0 = p->weight + (size_t)tile * WIDTH * pairs;
  const uint32_t *w1 = w0 + (tiles > 1) * WIDTH * pairs;
  const uint16_t *x0 = p->rows + (size_t)row * p->k;
  const uint16_t *x1 = x0 + (row + 16 < p->m) * 16 * (size_t)p->k;
  int right = smaller(2 * WIDTH, p->n - tile * WIDTH), down = smaller(32, p->m - row);
  float *result = p->result + (size_t)row * n + (size_t)tile * WIDTH;
  float aside[32 * 32] __attribute__((aligned(64)));
  int whole = right == 32 && down == 32 && tiles > 1;
  float *at = whole ? result : aside;
  size_t stride = whole ? n : 32;
  if (from == 0) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    if (!whole)
      for (int r = 0; r < down; r++) memcpy(aside + 32 * r, result + r * n, sizeof(float) * right);
    _tile_loadd(0, at, 4 * stride);
    _tile_loadd(1, at + 16, 4 * stride);
    _tile_loadd(2, at + 16 * stride, 4 * stride);
    _tile_loadd(3, at + 16 * stride + 16, 4 * stride);
  }
  for (int i = from; i < to; i += 32) {
    _tile_loadd(4, x0 + i, 2 * p->k);
    _tile_loadd(6, w0 + i / 2 * WIDTH, 64);
    _tile_loadd(7, w1 + i / 2 * WIDTH, 64);
    _tile_loadd(5, x1 + i, 2 * p->k);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, at, 4 * stride);
    _tile_stored(1, at + 16, 4 * stride);
  _tile_stored(2, at + 16 * stride, 4 * stride);
    _tile_stored(3, at + 16 * stride + 16, 4 * stride);
  if (!whole)
    for (int r = 0; r < down; r++) memcpy(result + r * n, aside + 32 * r, sizeof(float) * right);
}

static void configure_tiles(void) {
  struct { uint8_t palette, start, rest[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape;
  memset(&shape, 0, sizeof shape);
  shape.palette = 1;
  for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
  _tile_loadconfig(&shape);
}

/* The outputs of one group of tiles. */
static void multiply_group(const void *job, int index) {
  const product *p = job;
  int tile = index * GROUP, groups = smaller(GROUP, (p->n + WIDTH - 1) / WIDTH - tile);
  int tiled = use_amx && p->m > MOST_ROWS;
  if (tiled) configure_tiles();
  for (int first = 0; first < p->m; first += BLOCK) {
    int last = smaller(p->m, first + BLOCK), depth = p->m <= MOST_ROWS ? p->k : DEPTH;
    for (int from = 0; from < p->k; from += depth) {
      int to = smaller(p->k, from + depth);
      if (!tiled) by_vectors(p, tile, groups, first, last, from, to);
      else
        for (int g = 0; g < groups; g += 2)
          for (int row = first; row < last; row += 32)
            by_tiles(p, tile + g, smaller(2, groups - g), row, from, to);
    }
  }
  if (tiled) _tile_release();
}

static int multiply(const float *activations, const uint32_t *weight, float *result, int m, int n,
                    int k) {
  static _Thread_local uint16_t *rows;
  static _Thread_local size_t held;
  int blocks = (m + 15) / 16;
  size_t needed = 2 * (size_t)k * (m <= MOST_ROWS ? m : 16 * blocks);
  if (needed > held) {
    free(rows);
    held = 0;
    rows = aligned_alloc(64, (needed + 63) / 64 * 64);
    if (!rows) return 0;
    held = needed;
  }
  product p = {activations, rows, weight, result, m, n, k};
  if (m <= MOST_ROWS)
    for (int row = 0; row < m; row++) convert_row(&p, row);
  else parallel(convert_rows, &p, blocks);
  parallel(multiply_group, &p, (n + WIDTH * GROUP - 1) / (WIDTH * GROUP));
  return 1;
}

/* ---- what is called from outside ------------------------------------------------------------ */

void vlmkit_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                  int lda, const float *b, int ldb, float beta, float *c, int ldc) {
  if (order == ROW_MAJOR && ta == PLAIN && tb == TRANSPOSED && k >= 16 && n > 16) {
    const uint32_t *last = (const uint32_t *)(b + (size_t)(n - 1) * ldb);
    if (!memcmp(last, MARK, sizeof MARK) &&
        multiply(a, (const uint32_t *)b, c, m / 2, (int)last[4], 2 * k))
      return;
  }
  atomic_load(&next_product)(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* Where to pass on all other products. */
void vlmkit_pass_on(sgemm next) { atomic_store(&next_product, next); }

/* Returns whether the processor's tiles are used: the kernel must be asked for them, by
   ARCH_REQ_XCOMP_PERM of XTILEDATA. */
int vlmkit_start(int threads, int amx) {
  pool.wanted = threads;
  pthread_atfork(NULL, NULL, forget_threads);
  use_amx = amx && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return use_amx;
}
