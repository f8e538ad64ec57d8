// The rational activation phi(h) = c_out r(h / c_in) on a CPU: value and gradients in one pass each.
//
// Compiled at first use (see cpu.py) for one function r: -DPAIRS=J for partial fractions with J pole pairs, or
// -DDEGREE_P=p -DDEGREE_Q=q -DABSOLUTE=0|1|2 for P/Q with monomial coefficients. Every parameter comes as a row of F
// values, one a latent: row-major [parameters, F]. A tile of columns keeps its parameters and its sums in the
// first-level cache; sums run in fp32 within a tile of rows and in fp64 over the tiles. Rows are shared among OpenMP threads,
// of torch's own OpenMP runtime where the names agree, so that its idle threads do not stand in the way.

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int ROWS = 256;

typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

static inline V splat(float x) { return x - V{}; }
static inline V absolute(V x) { return (V)((I)x & 0x7fffffff); }
static inline V sign(V x) { return x > 0 ? splat(1) : x < 0 ? splat(-1) : splat(0); }

// 1 / x, to an ulp or two: an estimate of 14 bits and a Newton step cost less than a division.
static inline V reciprocal(V x) {
#ifdef __AVX512F__
  V y = (V)_mm512_rcp14_ps((__m512)x);
  return y + y * (splat(1) - x * y);
#else
  return splat(1) / x;
#endif
}

// Up to LANES values from memory; missing ones are 0.
static inline V load(const float *p, int n) {
  V v{};
  if (n >= LANES) std::memcpy(&v, p, sizeof v); else std::memcpy(&v, p, 4 * n);
  return v;
}
static inline void store(float *p, V v, int n) { std::memcpy(p, &v, n >= LANES ? sizeof v : 4 * n); }

static inline V load(const uint16_t *p, int n) {  // bfloat16
  typedef uint16_t H __attribute__((vector_size(2 * LANES)));
  H half{};
  if (n >= LANES) std::memcpy(&half, p, sizeof half); else std::memcpy(&half, p, 2 * n);
  return (V)(__builtin_convertvector(half, I) << 16);
}
static inline void store(uint16_t *p, V v, int n) {
  typedef uint16_t H __attribute__((vector_size(2 * LANES)));
  I bits = (I)v;
  I rounded = bits + 0x7fff + ((bits >> 16) & 1);  // to nearest, ties to even
  H half = __builtin_convertvector(((v == v ? rounded : bits) >> 16) & 0xffff, H);
  std::memcpy(p, &half, n >= LANES ? sizeof half : 2 * n);
}

