// SPDX-License-Identifier: Apache-2.0
#include "control/source/mesh_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "control/source/validate.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

LoadedMesh Load(absl::string_view text) {
  ModuleHasher hasher;
  return LoadMesh(text, "m.yaml", &hasher);
}

struct ErrorCase {
  const char* name;
  std::string text;  // After "version: 1\n"
  std::vector<std::string> errors;

  friend void PrintTo(const ErrorCase& tested, std::ostream* out) { *out << tested.text; }
};

class MeshYamlErrorTest : public testing::TestWithParam<ErrorCase> {};

TEST_P(MeshYamlErrorTest, NamesFileLineAndKey) {
  EXPECT_EQ(Load("version: 1\n" + GetParam().text).errors, GetParam().errors);
}

constexpr char kLabel[] =
    "must be 1 to 63 of a-z, 0-9, '-', '_', '.', and begin and end with a letter or digit";

constexpr char kNoNode[] =
    " is the address of no node: a multicast, broadcast, link-local or unspecified one";

INSTANTIATE_TEST_SUITE_P(
    Table, MeshYamlErrorTest,
    testing::Values(
        ErrorCase{"UnknownTopKey",
                  "node:\n- {name: n1}\n",
                  {"m.yaml:2:1: node: unknown key; did you mean \"nodes\"?"}},
        ErrorCase{"UnknownNestedKey",
                  "functions:\n- name: v/f\n  limits: {cpu: 1}\n",
                  {"m.yaml:4:12: functions[0].limits.cpu: unknown key"}},
        ErrorCase{"DuplicateKey",
                  "functions:\n- name: v/f\n  retries: 1\n  retries: 2\n",
                  {"m.yaml:5:3: functions[0].retries: duplicate key, first at line 4"}},
        ErrorCase{"NodesIsNoList", "nodes: n1\n", {"m.yaml:2:8: nodes: must be a list, not n1"}},
        ErrorCase{"NodeIsNoMapping", "nodes: [n1]\n", {"m.yaml:2:9: nodes[0]: must be a mapping, not n1"}},
        ErrorCase{"NodeWithoutName", "nodes:\n- zone: a\n", {"m.yaml:3:3: nodes[0].name: missing"}},
        ErrorCase{"BadNodeName",
                  "nodes:\n- name: N1\n",
                  {absl::StrCat("m.yaml:3:9: nodes[0].name: node \"N1\": ", kLabel)}},
        ErrorCase{"BadAddress",
                  "nodes:\n- name: n1\n  address: 10.0.0.1\n",
                  {"m.yaml:4:12: nodes[0].address: \"10.0.0.1\" is no HOST:PORT, as in 10.0.0.7:4810 or "
                   "[fd00::7]:4810"}},
        ErrorCase{
            "AddressOfNoNode",
            "nodes:\n- {name: n1, address: \"0.0.0.0:4810\"}\n- {name: n2, address: \"224.0.0.1:4810\"}\n"
            "- {name: n3, address: \"[fe80::1]:4810\"}\n- {name: n4, address: \"[::]:4810\"}\n",
            {absl::StrCat("m.yaml:3:23: nodes[0].address: \"0.0.0.0\"", kNoNode),
             absl::StrCat("m.yaml:4:23: nodes[1].address: \"224.0.0.1\"", kNoNode),
             absl::StrCat("m.yaml:5:23: nodes[2].address: \"[fe80::1]\"", kNoNode),
             absl::StrCat("m.yaml:6:23: nodes[3].address: \"[::]\"", kNoNode)}},
        ErrorCase{
            "AddressThatIsAName",
            "nodes:\n- name: n1\n  address: n1.example:4810\n",
            {"m.yaml:4:12: nodes[0].address: \"n1.example\" is no IP address, as in 10.0.0.7 or [fd00::7]; "
             "agents look no names up"}},
        ErrorCase{"FunctionWithoutNamespace",
                  "functions:\n- name: scale\n",
                  {"m.yaml:3:9: functions[0].name: function \"scale\": must be NAMESPACE/NAME"}},
        ErrorCase{
            "HedgeOfWhatIsNotIdempotent",
            "functions:\n- name: v/f\n  hedge: {percentile: 95}\n",
            {"m.yaml:4:10: functions[0].hedge: a hedge runs a call twice: declare `idempotent: true`, or "
             "remove the key"}},
        ErrorCase{"HedgeWithoutPercentile",
                  "functions:\n- name: v/f\n  idempotent: true\n  hedge: {after: 5ms}\n",
                  {"m.yaml:5:10: functions[0].hedge.percentile: missing",
                   "m.yaml:5:11: functions[0].hedge.after: unknown key"}},
        ErrorCase{
            "HedgePercentileTooHigh",
            "functions:\n- name: v/f\n  idempotent: true\n  hedge: {percentile: 100}\n",
            {"m.yaml:5:23: functions[0].hedge.percentile: must be a whole number from 50 to 99, not 100"}},
        ErrorCase{"OutlierWithoutFailures",
                  "functions:\n- name: v/f\n  outlier: {eject: 5s}\n",
                  {"m.yaml:4:12: functions[0].outlier.failures: missing"}},
        ErrorCase{"RetryBudgetOfNothing",
                  "functions:\n- name: v/f\n  retry_budget: 0\n",
                  {"m.yaml:4:17: functions[0].retry_budget: must be a whole number from 1 to 100, not 0"}},
        ErrorCase{"BadState",
                  "functions:\n- name: v/f\n  state: warm\n",
                  {"m.yaml:4:10: functions[0].state: must be keep or fresh, not warm"}},
        ErrorCase{"BadTimeout",
                  "functions:\n- name: v/f\n  timeout: 5\n",
                  {"m.yaml:4:12: functions[0].timeout: must be a duration: a number and one of ns, us, ms, "
                   "s, m, h, as "
                   "in 250ms; not 5"}},
        ErrorCase{"TimeoutTooLong",
                  "functions:\n- name: v/f\n  timeout: 2h\n",
                  {"m.yaml:4:12: functions[0].timeout: must be a duration from 1us to 1h, not 2h"}},
        ErrorCase{"TooManyRetries",
                  "functions:\n- name: v/f\n  retries: 11\n",
                  {"m.yaml:4:12: functions[0].retries: must be a whole number from 0 to 10, not 11"}},
        ErrorCase{"IdempotentIsNoTruthValue",
                  "functions:\n- name: v/f\n  idempotent: 1\n",
                  {"m.yaml:4:15: functions[0].idempotent: must be true or false, not 1"}},
        ErrorCase{"BadMemory",
                  "functions:\n- name: v/f\n  limits: {memory: 64MB}\n",
                  {"m.yaml:4:20: functions[0].limits.memory: must be a size: a number of bytes, or one with "
                   "KiB, MiB or "
                   "GiB, as in 64KiB; not 64MB"}},
        ErrorCase{"MemoryTooLarge",
                  "functions:\n- name: v/f\n  limits: {memory: 8GiB}\n",
                  {"m.yaml:4:20: functions[0].limits.memory: must be a size from 64KiB to 256MiB, not 8GiB"}},
        ErrorCase{"ZeroConcurrency",
                  "functions:\n- name: v/f\n  limits: {concurrent_calls: 0}\n",
                  {"m.yaml:4:30: functions[0].limits.concurrent_calls: must be a whole number from 1 to "
                   "1000000, not "
                   "0"}},
        ErrorCase{"EndpointWithoutHost",
                  "endpoints:\n- function: v/f\n  node: n1\n",
                  {"m.yaml:3:3: endpoints[0].host: missing"}},
        ErrorCase{"ZeroWeight",
                  "endpoints:\n- {function: v/f, node: n1, host: h, weight: 0}\n",
                  {"m.yaml:3:46: endpoints[0].weight: must be a whole number from 1 to 1000, not 0"}},
        ErrorCase{"BadEndpointState",
                  "endpoints:\n- {function: v/f, node: n1, host: h, state: gone}\n",
                  {"m.yaml:3:45: endpoints[0].state: must be ready or draining, not gone"}},
        ErrorCase{"BadZoneOfAnEndpoint",
                  "endpoints:\n- {function: v/f, node: n1, host: h, zones: [a, Z]}\n",
                  {absl::StrCat("m.yaml:3:45: endpoints[0].zones: zone \"Z\": ", kLabel)}},
        ErrorCase{"TooManyZonesOfAnEndpoint",
                  "endpoints:\n- {function: v/f, node: n1, host: h, zones: [a, b, c, d, e, f, g, h, i]}\n",
                  {"m.yaml:3:45: endpoints[0].zones: 9 zones; at most 8 an endpoint"}},
        ErrorCase{"ShortHash",
                  "endpoints:\n- {function: v/f, node: n1, host: h, module: /m.wasm, sha256: abcd}\n",
                  {"m.yaml:3:63: endpoints[0].sha256: must be 64 hexadecimal digits"}},
        ErrorCase{"HashWithoutModule",
                  "endpoints:\n- {function: v/f, node: n1, host: h, sha256: abcd}\n",
                  {"m.yaml:3:46: endpoints[0].sha256: stands there without a `module`"}},
        ErrorCase{"EmptyModule",
                  "endpoints:\n- {function: v/f, node: n1, host: h, module: ''}\n",
                  {"m.yaml:3:46: endpoints[0].module: must not be empty"}},
        ErrorCase{"ModuleThatCannotBeHashed",
                  "endpoints:\n- {function: v/f, node: n1, host: h, module: /nonexistent/m.wasm}\n",
                  {"m.yaml:3:46: endpoints[0].module: there is no sha256, and it cannot be computed: open "
                   "/nonexistent/m.wasm: No such file or directory"}},
        ErrorCase{"RuleWithoutTo", "allow:\n- from: a/b\n", {"m.yaml:3:3: allow[0].to: missing"}},
        ErrorCase{"RuleFromEverybody",
                  "allow:\n- {from: '*', to: a/b}\n",
                  {"m.yaml:3:10: allow[0].from: function \"*\": must be NAMESPACE/NAME"}},
        ErrorCase{"RuleWithBadNamespace",
                  "allow:\n- {from: 'A/*', to: a/b}\n",
                  {absl::StrCat("m.yaml:3:10: allow[0].from: namespace \"A\": ", kLabel)}},
        ErrorCase{
            "HalfOfALine",
            "functions:\n- name: v/f\n  timeout: 10",
            {"m.yaml:4:14: the last line has no end: half-written? (every line must end with a newline)",
             "m.yaml:4:12: functions[0].timeout: must be a duration: a number and one of ns, us, ms, s, m, "
             "h, as "
             "in 250ms; not 10"}}),
    [](const testing::TestParamInfo<ErrorCase>& tested) { return tested.param.name; });

