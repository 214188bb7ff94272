// SPDX-License-Identifier: Apache-2.0
// The model against the rules as they are said in one place: after any sequence of offers of many sources,
// what is in force is what a merge from nothing of all that was accepted makes, and what is held back is what
// such a merge refuses.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "control/model/model.h"
#include "dataplane/base/random.h"
#include "tests/control/model/typed_mesh.h"

namespace weft::control {
namespace {

constexpr uint64_t kOrigins = 6;
constexpr uint64_t kNames = 4;

// All that one source says, by kind and names; an open one says all of it as implied, or nothing of it.
struct Words {
  bool open = false;
  std::map<std::string, EntryPtr> entries;
};
using Sayings = std::map<std::string, Words>;

EntryPtr RandomEntry(Random* random, bool implied) {
  const auto name = [random](const char* what) { return absl::StrCat(what, random->Below(kNames)); };
  switch (random->Below(8)) {
    case 0:
    case 1: {
      api::Node node;
      node.set_name(name("n"));
      node.set_zone(name("z"));
      return MakeEntry(node, implied);
    }
    case 2:
    case 3: {
      api::Function function;
      function.set_name(name("v/f"));
      function.mutable_policy()->set_timeout_ns(random->Below(2));
      return MakeEntry(function, implied);
    }
    case 4: {
      api::Allow allow;
      allow.set_from(name("a/b"));
      allow.set_to("v/*");
      return MakeEntry(allow, implied);
    }
    default: {
      api::Endpoint endpoint;
      endpoint.set_function(name("v/f"));
      endpoint.set_node(name("n"));
      endpoint.set_host(name("h"));
      endpoint.set_weight(1 + static_cast<uint32_t>(random->Below(3)));
      return MakeEntry(endpoint, implied);
    }
  }
}

std::string TextOf(const Entry& entry) {
  const EntryKey key = entry.key();
  return absl::StrCat(static_cast<int>(entry.kind), " ", key.names[0], " ", key.names[1], " ", key.names[2]);
}

// The rules, said plainly: nothing where the sources do not agree.
std::optional<MeshState> Reference(const Sayings& sayings) {
  std::map<std::string, EntryPtr> outright, implied;
  for (const auto& [origin, saying] : sayings) {
    for (const auto& [text, entry] : saying.entries) {
      if (entry->implied) {
        implied.emplace(text, entry);
      } else if (!outright.emplace(text, entry).second) {
        return std::nullopt;
      }
    }
  }
  std::map<std::string, EntryPtr> said = outright;
  said.insert(implied.begin(), implied.end());
  const auto known = [&said](EntryKind kind, absl::string_view name) {
    return said.contains(absl::StrCat(static_cast<int>(kind), " ", name, "  "));
  };
  MeshState state;
  for (const auto& [text, entry] : said) {
    if (entry->kind != EntryKind::kEndpoint || known(EntryKind::kNode, entry->key().names[1])) {
      state.Put(entry);
    }
  }
  for (const auto& [origin, saying] : sayings) {
    for (const auto& [text, entry] : saying.entries) {
      const EntryKey key = entry->key();
      if (key.kind != EntryKind::kEndpoint) continue;
      const bool node = known(EntryKind::kNode, key.names[1]);
      const bool function = known(EntryKind::kFunction, key.names[0]);
      if (!saying.open && (!node || !function)) return std::nullopt;
      if (!saying.open || !node || function) continue;
      api::Function by_default;
      by_default.set_name(std::string(key.names[0]));
      state.Put(MakeEntry(by_default));
    }
  }
  return state;
}

class ModelPropertyTest : public testing::Test {
 protected:
  std::string RandomOrigin() {
    return absl::StrCat(random_.Below(2) == 0 ? "f" : "o", random_.Below(kOrigins));
  }

