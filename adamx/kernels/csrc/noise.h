// SPDX-License-Identifier: Apache-2.0
// Bits for stochastic rounding; the twin of core/random_bits.py.
#pragma once

#include "bits.h"
#include "work.h"

namespace adamx::ADAMX_UNITS {

constexpr uint32_t kDraws[5][2] = {
    {1u, 0x8CB92BA7u},          {0x9E3779B1u, 0x9E3779B9u}, {0x85EBCA77u, 0xC13FA9A9u},
    {0xC2B2AE3Du, 0x91E10DA5u}, {0x27D4EB2Fu, 0xD1B54A32u},
};
constexpr int kLandingDraw = 4;

constexpr uint32_t kFirstFactor = 0x85EBCA6Bu;

// The hash of an element, from its position plus the leaf's start, times kFirstFactor.
ADAMX_INLINE int32_t hashed(uint32_t product, uint32_t twist) {
  const uint32_t x = (product ^ (product >> 15) ^ twist) * 0xC2B2AE35u;
  return int32_t(x ^ (x >> 16));
}

// The 32 bits of draw `i` of an element at a step.
template <int i>
ADAMX_INLINE int32_t draw(int32_t hash, int32_t step) {
  return plus(times(hash, int32_t(kDraws[i][0])), times(step, int32_t(kDraws[i][1])));
}

}  // namespace adamx::ADAMX_UNITS
