// SPDX-License-Identifier: Apache-2.0
// A mesh of one process for tests of dataplane/host: delivers requests, keeps the answers, and plays the
// functions that guests call elsewhere. Single thread.
#ifndef WEFT_TESTS_DATAPLANE_HOST_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_HOST_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/host/host.h"

namespace weft::host {

// Where CMake puts the guests that it builds.
inline std::string GuestPath(const std::string& name) {
  return absl::StrCat(WEFT_GUEST_DIR, "/", name, ".wasm");
}

struct Answer {
  Status status = kUnknown;
  std::string bytes;
};

// How a function elsewhere behaves.
enum class Remote {
  kEcho,    // Its answer is there when Start() returns.
  kPolled,  // Its answer is found by PollBriefly().
  kLater,   // It is answered when the test says so.
  kRefuse,  // Fails at once.
};

class FakeMesh final : public CallsOut, public CallsIn, public GuestLog {
 public:
  struct Peer : Callee {
    std::string name;
    Remote remote;
    Function* local = nullptr;
    int users = 0;
  };

  void Serve(const std::string& name, Remote remote) {
    peers_.emplace_back();
    peers_.back().name = name;
    peers_.back().remote = remote;
  }
  void ServeLocal(const std::string& name, Function* function) {
    Serve(name, Remote::kRefuse);
    peers_.back().local = function;
  }
  void Attach(Host* host) { host_ = host; }
  int users(absl::string_view name) const {
    for (const Peer& peer : peers_) {
      if (peer.name == name) return peer.users;
    }
    return 0;
  }
  // Names that have been resolved and not been let go.
  int users() const {
    int sum = 0;
    for (const Peer& peer : peers_) sum += peer.users;
    return sum;
  }

  void Release(Callee& callee) override { --static_cast<Peer&>(callee).users; }
  absl::StatusOr<Callee*> Resolve(Function&, absl::string_view name) override {
    ++resolved;
    for (Peer& peer : peers_) {
      if (peer.name != name) continue;
      ++peer.users;
      return &peer;
    }
    return absl::NotFoundError("nobody serves it");
  }
  Function* EnterLocal(Callee& callee, CallContext& context, bool, Status* refusal) override {
    Function* local = static_cast<Peer&>(callee).local;
    if (local == nullptr) return nullptr;
    if (context.deadline_ns != 0 && NowNs() >= context.deadline_ns) {
      *refusal = kDeadlineExceeded;
      return nullptr;
    }
    ++local_in_flight;
    return local;
  }
  void LeaveLocal(Function&) override { --local_in_flight; }
  void Start(OutCall& call) override {
    contexts.push_back(call.context);
    Peer& peer = *static_cast<Peer*>(call.callee);
    // A copy of its own, as a channel would take.
    requests.emplace_back(reinterpret_cast<const char*>(call.request.data()), call.request.size());
    if (peer.remote == Remote::kEcho) Finish(call, kOk, requests.back());
    if (peer.remote == Remote::kRefuse) Finish(call, kPermissionDenied, "no rule allows it");
    if (peer.remote == Remote::kLater || peer.remote == Remote::kPolled)
      pending.push_back({&call, requests.back()});
  }
  void PollBriefly(OutCall& call) override {
    ++polls;
    for (size_t i = 0; i < pending.size(); ++i) {
      if (pending[i].first != &call) continue;
      if (static_cast<Peer*>(call.callee)->remote == Remote::kPolled) FinishPending(i);
      return;
    }
  }
  Status Send(Callee&, absl::Span<const std::byte> message, const CallContext&) override {
    sent.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
    return kOk;
  }
  void Cancel(OutCall& call) override {
    ++cancelled;
    std::erase_if(pending, [&](const auto& entry) { return entry.first == &call; });
  }
  void Expire(OutCall& call) override {
    std::erase_if(pending, [&](const auto& entry) { return entry.first == &call; });
    Finish(call, kDeadlineExceeded, "too late");
  }
  bool Reply(InCall& call, Status status, absl::Span<const std::byte> reply) override {
    replies[call.mesh] = {status, std::string(reinterpret_cast<const char*>(reply.data()), reply.size())};
    if (status == kOk && reply.size() > keep_above) kept = &call;
    return status != kOk || reply.size() <= keep_above;
  }
  void Line(absl::string_view function, uint32_t level, absl::string_view text) override {
    lines.push_back(absl::StrCat(function, " ", level, " ", text));
  }

