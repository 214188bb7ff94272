// SPDX-License-Identifier: Apache-2.0
// weftd.yaml: every wrong setting is an error with file, line and key.
#include "dataplane/config/agent_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace weft {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string ErrorOf(const std::string& yaml) {
  const auto config = ParseAgentConfig(yaml, "weftd.yaml");
  return config.ok() ? "" : std::string(config.status().message());
}

TEST(AgentConfigTest, TwoTenantsUnderOneUserAreAnError) {
  EXPECT_THAT(ErrorOf("node: n1\n"
                      "admit:\n"
                      "  - {tenant: web, user: 1001, hosts: [a]}\n"
                      "  - {tenant: vision, user: 1001, hosts: [b]}\n"),
              AllOf(HasSubstr("weftd.yaml:4"), HasSubstr("admit[1].user"), HasSubstr("\"web\""),
                    HasSubstr("\"vision\""), HasSubstr("share uid 1001")));
}

TEST(AgentConfigTest, OneUserByNameAndByNumberIsStillOneUser) {
  EXPECT_THAT(ErrorOf("node: n1\n"
                      "admit:\n"
                      "  - {tenant: web, user: root}\n"
                      "  - {tenant: vision, user: 0}\n"),
              HasSubstr("share uid 0"));
}

TEST(AgentConfigTest, HostOfTwoTenantsIsAnError) {
  EXPECT_THAT(ErrorOf("node: n1\n"
                      "admit:\n"
                      "  - {tenant: web, user: 1001, hosts: [a]}\n"
                      "  - {tenant: vision, user: 1002, hosts: [a]}\n"),
              AllOf(HasSubstr("admit[1].hosts"), HasSubstr("host \"a\" belongs to tenant \"web\"")));
}

TEST(AgentConfigTest, WrongSettingsAreNamed) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("weftd.yaml"));
  EXPECT_THAT(ErrorOf("admit: []\n"), HasSubstr("node: missing"));
  EXPECT_THAT(ErrorOf("node: N 1\n"), HasSubstr("weftd.yaml:1"));
  EXPECT_THAT(ErrorOf("node: n1\nlisten: nowhere\n"),
              AllOf(HasSubstr("weftd.yaml:2"), HasSubstr("address:port")));
  const std::string identity = "identity: {certificate: c, key: k, ca: a}\n";
  for (const char* const listen :
       {"localhost:4810", "192.0.2:4810", "2001:db8::1:4810", "[192.0.2.1]:4810"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat("node: n1\nlisten: \"", listen, "\"\n", identity)),
                AllOf(HasSubstr("weftd.yaml:2"), HasSubstr("must be an IP address and a port")))
        << listen;
  }
  EXPECT_EQ(ErrorOf("node: n1\nlisten: \"[2001:db8::1]:4810\"\n" + identity), "");
  for (const char* const listen : {"224.0.0.1:4810", "239.255.255.255:4810", "255.255.255.255:4810",
                                   "[ff02::1]:4810", "[fe80::1]:4810"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat("node: n1\nlisten: \"", listen, "\"\n", identity)),
                AllOf(HasSubstr("weftd.yaml:2:9: listen: "), HasSubstr(listen),
                      HasSubstr("which no node listens at")));
  }
  for (const char* const listen : {"0.0.0.0:4810", "127.0.0.1:4810", "[::]:4810", "[fd00::1]:4810"})
    EXPECT_EQ(ErrorOf(absl::StrCat("node: n1\nlisten: \"", listen, "\"\n", identity)), "") << listen;
  EXPECT_THAT(ErrorOf("node: n1\nlisten: 192.0.2.1:4810\npacket_port: af_xdp\n" + identity),
              HasSubstr("`af_xdp` needs the `interface`"));
  EXPECT_THAT(ErrorOf("node: n1\nlisten: 192.0.2.1:4810\n"), HasSubstr("needs an `identity`"));
  EXPECT_THAT(ErrorOf("node: n1\npacket_port: auto\n"), HasSubstr("nothing without `listen`"));
  EXPECT_THAT(
      ErrorOf(
          "node: n1\nlisten: 192.0.2.1:4810\npacket_port: udp\nidentity: {certificate: c, key: k, ca: a}\n"),
      HasSubstr("packet_port"));
  EXPECT_THAT(ErrorOf("node: n1\nlisten: 192.0.2.1:4810\nidentity: {certificate: c, key: k}\n"),
              HasSubstr("identity.ca: missing"));
  EXPECT_THAT(ErrorOf("node: n1\ncontrol_user: nobody-of-this-name\n"),
              AllOf(HasSubstr("control_user"), HasSubstr("no user is called")));
  EXPECT_THAT(ErrorOf("node: n1\nadmitt: []\n"), HasSubstr("admitt: unknown key"));
  EXPECT_THAT(ErrorOf("node: n1\nadmit:\n  - {tenant: web}\n"), HasSubstr("user: missing"));
  EXPECT_THAT(ErrorOf("node: n1\nadmit:\n  - {tenant: web, user: 1, hosts: [a], serve: [web]}\n"),
              HasSubstr("admit[0].serve"));
  EXPECT_THAT(ErrorOf("node: n1\nadmit:\n  - {tenant: web, user: 1, serve: [web/x]}\n"),
              HasSubstr("under `hosts`"));
  EXPECT_THAT(ErrorOf("node: n1\nadmit:\n  - {tenant: web, user: 1, call_as: web/x}\n"),
              HasSubstr("admit[0].call_as"));
  EXPECT_THAT(ErrorOf("node: n1\nadmit:\n  - {tenant: web, user: 1, limits: {arena: 100KiB}}\n"),
              HasSubstr("power of two"));
  EXPECT_THAT(ErrorOf("node: n1\nadmit:\n  - {tenant: web, user: 1, limits: {channels: 0}}\n"),
              HasSubstr("limits.channels"));
}

