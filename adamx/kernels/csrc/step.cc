// SPDX-License-Identifier: Apache-2.0
// The two custom calls: a leaf's direction and moments, and its whole step. Checks every array
// against what the loops will read and write, then shares the loops out over XLA's own threads.
//
// Operands: the parameter and its remainder (whole steps only, if there are any), the moments, the
// gradient, the scalars, the numbers of the noise. Results: the direction or the parameter and its remainder, the
// moments. A result may be the very array of its operand.

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "work.h"
#include "xla/ffi/api/ffi.h"

namespace adamx {
namespace ffi = xla::ffi;
namespace {

using ffi::DataType;

// The loops for the best vector units that this processor has.
Loops best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return avx512_loops();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_loops();
#endif
  return baseline_loops();
}

const Loops& loops() {
  static const Loops found = best();
  return found;
}

// Elements are shared out in pieces. The caller works too and takes what is left, so that it ends
// even if no thread of the pool ever comes.
constexpr int64_t kPiece = 1 << 15;

struct Shared {
  Work work;
  int64_t pieces;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable all_done;

  void run() {
    for (int64_t i; (i = next.fetch_add(1)) < pieces;) {
      const int64_t begin = i * kPiece, rest = work.size - begin;
      loops().span(work, begin, begin + (rest < kPiece ? rest : kPiece));
      if (done.fetch_add(1) + 1 == pieces) {
        const std::lock_guard<std::mutex> lock(mutex);
        all_done.notify_all();
      }
    }
  }
};

void run(const Work& work, ffi::ThreadPool& pool) {
  const int64_t pieces = (work.size + kPiece - 1) / kPiece;
  const int64_t threads = pieces > 1 ? pool.num_threads() : 1;
  if (threads <= 1) return loops().span(work, 0, work.size);
  auto shared = std::make_shared<Shared>();
  shared->work = work, shared->pieces = pieces;
  for (int64_t i = 1; i < threads && i < pieces; ++i) pool.Schedule([shared] { shared->run(); });
  shared->run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done.load() == pieces; });
}

// The dtype in which a storage keeps a mean, or another moment.
DataType dtype_of(Storage storage, bool is_mean) {
  switch (storage) {
    case kFloat32: return DataType::F32;
    case kBFloat16: return DataType::BF16;
    case kBFloat16Mean: return is_mean ? DataType::BF16 : DataType::F32;
    case kBFloat16Square: return is_mean ? DataType::F32 : DataType::BF16;
    case kInt8: return is_mean ? DataType::S8 : DataType::U8;
    default: return DataType::U8;
  }
}

DataType remainder_dtype(Landing landing) {
  switch (landing) {
    case kExact: return DataType::S16;
    case kCompensated8: return DataType::S8;
    case kKahan: return DataType::BF16;
    default: return DataType::INVALID;
  }
}

ffi::Error wrong(const std::string& what) {
  return ffi::Error::InvalidArgument("adamx: " + what + " does not fit the kernel");
}

// Takes operands and results one after the other, each of the expected dtype and size; one that
// does not fit is not taken.
class Taker {
 public:
  Taker(ffi::RemainingArgs args, ffi::RemainingRets rets) : args_(args), rets_(rets) {}

  bool operand(DataType dtype, int64_t size, const void** data) {
    auto found = args_.get<ffi::AnyBuffer>(operands_);
    if (!found.has_value() || !fits(*found, dtype, size)) return false;
    *data = found->untyped_data();
    return ++operands_;
  }
  template <class T>
  bool result(DataType dtype, int64_t size, T** data) {
    auto found = rets_.get<ffi::AnyBuffer>(results_);
    if (!found.has_value() || !fits(**found, dtype, size)) return false;
    *data = static_cast<T*>((*found)->untyped_data());
    return ++results_;
  }
  bool ended() const { return operands_ == args_.size() && results_ == rets_.size(); }

 private:
  static bool fits(const ffi::AnyBuffer& buffer, DataType dtype, int64_t size) {
    return buffer.element_type() == dtype && int64_t(buffer.element_count()) == size;
  }

  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  size_t operands_ = 0, results_ = 0;
};

using Integers = ffi::Span<const int64_t>;
constexpr int kNumbers = 7;  // the first position; start, twist and step of storage and landing

// Positions in the whole array: `whole` is its shape, empty where the leaf is whole.
bool positions(ffi::AnyBuffer::Dimensions size, Integers whole, uint32_t first, Positions* at) {
  const int64_t rank = whole.size();
  if (rank == 0) {
    int64_t all = 1;
    for (int64_t n : size) all *= n;
    *at = {1, {all}, {1}, first};
    return true;
  }
  if (rank > kMaxDims || rank != int64_t(size.size())) return false;
  *at = {int(rank), {}, {}, first};
  uint32_t stride = 1;
  for (int64_t d = rank - 1; d >= 0; --d) {
    at->size[d] = size[d], at->stride[d] = stride;
    stride *= uint32_t(whole[d]);
  }
  return true;
}

