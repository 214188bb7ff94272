// SPDX-License-Identifier: Apache-2.0
// What weft-bench-watch can follow, one function a way; each returns the program's exit code. Nothing of weft
// is in them but the clock.
#ifndef WEFT_BENCH_CONTROL_BARE_SOURCE_H_
#define WEFT_BENCH_CONTROL_BARE_SOURCE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::bench {

struct BareServer {
  std::string url;
  std::string token;  // Empty: none
  std::string ca;     // File; empty: none
};

// One connection by libcurl, kept open between requests.
class BareHttp {
 public:
  explicit BareHttp(const BareServer& server);
  BareHttp(const BareHttp&) = delete;
  BareHttp& operator=(const BareHttp&) = delete;
  ~BareHttp();

  // The answer of `path`, by POST where `body` is not empty; it has room for simdjson behind its end. Ends
  // the program where there is none.
  std::string& Get(const std::string& path, const std::string& body);
  // Calls `take` for each line of the answer until SIGTERM.
  void Stream(const std::string& path, const std::string& body, std::function<void(std::string&)> take);

 private:
  static std::size_t TakePiece(char* data, std::size_t size, std::size_t count, void* self);
  static int IsOver(void* self, int64_t, int64_t, int64_t, int64_t);
  void Perform(const std::string& path, const std::string& body);

  BareServer server_;
  void* curl_;
  void* headers_ = nullptr;
  std::string answer_;
  std::function<void(std::string&)> take_;
};

// The events of a watch, kept until SIGTERM, then printed.
class BareEvents {
 public:
  BareEvents();
  void Ready();
  void Add(uint64_t number, uint64_t arrival_ns) { events_.emplace_back(number, arrival_ns); }
  int Print() const;

 private:
  std::vector<std::pair<uint64_t, uint64_t>> events_;
};

// Whether SIGTERM came.
bool BareIsOver();

// Prints "SECONDS OBJECTS BYTES".
int BarePrintList(uint64_t ns, uint64_t objects, uint64_t bytes);

int BareEtcdList(const BareServer& server);
int BareEtcdWatch(const BareServer& server);
int BareFilesWatch(const std::string& directory);
int BareKubeList(const BareServer& server);
int BareKubeWatch(const BareServer& server);
int BareMqttWatch(const std::string& port, const std::string& base_topic);

}  // namespace weft::bench

#endif  // WEFT_BENCH_CONTROL_BARE_SOURCE_H_
