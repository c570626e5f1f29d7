// SPDX-License-Identifier: Apache-2.0
// The loops over a leaf's elements, a tile at a time: one for each rule, which makes directions; one
// for each landing; and two for each storage, which decode moments and encode them. What passes
// from one to the next stays in the first-level cache. They are short, since a processor sees more
// elements at once in a short loop than in a long one.
//
// Compiled once for each set of vector units, each time into a namespace ADAMX_UNITS of its own:
// the linker would merge functions of the same name, whatever instructions they are made of.

#include "codes.h"
#include "denormals.h"
#include "formulas.h"
#include "landings.h"
#include "noise.h"
#include "storages.h"
#include "work.h"

#define ADAMX_LOOP _Pragma("GCC ivdep") for (int64_t i = 0; i < n; ++i)

namespace adamx::ADAMX_UNITS {

constexpr int64_t kTile = 256;

using Decode = void (*)(const Work&, int64_t begin, int64_t n, float (*moments)[kTile]);
using Encode = void (*)(const Work&, int64_t begin, int64_t n, float (*moments)[kTile],
                        const int32_t* hash);

// The moments of some elements in float32.
struct Rows {
  const float* in[kMaxMoments];
  float* out[kMaxMoments];

  explicit Rows(float (*moments)[kTile]) {
    for (int k = 0; k < kMaxMoments; ++k) in[k] = out[k] = moments[k];
  }
  Rows(const Work& work, int64_t begin, int count) {  // the arrays themselves
    for (int k = 0; k < count; ++k) {
      in[k] = static_cast<const float*>(work.moments[k]) + begin;
      out[k] = static_cast<float*>(work.next_moments[k]) + begin;
    }
  }
};

using Compute = void (*)(const float* scalars, int64_t n, const float* g, const Rows& moments,
                         float* direction);

struct RuleLoops {
  Compute compute;
  Decode decode[kStorages];  // null for a storage that does not fit, and for float32
  Encode encode[kStorages];
};

struct Tile {
  alignas(64) float gradient[kTile];
  alignas(64) float direction[kTile];
  alignas(64) float moments[kMaxMoments][kTile];
  alignas(64) int32_t hash[kTile];
};

// Rows of a shard are apart in the whole array; within a row positions follow each other.
void hash_tile(const Positions& at, const Words& words, int64_t begin, int64_t n, int32_t* hash) {
  const int64_t row = at.size[at.dims - 1];
  while (n > 0) {
    int64_t rest = begin / row;
    const int64_t column = begin % row, count = n < row - column ? n : row - column;
    uint32_t position = at.first + uint32_t(column);
    for (int d = at.dims - 2; d >= 0; --d) {
      position += uint32_t(rest % at.size[d]) * at.stride[d];
      rest /= at.size[d];
    }
    uint32_t product = (position + words.start) * kFirstFactor;  // grows with the position
    for (int64_t i = 0; i < count; ++i, product += kFirstFactor)
      hash[i] = hashed(product, words.twist);
    hash += count, begin += count, n -= count;
  }
}

const float* gradients(const Work& work, int64_t begin, int64_t n, float* made) {
  const float factor = work.gradient_scales[0], gain = work.gradient_scales[1];
  const bool as_it_is = !work.scales_gradient;
  if (work.gradient_is_bfloat16) {
    const uint16_t* g = static_cast<const uint16_t*>(work.gradient) + begin;
    if (as_it_is) {
      ADAMX_LOOP made[i] = from_bfloat16(g[i]);
    } else {
      ADAMX_LOOP made[i] = from_bfloat16(to_bfloat16(from_bfloat16(g[i]) * factor * gain));
    }
    return made;
  }
  const float* g = static_cast<const float*>(work.gradient) + begin;
  if (as_it_is) return g;
  ADAMX_LOOP made[i] = g[i] * factor * gain;
  return made;
}

// Finite gradients are held at 2^62, whose square is finite; infinity becomes NaN.
ADAMX_INLINE float saturated(float g) {
  const float most = number(kPow2(62));
  return fused(0, g, g > most ? most : g < -most ? -most : g);
}

template <class Formula>
void compute(const Formula& formula, int64_t n, const float* g, const Rows& moments,
             float* direction) {
  ADAMX_LOOP {
    float m[Formula::Kinds::kCount];
    for (int k = 0; k < Formula::Kinds::kCount; ++k) m[k] = moments.in[k][i];
    direction[i] = formula(saturated(g[i]), m);
    for (int k = 0; k < Formula::Kinds::kCount; ++k) moments.out[k][i] = m[k];
  }
}

template <template <bool> class Formula>
void compute(const float* scalars, int64_t n, const float* g, const Rows& moments,
             float* direction) {
  if (Formula<true>::is_usual(scalars)) {
    compute(Formula<true>(scalars), n, g, moments, direction);
  } else {
    compute(Formula<false>(scalars), n, g, moments, direction);
  }
}

template <class Kinds, class Storage>
void decode(const Work& work, int64_t begin, int64_t n, float (*moments)[kTile]) {
  const Storage storage(work, begin);
  ADAMX_LOOP {
    float m[Kinds::kCount];
    storage.load(i, m);
    for (int k = 0; k < Kinds::kCount; ++k) moments[k][i] = m[k];
  }
}

template <class Kinds, class Storage>
void encode(const Work& work, int64_t begin, int64_t n, float (*moments)[kTile],
            const int32_t* hash) {
  const Storage storage(work, begin);
  ADAMX_LOOP {
    float m[Kinds::kCount];
    for (int k = 0; k < Kinds::kCount; ++k) m[k] = moments[k][i];
    storage.store(i, m, Storage::kDraws ? hash[i] : 0);
  }
}

template <class Landing, bool decays, bool decays_late>
void land(const Work& work, int64_t begin, int64_t n, const float* direction,
          const int32_t* hash) {
  using Parameter = typename Landing::Parameter;
  using Remainder = typename Landing::Remainder;
  const auto* p = static_cast<const Parameter*>(work.parameter) + begin;
  auto* next = static_cast<Parameter*>(work.next_parameter) + begin;
  const auto* r = static_cast<const Remainder*>(work.remainder) + (Landing::kKeeps ? begin : 0);
  auto* left = static_cast<Remainder*>(work.next_remainder) + (Landing::kKeeps ? begin : 0);
  const float rate = work.rate, strength = work.strength;
  const int32_t number = work.landing_words.step;
  ADAMX_LOOP {
    Remainder remainder = Landing::kKeeps ? r[i] : Remainder();
    const float weight = Landing::weight(p[i], remainder);
    const float u = decays ? fused(strength, weight, direction[i]) : direction[i];
    const int32_t bits = Landing::kDraws ? draw<kLandingDraw>(hash[i], number) : 0;
    const Step<decays_late> step{rate, u, strength, weight};
    next[i] = Landing::write(p[i], weight, &remainder, step, bits);
    if (Landing::kKeeps) left[i] = remainder;
  }
}

template <class Landing>
void land(const Work& work, int64_t begin, int64_t n, const float* direction,
          const int32_t* hash) {
  switch (work.decay) {
    case kNone: return land<Landing, false, false>(work, begin, n, direction, hash);
    case kBeforeRate: return land<Landing, true, false>(work, begin, n, direction, hash);
    case kAfterRate: return land<Landing, false, true>(work, begin, n, direction, hash);
    case kDecays: return;
  }
}

void land(const Work& work, int64_t begin, int64_t n, const float* direction,
          const int32_t* hash) {
  switch (work.landing) {
    case kPlain: return land<Plain>(work, begin, n, direction, hash);
    case kNearest: return land<Nearest>(work, begin, n, direction, hash);
    case kNearestTwice: return land<NearestTwice>(work, begin, n, direction, hash);
    case kStochastic: return land<Stochastic>(work, begin, n, direction, hash);
    case kExact: return land<Exact>(work, begin, n, direction, hash);
    case kCompensated8: return land<Compensated8>(work, begin, n, direction, hash);
    case kKahan: return land<Kahan>(work, begin, n, direction, hash);
    case kLandings: return;
  }
}

bool draws(Landing landing) {
  return landing == kStochastic || landing == kCompensated8 || landing == kKahan;
}

struct Table {
  RuleLoops of[kRules];
  RuleTraits rules[kRules];

