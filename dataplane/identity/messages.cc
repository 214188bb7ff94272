// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/messages.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::identity {
namespace {

enum class Type : uint8_t {
  kHello = 1,
  kWorkers = 2,
  kKeys = 3,
  kRotateTo = 4,
  kSwitched = 5,
  kKeepalive = 6,
  kAsk = 7,
  kBye = 8,
  kDrains = 9,
};
constexpr char kMagic[] = {'w', 'e', 'f', 't'};

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

class Writer {
 public:
  template <typename T>
  void Number(T value) {
    for (int shift = (static_cast<int>(sizeof(T)) - 1) * 8; shift >= 0; shift -= 8) {
      bytes_.push_back(static_cast<char>(value >> shift & 0xff));
    }
  }
  void Text(absl::string_view text) {
    Number(static_cast<uint8_t>(text.size()));
    bytes_.append(text.data(), text.size());
  }
  void Raw(const void* data, std::size_t bytes) { bytes_.append(static_cast<const char*>(data), bytes); }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads fields one after the other; after the end every one is 0 and good() false.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Number() {
    if (!Has(sizeof(T))) return 0;
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      value = static_cast<T>(uint64_t{value} << 8 | static_cast<uint8_t>(bytes_[i]));
    }
    bytes_.remove_prefix(sizeof(T));
    return value;
  }
  std::string Text() {
    const std::size_t length = Number<uint8_t>();
    if (!Has(length)) return {};
    std::string text(bytes_.substr(0, length));
    bytes_.remove_prefix(length);
    return text;
  }
  void Raw(void* out, std::size_t bytes) {
    if (!Has(bytes)) return;
    std::memcpy(out, bytes_.data(), bytes);
    bytes_.remove_prefix(bytes);
  }
  bool good() const { return good_; }
  // All was there and nothing is left.
  bool AtEnd() const { return good_ && bytes_.empty(); }

 private:
  bool Has(std::size_t bytes) {
    good_ = good_ && bytes_.size() >= bytes;
    return good_;
  }

  absl::string_view bytes_;
  bool good_ = true;
};

void WriteWorkers(const std::vector<Worker>& workers, Writer* writer) {
  WEFT_CHECK(workers.size() <= kWorkersMax);
  writer->Number(static_cast<uint8_t>(workers.size()));
  for (const Worker& worker : workers) {
    writer->Number(worker.id);
    writer->Number(worker.hint);
    writer->Number(static_cast<uint8_t>(worker.address.ipv6 ? 6 : 4));
    writer->Raw(worker.address.address.data(), worker.address.ipv6 ? 16 : 4);
    writer->Number(worker.address.port);
    writer->Number(worker.datagram_bytes_max);
    writer->Number(worker.share_bytes);
    writer->Text(worker.host);
  }
}

absl::Status ReadWorkers(Reader* reader, std::vector<Worker>* workers) {
  const std::size_t count = reader->Number<uint8_t>();
  if (count > kWorkersMax) return Invalid("too many workers");
  for (std::size_t i = 0; i < count && reader->good(); ++i) {
    Worker worker;
    worker.id = reader->Number<uint16_t>();
    worker.hint = reader->Number<uint16_t>();
    const uint8_t family = reader->Number<uint8_t>();
    if (family != 4 && family != 6) return Invalid("a worker's address is neither IPv4 nor IPv6");
    worker.address.ipv6 = family == 6;
    reader->Raw(worker.address.address.data(), family == 6 ? 16 : 4);
    worker.address.port = reader->Number<uint16_t>();
    worker.datagram_bytes_max = reader->Number<uint32_t>();
    worker.share_bytes = reader->Number<uint32_t>();
    worker.host = reader->Text();
    if (!reader->good()) break;
    WEFT_RETURN_IF_ERROR(CheckWorker(worker));
    if (!workers->empty() && workers->back().id >= worker.id) return Invalid("workers out of order");
    workers->push_back(std::move(worker));
  }
  return absl::OkStatus();
}

void Write(const Hello& hello, Writer* writer) {
  writer->Raw(kMagic, sizeof(kMagic));
  writer->Number(hello.version_min);
  writer->Number(hello.version_max);
  writer->Raw(hello.incarnation.data(), hello.incarnation.size());
  writer->Number(hello.held_session);
  writer->Number(hello.epoch);
  writer->Text(hello.node);
  WriteWorkers(hello.workers, writer);
}

