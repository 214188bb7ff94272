// SPDX-License-Identifier: Apache-2.0
#include "bench/runner.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

constexpr std::size_t kNoRow = ~std::size_t{0};

std::size_t IndexOf(const std::vector<std::unique_ptr<Row>>& rows, const std::string& name) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i]->spec().name == name) return i;
  }
  return kNoRow;
}

// The median of samples of a clock that moves in steps (10 ns on some processors, a tenth of what is
// measured): the place within the step that holds the middle sample at which half of all samples lie below,
// as for any median of grouped data. Without it a ratio of two figures near 100 ns would itself move in steps
// of a tenth.
double MedianOfSamples(std::vector<uint32_t> samples) {
  if (samples.empty()) return 0;
  const std::size_t half = (samples.size() - 1) / 2;
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(half);
  std::nth_element(samples.begin(), middle, samples.end());
  const uint32_t value = *middle;
  const uint32_t slack = ClockStepNs() / 4;  // Reads of one step differ by the rounding to whole ns.
  std::size_t below = 0, within = 0;
  for (uint32_t sample : samples) {
    if (sample + slack < value) {
      ++below;
    } else if (sample <= value + slack) {
      ++within;
    }
  }
  const double share =
      (static_cast<double>(samples.size()) / 2 - static_cast<double>(below)) / static_cast<double>(within);
  return value + (std::clamp(share, 0.0, 1.0) - 0.5) * ClockStepNs();
}

double P99OfSamples(std::vector<uint32_t> samples) {
  if (samples.empty()) return 0;
  const auto at = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() * 99 / 100);
  std::nth_element(samples.begin(), at, samples.end());
  return *at;
}

// What a ratio compares: p50 or p99 in ns, or messages per second.
double FigureOf(const RowSpec& spec, const Block& block) {
  if (spec.by_p99) return P99OfSamples(block.samples_ns);
  if (!spec.is_rate) return MedianOfSamples(block.samples_ns);
  if (block.elapsed_ns == 0) return 0;
  return static_cast<double>(block.messages) * 1e9 / static_cast<double>(block.elapsed_ns);
}

// Marks the rows that the filter names and, transitively, those that they are judged by.
absl::StatusOr<std::vector<bool>> Choose(const std::vector<std::unique_ptr<Row>>& rows,
                                         const std::string& filter) {
  std::vector<bool> chosen(rows.size(), false);
  std::regex pattern;
  try {
    pattern = std::regex(filter);
  } catch (const std::regex_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("filter \"", filter, "\": ", error.what()));
  }
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const RowSpec& spec = rows[i]->spec();
    if (std::regex_search(spec.name, pattern) ||
        std::regex_search(absl::StrCat(spec.name, "@", spec.bytes), pattern)) {
      open.push_back(i);
    }
  }
  if (open.empty())
    return absl::InvalidArgumentError(absl::StrCat("filter \"", filter, "\": no row has such a name"));
  while (!open.empty()) {
    const std::size_t i = open.back();
    open.pop_back();
    if (chosen[i]) continue;
    chosen[i] = true;
    for (const std::string& name : rows[i]->spec().against) {
      const std::size_t limit = IndexOf(rows, name);
      if (limit == kNoRow)
        return absl::InvalidArgumentError(absl::StrCat(rows[i]->spec().name, ": no row ", name));
      open.push_back(limit);
    }
  }
  return chosen;
}

// The state of one run.
class Turns {
 public:
  Turns(std::vector<std::unique_ptr<Row>> rows, const RunOptions& options)
      : rows_(std::move(rows)), options_(options), results_(rows_.size()) {
    for (std::size_t i = 0; i < rows_.size(); ++i) results_[i].spec = rows_[i]->spec();
  }
  ~Turns() {
    for (auto row = rows_.rbegin(); row != rows_.rend(); ++row) (*row)->Teardown();
  }

