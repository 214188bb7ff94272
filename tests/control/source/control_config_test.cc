// SPDX-License-Identifier: Apache-2.0
#include "control/config/control_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  return std::string(ParseControlConfig(text, "c.yaml").status().message());
}

TEST(ControlConfigTest, WhatIsWrongIsNamedByLineAndKey) {
  const std::string etcd = "version: 1\netcd:\n  endpoints: [\"http://a:1\"]\n";
  EXPECT_THAT(ErrorOf("version: 1\n"), HasSubstr("names no source"));
  EXPECT_THAT(ErrorOf("version: 1\netcd: {}\n"), HasSubstr("endpoints"));
  EXPECT_THAT(ErrorOf("version: 1\netcd: {endpoints: []}\n"), HasSubstr("names no member"));
  for (const char* url : {"a:1", "ftp://a", "http://a:1/", "http://a 1", "http://a?x"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat("version: 1\netcd: {endpoints: [\"", url, "\"]}\n")),
                HasSubstr("c.yaml:2:19: etcd.endpoints"))
        << url;
  }
  EXPECT_THAT(ErrorOf(etcd + "  prefix: weft\n"), HasSubstr("c.yaml:4:11: etcd.prefix"));
  EXPECT_THAT(ErrorOf(etcd + "  tls: {key: k}\n"), HasSubstr("go together"));
  EXPECT_THAT(ErrorOf(etcd + "  user: weft\n"), HasSubstr("go together"));
  EXPECT_THAT(ErrorOf(etcd + "  user: weft\n  password_file: /nowhere\n"), HasSubstr("/nowhere"));
  EXPECT_THAT(ErrorOf(etcd + "  publish: {}\n"), HasSubstr("address"));
  EXPECT_THAT(ErrorOf(etcd + "  publish: {address: nowhere}\n"), HasSubstr("HOST:PORT"));
  EXPECT_THAT(ErrorOf(etcd + "  publish: {address: \"n1.example:4810\"}\n"), HasSubstr("is no IP address"));
  EXPECT_THAT(ErrorOf(etcd + "  publish: {address: \"10.0.0.7:1\", lease: 1s}\n"), HasSubstr("lease"));
  EXPECT_THAT(ErrorOf(etcd + "  retries: 3\n"), HasSubstr("retries"));
}

