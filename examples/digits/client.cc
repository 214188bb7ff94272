// SPDX-License-Identifier: Apache-2.0
// Drives the digits example from a native process: `check` sends every held-out image through the chain of
// functions and compares each answer with the native reference; `load` does the same as long as told, at a
// steady rate, open loop, or one image after the other. Exits 1 where any call failed or answered wrongly.
#include "weft/client.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/base/histogram.h"
#include "examples/digits/images.h"

namespace weft::digits {
namespace {

struct Options {
  std::string run_dir = "/run/weft";
  std::string images = WEFT_DIGITS_DATA;
  uint32_t rate = 10'000;
  double seconds = 5;
};

struct Sample {
  Image image;
  digits_answer expected;
};

struct Slot;

// Sends images and judges the answers.
class Driver {
 public:
  Driver(Client& client, Function function, std::vector<Sample> samples)
      : client_(client), function_(function), samples_(std::move(samples)) {}

  void Check();
  void InTurn(double seconds);
  void Load(uint32_t rate, double seconds);
  // Prints what it came to; false where anything was wrong.
  bool Report(bool accuracy) const;

 private:
  friend struct Slot;
  void Judge(const Sample& sample, const CallResult& result, std::span<const std::byte> response,
             uint64_t from_ns);
  void CallOnce(const Sample& sample, uint64_t begin_ns);

  Client& client_;
  Function function_;
  std::vector<Sample> samples_;
  uint64_t made_ = 0;
  uint64_t failed_ = 0;
  uint64_t wrong_ = 0;
  uint64_t read_right_ = 0;
  std::map<std::string, uint64_t> failures_;
  Histogram latency_;
};

// A channel takes 96 requests before it refuses more. Where a busy machine stops a host for longer than that
// lasts, what is due waits here, and its latency, which counts from the intended start, tells so.
constexpr std::size_t kUnderWayMax = 64;

// One call under way.
struct Slot {
  Driver* driver = nullptr;
  const Sample* sample = nullptr;
  uint64_t intended_ns = 0;
  std::byte response[sizeof(digits_answer)];
  Slot* next_free = nullptr;
  Slot** free = nullptr;
  uint32_t* under_way = nullptr;

