// SPDX-License-Identifier: Apache-2.0
// The rules of optimizers/, on one element. Scalars are in the order of the Python formula's
// keyword arguments.
#pragma once

#include "bits.h"

namespace adamx::ADAMX_UNITS {

enum class Kind { kSigned, kNormalised, kSquared, kMaximum, kMagnitude };
constexpr bool is_signed(Kind kind) { return kind == Kind::kSigned || kind == Kind::kNormalised; }

// Every formula exists twice: `usual` leaves out what is rarely needed, so that it takes fewer
// instructions, and is chosen where `is_usual` holds. The results are the same.

// `b average + c x`, from the smaller weight, which has more digits.
template <bool usual>  // b >= c
struct Lerp {
  float b, c;

  ADAMX_INLINE float operator()(float average, float x) const {
    if (!usual && b < c) return fused(b, average - x, x);
    return fused(c, x - average, average);
  }
  ADAMX_INLINE float square(float average, float x) const {  // of x * x
    if (!usual && b < c) return fused(b, fused(-x, x, average), x * x);
    return fused(c, fused(x, x, -average), average);
  }
};

template <bool usual>  // eps > 0 and bottom >= 0
ADAMX_INLINE float ratio(float top, float bottom, float eps) {
  bottom += eps;
  return top / (!usual && bottom == 0 ? 1.0f : bottom);
}

ADAMX_INLINE float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }

template <bool usual>
struct Adam {
  static constexpr int kMoments = 2;
  static constexpr Kind kKinds[] = {Kind::kSigned, Kind::kSquared};
  static constexpr bool kPairs = true;
  Lerp<usual> first, second;
  float am, av, eps, eps_root, ag;

  explicit Adam(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, am(s[4]), av(s[5]), eps(s[6]), eps_root(s[7]),
        ag(s[8]) {}
  static bool is_usual(const float* s) {
    return s[0] >= s[1] && s[2] >= s[3] && s[6] > 0 && s[8] == 0;
  }
  ADAMX_INLINE float operator()(float g, float* m) const {
    m[0] = first(m[0], g);
    m[1] = second.square(m[1], g);
    const float top = usual || ag == 0 ? am * m[0] : fused(am, m[0], ag * g);
    return ratio<usual>(top, __builtin_sqrtf(fused(av, m[1], eps_root)), eps);
  }
};

template <bool usual>
struct AmsGrad {
  static constexpr int kMoments = 3;
  static constexpr Kind kKinds[] = {Kind::kSigned, Kind::kSquared, Kind::kMaximum};
  static constexpr bool kPairs = false;
  Lerp<usual> first, second;
  float am, before, after, eps, eps_root;

  explicit AmsGrad(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, am(s[4]), before(s[5]), after(s[6]), eps(s[7]),
        eps_root(s[8]) {}
  static bool is_usual(const float* s) { return s[0] >= s[1] && s[2] >= s[3] && s[7] > 0; }
  ADAMX_INLINE float operator()(float g, float* m) const {
    m[0] = first(m[0], g);
    m[1] = second.square(m[1], g);
    const float now = before * m[1];
    m[2] = now > m[2] || now != now ? now : m[2];
    return ratio<usual>(am * m[0], __builtin_sqrtf(fused(after, m[2], eps_root)), eps);
  }
};

template <bool usual>
struct Lion {
  static constexpr int kMoments = 1;
  static constexpr Kind kKinds[] = {Kind::kSigned};
  static constexpr bool kPairs = false;
  Lerp<usual> first, second;

  explicit Lion(const float* s) : first{s[0], s[1]}, second{s[2], s[3]} {}
  static bool is_usual(const float* s) { return s[0] >= s[1] && s[2] >= s[3]; }
  ADAMX_INLINE float operator()(float g, float* m) const {
    const float u = sign(first(m[0], g));
    m[0] = second(m[0], g);
    return u;
  }
};

}  // namespace adamx::ADAMX_UNITS
