// Which lane of a warp holds what, in the tensor cores' product of 16 rows (activations) by 8 columns (outputs) over 32 inputs of bytes, and where
// that lies in shared memory; and the same of 16-bit floats. Plain arithmetic: packed_weight_test.cc multiplies with it on the host.
//
// Of lane l, g = l / 4 and t = l % 4. A word is 4 bytes: inputs 4t to 4t + 3 of 16 that lie together.
#pragma once

#include "backend/cuda/packed_weight.h"

namespace reprise::cuda {

struct TilePlace {
  int row, chunk;  // which row (or column) of the tile, and which 16 of its 32 inputs
};
// Word `i` of 4 that a lane holds of the activations, of 2 that it holds of the weights.
REPRISE_HD constexpr TilePlace ActivationWord(int lane, int i) { return {lane / 4 + i % 2 * 8, i / 2}; }
REPRISE_HD constexpr TilePlace WeightWord(int lane, int i) { return {lane / 4, i}; }
REPRISE_HD constexpr int WordInputs(int lane) { return lane % 4 * 4; }  // the first of the four inputs, among the 16
// Sum `i` of 4 that a lane gets: its row and its column in the tile.
REPRISE_HD constexpr int SumRow(int lane, int i) { return lane / 4 + i / 2 * 8; }
REPRISE_HD constexpr int SumColumn(int lane, int i) { return lane % 4 * 2 + i % 2; }

// A block of threads computes 64 rows by 128 outputs (4 tiles), one segment at a time. A stage of shared memory holds a segment of both:
//   weights  4 tiles, as packed_weight.h lays them out
//   quants   [64 rows][8 chunks of 16 inputs, in an order of the row's own][16 bytes]
//   scales   [64 rows][4 blocks] float, and sums alike
// so that neither the words that a warp takes at once nor the pieces that it brings meet in a bank.
inline constexpr int kMmaRows = 64;
inline constexpr int kMmaTiles = 4;
inline constexpr int kMmaThreads = 256;
inline constexpr int kMmaStages = 3;

REPRISE_HD constexpr int StageQuants(Form form) { return kMmaTiles * SegmentBytes(form); }
// A chunk is told by three bits of its place that the row has turned over; a stage begins on a multiple of 128 bytes, so they may be turned over in what is
// added up already, and rows that are 8 apart have them alike.
REPRISE_HD constexpr int ChunkOf(int first, int chunk) { return first ^ chunk * 16; }
REPRISE_HD constexpr int StageQuantAt(Form form, int chunk, int row) {
  return ChunkOf(StageQuants(form) + row * kSegment + row % 8 * 16, chunk);
}
REPRISE_HD constexpr int StageScales(Form form) { return StageQuants(form) + kSegment * kMmaRows; }
REPRISE_HD constexpr int StageSums(Form form) { return StageScales(form) + kMmaRows * kSegmentBlocks * 4; }
REPRISE_HD constexpr int StageBytes(Form form) { return StageSums(form) + (HasMin(form) ? kMmaRows * kSegmentBlocks * 4 : 0); }

// Of 16-bit floats, where weights are the 16 rows and activations the 8 columns, weights come to a lane straight from memory (ShortAt). A block of
// threads computes 64 rows, and a stage is the rows' floats alone: of each row 32 pieces of 4 inputs, which change places so that the 8 lanes that are
// served at once (two columns, four pieces) meet in no bank.
inline constexpr int kShortColumns = 8;
inline constexpr int kRowPieces = kSegment / 4;
inline constexpr int kShortStageBytes = kMmaRows * kSegment * 4;
REPRISE_HD constexpr int ShortStageAt(int row, int piece) { return (row * kRowPieces + (piece ^ row % 2 * 4)) * 16; }

}  // namespace reprise::cuda
