// SPDX-License-Identifier: Apache-2.0
// The rules of optimizers/, on one element. Scalars are in the order of the Python formula's
// keyword arguments.
#pragma once

#include "bits.h"

namespace adamx::ADAMX_UNITS {

enum class Kind { kSigned, kNormalised, kSquared, kSpread, kMaximum, kMagnitude };
constexpr bool is_signed(Kind kind) { return kind == Kind::kSigned || kind == Kind::kNormalised; }

// The moments of a rule, in order.
template <Kind... kinds>
struct Moments {
  static constexpr int kCount = sizeof...(kinds);
  static constexpr Kind kKinds[] = {kinds...};

  static constexpr int find(Kind kind) {
    for (int k = 0; k < kCount; ++k)
      if (kKinds[k] == kind) return k;
    return -1;
  }
};

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

// The corrected mean; with Nesterov's momentum, `ag` is the weight of the gradient beside it.
template <bool usual>  // ag == 0
ADAMX_INLINE float mean(float am, float mu, float ag, float g) {
  return usual || ag == 0 ? am * mu : fused(am, mu, ag * g);
}

ADAMX_INLINE float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }

template <bool usual>
struct Adam {
  using Kinds = Moments<Kind::kSigned, Kind::kSquared>;
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
    const float top = mean<usual>(am, m[0], ag, g);
    return ratio<usual>(top, __builtin_sqrtf(fused(av, m[1], eps_root)), eps);
  }
};

// The arc tangent of top / bottom for bottom >= 0, to 2 units in the last place.
ADAMX_INLINE float atan2(float top, float bottom) {
  const float a = __builtin_fabsf(top), b = bottom == 0 ? 1.0f : bottom;
  const float q = (a > b ? b : a) / (a > b ? a : b), z = q * q;
  float sum = fused(0.0028340641874820f, z, -0.016005029901864f);  // a polynomial in q^2
  sum = fused(sum, z, 0.042587608098984f);
  sum = fused(sum, z, -0.074954457581043f);
  sum = fused(sum, z, 0.106367543339729f);
  sum = fused(sum, z, -0.142025709152222f);
  sum = fused(sum, z, 0.199924841523170f);
  sum = fused(sum, z, -0.333330661058426f);
  sum = fused(sum, z, 1.0f);
  const float angle = q * sum;
  return __builtin_copysignf(a > b ? 1.57079632679f - angle : angle, top);
}

template <bool usual>
struct AdamAtan2 {
  using Kinds = Moments<Kind::kSigned, Kind::kSquared>;
  Adam<false> adam;

  explicit AdamAtan2(const float* s) : adam(s) {}
  static bool is_usual(const float*) { return true; }
  ADAMX_INLINE float operator()(float g, float* m) const {
    m[0] = adam.first(m[0], g);
    m[1] = adam.second.square(m[1], g);
    const float top = mean<false>(adam.am, m[0], adam.ag, g);
    return atan2(top, __builtin_sqrtf(fused(adam.av, m[1], adam.eps_root)));
  }
};

template <bool usual>
struct AmsGrad {
  using Kinds = Moments<Kind::kSigned, Kind::kSquared, Kind::kMaximum>;
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
struct RAdam {
  using Kinds = Moments<Kind::kSigned, Kind::kSquared>;
  Lerp<usual> first, second;
  float am, av, adaptive, plain, eps, eps_root, ag;

  explicit RAdam(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, am(s[4]), av(s[5]), adaptive(s[6]), plain(s[7]),
        eps(s[8]), eps_root(s[9]), ag(s[10]) {}
  static bool is_usual(const float* s) {
    return s[0] >= s[1] && s[2] >= s[3] && s[8] > 0 && s[10] == 0;
  }
  ADAMX_INLINE float operator()(float g, float* m) const {
    m[0] = first(m[0], g);
    m[1] = second.square(m[1], g);
    const float top = mean<usual>(am, m[0], ag, g);
    const float root = __builtin_sqrtf(fused(av, m[1], eps_root));
    return ratio<usual>(top, fused(adaptive, root + eps, plain), 0);
  }
};

template <bool usual>
struct Adamax {
  using Kinds = Moments<Kind::kSigned, Kind::kMagnitude>;
  Lerp<usual> first, second;
  float am, eps;

