// The pursuit of pursuit.py, a token at a time: its latents' decoder rows are read from main memory once and then stay
// in the processor's own cache. Shapes: B tokens, D d_in, F d_sae, N entries of all codes, S entries of one code.
#include <cmath>
#include <limits>

#include "choice.h"

using Floats = std::vector<float>;
using Latents = std::vector<long>;

static const float TINY = std::numeric_limits<float>::min();
static const float SOLVED = 256 * std::numeric_limits<float>::epsilon() * std::numeric_limits<float>::epsilon();

struct Settings {
  long D, F, steps, rounds, candidates;
  float eta;
  bool is_signed;
};

// out[i] = <x, W_f>, four rows at a time so that their loads run beside each other
static void products(const float *W_FD, const Latents &f, const float *x, long D, Floats &out) {
  out.resize(f.size());
  size_t i = 0;
  for (; i + 4 <= f.size(); i += 4) {
    const float *a = W_FD + f[i] * D, *b = W_FD + f[i + 1] * D, *c = W_FD + f[i + 2] * D, *d = W_FD + f[i + 3] * D;
    float sa = 0, sb = 0, sc = 0, sd = 0;
#pragma omp simd reduction(+ : sa, sb, sc, sd)
    for (long k = 0; k < D; k++) {
      sa += a[k] * x[k];
      sb += b[k] * x[k];
      sc += c[k] * x[k];
      sd += d[k] * x[k];
    }
    out[i] = sa, out[i + 1] = sb, out[i + 2] = sc, out[i + 3] = sd;
  }
  for (; i < f.size(); i++) {
    const float *a = W_FD + f[i] * D;
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (long k = 0; k < D; k++) s += a[k] * x[k];
    out[i] = s;
  }
}

// y += sum_i weight_i W_f
static void add_rows(const float *W_FD, const Latents &f, const Floats &weight, float *y, long D) {
  size_t i = 0;
  for (; i + 4 <= f.size(); i += 4) {
    const float *a = W_FD + f[i] * D, *b = W_FD + f[i + 1] * D, *c = W_FD + f[i + 2] * D, *d = W_FD + f[i + 3] * D;
    const float wa = weight[i], wb = weight[i + 1], wc = weight[i + 2], wd = weight[i + 3];
#pragma omp simd
    for (long k = 0; k < D; k++) y[k] += wa * a[k] + wb * b[k] + wc * c[k] + wd * d[k];
  }
  for (; i < f.size(); i++) {
    const float *a = W_FD + f[i] * D, w = weight[i];
#pragma omp simd
    for (long k = 0; k < D; k++) y[k] += w * a[k];
  }
}

static float square(const float *x, long n) {
  float s = 0;
#pragma omp simd reduction(+ : s)
  for (long k = 0; k < n; k++) s += x[k] * x[k];
  return s;
}

// A code of one token in units of unit decoder rows, and what it leaves over.
struct Code {
  Latents latent_S;
  Floats c_S, residual_D;
  float error;

  void measure(const float *W_FD, const float *x_D, long D) {
    residual_D.assign(D, 0.f);
    add_rows(W_FD, latent_S, c_S, residual_D.data(), D);
    for (long k = 0; k < D; k++) residual_D[k] = x_D[k] - residual_D[k];
    error = square(residual_D.data(), D);
  }
};

struct Workspace {
  Code code, other;
  Floats g_S, p_S, y_D, score_C, rank_F, size_C;
  Latents pool_C, order_C;
  Largest largest;
  Floats at_F;  // the code's entries, 0 elsewhere
};

// Steps of conjugate gradients on the code's support, from the code itself; left as it was where they make it worse.
static void solve(Code &code, Workspace &w, const float *W_FD, const Settings &s) {
  const Floats c_S = code.c_S, residual_D = code.residual_D;
  const float error = code.error;
  float *r = code.residual_D.data();
  products(W_FD, code.latent_S, r, s.D, w.g_S);
  w.p_S = w.g_S;
  float size = square(w.g_S.data(), w.g_S.size());
  for (long step = 0; step < s.steps; step++) {
    if (size <= SOLVED * square(r, s.D)) break;  // what is left is rounding, and further steps add to it
    w.y_D.assign(s.D, 0.f);
    add_rows(W_FD, code.latent_S, w.p_S, w.y_D.data(), s.D);
    const float alpha = size / std::max(square(w.y_D.data(), s.D), TINY);
    for (size_t i = 0; i < w.p_S.size(); i++) code.c_S[i] += alpha * w.p_S[i];
    for (long k = 0; k < s.D; k++) r[k] -= alpha * w.y_D[k];
    if (step + 1 == s.steps) break;
    products(W_FD, code.latent_S, r, s.D, w.g_S);
    const float next = square(w.g_S.data(), w.g_S.size()), beta = next / std::max(size, TINY);
    for (size_t i = 0; i < w.p_S.size(); i++) w.p_S[i] = w.g_S[i] + beta * w.p_S[i];
    size = next;
  }
  if (!s.is_signed)
    for (size_t i = 0; i < code.c_S.size(); i++)
      if (code.c_S[i] < 0) {
        const float *row = W_FD + code.latent_S[i] * s.D, c = code.c_S[i];
        for (long k = 0; k < s.D; k++) r[k] += c * row[k];
        code.c_S[i] = 0;
      }
  code.error = square(r, s.D);
  if (!(code.error <= error)) code.c_S = c_S, code.residual_D = residual_D, code.error = error;
}

