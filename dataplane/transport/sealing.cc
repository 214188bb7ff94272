// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/sealing.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <bit>
#include <cstring>

#include "bpf/abi/packet.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

#ifdef WEFT_HAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

namespace weft::transport {
namespace {

static_assert(std::endian::native == std::endian::little, "the nonce is composed of words");

// As in TLS 1.3: the counter, big-endian, is XORed into the last eight of the IV's twelve bytes.
WordPair NonceOf(WordPair iv, uint64_t counter) {
  const uint64_t tail = __builtin_bswap64(counter);
  return iv ^ WordPair { tail << 32, tail >> 32 };
}

const uint8_t* BytesOf(const WordPair& words) { return reinterpret_cast<const uint8_t*>(&words); }

#ifdef WEFT_HAVE_IPSEC_MB
// In a time that does not depend on where they differ; as CRYPTO_memcmp, without the call.
bool SameTag(const uint8_t* a, const uint8_t* b) {
  static_assert(WEFT_PACKET_TAG_BYTES == 2 * sizeof(uint64_t));
  uint64_t words[4];
  std::memcpy(words, a, WEFT_PACKET_TAG_BYTES);
  std::memcpy(words + 2, b, WEFT_PACKET_TAG_BYTES);
  return ((words[0] ^ words[2]) | (words[1] ^ words[3])) == 0;
}

// One manager for the process: the direct GCM calls only read its table of functions, so all threads share
// it.
IMB_MGR* Manager() {
  static IMB_MGR* const manager = [] {
    IMB_MGR* made = alloc_mb_mgr(0);
    if (made == nullptr) return made;
    IMB_ARCH arch = IMB_ARCH_NONE;
    init_mb_mgr_auto(made, &arch);
    if (imb_get_errno(made) != 0) {
      free_mb_mgr(made);
      made = nullptr;
    }
    return made;
  }();
  return manager;
}
#endif

}  // namespace

struct SealKey::State {
#ifdef WEFT_HAVE_IPSEC_MB
  gcm_key_data expanded;  // The library asks for its own alignment, which the type carries.
  // Scratch of each operation. The library refuses a null one by returning without a word, which would leave
  // the text plain.
  gcm_context_data scratch;
  IMB_MGR* manager = nullptr;
#endif
  EVP_CIPHER_CTX* seal = nullptr;
  EVP_CIPHER_CTX* open = nullptr;

  ~State() {
    EVP_CIPHER_CTX_free(seal);
    EVP_CIPHER_CTX_free(open);
#ifdef WEFT_HAVE_IPSEC_MB
    OPENSSL_cleanse(&expanded, sizeof(expanded));
    OPENSSL_cleanse(&scratch, sizeof(scratch));
#endif
  }
};

bool SealBackendAvailable(SealBackend backend) {
#ifdef WEFT_HAVE_IPSEC_MB
  if (backend == SealBackend::kIpsecMb) return Manager() != nullptr;
#endif
  return backend != SealBackend::kIpsecMb;
}

SealKey::SealKey() = default;
SealKey::~SealKey() { Clear(); }
SealKey::SealKey(SealKey&&) noexcept = default;
SealKey& SealKey::operator=(SealKey&&) noexcept = default;

void SealKey::Clear() {
  state_.reset();
  OPENSSL_cleanse(&iv_, sizeof(iv_));
  installed_ = false;
}

void SealKey::Install(const SealSecret& secret, SealBackend backend) {
  WEFT_CHECK(SealBackendAvailable(backend));
  Clear();
  state_ = std::make_unique<State>();
  std::memcpy(&iv_, secret.iv.data(), kSealIvBytes);
  installed_ = true;
  ipsec_mb_ = backend == SealBackend::kIpsecMb ||
              (backend == SealBackend::kDefault && SealBackendAvailable(SealBackend::kIpsecMb));
#ifdef WEFT_HAVE_IPSEC_MB
  if (ipsec_mb_) {
    state_->manager = Manager();
    IMB_AES128_GCM_PRE(state_->manager, secret.key.data(), &state_->expanded);
    return;
  }
#endif
  state_->seal = EVP_CIPHER_CTX_new();
  state_->open = EVP_CIPHER_CTX_new();
  WEFT_CHECK(state_->seal != nullptr && state_->open != nullptr);
  WEFT_CHECK(EVP_EncryptInit_ex(state_->seal, EVP_aes_128_gcm(), nullptr, secret.key.data(), nullptr) == 1);
  WEFT_CHECK(EVP_DecryptInit_ex(state_->open, EVP_aes_128_gcm(), nullptr, secret.key.data(), nullptr) == 1);
}

WEFT_HOT void SealKey::Seal(uint64_t counter, const uint8_t* header, uint8_t* text, std::size_t bytes) {
  const WordPair nonce = NonceOf(iv_, counter);
#ifdef WEFT_HAVE_IPSEC_MB
  if (ipsec_mb_) [[likely]] {
    IMB_AES128_GCM_ENC(state_->manager, &state_->expanded, &state_->scratch, text, text, bytes,
                       BytesOf(nonce), header, WEFT_PACKET_HEADER_BYTES, text + bytes, WEFT_PACKET_TAG_BYTES);
    return;
  }
#endif
  int written = 0;
  EVP_CIPHER_CTX* const context = state_->seal;
  // These cannot fail for a context that Install has set up; a failure would put plain text on the wire.
  WEFT_CHECK(EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, BytesOf(nonce)) == 1);
  WEFT_CHECK(EVP_EncryptUpdate(context, nullptr, &written, header, WEFT_PACKET_HEADER_BYTES) == 1);
  WEFT_CHECK(EVP_EncryptUpdate(context, text, &written, text, static_cast<int>(bytes)) == 1);
  WEFT_CHECK(EVP_EncryptFinal_ex(context, text + written, &written) == 1);
  WEFT_CHECK(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, WEFT_PACKET_TAG_BYTES, text + bytes) == 1);
}

WEFT_HOT bool SealKey::Open(uint64_t counter, const uint8_t* header, const uint8_t* text, std::size_t bytes,
                            uint8_t* plain) {
  const WordPair nonce = NonceOf(iv_, counter);
#ifdef WEFT_HAVE_IPSEC_MB
  if (ipsec_mb_) [[likely]] {
    uint8_t tag[WEFT_PACKET_TAG_BYTES];
    IMB_AES128_GCM_DEC(state_->manager, &state_->expanded, &state_->scratch, plain, text, bytes,
                       BytesOf(nonce), header, WEFT_PACKET_HEADER_BYTES, tag, sizeof(tag));
    return SameTag(tag, text + bytes);
  }
#endif
  int written = 0;
  EVP_CIPHER_CTX* const context = state_->open;
  uint8_t tag[WEFT_PACKET_TAG_BYTES];
  std::memcpy(tag, text + bytes, sizeof(tag));  // EVP takes the expected tag through a mutable pointer.
  return EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, BytesOf(nonce)) == 1 &&
         EVP_DecryptUpdate(context, nullptr, &written, header, WEFT_PACKET_HEADER_BYTES) == 1 &&
         EVP_DecryptUpdate(context, plain, &written, text, static_cast<int>(bytes)) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, sizeof(tag), tag) == 1 &&
         EVP_DecryptFinal_ex(context, plain + written, &written) == 1;
}

}  // namespace weft::transport
