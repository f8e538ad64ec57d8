// Choosing among pre-activations on the CPU, in one reading of h_BF, and products at the chosen places.
// Shapes: B tokens, F latents, N places, D columns.
#include <cstdint>

#include "choice.h"

static const long LANES = 16;  // numbers that are multiplied together: a line of the cache
static const long AHEAD = 8;   // places
static const long BLOCK = 256; // latents of a thread

// The k largest of each row, in the order of their latents: latent_BK; of equal ones the first.
extern "C" void largest(const float *h_BF, long B, long F, long k, long *latent_BK, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Largest choose;
#pragma omp for schedule(static)
    for (long b = 0; b < B; b++) choose(h_BF + b * F, F, k, latent_BK + b * k);
  }
}

// Which entries of each row lie above a latent's edge: count_B says how many, and `take` copies them to latent_N. Each
// thread lists its rows.
struct Lists {
  std::vector<std::vector<long>> of_thread;
};

extern "C" void *above(const float *h_BF, const float *edge_F, long B, long F, long *count_B, int threads) {
  Lists *lists = new Lists;
  lists->of_thread.resize(threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    std::vector<long> &all = lists->of_thread[t];
    long n = 0;
    for (long b = B * t / threads; b < B * (t + 1) / threads; b++) {
      const float *h = h_BF + b * F;
      if ((long)all.size() < n + F) all.resize(2 * (n + F));
      count_B[b] = list<false, 1>(h, edge_F, F, all.data() + n);
      n += count_B[b];
    }
    all.resize(n);
  }
  return lists;
}

// The entries that `above` found, one thread's after the other, and their rows; its lists are gone then.
extern "C" void take(void *found, const long *count_B, long B, long *row_N, long *latent_N) {
  Lists *lists = (Lists *)found;
  for (const std::vector<long> &all : lists->of_thread) latent_N = std::copy(all.begin(), all.end(), latent_N);
  for (long b = 0; b < B; b++) row_N = std::fill_n(row_N, count_B[b], b);
  delete lists;
}

// The order that sorts places by latent, earlier ones first, and where each latent begins in it; with weights, without
// the places whose weight is 0.
extern "C" void by_latent(const long *latent_N, const float *weight_N, long N, long F, long *order_N, long *start_F1) {
  std::fill(start_F1, start_F1 + F + 1, 0);
  for (long i = 0; i < N; i++) start_F1[latent_N[i] + 1] += !weight_N || weight_N[i] != 0;
  for (long f = 0; f < F; f++) start_F1[f + 1] += start_F1[f];
  std::vector<long> next(start_F1, start_F1 + F);
  for (long i = 0; i < N; i++)
    if (!weight_N || weight_N[i] != 0) order_N[next[latent_N[i]]++] = i;
}

// A sum that is the same wherever it stands; what is needed later is fetched ahead.
static inline float dot(const float *x, const float *w, const float *ahead, long D) {
  float sums[LANES] = {0}, sum = 0;
  long d = 0;
  for (; d + LANES <= D; d += LANES) {
    __builtin_prefetch(ahead + d);
#pragma omp simd
    for (long i = 0; i < LANES; i++) sums[i] += x[d + i] * w[d + i];
  }
  for (; d < D; d++) sum += x[d] * w[d];
  for (long i = 0; i < LANES; i++) sum += sums[i];
  return sum;
}

// <x_b, W_f> at each place; a row's places lie between its start and the next. The vectors of later places are fetched
// ahead: a dictionary does not fit in the near caches. Sums are the same for any number of threads, and for a row alone.
extern "C" void products(const float *x_BD, const float *W_FD, const long *start_B1, const long *latent_N, long B, long D,
                         float *out_N, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long b = 0; b < B; b++) {
    const float *x = x_BD + b * D;
    for (long n = start_B1[b]; n < start_B1[b + 1]; n++) {
      const float *ahead = W_FD + latent_N[std::min(n + AHEAD, start_B1[B] - 1)] * D;
      out_N[n] = dot(x, W_FD + latent_N[n] * D, ahead, D);
    }
  }
}

// What a code leaves over, residual_BD = z W + bias - y, and <residual_b, W_f> at each of its places: a token's rows of W
// are still near when they are read again. Sums are the same for any number of threads.
extern "C" void residual(const float *z_N, const long *start_B1, const long *latent_N, const float *W_FD,
                         const float *bias_D, const float *y_BD, long B, long D, float *residual_BD, float *product_N,
                         int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long b = 0; b < B; b++) {
    float *r = residual_BD + b * D;
    const float *y = y_BD + b * D;
    const long first = start_B1[b], last = start_B1[b + 1], most = start_B1[B] - 1;
    long d = 0;
    for (; d + WIDE <= D; d += WIDE) {
      Vector sums[EIGHT];
      for (long j = 0; j < EIGHT; j++) sums[j] = load(bias_D + d + EIGHT * j) - load(y + d + EIGHT * j);
      for (long n = first; n < last; n++) {
        const float *w = W_FD + latent_N[n] * D + d;
        const float z = z_N[n];
#pragma GCC unroll 8
        for (long j = 0; j < EIGHT; j++) sums[j] += z * load(w + EIGHT * j);
      }
      std::memcpy(r + d, sums, sizeof sums);
    }
    for (; d < D; d++) {
      r[d] = bias_D[d] - y[d];
      for (long n = first; n < last; n++) r[d] += z_N[n] * W_FD[latent_N[n] * D + d];
    }
    for (long n = first; n < last; n++)  // meanwhile the next token's rows come near
      product_N[n] = dot(r, W_FD + latent_N[n] * D, W_FD + latent_N[std::min(n + last - first, most)] * D, D);
  }
}

// How many entries of each latent are not 0: of numbers (float), or of the bits of numbers (bfloat16), but for their sign.
static inline bool fires(float z) { return z != 0; }
static inline bool fires(uint16_t bits) { return (uint16_t)(bits << 1) != 0; }

template <typename T> static void count(const T *z_BF, long B, long F, int *count_F, int threads) {
  const long blocks = (F + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long block = 0; block < blocks; block++) {
    const long start = block * BLOCK, n = std::min(BLOCK, F - start);
    int *count = count_F + start;
    std::fill(count, count + n, 0);
    for (long b = 0; b < B; b++) {
      const T *z = z_BF + b * F + start;
#pragma omp simd
      for (long i = 0; i < n; i++) count[i] += fires(z[i]);
    }
  }
}

extern "C" void firings(const void *z_BF, int half, long B, long F, int *count_F, int threads) {
  if (half)
    count((const uint16_t *)z_BF, B, F, count_F, threads);
  else
    count((const float *)z_BF, B, F, count_F, threads);
}