  template <class Kinds, class Storage>
  void add(Rule rule, adamx::Storage storage) {
    of[rule].decode[storage] = decode<Kinds, Storage>;
    of[rule].encode[storage] = encode<Kinds, Storage>;
    rules[rule].fits[storage] = true;
  }
  template <template <bool> class Formula>
  void add(Rule rule) {
    using Kinds = typename Formula<true>::Kinds;
    of[rule].compute = compute<Formula>;
    rules[rule].moments = Kinds::kCount;
    for (int k = 0; k < Kinds::kCount; ++k) rules[rule].is_mean[k] = is_signed(Kinds::kKinds[k]);
    rules[rule].fits[kFloat32] = true;
    add<Kinds, BFloat16<Kinds>>(rule, kBFloat16);
    add<Kinds, BFloat16Mean<Kinds>>(rule, kBFloat16Mean);
    add<Kinds, BFloat16Square<Kinds>>(rule, kBFloat16Square);
    if constexpr (Kinds::find(Kind::kSpread) < 0) add<Kinds, Int8<Kinds>>(rule, kInt8);
    if constexpr (Kinds::kCount == 2 && Kinds::find(Kind::kSquared) >= 0)
      add<Kinds, Int4<Kinds>>(rule, kInt4);
  }
  Table() : of(), rules() {
    add<Adam>(kAdam);
    add<AdamAtan2>(kAdamAtan2);
    add<AmsGrad>(kAmsGrad);
    add<RAdam>(kRAdam);
    add<Adamax>(kAdamax);
    add<AdaBelief>(kAdaBelief);
    add<Yogi>(kYogi);
    add<Lion>(kLion);
    add<Adopt>(kAdopt);
    add<Adan>(kAdan);
  }
};

const Table& table() {
  static const Table found;
  return found;
}

void span(const Work& work, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const RuleLoops& loops = table().of[work.rule];
  const int count = table().rules[work.rule].moments;
  Tile tile;
  const Words &a = work.words, &b = work.landing_words;
  const bool hashes = work.storage == kBFloat16 || work.storage >= kBFloat16Square;
  const bool anew = draws(work.landing) && (!hashes || a.start != b.start || a.twist != b.twist);
  for (; begin < end; begin += kTile) {
    const int64_t n = end - begin < kTile ? end - begin : kTile;
    const float* g = gradients(work, begin, n, tile.gradient);
    if (hashes) hash_tile(work.positions, a, begin, n, tile.hash);
    float* direction = work.direction ? work.direction + begin : tile.direction;
    if (work.storage == kFloat32) {  // the arrays themselves
      loops.compute(work.scalars, n, g, Rows(work, begin, count), direction);
    } else {
      loops.decode[work.storage](work, begin, n, tile.moments);
      loops.compute(work.scalars, n, g, Rows(tile.moments), direction);
      loops.encode[work.storage](work, begin, n, tile.moments, tile.hash);
    }
    if (work.direction) continue;
    if (anew) hash_tile(work.positions, b, begin, n, tile.hash);
    land(work, begin, n, direction, tile.hash);
  }
}

}  // namespace adamx::ADAMX_UNITS

namespace adamx {

#define ADAMX_NAME2(units) units##_loops
#define ADAMX_NAME(units) ADAMX_NAME2(units)

Loops ADAMX_NAME(ADAMX_UNITS)() { return {ADAMX_UNITS::table().rules, ADAMX_UNITS::span}; }

}  // namespace adamx
