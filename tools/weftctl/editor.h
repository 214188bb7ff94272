// SPDX-License-Identifier: Apache-2.0
// A text in the operator's editor. Blocks until the editor ends.
#ifndef WEFT_TOOLS_WEFTCTL_EDITOR_H_
#define WEFT_TOOLS_WEFTCTL_EDITOR_H_

#include <string>

#include "absl/status/statusor.h"

namespace weft::ctl {

struct EditedText {
  std::string text;
  std::string path;  // The file stays, for whom it cannot be used.

  void Remove() const;
};

// Puts `text` into a file of the user's own and runs $VISUAL, else $EDITOR, else vi on it.
// FAILED_PRECONDITION where the editor fails; the file is gone then.
absl::StatusOr<EditedText> EditText(const std::string& text);

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_EDITOR_H_
