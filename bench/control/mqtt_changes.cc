// SPDX-License-Identifier: Apache-2.0
// Propeller's channel at a mosquitto: a function is a task that runs on ten of a hundred proplets, whose
// results name the ports that they serve at. A broker keeps no message, so all of it is told again to a
// weft-control that begins; the manager's lists, files behind an HTTP server, are empty. An endpoint's weight
// is not said there: instead it serves at another port.
#include <mosquitto.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/control/change_source.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "tests/support/etcd.h"
#include "tests/support/mosquitto.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::bench {
namespace {

constexpr char kTopic[] = "m/bench/c/bench";
constexpr int kQos = 2;  // Propeller's
constexpr int kKeepAliveS = 60;
constexpr int kTurnMs = 1'000;
constexpr int kPort = 10'000;  // Of what has not changed yet
// A proplet beats every 10 s.
constexpr uint64_t kBeatNs = 10 * kNsPerSecond / kNodes;
// Told at once; the broker drops what more than a thousand messages a subscriber is behind with.
constexpr uint64_t kAheadMax = 500;
constexpr uint64_t kTellNsMax = 120 * kNsPerSecond;
constexpr uint64_t kLookNs = 2 * kNsPerMs;

std::string TaskId(int function) { return absl::StrFormat("t%05d", function); }

std::string ResultJson(int function, int endpoint, int port) {
  return absl::StrCat(R"({"task_id":")", TaskId(function), R"(","proplet_id":")",
                      NodeName(NodeOf(function, endpoint)), "\",",
                      port == 0 ? R"("results":"","error":"stopped"})"
                                : absl::StrCat(R"("results":"started at port )", port, "\"}"));
}

// A connection to the broker that is written to, by one thread.
class Publisher {
 public:
  static absl::StatusOr<std::unique_ptr<Publisher>> Connect(uint16_t port) {
    std::unique_ptr<Publisher> publisher(new Publisher());
    const int code = mosquitto_connect(publisher->handle_, "127.0.0.1", port, kKeepAliveS);
    if (code != MOSQ_ERR_SUCCESS) return ErrorOf(code);
    // The broker's answer, too, is no part of the first event.
    while (!publisher->connected_) WEFT_RETURN_IF_ERROR(publisher->Turn());
    return publisher;
  }
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;
  ~Publisher() { mosquitto_destroy(handle_); }

  absl::Status Publish(const std::string& topic, const std::string& payload) {
    const int code = mosquitto_publish(handle_, nullptr, absl::StrCat(kTopic, "/control/", topic).c_str(),
                                       static_cast<int>(payload.size()), payload.data(), kQos, false);
    if (code != MOSQ_ERR_SUCCESS) return ErrorOf(code);
    ++published_;
    return absl::OkStatus();
  }
  // Until the broker has taken all.
  absl::Status Flush() {
    while (taken_ < published_) WEFT_RETURN_IF_ERROR(Turn());
    return absl::OkStatus();
  }
  uint64_t published() const { return published_; }

 private:
  Publisher() : handle_(mosquitto_new(nullptr, true, this)) {
    mosquitto_connect_callback_set(handle_, [](mosquitto* /*handle*/, void* self, int code) {
      static_cast<Publisher*>(self)->connected_ = code == 0;
    });
    mosquitto_publish_callback_set(handle_, [](mosquitto* /*handle*/, void* self, int /*id*/) {
      ++static_cast<Publisher*>(self)->taken_;
    });
  }
  absl::Status Turn() {
    const int code = mosquitto_loop(handle_, kTurnMs, 1);
    return code == MOSQ_ERR_SUCCESS ? absl::OkStatus() : ErrorOf(code);
  }
  static absl::Status ErrorOf(int code) {
    return absl::UnavailableError(absl::StrCat("MQTT broker: ", mosquitto_strerror(code)));
  }

  mosquitto* handle_;
  bool connected_ = false;
  uint64_t published_ = 0;
  uint64_t taken_ = 0;
};

class MqttWriter final : public ChangeWriter {
 public:
  MqttWriter(std::unique_ptr<Publisher> publisher, int functions)
      : publisher_(std::move(publisher)), functions_(functions) {}

  absl::StatusOr<uint64_t> Write(uint64_t event) override {
    const ChangeEvent change = EventOf(event, functions_);
    // Never the port that it has: each pass has another, and who comes back another than who was there.
    const int port = change.kind == ChangeEvent::Kind::kRemove   ? 0
                     : change.kind == ChangeEvent::Kind::kWeight ? kPort + 1 + change.pass % 99
                                                                 : kPort + 101 + change.pass % 99;
    WEFT_RETURN_IF_ERROR(
        publisher_->Publish("proplet/results", ResultJson(change.function, change.endpoint, port)));
    WEFT_RETURN_IF_ERROR(publisher_->Flush());
    return static_cast<uint64_t>(change.function);
  }

