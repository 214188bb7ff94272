// SPDX-License-Identifier: Apache-2.0
// Two nodes as they ship whose hosts run the node engine inside themselves.
#ifndef WEFT_TESTS_INTEGRATION_INSIDE_FIXTURE_H_
#define WEFT_TESTS_INTEGRATION_INSIDE_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {

class InsideTest : public TwoNodeTest {
 protected:
  InsideTest() { engine_inside_ = true; }
  // app/relay on host b of n1 calls what its request names; app/echo is on host a of n2.
  // app/other on host b of n2.
  static std::string InsideMesh(const std::string& relay_host = "b") {
    return absl::StrReplaceAll(
        absl::StrCat(CommonMesh(), "- {function: app/relay, node: n1, host: ", relay_host, "}\n",
                     "- {function: app/other, node: n2, host: b}\n"),
        {{"endpoints:", "- {name: app/relay}\n- {name: app/other}\nendpoints:"}});
  }
  static std::string Module(Mesh& node, const std::string& guest) {
    const std::string module = node.path(guest + ".wasm");
    WriteFile(module, ReadFile(absl::StrCat(WEFT_GUEST_DIR "/", guest, ".wasm")));
    EXPECT_EQ(chmod(module.c_str(), 0644), 0);
    return module;
  }
  Process StartRelay(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--name", "b", "--no-cache", "--serve",
                                          "app/relay=" + Module(*near_, "test_caller")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Process host = near_->Start("weft-host", std::move(arguments), kUidB, absl::StrCat("relay.", runs_++));
    EXPECT_TRUE(host.WaitForOutput("attached to node", absl::Seconds(30))) << host.Output();
    return host;
  }
  // A call of app/echo by app/relay: request number `id`, of eight bytes.
  Ran Relay(uint32_t id) {
    std::string request = "c";
    request.push_back(static_cast<char>(200));  // ms
    request.append("app/echo");
    request.push_back('\0');
    for (int shift = 0; shift < 32; shift += 8) request.push_back(static_cast<char>(id >> shift));
    for (uint32_t place = 0; place < 4; ++place)
      request.push_back(static_cast<char>(id * 31 + place * 7 + (id >> 8)));
    WriteFile(near_->path("request"), request);
    return near_->Ctl({"call", "app/relay", "--as", "app"}, near_->path("request"));
  }
  bool Relays() {
    return Eventually([&] { return Relay(7).output.size() == 8; });
  }
  // The guest knows its requests by their pattern, and says so.
  bool GuestAnswers() {
    return Eventually([&] {
      return absl::StrContains(near_->Ctl({"call", "app/echo", "--as", "app", "of no pattern"}).error,
                               "DATA_LOSS");
    });
  }
  int runs_ = 0;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_INTEGRATION_INSIDE_FIXTURE_H_
