// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_watch.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

constexpr uint64_t kPauseMinNs = 100 * kNsPerMs;
constexpr uint64_t kPauseMaxNs = 5 * kNsPerSecond;
constexpr uint64_t kListTimeoutMs = 30'000;
// A watch that ends sooner has failed, whatever it says.
constexpr uint64_t kWatchNsMin = 500 * kNsPerMs;
constexpr std::size_t kPageBytesMax = std::size_t{256} << 20;
constexpr std::size_t kLineBytesMax = std::size_t{16} << 20;
constexpr std::size_t kQuotedBytesMax = 300;

// Versions are numbers that grow, at every server that is known; one that says otherwise is let pass as 0.
uint64_t NumberOf(const std::string& version) {
  uint64_t number = 0;
  return absl::SimpleAtoi(version, &number) ? number : 0;
}

std::string Escaped(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    if (plain) {
      escaped.push_back(c);
    } else {
      absl::StrAppend(&escaped, "%", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
    }
  }
  return escaped;
}

}  // namespace

void KubeWatch::OnTime(uint64_t now_ns) {
  now_ns_ = now_ns;
  if (!waiting_.empty()) TakeWaiting();
  if (retry_at_ns_ == 0 || now_ns < retry_at_ns_ || !access_->ready()) return;
  retry_at_ns_ = 0;
  if (version_.empty()) {
    List();
  } else if (std::exchange(check_, false)) {
    Check();
  } else {
    Watch();
  }
}

void KubeWatch::Note(absl::string_view what) {
  notes_.push_back(absl::StrCat("kubernetes: ", KubeKindName(kind_), ": ", what));
}

void KubeWatch::Cancel() {
  if (request_ != 0) http_->Cancel(std::exchange(request_, 0));
}

// A watch that stood for a while has shown that there is nothing to be patient with.
void KubeWatch::Rest() {
  if (open_since_ns_ != 0 && now_ns_ - open_since_ns_ >= kWatchNsMin) pause_ns_ = 0;
  open_since_ns_ = 0;
  if (synced_) lost_ns_ = now_ns_;
  synced_ = false;
}

// Pauses grow from 100 ms to 5 s, each cut by up to a half at random.
void KubeWatch::Fail(const absl::Status& why) {
  Cancel();
  Rest();
  std::string().swap(waiting_);  // All is listed again.
  const std::string problem(Utf8Prefix(why.message(), kQuotedBytesMax));
  if (problem != problem_) Note(absl::StrCat(problem, "; trying again"));
  problem_ = problem;
  ++errors_;
  pause_ns_ = std::clamp(pause_ns_ * 2, kPauseMinNs, kPauseMaxNs);
  retry_at_ns_ = now_ns_ + pause_ns_ - random_.Below(pause_ns_ / 2);
  check_ = true;
}

void KubeWatch::Send(const std::string& query, uint64_t timeout_ms, HttpHandlers handlers) {
  Cancel();
  buffer_.clear();
  absl::StatusOr<HttpRequest> request = access_->RequestOf(absl::StrCat(KubeKindPath(kind_), "?", query));
  if (!request.ok()) return Fail(request.status());
  request->timeout_ms = timeout_ms;
  handlers.on_done = [this, done = std::move(handlers.on_done)](const absl::Status& status, long code) {
    request_ = 0;
    done(status, code);
  };
  request_ = http_->Start(*std::move(request), std::move(handlers));
}

absl::Status KubeWatch::StatusOf(const absl::Status& status, long code) {
  if (!status.ok()) return status;
  if (code == 200) return absl::OkStatus();
  const std::string message = KubeMessageOf(buffer_);
  const std::string why =
      absl::StrCat(access_->server(), ": HTTP status ", code, message.empty() ? "" : ": ", message);
  if (code == 401) access_->Refused();
  if (code == 403) return absl::PermissionDeniedError(why);
  if (code == 404) return absl::NotFoundError(why);
  return code == 410 ? absl::OutOfRangeError(why) : absl::UnavailableError(why);
}

void KubeWatch::List() {
  next_.clear();
  state_->BeginList(kind_);
  AskPage();
}

HttpHandlers KubeWatch::WholeBody(std::function<void(const absl::Status&, long)> done) {
  return {.on_open = nullptr,
          .on_data =
              [this](absl::string_view piece, long /*code*/) {
                if (buffer_.size() <= kPageBytesMax) absl::StrAppend(&buffer_, piece);
                return true;
              },
          .on_done = std::move(done)};
}

