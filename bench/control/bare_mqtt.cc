// SPDX-License-Identifier: Apache-2.0
// A channel of Propeller's at an MQTT broker: the results that proplets tell, whose events are numbered by
// their function, the digits of the task's id.
#include <mosquitto.h>
#include <simdjson.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/control/bare_source.h"
#include "dataplane/base/clock.h"

namespace weft::bench {
namespace {

constexpr int kQos = 2;  // As weft-control
constexpr int kKeepAliveS = 10;
constexpr int kTurnMs = 100;

struct Watcher {
  BareEvents events;
  simdjson::ondemand::parser parser;
  std::string topics;
};

void OnMessage(mosquitto* /*handle*/, void* self, const mosquitto_message* message) {
  const uint64_t now_ns = NowNs();
  auto* const watcher = static_cast<Watcher*>(self);
  const simdjson::padded_string text(static_cast<const char*>(message->payload),
                                     static_cast<std::size_t>(message->payloadlen));
  simdjson::ondemand::document document = watcher->parser.iterate(text);
  std::string_view task;
  if (document["task_id"].get_string().get(task) != simdjson::SUCCESS) return;  // A beat
  watcher->events.Add(std::strtoull(std::string(task.substr(1)).c_str(), nullptr, 10), now_ns);
}

void OnConnect(mosquitto* handle, void* self, int /*code*/) {
  mosquitto_subscribe(handle, nullptr, static_cast<Watcher*>(self)->topics.c_str(), kQos);
}

void OnSubscribe(mosquitto* /*handle*/, void* self, int /*id*/, int /*count*/, const int* /*granted*/) {
  static_cast<Watcher*>(self)->events.Ready();
}

}  // namespace

int BareMqttWatch(const std::string& port, const std::string& base_topic) {
  Watcher watcher;
  watcher.topics = base_topic + "/control/#";
  mosquitto_lib_init();
  mosquitto* const handle = mosquitto_new(nullptr, true, &watcher);
  mosquitto_connect_callback_set(handle, &OnConnect);
  mosquitto_subscribe_callback_set(handle, &OnSubscribe);
  mosquitto_message_callback_set(handle, &OnMessage);
  int code = mosquitto_connect(handle, "127.0.0.1", std::atoi(port.c_str()), kKeepAliveS);
  while (code == MOSQ_ERR_SUCCESS && !BareIsOver()) code = mosquitto_loop(handle, kTurnMs, 1);
  mosquitto_destroy(handle);
  // A signal ends the wait of the loop.
  if (code == MOSQ_ERR_SUCCESS || BareIsOver()) return watcher.events.Print();
  std::fprintf(stderr, "weft-bench-watch: MQTT broker on port %s: %s\n", port.c_str(),
               mosquitto_strerror(code));
  return 1;
}

}  // namespace weft::bench
