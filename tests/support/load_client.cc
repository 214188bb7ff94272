// SPDX-License-Identifier: Apache-2.0
// Calls a function at a steady rate, open loop, or one call after the other, for the fault tests: each call
// has an id and a payload that follows from it, each answer is checked, and every end is written to the
// ledger. Prints one JSON object at its end.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/base/histogram.h"
#include "tests/support/ledger.h"
#include "tests/support/load_format.h"
#include "weft/client.h"

namespace weft::test {
namespace {

struct Options {
  std::string run_dir;
  std::string host;
  std::string call_as;
  std::string function;
  std::string ledger;
  std::string starts;
  uint32_t rate = 10'000;
  uint32_t bytes = 64;
  double seconds = 5;
  uint32_t timeout_ms = 1000;
  uint32_t first_id = 0;
  bool in_turn = false;
  bool await = false;
};

volatile sig_atomic_t stopped = 0;

class Load;

// One call under way; its buffers are borrowed by the library until it is done.
struct Slot {
  Load* load = nullptr;
  uint32_t id = 0;
  uint64_t intended_ns = 0;
  uint64_t started_ns = 0;
  std::vector<std::byte> request;
  std::vector<std::byte> response;
  Slot* next_free = nullptr;
};

class Load {
 public:
  Load(const Options& options, Client& client, Function function)
      : options_(options), client_(client), function_(function) {
    if (!options.starts.empty()) {
      starts_.reserve(static_cast<std::size_t>(options.rate * options.seconds));
    }
    if (!options.ledger.empty()) ledger_ = std::make_unique<Ledger>(options.ledger);
    slots_.resize(kSlots);
    for (Slot& slot : slots_) {
      slot.load = this;
      slot.request.resize(options.bytes);
      slot.response.resize(options.bytes);
      slot.next_free = free_;
      free_ = &slot;
    }
  }

  void Run() {
    const uint64_t begin_ns = NowNs();
    const auto count = static_cast<uint32_t>(options_.rate * options_.seconds);
    const double gap_ns = 1e9 / options_.rate;
    for (uint32_t i = 0; i < count && stopped == 0; ++i) {
      if (options_.in_turn) {
        Start(options_.first_id + i, NowNs());
        while (under_way_ > 0) client_.Wait(absl::Milliseconds(10));
        continue;
      }
      const uint64_t intended_ns = begin_ns + static_cast<uint64_t>(gap_ns * i);
      for (uint64_t now_ns = NowNs(); now_ns < intended_ns && stopped == 0; now_ns = NowNs()) {
        client_.Wait(absl::Nanoseconds(intended_ns - now_ns));
      }
      Start(options_.first_id + i, intended_ns);
    }
    while (under_way_ > 0) client_.Wait(absl::Milliseconds(10));
  }

  void Print(const Mesh& mesh) const {
    nlohmann::json out;
    out["started"] = started_;
    out["ok"] = ok_;
    out["wrong"] = wrong_;
    out["no_room"] = no_room_;
    out["codes"] = codes_;
    out["texts"] = texts_;
    out["failed_max_ns"] = failed_max_ns_;
    for (const auto& [tag, seen] : tags_) {
      out["tags"][std::to_string(tag)] = {
          {"ok", seen.ok}, {"first_start_ns", seen.first_start_ns}, {"last_start_ns", seen.last_start_ns}};
    }
    out["p50_ns"] = latency_.Quantile(0.5);
    out["p99_ns"] = latency_.Quantile(0.99);
    out["max_ns"] = latency_.max();
    for (const auto& [name, value] : mesh.Counters()) out["counters"][name] = value;
    std::printf("%s\n", out.dump().c_str());
  }
  // Writes when each call started and who answered it. False where the file cannot be written.
  bool WriteStarts() const {
    if (options_.starts.empty()) return true;
    std::ofstream file(options_.starts, std::ios::binary);
    file.write(reinterpret_cast<const char*>(starts_.data()),
               static_cast<std::streamsize>(starts_.size() * sizeof(LoadStart)));
    return file.good();
  }
  bool AllWell() const { return wrong_ == 0 && ok_ == started_; }

 private:
  static constexpr uint32_t kSlots = 4096;
  struct Tag {
    uint64_t ok = 0;
    uint64_t first_start_ns = 0;
    uint64_t last_start_ns = 0;
  };

  void Start(uint32_t id, uint64_t intended_ns) {
    while (free_ == nullptr) client_.Poll();
    Slot& slot = *free_;
    free_ = slot.next_free;
    slot.id = id;
    slot.intended_ns = intended_ns;
    WriteRequest(slot.request, id);
    CallOptions call;
    call.timeout = absl::Milliseconds(options_.timeout_ms);
    for (;;) {
      slot.started_ns = NowNs();
      absl::StatusOr<CallId> begun =
          client_.CallAsync(function_, slot.request, slot.response, &Load::Done, &slot, call);
      if (begun.ok()) break;
      if (begun.status().code() == absl::StatusCode::kResourceExhausted &&
          NowNs() - intended_ns < options_.timeout_ms * kNsPerMs) {
        ++no_room_;  // The ring is full: the library says so and takes nothing.
        client_.Poll();
        continue;
      }
      ++started_;
      End(slot, CallResult{begun.status().code(), 0, begun.status().message()});
      return;
    }
    ++started_;
    ++under_way_;
    client_.Flush();
  }