TEST(MeshYamlTest, TheVersionIsRequiredAndOne) {
  EXPECT_THAT(Load("nodes: []\n").errors, ElementsAre("m.yaml:1:1: version: missing"));
  EXPECT_THAT(Load("version: 2\n").errors,
              ElementsAre("m.yaml:1:10: version: must be a whole number from 1 to 1, not 2"));
  EXPECT_THAT(Load("").errors, ElementsAre("m.yaml: the file is empty"));
}

TEST(MeshYamlTest, EverythingIsRead) {
  const LoadedMesh loaded = Load(R"(version: 1
allowShrink: true
nodes:
- {name: n1, address: "10.0.0.7:4810", zone: a}
functions:
- name: vision/scale
  idempotent: true
  state: keep
  timeout: 250ms
  retries: 3
  retry_budget: 20
  hedge: {percentile: 95, budget: 6}
  outlier: {failures: 5, eject: 30s}
  locality: any
  limits: {concurrent_calls: 7, calls_per_second: 100, memory: 16MiB, stack: 128KiB, run_time: 2s}
- name: vision/plain
endpoints:
- function: vision/scale
  node: n1
  host: h1
  module: /m/scale.wasm
  sha256: 00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff
  weight: 7
  state: draining
- {function: vision/plain, node: n1, host: h2, zones: [a, b]}
allow:
- {from: web/*, to: vision/scale}
)");
  EXPECT_THAT(loaded.errors, IsEmpty());
  const SourceMesh& mesh = loaded.mesh;
  EXPECT_TRUE(mesh.allow_shrink);
  EXPECT_EQ(mesh.nodes.at(0).value.address(), "10.0.0.7:4810");
  const api::Function& scale = mesh.functions.at(0).value;
  EXPECT_EQ(scale.state(), api::INSTANCE_KEEP);
  EXPECT_TRUE(scale.policy().idempotent());
  EXPECT_EQ(scale.policy().timeout_ns(), 250'000'000u);
  EXPECT_EQ(scale.policy().retries(), 3u);
  EXPECT_EQ(scale.policy().retry_budget_percent(), 20u);
  EXPECT_EQ(scale.policy().hedge_percentile(), 95u);
  EXPECT_EQ(scale.policy().hedge_budget_percent(), 6u);
  EXPECT_EQ(scale.policy().outlier_failures(), 5u);
  EXPECT_TRUE(scale.policy().any_locality());
  EXPECT_EQ(scale.policy().outlier_eject_ns(), 30'000'000'000u);
  EXPECT_EQ(scale.policy().concurrent_calls_max(), 7u);
  EXPECT_EQ(scale.policy().calls_per_second_max(), 100u);
  EXPECT_EQ(scale.guest_limits().memory_bytes_max(), 16u << 20);
  EXPECT_EQ(scale.guest_limits().stack_bytes_max(), 128u << 10);
  EXPECT_EQ(scale.guest_limits().run_ns_max(), 2'000'000'000u);
  EXPECT_EQ(mesh.functions.at(1).value.state(), api::INSTANCE_FRESH);
  EXPECT_FALSE(mesh.functions.at(1).value.policy().has_retries());
  const api::Endpoint& endpoint = mesh.endpoints.at(0).value;
  EXPECT_EQ(endpoint.module(), "/m/scale.wasm");
  EXPECT_EQ(absl::BytesToHexString(endpoint.sha256()),
            "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
  EXPECT_EQ(endpoint.weight(), 7u);
  EXPECT_EQ(endpoint.state(), api::ENDPOINT_DRAINING);
  EXPECT_EQ(endpoint.hints(), "");
  EXPECT_EQ(mesh.endpoints.at(1).value.weight(), 100u);
  api::Hints hints;
  ASSERT_TRUE(hints.ParseFromString(mesh.endpoints.at(1).value.hints()));
  EXPECT_THAT(hints.zones(), ElementsAre("a", "b"));
  EXPECT_EQ(mesh.endpoints.at(1).where.line, 25);
  EXPECT_EQ(mesh.allow.at(0).value.from(), "web/*");
}

// A message that names it would be refused as a whole by whoever reads it.
TEST(MeshYamlTest, AModuleInAFolderWithoutAReadableNameIsRefused) {
  ModuleHasher hasher;
  const std::string text =
      absl::StrCat("version: 1\nendpoints:\n- {function: v/f, node: n1, host: h, module: m.wasm, sha256: ",
                   std::string(64, 'a'), "}\n");
  EXPECT_THAT(LoadMesh(text, "/etc/caf\xe9/mesh.yaml", &hasher).errors, ElementsAre(HasSubstr("no UTF-8")));
  EXPECT_THAT(LoadMesh(text, "/etc/caf\xc3\xa9/mesh.yaml", &hasher).errors, IsEmpty());
}

TEST(MeshYamlTest, AModuleWithoutHashIsHashedBesideTheFile) {
  test::TemporaryDirectory directory;
  test::WriteFile(directory / "m.wasm", "first");
  ModuleHasher hasher;
  const std::string text = "version: 1\nendpoints:\n- {function: v/f, node: n1, host: h, module: m.wasm}\n";
  LoadedMesh loaded = LoadMesh(text, directory / "mesh.yaml", &hasher);
  ASSERT_THAT(loaded.errors, IsEmpty());
  EXPECT_EQ(loaded.mesh.endpoints.at(0).value.module(), directory / "m.wasm");
  const Sha256 first = Sha256Of("first");
  EXPECT_EQ(loaded.mesh.endpoints.at(0).value.sha256(), std::string(first.begin(), first.end()));
  // Another content under the same path gives another hash, memory or not.
  test::WriteFile(directory / "m.wasm", "other");
  loaded = LoadMesh(text, directory / "mesh.yaml", &hasher);
  const Sha256 other = Sha256Of("other");
  EXPECT_EQ(loaded.mesh.endpoints.at(0).value.sha256(), std::string(other.begin(), other.end()));
}

// The example of the manual is good, and so stays.
TEST(ValidateTest, TheDocumentedMeshIsGood) {
  const std::string manual = test::ReadFile(WEFT_SOURCE_DIR "/docs/mesh-yaml.md");
  const std::size_t begin = manual.find("```yaml\n");
  ASSERT_NE(begin, std::string::npos);
  const std::size_t end = manual.find("```\n", begin + 8);
  test::TemporaryDirectory directory;
  test::WriteFile(directory / "mesh.yaml", manual.substr(begin + 8, end - begin - 8));
  test::WriteFile(directory / "scale.wasm", "a module");
  const Validation result = Validate(directory / "mesh.yaml");
  EXPECT_THAT(result.errors, IsEmpty());
  EXPECT_EQ(result.state.count(EntryKind::kEndpoint), 3u);
}

TEST(ValidateTest, FilesOfADirectoryAreCheckedTogether) {
  test::TemporaryDirectory directory;
  mkdir((directory / "d").c_str(), 0755);
  test::WriteFile(directory / "d/a.yaml", "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: v/f}]\n");
  test::WriteFile(directory / "d/b.yml", "version: 1\nendpoints:\n- {function: v/f, node: n1, host: h}\n");
  test::WriteFile(directory / "d/.c.yaml", "not looked at");
  test::WriteFile(directory / "d/d.yaml~", "not looked at");
  Validation result = Validate(directory / "d");
  EXPECT_THAT(result.errors, IsEmpty());
  EXPECT_EQ(result.files.size(), 2u);
  EXPECT_EQ(result.state.count(EntryKind::kEndpoint), 1u);
  test::WriteFile(directory / "d/c.yaml", "version: 1\nfunctions: [{name: v/f}]\n");
  result = Validate(directory / "d");
  EXPECT_THAT(result.errors,
              ElementsAre(HasSubstr("d/c.yaml:2:13: functions[0]: duplicate function \"v/f\", first at ")));
  EXPECT_THAT(Validate(directory / "none.yaml").errors, ElementsAre(HasSubstr("none.yaml: No such file")));
}

TEST(ValidateTest, SlipsAndReferencesAreReportedInOneRun) {
  test::TemporaryDirectory directory;
  const std::string path = directory / "m.yaml";
  test::WriteFile(
      path, "version: 1\nnodes: [{name: n1, zon: a}]\nendpoints:\n- {function: v/f, node: n1, host: h}\n");
  EXPECT_THAT(
      Validate(path).errors,
      ElementsAre(path + ":2:20: nodes[0].zon: unknown key; did you mean \"zone\"?",
                  path + ":4:3: endpoints[0]: unknown function \"v/f\": no `functions` entry names it"));
}

}  // namespace
}  // namespace weft::control
