// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/policy.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/etcd/etcd_keys.h"
#include "tools/weftctl/editor.h"
#include "tools/weftctl/output.h"
#include "tools/weftctl/policy_change.h"
#include "tools/weftctl/policy_store.h"

namespace weft::ctl {
namespace {

struct Opened {
  std::unique_ptr<PolicyStore> store;
  std::vector<StoredObject> stored;
};

absl::StatusOr<Opened> Open(const PolicyArguments& arguments) {
  absl::StatusOr<std::unique_ptr<PolicyStore>> store = PolicyStore::Open(arguments.config);
  if (!store.ok()) return store.status();
  absl::StatusOr<std::vector<StoredObject>> stored = (*store)->List();
  if (!stored.ok()) return stored.status();
  return Opened{*std::move(store), *std::move(stored)};
}

// "functions" and "functions/vision" stand for all below them.
bool Selects(const std::string& wanted, const std::string& key) {
  return key == wanted || absl::StartsWith(key, absl::StrCat(wanted, "/"));
}

absl::Status CheckRevision(const PolicyArguments& arguments, const std::vector<std::string>& keys,
                           const std::vector<StoredObject>& stored) {
  if (arguments.if_revision < 0) return absl::OkStatus();
  if (keys.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--if-revision is for one object; there are ", keys.size()));
  }
  const StoredObject* before = Find(stored, keys.front());
  const int64_t revision = before == nullptr ? 0 : before->revision;
  if (revision == arguments.if_revision) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(keys.front(), " is at revision ", revision, ", not at ",
                                         arguments.if_revision, "; nothing was written"));
}

api::Item ResultRow(const std::string& key, const char* result, int64_t revision) {
  return Row().Text("object", key).Text("result", result).Number("revision", revision).Take();
}

// Writes `objects` where they differ from `opened`, and prints what became of each.
absl::Status Put(const Global& global, const PolicyArguments& arguments, const Objects& objects,
                 const Opened& opened) {
  std::vector<std::string> keys;
  for (const auto& [key, object] : objects) keys.push_back(key);
  if (absl::Status status = CheckRevision(arguments, keys, opened.stored); !status.ok()) return status;
  const std::vector<PolicyWrite> writes = WritesOf(objects, opened.stored);
  if (absl::Status status = CheckWrites(opened.stored, objects, writes); !status.ok()) return status;
  for (const std::string& remark : RemarksOn(objects, opened.stored)) {
    std::fprintf(stderr, "weftctl: %s\n", Printable(remark).c_str());
  }
  int64_t revision = 0;
  if (!arguments.dry_run && !writes.empty()) {
    const absl::StatusOr<int64_t> committed = opened.store->Commit(writes);
    if (!committed.ok()) return committed.status();
    revision = *committed;
  }
  std::vector<api::Item> items;
  auto write = writes.begin();
  for (const std::string& key : keys) {
    const StoredObject* before = Find(opened.stored, key);
    if (write == writes.end() || write->key != key) {
      items.push_back(ResultRow(key, "unchanged", before->revision));
      continue;
    }
    items.push_back(ResultRow(key, before == nullptr ? "created" : "changed", revision));
    ++write;
  }
  Print(global, "policy", 0, items);
  return absl::OkStatus();
}

api::Item PolicyRow(const StoredObject& stored) {
  Row row;
  row.Text("object", stored.key)
      .Number("revision", stored.revision)
      .Text("said_by", stored.live ? "node" : "operator");
  // As it stands there where it cannot be read.
  row.Text("value", stored.object.has_value() ? control::ObjectJson(*stored.object) : stored.value);
  row.Text("error", stored.problem);
  return row.Take();
}

}  // namespace

int RunGetPolicy(const Global& global, const PolicyArguments& arguments) {
  const absl::StatusOr<Opened> opened = Open(arguments);
  if (!opened.ok()) return Fail("get policy", opened.status());
  for (const std::string& wanted : arguments.objects) {
    const bool found = std::any_of(opened->stored.begin(), opened->stored.end(),
                                   [&](const auto& each) { return Selects(wanted, each.key); });
    if (!found) return Fail("get policy", absl::NotFoundError(absl::StrCat("no object ", wanted)));
  }
  std::vector<api::Item> items;
  std::vector<control::MeshObject> objects;
  int code = 0;
  for (const StoredObject& stored : opened->stored) {
    const bool selected = std::any_of(arguments.objects.begin(), arguments.objects.end(),
                                      [&](const auto& wanted) { return Selects(wanted, stored.key); });
    if (!arguments.objects.empty() && !selected) continue;
    items.push_back(PolicyRow(stored));
    if (global.format != Format::kYaml || stored.live) continue;
    if (stored.object.has_value()) {
      objects.push_back(*stored.object);
    } else {
      code = Fail("get policy", absl::InvalidArgumentError(stored.problem));
    }
  }
  if (global.format == Format::kYaml) {
    std::fputs(control::ObjectsYaml(objects).c_str(), stdout);
  } else if (items.empty() && global.format != Format::kJson) {
    std::fprintf(stderr, "no policy\n");
  } else {
    Print(global, "policy", 0, items);
  }
  return code;
}

