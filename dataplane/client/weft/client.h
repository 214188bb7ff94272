// SPDX-License-Identifier: Apache-2.0
// Calls functions of the mesh by name: synchronously, with callbacks, in batches, and one-way.
//
//   auto mesh = weft::Mesh::Create({});
//   (*mesh)->Attach();
//   weft::Client client(**mesh);
//   auto echo = client.Resolve("demo/echo");
//   std::byte response[64];
//   absl::StatusOr<std::size_t> bytes = client.Call(*echo, request, response);
//
// Errors. A call ends with a gRPC status: that of the function, or, from the mesh: PERMISSION_DENIED (no rule
// allows it; the text names caller, callee and the missing rule), NOT_FOUND (no such function), UNAVAILABLE
// (no host serves it now, or its host died while the call was there), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED
// (a limit of the callee's policy, or a full queue, or a response longer than its buffer), INVALID_ARGUMENT
// (a request longer than messages may be), CANCELLED. A call that was surely not executed is tried again as
// often as the function's policy says, within its deadline; one that may have been is not, unless the
// function is declared idempotent.
//
// Threads: see weft/mesh.h. While a thread waits inside Call, it serves requests to the functions that this
// process serves (see weft/server.h for the depth to which such calls nest). Times are CLOCK_MONOTONIC, sizes
// bytes.
#ifndef WEFT_CLIENT_H_
#define WEFT_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "dataplane/call/trace_context.h"
#include "weft/mesh.h"

namespace weft {

struct RouteEntry;

// A function that a caller has resolved. Cheap to copy; good as long as its Mesh, or until Client::Forget.
class Function {
 public:
  Function() = default;
  explicit Function(RouteEntry* route) : route_(route) {}
  bool valid() const { return route_ != nullptr; }
  RouteEntry* route() const { return route_; }

 private:
  RouteEntry* route_ = nullptr;
};

struct CallOptions {
  // From now on. Zero: the timeout of the function's policy. A call made while a handler of this process runs
  // never outlives the deadline of the call that the handler serves.
  absl::Duration timeout = absl::ZeroDuration();
  // Carried to the callee as it is; borrowed until the call is done. nullptr: that of the call being handled,
  // if any.
  const TraceContext* trace = nullptr;
};

// Names a call made with a callback, to cancel it.
struct CallId {
  uint32_t slot = ~uint32_t{0};
  uint32_t generation = 0;
};

// How a call with a callback ended. `text` explains an error and dies with the callback.
struct CallResult {
  absl::StatusCode code = absl::StatusCode::kOk;
  std::size_t response_bytes = 0;
  absl::string_view text;

  bool ok() const { return code == absl::StatusCode::kOk; }
  absl::Status status() const { return ok() ? absl::OkStatus() : absl::Status(code, text); }
};

// One call of a batch. The library sets `result` and `response_bytes`.
struct BatchCall {
  Function function;
  std::span<const std::byte> request;
  std::span<std::byte> response;
  absl::Status result;
  std::size_t response_bytes = 0;
};

class Client {
 public:
  // `mesh` outlives the client.
  explicit Client(Mesh& mesh);

  // Asks the agent for the routes to `name` (namespace/name), as called by `caller`: a function that this
  // process serves, or empty for the namespace that it calls as. Blocks for one round trip to the agent at
  // the first time, then answers from memory. An error of the route itself (PERMISSION_DENIED, NOT_FOUND) is
  // returned here; the function may become callable later, so ResolveLazily and the calls tell it as well.
  // DEADLINE_EXCEEDED: the agent did not answer within `timeout`.
  absl::StatusOr<Function> Resolve(absl::string_view name, absl::string_view caller = "",
                                   absl::Duration timeout = absl::Seconds(5));
  // The same without waiting: the first call waits for the route, within its deadline. INVALID_ARGUMENT: not
  // a name.
  absl::StatusOr<Function> ResolveLazily(absl::string_view name, absl::string_view caller = "");
  // Lets go of what was resolved under these names, also where Resolve returned an error: no Function that it
  // was given for may be used any more. For a process that calls functions which come and go, since the agent
  // follows each pair of names that was resolved, and lets a process have 16,384 of them. Resolved again, a
  // function is asked for anew. False, and nothing has changed, where a call by it is under way, its callee
  // runs in this very process, or a handler or a callback asks. Blocks never.
  bool Forget(absl::string_view name, absl::string_view caller = "");

  // Calls and waits. `request` and `response` are borrowed until it returns; the result is the number of
  // bytes that were put into `response`. One that is longer than `response` fails with RESOURCE_EXHAUSTED;
  // the function has run then.
  absl::StatusOr<std::size_t> Call(Function function, std::span<const std::byte> request,
                                   std::span<std::byte> response, const CallOptions& options = {});
  // The same with a string of any length for the response; allocates.
  absl::StatusOr<std::string> Call(Function function, absl::string_view request,
                                   const CallOptions& options = {});

  // Sends a message that is not answered. OK means that it is on its way: it runs at most once, and may be
  // dropped with its host or by a limit, which is counted there. Waits for room in the ring, and with a
  // message above 64 KiB until its host has read most of it, until the deadline. Published at once; see
  // SendBatch.
  absl::Status Send(Function function, std::span<const std::byte> message, const CallOptions& options = {});
  // Sends `messages` in order and publishes them together, which is what makes small messages cheap. Stops at
  // the first that fails; `*sent`, where given, tells how many went out.
  absl::Status SendBatch(Function function, std::span<const std::span<const std::byte>> messages,
                         const CallOptions& options = {}, std::size_t* sent = nullptr);

  // Starts a call; `callback(context, result)` runs once, later, inside Poll, Wait or any other waiting call
  // of this library. `request`, `response` and the trace are borrowed until then. Where an error is returned
  // the callback never runs; RESOURCE_EXHAUSTED: no room now, Poll and try again. Published with the next
  // Poll, Wait or Flush, so that calls started together travel together.
  using Callback = void (*)(void* context, const CallResult& result);
  absl::StatusOr<CallId> CallAsync(Function function, std::span<const std::byte> request,
                                   std::span<std::byte> response, Callback callback, void* context,
                                   const CallOptions& options = {});
  // The same with any callable; allocates one object a call. Where the Mesh ends first, it is destroyed and
  // does not run.
  absl::StatusOr<CallId> CallAsync(Function function, std::span<const std::byte> request,
                                   std::span<std::byte> response,
                                   std::function<void(const CallResult&)> callback,
                                   const CallOptions& options = {});
  // Gives a call up: the callee is told, and the callback runs with CANCELLED. False where it has ended.
  bool Cancel(CallId call);

  // Starts all calls, waits for all. Each has its own result; at most MeshOptions::calls_max are under way at
  // a time.
  void CallBatch(std::span<BatchCall> calls, const CallOptions& options = {});

  // Publishes what was started. Poll also takes what has come in and runs callbacks and handlers; it returns
  // how many of them ran and never blocks. Wait does the same and blocks until at least one ran or `timeout`
  // passed.
  void Flush();
  int Poll();
  int Wait(absl::Duration timeout);

 private:
  MeshImpl& impl_;
};

}  // namespace weft

#endif  // WEFT_CLIENT_H_
