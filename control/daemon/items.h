// SPDX-License-Identifier: Apache-2.0
// Builds one row of a query reply, field by field.
#ifndef WEFT_CONTROL_DAEMON_ITEMS_H_
#define WEFT_CONTROL_DAEMON_ITEMS_H_

#include <cstdint>
#include <string>

#include "dataplane/api/admin.pb.h"
#include "dataplane/base/text.h"

namespace weft::control {

class ItemBuilder {
 public:
  explicit ItemBuilder(api::Item* item) : item_(item) {}

  // A file's name may be no UTF-8, and whoever reads the row would refuse all of them.
  ItemBuilder& Text(const char* name, const std::string& value) {
    Field(name)->set_text(Utf8Of(value));
    return *this;
  }
  ItemBuilder& Number(const char* name, uint64_t value) {
    Field(name)->set_number(static_cast<int64_t>(value));
    return *this;
  }
  ItemBuilder& Real(const char* name, double value) {
    Field(name)->set_real(value);
    return *this;
  }

 private:
  api::Item::Field* Field(const char* name) {
    api::Item::Field* field = item_->add_fields();
    field->set_name(name);
    return field;
  }

  api::Item* item_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_ITEMS_H_
