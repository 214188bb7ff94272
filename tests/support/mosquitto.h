// SPDX-License-Identifier: Apache-2.0
// A real MQTT broker on a free port, and a publisher.
#ifndef WEFT_TESTS_SUPPORT_MOSQUITTO_H_
#define WEFT_TESTS_SUPPORT_MOSQUITTO_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/source/http_client.h"
#include "tests/support/network.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

class Mosquitto {
 public:
  // False where this machine has no mosquitto: the test says so and skips.
  static bool Installed();

  // Starts it and waits until it answers. `server`: TLS, and clients must show a certificate of the same CA.
  explicit Mosquitto(control::TlsFiles server = {}, control::TlsFiles client = {});
  // At `address` of a namespace, which outlives it.
  Mosquitto(const NetworkNamespace& network, std::string address);

  const std::string& address() const { return address_; }

  uint16_t port() const { return port_; }
  void Start();
  void Kill() { process_->Kill(); }
  // Until the broker has it. By MQTT 3.1.1.
  void Publish(const std::string& topic, const std::string& payload, bool retain = false);
  // All of them over one connection, as fast as the broker takes them; returns when it has them all.
  void PublishAll(const std::vector<std::pair<std::string, std::string>>& messages);

 private:
  bool TryPublish(const std::string& topic, const std::string& payload, bool retain);

  const NetworkNamespace* network_ = nullptr;
  std::string address_ = "127.0.0.1";
  control::TlsFiles server_;
  control::TlsFiles client_;
  TemporaryDirectory directory_;
  uint16_t port_;
  std::unique_ptr<Process> process_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_MOSQUITTO_H_
