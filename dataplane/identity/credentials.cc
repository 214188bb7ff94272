// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/credentials.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "dataplane/identity/openssl.h"

namespace weft::identity {
namespace {

constexpr int kChainMax = 8;

absl::StatusOr<std::string> ReadFile(const std::string& path, bool secret) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  struct stat status;
  if (fstat(file.get(), &status) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  if (!S_ISREG(status.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is not a file"));
  if (status.st_size > kPemFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is longer than ", kPemFileBytesMax, " bytes"));
  }
  if (secret && (status.st_mode & 07) != 0) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "the key %s is open to everybody (mode %04o): chmod 600", path, status.st_mode & 07777));
  }
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = pread(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

absl::Status Wrong(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

int64_t UnixSeconds(const ASN1_TIME* time) {
  tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return timegm(&parts);
}

Refusal RefusalOf(int verify_error) {
  switch (verify_error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return Refusal::kExpired;
    case X509_V_ERR_CERT_REVOKED:
      return Refusal::kRevoked;
    default:
      return Refusal::kForeign;
  }
}

// A CA without a list revokes nothing, and a list that is out of date still revokes what it names.
int AllowMissingList(int ok, X509_STORE_CTX* context) {
  const int error = X509_STORE_CTX_get_error(context);
  if (error != X509_V_ERR_UNABLE_TO_GET_CRL && error != X509_V_ERR_CRL_HAS_EXPIRED) return ok;
  X509_STORE_CTX_set_error(context, X509_V_OK);
  return 1;
}

// The bundle: CAs and, among them, revocation lists.
absl::Status FillStore(const CredentialPaths& paths, X509_STORE* store) {
  WEFT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(paths.ca, false));
  const BioPtr bio = BioOf(bytes);
  const X509InfoStackPtr infos(PEM_X509_INFO_read_bio(bio.get(), nullptr, nullptr, nullptr));
  if (infos == nullptr) return Wrong(paths.ca, absl::StrCat("not PEM: ", TakeOpensslError()));
  int authorities = 0;
  for (int i = 0; i < sk_X509_INFO_num(infos.get()); ++i) {
    const X509_INFO* const info = sk_X509_INFO_value(infos.get(), i);
    if (info->x509 != nullptr) {
      if (X509_check_ca(info->x509) != 1) return Wrong(paths.ca, "holds a certificate that is no CA's");
      X509_STORE_add_cert(store, info->x509);
      ++authorities;
    }
    if (info->crl != nullptr) {
      X509_STORE_add_crl(store, info->crl);
      X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
  }
  ERR_clear_error();  // A certificate that stands there twice.
  if (authorities == 0) return Wrong(paths.ca, "holds no certificate");
  return absl::OkStatus();
}

absl::Status UseCertificate(const std::string& path, SSL_CTX* context) {
  WEFT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, false));
  const BioPtr bio = BioOf(bytes);
  int certificates = 0;
  for (;; ++certificates) {
    const X509Ptr x509(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (x509 == nullptr) {
      const bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
      const std::string error = TakeOpensslError();
      if (!end) return Wrong(path, absl::StrCat("not PEM: ", error));
      break;
    }
    const int added = certificates == 0 ? SSL_CTX_use_certificate(context, x509.get())
                                        : SSL_CTX_add1_chain_cert(context, x509.get());
    if (added != 1) return Wrong(path, TakeOpensslError());
    if (certificates == kChainMax)
      return Wrong(path, absl::StrCat("more than ", kChainMax, " intermediates"));
  }
  if (certificates == 0) return Wrong(path, "holds no certificate");
  return absl::OkStatus();
}

absl::Status UseKey(const CredentialPaths& paths, SSL_CTX* context) {
  WEFT_ASSIGN_OR_RETURN(std::string bytes, ReadFile(paths.key, true));
  KeyPtr key;
  bool encrypted = false;
  {
    const BioPtr bio = BioOf(bytes);
    // Without this callback OpenSSL would ask for a passphrase on the terminal.
    const auto no_passphrase = [](char*, int, int, void* asked) {
      *static_cast<bool*>(asked) = true;
      return -1;
    };
    key.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, &encrypted));
  }
  OPENSSL_cleanse(bytes.data(), bytes.size());
  if (encrypted) {
    TakeOpensslError();
    return Wrong(paths.key, "the key is encrypted, and nobody is asked for a passphrase");
  }
  if (key == nullptr) return Wrong(paths.key, absl::StrCat("no usable private key: ", TakeOpensslError()));
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    TakeOpensslError();
    return Wrong(paths.key, absl::StrCat("is not the key of ", paths.certificate));
  }
  return absl::OkStatus();
}

}  // namespace

