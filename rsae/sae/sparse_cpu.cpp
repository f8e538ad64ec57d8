// Choosing among pre-activations on the CPU, in one reading of h_BF, and products at the chosen places.
// Shapes: B tokens, F latents, N places, D columns.
#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

static const long LANES = 16;  // numbers that are looked at together: a line of the cache
static const long AHEAD = 8;   // places
static const long BLOCK = 256; // latents of a thread

// The k largest of each row, in no order: latent_BK. With the row cut into columns of LANES or more entries, the k-th
// largest of the columns' maxima is a bound that k entries reach: only columns that reach it are looked at again.
extern "C" void largest(const float *h_BF, long B, long F, long k, long *latent_BK, int threads) {
  const long columns = std::max(k, (F + LANES - 1) / LANES);
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> most(columns), sorted(columns);
    std::vector<long> found;
#pragma omp for schedule(static)
    for (long b = 0; b < B; b++) {
      const float *h = h_BF + b * F;
      std::copy(h, h + columns, most.begin());
      for (long start = columns; start < F; start += columns) {
        const long n = std::min(columns, F - start);
        for (long c = 0; c < n; c++) most[c] = h[start + c] > most[c] ? h[start + c] : most[c];
      }
      for (float &m : most)  // what is no number has no order
        if (m != m) m = -std::numeric_limits<float>::infinity();
      sorted = most;
      std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<float>());
      const float bound = sorted[k - 1];
      found.clear();
      for (long c = 0; c < columns; c++)
        if (most[c] >= bound)
          for (long f = c; f < F; f += columns)
            if (h[f] >= bound) found.push_back(f);
      for (long f = 0; (long)found.size() < k; f++)  // only where numbers are missing (NaN)
        if (!(h[f] >= bound)) found.push_back(f);
      if ((long)found.size() > k)
        std::nth_element(found.begin(), found.begin() + (k - 1), found.end(),
                         [h](long a, long b) { return h[a] > h[b]; });
      std::copy(found.begin(), found.begin() + k, latent_BK + b * k);
    }
  }
}

// How many entries of each row lie above a latent's edge (count_B), and, where latent_N is given, which; start_B is where
// a row's begin.
extern "C" void above(const float *h_BF, const float *edge_F, long B, long F, const long *start_B, long *count_B,
                      long *latent_N, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long b = 0; b < B; b++) {
    const float *h = h_BF + b * F;
    long count = 0, *out = latent_N ? latent_N + start_B[b] : nullptr;
    for (long start = 0; start < F; start += LANES) {
      const long n = std::min(LANES, F - start);
      int here = 0;
#pragma omp simd reduction(+ : here)
      for (long i = 0; i < n; i++) here += h[start + i] > edge_F[start + i];
      if (here && out)
        for (long i = 0; i < n; i++)
          if (h[start + i] > edge_F[start + i]) *out++ = start + i;
      count += here;
    }
    count_B[b] = count;
  }
}

// The order that sorts places by latent, earlier ones first, and where each latent begins in it.
extern "C" void by_latent(const long *latent_N, long N, long F, long *order_N, long *start_F1) {
  std::fill(start_F1, start_F1 + F + 1, 0);
  for (long i = 0; i < N; i++) start_F1[latent_N[i] + 1]++;
  for (long f = 0; f < F; f++) start_F1[f + 1] += start_F1[f];
  std::vector<long> next(start_F1, start_F1 + F);
  for (long i = 0; i < N; i++) order_N[next[latent_N[i]]++] = i;
}

// <x_b, W_f> at each place; a row's places lie between its start and the next. The vectors of later places are fetched
// ahead: a dictionary does not fit in the near caches. Sums are the same for any number of threads, and for a row alone.
extern "C" void products(const float *x_BD, const float *W_FD, const long *start_B1, const long *latent_N, long B, long D,
                         float *out_N, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long b = 0; b < B; b++) {
    const float *x = x_BD + b * D;
    for (long n = start_B1[b]; n < start_B1[b + 1]; n++) {
      const float *w = W_FD + latent_N[n] * D;
      const float *ahead = W_FD + latent_N[std::min(n + AHEAD, start_B1[B] - 1)] * D;
      float sums[LANES] = {0}, sum = 0;
      long d = 0;
      for (; d + LANES <= D; d += LANES) {
        __builtin_prefetch(ahead + d);
#pragma omp simd
        for (long i = 0; i < LANES; i++) sums[i] += x[d + i] * w[d + i];
      }
      for (; d < D; d++) sum += x[d] * w[d];
      for (long i = 0; i < LANES; i++) sum += sums[i];
      out_N[n] = sum;
    }
  }
}

// How many entries of each latent are not 0.
extern "C" void firings(const float *z_BF, long B, long F, int *count_F, int threads) {
  const long blocks = (F + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long block = 0; block < blocks; block++) {
    const long start = block * BLOCK, n = std::min(BLOCK, F - start);
    int *count = count_F + start;
    std::fill(count, count + n, 0);
    for (long b = 0; b < B; b++) {
      const float *z = z_BF + b * F + start;
#pragma omp simd
      for (long i = 0; i < n; i++) count[i] += z[i] != 0;
    }
  }
}
