// SPDX-License-Identifier: PostgreSQL
#include "core/stats/history_file.hpp"

#include <cmath>
#include <cstring>

#include "core/stats/pool_sampler.hpp"

namespace sluice {

namespace {

// The greatest timestamp the server can show is a little below (294276 AD).
constexpr std::int64_t kLatestAt = 9'200'000'000'000'000'000;

struct CrcTable {
  std::uint32_t entries[256];
};

// Reflected polynomial 0x1EDC6F41 (RFC 3720, appendix B.4).
constexpr CrcTable make_crc_table() noexcept {
  CrcTable table{};
  for (std::uint32_t i = 0; i < 256; i++) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) {
      value = (value & 1) != 0 ? (value >> 1) ^ 0x82f63b78u : value >> 1;
    }
    table.entries[i] = value;
  }
  return table;
}

constexpr CrcTable kCrcTable = make_crc_table();

bool is_terminated(const char (&name)[kHistoryNameLength]) noexcept {
  return std::memchr(name, '\0', kHistoryNameLength) != nullptr;
}

bool is_possible(const HistoryFileRing &record) noexcept {
  return record.owner.database_oid != 0 && record.owner.role_oid != 0 && is_terminated(record.owner.database) &&
         is_terminated(record.owner.role) && record.last_at > 0 && record.last_at < kLatestAt;
}

bool is_possible(const HistorySample &sample) noexcept {
  return sample.at > 0 && sample.at < kLatestAt && std::isfinite(sample.length_s) && std::isfinite(sample.active) &&
         std::isfinite(sample.thinking) && std::isfinite(sample.blocks_per_transaction) &&
         std::isfinite(sample.wal_records_per_transaction);
}

}  // namespace

const char *describe(HistoryFileError error) noexcept {
  switch (error) {
    case HistoryFileError::none:
      return "Nothing is wrong with it.";
    case HistoryFileError::truncated:
      return "It ends too early.";
    case HistoryFileError::not_a_history:
      return "It does not begin as a history of pg_sluice does.";
    case HistoryFileError::other_format:
      return "It was written by another version of pg_sluice.";
    case HistoryFileError::other_server:
      return "It was written under another major version of PostgreSQL.";
    case HistoryFileError::other_length:
      return "Its length is not the one it was written with.";
    case HistoryFileError::wrong_checksum:
      return "Its checksum is not that of its content.";
    case HistoryFileError::impossible_content:
      return "It contains impossible values.";
  }
  return "It is not understood.";
}

std::uint32_t extend_crc32c(std::uint32_t crc, const std::byte *bytes, std::size_t size) noexcept {
  std::uint32_t value = ~crc;
  for (std::size_t i = 0; i < size; i++) {
    value = kCrcTable.entries[(value ^ std::to_integer<std::uint32_t>(bytes[i])) & 0xff] ^ (value >> 8);
  }
  return ~value;
}

// ---------------------------------------------------------------- writing

HistoryEncoder::HistoryEncoder(const SharedState &state, std::uint32_t server_major) noexcept : state_(state) {
  const std::size_t seconds = state.header->history_seconds;
  header_.server_major = server_major;
  header_.bytes = sizeof(HistoryFileHeader) + sizeof(crc_);
  for (std::uint32_t i = 0; seconds > 0 && i < state.header->max_pools; i++) {
    HistoryOwner owner;
    const HistoryRing &ring = *state.history_ring(i);
    const SampleRange range = sample_range(ring, seconds);
    if (read_ring_owner(ring, owner) && range.end > range.begin) {
      header_.rings++;
      header_.bytes += sizeof(HistoryFileRing) + (range.end - range.begin) * sizeof(HistorySample);
    }
  }
}

std::size_t HistoryEncoder::put(std::byte *buffer, const void *what, std::size_t size) noexcept {
  std::memcpy(buffer, what, size);
  crc_ = extend_crc32c(crc_, buffer, size);
  return size;
}

std::size_t HistoryEncoder::put_ring(std::byte *buffer) noexcept {
  const std::size_t seconds = state_.header->history_seconds;
  for (; seconds > 0 && ring_ < state_.header->max_pools; ring_++) {
    HistoryFileRing record;
    const HistoryRing &ring = *state_.history_ring(ring_);
    range_ = sample_range(ring, seconds);
    if (read_ring_owner(ring, record.owner) && range_.end > range_.begin) {
      record.samples = range_.end - range_.begin;
      record.last_at = ring.last_at.load(std::memory_order_relaxed);
      phase_ = Phase::samples;
      return put(buffer, &record, sizeof(record));
    }
  }
  phase_ = Phase::checksum;
  return 0;
}

std::size_t HistoryEncoder::put_samples(std::byte *buffer, std::size_t size) noexcept {
  std::size_t filled = 0;
  while (range_.begin < range_.end && size - filled >= sizeof(HistorySample)) {
    HistorySample sample;
    if (!read_sample(*state_.history_ring(ring_), state_.header->history_seconds, range_.begin, sample)) {
      sample = HistorySample{};  // left out when it is read
    }
    filled += put(buffer + filled, &sample, sizeof(sample));
    range_.begin++;
  }
  if (range_.begin == range_.end) {
    ring_++;
    phase_ = Phase::ring;
  }
  return filled;
}

