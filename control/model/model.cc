// SPDX-License-Identifier: Apache-2.0
#include "control/model/model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

std::vector<std::string> LinesOf(const std::vector<MeshError>& errors) {
  std::vector<std::string> lines;
  for (const MeshError& error : errors) lines.push_back(error.ToString());
  return lines;
}

}  // namespace

bool Model::Restore(std::vector<SourceMesh> meshes) {
  Offers offers;
  for (SourceMesh& mesh : meshes) {
    std::string origin = mesh.origin;
    offers.insert_or_assign(std::move(origin), std::move(mesh));
  }
  Merged merged = Try(offers);
  if (!merged.errors.empty()) return false;
  Accept(std::move(offers), std::move(merged.state));
  return true;
}

void Model::Offer(SourceMesh mesh) {
  std::string origin = mesh.origin;
  pending_.insert_or_assign(std::move(origin), std::move(mesh));
}

void Model::OfferUnreadable(const std::string& origin, std::vector<std::string> errors) {
  pending_.erase(origin);
  errors_[origin] = std::move(errors);
}

void Model::Withdraw(const std::string& origin) {
  if (accepted_.contains(origin)) {
    pending_.insert_or_assign(origin, std::nullopt);
  } else {
    pending_.erase(origin);
    errors_.erase(origin);
  }
}

Merged Model::Try(const Offers& offers) const {
  std::vector<const SourceMesh*> sources;
  for (const auto& [origin, mesh] : accepted_) {
    const auto offer = offers.find(origin);
    if (offer == offers.end()) sources.push_back(&mesh);
  }
  // What is offered comes last, so that an error names it rather than what it clashes with.
  for (const auto& [origin, mesh] : offers) {
    if (mesh.has_value()) sources.push_back(&*mesh);
  }
  Merged merged = Merge(sources);
  CheckShrink(offers, &merged);
  return merged;
}

void Model::CheckShrink(const Offers& offers, Merged* merged) const {
  if (allow_shrink_) return;
  for (const auto& [origin, mesh] : offers) {
    const auto old = accepted_.find(origin);
    if (old == accepted_.end() || old->second.SaysNothing()) continue;
    if (mesh.has_value() && (mesh->allow_shrink || !mesh->endpoints.empty())) continue;
    const bool says_nothing = !mesh.has_value() || mesh->SaysNothing();
    if (!says_nothing && old->second.endpoints.empty()) continue;
    // A file among others may go. One that is there and names no endpoint any more looks half-written, unless
    // another names them now.
    std::size_t lost = 0;
    for (const auto& said : old->second.endpoints) {
      lost += merged->state.endpoints.contains(KeyOf(said.value)) ? 0 : 1;
    }
    const bool all_lost = lost == old->second.endpoints.size();
    const bool nothing_left = merged->state.empty() || (lost > 0 && merged->state.endpoints.empty());
    const bool refused = mesh.has_value() ? all_lost : nothing_left;
    if (!refused) continue;
    merged->errors.push_back(
        {origin, Where{}, "",
         absl::StrCat(
             mesh.has_value() ? "names no endpoint any more" : "is gone", " and would take away ",
             lost == 0 ? "all that it said" : absl::StrCat("all of its ", lost, " endpoints"),
             "; if that is meant, say `allowShrink: true` in the file or start with --allow-shrink")});
  }
}

void Model::Accept(Offers offers, MeshState state) {
  for (auto& [origin, mesh] : offers) {
    errors_.erase(origin);
    pending_.erase(origin);
    if (mesh.has_value()) {
      accepted_.insert_or_assign(origin, *std::move(mesh));
    } else {
      accepted_.erase(origin);
    }
  }
  state_ = std::move(state);
}

Model::Outcome Model::Evaluate() {
  Outcome outcome;
  if (pending_.empty()) return outcome;
  MeshState before = state_;
  if (Merged all = Try(pending_); all.errors.empty()) {
    Accept(pending_, std::move(all.state));
  } else {
    // One bad file must not hold up the others. Ends, since each round but the last accepts at least one.
    for (bool progress = true; progress;) {
      progress = false;
      for (const auto& [origin, mesh] : Offers(pending_)) {
        Offers one;
        one.emplace(origin, mesh);
        Merged merged = Try(one);
        errors_[origin] = LinesOf(merged.errors);
        if (!merged.errors.empty()) continue;
        Accept(std::move(one), std::move(merged.state));
        progress = true;
      }
    }
    for (const auto& [origin, mesh] : pending_) {
      outcome.errors.insert(outcome.errors.end(), errors_[origin].begin(), errors_[origin].end());
    }
  }
  outcome.changed = !(before == state_);
  return outcome;
}

bool Model::ShrinkAllowed() const {
  return allow_shrink_ || std::any_of(accepted_.begin(), accepted_.end(),
                                      [](const auto& entry) { return entry.second.allow_shrink; });
}

std::vector<SourceStatus> Model::Sources() const {
  std::map<std::string, SourceStatus> all;
  for (const auto& [origin, mesh] : accepted_) {
    all[origin].accepted = true;
    all[origin].current = true;
  }
  for (const auto& [origin, mesh] : pending_) all[origin].current = false;
  for (const auto& [origin, errors] : errors_) {
    all[origin].current = false;
    all[origin].errors = errors;
  }
  std::vector<SourceStatus> result;
  for (auto& [origin, status] : all) {
    status.origin = origin;
    result.push_back(std::move(status));
  }
  return result;
}

}  // namespace weft::control