#ifdef PAIRS
// r(t) = c0 + c1 t + sum_j (alpha_j s_j + beta_j) / (s_j^2 + w_j), s_j = t - u_j.  Parameters: c0, c1, alpha, beta, u, w.
constexpr int PARAMETERS = 2 + 4 * PAIRS;
static inline V value(V t, const V *p, int stride) {
  V r = p[0] + p[stride] * t;
  for (int j = 0; j < PAIRS; j++) {
    V s = t - p[(2 + 2 * PAIRS + j) * stride];
    r += (p[(2 + PAIRS + j) * stride] + p[(2 + j) * stride] * s) * reciprocal(s * s + p[(2 + 3 * PAIRS + j) * stride]);
  }
  return r;
}
// r, r' and sums[k] += g dr/dp_k
static inline V gradients(V t, V g, const V *p, int stride, V *sums, V &slope) {
  V r = p[0] + p[stride] * t;
  slope = p[stride];
  sums[0] += g;
  sums[stride] += g * t;
  for (int j = 0; j < PAIRS; j++) {
    V s = t - p[(2 + 2 * PAIRS + j) * stride], alpha = p[(2 + j) * stride];
    V inverse = reciprocal(s * s + p[(2 + 3 * PAIRS + j) * stride]);
    V q = (p[(2 + PAIRS + j) * stride] + alpha * s) * inverse;
    V d = (alpha - 2 * s * q) * inverse, g_inverse = g * inverse;
    r += q;
    slope += d;
    sums[(2 + j) * stride] += g_inverse * s;
    sums[(2 + PAIRS + j) * stride] += g_inverse;
    sums[(2 + 2 * PAIRS + j) * stride] -= g * d;
    sums[(2 + 3 * PAIRS + j) * stride] -= g_inverse * q;
  }
  return r;
}
#else
// r(t) = P(t) / Q(t).  Parameters: a_0 .. a_p, b_1 .. b_q.  Q = 1 + sum b_j t^j, with |t| for t where ABSOLUTE is 1, and
// 1 + |sum b_j t^j| where it is 2.
constexpr int PARAMETERS = DEGREE_P + 1 + DEGREE_Q;
static inline V horner(V t, const V *c, int stride, int n) {
  V r = c[(n - 1) * stride];
  for (int j = n - 2; j >= 0; j--) r = c[j * stride] + r * t;
  return r;
}
static inline V slope_of(V t, const V *c, int stride, int n) {
  V r{};
  for (int j = n - 1; j >= 1; j--) r = float(j) * c[j * stride] + r * t;
  return r;
}
static inline V denominator(V t, V &x, V &outer, const V *b, int stride) {
  x = ABSOLUTE == 1 ? absolute(t) : t;
  V sum = x * horner(x, b, stride, DEGREE_Q);
  outer = ABSOLUTE == 2 ? sign(sum) : splat(1);
  return splat(1) + outer * sum;
}
static inline V value(V t, const V *p, int stride) {
  V x, outer, Q = denominator(t, x, outer, p + (DEGREE_P + 1) * stride, stride);
  return horner(t, p, stride, DEGREE_P + 1) / Q;
}
static inline V gradients(V t, V g, const V *p, int stride, V *sums, V &slope) {
  const V *b = p + (DEGREE_P + 1) * stride;
  V x, outer, inverse = splat(1) / denominator(t, x, outer, b, stride);
  V r = horner(t, p, stride, DEGREE_P + 1) * inverse;
  V inner = horner(x, b, stride, DEGREE_Q) + x * slope_of(x, b, stride, DEGREE_Q);
  if (ABSOLUTE == 1) inner *= sign(t);
  slope = (slope_of(t, p, stride, DEGREE_P + 1) - r * outer * inner) * inverse;
  V power = g * inverse;
  for (int j = 0; j <= DEGREE_P; j++, power *= t) sums[j * stride] += power;
  power = -g * inverse * r * outer * x;
  for (int j = 0; j < DEGREE_Q; j++, power *= x) sums[(DEGREE_P + 1 + j) * stride] += power;
  return r;
}
#endif

// The tile of parameters [PARAMETERS + 2][VECTORS]: r's own, then 1 / c_in and c_out.
template <int VECTORS> struct Tile {
  V p[(PARAMETERS + 2) * VECTORS];
  Tile(const float *parameters, long F, long first, int columns) {
    for (int k = 0; k < PARAMETERS + 2; k++)
      for (int v = 0; v < VECTORS; v++) {
        int n = columns - v * LANES;
        p[k * VECTORS + v] = n > 0 ? load(parameters + k * F + first + v * LANES, n) : splat(1);
      }
  }
};

// Whether r is the same for all latents: its parameters then stay in registers, and h is read in the order of memory.
static bool shared(const float *parameters, long F) {
  for (int k = 0; k < PARAMETERS; k++)
    for (long f = 1; f < F; f++)
      if (parameters[k * F + f] != parameters[k * F]) return false;
  return true;
}

template <class T> static void forward_of_one(const T *h, T *out, long B, long F, const float *parameters) {
  V p[PARAMETERS];
  for (int k = 0; k < PARAMETERS; k++) p[k] = splat(parameters[k * F]);
  const float *in = parameters + PARAMETERS * F, *scale = in + F;
  for (long b = 0; b < B; b++, h += F, out += F)
    for (long f = 0; f < F; f += LANES) {
      int n = F - f < LANES ? F - f : LANES;
      store(out + f, load(scale + f, n) * value(load(h + f, n) * load(in + f, n), p, 1), n);
    }
}

