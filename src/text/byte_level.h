// GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies and merges are written: bytes 0x21-0x7E, 0xA1-0xAC
// and 0xAE-0xFF stand for themselves, the other 68 for U+0100 onwards in order (so a space is U+0120, a newline U+010A).
// Source: the encoder of OpenAI's GPT-2. Pure and thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace reprise {

// Appends to `bytes` what `spelling` stands for. False when some character stands for no byte; `bytes` is then as it was.
bool AppendBytesOfSpelling(std::string_view spelling, std::string& bytes);

// Appends to `spelling` how `bytes` are written in a vocabulary.
void AppendSpellingOfBytes(std::string_view bytes, std::string& spelling);

}  // namespace reprise
