// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_source.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

constexpr uint64_t kPageEntries = 100;  // The manager's own limit
constexpr std::size_t kPageBytesMax = std::size_t{64} << 20;
constexpr uint64_t kPauseMinNs = 100 * kNsPerMs;
constexpr uint64_t kPauseMaxNs = 5 * kNsPerSecond;
// Between a message that only a list explains and that list.
constexpr uint64_t kAskAgainNs = kNsPerSecond;
constexpr std::size_t kProbesMax = 32;
constexpr std::size_t kQuotedBytesMax = 200;
// Entries of one list: twice the tasks that are taken. A manager could say at each page that there are more.
constexpr uint64_t kListEntriesMax = 2 * PropellerState::kTasksMax;

}  // namespace

absl::StatusOr<std::unique_ptr<PropellerSource>> PropellerSource::Create(PropellerOptions options) {
  options.mqtt.topics = {absl::StrCat(options.base_topic, "/control/#"),
                         absl::StrCat(options.base_topic, "/", kWorkerTopic, "+")};
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, HttpClient::Create());
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<MqttClient> mqtt, MqttClient::Create(options.mqtt));
  return std::unique_ptr<PropellerSource>(
      new PropellerSource(std::move(options), std::move(http), std::move(mqtt)));
}

PropellerSource::PropellerSource(PropellerOptions options, std::unique_ptr<HttpClient> http,
                                 std::unique_ptr<MqttClient> mqtt)
    : options_(std::move(options)),
      origin_(absl::StrCat("propeller:", options_.base_topic)),
      http_(std::move(http)),
      mqtt_(std::move(mqtt)),
      state_(options_.ns),
      random_(options_.seed),
      problem_(
          absl::StrCat("MQTT broker ", options_.mqtt.host, ":", options_.mqtt.port, ": no connection yet")) {}

void PropellerSource::AddPollEntries(std::vector<pollfd>* entries) const {
  entries->push_back({mqtt_->fd(), POLLIN, 0});
  http_->AddPollEntries(entries);
  probe_.AddPollEntries(entries);
}

std::vector<SourceChange> PropellerSource::OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) {
  now_ns_ = now_ns;
  for (const MqttEvent& event : mqtt_->Take()) TakeEvent(event);
  http_->OnEvents(entries);
  probe_.OnEvents(entries);
  return TakeChanges();
}

