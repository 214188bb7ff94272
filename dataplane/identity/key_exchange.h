// SPDX-License-Identifier: Apache-2.0
// Mutual TLS 1.3 with the agents of other nodes, and the packet keys that come of it. For each peer it holds
// one TLS connection, whichever side dialled it, and tells its observer when a session begins and ends and
// which keys to install. No packet passes through here and no key does through the connection: both sides
// derive it by the TLS exporter, per direction, pair of workers and epoch.
//
// One thread: weftd's registry thread or one of its own. It waits until fd() is readable or NextTimerNs()
// has passed, then calls Step(). Nothing here blocks but reading the three small files when they change.
// Engine threads are told by the observer, which posts to them and posts their key ids back.
//
// Words. A lane joins one worker here and one of the peer: transport::Core's PeerIndex. A session lasts from
// the first key exchange of two live processes to the death of either; a lost TCP connection, a renewed
// certificate and a rotation of keys do not end it. An epoch is one set of keys; two are alive while they
// change.
#ifndef WEFT_DATAPLANE_IDENTITY_KEY_EXCHANGE_H_
#define WEFT_DATAPLANE_IDENTITY_KEY_EXCHANGE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/identity/credentials.h"
#include "dataplane/identity/endpoint.h"
#include "dataplane/identity/refusal.h"

namespace weft::identity {

// What a node's worker tells peers about itself.
struct Worker {
  uint16_t id = 0;  // Not used again for another worker while the process lives; AddWorker refuses it.
  // weft_packet_header.worker_hint of packets to it. Of a node's own workers, modulo their number, it is
  // which.
  uint16_t hint = 0;
  // Where its packets go. Unspecified address: where the TLS connection comes from or went.
  Endpoint address;
  uint32_t datagram_bytes_max = 1472;  // Largest UDP payload that may be sent to it.
  // Nobody looks at it: the first acknowledgement says how much may be sent to it unasked.
  uint32_t share_bytes = 40'000;
  std::string host;  // The host that it is inside of and speaks for alone; empty: the node.

  friend bool operator==(const Worker&, const Worker&) = default;
};

// Key and IV of one direction of one lane in one epoch; becomes a transport::SealSecret.
struct PacketSecret {
  std::array<uint8_t, 16> key{};
  std::array<uint8_t, 12> iv{};
};

struct Lane {
  uint16_t local_worker = 0;
  uint16_t remote_worker = 0;
  friend auto operator<=>(const Lane&, const Lane&) = default;
};

struct SessionInfo {
  std::string peer;             // Node name, as its certificate says.
  uint64_t session = 0;         // Never 0, never the same again.
  std::vector<Worker> workers;  // Of the peer.
  bool takes_drains = false;    // Its agent is of a version that knows Drains.
};

// Names the keys of one lane.
struct LaneKey {
  std::string peer;
  uint64_t session = 0;
  Lane lane;
  uint8_t epoch = 0;  // As the core counts: it goes on at 0 after 255.
  friend bool operator==(const LaneKey&, const LaneKey&) = default;
};

// A host that its node drains, and which of that node's drains it is: one of the same name may be drained
// again.
struct DrainedHost {
  std::string host;
  uint64_t number = 0;
  friend bool operator==(const DrainedHost&, const DrainedHost&) = default;
};

// What a node says of hosts that are being drained, or have been and are gone: its own, and of the peer's
// those that no call of this node goes to or is under way to any more, and those that it has nothing else
// for. By name, ascending.
struct Drains {
  std::vector<DrainedHost> draining;
  std::vector<std::string> gone;
  std::vector<DrainedHost> left;
  std::vector<std::string> needed;
  friend bool operator==(const Drains&, const Drains&) = default;
};
// So many hosts of each kind are told of, the first ones: with names of 63 bytes they fit a frame.
inline constexpr std::size_t kDrainsMax = 28;

// Called from within Step, on its thread; may call back into KeyExchange.
class KeyExchangeObserver {
 public:
  virtual ~KeyExchangeObserver() = default;
  // A session begins: for each lane Core::AddPeer (where there is none) and Core::BeginSession. Before
  // anything else of this session; after OnSessionDown of the last one with that peer.
  virtual void OnSessionUp(const SessionInfo& session) = 0;
  // The peer's workers changed within the session: lanes come (with OnReceiveKeyWanted) or go.
  virtual void OnWorkers(const SessionInfo& session) = 0;
  // Core::InstallReceiveKey with this secret on the worker `key.lane.local_worker`, then SetReceiveKeyId
  // here. Unanswered for `key_timeout_ns`: the connection is dropped and made anew.
  virtual void OnReceiveKeyWanted(const LaneKey& key, const PacketSecret& secret) = 0;
  // Core::InstallSendKey: the peer takes packets under `key_id` from now on.
  virtual void OnSendKey(const LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                         const PacketSecret& secret) = 0;
  // Core::RetireReceiveKey: the peer has long sent under the next epoch.
  virtual void OnRetireReceiveKey(const LaneKey& key) = 0;
  // The connection ended without a farewell, most likely with the peer's process. The session is kept for
  // `linger_ns`; Core::DeclareDead is the right thing (a packet of the same session revives the peer).
  virtual void OnConnectionLost(const std::string& peer, uint64_t session) = 0;
  // The session is over: close its routes, Core::ClosePeer or a later BeginSession. kExpired and kRevoked are
  // the identity's end, kRestarted is followed by OnSessionUp.
  virtual void OnSessionDown(const std::string& peer, uint64_t session, Refusal reason) = 0;
  // In place of what the peer said before in this session; nothing of it outlives that.
  virtual void OnDrains(const std::string& peer, const Drains& drains) {}
  // The files changed: OK: in force; else what is wrong with them, and the old ones stay. Also tells of the
  // own certificate's end.
  virtual void OnCredentials(const absl::Status& status) = 0;
  // One line for the log, about connections; may come as fast as strangers connect, so limit it.
  virtual void OnNote(const std::string& line) {}
};

struct KeyExchangeOptions {
  CredentialPaths credentials;
  std::string node;                      // This node; its certificate must say the same.
  UniqueFd listener;                     // A bound TCP socket; invalid: only dials.
  std::vector<Worker> workers;           // Of this node.
  std::string dial_from;                 // Local address to dial from; empty: the kernel's choice.
  uint64_t seed = 0;                     // Of the jitter; 0: random.
  std::function<int64_t()> unix_time_s;  // Empty: time(2).

