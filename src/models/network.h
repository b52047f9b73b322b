// Network: a loaded architecture. It owns nothing but handles into its backend; it declares its state and records its computation.
//
// A network runs in two parts, so that the logits of a boundary can always be had again from the state at that boundary:
//   body: the step's tokens -> the hidden row (after the output norm) of each, and the recurrent state `last.hidden` of each lane;
//   head: hidden rows -> logits.
// A restored or forked execution runs the head on its `last.hidden` and continues with the same bits.
//
// The body is a sequence of blocks, each of a mixer (attention or a recurrence) and a feed-forward network that add to the residual stream. That
// sequence is the same for all architectures and stands here; what the sublayers do is theirs.
//
// Loading checks every name, shape and number that it uses. The networks contain no policy: no sampling, no reuse, no sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "formats/gguf.h"
#include "reprise/layout.h"
#include "reprise/status.h"

namespace reprise {

class Loader;

inline constexpr int kDefaultContext = 32768;  // most positions of a session, where nobody says and the model was made for more

struct NetworkOptions {
  int max_rows = 256;                            // of one step
  int max_lanes = 8;                             // of one step
  int context = 0;                               // most positions of a session; 0: what the model was made for, at most kDefaultContext
  ElementType kv_type = ElementType::kF16;       // of keys and values: kF16, kF32 or kQ8_0
  std::function<void(uint64_t bytes)> progress;  // called while weights load, with the bytes of the file read so far
};

constexpr int ContextOf(int wanted, int made_for) { return wanted > 0 ? wanted : made_for < kDefaultContext ? made_for : kDefaultContext; }

// What callers need to know of a network.
struct NetworkInfo {
  std::string architecture;
  std::string name;  // general.name, or empty
  int vocabulary = 0;
  int width = 0;  // of a hidden row
  int layers = 0;
  int state_blocks = 0;     // from the first on, behind which nothing is left that later steps read; 0: all
  int context = 0;          // that the model was made for
  std::string token_table;  // a tensor of which a token reads a row, beside the embedding; or empty
  std::string positions;    // how they are told, where that depends on NetworkOptions::context: state of one way is none of another's
  bool has_draft = false;   // an MTP block
  int experts = 0;          // of a mixture; 0: none
  int experts_used = 0;     // by a row
  uint64_t parameters = 0;

  // Of a tensor's weights, the share that a row is multiplied with.
  double UsedShare(const GgufTensor& tensor) const;
  // The same of a row of a prompt that is not its last: none of an output matrix, nor of blocks whose results nobody reads then.
  double PrefillShare(const GgufTensor& tensor) const;
  int StateBlocks() const { return state_blocks > 0 ? state_blocks : layers; }
};

// What a body leaves behind.
enum class Body {
  kWhole,  // all of it: `hidden()` and, with has_draft, `draft_hidden()` hold every row
  // The same, and what the recurrences took from the rows, for RecordReplay and in the lanes' ReplayLogs; in steps of at most Network::kReplayRows
  // rows, or of one row a lane.
  kLogged,
  kHistory,  // only what later steps read, which is less than the last block computes; RecordLastRows follows
};

// What a mixer computes of its rows.
enum class MixerPart {
  kAll,
  kState,   // what later steps read: a recurrence does all it does, attention only appends keys and values
  kResult,  // the rest, after kState was computed for the same rows: nothing of a recurrence
};

class Network {
 public:
  virtual ~Network() = default;

  // Reads `file` (which stays mapped for the network's life), loads its weights into `backend` and declares its state in `layout`.
  static Result<std::unique_ptr<Network>> Load(const GgufFile& file, Backend& backend, StateLayout& layout, const NetworkOptions& options);
  // The architectures that Load knows.
  static std::vector<std::string_view> Architectures();

  const NetworkInfo& info() const { return info_; }
  StateRef last_hidden() const { return last_hidden_; }

