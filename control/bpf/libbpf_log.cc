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
  // The verifier's log comes in one piece, with the cause at its end.
  va_list again;
  va_copy(again, arguments);
  const int bytes = std::vsnprintf(nullptr, 0, format, arguments);
  if (bytes > 0) {
    const std::size_t end = sink->size();
    sink->resize(end + static_cast<std::size_t>(bytes) + 1);  // vsnprintf ends with a zero.
    (void)std::vsnprintf(sink->data() + end, static_cast<std::size_t>(bytes) + 1, format, again);
    sink->pop_back();
  }
  va_end(again);
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
  absl::Status status = absl::ErrnoToStatus(error, what);
  if (told.empty()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), ": ", absl::StrReplaceAll(told, {{"\n", " / "}})));
}

}  // namespace weft::control
