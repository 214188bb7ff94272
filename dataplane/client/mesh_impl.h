// SPDX-License-Identifier: Apache-2.0
// What stands behind weft/mesh.h, client.h and server.h: one Session with its loop, the functions that this
// process serves, and the queue of requests between the channels and their handlers. Handlers and callbacks
// run after a poll, never inside it, so that they may wait, and thereby poll, themselves.
#ifndef WEFT_DATAPLANE_CLIENT_MESH_IMPL_H_
#define WEFT_DATAPLANE_CLIENT_MESH_IMPL_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/fd.h"
#include "dataplane/client/host_loop.h"
#include "dataplane/client/keeper.h"
#include "dataplane/client/ownership.h"
#include "dataplane/client/request_pool.h"
#include "dataplane/client/session.h"
#include "weft/client.h"
#include "weft/mesh.h"
#include "weft/server.h"

namespace weft {

class MeshImpl final : public SessionEvents {
 public:
  static absl::StatusOr<std::unique_ptr<MeshImpl>> Create(const MeshOptions& options);
  ~MeshImpl() override;

  // The user's thread is inside the library while one of these lives; they nest.
  class Inside {
   public:
    explicit Inside(MeshImpl& mesh) : mesh_(mesh) {
      if (mesh_.depth_inside_++ == 0) mesh_.ownership_.Enter();
    }
    ~Inside() {
      if (--mesh_.depth_inside_ == 0) mesh_.ownership_.Leave();
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    MeshImpl& mesh_;
  };
  // The user's code runs, called from inside.
  class Outside {
   public:
    explicit Outside(MeshImpl& mesh) : mesh_(mesh), depth_(std::exchange(mesh.depth_inside_, 0)) {
      mesh_.ownership_.Leave();
    }
    ~Outside() {
      mesh_.ownership_.Enter();
      mesh_.depth_inside_ = depth_;
    }
    Outside(const Outside&) = delete;
    Outside& operator=(const Outside&) = delete;

   private:
    MeshImpl& mesh_;
    int depth_;
  };

  // --- For the public classes; all of them inside.
  absl::Status Attach(absl::Duration timeout);
  absl::Status Register(absl::string_view name, Server::RawHandler handler, void* state,
                        std::shared_ptr<void> holder);
  absl::Status Run();
  void Stop();
  absl::StatusOr<RouteEntry*> Resolve(absl::string_view name, absl::string_view caller);
  bool Forget(absl::string_view name, absl::string_view caller);
  absl::Status WaitForRoute(RouteEntry& route, uint64_t deadline_ns);
  void CallBatch(std::span<BatchCall> calls, const CallOptions& options);
  // Sends one-ways in order, published together; blocks while there is no room. `*sent`: how many went out.
  absl::Status Send(RouteEntry& route, std::span<const std::span<const std::byte>> messages,
                    const CallOptions& options, std::size_t* sent);
  absl::StatusOr<CallId> CallAsync(RouteEntry& route, std::span<const std::byte> request,
                                   std::span<std::byte> response, Client::Callback callback, void* context,
                                   const CallOptions& options);
  // The callback of calls whose context is an OwnedCallback, made by new.
  using OwnedCallback = std::function<void(const CallResult&)>;
  static void RunOwned(void* context, const CallResult& result);
  bool Cancel(CallId call);
  // A turn of the loop, then handlers and callbacks; returns how many of those ran.
  int Turn();
  // The same, but where none were due at first, it waits.
  WEFT_HOT int WaitTurn(uint64_t deadline_ns);
  CallCore& core() { return core_; }
  Session& session() { return *session_; }
  HostLoop<MeshImpl>& loop() { return loop_; }
  // For tests of the wrap of ids.
  void set_next_local_id(uint32_t id) { next_local_id_ = id; }
  const SessionOptions& options() const { return options_; }