  uint64_t handshake_timeout_ns = 5 * kNsPerSecond;  // From connecting to the peer's HELLO.
  uint64_t key_timeout_ns = 10 * kNsPerSecond;       // For all keys of one epoch.
  uint64_t keepalive_ns = kNsPerSecond;              // Sent so often; three missed: the peer is silent.
  uint64_t linger_ns = 10 * kNsPerSecond;            // A session outlives its connection so long.
  uint64_t rotate_ns = 600 * kNsPerSecond;           // Age at which keys are rotated.
  uint64_t retire_ns = 2 * kNsPerSecond;  // Old keys live on so long after the peer's last use of them.
  uint64_t backoff_min_ns = 20 * kNsPerMs;
  uint64_t backoff_max_ns = 2 * kNsPerSecond;
  uint64_t reload_ns = kNsPerSecond;  // The files are looked at so often.
  // Files that are not good together at the start, as while they are being replaced, are looked at again for
  // so long.
  uint64_t start_patience_ns = 500 * kNsPerMs;
  // Connections without a verified peer: SSL state of about 50 KiB each once they have sent something.
  uint32_t unfinished_max = 256;
  uint32_t unfinished_per_source_max = 32;
  uint32_t peers_max = 1024;
};

struct KeyExchangeCounters {
  RefusalCounts refused{};  // Connections refused or ended, by reason.
  uint64_t accepted = 0;
  uint64_t dialled = 0;
  uint64_t handshakes = 0;  // Finished, both ways.
  uint64_t sessions = 0;
  uint64_t resumed = 0;  // Connections that went on with a live session.
  uint64_t epochs = 0;   // Agreed on in full.
  uint64_t reloads = 0;
  uint64_t reload_errors = 0;
};

struct PeerReport {
  std::string name;
  Endpoint address;
  uint64_t session = 0;  // 0: none.
  bool connected = false;
  uint32_t epoch = 0;
  int64_t expires_unix_s = 0;  // The peer's certificate.
  Refusal last_refusal = Refusal::kNone;
  std::string last_problem;
};

class KeyExchange {
 public:
  // Loads the certificates and listens. Errors name file, key or address.
  static absl::StatusOr<std::unique_ptr<KeyExchange>> Create(KeyExchangeOptions options,
                                                             KeyExchangeObserver* observer);
  virtual ~KeyExchange() = default;

  // Readable when Step has something to do.
  virtual int fd() const = 0;
  // CLOCK_MONOTONIC time of the next thing to do without any event.
  virtual uint64_t NextTimerNs() const = 0;
  // Does what is due, a bounded amount at a time: the rest leaves fd() readable.
  virtual void Step(uint64_t now_ns) = 0;

  // Dials `address` for the node `name`, now and again until it is removed, and lets it dial here. Changing
  // the address of a peer keeps its session.
  virtual absl::Status AddPeer(const std::string& name, const Endpoint& address) = 0;
  // Tells it so; OnSessionDown(kRemoved) comes in the next Step.
  virtual void RemovePeer(const std::string& name) = 0;

  // Workers that come and go while sessions live: those inside hosts. INVALID_ARGUMENT: an id used before.
  virtual absl::Status AddWorker(const Worker& worker) = 0;
  virtual void RemoveWorker(uint16_t id) = 0;

  // The answer to OnReceiveKeyWanted: what Core::InstallReceiveKey returned. Late answers are ignored.
  virtual void SetReceiveKeyId(const LaneKey& key, uint32_t key_id) = 0;
  // Or: no packet can come in on this lane. The peer gets no send key for it, and the rest goes on.
  virtual void DeclineLane(const LaneKey& key) = 0;

  // What each peer is to be told, now and whenever it connects; others, and those of an earlier version, are
  // told nothing.
  virtual void SetDrains(std::map<std::string, Drains> to_peers) = 0;

  // New keys as soon as the last rotation is over.
  virtual void Rotate(const std::string& peer) = 0;
  // Takes leave of all peers, which then end their sessions at once. Call Step until `timeout` or idle.
  virtual void Leave() = 0;

  virtual const KeyExchangeCounters& counters() const = 0;
  virtual std::vector<PeerReport> Peers() const = 0;
  virtual const Credentials& credentials() const = 0;
};

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_KEY_EXCHANGE_H_
