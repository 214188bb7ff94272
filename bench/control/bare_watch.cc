// SPDX-License-Identifier: Apache-2.0
// weft-bench-watch: the least that follows a source, of libcurl (or libmosquitto) and simdjson alone: what
// weft-control's own figures stand beside. `etcd-list` and `kubernetes-list` fetch what weft-control fetches,
// in the same pages, and read of each object the fields that it needs; they print seconds, objects and bytes.
// `etcd-watch` and `kubernetes-watch` print "ready", and when they are ended one line an event: its number at
// the source, and its arrival (CLOCK_MONOTONIC, ns).
#include <cstdio>
#include <exception>
#include <string>

#include "bench/control/bare_source.h"

namespace weft::bench {
namespace {

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const auto argument = [&](int index) { return std::string(argc > index ? argv[index] : ""); };
  BareServer server{argument(2), argument(3), argument(4)};
  if (what == "etcd-list") return BareEtcdList(server);
  if (what == "etcd-watch") return BareEtcdWatch(server);
  if (what == "kubernetes-list") return BareKubeList(server);
  if (what == "kubernetes-watch") return BareKubeWatch(server);
  if (what == "mqtt-watch") return BareMqttWatch(argument(2), argument(3));
  if (what == "file-watch") return BareFilesWatch(argument(2));
  std::fprintf(stderr,
               "usage: weft-bench-watch etcd-list|etcd-watch URL\n"
               "       weft-bench-watch kubernetes-list|kubernetes-watch URL TOKEN CA-FILE\n"
               "       weft-bench-watch mqtt-watch PORT TOPIC\n"
               "       weft-bench-watch file-watch DIRECTORY\n");
  return 2;
}

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) {
  try {
    return weft::bench::Main(argc, argv);
  } catch (const std::exception& error) {  // Of simdjson: an answer that is not what it has to be.
    std::fprintf(stderr, "weft-bench-watch: %s\n", error.what());
    return 1;
  }
}
