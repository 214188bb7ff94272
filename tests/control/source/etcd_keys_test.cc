// SPDX-License-Identifier: Apache-2.0
#include "control/source/etcd/etcd_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "control/source/mesh_yaml.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

TEST(EtcdKeysTest, KeysThatAreNoneAreRefused) {
  for (const char* key :
       {"", "nodes", "nodes/", "nodes/a/b", "functions/f", "functions/v/f/g", "endpoints/n/h/v", "allow/v/f",
        "unknown/a", "live/functions/v/f", "live/allow/a/b/c/d", "live/live/nodes/n", "nodes/UPPER case",
        "endpoints/n/h/v/*", "allow/*/f/v/g"}) {
    EXPECT_FALSE(ParseEtcdKey(key).ok()) << key;
  }
}

TEST(EtcdKeysTest, EveryKeyComesBackFromItsObject) {
  for (const char* key : {"nodes/n1", "functions/v/f", "endpoints/n1/h1/v/f", "allow/a/b/c/d",
                          "allow/a/*/c/*", "live/nodes/n1", "live/endpoints/n1/h1/v/f"}) {
    const absl::StatusOr<EtcdName> name = ParseEtcdKey(key);
    ASSERT_TRUE(name.ok()) << key << ": " << name.status();
    EXPECT_EQ(EtcdKeyOf(name->object, name->live), key);
  }
}

TEST(EtcdKeysTest, APrefixEndsBehindAllThatBeginWithIt) {
  EXPECT_EQ(EtcdPrefixEnd("/weft/"), "/weft0");
  EXPECT_EQ(EtcdPrefixEnd("a\xff"), "b");
  EXPECT_EQ(EtcdPrefixEnd("\xff"), std::string(1, '\0'));
}

TEST(MeshObjectTest, JsonComesBackAsTheSameObject) {
  const std::pair<const char*, const char*> objects[] = {
      {"nodes/n1", R"({"address":"10.0.0.7:4810","call_as":["a","b"],"zone":"z1"})"},
      {"functions/v/f",
       R"({"hedge":{"budget":5,"percentile":95},"idempotent":true,"limits":{"calls_per_second":7,"concurrent_calls":3,)"
       R"("memory":"1MiB","run_time":"20ms","stack":"64KiB"},"locality":"any","outlier":{"eject":"5s","failures":4},"retries":2,)"
       R"("retry_budget":20,"state":"keep","timeout":"250ms"})"},
      {"functions/v/once", R"({"idempotent":true,"retries":0})"},
      {"endpoints/n1/h1/v/f", R"({"state":"draining","weight":7,"zones":["z1","z2"]})"},
      {"allow/a/b/c/*", "{}"},
  };
  for (const auto& [key, json] : objects) {
    absl::StatusOr<EtcdName> name = ParseEtcdKey(key);
    ASSERT_TRUE(name.ok());
    ASSERT_TRUE(LoadObject(json, key, &name->object).ok()) << LoadObject(json, key, &name->object);
    EXPECT_EQ(ObjectJson(name->object), json);
  }
}

// Objects that no message to an agent has room for.
TEST(MeshObjectTest, ANodeOfTooManyNamespacesOrTooLongAHostIsRefused) {
  absl::StatusOr<EtcdName> name = ParseEtcdKey("live/nodes/n1");
  ASSERT_TRUE(name.ok());
  std::string list;
  for (int i = 0; i < 256; ++i) absl::StrAppend(&list, i == 0 ? "" : ",", "\"ns", i, "\"");
  EXPECT_TRUE(LoadObject(absl::StrCat(R"({"call_as":[)", list, "]}"), "k", &name->object).ok());
  EXPECT_THAT(
      LoadObject(absl::StrCat(R"({"call_as":[)", list, R"(,"more"]})"), "k", &name->object).ToString(),
      HasSubstr("call_as: 257 namespaces; at most 256 a node"));
  EXPECT_TRUE(LoadObject(R"({"address":"[fd00::7]:4810"})", "k", &name->object).ok());
  const std::string host(255, 'h');
  EXPECT_THAT(LoadObject(absl::StrCat(R"({"address":"h)", host, R"(:4810"})"), "k", &name->object).ToString(),
              HasSubstr("address: a host of 256 bytes; at most 255"));
}

TEST(MeshObjectTest, AWordThatIsNoneOfAnEnumIsRefusedByName) {
  absl::StatusOr<EtcdName> endpoint = ParseEtcdKey("endpoints/n1/h1/v/f");
  absl::StatusOr<EtcdName> function = ParseEtcdKey("functions/v/f");
  ASSERT_TRUE(endpoint.ok() && function.ok());
  EXPECT_THAT(LoadObject(R"({"state":"sideways"})", "k", &endpoint->object).ToString(),
              HasSubstr("k:1:10: state"));
  EXPECT_THAT(LoadObject(R"({"state":"frozen"})", "k", &function->object).ToString(),
              HasSubstr("k:1:10: state"));
  EXPECT_THAT(LoadObject(R"({"locality":"far"})", "k", &function->object).ToString(),
              HasSubstr("k:1:13: locality"));
}

TEST(MeshObjectTest, AnErrorNamesTheKeyAndTheField) {
  absl::StatusOr<EtcdName> name = ParseEtcdKey("endpoints/n1/h1/v/f");
  ASSERT_TRUE(name.ok());
  EXPECT_THAT(LoadObject(R"({"weight":0})", "/weft/endpoints/n1/h1/v/f", &name->object).ToString(),
              HasSubstr("/weft/endpoints/n1/h1/v/f:1:11: weight: must be a whole number from 1 to 1000"));
  EXPECT_THAT(LoadObject(R"({"function":"v/g"})", "k", &name->object).ToString(), HasSubstr("function"));
  // The file is on another machine: neither can its hash be computed here, nor a relative path be followed.
  EXPECT_THAT(LoadObject(R"({"module":"/a.wasm"})", "k", &name->object).ToString(), HasSubstr("sha256"));
  const std::string hash(64, 'a');
  EXPECT_FALSE(
      LoadObject(absl::StrCat(R"({"module":"a.wasm","sha256":")", hash, R"("})"), "k", &name->object).ok());
  EXPECT_TRUE(
      LoadObject(absl::StrCat(R"({"module":"/a.wasm","sha256":")", hash, R"("})"), "k", &name->object).ok());
}

}  // namespace
}  // namespace weft::control
