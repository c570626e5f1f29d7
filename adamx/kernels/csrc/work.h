// SPDX-License-Identifier: Apache-2.0
// One leaf's step, as the loops see it, and the table of the loops.
#pragma once

#include <cstdint>

namespace adamx {

constexpr int kMaxMoments = 4;
constexpr int kMaxDims = 8;
constexpr int kMaxScalars = 20;

// Identifies the random bits of one leaf at one step.
struct Words {
  uint32_t start;
  uint32_t twist;
  int32_t step;
};

// Where the elements are in the whole array, of which the leaf may be a shard.
struct Positions {
  int dims;                   // 1 where the leaf lies in one piece
  int64_t size[kMaxDims];     // of the leaf
  uint32_t stride[kMaxDims];  // of the whole array
  uint32_t first;             // of the first element
};

enum Rule {
  kAdam,
  kAdamAtan2,
  kAmsGrad,
  kRAdam,
  kAdamax,
  kAdaBelief,
  kYogi,
  kLion,
  kAdopt,
  kAdan,
  kRules
};
enum Storage { kFloat32, kBFloat16, kBFloat16Mean, kBFloat16Square, kInt8, kInt4, kStorages };
enum Landing {
  kPlain,
  kNearest,
  kNearestTwice,
  kStochastic,
  kExact,
  kCompensated8,
  kKahan,
  kLandings
};
enum Decay { kNone, kBeforeRate, kAfterRate, kDecays };

struct Work {
  int64_t size;
  Rule rule;
  Storage storage;

  const void* gradient;
  bool gradient_is_bfloat16;
  bool scales_gradient;
  float gradient_scales[2];  // one after the other

  const void* moments[kMaxMoments];
  void* next_moments[kMaxMoments];
  float scalars[kMaxScalars];
  Words words;
  Positions positions;

  float* direction;  // null for a whole step, which is described below

  Landing landing;
  const void* parameter;
  void* next_parameter;
  const void* remainder;
  void* next_remainder;
  Words landing_words;
  float rate;  // minus the learning rate
  Decay decay;
  float strength;  // times the weight, added to the direction or to the step
};

struct RuleTraits {
  int moments;
  bool is_mean[kMaxMoments];
  bool fits[kStorages];
};

// The loops of one set of vector units.
struct Loops {
  const RuleTraits* rules;
  void (*span)(const Work&, int64_t begin, int64_t end);  // steps these elements
};

Loops baseline_loops();
Loops avx2_loops();
Loops avx512_loops();

}  // namespace adamx