template <class T> static void forward(const T *h, T *out, long B, long F, const float *parameters) {
  if (shared(parameters, F)) return forward_of_one(h, out, B, F, parameters);
  constexpr int COLUMNS = 256, VECTORS = COLUMNS / LANES;
  for (long first = 0; first < F; first += COLUMNS) {
    int columns = F - first < COLUMNS ? F - first : COLUMNS;
    Tile<VECTORS> tile(parameters, F, first, columns);
    for (long b = 0; b < B; b++)
      for (int v = 0; v * LANES < columns; v++) {
        long i = b * F + first + v * LANES;
        int n = columns - v * LANES;
        V t = load(h + i, n) * tile.p[PARAMETERS * VECTORS + v];
        store(out + i, tile.p[(PARAMETERS + 1) * VECTORS + v] * value(t, tile.p + v, VECTORS), n);
      }
  }
}

// grad_h, and sums[k, f] += sum over rows of grad dphi/dp_k, for r's own parameters, 1 / c_in and c_out.
template <class T>
static void backward(const T *h, const T *grad, T *grad_h, long B, long F, const float *parameters, double *sums) {
  constexpr int COLUMNS = 128, VECTORS = COLUMNS / LANES;
  for (long top = 0; top < B; top += ROWS)
    for (long first = 0; first < F; first += COLUMNS) {
      int columns = F - first < COLUMNS ? F - first : COLUMNS;
      Tile<VECTORS> tile(parameters, F, first, columns);
      V total[(PARAMETERS + 2) * VECTORS]{};
      for (long b = top; b < B && b < top + ROWS; b++)
        for (int v = 0; v * LANES < columns; v++) {
          long i = b * F + first + v * LANES;
          int n = columns - v * LANES;
          V in = tile.p[PARAMETERS * VECTORS + v], out = tile.p[(PARAMETERS + 1) * VECTORS + v];
          V x = load(h + i, n), g = load(grad + i, n), slope;
          V r = gradients(x * in, g * out, tile.p + v, VECTORS, total + v, slope);
          V outer = g * out * slope;
          store(grad_h + i, outer * in, n);
          total[PARAMETERS * VECTORS + v] += outer * x;
          total[(PARAMETERS + 1) * VECTORS + v] += g * r;
        }
      for (int k = 0; k < PARAMETERS + 2; k++)
        for (int c = 0; c < columns; c++) sums[k * F + first + c] += ((const float *)(total + k * VECTORS))[c];
    }
}

// work(low, high, thread) for each thread's share of B rows.
template <class Work> static void share(long B, int threads, Work work) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int i = 0; i < threads; i++) work(B * i / threads, B * (i + 1) / threads, i);
}

template <class T> static void forward_shared(const T *h, T *out, long B, long F, const float *parameters, int threads) {
  share(B, threads, [=](long low, long high, int) { forward(h + low * F, out + low * F, high - low, F, parameters); });
}
// sums[threads, PARAMETERS + 2, F]
template <class T>
static void backward_shared(const T *h, const T *grad, T *grad_h, long B, long F, const float *parameters, double *sums,
                            int threads) {
  share(B, threads, [=](long low, long high, int i) {
    backward(h + low * F, grad + low * F, grad_h + low * F, high - low, F, parameters, sums + i * (PARAMETERS + 2) * F);
  });
}

extern "C" {
void forward_float32(const float *h, float *out, long B, long F, const float *parameters, int threads) {
  forward_shared(h, out, B, F, parameters, threads);
}
void forward_bfloat16(const uint16_t *h, uint16_t *out, long B, long F, const float *parameters, int threads) {
  forward_shared(h, out, B, F, parameters, threads);
}
void backward_float32(const float *h, const float *grad, float *grad_h, long B, long F, const float *parameters,
                      double *sums, int threads) {
  backward_shared(h, grad, grad_h, B, F, parameters, sums, threads);
}
void backward_bfloat16(const uint16_t *h, const uint16_t *grad, uint16_t *grad_h, long B, long F,
                       const float *parameters, double *sums, int threads) {
  backward_shared(h, grad, grad_h, B, F, parameters, sums, threads);
}
}
