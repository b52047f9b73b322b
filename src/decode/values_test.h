// Values of JSON at random, for tests of the notations that they are written in.
#pragma once

#include <nlohmann/json.hpp>
#include <random>
#include <string>

namespace reprise {

// Names may be bare unless they are `spaced`; texts hold whatever quotes and closes things.
inline nlohmann::ordered_json AnyValue(std::mt19937& random, bool spaced, int depth = 0) {
  using Json = nlohmann::ordered_json;
  switch (random() % (depth > 3 ? 5 : 7)) {
    case 0: return std::string("it's (text), [with] \"all\": {of} it \xc3\xa9\n\\").substr(random() % 12);
    case 1: return static_cast<int>(random() % 2000) - 1000;
    case 2: return random() % 2 == 0;
    case 3: return nullptr;
    case 4: return static_cast<double>(random() % 1000) / 8;
    case 5: {
      Json array = Json::array();
      for (unsigned n = random() % 4; n > 0; --n) array.push_back(AnyValue(random, spaced, depth + 1));
      return array;
    }
    default: {
      Json object = Json::object();
      for (unsigned n = random() % 4; n > 0; --n) {
        object[std::string(1, static_cast<char>('a' + random() % 26)) + (spaced ? " x" : "_x")] = AnyValue(random, spaced, depth + 1);
      }
      return object;
    }
  }
}

}  // namespace reprise
