// SPDX-License-Identifier: Apache-2.0
// The public faces of MeshImpl: weft/mesh.h and weft/client.h.
#include "weft/client.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"
#include "dataplane/client/mesh_impl.h"

namespace weft {
namespace {

uint64_t DeadlineIn(absl::Duration timeout) {
  return NowNs() + static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(timeout)));
}

}  // namespace

Mesh::Mesh(std::unique_ptr<MeshImpl> impl) : impl_(std::move(impl)) {}
Mesh::~Mesh() = default;

absl::StatusOr<std::unique_ptr<Mesh>> Mesh::Create(const MeshOptions& options) {
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<MeshImpl> impl, MeshImpl::Create(options));
  return std::unique_ptr<Mesh>(new Mesh(std::move(impl)));
}

absl::Status Mesh::Attach(absl::Duration timeout) {
  MeshImpl::Inside inside(*impl_);
  return impl_->Attach(timeout);
}

// Copies: the keeper may hear of others at any time.
std::string Mesh::node() const {
  MeshImpl::Inside inside(*impl_);
  return impl_->session().welcome().node();
}
std::string Mesh::host() const {
  MeshImpl::Inside inside(*impl_);
  return impl_->session().welcome().host();
}
std::string Mesh::call_as() const {
  MeshImpl::Inside inside(*impl_);
  return impl_->session().welcome().call_as();
}

bool Mesh::attached() const {
  MeshImpl::Inside inside(*impl_);
  return impl_->session().attached();
}

std::vector<std::pair<std::string, uint64_t>> Mesh::Counters() const {
  MeshImpl::Inside inside(*impl_);
  std::vector<std::pair<std::string, uint64_t>> counters;
  impl_->core().counters().ForEach(
      [&](absl::string_view name, uint64_t value) { counters.emplace_back(name, value); });
  const PollerCounters& poller = impl_->session().poller().counters();
  counters.emplace_back("sleeps", poller.sleeps);
  counters.emplace_back("rings_received", poller.rings_received);
  return counters;
}

uint64_t Mesh::Counter(absl::string_view name) const {
  for (const auto& [counter, value] : Counters()) {
    if (counter == name) return value;
  }
  return 0;
}

Client::Client(Mesh& mesh) : impl_(mesh.impl()) {}

absl::StatusOr<Function> Client::ResolveLazily(absl::string_view name, absl::string_view caller) {
  MeshImpl::Inside inside(impl_);
  WEFT_ASSIGN_OR_RETURN(RouteEntry * route, impl_.Resolve(name, caller));
  return Function(route);
}

absl::StatusOr<Function> Client::Resolve(absl::string_view name, absl::string_view caller,
                                         absl::Duration timeout) {
  MeshImpl::Inside inside(impl_);
  WEFT_ASSIGN_OR_RETURN(RouteEntry * route, impl_.Resolve(name, caller));
  WEFT_RETURN_IF_ERROR(impl_.WaitForRoute(*route, DeadlineIn(timeout)));
  if (route->targets.empty()) return absl::Status(route->code, route->reason);
  return Function(route);
}

bool Client::Forget(absl::string_view name, absl::string_view caller) {
  MeshImpl::Inside inside(impl_);
  return impl_.Forget(name, caller);
}

absl::Status Client::Send(Function function, std::span<const std::byte> message, const CallOptions& options) {
  return SendBatch(function, std::span(&message, 1), options);
}

absl::Status Client::SendBatch(Function function, std::span<const std::span<const std::byte>> messages,
                               const CallOptions& options, std::size_t* sent) {
  MeshImpl::Inside inside(impl_);
  RouteEntry& route = *function.route();
  std::size_t count = 0;
  absl::Status status;
  if (!route.known) [[unlikely]]
    status = impl_.WaitForRoute(
        route, DeadlineIn(options.timeout > absl::ZeroDuration() ? options.timeout : absl::Seconds(1)));
  if (status.ok()) status = impl_.Send(route, messages, options, &count);
  impl_.core().Publish();
  if (sent != nullptr) *sent = count;
  return status;
}

absl::StatusOr<CallId> Client::CallAsync(Function function, std::span<const std::byte> request,
                                         std::span<std::byte> response, Callback callback, void* context,
                                         const CallOptions& options) {
  MeshImpl::Inside inside(impl_);
  return impl_.CallAsync(*function.route(), request, response, callback, context, options);
}

absl::StatusOr<CallId> Client::CallAsync(Function function, std::span<const std::byte> request,
                                         std::span<std::byte> response,
                                         std::function<void(const CallResult&)> callback,
                                         const CallOptions& options) {
  auto held = std::make_unique<MeshImpl::OwnedCallback>(std::move(callback));
  absl::StatusOr<CallId> call =
      CallAsync(function, request, response, MeshImpl::RunOwned, held.get(), options);
  if (call.ok()) static_cast<void>(held.release());  // The callback deletes it, or the Mesh.
  return call;
}

bool Client::Cancel(CallId call) {
  MeshImpl::Inside inside(impl_);
  return impl_.Cancel(call);
}

void Client::CallBatch(std::span<BatchCall> calls, const CallOptions& options) {
  MeshImpl::Inside inside(impl_);
  impl_.CallBatch(calls, options);
}

void Client::Flush() {
  MeshImpl::Inside inside(impl_);
  impl_.core().Publish();
}

int Client::Poll() {
  MeshImpl::Inside inside(impl_);
  return impl_.Turn();
}

int Client::Wait(absl::Duration timeout) {
  MeshImpl::Inside inside(impl_);
  const uint64_t deadline_ns = DeadlineIn(timeout);
  for (;;) {
    const int ran = impl_.WaitTurn(deadline_ns);
    if (ran != 0 || NowNs() >= deadline_ns) return ran;
  }
}

}  // namespace weft
