# cmake -DPAGE=web/index.html -DOUT=page.cc -P embed_page.cmake: the page as a constant of the program.
file(READ ${PAGE} hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" lines "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," numbers "${lines}")
file(WRITE ${OUT} "#include \"serve/page.h\"

namespace {

const unsigned char kBytes[] = {
${numbers}};

}  // namespace

const std::string_view reprise::serve::kPage(reinterpret_cast<const char*>(kBytes), sizeof(kBytes));
")
