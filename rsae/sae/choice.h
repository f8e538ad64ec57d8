// Choosing among a row of numbers without branches on the numbers, which a processor would guess wrong.
#pragma once
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>
#if defined(__AVX__)
#include <immintrin.h>
#endif

static const long EIGHT = 8;  // numbers of a vector
static const long WIDE = 64;  // columns that are kept in registers: eight vectors

typedef float Vector __attribute__((vector_size(4 * EIGHT)));

static inline Vector load(const float *x) {
  Vector v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

// Which of eight numbers lie above an edge (or reach it): bits.
template <bool REACH> static inline unsigned beyond(const float *x, const float *edge) {
#if defined(__AVX__)
  const int how = REACH ? _CMP_GE_OQ : _CMP_GT_OQ;
  return _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(edge), how));
#else
  unsigned bits = 0;
  for (long i = 0; i < EIGHT; i++) bits |= (unsigned)(REACH ? x[i] >= edge[i] : x[i] > edge[i]) << i;
  return bits;
#endif
}

// Lists which numbers of a row lie beyond an edge: one of each (STEP 1), or one of all in eight copies (0).
template <bool REACH, long STEP> static long list(const float *x, const float *edge, long size, long *out) {
  long n = 0, start = 0;
  for (; start + EIGHT <= size; start += EIGHT)
    for (unsigned bits = beyond<REACH>(x + start, edge + STEP * start); bits; bits &= bits - 1)
      out[n++] = start + __builtin_ctz(bits);
  for (; start < size; start++)
    if (REACH ? x[start] >= edge[STEP * start] : x[start] > edge[STEP * start]) out[n++] = start;
  return n;
}

// An edge that k numbers reach, and more only where they are equal, by halving the floats that it can be. -infinity
// where fewer are numbers.
static float edge_of(const float *x, long size, long k) {
  auto in_order = [](int i) {  // integers in the order of floats
    i = i < 0 ? i ^ 0x7fffffff : i;
    float f;
    std::memcpy(&f, &i, sizeof f);
    return f;
  };
  int low = (int)0xff800000 ^ 0x7fffffff, high = 0x7f800001;  // -infinity; beyond infinity, which none reaches
  while ((long)high - low > 1) {
    const int middle = (int)(((long)low + high) >> 1);
    const float edge = in_order(middle);
    int reach = 0;
#pragma omp simd reduction(+ : reach)
    for (long i = 0; i < size; i++) reach += x[i] >= edge;
    (reach >= k ? low : high) = middle;
    if (reach == k) break;
  }
  return in_order(low);
}

// The k largest of a row, in order; of equal ones the first, and what is no number last. With the row cut into 2k columns
// or more, the k-th largest of the columns' maxima is a bound that k entries reach and few others: a second reading, of a
// row that is near by then, lists those that reach it.
struct Largest {
  std::vector<float> most, value;
  std::vector<long> found;

  void operator()(const float *x, long size, long k, long *out) {
    const long columns = std::min((2 * k + WIDE - 1) / WIDE * WIDE, size / WIDE * WIDE);
    float bound = -std::numeric_limits<float>::infinity();
    if (columns >= k && columns < size) {
      most.resize(columns);
      const long whole = size / columns * columns;  // what is left over can only raise maxima
      for (long first = 0; first < columns; first += WIDE) {
        Vector most_of[EIGHT];
        for (Vector &m : most_of) m = Vector{} - std::numeric_limits<float>::infinity();
        for (long start = first; start < whole; start += columns)
#pragma GCC unroll 8
          for (long j = 0; j < EIGHT; j++) {
            const Vector v = load(x + start + EIGHT * j);
            most_of[j] = v > most_of[j] ? v : most_of[j];
          }
        std::memcpy(most.data() + first, most_of, sizeof most_of);
      }
      bound = edge_of(most.data(), columns, k);
    }
    if ((long)found.size() < size) found.resize(size);
    float bounds[EIGHT];
    std::fill_n(bounds, EIGHT, bound);
    long n = list<true, 0>(x, bounds, size, found.data());
    value.resize(n);
    for (long i = 0; i < n; i++) value[i] = x[found[i]];
    const float edge = edge_of(value.data(), n, k);
    long equal = k, kept = 0;
    for (long i = 0; i < n; i++) equal -= value[i] > edge;
    for (long i = 0; i < n; i++)
      if (value[i] > edge || (value[i] == edge && equal-- > 0)) out[kept++] = found[i];
    for (long i = 0; kept < k; i++)  // only where numbers are missing
      if (x[i] != x[i]) out[kept++] = i;
  }
};
