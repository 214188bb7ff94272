// SPDX-License-Identifier: Apache-2.0
// Suite `steer`: what the XDP program costs a packet, beside the least that such a program does. Both are
// loaded with weft-control's capabilities (as root, the kernel leaves out its guards against speculation) and
// run by BPF_PROG_TEST_RUN on a packet of 64 B of payload with a socket in place, so that a good one ends in
// a redirect.
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/steer_minimal.skel.h"
#include "bench/suite_run.h"
#include "bench/suites.h"
#include "control/bpf/steer_program.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "tests/bpf/packet_builder.h"
#include "tests/support/capabilities.h"
#include "tests/support/network.h"

namespace weft::bench {
namespace {

using control::SteerProgram;

constexpr double kQuickSeconds = 8;
constexpr double kFullSeconds = 30;
constexpr uint32_t kKnownKey = 0x12345001;
constexpr uint32_t kUnknownKey = 0x12345002;
// One system call for so many packets: its microsecond is a quarter of a nanosecond of each.
constexpr uint32_t kPacketsPerSample = 4'000;
constexpr uint64_t kPayloadBytes = 64;

test::Packet PacketOf(uint32_t key_id) {
  return test::PacketBuilder(key_id).SealedBytes(4 + kPayloadBytes + WEFT_PACKET_TAG_BYTES).Build();
}

// An AF_XDP socket with a receive ring in the XSKMAP's entry 0, the queue of test runs.
absl::StatusOr<UniqueFd> PutSocket(int xsks_fd) {
  UniqueFd xsk(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!xsk.valid()) return absl::ErrnoToStatus(errno, "open an AF_XDP socket");
  const int entries = 64;
  if (setsockopt(xsk.get(), SOL_XDP, XDP_RX_RING, &entries, sizeof(entries)) != 0)
    return absl::ErrnoToStatus(errno, "make a receive ring");
  const uint32_t queue = 0;
  const int fd = xsk.get();
  if (const int error = bpf_map_update_elem(xsks_fd, &queue, &fd, BPF_ANY); error != 0)
    return absl::ErrnoToStatus(-error, "put the socket into the XSKMAP");
  return xsk;
}

// Attaches a program to a veth of its own. Then the kernel's dispatcher knows it, as that of an interface in
// service; else each test run would enter it there and wait for a grace period, twice.
class InService {
 public:
  absl::Status Attach(int program_fd) {
    network_.emplace();
    const test::InNamespace scope(network_->near());
    LIBBPF_OPTS(bpf_link_create_opts, options);
    options.flags = XDP_FLAGS_DRV_MODE;
    const int link = bpf_link_create(program_fd, network_->near_index(), BPF_XDP, &options);
    if (link < 0) return absl::ErrnoToStatus(-link, "attach to a veth");
    link_.Reset(link);
    return absl::OkStatus();
  }
  void Detach() {
    link_.Reset();
    network_.reset();
  }

 private:
  std::optional<test::VethPair> network_;
  UniqueFd link_;
};

// Runs a loaded program on one packet over and over.
class ProgramRow : public Row {
 public:
  ProgramRow(RowSpec spec, test::Packet packet, uint32_t action)
      : Row(std::move(spec)), packet_(std::move(packet)), action_(action) {}

  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) final {
    Block block;
    const uint64_t end_ns = NowNs() + duration_ns;
    WEFT_RETURN_IF_ERROR(RunPackets().status());  // Warm-up
    WEFT_RETURN_IF_ERROR(BeginCounting());
    do {
      WEFT_ASSIGN_OR_RETURN(const uint64_t ns, RunPackets());
      block.samples_ns.push_back(static_cast<uint32_t>(ns));
      block.messages += kPacketsPerSample;
      block.elapsed_ns += ns;
    } while (NowNs() < end_ns);
    block.cpu_ns = block.elapsed_ns;  // The system call runs on this thread.
    WEFT_RETURN_IF_ERROR(EndCounting(block.messages));
    return block;
  }

 protected:
  virtual int program_fd() const = 0;
  // Around the packets that count: a program that counted otherwise was not the one to measure.
  virtual absl::Status BeginCounting() { return absl::OkStatus(); }
  virtual absl::Status EndCounting(uint64_t packets) { return absl::OkStatus(); }

 private:
  // The time of kPacketsPerSample packets.
  absl::StatusOr<uint64_t> RunPackets() {
    LIBBPF_OPTS(bpf_test_run_opts, options);
    options.data_in = packet_.data();
    options.data_size_in = static_cast<uint32_t>(packet_.size());
    options.repeat = kPacketsPerSample;
    const uint64_t start_ns = NowNs();
    const int error = bpf_prog_test_run_opts(program_fd(), &options);
    const uint64_t ns = NowNs() - start_ns;
    if (error != 0) return absl::ErrnoToStatus(-error, absl::StrCat("run ", spec().name));
    if (options.retval != action_) {
      return absl::InternalError(
          absl::StrCat(spec().name, ": the packet ended with action ", options.retval, ", not ", action_));
    }
    return ns;
  }

