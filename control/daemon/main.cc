// SPDX-License-Identifier: Apache-2.0
// weft-control: watches mesh files, etcd, Kubernetes or Propeller and programs the agent of its node. Command
// line, signals and the loop, on one thread beside the one that writes the last good state; runs in the
// foreground. SIGTERM and SIGINT end it, SIGHUP is ignored: files are watched. The mesh keeps running without
// it.
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "control/config/control_config.h"
#include "control/daemon/control_socket.h"
#include "control/daemon/controller.h"
#include "control/daemon/metrics_server.h"
#include "control/daemon/steer_service.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/notify.h"
#include "dataplane/base/status.h"
#include "dataplane/base/stop_signals.h"
#include "dataplane/config/log.h"
#include "dataplane/config/user.h"

namespace weft::control {
namespace {

struct Arguments {
  std::string source;
  std::string config;
  std::string run_dir = "/run/weft";
  std::string state_dir = "/var/lib/weft/control";
  std::string log_format = "text";
  std::string log_level = "info";
  bool allow_shrink = false;
  std::vector<std::string> steer;
  std::string steer_detach;
  SteerConfig steer_config;
  std::string agent_user;
  std::string metrics;
};

constexpr int kGoOn = -1;
constexpr char kMeshDir[] = "/etc/weft/mesh.d";

// Returns the exit code, or kGoOn. CLI11 throws; it ends here.
int ParseArguments(int argc, char** argv, Arguments* arguments) {
  CLI::App app(
      "weft-control: watches mesh files, etcd, Kubernetes or Propeller and programs the agent of this node",
      "weft-control");
  app.add_option(
      "--source", arguments->source,
      "Mesh file, or directory of *.yaml and *.yml files; /etc/weft/mesh.d where there is no --config");
  app.add_option("--config", arguments->config,
                 "weft-control.yaml: names the sources, such as etcd and Kubernetes");
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
  app.add_option("--steer", arguments->steer,
                 "Interface on which the XDP program takes weft's packets; needs CAP_BPF and CAP_NET_ADMIN, "
                 "and a BPF "
                 "file system at RUN_DIR/bpf. May be given several times")
      ->allow_extra_args(false);
  app.add_option("--port", arguments->steer_config.port, "UDP port of weft's packets, with --steer")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  app.add_option("--agent-user", arguments->agent_user,
                 "User (name or number) that weftd runs as, to whom maps, and modules of a Propeller worker, "
                 "are handed; "
                 "the own one by default")
      ->check([](const std::string& user) { return std::string(UidOf(user).status().message()); });
  app.add_option("--metrics", arguments->metrics,
                 "Loopback address for Prometheus, as in 127.0.0.1:9464; default: none");
  app.add_option("--steer-detach", arguments->steer_detach,
                 "Detach the XDP program from this interface, remove its maps, and end");
  app.set_version_flag("--version", "weft-control " WEFT_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    std::fprintf(stderr, "weft-control: %s (see --help)\n", e.what());
    return 2;
  }
  return kGoOn;
}

// Time that poll(2) may sleep until `wake_ns`.
timespec UntilWake(uint64_t wake_ns, uint64_t now_ns) {
  const uint64_t ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
  return {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
}

// Of two times, of which 0 stands for never.
uint64_t Earlier(uint64_t a_ns, uint64_t b_ns) {
  if (a_ns == 0 || b_ns == 0) return std::max(a_ns, b_ns);
  return std::min(a_ns, b_ns);
}

std::string BpfDirOf(const std::string& run_dir) { return absl::StrCat(run_dir, "/bpf"); }

// What control.sock answers. `steer` is null where nothing is steered; both outlive the socket.
ControlSocket::Handlers HandlersOf(const Controller& controller, const std::unique_ptr<SteerService>& steer) {
  return {.status =
              [&controller, &steer] {
                api::QueryReply reply = controller.Status();
                if (steer != nullptr) steer->AddStatus(&reply);
                return reply;
              },
          .changes = [&controller](uint64_t after) { return controller.Changes(after); },
          .said = [&controller](
                      const api::Explain& call) { return controller.SaidOf(call.caller(), call.callee()); },
          .steer = [&steer](const api::GetSteer& request) -> absl::StatusOr<SteerGrant> {
            if (steer == nullptr) return absl::NotFoundError("weft-control was started without --steer");
            return steer->Grant(request);
          }};
}

// The command line stands against the file.
absl::Status NameSources(Arguments* arguments, ControllerOptions* options) {
  options->source = arguments->source;
  if (arguments->config.empty()) {
    if (options->source.empty()) options->source = kMeshDir;
    return absl::OkStatus();
  }
  WEFT_ASSIGN_OR_RETURN(ControlConfig config, LoadControlConfig(arguments->config));
  if (arguments->metrics.empty()) arguments->metrics = std::move(config.metrics);
  if (options->source.empty()) options->source = std::move(config.files);
  options->etcd = std::move(config.etcd);
  options->presence = std::move(config.presence);
  options->propeller = std::move(config.propeller);
  options->kubernetes = std::move(config.kubernetes);
  return absl::OkStatus();
}

absl::Status Serve(Arguments arguments) {
  const UniqueFd stop = StopSignals();
  signal(SIGHUP, SIG_IGN);
  ControllerOptions options;
  WEFT_RETURN_IF_ERROR(NameSources(&arguments, &options));
  options.admin_socket = absl::StrCat(arguments.run_dir, "/admin.sock");
  options.state_dir = arguments.state_dir;
  options.allow_shrink = arguments.allow_shrink;
  uid_t agent_uid = geteuid();
  if (!arguments.agent_user.empty()) {
    WEFT_ASSIGN_OR_RETURN(agent_uid, UidOf(arguments.agent_user));
  }
  options.agent_uid = agent_uid;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Controller> controller, Controller::Create(options));
  // Before the maps: of two processes on one run directory the second fails here and touches none.
  std::unique_ptr<SteerService> steer;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<ControlSocket> socket,
                        ControlSocket::Create(absl::StrCat(arguments.run_dir, "/control.sock"),
                                              HandlersOf(*controller, steer), agent_uid));
  std::unique_ptr<MetricsServer> metrics;
  if (!arguments.metrics.empty()) {
    WEFT_ASSIGN_OR_RETURN(
        metrics, MetricsServer::Create(arguments.metrics, [&controller] { return controller->Metrics(); }));
    spdlog::info("metrics on port {} of {}", metrics->port(), arguments.metrics);
  }
  if (!arguments.steer.empty()) {
    WEFT_ASSIGN_OR_RETURN(
        SteerService service,
        SteerService::Create(arguments.steer, BpfDirOf(arguments.run_dir), arguments.steer_config));
    steer = std::make_unique<SteerService>(std::move(service));
  }
  const Notifier notifier = Notifier::FromEnvironment();
  const uint64_t watchdog_ns = notifier.watchdog_interval_ns();
  uint64_t next_watchdog_ns = watchdog_ns == 0 ? 0 : NowNs();
  notifier.Send(absl::StrCat("READY=1\nSTATUS=", controller->Summary()));
  std::string told;
  std::vector<pollfd> entries;
  for (;;) {
    controller->OnTime(NowNs());
    if (metrics != nullptr) metrics->OnTime(NowNs());
    if (std::string summary = controller->Summary(); summary != told) {
      notifier.Send(absl::StrCat("STATUS=", summary));
      told = std::move(summary);
    }
    if (next_watchdog_ns != 0 && NowNs() >= next_watchdog_ns) {
      notifier.Send("WATCHDOG=1");
      next_watchdog_ns = NowNs() + watchdog_ns;
    }
    entries.assign({{stop.get(), POLLIN, 0}});
    controller->AddPollEntries(&entries);
    socket->AddPollEntries(&entries);
    if (metrics != nullptr) metrics->AddPollEntries(&entries);
    uint64_t wake_ns = Earlier(controller->wake_ns(), next_watchdog_ns);
    if (metrics != nullptr) wake_ns = Earlier(wake_ns, metrics->wake_ns());
    const timespec timeout = UntilWake(wake_ns, NowNs());
    if (ppoll(entries.data(), entries.size(), wake_ns == 0 ? nullptr : &timeout, nullptr) < 0 &&
        errno != EINTR) {
      return absl::ErrnoToStatus(errno, "wait for events");
    }
    const uint64_t now_ns = NowNs();
    if (entries[0].revents != 0) break;
    controller->OnEvents(entries, now_ns);
    socket->OnEvents(entries);
    if (metrics != nullptr) metrics->OnEvents(entries, now_ns);
  }
  notifier.Send("STOPPING=1");
  return absl::OkStatus();
}

// Tables of a large mesh grow by being copied: what is freed then goes back at once, and leaves no holes that
// only another table of the same size would fill.
constexpr int kMapFromBytes = 256 * 1024;

int Main(int argc, char** argv) {
  mallopt(M_MMAP_THRESHOLD, kMapFromBytes);
  Arguments arguments;
  if (const int code = ParseArguments(argc, argv, &arguments); code != kGoOn) return code;
  StartLog("weft-control", arguments.log_format, arguments.log_level);
  if (!arguments.steer_detach.empty()) {
    const absl::Status detached = Steer::Detach(BpfDirOf(arguments.run_dir), arguments.steer_detach);
    if (!detached.ok()) LogFatal("weft-control", std::string(detached.message()));
    if (detached.ok()) std::printf("%s: detached, maps removed\n", arguments.steer_detach.c_str());
    return detached.ok() ? 0 : 1;
  }
  if (const absl::Status ended = Serve(arguments); !ended.ok()) {
    LogFatal("weft-control", std::string(ended.message()));
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace weft::control

int main(int argc, char** argv) { return weft::control::Main(argc, argv); }
