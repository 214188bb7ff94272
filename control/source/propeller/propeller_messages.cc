// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_messages.h"

#include <arpa/inet.h>
#include <simdjson.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "control/source/propeller/propeller_json.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

using simdjson::dom::element;

// What a task may be in; a newer manager may know more.
enum State : int64_t { kFailed = 4, kSkipped = 5, kInterrupted = 6 };

// One parser a thread: it keeps its buffers. What it returns lives until its next use.
absl::StatusOr<element> ParseObject(absl::string_view text) {
  thread_local simdjson::dom::parser parser;
  element root;
  if (parser.parse(text.data(), text.size()).get(root) != simdjson::SUCCESS || !root.is_object()) {
    return absl::InvalidArgumentError("is no JSON object");
  }
  return root;
}

// A result is a text, or an object from some workers, which tells of no port.
std::string ResultOf(const element& from) {
  std::string_view text;
  return from["results"].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

// An error is null, empty, or says that the task does not run.
bool FailedIn(const element& from) {
  element error;
  if (from["error"].get(error) != simdjson::SUCCESS || error.is_null()) return false;
  std::string_view text;
  return error.get(text) != simdjson::SUCCESS || !text.empty();
}

// Empty where it is missing or no address: a proplet may not know its own.
std::string IpOf(const element& from) {
  std::string_view text;
  if (from["metadata"]["ip"].get(text) != simdjson::SUCCESS) return "";
  const std::string ip(text);
  unsigned char bytes[sizeof(in6_addr)];
  const bool good = inet_pton(AF_INET, ip.c_str(), bytes) == 1 || inet_pton(AF_INET6, ip.c_str(), bytes) == 1;
  return good ? ip : "";
}

PropellerMessage::Kind KindOf(absl::string_view topic) {
  using Kind = PropellerMessage::Kind;
  if (topic == "control/manager/start") return Kind::kStart;
  if (topic == "control/manager/stop") return Kind::kStop;
  if (topic == "control/proplet/results") return Kind::kResult;
  if (topic == "control/proplet/create") return Kind::kCreate;
  if (topic == "control/proplet/alive" || topic == "control/proplet/metrics") return Kind::kAlive;
  return Kind::kOther;
}

// What PropellerWorker says of itself; nothing at all where its broker forgot.
absl::Status ReadWorker(absl::string_view payload, PropellerMessage* message) {
  if (payload.empty()) return absl::OkStatus();
  WEFT_ASSIGN_OR_RETURN(const element root, ParseObject(payload));
  WEFT_ASSIGN_OR_RETURN(message->node, NeededText(root, "node"));
  WEFT_ASSIGN_OR_RETURN(message->host, NeededText(root, "host"));
  simdjson::dom::array tasks;
  if (root["tasks"].get(tasks) != simdjson::SUCCESS) return absl::InvalidArgumentError("tasks: is no list");
  for (const element each : tasks) {
    PropellerPlacement& placement = message->placements.emplace_back();
    WEFT_ASSIGN_OR_RETURN(placement.task, NeededText(each, "id"));
    WEFT_ASSIGN_OR_RETURN(placement.name, NeededText(each, "name"));
    placement.ready = BoolOf(each, "ready");
  }
  return absl::OkStatus();
}

absl::Status ReadTask(const element& from, PropellerPage::Task* task) {
  if (!from.is_object()) return absl::InvalidArgumentError("is no object");
  WEFT_ASSIGN_OR_RETURN(task->id, NeededText(from, "id"));
  WEFT_ASSIGN_OR_RETURN(task->name, NeededText(from, "name"));
  WEFT_ASSIGN_OR_RETURN(task->proplet, TextOf(from, "proplet_id"));
  task->encrypted = BoolOf(from, "encrypted");
  int64_t state = 0;
  if (from["state"].get(state) != simdjson::SUCCESS) return absl::InvalidArgumentError("state: is no number");
  // 3, completed, is said of servers that have begun to serve. What a newer manager calls otherwise is not
  // known to be over.
  task->failed = state == kFailed || state == kSkipped || state == kInterrupted || FailedIn(from);
  task->port = PortInResult(ResultOf(from));
  return absl::OkStatus();
}

absl::Status ReadProplet(const element& from, PropellerPage::Proplet* proplet) {
  if (!from.is_object()) return absl::InvalidArgumentError("is no object");
  WEFT_ASSIGN_OR_RETURN(proplet->id, NeededText(from, "id"));
  proplet->ip = IpOf(from);
  return absl::OkStatus();
}

template <typename Entry>
void ReadAll(const simdjson::dom::array& from, const char* what, absl::Status (*read)(const element&, Entry*),
             std::vector<Entry>* entries, PropellerPage* page) {
  for (const element each : from) {
    Entry entry;
    const absl::Status status = read(each, &entry);
    if (status.ok()) {
      entries->push_back(std::move(entry));
    } else {
      page->problems.push_back(absl::StrCat(what, "[", page->entries, "]: ", status.message()));
    }
    ++page->entries;
  }
}

}  // namespace

