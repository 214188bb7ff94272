// SPDX-License-Identifier: Apache-2.0
#include "tests/tools/fake_daemon.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "dataplane/base/check.h"
#include "dataplane/base/unix_socket.h"

namespace weft::ctl {

FakeDaemon::FakeDaemon(const std::string& path, Script script)
    : script_(std::move(script)), stop_(eventfd(0, EFD_CLOEXEC)) {
  absl::StatusOr<UniqueFd> listener = ListenUnix(path, 0600);
  WEFT_CHECK(listener.ok());
  listener_ = *std::move(listener);
  thread_ = std::thread([this] { Run(); });
}

FakeDaemon::~FakeDaemon() {
  const uint64_t one = 1;
  WEFT_CHECK(write(stop_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
}

void FakeDaemon::Run() {
  std::vector<UniqueFd> clients;
  for (;;) {
    std::vector<pollfd> entries = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const UniqueFd& client : clients) entries.push_back({client.get(), POLLIN, 0});
    poll(entries.data(), entries.size(), -1);
    if (entries[0].revents != 0) return;
    for (std::size_t i = clients.size(); i-- > 0;) {
      if (entries[i + 2].revents == 0) continue;
      absl::StatusOr<ReceivedMessage> message = ReceiveMessage(clients[i].get());
      api::AdminRequest request;
      std::vector<std::string> answer;
      if (message.ok() && request.ParseFromString(message->bytes)) answer = script_(request);
      for (const std::string& packet : answer) (void)SendMessage(clients[i].get(), packet);
      if (answer.empty()) clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (entries[1].revents != 0) {
      clients.emplace_back(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    }
  }
}

}  // namespace weft::ctl