  test::Packet packet_;
  uint32_t action_;
};

class MinimalRow final : public ProgramRow {
 public:
  MinimalRow()
      : ProgramRow(
            {.name = "limit/steer_minimal", .bytes = kPayloadBytes, .sample_messages = kPacketsPerSample},
            PacketOf(kKnownKey), XDP_REDIRECT) {}

  absl::Status Load() {
    // The third is for the socket.
    const test::OnlyCapabilities as_control{CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW};
    skeleton_ = steer_minimal_bpf__open_and_load();
    if (skeleton_ == nullptr) return absl::ErrnoToStatus(errno, "load the minimal program");
    WEFT_ASSIGN_OR_RETURN(socket_, PutSocket(bpf_map__fd(skeleton_->maps.xsks_map)));
    return absl::OkStatus();
  }
  absl::Status Setup() override {
    if (geteuid() != 0) return absl::PermissionDeniedError("loading a BPF program needs root");
    WEFT_RETURN_IF_ERROR(Load());
    return service_.Attach(program_fd());
  }
  void Teardown() override {
    service_.Detach();
    socket_.Reset();
    steer_minimal_bpf__destroy(std::exchange(skeleton_, nullptr));
  }

 private:
  int program_fd() const override { return bpf_program__fd(skeleton_->progs.steer_minimal); }

  steer_minimal_bpf* skeleton_ = nullptr;
  InService service_;
  UniqueFd socket_;
};

class SteerRow final : public ProgramRow {
 public:
  // `packets_per_second`: of the key that is let through.
  SteerRow(std::string name, uint32_t key_id, uint64_t packets_per_second, uint32_t action)
      : ProgramRow({.name = std::move(name),
                    .bytes = kPayloadBytes,
                    .against = {"limit/steer_minimal"},
                    .sample_messages = kPacketsPerSample},
                   PacketOf(key_id), action),
        packets_per_second_(packets_per_second) {}

  absl::Status Setup() override {
    if (geteuid() != 0) return absl::PermissionDeniedError("loading a BPF program needs root");
    WEFT_RETURN_IF_ERROR(Load());
    return service_.Attach(program_fd());
  }
  absl::Status Load() {
    const test::OnlyCapabilities as_control{CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW};
    WEFT_ASSIGN_OR_RETURN(SteerProgram program, SteerProgram::Load({}));
    WEFT_ASSIGN_OR_RETURN(port::SteerTable table, program.MapTable());
    WEFT_RETURN_IF_ERROR(table.Allow(kKnownKey, packets_per_second_));
    table.SetComplete();
    WEFT_ASSIGN_OR_RETURN(socket_, PutSocket(program.maps().xsks));
    program_.emplace(std::move(program));
    table_.emplace(std::move(table));
    return absl::OkStatus();
  }
  void Teardown() override {
    service_.Detach();
    socket_.Reset();
    table_.reset();
    program_.reset();
  }

 private:
  int program_fd() const override { return program_->fd(); }

  // Every packet was counted once, under the name that it ought to have.
  uint64_t Counted() const {
    const port::SteerCounters key = table_->Read(kKnownKey).value();
    return key.taken + key.drops[WEFT_DROP_RATE_LIMITED] + table_->ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY];
  }
  absl::Status BeginCounting() override {
    before_ = Counted();
    return absl::OkStatus();
  }
  absl::Status EndCounting(uint64_t packets) override {
    if (const uint64_t counted = Counted() - before_; counted != packets) {
      return absl::InternalError(
          absl::StrCat(spec().name, ": counted ", counted, " of ", packets, " packets"));
    }
    return absl::OkStatus();
  }

  uint64_t packets_per_second_;
  std::optional<SteerProgram> program_;
  std::optional<port::SteerTable> table_;
  InService service_;
  UniqueFd socket_;
  uint64_t before_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Row>> SteerRows() {
  // A packet each 10 ns, faster than the program is: none is refused. The bucket holds 10 ms of that, so it
  // runs empty every few blocks and is refilled, as one in service is.
  constexpr uint64_t kPacketsPerSecond = 100'000'000;
  std::vector<std::unique_ptr<Row>> rows;
  rows.push_back(std::make_unique<MinimalRow>());
  rows.push_back(std::make_unique<SteerRow>("weft/steer", kKnownKey, kPacketsPerSecond, XDP_REDIRECT));
  rows.push_back(
      std::make_unique<SteerRow>("weft/steer_unknown_key", kUnknownKey, kPacketsPerSecond, XDP_DROP));
  return rows;
}

absl::Status RunSteer(const SuiteOptions& options) {
  return RunSuite(SteerRows(), options, kQuickSeconds, kFullSeconds);
}

}  // namespace weft::bench
