// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/channel/stuck_page.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace weft {
namespace {

constexpr uint64_t kPageNode = 2;
constexpr uint64_t kValidSeconds = 3600;

fuse_attr AttributesOf(uint64_t node) {
  fuse_attr attributes{};
  attributes.ino = node;
  attributes.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
  attributes.nlink = 1;
  attributes.size = node == FUSE_ROOT_ID ? 0 : 4096;
  attributes.blksize = 4096;
  return attributes;
}

void Answer(int fd, uint64_t unique, int error, const void* body, std::size_t bytes) {
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof(header) + bytes);
  header.error = error;
  header.unique = unique;
  std::vector<char> packet(header.len);
  std::memcpy(packet.data(), &header, sizeof(header));
  if (bytes != 0) std::memcpy(packet.data() + sizeof(header), body, bytes);
  if (write(fd, packet.data(), packet.size()) < 0) return;  // The request was given up.
}

template <class Body>
void Answer(int fd, uint64_t unique, const Body& body) {
  Answer(fd, unique, 0, &body, sizeof(body));
}

}  // namespace

std::unique_ptr<StuckPage> StuckPage::Mount() {
  char directory[] = "/tmp/weft-stuck-XXXXXX";
  if (geteuid() != 0 || mkdtemp(directory) == nullptr) return nullptr;
  chmod(directory, 0755);
  const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  const std::string options =
      "fd=" + std::to_string(fd) + ",rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions";
  if (fd < 0 || mount("weft-stuck", directory, "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    if (fd >= 0) close(fd);
    rmdir(directory);
    return nullptr;
  }
  return std::unique_ptr<StuckPage>(new StuckPage(directory, fd));
}

StuckPage::StuckPage(std::string directory, int fuse_fd)
    : directory_(std::move(directory)), fuse_(fuse_fd), server_([this] { Serve(); }) {}

StuckPage::~StuckPage() {
  stop_.store(true, std::memory_order_release);
  server_.join();
  fuse_.Reset();  // Ends the connection, and with it every wait for the page.
  umount2(directory_.c_str(), MNT_DETACH);
  rmdir(directory_.c_str());
}

void StuckPage::Serve() {
  std::vector<char> request(FUSE_MIN_READ_BUFFER + 128 * 1024);
  while (!stop_.load(std::memory_order_acquire)) {
    pollfd entry{fuse_.get(), POLLIN, 0};
    if (poll(&entry, 1, 20) <= 0) continue;
    const ssize_t got = read(fuse_.get(), request.data(), request.size());
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) continue;
    fuse_in_header header;
    std::memcpy(&header, request.data(), sizeof(header));
    switch (header.opcode) {
      case FUSE_INIT: {
        fuse_init_out out{};
        out.major = FUSE_KERNEL_VERSION;
        out.minor = FUSE_KERNEL_MINOR_VERSION;
        out.max_write = 4096;
        Answer(fuse_.get(), header.unique, out);
        break;
      }
      case FUSE_LOOKUP: {
        fuse_entry_out out{};
        out.nodeid = kPageNode;
        out.entry_valid = out.attr_valid = kValidSeconds;
        out.attr = AttributesOf(kPageNode);
        Answer(fuse_.get(), header.unique, out);
        break;
      }
      case FUSE_GETATTR: {
        fuse_attr_out out{};
        out.attr_valid = kValidSeconds;
        out.attr = AttributesOf(header.nodeid);
        Answer(fuse_.get(), header.unique, out);
        break;
      }
      case FUSE_OPEN:
        Answer(fuse_.get(), header.unique, fuse_open_out{});
        break;
      case FUSE_READ:
      case FUSE_STATFS:
        // Never answered.
        reads_.fetch_add(1, std::memory_order_release);
        break;
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        break;
      default:
        Answer(fuse_.get(), header.unique, -ENOSYS, nullptr, 0);
    }
  }
}

}  // namespace weft
