// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/mqtt_client.h"

#include <mosquitto.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/random.h"

namespace weft::control {
namespace {

constexpr int kKeepAliveS = 10;
// Between two tries, each cut by up to a half at random.
constexpr uint64_t kPauseMinMs = 200;
constexpr uint64_t kPauseMaxMs = 5'000;
// How long the thread sleeps while there is nothing to do; a message to send wakes it. While it connects a
// stop may come that does not.
constexpr int kTurnMs = kKeepAliveS * 1'000;
constexpr int kConnectingTurnMs = 1'000;
constexpr int kRefusedQos = 128;

}  // namespace

struct MqttClient::Library {
  mosquitto* handle = nullptr;
  MqttOptions options;
  UniqueFd wake;
  bool connected = false;  // On the thread alone
  uint64_t pause_ms = 0;   // On the thread alone
  std::thread thread;
  std::mutex mutex;
  std::condition_variable stopped;
  // Under the mutex:
  bool stop = false;
  std::vector<MqttEvent> queue;
  std::size_t queued_bytes = 0;
  bool overflow = false;

  ~Library() {
    if (handle == nullptr) return;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    stopped.notify_one();
    mosquitto_disconnect(handle);  // Wakes the thread, which says so to the broker.
    if (thread.joinable()) thread.join();
    mosquitto_destroy(handle);
  }

  // The library's own thread would do, but ends for good where the first try finds no broker, or one that
  // speaks another protocol or shows a wrong certificate.
  void Run() {
    Random random(NowNs());
    for (;;) {
      const int code = mosquitto_loop(handle, connected ? kTurnMs : kConnectingTurnMs, 1);
      std::unique_lock<std::mutex> lock(mutex);
      if (stop) return;
      if (code == MOSQ_ERR_SUCCESS) continue;
      connected = false;
      pause_ms = std::clamp(pause_ms * 2, kPauseMinMs, kPauseMaxMs);
      const std::chrono::milliseconds pause(pause_ms - random.Below(pause_ms / 2));
      if (stopped.wait_for(lock, pause, [this] { return stop; })) return;
      lock.unlock();
      mosquitto_reconnect_async(handle);
    }
  }

  // What is no message always finds room: there is one of it for each connection.
  void Push(MqttEvent event) {
    event.at_ns = NowNs();
    const std::size_t bytes = event.text.size() + event.topic.size() + sizeof(event);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (event.kind == MqttEvent::Kind::kMessage && queued_bytes + bytes > kQueueBytesMax) {
        if (std::exchange(overflow, true)) return;
        event = {MqttEvent::Kind::kOverflow, "", "", event.at_ns};
      }
      queued_bytes += bytes;
      queue.push_back(std::move(event));
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t woken = write(wake.get(), &one, sizeof(one));
  }

  std::string Named(const std::string& text) const {
    return absl::StrCat("MQTT broker ", options.host, ":", options.port, ": ", text);
  }

