// SPDX-License-Identifier: Apache-2.0
// The Propeller source of weft-control: subscribes to a channel's control topics, then reads the manager's
// lists, since no message is kept for who comes late; goes on with the messages, and reads the lists again
// every minute. Servers that only a list tells of are asked whether they listen. A lost broker or manager
// takes nothing back. One thread, beside its MQTT client's.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_SOURCE_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_SOURCE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/http_client.h"
#include "control/source/propeller/mqtt_client.h"
#include "control/source/propeller/propeller_state.h"
#include "control/source/propeller/tcp_probe.h"
#include "control/source/source.h"
#include "dataplane/base/random.h"

namespace weft::control {

struct PropellerOptions {
  MqttOptions mqtt;        // Its topic is made of `base_topic`.
  std::string base_topic;  // As in m/TENANT/c/CHANNEL
  std::string manager;     // URL, as in http://10.0.0.1:7070
  std::string ns = "propeller";
  uint64_t list_ns = 60 * kNsPerSecond;  // Between two lists
  bool allow_shrink = false;
  uint64_t seed = 1;
  // Takes part as a worker, whose tasks run on `host` of this node (propeller_worker.h).
  bool worker = false;
  std::string host;
  std::string proplet;  // Id at the manager; empty: the node's name
};

class PropellerSource final : public Source {
 public:
  static absl::StatusOr<std::unique_ptr<PropellerSource>> Create(PropellerOptions options);

  // Source
  void AddPollEntries(std::vector<pollfd>* entries) const override;
  std::vector<SourceChange> OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) override;
  uint64_t wake_ns() const override;
  std::vector<SourceChange> OnTime(uint64_t now_ns) override;
  bool Owns(absl::string_view origin) const override { return origin == origin_; }
  bool ReadsAtStart() const override { return false; }
  void OnAgent(const std::string& node) override { state_.set_node(node); }
  std::vector<std::string> TakeNotes() override { return std::exchange(notes_, {}); }
  std::string Name() const override { return origin_; }
  std::string Describe() const override;
  SourceHealth Health() const override;

 private:
  PropellerSource(PropellerOptions options, std::unique_ptr<HttpClient> http,
                  std::unique_ptr<MqttClient> mqtt);

  void TakeEvent(const MqttEvent& event);
  void TakeMessage(const MqttEvent& event);
  void List(bool extra);
  void AskPage();
  void TakePage(const absl::Status& status, long code);
  void EndList();
  void Lost(const std::string& why);
  void Probe();
  std::vector<SourceChange> TakeChanges();

  PropellerOptions options_;
  std::string origin_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<MqttClient> mqtt_;
  PropellerState state_;
  TcpProbe probe_;
  std::set<PropellerState::Server> probing_;
  Random random_;

  bool subscribed_ = false;
  bool listed_ = false;  // Since the subscription
  bool spoken_ = false;  // A whole list was read at some time: there is something to say.
  HttpClient::RequestId request_ = 0;
  bool proplets_ = false;  // What is being listed: these, then tasks.
  uint64_t offset_ = 0;
  std::string page_;
  uint64_t list_at_ns_ = 0;     // 0: not waiting
  uint64_t regular_at_ns_ = 0;  // When the next list is due that nothing asked for
  bool extra_ = false;          // The last list, or the one under way, was asked for.
  bool extra_due_ = false;      // So is the next one.
  uint64_t pause_ns_ = 0;

  uint64_t now_ns_ = 0;
  uint64_t event_ns_ = 0;  // Of the oldest message since the last change; 0: none
  uint64_t events_ = 0;
  uint64_t last_event_ns_ = 0;
  uint64_t errors_ = 0;
  uint64_t lost_ns_ = 0;
  std::string problem_;
  std::string bad_message_;  // The last one
  std::vector<std::string> notes_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_SOURCE_H_
