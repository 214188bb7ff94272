// SPDX-License-Identifier: Apache-2.0
#include "dataplane/identity/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/dataplane/identity/fuzz_messages.h"

namespace weft::identity {
namespace {

Worker MakeWorker(uint16_t id) {
  Worker worker;
  worker.id = id;
  worker.hint = 7;
  worker.address = *Endpoint::Parse("192.0.2.1:4810");
  return worker;
}

Hello MakeHello() {
  Hello hello;
  hello.incarnation = {1, 2, 3};
  hello.held_session = 0x1122334455667788;
  hello.epoch = 9;
  hello.node = "n1";
  hello.workers = {MakeWorker(0), MakeWorker(3)};
  hello.workers[1].address = *Endpoint::Parse("[2001:db8::1]:9");
  hello.workers[1].host = "camera-1";
  return hello;
}

std::vector<Message> OneOfEach() {
  return {MakeHello(),
          Workers{{MakeWorker(1)}},
          Keys{5, {{1, 2, 3, 4}, {1, 3, 0, 5}}},
          RotateTo{6},
          Switched{7},
          Keepalive{},
          Ask{Wish::kDialAnew},
          Bye{Refusal::kExpired},
          Drains{{{"camera-1", 7}, {"h2", 1}}, {"b"}, {{"a", ~uint64_t{0}}}, {}}};
}

// What decoding says to the whole of `bytes`.
std::string Complaint(const std::string& bytes) {
  std::size_t length = 0;
  const auto decoded = Decode(bytes, &length);
  if (!decoded.ok()) return std::string(decoded.status().message());
  return decoded->has_value() ? "good" : "incomplete";
}

TEST(MessagesTest, EachMessageComesOutAsItWentIn) {
  for (const Message& message : OneOfEach()) {
    const std::string frame = Encode(message) + "next";
    std::size_t length = 0;
    const auto decoded = Decode(frame, &length);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ASSERT_TRUE(decoded->has_value());
    EXPECT_EQ(**decoded, message);
    EXPECT_EQ(length, frame.size() - 4);
  }
}

TEST(MessagesTest, ABeginningIsIncompleteAndAShorterLengthIsRefused) {
  for (const Message& message : OneOfEach()) {
    const std::string frame = Encode(message);
    for (std::size_t cut = 0; cut < frame.size(); ++cut) {
      EXPECT_EQ(Complaint(frame.substr(0, cut)), "incomplete");
      if (cut < kFrameHeaderBytes) continue;
      std::string shorter = frame.substr(0, cut);
      shorter[2] = static_cast<char>((cut - kFrameHeaderBytes) >> 8);
      shorter[3] = static_cast<char>(cut - kFrameHeaderBytes);
      EXPECT_THAT(Complaint(shorter), testing::AllOf(testing::Ne("good"), testing::Ne("incomplete")));
    }
    std::string longer = frame + '\0';
    longer[2] = static_cast<char>((longer.size() - kFrameHeaderBytes) >> 8);
    longer[3] = static_cast<char>(longer.size() - kFrameHeaderBytes);
    EXPECT_THAT(Complaint(longer), testing::HasSubstr("length"));
  }
}

TEST(MessagesTest, WhatNoEncoderMakesIsRefusedByName) {
  EXPECT_EQ(Complaint(std::string("\x0a\0\0\0", 4)), "no frame has type 10");
  EXPECT_THAT(Complaint(std::string("\x06\x01", 2)), testing::HasSubstr("reserved"));
  EXPECT_THAT(Complaint(std::string("\x01\0\x20\x01", 4)), testing::HasSubstr("a frame of 8193 bytes"));
  EXPECT_THAT(Complaint(std::string("GET / HTTP/1.1\r\n")), testing::HasSubstr("reserved"));
  Hello hello = MakeHello();
  hello.node = "N 1";
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("node"));
  hello = MakeHello();
  hello.incarnation = {};
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("incarnation"));
  hello = MakeHello();
  hello.version_min = kProtocolVersionMax + 1;
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("version"));
  hello = MakeHello();
  hello.workers[1].id = 0;
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("order"));
  hello = MakeHello();
  hello.workers[0].address.port = 0;
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("port"));
  hello = MakeHello();
  hello.workers[0].datagram_bytes_max = 100;
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("100 bytes"));
  hello = MakeHello();
  hello.workers[0].address.address[0] = 224;
  EXPECT_THAT(Complaint(Encode(hello)), testing::HasSubstr("multicast"));
  EXPECT_THAT(Complaint(Encode(Drains{{{"b", 1}, {"a", 2}}, {}, {}, {}})), testing::HasSubstr("order"));
  EXPECT_THAT(Complaint(Encode(Drains{{}, {"no/host"}, {}, {}})), testing::HasSubstr("host"));
  EXPECT_THAT(Complaint(std::string("\x09\0\0\x01\x1f", 5)), testing::HasSubstr("too many hosts"));
  EXPECT_THAT(Complaint(Encode(Keys{1, {{1, 2, 0, 1}, {1, 2, 0, 2}}})), testing::HasSubstr("order"));
}

TEST(MessagesTest, EveryInputOfTheCorpusIsTakenWithoutHarm) {
  const auto corpus = ReadCorpus(WEFT_CORPUS);
  ASSERT_GT(corpus.size(), 15u);
  for (const std::string& input : corpus) FuzzMessages(input);
}

TEST(MessagesTest, ChangedInputsAreTakenWithoutHarm) { FuzzChanged(ReadCorpus(WEFT_CORPUS), 200); }

}  // namespace
}  // namespace weft::identity