  void Finish(OutCall& call, Status status, absl::string_view answer) {
    if (status != kOk) answer = answer.substr(0, call.room_bytes);
    std::byte* room = call.RoomFor(static_cast<uint32_t>(answer.size()));
    ASSERT_NE(room, nullptr);
    memcpy(room, answer.data(), answer.size());
    host_->Finish(call, status, static_cast<uint32_t>(answer.size()));
  }
  // Answers the oldest but `index` of the pending calls with its own request.
  void FinishPending(size_t index = 0) {
    auto [call, request] = pending[index];
    pending.erase(pending.begin() + static_cast<ptrdiff_t>(index));
    Finish(*call, kOk, request);
  }

  std::vector<std::pair<OutCall*, std::string>> pending;
  std::vector<std::string> requests, sent, lines;
  std::vector<CallContext> contexts;
  std::map<uintptr_t, Answer> replies;
  int resolved = 0, polls = 0, cancelled = 0, local_in_flight = 0;
  size_t keep_above = SIZE_MAX;  // Longer replies are read until ReplySent().
  InCall* kept = nullptr;

 private:
  std::deque<Peer> peers_;  // They keep their addresses.
  Host* host_ = nullptr;
};

// One engine for all tests of a program: it reserves terabytes of address space.
inline Engine& SharedEngine() {
  static std::unique_ptr<Engine> engine = *Engine::Create({.instances_max = 2500, .fibers_max = 2100});
  return *engine;
}

class HostTest : public ::testing::Test {
 protected:
  HostTest() : host_(SharedEngine(), {}, mesh_, mesh_, mesh_) { mesh_.Attach(&host_); }

  Function& Serve(const std::string& name, const std::string& guest, const FunctionOptions& options = {}) {
    absl::StatusOr<std::shared_ptr<const Module>> module =
        Module::LoadFile(SharedEngine(), GuestPath(guest), std::nullopt, nullptr);
    EXPECT_TRUE(module.ok()) << module.status();
    absl::StatusOr<Function*> function = host_.Add(name, *module, options);
    EXPECT_TRUE(function.ok()) << function.status();
    mesh_.ServeLocal(name, *function);
    return **function;
  }

  // Delivers a request; its number names it in mesh_.replies. Nullopt where it was refused.
  std::optional<uintptr_t> Deliver(Function& function, absl::string_view request,
                                   const CallContext& context = {}, bool one_way = false) {
    InCall* call =
        host_.Begin(function, static_cast<uint32_t>(request.size()), context, false, one_way, &refusal_);
    if (call == nullptr) return std::nullopt;
    call->mesh = ++last_;
    memcpy(call->room, request.data(), request.size());
    latest_ = call;
    host_.Run(call);
    return last_;
  }
  bool Answered(uintptr_t number) const { return mesh_.replies.contains(number); }
  // Runs the loop until `number` is answered; a minute without is a failure.
  Answer Await(uintptr_t number) {
    const uint64_t give_up_ns = NowNs() + 60 * kNsPerSecond;
    while (!Answered(number) && NowNs() < give_up_ns) host_.RunReady();
    EXPECT_TRUE(Answered(number));
    return mesh_.replies[number];
  }
  Answer Call(Function& function, absl::string_view request, const CallContext& context = {}) {
    std::optional<uintptr_t> number = Deliver(function, request, context);
    if (!number.has_value()) return {refusal_, "refused"};
    return Await(*number);
  }
  // Brings a leaf onto the plain path.
  void Promote(Function& function, absl::string_view request) {
    // A busy machine may interrupt a call for more than 100 us, which begins the trial anew.
    for (uint32_t i = 0; i < 100 * kTrialCalls && !function.plain(); ++i)
      ASSERT_EQ(Call(function, request).status, kOk);
    ASSERT_TRUE(function.plain());
  }

  FakeMesh mesh_;
  Host host_;
  Status refusal_ = kOk;
  InCall* latest_ = nullptr;
  uintptr_t last_ = 0;
};

// A request of test_tool: a command and its number.
inline std::string Tool(char command, uint32_t number = 0) {
  std::string request(5, command);
  memcpy(request.data() + 1, &number, sizeof number);
  return request;
}

// A request of test_caller.
inline std::string Caller(char command, uint8_t number, absl::string_view name, absl::string_view payload) {
  std::string request = {command, static_cast<char>(number)};
  absl::StrAppend(&request, name, absl::string_view("\0", 1), payload);
  return request;
}

template <typename T>
T As(const std::string& bytes) {
  T value = {};
  EXPECT_EQ(bytes.size(), sizeof value);
  memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

}  // namespace weft::host

#endif  // WEFT_TESTS_DATAPLANE_HOST_FIXTURE_H_
