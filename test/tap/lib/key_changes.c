/* SPDX-License-Identifier: PostgreSQL
 *
 * A client that changes the keys of TLS 1.3 (KeyUpdate), which neither libpq nor Net::SSLeay can be asked to do.
 *
 *   key_changes ADDRESS PORT USER DATABASE login|session|queries COUNT
 *
 * With "login" it sends COUNT changes as soon as the handshake is over, with "session" once it has been let in, with
 * "queries" one before each of COUNT queries.  Prints "ready" when the flood begins, and then
 *
 *   dropped     the server ended the connection before it had taken all of it, or answered a query
 *   taken       it took all of it
 *   served      every query was answered
 *
 * The records of a flood are made by OpenSSL in memory and sent many at a time.  An alarm ends whoever is kept waiting.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/ssl.h>

static int descriptor;
static SSL *connection;
static BIO *from_network, *to_network;

static void
fail(const char *what)
{
	printf("failed: %s\n", what);
	exit(1);
}

/* Zero: the server does not take it. */
static int
flush_output(void)
{
	char buffer[16384];
	int length;

	while ((length = BIO_read(to_network, buffer, sizeof(buffer))) > 0)
		for (int done = 0; done < length;)
		{
			ssize_t sent = send(descriptor, buffer + done, length - done, MSG_NOSIGNAL);

			if (sent <= 0)
				return 0;
			done += sent;
		}
	return 1;
}

/* Zero: nothing more comes. */
static int
take_input(void)
{
	char buffer[16384];
	ssize_t got = recv(descriptor, buffer, sizeof(buffer), 0);

	if (got <= 0)
		return 0;
	BIO_write(from_network, buffer, got);
	return 1;
}

static void
shake_hands(void)
{
	while (SSL_do_handshake(connection) != 1)
	{
		if (!flush_output() || !take_input())
			fail("no handshake");
	}
	if (!flush_output())
		fail("no end of the handshake");
}

static int
say(const void *bytes, int length)
{
	if (SSL_write(connection, bytes, length) != length)
		fail("could not encrypt");
	return flush_output();
}

/* Reads up to ReadyForQuery, or zero at the end of the stream. */
static int
read_until_ready(void)
{
	static unsigned char buffer[65536];
	static int length = 0;

	for (;;)
	{
		int start = 0, got;

		while (length - start >= 5)
		{
			int size = 1 + (buffer[start + 1] << 24 | buffer[start + 2] << 16 | buffer[start + 3] << 8 | buffer[start + 4]);
			int ready = buffer[start] == 'Z';

			if (size > length - start)
				break;
			start += size;
			if (ready)
			{
				memmove(buffer, buffer + start, length -= start);
				return 1;
			}
		}
		memmove(buffer, buffer + start, length -= start);
		got = SSL_read(connection, buffer + length, sizeof(buffer) - length);
		if (got > 0)
			length += got;
		else if (SSL_get_error(connection, got) != SSL_ERROR_WANT_READ || !flush_output() || !take_input())
			return 0;
	}
}

static void
start_session(const char *user, const char *database)
{
	char packet[512] = {0, 0, 0, 0, 0, 3, 0, 0};
	int length = 8;

	length += sprintf(packet + length, "user%c%s", 0, user) + 1;
	length += sprintf(packet + length, "database%c%s", 0, database) + 2;
	packet[2] = (char) (length >> 8);
	packet[3] = (char) length;
	if (!say(packet, length) || !read_until_ready())
		fail("not let in");
}

static int
change_key(void)
{
	return SSL_key_update(connection, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(connection) == 1;
}

/* True if all of it was taken. */
static int
flood(int count)
{
	printf("ready\n");
	fflush(stdout);
	for (int i = 0; i < count; i++)
	{
		if (!change_key())
			fail("could not change the key");
		if ((i % 5000 == 4999 || i + 1 == count) && !flush_output())
			return 0;
	}
	return 1;
}

int
main(int argc, char **argv)
{
	static const unsigned char request[8] = {0, 0, 0, 8, 4, 210, 22, 47};
	static const char query[] = "Q\0\0\0\015SELECT 1";
	struct sockaddr_in address = {.sin_family = AF_INET};
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	const char *patience = getenv("PG_TEST_TIMEOUT_DEFAULT");
	char answer;
	int count;

	if (argc != 7)
		fail("wrong number of arguments");
	alarm(patience != NULL ? atoi(patience) : 180);
	count = atoi(argv[6]);
	address.sin_port = htons(atoi(argv[2]));
	descriptor = socket(AF_INET, SOCK_STREAM, 0);
	if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1 ||
		connect(descriptor, (struct sockaddr *) &address, sizeof(address)) != 0)
		fail("no connection");
	if (send(descriptor, request, sizeof(request), MSG_NOSIGNAL) != sizeof(request) ||
		recv(descriptor, &answer, 1, 0) != 1 || answer != 'S')
		fail("no encryption");
	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	connection = SSL_new(context);
	from_network = BIO_new(BIO_s_mem());
	to_network = BIO_new(BIO_s_mem());
	SSL_set_bio(connection, from_network, to_network);
	BIO_set_mem_eof_return(from_network, -1);
	SSL_set_connect_state(connection);
	shake_hands();
	if (strcmp(argv[5], "login") != 0)
		start_session(argv[3], argv[4]);
	if (strcmp(argv[5], "queries") != 0)
	{
		printf(flood(count) ? "taken\n" : "dropped\n");
		return 0;
	}
	for (int i = 0; i < count; i++)
	{
		/* Sometimes in one piece with what follows. */
		if (!change_key() || (i % 2 == 0 && !flush_output()) || !say(query, sizeof(query)) || !read_until_ready())
		{
			printf("dropped\n");
			return 0;
		}
	}
	printf("served\n");
	return 0;
}