ffi::Error advance(bool steps, ffi::ThreadPool pool, ffi::RemainingArgs args,
                   ffi::RemainingRets rets, int32_t rule, int32_t storage, int32_t landing,
                   int32_t decay, int32_t scales, Integers whole) {
  if (rule < 0 || rule >= kRules || storage < 0 || storage >= kStorages || landing < 0 ||
      landing >= kLandings || decay < 0 || decay >= kDecays)
    return wrong("an attribute");
  const RuleTraits& traits = loops().rules[rule];
  if (!traits.fits[storage]) return wrong("the storage");

  Work work{};
  work.rule = Rule(rule), work.storage = Storage(storage), work.landing = Landing(landing);
  work.decay = Decay(decay), work.scales_gradient = scales;
  const int moments = storage == kInt4 ? 1 : traits.moments;

  Taker take(args, rets);
  auto first = args.get<ffi::AnyBuffer>(0);
  if (!first.has_value()) return wrong("the first operand");
  const auto size = first->dimensions();
  work.size = first->element_count();
  const DataType remainder = remainder_dtype(work.landing);
  if (steps) {
    const DataType dtype = landing == kPlain ? DataType::F32 : DataType::BF16;
    if (!take.operand(dtype, work.size, &work.parameter)) return wrong("the parameter");
    if (remainder != DataType::INVALID && !take.operand(remainder, work.size, &work.remainder))
      return wrong("the remainder");
    if (!take.result(dtype, work.size, &work.next_parameter) ||
        (remainder != DataType::INVALID &&
         !take.result(remainder, work.size, &work.next_remainder)))
      return wrong("the next parameter");
  } else if (!take.result(DataType::F32, work.size, &work.direction)) {
    return wrong("the direction");
  }
  for (int k = 0; k < moments; ++k) {
    const DataType dtype = dtype_of(work.storage, traits.is_mean[k]);
    if (!take.operand(dtype, work.size, &work.moments[k]) ||
        !take.result(dtype, work.size, &work.next_moments[k]))
      return wrong("a moment");
  }
  work.gradient_is_bfloat16 = !take.operand(DataType::F32, work.size, &work.gradient);
  if (work.gradient_is_bfloat16 && !take.operand(DataType::BF16, work.size, &work.gradient))
    return wrong("the gradient");
  const void *scalars, *numbers[kNumbers];
  if (!take.operand(DataType::F32, kMaxScalars, &scalars)) return wrong("the scalars");
  uint32_t found[kNumbers];
  for (int i = 0; i < kNumbers; ++i) {
    if (!take.operand(DataType::U32, 1, &numbers[i])) return wrong("a number of the noise");
    std::memcpy(&found[i], numbers[i], sizeof found[i]);
  }
  if (!take.ended()) return wrong("the number of arrays");

  // The last of the scalars are the step's own.
  std::memcpy(work.scalars, scalars, sizeof work.scalars);
  const float* own = work.scalars + kMaxScalars - 4;
  work.rate = own[0], work.strength = own[1];
  work.gradient_scales[0] = own[2], work.gradient_scales[1] = own[3];
  work.words = {found[1], found[2], int32_t(found[3])};
  work.landing_words = {found[4], found[5], int32_t(found[6])};
  if (!positions(size, whole, found[0], &work.positions)) return wrong("the shape");

  if (work.size > 0) run(work, pool);
  return ffi::Error::Success();
}

ffi::Error direction(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                     int32_t rule, int32_t storage, int32_t landing, int32_t decay, int32_t scales,
                     Integers whole) {
  return advance(false, pool, args, rets, rule, storage, landing, decay, scales, whole);
}

ffi::Error step(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                int32_t rule, int32_t storage, int32_t landing, int32_t decay, int32_t scales,
                Integers whole) {
  return advance(true, pool, args, rets, rule, storage, landing, decay, scales, whole);
}

auto binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int32_t>("rule")
      .Attr<int32_t>("storage")
      .Attr<int32_t>("landing")
      .Attr<int32_t>("decay")
      .Attr<int32_t>("scales")
      .Attr<Integers>("whole");
}

}  // namespace
}  // namespace adamx

extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* AdamxDirection(XLA_FFI_CallFrame*);
extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* AdamxStep(XLA_FFI_CallFrame*);

XLA_FFI_DEFINE_HANDLER_SYMBOL(AdamxDirection, adamx::direction, adamx::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(AdamxStep, adamx::step, adamx::binding());

extern "C" __attribute__((visibility("default"))) int AdamxFfiVersion() {
  return XLA_FFI_API_MINOR;
}
