// SPDX-License-Identifier: Apache-2.0
// Asks weftd over admin.sock, or weft-control over control.sock, and waits for the whole answer. Blocks, with
// a deadline. One thread.
#ifndef WEFT_TOOLS_WEFTCTL_ADMIN_CLIENT_H_
#define WEFT_TOOLS_WEFTCTL_ADMIN_CLIENT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/fd.h"

namespace weft::ctl {

struct Answer {
  uint64_t generation = 0;
  std::vector<api::Item> items;
};

class AdminClient {
 public:
  // The error names the socket and says what to do.
  static absl::StatusOr<AdminClient> Connect(const std::string& path);

  // Sends and collects all parts of the answer. What the other side refuses comes back as its code and
  // reason.
  absl::StatusOr<Answer> Ask(const api::AdminRequest& request, absl::Duration timeout);
  absl::StatusOr<Answer> Query(api::Query::Kind kind, absl::Duration timeout = absl::Seconds(5));
  // Changes of weft-control behind revision `after`, the oldest first, as many as one packet holds. A row's
  // first field is its revision.
  absl::StatusOr<Answer> Changes(uint64_t after, absl::Duration timeout = absl::Seconds(5));

 private:
  AdminClient(std::string path, UniqueFd socket) : path_(std::move(path)), socket_(std::move(socket)) {}

  std::string path_;
  UniqueFd socket_;
};

// What whoever listens at `socket` answers to one query, over a connection of its own.
absl::StatusOr<Answer> AskOnce(const std::string& socket, api::Query::Kind kind);

// The field of `item` called `name` as text; "" where there is none.
std::string TextOf(const api::Item& item, const std::string& name);
// The same of any value, as it is shown.
std::string ShownValue(const api::Item::Field& field);

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_ADMIN_CLIENT_H_
