// SPDX-License-Identifier: Apache-2.0
// Owners of OpenSSL's objects, its errors as text and its times as numbers. Internal to the folder and its
// tests.
#ifndef WEFT_DATAPLANE_IDENTITY_OPENSSL_H_
#define WEFT_DATAPLANE_IDENTITY_OPENSSL_H_

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>

namespace weft::identity {

template <auto Free>
struct OpensslDeleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
inline void FreeX509Stack(STACK_OF(X509) * stack) { sk_X509_pop_free(stack, X509_free); }
inline void FreeX509InfoStack(STACK_OF(X509_INFO) * stack) { sk_X509_INFO_pop_free(stack, X509_INFO_free); }
inline void FreeBio(BIO* bio) { BIO_free_all(bio); }

using X509Ptr = std::unique_ptr<X509, OpensslDeleter<X509_free>>;
using X509StackPtr = std::unique_ptr<STACK_OF(X509), OpensslDeleter<FreeX509Stack>>;
using X509InfoStackPtr = std::unique_ptr<STACK_OF(X509_INFO), OpensslDeleter<FreeX509InfoStack>>;
using X509StoreContextPtr = std::unique_ptr<X509_STORE_CTX, OpensslDeleter<X509_STORE_CTX_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslDeleter<EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, OpensslDeleter<FreeBio>>;
using SslPtr = std::unique_ptr<SSL, OpensslDeleter<SSL_free>>;
using GeneralNamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslDeleter<GENERAL_NAMES_free>>;

// Takes all errors off this thread's queue and returns the text of the first.
inline std::string TakeOpensslError() {
  const unsigned long first = ERR_get_error();
  ERR_clear_error();
  const char* const text = first == 0 ? nullptr : ERR_reason_error_string(first);
  return text == nullptr ? "no reason given" : text;
}

inline BioPtr BioOf(const std::string& bytes) {
  return BioPtr(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

// The last second in which `certificate` is valid, as Unix time.
inline int64_t NotAfter(const X509* certificate) {
  tm parts{};
  ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts);
  return timegm(&parts);
}

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_OPENSSL_H_
