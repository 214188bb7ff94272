// SPDX-License-Identifier: Apache-2.0
// Blocking requests over one connection that stays open: what writes events at a source. One thread each.
#ifndef WEFT_BENCH_CONTROL_HTTP_WRITER_H_
#define WEFT_BENCH_CONTROL_HTTP_WRITER_H_

#include <string>

#include "absl/status/statusor.h"

namespace weft::bench {

class HttpWriter {
 public:
  struct Options {
    std::string server;  // "http://127.0.0.1:2379"
    std::string ca = {};
    std::string token = {};
    std::string content_type = "application/json";
  };

  explicit HttpWriter(Options options);
  HttpWriter(const HttpWriter&) = delete;
  HttpWriter& operator=(const HttpWriter&) = delete;
  ~HttpWriter();

  // The body of the answer; one that is no success is an error with its status and first words.
  absl::StatusOr<std::string> Ask(const std::string& method, const std::string& path,
                                  const std::string& body);

 private:
  Options options_;
  void* curl_;
  void* headers_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_CONTROL_HTTP_WRITER_H_
