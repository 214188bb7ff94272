// SPDX-License-Identifier: Apache-2.0
// A Kubernetes API server: nodes, Services and EndpointSlices listed side by side in pages of 500 by one
// thread, as weft-control does; the watch of EndpointSlices, whose events are numbered by the resource
// version that each made.
#include <curl/curl.h>
#include <simdjson.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bench/control/bare_source.h"
#include "dataplane/base/clock.h"

namespace weft::bench {
namespace {

using simdjson::ondemand::object;
using simdjson::ondemand::value;

constexpr char kSlices[] = "/apis/discovery.k8s.io/v1/endpointslices";

// What is read, so that reading it cannot be left out.
struct Read {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  std::string name, space, service, version, next, address, node, pod, zone, protocol;
  uint64_t ports = 0;
  uint64_t ready = 0;
};

simdjson::padded_string_view Padded(const std::string& text) {
  return simdjson::padded_string_view(text.data(), text.size(), text.capacity());
}

void Take(value from, std::string* text) {
  std::string_view view;
  if (from.get_string().get(view) == simdjson::SUCCESS) text->assign(view);
}

void ReadMetadata(object metadata, Read* read) {
  for (auto field : metadata) {
    const std::string_view key = field.unescaped_key();
    if (key == "name") {
      Take(field.value(), &read->name);
    } else if (key == "namespace") {
      Take(field.value(), &read->space);
    } else if (key == "resourceVersion") {
      Take(field.value(), &read->version);
    } else if (key == "labels") {
      for (auto label : field.value().get_object()) {
        const std::string_view of = label.unescaped_key();
        if (of == "kubernetes.io/service-name") Take(label.value(), &read->service);
        if (of == "topology.kubernetes.io/zone") Take(label.value(), &read->zone);
      }
    }
  }
}

void ReadEndpoint(object endpoint, Read* read) {
  for (auto field : endpoint) {
    const std::string_view key = field.unescaped_key();
    if (key == "addresses") {
      for (auto address : field.value().get_array()) Take(address.value(), &read->address);
    } else if (key == "nodeName") {
      Take(field.value(), &read->node);
    } else if (key == "zone") {
      Take(field.value(), &read->zone);
    } else if (key == "conditions") {
      for (auto condition : field.value().get_object()) {
        bool is = false;
        if (condition.value().get_bool().get(is) == simdjson::SUCCESS && is) ++read->ready;
      }
    } else if (key == "targetRef") {
      for (auto part : field.value().get_object()) {
        const std::string_view of = part.unescaped_key();
        if (of == "uid") Take(part.value(), &read->pod);
      }
    }
  }
}

void ReadPorts(value ports, Read* read) {
  for (auto each : ports.get_array()) {
    for (auto field : each.get_object()) {
      const std::string_view key = field.unescaped_key();
      if (key == "appProtocol" || key == "name") Take(field.value(), &read->protocol);
      if (key == "port") ++read->ports;
    }
  }
}

// A node, Service or EndpointSlice.
void ReadObject(object from, Read* read) {
  ++read->objects;
  for (auto field : from) {
    const std::string_view key = field.unescaped_key();
    if (key == "metadata") {
      ReadMetadata(field.value().get_object(), read);
    } else if (key == "endpoints") {
      for (auto endpoint : field.value().get_array()) ReadEndpoint(endpoint.get_object(), read);
    } else if (key == "ports") {
      ReadPorts(field.value(), read);
    } else if (key == "addressType") {
      Take(field.value(), &read->protocol);
    } else if (key == "spec") {
      for (auto part : field.value().get_object()) {
        const std::string_view of = part.unescaped_key();
        if (of == "ports") ReadPorts(part.value(), read);
        if (of == "type" || of == "externalName") Take(part.value(), &read->protocol);
      }
    } else if (key == "status") {
      for (auto part : field.value().get_object()) {
        const std::string_view of = part.unescaped_key();
        if (of != "addresses") continue;
        for (auto address : part.value().get_array()) {
          for (auto each : address.get_object()) Take(each.value(), &read->address);
        }
      }
    }
  }
}

// One kind's list.
struct Listing {
  CURL* curl = nullptr;
  std::string path;
  std::string answer;
  bool done = false;
};

std::size_t Append(char* data, std::size_t size, std::size_t count, void* answer) {
  static_cast<std::string*>(answer)->append(data, size * count);
  return size * count;
}

// Reads a page; the token of the next one is left in `read->next`.
void ReadPage(std::string* page, simdjson::ondemand::parser* parser, Read* read) {
  read->bytes += page->size();
  read->next.clear();
  page->reserve(page->size() + simdjson::SIMDJSON_PADDING);
  simdjson::ondemand::document document = parser->iterate(Padded(*page));
  for (auto field : document.get_object()) {
    const std::string_view key = field.unescaped_key();
    if (key == "metadata") {
      for (auto part : field.value().get_object()) {
        const std::string_view of = part.unescaped_key();
        if (of == "continue") Take(part.value(), &read->next);
      }
    } else if (key == "items") {
      for (auto item : field.value().get_array()) ReadObject(item.get_object(), read);
    }
  }
}

[[noreturn]] void Die(const std::string& what, const std::string& why) {
  std::fprintf(stderr, "weft-bench-watch: %s: %s\n", what.c_str(), why.c_str());
  std::exit(1);
}

}  // namespace

int BareKubeList(const BareServer& server) {
  const uint64_t begun_ns = NowNs();
  CURLM* const multi = curl_multi_init();
  curl_slist* const headers = curl_slist_append(nullptr, ("Authorization: Bearer " + server.token).c_str());
  simdjson::ondemand::parser parser;
  Read read;
  Listing listings[] = {{nullptr, "/api/v1/nodes", {}, false},
                        {nullptr, "/api/v1/services", {}, false},
                        {nullptr, kSlices, {}, false}};
  const auto ask = [&](Listing& listing, const std::string& next) {
    std::string url = server.url + listing.path + "?limit=500";
    if (!next.empty()) url += "&continue=" + next;
    listing.answer.clear();
    curl_easy_setopt(listing.curl, CURLOPT_URL, url.c_str());
    curl_multi_add_handle(multi, listing.curl);
  };
  for (Listing& listing : listings) {
    listing.curl = curl_easy_init();
    curl_easy_setopt(listing.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(listing.curl, CURLOPT_CAINFO, server.ca.c_str());
    // As weft-control does, to which it makes the sync of a large mesh shorter.
    curl_easy_setopt(listing.curl, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(listing.curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(listing.curl, CURLOPT_WRITEFUNCTION, &Append);
    curl_easy_setopt(listing.curl, CURLOPT_WRITEDATA, &listing.answer);
    curl_easy_setopt(listing.curl, CURLOPT_PRIVATE, &listing);
    ask(listing, "");
  }
  for (int left = 3, running = 0; left > 0;) {
    curl_multi_perform(multi, &running);
    int queued = 0;
    while (CURLMsg* const message = curl_multi_info_read(multi, &queued)) {
      if (message->msg != CURLMSG_DONE) continue;
      Listing* listing = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &listing);
      if (message->data.result != CURLE_OK) Die(listing->path, curl_easy_strerror(message->data.result));
      curl_multi_remove_handle(multi, listing->curl);
      ReadPage(&listing->answer, &parser, &read);
      if (read.next.empty()) {
        --left;
      } else {
        ask(*listing, read.next);
      }
    }
    if (left > 0) curl_multi_poll(multi, nullptr, 0, 1'000, nullptr);
  }
  const uint64_t ns = NowNs() - begun_ns;
  for (Listing& listing : listings) curl_easy_cleanup(listing.curl);
  curl_multi_cleanup(multi);
  curl_slist_free_all(headers);
  return BarePrintList(ns, read.objects, read.bytes);
}

int BareKubeWatch(const BareServer& server) {
  BareEvents events;
  BareHttp http(server);
  simdjson::ondemand::parser parser;
  Read read;
  // The watch begins where a list of one object ends.
  std::string& page = http.Get(std::string(kSlices) + "?limit=1", "");
  std::string version;
  simdjson::ondemand::document document = parser.iterate(Padded(page));
  Take(document["metadata"]["resourceVersion"], &version);
  if (version.empty()) Die(kSlices, "the list has no version");
  events.Ready();
  http.Stream(std::string(kSlices) + "?watch=1&resourceVersion=" + version, "", [&](std::string& line) {
    const uint64_t now_ns = NowNs();
    simdjson::ondemand::document event = parser.iterate(Padded(line));
    ReadObject(event["object"].get_object(), &read);
    events.Add(std::strtoull(read.version.c_str(), nullptr, 10), now_ns);
  });
  return events.Print();
}

}  // namespace weft::bench