  // --- Answers of handlers.
  void Answer(const Incoming& incoming, absl::StatusCode code, std::span<const std::byte> payload);
  void AnswerDeferred(const Incoming& incoming, absl::StatusCode code, std::span<const std::byte> payload);
  void NoteDeferred(const ServerCall& call);
  bool DeferredCancelled(const Incoming& incoming);

  // --- LinkSink's Local.
  uint64_t NowNs() { return loop_.MessageNs(); }
  WEFT_HOT_INLINE std::byte* OnRequestBegin(const Incoming& incoming, uint32_t bytes) {
    if (ready_.size() >= kReadyMax) [[unlikely]]
      return nullptr;
    RequestBuffer* const buffer = pool_.Take(bytes);
    if (buffer == nullptr) [[unlikely]]
      return nullptr;
    // A long one takes more time to copy than its answer's cell to come.
    if (bytes <= kInlineBytesMax) core_.ExpectReply(incoming);
    // Here and not when it is whole: the record's fields still are in registers.
    CopyIncoming(incoming, buffer->incoming);
    return buffer->payload();
  }
  WEFT_HOT_INLINE void OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes) {
    if (bytes > kInlineBytesMax) core_.ExpectReply(incoming);
    RequestBuffer* const request = RequestBuffer::Of(payload);
    request->bytes = bytes;
    request->cancelled = false;
    request->messages = 1;
    ready_.Push(request);
  }
  WEFT_HOT std::byte* OnRunBegin(const MessageRun& run);
  WEFT_HOT void OnRun(const Incoming& first, const MessageRun& run, std::byte* payload);
  void OnRequestAbort(const Incoming& incoming, std::byte* payload);
  void OnCancel(uint32_t link, uint32_t request_id);

  // --- SessionEvents.
  void OnDrain() override { draining_ = true; }
  bool AddHeldCallers(absl::flat_hash_set<const std::string*>* held) override;
  std::vector<api::FunctionStats> Functions() override;

 private:
  friend class Client;

  struct Served {
    Server::RawHandler handler = nullptr;
    void* state = nullptr;
    std::shared_ptr<void> holder;
    const LocalFunction* function = nullptr;
    uint64_t calls = 0;
    uint64_t failures = 0;
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;
  };
  // A call with a callback: started, or ended and waiting for its callback to run.
  struct Async {
    MeshImpl* mesh = nullptr;
    Client::Callback callback = nullptr;  // nullptr: the record is free.
    void* context = nullptr;
    CallResult result;
    std::string text;
    TraceContext trace;  // Where the call inherits one.
    Async* next = nullptr;
  };
  // A call within this process; its record lives until it is answered, so that its id is not given again.
  struct LocalCall {
    CallSpec spec;  // Empty: nobody waits any more.
    LocalFunction* function = nullptr;

    // It has a callback: nobody waits for it in person.
    bool timed() const { return spec.done != nullptr && spec.timed; }
  };

  // Link, its epoch and the request's id: ids begin anew with each peer that gets the link's place.
  using CallKey = std::tuple<uint32_t, uint32_t, uint32_t>;
  static CallKey KeyOf(const Incoming& incoming) {
    return {incoming.link, incoming.link_epoch, incoming.request_id};
  }

  MeshImpl(const SessionOptions& options, std::unique_ptr<Session> session);
  const char* attached_text() const;

  // --- mesh_serve.cc
  WEFT_HOT int RunReady();
  WEFT_HOT void RunRequest(RequestBuffer* request);
  WEFT_HOT int RunMessages(RequestBuffer* run, int messages_max);
  WEFT_HOT void Handle(const Incoming& incoming, std::span<const std::byte> payload);
  [[gnu::noinline, gnu::cold]] void AnswerUnanswered(const Incoming& incoming);
  [[gnu::noinline, gnu::cold]] void RefuseNested(const Incoming& incoming);
  void RunHandler(const Incoming& incoming, std::span<const std::byte> payload);
  absl::Status StartLocal(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, uint32_t* local_id);
  void AnswerLocal(const Incoming& incoming, absl::StatusCode code, std::span<const std::byte> payload);
  void LeaveLocal(uint32_t local_id);
  bool GiveUpLocal(uint32_t local_id, absl::StatusCode code, absl::string_view why);
  [[gnu::noinline, gnu::cold]] void ExpireLocal();
  uint64_t NextLocalNs() const {
    return local_deadlines_.empty() ? kNoDeadline : local_deadlines_.begin()->first;
  }
  void Poll();
  void RunCallbacks(int* ran);
  bool QuietForDrain();

