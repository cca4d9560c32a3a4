// SPDX-License-Identifier: PostgreSQL
//
// The messages of the frontend/backend protocol 3.0 as bytes: building those of a client, and taking apart the stream
// of a server, wherever it happens to be cut.  No sockets here.
//
// A load generator looks at few of the bytes it receives.  A message that has arrived whole is looked at where it lies;
// of one that is cut, the first kKept bytes are kept until the rest has come, and what is beyond them is passed over.
// That is enough for errors, for the name of a first column and for the value below it, and it bounds the memory of a
// connection that receives large rows.

#ifndef SLUICE_BENCH_LOAD_MESSAGES_HPP
#define SLUICE_BENCH_LOAD_MESSAGES_HPP

#include <arpa/inet.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace load {

// ---- building

inline void append_int32(std::string &out, uint32_t value) {
  const uint32_t network = htonl(value);
  out.append(reinterpret_cast<const char *>(&network), sizeof(network));
}

inline void append_int16(std::string &out, uint16_t value) {
  const uint16_t network = htons(value);
  out.append(reinterpret_cast<const char *>(&network), sizeof(network));
}

// With the byte 0 that ends it.
inline void append_string(std::string &out, const std::string &text) { out.append(text.c_str(), text.size() + 1); }

// A message begins; the place of its length is returned, for end_message().
inline size_t begin_message(std::string &out, char type) {
  if (type != '\0') out += type;
  out.append(4, '\0');
  return out.size() - 4;
}

inline void end_message(std::string &out, size_t place) {
  const uint32_t network = htonl(static_cast<uint32_t>(out.size() - place));
  memcpy(&out[place], &network, sizeof(network));
}

inline std::string simple_message(char type, const std::string &body) {
  std::string message;
  const size_t place = begin_message(message, type);
  message += body;
  end_message(message, place);
  return message;
}

inline std::string query_message(const std::string &query) { return simple_message('Q', query + '\0'); }

// ---- taking apart

inline uint32_t read_int32(const char *bytes) {
  uint32_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohl(network);
}

inline uint16_t read_int16(const char *bytes) {
  uint16_t network;
  memcpy(&network, bytes, sizeof(network));
  return ntohs(network);
}

// A field of an ErrorResponse or NoticeResponse ('C': SQLSTATE, 'M': the text); empty if it is not there.
inline std::string error_field(const char *body, size_t length, char field) {
  for (size_t at = 0; at < length && body[at] != '\0';) {
    const size_t end = at + 1 + strnlen(body + at + 1, length - at - 1);
    if (body[at] == field) return std::string(body + at + 1, body + end);
    at = end + 1;
  }
  return "";
}

// Is the first column of a RowDescription named so?
inline bool first_column_is(const char *body, size_t length, const char *name) {
  return length > 2 && read_int16(body) > 0 && strnlen(body + 2, length - 2) == strlen(name) &&
         strncmp(body + 2, name, strlen(name)) == 0;
}

// The first value of a DataRow; empty if there is none, if it is null or not (yet) there as a whole.
inline std::string first_value(const char *body, size_t length) {
  if (length < 6 || read_int16(body) == 0) return "";
  const uint32_t size = read_int32(body + 2);
  return size <= length - 6 ? std::string(body + 6, size) : "";
}

class MessageReader {
 public:
  static constexpr size_t kKept = 4096;
  static constexpr uint32_t kLongest = 0x3fffffff;  // the server's own limit of an allocation

  // Calls take(type, body, length) for each message that ends within these bytes; length is that of the body, or of as
  // much of it as has been kept.  False if they cannot be what a PostgreSQL server sends; nothing makes sense after
  // that until reset().
  template <typename Take>
  bool feed(const char *bytes, size_t length, Take &&take) {
    while (length > 0) {
      if (!in_body_) {
        if (head_length_ == 0 && length >= sizeof(head_)) {
          if (!begin_body(bytes)) return false;
          bytes += sizeof(head_);
          length -= sizeof(head_);
          if (remaining_ <= length) {  // the usual case: nothing is cut
            take(type_, bytes, static_cast<size_t>(remaining_));
            bytes += remaining_;
            length -= remaining_;
            in_body_ = false;
            continue;
          }
        } else {
          const size_t more = std::min(length, sizeof(head_) - head_length_);
          memcpy(head_ + head_length_, bytes, more);
          head_length_ += static_cast<uint8_t>(more);
          bytes += more;
          length -= more;
          if (head_length_ < sizeof(head_)) return is_type(head_[0]);
          head_length_ = 0;
          if (!begin_body(head_)) return false;
        }
      }
      const size_t more = std::min<size_t>(length, remaining_);
      if (kept_.size() < kKept) kept_.append(bytes, std::min(more, kKept - kept_.size()));
      bytes += more;
      length -= more;
      remaining_ -= static_cast<uint32_t>(more);
      if (remaining_ > 0) return true;
      in_body_ = false;
      take(type_, kept_.data(), kept_.size());
      kept_.clear();
    }
    return true;
  }

  void reset() {
    in_body_ = false;
    head_length_ = 0;
    kept_ = std::string();
  }

 private:
  static bool is_type(char type) { return type != '\0' && strchr("123AcCdDEGHIKnNRsStTvVWZ", type) != nullptr; }

  bool begin_body(const char *head) {
    const uint32_t length = read_int32(head + 1);
    if (!is_type(head[0]) || length < 4 || length > kLongest) return false;
    type_ = head[0];
    remaining_ = length - 4;
    in_body_ = true;
    return true;
  }

  uint32_t remaining_ = 0;  // of the body
  bool in_body_ = false;
  char type_ = '\0';
  uint8_t head_length_ = 0;
  char head_[5];
  std::string kept_;
};

}  // namespace load

#endif
