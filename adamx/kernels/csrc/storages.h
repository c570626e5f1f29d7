// SPDX-License-Identifier: Apache-2.0
// How moments are stored between steps; the twin of storage/floats.py and storage/compact.py.
#pragma once

#include "codes.h"
#include "formulas.h"
#include "noise.h"

namespace adamx::ADAMX_UNITS {

// The draw of moment `k`: those without a sign come first.
template <class Kinds>
constexpr int draw_of(int k) {
  int before = 0;
  for (int i = 0; i < Kinds::kCount; ++i) {
    const bool own = is_signed(Kinds::kKinds[k]), other = is_signed(Kinds::kKinds[i]);
    before += (other < own) || (other == own && i < k);
  }
  return before;
}

// The moments' arrays from one element on.
template <class Kinds>
struct Arrays {
  const void* in[kMaxMoments];
  void* out[kMaxMoments];
  int32_t step;

  Arrays(const Work& work, int64_t begin, int mean_bytes, int other_bytes) : step(work.words.step) {
    for (int k = 0; k < Kinds::kCount; ++k) {
      const int64_t offset = begin * (is_signed(Kinds::kKinds[k]) ? mean_bytes : other_bytes);
      const bool own = work.moments[k];  // else it shares the bytes of another
      in[k] = own ? static_cast<const char*>(work.moments[k]) + offset : nullptr;
      out[k] = own ? static_cast<char*>(work.next_moments[k]) + offset : nullptr;
    }
  }
};

// Floating-point arrays; squares in bfloat16 are rounded stochastically.
template <class Kinds, bool mean_bfloat16, bool square_bfloat16>
struct Floats {
  static constexpr bool kDraws = square_bfloat16;
  Arrays<Kinds> arrays;

  Floats(const Work& work, int64_t begin)
      : arrays(work, begin, mean_bfloat16 ? 2 : 4, square_bfloat16 ? 2 : 4) {}

  template <int k>
  static constexpr bool half() {
    return is_signed(Kinds::kKinds[k]) ? mean_bfloat16 : square_bfloat16;
  }
  template <int k>
  static constexpr int drawn() {  // only what is drawn counts
    int before = 1;
    for (int i = 0; i < k; ++i)
      before += !is_signed(Kinds::kKinds[i]) && Kinds::kKinds[i] != Kind::kMaximum;
    return before;
  }
  template <int k = 0>
  ADAMX_INLINE void load(int64_t i, float* m) const {
    if constexpr (half<k>())
      m[k] = from_bfloat16(static_cast<const uint16_t*>(arrays.in[k])[i]);
    else
      m[k] = static_cast<const float*>(arrays.in[k])[i];
    if constexpr (k + 1 < Kinds::kCount) load<k + 1>(i, m);
  }
  template <int k = 0>
  ADAMX_INLINE void store(int64_t i, float* m, int32_t hash) const {
    constexpr Kind kind = Kinds::kKinds[k];
    if constexpr (!half<k>()) {
      static_cast<float*>(arrays.out[k])[i] = m[k];
    } else if constexpr (is_signed(kind) || kind == Kind::kMaximum) {
      static_cast<uint16_t*>(arrays.out[k])[i] = to_bfloat16(m[k]);
    } else {
      const int32_t rounded = plus(word(m[k]), right(draw<drawn<k>()>(hash, arrays.step), 16));
      const int32_t kept = m[k] != m[k] ? word(kNaN) : rounded;
      static_cast<uint16_t*>(arrays.out[k])[i] = uint16_t(right(kept, 16));
    }
    if constexpr (k + 1 < Kinds::kCount) store<k + 1>(i, m, hash);
  }
};

// One byte a moment.
template <class Kinds>
struct Int8 {
  static constexpr bool kDraws = true;
  Arrays<Kinds> arrays;

  Int8(const Work& work, int64_t begin) : arrays(work, begin, 1, 1) {}