  // One source says something else, as a whole or by the difference.
  void Step() {
    const std::string origin = RandomOrigin();
    const bool open = origin.front() == 'o';
    Words& saying = said_[origin];
    saying.open = open;
    SourceOffer offer;
    offer.origin = origin;
    offer.open = open;
    offer.whole = random_.Below(3) == 0 || !accepted_.contains(origin);
    if (offer.whole && random_.Below(4) == 0) saying.entries.clear();
    std::map<std::string, EntryPtr> changed;
    for (uint64_t i = random_.Below(5); i > 0; --i) {
      const EntryPtr entry = RandomEntry(&random_, open && random_.Below(4) != 0);
      const std::string text = TextOf(*entry);
      const auto old = saying.entries.find(text);
      // One key is said once by one source here, so that only its value changes.
      if (old != saying.entries.end() && old->second->implied != entry->implied) continue;
      // Nor does one difference take it back and say it the other way: it holds each key once.
      if (const auto now = changed.find(text);
          now != changed.end() && now->second == nullptr && gone_[text]->implied != entry->implied) {
        continue;
      }
      if (random_.Below(3) == 0) {
        if (old == saying.entries.end()) continue;
        saying.entries.erase(old);
        changed[text] = nullptr;
        gone_[text] = entry;
      } else {
        saying.entries[text] = entry;
        changed[text] = entry;
      }
    }
    if (offer.whole) {
      for (const auto& [text, entry] : saying.entries) offer.said.push_back(entry);
    } else {
      for (const auto& [text, entry] : changed) {
        (entry != nullptr ? offer.said : offer.unsaid).push_back(entry != nullptr ? entry : gone_[text]);
      }
    }
    model_.Offer(std::move(offer));
  }

  // What model_ accepted, by what it says itself of each source.
  void TakeAccepted() {
    std::set<std::string> current;
    for (const SourceStatus& status : model_.Sources()) {
      if (status.current) current.insert(status.origin);
      EXPECT_EQ(status.current, status.errors.empty()) << status.origin;
    }
    for (const std::string& origin : current) accepted_[origin] = said_[origin];
  }

  Random random_{11};
  Model model_{true};  // Shrinking has tests of its own.
  Sayings said_;
  Sayings accepted_;
  std::map<std::string, EntryPtr> gone_;
};

TEST_F(ModelPropertyTest, WhateverIsOfferedTheMeshIsTheOneMadeFromNothing) {
  int held_back = 0;
  int taken = 0;
  MeshState followed;  // By the changes alone
  for (int round = 0; round < 4'000; ++round) {
    for (uint64_t i = 1 + random_.Below(3); i > 0; --i) Step();
    const Model::Outcome outcome = model_.Evaluate();
    TakeAccepted();
    const std::optional<MeshState> wanted = Reference(accepted_);
    ASSERT_TRUE(wanted.has_value()) << "round " << round << ": what was accepted does not agree";
    ASSERT_TRUE(Same(model_.state(), *wanted)) << "round " << round;
    // Held back is what does not agree with all the rest, alone or with the others that are held back.
    Sayings all = accepted_;
    bool any = false;
    for (const auto& [origin, saying] : said_) {
      const bool current = accepted_.contains(origin) && accepted_[origin].entries == saying.entries;
      if (current) continue;
      any = true;
      Sayings with = accepted_;
      with[origin] = saying;
      ASSERT_FALSE(Reference(with).has_value()) << "round " << round << ": " << origin << " could be taken";
      all[origin] = saying;
    }
    ASSERT_EQ(any, !outcome.errors.empty()) << "round " << round;
    if (any) {
      ASSERT_FALSE(Reference(all).has_value()) << "round " << round << ": they could be taken together";
    }
    held_back += any ? 1 : 0;
    taken += outcome.changed() ? 1 : 0;
    for (const EntryChange& change : outcome.changes) {
      const EntryKey key = (change.after != nullptr ? change.after : change.before)->key();
      ASSERT_TRUE(SameValue(followed.Find(key), change.before)) << "round " << round;
      if (change.after != nullptr) {
        followed.Put(change.after);
      } else {
        followed.Erase(key);
      }
    }
    ASSERT_TRUE(Same(followed, model_.state())) << "round " << round;
    // A source that is stuck begins anew at times, so that the others are tried as well.
    if (random_.Below(20) == 0) {
      for (auto& [origin, saying] : said_) {
        saying = accepted_[origin];
        SourceOffer offer;
        offer.origin = origin;
        offer.open = origin.front() == 'o';
        for (const auto& [text, entry] : saying.entries) offer.said.push_back(entry);
        model_.Offer(std::move(offer));
      }
    }
  }
  EXPECT_GT(held_back, 200);
  EXPECT_GT(taken, 200);
}

}  // namespace
}  // namespace weft::control
