// SPDX-License-Identifier: Apache-2.0
// Numbers as small integers; the twin of storage/cuts.py, squares.py, means.py and pair.py.
#pragma once

#include "bits.h"

namespace adamx::ADAMX_UNITS {

// Positive numbers without their lowest `drop` bits; `first` are the bits of the number 0.
struct Cut {
  int drop;
  int32_t first;

  ADAMX_INLINE int32_t code(float y, int32_t noise) const {
    return right(plus(word(y), minus(right(noise, 32 - drop), first)), drop);
  }
  ADAMX_INLINE float value(int32_t code) const { return number(plus(left(code, drop), first)); }
  ADAMX_INLINE bool beyond(int32_t code) const { return code >= (kInfinityBits - first) >> drop; }
  constexpr Cut roots() const { return {drop - 1, (first + 0x3F800000) >> 1}; }
  constexpr Cut scaled(int32_t part_bits) const { return {drop, first + part_bits - 0x3F800000}; }
};

constexpr int32_t kHalf = INT32_MIN;  // as 32 random bits, half of all that there are

// Noise that rounds up a little more often, so that 1 / sqrt(v) has no bias.
ADAMX_INLINE int32_t leaning(int32_t noise) { return plus(noise, larger(noise, ~noise) >> 4); }

// Squares, or magnitudes.
struct Squares {
  Cut cut;
  Cut units;
  static constexpr int32_t kCount = 254;

  ADAMX_INLINE float least() const { return number(cut.first); }
  ADAMX_INLINE int32_t encode(float x, int32_t noise) const {
    const int32_t code = cut.code(x + least(), noise);
    return larger(code, smaller(word(x), 1));  // positive numbers never have the code 0
  }
  ADAMX_INLINE int32_t within(int32_t code) const {
    return cut.beyond(code) ? kCount + 1 : smaller(code, kCount);
  }
  ADAMX_INLINE float decode(int32_t code) const {
    return code > kCount ? kNaN : cut.value(code) - least();
  }
};

// Means: a sign, and the size relative to a unit.
struct Means {
  int drop;
  int32_t count;
  int32_t minus_bit;

  ADAMX_INLINE int32_t encode(float mean, float unit, int32_t noise) const {
    const int32_t above =
        plus(minus(word(__builtin_fabsf(mean) + unit), word(unit)), right(noise, 32 - drop));
    return smaller(right(above, drop), count) | ((word(mean) >> 31) & minus_bit);
  }
  // `sign_bit` is the place of the sign in the code.
  ADAMX_INLINE float decode(int32_t code, float unit, int sign_bit) const {
    const float size = number(plus(left(code & count, drop), word(unit))) - unit;
    return number(word(size) | (left(code, 31 - sign_bit) & kSign));
  }
};

constexpr int32_t kPow2(int exponent) { return (127 + exponent) << 23; }  // the bits of 2^exponent

constexpr Means kMeans{19, 127, -128};
constexpr int32_t kMeansPart = kPow2(-5);
constexpr Means kAlone{21, 127, -128};
constexpr int32_t kAloneUnit = kPow2(-25);

constexpr Cut kSquaresCut{21, kPow2(-50)}, kSizesCut{20, kPow2(-23)};
constexpr Squares kSquares{kSquaresCut, kSquaresCut.roots().scaled(kMeansPart)};
constexpr Squares kMagnitudes{kSizesCut, kSizesCut.scaled(kMeansPart)};

// A mean without a square; minus zero is what is not finite.
ADAMX_INLINE int32_t encode_alone(float mean, int32_t noise) {
  const int32_t code = kAlone.encode(mean, number(kAloneUnit), noise);
  const bool finite = (word(mean) & INT32_MAX) < kInfinityBits;
  return finite ? (code == -128 ? 0 : code) : -128;
}
ADAMX_INLINE float decode_alone(int32_t code) {
  const float mean = kAlone.decode(code, number(kAloneUnit), 31);
  return code == -128 ? kNaN : mean;
}

// A square and a mean in one byte.
namespace pair {
constexpr Means kMeans{22, 7, 8};
constexpr int32_t kPart = kPow2(-3) | 0x400000;  // 1.5 * 2^-3
constexpr Cut kSquares{25, kPow2(-52)};
constexpr Cut kUnits = kSquares.roots().scaled(kPart);
constexpr int32_t kNotFinite = 255;

ADAMX_INLINE int32_t code(float square, int32_t noise) {
  const float least = number(kSquares.first);
  return kSquares.code(square < least ? least : square, noise);
}
ADAMX_INLINE int32_t join(int32_t square, int32_t mean) {
  const int32_t byte = left(smaller(square, 15), 4) | mean;
  return kSquares.beyond(square) ? kNotFinite : smaller(byte, kNotFinite - 1);
}
ADAMX_INLINE float square(int32_t byte) { return byte == 0 ? 0.0f : kSquares.value(byte >> 4); }
}  // namespace pair

}  // namespace adamx::ADAMX_UNITS
