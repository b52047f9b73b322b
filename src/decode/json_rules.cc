#include "decode/json_rules.h"

#include <algorithm>

#include "decode/python_values.h"
#include "decode/quoted_values.h"

namespace reprise {
namespace {

constexpr int kMostIndentation = 32;

}  // namespace

GrammarBuilder::Label JsonRules::Shared(Label& label, std::function<void()> write) {
  if (label < 0) label = builder_.Rule(std::move(write));
  return label;
}

Status JsonRules::WriteRules() {
  builder_.WriteRules();
  return status_;
}

std::vector<std::string> JsonRules::Texts(const Json& value) const {
  std::string text;
  if (quoted()) {
    WriteQuoted(value, mark_, /*names_too=*/false, text);
    return {text};
  }
  text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (notation_ == Notation::kJson || PythonLiteral(value) == text) return {text};
  return {PythonLiteral(value), text};
}

GrammarBuilder::Label JsonRules::Space() {
  return Shared(space_, [this] {
    if (quoted()) return;
    builder_.Optional([this] {
      builder_.OneOf(2, [this](size_t i) {
        builder_.Literal(i == 0 ? " " : "\n");
        if (i == 1) builder_.Repeat(0, kMostIndentation, [this] { builder_.Literal(" "); });
      });
    });
  });
}

GrammarBuilder::Label JsonRules::Escape() {
  return Shared(escape_, [this] {
    const auto hexadecimal = [this](int digits) {
      for (int i = 0; i < digits; ++i) builder_.Set("0123456789abcdefABCDEF");
    };
    builder_.Literal("\\").OneOf(3, [&](size_t i) {
      if (i == 0) {
        builder_.Set("\"\\/bfnrt");
      } else if (i == 1) {
        builder_.Literal("u").Set("0123456789abcefABCEF");
        hexadecimal(3);
      } else {  // halves of pairs mean nothing alone
        builder_.Literal("u").Set("dD").Range('0', '7');
        hexadecimal(2);
      }
    });
  });
}

GrammarBuilder::Label JsonRules::String() {
  return Shared(string_, [this] {
    if (quoted()) {
      builder_.Literal(mark_).Until(mark_);
      return;
    }
    const Label text = builder_.NewLabel(), escape = builder_.NewLabel(), end = builder_.NewLabel();
    builder_.Literal("\"").Place(text).Text().Split(escape).Literal("\"").Jump(end);
    builder_.Place(escape).Call(Escape()).Jump(text).Place(end);
  });
}

GrammarBuilder::Label JsonRules::BareName() {
  return Shared(name_, [this] {
    builder_.Repeat(1, -1, [this] { builder_.Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.$"); });
  });
}

// One, as lengths of strings count them.
GrammarBuilder::Label JsonRules::Character() {
  return Shared(character_, [this] {
    builder_.OneOf(2, [this](size_t i) {
      if (i == 0) {
        characters_.Write(JsonCharacters::Plain());
      } else {
        builder_.Call(Escape());
      }
    });
  });
}

void JsonRules::WriteList(char open, char close, int least, int most, const std::function<void()>& item, size_t first,
                          const std::function<void(size_t)>& first_item) {
  builder_.Literal(std::string(1, open));
  for (size_t i = 0; i < first; ++i) {
    if (i > 0) builder_.Literal(",");
    builder_.Call(Space());
    first_item(i);
  }
  const auto after_comma = [&] {
    builder_.Literal(",").Call(Space());
    item();
  };
  if (first > 0) {
    if (most != 0) builder_.Repeat(least, most, after_comma);
  } else if (most != 0) {
    const auto items = [&] {
      builder_.Call(Space());
      item();
      builder_.Repeat(std::max(0, least - 1), most < 0 ? -1 : most - 1, after_comma);
    };
    if (least == 0) {
      builder_.Optional(items);
    } else {
      items();
    }
  }
  builder_.Call(Space()).Literal(std::string(1, close));
}

void JsonRules::WriteMap(const Fields& form, const std::function<void()>& value) {
  WriteList(form.open, form.close, 0, -1, [&] {
    builder_.Call(form.bare_names ? BareName() : String()).Literal(form.after_name).Call(Space());
    value();
  });
}

GrammarBuilder::Label JsonRules::Array() {
  return Shared(array_, [this] { WriteList('[', ']', 0, -1, [this] { builder_.Call(Value()); }); });
}

GrammarBuilder::Label JsonRules::Object() {
  return Shared(object_, [this] { WriteMap(ObjectFields(), [this] { builder_.Call(Value()); }); });
}

GrammarBuilder::Label JsonRules::Value() {
  return Shared(value_, [this] {
    std::vector<std::string> words;
    for (const Json& word : {Json(true), Json(false), Json(nullptr)}) {
      for (std::string& text : Texts(word)) words.push_back(std::move(text));
    }
    builder_.OneOf(4 + words.size(), [&](size_t i) {
      switch (i) {
        case 0: builder_.Call(Object()); break;
        case 1: builder_.Call(Array()); break;
        case 2: builder_.Call(String()); break;
        case 3: builder_.Call(Number()); break;
        default: builder_.Literal(words[i - 4]);
      }
    });
  });
}

}  // namespace reprise
