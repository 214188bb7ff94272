// SPDX-License-Identifier: Apache-2.0
#include "bench/control/change_run.h"

#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "bench/machine.h"
#include "bench/node.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"
#include "tools/weftctl/admin_client.h"

namespace weft::bench {
namespace {

// Each waits for the source's answer; at 1,000 events a second one may take 8 ms.
constexpr int kWriters = 8;
// weft-control tells 160 changes at once, and remembers some seconds of them.
constexpr uint64_t kAskNs = 50 * kNsPerMs;
constexpr uint64_t kMissedNs = 5 * kNsPerSecond;
// Between two wakes that are measured: no multiple of anything else's period.
constexpr uint64_t kWakeEveryNs = 3'700'123;

void SleepUntil(uint64_t at_ns) {
  const timespec at{static_cast<time_t>(at_ns / kNsPerSecond), static_cast<long>(at_ns % kNsPerSecond)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
  }
}

double IdleBetween(const CpuTimes& before, const CpuTimes& after) {
  if (after.total == before.total) return 0;
  return static_cast<double>(after.idle - before.idle) / static_cast<double>(after.total - before.total);
}

// One change of weft-control's record.
struct Programmed {
  uint64_t number = 0;  // At the end of its cause
  uint64_t event_ns = 0;
  uint64_t programmed_ns = 0;
};

uint64_t NumberAtEnd(absl::string_view cause) {
  const std::size_t space = cause.rfind(' ');
  uint64_t number = 0;
  return space != absl::string_view::npos && absl::SimpleAtoi(cause.substr(space + 1), &number) ? number : 0;
}

// Follows weft-control's changes from now on, as `weftctl get changes` does.
class ChangeReader {
 public:
  static absl::StatusOr<ChangeReader> Start(const std::string& control_socket) {
    WEFT_ASSIGN_OR_RETURN(ctl::AdminClient client, ctl::AdminClient::Connect(control_socket));
    ChangeReader reader(std::move(client));
    WEFT_RETURN_IF_ERROR(reader.Read());
    reader.changes_.clear();
    return reader;
  }

  absl::Status Read() {
    for (;;) {
      WEFT_ASSIGN_OR_RETURN(const ctl::Answer answer, client_.Changes(after_));
      if (answer.items.empty()) return absl::OkStatus();
      for (const api::Item& item : answer.items) {
        after_ = static_cast<uint64_t>(item.fields(0).number());
        changes_.push_back({NumberAtEnd(item.fields(2).text()),
                            static_cast<uint64_t>(item.fields(3).number()),
                            static_cast<uint64_t>(item.fields(4).number())});
      }
    }
  }
  const std::vector<Programmed>& changes() const { return changes_; }

 private:
  explicit ChangeReader(ctl::AdminClient client) : client_(std::move(client)) {}

