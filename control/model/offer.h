// SPDX-License-Identifier: Apache-2.0
// What one source tells the model: all that it says now, or what of it is another than it was. A source is
// one file, or one watch of an orchestrator. Pure values; any thread.
#ifndef WEFT_CONTROL_MODEL_OFFER_H_
#define WEFT_CONTROL_MODEL_OFFER_H_

#include <cstddef>
#include <string>
#include <vector>

#include "control/model/entry.h"

namespace weft::control {

template <typename T>
struct Said {
  T value;
  Where where;
  bool implied = false;  // As Entry::implied
};

// All that one source says now, as messages.
struct SourceMesh {
  std::string origin;  // The file's path: what errors name.
  std::vector<Said<api::Node>> nodes;
  std::vector<Said<api::Function>> functions;
  std::vector<Said<api::Endpoint>> endpoints;
  std::vector<Said<api::Allow>> allow;
  bool allow_shrink = false;  // It may take back everything that it said before.
  // Its objects come and go one by one: an endpoint on a node that nobody names waits for the node, and a
  // function that nobody names has the default policy. Elsewhere both are errors.
  bool open = false;
  bool incomplete =
      false;  // Something was left out because it could not be read: good for finding errors only.
};

struct SourceOffer {
  std::string origin;
  bool open = false;          // As SourceMesh::open
  bool allow_shrink = false;  // As SourceMesh::allow_shrink
  // True: `said` is all that the source says. False: it is what is new or different in what it says, and
  // `unsaid` what it says no more: entries of which the names and `implied` count. No key is in both.
  bool whole = true;
  std::vector<EntryPtr> said;
  std::vector<EntryPtr> unsaid;
  // Of what is prepared: about so many entries it comes to in the end; 0: not known.
  std::size_t expected = 0;
};

// Adds to `offer`, a difference, what is said in `now` otherwise than in `before`, two short lists. `said` is
// then what is said: of what is the same the entry of before.
void AppendDifference(const std::vector<EntryPtr>& before, const std::vector<EntryPtr>& now,
                      std::vector<EntryPtr>* said, SourceOffer* offer);

// `mesh` as the whole of what its source says.
SourceOffer OfferOf(const SourceMesh& mesh);

}  // namespace weft::control

#endif  // WEFT_CONTROL_MODEL_OFFER_H_
