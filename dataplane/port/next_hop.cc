// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/next_hop.h"

#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::port {
namespace {

constexpr uint16_t kDiscardPort = 9;

ifreq RequestFor(const std::string& interface) {
  ifreq request{};
  interface.copy(request.ifr_name, sizeof(request.ifr_name) - 1);
  return request;
}

struct Request {
  nlmsghdr header;
  union {
    rtmsg route;
    ndmsg neighbour;
  };
  uint8_t attributes[128];
};

void Append(Request* request, uint16_t type, const void* data, std::size_t bytes) {
  auto* const attribute =
      reinterpret_cast<rtattr*>(reinterpret_cast<uint8_t*>(request) + NLMSG_ALIGN(request->header.nlmsg_len));
  attribute->rta_type = type;
  attribute->rta_len = static_cast<uint16_t>(RTA_LENGTH(bytes));
  std::memcpy(RTA_DATA(attribute), data, bytes);
  request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

void AppendAddress(Request* request, uint16_t type, const Address& address) {
  address.is_ipv4() ? Append(request, type, address.ip + 12, 4) : Append(request, type, address.ip, 16);
}

void ReadAddress(const rtattr* attribute, Address* address) {
  if (RTA_PAYLOAD(attribute) == 4) *address = Address::FromIpv4(RTA_DATA(attribute));
  if (RTA_PAYLOAD(attribute) == 16) *address = Address::FromIpv6(RTA_DATA(attribute));
}

uint32_t ReadNumber(const rtattr* attribute) {
  uint32_t value = 0;
  if (RTA_PAYLOAD(attribute) == sizeof(value)) std::memcpy(&value, RTA_DATA(attribute), sizeof(value));
  return value;
}

// Calls `function(attribute)` for each of a message whose fixed part is `fixed_bytes` long.
template <typename Function>
void ForEachAttribute(const nlmsghdr* message, std::size_t fixed_bytes, Function function) {
  auto bytes = static_cast<int>(message->nlmsg_len - NLMSG_SPACE(fixed_bytes));
  const auto* attribute =
      reinterpret_cast<const rtattr*>(reinterpret_cast<const uint8_t*>(message) + NLMSG_SPACE(fixed_bytes));
  for (; RTA_OK(attribute, bytes); attribute = RTA_NEXT(attribute, bytes)) function(attribute);
}

absl::StatusOr<UniqueFd> OpenNetlink(uint32_t groups) {
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "open a netlink socket");
  sockaddr_nl name{};
  name.nl_family = AF_NETLINK;
  name.nl_groups = groups;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return absl::ErrnoToStatus(errno, "bind a netlink socket");
  }
  return fd;
}

// `question`: one of ethtool's, with its command; answered in place. False where the driver has no answer.
bool AskDriver(const std::string& interface, void* question) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = RequestFor(interface);
  request.ifr_data = static_cast<char*>(question);
  return ioctl(fd.get(), SIOCETHTOOL, &request) == 0;
}

}  // namespace

uint32_t QueuesOf(const std::string& interface) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (!AskDriver(interface, &channels)) return 1;
  const uint32_t queues = channels.combined_count + channels.rx_count;
  return queues == 0 ? 1 : queues;
}

bool IsVeth(const std::string& interface) {
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  return AskDriver(interface, &driver) && std::strncmp(driver.driver, "veth", sizeof(driver.driver)) == 0;
}