uint32_t PortInResult(absl::string_view result) {
  uint32_t port = 0;
  if (!absl::ConsumePrefix(&result, "started at port ") || !absl::SimpleAtoi(result, &port)) return 0;
  return port <= 65535 ? port : 0;
}

absl::StatusOr<PropellerMessage> ParsePropellerMessage(absl::string_view topic, absl::string_view payload) {
  using Kind = PropellerMessage::Kind;
  PropellerMessage message;
  if (absl::ConsumePrefix(&topic, kWorkerTopic)) {
    message.kind = Kind::kWorker;
    message.proplet = std::string(topic);
    WEFT_RETURN_IF_ERROR(ReadWorker(payload, &message));
    return message;
  }
  message.kind = KindOf(topic);
  if (message.kind == Kind::kOther) return message;
  WEFT_ASSIGN_OR_RETURN(const element root, ParseObject(payload));
  WEFT_ASSIGN_OR_RETURN(message.proplet, TextOf(root, "proplet_id"));
  switch (message.kind) {
    case Kind::kStart: {
      WEFT_ASSIGN_OR_RETURN(message.task, NeededText(root, "id"));
      WEFT_ASSIGN_OR_RETURN(message.name, NeededText(root, "name"));
      message.encrypted = BoolOf(root, "encrypted");
      break;
    }
    case Kind::kStop: {
      WEFT_ASSIGN_OR_RETURN(message.task, NeededText(root, "id"));
      break;
    }
    case Kind::kResult: {
      WEFT_ASSIGN_OR_RETURN(message.task, NeededText(root, "task_id"));
      message.failed = FailedIn(root);
      message.port = PortInResult(ResultOf(root));
      break;
    }
    case Kind::kCreate:
      message.ip = IpOf(root);
      [[fallthrough]];
    default: {
      if (message.proplet.empty()) return absl::InvalidArgumentError("proplet_id: is missing");
      WEFT_ASSIGN_OR_RETURN(const std::string status, TextOf(root, "status"));
      if (status == "offline") message.kind = Kind::kOffline;
    }
  }
  return message;
}

absl::StatusOr<PropellerPage> ParsePropellerPage(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, ParseObject(text));
  PropellerPage page;
  if (root["total"].get(page.total) != simdjson::SUCCESS)
    return absl::InvalidArgumentError("total: is missing");
  simdjson::dom::array entries;
  // An empty list may be null.
  if (root["tasks"].get(entries) == simdjson::SUCCESS) {
    ReadAll(entries, "tasks", ReadTask, &page.tasks, &page);
  } else if (root["proplets"].get(entries) == simdjson::SUCCESS) {
    ReadAll(entries, "proplets", ReadProplet, &page.proplets, &page);
  }
  return page;
}

}  // namespace weft::control
