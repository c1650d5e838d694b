// SPDX-License-Identifier: Apache-2.0

// Code that LD_PRELOAD brings into a program: before main it sends the request that
// INJECT says, "METHOD HOST PATH", and prints the status of the answer.

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((constructor)) static void inject(void)
{
	char method[16], host[64], path[64], request[256], answer[64];
	const char *said = getenv("INJECT");
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *to;
	int fd, n;

	if (!said || sscanf(said, "%15s %63s %63s", method, host, path) != 3)
		return;
	if (getaddrinfo(host, "80", &hints, &to)) {
		puts("injected: no address");
		return;
	}
	fd = socket(to->ai_family, SOCK_STREAM, 0);
	n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, path, host);
	if (connect(fd, to->ai_addr, to->ai_addrlen) || write(fd, request, n) != n) {
		puts("injected: not connected");
		return;
	}
	n = read(fd, answer, sizeof answer - 1);
	answer[n > 12 ? 12 : n > 0 ? n : 0] = 0;
	printf("injected: %s\n", answer);
	fflush(stdout);
	freeaddrinfo(to);
	close(fd);
}
