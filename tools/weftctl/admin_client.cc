// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/admin_client.h"

#include <poll.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/status.h"
#include "dataplane/base/unix_socket.h"

namespace weft::ctl {

absl::StatusOr<AdminClient> AdminClient::Connect(const std::string& path) {
  absl::StatusOr<UniqueFd> socket = ConnectUnix(path);
  if (socket.ok()) return AdminClient(path, *std::move(socket));
  const std::string message(socket.status().message());
  const std::string program = path.find("control.sock") == std::string::npos ? "weftd" : "weft-control";
  if (absl::IsPermissionDenied(socket.status())) {
    return absl::PermissionDeniedError(
        absl::StrCat(message, "; run as root or as the owner or group of the socket"));
  }
  return absl::UnavailableError(absl::StrCat(message, "; is ", program, " running, and is --run-dir right?"));
}

absl::StatusOr<Answer> AdminClient::Ask(const api::AdminRequest& request, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  WEFT_RETURN_IF_ERROR(SendMessage(socket_.get(), request.SerializeAsString()));
  Answer answer;
  for (;;) {
    const int64_t left_ms = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
    if (!WaitReady(socket_.get(), POLLIN, static_cast<int>(std::min<int64_t>(left_ms, 1'000'000'000))).ok()) {
      return absl::DeadlineExceededError(
          absl::StrCat("no answer from ", path_, " within ", absl::FormatDuration(timeout)));
    }
    absl::StatusOr<ReceivedMessage> message = ReceiveMessage(socket_.get());
    if (absl::IsUnavailable(message.status())) continue;
    if (!message.ok())
      return absl::UnavailableError(absl::StrCat(path_, " closed the connection without an answer"));
    api::AdminReply reply;
    if (message->truncated || !reply.ParseFromString(message->bytes)) {
      return absl::InternalError(absl::StrCat("what came from ", path_, " is no answer"));
    }
    if (reply.has_failed()) {
      return absl::Status(static_cast<absl::StatusCode>(reply.failed().code()), reply.failed().reason());
    }
    if (reply.has_query_reply()) {
      answer.generation = reply.query_reply().generation();
      for (api::Item& item : *reply.mutable_query_reply()->mutable_items())
        answer.items.push_back(std::move(item));
      if (!reply.query_reply().more()) return answer;
      continue;
    }
    // The agent turns a stranger away in the words that it has for hosts.
    api::ToHost refusal;
    if (reply.kind_case() == api::AdminReply::KIND_NOT_SET && refusal.ParseFromString(message->bytes) &&
        refusal.has_refused()) {
      return absl::Status(static_cast<absl::StatusCode>(refusal.refused().code()),
                          refusal.refused().reason());
    }
    // Registrations and acknowledgements are pushed to whoever may program; they answer nothing here.
  }
}

absl::StatusOr<Answer> AdminClient::Query(api::Query::Kind kind, absl::Duration timeout) {
  api::AdminRequest request;
  request.mutable_query()->set_kind(kind);
  return Ask(request, timeout);
}

absl::StatusOr<Answer> AdminClient::Changes(uint64_t after, absl::Duration timeout) {
  api::AdminRequest request;
  request.mutable_query()->set_kind(api::Query::CHANGES);
  request.mutable_query()->set_after(after);
  return Ask(request, timeout);
}

std::string ShownValue(const api::Item::Field& field) {
  switch (field.value_case()) {
    case api::Item::Field::kText:
      return field.text();
    case api::Item::Field::kNumber:
      return absl::StrCat(field.number());
    case api::Item::Field::kReal:
      return absl::StrFormat("%.1f", field.real());
    case api::Item::Field::kFlag:
      return field.flag() ? "yes" : "no";
    case api::Item::Field::VALUE_NOT_SET:
      return "";
  }
  return "";
}

absl::StatusOr<Answer> AskOnce(const std::string& socket, api::Query::Kind kind) {
  absl::StatusOr<AdminClient> client = AdminClient::Connect(socket);
  if (!client.ok()) return client.status();
  return client->Query(kind);
}

std::string TextOf(const api::Item& item, const std::string& name) {
  for (const api::Item::Field& field : item.fields()) {
    if (field.name() == name) return ShownValue(field);
  }
  return "";
}

}  // namespace weft::ctl
