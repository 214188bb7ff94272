// SPDX-License-Identifier: Apache-2.0
// What is known of a Kubernetes cluster, and the mesh that follows: Services are functions, what their
// EndpointSlices hold are endpoints, nodes are nodes. Objects come in from lists and watches, and what
// follows is found anew for the functions and nodes that they touch alone; no I/O. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_STATE_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_STATE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/model/offer.h"
#include "control/source/kubernetes/kube_endpoints.h"
#include "control/source/kubernetes/kube_json.h"
#include "control/source/kubernetes/kube_routes.h"

namespace weft::control {

class KubeState {
 public:
  // `port`: where weftd listens on every node.
  explicit KubeState(uint16_t port) : port_(port) {}

  // Takes what `item` is now. What cannot be taken is what it was, and refused() names it; true where that is
  // news.
  bool Put(KubeKind kind, KubeItem item);
  void Erase(KubeKind kind, const std::string& key);

  // A list of all objects of a kind: what is Put() between BeginList() and EndList() is listed. What is not,
  // goes; with `keep` it stays, also at later lists, until it is Put() or erased. EndList() returns how many
  // stay by this `keep`.
  void BeginList(KubeKind kind);
  // Of the list under way about `more` objects follow what is Put() next, a page.
  void Expect(KubeKind kind, uint64_t more) { more_[static_cast<std::size_t>(kind)] = more; }
  std::size_t EndList(KubeKind kind, bool keep);
  // Whether the list under way has held nothing yet that can be taken, where there is something.
  bool ListIsEmpty(KubeKind kind) const;

  // Whether the mesh may be another one since the last TakeOffer().
  bool changed() const { return changed_; }
  // What is to be said of it: the whole the first time, then what is new.
  SourceOffer TakeOffer(const std::string& origin);

  // Before the first TakeOffer(): what it will say, as far as that follows from what is known now, by the
  // difference to what was prepared before; of at most `functions_max` functions. unsaid(): there is more.
  // PrepareAll() leaves nothing.
  SourceOffer Prepare(const std::string& origin, std::size_t functions_max);
  SourceOffer PrepareAll(const std::string& origin);
  bool unsaid() const { return !changed_services_.empty() || !changed_nodes_.empty(); }

  // What the routes of the Gateway API come to now, and how often that was found anew.
  const KubeRouting& Routing();
  uint64_t routings() const { return routings_; }
  using RouteKey = std::pair<KubeKind, std::string>;
  // Routes that were put since the last call, if only for another status.
  std::set<RouteKey> TakeTouchedRoutes() { return std::exchange(touched_routes_, {}); }
  // Null: it is not known.
  const KubeRoute* FindRoute(KubeKind kind, const std::string& key) const;

  // By kind and key: why it, or a part of it, is not taken.
  const std::map<std::string, std::string>& refused() const { return refused_; }
  std::size_t services() const { return ObjectsOf(KubeKind::kService).size(); }

 private:
  struct Held {
    KubeObject object;
    uint64_t list = 0;  // The last one that it was in, or put after
    bool kept = false;  // One since then that did not hold it was not believed.

    void SaidIn(uint64_t number) {
      list = number;
      kept = false;
    }
  };
  using Objects = std::map<std::string, Held>;

  Objects& ObjectsOf(KubeKind kind) { return objects_[static_cast<std::size_t>(kind)]; }
  const Objects& ObjectsOf(KubeKind kind) const { return objects_[static_cast<std::size_t>(kind)]; }
  const KubeService* FindService(const std::string& name) const;
  // `key` is about to be another one, and then is.
  void NoteChange(KubeKind kind, const std::string& key);
  // Counts in, or with -1 out, what all slices together say of nodes and Services.
  void CountSlice(const std::string& key, const KubeSlice& slice, int by);
  // What to say anew because of what changed, including who shares their calls with a Service that did.
  std::set<std::string> ChangedFunctions();
  using SaidOf = std::map<std::string, std::vector<EntryPtr>>;
  // Adds to `offer` what `name` is `now` otherwise than it was said.
  static void Say(const std::string& name, const std::vector<EntryPtr>& now, SaidOf* said_of,
                  SourceOffer* offer);
  // How many entries that comes to once the lists under way have ended, to judge by what has come; 0: not
  // known yet.
  std::size_t ExpectedEntries() const;
  std::vector<EntryPtr> FunctionNow(const std::string& name);
  // The function itself, where a Service or a policy makes one of `name`. `split`: of its calls; null: none.
  std::vector<EntryPtr> DeclarationOf(const std::string& name, const KubeSplit* split) const;
  std::vector<EntryPtr> NodeNow(const std::string& name);
  const KubeAddresses& Addresses();

  uint16_t port_;
  std::array<Objects, kKubeKinds> objects_;
  std::map<std::string, std::string> refused_;
  std::array<uint64_t, kKubeKinds> lists_ = {};  // Of each kind, begun so far
  std::array<uint64_t, kKubeKinds> more_ = {};   // Objects to come, by the last page
  bool changed_ = false;
  std::set<RouteKey> touched_routes_;
  // Of the objects as they are, unless stale.
  KubeRouting routing_;
  bool routing_stale_ = false;
  uint64_t routings_ = 0;
  KubeAddresses addresses_;
  bool addresses_stale_ = true;

  // Of all slices, by Service: their keys, and how many have an endpoint without a node.
  std::map<std::string, std::set<std::string>> slices_of_;
  std::map<std::string, int> without_node_;
  // By node: the zones that its endpoints say, and how many do.
  std::map<std::string, std::map<std::string, int>> zones_;
  // By Service: the functions whose calls go to it by a split.
  std::map<std::string, std::set<std::string>> split_to_;
  std::size_t endpoints_ = 0;      // Of all slices
  std::set<std::string> outside_;  // Functions with endpoints on no node that Kubernetes knows

  // Since it was said or prepared
  std::set<std::string> changed_services_;
  std::set<std::string> changed_nodes_;
  // What was said or prepared last, by function and by node.
  SaidOf said_of_functions_;
  SaidOf said_of_nodes_;
  bool prepared_ = false;
  bool told_ = false;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_STATE_H_
