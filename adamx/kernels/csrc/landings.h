// SPDX-License-Identifier: Apache-2.0
// How a float32 step is written into a parameter; the twin of landing/, for bfloat16.
#pragma once

#include "bits.h"
#include "noise.h"

namespace adamx::ADAMX_UNITS {

// A step downhill from a weight: the direction with its decay, times the rate, and the decay that
// comes after the rate. It is fused into the sum that takes it, as XLA's compiler does.
template <bool late>
struct Step {
  float rate, direction, late_decay, weight;

  ADAMX_INLINE float onto(float base) const {
    if constexpr (late) return base + fused(late_decay, weight, rate * direction);
    return fused(rate, direction, base);
  }
  ADAMX_INLINE float value() const {
    return late ? fused(late_decay, weight, rate * direction) : rate * direction;
  }
};

// A parameter that takes the step as it is.
struct Plain {
  using Parameter = float;
  using Remainder = float;  // unused
  static constexpr bool kDraws = false, kKeeps = false;

  ADAMX_INLINE static float weight(float p, float) { return p; }
  template <class Step>
  ADAMX_INLINE static float write(float, float w, float*, const Step& step, int32_t) {
    return step.onto(w);
  }
};

struct Nearest {
  using Parameter = uint16_t;
  using Remainder = uint16_t;  // unused
  static constexpr bool kDraws = false, kKeeps = false;

  ADAMX_INLINE static float weight(uint16_t p, uint16_t) { return from_bfloat16(p); }
  template <class Step>
  ADAMX_INLINE static uint16_t write(uint16_t, float w, uint16_t*, const Step& step, int32_t) {
    return to_bfloat16(step.onto(w));
  }
};

// As `Nearest`, where the update is a bfloat16 itself, as those of bfloat16 gradients are.
struct NearestTwice : Nearest {
  template <class Step>
  ADAMX_INLINE static uint16_t write(uint16_t, float w, uint16_t*, const Step& step, int32_t) {
    return to_bfloat16(w + from_bfloat16(to_bfloat16(step.value())));
  }
};

// The upper half of a word; that of a target which is no number is NaN.
ADAMX_INLINE uint16_t upper_half(int32_t found, float target) {
  return uint16_t((target != target ? word(kNaN) : found) >> 16);
}

// A weight is one word: its upper half is the parameter, `kKept` lower bits are the remainder.
template <class Integer, int kKept, bool draws>
struct Split {
  using Parameter = uint16_t;
  using Remainder = Integer;
  static constexpr bool kDraws = draws, kKeeps = kKept > 0;

  ADAMX_INLINE static float weight(uint16_t p, Integer r) {
    const float plain = from_bfloat16(p);
    if constexpr (kKept == 0) return plain;
    const float found = number(plus(left(p, 16), left(r, 16 - kKept)));
    return found != found ? plain : found;
  }
  template <class Step>
  ADAMX_INLINE static uint16_t write(uint16_t, float w, Integer* r, const Step& step,
                                     int32_t bits) {
    const float target = step.onto(w);
    int32_t found = word(target);
    if constexpr (draws) found = plus(found, right(bits, 16 + kKept));
    if constexpr (kKept > 0) {
      *r = Integer(found >> (16 - kKept));
      return upper_half(plus(found, 0x8000), target);  // to nearest, ties up in size
    }
    const int32_t most = 0x7F7FFFFF;  // chance alone makes no infinity
    const int32_t size = smaller(found & INT32_MAX, most) | (found & kSign);
    return upper_half(__builtin_fabsf(target) < kInfinity ? size : word(target), target);
  }
};

using Stochastic = Split<uint16_t, 0, true>;
using Exact = Split<int16_t, 16, false>;
using Compensated8 = Split<int8_t, 8, true>;

// The rounding error is added to the next step.
struct Kahan {
  using Parameter = uint16_t;
  using Remainder = uint16_t;
  static constexpr bool kDraws = true, kKeeps = true;

  // Clipped to half a unit in the last place of the parameter.
  ADAMX_INLINE static float missing(float p, uint16_t r) {
    const float most = __builtin_fabsf(p) * number(0x3B800000), found = from_bfloat16(r);
    return found > most ? most : found < -most ? -most : found;
  }
  ADAMX_INLINE static float weight(uint16_t p, uint16_t r) {
    return from_bfloat16(p) + missing(from_bfloat16(p), r);
  }
  template <class Step>
  ADAMX_INLINE static uint16_t write(uint16_t p, float, uint16_t* r, const Step& step,
                                     int32_t bits) {
    const float old = from_bfloat16(p), y = step.onto(missing(old, *r)), target = old + y;
    const int32_t next = plus(word(target), 0x8000) & ~0xFFFF;
    const float left = y - (number(next) - old);
    const float kept = __builtin_fabsf(left) < kInfinity ? left : 0.0f;
    *r = uint16_t(right(plus(word(kept), right(bits, 16)), 16));
    return upper_half(next, target);
  }
};

}  // namespace adamx::ADAMX_UNITS
