// SPDX-License-Identifier: Apache-2.0
// The thread that answers the agent while no user's thread is inside the library. Sleeps in poll(2)
// otherwise; makes no periodic wakes.
#ifndef WEFT_DATAPLANE_CLIENT_KEEPER_H_
#define WEFT_DATAPLANE_CLIENT_KEEPER_H_

#include <atomic>
#include <functional>
#include <thread>

#include "dataplane/client/ownership.h"
#include "dataplane/client/session.h"

namespace weft {

class Keeper {
 public:
  // `serve` runs while the keeper owns the session; it must not block. All outlive the keeper.
  Keeper(Session& session, Ownership& ownership, std::function<void()> serve);
  // Ends and joins the thread. The caller must not be inside.
  ~Keeper();

 private:
  void Run();

  Session& session_;
  Ownership& ownership_;
  std::function<void()> serve_;
  std::atomic<bool> stop_{false};
  UniqueFd stop_fd_;
  std::thread thread_;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CLIENT_KEEPER_H_