std::size_t HistoryEncoder::next(std::byte *buffer, std::size_t size) noexcept {
  std::size_t filled = 0;
  while (phase_ != Phase::end && size - filled >= sizeof(HistoryFileRing)) {
    switch (phase_) {
      case Phase::header:
        filled += put(buffer + filled, &header_, sizeof(header_));
        phase_ = Phase::ring;
        break;
      case Phase::ring:
        filled += put_ring(buffer + filled);
        break;
      case Phase::samples:
        filled += put_samples(buffer + filled, size - filled);
        break;
      case Phase::checksum: {
        const std::uint32_t crc = crc_;
        filled += put(buffer + filled, &crc, sizeof(crc));
        phase_ = Phase::end;
        break;
      }
      case Phase::end:
        break;
    }
  }
  return filled;
}

// ---------------------------------------------------------------- reading

HistoryDecoder::HistoryDecoder(SharedState &state, std::uint32_t server_major, std::uint64_t file_bytes) noexcept
    : state_(state), server_major_(server_major), file_bytes_(file_bytes), left_bytes_(file_bytes) {}

std::size_t HistoryDecoder::wanted() const noexcept {
  switch (phase_) {
    case Phase::header:
      return sizeof(HistoryFileHeader);
    case Phase::ring:
      return sizeof(HistoryFileRing);
    case Phase::sample:
      return sizeof(HistorySample);
    case Phase::checksum:
      return sizeof(crc_);
    case Phase::end:
      break;
  }
  return 0;
}

void HistoryDecoder::choose_phase() noexcept {
  phase_ = samples_left_ > 0 ? Phase::sample : rings_left_ > 0 ? Phase::ring : Phase::checksum;
}

HistoryFileError HistoryDecoder::take_header() noexcept {
  HistoryFileHeader header;
  std::memcpy(&header, staged_, sizeof(header));
  if (header.magic != kHistoryMagic) return HistoryFileError::not_a_history;
  if (header.format != kHistoryFormat || header.sample_bytes != sizeof(HistorySample))
    return HistoryFileError::other_format;
  if (header.server_major != server_major_) return HistoryFileError::other_server;
  if (header.bytes != file_bytes_)
    return header.bytes > file_bytes_ ? HistoryFileError::truncated : HistoryFileError::other_length;
  rings_left_ = header.rings;
  return HistoryFileError::none;
}

HistoryFileError HistoryDecoder::take_ring() noexcept {
  HistoryFileRing record;
  std::memcpy(&record, staged_, sizeof(record));
  if (!is_possible(record) || record.samples > left_bytes_ / sizeof(HistorySample))
    return HistoryFileError::impossible_content;
  rings_left_--;
  samples_left_ = record.samples;
  ring_ = claim_ring(state_, record.owner, record.last_at);
  return HistoryFileError::none;
}

HistoryFileError HistoryDecoder::take_sample() noexcept {
  HistorySample sample;
  std::memcpy(&sample, staged_, sizeof(sample));
  samples_left_--;
  if (sample.at == 0) return HistoryFileError::none;
  if (!is_possible(sample)) return HistoryFileError::impossible_content;
  if (ring_ != nullptr) append_sample(*ring_, state_.header->history_seconds, sample);
  return HistoryFileError::none;
}

HistoryFileError HistoryDecoder::take_record() noexcept {
  HistoryFileError error = HistoryFileError::none;
  if (phase_ == Phase::checksum) {
    std::uint32_t crc;
    std::memcpy(&crc, staged_, sizeof(crc));
    phase_ = Phase::end;
    return crc == crc_ ? HistoryFileError::none : HistoryFileError::wrong_checksum;
  }
  crc_ = extend_crc32c(crc_, staged_, wanted());
  if (phase_ == Phase::header) {
    error = take_header();
  } else if (phase_ == Phase::ring) {
    error = take_ring();
  } else {
    error = take_sample();
  }
  choose_phase();
  return error;
}

HistoryFileError HistoryDecoder::feed(const std::byte *bytes, std::size_t size) noexcept {
  while (size > 0 && error_ == HistoryFileError::none) {
    if (phase_ == Phase::end || size > left_bytes_) {
      return error_ = HistoryFileError::other_length;
    }
    const std::size_t missing = wanted() - staged_bytes_;
    const std::size_t taken = size < missing ? size : missing;
    std::memcpy(staged_ + staged_bytes_, bytes, taken);
    staged_bytes_ += taken;
    bytes += taken;
    size -= taken;
    left_bytes_ -= taken;
    if (taken == missing) {
      error_ = take_record();
      staged_bytes_ = 0;
    }
  }
  return error_;
}

HistoryFileError HistoryDecoder::finish() const noexcept {
  if (error_ != HistoryFileError::none) return error_;
  return phase_ == Phase::end ? HistoryFileError::none : HistoryFileError::truncated;
}

void forget_history(SharedState &state) noexcept {
  for (std::uint32_t i = 0; state.header->history_seconds > 0 && i < state.header->max_pools; i++) {
    HistoryRing &ring = *state.history_ring(i);
    give_ring_away(ring, HistoryOwner{});
    ring.version.store(0);
  }
}

}  // namespace sluice
