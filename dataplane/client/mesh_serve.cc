// SPDX-License-Identifier: Apache-2.0
// MeshImpl: requests on their way to handlers, handlers, and their answers.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/status.h"
#include "dataplane/client/mesh_impl.h"

namespace weft {
namespace {

std::span<const std::byte> BytesOfText(absl::string_view text) {
  text = text.substr(0, kErrorTextBytesMax);
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

// Made in this file only.
inline ServerCall::ServerCall(MeshImpl& mesh, const Incoming& incoming, std::span<const std::byte> payload)
    : mesh_(mesh), incoming_(incoming), request_(payload) {
  // A hostile peer can repeat the id of a request under way, and so put one's flags beside another's payload.
  if ((incoming.flags & kFlagTrace) == 0 || payload.size() < kTraceBytes) [[likely]]
    return;
  trace_ = TraceContext::FromWire(payload.first<kTraceBytes>());
  request_ = payload.subspan(kTraceBytes);
}

std::byte* MeshImpl::OnRunBegin(const MessageRun& run) {
  if (ready_.size() >= kReadyMax) [[unlikely]]
    return nullptr;
  RequestBuffer* const buffer = pool_.Take(run.bytes + kRunMessagesMax);
  return buffer != nullptr ? buffer->payload() : nullptr;
}

void MeshImpl::OnRun(const Incoming& first, const MessageRun& run, std::byte* payload) {
  RequestBuffer* const buffer = RequestBuffer::Of(payload);
  CopyIncoming(first, buffer->incoming);
  buffer->bytes = run.count == 1 ? run.lengths[0] : run.bytes;  // One alone is an ordinary request.
  buffer->messages = buffer->unended = run.count;
  buffer->begun = buffer->next_at = 0;
  buffer->cancelled = false;
  std::memcpy(payload + run.bytes, run.lengths, kRunMessagesMax);
  ready_.Push(buffer);
}

void MeshImpl::OnRequestAbort(const Incoming& incoming, std::byte* payload) {
  pool_.Give(RequestBuffer::Of(payload));
}

void MeshImpl::OnCancel(uint32_t link, uint32_t request_id) {
  // Not one of a peer whose link this was before.
  const CallKey cancelled(link, link == kLocalLink ? Incoming{}.link_epoch : core_.link(link)->epoch,
                          request_id);
  for (RequestBuffer* request = ready_.first(); request != nullptr; request = request->next) {
    if (KeyOf(request->incoming) == cancelled) request->cancelled = true;
  }
  for (ServerCall* call = current_; call != nullptr; call = call->outer_) {
    if (KeyOf(call->incoming_) == cancelled) call->cancelled_ = true;
  }
  if (deferred_.empty()) return;
  if (auto deferred = deferred_.find(cancelled); deferred != deferred_.end()) deferred->second = true;
}

// Handlers that answer later cannot ask for it then.
bool MeshImpl::AddHeldCallers(absl::flat_hash_set<const std::string*>* held) {
  for (const RequestBuffer* request = ready_.first(); request != nullptr; request = request->next)
    held->insert(request->incoming.caller);
  for (const ServerCall* call = current_; call != nullptr; call = call->outer_)
    held->insert(call->incoming_.caller);
  return true;
}

WEFT_HOT_INLINE void MeshImpl::Answer(const Incoming& incoming, absl::StatusCode code,
                                      std::span<const std::byte> payload) {
  // What is counted is counted once the answer is out. A local caller may drop `incoming` with it.
  LocalFunction& function = *incoming.function;
  if (incoming.link == kLocalLink) [[unlikely]] {
    AnswerLocal(incoming, code, payload);
  } else {
    core_.ReplyNow(incoming, code, payload);
  }
  auto& served = *static_cast<Served*>(function.user);
  served.bytes_out += payload.size();
  if (code != absl::StatusCode::kOk) [[unlikely]]
    ++served.failures;
}

WEFT_HOT_INLINE void MeshImpl::Handle(const Incoming& incoming, std::span<const std::byte> payload) {
  auto& served = *static_cast<Served*>(incoming.function->user);
  ServerCall call(*this, incoming, payload);
  call.outer_ = std::exchange(current_, &call);
  ++nesting_;
  {
    Outside outside(*this);
    served.handler(served.state, call);
  }
  --nesting_;
  current_ = call.outer_;
  ++served.calls;
  served.bytes_in += call.request_.size();
  if (call.answered_) return;
  // Nobody reads why: only the books are to be closed.
  if (incoming.one_way() && incoming.link != kLocalLink) [[likely]]
    return core_.EndOneWay(incoming);
  AnswerUnanswered(incoming);
}

void MeshImpl::RunHandler(const Incoming& incoming, std::span<const std::byte> payload) {
  Handle(incoming, payload);
}

WEFT_HOT_INLINE void MeshImpl::RunRequest(RequestBuffer* request) {
  if (request->cancelled) [[unlikely]] {
    ++core_.counters().dropped_cancelled;
    core_.Reply(request->incoming, absl::StatusCode::kCancelled, {}, nullptr, nullptr, true);
  } else if (nesting_ >= kNestingMax) [[unlikely]] {
    RefuseNested(request->incoming);
  } else {
    Handle(request->incoming, {request->payload(), request->bytes});
  }
  pool_.Give(request);
}

void MeshImpl::RefuseNested(const Incoming& incoming) {
  ++core_.counters().refused_room;
  const std::string text = absl::StrCat(incoming.function->name, " on host ", session_->welcome().host(),
                                        ": ", kNestingMax, " calls wait on top of each other");
  core_.Reply(incoming, absl::StatusCode::kResourceExhausted, BytesOfText(text), nullptr, nullptr, true);
}

// Messages of the run that is first in the queue, at most `messages_max`. Those to come stay in the queue:
// should a handler wait, they run on top of it like any request. The buffer ends with the last handler that
// uses it.
int MeshImpl::RunMessages(RequestBuffer* run, int messages_max) {
  Incoming incoming;
  CopyIncoming(run->incoming, incoming);
  int ran = 0;
  do {
    const auto length = std::to_integer<uint32_t>(run->payload()[run->bytes + run->begun]);
    const std::span<const std::byte> payload(run->payload() + run->next_at, length);
    incoming.request_id = run->incoming.request_id + run->begun;
    run->next_at += RunStride(length);
    if (++run->begun == run->messages) ready_.Pop();
    if (nesting_ >= kNestingMax) [[unlikely]] {
      RefuseNested(incoming);
    } else {
      Handle(incoming, payload);
    }
    ++ran;
    if (--run->unended == 0) {
      pool_.Give(run);
      break;
    }
  } while (ran < messages_max && ready_.first() == run);
  return ran;
}

WEFT_HOT_INLINE int MeshImpl::RunReady() {
  int ran = 0;
  if (ended_first_ != nullptr) RunCallbacks(&ran);
  // Callbacks leave handlers their share: there may be new ones without end.
  for (const int ran_max = ran + kRunMax; ran < ran_max;) {
    RequestBuffer* const request = ready_.first();
    if (request == nullptr) break;
    if (request->messages != 1) {
      ran += RunMessages(request, ran_max - ran);
    } else {
      ready_.Pop();
      RunRequest(request);
      ++ran;
    }
    core_.Publish();
  }
  if (ran != 0) loop_.NoteWork();
  return ran;
}

void MeshImpl::Poll() {
  callbacks_unpolled_ = 0;
  loop_.PollOnce();
  if (!local_deadlines_.empty()) [[unlikely]]
    ExpireLocal();
}

int MeshImpl::Turn() {
  Poll();
  return RunReady();
}

// From the arrival of a request to its answer this is one function.
int MeshImpl::WaitTurn(uint64_t deadline_ns) {
  for (bool waited = false;; waited = true) {
    const int ran = RunReady();
    if (ran != 0 || waited) return ran;
    loop_.Wait(std::min(deadline_ns, NextLocalNs()));
    if (!local_deadlines_.empty()) [[unlikely]]
      ExpireLocal();
  }
}

// Out of line: the text would cost every handler's frame.
void MeshImpl::AnswerUnanswered(const Incoming& incoming) {
  Answer(incoming, absl::StatusCode::kInternal,
         BytesOfText(absl::StrCat("the handler of ", incoming.function->name, " gave no answer")));
}

void MeshImpl::NoteDeferred(const ServerCall& call) { deferred_[KeyOf(call.incoming_)] = call.cancelled_; }

void MeshImpl::AnswerDeferred(const Incoming& incoming, absl::StatusCode code,
                              std::span<const std::byte> payload) {
  deferred_.erase(KeyOf(incoming));
  Answer(incoming, code, payload);
  core_.Publish();
}

bool MeshImpl::DeferredCancelled(const Incoming& incoming) {
  auto found = deferred_.find(KeyOf(incoming));
  return found != deferred_.end() && found->second;
}

// A function of this very process: runs on top of the caller, like a request that comes in while it waits. An
// error means that it did not run. A spec without `done` is a one-way.
absl::Status MeshImpl::StartLocal(RouteEntry& route, const CallSpec& spec, uint64_t now_ns,
                                  uint32_t* local_id) {
  LocalFunction& function = core_.Function(route.callee_id);
  if (nesting_ >= kNestingMax) {
    ++core_.counters().refused_room;
    return RefuseToWait(route);
  }
  WEFT_RETURN_IF_ERROR(core_.AdmitLocal(function, route.caller, spec.deadline_ns, now_ns));
  // A copy, as between processes: the handler may keep reading after the caller has been answered.
  RequestBuffer* const request = pool_.Take(static_cast<uint32_t>(spec.request.bytes()));
  if (request == nullptr) {
    core_.EndLocal(function);
    ++core_.counters().refused_room;
    return absl::ResourceExhaustedError(absl::StrCat(route.callee, ": no memory for the request"));
  }
  const Payload& payload = spec.request;
  CopyPayload(payload, request->payload());
  // Ids wrap around, and one that was deferred still has its own, also where nobody waits for it any more.
  do *local_id = next_local_id_++;
  while (!local_calls_.try_emplace(*local_id, LocalCall{spec, &function}).second);
  const Incoming incoming{.function = &function,
                          .caller = &route.caller,
                          .deadline_ns = spec.deadline_ns,
                          .link = kLocalLink,
                          .request_id = *local_id,
                          .kind = spec.done != nullptr ? MessageKind::kRequest : MessageKind::kOneWay,
                          .flags = payload.prefix.empty() ? uint8_t{0} : kFlagTrace};
  RunHandler(incoming, {request->payload(), payload.bytes()});
  pool_.Give(request);
  const auto deferred = local_calls_.find(*local_id);
  if (deferred != local_calls_.end() && deferred->second.timed())
    local_deadlines_.emplace(spec.deadline_ns, *local_id);
  return absl::OkStatus();
}

void MeshImpl::AnswerLocal(const Incoming& incoming, absl::StatusCode code,
                           std::span<const std::byte> payload) {
  core_.EndLocal(*incoming.function);
  auto found = local_calls_.find(incoming.request_id);
  WEFT_CHECK(found != local_calls_.end());  // Answered once.
  const CallSpec spec = found->second.spec;
  if (found->second.timed()) local_deadlines_.erase({spec.deadline_ns, incoming.request_id});
  local_calls_.erase(found);
  if (spec.done == nullptr) return;
  const auto bytes = static_cast<uint32_t>(payload.size());
  if (code != absl::StatusCode::kOk) {
    spec.done(spec.context,
              {.code = code, .text = {reinterpret_cast<const char*>(payload.data()), payload.size()}});
    return;
  }
  std::byte* room = bytes <= spec.response.size() ? spec.response.data() : nullptr;
  if (spec.reserve != nullptr) room = spec.reserve(spec.context, bytes);
  if (room == nullptr && bytes != 0) {
    spec.done(spec.context, {.code = absl::StatusCode::kResourceExhausted,
                             .text = "the response does not fit the caller's buffer"});
    return;
  }
  if (bytes != 0) std::memcpy(room, payload.data(), bytes);
  spec.done(spec.context, {.response = room, .response_bytes = bytes});
}

// Nobody waits any more for a call whose function runs here and has not answered.
void MeshImpl::LeaveLocal(uint32_t local_id) {
  local_calls_.find(local_id)->second.spec = CallSpec();
  OnCancel(kLocalLink, local_id);
}

// Ends a call with a callback whose function runs here and has not answered; its handler sees that nobody
// waits any more. False where there is none.
bool MeshImpl::GiveUpLocal(uint32_t local_id, absl::StatusCode code, absl::string_view why) {
  const auto found = local_calls_.find(local_id);
  if (found == local_calls_.end() || !found->second.timed()) return false;
  const LocalCall call = found->second;
  local_deadlines_.erase({call.spec.deadline_ns, local_id});
  LeaveLocal(local_id);
  const std::string text = absl::StrCat("call of ", call.function->name, ": ", why);
  call.spec.done(call.spec.context, {.code = code, .text = text});
  return true;
}

void MeshImpl::ExpireLocal() {
  const uint64_t now_ns = loop_.NowNs();
  while (NextLocalNs() <= now_ns) {
    ++core_.counters().deadlines_fired;
    GiveUpLocal(local_deadlines_.begin()->second, absl::StatusCode::kDeadlineExceeded,
                "no answer before the deadline");
  }
}

// --- weft/server.h

bool ServerCall::cancelled() const {
  MeshImpl::Inside inside(mesh_);  // The keeper reads a link that the agent has closed to its end.
  return cancelled_;
}

void ServerCall::Reply(std::span<const std::byte> response) {
  if (std::exchange(answered_, true)) return;
  MeshImpl::Inside inside(mesh_);
  mesh_.Answer(incoming_, absl::StatusCode::kOk, response);
}

void ServerCall::ReplyError(const absl::Status& status) {
  if (std::exchange(answered_, true)) return;
  MeshImpl::Inside inside(mesh_);
  mesh_.Answer(incoming_, status.code(), BytesOfText(status.message()));
}

DeferredCall ServerCall::Defer() {
  if (std::exchange(answered_, true)) return {};
  MeshImpl::Inside inside(mesh_);
  mesh_.NoteDeferred(*this);
  return DeferredCall(&mesh_, incoming_);
}

DeferredCall& DeferredCall::operator=(DeferredCall&& other) noexcept {
  if (this == &other) return *this;
  if (valid()) ReplyError(absl::InternalError("the call was dropped without an answer"));
  mesh_ = std::exchange(other.mesh_, nullptr);
  incoming_ = other.incoming_;
  return *this;
}

DeferredCall::~DeferredCall() {
  if (valid()) ReplyError(absl::InternalError("the call was dropped without an answer"));
}

bool DeferredCall::cancelled() const {
  if (!valid()) return false;
  MeshImpl::Inside inside(*mesh_);
  return mesh_->DeferredCancelled(incoming_);
}

void DeferredCall::Reply(std::span<const std::byte> response) {
  MeshImpl* const mesh = std::exchange(mesh_, nullptr);
  if (mesh == nullptr) return;
  MeshImpl::Inside inside(*mesh);
  mesh->AnswerDeferred(incoming_, absl::StatusCode::kOk, response);
}

void DeferredCall::ReplyError(const absl::Status& status) {
  MeshImpl* const mesh = std::exchange(mesh_, nullptr);
  if (mesh == nullptr) return;
  MeshImpl::Inside inside(*mesh);
  mesh->AnswerDeferred(incoming_, status.code(), BytesOfText(status.message()));
}

Server::Server(Mesh& mesh) : impl_(mesh.impl()) {}

absl::Status Server::RegisterRaw(absl::string_view name, RawHandler handler, void* state,
                                 std::shared_ptr<void> holder) {
  MeshImpl::Inside inside(impl_);
  return impl_.Register(name, handler, state, std::move(holder));
}

absl::Status Server::Run() {
  MeshImpl::Inside inside(impl_);
  return impl_.Run();
}

void Server::Stop() { impl_.Stop(); }

}  // namespace weft
