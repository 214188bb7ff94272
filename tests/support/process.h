// SPDX-License-Identifier: Apache-2.0
// A child process of a test: started under a user of its own, its output kept in a file, ended and reaped
// with its object, and by the kernel should the test itself die.
#ifndef WEFT_TESTS_SUPPORT_PROCESS_H_
#define WEFT_TESTS_SUPPORT_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace weft::test {

struct ProcessOptions {
  std::vector<std::string> arguments;  // [0] is the program's path.
  uid_t uid = 0;             // 0: the test's own user. Another needs root, and then has no privilege at all.
  std::string log;           // File for standard output and error; required.
  std::string input;         // File for standard input; empty: /dev/null.
  bool split_error = false;  // Standard error goes to `log` + ".err".
};

class Process {
 public:
  // Starts it. Fails the check where the program cannot be executed. The program is opened before the change
  // of user, so it may lie where that user cannot go.
  explicit Process(ProcessOptions options);
  ~Process();
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;

  pid_t pid() const { return pid_; }
  bool Running();
  void Signal(int signal);
  // The exit code, 128 + signal for a death by signal, nothing where it still runs after `timeout`.
  std::optional<int> Wait(absl::Duration timeout);
  // SIGKILL, then reaps.
  void Kill();
  std::string Output() const;
  std::string ErrorOutput() const;
  // Whether `text` appears in the output before `timeout`; false at once where the process ends without it.
  bool WaitForOutput(const std::string& text, absl::Duration timeout);

 private:
  void Start();

  ProcessOptions options_;
  pid_t pid_ = -1;
  std::optional<int> exit_;
};

// Runs a program to its end and returns what it printed; `exit_code` -1 where it did not end within
// `timeout`.
struct Ran {
  int exit_code = -1;
  std::string output;
  std::string error;
};
Ran Run(std::vector<std::string> arguments, uid_t uid = 0, absl::Duration timeout = absl::Seconds(30),
        const std::string& input = {});

// Polls `condition` until it is true or `timeout` is over; returns its last value.
template <typename Condition>
bool Eventually(Condition&& condition, absl::Duration timeout = absl::Seconds(10)) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    if (condition()) return true;
    if (absl::Now() > deadline) return condition();
    absl::SleepFor(absl::Milliseconds(2));
  }
}

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_PROCESS_H_
