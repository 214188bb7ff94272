// SPDX-License-Identifier: Apache-2.0
// A connection to an MQTT broker (3.1.1 or 5), over libmosquitto. A thread connects, again and again with
// growing pauses, and subscribes; what comes waits in a bounded queue for the owner, whom a descriptor wakes.
// Everything but that is on the owner's thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_MQTT_CLIENT_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_MQTT_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/http_client.h"

namespace weft::control {

struct MqttOptions {
  std::string host;
  uint16_t port = 1883;
  bool tls = false;
  TlsFiles files;
  std::string user;  // Empty: none
  std::string password;
  int version = 4;                  // 4 is 3.1.1; 5 is 5.
  std::vector<std::string> topics;  // Subscribed to
  int qos = 2;
  // Not empty: our name at the broker, which keeps what is said while we are away (by 3.1.1 only).
  std::string session;
  std::string will_topic;  // Empty: the broker says nothing of us when the connection is lost.
  std::string will;
};

struct MqttEvent {
  enum class Kind : uint8_t {
    kSubscribed,  // From here on every message comes.
    kLost,        // `text` says why; messages are missed until kSubscribed.
    kMessage,
    kOverflow,  // Messages were dropped: the owner was too slow.
  };
  Kind kind = Kind::kLost;
  std::string text;  // Payload of a message
  std::string topic;
  uint64_t at_ns = 0;     // CLOCK_MONOTONIC: when it came
  bool retained = false;  // The broker kept it from some earlier time.
};

class MqttClient {
 public:
  static constexpr std::size_t kQueueBytesMax = std::size_t{64} << 20;

  // Starts the thread. Whether a broker answers is told by events.
  static absl::StatusOr<std::unique_ptr<MqttClient>> Create(const MqttOptions& options);
  MqttClient(const MqttClient&) = delete;
  MqttClient& operator=(const MqttClient&) = delete;
  ~MqttClient();

  int fd() const;  // Readable where events wait
  std::vector<MqttEvent> Take();
  // Hands the message over to be sent by the subscription's quality of service; false where there is no
  // connection, or no room. Never blocks.
  bool Publish(const std::string& topic, const std::string& payload, bool retain = false);

 private:
  struct Library;  // libmosquitto's handle and callbacks, and the queue.

  explicit MqttClient(std::unique_ptr<Library> library);

  std::unique_ptr<Library> library_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_MQTT_CLIENT_H_
