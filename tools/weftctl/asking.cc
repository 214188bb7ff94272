// SPDX-License-Identifier: Apache-2.0
// The commands that ask the agent what it knows and how calls go, and weft-control who said so.
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/function_id.h"
#include "tools/weftctl/admin_client.h"
#include "tools/weftctl/commands.h"

namespace weft::ctl {
namespace {

api::Query::Kind KindOf(const std::string& what) {
  if (what == "nodes") return api::Query::NODES;
  if (what == "functions") return api::Query::FUNCTIONS;
  if (what == "hosts") return api::Query::HOSTS;
  if (what == "routes") return api::Query::ROUTES;
  return api::Query::CHANNELS;
}

api::AdminRequest RequestOf(const std::string& caller, const std::string& callee) {
  api::AdminRequest request;
  request.mutable_explain()->set_caller(caller);
  request.mutable_explain()->set_callee(callee);
  return request;
}

// Asks weft-control which source said what. Calls go on without it, and so does weftctl.
class WhoSaid {
 public:
  explicit WhoSaid(const Global& global) {
    absl::StatusOr<AdminClient> client = AdminClient::Connect(global.ControlSocket());
    if (client.ok()) {
      client_ = *std::move(client);
    } else {
      std::fprintf(stderr, "weftctl: who said what is not known: %s\n",
                   std::string(client.status().message()).c_str());
    }
  }

  // Rows that begin with a field `thing`.
  std::vector<api::Item> Of(const std::string& caller, const std::string& callee) {
    if (!client_.has_value()) return {};
    absl::StatusOr<Answer> answer = client_->Ask(RequestOf(caller, callee), absl::Seconds(5));
    if (!answer.ok()) {
      client_.reset();
      return {};
    }
    std::erase_if(answer->items, [](const api::Item& item) {
      return item.fields_size() == 0 || item.fields(0).name() != "thing";
    });
    return std::move(answer->items);
  }

 private:
  std::optional<AdminClient> client_;
};

// What is said of things of `kind`, as in "n1/h1: /etc/weft/mesh.d/a.yaml:7; n2/h1: etcd:/weft/".
std::string Joined(const std::vector<api::Item>& sayings, const std::string& kind) {
  std::string all;
  for (const api::Item& saying : sayings) {
    const std::string thing = TextOf(saying, "thing");
    if (!absl::StartsWith(thing, kind + " ")) continue;
    absl::StrAppend(&all, all.empty() ? "" : "; ", thing.substr(kind.size() + 1), ": ",
                    TextOf(saying, "said_by"));
  }
  return all;
}

void AddSources(const Global& global, std::vector<api::Item>* routes) {
  WhoSaid who(global);
  std::map<std::pair<std::string, std::string>, std::vector<api::Item>> known;
  for (api::Item& route : *routes) {
    const std::string caller = TextOf(route, "caller"), callee = TextOf(route, "callee");
    const auto [it, fresh] = known.try_emplace({caller, callee});
    if (fresh) it->second = who.Of(caller, callee);
    for (const char* kind : {"function", "endpoint", "rule"}) {
      api::Item::Field* field = route.add_fields();
      field->set_name(absl::StrCat(kind, "_said_by"));
      field->set_text(Joined(it->second, kind));
    }
  }
}

}  // namespace

int RunGet(const Global& global, const std::string& what) {
  absl::StatusOr<Answer> answer = AskOnce(global.AdminSocket(), KindOf(what));
  if (!answer.ok()) return Fail(absl::StrCat("get ", what), answer.status());
  if (answer->items.empty() && global.format != Format::kJson) {
    std::fprintf(stderr, "no %s\n", what.c_str());
    return 0;
  }
  if (what == "routes" && global.format != Format::kTable) AddSources(global, &answer->items);
  Print(global, what, answer->generation, answer->items);
  return 0;
}

int RunExplain(const Global& global, const std::string& caller, const std::string& callee) {
  const std::string doing = absl::StrCat("explain ", caller, " ", callee);
  absl::Status names =
      absl::StrContains(caller, '/') ? CheckFunctionName(caller) : CheckLabel(caller, "namespace");
  names.Update(CheckFunctionName(callee));
  if (!names.ok()) return Fail(doing, names);
  absl::StatusOr<AdminClient> client = AdminClient::Connect(global.AdminSocket());
  if (!client.ok()) return Fail(doing, client.status());
  absl::StatusOr<Answer> answer = client->Ask(RequestOf(caller, callee), absl::Seconds(5));
  if (!answer.ok()) return Fail(doing, answer.status());
  bool reachable = false;
  for (const api::Item& item : answer->items) reachable |= TextOf(item, "verdict") == "reachable";
  std::vector<api::Item> sayings = WhoSaid(global).Of(caller, callee);
  answer->items.insert(answer->items.end(), sayings.begin(), sayings.end());
  Print(global, "explanation", answer->generation, answer->items);
  return reachable ? 0 : 1;
}

int RunNames(const Global& global, const std::string& what) {
  const absl::StatusOr<Answer> answer = AskOnce(global.AdminSocket(), KindOf(what));
  if (!answer.ok()) return 1;
  for (const api::Item& item : answer->items) {
    if (item.fields_size() > 0) std::puts(ShownValue(item.fields(0)).c_str());
  }
  return 0;
}

}  // namespace weft::ctl
