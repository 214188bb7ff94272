// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel/channel.h"

namespace weft {

// All of the shipping channel is compiled here once, also what no program of ours calls.
template class BasicProducer<SharedAccess>;
template class BasicConsumer<SharedAccess>;
template class BasicChannel<SharedAccess>;

}  // namespace weft
