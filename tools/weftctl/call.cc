// SPDX-License-Identifier: Apache-2.0
// `weftctl call`: one call of a function, as any client of the mesh would make it.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "tools/weftctl/commands.h"
#include "weft/client.h"
#include "weft/mesh.h"

namespace weft::ctl {
namespace {

// What a message may have.
constexpr std::size_t kPayloadBytesMax = std::size_t{16} << 20;

absl::StatusOr<std::string> ReadAll(int fd, const std::string& name) {
  std::string bytes;
  char chunk[64 * 1024];
  for (;;) {
    const ssize_t count = read(fd, chunk, sizeof(chunk));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", name));
    if (count == 0) return bytes;
    bytes.append(chunk, static_cast<std::size_t>(count));
    if (bytes.size() > kPayloadBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is longer than ", kPayloadBytesMax, " bytes, which a message may have"));
    }
  }
}

// The argument, else the file, else standard input; nothing where that is a terminal.
absl::StatusOr<std::string> PayloadOf(const CallArguments& arguments) {
  if (arguments.has_payload) return arguments.payload;
  if (!arguments.file.empty() && arguments.file != "-") {
    const UniqueFd fd(open(arguments.file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", arguments.file));
    return ReadAll(fd.get(), arguments.file);
  }
  if (arguments.file.empty() && isatty(STDIN_FILENO)) return std::string();
  return ReadAll(STDIN_FILENO, "standard input");
}

// What can be known before the agent is asked, who would be asked again until the time is over.
absl::Status CheckAdmin(const Global& global, const CallArguments& arguments) {
  if (arguments.call_as.empty() || access(global.AdminSocket().c_str(), R_OK | W_OK) == 0 || errno != EACCES)
    return absl::OkStatus();
  return absl::ErrnoToStatus(EACCES,
                             absl::StrCat("--as ", arguments.call_as, " needs ", global.AdminSocket()));
}

// An operator with the admin socket calls as any namespace; anybody else as the agent's configuration says.
MeshOptions OptionsOf(const Global& global, const CallArguments& arguments) {
  MeshOptions options;
  options.run_dir = global.run_dir;
  options.admin = !arguments.call_as.empty() || access(global.AdminSocket().c_str(), R_OK | W_OK) == 0;
  if (options.admin) {
    options.call_as =
        arguments.call_as.empty() ? std::string(NamespaceOf(arguments.function)) : arguments.call_as;
  }
  // One call does not pay for polling; and the callee may want this core.
  options.poll_time = absl::ZeroDuration();
  return options;
}

absl::StatusOr<std::string> Call(const Global& global, const CallArguments& arguments,
                                 const std::string& payload) {
  const absl::Time deadline = absl::Now() + arguments.timeout;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, Mesh::Create(OptionsOf(global, arguments)));
  WEFT_RETURN_IF_ERROR(mesh->Attach(arguments.timeout));
  Client client(*mesh);
  WEFT_ASSIGN_OR_RETURN(
      Function function,
      client.Resolve(arguments.function, "", std::max(absl::ZeroDuration(), deadline - absl::Now())));
  CallOptions options;
  options.timeout = std::max(absl::Microseconds(1), deadline - absl::Now());
  return client.Call(function, absl::string_view(payload), options);
}

}  // namespace

int RunCall(const Global& global, const CallArguments& arguments) {
  const std::string doing = absl::StrCat("call ", arguments.function);
  if (const absl::Status name = CheckFunctionName(arguments.function); !name.ok()) return Fail("call", name);
  if (const absl::Status admin = CheckAdmin(global, arguments); !admin.ok()) return Fail(doing, admin);
  const absl::StatusOr<std::string> payload = PayloadOf(arguments);
  if (!payload.ok()) return Fail(doing, payload.status());
  const absl::Time begin = absl::Now();
  const absl::StatusOr<std::string> response = Call(global, arguments, *payload);
  if (!response.ok()) return Fail(doing, response.status());
  if (global.format == Format::kJson) {
    Print(global, "response", 0,
          {Row()
               .Text("function", arguments.function)
               .Number("bytes", static_cast<int64_t>(response->size()))
               .Text("base64", absl::Base64Escape(*response))
               .Real("seconds", absl::ToDoubleSeconds(absl::Now() - begin))
               .Take()});
    return 0;
  }
  std::fwrite(response->data(), 1, response->size(), stdout);
  // A shell prompt begins on a line of its own; a pipe or file gets the bytes alone.
  if (isatty(STDOUT_FILENO) && !response->empty() && response->back() != '\n') std::fputc('\n', stdout);
  return 0;
}

}  // namespace weft::ctl
