// SPDX-License-Identifier: Apache-2.0
// What two agents say to each other inside TLS: frames of a type and a length, with fixed fields in network
// byte order. Pure. Decoding takes what a peer sent, whatever it is: it is bounded, and accepts exactly what
// encoding makes.
#ifndef WEFT_DATAPLANE_IDENTITY_MESSAGES_H_
#define WEFT_DATAPLANE_IDENTITY_MESSAGES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/identity/key_exchange.h"
#include "dataplane/identity/refusal.h"

namespace weft::identity {

// What every peer must speak, and the newest: 2 knows Drains.
inline constexpr uint16_t kProtocolVersion = 1;
inline constexpr uint16_t kProtocolVersionMax = 2;
inline constexpr std::size_t kFrameHeaderBytes = 4;
// A HELLO of kWorkersMax workers takes less than 2 KiB, KEYS of kKeysMax entries less than 6.
inline constexpr std::size_t kFrameBodyBytesMax = 8 * 1024;
inline constexpr std::size_t kWorkersMax = 16;
inline constexpr std::size_t kKeysMax = 512;
// Bounds of what a worker may announce: the least that IPv6 must carry, less headers; the packet's maximum.
inline constexpr uint32_t kDatagramBytesMin = 1280 - 48;
inline constexpr uint32_t kDatagramBytesMax = 9000 - 28;

using Incarnation = std::array<uint8_t, 16>;

// First on every connection, from both sides.
struct Hello {
  uint16_t version_min = kProtocolVersion;
  uint16_t version_max = kProtocolVersionMax;
  Incarnation incarnation{};  // Of the process, at random.
  uint64_t held_session = 0;  // The live session with that peer; 0: none.
  uint32_t epoch = 0;         // The last of that session.
  std::string node;
  std::vector<Worker> workers;  // By id, ascending.
  friend bool operator==(const Hello&, const Hello&) = default;
};

// Workers came or went.
struct Workers {
  std::vector<Worker> workers;
  friend bool operator==(const Workers&, const Workers&) = default;
};

// "Send to my worker `receiver` from your worker `sender` under this id."
struct KeyEntry {
  uint16_t receiver = 0;
  uint16_t sender = 0;
  uint16_t hint = 0;
  uint32_t key_id = 0;  // 0: not at all.
  friend bool operator==(const KeyEntry&, const KeyEntry&) = default;
};
struct Keys {
  uint32_t epoch = 0;
  std::vector<KeyEntry> entries;  // By receiver and sender, ascending.
  friend bool operator==(const Keys&, const Keys&) = default;
};

// From the leader: make keys for `epoch`, the next one.
struct RotateTo {
  uint32_t epoch = 0;
  friend bool operator==(const RotateTo&, const RotateTo&) = default;
};
// All that this side sends, it seals with keys of `epoch` from now on.
struct Switched {
  uint32_t epoch = 0;
  friend bool operator==(const Switched&, const Switched&) = default;
};
struct Keepalive {
  friend bool operator==(const Keepalive&, const Keepalive&) = default;
};
// To the leader.
enum class Wish : uint8_t { kRotate = 1, kDialAnew = 2 };
struct Ask {
  Wish wish = Wish::kRotate;
  friend bool operator==(const Ask&, const Ask&) = default;
};
struct Bye {
  Refusal reason = Refusal::kNone;
  friend bool operator==(const Bye&, const Bye&) = default;
};

using Message = std::variant<Hello, Workers, Keys, RotateTo, Switched, Keepalive, Ask, Bye, Drains>;

// The whole frame. The message keeps the bounds above.
std::string Encode(const Message& message);

// The first frame of `bytes`: nothing where it is not complete yet, else the message, and its length in
// `*frame_bytes`. INVALID_ARGUMENT says what is wrong with it, as soon as that can be told.
absl::StatusOr<std::optional<Message>> Decode(absl::string_view bytes, std::size_t* frame_bytes);

// Whether a worker may be announced. INVALID_ARGUMENT says what is wrong.
absl::Status CheckWorker(const Worker& worker);

}  // namespace weft::identity

#endif  // WEFT_DATAPLANE_IDENTITY_MESSAGES_H_
