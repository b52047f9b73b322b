#include "decode/json_rules.h"

#include <algorithm>

namespace reprise {
namespace {

// Digits of the numbers that are written: a 64-bit integer and a double hold them all.
constexpr int kMostIntegerDigits = 18;
constexpr int kMostDigits = 15;
constexpr int kMostExponentDigits = 2;
constexpr int kMostIndentation = 32;

}  // namespace

GrammarBuilder::Label JsonRules::Shared(Label& label, std::function<void()> write) {
  if (label >= 0) return label;
  label = builder_.NewLabel();
  unwritten_.push_back([this, at = label, write = std::move(write)] {
    builder_.Place(at);
    write();
    builder_.Return();
  });
  return label;
}

Status JsonRules::WriteRules() {
  while (!unwritten_.empty() && status_.ok() && !builder_.full()) {
    const std::function<void()> write = std::move(unwritten_.front());
    unwritten_.pop_front();
    write();
  }
  return status_;
}

GrammarBuilder::Label JsonRules::Space() {
  return Shared(space_, [this] {
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
    const Label text = builder_.NewLabel(), escape = builder_.NewLabel(), end = builder_.NewLabel();
    builder_.Literal("\"").Place(text).Text().Split(escape).Literal("\"").Jump(end);
    builder_.Place(escape).Call(Escape()).Jump(text).Place(end);
  });
}

// One, as lengths of strings count them.
GrammarBuilder::Label JsonRules::Character() {
  return Shared(character_, [this] {
    struct Bytes {
      uint8_t first, last;                 // of the first byte
      uint8_t second = 0x80, most = 0xbf;  // of the second
      int others;                          // after the first
    };
    static constexpr Bytes kForms[] = {{.first = 0x20, .last = 0x21, .others = 0},
                                       {.first = 0x23, .last = 0x5b, .others = 0},
                                       {.first = 0x5d, .last = 0x7e, .others = 0},
                                       {.first = 0xc2, .last = 0xdf, .others = 1},
                                       {.first = 0xe0, .last = 0xe0, .second = 0xa0, .others = 2},
                                       {.first = 0xe1, .last = 0xec, .others = 2},
                                       {.first = 0xed, .last = 0xed, .most = 0x9f, .others = 2},
                                       {.first = 0xee, .last = 0xef, .others = 2},
                                       {.first = 0xf0, .last = 0xf0, .second = 0x90, .others = 3},
                                       {.first = 0xf1, .last = 0xf3, .others = 3},
                                       {.first = 0xf4, .last = 0xf4, .most = 0x8f, .others = 3}};
    builder_.OneOf(std::size(kForms) + 1, [this](size_t i) {
      if (i == std::size(kForms)) {
        builder_.Call(Escape());
        return;
      }
      const Bytes& form = kForms[i];
      builder_.Range(form.first, form.last);
      for (int byte = 0; byte < form.others; ++byte) builder_.Range(byte == 0 ? form.second : 0x80, byte == 0 ? form.most : 0xbf);
    });
  });
}

GrammarBuilder::Label JsonRules::WholeNumber() {
  return Shared(whole_number_, [this] {
    builder_.Optional([this] { builder_.Literal("-"); });
    builder_.OneOf(2, [this](size_t i) {
      if (i == 0) {
        builder_.Literal("0");
      } else {
        builder_.Range('1', '9').Repeat(0, kMostIntegerDigits - 1, [this] { builder_.Range('0', '9'); });
      }
    });
  });
}

GrammarBuilder::Label JsonRules::Number() {
  return Shared(number_, [this] {
    const auto digits = [this](int least, int most) { builder_.Repeat(least, most, [this] { builder_.Range('0', '9'); }); };
    builder_.Optional([this] { builder_.Literal("-"); });
    builder_.OneOf(2, [&](size_t i) {
      if (i == 0) {
        builder_.Literal("0");
      } else {
        builder_.Range('1', '9');
        digits(0, kMostDigits - 1);
      }
    });
    builder_.Optional([&] {
      builder_.Literal(".");
      digits(1, kMostDigits);
    });
    builder_.Optional([&] {
      builder_.Set("eE").Optional([this] { builder_.Set("+-"); });
      digits(1, kMostExponentDigits);
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

void JsonRules::WriteMap(const std::function<void()>& value) {
  WriteList('{', '}', 0, -1, [&] {
    builder_.Call(String()).Literal(":").Call(Space());
    value();
  });
}

GrammarBuilder::Label JsonRules::Array() {
  return Shared(array_, [this] { WriteList('[', ']', 0, -1, [this] { builder_.Call(Value()); }); });
}

GrammarBuilder::Label JsonRules::Object() {
  return Shared(object_, [this] { WriteMap([this] { builder_.Call(Value()); }); });
}

GrammarBuilder::Label JsonRules::Value() {
  return Shared(value_, [this] {
    static constexpr const char* kWords[] = {"true", "false", "null"};
    builder_.OneOf(4 + std::size(kWords), [this](size_t i) {
      switch (i) {
        case 0: builder_.Call(Object()); break;
        case 1: builder_.Call(Array()); break;
        case 2: builder_.Call(String()); break;
        case 3: builder_.Call(Number()); break;
        default: builder_.Literal(kWords[i - 4]);
      }
    });
  });
}

}  // namespace reprise