absl::StatusOr<NextHops::Sockets> NextHops::Open() {
  Sockets sockets;
  sockets.plain4.Reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
  if (!sockets.plain4.valid()) return absl::ErrnoToStatus(errno, "create a UDP socket");
  sockets.plain6.Reset(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
  WEFT_ASSIGN_OR_RETURN(sockets.requests, OpenNetlink(0));
  WEFT_ASSIGN_OR_RETURN(sockets.events,
                        OpenNetlink(RTMGRP_NEIGH | RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE |
                                    RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR));
  return sockets;
}

absl::StatusOr<std::unique_ptr<NextHops>> NextHops::Create(const std::string& interface) {
  WEFT_ASSIGN_OR_RETURN(Sockets sockets, Open());
  return Create(interface, std::move(sockets));
}

absl::StatusOr<std::unique_ptr<NextHops>> NextHops::Create(const std::string& interface, Sockets sockets) {
  std::unique_ptr<NextHops> hops(new NextHops());
  hops->interface_ = interface;
  hops->requests_ = std::move(sockets.requests);
  hops->events_ = std::move(sockets.events);
  hops->plain4_ = std::move(sockets.plain4);
  hops->plain6_ = std::move(sockets.plain6);
  ifreq request = RequestFor(interface);
  if (ioctl(hops->plain4_.get(), SIOCGIFINDEX, &request) != 0) {
    return absl::NotFoundError(absl::StrCat("no interface ", interface));
  }
  hops->index_ = request.ifr_ifindex;
  if (!hops->ReadMac()) {
    return absl::FailedPreconditionError(absl::StrCat(interface, " is not an Ethernet interface"));
  }
  return hops;
}

bool NextHops::ReadMac() {
  ifreq request = RequestFor(interface_);
  if (ioctl(plain4_.get(), SIOCGIFHWADDR, &request) != 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
    return false;
  std::memcpy(mac_, request.ifr_hwaddr.sa_data, sizeof(mac_));
  return true;
}

uint32_t NextHops::mtu() const {
  ifreq request = RequestFor(interface_);
  return ioctl(plain4_.get(), SIOCGIFMTU, &request) == 0 ? static_cast<uint32_t>(request.ifr_mtu) : 0;
}

// Sends a request, whose answer is in answer_; its length, 0 where there is none. The kernel answers within
// the send.
std::size_t NextHops::Exchange(void* request, std::size_t bytes) {
  static_cast<nlmsghdr*>(request)->nlmsg_seq = ++sequence_;
  if (send(requests_.get(), request, bytes, 0) < 0) return 0;
  for (;;) {
    const ssize_t got = recv(requests_.get(), answer_, sizeof(answer_), MSG_DONTWAIT);
    if (got < static_cast<ssize_t>(sizeof(nlmsghdr))) return 0;
    const auto* const header = reinterpret_cast<const nlmsghdr*>(answer_);
    if (header->nlmsg_seq != sequence_) continue;  // Left by an exchange that was cut short.
    if (header->nlmsg_type == NLMSG_ERROR || header->nlmsg_len > static_cast<uint32_t>(got)) return 0;
    return static_cast<std::size_t>(got);
  }
}

absl::StatusOr<NextHop> NextHops::Find(const Address& peer, const Address& local) {
  Request request{};
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof(rtmsg));
  request.header.nlmsg_type = RTM_GETROUTE;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.route.rtm_family = peer.is_ipv4() ? AF_INET : AF_INET6;
  request.route.rtm_dst_len = peer.is_ipv4() ? 32 : 128;
  AppendAddress(&request, RTA_DST, peer);
  const bool bound = !local.is_any() && local.is_ipv4() == peer.is_ipv4();
  if (bound) AppendAddress(&request, RTA_SRC, local);
  if (bound) request.route.rtm_src_len = request.route.rtm_dst_len;
  if (peer.scope_id != 0) Append(&request, RTA_OIF, &peer.scope_id, sizeof(peer.scope_id));
  if (Exchange(&request, request.header.nlmsg_len) == 0) {
    return absl::UnavailableError(absl::StrCat("no route to ", peer.ToString()));
  }
  NextHop hop;
  hop.source = local;
  hop.neighbour = peer;
  uint32_t oif = 0, mtu = 0;
  const auto* const answer = reinterpret_cast<const nlmsghdr*>(answer_);
  const auto* const route = static_cast<const rtmsg*>(NLMSG_DATA(answer));
  ForEachAttribute(answer, sizeof(rtmsg), [&](const rtattr* attribute) {
    if (attribute->rta_type == RTA_OIF) oif = ReadNumber(attribute);
    if (attribute->rta_type == RTA_GATEWAY) ReadAddress(attribute, &hop.neighbour);
    if (attribute->rta_type == RTA_PREFSRC && !bound) ReadAddress(attribute, &hop.source);
    if (attribute->rta_type != RTA_METRICS) return;
    auto bytes = static_cast<int>(RTA_PAYLOAD(attribute));
    for (const auto* metric = static_cast<const rtattr*>(RTA_DATA(attribute)); RTA_OK(metric, bytes);
         metric = RTA_NEXT(metric, bytes)) {
      if (metric->rta_type == RTAX_MTU) mtu = ReadNumber(metric);
    }
  });
  if (route->rtm_type != RTN_UNICAST || oif != static_cast<uint32_t>(index_)) {
    ifreq other{};
    other.ifr_ifindex = static_cast<int>(oif);
    const bool named = ioctl(plain4_.get(), SIOCGIFNAME, &other) == 0;
    return absl::FailedPreconditionError(absl::StrCat("the way to ", peer.ToString(), " leads over ",
                                                      named ? other.ifr_name : "?", ", not over ",
                                                      interface_));
  }
  const uint32_t own = this->mtu();
  hop.mtu = mtu == 0 || mtu > own ? own : mtu;
  WEFT_RETURN_IF_ERROR(FindNeighbour(&hop));
  return hop;
}

absl::Status NextHops::FindNeighbour(NextHop* hop) {
  Request request{};
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof(ndmsg));
  request.header.nlmsg_type = RTM_GETNEIGH;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.neighbour.ndm_family = hop->neighbour.is_ipv4() ? AF_INET : AF_INET6;
  request.neighbour.ndm_ifindex = index_;
  AppendAddress(&request, NDA_DST, hop->neighbour);
  if (Exchange(&request, request.header.nlmsg_len) == 0) return absl::OkStatus();  // Not known yet.
  const auto* const answer = reinterpret_cast<const nlmsghdr*>(answer_);
  const uint16_t state = static_cast<const ndmsg*>(NLMSG_DATA(answer))->ndm_state;
  ForEachAttribute(answer, sizeof(ndmsg), [&](const rtattr* attribute) {
    if (attribute->rta_type != NDA_LLADDR || RTA_PAYLOAD(attribute) != sizeof(hop->mac)) return;
    std::memcpy(hop->mac, RTA_DATA(attribute), sizeof(hop->mac));
    hop->known =
        (state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP)) != 0;
    hop->fresh = (state & NUD_STALE) == 0;
  });
  return absl::OkStatus();
}

