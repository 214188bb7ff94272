// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/ca.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"
#include "dataplane/identity/authority.h"
#include "dataplane/identity/credentials.h"

namespace weft::ctl {
namespace {

// Clocks of nodes may be behind that of the CA by so much.
constexpr int64_t kClockSlackS = 300;
constexpr mode_t kKeyMode = 0600;
constexpr mode_t kCertificateMode = 0644;

identity::Validity ForDays(uint32_t days) {
  const int64_t now_s = time(nullptr);
  return {now_s - kClockSlackS, now_s + int64_t{days} * 86'400};
}

// Makes `path`, which must not exist, with `content` on the disk.
absl::Status WriteNew(const std::string& path, const std::string& content, mode_t mode) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!file.valid()) {
    if (errno == EEXIST)
      return absl::AlreadyExistsError(absl::StrCat(path, " exists, and is not overwritten"));
    return absl::ErrnoToStatus(errno, absl::StrCat("create ", path));
  }
  absl::Status status;
  // The umask may have taken away what others may read, never given more.
  std::size_t done = 0;
  while (status.ok() && done < content.size()) {
    const ssize_t wrote = write(file.get(), content.data() + done, content.size() - done);
    if (wrote >= 0) {
      done += static_cast<std::size_t>(wrote);
    } else if (errno != EINTR) {
      status = absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
    }
  }
  if (status.ok() && fsync(file.get()) != 0) status = absl::ErrnoToStatus(errno, absl::StrCat("sync ", path));
  if (!status.ok()) unlink(path.c_str());
  return status;
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  return ReadSmallFile(path, static_cast<std::size_t>(identity::kPemFileBytesMax));
}

// Both or none. To replace, both are written beside the old ones first, then take their places, the key
// first: who reads between finds a pair that does not match, and waits.
absl::Status WritePair(const std::string& stem, const identity::PemPair& pair, bool replace) {
  const std::string key = absl::StrCat(stem, "-key.pem");
  const std::string certificate = absl::StrCat(stem, ".pem");
  const std::string suffix = replace ? absl::StrCat(".new-", getpid()) : "";
  WEFT_RETURN_IF_ERROR(WriteNew(key + suffix, pair.key, kKeyMode));
  absl::Status status = WriteNew(certificate + suffix, pair.certificate, kCertificateMode);
  if (status.ok() && replace) {
    if (rename((key + suffix).c_str(), key.c_str()) != 0) {
      status = absl::ErrnoToStatus(errno, absl::StrCat("rename to ", key));
    } else if (rename((certificate + suffix).c_str(), certificate.c_str()) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("rename to ", certificate));
    }
    if (!status.ok()) unlink((certificate + suffix).c_str());
  }
  if (!status.ok()) unlink((key + suffix).c_str());
  return status;
}

void PrintPair(const Global& global, const std::string& stem, const std::string& identity,
               int64_t expires_unix_s) {
  const std::string until =
      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixSeconds(expires_unix_s), absl::UTCTimeZone());
  Print(global, "certificates", 0,
        {Row()
             .Text("certificate", absl::StrCat(stem, ".pem"))
             .Text("key", absl::StrCat(stem, "-key.pem"))
             .Text("identity", identity)
             .Text("valid_until", until)
             .Take()});
}

// The CA of `directory`. What its ca.pem holds beside the certificate goes to `*bundle`.
absl::StatusOr<identity::Authority> ReadAuthority(const std::string& directory, std::string* bundle) {
  identity::PemPair ca;
  for (const auto& [name, pem] : {std::pair{"/ca.pem", &ca.certificate}, {"/ca-key.pem", &ca.key}}) {
    absl::StatusOr<std::string> content = ReadPem(absl::StrCat(directory, name));
    // Only where none is: `init` makes no part of one anew, and reads none for whoever may not.
    if (absl::IsNotFound(content.status()) && pem == &ca.certificate) {
      return absl::NotFoundError(absl::StrCat(content.status().message(), " (`weftctl ca init` makes a CA)"));
    }
    if (!content.ok()) return content.status();
    *pem = *std::move(content);
  }
  absl::StatusOr<identity::Authority> authority = identity::Authority::FromPem(ca);
  if (!authority.ok()) {
    return absl::Status(authority.status().code(),
                        absl::StrCat(directory, "/ca.pem: ", authority.status().message()));
  }
  if (bundle != nullptr) *bundle = std::move(ca.certificate);
  return authority;
}

// Files are named NODE.pem and NODE-key.pem: a node of such a name would take the place of another's key, or
// of the CA's files.
absl::Status CheckNodeName(const std::string& node) {
  WEFT_RETURN_IF_ERROR(CheckLabel(node, "node"));
  if (node == "ca") {
    return absl::InvalidArgumentError("a node of that name would take the place of the CA's files");
  }
  if (absl::EndsWith(node, "-key")) {
    return absl::InvalidArgumentError(absl::StrCat(
        node, ".pem is the name of a key's file: a certificate for a node that is called so has no place"));
  }
  return absl::OkStatus();
}

}  // namespace

