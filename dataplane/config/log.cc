// SPDX-License-Identifier: Apache-2.0
#include "dataplane/config/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstddef>
#include <cstdio>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/string_view.h"
#include "dataplane/base/text.h"

namespace weft {
namespace {

bool log_is_json = false;

// Names of strangers and of files in a message may hold anything. This writes it in one line, with control
// characters as in C, so that nobody writes a line of his own or speaks to a terminal.
class OneLine final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const absl::string_view text(message.payload.data(), message.payload.size());
    for (std::size_t at = 0; at < text.size();) {
      std::size_t control = ControlBytes(text.substr(at));
      if (control == 0 || text[at] == '\t') {
        out.push_back(text[at++]);
      } else if (text[at] == '\n') {
        fmt::format_to(std::back_inserter(out), "\\n");
        ++at;
      } else {
        for (; control > 0; --control)
          fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(text[at++]));
      }
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<OneLine>(); }
};

// Writes the message as the inside of a JSON string, which is UTF-8 whatever a name in it is.
class JsonText final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string text = Utf8Of(absl::string_view(message.payload.data(), message.payload.size()));
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t control = ControlBytes(absl::string_view(text).substr(at));
      if (control > 0) {
        at += control;  // The second of two bytes is the character's number.
        fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(text[at - 1]));
        continue;
      }
      if (text[at] == '"' || text[at] == '\\') out.push_back('\\');
      out.push_back(text[at++]);
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonText>(); }
};

}  // namespace

bool ValidLogFormat(const std::string& format) { return format == "text" || format == "json"; }

void StartLog(const std::string& program, const std::string& format, const std::string& level) {
  auto logger = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_st>());
  if (format == "json") {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JsonText>('*').set_pattern(
        R"({"time":"%Y-%m-%dT%H:%M:%S.%f%z","level":"%l","message":"%*"})");
    logger->set_formatter(std::move(formatter));
  } else {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<OneLine>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%f %l %*");
    logger->set_formatter(std::move(formatter));
  }
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
  log_is_json = format == "json";
}

void LogFatal(const std::string& program, const std::string& why) {
  if (log_is_json) return spdlog::critical("{}", why);
  std::fprintf(stderr, "%s: %s\n", program.c_str(), why.c_str());
}

}  // namespace weft
