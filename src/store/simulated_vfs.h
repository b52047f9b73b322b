// For tests alone: SQLite's files on a SimulatedDisk. As SQLite's own VFS for Unix, it syncs the directory of a log that it created.
#pragma once

#include <sqlite3.h>

#include <cstring>
#include <memory>
#include <string>

#include "store/simulated_disk.h"

namespace reprise::testing_support {

class SimulatedVfs {
 public:
  explicit SimulatedVfs(SimulatedDisk& disk) : disk_(disk) {
    static int count = 0;
    name_ = "simulated" + std::to_string(++count);
    sqlite3_vfs* const real = sqlite3_vfs_find(nullptr);
    vfs_ = *real;  // time, sleep and randomness are the real ones
    vfs_.pNext = nullptr;
    vfs_.szOsFile = sizeof(File);
    vfs_.zName = name_.c_str();
    vfs_.pAppData = this;
    vfs_.xOpen = Open;
    vfs_.xDelete = Delete;
    vfs_.xAccess = Access;
    vfs_.xFullPathname = FullPathname;
    sqlite3_vfs_register(&vfs_, 0);
  }
  SimulatedVfs(const SimulatedVfs&) = delete;
  SimulatedVfs& operator=(const SimulatedVfs&) = delete;
  ~SimulatedVfs() { sqlite3_vfs_unregister(&vfs_); }
  const char* name() const { return name_.c_str(); }

 private:
  struct State {
    SimulatedDisk* disk;
    std::string name;
    InodePointer inode;
    bool sync_folder = false;
    bool delete_on_close = false;
    bool maps = false;
  };
  struct File {
    sqlite3_file base;
    State* state;
  };
  static State& Of(sqlite3_file* file) { return *reinterpret_cast<File*>(file)->state; }
  static SimulatedDisk& Of(sqlite3_vfs* vfs) { return static_cast<SimulatedVfs*>(vfs->pAppData)->disk_; }
  static Fault Ask(SimulatedDisk& disk, const char* call, bool writes) { return disk.fault(call, writes); }

