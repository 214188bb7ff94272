// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/xsk.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::port {
namespace {

// A queue whose last owner was killed is free some 20 ms later.
constexpr uint64_t kQueueRebindNs = 200 * kNsPerMs;
constexpr std::size_t kHugePageBytes = 2 << 20;

// Without CAP_IPC_LOCK the umem counts against this limit; raising it to the hard limit is all one can do.
void RaiseLockedMemoryLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
  rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_MEMLOCK, &limit);
}

absl::Status Explain(int error, const XskOptions& options) {
  const std::string what =
      absl::StrCat("AF_XDP socket on ", options.interface, " queue ", options.queue, ": ");
  switch (error) {
    case EPERM:
      return absl::PermissionDeniedError(absl::StrCat(what, "CAP_NET_RAW is needed"));
    case ENOBUFS:
    case ENOMEM:
      return absl::ResourceExhaustedError(
          absl::StrCat(what, "memory cannot be locked; CAP_IPC_LOCK or a higher LimitMEMLOCK is needed"));
    case EBUSY:
      return absl::UnavailableError(absl::StrCat(what, "another socket has the queue"));
    case EAFNOSUPPORT:
    case ENOPROTOOPT:
      return absl::UnimplementedError(absl::StrCat(what, "the kernel has no AF_XDP"));
    case ENODEV:
    case ENXIO:
      return absl::NotFoundError(absl::StrCat(what, "no such interface"));
    case EINVAL:
      return absl::InvalidArgumentError(absl::StrCat(what, "the interface has no such queue"));
    case ENETDOWN:
      return absl::UnavailableError(absl::StrCat(what, "the interface is down"));
    default:
      return absl::ErrnoToStatus(error, absl::StrCat(what, "open"));
  }
}

}  // namespace

absl::Status Xsk::CheckFrames() const {
  if (std::has_single_bit(options_.receive_frames) && std::has_single_bit(options_.send_frames) &&
      (options_.frame_bytes == 2048 || options_.frame_bytes == 4096))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      "an AF_XDP socket's rings are powers of two, its frames 2,048 or 4,096 bytes");
}