uint64_t PropellerSource::wake_ns() const {
  uint64_t wake_ns = 0;
  // Nobody counts as silent while nobody listens.
  for (const uint64_t at_ns :
       {list_at_ns_, http_->wake_ns(), probe_.wake_ns(), subscribed_ ? state_.wake_ns() : 0}) {
    if (at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
  }
  return wake_ns;
}

std::vector<SourceChange> PropellerSource::OnTime(uint64_t now_ns) {
  now_ns_ = now_ns;
  http_->OnTime(now_ns);
  probe_.OnTime(now_ns);
  if (subscribed_) state_.OnTime(now_ns);
  if (list_at_ns_ != 0 && now_ns >= list_at_ns_) List(std::exchange(extra_due_, false));
  return TakeChanges();
}

void PropellerSource::TakeEvent(const MqttEvent& event) {
  switch (event.kind) {
    case MqttEvent::Kind::kSubscribed:
      subscribed_ = true;
      state_.Doubt(now_ns_);
      return List(false);
    case MqttEvent::Kind::kLost:
      subscribed_ = false;
      listed_ = false;
      if (request_ != 0) http_->Cancel(std::exchange(request_, 0));
      list_at_ns_ = 0;  // The next subscription begins one.
      return Lost(event.text);
    case MqttEvent::Kind::kOverflow:
      ++errors_;
      notes_.push_back(
          absl::StrCat(origin_, ": messages came faster than they were taken; listing all again"));
      state_.Doubt(now_ns_);
      return List(false);
    case MqttEvent::Kind::kMessage:
      return TakeMessage(event);
  }
}

void PropellerSource::TakeMessage(const MqttEvent& event) {
  absl::string_view topic = event.topic;
  if (!absl::ConsumePrefix(&topic, options_.base_topic + "/")) return;
  ++events_;
  last_event_ns_ = event.at_ns;
  // Propeller keeps no message; of one that was kept nobody knows whether it still holds.
  if (event.retained && !absl::StartsWith(topic, kWorkerTopic)) {
    ++errors_;
    notes_.push_back(absl::StrCat(origin_, ": not taken: a message on ",
                                  Utf8Prefix(event.topic, kQuotedBytesMax), " that the broker kept"));
    return;
  }
  if (event_ns_ == 0) event_ns_ = event.at_ns;
  const absl::StatusOr<PropellerMessage> message = ParsePropellerMessage(topic, event.text);
  if (!message.ok()) {
    ++errors_;
    // Never the payload: it may hold secrets.
    std::string why = absl::StrCat("a message on ", Utf8Prefix(event.topic, kQuotedBytesMax), " ",
                                   message.status().message());
    if (why != bad_message_) notes_.push_back(absl::StrCat(origin_, ": not taken: ", why));
    bad_message_ = std::move(why);
    return;
  }
  const std::size_t refused = state_.refused().size();
  state_.Take(*message, now_ns_);
  if (state_.refused().size() > refused) {
    const auto why = state_.refused().find(message->task.empty() ? message->proplet : message->task);
    if (why != state_.refused().end()) notes_.push_back(absl::StrCat(origin_, ": not taken: ", why->second));
  }
}

// One list between two regular ones is extra: where tasks come and go all the time, each would ask for
// another.
void PropellerSource::List(bool extra) {
  if (request_ != 0) http_->Cancel(std::exchange(request_, 0));
  list_at_ns_ = 0;
  extra_due_ = false;
  extra_ = extra;
  state_.TakeWantsList();  // This one answers it.
  proplets_ = true;
  offset_ = 0;
  state_.BeginList(now_ns_);
  AskPage();
}

void PropellerSource::AskPage() {
  page_.clear();
  HttpRequest request;
  request.url = absl::StrCat(options_.manager, proplets_ ? "/proplets" : "/tasks", "?offset=", offset_,
                             "&limit=", kPageEntries);
  request.tls = options_.mqtt.files;
  request_ =
      http_->Start(std::move(request), {.on_data =
                                            [this](absl::string_view piece, long /*code*/) {
                                              absl::StrAppend(&page_, piece);
                                              if (page_.size() <= kPageBytesMax) return true;
                                              request_ = 0;
                                              TakePage(absl::ResourceExhaustedError("a page is too long"), 0);
                                              return false;
                                            },
                                        .on_done =
                                            [this](const absl::Status& status, long code) {
                                              request_ = 0;
                                              TakePage(status, code);
                                            }});
}

void PropellerSource::TakePage(const absl::Status& status, long code) {
  const auto read = [&]() -> absl::StatusOr<PropellerPage> {
    if (!status.ok()) return status;
    if (code != 200) return absl::UnavailableError(absl::StrCat("HTTP status ", code));
    return ParsePropellerPage(page_);
  };
  const absl::StatusOr<PropellerPage> page = read();
  if (!page.ok()) {
    Lost(absl::StrCat("Propeller's manager at ", options_.manager, ": ", page.status().message()));
    pause_ns_ = std::clamp(pause_ns_ * 2, kPauseMinNs, kPauseMaxNs);
    list_at_ns_ = now_ns_ + pause_ns_ - random_.Below(pause_ns_ / 2);
    return;
  }
  for (const std::string& problem : page->problems) {
    ++errors_;
    notes_.push_back(absl::StrCat(origin_, ": not taken: ", problem));
  }
  state_.TakePage(*page, now_ns_);
  offset_ += page->entries;
  if (offset_ > kListEntriesMax) {
    Lost(absl::StrCat("Propeller's manager at ", options_.manager, ": lists more than ", kListEntriesMax,
                      " entries"));
    list_at_ns_ = now_ns_ + options_.list_ns;
    return;
  }
  if (page->entries != 0 && offset_ < page->total) return AskPage();
  if (!std::exchange(proplets_, false)) return EndList();
  offset_ = 0;
  AskPage();
}

void PropellerSource::EndList() {
  if (const std::size_t kept = state_.EndList(options_.allow_shrink); kept != 0) {
    notes_.push_back(absl::StrCat(origin_, ": the manager lists no task: keeping ", kept,
                                  "; start with --allow-shrink if they are to go"));
  }
  listed_ = subscribed_;
  spoken_ = true;
  if (listed_) {
    problem_.clear();
    lost_ns_ = 0;
  }
  pause_ns_ = 0;
  if (!extra_) regular_at_ns_ = now_ns_ + options_.list_ns;
  list_at_ns_ = regular_at_ns_;
}

void PropellerSource::Lost(const std::string& why) {
  ++errors_;
  if (why != problem_) notes_.push_back(absl::StrCat(origin_, ": ", why, "; trying again"));
  problem_ = why;
  if (lost_ns_ == 0 && spoken_) lost_ns_ = now_ns_;
  listed_ = false;
}

void PropellerSource::Probe() {
  // Those that are being asked are doubtful still.
  for (const PropellerState::Server& server : state_.Doubtful(2 * kProbesMax)) {
    if (probing_.size() >= kProbesMax) return;
    if (!probing_.insert(server).second) continue;
    probe_.Start(server.ip, server.port, now_ns_, [this, server](bool listens) {
      probing_.erase(server);
      state_.Judge(server, listens);
    });
  }
}

std::vector<SourceChange> PropellerSource::TakeChanges() {
  std::vector<SourceChange> changes;
  Probe();
  if (listed_ && request_ == 0 && !extra_ && !extra_due_ && state_.TakeWantsList()) {
    const uint64_t at_ns = now_ns_ + kAskAgainNs;
    extra_due_ = at_ns < list_at_ns_;
    list_at_ns_ = std::min(list_at_ns_, at_ns);
  }
  if (!spoken_ || !state_.changed()) {
    event_ns_ = 0;  // A message that changes nothing is no cause of what comes later.
    return changes;
  }
  SourceChange& change = changes.emplace_back();
  change.origin = origin_;
  change.cause = absl::StrCat("propeller event ", events_);
  change.event_ns = std::exchange(event_ns_, 0);
  change.offer = state_.TakeOffer(origin_);
  return changes;
}

std::string PropellerSource::Describe() const {
  return absl::StrCat("propeller ", options_.mqtt.host, ":", options_.mqtt.port, " ", options_.base_topic,
                      " (", state_.tasks(), " tasks)");
}

SourceHealth PropellerSource::Health() const {
  SourceHealth health;
  health.synced = subscribed_ && listed_;
  health.events = events_;
  health.last_event_ns = last_event_ns_;
  health.refused = state_.refused().size();
  health.errors = errors_;
  health.lost_ns = lost_ns_;
  health.problem = !problem_.empty()           ? problem_
                   : !state_.refused().empty() ? state_.refused().begin()->second
                                               : bad_message_;
  return health;
}

}  // namespace weft::control
