// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/dpdk_eal.h"

#include <rte_config.h>
#undef RTE_USE_LIBBSD  // It would take libbsd-dev for strlcpy, of which DPDK has its own.

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace weft::port {
namespace {

// The buffers of two devices, and DPDK's own. Of normal pages reserved, and not taken before they are used.
constexpr int kMemoryMib = 128;
constexpr std::size_t kLogBytesMax = 600;

std::mutex log_mutex;
std::string& Log() {
  static auto* const log = new std::string();
  return *log;
}

ssize_t WriteLog(void*, const char* text, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(log_mutex);
  std::string& log = Log();
  log.append(text, bytes);
  if (log.size() > kLogBytesMax) log.erase(0, log.size() - kLogBytesMax);
  return static_cast<ssize_t>(bytes);
}

// Where there are enough free huge pages of one size: DPDK starts with a single one, and fails later.
bool HaveHugePages() {
  std::error_code error;
  for (const auto& size : std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", error)) {
    long kib = 0, free_pages = 0;
    if (!absl::SimpleAtoi(
            absl::StripSuffix(absl::StripPrefix(size.path().filename().native(), "hugepages-"), "kB"), &kib))
      continue;
    std::ifstream file(size.path() / "free_hugepages");
    if (file >> free_pages && free_pages * kib >= kMemoryMib * 1024L) return true;
  }
  return false;
}

// One logical core, EAL's least, on all cores that the calling thread may run on: "0@(0,1)".
std::string CoresArgument() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  sched_getaffinity(0, sizeof(cores), &cores);
  std::string list;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &cores)) absl::StrAppend(&list, list.empty() ? "" : ",", core);
  }
  return absl::StrCat("--lcores=0@(", list, ")");
}

absl::Status Start(bool huge) {
  // The streams' owner is the process: EAL logs as long as that lives.
  static FILE* const stream =
      fopencookie(nullptr, "w", {.read = nullptr, .write = WriteLog, .seek = nullptr, .close = nullptr});
  if (stream != nullptr) {
    setvbuf(stream, nullptr, _IOLBF, 512);
    rte_openlog_stream(stream);
  }
  std::vector<std::string> arguments = {"weft", "--no-pci", "--no-telemetry", "--iova-mode=va",
                                        CoresArgument()};
  if (huge) {
    arguments.emplace_back("--in-memory");
  } else {
    arguments.insert(arguments.end(), {"--no-huge", "--no-shconf", "-m", absl::StrCat(kMemoryMib)});
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  if (rte_eal_init(static_cast<int>(argv.size() - 1), argv.data()) >= 0) {
    (void)TakeEalLog();
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      absl::StrCat("DPDK's environment does not start: ", rte_strerror(rte_errno), "; ", TakeEalLog()));
}

}  // namespace

std::string TakeEalLog() {
  std::string log;
  {
    const std::lock_guard<std::mutex> lock(log_mutex);
    log = std::exchange(Log(), "");
  }
  absl::StripAsciiWhitespace(&log);
  return absl::StrReplaceAll(log, {{"\n", "; "}});
}

absl::Status StartEal(PortStatus* status) {
  static const bool huge = HaveHugePages();
  static const absl::Status started = Start(huge);
  status->choices.push_back(
      huge ? PortChoice{"memory", "huge pages", "--in-memory"}
           : PortChoice{"memory", absl::StrCat("up to ", kMemoryMib, " MiB in normal pages"),
                        absl::StrCat("--no-huge: fewer than ", kMemoryMib, " MiB of huge pages are free")});
  return started;
}

}  // namespace weft::port
