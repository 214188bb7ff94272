// SPDX-License-Identifier: Apache-2.0
// An agent's admin socket with a will of its own: a real Unix socket that takes generations as weftd does, or
// refuses, dies or falls silent when a test wants it to. Nothing happens on a thread of its own: Pump()
// serves.
#ifndef WEFT_TESTS_CONTROL_PUBLISH_SCRIPTED_AGENT_H_
#define WEFT_TESTS_CONTROL_PUBLISH_SCRIPTED_AGENT_H_

#include <optional>
#include <string>
#include <vector>

#include "dataplane/api/admin.pb.h"
#include "dataplane/base/fd.h"
#include "tests/control/model/typed_mesh.h"

namespace weft::control {

class ScriptedAgent {
 public:
  explicit ScriptedAgent(std::string path) : path_(std::move(path)) {}

  // Nothing where it listens already.
  void Listen();
  // Closes everything. What was programmed stays, as weftd's routes.pb would have it.
  void Die();
  // Accepts, reads and answers all that is there, without waiting.
  void Pump();

  // The script; takes effect with the next message.
  bool acknowledge = true;
  bool read = true;          // False: leaves what comes in the socket.
  int die_after_parts = -1;  // Dies when so many parts of a generation have come.
  std::string refuse;        // Not empty: every Program is answered by Failed with this reason.
  std::string node = "n1";
  std::vector<std::string> cut_off;
  uint64_t at_ns = 0;  // When it says that a generation was in force

  // Acknowledges everything that was taken, where `acknowledge` was false.
  void AcknowledgeNow();
  void Send(const api::AdminReply& reply);

  // What it holds.
  TypedMesh state;
  uint64_t generation = 0;
  uint64_t held = 0;  // Where above `generation`: one that it took and has not acknowledged.
  // What it saw.
  std::vector<uint64_t> generations;
  std::vector<api::RunOnce> runs;
  int snapshots = 0;
  int parts = 0;
  int connections = 0;
  int refused = 0;

 private:
  void Take(const api::AdminRequest& request);
  void TakeProgram(const api::Program& part);

  std::string path_;
  UniqueFd listener_;
  UniqueFd client_;
  std::vector<api::Program> coming_;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_PUBLISH_SCRIPTED_AGENT_H_
