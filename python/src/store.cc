// Where capsules live when nobody holds them.
#include "reprise/store.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "store_handle.h"

namespace reprise::python {
namespace {

StoreOptions OptionsOf(nb::handle directory, uint64_t memory_budget, uint64_t disk_budget, uint64_t write_rate, double write_delay,
                       double tip_delay, bool read_only) {
  StoreOptions options;
  options.directory = directory.is_none() ? "" : PathFrom(directory);
  options.memory_budget = memory_budget;
  options.disk_budget = disk_budget;
  options.write_rate = write_rate;
  options.write_delay = write_delay;
  options.tip_delay = tip_delay;
  options.read_only = read_only;
  return options;
}

// An entry is asked for by its name or its id.
uint64_t IdOf(const StoreHandle& self, nb::handle key, std::string_view name_space) {
  uint64_t id = 0;
  if (nb::isinstance<nb::str>(key)) return Value(self.store().Find(name_space, nb::cast<std::string>(key))).id;
  if (!nb::try_cast(key, id)) Refuse("an entry is asked for by its name or its id");
  return id;
}

CapsuleHandle Get(const StoreHandle& self, nb::handle key, std::string_view name_space) {
  const uint64_t id = IdOf(self, key, name_space);
  return {Value(self.gate->Run([&] { return self.store().Get(name_space, id); })), self.gate};
}

StoreEntry Entry(const StoreHandle& self, nb::handle key, std::string_view name_space) {
  return Value(self.store().Show(name_space, IdOf(self, key, name_space)));
}

// Flush waits for files; on a device it is the model's own thread that writes.
void Flush(const StoreHandle& self) {
  Check(self.gate->Run([&] { return self.store().Flush(); }));
}

void BindOptions(nb::module_& module) {
  const StoreOptions defaults;
  nb::class_<StoreOptions>(module, "StoreOptions", "What a store may use: see include/reprise/store.h.")
      .def(
          "__init__",
          [](StoreOptions* self, nb::handle directory, uint64_t memory_budget, uint64_t disk_budget, uint64_t write_rate,
             double write_delay, double tip_delay, bool read_only) {
            new (self) StoreOptions(OptionsOf(directory, memory_budget, disk_budget, write_rate, write_delay, tip_delay, read_only));
          },
          nb::arg("directory") = nb::none(), nb::kw_only(), nb::arg("memory_budget") = defaults.memory_budget,
          nb::arg("disk_budget") = defaults.disk_budget, nb::arg("write_rate") = defaults.write_rate,
          nb::arg("write_delay") = defaults.write_delay, nb::arg("tip_delay") = defaults.tip_delay,
          nb::arg("read_only") = defaults.read_only,
          "No directory: memory alone. Budgets are in bytes (memory_budget 0: as many capsules as the model is loaded for), write_rate in "
          "bytes a "
          "second, delays in seconds.")
      .def_ro("directory", &StoreOptions::directory)
      .def_ro("memory_budget", &StoreOptions::memory_budget)
      .def_ro("disk_budget", &StoreOptions::disk_budget)
      .def_ro("write_rate", &StoreOptions::write_rate)
      .def_ro("write_delay", &StoreOptions::write_delay)
      .def_ro("tip_delay", &StoreOptions::tip_delay)
      .def_ro("read_only", &StoreOptions::read_only);
}

void BindEntry(nb::module_& module) {
  nb::class_<StoreEntry>(module, "StoreEntry", "A capsule in a store, and what the store knows of it.")
      .def_ro("id", &StoreEntry::id)
      .def_ro("parent", &StoreEntry::parent)
      .def_ro("namespace", &StoreEntry::name_space)
      .def_ro("name", &StoreEntry::name)
      .def_ro("pinned", &StoreEntry::pinned)
      .def_prop_ro(
          "keep", [](const StoreEntry& e) { return KeepName(e.keep); }, "Why it was kept.")
      .def_ro("position", &StoreEntry::position)
      .def_ro("nbytes", &StoreEntry::bytes, "That dropping it would free.")
      .def_ro("in_memory", &StoreEntry::in_memory)
      .def_ro("on_disk", &StoreEntry::on_disk)
      .def_ro("created", &StoreEntry::created, "Seconds since the epoch.")
      .def_ro("used", &StoreEntry::used, "Seconds since the epoch: the last hit, or when it was put.")
      .def_ro("hits", &StoreEntry::hits)
      .def_prop_ro("metadata", [](const StoreEntry& e) { return BytesFrom(std::as_bytes(std::span(e.metadata))); })
      .def("__repr__", [](const StoreEntry& e) {
        return "<reprise.StoreEntry " + std::to_string(e.id) + " at " + std::to_string(e.position) +
               (e.name.empty() ? "" : " '" + e.name + "'") + ">";
      });
}

void BindStats(nb::module_& module) {
  using Stats = CapsuleStore::Stats;
  nb::class_<Stats>(module, "StoreStats", "What a store holds and has done. Bytes, entries, counts.")
      .def_ro("memory_bytes", &Stats::memory_bytes)
      .def_ro("memory_budget", &Stats::memory_budget)
      .def_ro("disk_bytes", &Stats::disk_bytes)
      .def_ro("disk_budget", &Stats::disk_budget)
      .def_ro("entries_in_memory", &Stats::entries_in_memory)
      .def_ro("entries_on_disk", &Stats::entries_on_disk)
      .def_ro("hits_memory", &Stats::hits_memory)
      .def_ro("hits_disk", &Stats::hits_disk)
      .def_ro("misses", &Stats::misses)
      .def_ro("evicted_memory", &Stats::evicted_memory)
      .def_ro("evicted_disk", &Stats::evicted_disk)
      .def_ro("quarantined", &Stats::quarantined)
      .def_ro("bytes_written", &Stats::bytes_written)
      .def_ro("rows_written", &Stats::rows_written)
      .def_ro("waiting", &Stats::waiting, "Entries that are still to be written.");
}

}  // namespace

void BindStore(nb::module_& module) {
  BindOptions(module);
  BindEntry(module);
  BindStats(module);
  const auto name_space = [] { return nb::arg("namespace") = ""; };
  nb::class_<StoreHandle>(module, "Store",
                          "The store of a model: capsules at their positions on the paths of tokens, in memory and in a directory.")
      .def(
          "entries", [](const StoreHandle& self, std::string_view ns) { return self.store().List(ns); }, name_space(),
          "All of a namespace, a parent before its children.")
      .def("entry", &Entry, nb::arg("key"), name_space(), "One, by its name or its id.")
      .def("get", &Get, nb::arg("key"), name_space(), "The capsule of one, from disk if need be.")
      .def(
          "tokens", [](const StoreHandle& self, uint64_t id, std::string_view ns) { return ListOf(Value(self.store().Tokens(ns, id))); },
          nb::arg("id"), name_space(), nb::sig("def tokens(self, id: int, namespace: str = '') -> list[int]"))
      .def(
          "pin", [](const StoreHandle& self, uint64_t id, bool pinned, std::string_view ns) { Check(self.store().Pin(ns, id, pinned)); },
          nb::arg("id"), nb::arg("pinned") = true, name_space(), "What is pinned is never evicted.")
      .def(
          "name",
          [](const StoreHandle& self, uint64_t id, std::string_view name, std::string_view ns) { Check(self.store().Name(ns, id, name)); },
          nb::arg("id"), nb::arg("name"), name_space(), "\"\" takes the name away.")
      .def(
          "remove", [](const StoreHandle& self, uint64_t id, std::string_view ns) { Check(self.store().Remove(ns, id)); }, nb::arg("id"),
          name_space())
      .def("flush", &Flush, "Returns when everything that is worth it is on disk.")
      .def_prop_ro("stats", [](const StoreHandle& self) { return self.store().stats(); })
      .def(
          "notices", [](const StoreHandle& self) { return self.store().TakeNotices(); },
          "What happened that a person should know (a full disk, a damaged file): each is given once.");
}

}  // namespace reprise::python