  static constexpr int anchor() {
    return Kinds::find(Kind::kSquared) < 0 ? Kinds::find(Kind::kMagnitude)
                                           : Kinds::find(Kind::kSquared);
  }
  static constexpr const Squares& squares(Kind kind) {
    return kind == Kind::kMagnitude ? kMagnitudes : kSquares;
  }
  ADAMX_INLINE int32_t code(int k, int64_t i) const {
    return is_signed(Kinds::kKinds[k])
               ? int32_t(static_cast<const int8_t*>(arrays.in[k])[i])
               : int32_t(static_cast<const uint8_t*>(arrays.in[k])[i]);
  }
  ADAMX_INLINE static float unit(Kind kind, float unit) {
    return kind == Kind::kNormalised ? number(kMeansPart) : unit;
  }
  template <int k = 0>
  ADAMX_INLINE void load(int64_t i, float* m) const {
    constexpr Kind kind = Kinds::kKinds[k];
    constexpr int a = anchor();
    const int32_t own = code(k, i);
    if constexpr (!is_signed(kind)) {
      m[k] = squares(kind).decode(own);
    } else if constexpr (a < 0) {
      m[k] = decode_alone(own);
    } else {
      const Squares& book = squares(Kinds::kKinds[a]);
      const int32_t square = code(a, i);
      const float mean = kMeans.decode(own, unit(kind, book.units.value(square)), 31);
      m[k] = square > Squares::kCount ? kNaN : mean;
    }
    if constexpr (k + 1 < Kinds::kCount) load<k + 1>(i, m);
  }
  template <int k>
  ADAMX_INLINE int32_t rounding(int64_t i, float m, int32_t hash) const {
    constexpr Kind kind = Kinds::kKinds[k];
    if constexpr (kind == Kind::kMaximum) return kHalf;
    const int32_t bits = draw<draw_of<Kinds>(k)>(hash, arrays.step);
    if constexpr (kind == Kind::kMagnitude) return m > kMagnitudes.decode(code(k, i)) ? kHalf : bits;
    return leaning(bits);
  }
  ADAMX_INLINE void store(int64_t i, float* m, int32_t hash) const {
    constexpr int a = anchor();
    if constexpr (a >= 0) spoil(m);
    float root = 0;
    if constexpr (a >= 0) {
      const Squares& book = squares(Kinds::kKinds[a]);
      const int32_t found = book.encode(m[a], rounding<a>(i, m[a], hash));
      root = book.units.value(found);
      static_cast<uint8_t*>(arrays.out[a])[i] = uint8_t(book.within(found));
    }
    store_others<0>(i, m, hash, root);
  }
  // An infinite mean of normalised gradients shows in the square, which has a code for it.
  template <int k = 0>
  ADAMX_INLINE static void spoil(float* m) {
    if constexpr (Kinds::kKinds[k] == Kind::kNormalised) m[anchor()] += 0 * m[k];
    if constexpr (k + 1 < Kinds::kCount) spoil<k + 1>(m);
  }
  template <int k>
  ADAMX_INLINE void store_others(int64_t i, float* m, int32_t hash, float root) const {
    constexpr Kind kind = Kinds::kKinds[k];
    if constexpr (is_signed(kind)) {
      const int32_t bits = draw<draw_of<Kinds>(k)>(hash, arrays.step);
      const int32_t found =
          anchor() < 0 ? encode_alone(m[k], bits) : kMeans.encode(m[k], unit(kind, root), bits);
      static_cast<int8_t*>(arrays.out[k])[i] = int8_t(found);
    } else if constexpr (k != anchor()) {
      const Squares& book = squares(kind);
      const int32_t found = book.encode(m[k], rounding<k>(i, m[k], hash));
      static_cast<uint8_t*>(arrays.out[k])[i] = uint8_t(book.within(found));
    }
    if constexpr (k + 1 < Kinds::kCount) store_others<k + 1>(i, m, hash, root);
  }
};

// A mean and its square in one byte together: rules of these two moments only.
template <class Kinds>
struct Int4 {
  static_assert(Kinds::kCount == 2);
  static constexpr bool kDraws = true;
  Arrays<Kinds> arrays;

  Int4(const Work& work, int64_t begin) : arrays(work, begin, 1, 1) {}
  static constexpr int kMean = is_signed(Kinds::kKinds[0]) ? 0 : 1, kSquare = 1 - kMean;
  static constexpr bool kNormalised = Kinds::kKinds[kMean] == Kind::kNormalised;

  ADAMX_INLINE static float unit(int32_t square) {
    return kNormalised ? number(pair::kPart) : pair::kUnits.value(square);
  }
  ADAMX_INLINE void load(int64_t i, float* m) const {
    const int32_t byte = static_cast<const uint8_t*>(arrays.in[0])[i];
    const bool bad = byte == pair::kNotFinite;
    m[kSquare] = bad ? kNaN : pair::square(byte);
    m[kMean] = bad ? kNaN : pair::kMeans.decode(byte, unit(byte >> 4), 3);
  }
  ADAMX_INLINE void store(int64_t i, float* m, int32_t hash) const {
    const float square = kNormalised ? m[kSquare] + 0 * m[kMean] : m[kSquare];
    const int32_t code = pair::code(square, draw<0>(hash, arrays.step));
    const int32_t mean = pair::kMeans.encode(m[kMean], unit(code), draw<1>(hash, arrays.step));
    static_cast<uint8_t*>(arrays.out[0])[i] = uint8_t(pair::join(code, mean));
  }
};

template <class Kinds>
using BFloat16 = Floats<Kinds, true, true>;
template <class Kinds>
using BFloat16Mean = Floats<Kinds, true, false>;
template <class Kinds>
using BFloat16Square = Floats<Kinds, false, true>;

}  // namespace adamx::ADAMX_UNITS
