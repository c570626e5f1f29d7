// SPDX-License-Identifier: Apache-2.0
// The bits of floats, and the few operations that differ between processors.
#pragma once

#include <cstdint>

namespace adamx::ADAMX_UNITS {

#define ADAMX_INLINE inline __attribute__((always_inline))

ADAMX_INLINE int32_t word(float x) {
  int32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

ADAMX_INLINE float number(int32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// Sums wrap in codes and noise: signed overflow is undefined in C++, so they go through uint32.
ADAMX_INLINE int32_t plus(int32_t a, int32_t b) { return int32_t(uint32_t(a) + uint32_t(b)); }
ADAMX_INLINE int32_t minus(int32_t a, int32_t b) { return int32_t(uint32_t(a) - uint32_t(b)); }
ADAMX_INLINE int32_t times(int32_t a, int32_t b) { return int32_t(uint32_t(a) * uint32_t(b)); }
ADAMX_INLINE int32_t left(int32_t a, int by) { return int32_t(uint32_t(a) << by); }
ADAMX_INLINE int32_t right(int32_t a, int by) { return int32_t(uint32_t(a) >> by); }  // logical
ADAMX_INLINE int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }
ADAMX_INLINE int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

constexpr float kNaN = __builtin_nanf("");
constexpr float kInfinity = __builtin_inff();
constexpr int32_t kSign = INT32_MIN;
constexpr int32_t kInfinityBits = 0x7F800000;

// a * b + c, rounded once where the processor can. XLA's compiler does so too.
ADAMX_INLINE float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// bfloat16 is the upper half of a float32.
ADAMX_INLINE float from_bfloat16(uint16_t x) { return number(left(x, 16)); }

ADAMX_INLINE uint16_t to_bfloat16(float x) {  // to nearest, ties to even
  const int32_t w = word(x);
  const int32_t rounded = plus(w, 0x7FFF + ((w >> 16) & 1));
  return uint16_t((x != x ? (w | 0x400000) : rounded) >> 16);
}

}  // namespace adamx::ADAMX_UNITS
