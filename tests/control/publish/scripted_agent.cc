// SPDX-License-Identifier: Apache-2.0
#include "tests/control/publish/scripted_agent.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/unix_socket.h"

namespace weft::control {

void ScriptedAgent::Listen() {
  if (listener_.valid()) return;
  absl::StatusOr<UniqueFd> listener = ListenUnix(path_, 0600);
  ASSERT_TRUE(listener.ok()) << listener.status();
  listener_ = *std::move(listener);
}

void ScriptedAgent::Die() {
  client_.Reset();
  listener_.Reset();
  unlink(path_.c_str());
  coming_.clear();
}

void ScriptedAgent::Send(const api::AdminReply& reply) {
  if (client_.valid()) (void)SendMessage(client_.get(), reply.SerializeAsString());
}

void ScriptedAgent::AcknowledgeNow() {
  api::AdminReply reply;
  reply.mutable_programmed()->set_generation(generation);
  reply.mutable_programmed()->set_at_ns(at_ns);
  for (const std::string& host : cut_off) reply.mutable_programmed()->add_cut_off(host);
  Send(reply);
}

void ScriptedAgent::Pump() {
  if (!listener_.valid()) return;
  const int accepted = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (accepted >= 0) {
    client_.Reset(accepted);
    ++connections;
    coming_.clear();
    api::AdminReply reply;
    reply.mutable_registrations()->set_node(node);
    reply.mutable_registrations()->set_generation(generation);
    Send(reply);
  }
  while (read && client_.valid()) {
    absl::StatusOr<ReceivedMessage> message = ReceiveMessage(client_.get());
    if (absl::IsUnavailable(message.status())) return;
    if (!message.ok()) return client_.Reset();
    ASSERT_FALSE(message->truncated);
    api::AdminRequest request;
    ASSERT_TRUE(request.ParseFromString(message->bytes));
    Take(request);
  }
}

void ScriptedAgent::Take(const api::AdminRequest& request) {
  if (request.has_query()) {
    api::AdminReply reply;
    reply.mutable_query_reply()->set_generation(generation);
    api::Item::Field* field = reply.mutable_query_reply()->add_items()->add_fields();
    field->set_name("generation_held");
    field->set_number(static_cast<int64_t>(std::max(generation, held)));
    Send(reply);
  } else if (request.has_program()) {
    TakeProgram(request.program());
  } else if (request.has_run_once()) {
    runs.push_back(request.run_once());
  }
}

void ScriptedAgent::TakeProgram(const api::Program& part) {
  api::AdminReply failed;
  failed.mutable_failed()->set_code(9);
  if (!refuse.empty()) {
    ++refused;
    failed.mutable_failed()->set_reason(refuse);
    return Send(failed);
  }
  if (part.generation() <= std::max(generation, held)) {
    ++refused;
    failed.mutable_failed()->set_reason(
        absl::StrCat("generation ", part.generation(), " is not above ", generation));
    return Send(failed);
  }
  ++parts;
  coming_.push_back(part);
  if (die_after_parts >= 0 && static_cast<int>(coming_.size()) >= die_after_parts) return Die();
  if (!part.last()) return;
  snapshots += part.snapshot() ? 1 : 0;
  ApplyProgram(coming_, &state);
  coming_.clear();
  generation = part.generation();
  generations.push_back(generation);
  if (acknowledge) AcknowledgeNow();
}

}  // namespace weft::control