struct Credentials::Handshake {
  int64_t unix_s = 0;
  Verdict* verdict = nullptr;
};

namespace {

// Where an SSL object keeps its Handshake, which it owns.
template <typename T>
int AttachedIndex() {
  static const int index = SSL_get_ex_new_index(
      0, nullptr, nullptr, nullptr,
      [](void*, void* attached, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<T*>(attached); });
  return index;
}

}  // namespace

Credentials::Credentials() = default;
Credentials::~Credentials() {
  SSL_CTX_free(context_);
  X509_STORE_free(store_);
}

absl::StatusOr<std::shared_ptr<const Credentials>> Credentials::Load(const CredentialPaths& paths,
                                                                     int64_t unix_s) {
  const std::shared_ptr<Credentials> credentials(new Credentials());
  credentials->context_ = SSL_CTX_new(TLS_method());
  credentials->store_ = X509_STORE_new();
  SSL_CTX* const context = credentials->context_;
  if (context == nullptr || credentials->store_ == nullptr) return absl::ResourceExhaustedError("OpenSSL");
  if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1) {
    return absl::FailedPreconditionError(absl::StrCat("TLS 1.3: ", TakeOpensslError()));
  }
  // Each connection proves its identity anew: no tickets, no sessions, no early data.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  // A chain of eight fits; a stranger cannot have more held for it.
  SSL_CTX_set_max_cert_list(context, 32 * 1024);
  SSL_CTX_set_cert_verify_callback(context, VerifyInHandshake, credentials.get());
  WEFT_RETURN_IF_ERROR(UseCertificate(paths.certificate, context));
  WEFT_RETURN_IF_ERROR(UseKey(paths, context));
  WEFT_RETURN_IF_ERROR(FillStore(paths, credentials->store_));

  X509* const leaf = SSL_CTX_get0_certificate(context);
  STACK_OF(X509)* chain = nullptr;
  SSL_CTX_get0_chain_certs(context, static_cast<void*>(&chain));
  const absl::StatusOr<NodeId> id = NodeIdOf(*leaf);
  if (!id.ok()) return Wrong(paths.certificate, id.status().message());
  credentials->id_ = *id;
  const Verdict verdict = credentials->Verify(leaf, chain, unix_s);
  if (verdict.refusal != Refusal::kNone) {
    return Wrong(paths.certificate, absl::StrCat(verdict.why, " (checked against ", paths.ca, ")"));
  }
  credentials->expires_unix_s_ = UnixSeconds(X509_get0_notAfter(leaf));
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    credentials->expires_unix_s_ =
        std::min(credentials->expires_unix_s_, UnixSeconds(X509_get0_notAfter(sk_X509_value(chain, i))));
  }
  return std::shared_ptr<const Credentials>(credentials);
}

SSL* Credentials::NewTls(bool dialer, int64_t unix_s, Verdict* verdict) const {
  SSL* const ssl = SSL_new(context_);
  if (ssl == nullptr) return nullptr;
  SSL_set_ex_data(ssl, AttachedIndex<Handshake>(), new Handshake{unix_s, verdict});
  // Without a certificate the handshake fails: a server must ask for it, a client always gets one.
  SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  if (dialer) {
    SSL_set_connect_state(ssl);
  } else {
    SSL_set_accept_state(ssl);
  }
  return ssl;
}

