// SPDX-License-Identifier: PostgreSQL
//
// Files of the operating system: see system_files.hpp.

#include "pg/compat.hpp"

#include "pg/tuning/system_files.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "lib/stringinfo.h"
#include "utils/acl.h"
}

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "pg/settings.hpp"

namespace sluice::pg {

namespace {

struct TreeNames {
  std::string_view mark;
  const char *usual;
};

constexpr TreeNames kTrees[] = {{"<procfs>", "/proc"}, {"<sysfs>", "/sys"}};

const TreeNames &names_of(SystemTree tree) {
  return kTrees[static_cast<int>(tree)];
}

const char *root_of(SystemTree tree) {
  return tree == SystemTree::proc ? setting_procfs : setting_sysfs;
}

void print_path(SystemPath &path, SystemTree tree, const char *format, va_list arguments) pg_attribute_printf(3, 0);

void print_path(SystemPath &path, SystemTree tree, const char *format, va_list arguments) {
  path.tree = tree;
  path.relative = 0;
  const int root = std::snprintf(path.text, sizeof(path.text), "%s/", root_of(tree));
  if (root > 0 && root < static_cast<int>(sizeof(path.text))) {
    path.relative = static_cast<std::size_t>(root);
    const std::size_t room = sizeof(path.text) - path.relative;
    const int rest = std::vsnprintf(path.text + path.relative, room, format, arguments);
    if (rest >= 0 && static_cast<std::size_t>(rest) < room) return;
  }
  path.relative = 0;
  path.text[0] = '\0';
}

ssize_t read_again(int fd, char *buffer, std::size_t size) {
  ssize_t got;
  do {
    got = read(fd, buffer, size);
  } while (got < 0 && errno == EINTR);
  return got;
}

int open_to_read(const SystemPath &path) {
  return open(path.text, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

// May the current user know the values of sluice.procfs and sluice.sysfs?
bool may_see_settings() {
  return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_SETTINGS);
}

// Puts in what stands for a mark: nothing, with the slash behind it, for those
// who may not know.
void append_root(StringInfo shown, SystemTree tree, const char *&rest) {
  if (may_see_settings() || strcmp(root_of(tree), names_of(tree).usual) == 0) {
    appendStringInfoString(shown, root_of(tree));
  } else if (*rest == '/') {
    ++rest;
  }
}

}  // namespace

SystemPath proc_path(const char *format, ...) {
  SystemPath path;
  va_list arguments;
  va_start(arguments, format);
  print_path(path, SystemTree::proc, format, arguments);
  va_end(arguments);
  return path;
}

SystemPath sys_path(const char *format, ...) {
  SystemPath path;
  va_list arguments;
  va_start(arguments, format);
  print_path(path, SystemTree::sys, format, arguments);
  va_end(arguments);
  return path;
}

SystemPath mounted_path(const char *directory, const char *name) {
  for (const char *root : {static_cast<const char *>(setting_sysfs), names_of(SystemTree::sys).usual}) {
    const std::size_t length = strlen(root);
    if (starts_with(directory, root) && directory[length] == '/')
      return sys_path("%s/%s", directory + length + 1, name);
  }
  SystemPath path;
  path.tree = SystemTree::neither;
  path.relative = 0;
  const int length = std::snprintf(path.text, sizeof(path.text), "%s/%s", directory, name);
  if (length < 0 || length >= static_cast<int>(sizeof(path.text))) path.text[0] = '\0';
  return path;
}

std::string_view read_system_file(const SystemPath &path, char *buffer, std::size_t size, int *error) {
  *error = 0;
  const int fd = open_to_read(path);
  if (fd < 0) {
    *error = errno;
    return {};
  }
  std::size_t length = 0;
  for (;;) {
    const ssize_t got = read_again(fd, buffer + length, size - length);
    if (got == 0) break;
    if (got < 0) *error = errno;
    if (got > 0) length += static_cast<std::size_t>(got);
    if (got > 0 && length == size) *error = EFBIG;
    if (*error != 0) break;
  }
  close(fd);
  return *error == 0 ? std::string_view(buffer, length) : std::string_view();
}

bool visit_system_lines(const SystemPath &path, SeeLine see, void *context, int *error) {
  *error = 0;
  const int fd = open_to_read(path);
  if (fd < 0) {
    *error = errno;
    return false;
  }
  char buffer[8192];
  std::size_t length = 0;
  bool skipping = false;  // the rest of a line that was too long
  for (;;) {
    const ssize_t got = read_again(fd, buffer + length, sizeof(buffer) - length);
    if (got < 0) *error = errno;
    if (got <= 0) break;
    length += static_cast<std::size_t>(got);

    std::size_t start = 0;
    while (const void *end = std::memchr(buffer + start, '\n', length - start)) {
      const std::size_t stop = static_cast<std::size_t>(static_cast<const char *>(end) - buffer);
      if (!skipping) see(context, std::string_view(buffer + start, stop - start));
      skipping = false;
      start = stop + 1;
    }
    std::memmove(buffer, buffer + start, length - start);
    length -= start;
    if (length == sizeof(buffer)) {
      if (!skipping) see(context, std::string_view(buffer, length));
      skipping = true;
      length = 0;
    }
  }
  if (length > 0 && !skipping) see(context, std::string_view(buffer, length));
  close(fd);
  return *error == 0;
}

void add_path(TextWriter &writer, const SystemPath &path) {
  if (path.tree != SystemTree::neither) writer.add(names_of(path.tree).mark).add("/");
  writer.add(path.text + path.relative);
}

void add_read_failure(TextWriter &writer, const SystemPath &path, int error) {
  writer.add(error == 0 ? "there is nothing in \"" : "cannot read \"");
  add_path(writer, path);
  writer.add("\"");
  if (error != 0) writer.add(": ").add(strerror(error));
}

void add_parse_failure(TextWriter &writer, const SystemPath &path) {
  writer.add("cannot make sense of \"");
  add_path(writer, path);
  writer.add("\"");
}

bool look_for_control_groups(CgroupSearch &search, TextWriter &why) {
  const SystemPath mounts = proc_path("self/mountinfo");
  const SystemPath groups = proc_path("self/cgroup");
  int error;
  if (!for_each_system_line(
          mounts, [&search](std::string_view line) { search.see_mountinfo_line(line); }, &error)) {
    add_read_failure(why, mounts, error);
    return false;
  }
  if (!for_each_system_line(
          groups, [&search](std::string_view line) { search.see_cgroup_line(line); }, &error)) {
    add_read_failure(why, groups, error);
    return false;
  }
  return true;
}

const char *shown_system_text(const char *text) {
  StringInfoData shown;
  initStringInfo(&shown);
  while (*text != '\0') {
    const char *rest = text;
    for (const SystemTree tree : {SystemTree::proc, SystemTree::sys}) {
      if (!starts_with(text, names_of(tree).mark)) continue;
      rest += names_of(tree).mark.size();
      append_root(&shown, tree, rest);
      break;
    }
    if (rest == text) appendStringInfoChar(&shown, *rest++);
    text = rest;
  }
  return shown.data;
}

}  // namespace sluice::pg