  static void OnConnect(mosquitto* handle, void* self, int code) {
    auto* library = static_cast<Library*>(self);
    library->connected = code == 0;
    if (code != 0) {
      const bool v5 = library->options.version == 5;
      const char* why = v5 ? mosquitto_reason_string(code) : mosquitto_connack_string(code);
      library->Push({MqttEvent::Kind::kLost, library->Named(why), "", 0});
      return;
    }
    library->pause_ms = 0;
    std::vector<char*> topics;
    for (std::string& topic : library->options.topics) topics.push_back(topic.data());
    mosquitto_subscribe_multiple(handle, nullptr, static_cast<int>(topics.size()), topics.data(),
                                 library->options.qos, 0, nullptr);
  }
  static void OnSubscribe(mosquitto* /*handle*/, void* self, int /*id*/, int count, const int* granted) {
    auto* library = static_cast<Library*>(self);
    for (int i = 0; i < count; ++i) {
      if (granted[i] < kRefusedQos) continue;
      const std::string& topic = library->options.topics[static_cast<std::size_t>(i)];
      library->Push({MqttEvent::Kind::kLost,
                     library->Named(absl::StrCat("refuses the subscription of ", topic)), "", 0});
      return;
    }
    library->Push({MqttEvent::Kind::kSubscribed, "", "", 0});
  }
  static void OnDisconnect(mosquitto* /*handle*/, void* self, int code) {
    auto* library = static_cast<Library*>(self);
    library->connected = false;
    library->Push({MqttEvent::Kind::kLost, library->Named(mosquitto_strerror(code)), "", 0});
  }
  // Why no connection comes about, as far as TLS is at fault, is told here and nowhere else.
  static void OnLog(mosquitto* /*handle*/, void* self, int level, const char* text) {
    auto* library = static_cast<Library*>(self);
    if (level != MOSQ_LOG_ERR || library->connected) return;
    library->Push({MqttEvent::Kind::kLost, library->Named(text), "", 0});
  }
  static void OnMessage(mosquitto* /*handle*/, void* self, const mosquitto_message* message) {
    MqttEvent event;
    event.kind = MqttEvent::Kind::kMessage;
    event.topic = message->topic;
    event.retained = message->retain;
    event.text.assign(static_cast<const char*>(message->payload),
                      static_cast<std::size_t>(message->payloadlen));
    static_cast<Library*>(self)->Push(std::move(event));
  }
};

MqttClient::MqttClient(std::unique_ptr<Library> library) : library_(std::move(library)) {}
MqttClient::~MqttClient() = default;

absl::StatusOr<std::unique_ptr<MqttClient>> MqttClient::Create(const MqttOptions& options) {
  static const int started = mosquitto_lib_init();
  if (started != MOSQ_ERR_SUCCESS) return absl::InternalError("libmosquitto does not start");
  auto library = std::make_unique<Library>();
  library->options = options;
  library->wake = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!library->wake.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  mosquitto* handle = library->handle = mosquitto_new(
      options.session.empty() ? nullptr : options.session.c_str(), options.session.empty(), library.get());
  if (handle == nullptr) return absl::ErrnoToStatus(errno, "make an MQTT client");
  mosquitto_connect_callback_set(handle, &Library::OnConnect);
  mosquitto_subscribe_callback_set(handle, &Library::OnSubscribe);
  mosquitto_disconnect_callback_set(handle, &Library::OnDisconnect);
  mosquitto_message_callback_set(handle, &Library::OnMessage);
  mosquitto_log_callback_set(handle, &Library::OnLog);
  mosquitto_int_option(handle, MOSQ_OPT_PROTOCOL_VERSION, options.version);
  if (!options.user.empty()) {
    mosquitto_username_pw_set(handle, options.user.c_str(), options.password.c_str());
  }
  if (!options.will_topic.empty()) {
    mosquitto_will_set(handle, options.will_topic.c_str(), static_cast<int>(options.will.size()),
                       options.will.data(), options.qos, false);
  }
  if (options.tls) {
    const auto or_null = [](const std::string& path) { return path.empty() ? nullptr : path.c_str(); };
    const char* system = options.files.ca.empty() ? "/etc/ssl/certs" : nullptr;
    const int code =
        mosquitto_tls_set(handle, or_null(options.files.ca), system, or_null(options.files.certificate),
                          or_null(options.files.key), nullptr);
    if (code != MOSQ_ERR_SUCCESS) {
      return absl::InvalidArgumentError(
          library->Named(absl::StrCat("certificates: ", mosquitto_strerror(code))));
    }
  }
  mosquitto_threaded_set(handle, true);
  // A broker that is not there now is tried again by the thread.
  if (mosquitto_connect_async(handle, options.host.c_str(), options.port, kKeepAliveS) == MOSQ_ERR_INVAL) {
    return absl::InvalidArgumentError(library->Named("no host to connect to"));
  }
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  library->thread = std::thread([self = library.get()] { self->Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::unique_ptr<MqttClient>(new MqttClient(std::move(library)));
}

int MqttClient::fd() const { return library_->wake.get(); }

std::vector<MqttEvent> MqttClient::Take() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t drained = read(library_->wake.get(), &count, sizeof(count));
  const std::lock_guard<std::mutex> lock(library_->mutex);
  library_->queued_bytes = 0;
  library_->overflow = false;
  return std::exchange(library_->queue, {});
}

bool MqttClient::Publish(const std::string& topic, const std::string& payload, bool retain) {
  return mosquitto_publish(library_->handle, nullptr, topic.c_str(), static_cast<int>(payload.size()),
                           payload.data(), library_->options.qos, retain) == MOSQ_ERR_SUCCESS;
}

}  // namespace weft::control