  static void Done(void* context, const CallResult& result) {
    Slot& slot = *static_cast<Slot*>(context);
    --slot.load->under_way_;
    slot.load->End(slot, result);
  }

  void End(Slot& slot, const CallResult& result) {
    const uint64_t now_ns = NowNs();
    if (result.ok()) {
      uint32_t tag = 0;
      if (CheckResponse({slot.response.data(), result.response_bytes}, options_.bytes, slot.id, &tag)) {
        ++ok_;
        Tag& seen = tags_[tag];
        if (seen.ok++ == 0) seen.first_start_ns = slot.started_ns;
        seen.last_start_ns = std::max(seen.last_start_ns, slot.started_ns);
        if (!options_.starts.empty()) starts_.push_back({slot.started_ns, slot.id, tag});
      } else {
        ++wrong_;
      }
      latency_.Record(now_ns - slot.intended_ns);
    } else {
      const std::string code = absl::StatusCodeToString(result.code);
      ++codes_[code];
      if (texts_[code].size() < 8) texts_[code].emplace(result.text);
      failed_max_ns_ = std::max(failed_max_ns_, now_ns - slot.started_ns);
    }
    if (ledger_ != nullptr)
      ledger_->End(slot.id, result.ok() ? Ledger::Outcome::kOk : Ledger::Outcome::kFailed);
    slot.next_free = free_;
    free_ = &slot;
  }

  const Options& options_;
  Client& client_;
  Function function_;
  std::unique_ptr<Ledger> ledger_;
  std::vector<Slot> slots_;
  Slot* free_ = nullptr;
  uint64_t under_way_ = 0;
  uint64_t started_ = 0;
  uint64_t ok_ = 0;
  uint64_t wrong_ = 0;
  uint64_t no_room_ = 0;
  uint64_t failed_max_ns_ = 0;
  std::map<std::string, uint64_t> codes_;
  std::map<std::string, std::set<std::string>> texts_;
  std::map<uint32_t, Tag> tags_;
  std::vector<LoadStart> starts_;
  Histogram latency_;
};

void Calling() {
  std::printf("calling\n");
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Calls a function at a steady rate and counts how each call ended.");
  app.add_option("--run-dir", options.run_dir)->required();
  app.add_option("--name", options.host, "attach as this host; empty: as a client");
  app.add_option("--as", options.call_as, "namespace to call as, through the admin socket");
  app.add_option("--function", options.function)->required();
  app.add_option("--ledger", options.ledger);
  app.add_option("--starts", options.starts, "file for the start and the tag of each call that succeeded");
  app.add_option("--rate", options.rate, "calls a second");
  app.add_option("--bytes", options.bytes)->check(CLI::Range(8u, 1u << 20));
  app.add_option("--seconds", options.seconds);
  app.add_option("--timeout-ms", options.timeout_ms);
  app.add_option("--first-id", options.first_id);
  app.add_flag("--in-turn", options.in_turn,
               "as many calls as --rate and --seconds say, one after the other");
  app.add_flag("--await", options.await, "says that it is calling while there is nobody yet to call");
  CLI11_PARSE(app, argc, argv);
  signal(SIGTERM, [](int) { stopped = 1; });

  MeshOptions attach;
  attach.run_dir = options.run_dir;
  attach.host = options.host;
  attach.call_as = options.call_as;
  attach.admin = !options.call_as.empty();
  absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(attach);
  absl::Status attached = mesh.ok() ? (*mesh)->Attach() : mesh.status();
  if (!attached.ok()) {
    std::fprintf(stderr, "attach: %s\n", attached.ToString().c_str());
    return 1;
  }
  Client client(**mesh);
  if (options.await) Calling();
  absl::StatusOr<Function> function = client.Resolve(options.function);
  while (options.await && !function.ok() && stopped == 0) {
    client.Wait(absl::Milliseconds(1));
    function = client.Resolve(options.function);
  }
  if (!function.ok()) {
    std::fprintf(stderr, "%s: %s\n", options.function.c_str(), function.status().ToString().c_str());
    return 1;
  }
  if (!options.await) Calling();
  Load load(options, client, *function);
  load.Run();
  load.Print(**mesh);
  if (!load.WriteStarts()) {
    std::fprintf(stderr, "cannot write %s\n", options.starts.c_str());
    return 1;
  }
  return load.AllWell() ? 0 : 3;
}

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) { return weft::test::Main(argc, argv); }
