// SPDX-License-Identifier: Apache-2.0
// What stands in for Propeller's manager and registry at a real broker: says commands, and hears what the
// proplets say. Its lists are files behind a real HTTP server.
#ifndef WEFT_TESTS_SUPPORT_PROPELLER_MANAGER_H_
#define WEFT_TESTS_SUPPORT_PROPELLER_MANAGER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "control/source/propeller/mqtt_client.h"
#include "tests/support/mosquitto.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

class PropellerManager {
 public:
  static constexpr char kTopic[] = "m/T/c/C";

  // Where `network` is not null, both are there; it outlives this, as `broker` does.
  explicit PropellerManager(Mosquitto& broker, const NetworkNamespace* network = nullptr);

  std::string url() const;
  // The `propeller` entry of weft-control.yaml; `more` are further lines of it.
  std::string Settings(const std::string& more) const;

  void Start(const std::string& id, const std::string& name, const std::string& proplet,
             absl::string_view module, const std::string& more = "");
  void StartImage(const std::string& id, const std::string& name, const std::string& proplet,
                  const std::string& image);
  void Stop(const std::string& id);
  void Chunk(const std::string& image, std::size_t index, std::size_t total, absl::string_view bytes);
  void Say(const std::string& topic, const std::string& payload);

  // Waits for a message on `topic`, below the base topic, that contains `text`, and that was not waited for
  // before; returns whether it came.
  bool Hears(const std::string& topic, const std::string& text, absl::Duration timeout = absl::Seconds(20));
  // Messages on `topic` that contain `text`, so far.
  std::size_t Heard(const std::string& topic, const std::string& text);
  std::string Log();

 private:
  void Take();

  Mosquitto& broker_;
  TemporaryDirectory lists_;
  int port_ = 0;
  std::unique_ptr<Process> server_;
  std::unique_ptr<control::MqttClient> client_;
  struct Message {
    std::string topic, text;
    bool used = false;
  };
  std::vector<Message> messages_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_PROPELLER_MANAGER_H_
