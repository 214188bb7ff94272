// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/libbpf_log.h"

#include <bpf/libbpf.h>

#include <cstdarg>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace weft::control {
namespace {

// The verifier explains itself in its last lines.
constexpr std::size_t kToldBytesMax = 600;
constexpr std::size_t kKeptBytesMax = 64 * 1024;

thread_local std::string* sink = nullptr;

int Print(libbpf_print_level level, const char* format, va_list arguments) {
  if (sink == nullptr || level == LIBBPF_DEBUG) return 0;
  char line[4096];
  const int bytes = std::vsnprintf(line, sizeof(line), format, arguments);
  if (bytes > 0) sink->append(line);
  if (sink->size() > kKeptBytesMax) sink->erase(0, sink->size() - kKeptBytesMax);
  return bytes;
}

}  // namespace

LibbpfLog::LibbpfLog() {
  libbpf_set_print(Print);
  sink = &text_;
}

LibbpfLog::~LibbpfLog() { sink = nullptr; }

absl::Status LibbpfLog::ToStatus(int error, absl::string_view what) const {
  absl::string_view told = absl::StripAsciiWhitespace(text_);
  if (told.size() > kToldBytesMax) told.remove_prefix(told.size() - kToldBytesMax);
  const absl::Status status = absl::ErrnoToStatus(error, what);
  if (told.empty()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), ": ", absl::StrReplaceAll(told, {{"\n", " / "}})));
}

}  // namespace weft::control
