// SPDX-License-Identifier: Apache-2.0
// The loops over a leaf's elements, a tile at a time: one function for each rule and storage, one
// for each landing. Between the two, directions stay in the first-level cache.
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

// Short loops one after the other: a processor sees more elements at once than in a long one.
template <class Formula, class Storage>
void advance(const Work& work, int64_t begin, int64_t n, const float* g, Tile* tile,
             float* direction) {
  const Formula formula(work.scalars);
  const Storage storage(work, begin);
  if constexpr (!Storage::kCodes) {
    ADAMX_LOOP {
      float m[Formula::kMoments];
      storage.load(i, m);
      direction[i] = formula(saturated(g[i]), m);
      storage.store(i, m, Storage::kDraws ? tile->hash[i] : 0);
    }
    return;
  }
  ADAMX_LOOP {
    float m[Formula::kMoments];
    storage.load(i, m);
    for (int k = 0; k < Formula::kMoments; ++k) tile->moments[k][i] = m[k];
  }
  ADAMX_LOOP {
    float m[Formula::kMoments];
    for (int k = 0; k < Formula::kMoments; ++k) m[k] = tile->moments[k][i];
    direction[i] = formula(saturated(g[i]), m);
    for (int k = 0; k < Formula::kMoments; ++k) tile->moments[k][i] = m[k];
  }
  ADAMX_LOOP {
    float m[Formula::kMoments];
    for (int k = 0; k < Formula::kMoments; ++k) m[k] = tile->moments[k][i];
    storage.store(i, m, tile->hash[i]);
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

template <template <bool> class Formula, template <class> class Storage>
void span(const Work& work, int64_t begin, int64_t end) {
  constexpr bool kHashes = Storage<Formula<true>>::kDraws;
  const FlushDenormals flush;
  Tile tile;
  const bool usual = Formula<true>::is_usual(work.scalars);
  const Words &a = work.words, &b = work.landing_words;
  const bool anew = draws(work.landing) &&
                    (!kHashes || a.start != b.start || a.twist != b.twist);
  for (; begin < end; begin += kTile) {
    const int64_t n = end - begin < kTile ? end - begin : kTile;
    const float* g = gradients(work, begin, n, tile.gradient);
    if (kHashes) hash_tile(work.positions, a, begin, n, tile.hash);
    float* direction = work.direction ? work.direction + begin : tile.direction;
    if (usual) {
      advance<Formula<true>, Storage<Formula<true>>>(work, begin, n, g, &tile, direction);
    } else {
      advance<Formula<false>, Storage<Formula<false>>>(work, begin, n, g, &tile, direction);
    }
    if (work.direction) continue;
    if (anew) hash_tile(work.positions, b, begin, n, tile.hash);
    land(work, begin, n, direction, tile.hash);
  }
}

template <class Formula>
constexpr bool has(Kind kind) {
  for (const Kind k : Formula::kKinds)
    if (k == kind) return true;
  return false;
}

template <template <bool> class Formula>
Loops::OfRule of() {
  using Usual = Formula<true>;
  Loops::OfRule loops{Usual::kMoments, {}, {}};
  for (int k = 0; k < Usual::kMoments; ++k) loops.is_mean[k] = is_signed(Usual::kKinds[k]);
  loops.with[kFloat32] = span<Formula, Float32>;
  loops.with[kBFloat16] = span<Formula, BFloat16>;
  loops.with[kBFloat16Mean] = span<Formula, BFloat16Mean>;
  loops.with[kBFloat16Square] = span<Formula, BFloat16Square>;
  if constexpr (!has<Usual>(Kind::kSpread)) loops.with[kInt8] = span<Formula, Int8>;
  if constexpr (Usual::kMoments == 2 && has<Usual>(Kind::kSquared))
    loops.with[kInt4] = span<Formula, Int4>;
  return loops;
}

Loops all() {
  return {{of<Adam>(), of<AdamAtan2>(), of<AmsGrad>(), of<RAdam>(), of<Adamax>(), of<AdaBelief>(),
           of<Yogi>(), of<Lion>(), of<Adopt>(), of<Adan>()}};
}

}  // namespace adamx::ADAMX_UNITS

namespace adamx {

#define ADAMX_NAME2(units) units##_loops
#define ADAMX_NAME(units) ADAMX_NAME2(units)

const Loops& ADAMX_NAME(ADAMX_UNITS)() {
  static const Loops loops = ADAMX_UNITS::all();
  return loops;
}

}  // namespace adamx
