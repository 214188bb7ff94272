// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel/channel.h"

namespace weft {

template class BasicProducer<SharedAccess>;
template class BasicConsumer<SharedAccess>;
template class BasicChannel<SharedAccess>;

}  // namespace weft
