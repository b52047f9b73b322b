#include "serve/http_message.h"

#include <gtest/gtest.h>

namespace reprise::serve {
namespace {

HttpRequest Parse(std::string_view head) {
  HttpRequest request;
  const HttpError error = ParseRequestHead(head, request);
  EXPECT_TRUE(error.ok()) << error.what << ": " << head;
  return request;
}

int StatusOf(std::string_view head) {
  HttpRequest request;
  return ParseRequestHead(head, request).status;
}

TEST(HttpMessage, AHeadIsReadIntoItsParts) {
  const HttpRequest request =
      Parse("POST /v1/a%20b/?x=1&y=%2F&z HTTP/1.1\r\nHost: localhost:80\r\nX-Thing:  two words \r\nContent-Length: 12\r\n\r\n");
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.segments, (std::vector<std::string>{"v1", "a b"}));
  EXPECT_EQ(request.Query("y"), "/");
  EXPECT_EQ(request.Query("z"), "");
  EXPECT_EQ(request.Header("x-thing"), "two words");
  EXPECT_EQ(request.content_length, 12u);
  EXPECT_TRUE(request.keep_alive);
  EXPECT_EQ(Parse("GET / HTTP/1.1\r\nHost: x\r\n\r\n").Path(), "/");
  EXPECT_EQ(Parse("GET /%2e%2e/x HTTP/1.1\r\nHost: x\r\n\r\n").segments, (std::vector<std::string>{"..", "x"}));
}

TEST(HttpMessage, ConnectionsCloseWhenTheyAreToldTo) {
  EXPECT_FALSE(Parse("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n").keep_alive);
  EXPECT_FALSE(Parse("GET / HTTP/1.0\r\n\r\n").keep_alive);
}

TEST(HttpMessage, WhatIsAmbiguousIsRefused) {
  EXPECT_EQ(StatusOf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"), 501);
  EXPECT_EQ(StatusOf("GET / HTTP/1.1\r\nHost: x\nEvil: y\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf("GET / HTTP/1.1\r\nHost: x\r\n y: z\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf("GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

// However its bytes are cut, a chunked body reads the same.
TEST(HttpMessage, AChunkedBodyDoesNotDependOnHowItCame) {
  const std::string_view bytes = "5\r\nhello\r\n1;name=value\r\n,\r\nA\r\n wide worl\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\nNEXT";
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    ChunkedDecoder decoder(100);
    std::string body;
    std::string_view rest = bytes;
    std::string waiting;
    while (!decoder.done() && (!rest.empty() || !waiting.empty())) {
      waiting += rest.substr(0, cut);
      rest.remove_prefix(std::min(cut, rest.size()));
      waiting.erase(0, decoder.Feed(waiting, body));
      ASSERT_TRUE(decoder.error().ok()) << decoder.error().what;
    }
    EXPECT_TRUE(decoder.done());
    EXPECT_EQ(body, "hello, wide worl");
    EXPECT_EQ(waiting + std::string(rest), "NEXT");
  }
}

TEST(HttpMessage, AChunkedBodyIsBounded) {
  std::string body;
  ChunkedDecoder large(10);
  large.Feed("6\r\n123456\r\n5\r\n", body);
  EXPECT_EQ(large.error().status, 413);
  ChunkedDecoder hollow(1 << 20);
  std::string extension = "1;" + std::string(200 << 10, 'x');
  hollow.Feed(extension, body);
  EXPECT_EQ(hollow.error().status, 400);
}

}  // namespace
}  // namespace reprise::serve
