// SPDX-License-Identifier: Apache-2.0
// An ordered map whose copy costs next to nothing: entries lie in chunks, and a copy shares them all. What
// changes afterwards is made anew, entry and chunk, so that two maps that came from each other tell at once
// where they do not differ. A map is changed by one thread; its copies may be read, and forgotten, by any.
#ifndef WEFT_DATAPLANE_AGENT_COW_MAP_H_
#define WEFT_DATAPLANE_AGENT_COW_MAP_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace weft::agent {

template <typename Key, typename Value>
class CowMap {
 public:
  using Entry = std::pair<const Key, Value>;

 private:
  using Shared = std::shared_ptr<const Entry>;
  // Of 100,000 entries a copy takes 400 pointers, and a change 256 more.
  static constexpr std::size_t kChunkEntriesMax = 256;
  struct Chunk {
    std::vector<Shared> entries;  // Never empty, ordered
    uint64_t owner = 0;           // The map that may change it in place
  };

 public:
  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = Entry;
    using difference_type = std::ptrdiff_t;
    using pointer = const Entry*;
    using reference = const Entry&;

    Iterator() = default;
    reference operator*() const { return *(*chunks_)[chunk_]->entries[entry_]; }
    pointer operator->() const { return &**this; }
    Iterator& operator++() {
      if (++entry_ == (*chunks_)[chunk_]->entries.size()) {
        ++chunk_;
        entry_ = 0;
      }
      return *this;
    }
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) {
      return a.chunk_ == b.chunk_ && a.entry_ == b.entry_;
    }

   private:
    friend class CowMap;
    Iterator(const std::vector<std::shared_ptr<Chunk>>* chunks, std::size_t chunk, std::size_t entry)
        : chunks_(chunks), chunk_(chunk), entry_(entry) {}

    const std::vector<std::shared_ptr<Chunk>>* chunks_ = nullptr;
    std::size_t chunk_ = 0;
    std::size_t entry_ = 0;
  };

  CowMap() : id_(NextId()) {}
  // Neither may change a chunk in place any more that both have.
  CowMap(const CowMap& other) : chunks_(other.chunks_), size_(other.size_), id_(NextId()) {
    other.id_ = NextId();
  }
  CowMap& operator=(const CowMap& other) {
    if (this != &other) *this = CowMap(other);
    return *this;
  }
  CowMap(CowMap&& other) noexcept
      : chunks_(std::move(other.chunks_)), size_(std::exchange(other.size_, 0)), id_(other.id_) {
    other.chunks_.clear();
    other.id_ = NextId();
  }
  CowMap& operator=(CowMap&& other) noexcept {
    chunks_ = std::move(other.chunks_);
    other.chunks_.clear();
    size_ = std::exchange(other.size_, 0);
    id_ = std::exchange(other.id_, NextId());
    return *this;
  }
  ~CowMap() = default;

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Iterator begin() const { return {&chunks_, 0, 0}; }
  Iterator end() const { return {&chunks_, chunks_.size(), 0}; }
  Iterator lower_bound(const Key& key) const {
    const std::size_t chunk = ChunkOf(key);
    return chunk == chunks_.size() ? end() : Iterator(&chunks_, chunk, PlaceIn(*chunks_[chunk], key));
  }
  Iterator find(const Key& key) const {
    const Iterator at = lower_bound(key);
    return at != end() && !(key < at->first) ? at : end();
  }
  bool contains(const Key& key) const { return find(key) != end(); }

  // Puts `value` at `key`, in place of what stands there.
  void Put(const Key& key, Value value) {
    Shared entry = std::make_shared<const Entry>(key, std::move(value));
    std::size_t at = ChunkOf(key);
    if (at == chunks_.size()) {  // Behind all
      if (chunks_.empty() || chunks_.back()->entries.size() >= kChunkEntriesMax) {
        chunks_.push_back(std::make_shared<Chunk>());
        chunks_.back()->owner = id_;
        chunks_.back()->entries.reserve(kChunkEntriesMax);
      }
      Own(chunks_.size() - 1).entries.push_back(std::move(entry));
      ++size_;
      return;
    }
    Chunk* chunk = &Own(at);
    std::size_t place = PlaceIn(*chunk, key);
    if (place < chunk->entries.size() && !(key < chunk->entries[place]->first)) {
      chunk->entries[place] = std::move(entry);
      return;
    }
    if (chunk->entries.size() >= kChunkEntriesMax) {
      chunk = Split(at, &place);
    }
    chunk->entries.insert(chunk->entries.begin() + static_cast<std::ptrdiff_t>(place), std::move(entry));
    ++size_;
  }

  void Erase(const Key& key) {
    const Iterator found = find(key);
    if (found == end()) return;
    const std::size_t at = found.chunk_;
    --size_;
    if (chunks_[at]->entries.size() == 1) {
      chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(at));
      return;
    }
    std::vector<Shared>& entries = Own(at).entries;
    entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(found.entry_));
  }

  // Calls visit(key, before, after) for each key that the maps do not have the same entry at, in order; a
  // null pointer says that there is none. An entry that was put again counts, though its value be equal. What
  // both share costs nothing but a look at each chunk.
  template <typename Visit>
  static void EachDifference(const CowMap& before, const CowMap& after, Visit&& visit) {
    Iterator a = before.begin(), b = after.begin();
    while (a != before.end() || b != after.end()) {
      if (a != before.end() && b != after.end()) {
        if (a.entry_ == 0 && b.entry_ == 0 && before.chunks_[a.chunk_] == after.chunks_[b.chunk_]) {
          ++a.chunk_;
          ++b.chunk_;
          continue;
        }
        const Shared& left = before.chunks_[a.chunk_]->entries[a.entry_];
        const Shared& right = after.chunks_[b.chunk_]->entries[b.entry_];
        if (left == right) {
          ++a;
          ++b;
          continue;
        }
        if (!(left->first < right->first) && !(right->first < left->first)) {
          visit(left->first, &left->second, &right->second);
          ++a;
          ++b;
          continue;
        }
      }
      if (b == after.end() || (a != before.end() && a->first < b->first)) {
        visit(a->first, &a->second, static_cast<const Value*>(nullptr));
        ++a;
      } else {
        visit(b->first, static_cast<const Value*>(nullptr), &b->second);
        ++b;
      }
    }
  }

 private:
  static uint64_t NextId() {
    static std::atomic<uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;  // Distinct is all that it has to be.
  }

  // The first chunk that ends at or behind `key`.
  std::size_t ChunkOf(const Key& key) const {
    const auto found = std::lower_bound(chunks_.begin(), chunks_.end(), key,
                                        [](const std::shared_ptr<Chunk>& chunk, const Key& sought) {
                                          return chunk->entries.back()->first < sought;
                                        });
    return static_cast<std::size_t>(found - chunks_.begin());
  }
  static std::size_t PlaceIn(const Chunk& chunk, const Key& key) {
    const auto found =
        std::lower_bound(chunk.entries.begin(), chunk.entries.end(), key,
                         [](const Shared& entry, const Key& sought) { return entry->first < sought; });
    return static_cast<std::size_t>(found - chunk.entries.begin());
  }
  Chunk& Own(std::size_t at) {
    std::shared_ptr<Chunk>& chunk = chunks_[at];
    if (chunk->owner != id_) {
      chunk = std::make_shared<Chunk>(*chunk);
      chunk->owner = id_;
    }
    return *chunk;
  }
  // Halves chunk `at`, which is our own; returns the half that `place` is in, and where there.
  Chunk* Split(std::size_t at, std::size_t* place) {
    Chunk& first = *chunks_[at];
    auto second = std::make_shared<Chunk>();
    second->owner = id_;
    const std::size_t half = first.entries.size() / 2;
    second->entries.assign(first.entries.begin() + static_cast<std::ptrdiff_t>(half), first.entries.end());
    first.entries.resize(half);
    Chunk* const chosen = *place > half ? second.get() : &first;
    if (*place > half) *place -= half;
    chunks_.insert(chunks_.begin() + static_cast<std::ptrdiff_t>(at) + 1, std::move(second));
    return chosen;
  }

  std::vector<std::shared_ptr<Chunk>> chunks_;
  std::size_t size_ = 0;
  // Of no other map. Changed where the map is copied, which only the thread that changes it does.
  mutable uint64_t id_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_COW_MAP_H_