int Credentials::VerifyInHandshake(X509_STORE_CTX* context, void* self) {
  SSL* const ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const auto* const handshake =
      static_cast<const Handshake*>(SSL_get_ex_data(ssl, AttachedIndex<Handshake>()));
  *handshake->verdict = static_cast<const Credentials*>(self)->Verify(
      X509_STORE_CTX_get0_cert(context), X509_STORE_CTX_get0_untrusted(context), handshake->unix_s);
  switch (handshake->verdict->refusal) {  // Decides the alert that the peer sees.
    case Refusal::kNone:
      return 1;
    case Refusal::kExpired:
      X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_HAS_EXPIRED);
      return 0;
    case Refusal::kRevoked:
      X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_REVOKED);
      return 0;
    case Refusal::kForeign:
      X509_STORE_CTX_set_error(context, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
      return 0;
    default:
      X509_STORE_CTX_set_error(context, X509_V_ERR_APPLICATION_VERIFICATION);
      return 0;
  }
}

Verdict Credentials::Verify(X509* leaf, STACK_OF(X509) * chain, int64_t unix_s) const {
  Verdict verdict;
  const X509StoreContextPtr context(X509_STORE_CTX_new());
  if (context == nullptr || X509_STORE_CTX_init(context.get(), store_, leaf, chain) != 1) {
    verdict.refusal = Refusal::kForeign;
    verdict.why = TakeOpensslError();
    return verdict;
  }
  X509_VERIFY_PARAM* const param = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(param, unix_s);
  X509_VERIFY_PARAM_set_depth(param, kChainMax);
  X509_VERIFY_PARAM_set_auth_level(param, 2);  // 112 bits of security: no SHA-1, no RSA below 2,048.
  X509_STORE_CTX_set_verify_cb(context.get(), AllowMissingList);
  if (X509_verify_cert(context.get()) != 1) {
    const int error = X509_STORE_CTX_get_error(context.get());
    verdict.refusal = RefusalOf(error);
    verdict.why = X509_verify_cert_error_string(error);
    ERR_clear_error();
    return verdict;
  }
  absl::StatusOr<NodeId> id = NodeIdOf(*leaf);
  if (!id.ok()) {
    verdict.refusal = Refusal::kNotSpiffe;
    verdict.why = std::string(id.status().message());
  } else if (id->trust_domain != id_.trust_domain) {
    verdict.refusal = Refusal::kWrongTrustDomain;
    verdict.why = absl::StrCat(id->ToString(), " is not of trust domain ", id_.trust_domain);
  } else {
    verdict.id = *std::move(id);
  }
  return verdict;
}

std::array<CredentialFiles::Stamp, 3> CredentialFiles::Stamps() const {
  std::array<Stamp, 3> stamps;
  const std::string* const paths[] = {&paths_.certificate, &paths_.key, &paths_.ca};
  for (std::size_t i = 0; i < stamps.size(); ++i) {
    struct stat status;
    if (stat(paths[i]->c_str(), &status) != 0) continue;
    const auto ns = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
    stamps[i] = {status.st_dev, status.st_ino, static_cast<uint64_t>(status.st_size), ns(status.st_mtim),
                 ns(status.st_ctim)};
  }
  return stamps;
}

absl::StatusOr<std::shared_ptr<const Credentials>> CredentialFiles::Poll(int64_t unix_s) {
  const std::array<Stamp, 3> before = Stamps();
  const bool seen = stamps_.has_value() && before == *stamps_;
  if (seen && !failed_) return std::shared_ptr<const Credentials>();
  absl::StatusOr<std::shared_ptr<const Credentials>> loaded = Credentials::Load(paths_, unix_s);
  // Written to meanwhile: what was read may be of two states, so the next look decides.
  if (Stamps() != before) return std::shared_ptr<const Credentials>();
  stamps_ = before;
  failed_ = !loaded.ok();
  // Tried again, since want of descriptors or a clock that lags passes; told of once.
  if (seen && failed_) return std::shared_ptr<const Credentials>();
  return loaded;
}

}  // namespace weft::identity
