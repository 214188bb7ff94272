// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/editor.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::ctl {
namespace {

std::string EditorCommand() {
  for (const char* name : {"VISUAL", "EDITOR"}) {
    const char* value = getenv(name);
    if (value != nullptr && *value != 0) return value;
  }
  return "vi";
}

// The shell takes the command apart, as elsewhere: `EDITOR="code --wait"`. Keys that stop a program are the
// editor's alone meanwhile.
absl::Status RunEditor(const std::string& command, const std::string& path) {
  std::string script = absl::StrCat(command, " \"$1\"");
  char shell[] = "sh", flag[] = "-c", name[] = "weftctl";
  std::string argument = path;
  char* const arguments[] = {shell, flag, script.data(), name, argument.data(), nullptr};
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGINT);
  sigaddset(&defaults, SIGQUIT);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  const auto interrupt = signal(SIGINT, SIG_IGN);
  const auto quit = signal(SIGQUIT, SIG_IGN);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, "/bin/sh", nullptr, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  int status = -1;
  while (error == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  signal(SIGINT, interrupt);
  signal(SIGQUIT, quit);
  if (error != 0) return absl::ErrnoToStatus(error, "start the editor");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the editor (", command, ") failed; set VISUAL or EDITOR to one that you have"));
}

}  // namespace

void EditedText::Remove() const { unlink(path.c_str()); }

absl::StatusOr<EditedText> EditText(const std::string& text) {
  const char* directory = getenv("TMPDIR");
  EditedText edited;
  edited.path =
      absl::StrCat(directory == nullptr || *directory == 0 ? "/tmp" : directory, "/weftctl-XXXXXX.yaml");
  const UniqueFd file(mkostemps(edited.path.data(), static_cast<int>(std::strlen(".yaml")), O_CLOEXEC));
  if (!file.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("make ", edited.path));
  absl::Status status;
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("write ", edited.path));
  }
  if (status.ok()) status = RunEditor(EditorCommand(), edited.path);
  if (!status.ok()) {
    edited.Remove();
    return status;
  }
  WEFT_ASSIGN_OR_RETURN(edited.text, ReadSmallFile(edited.path));
  return edited;
}

}  // namespace weft::ctl
