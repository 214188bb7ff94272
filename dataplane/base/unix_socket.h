// SPDX-License-Identifier: Apache-2.0
// Unix seqpacket sockets that carry one message and its file descriptors per packet: the transport of every
// control conversation (host and agent, control and agent, CLI and daemons). Nothing here blocks unless it
// says so.
#ifndef WEFT_DATAPLANE_BASE_UNIX_SOCKET_H_
#define WEFT_DATAPLANE_BASE_UNIX_SOCKET_H_

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "dataplane/base/fd.h"

namespace weft {

// The largest message of a control conversation. Far below the default SO_SNDBUF, so that one always fits.
inline constexpr std::size_t kControlMessageBytesMax = 64 * 1024;
// The most descriptors that the kernel passes with one message (SCM_MAX_FD).
inline constexpr int kFdsMax = 253;

struct ReceivedMessage {
  std::string bytes;          // Empty where the peer sent an empty packet.
  std::vector<UniqueFd> fds;  // In the order sent. Closing a stranger's descriptor can block: see the agent.
  bool truncated = false;     // The packet was longer than kControlMessageBytesMax; `bytes` is its beginning.
  bool fds_truncated = false;  // The kernel could not hand over all descriptors (MSG_CTRUNC).
};

// Credentials of the process that connected the other end, as of its connect().
struct PeerCredentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

// Binds `path` and listens, with the file mode given; replaces a dead socket file, and fails with
// ALREADY_EXISTS where a live process answers there. The result is non-blocking and close-on-exec.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path, mode_t mode);

// Connects to `path`. Blocks for no longer than the listener's backlog is full. The result is non-blocking.
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path);

absl::StatusOr<PeerCredentials> CredentialsOf(int socket_fd);

// Sends one packet. UNAVAILABLE where the socket's buffer is full (try again when writable);
// FAILED_PRECONDITION or another code where the peer is gone or the arguments are wrong. `fds` stay the
// caller's.
absl::Status SendMessage(int socket_fd, absl::string_view bytes, absl::Span<const int> fds = {});

// Receives one packet. UNAVAILABLE where there is none now; OUT_OF_RANGE at the end of the conversation (the
// peer closed); another code where the socket failed.
absl::StatusOr<ReceivedMessage> ReceiveMessage(int socket_fd);

// Waits until `socket_fd` shows one of `events` (poll(2)), at most `timeout_ms`; -1 waits without end.
// Blocks. DEADLINE_EXCEEDED where the time ran out.
absl::Status WaitReady(int socket_fd, short events, int timeout_ms);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_UNIX_SOCKET_H_
