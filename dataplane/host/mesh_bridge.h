// SPDX-License-Identifier: Apache-2.0
// Joins the guests of a process (Host) to its call layer (CallCore, driven by a HostLoop): requests go from
// the channel straight into guest memory, replies and calls from guest memory straight into the channel. Used
// by weft-host. Guest thread only.
#ifndef WEFT_DATAPLANE_HOST_MESH_BRIDGE_H_
#define WEFT_DATAPLANE_HOST_MESH_BRIDGE_H_

#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "dataplane/base/attributes.h"
#include "dataplane/client/host_loop.h"
#include "dataplane/engine/inside_engine.h"
#include "dataplane/host/host.h"
#include "dataplane/host/seam.h"

namespace weft::host {

class MeshBridge final : public CallsOut, public CallsIn {
 public:
  // `session` outlives the bridge; `host` is attached before the first turn of the loop and outlives it too.
  explicit MeshBridge(Session& session);
  void Attach(Host* host) { host_ = host; }
  HostLoop<MeshBridge>& loop() { return loop_; }
  // The node engine inside this process, which has its turn wherever the channels are polled; null: none.
  void set_inside_engine(engine::InsideEngine* inside) { inside_ = inside; }

  // Begins to serve `function` to the mesh, whatever the agent makes of it.
  void Serve(Function& function);
  // Requests that come in for it are refused from now on, surely not executed.
  void StopServing(Function& function);
  // Calls that were cancelled while a guest was on the stack are stopped, and those that wait for their route
  // or for room are tried again. Once in a turn of the loop.
  void RetryWaiting();
  bool has_waiting() const { return !waiting_.empty() || !sends_.empty() || !cancels_.empty(); }

  // ---- CallsOut.
  absl::StatusOr<Callee*> Resolve(Function& caller, absl::string_view name) override;
  void Release(Callee& callee) override;
  WEFT_HOT Function* EnterLocal(Callee& callee, CallContext& context, bool own_timeout,
                                Status* refusal) override;
  WEFT_HOT void LeaveLocal(Function& function) override;
  WEFT_HOT void Start(OutCall& call) override;
  WEFT_HOT void PollBriefly(OutCall& call) override;
  Status Send(Callee& callee, absl::Span<const std::byte> message, const CallContext& context) override;
  void Cancel(OutCall& call) override;
  void Expire(OutCall& call) override;

  // ---- CallsIn.
  WEFT_HOT bool Reply(InCall& call, Status status, absl::Span<const std::byte> reply) override;

  // ---- LinkSink's Local.
  uint64_t NowNs() { return loop_.MessageNs(); }
  WEFT_HOT std::byte* OnRequestBegin(const Incoming& incoming, uint32_t bytes);
  WEFT_HOT void OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes);
  void OnRequestAbort(const Incoming& incoming, std::byte* payload);
  void OnCancel(uint32_t link, uint32_t request_id);

 private:
  // Polls of all channels that a guest's call may make before the guest is suspended: about 2 us, a dozen
  // round trips of shared memory, and less than a wake.
  static constexpr int kBriefPolls = 100;
  // One-way messages that wait for their route or for room.
  static constexpr size_t kSendsMax = 256;
  static constexpr size_t kSendBytesMax = 4 << 20;

  struct MeshCallee : Callee {
    RouteEntry* route = nullptr;
    LocalFunction* function = nullptr;  // The same function, should this host serve it.
    uint32_t uses = 0;                  // Functions that have resolved it, and messages that wait.
  };
  // A message that could not be sent at once, or goes out in parts.
  struct PendingSend {
    MeshCallee* callee = nullptr;
    std::unique_ptr<std::byte[]> bytes;
    uint32_t size = 0;
    CallContext context;
    bool in_parts = false;
    bool sent = false;
  };

  static void CallEnded(void* context, const CallOutcome& outcome);
  static std::byte* ResponseRoom(void* context, uint32_t bytes);
  static void ReplyOut(void* context, bool sent);
  static uint64_t KeyOf(uint32_t link, uint32_t request_id) { return uint64_t{link} << 32 | request_id; }

  uint64_t DeadlineNs(const RouteEntry& route, uint64_t deadline_ns, bool own_timeout) const;
  bool TryStart(OutCall& call);
  bool TrySend(PendingSend& send);
  Status SendLocal(const MeshCallee& callee, absl::Span<const std::byte> message, const CallContext& context);
  void FinishText(OutCall& call, absl::StatusCode code, absl::string_view text);
  InCall* TakeBegun(std::byte* room);
  void EraseRunning(const Incoming& incoming, const InCall* call);
  void CancelRunning(InCall* call);
  void RunCancels();
  WEFT_HOT void PublishReply(uint32_t link);

  HostLoop<MeshBridge> loop_;
  Session& session_;
  CallCore& core_;
  Host* host_ = nullptr;
  engine::InsideEngine* inside_ = nullptr;
  std::map<std::pair<std::string, std::string>, MeshCallee> callees_;  // By caller and name.
  std::vector<Incoming> incoming_;      // By InCall::index: what CallCore wants back with the reply.
  const InCall* plain_call_ = nullptr;  // The one that runs within OnRequest, and what came with it.
  const Incoming* plain_incoming_ = nullptr;
  std::vector<InCall*> begun_;  // Requests that are arriving, the latest last: seldom more than one.
  // Calls that did not end at once, by link and request id, for the peer's cancel.
  absl::flat_hash_map<uint64_t, InCall*> running_;
  // Those of them that are to be cancelled once no guest is on the stack; some may have ended meanwhile.
  std::vector<InCall*> cancels_;
  std::vector<OutCall*> waiting_;
  std::list<PendingSend> sends_;
  size_t send_bytes_ = 0;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_MESH_BRIDGE_H_
