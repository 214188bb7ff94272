// SPDX-License-Identifier: Apache-2.0
// The body of KeyExchange: connections and peers, and what happens to them. Internal to the folder.
//
// Two agents may dial each other at once, and either may find a connection dead that the other still has.
// Which one counts is decided by the leader, the node of the lower name: it says HELLO only after the
// other's, and has thereby made the connection the one that counts; the other follows. Of the same two
// processes it takes a newer connection where that goes on with the session, and refuses it where it would
// end a session that is connected. The leader alone begins rotations and dials while a connection stands.
#ifndef WEFT_DATAPLANE_IDENTITY_EXCHANGE_H_
#define WEFT_DATAPLANE_IDENTITY_EXCHANGE_H_

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"
#include "dataplane/identity/key_exchange.h"
#include "dataplane/identity/messages.h"
#include "dataplane/identity/tls_stream.h"

namespace weft::identity {

using ConnectionId = uint64_t;

// A peer takes 256 messages a second that tell of changes, and closes the connection at more: however fast
// workers come and go, and drains change, it hears of the last state of either, 100 times a second.
inline constexpr uint64_t kChangesPauseNs = 10 * kNsPerMs;

struct Connection {
  Connection(ConnectionId number, TlsStream tls, const Endpoint& address)
      : id(number), stream(std::move(tls)), remote(address) {}

  const ConnectionId id;
  TlsStream stream;
  const Endpoint remote;
  std::string expected;  // The node that was dialled; empty: accepted.
  std::string peer;      // Known once the certificate is verified.
  bool connecting = false;
  bool greeted = false;      // The peer's name is known; HELLO sent, unless this side leads.
  bool established = false;  // HELLO taken: this is the peer's connection.
  bool writing = false;      // epoll tells when it can be written.
  Hello sent;
  Incarnation incarnation{};
  uint64_t begun_ns = 0;
  uint64_t heard_ns = 0;
  uint64_t keepalive_due_ns = 0;
  uint64_t changes_since_ns = 0;  // WORKERS and DRAINS that came since then.
  uint32_t changes = 0;
  uint32_t worker_changes = 0;  // Workers that these WORKERS changed.
  bool takes_drains = false;    // Of a version that knows them.
  std::optional<Drains> drains_told;
  uint64_t drains_due_ns = 0;  // The next are told then at the soonest,
  bool drains_untold = false;  // and there are some to be told.
};

// What is agreed on one lane. Epochs are kept one higher than on the wire, so that 0 is none.
struct LaneState {
  uint64_t asked = 0;     // The observer has been asked for a receive key,
  uint64_t offered = 0;   // its id has been told to the peer,
  uint64_t taken = 0;     // and the peer's id to the observer.
  uint32_t key_id = 0;    // To be offered; 0: none,
  bool declined = false;  // or that there will be none is.
  bool late = false;      // It came within the epoch, which is complete without it.
};

struct Peer {
  std::string name;
  Endpoint address;
  bool removed = false;
  bool moved = false;        // `address` is new: whoever is being dialled is not the peer any more.
  bool leader_here = false;  // This side leads.

  ConnectionId connection = 0;  // Established.
  ConnectionId dialling = 0;
  uint64_t dial_due_ns = 0;  // Where there is no connection, or `renew`.
  uint64_t backoff_ns = 0;
  bool renew = false;  // To be dialled anew while the old connection stands: a certificate is new.

  // The session.
  uint64_t session = 0;
  uint32_t epoch = 0;
  uint64_t joins_since_ns = 0;  // Connections that were established since then.
  uint32_t joins = 0;
  std::vector<Worker> workers;  // The peer's.
  std::map<Lane, LaneState> lanes;
  std::set<uint16_t> workers_gone;  // In this epoch: their keys have been given out.
  bool workers_untold = false;      // Its connection began with a HELLO that named earlier ones of this side.
  // All keys of `epoch` but of late lanes are agreed, and the peer has been told.
  bool complete = false;
  bool peer_switched = false;
  bool retired = false;          // The keys of the last epoch have been.
  bool rotate_wanted = false;    // As soon as it may be.
  uint64_t epoch_begun_ns = 0;   //
  uint64_t retire_due_ns = 0;    // Where complete and peer_switched, and not retired.
  uint64_t linger_until_ns = 0;  // Where there is a session without connection.
  int64_t expires_unix_s = 0;

  Refusal last_refusal = Refusal::kNone;
  std::string last_problem;
};

class Exchange final : public KeyExchange {
 public:
  Exchange(KeyExchangeOptions options, KeyExchangeObserver* observer);
  absl::Status Start();
  absl::Status LoadFirst();

