// SPDX-License-Identifier: Apache-2.0
// weft-host: runs WebAssembly functions. Command line, log and signals around HostProgram; in the foreground.
#include <sys/prctl.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/notify.h"
#include "dataplane/base/stop_signals.h"
#include "dataplane/config/log.h"
#include "dataplane/host/host_program.h"

namespace weft::host {
namespace {

constexpr char kHelp[] =
    "weft-host: runs WebAssembly functions of one tenant and joins them to the mesh of its node\n"
    "\n"
    "usage: weft-host --name HOST [--serve NS/NAME=FILE]... [--keep NS/NAME=FILE]... [--run-dir DIR]\n"
    "                 [--cache-dir DIR] [--no-cache] [--poll-us N] [--waiting-calls N]\n"
    "                 [--engine shared|inside] [--log-format text|json]\n"
    "\n"
    "  --name HOST           this host's name, which the agent's settings must allow to this user\n"
    "  --serve NS/NAME=FILE  serve the function from this module, a clean instance for each call\n"
    "  --keep NS/NAME=FILE   the same, with one instance whose memory lives on from call to call\n"
    "                        FILE#N: hand number N to the handler of a module that has several functions\n"
    "  --engine WHERE        shared (default): calls to other nodes go through the agent's engine; inside: "
    "this\n"
    "                        process carries its own, where the agent's settings allow it\n"
    "  --run-dir DIR         where the agent's sockets are (default /run/weft)\n"
    "  --cache-dir DIR       where compiled modules are kept (default: the user's cache directory)\n"
    "  --no-cache            compile at every start\n"
    "  --poll-us N           poll for N microseconds before sleeping (default: measured at start)\n"
    "  --waiting-calls N     calls of guests that may wait at once, up to 16384 (default 2048); each adds a\n"
    "                        microsecond to the time after which callers hear of this process's death\n"
    "  --log-format FORMAT   text (default) or json, one line an event, on standard error\n"
    "  --version             print the version, then exit\n"
    "  --help                print this, then exit\n"
    "\n"
    "Further functions are placed here by weft-control. SIGTERM and SIGINT finish all calls, then end it.\n"
    "Exit codes: 0 ended, 1 failed, 2 usage.\n";

constexpr int kGoOn = -1;

int Usage(const std::string& what) {
  std::fprintf(stderr, "weft-host: %s (see --help)\n", what.c_str());
  return 2;
}

// NS/NAME=FILE or NS/NAME=FILE#N.
bool ParseServed(const std::string& text, bool keep, HostProgramOptions* options) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals + 1 == text.size()) return false;
  HostProgramOptions::Served served;
  served.function = text.substr(0, equals);
  served.path = text.substr(equals + 1);
  served.keep = keep;
  const size_t hash = served.path.rfind('#');
  if (hash != std::string::npos && absl::SimpleAtoi(served.path.substr(hash + 1), &served.number)) {
    served.path.resize(hash);
  }
  if (!CheckFunctionName(served.function).ok()) return false;
  options->serve.push_back(std::move(served));
  return true;
}

// One option with its value. Returns the exit code, or kGoOn.
int TakeOption(const std::string& name, const std::string& value, HostProgramOptions* options,
               std::string* log_format) {
  if (name == "--name") {
    options->name = value;
  } else if (name == "--run-dir") {
    options->run_dir = value;
  } else if (name == "--engine") {
    if (value != "inside" && value != "shared")
      return Usage(absl::StrCat("--engine must be shared or inside, not ", value));
    options->inside_engine = value == "inside";
  } else if (name == "--cache-dir") {
    options->cache_dir = value;
  } else if (name == "--serve" || name == "--keep") {
    if (!ParseServed(value, name == "--keep", options)) {
      return Usage(absl::StrCat(name, " wants NAMESPACE/NAME=FILE, not ", value));
    }
  } else if (name == "--log-format") {
    if (!ValidLogFormat(value)) return Usage(absl::StrCat("--log-format must be text or json, not ", value));
    *log_format = value;
  } else if (name == "--poll-us") {
    uint64_t us;
    if (!absl::SimpleAtoi(value, &us) || us > 1'000'000)
      return Usage("--poll-us wants a number up to 1000000");
    options->poll_time_ns = us * kNsPerUs;
  } else if (name == "--waiting-calls") {
    uint32_t calls;
    if (!absl::SimpleAtoi(value, &calls) || calls == 0 || calls > 16384)
      return Usage("--waiting-calls wants a number from 1 to 16384");
    options->waiting_calls_max = calls;
  } else {
    return Usage(absl::StrCat("unknown argument: ", name));
  }
  return kGoOn;
}

int ParseArguments(int argc, char** argv, HostProgramOptions* options, std::string* log_format) {
  for (int i = 1; i < argc; ++i) {
    std::string name = argv[i];
    if (name == "--help" || name == "-h") {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (name == "--version") {
      std::puts("weft-host " WEFT_VERSION);
      return 0;
    }
    if (name == "--no-cache") {
      options->cache_dir.clear();
      continue;
    }
    std::string value;
    const size_t equals = name.find('=');
    if (absl::StartsWith(name, "--") && equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      return Usage(absl::StrCat("unknown argument or missing value: ", name));
    }
    if (const int code = TakeOption(name, value, options, log_format); code != kGoOn) return code;
  }
  if (options->name.empty()) return Usage("--name is missing");
  if (!CheckLabel(options->name, "host").ok())
    return Usage(absl::StrCat("not a name of a host: ", options->name));
  return kGoOn;
}

int Main(int argc, char** argv) {
  HostProgramOptions options;
  options.version = WEFT_VERSION;
  options.cache_dir = ModuleCache::DefaultDirectory();
  std::string log_format = "text";
  if (const int code = ParseArguments(argc, argv, &options, &log_format); code != kGoOn) return code;
  // No other process of this user may look into the guests' memory, or take this process's descriptors.
  prctl(PR_SET_DUMPABLE, 0);
  StartLog("weft-host", log_format);
  options.notifier = Notifier::FromEnvironment();
  options.stop = StopSignals();
  absl::StatusOr<std::unique_ptr<HostProgram>> program = HostProgram::Create(std::move(options));
  absl::Status status = program.status();
  if (status.ok()) status = (*program)->Run();
  if (!status.ok()) {
    LogFatal("weft-host", std::string(status.message()));
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace weft::host

int main(int argc, char** argv) { return weft::host::Main(argc, argv); }
