// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_worker.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "control/source/propeller/module_exports.h"
#include "dataplane/base/durable_file.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

// 256 tasks of 1.5 KB, some of it escaped
constexpr std::size_t kTasksBytesMax = std::size_t{4} << 20;
constexpr std::size_t kQuotedBytesMax = 200;

std::string TasksPath(const PropellerWorkerOptions& options) { return options.state_dir + "/propeller.json"; }

}  // namespace

absl::StatusOr<std::unique_ptr<PropellerWorker>> PropellerWorker::Create(PropellerWorkerOptions options) {
  WEFT_ASSIGN_OR_RETURN(ModuleStore modules,
                        ModuleStore::Create(options.state_dir + "/modules", options.agent_uid));
  std::unique_ptr<PropellerWorker> worker(new PropellerWorker(std::move(options), std::move(modules)));
  worker->LoadTasks(NowNs());
  return worker;
}

PropellerWorker::PropellerWorker(PropellerWorkerOptions options, ModuleStore modules)
    : options_(std::move(options)),
      origin_(absl::StrCat("propeller-worker:", options_.base_topic)),
      modules_(std::move(modules)),
      tasks_(options_.ns, options_.host),
      problem_("the agent has not said yet which node this is") {}

void PropellerWorker::LoadTasks(uint64_t now_ns) {
  const std::string path = TasksPath(options_);
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kTasksBytesMax);
  if (absl::IsNotFound(text.status())) return modules_.KeepOnly({});
  absl::Status status = text.status();
  if (status.ok()) {
    status = tasks_.Load(*text, [this](const std::string& sha256) { return modules_.Check(sha256); }, now_ns);
  }
  if (!status.ok()) Note(absl::StrCat(path, ": ", status.message(), "; tasks of the last run are lost"));
  modules_.KeepOnly(tasks_.Modules());
}

bool PropellerWorker::SaveTasks() {
  const absl::Status status = ReplaceFile(TasksPath(options_), tasks_.Save(), 0600);
  if (!status.ok()) {
    Note(absl::StrCat("tasks are not saved, a restart would forget them: ", status.message()));
  }
  return status.ok();
}

void PropellerWorker::Note(const std::string& what) {
  ++errors_;
  if (what != last_note_) notes_.push_back(absl::StrCat(origin_, ": ", what));
  last_note_ = what;
}

void PropellerWorker::AddPollEntries(std::vector<pollfd>* entries) const {
  if (mqtt_ != nullptr) entries->push_back({mqtt_->fd(), POLLIN, 0});
  if (caller_ != nullptr) entries->push_back({caller_->done_fd(), POLLIN, 0});
}

std::vector<SourceChange> PropellerWorker::OnEvents(const std::vector<pollfd>& /*entries*/, uint64_t now_ns) {
  now_ns_ = now_ns;
  if (mqtt_ == nullptr) return {};
  for (const MqttEvent& event : mqtt_->Take()) TakeEvent(event);
  if (caller_ != nullptr) {
    for (const FunctionCallEnded& ended : caller_->TakeDone()) tasks_.CallEnded(ended);
  }
  return TakeChanges();
}

