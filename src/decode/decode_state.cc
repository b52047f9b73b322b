#include "decode/decode_state.h"

#include <cstring>
#include <type_traits>

#include "base/utf8.h"
#include "decode/generator.h"
#include "decode/stop_matcher.h"
#include "exec/state_space.h"

namespace reprise {
namespace {

// State bytes are copied, compared and digested, so a state may have no padding.
static_assert(sizeof(SamplingNumbers) == 8 * 4);
static_assert(sizeof(TokenBiases) == 4 + 8 * SamplingOptions::kMaxBiases);
static_assert(sizeof(GrammarProgram) == 4 + Grammar::kMostBytes);
static_assert(sizeof(GrammarThreads) == 2 * (2 + GrammarThreads::kWords));
static_assert(sizeof(Generator) == 2 * 8);
static_assert(sizeof(StopStrings) == 4 + 2 * SamplingOptions::kMaxStops + SamplingOptions::kMaxStopBytes);
static_assert(sizeof(HeldText) == 4 + SamplingOptions::kMaxStopBytes);
static_assert(sizeof(PartialCharacter) == 4);

constexpr int32_t kNoToken = -1;

Status CheckNumbers(const SamplingNumbers& numbers) {
  const char* fault = numbers.Fault();
  return fault == nullptr ? Ok() : Corrupt(std::string("the state decode.options is impossible: ") + fault);
}

Status CheckBiases(const TokenBiases& biases) {
  const char* fault = biases.Fault();
  return fault == nullptr ? Ok() : Corrupt(std::string("the state decode.biases is impossible: ") + fault);
}

Status CheckGrammar(const GrammarProgram& program, const GrammarThreads& threads) {
  if (const char* fault = program.Fault()) return Corrupt(std::string("the state decode.grammar is impossible: ") + fault);
  if (const char* fault = threads.Fault(program)) return Corrupt(std::string("the state decode.threads is impossible: ") + fault);
  return Ok();
}

Status CheckStops(const StopStrings& stops) {
  if (stops.count > SamplingOptions::kMaxStops) {
    return Corrupt("the state decode.stops claims " + std::to_string(stops.count) + " stop strings; at most " +
                   std::to_string(SamplingOptions::kMaxStops) + " are possible");
  }
  const StopMatcher matcher(stops);
  if (matcher.stops().size() != stops.count) return Corrupt("the state decode.stops claims stop strings of impossible lengths");
  std::string again[SamplingOptions::kMaxStops];
  for (size_t i = 0; i < stops.count; ++i) {
    again[i] = matcher.stops()[i];
    if (!IsUtf8(again[i])) return Corrupt("the state decode.stops holds a stop string that is not UTF-8");
  }
  StopStrings canonical;
  canonical.Set({again, stops.count});
  if (std::memcmp(&canonical, &stops, sizeof(stops)) != 0) return Corrupt("the state decode.stops holds bytes after its last stop string");
  return Ok();
}

Status CheckHeld(const HeldText& held, const StopStrings& stops) {
  const std::string_view text = held.view();
  if (text.size() != held.size || (!text.empty() && !StopMatcher(stops).Begins(text))) {
    return Corrupt("the state decode.held_text holds text that begins no stop string");
  }
  for (size_t i = text.size(); i < sizeof(held.bytes); ++i) {
    if (held.bytes[i] != 0) return Corrupt("the state decode.held_text holds bytes after its text");
  }
  return Ok();
}

bool PushAll(const StopMatcher& matcher, std::string_view characters, HeldText& held, std::string& text) {
  for (const char byte : characters) {
    if (matcher.Push(byte, held, text)) return true;
  }
  return false;
}

}  // namespace

template <class T>
T DecodeState::Load(const std::byte* host, Part part) const {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, host + offsets_[part], sizeof(T));
  return value;
}

template <class T>
void DecodeState::Store(std::byte* host, Part part, const T& value) const {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(host + offsets_[part], &value, sizeof(T));
}

