// SPDX-License-Identifier: Apache-2.0
// A directory by inotify: each file that is moved into it is read; its number is that of its function, as in
// f00017.yaml.
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bench/control/bare_source.h"
#include "dataplane/base/clock.h"

namespace weft::bench {

int BareFilesWatch(const std::string& directory) {
  BareEvents events;
  const int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (inotify < 0 || inotify_add_watch(inotify, directory.c_str(), IN_MOVED_TO) < 0) {
    std::perror(directory.c_str());
    return 1;
  }
  events.Ready();
  alignas(inotify_event) char buffer[64 * 1024];
  char content[64 * 1024];
  while (!BareIsOver()) {
    pollfd entry{inotify, POLLIN, 0};
    poll(&entry, 1, 1'000);
    const uint64_t now_ns = NowNs();
    const ssize_t count = read(inotify, buffer, sizeof(buffer));
    for (ssize_t at = 0; at < count;) {
      inotify_event event;
      std::memcpy(&event, buffer + at, sizeof(event));
      const char* name = buffer + at + sizeof(event);
      at += static_cast<ssize_t>(sizeof(event) + event.len);
      if (event.len == 0) continue;
      const int file = open((directory + "/" + name).c_str(), O_RDONLY | O_CLOEXEC);
      if (file < 0) continue;
      while (read(file, content, sizeof(content)) > 0) {
      }
      close(file);
      events.Add(std::strtoull(name + 1, nullptr, 10), now_ns);
    }
  }
  close(inotify);
  return events.Print();
}

}  // namespace weft::bench
