// SPDX-License-Identifier: Apache-2.0
#include "dataplane/config/agent_config.h"

#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/ip_address.h"
#include "dataplane/base/status.h"
#include "dataplane/config/user.h"
#include "dataplane/config/yaml.h"

namespace weft {
namespace {

constexpr uint64_t kArenaBytesMin = 4 * 1024;
constexpr uint64_t kArenaBytesMax = 64 * 1024 * 1024;

// namespace/name or namespace/*
absl::Status CheckPattern(absl::string_view pattern) {
  if (absl::EndsWith(pattern, "/*")) return CheckLabel(pattern.substr(0, pattern.size() - 2), "namespace");
  return CheckFunctionName(pattern);
}

// address:port, where an IPv6 address stands in brackets.
absl::Status CheckListen(absl::string_view listen) {
  const std::size_t colon = listen.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || colon == 0 || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
      port == 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be address:port, as in 192.0.2.1:4810, not \"", listen, "\""));
  }
  if (!IsIpAddress(listen.substr(0, colon))) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be an IP address and a port, as in 192.0.2.1:4810 or [2001:db8::1]:4810, not \"",
                     listen, "\""));
  }
  if (IsNoNodesAddress(listen.substr(0, colon))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", listen, "\" is a multicast, broadcast or link-local address, which no node listens at"));
  }
  return absl::OkStatus();
}

// What the kernel takes as a name.
absl::Status CheckInterface(absl::string_view name) {
  const bool wrong = std::any_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == ':' || absl::ascii_isspace(static_cast<unsigned char>(c));
  });
  if (!name.empty() && name.size() < IF_NAMESIZE && !wrong && name != "." && name != "..")
    return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" is no name of an interface: 1 to ",
                                                 IF_NAMESIZE - 1, " bytes without '/', ':' and spaces"));
}

// A virtual device as after DPDK's --vdev: net_NAME and a number, then key=value behind commas.
absl::Status CheckDevice(absl::string_view device) {
  const std::vector<absl::string_view> parts = absl::StrSplit(device, ',');
  const auto is_of = [](absl::string_view text, absl::string_view more) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains(more, c);
    });
  };
  if (!absl::StartsWith(parts[0], "net_") || !is_of(parts[0], "_") ||
      !absl::ascii_isdigit(static_cast<unsigned char>(parts[0].back()))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must begin with a virtual device and its number, as in net_memif0, not \"", parts[0], "\""));
  }
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::size_t equals = parts[i].find('=');
    if (equals == absl::string_view::npos || !is_of(parts[i].substr(0, equals), "_-") ||
        !is_of(parts[i].substr(equals + 1), "_-./:@")) {
      return absl::InvalidArgumentError(absl::StrCat("\"", parts[i], "\" is no key=value"));
    }
  }
  return absl::OkStatus();
}

void ReadLimits(YamlMap& map, TenantLimits* limits) {
  limits->hosts = static_cast<uint32_t>(map.Uint("hosts", 1, 1024, limits->hosts));
  limits->clients = static_cast<uint32_t>(map.Uint("clients", 1, 16384, limits->clients));
  limits->functions = static_cast<uint32_t>(map.Uint("functions", 1, 65536, limits->functions));
  limits->channels = static_cast<uint32_t>(map.Uint("channels", 1, 65536, limits->channels));
  limits->bytes = map.Bytes("bytes", 1 << 16, uint64_t{1} << 40, limits->bytes);
  limits->arena_bytes =
      static_cast<uint32_t>(map.Bytes("arena", kArenaBytesMin, kArenaBytesMax, limits->arena_bytes));
  if (!std::has_single_bit(limits->arena_bytes)) map.Error("arena", "must be a power of two");
}

// Reads a list of names, each checked; a wrong one is reported at the key.
template <typename Check>
std::vector<std::string> Names(YamlMap& map, absl::string_view key, Check&& check) {
  std::vector<std::string> names = map.Strings(key);
  std::set<std::string> seen;
  for (const std::string& name : names) {
    map.Check(key, check(name));
    if (!seen.insert(name).second) map.Error(key, absl::StrCat("\"", name, "\" stands there twice"));
  }
  return names;
}

Tenant ReadTenant(YamlMap& map) {
  Tenant tenant;
  map.Require({"tenant", "user"});
  tenant.name = map.String("tenant");
  if (map.Has("tenant")) map.Check("tenant", CheckLabel(tenant.name, "tenant"));
  tenant.user = map.Scalar("user");
  if (map.Has("user")) {
    const absl::StatusOr<uid_t> uid = UidOf(tenant.user);
    if (map.Check("user", uid.status())) tenant.uid = *uid;
  }
  tenant.hosts = Names(map, "hosts", [](const std::string& name) { return CheckLabel(name, "host"); });
  tenant.pods = map.Bool("pods");
  tenant.serve = Names(map, "serve", [](const std::string& name) { return CheckPattern(name); });
  tenant.call_as = map.String("call_as");
  if (map.Has("call_as")) map.Check("call_as", CheckLabel(tenant.call_as, "namespace"));
  tenant.engine_inside = map.Enum("engine", {"shared", "inside"}) == 1;
  tenant.raw_packets = map.Bool("raw_packets");
  if (tenant.raw_packets && !tenant.engine_inside)
    map.Error("raw_packets", "means nothing without `engine: inside`");
  map.Map("limits", [&](YamlMap& limits) { ReadLimits(limits, &tenant.limits); });
  if (tenant.hosts.empty() && !tenant.pods && !tenant.serve.empty())
    map.Error("serve", "needs a name under `hosts` to serve from");
  return tenant;
}

