// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/transport/fuzz_core.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/transport/core.h"

namespace weft::transport {
namespace {

constexpr FunctionId kEcho{42};

Config TinyConfig() {
  Config config;
  config.peers_max = 2;
  config.slots_per_peer = 4;
  config.calls_max = 8;
  config.messages_in_max = 8;
  config.messages_out_max = 16;
  config.memory_bytes = 1u << 20;
  config.tenants_max = 1;
  config.functions_max = 2;
  config.packets_in_flight_max = 256;
  return config;
}

// Frames of a text that is cut off or padded to whole frames are more often valid than raw bytes: the lengths
// of DATA, the most frequent frame, are mended, the rest is left as it comes.
void MendLengths(std::vector<uint8_t>* text) {
  for (std::size_t at = 0; at + 4 <= text->size();) {
    uint16_t length;
    std::memcpy(&length, text->data() + at + 2, sizeof(length));
    const std::size_t left = text->size() - at;
    if (length < 4 || length > left) {
      length = static_cast<uint16_t>(left);
      std::memcpy(text->data() + at + 2, &length, sizeof(length));
    }
    at += length;
  }
}

}  // namespace

void FuzzCore(const uint8_t* data, std::size_t bytes) {
  std::unique_ptr<Core> core = std::move(*Core::Create(TinyConfig()));
  core->SetTenantLimit({0}, 300'000);
  WEFT_CHECK(core->SetFunction(kEcho, {0}).ok());
  const PeerIndex peer = *core->AddPeer(1);
  uint64_t now_ns = 1'000'000'000;
  core->BeginSession(peer, 1, now_ns);
  const SealSecret secret{};
  SealKey key;
  key.Install(secret);
  const uint32_t key_id = core->InstallReceiveKey(peer, 0, secret);
  core->InstallSendKey(peer, 0, 7, 0, secret);
  SendOptions options;
  options.peer = peer;
  options.function = kEcho;
  const std::vector<uint8_t> large(60'000, 1);
  for (const std::size_t size : {std::size_t{10}, large.size()}) {
    WEFT_CHECK(core->TrySend(options, {}, Bytes(large.data(), size), now_ns, nullptr) == SendResult::kOk);
  }
  uint8_t wire[WEFT_PACKET_BYTES_MAX];
  uint64_t counter = 0;
  for (std::size_t at = 0; at + 2 <= bytes && counter < 64;) {
    // Two bytes of length and time, then the text of one datagram.
    const std::size_t length = std::min<std::size_t>(4 + data[at] * 8, bytes - at - 2);
    now_ns += uint64_t{data[at + 1]} * 100'000;
    std::vector<uint8_t> text(data + at + 2, data + at + 2 + length);
    at += 2 + length;
    if (text.size() < 4) break;
    MendLengths(&text);
    const weft_packet_header header{WEFT_PACKET_VERSION_AND_SUITE, 0, 0, __builtin_bswap32(key_id),
                                    __builtin_bswap64(counter)};
    std::memcpy(wire, &header, sizeof(header));
    std::memcpy(wire + sizeof(header), text.data(), text.size());
    key.Seal(counter++, wire, wire + sizeof(header), text.size());
    core->HandleDatagram(wire, sizeof(header) + text.size() + WEFT_PACKET_TAG_BYTES, now_ns);
    core->Tick(now_ns);
    uint64_t path;
    for (int i = 0; i < 8 && core->NextDatagram(wire, now_ns, &path) != 0; ++i) {
    }
    Event event;
    while (core->NextEvent(&event)) {
      uint8_t sum = 0;
      for (uint32_t i = 0; i < event.payload_bytes; ++i) sum = static_cast<uint8_t>(sum + event.payload[i]);
      if (event.kind == EventKind::kRequest && sum % 2 == 0) {
        (void)core->TryRespond(event.handle, absl::StatusCode::kOk, Bytes(event.payload, event.payload_bytes),
                               {}, now_ns);
      }
      core->Release(event);
    }
    WEFT_CHECK(core->UseOf({0}).used_bytes <= 300'000);
    WEFT_CHECK(core->memory_used_bytes() == core->UseOf({0}).used_bytes);
  }
  // Whatever came, a new session finds the core clean.
  core->BeginSession(peer, 2, now_ns);
  Event event;
  while (core->NextEvent(&event)) core->Release(event);
  WEFT_CHECK(core->memory_used_bytes() == 0);
  WEFT_CHECK(core->messages_in() == 0 && core->messages_out() == 0 && core->calls_outstanding() == 0);
}

}  // namespace weft::transport