int RunApply(const Global& global, const PolicyArguments& arguments) {
  const std::string doing = absl::StrCat("apply ", arguments.path);
  const absl::StatusOr<Objects> objects = LoadObjects(arguments.path);
  if (!objects.ok()) return Fail(doing, objects.status());
  if (objects->empty()) return Fail(doing, absl::InvalidArgumentError("names no object"));
  const absl::StatusOr<Opened> opened = Open(arguments);
  if (!opened.ok()) return Fail(doing, opened.status());
  const absl::Status put = Put(global, arguments, *objects, *opened);
  return put.ok() ? 0 : Fail(doing, put);
}

int RunDelete(const Global& global, const PolicyArguments& arguments) {
  const absl::StatusOr<Opened> opened = Open(arguments);
  if (!opened.ok()) return Fail("delete", opened.status());
  std::vector<PolicyWrite> writes;
  for (const std::string& key : arguments.objects) {
    const std::string doing = absl::StrCat("delete ", key);
    const StoredObject* stored = Find(opened->stored, key);
    if (stored == nullptr) {
      const bool some = std::any_of(opened->stored.begin(), opened->stored.end(),
                                    [&](const auto& each) { return Selects(key, each.key); });
      return Fail(doing, absl::NotFoundError(some ? "names several objects; each is deleted by its own name"
                                                  : "no such object; `weftctl get policy` lists them"));
    }
    if (stored->live) {
      return Fail(doing, absl::FailedPreconditionError(
                             "its node says this of itself, under its lease: stop the host or the node"));
    }
    const bool twice =
        std::any_of(writes.begin(), writes.end(), [&](const auto& each) { return each.key == key; });
    if (!twice) writes.push_back({key, "", true, stored->revision});
  }
  if (const absl::Status status = CheckRevision(arguments, arguments.objects, opened->stored); !status.ok()) {
    return Fail("delete", status);
  }
  int64_t revision = 0;
  if (!arguments.dry_run) {
    const absl::StatusOr<int64_t> committed = opened->store->Commit(writes);
    if (!committed.ok()) return Fail("delete", committed.status());
    revision = *committed;
  }
  std::vector<api::Item> items;
  for (const PolicyWrite& write : writes) items.push_back(ResultRow(write.key, "deleted", revision));
  Print(global, "policy", 0, items);
  return 0;
}

int RunEdit(const Global& global, const PolicyArguments& arguments) {
  const std::string& key = arguments.objects.front();
  const std::string doing = absl::StrCat("edit ", key);
  const absl::StatusOr<Opened> opened = Open(arguments);
  if (!opened.ok()) return Fail(doing, opened.status());
  const StoredObject* stored = Find(opened->stored, key);
  if (stored == nullptr || stored->live) {
    return Fail(doing, absl::NotFoundError(stored == nullptr ? "no such object; `weftctl apply` makes one"
                                                             : "a node says this of itself"));
  }
  if (!stored->object.has_value()) {
    return Fail(doing, absl::FailedPreconditionError(
                           absl::StrCat("cannot be read (", stored->problem, "); apply or delete it")));
  }
  absl::StatusOr<EditedText> edited = EditText(control::ObjectsYaml({*stored->object}));
  if (!edited.ok()) return Fail(doing, edited.status());
  absl::StatusOr<Objects> objects = ParseObjects(edited->text, edited->path);
  absl::Status status = objects.status();
  if (status.ok() && (objects->size() != 1 || !objects->contains(key))) {
    status = absl::InvalidArgumentError(
        absl::StrCat("must hold ", key, " and nothing else; `weftctl apply` takes other objects"));
  }
  if (status.ok()) status = Put(global, arguments, *objects, *opened);
  if (status.ok()) {
    edited->Remove();
    return 0;
  }
  const int code = Fail(doing, status);
  std::fprintf(stderr, "weftctl: your text is kept in %s\n", edited->path.c_str());
  return code;
}

int RunPolicyNames(const PolicyArguments& arguments) {
  const absl::StatusOr<Opened> opened = Open(arguments);
  if (!opened.ok()) return 0;
  for (const StoredObject& stored : opened->stored) {
    if (!stored.live) std::printf("%s\n", Printable(stored.key).c_str());
  }
  return 0;
}

}  // namespace weft::ctl