TEST(ControlConfigTest, PropellerIsReadAndItsErrorsNamed) {
  const std::string head = "version: 1\npropeller:\n  manager: http://m:7070\n  topic: m/T/c/C\n  broker: ";
  EXPECT_THAT(ErrorOf(head + "http://b:1883\n"), HasSubstr("c.yaml:5:11: propeller.broker"));
  EXPECT_THAT(ErrorOf(head + "mqtt://b\n"), HasSubstr("mqtt://HOST:PORT"));
  EXPECT_THAT(ErrorOf(head + "mqtt://b:1883\n  mqtt: 4\n"), HasSubstr("3.1.1 or 5"));
  EXPECT_THAT(ErrorOf(head + "mqtt://b:1883\n  namespace: a/b\n"), HasSubstr("propeller.namespace"));
  EXPECT_THAT(ErrorOf("version: 1\npropeller: {topic: \"m/#\"}\n"), HasSubstr("manager"));
  const auto config = ParseControlConfig(head + "mqtts://[fd00::1]:8883\n  mqtt: 5\n  qos: 1\n", "c.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->propeller->mqtt.host, "fd00::1");
  EXPECT_EQ(config->propeller->mqtt.port, 8883);
  EXPECT_TRUE(config->propeller->mqtt.tls);
  EXPECT_EQ(config->propeller->mqtt.version, 5);
  EXPECT_EQ(config->propeller->mqtt.qos, 1);
  EXPECT_EQ(config->propeller->ns, "propeller");
  EXPECT_FALSE(config->propeller->worker);
  const auto worker =
      ParseControlConfig(head + "mqtt://b:1883\n  worker: true\n  host: h\n  proplet: p\n", "c.yaml");
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_TRUE(worker->propeller->worker);
  EXPECT_EQ(worker->propeller->host, "h");
  EXPECT_EQ(worker->propeller->proplet, "p");
  EXPECT_THAT(ErrorOf(head + "mqtt://b:1883\n  worker: true\n"), HasSubstr("needs `host`"));
  EXPECT_THAT(ErrorOf(head + "mqtt://b:1883\n  host: h\n"), HasSubstr("goes with `worker: true`"));
  EXPECT_THAT(ErrorOf(head + "mqtt://b:1883\n  worker: true\n  host: H h\n"), HasSubstr("propeller.host"));
}

TEST(ControlConfigTest, KubernetesIsReadAndWhatItCannotDoIsNamed) {
  const test::TemporaryDirectory directory;
  const std::string text = absl::StrCat("version: 1\nkubernetes: {kubeconfig: ", directory / "k", "}\n");
  const auto error_of = [&](const std::string& cluster, const std::string& user) {
    test::WriteFile(
        directory / "k",
        absl::StrCat("current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n",
                     "clusters: [{name: k, cluster: {", cluster, "}}]\nusers: [{name: u, user: {", user,
                     "}}]\n"));
    return ErrorOf(text);
  };
  EXPECT_THAT(ErrorOf("version: 1\nkubernetes: {}\n"), HasSubstr("c.yaml:2:13: kubernetes"));
  EXPECT_THAT(ErrorOf("version: 1\nkubernetes: {kubeconfig: /nowhere}\n"), HasSubstr("/nowhere"));
  EXPECT_THAT(ErrorOf("version: 1\nkubernetes: {context: c}\n"), HasSubstr("kubernetes.context"));
  const std::string server = "server: \"https://k:6443\"";
  EXPECT_THAT(error_of("", ""), HasSubstr("`server` \"\" is no https:// URL"));
  EXPECT_THAT(error_of(server + ", insecure-skip-tls-verify: true", ""),
              HasSubstr("skip-tls-verify` is not"));
  EXPECT_THAT(error_of(server + ", certificate-authority-data: \"*\"", ""), HasSubstr("is no base64"));
  EXPECT_THAT(error_of(server, "username: me"), HasSubstr("`username` is not supported"));
  EXPECT_THAT(error_of(server, "exec: {command: x, apiVersion: v0}"), HasSubstr("apiVersion"));
  EXPECT_EQ(error_of(server + ", certificate-authority: ca", "tokenFile: t"), "");
  const auto config = ParseControlConfig(text, "c.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kubernetes->server, "https://k:6443");
  EXPECT_EQ(config->kubernetes->tls.ca, directory / "ca");
  EXPECT_EQ(config->kubernetes->token_file, directory / "t");
  EXPECT_EQ(config->kubernetes->port, 4810);
}

TEST(ControlConfigTest, WhatAPodHoldsIsTaken) {
  const test::TemporaryDirectory directory;
  setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  EXPECT_THAT(KubeOptionsOfPod(directory.path()).status().message(), HasSubstr("ca.crt"));
  test::WriteFile(directory / "ca.crt", "x");
  test::WriteFile(directory / "token", "x");
  const auto options = KubeOptionsOfPod(directory.path());
  unsetenv("KUBERNETES_SERVICE_HOST");
  unsetenv("KUBERNETES_SERVICE_PORT");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->server, "https://[fd00::1]:443");
  EXPECT_EQ(options->token_file, directory / "token");
}

TEST(ControlConfigTest, WhatIsSaidIsTaken) {
  const test::TemporaryDirectory directory;
  test::WriteFile(directory / "password", "secret\n");
  const absl::StatusOr<ControlConfig> config = ParseControlConfig(
      absl::StrCat("version: 1\nfiles: /m\netcd:\n  endpoints: [\"https://a:1\", \"https://b:1\"]\n  prefix: "
                   "/mine/\n  tls: {ca: /ca, certificate: /c, key: /k}\n  user: weft\n  password_file: ",
                   directory / "password",
                   "\n  publish: {address: \"10.0.0.7:4810\", zone: z1, call_as: [app], lease: 7s}\n"),
      "c.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->files, "/m");
  EXPECT_THAT(config->etcd->endpoints, ElementsAre("https://a:1", "https://b:1"));
  EXPECT_EQ(config->etcd->prefix, "/mine/");
  EXPECT_EQ(config->etcd->tls.key, "/k");
  EXPECT_EQ(config->etcd->password, "secret");
  EXPECT_EQ(config->presence->etcd.password, "secret");
  EXPECT_EQ(config->presence->lease_s, 7u);
  EXPECT_THAT(config->presence->call_as, ElementsAre("app"));
}

}  // namespace
}  // namespace weft::control