uint64_t PropellerWorker::wake_ns() const {
  if (due_) return 1;
  uint64_t wake_ns = tasks_.wake_ns();
  if (connect_at_ns_ != 0 && (wake_ns == 0 || connect_at_ns_ < wake_ns)) wake_ns = connect_at_ns_;
  for (const uint64_t at_ns : {beat_at_ns_, ask_at_ns_, metrics_.wake_ns()}) {
    if (subscribed_ && at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
  }
  return wake_ns;
}

std::vector<SourceChange> PropellerWorker::OnTime(uint64_t now_ns) {
  now_ns_ = now_ns;
  if (connect_at_ns_ != 0 && now_ns >= connect_at_ns_) Connect();
  tasks_.OnTime(now_ns);
  if (subscribed_ && now_ns >= beat_at_ns_) Beat();
  if (subscribed_ && ask_at_ns_ != 0 && now_ns >= ask_at_ns_) AskAgain();
  if (subscribed_) asked_ = metrics_.TakeDue(now_ns);
  return TakeChanges();
}

void PropellerWorker::OnAgent(const std::string& node) {
  if (node.empty() || !node_.empty()) return;
  node_ = node;
  proplet_ = options_.proplet.empty() ? node : options_.proplet;
  due_ = true;
  Connect();
}

void PropellerWorker::Connect() {
  MqttOptions mqtt = options_.mqtt;
  mqtt.topics.clear();
  for (const std::string& topic : PropellerCommandTopics()) {
    mqtt.topics.push_back(absl::StrCat(options_.base_topic, "/", topic));
  }
  // Starts and stops that are said while this process restarts, or its connection does, come after all.
  mqtt.session = absl::StrCat("weft-", proplet_);
  mqtt.will_topic = absl::StrCat(options_.base_topic, "/control/proplet/alive");
  mqtt.will = AliveText(proplet_, false);
  absl::StatusOr<std::unique_ptr<MqttClient>> client = MqttClient::Create(mqtt);
  connect_at_ns_ = client.ok() ? 0 : NowNs() + kConnectAgainNs;
  if (!client.ok()) return Lost(std::string(client.status().message()));
  mqtt_ = *std::move(client);
  problem_ = absl::StrCat("MQTT broker ", mqtt.host, ":", mqtt.port, ": no connection yet");
}

void PropellerWorker::OnProgrammed(const MeshState& mesh, const std::vector<std::string>& failed, bool all) {
  if (node_.empty()) return;
  tasks_.OnProgrammed(node_, mesh, failed, all, NowNs());
  if (all) modules_.KeepOnly(tasks_.Modules());
  due_ = true;
}

void PropellerWorker::OnAgentLost() {
  if (node_.empty()) return;
  tasks_.LoseRuns("the agent of this node went away while it ran; what came of it is lost");
  due_ = true;
}

void PropellerWorker::OnRunEnded(const api::RunEnded& ended) {
  tasks_.Ended(ended);
  due_ = true;
}

void PropellerWorker::OnFunctions(const std::vector<api::Item>& functions) {
  for (const auto& [task, usage] : metrics_.Take(functions, NowNs())) {
    if (subscribed_) Say("control/proplet/task_metrics", TaskMetricsText(proplet_, task, usage));
  }
}

void PropellerWorker::TakeEvent(const MqttEvent& event) {
  switch (event.kind) {
    case MqttEvent::Kind::kSubscribed:
      return Begin();
    case MqttEvent::Kind::kLost:
      subscribed_ = false;
      return Lost(event.text);
    case MqttEvent::Kind::kOverflow:
      return Note("messages came faster than they were taken: starts and stops may be lost");
    case MqttEvent::Kind::kMessage:
      return TakeMessage(event);
  }
}

void PropellerWorker::Begin() {
  subscribed_ = true;
  problem_.clear();
  lost_ns_ = 0;
  // Once for each process, as Propeller has it.
  if (!std::exchange(created_, true)) Say("control/proplet/create", CreateText(proplet_));
  Beat();
  AskRegistry();
}

void PropellerWorker::Beat() {
  Say("control/proplet/alive", AliveText(proplet_, true));
  Say("control/proplet/metrics", MetricsText(proplet_));
  // Kept by the broker for nodes that come later; said again in case that it lost it.
  Say(kWorkerTopic + proplet_, WorkerText(node_, options_.host, tasks_.Placements()), true);
  beat_at_ns_ = now_ns_ + kBeatNs;
}

void PropellerWorker::AskRegistry() {
  chunks_.BeginAnew();
  tasks_.WaitAnew(now_ns_);
  for (const std::string& image : tasks_.Images()) {
    chunks_.Want(image);
    Say("registry/proplet", RegistryText(image));
    ask_at_ns_ = now_ns_ + kAskAgainNs;
  }
}

void PropellerWorker::AskAgain() {
  ask_at_ns_ = 0;
  const std::set<std::string> images = tasks_.Images();
  for (const std::string& image : chunks_.Silent()) {
    if (!images.contains(image)) continue;
    Say("registry/proplet", RegistryText(image));
    ask_at_ns_ = now_ns_ + kAskAgainNs;
  }
}

void PropellerWorker::Say(const std::string& topic, const std::string& payload, bool retain) {
  if (mqtt_->Publish(absl::StrCat(options_.base_topic, "/", topic), payload, retain)) return;
  Note(absl::StrCat("cannot say anything on ", topic));
}

void PropellerWorker::Lost(const std::string& why) {
  ++errors_;
  if (why != problem_) notes_.push_back(absl::StrCat(origin_, ": ", why, "; trying again"));
  problem_ = why;
  if (lost_ns_ == 0 && created_) lost_ns_ = now_ns_;
}

void PropellerWorker::TakeMessage(const MqttEvent& event) {
  absl::string_view topic = event.topic;
  if (!absl::ConsumePrefix(&topic, options_.base_topic + "/")) return;
  ++events_;
  last_event_ns_ = event.at_ns;
  const std::string where = absl::StrCat("a message on ", Utf8Prefix(event.topic, kQuotedBytesMax));
  // Propeller keeps none: who knows of when it is.
  if (event.retained) return Note(where + " is not taken: the broker kept it from an earlier time");
  absl::StatusOr<PropellerCommand> command = ParsePropellerCommand(topic, event.text);
  if (!command.ok()) {
    // Never the payload: it may hold secrets.
    return Note(absl::StrCat(where, " is not taken: ", command.status().message()));
  }
  if (event_ns_ == 0) event_ns_ = event.at_ns;
  switch (command->kind) {
    case PropellerCommand::Kind::kStart:
      return Start(*std::move(command));
    case PropellerCommand::Kind::kStop:
      return tasks_.Stop(command->task, now_ns_);  // Whoever it is for, as Propeller's own worker does.
    case PropellerCommand::Kind::kInvoke:
      if (!command->IsFor(proplet_)) return;
      return tasks_.Invoke(*command, now_ns_);
    case PropellerCommand::Kind::kChunk:
      return TakeChunk(*std::move(command));
    case PropellerCommand::Kind::kOther:
      return;
  }
}

void PropellerWorker::Start(PropellerCommand start) {
  if (!start.IsFor(proplet_)) return;
  // Those who waited for it before have given up.
  if (!tasks_.Images().contains(start.image)) chunks_.Forget(start.image);
  if (!tasks_.Start(start, now_ns_)) return;
  if (start.image.empty()) {
    const absl::StatusOr<std::string> sha256 = modules_.Put(start.module);
    if (!sha256.ok()) return tasks_.Fail(start.task, std::string(sha256.status().message()));
    return tasks_.ModuleOf(start.task, *sha256, Serves(start.module, *sha256), now_ns_);
  }
  if (!chunks_.Want(start.image) || !subscribed_) return;
  Say("registry/proplet", RegistryText(start.image));
  ask_at_ns_ = now_ns_ + kAskAgainNs;
}

bool PropellerWorker::Serves(absl::string_view module, const std::string& sha256) {
  const bool serves = ServesCalls(module);
  if (!serves) run_modules_.insert(sha256);
  return serves;
}

void PropellerWorker::StartCalls() {
  for (FunctionCall& call : tasks_.TakeCalls()) {
    if (caller_ == nullptr) {
      absl::StatusOr<std::unique_ptr<FunctionCaller>> caller =
          FunctionCaller::Create(options_.run_dir, options_.ns);
      if (!caller.ok()) {
        tasks_.CallEnded({call.id, caller.status(), ""});
        continue;
      }
      caller_ = *std::move(caller);
    }
    caller_->Add(std::move(call));
  }
}

// No generation takes these back, as OnProgrammed() does others.
void PropellerWorker::SweepRuns() {
  if (run_modules_.empty()) return;
  const std::set<std::string> needed = tasks_.Modules();
  std::erase_if(run_modules_, [&](const std::string& sha256) {
    if (needed.contains(sha256)) return false;
    modules_.Remove(sha256);
    return true;
  });
}

void PropellerWorker::TakeChunk(PropellerCommand chunk) {
  if (!chunks_.Wanted(chunk.image)) return;
  if (!tasks_.Images().contains(chunk.image))
    return chunks_.Forget(chunk.image);  // All that waited for it have ended.
  const absl::StatusOr<std::string> module =
      chunks_.Take(chunk.image, chunk.chunk_index, chunk.chunks, std::move(chunk.module));
  if (module.ok() && module->empty()) return;
  const absl::StatusOr<std::string> sha256 = module.ok() ? modules_.Put(*module) : module;
  if (sha256.ok()) return tasks_.Module(chunk.image, *sha256, Serves(*module, *sha256), now_ns_);
  tasks_.FailImage(chunk.image, absl::StrCat(chunk.image, ": ", sha256.status().message()));
}

std::vector<SourceChange> PropellerWorker::TakeChanges() {
  std::vector<SourceChange> changes;
  if (node_.empty()) return changes;
  due_ = false;
  const bool changed = tasks_.TakeChanged();
  // What is run once must be known to have begun before it does.
  if (changed && !SaveTasks()) tasks_.DropRuns("it was not run: that it begins could not be saved");
  for (api::RunOnce& run :
       tasks_.TakeRuns([this](const std::string& sha256) { return modules_.PathOf(sha256); })) {
    runs_.push_back(std::move(run));
  }
  if (tasks_.TakeChanged()) SaveTasks();  // Some of them are not run.
  StartCalls();
  SweepRuns();
  if (changed) metrics_.Follow(tasks_.Measured(), now_ns_);
  if (changed || !std::exchange(spoken_, true)) {
    spoken_ = true;
    if (subscribed_)
      Say(kWorkerTopic + proplet_, WorkerText(node_, options_.host, tasks_.Placements()), true);
    SourceChange& change = changes.emplace_back();
    change.origin = origin_;
    change.cause = absl::StrCat("propeller command ", events_);
    change.event_ns = event_ns_;
    SourceMesh mesh;
    mesh.origin = origin_;
    mesh.open = true;
    mesh.allow_shrink = true;
    Said<api::Node>& node = mesh.nodes.emplace_back();
    node.value.set_name(node_);
    node.implied = true;
    for (api::Endpoint& endpoint :
         tasks_.Endpoints(node_, [this](const std::string& sha256) { return modules_.PathOf(sha256); })) {
      mesh.endpoints.push_back({std::move(endpoint), Where{}, true});
    }
    change.offer = OfferOf(mesh);
  }
  event_ns_ = 0;
  for (PropellerTasks::Report& report : tasks_.TakeReports()) {
    if (!report.error.empty()) Note(absl::StrCat("task ", report.task, ": ", report.error));
    if (reports_.size() < PropellerTasks::kReportsMax) reports_.push_back(std::move(report));
  }
  if (!subscribed_) return changes;
  // After what the other nodes are told: whoever acts upon a result finds the task where it is.
  for (const PropellerTasks::Report& report : std::exchange(reports_, {})) {
    SayReport(report);
  }
  return changes;
}

void PropellerWorker::SayReport(const PropellerTasks::Report& report) {
  const auto& [task, error, results, usage, invoked, invocation] = report;
  if (invoked) {
    return Say("control/proplet/invoke_results",
               InvokeResultText(proplet_, task, invocation, results, error));
  }
  if (usage.elapsed_ns != 0) {
    Say("control/proplet/task_metrics", TaskMetricsText(proplet_, task, usage));
  }
  Say("control/proplet/results", ResultText(proplet_, task, results, error));
}

std::string PropellerWorker::Describe() const {
  return absl::StrCat("propeller worker ", proplet_, " ", options_.mqtt.host, ":", options_.mqtt.port, " ",
                      options_.base_topic, " (", tasks_.size(), " tasks)");
}

SourceHealth PropellerWorker::Health() const {
  SourceHealth health;
  health.synced = subscribed_;
  health.events = events_;
  health.last_event_ns = last_event_ns_;
  health.errors = errors_;
  health.lost_ns = lost_ns_;
  health.problem = problem_;
  return health;
}

}  // namespace weft::control
