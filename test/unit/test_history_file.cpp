// SPDX-License-Identifier: PostgreSQL
//
// The history as bytes: what is written can be read, in pieces of any size and by a
// server with other sizes; what has been damaged is found out.

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "core/stats/history_file.hpp"
#include "core/stats/pool_sampler.hpp"

namespace {

using sluice::HistoryFileError;
using sluice::HistoryFileHeader;
using sluice::HistoryFileRing;
using sluice::HistoryOwner;
using sluice::HistorySample;
using sluice::SharedState;

using Bytes = std::vector<std::byte>;

constexpr std::uint32_t kMajor = 15;

// The parts of a segment that matter here.
class Rings {
 public:
  Rings(std::uint32_t pools, std::uint32_t seconds) {
    const std::size_t bytes = pools * sluice::history_ring_bytes(seconds);
    header_ = static_cast<sluice::SharedHeader *>(std::aligned_alloc(64, sizeof(sluice::SharedHeader)));
    std::memset(static_cast<void *>(header_), 0, sizeof(sluice::SharedHeader));
    header_->max_pools = pools;
    header_->history_seconds = seconds;
    state.header = header_;
    state.history = static_cast<std::byte *>(std::aligned_alloc(64, bytes == 0 ? 64 : bytes));
    std::memset(state.history, 0, bytes);
  }
  ~Rings() {
    std::free(header_);
    std::free(state.history);
  }
  Rings(const Rings &) = delete;
  Rings &operator=(const Rings &) = delete;

  // Samples with `at` from..to of the pool with this number.
  void fill(std::uint32_t number, std::uint32_t from, std::uint32_t to) {
    HistoryOwner owner;
    owner.database_oid = number;
    owner.role_oid = number + 1;
    std::snprintf(owner.database, sizeof(owner.database), "database %u", number);
    std::snprintf(owner.role, sizeof(owner.role), "role %u", number);
    sluice::HistoryRing *ring = sluice::claim_ring(state, owner, to);
    for (std::uint32_t at = from; at <= to; at++) {
      HistorySample sample;
      sample.at = at;
      sample.transactions = at * number;
      sample.active = 1.5f;
      sluice::append_sample(*ring, state.header->history_seconds, sample);
    }
  }
  std::vector<HistorySample> history(std::uint32_t number) const {
    std::vector<HistorySample> samples(state.header->history_seconds);
    samples.resize(
        sluice::copy_pool_history(state, number, number + 1, samples.data(), samples.size()));
    return samples;
  }
  // True if these and no others are there.
  bool has(std::uint32_t number, std::uint32_t from, std::uint32_t to) const {
    const std::vector<HistorySample> samples = history(number);
    if (samples.size() != to - from + 1) return false;
    for (std::size_t i = 0; i < samples.size(); i++)
      if (samples[i].at != static_cast<std::int64_t>(from + i) || samples[i].transactions != (from + i) * number)
        return false;
    return true;
  }
  bool is_empty() const {
    for (std::uint32_t i = 0; i < state.header->max_pools; i++) {
      HistoryOwner owner;
      if (sluice::read_ring_owner(*state.history_ring(i), owner)) return false;
    }
    return true;
  }

  SharedState state;

