// SPDX-License-Identifier: PostgreSQL
//
// Reading the small files of /proc and /sys, with open and read alone.
//
// None of PostgreSQL's file functions is used: they raise, and here nothing is
// an error.  /sys may be missing, read-only, or the host's; /proc may be hidden,
// or mounted elsewhere (sluice.procfs, sluice.sysfs).  All of this ends as
// "unknown" and a reason.  Nothing allocates: paths and texts have a fixed size.
//
// Reasons are kept in shared memory and shown to everybody, but where the file
// systems are mounted is for those who may read the settings.  So a text names a
// file by a mark and the rest of its path, "<procfs>/self/mountinfo", and
// shown_system_text() puts in what the current user may see.

#ifndef SLUICE_PG_TUNING_SYSTEM_FILES_HPP
#define SLUICE_PG_TUNING_SYSTEM_FILES_HPP

#include "pg/compat.hpp"

#include <cstddef>
#include <string_view>

#include "core/tuning/cgroup_quota.hpp"
#include "core/tuning/text.hpp"

namespace sluice::pg {

// Of sluice.procfs and sluice.sysfs, with its end.
constexpr std::size_t kMountPathLength = 256;

enum class SystemTree { proc, sys, neither };

// A path that does not fit is empty, and cannot be read.
struct SystemPath {
  SystemTree tree;
  std::size_t relative;  // where in `text` the part below the tree begins
  char text[2048];
};

// Where sluice.procfs and sluice.sysfs say, from a format of what is below them.
SystemPath proc_path(const char *format, ...) pg_attribute_printf(1, 2);
SystemPath sys_path(const char *format, ...) pg_attribute_printf(1, 2);
// A path that the table of mounts names: below /sys (or where sluice.sysfs says) it
// is looked for below sluice.sysfs, anywhere else it is what it says.
SystemPath mounted_path(const char *directory, const char *name);

// The whole of a small file.  Empty, with the error number, if it cannot be read
// (EFBIG: does not fit); empty with error 0 if there is nothing in it.
std::string_view read_system_file(const SystemPath &path, char *buffer, std::size_t size, int *error);

template <std::size_t size>
std::string_view read_system_file(const SystemPath &path, char (&buffer)[size], int *error = nullptr) {
  int ignored;
  return read_system_file(path, buffer, size, error != nullptr ? error : &ignored);
}

using SeeLine = void (*)(void *context, std::string_view line);
bool visit_system_lines(const SystemPath &path, SeeLine see, void *context, int *error);

// Shows each line of a file to `see`, without its line end; of a line longer than
// 8 kB only the beginning.  False, with the error number, if it cannot be read.
template <typename See>
bool for_each_system_line(const SystemPath &path, See see, int *error = nullptr) {
  int ignored;
  const SeeLine call = [](void *context, std::string_view line) { (*static_cast<See *>(context))(line); };
  return visit_system_lines(path, call, &see, error != nullptr ? error : &ignored);
}

// "<procfs>/self/mountinfo"
void add_path(TextWriter &writer, const SystemPath &path);
// cannot read "<procfs>/self/mountinfo": No such file or directory
// Error 0: the file is empty.
void add_read_failure(TextWriter &writer, const SystemPath &path, int error);
// cannot make sense of "<procfs>/loadavg"
void add_parse_failure(TextWriter &writer, const SystemPath &path);

// Shows a search what it has to see of this process.  False if that could not be
// read; the first reason is added to `why`.
bool look_for_control_groups(CgroupSearch &search, TextWriter &why);

// A text with paths as the current user may see them, in the current memory
// context: whole ones for members of pg_read_all_settings and where the settings
// have their defaults, else what is below the mount.  May raise.
const char *shown_system_text(const char *text);

}  // namespace sluice::pg

#endif
