// SPDX-License-Identifier: Apache-2.0
// What all sources of weft-control have in common: each is driven by the daemon's poll loop, and yields what
// it says by origin: as a whole, or as the difference to what it said last. One thread.
#ifndef WEFT_CONTROL_SOURCE_SOURCE_H_
#define WEFT_CONTROL_SOURCE_SOURCE_H_

#include <poll.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/model/mesh_state.h"
#include "control/model/offer.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/run.pb.h"

namespace weft::control {

// An origin says something else, or nothing any more.
struct SourceChange {
  std::string origin;
  std::string cause;      // What changed, for the record: "mesh.yaml", "etcd revision 17"
  uint64_t event_ns = 0;  // CLOCK_MONOTONIC: when the event arrived here. 0: it is not to be timed.
  bool gone = false;
  std::vector<std::string>
      errors;         // Not empty: it cannot be read, and there is no offer. Lines ready to print.
  SourceOffer offer;  // Unless gone
};

// How a source stands, for `weftctl status`.
struct SourceHealth {
  bool synced = false;         // It has said all that it had at some time, and its watch stands.
  uint64_t events = 0;         // Taken since the start.
  uint64_t last_event_ns = 0;  // CLOCK_MONOTONIC; 0: none yet.
  uint64_t revision = 0;       // Of the source's own count; 0 where it has none.
  uint64_t refused = 0;        // Objects that it holds now and that cannot be read.
  uint64_t errors = 0;         // Since the start: losses of the source, and objects that could not be read.
  uint64_t lost_ns = 0;        // CLOCK_MONOTONIC since when it is not synced; 0: it is, or never was.
  std::string problem;         // What keeps it from being synced, or the first refused object.
};

class Source {
 public:
  virtual ~Source() = default;

  virtual void AddPollEntries(std::vector<pollfd>* entries) const = 0;
  virtual std::vector<SourceChange> OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) = 0;
  // CLOCK_MONOTONIC time at which OnTime() wants to be called; 0: never.
  virtual uint64_t wake_ns() const = 0;
  virtual std::vector<SourceChange> OnTime(uint64_t now_ns) = 0;

  // Whether `origin` is one of this source's, so that another run of it may have said it.
  virtual bool Owns(absl::string_view origin) const = 0;
  // Whether it has said all before the loop begins; else what an earlier run said stays until this one
  // speaks.
  virtual bool ReadsAtStart() const = 0;
  // The agent is connected, and says which node it is of.
  virtual void OnAgent(const std::string& /*node*/) {}
  // The agent has acknowledged a generation, in which these placements on its node failed, as in
  // "vision/classify on host c: wrong hash". `all`: what this source has said is part of it, as far as it is
  // part of `mesh`, the mesh as it is now.
  virtual void OnProgrammed(const MeshState& /*mesh*/, const std::vector<std::string>& /*failed*/,
                            bool /*all*/) {}
  // The connection to the agent is gone, and with it whatever it was asked to run once.
  virtual void OnAgentLost() {}
  // What the agent is to run once, since the last call; each is answered by OnRunEnded(), or by
  // OnAgentLost().
  virtual std::vector<api::RunOnce> TakeRuns() { return {}; }
  virtual void OnRunEnded(const api::RunEnded& /*ended*/) {}
  // Functions whose counters the agent is asked for, since the last call; OnFunctions() follows, unless the
  // connection goes.
  virtual std::vector<std::string> TakeAsked() { return {}; }
  // Rows of functions, those that somebody asked for.
  virtual void OnFunctions(const std::vector<api::Item>& /*functions*/) {}
  // What it is about to say, as far as it knows by now (Model::Prepare), since the last call.
  virtual std::vector<SourceOffer> TakePrepared() { return {}; }
  // What an operator should read in the log, since the last call.
  virtual std::vector<std::string> TakeNotes() = 0;
  // What it is called where it is counted: "/etc/weft/mesh.d", "etcd:/weft/".
  virtual std::string Name() const = 0;
  // "/etc/weft/mesh.d (12 files)"
  virtual std::string Describe() const = 0;
  virtual SourceHealth Health() const = 0;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_SOURCE_H_