TEST(AgentConfigTest, WorkersAreBoundedAndNeedAWayToOtherNodes) {
  const std::string base = "node: n1\nlisten: 192.0.2.1:4810\nidentity: {certificate: c, key: k, ca: a}\n";
  EXPECT_EQ(ParseAgentConfig(base, "weftd.yaml")->workers, 0u) << "as many as the machine has room for";
  EXPECT_EQ(ParseAgentConfig(base + "workers: 8\n", "weftd.yaml")->workers, 8u);
  EXPECT_THAT(ErrorOf(base + "workers: 0\n"), HasSubstr("workers"));
  EXPECT_THAT(ErrorOf(base + "workers: 9\n"), HasSubstr("workers"));
  EXPECT_THAT(ErrorOf("node: n1\nworkers: 2\n"), HasSubstr("nothing without `listen`"));
  EXPECT_THAT(ErrorOf(base + "workers: 2\npacket_port: dpdk\ndpdk: {device: net_memif0, address: "
                             "198.51.100.1:4810}\n"),
              HasSubstr("`packet_port: dpdk` has one"));
}

TEST(AgentConfigTest, DpdkNeedsADeviceAndAnAddressOfItsOwn) {
  const std::string base = "node: n1\nlisten: 192.0.2.1:4810\nidentity: {certificate: c, key: k, ca: a}\n";
  const std::string dpdk = base + "packet_port: dpdk\n";
  const auto config =
      ParseAgentConfig(dpdk +
                           "dpdk: {device: \"net_memif0,role=server,id=0,socket=/run/weft/m.sock\", address: "
                           "198.51.100.1:4810}\n",
                       "weftd.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->packet_port, AgentConfig::PacketPort::kDpdk);
  EXPECT_EQ(config->dpdk.device, "net_memif0,role=server,id=0,socket=/run/weft/m.sock");
  EXPECT_EQ(config->dpdk.address, "198.51.100.1:4810");
  EXPECT_THAT(ErrorOf(dpdk), AllOf(HasSubstr("packet_port"), HasSubstr("needs `dpdk")));
  EXPECT_THAT(ErrorOf(dpdk + "dpdk: {device: net_memif0}\n"), HasSubstr("dpdk.address: missing"));
  EXPECT_THAT(ErrorOf(base + "dpdk: {device: net_memif0, address: 198.51.100.1:4810}\n"),
              HasSubstr("nothing without `packet_port: dpdk`"));
  EXPECT_THAT(ErrorOf(dpdk + "interface: eth0\ndpdk: {device: net_memif0, address: 198.51.100.1:4810}\n"),
              HasSubstr("interface: means nothing"));
  EXPECT_THAT(ErrorOf(dpdk + "dpdk: {device: net_memif0, address: nowhere}\n"), HasSubstr("dpdk.address"));
  EXPECT_THAT(ErrorOf(dpdk + "dpdk: {devise: net_memif0}\n"), HasSubstr("dpdk.devise: unknown key"));
  for (const char* const device :
       {"memif0", "net_memif", "net_memif0,", "net_memif0,role", "net_memif0,role=", "net_memif0 --no-pci",
        "net_memif0,a=b c", "--vdev=net_ring0", "0000:00:05.0"}) {
    EXPECT_THAT(ErrorOf(dpdk + "dpdk: {device: \"" + device + "\", address: 198.51.100.1:4810}\n"),
                HasSubstr("dpdk.device"))
        << device;
  }
}

TEST(AgentConfigTest, NameThatNoInterfaceCanHaveIsAnError) {
  const std::string base = "node: n1\nlisten: 192.0.2.1:4810\nidentity: {certificate: c, key: k, ca: a}\n";
  for (const char* const name : {"", ".", "..", "../eth0", "eth0:1", "eth 0", "sixteen-bytes-it"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat(base, "interface: \"", name, "\"\n")),
                AllOf(HasSubstr("weftd.yaml:4:12: interface: "), HasSubstr("is no name of an interface")))
        << name;
  }
  EXPECT_EQ(ErrorOf(base + "interface: fifteen-bytes.1\n"), "");
}