// The latents that a decision looks at: those of largest rank, the open ones among them.
static void choose_pool(const Code &plain, Workspace &w, const float *h_F, const float *norm_F, const Settings &s) {
  w.rank_F.resize(s.F);
  float *rank_F = w.rank_F.data();
  for (long f = 0; f < s.F; f++) rank_F[f] = norm_F ? h_F[f] * norm_F[f] : h_F[f];
  if (s.is_signed)
    for (long f = 0; f < s.F; f++) rank_F[f] = std::fabs(rank_F[f]);
  for (long f : plain.latent_S) rank_F[f] = std::numeric_limits<float>::infinity();
  w.pool_C.resize(std::max<long>(s.candidates, plain.latent_S.size()));
  w.largest(rank_F, s.F, w.pool_C.size(), w.pool_C.data());
}

// The gate's decision on c + eta W r: as many latents as the plain code has.
static void decide(const Code &code, Code &decided, size_t count, Workspace &w, const float *W_FD, const float *x_D,
                   const Settings &s) {
  const size_t C = w.pool_C.size();
  products(W_FD, w.pool_C, code.residual_D.data(), s.D, w.score_C);
  for (size_t i = 0; i < code.latent_S.size(); i++) w.at_F[code.latent_S[i]] = code.c_S[i];
  for (size_t i = 0; i < C; i++) w.score_C[i] = w.at_F[w.pool_C[i]] + s.eta * w.score_C[i];
  for (long f : code.latent_S) w.at_F[f] = 0;
  w.size_C = w.score_C;
  if (s.is_signed)
    for (float &size : w.size_C) size = std::fabs(size);
  w.order_C.resize(std::min(C, count));
  w.largest(w.size_C.data(), C, w.order_C.size(), w.order_C.data());
  decided.latent_S.clear(), decided.c_S.clear();
  for (long i : w.order_C) {
    if (!s.is_signed && !(w.score_C[i] > 0)) continue;
    decided.latent_S.push_back(w.pool_C[i]);
    decided.c_S.push_back(w.score_C[i]);
  }
  decided.measure(W_FD, x_D, s.D);
}

extern "C" {
// x_BD is centred; start_B1, latent_N and c_N are the plain code, and become the pursued one: 0 where it has fewer
// entries. norm_F is null for unit rows.
void pursue(const float *x_BD, const float *W_FD, const float *h_BF, const float *norm_F, long B, long D, long F,
            const long *start_B1, long *latent_N, float *c_N, long steps, long rounds, long candidates, float eta,
            int is_signed, int threads) {
  const Settings s{D, F, steps, rounds, candidates, eta, is_signed != 0};
#pragma omp parallel num_threads(threads)
  {
    Workspace w;
    w.at_F.assign(F, 0.f);
#pragma omp for schedule(dynamic, 16)
    for (long b = 0; b < B; b++) {
      const long start = start_B1[b], count = start_B1[b + 1] - start;
      if (!count) continue;
      Code &code = w.code, &other = w.other;
      code.latent_S.assign(latent_N + start, latent_N + start + count);
      code.c_S.assign(c_N + start, c_N + start + count);
      code.measure(W_FD, x_BD + b * D, D);
      if (rounds) choose_pool(code, w, h_BF + b * F, norm_F, s);
      solve(code, w, W_FD, s);
      for (long round = 0; round < rounds; round++) {
        decide(code, other, count, w, W_FD, x_BD + b * D, s);
        solve(other, w, W_FD, s);
        if (other.error <= code.error) std::swap(code, other);
      }
      for (long i = 0; i < count; i++) {
        const bool has = i < (long)code.latent_S.size();
        if (has) latent_N[start + i] = code.latent_S[i];
        c_N[start + i] = has ? code.c_S[i] : 0.f;
      }
    }
  }
}
}
