// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/steer_program.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "bpf/steer.skel.h"
#include "control/bpf/libbpf_log.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

absl::Status Reuse(steer_bpf* skeleton, const SteerMaps& maps) {
  const std::pair<bpf_map*, int> all[] = {{skeleton->maps.bss, maps.keys},
                                          {skeleton->maps.weft_drops, maps.drops},
                                          {skeleton->maps.xsks_map, maps.xsks}};
  for (const auto& [map, fd] : all) {
    if (fd < 0) continue;
    if (const int error = bpf_map__reuse_fd(map, fd); error != 0) {
      return absl::ErrnoToStatus(-error, absl::StrCat("re-use map ", bpf_map__name(map)));
    }
  }
  return absl::OkStatus();
}

// FNV-1a over 64 bits: what tells two layouts apart needs no more.
class Hash {
 public:
  void Add(absl::string_view bytes) {
    for (const char byte : bytes) {
      value_ ^= static_cast<uint8_t>(byte);
      value_ *= 0x100000001b3;
    }
  }
  void AddNumber(uint64_t number) { Add(absl::StrCat(number, ";")); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

// A structure's name and size, and each field's. Nested structures do not occur in maps.
void AddStructure(const btf* types, const char* name, Hash* hash) {
  const int id = btf__find_by_name_kind(types, name, BTF_KIND_STRUCT);
  if (id < 0) return;
  const btf_type* const type = btf__type_by_id(types, static_cast<uint32_t>(id));
  hash->Add(name);
  hash->AddNumber(type->size);
  const btf_member* const members = btf_members(type);
  for (int i = 0; i < btf_vlen(type); ++i) {
    hash->Add(btf__name_by_offset(types, members[i].name_off));
    hash->AddNumber(btf_member_bit_offset(type, i));
    hash->AddNumber(static_cast<uint64_t>(btf__resolve_size(types, members[i].type)));
  }
}

}  // namespace

void SteerProgram::Close::operator()(steer_bpf* skeleton) const { steer_bpf__destroy(skeleton); }

SteerProgram::SteerProgram(std::unique_ptr<steer_bpf, Close> skeleton, const SteerConfig& config)
    : skeleton_(std::move(skeleton)), config_(config) {}
SteerProgram::SteerProgram(SteerProgram&&) noexcept = default;
SteerProgram& SteerProgram::operator=(SteerProgram&&) noexcept = default;
SteerProgram::~SteerProgram() = default;

absl::StatusOr<SteerProgram> SteerProgram::Load(const SteerConfig& config, const SteerMaps* reuse) {
  if (config.port == 0) return absl::InvalidArgumentError("steer: port 0 is none");
  LibbpfLog log;
  std::unique_ptr<steer_bpf, Close> skeleton(steer_bpf__open());
  if (skeleton == nullptr) return log.ToStatus(errno, "open the program steer");
  skeleton->rodata->weft_config.port_be = htons(config.port);
  WEFT_ASSIGN_OR_RETURN(const uint32_t cpus, PossibleCpus());
  bpf_map__set_max_entries(skeleton->maps.weft_drops, cpus);
  if (reuse != nullptr) WEFT_RETURN_IF_ERROR(Reuse(skeleton.get(), *reuse));
  if (const int error = steer_bpf__load(skeleton.get()); error != 0) {
    return log.ToStatus(-error, "load the program steer (it takes CAP_BPF and CAP_NET_ADMIN)");
  }
  return SteerProgram(std::move(skeleton), config);
}

int SteerProgram::fd() const { return bpf_program__fd(skeleton_->progs.weft_steer); }

SteerMaps SteerProgram::maps() const {
  return {.keys = bpf_map__fd(skeleton_->maps.bss),
          .drops = bpf_map__fd(skeleton_->maps.weft_drops),
          .xsks = bpf_map__fd(skeleton_->maps.xsks_map)};
}

absl::StatusOr<port::SteerTable> SteerProgram::MapTable() const {
  WEFT_ASSIGN_OR_RETURN(const uint32_t cpus, PossibleCpus());
  return port::SteerTable::Map(maps().keys, maps().drops, cpus);
}

absl::StatusOr<UniqueFd> SteerProgram::Attach(int interface_index, bool generic) const {
  LIBBPF_OPTS(bpf_link_create_opts, options);
  options.flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
  const int link = bpf_link_create(fd(), interface_index, BPF_XDP, &options);
  if (link < 0) {
    return absl::ErrnoToStatus(-link, absl::StrCat("attach steer to interface ", interface_index,
                                                   generic ? ", generic" : ", native"));
  }
  return UniqueFd(link);
}

absl::StatusOr<uint64_t> SteerLayout() {
  LibbpfLog log;
  const std::unique_ptr<steer_bpf, void (*)(steer_bpf*)> skeleton(steer_bpf__open(), steer_bpf__destroy);
  if (skeleton == nullptr) return log.ToStatus(errno, "open the program steer");
  const btf* const types = bpf_object__btf(skeleton->obj);
  Hash hash;
  for (const bpf_map* map : {skeleton->maps.bss, skeleton->maps.weft_drops, skeleton->maps.xsks_map}) {
    for (const uint32_t number : {static_cast<uint32_t>(bpf_map__type(map)), bpf_map__map_flags(map),
                                  bpf_map__key_size(map), bpf_map__value_size(map)}) {
      hash.AddNumber(number);
    }
  }
  AddStructure(types, "weft_steer_key", &hash);
  AddStructure(types, "weft_steer_table", &hash);
  AddStructure(types, "weft_steer_drops", &hash);
  return hash.value();
}

uint64_t SteerIdentity(const SteerConfig& config) {
  std::size_t bytes = 0;
  const void* const object = steer_bpf__elf_bytes(&bytes);
  Hash hash;
  hash.Add(absl::string_view(static_cast<const char*>(object), bytes));
  hash.AddNumber(config.port);
  return hash.value();
}

absl::StatusOr<uint32_t> PossibleCpus() {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return absl::ErrnoToStatus(-cpus, "count the machine's CPUs");
  return static_cast<uint32_t>(cpus);
}

}  // namespace weft::control