absl::StatusOr<KubePage> KubeWatch::PageOf(const absl::Status& status, long code) {
  if (absl::Status answer = StatusOf(status, code); !answer.ok()) return answer;
  absl::StatusOr<KubePage> page = ReadPage(&buffer_);
  std::string().swap(buffer_);
  return page;
}

absl::StatusOr<KubePage> KubeWatch::ReadPage(std::string* body) const {
  absl::StatusOr<KubePage> page = body->size() <= kPageBytesMax
                                      ? ParseKubePageInPlace(kind_, body)
                                      : absl::ResourceExhaustedError("a page is too long");
  if (page.ok()) return page;
  return absl::InternalError(absl::StrCat(access_->server(), ": ", page.status().message()));
}

void KubeWatch::AskPage() {
  Send(absl::StrCat("limit=", options_.page_entries, next_.empty() ? "" : "&continue=", Escaped(next_)),
       kListTimeoutMs, WholeBody([this](const absl::Status& status, long code) { TakePage(status, code); }));
}

// The next page is asked for before this one is read, in the loop's next turn: reading it takes the time in
// which the server makes the next.
void KubeWatch::TakePage(const absl::Status& status, long code) {
  if (!waiting_.empty() && !TakeWaiting()) return;
  next_ = status.ok() && code == 200 ? NextOfKubePage(buffer_) : "";
  if (!next_.empty()) {
    waiting_ = std::move(buffer_);
    return AskPage();
  }
  absl::StatusOr<KubePage> page = PageOf(status, code);
  const bool optional = kind_ == KubeKind::kPolicy || IsOfGatewayApi(kind_);
  if (absl::IsNotFound(page.status()) && optional) return Absent("");
  // Rights from before weft read these are no reason to know nothing at all.
  if (absl::IsPermissionDenied(page.status()) && IsOfGatewayApi(kind_)) {
    return Absent(std::string(page.status().message()));
  }
  if (!page.ok()) return Fail(page.status());
  TakeItems(&*page);
  next_ = std::move(page->next);
  if (!next_.empty()) return AskPage();
  version_ = std::move(page->resource_version);
  std::string().swap(waiting_);
  EndList();
}

// False where the request under way is not the one for the page that follows: it was taken back.
bool KubeWatch::TakeWaiting() {
  absl::StatusOr<KubePage> page = ReadPage(&waiting_);
  waiting_.clear();
  if (buffer_.empty()) std::swap(buffer_, waiting_);  // Of the right size already
  if (page.ok() && page->next != next_) page = absl::InternalError("a page's beginning contradicts its end");
  if (!page.ok()) {
    Fail(page.status());
    return false;
  }
  TakeItems(&*page);
  return true;
}

void KubeWatch::TakeItems(KubePage* page) {
  state_->Expect(kind_, page->more);
  for (KubeItem& item : page->items) TakeItem(std::move(item));
}

// A cluster without a kind, or that does not show it (`why`), has none of it. Should it be gone, what was
// said stays.
void KubeWatch::Absent(const std::string& why) {
  listed_ = true;
  synced_ = true;
  lost_ns_ = 0;
  const std::string problem = why.empty() ? "" : absl::StrCat(why, "; going on without them");
  if (!problem.empty() && problem != problem_) Note(problem);
  problem_ = problem;
  retry_at_ns_ = now_ns_ + options_.absent_ns;
}

void KubeWatch::EndList() {
  const uint64_t number = NumberOf(version_);
  const bool older = number != 0 && number < revision_;
  const bool empty = state_->ListIsEmpty(kind_);
  const std::size_t kept = state_->EndList(kind_, (older || empty) && !options_.allow_shrink);
  if (kept != 0) {
    Note(absl::StrCat(older ? "went back in time" : "are none any more", " (version ", number, " after ",
                      revision_, "): keeping ", kept,
                      " that are not there; start with --allow-shrink if they are to go"));
  }
  revision_ = number;
  cause_.by_list = true;
  listed_ = true;
  Watch();
}

// A watch from a version that a restored store has not reached yet would stand, and tell nothing.
void KubeWatch::Check() {
  Send("limit=1", kListTimeoutMs, WholeBody([this](const absl::Status& status, long code) {
         const absl::StatusOr<KubePage> page = PageOf(status, code);
         if (absl::IsNotFound(page.status())) return ListAgain("the server does not know them any more");
         if (!page.ok()) return Fail(page.status());
         const uint64_t number = NumberOf(page->resource_version);
         if (number != 0 && number < revision_) return ListAgain("the server went back in time");
         Watch();
       }));
}

