// SPDX-License-Identifier: Apache-2.0
#include "control/source/etcd/etcd_json.h"

#include <simdjson.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

using simdjson::dom::element;

std::string Base64(absl::string_view bytes) { return absl::Base64Escape(bytes); }
std::string Number(int64_t value) { return absl::StrCat(value); }

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// A 64-bit number is a string in etcd's JSON; one at its default is left out.
template <typename Int>
Int IntOf(const element& from, const char* key) {
  std::string_view text;
  Int value = 0;
  if (from[key].get(text) == simdjson::SUCCESS) {
    if (!absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &value)) return 0;
    return value;
  }
  int64_t number = 0;
  if (from[key].get(number) == simdjson::SUCCESS) return static_cast<Int>(number);
  return 0;
}

bool BoolOf(const element& from, const char* key) {
  bool value = false;
  return from[key].get(value) == simdjson::SUCCESS && value;
}

std::string TextOf(const element& from, const char* key) {
  std::string_view text;
  return from[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

absl::Status BytesOf(const element& from, const char* key, std::string* bytes) {
  std::string_view text;
  bytes->clear();
  if (from[key].get(text) != simdjson::SUCCESS) return absl::OkStatus();
  if (absl::Base64Unescape(absl::string_view(text.data(), text.size()), bytes)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("etcd sent a ", key, " that is no base64"));
}

absl::Status EntryOf(const element& from, EtcdEntry* entry) {
  WEFT_RETURN_IF_ERROR(BytesOf(from, "key", &entry->key));
  WEFT_RETURN_IF_ERROR(BytesOf(from, "value", &entry->value));
  entry->mod_revision = IntOf<int64_t>(from, "mod_revision");
  entry->lease = IntOf<int64_t>(from, "lease");
  return absl::OkStatus();
}

// etcd's codes are gRPC's, and so are ours.
absl::Status ErrorOf(const element& from) {
  const std::string message = TextOf(from, "message");
  const auto code = static_cast<absl::StatusCode>(
      IntOf<int32_t>(from, from["code"].error() == simdjson::SUCCESS ? "code" : "grpc_code"));
  return absl::Status(code == absl::StatusCode::kOk ? absl::StatusCode::kUnknown : code,
                      message.empty() ? TextOf(from, "error") : message);
}

// One parser a thread: it keeps its buffers. What it returns lives until its next use.
absl::StatusOr<element> Parse(absl::string_view text) {
  thread_local simdjson::dom::parser parser;
  element root;
  if (parser.parse(text.data(), text.size()).get(root) != simdjson::SUCCESS || !root.is_object()) {
    return absl::InternalError("etcd sent what is no JSON object");
  }
  element error;
  if (root["error"].get(error) == simdjson::SUCCESS) return ErrorOf(error.is_object() ? error : root);
  return root;
}

// A stream wraps each message, a plain call does not.
absl::StatusOr<element> ParseResult(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(text));
  element result;
  return root["result"].get(result) == simdjson::SUCCESS ? result : root;
}

}  // namespace

std::string EtcdRangeJson(const EtcdRange& range) {
  nlohmann::json json = {{"key", Base64(range.key)}};
  if (!range.range_end.empty()) json["range_end"] = Base64(range.range_end);
  if (range.revision != 0) json["revision"] = Number(range.revision);
  if (range.limit != 0) json["limit"] = Number(range.limit);
  return Dump(json);
}

std::string EtcdWatchJson(const std::string& key, const std::string& range_end, int64_t start_revision) {
  return Dump({{"create_request",
                {{"key", Base64(key)},
                 {"range_end", Base64(range_end)},
                 {"start_revision", Number(start_revision)},
                 {"progress_notify", true}}}});
}

