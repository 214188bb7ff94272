// SPDX-License-Identifier: Apache-2.0
// The protocol between nodes, as a pure machine: datagrams and the time come in, datagrams and events go out.
// It does no I/O, reads no clock, draws no random number and takes no lock, so the simulator runs the very
// code that ships, and a run is repeated by its inputs. One core belongs to one worker; every call is made on
// its thread. Nothing is allocated on the packet path. The time that is passed may step back a little, as a
// counter does that is set by the system's clock.
//
// A caller's view: TrySend begins a call or a one-way message, NextEvent tells how it ended. A callee's:
// NextEvent brings a request, TryRespond answers it. The loop around it is pump.h.
#ifndef WEFT_DATAPLANE_TRANSPORT_CORE_H_
#define WEFT_DATAPLANE_TRANSPORT_CORE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "dataplane/base/function_id.h"
#include "dataplane/transport/block_pool.h"
#include "dataplane/transport/config.h"
#include "dataplane/transport/event.h"
#include "dataplane/transport/frame.h"
#include "dataplane/transport/grant_scheduler.h"
#include "dataplane/transport/index_list.h"
#include "dataplane/transport/key_table.h"
#include "dataplane/transport/message.h"
#include "dataplane/transport/peer.h"
#include "dataplane/transport/timer_heap.h"

namespace weft::transport {

using Bytes = absl::Span<const uint8_t>;

struct SendOptions {
  PeerIndex peer;
  TenantIndex tenant;   // Charged with the message and with the response's reserved buffer.
  FunctionId function;  // Callee.
  uint64_t user = 0;    // Comes back in the event.
  uint64_t timeout_ns = 0;
  // Room for the response, reserved before the request leaves. A longer response is taken only where the
  // tenant's memory allows it when it comes; otherwise the call ends with RESOURCE_EXHAUSTED.
  uint32_t response_bytes_max = 1024;
  bool one_way = false;
};

struct TenantUse {
  uint64_t limit_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t peak_bytes = 0;
  uint64_t unfinished_bytes = 0;  // Of used_bytes: what has not come whole.
};

class Core {
 public:
  // INVALID_ARGUMENT names the limit that makes no sense; RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<std::unique_ptr<Core>> Create(const Config& config);
  ~Core();

  // ---- Control path: may allocate.

  // A tenant's messages never hold more than `limit_bytes` of the core's memory.
  void SetTenantLimit(TenantIndex tenant, uint64_t limit_bytes);
  // Requests for `function` are taken and charged to `tenant`; others are rejected with NOT_FOUND.
  absl::Status SetFunction(FunctionId function, TenantIndex tenant);
  void RemoveFunction(FunctionId function);

  // `path` is what the port knows the way to the peer by.
  absl::StatusOr<PeerIndex> AddPeer(uint64_t path);
  // What is sent to it goes another way from now on; what is on its way may be lost, and is sent again.
  void MovePeer(PeerIndex peer, uint64_t path) { peers_[peer.value]->path = path; }
  // The path to it carries datagrams of so many bytes from now on (until the next session), at least
  // kDatagramBytesLeast and at most the config's. New messages are cut to fit. Those that are cut longer and
  // under way end with UNAVAILABLE, here and there: their receiver counts on segments of the size they began
  // with.
  void SetDatagramBytes(PeerIndex peer, uint32_t bytes);
  // Ends what is outstanding with it as BeginSession does, and forgets it.
  void RemovePeer(PeerIndex peer, uint64_t now_ns);

