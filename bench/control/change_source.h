// SPDX-License-Identifier: Apache-2.0
// A source of suite `control`, as the real program: how it is filled, how weft-control and the bare watcher
// find it, and how one event is made there.
#ifndef WEFT_BENCH_CONTROL_CHANGE_SOURCE_H_
#define WEFT_BENCH_CONTROL_CHANGE_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace weft::bench {

// How many functions, each on kEndpointsPerFunction of kNodes nodes, of which the first is the bench's own.
inline constexpr int kEndpointsPerFunction = 10;
inline constexpr int kNodes = 100;

// Where endpoint `index` of function `function` is: on node number 0 to kNodes - 1.
inline int NodeOf(int function, int index) {
  return (function + index * (kNodes / kEndpointsPerFunction)) % kNodes;
}
// "bench", "n01", …
std::string NodeName(int node);
// "f00017"
std::string FunctionName(int function);

// How the number in a change's cause and at the bare watcher tells which event it was.
enum class Numbering {
  kBySource,  // It is what Write() returned; a change covers all up to its own.
  // Causes have none: a change covers what was written before its event. At the bare watcher it is the
  // function.
  kByTime,
  kByCount,  // Events are counted in the order of what Write() returned, from the first of the run on.
};

// Makes events, on a thread of its own; several of them at once.
class ChangeWriter {
 public:
  virtual ~ChangeWriter() = default;
  // Changes one endpoint, as event number `event` of the run has it; returns once the source has taken it,
  // with the number that the source gives it.
  virtual absl::StatusOr<uint64_t> Write(uint64_t event) = 0;
};

class ChangeSource {
 public:
  virtual ~ChangeSource() = default;

  // "etcd": rows are control/etcd_sync, …
  virtual std::string name() const = 0;
  virtual Numbering numbering() const = 0;
  // weft-control.yaml, without its version.
  virtual std::string Settings() const = 0;
  // Of weft-bench-watch, behind its "-list" or "-watch".
  virtual std::vector<std::string> WatchArguments() const = 0;
  // Makes `functions` functions and their endpoints there; `progress` is told how far it is.
  virtual absl::Status Fill(int functions, const std::function<void(const std::string&)>& progress) = 0;
  // Whether weft-control reads it as a list that a bare program can read, too.
  virtual bool HasList() const { return true; }
  // Says all to a weft-control that has just begun, where the source keeps nothing for it; `taken` is how
  // many messages that has taken so far, and may be asked often.
  virtual absl::Status Tell(const std::function<uint64_t()>& /*taken*/) { return absl::OkStatus(); }
  virtual absl::StatusOr<std::unique_ptr<ChangeWriter>> NewWriter() = 0;
};

// Starts an etcd of its own. NOT_FOUND where this machine has none.
absl::StatusOr<std::unique_ptr<ChangeSource>> NewEtcdChangeSource();

// Starts an API server and its etcd. NOT_FOUND where this machine has none.
absl::StatusOr<std::unique_ptr<ChangeSource>> NewKubeChangeSource();

// Starts a broker, and the lists of a manager. NOT_FOUND where this machine has none.
absl::StatusOr<std::unique_ptr<ChangeSource>> NewMqttChangeSource();

// Makes a directory.
absl::StatusOr<std::unique_ptr<ChangeSource>> NewFileChangeSource();

// One event of a run: which endpoint, and what becomes of it. Two in four change an endpoint's weight, one
// takes an endpoint away, and one brings back what an earlier one took. Any two events of the same function
// are 32 or more apart, so that writers beside each other cannot swap them.
struct ChangeEvent {
  enum class Kind : uint8_t { kWeight, kRemove, kRestore };
  Kind kind = Kind::kWeight;
  int function = 0;
  int endpoint = 0;
  int weight = 100;
  int pass = 0;  // Over all functions, from 0
};
ChangeEvent EventOf(uint64_t event, int functions);

}  // namespace weft::bench

#endif  // WEFT_BENCH_CONTROL_CHANGE_SOURCE_H_
