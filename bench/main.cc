// SPDX-License-Identifier: Apache-2.0
// weft-bench: measures weft beside the limits of the machine in one run. Normally started by tools/bench from
// a release build. Exit codes: 0 done, 1 a row failed, 2 usage.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/suites.h"

namespace {

void AddCommon(CLI::App* suite, weft::bench::SuiteOptions* options) {
  suite->add_option("--json", options->json_path, "write the results as JSON (\"-\": standard output)");
  suite->add_flag("--quick", options->quick, "within 40 s, with fewer samples");
  suite->add_option("--seconds", options->seconds, "how long to measure")->check(CLI::Range(0.001, 86'400.0));
}

int Finish(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "weft-bench: %s\n", status.ToString().c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Latency and cost of weft, beside the limits of the machine.", "weft-bench");
  app.require_subcommand(1);
  weft::bench::SuiteOptions options;
  CLI::App* local = app.add_subcommand("local", "calls between processes of one node");
  CLI::App* remote = app.add_subcommand("remote", "calls between two nodes");
  for (CLI::App* suite : {local, remote}) {
    AddCommon(suite, &options);
    suite->add_option(
        "--filter", options.filter,
        "run only rows whose name matches this regular expression, and the limits they are judged by");
    suite->add_option("--svg", options.svg_path, "draw the latency distributions into this file");
    suite
        ->add_option("--busy", options.busy,
                     "run so many processes beside the rows that compute all the time, on any core")
        ->check(CLI::Range(0, 64));
  }
  CLI::App* steer = app.add_subcommand("steer", "what the XDP program costs a packet");
  AddCommon(steer, &options);
  CLI::App* idle = app.add_subcommand("idle", "CPU and memory of a node that has nothing to do");
  AddCommon(idle, &options);
  CLI::App* control = app.add_subcommand("control", "from an orchestrator's event to programmed routes");
  AddCommon(control, &options);
  control->add_option("--filter", options.filter, "run only the sources of rows whose name matches this");
  control
      ->add_option("--functions", options.functions,
                   "of which each has 10 endpoints; 10,000, or 1,000 with --quick")
      ->check(CLI::Range(100, 20'000));
  CLI::App* sim = app.add_subcommand("sim", "the transport in the simulator: slowdown and goodput");
  sim->add_option("--json", options.json_path, "write the results as JSON (\"-\": standard output)");
  sim->add_flag("--quick", options.quick, "one seed of fewer messages");
  sim->add_option("--filter", options.filter, "run only rows whose name matches this regular expression");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (remote->parsed()) return Finish(weft::bench::RunRemote(options));
  if (steer->parsed()) return Finish(weft::bench::RunSteer(options));
  if (control->parsed()) return Finish(weft::bench::RunControl(options));
  if (sim->parsed()) return Finish(weft::bench::RunSim(options));
  return Finish(idle->parsed() ? weft::bench::RunIdle(options) : weft::bench::RunLocal(options));
}
