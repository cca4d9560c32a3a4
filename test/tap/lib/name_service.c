// SPDX-License-Identifier: PostgreSQL
//
// A name service for tests, loaded before the C library (LD_PRELOAD): look-ups of
// names and of addresses are answered from the file that SLUICE_NAME_SERVICE names.
// Everything else (numbers into text, text into numbers) goes on to the library.
//
//   reverse 127.0.0.2 alpha.example              the name of an address
//   forward alpha.example 127.0.0.2 127.0.0.3    the addresses of a name
//   reverse 127.0.0.4 -                          there is none; likewise forward
//   reverse 127.0.0.5 again                      a temporary failure
//   reverse 127.0.0.6 hang                       no answer until the file says something else
//
// What is not in the file does not exist.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

// The rest of the line that begins with `kind` and `key`; "-" if there is none.
static void find_line(const char *kind, const char *key, char *rest, size_t size) {
  char line[8192];
  const char *path = getenv("SLUICE_NAME_SERVICE");
  FILE *file = path != NULL ? fopen(path, "r") : NULL;

  snprintf(rest, size, "-");
  if (file == NULL) return;
  while (fgets(line, sizeof(line), file) != NULL) {
    char *saved;
    const char *found_kind = strtok_r(line, " \n", &saved);
    const char *found_key = strtok_r(NULL, " \n", &saved);
    const char *found_rest = strtok_r(NULL, "\n", &saved);
    if (found_rest == NULL || strcmp(found_kind, kind) != 0 || strcmp(found_key, key) != 0) continue;
    snprintf(rest, size, "%s", found_rest);
    break;
  }
  fclose(file);
}

static int ask(const char *kind, const char *key, char *rest, size_t size) {
  const struct timespec moment = {0, 20000000};

  for (;;) {
    find_line(kind, key, rest, size);
    if (strcmp(rest, "hang") != 0) break;
    nanosleep(&moment, NULL);
  }
  if (strcmp(rest, "again") == 0) return EAI_AGAIN;
  return strcmp(rest, "-") == 0 ? EAI_NONAME : 0;
}

int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size, char *service,
                socklen_t service_size, int flags) {
  int (*library)(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);
  char number[NI_MAXHOST], name[8192];

  *(void **)&library = dlsym(RTLD_NEXT, "getnameinfo");
  if ((flags & NI_NAMEREQD) == 0) return library(address, length, host, host_size, service, service_size, flags);
  int error = library(address, length, number, sizeof(number), NULL, 0, NI_NUMERICHOST);
  if (error == 0) error = ask("reverse", number, name, sizeof(name));
  if (error == 0) snprintf(host, host_size, "%s", name);
  return error;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
  int (*library)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  char numbers[8192], *saved;
  struct addrinfo **end = result;

  *(void **)&library = dlsym(RTLD_NEXT, "getaddrinfo");
  if (name == NULL || service != NULL || hints != NULL) return library(name, service, hints, result);
  const int error = ask("forward", name, numbers, sizeof(numbers));
  if (error != 0) return error;
  for (const char *number = strtok_r(numbers, " ", &saved); number != NULL; number = strtok_r(NULL, " ", &saved)) {
    const struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    const int failed = library(number, NULL, &numeric, end);
    if (failed != 0) return failed;
    while (*end != NULL) end = &(*end)->ai_next;
  }
  return 0;
}
