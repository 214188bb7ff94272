// SPDX-License-Identifier: Apache-2.0
// Certificates for the servers of a test, made by the openssl program: a CA, and what it signs.
#ifndef WEFT_TESTS_SUPPORT_TLS_FILES_H_
#define WEFT_TESTS_SUPPORT_TLS_FILES_H_

#include <string>

#include "control/source/http_client.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

class TlsAuthority {
 public:
  TlsAuthority();

  // For 127.0.0.1, with NAME.crt and NAME.key; usable by a server and by a client.
  control::TlsFiles Issue(const std::string& name, const std::string& subject = "/O=weft test") const;
  std::string path(const std::string& name) const { return directory_ / name; }

 private:
  TemporaryDirectory directory_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_TLS_FILES_H_
