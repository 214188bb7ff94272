// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/tls_stream.h"

#include <openssl/sslerr.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "dataplane/base/check.h"

namespace weft::identity {
TlsStream::TlsStream(UniqueFd socket, bool dialer, std::shared_ptr<const Credentials> credentials)
    : socket_(std::move(socket)), dialer_(dialer), credentials_(std::move(credentials)) {}

// What OpenSSL's error means for the peer.
bool TlsStream::Fail(Ended* ended) {
  TakeSealed();  // The alert that tells the peer.
  (void)Flush();
  const unsigned long error = ERR_peek_error();
  const int reason = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
  ended->why = TakeOpensslError();
  if (verdict_.refusal != Refusal::kNone) {
    ended->reason = verdict_.refusal;
    ended->why = verdict_.why;
  } else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
    ended->reason = Refusal::kNoCertificate;
  } else if (reason >= SSL_AD_REASON_OFFSET) {
    ended->reason = Refusal::kClosed;  // The peer refused this side, and its alert says why.
    ended->why = "the peer refused: " + ended->why;
  } else {
    ended->reason = Refusal::kGarbage;
  }
  return false;
}

bool TlsStream::Receive(Ended* ended, bool* end) {
  char buffer[16 * 1024];
  for (std::size_t taken = 0; taken < kBytesAtOnce;) {
    const ssize_t got = recv(socket_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got > 0) {
      BIO_write(sealed_in_, buffer, static_cast<int>(got));
      taken += static_cast<std::size_t>(got);
      if (static_cast<std::size_t>(got) < sizeof(buffer)) return true;
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    *end = true;
    ended->reason = Refusal::kClosed;
    ended->why = got == 0 ? "the connection was closed" : std::strerror(errno);
    return true;
  }
  return true;
}

void TlsStream::TakeSealed() {
  char buffer[16 * 1024];
  for (int got = BIO_read(sealed_out_, buffer, sizeof(buffer)); got > 0;
       got = BIO_read(sealed_out_, buffer, sizeof(buffer))) {
    out_.append(buffer, static_cast<std::size_t>(got));
  }
}

void TlsStream::TakePeer() {
  leaf_.reset(SSL_get1_peer_certificate(ssl_.get()));
  chain_.reset(X509_chain_up_ref(SSL_get_peer_cert_chain(ssl_.get())));
  WEFT_CHECK(leaf_ != nullptr && verdict_.refusal == Refusal::kNone && !verdict_.id.name.empty());
  peer_expires_unix_s_ = NotAfter(leaf_.get());
  for (int i = 0; i < sk_X509_num(chain_.get()); ++i) {
    peer_expires_unix_s_ = std::min(peer_expires_unix_s_, NotAfter(sk_X509_value(chain_.get(), i)));
  }
}

// False where there is no memory for it.
bool TlsStream::Begin(int64_t unix_s) {
  SslPtr ssl(credentials_->NewTls(dialer_, unix_s, &verdict_));
  if (ssl == nullptr) return false;
  BIO* const in = BIO_new(BIO_s_mem());
  BIO* const out = BIO_new(BIO_s_mem());
  if (in == nullptr || out == nullptr) {
    BIO_free(in);
    BIO_free(out);
    return false;
  }
  SSL_set_bio(ssl.get(), in, out);
  ssl_ = std::move(ssl);
  sealed_in_ = in;
  sealed_out_ = out;
  return true;
}

bool TlsStream::Advance(int64_t unix_s, Ended* ended) {
  if (ssl_ == nullptr) {
    char first;
    // A stranger that has sent nothing costs a descriptor and no more.
    if (!dialer_ && recv(socket_.get(), &first, 1, MSG_DONTWAIT | MSG_PEEK) < 0 &&
        (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return true;
    }
    if (!Begin(unix_s)) {
      ended->reason = Refusal::kClosed;
      ended->why = "no memory for TLS";
      ERR_clear_error();
      return false;
    }
  }
  ERR_clear_error();
  bool end = false;
  if (!Receive(ended, &end)) return false;
  if (!ready_) {
    const int done = SSL_do_handshake(ssl_.get());
    if (done != 1 && SSL_get_error(ssl_.get(), done) != SSL_ERROR_WANT_READ) return Fail(ended);
    if (done == 1) {
      ready_ = true;
      TakePeer();
    }
  }
  // Bounded by what Receive took; the frames are taken before the next call.
  while (ready_) {
    char buffer[4096];
    const int got = SSL_read(ssl_.get(), buffer, sizeof(buffer));
    if (got > 0) {
      in_.append(buffer, static_cast<std::size_t>(got));
      continue;
    }
    const int error = SSL_get_error(ssl_.get(), got);
    if (error == SSL_ERROR_WANT_READ) break;
    if (error != SSL_ERROR_ZERO_RETURN) return Fail(ended);
    end = true;
    ended->reason = Refusal::kClosed;
    ended->why = "the peer closed the connection";
    break;
  }
  TakeSealed();
  if (!Flush()) end = true;
  // What came before the end is still to be taken: a farewell, for one.
  if (!end || (!in_.empty() && !end_seen_)) {
    end_seen_ = end;
    return true;
  }
  return false;
}

Verdict TlsStream::VerifyAgain(const Credentials& credentials, int64_t unix_s) const {
  return credentials.Verify(leaf_.get(), chain_.get(), unix_s);
}

bool TlsStream::TakeMessage(std::optional<Message>* message, std::string* why) {
  std::size_t bytes = 0;
  absl::StatusOr<std::optional<Message>> decoded = Decode(absl::string_view(in_).substr(taken_), &bytes);
  if (!decoded.ok()) {
    *why = std::string(decoded.status().message());
    return false;
  }
  *message = *std::move(decoded);
  if (message->has_value()) {
    taken_ += bytes;
    return true;
  }
  // Once for all that came together, however many frames that was.
  in_.erase(0, taken_);
  taken_ = 0;
  return true;
}

bool TlsStream::Send(const Message& message) {
  WEFT_CHECK(ready_);
  if (out_.size() > kOutBytesMax) return false;
  const std::string frame = Encode(message);
  ERR_clear_error();
  // Into memory, so never short. Fails only after an error that Advance reports as well.
  const bool written = SSL_write(ssl_.get(), frame.data(), static_cast<int>(frame.size())) > 0;
  ERR_clear_error();
  TakeSealed();
  return written;
}

bool TlsStream::Flush() {
  while (!out_.empty()) {
    const ssize_t sent = send(socket_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      out_.erase(0, static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return true;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

void TlsStream::Export(absl::string_view label, absl::string_view context, uint8_t* out,
                       std::size_t bytes) const {
  const int done =
      SSL_export_keying_material(ssl_.get(), out, bytes, label.data(), label.size(),
                                 reinterpret_cast<const unsigned char*>(context.data()), context.size(), 1);
  WEFT_CHECK(done == 1);
}

}  // namespace weft::identity