  explicit Adamax(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, am(s[4]), eps(s[5]) {}
  static bool is_usual(const float* s) { return s[0] >= s[1] && s[2] >= s[3] && s[5] > 0; }
  ADAMX_INLINE float operator()(float g, float* m) const {
    m[0] = first(m[0], g);
    const float size = __builtin_fabsf(g) + eps, faded = second(m[1], 0);
    m[1] = faded > size || faded != faded ? faded : size;
    return ratio<usual>(am * m[0], m[1], 0);
  }
};

template <bool usual>
struct AdaBelief {
  using Kinds = Moments<Kind::kSigned, Kind::kSpread>;
  Lerp<usual> first, second;
  float am, av, eps, eps_root, ag;

  explicit AdaBelief(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, am(s[4]), av(s[5]), eps(s[6]), eps_root(s[7]),
        ag(s[8]) {}
  static bool is_usual(const float* s) {
    return s[0] >= s[1] && s[2] >= s[3] && s[6] > 0 && s[8] == 0;
  }
  ADAMX_INLINE float operator()(float g, float* m) const {
    const float surprise = first.b * (g - m[0]);
    m[0] = first(m[0], g);
    m[1] = second.square(m[1], surprise) + eps_root;
    const float top = mean<usual>(am, m[0], ag, g);
    return ratio<usual>(top, __builtin_sqrtf(av * m[1]), eps);
  }
};

template <bool usual>
struct Yogi {
  using Kinds = Moments<Kind::kSigned, Kind::kSquared>;
  Lerp<usual> first;
  float c2, am, av, eps, eps_root;

  explicit Yogi(const float* s)
      : first{s[0], s[1]}, c2(s[2]), am(s[3]), av(s[4]), eps(s[5]), eps_root(s[6]) {}
  static bool is_usual(const float* s) { return s[0] >= s[1] && s[5] > 0; }
  ADAMX_INLINE float operator()(float g, float* m) const {
    m[0] = first(m[0], g);
    m[1] = fused(-(c2 * sign(fused(-g, g, m[1]))), g * g, m[1]);
    return ratio<usual>(am * m[0], __builtin_sqrtf(fused(av, m[1], eps_root)), eps);
  }
};

template <bool usual>
struct Adopt {
  using Kinds = Moments<Kind::kNormalised, Kind::kSquared>;
  Lerp<usual> first, second;
  float eps, bound;

  explicit Adopt(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, eps(s[4]), bound(s[5]) {}
  static bool is_usual(const float* s) { return s[0] >= s[1] && s[2] >= s[3] && s[4] > 0; }
  ADAMX_INLINE float operator()(float g, float* m) const {
    const float root = __builtin_sqrtf(m[1]);
    float x = ratio<usual>(g, root > eps || root != root ? root : eps, 0);
    if (__builtin_fabsf(x) != kInfinity) x = x > bound ? bound : x < -bound ? -bound : x;
    m[0] = first(m[0], x);
    m[1] = second.square(m[1], g);
    return m[0];
  }
};

template <bool usual>
struct Adan {
  using Kinds = Moments<Kind::kSigned, Kind::kSigned, Kind::kSquared, Kind::kSigned>;
  Lerp<usual> first, second, third;
  float later, weight, am, av, an, eps, eps_root;

  explicit Adan(const float* s)
      : first{s[0], s[1]}, second{s[2], s[3]}, third{s[4], s[5]}, later(s[6]), weight(s[7]),
        am(s[8]), av(s[9]), an(s[10]), eps(s[11]), eps_root(s[12]) {}
  static bool is_usual(const float* s) {
    return s[0] >= s[1] && s[2] >= s[3] && s[4] >= s[5] && s[11] > 0;
  }
  ADAMX_INLINE float operator()(float g, float* m) const {
    const float difference = later > 0 ? g - m[3] : 0.0f;
    m[0] = first(m[0], g);
    m[1] = second(m[1], difference);
    m[2] = third.square(m[2], fused(weight, difference, g));
    m[3] = g;
    const float root = __builtin_sqrtf(fused(an, m[2], eps_root));
    return ratio<usual>(fused(am, m[0], av * m[1]), root, eps);
  }
};

template <bool usual>
struct Lion {
  using Kinds = Moments<Kind::kSigned>;
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
