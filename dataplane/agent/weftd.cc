// SPDX-License-Identifier: Apache-2.0
// weftd: the agent of a node. Command line, log and signals around the Server; runs in the foreground.
#include <google/protobuf/stubs/logging.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dataplane/agent/node_link.h"
#include "dataplane/agent/server.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/notify.h"
#include "dataplane/base/status.h"
#include "dataplane/base/stop_signals.h"
#include "dataplane/config/log.h"
#include "dataplane/identity/credentials.h"

namespace weft::agent {
namespace {

constexpr char kHelp[] =
    "weftd: agent of a weft node; admits hosts, hands out channels and routes\n"
    "\n"
    "usage: weftd [--config FILE] [--run-dir DIR] [--state-dir DIR] [--node NAME] [--log-format text|json] "
    "[--check]\n"
    "\n"
    "  --config FILE        settings (default /etc/weft/weftd.yaml)\n"
    "  --run-dir DIR        where agent.sock and admin.sock are made (default /run/weft)\n"
    "  --state-dir DIR      where the last routes are kept (default /var/lib/weft)\n"
    "  --node NAME          this node's name, in place of the settings'\n"
    "  --log-format FORMAT  text (default) or json, one line an event, on standard error\n"
    "  --check              check the settings, then exit\n"
    "  --version            print the version, then exit\n"
    "  --help               print this, then exit\n"
    "\n"
    "SIGTERM and SIGINT stop it; hosts keep running and attach again. Exit codes: 0 stopped, 1 failed, 2 "
    "usage.\n";

struct Arguments {
  std::string config = "/etc/weft/weftd.yaml";
  std::string run_dir = "/run/weft";
  std::string state_dir = "/var/lib/weft";
  std::string node;
  std::string log_format = "text";
  bool check = false;
};

constexpr int kGoOn = -1;

// Returns the exit code, or kGoOn.
int ParseArguments(int argc, char** argv, Arguments* arguments) {
  const std::pair<const char*, std::string*> values[] = {{"--config", &arguments->config},
                                                         {"--run-dir", &arguments->run_dir},
                                                         {"--state-dir", &arguments->state_dir},
                                                         {"--node", &arguments->node},
                                                         {"--log-format", &arguments->log_format}};
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (argument == "--version") {
      std::puts("weftd " WEFT_VERSION);
      return 0;
    }
    if (argument == "--check") {
      arguments->check = true;
      continue;
    }
    bool known = false;
    for (const auto& [name, value] : values) {
      const std::string prefix = absl::StrCat(name, "=");
      if (absl::StartsWith(argument, prefix)) {
        *value = argument.substr(prefix.size());
        known = true;
      } else if (argument == name && i + 1 < argc) {
        *value = argv[++i];
        known = true;
      }
    }
    if (!known) {
      std::fprintf(stderr, "weftd: unknown argument or missing value: %s (see --help)\n", argument.c_str());
      return 2;
    }
  }
  if (!ValidLogFormat(arguments->log_format)) {
    std::fprintf(stderr, "weftd: --log-format must be text or json, not %s\n", arguments->log_format.c_str());
    return 2;
  }
  return kGoOn;
}

// Runs the registry, and beside it what other nodes need where there are any.
absl::Status Serve(const AgentConfig& config, const std::string& run_dir, Server& server) {
  std::unique_ptr<NodeLink> link;
  if (!config.listen.empty()) {
    WEFT_ASSIGN_OR_RETURN(link, NodeLink::Create(config, run_dir, &server.engine_door()));
    server.set_node_link(link.get());
  }
  return server.Run();
}

// What --check finds beyond the file: that the certificate can be used, and is this node's.
absl::Status CheckIdentity(const AgentConfig& config) {
  if (config.listen.empty()) return absl::OkStatus();
  const AgentConfig::Identity& files = config.identity;
  WEFT_ASSIGN_OR_RETURN(const std::shared_ptr<const identity::Credentials> credentials,
                        identity::Credentials::Load({files.certificate, files.key, files.ca},
                                                    absl::ToUnixSeconds(absl::Now())));
  if (credentials->id().name == config.node) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(files.certificate, " is the certificate of node ",
                                                 credentials->id().name, ", not of ", config.node));
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (const int code = ParseArguments(argc, argv, &arguments); code != kGoOn) return code;
  StartLog("weftd", arguments.log_format);
  // It would write a line for each malformed message that a stranger sends.
  google::protobuf::SetLogHandler(nullptr);
  absl::StatusOr<AgentConfig> config = LoadAgentConfig(arguments.config);
  if (!config.ok()) {
    LogFatal("weftd", std::string(config.status().message()));
    return 1;
  }
  if (!arguments.node.empty()) {
    config->node = arguments.node;
    if (const absl::Status status = CheckLabel(arguments.node, "--node"); !status.ok()) {
      std::fprintf(stderr, "weftd: %s\n", std::string(status.message()).c_str());
      return 2;
    }
  }
  if (arguments.check) {
    if (const absl::Status identity = CheckIdentity(*config); !identity.ok()) {
      LogFatal("weftd", std::string(identity.message()));
      return 1;
    }
    const std::size_t tenants = config->tenants.size();
    std::printf("%s: good, %zu tenant%s\n", arguments.config.c_str(), tenants, tenants == 1 ? "" : "s");
    return 0;
  }
  ServerOptions options;
  options.run_dir = arguments.run_dir;
  options.state_dir = arguments.state_dir;
  const AgentConfig server_config = *std::move(config);
  options.config = server_config;
  options.stop = StopSignals();
  options.notifier = Notifier::FromEnvironment();
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(std::move(options));
  const absl::Status ended =
      server.ok() ? Serve(server_config, arguments.run_dir, **server) : server.status();
  if (!ended.ok()) {
    LogFatal("weftd", std::string(ended.message()));
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace weft::agent

int main(int argc, char** argv) { return weft::agent::Main(argc, argv); }