  // Everything up to the hidden rows, state included, as far as `body` says.
  void RecordBody(Ops& ops, Body body) const;
  // After a body of kHistory, as a step of its own, in which each lane has one row, the last of those it had: `last.hidden`, to the same bits as
  // a whole body's, for no row depends on another but through state. Records nothing where kHistory computes every hidden row, as an MTP
  // block demands.
  void RecordLastRows(Ops& ops) const;
  static constexpr int kReplayRows = 16;
  // After a logged body: the recurrent states again, from the blocks that the step read, for the rows that the StepTable then gives each lane
  // (the first of those it had). The recurrences alone, in their native order: the same bits as a step of only those rows, without a product.
  void RecordReplay(Ops& ops) const;
  // The same of up to kReplayRows rows of any logged steps, by what the lanes' ReplayLogs kept of them. Appended rows stay as those steps left them.
  void RecordRecall(Ops& ops) const;
  size_t log_row_bytes() const;  // of a ReplayLog
  // One guess of the MTP block: from the token in a lane's only row and the hidden row before it, which is the lane's `last.hidden`, or, when
  // `chained`, the guess before this one. Writes `draft_hidden()` and the block's keys and values at the row. Only with has_draft.
  virtual void RecordDraftStep(Ops&, bool /*chained*/) const {}
  // logits = output matrix * hidden, for rows of either domain.
  void RecordHead(Ops& ops, Rows logits, Rows hidden) const;
  // What the MTP block predicts for the token after each row, from the hidden row before it: the draft's logits. Only with has_draft.
  virtual void RecordDraftHead(Ops& ops, Rows logits, Rows hidden) const { RecordHead(ops, logits, hidden); }

  Rows hidden() const { return hidden_; }
  Rows draft_hidden() const { return draft_hidden_; }

 protected:
  // Into `carried`, what rows of the stream carry behind them. Called once a body, when `stream` is what the embedding made.
  virtual void RecordCarried(Ops&, Rows /*stream*/, Rows /*carried*/) const {}
  // The sublayers of block `block`, on rows of the residual stream, to which they add.
  virtual void RecordMixer(Ops& ops, int block, Rows residual, MixerPart part, bool logged) const = 0;
  virtual void RecordFeedForward(Ops& ops, int block, Rows residual) const = 0;
  // Every recurrent state of the blocks, from what a logged step left in their own buffers.
  virtual void RecordRecurrences(Ops&) const {}
  // What follows the hidden rows of a body. Only with has_draft.
  virtual void RecordDraft(Ops&, Body) const {}

  // `width` columns, from `first` on, of what a row of the stream carries.
  Rows Carried(Rows residual, int first, int width) const {
    return {residual.data + info_.width + first, residual.stride, width, residual.domain};
  }

  // What every architecture has: before its blocks load, the matrices at both ends of the stream and the norm before the output, times
  // `logit_scale`; after them, the state and the rows of the stream, each of which carries `carried_` values more. info_.width is set.
  void LoadEnds(Loader& loader, const std::string& output_norm, float logit_scale = 1.0f);
  void NewStream(Loader& loader);

  NetworkInfo info_;
  const Matrix* embedding_ = nullptr;
  float embedding_scale_ = 1;
  Vector output_norm_;
  float eps_ = 0;  // of the norms that read the residual stream
  // Of each row of the stream: what is made of its token at the beginning, for blocks to read and none to change.
  int carried_ = 0;
  float logit_cap_ = 0;  // 0: none
  Vector silence_;       // added to the logits; without data: none
  const Matrix* output_ = nullptr;
  StateRef last_hidden_;
  Rows stream_;       // the residual stream, and what it carries
  Rows last_stream_;  // the last row of each lane of it
  Rows hidden_;
  Rows draft_hidden_;

 private:
  Rows Residual(Rows stream) const { return stream.Columns(0, info_.width); }
  // The end of a body: the hidden rows of `residual`, and `last.hidden`.
  void RecordHidden(Ops& ops, Rows residual, Body body) const;

  std::vector<LogPart> log_;  // what the recurrences take from a row, and the hidden row
};

}  // namespace reprise
