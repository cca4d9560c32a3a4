// SPDX-License-Identifier: PostgreSQL
//
// What the fuzz targets share: how a property is stated, and blocks of exactly
// one size.

#ifndef SLUICE_FUZZ_PROPERTY_HPP
#define SLUICE_FUZZ_PROPERTY_HPP

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sluice::fuzz {

// Ends the run; the fuzzer then writes the input that led here to a file.
inline void require(bool holds, const char *property) {
  if (holds) return;
  std::fprintf(stderr, "violated property: %s\n", property);
  std::abort();
}

// A copy in a block of its own size, so that the sanitizer sees each byte read too far.
class Block {
 public:
  Block(const void *bytes, std::size_t size) : bytes_(static_cast<char *>(std::malloc(size))), size_(size) {
    if (size > 0) std::memcpy(bytes_, bytes, size);
  }
  explicit Block(std::size_t size) : bytes_(static_cast<char *>(std::calloc(1, size))), size_(size) {}
  ~Block() { std::free(bytes_); }
  Block(const Block &) = delete;
  Block &operator=(const Block &) = delete;
  char *get() const { return bytes_; }
  std::size_t size() const { return size_; }

 private:
  char *bytes_;
  std::size_t size_;
};

// Where bytes lie, and whether others lie within.
struct Span {
  const char *bytes;
  std::size_t size;

  bool holds(const char *other, std::size_t other_size) const {
    return other >= bytes && other <= bytes + size && other_size <= static_cast<std::size_t>(bytes + size - other);
  }
  bool holds_string(const char *text) const {
    return holds(text, 1) && std::memchr(text, '\0', static_cast<std::size_t>(bytes + size - text)) != nullptr;
  }
};

inline std::uint32_t word_at(const void *bytes) {
  const auto *octets = static_cast<const unsigned char *>(bytes);
  return std::uint32_t{octets[0]} << 24 | std::uint32_t{octets[1]} << 16 | std::uint32_t{octets[2]} << 8 | octets[3];
}

inline void put_word(void *bytes, std::uint32_t value) {
  auto *octets = static_cast<unsigned char *>(bytes);
  for (int i = 0; i < 4; i++) octets[i] = static_cast<unsigned char>(value >> (24 - 8 * i));
}

// Builds what was read again, field by field, and compares it with what came.
class Encoding {
 public:
  explicit Encoding(Span expected) : expected_(expected) {}

  void put(const char *bytes, std::size_t size) {
    require(size <= expected_.size - done_ && (size == 0 || std::memcmp(expected_.bytes + done_, bytes, size) == 0),
            "what was read is what was sent");
    done_ += size;
  }
  void put_string(const char *text) { put(text, std::strlen(text) + 1); }
  void put_word16(int value) {
    const char octets[2] = {static_cast<char>(value >> 8), static_cast<char>(value)};
    put(octets, 2);
  }
  void put_word32(std::uint32_t value) {
    char octets[4];
    put_word(octets, value);
    put(octets, 4);
  }
  std::size_t done() const { return done_; }
  void finish() const { require(done_ == expected_.size, "all that was sent was read"); }

 private:
  Span expected_;
  std::size_t done_ = 0;
};

}  // namespace sluice::fuzz

extern "C" {
int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);
// Optional: changes an input; those that repair lengths get past the first check more often.
std::size_t LLVMFuzzerCustomMutator(std::uint8_t *data, std::size_t size, std::size_t max_size, unsigned int seed);
// The fuzzer's own changes.
std::size_t LLVMFuzzerMutate(std::uint8_t *data, std::size_t size, std::size_t max_size);
}

#endif
