// SPDX-License-Identifier: Apache-2.0
// etcd by its JSON gateway: pages of 2,000 keys at one revision, each decoded from base64; the watch, whose
// events are numbered by the revision that each made.
#include <simdjson.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "bench/control/bare_source.h"
#include "dataplane/base/clock.h"

namespace weft::bench {
namespace {

using simdjson::ondemand::object;

constexpr char kPrefix[] = "/weft/";
constexpr char kPrefixEnd[] = "/weft0";
constexpr int kPageEntries = 2'000;
constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string Encoded(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += k <= bytes.size() - i ? kDigits[group >> (18 - 6 * k) & 63] : '=';
    }
  }
  return text;
}

const std::array<uint8_t, 256>& Values() {
  static const std::array<uint8_t, 256> values = [] {
    std::array<uint8_t, 256> made{};
    for (uint8_t i = 0; i < 64; ++i) made[static_cast<unsigned char>(kDigits[i])] = i;
    return made;
  }();
  return values;
}

void Decode(std::string_view text, std::string* bytes) {
  const std::array<uint8_t, 256>& values = Values();
  bytes->clear();
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  uint32_t group = 0;
  int bits = 0;
  for (const char digit : text) {
    group = group << 6 | values[static_cast<unsigned char>(digit)];
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes->push_back(static_cast<char>(group >> bits));
  }
}

uint64_t NumberOf(simdjson::ondemand::value value) {
  std::string_view text;
  if (value.get_string().get(text) != simdjson::SUCCESS) return 0;
  return std::strtoull(std::string(text).c_str(), nullptr, 10);
}

struct Entry {
  std::string key;
  std::string value;
  uint64_t revision = 0;
  uint64_t lease = 0;
};

void ReadEntry(object from, Entry* entry) {
  entry->value.clear();
  entry->lease = 0;
  for (auto field : from) {
    const std::string_view name = field.unescaped_key();
    simdjson::ondemand::value value = field.value();
    if (name == "key") {
      Decode(value.get_string(), &entry->key);
    } else if (name == "value") {
      Decode(value.get_string(), &entry->value);
    } else if (name == "mod_revision") {
      entry->revision = NumberOf(value);
    } else if (name == "lease") {
      entry->lease = NumberOf(value);
    }
  }
}

simdjson::padded_string_view Padded(const std::string& text) {
  return simdjson::padded_string_view(text.data(), text.size(), text.capacity());
}

}  // namespace

int BareEtcdList(const BareServer& server) {
  const uint64_t begun_ns = NowNs();
  BareHttp http(server);
  simdjson::ondemand::parser parser;
  Entry entry;
  uint64_t objects = 0, bytes = 0, revision = 0;
  std::string from = kPrefix;
  for (bool more = true; more;) {
    const std::string at = revision == 0 ? "" : ",\"revision\":\"" + std::to_string(revision) + "\"";
    const std::string& page =
        http.Get("/v3/kv/range", "{\"key\":\"" + Encoded(from) + "\",\"range_end\":\"" + Encoded(kPrefixEnd) +
                                     "\",\"limit\":\"" + std::to_string(kPageEntries) + "\"" + at + "}");
    bytes += page.size();
    more = false;
    simdjson::ondemand::document document = parser.iterate(Padded(page));
    for (auto field : document.get_object()) {
      const std::string_view name = field.unescaped_key();
      if (name == "header") {
        if (revision == 0) revision = NumberOf(field.value()["revision"]);
      } else if (name == "kvs") {
        for (auto each : field.value().get_array()) {
          ReadEntry(each.get_object(), &entry);
          ++objects;
        }
      } else if (name == "more") {
        more = field.value().get_bool();
      }
    }
    from = entry.key + '\0';
  }
  return BarePrintList(NowNs() - begun_ns, objects, bytes);
}

int BareEtcdWatch(const BareServer& server) {
  BareEvents events;
  BareHttp http(server);
  simdjson::ondemand::parser parser;
  Entry entry;
  http.Stream("/v3/watch",
              "{\"create_request\":{\"key\":\"" + Encoded(kPrefix) + "\",\"range_end\":\"" +
                  Encoded(kPrefixEnd) + "\"}}",
              [&](std::string& line) {
                const uint64_t now_ns = NowNs();
                simdjson::ondemand::document document = parser.iterate(Padded(line));
                for (auto field : document["result"].get_object()) {
                  const std::string_view name = field.unescaped_key();
                  if (name == "created") {
                    events.Ready();
                  } else if (name == "events") {
                    for (auto event : field.value().get_array()) {
                      ReadEntry(event["kv"].get_object(), &entry);
                      events.Add(entry.revision, now_ns);
                    }
                  }
                }
              });
  return events.Print();
}

}  // namespace weft::bench