 private:
  std::unique_ptr<Publisher> publisher_;
  int functions_;
};

class MqttChangeSource final : public ChangeSource {
 public:
  MqttChangeSource() : manager_port_(test::FreePort()) {
    test::WriteFile(lists_ / "tasks", R"({"total":0,"tasks":[]})");
    test::WriteFile(lists_ / "proplets", R"({"total":0,"proplets":[]})");
    test::ProcessOptions options;
    options.arguments = {"/usr/bin/python3", "-m",          "http.server", "--bind",
                         "127.0.0.1",        "--directory", lists_.path(), absl::StrCat(manager_port_)};
    options.log = lists_ / "log";
    manager_ = std::make_unique<test::Process>(options);
  }
  ~MqttChangeSource() override {
    over_.store(true, std::memory_order_relaxed);
    if (beats_.joinable()) beats_.join();
  }

  std::string name() const override { return "mqtt"; }
  Numbering numbering() const override { return Numbering::kByTime; }
  bool HasList() const override { return false; }
  std::string Settings() const override {
    return absl::StrCat("propeller:\n  broker: mqtt://127.0.0.1:", broker_.port(),
                        "\n  manager: http://127.0.0.1:", manager_port_, "\n  topic: ", kTopic,
                        "\n  namespace: app\n");
  }
  std::vector<std::string> WatchArguments() const override { return {absl::StrCat(broker_.port()), kTopic}; }

  absl::Status Fill(int functions, const std::function<void(const std::string&)>& /*progress*/) override {
    functions_ = functions;
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Publisher> publisher, Publisher::Connect(broker_.port()));
    beats_ = std::thread([this, publisher = std::move(publisher)] {
      for (int node = 0; !over_.load(std::memory_order_relaxed); node = (node + 1) % kNodes) {
        absl::SleepFor(absl::Nanoseconds(kBeatNs));
        const std::string beat = absl::StrCat(R"({"proplet_id":")", NodeName(node), R"(","status":"alive"})");
        if (!publisher->Publish("proplet/alive", beat).ok() || !publisher->Flush().ok()) return;
      }
    });
    return absl::OkStatus();
  }

  // No faster than they are taken: `taken` is how many messages that were.
  absl::Status Tell(const std::function<uint64_t()>& taken) override {
    const uint64_t until_ns = NowNs() + kTellNsMax;
    const auto wait_for = [&](uint64_t count) {
      while (taken() < count) {
        if (NowNs() > until_ns) return absl::DeadlineExceededError("weft-control does not take all messages");
        absl::SleepFor(absl::Nanoseconds(kLookNs));
      }
      return absl::OkStatus();
    };
    WEFT_RETURN_IF_ERROR(wait_for(1));  // A beat: it listens.
    WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Publisher> publisher, Publisher::Connect(broker_.port()));
    const uint64_t before = taken();  // Beats count, too: it may be somewhat more than waited for.
    for (int node = 0; node < kNodes; ++node) {
      WEFT_RETURN_IF_ERROR(publisher->Publish(
          "proplet/create", absl::StrCat(R"({"proplet_id":")", NodeName(node),
                                         R"(","metadata":{"ip":"10.0.0.)", node + 1, "\"}}")));
    }
    uint64_t waited = 0;
    for (int function = 0; function < functions_; ++function) {
      WEFT_RETURN_IF_ERROR(publisher->Publish(
          "manager/start",
          absl::StrCat(R"({"id":")", TaskId(function), R"(","name":")", FunctionName(function),
                       R"(","proplet_id":")", NodeName(NodeOf(function, 0)), "\"}")));
      for (int endpoint = 0; endpoint < kEndpointsPerFunction; ++endpoint) {
        WEFT_RETURN_IF_ERROR(publisher->Publish("proplet/results", ResultJson(function, endpoint, kPort)));
      }
      if (publisher->published() < waited + kAheadMax && function + 1 < functions_) continue;
      WEFT_RETURN_IF_ERROR(publisher->Flush());
      waited = publisher->published();
      WEFT_RETURN_IF_ERROR(wait_for(before + waited));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<ChangeWriter>> NewWriter() override {
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Publisher> publisher, Publisher::Connect(broker_.port()));
    return std::make_unique<MqttWriter>(std::move(publisher), functions_);
  }

 private:
  test::Mosquitto broker_;
  test::TemporaryDirectory lists_;
  int manager_port_;
  std::unique_ptr<test::Process> manager_;
  int functions_ = 0;
  std::atomic<bool> over_{false};
  std::thread beats_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChangeSource>> NewMqttChangeSource() {
  if (!test::Mosquitto::Installed())
    return absl::NotFoundError("no mosquitto on this machine: tools/setup test fetches it");
  return std::make_unique<MqttChangeSource>();
}

}  // namespace weft::bench