absl::StatusOr<Message> ReadHello(Reader* reader) {
  char magic[sizeof(kMagic)] = {};
  reader->Raw(magic, sizeof(magic));
  if (std::memcmp(magic, kMagic, sizeof(magic)) != 0) return Invalid("HELLO does not begin with \"weft\"");
  Hello hello;
  hello.version_min = reader->Number<uint16_t>();
  hello.version_max = reader->Number<uint16_t>();
  reader->Raw(hello.incarnation.data(), hello.incarnation.size());
  hello.held_session = reader->Number<uint64_t>();
  hello.epoch = reader->Number<uint32_t>();
  hello.node = reader->Text();
  if (!reader->good()) return Invalid("HELLO is cut off");
  if (hello.version_min == 0 || hello.version_min > hello.version_max) return Invalid("HELLO: no version");
  if (hello.incarnation == Incarnation{}) return Invalid("HELLO: no incarnation");
  WEFT_RETURN_IF_ERROR(CheckLabel(hello.node, "node"));
  WEFT_RETURN_IF_ERROR(ReadWorkers(reader, &hello.workers));
  return Message(std::move(hello));
}

void Write(const Workers& workers, Writer* writer) { WriteWorkers(workers.workers, writer); }

absl::StatusOr<Message> ReadWorkersMessage(Reader* reader) {
  Workers workers;
  WEFT_RETURN_IF_ERROR(ReadWorkers(reader, &workers.workers));
  return Message(std::move(workers));
}

void Write(const Keys& keys, Writer* writer) {
  WEFT_CHECK(!keys.entries.empty() && keys.entries.size() <= kKeysMax);
  writer->Number(keys.epoch);
  writer->Number(static_cast<uint16_t>(keys.entries.size()));
  for (const KeyEntry& entry : keys.entries) {
    writer->Number(entry.receiver);
    writer->Number(entry.sender);
    writer->Number(entry.hint);
    writer->Number(entry.key_id);
  }
}

absl::StatusOr<Message> ReadKeys(Reader* reader) {
  Keys keys;
  keys.epoch = reader->Number<uint32_t>();
  const std::size_t count = reader->Number<uint16_t>();
  if (count == 0 || count > kKeysMax) return Invalid("KEYS: no entry, or too many");
  for (std::size_t i = 0; i < count && reader->good(); ++i) {
    KeyEntry entry;
    entry.receiver = reader->Number<uint16_t>();
    entry.sender = reader->Number<uint16_t>();
    entry.hint = reader->Number<uint16_t>();
    entry.key_id = reader->Number<uint32_t>();
    if (!keys.entries.empty()) {
      const KeyEntry& last = keys.entries.back();
      if (std::pair(last.receiver, last.sender) >= std::pair(entry.receiver, entry.sender)) {
        return Invalid("KEYS: entries out of order");
      }
    }
    keys.entries.push_back(entry);
  }
  return Message(std::move(keys));
}

void Write(const RotateTo& rotate, Writer* writer) { writer->Number(rotate.epoch); }
void Write(const Switched& switched, Writer* writer) { writer->Number(switched.epoch); }
void Write(const Keepalive&, Writer*) {}
void Write(const Ask& ask, Writer* writer) { writer->Number(static_cast<uint8_t>(ask.wish)); }
void Write(const Bye& bye, Writer* writer) { writer->Number(static_cast<uint8_t>(bye.reason)); }

absl::StatusOr<Message> ReadAsk(Reader* reader) {
  const uint8_t wish = reader->Number<uint8_t>();
  if (wish != 1 && wish != 2) return Invalid("ASK: no such wish");
  return Message(Ask{static_cast<Wish>(wish)});
}

absl::StatusOr<Message> ReadBye(Reader* reader) {
  const uint8_t reason = reader->Number<uint8_t>();
  if (reason == 0 || reason >= kRefusals) return Invalid("BYE: no such reason");
  return Message(Bye{static_cast<Refusal>(reason)});
}

void Write(const std::string& host, Writer* writer) { writer->Text(host); }

void Write(const DrainedHost& drained, Writer* writer) {
  writer->Text(drained.host);
  writer->Number(drained.number);
}

void Write(const Drains& drains, Writer* writer) {
  const auto write = [writer](const auto& hosts) {
    WEFT_CHECK(hosts.size() <= kDrainsMax);
    writer->Number(static_cast<uint8_t>(hosts.size()));
    for (const auto& host : hosts) Write(host, writer);
  };
  write(drains.draining);
  write(drains.gone);
  write(drains.left);
  write(drains.needed);
}

absl::string_view NameOf(const std::string& host) { return host; }
absl::string_view NameOf(const DrainedHost& drained) { return drained.host; }

