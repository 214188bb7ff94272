// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/agent/silent_fuse.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace weft::agent::test {
namespace {

constexpr uint64_t kFileInode = 2;
constexpr std::size_t kRequestBytesMax = 256 * 1024;

fuse_attr AttrOf(uint64_t inode) {
  fuse_attr attr{};
  attr.ino = inode;
  attr.mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
  attr.nlink = 1;
  attr.size = 4096;
  attr.blksize = 4096;
  return attr;
}

}  // namespace

std::unique_ptr<SilentFuse> SilentFuse::Mount(const std::string& directory) {
  UniqueFd device(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device.valid()) return nullptr;
  const std::string options = absl::StrCat("fd=", device.get(), ",rootmode=40000,user_id=0,group_id=0");
  if (mount("silent", directory.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) return nullptr;
  return std::unique_ptr<SilentFuse>(new SilentFuse(directory, std::move(device)));
}

SilentFuse::SilentFuse(std::string directory, UniqueFd device)
    : directory_(std::move(directory)), device_(std::move(device)), thread_([this] { Serve(); }) {}

SilentFuse::~SilentFuse() {
  // Force aborts the connection: requests fail, and the server's read returns.
  umount2(directory_.c_str(), MNT_FORCE);
  umount2(directory_.c_str(), MNT_DETACH);
  thread_.join();
}

UniqueFd SilentFuse::Open() { return UniqueFd(open((directory_ + "/file").c_str(), O_RDWR | O_CLOEXEC)); }

template <typename Body>
void SilentFuse::Answer(uint64_t unique, const Body& body) {
  fuse_out_header header{};
  header.len = sizeof(header) + sizeof(body);
  header.unique = unique;
  iovec parts[] = {{&header, sizeof(header)}, {const_cast<Body*>(&body), sizeof(body)}};
  (void)!writev(device_.get(), parts, 2);
}

void SilentFuse::Serve() {
  std::vector<char> buffer(kRequestBytesMax);
  for (;;) {
    const ssize_t got = read(device_.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
    fuse_in_header request;
    std::memcpy(&request, buffer.data(), sizeof(request));
    switch (request.opcode) {
      case FUSE_INIT: {
        fuse_init_out out{};
        out.major = FUSE_KERNEL_VERSION;
        out.minor = FUSE_KERNEL_MINOR_VERSION;
        out.max_write = 4096;
        Answer(request.unique, out);
        break;
      }
      case FUSE_LOOKUP: {
        fuse_entry_out out{};
        out.nodeid = kFileInode;
        out.attr_valid = out.entry_valid = 3600;
        out.attr = AttrOf(kFileInode);
        Answer(request.unique, out);
        break;
      }
      case FUSE_GETATTR: {
        fuse_attr_out out{};
        out.attr_valid = 3600;
        out.attr = AttrOf(request.nodeid);
        Answer(request.unique, out);
        break;
      }
      case FUSE_OPEN: {
        fuse_open_out out{};
        out.fh = 1;
        Answer(request.unique, out);
        break;
      }
      case FUSE_FLUSH:
        flushes_.fetch_add(1, std::memory_order_release);
        break;  // Never answered.
      default:
        break;
    }
  }
}

}  // namespace weft::agent::test
