// SPDX-License-Identifier: Apache-2.0
// weft-control: watches mesh files and programs the agent of its node. Command line, signals and the loop, on
// one thread beside the one that writes the last good state; runs in the foreground. SIGTERM and SIGINT end
// it, SIGHUP is ignored: files are watched. The mesh keeps running without it.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "control/daemon/control_socket.h"
#include "control/daemon/controller.h"
#include "control/daemon/log.h"
#include "control/daemon/notify.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

struct Arguments {
  std::string source = "/etc/weft/mesh.d";
  std::string run_dir = "/run/weft";
  std::string state_dir = "/var/lib/weft/control";
  std::string log_format = "text";
  std::string log_level = "info";
  bool allow_shrink = false;
};

constexpr int kGoOn = -1;

// Returns the exit code, or kGoOn. CLI11 throws; it ends here.
int ParseArguments(int argc, char** argv, Arguments* arguments) {
  CLI::App app("weft-control: watches mesh files and programs the agent of this node", "weft-control");
  app.add_option("--source", arguments->source, "Mesh file, or directory of *.yaml and *.yml files")
      ->capture_default_str();
  app.add_option("--run-dir", arguments->run_dir, "Directory of admin.sock and control.sock")
      ->capture_default_str();
  app.add_option("--state-dir", arguments->state_dir, "Where the last good state is kept")
      ->capture_default_str();
  app.add_flag("--allow-shrink", arguments->allow_shrink,
               "Let files take away all of their endpoints, and the last file go");
  app.add_option("--log-format", arguments->log_format, "text or json, one line an event, on standard error")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("--log-level", arguments->log_level, "Least level to log")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.set_version_flag("--version", "weft-control " WEFT_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return kGoOn;
}

// SIGTERM and SIGINT as a readable descriptor.
UniqueFd StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  return UniqueFd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
}

// Time that poll(2) may sleep until `wake_ns`.
timespec UntilWake(uint64_t wake_ns, uint64_t now_ns) {
  const uint64_t ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
  return {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
}

absl::Status Serve(const Arguments& arguments) {
  const UniqueFd stop = StopSignals();
  ControllerOptions options;
  options.source = arguments.source;
  options.admin_socket = absl::StrCat(arguments.run_dir, "/admin.sock");
  options.state_dir = arguments.state_dir;
  options.allow_shrink = arguments.allow_shrink;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Controller> controller, Controller::Create(options));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<ControlSocket> socket,
                        ControlSocket::Create(absl::StrCat(arguments.run_dir, "/control.sock"),
                                              [&] { return controller->Status(); }));
  NotifySystemd(absl::StrCat("READY=1\nSTATUS=", controller->Summary()));
  std::string told;
  std::vector<pollfd> entries;
  for (;;) {
    controller->OnTime(NowNs());
    if (std::string summary = controller->Summary(); summary != told) {
      NotifySystemd(absl::StrCat("STATUS=", summary));
      told = std::move(summary);
    }
    entries.assign({{stop.get(), POLLIN, 0}});
    controller->AddPollEntries(&entries);
    socket->AddPollEntries(&entries);
    const uint64_t wake_ns = controller->wake_ns();
    const timespec timeout = UntilWake(wake_ns, NowNs());
    if (ppoll(entries.data(), entries.size(), wake_ns == 0 ? nullptr : &timeout, nullptr) < 0 &&
        errno != EINTR) {
      return absl::ErrnoToStatus(errno, "wait for events");
    }
    const uint64_t now_ns = NowNs();
    if (entries[0].revents != 0) break;
    controller->OnEvents(entries, now_ns);
    socket->OnEvents(entries);
  }
  NotifySystemd("STOPPING=1");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (const int code = ParseArguments(argc, argv, &arguments); code != kGoOn) return code;
  StartLog(arguments.log_format, arguments.log_level);
  if (const absl::Status ended = Serve(arguments); !ended.ok()) {
    std::fprintf(stderr, "weft-control: %s\n", std::string(ended.message()).c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace weft::control

int main(int argc, char** argv) { return weft::control::Main(argc, argv); }