  // A session lasts from one key exchange of two live processes to the death of either; key rotation does not
  // end it. Beginning another one forgets the receive keys of the last and fails what was outstanding with
  // UNAVAILABLE.
  void BeginSession(PeerIndex peer, uint64_t session, uint64_t now_ns);
  // Chooses the id under which the peer is to send in `epoch`, and takes packets under it from now on; the
  // key of epoch - 2 is forgotten. 0: no session.
  uint32_t InstallReceiveKey(PeerIndex peer, uint8_t epoch, const SealSecret& secret);
  // Fills in the secret of an id from InstallReceiveKey that was not yet known when it was chosen.
  void SetReceiveSecret(uint32_t key_id, const SealSecret& secret);
  void RetireReceiveKey(PeerIndex peer, uint8_t epoch);
  // False once the key is retired, or its session has ended, as by a CLOSE.
  bool HasReceiveKey(uint32_t key_id) { return keys_.Find(key_id) != nullptr; }
  // From now on packets are sealed with `secret` under the peer's `key_id`. `epoch` must be above the last.
  void InstallSendKey(PeerIndex peer, uint8_t epoch, uint32_t key_id, uint16_t worker_hint,
                      const SealSecret& secret);
  // Tells the peer that this side leaves, and ends what is outstanding with it.
  void ClosePeer(PeerIndex peer, uint64_t now_ns);
  // The control's word that a peer is dead: as if it had not answered five probes.
  void DeclareDead(PeerIndex peer, uint64_t now_ns);

  // ---- Packet path.

  // Begins a message of `head` and `body`, in this order, which are copied. On kOk `*handle` (may be null)
  // names it.
  SendResult TrySend(const SendOptions& options, Bytes head, Bytes body, uint64_t now_ns, CallHandle* handle);
  // Answers a request. On kFull a response without bytes still goes through.
  SendResult TryRespond(CallHandle request, absl::StatusCode code, Bytes head, Bytes body, uint64_t now_ns);
  // Gives up a call: it ends with CANCELLED at once, and the callee is told.
  void Cancel(CallHandle call, uint64_t now_ns);

  // Takes one datagram. `datagram` is only read, and may lie in memory that others can write.
  void HandleDatagram(const uint8_t* datagram, std::size_t bytes, uint64_t now_ns);
  // Runs what is due. Called at least when NextTimerNs has passed.
  void Tick(uint64_t now_ns) {
    if (memory_was_short_ || timers_.NextNs() <= now_ns) [[unlikely]]
      RunTimers(now_ns);
  }
  // Writes the next datagram into out[0, capacity), capacity ≥ datagram_bytes_max, and the way to `*path`. 0:
  // none now.
  std::size_t NextDatagram(uint8_t* out, uint64_t now_ns, uint64_t* path);
  // Whether NextDatagram may have something: false on most turns of an idle loop, at the cost of a few loads.
  bool MayHaveDatagram() const { return !urgent_.empty() || !send_queue_.empty() || grants_.AnyWaiting(); }
  // The next thing to know; false: none. Its payload lives until Release.
  bool NextEvent(Event* event);
  bool HasEvent() const { return event_head_ != event_tail_; }
  void Release(const Event& event);

  // When Tick or NextDatagram has work again if nothing else happens; ~0: never.
  uint64_t NextTimerNs(uint64_t now_ns) const;

  // ---- Inspection.

  const Config& config() const { return config_; }
  const Counters& counters() const { return counters_; }
  TenantUse UseOf(TenantIndex tenant) const { return tenants_[tenant.value]; }
  std::size_t memory_used_bytes() const { return blocks_.used_bytes(); }
  PeerState StateOf(PeerIndex peer) const { return peers_[peer.value]->state; }
  // Goes up whenever StateOf any peer changes: whoever tells of that need not look at all of them.
  uint64_t state_changes() const { return state_changes_; }
  uint64_t CounterOf(PeerIndex peer) const { return peers_[peer.value]->next_counter; }
  uint32_t calls_outstanding() const { return calls_outstanding_; }
  uint32_t messages_out() const { return config_.messages_out_max - static_cast<uint32_t>(free_out_.size()); }
  uint32_t messages_in() const { return config_.messages_in_max - static_cast<uint32_t>(free_in_.size()); }
  uint32_t granted_bytes() const { return grants_.outstanding_bytes(); }
  // Payload bytes of one segment, as this core cuts its messages.
  uint32_t segment_bytes() const { return segment_bytes_; }

 private:
  Core(const Config& config, BlockPool blocks);

  // core.cc: pools, tenants, events.
  bool TryAllocate(uint32_t tenant, std::size_t bytes, Block* block);
  void FreeBlock(uint32_t tenant, Block* block);
  bool TryAllocateBits(uint32_t tenant, uint32_t words, Block* block, uint64_t** first);
  uint32_t TakeOut();
  void FreeOut(uint32_t out);
  uint32_t TakeIn();
  void RemoveFromLists(uint32_t in);
  void FreeIn(uint32_t in);
  Event& NewEvent();
  const TenantIndex* TenantOf(uint64_t function) const;
  std::size_t FunctionPlace(uint64_t function) const;