int RunCaInit(const Global& global, const CaArguments& arguments) {
  const std::string doing = absl::StrCat("ca init ", arguments.directory);
  const absl::StatusOr<identity::Authority> authority =
      identity::Authority::Make(arguments.trust_domain, ForDays(arguments.days));
  if (!authority.ok()) return Fail(doing, authority.status());
  if (mkdir(arguments.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Fail(doing, absl::ErrnoToStatus(errno, absl::StrCat("make ", arguments.directory)));
  }
  const std::string stem = absl::StrCat(arguments.directory, "/ca");
  const absl::Status written = WritePair(stem, authority->ToPem(), false);
  if (!written.ok()) return Fail(doing, written);
  PrintPair(global, stem, absl::StrCat("spiffe://", arguments.trust_domain), authority->expires_unix_s());
  return 0;
}

int RunCaIssue(const Global& global, const CaArguments& arguments) {
  const std::string doing = absl::StrCat("ca issue ", arguments.directory, " ", arguments.node);
  if (absl::Status status = CheckNodeName(arguments.node); !status.ok()) return Fail(doing, status);
  const absl::StatusOr<identity::Authority> authority = ReadAuthority(arguments.directory, nullptr);
  if (!authority.ok()) return Fail(doing, authority.status());
  const identity::Validity validity = ForDays(arguments.days);
  if (authority->expires_unix_s() <= validity.not_before_s + kClockSlackS) {
    return Fail(doing, absl::FailedPreconditionError("the CA's certificate has expired"));
  }
  const absl::StatusOr<identity::PemPair> pair = authority->IssueNode(arguments.node, validity);
  if (!pair.ok()) return Fail(doing, pair.status());
  const std::string& out = arguments.out.empty() ? arguments.directory : arguments.out;
  const std::string stem = absl::StrCat(out, "/", arguments.node);
  const absl::Status written = WritePair(stem, *pair, arguments.replace);
  if (!written.ok()) return Fail(doing, written);
  PrintPair(global, stem, absl::StrCat("spiffe://", authority->trust_domain(), "/node/", arguments.node),
            std::min(validity.not_after_s, authority->expires_unix_s()));
  return 0;
}

int RunCaRevoke(const Global& global, const CaArguments& arguments) {
  const std::string file = arguments.certificate.empty()
                               ? absl::StrCat(arguments.directory, "/", arguments.node, ".pem")
                               : arguments.certificate;
  const std::string doing = absl::StrCat("ca revoke ", arguments.directory, " ", file);
  std::string bundle;
  const absl::StatusOr<identity::Authority> authority = ReadAuthority(arguments.directory, &bundle);
  if (!authority.ok()) return Fail(doing, authority.status());
  const absl::StatusOr<std::string> certificate = ReadPem(file);
  if (!certificate.ok()) return Fail(doing, certificate.status());
  const absl::StatusOr<identity::NodeId> whose = identity::NodeIdOfPem(*certificate);
  if (whose.ok() && whose->name != arguments.node) {
    return Fail(doing, absl::InvalidArgumentError(absl::StrCat(file, " is the certificate of node ",
                                                               whose->name, ", not of ", arguments.node)));
  }
  const std::size_t list_begin = bundle.find("-----BEGIN X509 CRL-----");
  const std::string earlier = list_begin == std::string::npos ? "" : bundle.substr(list_begin);
  // A list that is out of date still revokes what it names, so it need not be made anew.
  const identity::Validity validity{ForDays(0).not_before_s, authority->expires_unix_s()};
  const absl::StatusOr<std::string> list = authority->Revoke({*certificate}, validity, earlier);
  if (!list.ok())
    return Fail(doing, absl::Status(list.status().code(), absl::StrCat(file, ": ", list.status().message())));
  // One file, in one step: an agent reads the old one or the new one.
  const std::string path = absl::StrCat(arguments.directory, "/ca.pem");
  const std::string fresh = absl::StrCat(path, ".new-", getpid());
  const std::string renewed = absl::StrCat(authority->ToPem().certificate, *list);
  if (renewed.size() > static_cast<std::size_t>(identity::kPemFileBytesMax)) {
    return Fail(doing, absl::ResourceExhaustedError(
                           absl::StrCat(path, " would be longer than agents read: begin with a new CA")));
  }
  absl::Status written = WriteNew(fresh, renewed, kCertificateMode);
  if (written.ok() && rename(fresh.c_str(), path.c_str()) != 0) {
    written = absl::ErrnoToStatus(errno, absl::StrCat("replace ", path));
    unlink(fresh.c_str());
  }
  if (!written.ok()) return Fail(doing, written);
  Print(global, "revocations", 0, {Row().Text("revoked", file).Text("list", path).Take()});
  return 0;
}

}  // namespace weft::ctl
