// SPDX-License-Identifier: Apache-2.0
// What several rows take turns on, such as a node with its hosts: made when the first of them is set up,
// ended with the last. Coordinator's thread only.
#ifndef WEFT_BENCH_SHARED_FIXTURE_H_
#define WEFT_BENCH_SHARED_FIXTURE_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace weft::bench {

template <class T>
class SharedFixture {
 public:
  using Make = std::function<absl::StatusOr<std::unique_ptr<T>>()>;
  explicit SharedFixture(Make make) : make_(std::move(make)) {}

 private:
  template <class>
  friend class FixtureUser;

  Make make_;
  int users_ = 0;
  bool tried_ = false;
  absl::Status status_;  // Why it could not be made; said to every row, without another try.
  std::unique_ptr<T> fixture_;
};

// One row's hold on it.
template <class T>
class FixtureUser {
 public:
  explicit FixtureUser(std::shared_ptr<SharedFixture<T>> shared) : shared_(std::move(shared)) {}
  ~FixtureUser() { End(); }
  FixtureUser(const FixtureUser&) = delete;
  FixtureUser& operator=(const FixtureUser&) = delete;

  absl::Status Start() {
    if (!shared_->tried_) {
      shared_->tried_ = true;
      absl::StatusOr<std::unique_ptr<T>> made = shared_->make_();
      shared_->status_ = made.status();
      if (made.ok()) shared_->fixture_ = *std::move(made);
    }
    if (!shared_->status_.ok()) return shared_->status_;
    ++shared_->users_;
    in_use_ = true;
    return absl::OkStatus();
  }
  void End() {
    if (!in_use_) return;
    in_use_ = false;
    if (--shared_->users_ == 0) shared_->fixture_.reset();
  }
  // nullptr where it was not started.
  T* get() { return in_use_ ? shared_->fixture_.get() : nullptr; }

 private:
  std::shared_ptr<SharedFixture<T>> shared_;
  bool in_use_ = false;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_SHARED_FIXTURE_H_
