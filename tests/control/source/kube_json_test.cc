// SPDX-License-Identifier: Apache-2.0
// What an API server answers, page by page and event by event, and what a credential plugin does.
#include "control/source/kubernetes/kube_json.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/control/source/kube_state_fixture.h"

namespace weft::control {
namespace {

TEST(KubeJsonTest, WhatIsNoAnswerIsTold) {
  EXPECT_FALSE(ParseKubePage(KubeKind::kNode, "").ok());
  EXPECT_FALSE(ParseKubePage(KubeKind::kNode, "{}").ok());
  EXPECT_TRUE(ParseKubePage(KubeKind::kNode, R"({"metadata":{"resourceVersion":"1"},"items":null})").ok());
  EXPECT_FALSE(ParseKubeEvent(KubeKind::kNode, R"({"type":"ADDED"})").ok());
  const auto unknown = ParseKubeEvent(KubeKind::kNode, R"({"type":"PAUSED","object":{}})");
  ASSERT_TRUE(unknown.ok());
  EXPECT_EQ(unknown->type, KubeEvent::Type::kUnknown);
  const auto error =
      ParseKubeEvent(KubeKind::kNode, R"({"type":"ERROR","object":{"code":410,"message":"too old"}})");
  EXPECT_EQ(error->code, 410);
  EXPECT_EQ(error->message, "too old");
  EXPECT_EQ(KubeMessageOf("<html>"), "");
}

TEST(KubeJsonTest, APageIsReadWhereItLiesWithWhateverIsBehindIt) {
  const std::string text =
      absl::StrCat(R"({"metadata":{"resourceVersion":"7"},"items":[)", NodeJson("n1", "10.0.0.1"), "]}");
  std::string tight = text;
  tight.shrink_to_fit();
  std::string reused = text + std::string(1'000, '}');
  reused.resize(text.size());
  for (std::string* each : {&tight, &reused}) {
    const auto page = ParseKubePageInPlace(KubeKind::kNode, each);
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_EQ(page->items.size(), 1u);
    EXPECT_EQ(page->items[0].object, ParseKubePage(KubeKind::kNode, text)->items[0].object);
    EXPECT_EQ(*each, text);
  }
  std::string torn = text.substr(0, text.size() - 1);
  EXPECT_FALSE(ParseKubePageInPlace(KubeKind::kNode, &torn).ok());
}

TEST(KubeJsonTest, TheNextPageIsKnownByTheBeginningOfOne) {
  const std::string head = R"({"kind":"ServiceList","metadata":{"resourceVersion":"7","continue":"a\"b")";
  EXPECT_EQ(NextOfKubePage(head + R"(,"remainingItemCount":3},"items":[{"torn)"), "a\"b");
  // Where the beginning does not say, all is read first.
  EXPECT_EQ(NextOfKubePage(R"({"metadata":{"resourceVersion":"7"},"items":[]})"), "");
  EXPECT_EQ(NextOfKubePage(R"({"items":[],"metadata":{"continue":"a"}})"), "");
  EXPECT_EQ(NextOfKubePage(head + R"(,"items":[]},"items":[]})"), "");
  EXPECT_EQ(NextOfKubePage(head + std::string(100'000, ' ') + R"(},"items":[]})"), "");
  EXPECT_EQ(NextOfKubePage(""), "");
}

TEST(KubeJsonTest, CredentialsAreReadOrRefused) {
  EXPECT_EQ(ParseKubeCredential(R"({"status":{"token":"t"}})")->token, "t");
  EXPECT_EQ(ParseKubeCredential(R"({"status":{"token":"t","expirationTimestamp":"1970-01-02T00:00:00Z"}})")
                ->expires_unix_s,
            86'400u);
  for (const char* bad : {"", "{}", R"({"status":{}})", R"({"status":{"clientKeyData":"k"}})",
                          R"({"status":{"token":"t","expirationTimestamp":"soon"}})"}) {
    EXPECT_FALSE(ParseKubeCredential(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace weft::control