  static void Done(void* context, const CallResult& result) {
    Slot& slot = *static_cast<Slot*>(context);
    slot.driver->Judge(*slot.sample, result, {slot.response, result.response_bytes}, slot.intended_ns);
    slot.next_free = *slot.free;
    *slot.free = &slot;
    --*slot.under_way;
  }
};

void Driver::Judge(const Sample& sample, const CallResult& result, std::span<const std::byte> response,
                   uint64_t from_ns) {
  latency_.Record(NowNs() - from_ns);
  if (!result.ok()) {
    ++failed_;
    ++failures_[result.status().ToString()];
    return;
  }
  digits_answer answer{};
  if (response.size() == sizeof(answer)) std::memcpy(&answer, response.data(), sizeof(answer));
  const bool right = response.size() == sizeof(answer) && answer.digit == sample.expected.digit &&
                     answer.count > 0 &&
                     std::memcmp(answer.scores, sample.expected.scores, sizeof(answer.scores)) == 0;
  wrong_ += !right;
  read_right_ += answer.digit == static_cast<uint32_t>(sample.image.digit);
}

void Driver::CallOnce(const Sample& sample, uint64_t begin_ns) {
  std::byte response[sizeof(digits_answer)];
  absl::StatusOr<std::size_t> bytes =
      client_.Call(function_, std::as_bytes(std::span(sample.image.pixels)), response);
  ++made_;
  CallResult result;
  if (!bytes.ok()) result = CallResult{bytes.status().code(), 0, bytes.status().message()};
  Judge(sample, result, {response, bytes.ok() ? *bytes : 0}, begin_ns);
}

void Driver::Check() {
  for (const Sample& sample : samples_) CallOnce(sample, NowNs());
}

void Driver::InTurn(double seconds) {
  const uint64_t end_ns = NowNs() + static_cast<uint64_t>(seconds * kNsPerSecond);
  for (uint64_t i = 0, now_ns = NowNs(); now_ns < end_ns; ++i, now_ns = NowNs()) {
    CallOnce(samples_[i % samples_.size()], now_ns);
  }
}

void Driver::Load(uint32_t rate, double seconds) {
  std::vector<Slot> slots(kUnderWayMax);
  Slot* free = nullptr;
  uint32_t under_way = 0;
  for (Slot& slot : slots) {
    slot.driver = this;
    slot.free = &free;
    slot.under_way = &under_way;
    slot.next_free = free;
    free = &slot;
  }
  const uint64_t begin_ns = NowNs();
  const auto count = static_cast<uint64_t>(rate * seconds);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t intended_ns = begin_ns + i * kNsPerSecond / rate;
    // Waits as any good neighbour does: it polls, yields and sleeps, so that hosts find a core.
    for (uint64_t now_ns = NowNs(); now_ns < intended_ns || free == nullptr; now_ns = NowNs()) {
      client_.Wait(absl::Nanoseconds(now_ns < intended_ns ? intended_ns - now_ns : kNsPerMs));
    }
    Slot& slot = *free;
    free = slot.next_free;
    slot.sample = &samples_[i % samples_.size()];
    slot.intended_ns = intended_ns;
    ++made_;
    ++under_way;
    const auto pixels = std::as_bytes(std::span(slot.sample->image.pixels));
    absl::StatusOr<CallId> begun = client_.CallAsync(function_, pixels, slot.response, &Slot::Done, &slot);
    if (!begun.ok()) Slot::Done(&slot, CallResult{begun.status().code(), 0, begun.status().message()});
    client_.Flush();
  }
  while (under_way > 0) client_.Wait(absl::Milliseconds(10));
}

bool Driver::Report(bool accuracy) const {
  if (accuracy) {
    std::printf("accuracy         %5.1f %%  (%lu of %zu images read right)\n",
                100.0 * static_cast<double>(read_right_) / static_cast<double>(samples_.size()),
                static_cast<unsigned long>(read_right_), samples_.size());
  }
  std::printf("calls made     %8lu\ncalls failed   %8lu\nanswers that differ from the native reference %lu\n",
              static_cast<unsigned long>(made_), static_cast<unsigned long>(failed_),
              static_cast<unsigned long>(wrong_));
  std::printf(
      "latency of the chain, from the intended start: p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f us\n",
      static_cast<double>(latency_.Quantile(0.5)) / 1e3, static_cast<double>(latency_.Quantile(0.99)) / 1e3,
      static_cast<double>(latency_.Quantile(0.999)) / 1e3, static_cast<double>(latency_.max()) / 1e3);
  for (const auto& [text, count] : failures_) {
    std::printf("  %lu x %s\n", static_cast<unsigned long>(count), text.c_str());
  }
  return failed_ == 0 && wrong_ == 0 && made_ > 0;
}

int Run(const Options& options, bool check) {
  absl::StatusOr<std::vector<Image>> images = LoadImages(options.images);
  if (!images.ok()) {
    std::fprintf(stderr, "digits-client: %s\n", images.status().ToString().c_str());
    return 1;
  }
  std::vector<Sample> samples;
  for (std::size_t i = kTrainingImages; i < images->size(); ++i) {
    samples.push_back({(*images)[i], ReferenceAnswer((*images)[i])});
  }
  MeshOptions attach;
  attach.run_dir = options.run_dir;
  attach.call_as = "vision";
  attach.admin = true;
  absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(attach);
  absl::Status status = mesh.ok() ? (*mesh)->Attach() : mesh.status();
  if (!status.ok()) {
    std::fprintf(stderr, "digits-client: attach: %s\n", status.ToString().c_str());
    return 1;
  }
  Client client(**mesh);
  absl::StatusOr<Function> scale = client.Resolve("vision/scale");
  if (!scale.ok()) {
    std::fprintf(stderr, "digits-client: vision/scale: %s\n", scale.status().ToString().c_str());
    return 1;
  }
  Driver driver(client, *scale, std::move(samples));
  if (check) {
    driver.Check();
  } else if (options.rate == 0) {
    driver.InTurn(options.seconds);
  } else {
    driver.Load(options.rate, options.seconds);
  }
  return driver.Report(check) ? 0 : 1;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Sends the held-out images of the digits example through vision/scale and checks every answer.");
  app.require_subcommand(1);
  CLI::App* check = app.add_subcommand("check", "every held-out image once, one after the other");
  CLI::App* load = app.add_subcommand("load", "at a steady rate, open loop, or one after the other");
  for (CLI::App* command : {check, load}) {
    command->add_option("--run-dir", options.run_dir, "directory of weftd's sockets")->capture_default_str();
    command->add_option("--images", options.images, "digits.csv.gz");
  }
  load->add_option("--rate", options.rate, "calls a second; 0: each once the one before is answered")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  load->add_option("--seconds", options.seconds)->check(CLI::Range(0.1, 3600.0))->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Run(options, check->parsed());
}

}  // namespace
}  // namespace weft::digits

int main(int argc, char** argv) { return weft::digits::Main(argc, argv); }
