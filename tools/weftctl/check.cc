// SPDX-License-Identifier: Apache-2.0
// `weftctl check`: what must be true for calls to flow, one line each, with what to do where it is not.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dataplane/base/fd.h"
#include "tools/weftctl/admin_client.h"
#include "tools/weftctl/commands.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace weft::ctl {
namespace {

// Descriptors that weftd needs at the least: a socket a host, and some for a channel while it is opened.
constexpr rlim_t kFilesMin = 4096;
// Nodes that one line names.
constexpr std::size_t kNodesNamedMax = 5;

class Checks {
 public:
  void Ok(const std::string& check, const std::string& detail) { Add(check, "ok", detail, ""); }
  void Warn(const std::string& check, const std::string& detail, const std::string& hint) {
    Add(check, "warning", detail, hint);
  }
  void Failed(const std::string& check, const std::string& detail, const std::string& hint) {
    Add(check, "failed", detail, hint);
    failed_ = true;
  }
  bool failed() const { return failed_; }
  const std::vector<api::Item>& items() const { return items_; }

 private:
  void Add(const std::string& check, const char* result, const std::string& detail, const std::string& hint) {
    items_.push_back(
        Row().Text("check", check).Text("result", result).Text("detail", detail).Text("hint", hint).Take());
  }