  ctl::AdminClient client_;
  uint64_t after_ = 0;
  std::vector<Programmed> changes_;
};

// What was written, each with the number that it has in a change's cause.
std::vector<uint64_t> NumbersOf(const std::vector<WrittenEvent>& written, Numbering numbering,
                                uint64_t before) {
  std::vector<uint64_t> numbers;
  for (const WrittenEvent& event : written) {
    numbers.push_back(numbering == Numbering::kBySource ? event.number
                      : numbering == Numbering::kByTime ? event.written_ns
                                                        : before + numbers.size() + 1);
  }
  return numbers;
}

}  // namespace

absl::StatusOr<std::vector<WrittenEvent>> WriteEvents(ChangeSource& source, uint64_t first_event, double rate,
                                                      uint64_t duration_ns) {
  std::vector<std::unique_ptr<ChangeWriter>> writers;
  for (int i = 0; i < kWriters; ++i) {
    WEFT_ASSIGN_OR_RETURN(writers.emplace_back(), source.NewWriter());
  }
  const uint64_t count = EventCount(rate, duration_ns);
  const uint64_t begin_ns = NowNs() + 20 * kNsPerMs;
  std::atomic<uint64_t> next{0};
  std::mutex mutex;  // Of what follows
  std::vector<WrittenEvent> written;
  absl::Status failed;
  const auto write = [&](ChangeWriter& writer) {
    prctl(PR_SET_TIMERSLACK, 1);
    std::vector<WrittenEvent> own;
    absl::Status status;
    for (uint64_t event; status.ok() && (event = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      SleepUntil(begin_ns + static_cast<uint64_t>(static_cast<double>(event) * 1e9 / rate));
      const uint64_t written_ns = NowNs();
      const absl::StatusOr<uint64_t> number = writer.Write(first_event + event);
      status = number.status();
      if (status.ok()) own.push_back({written_ns, *number});
    }
    const std::lock_guard<std::mutex> lock(mutex);
    written.insert(written.end(), own.begin(), own.end());
    if (!status.ok()) failed = status;
  };
  std::vector<std::thread> threads;
  for (const std::unique_ptr<ChangeWriter>& writer : writers) threads.emplace_back(write, std::ref(*writer));
  for (std::thread& thread : threads) thread.join();
  WEFT_RETURN_IF_ERROR(failed);
  std::sort(
      written.begin(), written.end(),
      [by_time = source.numbering() == Numbering::kByTime](const WrittenEvent& a, const WrittenEvent& b) {
        return !by_time && a.number != b.number ? a.number < b.number : a.written_ns < b.written_ns;
      });
  return written;
}

absl::StatusOr<BareRun> RunBareWatcher(ChangeSource& source, uint64_t first_event, double rate,
                                       uint64_t duration_ns) {
  test::TemporaryDirectory directory;
  test::ProcessOptions options;
  options.arguments = {SiblingProgram("weft-bench-watch"), absl::StrCat(source.name(), "-watch")};
  const std::vector<std::string> more = source.WatchArguments();
  options.arguments.insert(options.arguments.end(), more.begin(), more.end());
  options.log = directory / "log";
  test::Process watcher(options);
  if (!watcher.WaitForOutput("ready\n", absl::Seconds(20))) {
    return absl::UnavailableError(
        absl::StrCat("weft-bench-watch does not watch ", source.name(), ": ", watcher.Output()));
  }
  BareRun run;
  const CpuTimes before = ReadCpuTimes();
  WEFT_ASSIGN_OR_RETURN(const std::vector<WrittenEvent> written,
                        WriteEvents(source, first_event, rate, duration_ns));
  run.idle_fraction = IdleBetween(before, ReadCpuTimes());
  SleepUntil(NowNs() + 200 * kNsPerMs);
  watcher.Signal(SIGTERM);
  if (watcher.Wait(absl::Seconds(10)) != 0) {
    return absl::InternalError(
        absl::StrCat("weft-bench-watch of ", source.name(), " failed: ", watcher.Output()));
  }
  std::multimap<uint64_t, uint64_t> arrivals;  // By number; of one, in the order that they came in
  std::istringstream lines(watcher.Output());
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    uint64_t number = 0, arrival_ns = 0;
    if (words >> number >> arrival_ns) arrivals.emplace(number, arrival_ns);
  }
  for (std::size_t i = 0; i < written.size(); ++i) {
    const auto arrival = arrivals.lower_bound(written[i].number);
    if (arrival == arrivals.end() || arrival->first != written[i].number) {
      ++run.missed;
    } else {
      run.delay.Record(arrival->second > written[i].written_ns ? arrival->second - written[i].written_ns : 0);
      arrivals.erase(arrival);
    }
  }
  return run;
}

Histogram MeasureWake(const std::function<void()>& work) {
  Histogram late;
  std::atomic<bool> over{false};
  std::thread sleeper([&] {
    prctl(PR_SET_TIMERSLACK, 1);
    for (uint64_t at_ns = NowNs(); !over.load(std::memory_order_relaxed);) {
      at_ns = std::max(at_ns + kWakeEveryNs, NowNs());
      SleepUntil(at_ns);
      late.Record(NowNs() - at_ns);
    }
  });
  work();
  over.store(true, std::memory_order_relaxed);
  sleeper.join();
  return late;
}

absl::StatusOr<ChangeRun> RunChanges(ChangeSource& source, const std::string& control_socket,
                                     uint64_t events_before, uint64_t first_event, double rate,
                                     uint64_t duration_ns) {
  WEFT_ASSIGN_OR_RETURN(ChangeReader reader, ChangeReader::Start(control_socket));
  ChangeRun run;
  std::atomic<bool> over{false};
  absl::Status read;
  absl::StatusOr<std::vector<WrittenEvent>> written;
  const CpuTimes before = ReadCpuTimes();
  run.wake = MeasureWake([&] {
    std::thread asker([&] {
      while (read.ok() && !over.load(std::memory_order_relaxed)) {
        SleepUntil(NowNs() + kAskNs);
        read = reader.Read();
      }
    });
    written = WriteEvents(source, first_event, rate, duration_ns);
    over.store(true, std::memory_order_relaxed);
    asker.join();
  });
  run.idle_fraction = IdleBetween(before, ReadCpuTimes());
  WEFT_RETURN_IF_ERROR(written.status());
  const bool by_time = source.numbering() == Numbering::kByTime;
  const auto number_of = [by_time](const Programmed& change) {
    return by_time ? change.event_ns : change.number;
  };
  const std::vector<uint64_t> numbers = NumbersOf(*written, source.numbering(), events_before);
  for (const uint64_t until_ns = NowNs() + kMissedNs; read.ok() && NowNs() < until_ns;) {
    if (numbers.empty() ||
        (!reader.changes().empty() && number_of(reader.changes().back()) >= numbers.back()))
      break;
    SleepUntil(NowNs() + kAskNs);
    read = reader.Read();
  }
  WEFT_RETURN_IF_ERROR(read);
  run.events = numbers.size();
  run.changes = reader.changes().size();
  auto change = reader.changes().begin();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    while (change != reader.changes().end() && number_of(*change) < numbers[i]) ++change;
    if (change == reader.changes().end() || change->event_ns == 0) {
      ++run.missed;
      continue;
    }
    run.ours.Record(change->programmed_ns - change->event_ns);
    run.total.Record(change->programmed_ns - (*written)[i].written_ns);
  }
  return run;
}

}  // namespace weft::bench