void NextHops::Ask(const Address& peer) {
  Address discard = peer;
  discard.port = kDiscardPort;
  sockaddr_storage name;
  const sa_family_t family = peer.is_ipv4() ? AF_INET : AF_INET6;
  const socklen_t bytes = discard.ToSockaddr(family, &name);
  // Where it fails there is no route, and the next change or question tries again.
  (void)sendto(peer.is_ipv4() ? plain4_.get() : plain6_.get(), nullptr, 0, MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&name), bytes);
}

// A node of many interfaces and neighbours sees many changes, few of them of this interface.
bool NextHops::Concerns(const void* message) {
  const auto* const header = static_cast<const nlmsghdr*>(message);
  const void* const body = NLMSG_DATA(header);
  switch (header->nlmsg_type) {
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      return static_cast<const ndmsg*>(body)->ndm_ifindex == index_;
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return static_cast<const ifaddrmsg*>(body)->ifa_index == static_cast<uint32_t>(index_);
    case RTM_NEWLINK:
    case RTM_DELLINK:
      if (static_cast<const ifinfomsg*>(body)->ifi_index != index_) return false;
      // Of another family it tells that the interface has left a bridge.
      if (header->nlmsg_type == RTM_DELLINK && static_cast<const ifinfomsg*>(body)->ifi_family == AF_UNSPEC)
        gone_ = true;
      if (!gone_) (void)ReadMac();
      return true;
    default:
      return true;  // A route over another interface may have led here.
  }
}

bool NextHops::TakeChanges() {
  bool changed = false;
  // Bounded: a flood of changes is one change.
  for (int i = 0; i < 64; ++i) {
    const ssize_t got = recv(events_.get(), answer_, sizeof(answer_), MSG_DONTWAIT);
    if (got >= 0) {
      auto bytes = static_cast<uint32_t>(got);
      for (const auto* message = reinterpret_cast<const nlmsghdr*>(answer_); NLMSG_OK(message, bytes);
           message = NLMSG_NEXT(message, bytes)) {
        changed |= Concerns(message);
      }
    } else if (errno == ENOBUFS) {
      changed = true;  // What was lost may be anything.
      // Of the socket's namespace, which need not be this process's.
      ifreq request{};
      request.ifr_ifindex = index_;
      if (ioctl(plain4_.get(), SIOCGIFNAME, &request) != 0 && errno == ENODEV) gone_ = true;
    } else if (errno != EINTR) {
      break;
    }
  }
  return changed;
}

}  // namespace weft::port
