// SPDX-License-Identifier: Apache-2.0
#include "tests/support/propeller_manager.h"

#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/check.h"
#include "tests/support/etcd.h"

namespace weft::test {

PropellerManager::PropellerManager(Mosquitto& broker, const NetworkNamespace* network)
    : broker_(broker), port_(FreePort()) {
  WriteFile(lists_ / "tasks", R"({"total":0,"tasks":[]})");
  WriteFile(lists_ / "proplets", R"({"total":0,"proplets":[]})");
  std::optional<InNamespace> inside;
  if (network != nullptr) inside.emplace(*network);
  ProcessOptions options;
  options.arguments = {"/usr/bin/python3", "-m",          "http.server", "--bind",
                       broker.address(),   "--directory", lists_.path(), absl::StrCat(port_)};
  options.log = lists_ / "log";
  server_ = std::make_unique<Process>(options);
  control::MqttOptions mqtt;
  mqtt.host = broker.address();
  mqtt.port = broker.port();
  mqtt.topics = {absl::StrCat(kTopic, "/control/proplet/#"), absl::StrCat(kTopic, "/registry/proplet"),
                 absl::StrCat(kTopic, "/weft/+")};
  auto client = control::MqttClient::Create(mqtt);
  WEFT_CHECK(client.ok());
  client_ = *std::move(client);
  bool subscribed = false;
  WEFT_CHECK(Eventually([&] {
    for (const control::MqttEvent& event : client_->Take())
      subscribed |= event.kind == control::MqttEvent::Kind::kSubscribed;
    return subscribed;
  }));
}

std::string PropellerManager::url() const { return absl::StrCat("http://", broker_.address(), ":", port_); }

std::string PropellerManager::Settings(const std::string& more) const {
  return absl::StrCat("propeller:\n  broker: mqtt://", broker_.address(), ":", broker_.port(),
                      "\n  manager: ", url(), "\n  topic: ", kTopic, "\n", more);
}

void PropellerManager::Say(const std::string& topic, const std::string& payload) {
  broker_.Publish(absl::StrCat(kTopic, "/", topic), payload);
}

void PropellerManager::Start(const std::string& id, const std::string& name, const std::string& proplet,
                             absl::string_view module, const std::string& more) {
  Say("control/manager/start", absl::StrCat(R"({"id":")", id, R"(","name":")", name,
                                            R"(","state":0,"file":")", absl::Base64Escape(module), "\",",
                                            absl::StrContains(more, "cli_args") ? "" : R"("cli_args":null,)",
                                            R"("broadcast":false,"daemon":true,)",
                                            absl::StrContains(more, "latent") ? "" : R"("latent":false,)",
                                            R"("encrypted":false,"proplet_id":")", proplet, "\"", more, "}"));
}

void PropellerManager::StartImage(const std::string& id, const std::string& name, const std::string& proplet,
                                  const std::string& image) {
  Say("control/manager/start", absl::StrCat(R"({"id":")", id, R"(","name":")", name, R"(","image_url":")",
                                            image, R"(","proplet_id":")", proplet, "\"}"));
}

void PropellerManager::Stop(const std::string& id) {
  Say("control/manager/stop", absl::StrCat(R"({"id":")", id, "\"}"));
}

void PropellerManager::Chunk(const std::string& image, std::size_t index, std::size_t total,
                             absl::string_view bytes) {
  Say("registry/server",
      absl::StrCat(R"({"app_name":")", image, R"(","chunk_idx":)", index, R"(,"total_chunks":)", total,
                   R"(,"data":")", absl::Base64Escape(bytes), "\"}"));
}

void PropellerManager::Take() {
  for (control::MqttEvent& event : client_->Take()) {
    if (event.kind != control::MqttEvent::Kind::kMessage) continue;
    absl::string_view topic = event.topic;
    absl::ConsumePrefix(&topic, absl::StrCat(kTopic, "/"));
    messages_.push_back({std::string(topic), std::move(event.text)});
  }
}

bool PropellerManager::Hears(const std::string& topic, const std::string& text, absl::Duration timeout) {
  return Eventually(
      [&] {
        Take();
        for (Message& message : messages_) {
          if (message.used || message.topic != topic || !absl::StrContains(message.text, text)) continue;
          message.used = true;
          return true;
        }
        return false;
      },
      timeout);
}

std::size_t PropellerManager::Heard(const std::string& topic, const std::string& text) {
  Take();
  std::size_t heard = 0;
  for (const Message& message : messages_)
    heard += message.topic == topic && absl::StrContains(message.text, text);
  return heard;
}

std::string PropellerManager::Log() {
  Take();
  std::string log;
  for (const Message& message : messages_) absl::StrAppend(&log, message.topic, " ", message.text, "\n");
  return log;
}

}  // namespace weft::test