DecodeState DecodeState::Declare(StateLayout& layout, Bytes of_tokens) {
  DecodeState state;
  const auto declare = [&](Part part, const char* name, ElementType type, int64_t elements) {
    state.states_[part] = layout.Recurrent(name, type, {elements}, Space::kHost);
    state.offsets_[part] = layout[state.states_[part]].offset;
  };
  declare(kOptions, "decode.options", ElementType::kBytes, sizeof(SamplingNumbers));
  declare(kBiases, "decode.biases", ElementType::kBytes, sizeof(TokenBiases));
  if (of_tokens == Bytes::kKnown) {
    declare(kGrammar, "decode.grammar", ElementType::kBytes, sizeof(GrammarProgram));
    declare(kThreads, "decode.threads", ElementType::kBytes, sizeof(GrammarThreads));
  } else {
    state.states_[kGrammar] = state.states_[kThreads] = -1;
  }
  declare(kGenerator, "decode.generator", ElementType::kI64, sizeof(Generator) / 8);
  declare(kStops, "decode.stops", ElementType::kBytes, sizeof(StopStrings));
  declare(kHeldText, "decode.held_text", ElementType::kBytes, sizeof(HeldText));
  declare(kUtf8, "decode.utf8", ElementType::kBytes, sizeof(PartialCharacter));
  declare(kPending, "decode.pending", ElementType::kI32, 1);
  return state;
}

void DecodeState::InitialiseOrigin(StateSpace& space) const {
  const auto write = [&](Part part, const auto& value) {
    const std::span<std::byte> bytes = space.origin(states_[part]);
    std::memcpy(bytes.data(), &value, bytes.size());
  };
  write(kOptions, SamplingNumbers());
  write(kBiases, TokenBiases());
  if (takes_grammar()) {
    write(kGrammar, GrammarProgram());
    write(kThreads, GrammarThreads());
  }
  write(kGenerator, Generator());
  write(kStops, StopStrings());
  write(kHeldText, HeldText());
  write(kUtf8, PartialCharacter());
  write(kPending, kNoToken);
}

Status DecodeState::Configure(const SamplingOptions& options, std::byte* host) const {
  REPRISE_RETURN_IF_ERROR(options.Check());
  if (options.grammar.present() && !takes_grammar()) return Unsupported("there is no grammar for tokens whose text is not known");
  StopStrings stops;
  stops.Set(options.stop);
  const GrammarProgram program = GrammarProgram::Of(options.grammar);
  GrammarThreads threads;
  if (program.present()) GrammarMachine(program).Begin(threads);
  Store(host, kOptions, SamplingNumbers::Of(options));
  Store(host, kBiases, TokenBiases::Of(options));
  if (takes_grammar()) {
    Store(host, kGrammar, program);
    Store(host, kThreads, threads);
  }
  Store(host, kGenerator, Generator{options.seed, 0});
  Store(host, kStops, stops);
  Store(host, kHeldText, HeldText());
  Store(host, kUtf8, PartialCharacter());
  return Ok();
}

SamplingOptions DecodeState::Options(const std::byte* host) const {
  SamplingOptions options;
  Load<SamplingNumbers>(host, kOptions).CopyTo(options);
  Load<TokenBiases>(host, kBiases).CopyTo(options);
  if (auto grammar = Grammar::FromCode(std::string(this->grammar(host).view())); grammar.ok()) options.grammar = *std::move(grammar);
  options.seed = Load<Generator>(host, kGenerator).seed;
  const auto stops = Load<StopStrings>(host, kStops);
  const StopMatcher matcher(stops);
  for (const std::string_view stop : matcher.stops()) options.stop.emplace_back(stop);
  return options;
}

Status DecodeState::Check(const std::byte* host, int vocabulary) const {
  REPRISE_RETURN_IF_ERROR(CheckNumbers(Load<SamplingNumbers>(host, kOptions)));
  REPRISE_RETURN_IF_ERROR(CheckBiases(Load<TokenBiases>(host, kBiases)));
  REPRISE_RETURN_IF_ERROR(CheckGrammar(grammar(host), threads(host)));
  const auto stops = Load<StopStrings>(host, kStops);
  REPRISE_RETURN_IF_ERROR(CheckStops(stops));
  REPRISE_RETURN_IF_ERROR(CheckHeld(Load<HeldText>(host, kHeldText), stops));
  if (!Load<PartialCharacter>(host, kUtf8).IsBeginning()) return Corrupt("the state decode.utf8 holds bytes that begin no character");
  if (const int32_t token = pending(host); token < kNoToken || token >= vocabulary) {
    return Corrupt("the state decode.pending holds token " + std::to_string(token) + " of a vocabulary of " + std::to_string(vocabulary));
  }
  return Ok();
}

