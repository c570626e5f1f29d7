// SPDX-License-Identifier: Apache-2.0
// Runs every loop over drawn sizes, places in memory and numbers, for a sanitizer to watch. Each
// array is an allocation of its own, of the very size that the loop may touch. What the loops make
// must not depend on where an element is, on how the work is cut, nor, between two sets of vector
// units with fused multiply-add, on these.
//
//     fuzz ROUNDS SEED

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "work.h"

using namespace adamx;

namespace {

std::mt19937_64 rng;

int64_t below(int64_t n) { return int64_t(rng() % uint64_t(n)); }

// Bytes that begin `offset` elements after a line of the cache, and end where they end.
struct Bytes {
  std::unique_ptr<char[]> all;
  char* data;
  int64_t size;

  Bytes(int64_t count, int width, int64_t offset) : size(count * width) {
    all.reset(new char[size + offset * width]);
    data = all.get() + offset * width;
  }
  Bytes copy(int64_t offset_bytes) const {
    Bytes made(size, 1, offset_bytes);
    std::memcpy(made.data, data, size);
    return made;
  }
};

float drawn() {
  const float odd[] = {0.0f, -0.0f, 1e-40f, 1e-30f, 1e20f, -3e38f, 6e-8f,
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN()};
  if (below(20) == 0) return odd[below(10)];
  const float x = float(below(2000001) - 1000000) * 1e-6f;
  return x * std::pow(10.0f, float(below(12) - 9));
}

uint16_t half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return uint16_t(bits >> 16);
}

int width_of(Storage storage, bool is_mean) {
  switch (storage) {
    case kFloat32: return 4;
    case kBFloat16: return 2;
    case kBFloat16Mean: return is_mean ? 2 : 4;
    case kBFloat16Square: return is_mean ? 4 : 2;
    default: return 1;
  }
}

void fill(Bytes& bytes, int width, bool positive) {
  for (int64_t i = 0; i < bytes.size / width; ++i) {
    const float x = positive ? std::fabs(drawn()) : drawn();
    const uint16_t h = half(x);
    if (width == 4) std::memcpy(bytes.data + 4 * i, &x, 4);
    if (width == 2) std::memcpy(bytes.data + 2 * i, &h, 2);
    if (width == 1) bytes.data[i] = char(rng());
  }
}

// A step, its arrays (parameter, remainder, moments, gradient), and the widths of their elements.
struct Case {
  Work work{};
  std::vector<Bytes> arrays;
  std::vector<int> widths;
};

std::vector<Bytes> copied(const std::vector<Bytes>& arrays) {
  std::vector<Bytes> made;
  for (const Bytes& b : arrays) made.push_back(b.copy(4 * below(9)));
  return made;
}

// The work that reads one set of arrays and writes another, or the same.
Work between(const Case& c, const std::vector<Bytes>& from, const std::vector<Bytes>& to) {
  Work w = c.work;
  w.parameter = from[0].data, w.next_parameter = to[0].data;
  w.remainder = from[1].data, w.next_remainder = to[1].data;
  for (size_t k = 0; k + 3 < from.size(); ++k)
    w.moments[k] = from[k + 2].data, w.next_moments[k] = to[k + 2].data;
  w.gradient = from.back().data;
  return w;
}

bool same(const std::vector<Bytes>& a, const std::vector<Bytes>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(a[i].data, b[i].data, a[i].size) != 0) return false;
  return true;
}