  // --- mesh_call.cc
  struct SyncWait;
  struct Started;
  // Calls with `request`; the response goes to `response`, or to what `reserve` gives where it is longer.
  // Blocks. What comes of it is in `wait`.
  absl::Status CallAndWait(RouteEntry& route, std::span<const std::byte> request,
                           std::span<std::byte> response, CallReserve reserve, const CallOptions& options,
                           SyncWait& wait);
  absl::Status RefuseCancelled(const RouteEntry& route);
  static absl::Status RefuseToWait(const RouteEntry& route);
  absl::Status StartSlowly(RouteEntry& route, const CallSpec& spec, StartState state, Started* started);
  absl::Status WaitForAnswer(const RouteEntry& route, const CallSpec& spec, const Started& started,
                             SyncWait& wait);
  absl::Status SendOddly(RouteEntry& route, CallSpec& spec, StartState state, bool in_parts,
                         uint64_t* now_ns);
  uint64_t DeadlineOf(const RouteEntry& route, const CallOptions& options, uint64_t now_ns) const;
  std::span<const std::byte> TraceOf(const CallOptions& options) const;
  bool HandlerCancelled() const { return current_ != nullptr && current_->cancelled_; }
  Async* TakeAsync();
  void GiveAsync(Async* async);
  static void AsyncDone(void* context, const CallOutcome& outcome);

  static constexpr uint32_t kReadyMax = 1024;
  // Handlers that run between two polls, so that replies and the agent are not kept waiting by a burst of
  // requests; and as many callbacks.
  static constexpr int kRunMax = 64;
  // CallId::slot of a call whose function runs in this process; its generation is the local id.
  static constexpr uint32_t kLocalSlot = CallId{}.slot - 1;

  SessionOptions options_;
  Ownership ownership_;
  int depth_inside_ = 0;  // Of the user's thread
  std::unique_ptr<Session> session_;
  CallCore& core_;
  HostLoop<MeshImpl> loop_;
  RequestPool pool_;
  RequestQueue ready_;
  ServerCall* current_ = nullptr;  // The innermost handler that runs.
  int nesting_ = 0;                // Handlers and callbacks that run, each on top of one that waits.
  uint64_t direct_until_ns_ =
      0;  // Calls wait on their channel alone until then; never, where functions are served.
  bool calling_back_ = false;
  bool draining_ = false;
  bool drained_ = false;
  uint64_t quiet_since_ns_ = 0;  // While draining: no request has come in or been at work since then,
  uint64_t quiet_received_ = 0;  // of which so many had come before.
  std::atomic<bool> stop_{false};
  UniqueFd stop_fd_;
  std::deque<Served> served_;
  absl::flat_hash_map<CallKey, bool> deferred_;  // Was it cancelled?
  std::deque<Async> asyncs_;
  Async* free_async_ = nullptr;
  Async* ended_first_ = nullptr;
  Async* ended_last_ = nullptr;
  int callbacks_unpolled_ = 0;  // So many have run since one of them last had the channels polled.
  absl::flat_hash_map<uint32_t, LocalCall> local_calls_;
  // Of those with a callback that were not answered at once, by deadline and local id.
  std::set<std::pair<uint64_t, uint32_t>> local_deadlines_;
  uint32_t next_local_id_ = 1;
  std::unique_ptr<Keeper> keeper_;  // Last: it uses the rest.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CLIENT_MESH_IMPL_H_
