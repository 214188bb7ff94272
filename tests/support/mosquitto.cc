// SPDX-License-Identifier: Apache-2.0
#include "tests/support/mosquitto.h"

#include <mosquitto.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "dataplane/base/check.h"
#include "tests/support/etcd.h"

namespace weft::test {
namespace {

constexpr int kKeepAliveS = 10;
constexpr std::size_t kInFlight = 20;
constexpr int kTurns = 200;  // Of at most 10 ms each

// What tools/setup fetched, else the machine's own. Empty: there is none.
std::string Program() {
  for (const char* path : {WEFT_SOURCE_DIR "/build/programs/mosquitto", "/usr/sbin/mosquitto"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

}  // namespace

bool Mosquitto::Installed() { return !Program().empty(); }

Mosquitto::Mosquitto(control::TlsFiles server, control::TlsFiles client)
    : server_(std::move(server)), client_(std::move(client)), port_(static_cast<uint16_t>(FreePort())) {
  mosquitto_lib_init();
  Start();
}

Mosquitto::Mosquitto(const NetworkNamespace& network, std::string address)
    : network_(&network), address_(std::move(address)), port_(static_cast<uint16_t>(FreePort())) {
  mosquitto_lib_init();
  Start();
}

void Mosquitto::Start() {
  std::string config =
      absl::StrCat("listener ", port_, " ", address_,
                   "\nallow_anonymous true\npersistence false\nuser root\n"
                   // By default a broker drops what a slow subscriber has above 1,000 waiting.
                   "max_queued_messages 20000\n");
  if (!server_.certificate.empty()) {
    absl::StrAppend(&config, "cafile ", server_.ca, "\ncertfile ", server_.certificate, "\nkeyfile ",
                    server_.key, "\nrequire_certificate true\n");
  }
  WriteFile(directory_ / "mosquitto.conf", config);
  ProcessOptions options;
  options.arguments = {Program(), "-c", directory_ / "mosquitto.conf"};
  options.log = directory_ / "log";
  {
    std::optional<InNamespace> inside;
    if (network_ != nullptr) inside.emplace(*network_);
    process_ = std::make_unique<Process>(options);
  }
  const bool up = Eventually([this] { return TryPublish("up", "", false); }, absl::Seconds(20));
  if (!up) std::fprintf(stderr, "%s\n", process_->Output().c_str());
  WEFT_CHECK(up);
}

void Mosquitto::Publish(const std::string& topic, const std::string& payload, bool retain) {
  WEFT_CHECK(Eventually([&] { return TryPublish(topic, payload, retain); }, absl::Seconds(20)));
}

void Mosquitto::PublishAll(const std::vector<std::pair<std::string, std::string>>& messages) {
  std::optional<InNamespace> inside;
  if (network_ != nullptr) inside.emplace(*network_);
  std::size_t published = 0;
  mosquitto* handle = mosquitto_new(nullptr, true, &published);
  mosquitto_publish_callback_set(
      handle, [](mosquitto* /*handle*/, void* done, int /*id*/) { ++*static_cast<std::size_t*>(done); });
  WEFT_CHECK(mosquitto_connect(handle, address_.c_str(), port_, kKeepAliveS) == MOSQ_ERR_SUCCESS);
  std::size_t said = 0;
  while (published < messages.size()) {
    // As many as the broker acknowledges at once.
    for (; said < messages.size() && said < published + kInFlight; ++said) {
      const auto& [topic, payload] = messages[said];
      WEFT_CHECK(mosquitto_publish(handle, nullptr, topic.c_str(), static_cast<int>(payload.size()),
                                   payload.data(), 1, false) == MOSQ_ERR_SUCCESS);
    }
    WEFT_CHECK(mosquitto_loop(handle, 10, 1) == MOSQ_ERR_SUCCESS);
  }
  mosquitto_disconnect(handle);
  mosquitto_destroy(handle);
}

bool Mosquitto::TryPublish(const std::string& topic, const std::string& payload, bool retain) {
  std::optional<InNamespace> inside;
  if (network_ != nullptr) inside.emplace(*network_);
  bool published = false;
  mosquitto* handle = mosquitto_new(nullptr, true, &published);
  mosquitto_publish_callback_set(
      handle, [](mosquitto* /*handle*/, void* done, int /*id*/) { *static_cast<bool*>(done) = true; });
  if (!client_.certificate.empty()) {
    mosquitto_tls_set(handle, client_.ca.c_str(), nullptr, client_.certificate.c_str(), client_.key.c_str(),
                      nullptr);
  }
  if (mosquitto_connect(handle, address_.c_str(), port_, kKeepAliveS) == MOSQ_ERR_SUCCESS &&
      mosquitto_publish(handle, nullptr, topic.c_str(), static_cast<int>(payload.size()), payload.data(), 1,
                        retain) == MOSQ_ERR_SUCCESS) {
    for (int i = 0; i < kTurns && !published; ++i) {
      if (mosquitto_loop(handle, 10, 1) != MOSQ_ERR_SUCCESS) break;
    }
  }
  mosquitto_disconnect(handle);
  mosquitto_destroy(handle);
  return published;
}

}  // namespace weft::test
