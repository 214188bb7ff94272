// SPDX-License-Identifier: Apache-2.0
// A process's membership in the mesh: one session with the agent of its node and one channel to each host
// that it exchanges calls with. weft/client.h calls functions over it, weft/server.h serves them; both may
// share one.
//
// Threads. A Mesh, with its Clients, Server and calls, is used by one thread at a time; a process that wants
// several threads to call makes a Mesh for each. All work happens on the thread that is inside a call of
// this library. A keeper thread of the Mesh's own answers the agent while no thread is inside (or a
// handler runs long), so that routes and permissions stay current; it runs no code of the user's.
//
// Memory. What a Mesh needs is allocated when it is made, when a peer is met, and for messages beyond 64 KiB.
// The path of smaller calls allocates nothing.
//
// When the agent goes away, calls go on over the open channels; the Mesh attaches again by itself.
#ifndef WEFT_MESH_H_
#define WEFT_MESH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace weft {

class MeshImpl;

struct MeshOptions {
  // Holds the agent's sockets.
  std::string run_dir = "/run/weft";
  // The name under which the agent's configuration admits this process. Empty: a client that serves nothing.
  std::string host = {};
  // Namespace to call as. Only with `admin`; else the agent's configuration says.
  std::string call_as = {};
  // Attach through admin.sock, as weftctl does.
  bool admin = false;
  // How long a waiting thread polls before it sleeps. Negative: what a wake costs on this machine, measured
  // at the first use in a process. Zero: sleeps at once.
  absl::Duration poll_time = absl::Nanoseconds(-1);
  // Calls under way at a time, made by this process. Further ones fail with RESOURCE_EXHAUSTED or wait.
  uint32_t calls_max = 4096;
};

class Mesh {
 public:
  // Makes a Mesh that is not attached yet. Register functions (weft/server.h) first, then Attach. Blocks some
  // ms in the first use of a process, to measure the machine.
  static absl::StatusOr<std::unique_ptr<Mesh>> Create(const MeshOptions& options);
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  // Introduces this process to the agent; blocks until it is admitted. Waits for an agent that is not there
  // yet. PERMISSION_DENIED, ALREADY_EXISTS …: the agent's refusal, with its reason; DEADLINE_EXCEEDED after
  // `timeout`, with what was last in the way.
  absl::Status Attach(absl::Duration timeout = absl::Seconds(10));

  // Names as the agent told them last; empty before Attach.
  std::string node() const;
  std::string host() const;
  std::string call_as() const;
  // The session with the agent is up right now. Calls work on without it.
  bool attached() const;

  // Every counter of this process's call layer, by name: what was sent, received, refused, dropped and
  // retried.
  std::vector<std::pair<std::string, uint64_t>> Counters() const;
  // The value of one of them; 0 of an unknown name.
  uint64_t Counter(absl::string_view name) const;

  MeshImpl& impl() { return *impl_; }

 private:
  explicit Mesh(std::unique_ptr<MeshImpl> impl);

  std::unique_ptr<MeshImpl> impl_;
};

}  // namespace weft

#endif  // WEFT_MESH_H_
