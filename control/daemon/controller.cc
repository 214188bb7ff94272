// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/controller.h"

#include <malloc.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

// A change is saved when it is acknowledged, at the latest after this time.
constexpr uint64_t kSaveNs = kNsPerSecond;
// And so long after the save before, which takes some 50 ns of this thread an entry and a microsecond of the
// writer's: 5.5 s for 110,000 entries. What changed meanwhile is lost in a crash.
constexpr uint64_t kSavePausePerEntryNs = 50 * kNsPerUs;

// Changes at once after which the memory that taking them needed is given back, and that of sending them.
constexpr std::size_t kTrimChanges = 10'000;

}  // namespace

absl::StatusOr<std::unique_ptr<Controller>> Controller::Create(ControllerOptions options) {
  auto controller = std::unique_ptr<Controller>(new Controller(std::move(options)));
  WEFT_RETURN_IF_ERROR(controller->Start());
  return controller;
}

Controller::Controller(ControllerOptions options)
    : options_(std::move(options)), model_(options_.allow_shrink) {}

Controller::~Controller() {
  if (writer_ == nullptr) return;
  if (save_at_ns_ != 0) Save();
  TellSaveError(writer_->Finish());
}

absl::Status Controller::Start() {
  start_ns_ = NowNs();
  WEFT_ASSIGN_OR_RETURN(writer_, StateWriter::Create(options_.state_dir));
  Restore();
  std::vector<SourceChange> first_scan;
  if (!options_.source.empty()) {
    FileSourceOptions options;
    options.path = options_.source;
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<FileSource> files, FileSource::Create(options));
    first_scan = files->Scan();
    sources_.push_back({std::move(files)});
  }
  const uint64_t seed = NowNs() ^ static_cast<uint64_t>(getpid());
  if (options_.etcd.has_value()) {
    WEFT_ASSIGN_OR_RETURN(http_, HttpClient::Create());
    EtcdSourceOptions options;
    options.etcd = *options_.etcd;
    options.seed = seed;
    options.allow_shrink = options_.allow_shrink;
    sources_.push_back({std::make_unique<EtcdSource>(std::move(options), http_.get())});
    if (options_.presence.has_value()) {
      presence_ = std::make_unique<EtcdPresence>(*options_.presence, http_.get());
    }
  }
  if (options_.propeller.has_value()) WEFT_RETURN_IF_ERROR(StartPropeller(seed));
  if (options_.kubernetes.has_value()) {
    KubeWatchOptions options;
    options.seed = seed;
    options.allow_shrink = options_.allow_shrink;
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<KubeSource> kube,
                          KubeSource::Create(*options_.kubernetes, options));
    sources_.push_back({std::move(kube)});
  }
  AgentLink::Options link;
  link.socket_path = options_.admin_socket;
  link.seed = seed;
  link_ = std::make_unique<AgentLink>(std::move(link), first_generation_, &model_.state(),
                                      static_cast<AgentLinkObserver*>(this));
  TakeFirstScan(std::move(first_scan));
  return absl::OkStatus();
}

absl::Status Controller::StartPropeller(uint64_t seed) {
  PropellerOptions options = *options_.propeller;
  options.seed = seed;
  options.allow_shrink = options_.allow_shrink;
  if (options.worker) {
    PropellerWorkerOptions worker;
    worker.mqtt = options.mqtt;
    worker.base_topic = options.base_topic;
    worker.ns = options.ns;
    worker.host = options.host;
    worker.proplet = options.proplet;
    worker.run_dir = options_.admin_socket.substr(0, options_.admin_socket.rfind('/'));
    worker.state_dir = options_.state_dir;
    worker.agent_uid = options_.agent_uid;
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<PropellerWorker> source,
                          PropellerWorker::Create(std::move(worker)));
    sources_.push_back({std::move(source)});
  }
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<PropellerSource> source, PropellerSource::Create(std::move(options)));
  sources_.push_back({std::move(source)});
  return absl::OkStatus();
}

void Controller::Restore() {
  absl::StatusOr<LastGood> last_good = LoadLastGood(options_.state_dir);
  if (absl::IsNotFound(last_good.status())) return;
  if (!last_good.ok()) {
    spdlog::error("{}; going on without a last good state", std::string(last_good.status().message()));
    return;
  }
  first_generation_ = last_good->generation;
  const std::size_t count = last_good->sources.size();
  if (model_.Restore(std::move(last_good->sources))) {
    spdlog::info("restored the last good state of {} sources, generation {}", count, first_generation_);
  } else {
    spdlog::error("the last good state in {} contradicts itself; going on without it", options_.state_dir);
  }
}

