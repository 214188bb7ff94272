// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/module_store.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "control/source/module_hash.h"
#include "dataplane/base/durable_file.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/socket_acl.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

constexpr char kSuffix[] = ".wasm";

std::string HexOf(absl::string_view module) {
  const Sha256 hash = Sha256Of(module);
  return absl::BytesToHexString({reinterpret_cast<const char*>(hash.data()), hash.size()});
}

void ForEachFile(const std::string& directory, const std::function<void(const std::string&)>& take) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(directory.c_str()), closedir);
  if (open == nullptr) return;
  while (const dirent* entry = readdir(open.get())) {
    if (entry->d_name[0] != '.') take(entry->d_name);
  }
}

}  // namespace

absl::StatusOr<ModuleStore> ModuleStore::Create(std::string directory, uid_t reader, uint64_t bytes_max) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make directory ", directory));
  }
  if (reader != geteuid()) {
    WEFT_RETURN_IF_ERROR(GrantReader(directory, reader));
    WEFT_RETURN_IF_ERROR(GrantReader(directory + "/..", reader));
  }
  return ModuleStore(std::move(directory), reader, bytes_max);
}

absl::StatusOr<std::string> ModuleStore::Put(absl::string_view module) {
  if (module.empty()) return absl::InvalidArgumentError("the module is empty");
  if (module.size() > kModuleBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the module has ", module.size(), " bytes; at most ", kModuleBytesMax));
  }
  std::string sha256 = HexOf(module);
  if (Check(sha256).ok()) return sha256;
  const std::string path = PathOf(sha256);
  unlink(path.c_str());
  if (bytes() + module.size() > bytes_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("modules take ", bytes(), " bytes of ", directory_, " already; at most ", bytes_max_));
  }
  WEFT_RETURN_IF_ERROR(ReplaceFile(path, module, 0600));
  if (reader_ != geteuid()) WEFT_RETURN_IF_ERROR(GrantReader(path, reader_));
  return sha256;
}

absl::Status ModuleStore::Check(const std::string& sha256) const {
  WEFT_ASSIGN_OR_RETURN(const std::string module, ReadSmallFile(PathOf(sha256), kModuleBytesMax));
  if (HexOf(module) == sha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(PathOf(sha256), ": is not the module that its name says"));
}

std::string ModuleStore::PathOf(const std::string& sha256) const {
  return absl::StrCat(directory_, "/", sha256, kSuffix);
}

void ModuleStore::Remove(const std::string& sha256) { unlink(PathOf(sha256).c_str()); }

void ModuleStore::KeepOnly(const std::set<std::string>& sha256s) {
  ForEachFile(directory_, [&](const std::string& name) {
    const std::size_t dot = name.find('.');
    if (dot != std::string::npos && name.substr(dot) == kSuffix && sha256s.contains(name.substr(0, dot)))
      return;
    unlink(absl::StrCat(directory_, "/", name).c_str());
  });
}

uint64_t ModuleStore::bytes() const {
  uint64_t bytes = 0;
  ForEachFile(directory_, [&](const std::string& name) {
    struct stat about;
    if (stat(absl::StrCat(directory_, "/", name).c_str(), &about) == 0)
      bytes += static_cast<uint64_t>(about.st_size);
  });
  return bytes;
}

std::string BytesOfHex(absl::string_view sha256) {
  const bool hex = sha256.size() == 2 * sizeof(Sha256) &&
                   std::all_of(sha256.begin(), sha256.end(),
                               [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
  return hex ? absl::HexStringToBytes(sha256) : "";
}

}  // namespace weft::control
