/* The floor: a loop around send(). Serves /events and /publish?count=N&gap=SECONDS on a port of 127.0.0.1, one thread.
 * What it sends is what the other servers send: chunked "data: NUMBER NANOSECONDS" events. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    signal(SIGPIPE, SIG_IGN);
    alarm(180); /* it stops by itself */
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, count = 0, room = 20000, number = 0;
    int *streams = calloc(room, sizeof *streams);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 2048)) return 1;
    for (;;) {
        char request[4096];
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        ssize_t size = read(fd, request, sizeof request - 1);
        if (size <= 0) { close(fd); continue; }
        request[size] = 0;
        if (strstr(request, "GET /events") == request && count < room) {
            const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n:\n\r\n";
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            send(fd, head, strlen(head), MSG_NOSIGNAL);
            streams[count++] = fd;
            continue;
        }
        int events = 0;
        double gap = 0;
        char *query = strchr(request, '?');
        if (query) sscanf(query, "?count=%d&gap=%lf", &events, &gap);
        for (int left = events; left > 0; left--) {
            int n = ++number;
            struct timespec t;
            char event[128], frame[160];
            clock_gettime(CLOCK_MONOTONIC, &t);
            int length = snprintf(event, sizeof event, "id: %d\ndata: %d %llu\n\n", n, n, (unsigned long long)t.tv_sec * 1000000000ull + t.tv_nsec);
            int framed = snprintf(frame, sizeof frame, "%x\r\n%s\r\n", length, event);
            for (int i = 0; i < count; i++) send(streams[i], frame, framed, MSG_DONTWAIT | MSG_NOSIGNAL);
            usleep((useconds_t)(gap * 1e6));
        }
        const char *answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
        send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        close(fd);
    }
}
