// Mirostat (Basu et al. 2021): a cut that follows the surprise of what has been drawn. Version 2
// keeps the tokens whose surprise is mu bits or less; version 1 estimates from the 100 most
// probable how many these are. State: mu, 2 tau at the start.
#include <algorithm>
#include <cmath>

#include "elementary.h"
#include "lists/largest.h"
#include "stages/head.h"

namespace fastsample {

namespace {

constexpr size_t kConsidered = 100;

// k of version 1: of a Zipf distribution fitted to the largest.
double estimated_count(const float* x, size_t n, double temperature, double vocab, double mu) {
  double tb = 0.0, tt = 0.0;
  for (size_t i = 0; i + 1 < n; ++i) {
    const double t = natural_log(double(i + 2) / double(i + 1));
    tb += t * ((double(x[i]) - double(x[i + 1])) / temperature);
    tt += t * t;
  }
  const double s = tb / tt, e = s - 1.0, log_vocab = natural_log(vocab);
  const double spread = e != 0.0 ? e / (1.0 - exponential(-e * log_vocab)) : 1.0 / log_vocab;
  return power(spread * exponential(mu * kLn2), 1.0 / s);
}

void start(const double* value, double* state) {
  state[0] = 2.0 * value[1];
  state[1] = 0.0;
}

void update(const double* value, double q, double* state) {
  state[0] -= value[2] * (-natural_log(q) / kLn2 - value[1]);
}

void run(Cutting& cutting, const double* value) {
  double state[2];
  start(value, state);
  const double mu = cutting.state ? cutting.state[0] : state[0];
  if (value[0] == 2.0) {
    const double log_total = natural_log(in_units(mass_of(cutting)));
    keep_floor(cutting, value_of(cutting, log_total - mu * kLn2));
    return;
  }
  const size_t kept = count_of(cutting);
  if (kept < 2) return;
  float x[kConsidered];
  Survivors* list = &cutting.list();
  if (!cutting.kept.listed) {
    list = &cutting.workspace.base;
    list_top_k(cutting.row, cutting.exp2(), kConsidered, *list);
  }
  const size_t n = largest_values(*list, kConsidered, x);
  const double k = estimated_count(x, n, cutting.temperature, double(cutting.row.n), mu);
  if (k < double(kept))  // never true of NaN
    keep_largest(cutting, std::max(size_t(std::max(k, 1.0)), cutting.at_least));
}

bool is_version(double v) { return v == 0.0 || v == 1.0 || v == 2.0; }

}  // namespace

extern const Stage kMirostat;
const Stage kMirostat = {
    {{"mirostat", "0, 1 or 2", is_version, 0.0},
     // Added to a finite number as often as you like, it never makes it infinite.
     {"mirostat_tau", "in (0, 1e290]", [](double v) { return v > 0.0 && v <= 1e290; }, 5.0},
     {"mirostat_eta", "in [0, 1]", [](double v) { return v >= 0.0 && v <= 1.0; }, 0.1}},
    [](const double* value) { return value[0] == 0.0; },
    run,
    true,
    start,
    update,
    1};

}  // namespace fastsample
