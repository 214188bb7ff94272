// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_json.h"

#include <simdjson.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "control/source/kubernetes/kube_element.h"
#include "control/source/kubernetes/kube_item_json.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

using simdjson::dom::element;

// A token of the next page is some hundred bytes.
constexpr std::size_t kHeadBytesMax = 4096;

// One parser a thread: it keeps its buffers. What it returns lives until its next use.
// `padded`: SIMDJSON_PADDING bytes behind it may be read, whatever they are; else it is copied.
absl::StatusOr<element> Parse(absl::string_view text, bool padded = false) {
  thread_local simdjson::dom::parser parser;
  element root;
  if (parser.parse(text.data(), text.size(), !padded).get(root) != simdjson::SUCCESS || !root.is_object()) {
    return absl::InternalError("the answer is no JSON object");
  }
  return root;
}

KubeEvent::Type TypeOf(absl::string_view type) {
  using Type = KubeEvent::Type;
  if (type == "ADDED" || type == "MODIFIED") return Type::kPut;
  if (type == "DELETED") return Type::kDelete;
  if (type == "BOOKMARK") return Type::kBookmark;
  return type == "ERROR" ? Type::kError : Type::kUnknown;
}

}  // namespace

absl::string_view KubeKindName(KubeKind kind) {
  constexpr absl::string_view kNames[] = {"nodes",      "services",   "endpointslices", "functionpolicies",
                                          "httproutes", "grpcroutes", "referencegrants"};
  return kNames[static_cast<std::size_t>(kind)];
}

absl::string_view KubeKindPath(KubeKind kind) {
  constexpr absl::string_view kPaths[] = {"/api/v1/nodes",
                                          "/api/v1/services",
                                          "/apis/discovery.k8s.io/v1/endpointslices",
                                          "/apis/mesh.weft/v1/functionpolicies",
                                          "/apis/gateway.networking.k8s.io/v1/httproutes",
                                          "/apis/gateway.networking.k8s.io/v1/grpcroutes",
                                          "/apis/gateway.networking.k8s.io/v1beta1/referencegrants"};
  return kPaths[static_cast<std::size_t>(kind)];
}

std::string NextOfKubePage(absl::string_view text) {
  // The server says what the list is before what is in it.
  const absl::string_view head = text.substr(0, kHeadBytesMax);
  const std::size_t items = head.find("\"items\":");
  if (items == absl::string_view::npos) return "";
  const std::size_t comma = head.rfind(',', items);
  if (comma == absl::string_view::npos) return "";
  const absl::StatusOr<element> root = Parse(absl::StrCat(head.substr(0, comma), "}"));
  return root.ok() ? TextOf((*root)["metadata"]["continue"]) : "";
}

namespace {

absl::StatusOr<KubePage> PageOf(KubeKind kind, const element& root) {
  KubePage page;
  page.resource_version = TextOf(root["metadata"]["resourceVersion"]);
  page.next = TextOf(root["metadata"]["continue"]);
  if (root["metadata"]["remainingItemCount"].get(page.more) != simdjson::SUCCESS) page.more = 0;
  if (page.resource_version.empty()) return absl::InternalError("the answer is no list: it has no version");
  simdjson::dom::array items;
  if (root["items"].get(items) != simdjson::SUCCESS) return page;  // An empty list may be null.
  for (const element each : items) {
    page.items.push_back(
        ReadKubeItem(kind, each, absl::StrCat(KubeKindName(kind), "[", page.items.size(), "]")));
  }
  return page;
}

}  // namespace

absl::StatusOr<KubePage> ParseKubePage(KubeKind kind, absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(text));
  return PageOf(kind, root);
}

absl::StatusOr<KubePage> ParseKubePageInPlace(KubeKind kind, std::string* text) {
  text->reserve(text->size() + simdjson::SIMDJSON_PADDING);
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(*text, true));
  return PageOf(kind, root);
}

absl::StatusOr<KubeEvent> ParseKubeEvent(KubeKind kind, absl::string_view line) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(line));
  KubeEvent event;
  const std::string type = TextOf(root["type"]);
  element object;
  if (type.empty() || root["object"].get(object) != simdjson::SUCCESS || !object.is_object()) {
    return absl::InternalError("the watch sent what is no event");
  }
  event.type = TypeOf(type);
  event.resource_version = TextOf(object["metadata"]["resourceVersion"]);
  switch (event.type) {
    case KubeEvent::Type::kPut:
    case KubeEvent::Type::kDelete:
      event.item = ReadKubeItem(kind, object, "an event");
      break;
    case KubeEvent::Type::kError:
      if (object["code"].get(event.code) != simdjson::SUCCESS) event.code = 0;
      event.message = TextOf(object["message"]);
      break;
    case KubeEvent::Type::kBookmark:
      break;
    case KubeEvent::Type::kUnknown:
      event.message = type;
      break;
  }
  return event;
}

std::string KubeMessageOf(absl::string_view body) {
  const absl::StatusOr<element> root = Parse(body);
  return root.ok() ? TextOf((*root)["message"]) : "";
}

absl::StatusOr<KubeCredential> ParseKubeCredential(absl::string_view text) {
  WEFT_ASSIGN_OR_RETURN(const element root, Parse(text));
  KubeCredential credential;
  credential.token = TextOf(root["status"]["token"]);
  credential.certificate_pem = TextOf(root["status"]["clientCertificateData"]);
  credential.key_pem = TextOf(root["status"]["clientKeyData"]);
  if (credential.certificate_pem.empty() != credential.key_pem.empty()) {
    return absl::InvalidArgumentError("clientCertificateData and clientKeyData go together");
  }
  if (credential.token.empty() && credential.certificate_pem.empty()) {
    return absl::InvalidArgumentError("it prints neither a token nor a certificate");
  }
  const std::string expires = TextOf(root["status"]["expirationTimestamp"]);
  absl::Time time;
  if (expires.empty()) return credential;
  if (!absl::ParseTime(absl::RFC3339_full, expires, &time, nullptr)) {
    return absl::InvalidArgumentError("expirationTimestamp: is no time");
  }
  credential.expires_unix_s = static_cast<uint64_t>(std::max<int64_t>(1, absl::ToUnixSeconds(time)));
  return credential;
}

}  // namespace weft::control