  void Setup() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      Report(absl::StrCat("setting up ", rows_[i]->spec().name));
      results_[i].status = rows_[i]->Setup();
      if (!results_[i].status.ok()) rows_[i]->Teardown();
    }
    // One block of each that is thrown away: pages are touched, connections and branch predictors are warm.
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (!results_[i].status.ok()) continue;
      results_[i].status = rows_[i]->RunBlock(options_.block_ns).status();
      if (!results_[i].status.ok()) rows_[i]->Teardown();  // Its processes would run beside all others.
    }
  }

  void Round() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (!results_[i].status.ok()) continue;
      const std::vector<std::string>& against = rows_[i]->spec().against;
      if (against.empty()) {
        // A limit that others name has had its blocks beside them.
        if (!named_.contains(rows_[i]->spec().name)) RunOne(i);
        continue;
      }
      for (const std::string& name : against) RunBeside(i, name);
    }
  }

  void Report(const std::string& line) {
    if (options_.progress) options_.progress(line);
  }

  // Names that some row which runs is judged by.
  void NoteNamed() {
    named_.clear();
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (!results_[i].status.ok()) continue;
      for (const std::string& name : rows_[i]->spec().against) named_.insert(name);
    }
  }

  bool AnyLeft() const {
    return std::any_of(results_.begin(), results_.end(),
                       [](const RowResult& row) { return row.status.ok(); });
  }

  std::vector<RowResult> TakeResults() { return std::move(results_); }

 private:
  // Limits come before and after by turns, so that a drift within the pair favours neither.
  void RunBeside(std::size_t own, const std::string& name) {
    const std::size_t limit = IndexOf(rows_, name);
    limit_first_ = !limit_first_;
    double own_figure = 0, limit_figure = 0;
    if (limit_first_) limit_figure = RunOne(limit);
    own_figure = RunOne(own);
    if (!limit_first_) limit_figure = RunOne(limit);
    if (own_figure > 0 && limit_figure > 0)
      results_[own].block_ratios[name].push_back(own_figure / limit_figure);
  }

  // Runs one block and adds it to the row's result; its figure, or 0 where there is none.
  double RunOne(std::size_t i) {
    RowResult& result = results_[i];
    if (!result.status.ok()) return 0;
    absl::StatusOr<Block> block = rows_[i]->RunBlock(options_.block_ns);
    if (!block.ok()) {
      result.status = block.status();
      rows_[i]->Teardown();
      NoteNamed();
      return 0;
    }
    for (uint32_t sample : block->samples_ns) result.latency.Record(sample);
    result.messages += block->messages;
    result.elapsed_ns += block->elapsed_ns;
    result.cpu_ns += block->cpu_ns;
    for (const auto& [name, count] : block->counts) result.counts[name] += count;
    if (!block->samples_ns.empty()) result.block_p50s_ns.push_back(MedianOfSamples(block->samples_ns));
    return FigureOf(rows_[i]->spec(), *block);
  }

  std::vector<std::unique_ptr<Row>> rows_;
  const RunOptions& options_;
  std::vector<RowResult> results_;
  std::set<std::string> named_;
  bool limit_first_ = false;
};

}  // namespace

uint32_t ClockStepNs() {
  static const uint32_t step_ns = [] {
    uint64_t least_ns = kNsPerUs, last_ns = NowNs();
    for (int reads = 0; reads < 10'000; ++reads) {
      const uint64_t now_ns = NowNs();
      if (now_ns != last_ns) least_ns = std::min(least_ns, now_ns - last_ns);
      last_ns = now_ns;
    }
    return static_cast<uint32_t>(least_ns);
  }();
  return step_ns;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double RowResult::messages_per_s() const {
  return elapsed_ns == 0 ? 0 : static_cast<double>(messages) * 1e9 / static_cast<double>(elapsed_ns);
}

std::map<std::string, double> RowResult::ratios() const {
  std::map<std::string, double> medians;
  for (const auto& [name, values] : block_ratios) medians[name] = Median(values);
  return medians;
}

absl::StatusOr<std::vector<RowResult>> RunRows(std::vector<std::unique_ptr<Row>> rows,
                                               const RunOptions& options) {
  const uint64_t start_ns = NowNs();
  WEFT_ASSIGN_OR_RETURN(const std::vector<bool> chosen, Choose(rows, options.filter));
  std::vector<std::unique_ptr<Row>> kept;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (chosen[i]) kept.push_back(std::move(rows[i]));
  }
  Turns turns(std::move(kept), options);
  turns.Setup();
  turns.NoteNamed();
  const auto more = [&](int round) {
    return turns.AnyLeft() && (round < options.rounds_min || NowNs() - start_ns < options.budget_ns);
  };
  for (int round = 0; more(round); ++round) {
    turns.Report(absl::StrCat("round ", round + 1, ", ", (NowNs() - start_ns) / kNsPerSecond, " of ",
                              options.budget_ns / kNsPerSecond, " s"));
    turns.Round();
  }
  return turns.TakeResults();
}

}  // namespace weft::bench