void Controller::TakeFirstScan(std::vector<SourceChange> changes) {
  std::set<std::string> present;
  for (const SourceChange& change : changes) present.insert(change.origin);
  std::vector<std::string> missing;
  for (const auto& accepted : model_.claims().origins()) {
    const std::string& origin = accepted.first;
    const bool to_come = std::any_of(sources_.begin(), sources_.end(), [&origin](const Watched& each) {
      return each.source->Owns(origin) && !each.source->ReadsAtStart();
    });
    if (!present.contains(origin) && !to_come) missing.push_back(origin);
  }
  LogNotes();
  std::vector<std::string> origins;
  for (SourceChange& change : changes) origins.push_back(Offer(std::move(change)));
  for (const std::string& origin : missing) {
    spdlog::warn("{} is gone since the last run", origin);
    model_.Withdraw(origin);
  }
  Evaluate("start", 0, origins);
  // Also without a change: the agent may hold less than the last good state. Never an empty one that nobody
  // asked for.
  if (revision_ == 0 && (!model_.state().empty() || model_.ShrinkAllowed())) {
    record_.Add(++revision_, "start", 0);
    link_->SetTarget({}, revision_);
  }
  spdlog::info("watching {}: {} nodes, {} functions, {} endpoints, {} rules", DescribeSources(),
               model_.state().count(EntryKind::kNode), model_.state().count(EntryKind::kFunction),
               model_.state().count(EntryKind::kEndpoint), model_.state().count(EntryKind::kAllow));
}

// Runs and questions go to the agent beside the generations: nothing of the mesh depends on them. What cannot
// be asked now is asked again when it is time.
void Controller::TakeRuns() {
  for (const Watched& each : sources_) {
    for (const api::RunOnce& run : each.source->TakeRuns()) {
      if (link_->Run(run)) continue;
      api::RunEnded ended;
      ended.set_run(run.run());
      ended.set_error("weft-control has no connection to the agent of this node; it has not run");
      each.source->OnRunEnded(ended);
    }
    if (const std::vector<std::string> asked = each.source->TakeAsked(); !asked.empty()) link_->Ask(asked);
  }
}

void Controller::OnRunEnded(const api::RunEnded& ended) {
  for (const Watched& each : sources_) each.source->OnRunEnded(ended);
}

void Controller::OnFunctions(const std::vector<api::Item>& functions) {
  for (const Watched& each : sources_) each.source->OnFunctions(functions);
}

void Controller::TakeChanges(std::vector<SourceChange> changes) {
  LogNotes();
  TakeRuns();
  for (const Watched& each : sources_) {
    for (const SourceOffer& offer : each.source->TakePrepared()) model_.Prepare(offer);
  }
  if (changes.empty()) return;
  uint64_t event_ns = changes.front().event_ns;
  std::string cause = changes.front().cause;
  for (const SourceChange& change : changes) event_ns = std::min(event_ns, change.event_ns);
  if (changes.size() > 1) absl::StrAppend(&cause, " and ", changes.size() - 1, " more");
  std::vector<std::string> origins;
  for (SourceChange& change : changes) origins.push_back(Offer(std::move(change)));
  Evaluate(cause, event_ns, origins);
}

std::string Controller::Offer(SourceChange change) {
  std::string origin = change.origin;
  if (change.gone) {
    spdlog::warn("{} is gone", change.origin);
    model_.Withdraw(change.origin);
  } else if (change.errors.empty()) {
    change.offer.origin = change.origin;
    model_.Offer(std::move(change.offer));
  } else {
    for (const std::string& line : change.errors) spdlog::error("{}", line);
    spdlog::warn("{} is not taken; its last good state stays in force", change.origin);
    model_.OfferUnreadable(change.origin, std::move(change.errors));
  }
  return origin;
}

void Controller::Evaluate(const std::string& cause, uint64_t event_ns,
                          const std::vector<std::string>& origins) {
  Model::Outcome outcome = model_.Evaluate();
  const bool told = TellErrors(outcome.errors);
  if (!outcome.changed()) {
    if (event_ns == 0 || told) return;
    if (outcome.errors.empty()) {
      spdlog::info("{}: nothing changed", cause);
    } else {
      spdlog::warn("{}: nothing changed; {} errors stand as before", cause, outcome.errors.size());
    }
    return;
  }
  record_.Add(++revision_, cause, event_ns);
  for (Watched& each : sources_) {
    const bool spoke = std::any_of(origins.begin(), origins.end(),
                                   [&each](const std::string& origin) { return each.source->Owns(origin); });
    if (!spoke) continue;
    each.revision = revision_;
    each.generation = 0;
    if (each.first_ns == 0) each.first_ns = NowNs() - start_ns_;
  }
  if (save_at_ns_ == 0) save_at_ns_ = std::max(NowNs() + kSaveNs, NextSaveNs());
  link_->SetTarget(outcome.changes, revision_);
  if (outcome.changes.size() >= kTrimChanges) {
    outcome = {};
    malloc_trim(0);
    trim_ = true;
  }
}

