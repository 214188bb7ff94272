// SPDX-License-Identifier: Apache-2.0
// weftctl: the operator's command line. Parses, calls one command, returns its exit code: 0 done, 1 failed, 2
// usage.
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "dataplane/config/yaml.h"
#include "tools/weftctl/ca.h"
#include "tools/weftctl/commands.h"
#include "tools/weftctl/policy.h"

namespace weft::ctl {
namespace {

// What the parser fills in.
struct Parsed {
  Global global;
  std::string output = "table";
  std::string what;
  std::string caller;
  std::string callee;
  std::string host;
  std::string path;
  std::string shell;
  std::string timeout;
  CallArguments call;
  CaArguments ca;
  PolicyArguments policy;
  std::function<int()> run;
};

// Checks a duration such as 250ms and takes it.
std::string TakeTimeout(const std::string& text, absl::Duration* timeout) {
  const absl::StatusOr<uint64_t> ns = ParseDurationNs(text);
  if (!ns.ok()) return std::string(ns.status().message());
  *timeout = absl::Nanoseconds(*ns);
  return "";
}

CLI::App* AddCommand(CLI::App* app, const char* name, const char* text, Parsed* parsed,
                     std::function<int()> run) {
  CLI::App* command = app->add_subcommand(name, text);
  command->fallthrough();
  command->final_callback([parsed, run = std::move(run)] { parsed->run = run; });
  return command;
}

// The cluster, and as whom.
void AddConfig(CLI::App* command, Parsed* parsed) {
  command
      ->add_option("--config", parsed->policy.config,
                   "weft-control.yaml whose `etcd` section says where policy is")
      ->capture_default_str();
}

int RunAnyGet(const Parsed& parsed) {
  if (parsed.what == "policy") return RunGetPolicy(parsed.global, parsed.policy);
  if (parsed.policy.objects.empty() && parsed.what == "changes") return RunChanges(parsed.global);
  if (parsed.policy.objects.empty()) return RunGet(parsed.global, parsed.what);
  std::fprintf(stderr, "weftctl: get %s takes no OBJECT\n", parsed.what.c_str());
  return 2;
}

void AddAskingCommands(CLI::App* app, Parsed* parsed) {
  AddCommand(app, "status", "How agent and control stand, and how long the last changes took", parsed,
             [parsed] { return RunStatus(parsed->global); });
  AddCommand(app, "check", "Check what must be true for calls to flow; exit 1 where something is not", parsed,
             [parsed] { return RunCheck(parsed->global); });
  CLI::App* get = AddCommand(app, "get", "List what the agent knows, the last changes, or the policy in etcd",
                             parsed, [parsed] { return RunAnyGet(*parsed); });
  get->add_option("WHAT", parsed->what, "nodes, functions, hosts, routes, channels, changes or policy")
      ->required()
      ->check(CLI::IsMember({"nodes", "functions", "hosts", "routes", "channels", "changes", "policy"}));
  get->add_option("OBJECT", parsed->policy.objects,
                  "Of policy: functions/vision/scale, or what it begins with, as in functions");
  AddConfig(get, parsed);
  CLI::App* explain =
      AddCommand(app, "explain", "Say which path calls take and why, or why not (then exit 1)", parsed,
                 [parsed] { return RunExplain(parsed->global, parsed->caller, parsed->callee); });
  explain->add_option("CALLER", parsed->caller, "Function or namespace that calls")->required();
  explain->add_option("CALLEE", parsed->callee, "Function that is called")->required();
  CLI::App* names = AddCommand(app, "names", "", parsed, [parsed] {
    if (parsed->what == "policy") return RunPolicyNames(parsed->policy);
    return RunNames(parsed->global, parsed->what);
  });
  names->group("");  // For completion scripts
  AddConfig(names, parsed);
  names->add_option("WHAT", parsed->what)
      ->required()
      ->check(CLI::IsMember({"nodes", "functions", "hosts", "policy"}));
}

void AddActingCommands(CLI::App* app, Parsed* parsed) {
  CLI::App* call = AddCommand(app, "call", "Call a function; the response goes to standard output", parsed,
                              [parsed] { return RunCall(parsed->global, parsed->call); });
  call->add_option("FUNCTION", parsed->call.function, "NAMESPACE/NAME")->required();
  CLI::Option* payload =
      call->add_option("PAYLOAD", parsed->call.payload, "Default: --file, else standard input");
  call->add_option("--file", parsed->call.file, "File with the payload; - is standard input")
      ->excludes(payload);
  call->add_option("--as", parsed->call.call_as,
                   "Namespace to call as; default: that of FUNCTION, without the right to admin.sock what "
                   "weftd.yaml says");
  call->add_option("--timeout", parsed->timeout, "As in 250ms; default 10s")
      ->check([parsed](const std::string& text) { return TakeTimeout(text, &parsed->call.timeout); });
  payload->each([parsed](const std::string&) { parsed->call.has_payload = true; });
  static absl::Duration drain_timeout = absl::Seconds(30);
  CLI::App* drain = AddCommand(
      app, "drain", "Have a host finish its calls and get no new ones; exit 1 while it is still needed",
      parsed, [parsed] { return RunDrain(parsed->global, parsed->host, drain_timeout); });
  drain->add_option("HOST", parsed->host, "Name of the host")->required();
  drain->add_option("--timeout", parsed->timeout, "How long to wait for its calls; default 30s")
      ->check([](const std::string& text) { return TakeTimeout(text, &drain_timeout); });
}

void AddPolicyCommands(CLI::App* app, Parsed* parsed) {
  PolicyArguments* const policy = &parsed->policy;
  const auto add = [&](const char* name, const char* text,
                       int (*run)(const Global&, const PolicyArguments&)) {
    CLI::App* command =
        AddCommand(app, name, text, parsed, [parsed, run] { return run(parsed->global, parsed->policy); });
    AddConfig(command, parsed);
    return command;
  };
  const auto add_guards = [policy](CLI::App* command, const char* dry_run) {
    command->add_flag("--dry-run", policy->dry_run, dry_run);
    command
        ->add_option("--if-revision", policy->if_revision,
                     "Fail where the one object is not at this revision; 0: where it is there")
        ->check(CLI::NonNegativeNumber);
  };
  CLI::App* apply = add("apply", "Write what a mesh file says to etcd", RunApply);
  apply->add_option("PATH", policy->path, "Mesh file, directory of them, or - for standard input")
      ->required();
  add_guards(apply, "Validate and print, but write nothing");
  CLI::App* remove = add("delete", "Delete policy from etcd", RunDelete);
  remove->add_option("OBJECT", policy->objects, "As in functions/vision/scale")->required();
  add_guards(remove, "Print what would be deleted, but delete nothing");
  CLI::App* edit = add("edit", "Open an object that is in etcd in $VISUAL or $EDITOR", RunEdit);
  edit->add_option("OBJECT", policy->objects, "As in functions/vision/scale")->required()->expected(1);
}

void AddCaCommands(CLI::App* app, Parsed* parsed) {
  CLI::App* ca = app->add_subcommand("ca", "A CA for development and tests, and certificates of nodes");
  ca->require_subcommand(1);
  ca->fallthrough();
  CaArguments* const arguments = &parsed->ca;
  const auto add_days = [arguments](CLI::App* command, uint32_t days) {
    command->add_option("--days", arguments->days, absl::StrCat("Days of validity; default ", days))
        ->check(CLI::Range(1, 36'500));
  };
  CLI::App* init =
      AddCommand(ca, "init", "Make a CA: DIR/ca.pem and DIR/ca-key.pem", parsed, [parsed, arguments] {
        if (arguments->days == 0) arguments->days = 3650;
        return RunCaInit(parsed->global, *arguments);
      });
  init->add_option("DIR", arguments->directory, "Made where it is missing")->required();
  init->add_option("--trust-domain", arguments->trust_domain, "As in prod.example")->required();
  add_days(init, 3650);
  CLI::App* issue = AddCommand(ca, "issue", "Make a key and certificate: NODE.pem and NODE-key.pem", parsed,
                               [parsed, arguments] {
                                 if (arguments->days == 0) arguments->days = 90;
                                 return RunCaIssue(parsed->global, *arguments);
                               });
  issue->add_option("DIR", arguments->directory, "Of the CA")->required();
  issue->add_option("NODE", arguments->node, "The node's name in mesh files")->required();
  issue->add_option("--out", arguments->out, "Directory of the new files; default: DIR");
  issue->add_flag("--replace", arguments->replace, "Take the place of the files that are there");
  add_days(issue, 90);
  CLI::App* revoke =
      AddCommand(ca, "revoke", "Add a certificate to the revocation list in DIR/ca.pem, which agents read",
                 parsed, [parsed, arguments] { return RunCaRevoke(parsed->global, *arguments); });
  revoke->add_option("DIR", arguments->directory, "Of the CA")->required();
  revoke->add_option("NODE", arguments->node, "Whose certificate, DIR/NODE.pem, is revoked")->required();
  revoke->add_option("--certificate", arguments->certificate, "Its file, where that is another");
}

void AddOtherCommands(CLI::App* app, Parsed* parsed) {
  CLI::App* validate =
      AddCommand(app, "validate", "Check a mesh file, or a directory of them, without a mesh", parsed,
                 [parsed] { return RunValidate(parsed->global, parsed->path); });
  validate->add_option("PATH", parsed->path, "File or directory")->required();
  AddCommand(app, "version", "Print the version", parsed, [parsed] { return RunVersion(parsed->global); });
  CLI::App* completion = AddCommand(app, "completion", "Print a completion script", parsed,
                                    [parsed] { return RunCompletion(parsed->shell); });
  completion->add_option("SHELL", parsed->shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
}

// The command's exit code, or 1 where what it printed did not arrive, as on a full disk: a backup must not
// look whole.
int Finish(int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fprintf(stderr, "weftctl: write to standard output: %s\n",
               errno == 0 ? "not all of it could be written" : std::strerror(errno));
  return 1;
}

int Main(int argc, char** argv) {
  Parsed parsed;
  CLI::App app("weftctl: asks and steers the weft mesh of this node\nExit codes: 0 done, 1 failed, 2 usage.",
               "weftctl");
  app.require_subcommand(1);
  app.add_option("--run-dir", parsed.global.run_dir, "Directory of admin.sock and control.sock")
      ->capture_default_str();
  app.add_option("-o,--output", parsed.output, "table, wide (with counters), json; of policy also yaml")
      ->check(CLI::IsMember({"table", "wide", "json", "yaml"}))
      ->capture_default_str();
  app.set_version_flag("--version", "weftctl " WEFT_VERSION);
  app.failure_message([](const CLI::App* of, const CLI::Error& error) {
    const std::vector<std::string> rest = of->remaining();
    const bool unknown = error.get_name() == "RequiredError" && !rest.empty();
    return absl::StrCat(
        "weftctl: ", unknown ? absl::StrCat("no command \"", rest.front(), "\"") : error.what(),
        "; --help says what there is\n");
  });
  AddAskingCommands(&app, &parsed);
  AddActingCommands(&app, &parsed);
  AddPolicyCommands(&app, &parsed);
  AddCaCommands(&app, &parsed);
  AddOtherCommands(&app, &parsed);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (parsed.output == "json") parsed.global.format = Format::kJson;
  if (parsed.output == "wide") parsed.global.format = Format::kWide;
  if (parsed.output == "yaml") {
    if (parsed.what != "policy") {
      std::fprintf(stderr, "weftctl: -o yaml is for `get policy` alone\n");
      return 2;
    }
    parsed.global.format = Format::kYaml;
  }
  return Finish(parsed.run());
}

}  // namespace
}  // namespace weft::ctl

int main(int argc, char** argv) { return weft::ctl::Main(argc, argv); }