// What `choose` makes of the options, the biases and the generator in `host`, which then has taken its numbers.
template <class T, class Choose>
Result<T> DecodeState::Chosen(std::byte* host, const Choose& choose) const {
  const auto numbers = Load<SamplingNumbers>(host, kOptions);
  REPRISE_RETURN_IF_ERROR(CheckNumbers(numbers));
  const auto biases = Load<TokenBiases>(host, kBiases);
  REPRISE_RETURN_IF_ERROR(CheckBiases(biases));
  auto generator = Load<Generator>(host, kGenerator);
  Result<T> token = choose(numbers, generator, biases);
  if (token.ok()) Store(host, kGenerator, generator);
  return token;
}

Result<int32_t> DecodeState::Sample(std::span<const float> logits, std::span<const int32_t> window, std::byte* host,
                                    SampleWorkspace& workspace, AllowedTokens allowed) const {
  return Chosen<int32_t>(host, [&](const SamplingNumbers& numbers, Generator& generator, const TokenBiases& biases) {
    return ChooseToken(numbers, logits, window, generator, workspace, biases, allowed);
  });
}

Result<std::optional<int32_t>> DecodeState::SampleFromBest(const BestLogits& best, std::span<const int32_t> window, std::byte* host,
                                                           SampleWorkspace& workspace, AllowedTokens allowed,
                                                           const RowWeights& weights) const {
  return Chosen<std::optional<int32_t>>(host, [&](const SamplingNumbers& numbers, Generator& generator, const TokenBiases& biases) {
    return ChooseFromBest(numbers, best, window, generator, workspace, biases, allowed, weights);
  });
}

Result<std::optional<int32_t>> DecodeState::SampleFromPart(const BestLogits& best, const RowWeights& weights, RowReader& reader,
                                                           std::span<const int32_t> window, std::byte* host, AllowedTokens allowed) const {
  return Chosen<std::optional<int32_t>>(host, [&](const SamplingNumbers& numbers, Generator& generator, const TokenBiases& biases) {
    return ChooseFromPart(numbers, best, weights, reader, window, generator, biases, allowed);
  });
}

float DecodeState::WeighingTemperature(const std::byte* host) const {
  return reprise::WeighingTemperature(Load<SamplingNumbers>(host, kOptions));
}

int32_t DecodeState::PenaltyWindow(const std::byte* host) const { return Load<SamplingNumbers>(host, kOptions).Window(); }

int32_t DecodeState::pending(const std::byte* host) const { return Load<int32_t>(host, kPending); }
void DecodeState::set_pending(std::byte* host, int32_t token) const { Store(host, kPending, token); }

bool DecodeState::has_grammar(const std::byte* host) const {
  return takes_grammar() && Load<decltype(GrammarProgram::size)>(host, kGrammar) != 0;
}
GrammarProgram DecodeState::grammar(const std::byte* host) const {
  return takes_grammar() ? Load<GrammarProgram>(host, kGrammar) : GrammarProgram();
}
GrammarThreads DecodeState::threads(const std::byte* host) const {
  return takes_grammar() ? Load<GrammarThreads>(host, kThreads) : GrammarThreads();
}

bool DecodeState::IsComplete(const std::byte* host) const {
  if (!has_grammar(host)) return false;
  const GrammarProgram program = grammar(host);
  return GrammarMachine(program).MustEnd(threads(host));
}

bool DecodeState::Feed(std::string_view token_bytes, std::byte* host, std::string& text) const {
  if (has_grammar(host)) {
    const GrammarProgram program = grammar(host);
    GrammarThreads now = threads(host);
    if (GrammarMachine(program).Advance(token_bytes, now)) Store(host, kThreads, now);
  }
  const auto stops = Load<StopStrings>(host, kStops);
  const StopMatcher matcher(stops);
  auto held = Load<HeldText>(host, kHeldText);
  auto partial = Load<PartialCharacter>(host, kUtf8);
  bool stopped = false;
  for (const char byte : token_bytes) {
    // The matcher sees whole characters, and stop strings are whole characters: what it shows is too.
    stopped = PushAll(matcher, Utf8Push(partial, static_cast<uint8_t>(byte)).view(), held, text);
    if (stopped) break;
  }
  Store(host, kHeldText, held);
  Store(host, kUtf8, stopped ? PartialCharacter() : partial);
  return stopped;
}

void DecodeState::Flush(std::byte* host, std::string& text) const {
  const auto stops = Load<StopStrings>(host, kStops);
  auto held = Load<HeldText>(host, kHeldText);
  auto partial = Load<PartialCharacter>(host, kUtf8);
  if (!PushAll(StopMatcher(stops), Utf8Finish(partial).view(), held, text)) text += held.view();
  Store(host, kHeldText, HeldText());
  Store(host, kUtf8, PartialCharacter());
}

}  // namespace reprise
