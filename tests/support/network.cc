// SPDX-License-Identifier: Apache-2.0
#include "tests/support/network.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"

namespace weft::test {
namespace {

UniqueFd CurrentNamespace() {
  UniqueFd fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  WEFT_CHECK(fd.valid());
  return fd;
}

int IndexIn(const NetworkNamespace& where) {
  const InNamespace scope(where);
  const unsigned index = if_nametoindex(VethPair::kInterface);
  WEFT_CHECK(index != 0);
  return static_cast<int>(index);
}

}  // namespace

NetworkNamespace::NetworkNamespace() {
  // On a thread of its own, which leaves the namespace it made with its end.
  std::thread([this] {
    WEFT_CHECK(unshare(CLONE_NEWNET) == 0);
    fd_ = CurrentNamespace();
  }).join();
  Run({"/sbin/ip", "link", "set", "lo", "up"});
}

std::string NetworkNamespace::path() const { return absl::StrCat("/proc/", getpid(), "/fd/", fd_.get()); }

void NetworkNamespace::Run(std::vector<std::string> arguments) const {
  const InNamespace scope(*this);
  const std::string program = arguments[0];
  const Ran ran = test::Run(std::move(arguments));
  if (ran.exit_code != 0)
    std::fprintf(stderr, "%s: %s%s\n", program.c_str(), ran.output.c_str(), ran.error.c_str());
  WEFT_CHECK(ran.exit_code == 0);
}

InNamespace::InNamespace(const NetworkNamespace& where) : before_(CurrentNamespace()) {
  WEFT_CHECK(setns(where.fd(), CLONE_NEWNET) == 0);
}

InNamespace::~InNamespace() { WEFT_CHECK(setns(before_.get(), CLONE_NEWNET) == 0); }

bool VethPair::Privileged() { return geteuid() == 0; }

VethPair::VethPair(VethOptions options) : options_(options) {
  Make();
  // An IPv6 address that one end is given while the other is down is heard of by nobody for a second. Plug()
  // cannot do so: whoever waits for the interface may take it for ready as soon as it is up.
  for (const NetworkNamespace* where : {&near_, &far_}) {
    where->Run({"/sbin/ip", "link", "set", kInterface, "up"});
  }
  Configure();
}

void VethPair::Plug() {
  Make();
  Configure();
}

void VethPair::Make() {
  const std::string queues = absl::StrCat(options_.queues);
  const std::string mtu = absl::StrCat(options_.mtu);
  near_.Run({"/sbin/ip",    "link",        "add",  kInterface,    "mtu",  mtu,     "numrxqueues", queues,
             "numtxqueues", queues,        "type", "veth",        "peer", "name",  kInterface,    "mtu",
             mtu,           "numrxqueues", queues, "numtxqueues", queues, "netns", far_.path()});
}

void VethPair::Configure() {
  const auto configure = [](const NetworkNamespace& where, const char* address, const char* address6) {
    where.Run({"/sbin/ip", "address", "add", absl::StrCat(address, "/24"), "dev", kInterface});
    // Without duplicate address detection the address can be used at once.
    where.Run({"/sbin/ip", "address", "add", absl::StrCat(address6, "/64"), "dev", kInterface, "nodad"});
    where.Run({"/sbin/ip", "link", "set", kInterface, "up"});
  };
  configure(near_, kNearAddress, kNearAddress6);
  configure(far_, kFarAddress, kFarAddress6);
  near_index_ = IndexIn(near_);
  far_index_ = IndexIn(far_);
}

}  // namespace weft::test
