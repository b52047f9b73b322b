// web/index.html, as the build found it.
#pragma once

#include <string_view>

namespace reprise::serve {

extern const std::string_view kPage;

}  // namespace reprise::serve
