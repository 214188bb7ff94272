// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/process_ended.h"

#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/fd.h"

namespace weft {

bool ProcessHasEnded(pid_t pid) {
  const UniqueFd stat(open(absl::StrCat("/proc/", pid, "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  char text[512];
  const ssize_t bytes = stat.valid() ? read(stat.get(), text, sizeof(text)) : 0;
  if (bytes <= 0) return false;
  // "pid (name) state …", where the name may hold anything.
  const absl::string_view line(text, static_cast<std::size_t>(bytes));
  const std::size_t name_end = line.rfind(')');
  if (name_end == absl::string_view::npos || name_end + 2 >= line.size()) return false;
  return line[name_end + 2] == 'Z' || line[name_end + 2] == 'X';
}

}  // namespace weft
