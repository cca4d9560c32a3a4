// SPDX-License-Identifier: PostgreSQL
#include "pg/compat.hpp"

#include "pg/stats/error_count.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"
}

#include "core/stats/cut_text.hpp"
#include "core/stats/told_error.hpp"
#include "pg/shared_memory.hpp"

namespace sluice::pg {

void count_error(ErrorClass error_class, int sqlerrcode, Oid role, const char *message) {
  if (!shared_memory_exists()) return;
  record_error(*shared().errors, error_class, static_cast<std::uint32_t>(sqlerrcode), role, message,
               GetCurrentTimestamp());
}

// What has been converted for a client is not converted back (that may raise):
// where its encoding is another one, '?' stands for what is not ASCII.
static void copy_told_message(char (&text)[kErrorMessageLength], const char *message) {
  (void)copy_cut(text, sizeof(text), message);
  if (pg_get_client_encoding() == GetDatabaseEncoding()) return;
  for (char *byte = text; *byte != '\0'; byte++)
    if (static_cast<unsigned char>(*byte) > 0x7e) *byte = '?';
}

void count_told_error(const char *body, std::size_t length, Oid role) {
  const ToldError error = read_error_response(body, length);
  char text[kErrorMessageLength];

  if (!error.complete) return;
  const char *state = error.sqlstate;
  copy_told_message(text, error.message);
  count_error(class_of_told_error(error.ends_client, state),
              MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]), role, text);
}

ErrorClass class_of_refusal(int sqlerrcode) { return sluice::class_of_refusal(unpack_sql_state(sqlerrcode)); }

}  // namespace sluice::pg