// What is held back is so at each event until it is mended: logs the errors that were not there at the last
// one. True where there were some.
bool Controller::TellErrors(const std::vector<std::string>& errors) {
  std::set<std::string> standing(errors.begin(), errors.end());
  bool told = false;
  for (const std::string& line : errors) {
    if (standing_errors_.contains(line)) continue;
    spdlog::error("{}", line);
    told = true;
  }
  if (told) spdlog::warn("what has errors is not taken; its last good state stays in force");
  standing_errors_ = std::move(standing);
  return told;
}

void Controller::LogNotes() {
  for (const Watched& each : sources_) {
    for (const std::string& note : each.source->TakeNotes()) spdlog::warn("{}", note);
  }
  if (presence_ == nullptr) return;
  for (const std::string& note : presence_->TakeNotes()) spdlog::warn("{}", note);
}

void Controller::AddPollEntries(std::vector<pollfd>* entries) const {
  for (const Watched& each : sources_) each.source->AddPollEntries(entries);
  entries->push_back({writer_->error_fd(), POLLIN, 0});
  if (link_->fd() >= 0) entries->push_back({link_->fd(), link_->poll_events(), 0});
}

void Controller::OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) {
  // What has just come goes first. That an earlier change is in force is only told on, and may begin a save.
  const int link_fd = link_->fd();
  for (const pollfd& entry : entries) {
    // But where the agent has gone, its last words: to say something to it would lose them.
    const bool gone = (entry.revents & (POLLHUP | POLLERR)) != 0;
    if (gone && entry.fd == link_fd) link_->OnEvents(entry.revents, now_ns);
  }
  std::vector<SourceChange> changes;
  for (const Watched& each : sources_) {
    std::vector<SourceChange> more = each.source->OnEvents(entries, now_ns);
    std::move(more.begin(), more.end(), std::back_inserter(changes));
  }
  TakeChanges(std::move(changes));
  for (const pollfd& entry : entries) {
    if (entry.revents == 0) continue;
    if (entry.fd == link_fd && link_->fd() == link_fd) link_->OnEvents(entry.revents, now_ns);
    if (entry.fd == writer_->error_fd()) TellSaveError(writer_->TakeError());
  }
}

uint64_t Controller::wake_ns() const {
  uint64_t wake_ns = 0;
  const auto earlier = [&wake_ns](uint64_t at_ns) {
    if (at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
  };
  for (const Watched& each : sources_) earlier(each.source->wake_ns());
  if (presence_ != nullptr) earlier(presence_->wake_ns());
  earlier(link_->wake_ns());
  earlier(save_at_ns_);
  return wake_ns;
}

void Controller::OnTime(uint64_t now_ns) {
  std::vector<SourceChange> changes;
  for (const Watched& each : sources_) {
    if (const uint64_t at_ns = each.source->wake_ns(); at_ns == 0 || now_ns < at_ns) continue;
    std::vector<SourceChange> more = each.source->OnTime(now_ns);
    std::move(more.begin(), more.end(), std::back_inserter(changes));
  }
  if (presence_ != nullptr && presence_->wake_ns() != 0 && now_ns >= presence_->wake_ns())
    presence_->OnTime(now_ns);
  TakeChanges(std::move(changes));
  link_->OnTime(now_ns);
  if (save_at_ns_ != 0 && now_ns >= save_at_ns_) Save();
}

uint64_t Controller::NextSaveNs() const {
  if (saved_at_ns_ == 0) return 0;
  return saved_at_ns_ + model_.state().size() * kSavePausePerEntryNs;
}

void Controller::SaveSoon() {
  const uint64_t now_ns = NowNs();
  save_at_ns_ = std::max(now_ns, NextSaveNs());
  if (save_at_ns_ == now_ns) Save();
}

void Controller::Save() {
  save_at_ns_ = 0;
  saved_at_ns_ = NowNs();
  writer_->Write({link_ == nullptr ? first_generation_ : link_->generation(), model_.Accepted()});
}

void Controller::TellSaveError(const absl::Status& error) {
  if (!error.ok()) spdlog::error("cannot save the last good state: {}", std::string(error.message()));
}

}  // namespace weft::control
