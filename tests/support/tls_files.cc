// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tls_files.h"

#include <cstdio>
#include <vector>

#include "dataplane/base/check.h"
#include "tests/support/process.h"

namespace weft::test {
namespace {

void OpenSsl(const std::string& key, const std::string& certificate, std::vector<std::string> more) {
  std::vector<std::string> arguments = {
      "/usr/bin/openssl", "req",     "-x509", "-newkey", "ec",        "-pkeyopt", "ec_paramgen_curve:P-256",
      "-nodes",           "-keyout", key,     "-out",    certificate, "-days",    "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Ran ran = Run(arguments);
  if (ran.exit_code != 0) std::fprintf(stderr, "%s\n", ran.error.c_str());
  WEFT_CHECK(ran.exit_code == 0);
}

}  // namespace

TlsAuthority::TlsAuthority() { OpenSsl(path("ca.key"), path("ca.crt"), {"-subj", "/CN=test CA"}); }

// Without a common name: etcd's gateway refuses to start where its certificate could stand for a user.
control::TlsFiles TlsAuthority::Issue(const std::string& name, const std::string& subject) const {
  control::TlsFiles files;
  files.ca = path("ca.crt");
  files.certificate = path(name + ".crt");
  files.key = path(name + ".key");
  OpenSsl(files.key, files.certificate,
          {"-subj", subject, "-CA", path("ca.crt"), "-CAkey", path("ca.key"), "-addext",
           "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-addext",
           "extendedKeyUsage=serverAuth,clientAuth"});
  return files;
}

}  // namespace weft::test