Case draw(const Loops& loops, Rule rule, Storage storage, Landing landing, int64_t size) {
  Case c;
  Work& w = c.work;
  const RuleTraits& traits = loops.rules[rule];
  w.size = size, w.rule = rule, w.storage = storage, w.landing = landing;
  w.decay = Decay(below(kDecays)), w.rate = -1e-3f, w.strength = 0.01f;
  const bool plain = landing == kPlain;
  const int remainder = landing == kExact || landing == kKahan ? 2 : landing == kCompensated8;
  c.widths = {plain ? 4 : 2, remainder};
  const int count = storage == kInt4 ? 1 : traits.moments;
  for (int k = 0; k < count; ++k) c.widths.push_back(width_of(storage, traits.is_mean[k]));
  w.gradient_is_bfloat16 = below(2), w.scales_gradient = below(2);
  w.gradient_scales[0] = 0.5f, w.gradient_scales[1] = 0.3f;
  c.widths.push_back(w.gradient_is_bfloat16 ? 2 : 4);
  for (size_t i = 0; i < c.widths.size(); ++i) {
    const bool moment = i >= 2 && i + 1 < c.widths.size();
    const bool positive = moment && !traits.is_mean[i - 2];
    c.arrays.emplace_back(size, c.widths[i], below(17));
    if (c.widths[i]) fill(c.arrays.back(), c.widths[i], positive);
  }
  for (float& s : w.scalars) s = float(below(1000)) * 1e-3f;
  if (below(2)) {
    const float usual[] = {.9f, .1f, .999f, .001f, 1.5f, 2.f, 1e-8f, 1e-8f, 0, 0, 0, 0, 0};
    std::memcpy(w.scalars, usual, sizeof usual);
  }
  w.words = {uint32_t(rng()), uint32_t(rng()), int32_t(rng())};
  w.landing_words = below(2) ? w.words : Words{uint32_t(rng()), uint32_t(rng()), int32_t(rng())};
  w.positions = {1, {size}, {1}, uint32_t(rng())};
  if (size > 0 && size % 3 == 0) w.positions = {2, {3, size / 3}, {uint32_t(size), 1}, 7};
  return c;
}

bool run(const Loops& one, const Loops& other, Rule rule, Storage storage, Landing landing,
         int64_t size) {
  const Case c = draw(one, rule, storage, landing, size);
  auto whole = copied(c.arrays), cut = copied(c.arrays), threaded = copied(c.arrays);
  one.span(between(c, c.arrays, whole), 0, size);

  const int64_t at = below(size + 1);
  other.span(between(c, c.arrays, cut), 0, at);
  other.span(between(c, c.arrays, cut), at, size);

  const Work in_place = between(c, threaded, threaded);
  std::thread first([&] { one.span(in_place, 0, at); });
  one.span(in_place, at, size);
  first.join();
  if (!same(whole, cut) || !same(whole, threaded)) return false;

  auto alone = copied(c.arrays);  // the direction alone, with the moments of the whole step
  Bytes direction(size, 4, below(17));
  Work w = between(c, c.arrays, alone);
  w.direction = reinterpret_cast<float*>(direction.data);
  w.parameter = w.remainder = nullptr, w.next_parameter = w.next_remainder = nullptr;
  one.span(w, 0, size);
  for (size_t i = 2; i < alone.size(); ++i)
    if (std::memcmp(alone[i].data, whole[i].data, alone[i].size) != 0) return false;
  return true;
}

}  // namespace

int main(int, char** argv) {
  const int rounds = std::atoi(argv[1]);
  const uint64_t seed = std::strtoull(argv[2], nullptr, 10);
  rng.seed(seed);
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  const Loops baseline = baseline_loops();
  std::vector<std::pair<Loops, Loops>> pairs = {{baseline, baseline}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    pairs.push_back({avx2_loops(), avx2_loops()});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      pairs.push_back({avx512_loops(), avx2_loops()});
  }
#endif
  const int64_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 513, 1023, 3000};
  int cases = 0;
  for (int round = 0; round < rounds; ++round)
    for (const auto& [one, other] : pairs)
      for (int rule = 0; rule < kRules; ++rule)
        for (int storage = 0; storage < kStorages; ++storage)
          for (int landing = 0; landing < kLandings; ++landing) {
            if (!one.rules[rule].fits[storage]) continue;
            const int64_t size = below(4) ? sizes[below(16)] : below(5000);
            if (!run(one, other, Rule(rule), Storage(storage), Landing(landing), size)) {
              std::printf("rule %d storage %d landing %d size %lld: results differ\n", rule,
                          storage, landing, static_cast<long long>(size));
              return 1;
            }
            ++cases;
          }
  std::printf("%d cases\n", cases);
  return 0;
}