void KubeWatch::Watch() {
  open_since_ns_ = 0;
  const uint64_t watch_s = options_.watch_s + random_.Below(options_.watch_s / 4 + 1);
  Send(absl::StrCat("watch=1&allowWatchBookmarks=true&timeoutSeconds=", watch_s,
                    "&resourceVersion=", Escaped(version_)),
       watch_s * 1'000 + options_.overdue_ms,
       {.on_open = [this](long code) { TakeOpen(code); },
        .on_data =
            [this](absl::string_view piece, long code) {
              TakePiece(piece, code);
              return true;
            },
        .on_done = [this](const absl::Status& status, long code) { TakeEnd(status, code); }});
}

void KubeWatch::TakeOpen(long code) {
  if (code != 200) return;
  open_since_ns_ = now_ns_;
  synced_ = true;
  lost_ns_ = 0;
  problem_.clear();
}

void KubeWatch::TakePiece(absl::string_view piece, long code) {
  absl::StrAppend(&buffer_, piece);
  if (code != 200) {
    if (buffer_.size() > kLineBytesMax) Fail(absl::ResourceExhaustedError("an answer is too long"));
    return;
  }
  const HttpClient::RequestId request = request_;
  std::size_t begin = 0;
  for (std::size_t end = buffer_.find('\n'); end != std::string::npos; end = buffer_.find('\n', begin)) {
    const std::string line = buffer_.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty()) TakeLine(line);
    if (request_ != request) return;  // It was the last one of this watch.
  }
  buffer_.erase(0, begin);
  if (buffer_.size() > kLineBytesMax) Fail(absl::ResourceExhaustedError("an event is too long"));
}

void KubeWatch::TakeLine(absl::string_view line) {
  absl::StatusOr<KubeEvent> event = ParseKubeEvent(kind_, line);
  if (!event.ok())
    return Fail(absl::InternalError(absl::StrCat(access_->server(), ": ", event.status().message())));
  const uint64_t number = NumberOf(event->resource_version);
  switch (event->type) {
    case KubeEvent::Type::kError:
      // 410: what came between is forgotten. 504: the server has not come so far, or never will.
      if (event->code == 410 || event->code == 504) return ListAgain(event->message);
      return Fail(absl::UnavailableError(absl::StrCat(access_->server(), ": ", event->message)));
    case KubeEvent::Type::kBookmark:
      if (number < revision_) return ListAgain("the server went back in time");
      break;
    case KubeEvent::Type::kUnknown:
      ++errors_;
      Note(absl::StrCat("an event of unknown type \"", Utf8Prefix(event->message, kQuotedBytesMax), "\""));
      break;
    case KubeEvent::Type::kPut:
    case KubeEvent::Type::kDelete:
      ++events_;
      last_event_ns_ = now_ns_;
      if (cause_.event_ns == 0) cause_.event_ns = now_ns_;
      if (event->type == KubeEvent::Type::kDelete) {
        state_->Erase(kind_, event->item.key);
        if (on_item_) on_item_(event->item, true, now_ns_);
      } else {
        TakeItem(std::move(event->item));
      }
  }
  if (event->resource_version.empty()) return;
  version_ = event->resource_version;
  revision_ = std::max(revision_, number);
  pause_ns_ = 0;
}

void KubeWatch::TakeItem(KubeItem item) {
  if (on_item_) on_item_(item, false, now_ns_);
  const bool bad = !item.problem.empty();
  errors_ += bad ? 1 : 0;
  std::string told = bad ? absl::StrCat("not taken: ", item.key, ": ", item.problem) : "";
  if (state_->Put(kind_, std::move(item))) Note(told);
}

void KubeWatch::TakeEnd(const absl::Status& status, long code) {
  const absl::Status answer = StatusOf(status, code);
  if (absl::IsOutOfRange(answer) || absl::IsNotFound(answer) || code == 504)
    return ListAgain(std::string(answer.message()));
  if (!answer.ok()) return Fail(answer);
  if (open_since_ns_ == 0 || now_ns_ - open_since_ns_ < kWatchNsMin) {
    return Fail(absl::UnavailableError(absl::StrCat(access_->server(), ": the watch ended at once")));
  }
  pause_ns_ = 0;
  Watch();  // Its time was over.
}

void KubeWatch::ListAgain(const std::string& why) {
  Cancel();
  Rest();
  Note(absl::StrCat("the watch cannot go on from version ", version_, " (", Utf8Prefix(why, kQuotedBytesMax),
                    "); listing all again"));
  version_.clear();
  ++errors_;
  // At once the first time; not in a circle.
  retry_at_ns_ = std::max<uint64_t>(1, now_ns_ + pause_ns_);
  pause_ns_ = std::clamp(pause_ns_ * 2, kPauseMinNs, kPauseMaxNs);
}

}  // namespace weft::control
