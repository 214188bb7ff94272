// SPDX-License-Identifier: Apache-2.0
// weft-host without its command line: the session with the agent, the functions that it serves of its own
// accord or places here, the loop, and the way out. One thread.
#ifndef WEFT_DATAPLANE_HOST_HOST_PROGRAM_H_
#define WEFT_DATAPLANE_HOST_HOST_PROGRAM_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/core_sharing.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/notify.h"
#include "dataplane/client/session.h"
#include "dataplane/engine/inside_engine.h"
#include "dataplane/host/host.h"
#include "dataplane/host/loader.h"
#include "dataplane/host/mesh_bridge.h"
#include "dataplane/host/module_cache.h"
#include "dataplane/host/runner.h"

namespace weft::host {

struct HostProgramOptions {
  struct Served {
    std::string function;
    std::string path;
    uint32_t number = 0;
    bool keep = false;
  };
  std::string name;
  std::string run_dir = "/run/weft";
  std::string cache_dir;  // Empty: modules are not cached.
  std::string version;
  std::vector<Served> serve;
  bool inside_engine = false;  // Ask the agent for a node engine of this host's own.
  uint64_t poll_time_ns = kCalibratedPollTime;
  uint32_t waiting_calls_max = 0;  // EngineOptions::fibers_max; 0: the engine's own default.
  UniqueFd stop;                   // Readable when the program is to drain and end; may be invalid.
  Notifier notifier;
};

class HostProgram final : public SessionEvents, public GuestLog {
 public:
  // Loads every module of options.serve: a host that cannot serve what it was told to does not start.
  static absl::StatusOr<std::unique_ptr<HostProgram>> Create(HostProgramOptions options);
  ~HostProgram() override;

  // Serves until `stop`, a drain that the agent asked for, or the agent's refusal, which is the error.
  absl::Status Run();

  // ---- SessionEvents.
  void OnAttached() override;
  void OnAway(const absl::Status& why) override;
  void OnPlace(const api::Place& place, UniqueFd module) override;
  void OnUnplace(const std::string& function) override;
  void OnRunOnce(const api::RunOnce& run, UniqueFd module) override;
  void OnDrain() override;
  void OnInsideEngine(const api::InsideEngine& given, UniqueFd agent, UniqueFd socket,
                      UniqueFd twin) override;
  void OnXdpSocket(const api::XdpSocket& given, std::vector<UniqueFd> fds) override;
  std::vector<std::string> Loaded() override;
  // Guests are not told who calls.
  bool AddHeldCallers(absl::flat_hash_set<const std::string*>* held) override { return true; }
  void AddCounters(const std::function<void(absl::string_view, uint64_t)>& add) override;
  std::vector<api::FunctionStats> Functions() override;

  // ---- GuestLog.
  void Line(absl::string_view function, uint32_t level, absl::string_view text) override;

 private:
  // A function that the agent placed here.
  struct Placed {
    std::string name;
    Function* function = nullptr;  // Null while its module is being loaded.
    Sha256 hash = {};
  };
  // A function that ends: served until nothing has come for a while, since what was sent before its routes
  // led elsewhere is still in the rings.
  struct Leaving {
    Function* function = nullptr;
    uint64_t calls_seen = 0;
    uint64_t quiet_since_ns = 0;
    bool report = false;    // Tell the agent when it is gone.
    bool replaced = false;  // Another instance of the function serves in its place.
  };

  explicit HostProgram(HostProgramOptions options) : options_(std::move(options)) {}
  absl::Status Prepare();
  void OnXdpLost();
  // Polls channels and the engine inside until `wake_ns`, or until there is something; sleeps where nothing
  // came for the poll time.
  void WaitWithEngine(uint64_t wake_ns);
  absl::Status ServeOwn(const HostProgramOptions::Served& served);
  // Puts into service what has been loaded, once no guest is on the stack.
  void TakeLoaded();
  void FinishLoad(Loader::Done done);
  void Leave(Function& function, bool report, bool replaced);
  void LeaveAll();
  // Removes what has become quiet.
  void RunLeaving(bool busy);
  bool Ended() const { return ending_ && leaving_.empty() && gone_ns_ != 0; }

  HostProgramOptions options_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ModuleCache> cache_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<MeshBridge> bridge_;
  std::unique_ptr<Host> host_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Runner> runner_;  // Since the first run
  std::unique_ptr<engine::InsideEngine> inside_;
  uint64_t xdp_number_ = 0;  // Of its AF_XDP socket, as the agent counts them.
  uint64_t worked_ns_ = 0;   // With an engine inside: when there was last something to do, and
  uint32_t idle_turns_ = 0;  // turns since.
  CoreSharing sharing_;
  bool loaded_waits_ = false;  // For TakeLoaded().
  std::vector<Placed> placed_;
  std::vector<Leaving> leaving_;
  uint64_t leaving_due_ns_ = 0;  // When they are looked at next.
  bool ending_ = false;          // Everything leaves, then Run() returns.
  bool answer_drain_ = false;    // The agent asked for it.
  uint64_t end_by_ns_ = 0;       // Whatever still runs then is given up.
  uint64_t gone_ns_ = 0;
  uint64_t log_window_ns_ = 0;  // Bound of guests' lines in a second.
  uint32_t log_lines_ = 0;
  uint64_t log_dropped_ = 0;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_HOST_PROGRAM_H_
