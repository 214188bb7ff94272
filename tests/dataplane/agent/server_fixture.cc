// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/agent/server_fixture.h"

#include <google/protobuf/stubs/logging.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/api/protocol.h"
#include "dataplane/base/clock.h"
#include "dataplane/channel/layout.h"

namespace weft::agent::test {
namespace {

constexpr uint64_t kPatienceNs = 10 * kNsPerSecond;

}  // namespace

absl::StatusOr<UniqueFd> ConnectAs(const std::string& socket_path, std::optional<uid_t> uid) {
  if (!uid.has_value()) return ConnectUnix(socket_path);
  // The system call, unlike the function of libc, changes the calling thread only.
  constexpr uid_t kKeep = static_cast<uid_t>(-1);
  const uid_t own = geteuid();
  EXPECT_EQ(syscall(SYS_setresuid, kKeep, *uid, kKeep), 0);
  absl::StatusOr<UniqueFd> socket = ConnectUnix(socket_path);
  EXPECT_EQ(syscall(SYS_setresuid, kKeep, own, kKeep), 0);
  return socket;
}

Peer::Peer(const std::string& socket_path, std::optional<uid_t> uid) {
  absl::StatusOr<UniqueFd> socket = ConnectAs(socket_path, uid);
  EXPECT_TRUE(socket.ok()) << socket.status();
  if (socket.ok()) socket_ = *std::move(socket);
}

void Peer::SendBytes(absl::string_view bytes, absl::Span<const int> fds) {
  (void)SendMessage(socket_.get(), bytes, fds);
}

void Peer::Send(const api::FromHost& message, absl::Span<const int> fds) {
  SendBytes(message.SerializeAsString(), fds);
}

bool Peer::Hello(const std::string& host, std::vector<std::string> serves, bool runs_once) {
  api::FromHost message;
  message.mutable_hello()->set_protocol(kAgentProtocol);
  message.mutable_hello()->set_host(host);
  message.mutable_hello()->set_runs_once(runs_once);
  for (const std::string& function : serves) message.mutable_hello()->add_serves(function);
  Send(message);
  return PumpUntil([this] { return welcomed_; });
}

void Peer::Subscribe(const std::string& caller, const std::string& callee) {
  api::FromHost message;
  message.mutable_subscribe()->set_caller(caller);
  message.mutable_subscribe()->set_callee(callee);
  Send(message);
}

bool Peer::PumpUntil(const std::function<bool()>& done) {
  const uint64_t deadline_ns = NowNs() + kPatienceNs;
  while (!done()) {
    if (closed() || NowNs() > deadline_ns) return false;
    absl::StatusOr<ReceivedMessage> received = ReceiveMessage(socket_.get());
    if (absl::IsUnavailable(received.status())) {
      (void)WaitReady(socket_.get(), POLLIN, 20);
      continue;
    }
    if (!received.ok()) {
      closed_.store(true, std::memory_order_release);
      continue;
    }
    api::ToHost message;
    EXPECT_TRUE(message.ParseFromString(received->bytes));
    Obey(message, std::move(received->fds));
  }
  return true;
}

bool Peer::PumpUntilRouted(const std::string& caller, const std::string& callee) {
  return PumpUntil([&] {
    const auto route = routes_.find({caller, callee});
    return route != routes_.end() && !route->second.targets().empty();
  });
}

void Peer::MakeMemory(const api::ChannelOpen& open) {
  api::FromHost answer;
  answer.mutable_channel_memory()->set_id(open.id());
  UniqueFd made;
  int fd = -1;
  if (memory_maker_) {
    made = memory_maker_(open);
    fd = made.get();
  } else {
    absl::StatusOr<SideMemory> memory =
        SideMemory::Create("test", SideMemoryBytes(static_cast<uint32_t>(open.arena_bytes())));
    ASSERT_TRUE(memory.ok()) << memory.status();
    fd = memory->fd();
    memories_.emplace(open.id(), *std::move(memory));
  }
  Send(answer, absl::Span<const int>(&fd, fd < 0 ? 0 : 1));
}

void Peer::SendStats(const api::StatsQuery& query) {
  api::FromHost stats;
  stats.mutable_stats()->set_query(query.query());
  for (std::size_t i = 0; query.functions() && i < function_stats_.size(); ++i) {
    *stats.mutable_stats()->add_functions() = function_stats_[i];
    stats.mutable_stats()->set_more(true);
    Send(stats);
    stats.mutable_stats()->clear_functions();
    stats.mutable_stats()->clear_more();
  }
  if (query.functions()) return Send(stats);
  api::Counter& counter = *stats.mutable_stats()->add_host();
  counter.set_name("calls");
  counter.set_value(42);
  Send(stats);
}

void Peer::Obey(const api::ToHost& message, std::vector<UniqueFd> fds) {
  switch (message.kind_case()) {
    case api::ToHost::kWelcome:
      welcome_ = message.welcome();
      welcomed_ = true;
      break;
    case api::ToHost::kRefused:
      refusal_ = message.refused().reason();
      break;
    case api::ToHost::kRunOnce:
      runs_.push_back(message.run_once());
      if (!fds.empty()) module_fds_.push_back(std::move(fds[0]));
      break;
    case api::ToHost::kRoute:
      routes_[{message.route().caller(), message.route().callee()}] = message.route();
      break;
    case api::ToHost::kChannelOpen:
      MakeMemory(message.channel_open());
      break;
    case api::ToHost::kChannelPeer:
      EXPECT_EQ(fds.size(), 2u);
      channels_.insert(message.channel_peer().id());
      channel_fds_[message.channel_peer().id()] = std::move(fds);
      break;
    case api::ToHost::kChannelAccess:
      access_[message.channel_access().id()] = message.channel_access();
      break;
    case api::ToHost::kChannelClose:
      channels_.erase(message.channel_close().id());
      closes_[message.channel_close().id()] = message.channel_close();
      break;
    case api::ToHost::kPlace: {
      EXPECT_EQ(fds.size(), 1u);
      for (UniqueFd& fd : fds) module_fds_.push_back(std::move(fd));
      placed_.insert(message.place().function().name());
      if (on_place_) {
        on_place_(message.place());
        break;
      }
      api::FromHost report;
      report.mutable_function_report()->set_function(message.place().function().name());
      Send(report);
      break;
    }
    case api::ToHost::kUnplace: {
      placed_.erase(message.unplace().function());
      api::FromHost report;
      report.mutable_function_report()->set_function(message.unplace().function());
      report.mutable_function_report()->set_state(api::FunctionReport::GONE);
      Send(report);
      break;
    }
    case api::ToHost::kStatsQuery:
      SendStats(message.stats_query());
      break;
    case api::ToHost::kDrain: {
      api::FromHost drained;
      drained.mutable_drained();
      Send(drained);
      break;
    }
    default:
      break;
  }
  if (message.serial() == 0) return;
  api::FromHost applied;
  applied.mutable_applied()->set_serial(message.serial());
  Send(applied);
}

AdminPeer::AdminPeer(const std::string& socket_path, std::optional<uid_t> uid) {
  absl::StatusOr<UniqueFd> socket = ConnectAs(socket_path, uid);
  EXPECT_TRUE(socket.ok()) << socket.status();
  if (socket.ok()) socket_ = *std::move(socket);
}

void AdminPeer::Send(const api::AdminRequest& request) {
  EXPECT_TRUE(SendMessage(socket_.get(), request.SerializeAsString()).ok());
}

std::optional<api::AdminReply> AdminPeer::Next() {
  for (;;) {
    if (!WaitReady(socket_.get(), POLLIN, 10'000).ok()) return std::nullopt;
    const absl::StatusOr<ReceivedMessage> received = ReceiveMessage(socket_.get());
    if (absl::IsUnavailable(received.status())) continue;
    api::AdminReply reply;
    if (!received.ok() || !reply.ParseFromString(received->bytes)) return std::nullopt;
    if (!reply.has_registrations()) return reply;
    registrations_ = reply.registrations();
    if (told_) told_(registrations_);
  }
}

std::vector<api::Item> AdminPeer::Rows() {
  std::vector<api::Item> rows;
  for (;;) {
    const std::optional<api::AdminReply> reply = Next();
    if (!reply.has_value() || !reply->has_query_reply()) {
      ADD_FAILURE() << (reply.has_value() ? reply->failed().reason() : "no reply");
      return rows;
    }
    rows.insert(rows.end(), reply->query_reply().items().begin(), reply->query_reply().items().end());
    if (!reply->query_reply().more()) return rows;
  }
}

std::vector<api::Item> AdminPeer::Ask(api::Query::Kind kind, const std::vector<std::string>& functions) {
  api::AdminRequest request;
  request.mutable_query()->set_kind(kind);
  for (const std::string& function : functions) request.mutable_query()->add_functions(function);
  Send(request);
  return Rows();
}

std::vector<api::Item> AdminPeer::Explain(const std::string& caller, const std::string& callee) {
  api::AdminRequest request;
  request.mutable_explain()->set_caller(caller);
  request.mutable_explain()->set_callee(callee);
  Send(request);
  return Rows();
}

std::optional<api::Programmed> AdminPeer::Program(uint64_t generation, const api::Mesh& mesh) {
  api::AdminRequest request;
  api::Program& program = *request.mutable_program();
  program.set_generation(generation);
  program.set_snapshot(true);
  program.set_last(true);
  *program.mutable_upsert() = mesh;
  Send(request);
  const std::optional<api::AdminReply> reply = Next();
  if (!reply.has_value() || !reply->has_programmed()) return std::nullopt;
  return reply->programmed();
}

std::string Field(const api::Item& item, const std::string& name) {
  for (const api::Item::Field& field : item.fields()) {
    if (field.name() != name) continue;
    if (field.value_case() == api::Item::Field::kText) return field.text();
    return absl::StrCat(field.number());
  }
  return "";
}

ServerTest::ServerTest() {
  config_.node = "n1";
  config_.control_uid = geteuid();
  Tenant tenant;
  tenant.name = "web";
  tenant.uid = geteuid();
  tenant.hosts = {"a", "b", "c", "d"};
  tenant.serve = {"web/*"};
  tenant.call_as = "web";
  config_.tenants.push_back(tenant);
}

ServerTest::~ServerTest() { Stop(); }

void ServerTest::Start(const std::function<void()>& before_run) {
  google::protobuf::SetLogHandler(nullptr);  // As weftd does.
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  ServerOptions options;
  options.run_dir = run_dir();
  options.state_dir = directory_ / "state";
  options.config = config_;
  options.stop = UniqueFd(dup(stop_.get()));
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  if (before_run) before_run();
  thread_ = std::thread([this] { EXPECT_TRUE(server_->Run().ok()); });
}

void ServerTest::Stop() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  EXPECT_EQ(write(stop_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  thread_.join();
  server_.reset();
}

uint64_t ServerTest::Refused(const std::string& name) {
  AdminPeer admin(admin_sock());
  const std::vector<api::Item> rows = admin.Ask(api::Query::STATUS);
  uint64_t count = 0;
  if (rows.size() != 1 || !absl::SimpleAtoi(Field(rows[0], "refused_" + name), &count)) return 0;
  return count;
}

void ServerTest::ConnectBystanders() {
  front_ = std::make_unique<Peer>(agent_sock());
  back_ = std::make_unique<Peer>(agent_sock());
  ASSERT_TRUE(front_->Hello("a", {"web/front"}));
  ASSERT_TRUE(back_->Hello("b", {"web/back", "web/0"}));
  front_->Subscribe("web/front", "web/back");
  std::thread pump([this] { back_->PumpUntil([this] { return !back_->channels().empty(); }); });
  EXPECT_TRUE(front_->PumpUntilRouted("web/front", "web/back"));
  pump.join();
  EXPECT_EQ(front_->channels().size(), 1u);
}

// The two still have their channel, and a change still reaches them: the callee registers one function more
// and the caller gets its route.
void ServerTest::ExpectBystandersWell() {
  const std::string function = absl::StrCat("web/", ++questions_);
  const std::set<std::string> channels = front_->channels();
  api::FromHost report;
  report.mutable_function_report()->set_function(function);
  back_->Send(report);
  front_->Subscribe("web/front", function);
  bool done = false;
  std::thread pump([&] { back_->PumpUntil([&] { return __atomic_load_n(&done, __ATOMIC_ACQUIRE); }); });
  EXPECT_TRUE(front_->PumpUntilRouted("web/front", function));
  __atomic_store_n(&done, true, __ATOMIC_RELEASE);
  pump.join();
  EXPECT_EQ(front_->channels(), channels);
  EXPECT_FALSE(front_->closed());
  EXPECT_FALSE(back_->closed());
}

}  // namespace weft::agent::test