  std::vector<api::Item> items_;
  bool failed_ = false;
};

void CheckKernel(Checks* checks) {
  const UniqueFd memory(memfd_create("weftctl-check", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const int seals = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (memory.valid() && ftruncate(memory.get(), 4096) == 0 && fcntl(memory.get(), F_ADD_SEALS, seals) == 0) {
    checks->Ok("sealed memory", "memfd takes all four seals");
  } else {
    checks->Failed("sealed memory", std::strerror(errno), "channels need Linux 5.1 or newer");
  }
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (self.valid()) {
    checks->Ok("pidfd", "the death of a host is noticed at once");
  } else {
    checks->Failed("pidfd", std::strerror(errno), "weftd needs Linux 5.3 or newer");
  }
  const UniqueFd socket_fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const int off = 0;
  if (setsockopt(socket_fd.get(), SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) == 0) {
    checks->Ok("doorbells", "the kernel keeps descriptors off them");
  } else {
    checks->Warn("doorbells", "the kernel cannot keep descriptors off them",
                 "Linux 6.16 can; until then a peer that sends some loses its channels");
  }
}

// weftctl's own, which are weftd's as well unless a service manager sets them.
void CheckLimits(Checks* checks) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  const std::string detail = absl::StrCat(files.rlim_cur, " open files here");
  if (files.rlim_cur >= kFilesMin || files.rlim_max >= kFilesMin) {
    checks->Ok("limits", detail);
  } else {
    checks->Warn("limits", detail, absl::StrCat("start weftd with LimitNOFILE=", kFilesMin, " or more"));
  }
}

void CheckHosts(const Global& global, Checks* checks) {
  const absl::StatusOr<Answer> hosts = AskOnce(global.AdminSocket(), api::Query::HOSTS);
  if (!hosts.ok()) return checks->Failed("hosts", std::string(hosts.status().message()), "");
  std::vector<std::string> silent;
  std::size_t attached = 0;
  for (const api::Item& item : hosts->items) {
    if (TextOf(item, "counters") == "not answered") silent.push_back(TextOf(item, "host"));
    attached += TextOf(item, "engine") == "itself" ? 0 : 1;  // Of the node, not of a tenant
  }
  if (attached == 0 && silent.empty()) {
    checks->Warn("hosts", "none is attached", "start weft-host, or a process with libweft");
  } else if (!silent.empty()) {
    checks->Failed("hosts", absl::StrCat("no answer from ", absl::StrJoin(silent, ", ")),
                   "a stopped or overloaded process; weftd cuts it off at the next change");
  } else {
    checks->Ok("hosts", absl::StrCat(attached, " attached, all answer"));
  }
}

void CheckFunctions(const Global& global, Checks* checks) {
  const absl::StatusOr<Answer> functions = AskOnce(global.AdminSocket(), api::Query::FUNCTIONS);
  if (!functions.ok()) return checks->Failed("functions", std::string(functions.status().message()), "");
  std::vector<std::string> without;
  for (const api::Item& item : functions->items) {
    // `ready` counts this node's hosts.
    if (TextOf(item, "ready") == "0" && TextOf(item, "state") != "on other nodes")
      without.push_back(TextOf(item, "function"));
  }
  if (without.empty()) {
    checks->Ok("functions", absl::StrCat(functions->items.size(), " known, each can be called"));
  } else {
    checks->Failed("functions", absl::StrCat("no ready host: ", absl::StrJoin(without, ", ")),
                   "`weftctl get functions` says why");
  }
}

// Of the other nodes: which of them calls can go to. They may be down for reasons of their own.
void CheckNodes(const Answer& nodes, Checks* checks) {
  std::vector<std::string> away;
  std::size_t others = 0, limited = 0;
  for (const api::Item& item : nodes.items) {
    const std::string state = TextOf(item, "state"), problem = TextOf(item, "problem");
    if (state == "here") continue;
    ++others;
    limited += state == "reachable" && !problem.empty() ? 1 : 0;
    if (state != "reachable" || !problem.empty())
      away.push_back(absl::StrCat(TextOf(item, "node"), ": ", problem.empty() ? state : problem));
  }
  if (others == 0) return;
  if (away.empty()) {
    checks->Ok("nodes", absl::StrCat(others, others == 1 ? " other" : " others", ", reachable"));
  } else {
    const std::size_t count = away.size();
    if (count > kNodesNamedMax) away.resize(kNodesNamedMax);
    checks->Warn("nodes",
                 absl::StrCat(count, " of ", others,
                              limited == 0 ? " not reachable: " : " not reachable, or not well: ",
                              absl::StrJoin(away, "; "), count > kNodesNamedMax ? "; ..." : ""),
                 "`weftctl get nodes` lists all; see docs/identity.md");
  }
}

// By which this node proves to others who it is.
void CheckCertificate(const api::Item& agent, Checks* checks) {
  const std::string until = TextOf(agent, "certificate_until"),
                    problem = TextOf(agent, "certificate_problem");
  if (until.empty()) return;
  const std::string detail = absl::StrCat(TextOf(agent, "identity"), " until ", until);
  absl::Time end;
  std::string error;
  if (absl::ParseTime("%Y-%m-%d %H:%M:%S UTC", until, &end, &error) && end <= absl::Now()) {
    checks->Failed("certificate", absl::StrCat(detail, ": it has ended"), "no other node can be reached");
  } else if (!problem.empty()) {
    checks->Warn("certificate", absl::StrCat(detail, "; its files now: ", problem),
                 "the one that was read before stays in force");
  } else {
    checks->Ok("certificate", detail);
  }
}

// Where AF_XDP was asked for and is not used, the first of the reasons says why.
void CheckPacketPort(const api::Item& agent, Checks* checks) {
  const std::string port = TextOf(agent, "packet_port"), why = TextOf(agent, "packet_port_why");
  if (port.empty()) return;
  constexpr char kSlower[] = "packets take the kernel's way, which is slower";
  if (absl::StartsWith(why, "af_xdp: no (")) {
    return checks->Warn("packet port", absl::StrCat(port, "; ", why.substr(0, why.find("); ") + 1)), kSlower);
  }
  // That was the first worker; others have queues of their own.
  const std::string mark = "; fell back: ";
  bool all = true;
  for (const api::Item::Field& field : agent.fields()) {
    if (!absl::StartsWith(field.name(), "worker_")) continue;
    const std::vector<std::string> parts = absl::StrSplit(field.text(), absl::MaxSplits(mark, 1));
    if (parts.size() == 1) continue;
    all = false;
    checks->Warn("packet port",
                 absl::StrCat(field.name(), ": ", parts[0].substr(0, parts[0].find(';')), "; af_xdp: no (",
                              parts[1].substr(0, parts[1].find("; ")), ")"),
                 kSlower);
  }
  if (all) checks->Ok("packet port", port);
}

// An XDP program that has not been told of the keys in use drops all packets of other nodes, or, where it has
// never been told of any, leaves them to the kernel.
void CheckSteer(const Answer& control, const api::Item& agent, const Answer& nodes, Checks* checks) {
  const bool keys = std::any_of(nodes.items.begin(), nodes.items.end(), [](const api::Item& node) {
    return absl::StartsWith(TextOf(node, "keys"), "epoch");
  });
  const std::string agent_port = TextOf(agent, "packet_port");
  for (const api::Item& item : control.items) {
    const std::string interface = TextOf(item, "steer");
    if (interface.empty()) continue;
    const bool ours = absl::EndsWith(agent_port, absl::StrCat(":", TextOf(item, "port")));
    if (keys && ours && TextOf(item, "keys") == "0") {
      const bool drops = TextOf(item, "unknown_keys") == "dropped";
      checks->Failed("steer",
                     absl::StrCat("the program on ", interface, " knows no key of this node and ",
                                  drops ? "drops the packets of other nodes"
                                        : "leaves the packets of other nodes to the kernel"),
                     absl::StrCat("`interface: ", interface,
                                  "` in weftd.yaml; weft-control's --agent-user must be weftd's user"));
      continue;
    }
    const std::string mode = TextOf(item, "mode"), port = TextOf(item, "port");
    const std::string detail = absl::StrCat(interface, ", ", mode, ", port ", port);
    if (!ours && !agent_port.empty()) {
      checks->Warn(
          "steer", absl::StrCat(detail, "; weftd's: ", agent_port),
          "--port of weft-control must be that of `listen`: packets take the kernel's way, which is slower");
    } else if (const std::string problem = TextOf(item, "mode_problem"); !problem.empty()) {
      checks->Warn("steer", detail, problem);
    } else {
      checks->Ok("steer", detail);
    }
  }
}

// `agent`: null where it did not answer, which is its own line's matter.
void CheckControl(const Answer& control, const Answer* agent, Checks* checks) {
  if (control.items.empty()) return;
  const api::Item& self = control.items[0];
  const std::string link = TextOf(self, "agent");
  checks->Ok("control",
             absl::StrCat("version ", TextOf(self, "version"), ", watches ", TextOf(self, "source")));
  if (link != "connected") {
    checks->Failed("control to agent", absl::StrCat(link, " ", TextOf(self, "problem")),
                   agent == nullptr ? "weftd does not answer, see `agent`"
                                    : "the user of weft-control must be control_user of weftd.yaml");
  } else if (const uint64_t agent_generation = agent == nullptr ? 0 : agent->generation;
             TextOf(self, "generation") != absl::StrCat(agent_generation)) {
    checks->Failed(
        "generation",
        absl::StrCat("control sent ", TextOf(self, "generation"), ", the agent is at ", agent_generation),
        "a placement may still load; else see the log of weftd");
  } else {
    checks->Ok("generation", absl::StrCat(agent_generation, ", in step"));
  }
  for (const api::Item& item : control.items) {
    const std::string file = TextOf(item, "file");
    if (!file.empty() && TextOf(item, "state") != "current") {
      checks->Failed(
          "mesh file", TextOf(item, "error").empty() ? file : TextOf(item, "error"),
          file.front() == '/' ? absl::StrCat("weftctl validate ", file) : "`weftctl status` says more");
    }
    const std::string source = TextOf(item, "watch");
    if (!source.empty() && TextOf(item, "state") != "synced") {
      checks->Warn("source", absl::StrCat(source, ": ", TextOf(item, "state"), " ", TextOf(item, "error")),
                   "what it said last stays in force");
    }
  }
}

// Calls do not need what a daemon keeps on disk; its next start does.
void CheckState(const char* program, const api::Item& self, Checks* checks) {
  const std::string problem = TextOf(self, "state_problem");
  if (problem.empty()) return;
  checks->Warn("state", absl::StrCat(program, ": ", problem),
               "at its next start it would begin with what it saved before");
}

// Where a socket is not open to this user its program may be well: the detail says who may ask.
std::string HintOf(const absl::Status& status, const char* hint) {
  return absl::IsPermissionDenied(status) ? "" : hint;
}

}  // namespace

int RunCheck(const Global& global) {
  Checks checks;
  const absl::StatusOr<Answer> agent = AskOnce(global.AdminSocket(), api::Query::STATUS);
  if (agent.ok() && !agent->items.empty()) {
    checks.Ok("agent", absl::StrCat("node ", TextOf(agent->items[0], "node"), ", version ",
                                    TextOf(agent->items[0], "version")));
  } else {
    checks.Failed("agent", std::string(agent.status().message()),
                  HintOf(agent.status(), "systemctl status weftd"));
  }
  const absl::StatusOr<Answer> control = AskOnce(global.ControlSocket(), api::Query::STATUS);
  if (control.ok()) {
    CheckControl(*control, agent.ok() ? &*agent : nullptr, &checks);
    if (!control->items.empty()) CheckState("weft-control", control->items[0], &checks);
  } else {
    checks.Failed("control", std::string(control.status().message()),
                  HintOf(control.status(), "systemctl status weft-control; calls go on meanwhile"));
  }
  if (agent.ok()) {
    CheckHosts(global, &checks);
    CheckFunctions(global, &checks);
  }
  if (agent.ok() && !agent->items.empty()) {
    CheckState("weftd", agent->items[0], &checks);
    CheckCertificate(agent->items[0], &checks);
    CheckPacketPort(agent->items[0], &checks);
    const absl::StatusOr<Answer> nodes = AskOnce(global.AdminSocket(), api::Query::NODES);
    if (nodes.ok()) CheckNodes(*nodes, &checks);
    if (nodes.ok() && control.ok()) CheckSteer(*control, agent->items[0], *nodes, &checks);
  }
  CheckKernel(&checks);
  CheckLimits(&checks);
  Print(global, "checks", agent.ok() ? agent->generation : 0, checks.items());
  return checks.failed() ? 1 : 0;
}

}  // namespace weft::ctl
