// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel/side_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

constexpr int kSeals = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
// st_blocks counts these, whatever the file system's block is.
constexpr uint64_t kStatBlockBytes = 512;

}  // namespace

absl::string_view SideMemoryFaultText(SideMemoryFault fault) {
  switch (fault) {
    case SideMemoryFault::kNone:
      return "no fault";
    case SideMemoryFault::kNotMemfd:
      return "not a memfd";
    case SideMemoryFault::kNotSealed:
      return "not sealed";
    case SideMemoryFault::kNotTmpfs:
      return "not on tmpfs";
    case SideMemoryFault::kWrongSize:
      return "wrong size";
    case SideMemoryFault::kSparse:
      return "sparse";
    case SideMemoryFault::kUnreadable:
      return "the kernel does not describe it";
  }
  return "unknown fault";
}

SideMemoryFault FindSideMemoryFault(int fd, std::size_t bytes) {
  // Only shmem and hugetlbfs files have seals; for every other file the kernel answers by itself, with
  // EINVAL.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) return SideMemoryFault::kNotMemfd;
  if ((seals & kSeals) != kSeals) return SideMemoryFault::kNotSealed;
  struct statfs system{};
  if (fstatfs(fd, &system) != 0) return SideMemoryFault::kUnreadable;
  if (system.f_type != TMPFS_MAGIC) return SideMemoryFault::kNotTmpfs;
  struct stat file{};
  if (fstat(fd, &file) != 0) return SideMemoryFault::kUnreadable;
  if (!S_ISREG(file.st_mode) || static_cast<uint64_t>(file.st_size) != bytes)
    return SideMemoryFault::kWrongSize;
  if (static_cast<uint64_t>(file.st_blocks) * kStatBlockBytes < bytes) return SideMemoryFault::kSparse;
  return SideMemoryFault::kNone;
}

absl::Status CheckSideMemory(int fd, std::size_t bytes) {
  const SideMemoryFault fault = FindSideMemoryFault(fd, bytes);
  if (fault == SideMemoryFault::kNone) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("side memory of ", bytes, " bytes refused: ", SideMemoryFaultText(fault)));
}

absl::StatusOr<SideMemory> SideMemory::Create(const char* name, std::size_t bytes) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "create a memfd");
  // Allocated and not merely sized, since the peer refuses holes.
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0 ||
      fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    if (errno == ENOSPC || errno == ENOMEM) {
      return absl::ResourceExhaustedError(
          absl::StrCat("allocate ", bytes, " bytes of side memory: no memory"));
    }
    return absl::ErrnoToStatus(errno, absl::StrCat("allocate ", bytes, " bytes of side memory"));
  }
  WEFT_ASSIGN_OR_RETURN(Mapping mapping, Mapping::Create(fd.get(), bytes, Mapping::Access::kReadWrite));
  // After the one writable mapping: from here on nobody, ourselves included, can make another.
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return absl::ErrnoToStatus(errno, "seal side memory");
  return SideMemory(std::move(fd), std::move(mapping));
}

}  // namespace weft
