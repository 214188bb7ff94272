// SPDX-License-Identifier: Apache-2.0
// CallCore: messages that found no room in their ring, or that go out in parts. All are bounded: requests by
// the table of calls, replies by reply_backlog_max and reply_backlog_bytes_max, one-ways by their deadlines.
// What a function has lent is given back to it in bounded time, whatever the peer does.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/call/call_core.h"

namespace weft {

SendJob& CallCore::AddJob(Link& link, const MessageHeader& header, const Payload& payload, Lane lane) {
  if (link.jobs.empty()) link.jobs_moved_ns = 0;
  SendJob& job = link.jobs.emplace_back();
  job.number = link.jobs_begun++;
  job.header = header;
  job.payload = payload;
  job.lane = lane;
  ++jobs_;
  if (lane == Lane::kReply) ++link.reply_jobs;
  return job;
}

void CallCore::QueueReply(Link& link, const MessageHeader& header, const Payload& payload, SendDone done,
                          void* context) {
  const uint64_t bytes = payload.bytes();
  if (bytes > message_bytes_max_) {
    const std::string text = absl::StrCat("host ", host_name_, ": a response of ", bytes,
                                          " bytes is longer than the limit of ", message_bytes_max_);
    MessageHeader error = header;
    error.caller_index = static_cast<uint16_t>(absl::StatusCode::kResourceExhausted);
    QueueReply(link, error, std::as_bytes(std::span(text)), nullptr, nullptr);
    if (done != nullptr) done(context, false);
    return;
  }
  if (link.reply_jobs == 0 && link.channel->TrySend(header, payload, Lane::kReply)) {
    ++link.responses_sent;
    ++counters_.responses_sent;
    MarkDirty(link);
    if (done != nullptr) done(context, true);
    return;
  }
  // A short one is not worth waiting for the peer, which may never read: the function goes on.
  const bool copy = done == nullptr || bytes <= link.channel->whole_bytes_max();
  if (link.reply_jobs >= options_.reply_backlog_max || (copy && !MayKeepReply(link, bytes))) {
    ++counters_.responses_dropped;
    if (done != nullptr) done(context, false);
    return;
  }
  ++counters_.responses_backlogged;
  const uint64_t now_ns = NowNs();
  SendJob& job = AddJob(link, header, payload, Lane::kReply);
  if (copy) {
    job.owned = std::make_unique_for_overwrite<std::byte[]>(bytes);
    CopyPayload(payload, job.owned.get());
    job.payload = Payload(std::span<const std::byte>(job.owned.get(), bytes));
    job.owned_bytes = bytes;
    SetReplyBytes(link, link.reply_bytes + bytes);
    if (done != nullptr) done(context, true);
  } else {
    job.done = done;
    job.context = context;
    job.lent_ns = now_ns;
    if (link.borrowed_jobs++ == 0) link.borrowed_ns = now_ns;
  }
  PumpLink(link, now_ns);
}

// What waiting replies of `bytes` to one peer take of what all peers share: all above a quarter of its
// channel's arena. That is its own, so that whatever others leave unread there is room for some of its
// replies; it adds an eighth at most to what the channel holds anyway.
uint64_t CallCore::SharedReplyBytes(const Link& link, uint64_t bytes) {
  return bytes - std::min<uint64_t>(bytes, link.channel->options().arena_bytes / 4);
}

// Whoever holds as many of the shared bytes as are free gets no more: one peer alone half of them, and what
// one leaves unread leaves as much to each of the others.
bool CallCore::MayKeepReply(const Link& link, uint64_t bytes) const {
  const uint64_t shared = SharedReplyBytes(link, link.reply_bytes + bytes);
  return shared == 0 || shared <= options_.reply_backlog_bytes_max - reply_bytes_;
}

void CallCore::SetReplyBytes(Link& link, uint64_t bytes) {
  reply_bytes_ -= SharedReplyBytes(link, link.reply_bytes);
  link.reply_bytes = bytes;
  reply_bytes_ += SharedReplyBytes(link, bytes);
}

// Ids rise in the order in which messages go out, and others may have gone since this one was queued.
void CallCore::RenewJob(SendJob& job) {
  OutgoingCall* const call = job.call_slot != SendJob::kNoCall ? table_.At(job.call_slot) : nullptr;
  if (call != nullptr) {
    table_.Renew(*call);
    job.header.request_id = call->request_id;
  } else {
    job.header.request_id = table_.TakeId();
  }
  job.stream.header.request_id = job.header.request_id;
}

// The job behind that with `number`. Whoever is told of the end of one may have cancelled calls, and started
// some, which pumps the link: no other job is sure to be there still.
std::list<SendJob>::iterator CallCore::NextJob(Link& link, uint64_t number) {
  return std::find_if(link.jobs.begin(), link.jobs.end(), [this, number](const SendJob& other) {
    ++jobs_looked_at_;
    return other.number > number;
  });
}

// One step of one job; true where it is finished, one way or the other.
bool CallCore::PumpJob(Link& link, SendJob& job, uint64_t now_ns) {
  Channel& channel = *link.channel;
  if (job.payload.bytes() <= channel.whole_bytes_max()) {
    if (!channel.TrySend(job.header, job.payload, job.lane)) return false;
    MarkDirty(link);
    job.state = StreamState::kDone;
    return true;
  }
  if (job.lane == Lane::kRequest && job.stream.position == 0) RenewJob(job);
  if (!job.started) {
    if (!channel.TryStart(job.stream, job.header, job.payload, job.lane, now_ns)) return false;
    job.started = true;
  }
  job.state = channel.Pump(job.stream, now_ns);
  return job.state == StreamState::kDone || job.state == StreamState::kStalled;
}

// True where anything was sent or ended. Jobs that are queued meanwhile were pumped when they were.
bool CallCore::PumpLink(Link& link, uint64_t now_ns) {
  bool moved = false;
  const uint64_t end = link.jobs_begun;
  if (link.jobs_moved_ns == 0) link.jobs_moved_ns = now_ns;
  // Far more than can be in progress at once; what is behind waits its turn.
  int looked_at = 0;
  for (auto job = link.jobs.begin();
       job != link.jobs.end() && job->number < end && looked_at < 4 * static_cast<int>(kPartialsMax);
       ++looked_at) {
    const uint64_t number = job->number;
    const uint32_t position = job->stream.position;
    const bool ended = PumpJob(link, *job, now_ns);
    const bool sent = ended && job->state == StreamState::kDone;
    moved |= ended || job->stream.position != position;
    if (sent || job->stream.position != position) link.jobs_moved_ns = now_ns;
    if (!ended) {
      ++job;
      continue;
    }
    EndJob(link, job, sent, !sent);
    job = NextJob(link, number);
  }
  if (link.borrowed_jobs != 0 && now_ns >= std::max(link.jobs_moved_ns, link.borrowed_ns) + kStreamStallNs) {
    moved |= DropBorrowed(link, now_ns);
  }
  if (now_ns >= link.one_ways_due_ns) moved |= DropLate(link, now_ns);
  return moved;
}

// One-ways whose deadline has passed, wherever they stand: those behind 4 * kPartialsMax others, as replies
// that the peer does not read, are not looked at, and a peer that reads now and then keeps a stream from
// stalling. True where there was one to drop.
bool CallCore::DropLate(Link& link, uint64_t now_ns) {
  link.one_ways_due_ns = ~uint64_t{0};
  // Taken out in one walk, and told of afterwards, one by one: see NextJob.
  std::list<SendJob> late;
  for (auto next = link.jobs.begin(); next != link.jobs.end();) {
    const auto job = next++;
    ++jobs_looked_at_;
    if (job->one_way_done == nullptr) continue;
    if (now_ns < job->header.deadline_ns) {
      link.one_ways_due_ns = std::min(link.one_ways_due_ns, job->header.deadline_ns);
      continue;
    }
    job->late = true;
    late.splice(late.end(), link.jobs, job);
  }
  const bool dropped = !late.empty();
  while (!late.empty()) {
    link.jobs.splice(link.jobs.begin(), late, late.begin());
    EndJob(link, link.jobs.begin(), false, false);
  }
  return dropped;
}

// The peer reads nothing. A stream under way fails by itself then; but those behind would wait until it has
// read that, and those behind 4 * kPartialsMax others are not looked at. One that was queued when the peer
// had long been silent is given as much time as those before it had. True where there was one to drop.
bool CallCore::DropBorrowed(Link& link, uint64_t now_ns) {
  bool dropped = false;
  link.borrowed_ns = now_ns;
  for (auto job = link.jobs.begin(); job != link.jobs.end();) {
    const auto lent = job++;
    if (lent->done == nullptr) continue;
    if (now_ns < lent->lent_ns + kStreamStallNs) {
      link.borrowed_ns = std::min(link.borrowed_ns, lent->lent_ns);
      continue;
    }
    EndJob(link, lent, false, false);
    dropped = true;
  }
  return dropped;
}

void CallCore::EndJob(Link& link, std::list<SendJob>::iterator job, bool sent, bool stalled) {
  if (job->started && !sent && !stalled) link.channel->Abort(job->stream);
  --jobs_;
  if (job->lane == Lane::kReply) {
    --link.reply_jobs;
    if (sent) {
      ++link.responses_sent;
      ++counters_.responses_sent;
    } else {
      ++counters_.responses_dropped;
    }
  } else if (sent) {
    ++link.requests_sent;
    ++counters_.requests_sent;
  }
  SetReplyBytes(link, link.reply_bytes - job->owned_bytes);
  if (job->done != nullptr) --link.borrowed_jobs;
  // Taken out before anybody is told, who may start something new.
  std::list<SendJob> ended;
  ended.splice(ended.begin(), link.jobs, job);
  if (job->done != nullptr) job->done(job->context, sent);
  if (job->one_way_done != nullptr) {
    ++(sent ? counters_.one_way_sent : counters_.one_way_broken_off);
    job->one_way_done(job->context, {.code = sent        ? absl::StatusCode::kOk
                                             : job->late ? absl::StatusCode::kDeadlineExceeded
                                                         : absl::StatusCode::kUnavailable,
                                     .not_executed = !sent});
  }
  if (job->call_slot == SendJob::kNoCall) return;
  OutgoingCall* call = table_.At(job->call_slot);
  if (call == nullptr || call->request_id != job->header.request_id) return;
  if (sent) {
    call->state = OutgoingCall::State::kSent;
    if (call->route->adaptive != nullptr) Observe(*call);
  } else if (stalled) {
    TryFailed(
        *call, absl::StatusCode::kDeadlineExceeded, true,
        absl::StrCat("call of ", call->route->callee, ": host ", link.peer, " stopped reading the request"));
  }
}

}  // namespace weft
