// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/refusal.h"

namespace weft::agent {

absl::Status Connection::Send(std::string bytes, std::vector<UniqueFd> fds) {
  const std::size_t times = on_admin_socket || (is_engine && inside_of == 0) ? kTrustedQueueTimes : 1;
  const bool full =
      queue.size() >= times * kQueuedMessagesMax || queued_bytes + bytes.size() > times * kQueuedBytesMax;
  queued_bytes += bytes.size();
  queue.push_back({std::move(bytes), std::move(fds)});
  if (full) {
    return Refuse(Refusal::kNeverReads, absl::StrCat(queue.size(), " messages of ", queued_bytes,
                                                     " bytes wait for this peer to read"));
  }
  return queue.size() == 1 ? Flush() : absl::OkStatus();
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
    queue.pop_front();
  }
  return absl::OkStatus();
}

}  // namespace weft::agent