// In a file, so that another process can map it too.
absl::Status Xsk::MakeMemory(PortStatus* status) {
  RaiseLockedMemoryLimit();
  const std::size_t wanted =
      static_cast<std::size_t>(options_.receive_frames + options_.send_frames) * options_.frame_bytes;
  const std::size_t huge = (wanted + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
  std::string why;
  int error = 0;
  for (const auto& [bytes, flags] : {std::pair(huge, MFD_HUGETLB), std::pair(wanted, 0u)}) {
    memory_fd_.Reset(memfd_create("weft-packets", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
    if (memory_fd_.valid() && ftruncate(memory_fd_.get(), static_cast<off_t>(bytes)) == 0) {
      // Pages of the pool are taken when they are mapped.
      if (absl::StatusOr<Mapping> mapped =
              Mapping::Create(memory_fd_.get(), bytes, Mapping::Access::kReadWrite);
          mapped.ok()) {
        memory_ = *std::move(mapped);
        status->choices.push_back(
            flags != 0
                ? PortChoice{"memory", absl::StrCat(bytes >> 20, " MiB in huge pages"), ""}
                : PortChoice{"memory", absl::StrCat(bytes >> 10, " KiB in normal pages, locked"), why});
        return absl::OkStatus();
      }
    }
    error = errno;
    why = absl::StrCat("no huge pages: ", std::strerror(error));
  }
  return absl::ErrnoToStatus(error, absl::StrCat("map ", wanted, " bytes for the AF_XDP socket on ",
                                                 options_.interface, " queue ", options_.queue));
}

// 0 or an errno; on failure all that was opened is closed: a umem that stays keeps its socket and the queue.
int Xsk::Open(uint16_t bind_flags) {
  // Twice the frames: the kernel hands a frame over before it says that it has taken it from its ring, so a
  // frame can be given back while the ring still shows it.
  const xsk_umem_config umem_config = {.fill_size = 2 * options_.receive_frames,
                                       .comp_size = 2 * options_.send_frames,
                                       .frame_size = options_.frame_bytes,
                                       .frame_headroom = 0,
                                       .flags = 0};
  if (const int result =
          xsk_umem__create(&umem_, memory_.data(), memory_.bytes(), &fill, &completion, &umem_config);
      result != 0) {
    umem_ = nullptr;
    return -result;
  }
  xsk_socket_config config{};
  config.rx_size = options_.receive_frames;
  config.tx_size = 2 * options_.send_frames;
  config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  config.bind_flags = bind_flags;
  if (const int result =
          xsk_socket__create(&socket_, options_.interface.c_str(), options_.queue, umem_, &rx, &tx, &config);
      result != 0) {
    socket_ = nullptr;
    Close();
    return -result;
  }
  return 0;
}

void Xsk::Close() {
  if (socket_ != nullptr) xsk_socket__delete(std::exchange(socket_, nullptr));
  if (umem_ != nullptr) WEFT_CHECK(xsk_umem__delete(std::exchange(umem_, nullptr)) == 0);
}

void Xsk::PostAll() {
  uint32_t first = 0;
  WEFT_CHECK(xsk_ring_prod__reserve(&fill, options_.receive_frames, &first) == options_.receive_frames);
  for (uint32_t i = 0; i < options_.receive_frames; ++i) {
    *xsk_ring_prod__fill_addr(&fill, first + i) = static_cast<uint64_t>(i) * options_.frame_bytes;
  }
  xsk_ring_prod__submit(&fill, options_.receive_frames);
}

absl::Status Xsk::Bind(bool for_another, PortStatus* status) {
  const uint64_t until_ns = NowNs() + (for_another ? 0 : kQueueRebindNs);
  const auto open = [this, until_ns](uint16_t transfer) {
    for (;;) {
      const int error = Open(transfer | XDP_USE_NEED_WAKEUP);
      if (error != EBUSY || NowNs() > until_ns) return error;
      usleep(1'000);
    }
  };
  // The queue's last owner is as much in the way of zero-copy as of copying.
  int error = for_another ? EOPNOTSUPP : open(XDP_ZEROCOPY);
  const int zero_copy_error = error;
  zero_copy_ = error == 0;
  if (error != 0) error = open(XDP_COPY);
  if (error != 0) return Explain(error, options_);
  status->choices.push_back(
      {"transfer", zero_copy_ ? "zero-copy" : "copy",
       zero_copy_ ? "the driver offers it" : absl::StrCat("no zero-copy: ", std::strerror(zero_copy_error))});
  status->choices.push_back({"wakeup", "when the driver asks", "the kernel has XDP_USE_NEED_WAKEUP"});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Xsk>> Xsk::Create(const XskOptions& options, PortStatus* status) {
  std::unique_ptr<Xsk> xsk(new Xsk(options));
  WEFT_RETURN_IF_ERROR(xsk->CheckFrames());
  WEFT_RETURN_IF_ERROR(xsk->MakeMemory(status));
  WEFT_RETURN_IF_ERROR(xsk->Bind(/*for_another=*/false, status));
  xsk->memory_fd_.Reset();
  xsk->PostAll();
  WEFT_RETURN_IF_ERROR(xsk->EnterInto(options.xsks_map_fd));
  return xsk;
}

absl::StatusOr<Xsk::Handed> Xsk::Make(const XskOptions& options) {
  Xsk xsk(options);
  PortStatus status;
  WEFT_RETURN_IF_ERROR(xsk.CheckFrames());
  WEFT_RETURN_IF_ERROR(xsk.MakeMemory(&status));
  WEFT_RETURN_IF_ERROR(xsk.Bind(/*for_another=*/true, &status));
  if (fcntl(xsk.memory_fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return absl::ErrnoToStatus(errno, "seal the memory of an AF_XDP socket");
  Handed handed;
  handed.socket = DuplicateFd(xsk.fd());
  if (!handed.socket.valid()) return absl::ErrnoToStatus(errno, "keep an AF_XDP socket");
  handed.memory = std::move(xsk.memory_fd_);
  handed.frame_bytes = options.frame_bytes;
  return handed;
}

absl::StatusOr<std::unique_ptr<Xsk>> Xsk::Adopt(const XskOptions& options, Handed handed,
                                                PortStatus* status) {
  std::unique_ptr<Xsk> xsk(new Xsk(options));
  xsk->options_.frame_bytes = handed.frame_bytes;
  WEFT_RETURN_IF_ERROR(xsk->CheckFrames());
  const std::size_t wanted =
      static_cast<std::size_t>(options.receive_frames + options.send_frames) * handed.frame_bytes;
  // Where it is in huge pages their size is what a mapping is rounded up to, by the kernel too.
  struct stat file{};
  if (fstat(handed.memory.get(), &file) != 0 || static_cast<uint64_t>(file.st_size) < wanted)
    return absl::InvalidArgumentError("the memory of the AF_XDP socket is smaller than its frames");
  WEFT_ASSIGN_OR_RETURN(xsk->memory_,
                        Mapping::Create(handed.memory.get(), static_cast<std::size_t>(file.st_size),
                                        Mapping::Access::kReadWrite));
  xsk->adopted_ = std::move(handed.socket);
  WEFT_RETURN_IF_ERROR(xsk->MapRings());
  xdp_options bound{};
  socklen_t bytes = sizeof(bound);
  if (getsockopt(xsk->fd(), SOL_XDP, XDP_OPTIONS, &bound, &bytes) != 0)
    return absl::ErrnoToStatus(errno, "ask an AF_XDP socket for its options");
  xsk->zero_copy_ = (bound.flags & XDP_OPTIONS_ZEROCOPY) != 0;
  status->choices.push_back({"socket", "the agent's", "this process has no CAP_NET_RAW to make one"});
  status->choices.push_back({"transfer", xsk->zero_copy_ ? "zero-copy" : "copy", ""});
  xsk->PostAll();
  return xsk;
}

// As libxdp does for a socket that it has made itself; it offers no way to do so for another's.
absl::Status Xsk::MapRings() {
  xdp_mmap_offsets offsets{};
  socklen_t bytes = sizeof(offsets);
  if (getsockopt(fd(), SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &bytes) != 0 || bytes != sizeof(offsets))
    return absl::ErrnoToStatus(errno, "ask an AF_XDP socket for its rings");
  std::size_t mapped = 0;
  const auto map = [&](auto* ring, const xdp_ring_offset& at, uint32_t entries, std::size_t entry_bytes,
                       uint64_t page) -> absl::Status {
    WEFT_ASSIGN_OR_RETURN(Mapping mapping, Mapping::Create(fd(), at.desc + entries * entry_bytes,
                                                           Mapping::Access::kReadWrite, page));
    std::byte* const base = mapping.data();
    ring->producer = reinterpret_cast<uint32_t*>(base + at.producer);
    ring->consumer = reinterpret_cast<uint32_t*>(base + at.consumer);
    ring->flags = reinterpret_cast<uint32_t*>(base + at.flags);
    ring->ring = base + at.desc;
    ring->size = entries;
    ring->mask = entries - 1;
    ring->cached_prod = *ring->producer;
    ring->cached_cons = *ring->consumer;
    ring_mappings_[mapped++] = std::move(mapping);
    return absl::OkStatus();
  };
  const uint32_t receive = options_.receive_frames;
  const uint32_t send = options_.send_frames;
  WEFT_RETURN_IF_ERROR(map(&fill, offsets.fr, 2 * receive, sizeof(uint64_t), XDP_UMEM_PGOFF_FILL_RING));
  WEFT_RETURN_IF_ERROR(
      map(&completion, offsets.cr, 2 * send, sizeof(uint64_t), XDP_UMEM_PGOFF_COMPLETION_RING));
  WEFT_RETURN_IF_ERROR(map(&rx, offsets.rx, receive, sizeof(xdp_desc), XDP_PGOFF_RX_RING));
  WEFT_RETURN_IF_ERROR(map(&tx, offsets.tx, 2 * send, sizeof(xdp_desc), XDP_PGOFF_TX_RING));
  // Of a ring that it fills, libxdp keeps the consumer's place as that of the first entry that is not free.
  fill.cached_cons += fill.size;
  tx.cached_cons += tx.size;
  return absl::OkStatus();
}

absl::Status EnterSocket(int xsks_map_fd, uint32_t entry, int socket_fd) {
  if (bpf_map_update_elem(xsks_map_fd, &entry, &socket_fd, BPF_ANY) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno,
                             absl::StrCat("enter an AF_XDP socket into the XDP program's map, at ", entry));
}

absl::Status Xsk::EnterInto(int xsks_map_fd) const { return EnterSocket(xsks_map_fd, options_.queue, fd()); }

Xsk::~Xsk() { Close(); }

}  // namespace weft::port
