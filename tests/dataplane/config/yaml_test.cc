// SPDX-License-Identifier: Apache-2.0
#include "dataplane/config/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace weft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// What ReadSample() takes from a document; its keys cover every getter.
struct Sample {
  std::string name;
  std::string user;
  bool flag = false;
  uint64_t count = 0;
  uint64_t timeout_ns = 0;
  uint64_t bytes = 0;
  std::size_t state = 0;
  std::vector<std::string> hosts;
  uint64_t inner = 0;
  std::vector<uint64_t> weights;
};

std::vector<std::string> ReadSample(absl::string_view text, Sample* sample) {
  YamlDocument document = YamlDocument::Parse(text, "f.yaml");
  (void)document.Read([&](YamlMap& map) {
    map.Require({"name"});
    sample->name = map.String("name");
    sample->user = map.Scalar("user", "none");
    sample->flag = map.Bool("flag");
    sample->count = map.Uint("count", 1, 10, 5);
    sample->timeout_ns = map.DurationNs("timeout", 1'000'000, 1'000'000'000, 7);
    sample->bytes = map.Bytes("bytes", 1, 1 << 20, 9);
    sample->state = map.Enum("state", {"keep", "fresh"}, 1);
    sample->hosts = map.Strings("hosts");
    map.Map("limits", [&](YamlMap& limits) { sample->inner = limits.Uint("inner", 0, 100); });
    map.Maps("targets",
             [&](YamlMap& target) { sample->weights.push_back(target.Uint("weight", 1, 1000, 100)); });
  });
  return document.errors().Lines();
}

struct ErrorCase {
  const char* name;
  std::string text;
  std::vector<std::string> errors;

  friend void PrintTo(const ErrorCase& tested, std::ostream* out) { *out << tested.text; }
};

class YamlErrorTest : public testing::TestWithParam<ErrorCase> {};

TEST_P(YamlErrorTest, NamesFileLineColumnAndKey) {
  Sample sample;
  EXPECT_EQ(ReadSample(GetParam().text, &sample), GetParam().errors);
}

INSTANTIATE_TEST_SUITE_P(
    Table, YamlErrorTest,
    testing::Values(
        ErrorCase{"Empty", "", {"f.yaml: the file is empty"}},
        ErrorCase{"CommentOnly", "# nothing\n", {"f.yaml: the file is empty"}},
        ErrorCase{"Scalar", "hello\n", {"f.yaml:1:1: must be a mapping of keys to values"}},
        ErrorCase{"List", "- a\n- b\n", {"f.yaml:1:1: must be a mapping of keys to values"}},
        ErrorCase{"Missing", "flag: true\n", {"f.yaml:1:1: name: missing"}},
        ErrorCase{"UnknownKey", "name: a\ncolour: red\n", {"f.yaml:2:1: colour: unknown key"}},
        ErrorCase{"SlipOfTheFingers",
                  "name: a\nlimits:\n  iner: 1\n",
                  {"f.yaml:3:3: limits.iner: unknown key; did you mean \"inner\"?"}},
        ErrorCase{"UnknownInList",
                  "name: a\ntargets:\n- weight: 1\n- weight: 2\n  wait: 3\n",
                  {"f.yaml:5:3: targets[1].wait: unknown key"}},
        ErrorCase{"Duplicate",
                  "name: a\nflag: true\nname: b\n",
                  {"f.yaml:3:1: name: duplicate key, first at line 1"}},
        ErrorCase{"DuplicateDeep",
                  "name: a\ntargets:\n- weight: 1\n  weight: 2\n",
                  {"f.yaml:4:3: targets[0].weight: duplicate key, first at line 3"}},
        ErrorCase{"NumberForText",
                  "name: 12\n",
                  {"f.yaml:1:7: name: must be a text (in quotes where it looks like a number or a truth "
                   "value), not 12"}},
        ErrorCase{"TruthForText",
                  "name: true\n",
                  {"f.yaml:1:7: name: must be a text (in quotes where it looks like a number or a truth "
                   "value), not true"}},
        ErrorCase{"NothingForText", "name:\n", {"f.yaml:1:1: name: must be a text, not nothing"}},
        ErrorCase{"ListForText", "name: [a]\n", {"f.yaml:1:7: name: must be a text, not a list"}},
        ErrorCase{
            "YesForTruth", "name: a\nflag: yes\n", {"f.yaml:2:7: flag: must be true or false, not yes"}},
        ErrorCase{"QuotedTruth",
                  "name: a\nflag: \"true\"\n",
                  {"f.yaml:2:7: flag: must be true or false, not the text \"true\""}},
        ErrorCase{"TextForNumber",
                  "name: a\ncount: many\n",
                  {"f.yaml:2:8: count: must be a whole number from 1 to 10, not many"}},
        ErrorCase{"QuotedNumber",
                  "name: a\ncount: '5'\n",
                  {"f.yaml:2:8: count: must be a whole number from 1 to 10, not the text \"5\""}},
        ErrorCase{"NumberOutOfRange",
                  "name: a\ncount: 11\n",
                  {"f.yaml:2:8: count: must be a whole number from 1 to 10, not 11"}},
        ErrorCase{"NegativeNumber",
                  "name: a\ncount: -1\n",
                  {"f.yaml:2:8: count: must be a whole number from 1 to 10, not -1"}},
        ErrorCase{"Overflow",
                  "name: a\ncount: 18446744073709551617\n",
                  {"f.yaml:2:8: count: must be a whole number from 1 to 10, not 18446744073709551617"}},
        ErrorCase{"BadDuration",
                  "name: a\ntimeout: 5\n",
                  {"f.yaml:2:10: timeout: must be a duration: a number and one of ns, us, ms, s, m, h, as in "
                   "250ms; "
                   "not 5"}},
        ErrorCase{"DurationOutOfRange",
                  "name: a\ntimeout: 2s\n",
                  {"f.yaml:2:10: timeout: must be a duration from 1ms to 1s, not 2s"}},
        ErrorCase{"BadSize",
                  "name: a\nbytes: 64k\n",
                  {"f.yaml:2:8: bytes: must be a size: a number of bytes, or one with KiB, MiB or GiB, as in "
                   "64KiB; "
                   "not 64k"}},
        ErrorCase{
            "BadEnum", "name: a\nstate: warm\n", {"f.yaml:2:8: state: must be keep or fresh, not warm"}},
        ErrorCase{"BadListElement",
                  "name: a\nhosts: [a, 5, {b: c}]\n",
                  {"f.yaml:2:12: hosts[1]: must be a text, not 5",
                   "f.yaml:2:15: hosts[2]: must be a text, not a mapping"}},
        ErrorCase{"TextForList", "name: a\ntargets: b\n", {"f.yaml:2:10: targets: must be a list, not b"}},
        ErrorCase{"TextForMapping",
                  "name: a\ntargets:\n- b\nlimits: 5\n",
                  {"f.yaml:4:9: limits: must be a mapping, not 5",
                   "f.yaml:3:3: targets[0]: must be a mapping, not b"}},
        ErrorCase{
            "Anchor", "name: &x a\nuser: *x\n", {"f.yaml:1:7: name: YAML anchors are not supported here"}},
        ErrorCase{"Tag", "name: !!str 5\n", {"f.yaml:1:7: name: YAML tags are not supported here"}},
        ErrorCase{"ListAsKey", "? [a]\n: b\nname: a\n", {"f.yaml:1:3: a key must be a plain word"}},
        ErrorCase{"SecondDocument",
                  "name: a\n---\nname: b\n",
                  {"f.yaml:3:1: a second document: one a file is allowed"}},
        ErrorCase{
            "Zero", std::string("name: a\n\0\n", 10), {"f.yaml:2:1: a control character: not a text file"}},
        ErrorCase{
            "HalfWritten", "name: a\nlimits: {inner: 5", {"f.yaml:2:1: not YAML: end of map flow not found"}},
        ErrorCase{"SeveralAtOnce",
                  "name: 1.5\ncount: x\nflag: no\n",
                  {"f.yaml:1:7: name: must be a text (in quotes where it looks like a number or a truth "
                   "value), not 1.5",
                   "f.yaml:3:7: flag: must be true or false, not no",
                   "f.yaml:2:8: count: must be a whole number from 1 to 10, not x"}}),
    [](const testing::TestParamInfo<ErrorCase>& tested) { return tested.param.name; });

TEST(YamlTest, EveryTypeIsRead) {
  Sample sample;
  EXPECT_THAT(
      ReadSample("name: '12'\nuser: 1000\nflag: true\ncount: 10\ntimeout: 250ms\nbytes: 64KiB\nstate: keep\n"
                 "hosts: [a, \"b\"]\nlimits: {inner: 3}\ntargets:\n- weight: 7\n- {}\n",
                 &sample),
      IsEmpty());
  EXPECT_EQ(sample.name, "12");
  EXPECT_EQ(sample.user, "1000");
  EXPECT_TRUE(sample.flag);
  EXPECT_EQ(sample.count, 10u);
  EXPECT_EQ(sample.timeout_ns, 250'000'000u);
  EXPECT_EQ(sample.bytes, 65'536u);
  EXPECT_EQ(sample.state, 0u);
  EXPECT_THAT(sample.hosts, ElementsAre("a", "b"));
  EXPECT_EQ(sample.inner, 3u);
  EXPECT_THAT(sample.weights, ElementsAre(7, 100));
}

TEST(YamlTest, AbsentKeysGiveTheirFallbacks) {
  Sample sample;
  EXPECT_THAT(ReadSample("name: a\n", &sample), IsEmpty());
  EXPECT_EQ(sample.user, "none");
  EXPECT_EQ(sample.count, 5u);
  EXPECT_EQ(sample.timeout_ns, 7u);
  EXPECT_EQ(sample.bytes, 9u);
  EXPECT_EQ(sample.state, 1u);
}

TEST(YamlTest, ErrorsAreBoundedAndTheRestIsCounted) {
  std::string text = "name: a\n";
  for (int i = 0; i < 50; ++i) absl::StrAppend(&text, "unknown", i, ": 1\n");
  Sample sample;
  const std::vector<std::string> errors = ReadSample(text, &sample);
  ASSERT_EQ(errors.size(), kYamlErrorsMax + 1);
  EXPECT_EQ(errors.back(), "f.yaml: 30 further errors");
}

TEST(YamlTest, ErrorsAreShortHoweverLongTheNames) {
  YamlErrors errors("f.yaml");
  errors.Add({1, 1}, std::string(1'000'000, 'k'), std::string(1'000'000, 'm'));
  EXPECT_LT(errors.Lines().at(0).size(), 800u);
}

TEST(YamlTest, DeepNestingIsRefused) {
  for (int depth : {17, 400, 100'000}) {
    Sample sample;
    EXPECT_FALSE(ReadSample("name: " + std::string(depth, '['), &sample).empty());
    EXPECT_FALSE(ReadSample("name: " + std::string(depth, '{'), &sample).empty());
  }
}

TEST(YamlTest, LoadingNamesThePath) {
  EXPECT_THAT(LoadYaml("/nonexistent/mesh.yaml").status().ToString(),
              HasSubstr("open /nonexistent/mesh.yaml"));
  EXPECT_THAT(LoadYaml("/tmp").status().ToString(), HasSubstr("read /tmp"));
}

TEST(YamlTest, AnEndlessFileIsRefused) {
  EXPECT_THAT(ReadSmallFile("/dev/zero", 1 << 20).status().ToString(), HasSubstr("larger than 1MiB"));
}

TEST(YamlTest, AFifoDoesNotBlock) {
  const std::string path = absl::StrCat("/tmp/weft-yaml-fifo-", getpid());
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(*ReadSmallFile(path), "");
  unlink(path.c_str());
}

}  // namespace
}  // namespace weft
