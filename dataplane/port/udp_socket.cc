// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/udp_socket.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "bpf/abi/packet.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/frame_headers.h"

namespace weft::port {
namespace {

// 4 MiB hold 3 ms of full-size datagrams at 10 Gb/s: longer than a worker is kept off its core.
constexpr int kSocketBufferBytes = 4 << 20;

// The ring of a process that was killed keeps its socket until the kernel has ended it, some milliseconds
// later.
constexpr uint64_t kSocketRebindNs = 200 * kNsPerMs;

// The datagram's worker hint, modulo the number of workers, is the number of the socket. A datagram too short
// to have one goes to the first, which counts it.
absl::Status ChooseWorkerByHint(int fd, uint32_t workers) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct weft_packet_header, worker_hint)),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, workers),
      BPF_STMT(BPF_RET | BPF_A, 0),
  };
  const sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) != 0) {
    return absl::ErrnoToStatus(errno, "attach the choice of worker to a UDP socket");
  }
  return absl::OkStatus();
}

std::string SetBuffer(int fd, int force_option, int option, int get_option) {
  const int want = kSocketBufferBytes;
  if (setsockopt(fd, SOL_SOCKET, force_option, &want, sizeof(want)) != 0) {
    setsockopt(fd, SOL_SOCKET, option, &want, sizeof(want));  // As far as net.core.{r,w}mem_max lets it.
  }
  int have = 0;
  socklen_t bytes = sizeof(have);
  getsockopt(fd, SOL_SOCKET, get_option, &have, &bytes);
  return absl::StrCat(have / 2);  // The kernel doubles it, for its own overhead.
}

// Tries for 200 ms where another has the address.
absl::StatusOr<UniqueFd> Bind(const Address& local, bool shared) {
  const sa_family_t family = local.is_ipv4() ? AF_INET : AF_INET6;
  UniqueFd fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "create a UDP socket");
  const int on = 1, off = 0;
  if (family == AF_INET6) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  if (shared && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
    return absl::ErrnoToStatus(errno, "share a UDP address among workers");
  }
  sockaddr_storage name;
  const socklen_t bytes = local.ToSockaddr(family, &name);
  const uint64_t begin_ns = NowNs();
  while (bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), bytes) != 0) {
    if (errno != EADDRINUSE || NowNs() - begin_ns > kSocketRebindNs) {
      return absl::ErrnoToStatus(errno, absl::StrCat("bind UDP ", local.ToString()));
    }
    usleep(1'000);
  }
  return fd;
}

}  // namespace

absl::StatusOr<UniqueFd> BindUdp(const Address& local, uint32_t workers, PortStatus* status) {
  WEFT_ASSIGN_OR_RETURN(UniqueFd fd, Bind(local, workers > 1));
  if (workers > 1) {
    WEFT_RETURN_IF_ERROR(ChooseWorkerByHint(fd.get(), workers));
    status->choices.push_back(
        {"worker choice", "classic BPF by the worker hint", "several workers share the address"});
  }
  return fd;
}

absl::StatusOr<UniqueFd> TwinOf(int fd) {
  WEFT_ASSIGN_OR_RETURN(const Address local, LocalAddressOf(fd));
  if (local.is_any()) return absl::FailedPreconditionError("the address is unspecified");
  int family = AF_INET;
  socklen_t family_bytes = sizeof(family);
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &family_bytes);
  UniqueFd twin(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!twin.valid()) return absl::ErrnoToStatus(errno, "create a second UDP socket");
  sockaddr_storage name;
  const socklen_t bytes = local.ToSockaddr(static_cast<sa_family_t>(family), &name);
  const auto* const generic = reinterpret_cast<const sockaddr*>(&name);
  // The address is shared for this moment only: who comes later finds it taken.
  const auto share = [&](int on) {
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
           setsockopt(twin.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0;
  };
  const bool bound = share(1) && bind(twin.get(), generic, bytes) == 0;
  const int error = errno;
  const bool alone = share(0);
  if (!bound) return absl::ErrnoToStatus(error, absl::StrCat("bind UDP ", local.ToString(), " twice"));
  if (!alone || connect(twin.get(), generic, bytes) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("connect UDP ", local.ToString(), " to itself"));
  return twin;
}

absl::Status AwaitUdpFree(const Address& local) { return Bind(local, /*shared=*/false).status(); }

absl::StatusOr<Address> LocalAddressOf(int fd) {
  int type = 0, protocol = 0;
  socklen_t bytes = sizeof(type);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 ||
      getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &bytes) != 0 || type != SOCK_DGRAM ||
      protocol != IPPROTO_UDP) {
    return absl::FailedPreconditionError(absl::StrCat("descriptor ", fd, " is no UDP socket"));
  }
  sockaddr_storage name{};
  bytes = sizeof(name);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes) != 0) {
    return absl::ErrnoToStatus(errno, "ask for a UDP socket's address");
  }
  const Address address = Address::FromSockaddr(reinterpret_cast<const sockaddr*>(&name));
  if (address.port == 0) return absl::FailedPreconditionError("the UDP socket is not bound");
  return address;
}

absl::StatusOr<uint32_t> DatagramBytesTo(const Address& local, const Address& peer) {
  const bool ipv4 = peer.is_ipv4();
  const sa_family_t family = ipv4 ? AF_INET : AF_INET6;
  UniqueFd fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "create a UDP socket");
  sockaddr_storage name;
  Address from = local;
  from.port = 0;
  if (!local.is_any() && local.is_ipv4() == ipv4) {
    const socklen_t bytes = from.ToSockaddr(family, &name);
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), bytes) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("bind UDP ", from.ToString()));
    }
  }
  const socklen_t bytes = peer.ToSockaddr(family, &name);
  // Connecting a UDP socket sends nothing: it asks the kernel's routes.
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), bytes) != 0) {
    return absl::UnavailableError(absl::StrCat("no way to ", peer.ToString(), ": ", std::strerror(errno)));
  }
  int mtu = 0;
  socklen_t mtu_bytes = sizeof(mtu);
  if (getsockopt(fd.get(), ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_MTU : IPV6_MTU, &mtu, &mtu_bytes) !=
      0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("ask for the MTU towards ", peer.ToString()));
  }
  const auto headers = static_cast<int>(IpHeadersBytes(peer));
  return static_cast<uint32_t>(mtu > headers ? mtu - headers : 0);
}

bool HasSegmentation(int fd, PortStatus* status) {
  const int none = 0;
  const bool has = setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &none, sizeof(none)) == 0;
  status->choices.push_back({"UDP_SEGMENT", has ? "on" : "off",
                             has ? "several datagrams to one peer leave by one send" : std::strerror(errno)});
  return has;
}

void SetUpSocket(int fd, PortStatus* status) {
  const std::string receive = SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, SO_RCVBUF);
  const std::string send = SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SO_SNDBUF);
  status->choices.push_back(
      {"socket buffers", absl::StrCat(receive, " B in, ", send, " B out"),
       absl::StrCat("asked for ", kSocketBufferBytes,
                    " B; net.core.rmem_max and wmem_max limit them without CAP_NET_ADMIN")});
  int family = 0;
  socklen_t bytes = sizeof(family);
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &bytes);
  const int never_fragment = IP_PMTUDISC_DO;
  setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &never_fragment, sizeof(never_fragment));
  if (family == AF_INET6) {
    const int never_fragment6 = IPV6_PMTUDISC_DO;
    setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &never_fragment6, sizeof(never_fragment6));
  }
}

}  // namespace weft::port
