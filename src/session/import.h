// CapsuleImport: a capsule from bytes that are not to be trusted, in steps, so that the thread that uses the model does only what no other may.
//
//   Check        any thread     everything is verified; nothing has been taken
//   TakeMemory   the model's    room in the pools, which may let go of what is worth less
//   Fill         any thread where the model's memory is the host's own (fills_anywhere); otherwise the model's
//
// An error leaves nothing behind. One thread at a time uses an import, whichever it is.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "capsule/checked_capsule.h"
#include "exec/state_space.h"
#include "reprise/capsule.h"
#include "reprise/status.h"

namespace reprise {

class Engine;

class CapsuleImport {
 public:
  // `bytes` stay as they are until Fill has returned. Errors: those of Model::ImportCapsule, but for memory.
  static Result<CapsuleImport> Check(const Engine& engine, std::span<const std::byte> bytes);

  // The context that the capsule holds, and the token that was chosen and not yet fed, or -1.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int32_t pending() const { return pending_; }

  Status TakeMemory();
  bool fills_anywhere() const;
  Capsule Fill();  // once, after TakeMemory

 private:
  explicit CapsuleImport(CheckedCapsule checked) : checked_(std::move(checked)) {}

  CheckedCapsule checked_;
  std::vector<int32_t> tokens_;
  int32_t pending_ = -1;
  HeldState held_;
};

}  // namespace reprise