  static int Open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out_flags) {
    SimulatedDisk& disk = Of(vfs);
    file->pMethods = nullptr;
    if (Ask(disk, "sqlite open", false) != Fault::kNone) return SQLITE_CANTOPEN;
    static int temporaries = 0;
    const std::string name = path != nullptr ? path + 1 : "temporary" + std::to_string(++temporaries);
    InodePointer inode = disk.Find(name);
    const bool create = inode == nullptr;
    if (create && (flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
    if (create) inode = disk.Create(name);
    auto* const state = new State{&disk, name, inode};
    state->sync_folder = create && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
    state->delete_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
    reinterpret_cast<File*>(file)->state = state;
    file->pMethods = Methods();
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  }
  static int Delete(sqlite3_vfs* vfs, const char* path, int sync_folder) {
    SimulatedDisk& disk = Of(vfs);
    if (Ask(disk, "sqlite delete", false) != Fault::kNone) return SQLITE_IOERR_DELETE;
    if (disk.Find(path + 1) == nullptr) return SQLITE_IOERR_DELETE_NOENT;
    disk.Unlink(path + 1);
    if (sync_folder != 0) disk.SyncFolder("");
    return SQLITE_OK;
  }
  static int Access(sqlite3_vfs* vfs, const char* path, int, int* result) {
    *result = Of(vfs).Find(path + 1) != nullptr ? 1 : 0;
    return SQLITE_OK;
  }
  static int FullPathname(sqlite3_vfs*, const char* path, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", path);
    return SQLITE_OK;
  }

  static int Close(sqlite3_file* file) {
    State* const state = reinterpret_cast<File*>(file)->state;
    state->inode->locks.erase(file);
    if (state->delete_on_close && state->disk->Find(state->name) != nullptr) state->disk->Unlink(state->name);
    delete state;
    return SQLITE_OK;
  }
  static int Read(sqlite3_file* file, void* to, int bytes, sqlite3_int64 offset) {
    State& state = Of(file);
    if (Ask(*state.disk, "sqlite read", false) != Fault::kNone) return SQLITE_IOERR_READ;
    const auto& there = state.inode->bytes;
    const auto start = static_cast<size_t>(offset);
    const size_t have = start < there.size() ? std::min(there.size() - start, static_cast<size_t>(bytes)) : 0;
    if (have > 0) std::memcpy(to, there.data() + start, have);
    if (have == static_cast<size_t>(bytes)) return SQLITE_OK;
    std::memset(static_cast<std::byte*>(to) + have, 0, static_cast<size_t>(bytes) - have);
    return SQLITE_IOERR_SHORT_READ;
  }
  static int Write(sqlite3_file* file, const void* from, int bytes, sqlite3_int64 offset) {
    State& state = Of(file);
    const auto span = std::span(static_cast<const std::byte*>(from), static_cast<size_t>(bytes));
    const auto start = static_cast<uint64_t>(offset);
    const uint64_t growth = start + span.size() > state.inode->bytes.size() ? start + span.size() - state.inode->bytes.size() : 0;
    switch (Ask(*state.disk, "sqlite write", true)) {
      case Fault::kNone: break;
      case Fault::kIo: return SQLITE_IOERR_WRITE;
      case Fault::kShortWrite: state.disk->Write(state.inode, start, span.first(span.size() / 2)); return SQLITE_FULL;
      case Fault::kNoSpace: return SQLITE_FULL;
    }
    if (growth > 0 && state.disk->UsedBytes() + growth > state.disk->bytes_limit) return SQLITE_FULL;
    state.disk->Write(state.inode, start, span);
    return SQLITE_OK;
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    State& state = Of(file);
    if (Ask(*state.disk, "sqlite truncate", false) != Fault::kNone) return SQLITE_IOERR_TRUNCATE;
    state.disk->Truncate(state.inode, static_cast<uint64_t>(size));
    return SQLITE_OK;
  }
  static int Sync(sqlite3_file* file, int) {
    State& state = Of(file);
    if (Ask(*state.disk, "sqlite sync", false) != Fault::kNone) return SQLITE_IOERR_FSYNC;
    state.disk->SyncFile(state.name, state.inode);
    if (std::exchange(state.sync_folder, false)) state.disk->SyncFolder("");
    return SQLITE_OK;
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) {
    *size = static_cast<sqlite3_int64>(Of(file).inode->bytes.size());
    return SQLITE_OK;
  }
  // As many may share as like; of those that want more than to share there is one, and an exclusive one is alone.
  static int Lock(sqlite3_file* file, int level) {
    auto& locks = Of(file).inode->locks;
    for (const auto& [holder, held] : locks) {
      if (holder == file) continue;
      if (held == SQLITE_LOCK_EXCLUSIVE || (held >= SQLITE_LOCK_RESERVED && level >= SQLITE_LOCK_RESERVED)) return SQLITE_BUSY;
      if (level == SQLITE_LOCK_EXCLUSIVE) return SQLITE_BUSY;
    }
    locks[file] = std::max(locks[file], level);
    return SQLITE_OK;
  }
  static int Unlock(sqlite3_file* file, int level) {
    auto& locks = Of(file).inode->locks;
    if (level == SQLITE_LOCK_NONE) {
      locks.erase(file);
    } else {
      locks[file] = level;
    }
    return SQLITE_OK;
  }
  static int CheckReservedLock(sqlite3_file* file, int* reserved) {
    *reserved = 0;
    for (const auto& [holder, held] : Of(file).inode->locks) *reserved |= held >= SQLITE_LOCK_RESERVED ? 1 : 0;
    return SQLITE_OK;
  }
  static int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int SectorSize(sqlite3_file*) { return 4096; }
  static int DeviceCharacteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

  static int ShmMap(sqlite3_file* file, int region, int size, int extend, volatile void** out) {
    State& state = Of(file);
    Inode& inode = *state.inode;
    if (!std::exchange(state.maps, true)) ++inode.shared_users;
    *out = nullptr;
    if (static_cast<size_t>(region) >= inode.shared.size()) {
      if (extend == 0) return SQLITE_OK;
      while (static_cast<size_t>(region) >= inode.shared.size())
        inode.shared.push_back(std::make_unique<std::byte[]>(static_cast<size_t>(size)));
    }
    *out = inode.shared[static_cast<size_t>(region)].get();
    return SQLITE_OK;
  }
  static int ShmLock(sqlite3_file* file, int first, int count, int flags) {
    Inode& inode = *Of(file).inode;
    for (int i = first; i < first + count; ++i) {
      Inode::Slot& slot = inode.slots[i];
      const bool others_read = slot.readers.size() > slot.readers.count(file);
      if ((flags & SQLITE_SHM_LOCK) == 0) continue;
      if (slot.writer != nullptr && slot.writer != file) return SQLITE_BUSY;
      if ((flags & SQLITE_SHM_EXCLUSIVE) != 0 && others_read) return SQLITE_BUSY;
    }
    for (int i = first; i < first + count; ++i) {
      Inode::Slot& slot = inode.slots[i];
      if ((flags & SQLITE_SHM_LOCK) != 0) {
        if ((flags & SQLITE_SHM_EXCLUSIVE) != 0) {
          slot.writer = file;
        } else {
          slot.readers.insert(file);
        }
      } else if ((flags & SQLITE_SHM_EXCLUSIVE) != 0) {
        if (slot.writer == file) slot.writer = nullptr;
      } else {
        slot.readers.erase(file);
      }
    }
    return SQLITE_OK;
  }
  static void ShmBarrier(sqlite3_file*) {}
  static int ShmUnmap(sqlite3_file* file, int remove) {
    State& state = Of(file);
    Inode& inode = *state.inode;
    for (auto& slot : inode.slots) {
      slot.readers.erase(file);
      if (slot.writer == file) slot.writer = nullptr;
    }
    if (std::exchange(state.maps, false) && --inode.shared_users == 0 && remove != 0) inode.shared.clear();
    return SQLITE_OK;
  }

  static const sqlite3_io_methods* Methods() {
    static const sqlite3_io_methods methods = {2,
                                               Close,
                                               Read,
                                               Write,
                                               Truncate,
                                               Sync,
                                               FileSize,
                                               Lock,
                                               Unlock,
                                               CheckReservedLock,
                                               FileControl,
                                               SectorSize,
                                               DeviceCharacteristics,
                                               ShmMap,
                                               ShmLock,
                                               ShmBarrier,
                                               ShmUnmap,
                                               nullptr,
                                               nullptr};
    return &methods;
  }

  SimulatedDisk& disk_;
  std::string name_;
  sqlite3_vfs vfs_{};
};

}  // namespace reprise::testing_support
