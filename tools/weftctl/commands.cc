// SPDX-License-Identifier: Apache-2.0
// The commands that do not ask the agent about calls (asking.cc).
#include "tools/weftctl/commands.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/validate.h"
#include "tools/weftctl/admin_client.h"

namespace weft::ctl {
namespace {

constexpr std::size_t kChangesShown = 10;

// An answer's row with `component` before its other fields.
api::Item Named(const std::string& component, const api::Item& item) {
  Row row;
  row.Text("component", component);
  api::Item named = row.Take();
  for (const api::Item::Field& field : item.fields()) *named.add_fields() = field;
  return named;
}

// Leaves the last few changes; people do not read more.
void KeepLastChanges(std::vector<api::Item>* items) {
  const auto is_change = [](const api::Item& item) {
    return item.fields_size() > 0 && item.fields(0).name() == "change";
  };
  const auto changes = static_cast<std::size_t>(std::count_if(items->begin(), items->end(), is_change));
  if (changes <= kChangesShown) return;
  const auto first = std::find_if(items->begin(), items->end(), is_change);
  items->erase(first, first + static_cast<std::ptrdiff_t>(changes - kChangesShown));
}

std::string Plural(std::size_t count, const char* what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

}  // namespace

int Fail(const std::string& doing, const absl::Status& why) {
  // Reasons that come from the agent begin with the code already.
  const std::string code = absl::StrCat(absl::StatusCodeToString(why.code()), ": ");
  const std::string message = Printable(why.message(), /*lines=*/true);
  std::fprintf(stderr, "weftctl: %s: %s%s\n", Printable(doing).c_str(),
               absl::StartsWith(message, code) ? "" : code.c_str(), message.c_str());
  return 1;
}

void Print(const Global& global, const std::string& kind, uint64_t generation,
           const std::vector<api::Item>& items) {
  const std::string text = global.format == Format::kJson ? ToJson(kind, generation, items)
                           : kind == "status"             ? ToReport(items)
                                                          : ToTables(items, global.format == Format::kWide);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int RunStatus(const Global& global) {
  std::vector<api::Item> items;
  const absl::StatusOr<Answer> agent = AskOnce(global.AdminSocket(), api::Query::STATUS);
  if (agent.ok()) {
    for (const api::Item& item : agent->items) items.push_back(Named("weftd", item));
  } else {
    items.push_back(
        Row().Text("component", "weftd").Text("problem", std::string(agent.status().message())).Take());
  }
  const absl::StatusOr<Answer> control = AskOnce(global.ControlSocket(), api::Query::STATUS);
  if (control.ok()) {
    items.insert(items.end(), control->items.begin(), control->items.end());
  } else {
    items.push_back(Row()
                        .Text("component", "weft-control")
                        .Text("problem", std::string(control.status().message()))
                        .Take());
  }
  if (global.format == Format::kTable) KeepLastChanges(&items);
  Print(global, "status", agent.ok() ? agent->generation : 0, items);
  // Calls go on without control; without the agent nothing can be said of them.
  return agent.ok() ? 0 : 1;
}

int RunChanges(const Global& global) {
  absl::StatusOr<AdminClient> client = AdminClient::Connect(global.ControlSocket());
  if (!client.ok()) return Fail("get changes", client.status());
  std::vector<api::Item> items;
  uint64_t generation = 0;
  for (uint64_t after = 0;;) {
    absl::StatusOr<Answer> answer = client->Changes(after);
    if (!answer.ok()) return Fail("get changes", answer.status());
    generation = answer->generation;
    if (answer->items.empty()) break;
    after = static_cast<uint64_t>(answer->items.back().fields(0).number());
    std::move(answer->items.begin(), answer->items.end(), std::back_inserter(items));
  }
  Print(global, "changes", generation, items);
  return 0;
}

int RunDrain(const Global& global, const std::string& host, absl::Duration timeout) {
  const std::string doing = absl::StrCat("drain ", host);
  absl::StatusOr<AdminClient> client = AdminClient::Connect(global.AdminSocket());
  if (!client.ok()) return Fail(doing, client.status());
  api::AdminRequest request;
  request.mutable_drain_host()->set_host(host);
  absl::StatusOr<Answer> answer = client->Ask(request, timeout);
  if (!answer.ok()) return Fail(doing, answer.status());
  Print(global, "drain", answer->generation, answer->items);
  for (const api::Item& item : answer->items) {
    if (TextOf(item, "state") == "draining") return 1;  // It still serves what nobody else does.
  }
  return 0;
}

int RunValidate(const Global& global, const std::string& path) {
  const control::Validation result = control::Validate(path);
  const control::MeshState& state = result.state;
  if (global.format == Format::kJson) {
    std::vector<api::Item> items;
    for (const std::string& error : result.errors) items.push_back(Row().Text("error", error).Take());
    Print(global, "validation", 0, items);
  } else if (result.errors.empty()) {
    std::printf("%s: good: %s, %s, %s, %s\n", Printable(path).c_str(),
                Plural(state.count(control::EntryKind::kNode), "node").c_str(),
                Plural(state.count(control::EntryKind::kFunction), "function").c_str(),
                Plural(state.count(control::EntryKind::kEndpoint), "endpoint").c_str(),
                Plural(state.count(control::EntryKind::kAllow), "rule").c_str());
  } else {
    // A line of a file begins with the file; what else went wrong is this program's word.
    for (const std::string& error : result.errors) {
      std::fprintf(stderr, "%s%s\n", absl::StartsWith(error, path) ? "" : "weftctl: validate: ",
                   Printable(error, /*lines=*/true).c_str());
    }
  }
  return result.errors.empty() ? 0 : 1;
}

int RunVersion(const Global& global) {
  if (global.format == Format::kJson) {
    Print(global, "version", 0, {Row().Text("component", "weftctl").Text("version", WEFT_VERSION).Take()});
  } else {
    std::puts("weftctl " WEFT_VERSION);
  }
  return 0;
}

}  // namespace weft::ctl
