// SPDX-License-Identifier: Apache-2.0
// Serves functions of the mesh from a native process.
//
//   auto mesh = weft::Mesh::Create({.host = "echo-1"});
//   weft::Server server(**mesh);
//   server.Register("demo/echo", [](weft::ServerCall& call) { call.Reply(call.request()); });
//   (*mesh)->Attach();
//   server.Run();
//
// A handler runs on the thread that is inside the library (Run, or a Call that waits) and answers by Reply or
// ReplyError, at once or, after Defer, later. Requests that the caller may not make, that come too late or
// above the function's limits are answered or dropped before any handler sees them, and counted.
//
// Nesting. A handler may call other functions and wait; while it waits, further requests are handled on top
// of it, to a depth of kNestingMax handlers and callbacks of this process. A request beyond that is refused
// with RESOURCE_EXHAUSTED before it runs, rather than queued: what is at the bottom may be waiting for it,
// and two functions that call each other without end must find an end. A handler that waits ends no sooner
// than those on top of it. A callback of a call (weft/client.h) may wait in the same way; one beyond that
// depth runs, but a call by which it would wait is refused, and not sent.
#ifndef WEFT_SERVER_H_
#define WEFT_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "dataplane/call/link.h"
#include "dataplane/call/trace_context.h"
#include "weft/mesh.h"

namespace weft {

inline constexpr int kNestingMax = 64;

// Answers a call after its handler has returned. Move-only; one that is destroyed unanswered answers
// INTERNAL. Used on the thread that uses the Mesh, and ended before it; those that handlers or callbacks hold
// end with it.
class DeferredCall {
 public:
  DeferredCall() = default;
  DeferredCall(MeshImpl* mesh, const Incoming& incoming) : mesh_(mesh), incoming_(incoming) {}
  DeferredCall(DeferredCall&& other) noexcept
      : mesh_(std::exchange(other.mesh_, nullptr)), incoming_(other.incoming_) {}
  DeferredCall& operator=(DeferredCall&& other) noexcept;
  ~DeferredCall();

  bool valid() const { return mesh_ != nullptr; }
  // The caller gave up: nobody reads the reply any more.
  bool cancelled() const;
  uint64_t deadline_ns() const { return incoming_.deadline_ns; }
  // Copies `response` before it returns. One longer than messages may be becomes RESOURCE_EXHAUSTED at the
  // caller.
  void Reply(std::span<const std::byte> response);
  void ReplyError(const absl::Status& status);

 private:
  MeshImpl* mesh_ = nullptr;
  Incoming incoming_;
};

// The call that a handler serves; lives until the handler returns.
class ServerCall {
 public:
  ServerCall(MeshImpl& mesh, const Incoming& incoming, std::span<const std::byte> payload);
  ServerCall(const ServerCall&) = delete;
  ServerCall& operator=(const ServerCall&) = delete;

  // A private copy: nobody else can change it. Dies with the handler, also where the call is deferred.
  std::span<const std::byte> request() const { return request_; }
  absl::string_view request_text() const {
    return {reinterpret_cast<const char*>(request_.data()), request_.size()};
  }
  const std::string& function() const { return incoming_.function->name; }
  // The function or namespace that calls, as the agent vouches for it.
  const std::string& caller() const { return *incoming_.caller; }
  // CLOCK_MONOTONIC ns; 0: none. Calls that the handler makes inherit it.
  uint64_t deadline_ns() const { return incoming_.deadline_ns; }
  bool one_way() const { return incoming_.one_way(); }
  uint32_t request_id() const { return incoming_.request_id; }
  // Carried to calls that the handler makes, unless they bring their own.
  const std::optional<TraceContext>& trace() const { return trace_; }
  // Nobody waits for the reply any more.
  bool cancelled() const;

  // One of the three, once; where none was called, the call ends with INTERNAL (a one-way just ends). See
  // DeferredCall.
  void Reply(std::span<const std::byte> response);
  void Reply(absl::string_view response) {
    Reply(std::as_bytes(std::span(response.data(), response.size())));
  }
  void ReplyError(const absl::Status& status);
  DeferredCall Defer();

 private:
  friend class MeshImpl;

  MeshImpl& mesh_;
  const Incoming& incoming_;
  std::span<const std::byte> request_;
  std::optional<TraceContext> trace_;
  ServerCall* outer_ = nullptr;  // The handler below this one on the stack.
  bool answered_ = false;
  bool cancelled_ = false;
};

class Server {
 public:
  // `mesh` outlives the server.
  explicit Server(Mesh& mesh);

  // Serves `name` with `handler`, callable as void(ServerCall&), from Attach on, or from now on where
  // attached. The agent's configuration must allow it. INVALID_ARGUMENT: not a name; ALREADY_EXISTS.
  template <class Handler>
  absl::Status Register(absl::string_view name, Handler handler) {
    auto held = std::make_shared<Handler>(std::move(handler));
    Handler* const raw = held.get();
    return RegisterRaw(
        name, [](void* state, ServerCall& call) { (*static_cast<Handler*>(state))(call); }, raw,
        std::move(held));
  }
  // Without a holder of its own: `state` outlives the Mesh, or `holder` keeps it.
  using RawHandler = void (*)(void* state, ServerCall& call);
  absl::Status RegisterRaw(absl::string_view name, RawHandler handler, void* state,
                           std::shared_ptr<void> holder = nullptr);

  // Handles calls until Stop, or until the agent has drained this host: then all that came in has been
  // answered. Blocks; sleeps while there is nothing to do.
  absl::Status Run();
  // Makes Run return once the handlers that run have returned. Any thread, and signal handlers.
  void Stop();

 private:
  MeshImpl& impl_;
};

}  // namespace weft

#endif  // WEFT_SERVER_H_