  int fd() const override { return epoll_.get(); }
  uint64_t NextTimerNs() const override;
  void Step(uint64_t now_ns) override;
  absl::Status AddPeer(const std::string& name, const Endpoint& address) override;
  void RemovePeer(const std::string& name) override;
  absl::Status AddWorker(const Worker& worker) override;
  void RemoveWorker(uint16_t id) override;
  void SetReceiveKeyId(const LaneKey& key, uint32_t key_id) override;
  void DeclineLane(const LaneKey& key) override;
  void SetDrains(std::map<std::string, Drains> to_peers) override;
  void Rotate(const std::string& peer) override;
  void Leave() override;
  const KeyExchangeCounters& counters() const override { return counters_; }
  std::vector<PeerReport> Peers() const override;
  const Credentials& credentials() const override { return *credentials_; }

 private:
  // exchange.cc: the loop.
  void RunTimers();
  void RunPeerTimers(Peer& peer);
  void RunConnectionTimers();
  void RunDeferred();
  bool TakeWorkersChange();
  int64_t UnixTime() const;
  Peer* Find(const std::string& name);
  uint64_t Jittered(uint64_t ns) { return ns / 2 + random_.Below(ns / 2 + 1); }

  // exchange_files.cc: certificates.
  void LookAtFiles();
  void CheckValidity();
  void Renew(Peer& peer);

  // exchange_connect.cc: from a socket to an established connection.
  void AcceptSome();
  void Admit(UniqueFd socket, const Endpoint& remote);
  void EvictUnfinished(const Endpoint& source);
  void Dial(Peer& peer);
  void DialAtNewAddress(Peer& peer);
  Connection* AddConnection(UniqueFd socket, bool dialer, const Endpoint& remote);
  void Serve(ConnectionId id, uint32_t events);
  bool Greet(Connection& connection);
  bool SayHello(Connection& connection, const Peer& peer);
  void TakeHello(Connection& connection, const Hello& hello);
  bool MayJoin(Peer& peer) const;
  void Establish(Connection& connection, Peer& peer, const Hello& hello);
  void UpdateInterest(Connection& connection);
  // Ends it with what it means for its peer. The connection is gone afterwards.
  void Drop(ConnectionId id, Refusal reason, const std::string& why, bool farewell);
  void NoteDialFailure(Peer& peer, Refusal reason, const std::string& why);

  // exchange_session.cc: what an established connection says, and sessions.
  void Take(Connection& connection, const Message& message);
  bool TakeKeys(Peer& peer, const Keys& keys);
  bool TakeRotate(Peer& peer, uint32_t epoch);
  bool TakeSwitched(Peer& peer, uint32_t epoch);
  bool TakeWorkers(Peer& peer, Connection& connection, const Workers& message);
  // Counts a message that a peer may send at will, and workers that it changes; false: too many.
  bool MayChange(Connection& connection, uint32_t workers = 0) const;
  void TellDrains(Peer& peer);
  void BeginSession(Peer& peer, uint64_t session, std::vector<Worker> workers);
  void EndSession(Peer& peer, Refusal reason);
  void BeginEpoch(Peer& peer, uint32_t epoch);
  void UpdateLanes(Peer& peer, bool epoch_begins);
  void AskForKeys(Peer& peer);
  LaneState* Asked(const LaneKey& key);
  void SendOffers(Peer& peer);
  void CheckComplete(Peer& peer);
  void RetireLast(Peer& peer);
  bool MayRotate(const Peer& peer) const;
  PacketSecret SecretOf(const Peer& peer, const Connection& connection, Lane lane, bool receiving) const;
  LaneKey KeyOf(const Peer& peer, Lane lane, uint32_t epoch) const;
  SessionInfo InfoOf(const Peer& peer) const;
  static std::vector<Worker> Located(std::vector<Worker> workers, const Endpoint& remote);
  void SendTo(Peer& peer, const Message& message);
  // Work that a public method has left for Step.
  void Defer() { deferred_ = true; }

  KeyExchangeOptions options_;
  KeyExchangeObserver* const observer_;
  CredentialFiles files_;
  std::shared_ptr<const Credentials> credentials_;
  Incarnation incarnation_{};
  Random random_;
  KeyExchangeCounters counters_;
  UniqueFd epoll_;
  uint64_t now_ns_ = 0;
  uint64_t look_due_ns_ = 0;
  uint64_t accept_again_ns_ = 0;  // Not 0: out of descriptors, and not accepting until then.
  bool expired_told_ = false;
  bool deferred_ = true;
  bool leaving_ = false;

  std::vector<Worker> workers_;  // As peers know them.
  std::vector<Worker>
      workers_next_;  // As they are: to be told at the time below, where that is another list.
  uint64_t workers_due_ns_ = 0;
  bool workers_changed_ = false;
  std::map<std::string, Drains> drains_to_;  // By peer
  std::set<uint16_t> worker_ids_used_;

  std::map<std::string, Peer> peers_;
  ConnectionId last_connection_ = 0;
  std::map<ConnectionId, std::unique_ptr<Connection>> connections_;
  std::list<ConnectionId> unfinished_;  // Accepted and not established, the oldest first.
};

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_EXCHANGE_H_