void Read(std::string* host, Reader* reader) { *host = reader->Text(); }
void Read(DrainedHost* drained, Reader* reader) {
  drained->host = reader->Text();
  drained->number = reader->Number<uint64_t>();
}

template <typename Host>
absl::Status ReadHosts(std::vector<Host>* hosts, Reader* reader) {
  const std::size_t count = reader->Number<uint8_t>();
  if (count > kDrainsMax) return Invalid("DRAINS: too many hosts");
  for (std::size_t i = 0; i < count && reader->good(); ++i) {
    Host host;
    Read(&host, reader);
    if (!reader->good()) break;
    WEFT_RETURN_IF_ERROR(CheckLabel(NameOf(host), "host"));
    if (!hosts->empty() && NameOf(hosts->back()) >= NameOf(host))
      return Invalid("DRAINS: hosts out of order");
    hosts->push_back(std::move(host));
  }
  return absl::OkStatus();
}

absl::StatusOr<Message> ReadDrains(Reader* reader) {
  Drains drains;
  WEFT_RETURN_IF_ERROR(ReadHosts(&drains.draining, reader));
  WEFT_RETURN_IF_ERROR(ReadHosts(&drains.gone, reader));
  WEFT_RETURN_IF_ERROR(ReadHosts(&drains.left, reader));
  WEFT_RETURN_IF_ERROR(ReadHosts(&drains.needed, reader));
  return Message(std::move(drains));
}

absl::StatusOr<Message> ReadBody(uint8_t type, Reader* reader) {
  switch (static_cast<Type>(type)) {
    case Type::kHello:
      return ReadHello(reader);
    case Type::kWorkers:
      return ReadWorkersMessage(reader);
    case Type::kKeys:
      return ReadKeys(reader);
    case Type::kRotateTo:
      return Message(RotateTo{reader->Number<uint32_t>()});
    case Type::kSwitched:
      return Message(Switched{reader->Number<uint32_t>()});
    case Type::kKeepalive:
      return Message(Keepalive{});
    case Type::kAsk:
      return ReadAsk(reader);
    case Type::kBye:
      return ReadBye(reader);
    case Type::kDrains:
      return ReadDrains(reader);
  }
  return Invalid(absl::StrCat("no frame has type ", type));
}

}  // namespace

absl::Status CheckWorker(const Worker& worker) {
  if (worker.address.port == 0) return Invalid("a worker without port");
  if (!worker.address.ipv6 && worker.address.address[0] >= 224)
    return Invalid("a worker's multicast address");
  if (worker.address.ipv6 && worker.address.address[0] == 0xff)
    return Invalid("a worker's multicast address");
  if (worker.datagram_bytes_max < kDatagramBytesMin || worker.datagram_bytes_max > kDatagramBytesMax) {
    return Invalid(absl::StrCat("a worker's datagrams of at most ", worker.datagram_bytes_max, " bytes"));
  }
  return worker.host.empty() ? absl::OkStatus() : CheckLabel(worker.host, "host");
}

std::string Encode(const Message& message) {
  Writer body;
  std::visit([&](const auto& m) { Write(m, &body); }, message);
  const std::string bytes = body.Take();
  WEFT_CHECK(bytes.size() <= kFrameBodyBytesMax);
  Writer frame;
  frame.Number(static_cast<uint8_t>(message.index() + 1));
  frame.Number(uint8_t{0});
  frame.Number(static_cast<uint16_t>(bytes.size()));
  frame.Raw(bytes.data(), bytes.size());
  return frame.Take();
}

absl::StatusOr<std::optional<Message>> Decode(absl::string_view bytes, std::size_t* frame_bytes) {
  Reader header(bytes);
  const uint8_t type = header.Number<uint8_t>();
  const uint8_t reserved = header.Number<uint8_t>();
  const std::size_t length = header.Number<uint16_t>();
  if (bytes.size() > 1 && reserved != 0) return Invalid("a frame's reserved byte is not 0");
  if (!header.good()) return std::optional<Message>();
  if (length > kFrameBodyBytesMax) return Invalid(absl::StrCat("a frame of ", length, " bytes"));
  if (bytes.size() < kFrameHeaderBytes + length) return std::optional<Message>();
  Reader reader(bytes.substr(kFrameHeaderBytes, length));
  WEFT_ASSIGN_OR_RETURN(Message message, ReadBody(type, &reader));
  if (!reader.AtEnd()) return Invalid(absl::StrCat("a frame of type ", type, " has a wrong length"));
  *frame_bytes = kFrameHeaderBytes + length;
  return std::optional<Message>(std::move(message));
}

}  // namespace weft::identity