TEST(AgentConfigTest, AnEngineInsideHostsNeedsOthersToCallAndTheKernelsSockets) {
  const std::string admit = "admit:\n  - {tenant: web, user: 1001, hosts: [a], engine: inside}\n";
  EXPECT_THAT(ErrorOf("node: n1\n" + admit), HasSubstr("engine: `inside` means nothing without `listen`"));
  const std::string listen =
      "node: n1\nlisten: 192.0.2.1:4810\nidentity: {certificate: c.pem, key: k.pem, ca: a.pem}\n";
  EXPECT_EQ(ErrorOf(listen + admit), "");
  EXPECT_THAT(
      ErrorOf(listen + "packet_port: dpdk\ndpdk: {device: net_memif0, address: 198.51.100.1:4810}\n" + admit),
      HasSubstr("engine: `inside` does not go with `packet_port: dpdk`"));
}

TEST(AgentConfigTest, RawPacketsNeedAnEngineInsideAndAnInterface) {
  const std::string admit = "admit:\n  - {tenant: web, user: 1001, hosts: [a], raw_packets: true";
  const std::string listen =
      "node: n1\nlisten: 192.0.2.1:4810\nidentity: {certificate: c.pem, key: k.pem, ca: a.pem}\n";
  const std::string steered = listen + "interface: eth7\n";
  EXPECT_EQ(ErrorOf(steered + admit + ", engine: inside}\n"), "");
  EXPECT_THAT(ErrorOf(steered + admit + "}\n"),
              HasSubstr("raw_packets: means nothing without `engine: inside`"));
  for (const std::string& others : {listen, steered + "packet_port: io_uring\n"}) {
    EXPECT_THAT(ErrorOf(others + admit + ", engine: inside}\n"),
                HasSubstr("raw_packets: needs the `interface` that AF_XDP is to use"));
  }
}

TEST(AgentConfigTest, EverySettingIsRead) {
  const auto config = ParseAgentConfig(
      "node: n1\n"
      "listen: 192.0.2.1:4810\n"
      "packet_port: io_uring\n"
      "interface: eth7\n"
      "mtu: 3498\n"
      "identity: {certificate: c.pem, key: k.pem, ca: a.pem}\n"
      "control_user: 77\n"
      "admit:\n"
      "  - tenant: web\n"
      "    user: 1001\n"
      "    hosts: [a, b]\n"
      "    pods: true\n"
      "    serve: [\"web/*\", shop/cart]\n"
      "    call_as: web\n"
      "    engine: inside\n"
      "    limits: {hosts: 2, clients: 3, functions: 4, channels: 5, bytes: 6MiB, arena: 64KiB}\n",
      "weftd.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->node, "n1");
  EXPECT_EQ(config->listen, "192.0.2.1:4810");
  EXPECT_EQ(config->packet_port, AgentConfig::PacketPort::kIoUring);
  EXPECT_EQ(config->interface, "eth7");
  EXPECT_EQ(config->mtu, 3498u);
  EXPECT_EQ(config->identity.certificate, "c.pem");
  EXPECT_EQ(config->identity.key, "k.pem");
  EXPECT_EQ(config->identity.ca, "a.pem");
  EXPECT_EQ(config->control_uid, 77u);
  ASSERT_EQ(config->tenants.size(), 1u);
  const Tenant& tenant = config->tenants[0];
  EXPECT_EQ(tenant.name, "web");
  EXPECT_EQ(tenant.uid, 1001u);
  EXPECT_EQ(tenant.hosts, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(tenant.pods);
  EXPECT_EQ(tenant.serve, (std::vector<std::string>{"web/*", "shop/cart"}));
  EXPECT_EQ(tenant.call_as, "web");
  EXPECT_TRUE(tenant.engine_inside);
  EXPECT_EQ(tenant.limits.hosts, 2u);
  EXPECT_EQ(tenant.limits.clients, 3u);
  EXPECT_EQ(tenant.limits.functions, 4u);
  EXPECT_EQ(tenant.limits.channels, 5u);
  EXPECT_EQ(tenant.limits.bytes, 6u << 20);
  EXPECT_EQ(tenant.limits.arena_bytes, 64u << 10);
}

TEST(AgentConfigTest, ControlUserIsTheAgentsOwnUnlessSaid) {
  const auto config = ParseAgentConfig("node: n1\n", "weftd.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->control_uid, geteuid());
}

}  // namespace
}  // namespace weft