// One user is one tenant: processes of one uid can read each other's memory, whatever this file says. A
// host's name belongs to one tenant too.
void ReadAdmitted(YamlMap& map, AgentConfig* config) {
  std::map<uid_t, std::string> tenant_of_uid;
  std::map<std::string, std::string> tenant_of_host;
  std::set<std::string> names;
  map.Maps("admit", [&](YamlMap& entry) {
    Tenant tenant = ReadTenant(entry);
    if (tenant.engine_inside && config->listen.empty())
      entry.Error("engine", "`inside` means nothing without `listen`: no call leaves this node");
    if (tenant.engine_inside && config->packet_port == AgentConfig::PacketPort::kDpdk) {
      entry.Error(
          "engine",
          "`inside` does not go with `packet_port: dpdk`: a host's packets pass the kernel, which the "
          "device of another node with that port does not hear");
    }
    if (tenant.raw_packets &&
        (config->interface.empty() || config->packet_port == AgentConfig::PacketPort::kIoUring)) {
      entry.Error("raw_packets",
                  "needs the `interface` that AF_XDP is to use, and not `packet_port: io_uring`");
    }
    if (!tenant.name.empty() && !names.insert(tenant.name).second) {
      entry.Error("tenant", absl::StrCat("\"", tenant.name, "\" is admitted twice"));
    }
    const auto [first, is_new] = tenant_of_uid.emplace(tenant.uid, tenant.name);
    if (!is_new && !tenant.user.empty()) {
      entry.Error("user", absl::StrCat("tenants \"", first->second, "\" and \"", tenant.name, "\" share uid ",
                                       tenant.uid,
                                       "; processes of one uid are not isolated, give each tenant its own"));
    }
    for (const std::string& host : tenant.hosts) {
      const auto [owner, fresh] = tenant_of_host.emplace(host, tenant.name);
      if (!fresh) {
        entry.Error("hosts",
                    absl::StrCat("host \"", host, "\" belongs to tenant \"", owner->second, "\" already"));
      }
    }
    config->tenants.push_back(std::move(tenant));
  });
}

// What only makes sense with `listen`, and what `listen` needs.
void ReadWayToOthers(YamlMap& map, AgentConfig* config) {
  using enum AgentConfig::PacketPort;
  constexpr AgentConfig::PacketPort kPorts[] = {kAuto, kAfXdp, kDpdk, kIoUring};
  config->packet_port = kPorts[map.Enum("packet_port", {"auto", "af_xdp", "dpdk", "io_uring"})];
  config->interface = map.String("interface");
  if (map.Has("interface")) map.Check("interface", CheckInterface(config->interface));
  config->workers = static_cast<uint32_t>(map.Uint("workers", 1, AgentConfig::kWorkersMax, 0));
  map.Map("dpdk", [&](YamlMap& dpdk) {
    dpdk.Require({"device", "address"});
    config->dpdk.device = dpdk.NonEmptyString("device");
    if (dpdk.Has("device")) dpdk.Check("device", CheckDevice(config->dpdk.device));
    config->dpdk.address = dpdk.NonEmptyString("address");
    if (dpdk.Has("address")) dpdk.Check("address", CheckListen(config->dpdk.address));
  });
  if (config->packet_port == kDpdk) {
    if (!map.Has("dpdk")) map.Error("packet_port", "needs `dpdk: {device: …, address: …}`");
    if (map.Has("interface"))
      map.Error("interface", "means nothing with `packet_port: dpdk`: the device is its own");
    if (config->workers > 1)
      map.Error("workers", "`packet_port: dpdk` has one: one queue of its device is used");
  } else if (map.Has("dpdk")) {
    map.Error("dpdk", "means nothing without `packet_port: dpdk`");
  }
  if (config->packet_port == kAfXdp && !map.Has("interface"))
    map.Error("packet_port", "`af_xdp` needs the `interface` that `listen` is reached by");
  config->mtu = static_cast<uint32_t>(
      map.Uint("mtu", AgentConfig::kMtuMin, AgentConfig::kMtuMax, AgentConfig::kMtuDefault));
  map.Map("identity", [&](YamlMap& identity) {
    identity.Require({"certificate", "key", "ca"});
    config->identity.certificate = identity.NonEmptyString("certificate");
    config->identity.key = identity.NonEmptyString("key");
    config->identity.ca = identity.NonEmptyString("ca");
  });
  if (map.Has("listen")) {
    if (!map.Has("identity")) map.Error("listen", "needs an `identity`: other nodes ask for a certificate");
    return;
  }
  for (const char* const key : {"packet_port", "interface", "workers", "mtu", "dpdk", "identity"}) {
    if (map.Has(key)) map.Error(key, "means nothing without `listen`");
  }
}

absl::StatusOr<AgentConfig> ReadConfig(YamlDocument document) {
  AgentConfig config;
  config.control_uid = geteuid();
  const absl::Status read = document.Read([&](YamlMap& map) {
    map.Require({"node"});
    config.node = map.String("node");
    if (map.Has("node")) map.Check("node", CheckLabel(config.node, "node"));
    config.listen = map.String("listen");
    if (map.Has("listen")) map.Check("listen", CheckListen(config.listen));
    ReadWayToOthers(map, &config);
    if (map.Has("control_user")) {
      const absl::StatusOr<uid_t> uid = UidOf(map.Scalar("control_user"));
      if (map.Check("control_user", uid.status())) config.control_uid = *uid;
    }
    ReadAdmitted(map, &config);
  });
  WEFT_RETURN_IF_ERROR(read);
  return config;
}

}  // namespace

absl::StatusOr<AgentConfig> ParseAgentConfig(absl::string_view text, const std::string& file) {
  return ReadConfig(YamlDocument::Parse(text, file));
}

absl::StatusOr<AgentConfig> LoadAgentConfig(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(YamlDocument document, LoadYaml(path));
  return ReadConfig(std::move(document));
}

}  // namespace weft
