// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/clock.h"

namespace weft::agent {

absl::Status Connection::Send(std::string bytes, std::vector<UniqueFd> fds) {
  queued_bytes += bytes.size();
  queue.push_back({std::move(bytes), std::move(fds)});
  if (Above(kQueueTimesMax)) return NeverReads();
  if (queue.size() == 1) return Flush();
  const bool trusted = on_admin_socket || (is_engine && inside_of == 0);
  if (!trusted && crowded_since_ns == 0 && Above(1)) SetCrowded(NowNs());
  return absl::OkStatus();
}

void Connection::SetCrowded(uint64_t since_ns) {
  crowded_since_ns = since_ns;
  read_messages = read_bytes = 0;
}

absl::Status Connection::NeverReads() const {
  return Refuse(Refusal::kNeverReads, absl::StrCat(queue.size(), " messages of ", queued_bytes,
                                                   " bytes wait for this peer to read"));
}

absl::Status Connection::Flush() {
  while (!queue.empty()) {
    const Outgoing& next = queue.front();
    std::vector<int> fds;
    for (const UniqueFd& fd : next.fds) fds.push_back(fd.get());
    absl::Status sent = SendMessage(socket.get(), next.bytes, fds);
    if (absl::IsUnavailable(sent)) return absl::OkStatus();
    if (!sent.ok()) return sent;
    queued_bytes -= next.bytes.size();
    ++read_messages;
    read_bytes += next.bytes.size();
    queue.pop_front();
    if (!Above(1)) {
      crowded_since_ns = 0;
    } else if (crowded_since_ns != 0 &&
               (read_messages > kQueuedMessagesMax || read_bytes > kQueuedBytesMax)) {
      SetCrowded(NowNs());  // It reads.
    }
  }
  return absl::OkStatus();
}

}  // namespace weft::agent
