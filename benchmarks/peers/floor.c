/* floor: the physical limit that a server is held against. One thread, epoll, no limits, no safety and nothing else to
 * do: what is left is the kernel's cost of send(). It speaks the same protocol as everybody here: GET /ws answers text x
 * with `Echo: x`, GET /events reads the room as server-sent events, any other path is the room.
 *
 *   floor PORT batch    what one round of epoll brought is joined, and sent once to each client
 *   floor PORT direct   one send() for each text and client
 *
 * `batch` is the floor that is meant where only "floor" is said: it is the lower one wherever more than one text comes
 * at a time, and the same where one does. It knows the handshake of rtload only, and a client that does not read gets
 * what its socket takes, from wherever that is in the stream. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ECHO, CHAT, EVENTS, KINDS, MOST = 200000, ROOM_FOR_A_FRAME = 1 << 17 };
/* The key that is accepted is that of rtload's fixed Sec-WebSocket-Key. */
static const char upgraded[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char stream[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

typedef struct { int fd, open, kind, slot, n; char name[32]; unsigned char in[ROOM_FOR_A_FRAME]; } conn;
/* Who is in the room and what is to be sent to them, for each kind of client. */
static conn *members[KINDS][MOST];
static int nmembers[KINDS], npending[KINDS], batch;
static unsigned char pending[KINDS][1 << 22];

static int frame(unsigned char *o, const char *a, int na, const void *b, int nb) {
  int n = na + nb, k = 0;
  o[k++] = 0x81;
  if (n < 126) o[k++] = n;
  else { o[k++] = 126; o[k++] = n >> 8; o[k++] = n; }
  memcpy(o + k, a, na);
  memcpy(o + k + na, b, nb);
  return k + n;
}
static void send_all(int kind) {
  for (int i = 0; i < nmembers[kind]; i++) send(members[kind][i]->fd, pending[kind], npending[kind], MSG_NOSIGNAL);
  npending[kind] = 0;
}
static void publish(const char *a, const void *b, int nb) {
  for (int kind = CHAT; kind <= EVENTS; kind++) {
    unsigned char *o = pending[kind] + npending[kind];
    if (kind == CHAT) npending[kind] += frame(o, a, strlen(a), b, nb);
    else npending[kind] += sprintf((char *)o, "data: %s%.*s\n\n", a, nb, (const char *)b);
    if (!batch || npending[kind] > 1 << 21) send_all(kind);
  }
}
static void enter(conn *c) { c->slot = nmembers[c->kind]; members[c->kind][nmembers[c->kind]++] = c; }
static void drop(conn *c) {
  if (c->slot >= 0) {
    conn *last = members[c->kind][--nmembers[c->kind]];
    members[c->kind][last->slot = c->slot] = last;
    if (c->kind == CHAT) { c->name[strlen(c->name) - 2] = 0; publish(c->name, " left the chat", 14); }
  }
  close(c->fd);
  free(c);
}
static void heard(conn *c, const unsigned char *d, int n) {
  if (c->kind == ECHO) {
    unsigned char o[ROOM_FOR_A_FRAME];
    send(c->fd, o, frame(o, "Echo: ", 6, d, n), MSG_NOSIGNAL);
  } else if (c->slot < 0) {
    snprintf(c->name, sizeof c->name - 2, "%.*s", n, d);
    enter(c);
    publish(c->name, " joined the chat", 16);
    strcat(c->name, ": ");
  } else publish(c->name, d, n);
}
/* 0 when the client is gone. */
static int read_from(conn *c) {
  int k = recv(c->fd, c->in + c->n, sizeof c->in - c->n, 0), at = 0;
  if (k <= 0) return k < 0 && errno == EAGAIN;
  c->n += k;
  if (!c->open) {
    char *end = memmem(c->in, c->n, "\r\n\r\n", 4);
    if (!end) return 1;
    at = end + 4 - (char *)c->in;
    c->open = 1;
    c->kind = !memcmp(c->in, "GET /ws ", 8) ? ECHO : !memcmp(c->in, "GET /events ", 12) ? EVENTS : CHAT;
    if (c->kind == EVENTS) { send(c->fd, stream, sizeof stream - 1, MSG_NOSIGNAL); enter(c); }
    else send(c->fd, upgraded, sizeof upgraded - 1, MSG_NOSIGNAL);
  }
  while (c->kind != EVENTS && c->n - at >= 6) {
    unsigned char *p = c->in + at, *mask;
    int length = p[1] & 127, head = 2;
    if (length == 126) { length = p[2] << 8 | p[3]; head = 4; }
    if (c->n - at < head + 4 + length) break;
    if ((p[0] & 15) == 8) return 0;
    mask = p + head;
    for (int i = 0; i < length; i++) mask[4 + i] ^= mask[i & 3];
    if ((p[0] & 15) == 1) heard(c, mask + 4, length);
    at += head + 4 + length;
  }
  memmove(c->in, c->in + at, c->n -= at);
  return 1;
}
int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: floor PORT batch|direct\n"), 2;
  batch = !strcmp(argv[2], "batch");
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, epoll = epoll_create1(0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) return perror("floor"), 1;
  struct epoll_event e = {.events = EPOLLIN}, events[512];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int n = epoll_wait(epoll, events, 512, -1);
    for (int i = 0; i < n; i++) {
      conn *c = events[i].data.ptr;
      if (c) { if (!read_from(c)) drop(c); continue; }
      int fd = accept4(listener, 0, 0, SOCK_NONBLOCK);
      if (fd < 0) continue;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      c = calloc(1, sizeof *c);
      c->fd = fd;
      c->slot = -1;
      e.data.ptr = c;
      epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
    for (int kind = CHAT; kind <= EVENTS; kind++) if (npending[kind]) send_all(kind);
  }
}
