// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/chunked_modules.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::control {

void ChunkedModules::Clear(Transfer* transfer) {
  bytes_ -= transfer->bytes;
  *transfer = {};
}

void ChunkedModules::Forget(const std::string& image) {
  const auto found = wanted_.find(image);
  if (found == wanted_.end()) return;
  Clear(&found->second);
  wanted_.erase(found);
}

std::vector<std::string> ChunkedModules::Silent() const {
  std::vector<std::string> silent;
  for (const auto& [image, transfer] : wanted_) {
    if (transfer.total == 0) silent.push_back(image);
  }
  return silent;
}

void ChunkedModules::BeginAnew() {
  for (auto& [image, transfer] : wanted_) Clear(&transfer);
}

absl::StatusOr<std::string> ChunkedModules::Take(const std::string& image, uint64_t index, uint64_t total,
                                                 std::string bytes) {
  const auto found = wanted_.find(image);
  if (found == wanted_.end()) return std::string();
  const auto fail = [&](absl::Status status) {
    Forget(image);
    return status;
  };
  if (total == 0 || total > kChunksMax || index >= total) {
    return fail(absl::InvalidArgumentError(absl::StrCat("part ", index, " of ", total, " is none")));
  }
  Transfer& transfer = found->second;
  const auto known = transfer.parts.find(index);
  if (transfer.total != total || (known != transfer.parts.end() && known->second != bytes)) Clear(&transfer);
  transfer.total = total;
  if (!transfer.parts.contains(index)) {
    if (bytes.size() > bytes_max_ - bytes_) {
      return fail(absl::ResourceExhaustedError(
          absl::StrCat("the modules under way have more than ", bytes_max_, " bytes")));
    }
    transfer.bytes += bytes.size();
    bytes_ += bytes.size();
    transfer.parts.emplace(index, std::move(bytes));
  }
  if (transfer.parts.size() < total) return std::string();
  std::string module;
  module.reserve(transfer.bytes);
  for (const auto& [at, part] : transfer.parts) module += part;
  Forget(image);
  if (module.empty()) return absl::InvalidArgumentError("the module is empty");
  return module;
}

}  // namespace weft::control