std::string EtcdTxnJson(const std::vector<EtcdCompare>& compares, const std::vector<EtcdOp>& ops) {
  nlohmann::json compare = nlohmann::json::array();
  for (const EtcdCompare& each : compares) {
    nlohmann::json json = {{"key", Base64(each.key)}, {"result", "EQUAL"}};
    switch (each.target) {
      case EtcdCompare::Target::kCreateRevision:
        json["target"] = "CREATE";
        json["create_revision"] = Number(each.equals);
        break;
      case EtcdCompare::Target::kModRevision:
        json["target"] = "MOD";
        json["mod_revision"] = Number(each.equals);
        break;
      case EtcdCompare::Target::kLease:
        json["target"] = "LEASE";
        json["lease"] = Number(each.equals);
        break;
    }
    compare.push_back(std::move(json));
  }
  nlohmann::json success = nlohmann::json::array();
  for (const EtcdOp& op : ops) {
    if (op.remove) {
      success.push_back({{"request_delete_range", {{"key", Base64(op.key)}}}});
    } else {
      nlohmann::json put = {{"key", Base64(op.key)}, {"value", Base64(op.value)}};
      if (op.lease != 0) put["lease"] = Number(op.lease);
      success.push_back({{"request_put", std::move(put)}});
    }
  }
  return Dump({{"compare", std::move(compare)}, {"success", std::move(success)}});
}

std::string EtcdGrantJson(int64_t ttl_s) { return Dump({{"TTL", Number(ttl_s)}}); }
std::string EtcdLeaseJson(int64_t lease) { return Dump({{"ID", Number(lease)}}); }
std::string EtcdLoginJson(const std::string& user, const std::string& password) {
  return Dump({{"name", user}, {"password", password}});
}

absl::StatusOr<EtcdRangeReply> ParseEtcdRange(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(text));
  EtcdRangeReply reply;
  element header;
  if (root["header"].get(header) != simdjson::SUCCESS) return absl::InternalError("etcd sent no header");
  reply.revision = IntOf<int64_t>(header, "revision");
  reply.cluster = IntOf<uint64_t>(header, "cluster_id");
  reply.more = BoolOf(root, "more");
  simdjson::dom::array kvs;
  if (root["kvs"].get(kvs) != simdjson::SUCCESS) return reply;
  reply.entries.reserve(kvs.size());
  for (const element kv : kvs) {
    WEFT_RETURN_IF_ERROR(EntryOf(kv, &reply.entries.emplace_back()));
  }
  return reply;
}

absl::StatusOr<EtcdWatchReply> ParseEtcdWatch(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element result, ParseResult(text));
  EtcdWatchReply reply;
  element header;
  if (result["header"].get(header) == simdjson::SUCCESS) {
    reply.revision = IntOf<int64_t>(header, "revision");
    reply.cluster = IntOf<uint64_t>(header, "cluster_id");
  }
  reply.created = BoolOf(result, "created");
  reply.cancelled = BoolOf(result, "canceled");
  reply.reason = TextOf(result, "cancel_reason");
  reply.compact_revision = IntOf<int64_t>(result, "compact_revision");
  simdjson::dom::array events;
  if (result["events"].get(events) != simdjson::SUCCESS) return reply;
  for (const element from : events) {
    EtcdEvent& event = reply.events.emplace_back();
    event.deleted = TextOf(from, "type") == "DELETE";
    element kv;
    if (from["kv"].get(kv) != simdjson::SUCCESS)
      return absl::InternalError("etcd sent an event without a key");
    WEFT_RETURN_IF_ERROR(EntryOf(kv, &event.entry));
  }
  return reply;
}

absl::StatusOr<EtcdTxnReply> ParseEtcdTxn(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(text));
  EtcdTxnReply reply;
  reply.succeeded = BoolOf(root, "succeeded");
  element header;
  if (root["header"].get(header) == simdjson::SUCCESS) reply.revision = IntOf<int64_t>(header, "revision");
  return reply;
}

absl::StatusOr<EtcdLeaseReply> ParseEtcdLease(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element result, ParseResult(text));
  return EtcdLeaseReply{IntOf<int64_t>(result, "ID"), IntOf<int64_t>(result, "TTL")};
}

absl::StatusOr<std::string> ParseEtcdToken(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(text));
  std::string token = TextOf(root, "token");
  if (token.empty()) return absl::InternalError("etcd sent no token");
  return token;
}

}  // namespace weft::control
