// SPDX-License-Identifier: Apache-2.0
// Sealing of one datagram: AES-128-GCM with the clear header as associated data and a nonce made of the key's
// IV and the packet counter. Keys are injected (from the TLS exporter, or by a test); nothing here makes or
// stores one elsewhere. Two back ends with one result: libipsec-mb (44 ns for 64 B) and, where the build has
// not found it, OpenSSL's EVP. Owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_SEALING_H_
#define WEFT_DATAPLANE_TRANSPORT_SEALING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "dataplane/base/words.h"

namespace weft::transport {

inline constexpr std::size_t kSealKeyBytes = 16;
inline constexpr std::size_t kSealIvBytes = 12;

// What the two ends of one direction share. The same pair must never be installed twice: see core.h.
struct SealSecret {
  std::array<uint8_t, kSealKeyBytes> key{};
  std::array<uint8_t, kSealIvBytes> iv{};
};

enum class SealBackend { kDefault, kIpsecMb, kOpenSsl };

// Whether this build and this processor can use `backend`. kDefault always can.
bool SealBackendAvailable(SealBackend backend);

// One expanded key, for either direction. About 1 KiB, allocated in Create; sealing and opening allocate
// nothing.
class SealKey {
 public:
  SealKey();
  ~SealKey();
  SealKey(SealKey&&) noexcept;
  SealKey& operator=(SealKey&&) noexcept;

  // Expands `secret`, in place of the key held before. Control path: some microseconds. WEFT_CHECKs that
  // `backend` is available.
  void Install(const SealSecret& secret, SealBackend backend = SealBackend::kDefault);
  // Forgets the key and overwrites it.
  void Clear();
  bool installed() const { return installed_; }

  // Encrypts text[0, bytes) in place, authenticates it and `header` (WEFT_PACKET_HEADER_BYTES), and writes
  // the tag of WEFT_PACKET_TAG_BYTES behind the text. The caller never passes one counter twice.
  void Seal(uint64_t counter, const uint8_t* header, uint8_t* text, std::size_t bytes);

  // Verifies text[0, bytes) and the tag behind it, and writes the plain text to `plain`, which has room for
  // `bytes` and does not overlap. False where the tag is wrong: then what `plain` holds must not be read.
  [[nodiscard]] bool Open(uint64_t counter, const uint8_t* header, const uint8_t* text, std::size_t bytes,
                          uint8_t* plain);

 private:
  struct State;
  std::unique_ptr<State> state_;
  WordPair iv_{};  // Twelve bytes; the rest is zero.
  bool installed_ = false;
  bool ipsec_mb_ = false;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_SEALING_H_
