// SPDX-License-Identifier: Apache-2.0
// One TLS connection over a non-blocking socket, with bounded buffers, that carries the frames of messages.h.
// The socket is read and written here, not by OpenSSL, so that no write raises SIGPIPE and a connection that
// has sent nothing holds no TLS state. Owned by the key exchange; its thread.
#ifndef WEFT_DATAPLANE_IDENTITY_TLS_STREAM_H_
#define WEFT_DATAPLANE_IDENTITY_TLS_STREAM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "dataplane/base/fd.h"
#include "dataplane/identity/credentials.h"
#include "dataplane/identity/messages.h"
#include "dataplane/identity/openssl.h"

namespace weft::identity {

// Why a stream has ended.
struct Ended {
  Refusal reason = Refusal::kClosed;
  std::string why;
};

class TlsStream {
 public:
  TlsStream(UniqueFd socket, bool dialer, std::shared_ptr<const Credentials> credentials);

  int fd() const { return socket_.get(); }
  bool dialer() const { return dialer_; }
  // Whether these are what the peer has been shown.
  bool Shows(const Credentials& credentials) const { return credentials_.get() == &credentials; }

  // Moves what can be moved, at most kBytesAtOnce in. False: the stream has ended, `*ended` says why.
  bool Advance(int64_t unix_s, Ended* ended);
  // The handshake is done and the peer's identity verified.
  bool ready() const { return ready_; }
  const NodeId& peer() const { return verdict_.id; }
  // When the first certificate of the peer's chain ends.
  int64_t peer_expires_unix_s() const { return peer_expires_unix_s_; }
  // Whether the peer would still be let in by `credentials`.
  Verdict VerifyAgain(const Credentials& credentials, int64_t unix_s) const;

  // The next frame; nothing where none is complete. False: what came breaks the rules, `*why` says how.
  bool TakeMessage(std::optional<Message>* message, std::string* why);
  // Seals and queues one frame, after ready(). False: too much is queued.
  bool Send(const Message& message);
  // Sends what is queued; false where the connection is broken.
  bool Flush();
  bool wants_write() const { return !out_.empty(); }

  // Key material that only the two ends of this connection can derive, for `label` and `context`.
  void Export(absl::string_view label, absl::string_view context, uint8_t* out, std::size_t bytes) const;

 private:
  bool Fail(Ended* ended);
  bool Receive(Ended* ended, bool* end);
  void TakeSealed();
  void TakePeer();
  bool Begin(int64_t unix_s);

  static constexpr std::size_t kBytesAtOnce = 64 * 1024;
  // Frames that a peer leaves unread; some rotations of a large mesh's lanes.
  static constexpr std::size_t kOutBytesMax = 128 * 1024;

  UniqueFd socket_;
  const bool dialer_;
  std::shared_ptr<const Credentials> credentials_;
  Verdict verdict_;
  SslPtr ssl_;
  BIO* sealed_in_ = nullptr;   // Owned by ssl_.
  BIO* sealed_out_ = nullptr;  // Owned by ssl_.
  bool ready_ = false;
  bool end_seen_ = false;
  std::string in_;  // Plain; frames up to taken_ have been taken.
  std::size_t taken_ = 0;
  std::string out_;  // Sealed, not yet sent.
  X509Ptr leaf_;
  X509StackPtr chain_;
  int64_t peer_expires_unix_s_ = 0;
};

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_TLS_STREAM_H_
