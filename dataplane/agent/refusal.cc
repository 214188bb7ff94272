// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/refusal.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace weft::agent {
namespace {

constexpr char kPayload[] = "weft/refusal";

struct Row {
  absl::string_view name;
  absl::StatusCode code;
};

using Code = absl::StatusCode;

// In the order of the enumeration.
constexpr std::array<Row, kRefusals> kRows = {{
    {"not_admitted", Code::kPermissionDenied},
    {"too_many_connections", Code::kResourceExhausted},
    {"hello_late", Code::kDeadlineExceeded},
    {"hello_missing", Code::kFailedPrecondition},
    {"hello_twice", Code::kFailedPrecondition},
    {"protocol", Code::kUnimplemented},
    {"garbage", Code::kInvalidArgument},
    {"oversized", Code::kInvalidArgument},
    {"surplus_fds", Code::kInvalidArgument},
    {"missing_fd", Code::kInvalidArgument},
    {"bad_name", Code::kInvalidArgument},
    {"host_not_allowed", Code::kPermissionDenied},
    {"host_taken", Code::kAlreadyExists},
    {"function_not_allowed", Code::kPermissionDenied},
    {"call_as_not_allowed", Code::kPermissionDenied},
    {"unknown_function", Code::kNotFound},
    {"forged_caller", Code::kPermissionDenied},
    {"host_limit", Code::kResourceExhausted},
    {"function_limit", Code::kResourceExhausted},
    {"channel_limit", Code::kResourceExhausted},
    {"subscription_limit", Code::kResourceExhausted},
    {"bad_memory", Code::kInvalidArgument},
    {"unknown_channel", Code::kNotFound},
    {"bad_serial", Code::kInvalidArgument},
    {"never_reads", Code::kResourceExhausted},
    {"silent", Code::kDeadlineExceeded},
    {"not_control", Code::kPermissionDenied},
    {"stale_generation", Code::kFailedPrecondition},
    {"bad_program", Code::kInvalidArgument},
    {"unknown_host", Code::kNotFound},
    {"too_many_blocked_fds", Code::kResourceExhausted},
    {"engine_not_allowed", Code::kPermissionDenied},
    {"foreign_key", Code::kPermissionDenied},
}};

}  // namespace

absl::string_view RefusalName(Refusal refusal) { return kRows[static_cast<std::size_t>(refusal)].name; }

absl::Status Refuse(Refusal refusal, absl::string_view detail) {
  const Row& row = kRows[static_cast<std::size_t>(refusal)];
  absl::Status status(row.code, absl::StrCat(row.name, ": ", detail));
  const std::string number = absl::StrCat(static_cast<int>(refusal));
  status.SetPayload(kPayload, absl::Cord(absl::string_view(number)));
  return status;
}

Refusal RefusalOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  int number = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &number) || number < 0 ||
      number >= static_cast<int>(kRefusals)) {
    return Refusal::kGarbage;
  }
  return static_cast<Refusal>(number);
}

}  // namespace weft::agent