 private:
  sluice::SharedHeader *header_;
};

Bytes encode(const Rings &rings, std::size_t piece = 4096) {
  sluice::HistoryEncoder encoder(rings.state, kMajor);
  Bytes file;
  Bytes buffer(piece);
  while (const std::size_t size = encoder.next(buffer.data(), buffer.size())) {
    assert_true(size <= piece);
    file.insert(file.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
  }
  return file;
}

// Each piece in memory of its own, so that a step too far is seen.
HistoryFileError decode(Rings &rings, const Bytes &file, std::size_t piece = 4096, std::uint32_t major = kMajor) {
  sluice::HistoryDecoder decoder(rings.state, major, file.size());
  for (std::size_t at = 0; at < file.size(); at += piece) {
    const std::size_t size = piece < file.size() - at ? piece : file.size() - at;
    const Bytes part(file.begin() + static_cast<std::ptrdiff_t>(at),
                     file.begin() + static_cast<std::ptrdiff_t>(at + size));
    if (decoder.feed(part.data(), part.size()) != HistoryFileError::none) break;
  }
  const HistoryFileError error = decoder.finish();
  if (error != HistoryFileError::none) sluice::forget_history(rings.state);
  return error;
}

// Makes the checksum right again.
void seal(Bytes &file) {
  const std::uint32_t crc = sluice::extend_crc32c(0, file.data(), file.size() - 4);
  std::memcpy(file.data() + file.size() - 4, &crc, 4);
}

template <typename Record>
void change(Bytes &file, std::size_t offset, void (*edit)(Record &)) {
  Record record;
  std::memcpy(&record, file.data() + offset, sizeof(record));
  edit(record);
  std::memcpy(file.data() + offset, &record, sizeof(record));
}

Bytes small_file() {
  Rings rings(3, 10);
  rings.fill(5, 1, 4);
  rings.fill(6, 2, 3);
  return encode(rings);
}

void the_checksum_is_the_known_one(void **) {
  const char *text = "123456789";
  assert_true(sluice::extend_crc32c(0, reinterpret_cast<const std::byte *>(text), 9) == 0xe3069283u);
  std::uint32_t crc = 0;
  for (int i = 0; i < 9; i++) crc = sluice::extend_crc32c(crc, reinterpret_cast<const std::byte *>(text) + i, 1);
  assert_true(crc == 0xe3069283u);
  Bytes zeroes(32);
  assert_true(sluice::extend_crc32c(0, zeroes.data(), zeroes.size()) == 0x8a9136aau);
}

void what_is_written_can_be_read_in_any_pieces(void **) {
  Rings rings(4, 10);
  rings.fill(1, 1, 25);
  rings.fill(2, 20, 22);
  rings.fill(3, 30, 39);
  const Bytes file = encode(rings);
  for (const std::size_t piece : {256u, 257u, 300u, 1000u, 100000u}) assert_true(encode(rings, piece) == file);
  for (const std::size_t piece : {1u, 7u, 96u, 100u, 100000u}) {
    Rings copy(4, 10);
    assert_true(decode(copy, file, piece) == HistoryFileError::none);
    assert_true(copy.has(1, 16, 25) && copy.has(2, 20, 22) && copy.has(3, 30, 39));
    HistoryOwner owner;
    assert_true(sluice::read_ring_owner(*sluice::find_ring(copy.state, 3, 4), owner));
    assert_string_equal(owner.database, "database 3");
    assert_string_equal(owner.role, "role 3");
    assert_true(encode(copy).size() == file.size());
  }
}

void nothing_makes_a_file_without_rings(void **) {
  Rings rings(2, 10);
  assert_int_equal(sluice::HistoryEncoder(rings.state, kMajor).rings(), 0);
  const Bytes file = encode(rings);
  assert_int_equal(file.size(), sizeof(HistoryFileHeader) + 4);
  assert_true(decode(rings, file) == HistoryFileError::none);
  Rings none(2, 0);
  assert_int_equal(sluice::HistoryEncoder(none.state, kMajor).rings(), 0);
  sluice::forget_history(none.state);
}

void fewer_seconds_keep_the_latest(void **) {
  Rings rings(2, 100);
  rings.fill(1, 1, 80);
  Rings fewer(2, 7);
  assert_true(decode(fewer, encode(rings)) == HistoryFileError::none);
  assert_true(fewer.has(1, 74, 80));
  Rings more(2, 500);
  assert_true(decode(more, encode(rings)) == HistoryFileError::none);
  assert_true(more.has(1, 1, 80));
}

void fewer_rings_keep_those_with_the_latest_end(void **) {
  Rings rings(5, 10);
  rings.fill(1, 1, 5);
  rings.fill(2, 1, 9);
  rings.fill(3, 1, 7);
  rings.fill(4, 1, 3);
  Rings fewer(2, 10);
  assert_true(decode(fewer, encode(rings)) == HistoryFileError::none);
  assert_true(fewer.has(2, 1, 9) && fewer.has(3, 1, 7));
  assert_true(fewer.history(1).empty() && fewer.history(4).empty());
  Rings more(50, 10);
  assert_true(decode(more, encode(rings)) == HistoryFileError::none);
  assert_true(more.has(1, 1, 5) && more.has(4, 1, 3));
}

void a_server_without_history_takes_nothing(void **) {
  Rings none(2, 0);
  assert_true(decode(none, small_file()) == HistoryFileError::none);
}

void every_truncation_is_found(void **) {
  const Bytes file = small_file();
  for (std::size_t size = 0; size < file.size(); size++) {
    Rings rings(3, 10);
    assert_true(decode(rings, Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size))) ==
                HistoryFileError::truncated);
    assert_true(rings.is_empty());
  }
}

void a_longer_file_is_found(void **) {
  Bytes file = small_file();
  file.push_back(std::byte{0});
  Rings rings(3, 10);
  assert_true(decode(rings, file) == HistoryFileError::other_length);
}

void a_file_that_grows_while_it_is_read_is_found(void **) {
  Bytes file = small_file();
  Rings rings(3, 10);
  sluice::HistoryDecoder decoder(rings.state, kMajor, file.size());
  assert_true(decoder.feed(file.data(), file.size()) == HistoryFileError::none);
  assert_true(decoder.feed(file.data(), 1) == HistoryFileError::other_length);
}

void every_flipped_bit_is_found(void **) {
  const Bytes file = small_file();
  for (std::size_t i = 0; i < file.size() * 8; i++) {
    Bytes damaged = file;
    damaged[i / 8] ^= std::byte{1} << (i % 8);
    Rings rings(3, 10);
    assert_true(decode(rings, damaged) != HistoryFileError::none);
    assert_true(rings.is_empty());
  }
}