  // core_send.cc: messages of this side.
  bool FillOut(uint32_t out, uint32_t segment_bytes, Bytes head, Bytes body);
  void StartOut(uint32_t out, uint64_t now_ns);
  void StartResponse(uint32_t peer, uint32_t slot, absl::StatusCode code, uint64_t now_ns);
  void MakeReady(uint32_t out);
  void UpdateReady(uint32_t out);
  void RemoveReady(uint32_t out);
  void SetBlocked(OutMessage& message, bool blocked);
  // The sum that the message's unused grants are counted in.
  uint64_t& GrantsInHand(const OutMessage& message) {
    return message.blocked ? peers_[message.peer]->blocked_grant_bytes : unused_grant_bytes_;
  }
  void EndCall(Peer& peer, uint32_t slot, absl::StatusCode code, bool from_peer, bool maybe_executed);
  void MarkLost(uint32_t out, uint32_t segment);
  void MarkAcked(uint32_t out, uint32_t segment);
  void FinishOut(uint32_t out);

  // core_receive.cc: datagrams and their frames.
  void NoteArrival(uint32_t peer, uint64_t counter, bool asks_for_ack, bool ping, uint64_t now_ns);
  void Apply(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns);
  void OnData(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns);
  void OnRequestData(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns);
  void OnResponseData(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns);
  bool OpenServed(uint32_t peer, uint32_t slot, const ParsedFrame& frame, uint64_t now_ns);
  absl::StatusCode ReserveServed(uint32_t peer, uint32_t slot, const ParsedFrame& frame);
  bool OpenIn(uint32_t in, const ParsedFrame& frame, uint64_t now_ns);
  void RejectIn(uint32_t in, absl::StatusCode code);
  bool ReserveIn(uint32_t in);
  bool ReserveWhole(InMessage& message);
  bool StoreSegment(uint32_t in, const ParsedFrame& frame, uint64_t now_ns);
  void DeliverServed(uint32_t peer, uint32_t slot, uint64_t now_ns);
  void TellCancelled(uint32_t peer, uint32_t slot);
  void RetireServed(uint32_t peer, uint32_t slot);
  void RejectServed(uint32_t peer, uint32_t slot, absl::StatusCode code);

  // core_memory.cc: who may hold how much.
  static uint64_t ChargeOf(uint32_t bytes, uint32_t segments);
  bool MayHold(const InMessage& message, uint64_t charge) const;
  void CountHeld(InMessage& message, uint64_t charge);
  void ReleaseHeld(InMessage& message);
  void ReclaimAnswers(uint64_t now_ns);

  // core_notice.cc: frames without payload that concern one message.
  void OnGrant(Peer& peer, const ParsedFrame& frame);
  void OnResend(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns);
  void OnReject(uint32_t peer, const ParsedFrame& frame);
  void OnBusy(Peer& peer, const ParsedFrame& frame, uint64_t now_ns);
  void OnUnknown(uint32_t peer, const ParsedFrame& frame);
  uint32_t FindOut(Peer& peer, MessageKind kind, uint64_t id);
  void PushNotice(uint32_t peer, const Notice& notice);
  void TellOver(uint32_t peer, uint64_t id);
  void TellThoseOver(uint32_t peer);
  void Touch(Peer& peer, uint32_t slot, uint64_t now_ns);

  // core_loss.cc: acknowledgements, loss, timers.
  void OnAck(uint32_t peer, const ParsedFrame& frame, uint64_t now_ns);
  void DetectLosses(uint32_t peer, uint64_t now_ns);
  uint32_t TakeAcked(Peer& peer, uint64_t counter);
  void TakeLost(uint32_t peer, uint64_t counter);
  uint64_t PatienceNs(const Peer& peer) const;
  uint64_t StallNs(const Peer& peer) const { return std::max(config_.stall_ns, PatienceNs(peer)); }
  uint64_t ProbeDueNs(const Peer& peer) const;
  uint64_t KeepaliveDueNs(const Peer& peer) const;
  uint64_t DueNs(const Peer& peer, uint64_t now_ns) const;
  void RunTimers(uint64_t now_ns);
  void TickGrants(uint64_t now_ns);
  void TickPeer(uint32_t peer, uint64_t now_ns);
  void QueryStalled(uint32_t peer, uint64_t now_ns);
  void GiveUpUnfinished(uint32_t peer, uint64_t now_ns);
  void ReleaseBlocked(Peer& peer);

