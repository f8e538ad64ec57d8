// Sums over a block of logits beside the clean host's, row by row, in one pass through main memory: torch makes eight.
// Shapes: N predictions, C columns of the block, V vocabulary.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

// e^x for x <= 0 to two units in the last place; 0 below -87. Without branches, so that a compiler takes many at once.
static inline float exponential(float x) {
  const float y = x < -87.f ? -87.f : x;
  const float n = std::nearbyint(y * 1.44269504f);
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;  // |r| <= ln 2 / 2
  float p = 1.9875691500e-4f;                                   // Cephes, expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const int32_t bits = ((int32_t)n + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.f ? 0.f : p * scale;
}

static const long CHUNK = 128;

extern "C" {
// is_half: the block is bfloat16. clean_NV and p_NV point to the block's first column. most_N (-infinity at first),
// mass_N, top_N, aim_N and apart_N go on from what the blocks before left there: the largest logit, the sum of
// exponentials over its own, its place, the logit that is aimed at, and the sum of p (clean - logit).
void add_block(const void *block_NC, int is_half, long N, long C, long V, long start, const float *clean_NV,
               const float *p_NV, const long *next_N, float *most_N, double *mass_N, long *top_N, double *aim_N,
               double *apart_N, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> widened(C);
#pragma omp for
    for (long n = 0; n < N; n++) {
      const float *l = (const float *)block_NC + n * C;
      if (is_half) {
        const uint16_t *half = (const uint16_t *)block_NC + n * C;
        uint32_t *bits = (uint32_t *)widened.data();
        for (long c = 0; c < C; c++) bits[c] = (uint32_t)half[c] << 16;
        l = widened.data();
      }
      const float *clean = clean_NV + n * V, *p = p_NV + n * V;
      float most = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : most)
      for (long c = 0; c < C; c++) most = l[c] > most ? l[c] : most;
      // tokens that a host rules out have logits of -infinity: they weigh nothing, here and in p
      const float base = most > -std::numeric_limits<float>::infinity() ? most : 0;
      double mass = 0, apart = 0;
      for (long first = 0; first < C; first += CHUNK) {  // a few in float, so that nothing small is lost beside a sum
        const long last = first + CHUNK < C ? first + CHUNK : C;
        float some = 0, between = 0;
#pragma omp simd reduction(+ : some, between)
        for (long c = first; c < last; c++) {
          some += exponential(l[c] - base);
          between += p[c] > 0 ? p[c] * (clean[c] - l[c]) : 0;
        }
        mass += some, apart += between;
      }
      if (most > most_N[n]) {
        mass_N[n] = mass_N[n] * std::exp((double)most_N[n] - most) + mass;
        most_N[n] = most;
        long c = 0;
        while (l[c] != most) c++;
        top_N[n] = start + c;
      } else if (mass > 0) {
        mass_N[n] += mass * std::exp((double)most - most_N[n]);
      }
      apart_N[n] += apart;
      if (next_N[n] >= start && next_N[n] < start + C) aim_N[n] = l[next_N[n] - start];
    }
  }
}
}