void other_writers_are_told_apart(void **) {
  Rings rings(3, 10);
  Bytes file = small_file();
  assert_true(decode(rings, file, 4096, kMajor + 1) == HistoryFileError::other_server);
  change<HistoryFileHeader>(file, 0, [](HistoryFileHeader &header) { header.format++; });
  assert_true(decode(rings, file) == HistoryFileError::other_format);
  file = small_file();
  change<HistoryFileHeader>(file, 0, [](HistoryFileHeader &header) { header.sample_bytes += 8; });
  assert_true(decode(rings, file) == HistoryFileError::other_format);
  file = small_file();
  change<HistoryFileHeader>(file, 0, [](HistoryFileHeader &header) { header.magic = 0x4c53; });
  assert_true(decode(rings, file) == HistoryFileError::not_a_history);
}

void impossible_content_is_refused_even_with_a_right_checksum(void **) {
  constexpr std::size_t kRing = sizeof(HistoryFileHeader);
  constexpr std::size_t kSample = kRing + sizeof(HistoryFileRing);
  const auto check = [](Bytes file) {
    seal(file);
    Rings rings(3, 10);
    assert_true(decode(rings, file) == HistoryFileError::impossible_content);
    assert_true(rings.is_empty());
  };
  Bytes file = small_file();
  change<HistoryFileRing>(file, kRing, [](HistoryFileRing &ring) { ring.owner.role_oid = 0; });
  check(file);
  file = small_file();
  change<HistoryFileRing>(file, kRing, [](HistoryFileRing &ring) { std::memset(ring.owner.role, 'x', 64); });
  check(file);
  file = small_file();
  change<HistoryFileRing>(file, kRing, [](HistoryFileRing &ring) { ring.samples = ~std::uint64_t{0}; });
  check(file);
  file = small_file();
  change<HistorySample>(file, kSample, [](HistorySample &sample) { sample.at = -1; });
  check(file);
  file = small_file();
  change<HistorySample>(file, kSample, [](HistorySample &sample) { sample.at = INT64_MAX; });
  check(file);
  file = small_file();
  change<HistorySample>(file, kSample, [](HistorySample &sample) { sample.active = __builtin_nanf(""); });
  check(file);
}

void random_damage_never_does_harm(void **) {
  std::mt19937 random(99);
  const Bytes file = small_file();
  for (int round = 0; round < 30000; round++) {
    Bytes damaged = file;
    const std::size_t changes = 1 + random() % 8;
    for (std::size_t i = 0; i < changes; i++) {
      // Half of them where lengths are.
      const std::size_t at = random() % (random() % 2 == 0 ? 200 : damaged.size());
      damaged[at] = static_cast<std::byte>(random() % 3 == 0 ? 0xff : random());
    }
    if (random() % 4 == 0) damaged.resize(random() % (damaged.size() + 1));
    if (random() % 4 == 0) damaged.resize(damaged.size() + random() % 300);
    if (random() % 2 == 0 && damaged.size() >= sizeof(HistoryFileHeader) + 4) {
      const std::uint64_t bytes = damaged.size();
      std::memcpy(damaged.data() + offsetof(HistoryFileHeader, bytes), &bytes, sizeof(bytes));
      seal(damaged);
    }
    Rings rings(1 + random() % 4, 1 + random() % 12);
    const HistoryFileError error = decode(rings, damaged, 1 + random() % 500);
    assert_true(std::strlen(sluice::describe(error)) > 0);
    if (error != HistoryFileError::none) assert_true(rings.is_empty());
  }
}

void random_bytes_are_no_history(void **) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; round++) {
    Bytes bytes(random() % 2000);
    for (std::byte &byte : bytes) byte = static_cast<std::byte>(random());
    Rings rings(2, 5);
    const HistoryFileError error = decode(rings, bytes, 1 + random() % 500);
    assert_true(error == (bytes.size() < sizeof(HistoryFileHeader) ? HistoryFileError::truncated
                                                                   : HistoryFileError::not_a_history));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(the_checksum_is_the_known_one),
      cmocka_unit_test(what_is_written_can_be_read_in_any_pieces),
      cmocka_unit_test(nothing_makes_a_file_without_rings),
      cmocka_unit_test(fewer_seconds_keep_the_latest),
      cmocka_unit_test(fewer_rings_keep_those_with_the_latest_end),
      cmocka_unit_test(a_server_without_history_takes_nothing),
      cmocka_unit_test(every_truncation_is_found),
      cmocka_unit_test(a_longer_file_is_found),
      cmocka_unit_test(a_file_that_grows_while_it_is_read_is_found),
      cmocka_unit_test(every_flipped_bit_is_found),
      cmocka_unit_test(other_writers_are_told_apart),
      cmocka_unit_test(impossible_content_is_refused_even_with_a_right_checksum),
      cmocka_unit_test(random_damage_never_does_harm),
      cmocka_unit_test(random_bytes_are_no_history),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
