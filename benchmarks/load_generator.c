/* Holds many event streams on one port of 127.0.0.1 and says what arrived when.
 *
 *     load_generator PORT PATH COUNT SECONDS [STALLED]
 *
 * Opens COUNT connections (the first STALLED of them never read after the head), prints "open" once each has its first
 * byte of body, then reads until standard input ends or SECONDS are over, and prints one line of JSON. An event is a line
 * "data: NUMBER NANOSECONDS" with the sender's CLOCK_MONOTONIC. Bounded in time and count; loopback only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, HEAD, OPEN, CLOSED };
struct stream { int fd, state, carried; uint64_t next, events, lost, doubled; char carry[96]; };

static struct stream *streams;
static int epoll_fd, opened, closed_count, failed;
static uint64_t total, lost, doubled;
static uint32_t *delays;
static size_t delay_count, delay_room;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void keep(uint64_t delay_us) {
    if (delay_count == delay_room) {
        delay_room = delay_room ? delay_room * 2 : 1 << 20;
        delays = realloc(delays, delay_room * sizeof *delays);
        if (!delays) exit(3);
    }
    delays[delay_count++] = delay_us > UINT32_MAX ? UINT32_MAX : (uint32_t)delay_us;
}

static void line(struct stream *s, const char *text, uint64_t now) {
    unsigned long long number, sent;
    if (sscanf(text, "data: %llu %llu", &number, &sent) != 2) return;
    s->events++; total++;
    if (s->next && number > s->next) { s->lost += number - s->next; lost += number - s->next; }
    if (s->next && number < s->next) { s->doubled++; doubled++; }
    s->next = number + 1;
    keep(now > sent ? (now - sent) / 1000 : 0);
}

static void take(struct stream *s, char *data, ssize_t size) {
    static char buffer[96 + 65536 + 1];
    memcpy(buffer, s->carry, s->carried);
    memcpy(buffer + s->carried, data, size);
    size += s->carried;
    buffer[size] = 0;
    char *start = buffer, *end = buffer + size, *stop;
    if (s->state == HEAD) {
        char *body = strstr(buffer, "\r\n\r\n");
        if (!body || body + 4 >= end) { s->carried = size > 4 ? 4 : (int)size; memmove(s->carry, end - s->carried, s->carried); return; }
        if (strncmp(buffer, "HTTP/1.", 7) == 0 && strncmp(buffer + 9, "200", 3) != 0) { failed++; }
        s->state = OPEN; opened++;
        start = body + 4;
    }
    uint64_t now = now_ns();
    while ((stop = memchr(start, '\n', end - start))) {
        if (*start == 'd') { *stop = 0; line(s, start, now); }
        start = stop + 1;
    }
    s->carried = end - start < (long)sizeof s->carry ? (int)(end - start) : 0;
    memcpy(s->carry, start, s->carried);
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double p) { return delay_count ? delays[(size_t)((delay_count - 1) * p)] / 1000.0 : -1; }

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int port = atoi(argv[1]), count = atoi(argv[3]), stalled = argc > 5 ? atoi(argv[5]) : 0;
    double seconds = atof(argv[4]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    char request[512];
    int request_size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", argv[2]);
    streams = calloc(count, sizeof *streams);
    epoll_fd = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = UINT64_MAX}, events[512];
    int stdin_open = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event) == 0, said = 0, started = 0, pending = 0;
    uint64_t began = now_ns(), limit_ns = began + (uint64_t)(seconds * 1e9), opened_at = 0;
    (void)stdin_open;
    while (now_ns() < limit_ns) {
        while (started < count && pending < 128) {
            struct stream *s = &streams[started];
            s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            /* many connections to one port: each 127.0.0.x has ports of its own */
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + started % 8)};
            int one = 1;
            setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
            if (s->fd < 0 || bind(s->fd, (void *)&source, sizeof source) < 0) { perror("socket"); return 1; }
            if (started < stalled) { int small = 4096; setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small); }
            if (connect(s->fd, (void *)&address, sizeof address) < 0 && errno != EINPROGRESS) { perror("connect"); return 1; }
            event = (struct epoll_event){.events = EPOLLOUT, .data.u64 = started};
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event);
            started++; pending++;
        }
        int ready = epoll_wait(epoll_fd, events, 512, 100);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 == UINT64_MAX) {
                char ignored[64];
                if (read(0, ignored, sizeof ignored) <= 0) limit_ns = 0;
                continue;
            }
            struct stream *s = &streams[events[i].data.u64];
            if (s->state == CONNECTING) {
                if (write(s->fd, request, request_size) != request_size) { perror("write"); return 1; }
                s->state = HEAD;
                event = (struct epoll_event){.events = EPOLLIN, .data.u64 = events[i].data.u64};
                epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event);
                continue;
            }
            static char data[65536];
            ssize_t size = read(s->fd, data, s->state == HEAD ? 4096 : sizeof data);
            if (size > 0) {
                int was = s->state;
                take(s, data, size);
                if (was == HEAD && s->state == OPEN) {
                    pending--;
                    if ((int)events[i].data.u64 < stalled) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
                }
            } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
                if (s->state == HEAD) { pending--; failed++; }
                s->state = CLOSED; closed_count++;
                close(s->fd);
            }
        }
        if (!said && opened == count) {
            said = 1; opened_at = now_ns();
            printf("open %.3f\n", (opened_at - began) / 1e9);
            fflush(stdout);
        }
    }
    qsort(delays, delay_count, sizeof *delays, by_size);
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = stalled; i < count; i++) {
        if (streams[i].events < least) least = streams[i].events;
        if (streams[i].events > most) most = streams[i].events;
    }
    printf("{\"opened\": %d, \"failed\": %d, \"closed\": %d, \"events\": %llu, \"lost\": %llu, \"doubled\": %llu, \"least\": %llu, \"most\": %llu, "
           "\"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
           opened, failed, closed_count, (unsigned long long)total, (unsigned long long)lost, (unsigned long long)doubled,
           (unsigned long long)least, (unsigned long long)most, percentile(.5), percentile(.9), percentile(.99), percentile(1));
    return 0;
}
