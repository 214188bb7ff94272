// SPDX-License-Identifier: Apache-2.0
// Two call layers joined by a real channel, each with a small loop that runs functions at once. For tests, on
// one thread (Turn) or with a thread an end (each calls its own side's Turn).
#ifndef WEFT_TESTS_DATAPLANE_CALL_CALL_PAIR_H_
#define WEFT_TESTS_DATAPLANE_CALL_CALL_PAIR_H_

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/call/call_core.h"
#include "dataplane/call/link_sink.h"
#include "tests/dataplane/channel/channel_pair.h"

namespace weft {

// How one call ended; `count` catches a second end.
struct Ended {
  int count = 0;
  absl::StatusCode code = absl::StatusCode::kUnknown;
  bool not_executed = false;
  std::string response;
  std::string text;

  static void Done(void* context, const CallOutcome& outcome) {
    auto& ended = *static_cast<Ended*>(context);
    ++ended.count;
    ended.code = outcome.code;
    ended.not_executed = outcome.not_executed;
    if (outcome.response != nullptr) {
      ended.response.assign(reinterpret_cast<const char*>(outcome.response), outcome.response_bytes);
    }
    ended.text = std::string(outcome.text);
  }
};

// One host: a call layer, and functions that run inside OnRequest.
struct TestHost {
  struct Request {
    Incoming incoming;
    std::string payload;
  };
  using Handler = std::function<void(TestHost&, const Request&)>;

  explicit TestHost(const CallCoreOptions& options = {}) : core(options) {}

  // --- Local, as LinkSink wants it.
  uint64_t NowNs() const { return now_ns; }
  std::byte* OnRequestBegin(const Incoming& incoming, uint32_t bytes) {
    if (refuse_requests) return nullptr;
    buffers[incoming.request_id] = std::make_unique<std::byte[]>(bytes + 1);
    return buffers[incoming.request_id].get();
  }
  void OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes) {
    Request request{incoming, std::string(reinterpret_cast<const char*>(payload), bytes)};
    buffers.erase(incoming.request_id);
    ++seen[incoming.request_id];
    if (handler) {
      handler(*this, request);
    } else {
      held.push_back(std::move(request));
    }
  }
  void OnRequestAbort(const Incoming& incoming, std::byte*) {
    buffers.erase(incoming.request_id);
    ++aborted;
  }
  void OnCancel(uint32_t, uint32_t request_id) { cancelled.push_back(request_id); }

  void Echo(const Request& request) { Answer(request, absl::StatusCode::kOk, request.payload); }
  void Answer(const Request& request, absl::StatusCode code, const std::string& payload) {
    core.Reply(request.incoming, code, BytesOf(payload));
  }

  // Polls every link once and publishes.
  int Turn() {
    int taken = 0;
    for (uint32_t i = 0; i < core.links_count(); ++i) {
      Link& link = *core.link(i);
      if (!link.channel) continue;
      LinkSink<TestHost> sink(core, *this, link);
      taken += link.channel->Poll(sink, 32);
      link.channel->ExpireStalled(now_ns, sink);
    }
    if (core.Busy()) core.Advance(now_ns);
    core.Publish();
    return taken;
  }

  CallCore core;
  uint64_t now_ns = kNsPerSecond;
  bool refuse_requests = false;
  Handler handler;
  std::map<uint32_t, std::unique_ptr<std::byte[]>> buffers;
  std::map<uint32_t, int> seen;
  std::deque<Request> held;
  std::vector<uint32_t> cancelled;
  int aborted = 0;
};

// Joins two hosts; their links are returned in order.
inline std::pair<Link*, Link*> Join(CallCore& a, CallCore& b, const ChannelOptions& options = {},
                                    const std::string& a_name = "a", const std::string& b_name = "b") {
  absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
  auto a_bell = std::make_unique<Doorbell>(*Doorbell::Create(std::move(bells->first)));
  auto b_bell = std::make_unique<Doorbell>(*Doorbell::Create(std::move(bells->second)));
  std::unique_ptr<Channel> a_channel = *Channel::Create(options);
  std::unique_ptr<Channel> b_channel = *Channel::Create(options);
  EXPECT_TRUE(a_channel->Connect(Duplicate(b_channel->memory_fd()), a_bell.get()).ok());
  EXPECT_TRUE(b_channel->Connect(Duplicate(a_channel->memory_fd()), b_bell.get()).ok());
  Link& a_link = a.AddLink(std::move(a_channel), std::move(a_bell), b_name);
  Link& b_link = b.AddLink(std::move(b_channel), std::move(b_bell), a_name);
  return {&a_link, &b_link};
}
inline std::pair<Link*, Link*> Join(TestHost& a, TestHost& b, const ChannelOptions& options = {},
                                    const std::string& a_name = "a", const std::string& b_name = "b") {
  return Join(a.core, b.core, options, a_name, b_name);
}

inline constexpr uint32_t kTestCaller = 5;

// One caller, one callee that serves test/echo to caller 5 ("test/caller").
struct CallPair {
  explicit CallPair(const CallCoreOptions& options = {}, const ChannelOptions& channel = {},
                    const Policy& policy = {})
      : caller(options), callee(options) {
    std::tie(out, in) = Join(caller, callee, channel);
    callee.core.set_host_name("b");
    function = &callee.core.Serve("test/echo", nullptr);
    callee.core.SetServePolicy("test/echo", policy);
    callee.core.SetAccess(*in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")}});
    route = &caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(*route, {{.link = out->index, .weight = 1, .caller_index = kTestCaller}}, policy,
                         absl::StatusCode::kOk, "");
    callee.handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
  }

  // The request is borrowed; a literal is kept.
  CallSpec Spec(const char* request, std::span<std::byte> response, Ended& ended) {
    return Spec(kept_requests.emplace_back(request), response, ended);
  }
  CallSpec Spec(const std::string& request, std::span<std::byte> response, Ended& ended) {
    CallSpec spec;
    spec.request = BytesOf(request);
    spec.response = response;
    spec.done = Ended::Done;
    spec.context = &ended;
    return spec;
  }
  StartState Start(const CallSpec& spec) {
    const StartState state = caller.core.Start(*route, spec, caller.now_ns, &handle);
    caller.core.Publish();
    return state;
  }
  void Turn(int turns = 1) {
    for (int i = 0; i < turns; ++i) {
      callee.Turn();
      caller.Turn();
    }
  }
  // Until nothing comes any more.
  void Settle() {
    while (callee.Turn() + caller.Turn() != 0) {
    }
  }
  void AtTime(uint64_t now_ns) { caller.now_ns = callee.now_ns = now_ns; }

  TestHost caller;
  TestHost callee;
  Link* out = nullptr;
  Link* in = nullptr;
  LocalFunction* function = nullptr;
  RouteEntry* route = nullptr;
  CallHandle handle;
  std::deque<std::string> kept_requests;
};

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CALL_CALL_PAIR_H_