  // core_peer.cc: sessions, death.
  void SetState(Peer& peer, PeerState state);
  void EndEverything(uint32_t peer, bool session_ends);
  void Revive(uint32_t peer, uint64_t now_ns);

  // core_transmit.cc: datagrams out.
  void MakeUrgent(uint32_t peer);
  static bool HasUrgent(const Peer& peer, uint64_t now_ns);
  uint32_t PickMessage();
  bool MaySendData(const Peer& peer) const;
  void WriteAck(Peer& peer, FrameWriter* writer, uint64_t now_ns);
  void WriteControl(uint32_t peer, FrameWriter* writer);
  bool WriteSegment(uint32_t out, FrameWriter* writer, uint64_t now_ns);
  void WriteData(uint32_t peer, uint32_t first, FrameWriter* writer, uint64_t now_ns);
  std::size_t Build(uint32_t peer, uint32_t message, uint8_t* out, uint64_t now_ns);
  uint32_t AdvertisedShare(uint64_t now_ns);
  void IssueGrants(uint64_t now_ns);

  const Config config_;
  const uint32_t segment_bytes_;
  Counters counters_;

  BlockPool blocks_;
  std::vector<TenantUse> tenants_;
  // Whose limit, or whether the pool, was met since the last ReclaimAnswers, which comes no sooner than
  // reclaim_from_ns_.
  std::vector<uint8_t> short_tenants_;
  bool pool_was_short_ = false;
  bool memory_was_short_ = false;  // Any of these.
  uint64_t reclaim_from_ns_ = 0;
  struct Function {
    uint64_t id = 0;
    TenantIndex tenant;
  };
  std::vector<Function> functions_;  // Open addressing, at most half full.
  uint32_t function_count_ = 0;

  std::vector<std::unique_ptr<Peer>> peers_;  // peers_max; null: never used.
  KeyTable keys_;
  std::vector<OutMessage> out_;
  std::vector<uint32_t> free_out_;
  std::vector<InMessage> in_;
  std::vector<uint32_t> free_in_;
  uint32_t calls_outstanding_ = 0;

  // Requests and one-way messages: messages_in_max; completions: calls_max; cancellations: of requests that
  // were taken before, messages_out_max, since a request being executed holds its response, and of requests
  // that are still here themselves, messages_in_max.
  std::vector<Event> events_;
  const uint64_t event_mask_;
  uint64_t event_head_ = 0;
  uint64_t event_tail_ = 0;
  uint64_t state_changes_ = 0;

  ClassQueue<OutMessage, &OutMessage::ready, &OutMessage::ready_class> send_queue_;
  IndexList<OutMessage, &OutMessage::age> out_by_age_;
  IndexList<OutMessage, &OutMessage::owed> answers_owed_;
  uint32_t turns_to_oldest_;
  // Over all outgoing messages but blocked ones, which wait for their peer and not for this side's link: of
  // these each peer has its sum.
  uint64_t unused_grant_bytes_ = 0;
  struct UrgentPeer {
    ListHook hook;
  };
  std::vector<UrgentPeer> urgent_peers_;  // Linked: has something other than data to be sent.
  IndexList<UrgentPeer, &UrgentPeer::hook> urgent_;
  uint64_t link_free_ns_ = 0;

  GrantScheduler grants_;
  TimerHeap timers_;
  uint64_t share_window_ = 0;          // The millisecond being counted,
  uint32_t share_senders_ = 0;         // peers that sent data in it,
  uint32_t share_senders_before_ = 0;  // and in the one before.

  static constexpr uint32_t kFramesKept = 16;
  ParsedFrame frames_[kFramesKept];
  alignas(64) uint8_t plain_[WEFT_PACKET_BYTES_MAX];  // Where a datagram is opened; private to the worker.
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_CORE_H_
